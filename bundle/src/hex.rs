//! Lower-case hexadecimal, as digests and keys are written in text.

use std::fmt::{Formatter, Result, Write as _};

/// Writes two digits a byte.
pub(crate) fn write(bytes: &[u8], f: &mut Formatter<'_>) -> Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Two digits a byte.
pub fn encode(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Exactly `2 * N` lower-case digits, or nothing.
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    if !is_digits(text, 2 * N) {
        return None;
    }
    let mut bytes = [0; N];
    bytes
        .iter_mut()
        .zip(pairs(text))
        .for_each(|(byte, pair)| *byte = pair);
    Some(bytes)
}

/// Any even number of lower-case digits, or nothing. The caller bounds the text.
pub fn decode_all(text: &str) -> Option<Vec<u8>> {
    let is_even = text.len().is_multiple_of(2);
    (is_even && is_digits(text, text.len())).then(|| pairs(text).collect())
}

/// The bytes that checked digits write.
fn pairs(text: &str) -> impl Iterator<Item = u8> {
    let pairs = text.as_bytes().chunks_exact(2);
    pairs.map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
}

/// Whether the text is `count` lower-case digits and nothing else.
pub(crate) fn is_digits(text: &str, count: usize) -> bool {
    text.len() == count && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn digit(character: u8) -> u8 {
    match character {
        b'0'..=b'9' => character - b'0',
        _ => character - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_inverts_encode() {
        let bytes: [u8; 256] = std::array::from_fn(|i| i as u8);
        assert_eq!(decode(&encode(&bytes)), Some(bytes));
        assert_eq!(decode_all(&encode(&bytes)), Some(bytes.to_vec()));
    }

    #[test]
    fn upper_case_and_other_lengths_are_refused() {
        assert_eq!(decode::<2>("00ff"), Some([0, 255]));
        for text in ["00FF", "00f", "00ff0", "00fg", "+0ff", ""] {
            assert_eq!(decode::<2>(text), None, "{text}");
        }
        for text in ["00FF", "00f", "00fg", "+0ff"] {
            assert_eq!(decode_all(text), None, "{text}");
        }
    }
}
