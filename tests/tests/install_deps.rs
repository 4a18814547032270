//! `deploy/install-deps.sh` on a machine of stubs: what it asks of apt and sudo, and what it says where they fail.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the script uses of any machine.
const TOOLS: [&str; 8] = [
    "awk", "bash", "env", "head", "readlink", "sed", "sort", "true",
];
/// The programs that the script looks for instead of their packages.
const PROGRAMS: [&str; 12] = [
    "aarch64-linux-gnu-gcc",
    "arm-linux-gnueabihf-gcc",
    "ffmpeg",
    "g++",
    "gcc",
    "git",
    "make",
    "openssl",
    "qemu-aarch64-static",
    "qemu-system-aarch64",
    "strace",
    "x86_64-linux-gnu-gcc",
];

/// Notes its call. With a network it installs what it is told to, of which the script may then look for a program.
const APT_GET: &str = r#"
echo "apt-get $DEBIAN_FRONTEND: $*" >>calls
case " $* " in *" --version "*) exit 0 ;; esac
[ -e network ] || { echo "E: Unable to fetch some archives" >&2; exit 100; }
for argument; do
    case $argument in
        -*) ;;
        *) : >"installed/$argument" ;;
    esac
done
"#;

/// Lets do what `sudoers` says: `all`, `password` (once `-v` has asked for it), `apt-get` or nothing.
const SUDO: &str = r#"
echo "sudo $*" >>calls
read -r policy <sudoers
[ "$policy" != asked ] || policy=all
is_patient=yes
while :; do
    case ${1-} in
        -n) is_patient=no; shift ;;
        -v) case $policy in
                all) exit 0 ;;
                password) [ "$is_patient" = yes ] && echo asked >sudoers; exit ;;
                *) echo "sudo: a password is required" >&2; exit 1 ;;
            esac ;;
        *) break ;;
    esac
done
case $policy:$1 in
    all:* | apt-get:apt-get) exec "$@" ;;
    *) echo "sudo: a password is required" >&2; exit 1 ;;
esac
"#;

/// As much of Debian's package list as the script asks for.
const DPKG_QUERY: &str = r#"
case $1 in
    -W) [ -e "installed/$4" ] || exit 1; printf installed ;;
    -S) [ -e debian-cargo ] ;;
esac
"#;

const CARGO: &str = r#"
if [ -e installed/cargo-web ]; then echo 'cargo 1.95.0 (newer)'; else echo "cargo $(<cargo-version)"; fi
"#;

/// A machine on which there is nothing but stubs, and the tools that the script uses.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    /// One with a network and with cargo; the script runs on it as root.
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let machine = Self { folder };
        for name in ["bin", "installed"] {
            fs::create_dir(machine.path(name)).expect("created");
        }
        for tool in TOOLS {
            let paths = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(tool));
            let path = paths.iter().find(|path| path.exists());
            let path = path.unwrap_or_else(|| panic!("{tool} is not there"));
            symlink(path, machine.path("bin").join(tool)).expect("linked");
        }
        machine.stub("apt-get", APT_GET);
        machine.stub("dpkg-query", DPKG_QUERY);
        machine.stub("cargo", CARGO);
        machine.stub("id", "read -r user <user; echo \"$user\"");
        for (name, text) in [
            ("calls", ""),
            ("network", ""),
            ("user", "0\n"),
            ("cargo-version", "1.95.0 (f2d3ce0bd 2026-03-21)"),
        ] {
            machine.write(name, text);
        }
        machine
    }

    /// One on which an ordinary user runs the script, whom sudo lets do so much; without `sudoers` there is no sudo.
    fn of_a_user(sudoers: Option<&str>) -> Self {
        let machine = Self::new();
        machine.write("user", "1000\n");
        if let Some(policy) = sudoers {
            machine.stub("sudo", SUDO);
            machine.write("sudoers", &format!("{policy}\n"));
        }
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    fn stub(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/usr/bin/env bash\n{script}")).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
    }

    fn install(&self, packages: &[&str]) {
        for package in packages {
            self.write(&format!("installed/{package}"), "");
        }
    }

    /// The exit code of the script, and what it said.
    fn run(&self, groups: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(self.path("bin").join("bash"))
            .arg(script())
            .args(groups)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", self.path("bin"))
            // What lies at fixed places is there or not whatever the stubs say.
            .env("LIBCLANG_PATH", "/nonexistent")
            .env("DEMO_VIDEO", "street.avi")
            .stdin(Stdio::null())
            .output()
            .expect("bash runs");
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    /// What was asked of apt and sudo.
    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.path("calls")).expect("readable");
        calls.lines().map(String::from).collect()
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/install-deps.sh")
}

/// The groups that the script's first lines name.
fn groups() -> Vec<String> {
    let text = fs::read_to_string(script()).expect("readable");
    let line = text.lines().find_map(|line| line.strip_prefix("# Groups:"));
    let groups = line.expect("the script names its groups");
    groups.split_whitespace().map(String::from).collect()
}

/// How apt is called to install these.
fn installation(frontend: &str, packages: &str) -> String {
    format!(
        "apt-get {frontend}: -q -o Acquire::Retries=3 install -y --no-install-recommends --reinstall \
         -o Dpkg::Options::=--path-include=/usr/share/doc/opencv-doc/* {packages}"
    )
}

fn assert_installed(machine: &Machine, frontend: &str, packages: &str) {
    let calls = machine.calls();
    let update = format!("apt-get {frontend}: -q -o Acquire::Retries=3 update");
    let apt: Vec<&String> = calls
        .iter()
        .filter(|call| call.starts_with("apt-get") && !call.contains("--version"))
        .collect();
    assert_eq!(apt, [&update, &installation(frontend, packages)]);
}

#[test]
fn nothing_is_touched_where_everything_is_there() {
    let machine = Machine::of_a_user(Some("password"));
    for program in PROGRAMS {
        machine.stub(program, "");
    }
    // These it may find in /usr/sbin, too.
    machine.stub("mosquitto", "");
    machine.stub("nats-server", "");
    machine.stub(
        "dpkg-query",
        "case $1 in -W) printf installed ;; *) exit 1 ;; esac",
    );
    let groups = groups();
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    assert_eq!(machine.run(&groups), (Some(0), String::new()));
    assert_eq!(machine.calls(), [""; 0]);
}

#[test]
fn root_installs_what_is_missing_and_nothing_else() {
    let machine = Machine::new();
    machine.install(&["dpkg-dev"]);
    machine.stub("gcc", "");
    let (code, said) = machine.run(&["deb", "build", "deb"]);
    assert_eq!(code, Some(0), "{said}");
    assert_installed(&machine, "noninteractive", "debhelper libc6-dev lintian");
    let named = "install-deps: installing: debhelper libc6-dev lintian";
    assert!(said.contains(named), "{said}");
}

#[test]
fn what_the_tests_run_is_installed_for_them() {
    let machine = Machine::new();
    machine.stub("mosquitto", "");
    let (code, said) = machine.run(&["test"]);
    assert_eq!(code, Some(0), "{said}");
    assert_installed(&machine, "noninteractive", "ffmpeg git openssl strace");
}

#[test]
fn an_ordinary_user_goes_through_sudo() {
    for policy in ["all", "password"] {
        let machine = Machine::of_a_user(Some(policy));
        let (code, said) = machine.run(&["deb-test"]);
        assert_eq!(code, Some(0), "{policy}: {said}");
        assert_installed(&machine, "noninteractive", "mmdebstrap");
        let calls = machine.calls();
        let as_root = "sudo env DEBIAN_FRONTEND=noninteractive apt-get ";
        let count = calls.iter().filter(|call| call.starts_with(as_root));
        assert_eq!(count.count(), 2, "{calls:?}");
    }
}

#[test]
fn a_user_who_may_run_apt_get_only_is_not_asked_for_a_password() {
    let machine = Machine::of_a_user(Some("apt-get"));
    let (code, said) = machine.run(&["deb-test"]);
    assert_eq!(code, Some(0), "{said}");
    assert_installed(&machine, "", "mmdebstrap");
    let calls = machine.calls();
    assert!(!calls.iter().any(|call| call == "sudo -v"), "{calls:?}");
    assert!(!said.contains("password"), "{said}");
}

#[test]
fn who_cannot_become_root_is_told_what_root_has_to_run() {
    for sudoers in [None, Some("nothing")] {
        let machine = Machine::of_a_user(sudoers);
        let (code, said) = machine.run(&["deb", "fuzz"]);
        assert_eq!(code, Some(69), "{said}");
        let told = "missing, and only root may install it: apt-get install debhelper dpkg-dev g++ lintian\n";
        assert!(said.contains(told), "{said}");
        let calls = machine.calls();
        assert!(!calls.iter().any(|call| call.starts_with("apt-get")));
    }
}

#[test]
fn without_network_every_missing_package_is_named() {
    for machine in [Machine::new(), Machine::of_a_user(Some("all"))] {
        fs::remove_file(machine.path("network")).expect("removed");
        machine.install(&["dpkg-dev"]);
        let (code, said) = machine.run(&["deb", "fuzz"]);
        assert_eq!(code, Some(69), "{said}");
        let missing: Vec<&str> = said
            .lines()
            .filter_map(|line| line.strip_prefix("install-deps: missing: "))
            .collect();
        assert_eq!(missing, ["debhelper", "g++", "lintian"], "{said}");
        assert!(said.contains("is this machine online"), "{said}");
    }
}

#[test]
fn without_apt_every_missing_package_is_named() {
    let machine = Machine::new();
    fs::remove_file(machine.path("bin").join("apt-get")).expect("removed");
    let (code, said) = machine.run(&["deb"]);
    assert_eq!(code, Some(69), "{said}");
    let named = "there is no apt to install it (names are Debian's): debhelper dpkg-dev lintian\n";
    assert!(said.contains(named), "{said}");
}

#[test]
fn debians_old_cargo_is_replaced_and_another_old_one_is_not() {
    for is_debians in [true, false] {
        let machine = Machine::new();
        machine.install(&["libc6-dev"]);
        machine.stub("gcc", "");
        machine.write("cargo-version", "0.66.0");
        if is_debians {
            machine.write("debian-cargo", "");
        }
        let (code, said) = machine.run(&["build"]);
        if is_debians {
            assert_eq!(code, Some(0), "{said}");
            assert_installed(&machine, "noninteractive", "cargo-web rustc-web");
        } else {
            assert_eq!(code, Some(69), "{said}");
            assert!(
                said.contains("cargo 0.66.0 does not work or is older than 1.95.0"),
                "{said}"
            );
            assert!(said.contains("rustup toolchain install"), "{said}");
            assert_eq!(machine.calls(), [""; 0]);
        }
    }
}

#[test]
fn a_group_that_is_not_known_is_named_and_without_one_the_groups_are() {
    let machine = Machine::new();
    let (code, said) = machine.run(&["demmo"]);
    assert_eq!(
        (code, said.as_str()),
        (Some(64), "install-deps: no such group: demmo\n")
    );
    let (code, said) = machine.run(&[]);
    assert_eq!(code, Some(64));
    assert!(
        said.contains("Groups: build check demo cards test"),
        "{said}"
    );
    assert_eq!(machine.calls(), [""; 0]);
}
