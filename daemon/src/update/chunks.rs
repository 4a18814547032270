//! A download in parts that a power cut interrupts but does not undo.
//!
//! Below the state folder: `incoming/DIGEST/`, with the offer, the bytes so far, and a bitmap of the chunks that are
//! durable. A folder belongs to one digest and one offer: chunks of two files, or of two lists of digests, cannot mix.
//! A chunk's bit is set after its bytes were synchronized, and at the start every chunk is checked again, so that a
//! bit is never more than a hint; where the offer has a digest of the whole file only, that one decides at the end.

use super::digest::Digest;
use super::offer::{CHUNK_BYTES, OFFER_BYTES_MAX, Offer};
use crate::disk::{Disk, is_nothing, write_whole};
use std::io;
use std::path::{Path, PathBuf};
use ternwatch_bundle::parse::FILE_LEN_MAX;

/// Chunks that are written before they are synchronized: as many are lost by a power cut at most.
const UNSYNCHRONIZED_MAX: usize = 8;

/// A download.
#[derive(Debug)]
pub struct Download {
    folder: PathBuf,
    offer: Offer,
    /// By chunk: whether it is here and right.
    here: Vec<bool>,
    /// Chunks written since the bitmap was.
    fresh: usize,
}

/// What became of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// It is stored.
    Stored,
    /// It was here before.
    Duplicate,
    /// Not the bytes that were announced, or no chunk of this file. It is asked for again.
    Wrong,
}

impl Download {
    /// Begins a download below `root`, or goes on with it. Downloads of other offers are removed: one at a time bounds
    /// the room they take.
    pub fn open<D: Disk>(disk: &mut D, root: &Path, offer: Offer) -> io::Result<Self> {
        let incoming = root.join("incoming");
        let name = offer.sha256.to_string();
        for other in disk.list(&incoming)? {
            if *other != *name {
                remove(disk, &incoming.join(other))?;
            }
        }
        let folder = incoming.join(&name);
        let document = serde_json::to_vec(&offer)?;
        let known = disk.read(&folder.join("offer"), OFFER_BYTES_MAX).ok();
        let is_known = known
            .and_then(|known| Offer::recall(&known).ok())
            .is_some_and(|known| known.chunks == offer.chunks && known.bytes == offer.bytes);
        if !is_known {
            remove(disk, &folder)?;
            disk.create_folder(&incoming)?;
            disk.sync_folder(root)?;
            disk.create_folder(&folder)?;
            disk.sync_folder(&incoming)?;
            write_whole(disk, &folder, "offer", &document)?;
        }
        let mut download = Self {
            here: vec![false; offer.chunk_count()],
            folder,
            offer,
            fresh: 0,
        };
        download.recall(disk)?;
        Ok(download)
    }

    /// Bytes that all downloads below `root` take of the disk.
    pub fn occupied_bytes<D: Disk>(disk: &D, root: &Path) -> io::Result<u64> {
        let incoming = root.join("incoming");
        let mut bytes = 0_u64;
        for name in disk.list(&incoming)? {
            let folder = incoming.join(name);
            for file in disk.list(&folder)? {
                bytes = bytes.saturating_add(disk.occupied_bytes(&folder.join(file))?);
            }
        }
        Ok(bytes)
    }

    /// Checks the chunks whose bits are set.
    fn recall<D: Disk>(&mut self, disk: &mut D) -> io::Result<()> {
        let bitmap_len = self.here.len().div_ceil(8);
        let bitmap = none_if_missing(disk.read(&self.folder.join("bitmap"), bitmap_len));
        let bytes = none_if_missing(disk.read(&self.folder.join("data"), FILE_LEN_MAX));
        let (Some(bitmap), Some(bytes)) = (bitmap?, bytes?) else {
            return Ok(());
        };
        for (index, is_here) in self.here.iter_mut().enumerate() {
            let is_set = bitmap
                .get(index / 8)
                .is_some_and(|byte| byte >> (index % 8) & 1 == 1);
            let begin = index * CHUNK_BYTES;
            let chunk = bytes.get(begin..begin + self.offer.chunk_bytes(index));
            *is_here = is_set && chunk.is_some_and(|chunk| self.offer.is_chunk(index, chunk));
        }
        Ok(())
    }

    /// The offer.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// The file can be fetched there from now on.
    pub fn relocate(&mut self, url: Option<String>) {
        self.offer.url = url;
    }

    /// Chunks that are here.
    pub fn received(&self) -> usize {
        self.here.iter().filter(|is_here| **is_here).count()
    }

    /// Whether all are here.
    pub fn is_complete(&self) -> bool {
        self.here.iter().all(|is_here| *is_here)
    }

    /// Indices of the chunks that are not here, in their order.
    pub fn missing(&self) -> impl Iterator<Item = usize> {
        let indices = self.here.iter().enumerate();
        indices.filter_map(|(index, is_here)| (!is_here).then_some(index))
    }

    /// Takes a chunk from the network, whatever it claims to be.
    pub fn take<D: Disk>(&mut self, disk: &mut D, index: usize, bytes: &[u8]) -> io::Result<Chunk> {
        if !self.offer.is_chunk(index, bytes) {
            return Ok(Chunk::Wrong);
        }
        match self.here.get_mut(index) {
            Some(true) => return Ok(Chunk::Duplicate),
            Some(is_here) => {
                let offset = (index * CHUNK_BYTES) as u64;
                disk.write_at(&self.folder.join("data"), offset, bytes)?;
                *is_here = true;
            }
            None => return Ok(Chunk::Wrong),
        }
        self.fresh += 1;
        if self.fresh >= UNSYNCHRONIZED_MAX || self.is_complete() {
            self.synchronize(disk)?;
        }
        Ok(Chunk::Stored)
    }

    /// Makes what is here durable.
    pub fn synchronize<D: Disk>(&mut self, disk: &mut D) -> io::Result<()> {
        if self.fresh == 0 {
            return Ok(());
        }
        let mut bitmap = vec![0_u8; self.here.len().div_ceil(8)];
        for (index, is_here) in self.here.iter().enumerate() {
            if let Some(byte) = bitmap.get_mut(index / 8) {
                *byte |= u8::from(*is_here) << (index % 8);
            }
        }
        disk.sync_file(&self.folder.join("data"))?;
        write_whole(disk, &self.folder, "bitmap", &bitmap)?;
        self.fresh = 0;
        Ok(())
    }

    /// The whole file, once it is complete. `None` if it is not what the offer announced: then the offer's digests
    /// contradict each other, or the disk lost something; nothing of it is kept.
    pub fn finish<D: Disk>(self, disk: &mut D) -> io::Result<Option<Vec<u8>>> {
        let bytes = none_if_missing(disk.read(&self.folder.join("data"), FILE_LEN_MAX))?;
        let bytes = bytes.filter(|bytes| Digest::of(bytes) == self.offer.sha256);
        if bytes.is_none() {
            remove(disk, &self.folder)?;
        }
        Ok(bytes)
    }

    /// Removes what was downloaded.
    pub fn discard<D: Disk>(disk: &mut D, root: &Path, sha256: &Digest) -> io::Result<()> {
        remove(disk, &root.join("incoming").join(sha256.to_string()))
    }
}

fn none_if_missing(result: io::Result<Vec<u8>>) -> io::Result<Option<Vec<u8>>> {
    match result {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if is_nothing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a download's folder and the files in it.
fn remove<D: Disk>(disk: &mut D, folder: &Path) -> io::Result<()> {
    // The offer first: without it nothing else in the folder is believed.
    let mut names = disk.list(folder)?;
    names.sort_by_key(|name| *name != *"offer");
    for name in names {
        disk.remove_file(&folder.join(name))?;
    }
    disk.remove_folder(folder)
}
