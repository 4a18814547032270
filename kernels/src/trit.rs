//! The ternary digit and its encoding: the only definition of either.
//!
//! Takes trits or bytes and gives the other. Every decoder refuses what no encoder writes, so that a given list of
//! trits has exactly one encoding and a damaged byte is found at its offset.

use thiserror::Error;

/// Trits in one byte of the base-3 code: 3^5 = 243 fits in a byte.
const TRITS_PER_BYTE_BASE3: usize = 5;

/// Bytes of the base-3 code below this bound are valid.
const BASE3_BOUND: u8 = 243;

/// One ternary weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, PartialOrd, Ord, Hash)]
#[repr(i8)]
pub enum Trit {
    /// -1: the activation is subtracted.
    Minus = -1,
    /// 0: the activation is skipped.
    #[default]
    Zero = 0,
    /// +1: the activation is added.
    Plus = 1,
}

impl Trit {
    /// The three values in ascending order.
    pub const ALL: [Self; 3] = [Self::Minus, Self::Zero, Self::Plus];

    /// The value as a number.
    pub const fn value(self) -> i32 {
        self as i32
    }

    /// The base-3 digit: the value plus one.
    const fn digit_base3(self) -> u8 {
        (self as i8 + 1) as u8
    }
}

/// A byte which no encoder writes for the wanted number of trits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a valid trit code at byte {offset}")]
pub struct TritError {
    /// Where the first wrong byte is. One past the end when bytes are missing.
    pub offset: usize,
}

/// Bytes that the base-3 code of `count` trits takes.
pub const fn base3_len(count: usize) -> usize {
    count.div_ceil(TRITS_PER_BYTE_BASE3)
}

/// Encodes five trits a byte, the first trit in the lowest digit; missing trits of the last byte count as zero.
pub fn pack_base3(trits: &[Trit]) -> Vec<u8> {
    let pack = |group: &[Trit]| {
        (0..TRITS_PER_BYTE_BASE3)
            .rev()
            .map(|index| group.get(index).copied().unwrap_or_default())
            .fold(0, |byte, trit| byte * 3 + trit.digit_base3())
    };
    trits.chunks(TRITS_PER_BYTE_BASE3).map(pack).collect()
}

/// Decodes `count` trits from exactly [`base3_len`]`(count)` bytes.
pub fn unpack_base3(bytes: &[u8], count: usize) -> Result<Vec<Trit>, TritError> {
    check_len(bytes, base3_len(count))?;
    let mut trits = Vec::with_capacity(bytes.len() * TRITS_PER_BYTE_BASE3);
    for (offset, &byte) in bytes.iter().enumerate() {
        if byte >= BASE3_BOUND {
            return Err(TritError { offset });
        }
        let mut digits = byte;
        for _ in 0..TRITS_PER_BYTE_BASE3 {
            trits.push(Trit::ALL[usize::from(digits % 3)]);
            digits /= 3;
        }
    }
    drop_tail(trits, count, bytes.len())
}

/// Refuses missing bytes at the end of what is there, and excess bytes at the first of them.
fn check_len(bytes: &[u8], expected: usize) -> Result<(), TritError> {
    if bytes.len() == expected {
        return Ok(());
    }
    let offset = bytes.len().min(expected);
    Err(TritError { offset })
}

/// Cuts the unused trits of the last byte off. They must be zero, or two encodings would mean the same trits.
fn drop_tail(
    mut trits: Vec<Trit>,
    count: usize,
    byte_count: usize,
) -> Result<Vec<Trit>, TritError> {
    if trits[count..].iter().any(|&trit| trit != Trit::Zero) {
        let offset = byte_count - 1;
        return Err(TritError { offset });
    }
    trits.truncate(count);
    Ok(trits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Trit::{Minus, Plus, Zero};

    #[test]
    fn base3_code_is_the_documented_one() {
        assert_eq!(pack_base3(&[Plus, Zero, Minus, Plus, Minus]), [2 + 3 + 54]);
        assert_eq!(pack_base3(&[Minus; 6]), [0, 3 + 9 + 27 + 81]);
        assert_eq!(pack_base3(&[Plus; 5]), [242]);
        assert_eq!(pack_base3(&[]), []);
    }

    #[test]
    fn lengths_round_up() {
        assert_eq!([0, 1, 5, 6, 10].map(base3_len), [0, 1, 1, 2, 2]);
    }

    #[test]
    fn every_base3_byte_is_decoded_or_refused_at_its_offset() {
        for byte in 0..=u8::MAX {
            let decoded = unpack_base3(&[121, byte], 10);
            if byte < BASE3_BOUND {
                assert_eq!(pack_base3(&decoded.unwrap()), [121, byte]);
            } else {
                assert_eq!(decoded, Err(TritError { offset: 1 }));
            }
        }
    }

    #[test]
    fn unused_tail_trits_must_be_zero() {
        assert_eq!(unpack_base3(&[121, 121], 7).unwrap(), [Zero; 7]);
        let tail_plus = pack_base3(&[Zero, Zero, Plus]);
        assert_eq!(
            unpack_base3(&[121, tail_plus[0]], 7),
            Err(TritError { offset: 1 })
        );
    }

    #[test]
    fn missing_and_excess_bytes_are_refused() {
        assert_eq!(unpack_base3(&[121], 6), Err(TritError { offset: 1 }));
        assert_eq!(unpack_base3(&[121; 3], 6), Err(TritError { offset: 2 }));
        assert_eq!(unpack_base3(&[], 1), Err(TritError { offset: 0 }));
        assert_eq!(unpack_base3(&[], 0), Ok(vec![]));
    }
}
