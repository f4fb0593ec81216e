use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::engine::model::ids::CircuitId;
use crate::engine::model::limit::{LimitAmount, LimitOrder, LimitTarget};
use crate::engine::units::Current;

fn read(kind: &str, data: &Value) -> Result<Command, String> {
    let payload = json!({ "id": "c-1", "type": kind, "data": data }).to_string();
    let read = read_command(payload.as_bytes());
    schema_tests::agrees(payload.as_bytes(), read.as_ref().err().map(|rejection| rejection.error.as_str()));
    match read {
        Ok(intake) => {
            assert_eq!(super::kind(&intake.command), kind);
            Ok(intake.command)
        }
        Err(rejection) => {
            assert_eq!(rejection.id.as_deref(), Some("c-1"), "the sender can tell which command was refused");
            Err(rejection.error)
        }
    }
}

#[test]
fn the_commands_of_this_version() {
    let charger = StationId::new("CP001");
    let garage = LimitTarget::Circuit(CircuitId::new("garage"));
    for (kind, data, expected) in [
        (
            "ocpp.call",
            json!({ "charger": "CP001", "action": "Reset", "payload": { "type": "Soft" } }),
            Command::OcppCall {
                charger: charger.clone(),
                action: "Reset".to_owned(),
                payload: r#"{"type":"Soft"}"#.to_owned(),
            },
        ),
        (
            "transaction.start",
            json!({ "charger": "CP001", "connector": 2, "token": "04A2" }),
            Command::TransactionStart { charger, connector: 2, token: IdToken::new("04A2") },
        ),
        (
            "transaction.stop",
            json!({ "transaction": "1042" }),
            Command::TransactionStop { transaction: TransactionId::new("1042") },
        ),
        (
            "limit.set",
            json!({ "circuit": "garage", "limit_a": 62.5, "until": "2026-03-01T12:00:00Z" }),
            Command::LimitSet(LimitOrder {
                target: garage.clone(),
                origin: LimitOrigin::Cloud,
                amount: LimitAmount::PerPhase(Current::from_ma(62_500)),
                until: Some(Utc::from_unix_ms(1_772_366_400_000)),
                heartbeat: None,
            }),
        ),
        (
            "limit.clear",
            json!({ "circuit": "garage" }),
            Command::LimitClear { target: garage, origin: LimitOrigin::Cloud },
        ),
        ("site.dim", json!({ "active": true }), Command::Dim { active: true, until: None, input: "cloud".to_owned() }),
        ("delay.clear", json!({ "charger": "CP001" }), Command::DelayClear { charger: StationId::new("CP001") }),
        (
            "events.acknowledge",
            json!({ "sequence": 7 }),
            Command::EventsAcknowledge { sequence: Sequence(7), store_id: None },
        ),
        (
            "events.acknowledge",
            json!({ "sequence": 7, "store_id": "5f1c" }),
            Command::EventsAcknowledge { sequence: Sequence(7), store_id: Some("5f1c".to_owned()) },
        ),
        ("events.replay", json!({ "from_sequence": 1 }), Command::EventsReplay { from: Sequence(1) }),
    ] {
        assert_eq!(read(kind, &data), Ok(expected), "{kind}");
    }
}

#[test]
fn id_and_expiry_are_taken_over() {
    let payload = br#"{"id":"x","type":"events.replay","expires":"2026-03-01T12:00:00Z","data":{"from_sequence":3}}"#;
    let intake = read_command(payload).unwrap();
    assert_eq!((intake.id.as_str(), intake.expires), ("x", Some(Utc::from_unix_ms(1_772_366_400_000))));
}

#[test]
fn a_refusal_says_what_would_be_right() {
    for (kind, data, expected) in [
        ("limit.sett", json!({}), "unknown type \"limit.sett\"; did you mean \"limit.set\"?"),
        ("self.destruct", json!({}), "known are \"ocpp.call\""),
        (
            "limit.set",
            json!({ "circuit": "a", "limit_a": 6, "untill": "x" }),
            "did you mean \"until\"? in the data of limit.set",
        ),
        ("limit.set", json!({ "circuit": "a", "limit_a": -1 }), "from 0 to"),
        ("limit.set", json!({ "circuit": "a", "limit_a": "6" }), "not a string"),
        ("limit.set", json!({ "circuit": "a" }), "\"limit_a\" is missing"),
        ("limit.set", json!({ "circuit": "a", "limit_a": 6, "until": "tomorrow" }), "2026-03-01T12:00:00Z"),
        ("limit.set", json!({ "limit_a": 6 }), "\"circuit\" or \"charger\" is missing"),
        ("site.dim", json!({}), "\"active\" is missing"),
        ("site.dim", json!({ "active": 1 }), "true or false, not a number"),
        ("delay.clear", json!({}), "\"charger\" is missing"),
        ("transaction.start", json!({ "charger": "a", "connector": 0, "token": "t" }), "whole number from 1"),
        ("transaction.start", json!({ "charger": "", "connector": 1, "token": "t" }), "\"charger\" must have 1 to"),
        ("ocpp.call", json!({ "charger": "a", "action": "Re set" }), "not the name of an OCPP action"),
        ("ocpp.call", json!({ "charger": "a", "action": "Reset", "payload": [] }), "not a list"),
        ("events.acknowledge", json!({ "sequence": 1.5 }), "whole number"),
        ("events.acknowledge", json!({ "sequence": 1, "store_id": 5 }), "must be a string"),
        ("events.replay", json!({ "from_sequence": 0 }), "whole number from 1"),
    ] {
        let error = read(kind, &data).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_command_without_an_id_cannot_be_named() {
    for payload in ["", "[]", "{", "{}", r#"{"id":""}"#, r#"{"id":7}"#, "\u{0}", r#"{"id":"a\nb"}"#] {
        let rejection = read_command(payload.as_bytes()).unwrap_err();
        assert_eq!(rejection.id, None, "{payload}");
    }
    let rejection = read_command(&vec![b' '; MAX_BYTES + 1]).unwrap_err();
    assert!(rejection.error.contains("262144"), "{}", rejection.error);
    let deep = "[".repeat(60_000);
    assert!(read_command(deep.as_bytes()).is_err());
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn key() -> impl Strategy<Value = String> {
    let known = "charger|action|payload|connector|token|transaction|circuit|limit_a|limit_w|until|source|ttl_s|on_loss|active|sequence|from_sequence";
    prop_oneof![
        Just(known).prop_perturb(|all, mut rng| {
            let names: Vec<&str> = all.split('|').collect();
            names[rng.next_u32() as usize % names.len()].to_owned()
        }),
        "[a-z]{0,6}"
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(read_command(&bytes).is_err());
    }

    #[test]
    fn no_json_makes_it_panic(which in 0..SUPPORTED.len(), data in json_value(), expires in json_value()) {
        let payload = json!({ "id": "c", "type": SUPPORTED[which], "expires": expires, "data": data }).to_string();
        match read_command(payload.as_bytes()) {
            Ok(_) => schema_tests::agrees(payload.as_bytes(), None),
            Err(rejection) => {
                prop_assert_eq!(rejection.id.as_deref(), Some("c"));
                prop_assert!(!rejection.error.is_empty() && rejection.error.len() < 2_000);
            }
        }
    }
}
