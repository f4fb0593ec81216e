//! Transactions: recorded once, whatever is resent, renumbered or forgotten.

use super::*;

fn is_start(body: &RecordBody) -> bool {
    matches!(body, RecordBody::TransactionStarted { .. })
}

fn is_end(body: &RecordBody) -> bool {
    matches!(body, RecordBody::TransactionEnded { .. })
}

#[test]
fn no_answer_to_a_start_before_it_is_durable() {
    let mut world = World::new(63);
    world.connect(A, 1);
    world.start(A, 1, "GOOD");
    assert_eq!(world.answers(A).len(), 0);
    world.durable();
    let answers = world.answers(A);
    assert_eq!(answers[0]["transactionId"], 1);
    assert_eq!(answers[0]["idTagInfo"]["status"], "Accepted");
}

#[test]
fn a_resent_start_and_stop_make_no_second_transaction() {
    let mut world = World::new(63);
    world.connect(A, 1);
    world.start(A, 1, "GOOD");
    world.durable();
    world.start(A, 1, "GOOD");
    assert_eq!(world.answers(A)[1]["transactionId"], 1);
    let stop = json!({ "transactionId": 1, "meterStop": 5000, "timestamp": "2026-09-21T15:00:00Z" });
    world.call(A, 1, "StopTransaction", &stop);
    world.call(A, 1, "StopTransaction", &stop);
    world.durable();
    assert_eq!(world.answers(A).len(), 4);
    assert_eq!((world.count(is_start), world.count(is_end)), (1, 1));
    // The next one gets the next id.
    world.start(A, 1, "good");
    let payload = json!({ "connectorId": 1, "idTag": "GOOD", "meterStart": 5000, "timestamp": "2026-09-21T16:00:00Z" });
    world.call(A, 1, "StartTransaction", &payload);
    world.durable();
    assert_eq!(world.answers(A)[5]["transactionId"], 2);
}

#[test]
fn a_start_on_an_open_transaction_ends_the_old_one() {
    let mut world = World::new(63);
    world.connect(A, 1);
    world.start(A, 1, "GOOD");
    let payload = json!({ "connectorId": 1, "idTag": "GOOD", "meterStart": 2500, "timestamp": "2026-09-21T16:00:00Z" });
    world.call(A, 1, "StartTransaction", &payload);
    let ended = world.records.iter().find_map(|record| match &record.body {
        RecordBody::TransactionEnded { meter_stop, reconstructed, .. } => {
            Some((meter_stop.map(crate::engine::units::Energy::wh), *reconstructed))
        }
        _ => None,
    });
    assert_eq!(ended, Some((Some(2500), true)));
    assert_eq!(world.site.ledger().open().count(), 1);
}

#[test]
fn a_stop_without_a_start_is_recorded_once() {
    let mut world = World::new(63);
    world.connect(A, 1);
    // OCPP 1.6 errata 3.18: −1 where the start was never answered.
    let stop = json!({ "transactionId": -1, "idTag": "GOOD", "meterStop": 5000, "timestamp": "2026-09-21T15:00:00Z" });
    world.call(A, 1, "StopTransaction", &stop);
    world.call(A, 1, "StopTransaction", &stop);
    world.durable();
    assert_eq!(world.count(is_end), 1);
    assert_eq!(world.answers(A).len(), 2);
}

#[test]
fn restarts_do_not_put_the_snapshot_off() {
    let mut world = World::new(45);
    let mut ledger = Ledger::default();
    // A small site that restarts each day makes fewer records in one run than a snapshot waits for.
    for start in 1..=6 {
        let restored = Restored { boot: start, ledger: ledger.clone(), ..Restored::default() };
        world = World::with(setup(45), restored, world.now);
        for connection in 1..=200 {
            world.connect(A, start * 1_000 + connection);
        }
        for record in &world.records {
            ledger.apply(record);
        }
    }
    assert!(ledger.last().0 > 1_000, "{}", ledger.last());
    assert!(world.snapshots.iter().any(|through| through.0 > 1_000), "{:?}", world.snapshots);
}

#[test]
fn events_leave_only_when_durable_and_a_command_runs_once() {
    let mut world = World::new(45);
    world.put(Input::Cloud(CloudInput::Connected));
    world.pass(2_000);
    world.durable();
    let command = json!({ "id": "c1", "type": "limit.set", "data": { "circuit": "grid", "limit_a": 20 } });
    for _ in 0..2 {
        let payload = command.to_string().into_bytes();
        world.put(Input::Cloud(CloudInput::Message { payload, response_topic: None, correlation: None }));
    }
    assert_eq!(world.count(|body| matches!(body, RecordBody::OutsideLimit(_))), 1);
    let answered = |world: &World| world.published.iter().filter(|sent| sent.topic.ends_with("/responses")).count();
    assert_eq!(answered(&world), 0, "no answer before its record is durable");
    world.durable();
    let responses = world.published.iter().filter(|message| message.topic.ends_with("/responses"));
    assert_eq!(responses.filter(|message| message.payload.contains("accepted")).count(), 2);
    assert!(world.published.iter().all(|message| message.carries == Carries::Nothing), "no record was read yet");
}

#[test]
fn an_acknowledgement_of_another_store_is_refused() {
    let mut world = World::new(45);
    world.put(Input::Cloud(CloudInput::Connected));
    world.durable();
    let last = world.records.last().map_or(0, |record| record.sequence.0);
    let mut answer = |store: &str| {
        world.message += 1;
        let data = json!({ "sequence": last, "store_id": store });
        let command = json!({ "id": format!("a{}", world.message), "type": "events.acknowledge", "data": data });
        let payload = command.to_string().into_bytes();
        world.published.clear();
        world.put(Input::Cloud(CloudInput::Message { payload, response_topic: None, correlation: None }));
        world.durable();
        let response = world.published.iter().find(|sent| sent.topic.ends_with("/responses")).expect("an answer");
        serde_json::from_str::<Value>(&response.payload).expect("JSON")["error"].to_string()
    };
    assert!(answer("old").contains("begins with \\\"s\\\""), "{}", answer("old"));
    // The store is the right one: what is wrong is that this site counts PUBACKs.
    assert!(answer("s").contains("cloud.acknowledge"), "{}", answer("s"));
}

fn register(wh: i64) -> Value {
    json!([{ "timestamp": "2026-09-21T14:00:00Z", "sampledValue": [{ "value": wh }] }])
}

fn started_world() -> World {
    let now = Now { mono: Mono::from_ms(1_000), utc: Utc::from_unix_ms(1_790_000_000_000), utc_trusted: true };
    let restored = Restored { store_id: "s".to_owned(), boot: 1, ..Restored::default() };
    let mut world = World::with(stations(|station| station.evse_count = 2), restored, now);
    world.connect_v201(A, 1);
    world
}

#[test]
fn a_start_that_comes_after_an_update_ends_nothing() {
    let mut world = started_world();
    world.event("Updated", "CablePluggedIn", 5, &json!({ "evse": { "id": 1 } }));
    world.event("Started", "Authorized", 0, &json!({ "evse": { "id": 1 }, "idToken": { "idToken": "GOOD", "type": "Central" }, "meterValue": register(100) }));
    assert_eq!(world.count(is_end), 0);
    assert_eq!(world.open(), [("x".to_owned(), 1, Some("GOOD".to_owned()), Some(100))]);
    world.event("Ended", "EVDeparted", 60, &json!({ "meterValue": register(900) }));
    assert_eq!((world.count(is_end), world.open().len()), (1, 0));
}

#[test]
fn a_start_that_names_no_evse_ends_nobody_and_moves_when_the_evse_is_known() {
    let mut world = started_world();
    let other = json!({
        "eventType": "Started", "triggerReason": "Authorized", "seqNo": 0, "timestamp": "2026-09-21T13:00:00Z",
        "transactionInfo": { "transactionId": "other" }, "evse": { "id": 1 },
    });
    world.call(A, 1, "TransactionEvent", &other);
    world.event("Started", "Authorized", 0, &json!({ "idToken": { "idToken": "GOOD", "type": "Central" } }));
    assert_eq!(world.count(is_end), 0);
    world.event("Updated", "CablePluggedIn", 20, &json!({ "evse": { "id": 2 } }));
    let places: Vec<_> = world.open().into_iter().map(|(transaction, evse, ..)| (transaction, evse)).collect();
    assert_eq!(places, [("other".to_owned(), 1), ("x".to_owned(), 2)]);
}

#[test]
fn the_first_register_of_a_transaction_is_kept_whatever_brings_it() {
    let mut world = started_world();
    world.event("Started", "CablePluggedIn", 0, &json!({ "evse": { "id": 1 } }));
    world.event("Updated", "MeterValuePeriodic", 10, &json!({ "meterValue": register(100) }));
    assert_eq!(world.open()[0].3, Some(100));
}

#[test]
fn two_events_of_one_second_with_one_number_are_two() {
    let mut world = started_world();
    world.event("Started", "CablePluggedIn", 0, &json!({ "evse": { "id": 1 } }));
    world.event("Updated", "ChargingStateChanged", 3, &json!({}));
    for _ in 0..2 {
        world.event("Updated", "Authorized", 3, &json!({ "idToken": { "idToken": "GOOD", "type": "Central" } }));
    }
    assert_eq!(world.open()[0].2.as_deref(), Some("GOOD"));
    assert_eq!(world.count(|body| matches!(body, RecordBody::TransactionUpdated { .. })), 2);
}

#[test]
fn a_stop_without_an_id_ends_the_only_transaction_that_it_can_mean() {
    for id in [-1, 0] {
        let mut world = World::new(63);
        world.connect(A, 1);
        world.start(A, 1, "GOOD");
        let mut stop =
            json!({ "transactionId": id, "idTag": "GOOD", "meterStop": 5000, "timestamp": "2026-09-21T15:00:00Z" });
        world.call(A, 1, "StopTransaction", &stop);
        world.call(A, 1, "StopTransaction", &stop);
        assert_eq!((world.count(is_end), world.open().len()), (1, 0), "{id}");
        // Another one of which nothing is known is not the same again.
        stop["meterStop"] = json!(7000);
        stop["timestamp"] = json!("2026-09-21T17:00:00Z");
        world.call(A, 1, "StopTransaction", &stop);
        world.durable();
        assert_eq!((world.count(is_end), world.answers(A).len()), (2, 4), "{id}");
    }
}

#[test]
fn the_id_of_a_stop_without_a_start_is_not_given_again() {
    let mut world = World::new(63);
    world.connect(A, 1);
    let stop = json!({ "transactionId": -1, "meterStop": 900, "timestamp": "2026-09-21T13:00:00Z" });
    world.call(A, 1, "StopTransaction", &stop);
    world.start(A, 1, "GOOD");
    world.durable();
    assert_eq!(world.answers(A)[1]["transactionId"], 2);
}
