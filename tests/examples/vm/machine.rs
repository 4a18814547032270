//! An emulated ARM machine: power, a shell in it, and what its system says of the daemon.

use crate::PATIENCE;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use system_tests::broker::free_port;
use tempfile::TempDir;

const GUEST: &str = "root@127.0.0.1";

/// A machine, its disk, and the process that emulates it while its power is on.
pub(crate) struct Machine {
    folder: PathBuf,
    port: u16,
    process: Option<Child>,
    /// Where its one ssh connection waits for the next command: an emulated processor takes seconds to agree on keys.
    lines: TempDir,
}

impl Machine {
    /// A machine that was never on, with a disk of its own, from what `deploy/vm/image.sh` left in a folder.
    pub(crate) fn new(folder: &Path) -> Self {
        let machine = Self {
            folder: folder.to_owned(),
            port: free_port(),
            process: None,
            lines: tempfile::tempdir().expect("a temporary folder"),
        };
        let copied = Command::new("cp")
            .arg("--sparse=always")
            .args([machine.path("base.ext4"), machine.path("disk.ext4")])
            .status();
        let is_copied = copied.is_ok_and(|status| status.success());
        assert!(
            is_copied,
            "the disk was not copied: is {} there?",
            machine.path("base.ext4").display()
        );
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Starts it, and waits until somebody can log in: how long that took.
    pub(crate) fn power_on(&mut self) -> Duration {
        let started = Instant::now();
        let disk = format!(
            "if=none,id=disk,format=raw,file={},cache=unsafe",
            self.path("disk.ext4").display()
        );
        let network = format!("user,id=net,hostfwd=tcp:127.0.0.1:{}-:22", self.port);
        let serial = format!("file:{}", self.path("console").display());
        let log = File::create(self.path("qemu")).expect("created");
        let process = Command::new("qemu-system-aarch64")
            .args(
                "-M virt,gic-version=3 -cpu cortex-a72 -smp 2 -m 1024 -accel tcg,thread=multi"
                    .split(' '),
            )
            .args("-nodefaults -nographic -monitor none -device virtio-rng-pci".split(' '))
            .args([
                "-append",
                "root=/dev/vda rw console=ttyAMA0 net.ifnames=0 quiet mitigations=off",
            ])
            .args(["-drive", &disk, "-device", "virtio-blk-pci,drive=disk"])
            .args([
                "-netdev",
                &network,
                "-device",
                "virtio-net-pci,netdev=net,romfile=",
            ])
            .args(["-serial", &serial, "-kernel"])
            .arg(self.path("vmlinuz"))
            .arg("-initrd")
            .arg(self.path("initrd.img"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn();
        self.process = Some(process.expect("qemu-system-aarch64 starts"));
        self.wait_until("the machine to answer", || self.try_run("true").is_some());
        started.elapsed()
    }

    /// Takes its power away, in the middle of whatever it does.
    pub(crate) fn cut_power(&mut self) {
        if let Some(mut process) = self.process.take() {
            kill_process(Pid::from_child(&process), Signal::KILL).expect("it is our child");
            process.wait().expect("it is our child");
            // Whoever asks next has to connect anew. There is nothing to remove if nobody did.
            drop(fs::remove_file(self.line()));
        }
    }

    fn line(&self) -> PathBuf {
        self.lines.path().join("ssh")
    }

    /// Runs a shell script in it as root: what it printed. Fails with the script.
    pub(crate) fn run(&self, script: &str) -> String {
        let output = self.shell(script, Stdio::null());
        assert!(
            output.status.success(),
            "{script}\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The same, if the script and the way to the machine work.
    pub(crate) fn try_run(&self, script: &str) -> Option<String> {
        let output = self.shell(script, Stdio::null());
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(text)
    }

    /// Runs a command in it as somebody at a terminal would, who types these lines: what the terminal showed.
    pub(crate) fn at_terminal(&self, command: &str, lines: &[&str]) -> String {
        let mut typed = tempfile::tempfile().expect("a temporary file");
        for line in lines {
            writeln!(typed, "{line}").expect("written");
        }
        typed.rewind().expect("it is a file");
        let output = self.ssh(&["-tt"], command, Stdio::from(typed));
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{command}\n{shown}");
        shown
    }

    /// Copies a file into it.
    pub(crate) fn put(&self, file: &Path, to: &str) {
        let content =
            File::open(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let output = self.shell(&format!("cat >{to}"), Stdio::from(content));
        assert!(output.status.success(), "{} was not copied", file.display());
    }

    fn shell(&self, script: &str, input: Stdio) -> Output {
        self.ssh(&[], script, input)
    }

    fn ssh(&self, options: &[&str], script: &str, input: Stdio) -> Output {
        Command::new("ssh")
            .args(options)
            .args(["-q", "-F", "none", "-p", &self.port.to_string(), "-i"])
            .arg(self.path("key"))
            .args(
                "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=30"
                    .split(' '),
            )
            .args("-o BatchMode=yes -o ServerAliveInterval=30 -o ControlMaster=auto -o ControlPersist=yes".split(' '))
            .arg(format!("-oControlPath={}", self.line().display()))
            .args([GUEST, script])
            .stdin(input)
            .output()
            .expect("ssh starts")
    }

    /// Asks again until it is so.
    pub(crate) fn wait_until(&self, what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
        let started = Instant::now();
        while !is_so() {
            assert!(
                started.elapsed() < PATIENCE,
                "waited {PATIENCE:?} for {what}\n{}",
                self.story()
            );
            thread::sleep(Duration::from_millis(500));
        }
        started.elapsed()
    }

    /// A property of the service, as systemd knows it.
    pub(crate) fn service(&self, property: &str) -> String {
        self.run(&format!("systemctl show ternwatch --value -p {property}"))
    }

    /// Waits until the service is ready and its status line says this.
    pub(crate) fn wait_for_status(&self, part: &str) -> Duration {
        self.wait_until(&format!("a status with {part:?}"), || {
            let ask = "systemctl is-active -q ternwatch && systemctl show ternwatch --value -p StatusText";
            self.try_run(ask).is_some_and(|status| status.contains(part))
        })
    }

    /// What the machine's log tells of the daemon, for somebody who looks for a mistake.
    fn story(&self) -> String {
        let journal = "systemctl status ternwatch --no-pager; journalctl -u ternwatch -u feeder --no-pager -o cat | tail -40";
        let console = fs::read_to_string(self.path("console")).unwrap_or_default();
        let lines: Vec<&str> = console.lines().rev().take(10).collect();
        let output = self.shell(journal, Stdio::null());
        format!(
            "{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            lines.join("\n")
        )
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.cut_power();
    }
}
