//! What opening a database finds out, made safe before it is opened.
//!
//! sled folds its log when it opens it, writes what came of that as a snapshot, deletes the snapshot before, and overwrites with zeros what of the
//! log the new one does not need: all in one go, without making the name of the new snapshot durable in between. A power cut then may leave the
//! zeros and not the snapshot, and the whole database is gone. So it is opened as a copy first, the snapshot of the copy is put beside the log,
//! durably, and the opening that follows finds nothing new to write. The log is folded once, as before: the second time it is at its end already.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use super::keep::{MOST_BYTES, copy_tree, remove, size_of};
use super::side::sync_directory;
use super::store::{guarded, settings};

/// How the name of a snapshot begins; the rest is its place in the log, so that the last one by name is the newest.
const SNAPSHOT: &str = "snap.";
/// A snapshot that sled has not finished.
const UNFINISHED: &str = ".generating";
/// sled must not take this for one.
const ON_ITS_WAY: &str = "new.snap";
/// Until the copy is closed, its threads may still be at work.
const CLOSING_TRIES: u32 = 40;
const CLOSING_PAUSE: Duration = Duration::from_millis(25);

/// Gives the database in `path` the snapshot that its opening would write. Where that is not possible (it is new, damaged, in use or too large, or the
/// disk is full) it is left as it is: the opening will say what is wrong.
pub(super) fn rehearse(path: &Path) -> io::Result<()> {
    let copy = path.with_extension("rehearsal");
    remove(&copy)?;
    let free = File::open(path.join("db")).is_ok_and(|log| log.try_lock().is_ok());
    if !free || !size_of(path).is_ok_and(|bytes| bytes <= MOST_BYTES) {
        return Ok(());
    }
    if copy_tree(path, &copy).is_ok() && is_opened(&copy) {
        take_over(path, &copy)?;
    }
    remove(&copy)
}

/// Opens the copy and closes it again.
fn is_opened(copy: &Path) -> bool {
    let opened = guarded(|| {
        drop(settings(copy).flush_every_ms(None).open()?);
        for _ in 0..CLOSING_TRIES {
            if File::open(copy.join("db"))?.try_lock().is_ok() {
                break;
            }
            std::thread::sleep(CLOSING_PAUSE);
        }
        Ok(())
    });
    opened.is_ok()
}

/// Puts the newest snapshot of the copy beside the log that it is of.
fn take_over(path: &Path, copy: &Path) -> io::Result<()> {
    let new = newest(copy)?;
    if let Some(name) = new.filter(|name| !path.join(name).exists()) {
        let on_its_way = path.join(ON_ITS_WAY);
        let mut file = File::create(&on_its_way)?;
        file.write_all(&fs::read(copy.join(&name))?)?;
        file.sync_all()?;
        fs::rename(on_its_way, path.join(name))?;
    }
    // One that is there already may be of an opening that did not do this.
    sync_directory(path)
}

fn newest(path: &Path) -> io::Result<Option<OsString>> {
    let names = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    let is_snapshot = |name: &OsString| {
        let name = name.to_string_lossy();
        name.starts_with(SNAPSHOT) && !name.ends_with(UNFINISHED)
    };
    Ok(names.into_iter().filter(is_snapshot).max())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshots(path: &Path) -> Vec<OsString> {
        let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with(SNAPSHOT)).collect();
        names.sort();
        names
    }

    fn opened(path: &Path) -> sled::Db {
        settings(path).flush_every_ms(None).open().unwrap()
    }

    fn wait_until_closed(path: &Path) {
        while File::open(path.join("db")).unwrap().try_lock().is_err() {
            std::thread::sleep(CLOSING_PAUSE);
        }
    }

    #[test]
    fn the_opening_after_a_rehearsal_writes_no_snapshot() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("db");
        rehearse(&path).unwrap();
        assert!(!path.exists(), "of what is not there nothing is made");
        let db = opened(&path);
        for number in 0..2_000_u32 {
            db.insert(number.to_be_bytes(), vec![7; 900]).unwrap();
        }
        (0..1_500_u32).for_each(|number| drop(db.remove(number.to_be_bytes()).unwrap()));
        db.flush().unwrap();
        drop(db);
        wait_until_closed(&path);
        // Left to itself, opening it writes one.
        let other = dir.path().join("other");
        copy_tree(&path, &other).unwrap();
        let before = snapshots(&other);
        drop(opened(&other));
        assert_ne!(snapshots(&other), before);

        rehearse(&path).unwrap();
        assert!(!path.with_extension("rehearsal").exists());
        let rehearsed = snapshots(&path);
        assert_eq!(rehearsed.last(), snapshots(&other).last());
        let db = opened(&path);
        assert_eq!(snapshots(&path), rehearsed);
        assert_eq!(db.len(), 500);
        // While it is open it is nobody else's.
        rehearse(&path).unwrap();
        assert_eq!(snapshots(&path), rehearsed);
    }

    #[test]
    fn what_cannot_be_opened_is_left_as_it_is() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("db");
        fs::create_dir(&path).unwrap();
        for (name, bytes) in
            [("db", [0xA5; 4_096].as_slice()), ("conf", b"nonsense"), ("snap.00000000000000FF", b"none")]
        {
            fs::write(path.join(name), bytes).unwrap();
        }
        rehearse(&path).unwrap();
        assert_eq!(snapshots(&path), ["snap.00000000000000FF"]);
        assert_eq!(fs::read(path.join("db")).unwrap(), [0xA5; 4_096]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
