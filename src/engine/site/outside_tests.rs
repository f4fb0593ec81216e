//! Limits from outside, from the order to the stations and to the proof.

use chrono::NaiveTime;

use super::*;
use crate::engine::model::limit::{
    Dimming, DimmingInput, DimmingLoss, LimitAmount, LimitEnd, LimitOrigin, LimitTarget, ProofResult, ScheduledLimit,
    Window,
};
use crate::engine::model::reading::DeviceFault;
use crate::engine::units::Power;

fn grid() -> LimitTarget {
    LimitTarget::Circuit(CircuitId::new("grid"))
}

fn with(outside: OutsideSetup) -> World {
    let now = Now { mono: Mono::from_ms(1_000), utc: Utc::from_unix_ms(1_790_000_000_000), utc_trusted: true };
    World::with(Setup { outside, ..setup(63) }, Restored { boot: 1, ..Restored::default() }, now)
}

impl World {
    fn command(&mut self, kind: &str, data: &Value) -> Value {
        self.message += 1;
        let payload = json!({ "id": self.message.to_string(), "type": kind, "data": data }).to_string().into_bytes();
        self.published.clear();
        self.put(Input::Cloud(CloudInput::Message { payload, response_topic: None, correlation: None }));
        self.durable();
        let answer = self.published.iter().find(|message| message.topic.ends_with("/responses"));
        serde_json::from_str(&answer.expect("an answer").payload).expect("JSON")
    }

    /// Both stations connected, with a transaction each, at their maximum.
    fn full(mut self) -> Self {
        for (station, connection) in [(A, 1), (B, 2)] {
            self.connect(station, connection);
        }
        self.pass(10_000);
        for (station, connection) in [(A, 1), (B, 2)] {
            self.start(station, connection, "GOOD");
        }
        self.durable();
        self.pass(20_000);
        self
    }

    /// A station says what it draws on each phase, as much as it may.
    fn values(&mut self, station: StationIndex, connection: u64) {
        let limit = self.limits[station.0].unwrap_or(0.0);
        let sampled: Vec<Value> = ["L1", "L2", "L3"]
            .iter()
            .map(|phase| json!({ "value": limit.to_string(), "measurand": "Current.Import", "phase": phase, "unit": "A" }))
            .collect();
        let values = json!({ "connectorId": 1, "transactionId": connection,
            "meterValue": [{ "timestamp": self.now.utc, "sampledValue": sampled }] });
        self.call(station, connection, "MeterValues", &values);
    }

    fn total(&self) -> f64 {
        self.limits.iter().flatten().sum()
    }

    fn proofs(&self) -> Vec<(ProofResult, Option<u64>)> {
        let proof = |record: &Record| match &record.body {
            RecordBody::LimitProven(proof) => Some((proof.result, proof.kept_ms)),
            _ => None,
        };
        self.records.iter().filter_map(proof).collect()
    }
}

#[test]
fn the_lowest_of_several_limits_holds_and_clearing_one_leaves_the_others() {
    let mut world = with(OutsideSetup::default()).full();
    assert!(world.total() > 50.0, "{:?}", world.limits);
    assert_eq!(world.command("limit.set", &json!({ "circuit": "grid", "limit_a": 30 }))["status"], "accepted");
    let ems = json!({ "circuit": "grid", "limit_a": 25, "source": "ems" });
    assert_eq!(world.command("limit.set", &ems)["status"], "accepted");
    world.pass(60_000);
    assert!(world.total() <= 20.0 && world.total() > 18.0, "25 A less 5 A of other load: {:?}", world.limits);
    let status = world.site.status(world.now);
    let sources: Vec<&str> = status.limits.iter().map(|limit| limit.source.as_str()).collect();
    assert_eq!(sources, ["cloud", "ems"]);
    assert_eq!(status.circuits[0].limit_a, [25.0; 3]);
    let explanation = &status.chargers[0].evses[0].explanation;
    assert!(explanation.contains("limited by ems"), "{explanation}");
    world.command("limit.clear", &json!({ "circuit": "grid", "source": "ems" }));
    world.pass(60_000);
    assert!(world.total() <= 25.0 && world.total() > 23.0, "{:?}", world.limits);
    world.command("limit.clear", &json!({ "circuit": "grid" }));
    world.pass(60_000);
    assert!(world.total() > 50.0, "{:?}", world.limits);
    assert!(world.site.status(world.now).limits.is_empty());
}

#[test]
fn a_charger_is_lowered_and_below_its_minimum_paused() {
    let mut world = with(OutsideSetup::default()).full();
    world.command("limit.set", &json!({ "charger": "CPA", "limit_a": 10 }));
    world.pass(2_000);
    assert_eq!(world.limits[0], Some(10.0));
    let evse = world.site.status(world.now).chargers[0].evses[0].clone();
    assert_eq!(
        (evse.binding.as_str(), evse.explanation.as_str()),
        ("external_limit", "10.0 A: cloud limits the charger to 10.0 A")
    );
    world.command("limit.set", &json!({ "charger": "CPA", "limit_w": 4000 }));
    world.pass(2_000);
    assert_eq!(world.limits[0], Some(0.0), "4 kW are 5.8 A on three phases");
    let evse = world.site.status(world.now).chargers[0].evses[0].clone();
    assert!(evse.explanation.contains("below its minimum of 6.0 A"), "{}", evse.explanation);
    world.command("limit.clear", &json!({ "charger": "CPA" }));
    world.pass(60_000);
    assert!(world.limits[0] > Some(20.0), "{:?}", world.limits);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut world = with(OutsideSetup::default());
    for (data, says) in [
        (json!({ "circuit": "attic", "limit_a": 10 }), "there is no circuit attic"),
        (json!({ "charger": "CPX", "limit_a": 10 }), "there is no charger CPX"),
        (json!({ "circuit": "grid", "limit_a": 64 }), "from 0 to its configured 63.0 A"),
        (json!({ "circuit": "grid", "limit_w": 43471 }), "from 0 to its configured 43470 W"),
        (json!({ "charger": "CPA", "limit_a": 33 }), "never raised"),
        (json!({ "circuit": "grid", "limit_a": 10, "until": "2026-01-01T00:00:00Z" }), "`until` is in the past"),
        (
            json!({ "circuit": "grid", "limit_a": 9, "ttl_s": 9, "on_loss": { "limit_a": 70 } }),
            "from 0 to its configured",
        ),
    ] {
        let answer = world.command("limit.set", &data);
        assert_eq!(answer["status"], "rejected", "{data}");
        assert!(answer["error"].as_str().is_some_and(|error| error.contains(says)), "{answer}");
    }
    let answer = world.command("site.dim", &json!({ "active": true }));
    assert!(answer["error"].as_str().is_some_and(|error| error.contains("add [dimming]")), "{answer}");
    for name in 0..17 {
        let data = json!({ "circuit": "grid", "limit_a": 20, "source": format!("s{name}") });
        assert_eq!(world.command("limit.set", &data)["status"] == "accepted", name < 16, "{name}");
    }
}

#[test]
fn no_limit_from_outside_goes_below_the_floor() {
    let floors = [(CircuitId::new("grid"), Current::from_a(20))].into();
    let mut world = with(OutsideSetup { floors, ..OutsideSetup::default() }).full();
    let answer = world.command("limit.set", &json!({ "circuit": "grid", "limit_a": 0 }));
    assert_eq!(answer["data"], json!({ "floor_a": 20.0, "limit_a": 20.0 }));
    world.pass(60_000);
    assert!(world.total() > 13.0 && world.total() <= 15.0, "{:?}", world.limits);
}

#[test]
fn a_limit_ends_at_its_time_but_never_by_a_clock_that_is_not_trusted() {
    let mut world = with(OutsideSetup::default()).full();
    let until = world.now.utc.plus_ms(60_000);
    world.command("limit.set", &json!({ "circuit": "grid", "limit_a": 20, "until": until }));
    world.pass(30_000);
    assert!(world.total() <= 15.0);
    let restored = Restored { boot: 2, ledger: world.site.ledger().clone(), ..Restored::default() };
    let unknown = Now { mono: Mono::START, utc: until.plus_ms(3_600_000), utc_trusted: false };
    let mut again = World::with(setup(63), restored, unknown);
    again.pass(5_000);
    assert_eq!(again.site.status(again.now).circuits[0].limit_a, [20.0; 3]);
    again.now.utc_trusted = true;
    again.pass(2_000);
    assert_eq!(again.site.status(again.now).circuits[0].limit_a, [63.0; 3]);
    world.pass(40_000);
    assert_eq!(world.site.status(world.now).circuits[0].limit_a, [63.0; 3]);
    let ended = |body: &RecordBody| matches!(body, RecordBody::OutsideLimitEnded { why: LimitEnd::Expired, .. });
    assert_eq!((world.count(ended), again.count(ended)), (1, 1));
}

fn evening() -> OutsideSetup {
    let time = |hour| NaiveTime::from_hms_opt(hour, 0, 0).expect("a time");
    let window = |from, to| Window {
        from: time(from),
        to: time(to),
        weekdays: [true; 7],
        dates: vec![],
        except: vec![],
        random_delay_ms: 0,
    };
    let schedule =
        |name: &str, amount, window| ScheduledLimit { name: name.to_owned(), target: grid(), amount, window };
    OutsideSetup {
        schedules: vec![
            schedule("evening", LimitAmount::PerPhase(Current::from_a(30)), window(17, 20)),
            schedule("night", LimitAmount::Permille(500), window(22, 6)),
        ],
        ..OutsideSetup::default()
    }
}

#[test]
fn a_schedule_lowers_in_its_window_of_local_time() {
    let mut world = with(evening());
    // Berlin is two hours ahead of UTC in September.
    world.now.utc = Utc::parse("2026-09-21T14:59:00Z").expect("a time");
    let mut world = world.full();
    assert_eq!(world.site.status(world.now).circuits[0].limit_a, [63.0; 3]);
    world.pass(40_000);
    assert_eq!(world.site.status(world.now).circuits[0].limit_a, [30.0; 3]);
    assert!(world.total() <= 25.0, "{:?}", world.limits);
    assert_eq!(world.site.status(world.now).limits[0].source, "schedule evening");
    world.now.utc = Utc::parse("2026-09-21T17:59:55Z").expect("a time");
    world.pass(10_000);
    assert_eq!(world.site.status(world.now).circuits[0].limit_a, [63.0; 3]);
    let changes =
        |body: &RecordBody| matches!(body, RecordBody::OutsideLimit(_) | RecordBody::OutsideLimitEnded { .. });
    assert_eq!(world.count(changes), 2, "one for its beginning and one for its end");
}

#[test]
fn while_the_time_is_not_known_the_strictest_window_counts() {
    let mut world = with(evening());
    world.now = Now { utc: Utc::from_unix_ms(1_000), utc_trusted: false, ..world.now };
    world.pass(2_000);
    assert_eq!(world.site.status(world.now).circuits[0].limit_a, [30.0; 3]);
    world.now.utc = Utc::parse("2026-09-21T12:00:00Z").expect("a time");
    world.now.utc_trusted = true;
    world.pass(2_000);
    assert_eq!(world.site.status(world.now).circuits[0].limit_a, [63.0; 3]);
}

#[test]
fn a_schedule_that_is_gone_from_the_configuration_limits_no_more() {
    let mut world = with(evening());
    world.now.utc = Utc::parse("2026-09-21T15:30:00Z").expect("a time");
    world.pass(2_000);
    let restored = Restored { boot: 2, ledger: world.site.ledger().clone(), ..Restored::default() };
    let mut again = World::with(setup(63), restored, world.now);
    again.pass(2_000);
    assert_eq!(again.site.status(again.now).circuits[0].limit_a, [63.0; 3]);
}

fn dimmable(input: Option<DimmingInput>) -> OutsideSetup {
    // Two devices by the rule of §14a: 4.2 kW + 0.8 · 4.2 kW.
    let dimming = Dimming { circuit: CircuitId::new("grid"), power: Power::from_w(7_560), input };
    OutsideSetup { dimming: Some(dimming), ..OutsideSetup::default() }
}

/// What both stations together may draw by their limits, in W.
fn watts(world: &World) -> f64 {
    world.total() * 690.0
}

#[test]
fn dimming_leaves_the_minimum_power_to_all_stations_together_and_is_proven() {
    let mut world = with(dimmable(None)).full();
    assert!(watts(&world) > 30_000.0);
    let answer = world.command("site.dim", &json!({ "active": true }));
    assert_eq!(answer["data"], json!({ "charging_w": 7560 }));
    world.pass(1_000);
    assert!(watts(&world) <= 7_560.0, "within a second: {:?}", world.limits);
    world.pass(10_000);
    // The building does not count: more of it changes nothing.
    world.meter_a = Some(25);
    world.pass(10_000);
    assert!(watts(&world) <= 7_560.0 && watts(&world) >= 4_140.0, "one car charges: {:?}", world.limits);
    assert_eq!(world.proofs(), [], "nothing was measured yet");
    world.values(A, 1);
    world.values(B, 2);
    world.pass(400);
    let proofs = world.proofs();
    assert!(matches!(proofs[..], [(ProofResult::Kept, Some(21_000..=22_000))]), "{proofs:?}");
    let log: Value = serde_json::from_str(&world.site.limit_log()).expect("JSON");
    assert_eq!(log[0]["source"], "dimming (cloud)");
    assert!(log[0]["acknowledged_ms"].as_u64().is_some_and(|ms| ms <= 1_000), "{log}");
    assert!(log[0]["measured_w"].as_u64().is_some_and(|watts| watts <= 7_560), "{log}");
    world.command("site.dim", &json!({ "active": false }));
    world.pass(60_000);
    assert!(watts(&world) > 20_000.0, "{:?}", world.limits);
}

#[test]
fn what_is_recorded_of_powers_is_told_to_the_guard_as_it_is_planned_with() {
    let mut world = with(dimmable(None)).full();
    world.command("site.dim", &json!({ "active": true }));
    world.command("limit.set", &json!({ "circuit": "grid", "limit_w": 20_000 }));
    let recorded = world.site.recorded_limits(CircuitIndex(0));
    assert_eq!((recorded.current, recorded.power), (None, Some(Power::from_w(20_000))));
    assert_eq!(recorded.charging, Some(Power::from_w(7_560)));
    // The configuration allows more by the next start, while the dimming goes on.
    let mut outside = dimmable(None);
    outside.dimming.iter_mut().for_each(|dimming| dimming.power = Power::from_w(9_000));
    let restored = Restored { boot: 2, ledger: world.site.ledger().clone(), ..Restored::default() };
    let again = World::with(Setup { outside, ..setup(63) }, restored, world.now);
    let recorded = again.site.recorded_limits(CircuitIndex(0));
    assert_eq!(recorded.charging, Some(Power::from_w(9_000)));
    assert_eq!(again.site.circuit_limits(CircuitIndex(0)).2, recorded.charging);
}

#[test]
fn dimming_is_sent_whatever_the_budget_of_writes_says() {
    let now = Now { mono: Mono::from_ms(1_000), utc: Utc::from_unix_ms(1_790_000_000_000), utc_trusted: true };
    let setup = Setup { outside: dimmable(None), ..stations(|station| station.model.writes_per_day = Some(12)) };
    let mut world = World::with(setup, Restored { boot: 1, ..Restored::default() }, now).full();
    for _ in 0..8 {
        world.command("limit.set", &json!({ "circuit": "grid", "limit_a": 25 }));
        world.pass(30_000);
        world.command("limit.clear", &json!({ "circuit": "grid" }));
        world.pass(30_000);
    }
    let before = watts(&world);
    assert!(before > 10_000.0 && before < 15_000.0, "no raise is written any more: {:?}", world.limits);
    world.command("site.dim", &json!({ "active": true }));
    world.pass(1_000);
    assert!(watts(&world) <= 7_560.0, "{:?}", world.limits);
}

#[test]
fn a_contact_that_falls_silent_dims_after_its_time() {
    let input = DimmingInput { on_loss: DimmingLoss::Dim, loss_ms: 60_000 };
    let mut world = with(dimmable(Some(input))).full();
    let read = |world: &mut World, result| {
        let asked_at = world.now.mono;
        world.put(Input::Dimming { asked_at, result });
        world.pass(1_000);
    };
    read(&mut world, Ok(false));
    assert!(watts(&world) > 30_000.0);
    for _ in 0..58 {
        read(&mut world, Err(DeviceFault::Timeout));
    }
    assert!(watts(&world) > 30_000.0, "not yet: {:?}", world.limits);
    for _ in 0..4 {
        read(&mut world, Err(DeviceFault::Timeout));
    }
    assert!(watts(&world) <= 7_560.0, "{:?}", world.limits);
    assert_eq!(world.site.status(world.now).limits[0].source, "dimming (modbus)");
    // A restart does not set it free.
    let restored = Restored { boot: 2, ledger: world.site.ledger().clone(), ..Restored::default() };
    let outside = dimmable(Some(input));
    let mut again = World::with(Setup { outside, ..setup(63) }, restored, world.now);
    again.pass(5_000);
    assert_eq!(again.site.status(again.now).limits.len(), 1);
    read(&mut again, Ok(false));
    assert_eq!(again.site.status(again.now).limits.len(), 0);
    read(&mut world, Ok(true));
    assert_eq!(world.site.status(world.now).limits.len(), 1);
    read(&mut world, Ok(false));
    assert_eq!(world.site.status(world.now).limits.len(), 0);
}

#[test]
fn a_sender_that_goes_silent_leaves_what_it_said_and_renewals_make_no_record() {
    let mut world = with(OutsideSetup::default()).full();
    let order = json!({ "circuit": "grid", "limit_a": 40, "source": "ems", "ttl_s": 60, "on_loss": { "limit_a": 20 } });
    let set = |body: &RecordBody| matches!(body, RecordBody::OutsideLimit(_));
    let limit = |world: &World| world.site.status(world.now).circuits[0].limit_a[0];
    for _ in 0..5 {
        world.command("limit.set", &order);
        world.pass(30_000);
        assert_eq!(limit(&world), 40.0);
    }
    assert_eq!(world.count(set), 1);
    world.pass(40_000);
    assert_eq!(limit(&world), 20.0);
    assert!(world.site.status(world.now).limits[0].sender_lost);
    world.command("limit.set", &order);
    world.pass(1_000);
    assert_eq!((limit(&world), world.count(set)), (40.0, 3));
    // After a restart nobody knows whether it still lives.
    let restored = Restored { boot: 2, ledger: world.site.ledger().clone(), ..Restored::default() };
    let mut again = World::with(setup(63), restored, world.now);
    // Its commands have ids of their own: one that was seen before is not carried out again.
    again.message = 100;
    again.pass(2_000);
    assert_eq!(limit(&again), 20.0);
    again.command("limit.set", &order);
    again.pass(1_000);
    assert_eq!(limit(&again), 40.0);
    let released = json!({ "circuit": "grid", "limit_a": 30, "source": "ems", "ttl_s": 5, "on_loss": "release" });
    again.command("limit.set", &released);
    again.pass(8_000);
    assert_eq!(limit(&again), 63.0);
}

/// Both stations are back after a power cut, with their cars.
fn after_a_power_cut(outside: OutsideSetup) -> World {
    let before = with(OutsideSetup::default()).full();
    // Nothing is remembered: the RAM disk was without power too.
    let restored = Restored { boot: 2, ledger: before.site.ledger().clone(), ..Restored::default() };
    let now = Now { mono: Mono::from_ms(1_000), ..before.now };
    let mut world = World::with(Setup { outside, ..setup(63) }, restored, now);
    let boot = json!({ "chargePointVendor": "v", "chargePointModel": "m" });
    for (station, connection) in [(A, 1), (B, 2)] {
        world.connect(station, connection);
        world.call(station, connection, "BootNotification", &boot);
    }
    world.pass(6_000);
    world
}

#[test]
fn after_a_power_cut_stations_start_one_by_one() {
    let mut world = after_a_power_cut(OutsideSetup { random_start_max_ms: 600_000, ..OutsideSetup::default() });
    let waits: Vec<Option<u64>> =
        world.site.status(world.now).chargers.iter().map(|charger| charger.starts_in_s).collect();
    assert!(waits.iter().all(|wait| wait.is_some_and(|wait| wait <= 600)), "{waits:?}");
    assert_ne!(waits[0], waits[1]);
    assert_eq!(world.limits, [Some(0.0), Some(0.0)]);
    let evse = world.site.status(world.now).chargers[0].evses[0].clone();
    assert_eq!(evse.binding, "random_start", "{}", evse.explanation);
    // A boost goes first among those who may start: the wait is for the grid.
    let boosted = world.command("charging.boost", &json!({ "charger": "CPA", "connector": 1, "minutes": 30 }));
    assert_eq!(boosted["status"], "accepted", "{boosted}");
    world.pass(2_000);
    assert_eq!(world.limits[0], Some(0.0));
    assert!(world.site.status(world.now).chargers[0].starts_in_s.is_some());
    // Its user wants it now.
    assert_eq!(world.command("delay.clear", &json!({ "charger": "CPA" }))["status"], "accepted");
    world.pass(2_000);
    assert_eq!(world.limits[0], Some(32.0));
    assert_eq!(world.limits[1], Some(0.0));
    world.pass(600_000);
    assert!(world.limits[1] > Some(20.0), "{:?}", world.limits);
}

#[test]
fn a_boost_ends_the_wait_after_a_power_cut_where_the_site_says_so() {
    let mut world = after_a_power_cut(OutsideSetup {
        random_start_max_ms: 1_800_000,
        boost_ends_random_start: true,
        ..OutsideSetup::default()
    });
    assert_eq!(world.limits, [Some(0.0), Some(0.0)]);
    let boosted = world.command("charging.boost", &json!({ "charger": "CPA", "connector": 1, "minutes": 30 }));
    assert_eq!((&boosted["status"], &boosted["data"]["starts_in_s"]), (&json!("accepted"), &json!(null)), "{boosted}");
    world.pass(2_000);
    assert_eq!(world.limits, [Some(32.0), Some(0.0)]);
}

#[test]
fn what_older_versions_recorded_is_still_read() {
    let old = json!({ "limit_changed": { "circuit": "grid", "limit": 20_000, "until": "2030-01-01T00:00:00.000Z" } });
    let body: RecordBody = serde_json::from_value(old).expect("an old record");
    let stamp = Stamp { utc: Utc::default(), trusted: true, mono: Mono::START, boot: 1 };
    let mut ledger = Ledger::default();
    ledger.apply(&Record { sequence: Sequence(1), stamp, body });
    let limit = ledger.limit(&grid(), &LimitOrigin::Cloud).expect("it stands");
    assert_eq!(limit.order.amount, LimitAmount::PerPhase(Current::from_a(20)));
    let again = Ledger::restore(&ledger.snapshot()).expect("our own");
    assert_eq!(again, ledger);

    let mut old: Value = serde_json::from_slice(&Ledger::default().snapshot()).expect("JSON");
    let fields = old.as_object_mut().expect("an object");
    fields.remove("standing");
    fields.remove("proofs");
    fields.insert("limits".to_owned(), json!({ "grid": { "limit": 15_000, "until": null } }));
    let restored = Ledger::restore(old.to_string().as_bytes()).expect("an old snapshot");
    assert_eq!(restored.limits()[0].order.amount, LimitAmount::PerPhase(Current::from_a(15)));
}
