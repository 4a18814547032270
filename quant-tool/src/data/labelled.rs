//! Pictures with one label each: MNIST's IDX files and CIFAR-10's archives in, planar u7 pixels out.

use std::collections::BTreeSet;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use image::imageops::FilterType;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use ternwatch_bundle::hex;

/// The most bytes that a file of a data set may hold, unpacked.
const FILE_LEN_MAX: u64 = 1 << 28;
/// The most pictures of one part of a data set.
const PICTURES_MAX: usize = 1 << 20;
/// The largest side of a picture.
const SIDE_MAX: usize = 256;

/// Pictures of one size, each of one class.
pub struct Labelled {
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Width and height of every picture in pixels.
    pub size: (usize, usize),
    /// `[picture][3][height][width]` of u7 values.
    pub pixels: Vec<u8>,
    /// `[picture]`: index of its class.
    pub labels: Vec<u8>,
}

/// A part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// To train with.
    Train,
    /// To test with.
    Test,
}

impl Labelled {
    /// Number of pictures.
    pub fn count(&self) -> usize {
        self.labels.len()
    }

    /// SHA-256 of the pixels and the labels.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(&self.pixels);
        hash.update(&self.labels);
        hex::encode(&hash.finalize())
    }

    /// `[3][height][width]` of a picture.
    pub fn picture(&self, index: usize) -> &[u8] {
        let len = 3 * self.size.0 * self.size.1;
        &self.pixels[index * len..(index + 1) * len]
    }

    /// MNIST (LeCun et al. 1998): `train-images-idx3-ubyte.gz`, `t10k-labels-idx1-ubyte.gz` and so on. Grey becomes three
    /// equal planes.
    pub fn mnist(folder: &Path, part: Part) -> Result<Self> {
        let prefix = match part {
            Part::Train => "train",
            Part::Test => "t10k",
        };
        let images = Idx::read(folder.join(format!("{prefix}-images-idx3-ubyte.gz")), 3)?;
        let labels = Idx::read(folder.join(format!("{prefix}-labels-idx1-ubyte.gz")), 1)?;
        let (height, width) = (images.sizes[1], images.sizes[2]);
        let path = images.path.display();
        ensure!(
            (1..=SIDE_MAX).contains(&height) && (1..=SIDE_MAX).contains(&width),
            "{path}: pictures of {width} x {height} pixels"
        );
        ensure!(
            images.sizes[0] == labels.sizes[0],
            "{path}: {} pictures, but {} labels in {}",
            images.sizes[0],
            labels.sizes[0],
            labels.path.display()
        );
        if let Some(record) = labels.data.iter().position(|&l| l > 9) {
            let label = labels.data[record];
            let path = labels.path.display();
            anyhow::bail!("{path}: record {record} has the label {label}, which is no digit");
        }
        let mut pixels = Vec::with_capacity(3 * images.data.len());
        for picture in images.data.chunks_exact(height * width) {
            let grey: Vec<u8> = picture.iter().map(|v| v >> 1).collect();
            (0..3).for_each(|_| pixels.extend_from_slice(&grey));
        }
        Ok(Self {
            classes: (0..10).map(|digit| digit.to_string()).collect(),
            size: (width, height),
            pixels,
            labels: labels.data,
        })
    }

    /// CIFAR-10 (Krizhevsky 2009) as an archive of pictures, `train.zip` or `test.zip`: `part/class/name.jpg`.
    pub fn cifar10(folder: &Path, part: Part) -> Result<Self> {
        let name = match part {
            Part::Train => "train.zip",
            Part::Test => "test.zip",
        };
        let path = folder.join(name);
        let files = unzip(&path)?;
        let class = |name: &str| name.rsplit('/').nth(1).unwrap_or("").to_owned();
        let classes: BTreeSet<String> = files.iter().map(|(name, _)| class(name)).collect();
        ensure!(
            (2..=256).contains(&classes.len()),
            "{}: pictures of {} classes",
            path.display(),
            classes.len()
        );
        let classes: Vec<String> = classes.into_iter().collect();
        let decode = |(name, bytes): &(String, Vec<u8>)| {
            let picture = image::load_from_memory(bytes)
                .with_context(|| format!("{}: {name}", path.display()))?;
            let picture = match (picture.width(), picture.height()) {
                (32, 32) => picture.into_rgb8(),
                _ => picture
                    .resize_exact(32, 32, FilterType::Triangle)
                    .into_rgb8(),
            };
            let plane = |c: usize| picture.pixels().map(move |p| p.0[c] >> 1);
            Ok((0..3).flat_map(plane).collect::<Vec<u8>>())
        };
        let pixels: Vec<Vec<u8>> = files.par_iter().map(decode).collect::<Result<_>>()?;
        let label = |(name, _): &(String, Vec<u8>)| {
            classes.iter().position(|c| *c == class(name)).unwrap_or(0) as u8
        };
        Ok(Self {
            labels: files.iter().map(label).collect(),
            classes,
            size: (32, 32),
            pixels: pixels.concat(),
        })
    }
}

/// An IDX file: the magic number, the sizes, then bytes.
struct Idx {
    path: PathBuf,
    sizes: Vec<usize>,
    data: Vec<u8>,
}

impl Idx {
    fn read(path: PathBuf, dimensions: u8) -> Result<Self> {
        let file = std::fs::File::open(&path).with_context(|| format!("{}", path.display()))?;
        let mut bytes = Vec::new();
        GzDecoder::new(file)
            .take(FILE_LEN_MAX)
            .read_to_end(&mut bytes)
            .with_context(|| format!("{}: unpacking", path.display()))?;
        Self::parse(path, &bytes, dimensions)
    }

    fn parse(path: PathBuf, bytes: &[u8], dimensions: u8) -> Result<Self> {
        let name = path.display();
        let header = 4 + 4 * usize::from(dimensions);
        ensure!(
            bytes.len() >= header && bytes[..4] == [0, 0, 8, dimensions],
            "{name}: no IDX file of bytes with {dimensions} dimensions"
        );
        let sizes: Vec<usize> = bytes[4..header]
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| u32::from_be_bytes(*b) as usize)
            .collect();
        ensure!(
            sizes[0] <= PICTURES_MAX,
            "{name}: {} records are too many",
            sizes[0]
        );
        let len = sizes.iter().try_fold(1usize, |all, &n| all.checked_mul(n));
        let found = bytes.len() - header;
        ensure!(
            len == Some(found),
            "{name}: {found} bytes after the header, which says {sizes:?}"
        );
        let data = bytes[header..].to_vec();
        Ok(Self { path, sizes, data })
    }
}

/// The files of an archive, by name.
fn unzip(path: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let place = || path.display().to_string();
    let size = std::fs::metadata(path).with_context(place)?.len();
    ensure!(size <= FILE_LEN_MAX, "{}: {size} bytes", place());
    let bytes = std::fs::read(path).with_context(place)?;
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).with_context(place)?;
    ensure!(
        archive.len() <= PICTURES_MAX,
        "{}: {} files are too many",
        place(),
        archive.len()
    );
    let mut files = Vec::new();
    let mut left = FILE_LEN_MAX;
    for index in 0..archive.len() {
        let entry = archive.by_index(index).with_context(place)?;
        if !entry.is_file() {
            continue;
        }
        let name = entry.name().with_context(place)?.into_owned();
        let mut bytes = Vec::new();
        entry
            .take(1 << 20)
            .read_to_end(&mut bytes)
            .with_context(|| format!("{}: {name}", place()))?;
        // A small archive may unpack to a thousand times its size.
        left = left.checked_sub(bytes.len() as u64).with_context(|| {
            format!("{}: its files take more than {FILE_LEN_MAX} bytes", place())
        })?;
        files.push((name, bytes));
    }
    files.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Idx> {
        Idx::parse("labels".into(), bytes, 1)
    }

    #[test]
    fn an_idx_file_is_read() {
        let idx = parse(&[0, 0, 8, 1, 0, 0, 0, 2, 7, 9]).unwrap();
        assert_eq!((idx.sizes, idx.data), (vec![2], vec![7, 9]));
    }

    /// An archive of pictures of one colour each.
    fn archive(folder: &Path, name: &str, pictures: &[(&str, [u8; 3], u32)]) {
        let file = std::fs::File::create(folder.join(name)).unwrap();
        let mut archive = zip::ZipWriter::new(file);
        let options = zip::write::SimpleFileOptions::default();
        for (name, colour, side) in pictures {
            let picture = image::RgbImage::from_pixel(*side, *side, image::Rgb(*colour));
            let mut bytes = Cursor::new(Vec::new());
            picture
                .write_to(&mut bytes, image::ImageFormat::Png)
                .unwrap();
            archive.start_file(*name, options).unwrap();
            std::io::Write::write_all(&mut archive, bytes.get_ref()).unwrap();
        }
        archive.finish().unwrap();
    }

    #[test]
    fn an_archive_of_pictures_is_read_by_its_folders() {
        let folder = tempfile::tempdir().unwrap();
        let pictures = [
            ("test/frog/b.png", [200, 100, 0], 32),
            ("test/frog/a.png", [2, 4, 6], 32),
            // Of another size: it is brought to 32 x 32.
            ("test/cat/a.png", [254, 255, 1], 48),
        ];
        archive(folder.path(), "test.zip", &pictures);
        let read = Labelled::cifar10(folder.path(), Part::Test).unwrap();
        assert_eq!(read.classes, ["cat", "frog"]);
        assert_eq!((read.size, read.count()), ((32, 32), 3));
        assert_eq!(read.labels, [0, 1, 1]);
        let corners: Vec<u8> = read.pixels.iter().copied().step_by(32 * 32).collect();
        assert_eq!(corners, [127, 127, 0, 1, 2, 3, 100, 50, 0]);
        archive(folder.path(), "train.zip", &pictures[..2]);
        let error = Labelled::cifar10(folder.path(), Part::Train).err().unwrap();
        assert!(
            error
                .to_string()
                .contains("train.zip: pictures of 1 classes"),
            "{error}"
        );
        std::fs::write(folder.path().join("train.zip"), b"no archive").unwrap();
        let error = Labelled::cifar10(folder.path(), Part::Train).err().unwrap();
        assert!(format!("{error:#}").contains("train.zip"), "{error:#}");
    }

    #[test]
    fn a_damaged_idx_file_is_refused_by_name() {
        for bytes in [
            &[0, 0, 8, 1, 0, 0, 0, 2, 7][..],
            &[0, 0, 8, 3, 0, 0, 0, 1, 7],
            &[0, 0, 8, 1, 0xFF, 0xFF, 0xFF, 0xFF],
            &[0, 0],
        ] {
            let error = parse(bytes).err().unwrap();
            assert!(error.to_string().starts_with("labels: "), "{error}");
        }
    }
}
