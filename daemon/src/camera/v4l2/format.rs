//! Which of the formats that a camera offers to take.

use std::fmt;

/// How a camera's bytes are arranged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Y0 U Y1 V: two pixels in four bytes.
    #[default]
    Yuyv,
    /// A plane of luma, then one of alternating U and V at half the size.
    Nv12,
    /// A JPEG file a frame.
    Mjpeg,
}

/// Time from a frame to the next: a fraction of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Above the line.
    pub numerator: u32,
    /// Below the line.
    pub denominator: u32,
}

impl Interval {
    /// Frames in a thousand seconds; 0 where it is no fraction.
    fn rate(self) -> u64 {
        let frames = 1000 * u64::from(self.denominator);
        frames.checked_div(u64::from(self.numerator)).unwrap_or(0)
    }

    /// The nearest one from `min` to `max`.
    pub fn within(self, min: Self, max: Self) -> Self {
        if self.rate() > min.rate() {
            min
        } else if self.rate() < max.rate() {
            max
        } else {
            self
        }
    }
}

impl Default for Interval {
    /// A second.
    fn default() -> Self {
        Self {
            numerator: 1,
            denominator: 1,
        }
    }
}

/// One format that a camera offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// From a frame to the next.
    pub interval: Interval,
    /// How the bytes are arranged.
    pub encoding: Encoding,
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} {}x{} at {}/s",
            self.encoding,
            self.width,
            self.height,
            (self.interval.rate() as f64 / 10.0).round() / 100.0
        )
    }
}

/// How a stream's frames lie in the driver's buffers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout {
    /// What was chosen.
    pub offer: Offer,
    /// Bytes from a line to the next, of uncompressed formats; 0: as many as the line has.
    pub line_bytes: usize,
}

/// What the configuration asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Frames a second.
    pub frames_per_second: u32,
}

impl Wanted {
    /// From a frame to the next.
    pub fn interval(&self) -> Interval {
        Interval {
            numerator: 1,
            denominator: self.frames_per_second,
        }
    }
}

/// The side nearest to the wanted one, of a camera whose sides go from `min` to `max` in steps of `step` pixels.
pub fn nearest_side((min, max): (u32, u32), step: u32, wanted: u32) -> u32 {
    let wanted = wanted.min(max).max(min);
    let below = wanted - (wanted - min) % step.max(1);
    let above = below.saturating_add(step);
    if above <= max && above - wanted < wanted - below {
        above
    } else {
        below
    }
}

/// The offers that can be used, the nearest to what is wanted first: by size, then by rate (rather too fast than too slow), then
/// uncompressed before MJPEG, which costs a decoding a frame.
pub fn ranked(offers: &[Offer], wanted: &Wanted) -> Vec<Offer> {
    let mut usable: Vec<Offer> = offers.iter().copied().filter(is_usable).collect();
    usable.sort_by_key(|offer| {
        let size = u64::from(offer.width.abs_diff(wanted.width))
            + u64::from(offer.height.abs_diff(wanted.height));
        let (rate, rate_wanted) = (offer.interval.rate(), wanted.interval().rate());
        let too_slow = rate_wanted.saturating_sub(rate);
        let compressed = offer.encoding == Encoding::Mjpeg;
        let too_fast = rate.saturating_sub(rate_wanted);
        (size, too_slow, compressed, too_fast)
    });
    usable
}

/// Why a camera does not deliver in a format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For people.
    pub reason: String,
    /// Whether it would say so of any format.
    is_of_all: bool,
}

impl Refusal {
    /// Of this format; another one may do.
    pub fn of_one(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            is_of_all: false,
        }
    }

    /// Of whatever it is asked for.
    pub fn of_all(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            is_of_all: true,
        }
    }
}

/// What the first of the offers gives that can be started, and why the nearest could not if it is another. A camera may list what it
/// refuses, or what there is no room for on a bus that it shares. If none can be started, the reason is that of the nearest, or why it
/// makes no sense to go on.
pub fn first_that_starts<T>(
    offers: &[Offer],
    mut start: impl FnMut(Offer) -> Result<T, Refusal>,
) -> Result<(T, Option<String>), String> {
    let mut nearest = None;
    for offer in offers {
        match start(*offer) {
            Ok(started) => return Ok((started, nearest)),
            Err(refusal) if refusal.is_of_all => return Err(refusal.reason),
            Err(refusal) => {
                nearest.get_or_insert(refusal.reason);
            }
        }
    }
    Err(nearest.unwrap_or_else(|| "it offers nothing".into()))
}

fn is_usable(offer: &Offer) -> bool {
    let sides = [offer.width, offer.height];
    let even = match offer.encoding {
        Encoding::Yuyv => offer.width.is_multiple_of(2),
        Encoding::Nv12 => offer.width.is_multiple_of(2) && offer.height.is_multiple_of(2),
        Encoding::Mjpeg => true,
    };
    even && offer.interval.rate() > 0
        && sides
            .iter()
            .all(|side| (2..=crate::camera::SIDE_MAX).contains(side))
}

#[cfg(test)]
mod tests {
    use super::Encoding::{Mjpeg, Nv12, Yuyv};
    use super::*;

    fn offer(encoding: Encoding, width: u32, height: u32, frames_per_second: u32) -> Offer {
        Offer {
            width,
            height,
            interval: Interval {
                numerator: 1,
                denominator: frames_per_second,
            },
            encoding,
        }
    }

    fn choose(offers: &[Offer], wanted: &Wanted) -> Option<Offer> {
        ranked(offers, wanted).first().copied()
    }

    const VGA_15: Wanted = Wanted {
        width: 640,
        height: 480,
        frames_per_second: 15,
    };

    #[test]
    fn the_first_offer_is_not_taken_just_because_it_is_first() {
        // What a loopback device listed first, and a library took: 320x180 at 1 frame/s.
        let offers = [
            offer(Yuyv, 320, 180, 1),
            offer(Yuyv, 640, 480, 30),
            offer(Mjpeg, 1920, 1080, 30),
        ];
        assert_eq!(choose(&offers, &VGA_15), Some(offers[1]));
    }

    #[test]
    fn an_uncompressed_format_is_preferred_if_it_is_fast_enough() {
        let offers = [
            offer(Mjpeg, 640, 480, 15),
            offer(Yuyv, 640, 480, 30),
            offer(Nv12, 640, 480, 20),
        ];
        assert_eq!(choose(&offers, &VGA_15), Some(offers[2]));
        let slow = [offer(Yuyv, 640, 480, 5), offer(Mjpeg, 640, 480, 30)];
        assert_eq!(choose(&slow, &VGA_15), Some(slow[1]));
    }

    #[test]
    fn the_nearest_size_and_the_least_shortfall_win() {
        let offers = [
            offer(Yuyv, 1280, 720, 15),
            offer(Yuyv, 800, 600, 10),
            offer(Yuyv, 800, 600, 12),
            offer(Yuyv, 160, 120, 30),
        ];
        assert_eq!(choose(&offers, &VGA_15), Some(offers[2]));
    }

    #[test]
    fn unusable_offers_are_no_offers() {
        let offers = [
            offer(Yuyv, 641, 480, 15),
            offer(Nv12, 640, 481, 15),
            offer(Yuyv, 640, 480, 0),
            offer(Mjpeg, 10_000, 480, 15),
        ];
        assert_eq!(choose(&offers, &VGA_15), None);
        assert_eq!(choose(&[], &VGA_15), None);
    }

    #[test]
    fn a_format_that_does_not_start_gives_way_to_the_next() {
        let ranked = ranked(
            &[
                offer(Mjpeg, 640, 480, 15),
                offer(Yuyv, 320, 240, 15),
                offer(Yuyv, 640, 480, 15),
                offer(Yuyv, 641, 480, 15),
            ],
            &VGA_15,
        );
        assert_eq!(ranked.len(), 3, "one cannot be used");
        let mut asked = Vec::new();
        let started = first_that_starts(&ranked, |offer| {
            asked.push(offer);
            match offer.encoding {
                Yuyv => Err(Refusal::of_one("no room on the bus")),
                _ => Ok(offer),
            }
        });
        let expected = (
            offer(Mjpeg, 640, 480, 15),
            Some("no room on the bus".into()),
        );
        assert_eq!(started, Ok(expected));
        assert_eq!(asked, ranked[..2]);
        let none: Result<((), _), _> =
            first_that_starts(&ranked, |offer| Err(Refusal::of_one(offer.to_string())));
        assert_eq!(none, Err(ranked[0].to_string()), "the nearest is named");
        let mut asked = 0;
        let busy: Result<((), _), _> = first_that_starts(&ranked, |_| {
            asked += 1;
            Err(Refusal::of_all("busy"))
        });
        assert_eq!((busy, asked), (Err("busy".into()), 1));
    }

    #[test]
    fn a_rate_is_a_fraction() {
        let at = |encoding, numerator, denominator| Offer {
            interval: Interval {
                numerator,
                denominator,
            },
            ..offer(encoding, 640, 480, 1)
        };
        // 7.5, not 15.
        let offers = [
            at(Yuyv, 2, 15),
            at(Mjpeg, 1, 15),
            at(Yuyv, 1, 0),
            at(Yuyv, 0, 15),
        ];
        assert_eq!(choose(&offers, &VGA_15), Some(offers[1]));
        assert_eq!(choose(&offers[..1], &VGA_15), Some(offers[0]));
        assert_eq!(choose(&offers[2..], &VGA_15), None);
        let shown = |offer: Offer| offer.to_string();
        assert_eq!(shown(offers[0]), "Yuyv 640x480 at 7.5/s");
        assert_eq!(shown(at(Mjpeg, 1001, 30_000)), "Mjpeg 640x480 at 29.97/s");
    }

    #[test]
    fn of_a_range_the_nearest_is_taken() {
        assert_eq!(nearest_side((16, 1280), 16, 640), 640);
        assert_eq!(nearest_side((16, 1280), 16, 650), 656);
        assert_eq!(nearest_side((16, 1280), 16, 645), 640);
        assert_eq!(nearest_side((320, 1270), 64, 5000), 1216);
        assert_eq!(nearest_side((320, 1280), 0, 33), 320);
        assert_eq!(
            nearest_side((9, 3), 1, 5),
            9,
            "no range: what it begins with"
        );
        assert_eq!(
            nearest_side((0, u32::MAX), u32::MAX, u32::MAX - 1),
            u32::MAX
        );
        let of = |numerator, denominator| Interval {
            numerator,
            denominator,
        };
        let (fast, slow) = (of(1, 30), of(1, 5));
        assert_eq!(of(1, 15).within(fast, slow), of(1, 15));
        assert_eq!(of(1, 60).within(fast, slow), fast);
        assert_eq!(of(2, 1).within(fast, slow), slow);
    }
}
