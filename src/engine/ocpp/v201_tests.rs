use rust_decimal::Decimal;

use super::*;
use crate::engine::model::exchange::ConnectorStatus;
use crate::engine::model::exchange::{ProfilePart, WrittenIn};
use crate::engine::model::reading::StationReading;
use crate::engine::model::signed::SignedValue;
use crate::engine::units::{Current, Energy, Phase};

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
                signed: vec![SignedValue { data: "AA".to_owned(), ..SignedValue::default() }],
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
            StationAnswer::Authorize { admission: AuthorizationStatus::Blocked.into() },
            r#"{"idTokenInfo":{"status":"Blocked"}}"#,
        ),
        (
            "TransactionEvent",
            StationAnswer::Transaction { admission: Some(AuthorizationStatus::Accepted.into()), cost: None },
            r#"{"idTokenInfo":{"status":"Accepted"}}"#,
        ),
        ("TransactionEvent", StationAnswer::Transaction { admission: None, cost: None }, "{}"),
        (
            "TransactionEvent",
            StationAnswer::Transaction { admission: None, cost: Some(Decimal::new(1_230, 2)) },
            r#"{"totalCost":12.30}"#,
        ),
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
    assert!(matches!(judged("UnknownVariable"), StationReply::Refused { status, .. } if status == "UnknownVariable"));
}
