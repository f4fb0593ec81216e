//! The site at a glance: what `P/state`, the REST interface, the command line and the demo show.

use serde::{Deserialize, Serialize};

use super::alarm::Alarm;
use crate::engine::time::Utc;

/// The whole site. Currents in A, power in W, energy in Wh.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SiteStatus {
    /// The site's id.
    pub site: String,
    /// The daemon's version.
    pub version: String,
    /// When this was so.
    pub time: Utc,
    /// Whether the clock is synchronised.
    pub clock_trusted: bool,
    /// The ms since the daemon started.
    pub uptime_ms: u64,
    /// All circuits.
    pub circuits: Vec<CircuitStatus>,
    /// All stations.
    pub chargers: Vec<ChargerStatus>,
    /// Stations that are connected but not configured: they wait for `charger.approve`, and nobody limits them.
    #[serde(default)]
    pub pending: Vec<PendingCharger>,
    /// All meters.
    pub meters: Vec<MeterStatus>,
    /// All inverters.
    pub inverters: Vec<InverterStatus>,
    /// Running transactions.
    pub transactions: Vec<TransactionStatus>,
    /// Limits from outside that stand.
    #[serde(default)]
    pub limits: Vec<LimitStatus>,
    /// Standing alarms.
    pub alarms: Vec<Alarm>,
    /// The link to the cloud; `None` if none is configured.
    pub cloud: Option<CloudStatus>,
    /// The last record made.
    pub last_sequence: u64,
    /// The last record that is safe on disk.
    pub durable_sequence: u64,
}

/// A circuit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CircuitStatus {
    /// Its id.
    pub id: String,
    /// The circuit that feeds it.
    pub parent: Option<String>,
    /// The limit in force on each phase.
    pub limit_a: [f64; 3],
    /// The configured limit on each phase.
    pub configured_limit_a: [f64; 3],
    /// What its meter says on each phase; `None` if it has none or the reading is stale.
    pub measured_a: Option<[f64; 3]>,
    /// What everything but the stations is taken to draw on each phase.
    pub background_a: [f64; 3],
    /// Where `background_a` comes from: `meter`, `hold`, `configured`, `unknown`, `none`.
    pub background_source: String,
    /// What the stations below may be drawing on each phase.
    pub committed_a: [f64; 3],
    /// What the stations below are offered on each phase.
    pub offered_a: [f64; 3],
}

/// A station.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ChargerStatus {
    /// Its OCPP identity.
    pub id: String,
    /// The circuit that feeds it.
    pub circuit: String,
    /// Whether it is connected.
    pub connected: bool,
    /// The OCPP version spoken, or last spoken.
    pub ocpp_version: Option<String>,
    /// The maker, once it has booted.
    pub vendor: Option<String>,
    /// The model, once it has booted.
    pub model: Option<String>,
    /// The firmware, once it has booted.
    pub firmware: Option<String>,
    /// After a power cut: so many s until it starts.
    #[serde(default)]
    pub starts_in_s: Option<u64>,
    /// The charging profiles that it was sent in the last 24 to 25 hours.
    #[serde(default)]
    pub profile_writes: ProfileWrites,
    /// Its EVSEs.
    pub evses: Vec<EvseStatus>,
}

/// A station that is connected but not configured. It belongs to no circuit and may not charge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PendingCharger {
    /// Its OCPP identity.
    pub id: String,
    /// When it connected.
    pub since: Utc,
    /// The OCPP version spoken.
    pub ocpp_version: String,
    /// The maker, once it has said so.
    pub vendor: Option<String>,
    /// The model, once it has said so.
    pub model: Option<String>,
    /// The firmware, once it has said so.
    pub firmware: Option<String>,
}

/// How many charging profiles a station was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProfileWrites {
    /// In the last 24 to 25 hours. Where there is no budget, since the start of the daemon at most.
    pub in_a_day: u32,
    /// How many its model allows a day; `None`: as many as needed.
    pub budget: Option<u32>,
}

/// An EVSE.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EvseStatus {
    /// Its number, from 1.
    pub evse: u32,
    /// The connector's state as OCPP names it; `None` before the first report.
    pub status: Option<String>,
    /// What it was last offered, per phase.
    pub offered_a: Option<f64>,
    /// What it may be drawing, per phase.
    pub committed_a: f64,
    /// What it draws on each grid phase; `None` if no fresh value is known.
    pub measured_a: Option<[f64; 3]>,
    /// Its power in W, if known.
    pub power_w: Option<i64>,
    /// The energy of the running transaction in Wh, if known.
    pub energy_wh: Option<i64>,
    /// The running transaction.
    pub transaction: Option<String>,
    /// What decides its limit, as a short name.
    pub binding: String,
    /// What decides its limit, as a sentence with circuit, phase and amount.
    pub explanation: String,
    /// Higher goes first when not everybody can be served.
    #[serde(default)]
    pub priority: i32,
    /// Its share.
    #[serde(default)]
    pub weight: u32,
    /// Where `priority` comes from: `station`, `group`, `token`, `boost`.
    #[serde(default)]
    pub priority_from: String,
    /// Until when it goes first; `None`: it is not boosted.
    #[serde(default)]
    pub boost_until: Option<Utc>,
    /// What its transaction must have by when; `None`: nobody set it a target, or it is over.
    #[serde(default)]
    pub target: Option<TargetStatus>,
    /// Its place in the queue; `None`: it does not wait.
    #[serde(default)]
    pub queue: Option<QueueStatus>,
    /// Boost, target and place in the queue as sentences in the site's local time; empty: there is nothing to say.
    #[serde(default)]
    pub wishes: String,
}

/// What a transaction must have by when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TargetStatus {
    /// The energy from the start of the transaction on, in Wh.
    pub energy_wh: i64,
    /// By when.
    pub departure: Utc,
    /// Who set it: `command`, `car`, `token`.
    pub source: String,
    /// What is still missing, in Wh; as long as no energy is known, all of it.
    pub missing_wh: i64,
    /// What will be missing at the departure, in Wh; 0: it is on course.
    pub short_wh: i64,
    /// Whether it is steered for. Not while the calendar time is unknown.
    pub effective: bool,
}

/// A place in the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct QueueStatus {
    /// 1 is the next.
    pub position: usize,
    /// How many wait.
    pub of: usize,
    /// When its turn begins at the latest if nobody else comes or goes.
    pub starts_by: Utc,
}

/// Why an EVSE has the limit that it has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The station.
    pub charger: String,
    /// Whether it is connected.
    pub connected: bool,
    /// One for each EVSE.
    pub evses: Vec<EvseStatus>,
    /// The circuits above it, nearest first.
    pub circuits: Vec<CircuitStatus>,
}

/// A meter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MeterStatus {
    /// Its id.
    pub id: String,
    /// Whether its last reading is fresh.
    pub fresh: bool,
    /// The age of its last reading in ms.
    pub age_ms: Option<u64>,
    /// Current on each phase.
    pub current_a: [Option<f64>; 3],
    /// Power of all phases in W, if known.
    pub power_w: Option<i64>,
    /// Why there is no reading, if there is none.
    pub fault: Option<String>,
}

/// An inverter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct InverterStatus {
    /// Its id.
    pub id: String,
    /// Whether its last reading is fresh.
    pub fresh: bool,
    /// The age of its last reading in ms.
    pub age_ms: Option<u64>,
    /// The power that it feeds in, in W.
    pub power_w: Option<i64>,
    /// Why there is no reading, if there is none.
    pub fault: Option<String>,
}

/// A limit from outside.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LimitStatus {
    /// The circuit that it is on; `None` if it is on a charger.
    pub circuit: Option<String>,
    /// The charger that it is on.
    pub charger: Option<String>,
    /// From whom it comes: `cloud`, `local`, the name that the sender gave itself, `schedule NAME`, `dimming (INPUT)`.
    pub source: String,
    /// On each phase, if it is a current.
    pub limit_a: Option<f64>,
    /// On all phases together, if it is a power.
    pub limit_w: Option<i64>,
    /// For all chargers below together, if it is one for charging only.
    pub charging_w: Option<i64>,
    /// The share of the configured limit, if it is one.
    pub limit_percent: Option<f64>,
    /// When it ends; `None`: when it is cleared, or its window is over.
    pub until: Option<Utc>,
    /// When it was received.
    pub received: Utc,
    /// It must be renewed within so many s.
    pub ttl_s: Option<u64>,
    /// Its sender has not renewed it in time: what it said for that case holds.
    pub sender_lost: bool,
}

/// A running transaction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TransactionStatus {
    /// Its id.
    pub transaction: String,
    /// The station.
    pub charger: String,
    /// The EVSE.
    pub evse: u32,
    /// Who charges.
    pub token: Option<String>,
    /// When it began.
    pub started: Utc,
    /// The energy so far in Wh, if known.
    pub energy_wh: Option<i64>,
}

/// The link to the cloud.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CloudStatus {
    /// Whether the broker is connected.
    pub connected: bool,
    /// The last record that the cloud has acknowledged.
    pub acknowledged_sequence: u64,
    /// How many records wait for acknowledgement.
    pub backlog: u64,
    /// The last error, if not connected.
    pub error: Option<String>,
}
