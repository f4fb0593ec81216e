//! What must hold for a plan, found anew from the plan alone.

use super::{Offer, PlanState};
use crate::engine::model::topology::{CircuitIndex, Topology};
use crate::engine::units::{Phase, PhaseSet, Power};

/// What may flow on a circuit, in mA, and what is raised.
#[derive(Clone, Copy, Default)]
struct Worst {
    phases: [i64; 3],
    power: i64,
    raised: PhaseSet,
}

/// Whether every circuit on which anything is raised stays below its limits at the worst: each phase below its current, all
/// phases together below the power.
///
/// The unbalance is not part of it. That limit protects no conductor, and what others draw can change at any time without any offer: a
/// plan must not end the process for that. Raises keep it all the same.
#[must_use]
pub fn invariant_holds(topology: &Topology, state: &PlanState, offers: &[Offer]) -> bool {
    let mut worst = vec![Worst::default(); topology.circuits().len()];
    let places = topology.evses().iter().zip(topology.wirings());
    for ((evse, offer), (at, wiring)) in state.evses.iter().zip(offers).zip(places) {
        let sum = &mut worst[at.circuit.0];
        let mut all = 0;
        let mut largest = 0;
        for phase in Phase::ALL {
            let committed = evse.committed.of(phase);
            let counts = evse.phases.contains(phase);
            let may_draw = i64::from(if counts { committed.max(offer.limit) } else { committed }.ma());
            sum.phases[phase.index()] += may_draw;
            all += may_draw;
            largest = may_draw.max(largest);
            if counts && offer.limit > committed {
                sum.raised = sum.raised.with(phase);
            }
        }
        // Of three phases that may each be the one, no more carry current than there are terminals.
        let is_known = wiring.is_known() || evse.phases.len() as usize <= wiring.terminals();
        sum.power += if is_known { all } else { largest * i64::try_from(wiring.terminals()).unwrap_or(3) };
    }
    for index in (1..worst.len()).rev() {
        let Worst { phases, power, raised } = worst[index];
        let Some(parent) = topology.circuits()[index].parent else { continue };
        let above = &mut worst[parent.0];
        above.phases.iter_mut().zip(phases).for_each(|(sum, more)| *sum += more);
        above.power += power;
        above.raised = raised.iter().fold(above.raised, PhaseSet::with);
    }
    worst.iter().enumerate().all(|(index, worst)| circuit_holds(topology, state, index, worst))
}

fn circuit_holds(topology: &Topology, state: &PlanState, index: usize, worst: &Worst) -> bool {
    let circuit = &state.circuits[index];
    let background = circuit.background;
    let phases_hold = worst.raised.iter().all(|phase| {
        let load = worst.phases[phase.index()] + i64::from(background.of(phase).ma());
        load <= i64::from(circuit.limit.of(phase).ma())
    });
    if worst.raised.is_empty() {
        return phases_hold;
    }
    let below = |milliamperes: i64, most: Option<Power>| {
        let micro_watts = i128::from(milliamperes) * i128::from(topology.voltage().mv());
        most.is_none_or(|most| micro_watts <= i128::from(most.w()) * 1_000_000)
    };
    let others: i64 = Phase::ALL.iter().map(|phase| i64::from(background.of(*phase).ma())).sum();
    let most = circuit.power_limit(topology.circuit(CircuitIndex(index)));
    phases_hold && below(worst.power + others, most) && below(worst.power, circuit.charging_power)
}
