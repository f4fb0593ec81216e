//! The messages of `siteward-plan/1`, as they are on the line: amperes, watts, seconds, arrays of L1, L2, L3. An unknown field is an error.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Three values: L1, L2, L3.
pub(super) type Phases = [f64; 3];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SiteLine {
    #[serde(rename = "type")]
    _kind: String,
    #[serde(rename = "proto")]
    _proto: String,
    pub(super) voltage_v: f64,
    pub(super) circuits: Vec<WireCircuit>,
    pub(super) evses: Vec<WireEvse>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WireCircuit {
    pub(super) id: String,
    pub(super) parent: Option<String>,
    pub(super) limit_a: Phases,
    pub(super) limit_w: Option<f64>,
    pub(super) max_unbalance_a: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WireEvse {
    pub(super) id: String,
    pub(super) circuit: String,
    /// A list of phases in the order of the terminals, or "unknown".
    pub(super) phases: Value,
    pub(super) terminals: Option<usize>,
    pub(super) min_a: f64,
    pub(super) max_a: f64,
    pub(super) fallback_a: f64,
    pub(super) step_a: Option<f64>,
    #[serde(default)]
    pub(super) levels_a: Vec<f64>,
    pub(super) weight: Option<u32>,
    #[serde(default)]
    pub(super) priority: i32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StateLine {
    #[serde(rename = "type")]
    _kind: String,
    pub(super) time_s: f64,
    pub(super) circuits: Vec<CircuitLine>,
    pub(super) evses: Vec<EvseLine>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CircuitLine {
    pub(super) id: String,
    /// `null`: not known.
    #[serde(deserialize_with = "Option::deserialize")]
    pub(super) background_a: Option<Phases>,
    pub(super) outside_limit_a: Option<Phases>,
    pub(super) outside_limit_w: Option<f64>,
    pub(super) charging_limit_w: Option<f64>,
    pub(super) ramp_a: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EvseLine {
    pub(super) id: String,
    pub(super) committed_a: Phases,
    pub(super) drawn_a: Option<Phases>,
    pub(super) demand_a: f64,
    pub(super) reachable: bool,
    #[serde(default)]
    pub(super) hold: bool,
    pub(super) deadline: Option<DeadlineLine>,
    pub(super) served_since_s: Option<f64>,
    pub(super) waiting_since_s: Option<f64>,
    pub(super) rests_until_s: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeadlineLine {
    pub(super) missing_kwh: f64,
    pub(super) by_s: f64,
}

#[derive(Serialize)]
pub(super) struct ReadyLine {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) proto: &'static str,
    pub(super) name: &'static str,
}

#[derive(Serialize)]
pub(super) struct PlanLine<'a> {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) time_s: f64,
    pub(super) evses: Vec<OfferLine<'a>>,
    pub(super) solve_us: u64,
}

#[derive(Serialize)]
pub(super) struct OfferLine<'a> {
    pub(super) id: &'a str,
    pub(super) limit_a: f64,
    pub(super) target_a: f64,
    pub(super) binding: &'static str,
    pub(super) circuit: Option<&'a str>,
    pub(super) phase: Option<String>,
    pub(super) why: Option<String>,
    pub(super) queue: Option<QueueLine>,
    pub(super) shortfall_kwh: Option<f64>,
}

#[derive(Serialize)]
pub(super) struct QueueLine {
    pub(super) position: usize,
    /// `null`: not foreseeable.
    pub(super) starts_s: Option<f64>,
}
