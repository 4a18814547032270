//! Cuts a convolution into tiles: which pixels are computed together, and where their inputs lie meanwhile.
//!
//! Output pixels are numbered along rows which are one pixel longer than the output: that pixel stands for the zero
//! padding on the right of its row and on the left of the next one, its own results are dropped. In this numbering the
//! input of any tap lies at a fixed distance, so that neighbouring pixels of a tile load neighbouring bytes.
//!
//! With stride 2 the input is split into *phases*, the even and odd rows by the even and odd columns. Each phase has the
//! size of the output, and inside it the same fixed distances hold. With stride 1 there is one phase.
//!
//! ```text
//! scratch  = windows; each window = zeros (tile_pixels bytes), channels (channel_len bytes each)
//! channel  = phases; each phase = rows of tile_pixels + columns - 1 bytes, overlapping where the picture is narrow
//! ```
//! A window is what 16-bit offsets reach. Knows nothing of weights.

use std::ops::Range;

use super::Shape;
use super::lanes::{LANE_PIXELS, Lanes};

/// Most lanes that are computed together, on any instruction set.
pub(super) const GROUP_LANES_MAX: usize = 4;

/// Most pixels that are computed together.
pub(super) const GROUP_PIXELS_MAX: usize = GROUP_LANES_MAX * LANE_PIXELS;

/// Bytes that 16-bit offsets reach.
const WINDOW_REACH: usize = 1 << 16;

/// Bytes that a group may touch from its place in a window on, whatever the offset.
pub(super) const WINDOW_LEN: usize = WINDOW_REACH + GROUP_PIXELS_MAX;

/// Tiles grow up to this size, so that the inputs stay in a first-level cache of 32 KiB beside plan and sums.
const TILE_LEN_TARGET: usize = 24 << 10;

/// The offset of zeros in each window.
pub(super) const ZERO_OFFSET: u16 = 0;

/// Where one phase of the input lies in the tile of a channel.
#[derive(Clone, Debug)]
struct Phase {
    rows: Steps,
    columns: Steps,
    /// First byte, counted from the start of the channel.
    offset: usize,
}

/// What one axis of a phase holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Steps {
    /// The input rows (or columns) with this remainder modulo the stride.
    parity: usize,
    /// First step that a tap takes, from the output's row (or column): -1 or 0.
    first: isize,
    /// How many steps: 1 to 3.
    count: usize,
}

/// The layout of the tiles of one convolution.
#[derive(Clone, Debug)]
pub(super) struct Tiling {
    kernel: usize,
    stride: usize,
    in_channels: usize,
    in_height: usize,
    in_width: usize,
    out_height: usize,
    out_width: usize,
    /// Pixels of a full tile: a multiple of `LANE_PIXELS`.
    tile_pixels: usize,
    phases: Vec<Phase>,
    /// Bytes of one channel in a tile.
    channel_len: usize,
    /// Channels in one window, but for the last.
    window_channels: usize,
}

/// Neighbouring output pixels whose inputs are in the scratch together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile {
    first_pixel: usize,
    /// Of the first pixel.
    position: Position,
    lanes: usize,
}

/// Neighbouring output pixels of a tile which are computed together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    /// First pixel, counted from the start of the tile.
    pub(super) start: usize,
    /// `1..=GROUP_LANES_MAX`.
    pub(super) lanes: usize,
    position: Position,
}

/// A pixel by its row and column; the column of the padding is the output's width.
#[derive(Clone, Copy, Debug)]
struct Position {
    row: isize,
    column: usize,
}

impl Position {
    /// Its index in a plane; that of the padding is the next row's first one.
    fn plane_index(self, out_width: usize) -> usize {
        self.row.cast_unsigned() * out_width + self.column
    }
}

impl Tiling {
    pub(super) fn new(shape: &Shape) -> Self {
        let mut tiling = Self {
            kernel: shape.kernel(),
            stride: shape.stride(),
            in_channels: shape.in_channels(),
            in_height: shape.in_height(),
            in_width: shape.in_width(),
            out_height: shape.out_height(),
            out_width: shape.out_width(),
            tile_pixels: 0,
            phases: Vec::new(),
            channel_len: 0,
            window_channels: 0,
        };
        if (shape.kernel(), shape.stride()) == (1, 1) {
            // Neighbours play no part: a picture of one long row has no padding to skip.
            tiling.in_width *= tiling.in_height;
            tiling.in_height = 1;
            tiling.out_width = tiling.in_width;
            tiling.out_height = 1;
        }
        let pixels = tiling.pixels().next_multiple_of(LANE_PIXELS);
        tiling.set_tile_pixels(pixels.min(GROUP_PIXELS_MAX));
        while tiling.tile_pixels < pixels {
            let mut larger = tiling.clone();
            larger.set_tile_pixels(pixels.min(tiling.tile_pixels + GROUP_PIXELS_MAX));
            if larger.tile_len() > TILE_LEN_TARGET {
                break;
            }
            tiling = larger;
        }
        tiling
    }

    /// Bytes of scratch: the tile, and what a group's last loads may touch beyond it.
    pub(super) fn scratch_len(&self) -> usize {
        let last_window = (self.in_channels - 1) / self.window_channels;
        last_window * self.window_len() + self.tile_pixels + WINDOW_LEN
    }

    /// First byte of each window, with the channels in it.
    pub(super) fn windows(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        let channels = (0..self.in_channels).step_by(self.window_channels);
        channels.enumerate().map(|(window, first)| {
            let end = self.in_channels.min(first + self.window_channels);
            (window * self.window_len(), first..end)
        })
    }

    /// Where in its window the input of an item begins, for the first pixel of the tile.
    pub(super) fn item_offset(&self, in_channel: usize, tap_y: usize, tap_x: usize) -> u16 {
        let (row_parity, row) = self.step(tap_y);
        let (column_parity, column) = self.step(tap_x);
        let phase = self
            .phases
            .iter()
            .find(|phase| (phase.rows.parity, phase.columns.parity) == (row_parity, column_parity))
            .expect("each pair of taps has its phase");
        let row = (row - phase.rows.first).cast_unsigned();
        let column = (column - phase.columns.first).cast_unsigned();
        let offset = self.tile_pixels
            + in_channel % self.window_channels * self.channel_len
            + phase.offset
            + row * self.row_pitch(phase)
            + column;
        u16::try_from(offset).expect("a window is no longer than what 16-bit offsets reach")
    }

    /// Lanes of the whole output.
    pub(super) fn lanes(&self) -> usize {
        self.pixels().div_ceil(LANE_PIXELS)
    }

    /// The tiles of some lanes of the output in order.
    pub(super) fn tiles(&self, lanes: Range<usize>) -> impl Iterator<Item = Tile> {
        let tile_lanes = self.tile_pixels / LANE_PIXELS;
        lanes.clone().step_by(tile_lanes).map(move |first| {
            let first_pixel = first * LANE_PIXELS;
            Tile {
                first_pixel,
                position: self.position(first_pixel.cast_signed()),
                lanes: tile_lanes.min(lanes.end - first),
            }
        })
    }

    /// Where in the plane of an output channel the pixels of a lane begin.
    pub(super) fn plane_index(&self, lane: usize) -> usize {
        self.position((lane * LANE_PIXELS).cast_signed())
            .plane_index(self.out_width)
    }

    /// The groups of a tile in order, of at most `group_lanes` lanes.
    #[inline(always)]
    pub(super) fn groups(&self, tile: Tile, group_lanes: usize) -> impl Iterator<Item = Group> {
        let mut position = tile.position;
        (0..tile.lanes).step_by(group_lanes).map(move |first| {
            let group = Group {
                start: first * LANE_PIXELS,
                lanes: group_lanes.min(tile.lanes - first),
                position,
            };
            // The next group's place, without a division.
            position.column += group_lanes * LANE_PIXELS;
            while position.column >= self.pitch() {
                position.column -= self.pitch();
                position.row += 1;
            }
            group
        })
    }

    /// Writes the zeros of all windows. They outlast the tiles of a run.
    pub(super) fn clear(&self, scratch: &mut [u8]) {
        for (start, _) in self.windows() {
            scratch[start..start + self.tile_pixels].fill(0);
        }
    }

    /// Copies the inputs of a tile into the scratch.
    pub(super) fn gather<L: Lanes>(&self, lanes: L, tile: Tile, input: &[u8], scratch: &mut [u8]) {
        for phase in &self.phases {
            let row_len = tile.lanes * LANE_PIXELS + phase.columns.count - 1;
            if self.row_pitch(phase) == self.pitch() {
                // The rows of the phase overlap: each begins within the one before.
                let len = (phase.rows.count - 1) * self.pitch() + row_len;
                self.gather_span(lanes, tile, phase, 0, len, input, scratch);
                continue;
            }
            for row in 0..phase.rows.count {
                self.gather_span(lanes, tile, phase, row, row_len, input, scratch);
            }
        }
    }

    /// Copies `values`, the results of a group, to where they belong in the plane of an output channel, of which `plane` is
    /// what begins at index `start`.
    #[inline(always)]
    pub(super) fn scatter<T: Copy>(
        &self,
        group: Group,
        mut values: &[T],
        plane: &mut [T],
        start: usize,
    ) {
        let mut at = group.position.plane_index(self.out_width) - start;
        let mut room = self.out_width - group.position.column;
        if let (true, Some(output)) = (values.len() <= room, plane.get_mut(at..at + values.len())) {
            output.copy_from_slice(values);
            return;
        }
        while at < plane.len() {
            let output = &mut plane[at..];
            if values.len() <= room {
                copy_row(values, &mut output[..values.len()]);
                return;
            }
            copy_row(&values[..room], &mut output[..room]);
            // The pixel of the padding is dropped.
            values = &values[room + 1..];
            at += room;
            room = self.out_width;
        }
    }

    /// Copies `len` bytes of each channel, from step `row` of the phase on.
    #[expect(clippy::too_many_arguments, reason = "each is one number or one slice")]
    fn gather_span<L: Lanes>(
        &self,
        lanes: L,
        tile: Tile,
        phase: &Phase,
        row: usize,
        len: usize,
        input: &[u8],
        scratch: &mut [u8],
    ) {
        let steps = (phase.rows.first + row.cast_signed()) * self.pitch().cast_signed();
        let first_pixel = tile.first_pixel.cast_signed() + steps + phase.columns.first;
        let position = self.position(first_pixel);
        let offset = self.tile_pixels + phase.offset + row * self.row_pitch(phase);
        let plane_len = self.in_height * self.in_width;
        for (start, channels) in self.windows() {
            let planes = &input[channels.start * plane_len..channels.end * plane_len];
            let tiles = scratch[start + offset..].chunks_mut(self.channel_len);
            for (plane, bytes) in planes.chunks_exact(plane_len).zip(tiles) {
                self.gather_plane(lanes, phase, position, plane, &mut bytes[..len]);
            }
        }
    }

    /// Fills `bytes` with one plane of a phase from a position on.
    fn gather_plane<L: Lanes>(
        &self,
        lanes: L,
        phase: &Phase,
        mut position: Position,
        plane: &[u8],
        mut bytes: &mut [u8],
    ) {
        while !bytes.is_empty() {
            let len = bytes.len().min(self.pitch() - position.column);
            let (row, later) = bytes.split_at_mut(len);
            let input_row =
                position.row * self.stride.cast_signed() + phase.rows.parity.cast_signed();
            let inputs = match usize::try_from(input_row) {
                Ok(y) if y < self.in_height => &plane[y * self.in_width..(y + 1) * self.in_width],
                _ => &[],
            };
            let first = position.column * self.stride + phase.columns.parity;
            copy_strided(
                lanes,
                inputs.get(first..).unwrap_or_default(),
                self.stride,
                row,
            );
            bytes = later;
            position.row += 1;
            position.column = 0;
        }
    }

    /// Pixels from the start of a row to the start of the next, the padding counted once.
    fn pitch(&self) -> usize {
        self.out_width + 1
    }

    /// Pixels of the whole output, but for the padding of the last row.
    fn pixels(&self) -> usize {
        self.out_height * self.pitch() - 1
    }

    fn position(&self, pixel: isize) -> Position {
        let pitch = self.pitch().cast_signed();
        Position {
            row: pixel.div_euclid(pitch),
            column: pixel.rem_euclid(pitch).cast_unsigned(),
        }
    }

    /// The parity of the rows (or columns) that a tap reads, and its step.
    fn step(&self, tap: usize) -> (usize, isize) {
        let distance = tap.cast_signed() - (self.kernel / 2).cast_signed();
        let stride = self.stride.cast_signed();
        let parity = distance.rem_euclid(stride).cast_unsigned();
        (parity, distance.div_euclid(stride))
    }

    /// What the taps of one axis read, for each parity that they read at all.
    fn axis(&self) -> Vec<Steps> {
        let mut axis: Vec<Steps> = Vec::new();
        for (parity, first) in (0..self.kernel).map(|tap| self.step(tap)) {
            match axis.iter_mut().find(|steps| steps.parity == parity) {
                // Taps ascend, and so do the steps of each parity, by one.
                Some(steps) => steps.count += 1,
                None => axis.push(Steps {
                    parity,
                    first,
                    count: 1,
                }),
            }
        }
        axis
    }

    /// Lays the phases of a channel and the channels of a window out.
    fn set_tile_pixels(&mut self, tile_pixels: usize) {
        self.tile_pixels = tile_pixels;
        self.phases.clear();
        self.channel_len = 0;
        let axis = self.axis();
        for &rows in &axis {
            for &columns in &axis {
                let phase = Phase {
                    rows,
                    columns,
                    offset: self.channel_len,
                };
                let row_len = tile_pixels + columns.count - 1;
                self.channel_len += (rows.count - 1) * self.row_pitch(&phase) + row_len;
                self.phases.push(phase);
            }
        }
        self.window_channels = (WINDOW_REACH - tile_pixels) / self.channel_len;
        self.window_channels = self.window_channels.min(self.in_channels);
    }

    /// Bytes from one row of a phase to the next in a tile: rows of a wide picture lie apart, others overlap.
    fn row_pitch(&self, phase: &Phase) -> usize {
        self.pitch().min(self.tile_pixels + phase.columns.count - 1)
    }

    fn window_len(&self) -> usize {
        self.tile_pixels + self.window_channels * self.channel_len
    }

    fn tile_len(&self) -> usize {
        self.tile_pixels + self.in_channels * self.channel_len
    }
}

/// Fills `bytes` with every `stride`-th input, and with zeros where the inputs end.
fn copy_strided<L: Lanes>(lanes: L, inputs: &[u8], stride: usize, bytes: &mut [u8]) {
    let (pairs, last) = inputs.as_chunks::<2>();
    let available = match stride {
        1 => inputs.len(),
        _ => pairs.len() + last.len(),
    };
    let (copied, padding) = bytes.split_at_mut(available.min(bytes.len()));
    match padding {
        [] => {}
        [pixel] => *pixel = 0,
        _ => padding.fill(0),
    }
    if stride == 1 {
        copy_row(&inputs[..copied.len()], copied);
        return;
    }
    if let (Some(byte), &[input]) = (copied.get_mut(pairs.len()), last) {
        *byte = input;
    }
    let len = copied.len().min(pairs.len());
    lanes.copy_first_of_pairs(&pairs[..len], &mut copied[..len]);
}

/// Copies the pixels of a row, of which there are few more often than not: to call the C library's copy takes longer than to copy.
#[inline(always)]
fn copy_row<T: Copy>(from: &[T], to: &mut [T]) {
    match from.len() {
        // The compiler has no vector registers there, the C library has.
        _ if cfg!(target_arch = "arm") => to.copy_from_slice(from),
        8..=16 => copy_ends::<T, 8>(from, to),
        17..=32 => copy_ends::<T, 16>(from, to),
        33..=64 => copy_ends::<T, 32>(from, to),
        65..=128 => copy_ends::<T, 64>(from, to),
        _ => to.copy_from_slice(from),
    }
}

/// Copies the first and the last N of N to 2 N elements.
#[inline(always)]
fn copy_ends<T: Copy, const N: usize>(from: &[T], to: &mut [T]) {
    const LONG_ENOUGH: &str = "there are N at least";
    *to.first_chunk_mut::<N>().expect(LONG_ENOUGH) = *from.first_chunk().expect(LONG_ENOUGH);
    *to.last_chunk_mut::<N>().expect(LONG_ENOUGH) = *from.last_chunk().expect(LONG_ENOUGH);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::isa::Portable;

    fn portable() -> Portable {
        let portable = |isa| match isa {
            Isa::Portable(portable) => Some(portable),
            _ => None,
        };
        Isa::available().into_iter().find_map(portable).unwrap()
    }

    /// Shapes of every kernel and stride: one pixel, odd and even sides, rows longer than a group, several tiles, and
    /// several windows.
    fn shapes() -> Vec<Shape> {
        let sizes = [
            (1, 1, 1),
            (2, 1, 9),
            (3, 9, 1),
            (2, 2, 2),
            (5, 7, 13),
            (3, 12, 40),
            (2, 5, 300),
            (40, 3, 133),
            (700, 4, 61),
        ];
        let mut shapes = Vec::new();
        for (channels, height, width) in sizes {
            for (kernel, stride) in [(1, 1), (1, 2), (3, 1), (3, 2)] {
                let shape = Shape::new(channels, 1, kernel, stride, height, width);
                shapes.push(shape.unwrap());
            }
        }
        shapes
    }

    /// The input of an item for an output pixel; zero in the padding.
    fn input_of(shape: &Shape, input: &[u8], item: [usize; 3], y: usize, x: usize) -> u8 {
        let [channel, tap_y, tap_x] = item;
        let in_y = (y * shape.stride() + tap_y).wrapping_sub(shape.padding());
        let in_x = (x * shape.stride() + tap_x).wrapping_sub(shape.padding());
        if in_y >= shape.in_height() || in_x >= shape.in_width() {
            return 0;
        }
        input[(channel * shape.in_height() + in_y) * shape.in_width() + in_x]
    }

    /// One output plane an item, which shows all of its inputs in place.
    fn item_planes(shape: &Shape, items: &[[usize; 3]], input: &[u8]) -> Vec<Vec<u8>> {
        let tiling = Tiling::new(shape);
        let mut scratch = vec![255; tiling.scratch_len()];
        let mut planes = vec![vec![0; shape.out_len()]; items.len()];
        tiling.clear(&mut scratch);
        for tile in tiling.tiles(0..tiling.lanes()) {
            tiling.gather(portable(), tile, input, &mut scratch);
            for (window, channels) in tiling.windows() {
                for (&[channel, tap_y, tap_x], plane) in items.iter().zip(&mut planes) {
                    if !channels.contains(&channel) {
                        continue;
                    }
                    let offset = tiling.item_offset(channel, tap_y, tap_x);
                    for group in tiling.groups(tile, GROUP_LANES_MAX) {
                        let start = window + usize::from(offset) + group.start;
                        let values = &scratch[start..start + group.lanes * LANE_PIXELS];
                        tiling.scatter(group, values, plane, 0);
                    }
                }
            }
        }
        planes
    }

    #[test]
    fn every_item_of_every_pixel_finds_its_input_and_its_place() {
        for shape in shapes() {
            let (kernel, taps) = (shape.kernel(), shape.kernel() * shape.kernel());
            let item = |item: usize| [item / taps, item % taps / kernel, item % kernel];
            let items: Vec<_> = (0..shape.items_len()).map(item).collect();
            let input: Vec<_> = (0..shape.in_len())
                .map(|i| (i * 37 % 127 + 1) as u8)
                .collect();
            for (&item, plane) in items.iter().zip(item_planes(&shape, &items, &input)) {
                for (pixel, found) in plane.into_iter().enumerate() {
                    let (y, x) = (pixel / shape.out_width(), pixel % shape.out_width());
                    let expected = input_of(&shape, &input, item, y, x);
                    assert_eq!(found, expected, "{shape:?} item {item:?} y {y} x {x}");
                }
            }
        }
    }

    #[test]
    fn windows_hold_all_channels_and_end_within_reach() {
        for shape in shapes() {
            let tiling = Tiling::new(&shape);
            let mut next_channel = 0;
            for (start, channels) in tiling.windows() {
                assert_eq!(channels.start, next_channel);
                next_channel = channels.end;
                assert!(tiling.window_len() <= WINDOW_REACH, "{shape:?}");
                // The last group of a tile still finds its whole window in the scratch.
                let last_group = start + tiling.tile_pixels - LANE_PIXELS;
                assert!(last_group + WINDOW_LEN <= tiling.scratch_len(), "{shape:?}");
            }
            assert_eq!(next_channel, shape.in_channels());
        }
    }

    #[test]
    fn zeros_are_where_the_plan_expects_them() {
        let shape = Shape::new(700, 1, 3, 1, 4, 61).unwrap();
        let tiling = Tiling::new(&shape);
        assert!(tiling.windows().count() > 1);
        let mut scratch = vec![255; tiling.scratch_len()];
        tiling.clear(&mut scratch);
        for tile in tiling.tiles(0..tiling.lanes()) {
            tiling.gather(portable(), tile, &vec![127; shape.in_len()], &mut scratch);
            for (start, _) in tiling.windows() {
                let zeros = &scratch[start + usize::from(ZERO_OFFSET)..][..tiling.tile_pixels];
                assert!(zeros.iter().all(|&byte| byte == 0));
            }
        }
    }
}
