//! The contact sheet: pictures of the video with the boxes that were published for them.
//!
//! Takes documents and the pictures they speak of, gives one picture. Boxes are drawn from the documents alone.

use crate::document::{Detection, Document};
use crate::font;
use anyhow::{Context, Result, ensure};
use image::codecs::png::{CompressionType, FilterType as RowFilter, PngEncoder};
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

const COLUMNS: u32 = 4;
const TILE_WIDTH: u32 = 320;
/// Space between tiles.
const GAP: u32 = 4;
const CAPTION_HEIGHT: u32 = font::HEIGHT + 6;
const PAPER: Rgb<u8> = Rgb([24, 26, 30]);
const INK: Rgb<u8> = Rgb([230, 230, 230]);
const BOX: Rgb<u8> = Rgb([255, 196, 0]);
const BOX_INK: Rgb<u8> = Rgb([0, 0, 0]);

/// The documents to show: `count` of them, evenly spread over all, whatever they contain.
pub(crate) fn choose(documents: &[Document], count: usize) -> Vec<&Document> {
    let count = count.min(documents.len());
    (0..count)
        // The middle of each of `count` equal parts.
        .map(|part| &documents[(2 * part + 1) * documents.len() / (2 * count)])
        .collect()
}

/// One tile a pair, in reading order.
pub(crate) fn compose(pairs: &[(&Document, RgbImage)]) -> Result<RgbImage> {
    ensure!(
        !pairs.is_empty(),
        "there is no picture for the contact sheet"
    );
    let tiles: Vec<RgbImage> = pairs
        .iter()
        .map(|(document, picture)| tile(document, picture))
        .collect();
    let tile_height = tiles.iter().map(RgbImage::height).max().unwrap_or(0);
    let columns = COLUMNS.min(tiles.len() as u32);
    let rows = (tiles.len() as u32).div_ceil(columns);
    let mut sheet = RgbImage::from_pixel(
        columns * (TILE_WIDTH + GAP) + GAP,
        rows * (tile_height + GAP) + GAP,
        PAPER,
    );
    for (index, tile) in (0..).zip(&tiles) {
        let x = GAP + (index % columns) * (TILE_WIDTH + GAP);
        let y = GAP + (index / columns) * (tile_height + GAP);
        imageops::replace(&mut sheet, tile, x.into(), y.into());
    }
    Ok(sheet)
}

/// Writes the sheet as a PNG that is small enough to be shown in a document.
pub(crate) fn save(sheet: &RgbImage, path: &Path) -> Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    let file = BufWriter::new(File::create(path).with_context(cannot)?);
    let encoder = PngEncoder::new_with_quality(file, CompressionType::Best, RowFilter::Adaptive);
    sheet.write_with_encoder(encoder).with_context(cannot)
}

/// A picture made small, its boxes and scores, and a caption under it.
fn tile(document: &Document, picture: &RgbImage) -> RgbImage {
    let height = (u64::from(picture.height()) * u64::from(TILE_WIDTH)
        / u64::from(picture.width().max(1))) as u32;
    let small = imageops::resize(picture, TILE_WIDTH, height.max(1), FilterType::Triangle);
    let mut tile = RgbImage::from_pixel(TILE_WIDTH, small.height() + CAPTION_HEIGHT, PAPER);
    let scale = TILE_WIDTH as f32 / document.frame.width.max(1) as f32;
    let mut annotated = small;
    // The best box comes last, so that nothing covers it.
    let mut detections: Vec<&Detection> = document.detections.iter().collect();
    detections.sort_by(|a, b| a.score.total_cmp(&b.score));
    for detection in detections {
        annotate(&mut annotated, detection, scale);
    }
    imageops::replace(&mut tile, &annotated, 0, 0);
    let persons = match document.detections.len() {
        1 => "1 person".to_owned(),
        count => format!("{count} persons"),
    };
    let caption = format!("frame {}  {persons}", document.sequence);
    font::write(&mut tile, (4, annotated.height() + 3), &caption, INK);
    tile
}

/// Draws a box of two pixels' width and its score.
fn annotate(picture: &mut RgbImage, detection: &Detection, scale: f32) {
    // A float beyond the range of u32 ends at the range's limit.
    let [x1, y1, x2, y2] = detection.box_px.map(|side| (side * scale).round() as u32);
    let (x2, y2) = (x2.max(x1 + 1), y2.max(y1 + 1));
    fill(picture, [x1, y1, x2, y1 + 2], BOX);
    fill(picture, [x1, y2.saturating_sub(2), x2, y2], BOX);
    fill(picture, [x1, y1, x1 + 2, y2], BOX);
    fill(picture, [x2.saturating_sub(2), y1, x2, y2], BOX);

    let score = format!("{:.2}", detection.score);
    let (width, height) = (font::width(&score) + 1, font::HEIGHT + 2);
    // Above the box, or inside where there is no room above.
    let y = y1.checked_sub(height).unwrap_or(y1);
    let x = x1.min(picture.width().saturating_sub(width));
    fill(picture, [x, y, x + width, y + height], BOX);
    font::write(picture, (x + 1, y + 1), &score, BOX_INK);
}

/// Fills x1..x2, y1..y2, as far as it lies in the picture.
fn fill(picture: &mut RgbImage, [x1, y1, x2, y2]: [u32; 4], colour: Rgb<u8>) {
    for y in y1..y2.min(picture.height()) {
        for x in x1..x2.min(picture.width()) {
            picture.put_pixel(x, y, colour);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::tests::document;

    #[test]
    fn chosen_documents_are_evenly_spread_and_in_order() {
        let documents: Vec<Document> = (0..24)
            .map(|sequence| document(sequence, sequence * 100, &[]))
            .collect();
        let chosen: Vec<u64> = choose(&documents, 12)
            .iter()
            .map(|document| document.sequence)
            .collect();
        assert_eq!(chosen, [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23]);
        assert_eq!(choose(&documents[..2], 12).len(), 2);
        assert!(choose(&[], 12).is_empty());
    }

    #[test]
    fn a_box_is_drawn_where_the_document_says_scaled_to_the_tile() {
        let picture = RgbImage::new(768, 576);
        let tile = tile(&document(0, 0, &[0.5]), &picture);
        assert_eq!((tile.width(), tile.height()), (320, 240 + CAPTION_HEIGHT));
        // The box 10, 20, 50, 120 of a frame of 768 pixels: 4, 8, 21, 50 in the tile.
        for (x, y) in [(4, 30), (20, 30), (12, 49)] {
            assert_eq!(*tile.get_pixel(x, y), BOX, "({x}, {y})");
        }
        for (x, y) in [(3, 30), (21, 30), (12, 50), (12, 30)] {
            assert_eq!(tile.get_pixel(x, y).0, [0; 3], "({x}, {y})");
        }
    }

    #[test]
    fn boxes_at_and_beyond_the_border_do_not_panic() {
        let mut picture = RgbImage::new(40, 30);
        for box_px in [
            [0.0, 0.0, 40.0, 30.0],
            [39.9, 29.9, 40.0, 30.0],
            [-5.0, -5.0, 1e9, 1e9],
            [f32::NAN; 4],
        ] {
            annotate(&mut picture, &Detection { score: 1.0, box_px }, 1.0);
        }
        assert_eq!(*picture.get_pixel(0, 0), BOX);
    }

    #[test]
    fn the_sheet_holds_every_tile() {
        let documents: Vec<Document> = (0..5).map(|sequence| document(sequence, 0, &[])).collect();
        let pairs: Vec<(&Document, RgbImage)> = documents
            .iter()
            .map(|document| (document, RgbImage::from_pixel(768, 576, Rgb([9, 9, 9]))))
            .collect();
        let sheet = compose(&pairs).expect("five tiles");
        let tile_height = 240 + CAPTION_HEIGHT;
        assert_eq!(sheet.width(), 4 * (TILE_WIDTH + GAP) + GAP);
        assert_eq!(sheet.height(), 2 * (tile_height + GAP) + GAP);
        // The fifth tile begins the second row.
        assert_eq!(sheet.get_pixel(GAP, 2 * GAP + tile_height).0, [9; 3]);
        assert!(compose(&[]).is_err());
    }
}
