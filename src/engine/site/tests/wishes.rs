//! Boosts, targets, priorities and what is said of them, at the level of the site.

use super::*;
use crate::engine::model::alarm::AlarmKind;
use crate::engine::model::command::{Command, CommandOutcome};
use crate::engine::model::ids::TransactionId;
use crate::engine::model::limit::{LimitAmount, LimitOrder, LimitOrigin, LimitTarget};
use crate::engine::model::status::EvseStatus;
use crate::engine::model::wish::{BoostLength, Place, TargetEnd, TimeOfDay, Wish};
use crate::engine::site::ledger::Ledger;
use crate::engine::units::Energy;

/// 14:13:20 UTC, 16:13:20 in Berlin.
const UTC_MS: i64 = 1_790_000_000_000;

fn now() -> Now {
    Now { mono: Mono::from_ms(1_000), utc: Utc::from_unix_ms(UTC_MS), utc_trusted: true }
}

fn world_with(limit_a: i32, change: impl FnOnce(&mut Setup)) -> World {
    let mut setup = setup(limit_a);
    change(&mut setup);
    World::with(setup, Restored { store_id: "s".to_owned(), boot: 1, ..Restored::default() }, now())
}

/// Two 1.6 stations, each with a running transaction of `GOOD`.
fn charging(limit_a: i32, change: impl FnOnce(&mut Setup)) -> World {
    let mut world = world_with(limit_a, change);
    world.connect(A, 1);
    world.connect(B, 2);
    world.pass(6_000);
    world.start(A, 1, "GOOD");
    world.start(B, 2, "GOOD");
    world.pass(30_000);
    world
}

fn at(charger: &str) -> Place {
    Place::Connector { charger: StationId::new(charger), connector: 1 }
}

impl World {
    fn ask(&mut self, command: Command) -> CommandOutcome {
        self.put(Input::Request { request: RequestId(1), command });
        self.durable();
        match self.replies.pop() {
            Some(Output::Reply { outcome, .. }) => outcome,
            other => panic!("no answer but {other:?}"),
        }
    }

    fn evse(&self, station: usize) -> EvseStatus {
        self.site.status(self.now).chargers[station].evses[0].clone()
    }

    /// A meter value of the running transaction: what flows on L1 to L3, and the register.
    fn sample(&mut self, (station, connection): (StationIndex, u64), amperes: [i64; 3], register_wh: i64) {
        let phase = |index: usize| {
            json!({ "value": amperes[index].to_string(), "measurand": "Current.Import",
            "phase": format!("L{}", index + 1), "unit": "A" })
        };
        let energy = json!({ "value": register_wh.to_string() });
        let payload = json!({ "connectorId": 1, "meterValue": [{ "timestamp": self.now.utc.to_string(),
            "sampledValue": [phase(0), phase(1), phase(2), energy] }] });
        self.call(station, connection, "MeterValues", &payload);
    }

    fn target(&mut self, energy_wh: i64, in_ms: i64) -> CommandOutcome {
        let departure = self.now.utc.plus_ms(in_ms);
        self.ask(Command::Target { place: at("CPA"), energy: Energy::from_wh(energy_wh), departure })
    }

    fn stands(&self, kind: AlarmKind) -> Option<String> {
        let found = self.site.ledger().alarms().iter().find(|alarm| alarm.key.kind == kind);
        found.map(|alarm| alarm.message.clone())
    }

    fn ends(&self) -> Vec<TargetEnd> {
        let end = |record: &Record| match &record.body {
            RecordBody::TargetEnded { cause, .. } => Some(*cause),
            _ => None,
        };
        self.records.iter().filter_map(end).collect()
    }

    fn restart(&self, change: impl FnOnce(&mut Restored, &mut Now)) -> Self {
        let mut ledger = Ledger::default();
        self.records.iter().for_each(|record| ledger.apply(record));
        assert_eq!(Ledger::restore(&ledger.snapshot()), Ok(ledger.clone()));
        let mut restored = Restored { store_id: "s".to_owned(), boot: 2, ledger, ..Restored::default() };
        let mut now = Now { mono: Mono::START, ..self.now };
        change(&mut restored, &mut now);
        let mut again = Self::with(setup(45), restored, now);
        again.connect(A, 11);
        again.connect(B, 12);
        again
    }
}

#[test]
fn a_boost_goes_before_every_priority_and_ends_by_itself() {
    // 25 A for charging: the minimums fit, and a boosted car gets ten times the share of the other.
    let mut world = charging(45, |_| {});
    let before = world.limits;
    let outcome = world.ask(Command::Boost { place: at("CPB"), length: BoostLength::Minutes(30) });
    assert!(
        matches!(&outcome, CommandOutcome::Accepted { data: Some(data) } if data.contains("\"until\"")),
        "{outcome:?}"
    );
    world.pass(20_000);
    let evse = world.evse(1);
    assert_eq!((evse.priority, evse.priority_from.as_str(), evse.weight), (1_000, "boost", 10));
    assert_eq!(evse.boost_until, Some(Utc::from_unix_ms(UTC_MS + 36_000 + 30 * 60_000)));
    assert_eq!(evse.wishes, "goes first (boost) until 16:43");
    assert!(world.limits[1] > before[1] && world.limits[0] < before[0], "{before:?} {:?}", world.limits);
    world.pass(29 * 60_000);
    assert_eq!(world.evse(1).priority_from, "boost");
    world.pass(60_000);
    let evse = world.evse(1);
    assert_eq!((evse.priority, evse.priority_from.as_str(), evse.boost_until), (0, "station", None));
    assert_eq!(world.count(|body| matches!(body, RecordBody::BoostEnded { .. })), 1);
}

#[test]
fn a_boost_survives_a_restart_and_its_time_goes_on_meanwhile() {
    let mut world = charging(45, |_| {});
    world.ask(Command::Boost { place: at("CPA"), length: BoostLength::Minutes(30) });
    let mut again = world.restart(|_, now| now.utc = now.utc.plus_ms(10 * 60_000));
    again.pass(1_000);
    assert_eq!(again.evse(0).priority_from, "boost");
    again.pass(19 * 60_000);
    assert_eq!(again.evse(0).priority_from, "boost");
    again.pass(60_000);
    assert_eq!(again.evse(0).priority_from, "station");
    // Over while nobody looked.
    let mut late = world.restart(|_, now| now.utc = now.utc.plus_ms(31 * 60_000));
    late.pass(2_000);
    assert_eq!(late.evse(0).priority_from, "station");
}

#[test]
fn a_boost_ends_with_its_transaction_and_not_with_another() {
    let mut world = charging(45, |_| {});
    world.ask(Command::Boost { place: Place::Transaction(TransactionId::new("1")), length: BoostLength::Minutes(60) });
    world.pass(1_000);
    assert_eq!(world.evse(0).priority_from, "boost");
    let stop = |id: u32| json!({ "transactionId": id, "meterStop": 5000, "timestamp": "2026-09-21T15:00:00Z" });
    world.call(B, 2, "StopTransaction", &stop(2));
    world.pass(1_000);
    assert_eq!(world.evse(0).priority_from, "boost");
    world.call(A, 1, "StopTransaction", &stop(1));
    world.pass(1_000);
    let evse = world.evse(0);
    assert_eq!((evse.priority_from.as_str(), evse.boost_until), ("station", None));
    // Set before the car comes it waits for it.
    world.ask(Command::Boost { place: at("CPB"), length: BoostLength::Minutes(60) });
    world.start(B, 2, "GOOD");
    world.pass(1_000);
    assert_eq!(world.evse(1).priority_from, "boost");
    world.ask(Command::BoostClear { place: at("CPB") });
    world.pass(1_000);
    assert_eq!(world.evse(1).priority_from, "station");
}

#[test]
fn a_boost_that_cannot_be_meant_is_refused_and_changes_nothing() {
    let mut world = charging(45, |_| {});
    let records = world.records.len();
    let minutes = BoostLength::Minutes(30);
    let until = |ms: i64| BoostLength::Until(Utc::from_unix_ms(UTC_MS + ms));
    for (place, length, part) in [
        (at("CPX"), minutes, "there is no charger CPX"),
        (Place::Connector { charger: StationId::new("CPA"), connector: 2 }, minutes, "has no connector 2"),
        (Place::Transaction(TransactionId::new("99")), minutes, "no transaction 99 is running"),
        (at("CPA"), BoostLength::Minutes(1_441), "1440 minutes at most"),
        (at("CPA"), until(-1_000), "over already"),
        (at("CPA"), until(2 * 86_400_000), "1440 minutes at most"),
    ] {
        let outcome = world.ask(Command::Boost { place, length });
        assert!(matches!(&outcome, CommandOutcome::Rejected { error } if error.contains(part)), "{outcome:?}");
    }
    world.now.utc_trusted = false;
    let outcome = world.ask(Command::Boost { place: at("CPA"), length: until(3_600_000) });
    assert!(matches!(&outcome, CommandOutcome::Rejected { error } if error.contains("give `minutes`")), "{outcome:?}");
    assert_eq!(world.records.len(), records);
}

#[test]
fn a_token_stands_over_its_group_and_that_over_its_station() {
    let mut world = world_with(100, |setup| {
        let staff = Wish { priority: Some(5), weight: Some(300), max: Some(Current::from_a(16)), ..Wish::default() };
        setup.groups.insert("staff".to_owned(), staff);
        let own = Wish { priority: Some(-3), min: Some(Current::from_a(13)), ..Wish::default() };
        let entry = |token: &str, wish| TokenEntry {
            token: IdToken::new(token),
            status: AuthorizationStatus::Accepted,
            group: Some("staff".to_owned()),
            expires: None,
            wish,
        };
        setup.tokens.extend([entry("STAFF", Wish::default()), entry("GUARD", own)]);
    });
    world.connect(A, 1);
    world.connect(B, 2);
    world.pass(6_000);
    world.start(A, 1, "STAFF");
    world.start(B, 2, "GUARD");
    world.pass(20_000);
    let (a, b) = (world.evse(0), world.evse(1));
    assert_eq!((a.priority, a.priority_from.as_str(), a.weight), (5, "group", 300));
    assert_eq!((b.priority, b.priority_from.as_str(), b.weight), (-3, "token", 300));
    assert_eq!(world.limits, [Some(16.0), Some(16.0)]);
    assert!(a.explanation.contains("16.0 A: its token may have no more"), "{}", a.explanation);
    assert_eq!(b.wishes, "its car needs at least 13.0 A; its token may have 16.0 A at most");
    // 22 A with 5 A of other load are enough for one of them and its minimum, and the one that needs 13 A waits.
    world.ask(Command::LimitSet(LimitOrder {
        target: LimitTarget::Circuit(CircuitId::new("grid")),
        origin: LimitOrigin::Local,
        amount: LimitAmount::PerPhase(Current::from_a(22)),
        until: None,
        heartbeat: None,
    }));
    world.pass(60_000);
    assert_eq!(world.limits[1], Some(0.0), "{:?}", world.limits);
    assert!(world.limits[0] >= Some(6.0), "{:?}", world.limits);
}

#[test]
fn a_target_becomes_a_deadline_and_what_was_delivered_lowers_it() {
    let mut world = charging(200, |_| {});
    assert!(matches!(world.target(20_000, 3 * 3_600_000), CommandOutcome::Accepted { data: Some(_) }));
    world.pass(1_000);
    let deadline = world.site.plan_state.evses[0].deadline.expect("a deadline");
    // 20 kWh on three phases of 230 V are 28.986 Ah on each.
    assert_eq!(deadline.missing_ma_s, 104_347_827);
    // Steered to be met five minutes early.
    assert_eq!(deadline.by.since(world.now.mono), 3 * 3_600_000 - 1_000 - 300_000);
    world.sample((A, 1), [16, 16, 16], 11_000);
    world.pass(1_000);
    let target = world.evse(0).target.expect("a target");
    assert_eq!((target.missing_wh, target.short_wh, target.source.as_str()), (10_000, 0, "command"));
    // One phase only: three times the charge on it.
    world.sample((A, 1), [16, 0, 0], 11_000);
    world.pass(2_000);
    let deadline = world.site.plan_state.evses[0].deadline.expect("a deadline");
    assert_eq!(deadline.missing_ma_s, 156_521_740);
    assert_eq!(world.evse(0).wishes, "20.0 kWh by 19:13 (from a command): on course, 10.0 kWh to go");
    world.sample((A, 1), [16, 16, 16], 21_000);
    world.pass(1_000);
    assert_eq!((world.ends(), world.evse(0).target), (vec![TargetEnd::Met], None));
    assert_eq!(world.site.plan_state.evses[0].deadline, None);
}

#[test]
fn a_target_that_cannot_be_met_is_told_early_once_and_taken_back_when_it_can() {
    let mut world = charging(200, |_| {});
    // 32 A on three phases are 22 kW: 30 kWh in an hour are not possible.
    world.target(30_000, 3_600_000);
    world.pass(50_000);
    assert_eq!(world.stands(AlarmKind::TargetNotMet), None, "a plan needs a moment to settle");
    world.pass(20_000);
    let message = world.stands(AlarmKind::TargetNotMet).expect("an alarm");
    assert_eq!(message, "CPA connector 1: 30.0 kWh by 17:13 cannot be met, short by 8.3 kWh.");
    let target = world.evse(0).target.expect("a target");
    assert!((8_000..8_500).contains(&target.short_wh), "{target:?}");
    assert!(world.evse(0).wishes.contains("cannot be met: short by 8."), "{}", world.evse(0).wishes);
    world.pass(600_000);
    assert_eq!(
        world.count(|body| matches!(body, RecordBody::AlarmRaised(alarm) if alarm.key.kind == AlarmKind::TargetNotMet)),
        1
    );
    // A later departure makes it possible; the alarm waits until that has stood for five minutes.
    world.target(30_000, 3 * 3_600_000);
    world.pass(200_000);
    assert!(world.stands(AlarmKind::TargetNotMet).is_some());
    world.pass(120_000);
    assert_eq!(world.stands(AlarmKind::TargetNotMet), None);
}

#[test]
fn a_target_that_was_missed_says_what_was_missing() {
    let mut world = charging(200, |_| {});
    world.target(30_000, 600_000);
    world.pass(540_000);
    world.sample((A, 1), [32, 32, 32], 4_000);
    world.pass(120_000);
    assert_eq!((world.ends(), world.stands(AlarmKind::TargetNotMet)), (vec![TargetEnd::Missed], None));
    let missing = world.records.iter().find_map(|record| match &record.body {
        RecordBody::TargetEnded { missing, .. } => *missing,
        _ => None,
    });
    assert_eq!(missing, Some(Energy::from_wh(27_000)));
}

#[test]
fn the_target_of_a_token_begins_with_its_transaction_and_is_taken_back_for_it_only() {
    let departure = TimeOfDay::parse("07:00");
    let wish = Wish { departure, energy: Some(Energy::from_wh(15_000)), ..Wish::default() };
    let mut world = charging(200, |setup| setup.tokens[0].wish = wish);
    let target = world.evse(0).target.expect("a target");
    assert_eq!((target.energy_wh, target.source.as_str()), (15_000, "token"));
    // Summer time: seven o'clock in Berlin is five o'clock UTC.
    assert_eq!(target.departure.to_string(), "2026-09-22T05:00:00.000Z");
    world.ask(Command::TargetClear { place: at("CPA") });
    world.pass(10_000);
    assert_eq!((world.evse(0).target, world.evse(1).target.is_some()), (None, true));
    // A command may set another one.
    world.target(10_000, 3_600_000);
    assert_eq!(world.evse(0).target.map(|target| target.source), Some("command".to_owned()));
    let again = world.restart(|_, _| {});
    assert_eq!(again.evse(0).target.map(|target| target.energy_wh), Some(10_000));
}

#[test]
fn nothing_is_timed_while_the_clock_is_not_known() {
    let departure = TimeOfDay::parse("07:00");
    let wish = Wish { departure, energy: Some(Energy::from_wh(15_000)), ..Wish::default() };
    let mut world = world_with(200, |setup| setup.tokens[0].wish = wish);
    world.now.utc_trusted = false;
    world.connect(A, 1);
    world.start(A, 1, "GOOD");
    world.pass(10_000);
    assert_eq!((world.evse(0).target, world.count(|body| matches!(body, RecordBody::TargetSet { .. }))), (None, 0));
    let outcome = world.target(10_000, 3_600_000);
    assert!(
        matches!(&outcome, CommandOutcome::Rejected { error } if error.contains("not synchronised")),
        "{outcome:?}"
    );
    world.now.utc_trusted = true;
    world.pass(2_000);
    assert!(world.site.plan_state.evses[0].deadline.is_some());
    world.now.utc_trusted = false;
    world.pass(6_000);
    assert_eq!(world.site.plan_state.evses[0].deadline, None);
    assert!(world.evse(0).wishes.contains("not steered for while the clock"), "{}", world.evse(0).wishes);
}

#[test]
fn a_target_needs_a_transaction_and_a_time_to_come() {
    let mut world = charging(45, |_| {});
    world.connect(B, 3);
    let place = |charger| Place::Connector { charger: StationId::new(charger), connector: 1 };
    let stop = json!({ "transactionId": 2, "meterStop": 5000, "timestamp": "2026-09-21T15:00:00Z" });
    world.call(B, 3, "StopTransaction", &stop);
    for (charger, ahead_ms, part) in [
        ("CPB", 3_600_000, "no transaction is running there"),
        ("CPA", -1_000, "in the past"),
        ("CPA", 8 * 86_400_000, "more than seven days ahead"),
    ] {
        let departure = world.now.utc.plus_ms(ahead_ms);
        let energy = Energy::from_wh(1_000);
        let outcome = world.ask(Command::Target { place: place(charger), energy, departure });
        assert!(matches!(&outcome, CommandOutcome::Rejected { error } if error.contains(part)), "{outcome:?}");
    }
}

#[test]
fn a_car_tells_what_it_needs_and_a_command_stands_over_it() {
    let restored = Restored { store_id: "s".to_owned(), boot: 1, ..Restored::default() };
    let mut world = World::with(setup(200), restored, now());
    world.connect_v201(A, 1);
    let needs = |energy: i64| {
        json!({ "evseId": 1, "chargingNeeds": { "requestedEnergyTransfer": "AC_single_phase",
        "departureTime": "2026-09-21T18:13:20Z",
        "acChargingParameters": { "energyAmount": energy, "evMinCurrent": 8, "evMaxCurrent": 32, "evMaxVoltage": 230 } } })
    };
    // Before its transaction: kept for it.
    world.call(A, 1, "NotifyEVChargingNeeds", &needs(7_360));
    assert_eq!(world.answers(A)[0], &json!({ "status": "Processing" }));
    let token = json!({ "evse": { "id": 1 }, "idToken": { "idToken": "GOOD", "type": "ISO14443" } });
    world.event("Started", "Authorized", 1, &token);
    world.pass(3_000);
    let evse = world.evse(0);
    let target = evse.target.expect("a target");
    assert_eq!((target.energy_wh, target.source.as_str()), (7_360, "car"));
    // 32 Ah on its one phase.
    assert_eq!(world.site.plan_state.evses[0].deadline.map(|deadline| deadline.missing_ma_s), Some(115_200_000));
    assert_eq!(world.site.plan_state.evses[0].min, Current::from_a(8));
    assert!(evse.wishes.contains("its car needs at least 8.0 A"), "{}", evse.wishes);
    world.target(10_000, 3_600_000);
    world.call(A, 1, "NotifyEVChargingNeeds", &needs(5_000));
    world.pass(3_000);
    assert_eq!(world.evse(0).target.map(|target| target.energy_wh), Some(10_000));
    // What says nothing is refused (K15).
    let nothing = json!({ "evseId": 1, "chargingNeeds": { "requestedEnergyTransfer": "AC_three_phase" } });
    world.call(A, 1, "NotifyEVChargingNeeds", &nothing);
    assert_eq!(*world.answers(A).last().expect("an answer"), &json!({ "status": "Rejected" }));
}

#[test]
fn who_gets_nothing_reads_why() {
    let mut world = world_with(45, |_| {});
    world.connect(A, 1);
    world.pass(2_000);
    assert!(world.evse(0).explanation.starts_with("paused: no transaction wants to charge here"));
    world.call(A, 1, "StatusNotification", &json!({ "connectorId": 1, "status": "Preparing", "errorCode": "NoError" }));
    world.pass(1_000);
    assert!(world.evse(0).explanation.starts_with("paused: a cable is in, but nobody has started charging yet"));
    world.start(A, 1, "BAD");
    world.pass(1_000);
    assert!(world.evse(0).explanation.starts_with("paused: token \"BAD\" may not charge (Blocked)"));
    world.call(
        A,
        1,
        "StatusNotification",
        &json!({ "connectorId": 1, "status": "Faulted", "errorCode": "GroundFailure" }),
    );
    world.pass(1_000);
    assert!(world.evse(0).explanation.starts_with("paused: the connector reports a fault"));
}

#[test]
fn ledgers_and_entries_without_wishes_are_still_read() {
    let old = r#"{"last":3,"next_transaction":2,"stations":{"CPA":{"info":null,"version":"1.6","tamed":{"1":6000},"open":[],"ended":[]}},
        "limits":{},"alarms":[],"commands":[]}"#;
    let ledger = Ledger::restore(old.as_bytes()).expect("a snapshot of an earlier version");
    let facts = ledger.station(&StationId::new("CPA")).expect("known");
    assert!(facts.boosts.is_empty() && facts.targets.is_empty());
    let entry: TokenEntry =
        serde_json::from_str(r#"{"token":"A","status":"Accepted","group":null,"expires":null}"#).expect("an entry");
    assert_eq!(entry.wish, Wish::default());
}
