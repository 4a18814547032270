//! Models and keyrings on their way to devices over MQTT.
//!
//! `push` and `trust` check what is to be sent, `broker` is the way there, `fleet` sends it and tells how far each device is.

mod broker;
mod fleet;
mod push;
mod trust;

pub use self::fleet::NotEverywhere;
pub use self::push::push;
pub use self::trust::trust;
