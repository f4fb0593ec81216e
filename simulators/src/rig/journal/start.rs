//! How long a start takes, and how much space the store needs, after a long time of use.

use std::fmt;
use std::fs;
use std::path::Path;

use siteward::shell::clock::Clock;

use super::driver::Driver;
use super::traffic::{EACH, Traffic};
use super::{JournalOptions, mb, rate};
use crate::rig::bytes_below;

/// Records a day.
const RECORDS: u64 = 2_400;
/// Records that are made at once: more seldom than in truth, so that a year passes in minutes.
const GROUP: u64 = 50;
/// What a start may take, in ms.
const GOAL_MS: u64 = 3_000;
/// The store has stopped growing after so many days, which is when the history is full several times.
const GROWN_DAYS: u64 = 15;

/// A store after many days.
#[derive(Clone, Debug)]
pub(super) struct Space {
    /// Records that are kept.
    pub(super) history: u64,
    /// How many days.
    pub(super) days: u64,
    /// What a record takes without the store around it, in bytes.
    pub(super) record: String,
    /// Its size after each of these days.
    pub(super) sizes: Vec<(u64, u64)>,
    /// Its size after [`GROWN_DAYS`].
    pub(super) grown: u64,
    /// The start of it as a power cut has left it, in ms.
    pub(super) start_ms: u64,
    /// The start behind some days without the cloud: how many, its size, the time.
    pub(super) away: (u64, u64, u64),
}

impl Space {
    fn last(&self) -> u64 {
        self.sizes.last().map_or(0, |(_, bytes)| *bytes)
    }

    /// Whether the goals are met.
    #[must_use]
    pub(super) fn is_good(&self) -> bool {
        self.last() <= self.grown * 5 / 4 && self.start_ms <= GOAL_MS && self.away.2 <= GOAL_MS
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<String> = self.sizes.iter().map(|(day, bytes)| format!("day {day} {} MB", mb(*bytes))).collect();
        let (days, away_bytes, away_ms) = self.away;
        let Self { history, .. } = self;
        let live = self.last() / history.max(&1);
        writeln!(
            f,
            "  a record: {} bytes, in a store with {history} kept records {live} bytes; a session of {EACH}: {} bytes; a day of {RECORDS}: {} MB",
            self.record,
            live * EACH,
            mb(live * RECORDS)
        )?;
        writeln!(f, "  the store: {} (goal: it stops growing)", sizes.join(", "))?;
        writeln!(f, "  start after {} days, the power was cut: {} ms (goal: {GOAL_MS} ms)", self.days, self.start_ms)?;
        write!(
            f,
            "  start after {days} days without the cloud ({} records, {} MB): {away_ms} ms (goal: {GOAL_MS} ms)",
            days * RECORDS + history,
            mb(away_bytes)
        )
    }
}

/// Lets so many days pass, then days without the cloud, and starts on what is there.
pub(super) fn measure(dir: &Path, options: &JournalOptions) -> Result<Space, String> {
    let JournalOptions { days, away, history, .. } = *options;
    let store = dir.join("year");
    fs::create_dir(&store).map_err(|error| error.to_string())?;
    let mut journal = Driver::open(&store, history)?;
    let mut traffic = Traffic::new(RECORDS, 1);
    let record = rate::bytes_of(&Traffic::new(RECORDS, 1).take(EACH * 200));
    let (mut sizes, mut grown) = (Vec::new(), 0);
    for day in 1..=days {
        for _ in 0..RECORDS / GROUP {
            journal.live(traffic.take(GROUP))?;
            journal.acknowledge(journal.durable)?;
        }
        let bytes = bytes_below(&store);
        if day <= GROWN_DAYS {
            grown = bytes;
        }
        if day % days.div_ceil(6) == 0 || day == days {
            sizes.push((day, bytes));
        }
    }
    journal.settle()?;
    let start_ms = start(&store, &dir.join("cut"), history)?;
    for _ in 0..away * RECORDS / GROUP {
        journal.live(traffic.take(GROUP))?;
    }
    let away_bytes = bytes_below(&store);
    let away_ms = start(&store, &dir.join("away"), history)?;
    journal.close();
    Ok(Space { history, days, record, sizes, grown, start_ms, away: (away, away_bytes, away_ms) })
}

/// Starts on a copy: nothing of it was closed, as after a power cut.
fn start(store: &Path, copy: &Path, history: u64) -> Result<u64, String> {
    copy_tree(store, copy).map_err(|error| error.to_string())?;
    let clock = Clock::start();
    let opened = Driver::open(copy, history)?;
    let took_ms = clock.mono().ms();
    opened.close();
    fs::remove_dir_all(copy).map_err(|error| error.to_string())?;
    Ok(took_ms)
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let (entry, target) = entry.map(|entry| (entry.path(), to.join(entry.file_name())))?;
        if entry.is_dir() {
            copy_tree(&entry, &target)?;
        } else {
            fs::copy(&entry, &target)?;
        }
    }
    Ok(())
}
