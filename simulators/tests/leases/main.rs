//! The forms of a lease, each proven on a station that enforces profiles by its own reading of OCPP: limited while told, at the fallback
//! when silent, never above what the site counts.

mod bench;
mod commission;
mod offline;

use siteward::engine::model::alarm::AlarmKind;
use siteward::engine::model::command::Command;
use siteward::engine::model::exchange::OcppVersion;
use siteward::engine::model::ids::StationId;
use siteward::engine::model::record::RecordBody;
use siteward::engine::model::topology::{LeaseForm, LimitUnit, StationModel};
use siteward::engine::units::Current;
use siteward_sim::station::Quirks;

use bench::{Bench, model};

const VERSIONS: [OcppVersion; 3] = [OcppVersion::V16, OcppVersion::V201, OcppVersion::V21];

fn charging(version: OcppVersion, model: StationModel, quirks: Quirks) -> Bench {
    let mut bench = Bench::new(version, model, quirks);
    bench.run(5);
    bench.plug_in();
    bench.run(30);
    bench
}

fn near(one: f64, other: f64) -> bool {
    (one - other).abs() < 0.3
}

/// Everything that a form promises, with the controller killed in the end.
fn holds(version: OcppVersion, lease: LeaseForm, quirks: Quirks) {
    let mut bench = charging(version, model(lease), quirks);
    let name = lease.name();
    assert!(near(bench.drawn_a(), 32.0), "{name}: {} A", bench.drawn_a());
    for limit in [10, 20, 6] {
        bench.limit_circuit(limit);
        bench.run_checked(20);
        assert!(near(bench.drawn_a(), f64::from(limit)), "{name} at {limit} A: {} A", bench.drawn_a());
    }
    bench.limit_circuit(20);
    bench.run_checked(60);
    // A cable that is pulled for a moment changes nothing.
    bench.disconnect();
    bench.run_checked(10);
    bench.connect();
    bench.run_checked(30);
    assert!(near(bench.drawn_a(), 20.0), "{name}: {} A", bench.drawn_a());
    // The next car begins with what is counted, whatever that is.
    bench.unplug();
    bench.run_checked(10);
    bench.plug_in();
    bench.run_checked(60);
    assert!(near(bench.drawn_a(), 20.0), "{name}: {} A", bench.drawn_a());
    bench.kill_controller();
    bench.run(130);
    assert!(near(bench.drawn_a(), 6.0), "{name}: {} A are drawn without a controller", bench.drawn_a());
    bench.start_controller();
    bench.connect();
    bench.run_checked(60);
    assert!(near(bench.drawn_a(), 20.0), "{name}: {} A", bench.drawn_a());
}

#[test]
fn every_form_limits_and_falls_back_on_a_usual_station() {
    for version in VERSIONS {
        for &lease in LeaseForm::tried(version) {
            holds(version, lease, Quirks::default());
        }
    }
}

#[test]
fn a_station_that_refuses_two_periods_is_held_by_two_levels() {
    let one_period = Quirks { most_periods: Some(1), ..Quirks::default() };
    holds(OcppVersion::V16, LeaseForm::TwoLevels, one_period);
}

#[test]
fn a_station_on_which_a_default_comes_late_is_held_by_the_profile_of_its_transaction() {
    for version in VERSIONS {
        holds(version, LeaseForm::TxProfile, Quirks { default_comes_late: true, ..Quirks::default() });
    }
}

#[test]
fn a_station_that_drops_transaction_profiles_when_offline_goes_to_the_base_at_once() {
    let quirks = Quirks { drops_when_offline: true, default_comes_late: true, ..Quirks::default() };
    let mut bench = charging(OcppVersion::V16, model(LeaseForm::TxProfile), quirks);
    bench.limit_circuit(5);
    bench.run_checked(20);
    assert!(near(bench.drawn_a(), 0.0));
    bench.disconnect();
    bench.run_checked(20);
    assert!(near(bench.drawn_a(), 6.0), "it is at its base: {} A", bench.drawn_a());
}

#[test]
fn between_transactions_the_base_is_in_force_and_nothing_is_renewed() {
    let mut bench = Bench::new(OcppVersion::V16, model(LeaseForm::TxProfile), Quirks::default());
    bench.run(600);
    assert_eq!(bench.profiles().len(), 1, "the base");
    assert!(near(bench.committed_a(), 6.0));
    bench.disconnect();
    bench.plug_in();
    bench.run_checked(60);
    assert!(near(bench.drawn_a(), 6.0), "a start while offline has the fallback: {} A", bench.drawn_a());
}

#[test]
fn nothing_is_left_above_the_base_before_the_base_is_confirmed() {
    // OCPP 1.6 §3.13.2: what ends with nothing below it leaves a station without any limit.
    for lease in [LeaseForm::TwoLevels, LeaseForm::TxProfile] {
        let bench = charging(OcppVersion::V16, model(lease), Quirks::default());
        let first = bench.profiles()[0]["csChargingProfiles"].clone();
        assert_eq!(first["chargingProfilePurpose"], "TxDefaultProfile");
        assert_eq!(first["chargingSchedule"]["chargingSchedulePeriod"].as_array().expect("periods").len(), 1);
        assert!(first.get("validTo").is_none());
    }
}

#[test]
fn a_station_that_takes_only_watts_is_limited_in_watts() {
    for version in VERSIONS {
        let watts_only = Quirks { watts_only: true, ..Quirks::default() };
        let in_watts = StationModel { limit_unit: LimitUnit::Watts, ..StationModel::default() };
        let mut bench = charging(version, in_watts, watts_only.clone());
        bench.limit_circuit(10);
        bench.run_checked(40);
        assert!(near(bench.drawn_a(), 10.0), "{} A", bench.drawn_a());
        // And in amperes it is not held at all: it counts at its maximum.
        let mut bench = charging(version, StationModel::default(), watts_only);
        bench.run_checked(30);
        assert!(near(bench.committed_a(), 32.0) && bench.alarms().contains(&"LimitRefused".to_owned()));
    }
}

#[test]
fn a_station_that_knows_only_some_currents_is_given_the_next_lower_one() {
    let levels = [6, 8, 10, 13, 16, 32].map(Current::from_a).to_vec();
    let mut bench = charging(OcppVersion::V16, StationModel { levels, ..StationModel::default() }, Quirks::default());
    bench.limit_circuit(12);
    bench.run_checked(20);
    assert!(near(bench.drawn_a(), 10.0), "{} A", bench.drawn_a());
}

#[test]
fn a_lease_that_the_station_itself_contradicts_counts_as_none() {
    for version in VERSIONS {
        let quirks = Quirks { never_falls_back: true, ..Quirks::default() };
        let mut bench = charging(version, StationModel::default(), quirks);
        bench.limit_circuit(20);
        bench.run_checked(120);
        assert!(bench.alarms().contains(&"LeaseNotProven".to_owned()), "{:?}", bench.alarms());
        bench.disconnect();
        bench.run_checked(300);
        assert!(near(bench.drawn_a(), 20.0) && near(bench.committed_a(), 32.0));
        // And the next run of the controller knows it.
        bench.kill_controller();
        bench.start_controller();
        assert!(near(bench.committed_a(), 32.0));
    }
}

#[test]
fn a_station_that_keeps_its_schedule_secret_is_taken_as_its_model_says() {
    let secret = Quirks { keeps_its_schedule_secret: true, ..Quirks::default() };
    let mut bench = charging(OcppVersion::V16, StationModel::default(), secret);
    bench.run_checked(600);
    assert_eq!(bench.alarms(), Vec::<String>::new());
    let asked = bench.calls.iter().filter(|(_, action, _)| action == "GetCompositeSchedule").count();
    assert_eq!(asked, 3);
}

#[test]
fn a_station_is_asked_for_its_schedule_once_a_day() {
    let mut bench = charging(OcppVersion::V16, StationModel::default(), Quirks::default());
    bench.run(3_600);
    let asked = bench.calls.iter().filter(|(_, action, _)| action == "GetCompositeSchedule").count();
    assert_eq!(asked, 1);
}

#[test]
fn the_first_form_that_the_station_says_will_hold_is_chosen_and_remembered() {
    let none = Quirks::default();
    let cases = [
        (none.clone(), Some(LeaseForm::TxDefaultProfile)),
        (Quirks { most_periods: Some(1), ..none.clone() }, Some(LeaseForm::TwoLevels)),
        (Quirks { default_comes_late: true, ..none.clone() }, Some(LeaseForm::TxProfile)),
        (Quirks { most_periods: Some(1), highest_level: Some(0), ..none.clone() }, None),
        (Quirks { never_falls_back: true, ..none.clone() }, None),
        (Quirks { keeps_its_schedule_secret: true, ..none }, None),
    ];
    for version in VERSIONS {
        for (quirks, expected) in &cases {
            let mut bench = charging(version, model(LeaseForm::Auto), quirks.clone());
            bench.limit_circuit(20);
            bench.run_checked(1_500);
            let chosen = bench.chosen_lease().filter(|(_, proven)| *proven).map(|(form, _)| form);
            assert_eq!(chosen, *expected, "{quirks:?}");
            bench.kill_controller();
            bench.start_controller();
            bench.connect();
            bench.run_checked(30);
            bench.disconnect();
            bench.run_checked(300);
            let silent_a = if expected.is_some() { 6.0 } else { 32.0 };
            assert!(near(bench.committed_a(), silent_a), "{quirks:?}: {} A", bench.committed_a());
        }
    }
}

#[test]
fn a_wrong_clock_is_found_out_and_the_schedule_is_written_for_it() {
    for version in VERSIONS {
        for offset_ms in [-3_600_000, 3_600_000, 2 * 86_400_000] {
            let quirks = Quirks { clock_offset_ms: offset_ms, ..Quirks::default() };
            let mut bench = charging(version, StationModel::default(), quirks);
            bench.limit_circuit(20);
            bench.run_checked(400);
            assert!(near(bench.drawn_a(), 20.0), "{offset_ms}: {} A", bench.drawn_a());
            assert!(bench.alarms().contains(&"StationClockWrong".to_owned()), "{offset_ms}: {:?}", bench.alarms());
            bench.disconnect();
            bench.run_checked(300);
            let (drawn, committed) = (bench.drawn_a(), bench.committed_a());
            // Hours are written around; a clock that is days away may jump at any moment.
            let counted = if offset_ms > 86_400_000 { 32.0 } else { 6.0 };
            assert!(near(drawn, 6.0) && near(committed, counted), "{offset_ms}: {drawn} A, {committed} A");
        }
    }
}

#[test]
fn a_budget_of_writes_is_kept_and_a_cut_for_safety_is_sent_all_the_same() {
    let frugal =
        StationModel { writes_per_day: Some(24), lease_ms: 3_600_000, renew_ms: 900_000, ..StationModel::default() };
    let mut bench = charging(OcppVersion::V16, frugal, Quirks::default());
    // A site that changes its mind every two minutes, a whole day long.
    for round in 0..720 {
        bench.limit_circuit(if round % 2 == 0 { 12 } else { 14 });
        bench.run_checked(120);
    }
    assert!(bench.station.profile_writes() <= 24 + 6, "{} writes", bench.station.profile_writes());
    assert!(bench.drawn_a() >= 6.0, "{} A", bench.drawn_a());
    assert!(bench.drawn_a() <= 14.0, "{} A", bench.drawn_a());
}

#[test]
fn a_cut_overtakes_a_call_that_hangs() {
    let mut bench = charging(OcppVersion::V16, StationModel::default(), Quirks::default());
    bench.limit_circuit(10);
    bench.run_checked(60);
    // The next call, a raise, hangs.
    bench.station.quirks_mut().never_answers = true;
    bench.limit_circuit(20);
    bench.run(1);
    bench.station.quirks_mut().never_answers = false;
    bench.limit_circuit(6);
    let took = bench.run_until(30, |bench| near(bench.drawn_a(), 6.0));
    assert!(took.is_some_and(|seconds| seconds <= 10), "{took:?}");
    bench.run_checked(10);
    assert!(near(bench.committed_a(), 20.0), "the raise may still come: {} A", bench.committed_a());
    bench.run_checked(120);
    assert!(near(bench.committed_a(), 6.0), "{} A", bench.committed_a());
}

#[test]
fn the_station_as_a_whole_is_told_its_rating_where_its_model_wants_it() {
    let rated = StationModel { station_max_profile: true, ..StationModel::default() };
    let bench = charging(OcppVersion::V16, rated, Quirks::default());
    let is_rating = |profile: &&serde_json::Value| {
        profile["csChargingProfiles"]["chargingProfilePurpose"] == "ChargePointMaxProfile"
            && profile["connectorId"] == 0
    };
    assert_eq!(bench.profiles().into_iter().filter(is_rating).count(), 1);
    assert!(near(bench.drawn_a(), 32.0));
}

#[test]
fn samples_that_a_station_has_kept_while_it_was_away_are_not_taken_for_what_it_draws_now() {
    // OCPP 1.6 leaves it to the station whether it keeps MeterValues while it is offline; many do.
    let mut bench = charging(OcppVersion::V16, StationModel::default(), Quirks::default());
    bench.limit_circuit(20);
    bench.run_checked(60);
    bench.disconnect();
    // Most of the samples in its queue say 20 A, the fallback is in force since.
    bench.run(150);
    assert!(near(bench.drawn_a(), 6.0), "{} A", bench.drawn_a());
    bench.limit_circuit(6);
    bench.connect();
    bench.run_checked(120);
    let said = bench.records.iter().filter(|record| {
        matches!(&record.body, RecordBody::AlarmRaised(alarm) if alarm.key.kind == AlarmKind::StationAboveLimit)
    });
    assert_eq!(said.count(), 0);
    assert!(near(bench.evse().measured_a.expect("a fresh one")[0], 6.0));
}

#[test]
fn a_station_out_of_service_says_so_and_begins_nothing_before_it_is_back() {
    for version in VERSIONS {
        let mut bench = charging(version, StationModel::default(), Quirks::default());
        let change = |bench: &mut Bench, inoperative: bool| {
            let state = if inoperative { "Inoperative" } else { "Operative" };
            let payload = match version {
                OcppVersion::V16 => format!(r#"{{"connectorId":1,"type":"{state}"}}"#),
                OcppVersion::V201 | OcppVersion::V21 => {
                    format!(r#"{{"operationalStatus":"{state}","evse":{{"id":1}}}}"#)
                }
            };
            let charger = StationId::new("CP1");
            bench.command(Command::OcppCall { charger, action: "ChangeAvailability".to_owned(), payload });
            format!("{:?}", bench.replies.pop())
        };
        // OCPP 1.6 §5.2, 2.0.1 G03: a transaction goes on to its end.
        assert!(change(&mut bench, true).contains("Scheduled"));
        bench.run_checked(30);
        assert!(near(bench.drawn_a(), 32.0), "{} A", bench.drawn_a());
        bench.unplug();
        bench.run_checked(5);
        assert_eq!(bench.evse().status.as_deref(), Some("Unavailable"));
        bench.plug_in();
        bench.run_checked(60);
        assert!(near(bench.drawn_a(), 0.0), "{} A", bench.drawn_a());
        assert!(change(&mut bench, false).contains("Accepted"));
        bench.run_checked(60);
        assert!(near(bench.drawn_a(), 32.0), "{} A", bench.drawn_a());
    }
}
