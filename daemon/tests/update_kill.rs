//! A real process on a real file system, killed by the kernel after every step that changes a file.
//!
//! This test has no harness: the program calls itself with the words `die FOLDER OPERATION STEP`, and that child ends
//! with SIGKILL at that step.

use rustix::process::{Signal, getpid, kill_process};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use ternwatch_daemon::disk::{Disk, SystemDisk};
use ternwatch_daemon::update::chunks::{Chunk, Download};
use ternwatch_daemon::update::digest::Digest;
use ternwatch_daemon::update::machine::{Event, Identity, StoredKeyring, Trust};
use ternwatch_daemon::update::offer::{CHUNK_BYTES, Offer};
use ternwatch_daemon::update::reason::Reason;
use ternwatch_daemon::update::store::{Store, StoreError};

/// The system's disk, for a process that dies at a step.
struct DeadlyDisk {
    steps_left: u32,
}

impl DeadlyDisk {
    fn step<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if self.steps_left == 0 {
            kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
        }
        self.steps_left -= 1;
        result
    }
}

impl Disk for DeadlyDisk {
    type Lock = <SystemDisk as Disk>::Lock;

    fn lock(&mut self, path: &Path) -> io::Result<Self::Lock> {
        SystemDisk.lock(path)
    }
    fn read(&self, path: &Path, len_max: usize) -> io::Result<Vec<u8>> {
        SystemDisk.read(path, len_max)
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        SystemDisk.list(folder)
    }
    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        SystemDisk.free_bytes(folder)
    }
    fn occupied_bytes(&self, path: &Path) -> io::Result<u64> {
        SystemDisk.occupied_bytes(path)
    }
    fn create_folder(&mut self, path: &Path) -> io::Result<()> {
        self.step(SystemDisk.create_folder(path))
    }
    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if self.steps_left == 0 {
            // Half of it is written when the process dies.
            SystemDisk.write(path, &bytes[..bytes.len() / 2])?;
            return self.step(Ok(()));
        }
        self.step(SystemDisk.write(path, bytes))
    }
    fn write_at(&mut self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.step(SystemDisk.write_at(path, offset, bytes))
    }
    fn sync_file(&mut self, path: &Path) -> io::Result<()> {
        self.step(SystemDisk.sync_file(path))
    }
    fn sync_folder(&mut self, path: &Path) -> io::Result<()> {
        self.step(SystemDisk.sync_folder(path))
    }
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(SystemDisk.rename(from, to))
    }
    fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.step(SystemDisk.remove_file(path))
    }
    fn remove_folder(&mut self, path: &Path) -> io::Result<()> {
        self.step(SystemDisk.remove_folder(path))
    }
}

fn file(version: u64) -> Vec<u8> {
    format!("the bytes of version {version}, ")
        .repeat(4000)
        .into_bytes()
}

fn model(version: u64) -> Identity {
    Identity {
        name: "person".into(),
        version,
        sha256: Digest::of(&file(version)),
    }
}

fn open<D: Disk>(disk: D, folder: &Path) -> Store<D> {
    Store::open(disk, folder, Some(model(1)), 3).expect("it always opens")
}

/// What is killed: its name, what comes before it, and the versions that may look at the frames afterwards.
const OPERATIONS: [(&str, &[&str], &[u64]); 10] = [
    ("download", &[], &[2]),
    ("propose", &[], &[2]),
    ("approve", &["propose"], &[2]),
    ("install", &[], &[2]),
    ("trial", &["install"], &[2]),
    ("commit", &["install", "trial"], &[2, 3]),
    ("fail", &["install", "trial"], &[2]),
    ("collect", &["install", "trial", "fail"], &[2]),
    ("rollback", &["install", "trial", "commit"], &[2, 3]),
    ("trust", &[], &[2]),
];

fn operate<D: Disk>(store: &mut Store<D>, operation: &str) -> Result<(), StoreError> {
    match operation {
        "download" => {
            let whole = download(store);
            assert_eq!(whole, file(3));
            Ok(())
        }
        "propose" => store.propose("job", &model(3), b"an offer"),
        "approve" => store.step(Event::Approve),
        "install" => store.admit("job", &model(3), &file(3)),
        "trial" => store.step(Event::BeginTrial),
        "commit" => store.step(Event::Pass),
        "fail" => store.step(Event::Fail(Reason::Flood)),
        "collect" => store.collect(),
        "rollback" => store.step(Event::RollBack),
        "trust" => store.step(Event::Trust(Trust {
            keyring: StoredKeyring {
                version: 1,
                file: String::new(),
            },
            signed_at_s: 1,
            is_revocation: false,
            resets: [("person".to_string(), 2)].into(),
        })),
        other => panic!("no operation {other}"),
    }
}

/// Fetches what is not here of version 3.
fn download<D: Disk>(store: &mut Store<D>) -> Vec<u8> {
    let (root, file) = (store.root().to_owned(), file(3));
    let offer = Offer::of("job", "person", 3, &file);
    let mut download = Download::open(store.disk(), &root, offer).expect("the disk works");
    let missing: Vec<usize> = download.missing().collect();
    for index in missing {
        let chunk = file.chunks(CHUNK_BYTES).nth(index).expect("within it");
        let taken = download.take(store.disk(), index, chunk);
        assert_eq!(taken.expect("the disk works"), Chunk::Stored);
    }
    let whole = download.finish(store.disk()).expect("the disk works");
    Download::discard(store.disk(), &root, &model(3).sha256).expect("the disk works");
    whole.expect("what was announced")
}

/// Version 2 in use, and what comes before the operation.
fn prepare(folder: &Path, before: &[&str]) {
    let mut store = open(SystemDisk, folder);
    store.admit("job", &model(2), &file(2)).expect("stored");
    for operation in ["trial", "commit"].iter().chain(before) {
        operate(&mut store, operation).expect("in order");
    }
}

fn survives_every_kill(operation: &str, before: &[&str], allowed: &[u64]) {
    let program = std::env::current_exe().expect("a test has a path");
    for step in 0_u32.. {
        let folder = tempfile::tempdir().expect("a temporary folder");
        prepare(folder.path(), before);
        let status = Command::new(&program)
            .arg("die")
            .arg(folder.path())
            .args([operation, &step.to_string()])
            .status()
            .expect("the child starts");
        let was_killed = status.signal() == Some(Signal::KILL.as_raw());
        assert!(was_killed || status.success(), "{operation}: {status}");

        let mut store = open(SystemDisk, folder.path());
        let place = format!("{operation}, killed at step {step}");
        assert_eq!(store.damage(), None, "{place}");
        store.step(Event::Restart).expect("the disk works");
        for sha256 in store.machine().record().needs().collect::<Vec<_>>() {
            let bytes = store.model(&sha256);
            bytes.unwrap_or_else(|error| panic!("{place}: {error:#}"));
        }
        store.collect().expect("the disk works");
        let running = store.machine().running().map_or(1, |model| model.version);
        assert!(allowed.contains(&running), "{place}: runs {running}");
        // Whatever is left of a download is gone on with.
        assert_eq!(download(&mut store), file(3), "{place}");
        if !was_killed {
            assert!(step >= 4, "{operation} has {step} steps only");
            println!("test {operation}_survives_every_kill ({step} steps) ... ok");
            return;
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, folder, operation, step] = arguments.as_slice()
        && word == "die"
    {
        let steps_left = step.parse().expect("a number");
        let mut store = open(DeadlyDisk { steps_left }, Path::new(folder));
        operate(&mut store, operation).expect("in order");
        return ExitCode::SUCCESS;
    }
    // What cargo passes on: a filter of names, or flags of a harness that is not here.
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    for (operation, before, allowed) in OPERATIONS {
        let name = format!("{operation}_survives_every_kill");
        if filter.is_none_or(|filter| name.contains(filter.as_str())) {
            survives_every_kill(operation, before, allowed);
        }
    }
    ExitCode::SUCCESS
}
