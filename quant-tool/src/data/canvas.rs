//! A sample while it is drawn: its pixels, the boxes in it, and what is done to its colours.

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder, ImageFormat};

use super::augment::{Config, Target, between};
use super::xyxy;

/// Largest side of a covered rectangle, as a part of the view's.
const CUT_OUT_MAX: f32 = 0.35;
/// Greatest logarithm of the power that all channels of a view are bent by, up or down, and what each channel may have more.
const POWERS: [f32; 2] = [0.7, 0.3];
/// Sides of random convolutions, in pixels.
const TEXTURE_SIDES: [usize; 3] = [1, 3, 5];
/// How far a point out of focus or in motion spreads to either side, in pixels.
const SPREADS: [usize; 2] = [1, 2];
/// JPEG qualities, from poor to that of a good camera.
const QUALITIES: std::ops::RangeInclusive<u8> = 15..=85;

/// A linear change of colours: saturation, then gain and offset a channel.
pub(super) struct Colour {
    saturation: f32,
    gain: [f32; 3],
    offset: f32,
}

impl Colour {
    pub(super) fn draw(rng: &mut fastrand::Rng, config: &Config) -> Self {
        let saturation = match rng.f32() {
            q if q < config.grey => 0.0,
            q if q < config.grey + 0.25 => between(rng, 0.3, 1.6),
            _ => 1.0,
        };
        let light = between(rng, config.light[0], config.light[1]);
        let cast = if rng.bool() { 0.2 } else { 0.0 };
        let gain = [(); 3].map(|()| light * between(rng, 1.0 - cast, 1.0 + cast));
        Self {
            saturation,
            gain,
            offset: between(rng, -0.15, 0.15) * 255.0,
        }
    }

    pub(super) fn apply(&self, rgb: [f32; 3]) -> [f32; 3] {
        let grey = (rgb[0] + rgb[1] + rgb[2]) / 3.0;
        let mut out = rgb;
        for (v, gain) in out.iter_mut().zip(self.gain) {
            *v = (grey + (*v - grey) * self.saturation) * gain + self.offset;
        }
        out
    }
}

pub(super) struct Canvas {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) rgb: Vec<f32>,
    pub(super) boxes: Vec<Target>,
}

impl Canvas {
    /// Covers a random rectangle of a part with one colour; left, top, right, bottom within the part.
    pub(super) fn cover(
        &mut self,
        rng: &mut fastrand::Rng,
        [x0, y0, w, h]: [usize; 4],
    ) -> [f32; 4] {
        let mut side = |all: usize| {
            let length = (all as f32 * CUT_OUT_MAX * rng.f32()) as usize;
            let start = rng.usize(0..=all - length);
            (start, start + length)
        };
        let ((left, right), (top, bottom)) = (side(w), side(h));
        let rgb = [(); 3].map(|()| rng.f32() * 255.0);
        for y in y0 + top..y0 + bottom {
            let row = (y * self.width + x0 + left) * 3..(y * self.width + x0 + right) * 3;
            for pixel in self.rgb[row].chunks_exact_mut(3) {
                pixel.copy_from_slice(&rgb);
            }
        }
        [left, top, right, bottom].map(|v| v as f32)
    }

    /// Bends the colours of a part: a power of each channel, which keeps black and white, and a random order of the channels.
    pub(super) fn recolour(&mut self, rng: &mut fastrand::Rng, part: [usize; 4]) {
        let [all, each] = POWERS;
        let common = between(rng, -all, all);
        let powers = [(); 3].map(|()| (common + between(rng, -each, each)).exp());
        let mut order = [0, 1, 2];
        if rng.bool() {
            rng.shuffle(&mut order);
        }
        self.each_pixel(part, |rgb| {
            let bent: [f32; 3] = std::array::from_fn(|c| {
                let value = rgb[order[c]].clamp(0.0, 255.0) / 255.0;
                value.powf(powers[c]) * 255.0
            });
            rgb.copy_from_slice(&bent);
        });
    }

    /// Mixes a part with what a random convolution makes of it, which gets the part's own mean and deviation.
    pub(super) fn texture(&mut self, rng: &mut fastrand::Rng, part: [usize; 4]) {
        if part[2] == 0 || part[3] == 0 {
            return;
        }
        let texture = Texture::draw(rng);
        let share = rng.f32();
        let seen = texture.apply(self, part);
        let mut before = Vec::with_capacity(seen.len());
        self.each_pixel(part, |rgb| before.extend_from_slice(rgb));
        let ((mean, deviation), (own_mean, own_deviation)) = (spread(&seen), spread(&before));
        let gain = own_deviation / deviation.max(1e-3);
        let mut seen = seen.chunks_exact(3);
        self.each_pixel(part, |rgb| {
            for (value, seen) in rgb.iter_mut().zip(seen.next().into_iter().flatten()) {
                let seen = (seen - mean) * gain + own_mean;
                *value = *value * (1.0 - share) + seen * share;
            }
        });
    }

    /// Spreads every point of a part along the rows (motion), the columns, or both (out of focus).
    pub(super) fn defocus(&mut self, rng: &mut fastrand::Rng, part: [usize; 4]) {
        if part[2] == 0 || part[3] == 0 {
            return;
        }
        let reach = SPREADS[rng.usize(0..SPREADS.len())];
        let (along, down) = [(reach, 0), (0, reach), (reach, reach)][rng.usize(0..3)];
        let planes = self.padded(part, reach);
        let stride = part[2] + 2 * reach;
        let taps = ((2 * along + 1) * (2 * down + 1)) as f32;
        let mut pixel = 0;
        self.each_pixel(part, |rgb| {
            let (x, y) = (pixel % part[2] + reach, pixel / part[2] + reach);
            for (value, plane) in rgb.iter_mut().zip(&planes) {
                let rows = (y - down..=y + down).map(|y| &plane[y * stride + x - along..]);
                *value = rows.flat_map(|row| &row[..=2 * along]).sum::<f32>() / taps;
            }
            pixel += 1;
        });
    }

    /// Compresses the sample as JPEG, and reads it again.
    pub(super) fn compress(&mut self, rng: &mut fastrand::Rng) {
        let quality = rng.u8(QUALITIES);
        let bytes: Vec<u8> = self.rgb.iter().map(|v| v.clamp(0.0, 255.0) as u8).collect();
        let (width, height) = (self.width as u32, self.height as u32);
        let mut file = Vec::new();
        let encoder = JpegEncoder::new_with_quality(&mut file, quality);
        let written = encoder.write_image(&bytes, width, height, ExtendedColorType::Rgb8);
        let read =
            written.and_then(|()| image::load_from_memory_with_format(&file, ImageFormat::Jpeg));
        // What cannot be compressed, a side of more than 65,535 pixels, stays as it is.
        if let Ok(image) = read {
            let pixels = image.into_rgb8().into_raw();
            self.rgb
                .iter_mut()
                .zip(pixels)
                .for_each(|(v, byte)| *v = f32::from(byte));
        }
    }

    fn each_pixel(&mut self, [x0, y0, w, h]: [usize; 4], mut change: impl FnMut(&mut [f32])) {
        for y in y0..y0 + h {
            let row = (y * self.width + x0) * 3..(y * self.width + x0 + w) * 3;
            self.rgb[row].chunks_exact_mut(3).for_each(&mut change);
        }
    }

    /// The colours of a part as planes, with so many more pixels on every side, which are as the border.
    fn padded(&self, [x0, y0, w, h]: [usize; 4], reach: usize) -> [Vec<f32>; 3] {
        let len = (w + 2 * reach) * (h + 2 * reach);
        let mut planes = [(); 3].map(|()| Vec::with_capacity(len));
        for y in (0..h + 2 * reach).map(|y| y0 + y.saturating_sub(reach).min(h - 1)) {
            for x in (0..w + 2 * reach).map(|x| x0 + x.saturating_sub(reach).min(w - 1)) {
                let rgb = &self.rgb[(y * self.width + x) * 3..][..3];
                planes
                    .iter_mut()
                    .zip(rgb)
                    .for_each(|(plane, &v)| plane.push(v));
            }
        }
        planes
    }

    /// Drops the boxes of which a part (x, y, width, height) leaves too little to be seen.
    pub(super) fn hide(&mut self, part: [usize; 4]) {
        let [x, y, w, h] = part.map(|v| v as f32);
        self.boxes.retain(|target| {
            let all = xyxy::area(&target.xyxy);
            let hidden = xyxy::intersection(&target.xyxy, &[x, y, x + w, y + h]);
            all - hidden > target.least().0 * all
        });
    }

    /// Planar u7 values / 127, as the detector's preprocessing gives them.
    pub(super) fn planes(&self) -> Vec<f32> {
        let pixels = self.width * self.height;
        let mut planes = vec![0.0; 3 * pixels];
        for (i, rgb) in self.rgb.chunks_exact(3).enumerate() {
            for c in 0..3 {
                let byte = rgb[c].clamp(0.0, 255.0) as u8;
                planes[c * pixels + i] = f32::from(byte >> 1) / 127.0;
            }
        }
        planes
    }
}

/// A convolution of random weights from colours to colours.
struct Texture {
    side: usize,
    /// `[3, side, side, 3]`: colour that comes out, row, column, colour that goes in.
    weights: Vec<f32>,
}

impl Texture {
    fn draw(rng: &mut fastrand::Rng) -> Self {
        let side = TEXTURE_SIDES[rng.usize(0..TEXTURE_SIDES.len())];
        let weight = |_| rng.f32() + rng.f32() + rng.f32() - 1.5;
        let weights = (0..3 * side * side * 3).map(weight).collect();
        Self { side, weights }
    }

    /// `[height, width, 3]` of a part; what lies beyond its border is as the border.
    fn apply(&self, canvas: &Canvas, part: [usize; 4]) -> Vec<f32> {
        let [_, _, width, height] = part;
        let planes = canvas.padded(part, self.side / 2);
        let stride = width + self.side - 1;
        let mut out = vec![0.0f32; height * width * 3];
        let mut sums = vec![0.0f32; width];
        for y in 0..height {
            for (to, weights) in self
                .weights
                .chunks_exact(self.side * self.side * 3)
                .enumerate()
            {
                sums.fill(0.0);
                for (i, weight) in weights.iter().enumerate() {
                    let (from, kx, ky) = (i % 3, i / 3 % self.side, i / 3 / self.side);
                    let row = &planes[from][(y + ky) * stride + kx..][..width];
                    sums.iter_mut()
                        .zip(row)
                        .for_each(|(sum, v)| *sum += weight * v);
                }
                let row = out[y * width * 3..][..width * 3].iter_mut();
                row.skip(to)
                    .step_by(3)
                    .zip(&sums)
                    .for_each(|(v, sum)| *v = *sum);
            }
        }
        out
    }
}

/// Mean and standard deviation.
fn spread(values: &[f32]) -> (f32, f32) {
    let count = values.len().max(1) as f32;
    let mean = values.iter().sum::<f32>() / count;
    let squares: f32 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    (mean, (squares / count).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: [usize; 4] = [3, 2, 20, 9];

    fn is_in_part(pixel: usize, width: usize) -> bool {
        let (x, y) = (pixel % width, pixel / width);
        (PART[0]..PART[0] + PART[2]).contains(&x) && (PART[1]..PART[1] + PART[3]).contains(&y)
    }

    /// Grey noise over a slope, between black and white.
    fn canvas() -> Canvas {
        let mut rng = fastrand::Rng::with_seed(3);
        let (width, height) = (31, 17);
        let pixel = |i: usize| {
            let noise = rng.f32() * 40.0;
            [noise, 100.0 + noise, (i % width) as f32 * 5.0 + noise]
        };
        Canvas {
            width,
            height,
            rgb: (0..width * height).flat_map(pixel).collect(),
            boxes: Vec::new(),
        }
    }

    #[test]
    fn bent_colours_keep_black_and_white_and_the_rest_of_the_sample() {
        for seed in 0..20 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let before = canvas();
            let mut after = canvas();
            let at = |x: usize, y: usize| (y * after.width + x) * 3;
            let (black, white) = (at(4, 4), at(5, 4));
            after.rgb[black..black + 3].fill(0.0);
            after.rgb[white..white + 3].fill(255.0);
            after.recolour(&mut rng, PART);
            assert_eq!(after.rgb[black..black + 3], [0.0; 3]);
            assert_eq!(after.rgb[white..white + 3], [255.0; 3]);
            let pixels = before.rgb.chunks_exact(3).zip(after.rgb.chunks_exact(3));
            for (i, (before, after)) in pixels.enumerate() {
                assert!(is_in_part(i, 31) || before == after, "pixel {i}");
                assert!(after.iter().all(|v| (0.0..=255.0).contains(v)), "{after:?}");
            }
        }
    }

    #[test]
    fn a_texture_keeps_the_mean_of_its_part_and_the_rest_of_the_sample() {
        let part = |canvas: &Canvas| -> Vec<f32> {
            let pixels = canvas.rgb.chunks_exact(3).enumerate();
            let pixels = pixels.filter(|(i, _)| is_in_part(*i, 31));
            pixels.flat_map(|(_, rgb)| rgb.to_vec()).collect()
        };
        for seed in 0..20 {
            let before = canvas();
            let mut after = canvas();
            after.texture(&mut fastrand::Rng::with_seed(seed), PART);
            let (old, new) = (spread(&part(&before)), spread(&part(&after)));
            assert!((old.0 - new.0).abs() < 0.05, "{old:?} {new:?}");
            assert!(new.1 < 1.001 * old.1, "a mixture spreads no further");
            let pixels = before.rgb.chunks_exact(3).zip(after.rgb.chunks_exact(3));
            let outside = pixels.enumerate().filter(|(i, _)| !is_in_part(*i, 31));
            assert!(
                outside
                    .into_iter()
                    .all(|(_, (before, after))| before == after)
            );
            assert_ne!(part(&before), part(&after));
        }
    }

    #[test]
    fn a_point_out_of_focus_spreads_within_its_part() {
        for seed in 0..20 {
            let mut canvas = canvas();
            canvas.rgb.fill(0.0);
            let at = |x: usize, y: usize| (y * 31 + x) * 3;
            canvas.rgb[at(10, 6)] = 90.0;
            canvas.rgb[at(2, 6) + 1] = 90.0;
            canvas.defocus(&mut fastrand::Rng::with_seed(seed), PART);
            let red: f32 = canvas.rgb.iter().step_by(3).sum();
            assert!((red - 90.0).abs() < 1e-3, "{red}");
            assert!(canvas.rgb[at(10, 6)] <= 30.0);
            assert_eq!(canvas.rgb[at(2, 6) + 1], 90.0, "outside of the part");
            assert_eq!(canvas.rgb[at(3, 6) + 1], 0.0, "nothing comes in");
        }
    }

    #[test]
    fn a_compressed_sample_looks_alike() {
        let (before, mut after) = (canvas(), canvas());
        after.compress(&mut fastrand::Rng::with_seed(4));
        let pairs = before.rgb.iter().zip(&after.rgb);
        let error = pairs.map(|(a, b)| (a - b).abs()).sum::<f32>() / before.rgb.len() as f32;
        assert!(error > 1.0 && error < 30.0, "{error}");
    }

    #[test]
    fn a_texture_is_the_convolution_of_its_weights() {
        let canvas = canvas();
        let mut rng = fastrand::Rng::with_seed(9);
        let textures = (0..6).map(|_| Texture::draw(&mut rng));
        for texture in textures {
            let (side, out) = (texture.side, texture.apply(&canvas, PART));
            let at = |x: usize, y: usize, to: usize| -> f32 {
                let offsets = (0..side * side).map(|i| (i % side, i / side));
                let seen = offsets.flat_map(|(kx, ky)| {
                    let within = |v: usize, k: usize, len: usize| {
                        (v + k).saturating_sub(side / 2).min(len - 1)
                    };
                    let (x, y) = (within(x, kx, PART[2]), within(y, ky, PART[3]));
                    let pixel = ((PART[1] + y) * canvas.width + PART[0] + x) * 3;
                    canvas.rgb[pixel..pixel + 3].to_vec()
                });
                let weights = &texture.weights[to * side * side * 3..];
                seen.zip(weights).map(|(v, weight)| v * weight).sum()
            };
            for (i, &value) in out.iter().enumerate() {
                let (pixel, to) = (i / 3, i % 3);
                let expected = at(pixel % PART[2], pixel / PART[2], to);
                assert!((value - expected).abs() < 1e-2, "{value} {expected}");
            }
        }
    }
}
