//! `siteward-sim soak`.

use clap::Args;
use siteward_sim::net::clock::Clock;
use siteward_sim::world::soak::{SoakOptions, soak};

use super::say;

#[derive(Args)]
pub(super) struct Arguments {
    /// How many site-days: each is a day of another site
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    site_days: u64,
    /// The first seed; without it, another one at each run
    #[arg(long)]
    seed: Option<u64>,
    /// How many sites at the same time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// After so many minutes no site is begun any more
    #[arg(long, default_value_t = 90)]
    minutes: u64,
    /// The most stations of a site
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    most_stations: u32,
    /// How long each site is run, in minutes of virtual time
    #[arg(long, default_value_t = 1_440, value_parser = clap::value_parser!(u64).range(60..=100_000))]
    site_minutes: u64,
}

impl Arguments {
    pub(super) fn run(self) -> Result<bool, String> {
        let seed = self.seed.unwrap_or_else(fresh_seed);
        say(&format!("seeds from {seed}; the same again: --seed {seed}"));
        let options = SoakOptions {
            seed,
            sites: (self.site_days * 1_440).div_ceil(self.site_minutes),
            site_minutes: self.site_minutes,
            most_stations: self.most_stations,
            jobs: usize::from(self.jobs),
            minutes: self.minutes,
        };
        let report = soak(options, say)?;
        say(&report.to_string());
        if report.sites < options.sites {
            say(&format!("only {} of {} sites were run in {} min", report.sites, options.sites, self.minutes));
        }
        Ok(report.violated == 0)
    }
}

/// Another one at each run: the time in seconds, and far enough apart that the seeds of two runs do not meet.
pub(super) fn fresh_seed() -> u64 {
    let seconds = Clock::start().now().utc.unix_ms().unsigned_abs() / 1000;
    seconds % 10_000_000 * 100_000
}
