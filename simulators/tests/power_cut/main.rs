//! The journal against a power cut, and against a disk that refuses or is slow.
//!
//! A child runs the journal under load. `shim.c` stands between it and its files and writes down every change in its order. From that the
//! disk is put together as a power cut would leave it at any moment: with what was synchronised until then and, as the devices please,
//! with nothing or with some of the rest. What the child had been told to be durable by then must be there.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail the test")]

mod faults;
mod large;
mod replay;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use siteward::engine::model::ids::Sequence;
use siteward::engine::model::record::{Record, RecordBody, Stamp};
use siteward::engine::site::io::{Input, JournalInput};
use siteward::engine::time::{Mono, Utc};
use siteward::shell::clock::Clock;
use siteward::shell::journal::{Journal, JournalHandle, Opened, in_guarded_open};
use siteward_sim::rng::Dice;
use tempfile::TempDir;
use tokio::sync::mpsc;

use replay::{Blocks, Change, Disk, Names, changes};

/// Where the child keeps its store.
const CHILD: &str = "SITEWARD_TEST_POWER_CUT";
/// Small, so that records are deleted under load as well.
const HISTORY: u64 = 150;
/// Moments at which the power is cut, in each half of the test.
const MOMENTS: usize = 100;
/// A start on what a power cut has left makes fewer changes: the power is cut at each of them as well.
const START: usize = 60;
/// Records that a child writes between a start and an end.
const SESSION: u64 = 1_000;

pub(crate) fn record(sequence: u64) -> Record {
    let mono = Mono::from_ms(sequence);
    let stamp = Stamp { utc: Utc::from_unix_ms(1_772_366_400_000), trusted: true, mono, boot: 1 };
    let length = usize::try_from(sequence * 37 % 900).unwrap();
    Record {
        sequence: Sequence(sequence),
        stamp,
        body: RecordBody::StoreRecovered { missing: format!("{sequence} {}", "x".repeat(length)) },
    }
}

fn state(through: u64) -> Vec<u8> {
    format!("folded through {through}").into_bytes()
}

fn open(dir: &Path) -> Opened {
    Journal::open(dir, HISTORY, Clock::start()).unwrap()
}

/// The library that stands between a child and its files.
pub(crate) fn shim(dir: &Path) -> PathBuf {
    let library = dir.join("shim.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power_cut/shim.c");
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl").status();
    assert!(built.unwrap().success(), "shim.c does not compile");
    library
}

/// This test program again, to do one thing with the store below `dir`.
pub(crate) fn child(task: &str, dir: &Path, shim: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", task, "--nocapture"]).stdout(Stdio::null());
    command.env(CHILD, dir).env("SHIM_DIR", dir).env("LD_PRELOAD", shim);
    command
}

/// The store of a child; `None` in a run that is none.
pub(crate) fn child_store() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// Writes one session's records in groups of 1 to 8, a few of them under way, with snapshots and a cursor behind it.
fn load(dice: &mut Dice, handle: &JournalHandle, inbox: &mut mpsc::Receiver<Input>, last: u64) {
    let end = last + SESSION;
    let (mut sent, mut durable) = (last, last);
    let mut said = std::io::stdout();
    while durable < end {
        while sent < end && sent < durable + 12 {
            let group = dice.between(1, 8).min(end - sent);
            handle.append((sent + 1..=sent + group).map(record).collect()).unwrap();
            sent += group;
        }
        match inbox.blocking_recv() {
            Some(Input::Journal(JournalInput::Durable { through })) => {
                durable = through.0;
                // The answer to a station: from here on it must not be lost.
                writeln!(said, "durable {durable}").unwrap();
                handle.acknowledged(Sequence(durable - durable.min(20))).unwrap();
                if durable % 4 == 0 {
                    handle.snapshot(through, state(durable)).unwrap();
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Runs only as a child: four starts on the same store, each with its load.
#[test]
fn child_under_load() {
    let Some(dir) = child_store() else { return };
    let mut dice = Dice::new(7);
    for _ in 0..4 {
        let opened = open(&dir);
        assert_eq!(opened.damage, None);
        let last = opened.last.0;
        let (sender, mut inbox) = mpsc::channel(64);
        let handle = opened.journal.start(sender).unwrap();
        load(&mut dice, &handle, &mut inbox, last);
        drop(inbox);
        handle.close();
    }
}

/// What the power cuts of one run came to.
#[derive(Debug, Default)]
struct Tally {
    moments: usize,
    /// Moments at which less than was acknowledged was there, or a damaged store.
    bad: Vec<String>,
    acknowledged: u64,
}

/// A child's run, and the rules by which its disk loses what it loses.
struct Cuts<'a> {
    dir: &'a Path,
    trace: &'a [Change],
    names: Names,
    blocks: Blocks,
    without_fdatasync: bool,
    /// The child has started on what a power cut had left.
    starts_after_a_cut: bool,
    seed: u64,
}

impl Cuts<'_> {
    /// Cuts the power at random moments, starting from `before`, and opens what is left.
    fn judge(&self, before: Disk, keep: Option<&Path>) -> Tally {
        let mut dice = Dice::new(self.seed);
        let mut moments = BTreeSet::new();
        while moments.len() < MOMENTS {
            let at = dice.below(u64::try_from(self.trace.len()).unwrap());
            moments.insert(usize::try_from(at).unwrap());
        }
        if self.starts_after_a_cut {
            moments.extend(0..START);
        }
        // What a start finds out it writes down in several places, one after the other.
        if !self.without_fdatasync {
            let is_start =
                |change: &Change| matches!(change, Change::Create { path, .. } if path.ends_with("/.writable"));
            let starts = self.trace.iter().enumerate().filter(|(_, change)| is_start(change));
            moments.extend(starts.flat_map(|(at, _)| at..(at + START).min(self.trace.len())));
        }
        let mut disk = before;
        disk.without_fdatasync = self.without_fdatasync;
        let mut tally = Tally::default();
        for (at, change) in self.trace.iter().enumerate() {
            if moments.contains(&at) {
                let scratch = TempDir::new().unwrap();
                let image = scratch.path().join("disk");
                let scattered = self.blocks == Blocks::Scattered;
                disk.after_power_cut(&image, &mut || scattered && dice.below(2) == 0);
                let promised = tally.acknowledged;
                tally.moments += 1;
                if let (Some(keep), true) = (keep, tally.moments == moments.len() / 2) {
                    disk.after_power_cut(keep, &mut || false);
                }
                if let Err(what) = look(&image, promised) {
                    tally.bad.push(format!(
                        "change {at} of {} ({:?}, {:?}): {what}",
                        self.trace.len(),
                        self.names,
                        self.blocks
                    ));
                }
            }
            disk.apply(change);
            if let Change::Said(text) = change {
                let number = text.split("durable ").nth(1).and_then(|rest| rest.trim().parse().ok());
                tally.acknowledged = number.unwrap_or(tally.acknowledged);
            }
        }
        assert!(disk.is_as_in(self.dir), "the trace has every change");
        tally
    }
}

/// What is left after the power cut must have everything up to `promised`, in order.
fn look(image: &Path, promised: u64) -> Result<(), String> {
    let opened = Journal::open(image, HISTORY, Clock::start()).map_err(|error| error.to_string())?;
    if let Some(damage) = opened.damage {
        return Err(damage);
    }
    if opened.last.0 < promised {
        return Err(format!("{promised} were promised, {} are there", opened.last));
    }
    let through = opened.snapshot.as_ref().map_or(0, |(through, _)| through.0);
    if opened.snapshot.is_some_and(|(_, folded)| folded != state(through)) {
        return Err("the snapshot is another one".to_owned());
    }
    let expected: Vec<Record> = (through + 1..=opened.last.0).map(record).collect();
    if opened.records == expected {
        Ok(())
    } else {
        Err(format!("other records between {through} and {}", opened.last))
    }
}

fn quiet_guarded_panics() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !in_guarded_open() {
            hook(panic);
        }
    }));
}

/// Runs the child on the store below `dir` and reads what it did.
fn run(dir: &Path, place: &Path) -> Vec<Change> {
    let trace = place.join("trace");
    let status = child("child_under_load", dir, &shim(place)).env("SHIM_TRACE", &trace).status().unwrap();
    assert!(status.success(), "the child failed");
    changes(&trace)
}

#[test]
fn what_was_acknowledged_survives_a_power_cut_at_any_moment() {
    quiet_guarded_panics();
    let place = TempDir::new().unwrap();
    let mut dir = place.path().join("first");
    fs::create_dir(&dir).unwrap();
    let mut seed = 1;
    // The second run starts on what a power cut in the first one has left.
    for next in ["second", "third"] {
        let work = TempDir::new().unwrap();
        let before = work.path().join("before");
        copy(&dir, &before);
        // The child works on the very files that the disk is made of, for their inode numbers.
        let disk = |names| Disk::of(&dir, names);
        let disks = [
            (Names::ByDirectory, Blocks::Dropped, disk(Names::ByDirectory)),
            (Names::Journalled, Blocks::Dropped, disk(Names::Journalled)),
            (Names::ByDirectory, Blocks::Scattered, disk(Names::ByDirectory)),
        ];
        let bare = disk(Names::Journalled);
        let trace = run(&dir, work.path());
        let left = place.path().join(next);
        let mut keep = Some(left.as_path());
        for (names, blocks, before) in disks {
            seed += 1;
            let starts_after_a_cut = next == "third" && blocks == Blocks::Scattered;
            let (dir, trace) = (dir.as_path(), trace.as_slice());
            let cuts = Cuts { dir, trace, names, blocks, without_fdatasync: false, starts_after_a_cut, seed };
            let tally = cuts.judge(before, keep.take());
            assert!(tally.moments >= MOMENTS && tally.bad.is_empty(), "{}: {:#?}", tally.moments, tally.bad);
            assert!(tally.acknowledged >= 4 * SESSION, "there was load: {}", tally.acknowledged);
        }
        // The test bites: without the fdatasync, with sled's own sync_file_range alone, nearly everything is lost.
        assert!(trace.iter().filter(|change| matches!(change, Change::WriteOut)).count() > 100, "sled has flushed");
        let (names, blocks) = (Names::Journalled, Blocks::Dropped);
        let (starts_after_a_cut, without_fdatasync) = (false, true);
        let cuts = Cuts { dir: &dir, trace: &trace, names, blocks, without_fdatasync, starts_after_a_cut, seed };
        let tally = cuts.judge(bare, None);
        assert!(tally.bad.len() > MOMENTS / 2, "{} of {} moments show the loss", tally.bad.len(), tally.moments);
        println!("{} changes; without fdatasync {} of {MOMENTS} moments lose records", trace.len(), tally.bad.len());
        dir = left;
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
