//! The planner against exact optima: stored ones, and those of a slow and separate solver; and over time, as a rotation.

mod exact;
mod instances;
mod rota;
mod site;

use proptest::prelude::*;
use siteward::engine::plan::fill::{Member, Problem, Term};
use siteward::engine::plan::{Plan, Planner, TURN_MS, plan};
use siteward::engine::time::Mono;
use siteward::engine::units::{Current, Power};

use exact::{Slow, SlowMember};
use rota::Rota;

const NOW: Mono = Mono::from_ms(100_000_000);
/// What the slow solver's floating point may miss, in mA.
const EXACT: f64 = 0.001;

/// Continuous shares, without minimums: each within 0.1 A of the exact ones, and none above a limit.
#[test]
fn planner_reaches_the_exact_optima() {
    for instance in instances::all() {
        let name = &instance.name;
        for step_ma in [1, 100] {
            let (topology, mut state) = instance.site();
            for evse in &mut state.evses {
                (evse.min, evse.step) = (Current::ZERO, Current::from_ma(step_ma));
            }
            let plan = plan(&topology, &state, NOW);
            let amps: Vec<f64> = plan.offers.iter().map(|offer| offer.target.as_a()).collect();
            assert!(instance.is_feasible(&amps), "{name}: above a limit");
            let exact = if instance.is_large() { Vec::new() } else { instance.slow(0.0).solve() };
            for (at, (has, best)) in amps.iter().zip(&exact).enumerate() {
                assert!((has - best).abs() <= 0.1001, "{name}: connector {at} has {has} A, exact is {best} A");
            }
            for (has, best) in amps.iter().zip(&instance.opt.maxmin.x) {
                assert!((has - best).abs() <= 0.1051, "{name}: {has} A, stored is {best} A");
            }
            let mut sorted = amps.clone();
            sorted.sort_by(f64::total_cmp);
            for (tenth, best) in instance.opt.maxmin.sorted.iter().enumerate() {
                let at = (tenth * sorted.len()).div_ceil(10).max(1) - 1;
                assert!(
                    (sorted[at] - best).abs() <= 0.1001,
                    "{name}: {tenth}0 % have {} A, stored is {best} A",
                    sorted[at]
                );
            }
        }
    }
}

/// With 0 or the minimum: almost as many as can be served are served at every moment of a rotation, everybody comes, and those
/// who are served share almost all that they could.
#[test]
fn a_rotation_serves_almost_as_many_as_can_be_served_at_once() {
    for instance in instances::all() {
        let name = &instance.name;
        let (topology, state) = instance.site();
        let mut rota = Rota::new(&topology, state, 60_000);
        let minutes = if instance.n > 100 { 100 } else { 600 };
        let (mut least, mut sum_served) = (usize::MAX, 0);
        for minute in 0..minutes {
            rota.step();
            let amps: Vec<f64> = rota.plan.offers.iter().map(|offer| offer.target.as_a()).collect();
            assert!(instance.is_feasible(&amps), "{name}: above a limit in minute {minute}");
            assert!(amps.iter().all(|amps| *amps == 0.0 || *amps >= 6.0), "{name}: below the minimum");
            let served = amps.iter().filter(|amps| **amps > 0.0).count();
            (least, sum_served) = (least.min(served), sum_served + served);
            let has = instance.phase_amps(&amps);
            if minute % 20 == 0 && !instance.is_large() {
                let is_served: Vec<bool> = amps.iter().map(|amps| *amps > 0.0).collect();
                let exact = instance.phase_amps(&instance.slow_among(&is_served));
                assert!(has >= 0.995 * exact, "{name}: {has} of {exact} A over all phases in minute {minute}");
            }
            if minute == 0 {
                let best = instance.opt.maxmin_served.sum_phaseamps;
                assert!(has >= 0.995 * best, "{name}: {has} A over all phases, stored are {best} A");
            }
        }
        let float = |count: usize| f64::from(u32::try_from(count).expect("small"));
        let average = 100.0 * float(sum_served) / float(minutes) / float(instance.opt.served_max);
        println!(
            "{name}: {average:.2} % of {} served (least {least}), {} pauses, longest wait {} min",
            instance.opt.served_max,
            rota.pauses,
            rota.longest_wait_ms / 60_000
        );
        assert!(average >= 99.0, "{name}: {average:.2} % served");
        assert!(rota.everybody_was_served(), "{name}: somebody never came");
    }
}

#[test]
fn forty_stations_on_a_connection_for_twelve_all_get_their_turns() {
    let (topology, mut state) = site::flat(40, 75);
    for (number, evse) in state.evses.iter_mut().enumerate() {
        evse.wants_since = Some(NOW.plus_ms(u64::try_from(number).expect("small") * 7_000));
    }
    let mut rota = Rota::starting_at(&topology, state, 10_000, NOW.plus_ms(300_000));
    for _ in 0..6 * 60 * 24 {
        rota.step();
        let sum: i32 = rota.plan.offers.iter().map(|offer| offer.target.ma()).sum();
        assert!((74_900..=75_000).contains(&sum), "{sum} mA of 75 A are given out");
    }
    let least = rota.served_ms.iter().min().copied().unwrap_or(0);
    let most = rota.served_ms.iter().max().copied().unwrap_or(0);
    println!(
        "served {} to {} min of 1440, longest wait {} min",
        least / 60_000,
        most / 60_000,
        rota.longest_wait_ms / 60_000
    );
    assert!(most - least <= 6 * TURN_MS, "served between {} and {} min", least / 60_000, most / 60_000);
    assert!(rota.longest_wait_ms <= 4 * TURN_MS, "a wait of {} min", rota.longest_wait_ms / 60_000);
    assert_eq!(rota.broken_promises, Vec::<String>::new());
}

fn amount(ma: f64) -> i64 {
    format!("{ma:.0}").parse().expect("a number")
}

prop_compose! {
    fn any_problem()(
        capacities in prop::collection::vec(1_000..100_000i64, 1..8),
        members in prop::collection::vec(
            (prop::collection::vec((0..8usize, 1..4i32), 0..5), 0..3_000i64, 0..32_000i64, 1..6u32), 1..30),
    ) -> (Vec<i64>, Vec<SlowMember>) {
        let rows = capacities.len();
        let members: Vec<SlowMember> = members.into_iter().map(|(terms, min, more, weight)| {
            let terms: std::collections::BTreeMap<usize, i32> = terms.into_iter().map(|(row, by)| (row % rows, by)).collect();
            SlowMember { terms: terms.into_iter().collect(), min: min.into_f64(), max: (min + more).into_f64(), weight: f64::from(weight) }
        }).collect();
        // The minimums must fit.
        let capacities = capacities.into_iter().enumerate().map(|(row, capacity)| {
            let least: f64 = members.iter().map(|member| member.load(row, member.min)).sum();
            capacity.max(amount(least))
        }).collect();
        (capacities, members)
    }
}

trait IntoF64 {
    fn into_f64(self) -> f64;
}

impl IntoF64 for i64 {
    fn into_f64(self) -> f64 {
        f64::from(i32::try_from(self).expect("small"))
    }
}

fn fast(capacities: &[i64], members: &[SlowMember]) -> Vec<i64> {
    let mut problem = Problem::new(capacities.to_vec());
    for member in members {
        let term = |(row, coefficient): &(usize, i32)| Term {
            row: u32::try_from(*row).expect("small"),
            coefficient: *coefficient,
        };
        let profile = problem.add_profile(member.terms.iter().map(term));
        let (min, max) = (amount(member.min), amount(member.max));
        problem.add_member(Member { profile, min, max, weight: amount(member.weight).try_into().expect("small") });
    }
    problem.solve().iter().map(|share| share.amount).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any rows with any coefficients, any minimums, maximums and weights.
    #[test]
    fn the_filling_equals_a_slow_and_separate_solver((capacities, members) in any_problem()) {
        let shares = fast(&capacities, &members);
        let slow = Slow { capacities: capacities.iter().map(|c| c.into_f64()).collect(), members: members.clone() };
        for (at, (has, best)) in shares.iter().zip(slow.solve()).enumerate() {
            prop_assert!((has.into_f64() - best).abs() <= 40.0, "member {} has {} mA, exact is {}", at, has, best);
        }
        for (row, capacity) in capacities.iter().enumerate() {
            let load: f64 = members.iter().zip(&shares).map(|(member, share)| member.load(row, share.into_f64())).sum();
            prop_assert!(load <= capacity.into_f64(), "row {} carries {} of {}", row, load, capacity);
        }
    }

    /// More room never makes the sorted shares worse: the worst off has no less, then the next, up to the first who has more by the exact solver.
    #[test]
    fn more_room_helps_the_worst_off_first((capacities, members) in any_problem(), row in 0..8usize, more in 1..50_000i64) {
        let per_weight = |shares: Vec<f64>| {
            let mut levels: Vec<f64> = shares.iter().zip(&members).map(|(share, member)| share / member.weight).collect();
            levels.sort_by(f64::total_cmp);
            levels
        };
        let solved = |capacities: &[i64]| per_weight(fast(capacities, &members).into_iter().map(IntoF64::into_f64).collect());
        let exact = |capacities: &[i64]| per_weight(Slow { capacities: capacities.iter().map(|c| c.into_f64()).collect(), members: members.clone() }.solve());
        let mut wider = capacities.clone();
        let rows = wider.len();
        wider[row % rows] += more;
        let changes = |before: Vec<f64>, after: Vec<f64>| before.into_iter().zip(after).map(|(before, after)| after - before).collect::<Vec<f64>>();
        let (ours, due) = (changes(solved(&capacities), solved(&wider)), changes(exact(&capacities), exact(&wider)));
        for (ours, due) in ours.iter().zip(&due) {
            if *due > EXACT {
                break;
            }
            prop_assert!(*due > -EXACT, "the exact solver itself takes {} from somebody: {:?}", due, due);
            prop_assert!(*ours >= -2.5, "{:?}, by the exact solver {:?}", ours, due);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Nobody waits longer than he was told at any time while nobody else comes, and everybody comes.
    #[test]
    fn nobody_waits_longer_than_the_queue_says(site in site::any(), idle in prop::collection::vec(0..4u8, 25)) {
        let (topology, state) = site;
        let mut rota = Rota::starting_at(&topology, state, 10_000, NOW);
        for (turns, idle) in rota.idle.iter_mut().zip(idle) {
            *turns = (idle == 0).then_some(0);
        }
        for _ in 0..6 * 60 * 5 {
            rota.step();
        }
        prop_assert_eq!(&rota.broken_promises, &Vec::<String>::new());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// A planner that has made other plans, for larger and smaller sites with other kinds of limits, makes of a site what one makes that has
    /// made none.
    #[test]
    fn a_planner_keeps_nothing_but_its_memory(
        sites in prop::collection::vec((site::any(), prop::collection::vec(0..40u8, 25), 0..4u8), 2..6),
    ) {
        let mut planner = Planner::default();
        let mut kept = Plan::default();
        for ((topology, mut state), kinds, limits) in sites {
            for (evse, kind) in state.evses.iter_mut().zip(&kinds) {
                evse.reachable = *kind != 0;
                evse.hold = *kind == 1;
                evse.demand = if *kind == 2 { Current::ZERO } else { evse.demand };
                if *kind >= 20 {
                    evse.served_since = Some(NOW.minus_ms(u64::from(*kind) * 60_000));
                    evse.committed = evse.phases.spread(evse.min);
                    evse.drawn = evse.committed;
                }
            }
            let root = &mut state.circuits[0];
            root.max_power = (limits == 1).then_some(Power::from_w(15_000));
            root.charging_power = (limits == 2).then_some(Power::from_w(11_000));
            root.ramp = (limits == 3).then_some(Current::from_a(8));
            planner.plan(&topology, &state, NOW, &mut kept);
            prop_assert_eq!(&kept, &plan(&topology, &state, NOW));
        }
    }
}
