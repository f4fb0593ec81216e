//! `siteward-sim demo`.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use siteward_sim::demo::headless::Timetable;
use siteward_sim::demo::plant::Pace;
use siteward_sim::demo::{Demo, DemoOptions, headless, live};

use super::{complain, duration, say};

#[derive(Args)]
pub(super) struct Arguments {
    /// Without a terminal: takes things away and brings them back by itself, prints a summary, fails if a promise was broken
    #[arg(long)]
    headless: bool,
    /// How long a run without a terminal lasts: 60s, 5m, 1h
    #[arg(long, default_value = "60s", value_parser = duration::parse)]
    duration: Duration,
    /// Whether broker and meter go away and come back in a run without a terminal
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "true|false")]
    chaos: bool,
    /// How often the controller is killed (kill -9) in a run without a terminal
    #[arg(long, alias = "kills", default_value_t = 0, value_name = "TIMES", value_parser = clap::value_parser!(u32).range(..=1000))]
    kill_controller: u32,
    /// The daemon's program [default: siteward beside this program]
    #[arg(long, value_name = "PATH")]
    siteward: Option<PathBuf>,
    /// Keep configuration, store and logs here [default: a temporary directory that is removed]
    #[arg(long, value_name = "PATH")]
    directory: Option<PathBuf>,
    /// A station at which the first car stays, such as G1: `siteward commission G1` takes longer than most cars stay
    #[arg(long, value_name = "STATION")]
    stay: Vec<String>,
    /// For the cars, the building and the weather
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Arguments {
    pub(super) fn run(self) -> Result<bool, String> {
        let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
        // On this thread: the processes die with the thread that starts them.
        runtime.block_on(self.play())
    }

    async fn play(self) -> Result<bool, String> {
        let headless = self.headless || !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal();
        if headless && !self.headless {
            complain("this is no terminal: running as with --headless");
        }
        let pace = if headless { Pace::BUSY } else { Pace::CALM };
        let options =
            DemoOptions { siteward: self.siteward, directory: self.directory, seed: self.seed, pace, stay: self.stay };
        let mut demo = tokio::select! {
            demo = Demo::start(options) => demo?,
            _ = tokio::signal::ctrl_c() => return Err("interrupted".to_owned()),
        };
        if !headless {
            live::show(&mut demo).await?;
            return Ok(true);
        }
        let timetable = Timetable { duration: self.duration, chaos: self.chaos, kills: self.kill_controller };
        let seconds = self.duration.as_secs();
        say(&format!("8 stations, 3 circuits, {seconds} s"));
        let summary = headless::run(&mut demo, timetable).await?;
        say(&summary.to_string());
        let good = summary.faults().is_empty();
        if !good {
            demo.keep_directory();
            say(&format!("the end of the controller's log:\n{}", demo.log_end()));
            say(&format!("configuration, store and logs are kept in {}", demo.places.directory.display()));
        }
        Ok(good)
    }
}
