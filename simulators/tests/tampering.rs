//! Who watches the watchman: each promise is broken on purpose once, and must be seen within a minute of real time.

mod worlds;

use siteward_sim::world::blueprint::Blueprint;
use siteward_sim::world::tamper::Tampering;
use siteward_sim::world::{judge_site, shrink};
use worlds::{site, with_a_large_load, without_a_meter};

#[test]
fn nothing_is_seen_where_no_rule_is_broken() {
    let report = judge_site(&site(None)).expect("it runs");
    assert_eq!(report.violated, 0, "{report}");
}

/// Where a rule shows best. The guard would stand between a broken rule and the world, so it is not there.
fn site_for(tampering: Tampering) -> Blueprint {
    let site = match tampering {
        Tampering::LimitsTooHigh => without_a_meter(Some(tampering)),
        Tampering::MeterLossUnseen => with_a_large_load(Some(tampering)),
        Tampering::CutsAreForgotten
        | Tampering::LeasesWithoutEnd
        | Tampering::BelowTheMinimum
        | Tampering::DurableTooEarly
        | Tampering::ForgetsAtRestart
        | Tampering::EventsAreLost
        | Tampering::OneIsForgotten => site(Some(tampering)),
    };
    Blueprint { guard: false, ..site }
}

#[test]
fn nothing_is_seen_without_a_meter_where_no_rule_is_broken() {
    let report = judge_site(&Blueprint { guard: false, ..without_a_meter(None) }).expect("it runs");
    assert_eq!(report.violated, 0, "{report}");
}

#[test]
fn nothing_is_seen_with_a_large_load_where_no_rule_is_broken() {
    let report = judge_site(&Blueprint { guard: false, ..with_a_large_load(None) }).expect("it runs");
    assert_eq!(report.violated, 0, "{report}");
}

#[test]
fn each_broken_rule_is_seen() {
    let mut unseen = Vec::new();
    for tampering in Tampering::ALL {
        let report = judge_site(&site_for(tampering)).expect("it runs");
        if !report.violations.iter().any(|violation| violation.invariant == tampering.breaks()) {
            unseen.push(format!("{tampering:?} was not seen: {report}"));
        }
    }
    assert!(unseen.is_empty(), "{}", unseen.join("\n"));
}

#[test]
fn a_failing_site_is_made_small_and_still_fails() {
    let large = site(Some(Tampering::BelowTheMinimum));
    let small = shrink::shrink(&large).expect("it runs").expect("it fails");
    assert!(small.site.station.len() <= 2 && small.site.fault.is_empty(), "{:?}", small.site);
    assert!(small.site.minutes < large.minutes / 2, "{:?}", small.site);
    assert_eq!(small.report.violations[0].invariant, Tampering::BelowTheMinimum.breaks());
}
