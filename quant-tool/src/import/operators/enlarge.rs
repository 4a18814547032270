//! A coarse tensor that is enlarged twice. Our layers add such a one to a finer one; who reads it as it is reads its sum with zeros.

use ternwatch_bundle::manifest::Activation;

use super::{Draft, FloatConv, Kind, Node, Seen, Shape, Step, Walk, integers, list, text};

impl<'g, 'a: 'g> Walk<'g, 'a> {
    pub(super) fn enlarge(&mut self, node: &Node<'a>) -> Step<Seen> {
        let index = self.stored(node, 0)?;
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

    /// The layer that gives a layer's output at twice its size. Zeros to add it to come from a convolution without weights of
    /// something that has this size.
    pub(super) fn enlarged(
        &mut self,
        node: &Node<'a>,
        (of, size): (usize, [u32; 2]),
    ) -> Step<usize> {
        if let Some(layer) = self.enlarged.get(&(of, size)) {
            return Ok(*layer);
        }
        let coarse = &self.layers[of];
        let (channels, clip, raises) = (coarse.shape.channels, coarse.clip, coarse.raises.clone());
        if size.map(|side| side.div_ceil(2)) != coarse.shape.size
            || !coarse.shape.stride.is_multiple_of(2)
        {
            return Err(format!(
                "reads a tensor that was enlarged to {} x {} from {:?}",
                size[0], size[1], coarse.shape
            ));
        }
        let stride = coarse.shape.stride / 2;
        let fits = |shape: &Shape| (shape.size, shape.stride) == (size, stride);
        let is_stored = |layer: &Draft| !matches!(&layer.kind, Kind::Conv(conv) if conv.activation == Activation::Linear);
        let layers = self.layers.iter().enumerate();
        let like = layers
            .filter(|(_, layer)| is_stored(layer) && fits(&layer.shape))
            .map(|(index, layer)| (index, layer.shape));
        // One of as many channels costs least.
        let like = like.min_by_key(|(_, shape)| (shape.channels != channels, shape.channels));
        let Some((like, shape)) = like else {
            return Err(format!(
                "reads a tensor that was enlarged to {} x {}, a size that no layer before it has",
                size[0], size[1]
            ));
        };
        let is_depthwise = shape.channels == channels;
        let planes = if is_depthwise {
            1
        } else {
            shape.channels as usize
        };
        let out = channels as usize;
        let mut float = FloatConv::new(vec![0.0; out * planes], vec![0.0; out], planes);
        float.is_depthwise = is_depthwise;
        let zeros = self.push_conv(node, (Some(like), shape), (1, 1), float)?;
        if let Kind::Conv(conv) = &mut self.layers[zeros].kind {
            conv.activation = Activation::Relu;
        }
        let layer = self.push(Draft {
            kind: Kind::AddUpsampled {
                fine: zeros,
                coarse: of,
            },
            shape: Shape { channels, ..shape },
            clip,
            raises,
            origin: node.label().to_owned(),
        })?;
        self.enlarged.insert((of, size), layer);
        Ok(layer)
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
