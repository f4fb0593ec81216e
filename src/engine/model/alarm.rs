//! Conditions that somebody must know of: they begin, they end, and they say what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How bad a condition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing is lost.
    Warning,
    /// The site works worse than it should.
    Error,
    /// A promise is in danger.
    Critical,
}

/// What kind of condition it is. Together with its subject it names the alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AlarmKind {
    /// A meter gives no usable reading.
    MeterLost,
    /// A meter gives readings that cannot be right.
    MeterUntrusted,
    /// An inverter gives no usable reading.
    InverterLost,
    /// A station that should be there is not connected.
    StationLost,
    /// A station draws more than it may.
    StationAboveLimit,
    /// A station did not accept a limit.
    LimitRefused,
    /// A circuit is above its limit.
    CircuitAboveLimit,
    /// The sum of the fallbacks does not fit a circuit and the site was started nevertheless.
    FallbackUnsafe,
    /// The store cannot be written.
    StoreFailed,
    /// A damaged store was set aside.
    StoreRecovered,
    /// The cloud's broker cannot be reached.
    CloudLost,
    /// The calendar time is not known.
    ClockUntrusted,
    /// A connector reports an error.
    ConnectorFault,
    /// A station says itself that it will not fall to its fallback.
    LeaseNotProven,
    /// A station does not speak the OCPP version that its form of lease needs.
    LeaseNotSpoken,
    /// A station's clock is wrong and is not set by what it is told.
    StationClockWrong,
    /// A station was sent as many charging profiles as its memory stands in a day.
    WriteBudgetExhausted,
    /// A transaction will not have its energy in time.
    TargetNotMet,
    /// The guard has kept back or lowered what was to be sent to a station, or finds that a circuit is not lowered.
    GuardDisagrees,
    /// Of what a meter has signed, something is missing or came twice.
    PaginationBroken,
    /// What a meter is said to have signed does not fit its public key.
    SignatureWrong,
    /// What is billed is not what the meter has signed.
    SignedEnergyDiffers,
    /// A signed value is too long to be kept.
    SignedValueTooLong,
    /// Transactions wait for the time so long that some of them get no CDR.
    CdrWithheld,
    /// Energy was measured that nobody accounts for, or the other way round.
    EnergyBalance,
    /// Stations are connected that are not configured.
    ChargerPending,
}

/// The name of an alarm: its kind and what it is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AlarmKey {
    /// What kind of condition.
    pub kind: AlarmKind,
    /// The meter, station, circuit … concerned; empty for the site.
    pub subject: String,
}

impl AlarmKey {
    /// Makes the name.
    #[must_use]
    pub fn new(kind: AlarmKind, subject: &str) -> Self {
        Self { kind, subject: subject.to_owned() }
    }
}

/// An alarm that stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Alarm {
    /// Its name.
    #[serde(flatten)]
    pub key: AlarmKey,
    /// How bad it is.
    pub severity: Severity,
    /// What is the case, in one sentence.
    pub message: String,
    /// What to do about it, in one sentence.
    pub remedy: String,
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.message, self.remedy)
    }
}
