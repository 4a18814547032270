//! Shows a film to a v4l2loopback camera: `ternwatch-feeder DEVICE FILM WIDTH HEIGHT FRAMES_PER_SECOND`.
//!
//! The film is JPEG pictures of that size one after the other, as `ffmpeg -f mjpeg` writes them. It begins anew when it is
//! over, until the program is ended.

use anyhow::{Context, Result, ensure};
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, fs};
use v4l::video::Output;
use v4l::{Device, Format, FourCC};

/// JPEG's marker of a picture's end. Within a picture it stands nowhere else, as long as no thumbnail is embedded.
const END_OF_IMAGE: [u8; 2] = [0xFF, 0xD9];

fn main() -> ExitCode {
    match run(&env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ternwatch-feeder: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let [device, film, width, height, rate] = arguments else {
        anyhow::bail!("expected DEVICE FILM WIDTH HEIGHT FRAMES_PER_SECOND");
    };
    let (width, height) = (
        width.parse().context("width")?,
        height.parse().context("height")?,
    );
    let rate: f64 = rate.parse().context("frames per second")?;
    ensure!(rate > 0.0, "frames per second must be above 0");
    let film = fs::read(film).with_context(|| film.clone())?;
    let pictures = pictures(&film);
    ensure!(!pictures.is_empty(), "the film has no picture");

    let mut camera = Device::with_path(device).with_context(|| device.clone())?;
    let format = Format::new(width, height, FourCC::new(b"MJPG"));
    let format = camera
        .set_format(&format)
        .context("the camera does not take JPEG pictures")?;
    ensure!(
        (format.width, format.height) == (width, height),
        "the camera takes {format}"
    );
    let started = Instant::now();
    for (number, picture) in pictures.iter().cycle().enumerate() {
        let due = started + Duration::from_secs_f64(number as f64 / rate);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        camera
            .write_all(picture)
            .context("the camera took no picture")?;
    }
    Ok(())
}

/// The pictures of a film, in order.
fn pictures(film: &[u8]) -> Vec<&[u8]> {
    let mut ends = vec![0];
    ends.extend(
        (0..film.len().saturating_sub(1))
            .filter(|&at| film[at..at + 2] == END_OF_IMAGE)
            .map(|at| at + 2),
    );
    ends.windows(2)
        .map(|pair| &film[pair[0]..pair[1]])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::pictures;

    #[test]
    fn a_film_is_cut_after_each_picture_and_a_torn_one_is_left_out() {
        let film = [
            0xFF, 0xD8, 1, 0xFF, 0xD9, 0xFF, 0xD8, 0xFF, 0xD9, 0xFF, 0xD8, 7,
        ];
        assert_eq!(pictures(&film), [&film[..5], &film[5..9]]);
        assert!(pictures(&[]).is_empty());
    }
}
