//! The models on the device, and the record of which of them is in use.
//!
//! Below the state folder: `state`, one small file with a checksum, replaced as a whole; `models/DIGEST/model.tern`,
//! never changed once it has that name; `lock`, held during every change, so that the daemon and the command line do
//! not undo each other's. A power cut at any moment leaves the state before or the state after. A damaged state file
//! costs the updates, never the start: the packaged model is always there.

use super::chunks::Download;
use super::digest::Digest;
use super::machine::{Event, Identity, Machine, NotNow, Record};
use super::offer::{OFFER_BYTES_MAX, Offer};
use crate::disk::{Disk, write_whole};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use ternwatch_bundle::parse::FILE_LEN_MAX;
use thiserror::Error;

/// Longest state file in bytes: far above what a full record takes.
const STATE_BYTES_MAX: usize = 64 << 10;
/// First line of the state file, before its digest.
const STATE_TITLE: &str = "ternwatch model state 1 ";
/// Room that must remain after a model was stored: for the state file and for everybody else.
const SPARE_BYTES: u64 = 1 << 20;
/// What a download takes beside its chunks: its offer, its bitmap, their folders, and the ends of blocks.
const DOWNLOAD_BYTES: u64 = 128 << 10;
/// The name of a model's file in its folder.
const MODEL_FILE: &str = "model.tern";
/// The document of the offer that waits, whole as it came.
const OFFERED_FILE: &str = "offered";

/// The store.
#[derive(Debug)]
pub struct Store<D> {
    disk: D,
    root: PathBuf,
    machine: Machine,
    /// Whether the state file was damaged when it was read last.
    damage: Option<String>,
}

/// Why something was not stored or not found.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file system refuses.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The memory card is full.
    #[error("{} has room for {free} bytes, {needed} are needed", path.display())]
    NoSpace {
        /// The state folder.
        path: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that are needed.
        needed: u64,
    },
    /// Not the model that its name says.
    #[error("{} is damaged: its SHA-256 is {found}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it has become.
        found: Digest,
    },
    /// It does not fit what is going on.
    #[error(transparent)]
    NotNow(#[from] NotNow),
}

impl<D: Disk> Store<D> {
    /// Opens the state folder, which must be there. `packaged` is the model that the program was installed with.
    pub fn open(
        disk: D,
        root: &Path,
        packaged: Option<Identity>,
        attempts_max: u32,
    ) -> Result<Self, StoreError> {
        let mut store = Self {
            disk,
            root: root.into(),
            machine: Machine::new(Record::default(), packaged, attempts_max),
            damage: None,
        };
        // A card that cannot read it must not keep the packaged model from working; nothing is written over it.
        let record = match store.read() {
            Err(StoreError::Io { source, .. }) if source.kind() != ErrorKind::PermissionDenied => {
                Err(source.to_string())
            }
            read => read?,
        };
        store.adopt(record);
        Ok(store)
    }

    /// Takes only models of these names from now on; none: all.
    pub fn accept_only(&mut self, names: Vec<String>) {
        self.machine.accept_only(names);
    }

    /// What is in use, and where the current job is.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// What was wrong with the state file when it was read last: then the packaged model is in use.
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file system.
    pub fn disk(&mut self) -> &mut D {
        &mut self.disk
    }

    /// Reads the state file again: somebody else may have changed it.
    pub fn reload(&mut self) -> Result<(), StoreError> {
        let record = self.read()?;
        self.adopt(record);
        Ok(())
    }

    /// What the state file says, or what is wrong with its content.
    fn read(&self) -> Result<Result<Record, String>, StoreError> {
        let path = self.root.join("state");
        match self.disk.read(&path, STATE_BYTES_MAX) {
            Ok(bytes) => Ok(parse_state(&bytes).map_err(String::from)),
            Err(error) => match error.kind() {
                ErrorKind::NotFound => Ok(Ok(Record::default())),
                // Not a file of ours.
                ErrorKind::InvalidData => Ok(Err(error.to_string())),
                // That passes, or not: the content may be good.
                _ => Err(failed("read", &path)(error)),
            },
        }
    }

    fn adopt(&mut self, record: Result<Record, String>) {
        self.damage = None;
        let record = record.unwrap_or_else(|damage| {
            let path = self.root.join("state");
            self.damage = Some(format!("{}: {damage}", path.display()));
            Record::after_damage()
        });
        self.machine.adopt(record);
    }

    /// Takes an event under the lock, on what the state file says now. When this returns, what changed is durable.
    pub fn step(&mut self, event: Event) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        self.reload()?;
        self.step_locked(event)
    }

    fn lock(&mut self) -> Result<D::Lock, StoreError> {
        let path = self.root.join("lock");
        self.disk.lock(&path).map_err(failed("lock", &path))
    }

    fn step_locked(&mut self, event: Event) -> Result<(), StoreError> {
        let mut next = self.machine.clone();
        next.step(event)?;
        if next.record() != self.machine.record() {
            let bytes = format_state(next.record());
            write_whole(&mut self.disk, &self.root, "state", &bytes)
                .map_err(failed("replace", &self.root.join("state")))?;
            self.damage = None;
        }
        self.machine = next;
        Ok(())
    }

    /// Stores a model that passed every check, and makes it the candidate, unless the machine objects (then its
    /// phase says why).
    pub fn admit(&mut self, job: &str, identity: &Identity, file: &[u8]) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        self.reload()?;
        let found = Digest::of(file);
        if found != identity.sha256 {
            let path = self.model_path(&identity.sha256);
            return Err(StoreError::Damaged { path, found });
        }
        if self.machine.objection(identity).is_none() {
            self.put(&identity.sha256, file)?;
        }
        self.step_locked(Event::Admit {
            job: job.into(),
            identity: identity.clone(),
        })
    }

    /// Has an offer wait, unless the machine answers it at once (then its phase says how): keeps its document for the time
    /// when it is installed.
    pub fn propose(
        &mut self,
        job: &str,
        identity: &Identity,
        document: &[u8],
    ) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        self.reload()?;
        if self.machine.is_worth_fetching(identity) {
            // A power cut before the record follows leaves a document of another job, which is not believed.
            write_whole(&mut self.disk, &self.root, OFFERED_FILE, document)
                .map_err(failed("write", &self.root.join(OFFERED_FILE)))?;
        }
        self.step_locked(Event::Propose {
            job: job.into(),
            identity: identity.clone(),
        })
    }

    /// The document of the offer that waits.
    pub fn offered_document(&self) -> Result<Vec<u8>, StoreError> {
        let path = self.root.join(OFFERED_FILE);
        self.disk
            .read(&path, OFFER_BYTES_MAX)
            .map_err(failed("read", &path))
    }

    /// Begins a download or goes on with it, if there is room for what is missing of it and for the model once it is stored.
    pub fn download(&mut self, offer: Offer) -> Result<Download, StoreError> {
        // All that was downloaded is either a part of this file or makes room for it, and is not touched before there is enough.
        let incoming = self.root.join("incoming");
        let freed = Download::occupied_bytes(&self.disk, &self.root)
            .map_err(failed("look at", &incoming))?;
        // Once as chunks and once as a model.
        let twice = (offer.bytes as u64).saturating_mul(2);
        self.require_space(twice.saturating_add(DOWNLOAD_BYTES), freed)?;
        Download::open(&mut self.disk, &self.root, offer).map_err(failed("write below", &incoming))
    }

    fn put(&mut self, sha256: &Digest, file: &[u8]) -> Result<(), StoreError> {
        // An immutable file that is whole need not be written again.
        if self.model(sha256).is_ok() {
            return Ok(());
        }
        self.require_space(file.len() as u64, 0)?;
        let models = self.root.join("models");
        let folder = models.join(sha256.to_string());
        let root = self.root.clone();
        for (folder, parent) in [(&models, &root), (&folder, &models)] {
            self.disk
                .create_folder(folder)
                .map_err(failed("create", folder))?;
            self.disk
                .sync_folder(parent)
                .map_err(failed("synchronize", parent))?;
        }
        write_whole(&mut self.disk, &folder, MODEL_FILE, file)
            .map_err(failed("write", &folder.join(MODEL_FILE)))
    }

    /// Whether so many bytes can be written, and room remains; `freed` are there in other files that make room for them.
    fn require_space(&self, bytes: u64, freed: u64) -> Result<(), StoreError> {
        let free = self
            .disk
            .free_bytes(&self.root)
            .map_err(failed("look at", &self.root))?
            .saturating_add(freed);
        let needed = bytes.saturating_add(SPARE_BYTES);
        if free < needed {
            let path = self.root.clone();
            return Err(StoreError::NoSpace { path, free, needed });
        }
        Ok(())
    }

    /// Where a model's file is.
    pub fn model_path(&self, sha256: &Digest) -> PathBuf {
        self.root
            .join("models")
            .join(sha256.to_string())
            .join(MODEL_FILE)
    }

    /// The bytes of a stored model, whose digest was checked.
    pub fn model(&self, sha256: &Digest) -> Result<Vec<u8>, StoreError> {
        let path = self.model_path(sha256);
        let bytes = self
            .disk
            .read(&path, FILE_LEN_MAX)
            .map_err(failed("read", &path))?;
        let found = Digest::of(&bytes);
        if found != *sha256 {
            return Err(StoreError::Damaged { path, found });
        }
        Ok(bytes)
    }

    /// Removes the models that the record does not need, and what was left half-written.
    pub fn collect(&mut self) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        self.reload()?;
        if self.damage.is_some() {
            // Somebody may want to repair the state file by hand.
            return Ok(());
        }
        if self.machine.offered().is_none() {
            let path = self.root.join(OFFERED_FILE);
            self.disk
                .remove_file(&path)
                .map_err(failed("remove", &path))?;
        }
        let needed: Vec<Digest> = self.machine.record().needs().collect();
        let models = self.root.join("models");
        for name in self.disk.list(&models).map_err(failed("list", &models))? {
            let Some(sha256) = name.to_str().and_then(Digest::parse) else {
                continue;
            };
            let folder = models.join(&name);
            let is_needed = needed.contains(&sha256);
            let unneeded: &[&str] = if is_needed {
                &["model.tern.new"]
            } else {
                &["model.tern.new", MODEL_FILE]
            };
            for file in unneeded {
                let path = folder.join(file);
                self.disk
                    .remove_file(&path)
                    .map_err(failed("remove", &path))?;
            }
            if !is_needed {
                self.disk
                    .remove_folder(&folder)
                    .map_err(failed("remove", &folder))?;
            }
        }
        Ok(())
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { what, path, source }
}

/// The state file: a title with the digest of what follows it, then the record as JSON.
fn format_state(record: &Record) -> Vec<u8> {
    let json = serde_json::to_vec(record).expect("numbers and strings always become JSON");
    let mut file = format!("{STATE_TITLE}{}\n", Digest::of(&json)).into_bytes();
    file.extend(json);
    file
}

fn parse_state(file: &[u8]) -> Result<Record, &'static str> {
    let rest = file
        .strip_prefix(STATE_TITLE.as_bytes())
        .ok_or("does not begin as a state file")?;
    let (digest, json) = rest.split_at_checked(64).ok_or("ends too early")?;
    let json = json.strip_prefix(b"\n").ok_or("has no checksum")?;
    if std::str::from_utf8(digest).ok().and_then(Digest::parse) != Some(Digest::of(json)) {
        return Err("does not have the SHA-256 that its first line says");
    }
    let record: Record = serde_json::from_slice(json).map_err(|_| "is of another version")?;
    record.validate()?;
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_byte_and_every_cut_of_the_state_file_is_noticed() {
        let file = format_state(&Record::after_damage());
        assert_eq!(parse_state(&file), Ok(Record::after_damage()));
        for at in 0..file.len() {
            assert!(parse_state(&file[..at]).is_err(), "cut at {at}");
            let mut flipped = file.clone();
            flipped[at] ^= 1;
            assert!(parse_state(&flipped).is_err(), "flipped at {at}");
        }
    }

    #[test]
    fn a_reason_and_keys_of_a_later_daemon_cost_neither_the_state_nor_the_quarantine() {
        use super::super::machine::Quarantined;
        use super::super::reason::Reason;
        let record = Record {
            quarantine: vec![Quarantined {
                identity: Identity {
                    name: "person".into(),
                    version: 3,
                    sha256: Digest::of(b"failed"),
                },
                reason: Reason::Flood,
            }],
            ..Record::default()
        };
        let json = serde_json::to_string(&record).expect("JSON");
        let later = json
            .replace("\"flood\"", "\"too_loud\"")
            .replacen('{', "{\"moon\":1,", 1);
        assert_ne!(later, json);
        let file = format!("{STATE_TITLE}{}\n{later}", Digest::of(later.as_bytes()));
        let mut expected = record;
        expected.quarantine[0].reason = Reason::Unknown;
        assert_eq!(parse_state(file.as_bytes()), Ok(expected));
    }

    #[test]
    fn the_longest_record_fits_the_state_file() {
        use super::super::machine::{
            Candidate, NAMES_MAX, Offered, QUARANTINE_MAX, Quarantined, StoredKeyring,
        };
        use super::super::reason::Reason;
        let name = |index: usize| format!("{index:064}");
        let identity = |index| Identity {
            name: name(index),
            version: (1 << 53) - 1,
            sha256: Digest([0xff; 32]),
        };
        let record = Record {
            committed: Some(identity(0)),
            previous: Some(identity(0)),
            candidate: Some(Candidate {
                identity: identity(0),
                job: name(0),
                attempts: u32::MAX,
                is_on_trial: false,
            }),
            offered: Some(Offered {
                identity: identity(0),
                job: name(0),
                is_approved: false,
            }),
            floors: (0..NAMES_MAX)
                .map(|index| (name(index), u64::MAX))
                .collect(),
            quarantine: (0..QUARANTINE_MAX)
                .map(|index| Quarantined {
                    identity: identity(index),
                    reason: Reason::AttemptsExceeded,
                })
                .collect(),
            last: Record::after_damage().last,
            keyring: Some(StoredKeyring {
                version: u64::MAX,
                file: "f".repeat(2 * ternwatch_bundle::keyring::FILE_LEN_MAX),
            }),
            time_floor_s: u64::MAX,
        };
        let file = format_state(&record);
        assert!(file.len() < STATE_BYTES_MAX, "{} bytes", file.len());
        assert_eq!(parse_state(&file), Ok(record));
    }
}
