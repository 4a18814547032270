//! The daemon of Ternwatch: frames in, published events out.
//!
//! `main.rs` is the table of contents, [`service`] a run from beginning to end, [`pipeline`] the order of the stages.
//! Threads carry the frames; asynchronous code exists only where the network begins ([`publish::mqtt`]). This crate
//! has no unsafe code, and knows nothing of how a model computes.

pub mod backoff;
pub mod bench;
pub mod camera;
pub mod cli;
pub mod clock;
pub mod command;
pub mod config;
pub mod detection;
pub mod disk;
pub mod doctor;
pub mod exit;
pub mod health;
pub mod latency;
pub mod logging;
pub mod mailbox;
pub mod model;
pub mod motion;
pub mod pipeline;
pub mod processor;
pub mod publish;
pub mod reload;
pub mod schedule;
pub mod service;
pub mod simulate;
pub mod snapshot;
pub mod stop;
pub mod tell;
pub mod track;
pub mod update;
pub mod vitals;
pub mod zones;
