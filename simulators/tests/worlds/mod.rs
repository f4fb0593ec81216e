//! Worlds in which a broken rule shows.

use siteward_sim::faults::FaultFile;
use siteward_sim::world::WorldOptions;
use siteward_sim::world::blueprint::{Blueprint, CircuitPlan, LoadPlan};
use siteward_sim::world::tamper::Tampering;

/// Eight stations, a tight connection, a meter that falls silent while the load rises, and a controller that goes away.
pub(crate) fn site(tampering: Option<Tampering>) -> Blueprint {
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

/// Nobody measures, and everybody has the least: what each draws more than it may is within the tolerance of its own samples, so that nobody
/// but the oracle sees the sum.
pub(crate) fn without_a_meter(tampering: Option<Tampering>) -> Blueprint {
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
pub(crate) fn with_a_large_load(tampering: Option<Tampering>) -> Blueprint {
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
