//! A good store from what could be read of a damaged one.

use std::fs;
use std::path::Path;

use super::inspect::{Look, SnapshotLook};
use super::open::{self, BLOCK, text};
use super::side::{self, Mark, State};
use super::store::{Fault, Store, guarded};
use crate::engine::model::record::Record;

/// Records that are written at once.
const LOT: usize = 500;

/// Makes a store below `dir` that is the one of `look` again: its name, its records, its snapshot, its cursor. It goes on with the same
/// numbers, so it is made only where nothing is missing that a store must have.
///
/// # Errors
/// In words: something is missing, `dir` has a store already, or it cannot be written.
pub fn rebuild(look: &Look, dir: &Path) -> Result<(), String> {
    let (home, new) = (dir.join("journal"), dir.join("journal.new"));
    if home.exists() {
        return Err(format!("{} has a store already: name an empty directory", dir.display()));
    }
    let store_id =
        look.store_id.clone().ok_or("the store's name is lost, so its event ids are: only --out can be used")?;
    let write = || -> Result<(), Fault> {
        open::prepare(dir)?;
        if new.exists() {
            fs::remove_dir_all(&new)?;
        }
        fs::create_dir(&new)?;
        fill(look, &store_id, &new)
    };
    let judged = write().and_then(|()| open::load(&new, None));
    let result = match judged {
        // Closed here, before it is moved.
        Ok(Ok(good)) => {
            drop(good);
            let moved = fs::rename(&new, &home).and_then(|()| side::sync_directory(dir));
            return moved.map_err(|error| error.to_string());
        }
        Ok(Err(bad)) => Err(format!("a store cannot have gaps, and {}; --out takes what there is", bad.what)),
        Err(fault) => Err(text(fault)),
    };
    // What is left over is replaced by the next attempt.
    let _ = fs::remove_dir_all(&new);
    result
}

fn fill(look: &Look, store_id: &str, new: &Path) -> Result<(), Fault> {
    // What stands before the last gap is needed only if the gap is, and then there is no store.
    let mut records: Vec<Record> = Vec::new();
    for record in look.records.values().cloned() {
        if records.last().is_some_and(|last| last.sequence.next() != record.sequence) {
            records.clear();
        }
        records.push(record);
    }
    let db = new.join("db");
    guarded(|| {
        let mut store = Store::open(&db)?;
        store.set_store_id(store_id)?;
        records.chunks(LOT).try_for_each(|lot| store.append(lot))
    })?;
    side::sync_directory(&db)?;
    if let SnapshotLook::Good { through, state } = &look.snapshot {
        side::write_snapshot(new, *through, state)?;
    }
    Mark::open(new)?.write(look.expected)?;
    let (boot, acknowledged, reserved) = (look.boot, look.acknowledged, look.expected + BLOCK);
    side::write_state(new, &State { store_id: store_id.to_owned(), boot, reserved, acknowledged, damage: None })?;
    Ok(())
}
