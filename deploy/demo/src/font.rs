//! A font of five by seven pixels, with just the characters that the contact sheet writes.

use image::{Rgb, RgbImage};

/// Width of a character with the column that separates it from the next one.
const ADVANCE: u32 = 6;
/// Height of a character.
pub(crate) const HEIGHT: u32 = 7;

/// One character's rows from the top, the leftmost pixel in bit 4.
fn glyph(character: char) -> [u8; HEIGHT as usize] {
    match character {
        '0' => [
            0b01110, 0b10001, 0b10011, 0b10101, 0b11001, 0b10001, 0b01110,
        ],
        '1' => [
            0b00100, 0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110,
        ],
        '2' => [
            0b01110, 0b10001, 0b00001, 0b00010, 0b00100, 0b01000, 0b11111,
        ],
        '3' => [
            0b11111, 0b00010, 0b00100, 0b00010, 0b00001, 0b10001, 0b01110,
        ],
        '4' => [
            0b00010, 0b00110, 0b01010, 0b10010, 0b11111, 0b00010, 0b00010,
        ],
        '5' => [
            0b11111, 0b10000, 0b11110, 0b00001, 0b00001, 0b10001, 0b01110,
        ],
        '6' => [
            0b00110, 0b01000, 0b10000, 0b11110, 0b10001, 0b10001, 0b01110,
        ],
        '7' => [
            0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b01000, 0b01000,
        ],
        '8' => [
            0b01110, 0b10001, 0b10001, 0b01110, 0b10001, 0b10001, 0b01110,
        ],
        '9' => [
            0b01110, 0b10001, 0b10001, 0b01111, 0b00001, 0b00010, 0b01100,
        ],
        '.' => [0, 0, 0, 0, 0, 0b01100, 0b01100],
        'a' => [0, 0, 0b01110, 0b00001, 0b01111, 0b10001, 0b01111],
        'e' => [0, 0, 0b01110, 0b10001, 0b11111, 0b10000, 0b01110],
        'f' => [
            0b00110, 0b01001, 0b01000, 0b11100, 0b01000, 0b01000, 0b01000,
        ],
        'm' => [0, 0, 0b11010, 0b10101, 0b10101, 0b10001, 0b10001],
        'n' => [0, 0, 0b10110, 0b11001, 0b10001, 0b10001, 0b10001],
        'o' => [0, 0, 0b01110, 0b10001, 0b10001, 0b10001, 0b01110],
        'p' => [0, 0, 0b11110, 0b10001, 0b11110, 0b10000, 0b10000],
        'r' => [0, 0, 0b10110, 0b11001, 0b10000, 0b10000, 0b10000],
        's' => [0, 0, 0b01111, 0b10000, 0b01110, 0b00001, 0b11110],
        _ => [0; HEIGHT as usize],
    }
}

/// Width of a text in pixels.
pub(crate) fn width(text: &str) -> u32 {
    text.chars().count() as u32 * ADVANCE
}

/// Writes a text with its upper left corner at (x, y); what falls outside of the picture is left out.
pub(crate) fn write(picture: &mut RgbImage, (x, y): (u32, u32), text: &str, colour: Rgb<u8>) {
    for (index, character) in text.chars().enumerate() {
        for (row, bits) in (0..).zip(glyph(character)) {
            for column in 0..5 {
                let at = (x + index as u32 * ADVANCE + column, y + row);
                if bits >> (4 - column) & 1 == 1
                    && at.0 < picture.width()
                    && at.1 < picture.height()
                {
                    picture.put_pixel(at.0, at.1, colour);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_of_the_sheet_has_a_distinct_glyph() {
        let needed: Vec<char> = "0123456789.frame persons"
            .chars()
            .filter(|c| *c != ' ')
            .collect();
        for (index, &a) in needed.iter().enumerate() {
            assert_ne!(glyph(a), [0; 7], "{a} is blank");
            for &b in &needed[index + 1..] {
                assert!(a == b || glyph(a) != glyph(b), "{a} looks like {b}");
            }
        }
    }

    #[test]
    fn a_text_that_leaves_the_picture_is_cut() {
        let mut picture = RgbImage::new(8, 5);
        write(&mut picture, (3, 2), "88", Rgb([255; 3]));
        // The upper left corner of an 8 is empty, the pixel to its right is set.
        assert_eq!(picture.get_pixel(3, 2).0, [0; 3]);
        assert_eq!(picture.get_pixel(4, 2).0, [255; 3]);
        assert_eq!(width("88"), 12);
    }
}
