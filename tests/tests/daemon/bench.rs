//! What the tests of the daemon run it with: a folder with a model, a video and settings; and the process itself.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use system_tests::broker::wait_for;
use ternwatch_detector::testing::small_bundle;

use crate::push::sha256;

/// Size of the videos.
pub(crate) const WIDTH: u32 = 160;
/// Size of the videos.
pub(crate) const HEIGHT: u32 = 120;
/// Seed of the random model.
pub(crate) const MODEL_SEED: u64 = 5;
/// The promise for the time from SIGTERM to the end.
const END_WITHIN: Duration = Duration::from_secs(2);

/// What ffmpeg makes of these arguments, once for all tests: encoding a long one takes longer than most tests.
fn made_video(input: &[&str]) -> PathBuf {
    static MADE: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    // A test that failed meanwhile has left no path behind.
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let name = input.join(" ");
    if let Some(path) = made.get(&name) {
        return path.clone();
    }
    let path =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.mp4", sha256(name.as_bytes())));
    let half = path.with_extension(format!("{}.mp4", std::process::id()));
    let status = Command::new("ffmpeg")
        .args(["-v", "error"])
        .args(input)
        .args(["-pix_fmt", "yuv420p", "-y"])
        .arg(&half)
        .stdin(Stdio::null())
        .status();
    match status {
        Err(error) => panic!("ffmpeg is not installed: `apt install ffmpeg` ({error})"),
        Ok(status) => assert!(status.success(), "ffmpeg makes the video: {status}"),
    }
    fs::rename(&half, &path).expect("renamed");
    made.insert(name, path.clone());
    path
}

/// A folder with a model, a video and a configuration.
pub(crate) struct Bench {
    // Shared with the process, which may outlive the bench.
    folder: Arc<tempfile::TempDir>,
    settings: Vec<(String, String)>,
    config: String,
}

impl Bench {
    /// A video of so many frames, 10 a second, to be examined frame by frame.
    pub(crate) fn with_video(frames: u32, port: u16) -> Self {
        let source = format!("testsrc=size={WIDTH}x{HEIGHT}:rate=10");
        let count = frames.to_string();
        let input = ["-f", "lavfi", "-i", &source, "-frames:v", &count];
        Self::with_video_of(&input, port)
    }

    /// What ffmpeg makes of these arguments, to be examined frame by frame.
    pub(crate) fn with_video_of(input: &[&str], port: u16) -> Self {
        let mut bench = Self::new(port);
        let video = bench.path("video.mp4");
        fs::copy(made_video(input), &video).expect("copied");
        bench.set("CAMERA__SOURCE", "video");
        bench.set("CAMERA__VIDEO__PATH", video.to_str().expect("UTF-8"));
        bench.set("CAMERA__VIDEO__PACE", "as-fast-as-possible");
        bench.set("PIPELINE__WHEN_BUSY", "wait");
        bench
    }

    pub(crate) fn new(port: u16) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        let (bundle, key) = small_bundle(MODEL_SEED);
        fs::write(folder.path().join("small.tern"), bundle).expect("written");
        fs::write(folder.path().join("small.pub"), key.to_text()).expect("written");
        let mut bench = Self {
            folder,
            settings: Vec::new(),
            config: String::new(),
        };
        for (key, file) in [("MODEL__BUNDLE", "small.tern"), ("MODEL__KEY", "small.pub")] {
            let path = bench.path(file);
            bench.set(key, path.to_str().expect("UTF-8"));
        }
        // Not there: no updates, unless a test makes it.
        let state = bench.path("state");
        bench.set("UPDATE__STATE_DIR", state.to_str().expect("UTF-8"));
        bench.set("MODEL__SCORE_MIN", "0.05");
        bench.set("PUBLISH__FRAMES", "true");
        bench.set("DEVICE__ID", "pi");
        bench.set("CAMERA__NAME", "door");
        bench.set("MQTT__HOST", "127.0.0.1");
        bench.set("MQTT__PREFIX", "site");
        bench.set("MQTT__PORT", &port.to_string());
        bench
    }

    /// A network camera whose decoder is this shell script.
    pub(crate) fn with_decoder(script: &str, port: u16) -> Self {
        let mut bench = Self::new(port);
        let path = bench.path("ffmpeg.sh");
        fs::write(&path, script).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
        bench.set("CAMERA__SOURCE", "rtsp");
        bench.set("CAMERA__RTSP__URL", "rtsp://me:hunter2@cam/1");
        bench.set("CAMERA__FFMPEG__PROGRAM", path.to_str().expect("UTF-8"));
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn set(&mut self, key: &str, value: &str) {
        let name = format!("TERNWATCH_{key}");
        self.settings.retain(|(known, _)| *known != name);
        self.settings.push((name, value.into()));
    }

    /// What a settings file has besides, for what no variable can set.
    pub(crate) fn write_config(&mut self, text: &str) {
        self.config = text.into();
    }

    /// The documents of frames that the daemon wrote to its standard output so far.
    pub(crate) fn frames_on_stdout(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.path("stdout")).expect("readable");
        // The last line may be half written.
        let documents = text.lines().map(serde_json::from_str);
        let documents = documents.map_while(Result::<serde_json::Value, _>::ok);
        documents
            .filter(|document| document.get("detections").is_some())
            .collect()
    }

    pub(crate) fn run(&self) -> Daemon {
        self.run_with(|_| {})
    }

    /// `ternwatchd model ...`: its exit code and what it said.
    pub(crate) fn model(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.command(&[&["model"], arguments].concat());
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    /// What a command of `ternwatchd` came to that ends by itself.
    pub(crate) fn command(&self, arguments: &[&str]) -> Output {
        let output = self.invocation(arguments).output();
        output.expect("ternwatchd starts")
    }

    /// A command of `ternwatchd` that ends by itself, to be started.
    pub(crate) fn invocation(&self, arguments: &[&str]) -> Command {
        let config = self.path("ternwatch.toml");
        fs::write(&config, "").expect("written");
        let mut command = Command::new(daemon_program());
        command.arg("--config").arg(config).args(arguments);
        self.set_environment(&mut command);
        command.stdin(Stdio::null());
        command
    }

    /// This bench's settings, and none of whoever runs the tests.
    fn set_environment(&self, command: &mut Command) {
        without_settings(command);
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
    }

    pub(crate) fn run_with(&self, prepare: impl FnOnce(&mut Command)) -> Daemon {
        self.run_as(Command::new(daemon_program()), prepare)
    }

    /// Under strace with these options, which can make system calls of the daemon fail, or kill it there. The process is the
    /// daemon's own.
    pub(crate) fn run_traced(&self, options: &[String]) -> Daemon {
        let mut command = Command::new("strace");
        command
            .args(["-D", "-f", "-qq", "-o"])
            .arg(self.path("trace"));
        command.args(options).arg(daemon_program());
        self.run_as(command, |_| {})
    }

    fn run_as(&self, mut command: Command, prepare: impl FnOnce(&mut Command)) -> Daemon {
        // Perhaps an empty file, rather than none: what is installed on this machine does not matter.
        let config = self.path("ternwatch.toml");
        fs::write(&config, &self.config).expect("written");
        let create = |name| fs::File::create(self.path(name)).expect("created");
        command.arg("--config").arg(config);
        self.set_environment(&mut command);
        command
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(create("stdout"))
            .stderr(create("log"));
        prepare(&mut command);
        let program = command.get_program().to_owned();
        let process = command.spawn();
        Daemon {
            process: process.unwrap_or_else(|error| panic!("{}: {error}", program.display())),
            folder: self.folder.clone(),
        }
    }
}

/// Takes the daemon's settings out of what a program inherits.
pub(crate) fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"TERNWATCH_") {
            command.env_remove(name);
        }
    }
}

/// `$TERNWATCHD`, or what cargo built beside this test.
fn daemon_program() -> PathBuf {
    match std::env::var_os("TERNWATCHD") {
        Some(path) => path.into(),
        None => program("ternwatchd"),
    }
}

/// A program that cargo built beside this test.
pub(crate) fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test
        .parent()
        .and_then(Path::parent)
        .expect("target/PROFILE/deps/test");
    let path = profile.join(name);
    assert!(
        path.exists(),
        "{} is not there: `cargo build --workspace` makes it",
        path.display()
    );
    path
}

pub(crate) struct Daemon {
    process: Child,
    folder: Arc<tempfile::TempDir>,
}

impl Daemon {
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.process.id()).expect("a process id");
        let pid = rustix::process::Pid::from_raw(pid).expect("a process id");
        rustix::process::kill_process(pid, signal).expect("it runs");
    }

    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let status = wait_for("ternwatchd to end", || {
            self.process.try_wait().expect("it is our child")
        });
        (status, self.log())
    }

    /// The most memory that it has had so far, in KiB.
    pub(crate) fn peak_memory_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = fs::read_to_string(path).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|rest| rest.split_whitespace().next());
        peak.and_then(|number| number.parse().ok())
            .expect("a number")
    }

    /// Whether it has ended, and how.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().expect("it is our child")
    }

    /// Asks it to end, which it does well.
    pub(crate) fn terminate(self) -> String {
        self.signal(rustix::process::Signal::TERM);
        let (status, log) = self.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        log
    }

    /// The same, and sees to it that it keeps its promise.
    pub(crate) fn terminate_in_time(self) -> String {
        let asked_at = Instant::now();
        let log = self.terminate();
        let took = asked_at.elapsed();
        assert!(took < END_WITHIN, "took {took:?} to end\n{log}");
        log
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("ternwatchd said:\n{}", self.log());
        }
    }
}
