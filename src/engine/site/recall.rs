//! Limits that wait in a station's queue: what was right when it was decided may be too much by the time that it leaves.
//!
//! A station takes one call at a time, and one that hangs holds up the others for half a minute. Meanwhile a lease may run out, so that its
//! renewal becomes a raise, other loads may come, or a limit from outside. Such a raise is taken back; the next plan decides anew.

use super::Site;
use super::tether::Told;
use crate::engine::model::topology::{CircuitIndex, EvseIndex};
use crate::engine::plan::CircuitState;
use crate::engine::time::{Mono, Now};
use crate::engine::units::PhaseSet;

impl Site {
    /// Takes back what waits and may let an EVSE draw more, where a circuit above it is too full. Before each plan.
    pub(super) fn recall_where_full(&mut self, now: Now) {
        let waiting: Vec<EvseIndex> = self.waiting_raises(now.mono);
        for evse in waiting {
            // What waits behind a station that does not answer would hold current that others could use.
            if self.is_too_full_above(evse) || self.keeps_waiting(evse, now.mono) {
                self.withdraw_queued(evse);
                self.plan_state.evses[evse.0] = self.evse_state(evse, now);
                self.note_committed();
            }
        }
    }

    /// Takes back what waits and may let EVSEs below a circuit draw more, or any; what still fits is sent with the next plan.
    pub(super) fn recall_raises(&mut self, circuit: Option<CircuitIndex>, now: Mono) {
        for evse in self.waiting_raises(now) {
            let is_below = |circuit| {
                let topology = &self.setup.topology;
                topology.path_to_grid(topology.evse(evse).circuit).any(|above| above == circuit)
            };
            if circuit.is_none_or(is_below) {
                self.withdraw_queued(evse);
                self.dirty = true;
            }
        }
    }

    /// Whether the background of a circuit has become so high since the last plan that it is too full.
    pub(super) fn is_too_full_by_now(&self, circuit: CircuitIndex, now: Mono) -> bool {
        let Some(state) = self.plan_state.circuits.get(circuit.0) else { return false };
        let (background, _) = self.background_of(circuit, now);
        self.is_too_full(circuit, &CircuitState { background, ..*state }, PhaseSet::ALL)
    }

    /// The EVSEs of which a limit waits in the queue that is more than the least that may be in force.
    fn waiting_raises(&self, now: Mono) -> Vec<EvseIndex> {
        let waits = |index: &EvseIndex| {
            let tether = &self.evses[index.0].tether;
            let pending = tether.pending().filter(|pending| pending.told == Told::Limit);
            pending.is_some_and(|pending| {
                pending.sent.limit > tether.least(Some(pending.call), now) && self.is_queued(*index, pending)
            })
        };
        (0..self.evses.len()).map(EvseIndex).filter(waits).collect()
    }
}
