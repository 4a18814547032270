//! Instruction set levels.
//!
//! A level beyond scalar carries a token whose private field only this module can make, after it has asked the
//! processor. Owning an [`Isa`] therefore proves that its instructions may run: there is no way to name a level which
//! the processor lacks, and no check is repeated in a kernel.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// An instruction set level that this processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// The specification: naive, and on every processor.
    Scalar,
    /// The fast algorithm in plain Rust, on every processor.
    Portable(Portable),
    /// 256-bit vectors of x86-64.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// 128-bit vectors of aarch64.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

/// Needs no proof; has the form of one, so that it runs through the same code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Portable(());

/// Proof that this processor has AVX2.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Avx2(());

/// Proof that this processor has NEON.
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Neon(());

/// A level which cannot be used here.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IsaError {
    /// No level has this name.
    #[error("unknown instruction set {name:?}: known are {}", NAMES.join(", "))]
    Unknown {
        /// The name asked for.
        name: String,
    },
    /// The level exists, but not on this processor.
    #[error("this processor has no {name}: it has {available}")]
    Unavailable {
        /// The level asked for.
        name: String,
        /// What there is, separated by commas.
        available: String,
    },
}

/// The names of all levels on all architectures.
const NAMES: [&str; 4] = ["scalar", "portable", "avx2", "neon"];

impl Isa {
    /// The best level of this processor.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            return Self::Avx2(Avx2(()));
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            return Self::Neon(Neon(()));
        }
        Self::Portable(Portable(()))
    }

    /// Every level of this processor: [`Isa::Scalar`] first, the best one last.
    pub fn available() -> Vec<Self> {
        let mut available = vec![Self::Scalar, Self::Portable(Portable(()))];
        let best = Self::detect();
        if !available.contains(&best) {
            available.push(best);
        }
        available
    }

    /// The name in configuration files, logs and benchmarks.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Portable(_) => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => "neon",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for Isa {
    type Err = IsaError;

    fn from_str(name: &str) -> Result<Self, IsaError> {
        let available = Self::available();
        if let Some(&isa) = available.iter().find(|isa| isa.name() == name) {
            return Ok(isa);
        }
        let name = name.to_owned();
        if !NAMES.contains(&name.as_str()) {
            return Err(IsaError::Unknown { name });
        }
        let names: Vec<_> = available.iter().map(|isa| isa.name()).collect();
        let available = names.join(", ");
        Err(IsaError::Unavailable { name, available })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalar_is_first_and_the_detected_level_last() {
        let available = Isa::available();
        assert_eq!(available.first(), Some(&Isa::Scalar));
        assert_eq!(available.last(), Some(&Isa::detect()));
    }

    #[test]
    fn every_available_level_is_found_by_its_name() {
        for isa in Isa::available() {
            assert_eq!(isa.to_string().parse(), Ok(isa));
            assert!(NAMES.contains(&isa.name()));
        }
    }

    #[test]
    fn unknown_and_unavailable_names_are_told_apart() {
        let unknown = "mmx".parse::<Isa>();
        assert!(matches!(unknown, Err(IsaError::Unknown { name }) if name == "mmx"));
        let foreign = if cfg!(target_arch = "aarch64") {
            "avx2"
        } else {
            "neon"
        };
        let unavailable = foreign.parse::<Isa>();
        assert!(matches!(unavailable, Err(IsaError::Unavailable { name, .. }) if name == foreign));
    }
}
