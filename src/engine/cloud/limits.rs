//! Limits from outside as JSON: in events, and in the log that the local interface shows.

use serde::Serialize;

use crate::engine::model::ids::{CircuitId, Sequence, StationId};
use crate::engine::model::limit::{
    LimitAmount, LimitEnd, LimitOrigin, LimitProof, LimitTarget, OnLoss, ProofResult, StandingLimit,
};
use crate::engine::time::Utc;
use crate::engine::units::{Current, Power};

/// The name of what a limit is on.
#[must_use]
pub fn name_of(target: &LimitTarget) -> &str {
    match target {
        LimitTarget::Circuit(id) => id.as_str(),
        LimitTarget::Charger(id) => id.as_str(),
    }
}

/// A limit from outside that stands. One of `limit_a`, `limit_w`, `charging_w` and `limit_percent` says how much is left.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct LimitStanding<'a> {
    #[serde(flatten)]
    about: AboutLimit<'a>,
    #[serde(flatten)]
    amount: Amount,
    /// When it ends; null: when it is cleared.
    until: Option<Utc>,
    /// When it was received, as far as the time was known.
    received: Utc,
    /// It has not.
    ended: (),
    #[serde(flatten)]
    renewal: Option<Renewal>,
}

/// A limit from outside has ended.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct LimitEnded<'a> {
    #[serde(flatten)]
    about: AboutLimit<'a>,
    /// It limits nothing any more.
    limit_a: (),
    /// It is over.
    until: (),
    /// Why.
    ended: LimitEnd,
}

/// What became of a limit from outside. One of `limit_a`, `limit_w`, `charging_w` and `limit_percent` says how much was left.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LimitProven<'a> {
    #[serde(flatten)]
    about: AboutLimit<'a>,
    #[serde(flatten)]
    amount: Amount,
    /// The `sequence` of the event of the limit.
    order: Sequence,
    /// When it was received, as far as the time was known.
    received: Utc,
    /// How it ended.
    result: ProofResult,
    /// The ms until the last connected charger had acknowledged; null: not all did.
    acknowledged_ms: Option<u64>,
    /// The ms until it was measured that the limit is kept; null: it was not.
    kept_ms: Option<u64>,
    /// The largest current of a phase at the end, in A; null: not measured, or the limit is a power.
    measured_a: Option<f64>,
    /// The power at the end, in W; null: not measured, or the limit is a current.
    measured_w: Option<Power>,
    /// How many chargers below were not connected: they keep what they had, or their fallback.
    silent_chargers: usize,
}

/// On what and from whom a limit is.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct AboutLimit<'a> {
    /// The circuit that it is on; null: it is on a charger.
    circuit: Option<&'a CircuitId>,
    /// The charger that it is on; null: it is on a circuit.
    charger: Option<&'a StationId>,
    /// From whom it comes: `cloud`, `local`, the name that the sender gave itself, `schedule NAME`, `dimming (INPUT)`.
    source: String,
}

/// How much is left: one of them.
#[derive(Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Amount {
    /// On each phase, in A; on a charger, for each of its EVSEs.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_a: Option<f64>,
    /// On all phases together, in W; on a charger, for all of its EVSEs together.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_w: Option<Power>,
    /// For all chargers below together, in W; other loads do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    charging_w: Option<Power>,
    /// The share of what is configured, in percent from 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_percent: Option<f64>,
}

/// What a limit that must be renewed has beside the others.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Renewal {
    /// It must be renewed within so many s.
    ttl_s: u64,
    /// What holds when it is not.
    on_loss: Loss,
    /// Its sender has not renewed it in time: what it said for that case holds.
    sender_lost: bool,
}

/// What holds when a limit is not renewed in time.
#[derive(Serialize)]
#[serde(untagged)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
enum Loss {
    /// The last limit goes on (`hold`), or the limit ends (`release`).
    Word(#[cfg_attr(test, schemars(extend("enum" = ["hold", "release"])))] &'static str),
    /// This holds instead until the sender is back.
    Fallback(Amount),
}

impl<'a> From<&'a StandingLimit> for LimitStanding<'a> {
    fn from(standing: &'a StandingLimit) -> Self {
        let order = &standing.order;
        let renewal = order.heartbeat.map(|heartbeat| Renewal {
            ttl_s: heartbeat.ttl_ms / 1_000,
            on_loss: match heartbeat.on_loss {
                OnLoss::Hold => Loss::Word("hold"),
                OnLoss::Release => Loss::Word("release"),
                OnLoss::Fallback(fallback) => Loss::Fallback(fallback.into()),
            },
            sender_lost: standing.lost,
        });
        Self {
            about: AboutLimit::new(&order.target, &order.origin),
            amount: standing.in_force().into(),
            until: order.until,
            received: standing.received,
            ended: (),
            renewal,
        }
    }
}

impl<'a> LimitEnded<'a> {
    pub(super) fn new(target: &'a LimitTarget, origin: &LimitOrigin, why: LimitEnd) -> Self {
        Self { about: AboutLimit::new(target, origin), limit_a: (), until: (), ended: why }
    }
}

impl<'a> From<&'a LimitProof> for LimitProven<'a> {
    fn from(proof: &'a LimitProof) -> Self {
        Self {
            about: AboutLimit::new(&proof.target, &proof.origin),
            amount: proof.amount.into(),
            order: proof.order,
            received: proof.received,
            result: proof.result,
            acknowledged_ms: proof.acknowledged_ms,
            kept_ms: proof.kept_ms,
            measured_a: proof.measured_current.map(Current::as_a),
            measured_w: proof.measured_power,
            silent_chargers: proof.silent,
        }
    }
}

impl<'a> AboutLimit<'a> {
    fn new(target: &'a LimitTarget, origin: &LimitOrigin) -> Self {
        let (circuit, charger) = match target {
            LimitTarget::Circuit(id) => (Some(id), None),
            LimitTarget::Charger(id) => (None, Some(id)),
        };
        Self { circuit, charger, source: origin.to_string() }
    }
}

impl From<LimitAmount> for Amount {
    fn from(amount: LimitAmount) -> Self {
        match amount {
            LimitAmount::PerPhase(current) => Self { limit_a: Some(current.as_a()), ..Self::default() },
            LimitAmount::Total(power) => Self { limit_w: Some(power), ..Self::default() },
            LimitAmount::Charging(power) => Self { charging_w: Some(power), ..Self::default() },
            LimitAmount::Permille(permille) => {
                Self { limit_percent: Some(f64::from(permille) / 10.0), ..Self::default() }
            }
        }
    }
}
