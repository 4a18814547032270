//! Adds tensors: two of one shape, or a coarse map, upsampled by two to the nearest neighbour, to a fine one. Clamps to u7.
//!
//! Plain Rust without a multiplication or a data-dependent branch, which the compiler turns into vector
//! instructions on every architecture; the operations are a thousandth of a network's time.

use crate::requantize::ACTIVATION_MAX;

/// `out[c][y][x] = min(127, fine[c][y][x] + coarse[c][y / 2][x / 2])`.
///
/// `height` and `width` are those of `fine` and `out`; `coarse` has half as many rows and columns, rounded up.
///
/// # Panics
/// If a length disagrees with the sizes.
pub fn add_upsampled(
    fine: &[u8],
    coarse: &[u8],
    channels: usize,
    height: usize,
    width: usize,
    out: &mut [u8],
) {
    let coarse_width = width.div_ceil(2);
    let coarse_plane_len = height.div_ceil(2) * coarse_width;
    assert_eq!(fine.len(), channels * height * width, "length of fine");
    assert_eq!(
        coarse.len(),
        channels * coarse_plane_len,
        "length of coarse"
    );
    assert_eq!(out.len(), fine.len(), "length of out");
    if fine.is_empty() {
        return;
    }
    let rows = fine
        .chunks_exact(width)
        .zip(out.chunks_exact_mut(width))
        .enumerate();
    for (row, (fine_row, out_row)) in rows {
        let (channel, y) = (row / height, row % height);
        let start = channel * coarse_plane_len + y / 2 * coarse_width;
        add_row(fine_row, &coarse[start..start + coarse_width], out_row);
    }
}

/// One row; an odd last pixel has a coarse pixel of its own.
fn add_row(fine: &[u8], coarse: &[u8], out: &mut [u8]) {
    let (fine_pairs, fine_tail) = fine.as_chunks::<2>();
    let (out_pairs, out_tail) = out.as_chunks_mut::<2>();
    for ((out, fine), &coarse) in out_pairs.iter_mut().zip(fine_pairs).zip(coarse) {
        *out = fine.map(|fine| add_u7(fine, coarse));
    }
    for ((out, &fine), &coarse) in out_tail
        .iter_mut()
        .zip(fine_tail)
        .zip(&coarse[fine_pairs.len()..])
    {
        *out = add_u7(fine, coarse);
    }
}

/// The sum of two activations is at most 254 and cannot wrap.
fn add_u7(fine: u8, coarse: u8) -> u8 {
    debug_assert!(fine <= ACTIVATION_MAX && coarse <= ACTIVATION_MAX);
    fine.wrapping_add(coarse).min(ACTIVATION_MAX)
}

/// `out[i] = clamp(a[i] + b[i] - offset, 0, 127)`.
///
/// # Panics
/// If the lengths differ.
pub fn add(a: &[u8], b: &[u8], offset: u8, out: &mut [u8]) {
    assert_eq!(a.len(), b.len(), "length of b");
    assert_eq!(out.len(), a.len(), "length of out");
    for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
        debug_assert!(a <= ACTIVATION_MAX && b <= ACTIVATION_MAX);
        *out = a.wrapping_add(b).saturating_sub(offset).min(ACTIVATION_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sum_is_lowered_and_clamped() {
        let pairs = (0..=127u8).flat_map(|a| (0..=127u8).map(move |b| (a, b)));
        let (a, b): (Vec<_>, Vec<_>) = pairs.unzip();
        for offset in [0, 1, 63, 64, 127, 128, 253, 254] {
            let mut out = vec![255; a.len()];
            add(&a, &b, offset, &mut out);
            for ((&a, &b), &out) in a.iter().zip(&b).zip(&out) {
                let expected = (i32::from(a) + i32::from(b) - i32::from(offset)).clamp(0, 127);
                assert_eq!(i32::from(out), expected, "{a} + {b} - {offset}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "length of b")]
    fn tensors_of_two_lengths_are_a_broken_invariant() {
        add(&[0; 9], &[0; 8], 0, &mut [0; 9]);
    }

    #[test]
    fn odd_sides_use_the_rounded_up_coarse_size() {
        let fine = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        let coarse = [10, 20, 30, 127];
        let mut out = [0; 9];
        add_upsampled(&fine, &coarse, 1, 3, 3, &mut out);
        assert_eq!(out, [11, 12, 23, 14, 15, 26, 37, 38, 127]);
    }

    #[test]
    fn every_size_agrees_with_the_formula() {
        for (channels, height, width) in [(1, 1, 1), (2, 1, 2), (3, 5, 7), (2, 4, 33), (1, 9, 64)] {
            let coarse_height = usize::div_ceil(height, 2);
            let coarse_width = usize::div_ceil(width, 2);
            let bytes = |count: usize, step: usize| -> Vec<u8> {
                (0..count).map(|i| (i * step % 128) as u8).collect()
            };
            let fine = bytes(channels * height * width, 37);
            let coarse = bytes(channels * coarse_height * coarse_width, 53);
            let mut out = vec![0; fine.len()];
            add_upsampled(&fine, &coarse, channels, height, width, &mut out);
            for c in 0..channels {
                for y in 0..height {
                    for x in 0..width {
                        let at = (c * height + y) * width + x;
                        let at_coarse = (c * coarse_height + y / 2) * coarse_width + x / 2;
                        let expected = (fine[at] + coarse[at_coarse]).min(127);
                        assert_eq!(out[at], expected, "c {c} y {y} x {x}");
                    }
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "length of coarse")]
    fn a_wrong_length_is_a_broken_invariant() {
        add_upsampled(&[0; 9], &[0; 2], 1, 3, 3, &mut [0; 9]);
    }
}
