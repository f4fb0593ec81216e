//! `siteward-sim journal`.

use std::path::PathBuf;

use clap::Args;
use siteward::shell::journal::HISTORY;
use siteward_sim::rig::journal::{JournalOptions, measure};

use super::say;

#[derive(Args)]
pub(super) struct Arguments {
    /// Where, on a disk [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Records one by one; in groups there are up to ten times as many
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(20..=1_000_000))]
    records: u64,
    /// How many minutes of a day
    #[arg(long, default_value_t = 240, value_parser = clap::value_parser!(u64).range(1..=1_440))]
    minutes: u64,
    /// Days that the store is used before a start
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=3_650))]
    days: u64,
    /// Then, days without the cloud
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(0..=3_650))]
    away: u64,
    /// Records that are kept although the cloud has them
    #[arg(long, default_value_t = HISTORY, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    history: u64,
}

impl Arguments {
    pub(super) fn run(self) -> Result<bool, String> {
        let options = JournalOptions {
            records: self.records,
            minutes: self.minutes,
            days: self.days,
            away: self.away,
            history: self.history,
        };
        measure(&self.dir.unwrap_or_else(std::env::temp_dir), &options, say)
    }
}
