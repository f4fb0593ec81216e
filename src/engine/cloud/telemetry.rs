//! What `P/telemetry` carries: what meters and charging cars did in each quarter of an hour.

use serde::Serialize;

use crate::engine::time::Utc;

/// A quarter of an hour of one meter, or of one EVSE while a transaction runs there. Currents in A, power in W, energy in Wh.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Interval {
    /// The meter; left out where it is an EVSE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meter: Option<String>,
    /// The charger; left out where it is a meter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub charger: Option<String>,
    /// The charger's EVSE, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evse: Option<u32>,
    /// The transaction that ran there at the last sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction_id: Option<String>,
    /// When it begins: a whole quarter of an hour, or when the daemon started or the clock was set.
    pub from: Utc,
    /// When it ends.
    pub until: Utc,
    /// False: the gateway did not know the time.
    pub clock_trusted: bool,
    /// For how much of it values were known, in s.
    pub measured_s: u64,
    /// Energy drawn; null: neither registers nor powers say it.
    pub import_wh: Option<i64>,
    /// Energy fed in; null: as above, and for an EVSE.
    pub export_wh: Option<i64>,
    /// Where the energy comes from: the difference of the device's registers, or the powers measured, for `measured_s` only.
    #[cfg_attr(test, schemars(extend("enum" = ["register", "power", null])))]
    pub energy_by: Option<&'static str>,
    /// The highest current on each phase; positive flows into the site.
    pub peak_a: [Option<f64>; 3],
    /// The lowest current on each phase.
    pub least_a: [Option<f64>; 3],
    /// The highest power of all phases.
    pub peak_w: Option<i64>,
    /// Sampled values, at most one a minute.
    pub samples: Vec<Sample>,
}

/// What was measured at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Sample {
    /// When it arrived here.
    pub at: Utc,
    /// The current on each phase of the grid.
    pub current_a: [Option<f64>; 3],
    /// The power of all phases; null: not told.
    pub power_w: Option<i64>,
    /// The register of energy drawn; null: not told.
    pub import_register_wh: Option<i64>,
    /// What the EVSE was offered on each phase; left out for a meter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offered_a: Option<f64>,
    /// The car's state of charge in %; left out where it is not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soc_percent: Option<u8>,
}
