//! Pooling: the greatest value, or the mean, of windows.

use ternwatch_bundle::manifest::PoolMode;

use super::{Draft, Kind, Node, Seen, Shape, Step, Walk, integer, integers, list, window};

/// What a pooling node says of its windows.
struct Windows {
    kernel: u32,
    stride: u32,
}

impl<'g, 'a: 'g> Walk<'g, 'a> {
    pub(super) fn max_pool(&mut self, node: &Node<'a>) -> Step<Seen> {
        if node.outputs.len() > 1 {
            return Err("gives places, too, which is not supported".into());
        }
        let input = self.stored(node, 0)?;
        let Windows { kernel, stride } = windows(node, self.layers[input].shape.size)?;
        // The greatest value of a larger window is that of smaller ones' greatest values.
        let kernels: &[u32] = match (kernel, stride) {
            (2, 2) => &[2],
            (3, 1 | 2) => &[3],
            (5, 1 | 2) => &[5],
            (7, 1) => &[5, 3],
            (9, 1) => &[5, 5],
            (11, 1) => &[5, 5, 3],
            (13, 1) => &[5, 5, 5],
            _ => {
                return Err(format!(
                    "a kernel of {kernel} with a stride of {stride}; supported are 2 with 2, 3 and 5 with 1 or 2, 7 to 13 with 1"
                ));
            }
        };
        let mut last = input;
        for kernel in kernels {
            last = self.pool(node, last, PoolMode::Max, (*kernel, stride))?;
        }
        Ok(Seen::Tensor(last))
    }

    pub(super) fn average_pool(&mut self, node: &Node<'a>) -> Step<Seen> {
        let input = self.stored(node, 0)?;
        let size = self.layers[input].shape.size;
        let Windows { kernel, stride } = windows(node, size)?;
        if (kernel, stride) != (2, 2) || size.iter().any(|side| side % 2 == 1) {
            return Err(format!(
                "a kernel of {kernel} with a stride of {stride} on {} x {}; supported is 2 with 2 on even sides",
                size[0], size[1]
            ));
        }
        Ok(Seen::Tensor(self.pool(
            node,
            input,
            PoolMode::Mean,
            (kernel, stride),
        )?))
    }

    fn pool(
        &mut self,
        node: &Node<'a>,
        input: usize,
        mode: PoolMode,
        (kernel, stride): (u32, u32),
    ) -> Step<usize> {
        let read = &self.layers[input];
        let draft = Draft {
            kind: Kind::Pool {
                input,
                mode,
                kernel,
                stride,
            },
            shape: Shape {
                size: read.shape.size.map(|side| side.div_ceil(stride)),
                stride: read.shape.stride.saturating_mul(stride),
                ..read.shape
            },
            clip: read.clip,
            raises: read.raises.clone(),
            origin: node.label().to_owned(),
        };
        self.push(draft)
    }
}

/// Kernel and stride, if windows lie as ours do on a tensor of this size, and are as many.
fn windows(node: &Node<'_>, size: [u32; 2]) -> Step<Windows> {
    let kernel = match *integers(node, "kernel_shape") {
        [height, width] if height == width && (1..=64).contains(&height) => height as u32,
        ref other => {
            let problem = format!("kernel_shape = {}", list(other));
            return Err(format!("{problem}; supported are squares"));
        }
    };
    let stride = window::stride(node, kernel, size)?;
    let is_ceil = integer(node, "ceil_mode", 0) != 0;
    let fits = size.iter().all(|side| {
        let Some(rest) = (side + 2 * ((kernel - 1) / 2)).checked_sub(kernel) else {
            return false;
        };
        let count = match is_ceil {
            true => rest.div_ceil(stride) + 1,
            false => rest / stride + 1,
        };
        count == side.div_ceil(stride)
    });
    if !fits {
        return Err(format!(
            "{} x {} with ceil_mode = {}: windows do not lie around every {stride}. value; a kernel of 2 needs even sides or ceil_mode",
            size[0],
            size[1],
            u8::from(is_ceil)
        ));
    }
    Ok(Windows { kernel, stride })
}
