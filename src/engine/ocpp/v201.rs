//! OCPP 2.0.1: payloads to the common vocabulary and back.

use chrono::DateTime;
use rust_ocpp::v2_0_1::datatypes as data;
use rust_ocpp::v2_0_1::enumerations as kind;
use rust_ocpp::v2_0_1::messages as wire;
use serde::Serialize;
use serde_json::Value;

use super::frame::ErrorCode;
use super::lenient::{Fields, Notes, Refusal, connector_status, notify};
use super::lists;
use super::meter::{Origin, readings};
use super::outgoing::{Outgoing, Verdict, at_most, bounded, json, property, to_json};
use super::profile::{Lease, LeasePeriod, Purpose, limit_text};
use super::tree::Json;
use crate::engine::model::display::CostNote;
use crate::engine::model::exchange::{
    Admission, AuthorizationStatus, BootInfo, ChargingState, LeasedLimit, StationAnswer, StationCall, StationRequest,
    TransactionEvent, TransactionPhase,
};
use crate::engine::model::ids::{IdToken, TransactionId};
use crate::engine::model::topology::LimitUnit;
use crate::engine::model::wish::CarNeeds;
use crate::engine::time::Utc;
use crate::engine::units::{Current, Energy};

/// The longest idToken and transactionId (`identifierString[36]`).
const MAX_IDENTIFIER_CHARS: usize = 36;
/// The longest name of a component or variable (`identifierString[50]`).
const MAX_NAME_CHARS: usize = 50;
/// The longest attributeValue (`string[1000]`).
const MAX_VALUE_CHARS: usize = 1_000;
/// A least current that is believed, in A.
const MAX_CAR_MIN_A: i32 = 1_000;

/// Messages that are only taken note of.
const NOTIFICATIONS: &[&str] = &[
    "ClearedChargingLimit",
    "FirmwareStatusNotification",
    "Get15118EVCertificate",
    "GetCertificateStatus",
    "LogStatusNotification",
    "NotifyChargingLimit",
    "NotifyCustomerInformation",
    "NotifyDisplayMessages",
    "NotifyEVChargingSchedule",
    "NotifyEvent",
    "NotifyMonitoringReport",
    "NotifyReport",
    "PublishFirmwareStatusNotification",
    "ReportChargingProfiles",
    "ReservationStatusUpdate",
    "SecurityEventNotification",
    "SignCertificate",
];

/// Actions that a CSMS sends and never receives.
const OURS: &[&str] = &[
    "CancelReservation",
    "CertificateSigned",
    "ChangeAvailability",
    "ClearCache",
    "ClearChargingProfile",
    "ClearDisplayMessage",
    "ClearVariableMonitoring",
    "CostUpdated",
    "CustomerInformation",
    "DeleteCertificate",
    "GetBaseReport",
    "GetChargingProfiles",
    "GetCompositeSchedule",
    "GetDisplayMessages",
    "GetInstalledCertificateIds",
    "GetLocalListVersion",
    "GetLog",
    "GetMonitoringReport",
    "GetReport",
    "GetTransactionStatus",
    "GetVariables",
    "InstallCertificate",
    "PublishFirmware",
    "RequestStartTransaction",
    "RequestStopTransaction",
    "ReserveNow",
    "Reset",
    "SendLocalList",
    "SetChargingProfile",
    "SetDisplayMessage",
    "SetMonitoringBase",
    "SetMonitoringLevel",
    "SetNetworkProfile",
    "SetVariableMonitoring",
    "SetVariables",
    "TriggerMessage",
    "UnlockConnector",
    "UnpublishFirmware",
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
        "Authorize" => StationRequest::Authorize { token: IdToken::new(&id_token(fields.need_object("idToken")?)?) },
        "TransactionEvent" => transaction_event(fields, now, notes)?,
        "MeterValues" => {
            let origin = Origin { evse: fields.need_number("evseId")?, transaction: None };
            StationRequest::MeterValues { readings: readings(fields.list("meterValue", notes), &origin, notes) }
        }
        "NotifyEVChargingNeeds" => charging_needs(fields, notes)?,
        "DataTransfer" => StationRequest::DataTransfer {
            vendor: fields.need_name("vendorId")?,
            message: fields.text("messageId", notes),
        },
        action if NOTIFICATIONS.contains(&action) => notify(action, payload),
        action if OURS.contains(&action) => {
            let text = format!("{action} is sent by a CSMS, not to one");
            return Err(Refusal::new(ErrorCode::NotSupported, text));
        }
        action => {
            return Err(Refusal::new(ErrorCode::NotImplemented, format!("{action} is no action of OCPP 2.0.1")));
        }
    })
}

fn boot(fields: Fields<'_>, notes: &mut Notes) -> StationRequest {
    let station = fields.object("chargingStation", notes);
    let mut text = |name: &str| station.and_then(|station| station.text(name, notes));
    let info = BootInfo {
        vendor: text("vendorName").unwrap_or_default(),
        model: text("model").unwrap_or_default(),
        serial: text("serialNumber"),
        firmware: text("firmwareVersion"),
    };
    if info.vendor.is_empty() || info.model.is_empty() {
        notes.add("chargingStation has no vendorName or no model".to_owned());
    }
    StationRequest::Boot { info, reason: fields.text("reason", notes) }
}

fn status(fields: Fields<'_>, payload: &Json<'_>, notes: &mut Notes) -> Result<StationRequest, Refusal> {
    let evse = fields.need_number("evseId")?;
    let connector = fields.need_number("connectorId")?;
    let Some(status) = fields.word("connectorStatus", notes).and_then(|text| connector_status(&text)) else {
        notes.add("connectorStatus is none of OCPP 2.0.1, the message changes nothing".to_owned());
        return Ok(notify("StatusNotification", payload));
    };
    Ok(StationRequest::Status { evse, connector, status, error: None, at: fields.time("timestamp", notes) })
}

fn id_token(token: Fields<'_>) -> Result<String, Refusal> {
    token.need_name("idToken")
}

/// What a car told its station (K15). Its state of charge and its own limits are of no use without its battery's size.
fn charging_needs(fields: Fields<'_>, notes: &mut Notes) -> Result<StationRequest, Refusal> {
    let evse = fields.need_number("evseId")?;
    let needs = fields.need_object("chargingNeeds")?;
    let ac = needs.object("acChargingParameters", notes);
    let dc = needs.object("dcChargingParameters", notes);
    let whole = |part: Option<Fields<'_>>, name: &str, notes: &mut Notes| {
        part.and_then(|part| part.int(name, notes)).filter(|value| *value > 0)
    };
    let energy = whole(ac, "energyAmount", notes).or_else(|| whole(dc, "energyAmount", notes));
    let min = whole(ac, "evMinCurrent", notes).and_then(|amperes| i32::try_from(amperes).ok());
    let phases = match needs.text("requestedEnergyTransfer", notes).unwrap_or_default().to_ascii_lowercase().as_str() {
        "ac_single_phase" => Some(1),
        "ac_two_phase" => Some(2),
        "ac_three_phase" => Some(3),
        _ => None,
    };
    Ok(StationRequest::ChargingNeeds {
        evse,
        needs: CarNeeds {
            energy: energy.map(Energy::from_wh),
            departure: needs.time("departureTime", notes),
            min: min.filter(|amperes| *amperes <= MAX_CAR_MIN_A).map(Current::from_a),
            phases,
        },
    })
}

fn transaction_event(fields: Fields<'_>, now: Utc, notes: &mut Notes) -> Result<StationRequest, Refusal> {
    let phase = phase(fields)?;
    let info = fields.need_object("transactionInfo")?;
    let transaction = TransactionId::new(&info.need_name("transactionId")?);
    if transaction.as_str().is_empty() {
        return Err(property("transactionId must not be empty".to_owned()));
    }
    let place = fields.object("evse", notes);
    let evse = place.and_then(|place| place.number("id", notes));
    let connector = place.and_then(|place| place.number("connectorId", notes));
    if fields.get("seqNo").is_none() {
        notes.add("seqNo is missing, taken as 0".to_owned());
    }
    let origin = Origin { evse: evse.unwrap_or(0), transaction: Some(transaction.clone()) };
    Ok(StationRequest::TransactionEvent(Box::new(TransactionEvent {
        phase,
        transaction,
        seq_no: fields.int("seqNo", notes).unwrap_or(0),
        at: fields.time_or("timestamp", now, notes),
        trigger: fields.text("triggerReason", notes).unwrap_or_default(),
        offline: fields.flag("offline"),
        evse,
        connector,
        token: fields.object("idToken", notes).and_then(|token| token.token("idToken", notes)),
        charging_state: info.word("chargingState", notes).and_then(|text| {
            let state = charging_state(&text);
            if state.is_none() {
                notes.add(format!("chargingState {text:?} is none of OCPP 2.0.1"));
            }
            state
        }),
        stopped_reason: info.text("stoppedReason", notes),
        readings: readings(fields.list("meterValue", notes), &origin, notes),
    })))
}

fn phase(fields: Fields<'_>) -> Result<TransactionPhase, Refusal> {
    let text = fields.need_name("eventType")?;
    Ok(match text.to_ascii_lowercase().as_str() {
        "started" => TransactionPhase::Started,
        "updated" => TransactionPhase::Updated,
        "ended" => TransactionPhase::Ended,
        _ => return Err(property(format!("eventType {text:?} is none of Started, Updated and Ended"))),
    })
}

fn charging_state(text: &str) -> Option<ChargingState> {
    Some(match text.to_ascii_lowercase().as_str() {
        "charging" => ChargingState::Charging,
        "evconnected" => ChargingState::EvConnected,
        "suspendedev" => ChargingState::SuspendedEv,
        "suspendedevse" => ChargingState::SuspendedEvse,
        "idle" => ChargingState::Idle,
        _ => return None,
    })
}

/// `rust_ocpp` has 16 bits for the interval, the schema has more.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BootResponse {
    current_time: Utc,
    interval: u32,
    status: kind::registration_status_enum_type::RegistrationStatusEnumType,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HeartbeatResponse {
    current_time: Utc,
}

/// Writes the payload of the answer to `action`. `Err` says that this is no answer to that action.
pub(super) fn answer(action: &str, answer: &StationAnswer) -> Result<String, String> {
    use kind::registration_status_enum_type::RegistrationStatusEnumType as Registration;
    match (action, answer) {
        ("BootNotification", StationAnswer::Boot { accepted, now, interval_s }) => to_json(&BootResponse {
            current_time: *now,
            interval: (*interval_s).min(i32::MAX.unsigned_abs()),
            status: if *accepted { Registration::Accepted } else { Registration::Pending },
        }),
        ("Heartbeat", StationAnswer::Heartbeat { now }) => to_json(&HeartbeatResponse { current_time: *now }),
        ("Authorize", StationAnswer::Authorize { admission }) => to_json(&wire::authorize::AuthorizeResponse {
            id_token_info: id_token_info(admission),
            ..Default::default()
        }),
        ("TransactionEvent", StationAnswer::Transaction { admission, cost }) => {
            to_json(&wire::transaction_event::TransactionEventResponse {
                total_cost: *cost,
                id_token_info: admission.as_ref().map(id_token_info),
                ..Default::default()
            })
        }
        // No schedule is negotiated with the car (ISO 15118). `Processing`: the station goes on with the profiles that it has and follows
        // each new one; `Rejected`: the needs say nothing that could be used (K15).
        ("NotifyEVChargingNeeds", StationAnswer::ChargingNeeds { used }) => {
            Ok(format!(r#"{{"status":"{}"}}"#, if *used { "Processing" } else { "Rejected" }))
        }
        ("DataTransfer", StationAnswer::UnknownVendor) => Ok(r#"{"status":"UnknownVendorId"}"#.to_owned()),
        ("DataTransfer", StationAnswer::Taken) => Ok(r#"{"status":"Accepted"}"#.to_owned()),
        (_, StationAnswer::Taken) => taken(action),
        (_, other) => Err(format!("{other:?} is no answer to {action}")),
    }
}

/// The answer to a message that is only taken note of: some schemas want a status. There is no certificate authority behind this side, and
/// it negotiates no schedule with a car (ISO 15118).
fn taken(action: &str) -> Result<String, String> {
    let payload = match action {
        "BootNotification" | "Heartbeat" | "Authorize" | "NotifyEVChargingNeeds" => {
            return Err(format!("{action} needs an answer of its own"));
        }
        "SignCertificate" => r#"{"status":"Rejected"}"#,
        "NotifyEVChargingSchedule" => r#"{"status":"Accepted"}"#,
        "GetCertificateStatus" => r#"{"status":"Failed"}"#,
        "Get15118EVCertificate" => r#"{"status":"Failed","exiResponse":""}"#,
        _ => "{}",
    };
    Ok(payload.to_owned())
}

pub(super) fn id_token_info(admission: &Admission) -> data::id_token_info_type::IdTokenInfoType {
    use kind::authorization_status_enum_type::AuthorizationStatusEnumType as Wire;
    let status = match admission.status {
        AuthorizationStatus::Accepted => Wire::Accepted,
        AuthorizationStatus::Blocked => Wire::Blocked,
        AuthorizationStatus::Expired => Wire::Expired,
        AuthorizationStatus::Invalid => Wire::Invalid,
        AuthorizationStatus::ConcurrentTx => Wire::ConcurrentTx,
    };
    data::id_token_info_type::IdTokenInfoType {
        status,
        cache_expiry_date_time: admission.expires.and_then(|expires| date_time(expires).ok()),
        group_id_token: admission.group.as_deref().map(central),
        ..Default::default()
    }
}

/// Writes a CALL to the station. `Err` says why the schema has no such CALL.
pub(super) fn call(call: StationCall) -> Result<Outgoing, Refusal> {
    let (action, payload, verdict) = match call {
        StationCall::SetLimit(leased) => ("SetChargingProfile", set_limit(&leased)?, Verdict::Status),
        StationCall::Start { evse, token, start_id } => {
            ("RequestStartTransaction", start(evse, &token, start_id)?, Verdict::Status)
        }
        StationCall::Stop { transaction } => {
            let transaction_id = bounded("transactionId", transaction.as_str(), MAX_IDENTIFIER_CHARS)?;
            let request = wire::request_stop_transaction::RequestStopTransactionRequest { transaction_id };
            ("RequestStopTransaction", json(&request)?, Verdict::Status)
        }
        StationCall::ClearCache => ("ClearCache", "{}".to_owned(), Verdict::Status),
        StationCall::ListVersion => ("GetLocalListVersion", "{}".to_owned(), Verdict::Answered),
        StationCall::SendList(update) => ("SendLocalList", lists::send_201(&update)?, Verdict::Status),
        StationCall::GetConfiguration { keys } => ("GetVariables", get_variables(&keys)?, Verdict::Answered),
        StationCall::ChangeConfiguration { key, value } => {
            let (component, variable) = component_variable(&key)?;
            let request = wire::set_variables::SetVariablesRequest {
                set_variable_data: vec![data::set_variable_data_type::SetVariableDataType {
                    attribute_type: None,
                    attribute_value: at_most("value", &value, MAX_VALUE_CHARS)?,
                    component,
                    variable,
                }],
            };
            ("SetVariables", json(&request)?, Verdict::Attribute)
        }
        StationCall::Trigger { message, evse } => ("TriggerMessage", trigger(&message, evse)?, Verdict::Status),
        StationCall::Reset { hard } => {
            ("Reset", format!(r#"{{"type":"{}"}}"#, if hard { "Immediate" } else { "OnIdle" }), Verdict::Status)
        }
        StationCall::GetBaseReport { request_id, report } => {
            let report_base = serde_json::from_value(Value::from(report.as_str()))
                .map_err(|_| property(format!("{report} is no report of OCPP 2.0.1")))?;
            let request = wire::get_base_report::GetBaseReportRequest { request_id, report_base };
            ("GetBaseReport", json(&request)?, Verdict::Status)
        }
        StationCall::GetCompositeSchedule { evse, duration_s, unit } => {
            let request = wire::get_composite_schedule::GetCompositeScheduleRequest {
                duration: i32::try_from(duration_s).unwrap_or(i32::MAX),
                charging_rate_unit: Some(rate_unit(unit == LimitUnit::Watts)),
                evse_id: i32::try_from(evse).unwrap_or(i32::MAX),
            };
            ("GetCompositeSchedule", json(&request)?, Verdict::Status)
        }
        StationCall::ShowCost(note) => ("CostUpdated", cost_updated(&note)?, Verdict::Answered),
        StationCall::Raw { action, payload } => return Outgoing::raw(&action, payload),
    };
    Ok(Outgoing { action: action.to_owned(), payload, verdict })
}

/// I02: what the transaction has come to, with taxes.
fn cost_updated(note: &CostNote) -> Result<String, Refusal> {
    json(&wire::cost_updated::CostUpdatedRequest {
        total_cost: note.amount,
        transaction_id: bounded("transactionId", note.transaction.as_str(), MAX_IDENTIFIER_CHARS)?,
    })
}

fn set_limit(leased: &LeasedLimit) -> Result<String, Refusal> {
    let lease = Lease::new(leased);
    let start = date_time(lease.start)?;
    let periods: Result<Vec<_>, Refusal> = lease.periods.iter().map(|period| self::period(period, &lease)).collect();
    let schedule = data::charging_schedule_type::ChargingScheduleType {
        id: lease.profile_id,
        start_schedule: Some(start),
        duration: None,
        charging_rate_unit: rate_unit(lease.watts),
        min_charging_rate: None,
        charging_schedule_period: periods?,
        sales_tariff: None,
    };
    use kind::charging_profile_purpose_enum_type::ChargingProfilePurposeEnumType as PurposeType;
    let (purpose, transaction_id) = match &lease.purpose {
        Purpose::StationMax => (PurposeType::ChargingStationMaxProfile, None),
        Purpose::TxDefault => (PurposeType::TxDefaultProfile, None),
        Purpose::Tx(id) => (PurposeType::TxProfile, Some(bounded("transactionId", id.as_str(), MAX_IDENTIFIER_CHARS)?)),
    };
    json(&wire::set_charging_profile::SetChargingProfileRequest {
        evse_id: lease.evse,
        charging_profile: data::charging_profile_type::ChargingProfileType {
            id: lease.profile_id,
            stack_level: lease.stack_level,
            charging_profile_purpose: purpose,
            charging_profile_kind: kind::charging_profile_kind_enum_type::ChargingProfileKindEnumType::Absolute,
            recurrency_kind: None,
            valid_from: None,
            valid_to: lease.valid_to.map(date_time).transpose()?,
            transaction_id,
            charging_schedule: vec![schedule],
        },
    })
}

fn date_time(at: Utc) -> Result<DateTime<chrono::Utc>, Refusal> {
    DateTime::from_timestamp_millis(at.unix_ms()).ok_or_else(|| property(format!("{at} is outside of the calendar")))
}

fn rate_unit(watts: bool) -> kind::charging_rate_unit_enum_type::ChargingRateUnitEnumType {
    use kind::charging_rate_unit_enum_type::ChargingRateUnitEnumType as Unit;
    if watts { Unit::W } else { Unit::A }
}

fn period(
    period: &LeasePeriod,
    lease: &Lease,
) -> Result<data::charging_schedule_period_type::ChargingSchedulePeriodType, Refusal> {
    let limit = limit_text(period.tenths)
        .parse()
        .map_err(|_| Refusal::new(ErrorCode::InternalError, "the limit is not a decimal number"))?;
    Ok(data::charging_schedule_period_type::ChargingSchedulePeriodType {
        start_period: period.start_s,
        limit,
        number_phases: Some(lease.phases),
        phase_to_use: None,
    })
}

/// A group is no card: it is known to the back-end only.
fn central(group: &str) -> data::id_token_type::IdTokenType {
    data::id_token_type::IdTokenType {
        id_token: group.to_owned(),
        kind: kind::id_token_enum_type::IdTokenEnumType::Central,
        additional_info: None,
    }
}

fn start(evse: u32, token: &IdToken, start_id: i32) -> Result<String, Refusal> {
    json(&wire::request_start_transaction::RequestStartTransactionRequest {
        evse_id: i32::try_from(evse).ok().filter(|evse| *evse > 0),
        remote_start_id: start_id,
        id_token: data::id_token_type::IdTokenType {
            id_token: bounded("idToken", token.as_str(), MAX_IDENTIFIER_CHARS)?,
            // A token that starts from here came from a back-end or a person at a screen, whatever medium it also is on.
            kind: kind::id_token_enum_type::IdTokenEnumType::Central,
            additional_info: None,
        },
        charging_profile: None,
        group_id_token: None,
    })
}

fn get_variables(keys: &[String]) -> Result<String, Refusal> {
    if keys.is_empty() {
        return Err(property("OCPP 2.0.1 wants to know which variables; all of them come by GetBaseReport".to_owned()));
    }
    let mut wanted = Vec::with_capacity(keys.len());
    for key in keys {
        let (component, variable) = component_variable(key)?;
        wanted.push(data::get_variable_data_type::GetVariableDataType { attribute_type: None, component, variable });
    }
    json(&wire::get_variables::GetVariablesRequest { get_variable_data: wanted })
}

/// Splits `Component.Variable`.
fn component_variable(
    key: &str,
) -> Result<(data::component_type::ComponentType, data::variable_type::VariableType), Refusal> {
    let (component, variable) = key.split_once('.').ok_or_else(|| {
        property(format!("{key} is not of the form Component.Variable, as OCPPCommCtrlr.HeartbeatInterval"))
    })?;
    Ok((
        data::component_type::ComponentType {
            name: bounded("component", component, MAX_NAME_CHARS)?,
            ..Default::default()
        },
        data::variable_type::VariableType {
            name: bounded("variable", variable, MAX_NAME_CHARS)?,
            ..Default::default()
        },
    ))
}

fn trigger(message: &str, evse: Option<u32>) -> Result<String, Refusal> {
    let requested_message = serde_json::from_value(Value::from(message))
        .map_err(|_| property(format!("{message} cannot be triggered in OCPP 2.0.1")))?;
    let evse = evse.and_then(|evse| i32::try_from(evse).ok()).filter(|evse| *evse > 0);
    json(&wire::trigger_message::TriggerMessageRequest {
        requested_message,
        evse: evse.map(|id| data::evse_type::EVSEType {
            id,
            // OCPP 2.0.1 F06.FR.12: a status is that of a connector.
            connector_id: (message == "StatusNotification").then_some(1),
        }),
    })
}

#[cfg(test)]
#[path = "v201_tests.rs"]
mod tests;
