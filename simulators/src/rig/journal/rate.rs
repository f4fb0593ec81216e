//! Records per second through the journal, against plain `write` and `fdatasync` of the same bytes.

use std::fmt;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use siteward::engine::model::record::Record;
use siteward::shell::clock::Clock;

use super::driver::Driver;
use super::traffic::Traffic;
use super::{HEADER_BYTES, JournalOptions, tenths};

/// Journal and plain file take turns so often, so that what else the machine does hits both.
const TURNS: u64 = 20;
/// Of the plain file's rate, in percent.
const GOAL_PERCENT: u64 = 50;
/// Records per second in groups of [`LARGE`].
const GOAL_LARGE: u64 = 10_000;
const LARGE: u64 = 100;

/// What was measured with one size of group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// Records written and synchronised at once.
    pub(super) group: u64,
    /// Through the journal, records per second.
    pub(super) journal: u64,
    /// Into a plain file.
    pub(super) plain: u64,
}

impl Rate {
    /// The journal's rate as a part of the plain file's, in percent.
    #[must_use]
    pub(super) fn percent(&self) -> u64 {
        self.journal * 100 / self.plain.max(1)
    }

    /// Whether the goal is met.
    #[must_use]
    pub(super) fn is_good(&self) -> bool {
        if self.group >= LARGE { self.journal >= GOAL_LARGE } else { self.percent() >= GOAL_PERCENT }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let goal = if self.group >= LARGE { format!("{GOAL_LARGE}/s") } else { format!("{GOAL_PERCENT} %") };
        let Self { group, journal, plain, .. } = self;
        write!(
            f,
            "groups of {group:>3}: {journal:>6} records/s, write + fdatasync {plain:>6}/s: {} % of it (goal: {goal})",
            self.percent()
        )
    }
}

/// Measures with so many records in groups, on a store that has its history already: so it also deletes, and keeps cursor and snapshots.
pub(super) fn measure(dir: &Path, options: &JournalOptions, (group, times): (u64, u64)) -> Result<Rate, String> {
    let store = dir.join(format!("groups-of-{group}"));
    fs::create_dir(&store).map_err(|error| error.to_string())?;
    let told = |error: std::io::Error| error.to_string();
    let mut file = File::create(store.join("plain")).map_err(told)?;
    let clock = Clock::start();
    let mut journal = Driver::open(&store, options.history)?;
    let mut traffic = Traffic::new(2_400, group).of_promises();
    super::fill(&mut journal, &mut traffic, options.history + 1_000)?;
    let (mut journal_us, mut plain_us, mut count) = (0, 0, 0);
    let lots = (options.records * times / group / TURNS).max(1);
    for _ in 0..TURNS {
        let groups: Vec<Vec<Record>> = (0..lots).map(|_| traffic.take(group)).collect();
        let bytes: Vec<Vec<u8>> = groups.iter().map(|group| encoded(group)).collect();
        let began = clock.us();
        for bytes in &bytes {
            file.write_all(bytes).and_then(|()| file.sync_data()).map_err(told)?;
        }
        plain_us += clock.us() - began;
        let began = clock.us();
        for group in groups {
            count += u64::try_from(group.len()).unwrap_or(0);
            journal.append(group)?;
            journal.wait()?;
            journal.acknowledge(journal.durable)?;
        }
        journal_us += clock.us() - began;
    }
    journal.close();
    let rate = |us: u64| count * 1_000_000 / us.max(1);
    Ok(Rate { group, journal: rate(journal_us), plain: rate(plain_us) })
}

/// As many bytes as the journal keeps.
fn encoded(records: &[Record]) -> Vec<u8> {
    records
        .iter()
        .flat_map(|record| [vec![0; HEADER_BYTES], serde_json::to_vec(record).unwrap_or_default()].concat())
        .collect()
}

/// What a record takes without the store around it.
pub(super) fn bytes_of(records: &[Record]) -> String {
    let count = u64::try_from(records.len()).unwrap_or(0);
    tenths(u64::try_from(encoded(records).len()).unwrap_or(0) * 10 / count.max(1))
}
