//! `siteward-sim fuzz`.

use std::path::{Path, PathBuf};

use clap::Args;
use siteward_sim::fuzz::{Failure, FuzzOptions, FuzzReport, fuzz, replay};

use super::{say, soak};

#[derive(Args)]
pub(super) struct Arguments {
    /// Decides everything; without it, another one at each run
    #[arg(long)]
    seed: Option<u64>,
    /// How many messages of the cloud; a configuration file comes with each fifty of them
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    cases: u64,
    /// How many sites at the same time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// Where a case is written that broke a promise
    #[arg(long, default_value = "target/fuzz", value_name = "DIR")]
    failures: PathBuf,
    /// Runs such a case again, with what came before it in its life
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "cases", "jobs"])]
    replay: Option<PathBuf>,
}

impl Arguments {
    pub(super) fn run(self) -> Result<bool, String> {
        let report = match &self.replay {
            Some(file) => replay(&read(file)?)?,
            None => {
                let seed = self.seed.unwrap_or_else(soak::fresh_seed);
                say(&format!("the same again: --seed {seed} --cases {}", self.cases));
                fuzz(FuzzOptions { seed, cases: self.cases, jobs: usize::from(self.jobs) }, say)?
            }
        };
        if self.replay.is_some() {
            report.failures.iter().for_each(|failure| say(&failure.to_string()));
        } else {
            write(&report, &self.failures)?;
        }
        say(&report.to_string());
        Ok(report.failed == 0)
    }
}

fn read(file: &Path) -> Result<Failure, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))
}

fn write(report: &FuzzReport, folder: &Path) -> Result<(), String> {
    for failure in &report.failures {
        let file = folder.join(format!("{}-{}-{}.json", failure.seed, failure.life, failure.case));
        let text = serde_json::to_string_pretty(failure).map_err(|error| error.to_string())?;
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&file, text))
            .map_err(|error| format!("{}: {error}", file.display()))?;
        say(&format!("again: siteward-sim fuzz --replay {}", file.display()));
    }
    Ok(())
}
