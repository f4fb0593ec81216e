//! Stores of every released version, kept below `tests/golden/stores/`, and what this version must find in them.
//!
//! `UPDATE=1 cargo test --workspace --locked --test stores golden` writes that of the present version where there is none. One that a
//! release has written is never written again: it is what lies on the gateways.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use siteward::engine::model::ids::Sequence;
use siteward::engine::model::record::Record;
use siteward::engine::site::ledger::Ledger;
use siteward::shell::clock::Clock;
use siteward::shell::journal::{HISTORY, Journal, OpenError, look};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::filled::{await_durable, bodies, fold, record};
use crate::packed::{pack, unpack};
use crate::tree;

/// All releases have one number for both packages.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Records in a store that is written here: each kind more than once, half of them before the snapshot.
const LAST: u64 = 150;
const SNAPSHOT: u64 = 90;
const ACKNOWLEDGED: u64 = 120;

/// What must be found in a store, beside its records (`records.jsonl`) and its folded state (`state.json`).
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Expected {
    store_id: String,
    /// How often it had been started.
    boot: u64,
    acknowledged: u64,
    snapshot: u64,
    first: u64,
    last: u64,
}

fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/stores")
}

/// The versions of which there is a store. That of this version is written if it is missing and `UPDATE` is set.
fn versions() -> Vec<PathBuf> {
    let own = place().join(VERSION);
    if !own.exists() && std::env::var_os("UPDATE").is_some() {
        write(&own);
    }
    let mut versions: Vec<_> = fs::read_dir(place()).unwrap().map(|entry| entry.unwrap().path()).collect();
    versions.sort();
    assert!(versions.contains(&own), "no store of {VERSION}: UPDATE=1 writes it");
    versions
}

/// Writes a store as the daemon does, in two runs, and what is in it.
fn write(folder: &Path) {
    let dir = TempDir::new().unwrap();
    let mut store_id = String::new();
    for records in [1..=LAST / 2, LAST / 2 + 1..=LAST] {
        let opened = Journal::open(dir.path(), HISTORY, Clock::start()).unwrap();
        assert_eq!(opened.damage, None);
        let end = *records.end();
        store_id = opened.store_id;
        let (sender, mut inbox) = mpsc::channel(64);
        let handle = opened.journal.start(sender).unwrap();
        for sequence in records {
            handle.append(vec![record(sequence, false)]).unwrap();
            if sequence == SNAPSHOT {
                await_durable(&mut inbox, sequence).unwrap();
                handle.snapshot(Sequence(sequence), fold(sequence, false).snapshot()).unwrap();
            }
            if sequence % (LAST / 2) == 0 {
                await_durable(&mut inbox, sequence).unwrap();
            }
        }
        handle.acknowledged(Sequence(ACKNOWLEDGED.min(end))).unwrap();
        drop(inbox);
        handle.close();
    }
    let expected = Expected { store_id, boot: 2, acknowledged: ACKNOWLEDGED, snapshot: SNAPSHOT, first: 1, last: LAST };
    let lines: Vec<String> =
        (1..=LAST).map(|sequence| serde_json::to_string(&record(sequence, false)).unwrap() + "\n").collect();
    let state: Value = serde_json::from_slice(&fold(LAST, false).snapshot()).unwrap();
    let pretty = |value: &Value| format!("{value:#}\n");
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("store.packed"), pack(&tree::read(&dir.path().join("journal")))).unwrap();
    fs::write(folder.join("expected.json"), pretty(&serde_json::to_value(&expected).unwrap())).unwrap();
    fs::write(folder.join("records.jsonl"), lines.concat()).unwrap();
    fs::write(folder.join("state.json"), pretty(&state)).unwrap();
}

/// A copy of a version's store, to be opened.
fn copy_of(folder: &Path) -> TempDir {
    let dir = TempDir::new().unwrap();
    tree::write(&unpack(&fs::read(folder.join("store.packed")).unwrap()), &dir.path().join("journal"));
    dir
}

/// The path of the first value of `old` that is not in `new`. What is new there does not count.
fn lost(old: &Value, new: &Value, path: &str) -> Option<String> {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => old.iter().find_map(|(key, value)| {
            let path = format!("{path}/{key}");
            new.get(key).map_or_else(|| Some(path.clone()), |found| lost(value, found, &path))
        }),
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            old.iter().zip(new).enumerate().find_map(|(n, (old, new))| lost(old, new, &format!("{path}/{n}")))
        }
        _ => (old != new).then(|| path.to_owned()),
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn value(ledger: &Ledger) -> Value {
    serde_json::from_slice(&ledger.snapshot()).unwrap()
}

/// The state that a start on `dir` folds.
fn state_of(snapshot: Option<(Sequence, Vec<u8>)>, records: &[Record]) -> Ledger {
    let mut ledger = snapshot.map_or_else(Ledger::default, |(_, state)| Ledger::restore(&state).unwrap());
    for record in records {
        ledger.apply(record);
    }
    ledger
}

#[test]
fn the_stores_of_all_versions_are_read() {
    for folder in versions() {
        let version = folder.display();
        let expected: Expected = serde_json::from_value(json(&folder.join("expected.json"))).unwrap();
        let dir = copy_of(&folder);

        let seen = look(dir.path(), false).unwrap();
        assert_eq!((seen.findings.as_slice(), seen.missing().as_slice()), ([].as_slice(), [].as_slice()), "{version}");
        let text = fs::read_to_string(folder.join("records.jsonl")).unwrap();
        let written: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(seen.records.keys().copied().eq(expected.first..=expected.last), "{version}");
        assert_eq!(written.len(), seen.records.len(), "{version}");
        for (old, found) in written.iter().zip(seen.records.values()) {
            assert_eq!(
                lost(old, &serde_json::to_value(found).unwrap(), ""),
                None,
                "{version}, record {}",
                found.sequence
            );
        }

        let opened = Journal::open(dir.path(), HISTORY, Clock::start()).unwrap();
        let snapshot = opened.snapshot.as_ref().map_or(0, |(through, _)| through.0);
        let found = Expected {
            store_id: opened.store_id,
            boot: opened.boot - 1,
            acknowledged: opened.acknowledged.0,
            snapshot,
            first: *seen.records.keys().next().unwrap(),
            last: opened.last.0,
        };
        assert_eq!((found, opened.damage), (expected, None), "{version}");
        let state = json(&folder.join("state.json"));
        let folded = state_of(opened.snapshot, &opened.records);
        assert_eq!(lost(&state, &value(&folded), ""), None, "{version}");
        assert_eq!(folded, Ledger::restore(state.to_string().as_bytes()).unwrap(), "{version}");
    }
}

#[test]
fn the_records_of_all_versions_fold_to_the_same_without_their_snapshot() {
    for folder in versions() {
        let dir = copy_of(&folder);
        fs::remove_file(dir.path().join("journal/snapshot")).unwrap();
        let opened = Journal::open(dir.path(), HISTORY, Clock::start()).unwrap();
        assert_eq!((opened.snapshot, opened.damage), (None, None), "{}", folder.display());
        let folded = state_of(None, &opened.records);
        let state = json(&folder.join("state.json"));
        assert_eq!(folded, Ledger::restore(state.to_string().as_bytes()).unwrap(), "{}", folder.display());
    }
}

#[test]
fn a_start_goes_on_behind_an_older_store() {
    for folder in versions() {
        let dir = copy_of(&folder);
        let opened = Journal::open(dir.path(), HISTORY, Clock::start()).unwrap();
        let (last, store_id, boot) = (opened.last.0, opened.store_id, opened.boot);
        let next: Vec<Record> = (last + 1..=last + 300).map(|sequence| record(sequence, false)).collect();
        let (sender, mut inbox) = mpsc::channel(64);
        let handle = opened.journal.start(sender).unwrap();
        handle.append(next.clone()).unwrap();
        await_durable(&mut inbox, last + 300).unwrap();
        drop(inbox);
        handle.close();
        let again = Journal::open(dir.path(), HISTORY, Clock::start()).unwrap();
        assert_eq!((again.damage, again.store_id, again.boot), (None, store_id, boot + 1), "{}", folder.display());
        assert_eq!(again.records[again.records.len() - 300..], next, "{}", folder.display());
    }
}

#[test]
fn the_store_of_this_version_has_every_kind_of_record() {
    let changes = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../CHANGELOG.md")).unwrap();
    if changes.contains(&format!("\n## [{VERSION}]")) {
        // It is released: what has come since then is in the store of the next version.
        return;
    }
    let own = versions().into_iter().find(|folder| folder.ends_with(VERSION)).unwrap();
    let kind = |body: &Value| body.as_object().unwrap().keys().next().unwrap().clone();
    let text = fs::read_to_string(own.join("records.jsonl")).unwrap();
    let there: BTreeSet<String> =
        text.lines().map(|line| kind(&serde_json::from_str::<Value>(line).unwrap()["body"])).collect();
    let wanted: BTreeSet<String> = bodies().iter().map(|body| kind(&serde_json::to_value(body).unwrap())).collect();
    assert_eq!(there, wanted, "remove {} and write it again with UPDATE=1", own.display());
}

/// The checksum in front of a snapshot and of the state file (CRC-32 of IEEE 802.3), by its definition.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1)))
    };
    !bytes.iter().fold(!0, step)
}

/// Changes a copy of this version's store, which must then be refused and stay as it is.
fn is_refused(change: impl Fn(&mut tree::Tree), says: &str) {
    let own = versions().into_iter().find(|folder| folder.ends_with(VERSION)).unwrap();
    let dir = copy_of(&own);
    let mut files = tree::read(&dir.path().join("journal"));
    change(&mut files);
    tree::write(&files, &dir.path().join("journal"));
    let everything = tree::read(dir.path());
    match Journal::open(dir.path(), HISTORY, Clock::start()) {
        Err(OpenError::Unusable { error, .. }) => {
            assert!(error.contains(says) && error.contains("install that version again"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    let after = tree::read(dir.path());
    assert_eq!(tree::differences(&everything, &after), Vec::<PathBuf>::new(), "it was left alone");
    let seen = look(dir.path(), false).unwrap_err().to_string();
    assert!(seen.contains(says), "{seen}");
}

#[test]
fn a_snapshot_of_a_newer_version_is_left_alone() {
    let change = |files: &mut tree::Tree| {
        let snapshot = files.get_mut(Path::new("snapshot")).unwrap();
        snapshot[4] += 1;
        let crc = crc32(&snapshot[4..]).to_be_bytes();
        snapshot[..4].copy_from_slice(&crc);
    };
    is_refused(change, "written by a newer siteward");
}

#[test]
fn a_state_file_of_a_newer_version_is_left_alone() {
    let change = |files: &mut tree::Tree| {
        let json = r#"{"store":{"id":"5f1c9e0b7a3d2846"},"format":2}"#;
        files.insert(PathBuf::from("state"), format!("{:08x} {json}\n", crc32(json.as_bytes())).into_bytes());
    };
    is_refused(change, "written by a newer siteward");
}
