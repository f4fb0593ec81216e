//! A site of forty stations on a connection that can feed twelve: turns for everybody, and nothing of the connection is wasted.

use siteward_sim::world::WorldOptions;
use siteward_sim::world::blueprint::{Blueprint, CircuitPlan, LoadPlan};
use siteward_sim::world::run_site;

/// Nobody measures; 40 A are kept for other loads, and 72 A are twelve times the least that a car can take.
fn forty_on_twelve() -> Blueprint {
    let options = WorldOptions { seed: 12, duration_ms: 8 * 3_600_000, stations: 40, ..WorldOptions::default() };
    let mut site = options.blueprint();
    let load = LoadPlan { peak_a: 20, noise_ma: 1_000, kettle_a: 8, lift_a: 6, oven_a: 5 };
    site.circuit = vec![CircuitPlan {
        id: "grid".to_owned(),
        limit_a: 40 + 12 * 6,
        unmeasured_a: Some(40),
        load: Some(load),
        ..CircuitPlan::default()
    }];
    site.meter.clear();
    site.pv = None;
    site.fault.clear();
    site.quiet_minutes = site.minutes;
    // Everybody is there after some minutes and stays.
    site.cars_per_day = 720;
    site.stay_minutes = [900, 900];
    site.car_phases = vec![3];
    for station in &mut site.station {
        station.circuit = 0;
        station.phases = vec![1, 2, 3];
        station.fallback_a = 0;
    }
    site
}

#[test]
fn forty_stations_on_a_connection_for_twelve_all_get_their_turns() {
    let report = run_site(forty_on_twelve()).expect("it runs");
    println!("{report}");
    // `nobody_waits_longer_than_the_queue_says` holds each wait against the earliest start that was ever said for it, and
    // `after_faults_end_everyone_charges` against the longest that any queue may take.
    assert_eq!(report.violated, 0, "{report}");
    assert!(report.turns > 100, "{} turns were waited for", report.turns);
    println!("{report}");
    let used = report.utilisation_permille().expect("somebody always waits");
    assert!(used >= 970, "{used} ‰ of what the margin allows are used: {report}");
}
