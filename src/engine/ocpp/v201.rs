//! OCPP 2.0.1: payloads to the common vocabulary and back.

use chrono::DateTime;
use rust_ocpp::v2_0_1::datatypes as data;
use rust_ocpp::v2_0_1::enumerations as kind;
use rust_ocpp::v2_0_1::messages as wire;
use serde::Serialize;
use serde_json::Value;

use super::frame::ErrorCode;
use super::lenient::{Fields, Notes, Refusal, connector_status, notify};
use super::meter::{Origin, readings};
use super::outgoing::{Outgoing, Verdict, at_most, bounded, json, property, to_json};
use super::profile::{Lease, LeasePeriod, Purpose, limit_text};
use crate::engine::model::exchange::{
    AuthorizationStatus, BootInfo, ChargingState, LeasedLimit, StationAnswer, StationCall, StationRequest,
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
pub(super) fn request(action: &str, payload: &Value, now: Utc, notes: &mut Notes) -> Result<StationRequest, Refusal> {
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

fn status(fields: Fields<'_>, payload: &Value, notes: &mut Notes) -> Result<StationRequest, Refusal> {
    let evse = fields.need_number("evseId")?;
    let connector = fields.need_number("connectorId")?;
    let Some(status) = fields.text("connectorStatus", notes).and_then(|text| connector_status(&text)) else {
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
        charging_state: info.text("chargingState", notes).and_then(|text| {
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
        ("Authorize", StationAnswer::Authorize { status }) => {
            to_json(&wire::authorize::AuthorizeResponse { id_token_info: id_token_info(*status), ..Default::default() })
        }
        ("TransactionEvent", StationAnswer::Transaction { status }) => {
            to_json(&wire::transaction_event::TransactionEventResponse {
                id_token_info: status.map(id_token_info),
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

fn id_token_info(status: AuthorizationStatus) -> data::id_token_info_type::IdTokenInfoType {
    use kind::authorization_status_enum_type::AuthorizationStatusEnumType as Wire;
    let status = match status {
        AuthorizationStatus::Accepted => Wire::Accepted,
        AuthorizationStatus::Blocked => Wire::Blocked,
        AuthorizationStatus::Expired => Wire::Expired,
        AuthorizationStatus::Invalid => Wire::Invalid,
        AuthorizationStatus::ConcurrentTx => Wire::ConcurrentTx,
    };
    data::id_token_info_type::IdTokenInfoType { status, ..Default::default() }
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
        StationCall::Raw { action, payload } => return Outgoing::raw(&action, payload),
    };
    Ok(Outgoing { action: action.to_owned(), payload, verdict })
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
mod tests {
    use super::*;
    use crate::engine::model::exchange::ConnectorStatus;
    use crate::engine::model::exchange::{ProfilePart, WrittenIn};
    use crate::engine::model::reading::StationReading;
    use crate::engine::units::{Current, Energy, Phase};

    fn now() -> Utc {
        Utc::from_unix_ms(1_772_366_400_000)
    }

    fn read(action: &str, payload: &str) -> (Result<StationRequest, Refusal>, Option<String>) {
        let value: Value = serde_json::from_str(payload).unwrap();
        let mut notes = Notes::default();
        let request = request(action, &value, now(), &mut notes);
        (request, notes.summary())
    }

    fn clean(action: &str, payload: &str) -> StationRequest {
        let (request, notes) = read(action, payload);
        assert_eq!(notes, None, "{action}");
        request.unwrap()
    }

    #[test]
    fn the_messages_of_a_station_are_understood() {
        // Field names of OCPP 2.0.1 part 2, §1 Messages.
        assert_eq!(
            clean(
                "BootNotification",
                r#"{"reason":"PowerUp","chargingStation":{"model":"One","vendorName":"Acme","serialNumber":"A1","firmwareVersion":"1.2"}}"#
            ),
            StationRequest::Boot {
                info: BootInfo {
                    vendor: "Acme".into(),
                    model: "One".into(),
                    serial: Some("A1".into()),
                    firmware: Some("1.2".into()),
                },
                reason: Some("PowerUp".into()),
            }
        );
        assert_eq!(clean("Heartbeat", "{}"), StationRequest::Heartbeat);
        assert_eq!(
            clean(
                "StatusNotification",
                r#"{"timestamp":"2026-03-01T12:00:00.000Z","connectorStatus":"Occupied","evseId":1,"connectorId":2}"#
            ),
            StationRequest::Status {
                evse: 1,
                connector: 2,
                status: ConnectorStatus::Occupied,
                error: None,
                at: Some(now()),
            }
        );
        assert_eq!(
            clean("Authorize", r#"{"idToken":{"idToken":"04A2B3","type":"ISO14443"}}"#),
            StationRequest::Authorize { token: IdToken::new("04A2B3") }
        );
        assert_eq!(
            clean("DataTransfer", r#"{"vendorId":"com.acme","data":{"any":["thing"]}}"#),
            StationRequest::DataTransfer { vendor: "com.acme".into(), message: None }
        );
        assert_eq!(
            clean(
                "MeterValues",
                r#"{"evseId":1,"meterValue":[{"timestamp":"2026-03-01T12:00:00Z","sampledValue":[
                    {"value":16.0,"measurand":"Current.Import","phase":"L2","unitOfMeasure":{"unit":"A"}},
                    {"value":7,"measurand":"Energy.Active.Import.Register","unitOfMeasure":{"unit":"kWh","multiplier":0},
                     "signedMeterValue":{"signedMeterData":"AA","signingMethod":"","encodingMethod":"","publicKey":""}}]}]}"#
            ),
            StationRequest::MeterValues {
                readings: vec![StationReading {
                    evse: 1,
                    at: Some(now()),
                    current: crate::engine::units::PerPhase::from_fn(|phase| {
                        (phase == Phase::L2).then_some(Current::from_a(16))
                    }),
                    energy: Some(Energy::from_wh(7_000)),
                    ..StationReading::default()
                }]
            }
        );
    }

    #[test]
    fn a_transaction_event_is_understood() {
        let request = clean(
            "TransactionEvent",
            r#"{"eventType":"Ended","timestamp":"2026-03-01T12:00:00Z","triggerReason":"EVDeparted","seqNo":12,"offline":true,
                "transactionInfo":{"transactionId":"a1b2","chargingState":"SuspendedEV","stoppedReason":"EVDisconnected"},
                "evse":{"id":1,"connectorId":1},"idToken":{"idToken":"04A2B3","type":"ISO14443"},
                "meterValue":[{"timestamp":"2026-03-01T12:00:00Z","sampledValue":[{"value":1500.4,"context":"Transaction.End"}]}]}"#,
        );
        let reading = StationReading {
            evse: 1,
            at: Some(now()),
            transaction: Some(TransactionId::new("a1b2")),
            energy: Some(Energy::from_wh(1_500)),
            ..StationReading::default()
        };
        let expected = TransactionEvent {
            phase: TransactionPhase::Ended,
            transaction: TransactionId::new("a1b2"),
            seq_no: 12,
            at: now(),
            trigger: "EVDeparted".into(),
            offline: true,
            evse: Some(1),
            connector: Some(1),
            token: Some(IdToken::new("04A2B3")),
            charging_state: Some(ChargingState::SuspendedEv),
            stopped_reason: Some("EVDisconnected".into()),
            readings: vec![reading],
        };
        assert_eq!(request, StationRequest::TransactionEvent(Box::new(expected)));
    }

    #[test]
    fn no_transaction_event_is_lost_to_a_bad_field() {
        let (request, notes) = read(
            "TransactionEvent",
            r#"{"eventType":"updated","timestamp":"2026-03-01","triggerReason":{},"seqNo":"x","offline":"TRUE","evse":7,
                "transactionInfo":{"transactionId":17,"chargingState":"Dreaming"},"idToken":{"idToken":{},"type":"X"},
                "numberOfPhasesUsed":"three","meterValue":[[],{"timestamp":"2026-03-01T12:00:00Z","sampledValue":[{}]}]}"#,
        );
        let StationRequest::TransactionEvent(event) = request.unwrap() else { panic!("not a TransactionEvent") };
        assert_eq!((event.phase, event.transaction.as_str(), event.seq_no), (TransactionPhase::Updated, "17", 0));
        assert_eq!((event.at, event.offline, event.evse), (now(), true, None));
        assert_eq!((event.token, event.charging_state, event.readings.len()), (None, None, 0));
        let notes = notes.unwrap();
        for part in ["timestamp", "seqNo", "evse", "triggerReason", "idToken", "Dreaming", "meter value", "no value"] {
            assert!(notes.contains(part), "{part} is not in {notes}");
        }
        let (refused, _) = read("TransactionEvent", r#"{"eventType":"Begun","transactionInfo":{"transactionId":"1"}}"#);
        assert_eq!(refused.unwrap_err().code, ErrorCode::PropertyConstraintViolation);
        let (refused, _) = read("TransactionEvent", r#"{"eventType":"Started","transactionInfo":{}}"#);
        assert_eq!(refused.unwrap_err().text, "transactionId is required");
    }

    #[test]
    fn what_a_car_needs_is_read_and_answered() {
        // OCPP 2.0.1 K15: the station forwards what the car told it by ISO 15118.
        let request = clean(
            "NotifyEVChargingNeeds",
            r#"{"evseId":1,"maxScheduleTuples":3,"chargingNeeds":{"requestedEnergyTransfer":"AC_single_phase",
                "departureTime":"2026-03-02T06:00:00Z","acChargingParameters":{"energyAmount":12500,"evMinCurrent":8,
                "evMaxCurrent":32,"evMaxVoltage":230}}}"#,
        );
        let needs = CarNeeds {
            energy: Some(Energy::from_wh(12_500)),
            departure: Utc::parse("2026-03-02T06:00:00Z"),
            min: Some(Current::from_a(8)),
            phases: Some(1),
        };
        assert_eq!(request, StationRequest::ChargingNeeds { evse: 1, needs });
        let request = clean(
            "NotifyEVChargingNeeds",
            r#"{"evseId":2,"chargingNeeds":{"requestedEnergyTransfer":"DC","dcChargingParameters":{"evMaxCurrent":200,
                "evMaxVoltage":800,"energyAmount":40000}}}"#,
        );
        let needs = CarNeeds { energy: Some(Energy::from_wh(40_000)), ..CarNeeds::default() };
        assert_eq!(request, StationRequest::ChargingNeeds { evse: 2, needs });
        for (used, expected) in [(true, r#"{"status":"Processing"}"#), (false, r#"{"status":"Rejected"}"#)] {
            assert_eq!(answer("NotifyEVChargingNeeds", &StationAnswer::ChargingNeeds { used }).unwrap(), expected);
        }
        let (refused, _) = read("NotifyEVChargingNeeds", r#"{"evseId":1}"#);
        assert_eq!(refused.unwrap_err().text, "chargingNeeds is required");
    }

    #[test]
    fn a_driver_without_token_has_none() {
        // OCPP 2.0.1 IdTokenEnumType NoAuthorization: the idToken is empty.
        let StationRequest::TransactionEvent(event) = clean(
            "TransactionEvent",
            r#"{"eventType":"Started","timestamp":"2026-03-01T12:00:00Z","triggerReason":"CablePluggedIn","seqNo":0,
                "transactionInfo":{"transactionId":"1"},"idToken":{"idToken":"","type":"NoAuthorization"}}"#,
        ) else {
            panic!("not a TransactionEvent");
        };
        assert_eq!(event.token, None);
    }

    #[test]
    fn every_notification_is_taken_note_of_and_answered() {
        for action in NOTIFICATIONS {
            assert!(matches!(clean(action, "{}"), StationRequest::Notify { .. }), "{action}");
            let expected = match *action {
                "SignCertificate" => r#"{"status":"Rejected"}"#,
                "NotifyEVChargingSchedule" => r#"{"status":"Accepted"}"#,
                "GetCertificateStatus" => r#"{"status":"Failed"}"#,
                "Get15118EVCertificate" => r#"{"status":"Failed","exiResponse":""}"#,
                _ => "{}",
            };
            assert_eq!(answer(action, &StationAnswer::Taken).unwrap(), expected, "{action}");
        }
    }

    #[test]
    fn answers_are_what_the_schema_wants() {
        let cases = [
            (
                "BootNotification",
                StationAnswer::Boot { accepted: true, now: now(), interval_s: 86_400 },
                r#"{"currentTime":"2026-03-01T12:00:00.000Z","interval":86400,"status":"Accepted"}"#,
            ),
            ("Heartbeat", StationAnswer::Heartbeat { now: now() }, r#"{"currentTime":"2026-03-01T12:00:00.000Z"}"#),
            (
                "Authorize",
                StationAnswer::Authorize { status: AuthorizationStatus::Blocked },
                r#"{"idTokenInfo":{"status":"Blocked"}}"#,
            ),
            (
                "TransactionEvent",
                StationAnswer::Transaction { status: Some(AuthorizationStatus::Accepted) },
                r#"{"idTokenInfo":{"status":"Accepted"}}"#,
            ),
            ("TransactionEvent", StationAnswer::Transaction { status: None }, "{}"),
            ("StatusNotification", StationAnswer::Taken, "{}"),
            ("MeterValues", StationAnswer::Taken, "{}"),
            ("DataTransfer", StationAnswer::UnknownVendor, r#"{"status":"UnknownVendorId"}"#),
        ];
        for (action, given, expected) in cases {
            assert_eq!(answer(action, &given).unwrap(), expected);
        }
        assert!(answer("BootNotification", &StationAnswer::Taken).is_err());
    }

    #[test]
    fn calls_are_what_the_schema_wants() {
        let limit = LeasedLimit {
            evse: 1,
            limit: Current::from_ma(16_190),
            fallback: Current::from_a(6),
            now: now(),
            lasts_ms: 90_500,
            stack_level: 0,
            phases: 3,
            part: ProfilePart::Decaying,
            unit: WrittenIn::Amperes,
        };
        let text = |text: &str| text.to_owned();
        let cases = [
            (
                StationCall::SetLimit(limit),
                "SetChargingProfile",
                concat!(
                    r#"{"evseId":1,"chargingProfile":{"id":1001,"stackLevel":0,"chargingProfilePurpose":"TxDefaultProfile","#,
                    r#""chargingProfileKind":"Absolute","chargingSchedule":[{"id":1001,"#,
                    r#""startSchedule":"2026-03-01T04:00:00.000Z","chargingRateUnit":"A","#,
                    r#""chargingSchedulePeriod":[{"startPeriod":0,"limit":16.1,"numberPhases":3},"#,
                    r#"{"startPeriod":28890,"limit":6.0,"numberPhases":3}]}]}}"#
                ),
            ),
            (
                StationCall::Start { evse: 1, token: IdToken::new("04A2B3"), start_id: 9 },
                "RequestStartTransaction",
                r#"{"evseId":1,"remoteStartId":9,"idToken":{"idToken":"04A2B3","type":"Central"}}"#,
            ),
            (
                StationCall::Stop { transaction: TransactionId::new("a1b2") },
                "RequestStopTransaction",
                r#"{"transactionId":"a1b2"}"#,
            ),
            (
                StationCall::GetConfiguration { keys: vec![text("OCPPCommCtrlr.HeartbeatInterval")] },
                "GetVariables",
                r#"{"getVariableData":[{"component":{"name":"OCPPCommCtrlr"},"variable":{"name":"HeartbeatInterval"}}]}"#,
            ),
            (
                StationCall::ChangeConfiguration { key: text("OCPPCommCtrlr.HeartbeatInterval"), value: text("60") },
                "SetVariables",
                concat!(
                    r#"{"setVariableData":[{"attributeValue":"60","component":{"name":"OCPPCommCtrlr"},"#,
                    r#""variable":{"name":"HeartbeatInterval"}}]}"#
                ),
            ),
            (
                StationCall::GetBaseReport { request_id: 4, report: text("FullInventory") },
                "GetBaseReport",
                r#"{"requestId":4,"reportBase":"FullInventory"}"#,
            ),
            (
                StationCall::Trigger { message: text("StatusNotification"), evse: Some(2) },
                "TriggerMessage",
                r#"{"requestedMessage":"StatusNotification","evse":{"id":2,"connectorId":1}}"#,
            ),
            (StationCall::Reset { hard: true }, "Reset", r#"{"type":"Immediate"}"#),
            (
                StationCall::GetCompositeSchedule { evse: 1, duration_s: 300, unit: LimitUnit::Amperes },
                "GetCompositeSchedule",
                r#"{"duration":300,"chargingRateUnit":"A","evseId":1}"#,
            ),
        ];
        for (given, action, payload) in cases {
            let outgoing = call(given).unwrap();
            assert_eq!((outgoing.action.as_str(), outgoing.payload.as_str()), (action, payload));
        }
    }

    #[test]
    fn keys_name_a_component_and_a_variable() {
        for keys in [vec![], vec!["HeartbeatInterval".to_owned()], vec![".x".to_owned()]] {
            let refusal = call(StationCall::GetConfiguration { keys }).unwrap_err();
            assert_eq!(refusal.code, ErrorCode::PropertyConstraintViolation);
        }
    }

    #[test]
    fn a_variable_is_set_when_its_attribute_says_so() {
        use crate::engine::model::exchange::StationReply;
        let judged = |status: &str| {
            Verdict::Attribute.judge(&format!(
                r#"{{"setVariableResult":[{{"attributeStatus":"{status}","component":{{"name":"C"}},"variable":{{"name":"V"}}}}]}}"#
            ))
        };
        assert!(matches!(judged("RebootRequired"), StationReply::Accepted { .. }));
        assert!(
            matches!(judged("UnknownVariable"), StationReply::Refused { status, .. } if status == "UnknownVariable")
        );
    }
}
