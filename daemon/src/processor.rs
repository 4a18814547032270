//! Which instruction set level suits this processor: what the kernels cannot find out without reading files.

use ternwatch_detector::Isa;

/// Where Linux says which core this is (`MIDR_EL1`, Arm Architecture Reference Manual, section D19).
#[cfg(target_arch = "aarch64")]
const MIDR: &str = "/sys/devices/system/cpu/cpu0/regs/identification/midr_el1";

/// The best level for this processor. Where its cores differ, the first one decides; `model.isa` overrules it.
pub fn best_isa() -> Isa {
    #[cfg(target_arch = "aarch64")]
    if let Some(midr) = std::fs::read_to_string(MIDR)
        .ok()
        .and_then(|text| parse_midr(&text))
    {
        return Isa::for_arm_core(midr);
    }
    Isa::detect()
}

/// The number in a line like `0x00000000410fd083`.
#[cfg(any(target_arch = "aarch64", test))]
fn parse_midr(text: &str) -> Option<u64> {
    u64::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_pi_4_is_read() {
        assert_eq!(parse_midr("0x00000000410fd083\n"), Some(0x410f_d083));
        for junk in ["", "410fd083", "0x", "0xcortex", "0x1ffffffffffffffff"] {
            assert_eq!(parse_midr(junk), None, "{junk}");
        }
    }

    #[test]
    fn the_best_level_is_one_of_this_processor() {
        assert!(Isa::available().contains(&best_isa()));
    }
}
