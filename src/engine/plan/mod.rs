//! The planner: `plan(topology, state, now) -> Plan`.
//!
//! It works in two steps. First it finds the **targets**: a weighted max-min fair share of every circuit and phase, where an EVSE
//! gets nothing or at least its minimum, as if every reachable EVSE could be moved at once. Then it finds the **offers** that may leave
//! now: every cut at once, a raise only into what is confirmed free. The invariant is asserted before the plan is handed out:
//! for every circuit and phase, `background + Σ max(committed, offer) ≤ limit`, or nothing on it is raised.

pub mod binding;
mod fill;

use crate::engine::model::topology::{CircuitIndex, EvseIndex, Topology};
use crate::engine::time::Mono;
use crate::engine::units::{Current, PerPhase, Phase, PhaseSet};
use binding::{Binding, Bottleneck};
use fill::{Fill, Member};

/// How long an EVSE keeps its place when others wait for one.
pub const TURN_MS: u64 = 15 * 60 * 1000;

/// Where the limit of a circuit comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitSource {
    /// From the configuration.
    Configured,
    /// Lowered from outside (`limit.set`).
    External,
}

/// Where the background of a circuit comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackgroundSource {
    /// A fresh reading of its meter.
    Meter,
    /// The configured unmeasured load: there is no meter, or it is silent.
    Configured,
    /// The meter is silent and no unmeasured load is configured: only the fallbacks may be given out.
    Unknown,
    /// There is no meter and no other load.
    None,
}

impl BackgroundSource {
    /// The name that the interfaces show.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meter => "meter",
            Self::Configured => "configured",
            Self::Unknown => "unknown",
            Self::None => "none",
        }
    }
}

/// What the planner knows of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitState {
    /// The limit in force on each phase.
    pub limit: PerPhase<Current>,
    /// Where it comes from.
    pub limit_source: LimitSource,
    /// What everything but the EVSEs draws on each phase, at least 0.
    pub background: PerPhase<Current>,
    /// Where that comes from.
    pub background_source: BackgroundSource,
    /// The most that all raises on a phase together may add in this plan (ramp); `None`: no ramp.
    pub ramp: Option<Current>,
}

/// Energy that a car must have by a certain time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// What is still missing, as charge on each phase that the car uses, in mA·s.
    pub missing_ma_s: i64,
    /// By when.
    pub by: Mono,
}

/// What the planner knows of an EVSE. Currents are per phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvseState {
    /// The grid phases that an offer counts on: those that the car may draw from.
    pub phases: PhaseSet,
    /// The most that it may be drawing now.
    pub committed: PerPhase<Current>,
    /// What it is measured to draw, 0 where that is not known: what a limit of the unbalance may count on.
    pub drawn: PerPhase<Current>,
    /// The most that it could use now; below its minimum it wants nothing.
    pub demand: Current,
    /// Why the demand is what it is: its hardware, or what the car takes.
    pub demand_is_maximum: bool,
    /// A limit can be sent to it now.
    pub reachable: bool,
    /// The least that it can be given.
    pub min: Current,
    /// What it may draw without us.
    pub fallback: Current,
    /// The smallest step of its limit.
    pub step: Current,
    /// Its share.
    pub weight: u32,
    /// Higher goes first when not all minimums fit.
    pub priority: i32,
    /// It may be cut, but not raised now (its changes are bounded).
    pub hold: bool,
    /// What it must have by when: the least laxity goes first.
    pub deadline: Option<Deadline>,
    /// Since when it is offered at least its minimum.
    pub served_since: Option<Mono>,
    /// Since when it wants to charge.
    pub wants_since: Option<Mono>,
}

/// All that the planner knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanState {
    /// One for each circuit of the topology.
    pub circuits: Vec<CircuitState>,
    /// One for each EVSE of the topology.
    pub evses: Vec<EvseState>,
}

/// What an EVSE gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The limit that may be sent now, per phase. 0 is a pause; never between 0 and the minimum.
    pub limit: Current,
    /// The limit that it shall have once all cuts are confirmed.
    pub target: Current,
    /// What decides it.
    pub binding: Binding,
}

/// The place of an EVSE that waits for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePlace {
    /// Which EVSE.
    pub evse: EvseIndex,
    /// 1 is the next.
    pub position: usize,
    /// When its turn begins at the latest if nobody else comes or goes.
    pub starts: Mono,
}

/// A deadline that cannot be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// Which EVSE.
    pub evse: EvseIndex,
    /// How much will be missing, as charge on each phase, in mA·s.
    pub missing_ma_s: i64,
}

/// The plan: one offer for each EVSE of the topology.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order of [`Topology::evses`].
    pub offers: Vec<Offer>,
    /// Who waits, in the order of the queue.
    pub queue: Vec<QueuePlace>,
    /// Whose deadline cannot be met.
    pub shortfalls: Vec<Shortfall>,
}

/// Makes the plan.
///
/// # Panics
/// If the invariant does not hold in the result: then no offer may leave.
#[must_use]
pub fn plan(topology: &Topology, state: &PlanState, now: Mono) -> Plan {
    assert_eq!(topology.circuits().len(), state.circuits.len(), "one state for each circuit");
    assert_eq!(topology.evses().len(), state.evses.len(), "one state for each EVSE");
    let mut planner = Planner::new(topology, state);
    planner.admit(now);
    planner.share();
    planner.raise_into_confirmed();
    assert!(invariant_holds(topology, state, &planner.offers), "the plan would overload a circuit");
    Plan { offers: planner.offers, queue: Vec::new(), shortfalls: Vec::new() }
}

/// Whether every circuit and phase on which anything is raised stays below its limit at the worst.
#[must_use]
pub fn invariant_holds(topology: &Topology, state: &PlanState, offers: &[Offer]) -> bool {
    let mut worst: Vec<PerPhase<Current>> = state.circuits.iter().map(|circuit| circuit.background).collect();
    let mut raised = vec![PhaseSet::EMPTY; worst.len()];
    for (index, (evse, offer)) in state.evses.iter().zip(offers).enumerate() {
        let may_draw = evse.phases.spread(offer.limit).zip_with(evse.committed, Current::max);
        for circuit in topology.path_to_grid(topology.evse(EvseIndex(index)).circuit) {
            worst[circuit.0] += may_draw;
            if offer.limit > evse.committed.max() {
                raised[circuit.0] = evse.phases.iter().fold(raised[circuit.0], PhaseSet::with);
            }
        }
    }
    state
        .circuits
        .iter()
        .enumerate()
        .all(|(index, circuit)| raised[index].iter().all(|phase| worst[index].of(phase) <= circuit.limit.of(phase)))
}

struct Planner<'a> {
    topology: &'a Topology,
    state: &'a PlanState,
    /// What is left on each circuit and phase for those that can be moved.
    free: Vec<PerPhase<Current>>,
    admitted: Vec<bool>,
    offers: Vec<Offer>,
}

impl<'a> Planner<'a> {
    fn new(topology: &'a Topology, state: &'a PlanState) -> Self {
        let free = state.circuits.iter().map(|circuit| circuit.limit - circuit.background).collect();
        let offers =
            vec![Offer { limit: Current::ZERO, target: Current::ZERO, binding: Binding::NoDemand }; state.evses.len()];
        let mut planner = Self { topology, state, free, admitted: vec![false; state.evses.len()], offers };
        for index in 0..state.evses.len() {
            let evse = &state.evses[index];
            if !evse.reachable {
                let committed = evse.committed.max();
                planner.offers[index] = Offer { limit: committed, target: committed, binding: Binding::Unreachable };
                planner.take(index, committed);
            }
        }
        planner
    }

    fn circuits_of(&self, evse: usize) -> impl Iterator<Item = CircuitIndex> + use<'a> {
        self.topology.path_to_grid(self.topology.evse(EvseIndex(evse)).circuit)
    }

    fn take(&mut self, evse: usize, current: Current) {
        let spread = self.state.evses[evse].phases.spread(current);
        for circuit in self.circuits_of(evse) {
            self.free[circuit.0] = self.free[circuit.0] - spread;
        }
    }

    /// The nearest circuit above the EVSE that has lost its meter and knows no unmeasured load.
    fn blind_circuit(&self, evse: usize) -> Option<CircuitIndex> {
        self.circuits_of(evse)
            .find(|circuit| self.state.circuits[circuit.0].background_source == BackgroundSource::Unknown)
    }

    /// The most that the EVSE could be given, and what says so, before it shares with others.
    fn ceiling(&self, index: usize) -> (Current, Binding) {
        let evse = &self.state.evses[index];
        let own = if evse.demand_is_maximum { Binding::EvseMaximum } else { Binding::Demand };
        match self.blind_circuit(index) {
            Some(circuit) if evse.fallback < evse.demand => (evse.fallback, Binding::MeterLost { circuit }),
            Some(_) | None => (evse.demand, own),
        }
    }

    /// Decides who is served at all: in the order of priority and turn, whoever's minimum still fits.
    fn admit(&mut self, now: Mono) {
        let mut order: Vec<usize> = (0..self.state.evses.len())
            .filter(|index| self.state.evses[*index].reachable && self.state.evses[*index].demand > Current::ZERO)
            .collect();
        order.sort_by_key(|index| (turn(&self.state.evses[*index], now), *index));
        for index in order {
            let evse = &self.state.evses[index];
            let (ceiling, binding) = self.ceiling(index);
            if ceiling < evse.min {
                let below = if ceiling == evse.demand { Binding::BelowMinimum } else { binding };
                self.offers[index].binding = below;
                continue;
            }
            match self.tightest(index, &self.free).filter(|(room, _)| *room < evse.min) {
                Some((_, bottleneck)) => self.offers[index].binding = Binding::Queue(bottleneck),
                None => {
                    self.admitted[index] = true;
                    self.take(index, evse.min);
                }
            }
        }
    }

    /// The least room above an EVSE, and where that is.
    fn tightest(&self, index: usize, room: &[PerPhase<Current>]) -> Option<(Current, Bottleneck)> {
        let evse = &self.state.evses[index];
        self.circuits_of(index)
            .flat_map(|circuit| evse.phases.iter().map(move |phase| (circuit, phase)))
            .map(|(circuit, phase)| (room[circuit.0].of(phase), self.bottleneck(circuit, phase)))
            .min_by_key(|(room, _)| *room)
    }

    fn bottleneck(&self, circuit: CircuitIndex, phase: Phase) -> Bottleneck {
        let state = &self.state.circuits[circuit.0];
        Bottleneck {
            circuit,
            phase,
            limit: state.limit.of(phase),
            limit_source: state.limit_source,
            background: state.background.of(phase),
            background_source: state.background_source,
        }
    }

    /// Shares what is left among the admitted, weighted max-min fair.
    fn share(&mut self) {
        // The minimums were taken for admission; the fill works on whole allocations.
        let members: Vec<Member> = (0..self.state.evses.len())
            .filter(|index| self.admitted[*index])
            .map(|index| {
                let (ceiling, _) = self.ceiling(index);
                let evse = &self.state.evses[index];
                Member {
                    evse: index,
                    phases: evse.phases,
                    min: evse.min,
                    max: ceiling.max(evse.min),
                    weight: evse.weight,
                }
            })
            .collect();
        for member in &members {
            self.take(member.evse, -member.min);
        }
        let filled = Fill::run(self.topology, &members, &self.free);
        for (member, share) in members.iter().zip(filled) {
            let step = self.state.evses[member.evse].step;
            let target = share.current.floor_to(step).max(member.min);
            let binding = match share.row {
                Some((circuit, phase)) => Binding::Circuit(self.bottleneck(circuit, phase)),
                None => self.ceiling(member.evse).1,
            };
            self.take(member.evse, target);
            self.offers[member.evse] = Offer { limit: target, target, binding };
        }
    }

    /// Turns targets into what may be sent now: cuts at once, raises only into what is confirmed free.
    fn raise_into_confirmed(&mut self) {
        let mut room: Vec<PerPhase<Current>> =
            self.state.circuits.iter().map(|circuit| circuit.limit - circuit.background).collect();
        let spend = |room: &mut Vec<PerPhase<Current>>, index: usize, current: Current| {
            let spread = self.state.evses[index].phases.spread(current);
            for circuit in self.topology.path_to_grid(self.topology.evse(EvseIndex(index)).circuit) {
                room[circuit.0] = room[circuit.0] - spread;
            }
        };
        for (index, evse) in self.state.evses.iter().enumerate() {
            spend(&mut room, index, evse.committed.max());
        }
        let mut raises: Vec<usize> = (0..self.offers.len())
            .filter(|index| self.offers[*index].target > self.state.evses[*index].committed.max())
            .collect();
        // Those furthest below their target first, so that a newcomer is not starved by small raises of others.
        raises.sort_by_key(|index| (self.state.evses[*index].committed.max() - self.offers[*index].target, *index));
        for index in raises {
            let evse = &self.state.evses[index];
            let Some((free, bottleneck)) = self.tightest(index, &room) else { continue };
            let wanted = self.offers[index].target;
            let reach = (evse.committed.max() + free.at_least_zero()).min(wanted);
            // The minimum and the maximum need not be multiples of the step.
            let possible = if reach == wanted { wanted } else { reach.floor_to(evse.step).max(evse.min.min(reach)) };
            if possible == wanted {
                spend(&mut room, index, wanted - evse.committed.max());
                continue;
            }
            let limit = if possible >= evse.min { possible } else { Current::ZERO };
            self.offers[index].limit = limit;
            self.offers[index].binding = Binding::RaisePending(bottleneck);
            spend(&mut room, index, (limit - evse.committed.max()).at_least_zero());
        }
    }
}

/// The order of admission: priority, then those whose turn is not over, then those who wait longest, then those who had their turn.
fn turn(evse: &EvseState, now: Mono) -> (i64, u8, Mono) {
    let priority = -i64::from(evse.priority);
    match evse.served_since {
        Some(since) if now.since(since) < TURN_MS => (priority, 0, since),
        Some(since) => (priority, 2, since),
        None => (priority, 1, evse.wants_since.unwrap_or(now)),
    }
}

#[cfg(test)]
mod tests;
