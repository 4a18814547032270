//! Instruction set levels.
//!
//! A level beyond scalar carries a token whose private field only this module can make, after it has asked the
//! processor. Owning an [`Isa`] therefore proves that its instructions may run: there is no way to name a level which
//! the processor lacks, and no check is repeated in a kernel.

#[cfg(target_arch = "arm")]
mod hwcap;

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
    /// 512-bit vectors of x86-64.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// 128-bit vectors of aarch64, in an order that suits cores without an order of their own: see
    /// [`Isa::for_arm_core`].
    #[cfg(target_arch = "aarch64")]
    NeonInOrder(NeonInOrder),
    /// 128-bit vectors of aarch64.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    /// 128-bit vectors of 32-bit ARM.
    #[cfg(target_arch = "arm")]
    Neon32(Neon32),
}

/// Needs no proof; has the form of one, so that it runs through the same code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Portable(());

/// Proof that this processor has AVX2.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Avx2(());

/// Proof that this processor has AVX-512 with operations on bytes and words (F, BW, VL), and AVX2.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Avx512(Avx2);

/// Proof that this processor has NEON.
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Neon(());

/// Proof that this processor has NEON, and the wish for the other order of instructions.
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NeonInOrder(());

/// Proof that this processor has NEON.
#[cfg(target_arch = "arm")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Neon32(());

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
const NAMES: [&str; 7] = [
    "scalar",
    "portable",
    "avx2",
    "avx512",
    "neon-in-order",
    "neon",
    "neon32",
];

impl Isa {
    /// The best level of this processor.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = Avx2::detect() {
            return Avx512::detect(avx2).map_or(Self::Avx2(avx2), Self::Avx512);
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            return Self::Neon(Neon(()));
        }
        #[cfg(target_arch = "arm")]
        if hwcap::has_neon() {
            return Self::Neon32(Neon32(()));
        }
        Self::Portable(Portable(()))
    }

    /// The best level for a core of this `MIDR_EL1`, which names implementer and part. The caller reads it: Linux has
    /// it in `/sys/devices/system/cpu/cpu*/regs/identification/midr_el1`. Where cores differ, the level of the core that
    /// will do the work is the one to take.
    #[cfg(target_arch = "aarch64")]
    pub fn for_arm_core(midr: u64) -> Self {
        let best = Self::detect();
        if matches!(best, Self::Neon(_)) && is_in_order(midr) {
            return Self::NeonInOrder(NeonInOrder(()));
        }
        best
    }

    /// Every level of this processor: [`Isa::Scalar`] first, the best one last.
    pub fn available() -> Vec<Self> {
        let mut available = vec![Self::Scalar, Self::Portable(Portable(()))];
        let best = Self::detect();
        #[cfg(target_arch = "x86_64")]
        available.extend(Avx2::detect().map(Self::Avx2));
        #[cfg(target_arch = "aarch64")]
        if let Self::Neon(_) = best {
            available.push(Self::NeonInOrder(NeonInOrder(())));
        }
        if !available.contains(&best) {
            available.push(best);
        }
        available
    }

    /// The levels among which the fastest one is, by the design of the kernels; which it is depends on the core. Never empty.
    pub fn rivals() -> Vec<Self> {
        let available = Self::available();
        let rivals: Vec<_> = (available.iter().copied())
            .filter(|isa| !matches!(isa, Self::Scalar | Self::Portable(_)))
            .collect();
        if rivals.is_empty() {
            return vec![Self::detect()];
        }
        rivals
    }

    /// The name in configuration files, logs and benchmarks.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Portable(_) => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Self::NeonInOrder(_) => "neon-in-order",
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => "neon",
            #[cfg(target_arch = "arm")]
            Self::Neon32(_) => "neon32",
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    fn detect() -> Option<Self> {
        std::arch::is_x86_feature_detected!("avx2").then_some(Self(()))
    }
}

#[cfg(target_arch = "x86_64")]
impl Avx512 {
    fn detect(avx2: Avx2) -> Option<Self> {
        let has = std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512vl");
        has.then_some(Self(avx2))
    }

    /// What it proves of the shorter vectors.
    pub(crate) const fn avx2(self) -> Avx2 {
        self.0
    }
}

/// Whether a core of this `MIDR_EL1` takes instructions in the order of the program.
#[cfg(any(target_arch = "aarch64", test))]
fn is_in_order(midr: u64) -> bool {
    /// Cortex-A53, A35, A55, A510 and A520 (Arm, "Main ID Register", in each core's manual).
    const PARTS: [u64; 5] = [0xd03, 0xd04, 0xd05, 0xd46, 0xd80];
    /// "A": Arm itself.
    const ARM: u64 = 0x41;
    let (implementer, part) = (midr >> 24 & 0xff, midr >> 4 & 0xfff);
    implementer == ARM && PARTS.contains(&part)
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
    fn the_detected_level_is_among_its_rivals() {
        let rivals = Isa::rivals();
        assert!(rivals.contains(&Isa::detect()), "{rivals:?}");
        assert!(!rivals.contains(&Isa::Scalar), "{rivals:?}");
    }

    #[test]
    fn cores_in_order_are_known_by_their_number() {
        // Raspberry Pi 3 and Zero 2; 4; 5.
        let boards = [0x410f_d034, 0x410f_d083, 0x414f_d0b1];
        assert_eq!(boards.map(is_in_order), [true, false, false]);
        // The same part of another implementer is another core.
        assert!(!is_in_order(0x510f_d034));
        assert!(!is_in_order(0));
    }

    #[cfg(target_arch = "aarch64")]
    #[test]
    fn the_core_chooses_between_the_schedules() {
        assert_eq!(Isa::for_arm_core(0x410f_d034).name(), "neon-in-order");
        assert_eq!(Isa::for_arm_core(0x410f_d083), Isa::detect());
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
