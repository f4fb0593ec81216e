//! Whole sites in virtual time under faults thrown by seeds: every invariant of the oracle holds.

use siteward_sim::world::{WorldOptions, run_world};

fn run(options: WorldOptions) {
    let report = run_world(options).unwrap();
    assert_eq!(report.violated, 0, "{report}");
    assert!(report.transactions > 0 && report.energy_wh > 0, "nothing happened: {report}");
}

#[test]
fn a_calm_day_at_a_small_site() {
    run(WorldOptions { duration_ms: 3 * 3_600_000, ..WorldOptions::default() });
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let options = WorldOptions { seed: 5, duration_ms: 3_600_000, faults_per_day: 240, ..WorldOptions::default() };
    let first = run_world(options.clone()).unwrap();
    let second = run_world(options.clone()).unwrap();
    assert_eq!(first, second);
    let other = run_world(WorldOptions { seed: 6, ..options }).unwrap();
    assert_ne!(first.trace, other.trace);
}

#[test]
fn twelve_seeds_with_a_fault_every_six_minutes() {
    for seed in 1..=12 {
        run(WorldOptions { seed, duration_ms: 2 * 3_600_000, faults_per_day: 240, ..WorldOptions::default() });
    }
}

#[test]
fn a_day_of_a_larger_site() {
    run(WorldOptions::long(7, 1, 20));
}
