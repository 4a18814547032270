//! A file system in memory that keeps what was synchronized apart from what was not, fails at a chosen step, and
//! shows what a power cut at any moment may leave behind.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use ternwatch_daemon::disk::Disk;

#[derive(Clone, Debug, PartialEq)]
enum Entry {
    Folder,
    File(usize),
}

#[derive(Clone, Debug, Default)]
struct File {
    live: Vec<u8>,
    durable: Vec<u8>,
}

/// What a power cut leaves of that which was not synchronized. A real file system may do any of these.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cut {
    /// Nothing.
    Lost,
    /// Everything.
    Kept,
    /// The names, but not the bytes.
    NamesOnly,
    /// The names and the first half of the bytes that were not synchronized.
    Torn,
    /// The bytes, but not the names.
    BytesOnly,
}

pub(crate) const CUTS: [Cut; 5] = [
    Cut::Lost,
    Cut::Kept,
    Cut::NamesOnly,
    Cut::Torn,
    Cut::BytesOnly,
];

/// From which step on steps fail, and how many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    Never,
    /// This one only: a full or faulty card that recovers.
    Once(usize),
    /// This one and all that follow: the power is gone.
    From(usize),
}

#[derive(Clone, Debug)]
pub(crate) struct SimulatedDisk {
    entries: BTreeMap<PathBuf, Entry>,
    durable: BTreeMap<PathBuf, Entry>,
    files: Vec<File>,
    pub(crate) steps: usize,
    pub(crate) fault: Fault,
    /// Bytes that it holds.
    pub(crate) capacity: u64,
}

impl SimulatedDisk {
    pub(crate) fn with_folder(root: &Path) -> Self {
        let entries = BTreeMap::from([(root.to_owned(), Entry::Folder)]);
        Self {
            durable: entries.clone(),
            entries,
            files: Vec::new(),
            steps: 0,
            fault: Fault::Never,
            capacity: u64::MAX,
        }
    }

    /// The disk that the next start finds.
    pub(crate) fn after(&self, cut: Cut) -> Self {
        let mut after = self.clone();
        let keeps_names = matches!(cut, Cut::Kept | Cut::NamesOnly | Cut::Torn);
        after.entries = if keeps_names {
            self.entries.clone()
        } else {
            self.durable.clone()
        };
        // What is in a folder whose own name was lost is lost with it.
        let known = after.entries.clone();
        after.entries.retain(|path, _| {
            path.ancestors()
                .skip(1)
                .filter(|above| !above.as_os_str().is_empty() && *above != Path::new("/"))
                .all(|above| known.contains_key(above))
        });
        for file in &mut after.files {
            let is_synchronized = file.live == file.durable;
            file.live = match cut {
                Cut::Kept | Cut::BytesOnly => file.live.clone(),
                Cut::Torn if !is_synchronized => {
                    // What was appended to synchronized bytes is torn, or else all of it.
                    let is_appended = file.live.starts_with(&file.durable);
                    let whole = if is_appended { file.durable.len() } else { 0 };
                    file.live[..whole + (file.live.len() - whole) / 2].to_vec()
                }
                _ => file.durable.clone(),
            };
            file.durable = file.live.clone();
        }
        after.durable = after.entries.clone();
        after.steps = 0;
        after.fault = Fault::Never;
        after
    }

    /// Damages a file behind everybody's back.
    pub(crate) fn damage(&mut self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let Some(Entry::File(index)) = self.entries.get(path) else {
            panic!("{} is no file", path.display());
        };
        change(&mut self.files[*index].live);
    }

    fn step(&mut self) -> io::Result<()> {
        let step = self.steps;
        self.steps += 1;
        let fails = match self.fault {
            Fault::Never => false,
            Fault::Once(at) => step == at,
            Fault::From(at) => step >= at,
        };
        if fails {
            return Err(io::Error::from(ErrorKind::StorageFull));
        }
        Ok(())
    }

    /// Bytes of its files, holes included.
    pub(crate) fn used(&self) -> u64 {
        let len = |entry: &Entry| match entry {
            Entry::File(index) => self.files[*index].live.len() as u64,
            Entry::Folder => 0,
        };
        self.entries.values().map(len).sum()
    }

    /// Whether a file can have this length.
    fn has_room(&self, index: usize, len: usize) -> io::Result<()> {
        let others = self.used() - self.files[index].live.len() as u64;
        if others + len as u64 > self.capacity {
            return Err(io::Error::from(ErrorKind::StorageFull));
        }
        Ok(())
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.entries.get(path) {
            Some(Entry::File(index)) => Ok(*index),
            _ => Err(io::Error::from(ErrorKind::NotFound)),
        }
    }

    fn make(&mut self, path: &Path) -> io::Result<usize> {
        let parent = path.parent().expect("a file is in a folder");
        if self.entries.get(parent) != Some(&Entry::Folder) {
            return Err(io::Error::from(ErrorKind::NotFound));
        }
        self.file(path).or_else(|_| {
            self.files.push(File::default());
            let index = self.files.len() - 1;
            self.entries.insert(path.into(), Entry::File(index));
            Ok(index)
        })
    }
}

impl Disk for SimulatedDisk {
    type Lock = ();

    fn lock(&mut self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn read(&self, path: &Path, len_max: usize) -> io::Result<Vec<u8>> {
        let bytes = &self.files[self.file(path)?].live;
        if bytes.len() > len_max {
            return Err(io::Error::from(ErrorKind::InvalidData));
        }
        Ok(bytes.clone())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        let inside = self
            .entries
            .keys()
            .filter(|path| path.parent() == Some(folder));
        Ok(inside
            .filter_map(|path| path.file_name())
            .map(OsString::from)
            .collect())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.capacity.saturating_sub(self.used()))
    }

    fn occupied_bytes(&self, path: &Path) -> io::Result<u64> {
        Ok(self
            .file(path)
            .map_or(0, |index| self.files[index].live.len() as u64))
    }

    fn create_folder(&mut self, path: &Path) -> io::Result<()> {
        self.step()?;
        self.entries.insert(path.into(), Entry::Folder);
        Ok(())
    }

    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        // A file that was there keeps its bytes on the card until the new ones are synchronized.
        let index = self.make(path)?;
        if let Err(error) = self.step().and_then(|()| self.has_room(index, bytes.len())) {
            // Out of space or of power in the middle of it.
            self.files[index].live = bytes[..bytes.len() / 2].to_vec();
            return Err(error);
        }
        self.files[index].live = bytes.to_vec();
        Ok(())
    }

    fn write_at(&mut self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let index = self.make(path)?;
        let end = offset as usize + bytes.len();
        let is_cut = self.step().and_then(|()| self.has_room(index, end));
        let bytes = if is_cut.is_err() {
            &bytes[..bytes.len() / 2]
        } else {
            bytes
        };
        let live = &mut self.files[index].live;
        let offset = offset as usize;
        live.resize(live.len().max(offset + bytes.len()), 0);
        live[offset..offset + bytes.len()].copy_from_slice(bytes);
        is_cut
    }

    fn sync_file(&mut self, path: &Path) -> io::Result<()> {
        self.step()?;
        let index = self.file(path)?;
        let file = &mut self.files[index];
        file.durable = file.live.clone();
        Ok(())
    }

    fn sync_folder(&mut self, path: &Path) -> io::Result<()> {
        self.step()?;
        let is_inside = |inner: &Path| inner.parent() == Some(path);
        self.durable.retain(|inner, _| !is_inside(inner));
        for (inner, entry) in &self.entries {
            if is_inside(inner) {
                self.durable.insert(inner.clone(), entry.clone());
            }
        }
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        let index = self.file(from)?;
        self.entries.remove(from);
        self.entries.insert(to.into(), Entry::File(index));
        Ok(())
    }

    fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.step()?;
        self.entries.remove(path);
        Ok(())
    }

    fn remove_folder(&mut self, path: &Path) -> io::Result<()> {
        self.step()?;
        if !self.list(path)?.is_empty() {
            return Err(io::Error::from(ErrorKind::DirectoryNotEmpty));
        }
        self.entries.remove(path);
        Ok(())
    }
}
