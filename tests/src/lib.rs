//! System tests of Ternwatch: the real programs, a real broker, real street frames.
//!
//! The library holds what the tests share; the tests themselves are in `tests/`.

pub mod broker;
pub mod ledger;
pub mod rtsp;
pub mod transcript;
