//! Sites by dice: sizes, trees, stations and loads as they come, with limits that bind.

use siteward::engine::model::topology::LeaseForm;
use siteward::engine::plan::TURN_MS;

use crate::faults::{self, FaultFile, Outside, Targets};
use crate::rng::Dice;

use super::blueprint::{Blueprint, CircuitPlan, DcPlan, LoadPlan, MeterPlan, PvPlan, StationPlan, USUAL_PHASES};

/// How long nothing goes wrong at the end at least, in minutes.
const QUIET_MINUTES: u64 = 40;
/// The least that an invented station gives.
const LEAST_A: i32 = 6;
/// What a usual car takes per phase.
const USUAL_A: i32 = 16;
/// An ampere on each of three phases at nominal voltage.
const THREE_PHASES_W: i64 = 690;

/// What kind of site is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Decides everything else.
    pub seed: u64,
    /// How long, in minutes.
    pub minutes: u64,
    /// The most stations; sizes are as likely between 1 and 2 as between 100 and 200.
    pub most_stations: u32,
    /// About how many faults a day.
    pub faults_per_day: u64,
}

/// What the stations of one make have in common.
#[derive(Clone)]
struct Make {
    evses: u32,
    max_a: i32,
    min_a: i32,
    levels_a: Vec<i32>,
    reaction_ms: u64,
    lease_s: u64,
    renew_s: u64,
    meter_values_s: u64,
    ocpp: &'static str,
}

/// A site by dice. It is fail-safe as `siteward check` wants it: all fallbacks and all loads fit into every circuit.
#[must_use]
pub fn invent(wanted: Wanted) -> Blueprint {
    let mut dice = Dice::named(wanted.seed, "site");
    let count = log_uniform(&mut dice, wanted.most_stations);
    let mut circuit = tree(&mut dice, count);
    let fallback_a = if dice.chance(500_000) { LEAST_A } else { 0 };
    let mut station = stations(&mut dice, count, circuit.len(), fallback_a);
    some_are_dc(&mut Dice::named(wanted.seed, "dc"), &mut station, fallback_a);
    let meter = meters_and_loads(&mut dice, &mut circuit);
    let least_a = limits(&mut dice, &mut circuit, &station);
    let dimming_w = powers(&mut Dice::named(wanted.seed, "powers"), &mut circuit, &station, &least_a);
    let metered = circuit[0].meter.is_some();
    let pv =
        (metered && dice.chance(400_000)).then(|| PvPlan { circuit: 0, peak_w: signed(dice.between(5, 40)) * 1000 });
    let long = dice.between(40, 300);
    let mut site = Blueprint {
        about: format!("Invented by seed {}.", wanted.seed),
        seed: wanted.seed,
        minutes: wanted.minutes,
        quiet_minutes: QUIET_MINUTES,
        cars_per_day: dice.between(15, 60),
        stay_minutes: [10, long],
        car_phases: USUAL_PHASES.to_vec(),
        tampering: None,
        guard: true,
        broken_rule: None,
        by_registers: false,
        local_lists: false,
        running_cost_s: None,
        dimming_w,
        circuit,
        meter,
        pv,
        station,
        fault: Vec::new(),
    };
    site.quiet_minutes = (longest_wait_ms(&site) / 60_000 + 5).max(QUIET_MINUTES).min(wanted.minutes);
    let targets = Targets { stations: site.station.len(), meters: site.meter.len(), circuits: site.circuit.len() };
    let (end_ms, per_day) = (site.quiet_from_ms(), wanted.faults_per_day);
    let mut planned = faults::by_seed(&mut Dice::named(wanted.seed, "faults"), end_ms, targets, per_day);
    let can_be_dimmed = site.dimming_w.is_some();
    if can_be_dimmed || site.circuit.iter().any(|circuit| circuit.max_w.is_some()) {
        let outside = Outside { circuits: site.circuit.len(), can_be_dimmed };
        planned.extend(faults::outside_by_seed(&mut Dice::named(wanted.seed, "outside"), end_ms, outside, per_day));
        planned.sort_by_key(|planned| planned.at_ms);
    }
    site.fault = planned.into_iter().map(FaultFile::of).collect();
    site
}

/// How long a car may wait for its turn at most: where not all minimums fit, each circuit above it needs so many turns until
/// everybody has had one; and one more turn, since a car that comes while a turn runs waits for its end.
#[must_use]
pub fn longest_wait_ms(site: &Blueprint) -> u64 {
    let rounds: Vec<u64> = (0..site.circuit.len())
        .map(|index| {
            let free = free_a(&site.circuit[index]);
            let needed = per_phase(site, index, |station| station.min_a);
            let positive = |amperes: i32| u64::try_from(amperes).unwrap_or(0).max(1);
            positive(needed.into_iter().max().unwrap_or(0)).div_ceil(positive(free))
        })
        .collect();
    let waits = (0..site.circuit.len()).map(|index| site.path(index).map(|above| rounds[above] - 1).sum::<u64>());
    (waits.max().unwrap_or(0) + 1) * TURN_MS + TURN_MS
}

/// What a circuit has for charging on a phase at the least: by its current, by its power if all phases are used alike, and by what phases may
/// differ if only one is used.
fn free_a(circuit: &CircuitPlan) -> i32 {
    let by_power = circuit.max_w.map_or(i32::MAX, |watts| i32::try_from(watts / THREE_PHASES_W).unwrap_or(i32::MAX));
    let free = circuit.limit_a.min(by_power) - circuit.unmeasured_a.unwrap_or(0);
    free.min(circuit.max_unbalance_a.unwrap_or(i32::MAX))
}

/// The sum of something over all EVSEs below a circuit, on each phase that they may use.
fn per_phase(site: &Blueprint, circuit: usize, of: impl Fn(&StationPlan) -> i32) -> [i32; 3] {
    let mut sums = [0; 3];
    for station in site.station.iter().filter(|station| site.path(station.circuit).any(|above| above == circuit)) {
        add(&mut sums, station, of(station));
    }
    sums
}

fn add(sums: &mut [i32; 3], station: &StationPlan, each_a: i32) {
    let evses = i32::try_from(station.evses).unwrap_or(1);
    for phase in 1..=3_u8 {
        if !station.order_known || station.phases.contains(&phase) {
            sums[usize::from(phase) - 1] += each_a * evses;
        }
    }
}

/// Each octave as likely as the others; of the last one only the part that is wanted, so that it is thrown again beyond that.
fn log_uniform(dice: &mut Dice, most: u32) -> usize {
    let octaves = u64::from(most.max(1).ilog2());
    loop {
        let low = 1_u64 << dice.between(0, octaves);
        let size = dice.between(low, 2 * low - 1);
        if size <= u64::from(most.max(1)) {
            return usize::try_from(size).unwrap_or(1);
        }
    }
}

/// One to four levels, each circuit with up to four below it, no more circuits than stations.
fn tree(dice: &mut Dice, stations: usize) -> Vec<CircuitPlan> {
    let levels = dice.between(1, 4);
    let mut circuits = vec![CircuitPlan { id: "grid".to_owned(), ..CircuitPlan::default() }];
    let mut parents = vec![0];
    for level in 2..=levels {
        let mut made = Vec::new();
        for parent in parents {
            for _ in 0..dice.between(1, 4) {
                if circuits.len() > stations {
                    break;
                }
                made.push(circuits.len());
                let id = format!("c{}-{}", level, circuits.len());
                circuits.push(CircuitPlan { id, parent: Some(parent), ..CircuitPlan::default() });
            }
        }
        parents = made;
    }
    circuits
}

fn make(dice: &mut Dice) -> Make {
    // The lease and its renewal: a usual station, one with a slow network, one that keeps its profiles in flash.
    let (lease_s, renew_s) = *dice.pick(&[(120, 30), (300, 100), (900, 300)]).unwrap_or(&(120, 30));
    let max_a = *dice.pick(&[16, 32, 32, 32]).unwrap_or(&32);
    let steps = [6, 8, 10, 13, 16, 20, 25, 32];
    let levels_a = if dice.chance(200_000) { steps.into_iter().filter(|a| *a <= max_a).collect() } else { Vec::new() };
    Make {
        evses: *dice.pick(&[1, 1, 1, 2, 2, 4]).unwrap_or(&1),
        max_a,
        min_a: *dice.pick(&[6, 6, 6, 8]).unwrap_or(&6),
        levels_a,
        reaction_ms: dice.between(1, 10) * 100,
        lease_s,
        renew_s,
        meter_values_s: *dice.pick(&[10, 10, 30, 60]).unwrap_or(&10),
        ocpp: dice.pick(&["1.6", "2.0.1"]).copied().unwrap_or("1.6"),
    }
}

fn stations(dice: &mut Dice, count: usize, circuits: usize, fallback_a: i32) -> Vec<StationPlan> {
    let makes: Vec<Make> = (0..3).map(|_| make(dice)).collect();
    let rotations: [&[u8]; 12] = [
        &[1, 2, 3],
        &[2, 3, 1],
        &[3, 1, 2],
        &[1, 3, 2],
        &[2, 1, 3],
        &[3, 2, 1],
        &[1, 2],
        &[2, 3],
        &[3, 1],
        &[1],
        &[2],
        &[3],
    ];
    (0..count)
        .map(|index| {
            let make = dice.pick(&makes).unwrap_or(&makes[0]).clone();
            let phases = dice.pick(&rotations).copied().unwrap_or(&[1, 2, 3]).to_vec();
            // Every circuit gets one before any gets two.
            let circuit = if index + 1 < circuits {
                index + 1
            } else {
                usize::try_from(dice.below(u64::try_from(circuits).unwrap_or(1))).unwrap_or(0)
            };
            StationPlan {
                number: index,
                circuit,
                ocpp: make.ocpp.to_owned(),
                evses: make.evses,
                order_known: !dice.chance(150_000),
                phases,
                dc: None,
                max_a: make.max_a,
                min_a: make.min_a,
                fallback_a: if fallback_a == 0 { 0 } else { make.min_a },
                levels_a: make.levels_a,
                reaction_ms: make.reaction_ms,
                lease_s: make.lease_s,
                renew_s: make.renew_s,
                lease: LeaseForm::TxDefaultProfile,
                meter_values_s: make.meter_values_s,
                odd: None,
                odd_ms: 0,
            }
        })
        .collect()
}

/// One site of four has stations with DC outputs among the others, all of one make.
fn some_are_dc(dice: &mut Dice, stations: &mut [StationPlan], fallback_a: i32) {
    if !dice.chance(250_000) {
        return;
    }
    let share = dice.between(100_000, 1_000_000);
    let max_w = *dice.pick(&[30_000, 50_000, 75_000, 150_000]).unwrap_or(&50_000);
    let min_w = *dice.pick(&[5_000, 10_000]).unwrap_or(&5_000);
    let fallback_w = if fallback_a == 0 { 0 } else { min_w };
    let efficiency_permille = *dice.pick(&[900, 930, 950]).unwrap_or(&930);
    let dc = DcPlan { max_w, min_w, fallback_w, efficiency_permille, power_factor_permille: 950 };
    let amperes = |watts: i64| (dc.draws(watts).ma() + 999) / 1_000;
    let evses = *dice.pick(&[1, 2]).unwrap_or(&1);
    for station in stations.iter_mut().filter(|_| dice.chance(share)) {
        if station.phases.len() < 3 {
            station.phases = vec![1, 2, 3];
        }
        (station.max_a, station.min_a, station.fallback_a) = (amperes(max_w), amperes(min_w), amperes(fallback_w));
        station.levels_a.clear();
        station.evses = evses;
        station.dc = Some(dc);
    }
}

/// Four sites of five have a meter at the grid connection, every third circuit below has one of its own.
fn meters_and_loads(dice: &mut Dice, circuits: &mut [CircuitPlan]) -> Vec<MeterPlan> {
    let mut meters = Vec::new();
    let mut metered_site = false;
    for (index, circuit) in circuits.iter_mut().enumerate() {
        let chance = if index == 0 { 800_000 } else { 333_000 };
        let metered = dice.chance(chance) && (index == 0 || metered_site);
        metered_site |= metered;
        if metered {
            circuit.meter = Some(meters.len());
            meters.push(meter(dice));
        }
        if index == 0 || dice.chance(400_000) {
            let some = |dice: &mut Dice, most| if dice.chance(500_000) { small(dice.between(4, most)) } else { 0 };
            circuit.load = Some(LoadPlan {
                peak_a: small(dice.between(0, 30)),
                noise_ma: small(dice.between(0, 1_500)),
                kettle_a: some(dice, 13),
                lift_a: some(dice, 20),
                oven_a: some(dice, 16),
            });
        }
    }
    // Children first: what is assumed for a circuit has room for all that really draws in it and below.
    for index in (0..circuits.len()).rev() {
        let below = circuits.iter().filter(|child| child.parent == Some(index)).filter_map(|child| child.unmeasured_a);
        let most = below.sum::<i32>() + circuits[index].load.map_or(0, |load| load.most_a());
        circuits[index].unmeasured_a = (most > 0).then_some(most);
    }
    meters
}

fn meter(dice: &mut Dice) -> MeterPlan {
    let refresh_ms = match dice.below(20) {
        0..=9 => 0,
        10..=16 => 1_000,
        17 | 18 => 10_000,
        _ => 60_000,
    };
    let poll_ms = *dice.pick(&[200, 1_000, 1_000, 2_000]).unwrap_or(&1_000);
    MeterPlan { poll_ms, refresh_ms, stale_after_ms: 5_000 }
}

/// Limits that bind: a fifth to three fifths of what the cars would take, but room for all fallbacks, for one EVSE, and for a quarter of
/// all minimums at least. What each circuit needs on a phase at the least.
fn limits(dice: &mut Dice, circuits: &mut [CircuitPlan], stations: &[StationPlan]) -> Vec<i32> {
    let mut least = vec![0; circuits.len()];
    for index in (0..circuits.len()).rev() {
        let below = |station: &&StationPlan| is_below(circuits, station.circuit, index);
        let sum = |of: &dyn Fn(&StationPlan) -> i32| {
            let mut sums = [0; 3];
            stations.iter().filter(below).for_each(|station| add(&mut sums, station, of(station)));
            sums.into_iter().max().unwrap_or(0)
        };
        let fallbacks = sum(&|station| station.fallback_a);
        let minimums = sum(&|station| station.min_a);
        let wanted = sum(&|station| if station.dc.is_some() { station.max_a } else { station.max_a.min(USUAL_A) });
        let one = stations.iter().filter(below).map(|station| station.min_a).max().unwrap_or(LEAST_A);
        let share = small(dice.between(20, 60));
        let needed = fallbacks.max(one).max((minimums + 3) / 4);
        // Above a measured load a little is kept free.
        let kept_free = i32::from(circuits[index].meter.is_some() && circuits[index].unmeasured_a.is_some());
        let assumed = circuits[index].unmeasured_a.unwrap_or(0);
        least[index] = assumed + needed + kept_free;
        circuits[index].limit_a = (assumed + wanted * share / 100).max(least[index]);
    }
    least
}

/// Every other site has a power at some of its circuits, and the largest difference of phases at others, and can be dimmed more often than not: to what
/// is left then, in W.
fn powers(dice: &mut Dice, circuits: &mut [CircuitPlan], stations: &[StationPlan], least_a: &[i32]) -> Option<i64> {
    if !dice.chance(500_000) {
        return None;
    }
    // A little for what is rounded up on the way from A to W.
    let watts = |amperes: i32| i64::from(amperes) * THREE_PHASES_W + 100;
    for (circuit, least_a) in circuits.iter_mut().zip(least_a) {
        if dice.chance(400_000) {
            let (least, most) = (watts(*least_a), watts(circuit.limit_a));
            circuit.max_w = Some(least + (most - least) * signed(dice.between(0, 90)) / 100);
        }
    }
    // Who falls back by himself does not ask what the phases differ by.
    let one = stations.iter().map(|station| station.min_a).max().unwrap_or(LEAST_A);
    if stations.iter().all(|station| station.fallback_a == 0) {
        for circuit in circuits.iter_mut() {
            if dice.chance(150_000) {
                circuit.max_unbalance_a = Some(one + small(dice.between(0, 20)));
            }
        }
    }
    let mut fallbacks = [0; 3];
    stations.iter().for_each(|station| add(&mut fallbacks, station, station.fallback_a));
    let needed = fallbacks.into_iter().max().unwrap_or(0).max(one);
    dice.chance(600_000).then(|| watts(needed) * signed(dice.between(100, 300)) / 100)
}

fn is_below(circuits: &[CircuitPlan], from: usize, above: usize) -> bool {
    std::iter::successors(Some(from), |at| circuits[*at].parent).any(|at| at == above)
}

fn small(value: u64) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use siteward::config::failsafe;

    use super::*;

    fn site(seed: u64) -> Blueprint {
        invent(Wanted { seed, minutes: 1_440, most_stations: 200, faults_per_day: 50 })
    }

    #[test]
    fn every_invented_site_is_fail_safe() {
        for seed in 0..300 {
            let setup = site(seed).setup().expect("it is a site");
            let report = failsafe(&setup.topology);
            assert!(report.is_safe(), "seed {seed}: {report}");
        }
    }

    #[test]
    fn sites_differ() {
        let sites: Vec<Blueprint> = (0..300).map(site).collect();
        assert!(sites.iter().all(|site| (1..=200).contains(&site.station.len())));
        let count = |of: &dyn Fn(&Blueprint) -> bool| sites.iter().filter(|site| of(site)).count();
        assert!(count(&|site| site.station.len() <= 4) > 50);
        assert!(count(&|site| site.station.len() >= 64) > 30);
        assert!(count(&|site| site.meter.is_empty()) > 30);
        assert!(count(&|site| site.meter.len() > 2) > 10);
        assert!(count(&|site| site.station.iter().any(|station| station.dc.is_some())) > 40);
        assert!(count(&|site| site.circuit.iter().any(|circuit| circuit.max_w.is_some())) > 50);
        assert!(count(&|site| site.circuit.iter().any(|circuit| circuit.max_unbalance_a.is_some())) > 10);
        assert!(count(&|site| site.fault.iter().any(|fault| fault.kind == "dimmed")) > 50);
        assert!(count(&|site| site.fault.iter().any(|fault| fault.kind == "power-storm")) > 50);
        assert!(count(&|site| site.station.iter().any(|station| !station.order_known)) > 50);
        assert!(
            count(&|site| site.circuit.iter().any(|circuit| site.path(circuit.parent.unwrap_or(0)).count() == 3)) > 20
        );
    }
}
