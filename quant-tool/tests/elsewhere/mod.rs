//! ONNX files as others write them, for tests: messages by hand, so that the reader is not tested with its own tables.

/// A message under construction.
#[derive(Clone, Default)]
pub(crate) struct Message(pub(crate) Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub(crate) fn integer(mut self, field: u64, value: i64) -> Self {
        self.varint(field << 3);
        self.varint(value as u64);
        self
    }

    pub(crate) fn float(mut self, field: u64, value: f32) -> Self {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(crate) fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    pub(crate) fn text(self, field: u64, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }
}

/// A setting of a node.
pub(crate) enum Setting<'a> {
    Float(&'a str, f32),
    Int(&'a str, i64),
    Ints(&'a str, &'a [i64]),
    Text(&'a str, &'a str),
}

/// A graph under construction.
pub(crate) struct OnnxFile {
    pub(crate) graph: Message,
    pub(crate) opset: i64,
    /// Width, height.
    pub(crate) size: [i64; 2],
    pub(crate) outputs: Vec<String>,
}

pub(crate) fn tensor(name: &str, dims: &[usize], values: &[f32]) -> Message {
    let mut message = Message::default();
    for side in dims {
        message = message.integer(1, *side as i64);
    }
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    message.integer(2, 1).text(8, name).bytes(9, &bytes)
}

pub(crate) fn indices(name: &str, values: &[i64]) -> Message {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let message = Message::default().integer(1, values.len() as i64);
    message.integer(2, 7).text(8, name).bytes(9, &bytes)
}

impl OnnxFile {
    /// A file for pictures of this width and height.
    pub(crate) fn new(size: [i64; 2]) -> Self {
        Self {
            graph: Message::default(),
            opset: 13,
            size,
            outputs: Vec::new(),
        }
    }

    pub(crate) fn constant(&mut self, name: &str, dims: &[usize], values: &[f32]) {
        let graph = std::mem::take(&mut self.graph);
        self.graph = graph.bytes(5, &tensor(name, dims, values).0);
    }

    pub(crate) fn indices(&mut self, name: &str, values: &[i64]) {
        let graph = std::mem::take(&mut self.graph);
        self.graph = graph.bytes(5, &indices(name, values).0);
    }

    /// Adds a node that is called like its output.
    pub(crate) fn node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        output: &str,
        settings: &[Setting<'_>],
    ) {
        let mut node = Message::default();
        for input in inputs {
            node = node.text(1, input);
        }
        node = node.text(2, output).text(3, output).text(4, operator);
        for setting in settings {
            let attribute = match setting {
                Setting::Float(name, value) => Message::default()
                    .text(1, name)
                    .float(2, *value)
                    .integer(20, 1),
                Setting::Int(name, value) => Message::default()
                    .text(1, name)
                    .integer(3, *value)
                    .integer(20, 2),
                Setting::Ints(name, values) => {
                    let start = Message::default().text(1, name).integer(20, 7);
                    values
                        .iter()
                        .fold(start, |message, value| message.integer(8, *value))
                }
                Setting::Text(name, text) => Message::default()
                    .text(1, name)
                    .text(4, text)
                    .integer(20, 3),
            };
            node = node.bytes(5, &attribute.0);
        }
        let graph = std::mem::take(&mut self.graph);
        self.graph = graph.bytes(1, &node.0);
    }

    /// A convolution with random weights and biases `{name}.w`, `{name}.b`: (in, out, kernel, stride).
    pub(crate) fn conv(
        &mut self,
        rng: &mut fastrand::Rng,
        input: &str,
        name: &str,
        sizes: (usize, usize, usize, i64),
    ) {
        let (each, out, kernel, stride) = sizes;
        let (weight, bias) = (format!("{name}.w"), format!("{name}.b"));
        let area = kernel * kernel;
        let deviation = (2.0 / (each * area) as f32).sqrt();
        let weights: Vec<f32> = (0..out * each * area)
            .map(|_| normal(rng) * deviation)
            .collect();
        self.constant(&weight, &[out, each, kernel, kernel], &weights);
        let biases: Vec<f32> = (0..out).map(|_| 0.3 * normal(rng)).collect();
        self.constant(&bias, &[out], &biases);
        let pad = (kernel / 2) as i64;
        let settings = [
            Setting::Ints("kernel_shape", &[kernel as i64; 2]),
            Setting::Ints("strides", &[stride; 2]),
            Setting::Ints("pads", &[pad; 4]),
        ];
        self.node("Conv", &[input, &weight, &bias], name, &settings);
    }

    /// A depthwise 3x3 convolution: (channels, stride).
    pub(crate) fn depthwise(
        &mut self,
        rng: &mut fastrand::Rng,
        input: &str,
        name: &str,
        (channels, stride): (usize, i64),
    ) {
        let weight = format!("{name}.w");
        let weights: Vec<f32> = (0..channels * 9).map(|_| 0.5 * normal(rng)).collect();
        self.constant(&weight, &[channels, 1, 3, 3], &weights);
        let settings = [
            Setting::Int("group", channels as i64),
            Setting::Ints("strides", &[stride; 2]),
            Setting::Ints("pads", &[1; 4]),
        ];
        self.node("Conv", &[input, &weight], name, &settings);
    }

    /// A pooling node of this kernel, stride and padding on every side.
    pub(crate) fn pool(&mut self, operator: &str, input: &str, name: &str, sizes: [i64; 3]) {
        let [kernel, stride, pad] = sizes;
        let settings = [
            Setting::Ints("kernel_shape", &[kernel; 2]),
            Setting::Ints("strides", &[stride; 2]),
            Setting::Ints("pads", &[pad; 4]),
        ];
        self.node(operator, &[input], name, &settings);
    }

    /// Batch normalization of a convolution's output, with numbers as training may leave them.
    pub(crate) fn normalize(
        &mut self,
        rng: &mut fastrand::Rng,
        input: &str,
        name: &str,
        channels: usize,
    ) {
        let parts = ["gamma", "beta", "mean", "variance"].map(|part| format!("{name}.{part}"));
        for (part, constant) in parts.iter().enumerate() {
            let value = |_| match part {
                0 => [1.0, -0.7, 2.5][rng.usize(0..3)] * (0.8 + 0.4 * rng.f32()),
                3 => 0.2 + 2.0 * rng.f32(),
                _ => 0.5 * normal(rng),
            };
            let values: Vec<f32> = (0..channels).map(value).collect();
            self.constant(constant, &[channels], &values);
        }
        let inputs = [input, &parts[0], &parts[1], &parts[2], &parts[3]];
        self.node(
            "BatchNormalization",
            &inputs,
            name,
            &[Setting::Float("epsilon", 1e-3)],
        );
    }

    /// Enlarges `coarse` twice and adds it to `fine`.
    pub(crate) fn add_enlarged(&mut self, fine: &str, coarse: &str, name: &str) {
        let (large, scales) = (format!("{name}.large"), format!("{name}.scales"));
        self.constant(&scales, &[4], &[1.0, 1.0, 2.0, 2.0]);
        let settings = [
            Setting::Text("mode", "nearest"),
            Setting::Text("coordinate_transformation_mode", "asymmetric"),
            Setting::Text("nearest_mode", "floor"),
        ];
        self.node("Resize", &[coarse, "", &scales], &large, &settings);
        self.node("Add", &[fine, &large], name, &[]);
    }

    /// The bytes of the file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let value = |name: &str, dims: &[i64]| {
            let mut shape = Message::default();
            for side in dims {
                shape = shape.bytes(1, &Message::default().integer(1, *side).0);
            }
            let mut tensor = Message::default().integer(1, 1);
            if !dims.is_empty() {
                tensor = tensor.bytes(2, &shape.0);
            }
            let kind = Message::default().bytes(1, &tensor.0);
            Message::default().text(1, name).bytes(2, &kind.0)
        };
        let image = value("picture", &[1, 3, self.size[1], self.size[0]]);
        let mut graph = self.graph.clone().text(2, "elsewhere").bytes(11, &image.0);
        for output in &self.outputs {
            graph = graph.bytes(12, &value(output, &[]).0);
        }
        let opset = Message::default().text(1, "").integer(2, self.opset);
        let file = Message::default().integer(1, 8).bytes(7, &graph.0);
        file.bytes(8, &opset.0).0
    }
}

/// A normal number, nearly.
pub(crate) fn normal(rng: &mut fastrand::Rng) -> f32 {
    (0..12).map(|_| rng.f32()).sum::<f32>() - 6.0
}

/// A small detector of strides 8 and 16 with and without batch normalization, ReLU and ReLU6, a neck and two heads of
/// `classes` classes: `head8`, and `logits16` with `boxes16` behind a sigmoid and a ReLU.
pub(crate) fn detector(seed: u64, size: [i64; 2], classes: usize) -> OnnxFile {
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut file, rng) = (OnnxFile::new(size), &mut rng);
    file.conv(rng, "picture", "stem", (3, 5, 3, 2));
    file.normalize(rng, "stem", "stem.n", 5);
    file.node("Relu", &["stem.n"], "stem.a", &[]);
    file.conv(rng, "stem.a", "down4", (5, 6, 3, 2));
    file.constant("zero", &[], &[0.0]);
    file.constant("six", &[], &[1.1]);
    file.node("Clip", &["down4", "zero", "six"], "down4.a", &[]);
    file.node("Identity", &["down4.a"], "down4.i", &[]);
    file.conv(rng, "down4.i", "down8", (6, 7, 3, 2));
    file.node("Relu", &["down8"], "down8.a", &[]);
    file.conv(rng, "down8.a", "down16", (7, 8, 3, 2));
    file.normalize(rng, "down16", "down16.n", 8);
    file.node("Relu", &["down16.n"], "down16.a", &[]);
    file.conv(rng, "down8.a", "lateral8", (7, 6, 1, 1));
    file.node("Relu", &["lateral8"], "lateral8.a", &[]);
    file.conv(rng, "down16.a", "lateral16", (8, 6, 1, 1));
    file.node("Relu", &["lateral16"], "lateral16.a", &[]);
    file.add_enlarged("lateral8.a", "lateral16.a", "merge8");
    file.conv(rng, "merge8", "head8", (6, classes + 4, 3, 1));
    file.conv(rng, "lateral16.a", "logits16.s", (6, classes, 1, 1));
    file.node("Sigmoid", &["logits16.s"], "logits16", &[]);
    file.conv(rng, "lateral16.a", "boxes16.s", (6, 4, 3, 1));
    file.node("Relu", &["boxes16.s"], "boxes16", &[]);
    file
}
