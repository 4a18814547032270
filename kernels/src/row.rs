//! Visits the inputs of a row of outputs, for operations that slide a window over a plane.

/// Calls `visit(out[x], row[x * stride + offset])` for every x whose input lies in the row; the others are left alone.
///
/// `stride` is 1 or 2. There is no branch in the loops, so that the compiler makes vector instructions of them.
#[inline(always)]
pub(crate) fn for_each_input<T>(
    row: &[u8],
    offset: isize,
    stride: usize,
    out: &mut [T],
    visit: impl Fn(&mut T, u8),
) {
    debug_assert!(matches!(stride, 1 | 2), "stride {stride}");
    // The first output whose input is not left of the row, and that input.
    let skipped = match offset {
        ..0 => offset.unsigned_abs().div_ceil(stride),
        _ => 0,
    };
    let first = (skipped * stride).wrapping_add_signed(offset);
    let (Some(out), Some(inputs)) = (out.get_mut(skipped..), row.get(first..)) else {
        return;
    };
    if stride == 1 {
        for (out, &input) in out.iter_mut().zip(inputs) {
            visit(out, input);
        }
        return;
    }
    let (pairs, last) = inputs.as_chunks::<2>();
    for (out, &pair) in out.iter_mut().zip(pairs) {
        // Loaded as one number, of which half is wanted: so it is done to vectors of them.
        visit(out, (u16::from_le_bytes(pair) & 0xff) as u8);
    }
    if let (Some(out), &[input]) = (out.get_mut(pairs.len()), last) {
        visit(out, input);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_output_meets_its_input_or_nothing() {
        for width in 1..=9usize {
            let row: Vec<u8> = (1..=width as u8).collect();
            for stride in [1, 2] {
                for offset in -3..=3 {
                    let mut out = vec![0; width.div_ceil(stride)];
                    for_each_input(&row, offset, stride, &mut out, |out, input| *out += input);
                    let expected: Vec<u8> = (0..out.len())
                        .map(|x| (x * stride).checked_add_signed(offset))
                        .map(|at| at.and_then(|at| row.get(at)).copied().unwrap_or(0))
                        .collect();
                    assert_eq!(out, expected, "{width} {stride} {offset}");
                }
            }
        }
    }
}
