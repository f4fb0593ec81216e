//! What stations are given, and what is counted for those that are silent, refuse or were never told.

use super::*;

impl World {
    /// Station A has a call to answer that has nothing to do with its limit.
    fn ask_for_diagnostics(&mut self) {
        let command = crate::engine::model::command::Command::OcppCall {
            charger: StationId::new("CPA"),
            action: "GetDiagnostics".to_owned(),
            payload: "{}".to_owned(),
        };
        self.put(Input::Request { request: RequestId(1), command });
    }
}

#[test]
fn idle_stations_are_paused_and_a_transaction_is_offered_current_within_a_second() {
    let mut world = World::new(63);
    world.connect(A, 1);
    world.connect(B, 2);
    world.pass(10_000);
    assert_eq!(world.limits, [Some(0.0), Some(0.0)]);
    world.start(A, 1, "GOOD");
    world.pass(400);
    assert_eq!(world.limits, [Some(32.0), Some(0.0)]);
    assert_eq!(world.count(|body| matches!(body, RecordBody::ChargerTamed { .. })), 2);
}

#[test]
fn a_token_that_may_not_charge_gets_no_current() {
    let mut world = World::new(63);
    world.connect(A, 1);
    world.start(A, 1, "BAD");
    world.pass(6_000);
    world.durable();
    assert_eq!(world.answers(A)[0]["idTagInfo"]["status"], "Blocked");
    assert_eq!(world.limits[0], Some(0.0));
}

#[test]
fn an_overload_is_cut_in_the_next_tick() {
    let mut world = World::new(63);
    world.connect(A, 1);
    world.connect(B, 2);
    world.pass(10_000);
    world.start(A, 1, "GOOD");
    world.start(B, 2, "GOOD");
    world.pass(12_000);
    let total: f64 = world.limits.iter().flatten().sum();
    assert!(total > 50.0 && total <= 57.7, "{:?}", world.limits);
    // The stations may draw at most 57.7 A, so at least 17.3 A of this is other load.
    world.meter_a = Some(75);
    world.pass(400);
    let total: f64 = world.limits.iter().flatten().sum();
    assert!(total <= 45.7, "{:?}", world.limits);
}

#[test]
fn a_silent_meter_is_never_zero() {
    let mut world = World::new(40);
    world.connect(A, 1);
    world.connect(B, 2);
    world.pass(6_000);
    world.start(A, 1, "GOOD");
    world.pass(1_000);
    assert_eq!(world.limits[0], Some(32.0));
    world.meter_a = None;
    world.pass(6_000);
    // 10 A are assumed where 5 A were measured.
    assert_eq!(world.limits[0], Some(30.0));
    assert_eq!(world.site.status(world.now).circuits[0].background_source, "configured");
    world.pass(5_000);
    assert!(world.site.status(world.now).alarms.iter().any(|alarm| alarm.message.contains("Meter main")));
}

#[test]
fn a_meter_that_lacks_a_phase_is_lost() {
    let mut world = World::new(40);
    world.meter_a = None;
    let current = PerPhase::new(Some(Current::from_a(5)), None, Some(Current::from_a(5)));
    for _ in 0..15 {
        let result = Ok(MeterReading { current, ..MeterReading::default() });
        world.put(Input::Meter { meter: METER, asked_at: world.now.mono, result });
        world.pass(1_000);
    }
    let status = world.site.status(world.now);
    assert!(!status.meters[0].fresh);
    assert!(status.alarms.iter().any(|alarm| alarm.message.contains("a phase has no current")), "{:?}", status.alarms);
}

#[test]
fn a_silent_station_keeps_its_share_until_its_lease_is_over() {
    let mut world = World::new(45);
    world.connect(A, 1);
    world.connect(B, 2);
    world.pass(6_000);
    world.start(A, 1, "GOOD");
    world.pass(1_000);
    assert_eq!(world.limits[0], Some(32.0));
    let reason = "reset".to_owned();
    world.put(Input::StationDisconnected { station: A, connection: ConnectionId(1), reason });
    world.start(B, 2, "GOOD");
    world.pass(60_000);
    assert_eq!(world.limits[1], Some(7.7));
    world.pass(100_000);
    let offered = world.limits[1].unwrap_or_default();
    assert!((32.0..=33.7).contains(&offered), "{offered}: the silent one counts at its fallback of 6 A now");
}

#[test]
fn a_restart_folds_the_same_state_and_remembers_the_offers() {
    let mut world = World::new(45);
    world.connect(A, 1);
    world.connect(B, 2);
    world.pass(6_000);
    world.start(A, 1, "GOOD");
    world.pass(6_000);
    let mut ledger = Ledger::default();
    for record in &world.records {
        ledger.apply(record);
    }
    assert_eq!(&ledger, world.site.ledger());
    assert_eq!(Ledger::restore(&ledger.snapshot()), Ok(ledger.clone()));
    let restored = Restored {
        store_id: "s".to_owned(),
        boot: 2,
        ledger,
        remembered: world.remembered.clone(),
        ..Restored::default()
    };
    let mut again = World::with(setup(45), restored, Now { mono: Mono::START, ..world.now });
    again.pass(1_000);
    let status = again.site.status(again.now);
    assert_eq!(status.chargers[0].evses[0].committed_a, 32.0);
    assert_eq!(status.transactions.len(), 1);
    assert_eq!(status.chargers[1].evses[0].committed_a, 0.0);
}

#[test]
fn a_station_that_was_never_seen_counts_at_its_maximum() {
    let mut world = World::new(45);
    world.connect(A, 1);
    world.pass(6_000);
    world.start(A, 1, "GOOD");
    world.pass(1_000);
    assert_eq!(world.site.status(world.now).chargers[1].evses[0].committed_a, 32.0);
    assert_eq!(world.limits[0], Some(7.7));
}

#[test]
fn a_station_without_a_lease_counts_at_its_maximum_until_it_has_accepted() {
    let now = Now { mono: Mono::from_ms(1_000), utc: Utc::from_unix_ms(1_790_000_000_000), utc_trusted: true };
    let none = stations(|station| station.model.lease = crate::engine::model::topology::LeaseForm::None);
    let mut world = World::with(none, Restored { boot: 1, ..Restored::default() }, now);
    world.accepting = false;
    world.connect(A, 1);
    world.pass(1_000);
    assert_eq!(world.last_profile(A)[2], "SetChargingProfile");
    assert_eq!(world.site.status(world.now).chargers[0].evses[0].committed_a, 32.0);
    world.accepting = true;
    world.connect(A, 2);
    world.pass(10_000);
    assert_eq!(world.site.status(world.now).chargers[0].evses[0].committed_a, 0.0);
    // While it was silent it may have gone back to its maximum.
    let reason = "reset".to_owned();
    world.put(Input::StationDisconnected { station: A, connection: ConnectionId(2), reason });
    world.pass(1_000);
    world.accepting = false;
    world.connect(A, 3);
    world.pass(1_000);
    assert_eq!(world.site.status(world.now).chargers[0].evses[0].committed_a, 32.0);
}

#[test]
fn a_raise_that_ends_in_an_error_may_be_in_force() {
    let mut world = World::new(45);
    world.connect(A, 1);
    world.pass(10_000);
    world.accepting = false;
    world.start(A, 1, "GOOD");
    world.pass(400);
    let id = world.last_profile(A)[1].clone();
    let text = json!([3, id, {}]).to_string();
    world.put(Input::StationFrame { station: A, connection: ConnectionId(1), text });
    world.pass(400);
    assert!(world.site.status(world.now).chargers[0].evses[0].committed_a > 6.0);
}

#[test]
fn a_station_that_does_not_answer_is_cut_too_when_its_circuit_is_too_full() {
    let mut world = World::new(45);
    world.connect(A, 1);
    world.connect(B, 2);
    world.pass(10_000);
    world.start(A, 1, "GOOD");
    world.pass(10_000);
    assert_eq!(world.limits[0], Some(32.0));
    world.accepting = false;
    world.ask_for_diagnostics();
    world.pass(32_000);
    // It may obey although its answers are lost.
    world.meter_a = Some(60);
    world.pass(70_000);
    let periods = &world.last_profile(A)[3]["csChargingProfiles"]["chargingSchedule"]["chargingSchedulePeriod"];
    assert_eq!(periods[0]["limit"].as_f64(), Some(0.0));
}

#[test]
fn a_schedule_is_written_in_the_time_that_the_station_was_told() {
    let start = |world: &World| {
        let profile = &world.last_profile(A)[3]["csChargingProfiles"]["chargingSchedule"]["startSchedule"];
        Utc::parse(profile.as_str().expect("a time")).expect("a time")
    };
    let mut world = World::new(45);
    world.connect(A, 1);
    world.call(A, 1, "Heartbeat", &json!({}));
    world.pass(10_000);
    let before = start(&world);
    // The gateway's clock is set; the station does not know that yet.
    world.now.utc = world.now.utc.plus_ms(3_600_000);
    world.pass(40_000);
    assert!(start(&world).since(before) < 60_000, "the schedule would begin in an hour, without a limit until then");
    world.call(A, 1, "Heartbeat", &json!({}));
    world.pass(400);
    assert!(start(&world).since(before) > 3_600_000, "what it holds is over by its new time");
}

#[test]
fn offers_remembered_by_an_untrusted_clock_last_as_long_as_they_can() {
    let mut world = World::new(45);
    world.now.utc = Utc::from_unix_ms(1_000);
    world.now.utc_trusted = false;
    world.connect(A, 1);
    world.connect(B, 2);
    world.pass(10_000);
    world.start(A, 1, "GOOD");
    world.pass(6_000);
    assert_eq!(world.limits[0], Some(32.0));
    let restored = Restored {
        boot: 2,
        ledger: world.site.ledger().clone(),
        remembered: world.remembered.clone(),
        ..Restored::default()
    };
    let now = Now { mono: Mono::START, utc: Utc::from_unix_ms(1_790_000_000_000), utc_trusted: true };
    let mut again = World::with(setup(45), restored, now);
    again.pass(60_000);
    assert_eq!(again.site.status(again.now).chargers[0].evses[0].committed_a, 32.0);
}

#[test]
fn a_new_fallback_is_remembered_with_the_station_that_accepted_it() {
    let mut world = World::new(45);
    world.connect(A, 1);
    world.pass(10_000);
    let restored = Restored { boot: 2, ledger: world.site.ledger().clone(), ..Restored::default() };
    let mut again = World::with(stations(|station| station.fallback = Current::from_a(10)), restored, world.now);
    again.connect(A, 1);
    again.pass(10_000);
    let facts = again.site.ledger().station(&StationId::new("CPA")).expect("known");
    assert_eq!(facts.tamed.get(&1), Some(&Current::from_a(10)));
}

#[test]
fn who_knows_no_pause_keeps_its_minimum_and_the_others_are_planned_around_it() {
    // 15 A less the 5 A of other loads: room for one minimum of 6 A.
    let mut world = World::new(15);
    world.connect(A, 1);
    world.connect(B, 2);
    world.start(A, 1, "GOOD");
    world.start(B, 2, "GOOD");
    world.accepting = false;
    let mut given = [f64::NAN; 2];
    let (mut answered, mut together) = (world.frames.len(), 0);
    // Long enough for a turn of each.
    for tick in 0..12_000 {
        world.pass(200);
        world.answer(&mut answered, |station, limit| {
            let accepts = station != A || limit != Some(0.0);
            given[station.0] = limit.filter(|_| accepts).unwrap_or(given[station.0]);
            accepts
        });
        together += usize::from(tick > 1_000 && given[0] + given[1] > 10.0);
    }
    assert_eq!((together, given[1]), (0, 0.0), "A has {} A, which it cannot lose", given[0]);
    assert!(given[0] >= 6.0);
}

#[test]
fn what_overloads_nothing_is_planned_with_within_a_second() {
    let mut world = World::new(40);
    world.connect(A, 1);
    world.pass(10_000);
    world.start(A, 1, "GOOD");
    world.pass(10_000);
    let gaps = (0..60).map(|tick| {
        // Each reading is a new one, and none is above the limit.
        world.meter_a = Some(4 - tick % 2);
        world.pass(200);
        world.now.mono.since(world.site.planned_at)
    });
    let longest = gaps.max().unwrap_or(0);
    assert!((600..1_000).contains(&longest), "{longest} ms after the last plan there was no other one");
}

/// 45 A less the 5 A of other loads: A has 32 A, B charges nothing and has 0 A. Nobody answers any more.
fn a_charges_beside_b() -> World {
    let mut world = World::new(45);
    world.connect(A, 1);
    world.connect(B, 2);
    world.start(A, 1, "GOOD");
    world.pass(60_000);
    assert!(world.limits[0].is_some_and(|limit| limit >= 30.0), "{:?}", world.limits);
    world.accepting = false;
    world
}

#[test]
fn a_station_that_does_not_answer_its_cut_is_planned_around() {
    let mut world = a_charges_beside_b();
    // B may hold nothing any more after its boot, and does not say that it has taken the limit of 0 A.
    let mut answered = world.frames.len();
    world.call(B, 2, "BootNotification", &json!({ "chargePointVendor": "v", "chargePointModel": "m" }));
    let mut given = world.limits[0];
    for _ in 0..45 {
        world.pass(200);
        let frames = world.frames.len();
        let calls: Vec<_> = world.frames[answered..].to_vec();
        answered = frames;
        for (_, frame) in calls.into_iter().filter(|(station, frame)| *station == A && frame[0] == 2) {
            given = frame[3]["csChargingProfiles"]["chargingSchedule"]["chargingSchedulePeriod"][0]["limit"].as_f64();
            let text = json!([3, frame[1], { "status": "Accepted" }]).to_string();
            world.put(Input::StationFrame { station: A, connection: ConnectionId(1), text });
        }
    }
    assert!(given.is_some_and(|given| given <= 8.0), "{given:?} A beside the 32 A of B in 40 A, 9 s after its boot");
}

#[test]
fn a_cut_that_was_never_answered_is_told_again_when_the_station_is_back() {
    let mut world = a_charges_beside_b();
    world.meter_a = Some(50);
    world.pass(5_000);
    let reason = "ping timeout".to_owned();
    world.put(Input::StationDisconnected { station: A, connection: ConnectionId(1), reason });
    world.accepting = true;
    world.limits = [None; 2];
    world.connect(A, 3);
    world.pass(11_000);
    assert!(world.limits[0].is_some_and(|limit| limit <= 27.0), "{:?}", world.limits);
}

/// Station B has no lease, so that it counts at its maximum while it is silent. 45 A.
fn b_without_a_lease() -> World {
    let now = Now { mono: Mono::from_ms(1_000), utc: Utc::from_unix_ms(1_790_000_000_000), utc_trusted: true };
    let setup = stations(|station| {
        if station.id == StationId::new("CPB") {
            station.model.lease = crate::engine::model::topology::LeaseForm::None;
        }
    });
    let mut world = World::with(setup, Restored { boot: 1, ..Restored::default() }, now);
    world.connect(A, 1);
    world.connect(B, 2);
    world
}

#[test]
fn what_the_meter_showed_beside_a_silent_station_is_no_room_when_it_is_heard_again() {
    let mut world = b_without_a_lease();
    world.start(A, 1, "GOOD");
    world.pass(60_000);
    world.accepting = false;
    world.meter_a = Some(0);
    // Nobody knows whether B keeps a limit while it is silent: it counts at its 32 A.
    let mut frames = (world.frames.len(), None);
    let beside = world.answered_by(A, 300_000, &mut frames);
    assert_eq!(world.site.status(world.now).chargers[1].evses[0].committed_a, 32.0);
    assert!(beside.is_some_and(|limit| limit <= 13.0), "{beside:?}");
    // This may be the car of B, for all that is known.
    world.meter_a = Some(30);
    world.answered_by(A, 60_000, &mut frames);
    // It was not: B had its 0 A all the time.
    world.accepting = true;
    world.accept_all(&mut frames.0);
    for _ in 0..200 {
        world.pass(200);
        let limit = world.limits[0].or(frames.1);
        assert!(limit.is_some_and(|limit| limit <= 15.0), "{limit:?} A beside 30 A of others in 45 A");
    }
    assert_eq!(world.site.status(world.now).chargers[1].evses[0].committed_a, 0.0);
}

#[test]
fn what_the_meter_showed_beside_a_silent_station_is_no_room_for_that_station_either() {
    let mut world = b_without_a_lease();
    world.meter_a = Some(35);
    world.start(B, 2, "GOOD");
    world.pass(60_000);
    assert!(world.limits[1].is_some_and(|limit| limit <= 10.0), "{:?}", world.limits);
    world.accepting = false;
    world.meter_a = Some(0);
    let mut frames = (world.frames.len(), None);
    world.answered_by(A, 300_000, &mut frames);
    world.meter_a = Some(30);
    world.answered_by(A, 60_000, &mut frames);
    world.accepting = true;
    world.accept_all(&mut frames.0);
    for _ in 0..200 {
        world.pass(200);
        assert!(
            world.limits[1].is_some_and(|limit| limit <= 15.0),
            "{:?} A beside 30 A of others in 45 A",
            world.limits
        );
    }
}

#[test]
fn what_a_silent_station_had_is_no_room_until_the_meters_have_shown_that_its_cut_was_followed() {
    let mut world = World::new(45);
    world.connect(A, 1);
    world.connect(B, 2);
    world.meter_a = Some(30);
    world.start(A, 1, "GOOD");
    world.pass(60_000);
    assert!(world.limits[0].is_some_and(|limit| (14.0..=15.0).contains(&limit)), "{:?}", world.limits);
    // It falls silent, and is to be paused for a load that comes and goes; then the others draw less for a while.
    world.accepting = false;
    let mut frames = (world.frames.len(), None);
    for (meter_a, ms) in [(30, 70_000), (60, 2_000), (14, 40_000), (30, 2_000)] {
        world.meter_a = Some(meter_a);
        world.answered_by(B, ms, &mut frames);
    }
    // Its answer to the pause: what the meter shows from now on is not its own, once its car has followed.
    world.accepting = true;
    world.accept_all(&mut frames.0);
    for _ in 0..200 {
        world.pass(200);
        assert!(
            world.limits[0].is_some_and(|limit| limit <= 15.0),
            "{:?} A beside 30 A of others in 45 A",
            world.limits
        );
    }
    assert!(world.limits[0].is_some_and(|limit| limit >= 14.0), "{:?}", world.limits);
}

#[test]
fn a_raise_that_waits_behind_an_unanswered_limit_holds_no_current_for_long() {
    let now = Now { mono: Mono::from_ms(1_000), utc: Utc::from_unix_ms(1_790_000_000_000), utc_trusted: true };
    let two = stations(|station| station.evse_count = 2);
    let mut world = World::with(two, Restored { boot: 1, ..Restored::default() }, now);
    world.meter_a = Some(25);
    world.connect(A, 1);
    world.connect(B, 2);
    for connector in [1, 2] {
        let start =
            json!({ "connectorId": connector, "idTag": "GOOD", "meterStart": 0, "timestamp": "2026-09-21T14:00:00Z" });
        world.call(A, 1, "StartTransaction", &start);
    }
    world.pass(60_000);
    let committed = |world: &World| {
        let evses = &world.site.status(world.now).chargers[0].evses;
        (evses[0].committed_a, evses[1].committed_a)
    };
    let low = committed(&world);
    assert!(low.0 <= 10.0 && low.1 <= 10.0, "{low:?} beside 25 A of others in 45 A");
    // The limits are due again. The first is never answered, and the second waits behind it while the other load goes.
    world.accepting = false;
    let is_limit = |(station, frame): &(StationIndex, Value)| *station == A && frame[2] == "SetChargingProfile";
    let mut answered = world.frames.len();
    while !world.frames.last().is_some_and(is_limit) {
        world.answer_of(&mut answered, |_, limit| limit.is_none());
        world.pass(200);
    }
    world.meter_a = Some(5);
    let mut most: f64 = 0.0;
    for _ in 0..35 {
        world.pass(200);
        world.answer_of(&mut answered, |_, limit| limit.is_none());
        most = most.max(committed(&world).1);
    }
    assert!(most >= 15.0, "the raise of the second waits, and counts: {most}");
    world.pass(5_000);
    assert_eq!(committed(&world).1, low.1, "after 8 s nothing waits any more");
}

#[test]
fn what_flows_on_an_unknown_phase_balances_no_other() {
    let old = setup(63);
    let mut circuits = old.topology.circuits().to_vec();
    circuits[0].max_unbalance = Some(Current::from_a(16));
    let mut stations = old.topology.stations().to_vec();
    stations[0].wiring = Wiring::unknown(3).expect("three terminals");
    stations[1].wiring = Wiring::new(&[crate::engine::units::Phase::L1]).expect("one terminal");
    for station in &mut stations {
        station.fallback = Current::ZERO;
    }
    let topology = &old.topology;
    let meters = topology.meters().to_vec();
    let topology = Topology::new(topology.site().clone(), topology.voltage(), circuits, stations, (meters, vec![]));
    let setup = Setup { topology: topology.expect("valid"), ..old };
    let mut world =
        World::with(setup, Restored { store_id: "s".to_owned(), boot: 1, ..Restored::default() }, at_start());
    world.connect(A, 1);
    world.connect(B, 2);
    world.pass(10_000);
    world.start(A, 1, "GOOD");
    world.pass(20_000);
    // Its car has one phase, and nobody knows which of the grid's that is: on L2 it balances nothing for certain.
    let mut most: f64 = 0.0;
    for round in 0..12 {
        let flows = world.limits[0].unwrap_or_default();
        let values = [flows, 0.0, 0.0].map(|amperes| format!("{amperes:.1}"));
        let phase = |index: usize| json!({ "value": values[index], "measurand": "Current.Import", "phase": format!("L{}", index + 1), "unit": "A" });
        let sampled = json!([phase(0), phase(1), phase(2)]);
        let payload =
            json!({ "connectorId": 1, "meterValue": [{ "timestamp": world.now.utc, "sampledValue": sampled }] });
        world.call(A, 1, "MeterValues", &payload);
        if round == 2 {
            world.start(B, 2, "GOOD");
        }
        world.pass(5_000);
        most = most.max(world.limits.iter().flatten().sum());
    }
    assert!(most <= 16.0, "{most} A may flow on L1, and nothing for certain on the others: {:?}", world.limits);
}
