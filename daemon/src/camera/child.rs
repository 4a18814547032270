//! A program that delivers frames, as a child process.
//!
//! It gets none of our environment, so many of its messages a minute are logged and the last one is remembered, and it is killed when
//! the source is dropped; should we be killed, it dies of the closed pipe.

use super::CameraError;
use super::minute::Minute;
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::{self, BufRead, BufReader, Read};
use std::mem;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The longest line of its messages that is logged.
const MESSAGE_BYTES_MAX: u64 = 1024;
/// So many messages are logged in a minute. A stream may give a decoder something to say with every frame.
const MESSAGES_MAX: u64 = 20;
/// A message that is older than this when the program ends does not say why.
const MESSAGE_AGE_MAX: Duration = Duration::from_secs(5);
/// Time for it to end by itself after its last frame.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Time for its last message to be read after its end.
const MESSAGE_TIMEOUT: Duration = Duration::from_millis(500);

/// A running program.
pub(super) struct Helper {
    child: Child,
    /// Whether its end was seen, and seen to: its number may be somebody else's since.
    has_ended: bool,
    messages: Option<JoinHandle<()>>,
    last_message: Arc<Mutex<Option<Message>>>,
}

/// What it said.
struct Message {
    text: String,
    noted_at: Instant,
}

/// Keeps our environment from it: neither our settings, which may hold the broker's password, nor systemd's sockets are its
/// business.
pub(super) fn seclude(command: &mut Command) {
    command.env_clear();
    for name in ["PATH", "HOME", "LANG", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
}

impl Helper {
    /// Starts it; `name` is for messages, from which the `secrets` are removed. Gives what it writes.
    pub(super) fn start(
        name: &'static str,
        mut command: Command,
        secrets: Vec<String>,
    ) -> Result<(Self, ChildStdout), CameraError> {
        // Ctrl-C at our terminal is for us.
        command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let failed = |what: String, source: io::Error| CameraError::Open { what, source };
        let mut child = command.spawn().map_err(|source| {
            let program = command.get_program().to_string_lossy();
            failed(format!("the program {program}"), source)
        })?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let mut helper = Self {
            child,
            has_ended: false,
            messages: None,
            last_message: Arc::default(),
        };
        let messages = MessageLog {
            name,
            secrets,
            last: helper.last_message.clone(),
            minute: Minute::default(),
        };
        // It ends with the pipe, which ends with the child.
        let reading = thread::Builder::new()
            .name("messages".into())
            .spawn(move || messages.run(stderr))
            .map_err(|source| failed(format!("a thread for the messages of {name}"), source))?;
        helper.messages = Some(reading);
        Ok((helper, stdout))
    }

    /// Waits for its end and tells how it ended.
    pub(super) fn farewell(&mut self) -> String {
        let ended_at = Instant::now();
        let status = match self.wait() {
            Some(status) if status.success() => "it ended early".into(),
            Some(status) => format!("it ended with {status}"),
            None => "it closed its output".into(),
        };
        // A program of its own may still hold the pipe of the messages: then the thread stays.
        let deadline = Instant::now() + MESSAGE_TIMEOUT;
        let is_reading = |messages: &JoinHandle<()>| !messages.is_finished();
        while self.messages.as_ref().is_some_and(is_reading) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        let message = self
            .last_message
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match message.as_ref() {
            Some(Message { text, noted_at })
                if ended_at.saturating_duration_since(*noted_at) <= MESSAGE_AGE_MAX =>
            {
                format!("{text} ({status})")
            }
            _ => status,
        }
    }

    /// The number of the process.
    #[cfg(test)]
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it ends soon.
    pub(super) fn wait(&mut self) -> Option<ExitStatus> {
        let deadline = Instant::now() + END_TIMEOUT;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    if !mem::replace(&mut self.has_ended, true) {
                        self.kill_all();
                    }
                    return Some(status);
                }
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                _ => return None,
            }
        }
    }

    /// Kills it with all that it has started: it may be a script around the program.
    fn kill_all(&self) {
        if let Some(group) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if !self.has_ended {
            self.kill_all();
            let _ = self.child.wait();
        }
    }
}

/// Logs what the program says, unless it says too much, and remembers the last of it.
struct MessageLog {
    name: &'static str,
    secrets: Vec<String>,
    last: Arc<Mutex<Option<Message>>>,
    minute: Minute,
}

impl MessageLog {
    fn run(mut self, stderr: ChildStderr) {
        let mut stderr = BufReader::new(stderr);
        let mut line = Vec::new();
        loop {
            line.clear();
            match stderr
                .by_ref()
                .take(MESSAGE_BYTES_MAX)
                .read_until(b'\n', &mut line)
            {
                Ok(0) | Err(_) => break,
                Ok(_) => self.note(&line, Instant::now()),
            }
        }
        self.tell_of_others(self.minute.count());
    }

    fn note(&mut self, line: &[u8], now: Instant) {
        let mut message = String::from_utf8_lossy(line).trim().to_string();
        for secret in self.secrets.iter().filter(|secret| !secret.is_empty()) {
            message = message.replace(secret, "[redacted]");
        }
        if message.is_empty() {
            return;
        }
        if let Some(before) = self.minute.add(now) {
            self.tell_of_others(before);
        }
        if self.minute.count() <= MESSAGES_MAX {
            log::warn!("{}: {message}", self.name);
        }
        let message = Message {
            text: message,
            noted_at: now,
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
    }

    /// Of `count` messages of a minute those that were not logged.
    fn tell_of_others(&self, count: u64) {
        if count > MESSAGES_MAX {
            log::warn!("{}: and {} more", self.name, count - MESSAGES_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::camera::stand_in::{self, LONG, started};

    #[test]
    fn messages_are_remembered_without_the_password() {
        let mut log = MessageLog {
            name: "ffmpeg",
            secrets: vec!["me:pass".into()],
            last: Arc::default(),
            minute: Minute::default(),
        };
        let now = Instant::now();
        log.note(b"rtsp://me:pass@cam/1: Connection refused\n", now);
        log.note(b"\n", now);
        let last = log.last.lock().expect("no panic");
        assert_eq!(
            last.as_ref().map(|message| message.text.as_str()),
            Some("rtsp://[redacted]@cam/1: Connection refused")
        );
    }

    #[test]
    fn a_message_of_long_before_the_end_is_not_why_it_ended() {
        let (_folder, program) = stand_in::program("ffmpeg", "echo 'a hiccup' >&2; exit 1");
        let ended = |age: Duration| {
            let start = || Helper::start("ffmpeg", Command::new(&program), Vec::new());
            let (mut helper, mut stdout) = started(start).expect("starts");
            stdout.read_to_end(&mut Vec::new()).expect("it ends");
            let deadline = Instant::now() + LONG;
            loop {
                let mut last = helper.last_message.lock().expect("no panic");
                if let Some(message) = last.as_mut() {
                    message.noted_at -= age;
                    break;
                }
                drop(last);
                assert!(Instant::now() < deadline, "it says nothing");
                thread::sleep(Duration::from_millis(5));
            }
            helper.farewell()
        };
        assert_eq!(
            ended(Duration::ZERO),
            "a hiccup (it ended with exit status: 1)"
        );
        let late = ended(Duration::from_secs(60));
        assert_eq!(late, "it ended with exit status: 1");
    }
}
