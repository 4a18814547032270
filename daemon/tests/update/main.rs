//! Updates of the model, without a network: the machine, the store, the download.

mod chunks;
mod faults;
mod machine;
mod store;
