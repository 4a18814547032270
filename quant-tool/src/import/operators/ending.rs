//! The end of a classifier: means of planes, and what makes logits of them.

use ternwatch_bundle::model::limits::CHANNELS_MAX;

use super::{FloatConv, Node, Seen, Step, Walk, integer, integers, list};

impl<'g, 'a: 'g> Walk<'g, 'a> {
    pub(super) fn means(&mut self, node: &Node<'a>) -> Step<Seen> {
        match self.read(node, 0)? {
            Seen::Sum(index) | Seen::Tensor(index) => Ok(Seen::Means(index)),
            _ => Err("takes the mean of what is not the output of a layer".into()),
        }
    }

    pub(super) fn reduce_mean(&mut self, node: &Node<'a>) -> Step<Seen> {
        let mut axes = match node.input(1) {
            Some(_) => self.needed(node, 1, "axes")?.integers()?,
            None => integers(node, "axes").to_vec(),
        };
        axes.iter_mut()
            .for_each(|axis| *axis += if *axis < 0 { 4 } else { 0 });
        axes.sort_unstable();
        if axes != [2, 3] {
            return Err(format!(
                "takes the mean over the axes {}; supported are 2 and 3",
                list(&axes)
            ));
        }
        self.means(node)
    }

    pub(super) fn flatten(&mut self, node: &Node<'a>) -> Step<Seen> {
        match (self.read(node, 0)?, integer(node, "axis", 1)) {
            (Seen::Means(index), 1) => Ok(Seen::Means(index)),
            _ => Err("supported is to flatten means of planes, from axis 1 on".into()),
        }
    }

    pub(super) fn reshape(&mut self, node: &Node<'a>) -> Step<Seen> {
        let shape = self.needed(node, 1, "sides")?.integers()?;
        let Seen::Means(index) = self.read(node, 0)? else {
            return Err("supported is to flatten means of planes".into());
        };
        let channels = i64::from(self.layers[index].shape.channels);
        match shape[..] {
            [_, last] if last == channels || last == -1 => Ok(Seen::Means(index)),
            _ => Err(format!(
                "to {}; supported is to flatten means of planes",
                list(&shape)
            )),
        }
    }

    pub(super) fn gemm(&mut self, node: &Node<'a>) -> Step<Seen> {
        let Seen::Means(input) = self.read(node, 0)? else {
            return Err(
                "supported is a Gemm of means of planes, at the end of a classifier".into(),
            );
        };
        self.raise(input);
        let factor = |name: &str| node.attribute(name).and_then(|a| a.float).unwrap_or(1.0);
        if factor("alpha") != 1.0 || factor("beta") != 1.0 || integer(node, "transA", 0) != 0 {
            return Err("supported are alpha = 1, beta = 1 and transA = 0".into());
        }
        let shape = self.layers[input].shape;
        let weight = self.needed(node, 1, "weights")?;
        let (dims, is_transposed) = (&weight.dims, integer(node, "transB", 0) != 0);
        let (out, each) = match (&dims[..], is_transposed) {
            ([out, each], true) | ([each, out], false) => (*out, *each),
            _ => return Err(format!("its weights have {} sides, not 2", dims.len())),
        };
        if each != shape.channels as usize || !(1..=CHANNELS_MAX as usize).contains(&out) {
            return Err(format!(
                "makes {out} of {each} values, of a tensor of {} channels",
                shape.channels
            ));
        }
        let weight = weight.floats()?;
        let weight = match is_transposed {
            true => weight,
            false => (0..out * each)
                .map(|i| weight[i % each * out + i / each])
                .collect(),
        };
        let bias = match node.input(2) {
            Some(_) => self.per_channel(node, 2, "biases", out as u32)?,
            None => vec![0.0; out],
        };
        let float = FloatConv::new(weight, bias, each);
        let index = self.push_conv(node, (Some(input), shape), (1, 1), float)?;
        Ok(Seen::Means(index))
    }

    pub(super) fn votes(&mut self, node: &Node<'a>) -> Step<Seen> {
        match (self.read(node, 0)?, node.operator) {
            (Seen::Sum(index), "Sigmoid") => Ok(Seen::Scores(index)),
            (Seen::Means(index), _) => Ok(Seen::Votes(index)),
            _ => Err("supported is a Sigmoid of a head's logits, or a Softmax or Sigmoid at the end of a classifier".into()),
        }
    }
}
