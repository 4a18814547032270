//! Whether the configured source is there, may be opened, is free, and offers what the daemon understands.

use super::board::Board;
use super::{Finding, Level, reach};
use crate::camera::{Config, SourceKind, v4l2};
use crate::exit::Reason;
use rustix::fs::{Access, access};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{fs, io};

const SUBJECT: &str = "camera";
/// Cameras that are listed in a remedy.
const LISTED_MAX: usize = 8;

/// Looks at the source that `config` names.
pub(super) fn look(config: &Config, board: &Board) -> Finding {
    match config.source {
        SourceKind::V4l2 => v4l2_device(config, board),
        SourceKind::Rpicam => ribbon(config),
        SourceKind::Video => video(config),
        SourceKind::Rtsp => rtsp(config),
        SourceKind::Stills => readable(&config.stills.folder, "camera.stills.folder"),
    }
}

fn bad(reason: Reason, text: String, remedy: impl Into<String>) -> Finding {
    Finding::new(Level::Bad(reason), SUBJECT, text, remedy)
}

fn v4l2_device(config: &Config, board: &Board) -> Finding {
    let device = &config.v4l2.device;
    let name = device.display();
    match v4l2::openable(device) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return bad(
                Reason::NoPermission,
                format!("{name}: this user may not open it"),
                "cameras belong to the group video, which the service's user is in: `sudo -u ternwatch ternwatchd doctor`",
            );
        }
        Err(error) => {
            let remedy = format!(
                "plug it in, or name another in camera.v4l2.device ({}) or another kind in camera.source",
                cameras(board)
            );
            return bad(Reason::NoInput, format!("{name}: {error}"), remedy);
        }
    }
    // It was there a moment ago.
    let resolved = device.canonicalize().unwrap_or_else(|_| device.clone());
    match holder(&resolved, board) {
        Some((program, id)) if program == "ternwatchd" => {
            return Finding::good(
                SUBJECT,
                format!("{name} is used by ternwatchd, process {id}"),
            );
        }
        Some((program, id)) => {
            return bad(
                Reason::Unavailable,
                format!("{name} is used by {program}, process {id}"),
                format!("end it: `kill {id}`, or the service that it belongs to"),
            );
        }
        None => {}
    }
    match v4l2::offered(&config.v4l2, config.stall()) {
        Ok(offers) if offers.is_empty() => bad(
            Reason::Unavailable,
            format!("{name} offers no YUYV, NV12 or MJPEG"),
            "take another camera; one on the ribbon connector needs camera.source = \"rpicam\"",
        ),
        Ok(offers) => {
            let first: Vec<String> = offers.iter().take(LISTED_MAX).cloned().collect();
            let text = format!(
                "{name} offers {} formats: {}",
                offers.len(),
                first.join(", ")
            );
            Finding::good(SUBJECT, text)
        }
        Err(error) => bad(
            error.reason(),
            format!("{:#}", anyhow::Error::new(error)),
            "unplug it and plug it in again; a camera on a hub may lack power",
        ),
    }
}

/// Cameras that are here, for somebody who has to name one.
fn cameras(board: &Board) -> String {
    let mut found: Vec<String> = ["/dev/v4l/by-id", "/dev"]
        .iter()
        .filter_map(|folder| fs::read_dir(board.path(folder)).ok())
        .flatten()
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            name.contains("video-index") || name.starts_with("video")
        })
        .map(|path| path.display().to_string())
        .take(LISTED_MAX)
        .collect();
    found.sort();
    if found.is_empty() {
        return "there is none here".into();
    }
    format!("here are {}", found.join(", "))
}

/// The name and the number of a process that has the device open, as far as this user may see.
fn holder(device: &Path, board: &Board) -> Option<(String, u32)> {
    let own = std::process::id();
    fs::read_dir(board.path("/proc"))
        .ok()?
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|&id| id != own)
        .find_map(|id| {
            let process = board.path(&format!("/proc/{id}"));
            let mut files = fs::read_dir(process.join("fd"))
                .ok()?
                .filter_map(Result::ok);
            files.find(|file| fs::read_link(file.path()).is_ok_and(|target| target == device))?;
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            Some((name.trim().to_owned(), id))
        })
}

fn ribbon(config: &Config) -> Finding {
    let name = config.rpicam.program.display();
    program(&config.rpicam.program, "apt install rpicam-apps").unwrap_or_else(|| {
        let text = format!("{name} is here; `rpicam-hello --list-cameras` shows the cameras");
        Finding::good(SUBJECT, text)
    })
}

fn video(config: &Config) -> Finding {
    let finding = readable(&config.video.path, "camera.video.path");
    if finding.level == Level::Good {
        return program(&config.ffmpeg.program, "apt install ffmpeg").unwrap_or(finding);
    }
    finding
}

fn readable(path: &Path, key: &str) -> Finding {
    let name = path.display();
    match access(path, Access::READ_OK) {
        Ok(()) => Finding::good(SUBJECT, format!("{name} is readable")),
        Err(error) => bad(
            Reason::NoInput,
            format!("{name}: {error}"),
            format!("{key} names another; the service sees neither /home nor /root"),
        ),
    }
}

fn rtsp(config: &Config) -> Finding {
    if let Some(missing) = program(&config.ffmpeg.program, "apt install ffmpeg") {
        return missing;
    }
    let Some((host, port)) = address(config.rtsp.url.expose()) else {
        return bad(
            Reason::Config,
            "camera.rtsp.url has no host".into(),
            "write it like rtsp://camera.lan/stream",
        );
    };
    match reach(host, port) {
        Ok(()) => Finding::good(SUBJECT, format!("{host}:{port} answers")),
        Err(error) => bad(
            Reason::Unavailable,
            format!("{host}:{port} does not answer: {error}"),
            "camera.rtsp.url names it; is the camera switched on, and in this network?",
        ),
    }
}

/// Host and port of an address, without a user and password.
fn address(url: &str) -> Option<(&str, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let place = authority
        .rsplit_once('@')
        .map_or(authority, |(_, place)| place);
    let standard = if scheme == "rtsps" { 322 } else { 554 };
    let (host, port) = match place.rsplit_once(':') {
        // The colons of an IPv6 address stand in brackets.
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
        _ => (place, standard),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then_some((host, port))
}

/// What is wrong with a program that a source needs.
fn program(program: &Path, remedy: &str) -> Option<Finding> {
    let is_there = if program.components().count() > 1 {
        access(program, Access::EXEC_OK).is_ok()
    } else {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&folders)
            .map(|folder: PathBuf| folder.join(program))
            .any(|path| path.is_file() && access(&path, Access::EXEC_OK).is_ok())
    };
    (!is_there).then(|| {
        let text = format!("there is no program {}", program.display());
        bad(Reason::NoInput, text, format!("`{remedy}` brings it"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn camera(settings: &[(&str, &str)]) -> Config {
        let variables = settings
            .iter()
            .map(|(key, value)| (format!("TERNWATCH_CAMERA__{key}"), value.to_string()));
        config::Config::load(None, variables).expect("valid").camera
    }

    #[test]
    fn a_camera_that_is_missing_or_none_is_named_with_the_setting() {
        for device in ["/dev/video-missing", "/dev/null"] {
            let finding = look(&camera(&[("V4L2__DEVICE", device)]), &Board::here());
            assert_eq!(finding.level, Level::Bad(Reason::NoInput), "{finding}");
            assert!(finding.text.contains(device), "{finding}");
            assert!(!finding.remedy.is_empty(), "{finding}");
        }
    }

    #[test]
    fn a_device_that_a_process_has_open_is_found_with_the_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let device = folder.path().join("video9");
        fs::write(&device, "").expect("written");
        let mut child = std::process::Command::new("sleep")
            .arg("600")
            .stdin(fs::File::open(&device).expect("readable"))
            .spawn()
            .expect("sleep runs");
        let device = device.canonicalize().expect("there");
        let found = holder(&device, &Board::here());
        child.kill().expect("killed");
        child.wait().expect("ended");
        assert_eq!(found.expect("found").1, child.id());
        assert_eq!(holder(&device, &Board::here()), None);
    }

    #[test]
    fn addresses_lose_their_passwords() {
        for (url, expected) in [
            ("rtsp://me:p@ss@cam.lan:8554/1", Some(("cam.lan", 8554))),
            ("rtsp://cam.lan", Some(("cam.lan", 554))),
            ("rtsps://cam.lan/a:1", Some(("cam.lan", 322))),
            ("rtsp://[fe80::1]:554/", Some(("fe80::1", 554))),
            ("rtsp://[fe80::1]/", Some(("fe80::1", 554))),
            ("rtsp:///1", None),
            ("rtsp://cam:port/1", None),
        ] {
            assert_eq!(address(url), expected, "{url}");
        }
    }

    #[test]
    fn a_missing_decoder_is_named() {
        let settings = [
            ("SOURCE", "video"),
            ("VIDEO__PATH", "/dev/null"),
            ("FFMPEG__PROGRAM", "no-such-ffmpeg"),
        ];
        let finding = look(&camera(&settings), &Board::here());
        assert_eq!(finding.level, Level::Bad(Reason::NoInput));
        assert!(finding.text.contains("no-such-ffmpeg"), "{finding}");
        let settings = [("SOURCE", "stills"), ("STILLS__FOLDER", "/nonexistent")];
        let finding = look(&camera(&settings), &Board::here());
        assert!(finding.remedy.contains("camera.stills.folder"), "{finding}");
    }
}
