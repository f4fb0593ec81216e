//! `siteward-sim world`.

use std::path::{Path, PathBuf};

use clap::Args;
use siteward_sim::world::blueprint::Blueprint;
use siteward_sim::world::invent::{Wanted, invent};
use siteward_sim::world::shrink::shrink;
use siteward_sim::world::soak::FAULTS_PER_DAY;
use siteward_sim::world::{WorldOptions, run_site, scenario};

use super::say;

#[derive(Args)]
pub(super) struct Arguments {
    /// Decides everything that happens; the same seed gives the same trace
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long, in virtual days
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3650))]
    days: u64,
    /// How many stations the usual small site has
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
    stations: u16,
    /// A site by the dice of the seed instead, with up to so many stations, for so many minutes
    #[arg(long, num_args = 2, value_names = ["STATIONS", "MINUTES"], conflicts_with = "stations")]
    invent: Option<Vec<u32>>,
    /// The site and the faults of a scenario file instead
    #[arg(long, conflicts_with_all = ["seed", "days", "stations", "invent"])]
    scenario: Option<PathBuf>,
    /// Writes the site and its faults as a scenario file
    #[arg(long)]
    write: Option<PathBuf>,
    /// If a promise is broken: takes faults, stations and time away while the same one still is, and writes what is left as a scenario file
    #[arg(long)]
    shrink: Option<PathBuf>,
}

impl Arguments {
    pub(super) fn run(self) -> Result<bool, String> {
        let site = self.site()?;
        if let Some(path) = &self.write {
            std::fs::write(path, scenario::write(&site)?).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        if let Some(path) = &self.shrink {
            return shrink_to(&site, path);
        }
        let report = run_site(site)?;
        say(&report.to_string());
        Ok(report.violated == 0)
    }

    fn site(&self) -> Result<Blueprint, String> {
        if let Some(path) = &self.scenario {
            let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            return scenario::read(&text).map_err(|error| format!("{}: {error}", path.display()));
        }
        if let Some([most_stations, minutes]) = self.invent.as_deref() {
            let minutes = u64::from(*minutes);
            let wanted =
                Wanted { seed: self.seed, minutes, most_stations: *most_stations, faults_per_day: FAULTS_PER_DAY };
            return Ok(invent(wanted));
        }
        Ok(WorldOptions::long(self.seed, self.days, usize::from(self.stations)).blueprint())
    }
}

fn shrink_to(site: &Blueprint, path: &Path) -> Result<bool, String> {
    let Some(shrunk) = shrink(site)? else {
        say("no promise is broken");
        return Ok(true);
    };
    std::fs::write(path, scenario::write(&shrunk.site)?).map_err(|error| format!("{}: {error}", path.display()))?;
    say(&shrunk.report.to_string());
    say(&format!(
        "{}: {} stations, {} faults, {} min are enough ({} runs); again: siteward-sim world --scenario {}",
        path.display(),
        shrunk.site.station.len(),
        shrunk.site.fault.len(),
        shrunk.site.minutes,
        shrunk.runs,
        path.display()
    ));
    Ok(false)
}
