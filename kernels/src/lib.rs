//! Ternary arithmetic: convolutions whose weights are -1, 0 or +1, on unsigned 7-bit activations; additions and pools of
//! these; and the arithmetic that makes such activations of a picture's rows.
//!
//! Takes plain slices, gives plain slices, and knows nothing of models, files or frames. Every instruction set
//! level returns the same bytes as [`Isa::Scalar`], which is the specification.
#![cfg_attr(
    test,
    expect(clippy::unwrap_used, reason = "a test fails by panicking")
)]

#[cfg(target_arch = "arm")]
#[macro_use]
mod neon32;

pub mod conv;
pub mod isa;
pub mod merge;
pub mod picture;
pub mod pool;
pub mod requantize;
mod row;
pub mod trit;

pub use isa::Isa;
pub use trit::Trit;
