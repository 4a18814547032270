use super::*;
use proptest::prelude::*;

/// Numbers of no pattern.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        self.0 >> 33
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        // Extremes are as likely as everything between them.
        let byte = |random: u64| match random % 4 {
            0 => 0,
            1 => 255,
            _ => (random >> 8) as u8,
        };
        (0..len).map(|_| byte(self.next())).collect()
    }

    fn values(&mut self, len: usize) -> Vec<i16> {
        let bytes = self.bytes(len);
        let value = |byte: u8| match byte {
            255 => 255 << FRACTION_BITS,
            byte => i16::from(byte) << FRACTION_BITS | (self.next() % 64) as i16,
        };
        bytes.into_iter().map(value).collect()
    }
}

fn taps(input: u32, output: u32) -> Taps {
    let mut taps = Taps::with_capacity(input, output);
    taps.plan(input, output);
    taps
}

/// The outputs of a function on all instruction sets are those of the specification.
fn assert_equal<T: PartialEq + std::fmt::Debug>(what: &str, of: impl Fn(Isa) -> T) {
    let expected = of(Isa::Scalar);
    for isa in Isa::available() {
        assert_eq!(of(isa), expected, "{what} on {isa}");
    }
}

/// Both passes and what is between and behind them, from rows of bytes of `taps.0` columns.
fn check(columns: (u32, u32), rows: (u32, u32), seed: u64) {
    let mut noise = Noise(seed);
    let (columns, rows) = (taps(columns.0, columns.1), taps(rows.0, rows.1));
    let row_len = columns.input_len();
    let bytes = noise.bytes(row_len * rows.input_len());
    for index in [0, rows.len() / 2, rows.len() - 1] {
        let (start, weights) = rows.trimmed(index);
        let bytes = &bytes[start * row_len..][..weights.len() * row_len];
        assert_equal("mix_rows", |isa| {
            let mut output = vec![0; row_len];
            mix_rows(isa, bytes, weights, &mut output);
            output
        });
    }
    // What lies behind the input has no weight.
    let values = noise.values(row_len);
    for slack in [0, -1, i16::MAX, i16::MIN] {
        let mut values = values.clone();
        values.resize(row_len + SLACK, slack);
        assert_equal("mix_columns", |isa| {
            let mut output = vec![0; columns.len()];
            mix_columns(isa, &values, &columns, &mut output);
            assert!(
                output
                    .iter()
                    .all(|&v| (0..=255 << FRACTION_BITS).contains(&v))
            );
            output
        });
    }
}

#[test]
fn usual_sizes_are_the_same_on_every_instruction_set() {
    let columns = [
        (640, 320),
        (320, 320),
        (1280, 320),
        (640, 384),
        (1280, 384),
        (320, 384),
        (1920, 320),
        (2592, 320),
        (3840, 384),
        (8192, 8),
        (2, 320),
        (33, 31),
    ];
    let rows = [
        (480, 240),
        (480, 288),
        (720, 180),
        (720, 216),
        (240, 240),
        (4, 240),
        (97, 3),
    ];
    for (seed, columns) in columns.into_iter().enumerate() {
        for rows in rows {
            check(columns, rows, seed as u64);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_sizes_are_the_same_on_every_instruction_set(
        columns in (1u32..700, 1u32..400), rows in (1u32..100, 1u32..70), seed: u64
    ) {
        check(columns, rows, seed);
    }

    #[test]
    fn values_of_any_number_are_taken_apart_and_converted_alike(len in 0usize..200, seed: u64) {
        let mut noise = Noise(seed);
        let rows = [(); 3].map(|()| noise.values(len));
        let inputs = rows.each_ref().map(Vec::as_slice);
        assert_equal("yuv_to_u7", |isa| {
            let mut rgb = [(); 3].map(|()| vec![255; len]);
            yuv_to_u7(isa, inputs, rgb.each_mut().map(Vec::as_mut_slice));
            assert!(rgb.iter().flatten().all(|&u7| u7 <= 127));
            rgb
        });
        assert_equal("to_u7", |isa| {
            let mut output = vec![255; len];
            to_u7(isa, &rows[0], &mut output);
            output
        });
        let woven = noise.values(6 * len);
        assert_equal("split_pairs", |isa| {
            let mut outputs = [(); 2].map(|()| vec![0; 3 * len]);
            let [first, second] = &mut outputs;
            split_pairs(isa, &woven, first, second);
            assert!(woven.iter().step_by(2).eq(&*first) && woven.iter().skip(1).step_by(2).eq(&*second));
            outputs
        });
        assert_equal("split_triples", |isa| {
            let mut outputs = [(); 3].map(|()| vec![0; 2 * len]);
            split_triples(isa, &woven, outputs.each_mut().map(Vec::as_mut_slice));
            for (first, output) in outputs.iter().enumerate() {
                assert!(woven.iter().skip(first).step_by(3).eq(output));
            }
            outputs
        });
    }
}

#[test]
fn every_colour_is_the_same_on_every_instruction_set() {
    // All of luma, u, v in steps; the extremes are among them.
    let steps: Vec<i16> = (0..=51).map(|i| (5 * i) << FRACTION_BITS).collect();
    for &luma in &steps {
        for &u in &steps {
            let (luma, u) = (vec![luma; steps.len()], vec![u; steps.len()]);
            assert_equal("yuv_to_u7", |isa| {
                let mut rgb = [(); 3].map(|()| vec![0; steps.len()]);
                yuv_to_u7(
                    isa,
                    [&luma, &u, &steps],
                    rgb.each_mut().map(Vec::as_mut_slice),
                );
                rgb
            });
        }
    }
}

#[test]
fn a_halved_byte_is_the_rounded_one_halved() {
    for value in 0..=255 << FRACTION_BITS {
        let mut output = [0];
        scalar::to_u7(&[value], &mut output);
        let rounded = (f64::from(value) / f64::from(1 << FRACTION_BITS)).round();
        assert_eq!(f64::from(output[0]), (rounded / 2.0).floor(), "{value}");
    }
}

#[test]
#[should_panic(expected = "length of the values")]
fn values_without_slack_are_a_broken_invariant() {
    let taps = taps(64, 32);
    mix_columns(Isa::detect(), &[0; 64 + SLACK - 1], &taps, &mut [0; 32]);
}

#[test]
#[should_panic(expected = "length of the rows")]
fn rows_of_another_length_are_a_broken_invariant() {
    mix_rows(Isa::detect(), &[0; 127], &[1 << 13; 2], &mut [0; 64]);
}
