//! Scenario files: a whole site, or the usual small one with a few words.

use serde::Deserialize;
use siteward::engine::units::Current;

use crate::faults::FaultFile;
use crate::station::Quirks;

use super::WorldOptions;
use super::blueprint::Blueprint;

/// Reads a scenario file: one with `[[circuit]]` describes its whole site, one without takes the usual small one.
///
/// # Errors
/// What is wrong with it, with its place.
pub fn read(text: &str) -> Result<Blueprint, String> {
    let value: toml::Table = toml::from_str(text).map_err(|error| error.to_string())?;
    let site = if value.contains_key("circuit") {
        toml::from_str(text).map_err(|error| error.to_string())?
    } else {
        short(text)?
    };
    check(&site)?;
    Ok(site)
}

/// Writes a site so that [`read`] gives the same one.
///
/// # Errors
/// If it cannot be written, which no site does.
pub fn write(site: &Blueprint) -> Result<String, String> {
    toml::to_string(site).map_err(|error| error.to_string())
}

/// That every name of a fault and an oddity is known, and every index points at something.
fn check(site: &Blueprint) -> Result<(), String> {
    for fault in &site.fault {
        fault.planned()?;
        if fault.kind == "dimmed" && site.dimming_w.is_none() {
            return Err(format!("the site is to be dimmed at {} s, and has no dimming_w", fault.at_s));
        }
        let (last, circuits) = (fault.station + fault.count.max(1), site.circuit.len());
        if last > site.station.len() || fault.circuit >= circuits || fault.meter >= site.meter.len().max(1) {
            return Err(format!("fault {} at {} s is about something that does not exist", fault.kind, fault.at_s));
        }
    }
    for station in &site.station {
        if let Some(odd) = &station.odd {
            quirks(odd, station.odd_ms)?;
        }
    }
    site.setup().map(|_| ())
}

/// Ignores its limits and does not even stop, and the oracle is not told: it must be seen.
pub const SECRET: &str = "ignores-limit-in-secret";

/// What is odd about a station, by its name in a file. The amount is in ms; of a wrong register in thousandths, of a leak in Wh.
///
/// # Errors
/// If the name is not known.
pub fn quirks(name: &str, amount_ms: i64) -> Result<Quirks, String> {
    let none = Quirks::default();
    Ok(match name {
        "ignores-limit" => Quirks { ignores_limit: true, ..none },
        "ignores-everything" | SECRET => Quirks { ignores_limit: true, ignores_stop: true, ..none },
        "refuses-zero" => Quirks { refuses_zero: true, ..none },
        "refuses-profiles" => Quirks { refuses_profiles: true, ..none },
        "slow" => Quirks { extra_reaction_ms: amount_ms.unsigned_abs(), ..none },
        "forgetful" => Quirks { loses_profiles_on_reboot: true, ..none },
        "wrong-clock" => Quirks { clock_offset_ms: amount_ms, ..none },
        "duplicate-stop" => Quirks { duplicate_stop: true, ..none },
        "never-answers" => Quirks { never_answers: true, ..none },
        "wrong-register" => Quirks { register_off_permille: amount_ms, ..none },
        "leaks" => Quirks { leaks_wh: amount_ms, ..none },
        "signs" => Quirks { signs: true, ..none },
        "loses-pages" => Quirks { signs: true, loses_pages: true, ..none },
        "forges" => Quirks { signs: true, forges: true, ..none },
        "resend-storm" => Quirks { resend_storm: true, ..none },
        other => return Err(format!("quirk {other:?} is not known")),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScenarioFile {
    /// What it shows, for the reader.
    about: String,
    seed: u64,
    minutes: u64,
    stations: usize,
    grid_limit_a: Option<i32>,
    building_peak_a: Option<i32>,
    cars_per_day: Option<u64>,
    grid_max_w: Option<i64>,
    grid_max_unbalance_a: Option<i32>,
    dimming_w: Option<i64>,
    running_cost_s: Option<u32>,
    #[serde(default)]
    meter_by_registers: bool,
    /// All stations speak OCPP 2.1, and their limits end when they have been offline for long.
    #[serde(default)]
    offline_lease: bool,
    /// Stations have local lists, and let nobody else charge while they are cut off.
    #[serde(default)]
    local_lists: bool,
    #[serde(default)]
    fault: Vec<FaultFile>,
    #[serde(default)]
    quirk: Vec<QuirkFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QuirkFile {
    station: usize,
    is: String,
    #[serde(default)]
    amount_ms: i64,
}

fn short(text: &str) -> Result<Blueprint, String> {
    let file: ScenarioFile = toml::from_str(text).map_err(|error| error.to_string())?;
    let default = WorldOptions::default();
    let options = WorldOptions {
        about: file.about,
        seed: file.seed,
        duration_ms: file.minutes * 60_000,
        stations: file.stations.max(1),
        faults: file.fault,
        grid_limit: file.grid_limit_a.map_or(default.grid_limit, Current::from_a),
        building_peak: file.building_peak_a.map_or(default.building_peak, Current::from_a),
        cars_per_day: file.cars_per_day.unwrap_or(default.cars_per_day),
        meter_by_registers: file.meter_by_registers,
        offline_lease: file.offline_lease,
        quirks: file.quirk.into_iter().map(|quirk| (quirk.station, quirk.is, quirk.amount_ms)).collect(),
        ..default
    };
    let mut site = options.blueprint();
    site.local_lists = file.local_lists;
    site.dimming_w = file.dimming_w;
    site.running_cost_s = file.running_cost_s;
    site.circuit[0].max_w = file.grid_max_w;
    site.circuit[0].max_unbalance_a = file.grid_max_unbalance_a;
    Ok(site)
}

#[cfg(test)]
mod tests {
    use super::super::invent::{Wanted, invent};
    use super::*;

    #[test]
    fn a_site_comes_back_from_its_file() {
        for seed in 0..20 {
            let site = invent(Wanted { seed, minutes: 600, most_stations: 50, faults_per_day: 100 });
            let text = write(&site).expect("it is written");
            assert_eq!(read(&text), Ok(site), "{text}");
        }
    }

    #[test]
    fn a_fault_at_a_station_that_does_not_exist_is_refused() {
        let text = "about = \"x\"\nseed = 1\nminutes = 1\nstations = 1\n[[fault]]\nkind = \"link-down\"\nat_s = 1\nstation = 1\n";
        assert_eq!(read(text).expect_err("refused"), "fault link-down at 1 s is about something that does not exist");
    }
}
