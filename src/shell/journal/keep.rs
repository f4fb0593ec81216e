//! The database as it was before it is opened.
//!
//! sled repairs what it opens: of a damaged database it cuts off what it does not understand, and with that records that could still be
//! read. So it is copied before, and where the verdict is bad the copy is what is set aside.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::side::sync_directory;

/// A larger database is not copied: on slow flash that would hold up the start for longer than the evidence is worth.
pub(super) const MOST_BYTES: u64 = 256 << 20;

/// A copy of the database that is removed when this is dropped, unless it was put back.
pub(super) struct Kept {
    home: PathBuf,
    copy: Option<PathBuf>,
    /// There was none: what stands there afterwards was made by opening it.
    absent: bool,
}

impl Kept {
    /// Copies the database of `home`. Nothing is synchronised: usually the copy is gone again before the disk has seen it.
    pub(super) fn copy_of(home: &Path) -> io::Result<Self> {
        let copy = home.with_extension("before");
        let db = home.join("db");
        if copy.exists() && !db.exists() {
            // A start was cut off while it put the copy back.
            fs::rename(&copy, &db)?;
            sync_directory(home)?;
        }
        remove(&copy)?;
        remove(&home.join("db.opened"))?;
        let mut kept = Self { home: home.to_owned(), copy: None, absent: !db.exists() };
        // One in use is not ours to copy: the opening will say so. One without its log has records in the files beside it, which opening
        // deletes.
        let free = match File::open(db.join("db")) {
            Ok(file) => file.try_lock().is_ok(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if free && size_of(&db).is_ok_and(|bytes| bytes <= MOST_BYTES) {
            match copy_tree(&db, &copy) {
                Ok(()) => kept.copy = Some(copy),
                // A full or unreadable disk: the opening says what is wrong.
                Err(_) => remove(&copy)?,
            }
        }
        Ok(kept)
    }

    /// Puts the copy in the place of the opened database.
    pub(super) fn put_back(mut self) -> io::Result<()> {
        if self.absent {
            return remove(&self.home.join("db"));
        }
        let Some(copy) = self.copy.take() else { return Ok(()) };
        let (db, opened) = (self.home.join("db"), self.home.join("db.opened"));
        sync_tree(&copy)?;
        fs::rename(&db, &opened)?;
        fs::rename(&copy, &db)?;
        sync_directory(&self.home)?;
        remove(&opened)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(copy) = &self.copy {
            // The next start removes what is left.
            let _ = remove(copy);
        }
    }
}

pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(super) fn size_of(path: &Path) -> io::Result<u64> {
    fs::read_dir(path)?
        .map(|entry| {
            let entry = entry?;
            if entry.file_type()?.is_dir() { size_of(&entry.path()) } else { Ok(entry.metadata()?.len()) }
        })
        .sum()
}

pub(super) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn sync_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_directory(path)
}
