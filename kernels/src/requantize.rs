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

/// As [`relu`] of each of the sums plus `bias`, saturating, in arithmetic of 16 bits throughout: the compiler makes vector
/// instructions of it on every architecture.
pub(crate) fn relu_row(sums: &[i16], bias: i16, multiplier: i16, pre_shift: u8, out: &mut [u8]) {
    // What is greater saturates when it is shifted.
    let unsaturated_max = i16::MAX.cast_unsigned() >> pre_shift;
    let multiplier = u32::from(multiplier.cast_unsigned());
    for (out, &sum) in out.iter_mut().zip(sums) {
        // Whatever is below zero becomes zero.
        let x = sum.saturating_add(bias).max(0).cast_unsigned();
        let shifted = if x > unsaturated_max {
            i16::MAX.cast_unsigned()
        } else {
            x << pre_shift
        };
        let product = u32::from(shifted) * multiplier;
        // The two halves of a product are what vector instructions give. It has 30 bits, so that twice the high half fits.
        let (high, low) = ((product >> 16) as u16, product as u16);
        let rounded = 2 * high + (((low >> 14) + 1) >> 1);
        *out = rounded.min(u16::from(ACTIVATION_MAX)) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_requantized_like_each_of_its_values() {
        let sums: Vec<i16> = (i16::MIN..=i16::MAX).collect();
        let mut out = vec![0; sums.len()];
        for pre_shift in 0..=PRE_SHIFT_MAX {
            for multiplier in [0, 1, 255, 16_383, 1 << 14, 16_385, 29_999, i16::MAX] {
                for bias in [i16::MIN, -1, 0, 77, i16::MAX] {
                    relu_row(&sums, bias, multiplier, pre_shift, &mut out);
                    for (&sum, &out) in sums.iter().zip(&out) {
                        let x = saturate_i16(i32::from(sum) + i32::from(bias));
                        assert_eq!(
                            out,
                            relu(x, multiplier, pre_shift),
                            "{sum} + {bias}, multiplier {multiplier}, pre-shift {pre_shift}"
                        );
                    }
                }
            }
        }
    }

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
