//! What is outside of the machine: a broker, the cable to it, and somebody who listens.

use crate::PATIENCE;
use serde_json::Value;
use std::process::Command;
use system_tests::broker::{Broker, Cable, Heard, Subscriber, free_port};
use system_tests::ledger::Ledger;
use tempfile::TempDir;

/// What the machine publishes below, with the settings of the package.
const TOPICS: &str = "ternwatch/camera";
/// The machine's account at the broker.
pub(crate) const USER: &str = "board";
pub(crate) const PASSWORD: &str = "hunter2";

/// The broker and a subscriber of everything, who keeps a ledger of the events.
pub(crate) struct Site {
    broker: Broker,
    cable: Cable,
    subscriber: Subscriber,
    ledger: Ledger,
    _accounts: TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        // Programs on this side are let in without a password, the machine is not.
        let folder = tempfile::tempdir().expect("a temporary folder");
        let accounts = folder.path().join("accounts");
        let made = Command::new("mosquitto_passwd")
            .args(["-b", "-c"])
            .arg(&accounts)
            .args([USER, PASSWORD])
            .status();
        assert!(
            made.is_ok_and(|status| status.success()),
            "mosquitto_passwd makes an account"
        );
        let port = free_port();
        let broker = Broker::start_with(&format!(
            "per_listener_settings true\nuser root\nallow_anonymous true\n\
             listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {}\n",
            accounts.display()
        ));
        let subscriber = Subscriber::connect(broker.port(), "vm-test");
        let mut cable = Cable::new(port);
        cable.plug();
        let ledger = Ledger::new(&format!("{TOPICS}/camera/events"));
        Self {
            broker,
            cable,
            subscriber,
            ledger,
            _accounts: folder,
        }
    }

    /// The port that the machine finds the broker at.
    pub(crate) fn port(&self) -> u16 {
        self.cable.port()
    }

    /// The broker's own port, for programs on this side.
    pub(crate) fn broker_port(&self) -> u16 {
        self.broker.port()
    }

    /// Waits for a message of the machine that `accept` wants; the events on the way are noted down.
    fn expect<T>(&mut self, what: &str, mut accept: impl FnMut(&Heard) -> Option<T>) -> T {
        let ledger = &mut self.ledger;
        self.subscriber.expect_within(PATIENCE, what, |heard| {
            ledger.take(heard);
            accept(heard)
        })
    }

    /// Waits until so many more people have come into view.
    pub(crate) fn see_people(&mut self, count: usize) {
        for _ in 0..count {
            self.person();
        }
    }

    /// Waits until one more person has come into view: the event.
    pub(crate) fn person(&mut self) -> Value {
        let topic = format!("{TOPICS}/camera/events");
        self.expect("a person", |heard| {
            let event = heard.document(&topic)?;
            (event["type"] == "new" && event["track"]["class"] == "person").then_some(event)
        })
    }

    /// Waits until the camera is in this state: the reason, if it says one.
    pub(crate) fn camera_is(&mut self, state: &str) -> String {
        let topic = format!("{TOPICS}/camera/state");
        self.expect(&format!("the camera's state {state}"), |heard| {
            let told = heard.document(&topic)?;
            let reason = told["reason"].as_str().unwrap_or_default().to_owned();
            (told["state"] == state).then_some(reason)
        })
    }

    /// Waits until the device says that it is there or not.
    pub(crate) fn device_is(&mut self, state: &str) {
        let topic = format!("{TOPICS}/state");
        self.expect(&format!("the device's state {state}"), |heard| {
            (heard.topic == topic && heard.text() == state).then_some(())
        });
    }

    /// Waits until an update is in one of these states: which one.
    pub(crate) fn update_is(&mut self, states: &[&str]) -> String {
        let topic = format!("{TOPICS}/model");
        self.expect(&format!("an update that is {states:?}"), |heard| {
            let told = heard.document(&topic)?;
            let state = told["state"].as_str()?;
            states.contains(&state).then(|| state.to_owned())
        })
    }

    /// Waits until this model looks at the frames.
    pub(crate) fn model_is(&mut self, name: &str) {
        let topic = format!("{TOPICS}/model");
        self.expect(&format!("the model {name}"), |heard| {
            let told = heard.document(&topic)?;
            (told["running"]["name"] == name).then_some(())
        });
    }

    /// The next statistics of a whole interval.
    pub(crate) fn statistics(&mut self) -> Value {
        let topic = format!("{TOPICS}/statistics");
        self.expect("statistics", |heard| {
            let told = heard.document(&topic)?;
            (told["interval_s"].as_f64()? > 20.0).then_some(told)
        })
    }

    /// Kills the broker and starts it again; somebody listens before the machine finds it.
    pub(crate) fn kill_broker(&mut self) {
        self.cable.unplug();
        self.broker.stop();
        self.broker.start_again();
        let after = Subscriber::connect(self.broker.port(), "vm-test-after");
        let before = std::mem::replace(&mut self.subscriber, after);
        before.until_lost(|heard| {
            self.ledger.take(heard);
        });
        self.cable.plug();
    }

    /// Fails if the number of an event is missing; how many there were, and how many came again.
    pub(crate) fn settle(&self) -> (usize, u64) {
        self.ledger.check();
        (self.ledger.events.len(), self.ledger.repeated)
    }
}
