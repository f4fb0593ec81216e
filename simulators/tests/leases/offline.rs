//! Limits that end when a station has been offline for long (OCPP 2.1 `maxOfflineDuration`).

use siteward::engine::model::commission::Verdict;
use siteward::engine::model::exchange::OcppVersion;
use siteward::engine::model::topology::LeaseForm;
use siteward_sim::station::Quirks;

use crate::bench::{Bench, model};
use crate::commission::test;
use crate::{charging, near};

/// What the generic model says: how long a limit outlasts the connection, and how long the station may take to see that it is gone.
const LASTS_S: u64 = 120;
const NOTICES_S: u64 = 90;

/// A station with a car that is limited to so many A.
fn limited(limit_a: i32) -> Bench {
    let mut bench = charging(OcppVersion::V21, model(LeaseForm::MaxOfflineDuration), Quirks::default());
    bench.limit_circuit(limit_a);
    bench.run_checked(60);
    bench
}

fn is_drawn(bench: &Bench, amperes: f64) -> bool {
    near(bench.drawn_a(), amperes)
}

fn is_counted(bench: &Bench, amperes: f64) -> bool {
    near(bench.committed_a(), amperes)
}

#[test]
fn a_station_that_notices_late_counts_until_it_must_have_fallen_back() {
    for notices_s in [0, 30, NOTICES_S] {
        let mut bench = limited(20);
        bench.lose_contact();
        bench.run_checked(notices_s);
        bench.station_notices();
        bench.run_checked(LASTS_S - 2);
        assert!(is_drawn(&bench, 20.0) && is_counted(&bench, 20.0), "{notices_s}: {} A", bench.drawn_a());
        bench.run_checked(6);
        assert!(is_drawn(&bench, 6.0), "{notices_s}: {} A", bench.drawn_a());
        // The controller does not know when it noticed.
        assert!(is_counted(&bench, 20.0));
        bench.run_checked(NOTICES_S - notices_s + 30);
        assert!(is_counted(&bench, 6.0), "{notices_s}: {} A", bench.committed_a());
    }
}

#[test]
fn as_long_as_it_is_connected_a_limit_has_no_end_even_where_nothing_comes_back() {
    let mut bench = limited(20);
    bench.station.quirks_mut().never_answers = true;
    bench.run_checked(900);
    assert!(is_drawn(&bench, 20.0) && is_counted(&bench, 20.0), "{} A", bench.drawn_a());
}

#[test]
fn what_has_ended_does_not_come_back_with_the_connection() {
    let mut bench = limited(20);
    bench.disconnect();
    bench.run_checked(300);
    assert!(is_drawn(&bench, 6.0) && is_counted(&bench, 6.0));
    bench.station.quirks_mut().never_answers = true;
    bench.connect();
    bench.run_checked(2);
    assert!(is_drawn(&bench, 6.0), "{} A", bench.drawn_a());
    bench.station.quirks_mut().never_answers = false;
    bench.run_checked(60);
    assert!(is_drawn(&bench, 20.0), "{} A", bench.drawn_a());
}

#[test]
fn what_may_have_ended_counts_as_the_worse_of_both_and_is_told_anew_at_once() {
    // 110 to 200 s: by the station's view its limit is over, or it is not.
    for away_s in [110, 130, 200] {
        for limit_a in [20, 5] {
            let mut bench = limited(limit_a);
            bench.disconnect();
            bench.run_checked(away_s);
            let writes = bench.station.profile_writes();
            bench.connect();
            bench.run_checked(15);
            let wanted = if limit_a == 5 { 0.0 } else { 20.0 };
            assert!(is_drawn(&bench, wanted), "{limit_a} A, {away_s} s: {} A", bench.drawn_a());
            assert!(bench.station.profile_writes() > writes, "told anew");
            bench.run_checked(120);
            assert!(is_counted(&bench, wanted), "{limit_a} A, {away_s} s: {} A", bench.committed_a());
        }
    }
}

#[test]
fn a_pause_outlasts_every_lease_of_the_site_and_counts_as_the_fallback_from_when_it_may_end() {
    let mut bench = limited(5);
    assert!(is_drawn(&bench, 0.0));
    bench.disconnect();
    // All others have stepped down by then, whenever they noticed.
    bench.run_checked(LASTS_S + NOTICES_S + 25);
    assert!(is_drawn(&bench, 0.0), "{} A", bench.drawn_a());
    bench.run_checked(60);
    assert!(is_drawn(&bench, 6.0) && is_counted(&bench, 6.0), "{} A", bench.drawn_a());
}

#[test]
fn a_controller_that_was_away_counts_what_it_had_told_until_that_must_have_ended() {
    for away_s in [1, 100, 200, 400] {
        let mut bench = limited(20);
        bench.kill_controller();
        bench.run(away_s);
        bench.start_controller();
        assert!(is_counted(&bench, 20.0), "{away_s}: {} A", bench.committed_a());
        bench.run_checked(LASTS_S + NOTICES_S);
        assert!(is_drawn(&bench, 6.0), "{away_s}: {} A", bench.drawn_a());
        bench.run_checked(600);
        assert!(is_counted(&bench, 6.0), "{away_s}: {} A", bench.committed_a());
        bench.connect();
        bench.run_checked(60);
        assert!(is_drawn(&bench, 20.0), "{away_s}: {} A", bench.drawn_a());
    }
}

#[test]
fn a_station_that_boots_counts_at_its_maximum_until_it_has_accepted_anew() {
    let mut bench = limited(20);
    bench.station.quirks_mut().loses_profiles_on_reboot = true;
    let now = bench.now();
    bench.station.power_cycle(now);
    bench.run_checked(60);
    assert!(is_drawn(&bench, 20.0) && is_counted(&bench, 20.0), "{} A", bench.drawn_a());
}

#[test]
fn an_earlier_version_cannot_say_it_so_that_the_station_counts_at_its_maximum_whenever_it_is_silent() {
    for version in [OcppVersion::V16, OcppVersion::V201] {
        let mut bench = charging(version, model(LeaseForm::MaxOfflineDuration), Quirks::default());
        bench.limit_circuit(20);
        bench.run_checked(60);
        assert!(bench.alarms().contains(&"LeaseNotSpoken".to_owned()), "{:?}", bench.alarms());
        assert!(is_drawn(&bench, 20.0), "it is limited all the same: {} A", bench.drawn_a());
        bench.disconnect();
        bench.run_checked(300);
        assert!(is_drawn(&bench, 20.0) && is_counted(&bench, 32.0), "{} A", bench.committed_a());
        // The next run knows it before the station has said anything.
        bench.kill_controller();
        bench.start_controller();
        bench.run_checked(5);
        assert!(is_counted(&bench, 32.0), "{} A", bench.committed_a());
    }
}

#[test]
fn commissioning_takes_it_offline_and_sees_by_its_first_values_that_it_fell() {
    let mut bench = charging(OcppVersion::V21, model(LeaseForm::MaxOfflineDuration), Quirks::default());
    bench.limit_circuit(25);
    let report = test(&mut bench);
    assert_eq!(report.verdict, Some(Verdict::Passed), "{}", report.text());
    let fall = report.fall.expect("measured");
    assert!(fall.due_s == LASTS_S && (LASTS_S..LASTS_S + 60).contains(&fall.after_s), "{fall:?}");
    bench.run_checked(30);
    assert!(is_drawn(&bench, 25.0), "restored: {} A", bench.drawn_a());
    // One that keeps to its limit offline is found out, and the next run knows it.
    let quirks = Quirks { never_falls_back: true, ..Quirks::default() };
    let mut bench = charging(OcppVersion::V21, model(LeaseForm::MaxOfflineDuration), quirks);
    assert_eq!(test(&mut bench).verdict, Some(Verdict::Failed));
    assert!(bench.alarms().contains(&"LeaseNotProven".to_owned()));
    bench.disconnect();
    bench.run_checked(300);
    assert!(is_counted(&bench, 32.0));
}

#[test]
fn no_schedule_proves_it_so_that_auto_waits_for_a_test() {
    // It takes no schedule of two periods, and keeps to what has a time after that.
    let quirks = Quirks { most_periods: Some(1), never_ends_by_time: true, ..Quirks::default() };
    let mut bench = charging(OcppVersion::V21, model(LeaseForm::Auto), quirks.clone());
    bench.limit_circuit(20);
    bench.run_checked(1_500);
    assert_eq!(bench.chosen_lease(), Some((LeaseForm::MaxOfflineDuration, false)));
    assert!(bench.alarms().contains(&"LeaseNotProven".to_owned()), "{:?}", bench.alarms());
    bench.disconnect();
    bench.run_checked(300);
    assert!(is_drawn(&bench, 6.0) && is_counted(&bench, 32.0), "{} A", bench.committed_a());
    // Where no version has it, it is never chosen.
    let mut bench = charging(OcppVersion::V201, model(LeaseForm::Auto), quirks);
    bench.limit_circuit(20);
    bench.run_checked(1_500);
    assert_ne!(bench.chosen_lease().map(|(form, _)| form), Some(LeaseForm::MaxOfflineDuration));
}
