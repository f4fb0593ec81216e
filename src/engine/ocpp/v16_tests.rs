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
    let value: Json<'_> = serde_json::from_str(payload).unwrap();
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
            StationAnswer::Authorize { admission: AuthorizationStatus::ConcurrentTx.into() },
            r#"{"idTagInfo":{"status":"ConcurrentTx"}}"#,
        ),
        (
            "StartTransaction",
            StationAnswer::StartTransaction { transaction: 7, admission: AuthorizationStatus::Invalid.into() },
            r#"{"idTagInfo":{"status":"Invalid"},"transactionId":7}"#,
        ),
        (
            "StopTransaction",
            StationAnswer::Transaction { admission: Some(accepted.into()), cost: None },
            r#"{"idTagInfo":{"status":"Accepted"}}"#,
        ),
        ("StopTransaction", StationAnswer::Transaction { admission: None, cost: None }, "{}"),
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
        (StationCall::Stop { transaction: TransactionId::new("7") }, "RemoteStopTransaction", r#"{"transactionId":7}"#),
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
