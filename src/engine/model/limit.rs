//! Limits from outside: on what, from whom, how much, for how long. They can only lower.

use std::fmt;

use chrono::{NaiveDate, NaiveTime};
use serde::{Deserialize, Serialize};

use super::ids::{CircuitId, Sequence, StationId};
use crate::engine::time::Utc;
use crate::engine::units::{Current, PerPhase, Power};

/// What a limit is on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitTarget {
    /// All that flows through a circuit.
    Circuit(CircuitId),
    /// A station: its largest offer.
    Charger(StationId),
}

impl fmt::Display for LimitTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Circuit(id) => write!(f, "circuit {id}"),
            Self::Charger(id) => write!(f, "charger {id}"),
        }
    }
}

/// How much is left. At least 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitAmount {
    /// A current on each phase; on a station, for each of its EVSEs.
    PerPhase(Current),
    /// A power on all phases together; on a station, for all of its EVSEs together.
    Total(Power),
    /// A power for all stations below the circuit together; other loads do not count.
    Charging(Power),
    /// Thousandths of what is configured, 0 to 1000.
    Permille(u16),
}

impl fmt::Display for LimitAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerPhase(current) => write!(f, "{current} per phase"),
            Self::Total(power) => write!(f, "{power} in total"),
            Self::Charging(power) => write!(f, "{power} for charging"),
            Self::Permille(permille) => write!(f, "{}.{} % of the configured limit", permille / 10, permille % 10),
        }
    }
}

/// From whom a limit comes. For each target there is one limit of each origin, and the lowest holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitOrigin {
    /// A command of the cloud.
    Cloud,
    /// A request on site.
    Local,
    /// A sender that names itself, such as an energy manager.
    Named(String),
    /// A schedule of the configuration.
    Schedule(String),
    /// The grid operator's dimming, by the input of that name: `cloud`, `local` or `modbus`.
    Dimming(String),
}

impl fmt::Display for LimitOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cloud => f.write_str("cloud"),
            Self::Local => f.write_str("local"),
            Self::Named(name) => f.write_str(name),
            Self::Schedule(name) => write!(f, "schedule {name}"),
            Self::Dimming(input) => write!(f, "dimming ({input})"),
        }
    }
}

/// What holds when a sender that promised to renew its limit has gone silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLoss {
    /// The last limit goes on.
    Hold,
    /// The limit ends.
    Release,
    /// This holds instead until the sender is back.
    Fallback(LimitAmount),
}

/// A promise to renew a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The sender is lost when so many ms have passed since the last renewal.
    pub ttl_ms: u64,
    /// What holds then.
    pub on_loss: OnLoss,
}

/// A limit as it was ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitOrder {
    /// On what.
    pub target: LimitTarget,
    /// From whom.
    pub origin: LimitOrigin,
    /// How much.
    pub amount: LimitAmount,
    /// When it ends; `None`: when it is cleared.
    pub until: Option<Utc>,
    /// Whether it must be renewed.
    pub heartbeat: Option<Heartbeat>,
}

/// A limit that stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingLimit {
    /// What was ordered.
    pub order: LimitOrder,
    /// Its sender has gone silent: [`Heartbeat::on_loss`] holds.
    pub lost: bool,
    /// When it was received, as far as the calendar time was known.
    pub received: Utc,
}

impl StandingLimit {
    /// What holds of it now.
    #[must_use]
    pub fn in_force(&self) -> LimitAmount {
        match self.order.heartbeat.filter(|_| self.lost).map(|heartbeat| heartbeat.on_loss) {
            Some(OnLoss::Fallback(amount)) => amount,
            Some(OnLoss::Hold | OnLoss::Release) | None => self.order.amount,
        }
    }
}

/// What all limits from outside together leave of a circuit; `None` where they lower nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutsideLimits {
    /// The current on each phase.
    pub current: Option<PerPhase<Current>>,
    /// The power of all that flows, on all phases together.
    pub power: Option<Power>,
    /// The power of all stations below together, whatever else flows.
    pub charging: Option<Power>,
}

/// Why a limit has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LimitEnd {
    /// Whoever set it cleared it.
    Cleared,
    /// Its `until` has come.
    Expired,
    /// Its sender has gone silent and had said that it ends then.
    SenderLost,
    /// What it was on or came from is no longer in the configuration.
    NotConfigured,
}

impl LimitEnd {
    /// The name that the interfaces show.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cleared => "cleared",
            Self::Expired => "expired",
            Self::SenderLost => "sender_lost",
            Self::NotConfigured => "not_configured",
        }
    }
}

/// How the following of a limit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ProofResult {
    /// It was measured that the limit is kept.
    Kept,
    /// The stations have acknowledged, but nothing measures the result.
    NotMeasured,
    /// It was measured that the limit is not kept.
    NotKept,
    /// A station did not acknowledge in time.
    NotAcknowledged,
    /// The limit ended or was replaced before.
    Replaced,
}

impl ProofResult {
    /// The name that the interfaces show.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::NotMeasured => "not_measured",
            Self::NotKept => "not_kept",
            Self::NotAcknowledged => "not_acknowledged",
            Self::Replaced => "replaced",
        }
    }
}

/// What became of a limit: the proof for whoever ordered it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitProof {
    /// The record of the limit.
    pub order: Sequence,
    /// On what.
    pub target: LimitTarget,
    /// From whom.
    pub origin: LimitOrigin,
    /// How much was left.
    pub amount: LimitAmount,
    /// When it was received, as far as the calendar time was known.
    pub received: Utc,
    /// The ms until the last connected station had acknowledged.
    pub acknowledged_ms: Option<u64>,
    /// The ms until it was measured that the limit is kept.
    pub kept_ms: Option<u64>,
    /// What was measured at the end: the largest current of a phase …
    pub measured_current: Option<Current>,
    /// … or the power, by what the limit is in.
    pub measured_power: Option<Power>,
    /// How many stations below were not connected: they keep what they had, or their fallback.
    pub silent: usize,
    /// How it ended.
    pub result: ProofResult,
}

/// When a scheduled limit holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The local time of its beginning, in whole minutes.
    pub from: NaiveTime,
    /// The local time of its end, in whole minutes; on the next day where it is not after `from`.
    pub to: NaiveTime,
    /// The weekdays on which it begins, from Monday.
    pub weekdays: [bool; 7],
    /// If there are any, it begins on these dates only, whatever the weekday.
    pub dates: Vec<NaiveDate>,
    /// On these dates it does not begin.
    pub except: Vec<NaiveDate>,
    /// Its end is delayed by a random time of at most so many ms.
    pub random_delay_ms: u64,
}

/// A limit that comes and goes with the time of day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduledLimit {
    /// Its name.
    pub name: String,
    /// On what.
    pub target: LimitTarget,
    /// How much is left.
    pub amount: LimitAmount,
    /// When.
    pub window: Window,
}

/// What holds when the input of the dimming cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DimmingLoss {
    /// The site is dimmed: a broken wire must not set it free.
    #[default]
    Dim,
    /// It is not.
    Release,
    /// It stays as it was.
    Hold,
}

/// How the site is dimmed by the grid operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dimming {
    /// The circuit whose stations are dimmed.
    pub circuit: CircuitId,
    /// What all of them together may draw while dimmed.
    pub power: Power,
    /// The input that is read by Modbus, if there is one.
    pub input: Option<DimmingInput>,
}

/// The input of the dimming that is read by Modbus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DimmingInput {
    /// What holds when it cannot be read.
    pub on_loss: DimmingLoss,
    /// When it counts as lost: so many ms after the last reading.
    pub loss_ms: u64,
}
