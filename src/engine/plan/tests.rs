use proptest::prelude::*;

use super::testing::*;
use super::*;
use crate::engine::model::topology::{Circuit, CircuitIndex, Station};
use crate::engine::units::{PerPhase, Phase, Power};

fn targets(plan: &Plan) -> Vec<i32> {
    plan.offers.iter().map(|offer| offer.target.ma()).collect()
}

fn limits(plan: &Plan) -> Vec<i32> {
    plan.offers.iter().map(|offer| offer.limit.ma()).collect()
}

#[test]
fn equal_cars_share_equally_and_the_circuit_binds() {
    let topology = site(vec![circuit("grid", None, 50)], (0..3).map(|n| station(n, 0, &Phase::ALL)).collect());
    let plan = plan(&topology, &state(&topology, &[0, 0, 0]), NOW);
    assert_eq!(targets(&plan), [16_700, 16_700, 16_600]);
    assert_eq!(plan.offers[0].binding.name(), "circuit");
    assert_eq!(plan.offers[0].binding.bottleneck().map(|b| b.limit), Some(amps(50)));
}

#[test]
fn single_phase_cars_on_different_phases_do_not_block_each_other() {
    let topology =
        site(vec![circuit("grid", None, 32)], vec![station(0, 0, &[Phase::L1]), station(1, 0, &[Phase::L3])]);
    let plan = plan(&topology, &state(&topology, &[0, 0]), NOW);
    assert_eq!(limits(&plan), [32_000, 32_000]);
    assert_eq!(plan.offers[0].binding, Binding::EvseMaximum);
}

#[test]
fn what_one_branch_cannot_use_goes_to_the_other() {
    let circuits = vec![circuit("grid", None, 60), circuit("a", Some(0), 16), circuit("b", Some(0), 60)];
    let topology =
        site(circuits, vec![station(0, 1, &Phase::ALL), station(1, 1, &Phase::ALL), station(2, 2, &Phase::ALL)]);
    let plan = plan(&topology, &state(&topology, &[0, 0, 0]), NOW);
    assert_eq!(targets(&plan), [8_000, 8_000, 32_000]);
    assert_eq!(plan.offers[0].binding.bottleneck().map(|b| b.circuit), Some(CircuitIndex(1)));
}

#[test]
fn a_power_for_charging_alone_does_not_count_other_loads() {
    let stations = vec![station(0, 0, &[Phase::L1]), station(1, 0, &[Phase::L2])];
    let topology = site(vec![circuit("grid", None, 200)], stations);
    let mut state = state(&topology, &[0, 0]);
    state.circuits[0].background = PerPhase::splat(amps(90));
    state.circuits[0].charging_power = Some(Power::from_w(7_560));
    let plan = plan(&topology, &state, NOW);
    // 7560 W are 32.869 A of all phases together, however they are spread.
    assert_eq!(targets(&plan), [16_400, 16_400]);
    assert_eq!(plan.offers[0].binding.name(), "external_limit");
    let sentence = plan.offers[0].binding.bottleneck().map(|bottleneck| bottleneck.describe(&topology));
    assert_eq!(sentence.as_deref(), Some("circuit grid: 7560 W for all chargers together"));
}

#[test]
fn what_is_left_for_charging_is_raised_into_only_when_cuts_are_confirmed() {
    let topology = site(vec![circuit("grid", None, 200)], (0..2).map(|n| station(n, 0, &Phase::ALL)).collect());
    let mut state = state(&topology, &[32, 0]);
    state.circuits[0].charging_power = Some(Power::from_w(10_000));
    let plan = plan(&topology, &state, NOW);
    // 14.492 A for two of at least 6 A each.
    assert_eq!(targets(&plan), [7_200, 7_200]);
    assert_eq!(limits(&plan), [7_200, 0], "the first one may still draw 22 kW");
    assert_eq!(plan.offers[1].binding.name(), "raise_pending");
}

#[test]
fn a_power_lowered_from_outside_counts_other_loads_and_never_raises() {
    let mut grid = circuit("grid", None, 200);
    grid.max_power = Some(Power::from_w(30_000));
    let topology = site(vec![grid], vec![station(0, 0, &Phase::ALL)]);
    let mut state = state(&topology, &[0]);
    state.circuits[0].background = PerPhase::splat(amps(10));
    state.circuits[0].max_power = Some(Power::from_w(20_700));
    let lowered = plan(&topology, &state, NOW);
    assert_eq!((targets(&lowered), lowered.offers[0].binding.name()), (vec![20_000], "external_limit"));
    state.circuits[0].max_power = Some(Power::from_w(90_000));
    let configured = plan(&topology, &state, NOW);
    assert_eq!(targets(&configured), [32_000]);
}

#[test]
fn weights_decide_the_shares() {
    let mut stations: Vec<Station> = (0..2).map(|n| station(n, 0, &Phase::ALL)).collect();
    stations[1].weight = 3;
    let topology = site(vec![circuit("grid", None, 32)], stations);
    assert_eq!(targets(&plan(&topology, &state(&topology, &[0, 0]), NOW)), [8_000, 24_000]);
}

#[test]
fn never_between_zero_and_the_minimum_and_the_rest_queue() {
    let topology = site(vec![circuit("grid", None, 20)], (0..4).map(|n| station(n, 0, &Phase::ALL)).collect());
    let plan = plan(&topology, &state(&topology, &[0, 0, 0, 0]), NOW);
    assert_eq!(targets(&plan), [6_700, 6_700, 6_600, 0]);
    assert_eq!(plan.offers[3].binding.name(), "queue");
}

#[test]
fn a_turn_that_is_over_goes_to_the_one_who_waits() {
    let topology = site(vec![circuit("grid", None, 7)], (0..2).map(|n| station(n, 0, &Phase::ALL)).collect());
    let mut state = state(&topology, &[6, 0]);
    state.evses[0].served_since = Some(NOW.minus_ms(TURN_MS - 1));
    assert_eq!(targets(&plan(&topology, &state, NOW)), [7_000, 0]);
    assert_eq!(targets(&plan(&topology, &state, NOW.plus_ms(1))), [0, 7_000]);
}

#[test]
fn a_raise_waits_for_the_cut_that_pays_for_it() {
    let topology = site(vec![circuit("grid", None, 32)], (0..2).map(|n| station(n, 0, &Phase::ALL)).collect());
    let before = plan(&topology, &state(&topology, &[32, 0]), NOW);
    assert_eq!(limits(&before), [16_000, 0]);
    assert_eq!(before.offers[1].binding.name(), "raise_pending");
    let after = plan(&topology, &state(&topology, &[16, 0]), NOW);
    assert_eq!(limits(&after), [16_000, 16_000]);
}

#[test]
fn a_silent_station_counts_at_what_it_may_draw() {
    let topology = site(vec![circuit("grid", None, 40)], (0..2).map(|n| station(n, 0, &Phase::ALL)).collect());
    let mut state = state(&topology, &[32, 0]);
    state.evses[0].reachable = false;
    let plan = plan(&topology, &state, NOW);
    assert_eq!(limits(&plan), [32_000, 8_000]);
    assert_eq!(plan.offers[0].binding, Binding::Unreachable);
}

#[test]
fn without_meter_and_assumption_only_the_fallback_is_given() {
    let topology = site(vec![circuit("grid", None, 40)], vec![station(0, 0, &Phase::ALL)]);
    let mut state = state(&topology, &[20]);
    state.circuits[0].background_source = BackgroundSource::Unknown;
    let plan = plan(&topology, &state, NOW);
    assert_eq!(limits(&plan), [6_000]);
    assert_eq!(plan.offers[0].binding.name(), "stale_meter");
}

#[test]
fn a_minimum_between_two_steps_is_raised_to() {
    let mut car = station(0, 0, &[Phase::L1]);
    (car.min, car.model.step) = (Current::from_ma(6_500), amps(1));
    let topology = site(vec![circuit("grid", None, 6)], vec![car]);
    let mut state = state(&topology, &[0]);
    state.circuits[0].limit = PerPhase::splat(Current::from_ma(6_900));
    let offer = plan(&topology, &state, NOW).offers[0];
    assert_eq!((offer.target, offer.limit), (Current::from_ma(6_500), Current::from_ma(6_500)));
}

#[test]
fn overload_only_lowers() {
    let topology = site(vec![circuit("grid", None, 32)], (0..2).map(|n| station(n, 0, &Phase::ALL)).collect());
    let mut state = state(&topology, &[16, 16]);
    state.circuits[0].background = PerPhase::new(amps(30), amps(0), amps(0));
    assert_eq!(limits(&plan(&topology, &state, NOW)), [0, 0]);
}

prop_compose! {
    fn any_site()(
        limits in prop::collection::vec(0..120i32, 1..5),
        parents in prop::collection::vec(0..4usize, 4),
        places in prop::collection::vec((0..4usize, 0..4usize, 0..40i32, 0..4u8, 1..4u32, 0..33i32), 1..12),
        background in prop::collection::vec(0..60i32, 12),
    ) -> (Topology, PlanState) {
        let circuits: Vec<Circuit> = limits.iter().enumerate()
            .map(|(index, limit)| circuit(&format!("c{index}"), (index > 0).then(|| parents[index - 1] % index), *limit))
            .collect();
        let wirings: [&[Phase]; 4] = [&Phase::ALL, &[Phase::L2], &[Phase::L3, Phase::L1], &[Phase::L2, Phase::L3, Phase::L1]];
        let stations: Vec<Station> = places.iter().enumerate()
            .map(|(n, place)| Station { weight: place.4, ..station(n, place.0 % limits.len(), wirings[place.1]) })
            .collect();
        let topology = site(circuits, stations);
        let committed: Vec<i32> = places.iter().map(|place| place.2).collect();
        let mut state = state(&topology, &committed);
        for (evse, place) in state.evses.iter_mut().zip(&places) {
            evse.reachable = place.3 != 0;
            evse.demand = amps(place.5);
            evse.served_since = (place.2 > 5).then_some(Mono::from_ms(u64::from(place.4)));
        }
        for (index, circuit) in state.circuits.iter_mut().enumerate() {
            circuit.background = PerPhase::from_fn(|phase| amps(background[(index * 3 + phase.index()) % 12]));
        }
        (topology, state)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_plan_overloads_a_circuit((topology, state) in any_site()) {
        let plan = plan(&topology, &state, NOW);
        prop_assert!(invariant_holds(&topology, &state, &plan.offers));
        for (offer, evse) in plan.offers.iter().zip(&state.evses) {
            if evse.reachable {
                let allowed = offer.limit == Current::ZERO || offer.limit >= evse.min;
                prop_assert!(allowed, "{} is between zero and the minimum", offer.limit);
                prop_assert!(offer.limit <= evse.demand.max(evse.min));
            }
        }
    }

    /// In a max-min fair allocation nobody can get more without a circuit on which someone has no more than he has.
    #[test]
    fn the_shares_are_max_min_fair((topology, state) in any_site()) {
        let plan = plan(&topology, &state, NOW);
        let mut load: Vec<PerPhase<Current>> = state.circuits.iter().map(|circuit| circuit.background).collect();
        for (index, (offer, evse)) in plan.offers.iter().zip(&state.evses).enumerate() {
            for circuit in topology.path_to_grid(topology.evse(EvseIndex(index)).circuit) {
                load[circuit.0] += evse.phases.spread(offer.target);
            }
        }
        let step = Current::from_ma(200);
        for (index, (offer, evse)) in plan.offers.iter().zip(&state.evses).enumerate() {
            let Binding::Circuit(at) = offer.binding else { continue };
            // The circuit named is full but for the rounding of its members,
            let rounding = Current::from_ma(100 * i32::try_from(state.evses.len()).unwrap_or(i32::MAX));
            prop_assert!(load[at.circuit.0].of(at.phase) + rounding >= at.limit);
            // and nobody on it has a larger share than this one, unless by his own minimum.
            for (other, (theirs, them)) in plan.offers.iter().zip(&state.evses).enumerate() {
                let shares = topology.path_to_grid(topology.evse(EvseIndex(other)).circuit).any(|c| c == at.circuit);
                if !shares || !them.phases.contains(at.phase) || theirs.target <= them.min || !them.reachable || other == index {
                    continue;
                }
                let per_weight = |current: Current, weight: u32| f64::from(current.ma()) / f64::from(weight);
                prop_assert!(
                    per_weight(theirs.target - step, them.weight) <= per_weight(offer.target, evse.weight),
                    "{index} has {} and {other} has {}", offer.target, theirs.target
                );
            }
        }
    }
}
