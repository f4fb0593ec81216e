//! OCPP 1.6: payloads to the common vocabulary and back.

use std::str::FromStr;

use rust_ocpp::v1_6::messages as wire;
use rust_ocpp::v1_6::types;
use serde::Serialize;
use serde_json::{Number, Value};

use super::cost;
use super::frame::ErrorCode;
use super::lenient::{Fields, Notes, Refusal, connector_status, notify};
use super::lists;
use super::meter::{Origin, readings};
use super::outgoing::{Outgoing, Verdict, at_most, bounded, json, property, to_json};
use super::profile::{Lease, Purpose, limit_text};
use super::tree::Json;
use crate::engine::model::exchange::{
    Admission, AuthorizationStatus, BootInfo, LeasedLimit, StationAnswer, StationCall, StationRequest,
};
use crate::engine::model::ids::{IdToken, TransactionId};
use crate::engine::model::topology::LimitUnit;
use crate::engine::time::Utc;
use crate::engine::units::Energy;

/// The longest idTag (CiString20Type).
const MAX_ID_TAG_CHARS: usize = 20;
/// The longest configuration key (CiString50Type).
const MAX_KEY_CHARS: usize = 50;
/// The longest configuration value (CiString500Type).
const MAX_VALUE_CHARS: usize = 500;

/// Messages that are only taken note of, those of the security extension among them.
const NOTIFICATIONS: &[&str] = &[
    "DiagnosticsStatusNotification",
    "FirmwareStatusNotification",
    "LogStatusNotification",
    "SecurityEventNotification",
    "SignCertificate",
    "SignedFirmwareStatusNotification",
];

/// Actions that a central system sends and never receives.
const OURS: &[&str] = &[
    "CancelReservation",
    "CertificateSigned",
    "ChangeAvailability",
    "ChangeConfiguration",
    "ClearCache",
    "ClearChargingProfile",
    "DeleteCertificate",
    "ExtendedTriggerMessage",
    "GetCompositeSchedule",
    "GetConfiguration",
    "GetDiagnostics",
    "GetInstalledCertificateIds",
    "GetLocalListVersion",
    "GetLog",
    "InstallCertificate",
    "RemoteStartTransaction",
    "RemoteStopTransaction",
    "ReserveNow",
    "Reset",
    "SendLocalList",
    "SetChargingProfile",
    "SignedUpdateFirmware",
    "TriggerMessage",
    "UnlockConnector",
    "UpdateFirmware",
];

/// Reads a CALL of the station.
pub(super) fn request(
    action: &str,
    payload: &Json<'_>,
    now: Utc,
    notes: &mut Notes,
) -> Result<StationRequest, Refusal> {
    let fields = Fields::of(payload)
        .ok_or_else(|| Refusal::new(ErrorCode::FormatViolation, "the payload is not a JSON object"))?;
    Ok(match action {
        "BootNotification" => boot(fields, notes),
        "Heartbeat" => StationRequest::Heartbeat,
        "StatusNotification" => status(fields, payload, notes)?,
        "Authorize" => StationRequest::Authorize { token: IdToken::new(&fields.need_name("idTag")?) },
        "StartTransaction" => StationRequest::StartTransaction {
            evse: fields.need_number("connectorId")?,
            token: IdToken::new(&fields.need_name("idTag")?),
            meter_start: Energy::from_wh(fields.need_int("meterStart")?),
            at: fields.time_or("timestamp", now, notes),
        },
        "StopTransaction" => stop(fields, now, notes)?,
        "MeterValues" => {
            let evse = fields.need_number("connectorId")?;
            // -1 and 0 stand for "none" with some stations (O27).
            let transaction = fields.int("transactionId", notes).filter(|id| *id > 0).map(transaction_id);
            let values = fields.list("meterValue", notes);
            StationRequest::MeterValues { readings: readings(values, &Origin { evse, transaction }, notes) }
        }
        "DataTransfer" => StationRequest::DataTransfer {
            vendor: fields.need_name("vendorId")?,
            message: fields.text("messageId", notes),
        },
        action if NOTIFICATIONS.contains(&action) => notify(action, payload),
        action if OURS.contains(&action) => {
            let text = format!("{action} is sent by a central system, not to one");
            return Err(Refusal::new(ErrorCode::NotSupported, text));
        }
        action => {
            return Err(Refusal::new(ErrorCode::NotImplemented, format!("{action} is no action of OCPP 1.6")));
        }
    })
}

fn boot(fields: Fields<'_>, notes: &mut Notes) -> StationRequest {
    for name in ["chargePointVendor", "chargePointModel"] {
        if fields.get(name).is_none() {
            notes.add(format!("{name} is missing"));
        }
    }
    let serial = fields.text("chargePointSerialNumber", notes).or_else(|| fields.text("chargeBoxSerialNumber", notes));
    StationRequest::Boot {
        info: BootInfo {
            vendor: fields.text("chargePointVendor", notes).unwrap_or_default(),
            model: fields.text("chargePointModel", notes).unwrap_or_default(),
            serial,
            firmware: fields.text("firmwareVersion", notes),
        },
        reason: None,
    }
}

fn status(fields: Fields<'_>, payload: &Json<'_>, notes: &mut Notes) -> Result<StationRequest, Refusal> {
    let evse = fields.need_number("connectorId")?;
    let Some(status) = fields.word("status", notes).and_then(|text| connector_status(&text)) else {
        notes.add("status is none of OCPP 1.6, the message changes nothing".to_owned());
        return Ok(notify("StatusNotification", payload));
    };
    let details: Vec<String> = ["info", "vendorId", "vendorErrorCode"]
        .into_iter()
        .filter_map(|name| fields.text(name, notes).map(|text| format!("{name}: {text}")))
        .collect();
    let error = fields
        .text("errorCode", notes)
        .filter(|code| !code.eq_ignore_ascii_case("NoError"))
        .map(|code| if details.is_empty() { code } else { format!("{code} ({})", details.join(", ")) });
    Ok(StationRequest::Status { evse, connector: 1, status, error, at: fields.time("timestamp", notes) })
}

fn stop(fields: Fields<'_>, now: Utc, notes: &mut Notes) -> Result<StationRequest, Refusal> {
    let transaction = transaction_id(fields.need_int("transactionId")?);
    let values = fields.list("transactionData", notes);
    let origin = Origin { evse: 0, transaction: Some(transaction.clone()) };
    let readings = readings(values, &origin, notes);
    let last_energy = readings.iter().rev().find_map(|reading| reading.energy);
    let meter_stop = match (fields.need_int("meterStop"), last_energy) {
        (Ok(wh), _) => Energy::from_wh(wh),
        (Err(refusal), Some(energy)) => {
            notes.add(format!("{}, the last value of transactionData is used", refusal.text));
            energy
        }
        (Err(refusal), None) => return Err(refusal),
    };
    Ok(StationRequest::StopTransaction {
        transaction,
        token: fields.token("idTag", notes),
        meter_stop,
        at: fields.time_or("timestamp", now, notes),
        reason: fields.text("reason", notes),
        readings,
    })
}

fn transaction_id(number: i64) -> TransactionId {
    TransactionId::new(&number.to_string())
}

// rust_ocpp writes times of OCPP 1.6 with as many decimals as they happen to have; ours always have three.

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BootConf {
    status: types::RegistrationStatus,
    current_time: Utc,
    interval: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HeartbeatConf {
    current_time: Utc,
}

/// The answers that say something of a token.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenConf {
    #[serde(skip_serializing_if = "Option::is_none")]
    id_tag_info: Option<IdTagInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_id: Option<i32>,
}

impl TokenConf {
    fn of(admission: Option<&Admission>, transaction_id: Option<i32>) -> Self {
        Self { id_tag_info: admission.map(IdTagInfo::of), transaction_id }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IdTagInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    expiry_date: Option<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id_tag: Option<String>,
    status: types::AuthorizationStatus,
}

impl IdTagInfo {
    /// A group with a longer name than OCPP 1.6 can write is none to its stations.
    pub(super) fn of(admission: &Admission) -> Self {
        let fits = |group: &&String| group.chars().count() <= MAX_ID_TAG_CHARS;
        Self {
            expiry_date: admission.expires,
            parent_id_tag: admission.group.as_ref().filter(fits).cloned(),
            status: status_of(admission.status),
        }
    }
}

/// Writes the payload of the answer to `action`. `Err` says that this is no answer to that action.
pub(super) fn answer(action: &str, answer: &StationAnswer) -> Result<String, String> {
    match (action, answer) {
        ("BootNotification", StationAnswer::Boot { accepted, now, interval_s }) => {
            let status =
                if *accepted { types::RegistrationStatus::Accepted } else { types::RegistrationStatus::Pending };
            to_json(&BootConf { status, current_time: *now, interval: (*interval_s).min(i32::MAX.unsigned_abs()) })
        }
        ("Heartbeat", StationAnswer::Heartbeat { now }) => to_json(&HeartbeatConf { current_time: *now }),
        ("Authorize", StationAnswer::Authorize { admission }) => to_json(&TokenConf::of(Some(admission), None)),
        ("StartTransaction", StationAnswer::StartTransaction { transaction, admission }) => {
            to_json(&TokenConf::of(Some(admission), Some(*transaction)))
        }
        ("StopTransaction", StationAnswer::Transaction { admission, .. }) => {
            to_json(&TokenConf::of(admission.as_ref(), None))
        }
        ("DataTransfer", StationAnswer::UnknownVendor | StationAnswer::Taken) => {
            let status = match answer {
                StationAnswer::Taken => types::DataTransferStatus::Accepted,
                _ => types::DataTransferStatus::UnknownVendorId,
            };
            to_json(&wire::data_transfer::DataTransferResponse { status, data: None })
        }
        // There is no certificate authority behind this side.
        ("SignCertificate", StationAnswer::Taken) => Ok(r#"{"status":"Rejected"}"#.to_owned()),
        ("BootNotification" | "Heartbeat" | "Authorize" | "StartTransaction", StationAnswer::Taken) => {
            Err(format!("{action} needs an answer of its own"))
        }
        (_, StationAnswer::Taken) => Ok("{}".to_owned()),
        (_, other) => Err(format!("{other:?} is no answer to {action}")),
    }
}

const fn status_of(status: AuthorizationStatus) -> types::AuthorizationStatus {
    match status {
        AuthorizationStatus::Accepted => types::AuthorizationStatus::Accepted,
        AuthorizationStatus::Blocked => types::AuthorizationStatus::Blocked,
        AuthorizationStatus::Expired => types::AuthorizationStatus::Expired,
        AuthorizationStatus::Invalid => types::AuthorizationStatus::Invalid,
        AuthorizationStatus::ConcurrentTx => types::AuthorizationStatus::ConcurrentTx,
    }
}

/// Writes a CALL to the station. `Err` says why the schema has no such CALL.
pub(super) fn call(call: StationCall) -> Result<Outgoing, Refusal> {
    let (action, payload, verdict) = match call {
        StationCall::SetLimit(leased) => ("SetChargingProfile", set_limit(&leased)?, Verdict::Status),
        StationCall::Start { evse, token, start_id: _ } => {
            let id_tag = bounded("idTag", token.as_str(), MAX_ID_TAG_CHARS)?;
            let request = wire::remote_start_transaction::RemoteStartTransactionRequest {
                connector_id: (evse > 0).then_some(evse),
                id_tag,
                charging_profile: None,
            };
            ("RemoteStartTransaction", json(&request)?, Verdict::Status)
        }
        StationCall::Stop { transaction } => {
            let transaction_id = number_of(&transaction)?;
            let request = wire::remote_stop_transaction::RemoteStopTransactionRequest { transaction_id };
            ("RemoteStopTransaction", json(&request)?, Verdict::Status)
        }
        StationCall::ClearCache => ("ClearCache", "{}".to_owned(), Verdict::Status),
        StationCall::ListVersion => ("GetLocalListVersion", "{}".to_owned(), Verdict::Answered),
        StationCall::SendList(update) => ("SendLocalList", lists::send_16(&update)?, Verdict::Status),
        StationCall::GetConfiguration { keys } => {
            let keys: Result<Vec<_>, _> = keys.iter().map(|key| bounded("key", key, MAX_KEY_CHARS)).collect();
            let key = Some(keys?).filter(|keys| !keys.is_empty());
            ("GetConfiguration", json(&wire::get_configuration::GetConfigurationRequest { key })?, Verdict::Answered)
        }
        StationCall::ChangeConfiguration { key, value } => {
            let request = wire::change_configuration::ChangeConfigurationRequest {
                key: bounded("key", &key, MAX_KEY_CHARS)?,
                value: at_most("value", &value, MAX_VALUE_CHARS)?,
            };
            ("ChangeConfiguration", json(&request)?, Verdict::Status)
        }
        StationCall::Trigger { message, evse } => {
            let requested_message = serde_json::from_value(Value::from(message.as_str()))
                .map_err(|_| property(format!("{message} cannot be triggered in OCPP 1.6")))?;
            let request = wire::trigger_message::TriggerMessageRequest {
                requested_message,
                connector_id: evse.filter(|evse| *evse > 0),
            };
            ("TriggerMessage", json(&request)?, Verdict::Status)
        }
        StationCall::Reset { hard } => {
            ("Reset", format!(r#"{{"type":"{}"}}"#, if hard { "Hard" } else { "Soft" }), Verdict::Status)
        }
        StationCall::GetBaseReport { .. } => {
            return Err(Refusal::new(ErrorCode::NotSupported, "OCPP 1.6 has no GetBaseReport; use GetConfiguration"));
        }
        StationCall::GetCompositeSchedule { evse, duration_s, unit } => {
            let request = wire::get_composite_schedule::GetCompositeScheduleRequest {
                connector_id: i32::try_from(evse).unwrap_or(i32::MAX),
                duration: i32::try_from(duration_s).unwrap_or(i32::MAX),
                charging_rate_unit: Some(rate_unit(unit == LimitUnit::Watts)),
            };
            ("GetCompositeSchedule", json(&request)?, Verdict::Status)
        }
        StationCall::ShowCost(note) => return cost::transfer(&note),
        StationCall::Raw { action, payload } => return Outgoing::raw(&action, payload),
    };
    Ok(Outgoing { action: action.to_owned(), payload, verdict })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SetChargingProfileReq {
    connector_id: i32,
    cs_charging_profiles: ChargingProfile,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChargingProfile {
    charging_profile_id: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_id: Option<i32>,
    stack_level: i32,
    charging_profile_purpose: types::ChargingProfilePurposeType,
    charging_profile_kind: types::ChargingProfileKindType,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_to: Option<Utc>,
    charging_schedule: ChargingSchedule,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChargingSchedule {
    start_schedule: Utc,
    charging_rate_unit: types::ChargingRateUnitType,
    charging_schedule_period: Vec<SchedulePeriod>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SchedulePeriod {
    start_period: i32,
    limit: Number,
    number_phases: i32,
}

fn set_limit(leased: &LeasedLimit) -> Result<String, Refusal> {
    let lease = Lease::new(leased);
    let mut periods = Vec::with_capacity(lease.periods.len());
    for period in &lease.periods {
        let limit = Number::from_str(&limit_text(period.tenths))
            .map_err(|error| Refusal::new(ErrorCode::InternalError, error.to_string()))?;
        periods.push(SchedulePeriod { start_period: period.start_s, limit, number_phases: lease.phases });
    }
    let (purpose, transaction_id) = match &lease.purpose {
        Purpose::StationMax => (types::ChargingProfilePurposeType::ChargePointMaxProfile, None),
        Purpose::TxDefault => (types::ChargingProfilePurposeType::TxDefaultProfile, None),
        Purpose::Tx(transaction) => (types::ChargingProfilePurposeType::TxProfile, Some(number_of(transaction)?)),
    };
    json(&SetChargingProfileReq {
        connector_id: lease.evse,
        cs_charging_profiles: ChargingProfile {
            charging_profile_id: lease.profile_id,
            transaction_id,
            stack_level: lease.stack_level,
            charging_profile_purpose: purpose,
            charging_profile_kind: types::ChargingProfileKindType::Absolute,
            valid_to: lease.valid_to,
            charging_schedule: ChargingSchedule {
                start_schedule: lease.start,
                charging_rate_unit: rate_unit(lease.watts),
                charging_schedule_period: periods,
            },
        },
    })
}

fn rate_unit(watts: bool) -> types::ChargingRateUnitType {
    if watts { types::ChargingRateUnitType::W } else { types::ChargingRateUnitType::A }
}

fn number_of(transaction: &TransactionId) -> Result<i32, Refusal> {
    transaction
        .as_str()
        .parse()
        .map_err(|_| property(format!("{transaction} is no transaction of OCPP 1.6: their ids are whole numbers")))
}

#[cfg(test)]
#[path = "v16_tests.rs"]
mod tests;
