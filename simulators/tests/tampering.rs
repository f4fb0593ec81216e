//! Who watches the watchman: each promise is broken on purpose once, and must be seen within a minute of real time.

use siteward_sim::faults::FaultFile;
use siteward_sim::world::blueprint::Blueprint;
use siteward_sim::world::tamper::Tampering;
use siteward_sim::world::{WorldOptions, judge_site, shrink};

/// Eight stations, a tight connection, a meter that falls silent while the load rises, and a controller that goes away.
fn site(tampering: Option<Tampering>) -> Blueprint {
    let fault = |kind: &str, at_s, for_s| FaultFile { kind: kind.to_owned(), at_s, for_s, ..FaultFile::default() };
    let mut faults = vec![fault("controller-crash", 4_000, 600)];
    faults.extend((0..8).map(|round| fault("meter-silent", 6_000 + round * 900, 600)));
    let options =
        WorldOptions { seed: 3, duration_ms: 4 * 3_600_000, cars_per_day: 200, faults, ..WorldOptions::default() };
    let mut site = options.blueprint();
    site.stay_minutes = [100, 200];
    site.tampering = tampering;
    site
}

#[test]
fn nothing_is_seen_where_no_rule_is_broken() {
    let report = judge_site(&site(None)).expect("it runs");
    assert_eq!(report.violated, 0, "{report}");
}

#[test]
fn each_broken_rule_is_seen() {
    for tampering in Tampering::ALL {
        let report = judge_site(&site(Some(tampering))).expect("it runs");
        let seen: Vec<&str> = report.violations.iter().map(|violation| violation.invariant).collect();
        assert!(seen.contains(&tampering.breaks()), "{tampering:?} was not seen: {report}");
    }
}

#[test]
fn a_failing_site_is_made_small_and_still_fails() {
    let large = site(Some(Tampering::BelowTheMinimum));
    let small = shrink::shrink(&large).expect("it runs").expect("it fails");
    assert!(small.site.station.len() <= 2 && small.site.fault.is_empty(), "{:?}", small.site);
    assert!(small.site.minutes < large.minutes / 2, "{:?}", small.site);
    assert_eq!(small.report.violations[0].invariant, Tampering::BelowTheMinimum.breaks());
}
