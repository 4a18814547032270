//! Times the stages on a synthetic frame: `frame_bench BUNDLE PUBLIC_KEY [ROUNDS]`.
//!
//! Prints medians of wall time per stage, for every pixel format (preprocessing) and instruction set level (inference).

use std::time::{Duration, Instant};

use ternwatch_bundle::{Model, PublicKey, TrustedKeys, UnverifiedBundle};
use ternwatch_detector::{Detector, Frame, Isa, PixelFormat, golden};

const WIDTH: u32 = 768;
const HEIGHT: u32 = 576;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (bundle, key, rounds) = match arguments.as_slice() {
        [bundle, key] => (bundle, key, 50),
        [bundle, key, rounds] => (bundle, key, rounds.parse::<usize>()?.max(1)),
        _ => return Err("usage: frame_bench BUNDLE PUBLIC_KEY [ROUNDS]".into()),
    };
    let keys = TrustedKeys::from_iter([PublicKey::from_text(&std::fs::read_to_string(key)?)?]);
    let file = std::fs::read(bundle)?;
    let model = Model::load(&UnverifiedBundle::from_bytes(&file)?.verify(&keys)?)?;
    let input = model.input();
    println!(
        "{} version {}: input {} x {}, {:.1} MMAC, frame {WIDTH} x {HEIGHT}, medians of {rounds} rounds",
        model.id().name,
        model.id().version,
        input.width,
        input.height,
        model.macs() as f64 / 1e6
    );
    let picture = golden::draw(1, WIDTH, HEIGHT);
    preprocessing(&model, &picture, rounds)?;
    for isa in Isa::available() {
        inference(&model, &picture, isa, rounds)?;
    }
    Ok(())
}

/// The bytes of the YUV formats are the picture's: the time does not depend on them.
fn preprocessing(
    model: &Model,
    picture: &[u8],
    rounds: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut detector = Detector::new(model, Isa::detect())?;
    for format in [
        PixelFormat::Rgb8,
        PixelFormat::Yuyv,
        PixelFormat::Nv12,
        PixelFormat::I420,
    ] {
        let frame = Frame::new(
            format,
            WIDTH,
            HEIGHT,
            &picture[..format.frame_len(WIDTH, HEIGHT)?],
        )?;
        let time = median(rounds, || time(|| detector.preprocess(&frame)));
        println!("preprocess {format:>8} {:8.3} ms", ms(time));
    }
    Ok(())
}

fn inference(
    model: &Model,
    picture: &[u8],
    isa: Isa,
    rounds: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut detector = Detector::new(model, isa)?;
    let frame = Frame::new(PixelFormat::Rgb8, WIDTH, HEIGHT, picture)?;
    let infer = median(rounds, || {
        detector.preprocess(&frame);
        time(|| detector.infer())
    });
    let thresholds = model.thresholds();
    let decode = median(rounds, || {
        time(|| {
            std::hint::black_box(detector.decode(thresholds));
        })
    });
    println!(
        "infer      {isa:>8} {:8.3} ms, decode {:.3} ms, arena {} KiB",
        ms(infer),
        ms(decode),
        detector.arena_len() / 1024
    );
    Ok(())
}

fn time(action: impl FnOnce()) -> Duration {
    let start = Instant::now();
    action();
    start.elapsed()
}

fn median(rounds: usize, mut measure: impl FnMut() -> Duration) -> Duration {
    // The first round plans tables and warms caches.
    measure();
    let mut times: Vec<Duration> = (0..rounds).map(|_| measure()).collect();
    times.sort_unstable();
    times[rounds / 2]
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
