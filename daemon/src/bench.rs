//! `ternwatchd bench`: how fast this board is.
//!
//! Runs the configured model on a drawn frame, or on a picture that is named, stage by stage and layer by layer. Times are of
//! the wall clock, of `model.threads` threads, and say nothing of the camera. It can run beside the daemon, but measures it, too.

mod report;

use crate::camera::FrameBuffer;
use crate::camera::v4l2::decode;
use crate::cli::{Bench, FrameFormat};
use crate::config::Config;
use crate::exit::{Failure, Reason};
use crate::model::{self, ModelIdentity};
use crate::processor::IsaChoice;
use crate::tell::{note, out};
use crate::vitals::Vitals;
use anyhow::{Context, anyhow};
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use report::{LayerTime, Report, StageTime};
use std::path::Path;
use std::time::{Duration, Instant};
use ternwatch_bundle::Model;
use ternwatch_bundle::model::ModelLayer;
use ternwatch_bundle::parse::FILE_LEN_MAX;
use ternwatch_detector::{Detector, PixelFormat, Team, Thresholds, golden};

/// Frames that warm caches and tables and do not count.
const WARM_UP: usize = 3;
/// Quality of the JPEG that is measured where no picture is named; cameras are about there.
const JPEG_QUALITY: u8 = 80;
/// The longest picture that is read, in bytes.
const PICTURE_LEN_MAX: usize = 32 << 20;

/// Measures, and prints a table or JSON.
pub fn run(config: Result<Config, Failure>, wanted: &Bench) -> Result<(), Failure> {
    let mut config = config?.model;
    if let Some(bundle) = &wanted.bundle {
        config.bundle.clone_from(bundle);
    }
    let choice = config
        .choose_isa()
        .map_err(|invalid| Failure::new(Reason::Config, anyhow!(invalid.reason)))?;
    let isa = choice.isa;
    let loaded = model::load(&config, isa).map_err(|e| Failure::new(e.reason(), e))?;
    let model = layers(&config).map_err(|e| Failure::new(e.reason(), e))?;
    let camera = Camera::new(wanted)?;
    // It helps as long as this measures.
    let team = Team::of_this_thread(config.threads);
    let team = team.map_err(|e| Failure::new(Reason::Unavailable, e))?;
    let threads = team.threads();
    note(format_args!(
        "measuring {} frames, {threads} thread(s), instruction set {choice}",
        wanted.frames
    ));
    let times = measure(&model, loaded.detector, loaded.thresholds, camera, wanted)?;
    let report = times.report(&model, loaded.identity, &choice, threads);
    if wanted.json {
        let text = serde_json::to_string_pretty(&report);
        out(text.map_err(|e| Failure::new(Reason::Software, e))?);
    } else {
        out(report.to_string().trim_end());
    }
    Ok(())
}

/// The model again, for the names and shapes of its layers.
fn layers(config: &model::Config) -> Result<Model, model::LoadError> {
    let path = &config.bundle;
    let file = model::read(path, FILE_LEN_MAX)?;
    let bundle = model::verify(&model::trusted_keys(config)?, path, &file)?;
    Model::load(&bundle).map_err(|source| model::LoadError::Model {
        path: path.clone(),
        source,
    })
}

/// What a camera would deliver.
struct Camera {
    buffer: FrameBuffer,
    /// Bytes to be decoded for every frame, where it delivers JPEG.
    jpeg: Option<Vec<u8>>,
}

impl Camera {
    fn new(wanted: &Bench) -> Result<Self, Failure> {
        let mut buffer = FrameBuffer::empty();
        let [width, height] = wanted.size;
        let usage = |error| Failure::new(Reason::Usage, error);
        let jpeg = match (&wanted.picture, wanted.format) {
            (Some(path), _) => Some(read_picture(path)?),
            (None, FrameFormat::Jpeg) => {
                PixelFormat::Rgb8.frame_len(width, height).map_err(usage)?;
                Some(encode(&golden::draw(1, width, height), width, height)?)
            }
            (None, raw) => {
                let format = raw.pixel_format();
                let len = format.frame_len(width, height).map_err(usage)?;
                // The time does not depend on the bytes.
                let picture = golden::draw(1, width, height);
                let bytes = buffer.prepare(format, width, height, len);
                bytes.copy_from_slice(&picture[..len]);
                None
            }
        };
        let mut camera = Self { buffer, jpeg };
        camera.deliver()?;
        Ok(camera)
    }

    /// Decodes the frame, if it has to be.
    fn deliver(&mut self) -> Result<(), Failure> {
        match &self.jpeg {
            Some(bytes) => decode::jpeg(bytes, &mut self.buffer)
                .context("the picture")
                .map_err(|error| Failure::new(Reason::Data, error)),
            None => Ok(()),
        }
    }
}

fn read_picture(path: &Path) -> Result<Vec<u8>, Failure> {
    model::read(path, PICTURE_LEN_MAX).map_err(|error| Failure::new(error.reason(), error))
}

fn encode(rgb: &[u8], width: u32, height: u32) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY)
        .encode(rgb, width, height, ExtendedColorType::Rgb8)
        .map_err(|error| Failure::new(Reason::Software, error))?;
    Ok(bytes)
}

/// The times of every frame.
struct Times {
    frame: report::FrameOf,
    /// Bytes of tensors and working memory.
    arena: usize,
    decode_jpeg: Vec<Duration>,
    preprocess: Vec<Duration>,
    infer: Vec<Duration>,
    decode: Vec<Duration>,
    total: Vec<Duration>,
    /// Processor time of the whole.
    processor: Vec<Duration>,
    /// Of each layer.
    layers: Vec<Vec<Duration>>,
}

fn measure(
    model: &Model,
    mut detector: Detector,
    thresholds: Thresholds,
    mut camera: Camera,
    wanted: &Bench,
) -> Result<Times, Failure> {
    let frames = wanted.frames as usize;
    let empty = || Vec::with_capacity(frames);
    let mut times = Times {
        frame: report::FrameOf {
            width: camera.buffer.width,
            height: camera.buffer.height,
            format: if camera.jpeg.is_some() {
                "JPEG".into()
            } else {
                camera.buffer.format.to_string()
            },
        },
        arena: detector.arena_len(),
        decode_jpeg: empty(),
        preprocess: empty(),
        infer: empty(),
        decode: empty(),
        total: empty(),
        processor: empty(),
        layers: vec![empty(); model.layers().len()],
    };
    for round in 0..WARM_UP + frames {
        let processor_from = Vitals::processor_time();
        let mut marks = [Instant::now(); 5];
        camera.deliver()?;
        marks[1] = Instant::now();
        let frame = camera.buffer.frame();
        detector.preprocess(&frame.map_err(|e| Failure::new(Reason::Data, e))?);
        marks[2] = Instant::now();
        let mut layer_from = marks[2];
        detector.infer_observed(|layer, _| {
            let now = Instant::now();
            if round >= WARM_UP {
                times.layers[layer].push(now - layer_from);
            }
            layer_from = now;
        });
        marks[3] = Instant::now();
        std::hint::black_box(detector.decode(thresholds));
        marks[4] = Instant::now();
        if round >= WARM_UP {
            times.decode_jpeg.push(marks[1] - marks[0]);
            times.preprocess.push(marks[2] - marks[1]);
            times.infer.push(marks[3] - marks[2]);
            times.decode.push(marks[4] - marks[3]);
            times.total.push(marks[4] - marks[0]);
            times
                .processor
                .push(Vitals::processor_time() - processor_from);
        }
    }
    Ok(times)
}

impl Times {
    fn report(
        mut self,
        model: &Model,
        identity: ModelIdentity,
        choice: &IsaChoice,
        threads: usize,
    ) -> Report {
        let jpeg = (self.frame.format == "JPEG")
            .then(|| StageTime::of("decode JPEG", &mut self.decode_jpeg));
        let total = StageTime::of("total", &mut self.total);
        let frames_per_second = 1e3 / total.p50_ms;
        let stages = jpeg.into_iter().chain([
            StageTime::of("preprocess", &mut self.preprocess),
            StageTime::of("infer", &mut self.infer),
            StageTime::of("decode", &mut self.decode),
            total,
            StageTime::of("processor", &mut self.processor),
        ]);
        let layers = model.layers().iter().zip(&mut self.layers);
        let layers = layers.map(|(layer, times)| {
            let output = layer.output_shape();
            let (kernel, stride) = match layer {
                ModelLayer::Conv(conv) => (conv.kernel, conv.stride),
                ModelLayer::Pool(pool) => (pool.kernel, pool.stride),
                ModelLayer::AddUpsampled(_) | ModelLayer::Add(_) | ModelLayer::Concat(_) => (0, 1),
            };
            LayerTime {
                name: layer.name().into(),
                op: match layer {
                    ModelLayer::Conv(conv) if conv.groups != 1 => "depthwise",
                    ModelLayer::Conv(_) => "conv",
                    ModelLayer::AddUpsampled(_) | ModelLayer::Add(_) => "add",
                    ModelLayer::Concat(_) => "concat",
                    ModelLayer::Pool(_) => "pool",
                },
                kernel,
                stride,
                output: [output.channels, output.height, output.width],
                mmac: layer.macs() as f64 / 1e6,
                p50_ms: StageTime::of("", times).p50_ms,
            }
        });
        Report {
            schema: report::SCHEMA,
            daemon: env!("CARGO_PKG_VERSION"),
            model: identity,
            isa: choice.isa.to_string(),
            isa_choice: choice.to_string(),
            threads,
            input: [model.input().width, model.input().height],
            mmac: model.macs() as f64 / 1e6,
            frame: self.frame,
            frames: self.total.len(),
            frames_per_second,
            stages: stages.collect(),
            layers: layers.collect(),
            memory: report::Memory::of_this_process(self.arena),
        }
    }
}
