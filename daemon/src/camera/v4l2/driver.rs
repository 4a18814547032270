//! What is said to the driver. The crate `nokhwa` drops how long a frame's bytes are, whether the driver marked them as damaged and the
//! numerator of a frame's interval, and waits for ever for a frame; `v4l`, which it is made of, does not (docs/adr/0025).

use super::format::{self, Encoding, Interval, Layout, Offer, Refusal, Wanted};
use rustix::event::PollFlags;
use rustix::io::Errno;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use v4l::buffer::{Flags, Type};
use v4l::device::Handle;
use v4l::frameinterval::FrameIntervalEnum;
use v4l::framesize::FrameSizeEnum;
use v4l::io::mmap::Stream;
use v4l::io::traits::{CaptureStream, Stream as _};
use v4l::video::Capture;
use v4l::video::capture::Parameters;
use v4l::{Device, Format, FourCC, Fraction};

/// Frames that the driver may fill ahead.
const BUFFERS: u32 = 4;
/// There is something to read.
const READABLE: i16 = PollFlags::IN.bits() as i16;
/// How the formats that a frame can be made of are called.
const UNDERSTOOD: [([u8; 4], Encoding); 3] = [
    (*b"YUYV", Encoding::Yuyv),
    (*b"NV12", Encoding::Nv12),
    (*b"MJPG", Encoding::Mjpeg),
];

/// A camera that delivers.
pub(super) struct Streaming {
    stream: Stream<'static>,
    handle: Arc<Handle>,
    layout: Layout,
}

impl Streaming {
    /// Opens `/dev/videoN` in the format that it starts with and that is nearest to the wanted one, unless it is `ending` meanwhile.
    pub(super) fn open(index: u32, wanted: &Wanted, ending: &AtomicBool) -> Result<Self, String> {
        let device = device(index)?;
        let offers = offers_of(&device, wanted);
        let ranked = format::ranked(&offers, wanted);
        if ranked.is_empty() {
            let all: Vec<String> = offers.iter().map(Offer::to_string).collect();
            return Err(if all.is_empty() {
                "it offers no YUYV, NV12 or MJPEG format".into()
            } else {
                format!("none of its formats is of use: {}", all.join(", "))
            });
        }
        let (started, refused) = format::first_that_starts(&ranked, |offer| {
            if ending.load(Ordering::Relaxed) {
                return Err(Refusal::of_all("it took too long to start"));
            }
            let started = Self::start(index, &device, offer);
            if let Err(refusal) = &started {
                log::debug!("/dev/video{index}: {offer}: {}", refusal.reason);
            }
            started
        })?;
        if let Some(reason) = refused {
            log::warn!("camera /dev/video{index}: {reason}");
        }
        Ok(started)
    }

    fn start(index: u32, device: &Device, offer: Offer) -> Result<Self, Refusal> {
        let asked = Format::new(offer.width, offer.height, four_letters(offer.encoding));
        let given = device
            .set_format(&asked)
            .map_err(|error| refusal(format!("it refuses {offer}"), &error))?;
        if (given.width, given.height, given.fourcc) != (asked.width, asked.height, asked.fourcc) {
            return Err(Refusal::of_one(format!(
                "it gives {} {}x{} in place of {offer}",
                given.fourcc, given.width, given.height
            )));
        }
        let Interval {
            numerator,
            denominator,
        } = offer.interval;
        // Some have one rate only, and no call to set it.
        if let Err(error) =
            device.set_params(&Parameters::new(Fraction::new(numerator, denominator)))
        {
            log::debug!("/dev/video{index} keeps its frame rate: {error}");
        }
        let stream = started(device)
            .map_err(|error| refusal(format!("it does not start with {offer}"), &error))?;
        Ok(Self {
            stream,
            handle: device.handle(),
            layout: Layout {
                offer,
                line_bytes: given.stride as usize,
            },
        })
    }

    /// What its frames are.
    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// The bytes of the next frame, none if the driver says that they are damaged. `None`: there was no frame for so long.
    pub(super) fn next(&mut self, patience: Duration) -> io::Result<Option<&[u8]>> {
        match self.handle.poll(READABLE, patience.as_millis() as i32) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(None),
            Err(error) => return Err(error),
        }
        let (bytes, about) = CaptureStream::next(&mut self.stream)?;
        let is_damaged = about.flags.contains(Flags::ERROR);
        let len = if is_damaged {
            0
        } else {
            about.bytesused as usize
        };
        Ok(Some(&bytes[..len.min(bytes.len())]))
    }
}

/// What `/dev/videoN` offers of what is understood here; of a range of sizes or rates what is nearest to the wanted one.
pub(super) fn offers(index: u32, wanted: &Wanted) -> Result<Vec<Offer>, String> {
    Ok(offers_of(&device(index)?, wanted))
}

/// Somebody else who has the camera, or that it is gone, does not pass with another format.
fn refusal(what: String, error: &io::Error) -> Refusal {
    let reason = format!("{what}: {error}");
    match Errno::from_io_error(error) {
        Some(Errno::BUSY | Errno::NODEV) => Refusal::of_all(reason),
        _ => Refusal::of_one(reason),
    }
}

fn device(index: u32) -> Result<Device, String> {
    Device::new(index as usize).map_err(|error| match error.kind() {
        // The file's mode allows it. A service may open the kinds of devices that the system knew when it started.
        io::ErrorKind::PermissionDenied => {
            "the service's sandbox does not let it be opened: `systemctl restart ternwatch`".into()
        }
        _ => error.to_string(),
    })
}

fn four_letters(encoding: Encoding) -> FourCC {
    let named = UNDERSTOOD.iter().find(|(_, known)| *known == encoding);
    let (letters, _) = named.expect("every encoding has a name");
    FourCC::new(letters)
}

/// A stream whose first frame can be waited for. The library hands a buffer back to the driver before it takes the next one, at the
/// beginning the first: the driver gets the others here.
fn started(device: &Device) -> io::Result<Stream<'static>> {
    let mut stream = Stream::with_buffers(device, Type::VideoCapture, BUFFERS)?;
    for index in 1..BUFFERS as usize {
        match CaptureStream::queue(&mut stream, index) {
            // It gave fewer than it was asked for.
            Err(_) if index > 1 => break,
            queued => queued?,
        }
    }
    stream.start()?;
    Ok(stream)
}

fn offers_of(device: &Device, wanted: &Wanted) -> Vec<Offer> {
    let described = device.enum_formats().unwrap_or_default();
    let mut offers = Vec::new();
    for (letters, encoding) in UNDERSTOOD {
        let fourcc = FourCC::new(&letters);
        if !described.iter().any(|format| format.fourcc == fourcc) {
            continue;
        }
        for (width, height) in sizes(device, fourcc, wanted) {
            for interval in intervals(device, fourcc, (width, height), wanted) {
                offers.push(Offer {
                    width,
                    height,
                    interval,
                    encoding,
                });
            }
        }
    }
    offers
}

/// Drivers that do not list their sizes have the one that is set.
fn sizes(device: &Device, fourcc: FourCC, wanted: &Wanted) -> Vec<(u32, u32)> {
    let Ok(listed) = device.enum_framesizes(fourcc) else {
        let present = device.format();
        return present.iter().map(|f| (f.width, f.height)).collect();
    };
    let sizes = listed.into_iter().map(|listed| match listed.size {
        FrameSizeEnum::Discrete(size) => (size.width, size.height),
        FrameSizeEnum::Stepwise(s) => (
            format::nearest_side((s.min_width, s.max_width), s.step_width, wanted.width),
            format::nearest_side((s.min_height, s.max_height), s.step_height, wanted.height),
        ),
    });
    sizes.collect()
}

/// Drivers that do not list their rates have the one that is set.
fn intervals(
    device: &Device,
    fourcc: FourCC,
    (width, height): (u32, u32),
    wanted: &Wanted,
) -> Vec<Interval> {
    let Ok(listed) = device.enum_frameintervals(fourcc, width, height) else {
        let present = device.params().map(|p| interval(p.interval));
        return vec![present.unwrap_or(wanted.interval())];
    };
    let intervals = listed.into_iter().map(|listed| match listed.interval {
        FrameIntervalEnum::Discrete(one) => interval(one),
        FrameIntervalEnum::Stepwise(range) => wanted
            .interval()
            .within(interval(range.min), interval(range.max)),
    });
    intervals.collect()
}

fn interval(fraction: Fraction) -> Interval {
    Interval {
        numerator: fraction.numerator,
        denominator: fraction.denominator,
    }
}
