//! Opening a store: find it, check it, set it aside if it is damaged.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::keep::Kept;
use super::side::{self, Marks, Snapshot, State};
use super::store::{Contents, Fault, Store, guarded};
use super::worker::Worker;
use super::{Journal, OpenError, Opened};
use crate::engine::model::ids::Sequence;
use crate::shell::clock::Clock;

/// Sequence numbers are reserved in blocks, so that the state file need not be written with every record.
pub(super) const BLOCK: u64 = 1_000;
/// Damaged stores that may lie beside the good one before a person has to look: they are never deleted by us.
const MAX_DAMAGED: u32 = 100;

/// A store that was found good.
pub(super) struct Good {
    pub(super) store: Store,
    state: State,
    marks: Marks,
    contents: Contents,
    snapshot: Option<(Sequence, Vec<u8>)>,
}

/// What is known of a store that is not good.
pub(super) struct Bad {
    pub(super) what: String,
    acknowledged: u64,
    /// It once had records up to here.
    expected: u64,
}

pub(super) fn open(dir: &Path, memory: Option<&Path>, history: u64, clock: Clock) -> Result<Opened, OpenError> {
    prepare(dir).map_err(|error| OpenError::NotWritable { path: dir.to_owned(), error: error.to_string() })?;
    let unusable = |error: String| OpenError::Unusable { path: dir.to_owned(), error };
    let io_unusable = |error: io::Error| unusable(error.to_string());
    let home = dir.join("journal");
    if !home.exists() {
        begin(dir, None).map_err(|fault| unusable(text(fault)))?;
        fs::rename(dir.join("journal.new"), &home).and_then(|()| side::sync_directory(dir)).map_err(io_unusable)?;
    }
    let kept = Kept::copy_of(&home).map_err(io_unusable)?;
    let mut good = match load(&home, memory) {
        Ok(Ok(good)) => {
            drop(kept);
            good
        }
        Err(Fault::Newer(error)) => {
            // Opening has changed it, by the rules of this version.
            kept.put_back().map_err(io_unusable)?;
            return Err(unusable(error));
        }
        Err(fault) => return Err(unusable(text(fault))),
        Ok(Err(bad)) => {
            kept.put_back().map_err(io_unusable)?;
            set_aside(dir, &bad).map_err(unusable)?;
            let again = load(&home, memory).map_err(|fault| unusable(text(fault)))?;
            again.map_err(|bad| {
                unusable(format!("a new store is damaged at once ({}): is the disk broken?", bad.what))
            })?
        }
    };
    good.state.boot += 1;
    side::write_state(&home, &good.state).map_err(io_unusable)?;
    let Good { store, state, marks, contents, snapshot } = good;
    let snapshot_through = snapshot.as_ref().map_or(0, |(through, _)| through.0);
    Ok(Opened {
        store_id: state.store_id.clone(),
        boot: state.boot,
        acknowledged: Sequence(state.acknowledged),
        last: Sequence(contents.last),
        damage: state.damage.clone().filter(|_| contents.last == 0),
        snapshot,
        records: contents.records,
        journal: Journal {
            worker: Worker::new(home, (clock, history), (store, state, marks), (contents.last, snapshot_through)),
        },
    })
}

pub(super) fn prepare(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        // Not every parent may be opened; where it may, the folder's own name survives a power cut as well.
        side::sync_directory(parent).ok();
    }
    let probe = dir.join(".writable");
    File::create(&probe)?;
    fs::remove_file(&probe)?;
    // A start that was cut off while it set a store aside is finished first; one that was cut off in making a store begins again.
    let (home, new) = (dir.join("journal"), dir.join("journal.new"));
    if !home.exists() && side::is_complete(&new) {
        fs::rename(new, home)?;
        side::sync_directory(dir)?;
    }
    Ok(())
}

/// Makes an empty store as `journal.new`.
fn begin(dir: &Path, damage: Option<String>) -> Result<(), Fault> {
    let new = dir.join("journal.new");
    if new.exists() {
        fs::remove_dir_all(&new)?;
    }
    fs::create_dir(&new)?;
    let store_id = random_name()?;
    guarded(|| Store::open(&new.join("db"))?.set_store_id(&store_id))?;
    side::sync_directory(&new.join("db"))?;
    side::write_state(&new, &State { store_id, boot: 0, reserved: BLOCK, acknowledged: 0, damage })?;
    side::sync_directory(dir)?;
    Ok(())
}

fn random_name() -> io::Result<String> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

pub(super) fn text(fault: Fault) -> String {
    match fault {
        Fault::Environment(text) | Fault::Newer(text) | Fault::Damaged(text) => text,
    }
}

/// The outer error is the machine's or a newer version's, the inner one the store's.
pub(super) fn load(home: &Path, memory: Option<&Path>) -> Result<Result<Good, Bad>, Fault> {
    let machine = |error: io::Error| Fault::Environment(error.to_string());
    let state = side::read_state(home)?;
    let snapshot = side::read_snapshot(home).map_err(machine)?;
    let (snapshot_damaged, snapshot) = match snapshot {
        Snapshot::Missing => (false, None),
        Snapshot::Damaged => (true, None),
        Snapshot::Newer(version) => return Err(side::newer_snapshot(version)),
        Snapshot::Good { through, state } => (false, Some((Sequence(through), state))),
    };
    let named = memory.zip(state.as_ref().map(|state| state.store_id.as_str()));
    let marks = Marks::open(home, named).map_err(machine)?;
    let through = snapshot.as_ref().map_or(0, |(through, _)| through.0);
    let acknowledged = state.as_ref().map_or(0, |state| state.acknowledged);
    let reserved = state.as_ref().map_or(0, |state| state.reserved.saturating_sub(BLOCK));
    let expected = marks.read().max(acknowledged).max(reserved).max(through);
    let bad = |what: String, last: u64| Ok(Err(Bad { what, acknowledged, expected: expected.max(last) }));

    let opened = guarded(|| {
        let mut store = Store::open(&home.join("db"))?;
        let contents = store.examine(through)?;
        let store_id = store.store_id()?;
        Ok((store, contents, store_id))
    });
    let (store, contents, store_id) = match opened {
        Ok(opened) => opened,
        Err(Fault::Damaged(what)) => return bad(what, 0),
        Err(fault) => return Err(fault),
    };
    let last = contents.last;
    if last < expected {
        return bad(format!("it ends at record {last} and had records up to {expected}"), last);
    }
    let Some(state) = state.or_else(|| store_id.map(|id| rebuilt(id, &contents))) else {
        return bad("it has no name and no state file".to_owned(), last);
    };
    let missing_before = contents.first.saturating_sub(1);
    if missing_before > state.acknowledged {
        return bad(format!("records {} to {missing_before} are missing", state.acknowledged + 1), last);
    }
    if missing_before > through {
        let why = if snapshot_damaged { "damaged" } else { "missing" };
        return bad(format!("the snapshot of the records up to {missing_before} is {why}"), last);
    }
    Ok(Ok(Good { store, state, marks, contents, snapshot }))
}

/// The state file is gone: everything that is kept is sent to the cloud again, which knows it by its number.
fn rebuilt(store_id: String, contents: &Contents) -> State {
    State {
        store_id,
        boot: contents.boot,
        reserved: contents.last + BLOCK,
        acknowledged: contents.first.saturating_sub(1),
        damage: None,
    }
}

fn set_aside(dir: &Path, bad: &Bad) -> Result<(), String> {
    let free = (1..=MAX_DAMAGED).map(|n| format!("journal.damaged-{n}")).find(|name| !dir.join(name).exists());
    let name = free.ok_or_else(|| {
        format!("{}; {MAX_DAMAGED} damaged stores lie there already: replace the disk, or move them away", bad.what)
    })?;
    let lost = if bad.expected > bad.acknowledged {
        format!("records {} to {} at least had not been acknowledged", bad.acknowledged + 1, bad.expected)
    } else {
        "no record is known that had not been acknowledged".to_owned()
    };
    let damage = format!(
        "the store was damaged ({}) and was set aside as {name}; the cloud had acknowledged the records up to {}, {lost}",
        bad.what, bad.acknowledged
    );
    // The new store is complete before the old one goes, so that a power cut at any point leaves one of them.
    begin(dir, Some(damage)).map_err(text)?;
    fs::rename(dir.join("journal"), dir.join(&name))
        .and_then(|()| fs::rename(dir.join("journal.new"), dir.join("journal")))
        .and_then(|()| side::sync_directory(dir))
        .map_err(|error| error.to_string())
}
