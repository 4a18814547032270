//! Boxes as left, top, right, bottom in pixels, and how much two of them overlap.

/// Left, top, right, bottom in pixels.
pub(super) type Xyxy = [f32; 4];

/// Width and height.
pub(super) fn size([left, top, right, bottom]: Xyxy) -> [f32; 2] {
    [right - left, bottom - top]
}

/// The middle of the lower edge: where a person stands.
pub(crate) fn foot([left, _, right, bottom]: Xyxy) -> [f32; 2] {
    [(left + right) / 2.0, bottom]
}

/// Moves every edge outwards by so many pixels each way.
pub(super) fn grow([left, top, right, bottom]: Xyxy, [x, y]: [f32; 2]) -> Xyxy {
    [left - x, top - y, right + x, bottom + y]
}

/// Intersection over union: 0 to 1. Boxes without an area overlap nothing.
pub(super) fn iou(a: Xyxy, b: Xyxy) -> f32 {
    let width = a[2].min(b[2]) - a[0].max(b[0]);
    let height = a[3].min(b[3]) - a[1].max(b[1]);
    if !(width > 0.0 && height > 0.0) {
        return 0.0;
    }
    let area = |of: Xyxy| {
        let [width, height] = size(of);
        width * height
    };
    let intersection = width * height;
    intersection / (area(a) + area(b) - intersection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_is_what_geometry_says() {
        let a = [0.0, 0.0, 10.0, 10.0];
        assert_eq!(iou(a, a), 1.0);
        assert_eq!(iou(a, [5.0, 0.0, 15.0, 10.0]), 1.0 / 3.0);
        assert_eq!(
            iou(a, [10.0, 0.0, 20.0, 10.0]),
            0.0,
            "touching is not overlapping"
        );
        assert_eq!(iou([1.0; 4], [1.0; 4]), 0.0, "no area");
        assert_eq!(grow(a, [1.0, 2.0]), [-1.0, -2.0, 11.0, 12.0]);
        assert_eq!(foot(a), [5.0, 10.0]);
    }
}
