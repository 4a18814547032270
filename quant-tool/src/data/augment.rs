//! Training samples: photographs in, one augmented image with its boxes out.
//!
//! A sample is a random view of one photograph or a mosaic of four (Bochkovskiy et al. 2020): scale, aspect, position
//! and mirror image, then blur, light, colour, a covered part and noise. It is drawn from a seed alone, so that a resumed run sees what an
//! uninterrupted one would have seen.

use std::collections::BTreeSet;

use anyhow::Result;
use indicatif::ParallelProgressIterator;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::canvas::{Canvas, Colour};
use super::dataset::{Annotation, Dataset};
use super::xyxy;
use crate::tell::note;
use crate::train::check::{BadValue, check};

/// How samples are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How often a source's photographs are drawn, by its name, as a weight of each photograph; 1 where absent.
    #[serde(default)]
    pub source_weights: std::collections::BTreeMap<String, f64>,
    /// Sources whose photographs were stretched: their aspect varies by this factor's logarithm instead of `aspect`.
    #[serde(default)]
    pub stretched: std::collections::BTreeMap<String, f32>,
    /// Probability of a mosaic of four.
    pub mosaic: f32,
    /// Smallest and largest enlargement over "the photograph just fits".
    pub scale: [f32; 2],
    /// Half-range of the logarithm of the aspect change.
    pub aspect: f32,
    /// Probability of a grey image.
    pub grey: f32,
    /// Darkest and brightest light, as a factor.
    pub light: [f32; 2],
    /// Probability of a view with half the photograph's resolution.
    pub blur: f32,
    /// Probability of a view out of focus or in motion.
    #[serde(default)]
    pub defocus: f32,
    /// Probability of a covered rectangle (DeVries and Taylor 2017, "cutout").
    pub cut_out: f32,
    /// Largest standard deviation of the noise, of a range of 1.
    pub noise: f32,
    /// Probability that a sample was compressed as JPEG, of a quality as cameras send it or worse.
    #[serde(default)]
    pub jpeg: f32,
    /// Probability of each of up to three patches: a piece of another photograph is laid over the sample, around somebody
    /// or from anywhere. What a person looks like then tells of neither the place nor the camera.
    #[serde(default)]
    pub patches: f32,
    /// Probability that the colours of a view are bent: a power of each channel, and channels that change places.
    #[serde(default)]
    pub recolour: f32,
    /// Probability that a view is seen through a random convolution (Xu et al. 2021), mixed with the view itself: shapes
    /// stay, colours and textures do not.
    #[serde(default)]
    pub texture: f32,
}

impl Config {
    /// Refuses values out of their range, by their key.
    pub fn check(&self) -> Result<(), BadValue> {
        let probabilities = [
            ("augment.mosaic", self.mosaic),
            ("augment.grey", self.grey),
            ("augment.blur", self.blur),
            ("augment.defocus", self.defocus),
            ("augment.cut_out", self.cut_out),
            ("augment.jpeg", self.jpeg),
            ("augment.patches", self.patches),
            ("augment.recolour", self.recolour),
            ("augment.texture", self.texture),
        ];
        for (key, p) in probabilities {
            check((0.0..=1.0).contains(&p), key, &p, "a probability is 0 to 1")?;
        }
        let [smallest, largest] = self.scale;
        // Below it a whole view would be less than a pixel.
        check(
            (SCALE_MIN..=largest).contains(&smallest) && largest <= 100.0,
            "augment.scale",
            &self.scale,
            "smallest, then largest, 0.05 to 100",
        )?;
        let [darkest, brightest] = self.light;
        check(
            darkest > 0.0 && darkest <= brightest && brightest <= 10.0,
            "augment.light",
            &self.light,
            "darkest, then brightest, above 0, at most 10",
        )?;
        check(
            (0.0..=2.0).contains(&self.aspect),
            "augment.aspect",
            &self.aspect,
            "0 to 2",
        )?;
        check(
            (0.0..=1.0).contains(&self.noise),
            "augment.noise",
            &self.noise,
            "0 to 1",
        )?;
        let weights = &self.source_weights;
        check(
            weights.values().all(|w| (0.0..=1e6).contains(w)),
            "augment.source_weights",
            weights,
            "weights are 0 to 1,000,000",
        )?;
        check(
            self.stretched.values().all(|a| (0.0..=2.0).contains(a)),
            "augment.stretched",
            &self.stretched,
            "0 to 2",
        )
    }

    /// Names of sources that no picture has may be those of other data, or mistakes.
    fn tell_unknown_sources(&self, dataset: &Dataset) {
        let known: BTreeSet<&str> = dataset.images.iter().map(|i| i.source.as_str()).collect();
        let named = self.source_weights.keys().chain(self.stretched.keys());
        let unknown: BTreeSet<&str> = named
            .map(String::as_str)
            .filter(|s| !known.contains(s))
            .collect();
        if !unknown.is_empty() {
            let list = |names: BTreeSet<&str>| names.into_iter().collect::<Vec<_>>().join(", ");
            note!(
                "warning: [augment] speaks of sources that no picture is of: {}; there are: {}",
                list(unknown),
                list(known)
            );
        }
    }
}

/// A decoded photograph of the resolution that the largest view of it needs, with its half-size copy for strong reductions.
struct Photo {
    full: Pixels,
    half: Pixels,
    boxes: Vec<Target>,
    aspect: f32,
}

struct Pixels {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

/// The photographs of a training set in memory.
pub struct Photos {
    photos: Vec<Photo>,
    /// Cumulated weights, the last one is the sum.
    cumulated: Vec<f64>,
    /// The border's grey, as the detector's letterbox has it, 0 to 255.
    border: f32,
    config: Config,
}

/// What a sample shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// Left, top, right, bottom in the sample's pixels.
    pub xyxy: [f32; 4],
    /// Index of its class.
    pub class: u16,
    /// Neither to be found nor to be taken for background.
    pub ignore: bool,
}

/// One training sample.
pub struct Sample {
    /// `[3, height, width]`, u7 values / 127.
    pub image: Vec<f32>,
    /// What there is to find.
    pub boxes: Vec<Target>,
}

/// The least enlargement.
const SCALE_MIN: f32 = 0.05;
/// A box to be found must keep this part of its area inside the view.
const VISIBLE_MIN: f32 = 0.35;
/// And be at least this wide and high, in pixels.
const SIDES_MIN: [f32; 2] = [3.0, 6.0];
/// Patches that a sample has at most.
const PATCHES_MAX: usize = 3;
/// Smallest and largest height of a patch, as a part of the sample's.
const PATCH_HEIGHT: [f32; 2] = [0.12, 0.95];
/// Most that a patch is enlarged.
const PATCH_SCALE_MAX: f32 = 2.5;

impl Target {
    /// The part of its area that has to be in view, and the width and height there, in pixels. What is ignored is kept however
    /// little of it is left: without its box that would be learned as background.
    pub(super) fn least(&self) -> (f32, [f32; 2]) {
        match self.ignore {
            true => (0.0, [0.0; 2]),
            false => (VISIBLE_MIN, SIDES_MIN),
        }
    }
}

impl Photos {
    /// Decodes every image of a training set, for samples of this width and height. `fill` is the u7 grey around them.
    pub fn load(dataset: &Dataset, config: &Config, sample: [usize; 2], fill: u8) -> Result<Self> {
        let bar = crate::progress::bar(dataset.images.len() as u64, "photographs");
        let photos: Vec<Photo> = dataset
            .images
            .par_iter()
            .progress_with(bar)
            .map(|record| {
                let aspect = config
                    .stretched
                    .get(&record.source)
                    .copied()
                    .unwrap_or(config.aspect);
                let largest = sample.map(|side| side as f32 * config.scale[1]);
                Ok(Photo::new(record.decode()?, &record.boxes, aspect, largest))
            })
            .collect::<Result<_>>()?;
        let cumulated: Vec<f64> = dataset
            .images
            .iter()
            .scan(0.0, |sum, record| {
                *sum += config
                    .source_weights
                    .get(&record.source)
                    .copied()
                    .unwrap_or(1.0);
                Some(*sum)
            })
            .collect();
        check(
            cumulated.last().is_some_and(|sum| *sum > 0.0),
            "augment.source_weights",
            &config.source_weights,
            "some picture needs a weight above 0",
        )?;
        config.tell_unknown_sources(dataset);
        Ok(Self {
            photos,
            cumulated,
            border: 2.0 * f32::from(fill),
            config: config.clone(),
        })
    }

    /// Draws one sample of `width` x `height` pixels.
    pub fn sample(&self, rng: &mut fastrand::Rng, width: usize, height: usize) -> Sample {
        let mut canvas = Canvas {
            width,
            height,
            rgb: vec![self.border; 3 * width * height],
            boxes: Vec::new(),
        };
        if rng.f32() < self.config.mosaic {
            let (w, h) = (width / 2, height / 2);
            for (x, y) in [(0, 0), (w, 0), (0, h), (w, h)] {
                self.draw(rng, &mut canvas, [x, y, w, h]);
            }
        } else {
            self.draw(rng, &mut canvas, [0, 0, width, height]);
        }
        for _ in 0..PATCHES_MAX {
            if self.config.patches > 0.0 && rng.f32() < self.config.patches {
                self.patch(rng, &mut canvas);
            }
        }
        self.noise(rng, &mut canvas.rgb);
        if self.config.jpeg > 0.0 && rng.f32() < self.config.jpeg {
            canvas.compress(rng);
        }
        Sample {
            image: canvas.planes(),
            boxes: canvas.boxes,
        }
    }

    fn pick(&self, rng: &mut fastrand::Rng) -> &Photo {
        let goal = rng.f64() * self.cumulated.last().copied().unwrap_or(0.0);
        let index = self.cumulated.partition_point(|&c| c <= goal);
        &self.photos[index.min(self.photos.len() - 1)]
    }

    /// Draws a random view of a random photograph into a part (x, y, width, height) of the canvas.
    fn draw(&self, rng: &mut fastrand::Rng, canvas: &mut Canvas, part: [usize; 4]) {
        let photo = self.pick(rng);
        let (pw, ph) = (photo.full.width as f32, photo.full.height as f32);
        let (w, h) = (part[2] as f32, part[3] as f32);
        let [low, high] = self.config.scale.map(f32::ln);
        let scale = (w / pw).min(h / ph) * between(rng, low, high).exp();
        let [sx, sy] = photo.stretch(rng, scale);
        let place = |rng: &mut fastrand::Rng, room: f32| between(rng, room.min(0.0), room.max(0.0));
        let offset = [place(rng, w - pw * sx), place(rng, h - ph * sy)];
        let view = self.show(rng, photo, ([sx, sy], offset), canvas, part);
        let covered = (rng.f32() < self.config.cut_out).then(|| canvas.cover(rng, part));
        view.boxes(photo, canvas, part, covered);
    }

    /// Lays a piece of a random photograph over the canvas: half of the time with an object of it. Whoever is hidden by it
    /// is no longer to be found.
    fn patch(&self, rng: &mut fastrand::Rng, canvas: &mut Canvas) {
        let photo = self.pick(rng);
        let (pw, ph) = (photo.full.width as f32, photo.full.height as f32);
        let objects: Vec<_> = photo.boxes.iter().filter(|b| !b.ignore).collect();
        let object = rng.choice(objects).filter(|_| rng.bool());
        let [x0, y0, x1, y1] = match object {
            Some(target) => {
                let [x0, y0, x1, y1] = target.xyxy;
                let (w, h) = (x1 - x0, y1 - y0);
                let mut margin = |side: f32| side * between(rng, 0.0, 0.4);
                [
                    x0 - margin(w),
                    y0 - margin(h),
                    x1 + margin(w),
                    y1 + margin(h),
                ]
            }
            None => {
                let h = ph * between(rng, 0.1, 0.6);
                let w = h * between(rng, 0.3, 1.2);
                let (x, y) = (between(rng, 0.0, pw - w), between(rng, 0.0, ph - h));
                [x, y, x + w, y + h]
            }
        };
        let (x0, y0) = (x0.clamp(0.0, pw), y0.clamp(0.0, ph));
        let (w, h) = (x1.clamp(0.0, pw) - x0, y1.clamp(0.0, ph) - y0);
        let [low, high] = PATCH_HEIGHT.map(|part| (part * canvas.height as f32).ln());
        let scale = (between(rng, low, high).exp() / h.max(1.0)).min(PATCH_SCALE_MAX);
        let [sx, sy] = photo.stretch(rng, scale);
        let side = |length: f32, most: usize| (length as usize).min(most);
        let (width, height) = (side(w * sx, canvas.width), side(h * sy, canvas.height));
        let at = [
            rng.usize(0..=canvas.width - width),
            rng.usize(0..=canvas.height - height),
        ];
        let part = [at[0], at[1], width, height];
        let place = ([sx, sy], [-x0 * sx, -y0 * sy]);
        canvas.hide(part);
        let view = self.show(rng, photo, place, canvas, part);
        view.boxes(photo, canvas, part, None);
    }

    /// Draws a photograph of random colours into a part of the canvas, where scale and offset say.
    fn show(
        &self,
        rng: &mut fastrand::Rng,
        photo: &Photo,
        (scale, offset): ([f32; 2], [f32; 2]),
        canvas: &mut Canvas,
        part: [usize; 4],
    ) -> View {
        let view = View {
            scale,
            offset,
            mirrored: rng.bool(),
            blurred: rng.f32() < self.config.blur,
        };
        let colour = Colour::draw(rng, &self.config);
        view.render(photo, &colour, canvas, part);
        if self.config.recolour > 0.0 && rng.f32() < self.config.recolour {
            canvas.recolour(rng, part);
        }
        if self.config.texture > 0.0 && rng.f32() < self.config.texture {
            canvas.texture(rng, part);
        }
        if self.config.defocus > 0.0 && rng.f32() < self.config.defocus {
            canvas.defocus(rng, part);
        }
        view
    }

    fn noise(&self, rng: &mut fastrand::Rng, rgb: &mut [f32]) {
        if rng.f32() >= 0.2 {
            return;
        }
        let deviation = rng.f32() * self.config.noise * 255.0;
        // The sum of three uniform numbers, scaled to a variance of one, is near enough to a normal one.
        rgb.iter_mut()
            .for_each(|v| *v += (rng.f32() + rng.f32() + rng.f32() - 1.5) * 2.0 * deviation);
    }
}

pub(super) fn between(rng: &mut fastrand::Rng, low: f32, high: f32) -> f32 {
    low + rng.f32() * (high - low)
}

impl Photo {
    /// Halves the photograph as long as it is larger than a view of it ever is, width and height of which are `largest`.
    fn new(image: image::RgbImage, boxes: &[Annotation], aspect: f32, largest: [f32; 2]) -> Self {
        let mut full = Pixels::new(image);
        let mut half = full.halved();
        let mut scale = 1.0;
        while half.width as f32 >= largest[0] || half.height as f32 >= largest[1] {
            full = half;
            half = full.halved();
            scale *= 0.5;
        }
        let boxes = boxes.iter().map(|b| Target {
            xyxy: b.xyxy.map(|side| side * scale),
            class: b.class,
            ignore: b.ignore,
        });
        Self {
            boxes: boxes.collect(),
            full,
            half,
            aspect,
        }
    }

    /// A scale for each axis, with a random change of the aspect.
    fn stretch(&self, rng: &mut fastrand::Rng, scale: f32) -> [f32; 2] {
        let stretch = between(rng, -self.aspect, self.aspect).exp();
        [scale * stretch.sqrt(), scale / stretch.sqrt()]
    }
}

/// Where a photograph lies in its part of the canvas: pixel x scale + offset.
struct View {
    scale: [f32; 2],
    offset: [f32; 2],
    mirrored: bool,
    blurred: bool,
}

impl View {
    fn render(
        &self,
        photo: &Photo,
        colour: &Colour,
        canvas: &mut Canvas,
        [x0, y0, w, h]: [usize; 4],
    ) {
        let small = self.scale[0].max(self.scale[1]) < 0.6;
        let (pixels, factor) = if small || self.blurred {
            (&photo.half, 0.5)
        } else {
            (&photo.full, 1.0)
        };
        // Source coordinate of each column, once; a column outside the photograph has none.
        let source = |i: usize, axis: usize, size: usize| {
            let at = (i as f32 + 0.5 - self.offset[axis]) / self.scale[axis] * factor - 0.5;
            (at > -0.5 && at < size as f32 - 0.5).then(|| {
                let at = at.clamp(0.0, (size - 1) as f32);
                let first = (at as usize).min(size.saturating_sub(2));
                (first, at - first as f32)
            })
        };
        let columns: Vec<_> = (0..w)
            .map(|x| source(if self.mirrored { w - 1 - x } else { x }, 0, pixels.width))
            .collect();
        for y in 0..h {
            let Some((row, fy)) = source(y, 1, pixels.height) else {
                continue;
            };
            let next = (row + 1).min(pixels.height - 1);
            let rows =
                [row, next].map(|r| &pixels.rgb[r * pixels.width * 3..(r + 1) * pixels.width * 3]);
            let out = ((y0 + y) * canvas.width + x0) * 3;
            for (x, column) in columns.iter().enumerate() {
                let Some((column, fx)) = *column else {
                    continue;
                };
                let (a, b) = (column * 3, (column + 1).min(pixels.width - 1) * 3);
                let mut rgb = [0.0f32; 3];
                for (c, value) in rgb.iter_mut().enumerate() {
                    let mix =
                        |r: &[u8]| f32::from(r[a + c]) * (1.0 - fx) + f32::from(r[b + c]) * fx;
                    *value = mix(rows[0]) * (1.0 - fy) + mix(rows[1]) * fy;
                }
                canvas.rgb[out + x * 3..out + x * 3 + 3].copy_from_slice(&colour.apply(rgb));
            }
        }
    }

    fn boxes(
        &self,
        photo: &Photo,
        canvas: &mut Canvas,
        [x0, y0, w, h]: [usize; 4],
        covered: Option<[f32; 4]>,
    ) {
        let (w, h) = (w as f32, h as f32);
        for target in &photo.boxes {
            let b = target.xyxy;
            let x = [b[0], b[2]].map(|x| x * self.scale[0] + self.offset[0]);
            let y = [b[1], b[3]].map(|y| y * self.scale[1] + self.offset[1]);
            let x = if self.mirrored {
                [w - x[1], w - x[0]]
            } else {
                x
            };
            let (cx, cy) = (x.map(|x| x.clamp(0.0, w)), y.map(|y| y.clamp(0.0, h)));
            let (width, height) = (cx[1] - cx[0], cy[1] - cy[0]);
            let clamped = [cx[0], cy[0], cx[1], cy[1]];
            let hidden = covered.map_or(0.0, |c| xyxy::intersection(&clamped, &c));
            let all = (x[1] - x[0]) * (y[1] - y[0]);
            let (part, sides) = target.least();
            let visible = width * height - hidden > part * all;
            if visible && width > sides[0] && height > sides[1] {
                let (x0, y0) = (x0 as f32, y0 as f32);
                canvas.boxes.push(Target {
                    xyxy: [cx[0] + x0, cy[0] + y0, cx[1] + x0, cy[1] + y0],
                    class: target.class,
                    ignore: target.ignore,
                });
            }
        }
    }
}

impl Pixels {
    fn new(image: image::RgbImage) -> Self {
        Self {
            width: image.width() as usize,
            height: image.height() as usize,
            rgb: image.into_raw(),
        }
    }

    /// Half the size by averaging four pixels; an odd last row or column is left out.
    fn halved(&self) -> Self {
        let (width, height) = ((self.width / 2).max(1), (self.height / 2).max(1));
        let at = |x: usize, y: usize, c: usize| {
            u32::from(
                self.rgb[(y.min(self.height - 1) * self.width + x.min(self.width - 1)) * 3 + c],
            )
        };
        let mut rgb = Vec::with_capacity(width * height * 3);
        for y in 0..height {
            for x in 0..width {
                for c in 0..3 {
                    let sum: u32 = [(0, 0), (1, 0), (0, 1), (1, 1)]
                        .into_iter()
                        .map(|(dx, dy)| at(2 * x + dx, 2 * y + dy, c))
                        .sum();
                    rgb.push(((sum + 2) / 4) as u8);
                }
            }
        }
        Self { width, height, rgb }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A dark photograph with one bright box.
    fn photos(width: usize, height: usize, b: [usize; 4]) -> Photos {
        let mut rgb = vec![10; width * height * 3];
        for y in b[1]..b[3] {
            rgb[(y * width + b[0]) * 3..(y * width + b[2]) * 3].fill(240);
        }
        let full = Pixels { width, height, rgb };
        let photo = Photo {
            half: full.halved(),
            full,
            boxes: vec![Target {
                xyxy: b.map(|v| v as f32),
                class: 2,
                ignore: false,
            }],
            aspect: 0.2,
        };
        let config = Config {
            source_weights: Default::default(),
            stretched: Default::default(),
            mosaic: 0.5,
            scale: [0.5, 1.6],
            aspect: 0.2,
            grey: 0.2,
            light: [0.55, 1.4],
            blur: 0.0,
            defocus: 0.0,
            cut_out: 0.0,
            noise: 0.0,
            jpeg: 0.0,
            patches: 0.0,
            recolour: 0.0,
            texture: 0.0,
        };
        Photos {
            photos: vec![photo],
            cumulated: vec![1.0],
            border: 114.0,
            config,
        }
    }

    #[test]
    fn boxes_follow_the_pixels() {
        let photos = photos(100, 80, [30, 20, 60, 70]);
        let mut rng = fastrand::Rng::with_seed(3);
        let mut boxes = 0;
        for _ in 0..50 {
            let sample = photos.sample(&mut rng, 96, 64);
            for target in &sample.boxes {
                assert_eq!(target.class, 2);
                let b = target.xyxy;
                boxes += 1;
                let mean = |[x0, y0, x1, y1]: [f32; 4]| {
                    let (mut sum, mut count) = (0.0, 0.0);
                    for y in y0.max(0.0) as usize..(y1 as usize).min(64) {
                        for x in x0.max(0.0) as usize..(x1 as usize).min(96) {
                            sum += sample.image[y * 96 + x];
                            count += 1.0;
                        }
                    }
                    if count > 0.0 { sum / count } else { f32::NAN }
                };
                let inside = mean([b[0] + 1.0, b[1] + 1.0, b[2] - 1.0, b[3] - 1.0]);
                let all = mean([0.0, 0.0, 96.0, 64.0]);
                assert!(
                    inside > all + 0.05 || inside.is_nan(),
                    "{b:?}: {inside} {all}"
                );
            }
        }
        assert!(boxes > 40, "{boxes}");
    }

    #[test]
    fn patches_bring_their_boxes_and_hide_others() {
        let mut photos = photos(100, 80, [30, 20, 60, 70]);
        let count = |photos: &Photos| {
            let mut rng = fastrand::Rng::with_seed(3);
            let samples = (0..200).map(|_| photos.sample(&mut rng, 96, 64));
            let boxes: Vec<Target> = samples.flat_map(|sample| sample.boxes).collect();
            for target in &boxes {
                let [x0, y0, x1, y1] = target.xyxy;
                assert!(0.0 <= x0 && x0 < x1 && x1 <= 96.0, "{target:?}");
                assert!(0.0 <= y0 && y0 < y1 && y1 <= 64.0, "{target:?}");
            }
            boxes.len()
        };
        let without = count(&photos);
        photos.config.patches = 1.0;
        assert!(count(&photos) > without + 100, "{without}");
        let mut canvas = Canvas {
            width: 96,
            height: 64,
            rgb: vec![0.0; 3 * 96 * 64],
            boxes: [[0.0, 0.0, 20.0, 40.0], [50.0, 0.0, 70.0, 40.0]]
                .map(|xyxy| Target {
                    xyxy,
                    class: 0,
                    ignore: false,
                })
                .to_vec(),
        };
        canvas.hide([0, 0, 30, 28]);
        let left: Vec<f32> = canvas.boxes.iter().map(|target| target.xyxy[0]).collect();
        assert_eq!(left, [50.0]);
    }

    #[test]
    fn what_is_ignored_stays_so_however_little_of_it_is_in_view() {
        // A sixth of the photograph is in view, so less of its crowd than is asked of somebody to be found.
        let mut photos = photos(100, 80, [0, 0, 100, 80]);
        photos.config.mosaic = 0.0;
        photos.config.scale = [2.5, 2.6];
        let draw =
            |photos: &Photos, seed| photos.sample(&mut fastrand::Rng::with_seed(seed), 96, 64);
        assert!((0..20).all(|seed| draw(&photos, seed).boxes.is_empty()));
        photos.photos[0].boxes[0].ignore = true;
        for seed in 0..20 {
            let boxes = draw(&photos, seed).boxes;
            assert!(
                matches!(boxes[..], [Target { ignore: true, .. }]),
                "{boxes:?}"
            );
            assert_eq!(boxes[0].xyxy, [0.0, 0.0, 96.0, 64.0]);
        }

        let crowd = Target {
            xyxy: [0.0, 0.0, 20.0, 40.0],
            class: 0,
            ignore: true,
        };
        let mut canvas = Canvas {
            width: 96,
            height: 64,
            rgb: vec![0.0; 3 * 96 * 64],
            boxes: vec![crowd],
        };
        canvas.hide([0, 0, 20, 39]);
        assert_eq!(canvas.boxes, [crowd]);
        canvas.hide([0, 0, 20, 40]);
        assert_eq!(canvas.boxes, [], "nothing of it is left");
    }

    #[test]
    fn photographs_are_kept_no_larger_than_they_are_looked_at() {
        let annotation = Annotation {
            xyxy: [400.0, 300.0, 800.0, 900.0],
            class: 1,
            ignore: true,
            number: 0,
        };
        let kept = |width, height| {
            let image = image::RgbImage::new(width, height);
            let photo = Photo::new(image, &[annotation], 0.0, [640.0, 480.0]);
            let sides = |pixels: &Pixels| [pixels.width, pixels.height];
            (sides(&photo.full), sides(&photo.half), photo.boxes[0].xyxy)
        };
        let quarter = [100.0, 75.0, 200.0, 225.0];
        assert_eq!(kept(4000, 3000), ([1000, 750], [500, 375], quarter));
        assert_eq!(kept(1279, 959), ([1279, 959], [639, 479], annotation.xyxy));
        // What is wide enough is not needed higher.
        assert_eq!(kept(3000, 200).0, [750, 50]);
    }

    #[test]
    fn a_seed_draws_the_same_sample() {
        let photos = photos(64, 48, [10, 10, 30, 40]);
        let draw = |seed| photos.sample(&mut fastrand::Rng::with_seed(seed), 64, 48);
        assert_eq!(draw(5).image, draw(5).image);
        assert_eq!(draw(5).boxes, draw(5).boxes);
        assert_ne!(draw(5).image, draw(6).image);
    }

    #[test]
    fn tiny_and_odd_photographs_do_not_panic() {
        for (w, h) in [(1, 1), (1, 9), (7, 1), (3, 2)] {
            let mut photos = photos(w, h, [0, 0, w, h]);
            for patches in [0.0, 1.0] {
                photos.config.patches = patches;
                photos.config.recolour = patches;
                photos.config.texture = patches;
                photos.config.defocus = patches;
                photos.config.jpeg = patches;
                for seed in 0..20 {
                    photos.sample(&mut fastrand::Rng::with_seed(seed), 33, 17);
                }
            }
        }
    }
}
