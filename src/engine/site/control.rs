//! The control cycle: what is known becomes a plan, the plan becomes limits on their way to stations.

use std::collections::VecDeque;

use super::Site;
use super::appetite::Appetite;
use super::conduct::Conduct;
use super::io::Output;
use super::ledger::Ledger;
use super::memory::Written;
use super::phases::CarPhases;
use super::readings::Measured;
use super::sending::ANSWERS_WITHIN_MS;
use super::tether::Tether;
use crate::engine::model::exchange::{AuthorizationStatus, ChargingState, ConnectorStatus};
use crate::engine::model::ids::TransactionId;
use crate::engine::model::topology::{CircuitIndex, Evse, EvseIndex, Topology};
use crate::engine::plan::{CircuitState, EvseState, LimitSource, Offer};
use crate::engine::time::{Mono, Now, Sampled, Utc};
use crate::engine::units::{Current, Energy, PerPhase, Phase, PhaseSet};

/// The plan is made anew at least so often, whatever happens.
const REPLAN_MS: u64 = 5_000;

/// What overloads nothing and takes nothing away is planned with after so long at the latest: samples, readings within the limits, cuts that were
/// accepted. A large site has dozens of these in each tick, and cars take 5 s to follow anyhow (IEC 61851-1).
const SOON_MS: u64 = 1_000;

/// One EVSE as the control sees it.
#[derive(Debug)]
pub(super) struct EvseControl {
    pub(super) tether: Tether,
    pub(super) status: Option<ConnectorStatus>,
    pub(super) charging_state: Option<ChargingState>,
    pub(super) measured: Option<Sampled<Measured>>,
    pub(super) energy: Option<Energy>,
    pub(super) served_since: Option<Mono>,
    pub(super) wants_since: Option<Mono>,
    pub(super) raised_at: Option<Mono>,
    /// When its limit last became another one, or was confirmed to be: samples from before a car could follow say nothing of it.
    pub(super) moved_at: Option<Mono>,
    /// When it first accepted a limit after its station was heard again.
    pub(super) told_again_at: Option<Mono>,
    /// When it was raised within the last minute.
    pub(super) raises: VecDeque<Mono>,
    /// What the car takes of what it is offered.
    pub(super) appetite: Appetite,
    /// Which phases the car uses.
    pub(super) phases: CarPhases,
    /// Whether the station keeps its limit.
    pub(super) conduct: Conduct,
    /// The transaction that its limits are for, where they are for one.
    pub(super) limited_transaction: Option<TransactionId>,
    /// What the next run is handed of it.
    pub(super) written: Written,
}

impl EvseControl {
    pub(super) fn new(topology: &Topology, evse: Evse, ledger: &Ledger, now: Mono) -> Self {
        let station = topology.station(evse.station);
        // A fallback that differs from the one it was given is not what the station would fall to.
        let tamed_to = ledger.station(&station.id).and_then(|facts| facts.tamed.get(&evse.number)).copied();
        let tamed = tamed_to.is_some_and(|fallback| fallback <= station.fallback);
        Self {
            tether: Tether::new(station.max, station.fallback, &station.model, tamed, now),
            status: None,
            charging_state: None,
            measured: None,
            energy: None,
            served_since: None,
            wants_since: None,
            raised_at: None,
            moved_at: None,
            told_again_at: None,
            raises: VecDeque::new(),
            appetite: Appetite::default(),
            phases: CarPhases::default(),
            conduct: Conduct::default(),
            limited_transaction: None,
            written: Written::default(),
        }
    }
}

impl Site {
    /// Something is new that can wait for a moment.
    pub(super) fn plan_soon(&mut self) {
        self.plan_due = self.plan_due.min(self.planned_at.plus_ms(SOON_MS));
    }

    pub(super) fn control(&mut self, now: Now, out: &mut Vec<Output>) {
        self.planned_at = now.mono;
        self.follow_transactions(now.mono);
        self.refresh_wishes();
        self.note_wishes(now.mono);
        self.note_waits(now.mono);
        self.plan_state.circuits = (0..self.backgrounds.len()).map(|index| self.circuit_state(index, now)).collect();
        self.plan_state.evses = (0..self.evses.len()).map(|index| self.evse_state(EvseIndex(index), now)).collect();
        self.note_committed();
        self.recall_where_full(now);
        let rating_ends = self.use_short_time(now.mono);
        self.fill_ramp(now.mono);
        #[cfg(feature = "sabotage")]
        {
            self.break_plan_state();
            self.note_committed();
        }
        self.planner.plan(&self.setup.topology, &self.plan_state, now.mono, &mut self.plan);
        let full = self.any_circuit_full();
        let mut sent = false;
        for index in 0..self.evses.len() {
            let evse = EvseIndex(index);
            if let Some((limit, priority)) = self.to_send(evse, full, now.mono) {
                self.send_limit(evse, limit, priority, (now, out));
                sent = true;
            }
        }
        if std::mem::take(&mut self.remember_due) || sent {
            self.memory_due = true;
        }
        let changes = self.evses.iter().filter_map(|control| control.tether.next_change(now.mono)).chain(rating_ends);
        let waits = self.evses.iter().filter_map(|control| control.tether.waits_since());
        let changes = changes.chain(waits.map(|at| at.plus_ms(ANSWERS_WITHIN_MS)).filter(|at| *at > now.mono));
        self.plan_due = changes.min().unwrap_or(Mono::from_ms(u64::MAX)).min(now.mono.plus_ms(REPLAN_MS));
    }

    /// Sums up the committed currents below each circuit. Once for each plan: many questions rest on them.
    pub(super) fn note_committed(&mut self) {
        let topology = &self.setup.topology;
        self.committed_below.clear();
        self.committed_below.resize(self.plan_state.circuits.len(), PerPhase::splat(Current::ZERO));
        self.committed_power_below.clear();
        self.committed_power_below.resize(self.plan_state.circuits.len(), 0);
        for (evse, state) in topology.evses().iter().zip(&self.plan_state.evses) {
            let power = state.committed_for_power(topology.station(evse.station).wiring);
            for circuit in topology.path_to_grid(evse.circuit) {
                self.committed_below[circuit.0] += state.committed;
                self.committed_power_below[circuit.0] += power;
            }
        }
    }

    fn any_circuit_full(&self) -> bool {
        let mut circuits = self.plan_state.circuits.iter().enumerate();
        circuits.any(|(index, state)| self.is_too_full(CircuitIndex(index), state, PhaseSet::ALL))
    }

    /// Whether a circuit in that state carries more than it may, on one of the phases or in one of its powers.
    pub(super) fn is_too_full(&self, circuit: CircuitIndex, state: &CircuitState, phases: PhaseSet) -> bool {
        let room = state.limit - state.background - self.committed_below(circuit);
        let topology = &self.setup.topology;
        let committed = self.committed_power_below.get(circuit.0).copied().unwrap_or_default();
        let power_left = state.power_left(topology.circuit(circuit), topology.voltage(), committed);
        phases.iter().any(|phase| room.of(phase) < Current::ZERO) || power_left.is_some_and(|left| left < 0)
    }

    /// Whether EVSEs may load one phase of a circuit above an EVSE too much beyond another, by what they are measured to draw there.
    pub(super) fn is_unbalanced_above(&self, evse: EvseIndex) -> bool {
        let topology = &self.setup.topology;
        topology.path_to_grid(topology.evse(evse).circuit).any(|above| {
            let Some(limit) = topology.circuit(above).max_unbalance else { return false };
            let states = topology.evses_below(above).iter().filter_map(|below| self.plan_state.evses.get(below.0));
            let zero = PerPhase::splat(Current::ZERO);
            let drawn = states.fold(zero, |sum, state| sum + state.drawn.zip_with(state.committed, Current::min));
            let may = self.committed_below(above);
            let beyond = |phase: Phase, against: Phase| may.of(phase) - drawn.of(against) > limit;
            Phase::ALL.iter().any(|phase| Phase::ALL.iter().any(|other| other != phase && beyond(*phase, *other)))
        })
    }

    fn circuit_state(&self, index: usize, now: Now) -> CircuitState {
        let circuit = &self.setup.topology.circuits()[index];
        let (limit, max_power, charging_power) = self.circuit_limits(CircuitIndex(index));
        let limit_source = if limit == circuit.limit { LimitSource::Configured } else { LimitSource::External };
        let (background, background_source) = self.background_of(CircuitIndex(index), now.mono);
        let ramp = self.ramp_of(CircuitIndex(index));
        CircuitState { limit, limit_source, max_power, charging_power, background, background_source, ramp }
    }

    pub(super) fn evse_state(&self, index: EvseIndex, now: Now) -> EvseState {
        let station = self.setup.topology.station(self.setup.topology.evse(index).station);
        let control = &self.evses[index.0];
        let reachable = self.reachable(index);
        // What is credited against another phase must flow there for certain, whichever terminal is wired to it.
        let drawn = self.fresh_measured(index, now.mono).map_or(PerPhase::splat(Current::ZERO), |fresh| fresh.sure);
        let demand = self.demand(index, now);
        let wish = &self.wishes[index.0];
        let refuses_pause = control.tether.refuses_pause();
        let state = EvseState {
            phases: self.phases_of(index, now.mono),
            committed: self.committed(index, now.mono),
            drawn,
            demand,
            demand_is_maximum: demand == wish.max.min(self.station_max(self.setup.topology.evse(index).station)),
            // A station that refuses its limits, does not keep them or does not answer cannot be moved: others must not wait for a cut that
            // never comes.
            reachable: reachable
                && control.tether.refused_at().is_none()
                && !control.conduct.is_above()
                && !self.keeps_waiting(index, now.mono),
            min: wish.min,
            fallback: station.fallback,
            step: station.model.step,
            weight: wish.weight,
            // What knows no pause draws its minimum whoever goes first: the others are planned around it.
            priority: if refuses_pause { i32::MAX } else { wish.priority },
            hold: self.is_held(index, now.mono),
            deadline: self.deadline(index, now),
            served_since: control.served_since,
            wants_since: control.wants_since,
            rests_until: control.appetite.rests_until().filter(|_| !refuses_pause),
        };
        self.under_test(index, state)
    }

    /// The most that the EVSE could use now: nothing without a transaction that may charge.
    fn demand(&self, index: EvseIndex, now: Now) -> Current {
        let evse = self.setup.topology.evse(index);
        let station = self.setup.topology.station(evse.station);
        let control = &self.evses[index.0];
        let out_of_order = matches!(control.status, Some(ConnectorStatus::Faulted | ConnectorStatus::Unavailable));
        // A station that refuses a pause is never paused: it has its minimum for good.
        let nothing = if control.tether.refuses_pause() { station.min } else { Current::ZERO };
        if !self.is_charging(index) || out_of_order {
            return nothing;
        }
        // A 2.x transaction begins with the cable and gets its token later; until then only the station's word says that it charges.
        let flowing = Some(ChargingState::Charging) == control.charging_state
            || Some(ChargingState::SuspendedEv) == control.charging_state
            || Some(ChargingState::SuspendedEvse) == control.charging_state;
        let may_charge =
            self.wishes[index.0].verdict.map_or(flowing, |verdict| verdict.at(now) == AuthorizationStatus::Accepted);
        if !may_charge || self.wishes[index.0].used_up || self.waits_until(evse.station, now.mono).is_some() {
            return nothing;
        }
        let wish = &self.wishes[index.0];
        let takes = control.appetite.takes().map_or(wish.max, |takes| takes.max(wish.min));
        takes.min(wish.max).min(self.station_max(evse.station))
    }

    /// Keeps who waits since when, and who is served since when.
    fn note_wishes(&mut self, now: Mono) {
        for index in 0..self.evses.len() {
            let wants = self.demand(EvseIndex(index), Now { mono: now, utc: Utc::default(), utc_trusted: false });
            let control = &mut self.evses[index];
            if wants == Current::ZERO {
                control.wants_since = None;
                control.served_since = None;
                control.appetite = Appetite::default();
            } else {
                control.wants_since.get_or_insert(now);
                self.note_appetite(EvseIndex(index), now);
            }
        }
    }

    /// The offer of the last plan for an EVSE; `None` before the first plan.
    pub(super) fn offer(&self, evse: EvseIndex) -> Option<&Offer> {
        self.plan.offers.get(evse.0)
    }

    /// What is left on each phase of a circuit by the last plan: limit − background − committed.
    pub(super) fn room(&self, circuit: CircuitIndex) -> Option<PerPhase<Current>> {
        let state = self.plan_state.circuits.get(circuit.0)?;
        Some(state.limit - state.background - self.committed_below(circuit))
    }

    /// The committed currents of all EVSEs below a circuit, by the last plan; nothing before the first.
    pub(super) fn committed_below(&self, circuit: CircuitIndex) -> PerPhase<Current> {
        self.committed_below.get(circuit.0).copied().unwrap_or_default()
    }
}
