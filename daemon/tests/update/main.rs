//! Updates of the model, without a network: the machine, the store, the download.

mod check;
mod chunks;
mod documents;
mod faults;
mod machine;
mod slot;
mod store;
mod trust;
