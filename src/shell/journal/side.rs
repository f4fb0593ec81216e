//! The small files beside the database: what must be known even when the database forgets.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::store::Fault;
use crate::engine::time::Mono;

/// More than what a disk that is called full gives back by chance.
const PROBE_BYTES: usize = 256 << 10;
const STATE: &str = "state";
const MARK: &str = "mark";
const SNAPSHOT: &str = "snapshot";
const SNAPSHOT_VERSION: u8 = 1;
/// crc32, version, sequence.
const SNAPSHOT_HEADER: usize = 4 + 1 + 8;

/// What is kept of the store beside its records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// The store's random name.
    pub(super) store_id: String,
    /// Counts the starts on this store.
    pub(super) boot: u64,
    /// No record beyond this has been written; all but the last block before it have.
    pub(super) reserved: u64,
    /// The cloud has everything up to here.
    pub(super) acknowledged: u64,
    /// What is missing since the store before this one was set aside; reported until this store has a record.
    pub(super) damage: Option<String>,
}

/// Reads the state. `None` if there is none or it is damaged: the database itself knows enough to go on. One that is whole and not
/// understood was written by a newer version.
pub(super) fn read_state(home: &Path) -> Result<Option<State>, Fault> {
    let text = match fs::read(home.join(STATE)) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Fault::Environment(error.to_string())),
    };
    let Some((crc, json)) = text.trim_end().split_once(' ') else { return Ok(None) };
    let right = u32::from_str_radix(crc, 16).is_ok_and(|crc| crc == crc32fast::hash(json.as_bytes()));
    if !right {
        return Ok(None);
    }
    let newer = |error: serde_json::Error| {
        Fault::Newer(format!(
            "its file `state` is whole, but this siteward does not understand it ({error}); it was written by a newer siteward: install that \
             version again"
        ))
    };
    serde_json::from_str(json).map(Some).map_err(newer)
}

/// Whether a store was made to its end: its state is written last.
pub(super) fn is_complete(home: &Path) -> bool {
    home.join(STATE).exists()
}

/// Writes the state so that a power cut leaves the old or the new one.
pub(super) fn write_state(home: &Path, state: &State) -> io::Result<()> {
    let json = serde_json::to_string(state).map_err(io::Error::other)?;
    replace(home, STATE, format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())).as_bytes())
}

/// A mark in the store itself is written so often, in ms, where there is one in memory besides: each time it costs the flash a page ...
const MARK_MS: u64 = 300_000;
/// ... or after so many records.
const MARK_STEP: u64 = 250;

/// The last record that was durable: written without waiting for the disk, so that it costs nothing and may be a little behind.
/// It survives the end of the process and shows a database that came up shorter than it was, which sled does not notice.
#[derive(Debug)]
pub(super) struct Mark(File);

impl Mark {
    pub(super) fn open(home: &Path) -> io::Result<Self> {
        Self::at(&home.join(MARK))
    }

    fn at(path: &Path) -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map(Self)
    }

    /// 0 if there is none or it is torn.
    pub(super) fn read(&self) -> u64 {
        let mut bytes = [0; 12];
        if self.0.read_exact_at(&mut bytes, 0).is_err() {
            return 0;
        }
        let (number, crc) = bytes.split_at(8);
        let right = crc == crc32fast::hash(number).to_be_bytes();
        if right { number.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)) } else { 0 }
    }

    pub(super) fn write(&self, sequence: u64) -> io::Result<()> {
        let number = sequence.to_be_bytes();
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&number);
        bytes[8..].copy_from_slice(&crc32fast::hash(&number).to_be_bytes());
        self.0.write_all_at(&bytes, 0)
    }
}

/// The store's mark, and where there is a RAM disk one there that is always up to date: the one in the store then spares the flash.
#[derive(Debug)]
pub(super) struct Marks {
    store: Mark,
    memory: Option<(Mark, PathBuf)>,
    /// What the one in the store says, and since when.
    noted: Option<(u64, Mono)>,
}

impl Marks {
    /// `memory`: a folder on a RAM disk. The mark there has the store's name, since another store may have been here before.
    pub(super) fn open(home: &Path, memory: Option<(&Path, &str)>) -> io::Result<Self> {
        let store = Mark::open(home)?;
        let place = memory.map(|(folder, store_id)| folder.join(format!("{MARK}-{store_id}")));
        // Without it the one in the store does.
        let memory = place.and_then(|place| Some((Mark::at(&place).ok()?, place)));
        Ok(Self { store, memory, noted: None })
    }

    /// The later of the two.
    pub(super) fn read(&self) -> u64 {
        self.store.read().max(self.memory.as_ref().map_or(0, |(mark, _)| mark.read()))
    }

    pub(super) fn write(&mut self, sequence: u64, now: Mono) -> io::Result<()> {
        // A RAM disk that is full, or gone, is no reason to stop.
        let is_kept = self.memory.as_ref().is_some_and(|(mark, _)| mark.write(sequence).is_ok());
        let is_due = |(noted, at): (u64, Mono)| sequence >= noted + MARK_STEP || now.since(at) >= MARK_MS;
        if is_kept && !self.noted.is_none_or(is_due) {
            return Ok(());
        }
        self.noted = Some((sequence, now));
        self.store.write(sequence)
    }

    /// The daemon ends: a machine that is switched off forgets the one in memory, and a store that somebody puts back from a copy meanwhile must
    /// not be held against it.
    pub(super) fn settle(self, sequence: u64) -> io::Result<()> {
        if self.noted.is_some_and(|(noted, _)| noted < sequence) {
            self.store.write(sequence)?;
        }
        self.memory.map_or(Ok(()), |(_, place)| fs::remove_file(place))
    }
}

/// A stored snapshot.
pub(super) enum Snapshot {
    Missing,
    Damaged,
    /// Whole, and of a format that this version does not know.
    Newer(u8),
    Good {
        through: u64,
        state: Vec<u8>,
    },
}

pub(super) fn read_snapshot(home: &Path) -> io::Result<Snapshot> {
    let mut bytes = Vec::new();
    match File::open(home.join(SNAPSHOT)) {
        Ok(mut file) => file.read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Snapshot::Missing),
        Err(error) => return Err(error),
    };
    if bytes.len() < SNAPSHOT_HEADER {
        return Ok(Snapshot::Damaged);
    }
    let (crc, body) = bytes.split_at(4);
    if crc != crc32fast::hash(body).to_be_bytes() || body[0] == 0 {
        return Ok(Snapshot::Damaged);
    }
    if body[0] > SNAPSHOT_VERSION {
        return Ok(Snapshot::Newer(body[0]));
    }
    let through = body[1..9].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    Ok(Snapshot::Good { through, state: body[9..].to_vec() })
}

/// What to do about [`Snapshot::Newer`]: it is no damage, and set aside it could not be read by the version that wrote it either.
pub(super) fn newer_snapshot(version: u8) -> Fault {
    Fault::Newer(format!(
        "the snapshot has the format {version}, written by a newer siteward; this one reads up to {SNAPSHOT_VERSION}: install that version again"
    ))
}

pub(super) fn write_snapshot(home: &Path, through: u64, state: &[u8]) -> io::Result<()> {
    let mut body = vec![SNAPSHOT_VERSION];
    body.extend(through.to_be_bytes());
    body.extend(state);
    let mut bytes = crc32fast::hash(&body).to_be_bytes().to_vec();
    bytes.append(&mut body);
    replace(home, SNAPSHOT, &bytes)
}

/// Puts `bytes` in the place of a file at once: the rename is durable when this returns.
fn replace(home: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = home.join(format!("{name}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, home.join(name))?;
    sync_directory(home)
}

/// Whether the disk takes anything: tried before more is done with a store that could not be written.
pub(super) fn try_to_write(home: &Path) -> io::Result<()> {
    let path = home.join("probe");
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&[0; PROBE_BYTES])?;
        file.sync_data()
    });
    let removed = fs::remove_file(&path);
    written.and(removed)
}

/// Makes names created, renamed or removed in `directory` durable.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_a_mark_in_memory_the_one_in_the_store_is_written_now_and_then() {
        let (home, memory) = (tempfile::TempDir::new().unwrap(), tempfile::TempDir::new().unwrap());
        let open = |name: &str| Marks::open(home.path(), Some((memory.path(), name))).unwrap();
        let in_store = || Mark::open(home.path()).unwrap().read();
        let at = |ms: u64| Mono::from_ms(ms);
        let mut marks = open("one");
        marks.write(5, at(0)).unwrap();
        marks.write(6, at(1_000)).unwrap();
        assert_eq!((in_store(), open("one").read()), (5, 6), "as after kill -9");
        assert_eq!(open("other").read(), 5, "the mark in memory is that of another store");
        marks.write(7, at(MARK_MS)).unwrap();
        assert_eq!(in_store(), 7);
        marks.write(7 + MARK_STEP - 1, at(MARK_MS + 1)).unwrap();
        assert_eq!(in_store(), 7);
        marks.write(7 + MARK_STEP, at(MARK_MS + 2)).unwrap();
        assert_eq!(in_store(), 7 + MARK_STEP);
        marks.write(8 + MARK_STEP, at(MARK_MS + 3)).unwrap();
        marks.settle(8 + MARK_STEP).unwrap();
        assert_eq!(in_store(), 8 + MARK_STEP);
        assert_eq!(fs::read_dir(memory.path()).unwrap().count(), 1, "that of the other store");
    }

    #[test]
    fn without_one_in_memory_the_store_s_is_always_up_to_date() {
        let home = tempfile::TempDir::new().unwrap();
        let nowhere = home.path().join("nowhere");
        for memory in [None, Some((nowhere.as_path(), "one"))] {
            let mut marks = Marks::open(home.path(), memory).unwrap();
            for sequence in 1..4 {
                marks.write(sequence, Mono::START).unwrap();
                assert_eq!(Mark::open(home.path()).unwrap().read(), sequence);
            }
        }
    }
}
