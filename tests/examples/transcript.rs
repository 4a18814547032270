//! Shows with mosquitto's own tools what a subscriber gets: `make transcript`.
//!
//! Starts a broker of its own, `mosquitto_sub`, and the daemon on a street video; gives a command with `mosquitto_rr`. Writes the
//! first message of every kind to docs/transcript.txt, and shortened into docs/mqtt.md.

use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};
use system_tests::broker::Broker;
use system_tests::transcript::{kind, placed};

/// The street is 80 s long.
const WITHIN: Duration = Duration::from_secs(100);
const EVENTS: [&str; 7] = [
    "new",
    "update",
    "end",
    "zone_enter",
    "zone_loiter",
    "zone_leave",
    "line_cross",
];
const LISTEN: [&str; 8] = [
    "mosquitto_sub",
    "-V",
    "mqttv5",
    "-v",
    "-t",
    "ternwatch/#",
    "-T",
    "ternwatch/+/+/snapshot",
];
const LOOK: [&str; 9] = [
    "mosquitto_sub",
    "-V",
    "mqttv5",
    "-t",
    "ternwatch/pi/door/snapshot",
    "-F",
    "%l bytes, %P",
    "-C",
    "1",
];
const ASK: [&str; 9] = [
    "mosquitto_rr",
    "-V",
    "mqttv5",
    "-t",
    "ternwatch/pi/door/command/detection",
    "-e",
    "my/answers",
    "-m",
    r#"{"on": false}"#,
];
const SETTINGS: &str = r#"
[device]
id = "pi"
[camera]
name = "door"
source = "video"
[publish]
frames = true
[snapshots]
enabled = true
[[zones]]
name = "yard"
points = [[0.45, 0.3], [1.0, 0.3], [1.0, 1.0], [0.45, 1.0]]
loiter_s = 3
[[lines]]
name = "gate"
points = [[0.5, 1.0], [0.5, 0.0]]
"#;

fn main() {
    let street = std::env::args().nth(1).expect("transcript VIDEO");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the workspace");
    let broker = Broker::start();
    let port = broker.port();
    let (_listener, messages) = start(&LISTEN, port);
    let (_looker, pictures) = start(&LOOK, port);
    let mut daemon = Daemon::start(root, &street, port);

    let mut transcript = Transcript::begin(&LISTEN);
    let everything = |kinds: &BTreeSet<(String, String)>| {
        EVENTS
            .iter()
            .all(|event| kinds.iter().any(|(_, kind)| kind == event))
            && kinds
                .iter()
                .any(|(topic, _)| topic.ends_with("/statistics"))
    };
    transcript.hear(&messages, everything);
    let picture = pictures
        .recv_timeout(WITHIN)
        .expect("a picture of somebody who has gone");
    let (_asker, answers) = start(&ASK, port);
    let answer = answers.recv_timeout(WITHIN).expect("an answer");
    transcript.hear_line(&messages, |line| {
        line.ends_with(r#""on":false,"reason":"command"}"#)
    });
    daemon.end();
    transcript.hear_line(&messages, |line| line == "ternwatch/pi/state offline");
    transcript.add(&ASK, &answer);
    transcript.add(&LOOK, &picture);

    fs::write(root.join("docs/transcript.txt"), &transcript.text).expect("written");
    let page = root.join("docs/mqtt.md");
    let text = fs::read_to_string(&page).expect("readable");
    let text = placed(&text, &transcript.text).expect("docs/mqtt.md has a place for it");
    fs::write(page, text).expect("written");
    print!("{}", transcript.text);
}

/// Starts one of mosquitto's tools; what it prints.
fn start(command: &[&str], port: u16) -> (Running, Receiver<String>) {
    let mut process = Command::new(command[0])
        .args(["-h", "127.0.0.1", "-p", &port.to_string()])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("`apt install mosquitto-clients`: {error}"));
    let lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    (Running(process), receive)
}

/// Ends with whoever started it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Daemon {
    process: Running,
    _folder: tempfile::TempDir,
}

impl Daemon {
    fn start(root: &Path, street: &str, port: u16) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = folder.path().join("ternwatch.toml");
        let text = format!(
            "{SETTINGS}[camera.video]\npath = {street:?}\n[model]\nbundle = {:?}\nkey = {:?}\n[update]\nstate_dir = {:?}\n\
             [mqtt]\nport = {port}\ncommands = true\n",
            root.join("models/person.tern"),
            root.join("models/default.pub"),
            folder.path(),
        );
        fs::write(&config, text).expect("written");
        let process = Command::new(beside("ternwatchd"))
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("ternwatchd starts");
        Self {
            process: Running(process),
            _folder: folder,
        }
    }

    /// In order, so that it says farewell.
    fn end(&mut self) {
        kill_process(Pid::from_child(&self.process.0), Signal::TERM).expect("it is our child");
        self.process.0.wait().expect("it is our child");
    }
}

/// A program that cargo built in the same profile.
fn beside(name: &str) -> PathBuf {
    let here = std::env::current_exe().expect("an example has a path");
    let profile = here
        .parent()
        .and_then(Path::parent)
        .expect("target/PROFILE/examples");
    profile.join(name)
}

/// The first message of every kind, in the order in which they came.
struct Transcript {
    text: String,
    kinds: BTreeSet<(String, String)>,
}

impl Transcript {
    fn begin(command: &[&str]) -> Self {
        Self {
            text: format!("$ {}\n", quoted(command)),
            kinds: BTreeSet::new(),
        }
    }

    fn hear(
        &mut self,
        messages: &Receiver<String>,
        is_enough: impl Fn(&BTreeSet<(String, String)>) -> bool,
    ) {
        let until = Instant::now() + WITHIN;
        while !is_enough(&self.kinds) {
            let left = until.saturating_duration_since(Instant::now());
            let line = messages
                .recv_timeout(left)
                .unwrap_or_else(|_| panic!("not everything came: {:?}", self.kinds));
            let (topic, kind) = kind(&line).unwrap_or_else(|| panic!("no message: {line}"));
            if self.kinds.insert((topic.into(), kind)) {
                self.push(&line);
            }
        }
    }

    fn hear_line(&mut self, messages: &Receiver<String>, is_wanted: impl Fn(&str) -> bool) {
        let until = Instant::now() + WITHIN;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = messages
                .recv_timeout(left)
                .expect("a line that was waited for");
            if is_wanted(&line) {
                return self.push(&line);
            }
        }
    }

    fn add(&mut self, command: &[&str], printed: &str) {
        self.push(&format!("\n$ {}\n{printed}", quoted(command)));
    }

    fn push(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }
}

/// As somebody would write it in a shell.
fn quoted(command: &[&str]) -> String {
    let is_plain = |word: &str| {
        word.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_/.".contains(&byte))
    };
    let quoted = |word: &&str| {
        if is_plain(word) {
            (*word).into()
        } else {
            format!("'{word}'")
        }
    };
    command
        .iter()
        .map(quoted)
        .collect::<Vec<String>>()
        .join(" ")
}
