//! `ternwatchd doctor`: what is wrong on this board, and how to mend it.
//!
//! Looks at everything that the daemon needs and changes nothing. What is good, doubtful or bad is a line each; what is bad
//! has a remedy. It can run beside the daemon.

mod board;
mod camera;

use crate::config::Config;
use crate::exit::{Failure, Reason};
use crate::model;
use crate::processor::IsaChoice;
use crate::publish::mqtt::{self, visit};
use crate::tell::out;
use anyhow::anyhow;
use board::Board;
use std::fmt;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, SystemTime};
use ternwatch_detector::Isa;

/// Time for a broker or a camera in the network to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for a broker to let this account in, encrypted or not.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Good,
    /// It works for now, or could not be looked at.
    Doubtful,
    /// The daemon does not work like this; becomes the exit code.
    Bad(Reason),
}

/// What came of one look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it is.
    pub level: Level,
    /// What was looked at.
    pub subject: &'static str,
    /// What was seen.
    pub text: String,
    /// How to mend it; empty if it is good.
    pub remedy: String,
}

impl Finding {
    fn good(subject: &'static str, text: impl Into<String>) -> Self {
        Self::new(Level::Good, subject, text, "")
    }

    fn new(
        level: Level,
        subject: &'static str,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            level,
            subject,
            text: text.into(),
            remedy: remedy.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Good => "ok",
            Level::Doubtful => "warn",
            Level::Bad(_) => "fail",
        };
        write!(f, "{level:<5} {:<10} {}", self.subject, self.text)?;
        if !self.remedy.is_empty() {
            write!(f, "\n      {:<10} -> {}", "", self.remedy)?;
        }
        Ok(())
    }
}

/// Looks at everything and prints what it finds; fails with the reason of the first thing that is bad.
pub fn run(config: Result<Config, Failure>) -> Result<(), Failure> {
    let mut bad = Vec::new();
    let mut tell = |finding: Finding| {
        out(&finding);
        if let Level::Bad(reason) = finding.level {
            bad.push((reason, finding.subject));
        }
    };
    let board = Board::here();
    tell(settings(&config));
    if let Ok(config) = &config {
        match config.model.choose_isa() {
            Ok(choice) => {
                tell(model(config, choice.isa));
                tell(processor(&choice));
            }
            Err(invalid) => tell(Finding::new(
                Level::Bad(Reason::Config),
                "processor",
                format!("model.isa {}", invalid.reason),
                "set it to \"auto\"",
            )),
        }
    }
    tell(board.memory());
    tell(board.power());
    tell(board.clock(SystemTime::now()));
    if let Ok(config) = &config {
        tell(board::state(&config.update.state_dir));
        tell(camera::look(&config.camera, &board));
        tell(broker(&config.mqtt, &config.device.id()));
    }
    match bad.first() {
        None => Ok(()),
        Some(&(reason, _)) => {
            let subjects: Vec<&str> = bad.iter().map(|&(_, subject)| subject).collect();
            Err(Failure::new(
                reason,
                anyhow!("bad: {}", subjects.join(", ")),
            ))
        }
    }
}

fn settings(config: &Result<Config, Failure>) -> Finding {
    match config {
        Ok(_) => Finding::good("settings", "valid"),
        Err(failure) => {
            let remedy = match failure.reason {
                Reason::NoPermission => {
                    "run this as the service's user: `sudo -u ternwatch ternwatchd doctor`"
                }
                _ => "mend the named key; /usr/share/doc/ternwatch/configuration.md explains each",
            };
            let level = Level::Bad(failure.reason);
            Finding::new(level, "settings", failure.to_string(), remedy)
        }
    }
}

/// Signature and recorded answers of the configured model.
fn model(config: &Config, isa: Isa) -> Finding {
    match model::load(&config.model, isa) {
        Ok(loaded) => {
            let identity = loaded.identity;
            let text = format!(
                "{} {}: the signature is valid, and this processor computes the recorded answers",
                identity.name, identity.version
            );
            Finding::good("model", text)
        }
        Err(error) => Finding::new(
            Level::Bad(error.reason()),
            "model",
            format!("{:#}", anyhow::Error::new(error)),
            "model.bundle and model.key must belong together; `apt install --reinstall ternwatch` brings both back",
        ),
    }
}

fn processor(choice: &IsaChoice) -> Finding {
    let available: Vec<String> = Isa::available().iter().map(Isa::to_string).collect();
    let all = available.join(", ");
    let text = format!("{}: {choice}; it has {all}", std::env::consts::ARCH);
    match choice.faster() {
        None => Finding::good("processor", text),
        Some(faster) => Finding::new(
            Level::Doubtful,
            "processor",
            text,
            format!("model.isa = \"auto\" would choose {faster}, which is faster"),
        ),
    }
}

fn broker(config: &mqtt::Config, device: &str) -> Finding {
    const SUBJECT: &str = "broker";
    if !config.enabled {
        return Finding::good(SUBJECT, "none is used: mqtt.enabled is false");
    }
    let name = format!("{}:{}", config.host, config.port);
    if let Err(error) = reach(&config.host, config.port) {
        return Finding::new(
            Level::Bad(Reason::Unavailable),
            SUBJECT,
            format!("{name} does not answer: {error}"),
            "mqtt.host and mqtt.port name it; `apt install mosquitto` makes this board one",
        );
    }
    let session = match config.session(device) {
        Ok(session) => session,
        // A credential is there for the service only.
        Err(error) => {
            return Finding::new(
                Level::Doubtful,
                SUBJECT,
                format!("{name} answers, but {:#}", anyhow::Error::new(error)),
                "inside the service it may be there: `systemctl status ternwatch` tells",
            );
        }
    };
    if let Err(error) = visit::call(&session, WELCOME_TIMEOUT) {
        return Finding::new(
            Level::Bad(Reason::Unavailable),
            SUBJECT,
            error.to_string(),
            "its own log may say more; [mqtt] has the account, the protocol and whether the connection is encrypted",
        );
    }
    match session.doubt() {
        None => Finding::good(SUBJECT, format!("{name} lets this device in")),
        Some(doubt) => Finding::new(
            Level::Doubtful,
            SUBJECT,
            format!("{name} lets this device in, but {doubt}"),
            "a new certificate for the same key, or the clock set; then `systemctl restart ternwatch`",
        ),
    }
}

/// Whether somebody accepts connections there.
fn reach(host: &str, port: u16) -> std::io::Result<()> {
    let mut last = std::io::Error::other("the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, ANSWER_TIMEOUT) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    fn mqtt(port: u16) -> mqtt::Config {
        let variables = [
            ("TERNWATCH_MQTT__HOST".into(), "127.0.0.1".into()),
            ("TERNWATCH_MQTT__PORT".into(), port.to_string()),
        ];
        Config::load(None, variables).expect("valid").mqtt
    }

    /// A broker that answers who wants in with these bytes, MQTT 5, and says nothing more.
    fn broker_answering(answer: &'static [u8]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.expect("accepted");
                let mut asked = [0; 256];
                // Whoever only knocks says nothing.
                if connection.read(&mut asked).is_ok_and(|bytes| bytes > 0) {
                    let _ = connection.write_all(answer);
                    let _ = connection.read(&mut asked);
                }
            }
        });
        port
    }

    #[test]
    fn a_broker_is_asked_whether_it_lets_this_device_in() {
        let welcome = [0x20, 3, 0, 0, 0].as_slice();
        let finding = broker(&mqtt(broker_answering(welcome)), "test");
        assert_eq!(finding.level, Level::Good, "{finding}");

        let bad_user_name_or_password = [0x20, 3, 0, 0x86, 0].as_slice();
        let finding = broker(&mqtt(broker_answering(bad_user_name_or_password)), "test");
        assert_eq!(finding.level, Level::Bad(Reason::Unavailable), "{finding}");
        assert!(finding.text.contains("this account"), "{finding}");

        let no_broker = b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice();
        let finding = broker(&mqtt(broker_answering(no_broker)), "test");
        assert_eq!(finding.level, Level::Bad(Reason::Unavailable), "{finding}");
    }

    #[test]
    fn a_broker_that_does_not_answer_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let finding = broker(&mqtt(port), "test");
        assert_eq!(finding.level, Level::Bad(Reason::Unavailable));
        assert!(
            finding.text.contains(&format!("127.0.0.1:{port}")),
            "{finding}"
        );
        assert!(finding.remedy.contains("mqtt.host"), "{finding}");
    }

    #[test]
    fn a_missing_model_is_named_with_a_remedy() {
        let variable = ("TERNWATCH_MODEL__BUNDLE".into(), "/nonexistent.tern".into());
        let key = ("TERNWATCH_MODEL__KEY".into(), "/nonexistent.pub".into());
        let finding = model(
            &Config::load(None, [variable, key]).expect("valid"),
            Isa::Scalar,
        );
        assert_eq!(finding.level, Level::Bad(Reason::NoInput));
        assert!(
            finding.to_string().contains("/nonexistent.pub"),
            "{finding}"
        );
        assert!(finding.to_string().contains("-> model.bundle"), "{finding}");
    }

    #[test]
    fn a_slower_level_than_possible_is_doubtful() {
        let measured = processor(&IsaChoice::by_measurement());
        assert_eq!(measured.level, Level::Good, "{measured}");
        let slow = processor(&IsaChoice::by_setting(Isa::Scalar));
        assert_eq!(slow.level, Level::Doubtful, "{slow}");
    }

    #[test]
    fn a_bad_setting_is_the_first_reason() {
        let failure = Failure::new(Reason::Config, anyhow!("unknown key `mqtt.hots`"));
        let ended = run(Err(failure)).expect_err("bad");
        assert_eq!(ended.reason, Reason::Config);
    }
}
