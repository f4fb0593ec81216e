//! `siteward-sim reaction`, `siteward-sim soak-sockets`, `siteward-sim soak-cloud` and `siteward-sim drain`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use siteward_sim::net::process::allow_open_files;
use siteward_sim::rig::drain;
use siteward_sim::rig::lossless::{self, LosslessOptions};
use siteward_sim::rig::reaction::{MEDIAN_MS, P99_MS, measure};
use siteward_sim::rig::rough::{self, RoughOptions};

use super::{duration, say, soak};

#[derive(Args)]
pub(super) struct ReactionArguments {
    /// How many stations
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    stations: u16,
    /// How many overloads
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    steps: u16,
    /// The daemon's program [default: siteward beside this program]
    #[arg(long, value_name = "PATH")]
    siteward: Option<PathBuf>,
}

impl ReactionArguments {
    pub(super) fn run(self) -> Result<bool, String> {
        let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
        let (stations, steps) = (usize::from(self.stations), usize::from(self.steps));
        let found = runtime.block_on(measure(stations, steps, self.siteward, say))?;
        let ratio = |ms: u64, goal: u64| {
            f64::from(u32::try_from(ms).unwrap_or(u32::MAX)) / f64::from(u32::try_from(goal).unwrap_or(1))
        };
        let (median, p99) = (found.percentile_ms(50), found.percentile_ms(99));
        say(&format!(
            "from the meter seeing an overload to the last of {stations} stations having accepted its cut, {steps} times:\n  min {} ms, median {median} ms ({:.2} of the goal of {MEDIAN_MS} ms), p99 {p99} ms ({:.2} of the goal of {P99_MS} ms), max {} ms",
            found.percentile_ms(0),
            ratio(median, MEDIAN_MS),
            ratio(p99, P99_MS),
            found.percentile_ms(100)
        ));
        Ok(found.meets_the_goals())
    }
}

#[derive(Args)]
pub(super) struct RoughArguments {
    /// How long: 60s, 10m
    #[arg(long, default_value = "10m", value_parser = duration::parse)]
    duration: Duration,
    /// How many stations
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    stations: u16,
    /// How often the controller is killed (kill -9)
    #[arg(long, default_value = "60s", value_parser = duration::parse)]
    kill_every: Duration,
    /// How often the meter is unplugged
    #[arg(long, default_value = "90s", value_parser = duration::parse)]
    meter_every: Duration,
    /// How long the meter is away
    #[arg(long, default_value = "20s", value_parser = duration::parse)]
    meter_away: Duration,
    /// For cars and loads
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The daemon's program [default: siteward beside this program]
    #[arg(long, value_name = "PATH")]
    siteward: Option<PathBuf>,
}

impl RoughArguments {
    pub(super) fn run(self) -> Result<bool, String> {
        let options = RoughOptions {
            duration: self.duration,
            stations: usize::from(self.stations),
            kill_every: self.kill_every,
            meter_every: self.meter_every,
            meter_away: self.meter_away,
            seed: self.seed,
        };
        let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
        // On this thread: the processes die with the thread that starts them.
        let (report, mut rig) = runtime.block_on(rough::run(&options, self.siteward))?;
        say(&report.to_string());
        if !report.is_good() {
            say(&format!("configuration, store and log are kept in {}", rig.keep().display()));
        }
        Ok(report.is_good())
    }
}

#[derive(Args)]
pub(super) struct LosslessArguments {
    /// How many stations
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=300))]
    stations: u16,
    /// How often the daemon is killed (kill -9)
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(0..=100_000))]
    kills: u64,
    /// Then, how often the broker is killed
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=100_000))]
    broker_kills: u64,
    /// How often the broker's files are deleted while it is away
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=100_000))]
    broker_wipes: u64,
    /// Then, how long nothing passes between daemon and broker: 60s, 30m [default: not at all]
    #[arg(long, value_parser = duration::parse)]
    link_cut: Option<Duration>,
    /// The daemon runs in a network of its own (root), and the cut is a pulled cable; otherwise a relay stops
    #[arg(long)]
    namespaces: bool,
    /// For cars, and for the moments of the kills; without it, another one at each run
    #[arg(long)]
    seed: Option<u64>,
    /// The daemon's program [default: siteward beside this program]
    #[arg(long, value_name = "PATH")]
    siteward: Option<PathBuf>,
}

impl LosslessArguments {
    pub(super) fn run(self) -> Result<bool, String> {
        allow_open_files();
        let seed = self.seed.unwrap_or_else(soak::fresh_seed);
        say(&format!("seed {seed}; the same again (as far as real time allows): --seed {seed}"));
        let options = LosslessOptions {
            stations: usize::from(self.stations),
            kills: self.kills,
            broker_kills: self.broker_kills,
            broker_wipes: self.broker_wipes,
            link_cut: self.link_cut,
            namespaces: self.namespaces,
            seed,
        };
        let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
        // On this thread: the processes die with the thread that starts them.
        let report = runtime.block_on(lossless::run(&options, self.siteward, say))?;
        say(&report.to_string());
        Ok(report.is_good())
    }
}

/// The daemon drains a backlog at this part of its client's own rate at least, in percent.
const DRAIN_GOAL: u64 = 70;

#[derive(Args)]
pub(super) struct DrainArguments {
    /// How many events wait in the journal
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1_000..=5_000_000))]
    events: u64,
    /// The daemon's program [default: siteward beside this program]
    #[arg(long, value_name = "PATH")]
    siteward: Option<PathBuf>,
}

impl DrainArguments {
    pub(super) fn run(self) -> Result<bool, String> {
        let (siteward, sim) = drain::programs(self.siteward)?;
        let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
        // On this thread: the processes die with the thread that starts them.
        let report = runtime.block_on(drain::measure(self.events, &siteward, &sim, say))?;
        say(&report.to_string());
        Ok(report.percent() >= DRAIN_GOAL)
    }
}
