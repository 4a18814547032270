//! What may be asked for over MQTT while the daemon runs (docs/mqtt.md, docs/schema/command-*.json).
//!
//! Takes a message, bounds it before it parses it, carries it out or refuses it, and answers once. Carrying out means to
//! leave word for the frame path: settings in [`Mail`], wishes in [`Switches`] and on the [`Desk`], which answers later. Nothing
//! here waits, and what was changed lasts until the settings are read again or the program ends.

use crate::config::Config;
use crate::detection::Detection;
use crate::health::Health;
use crate::pipeline::Places;
use crate::pipeline::mail::{Mail, Settings};
use crate::pipeline::switches::Switches;
use crate::publish::answer::{RESPONSE, Refusal, Reply};
use crate::publish::camera_state::Condition;
use crate::publish::home_assistant::Announcement;
use crate::publish::mqtt::conversation::{Assurance, Conversation, Delivery, State};
use crate::publish::mqtt::message::{Heard, Message};
use crate::publish::settings::Reporter;
use crate::publish::topic;
use crate::snapshot::Desk;
use crate::update::agent::Input;
use crate::zones::{self, LineConfig, ZoneConfig};
use serde::Deserialize;
use serde_json::error::Category;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// As many zones and lines as there may be, with all their corners, and room for white space.
const PAYLOAD_BYTES_MAX: usize = 32 << 10;
/// Answers that wait for the connection. A command that cannot be answered is not carried out.
const ANSWERS_MAX: usize = 16;
/// MQTT allows longer ones, but nobody needs them.
const RESPONSE_TOPIC_BYTES_MAX: usize = 512;
const CORRELATION_BYTES_MAX: usize = 256;

/// What commands change.
#[derive(Clone)]
pub struct Control {
    /// What is in effect.
    pub running: Arc<Mutex<Config>>,
    /// To whoever wants to know what that is.
    pub settings: Arc<Reporter>,
    /// To the inference thread.
    pub mail: Arc<Mail>,
    /// To both threads.
    pub switches: Arc<Switches>,
    /// Whether frames are examined.
    pub detection: Arc<Detection>,
    /// To Home Assistant.
    pub announcement: Option<Arc<Announcement>>,
    /// Where pictures are asked for, if some are published.
    pub desk: Option<Arc<Desk>>,
    /// How the camera is doing.
    pub health: Arc<Health>,
    /// To the update thread, if there is one.
    pub updates: Option<SyncSender<Input>>,
}

impl Control {
    /// What is in effect.
    pub fn running(&self) -> MutexGuard<'_, Config> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    on: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Threshold {
    score_min: f32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Area {
    zones: Vec<ZoneConfig>,
    lines: Vec<LineConfig>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Install {
    #[serde(default)]
    version: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// How far a command is that was not refused.
enum Done {
    /// It is handed on.
    Now,
    /// A picture is asked for; the reply comes with it.
    WithPicture(Arc<Desk>),
    /// The update thread replies.
    WithUpdate(SyncSender<Input>, Install),
}

/// Takes commands.
struct Commands {
    control: Control,
    /// `<prefix>/<device>/`: answers go to no other topic below it than that of answers.
    device: String,
    /// `<prefix>/<device>/<camera>/command`.
    base: String,
    answers: mpsc::Sender<Message<'static>>,
}

/// Makes the conversation on the topics of this device's camera.
pub fn connect(control: Control, device: &str) -> Conversation {
    let (base, device, settings) = {
        let config = control.running();
        let (prefix, camera) = (&config.mqtt.prefix, &config.camera.name);
        (
            topic::command(prefix, device, camera),
            format!("{prefix}/{device}/"),
            topic::settings(prefix, device, camera),
        )
    };
    let states = vec![State {
        topic: settings,
        document: control.settings.document(),
        assurance: Assurance::Confirmed,
    }];
    let (answers, remarks) = mpsc::channel(ANSWERS_MAX);
    let filter = format!("{base}/+");
    let commands = Commands {
        control,
        device,
        base,
        answers,
    };
    Conversation {
        filters: vec![filter],
        states,
        remarks,
        deliver: Box::new(move |delivery| {
            if let Delivery::Message(heard) = delivery {
                commands.hear(heard);
            }
        }),
    }
}

impl Commands {
    fn hear(&self, heard: &Heard) {
        let topic = std::str::from_utf8(&heard.topic).unwrap_or_default();
        let Some(name) = topic
            .strip_prefix(&self.base)
            .and_then(|rest| rest.strip_prefix('/'))
        else {
            return;
        };
        // Our own answers come by here too.
        if name == RESPONSE {
            return;
        }
        let Ok(permit) = self.answers.clone().try_reserve_owned() else {
            log::warn!("a command is lost: too many of them wait for their answers");
            return;
        };
        let is_name = topic::validate_level("command", name).is_ok();
        let name = if is_name { name } else { "unknown" };
        let correlation = if heard.correlation.len() <= CORRELATION_BYTES_MAX {
            heard.correlation.clone()
        } else {
            Vec::new()
        };
        let topic = self.answer_topic(&heard.response_topic);
        let reply = Reply::new(permit, name, topic, correlation);
        match self.carry_out(name, heard) {
            Ok(Done::Now) => reply.done(),
            Ok(Done::WithPicture(desk)) => desk.ask(reply),
            Ok(Done::WithUpdate(updates, Install { version })) => {
                // What does not fit refuses itself.
                let _ = updates.try_send(Input::Install { version, reply });
            }
            Err(refusal) => reply.refuse(refusal),
        }
    }

    /// Where the answer goes. Whoever asks may not make this device say anything in its own name.
    fn answer_topic(&self, wanted: &str) -> String {
        let is_good = !wanted.is_empty()
            && wanted.len() <= RESPONSE_TOPIC_BYTES_MAX
            && !wanted.contains(['+', '#', '\0'])
            && !wanted.starts_with('$')
            && !wanted.starts_with(&self.device);
        if is_good {
            wanted.into()
        } else {
            format!("{}/{RESPONSE}", self.base)
        }
    }

    fn carry_out(&self, name: &str, heard: &Heard) -> Result<Done, Refusal> {
        if heard.is_retained {
            let message = "a retained command would be carried out again on every connection";
            return Err(Refusal::new("retained", message));
        }
        let payload = &heard.payload[..];
        match name {
            "detection" => self.detection(parse(payload)?),
            "threshold" => self.threshold(parse(payload)?)?,
            "zones" => self.zones(parse(payload)?)?,
            "restart-camera" => self.restart_camera(parse(payload)?)?,
            "snapshot" => return self.snapshot(parse(payload)?),
            "install-model" => return self.install_model(parse(payload)?),
            _ => {
                let message = "detection, threshold, zones, restart-camera, snapshot and install-model are known";
                return Err(Refusal::new("unknown_command", message));
            }
        }
        Ok(Done::Now)
    }

    fn detection(&self, Wish { on }: Wish) {
        self.control.detection.command(on);
    }

    fn threshold(&self, Threshold { score_min }: Threshold) -> Result<(), Refusal> {
        let mut running = self.control.running();
        let mut model = running.model.clone();
        model.score_min = score_min;
        model.validate()?;
        running.model = model.clone();
        self.control.settings.tell(&running);
        self.control.mail.put(Settings {
            model,
            places: None,
        });
        Ok(())
    }

    fn zones(&self, Area { zones, lines }: Area) -> Result<(), Refusal> {
        zones::validate(&zones, &lines)?;
        let mut running = self.control.running();
        // Also if they are those of before: that is how counts are begun anew.
        self.control.mail.put(Settings {
            model: running.model.clone(),
            places: Some(Places::new(&zones, &lines)),
        });
        if running.zones != zones || running.lines != lines {
            if let Some(announcement) = &self.control.announcement {
                announcement.change_places(&zones, &lines);
            }
            (running.zones, running.lines) = (zones, lines);
            self.control.settings.tell(&running);
        }
        Ok(())
    }

    fn restart_camera(&self, Nothing {}: Nothing) -> Result<(), Refusal> {
        if self.control.running().camera.source.is_finite() {
            let message = "a file is not opened again: it would begin anew";
            return Err(Refusal::new("not_allowed", message));
        }
        self.control.switches.ask_restart();
        Ok(())
    }

    fn install_model(&self, install: Install) -> Result<Done, Refusal> {
        let Some(updates) = &self.control.updates else {
            let message = "the model of this device cannot be updated (update.state_dir)";
            return Err(Refusal::new("not_allowed", message));
        };
        Ok(Done::WithUpdate(updates.clone(), install))
    }

    fn snapshot(&self, Nothing {}: Nothing) -> Result<Done, Refusal> {
        let Control {
            desk,
            switches,
            health,
            ..
        } = &self.control;
        let Some(desk) = desk else {
            let message = "snapshots.enabled is false";
            return Err(Refusal::new("snapshots_off", message));
        };
        if !switches.is_detecting() {
            return Err(Refusal::new("detection_off", "detection is off"));
        }
        match health.camera_condition() {
            Some(Condition::Ok) => Ok(Done::WithPicture(desk.clone())),
            Some(Condition::Away) => Err(Refusal::new("no_picture", "the camera is away")),
            None => Err(Refusal::new("no_picture", "the camera gave no frame yet")),
        }
    }
}

/// What is too long is refused before it is read.
fn parse<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, Refusal> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        let message = format!("longer than {PAYLOAD_BYTES_MAX} bytes");
        return Err(Refusal::new("too_large", message));
    }
    serde_json::from_slice(payload).map_err(|error| {
        let message = error.to_string();
        let reason = match error.classify() {
            Category::Data if message.starts_with("unknown field") => "unknown_key",
            Category::Data => "bad_value",
            Category::Io | Category::Syntax | Category::Eof => "bad_json",
        };
        Refusal::new(reason, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Schedule;

    struct Desk {
        control: Control,
        conversation: Conversation,
    }

    fn desk() -> Desk {
        let config = Config::load(None, [("TERNWATCH_CAMERA__NAME".into(), "door".into())]);
        let config = config.expect("valid");
        let switches: Arc<Switches> = Arc::default();
        let detection = Detection::new(Schedule::default(), switches.clone());
        let control = Control {
            settings: Arc::new(Reporter::new(&config)),
            running: Arc::new(Mutex::new(config)),
            mail: Arc::default(),
            switches,
            detection: Arc::new(detection),
            announcement: None,
            desk: None,
            health: Arc::new(Health::new(std::time::Duration::from_secs(1), None, "door")),
            updates: None,
        };
        let conversation = connect(control.clone(), "pi");
        Desk {
            control,
            conversation,
        }
    }

    impl Desk {
        /// Hands a command over; the reason for which it was refused.
        fn say(&mut self, command: &str, payload: &[u8]) -> Option<String> {
            self.hear(Heard {
                topic: format!("ternwatch/pi/door/command/{command}").into(),
                payload: payload.into(),
                ..Heard::default()
            })
        }

        fn hear(&mut self, heard: Heard) -> Option<String> {
            (self.conversation.deliver)(Delivery::Message(&heard));
            let answer = self.conversation.remarks.try_recv().expect("an answer");
            assert!(self.conversation.remarks.try_recv().is_err(), "only one");
            let answer: serde_json::Value = serde_json::from_slice(answer.payload()).expect("JSON");
            assert_eq!(answer["ok"], answer["error"].is_null(), "{answer}");
            answer["error"]["reason"].as_str().map(String::from)
        }
    }

    #[test]
    fn good_commands_are_carried_out() {
        let mut desk = desk();
        assert_eq!(desk.say("detection", br#"{"on": false}"#), None);
        assert!(!desk.control.switches.is_detecting());
        assert_eq!(desk.say("threshold", br#"{"score_min": 0.25}"#), None);
        let yard = r#"{"name": "yard", "points": [[0, 0], [1, 0], [1, 1]]}"#;
        let places = format!(r#"{{"zones": [{yard}], "lines": []}}"#);
        assert_eq!(desk.say("zones", places.as_bytes()), None);
        let settings = desk.control.mail.take().expect("settings");
        assert_eq!(settings.model.score_min, 0.25, "both are handed over");
        assert!(settings.places.is_some());
        let told = desk.control.settings.document().borrow().clone();
        let told: serde_json::Value = serde_json::from_slice(&told).expect("JSON");
        assert_eq!(
            (&told["score_min"], &told["zones"][0]["name"]),
            (&0.25.into(), &"yard".into())
        );
        assert_eq!(desk.say("zones", places.as_bytes()), None);
        let again = desk.control.mail.take().expect("settings");
        assert!(again.places.is_some(), "the counts begin anew");
        assert_eq!(desk.say("restart-camera", b"{}"), None);
        assert!(desk.control.switches.take_restart());
    }

    #[test]
    fn bad_commands_change_nothing_and_are_told_why() {
        let mut desk = desk();
        let long = vec![b' '; PAYLOAD_BYTES_MAX + 1];
        let cases: [(&str, &[u8], &str); 17] = [
            ("detection", b"", "bad_json"),
            ("detection", b"off", "bad_json"),
            ("detection", br#"{"on": 1}"#, "bad_value"),
            ("detection", b"{}", "bad_value"),
            ("detection", br#"{"on": false, "of": 1}"#, "unknown_key"),
            ("detection", &long, "too_large"),
            ("threshold", br#"{"score_min": 1.5}"#, "out_of_range"),
            ("threshold", br#"{"score_min": -0.1}"#, "out_of_range"),
            ("threshold", br#"{"score_min": 1e99}"#, "out_of_range"),
            ("zones", br#"{"zones": []}"#, "bad_value"),
            (
                "zones",
                br#"{"zones": [{"name": "a", "points": []}], "lines": []}"#,
                "out_of_range",
            ),
            ("snapshot", b"{}", "snapshots_off"),
            ("install-model", b"{}", "not_allowed"),
            ("install-model", br#"{"version": -1}"#, "bad_value"),
            ("install-model", br#"{"model": 2}"#, "unknown_key"),
            ("self-destruct", b"{}", "unknown_command"),
            ("de tection", b"{}", "unknown_command"),
        ];
        for (command, payload, reason) in cases {
            assert_eq!(
                desk.say(command, payload).as_deref(),
                Some(reason),
                "{command}"
            );
        }
        assert!(desk.control.switches.is_detecting());
        assert!(desk.control.mail.take().is_none());
        desk.control.running().camera.source = crate::camera::SourceKind::Video;
        let refused = desk.say("restart-camera", b"{}");
        assert_eq!(refused.as_deref(), Some("not_allowed"));
        assert!(!desk.control.switches.take_restart());
        let retained = Heard {
            topic: b"ternwatch/pi/door/command/detection".into(),
            payload: br#"{"on": false}"#.into(),
            is_retained: true,
            ..Heard::default()
        };
        assert_eq!(desk.hear(retained).as_deref(), Some("retained"));
        assert!(desk.control.switches.is_detecting());
    }

    #[test]
    fn answers_go_where_they_are_awaited_but_not_in_the_name_of_the_device() {
        let mut desk = desk();
        let ours = "ternwatch/pi/door/command/response";
        let long = "a".repeat(RESPONSE_TOPIC_BYTES_MAX + 1);
        for (wanted, topic) in [
            ("", ours),
            ("me/answers", "me/answers"),
            ("ternwatch/pi/state", ours),
            ("ternwatch/pi/door/command/detection", ours),
            ("a/#", ours),
            ("$SYS/a", ours),
            (&long, ours),
        ] {
            (desk.conversation.deliver)(Delivery::Message(&Heard {
                topic: b"ternwatch/pi/door/command/detection".into(),
                payload: br#"{"on": true}"#.into(),
                response_topic: wanted.into(),
                correlation: b"7".into(),
                ..Heard::default()
            }));
            let answer = desk.conversation.remarks.try_recv().expect("an answer");
            assert_eq!(answer.topic(), topic);
        }
        // What comes from there is no command.
        (desk.conversation.deliver)(Delivery::Message(&Heard {
            topic: ours.into(),
            ..Heard::default()
        }));
        assert!(desk.conversation.remarks.try_recv().is_err());
    }

    #[test]
    fn what_cannot_be_answered_is_not_carried_out() {
        let mut desk = desk();
        let mut ask = |payload: &[u8]| {
            (desk.conversation.deliver)(Delivery::Message(&Heard {
                topic: b"ternwatch/pi/door/command/detection".into(),
                payload: payload.into(),
                ..Heard::default()
            }));
        };
        for _ in 0..ANSWERS_MAX {
            ask(br#"{"on": true}"#);
        }
        ask(br#"{"on": false}"#);
        assert!(desk.control.switches.is_detecting());
    }
}
