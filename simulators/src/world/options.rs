//! What kind of world is run.

use serde::Deserialize;
use siteward::engine::model::exchange::{AuthorizationStatus, OcppVersion};
use siteward::engine::model::ids::{CircuitId, IdToken, InverterId, MeterId, SiteId, StationId};
use siteward::engine::model::setup::{Acknowledge, BillingSetup, ChargingSetup, CloudSetup, OutsideSetup, Setup};
use siteward::engine::model::token::{TokenEntry, UnknownToken};
use siteward::engine::model::topology::{
    Circuit, CircuitIndex, Inverter, InverterRole, Meter, MeterIndex, Station, StationModel, Topology, TopologyError,
    Wiring,
};
use siteward::engine::site::sabotage::Sabotage;
use siteward::engine::units::{Current, PerPhase, Phase, Voltage};

use crate::faults::{FaultFile, Planned};
use crate::station::Quirks;

/// What kind of world is run.
#[derive(Clone, Debug)]
pub struct WorldOptions {
    /// Seeds all dice.
    pub seed: u64,
    /// How long, in ms of virtual time. A quarter of an hour is added in which no car comes and everything is delivered.
    pub duration_ms: u64,
    /// How many stations, at least 1.
    pub stations: usize,
    /// How many faults a day the dice throw.
    pub faults_per_day: u64,
    /// Faults that are planned besides.
    pub faults: Vec<Planned>,
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
    /// The rule of the site that is broken on purpose; only in a build with the feature `sabotage`.
    pub broken_rule: Option<Sabotage>,
    /// What is odd about which station.
    pub quirks: Vec<(usize, Quirks)>,
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self {
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

    /// Reads a scenario file.
    ///
    /// # Errors
    /// What is wrong with it, with its place.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        let file: ScenarioFile = toml::from_str(text).map_err(|error| error.to_string())?;
        let default = Self::default();
        let faults = file.fault.iter().map(FaultFile::planned).collect::<Result<_, _>>()?;
        let quirks = file.quirk.iter().map(QuirkFile::quirks).collect::<Result<_, _>>()?;
        Ok(Self {
            seed: file.seed,
            duration_ms: file.minutes * 60_000,
            stations: file.stations.max(1),
            faults_per_day: file.faults_per_day,
            faults,
            grid_limit: file.grid_limit_a.map_or(default.grid_limit, Current::from_a),
            building_peak: file.building_peak_a.map_or(default.building_peak, Current::from_a),
            cars_per_day: file.cars_per_day.unwrap_or(default.cars_per_day),
            meter_by_registers: file.meter_by_registers,
            quirks,
            ..default
        })
    }

    /// The EVSEs' fallback: the minimum, where the dice do not say otherwise.
    #[must_use]
    pub const fn fallback(&self) -> Current {
        Current::from_a(6)
    }

    /// How a station's terminals are wired: in turns, and every fifth has one phase only.
    #[must_use]
    pub fn wiring(&self, station: usize) -> Wiring {
        let turned =
            [[Phase::L1, Phase::L2, Phase::L3], [Phase::L2, Phase::L3, Phase::L1], [Phase::L3, Phase::L1, Phase::L2]];
        let phases = turned[station % 3];
        let used = if station % 5 == 4 { &phases[..1] } else { &phases[..] };
        Wiring::new(used).unwrap_or(Wiring::STRAIGHT)
    }

    /// Every third station speaks OCPP 2.0.1.
    #[must_use]
    pub const fn version(&self, station: usize) -> OcppVersion {
        if station % 3 == 2 { OcppVersion::V201 } else { OcppVersion::V16 }
    }

    /// The token of the driver at a station.
    #[must_use]
    pub fn token(station: usize) -> String {
        format!("TAG{station:04}")
    }

    /// The engine's setup for this world: a grid circuit with a meter, two garages below it.
    ///
    /// # Errors
    /// If the numbers do not make a topology.
    pub fn setup(&self) -> Result<Setup, TopologyError> {
        let garage = |name: &str| Circuit {
            id: CircuitId::new(name),
            parent: Some(CircuitIndex(0)),
            limit: PerPhase::splat(Current::from_ma(self.grid_limit.ma() * 6 / 10)),
            meter: None,
            unmeasured_load: None,
            max_unbalance: None,
            max_power: None,
            short_time: None,
        };
        let grid = Circuit {
            id: CircuitId::new("grid"),
            parent: None,
            limit: PerPhase::splat(self.grid_limit),
            meter: Some(MeterIndex(0)),
            unmeasured_load: Some(PerPhase::splat(self.building_peak + Current::from_a(12))),
            max_unbalance: None,
            max_power: None,
            short_time: None,
        };
        let model = StationModel {
            lease_ms: self.lease_ms,
            renew_ms: self.renew_ms,
            meter_interval_ms: self.meter_values_s * 1000,
            ..StationModel::default()
        };
        let stations = (0..self.stations)
            .map(|index| Station {
                id: StationId::new(&format!("CP{index:03}")),
                circuit: CircuitIndex(1 + index % 2),
                model: model.clone(),
                wiring: self.wiring(index),
                max: Current::from_a(32),
                min: Current::from_a(6),
                fallback: self.fallback(),
                evse_count: 1,
                priority: 0,
                weight: 1,
                dc: None,
                password: None,
            })
            .collect();
        let meters = vec![Meter { id: MeterId::new("main"), stale_after_ms: 5_000 }];
        let inverters = vec![Inverter {
            id: InverterId::new("roof"),
            role: InverterRole::Pv,
            circuit: CircuitIndex(0),
            stale_after_ms: 30_000,
            max: None,
        }];
        let circuits = vec![grid, garage("garage-a"), garage("garage-b")];
        let topology =
            Topology::new(SiteId::new("world"), Voltage::from_mv(230_000), circuits, stations, (meters, inverters))?;
        Ok(Setup { tokens: self.tokens(), ..self.setup_of(topology) })
    }

    fn setup_of(&self, topology: Topology) -> Setup {
        Setup {
            topology,
            version: "world".to_owned(),
            heartbeat_s: 300,
            tokens: Vec::new(),
            unknown_token: UnknownToken::Reject,
            cloud: Some(CloudSetup { topic_prefix: "siteward/v1".to_owned(), acknowledge: Acknowledge::Broker }),
            outside: OutsideSetup::default(),
            billing: BillingSetup::default(),
            unsafe_fallback: None,
            charging: ChargingSetup::default(),
            seed: self.seed,
        }
    }

    fn tokens(&self) -> Vec<TokenEntry> {
        (0..self.stations)
            .map(|index| TokenEntry {
                token: IdToken::new(&Self::token(index)),
                status: AuthorizationStatus::Accepted,
                group: None,
                expires: None,
            })
            .collect()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScenarioFile {
    /// What it shows, for the reader.
    #[serde(rename = "about")]
    _about: String,
    seed: u64,
    minutes: u64,
    stations: usize,
    #[serde(default)]
    faults_per_day: u64,
    grid_limit_a: Option<i32>,
    building_peak_a: Option<i32>,
    cars_per_day: Option<u64>,
    #[serde(default)]
    meter_by_registers: bool,
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

impl QuirkFile {
    fn quirks(&self) -> Result<(usize, Quirks), String> {
        let none = Quirks::default();
        let quirks = match self.is.as_str() {
            "ignores-limit" => Quirks { ignores_limit: true, ..none },
            "ignores-everything" => Quirks { ignores_limit: true, ignores_stop: true, ..none },
            "refuses-zero" => Quirks { refuses_zero: true, ..none },
            "refuses-profiles" => Quirks { refuses_profiles: true, ..none },
            "slow" => Quirks { extra_reaction_ms: self.amount_ms.unsigned_abs(), ..none },
            "forgetful" => Quirks { loses_profiles_on_reboot: true, ..none },
            "wrong-clock" => Quirks { clock_offset_ms: self.amount_ms, ..none },
            "duplicate-stop" => Quirks { duplicate_stop: true, ..none },
            "never-answers" => Quirks { never_answers: true, ..none },
            "resend-storm" => Quirks { resend_storm: true, ..none },
            other => return Err(format!("quirk {other:?} is not known")),
        };
        Ok((self.station, quirks))
    }
}
