//! What each EVSE could use, before it shares with others.

use super::binding::Binding;
use super::frame::{Frame, current, evse_index};
use super::grid::Grid;
use super::{BackgroundSource, Offer, PlanState};
use crate::engine::model::topology::{CircuitIndex, Topology};
use crate::engine::units::Current;

/// What an EVSE could use, of what it can be offered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish<'a> {
    pub(super) grid: Grid<'a>,
    min: Current,
    max: Current,
    /// Its share.
    pub(super) weight: u32,
}

impl Wish<'_> {
    /// The least, in mA.
    pub(super) fn min(&self) -> i64 {
        i64::from(self.min.ma())
    }

    /// The most, in mA.
    pub(super) fn max(&self) -> i64 {
        i64::from(self.max.ma())
    }
}

/// The wishes of all EVSEs. `None`: it takes no part.
pub(super) struct Wishes<'a> {
    pub(super) of: Vec<Option<Wish<'a>>>,
    /// For each circuit the nearest one above it, or itself, of which the meter is silent and nothing is assumed; empty where there is
    /// none.
    blind: Vec<Option<CircuitIndex>>,
    /// Somebody who takes part can be offered certain levels only.
    pub(super) has_coarse: bool,
    /// Somebody cannot be moved.
    pub(super) has_unmoved: bool,
    /// Somebody, who may take part or not, has a deadline.
    pub(super) has_deadlines: bool,
}

impl<'a> Wishes<'a> {
    /// Finds the wishes, and says in `offers` what decides for those who take no part. `memory` is empty: only its allocation is used.
    pub(super) fn new(frame: &Frame<'a>, offers: &mut [Offer], memory: Vec<Option<Wish<'a>>>) -> Self {
        let (topology, state) = (frame.topology, frame.state);
        let blind = blind_circuits(topology, state);
        let mut wishes = Self { of: memory, blind, has_coarse: false, has_unmoved: false, has_deadlines: false };
        for (index, evse) in state.evses.iter().enumerate() {
            wishes.has_deadlines |= evse.deadline.is_some();
            wishes.has_unmoved |= !evse.reachable;
            let wish = if !evse.reachable {
                // Where phases differ, the lowest: it must not read as a raise of any.
                let committed = evse.phases.iter().map(|phase| evse.committed.of(phase)).min().unwrap_or_default();
                offers[index] = Offer { limit: committed, target: committed, binding: Binding::Unreachable };
                None
            } else if evse.demand <= Current::ZERO {
                None
            } else {
                wishes.judge(frame, index, &mut offers[index])
            };
            wishes.has_coarse |= wish.is_some_and(|wish| wish.grid.is_coarse());
            wishes.of.push(wish);
        }
        wishes
    }

    fn judge(&self, frame: &Frame<'a>, index: usize, offer: &mut Offer) -> Option<Wish<'a>> {
        let evse = &frame.state.evses[index];
        let grid = Grid::new(evse.min, evse.step, frame.topology.levels(evse_index(index)));
        let (ceiling, binding) = self.ceiling(frame, index);
        let mut max = grid.at_most(i64::from(ceiling.ma()));
        if grid.is_coarse() && !evse.demand_is_maximum && ceiling == evse.demand {
            // What a car takes lies between two levels: the upper one, or it would get less than it takes.
            let above = grid.at_least(i64::from(ceiling.ma()));
            let station = frame.topology.station(frame.topology.evse(evse_index(index)).station);
            max = above.filter(|level| *level <= i64::from(station.max.ma())).unwrap_or(max);
        }
        match grid.least().filter(|min| *min <= max && evse.demand >= evse.min) {
            Some(min) => Some(Wish { grid, min: current(min), max: current(max), weight: evse.weight }),
            None => {
                offer.binding = if ceiling == evse.demand { Binding::BelowMinimum } else { binding };
                None
            }
        }
    }

    /// The most that the EVSE could be given, and what says so.
    pub(super) fn ceiling(&self, frame: &Frame<'_>, index: usize) -> (Current, Binding) {
        let evse = &frame.state.evses[index];
        let own = if evse.demand_is_maximum { Binding::EvseMaximum } else { Binding::Demand };
        let blind = if self.blind.is_empty() { None } else { self.blind[frame.class(index).circuit()] };
        match blind {
            Some(circuit) if evse.fallback < evse.demand => (evse.fallback, Binding::MeterLost { circuit }),
            Some(_) | None => (evse.demand, own),
        }
    }

    /// Those who take part.
    pub(super) fn all(&self) -> impl Iterator<Item = (usize, &Wish<'a>)> {
        self.of.iter().enumerate().filter_map(|(index, wish)| Some((index, wish.as_ref()?)))
    }
}

fn blind_circuits(topology: &Topology, state: &PlanState) -> Vec<Option<CircuitIndex>> {
    if state.circuits.iter().all(|circuit| circuit.background_source != BackgroundSource::Unknown) {
        return Vec::new();
    }
    let mut blind: Vec<Option<CircuitIndex>> = Vec::with_capacity(state.circuits.len());
    for (index, circuit) in topology.circuits().iter().enumerate() {
        let own = state.circuits[index].background_source == BackgroundSource::Unknown;
        let above = circuit.parent.and_then(|parent| blind[parent.0]);
        blind.push(if own { Some(CircuitIndex(index)) } else { above });
    }
    blind
}
