//! From filtered values to u7.

use super::resample::FRACTION_BITS;

/// Fraction bits of the coefficients below.
const COEFFICIENT_BITS: u32 = 13;
// BT.601, limited range: luma 16 to 235, chroma 128 +- 112.
/// 255 / 219.
const LUMA: i32 = 9539;
/// 1.402 * 255 / 224.
const V_TO_RED: i32 = 13075;
/// -0.344136 * 255 / 224.
const U_TO_GREEN: i32 = -3209;
/// -0.714136 * 255 / 224.
const V_TO_GREEN: i32 = -6660;
/// 1.772 * 255 / 224.
const U_TO_BLUE: i32 = 16525;

/// One row of red, green and blue: rounded to a byte, then halved.
pub(crate) fn rgb_to_u7(components: [&[i16]; 3], rgb: [&mut [u8]; 3]) {
    for (values, output) in components.into_iter().zip(rgb) {
        for (&value, u7) in values.iter().zip(output) {
            *u7 = ((value + (1 << (FRACTION_BITS - 1))) >> (FRACTION_BITS + 1)) as u8;
        }
    }
}

/// One row of luma, u and v: converted, rounded and clamped to a byte, then halved.
pub(crate) fn yuv_to_u7([luma, u, v]: [&[i16]; 3], [red, green, blue]: [&mut [u8]; 3]) {
    const SHIFT: u32 = COEFFICIENT_BITS + FRACTION_BITS;
    let to_u7 = |sum: i32| (((sum + (1 << (SHIFT - 1))) >> SHIFT).clamp(0, 255) >> 1) as u8;
    let values = luma.iter().zip(u).zip(v);
    let outputs = red.iter_mut().zip(green).zip(blue);
    for (((&luma, &u), &v), ((red, green), blue)) in values.zip(outputs) {
        let luma = LUMA * (i32::from(luma) - (16 << FRACTION_BITS));
        let (u, v) = (
            i32::from(u) - (128 << FRACTION_BITS),
            i32::from(v) - (128 << FRACTION_BITS),
        );
        *red = to_u7(luma + V_TO_RED * v);
        *green = to_u7(luma + U_TO_GREEN * u + V_TO_GREEN * v);
        *blue = to_u7(luma + U_TO_BLUE * u);
    }
}
