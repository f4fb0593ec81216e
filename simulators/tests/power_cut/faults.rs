//! A disk that is full, read-only, broken or slow, and well again: said once, nothing lost, no restart.

use std::fs;
use std::path::Path;

use siteward::engine::model::ids::Sequence;
use siteward::engine::site::io::{Input, JournalInput};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::{child, child_store, open, record, shim};

const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const EIO: i32 = 5;
/// Each synchronisation of the slow disk takes so long.
const SLOW_MS: i32 = 40;

/// Names the file from which the child's disk learns how it fails.
const FAULT: &str = "SHIM_FAULT";

/// Runs `task` in a child whose disk fails as the child itself says.
fn run(task: &str) {
    let place = TempDir::new().unwrap();
    let dir = place.path().join("store");
    fs::create_dir(&dir).unwrap();
    let status = child(task, &dir, &shim(place.path())).env(FAULT, place.path().join("fault")).status().unwrap();
    assert!(status.success(), "{task} failed");
}

/// From now on the disk fails so; 0: not at all.
fn disk(fault: i32) {
    let path = std::env::var_os(FAULT).unwrap();
    // At once, so that no half of it is read.
    let next = Path::new(&path).with_extension("next");
    fs::write(&next, fault.to_string()).unwrap();
    fs::rename(next, path).unwrap();
}

fn next(inbox: &mut mpsc::Receiver<Input>) -> JournalInput {
    match inbox.blocking_recv().unwrap() {
        Input::Journal(input) => input,
        other => panic!("{other:?}"),
    }
}

/// Waits until `last` is durable. Whether the disk was said to work again on the way.
fn await_durable(inbox: &mut mpsc::Receiver<Input>, last: u64) -> bool {
    let mut recovered = false;
    loop {
        match next(inbox) {
            JournalInput::Durable { through } if through.0 == last => return recovered,
            JournalInput::Durable { .. } => {}
            JournalInput::Recovered => recovered = true,
            other => panic!("{other:?}"),
        }
    }
}

/// Runs only as a child.
#[test]
fn child_on_a_disk_that_refuses() {
    let Some(dir) = child_store() else { return };
    let opened = open(&dir);
    let (sender, mut inbox) = mpsc::channel(64);
    let handle = opened.journal.start(sender).unwrap();
    let mut last = 0;
    for (fault, words) in [(ENOSPC, "No space left"), (EROFS, "Read-only file system"), (EIO, "Input/output error")] {
        handle.append((last + 1..=last + 50).map(record).collect()).unwrap();
        await_durable(&mut inbox, last + 50);
        disk(fault);
        handle.append((last + 51..=last + 60).map(record).collect()).unwrap();
        match next(&mut inbox) {
            JournalInput::Failed { error } => assert!(error.contains(words), "{fault}: {error}"),
            other => panic!("{fault}: {other:?}"),
        }
        // What comes meanwhile waits in memory; what failed is not said again.
        handle.append((last + 61..=last + 100).map(record).collect()).unwrap();
        disk(0);
        assert!(await_durable(&mut inbox, last + 100), "{fault}: said to be well again");
        last += 100;
    }
    drop(inbox);
    handle.close();
    let opened = open(&dir);
    assert_eq!((opened.damage, opened.last), (None, Sequence(last)));
    assert_eq!(opened.records, (1..=last).map(record).collect::<Vec<_>>());
}

#[test]
fn a_full_or_read_only_disk_is_said_and_heals_without_a_restart() {
    run("faults::child_on_a_disk_that_refuses");
}

/// Runs only as a child.
#[test]
fn child_on_a_slow_disk() {
    let Some(dir) = child_store() else { return };
    let opened = open(&dir);
    let (sender, mut inbox) = mpsc::channel(64);
    let handle = opened.journal.start(sender).unwrap();
    disk(-SLOW_MS);
    let mut commits = 0;
    for sequence in 1..=400 {
        handle.append(vec![record(sequence)]).unwrap();
    }
    loop {
        match next(&mut inbox) {
            JournalInput::Durable { through } => {
                commits += 1;
                if through == Sequence(400) {
                    break;
                }
            }
            other => panic!("a slow disk is no broken one: {other:?}"),
        }
    }
    // Slow as it is, it keeps up, since what waits goes in one commit.
    assert!(commits < 40, "{commits} commits for 400 records");
    drop(inbox);
    handle.close();
}

#[test]
fn a_slow_disk_takes_more_at_once() {
    run("faults::child_on_a_slow_disk");
}
