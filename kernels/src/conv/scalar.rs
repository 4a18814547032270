//! The specification: each output is a plain sum over its inputs. Naive on purpose.

use super::Shape;
use super::run::Finish;
use crate::Trit;
use crate::requantize::saturate_i16;

/// The exact sum of output channel `channel` at row `y`, column `x`. Outside the picture activations are zero.
pub(super) fn accumulate(
    shape: &Shape,
    weights: &[Trit],
    input: &[u8],
    channel: usize,
    y: usize,
    x: usize,
) -> i32 {
    let (kernel, stride, padding) = (shape.kernel(), shape.stride(), shape.padding());
    let mut sum = 0;
    for in_channel in 0..shape.in_channels() {
        for tap_y in 0..kernel {
            for tap_x in 0..kernel {
                // Rows and columns counted from the start of the padding; wrapping below it leaves the picture too.
                let in_y = (y * stride + tap_y).wrapping_sub(padding);
                let in_x = (x * stride + tap_x).wrapping_sub(padding);
                if in_y >= shape.in_height() || in_x >= shape.in_width() {
                    continue;
                }
                let weight_index = ((channel * shape.in_channels() + in_channel) * kernel + tap_y)
                    * kernel
                    + tap_x;
                let input_index = (in_channel * shape.in_height() + in_y) * shape.in_width() + in_x;
                sum += weights[weight_index].value() * i32::from(input[input_index]);
            }
        }
    }
    sum
}

/// Every output of a convolution: its sum, its bias, and what follows.
pub(super) fn run<F: Finish>(
    shape: &Shape,
    weights: &[Trit],
    bias: &[i16],
    finish: F,
    input: &[u8],
    output: &mut [F::Value],
) {
    let mut outputs = output.iter_mut();
    for (channel, &bias) in bias.iter().enumerate() {
        for y in 0..shape.out_height() {
            for (x, output) in (0..shape.out_width()).zip(&mut outputs) {
                let sum = accumulate(shape, weights, input, channel, y, x);
                *output = finish.finish_one(channel, saturate_i16(sum + i32::from(bias)));
            }
        }
    }
}
