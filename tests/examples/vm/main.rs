//! The package on a whole emulated ARM machine with two cameras: `make vm-test`, docs/arm-bench.md.
//!
//! Takes what `deploy/vm/image.sh` and `make deb ARCHITECTURES=arm64` left in target/. Installs, watches, updates, and does to the
//! machine what happens to cameras: the camera goes, the broker dies, the daemon hangs, the power is cut. Prints what
//! happened and what it measured, as a page of Markdown; fails at the first thing that is not as promised.

mod machine;
mod site;

use machine::Machine;
use serde_json::json;
use site::{PASSWORD, Site, USER};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// An emulated machine takes a hundred times as long as a board to start programs, and looks at a frame or two a second.
const PATIENCE: Duration = Duration::from_secs(300);
const CONFIG: &str = "/etc/ternwatch/ternwatch.toml";
const PACKAGE: &str = "/var/tmp/ternwatch.deb";
/// The promise for the daemon with the default model.
const MEMORY_MIB_MAX: f64 = 40.0;
const LITE: &str = "models/person-lite.tern";

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the workspace");
    let mut story = Story::begin();
    let mut site = Site::new();
    let mut machine = Machine::new(&root.join("target/vm"));

    let took = machine.power_on();
    story.tell(format!(
        "the machine is up {:.0} s after its power came on",
        took.as_secs_f64()
    ));
    install(&machine, root, &mut story);
    find_the_broker(&machine, root, &mut site, &mut story);
    measure(&machine, &mut site, &mut story);
    push_a_model(&mut machine, root, &mut site, &mut story);
    pull_the_cameras(&machine, &mut site, &mut story);
    site.kill_broker();
    site.see_people(2);
    story.tell("the broker was killed and came back: people are told of again");
    hang(&machine, &mut site, &mut story);
    cut_the_power(&mut machine, &mut site, &mut story);
    machine.run("systemctl stop ternwatch");
    site.device_is("offline");
    let (events, repeated) = site.settle();
    story.tell(format!(
        "of {events} events none is missing, {repeated} came twice"
    ));
}

/// What happened, line by line, with the time since the beginning.
struct Story {
    begun: Instant,
}

impl Story {
    fn begin() -> Self {
        println!("| s | what |\n|---|---|");
        Self {
            begun: Instant::now(),
        }
    }

    fn tell(&mut self, what: impl AsRef<str>) {
        println!("| {} | {} |", self.begun.elapsed().as_secs(), what.as_ref());
    }
}

/// The package of target/deb/ for ARM, the newest if there are several.
fn package(root: &Path) -> PathBuf {
    let folder = root.join("target/deb");
    let files = folder
        .read_dir()
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = files.filter_map(|entry| Some(entry.ok()?.path()));
    let packages = paths.filter(|path| {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| name.starts_with("ternwatch_") && name.ends_with("_arm64.deb"))
    });
    packages
        .max_by_key(|path| path.metadata().and_then(|data| data.modified()).ok())
        .expect("no package for arm64 in target/deb: `make deb ARCHITECTURES=arm64` builds it")
}

/// As the README says. The camera of the packaged settings is there, the broker is not: the status must say so.
fn install(machine: &Machine, root: &Path, story: &mut Story) {
    machine.put(&package(root), PACKAGE);
    let installed = machine.run(&format!(
        "DEBIAN_FRONTEND=noninteractive apt-get install -q -y {PACKAGE} 2>&1"
    ));
    assert!(installed.contains("Setting up ternwatch"), "{installed}");
    machine.wait_for_status("mqtt.host");
    story.tell(format!(
        "`apt install` ended with a service whose status is: {}",
        machine.service("StatusText")
    ));
    let exposure = machine.run("systemd-analyze security ternwatch --no-pager | tail -1");
    story.tell(exposure.trim_start_matches("→ "));
}

/// What differs from site to site, told to `deploy/install.sh` at a terminal. The package is there already.
fn find_the_broker(machine: &Machine, root: &Path, site: &mut Site, story: &mut Story) {
    machine.put(&root.join("deploy/install.sh"), "/var/tmp/install.sh");
    let port = site.port().to_string();
    let as_it_is = "";
    let shown = machine.at_terminal(
        &format!("bash /var/tmp/install.sh {PACKAGE} && rm {PACKAGE}"),
        &[
            as_it_is, // the device's name
            "10.0.2.2", &port, USER, PASSWORD, "yes", // Home Assistant
            as_it_is, as_it_is, // the camera
        ],
    );
    assert!(shown.contains("lets this device in"), "{shown}");
    let readable = machine.try_run("runuser -u ternwatch -- cat /etc/ternwatch/mqtt-password");
    assert_eq!(readable, None, "the password is readable");
    site.device_is("online");
    site.camera_is("ok");
    story.tell(
        "`install.sh` was told of the broker and of an account there: device and camera are there",
    );
    site.see_people(1);
    story.tell("somebody on the street was told of");
}

/// What the daemon takes of the machine. The processor is emulated; memory and written bytes are what a board has.
fn measure(machine: &Machine, site: &mut Site, story: &mut Story) {
    let statistics = site.statistics();
    let moment = |property: &str| {
        machine
            .service(property)
            .parse::<u64>()
            .expect("microseconds")
    };
    let ready_s = (moment("ActiveEnterTimestampMonotonic")
        - moment("ExecMainStartTimestampMonotonic")) as f64
        / 1e6;
    story.tell(format!(
        "ready {ready_s:.1} s after the start of the program (emulated)"
    ));
    let peak_mib = bounded_memory_mib(machine);
    let written = of_process(machine, "io", "write_bytes");
    let up_s = statistics["uptime_s"].as_f64().expect("a number");
    story.tell(format!("memory: {peak_mib:.1} MiB resident at most; written to the disk: {written} bytes in {up_s:.0} s"));
    story.tell(format!(
        "of an emulated core: {} ({} frames/s, inference {} ms)",
        statistics["processor_share"],
        statistics["frames_per_second"],
        statistics["inference_ms"]["p50"]
    ));
}

/// The daemon's resident memory at its largest, which is not too much.
fn bounded_memory_mib(machine: &Machine) -> f64 {
    let peak_mib = of_process(machine, "status", "VmHWM") as f64 / 1024.0;
    assert!(
        peak_mib <= MEMORY_MIB_MAX,
        "{peak_mib:.1} MiB resident, more than {MEMORY_MIB_MAX}"
    );
    peak_mib
}

/// A number of the daemon's process in `/proc`.
fn of_process(machine: &Machine, file: &str, key: &str) -> u64 {
    let pid = machine.service("MainPID");
    let text = machine.run(&format!("grep ^{key}: /proc/{pid}/{file}"));
    text.split_whitespace()
        .nth(1)
        .and_then(|number| number.parse().ok())
        .expect("a number")
}

/// The small model comes over MQTT, is tried on the camera's frames, and stays, though the power goes before its trial and again
/// during it. Whoever sends it just waits.
fn push_a_model(machine: &mut Machine, root: &Path, site: &mut Site, story: &mut Story) {
    let mut push = start_to_push(root, site);
    for states in [&["downloading", "verifying", "staged"][..], &["trial"]] {
        let state = site.update_is(states);
        machine.cut_power();
        site.device_is("offline");
        let took = machine.power_on();
        site.device_is("online");
        story.tell(format!(
            "a model is pushed over MQTT; the power was cut when it was `{state}`, {:.0} s after it came back the machine was up",
            took.as_secs_f64()
        ));
    }
    site.update_is(&["committed"]);
    let status = push.wait().expect("it is our child");
    assert!(status.success(), "the model was not kept: {status}");
    site.see_people(1);
    // Both models were there, and the recorded answers' input.
    let peak_mib = bounded_memory_mib(machine);
    story.tell(format!(
        "the model passed its trial and is in use; {peak_mib:.1} MiB resident at most"
    ));
}

fn start_to_push(root: &Path, site: &Site) -> Child {
    let tool = root.join("target/debug/quant-tool");
    Command::new(&tool)
        .args(["push", "--device", "camera", "--host", "127.0.0.1"])
        .args(["--bundle", LITE, "--key", "models/default.pub"])
        .args(["--port", &site.broker_port().to_string()])
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| {
            let tool = tool.display();
            panic!("{tool}: {error}: `cargo build --workspace` makes it")
        })
}

/// A camera that stalls and comes back as another one would, one that may not be opened, and one that is unplugged in use.
fn pull_the_cameras(machine: &Machine, site: &mut Site, story: &mut Story) {
    machine.run("systemctl stop feeder");
    let reason = site.camera_is("away");
    assert!(reason.contains("no frame from"), "{reason}");
    story.tell(format!("the street camera stalled: {reason}"));
    machine.run("systemctl start feeder-small");
    site.camera_is("ok");
    let seen = site.person();
    assert_eq!(seen["frame"], json!({"width": 320, "height": 240}));
    story.tell("it delivers again, 320x240 instead of 640x480: somebody was told of");
    machine.run("systemctl start feeder");

    let device = |path: &str| {
        format!(
            "sed -i 's|^device = .*|device = \"{path}\"|' {CONFIG} && systemctl restart ternwatch"
        )
    };
    let vivid = |action: &str| format!("echo vivid.0 >/sys/bus/platform/drivers/vivid/{action}");
    machine.run(&format!("chmod 600 /dev/video1; {}", device("/dev/video1")));
    site.device_is("offline");
    let reason = site.camera_is("away");
    assert!(reason.contains("group video"), "{reason}");
    story.tell(format!("the other camera may not be opened: {reason}"));
    machine.run("chmod 660 /dev/video1");
    site.camera_is("ok");
    story.tell("when it may, it delivers");
    machine.run(&vivid("unbind"));
    let reason = site.camera_is("away");
    story.tell(format!("it was unplugged: {reason}"));
    machine.wait_for_status("/dev/video1");
    machine.run(&vivid("bind"));
    site.camera_is("ok");
    story.tell("plugged in again, it delivers again");
    machine.run(&device("/dev/video0"));
    site.device_is("offline");
    site.camera_is("ok");
    site.see_people(1);
}

/// A daemon that does nothing any more is started anew by the watchdog.
fn hang(machine: &Machine, site: &mut Site, story: &mut Story) {
    let restarts = machine.service("NRestarts");
    machine.run("kill -STOP $(systemctl show ternwatch --value -p MainPID)");
    let took = machine.wait_until("the watchdog", || machine.service("NRestarts") != restarts);
    site.see_people(1);
    story.tell(format!(
        "the daemon was made to hang: the watchdog started it anew after {:.0} s",
        took.as_secs_f64()
    ));
}

/// The power goes in the middle of everything and comes back.
fn cut_the_power(machine: &mut Machine, site: &mut Site, story: &mut Story) {
    site.see_people(1);
    machine.cut_power();
    site.device_is("offline");
    let took = machine.power_on();
    site.device_is("online");
    site.model_is("person-lite");
    site.see_people(2);
    story.tell(format!(
        "the power was cut; {:.0} s after it came back the machine was up, the service too, with the model of before",
        took.as_secs_f64()
    ));
}
