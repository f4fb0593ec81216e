//! Who may charge: what commands change, what stations are told, and what becomes of transactions.

use super::*;
use crate::engine::model::token::{LimitedUse, TokensOrder, UnknownToken};
use crate::engine::model::wish::TimeOfDay;
use crate::engine::units::Energy;

fn with(change: impl FnOnce(&mut Setup)) -> World {
    let now = Now { mono: Mono::from_ms(1_000), utc: Utc::from_unix_ms(1_790_000_000_000), utc_trusted: true };
    let mut setup = setup(63);
    change(&mut setup);
    World::with(setup, Restored { store_id: "s".to_owned(), boot: 1, ..Restored::default() }, now)
}

fn member(token: &str, group: &str) -> TokenEntry {
    TokenEntry {
        token: IdToken::new(token),
        status: AuthorizationStatus::Accepted,
        group: Some(group.to_owned()),
        expires: None,
        wish: Wish::default(),
    }
}

impl World {
    fn send(&mut self, kind: &str, data: &Value) {
        self.message += 1;
        let payload =
            json!({ "id": format!("t{}", self.message), "type": kind, "data": data }).to_string().into_bytes();
        self.published.clear();
        self.put(Input::Cloud(CloudInput::Message { payload, response_topic: None, correlation: None }));
    }

    fn response(&self) -> Option<Value> {
        let answer = self.published.iter().find(|message| message.topic.ends_with("/responses"))?;
        Some(serde_json::from_str(&answer.payload).expect("JSON"))
    }

    fn tokens(&mut self, kind: &str, data: &Value) -> Value {
        self.send(kind, data);
        self.durable();
        self.response().expect("an answer")
    }

    fn block(&mut self, token: &str) {
        let answer = self.tokens("tokens.update", &json!({ "tokens": [{ "token": token, "status": "Blocked" }] }));
        assert_eq!(answer["status"], "accepted", "{answer}");
    }

    /// What a station is told of a token.
    fn authorize(&mut self, station: StationIndex, token: &str) -> Value {
        let connection = if station == A { 1 } else { 2 };
        let version = self.site.stations[station.0].version();
        let payload = match version {
            Some(OcppVersion::V16) => json!({ "idTag": token }),
            _ => json!({ "idToken": { "idToken": token, "type": "ISO14443" } }),
        };
        self.call(station, connection, "Authorize", &payload);
        let answer = (*self.answers(station).last().expect("an answer")).clone();
        if version == Some(OcppVersion::V16) { answer["idTagInfo"].clone() } else { answer["idTokenInfo"].clone() }
    }

    /// The calls of one action that were sent to a station.
    fn calls(&self, station: StationIndex, action: &str) -> Vec<&Value> {
        let is_call = |frame: &Value| frame[0] == 2 && frame[2] == action;
        self.frames.iter().filter(|(to, frame)| *to == station && is_call(frame)).map(|(_, frame)| &frame[3]).collect()
    }

    fn page(&self, after: &str, limit: usize) -> Value {
        serde_json::from_str(&self.site.tokens_page(after, limit, self.now)).expect("JSON")
    }

    /// Station A charges with `token`.
    fn charging(mut self, token: &str) -> Self {
        self.connect(A, 1);
        self.pass(6_000);
        self.start(A, 1, token);
        self.durable();
        self.pass(10_000);
        assert!(self.limits[0] >= Some(16.0), "{:?}", self.limits);
        self
    }
}

#[test]
fn a_blocked_token_charges_no_more_within_a_second_of_the_command() {
    let mut world = with(|_| {}).charging("GOOD");
    world.block("good");
    assert_eq!(world.calls(A, "RemoteStopTransaction"), [&json!({ "transactionId": 1 })]);
    assert_eq!(world.authorize(A, "GOOD")["status"], "Blocked");
    world.pass(1_000);
    assert_eq!(world.limits[0], Some(0.0), "what the station does with the stop is its affair");
    assert_eq!(world.calls(A, "ClearCache").len(), 1);
    let told = "CPA: token \"GOOD\" may not charge any more (Blocked): transaction 1 is stopped";
    assert!(world.logs.iter().any(|line| line == told), "{:?}", world.logs);
    // It is told again as long as the transaction runs, with longer and longer waits.
    world.pass(600_000);
    assert_eq!(world.calls(A, "RemoteStopTransaction").len(), 5);
    assert_eq!(world.calls(A, "ClearCache").len(), 1);
    world.call(
        A,
        1,
        "StopTransaction",
        &json!({ "transactionId": 1, "meterStop": 5000, "timestamp": "2026-09-21T15:00:00Z" }),
    );
    world.pass(600_000);
    assert_eq!(world.calls(A, "RemoteStopTransaction").len(), 5);
}

#[test]
fn a_change_of_tokens_is_answered_when_it_is_durable_and_survives_a_restart() {
    let mut world = with(|_| {});
    world.send("tokens.update", &json!({ "tokens": [{ "token": "NEW", "group": "staff" }] }));
    assert_eq!(world.response(), None);
    world.durable();
    assert_eq!(world.response().expect("an answer")["data"]["tokens"], 1);
    let ledger = Ledger::restore(&world.site.ledger().snapshot()).expect("a snapshot");
    assert_eq!(ledger, *world.site.ledger());
    let restored = Restored { boot: 2, ledger, ..Restored::default() };
    let mut again = World::with(setup(63), restored, world.now);
    again.connect(A, 1);
    assert_eq!(again.authorize(A, "new"), json!({ "status": "Accepted", "parentIdTag": "staff" }));
}

#[test]
fn a_command_of_an_earlier_run_is_answered_each_time_it_comes_again() {
    let mut world = with(|_| {});
    let data = json!({ "tokens": [{ "token": "NEW" }] });
    assert_eq!(world.tokens("tokens.update", &data)["status"], "accepted");
    let restored = Restored { boot: 2, ledger: world.site.ledger().clone(), ..Restored::default() };
    let mut again = World::with(setup(63), restored, world.now);
    again.durable();
    let last = again.site.last_sequence();
    for _ in 0..3 {
        // The same id as in the run before.
        again.message = 0;
        assert_eq!(again.tokens("tokens.update", &data)["status"], "accepted");
    }
    assert_eq!(again.site.last_sequence(), last, "it is not carried out again");
}

#[test]
fn what_comes_by_command_stands_over_the_file_until_it_is_deleted() {
    let mut world = with(|_| {});
    world.connect(A, 1);
    world.block("GOOD");
    assert_eq!(world.authorize(A, "GOOD")["status"], "Blocked");
    let deleted = world.tokens("tokens.delete", &json!({ "tokens": ["good", "NOBODY"] }));
    assert_eq!(deleted["data"], json!({ "tokens": 0, "unknown": ["NOBODY"], "of_file": ["good"] }));
    assert_eq!(world.authorize(A, "GOOD")["status"], "Accepted");
    let refused = world.tokens("tokens.delete", &json!({ "tokens": ["GOOD"] }));
    assert_eq!(refused["status"], "rejected");
    assert!(refused["error"].as_str().is_some_and(|error| error.contains("block it instead")), "{refused}");
    // A list takes the place of what came by command, not of the file.
    world.tokens("tokens.update", &json!({ "tokens": [{ "token": "OLD" }] }));
    world.tokens("tokens.replace", &json!({ "tokens": [{ "token": "NEW" }] }));
    for (token, status) in [("OLD", "Invalid"), ("NEW", "Accepted"), ("GOOD", "Accepted"), ("BAD", "Blocked")] {
        assert_eq!(world.authorize(A, token)["status"], status, "{token}");
    }
}

#[test]
fn a_list_of_twenty_thousand_comes_in_parts_and_holds_with_the_last() {
    let mut world = with(|_| {});
    world.connect(A, 1);
    world.tokens("tokens.update", &json!({ "tokens": [{ "token": "OLD" }] }));
    let parts = 20;
    for part in 1..=parts {
        let tokens: Vec<Value> = (0..1_000).map(|n| json!({ "token": format!("{part:04X}{n:010X}") })).collect();
        let data = json!({ "list": "nightly", "part": part, "parts": parts, "tokens": tokens });
        assert_eq!(world.authorize(A, "OLD")["status"], "Accepted", "{part}");
        let answer = world.tokens("tokens.replace", &data);
        assert_eq!(answer["status"], "accepted", "{answer}");
        let missing: Vec<u32> = (part + 1..=parts).collect();
        assert_eq!(answer["data"]["missing"], json!(missing));
    }
    assert_eq!(world.authorize(A, "OLD")["status"], "Invalid");
    assert_eq!(world.authorize(A, "00140000000000")["status"], "Accepted");
    assert_eq!(world.site.ledger().tokens().entries().len(), 20_000);
    let largest = world.records.iter().map(|record| serde_json::to_string(record).expect("JSON").len()).max();
    assert!(largest < Some(64 * 1024), "{largest:?}");
}

#[test]
fn an_order_that_cannot_be_meant_changes_nothing() {
    let mut world = with(|setup| {
        setup.groups.insert("staff".to_owned(), Wish { departure: TimeOfDay::parse("07:00"), ..Wish::default() });
    });
    world.durable();
    let before = world.site.ledger().tokens().clone();
    for (kind, data, part) in [
        ("tokens.update", json!({ "tokens": [{ "token": "A" }, { "token": "a" }] }), "is named twice"),
        ("tokens.update", json!({ "tokens": [{ "token": "A", "departure": "07:00" }] }), "needs \"energy_kwh\" too"),
        ("tokens.update", json!({ "tokens": [{ "token": "A", "group": "staff" }] }), "needs \"energy_kwh\" too"),
        ("tokens.delete", json!({ "tokens": ["X", "GOOD"] }), "nothing was deleted"),
        ("tokens.replace", json!({ "tokens": [], "list": "a", "part": 2, "parts": 2 }), "send its part 1 first"),
    ] {
        let answer = world.tokens(kind, &data);
        assert_eq!(answer["status"], "rejected", "{answer}");
        assert!(answer["error"].as_str().is_some_and(|error| error.contains(part)), "{answer}");
    }
    assert_eq!(*world.site.ledger().tokens(), before);
    world.put(Input::Journal(JournalInput::Failed { error: "disk full".to_owned() }));
    let answer = world.tokens("tokens.update", &json!({ "tokens": [{ "token": "A" }] }));
    assert_eq!((&answer["status"], *world.site.ledger().tokens() == before), (&json!("failed"), true), "{answer}");
}

#[test]
fn a_token_that_expires_ends_its_transaction() {
    let expires = Utc::from_unix_ms(1_790_000_000_000).plus_ms(60_000);
    let mut world = with(|setup| setup.tokens[0].expires = Some(expires)).charging("GOOD");
    let answer = world.authorize(A, "GOOD");
    assert_eq!(answer["expiryDate"], json!(expires), "a station knows it too");
    assert_eq!(world.calls(A, "RemoteStopTransaction").len(), 0);
    world.pass(60_000);
    assert_eq!((world.calls(A, "RemoteStopTransaction").len(), world.limits[0]), (1, Some(0.0)));
    assert_eq!(world.authorize(A, "GOOD")["status"], "Expired");
}

#[test]
fn a_transaction_that_never_had_a_right_is_left_to_its_station_for_a_minute() {
    let mut world = with(|_| {});
    world.connect(A, 1);
    world.pass(6_000);
    world.start(A, 1, "NOBODY");
    world.pass(50_000);
    assert_eq!((world.calls(A, "RemoteStopTransaction").len(), world.limits[0]), (0, Some(0.0)));
    world.pass(15_000);
    assert_eq!(world.calls(A, "RemoteStopTransaction").len(), 1);
}

#[test]
fn who_does_not_want_it_has_transactions_run_on_without_current() {
    let mut world = with(|setup| setup.authorization.stop_refused = false).charging("GOOD");
    world.block("GOOD");
    world.pass(120_000);
    assert_eq!((world.calls(A, "RemoteStopTransaction").len(), world.limits[0]), (0, Some(0.0)));
    world.tokens("tokens.delete", &json!({ "tokens": ["GOOD"] }));
    world.pass(60_000);
    assert!(world.limits[0] >= Some(16.0), "{:?}", world.limits);
}

#[test]
fn groups_and_how_long_they_may_be_remembered_are_told_in_each_version() {
    let mut world = with(|setup| {
        setup.tokens.push(member("ONE", "staff"));
        setup.tokens.push(member("TWO", "a group with a long name"));
        setup.authorization.cache_days = Some(7);
    });
    world.connect(A, 1);
    world.connect_v201(B, 2);
    let week = json!(world.now.utc.plus_ms(7 * 86_400_000));
    assert_eq!(world.authorize(A, "one"), json!({ "status": "Accepted", "parentIdTag": "staff", "expiryDate": week }));
    // OCPP 1.6 has no room for it.
    assert_eq!(world.authorize(A, "TWO"), json!({ "status": "Accepted", "expiryDate": week }));
    let told = json!({
        "status": "Accepted", "cacheExpiryDateTime": week,
        "groupIdToken": { "idToken": "a group with a long name", "type": "Central" },
    });
    assert_eq!(world.authorize(B, "TWO"), told);
    assert_eq!(world.authorize(B, "NOBODY"), json!({ "status": "Invalid" }));
}

fn with_master() -> World {
    with(|setup| {
        setup.tokens.push(member("MASTER", "Keyholders"));
        setup.authorization.master_pass_group = Some("keyholders".to_owned());
    })
}

#[test]
fn the_master_pass_stops_what_runs_at_a_station_and_starts_nothing() {
    let mut world = with_master().charging("GOOD");
    assert_eq!(world.authorize(A, "MASTER"), json!({ "status": "Invalid", "parentIdTag": "Keyholders" }));
    assert_eq!(world.calls(A, "RemoteStopTransaction"), [&json!({ "transactionId": 1 })]);
    world.call(
        A,
        1,
        "StopTransaction",
        &json!({ "transactionId": 1, "meterStop": 5000, "timestamp": "2026-09-21T15:00:00Z" }),
    );
    world.start(A, 1, "MASTER");
    world.durable();
    let answer = (*world.answers(A).last().expect("an answer")).clone();
    assert_eq!(answer["idTagInfo"]["status"], "Invalid");
    world.pass(2_000);
    assert_eq!(world.limits[0], Some(0.0));
}

#[test]
fn stations_of_the_later_versions_know_the_master_pass_themselves() {
    let mut world = with_master();
    world.connect_v201(A, 1);
    world.pass(6_000);
    let set: Vec<_> = world.calls(A, "SetVariables").into_iter().map(|call| &call["setVariableData"][0]).collect();
    let master = set.iter().find(|data| data["variable"]["name"] == "MasterPassGroupId").expect("it is told");
    assert_eq!((&master["component"]["name"], &master["attributeValue"]), (&json!("AuthCtrlr"), &json!("keyholders")));
    let told = json!({ "status": "Accepted", "groupIdToken": { "idToken": "Keyholders", "type": "Central" } });
    assert_eq!(world.authorize(A, "MASTER"), told);
    assert_eq!(world.calls(A, "RequestStopTransaction").len(), 0);
    let token = |token: &str| json!({ "evse": { "id": 1 }, "idToken": { "idToken": token, "type": "ISO14443" } });
    world.event("Started", "Authorized", 0, &token("MASTER"));
    world.durable();
    assert_eq!(world.answers(A).last().expect("an answer")["idTokenInfo"]["status"], "Invalid");
    world.event("Ended", "StopAuthorized", 60, &token("MASTER"));
    world.durable();
    assert_eq!(world.answers(A).last().expect("an answer")["idTokenInfo"]["status"], "Accepted");
}

fn limited() -> World {
    with(|setup| {
        setup.authorization.unknown = UnknownToken::AcceptLimited;
        let energy = Energy::from_wh(2_000);
        setup.authorization.limited = LimitedUse { energy, minutes: 30, max: Some(Current::from_a(10)) };
    })
}

fn register(world: &mut World, wh: i64) {
    let values = json!({ "connectorId": 1, "transactionId": 1, "meterValue": [{ "timestamp": world.now.utc,
        "sampledValue": [{ "value": wh.to_string(), "measurand": "Energy.Active.Import.Register", "unit": "Wh" }] }] });
    world.call(A, 1, "MeterValues", &values);
}

#[test]
fn an_unknown_token_has_its_energy_at_its_current_and_no_more() {
    let mut world = limited();
    world.connect(A, 1);
    world.pass(6_000);
    assert_eq!(world.authorize(A, "NOBODY"), json!({ "status": "Accepted" }));
    world.start(A, 1, "NOBODY");
    world.durable();
    world.pass(10_000);
    assert_eq!(world.limits[0], Some(10.0));
    register(&mut world, 2_999);
    world.pass(2_000);
    assert_eq!(world.calls(A, "RemoteStopTransaction").len(), 0);
    register(&mut world, 3_000);
    world.pass(2_000);
    assert_eq!((world.calls(A, "RemoteStopTransaction").len(), world.limits[0]), (1, Some(0.0)));
    let explained = &world.site.explain(A, world.now).evses[0].explanation;
    assert!(explained.contains("what an unknown token may have is used up"), "{explained}");
    // Who is known from then on goes on, if the station has not stopped.
    world.tokens("tokens.update", &json!({ "tokens": [{ "token": "NOBODY" }] }));
    world.pass(40_000);
    assert!(world.limits[0] >= Some(16.0), "{:?}", world.limits);
}

#[test]
fn an_unknown_token_has_its_time_also_without_a_calendar() {
    // By the calendar, which knows that it began 13 minutes before its station could tell; or from when it was heard of.
    for (trusted, minutes) in [(true, 16), (false, 29)] {
        let mut world = limited();
        world.now.utc_trusted = trusted;
        world.connect(A, 1);
        world.pass(6_000);
        world.start(A, 1, "NOBODY");
        world.durable();
        world.pass(minutes * 60_000);
        assert_eq!(world.calls(A, "RemoteStopTransaction").len(), 0, "{trusted}");
        world.pass(2 * 60_000);
        assert!(!world.calls(A, "RemoteStopTransaction").is_empty(), "{trusted}");
    }
}

#[test]
fn stations_that_were_away_forget_accepted_tokens_when_they_come_back() {
    let mut world = with(|_| {});
    world.block("GOOD");
    world.connect(A, 1);
    world.pass(8_000);
    assert_eq!(world.calls(A, "ClearCache").len(), 1);
    // Many commands make no more of it than one a minute.
    for _ in 0..20 {
        world.tokens("tokens.delete", &json!({ "tokens": ["GOOD"] }));
        world.block("GOOD");
        world.pass(1_000);
    }
    assert_eq!(world.calls(A, "ClearCache").len(), 1);
    world.pass(60_000);
    assert_eq!(world.calls(A, "ClearCache").len(), 2);
    // Nobody knows after a restart which stations have done it.
    let restored = Restored { boot: 2, ledger: world.site.ledger().clone(), ..Restored::default() };
    let mut again = World::with(setup(63), restored, world.now);
    again.connect(A, 1);
    again.pass(8_000);
    assert_eq!(again.calls(A, "ClearCache").len(), 1);
}

#[test]
fn tokens_are_listed_in_pages_with_where_they_are_from() {
    let mut world = with(|_| {});
    world.tokens(
        "tokens.replace",
        &json!({ "tokens": [{ "token": "good", "status": "Blocked" }, { "token": "ZOE", "max_a": 16.5 }] }),
    );
    let all = world.page("", 10);
    let row = |index: usize| {
        let row = &all["tokens"][index];
        [&row["token"], &row["status"], &row["source"]].map(|value| value.as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(row(0), ["BAD", "Blocked", "file"]);
    assert_eq!(row(1), ["good", "Blocked", "command"]);
    assert_eq!(row(2), ["ZOE", "Accepted", "command"]);
    assert_eq!((&all["tokens"][2]["max_a"], &all["next"]), (&json!(16.5), &Value::Null));
    let first = world.page("", 2);
    assert_eq!((first["tokens"].as_array().map(Vec::len), &first["next"]), (Some(2), &json!("good")));
    assert_eq!(world.page("GOOD", 2)["tokens"][0]["token"], "ZOE");
}

#[test]
fn a_changed_file_is_another_revision_and_the_same_one_is_not() {
    let mut world = with(|_| {});
    world.pass(1_000);
    let first = world.site.ledger().tokens().revision();
    assert_eq!(first, 1, "the file of the first start");
    for (more, expected) in [(false, first), (true, first + 1)] {
        let restored = Restored { boot: 2, ledger: world.site.ledger().clone(), ..Restored::default() };
        let mut setup = setup(63);
        if more {
            setup.tokens.push(member("MORE", "staff"));
        }
        let mut again = World::with(setup, restored, world.now);
        again.pass(1_000);
        assert_eq!(again.site.ledger().tokens().revision(), expected);
    }
}

#[test]
fn what_older_versions_stored_is_read() {
    let body: RecordBody =
        serde_json::from_str(r#"{"configuration_changed":{"version":"0.1.0","cause":"start"}}"#).expect("read");
    assert_eq!(
        body,
        RecordBody::ConfigurationChanged { version: "0.1.0".to_owned(), cause: "start".to_owned(), tokens_file: 0 }
    );
    let old = r#"{"last":7,"next_transaction":3,"stations":{},"alarms":[],"commands":[]}"#;
    let ledger = Ledger::restore(old.as_bytes()).expect("read");
    assert_eq!((ledger.tokens().revision(), ledger.tokens().entries().len()), (0, 0));
    // What is written now is what will have to be read.
    let order = Box::new(TokensOrder::Delete { tokens: vec![IdToken::new("A")] });
    let text = r#"{"tokens_changed":{"order":{"delete":{"tokens":["A"]}},"revokes":true}}"#;
    assert_eq!(serde_json::to_string(&RecordBody::TokensChanged { order, revokes: true }).expect("JSON"), text);
}
