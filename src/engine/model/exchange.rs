//! What a station and its CSMS say to each other, in one vocabulary for all OCPP versions.
//!
//! The protocol translators turn wire messages into these and back; everything else speaks only this.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::display::CostNote;
use super::ids::{IdToken, TransactionId};
use super::local_list::ListUpdate;
use super::reading::StationReading;
use super::topology::LimitUnit;
use super::wish::CarNeeds;
use crate::engine::time::Utc;
use crate::engine::units::{Current, Energy};

/// An OCPP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum OcppVersion {
    /// OCPP 1.6 JSON, subprotocol `ocpp1.6`.
    #[serde(rename = "1.6")]
    V16,
    /// OCPP 2.0.1, subprotocol `ocpp2.0.1`.
    #[serde(rename = "2.0.1")]
    V201,
    /// OCPP 2.1, subprotocol `ocpp2.1`.
    #[serde(rename = "2.1")]
    V21,
}

impl OcppVersion {
    /// The WebSocket subprotocol's name.
    #[must_use]
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::V16 => "ocpp1.6",
            Self::V201 => "ocpp2.0.1",
            Self::V21 => "ocpp2.1",
        }
    }
}

/// What a station says of itself when it boots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootInfo {
    /// The maker.
    pub vendor: String,
    /// The model.
    pub model: String,
    /// The serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The firmware's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
}

/// The state of a connector. OCPP 2.x knows only `Occupied` where 1.6 has five states; its transaction events say which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum ConnectorStatus {
    /// No cable.
    Available,
    /// A cable, no transaction yet.
    Preparing,
    /// Current flows or may flow.
    Charging,
    /// The car takes nothing.
    SuspendedEv,
    /// The station gives nothing.
    SuspendedEvse,
    /// The transaction has ended, the cable is still in.
    Finishing,
    /// Kept for somebody.
    Reserved,
    /// Out of service on purpose.
    Unavailable,
    /// Broken.
    Faulted,
    /// A cable (OCPP 2.x).
    Occupied,
}

/// Whether a token may charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthorizationStatus {
    /// It may.
    Accepted,
    /// It is blocked.
    Blocked,
    /// Its time is over.
    Expired,
    /// It is not known.
    Invalid,
    /// It charges somewhere else already.
    ConcurrentTx,
}

/// What a station is told of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Whether it may charge.
    pub status: AuthorizationStatus,
    /// Its group (`parentIdTag`, `groupIdToken`).
    pub group: Option<String>,
    /// How long the station may remember it (`expiryDate`, `cacheExpiryDateTime`).
    pub expires: Option<Utc>,
}

impl From<AuthorizationStatus> for Admission {
    fn from(status: AuthorizationStatus) -> Self {
        Self { status, group: None, expires: None }
    }
}

/// Where a transaction stands, in the words of OCPP 2.x (`chargingState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChargingState {
    /// Current flows.
    Charging,
    /// A car is connected, nothing flows yet.
    EvConnected,
    /// The car takes nothing.
    SuspendedEv,
    /// The station gives nothing.
    SuspendedEvse,
    /// Nothing is connected.
    Idle,
}

/// Which part of its life a transaction event tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransactionPhase {
    /// It began.
    Started,
    /// Something changed.
    Updated,
    /// It is over.
    Ended,
}

/// An event of a transaction with a station-given id (OCPP 2.x `TransactionEvent`).
#[derive(Clone, Debug, PartialEq)]
pub struct TransactionEvent {
    /// Begin, change or end.
    pub phase: TransactionPhase,
    /// The station's id for it.
    pub transaction: TransactionId,
    /// Counts the events of the station (E01.FR.07 for a transaction).
    pub seq_no: i64,
    /// When it happened, by the station's clock.
    pub at: Utc,
    /// Why the event was sent (`triggerReason`), as the station wrote it.
    pub trigger: String,
    /// Happened while the station was offline.
    pub offline: bool,
    /// The EVSE, where the station names it.
    pub evse: Option<u32>,
    /// The connector, where the station names it.
    pub connector: Option<u32>,
    /// The token, where the station names it.
    pub token: Option<IdToken>,
    /// Where the charging stands.
    pub charging_state: Option<ChargingState>,
    /// Why it ended (`stoppedReason`), as the station wrote it.
    pub stopped_reason: Option<String>,
    /// Meter values in the event.
    pub readings: Vec<StationReading>,
}

/// What a station asks or tells (a CALL from the station).
#[derive(Clone, Debug, PartialEq)]
pub enum StationRequest {
    /// `BootNotification`.
    Boot {
        /// Who it is.
        info: BootInfo,
        /// Why it booted (2.x), as the station wrote it.
        reason: Option<String>,
    },
    /// `Heartbeat`.
    Heartbeat,
    /// `StatusNotification`.
    Status {
        /// The EVSE (1.6: the connector); 0 is the station itself.
        evse: u32,
        /// The connector at the EVSE; for 1.6 always 1.
        connector: u32,
        /// Its state.
        status: ConnectorStatus,
        /// The error code, where it is not `NoError`, with the vendor's own words.
        error: Option<String>,
        /// When, by the station's clock.
        at: Option<Utc>,
    },
    /// `Authorize`.
    Authorize {
        /// Who wants to charge.
        token: IdToken,
    },
    /// OCPP 1.6 `StartTransaction`: the CSMS gives the transaction its id.
    StartTransaction {
        /// The connector.
        evse: u32,
        /// Who charges.
        token: IdToken,
        /// The energy register at the start.
        meter_start: Energy,
        /// When, by the station's clock.
        at: Utc,
    },
    /// OCPP 1.6 `StopTransaction`.
    StopTransaction {
        /// Which; `-1` for one whose start was never answered (errata 3.18).
        transaction: TransactionId,
        /// Who stopped it.
        token: Option<IdToken>,
        /// The energy register at the end.
        meter_stop: Energy,
        /// When, by the station's clock.
        at: Utc,
        /// Why, as the station wrote it.
        reason: Option<String>,
        /// `transactionData`.
        readings: Vec<StationReading>,
    },
    /// OCPP 2.x `TransactionEvent`.
    TransactionEvent(Box<TransactionEvent>),
    /// `MeterValues`.
    MeterValues {
        /// The values, one for each sampling time.
        readings: Vec<StationReading>,
    },
    /// OCPP 2.x `NotifyEVChargingNeeds`: what a car told its station by ISO 15118.
    ChargingNeeds {
        /// The EVSE.
        evse: u32,
        /// What it needs.
        needs: CarNeeds,
    },
    /// `DataTransfer`.
    DataTransfer {
        /// Whose extension.
        vendor: String,
        /// Which message of it.
        message: Option<String>,
    },
    /// A message that is received, answered as the schema wants, and means nothing to the control of the site
    /// (`NotifyEvent`, `NotifyReport`, `FirmwareStatusNotification`, `SecurityEventNotification`, …).
    Notify {
        /// The action's name.
        action: String,
        /// In short what it said, for the log.
        summary: String,
    },
}

/// The answer to a [`StationRequest`].
#[derive(Clone, Debug, PartialEq)]
pub enum StationAnswer {
    /// To `Boot`.
    Boot {
        /// `Accepted`, or `Pending` while the station waits for approval.
        accepted: bool,
        /// The time now.
        now: Utc,
        /// The heartbeat interval in s.
        interval_s: u32,
    },
    /// To `Heartbeat`.
    Heartbeat {
        /// The time now.
        now: Utc,
    },
    /// To `Authorize`.
    Authorize {
        /// What is known of the token.
        admission: Admission,
    },
    /// To `StartTransaction`.
    StartTransaction {
        /// The id that the transaction got.
        transaction: i32,
        /// What is known of the token.
        admission: Admission,
    },
    /// To `StopTransaction` and `TransactionEvent`.
    Transaction {
        /// What is known of the token, where one was sent.
        admission: Option<Admission>,
        /// What the transaction has come to, with tax, where it is over (OCPP 2.x).
        cost: Option<Decimal>,
    },
    /// To `ChargingNeeds`: whether they can be used here.
    ChargingNeeds {
        /// They are; limits will follow them.
        used: bool,
    },
    /// To `DataTransfer`: the vendor is not known here.
    UnknownVendor,
    /// To everything that is only taken note of.
    Taken,
}

/// Which profile a limit is written into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProfilePart {
    /// A `TxDefaultProfile` that steps to the fallback by itself.
    Decaying,
    /// A `TxDefaultProfile` with the fallback for good. [`LeasedLimit::limit`] is not in it.
    Base,
    /// A `TxDefaultProfile` one level above the base, that ends with the lease (`validTo`).
    Expiring,
    /// A `TxDefaultProfile` one level above the base, that ends so long after the station has gone offline (`maxOfflineDuration`, OCPP 2.1).
    /// Earlier versions cannot say that: to them it is a limit for good.
    UntilOffline,
    /// A `TxProfile` of a running transaction that steps to the fallback by itself.
    OfTransaction(TransactionId),
    /// A `ChargePointMaxProfile` (`ChargingStationMaxProfile`) on the station as a whole, for good.
    StationMax,
}

/// The unit that a limit is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrittenIn {
    /// Amperes per phase.
    Amperes,
    /// Watts on all phases together: so many mW for each ampere per phase, at least 1.
    Watts {
        /// mW per A.
        mw_per_a: i64,
    },
}

/// A limit with the way it decays: what [`StationCall::SetLimit`] installs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasedLimit {
    /// The EVSE's number; 0 is the station as a whole.
    pub evse: u32,
    /// What it may draw now, per phase. 0 is a pause.
    pub limit: Current,
    /// What it may draw once the lease has run out, per phase.
    pub fallback: Current,
    /// The time now by the station's clock; the schedule starts before it, so that no clock difference leaves a gap.
    pub now: Utc,
    /// The ms from now until the schedule steps to the fallback; with [`ProfilePart::UntilOffline`] from when the station goes offline.
    pub lasts_ms: u64,
    /// The stack level of the model; the profile that expires stands one above it.
    pub stack_level: u32,
    /// How many phases the limit is for.
    pub phases: u32,
    /// Which profile it is written into.
    pub part: ProfilePart,
    /// The unit that it is written in.
    pub unit: WrittenIn,
}

/// What the site asks of a station (a CALL to the station).
#[derive(Clone, Debug, PartialEq)]
pub enum StationCall {
    /// `SetChargingProfile` with a decaying lease.
    SetLimit(LeasedLimit),
    /// `RemoteStartTransaction` / `RequestStartTransaction`.
    Start {
        /// The EVSE.
        evse: u32,
        /// Who charges.
        token: IdToken,
        /// Our number for the request (2.x `remoteStartId`).
        start_id: i32,
    },
    /// `RemoteStopTransaction` / `RequestStopTransaction`.
    Stop {
        /// Which.
        transaction: TransactionId,
    },
    /// `ClearCache`: the station forgets which tokens were accepted.
    ClearCache,
    /// `GetLocalListVersion`.
    ListVersion,
    /// `SendLocalList`.
    SendList(ListUpdate),
    /// `GetConfiguration` / `GetVariables`.
    GetConfiguration {
        /// Which keys; for 2.x as `Component.Variable`. Empty: all (1.6 only).
        keys: Vec<String>,
    },
    /// `ChangeConfiguration` / `SetVariables`.
    ChangeConfiguration {
        /// Which key; for 2.x as `Component.Variable`.
        key: String,
        /// Its new value.
        value: String,
    },
    /// `TriggerMessage`.
    Trigger {
        /// The message wanted, by its OCPP name.
        message: String,
        /// The EVSE, if one is meant.
        evse: Option<u32>,
    },
    /// `Reset`; hard is `Hard` in 1.6 and `Immediate` in 2.x, soft is `Soft` and `OnIdle`.
    Reset {
        /// Whether running transactions may be cut off.
        hard: bool,
    },
    /// `GetBaseReport` (2.x only): `FullInventory`, `ConfigurationInventory` or `SummaryInventory`.
    GetBaseReport {
        /// Our number for the report.
        request_id: i32,
        /// Which report.
        report: String,
    },
    /// `GetCompositeSchedule`.
    GetCompositeSchedule {
        /// The EVSE.
        evse: u32,
        /// How far ahead, in s.
        duration_s: u32,
        /// The unit wanted.
        unit: LimitUnit,
    },
    /// `DataTransfer` / `CostUpdated`: what a transaction has come to, for the display.
    ShowCost(Box<CostNote>),
    /// Any action with its payload as JSON text, for people and scripts (`siteward ocpp`, `ocpp.call`).
    Raw {
        /// The action's name.
        action: String,
        /// The payload as JSON text, passed on as it is.
        payload: String,
    },
}

/// How a [`StationCall`] went.
#[derive(Clone, Debug, PartialEq)]
pub enum StationReply {
    /// It was accepted, or answered with what was asked. The payload is the answer as JSON text.
    Accepted {
        /// The answer's payload as JSON text.
        payload: String,
    },
    /// It was answered with a status other than accepted.
    Refused {
        /// The status as the station wrote it.
        status: String,
        /// The answer's payload as JSON text.
        payload: String,
    },
    /// It was answered with a CALLERROR.
    Error {
        /// The error code.
        code: String,
        /// The error description.
        description: String,
    },
    /// It was not answered in time.
    Timeout,
    /// It had no answer yet when a cut of current could wait no longer. It may be carried out all the same, even after the cut.
    Overtaken,
    /// The connection closed first, or there was none.
    Disconnected,
}
