use proptest::prelude::*;

use super::testing::*;
use super::*;
use crate::engine::model::topology::{Circuit, CircuitIndex, Station, Wiring};
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
    let mut given = targets(&plan);
    given.sort_unstable();
    assert_eq!(given, [0, 6_600, 6_700, 6_700]);
    let waits = plan.queue[0].evse.0;
    assert_eq!((plan.offers[waits].target, plan.offers[waits].binding.name()), (Current::ZERO, "queue"));
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

#[test]
fn a_power_limit_counts_all_phases_and_the_background() {
    let mut grid = circuit("grid", None, 63);
    grid.max_power = Some(Power::from_w(22_080));
    let topology = site(vec![grid], (0..2).map(|n| station(n, 0, &Phase::ALL)).collect());
    let mut state = state(&topology, &[0, 0]);
    // 22,080 W at 230 V are 96 A on all phases together; 24 are taken.
    state.circuits[0].background = PerPhase::splat(amps(8));
    let plan = plan(&topology, &state, NOW);
    assert_eq!(limits(&plan), [12_000, 12_000]);
    assert_eq!(plan.offers[0].binding.name(), "power");
}

#[test]
fn one_terminal_on_an_unknown_phase_counts_on_each_phase_but_once_for_the_power() {
    let mut grid = circuit("grid", None, 20);
    grid.max_power = Some(Power::from_w(2_300));
    let mut car = station(0, 0, &Phase::ALL);
    car.wiring = Wiring::unknown(1).expect("one terminal");
    let topology = site(vec![grid], vec![car.clone()]);
    assert_eq!(limits(&plan(&topology, &state(&topology, &[0]), NOW)), [10_000]);
    let topology = site(vec![circuit("grid", None, 20)], vec![car, station(1, 0, &[Phase::L2])]);
    assert_eq!(limits(&plan(&topology, &state(&topology, &[0, 0]), NOW)), [10_000, 10_000]);
}

#[test]
fn the_unbalance_counts_on_what_others_are_measured_to_draw_only() {
    let mut grid = circuit("grid", None, 63);
    grid.max_unbalance = Some(amps(20));
    let topology = site(vec![grid], vec![station(0, 0, &[Phase::L1]), station(1, 0, &[Phase::L2, Phase::L3])]);
    let mut state = state(&topology, &[0, 0]);
    let first = plan(&topology, &state, NOW);
    assert_eq!(limits(&first), [20_000, 20_000]);
    assert_eq!(first.offers[0].binding.name(), "unbalance");
    for evse in &mut state.evses {
        evse.committed = evse.phases.spread(amps(20));
        evse.drawn = evse.committed;
    }
    assert_eq!(limits(&plan(&topology, &state, NOW)), [32_000, 32_000]);
    // The other car has gone: what it does not draw does not count any more.
    state.evses[1].drawn = PerPhase::splat(Current::ZERO);
    assert_eq!(limits(&plan(&topology, &state, NOW))[0], 20_000);
}

#[test]
fn a_station_with_levels_is_offered_its_levels_only_and_others_use_the_rest() {
    let mut coarse = station(0, 0, &Phase::ALL);
    coarse.model.levels = [6, 10, 16, 32].map(amps).to_vec();
    let topology = site(vec![circuit("grid", None, 30)], vec![coarse, station(1, 0, &Phase::ALL)]);
    assert_eq!(limits(&plan(&topology, &state(&topology, &[0, 0]), NOW)), [10_000, 20_000]);
}

#[test]
fn coarse_stations_do_not_lose_their_rounding_to_nobody() {
    let mut stations: Vec<Station> = (0..4).map(|n| station(n, 0, &Phase::ALL)).collect();
    for station in &mut stations {
        station.model.levels = [8, 16, 32].map(amps).to_vec();
    }
    let topology = site(vec![circuit("grid", None, 50)], stations);
    assert_eq!(targets(&plan(&topology, &state(&topology, &[0; 4]), NOW)), [16_000, 16_000, 8_000, 8_000]);
}

#[test]
fn a_deadline_takes_what_it_needs_and_leaves_others_their_minimum() {
    let topology = site(vec![circuit("grid", None, 32)], (0..3).map(|n| station(n, 0, &Phase::ALL)).collect());
    let mut state = state(&topology, &[0, 0, 0]);
    // 18 A for an hour.
    state.evses[2].deadline = Some(Deadline { missing_ma_s: 18_000 * 3_600, by: NOW.plus_ms(3_600_000) });
    let met = plan(&topology, &state, NOW);
    assert_eq!(targets(&met), [7_000, 7_000, 18_000]);
    assert_eq!(met.offers[2].binding.name(), "deadline");
    assert_eq!(met.shortfalls, []);
    // 25 A do not fit beside two minimums.
    state.evses[2].deadline = Some(Deadline { missing_ma_s: 25_000 * 3_600, by: NOW.plus_ms(3_600_000) });
    let short = plan(&topology, &state, NOW);
    assert_eq!(targets(&short), [6_000, 6_000, 20_000]);
    assert_eq!(short.shortfalls, [Shortfall { evse: EvseIndex(2), missing_ma_s: 5_000 * 3_600 }]);
}

#[test]
fn the_least_laxity_is_given_what_it_needs_first() {
    let topology = site(vec![circuit("grid", None, 32)], (0..2).map(|n| station(n, 0, &Phase::ALL)).collect());
    let mut state = state(&topology, &[0, 0]);
    state.evses[0].deadline = Some(Deadline { missing_ma_s: 24_000 * 7_200, by: NOW.plus_ms(7_200_000) });
    state.evses[1].deadline = Some(Deadline { missing_ma_s: 24_000 * 3_600, by: NOW.plus_ms(3_600_000) });
    assert_eq!(targets(&plan(&topology, &state, NOW)), [8_000, 24_000]);
}

#[test]
fn a_deadline_goes_ahead_of_those_who_wait_but_not_of_those_in_their_turn() {
    let topology = site(vec![circuit("grid", None, 7)], (0..3).map(|n| station(n, 0, &Phase::ALL)).collect());
    let mut state = state(&topology, &[6, 0, 0]);
    state.evses[0].wants_since = Some(NOW.minus_ms(3_000_000));
    state.evses[0].served_since = Some(NOW.minus_ms(TURN_MS - 1));
    state.evses[1].wants_since = Some(NOW.minus_ms(2_000_000));
    state.evses[2].wants_since = Some(NOW.minus_ms(1_500_000));
    state.evses[2].deadline = Some(Deadline { missing_ma_s: 32_000 * 3_600, by: NOW.plus_ms(3_600_000) });
    let before = plan(&topology, &state, NOW);
    assert_eq!(targets(&before), [7_000, 0, 0]);
    assert_eq!(before.queue.iter().map(|place| place.evse.0).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(targets(&plan(&topology, &state, NOW.plus_ms(1))), [0, 0, 7_000]);
    // But never of one who has waited for long.
    state.evses[1].wants_since = Some(NOW.minus_ms(HEAD_START_MS + 1_000));
    state.evses[0].wants_since = Some(NOW.minus_ms(HEAD_START_MS + 2_000));
    assert_eq!(targets(&plan(&topology, &state, NOW.plus_ms(1))), [0, 7_000, 0]);
}

#[test]
fn a_higher_priority_takes_the_place_and_the_other_is_promised_nothing() {
    let topology = site(vec![circuit("grid", None, 7)], (0..2).map(|n| station(n, 0, &Phase::ALL)).collect());
    let mut state = state(&topology, &[6, 0]);
    state.evses[0].served_since = Some(NOW.minus_ms(1_000));
    state.evses[1].priority = 1;
    let plan = plan(&topology, &state, NOW);
    assert_eq!(targets(&plan), [0, 7_000]);
    assert_eq!(plan.queue, [QueuePlace { evse: EvseIndex(0), position: 1, starts: NOT_FORESEEABLE }]);
}

fn waiting(plan: &Plan) -> Vec<usize> {
    plan.queue.iter().map(|place| place.evse.0).collect()
}

#[test]
fn whose_car_takes_nothing_gives_way_also_to_one_who_has_just_come_and_to_a_lower_priority() {
    let topology = site(vec![circuit("grid", None, 13)], (0..3).map(|n| station(n, 0, &Phase::ALL)).collect());
    let mut state = state(&topology, &[6, 6, 0]);
    for (evse, since_ms) in state.evses.iter_mut().zip([60_000, TURN_MS + 60_000]) {
        evse.served_since = Some(NOW.minus_ms(since_ms));
    }
    state.evses[2].wants_since = Some(NOW.minus_ms(1_000));
    assert_eq!(waiting(&plan(&topology, &state, NOW)), [2]);
    state.evses[0].rests_until = Some(NOW.plus_ms(TURN_MS));
    assert_eq!(waiting(&plan(&topology, &state, NOW)), [0]);
    state.evses[0].priority = 5;
    assert_eq!(waiting(&plan(&topology, &state, NOW)), [0]);
}

#[test]
fn whose_car_takes_nothing_keeps_a_place_that_nobody_needs_and_does_not_take_one_from_its_like() {
    let topology = site(vec![circuit("grid", None, 13)], (0..3).map(|n| station(n, 0, &Phase::ALL)).collect());
    let mut state = state(&topology, &[6, 6, 0]);
    for evse in &mut state.evses {
        evse.served_since = Some(NOW.minus_ms(60_000));
        evse.rests_until = Some(NOW.plus_ms(TURN_MS));
    }
    state.evses[2].served_since = None;
    assert_eq!(waiting(&plan(&topology, &state, NOW)), [2]);
    state.evses[1].demand = Current::ZERO;
    assert_eq!(waiting(&plan(&topology, &state, NOW)), Vec::<usize>::new(), "there is room for all who rest");
}

#[test]
fn who_rests_stands_in_line_again_when_its_rest_is_over() {
    let topology = site(vec![circuit("grid", None, 7)], (0..2).map(|n| station(n, 0, &Phase::ALL)).collect());
    let mut state = state(&topology, &[6, 0]);
    state.evses[0].served_since = Some(NOW.minus_ms(TURN_MS));
    state.evses[1].wants_since = Some(NOW.minus_ms(10 * TURN_MS));
    state.evses[1].rests_until = Some(NOW.plus_ms(1));
    let rests = plan(&topology, &state, NOW);
    assert_eq!(waiting(&rests), [1]);
    assert!(rests.queue[0].starts >= NOW.plus_ms(1), "not before its rest is over");
    assert_eq!(waiting(&plan(&topology, &state, NOW.plus_ms(1))), [0]);
}

#[test]
fn who_rests_behind_a_higher_priority_is_promised_nothing_either() {
    let topology = site(vec![circuit("grid", None, 7)], (0..3).map(|n| station(n, 0, &Phase::ALL)).collect());
    let mut state = state(&topology, &[6, 0, 0]);
    state.evses[0].priority = 1;
    state.evses[0].served_since = Some(NOW.minus_ms(1_000));
    state.evses[1].rests_until = Some(NOW.plus_ms(2 * TURN_MS));
    let plan = plan(&topology, &state, NOW);
    assert!(plan.queue.iter().all(|place| place.starts == NOT_FORESEEABLE), "{:?}", plan.queue);
}

#[test]
fn a_held_station_is_cut_but_not_raised() {
    let topology = site(vec![circuit("grid", None, 32)], (0..2).map(|n| station(n, 0, &Phase::ALL)).collect());
    let mut state = state(&topology, &[20, 8]);
    state.evses.iter_mut().for_each(|evse| evse.hold = true);
    let plan = plan(&topology, &state, NOW);
    assert_eq!(limits(&plan), [16_000, 8_000]);
    assert_eq!(plan.offers[1].binding, Binding::Hold);
}

#[test]
fn a_ramp_is_spent_on_whoever_is_furthest_below_his_target() {
    let topology = site(vec![circuit("grid", None, 63)], (0..2).map(|n| station(n, 0, &Phase::ALL)).collect());
    let mut state = state(&topology, &[10, 0]);
    state.circuits[0].ramp = Some(amps(7));
    let some = plan(&topology, &state, NOW);
    assert_eq!(limits(&some), [10_000, 7_000]);
    assert_eq!(some.offers[1].binding.name(), "ramp");
    // Not enough for a minimum yet: small raises of others must not eat it up.
    state.circuits[0].ramp = Some(amps(3));
    assert_eq!(limits(&plan(&topology, &state, NOW)), [10_000, 0]);
}

#[test]
fn phases_with_different_committed_currents_are_raised_one_by_one() {
    let topology = site(vec![circuit("grid", None, 20)], (0..2).map(|n| station(n, 0, &Phase::ALL)).collect());
    let mut state = state(&topology, &[0, 0]);
    // It draws 14 A on one phase where it may draw 6: on the others there is room at once.
    state.evses[0].committed = PerPhase::new(amps(14), amps(6), amps(6));
    let plan = plan(&topology, &state, NOW);
    assert_eq!(targets(&plan), [10_000, 10_000]);
    assert_eq!(limits(&plan), [10_000, 6_000]);
}

prop_compose! {
    fn any_rich_site()(
        (topology, state) in any_site(),
        extras in prop::collection::vec((0..4u8, 1..30_000i64, 0..4u8, 0..30i32, 0..4u8, 0..20i32), 4),
        wishes in prop::collection::vec((0..6u8, 0..8u8, 0..3i32, 0..33i32, 0..33i32, 0..4u8), 12),
    ) -> (Topology, PlanState) {
        let mut circuits = topology.circuits().to_vec();
        let mut stations = topology.stations().to_vec();
        let mut state = state;
        for ((circuit, known), extra) in circuits.iter_mut().zip(&mut state.circuits).zip(&extras) {
            circuit.max_power = (extra.0 == 0).then(|| Power::from_w(extra.1));
            circuit.max_unbalance = (extra.2 == 0).then(|| amps(extra.3));
            known.charging_power = (extra.4 == 1).then(|| Power::from_w(extra.1 + 2_000));
            known.ramp = (extra.4 == 0).then(|| amps(extra.5));
        }
        for ((station, evse), wish) in stations.iter_mut().zip(&mut state.evses).zip(&wishes) {
            match wish.0 {
                0 => station.model.levels = [6, 8, 16, 32].map(amps).to_vec(),
                1 => station.wiring = Wiring::unknown(1 + usize::from(wish.1 % 3)).expect("1 to 3"),
                _ => {}
            }
            evse.phases = station.wiring.phases();
            evse.hold = wish.1 == 0;
            evse.priority = wish.2;
            evse.committed = PerPhase::new(amps(wish.3), amps(wish.4), amps(wish.3));
            evse.drawn = PerPhase::new(amps(wish.4), amps(wish.3), amps(wish.4));
            evse.deadline = (wish.5 == 0).then(|| Deadline { missing_ma_s: 50_000_000, by: NOW.plus_ms(5_000_000) });
        }
        let topology = site(circuits, stations);
        (topology, state)
    }
}

/// What flows on a circuit if each EVSE takes what `amount` says, and what can be counted on.
fn flows(
    topology: &Topology,
    state: &PlanState,
    circuit: usize,
    amount: impl Fn(usize) -> PerPhase<Current>,
) -> (PerPhase<i64>, PerPhase<i64>, i64) {
    let (mut most, mut sure, mut power) = (PerPhase::splat(0), PerPhase::splat(0), 0);
    for (index, (place, evse)) in topology.evses().iter().zip(&state.evses).enumerate() {
        if !topology.path_to_grid(place.circuit).any(|above| above.0 == circuit) {
            continue;
        }
        let wiring = topology.station(place.station).wiring;
        let current = amount(index);
        for phase in Phase::ALL {
            *most.get_mut(phase) += i64::from(current.of(phase).ma());
            *sure.get_mut(phase) += i64::from(current.of(phase).min(evse.drawn.of(phase)).ma());
        }
        let on_all: i64 = Phase::ALL.iter().map(|phase| i64::from(current.of(*phase).ma())).sum();
        let terminals = i64::try_from(wiring.terminals()).expect("1 to 3");
        power += if wiring.is_known() || wiring.terminals() == 3 {
            on_all
        } else {
            i64::from(current.max().ma()) * terminals
        };
    }
    (most, sure, power)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_given_beyond_any_limit_in_any_mix((topology, state) in any_rich_site()) {
        let plan = plan(&topology, &state, NOW);
        prop_assert_eq!(&plan, &super::plan(&topology, &state, NOW), "the same again");
        let target = |index: usize| {
            let evse = &state.evses[index];
            if evse.reachable { evse.phases.spread(plan.offers[index].target) } else { evse.committed }
        };
        for (index, (circuit, known)) in topology.circuits().iter().zip(&state.circuits).enumerate() {
            let (most, sure, power) = flows(&topology, &state, index, target);
            let (fixed, _, fixed_power) = flows(&topology, &state, index, |at| {
                if state.evses[at].reachable { PerPhase::splat(Current::ZERO) } else { state.evses[at].committed }
            });
            let background = |phase| i64::from(known.background.of(phase).ma());
            for phase in Phase::ALL {
                let limit = i64::from(known.limit.of(phase).ma());
                prop_assert!(most.of(phase) == fixed.of(phase) || most.of(phase) + background(phase) <= limit);
                let raises: i64 = topology.evses().iter().enumerate()
                    .filter(|(_, place)| topology.path_to_grid(place.circuit).any(|above| above.0 == index))
                    .map(|(at, _)| (&state.evses[at], plan.offers[at].limit))
                    .filter(|(evse, _)| evse.phases.contains(phase) && evse.reachable)
                    .map(|(evse, limit)| i64::from((limit - evse.committed.of(phase)).at_least_zero().ma()))
                    .sum();
                prop_assert!(known.ramp.is_none_or(|ramp| raises <= i64::from(ramp.ma())), "{} rises by {}", index, raises);
                for against in Phase::ALL {
                    let difference = most.of(phase) - sure.of(against);
                    let allowed = circuit.max_unbalance.map(|limit| i64::from(limit.ma()));
                    let gives = most.of(phase) > fixed.of(phase) && phase != against;
                    prop_assert!(!gives || allowed.is_none_or(|allowed| difference <= allowed), "unbalance {}", difference);
                }
            }
            let all = power + Phase::ALL.iter().map(|phase| background(*phase)).sum::<i64>();
            let fits = circuit.max_power.is_none_or(|most| all * 230_000 <= most.w() * 1_000_000);
            prop_assert!(power == fixed_power || fits, "power");
            let fits = known.charging_power.is_none_or(|most| power * 230_000 <= most.w() * 1_000_000);
            prop_assert!(power == fixed_power || fits, "power of the EVSEs");
        }
    }

    #[test]
    fn every_offer_is_possible_and_explained((topology, state) in any_rich_site()) {
        let plan = plan(&topology, &state, NOW);
        for (index, (offer, evse)) in plan.offers.iter().zip(&state.evses).enumerate().filter(|(_, (_, evse))| evse.reachable) {
            let levels = &topology.station(topology.evse(EvseIndex(index)).station).model.levels;
            for given in [offer.limit, offer.target].into_iter().filter(|given| *given > Current::ZERO) {
                prop_assert!(given >= evse.min && given <= amps(32));
                prop_assert!(levels.is_empty() || levels.contains(&given), "{} is no level", given);
                prop_assert!(!levels.is_empty() || given == evse.min || given.floor_to(evse.step) == given);
            }
            prop_assert!(offer.limit <= offer.target);
            if evse.hold {
                prop_assert!(offer.limit <= evse.committed.max());
            }
            let waits = plan.queue.iter().any(|place| place.evse.0 == index);
            prop_assert_eq!(waits, matches!(offer.binding, Binding::Queue(_)));
            let is_pending = matches!(offer.binding, Binding::RaisePending(_) | Binding::Ramp { .. } | Binding::Hold);
            prop_assert!(is_pending || offer.limit == offer.target);
        }
    }
}
