//! What of the energy of a day is accounted for.

use serde::{Deserialize, Serialize};

use super::ids::{CircuitId, StationId};
use crate::engine::time::Utc;
use crate::engine::units::Energy;

/// The balance of a day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// When the last one was made; `None`: this is the first.
    pub from: Option<Utc>,
    /// When it was made.
    pub to: Utc,
    /// The EVSEs at which anything was measured.
    pub evses: Vec<EvseBalance>,
    /// The circuits with a meter.
    pub circuits: Vec<CircuitBalance>,
}

/// What came of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum BalanceVerdict {
    /// Both agree within the tolerance.
    Good,
    /// They do not.
    Off,
    /// Something is missing.
    NotJudged,
}

/// What an EVSE's register counted, and what its transactions account for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvseBalance {
    /// The station.
    pub charger: StationId,
    /// The EVSE.
    pub evse: u32,
    /// The register at the beginning.
    pub register_start: Option<Energy>,
    /// The register at the end.
    pub register_end: Option<Energy>,
    /// The energy of its transactions meanwhile, that of one that still runs among them.
    pub transactions: Energy,
    /// What came of it.
    pub verdict: BalanceVerdict,
    /// Why it was not judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl EvseBalance {
    /// What the register counted, if it is known.
    #[must_use]
    pub fn counted(&self) -> Option<Energy> {
        Some(self.register_end? - self.register_start?)
    }

    /// What the register counted beyond the transactions.
    #[must_use]
    pub fn difference(&self) -> Option<Energy> {
        Some(self.counted()? - self.transactions)
    }
}

/// How the meter of a circuit and the chargers below can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Comparison {
    /// Nothing but chargers is below: both must be the same.
    Same,
    /// There is other load: the chargers took no more than the meter counted.
    AtMost,
    /// Something below feeds in: nothing can be said.
    None,
}

/// The registers of a meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeterRegisters {
    /// Energy drawn since the meter was made.
    pub import: Energy,
    /// Energy fed in since then; 0 for a meter that does not count it.
    pub export: Energy,
    /// How much the chargers below may have taken that they had not told of yet.
    pub untold: Energy,
}

/// What a circuit's meter counted, and what the chargers below took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CircuitBalance {
    /// The circuit.
    pub circuit: CircuitId,
    /// How the two can be compared.
    pub comparison: Comparison,
    /// The meter's registers at the end.
    pub registers: Option<MeterRegisters>,
    /// What flowed into the circuit, less what flowed out.
    pub metered: Option<Energy>,
    /// What the chargers below took by their registers.
    pub chargers: Option<Energy>,
    /// How far the two may be apart.
    pub tolerance: Energy,
    /// What came of it.
    pub verdict: BalanceVerdict,
    /// Why it was not judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
