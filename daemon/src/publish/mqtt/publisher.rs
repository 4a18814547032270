//! Publishes what waits, over the connection that another task keeps.

use super::conversation::{self, Dialogue};
use super::link::{Link, Said};
use super::message::Message;
use super::patience::Patience;
use super::recent::Recent;
use super::{Connection, Destination, Term};
use crate::health::Health;
use crate::publish::Outgoing;
use crate::publish::answer::Reply;
use crate::publish::outbox::Event;
use crate::snapshot::Snapshot;
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

/// Time to say `offline` and to leave.
const FAREWELL: Duration = Duration::from_millis(400);

/// What is on its way to the broker, and how far it is.
pub(super) struct Publisher<'a> {
    pub(super) link: Link,
    pub(super) state_topic: &'a str,
    pub(super) destination: &'a Destination,
    pub(super) outgoing: &'a Outgoing,
    pub(super) health: &'a Health,
    pub(super) dialogues: Vec<Dialogue>,
    pub(super) connection: watch::Receiver<Connection>,
    /// Until when nothing is listened to, if so.
    pub(super) deaf_until: watch::Receiver<Option<Instant>>,
    /// Tells the polling task which connection is of no use.
    pub(super) give_up: watch::Sender<Connection>,
    /// How long the broker may take to confirm something.
    pub(super) confirmation_max: Duration,
    pub(super) term: watch::Receiver<Term>,
    /// Documents of frames taken from the queue and not written to a connection.
    pub(super) lost: u64,
    /// Events that the broker did not want.
    pub(super) refused: u64,
    /// Snapshots that it did not want.
    pub(super) refused_snapshots: u64,
    /// Documents and events that were dropped, as far as it was logged.
    pub(super) dropped_told: u64,
    /// With a broker that does not want events now.
    pub(super) patience_for_events: Patience,
    /// With one that does not want the states now, which are retained.
    pub(super) patience_for_states: Patience,
    /// The topics of these states.
    pub(super) put_off: BTreeSet<String>,
    /// With one that does not want counts now.
    pub(super) patience_for_counts: Patience,
    /// Events that the broker has confirmed a moment ago.
    pub(super) recent: Recent,
    /// Those of them that may have been lost with the broker, to be published once more.
    pub(super) again: VecDeque<Event>,
}

impl Publisher<'_> {
    /// Until nothing will follow or the term is over.
    pub(super) async fn publish_all(&mut self) {
        let mut greeted = Connection::Lost;
        let mut is_closed = false;
        // Who says something all the time keeps events back no longer than for that, and so do numbers that change all the time.
        let mut has_spoken = false;
        let mut has_counted = false;
        // Until when nothing is listened to on this connection.
        let mut deaf = Term::Open;
        // Changes of the connection and of the term wake every wait below.
        let mut connection = self.connection.clone();
        let mut term = self.term.clone();
        while !self.outgoing.is_finished() || !self.again.is_empty() {
            let deadline = *term.borrow_and_update();
            if matches!(deadline, Term::Until(deadline) if deadline <= Instant::now()) {
                return;
            }
            let now = *connection.borrow_and_update();
            let is_connected = now != Connection::Lost;
            if greeted != Connection::Lost && now != greeted {
                greeted = Connection::Lost;
                self.take_again();
            }
            if is_connected && now != greeted {
                // Whoever hears that the device is there may speak to it at once.
                deaf = self.listen_or_not().await;
                self.greet().await;
                self.outgoing.counts.tell_again();
                self.patience_for_events.try_again();
                self.patience_for_counts.try_again();
                greeted = now;
                self.tell_drops();
                continue;
            }
            let wants_events = is_connected && !self.patience_for_events.is_needed();
            let waits = |event| comes_again(&self.again, event);
            let wants_counts = is_connected && !self.patience_for_counts.is_needed();
            let spoke = std::mem::take(&mut has_spoken);
            let counted = std::mem::take(&mut has_counted);
            tokio::select! {
                biased;
                () = over(deadline) => return,
                Ok(()) = term.changed() => {}
                Ok(()) = connection.changed() => {}
                () = over(deaf), if is_connected => deaf = self.listen_or_not().await,
                message = conversation::next(&mut self.dialogues), if is_connected && !spoke => {
                    self.remark(message).await;
                    has_spoken = true;
                }
                () = self.patience_for_states.wait(), if is_connected => self.say_again().await,
                () = self.patience_for_events.wait() => self.patience_for_events.try_again(),
                () = self.patience_for_counts.wait() => self.patience_for_counts.try_again(),
                // What is retained is wrong until then, and many events may wait.
                (version, counts) = self.outgoing.counts.next(), if wants_counts && !counted => {
                    self.publish_counts(version, counts).await;
                    has_counted = true;
                }
                event = first(&self.again), if wants_events => self.publish_again(event).await,
                event = self.outgoing.events.first(), if wants_events => {
                    self.publish_event(event).await;
                }
                // Once everything is closed and empty nothing comes, while events may still wait for the broker's wish.
                Some(frame) = self.outgoing.frames.pop(), if is_connected => {
                    self.publish_frame(frame).await;
                }
                // Whatever else there is goes first.
                Some(snapshot) = self.outgoing.next_snapshot(waits), if is_connected => {
                    self.publish_snapshot(snapshot).await;
                }
                // Then the condition above decides.
                () = self.outgoing.closed(), if !is_closed => is_closed = true,
                // What waits for nothing needs no connection any more.
                () = self.outgoing.finished(), if !is_connected => return,
                // Nothing else was there to be published.
                () = std::future::ready(()), if spoke || counted => {}
            }
        }
    }

    /// What the broker had confirmed shortly before it was lost is to be published once more, before anything newer.
    fn take_again(&mut self) {
        let mut again = self.recent.lost(Instant::now());
        again.append(&mut self.again);
        self.again = again;
        if !self.again.is_empty() {
            let count = self.again.len();
            log::info!("the last {count} events are going to be published again");
        }
    }

    /// Logs what was dropped while there was no connection: once a connection, not once a document.
    fn tell_drops(&mut self) {
        let dropped = self.outgoing.dropped();
        if dropped > self.dropped_told {
            let count = dropped - self.dropped_told;
            log::warn!("the oldest {count} documents were dropped while the broker was away");
            self.dropped_told = dropped;
        }
    }

    /// Listens again, unless something came that was longer than anything for this device; until when it does not.
    async fn listen_or_not(&mut self) -> Term {
        let deaf_until = *self.deaf_until.borrow();
        if let Some(until) = deaf_until.filter(|until| *until > Instant::now()) {
            let minutes = (until - Instant::now()).as_secs().div_ceil(60);
            log::warn!(
                "the broker sent something longer than anything that is for this device: it listens to nothing for {minutes} minutes"
            );
            return Term::Until(until);
        }
        self.listen_again().await;
        Term::Open
    }

    /// Listens to what it listened to on the connection before.
    async fn listen_again(&mut self) {
        let connection = *self.connection.borrow();
        let dialogues = std::mem::take(&mut self.dialogues);
        for filter in dialogues.iter().flat_map(|dialogue| &dialogue.filters) {
            if !self.listen(filter).await && *self.connection.borrow() == connection {
                log::warn!("the broker does not let this device listen to {filter}");
            }
        }
        self.dialogues = dialogues;
    }

    /// Says that this device is there, and the states of all dialogues again: a broker may have forgotten what it kept, or
    /// published the last will meanwhile.
    async fn greet(&mut self) {
        self.put_off.clear();
        self.say_states(|_| true).await;
    }

    /// Says the states again that the broker did not want.
    async fn say_again(&mut self) {
        let put_off = std::mem::take(&mut self.put_off);
        self.say_states(|topic| put_off.contains(topic)).await;
    }

    async fn say_states(&mut self, is_wanted: impl Fn(&str) -> bool) {
        self.patience_for_states.try_again();
        let mut dialogues = std::mem::take(&mut self.dialogues);
        let online = is_wanted(self.state_topic)
            .then(|| Message::state(self.state_topic.to_owned(), "online"));
        let states = dialogues.iter_mut().flat_map(|d| d.states(&is_wanted));
        for state in online.into_iter().chain(states) {
            self.remark(state).await;
        }
        self.dialogues = dialogues;
        if !self.patience_for_states.is_needed() {
            self.patience_for_states.accepted();
        }
    }

    /// Whether the broker granted it before the connection or the term ended.
    async fn listen(&mut self, filter: &str) -> bool {
        tokio::select! {
            granted = self.link.subscribe(filter) => granted,
            () = self.lost() => false,
            () = ended(self.term.clone()) => false,
        }
    }

    /// A state that is lost with the connection is said again on the next one, and one that the broker does not want now after a
    /// while; a remark is not.
    async fn remark(&mut self, message: Message<'static>) {
        let topic = message.topic.clone();
        let is_state = message.is_retained(true);
        match self.say(message).await {
            Said::Refused(reason) => log::warn!("the broker does not accept {topic}: {reason}"),
            Said::Later(reason) if is_state => {
                self.patience_for_states.put_off(&topic, reason);
                self.put_off.insert(topic.into_owned());
            }
            Said::Later(reason) => log::warn!("the broker does not accept {topic}: {reason}"),
            Said::Heard | Said::Lost => {}
        }
    }

    async fn publish_event(&mut self, event: Event) {
        let (sequence, started) = (event.sequence, Instant::now());
        match self.say_event(event).await {
            Said::Heard => {
                self.health.event_confirmed(started.elapsed());
                self.health.published.fetch_add(1, Ordering::Relaxed);
                self.outgoing.events.confirm(sequence);
                self.patience_for_events.accepted();
            }
            Said::Later(reason) => {
                let topic = &self.destination.events;
                self.patience_for_events.put_off(topic, reason);
            }
            Said::Refused(reason) => {
                // The events behind it may be wanted, so it must not stay in their way.
                if self.refused == 0 {
                    let topic = &self.destination.events;
                    log::warn!("the broker does not accept {topic} ({sequence}): {reason}");
                }
                self.refused += 1;
                self.outgoing.events.confirm(sequence);
            }
            Said::Lost => {}
        }
    }

    async fn publish_again(&mut self, event: Event) {
        match self.say_event(event).await {
            Said::Heard | Said::Refused(_) => drop(self.again.pop_front()),
            Said::Later(reason) => {
                let topic = &self.destination.events;
                self.patience_for_events.put_off(topic, reason);
            }
            Said::Lost => {}
        }
    }

    /// Publishes an event and remembers that the broker confirmed it.
    async fn say_event(&mut self, event: Event) -> Said {
        let Destination {
            events,
            event_expiry_s,
            ..
        } = self.destination;
        let document = event.document.clone();
        let said = self
            .say(Message::event(events, document, *event_expiry_s))
            .await;
        if said == Said::Heard {
            self.recent.confirmed(event, Instant::now());
        }
        said
    }

    async fn publish_counts(&mut self, version: u64, counts: Vec<u8>) {
        let topic = &self.destination.counts;
        match self.say(Message::status(topic, counts)).await {
            Said::Heard => {
                self.health.published.fetch_add(1, Ordering::Relaxed);
                self.outgoing.counts.told(version);
                self.patience_for_counts.accepted();
            }
            Said::Later(reason) => self.patience_for_counts.put_off(topic, reason),
            Said::Refused(reason) => {
                log::warn!("the broker does not accept {topic}: {reason}");
                self.outgoing.counts.told(version);
            }
            Said::Lost => {}
        }
    }

    async fn publish_frame(&mut self, document: Vec<u8>) {
        let topic = &self.destination.frames;
        let said = self.say(Message::once(topic, document)).await;
        if said == Said::Heard {
            self.health.published.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if let Said::Refused(reason) = said
            && self.lost == 0
        {
            log::warn!("the broker does not accept {topic}: {reason}");
        }
        self.lost += 1;
    }

    async fn publish_snapshot(&mut self, snapshot: Snapshot) {
        let Snapshot {
            jpeg,
            properties,
            replies,
            ..
        } = snapshot;
        let Destination {
            snapshots: topic,
            snapshot_expiry_s,
            ..
        } = self.destination;
        let message = Message::picture(topic, jpeg, properties, *snapshot_expiry_s);
        let said = self.say(message).await;
        if said == Said::Heard {
            let published = &self.health.snapshots_published;
            published.fetch_add(1, Ordering::Relaxed);
            replies.into_iter().for_each(Reply::done);
            return;
        }
        // The replies say that it is not.
        self.health.snapshot_dropped();
        if let Said::Refused(reason) = said {
            if self.refused_snapshots == 0 {
                log::warn!("the broker does not accept {topic}: {reason}");
            }
            self.refused_snapshots += 1;
        }
    }

    /// Publishes a message, unless the connection or the term ends before.
    async fn say(&self, message: Message<'_>) -> Said {
        tokio::select! {
            said = self.link.publish(message) => said,
            // Frames are not published twice. Events are, since the connection may have taken this one with it.
            () = self.lost() => Said::Lost,
            // The term may be set while this waits for a connection.
            () = ended(self.term.clone()) => Said::Lost,
        }
    }

    /// Until the connection is another one. Ends it when the broker has let this wait for too long: events wait in the outbox, and
    /// the next connection may be to a broker that works.
    async fn lost(&self) {
        let mut connection = self.connection.clone();
        let before = *connection.borrow_and_update();
        let changed = connection.wait_for(|now| *now != before);
        if timeout(self.confirmation_max, changed).await.is_err() {
            self.give_up.send_replace(before);
            let _ = connection.wait_for(|now| *now != before).await;
        }
    }

    /// Says `offline` and closes the connection, so that the broker drops the last will.
    pub(super) async fn leave(&mut self) {
        if *self.connection.borrow() == Connection::Lost {
            return;
        }
        let farewell = async {
            let offline = Message::state(self.state_topic, "offline");
            if self.link.publish(offline).await != Said::Heard {
                log::warn!("the broker did not confirm that this device is offline");
            }
            self.link.disconnect().await;
            // The connection ends once the broker has the last packet.
            let _ = self
                .connection
                .wait_for(|now| *now == Connection::Lost)
                .await;
        };
        if timeout(FAREWELL, farewell).await.is_err() {
            log::warn!("the broker did not answer the farewell");
        }
    }
}

/// The first of them; never, if there is none.
async fn first(events: &VecDeque<Event>) -> Event {
    match events.front() {
        Some(event) => event.clone(),
        None => std::future::pending().await,
    }
}

/// Whether this event, or one before it, is to be published again.
fn comes_again(events: &VecDeque<Event>, sequence: u64) -> bool {
    events
        .front()
        .is_some_and(|event| event.sequence <= sequence)
}

/// Whenever the term is set, until it is over.
async fn ended(mut term: watch::Receiver<Term>) {
    let set = term.wait_for(|term| *term != Term::Open).await;
    let set = set.map_or(Term::Open, |term| *term);
    over(set).await;
}

async fn over(term: Term) {
    match term {
        Term::Open => std::future::pending().await,
        Term::Until(deadline) => {
            let _ = timeout_at(deadline, std::future::pending::<()>()).await;
        }
    }
}
