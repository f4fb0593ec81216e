//! Prices that come by `tariffs.replace`.

use super::*;

fn replace(world: &mut World, tariffs: Option<Vec<Tariff>>) -> CommandOutcome {
    world.put(Input::Request { request: RequestId(9), command: Command::TariffsReplace { tariffs } });
    world.durable();
    match world.replies.pop() {
        Some(Output::Reply { outcome, .. }) => outcome,
        other => panic!("no answer but {other:?}"),
    }
}

fn folded_again(world: &World) -> World {
    let mut ledger = Ledger::default();
    for record in &world.records {
        let text = serde_json::to_string(record).expect("records are JSON");
        ledger.apply(&serde_json::from_str(&text).expect("and can be read"));
    }
    let ledger = Ledger::restore(&ledger.snapshot()).expect("a snapshot");
    let restored = Restored { store_id: "s".to_owned(), boot: 2, ledger, ..Restored::default() };
    World::with(world.site.setup.clone(), restored, world.now)
}

#[test]
fn other_prices_hold_for_who_begins_later_and_over_a_restart() {
    let mut world = priced_world();
    world.start_at("2026-09-21T12:00:00Z");
    let accepted = CommandOutcome::Accepted { data: None };
    assert_eq!(replace(&mut world, Some(vec![tariff(&[], "1.00")])), accepted);
    assert_eq!(replace(&mut world, Some(vec![tariff(&[], "1.00")])), accepted);
    assert_eq!(world.count(|body| matches!(body, RecordBody::TariffsReplaced { .. })), 1, "the second changed nothing");
    world.stop_at("2026-09-21T13:00:00Z", 11_000);
    assert_eq!(gross(&world), "5.00", "what has begun keeps its prices");
    let mut again = folded_again(&world);
    again.connect(A, 1);
    again.start_at("2026-09-21T14:00:00Z");
    let payload = json!({ "transactionId": 2, "meterStop": 11_000, "timestamp": "2026-09-21T15:00:00Z" });
    again.call(A, 1, "StopTransaction", &payload);
    assert_eq!(gross(&again), "10.00");
    assert_eq!(replace(&mut again, None), accepted);
    assert_eq!(again.site.ledger.tariffs(), None);
}

#[test]
fn no_prices_at_all_are_prices_too() {
    let mut world = priced_world();
    replace(&mut world, Some(Vec::new()));
    world.start_at("2026-09-21T12:00:00Z");
    world.stop_at("2026-09-21T13:00:00Z", 11_000);
    assert_eq!(world.count(|body| matches!(body, RecordBody::TransactionPriced { .. })), 0);
}

#[test]
fn a_name_that_no_cdr_can_hold_is_refused() {
    let mut world = priced_world();
    world.site.setup.billing.operator = Some(operator());
    let named = Tariff { id: "Tagtarif für alle".to_owned(), ..tariff(&[], "1.00") };
    let CommandOutcome::Rejected { error } = replace(&mut world, Some(vec![named])) else { panic!("accepted") };
    assert!(error.contains("printable ASCII"), "{error}");
    assert_eq!(world.site.ledger.tariffs(), None);
}

#[test]
fn a_start_that_comes_again_after_a_kill_gets_the_prices_that_were_not_recorded() {
    let mut world = priced_world();
    world.start_at("2026-09-21T12:00:00Z");
    assert_eq!(world.count(|body| matches!(body, RecordBody::TransactionPriced { .. })), 1);
    // Of one batch the start was written, and its prices were not.
    world.records.retain(|record| !matches!(record.body, RecordBody::TransactionPriced { .. }));
    let mut again = folded_again(&world);
    again.connect(A, 1);
    again.start_at("2026-09-21T12:00:00Z");
    assert_eq!(again.count(|body| matches!(body, RecordBody::TransactionPriced { .. })), 1);
    again.start_at("2026-09-21T12:00:00Z");
    assert_eq!(again.count(|body| matches!(body, RecordBody::TransactionPriced { .. })), 1, "once");
    again.stop_at("2026-09-21T13:00:00Z", 11_000);
    assert_eq!(gross(&again), "5.00");
}
