//! Records so large that sled keeps its pages in files of their own: they are synchronised with the log, or a power cut takes them.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use siteward::engine::model::ids::Sequence;
use siteward::engine::model::record::{Record, RecordBody};
use siteward::engine::site::io::{Input, JournalInput};
use siteward_sim::rng::Dice;
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::replay::{Blocks, Change, Disk, Names, changes};
use crate::{HISTORY, child, child_store, open, quiet_guarded_panics, shim};

/// Records that the child writes, in two starts. All of them are kept.
const LAST: u64 = 120;
/// Moments at which the power is cut, for each kind of disk.
const MOMENTS: usize = 60;

/// Each fifth is as large as a list of tokens in one message.
fn record(sequence: u64) -> Record {
    let length = if sequence.is_multiple_of(5) { 20_000 + sequence * 7_919 % 200_000 } else { 300 };
    // Without a pattern: what can be packed would not be large.
    let mut dice = Dice::new(sequence);
    let letters = (0..length).map(|_| char::from(b' ' + u8::try_from(dice.below(90)).unwrap()));
    let missing = format!("{sequence} {}", letters.collect::<String>());
    Record { body: RecordBody::StoreRecovered { missing }, ..crate::record(sequence) }
}

/// Runs only as a child.
#[test]
fn child_with_large_records() {
    let Some(dir) = child_store() else { return };
    let mut said = std::io::stdout();
    for sequences in [1..=LAST / 2, LAST / 2 + 1..=LAST] {
        let opened = open(&dir);
        assert_eq!((opened.damage, opened.last), (None, Sequence(sequences.start() - 1)));
        let (sender, mut inbox) = mpsc::channel(64);
        let handle = opened.journal.start(sender).unwrap();
        for sequence in sequences {
            handle.append(vec![record(sequence)]).unwrap();
            match inbox.blocking_recv() {
                Some(Input::Journal(JournalInput::Durable { through })) => writeln!(said, "durable {through}").unwrap(),
                other => panic!("{other:?}"),
            }
        }
        drop(inbox);
        handle.close();
    }
}

/// What is there must have everything up to `promised`.
fn look(image: &Path, promised: u64) -> Result<(), String> {
    let clock = siteward::shell::clock::Clock::start();
    let opened =
        siteward::shell::journal::Journal::open(image, HISTORY, clock).map_err(|error| format!("refused: {error}"))?;
    if let Some(damage) = opened.damage {
        return Err(damage);
    }
    let right = opened.last.0 >= promised && opened.records == (1..=opened.last.0).map(record).collect::<Vec<_>>();
    if right { Ok(()) } else { Err(format!("{promised} were promised, {} are there, or others", opened.last)) }
}

#[test]
fn large_records_survive_a_power_cut() {
    quiet_guarded_panics();
    let place = TempDir::new().unwrap();
    let dir = place.path().join("store");
    fs::create_dir(&dir).unwrap();
    let disks = [
        (Names::ByDirectory, Blocks::Dropped),
        (Names::Journalled, Blocks::Dropped),
        (Names::ByDirectory, Blocks::Scattered),
    ];
    let disks = disks.map(|(names, blocks)| (names, blocks, Disk::of(&dir, names)));
    let trace = place.path().join("trace");
    let mut task = child("large::child_with_large_records", &dir, &shim(place.path()));
    assert!(task.env("SHIM_TRACE", &trace).status().unwrap().success(), "the child failed");
    let trace = changes(&trace);
    let own =
        trace.iter().filter(|change| matches!(change, Change::Create { path, .. } if path.contains("/blobs/"))).count();
    assert!(own > 5, "sled keeps large pages in files of their own: {own}");
    for (seed, (names, blocks, mut disk)) in (1..).zip(disks) {
        let mut dice = Dice::new(seed);
        let mut moments = BTreeSet::new();
        while moments.len() < MOMENTS {
            moments.insert(usize::try_from(dice.below(u64::try_from(trace.len()).unwrap())).unwrap());
        }
        let (mut promised, mut bad) = (0, Vec::new());
        for (at, change) in trace.iter().enumerate() {
            if moments.contains(&at) {
                let image = TempDir::new().unwrap();
                disk.after_power_cut(image.path(), &mut || blocks == Blocks::Scattered && dice.below(2) == 0);
                if let Err(what) = look(image.path(), promised) {
                    bad.push(format!("change {at} of {} ({names:?}, {blocks:?}): {what}", trace.len()));
                }
            }
            disk.apply(change);
            if let Change::Said(text) = change {
                let number = text.split("durable ").nth(1).and_then(|rest| rest.trim().parse().ok());
                promised = number.unwrap_or(promised);
            }
        }
        assert!(disk.is_as_in(&dir), "the trace has every change");
        assert_eq!((promised, bad.as_slice()), (LAST, [].as_slice()), "{} of {MOMENTS} bad", bad.len());
    }
}
