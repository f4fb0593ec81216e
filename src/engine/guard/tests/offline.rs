//! Profiles that end when the station has been offline for long (OCPP 2.1 `maxOfflineDuration`).

use super::*;

fn told(call: &str, level: u32, more: &str, limit: &str) -> String {
    format!(
        r#"[2,"{call}","SetChargingProfile",{{"evseId":1,"chargingProfile":{{"id":{},"stackLevel":{level},"chargingProfilePurpose":"TxDefaultProfile","chargingProfileKind":"Absolute",{more}"chargingSchedule":[{{"id":1,"startSchedule":"{}","chargingRateUnit":"A","chargingSchedulePeriod":[{{"startPeriod":0,"limit":{limit}}}]}}]}}}}]"#,
        1_001 + 1_000 * level,
        time(-28_800_000)
    )
}

const FOR_GOOD: &str = r#""maxOfflineDuration":120,"invalidAfterOfflineDuration":true,"#;
const FOR_NOW: &str = r#""maxOfflineDuration":120,"#;

/// The first EVSE has 6 A for good and above that 16 A with such an end.
fn guard_of(lease: LeaseForm, ends: &str) -> Guard {
    let mut guard = Guard::new(&topology_with(lease, 200, Some(10)), Earlier::default(), now(0));
    guard.connected(A, Mono::START);
    for (call, level, more, limit) in [("base", 0, "", "6.0"), ("above", 1, ends, "16.0")] {
        assert_eq!(guard.sent(A, &told(call, level, more, limit), now(0)), Verdict::Pass);
        guard.received(A, &accepted(call), now(0));
    }
    guard.tick(Mono::from_ms(6_000));
    guard
}

fn most_at(guard: &mut Guard, at_ms: u64) -> Current {
    guard.tick(Mono::from_ms(at_ms));
    guard.most(0)
}

#[test]
fn it_holds_as_long_as_the_connection_stands_and_until_the_station_must_have_noticed_its_end() {
    let mut guard = guard_of(LeaseForm::MaxOfflineDuration, FOR_GOOD);
    for at_ms in [100_000, 1_000_000] {
        assert_eq!(most_at(&mut guard, at_ms), amps(16));
    }
    guard.disconnected(A, Mono::from_ms(1_000_000));
    // 90 s to notice, 120 s of its own, and the margins.
    assert_eq!(most_at(&mut guard, 1_210_000), amps(16));
    assert_eq!(most_at(&mut guard, 1_231_000), amps(6));
    guard.connected(A, Mono::from_ms(1_240_000));
    assert_eq!(most_at(&mut guard, 1_241_000), amps(6), "it does not come back");
}

#[test]
fn one_that_may_not_be_over_is_back_and_one_that_returns_always_is() {
    let mut guard = guard_of(LeaseForm::MaxOfflineDuration, FOR_GOOD);
    guard.disconnected(A, Mono::from_ms(10_000));
    guard.connected(A, Mono::from_ms(200_000));
    assert_eq!(most_at(&mut guard, 9_000_000), amps(16));
    let mut guard = guard_of(LeaseForm::MaxOfflineDuration, FOR_NOW);
    guard.disconnected(A, Mono::from_ms(10_000));
    assert_eq!(most_at(&mut guard, 900_000), amps(6));
    guard.connected(A, Mono::from_ms(900_000));
    assert_eq!(most_at(&mut guard, 901_000), amps(16));
}

#[test]
fn a_pause_that_may_be_over_is_counted_with_what_lies_below_it() {
    let mut guard = guard_of(LeaseForm::MaxOfflineDuration, FOR_GOOD);
    let pause = r#""maxOfflineDuration":300,"invalidAfterOfflineDuration":true,"#;
    guard.sent(A, &told("pause", 1, pause, "0.0"), now(10_000));
    guard.received(A, &accepted("pause"), now(10_000));
    assert_eq!(most_at(&mut guard, 20_000), Current::ZERO);
    assert_eq!(most_at(&mut guard, 290_000), Current::ZERO);
    assert_eq!(most_at(&mut guard, 300_000), amps(6));
}

#[test]
fn a_station_of_which_nobody_says_that_it_does_so_is_not_trusted_with_it() {
    let mut guard = guard_of(LeaseForm::TxDefaultProfile, FOR_GOOD);
    guard.disconnected(A, Mono::from_ms(10_000));
    assert_eq!(most_at(&mut guard, 9_000_000), amps(16));
}

#[test]
fn the_next_run_counts_it_until_it_must_be_over_whether_or_not_the_clock_is_right() {
    for trusted in [true, false] {
        let memory = guard_of(LeaseForm::MaxOfflineDuration, FOR_GOOD).memory(now(10_000));
        let later = Now { mono: Mono::START, utc_trusted: trusted, ..now(400_000) };
        let earlier = Earlier { memory: Some(&memory), tamed: &[] };
        let mut next = Guard::new(&topology_with(LeaseForm::MaxOfflineDuration, 200, None), earlier, later);
        assert_eq!(next.most(0), amps(16));
        assert_eq!(most_at(&mut next, 209_000), amps(16));
        assert_eq!(most_at(&mut next, 231_000), amps(6));
    }
    let earlier = Earlier { memory: None, tamed: &[EvseIndex(0)] };
    let mut next = Guard::new(&topology_with(LeaseForm::MaxOfflineDuration, 200, None), earlier, now(0));
    assert_eq!(most_at(&mut next, 209_000), amps(32));
    assert_eq!(most_at(&mut next, 300_000), amps(6));
}
