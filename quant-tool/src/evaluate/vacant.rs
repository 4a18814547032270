//! The part of an annotated image in which there is nobody: what is detected there is a false alarm.

use crate::data::dataset::Annotation;

/// A smaller side is no picture any more.
const SIDE_MIN: u32 = 96;

/// The largest region beside, above or below all boxes (ignored ones, too): x, y, width, height in pixels. `None` if
/// each is less than 96 pixels wide or high.
pub(super) fn region((width, height): (u32, u32), boxes: &[Annotation]) -> Option<[u32; 4]> {
    let least = |k: usize, of: u32| {
        let lows = boxes.iter().map(|b| b.xyxy[k].max(0.0).floor() as u32);
        lows.fold(of, u32::min)
    };
    let most = |k: usize, of: u32| {
        let highs = boxes.iter().map(|b| b.xyxy[k].ceil().max(0.0) as u32);
        highs.fold(0, u32::max).min(of)
    };
    let (left, top) = (least(0, width), least(1, height));
    let (right, bottom) = (most(2, width), most(3, height));
    let regions = [
        [0, 0, left, height],
        [right, 0, width - right, height],
        [0, 0, width, top],
        [0, bottom, width, height - bottom],
    ];
    let seen = |r: &[u32; 4]| r[2] >= SIDE_MIN && r[3] >= SIDE_MIN;
    let area = |r: &[u32; 4]| u64::from(r[2]) * u64::from(r[3]);
    regions.into_iter().filter(seen).max_by_key(area)
}

#[cfg(test)]
mod tests {
    use super::super::tests::annotation;
    use super::*;

    #[test]
    fn the_largest_free_side_is_taken() {
        let boxes = [
            annotation([100.5, 50.0, 140.0, 200.0], false),
            annotation([150.0, 60.0, 169.5, 110.0], true),
        ];
        assert_eq!(region((640, 240), &boxes), Some([170, 0, 470, 240]));
        assert_eq!(region((640, 480), &boxes), Some([170, 0, 470, 480]));
        assert_eq!(region((320, 900), &boxes), Some([0, 200, 320, 700]));
        assert_eq!(
            region((640, 480), &[]).map(|r| (r[2], r[3])),
            Some((640, 480))
        );
    }

    #[test]
    fn crowded_and_tiny_images_have_none() {
        let everywhere = [annotation([-5.0, -3.0, 700.0, 500.0], false)];
        assert_eq!(region((640, 480), &everywhere), None);
        assert_eq!(region((95, 480), &[]), None);
    }
}
