//! `siteward commission` on stations that keep their lease, and on stations that do not.

use siteward::engine::model::command::{Command, CommandOutcome};
use siteward::engine::model::commission::{CommissionReport, StepOutcome, Verdict};
use siteward::engine::model::exchange::OcppVersion;
use siteward::engine::model::ids::StationId;
use siteward::engine::model::topology::{LeaseForm, StationModel};
use siteward_sim::station::Quirks;

use crate::bench::{Bench, model};
use crate::{VERSIONS, charging, near};

pub(crate) fn test(bench: &mut Bench) -> CommissionReport {
    bench.command(Command::Commission { charger: StationId::new("CP1") });
    assert_eq!(bench.replies.pop(), Some(CommandOutcome::Accepted { data: None }));
    for _ in 0..900 {
        bench.run(1);
        if let Some(report) = bench.reports.pop() {
            return report;
        }
    }
    panic!(
        "the test does not end: {:?}",
        bench.site.as_ref().and_then(|site| site.commission_report(&StationId::new("CP1")))
    );
}

fn outcome(report: &CommissionReport, name: &str) -> Vec<StepOutcome> {
    report.steps.iter().filter(|step| step.name == name).map(|step| step.outcome).collect()
}

#[test]
fn a_station_that_keeps_its_lease_passes_in_every_form() {
    for version in VERSIONS {
        for &lease in LeaseForm::tried(version) {
            let mut bench = charging(version, model(lease), Quirks::default());
            let report = test(&mut bench);
            assert_eq!(report.verdict, Some(Verdict::Passed), "{}", report.text());
            let fell = report.steps.iter().find(|step| step.name == "falls back by itself").expect("the step");
            assert!(
                near(fell.measured_a.expect("measured"), 6.0)
                    && (90..160).contains(&report.fall.as_ref().expect("measured").after_s),
                "{fell:?}"
            );
            bench.run_checked(30);
            assert!(near(bench.drawn_a(), 32.0), "restored: {} A", bench.drawn_a());
        }
    }
}

#[test]
fn it_counts_at_its_maximum_while_it_is_left_in_silence() {
    let mut bench = charging(OcppVersion::V16, StationModel::default(), Quirks::default());
    bench.command(Command::Commission { charger: StationId::new("CP1") });
    let silent = |bench: &Bench| {
        let report = bench.site.as_ref().and_then(|site| site.commission_report(&StationId::new("CP1")));
        report.and_then(|report| report.doing).is_some_and(|doing| doing.starts_with("silent"))
    };
    assert!(bench.run_until(200, silent).is_some());
    let before = bench.profiles().len();
    bench.run(60);
    assert_eq!(bench.profiles().len(), before, "nothing is sent");
    assert!(near(bench.committed_a(), 32.0));
}

#[test]
fn a_station_that_does_not_keep_its_lease_fails_with_a_clear_text() {
    let none = Quirks::default();
    let cases = [
        (Quirks { ignores_limit: true, ..none.clone() }, "current follows", "are drawn where 10.0 A are allowed"),
        (
            Quirks { never_falls_back: true, ..none.clone() },
            "falls back by itself",
            "after the last message; it should have been 6.0 A",
        ),
        (Quirks { refuses_profiles: true, ..none }, "limit accepted", "was not accepted"),
    ];
    for (quirks, name, text) in cases {
        let mut bench = charging(OcppVersion::V16, StationModel::default(), quirks.clone());
        let report = test(&mut bench);
        assert_eq!(report.verdict, Some(Verdict::Failed), "{quirks:?}\n{}", report.text());
        let failed = report.steps.iter().find(|step| step.name == name && step.outcome == StepOutcome::Failed);
        assert!(failed.is_some_and(|step| step.text.contains(text)), "{quirks:?}\n{}", report.text());
        assert!(report.text().contains("FAILED: do not rely on this charger's fallback"));
    }
}

#[test]
fn a_lease_that_was_seen_to_fail_counts_as_none_from_then_on() {
    let quirks = Quirks { never_falls_back: true, keeps_its_schedule_secret: true, ..Quirks::default() };
    let mut bench = charging(OcppVersion::V16, StationModel::default(), quirks);
    assert_eq!(test(&mut bench).verdict, Some(Verdict::Failed));
    assert!(bench.alarms().contains(&"LeaseNotProven".to_owned()));
    bench.disconnect();
    bench.run_checked(300);
    assert!(near(bench.committed_a(), 32.0));
}

#[test]
fn without_a_car_nothing_that_needs_a_current_is_passed() {
    let mut bench = Bench::new(OcppVersion::V16, StationModel::default(), Quirks::default());
    bench.run(30);
    let report = test(&mut bench);
    assert_eq!(report.verdict, Some(Verdict::Incomplete), "{}", report.text());
    for name in ["current follows", "falls back by itself"] {
        assert!(outcome(&report, name).iter().all(|outcome| *outcome == StepOutcome::NotMeasured), "{}", report.text());
    }
    assert!(report.text().contains("no car charges here"));
}

#[test]
fn a_station_that_goes_away_during_the_test_fails_it_and_is_let_go() {
    let mut bench = charging(OcppVersion::V16, StationModel::default(), Quirks::default());
    bench.command(Command::Commission { charger: StationId::new("CP1") });
    bench.run(10);
    bench.disconnect();
    bench.run(5);
    let report = bench.reports.pop().expect("it has ended");
    assert_eq!(report.verdict, Some(Verdict::Failed));
    bench.connect();
    bench.run_checked(60);
    assert!(near(bench.drawn_a(), 32.0));
}

#[test]
fn one_station_is_tested_at_a_time_and_only_one_that_is_there() {
    let mut bench = charging(OcppVersion::V16, StationModel::default(), Quirks::default());
    let commission = |charger: &str| Command::Commission { charger: StationId::new(charger) };
    bench.command(commission("CP9"));
    assert!(
        matches!(bench.replies.pop(), Some(CommandOutcome::Rejected { error }) if error.contains("no charger CP9"))
    );
    bench.command(commission("CP1"));
    bench.command(commission("CP1"));
    assert!(matches!(bench.replies.pop(), Some(CommandOutcome::Rejected { error }) if error.contains("one at a time")));
    bench.disconnect();
    bench.run(2);
    bench.command(commission("CP1"));
    assert_eq!(bench.replies.pop(), Some(CommandOutcome::NotConnected));
}

#[test]
fn where_its_maximum_does_not_fit_a_trusted_lease_is_tested_at_the_current_that_does() {
    for version in VERSIONS {
        let mut bench = charging(version, StationModel::default(), Quirks::default());
        bench.limit_circuit(20);
        bench.run_checked(60);
        let report = test(&mut bench);
        assert_eq!(report.verdict, Some(Verdict::Passed), "{}", report.text());
        let fall = report.fall.expect("measured");
        assert!(near(fall.from_a, 10.0) && near(fall.to_a, 6.0) && !fall.counted_at_maximum, "{fall:?}");
        assert!(fall.not_before_s < fall.after_s && (100..160).contains(&fall.after_s), "{fall:?}");
        bench.run_checked(60);
        assert!(near(bench.drawn_a(), 20.0), "restored: {} A", bench.drawn_a());
    }
}

#[test]
fn a_lease_that_nothing_vouches_for_is_not_left_in_silence_where_its_maximum_does_not_fit() {
    let secret = Quirks { keeps_its_schedule_secret: true, ..Quirks::default() };
    let mut bench = charging(OcppVersion::V16, model(LeaseForm::Auto), secret);
    bench.limit_circuit(20);
    bench.run_checked(60);
    let report = test(&mut bench);
    assert_eq!(report.verdict, Some(Verdict::Incomplete), "{}", report.text());
    assert!(report.text().contains("its maximum of 32.0 A does not fit"), "{}", report.text());
    assert_eq!(outcome(&report, "falls back by itself"), [StepOutcome::NotMeasured]);
}

#[test]
fn it_waits_for_a_car_and_goes_on_with_the_next_one_and_can_be_stopped() {
    let charger = || StationId::new("CP1");
    let mut bench = Bench::new(OcppVersion::V16, StationModel::default(), Quirks::default());
    bench.run(30);
    let doing = |bench: &Bench, text: &str| {
        let report = bench.site.as_ref().and_then(|site| site.commission_report(&charger()));
        report.and_then(|report| report.doing).is_some_and(|doing| doing.contains(text))
    };
    bench.command(Command::CommissionStop { charger: charger() });
    assert!(matches!(bench.replies.pop(), Some(CommandOutcome::Rejected { .. })), "nothing runs");
    bench.command(Command::Commission { charger: charger() });
    bench.run(60);
    assert!(doing(&bench, "no car charges here: plug one in"));
    bench.plug_in();
    assert!(bench.run_until(300, |bench| doing(bench, "silent on purpose")).is_some());
    bench.unplug();
    bench.run_checked(30);
    assert!(doing(&bench, "no car charges here: plug one in"));
    bench.plug_in();
    assert!(bench.run_until(300, |bench| doing(bench, "silent on purpose")).is_some());
    bench.run_checked(20);
    bench.command(Command::CommissionStop { charger: charger() });
    assert!(bench.run_until(60, |bench| !bench.reports.is_empty()).is_some());
    let report = bench.reports.pop().expect("it has ended");
    assert_eq!(report.verdict, Some(Verdict::Incomplete), "{}", report.text());
    bench.run_checked(60);
    assert!(near(bench.drawn_a(), 32.0), "{} A", bench.drawn_a());
}
