//! The planner: `plan(topology, state, now) -> Plan`.
//!
//! It works in two steps. First it finds the **targets**, as if every reachable EVSE could be moved at once: who is served at all
//! (`admit`: an EVSE gets nothing or at least its minimum), what deadlines need (`deadline`), and a weighted max-min fair share of
//! what every circuit can carry (`share`, over the general filling in [`fill`]). Then it finds the **offers** that may leave
//! now (`raise`): every cut at once, a raise only into what is confirmed free. The invariant is asserted before the plan is handed out:
//! for every circuit and phase, `background + Σ max(committed, offer) ≤ limit`, and the same for its power, or nothing on it is raised.
//!
//! Everything that limits is a row (`frame`): each phase of each circuit, its power, its unbalance. A pass over n EVSEs costs
//! n log n, times the depth of the tree. `docs/allocation.md` describes the rules in plain words.
//!
//! For a planner of another kind there is [`fill::Problem`]: rows, members, shares, without circuits and EVSEs.

mod admit;
pub mod binding;
mod deadline;
pub mod fill;
mod frame;
mod grid;
mod invariant;
mod queue;
mod raise;
mod share;
mod wish;

use crate::engine::model::topology::{Circuit, EvseIndex, Topology, Wiring};
use crate::engine::time::Mono;
use crate::engine::units::{Current, PerPhase, PhaseSet, Power, Voltage};
use admit::Admission;
pub use admit::{HEAD_START_MS, SHORTEST_WAIT_MS};
use binding::Binding;
use frame::{Frame, counted_on_unmoved, current, phase_sum};
pub use invariant::invariant_holds;
pub use queue::NOT_FORESEEABLE;
use share::Allotment;
use wish::{Wish, Wishes};

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
    /// The power of all that flows, where something from outside has lowered it below the circuit's own.
    pub max_power: Option<Power>,
    /// The power of all EVSEs below together, whatever else flows: the grid operator's dimming.
    pub charging_power: Option<Power>,
    /// What everything but the EVSEs draws on each phase, at least 0.
    pub background: PerPhase<Current>,
    /// Where that comes from.
    pub background_source: BackgroundSource,
    /// The most that all raises on a phase together may add in this plan (ramp); `None`: no ramp. Whoever keeps it saves it up from plan to
    /// plan, at least to the largest minimum below: nobody can start into less.
    pub ramp: Option<Current>,
}

impl CircuitState {
    /// The most power that may flow on all phases of the circuit together.
    #[must_use]
    pub fn power_limit(&self, circuit: &Circuit) -> Option<Power> {
        match (self.max_power, circuit.max_power) {
            (Some(lowered), Some(configured)) => Some(lowered.min(configured)),
            (lowered, configured) => lowered.or(configured),
        }
    }

    /// What the tighter one of its powers leaves beside what EVSEs may be drawing, as the sum of the phases' currents in mA; negative: it is
    /// exceeded. `committed`: the sum of [`EvseState::committed_for_power`] of all EVSEs below. `None`: no power is limited.
    #[must_use]
    pub fn power_left(&self, circuit: &Circuit, voltage: Voltage, committed: i64) -> Option<i64> {
        let voltage = i64::from(voltage.mv()).max(1);
        let background: i64 = self.background.iter().map(|(_, current)| i64::from(current.ma())).sum();
        let total = self.power_limit(circuit).map(|power| phase_sum(power, voltage) - background);
        let charging = self.charging_power.map(|power| phase_sum(power, voltage));
        [total, charging].into_iter().flatten().min().map(|most| most - committed)
    }
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
    /// Its car took nothing of what it was last offered. While it is served, it gives way to whoever needs its place; once it has lost
    /// that, it rests until then and stands in line from then on, as any other.
    pub rests_until: Option<Mono>,
}

impl EvseState {
    /// What it may be drawing on all phases together, as it counts for a power, in mA. Where nobody knows to which phases it is wired, each
    /// counts, but no more of them than it has terminals carry current.
    #[must_use]
    pub fn committed_for_power(&self, wiring: Wiring) -> i64 {
        let count = self.phases.iter().count();
        let slots = if wiring.is_known() { count } else { count.min(wiring.terminals()) };
        self.committed_on(i64::try_from(slots).unwrap_or(3))
    }

    /// The same where no more than `slots` of its phases carry current at a time.
    fn committed_on(&self, slots: i64) -> i64 {
        if slots == i64::from(self.phases.len()) {
            return self.committed.iter().map(|(_, current)| i64::from(current.ma())).sum();
        }
        i64::from(self.committed.max().ma()) * slots
    }

    /// Whether it is taken to need nothing: it keeps a place that nobody else needs, and no other.
    fn rests(&self, now: Mono) -> bool {
        self.rests_until.is_some_and(|until| self.served_since.is_some() || until > now)
    }

    /// Since when it stands in line, which may be later than now.
    fn arrival(&self, now: Mono) -> Mono {
        let wants_since = self.wants_since.unwrap_or(now);
        self.rests_until.map_or(wants_since, |until| wants_since.max(until.minus_ms(SHORTEST_WAIT_MS)))
    }
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
    /// When its turn begins at the latest if nobody else comes or goes; [`NOT_FORESEEABLE`] where those of a higher priority leave
    /// no room for it.
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
    let mut plan = Plan::default();
    Planner::default().plan(topology, state, now, &mut plan);
    plan
}

/// Makes one plan after another in the same memory. It remembers nothing else: each plan is what [`plan`] makes of the same.
#[derive(Clone, Debug, Default)]
pub struct Planner {
    frame: frame::Memory,
    wishes: Vec<Option<Wish<'static>>>,
    capacities: Vec<i64>,
    room: Vec<i64>,
    sums: Vec<frame::Load>,
    admission: Admission,
    sharing: share::Memory,
    raising: raise::Memory,
    holders: Vec<queue::Holders>,
}

impl Planner {
    /// Makes the plan in place of whatever `plan` is.
    ///
    /// # Panics
    /// If the invariant does not hold in the result: then no offer may leave.
    pub fn plan(&mut self, topology: &Topology, state: &PlanState, now: Mono, plan: &mut Plan) {
        assert_eq!(topology.circuits().len(), state.circuits.len(), "one state for each circuit");
        assert_eq!(topology.evses().len(), state.evses.len(), "one state for each EVSE");
        let frame = Frame::new(topology, state, std::mem::take(&mut self.frame));
        let nothing = Offer { limit: Current::ZERO, target: Current::ZERO, binding: Binding::NoDemand };
        plan.offers.clear();
        plan.offers.resize(state.evses.len(), nothing);
        let wishes = Wishes::new(&frame, &mut plan.offers, emptied(std::mem::take(&mut self.wishes)));
        frame.capacities(&mut self.capacities);
        self.leave_room_for_moved(&frame, wishes.has_unmoved);
        admit::admit(&frame, &wishes, &self.room, (&mut plan.offers, now), &mut self.admission);
        let served = wishes.all().filter(|(index, _)| self.admission.admitted[*index]);
        self.sharing.allotted.clear();
        self.sharing.allotted.extend(served.map(|(index, wish)| Allotment::new(&frame, index, wish)));
        deadline::raise_floors(&frame, &wishes, &mut self.sharing.allotted, &self.room, now);
        share::share(&frame, &wishes, &self.room, &mut self.sharing);
        for share in &self.sharing.allotted {
            let target = current(share.amount);
            let has_more = || wishes.of[share.evse()].is_some_and(|wish| wish.min() < share.floor());
            let binding = match share.row() {
                Some(row) if share.floor() == share.amount && has_more() => Binding::Deadline(frame.bottleneck(row)),
                Some(row) => Binding::Circuit(frame.bottleneck(row)),
                None => wishes.ceiling(&frame, share.evse()).1,
            };
            plan.offers[share.evse()] = Offer { limit: target, target, binding };
        }
        let shares = (&self.sharing.allotted[..], &self.capacities[..]);
        raise::offers(&frame, &wishes, shares, &mut plan.offers, &mut self.raising);
        assert!(invariant_holds(topology, state, &plan.offers), "the plan would overload a circuit");
        let expected =
            queue::places(&frame, &wishes, &self.admission, (&self.room, now), &mut self.holders, &mut plan.queue);
        let queue = (&plan.queue[..], &expected[..]);
        deadline::shortfalls(&frame, &wishes, &plan.offers, queue, now, &mut plan.shortfalls);
        self.wishes = emptied(wishes.of);
        self.frame = frame.into_memory();
    }

    /// Finds what each row can carry besides the background and those that cannot be moved.
    fn leave_room_for_moved(&mut self, frame: &Frame<'_>, has_unmoved: bool) {
        self.room.clear();
        self.room.extend(&self.capacities);
        if has_unmoved {
            let unmoved = || (0..frame.state.evses.len()).filter(|index| !frame.state.evses[*index].reachable);
            let loads = unmoved().map(|index| (frame.class_of(index), frame.load_committed(index)));
            frame.sum(&mut self.sums, loads);
            frame.take_from(&mut self.room, &self.sums);
            let counted = unmoved().map(|index| (index, counted_on_unmoved(&frame.state.evses[index])));
            frame.add_credits(&mut self.room, counted);
        }
    }
}

/// The list without its items, for others that borrow for another time: it keeps its allocation (collecting in place).
fn emptied<'b>(mut wishes: Vec<Option<Wish<'_>>>) -> Vec<Option<Wish<'b>>> {
    wishes.clear();
    wishes.into_iter().map(|_| None).collect()
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
