//! A look into a store that nobody has open: what is in it, what of it can be read, what is missing.
//!
//! It is made on a copy. Opening a database changes it, and a damaged one would lose by that what could still be read.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};

use super::open;
use super::side::{self, Mark, Snapshot};
use super::store::{Fault, Store, guarded};
use super::{codec, open::BLOCK};
use crate::engine::model::record::Record;

/// Files are searched for records in pieces of this size ...
const PIECE: u64 = 8 << 20;
/// ... and each piece begins so much before the end of the last: no record is longer.
const OVERLAP: u64 = 1 << 20;
/// What a disk refuses with one broken place in it.
const BLOCK_BYTES: usize = 4096;

/// Why there is nothing to see.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// There is no store.
    #[error("there is no store in {0}; --store takes the directory of store.path, or a store that was set aside")]
    NoStore(PathBuf),
    /// The daemon has it open.
    #[error(
        "the store {0} is in use: `siteward events` reads it while the controller runs; for this, stop it first (systemctl stop siteward; \
         chargers keep their leased limits) and start it afterwards"
    )]
    InUse(PathBuf),
    /// The machine does not let us, or a newer version wrote it.
    #[error("{0}")]
    Environment(String),
}

/// What is left of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotLook {
    /// There is none: all records are needed.
    Missing,
    /// It cannot be read.
    Damaged,
    /// The records up to `through` are folded into `state`.
    Good {
        /// The last record in it.
        through: u64,
        /// The folded state.
        state: Vec<u8>,
    },
}

/// What is in a store.
#[derive(Debug)]
pub struct Look {
    /// The store's directory.
    pub home: PathBuf,
    /// Its random name.
    pub store_id: Option<String>,
    /// How often the daemon was started on it; 0 if that is not known.
    pub boot: u64,
    /// The cloud has everything up to here; 0 if that is not known.
    pub acknowledged: u64,
    /// It once had records up to here at least.
    pub expected: u64,
    /// The snapshot.
    pub snapshot: SnapshotLook,
    /// The records that can be read, by their numbers.
    pub records: BTreeMap<u64, Record>,
    /// How many of them only a search through the files has found.
    pub dug_out: usize,
    /// Its size on disk, in bytes.
    pub bytes: u64,
    /// What is wrong with it. Empty: it is good.
    pub findings: Vec<String>,
}

impl Look {
    /// The first and the last number of each gap: between the records, behind the last one that there was, and before the first one as far
    /// as the cloud does not have it.
    #[must_use]
    pub fn missing(&self) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let first = self.records.keys().next().copied().unwrap_or(self.expected + 1);
        let mut next = first.min(self.acknowledged + 1);
        for number in self.records.keys().copied() {
            if number > next {
                gaps.push((next, number - 1));
            }
            next = number + 1;
        }
        if self.expected >= next {
            gaps.push((next, self.expected));
        }
        gaps
    }
}

/// Looks into the store in `dir`: the daemon's (`dir` has a `journal`), or one that was set aside (`dir` is one). Nothing in `dir` is
/// changed. With `dig`, what the database does not give is searched for in its files.
///
/// # Errors
/// If there is no store, somebody has it open, it cannot be read or copied, or a newer version wrote it.
pub fn look(dir: &Path, dig: bool) -> Result<Look, LookError> {
    let home = find(dir)?;
    let failed =
        |error: io::Error| LookError::Environment(format!("cannot read the store {}: {error}", home.display()));
    // Held while it is copied, so that no daemon begins to write in between.
    let lock = lock(&home)?;
    let copy = Scratch::copy_of(&home)?;
    drop(lock);
    let state = side::read_state(&copy.0).map_err(|fault| LookError::Environment(open::text(fault)))?;
    let snapshot = match side::read_snapshot(&copy.0).map_err(failed)? {
        Snapshot::Missing => SnapshotLook::Missing,
        Snapshot::Damaged => SnapshotLook::Damaged,
        Snapshot::Newer(version) => return Err(LookError::Environment(open::text(side::newer_snapshot(version)))),
        Snapshot::Good { through, state } => SnapshotLook::Good { through, state },
    };
    let mark = Mark::open(&copy.0).map_err(failed)?.read();
    let through = if let SnapshotLook::Good { through, .. } = snapshot { through } else { 0 };
    let acknowledged = state.as_ref().map_or(0, |state| state.acknowledged);
    let reserved = state.as_ref().map_or(0, |state| state.reserved.saturating_sub(BLOCK));
    let mut look = Look {
        store_id: state.as_ref().map(|state| state.store_id.clone()),
        boot: state.as_ref().map_or(0, |state| state.boot),
        acknowledged,
        expected: mark.max(acknowledged).max(reserved).max(through),
        snapshot,
        records: BTreeMap::new(),
        dug_out: 0,
        bytes: size_of(&home).map_err(failed)?,
        findings: Vec::new(),
        home: home.clone(),
    };
    if state.is_none() {
        look.findings.push("the file `state` is damaged or missing".to_owned());
    }
    if look.snapshot == SnapshotLook::Damaged {
        look.findings.push("the snapshot is damaged".to_owned());
    }
    read_database(&copy.0, &mut look)?;
    if dig && (!look.findings.is_empty() || !look.missing().is_empty()) {
        dig_out(&home.join("db"), &mut look)?;
    }
    if let Some((last, _)) = look.records.last_key_value() {
        look.expected = look.expected.max(*last);
    }
    judge(&copy.0, &mut look)?;
    Ok(look)
}

/// The store's own directory.
fn find(dir: &Path) -> Result<PathBuf, LookError> {
    let is_store = |home: &Path| home.join("db").exists() || home.join("state").exists();
    let homes = [dir.join("journal"), dir.to_owned()];
    homes.into_iter().find(|home| is_store(home)).ok_or_else(|| LookError::NoStore(dir.to_owned()))
}

fn lock(home: &Path) -> Result<Option<File>, LookError> {
    let file = match File::open(home.join("db/db")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let remedy = "run this as root or as the user siteward";
            return Err(LookError::Environment(format!("cannot read the store {}: {error}; {remedy}", home.display())));
        }
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(LookError::InUse(home.to_owned())),
        Err(TryLockError::Error(error)) => Err(LookError::Environment(format!("{}: {error}", home.display()))),
    }
}

/// What the database itself gives.
fn read_database(copy: &Path, look: &mut Look) -> Result<(), LookError> {
    let (records, store_id) = (&mut look.records, &mut look.store_id);
    let faults = guarded(|| {
        let store = Store::open(&copy.join("db"))?;
        let faults = store.salvage(records);
        if let Ok(Some(id)) = store.store_id() {
            store_id.get_or_insert(id);
        }
        Ok(faults)
    });
    for fault in faults.unwrap_or_else(|fault| vec![fault]) {
        match fault {
            Fault::Damaged(what) => look.findings.push(what),
            Fault::Environment(error) | Fault::Newer(error) => return Err(LookError::Environment(error)),
        }
    }
    Ok(())
}

/// Searches the files of the database for records that it does not give. They may be older than what it gives: of two with the same number
/// the one of the later start is right, since a number is only given again when its first record was not durable.
fn dig_out(db: &Path, look: &mut Look) -> Result<(), LookError> {
    let given = look.records.len();
    let failed = |error: io::Error| LookError::Environment(format!("cannot read {}: {error}", db.display()));
    let age = |record: &Record| (record.stamp.boot, record.stamp.mono);
    let mut found: BTreeMap<u64, Record> = BTreeMap::new();
    for path in files_below(db).map_err(failed)? {
        let file = File::open(&path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut at = 0;
        while at < length {
            for record in codec::scan(&readable(&file, at, PIECE.min(length - at))).records {
                let number = record.sequence.0;
                if found.get(&number).is_none_or(|other| age(other) <= age(&record)) {
                    found.insert(number, record);
                }
            }
            at = if length - at > PIECE { at + PIECE - OVERLAP } else { length };
        }
    }
    for (number, record) in found {
        look.records.entry(number).or_insert(record);
    }
    look.dug_out = look.records.len() - given;
    Ok(())
}

/// `length` bytes of a file from `at` on. What the disk does not give reads as zeros, which no checksum takes for a record.
fn readable(file: &File, at: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let mut offset = at;
    for block in bytes.chunks_mut(BLOCK_BYTES) {
        if file.read_exact_at(block, offset).is_err() {
            block.fill(0);
        }
        offset += u64::try_from(block.len()).unwrap_or(0);
    }
    bytes
}

/// What the daemon would say at its next start.
fn judge(copy: &Path, look: &mut Look) -> Result<(), LookError> {
    let what = match open::load(copy, None) {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(bad)) => bad.what,
        Err(fault) => return Err(LookError::Environment(open::text(fault))),
    };
    if !look.findings.contains(&what) {
        look.findings.push(what);
    }
    Ok(())
}

fn files_below(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(files_below(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn size_of(home: &Path) -> io::Result<u64> {
    files_below(home)?.iter().map(|file| Ok(fs::metadata(file)?.len())).sum()
}

/// A copy that goes when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn copy_of(home: &Path) -> Result<Self, LookError> {
        let place = std::env::temp_dir();
        let failed = |error: io::Error| {
            let remedy = "TMPDIR names another place with room for it";
            LookError::Environment(format!("cannot copy {} to {}: {error}; {remedy}", home.display(), place.display()))
        };
        let names = (0..1_000).map(|n| place.join(format!("siteward-journal-{}-{n}", std::process::id())));
        for path in names {
            // The records are nobody else's business.
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    let scratch = Self(path);
                    copy_tree(home, &scratch.0).map_err(failed)?;
                    return Ok(scratch);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Err(failed(io::ErrorKind::AlreadyExists.into()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // In a place that is emptied anyway.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy_tree(&entry.path(), &target)?;
        } else {
            let (source, mut target) = (File::open(entry.path())?, File::create(target)?);
            let length = source.metadata()?.len();
            let mut at = 0;
            while at < length {
                let piece = PIECE.min(length - at);
                target.write_all(&readable(&source, at, piece))?;
                at += piece;
            }
        }
    }
    Ok(())
}
