//! A bundle's network as an ordinary ONNX file, for other engines.
//!
//! The input is `image`, `[1, 3, height, width]`, the u7 values of the preprocessed frame as floats (0 to 127). The
//! outputs are the heads, `[1, channels, height, width]`, in their real units, by the names of their layers.
//!
//! Two forms. *Exact*: every sum, scale and rounding as the kernels have it, in floats that hold all of these numbers
//! exactly: an engine that adds up without error gives the bundle's outputs. *Folded*: scale in the weights, no
//! rounding, which is what a float engine is fast with; its activations differ from the bundle's by what rounding makes.

mod proto;

use anyhow::Result;
use prost::Message;
use ternwatch_bundle::Model;
use ternwatch_bundle::manifest::PoolMode;
use ternwatch_bundle::model::{
    AddLayer, AddUpsampledLayer, ConcatLayer, ConvLayer, Epilogue, ModelLayer, PoolLayer, Source,
    TensorShape,
};

use self::proto::{
    Attribute, Dim, Entry, Graph, Node, OperatorSet, Shape, Tensor, TensorType, Type, Value,
};
use crate::tell::out;
use crate::{cli, files};

/// The input's name.
pub const IMAGE: &str = "image";
/// Operators' version: the last one that every engine we compare with reads.
const OPSET: i64 = 13;
/// That version's file format.
const IR_VERSION: i64 = 8;
/// The greatest activation.
const U7_MAX: f32 = 127.0;
/// The greatest sum.
const I16_MAX: f32 = 32767.0;
/// One in the multipliers' Q15.
const Q15: f32 = 32768.0;
/// AttributeProto's types.
const INT: i32 = 2;
const STRING: i32 = 3;
const INTS: i32 = 7;

/// How rounding is expressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As the kernels do it.
    Exact,
    /// Not at all.
    Folded,
}

/// Writes a bundle's network as an ONNX file.
pub fn run(args: &cli::Onnx) -> Result<()> {
    let model = files::model(&args.bundle)?;
    let form = if args.folded {
        Form::Folded
    } else {
        Form::Exact
    };
    let bytes = encode(&model, form);
    files::write(&args.out, &bytes)?;
    out!("{}: {} bytes", args.out.display(), bytes.len());
    Ok(())
}

/// The bytes of the ONNX file.
pub fn encode(model: &Model, form: Form) -> Vec<u8> {
    let mut writer = Writer {
        names: Vec::new(),
        form,
        graph: Graph {
            name: model.id().name.clone(),
            input: vec![value(IMAGE, model.input_shape())],
            ..Graph::default()
        },
    };
    writer.constant("zero", vec![], &[0.0]);
    writer.constant("half", vec![], &[0.5]);
    writer.constant("u7_max", vec![], &[U7_MAX]);
    writer.constant("twice", vec![4], &[1.0, 1.0, 2.0, 2.0]);
    for layer in model.layers() {
        match layer {
            ModelLayer::Conv(conv) => writer.conv(conv),
            ModelLayer::AddUpsampled(add) => writer.add_upsampled(add),
            ModelLayer::Add(add) => writer.add(add),
            ModelLayer::Concat(concat) => writer.concat(concat),
            ModelLayer::Pool(pool) => writer.pool(pool),
        }
        writer.names.push(layer.name().to_owned());
    }
    for head in model.heads() {
        let layer = &model.layers()[head.layer];
        let output = value(layer.name(), layer.output_shape());
        writer.graph.output.push(output);
    }
    let strides = model.heads().iter().map(|head| {
        let layer = model.layers()[head.layer].name();
        (format!("stride.{layer}"), head.stride.to_string())
    });
    let id = model.id();
    let entries = [
        ("classes".to_owned(), model.classes().join(",")),
        ("version".to_owned(), id.version.to_string()),
    ];
    let file = proto::Model {
        ir_version: IR_VERSION,
        producer_name: "quant-tool".into(),
        model_version: i64::try_from(id.version).unwrap_or(i64::MAX),
        doc_string:
            "image: u7 values 0 to 127 of the letterboxed frame; outputs: heads in their real units"
                .into(),
        graph: Some(writer.graph),
        opset_import: vec![OperatorSet {
            domain: String::new(),
            version: OPSET,
        }],
        metadata_props: entries
            .into_iter()
            .chain(strides)
            .map(|(key, value)| Entry { key, value })
            .collect(),
    };
    file.encode_to_vec()
}

struct Writer {
    /// Of the layers' outputs.
    names: Vec<String>,
    form: Form,
    graph: Graph,
}

impl Writer {
    fn name(&self, source: Source) -> String {
        match source {
            Source::Image => IMAGE.into(),
            Source::Layer(index) => self.names[index].clone(),
        }
    }

    fn conv(&mut self, conv: &ConvLayer) {
        let name = conv.name.as_str();
        let channels = conv.output_shape.channels;
        let scale: Vec<f32> = match &conv.epilogue {
            Epilogue::Relu {
                multiplier,
                pre_shift,
            } => {
                let unit = f32::from(1u16 << pre_shift) / Q15;
                multiplier.iter().map(|m| f32::from(*m) * unit).collect()
            }
            Epilogue::Linear { scale } => scale.clone(),
        };
        let folded = |channel: usize| match self.form {
            Form::Exact => 1.0,
            Form::Folded => scale[channel],
        };
        let fan_in = conv.trits.len() / channels;
        let weights: Vec<f32> = conv
            .trits
            .iter()
            .enumerate()
            .map(|(i, trit)| f32::from(*trit as i8) * folded(i / fan_in))
            .collect();
        let bias: Vec<f32> = conv
            .bias
            .iter()
            .enumerate()
            .map(|(channel, bias)| f32::from(*bias) * folded(channel))
            .collect();
        let dims = [
            channels,
            conv.input_shape.channels / conv.groups,
            conv.kernel,
            conv.kernel,
        ];
        self.constant(&format!("{name}.weight"), dims.to_vec(), &weights);
        self.constant(&format!("{name}.bias"), vec![channels], &bias);
        let inputs = [
            self.name(conv.input),
            format!("{name}.weight"),
            format!("{name}.bias"),
        ];
        let side = |n: usize| n as i64;
        let mut attributes = vec![
            ints("kernel_shape", vec![side(conv.kernel); 2]),
            ints("strides", vec![side(conv.stride); 2]),
            ints("pads", vec![side(conv.kernel / 2); 4]),
        ];
        if conv.groups > 1 {
            attributes.push(int("group", side(conv.groups)));
        }
        let is_linear = matches!(conv.epilogue, Epilogue::Linear { .. });
        // The kernels' sums saturate at 16 bits, hidden ones after their shift.
        let limits = match &conv.epilogue {
            Epilogue::Relu { pre_shift, .. } => [0.0, I16_MAX / f32::from(1u16 << pre_shift)],
            Epilogue::Linear { .. } => [-I16_MAX - 1.0, I16_MAX],
        };
        let steps = match (self.form, is_linear) {
            (Form::Exact, true) => vec!["sum", "held", "scaled"],
            (Form::Exact, false) => {
                vec!["sum", "held", "scaled", "raised", "rounded", "clipped"]
            }
            (Form::Folded, true) => vec!["sum"],
            (Form::Folded, false) => vec!["sum", "clipped"],
        };
        let mut last = String::new();
        for (i, step) in steps.iter().enumerate() {
            let output = match i + 1 == steps.len() {
                true => name.to_owned(),
                false => format!("{name}.{step}"),
            };
            match *step {
                "sum" => self.node("Conv", &output, &inputs, attributes.clone()),
                "held" => {
                    let [least, most] = ["least", "most"].map(|end| format!("{name}.{end}"));
                    self.constant(&least, vec![], &limits[..1]);
                    self.constant(&most, vec![], &limits[1..]);
                    self.node("Clip", &output, &[last, least, most], vec![]);
                }
                "scaled" => {
                    self.constant(&format!("{name}.scale"), vec![1, channels, 1, 1], &scale);
                    self.node("Mul", &output, &[last, format!("{name}.scale")], vec![]);
                }
                // Half a step more, then down: the kernels' rounding.
                "raised" => self.node("Add", &output, &[last, "half".into()], vec![]),
                "rounded" => self.node("Floor", &output, &[last], vec![]),
                _ => self.node(
                    "Clip",
                    &output,
                    &[last, "zero".into(), "u7_max".into()],
                    vec![],
                ),
            }
            last = output;
        }
    }

    fn add_upsampled(&mut self, add: &AddUpsampledLayer) {
        let name = add.name.as_str();
        let (fine, coarse) = (self.name(add.fine), self.name(add.coarse));
        let large = format!("{name}.large");
        let attributes = vec![
            string("mode", "nearest"),
            string("coordinate_transformation_mode", "asymmetric"),
            string("nearest_mode", "floor"),
        ];
        self.node(
            "Resize",
            &large,
            &[coarse, String::new(), "twice".into()],
            attributes,
        );
        // Of an odd side the last row or column has no partner.
        let (ends, cut) = (format!("{name}.ends"), format!("{name}.cut"));
        self.indices(&format!("{name}.starts"), &[0, 0]);
        self.indices(&ends, &[add.shape.height as i64, add.shape.width as i64]);
        self.indices(&format!("{name}.axes"), &[2, 3]);
        let inputs = [
            large,
            format!("{name}.starts"),
            ends,
            format!("{name}.axes"),
        ];
        self.node("Slice", &cut, &inputs, vec![]);
        let sum = format!("{name}.sum");
        self.node("Add", &sum, &[fine, cut], vec![]);
        self.node("Clip", name, &[sum, "zero".into(), "u7_max".into()], vec![]);
    }

    fn add(&mut self, add: &AddLayer) {
        let name = add.name.as_str();
        let [sum, offset, rest] = ["sum", "offset", "rest"].map(|part| format!("{name}.{part}"));
        let inputs = add.inputs.map(|source| self.name(source));
        self.node("Add", &sum, &inputs, vec![]);
        let mut last = sum;
        if add.offset > 0 {
            self.constant(&offset, vec![], &[f32::from(add.offset)]);
            self.node("Sub", &rest, &[last, offset], vec![]);
            last = rest;
        }
        let inputs = [last, "zero".into(), "u7_max".into()];
        self.node("Clip", name, &inputs, vec![]);
    }

    fn concat(&mut self, concat: &ConcatLayer) {
        let inputs: Vec<String> = concat.inputs.iter().map(|s| self.name(*s)).collect();
        self.node("Concat", &concat.name, &inputs, vec![int("axis", 1)]);
    }

    fn pool(&mut self, pool: &PoolLayer) {
        let (name, input) = (pool.name.as_str(), self.name(pool.input));
        let (input_shape, output_shape) = (pool.input_shape, pool.output_shape);
        let before = (pool.kernel - 1) / 2;
        // As far as the last window reaches out.
        let after = |out: usize, side: usize| {
            ((out - 1) * pool.stride + pool.kernel).saturating_sub(before + side)
        };
        let pads = [
            before,
            before,
            after(output_shape.height, input_shape.height),
            after(output_shape.width, input_shape.width),
        ];
        let attributes = vec![
            ints("kernel_shape", vec![pool.kernel as i64; 2]),
            ints("strides", vec![pool.stride as i64; 2]),
            ints("pads", pads.map(|n| n as i64).to_vec()),
        ];
        match (pool.mode, self.form) {
            (PoolMode::Max, _) => self.node("MaxPool", name, &[input], attributes),
            (PoolMode::Mean, Form::Folded) => {
                self.node("AveragePool", name, &[input], attributes);
            }
            (PoolMode::Mean, Form::Exact) => {
                let [mean, raised] = ["mean", "raised"].map(|part| format!("{name}.{part}"));
                self.node("AveragePool", &mean, &[input], attributes);
                self.node("Add", &raised, &[mean, "half".into()], vec![]);
                self.node("Floor", name, &[raised], vec![]);
            }
        }
    }

    fn node(&mut self, operator: &str, output: &str, inputs: &[String], attribute: Vec<Attribute>) {
        self.graph.node.push(Node {
            input: inputs.to_vec(),
            output: vec![output.into()],
            name: output.into(),
            op_type: operator.into(),
            attribute,
        });
    }

    fn constant(&mut self, name: &str, dims: Vec<usize>, values: &[f32]) {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes());
        self.initializer(name, dims, proto::FLOAT, bytes.collect());
    }

    fn indices(&mut self, name: &str, values: &[i64]) {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes());
        self.initializer(name, vec![values.len()], proto::INT64, bytes.collect());
    }

    fn initializer(&mut self, name: &str, dims: Vec<usize>, data_type: i32, raw_data: Vec<u8>) {
        self.graph.initializer.push(Tensor {
            dims: dims.into_iter().map(|n| n as i64).collect(),
            data_type,
            name: name.into(),
            raw_data,
        });
    }
}

fn int(name: &str, i: i64) -> Attribute {
    Attribute {
        name: name.into(),
        i,
        r#type: INT,
        ..Attribute::default()
    }
}

fn ints(name: &str, ints: Vec<i64>) -> Attribute {
    Attribute {
        name: name.into(),
        ints,
        r#type: INTS,
        ..Attribute::default()
    }
}

fn string(name: &str, text: &str) -> Attribute {
    Attribute {
        name: name.into(),
        s: text.into(),
        r#type: STRING,
        ..Attribute::default()
    }
}

fn value(name: &str, shape: TensorShape) -> Value {
    let dims = [1, shape.channels, shape.height, shape.width];
    let dim = dims.map(|n| Dim {
        dim_value: n as i64,
    });
    Value {
        name: name.into(),
        r#type: Some(Type {
            tensor_type: Some(TensorType {
                elem_type: proto::FLOAT,
                shape: Some(Shape { dim: dim.to_vec() }),
            }),
        }),
    }
}
