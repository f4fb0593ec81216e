//! Whole sites in virtual time under faults thrown by seeds: every invariant of the oracle holds.

use siteward::engine::units::Current;
use siteward_sim::world::soak::{SoakOptions, soak};
use siteward_sim::world::{WorldOptions, run_world, scenario};

fn run(options: &WorldOptions) {
    let report = run_world(options).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(report.violated, 0, "{report}");
    assert!(report.transactions > 0 && report.energy_wh > 0, "nothing happened: {report}");
}

#[test]
fn a_calm_day_at_a_small_site() {
    run(&WorldOptions { duration_ms: 3 * 3_600_000, ..WorldOptions::default() });
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let options = WorldOptions { seed: 5, duration_ms: 3_600_000, faults_per_day: 240, ..WorldOptions::default() };
    let first = run_world(&options).unwrap();
    let second = run_world(&options).unwrap();
    assert_eq!(first, second);
    let other = run_world(&WorldOptions { seed: 6, ..options }).unwrap();
    assert_ne!(first.trace, other.trace);
}

#[test]
fn twelve_seeds_with_a_fault_every_six_minutes() {
    for seed in 1..=12 {
        run(&WorldOptions { seed, duration_ms: 2 * 3_600_000, faults_per_day: 240, ..WorldOptions::default() });
    }
}

#[test]
fn a_day_of_a_larger_site() {
    run(&WorldOptions::long(7, 1, 20));
}

/// Sites of all sizes and shapes with limits that bind, five hours of each, with every kind of fault. The same site again:
/// `siteward-sim world --seed N --invent 40 300`.
#[test]
fn invented_sites_hold_their_limits_and_come_close_to_them() {
    let options = SoakOptions { seed: 1, sites: 24, site_minutes: 300, most_stations: 40, jobs: 2, minutes: 60 };
    let report = soak(options, |_| ()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(report.violated, 0, "{report}");
    assert!(report.cuts > 2_500, "hardly anything had to be cut, one and a half times in a station's hour: {report}");
    let utilisation = report.utilisation.0 / report.utilisation.1;
    assert!(utilisation > 800_000, "the limits were not approached: {report}");
}

/// Who watches the watchman: stations that follow nothing, and of which nobody says that they are odd, must be seen.
#[test]
fn the_oracle_sees_stations_that_ignore_their_limits() {
    let options = WorldOptions { duration_ms: 3 * 3_600_000, ..WorldOptions::default() };
    let quirks = (0..options.stations).map(|station| (station, scenario::SECRET.to_owned(), 0)).collect();
    let options =
        WorldOptions { quirks, grid_limit: Current::from_a(60), building_peak: Current::from_a(30), ..options };
    let report = run_world(&options).unwrap();
    let names: Vec<&str> = report.violations.iter().map(|violation| violation.invariant).collect();
    assert!(names.contains(&"no_circuit_above_its_limit_longer_than_its_grace"), "{report}");
    assert!(!report.violations[0].last_events.is_empty());
}
