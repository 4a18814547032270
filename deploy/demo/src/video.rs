//! Pictures of a video file by their index, through ffmpeg.

use anyhow::{Context, Result, ensure};
use image::RgbImage;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// The pictures with these ascending indices, all of the given size.
pub(crate) fn pictures(
    video: &Path,
    indices: &[u64],
    width: u32,
    height: u32,
) -> Result<Vec<RgbImage>> {
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-loglevel", "error", "-i"])
        .arg(video)
        .args([
            "-vf",
            &filter(indices, width, height),
            "-fps_mode",
            "passthrough",
            "-frames:v",
            &indices.len().to_string(),
        ])
        .args(["-f", "rawvideo", "-pix_fmt", "rgb24", "-"])
        .stdin(Stdio::null())
        .output()
        .context("ffmpeg does not start")?;
    ensure!(
        output.status.success(),
        "ffmpeg cannot read {}: {}",
        video.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let pictures = split(&output.stdout, width, height)?;
    ensure!(
        pictures.len() == indices.len(),
        "{} gave {} of {} pictures",
        video.display(),
        pictures.len(),
        indices.len()
    );
    Ok(pictures)
}

/// The filter that lets the pictures with these indices through. The daemon leaves an odd last row or column out of
/// its frames, and so must the pictures.
fn filter(indices: &[u64], width: u32, height: u32) -> String {
    let mut filter = String::from("select='");
    for (position, index) in indices.iter().enumerate() {
        let plus = if position == 0 { "" } else { "+" };
        // Writing to a String cannot fail.
        let _ = write!(filter, "{plus}eq(n,{index})");
    }
    let _ = write!(filter, "',crop={width}:{height}:0:0");
    filter
}

/// Cuts a raw RGB stream into pictures.
fn split(stream: &[u8], width: u32, height: u32) -> Result<Vec<RgbImage>> {
    let len = width as usize * height as usize * 3;
    ensure!(
        len > 0 && stream.len().is_multiple_of(len),
        "{} bytes are no whole number of pictures of {width}x{height}",
        stream.len()
    );
    Ok(stream
        .chunks_exact(len)
        .filter_map(|bytes| RgbImage::from_raw(width, height, bytes.to_vec()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_names_every_index() {
        assert_eq!(filter(&[12], 8, 6), "select='eq(n,12)',crop=8:6:0:0");
        assert_eq!(
            filter(&[0, 40, 79], 8, 6),
            "select='eq(n,0)+eq(n,40)+eq(n,79)',crop=8:6:0:0"
        );
    }

    #[test]
    fn a_stream_is_cut_into_whole_pictures_only() {
        let stream: Vec<u8> = (0..24).collect();
        let pictures = split(&stream, 2, 2).expect("two pictures");
        assert_eq!(pictures.len(), 2);
        assert_eq!(pictures[1].get_pixel(0, 0).0, [12, 13, 14]);
        assert!(split(&stream[..23], 2, 2).is_err());
        assert!(split(&stream, 0, 2).is_err());
    }
}
