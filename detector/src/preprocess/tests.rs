use super::*;
use proptest::prelude::*;

const FILL: u8 = 57;

fn preprocessor(width: u32, height: u32) -> Preprocessor {
    Preprocessor::new(width, height, FILL, Isa::detect())
}

fn run(
    preprocessor: &mut Preprocessor,
    format: PixelFormat,
    size: (u32, u32),
    data: &[u8],
) -> (Vec<u8>, Letterbox) {
    let frame = Frame::new(format, size.0, size.1, data).unwrap();
    // Left-overs of other tensors must not shine through.
    let mut input = vec![255; 3 * preprocessor.width * preprocessor.height];
    let letterbox = preprocessor.run(&frame, &mut input);
    (input, letterbox)
}

/// The triangle filter of one axis in real numbers, one list of (pixel, weight) per output.
fn filter(input: usize, output: usize) -> Vec<Vec<(usize, f64)>> {
    let scale = input as f64 / output as f64;
    let reach = scale.max(1.0);
    let weights_of = |index: usize| {
        let centre = (index as f64 + 0.5) * scale;
        let weight = |tap: usize| (1.0 - ((tap as f64 + 0.5 - centre) / reach).abs()).max(0.0);
        let total: f64 = (0..input).map(weight).sum();
        (0..input)
            .map(|tap| (tap, weight(tap) / total))
            .filter(|&(_, weight)| weight > 0.0)
            .collect()
    };
    (0..output).map(weights_of).collect()
}

/// One plane, resampled in real numbers.
fn resample(
    plane: &[f64],
    (width, height): (usize, usize),
    (to_width, to_height): (usize, usize),
) -> Vec<f64> {
    let columns = filter(width, to_width);
    let rows = filter(height, to_height);
    let value = |y: usize, x: usize| {
        let row_sum = |row: usize| {
            columns[x]
                .iter()
                .map(|&(column, w)| w * plane[row * width + column])
                .sum::<f64>()
        };
        rows[y].iter().map(|&(row, w)| w * row_sum(row)).sum()
    };
    (0..to_height)
        .flat_map(|y| (0..to_width).map(move |x| (y, x)))
        .map(|(y, x)| value(y, x))
        .collect()
}

/// A frame's three planes and their sizes.
fn planes_of(
    format: PixelFormat,
    (width, height): (usize, usize),
    data: &[u8],
) -> [(Vec<f64>, (usize, usize)); 3] {
    let every = |data: &[u8], first: usize, step: usize| -> Vec<f64> {
        data.iter()
            .skip(first)
            .step_by(step)
            .map(|&v| f64::from(v))
            .collect()
    };
    let (full, wide, half) = (
        (width, height),
        (width / 2, height),
        (width / 2, height / 2),
    );
    let (luma, chroma) = data.split_at((width * height).min(data.len()));
    match format {
        PixelFormat::Rgb8 => [0, 1, 2].map(|channel| (every(data, channel, 3), full)),
        PixelFormat::Yuyv => [
            (every(data, 0, 2), full),
            (every(data, 1, 4), wide),
            (every(data, 3, 4), wide),
        ],
        PixelFormat::Nv12 => [
            (every(luma, 0, 1), full),
            (every(chroma, 0, 2), half),
            (every(chroma, 1, 2), half),
        ],
        PixelFormat::I420 => {
            let (u, v) = chroma.split_at(chroma.len() / 2);
            [
                (every(luma, 0, 1), full),
                (every(u, 0, 1), half),
                (every(v, 0, 1), half),
            ]
        }
    }
}

/// The whole stage in real numbers, rounded once.
fn reference(
    format: PixelFormat,
    size: (u32, u32),
    data: &[u8],
    (width, height): (usize, usize),
    letterbox: Letterbox,
) -> Vec<u8> {
    let content = (letterbox.x.content as usize, letterbox.y.content as usize);
    let planes = planes_of(format, (size.0 as usize, size.1 as usize), data);
    let [a, b, c] = planes.map(|(plane, size)| resample(&plane, size, content));
    let mut input = vec![FILL; 3 * width * height];
    for y in 0..content.1 {
        for x in 0..content.0 {
            let at = y * content.0 + x;
            let rgb = if format == PixelFormat::Rgb8 {
                [a[at], b[at], c[at]]
            } else {
                let (luma, u, v) = ((a[at] - 16.0) * 255.0 / 219.0, b[at] - 128.0, c[at] - 128.0);
                let (u, v) = (u * 255.0 / 224.0, v * 255.0 / 224.0);
                [
                    luma + 1.402 * v,
                    luma - 0.344136 * u - 0.714136 * v,
                    luma + 1.772 * u,
                ]
            };
            for (channel, value) in rgb.into_iter().enumerate() {
                let row = channel * height + letterbox.y.offset as usize + y;
                let byte = value.round().clamp(0.0, 255.0) as u8;
                input[row * width + letterbox.x.offset as usize + x] = byte >> 1;
            }
        }
    }
    input
}

fn difference_max(a: &[u8], b: &[u8]) -> u8 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

const FORMATS: [PixelFormat; 4] = [
    PixelFormat::Rgb8,
    PixelFormat::Yuyv,
    PixelFormat::Nv12,
    PixelFormat::I420,
];

#[test]
fn every_format_and_shape_is_within_a_step_of_real_arithmetic() {
    let input = (48, 36);
    let mut preprocessor = preprocessor(input.0, input.1);
    // Exact, wide, tall, shrunk, enlarged, and extreme.
    let sizes = [
        (48, 36),
        (96, 72),
        (200, 60),
        (40, 150),
        (130, 98),
        (10, 8),
        (2, 2),
        (600, 4),
        (6, 700),
    ];
    for format in FORMATS {
        for size in sizes {
            let data = noise(format.frame_len(size.0, size.1).unwrap(), u64::from(size.0));
            let (found, letterbox) = run(&mut preprocessor, format, size, &data);
            let expected = reference(format, size, &data, (48, 36), letterbox);
            assert!(difference_max(&found, &expected) <= 1, "{format} {size:?}");
            assert!(found.iter().all(|&value| value <= 127));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn arbitrary_sizes_are_within_a_step_of_real_arithmetic(
        width in 2u32..150, height in 2u32..150, seed: u64, to_width in 8u32..70, to_height in 8u32..70
    ) {
        let data = noise(3 * (width * height) as usize, seed);
        let mut preprocessor = preprocessor(to_width, to_height);
        let (found, letterbox) = run(&mut preprocessor, PixelFormat::Rgb8, (width, height), &data);
        let expected =
            reference(PixelFormat::Rgb8, (width, height), &data, (to_width as usize, to_height as usize), letterbox);
        prop_assert!(difference_max(&found, &expected) <= 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_frame_gives_the_same_input_on_every_instruction_set(
        format in proptest::sample::select(&FORMATS), width in 2u32..400, height in 2u32..120, seed: u64,
        to_width in 8u32..200, to_height in 8u32..90,
    ) {
        let even = |side: u32| if format == PixelFormat::Rgb8 { side } else { side.next_multiple_of(2) };
        let size = (even(width), even(height));
        let data = noise(format.frame_len(size.0, size.1).unwrap(), seed);
        let of = |isa| run(&mut Preprocessor::new(to_width, to_height, FILL, isa), format, size, &data);
        let expected = of(Isa::Scalar);
        for isa in Isa::available() {
            prop_assert!(of(isa) == expected, "{} {:?} on {}", format, size, isa);
        }
    }
}

#[test]
fn an_exact_frame_is_only_halved() {
    let data = noise(3 * 20 * 12, 3);
    let (found, _) = run(
        &mut preprocessor(20, 12),
        PixelFormat::Rgb8,
        (20, 12),
        &data,
    );
    for (at, &value) in found.iter().enumerate() {
        let (channel, pixel) = (at / (20 * 12), at % (20 * 12));
        assert_eq!(value, data[3 * pixel + channel] >> 1);
    }
}

#[test]
fn the_border_is_the_fill_value_and_the_content_has_none() {
    let mut preprocessor = preprocessor(40, 30);
    for (size, content) in [
        ((400, 100), (40, 10)),
        ((50, 100), (15, 30)),
        ((80, 60), (40, 30)),
    ] {
        let data = vec![255; 3 * (size.0 * size.1) as usize];
        let (found, letterbox) = run(&mut preprocessor, PixelFormat::Rgb8, size, &data);
        assert_eq!((letterbox.x.content, letterbox.y.content), content);
        for (at, &value) in found.iter().enumerate() {
            let (x, y) = ((at % 40) as u32, (at / 40 % 30) as u32);
            let is_inside = [(x, letterbox.x), (y, letterbox.y)]
                .iter()
                .all(|(place, axis)| (axis.offset..axis.offset + axis.content).contains(place));
            assert_eq!(
                value,
                if is_inside { 127 } else { FILL },
                "{size:?} at {x}, {y}"
            );
        }
    }
}

/// A smooth picture in every format: RGB by formula, YUV from it, chroma averaged over the pixels that share it.
fn smooth(format: PixelFormat, (width, height): (usize, usize)) -> Vec<u8> {
    let rgb = |x: usize, y: usize| {
        let (x, y) = (x as f64 / width as f64, y as f64 / height as f64);
        [
            128.0 + 80.0 * (2.5 * x).sin(),
            128.0 + 70.0 * (2.0 * y + x).cos(),
            128.0 + 60.0 * (1.5 * x - 3.0 * y).sin(),
        ]
    };
    let yuv = |x: usize, y: usize| {
        let [r, g, b] = rgb(x, y);
        let luma = 0.299 * r + 0.587 * g + 0.114 * b;
        [
            16.0 + luma * 219.0 / 255.0,
            128.0 + (b - luma) / 1.772 * 224.0 / 255.0,
            128.0 + (r - luma) / 1.402 * 224.0 / 255.0,
        ]
    };
    let byte = |value: f64| value.round().clamp(0.0, 255.0) as u8;
    let mean = |component: usize, x: usize, y: usize, rows: usize| {
        let pixels = (0..rows).flat_map(|dy| [(x, y + dy), (x + 1, y + dy)]);
        byte(pixels.map(|(x, y)| yuv(x, y)[component]).sum::<f64>() / (2 * rows) as f64)
    };
    let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let luma: Vec<u8> = pixels.clone().map(|(x, y)| byte(yuv(x, y)[0])).collect();
    let pairs = (0..height).flat_map(|y| (0..width).step_by(2).map(move |x| (x, y)));
    let blocks = pairs.clone().filter(|(_, y)| y % 2 == 0);
    match format {
        PixelFormat::Rgb8 => pixels.flat_map(|(x, y)| rgb(x, y).map(byte)).collect(),
        PixelFormat::Yuyv => pairs
            .flat_map(|(x, y)| {
                let at = y * width + x;
                [luma[at], mean(1, x, y, 1), luma[at + 1], mean(2, x, y, 1)]
            })
            .collect(),
        PixelFormat::Nv12 => {
            let chroma = blocks.flat_map(|(x, y)| [mean(1, x, y, 2), mean(2, x, y, 2)]);
            luma.iter().copied().chain(chroma).collect()
        }
        PixelFormat::I420 => {
            let u = blocks.clone().map(|(x, y)| mean(1, x, y, 2));
            let v = blocks.map(|(x, y)| mean(2, x, y, 2));
            luma.iter().copied().chain(u).chain(v).collect()
        }
    }
}

#[test]
fn the_same_picture_gives_nearly_the_same_input_in_every_format() {
    for (size, input) in [
        ((64, 48), (64, 48)),
        ((320, 240), (100, 75)),
        ((96, 128), (112, 80)),
        ((50, 34), (160, 120)),
    ] {
        let mut preprocessor = preprocessor(input.0, input.1);
        let mut of = |format| {
            run(
                &mut preprocessor,
                format,
                size,
                &smooth(format, (size.0 as usize, size.1 as usize)),
            )
            .0
        };
        let rgb = of(PixelFormat::Rgb8);
        for format in [PixelFormat::Yuyv, PixelFormat::Nv12, PixelFormat::I420] {
            assert!(
                difference_max(&rgb, &of(format)) <= 2,
                "{format} {size:?} to {input:?}"
            );
        }
        assert_eq!(of(PixelFormat::Nv12), of(PixelFormat::I420));
    }
}

#[test]
fn frames_of_changing_kinds_do_not_disturb_each_other() {
    let mut one = preprocessor(48, 36);
    for _ in 0..2 {
        for format in FORMATS {
            for size in [(64, 48), (8, 100), (190, 20)] {
                let data = noise(format.frame_len(size.0, size.1).unwrap(), 9);
                let fresh = run(&mut preprocessor(48, 36), format, size, &data);
                assert_eq!(
                    run(&mut one, format, size, &data),
                    fresh,
                    "{format} {size:?}"
                );
            }
        }
    }
}

#[test]
fn yuv_extremes_are_clamped() {
    let mut preprocessor = preprocessor(8, 8);
    for (yuv, rgb) in [
        ([16, 128, 128], [0, 0, 0]),
        ([235, 128, 128], [127, 127, 127]),
        ([0, 128, 128], [0, 0, 0]),
        ([255, 128, 128], [127, 127, 127]),
        ([255, 255, 255], [127, 62, 127]),
        ([0, 0, 0], [0, 67, 0]),
        ([81, 90, 240], [127, 0, 0]),
    ] {
        let data: Vec<u8> = [[yuv[0], yuv[1], yuv[0], yuv[2]]; 32].concat();
        let (found, _) = run(&mut preprocessor, PixelFormat::Yuyv, (8, 8), &data);
        let pixel = [found[0], found[64], found[128]];
        assert!(
            difference_max(&pixel, &rgb) <= 1,
            "{yuv:?} became {pixel:?}"
        );
    }
}
