//! Sites and states for tests.

use super::*;
use crate::engine::model::ids::{CircuitId, SiteId, StationId};
use crate::engine::model::topology::{Circuit, CircuitIndex, Station, StationModel, Wiring};
use crate::engine::units::{Phase, Voltage};

pub(super) const NOW: Mono = Mono::from_ms(10_000_000);

pub(super) fn amps(a: i32) -> Current {
    Current::from_a(a)
}

pub(super) fn circuit(id: &str, parent: Option<usize>, limit_a: i32) -> Circuit {
    Circuit {
        id: CircuitId::new(id),
        parent: parent.map(CircuitIndex),
        limit: PerPhase::splat(amps(limit_a)),
        meter: None,
        unmeasured_load: None,
        max_unbalance: None,
        max_power: None,
        short_time: None,
    }
}

pub(super) fn station(number: usize, circuit: usize, phases: &[Phase]) -> Station {
    Station {
        id: StationId::new(&format!("CP{number:03}")),
        circuit: CircuitIndex(circuit),
        model: StationModel::default(),
        wiring: Wiring::new(phases).expect("distinct phases"),
        max: amps(32),
        min: amps(6),
        fallback: amps(6),
        evse_count: 1,
        priority: 0,
        weight: 1,
        dc: None,
        password: None,
    }
}

pub(super) fn site(circuits: Vec<Circuit>, stations: Vec<Station>) -> Topology {
    Topology::new(SiteId::new("test"), Voltage::from_mv(230_000), circuits, stations, (vec![], vec![])).expect("valid")
}

pub(super) fn state(topology: &Topology, committed: &[i32]) -> PlanState {
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
        .zip(committed)
        .map(|(evse, committed)| {
            let station = topology.station(evse.station);
            EvseState {
                phases: station.wiring.phases(),
                committed: station.wiring.phases().spread(amps(*committed)),
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
                wants_since: Some(Mono::START),
                rests_until: None,
            }
        })
        .collect();
    PlanState { circuits, evses }
}
