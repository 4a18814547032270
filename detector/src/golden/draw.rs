//! Draws the golden frames.
//!
//! Takes a seed and a size, gives an RGB8 picture whose statistics resemble a photograph's, so that every layer of a
//! detector has something to do: brightness of many scales, a little colour, and objects with edges, some of them
//! tall as people are. Integers only. docs/bundle-format.md specifies each step, so that others can draw the same.

/// Pixels between two random values, as powers of two, and the weight of each such octave of brightness.
const BRIGHTNESS_OCTAVES: [(u32, i32); 7] =
    [(7, 40), (6, 40), (5, 32), (4, 24), (3, 16), (2, 12), (1, 8)];
/// The same of red and blue, which are added to the brightness.
const COLOUR_OCTAVES: [(u32, i32); 3] = [(6, 24), (5, 12), (3, 6)];
/// A deviation is divided by two to this power.
const CONTRAST_SHIFT: u32 = 6;
/// Objects in a picture.
const SHAPES: u64 = 24;

/// The RGB8 frame of this seed and size: `3 * width * height` bytes.
pub fn draw(seed: u64, width: u32, height: u32) -> Vec<u8> {
    let mut picture = Vec::with_capacity(3 * width as usize * height as usize);
    for y in 0..height {
        for x in 0..width {
            let brightness = 128 + noise(seed, 0, &BRIGHTNESS_OCTAVES, x, y);
            let red = brightness + noise(seed, 1, &COLOUR_OCTAVES, x, y);
            let blue = brightness + noise(seed, 2, &COLOUR_OCTAVES, x, y);
            picture.extend([red, brightness, blue].map(to_byte));
        }
    }
    let mut random = Random(mix(seed ^ 0x7465_726e_7761_7463));
    for _ in 0..SHAPES {
        Shape::random(&mut random, width, height).paint(&mut picture, width, height);
    }
    picture
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// 0 to `bound - 1`.
    fn below(&mut self, bound: u32) -> i32 {
        (((self.next() >> 32) * u64::from(bound)) >> 32) as i32
    }
}

/// The output function of SplitMix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Sum of the octaves' deviations from their middle.
fn noise(seed: u64, plane: u64, octaves: &[(u32, i32)], x: u32, y: u32) -> i32 {
    let sum: i32 = octaves
        .iter()
        .map(|&(octave, weight)| weight * (octave_noise(seed, plane, octave, x, y) - 128))
        .sum();
    sum >> CONTRAST_SHIFT
}

/// 0 to 255: random at every `2^octave`-th pixel and row, bilinear between.
fn octave_noise(seed: u64, plane: u64, octave: u32, x: u32, y: u32) -> i32 {
    let cell = 1 << octave;
    let (column, row) = (x >> octave, y >> octave);
    let (right, below) = ((x & (cell - 1)) as i32, (y & (cell - 1)) as i32);
    let (left, above) = (cell as i32 - right, cell as i32 - below);
    let corner = |column: u32, row: u32| {
        let place =
            plane << 56 | u64::from(octave) << 48 | u64::from(row) << 24 | u64::from(column);
        (mix(seed.wrapping_add(mix(place))) >> 56) as i32
    };
    let sum = above * (left * corner(column, row) + right * corner(column + 1, row))
        + below * (left * corner(column, row + 1) + right * corner(column + 1, row + 1));
    sum >> (2 * octave)
}

fn to_byte(value: i32) -> u8 {
    value.clamp(0, 255) as u8
}

enum Outline {
    Rectangle,
    Ellipse,
}

/// One object: an outline, its colour and a texture of diagonal stripes and grain.
struct Shape {
    outline: Outline,
    centre: [i32; 2],
    /// Half of the width and of the height.
    radius: [i32; 2],
    colour: [i32; 3],
    stripe_period: i32,
    stripe_depth: i32,
    grain_seed: u64,
    grain_depth: i32,
}

impl Shape {
    /// Draws the fields in this order.
    fn random(random: &mut Random, width: u32, height: u32) -> Self {
        let outline = if random.below(2) == 0 {
            Outline::Rectangle
        } else {
            Outline::Ellipse
        };
        let centre = [random.below(width), random.below(height)];
        let half_height = 2 + random.below(height.div_ceil(4));
        // Mostly tall: a quarter as wide as high, as a standing person is, up to a little wider than high.
        let half_width = ((half_height * (16 + random.below(64))) >> 6).max(1);
        let brightness = random.below(256);
        Self {
            outline,
            centre,
            radius: [half_width, half_height],
            colour: [(); 3].map(|()| brightness + random.below(128) - 64),
            stripe_period: 2 + random.below(15),
            stripe_depth: random.below(64),
            grain_seed: random.next(),
            grain_depth: random.below(48),
        }
    }

    fn paint(&self, picture: &mut [u8], width: u32, height: u32) {
        let [[x, y], [half_width, half_height]] = [self.centre, self.radius];
        for row in (y - half_height).max(0)..=(y + half_height).min(height as i32 - 1) {
            for column in (x - half_width).max(0)..=(x + half_width).min(width as i32 - 1) {
                if self.covers(column, row) {
                    let at = 3 * (row as usize * width as usize + column as usize);
                    picture[at..at + 3].copy_from_slice(&self.pixel(column, row));
                }
            }
        }
    }

    /// Whether the outline encloses a pixel of the bounding rectangle.
    fn covers(&self, x: i32, y: i32) -> bool {
        match self.outline {
            Outline::Rectangle => true,
            Outline::Ellipse => {
                // (dx / rx)^2 + (dy / ry)^2 <= 1, without divisions.
                let [dx, dy] = [x - self.centre[0], y - self.centre[1]].map(i64::from);
                let [rx, ry] = self.radius.map(i64::from);
                dx * dx * ry * ry + dy * dy * rx * rx <= rx * rx * ry * ry
            }
        }
    }

    fn pixel(&self, x: i32, y: i32) -> [u8; 3] {
        let is_dark = (x + y).div_euclid(self.stripe_period) % 2 == 0;
        let stripe = if is_dark {
            -self.stripe_depth
        } else {
            self.stripe_depth
        };
        let place = (y as u64) << 32 | x as u64;
        let grain = (mix(self.grain_seed.wrapping_add(place)) >> 56) as i32 - 128;
        let offset = stripe / 2 + ((grain * self.grain_depth) >> 7);
        self.colour.map(|colour| to_byte(colour + offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn the_generator_never_changes() {
        let digest = |seed, width, height| {
            ternwatch_bundle::hex::encode(&Sha256::digest(draw(seed, width, height))[..8])
        };
        // Golden vectors in signed bundles depend on these; computed by another program from the specification.
        assert_eq!(digest(1, 64, 48), "097add5128d10fb9");
        assert_eq!(digest(u64::MAX, 97, 33), "c880164851acfca3");
    }

    #[test]
    fn pictures_have_contrast_in_every_channel_and_at_edges() {
        for seed in 0..8 {
            let picture = draw(seed, 160, 120);
            for channel in 0..3 {
                let values: Vec<f64> = picture
                    .iter()
                    .skip(channel)
                    .step_by(3)
                    .map(|&v| f64::from(v))
                    .collect();
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>()
                    / values.len() as f64)
                    .sqrt();
                let steps = values.windows(2).map(|pair| (pair[1] - pair[0]).abs());
                assert!(
                    (60.0..200.0).contains(&mean),
                    "seed {seed} channel {channel}: mean {mean}"
                );
                assert!(
                    (30.0..90.0).contains(&deviation),
                    "seed {seed} channel {channel}: deviation {deviation}"
                );
                assert!(
                    steps.filter(|&step| step > 40.0).count() > 50,
                    "seed {seed} channel {channel}: no edges"
                );
            }
        }
    }

    #[test]
    fn smallest_and_odd_sizes_are_drawn() {
        for (width, height) in [(2, 2), (2, 301), (301, 2), (33, 47)] {
            assert_eq!(
                draw(5, width, height).len(),
                3 * width as usize * height as usize
            );
        }
    }
}
