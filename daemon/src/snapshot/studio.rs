//! Makes pictures of shots, on a thread of its own, and leaves them for the broker.

use super::album::{Seen, Shot};
use super::{Config, picture};
use crate::health::Health;
use crate::publish::Outgoing;
use crate::publish::answer::Reply;
use crate::stop::Stop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Shots that wait for the studio. When everybody ends at once, so many get a picture.
const ORDERS_MAX: usize = 16;
/// After a stop was asked for, pictures are made for so long.
const AFTER_STOP: Duration = Duration::from_millis(300);

/// A picture to be made.
#[derive(Debug)]
pub struct Order {
    pub(super) shot: Arc<Shot>,
    pub(super) occasion: Occasion,
}

#[derive(Debug)]
pub(super) enum Occasion {
    /// A track has ended.
    End(About),
    /// It was asked for.
    Asked(Vec<Reply>),
}

/// Whom a picture is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct About {
    pub(super) seen: Seen,
    /// Number of the event that told of the end.
    pub(super) event: u64,
}

impl Order {
    pub(super) fn of_track(shot: Arc<Shot>, about: About) -> Self {
        let occasion = Occasion::End(about);
        Self { shot, occasion }
    }

    pub(super) fn of_now(shot: Arc<Shot>, replies: Vec<Reply>) -> Self {
        let occasion = Occasion::Asked(replies);
        Self { shot, occasion }
    }
}

/// A picture on its way out.
#[derive(Debug)]
pub struct Snapshot {
    /// JPEG.
    pub jpeg: Vec<u8>,
    /// What a subscriber may want to know of it, by name.
    pub properties: Vec<(String, String)>,
    /// Who is to be told once it is published.
    pub replies: Vec<Reply>,
    /// The event that it belongs to, which comes first.
    pub event: Option<u64>,
}

/// Makes pictures.
pub struct Studio {
    config: Config,
    /// When this run began, as its events say it.
    started_at: String,
    orders: Receiver<Order>,
    outgoing: Arc<Outgoing>,
    health: Arc<Health>,
}

impl Studio {
    /// A studio for the events of a run, and where it takes orders.
    pub fn new(
        config: &Config,
        started_at: String,
        outgoing: Arc<Outgoing>,
        health: Arc<Health>,
    ) -> (Self, SyncSender<Order>) {
        let (send, orders) = sync_channel(ORDERS_MAX);
        let studio = Self {
            config: config.clone(),
            started_at,
            orders,
            outgoing,
            health,
        };
        (studio, send)
    }

    /// Until no order will follow.
    pub fn run(&self, stop: &Stop) {
        let mut until: Option<Instant> = None;
        for order in &self.orders {
            if stop.requested() {
                let until = *until.get_or_insert_with(|| Instant::now() + AFTER_STOP);
                if Instant::now() >= until {
                    self.health.snapshot_dropped();
                    continue;
                }
            }
            match self.make(order) {
                Ok(snapshot) => self.outgoing.snapshots.push(snapshot),
                Err(reason) => {
                    log::warn!("no snapshot: {reason}");
                    self.health.snapshot_dropped();
                }
            }
        }
    }

    /// The picture, or why there is none.
    fn make(&self, Order { shot, occasion }: Order) -> Result<Snapshot, String> {
        let subject = match &occasion {
            Occasion::End(about) => Some(about.seen.xyxy),
            Occasion::Asked(_) => None,
        };
        // A bug in an encoder costs a picture, not the thread.
        let made = catch_unwind(AssertUnwindSafe(|| {
            picture::jpeg(&shot, subject, &self.config)
        }));
        let jpeg = made
            .map_err(|_| "the encoder panicked".to_owned())?
            .map_err(|error| error.to_string())?;
        let mut properties = self.properties(&occasion);
        let captured_at = shot.frame.captured_at.rfc3339();
        properties.push(("captured_at".into(), captured_at));
        let (event, replies) = match occasion {
            Occasion::End(about) => (Some(about.event), Vec::new()),
            Occasion::Asked(replies) => (None, replies),
        };
        Ok(Snapshot {
            jpeg,
            properties,
            replies,
            event,
        })
    }

    fn properties(&self, occasion: &Occasion) -> Vec<(String, String)> {
        let Occasion::End(About { seen, event }) = occasion else {
            return vec![("occasion".into(), "command".into())];
        };
        vec![
            ("occasion".into(), "track".into()),
            ("track".into(), seen.track.to_string()),
            ("score".into(), seen.score.to_string()),
            ("sequence".into(), event.to_string()),
            ("started_at".into(), self.started_at.clone()),
        ]
    }
}
