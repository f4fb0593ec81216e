//! Who watches the watchmen: with a rule broken on purpose the oracle sees it, and under the guard nothing comes of it. Run with
//! `cargo nextest run -p siteward-sim --features sabotage --test guarded`.

use siteward::engine::site::sabotage::Sabotage;
use siteward::engine::units::Current;
use siteward_sim::world::{WorldOptions, WorldReport, run_world};

const OVERLOAD: &str = "no_circuit_above_its_limit_longer_than_its_grace";
const DISAGREES: &str = "the_guard_agrees";

fn run(sabotage: Sabotage, guard: bool, seed: u64) -> WorldReport {
    let options = WorldOptions {
        seed,
        duration_ms: 2 * 3_600_000,
        faults_per_day: 480,
        cars_per_day: 200,
        grid_limit: Current::from_a(100),
        guard,
        broken_rule: Some(sabotage),
        ..WorldOptions::default()
    };
    run_world(&options).unwrap_or_else(|error| panic!("{error}"))
}

fn count(report: &WorldReport, invariant: &str) -> usize {
    report.violations.iter().filter(|violation| violation.invariant == invariant).count()
}

/// Without the guard the oracle sees the broken rule in one of the seeds; with it no circuit is overloaded in any of them.
fn is_held_by_the_guard(sabotage: Sabotage) {
    let seeds = 1..=6;
    let overloads: usize = seeds.clone().map(|seed| count(&run(sabotage, false, seed), OVERLOAD)).sum();
    println!("{sabotage:?} without the guard: {overloads} overloads");
    let mut disagreements = 0;
    for seed in seeds {
        let report = run(sabotage, true, seed);
        assert_eq!(count(&report, OVERLOAD), 0, "{report}");
        disagreements += count(&report, DISAGREES);
    }
    println!("{sabotage:?} under the guard: no overload, {disagreements} disagreements");
    assert!(disagreements > 0, "the guard has nothing to say");
    assert!(overloads > 0, "the oracle has nothing to say");
}

#[test]
fn raises_before_the_cuts_are_confirmed_are_held() {
    is_held_by_the_guard(Sabotage::RaiseBeforeCutsConfirmed);
}

#[test]
fn silent_stations_that_are_forgotten_are_held() {
    is_held_by_the_guard(Sabotage::ForgetSilentStations);
}

#[test]
fn a_missing_meter_taken_for_zero_is_held() {
    is_held_by_the_guard(Sabotage::MeterMissingIsZero);
}
