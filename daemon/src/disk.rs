//! What the stores ask of a file system, one step at a time, so that tests can fail or cut the power after each.
//!
//! Nothing is durable before it was synchronized: a file's bytes by [`Disk::sync_file`], its name by
//! [`Disk::sync_folder`] of the folder it is in. A renamed file replaces another one in one step.

use rustix::fs::{FlockOperation, flock, statvfs};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// A file system.
pub trait Disk {
    /// Keeps everybody else away while it lives.
    type Lock;

    /// Waits until nobody else holds the lock file.
    fn lock(&mut self, path: &Path) -> io::Result<Self::Lock>;
    /// The bytes of a file; an error if there are more than `len_max`.
    fn read(&self, path: &Path, len_max: usize) -> io::Result<Vec<u8>>;
    /// The names in a folder; none if the folder is not there.
    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>>;
    /// Bytes that may still be written below a folder.
    fn free_bytes(&self, folder: &Path) -> io::Result<u64>;
    /// Bytes that a file takes of the disk, which are less than its length where it has holes; 0 if it is not there.
    fn occupied_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Makes a folder, unless it is there.
    fn create_folder(&mut self, path: &Path) -> io::Result<()>;
    /// Makes a file with these bytes; whatever was there is gone.
    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Overwrites a part of a file, which grows where needed; makes the file if it is not there.
    fn write_at(&mut self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes a file's bytes durable.
    fn sync_file(&mut self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&mut self, path: &Path) -> io::Result<()>;
    /// Gives a file another name; a file of that name is replaced.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file, if it is there.
    fn remove_file(&mut self, path: &Path) -> io::Result<()>;
    /// Removes an empty folder, if it is there.
    fn remove_folder(&mut self, path: &Path) -> io::Result<()>;
}

/// All of a file, which is an error if it is longer than `len_max` bytes.
pub fn read(path: &Path, len_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(len_max as u64 + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() > len_max {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            format!("longer than {len_max} bytes"),
        ));
    }
    Ok(bytes)
}

/// Whether reading failed because there is nothing, or something too long to be ours. Anything else may pass.
pub fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData)
}

/// The operating system's.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    type Lock = File;

    fn lock(&mut self, path: &Path) -> io::Result<File> {
        let file = open_or_create(path)?;
        // Held while the file is open.
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    }

    fn read(&self, path: &Path, len_max: usize) -> io::Result<Vec<u8>> {
        read(path, len_max)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        match fs::read_dir(folder) {
            Ok(entries) => entries
                .map(|entry| entry.map(|entry| entry.file_name()))
                .collect(),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        let free = statvfs(folder)?;
        Ok(free.f_bavail.saturating_mul(free.f_frsize))
    }

    fn occupied_bytes(&self, path: &Path) -> io::Result<u64> {
        match fs::metadata(path) {
            // As the system counts them, whatever the file system's blocks.
            Ok(metadata) => Ok(metadata.blocks().saturating_mul(512)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn create_folder(&mut self, path: &Path) -> io::Result<()> {
        unless(ErrorKind::AlreadyExists, fs::create_dir(path))
    }

    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        File::create(path)?.write_all(bytes)
    }

    fn write_at(&mut self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        open_or_create(path)?.write_all_at(bytes, offset)
    }

    fn sync_file(&mut self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn sync_folder(&mut self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        unless(ErrorKind::NotFound, fs::remove_file(path))
    }

    fn remove_folder(&mut self, path: &Path) -> io::Result<()> {
        unless(ErrorKind::NotFound, fs::remove_dir(path))
    }
}

/// A file to write to, with what is in it.
pub(crate) fn open_or_create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).open(path)
}

fn unless(wanted: ErrorKind, result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == wanted => Ok(()),
        result => result,
    }
}

/// Puts a file into a folder in one step: whoever looks later finds the old file or the new one, whole and durable. What could not
/// be written takes no room.
pub fn write_whole<D: Disk>(
    disk: &mut D,
    folder: &Path,
    name: &str,
    bytes: &[u8],
) -> io::Result<()> {
    let fresh = folder.join(format!("{name}.new"));
    let written = disk
        .write(&fresh, bytes)
        .and_then(|()| disk.sync_file(&fresh))
        .and_then(|()| disk.rename(&fresh, &folder.join(name)));
    if written.is_err() {
        // The card may be full, and then a half file is in everybody's way. That the write failed is what matters.
        let _ = disk.remove_file(&fresh);
    }
    written?;
    disk.sync_folder(folder)
}
