//! What each EVSE could use, before it shares with others.

use super::binding::Binding;
use super::frame::Frame;
use super::grid::Grid;
use super::{BackgroundSource, Offer, PlanState};
use crate::engine::model::topology::{CircuitIndex, Topology};
use crate::engine::units::Current;

/// What an EVSE could use, in mA that it can be offered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish<'a> {
    pub(super) grid: Grid<'a>,
    pub(super) min: i64,
    pub(super) max: i64,
}

/// The wishes of all EVSEs. `None`: it takes no part.
pub(super) struct Wishes<'a> {
    pub(super) of: Vec<Option<Wish<'a>>>,
    /// For each circuit the nearest one above it, or itself, of which the meter is silent and nothing is assumed.
    blind: Vec<Option<CircuitIndex>>,
}

impl<'a> Wishes<'a> {
    /// Finds the wishes, and says in `offers` what decides for those who take no part.
    pub(super) fn new(frame: &Frame<'a>, offers: &mut [Offer]) -> Self {
        let (topology, state) = (frame.topology, frame.state);
        let mut wishes = Self { of: Vec::with_capacity(state.evses.len()), blind: blind_circuits(topology, state) };
        for (index, evse) in state.evses.iter().enumerate() {
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
            wishes.of.push(wish);
        }
        wishes
    }

    fn judge(&self, frame: &Frame<'a>, index: usize, offer: &mut Offer) -> Option<Wish<'a>> {
        let evse = &frame.state.evses[index];
        let station = frame.topology.station(frame.topology.evses()[index].station);
        let grid = Grid::new(evse.min, evse.step, &station.model.levels);
        let (ceiling, binding) = self.ceiling(frame, index);
        let mut max = grid.at_most(i64::from(ceiling.ma()));
        if grid.is_coarse() && !evse.demand_is_maximum && ceiling == evse.demand {
            // What a car takes lies between two levels: the upper one, or it would get less than it takes.
            let above = grid.at_least(i64::from(ceiling.ma()));
            max = above.filter(|level| *level <= i64::from(station.max.ma())).unwrap_or(max);
        }
        match grid.least().filter(|min| *min <= max && evse.demand >= evse.min) {
            Some(min) => Some(Wish { grid, min, max }),
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
        match self.blind[frame.class(index).circuit] {
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
    let mut blind: Vec<Option<CircuitIndex>> = Vec::with_capacity(state.circuits.len());
    for (index, circuit) in topology.circuits().iter().enumerate() {
        let own = state.circuits[index].background_source == BackgroundSource::Unknown;
        let above = circuit.parent.and_then(|parent| blind[parent.0]);
        blind.push(if own { Some(CircuitIndex(index)) } else { above });
    }
    blind
}
