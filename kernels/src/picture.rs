//! From a camera's bytes to a network's input: the arithmetic of letterboxing, a row at a time.
//!
//! Takes rows of bytes, gives rows of u7. Between them are *filtered values*: 16-bit numbers from 0 to 255 with
//! [`FRACTION_BITS`] bits of fraction. Rows are mixed first ([`mix_rows`]), columns second ([`mix_columns`]), each sum rounded
//! once; then colours are converted. Guarantees the same values on every [`Isa`] as [`scalar`], which is the
//! specification. On purpose it does not know formats, frames or borders.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "arm")]
mod neon32;
pub mod scalar;
mod taps;

pub use taps::{SLACK, Taps};

use crate::Isa;

/// Fraction bits of a weight. The weights of a sum are not negative and add up to one.
pub const WEIGHT_BITS: u32 = 14;
/// Fraction bits of a filtered value: 255 and the fraction fit an `i16`.
pub const FRACTION_BITS: u32 = 6;

/// Calls the function of this name that belongs to the instruction set.
macro_rules! dispatch {
    ($isa:expr, $function:ident($($argument:expr),*)) => {
        match $isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(proof) => avx2::$function(proof, $($argument),*),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(proof) => avx2::$function(proof.avx2(), $($argument),*),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(proof) => neon::$function(proof, $($argument),*),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonInOrder(proof) => neon::$function(proof, $($argument),*),
            #[cfg(target_arch = "arm")]
            Isa::Neon32(proof) => neon32::$function(proof, $($argument),*),
            Isa::Scalar | Isa::Portable(_) => scalar::$function($($argument),*),
        }
    };
}

/// First pass: the weighted sum of as many rows as there are weights. `rows` are those rows, one behind the other, each as
/// long as `output`.
///
/// # Panics
/// If a length is wrong.
pub fn mix_rows(isa: Isa, rows: &[u8], weights: &[i16], output: &mut [i16]) {
    assert!(!weights.is_empty(), "there are weights");
    assert_eq!(
        rows.len(),
        weights.len() * output.len(),
        "length of the rows"
    );
    dispatch!(isa, mix_rows(rows, weights, output));
}

/// Second pass: a weighted sum of `values` for each output of the taps. Behind the values that the taps were planned
/// for there are [`SLACK`] more, which may be anything.
///
/// # Panics
/// If a length is wrong.
pub fn mix_columns(isa: Isa, values: &[i16], taps: &Taps, output: &mut [i16]) {
    assert!(
        values.len() >= taps.input_len() + SLACK,
        "length of the values"
    );
    assert_eq!(output.len(), taps.len(), "length of the output");
    if taps.is_identity() {
        output.copy_from_slice(&values[..output.len()]);
        return;
    }
    dispatch!(isa, mix_columns(values, taps, output));
}

/// Takes pairs apart: `first` and `second` are half as long as `values`.
///
/// # Panics
/// If a length is wrong.
pub fn split_pairs(isa: Isa, values: &[i16], first: &mut [i16], second: &mut [i16]) {
    assert_eq!(values.len(), 2 * first.len(), "length of the first values");
    assert_eq!(
        values.len(),
        2 * second.len(),
        "length of the second values"
    );
    dispatch!(isa, split_pairs(values, first, second));
}

/// Takes triples apart: each output is a third as long as `values`.
///
/// # Panics
/// If a length is wrong.
pub fn split_triples(isa: Isa, values: &[i16], outputs: [&mut [i16]; 3]) {
    for output in &outputs {
        assert_eq!(values.len(), 3 * output.len(), "length of an output");
    }
    dispatch!(isa, split_triples(values, outputs));
}

/// Filtered bytes, rounded and halved.
///
/// # Panics
/// If a length is wrong.
pub fn to_u7(isa: Isa, values: &[i16], output: &mut [u8]) {
    assert_eq!(values.len(), output.len(), "length of the output");
    dispatch!(isa, to_u7(values, output));
}

/// Luma, u and v (BT.601, limited range) as red, green and blue: converted, rounded and clamped to a byte, then halved.
///
/// # Panics
/// If a length is wrong.
pub fn yuv_to_u7(isa: Isa, yuv: [&[i16]; 3], rgb: [&mut [u8]; 3]) {
    let len = yuv[0].len();
    assert!(yuv.iter().all(|row| row.len() == len), "length of a row");
    assert!(
        rgb.iter().all(|row| row.len() == len),
        "length of an output"
    );
    dispatch!(isa, yuv_to_u7(yuv, rgb));
}

/// Where the vectors of a row of at least `width` values begin. The last one overlaps the one before where the length is no
/// multiple.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline(always)]
fn vectors(len: usize, width: usize) -> impl Iterator<Item = usize> {
    let last = len - width;
    (0..len.div_ceil(width)).map(move |index| (index * width).min(last))
}

/// Coefficients of the conversion, with [`colour::BITS`] bits of fraction. BT.601, limited range: luma 16 to 235, chroma
/// 128 +- 112.
mod colour {
    use super::FRACTION_BITS;

    pub(super) const BITS: u32 = 13;
    /// 255 / 219.
    pub(super) const LUMA: i16 = 9539;
    /// 1.402 * 255 / 224.
    pub(super) const V_TO_RED: i16 = 13075;
    /// -0.344136 * 255 / 224.
    pub(super) const U_TO_GREEN: i16 = -3209;
    /// -0.714136 * 255 / 224.
    pub(super) const V_TO_GREEN: i16 = -6660;
    /// 1.772 * 255 / 224.
    pub(super) const U_TO_BLUE: i16 = 16525;

    /// Luma of black.
    pub(super) const BLACK: i16 = 16 << FRACTION_BITS;
    /// U and v of grey.
    pub(super) const GREY: i16 = 128 << FRACTION_BITS;

    /// To a byte, and half of it: rounding to a byte and halving it down is one shift of a sum that had half a byte added.
    pub(super) const SHIFT: u32 = BITS + FRACTION_BITS + 1;
    /// Half a byte.
    pub(super) const ROUND: i32 = 1 << (SHIFT - 2);
}

#[cfg(test)]
mod tests;
