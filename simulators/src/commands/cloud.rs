//! `siteward-sim cloud`.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Args;
use siteward_sim::net::clock::Clock;
use siteward_sim::net::cloud::lock;
use siteward_sim::net::fleet::consumer::{Consumer, ConsumerOptions, Progress};
use siteward_sim::net::fleet::keeper::Keeper;
use siteward_sim::net::fleet::ledger::{Ledger, Rules};
use tokio::time::interval;

use super::{on_runtime, say};

/// With other instances at work an event that seems to be missing may be on its way to one of them.
const HOLE_AFTER_SHARED_MS: u64 = 5_000;

#[derive(Args)]
pub(super) struct Arguments {
    /// The broker (MQTT 5)
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:1883", value_parser = host_and_port)]
    broker: (String, u16),
    /// The first part of the topics: all sites below it, or one site with its id at the end
    #[arg(long, default_value = "siteward/v1")]
    prefix: String,
    /// Where the books are kept: a SQLite file, or postgres://USER@HOST/DATABASE (without TLS)
    #[arg(long, value_name = "FILE|URL", default_value = "siteward-cloud.sqlite")]
    database: String,
    /// Everything of a new site is wanted from its first event on, not only what comes from now on
    #[arg(long)]
    from_start: bool,
    /// Shares the events with all instances of the same name (a shared subscription) and the same database
    #[arg(long, value_name = "NAME")]
    share: Option<String>,
    /// Never sends events.acknowledge: for sites with cloud.acknowledge = "broker"
    #[arg(long)]
    no_acknowledge: bool,
    /// The MQTT client id [default: siteward-sim-cloud- and the process id]
    #[arg(long, value_name = "ID")]
    name: Option<String>,
    /// The user name at the broker
    #[arg(long, requires = "password_file")]
    username: Option<String>,
    /// A file with the password at the broker
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
    /// After so many ms a replay of what is missing is asked for [default: 0; with --share 5000]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(0..=3_600_000))]
    hole_after: Option<u64>,
    /// Says what the books hold, and fails if anything is missing, doubled or in quarantine
    #[arg(long)]
    report: bool,
}

impl Arguments {
    pub(super) fn run(self) -> Result<bool, String> {
        let shared_ms = if self.share.is_some() { HOLE_AFTER_SHARED_MS } else { 0 };
        let hole_after_ms = i64::try_from(self.hole_after.unwrap_or(shared_ms)).unwrap_or(0);
        let rules = Rules { from_start: self.from_start, hole_after_ms };
        if self.report {
            let report = Ledger::open(&self.database, rules)?.report()?;
            say(&report.to_string());
            return Ok(report.is_whole());
        }
        on_runtime(self.consume(rules))
    }

    async fn consume(self, rules: Rules) -> Result<(), String> {
        let credentials = match (self.username, self.password_file) {
            (Some(name), Some(file)) => {
                let password =
                    std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
                Some((name, password.trim_end_matches(['\r', '\n']).to_owned()))
            }
            _ => None,
        };
        let options = ConsumerOptions {
            broker: self.broker,
            credentials,
            client_id: self.name.unwrap_or_else(|| format!("siteward-sim-cloud-{}", std::process::id())),
            prefix: self.prefix,
            share: self.share,
            acknowledge: !self.no_acknowledge,
        };
        if !self.database.contains("://") {
            say(&format!("the books are kept in {}", self.database));
        }
        let keeper = Keeper::open(self.database, rules)?;
        let progress = Arc::new(Mutex::new(Progress::default()));
        tokio::select! {
            () = Consumer::new(options, keeper, progress.clone(), Clock::start()).run() => {}
            () = show(&progress) => {}
        }
        Ok(())
    }
}

fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let text = text.strip_prefix("mqtt://").unwrap_or(text);
    let (host, port) = text.rsplit_once(':').ok_or("host and port are wanted, such as 127.0.0.1:1883")?;
    let port = port.parse().map_err(|_| format!("{port:?} is no port"))?;
    Ok((host.trim_start_matches('[').trim_end_matches(']').to_owned(), port))
}

/// Prints what happened, and a line of counts when they have changed, looked at once a second.
async fn show(progress: &Mutex<Progress>) {
    let mut second = interval(Duration::from_secs(1));
    let mut last = String::new();
    loop {
        second.tick().await;
        let mut progress = lock(progress);
        for news in progress.take_news() {
            say(&news);
        }
        let line = format!(
            "{} events in {} commits, {} duplicates dropped, {} replays asked for, {} in quarantine, {} transactions ended, {} Wh",
            progress.new,
            progress.commits,
            progress.again,
            progress.asked,
            progress.unreadable,
            progress.ended,
            progress.energy_wh
        );
        drop(progress);
        if line != last {
            say(&line);
            last = line;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_a_host_and_a_port() {
        assert_eq!(host_and_port("127.0.0.1:1883"), Ok(("127.0.0.1".to_owned(), 1883)));
        assert_eq!(host_and_port("mqtt://broker.example.com:1884"), Ok(("broker.example.com".to_owned(), 1884)));
        assert_eq!(host_and_port("[::1]:1883"), Ok(("::1".to_owned(), 1883)));
        assert!(host_and_port("broker").is_err());
        assert!(host_and_port("broker:port").is_err());
    }
}
