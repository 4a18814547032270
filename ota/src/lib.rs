//! Models over the air: what a device and a sender say to each other (docs/ota.md).
//!
//! Documents and topics are here once, for both sides. What comes from the network has its lengths bounded before
//! anything is allocated for it. With the feature `send` there is the sender too: [`sender`] is its pure core, [`push`]
//! its way to the broker.

pub mod digest;
pub mod identity;
pub mod offer;
#[cfg(feature = "send")]
pub mod push;
pub mod request;
#[cfg(feature = "sender")]
pub mod sender;
pub mod state;
pub mod topic;
