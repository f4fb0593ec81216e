use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::engine::model::exchange::AuthorizationStatus;
use crate::engine::model::ids::TransactionId;
use crate::engine::time::Utc;

const NOW: Now = Now { mono: Mono::from_ms(1_000), utc: Utc::from_unix_ms(1_772_366_400_000), utc_trusted: true };

fn session(version: OcppVersion) -> Session {
    Session::new(version, 0xab)
}

fn receive(session: &mut Session, text: &str) -> SessionOutput {
    let mut out = SessionOutput::default();
    session.receive(text, NOW, &mut out);
    out
}

fn call(session: &mut Session, key: u64, priority: Priority) -> SessionOutput {
    let mut out = SessionOutput::default();
    let call = StationCall::Raw { action: format!("A{key}"), payload: "{}".to_owned() };
    session.call(CallKey(key), call, priority, NOW.mono, &mut out);
    out
}

fn tick(session: &mut Session, ms: u64) -> SessionOutput {
    let mut out = SessionOutput::default();
    session.tick(Mono::from_ms(ms), &mut out);
    out
}

fn reply(key: u64, reply: StationReply) -> SessionEvent {
    SessionEvent::Reply { key: CallKey(key), reply }
}

fn accepted(payload: &str) -> StationReply {
    StationReply::Accepted { payload: payload.to_owned() }
}

fn only_token(out: &SessionOutput) -> CallToken {
    let [SessionEvent::Request { token, .. }] = out.events.as_slice() else { panic!("{out:?}") };
    *token
}

fn faults(out: &SessionOutput) -> usize {
    out.events.iter().filter(|event| matches!(event, SessionEvent::Fault { .. })).count()
}

#[test]
fn one_call_is_open_at_a_time_and_the_urgent_go_first() {
    // OCPP-J 1.6 §4.1.1: no new CALL before the answer to the last or its time-out.
    let mut session = session(OcppVersion::V16);
    assert_eq!(call(&mut session, 1, Priority::Background).frames, [r#"[2,"ab-1","A1",{}]"#]);
    for (key, priority) in
        [(2, Priority::Background), (3, Priority::Normal), (4, Priority::Urgent), (5, Priority::Urgent)]
    {
        assert_eq!(call(&mut session, key, priority), SessionOutput::default());
    }
    let mut sent = Vec::new();
    for number in 1..=5 {
        sent.extend(receive(&mut session, &format!(r#"[3,"ab-{number}",{{}}]"#)).frames);
    }
    let order = [r#"[2,"ab-2","A4",{}]"#, r#"[2,"ab-3","A5",{}]"#, r#"[2,"ab-4","A3",{}]"#, r#"[2,"ab-5","A2",{}]"#];
    assert_eq!(sent, order);
    assert_eq!(session.waiting(), 0);
}

#[test]
fn a_call_without_answer_times_out_and_a_late_answer_is_told() {
    let mut session = session(OcppVersion::V16);
    call(&mut session, 1, Priority::Normal);
    call(&mut session, 2, Priority::Normal);
    assert_eq!(tick(&mut session, 1_000 + CALL_TIMEOUT_MS - 1), SessionOutput::default());
    let out = tick(&mut session, 1_000 + CALL_TIMEOUT_MS);
    assert_eq!(out.events, [reply(1, StationReply::Timeout)]);
    assert_eq!(out.frames, [r#"[2,"ab-2","A2",{}]"#]);
    let late = receive(&mut session, r#"[3,"ab-1",{"status":"Accepted"}]"#);
    assert_eq!((late.frames.len(), faults(&late)), (0, 1));
    let answer = accepted(r#"{"status":"Accepted"}"#);
    assert_eq!(late.events.last(), Some(&SessionEvent::Late { key: CallKey(1), reply: answer }));
    let out = receive(&mut session, r#"[3, "ab-2", {"status": "Accepted"} ]"#);
    assert_eq!(out.events, [reply(2, accepted(r#"{"status": "Accepted"}"#))]);
}

#[test]
fn a_cut_waits_five_seconds_behind_a_hanging_call_and_the_late_answer_is_known() {
    let mut session = session(OcppVersion::V16);
    call(&mut session, 1, Priority::Normal);
    let mut out = SessionOutput::default();
    let cut = StationCall::Raw { action: "Cut".to_owned(), payload: "{}".to_owned() };
    session.call(CallKey(2), cut, Priority::Urgent, Mono::from_ms(2_000), &mut out);
    assert_eq!(tick(&mut session, 2_000 + CUT_WAIT_MS - 1), SessionOutput::default());
    let out = tick(&mut session, 2_000 + CUT_WAIT_MS);
    assert_eq!(out.events, [reply(1, StationReply::Overtaken)]);
    assert_eq!(out.frames, [r#"[2,"ab-2","Cut",{}]"#]);
    let late = receive(&mut session, r#"[3,"ab-1",{}]"#);
    assert!(
        matches!(late.events.as_slice(), [SessionEvent::Fault { message }, SessionEvent::Late { key: CallKey(1), .. }] if message.contains("after its time-out"))
    );
    assert_eq!(receive(&mut session, r#"[3,"ab-2",{}]"#).events, [reply(2, accepted("{}"))]);
}

#[test]
fn a_cut_behind_a_cut_waits_for_its_answer() {
    let mut session = session(OcppVersion::V16);
    call(&mut session, 1, Priority::Urgent);
    call(&mut session, 2, Priority::Urgent);
    assert_eq!(tick(&mut session, 1_000 + CALL_TIMEOUT_MS - 1), SessionOutput::default());
    assert_eq!(tick(&mut session, 1_000 + CALL_TIMEOUT_MS).events, [reply(1, StationReply::Timeout)]);
}

#[test]
fn a_call_that_has_not_left_can_be_taken_back() {
    let mut session = session(OcppVersion::V16);
    call(&mut session, 1, Priority::Normal);
    call(&mut session, 2, Priority::Normal);
    call(&mut session, 3, Priority::Normal);
    assert!(!session.withdraw(CallKey(1)), "it has left");
    assert!(session.is_queued(CallKey(2)) && session.withdraw(CallKey(2)) && !session.withdraw(CallKey(2)));
    let out = receive(&mut session, r#"[3,"ab-1",{}]"#);
    assert_eq!((out.frames.as_slice(), session.waiting()), ([r#"[2,"ab-2","A3",{}]"#.to_owned()].as_slice(), 1));
}

#[test]
fn a_full_queue_says_so_at_once_and_leaves_room_for_the_urgent() {
    let mut session = session(OcppVersion::V16);
    let most = u64::try_from(MAX_QUEUED_CALLS).unwrap();
    for key in 0..=most {
        assert_eq!(call(&mut session, key, Priority::Normal).events, []);
    }
    let out = call(&mut session, 999, Priority::Normal);
    let [SessionEvent::Reply { key: CallKey(999), reply: StationReply::Error { code, .. } }] = out.events.as_slice()
    else {
        panic!("{out:?}");
    };
    assert_eq!(code, "QueueFull");
    assert_eq!(call(&mut session, 1_000, Priority::Urgent), SessionOutput::default());
    let ended = session.end();
    assert_eq!(ended.len(), MAX_QUEUED_CALLS + 2);
    assert_eq!(ended[0], (CallKey(0), StationReply::Disconnected));
    assert_eq!(ended[1].0, CallKey(1_000));
    assert_eq!(session.end(), []);
}

#[test]
fn answers_become_replies() {
    let cases = [
        (r#"[3,"ab-1",{"status":"Rejected"}]"#, "Refused { status: \"Rejected\""),
        (r#"[3,"ab-1",{"status":"accepted"}]"#, "Accepted"),
        (r#"[3,"ab-1",{}]"#, "Error { code: \"FormationViolation\""),
        (r#"[3,"ab-1",[]]"#, "Error { code: \"FormationViolation\""),
        (r#"[3,"ab-1"]"#, "Error { code: \"FormationViolation\""),
        (r#"[4,"ab-1","NotSupported","no","{}"]"#, "Error { code: \"NotSupported\", description: \"no\" }"),
        (r#"[4,"ab-1","InternalError"]"#, "Error { code: \"InternalError\", description: \"\" }"),
        (r#"[4,"ab-1"]"#, "Error { code: \"GenericError\""),
    ];
    for (frame, expected) in cases {
        let mut session = session(OcppVersion::V16);
        let mut out = SessionOutput::default();
        session.call(CallKey(1), StationCall::Reset { hard: true }, Priority::Normal, NOW.mono, &mut out);
        let out = receive(&mut session, frame);
        let Some(SessionEvent::Reply { reply, .. }) = out.events.last() else { panic!("{frame}: {out:?}") };
        assert!(format!("{reply:?}").starts_with(expected), "{frame}: {reply:?}");
    }
}

#[test]
fn the_ids_of_a_station_are_no_key() {
    // A station numbers its CALLs 1, 2, 3 from every boot.
    let mut session = session(OcppVersion::V16);
    let frame = r#"[2,"1","Heartbeat",{}]"#;
    let first = only_token(&receive(&mut session, frame));
    let second = only_token(&receive(&mut session, frame));
    assert_ne!(first, second);
    let mut out = SessionOutput::default();
    session.answer(second, &StationAnswer::Heartbeat { now: NOW.utc }, &mut out);
    session.answer(first, &StationAnswer::Heartbeat { now: NOW.utc }, &mut out);
    assert_eq!(out.frames, [r#"[3,"1",{"currentTime":"2026-03-01T12:00:00.000Z"}]"#; 2]);
    session.answer(first, &StationAnswer::Heartbeat { now: NOW.utc }, &mut out);
    assert_eq!((out.frames.len(), faults(&out)), (2, 1));
}

#[test]
fn calls_of_the_station_are_bounded() {
    let mut session = session(OcppVersion::V16);
    for _ in 0..MAX_OPEN_CALLS {
        assert_eq!(receive(&mut session, r#"[2,"1","Heartbeat",{}]"#).frames.len(), 0);
    }
    let out = receive(&mut session, r#"[2,"33","Heartbeat",{}]"#);
    assert!(out.frames[0].starts_with(r#"[4,"33","GenericError","32 calls wait"#), "{out:?}");
}

#[test]
fn a_wrong_answer_of_ours_is_an_internal_error() {
    let mut session = session(OcppVersion::V201);
    let token = only_token(&receive(&mut session, r#"[2,"1","Heartbeat",{}]"#));
    let mut out = SessionOutput::default();
    session.answer(token, &StationAnswer::Authorize { admission: AuthorizationStatus::Accepted.into() }, &mut out);
    assert!(out.frames[0].starts_with(r#"[4,"1","InternalError","#), "{out:?}");
    assert_eq!(faults(&out), 1);
}

#[test]
fn a_call_that_the_schema_does_not_know_is_answered_at_once() {
    let raw = |action: &str, payload: &str| StationCall::Raw { action: action.to_owned(), payload: payload.to_owned() };
    let stop = StationCall::Stop { transaction: TransactionId::new("abc") };
    let trigger = StationCall::Trigger { message: "Coffee".to_owned(), evse: None };
    let report = StationCall::GetBaseReport { request_id: 1, report: "FullInventory".to_owned() };
    let cases = [
        (stop, "PropertyConstraintViolation"),
        (trigger, "PropertyConstraintViolation"),
        (report, "NotSupported"),
        (raw("Reset", "{"), "FormationViolation"),
        (raw("Reset", "[]"), "FormationViolation"),
        (raw("", "{}"), "PropertyConstraintViolation"),
    ];
    for (call, expected) in cases {
        let mut session = session(OcppVersion::V16);
        let mut out = SessionOutput::default();
        session.call(CallKey(7), call.clone(), Priority::Normal, NOW.mono, &mut out);
        let [SessionEvent::Reply { key: CallKey(7), reply: StationReply::Error { code, .. } }] = out.events.as_slice()
        else {
            panic!("{call:?}: {out:?}");
        };
        assert_eq!((code.as_str(), out.frames.len()), (expected, 0), "{call:?}");
    }
}

/// What a malformed frame gets: in 1.6, and in 2.0.1. Empty: nothing.
const MALFORMED: &[(&str, &str, &str)] = &[
    ("", "", r#"[4,"-1","RpcFrameworkError","#),
    ("hello", "", r#"[4,"-1","RpcFrameworkError","#),
    ("{}", "", r#"[4,"-1","RpcFrameworkError","#),
    ("[]", "", r#"[4,"-1","RpcFrameworkError","#),
    ("[2", "", r#"[4,"-1","RpcFrameworkError","#),
    ("[3,\"1\"", "", ""),
    ("[2]", "", r#"[4,"-1","RpcFrameworkError","#),
    (r#"[2,null,"Heartbeat",{}]"#, "", r#"[4,"-1","RpcFrameworkError","#),
    (r#"[2,"","Heartbeat",{}]"#, "", r#"[4,"-1","RpcFrameworkError","#),
    (r#"[2,{"id":1},"Heartbeat",{}]"#, "", r#"[4,"-1","RpcFrameworkError","#),
    (r#"[5,"1","Heartbeat",{}]"#, "", r#"[4,"1","MessageTypeNotSupported","#),
    (r#"["CALL","1"]"#, "", r#"[4,"1","MessageTypeNotSupported","#),
    (
        r#"[2,"1234567890123456789012345678901234567","Heartbeat",{}]"#,
        r#"[4,"1234567890123456789012345678901234567","FormationViolation","#,
        r#"[4,"1234567890123456789012345678901234567","RpcFrameworkError","#,
    ),
    (r#"[2,"1"]"#, r#"[4,"1","FormationViolation","#, r#"[4,"1","FormatViolation","#),
    (r#"[2,"1",7,{}]"#, r#"[4,"1","FormationViolation","#, r#"[4,"1","FormatViolation","#),
    (r#"[2,"1","Heartbeat",[1]]"#, r#"[4,"1","FormationViolation","#, r#"[4,"1","FormatViolation","#),
    (r#"[2,"1","Heartbeat","x"]"#, r#"[4,"1","FormationViolation","#, r#"[4,"1","FormatViolation","#),
    (r#"[2,"1","Coffee",{}]"#, r#"[4,"1","NotImplemented","#, r#"[4,"1","NotImplemented","#),
    (r#"[2,"1","Reset",{}]"#, r#"[4,"1","NotSupported","#, r#"[4,"1","NotSupported","#),
    (
        r#"[2,"1","Authorize",{}]"#,
        r#"[4,"1","OccurenceConstraintViolation","#,
        r#"[4,"1","OccurrenceConstraintViolation","#,
    ),
    (
        r#"[2,"1","Authorize",{"idTag":[],"idToken":7}]"#,
        r#"[4,"1","TypeConstraintViolation","#,
        r#"[4,"1","TypeConstraintViolation","#,
    ),
    (
        r#"[2,"1","MeterValues",{"connectorId":-1,"evseId":-1}]"#,
        r#"[4,"1","PropertyConstraintViolation","#,
        r#"[4,"1","PropertyConstraintViolation","#,
    ),
    (r#"[3,"nobody",{}]"#, "", ""),
    ("[3]", "", ""),
    (r#"[4,null,"GenericError","",{}]"#, "", ""),
];

#[test]
fn malformed_frames_are_faults_and_get_the_right_error() {
    for (text, in_v16, in_v201) in MALFORMED {
        for (version, expected) in [(OcppVersion::V16, in_v16), (OcppVersion::V201, in_v201)] {
            let out = receive(&mut session(version), text);
            assert_eq!((faults(&out), out.events.len()), (1, 1), "{text}: {out:?}");
            assert_eq!(out.close, None, "{text}");
            match out.frames.as_slice() {
                [] => assert_eq!(*expected, "", "{text}: no answer"),
                [frame] => assert!(!expected.is_empty() && frame.starts_with(expected), "{text}: {frame}"),
                more => panic!("{text}: {more:?}"),
            }
        }
    }
}

#[test]
fn only_many_faults_in_a_row_close_the_connection() {
    let mut session = session(OcppVersion::V16);
    for _ in 0..MAX_FAULTS_IN_A_ROW {
        assert_eq!(receive(&mut session, "junk").close, None);
    }
    let token = only_token(&receive(&mut session, r#"[2,"1","Heartbeat",{}]"#));
    session.refuse(token, ErrorCode::SecurityError, "no", &mut SessionOutput::default());
    for _ in 0..MAX_FAULTS_IN_A_ROW {
        assert_eq!(receive(&mut session, "junk").close, None);
        assert_eq!(receive(&mut session, r#"[2,"1","Vendor.Own",{}]"#).close, None);
    }
    let out = receive(&mut session, "junk");
    assert_eq!(out.close.as_deref(), Some("more than 20 unusable messages in a row"));
    assert_eq!(receive(&mut session, r#"[2,"1","Heartbeat",{}]"#), SessionOutput::default());
}

#[test]
fn an_oversized_frame_closes_the_connection() {
    let mut session = session(OcppVersion::V16);
    let out = receive(&mut session, &" ".repeat(MAX_FRAME_BYTES + 1));
    assert_eq!(faults(&out), 1);
    assert!(out.close.is_some());
}

#[test]
fn deep_nesting_is_an_error_and_no_crash() {
    let deep = "[".repeat(100_000);
    let closed = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    for version in [OcppVersion::V16, OcppVersion::V201] {
        assert_eq!(faults(&receive(&mut session(version), &deep)), 1);
        let out = receive(&mut session(version), &format!(r#"[2,"1","Heartbeat",{{"a":{closed}}}]"#));
        assert!(out.frames[0].starts_with(r#"[4,"1","Form"#), "{}", out.frames[0]);
    }
}

#[test]
fn our_ids_fit_the_schema() {
    let mut session = Session::new(OcppVersion::V16, u64::MAX);
    session.calls_made = u64::MAX - 1;
    let out = call(&mut session, 1, Priority::Normal);
    assert_eq!(out.frames, [r#"[2,"ffffffffffffffff-ffffffffffffffff","A1",{}]"#]);
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-zA-Z0-9 .:-]{0,24}".prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    let names = prop_oneof![
        Just("connectorId"),
        Just("evseId"),
        Just("idTag"),
        Just("idToken"),
        Just("timestamp"),
        Just("meterStart"),
        Just("meterStop"),
        Just("transactionId"),
        Just("transactionInfo"),
        Just("meterValue"),
        Just("transactionData"),
        Just("sampledValue"),
        Just("value"),
        Just("measurand"),
        Just("unit"),
        Just("unitOfMeasure"),
        Just("multiplier"),
        Just("phase"),
        Just("eventType"),
        Just("seqNo"),
        Just("evse"),
        Just("id"),
        Just("status"),
        Just("connectorStatus"),
        Just("vendorId"),
    ];
    leaf.prop_recursive(5, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(names.clone().prop_map(str::to_owned), inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn action() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("BootNotification".to_owned()),
        Just("Heartbeat".to_owned()),
        Just("StatusNotification".to_owned()),
        Just("Authorize".to_owned()),
        Just("StartTransaction".to_owned()),
        Just("StopTransaction".to_owned()),
        Just("TransactionEvent".to_owned()),
        Just("MeterValues".to_owned()),
        Just("DataTransfer".to_owned()),
        Just("NotifyEVChargingNeeds".to_owned()),
        "\\PC{1,12}",
    ]
}

/// The answer that belongs to a request.
fn fitting(request: &StationRequest) -> StationAnswer {
    let (now, status) = (NOW.utc, AuthorizationStatus::Accepted);
    match request {
        StationRequest::Boot { .. } => StationAnswer::Boot { accepted: true, now, interval_s: 300 },
        StationRequest::Heartbeat => StationAnswer::Heartbeat { now },
        StationRequest::Authorize { .. } => StationAnswer::Authorize { admission: status.into() },
        StationRequest::StartTransaction { .. } => {
            StationAnswer::StartTransaction { transaction: 1, admission: status.into() }
        }
        StationRequest::StopTransaction { token, .. } => {
            StationAnswer::Transaction { admission: token.as_ref().map(|_| status.into()), cost: None }
        }
        StationRequest::TransactionEvent(event) => {
            StationAnswer::Transaction { admission: event.token.as_ref().map(|_| status.into()), cost: None }
        }
        StationRequest::ChargingNeeds { .. } => StationAnswer::ChargingNeeds { used: true },
        StationRequest::DataTransfer { .. } => StationAnswer::UnknownVendor,
        StationRequest::Status { .. } | StationRequest::MeterValues { .. } | StationRequest::Notify { .. } => {
            StationAnswer::Taken
        }
    }
}

fn version() -> impl Strategy<Value = OcppVersion> {
    prop_oneof![Just(OcppVersion::V16), Just(OcppVersion::V201)]
}

proptest! {
    #[test]
    fn no_text_panics(version in version(), text in prop_oneof!["\\PC*", "[\\[\\]{}\",:0-9a-zA-Z ]{0,80}"]) {
        receive(&mut session(version), &text);
    }

    #[test]
    fn no_array_panics(version in version(), parts in prop::collection::vec(json(), 0..6)) {
        let out = receive(&mut session(version), &Value::from(parts).to_string());
        prop_assert!(out.frames.len() <= 1);
    }

    #[test]
    fn every_call_gets_exactly_one_frame(
        version in version(), id in "[a-zA-Z0-9-]{1,36}", action in action(), payload in json(), refuse in any::<bool>(),
    ) {
        let mut session = session(version);
        let call = Value::from(vec![Value::from(2), Value::from(id.as_str()), Value::from(action), payload]);
        let mut out = receive(&mut session, &call.to_string());
        for event in std::mem::take(&mut out.events) {
            if let SessionEvent::Request { token, request } = event {
                if refuse {
                    session.refuse(token, ErrorCode::InternalError, "disk", &mut out);
                } else {
                    session.answer(token, &fitting(&request), &mut out);
                    prop_assert!(out.frames[0].starts_with("[3,"), "{:?}", out.frames);
                }
            }
        }
        prop_assert_eq!(out.frames.len(), 1);
        let frame: Value = serde_json::from_str(&out.frames[0]).unwrap();
        prop_assert_eq!(frame[1].as_str(), Some(id.as_str()));
    }
}

#[test]
fn messages_of_the_kinds_that_2_1_has_need_no_answer_and_break_nothing() {
    // OCPP 2.1 part 4: CALLRESULTERROR (5) and SEND (6).
    let mut session = session(OcppVersion::V21);
    for _ in 0..2 * MAX_FAULTS_IN_A_ROW {
        let sent = receive(&mut session, r#"[6,"s1","NotifyPeriodicEventStream",{"id":1,"pending":0,"data":[]}]"#);
        assert_eq!(sent, SessionOutput::default());
        for (text, answers) in [
            (r#"[6,"s1","Heartbeat",{}]"#, 0),
            (r#"[5,"h1","FormatViolation","no currentTime",{}]"#, 0),
            (r#"[7,"x1","Later",{}]"#, 1),
        ] {
            let out = receive(&mut session, text);
            assert_eq!((out.frames.len(), faults(&out), out.close), (answers, 1, None), "{text}");
        }
    }
    assert_eq!(faults(&receive(&mut session, r#"[6,"s1","NotifyPeriodicEventStream",{"#)), 1, "and this is no JSON");
    assert!(matches!(receive(&mut session, r#"[2,"h1","Heartbeat",{}]"#).events[0], SessionEvent::Request { .. }));
}

#[test]
fn a_kind_of_message_that_only_later_versions_have_does_not_end_a_connection() {
    for version in [OcppVersion::V16, OcppVersion::V201] {
        let mut session = session(version);
        for _ in 0..2 * MAX_FAULTS_IN_A_ROW {
            let out = receive(&mut session, r#"[6,"s1","NotifyPeriodicEventStream",{}]"#);
            assert_eq!((faults(&out), out.close), (1, None));
        }
    }
}
