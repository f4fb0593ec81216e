//! Who watches the watchman: each promise is broken on purpose once, and must be seen within a minute of real time.

use siteward_sim::faults::FaultFile;
use siteward_sim::world::blueprint::{Blueprint, CircuitPlan, LoadPlan};
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

/// Nobody measures, and everybody has the least: what each draws more than it may is within the tolerance of its own samples, so that nobody
/// but the oracle sees the sum.
fn without_a_meter(tampering: Option<Tampering>) -> Blueprint {
    let mut site = site(tampering);
    let limit_a = 10 + 6 * i32::try_from(site.station.len()).expect("few stations");
    site.circuit[0] =
        CircuitPlan { limit_a, meter: None, unmeasured_a: Some(10), load: None, ..site.circuit[0].clone() };
    for garage in &mut site.circuit[1..] {
        garage.limit_a = limit_a;
    }
    site.meter.clear();
    site.pv = None;
    site.fault.clear();
    site.cars_per_day = 1_440;
    site.car_phases = vec![3];
    for station in &mut site.station {
        station.phases = vec![1, 2, 3];
    }
    site
}

/// Cars that stay and take all that is left, and a load that is switched on for minutes while the meter is silent. Nothing else moves, so that
/// nobody can tell a meter that shows what it showed last from one that is well.
fn with_a_large_load(tampering: Option<Tampering>) -> Blueprint {
    let mut site = site(tampering);
    let load = LoadPlan { peak_a: 10, noise_ma: 200, kettle_a: 40, ..LoadPlan::default() };
    let limit_a = 112;
    site.circuit[0] =
        CircuitPlan { limit_a, unmeasured_a: Some(load.most_a() + 1), load: Some(load), ..site.circuit[0].clone() };
    for garage in &mut site.circuit[1..] {
        garage.limit_a = limit_a;
    }
    site.pv = None;
    site.cars_per_day = 400;
    site.stay_minutes = [200, 300];
    site.car_phases = vec![3];
    let silence = |round: u64| FaultFile {
        kind: "meter-silent".to_owned(),
        at_s: 2_400 + round * 900,
        for_s: 600,
        ..FaultFile::default()
    };
    site.fault = (0..12).map(silence).collect();
    site
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
