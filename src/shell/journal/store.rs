//! The database of records: sled 0.34.7 with what it needs around it to be believed.
//!
//! Measured: sled's `flush` alone does not survive a power cut, so its file is synced besides; on damaged files it panics or opens
//! shorter than it was, so opening is guarded and every record is checked for its checksum and its number.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::blobs::Blobs;
use super::codec::{decode, encode, number_of, size_of};
use super::rehearsal::rehearse;
use crate::engine::model::record::Record;

/// sled's page cache: enough for what is read again soon, small enough for a gateway with 256 MB.
const CACHE_BYTES: u64 = 16 << 20;
/// What sled may hold unwritten: half of its 512 KB segment, beyond which a power cut could tear a record that was promised.
const SYNC_BYTES: usize = 256 << 10;
/// How often sled's own thread tidies its segments, in ms. It also synchronises the file each time, with all that the file system notes of it: what is
/// written here is synchronised already, so more often only costs flash. For half of it a closing may have to wait.
const TIDY_MS: u64 = 10_000;
/// An answer to a read is cut there: it is copied through memory to the site.
const READ_BYTES: usize = 256 << 10;
/// See [`Store::open`].
const LOCK_TRIES: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(25);
const IN_USE: &str = "it is in use by another siteward";
const STORE_ID: &str = "store id";
const META: &str = "meta";

thread_local! {
    static OPENING: Cell<bool> = const { Cell::new(false) };
}
static OPENINGS: AtomicUsize = AtomicUsize::new(0);

/// Whether this thread is inside the guarded opening of a store, where a panic is caught and means damage. The panic hook aborts
/// the process everywhere else.
#[must_use]
pub fn in_guarded_open() -> bool {
    // sled reads and writes on threads of its own as well; their panics come out as errors of the opening.
    let helper = || {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or_default();
        OPENINGS.load(Ordering::SeqCst) > 0 && (name.starts_with("sled-io-") || name == "log flusher")
    };
    OPENING.with(Cell::get) || helper()
}

/// Why a store cannot be used.
#[derive(Debug)]
pub(super) enum Fault {
    /// The machine does not let us: full, not allowed, in use. The store itself may be good.
    Environment(String),
    /// A newer version has written it, which can read it again if it is left as it is.
    Newer(String),
    /// The store's contents are not what was written.
    Damaged(String),
}

impl Fault {
    /// Whether room on the disk would end it.
    pub(super) fn is_full_disk(&self) -> bool {
        const ENOSPC: i32 = 28;
        matches!(self, Self::Environment(text) if os_code(text) == Some(ENOSPC))
    }
}

impl From<sled::Error> for Fault {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error) => Self::from(error),
            sled::Error::Corruption { at, .. } => Self::Damaged(format!("the database is corrupt at {at:?}")),
            sled::Error::CollectionNotFound(_) | sled::Error::Unsupported(_) | sled::Error::ReportableBug(_) => {
                Self::Damaged(error.to_string())
            }
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        const ENOENT: i32 = 2;
        const EIO: i32 = 5;
        const EINVAL: i32 = 22;
        let text = error.to_string();
        if text.contains("could not acquire lock") {
            return Self::Environment(IN_USE.to_owned());
        }
        match error.raw_os_error().or_else(|| os_code(&text)) {
            // A part of it is gone, the medium cannot be read there, or a damaged file led to an impossible place in it.
            Some(ENOENT | EIO | EINVAL) => Self::Damaged(text),
            Some(_) => Self::Environment(text),
            // Made by sled itself: the end of a file came too early, or its contents make no sense.
            None => Self::Damaged(text),
        }
    }
}

/// sled repeats an error of the system as the text of its debug form (`Os { code: 28, .. }`). A full disk is no damage.
fn os_code(text: &str) -> Option<i32> {
    let (_, rest) = text.split_once("Os { code: ").or_else(|| text.split_once("(os error "))?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// How a database is opened.
pub(super) fn settings(path: &Path) -> sled::Config {
    sled::Config::new().path(path).mode(sled::Mode::LowSpace).cache_capacity(CACHE_BYTES)
}

/// Runs `work` so that a panic in it becomes [`Fault::Damaged`].
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    let within = OPENING.with(|flag| flag.replace(true));
    OPENINGS.fetch_add(1, Ordering::SeqCst);
    let result = catch_unwind(AssertUnwindSafe(work));
    OPENINGS.fetch_sub(1, Ordering::SeqCst);
    OPENING.with(|flag| flag.set(within));
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        let text = format!("the database cannot be read: {}", text.unwrap_or("no reason given"));
        Err(Fault::from(io::Error::other(text)))
    })
}

/// What a look at every record found.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// The first record kept, and the last; 0 if there is none.
    pub(super) first: u64,
    pub(super) last: u64,
    /// The boot number of the last record.
    pub(super) boot: u64,
    /// The records after the one asked for.
    pub(super) records: Vec<Record>,
}

/// An open database.
#[derive(Debug)]
pub(super) struct Store {
    db: sled::Db,
    sync: File,
    blobs: Blobs,
    first: u64,
}

impl Store {
    /// Opens or creates it. Call inside [`guarded`]. Waits a second for whoever has it open: sled gives its lock up only with the last task of
    /// its own threads, some time after it was closed, and a daemon that is about to end may have it still.
    pub(super) fn open(path: &Path) -> Result<Self, Fault> {
        for _ in 0..LOCK_TRIES {
            match Self::try_open(path) {
                Err(Fault::Environment(error)) if error == IN_USE => std::thread::sleep(LOCK_PAUSE),
                opened => return opened,
            }
        }
        Self::try_open(path)
    }

    fn try_open(path: &Path) -> Result<Self, Fault> {
        rehearse(path)?;
        let db = settings(path).flush_every_ms(Some(TIDY_MS)).open()?;
        // sled writes its settings without synchronising them, in two pieces: lost in a power cut they are written anew by the next start, and a
        // second power cut between the pieces would leave a store that it takes for damaged.
        File::open(path.join("conf"))?.sync_all()?;
        let sync = File::open(path.join("db"))?;
        Ok(Self { db, sync, blobs: Blobs::of(path), first: 0 })
    }

    /// The name written into it when it was made.
    pub(super) fn store_id(&self) -> Result<Option<String>, Fault> {
        let id = self.db.open_tree(META)?.get(STORE_ID)?;
        Ok(id.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    pub(super) fn set_store_id(&mut self, id: &str) -> Result<(), Fault> {
        self.db.open_tree(META)?.insert(STORE_ID, id)?;
        self.sync()
    }

    /// Reads every record once and checks it.
    pub(super) fn examine(&mut self, records_after: u64) -> Result<Contents, Fault> {
        let mut contents = Contents::default();
        for entry in self.db.iter() {
            let (key, value) = entry?;
            let number = number_of(&key)?;
            if contents.last != 0 && number != contents.last + 1 {
                let message = format!("records {} to {} are missing", contents.last + 1, number.saturating_sub(1));
                return Err(Fault::Damaged(message));
            }
            let record = decode(number, &value)?;
            if contents.first == 0 {
                contents.first = number;
            }
            contents.last = number;
            contents.boot = record.stamp.boot;
            if number > records_after {
                contents.records.push(record);
            }
        }
        self.first = contents.first;
        Ok(contents)
    }

    /// Puts every record that can be read into `records`, and says what could not be.
    pub(super) fn salvage(&self, records: &mut BTreeMap<u64, Record>) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut before = None;
        for entry in self.db.iter() {
            let result = entry.map_err(Fault::from).and_then(|(key, value)| Ok((number_of(&key)?, value)));
            let (number, value) = match result {
                Ok(entry) => entry,
                Err(fault) => {
                    faults.push(fault);
                    // sled may give the same error for ever.
                    return faults;
                }
            };
            if before.is_some_and(|before| number <= before) {
                faults.push(Fault::Damaged(format!("record {number} stands behind a later one")));
                return faults;
            }
            before = Some(number);
            match decode(number, &value) {
                Ok(record) => drop(records.insert(number, record)),
                Err(fault) => faults.push(fault),
            }
        }
        faults
    }

    /// Writes records; when this returns they survive a power cut.
    pub(super) fn append(&mut self, records: &[Record]) -> Result<(), Fault> {
        let mut unsynced = 0;
        for record in records {
            let value = encode(record)?;
            if unsynced > 0 && unsynced + value.len() > SYNC_BYTES {
                self.sync()?;
                unsynced = 0;
            }
            unsynced += value.len();
            self.db.insert(record.sequence.0.to_be_bytes(), value)?;
        }
        if self.first == 0 {
            self.first = records.first().map_or(0, |record| record.sequence.0);
        }
        self.sync()
    }

    /// Records from `from` on in order.
    pub(super) fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, Fault> {
        let mut records = Vec::new();
        let mut bytes = 0;
        for entry in self.db.range(from.to_be_bytes()..).take(limit) {
            let (key, value) = entry?;
            bytes += size_of(&value);
            if bytes > READ_BYTES && !records.is_empty() {
                break;
            }
            records.push(decode(number_of(&key)?, &value)?);
        }
        Ok(records)
    }

    /// The first record kept; 0 if there is none.
    pub(super) const fn first(&self) -> u64 {
        self.first
    }

    /// The last record kept; 0 if there is none.
    pub(super) fn last(&self) -> Result<u64, Fault> {
        self.db.last()?.map_or(Ok(0), |(key, _)| number_of(&key))
    }

    /// Takes over what an earlier opening had found, after a short look that its last record is good.
    pub(super) fn resume(&mut self, first: u64) -> Result<u64, Fault> {
        self.first = first;
        let last = self.last()?;
        if last > 0 {
            self.read(last, 1)?;
        }
        Ok(last)
    }

    /// Deletes records up to `through`, at most `limit` of them.
    pub(super) fn prune(&mut self, through: u64, limit: u64) -> Result<(), Fault> {
        let through = through.min(self.first.saturating_add(limit).saturating_sub(1));
        for number in self.first..=through {
            self.db.remove(number.to_be_bytes())?;
        }
        self.first = self.first.max(through + 1);
        self.sync()
    }

    fn sync(&mut self) -> Result<(), Fault> {
        self.db.flush()?;
        self.blobs.sync()?;
        // sled's own flush ends in sync_file_range, which does not empty the device's cache.
        self.sync.sync_data()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::shell::clock::Clock;
    use crate::shell::journal::Journal;

    /// The files of a store, once nobody has it open any more.
    fn files(home: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        while File::open(home.join("db/db")).unwrap().try_lock().is_err() {
            std::thread::sleep(LOCK_PAUSE);
        }
        let folders = [home.to_owned(), home.join("db")];
        let entries =
            folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_file()).map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    #[test]
    fn a_record_of_a_newer_version_leaves_the_store_as_it_was() {
        let dir = tempfile::TempDir::new().unwrap();
        let open = || Journal::open(dir.path(), 10, Clock::start());
        drop(open().unwrap());
        let home = dir.path().join("journal");
        let body = [&[3], br#"{"sequence":1,"by":"somebody"}"#.as_slice()].concat();
        let value = [crc32fast::hash(&body).to_be_bytes().as_slice(), &body].concat();
        let mut store = Store::open(&home.join("db")).unwrap();
        store.db.insert(1_u64.to_be_bytes(), value).unwrap();
        store.sync().unwrap();
        drop(store);
        let before = files(&home);
        let error = open().unwrap_err().to_string();
        assert!(error.contains("record 1 has the format 3, written by a newer siteward"), "{error}");
        assert_eq!(files(&home), before);
        assert!(!dir.path().join("journal.damaged-1").exists() && !dir.path().join("journal.before").exists());
    }

    #[test]
    fn a_part_that_is_gone_is_damage() {
        assert!(matches!(Fault::from(io::Error::from_raw_os_error(2)), Fault::Damaged(_)));
    }

    #[test]
    fn a_full_disk_is_no_damage_even_as_sled_repeats_it() {
        let full = sled::Error::Io(io::Error::from_raw_os_error(28));
        assert!(matches!(Fault::from(full.clone()), Fault::Environment(_)), "{full:?}");
        assert!(Fault::from(full).is_full_disk());
        let short = sled::Error::Io(io::Error::from(io::ErrorKind::UnexpectedEof));
        assert!(matches!(Fault::from(short), Fault::Damaged(_)));
        let unreadable = io::Error::from_raw_os_error(5);
        assert!(matches!(Fault::from(unreadable), Fault::Damaged(_)));
        let panicked = guarded(|| -> Result<(), Fault> { std::panic::resume_unwind(Box::new("no luck".to_owned())) });
        assert!(matches!(panicked, Err(Fault::Damaged(text)) if text.contains("no luck")));
        assert!(!in_guarded_open());
    }
}
