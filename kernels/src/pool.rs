//! The greatest value, or the mean, of every window of a plane.
//!
//! Plain Rust that the compiler turns into vector instructions on every architecture.

use crate::conv::SIDE_MAX;
use crate::row::for_each_input;

/// `out[c][y][x]` is the greatest value of the window of `kernel` x `kernel` inputs that begins at row `y * stride - padding`, column
/// `x * stride - padding`, where `padding` is `(kernel - 1) / 2` rounded down. What of it lies outside of the plane does not count.
///
/// `height` and `width` are those of `input`, at most [`SIDE_MAX`]; `out` has `ceil(side / stride)` rows and columns. `stride` is 1 or 2.
///
/// # Panics
/// If a length disagrees with the sizes, or one of these is none of the above.
pub fn max(
    input: &[u8],
    channels: usize,
    [height, width]: [usize; 2],
    kernel: usize,
    stride: usize,
    out: &mut [u8],
) {
    assert!(kernel >= 1 && matches!(stride, 1 | 2), "the window");
    check_lens(input, channels, [height, width], stride, out);
    let padding = (kernel - 1) / 2;
    let (out_height, out_width) = (height.div_ceil(stride), width.div_ceil(stride));
    // First over the rows of a window, then over its columns.
    let mut columns = [0; SIDE_MAX];
    let columns = &mut columns[..width];
    for (index, out) in out.chunks_exact_mut(out_width).enumerate() {
        let (channel, y) = (index / out_height, index % out_height);
        let plane = &input[channel * height * width..][..height * width];
        // The row y * stride is always within.
        let first = (y * stride).saturating_sub(padding);
        let end = (y * stride + kernel - padding).min(height);
        let mut rows = plane[first * width..end * width].chunks_exact(width);
        columns.copy_from_slice(rows.next().expect("a window has a row in the plane"));
        for row in rows {
            for_each_input(row, 0, 1, columns, |greatest, value| {
                *greatest = value.max(*greatest);
            });
        }
        // No activation is less.
        out.fill(0);
        for column in 0..kernel {
            let offset = column as isize - padding as isize;
            for_each_input(columns, offset, stride, out, |greatest, value| {
                *greatest = value.max(*greatest);
            });
        }
    }
}

/// `out[c][y][x] = (a + b + c + d + 2) >> 2` of the 2 x 2 inputs that begin at row 2 y, column 2 x.
///
/// `height` and `width` are those of `input`, and even; `out` has half as many rows and columns.
///
/// # Panics
/// If a length disagrees with the sizes, or a side is odd.
pub fn mean(input: &[u8], channels: usize, [height, width]: [usize; 2], out: &mut [u8]) {
    assert!(
        height.is_multiple_of(2) && width.is_multiple_of(2),
        "the sides are even"
    );
    check_lens(input, channels, [height, width], 2, out);
    let rows = input.chunks_exact(2 * width);
    for (rows, out) in rows.zip(out.chunks_exact_mut(width / 2)) {
        let (upper, lower) = rows.split_at(width);
        let pairs = upper.as_chunks().0.iter().zip(lower.as_chunks().0);
        for (out, (&upper, &lower)) in out.iter_mut().zip(pairs) {
            *out = ((sum_pair(upper) + sum_pair(lower) + 2) >> 2) as u8;
        }
    }
}

/// Of two neighbours, which are loaded as one number: so it is done to vectors of them.
fn sum_pair(pair: [u8; 2]) -> u16 {
    let pair = u16::from_le_bytes(pair);
    (pair & 0xff) + (pair >> 8)
}

fn check_lens(
    input: &[u8],
    channels: usize,
    [height, width]: [usize; 2],
    stride: usize,
    out: &[u8],
) {
    let sides = 1..=SIDE_MAX;
    assert!(sides.contains(&height) && sides.contains(&width), "sides");
    assert_eq!(
        input.len(),
        channels * height * width,
        "length of the input"
    );
    let out_len = channels * height.div_ceil(stride) * width.div_ceil(stride);
    assert_eq!(out.len(), out_len, "length of out");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers from 0 to 127, the same each time.
    fn activations(count: usize) -> Vec<u8> {
        let step = |state: &mut u32| {
            *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Some((*state >> 25) as u8)
        };
        std::iter::repeat_with(|| ())
            .scan(1, |state, ()| step(state))
            .take(count)
            .collect()
    }

    /// The specification: the values of a window that lie in the plane.
    fn window(
        plane: &[u8],
        [height, width]: [usize; 2],
        [y, x]: [usize; 2],
        kernel: usize,
        stride: usize,
    ) -> Vec<u8> {
        let padding = (kernel as isize - 1) / 2;
        let mut values = vec![];
        for row in 0..kernel as isize {
            for column in 0..kernel as isize {
                let row = (y * stride) as isize + row - padding;
                let column = (x * stride) as isize + column - padding;
                if (0..height as isize).contains(&row) && (0..width as isize).contains(&column) {
                    values.push(plane[row as usize * width + column as usize]);
                }
            }
        }
        values
    }

    #[test]
    fn the_greatest_of_every_window_at_every_size() {
        let sides = [
            (1, 1),
            (1, 2),
            (2, 1),
            (3, 5),
            (4, 4),
            (5, 33),
            (7, 64),
            (9, 131),
        ];
        for (height, width) in sides {
            let input = activations(3 * height * width);
            for (kernel, stride) in [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (5, 1), (5, 2)] {
                let out_sides = [height, width].map(|side| side.div_ceil(stride));
                // What was there before does not count.
                let mut out = vec![127; 3 * out_sides[0] * out_sides[1]];
                max(&input, 3, [height, width], kernel, stride, &mut out);
                let mut values = out.iter();
                for plane in input.chunks_exact(height * width) {
                    for y in 0..out_sides[0] {
                        for x in 0..out_sides[1] {
                            let window = window(plane, [height, width], [y, x], kernel, stride);
                            assert_eq!(
                                values.next(),
                                window.iter().max(),
                                "{height} x {width}, kernel {kernel}, stride {stride}, y {y} x {x}"
                            );
                        }
                    }
                }
                assert_eq!(values.next(), None);
            }
        }
    }

    #[test]
    fn a_window_of_two_begins_at_its_pixel() {
        let input = [1, 9, 3, 7, 5, 6, 2, 8, 4];
        let mut out = [0; 9];
        max(&input, 1, [3, 3], 2, 1, &mut out);
        assert_eq!(out, [9, 9, 6, 8, 8, 6, 8, 8, 4]);
        let mut out = [0; 4];
        max(&input, 1, [3, 3], 2, 2, &mut out);
        assert_eq!(out, [9, 6, 8, 4]);
    }

    #[test]
    fn the_mean_of_every_four_rounds_halves_up() {
        let mut out = [0; 2];
        mean(&[0, 1, 127, 127, 1, 0, 127, 127], 1, [2, 4], &mut out);
        assert_eq!(out, [1, 127]);
        for (height, width) in [(2, 2), (4, 2), (6, 34), (8, 130)] {
            let input = activations(2 * height * width);
            let mut out = vec![0; input.len() / 4];
            mean(&input, 2, [height, width], &mut out);
            let mut values = out.iter();
            for plane in input.chunks_exact(height * width) {
                for y in 0..height / 2 {
                    for x in 0..width / 2 {
                        let window = window(plane, [height, width], [y, x], 2, 2);
                        let sum: u32 = window.iter().copied().map(u32::from).sum();
                        let expected = (f64::from(sum) / 4.0 + 0.5).floor() as u8;
                        assert_eq!(values.next(), Some(&expected), "y {y} x {x}");
                    }
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "the sides are even")]
    fn the_mean_of_odd_sides_is_a_broken_invariant() {
        mean(&[0; 9], 1, [3, 3], &mut [0; 4]);
    }

    #[test]
    #[should_panic(expected = "length of out")]
    fn a_wrong_length_is_a_broken_invariant() {
        max(&[0; 9], 1, [3, 3], 3, 2, &mut [0; 9]);
    }
}
