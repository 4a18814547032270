//! Windows that slide over a tensor: what convolutions and pooling have in common.

use super::{Node, Step, integers, list, text};

/// The stride of a node's windows, if they lie as ours do on a tensor of this size: around every value, or every second one, so
/// that half of the kernel, rounded down, is padded on every side.
pub(super) fn stride(node: &Node<'_>, kernel: u32, size: [u32; 2]) -> Step<u32> {
    let stride = match *integers(node, "strides") {
        [] | [1, 1] => 1,
        [2, 2] => 2,
        ref other => {
            let problem = format!("strides = {}", list(other));
            return Err(format!("{problem}; supported are [1, 1] and [2, 2]"));
        }
    };
    if integers(node, "dilations").iter().any(|d| *d != 1) {
        return Err("dilations other than 1 are not supported".into());
    }
    let (pads, auto) = (integers(node, "pads"), text(node, "auto_pad", "NOTSET"));
    let around = (kernel - 1) / 2;
    let is_around = match auto {
        "NOTSET" | "" => match pads {
            [] => around == 0,
            pads => pads.len() == 4 && pads.iter().all(|p| *p == i64::from(around)),
        },
        "VALID" => around == 0,
        // What is missing is shared by both ends, of an even number of it.
        "SAME_UPPER" | "SAME_LOWER" => size.iter().all(|side| {
            let reach = (side.div_ceil(stride) - 1) * stride + kernel;
            reach.saturating_sub(*side) == 2 * around
        }),
        _ => false,
    };
    match is_around {
        true => Ok(stride),
        false => Err(format!(
            "pads = {}, auto_pad = {auto:?}; supported is {around} on every side",
            list(pads)
        )),
    }
}
