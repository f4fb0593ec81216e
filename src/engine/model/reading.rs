//! What meters, inverters and stations report.

use serde::{Deserialize, Serialize};

use super::ids::TransactionId;
use super::signed::SignedValue;
use crate::engine::time::Utc;
use crate::engine::units::{Current, Energy, PerPhase, Power, Voltage};

/// One poll of an energy meter. A value that the device does not have, or that was not plausible, is `None`; it is never 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeterReading {
    /// Current on each phase; positive flows into the site. The sign comes from the power where the device's currents have none.
    pub current: PerPhase<Option<Current>>,
    /// Active power on each phase.
    pub power: PerPhase<Option<Power>>,
    /// Voltage from each phase to neutral.
    pub voltage: PerPhase<Option<Voltage>>,
    /// Energy drawn since the device was made.
    pub import: Option<Energy>,
    /// Energy fed in since the device was made.
    pub export: Option<Energy>,
}

/// One poll of an inverter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InverterReading {
    /// Power that it feeds into its circuit; negative while a battery charges.
    pub power: Option<Power>,
    /// Current on each phase that it feeds into its circuit.
    pub current: PerPhase<Option<Current>>,
    /// Energy fed in since the device was made.
    pub energy: Option<Energy>,
}

/// Why a device gave no reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum DeviceFault {
    /// No connection could be made.
    #[error("cannot connect: {0}")]
    Unreachable(String),
    /// It did not answer in time.
    #[error("no answer")]
    Timeout,
    /// It answered with a Modbus exception.
    #[error("Modbus exception {code} ({meaning})")]
    Exception {
        /// The exception code, MODBUS Application Protocol V1.1b3 §7.
        code: u8,
        /// What the code stands for.
        meaning: String,
    },
    /// It answered something that is not an answer.
    #[error("unusable answer: {0}")]
    Garbage(String),
    /// It answered, but no value that is needed was plausible.
    #[error("implausible: {0}")]
    Implausible(String),
}

/// What a station measures at one EVSE, in the station's own terminal order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StationReading {
    /// The EVSE's number at the station, from 1; 0 is the station's main feed.
    pub evse: u32,
    /// When the station says it was measured.
    pub at: Option<Utc>,
    /// The transaction it belongs to, if the station names one.
    pub transaction: Option<TransactionId>,
    /// Current drawn at each terminal (`Current.Import`).
    pub current: PerPhase<Option<Current>>,
    /// A current without a phase, for stations that name none.
    pub current_total: Option<Current>,
    /// Power drawn (`Power.Active.Import`).
    pub power: Option<Power>,
    /// The energy register (`Energy.Active.Import.Register`).
    pub energy: Option<Energy>,
    /// The car's state of charge in %.
    pub soc_percent: Option<u8>,
    /// What the meter has signed.
    pub signed: Vec<SignedValue>,
}
