//! The figures of the daemon's journal, with the daemon's own code on a real disk: how fast, what reaches the disk in a day, how long a start takes,
//! how much space it needs.

mod day;
mod driver;
mod place;
mod rate;
mod start;
mod traffic;

use std::path::Path;

use place::Place;

use self::driver::Driver;
use self::traffic::Traffic;

/// Records in one call while a store is filled.
const LOT: u64 = 500;
/// What stands before each record: checksum and version.
const HEADER_BYTES: usize = 5;
/// Sizes of groups, and how many times as many records as in groups of 1.
const GROUPS: [(u64, u64); 3] = [(1, 1), (10, 4), (100, 10)];
/// Records of a day, and what may reach the device on it, in MB.
const DAYS: [(u64, u64); 2] = [(2_400, 60), (36_000, 200)];

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct JournalOptions {
    /// Records in groups of 1; there are more in larger ones.
    pub records: u64,
    /// Of a day, at most 1,440.
    pub minutes: u64,
    /// Days that a store is used.
    pub days: u64,
    /// Days without the cloud before a start.
    pub away: u64,
    /// Acknowledged records that the store keeps.
    pub history: u64,
}

/// Measures below `dir`, and says each figure as it comes. Whether the goals are met.
///
/// # Errors
/// If the directory lies in memory, or the disk does not take what is written.
pub fn measure(dir: &Path, options: &JournalOptions, say: fn(&str)) -> Result<bool, String> {
    let place = Place::of(dir)?;
    let work = tempfile::Builder::new().prefix("siteward-journal-").tempdir_in(&place.path);
    let work = work.map_err(|error| format!("{}: {error}", place.path.display()))?;
    let mut is_good = true;
    let lazy = if place.is_lazy { ", lazytime" } else { "" };
    say(&format!("journal, safe from a power cut, in {} ({}{lazy})", place.path.display(), place.kind));
    for groups in GROUPS {
        let rate = rate::measure(work.path(), options, groups)?;
        say(&format!("  {rate}"));
        is_good &= rate.is_good();
    }
    say(
        "journal, what reaches the device in a day (a machine that writes nothing else, or --dir on a file system of its own)",
    );
    for day in DAYS {
        let day = day::measure(&place, work.path(), day, options)?;
        say(&format!("  {day}"));
        is_good &= day.is_good();
    }
    say(&format!("journal, a site with 2400 records a day, {} days", options.days));
    let space = start::measure(work.path(), options)?;
    say(&space.to_string());
    Ok(is_good && space.is_good())
}

/// Appends so many records that the cloud has.
fn fill(journal: &mut Driver, traffic: &mut Traffic, records: u64) -> Result<(), String> {
    let end = journal.last + records;
    while journal.last < end {
        journal.live(traffic.take(LOT.min(end - journal.last)))?;
        journal.acknowledge(journal.durable)?;
    }
    journal.settle()
}

fn tenths(number: u64) -> String {
    format!("{}.{}", number / 10, number % 10)
}

fn mb(bytes: u64) -> String {
    tenths(bytes / 100_000)
}
