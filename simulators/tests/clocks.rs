//! Stations whose clocks are hours behind: a schedule that began a minute ago would lie in their future and limit nothing.

use siteward_sim::world::{WorldOptions, run_world};

#[test]
fn stations_hours_behind_are_limited_all_the_same() {
    let quirks = (0..8).map(|station| (station, "wrong-clock".to_owned(), -7 * 3_600_000)).collect();
    let options = WorldOptions { seed: 5, duration_ms: 3_600_000, quirks, cars_per_day: 60, ..WorldOptions::default() };
    let report = run_world(&options).expect("it runs");
    assert_eq!(report.violated, 0, "{report}");
    assert!(report.to_string().contains("above a limit: 0 s in all"), "{report}");
}
