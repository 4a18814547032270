//! quant-tool as a library: trains, quantizes, evaluates, signs and inspects the detectors that Ternwatch runs.
//!
//! Data flows one way: photographs (`data`), or a network from elsewhere (`import`) -> checkpoints (`train`, `quantize`) -> a
//! bundle (`export`) -> numbers (`evaluate`, `inspect`, `card`, `diff`) and to devices (`sign`, `send`). What is evaluated is
//! always the signed bundle, run by the daemon's own detector.

#![cfg_attr(
    test,
    expect(clippy::unwrap_used, reason = "a test fails by panicking")
)]

pub mod card;
pub mod cli;
pub mod data;
pub mod diff;
pub mod evaluate;
pub mod exit;
pub mod export;
pub mod files;
pub mod import;
pub mod inspect;
pub mod keyring;
pub mod network;
pub mod onnx;
pub mod progress;
pub mod quantize;
pub mod reproduce;
pub mod run;
pub mod send;
pub mod sign;
mod tell;
pub mod train;
