use super::*;
use crate::engine::model::exchange::{LeasedLimit, ProfilePart, WrittenIn};
use crate::engine::units::Current;

const NOW: Utc = Utc::from_unix_ms(1_772_366_400_000);

fn asked(action: &str, payload: &str) -> Result<StationRequest, Refusal> {
    let value: Json<'_> = serde_json::from_str(payload).unwrap();
    request(action, &value, NOW, &mut Notes::default())
}

fn limit(part: ProfilePart, limit_a: i32, lasts_ms: u64) -> StationCall {
    StationCall::SetLimit(LeasedLimit {
        evse: 1,
        limit: Current::from_a(limit_a),
        fallback: Current::from_a(6),
        now: NOW,
        lasts_ms,
        stack_level: 0,
        phases: 3,
        part,
        unit: WrittenIn::Amperes,
    })
}

fn profile(of: StationCall) -> Value {
    let payload: Value = serde_json::from_str(&call(of).unwrap().payload).unwrap();
    payload["chargingProfile"].clone()
}

#[test]
fn a_limit_ends_so_long_after_the_station_has_gone_offline_and_lies_above_the_base() {
    // OCPP 2.1 part 2, ChargingProfileType: maxOfflineDuration, invalidAfterOfflineDuration.
    let above = profile(limit(ProfilePart::UntilOffline, 16, 120_900));
    assert_eq!((&above["maxOfflineDuration"], &above["invalidAfterOfflineDuration"]), (&120.into(), &true.into()));
    assert_eq!((&above["stackLevel"], &above["chargingProfilePurpose"]), (&1.into(), &"TxDefaultProfile".into()));
    assert_eq!(above.get("validTo"), None);
    let periods = above["chargingSchedule"][0]["chargingSchedulePeriod"].as_array().unwrap();
    assert_eq!((periods.len(), periods[0]["limit"].to_string()), (1, "16.0".to_owned()));
    let base = profile(limit(ProfilePart::Base, 16, 120_900));
    assert_eq!((&base["stackLevel"], base.get("maxOfflineDuration")), (&0.into(), None));
    assert_ne!(base["id"], above["id"]);
    // A pause ends in more current: not a moment too early.
    let pause = profile(limit(ProfilePart::UntilOffline, 0, 180_001));
    assert_eq!(pause["maxOfflineDuration"], 181);
}

#[test]
fn what_is_as_in_2_0_1_is_read_and_written_as_there() {
    assert_eq!(asked("Heartbeat", "{}"), Ok(StationRequest::Heartbeat));
    for part in [ProfilePart::Decaying, ProfilePart::Expiring] {
        assert_eq!(call(limit(part.clone(), 16, 9_000)), v201::call(limit(part, 16, 9_000)));
    }
    // New in 2.1: costDetails, and a trigger that 2.0.1 does not have.
    let event = r#"{"eventType":"Updated","timestamp":"2026-03-01T12:00:00Z","triggerReason":"CostLimitReached","seqNo":1,
        "transactionInfo":{"transactionId":"t1","operationMode":"ChargingOnly"},"costDetails":{"failureToCalculate":false}}"#;
    assert!(matches!(asked("TransactionEvent", event), Ok(StationRequest::TransactionEvent(_))));
}

#[test]
fn what_2_1_has_beyond_that_is_taken_note_of_or_turned_down() {
    for action in NOTIFICATIONS {
        assert!(matches!(asked(action, "{}"), Ok(StationRequest::Notify { .. })), "{action}");
        let wanted = match *action {
            "OpenPeriodicEventStream" | "PullDynamicScheduleUpdate" => r#"{"status":"Rejected"}"#,
            _ => "{}",
        };
        assert_eq!(answer(action, &StationAnswer::Taken).as_deref(), Ok(wanted));
        let text = asked(action, "7").unwrap_err();
        assert_eq!(text.code, ErrorCode::FormatViolation);
    }
    for action in BEYOND_US.iter().chain(OURS) {
        assert_eq!(asked(action, "{}").unwrap_err().code, ErrorCode::NotSupported, "{action}");
    }
    let unknown = asked("MakeCoffee", "{}").unwrap_err();
    assert_eq!(
        (unknown.code, unknown.text.as_str()),
        (ErrorCode::NotImplemented, "MakeCoffee is no action of OCPP 2.1")
    );
}
