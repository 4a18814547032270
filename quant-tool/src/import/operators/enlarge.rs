//! A coarse tensor that is enlarged twice and added to a finer one.

use super::{Draft, Kind, Node, Seen, Shape, Step, Walk, integers, list, text};

impl<'g, 'a: 'g> Walk<'g, 'a> {
    pub(super) fn enlarge(&mut self, node: &Node<'a>) -> Step<Seen> {
        let Seen::Tensor(index) = self.read(node, 0)? else {
            return Err("does not enlarge the output of a layer".into());
        };
        let mode = text(node, "mode", "nearest");
        if mode != "nearest" {
            return Err(format!("mode = {mode:?}; supported is \"nearest\""));
        }
        if !integers(node, "axes").is_empty() {
            return Err("axes are not supported".into());
        }
        let shape = self.layers[index].shape;
        let large = shape.size.map(|side| 2 * side);
        // Of three or four inputs the second is for cropping, which "nearest" has no use for.
        let scales = if node.inputs.len() > 2 { 2 } else { 1 };
        if node.input(scales).is_some() {
            let scales = self.needed(node, scales, "scales")?.floats()?;
            if scales != [1.0, 1.0, 2.0, 2.0] {
                return Err(format!(
                    "scales by {}; supported is [1, 1, 2, 2]",
                    list(&scales)
                ));
            }
        } else {
            let sizes = self.needed(node, 3, "scales")?.integers()?;
            let wanted = [large[1], large[0]].map(i64::from);
            if !matches!(sizes[..], [_, _, h, w] if [h, w] == wanted) {
                return Err(format!(
                    "enlarges to {}; supported is twice as high and wide, {wanted:?}",
                    list(&sizes)
                ));
            }
        }
        if node.operator == "Resize" && node.inputs.len() > 2 {
            let place = text(node, "coordinate_transformation_mode", "half_pixel");
            let nearest = text(node, "nearest_mode", "round_prefer_floor");
            let repeats = shape.size.iter().all(|&n| repeats(place, nearest, n));
            if !repeats {
                return Err(format!(
                    "{place} with {nearest} does not repeat every value twice; asymmetric with floor does"
                ));
            }
        }
        Ok(Seen::Enlarged {
            of: index,
            size: large,
        })
    }

    /// Of an odd side the last row or column of what was enlarged has no partner.
    pub(super) fn slice(&mut self, node: &Node<'a>) -> Step<Seen> {
        let Seen::Enlarged { of, size } = self.read(node, 0)? else {
            return Err("cuts something else than an enlarged tensor".into());
        };
        let numbers = |index: usize| self.needed(node, index, "ends")?.integers();
        let (starts, ends, axes) = (numbers(1)?, numbers(2)?, numbers(3)?);
        let steps = match node.input(4) {
            Some(_) => numbers(4)?,
            None => vec![],
        };
        let plain = starts.iter().all(|n| *n == 0) && steps.iter().all(|n| *n == 1);
        if !plain || axes.len() != ends.len() {
            return Err("supported is to cut the last row and column of an enlarged tensor".into());
        }
        let mut cut = size;
        for (axis, end) in axes.iter().zip(&ends) {
            let side = match axis {
                3 | -1 => &mut cut[0],
                2 | -2 => &mut cut[1],
                _ => return Err(format!("cuts axis {axis}; supported are 2 and 3")),
            };
            let end = u32::try_from(*end).map_err(|_| format!("ends at {end}"))?;
            *side = end.min(*side);
        }
        Ok(Seen::Enlarged { of, size: cut })
    }

    pub(super) fn add(&mut self, node: &Node<'a>) -> Step<Seen> {
        let (fine, coarse, size) = match (self.read(node, 0)?, self.read(node, 1)?) {
            (Seen::Tensor(fine), Seen::Enlarged { of, size })
            | (Seen::Enlarged { of, size }, Seen::Tensor(fine)) => (fine, of, size),
            (Seen::Tensor(_), Seen::Tensor(_)) => {
                return Err("adds two tensors of one size (a residual); supported is to add one that Resize has enlarged".into());
            }
            _ => return Err("adds what is not activated; supported is to add a ReLU's output and another one that Resize has enlarged".into()),
        };
        let (shape, coarse_shape) = (self.layers[fine].shape, self.layers[coarse].shape);
        let expected = Shape {
            size: shape.size.map(|side| side.div_ceil(2)),
            stride: shape.stride.saturating_mul(2),
            ..shape
        };
        if size != shape.size || coarse_shape != expected {
            return Err(format!(
                "adds tensors that do not fit: {shape:?} and {coarse_shape:?}, enlarged to {size:?}"
            ));
        }
        let draft = Draft {
            kind: Kind::Add { fine, coarse },
            shape,
            clip: None,
            origin: node.label().to_owned(),
        };
        Ok(Seen::Tensor(self.push(draft)?))
    }
}

/// Whether enlarging a side of `n` twice takes value y / 2 for every place y.
fn repeats(place: &str, nearest: &str, n: u32) -> bool {
    let (n, large) = (f64::from(n), f64::from(2 * n));
    (0..2 * n as u32).all(|y| {
        let y = f64::from(y);
        let source = match place {
            "asymmetric" => y / 2.0,
            "half_pixel" | "pytorch_half_pixel" | "half_pixel_symmetric" => (y + 0.5) / 2.0 - 0.5,
            "tf_half_pixel_for_nn" => (y + 0.5) / 2.0,
            "align_corners" => y * (n - 1.0) / (large - 1.0),
            _ => return false,
        };
        let index = match nearest {
            "floor" => source.floor(),
            "ceil" => source.ceil(),
            "round_prefer_floor" => (source - 0.5).ceil(),
            "round_prefer_ceil" => (source + 0.5).floor(),
            _ => return false,
        };
        index.clamp(0.0, n - 1.0) == (y / 2.0).floor()
    })
}
