//! Sites for these tests.

use proptest::prelude::*;
use siteward::engine::model::ids::{CircuitId, SiteId, StationId};
use siteward::engine::model::topology::{Circuit, CircuitIndex, Station, StationModel, Topology, Wiring};
use siteward::engine::plan::{BackgroundSource, CircuitState, Deadline, EvseState, LimitSource, PlanState};
use siteward::engine::time::Mono;
use siteward::engine::units::{Current, PerPhase, Phase, Voltage};

pub(crate) fn circuit(number: usize, parent: Option<usize>, limit: PerPhase<Current>) -> Circuit {
    Circuit {
        id: CircuitId::new(&format!("c{number}")),
        parent: parent.map(CircuitIndex),
        limit,
        meter: None,
        unmeasured_load: None,
        max_unbalance: None,
        max_power: None,
        short_time: None,
    }
}

pub(crate) fn station(number: usize, circuit: usize, phases: &[Phase], max: Current) -> Station {
    Station {
        id: StationId::new(&format!("CP{number}")),
        circuit: CircuitIndex(circuit),
        model: StationModel::default(),
        wiring: Wiring::new(phases).expect("distinct phases"),
        max,
        min: Current::from_a(6),
        fallback: Current::ZERO,
        evse_count: 1,
        priority: 0,
        weight: 1,
        dc: None,
        password: None,
    }
}

pub(crate) fn topology(circuits: Vec<Circuit>, stations: Vec<Station>) -> Topology {
    Topology::new(SiteId::new("test"), Voltage::from_mv(230_000), circuits, stations, (vec![], vec![])).expect("sound")
}

/// Everybody has just come and wants all.
pub(crate) fn state(topology: &Topology, now: Mono) -> PlanState {
    let circuits = topology
        .circuits()
        .iter()
        .map(|circuit| CircuitState {
            limit: circuit.limit,
            limit_source: LimitSource::Configured,
            max_power: None,
            charging_power: None,
            background: PerPhase::splat(Current::ZERO),
            background_source: BackgroundSource::None,
            ramp: None,
        })
        .collect();
    let evses = topology
        .evses()
        .iter()
        .map(|evse| {
            let station = topology.station(evse.station);
            EvseState {
                phases: station.wiring.phases(),
                committed: PerPhase::splat(Current::ZERO),
                drawn: PerPhase::splat(Current::ZERO),
                demand: station.max,
                demand_is_maximum: true,
                reachable: true,
                min: station.min,
                fallback: station.fallback,
                step: station.model.step,
                weight: station.weight,
                priority: station.priority,
                hold: false,
                deadline: None,
                served_since: None,
                wants_since: Some(now),
                rests_until: None,
            }
        })
        .collect();
    PlanState { circuits, evses }
}

/// Three-phase stations on one circuit.
pub(crate) fn flat(stations: usize, limit_a: i32) -> (Topology, PlanState) {
    let station = |number| station(number, 0, &Phase::ALL, Current::from_a(32));
    let limit = PerPhase::splat(Current::from_a(limit_a));
    let topology = topology(vec![circuit(0, None, limit)], (0..stations).map(station).collect());
    let state = state(&topology, crate::NOW);
    (topology, state)
}

prop_compose! {
    /// A site that is too small, with all kinds of wiring, minimums, arrivals and a few deadlines.
    pub(crate) fn any()(
        limits in prop::collection::vec((8..60i32, 8..60i32, 8..60i32), 1..5),
        parents in prop::collection::vec(0..4usize, 4),
        places in prop::collection::vec((0..5usize, 0..7usize, 6..13i32, 0..3_000u64, 0..12u64), 2..25),
    ) -> (Topology, PlanState) {
        let amps = Current::from_a;
        let circuits = limits.iter().enumerate().map(|(index, (l1, l2, l3))| {
            let limit = PerPhase::new(amps(*l1), amps(*l2), amps(*l3));
            circuit(index, (index > 0).then(|| parents[index - 1] % index), limit)
        }).collect();
        let [l1, l2, l3] = Phase::ALL;
        let wirings: [&[Phase]; 7] = [&[l1, l2, l3], &[l1], &[l2], &[l3], &[l1, l2], &[l3, l1], &[l2, l3, l1]];
        let stations = places.iter().enumerate()
            .map(|(number, place)| Station { min: amps(place.2), ..station(number, place.0 % limits.len(), wirings[place.1], amps(32)) })
            .collect();
        let topology = topology(circuits, stations);
        let mut state = state(&topology, crate::NOW);
        for (evse, place) in state.evses.iter_mut().zip(&places) {
            evse.wants_since = Some(crate::NOW.minus_ms(place.3 * 1_000));
            evse.deadline = (place.4 == 0).then(|| Deadline { missing_ma_s: 40_000_000, by: crate::NOW.plus_ms(7_200_000) });
        }
        (topology, state)
    }
}
