//! The usual small site: a grid connection with a meter, a building and a roof, two garages below it.

use siteward::engine::model::topology::LeaseForm;
use siteward::engine::site::sabotage::Sabotage;
use siteward::engine::units::Current;

use crate::faults::{self, FaultFile, Targets};
use crate::rng::Dice;

use super::blueprint::{Blueprint, CircuitPlan, LoadPlan, MeterPlan, PvPlan, StationPlan, USUAL_PHASES};

/// How long nothing goes wrong at the end, in minutes.
const QUIET_MINUTES: u64 = 40;

/// What kind of small site is run.
#[derive(Clone, Debug)]
pub struct WorldOptions {
    /// What it shows, for the reader.
    pub about: String,
    /// Seeds all dice.
    pub seed: u64,
    /// How long, in ms of virtual time. A quarter of an hour is added in which no car comes and everything is delivered.
    pub duration_ms: u64,
    /// How many stations, at least 1.
    pub stations: usize,
    /// How many faults a day the dice throw.
    pub faults_per_day: u64,
    /// Faults that are planned besides.
    pub faults: Vec<FaultFile>,
    /// How often the grid meter is polled, in ms; a multiple of 200.
    pub meter_poll_ms: u64,
    /// How often stations send meter values, in s.
    pub meter_values_s: u64,
    /// How long a lease lasts, in ms.
    pub lease_ms: u64,
    /// How often a lease is renewed, in ms.
    pub renew_ms: u64,
    /// The limit of the grid connection per phase.
    pub grid_limit: Current,
    /// The building's largest load per phase.
    pub building_peak: Current,
    /// How many cars come to an EVSE a day.
    pub cars_per_day: u64,
    /// Whether the grid meter is read by its registers, through the engine's own poll machine and device map. It costs time.
    pub meter_by_registers: bool,
    /// Whether the site runs under its guard.
    pub guard: bool,
    /// The rule of the engine that is broken on purpose; only in a build with the feature `sabotage`.
    pub broken_rule: Option<Sabotage>,
    /// What is odd about which station, and how many ms of it.
    pub quirks: Vec<(usize, String, i64)>,
    /// Whether all stations speak OCPP 2.1, and their limits end when they have been offline for long.
    pub offline_lease: bool,
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self {
            about: "The usual small site.".to_owned(),
            seed: 1,
            duration_ms: 2 * 3_600_000,
            stations: 8,
            faults_per_day: 0,
            faults: Vec::new(),
            meter_poll_ms: 1_000,
            meter_values_s: 10,
            lease_ms: 120_000,
            renew_ms: 30_000,
            // Tight: eight fallbacks of 6 A and the unmeasured load of 52 A just fit.
            grid_limit: Current::from_a(100),
            building_peak: Current::from_a(40),
            cars_per_day: 40,
            meter_by_registers: false,
            guard: true,
            broken_rule: None,
            quirks: Vec::new(),
            offline_lease: false,
        }
    }
}

impl WorldOptions {
    /// A long run: fewer messages, a fault every hour, and a grid connection that fits the number of stations.
    #[must_use]
    pub fn long(seed: u64, days: u64, stations: usize) -> Self {
        let count = i32::try_from(stations).unwrap_or(i32::MAX);
        Self {
            seed,
            duration_ms: days * 86_400_000,
            stations,
            faults_per_day: 24,
            meter_values_s: 60,
            lease_ms: 900_000,
            renew_ms: 300_000,
            grid_limit: Current::from_a(count.saturating_mul(8).saturating_add(20)),
            cars_per_day: 12,
            ..Self::default()
        }
    }

    /// The site, written down.
    #[must_use]
    pub fn blueprint(&self) -> Blueprint {
        let grid_a = self.grid_limit.ma() / 1000;
        let peak_a = self.building_peak.ma() / 1000;
        let garage = |name: &str| CircuitPlan {
            id: name.to_owned(),
            parent: Some(0),
            limit_a: grid_a * 6 / 10,
            ..CircuitPlan::default()
        };
        let grid = CircuitPlan {
            id: "grid".to_owned(),
            parent: None,
            limit_a: grid_a,
            meter: Some(0),
            unmeasured_a: Some(peak_a + 12),
            load: Some(LoadPlan { peak_a: peak_a - 10, noise_ma: 2_000, kettle_a: 8, lift_a: 6, oven_a: 0 }),
            ..CircuitPlan::default()
        };
        let minutes = self.duration_ms / 60_000;
        let mut site = Blueprint {
            about: self.about.clone(),
            seed: self.seed,
            minutes,
            quiet_minutes: QUIET_MINUTES.min(minutes),
            cars_per_day: self.cars_per_day,
            stay_minutes: [5, 150],
            car_phases: USUAL_PHASES.to_vec(),
            tampering: None,
            guard: self.guard,
            broken_rule: self.broken_rule,
            by_registers: self.meter_by_registers,
            local_lists: false,
            running_cost_s: None,
            dimming_w: None,
            circuit: vec![grid, garage("garage-a"), garage("garage-b")],
            meter: vec![MeterPlan { poll_ms: self.meter_poll_ms, refresh_ms: 0, stale_after_ms: 5_000 }],
            pv: Some(PvPlan { circuit: 0, peak_w: 15_000 }),
            station: (0..self.stations).map(|index| self.station(index)).collect(),
            fault: Vec::new(),
        };
        let targets = Targets { stations: self.stations, meters: 1, circuits: 3 };
        let mut dice = Dice::named(self.seed, "faults");
        let planned = faults::by_seed(&mut dice, site.quiet_from_ms(), targets, self.faults_per_day);
        site.fault = planned.into_iter().map(FaultFile::of).chain(self.faults.iter().cloned()).collect();
        site
    }

    /// Terminals are wired in turns, every fifth station has one phase only, every third speaks OCPP 2.0.1.
    fn station(&self, index: usize) -> StationPlan {
        let turned = [[1, 2, 3], [2, 3, 1], [3, 1, 2]];
        let phases = turned[index % 3];
        let odd = self.quirks.iter().find(|(station, _, _)| *station == index);
        StationPlan {
            dc: None,
            number: index,
            circuit: 1 + index % 2,
            ocpp: match index % 3 {
                _ if self.offline_lease => "2.1",
                2 => "2.0.1",
                _ => "1.6",
            }
            .to_owned(),
            lease: if self.offline_lease { LeaseForm::MaxOfflineDuration } else { LeaseForm::TxDefaultProfile },
            evses: 1,
            phases: if index % 5 == 4 { phases[..1].to_vec() } else { phases.to_vec() },
            order_known: true,
            max_a: 32,
            min_a: 6,
            fallback_a: 6,
            levels_a: Vec::new(),
            reaction_ms: 200,
            lease_s: self.lease_ms / 1000,
            renew_s: self.renew_ms / 1000,
            meter_values_s: self.meter_values_s,
            odd: odd.map(|(_, name, _)| name.clone()),
            odd_ms: odd.map_or(0, |(_, _, amount)| *amount),
        }
    }
}
