//! The cloud is away: the same as `siteward-sim offline`, shorter.

use siteward_sim::rig::offline::{OfflineOptions, measure};
use tempfile::TempDir;

#[test]
fn days_without_the_cloud_survive_restarts_and_drain_completely_and_in_order() {
    let dir = TempDir::new().unwrap();
    let options = OfflineOptions { days: 3, stations: 4, a_day: 8, history: 500, seed: 1 };
    let report = measure(options, dir.path(), |text| println!("{text}")).unwrap();
    println!("{report}");
    assert!((90..=100).contains(&report.transactions), "{report}");
    assert!(report.records > 1_000 && report.kept < report.records, "{report}");
}
