use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::engine::model::ids::{CircuitId, MeterId, SiteId, StationId};
use crate::engine::model::topology::{Circuit, Meter, Station, StationModel, Wiring};
use crate::engine::units::{Phase, Voltage};

mod offline;
mod rows;

const UTC: i64 = 1_772_366_400_000;
const A: StationIndex = StationIndex(0);
const B: StationIndex = StationIndex(1);
const GRID: CircuitIndex = CircuitIndex(0);

fn amps(a: i32) -> Current {
    Current::from_a(a)
}

fn now(at_ms: u64) -> Now {
    Now { mono: Mono::from_ms(at_ms), utc: Utc::from_unix_ms(UTC + i64::try_from(at_ms).unwrap()), utc_trusted: true }
}

/// Two stations, the first with two EVSEs, below a metered circuit.
fn topology(limit_a: i32, unmeasured_a: Option<i32>) -> Topology {
    topology_with(LeaseForm::TxDefaultProfile, limit_a, unmeasured_a)
}

fn topology_with(lease: LeaseForm, limit_a: i32, unmeasured_a: Option<i32>) -> Topology {
    let stations = [("A", 2), ("B", 1)].map(|(id, evses)| {
        let model = StationModel { lease, ..StationModel::default() };
        Station { model, ..station(id, evses) }
    });
    site(circuit(limit_a, unmeasured_a), stations.to_vec())
}

fn circuit(limit_a: i32, unmeasured_a: Option<i32>) -> Circuit {
    Circuit {
        id: CircuitId::new("grid"),
        parent: None,
        limit: PerPhase::splat(amps(limit_a)),
        meter: Some(MeterIndex(0)),
        unmeasured_load: unmeasured_a.map(|a| PerPhase::splat(amps(a))),
        max_unbalance: None,
        max_power: None,
        short_time: None,
    }
}

fn station(id: &str, evse_count: usize) -> Station {
    Station {
        id: StationId::new(id),
        circuit: GRID,
        model: StationModel::default(),
        wiring: Wiring::STRAIGHT,
        max: amps(32),
        min: amps(6),
        fallback: amps(6),
        evse_count,
        priority: 0,
        weight: 1,
        dc: None,
        password: None,
    }
}

fn site(circuit: Circuit, stations: Vec<Station>) -> Topology {
    let meter = Meter { id: MeterId::new("main"), stale_after_ms: 5_000 };
    Topology::new(SiteId::new("test"), Voltage::from_mv(230_000), vec![circuit], stations, (vec![meter], vec![]))
        .unwrap()
}

fn guard(limit_a: i32) -> Guard {
    let mut guard = Guard::new(&topology(limit_a, Some(10)), Earlier::default(), now(0));
    guard.connected(A, Mono::START);
    guard.connected(B, Mono::START);
    guard
}

fn time(ms: i64) -> String {
    Utc::from_unix_ms(UTC + ms).to_string()
}

/// The usual lease: eight hours old, so many amperes now and 6 A after so many s.
fn lease(call: &str, evse: u32, limit: &str, steps_after_s: i64, at_ms: u64) -> String {
    let at = i64::try_from(at_ms).unwrap();
    let (start, step) = (time(at - 28_800_000), 28_800 + steps_after_s);
    format!(
        r#"[2,"{call}","SetChargingProfile",{{"connectorId":{evse},"csChargingProfiles":{{"chargingProfileId":{},"stackLevel":0,"chargingProfilePurpose":"TxDefaultProfile","chargingProfileKind":"Absolute","chargingSchedule":{{"startSchedule":"{start}","chargingRateUnit":"A","chargingSchedulePeriod":[{{"startPeriod":0,"limit":{limit},"numberPhases":3}},{{"startPeriod":{step},"limit":6.0,"numberPhases":3}}]}}}}}}]"#,
        1_000 + evse
    )
}

fn accepted(call: &str) -> String {
    format!(r#"[3,"{call}",{{"status":"Accepted"}}]"#)
}

impl Guard {
    fn most(&self, evse: usize) -> Current {
        self.evses[evse].view.most
    }

    /// All three EVSEs have so many amperes and have had the time to follow.
    fn all_at(limit_a: i32, amperes: &str) -> Self {
        Self::at(&topology(limit_a, Some(10)), amperes)
    }

    fn at(topology: &Topology, amperes: &str) -> Self {
        let mut guard = Guard::new(topology, Earlier::default(), now(0));
        (0..topology.stations().len()).for_each(|index| guard.connected(StationIndex(index), Mono::START));
        for (index, evse) in topology.evses().iter().enumerate() {
            let call = format!("start-{index}");
            let frame = lease(&call, evse.number, amperes, 120, 0);
            assert_eq!(guard.sent(evse.station, &frame, now(0)), Verdict::Pass);
            guard.received(evse.station, &accepted(&call), now(0));
        }
        guard.tick(Mono::from_ms(20_000));
        guard
    }

    /// The meter has shown this long enough, with the EVSEs as they are.
    fn metered(limit_a: i32, amperes: &str, metered_a: i32) -> Self {
        let mut guard = Self::all_at(limit_a, amperes);
        for at in [20_000, 21_000, 22_000] {
            guard.reads(metered_a, at);
        }
        guard
    }

    fn reads(&mut self, a: i32, at_ms: u64) {
        // The power changes each time: the meter is alive.
        let mut reading = MeterReading { current: PerPhase::splat(Some(amps(a))), ..MeterReading::default() };
        reading.import = Some(crate::engine::units::Energy::from_wh(i64::try_from(at_ms).unwrap()));
        self.meter(MeterIndex(0), &reading, Mono::from_ms(at_ms), Mono::from_ms(at_ms));
    }
}

#[test]
fn nothing_is_known_of_a_station_before_it_has_accepted_a_limit() {
    let mut guard = guard(200);
    assert_eq!(guard.most(0), amps(32));
    guard.sent(A, &lease("1", 1, "10.0", 120, 0), now(0));
    assert_eq!(guard.most(0), amps(32));
    guard.received(A, &accepted("1"), now(100));
    guard.tick(Mono::from_ms(5_000));
    assert_eq!(guard.most(0), amps(32), "the car has 5 s");
    guard.tick(Mono::from_ms(5_101));
    assert_eq!(guard.most(0), amps(10));
    guard.tick(Mono::from_ms(141_000));
    assert_eq!(guard.most(0), amps(6), "the lease is over");
}

#[test]
fn what_comes_after_a_cut_does_not_lengthen_the_time_that_the_car_has() {
    let mut guard = Guard::all_at(200, "20.0");
    let take = |guard: &mut Guard, call: &str, evse, limit: &str, at| {
        assert_eq!(guard.sent(A, &lease(call, evse, limit, 120, at), now(at)), Verdict::Pass);
        guard.received(A, &accepted(call), now(at));
    };
    take(&mut guard, "cut", 1, "10.0", 20_000);
    // A renewal at the other EVSE, and one of the same limit.
    take(&mut guard, "other", 2, "20.0", 22_000);
    take(&mut guard, "same", 1, "10.0", 23_000);
    guard.tick(Mono::from_ms(24_999));
    assert_eq!(guard.most(0), amps(20));
    guard.tick(Mono::from_ms(25_001));
    assert_eq!((guard.most(0), guard.most(1)), (amps(10), amps(20)));
    // A second cut on top of the first.
    take(&mut guard, "a", 1, "8.0", 30_000);
    take(&mut guard, "b", 1, "6.0", 33_000);
    guard.tick(Mono::from_ms(35_001));
    assert_eq!(guard.most(0), amps(8));
    guard.tick(Mono::from_ms(38_001));
    assert_eq!(guard.most(0), amps(6));
}

#[test]
fn an_answer_of_one_connector_says_nothing_of_another() {
    let mut guard = Guard::all_at(200, "20.0");
    guard.sent(A, &lease("1", 1, "10.0", 120, 20_000), now(20_000));
    guard.received(A, r#"[3,"1",{"status":"Rejected"}]"#, now(20_000));
    assert_eq!([guard.evses[0].refused, guard.evses[1].refused], [true, false]);
    guard.sent(A, &lease("2", 2, "10.0", 120, 20_000), now(20_000));
    guard.received(A, &accepted("2"), now(20_000));
    assert!(guard.evses[0].refused);
}

#[test]
fn a_raise_beyond_what_is_left_is_lowered_to_what_is_left() {
    let mut guard = Guard::metered(60, "10.0", 50);
    // 50 A at the meter, of which the EVSEs can explain 30: 20 A of other load, 10 A are left.
    let at = 22_100;
    assert_eq!(guard.sent(A, &lease("2", 1, "19.5", 120, at), now(at)), Verdict::Pass);
    guard.received(A, r#"[3,"2",{"status":"Rejected"}]"#, now(at));
    let Verdict::Replace(text) = guard.sent(A, &lease("3", 1, "32.0", 120, at), now(at)) else { panic!("it passed") };
    assert!(text.contains(r#""limit":20.0"#) && text.contains(r#""limit":6.0"#), "{text}");
    assert_eq!(guard.most(0), amps(20));
    assert_eq!(guard.disagreed(), 1);
    assert!(guard.take_disagreements()[0].message.as_ref().is_some_and(|message| message.contains("lowered")));
}

#[test]
fn a_raise_of_a_pause_that_does_not_fit_stays_a_pause() {
    let mut guard = Guard::metered(32, "0.0", 28);
    let Verdict::Replace(text) = guard.sent(B, &lease("2", 1, "6.0", 120, 22_000), now(22_000)) else { panic!() };
    assert!(text.contains(r#""limit":0.0"#) && text.contains(r#""limit":6.0"#), "{text}");
}

#[test]
fn with_a_silent_meter_the_declared_load_counts_and_without_one_only_the_fallback() {
    let mut guard = Guard::all_at(60, "0.0");
    assert_eq!(guard.sent(A, &lease("2", 1, "32.0", 120, 20_000), now(20_000)), Verdict::Pass);
    assert!(matches!(guard.sent(B, &lease("3", 1, "32.0", 120, 20_000), now(20_000)), Verdict::Replace(_)));
    let mut blind = Guard::new(&topology(200, None), Earlier::default(), now(0));
    blind.connected(B, Mono::START);
    assert_eq!(blind.sent(B, &lease("1", 1, "0.0", 180, 0), now(0)), Verdict::Pass);
    blind.received(B, &accepted("1"), now(0));
    assert_eq!(blind.sent(B, &lease("2", 1, "6.0", 120, 6_000), now(6_000)), Verdict::Pass);
    let Verdict::Replace(text) = blind.sent(B, &lease("3", 1, "7.0", 120, 6_000), now(6_000)) else { panic!() };
    assert!(text.contains(r#""limit":6.0"#));
}

#[test]
fn what_people_send_by_hand_is_judged_too() {
    let mut guard = Guard::metered(40, "6.0", 40);
    let frames = [
        r#"[2,"x","ClearChargingProfile",{}]"#,
        r#"[2,"x","ClearChargingProfile",{"id":1001}]"#,
        r#"[2,"x","clearchargingprofile",{"connectorId":1}]"#,
        r#"[2,"x","ClearChargingProfile",{"chargingProfileCriteria":{"chargingProfilePurpose":"TxDefaultProfile"}}]"#,
        r#"[2,"x","SetChargingProfile",{"connectorId":1}]"#,
        r#"[2,"x","SetChargingProfile",{"evseId":1,"chargingProfile":{"id":9,"stackLevel":9,"chargingProfilePurpose":"PriorityCharging","chargingProfileKind":"Absolute","chargingSchedule":[{"id":1,"chargingRateUnit":"A","chargingSchedulePeriod":[{"startPeriod":0,"limit":6}]}]}}]"#,
        r#"[2,"x","RemoteStartTransaction",{"connectorId":1,"idTag":"A","chargingProfile":{"chargingProfileId":9,"stackLevel":0,"chargingProfilePurpose":"TxProfile","chargingProfileKind":"Relative","chargingSchedule":{"chargingRateUnit":"W","chargingSchedulePeriod":[{"startPeriod":0,"limit":22080}]}}}]"#,
        r#"[2,"x","ChangeConfiguration",{"key":"SmartChargingEnabled","value":"false"}]"#,
        r#"[2,"x","SetVariables",{"setVariableData":[{"attributeValue":"TxProfile","component":{"name":"SmartChargingCtrlr"},"variable":{"name":"IgnoredProfilePurposesOffline"}}]}]"#,
        "[2,\"x\"]",
        "hello",
    ];
    for frame in frames {
        assert_ne!(guard.sent(A, frame, now(22_000)), Verdict::Pass, "{frame}");
    }
    let harmless = [
        r#"[2,"x","ClearChargingProfile",{"id":7}]"#,
        r#"[2,"x","ClearChargingProfile",{"chargingProfilePurpose":"ChargePointMaxProfile"}]"#,
        r#"[2,"x","RemoteStartTransaction",{"connectorId":1,"idTag":"A"}]"#,
        r#"[2,"x","ChangeConfiguration",{"key":"MeterValueSampleInterval","value":"10"}]"#,
        r#"[2,"x","ChangeConfiguration",{"key":"SmartChargingEnabled","value":"true"}]"#,
        r#"[3,"x",{"currentTime":"2026-03-01T12:00:08Z","interval":300,"status":"Accepted"}]"#,
        r#"[4,"x","InternalError","",{}]"#,
    ];
    for frame in harmless {
        assert_eq!(guard.sent(A, frame, now(22_000)), Verdict::Pass, "{frame}");
    }
}

#[test]
fn an_id_used_twice_takes_the_first_profile_away() {
    let mut guard = Guard::metered(40, "6.0", 40);
    let frame = lease("x", 2, "6.0", 120, 22_000).replace("1002", "1001");
    assert!(matches!(guard.sent(A, &frame, now(22_000)), Verdict::Withhold(_)));
}

#[test]
fn a_step_up_that_comes_before_a_lease_could_be_over_counts_at_once() {
    let mut guard = Guard::metered(40, "0.0", 38);
    assert_eq!(guard.sent(B, &lease("1", 1, "0.0", 180, 22_000), now(22_000)), Verdict::Pass);
    assert!(matches!(guard.sent(B, &lease("2", 1, "0.0", 30, 22_000), now(22_000)), Verdict::Replace(_)));
    let more = lease("3", 1, "0.0", 180, 22_000).replace("6.0", "16.0");
    assert!(matches!(guard.sent(B, &more, now(22_000)), Verdict::Replace(_)));
}

#[test]
fn a_circuit_that_is_not_lowered_gets_nothing_but_cuts() {
    let mut guard = Guard::all_at(60, "16.0");
    for second in 20..40 {
        guard.reads(78, second * 1_000);
        guard.tick(Mono::from_ms(second * 1_000));
    }
    assert_eq!(guard.disagreed(), 1, "16 s after the third reading");
    let at = 40_000;
    assert!(matches!(guard.sent(A, &lease("2", 1, "16.0", 120, at), now(at)), Verdict::Withhold(_)));
    assert_eq!(guard.sent(A, &lease("3", 1, "8.0", 120, at), now(at)), Verdict::Pass);
    assert_eq!(guard.sent(A, &lease("4", 2, "0.0", 180, at), now(at)), Verdict::Pass);
    assert_eq!(guard.sent(B, &lease("5", 1, "6.0", 120, at), now(at)), Verdict::Pass);
    guard.tick(Mono::from_ms(at + 1_000));
    assert!(!guard.circuits[0].frozen, "what was sent is enough");
}

#[test]
fn a_meter_that_shows_what_was_a_minute_ago_proves_no_load() {
    let mut guard = Guard::all_at(100, "32.0");
    let reading = |a: i32| MeterReading { current: PerPhase::splat(Some(amps(a))), ..MeterReading::default() };
    let read = |guard: &mut Guard, a, second: u64| {
        let at = Mono::from_ms(second * 1_000);
        guard.meter(MeterIndex(0), &reading(a), at, at);
        guard.tick(at);
    };
    read(&mut guard, 90, 27);
    for (call, evse) in [("a", 1), ("b", 2)] {
        guard.sent(A, &lease(call, evse, "6.0", 120, 30_000), now(30_000));
        guard.received(A, &accepted(call), now(30_000));
    }
    (31..80).for_each(|second| read(&mut guard, 90, second));
    // It shows something new, of which nobody knows when it was so.
    read(&mut guard, 89, 80);
    assert_eq!(guard.sent(A, &lease("c", 1, "32.0", 120, 80_000), now(80_000)), Verdict::Pass);
    assert_eq!(guard.disagreed(), 0);
}

#[test]
fn watts_count_by_phase_and_both_versions_are_read() {
    let mut guard = guard(200);
    let start = time(-28_800_000);
    let frame = format!(
        r#"[2,"1","SetChargingProfile",{{"evseId":1,"chargingProfile":{{"id":1001,"stackLevel":0,"chargingProfilePurpose":"TxDefaultProfile","chargingProfileKind":"Absolute","chargingSchedule":[{{"id":1001,"startSchedule":"{start}","chargingRateUnit":"W","chargingSchedulePeriod":[{{"startPeriod":0,"limit":11040.0,"numberPhases":3}},{{"startPeriod":28920,"limit":4140.0,"numberPhases":3}}]}}]}}}}]"#
    );
    assert_eq!(guard.sent(A, &frame, now(0)), Verdict::Pass);
    guard.received(A, &accepted("1"), now(0));
    guard.tick(Mono::from_ms(6_000));
    assert_eq!(guard.most(0), amps(16));
    guard.tick(Mono::from_ms(141_000));
    assert_eq!(guard.most(0), amps(6));
}

#[test]
fn two_levels_fall_to_the_lower_one_and_a_transactions_profile_to_the_default() {
    let mut guard = guard(200);
    let start = time(-28_800_000);
    let profile = |call: &str, id: u32, level: u32, purpose: &str, more: &str, limit: &str| {
        format!(
            r#"[2,"{call}","SetChargingProfile",{{"connectorId":1,"csChargingProfiles":{{"chargingProfileId":{id},"stackLevel":{level},"chargingProfilePurpose":"{purpose}","chargingProfileKind":"Absolute",{more}"chargingSchedule":{{"startSchedule":"{start}","chargingRateUnit":"A","chargingSchedulePeriod":[{{"startPeriod":0,"limit":{limit}}}]}}}}}}]"#
        )
    };
    let ends = format!(r#""validTo":"{}","#, time(120_000));
    let take = |guard: &mut Guard, call: &str, frame: String| {
        assert_eq!(guard.sent(A, &frame, now(0)), Verdict::Pass);
        guard.received(A, &accepted(call), now(0));
    };
    take(&mut guard, "1", profile("1", 2_001, 1, "TxDefaultProfile", &ends, "16.0"));
    guard.tick(Mono::from_ms(6_000));
    assert_eq!(guard.most(0), amps(16));
    guard.tick(Mono::from_ms(110_000));
    assert_eq!(guard.most(0), amps(32), "nothing is known to lie below it");
    let mut guard = Guard::all_at(200, "6.0");
    take(&mut guard, "2", profile("2", 1_001, 0, "TxDefaultProfile", "", "6.0"));
    take(&mut guard, "3", profile("3", 2_001, 1, "TxDefaultProfile", &ends, "16.0"));
    guard.tick(Mono::from_ms(6_000));
    assert_eq!(guard.most(0), amps(16));
    guard.tick(Mono::from_ms(141_000));
    assert_eq!(guard.most(0), amps(6));
    take(&mut guard, "4", profile("4", 3_001, 0, "TxProfile", r#""transactionId":7,"#, "0.0"));
    guard.tick(Mono::from_ms(147_000));
    assert_eq!(guard.most(0), amps(0));
    guard.received(A, r#"[2,"s","StopTransaction",{"transactionId":7,"meterStop":5}]"#, now(148_000));
    assert_eq!(guard.most(0), amps(6));
}

#[test]
fn the_next_run_knows_what_stations_hold() {
    let mut guard = Guard::all_at(200, "16.0");
    assert!(guard.take_news());
    let memory = guard.memory(now(10_000));
    // 30 s later, with a clock of its own.
    let later = Now { mono: Mono::START, ..now(40_000) };
    let restored = |memory: Option<&[u8]>, tamed: &[EvseIndex], now| {
        Guard::new(&topology(200, None), Earlier { memory, tamed }, now)
    };
    let mut next = restored(Some(&memory), &[], later);
    assert_eq!(next.most(0), amps(16));
    next.tick(Mono::from_ms(60_000));
    assert_eq!(next.most(0), amps(16));
    next.tick(Mono::from_ms(101_000));
    assert_eq!(next.most(0), amps(6));
    let untrusted = restored(Some(&memory), &[], Now { utc_trusted: false, ..later });
    assert_eq!(untrusted.most(0), amps(16));
    let mut forgotten = restored(None, &[EvseIndex(0)], later);
    assert_eq!((forgotten.most(0), forgotten.most(1)), (amps(32), amps(32)));
    forgotten.tick(Mono::from_ms(201_000));
    assert_eq!((forgotten.most(0), forgotten.most(1)), (amps(6), amps(32)));
}

/// What one frame to the model station comes to.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Lost,
    Taken,
    TakenInSilence,
    Refused,
    FailedAndTaken,
    FailedAndNot,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Wait(u64),
    Lease {
        evse: u32,
        tenths: i32,
        steps_s: i64,
        fate: Fate,
    },
    /// With an end, on the level above the lease.
    Above {
        evse: u32,
        tenths: i32,
        ends_s: i64,
        fate: Fate,
    },
    Clear {
        evse: u32,
        fate: Fate,
    },
    Boot {
        loses: bool,
    },
    Reconnect,
}

type Installed = (u32, Vec<(i64, Current)>, i64);

/// A station that obeys, by its own clock and with a car that takes its time.
#[derive(Default)]
struct Model {
    behind_ms: i64,
    installed: BTreeMap<(u32, u32), Installed>,
    recent: VecDeque<(i64, [Current; 2])>,
    quiet_until: i64,
}

impl Model {
    fn limit(&self, evse: u32, at: i64) -> Current {
        let at = at - self.behind_ms;
        for level in [1, 0] {
            let Some((_, periods, ends)) = self.installed.get(&(evse, level)) else { continue };
            if at < *ends
                && let Some((_, limit)) = periods.iter().rev().find(|(from, _)| *from <= at)
            {
                return (*limit).min(amps(32));
            }
        }
        amps(32)
    }

    fn pass(&mut self, at: i64) {
        if at < self.quiet_until {
            // A car begins with the limit that it finds.
            return;
        }
        self.recent.push_back((at, [self.limit(1, at), self.limit(2, at)]));
        while self.recent.front().is_some_and(|(then, _)| *then <= at - 5_000) {
            self.recent.pop_front();
        }
    }

    fn draws(&self, evse: usize, at: i64) -> Current {
        if at < self.quiet_until {
            return Current::ZERO;
        }
        self.recent.iter().map(|(_, limits)| limits[evse]).max().unwrap_or(Current::ZERO)
    }
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => Just(Fate::Taken),
        1 => Just(Fate::Lost),
        1 => Just(Fate::TakenInSilence),
        1 => Just(Fate::Refused),
        1 => Just(Fate::FailedAndTaken),
        1 => Just(Fate::FailedAndNot),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..60_u64).prop_map(|seconds| Step::Wait(seconds * 1_000)),
        6 => (1..3_u32, 0..330, 20..300_i64, fate())
            .prop_map(|(evse, tenths, steps_s, fate)| Step::Lease { evse, tenths, steps_s, fate }),
        3 => (1..3_u32, 0..330, 20..300_i64, fate())
            .prop_map(|(evse, tenths, ends_s, fate)| Step::Above { evse, tenths, ends_s, fate }),
        1 => (0..3_u32, fate()).prop_map(|(evse, fate)| Step::Clear { evse, fate }),
        1 => any::<bool>().prop_map(|loses| Step::Boot { loses }),
        1 => Just(Step::Reconnect),
    ]
}

struct Bench {
    guard: Guard,
    model: Model,
    at: u64,
    calls: u32,
}

impl Bench {
    fn at(&self) -> i64 {
        i64::try_from(self.at).unwrap()
    }

    fn wait(&mut self, ms: u64) -> Result<(), TestCaseError> {
        for _ in 0..ms / 500 {
            self.at += 500;
            self.model.pass(self.at());
            self.guard.tick(Mono::from_ms(self.at));
            self.check()?;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for evse in 0..2 {
            let (may, draws) = (self.guard.most(evse), self.model.draws(evse, self.at()));
            prop_assert!(draws <= may, "EVSE {} draws {draws}, the guard says {may} at {}", evse + 1, self.at);
        }
        Ok(())
    }

    fn send(&mut self, frame: &str, fate: Fate, take: impl FnOnce(&mut Model)) {
        let call = self.calls.to_string();
        let verdict = self.guard.sent(A, frame, now(self.at));
        assert_eq!(verdict, Verdict::Pass);
        match fate {
            Fate::Lost => {}
            Fate::Refused => self.guard.received(A, &format!(r#"[3,"{call}",{{"status":"Rejected"}}]"#), now(self.at)),
            Fate::FailedAndNot => {
                self.guard.received(A, &format!(r#"[4,"{call}","InternalError","",{{}}]"#), now(self.at));
            }
            Fate::TakenInSilence | Fate::Taken | Fate::FailedAndTaken => {
                take(&mut self.model);
                let at = self.at();
                self.model.pass(at);
                if let Fate::Taken = fate {
                    self.guard.received(A, &accepted(&call), now(self.at));
                } else if let Fate::FailedAndTaken = fate {
                    self.guard.received(A, &format!(r#"[4,"{call}","InternalError","",{{}}]"#), now(self.at));
                }
            }
        }
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        self.calls += 1;
        let call = self.calls.to_string();
        let (at, mono) = (self.at(), Mono::from_ms(self.at));
        match step {
            Step::Wait(ms) => self.wait(ms)?,
            Step::Lease { evse, tenths, steps_s, fate } => {
                let limit = format!("{}.{}", tenths / 10, tenths % 10);
                let frame = lease(&call, evse, &limit, steps_s, self.at);
                let periods = vec![(at - 28_800_000, Current::from_ma(tenths * 100)), (at + steps_s * 1_000, amps(6))];
                self.send(&frame, fate, |model| {
                    model.installed.insert((evse, 0), (1_000 + evse, periods, i64::MAX));
                });
            }
            Step::Above { evse, tenths, ends_s, fate } => {
                let limit = format!("{}.{}", tenths / 10, tenths % 10);
                let valid = format!(r#""stackLevel":1,"validTo":"{}""#, time(at + ends_s * 1_000));
                let frame = lease(&call, evse, &limit, 1_000_000, self.at).replace(r#""stackLevel":0"#, &valid);
                let frame = frame.replace(&format!(r#"Id":{}"#, 1_000 + evse), &format!(r#"Id":{}"#, 2_000 + evse));
                let periods = vec![(at - 28_800_000, Current::from_ma(tenths * 100)), (at + 1_000_000_000, amps(6))];
                self.send(&frame, fate, |model| {
                    model.installed.insert((evse, 1), (2_000 + evse, periods, at + ends_s * 1_000));
                });
            }
            Step::Clear { evse, fate } => {
                let frame = format!(r#"[2,"{call}","ClearChargingProfile",{{"connectorId":{evse}}}]"#);
                self.send(&frame, fate, |model| model.installed.retain(|(of, _), _| evse != 0 && *of != evse));
            }
            Step::Boot { loses } => {
                if loses {
                    self.model.installed.clear();
                }
                self.model.recent.clear();
                self.model.quiet_until = at + 6_500;
                self.guard.disconnected(A, mono);
                self.guard.connected(A, mono);
                self.guard.received(A, r#"[2,"b","BootNotification",{}]"#, now(self.at));
            }
            Step::Reconnect => {
                self.guard.disconnected(A, mono);
                self.guard.connected(A, mono);
            }
        }
        self.check()
    }
}

proptest! {
    #[test]
    fn no_obedient_station_draws_more_than_the_guard_counts(
        steps in prop::collection::vec(step(), 1..40), behind_ms in -10_000..10_000_i64,
    ) {
        let model = Model { behind_ms, ..Model::default() };
        let mut bench = Bench { guard: guard(10_000), model, at: 60_000, calls: 0 };
        bench.model.pass(60_000);
        for step in steps {
            bench.step(step)?;
        }
        bench.wait(400_000)?;
    }

    #[test]
    fn no_text_panics(text in prop_oneof!["\\PC*", "[\\[\\]{}\",:0-9a-zA-Z ]{0,80}"]) {
        let mut guard = guard(100);
        guard.sent(A, &text, now(0));
        guard.received(A, &text, now(0));
    }
}
