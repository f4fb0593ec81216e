//! OCPP 1.6: payloads to the common vocabulary and back.

use std::str::FromStr;

use rust_ocpp::v1_6::messages as wire;
use rust_ocpp::v1_6::types;
use serde::Serialize;
use serde_json::{Number, Value};

use super::frame::ErrorCode;
use super::lenient::{Fields, Notes, Refusal, connector_status, notify};
use super::meter::{Origin, readings};
use super::outgoing::{Outgoing, Verdict, at_most, bounded, json, property, to_json};
use super::profile::{Lease, Purpose, limit_text};
use crate::engine::model::exchange::{
    AuthorizationStatus, BootInfo, LeasedLimit, StationAnswer, StationCall, StationRequest,
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
pub(super) fn request(action: &str, payload: &Value, now: Utc, notes: &mut Notes) -> Result<StationRequest, Refusal> {
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

fn status(fields: Fields<'_>, payload: &Value, notes: &mut Notes) -> Result<StationRequest, Refusal> {
    let evse = fields.need_number("connectorId")?;
    let Some(status) = fields.text("status", notes).and_then(|text| connector_status(&text)) else {
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

/// Writes the payload of the answer to `action`. `Err` says that this is no answer to that action.
pub(super) fn answer(action: &str, answer: &StationAnswer) -> Result<String, String> {
    match (action, answer) {
        ("BootNotification", StationAnswer::Boot { accepted, now, interval_s }) => {
            let status =
                if *accepted { types::RegistrationStatus::Accepted } else { types::RegistrationStatus::Pending };
            to_json(&BootConf { status, current_time: *now, interval: (*interval_s).min(i32::MAX.unsigned_abs()) })
        }
        ("Heartbeat", StationAnswer::Heartbeat { now }) => to_json(&HeartbeatConf { current_time: *now }),
        ("Authorize", StationAnswer::Authorize { status }) => {
            to_json(&wire::authorize::AuthorizeResponse { id_tag_info: id_tag_info(*status) })
        }
        ("StartTransaction", StationAnswer::StartTransaction { transaction, status }) => {
            to_json(&wire::start_transaction::StartTransactionResponse {
                id_tag_info: id_tag_info(*status),
                transaction_id: *transaction,
            })
        }
        ("StopTransaction", StationAnswer::Transaction { status }) => {
            to_json(&wire::stop_transaction::StopTransactionResponse { id_tag_info: status.map(id_tag_info) })
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

fn id_tag_info(status: AuthorizationStatus) -> types::IdTagInfo {
    let status = match status {
        AuthorizationStatus::Accepted => types::AuthorizationStatus::Accepted,
        AuthorizationStatus::Blocked => types::AuthorizationStatus::Blocked,
        AuthorizationStatus::Expired => types::AuthorizationStatus::Expired,
        AuthorizationStatus::Invalid => types::AuthorizationStatus::Invalid,
        AuthorizationStatus::ConcurrentTx => types::AuthorizationStatus::ConcurrentTx,
    };
    types::IdTagInfo { expiry_date: None, parent_id_tag: None, status }
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
mod tests {
    use super::*;
    use crate::engine::model::exchange::ConnectorStatus;
    use crate::engine::model::exchange::{ProfilePart, WrittenIn};
    use crate::engine::model::reading::StationReading;
    use crate::engine::time::Utc;
    use crate::engine::units::{Current, PerPhase, Power};

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

    fn utc(text: &str) -> Utc {
        Utc::parse(text).unwrap()
    }

    #[test]
    fn the_messages_of_a_station_are_understood() {
        // Field names of OCPP 1.6 edition 2, §6.
        assert_eq!(
            clean(
                "BootNotification",
                r#"{"chargePointVendor":"Acme","chargePointModel":"One","chargePointSerialNumber":"A1","firmwareVersion":"1.2"}"#
            ),
            StationRequest::Boot {
                info: BootInfo {
                    vendor: "Acme".into(),
                    model: "One".into(),
                    serial: Some("A1".into()),
                    firmware: Some("1.2".into()),
                },
                reason: None,
            }
        );
        assert_eq!(clean("Heartbeat", "{}"), StationRequest::Heartbeat);
        assert_eq!(
            clean(
                "StatusNotification",
                r#"{"connectorId":1,"errorCode":"NoError","status":"SuspendedEV","timestamp":"2026-03-01T12:00:00Z"}"#
            ),
            StationRequest::Status {
                evse: 1,
                connector: 1,
                status: ConnectorStatus::SuspendedEv,
                error: None,
                at: Some(now()),
            }
        );
        assert_eq!(
            clean("Authorize", r#"{"idTag":"04A2B3"}"#),
            StationRequest::Authorize { token: IdToken::new("04A2B3") }
        );
        assert_eq!(
            clean(
                "StartTransaction",
                r#"{"connectorId":1,"idTag":"04A2B3","meterStart":1000,"timestamp":"2026-03-01T11:00:00Z"}"#
            ),
            StationRequest::StartTransaction {
                evse: 1,
                token: IdToken::new("04A2B3"),
                meter_start: Energy::from_wh(1_000),
                at: utc("2026-03-01T11:00:00Z"),
            }
        );
        assert_eq!(
            clean("DataTransfer", r#"{"vendorId":"com.acme","messageId":"m","data":"x"}"#),
            StationRequest::DataTransfer { vendor: "com.acme".into(), message: Some("m".into()) }
        );
        assert_eq!(
            clean("FirmwareStatusNotification", r#"{"status":"Installed"}"#),
            StationRequest::Notify {
                action: "FirmwareStatusNotification".into(),
                summary: r#"{"status":"Installed"}"#.into(),
            }
        );
    }

    #[test]
    fn meter_values_and_stop_carry_readings() {
        let reading = StationReading {
            evse: 2,
            at: Some(now()),
            transaction: Some(TransactionId::new("7")),
            current: PerPhase::new(Some(Current::from_ma(15_900)), None, None),
            power: Some(Power::from_w(3_660)),
            energy: Some(Energy::from_wh(1_500)),
            ..StationReading::default()
        };
        let values = r#"[{"timestamp":"2026-03-01T12:00:00Z","sampledValue":[
            {"value":"15.9","context":"Sample.Periodic","measurand":"Current.Import","phase":"L1","unit":"A"},
            {"value":"3.66","measurand":"Power.Active.Import","unit":"kW"},
            {"value":"230.1","measurand":"Voltage","phase":"L1-N","unit":"V"},
            {"value":"1500"}]}]"#;
        assert_eq!(
            clean("MeterValues", &format!(r#"{{"connectorId":2,"transactionId":7,"meterValue":{values}}}"#)),
            StationRequest::MeterValues { readings: vec![reading.clone()] }
        );
        assert_eq!(
            clean(
                "StopTransaction",
                &format!(
                    r#"{{"idTag":"04A2B3","meterStop":1500,"timestamp":"2026-03-01T12:00:00Z","transactionId":7,
                        "reason":"EVDisconnected","transactionData":{values}}}"#
                )
            ),
            StationRequest::StopTransaction {
                transaction: TransactionId::new("7"),
                token: Some(IdToken::new("04A2B3")),
                meter_stop: Energy::from_wh(1_500),
                at: now(),
                reason: Some("EVDisconnected".into()),
                readings: vec![StationReading { evse: 0, ..reading }],
            }
        );
    }

    #[test]
    fn every_notification_is_taken_note_of_and_answered() {
        for action in NOTIFICATIONS {
            assert!(matches!(clean(action, r#"{"status":"Idle"}"#), StationRequest::Notify { .. }), "{action}");
            let expected = if *action == "SignCertificate" { r#"{"status":"Rejected"}"# } else { "{}" };
            assert_eq!(answer(action, &StationAnswer::Taken).unwrap(), expected, "{action}");
        }
    }

    #[test]
    fn answers_are_what_the_schema_wants() {
        let accepted = AuthorizationStatus::Accepted;
        let cases = [
            (
                "BootNotification",
                StationAnswer::Boot { accepted: false, now: now(), interval_s: 300 },
                r#"{"status":"Pending","currentTime":"2026-03-01T12:00:00.000Z","interval":300}"#,
            ),
            ("Heartbeat", StationAnswer::Heartbeat { now: now() }, r#"{"currentTime":"2026-03-01T12:00:00.000Z"}"#),
            (
                "Authorize",
                StationAnswer::Authorize { status: AuthorizationStatus::ConcurrentTx },
                r#"{"idTagInfo":{"status":"ConcurrentTx"}}"#,
            ),
            (
                "StartTransaction",
                StationAnswer::StartTransaction { transaction: 7, status: AuthorizationStatus::Invalid },
                r#"{"idTagInfo":{"status":"Invalid"},"transactionId":7}"#,
            ),
            (
                "StopTransaction",
                StationAnswer::Transaction { status: Some(accepted) },
                r#"{"idTagInfo":{"status":"Accepted"}}"#,
            ),
            ("StopTransaction", StationAnswer::Transaction { status: None }, "{}"),
            ("StatusNotification", StationAnswer::Taken, "{}"),
            ("MeterValues", StationAnswer::Taken, "{}"),
            ("DataTransfer", StationAnswer::UnknownVendor, r#"{"status":"UnknownVendorId"}"#),
        ];
        for (action, given, expected) in cases {
            assert_eq!(answer(action, &given).unwrap(), expected);
        }
        assert!(answer("Heartbeat", &StationAnswer::Taken).is_err());
        assert!(answer("MeterValues", &StationAnswer::Heartbeat { now: now() }).is_err());
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
                    r#"{"connectorId":1,"csChargingProfiles":{"chargingProfileId":1001,"stackLevel":0,"#,
                    r#""chargingProfilePurpose":"TxDefaultProfile","chargingProfileKind":"Absolute","#,
                    r#""chargingSchedule":{"startSchedule":"2026-03-01T04:00:00.000Z","chargingRateUnit":"A","#,
                    r#""chargingSchedulePeriod":[{"startPeriod":0,"limit":16.1,"numberPhases":3},"#,
                    r#"{"startPeriod":28890,"limit":6.0,"numberPhases":3}]}}}"#
                ),
            ),
            (
                StationCall::Start { evse: 1, token: IdToken::new("04A2B3"), start_id: 9 },
                "RemoteStartTransaction",
                r#"{"connectorId":1,"idTag":"04A2B3"}"#,
            ),
            (
                StationCall::Stop { transaction: TransactionId::new("7") },
                "RemoteStopTransaction",
                r#"{"transactionId":7}"#,
            ),
            (StationCall::GetConfiguration { keys: vec![] }, "GetConfiguration", "{}"),
            (
                StationCall::GetConfiguration { keys: vec![text("HeartbeatInterval")] },
                "GetConfiguration",
                r#"{"key":["HeartbeatInterval"]}"#,
            ),
            (
                StationCall::ChangeConfiguration { key: text("HeartbeatInterval"), value: text("60") },
                "ChangeConfiguration",
                r#"{"key":"HeartbeatInterval","value":"60"}"#,
            ),
            (
                StationCall::Trigger { message: text("MeterValues"), evse: Some(2) },
                "TriggerMessage",
                r#"{"requestedMessage":"MeterValues","connectorId":2}"#,
            ),
            (StationCall::Reset { hard: false }, "Reset", r#"{"type":"Soft"}"#),
            (
                StationCall::GetCompositeSchedule { evse: 1, duration_s: 300, unit: LimitUnit::Amperes },
                "GetCompositeSchedule",
                r#"{"connectorId":1,"duration":300,"chargingRateUnit":"A"}"#,
            ),
            (
                StationCall::Raw { action: text("UnlockConnector"), payload: text(r#"{"connectorId": 1}"#) },
                "UnlockConnector",
                r#"{"connectorId": 1}"#,
            ),
        ];
        for (given, action, payload) in cases {
            let outgoing = call(given).unwrap();
            assert_eq!((outgoing.action.as_str(), outgoing.payload.as_str()), (action, payload));
        }
    }

    #[test]
    fn the_profile_is_read_back_by_an_independent_reader() {
        let limit = LeasedLimit {
            evse: 2,
            limit: Current::ZERO,
            fallback: Current::from_a(6),
            now: now(),
            lasts_ms: 60_000,
            stack_level: 3,
            phases: 1,
            part: ProfilePart::Decaying,
            unit: WrittenIn::Amperes,
        };
        let payload = call(StationCall::SetLimit(limit)).unwrap().payload;
        let read: wire::set_charging_profile::SetChargingProfileRequest = serde_json::from_str(&payload).unwrap();
        let schedule = &read.cs_charging_profiles.charging_schedule;
        assert_eq!(
            schedule.start_schedule.unwrap().timestamp_millis(),
            now().unix_ms() - crate::engine::ocpp::LEASE_LEAD_MS
        );
        assert_eq!((schedule.duration, read.cs_charging_profiles.valid_to), (None, None));
        assert_eq!(schedule.charging_schedule_period[0].limit.to_string(), "0.0");
        assert_eq!(schedule.charging_schedule_period[1].start_period, 28_860);
    }

    #[test]
    fn a_token_that_the_schema_has_no_room_for_is_refused() {
        // CiString20Type
        let token = IdToken::new("123456789012345678901");
        let refusal = call(StationCall::Start { evse: 1, token, start_id: 1 }).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::PropertyConstraintViolation);
        assert_eq!(refusal.text, "idTag has 21 characters, at most 20 are allowed");
    }

    #[test]
    fn no_transaction_is_lost_to_a_bad_field() {
        let (request, notes) = read(
            "StartTransaction",
            r#"{"connectorId":"1","idTag":12345678,"meterStart":"1000.6","timestamp":"soon","reservationId":{}}"#,
        );
        assert_eq!(
            request.unwrap(),
            StationRequest::StartTransaction {
                evse: 1,
                token: IdToken::new("12345678"),
                meter_start: Energy::from_wh(1_001),
                at: now(),
            }
        );
        assert!(notes.unwrap().contains("timestamp is \"soon\""));
        let (request, notes) = read(
            "StopTransaction",
            r#"{"transactionId":7,"meterStop":{},"idTag":[],"reason":{"a":1},
                "transactionData":[{"sampledValue":[{"value":"x"},{"value":"9"}]},"junk"]}"#,
        );
        let StationRequest::StopTransaction { meter_stop, at, token, reason, readings, .. } = request.unwrap() else {
            panic!("not a StopTransaction");
        };
        assert_eq!((meter_stop, at, token, reason, readings.len()), (Energy::from_wh(9), now(), None, None, 1));
        let notes = notes.unwrap();
        for part in ["meterStop", "idTag", "reason", "timestamp is missing", "not a number", "junk"] {
            assert!(notes.contains(part), "{part} is not in {notes}");
        }
        assert!(read("StopTransaction", r#"{"transactionId":7}"#).0.is_err());
    }

    #[test]
    fn quirks_of_real_stations_are_understood() {
        // Huawei: `meterValue` is an object. Growatt: no zone. Others: numbers for strings, an empty sampledValue.
        let quirk = clean(
            "MeterValues",
            r#"{"connectorId":1,"transactionId":-1,"meterValue":{"timestamp":"2026-03-01T12:00:00","sampledValue":
                [{"value":16,"measurand":"Current.Import","unit":"A","context":""},{"value":5.5,"phase":"N","measurand":"Current.Import"},
                 {"value":"50","unit":"Hertz","measurand":"Frequency"},{"value":"21","unit":"Celcius","measurand":"Temperature"},
                 {"value":"80","measurand":"SoC"}]}}"#,
        );
        assert_eq!(
            quirk,
            StationRequest::MeterValues {
                readings: vec![StationReading {
                    evse: 1,
                    at: Some(now()),
                    current_total: Some(Current::from_a(16)),
                    soc_percent: Some(80),
                    ..StationReading::default()
                }]
            }
        );
        assert_eq!(
            clean(
                "MeterValues",
                r#"{"connectorId":1,"meterValue":[{"timestamp":"2026-03-01T12:00:00Z","sampledValue":[]}]}"#
            ),
            StationRequest::MeterValues { readings: vec![] }
        );
        let StationRequest::Status { status, error, at, .. } = clean(
            "StatusNotification",
            r#"{"connectorId":0,"errorCode":"Error","info":"door","vendorErrorCode":"17","status":"faulted","timestamp":"2026-03-01T13:00:00+01"}"#,
        ) else {
            panic!("not a status");
        };
        assert_eq!(
            (status, error.as_deref(), at),
            (ConnectorStatus::Faulted, Some("Error (info: door, vendorErrorCode: 17)"), Some(now()))
        );
        let (request, notes) = read("StatusNotification", r#"{"connectorId":1,"status":"Napping"}"#);
        assert!(matches!(request.unwrap(), StationRequest::Notify { .. }));
        assert!(notes.unwrap().contains("status is none"));
        // A transaction that the central system never numbered (errata 3.18).
        let StationRequest::StopTransaction { transaction, .. } =
            clean("StopTransaction", r#"{"transactionId":-1,"meterStop":10,"timestamp":"1970-01-01T00:01:00Z"}"#)
        else {
            panic!("not a StopTransaction");
        };
        assert_eq!(transaction.as_str(), "-1");
    }
}
