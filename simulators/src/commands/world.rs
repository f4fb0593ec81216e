//! `siteward-sim world`.

use clap::Args;
use siteward_sim::world::{WorldOptions, run_world};

use super::say;

#[derive(Args)]
pub(super) struct Arguments {
    /// Decides everything that happens; the same seed gives the same trace
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long, in virtual days
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3650))]
    days: u64,
    /// How many stations
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
    stations: u16,
}

impl Arguments {
    pub(super) fn run(self) -> Result<bool, String> {
        let options = WorldOptions::long(self.seed, self.days, usize::from(self.stations));
        let report = run_world(options)?;
        say(&report.to_string());
        Ok(report.violated == 0)
    }
}
