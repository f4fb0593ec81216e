//! What sled keeps beside its log.
//!
//! A page larger than a quarter of a segment (a list of tokens, or some of them) becomes a file of its own, to which the log only points.
//! sled never synchronises these files: after a power cut the log would point to an empty one, or to none.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::side::sync_directory;

/// The files of one database.
#[derive(Debug)]
pub(super) struct Blobs {
    folder: PathBuf,
    /// Those that a power cut leaves.
    safe: BTreeSet<OsString>,
}

impl Blobs {
    /// Those of the database in `path`. What an earlier process has left may still be in the system's cache, so none counts as safe.
    pub(super) fn of(path: &Path) -> Self {
        Self { folder: path.join("blobs"), safe: BTreeSet::new() }
    }

    /// Makes those durable that have come since the last time.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        let mut there = BTreeSet::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if !self.safe.contains(&entry.file_name()) {
                File::open(entry.path())?.sync_data()?;
            }
            there.insert(entry.file_name());
        }
        if !there.is_subset(&self.safe) {
            sync_directory(&self.folder)?;
        }
        self.safe = there;
        Ok(())
    }
}
