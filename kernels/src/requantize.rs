//! From an exact sum to the 16-bit value of a channel, and from there to a u7 activation.
//!
//! These few lines are the specification of rounding and saturation; the SIMD forms must return the same bits.

/// Largest activation: seven bits, so that two of them fit in a byte when added.
pub const ACTIVATION_MAX: u8 = 127;

/// Largest left shift before the multiplication.
pub const PRE_SHIFT_MAX: u8 = 7;

/// Clamps to the range of `i16`.
pub const fn saturate_i16(value: i32) -> i16 {
    if value > i16::MAX as i32 {
        i16::MAX
    } else if value < i16::MIN as i32 {
        i16::MIN
    } else {
        value as i16
    }
}

/// ReLU and requantization: `clamp((sat_i16(x << pre_shift) * multiplier + 2^14) >> 15, 0, 127)`.
///
/// The multiplier is a fixed-point number with 15 fraction bits in `0..=32767`, the shift is at most
/// [`PRE_SHIFT_MAX`]; [`super::conv::Conv::new`] refuses others.
pub const fn relu(x: i16, multiplier: i16, pre_shift: u8) -> u8 {
    let shifted = saturate_i16((x as i32) << pre_shift) as i32;
    let rounded = (shifted * multiplier as i32 + (1 << 14)) >> 15;
    if rounded < 0 {
        0
    } else if rounded > ACTIVATION_MAX as i32 {
        ACTIVATION_MAX
    } else {
        rounded as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saturation_is_exact_at_the_bounds() {
        assert_eq!(saturate_i16(32_767), 32_767);
        assert_eq!(saturate_i16(32_768), 32_767);
        assert_eq!(saturate_i16(-32_768), -32_768);
        assert_eq!(saturate_i16(-32_769), -32_768);
        assert_eq!(saturate_i16(i32::MIN), i16::MIN);
    }

    #[test]
    fn halves_round_up() {
        // A multiplier of 2^14 is one half.
        assert_eq!(relu(1, 1 << 14, 0), 1);
        assert_eq!(relu(2, 1 << 14, 0), 1);
        assert_eq!(relu(3, 1 << 14, 0), 2);
    }

    #[test]
    fn negative_values_become_zero_and_large_ones_127() {
        assert_eq!(relu(-1, 32_767, 7), 0);
        assert_eq!(relu(i16::MIN, 32_767, 7), 0);
        assert_eq!(relu(i16::MAX, 32_767, 0), 127);
        assert_eq!(relu(i16::MAX, 0, 7), 0);
    }

    #[test]
    fn the_shift_saturates_before_the_multiplication() {
        // Without saturation 300 << 7 would wrap to a negative number.
        assert_eq!(relu(300, 100, 7), 100);
        assert_eq!(relu(256, 100, 7), 100);
        assert_eq!(relu(255, 128, 7), 128 - 1);
    }
}
