//! `siteward-sim fleet`.

use std::time::Duration;

use clap::Args;
use siteward::engine::model::setup::Acknowledge;
use siteward_sim::net::process::allow_open_files;
use siteward_sim::rig::load::{LoadOptions, run, this_program};

use super::{duration, say};

#[derive(Args)]
pub(super) struct Arguments {
    /// How many sites
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    sites: u16,
    /// How many events each of them has
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    events: u64,
    /// Over which time they come into being: 60s, 10m [default: all are there at the start]
    #[arg(long, value_parser = duration::parse)]
    over: Option<Duration>,
    /// How many consumers share them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    instances: u16,
    /// An event is done at the broker's PUBACK [default: at the consumer's events.acknowledge]
    #[arg(long)]
    broker_acknowledges: bool,
    /// An empty database: postgres://USER@HOST/DATABASE [default: a SQLite file]
    #[arg(long, value_name = "URL")]
    database: Option<String>,
}

impl Arguments {
    pub(super) fn run(self) -> Result<bool, String> {
        allow_open_files();
        let acknowledge = if self.broker_acknowledges { Acknowledge::Broker } else { Acknowledge::Application };
        let options = LoadOptions {
            sites: usize::from(self.sites),
            events: self.events,
            over: self.over,
            instances: usize::from(self.instances),
            acknowledge,
            database: self.database,
        };
        let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
        // On this thread: the processes die with the thread that starts them.
        let report = runtime.block_on(run(&options, &this_program()?))?;
        say(&report.to_string());
        Ok(report.is_good())
    }
}
