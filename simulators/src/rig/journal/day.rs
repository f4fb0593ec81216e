//! What reaches the disk in a day.
//!
//! The day passes as fast as the disk lets it: the journal's clock is pushed on from record to record, and what the kernel does by itself after some
//! seconds is asked for at these times. So the journal groups, waits and writes as it does on a day that takes a day. What the file system moves from its own
//! journal to its place much later is in it only as far as it happens meanwhile.

use std::fmt;
use std::fs::File;
use std::path::Path;

use super::driver::Driver;
use super::place::{Place, Written};
use super::traffic::{DAY_MS, Traffic};
use super::{JournalOptions, mb};

/// The clock goes on in such steps.
const STEP_MS: u64 = 500;
/// After so long ext4 writes down what has changed in its files' entries (`commit=`), unless it is mounted with `lazytime` ...
const ENTRIES_MS: u64 = 5_000;
/// ... and the kernel writes what was never synchronised (`vm.dirty_expire_centisecs`).
const PAGES_MS: u64 = 30_000;
/// The broker has answered by then.
const PUBLISHED_MS: u64 = 100;

/// What was measured.
#[derive(Clone, Debug)]
pub(super) struct Day {
    /// Records on that day.
    pub(super) records: u64,
    /// So many of them were measured.
    pub(super) measured: u64,
    /// What was written in that time.
    pub(super) written: Written,
    /// How often the journal has said that something is durable.
    pub(super) commits: u64,
    /// What may be written in a day, in MB.
    pub(super) goal_mb: u64,
}

impl Day {
    fn of_a_day(&self, number: u64) -> u64 {
        u64::try_from(u128::from(number) * u128::from(self.records) / u128::from(self.measured.max(1)))
            .unwrap_or(u64::MAX)
    }

    /// Whether the goal is met.
    #[must_use]
    pub(super) fn is_good(&self) -> bool {
        self.of_a_day(self.written.bytes()) <= self.goal_mb * 1_000_000
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records, goal_mb, .. } = self;
        let day = mb(self.of_a_day(self.written.bytes()));
        let whose = match self.written.device {
            Some(_) => "reach the device",
            None => "are written by the process (the device's count cannot be read)",
        };
        write!(
            f,
            "{records:>6} records a day: {day} MB {whose} (goal: {goal_mb} MB), {} commits; {} records measured",
            self.of_a_day(self.commits),
            self.measured
        )
    }
}

/// The kernel's part.
struct Kernel {
    db: File,
    mark: File,
    is_lazy: bool,
    entries_at: Option<u64>,
    pages_at: Option<u64>,
}

impl Kernel {
    fn new(store: &Path, is_lazy: bool) -> Result<Self, String> {
        let open = |name: &str| File::open(store.join("journal").join(name)).map_err(|error| error.to_string());
        Ok(Self { db: open("db/db")?, mark: open("mark")?, is_lazy, entries_at: None, pages_at: None })
    }

    fn changed(&mut self, now_ms: u64) {
        if !self.is_lazy {
            self.entries_at.get_or_insert(now_ms + ENTRIES_MS);
        }
        self.pages_at.get_or_insert(now_ms + PAGES_MS);
    }

    fn works(&mut self, now_ms: u64) -> Result<(), String> {
        if self.entries_at.is_some_and(|at| now_ms >= at) {
            self.entries_at = None;
            self.db.sync_all().map_err(|error| error.to_string())?;
        }
        if self.pages_at.is_some_and(|at| now_ms >= at) {
            self.pages_at = None;
            let written = if self.is_lazy { self.mark.sync_data() } else { self.mark.sync_all() };
            written.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// Measures a part of a day of a site whose store has its history already.
pub(super) fn measure(
    place: &Place,
    dir: &Path,
    (records, goal_mb): (u64, u64),
    options: &JournalOptions,
) -> Result<Day, String> {
    let (history, measured_ms) = (options.history, options.minutes * 60_000);
    let store = dir.join(format!("day-of-{records}"));
    std::fs::create_dir(&store).map_err(|error| error.to_string())?;
    let mut journal = Driver::open(&store, history)?;
    let mut traffic = Traffic::new(records, records);
    super::fill(&mut journal, &mut traffic, history + 2_000)?;
    let mut kernel = Kernel::new(&store, place.is_lazy)?;
    traffic.dawn();
    // The middle of the day: sessions neither begin nor end with it.
    let midnight_ms = traffic.next_at().unwrap_or(0) / DAY_MS * DAY_MS;
    let begin_ms = midnight_ms + (DAY_MS - measured_ms) / 2;
    let end_ms = begin_ms + measured_ms;
    while traffic.next_at().is_some_and(|at_ms| at_ms < begin_ms) {
        traffic.skip();
    }
    journal.settle()?;
    kernel.changed(0);
    kernel.works(PAGES_MS)?;
    let (before, commits, last) = (place.written(), journal.commits, journal.last);
    let mut now_ms = begin_ms;
    while now_ms < end_ms {
        let record_at = traffic.next_at().unwrap_or(end_ms);
        let next_ms = record_at.max(now_ms).min(now_ms + STEP_MS);
        pass(&mut journal, &mut kernel, next_ms - now_ms, next_ms)?;
        now_ms = next_ms;
        if record_at <= now_ms {
            journal.append(vec![traffic.next()])?;
            kernel.changed(now_ms);
            journal.settle()?;
            pass(&mut journal, &mut kernel, PUBLISHED_MS.min(STEP_MS), now_ms)?;
        }
    }
    let written = place.written().since(before);
    let (commits, measured) = (journal.commits - commits, journal.last - last);
    journal.close();
    Ok(Day { records, measured, written, commits, goal_mb })
}

/// Time passes, and the cloud has what became durable before.
fn pass(journal: &mut Driver, kernel: &mut Kernel, ms: u64, now_ms: u64) -> Result<(), String> {
    let durable = journal.durable;
    journal.acknowledge(durable)?;
    journal.pass(ms)?;
    if journal.durable > durable {
        kernel.changed(now_ms);
    }
    kernel.works(now_ms)
}
