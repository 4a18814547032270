use super::*;
use ternwatch_bundle::testing;

/// The decoder of the small test model: two classes, 9 x 7 cells at stride 4 and 5 x 4 at stride 8.
fn decoder() -> Decoder {
    let (file, key) = testing::small_bundle(0);
    let mut decoder = Decoder::new(&testing::load(&file, &key));
    for head in &mut decoder.heads {
        // Logits in tenths, distances in quarters of a stride.
        head.scale = vec![0.1, 0.1, 0.25, 0.25, 0.25, 0.25];
    }
    decoder
}

/// Logits of both heads, every class of every cell far from being an object.
struct Logits {
    layers: [usize; 2],
    sizes: [(usize, usize); 2],
    values: [Vec<i16>; 2],
}

impl Logits {
    fn empty(decoder: &Decoder) -> Self {
        let sizes = [0, 1].map(|head| (decoder.heads[head].width, decoder.heads[head].height));
        assert_eq!(sizes, [(9, 7), (5, 4)]);
        let values = sizes.map(|(width, height)| {
            let plane = width * height;
            [vec![-200; 2 * plane], vec![0; 4 * plane]].concat()
        });
        Self {
            layers: [0, 1].map(|head| decoder.heads[head].layer),
            sizes,
            values,
        }
    }

    fn set(
        &mut self,
        head: usize,
        (x, y): (usize, usize),
        class: usize,
        logit: i16,
        distances: [i16; 4],
    ) {
        let (width, height) = self.sizes[head];
        let (plane, cell) = (width * height, y * width + x);
        self.values[head][class * plane + cell] = logit;
        for (side, distance) in distances.into_iter().enumerate() {
            self.values[head][(2 + side) * plane + cell] = distance;
        }
    }

    fn decode(
        &self,
        decoder: &mut Decoder,
        letterbox: Letterbox,
        score: f32,
        iou: f32,
    ) -> Vec<Detection> {
        let logits = |layer| {
            let head = self.layers.iter().position(|&head| head == layer).unwrap();
            self.values[head].as_slice()
        };
        decoder
            .run(logits, letterbox, Thresholds { score, iou })
            .to_vec()
    }
}

fn whole_input() -> Letterbox {
    Letterbox::fit((36, 28), (36, 28))
}

#[test]
fn a_cell_becomes_a_box_around_its_centre() {
    let mut decoder = decoder();
    let mut logits = Logits::empty(&decoder);
    // Centre 14, 10 at stride 4; distances of 1, 2, 2 and 3 strides.
    logits.set(0, (3, 2), 1, 0, [4, 8, 8, 12]);
    let found = logits.decode(&mut decoder, whole_input(), 0.4, 0.5);
    assert_eq!(
        found,
        [Detection {
            class: 1,
            score: 0.5,
            xyxy: [10.0, 2.0, 22.0, 22.0]
        }]
    );
}

#[test]
fn boxes_are_in_frame_pixels_and_clipped_to_the_frame() {
    let mut decoder = decoder();
    let mut logits = Logits::empty(&decoder);
    // The frame fills 36 x 18 of the input, 5 pixels from the top, at half of its size.
    let letterbox = Letterbox::fit((72, 36), (36, 28));
    // Centre 20, 12 at stride 8.
    logits.set(1, (2, 1), 0, 30, [2, 1, 1, 40]);
    let found = logits.decode(&mut decoder, letterbox, 0.4, 0.5);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].xyxy, [32.0, 10.0, 44.0, 36.0]);
}

#[test]
fn negative_distances_count_as_zero_and_empty_boxes_are_dropped() {
    let mut decoder = decoder();
    let mut logits = Logits::empty(&decoder);
    logits.set(0, (3, 2), 0, 50, [-9, -9, 4, 4]);
    logits.set(0, (7, 5), 0, 50, [-9, 4, -9, 4]);
    // In the border above the frame.
    logits.set(0, (0, 0), 1, 50, [1, 1, 1, 1]);
    let found = logits.decode(&mut decoder, Letterbox::fit((36, 18), (36, 28)), 0.4, 0.5);
    assert_eq!(
        found
            .iter()
            .map(|detection| detection.xyxy)
            .collect::<Vec<_>>(),
        [[14.0, 5.0, 18.0, 9.0]]
    );
}

#[test]
fn scores_follow_the_logistic_function_and_the_order_is_descending() {
    let mut decoder = decoder();
    let mut logits = Logits::empty(&decoder);
    for (x, logit) in [-20i16, 35, 0, 120, -5, 7].into_iter().enumerate() {
        logits.set(0, (x, 3), 0, logit, [1, 1, 1, 1]);
    }
    let found = logits.decode(&mut decoder, whole_input(), 0.0, 0.5);
    let scores: Vec<f32> = found
        .iter()
        .take(6)
        .map(|detection| detection.score)
        .collect();
    for (score, logit) in scores.iter().zip([12.0, 3.5, 0.7, 0.0, -0.5, -2.0f64]) {
        let exact = 1.0 / (1.0 + (-logit).exp());
        assert!(
            (f64::from(*score) - exact).abs() < 1e-6,
            "{score} for {logit}"
        );
    }
}

#[test]
fn the_fast_reject_agrees_with_the_score() {
    for scale in [1e-9, 1e-4, 0.003, 0.0123, 0.1, 1.0, 77.0, 1e6] {
        for score_min in [
            0.0, 1e-7, 1e-5, 0.01, 0.05, 0.25, 0.5, 0.77, 0.99, 0.9999, 0.99999, 0.9999999, 1.0,
            2.0,
        ] {
            let bound = lowest_logit(score_min, scale);
            for logit in i16::MIN..bound {
                let score = sigmoid(f32::from(logit) * scale);
                assert!(
                    score < score_min,
                    "logit {logit} x {scale} has {score} and is rejected for {score_min}"
                );
            }
        }
    }
}

#[test]
fn a_threshold_that_is_no_number_lets_nothing_pass() {
    let mut decoder = decoder();
    let mut logits = Logits::empty(&decoder);
    logits.set(0, (3, 2), 1, 300, [4, 8, 8, 12]);
    assert_eq!(
        logits.decode(&mut decoder, whole_input(), f32::NAN, 0.5),
        []
    );
    assert_eq!(logits.decode(&mut decoder, whole_input(), 1.1, 0.5), []);
    assert_eq!(
        logits
            .decode(&mut decoder, whole_input(), 0.5, f32::NAN)
            .len(),
        1
    );
}

fn candidates(boxes: &[(u16, f32, [f32; 4])]) -> Vec<Candidate> {
    let candidate = |(index, &(class, score, xyxy)): (usize, &(u16, f32, [f32; 4]))| Candidate {
        detection: Detection { class, score, xyxy },
        sequence: index as u32,
    };
    boxes.iter().enumerate().map(candidate).collect()
}

fn kept(boxes: &[(u16, f32, [f32; 4])], iou_max: f32) -> Vec<f32> {
    let mut kept = Vec::new();
    suppress::greedy(&candidates(boxes), iou_max, &mut kept);
    kept.iter().map(|detection| detection.score).collect()
}

#[test]
fn suppression_is_greedy_and_by_class() {
    // Neighbours overlap by 2/3 of each: IoU 0.5.
    let boxes = [
        (0, 0.9, [0.0, 0.0, 30.0, 10.0]),
        (0, 0.8, [10.0, 0.0, 40.0, 10.0]),
        (0, 0.7, [20.0, 0.0, 50.0, 10.0]),
        (1, 0.6, [0.0, 0.0, 30.0, 10.0]),
        (0, 0.5, [0.0, 10.0, 30.0, 20.0]),
    ];
    // The second falls to the first; the third overlaps only the fallen one by half.
    assert_eq!(kept(&boxes, 0.4), [0.9, 0.7, 0.6, 0.5]);
    // Exactly at the threshold is no overlap.
    assert_eq!(kept(&boxes, 0.5), [0.9, 0.8, 0.7, 0.6, 0.5]);
    assert_eq!(kept(&boxes, 0.0), [0.9, 0.6, 0.5]);
    assert_eq!(kept(&boxes, 1.0).len(), 5);
}

#[test]
fn equal_scores_keep_the_order_of_heads_and_cells() {
    let mut decoder = decoder();
    let mut logits = Logits::empty(&decoder);
    for cell in [(0, 0), (5, 5), (8, 2)] {
        logits.set(0, cell, 0, 40, [1, 1, 1, 1]);
    }
    logits.set(1, (1, 2), 0, 40, [0, 0, 1, 1]);
    let found = logits.decode(&mut decoder, whole_input(), 0.5, 0.5);
    let lefts: Vec<f32> = found.iter().map(|detection| detection.xyxy[0]).collect();
    assert_eq!(lefts, [1.0, 33.0, 21.0, 12.0]);
}

#[test]
fn candidates_and_detections_are_bounded_to_the_best() {
    let mut list = Candidates::new();
    let capacity = list.list.capacity();
    // 5003 and 7919 are coprime: every score of 0..5003 once, in a scattered order.
    for index in 0..5003u32 {
        let score = (index * 7919 % 5003) as f32;
        let side = index as f32 * 2.0;
        let detection = Detection {
            class: 0,
            score,
            xyxy: [side, 0.0, side + 1.0, 1.0],
        };
        list.push(Candidate {
            detection,
            sequence: index,
        });
    }
    let scores: Vec<f32> = list
        .sorted()
        .iter()
        .map(|candidate| candidate.detection.score)
        .collect();
    let best: Vec<f32> = (0..CANDIDATES_MAX)
        .map(|rank| (5002 - rank) as f32)
        .collect();
    assert_eq!(scores, best);
    assert_eq!(list.list.capacity(), capacity);

    let mut kept = Vec::new();
    suppress::greedy(list.sorted(), 0.5, &mut kept);
    assert_eq!(
        kept.iter()
            .map(|detection| detection.score)
            .collect::<Vec<_>>(),
        best[..DETECTIONS_MAX]
    );
}

#[test]
fn saturated_logits_give_finite_boxes_within_the_frame() {
    let mut decoder = decoder();
    for scale in [1e-9, 1e6] {
        for head in &mut decoder.heads {
            head.scale = vec![scale; 6];
        }
        let mut logits = Logits::empty(&decoder);
        for values in &mut logits.values {
            for (index, value) in values.iter_mut().enumerate() {
                *value = if index % 3 == 0 { i16::MIN } else { i16::MAX };
            }
        }
        for detection in logits.decode(&mut decoder, Letterbox::fit((8192, 3), (36, 28)), 0.0, 1.0)
        {
            let [left, top, right, bottom] = detection.xyxy;
            assert!(
                0.0 <= left && left < right && right <= 8192.0,
                "{detection:?}"
            );
            assert!(0.0 <= top && top < bottom && bottom <= 3.0, "{detection:?}");
            assert!((0.0..=1.0).contains(&detection.score));
        }
    }
}
