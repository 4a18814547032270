//! Classification as a task: one label a picture.

use super::distil;
use super::graph::HeadOutput;
use super::task::{Loss, Task};
use crate::data::labelled::Labelled;

/// Naming the class of a picture.
pub struct Classification {
    /// The pictures.
    pub pictures: Labelled,
    /// A picture moves by at most this many pixels each way.
    pub shift: usize,
    /// Whether half of the pictures are mirrored.
    pub mirror: bool,
}

impl Task for Classification {
    type Truth = u8;

    fn sample(&self, rng: &mut fastrand::Rng, size: [usize; 2]) -> (Vec<f32>, u8) {
        let index = rng.usize(0..self.pictures.count());
        let by =
            |rng: &mut fastrand::Rng| rng.usize(0..=2 * self.shift) as isize - self.shift as isize;
        let shift = [by(rng), by(rng)];
        let mirrored = self.mirror && rng.bool();
        let mut image = vec![0.0; 3 * size[0] * size[1]];
        let place = |at: usize, value: u8| image[at] = f32::from(value) / 127.0;
        paint(&self.pictures, index, size, (shift, mirrored), place);
        (image, self.pictures.labels[index])
    }

    fn loss(&self, outputs: &[HeadOutput], truth: &[u8]) -> (Loss, Vec<Vec<f32>>) {
        let mut sum = Loss::default();
        let gradients = outputs.iter().map(|output| {
            each_picture(output, &mut sum, |sum, index, logits| {
                let label = usize::from(truth[index]);
                sum.positives += usize::from(argmax(logits) == label);
                cross_entropy(logits, label)
            })
        });
        let gradients = gradients.collect();
        (sum, gradients)
    }

    fn distil(&self, outputs: &[HeadOutput], teacher: &[HeadOutput]) -> (Loss, Vec<Vec<f32>>) {
        let mut sum = Loss::default();
        let gradients = outputs.iter().zip(teacher).map(|(output, teacher)| {
            let cells = teacher.height * teacher.width;
            let pictures: Vec<&[f32]> = teacher
                .data
                .chunks_exact(teacher.channels * cells)
                .collect();
            each_picture(output, &mut sum, |_, index, logits| {
                distil::logits(logits, &mean_logits(pictures[index], cells))
            })
        });
        let gradients = gradients.collect();
        (sum, gradients)
    }
}

/// Adds the mean of the pictures' losses to `sum` and gives the gradient with respect to the output. `loss` takes a
/// picture's index and logits, and gives its loss and the slopes.
fn each_picture(
    output: &HeadOutput,
    sum: &mut Loss,
    loss: impl Fn(&mut Loss, usize, &[f32]) -> (f32, Vec<f32>),
) -> Vec<f32> {
    let cells = output.height * output.width;
    let each = output.channels * cells;
    let count = output.data.len() / each;
    let share = 1.0 / (cells * count) as f32;
    let mut gradient = Vec::with_capacity(output.data.len());
    for (index, picture) in output.data.chunks_exact(each).enumerate() {
        let (value, slopes) = loss(sum, index, &mean_logits(picture, cells));
        sum.score += value / count as f32;
        for slope in slopes {
            gradient.extend(std::iter::repeat_n(slope * share, cells));
        }
    }
    gradient
}

/// Calls `place(index in [3][height][width], u7 value)` for every pixel of a picture that falls into a canvas of
/// `size`, in whose middle it lies before it is shifted and mirrored.
pub fn paint(
    pictures: &Labelled,
    index: usize,
    size: [usize; 2],
    (shift, mirrored): ([isize; 2], bool),
    mut place: impl FnMut(usize, u8),
) {
    let (width, height) = pictures.size;
    let start =
        |axis: usize, all: usize, own: usize| (all as isize - own as isize) / 2 + shift[axis];
    let (left, top) = (start(0, size[0], width), start(1, size[1], height));
    for (plane, pixels) in pictures
        .picture(index)
        .chunks_exact(width * height)
        .enumerate()
    {
        for (row, pixels) in pixels.chunks_exact(width).enumerate() {
            let y = row as isize + top;
            if !(0..size[1] as isize).contains(&y) {
                continue;
            }
            for (column, &value) in pixels.iter().enumerate() {
                let column = if mirrored { width - 1 - column } else { column };
                let x = column as isize + left;
                if (0..size[0] as isize).contains(&x) {
                    place((plane * size[1] + y as usize) * size[0] + x as usize, value);
                }
            }
        }
    }
}

/// The mean of each class's logits over the cells: `[class][cell]` in.
pub fn mean_logits(output: &[f32], cells: usize) -> Vec<f32> {
    let mean = |plane: &[f32]| plane.iter().sum::<f32>() / cells as f32;
    output.chunks_exact(cells).map(mean).collect()
}

/// Index of the greatest value; of equal ones the first.
pub fn argmax(values: &[f32]) -> usize {
    let better = |best: usize, i: usize| if values[i] > values[best] { i } else { best };
    (1..values.len()).fold(0, better)
}

/// `-log softmax(logits)[label]` and its slope.
fn cross_entropy(logits: &[f32], label: usize) -> (f32, Vec<f32>) {
    let highest = logits.iter().copied().fold(f32::MIN, f32::max);
    let exponentials: Vec<f32> = logits.iter().map(|l| (l - highest).exp()).collect();
    let sum: f32 = exponentials.iter().sum();
    let value = sum.ln() + highest - logits[label];
    let slope = |(i, e): (usize, &f32)| e / sum - f32::from(u8::from(i == label));
    (value, exponentials.iter().enumerate().map(slope).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pictures() -> Labelled {
        Labelled {
            classes: vec!["left".into(), "right".into()],
            size: (2, 2),
            pixels: (0..24).collect(),
            labels: vec![0, 1],
        }
    }

    #[test]
    fn gradients_match_differences() {
        let mut rng = fastrand::Rng::with_seed(3);
        let task = Classification {
            pictures: pictures(),
            shift: 0,
            mirror: false,
        };
        let output = |data: Vec<f32>| HeadOutput {
            data,
            channels: 2,
            height: 2,
            width: 3,
            stride: 4,
        };
        let data: Vec<f32> = (0..2 * 2 * 6).map(|_| rng.f32() * 4.0 - 2.0).collect();
        let (_, gradients) = task.loss(&[output(data.clone())], &[1, 0]);
        for i in 0..data.len() {
            let moved = |by: f32| {
                let mut data = data.clone();
                data[i] += by;
                task.loss(&[output(data)], &[1, 0]).0.total()
            };
            let difference = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            let gradient = gradients[0][i];
            assert!(
                (difference - gradient).abs() < 1e-4,
                "{difference} {gradient}"
            );
        }
    }

    #[test]
    fn a_picture_keeps_its_place_and_can_be_mirrored() {
        let paint_with = |mirrored| {
            let mut canvas = [255u8; 48];
            let pictures = pictures();
            paint(&pictures, 1, [4, 4], ([0, 0], mirrored), |at, v| {
                canvas[at] = v
            });
            canvas
        };
        let (plain, mirrored) = (paint_with(false), paint_with(true));
        assert_eq!(plain[5..7], [12, 13]);
        assert_eq!(mirrored[5..7], [13, 12]);
        assert_eq!(plain[..5], [255; 5]);
    }

    #[test]
    fn a_shift_beyond_the_border_cuts() {
        let mut seen = 0;
        paint(&pictures(), 0, [2, 2], ([1, -1], false), |_, _| seen += 1);
        assert_eq!(seen, 3);
    }
}
