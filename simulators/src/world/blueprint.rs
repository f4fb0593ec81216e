//! A whole site written down: circuits, loads, meters, stations and what goes wrong, so that a file replays by itself.

use serde::{Deserialize, Serialize};
use siteward::engine::model::exchange::{AuthorizationStatus, OcppVersion};
use siteward::engine::model::ids::{CircuitId, IdToken, InverterId, MeterId, SiteId, StationId};
use siteward::engine::model::limit::Dimming;
use siteward::engine::model::setup::{Acknowledge, ChargingSetup, CloudSetup, OutsideSetup, Setup};
use siteward::engine::model::token::{AuthorizationSetup, TokenEntry};
use siteward::engine::model::topology::{
    Circuit, CircuitIndex, DcSupply, Inverter, InverterRole, LeaseForm, Meter, MeterIndex, Station, StationModel,
    Topology, Wiring,
};
use siteward::engine::site::sabotage::Sabotage;
use siteward::engine::units::{Current, PerPhase, Phase, Power, Voltage};

use crate::faults::FaultFile;
use crate::station::Rectifier;

use super::prices;
use super::tamper::Tampering;

/// A whole site, its visitors, and what goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blueprint {
    /// What it shows, for the reader.
    pub about: String,
    /// Seeds all dice.
    pub seed: u64,
    /// How long cars come. Afterwards all leave, and everything is delivered.
    pub minutes: u64,
    /// How long at the end nothing goes wrong, in minutes: there everybody has to get something.
    pub quiet_minutes: u64,
    /// How many cars come to an EVSE a day.
    pub cars_per_day: u64,
    /// How long cars stay, in minutes: from, to.
    #[serde(default = "usual_stay")]
    pub stay_minutes: [u64; 2],
    /// On how many phases cars charge: each as likely.
    #[serde(default = "usual_phases")]
    pub car_phases: Vec<usize>,
    /// A rule that is broken on purpose, to see whether that is seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tampering: Option<Tampering>,
    /// Whether the site runs under its guard.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub guard: bool,
    /// The rule of the engine that is broken on purpose; only in a build with the feature `sabotage`.
    #[serde(skip)]
    pub broken_rule: Option<Sabotage>,
    /// Whether meters are read word by word through the engine's own poll machine and device map. It costs time.
    #[serde(default, skip_serializing_if = "is_false")]
    pub by_registers: bool,
    /// Whether stations have a local list, are given one, and let nobody else charge while they are cut off.
    #[serde(default, skip_serializing_if = "is_false")]
    pub local_lists: bool,
    /// How often stations are told what their transactions cost, in s; without it nothing is priced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_cost_s: Option<u32>,
    /// What is left to all stations together while the site is dimmed, in W; without it, nobody can dim it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimming_w: Option<i64>,
    /// Circuits, parents before children; the first is the grid connection.
    pub circuit: Vec<CircuitPlan>,
    /// Meters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub meter: Vec<MeterPlan>,
    /// The inverter on the roof, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pv: Option<PvPlan>,
    /// Stations.
    pub station: Vec<StationPlan>,
    /// What goes wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fault: Vec<FaultFile>,
}

fn usual_phases() -> Vec<usize> {
    USUAL_PHASES.to_vec()
}

/// Half of all cars have three phases.
pub const USUAL_PHASES: [usize; 6] = [1, 1, 2, 3, 3, 3];

const fn usual_stay() -> [u64; 2] {
    [5, 150]
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_true(value: &bool) -> bool {
    *value
}

/// A circuit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CircuitPlan {
    /// Its name.
    pub id: String,
    /// The circuit that feeds it, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<usize>,
    /// Its limit per phase.
    pub limit_a: i32,
    /// The most power on all phases together, in W.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_w: Option<i64>,
    /// The largest difference between two phases that its stations may cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unbalance_a: Option<i32>,
    /// Its meter, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meter: Option<usize>,
    /// What everything but the stations is assumed to draw on each phase while nobody measures it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmeasured_a: Option<i32>,
    /// What really draws in it besides stations and the circuits below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadPlan>,
}

/// What draws in a circuit besides its stations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadPlan {
    /// An office's day: its peak per phase.
    pub peak_a: i32,
    /// Noise around it.
    #[serde(default)]
    pub noise_ma: i32,
    /// One phase, for minutes.
    #[serde(default)]
    pub kettle_a: i32,
    /// Three phases, for seconds.
    #[serde(default)]
    pub lift_a: i32,
    /// Two phases, 20 s on, 40 s off.
    #[serde(default)]
    pub oven_a: i32,
}

impl LoadPlan {
    /// The most that it can draw on a phase, in A.
    #[must_use]
    pub const fn most_a(&self) -> i32 {
        self.peak_a + (self.noise_ma + 999) / 1000 + self.kettle_a + self.lift_a + self.oven_a
    }
}

/// A meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeterPlan {
    /// How often it is polled; a multiple of 200.
    pub poll_ms: u64,
    /// How often it shows new values; 0: at once.
    #[serde(default)]
    pub refresh_ms: u64,
    /// From this age on a reading is not used any more.
    pub stale_after_ms: u64,
}

/// An inverter with solar panels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PvPlan {
    /// The circuit that it feeds.
    pub circuit: usize,
    /// The most that it feeds, in W.
    pub peak_w: i64,
}

/// A station.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StationPlan {
    /// Its number: its name and its dice, which it keeps when others are taken away.
    pub number: usize,
    /// The circuit that feeds it.
    pub circuit: usize,
    /// `1.6`, `2.0.1` or `2.1`.
    pub ocpp: String,
    /// How many EVSEs.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub evses: u32,
    /// The grid phase at each of its terminals, 1 to 3.
    pub phases: Vec<u8>,
    /// Whether the controller knows their order.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub order_known: bool,
    /// Its outputs, if they are DC. Then what follows in A is what is drawn for that, rounded up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dc: Option<DcPlan>,
    /// The most an EVSE gives per phase.
    pub max_a: i32,
    /// The least it gives.
    pub min_a: i32,
    /// What it may draw without the controller.
    pub fallback_a: i32,
    /// The only currents that it offers; none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub levels_a: Vec<i32>,
    /// Its own delay in following a limit.
    pub reaction_ms: u64,
    /// How long its lease lasts.
    pub lease_s: u64,
    /// How often its lease is renewed.
    pub renew_s: u64,
    /// The form of its lease, by its name.
    #[serde(default = "usual_lease", skip_serializing_if = "is_usual_lease")]
    pub lease: LeaseForm,
    /// How often it sends meter values.
    pub meter_values_s: u64,
    /// What is odd about it for ever: a name of a scenario's `[[quirk]]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub odd: Option<String>,
    /// How much of it, in ms.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub odd_ms: i64,
}

/// The DC outputs of a station.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DcPlan {
    /// The most power of one.
    pub max_w: i64,
    /// The least.
    pub min_w: i64,
    /// What it may give without the controller.
    pub fallback_w: i64,
    /// The efficiency that the controller is told.
    pub efficiency_permille: u16,
    /// The power factor that the controller is told.
    pub power_factor_permille: u16,
}

impl DcPlan {
    fn supply(&self) -> DcSupply {
        DcSupply {
            max: Power::from_w(self.max_w),
            min: Power::from_w(self.min_w),
            efficiency_permille: self.efficiency_permille,
            power_factor_permille: self.power_factor_permille,
        }
    }

    /// What it draws on each of three phases for a power at the output, rounded up.
    #[must_use]
    pub fn draws(&self, watts: i64) -> Current {
        let drawn = self.supply().current_for(Power::from_w(watts), VOLTAGE, Wiring::STRAIGHT);
        drawn.unwrap_or(Current::MAX)
    }

    /// What it is: a little better than what is stated on the safe side.
    #[must_use]
    pub fn rectifier(&self) -> Rectifier {
        Rectifier {
            efficiency_permille: (self.efficiency_permille + 15).min(1_000),
            power_factor_permille: (self.power_factor_permille + 30).min(1_000),
        }
    }
}

/// A power on three phases, as the current on each.
#[must_use]
pub fn on_three_phases(watts: i64) -> Current {
    Power::from_w(watts / 3).current_at(VOLTAGE).unwrap_or(Current::MAX)
}

const VOLTAGE: Voltage = Voltage::from_mv(230_000);

const fn usual_lease() -> LeaseForm {
    LeaseForm::TxDefaultProfile
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_usual_lease(value: &LeaseForm) -> bool {
    matches!(value, LeaseForm::TxDefaultProfile)
}

const fn one() -> u32 {
    1
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_one(value: &u32) -> bool {
    *value == 1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_nothing(value: &i64) -> bool {
    *value == 0
}

impl StationPlan {
    /// The version that it speaks.
    #[must_use]
    pub fn version(&self) -> OcppVersion {
        match self.ocpp.as_str() {
            "2.1" => OcppVersion::V21,
            "2.0.1" => OcppVersion::V201,
            _ => OcppVersion::V16,
        }
    }

    /// How its terminals are really wired.
    ///
    /// # Errors
    /// If the phases are none.
    pub fn wiring(&self) -> Result<Wiring, String> {
        let phases: Option<Vec<Phase>> =
            self.phases.iter().map(|phase| Phase::ALL.get(usize::from(*phase).checked_sub(1)?).copied()).collect();
        phases.as_deref().and_then(Wiring::new).ok_or(format!("phases {:?}: one to three of 1, 2, 3", self.phases))
    }

    /// What the controller is told of its wiring.
    ///
    /// # Errors
    /// If the phases are none.
    pub fn configured_wiring(&self) -> Result<Wiring, String> {
        let wiring = self.wiring()?;
        Ok(if self.order_known { wiring } else { Wiring::unknown(self.phases.len()).unwrap_or(wiring) })
    }

    /// The station as the controller knows it.
    ///
    /// # Errors
    /// If the phases are none.
    pub fn configured(&self) -> Result<Station, String> {
        let drawn = |amperes: i32, watts: fn(&DcPlan) -> i64| {
            self.dc.as_ref().map_or(Current::from_a(amperes), |dc| dc.draws(watts(dc)))
        };
        Ok(Station {
            id: StationId::new(&identity(self.number)),
            circuit: CircuitIndex(self.circuit),
            model: self.model(),
            wiring: self.configured_wiring()?,
            max: drawn(self.max_a, |dc| dc.max_w),
            min: drawn(self.min_a, |dc| dc.min_w),
            fallback: drawn(self.fallback_a, |dc| dc.fallback_w),
            evse_count: usize::try_from(self.evses).unwrap_or(1),
            priority: 0,
            weight: 1,
            dc: self.dc.as_ref().map(DcPlan::supply),
            password: None,
        })
    }

    fn model(&self) -> StationModel {
        StationModel {
            lease: self.lease,
            lease_ms: self.lease_s * 1000,
            renew_ms: self.renew_s * 1000,
            meter_interval_ms: self.meter_values_s * 1000,
            levels: self.levels_a.iter().copied().map(Current::from_a).collect(),
            ..StationModel::default()
        }
    }
}

/// The identity of a station.
#[must_use]
pub fn identity(number: usize) -> String {
    format!("CP{number:03}")
}

/// The token of the driver at an EVSE.
#[must_use]
pub fn token(number: usize, evse: u32) -> String {
    format!("TAG{number:04}-{evse}")
}

impl Blueprint {
    /// How long cars come, in ms.
    #[must_use]
    pub const fn duration_ms(&self) -> u64 {
        self.minutes * 60_000
    }

    /// From when on nothing goes wrong, in ms.
    #[must_use]
    pub const fn quiet_from_ms(&self) -> u64 {
        self.minutes.saturating_sub(self.quiet_minutes) * 60_000
    }

    /// The circuit and those that feed it.
    pub fn path(&self, from: usize) -> impl Iterator<Item = usize> + use<'_> {
        std::iter::successors(Some(from), |at| self.circuit.get(*at).and_then(|circuit| circuit.parent))
    }

    /// The engine's setup for it.
    ///
    /// # Errors
    /// If it does not make a site.
    pub fn setup(&self) -> Result<Setup, String> {
        let circuits = self.circuit.iter().map(circuit).collect();
        let stations: Vec<Station> = self.station.iter().map(StationPlan::configured).collect::<Result<_, _>>()?;
        let meters = self.meter.iter().enumerate().map(|(index, plan)| Meter {
            id: MeterId::new(&format!("meter-{index}")),
            stale_after_ms: plan.stale_after_ms,
        });
        let inverters = self.pv.iter().map(|plan| Inverter {
            id: InverterId::new("roof"),
            role: InverterRole::Pv,
            circuit: CircuitIndex(plan.circuit),
            stale_after_ms: 30_000,
            max: None,
        });
        let devices = (meters.collect(), inverters.collect());
        let topology = Topology::new(SiteId::new("world"), VOLTAGE, circuits, stations, devices)
            .map_err(|error| error.to_string())?;
        Ok(Setup {
            topology,
            version: "world".to_owned(),
            heartbeat_s: 300,
            tokens: self.tokens(),
            groups: std::collections::BTreeMap::new(),
            timezone: siteward::engine::model::setup::Tz::Europe__Berlin,
            authorization: AuthorizationSetup { local_lists: self.local_lists, ..AuthorizationSetup::default() },
            cloud: Some(CloudSetup { topic_prefix: "siteward/v1".to_owned(), acknowledge: Acknowledge::Broker }),
            outside: OutsideSetup { dimming: self.dimming(), ..OutsideSetup::default() },
            tariffs: prices::tariffs(self),
            billing: prices::billing(self),
            charging: ChargingSetup::default(),
            unsafe_fallback: None,
            seed: self.seed,
        })
    }

    fn dimming(&self) -> Option<Dimming> {
        let circuit = CircuitId::new(&self.circuit.first()?.id);
        Some(Dimming { circuit, power: Power::from_w(self.dimming_w?), input: None })
    }

    fn tokens(&self) -> Vec<TokenEntry> {
        let places = self.station.iter().flat_map(|plan| (1..=plan.evses).map(|evse| token(plan.number, evse)));
        places
            .map(|name| TokenEntry {
                token: IdToken::new(&name),
                status: AuthorizationStatus::Accepted,
                group: None,
                expires: None,
                wish: siteward::engine::model::wish::Wish::default(),
            })
            .collect()
    }
}

fn circuit(plan: &CircuitPlan) -> Circuit {
    Circuit {
        id: CircuitId::new(&plan.id),
        parent: plan.parent.map(CircuitIndex),
        limit: PerPhase::splat(Current::from_a(plan.limit_a)),
        meter: plan.meter.map(MeterIndex),
        unmeasured_load: plan.unmeasured_a.map(|a| PerPhase::splat(Current::from_a(a))),
        max_unbalance: plan.max_unbalance_a.map(Current::from_a),
        max_power: plan.max_w.map(Power::from_w),
        short_time: None,
    }
}
