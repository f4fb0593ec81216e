//! `siteward-sim offline`.

use std::path::PathBuf;

use clap::Args;
use siteward_sim::rig::offline::{OfflineOptions, measure};

use super::say;

#[derive(Args)]
pub(super) struct Arguments {
    /// How long the cloud is away, in virtual days
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=366))]
    days: u64,
    /// How many stations
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=200))]
    stations: u16,
    /// How many transactions each has a day
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=48))]
    transactions: u64,
    /// For cars
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the store is made, such as on the disk that is to be measured [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

impl Arguments {
    pub(super) fn run(self) -> Result<bool, String> {
        let options = OfflineOptions {
            days: self.days,
            stations: usize::from(self.stations),
            a_day: self.transactions,
            history: siteward::shell::journal::HISTORY,
            seed: self.seed,
        };
        let place = self.store.unwrap_or_else(std::env::temp_dir);
        let directory = tempfile::Builder::new().prefix("siteward-offline-").tempdir_in(&place);
        let directory = directory.map_err(|error| format!("{}: {error}", place.display()))?;
        say(&measure(options, directory.path(), say)?.to_string());
        Ok(true)
    }
}
