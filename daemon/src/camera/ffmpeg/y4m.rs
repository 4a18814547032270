//! The YUV4MPEG2 format: one header line, then frames of a line and the planes of YCbCr 4:2:0.
//!
//! Takes bytes that a decoder of untrusted videos wrote, so everything is bounded before it is believed: lines by
//! [`LINE_BYTES_MAX`], sides by [`SIDE_MAX`]. Bad input is an error, never a panic.

use crate::camera::SIDE_MAX;
use std::io::{self, BufRead, Read};
use std::num::NonZeroU32;
use thiserror::Error;

/// The longest line that is read.
pub const LINE_BYTES_MAX: usize = 512;

/// The frames' size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Pixels, even.
    pub width: u32,
    /// Pixels, even.
    pub height: u32,
    /// Frames a second, if the header tells.
    pub rate: Option<Rate>,
}

/// A fraction: frames in so many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    frames: NonZeroU32,
    seconds: NonZeroU32,
}

impl Rate {
    /// When the frame of this index is due, in nanoseconds after the first one.
    pub fn moment_ns(self, index: u64) -> u64 {
        let seconds = u128::from(index) * u128::from(self.seconds.get());
        let moment_ns = seconds * 1_000_000_000 / u128::from(self.frames.get());
        u64::try_from(moment_ns).unwrap_or(u64::MAX)
    }
}

impl Header {
    /// Bytes of a frame: a plane of luma and two of a quarter each.
    pub fn frame_len(&self) -> usize {
        // At most 8192 * 8192 * 3 / 2, which fits into 32 bits.
        self.width as usize * self.height as usize / 2 * 3
    }
}

/// Why the input is not what it should be.
#[derive(Debug, Error)]
pub enum Y4mError {
    /// The reader failed.
    #[error("cannot read the decoder's output: {0}")]
    Read(#[from] io::Error),
    /// The input ends in the middle.
    #[error("the decoder's output ends early")]
    Truncated,
    /// A line without an end.
    #[error("the {0} line is longer than {LINE_BYTES_MAX} bytes")]
    LongLine(&'static str),
    /// Other bytes where a line should begin.
    #[error("the {0} line does not begin with its mark")]
    Mark(&'static str),
    /// A side that is missing, odd, or out of range.
    #[error("bad {0} in the header line")]
    Side(&'static str),
    /// Not 8-bit 4:2:0.
    #[error("unsupported chroma format {0:?}")]
    Chroma(String),
    /// Luma from 0 to 255, which would be taken for 16 to 235.
    #[error("frames of full range in place of limited range")]
    FullRange,
}

/// Reads frames one by one.
pub struct Y4mReader<R> {
    reader: R,
    header: Header,
    line: Vec<u8>,
}

impl<R: BufRead> Y4mReader<R> {
    /// A reader at the beginning of a stream.
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            header: Header::default(),
            line: Vec::with_capacity(LINE_BYTES_MAX + 1),
        }
    }

    /// Where the bytes come from.
    pub fn reader_mut(&mut self) -> &mut R {
        &mut self.reader
    }

    /// The frames' size, once [`read_header`](Self::read_header) succeeded.
    pub fn header(&self) -> Header {
        self.header
    }

    /// Reads the first line.
    pub fn read_header(&mut self) -> Result<(), Y4mError> {
        if !self.read_line("header")? {
            return Err(Y4mError::Truncated);
        }
        self.header = parse_header(&self.line)?;
        Ok(())
    }

    /// Reads one frame into `planes`, whose length is [`Header::frame_len`]; `false` at the end of the stream.
    pub fn read_frame(&mut self, planes: &mut [u8]) -> Result<bool, Y4mError> {
        assert_eq!(planes.len(), self.header.frame_len(), "a frame's length");
        if !self.read_line("frame")? {
            return Ok(false);
        }
        // `FRAME` may be followed by parameters, none of which matter here.
        match self.line.strip_prefix(b"FRAME") {
            Some([] | [b' ', ..]) => {}
            _ => return Err(Y4mError::Mark("frame")),
        }
        self.reader.read_exact(planes).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                Y4mError::Truncated
            } else {
                Y4mError::Read(error)
            }
        })?;
        Ok(true)
    }

    /// Reads a line without its end; `false` if there is none.
    fn read_line(&mut self, what: &'static str) -> Result<bool, Y4mError> {
        self.line.clear();
        let limit = LINE_BYTES_MAX as u64 + 1;
        self.reader
            .by_ref()
            .take(limit)
            .read_until(b'\n', &mut self.line)?;
        match self.line.pop() {
            None => Ok(false),
            Some(b'\n') => Ok(true),
            Some(_) if self.line.len() < LINE_BYTES_MAX => Err(Y4mError::Truncated),
            Some(_) => Err(Y4mError::LongLine(what)),
        }
    }
}

fn parse_header(line: &[u8]) -> Result<Header, Y4mError> {
    let Some(parameters) = line.strip_prefix(b"YUV4MPEG2 ") else {
        return Err(Y4mError::Mark("header"));
    };
    let (mut width, mut height, mut rate) = (None, None, None);
    for parameter in parameters.split(|byte| *byte == b' ') {
        match parameter.split_first() {
            Some((b'W', digits)) => width = Some(side("width", digits)?),
            Some((b'H', digits)) => height = Some(side("height", digits)?),
            // 4:2:0 variants differ in where the chroma samples lie, which is less than a pixel.
            Some((b'C', b"420" | b"420jpeg" | b"420mpeg2" | b"420paldv")) => {}
            Some((b'C', other)) => {
                return Err(Y4mError::Chroma(String::from_utf8_lossy(other).into()));
            }
            // ffmpeg is asked for the other one.
            Some((b'X', b"COLORRANGE=FULL")) => return Err(Y4mError::FullRange),
            // `0:0` means that it is not known.
            Some((b'F', fraction)) => rate = parse_rate(fraction),
            // Interlacing, aspect, comments.
            _ => {}
        }
    }
    Ok(Header {
        width: width.ok_or(Y4mError::Side("width"))?,
        height: height.ok_or(Y4mError::Side("height"))?,
        rate,
    })
}

fn parse_rate(fraction: &[u8]) -> Option<Rate> {
    let (frames, seconds) = std::str::from_utf8(fraction).ok()?.split_once(':')?;
    Some(Rate {
        frames: frames.parse().ok()?,
        seconds: seconds.parse().ok()?,
    })
}

fn side(what: &'static str, digits: &[u8]) -> Result<u32, Y4mError> {
    std::str::from_utf8(digits)
        .ok()
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .filter(|side| (2..=SIDE_MAX).contains(side) && side % 2 == 0)
        .ok_or(Y4mError::Side(what))
}
