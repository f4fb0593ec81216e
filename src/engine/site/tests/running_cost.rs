//! What stations are told of the cost of running transactions.

use super::billing::priced_world;
use super::*;
use crate::engine::model::display::CostTransfer;

const TIMESTAMP: &str = "2026-09-21T19:00:00Z";

/// Prices, and stations that are told what comes of them every 60 s.
fn told_world(version: OcppVersion) -> World {
    let mut world = priced_world();
    world.site.setup.billing.running_cost_s = Some(60);
    world.site.setup.billing.running_cost_transfer = Some(CostTransfer {
        vendor: "org.openchargealliance.costmsg".to_owned(),
        running: "RunningCost".to_owned(),
        last: "FinalCost".to_owned(),
        data: None,
    });
    world.put(Input::StationConnected { station: A, connection: ConnectionId(1), version });
    world.pass(6_000);
    world
}

fn event(world: &mut World, phase: &str, (seq_no, at): (i64, &str), wh: i64) {
    let payload = json!({
        "eventType": phase, "timestamp": at, "triggerReason": "Authorized", "seqNo": seq_no,
        "evse": { "id": 1, "connectorId": 1 }, "idToken": { "idToken": "GOOD", "type": "ISO14443" },
        "transactionInfo": { "transactionId": "t-1", "chargingState": "Charging" },
        "meterValue": [{ "timestamp": at, "sampledValue": [{ "value": wh }] }],
    });
    world.call(A, 1, "TransactionEvent", &payload);
    world.durable();
}

/// The costs that station A was sent, by their action.
fn costs(world: &World, action: &str) -> Vec<Value> {
    let frames = world.frames.iter().filter(|(station, frame)| *station == A && frame[0] == 2 && frame[2] == action);
    frames.map(|(_, frame)| frame[3].clone()).collect()
}

#[test]
fn a_2_x_station_is_told_what_has_changed_and_in_the_end_the_total() {
    let mut world = told_world(OcppVersion::V201);
    event(&mut world, "Started", (0, TIMESTAMP), 1_000);
    world.pass(5_000);
    let told = costs(&world, "CostUpdated");
    assert_eq!(told.len(), 1, "at once, so that the display shows something: {told:?}");
    assert_eq!((told[0]["totalCost"].to_string().as_str(), &told[0]["transactionId"]), ("0.00", &json!("t-1")));
    // Meter values every second or so: no more messages than one a minute.
    for second in 0..120 {
        event(&mut world, "Updated", (second + 1, TIMESTAMP), 1_000 + 20 * second);
        world.pass(1_000);
    }
    let told = costs(&world, "CostUpdated");
    assert!((2..=3).contains(&told.len()), "{told:?}");
    world.pass(600_000);
    let told = costs(&world, "CostUpdated").len();
    world.pass(600_000);
    assert_eq!(costs(&world, "CostUpdated").len(), told, "what has not changed is not told again");
    event(&mut world, "Ended", (900, "2026-09-21T19:20:00Z"), 5_000);
    let answer = world.answers(A).last().map(|answer| answer["totalCost"].to_string());
    assert_eq!(answer.as_deref(), Some("2.00"));
    world.pass(120_000);
    assert_eq!(costs(&world, "CostUpdated").len(), told, "it is over");
    assert_eq!(costs(&world, "DataTransfer"), [] as [Value; 0]);
}

#[test]
fn a_1_6_station_is_told_by_a_transfer_and_parking_counts() {
    let mut world = told_world(OcppVersion::V16);
    world.start_at(TIMESTAMP);
    world.durable();
    world.pass(2_000);
    let data =
        |payload: &Value| serde_json::from_str::<Value>(payload["data"].as_str().expect("a text")).expect("JSON");
    let told = costs(&world, "DataTransfer");
    assert_eq!((told.len(), &told[0]["messageId"]), (1, &json!("RunningCost")));
    assert_eq!((&data(&told[0])["state"], data(&told[0])["transactionId"].as_i64()), (&json!("Charging"), Some(1)));
    world.register_at("2026-09-21T19:01:00Z", 3_000);
    world.status_at("SuspendedEV", "2026-09-21T19:01:00Z");
    world.pass(600_000);
    let told = costs(&world, "DataTransfer");
    let last = data(told.last().expect("it was told"));
    // 2 kWh at 0.50, and some minutes at 6 an hour.
    let cost: f64 = last["cost"].to_string().parse().expect("a number");
    assert!((1.70..2.05).contains(&cost), "{last}");
    assert_eq!((&last["state"], last["idlePrice"]["hourPrice"].to_string().as_str()), (&json!("Idle"), "6"));
    assert!((10..=12).contains(&told.len()), "once a minute: {}", told.len());
    world.stop_at("2026-09-21T19:11:00Z", 3_000);
    world.pass(5_000);
    assert_eq!(costs(&world, "DataTransfer").len(), told.len(), "not before the end is safe");
    world.durable();
    world.pass(5_000);
    let told = costs(&world, "DataTransfer");
    let last = told.last().expect("it was told");
    assert_eq!((&last["messageId"], data(last)["cost"].to_string().as_str()), (&json!("FinalCost"), "2"));
}

#[test]
fn a_station_that_refuses_is_left_alone_until_it_connects_again() {
    let mut world = told_world(OcppVersion::V16);
    world.accepting = false;
    world.start_at(TIMESTAMP);
    world.durable();
    let mut answered = world.frames.len();
    let mut refused = 0;
    for second in 0..300 {
        world.register_at("2026-09-21T19:01:00Z", 1_000 + 100 * second);
        world.pass(1_000);
        let frames = world.frames[answered..].to_vec();
        answered = world.frames.len();
        for (station, frame) in frames.into_iter().filter(|(_, frame)| frame[0] == 2) {
            let is_cost = frame[2] == "DataTransfer";
            refused += usize::from(is_cost);
            let status = if is_cost { "UnknownVendorId" } else { "Accepted" };
            let text = json!([3, frame[1], { "status": status }]).to_string();
            world.put(Input::StationFrame { station, connection: ConnectionId(1), text });
        }
    }
    assert_eq!(refused, 1);
    assert_eq!(world.logs.iter().filter(|line| line.contains("told no more of it")).count(), 1);
    world.accepting = true;
    world.put(Input::StationConnected { station: A, connection: ConnectionId(9), version: OcppVersion::V16 });
    world.pass(10_000);
    assert_eq!(costs(&world, "DataTransfer").len(), 2, "it may have learned it since");
}

#[test]
fn a_cost_that_is_left_unanswered_does_not_make_a_station_silent() {
    let mut world = told_world(OcppVersion::V201);
    event(&mut world, "Started", (0, TIMESTAMP), 1_000);
    world.pass(10_000);
    let told = costs(&world, "CostUpdated").len();
    world.accepting = false;
    let mut answered = world.frames.len();
    for step in 0..90 {
        event(&mut world, "Updated", (step + 1, TIMESTAMP), 1_000 + 100 * step);
        world.pass(1_000);
        let frames = world.frames[answered..].to_vec();
        answered = world.frames.len();
        for (station, frame) in frames.into_iter().filter(|(_, frame)| frame[0] == 2 && frame[2] != "CostUpdated") {
            let text = json!([3, frame[1], { "status": "Accepted" }]).to_string();
            world.put(Input::StationFrame { station, connection: ConnectionId(1), text });
        }
    }
    assert_eq!(costs(&world, "CostUpdated").len(), told + 1, "it was left unanswered once, and not asked again");
    assert!(!world.logs.iter().any(|line| line.contains("does not answer its calls")), "{:?}", world.logs);
}

#[test]
fn nothing_is_told_while_the_time_is_not_known_or_nobody_wants_it() {
    let mut world = told_world(OcppVersion::V201);
    world.now.utc_trusted = false;
    event(&mut world, "Started", (0, TIMESTAMP), 1_000);
    world.pass(120_000);
    assert_eq!(costs(&world, "CostUpdated"), [] as [Value; 0]);
    world.now.utc_trusted = true;
    world.site.setup.billing.running_cost_s = None;
    world.pass(120_000);
    assert_eq!(costs(&world, "CostUpdated"), [] as [Value; 0]);
}
