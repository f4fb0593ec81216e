//! Who watches the watchmen: with a rule broken on purpose the oracle sees it, and under the guard nothing comes of it. Run with
//! `cargo nextest run -p siteward-sim --features sabotage --test guarded`.

mod worlds;

use siteward::engine::site::sabotage::Sabotage;
use siteward_sim::faults::FaultFile;
use siteward_sim::world::blueprint::Blueprint;
use siteward_sim::world::{WorldReport, run_site};
use worlds::{with_a_large_load, without_a_meter};

const OVERLOAD: &str = "no_circuit_above_its_limit_longer_than_its_grace";
const DISAGREES: &str = "the_guard_agrees";

fn run(site: &Blueprint, sabotage: Sabotage, guard: bool) -> WorldReport {
    let site = Blueprint { guard, broken_rule: Some(sabotage), ..site.clone() };
    run_site(site).unwrap_or_else(|error| panic!("{error}"))
}

fn count(report: &WorldReport, invariant: &str) -> usize {
    report.violations.iter().filter(|violation| violation.invariant == invariant).count()
}

/// The guard keeps raises back that would have overloaded a circuit: so many violations there are without it.
fn is_held_by_the_guard(sabotage: Sabotage, site: &Blueprint, seeds: impl Iterator<Item = u64>) -> usize {
    let (mut violations, mut above_ms, mut guarded_ms) = (0, 0, 0);
    for seed in seeds {
        let site = Blueprint { seed, ..site.clone() };
        let (alone, guarded) = (run(&site, sabotage, false), run(&site, sabotage, true));
        assert_eq!(count(&guarded, OVERLOAD), 0, "{guarded}");
        assert!(count(&guarded, DISAGREES) > 0, "the guard has nothing to say: {guarded}");
        violations += count(&alone, OVERLOAD);
        above_ms += alone.above_ms;
        guarded_ms += guarded.above_ms;
    }
    assert!(guarded_ms < above_ms, "{guarded_ms} ms above a limit under the guard, {above_ms} ms without it");
    violations
}

/// Nobody measures, cars come and go, and messages do not arrive for a while although the link looks well: who believes that a cut
/// that was sent has come to be gives the same current away twice.
fn cuts_that_do_not_arrive() -> Blueprint {
    let mut site = without_a_meter(None);
    site.circuit.iter_mut().for_each(|circuit| circuit.limit_a = 10 + 12 * 6);
    site.stay_minutes = [5, 20];
    site.cars_per_day = 720;
    site.station.iter_mut().for_each(|station| station.meter_values_s = 2);
    let half_open = |round: usize| FaultFile {
        kind: "half-open".to_owned(),
        at_s: 600 + 150 * u64::try_from(round).expect("few rounds"),
        for_s: 120,
        station: round % 8,
        ..FaultFile::default()
    };
    site.fault = (0..80).map(half_open).collect();
    site
}

/// The same with links that are gone: who forgets what the stations behind them may draw gives it to the others.
fn stations_that_fall_silent() -> Blueprint {
    let mut site = cuts_that_do_not_arrive();
    site.fault.iter_mut().for_each(|fault| fault.kind = "link-down".to_owned());
    site
}

/// Without the guard each of these overloads ends with the time-out of the call, some seconds before its grace: so the oracle
/// counts their seconds and no violation. Not with every dice does a car come just then.
#[test]
fn raises_before_the_cuts_are_confirmed_are_held() {
    is_held_by_the_guard(Sabotage::RaiseBeforeCutsConfirmed, &cuts_that_do_not_arrive(), 4..=7);
}

#[test]
fn silent_stations_that_are_forgotten_are_held() {
    let site = stations_that_fall_silent();
    let violations = is_held_by_the_guard(Sabotage::ForgetSilentStations, &site, std::iter::once(site.seed));
    assert!(violations > 0, "the oracle has nothing to say");
}

/// Nothing is raised here: a cut is missing. The guard cannot cut by itself; it says so before the grace is over, and lets nothing but
/// less leave from then on.
#[test]
fn a_missing_meter_taken_for_zero_is_told_before_the_grace_is_over() {
    let site = with_a_large_load(None);
    let first = |report: &WorldReport, invariant: &str| {
        report.violations.iter().find(|violation| violation.invariant == invariant).map(|violation| violation.at_ms)
    };
    let alone = run(&site, Sabotage::MeterMissingIsZero, false);
    let guarded = run(&site, Sabotage::MeterMissingIsZero, true);
    println!("without the guard: {alone}\nunder the guard: {guarded}");
    let overload = first(&alone, OVERLOAD).expect("the oracle sees it");
    let told = first(&guarded, DISAGREES).expect("the guard has something to say");
    assert!(told < overload, "{guarded}");
    assert!(guarded.above_ms <= alone.above_ms, "{guarded}");
}

/// Nobody measures, and the connection bears half the power that its phases could carry together.
fn with_little_power() -> Blueprint {
    let mut site = without_a_meter(None);
    site.circuit.iter_mut().for_each(|circuit| circuit.limit_a = 10 + 16 * 8);
    site.circuit[0].max_w = Some((10 + 8 * 8) * 3 * 230);
    site.stay_minutes = [5, 20];
    site.cars_per_day = 720;
    site
}

#[test]
fn a_power_that_is_forgotten_is_held() {
    let site = with_little_power();
    assert_eq!(count(&run_site(site.clone()).expect("a site"), DISAGREES), 0, "without a mistake it agrees");
    let violations = is_held_by_the_guard(Sabotage::ForgetPowers, &site, std::iter::once(site.seed));
    assert!(violations > 0, "the oracle has nothing to say");
}

/// As with the meter, a cut is missing: the guard says so, and lets nothing but less leave.
#[test]
fn a_dimming_that_is_forgotten_is_told() {
    let mut site = with_little_power();
    site.circuit[0].max_w = None;
    site.dimming_w = Some(18_900);
    let dimmed = FaultFile { kind: "dimmed".to_owned(), at_s: 3_600, for_s: 3_600, ..FaultFile::default() };
    site.fault = vec![dimmed];
    let (alone, guarded) = (run(&site, Sabotage::ForgetPowers, false), run(&site, Sabotage::ForgetPowers, true));
    assert!(count(&alone, OVERLOAD) > 0, "the oracle has nothing to say: {alone}");
    let told = guarded.violations.iter().find(|violation| violation.invariant == DISAGREES);
    let told = told.expect("the guard has something to say").at_ms;
    assert!((3_600_000..3_630_000).contains(&told), "{guarded}");
    assert!(guarded.above_ms < alone.above_ms, "{guarded}");
}

/// The oracle does not hold the unbalance: it protects no conductor, and cars may change it at any time. The guard does, as far as it can.
#[test]
fn an_unbalance_that_is_forgotten_is_told() {
    let mut site = with_little_power();
    site.circuit[0].max_w = None;
    site.circuit[0].max_unbalance_a = Some(16);
    site.car_phases = vec![1];
    assert_eq!(count(&run_site(site.clone()).expect("a site"), DISAGREES), 0, "without a mistake it agrees");
    let guarded = run(&site, Sabotage::ForgetUnbalance, true);
    assert!(count(&guarded, DISAGREES) > 0, "the guard has nothing to say: {guarded}");
}
