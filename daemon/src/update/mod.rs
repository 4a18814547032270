//! New models over the air, and back to the one before when they are no good (docs/ota.md).
//!
//! [`machine`] says what may happen, [`store`] keeps it, [`agent`] makes it happen beside the frame path. Nothing here
//! can stop the frames: the worst end of an update is the model that was in use before.

pub mod agent;
pub mod budget;
pub mod check;
pub mod chunks;
pub mod command;
pub mod config;
pub mod fetch;
pub mod hawkbit;
pub mod machine;
pub mod network;
pub mod reason;
pub mod record;
pub mod release;
pub mod slot;
pub mod start;
pub mod status;
pub mod store;
pub mod trial;
pub mod trust;
pub mod web;

pub use ternwatch_ota::{digest, offer};
