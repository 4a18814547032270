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

/// One format that a camera offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Frames a second.
    pub frames_per_second: u32,
    /// How the bytes are arranged.
    pub encoding: Encoding,
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} {}x{} at {}/s",
            self.encoding, self.width, self.height, self.frames_per_second
        )
    }
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

/// The offer nearest to what is wanted: first by size, then by rate (rather too fast than too slow), then uncompressed
/// before MJPEG, which costs a decoding a frame. `None` if no offer can be used.
pub fn choose(offers: &[Offer], wanted: &Wanted) -> Option<Offer> {
    offers
        .iter()
        .filter(|offer| is_usable(offer))
        .min_by_key(|offer| {
            let size = offer.width.abs_diff(wanted.width) as u64
                + u64::from(offer.height.abs_diff(wanted.height));
            let too_slow = wanted
                .frames_per_second
                .saturating_sub(offer.frames_per_second);
            let compressed = offer.encoding == Encoding::Mjpeg;
            let too_fast = offer
                .frames_per_second
                .saturating_sub(wanted.frames_per_second);
            (size, too_slow, compressed, too_fast)
        })
        .copied()
}

fn is_usable(offer: &Offer) -> bool {
    let sides = [offer.width, offer.height];
    let even = match offer.encoding {
        Encoding::Yuyv => offer.width.is_multiple_of(2),
        Encoding::Nv12 => offer.width.is_multiple_of(2) && offer.height.is_multiple_of(2),
        Encoding::Mjpeg => true,
    };
    even && offer.frames_per_second > 0
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
            frames_per_second,
            encoding,
        }
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
}
