//! Which instruction set level suits this processor: what the kernels cannot find out without files and a clock.

use std::fmt;
use std::time::{Duration, Instant};
use ternwatch_detector::{Isa, Probe};

/// Where Linux says which core this is (`MIDR_EL1`, Arm Architecture Reference Manual, section D19).
#[cfg(target_arch = "aarch64")]
const MIDR: &str = "/sys/devices/system/cpu/cpu0/regs/identification/midr_el1";

/// How often each level runs; the shortest time counts, which is the one that nothing disturbed.
const ROUNDS: usize = 9;

/// A level that is at least this much faster is taken in place of the expected one, in percent.
const GAIN_MIN_PERCENT: u32 = 5;

/// A level, and why it was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsaChoice {
    /// The level.
    pub isa: Isa,
    why: Why,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Why {
    /// `model.isa` names it.
    Setting,
    /// This processor has no other that could be faster.
    NoRival,
    /// It was the fastest, or the expected one and nearly so.
    Measured {
        /// What this kind of core was expected to suit.
        expected: Isa,
        laps: Vec<Lap>,
    },
}

/// A level and its time for a [`Probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lap {
    isa: Isa,
    time: Duration,
}

impl IsaChoice {
    /// What the settings ask for.
    pub fn by_setting(isa: Isa) -> Self {
        let why = Why::Setting;
        Self { isa, why }
    }

    /// The level that suits this processor: what is expected of its kind of core, unless a short measurement says otherwise. It
    /// takes some milliseconds to some tens of them. Where cores differ, it measures the one that it happens to run on.
    pub fn by_measurement() -> Self {
        let rivals = Isa::rivals();
        let expected = expected();
        if rivals.len() == 1 {
            let why = Why::NoRival;
            return Self { isa: expected, why };
        }
        let laps = measure(&rivals);
        Self {
            isa: fastest(expected, &laps),
            why: Why::Measured { expected, laps },
        }
    }

    /// A level that is clearly faster here, if there is one.
    pub fn faster(&self) -> Option<Isa> {
        if let Why::Measured { .. } = self.why {
            return None;
        }
        let mut levels = Isa::rivals();
        if !levels.contains(&self.isa) {
            levels.push(self.isa);
        }
        let best = fastest(self.isa, &measure(&levels));
        (best != self.isa).then_some(best)
    }
}

impl fmt::Display for IsaChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.isa)?;
        match &self.why {
            Why::Setting => write!(f, ", as model.isa says"),
            Why::NoRival => Ok(()),
            Why::Measured { expected, laps } => {
                write!(f, ", {expected} was expected, measured:")?;
                for (index, lap) in laps.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    let time_us = lap.time.as_secs_f64() * 1e6;
                    write!(f, "{comma} {} {time_us:.0} us", lap.isa)?;
                }
                Ok(())
            }
        }
    }
}

/// The level for this kind of core. Where its cores differ, the first one decides.
fn expected() -> Isa {
    #[cfg(target_arch = "aarch64")]
    if let Some(midr) = std::fs::read_to_string(MIDR)
        .ok()
        .and_then(|text| parse_midr(&text))
    {
        return Isa::for_arm_core(midr);
    }
    Isa::detect()
}

/// The shortest time of each level. They take turns, so that a slow moment meets all of them.
fn measure(levels: &[Isa]) -> Vec<Lap> {
    let mut probe = Probe::new(levels);
    let mut laps: Vec<Lap> = levels
        .iter()
        .map(|&isa| Lap {
            isa,
            time: Duration::MAX,
        })
        .collect();
    for _ in 0..ROUNDS {
        for lap in &mut laps {
            let from = Instant::now();
            probe.run(lap.isa);
            lap.time = lap.time.min(from.elapsed());
        }
    }
    laps
}

/// The expected level, unless another one is faster by [`GAIN_MIN_PERCENT`].
fn fastest(expected: Isa, laps: &[Lap]) -> Isa {
    let time_of = |isa| laps.iter().find(|lap| lap.isa == isa).map(|lap| lap.time);
    let best = laps.iter().min_by_key(|lap| lap.time);
    match (best, time_of(expected)) {
        (Some(best), Some(time)) if best.time * 100 > time * (100 - GAIN_MIN_PERCENT) => expected,
        (Some(best), _) => best.isa,
        (None, _) => expected,
    }
}

/// The number in a line like `0x00000000410fd083`.
#[cfg(any(target_arch = "aarch64", test))]
fn parse_midr(text: &str) -> Option<u64> {
    u64::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laps(times_us: [u64; 2]) -> [Lap; 2] {
        let [first, second] = [Isa::Scalar, Isa::detect()];
        let lap = |isa, time_us| Lap {
            isa,
            time: Duration::from_micros(time_us),
        };
        [lap(first, times_us[0]), lap(second, times_us[1])]
    }

    #[test]
    fn the_line_of_a_pi_4_is_read() {
        assert_eq!(parse_midr("0x00000000410fd083\n"), Some(0x410f_d083));
        for junk in ["", "410fd083", "0x", "0xcortex", "0x1ffffffffffffffff"] {
            assert_eq!(parse_midr(junk), None, "{junk}");
        }
    }

    #[test]
    fn the_expected_level_stays_unless_another_is_clearly_faster() {
        let expected = Isa::detect();
        assert_eq!(fastest(expected, &laps([96, 100])), expected);
        assert_eq!(fastest(expected, &laps([94, 100])), Isa::Scalar);
        assert_eq!(fastest(expected, &laps([200, 100])), expected);
        assert_eq!(fastest(expected, &[]), expected);
    }

    #[test]
    fn what_was_chosen_is_a_rival_and_says_why() {
        let choice = IsaChoice::by_measurement();
        let rivals = Isa::rivals();
        assert!(rivals.contains(&choice.isa), "{choice}");
        let text = choice.to_string();
        for rival in rivals {
            assert!(text.contains(rival.name()), "{text}");
        }
        let forced = IsaChoice::by_setting(Isa::Scalar).to_string();
        assert_eq!(forced, "scalar, as model.isa says");
    }

    #[test]
    fn every_level_has_a_time() {
        for lap in measure(&Isa::rivals()) {
            assert!(lap.time < Duration::from_secs(10), "{lap:?}");
        }
    }
}
