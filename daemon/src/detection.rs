//! Whether frames are examined, and who said so: the schedule, or a command that holds until the schedule's next change.
//!
//! Looks at the clock once a second, switches the frame path, and writes the retained document
//! (docs/schema/detection-state-1.json) when something changes. As long as the clock was never set, it is always time.

use crate::pipeline::switches::Switches;
use crate::publish::mqtt::conversation::{Assurance, Conversation, State};
use crate::schedule::{self, Schedule, WeekTime};
use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// The version of the document's schema.
const SCHEMA: u32 = 1;
/// How often the clock is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct Document {
    schema: u32,
    on: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// Who says that detection is on or off. Pure.
#[derive(Debug)]
struct Plan {
    schedule: Schedule,
    /// What the schedule said last.
    is_time: bool,
    commanded: Option<bool>,
}

impl Plan {
    /// The clock shows this; `None`: it was never set.
    fn look(&mut self, time: Option<WeekTime>) {
        let is_time = time.is_none_or(|time| self.schedule.has(time));
        if is_time != self.is_time {
            self.is_time = is_time;
            self.commanded = None;
        }
    }

    fn is_on(&self) -> bool {
        self.commanded.unwrap_or(self.is_time)
    }

    fn reason(&self) -> Option<&'static str> {
        match self.commanded {
            Some(_) => Some("command"),
            None => (!self.schedule.is_empty()).then_some("schedule"),
        }
    }
}

/// Whether frames are examined.
#[derive(Debug)]
pub struct Detection {
    plan: Mutex<Plan>,
    switches: Arc<Switches>,
    document: watch::Sender<Vec<u8>>,
}

impl Detection {
    /// By a schedule, and by commands if some come. The clock is looked at once.
    pub fn new(schedule: Schedule, switches: Arc<Switches>) -> Self {
        let detection = Self {
            plan: Mutex::new(Plan {
                schedule,
                is_time: true,
                commanded: None,
            }),
            switches,
            document: watch::Sender::new(Vec::new()),
        };
        detection.look_at_the_clock();
        detection
    }

    /// Somebody wants it so, until the next change of the schedule.
    pub fn command(&self, on: bool) {
        let mut plan = self.lock();
        plan.commanded = Some(on);
        self.tell(&plan);
    }

    /// There is another schedule.
    pub fn change_schedule(&self, schedule: Schedule) {
        self.lock().schedule = schedule;
        self.look_at_the_clock();
    }

    /// Looks at the clock now.
    pub fn look_at_the_clock(&self) {
        self.look(schedule::now());
    }

    /// Looks at the clock for ever.
    pub async fn keep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            self.look_at_the_clock();
        }
    }

    /// Makes the conversation on `topic`: it listens to nothing.
    pub fn connect(&self, topic: String) -> Conversation {
        let (_, remarks) = mpsc::channel(1);
        Conversation {
            filters: Vec::new(),
            states: vec![State {
                topic,
                document: self.document.subscribe(),
                assurance: Assurance::Confirmed,
            }],
            remarks,
            deliver: Box::new(|_| {}),
        }
    }

    fn look(&self, time: Option<WeekTime>) {
        let mut plan = self.lock();
        let before = plan.is_on();
        plan.look(time);
        if plan.is_on() != before {
            let now = if plan.is_on() { "on" } else { "off" };
            log::info!("detection is {now}, by the schedule");
        }
        self.tell(&plan);
    }

    fn tell(&self, plan: &Plan) {
        let on = plan.is_on();
        self.switches.set_detecting(on);
        // Always: a broker may still keep what another run with other settings said.
        let document = Document {
            schema: SCHEMA,
            on,
            reason: plan.reason(),
        };
        let document = serde_json::to_vec(&document).expect("numbers always become JSON");
        self.document.send_if_modified(|told| {
            let is_new = *told != document;
            *told = document;
            is_new
        });
    }

    fn lock(&self) -> MutexGuard<'_, Plan> {
        // No code of ours can panic between two consistent states.
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Config;

    const DAY: Option<WeekTime> = at(12);
    const NIGHT: Option<WeekTime> = at(23);

    const fn at(hour: u16) -> Option<WeekTime> {
        Some(WeekTime {
            day: 0,
            minute: hour * 60,
        })
    }

    fn detection(spans: &[&str]) -> Detection {
        let spans = spans.iter().map(|span| (*span).into()).collect();
        let schedule = Schedule::new(&Config { spans }).expect("valid");
        let detection = Detection::new(Schedule::default(), Arc::default());
        detection.lock().schedule = schedule;
        detection
    }

    fn told(detection: &Detection) -> String {
        let document = detection.document.borrow().clone();
        let on = detection.switches.is_detecting();
        let text = String::from_utf8(document).expect("text");
        assert!(text.is_empty() || text.contains(&format!("\"on\":{on}")));
        text
    }

    #[test]
    fn a_command_holds_until_the_schedule_changes() {
        let detection = detection(&["22:00-06:00"]);
        detection.look(DAY);
        assert_eq!(
            told(&detection),
            r#"{"schema":1,"on":false,"reason":"schedule"}"#
        );
        detection.command(true);
        detection.look(DAY);
        assert_eq!(
            told(&detection),
            r#"{"schema":1,"on":true,"reason":"command"}"#
        );
        detection.look(NIGHT);
        assert_eq!(
            told(&detection),
            r#"{"schema":1,"on":true,"reason":"schedule"}"#
        );
        detection.command(false);
        detection.look(NIGHT);
        assert_eq!(
            told(&detection),
            r#"{"schema":1,"on":false,"reason":"command"}"#
        );
        detection.look(DAY);
        assert_eq!(
            told(&detection),
            r#"{"schema":1,"on":false,"reason":"schedule"}"#
        );
        detection.look(NIGHT);
        assert_eq!(
            told(&detection),
            r#"{"schema":1,"on":true,"reason":"schedule"}"#
        );
    }

    #[test]
    fn without_a_schedule_a_command_holds() {
        let commanded = detection(&[]);
        commanded.look(DAY);
        assert_eq!(told(&commanded), r#"{"schema":1,"on":true}"#);
        commanded.command(false);
        commanded.look(NIGHT);
        assert_eq!(
            told(&commanded),
            r#"{"schema":1,"on":false,"reason":"command"}"#
        );
    }

    #[test]
    fn a_clock_that_was_never_set_lets_detection_run() {
        let detection = detection(&["22:00-06:00"]);
        detection.look(DAY);
        assert!(!detection.switches.is_detecting());
        detection.look(None);
        assert_eq!(
            told(&detection),
            r#"{"schema":1,"on":true,"reason":"schedule"}"#
        );
    }

    #[test]
    fn another_schedule_leaves_a_command_alone_unless_it_changes_what_is_to_be() {
        let detection = detection(&[]);
        detection.look(DAY);
        detection.command(false);
        detection.lock().schedule = schedule_of("00:00-24:00");
        detection.look(DAY);
        assert_eq!(
            told(&detection),
            r#"{"schema":1,"on":false,"reason":"command"}"#
        );
        detection.lock().schedule = schedule_of("22:00-06:00");
        detection.look(DAY);
        assert_eq!(
            told(&detection),
            r#"{"schema":1,"on":false,"reason":"schedule"}"#
        );
        detection.lock().schedule = Schedule::default();
        detection.look(DAY);
        assert_eq!(told(&detection), r#"{"schema":1,"on":true}"#);
    }

    fn schedule_of(span: &str) -> Schedule {
        let spans = vec![span.into()];
        Schedule::new(&Config { spans }).expect("valid")
    }
}
