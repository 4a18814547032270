//! Turns a drawn frame into a network's input, to be counted from outside:
//!
//! `preprocess_work ISA RUNS FORMAT WIDTH HEIGHT INPUT_WIDTH INPUT_HEIGHT`
//!
//! Planning the tables costs instructions too. What one frame costs is half of the difference between three runs and one.
//! `deploy/instructions/gate.sh` does that. Prints a checksum of the input: the same on every instruction set.

use std::process::ExitCode;

use ternwatch_detector::testing::FirstStage;
use ternwatch_detector::{Frame, Isa, PixelFormat};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let Some((isa, runs, format, frame, input)) = parse(&arguments) else {
        eprintln!(
            "usage: preprocess_work ISA RUNS FORMAT WIDTH HEIGHT INPUT_WIDTH INPUT_HEIGHT, FORMAT one of RGB8, YUYV, NV12, I420"
        );
        return ExitCode::from(64);
    };
    let len = match format.frame_len(frame.0, frame.1) {
        Ok(len) => len,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(64);
        }
    };
    // Noise: what it shows plays no part.
    let bytes: Vec<u8> = (0..len as u32)
        .map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8)
        .collect();
    let mut stage = FirstStage::new(input.0, input.1, isa);
    let mut output = vec![0; 3 * input.0 as usize * input.1 as usize];
    let frame = Frame::new(format, frame.0, frame.1, &bytes).expect("the length was asked for");
    for _ in 0..runs {
        stage.run(&frame, &mut output);
    }
    let checksum = output.iter().fold(0u64, |sum, &byte| {
        (sum.rotate_left(5) ^ u64::from(byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    });
    println!("{checksum:016x}");
    ExitCode::SUCCESS
}

type Wanted = (Isa, usize, PixelFormat, (u32, u32), (u32, u32));

fn parse(arguments: &[String]) -> Option<Wanted> {
    let [isa, runs, format, sizes @ ..] = arguments else {
        return None;
    };
    let formats = [
        PixelFormat::Rgb8,
        PixelFormat::Yuyv,
        PixelFormat::Nv12,
        PixelFormat::I420,
    ];
    let format = formats
        .into_iter()
        .find(|known| known.to_string() == *format)?;
    let sizes: Vec<u32> = sizes
        .iter()
        .map(|size| size.parse().ok())
        .collect::<Option<_>>()?;
    let [width, height, input_width, input_height] = sizes.try_into().ok()?;
    Some((
        isa.parse().ok()?,
        runs.parse().ok()?,
        format,
        (width, height),
        (input_width, input_height),
    ))
}
