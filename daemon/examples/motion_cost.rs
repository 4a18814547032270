//! Processor time that the comparison of a frame with another takes on this machine, for the usual sizes and formats:
//! `cargo run --release -p ternwatchd --example motion_cost`.

use rustix::time::{ClockId, clock_gettime};
use ternwatch_daemon::motion::{Config, Frames, Gate, Need};
use ternwatch_detector::{Frame, FrameError, PixelFormat};

const FRAMES: u32 = 500;

fn main() -> Result<(), FrameError> {
    println!("size        format  microseconds a frame");
    for (width, height) in [(640, 480), (1280, 720), (1920, 1080)] {
        for format in [PixelFormat::Nv12, PixelFormat::Yuyv, PixelFormat::Rgb8] {
            let len = format.frame_len(width, height)?;
            // A picture with structure and some noise, in two versions.
            let versions = [0, 3].map(|seed: usize| -> Vec<u8> {
                (0..len)
                    .map(|at| (at / 97 % 160 + at * (at + seed) % 7) as u8)
                    .collect()
            });
            let config = Config {
                enabled: true,
                examine_s: 1.0,
            };
            let mut gate = Gate::new(&config, Frames::ForTracks);
            let begin_us = processor_us();
            for (number, data) in (0..FRAMES).zip(versions.iter().cycle()) {
                let frame = Frame::new(format, width, height, data)?;
                gate.judge(&frame, u64::from(number) * 66_000_000, Need::Changes);
            }
            let each = (processor_us() - begin_us) / f64::from(FRAMES);
            println!("{width} x {height:<5} {format}    {each:.0}");
        }
    }
    Ok(())
}

/// Time that this process has computed for, in microseconds.
fn processor_us() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}
