//! The specification: each output is a plain sum over its inputs. Naive on purpose.

use super::{Conv, Epilogue, Shape};
use crate::Trit;
use crate::requantize::{relu, saturate_i16};

/// The exact sum of output channel `channel` at row `y`, column `x`. Outside the picture activations are zero.
pub fn accumulate(
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

/// See [`Conv::run_relu`].
pub fn run_relu(conv: &Conv, input: &[u8], output: &mut [u8]) {
    let Epilogue::Relu {
        multiplier,
        pre_shift,
        ..
    } = &conv.epilogue
    else {
        panic!("run_relu needs a relu epilogue");
    };
    for_each_output(conv, input, |index, channel, x| {
        output[index] = relu(x, multiplier[channel], *pre_shift);
    });
}

/// See [`Conv::run_linear`].
pub fn run_linear(conv: &Conv, input: &[u8], output: &mut [i16]) {
    for_each_output(conv, input, |index, _, x| output[index] = x);
}

/// Calls `store(output index, output channel, saturated sum)` for every output.
fn for_each_output(conv: &Conv, input: &[u8], mut store: impl FnMut(usize, usize, i16)) {
    let shape = &conv.shape;
    let mut index = 0;
    for channel in 0..shape.out_channels() {
        let bias = i32::from(conv.epilogue.bias()[channel]);
        for y in 0..shape.out_height() {
            for x in 0..shape.out_width() {
                let sum = accumulate(shape, &conv.weights, input, channel, y, x);
                store(index, channel, saturate_i16(sum + bias));
                index += 1;
            }
        }
    }
}
