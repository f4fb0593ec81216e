//! The control cycle: what is known becomes a plan, the plan becomes limits on their way to stations.

use super::io::{LogLevel, Output};
use super::ledger::Ledger;
use super::readings::Measured;
use super::tether::Tether;
use super::{Site, log};
use crate::engine::model::alarm::{AlarmKind, Severity};
use crate::engine::model::exchange::{AuthorizationStatus, ChargingState, ConnectorStatus};
use crate::engine::model::record::RecordBody;
use crate::engine::model::topology::{CircuitIndex, Evse, EvseIndex, Topology};
use crate::engine::plan::{self, BackgroundSource, CircuitState, EvseState, LimitSource, Offer};
use crate::engine::time::{Mono, Now, Sampled, Utc};
use crate::engine::units::{Current, Energy, PerPhase};

/// The plan is made anew at least so often, whatever happens.
const REPLAN_MS: u64 = 5_000;

/// A car that leaves more than this unused, for [`UNUSED_MS`], is offered no more than what it takes and this on top.
const UNUSED: Current = Current::from_a(2);

/// See [`UNUSED`].
const UNUSED_MS: u64 = 30_000;

/// A car within this of its offer uses all of it.
const USES_ALL: Current = Current::from_a(1);

/// A sample above the limit by more than this is the station's fault, not its meter's (class B with its PWM tolerance).
const ABOVE: Current = Current::from_ma(1_500);

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
    /// The car leaves something unused since then.
    unused_since: Option<Mono>,
    /// The most that the car is known to take, with a margin.
    pub(super) takes: Option<Current>,
    pub(super) above_samples: u32,
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
            unused_since: None,
            takes: None,
            above_samples: 0,
        }
    }
}

impl Site {
    pub(super) fn control(&mut self, now: Now, out: &mut Vec<Output>) {
        self.refresh_wishes();
        self.note_wishes(now.mono);
        self.plan_state.circuits = (0..self.backgrounds.len()).map(|index| self.circuit_state(index, now)).collect();
        self.plan_state.evses = (0..self.evses.len()).map(|index| self.evse_state(EvseIndex(index), now)).collect();
        self.plan = plan::plan(&self.setup.topology, &self.plan_state, now.mono);
        let full = self.any_circuit_full();
        let mut sent = false;
        for index in 0..self.evses.len() {
            let evse = EvseIndex(index);
            if let Some((limit, priority)) = self.to_send(evse, full, now.mono) {
                self.send_limit(evse, limit, priority, (now, out));
                sent = true;
            }
        }
        if sent {
            self.remember_offers(now, out);
        }
        let changes = self.evses.iter().filter_map(|control| control.tether.next_change(now.mono));
        self.plan_due = changes.min().unwrap_or(Mono::from_ms(u64::MAX)).min(now.mono.plus_ms(REPLAN_MS));
    }

    fn any_circuit_full(&self) -> bool {
        let mut load: Vec<PerPhase<Current>> = self.plan_state.circuits.iter().map(|state| state.background).collect();
        for (index, evse) in self.plan_state.evses.iter().enumerate() {
            for circuit in self.setup.topology.path_to_grid(self.setup.topology.evse(EvseIndex(index)).circuit) {
                load[circuit.0] += evse.committed;
            }
        }
        let states = self.plan_state.circuits.iter().zip(load);
        states.into_iter().any(|(state, load)| (state.limit - load).min() < Current::ZERO)
    }

    fn circuit_state(&self, index: usize, now: Now) -> CircuitState {
        let circuit = &self.setup.topology.circuits()[index];
        let outside = self.ledger.limits().get(&circuit.id).map(|outside| outside.limit);
        let limit = outside.map_or(circuit.limit, |outside| circuit.limit.map(|configured| configured.min(outside)));
        let limit_source = if limit == circuit.limit { LimitSource::Configured } else { LimitSource::External };
        let fresh = circuit.meter.and_then(|meter| {
            self.backgrounds[index].fresh(now.mono, self.setup.topology.meters()[meter.0].stale_after_ms)
        });
        // While the meter is silent the assumption holds, but never less than what was last seen.
        let last = self.backgrounds[index].last_known().unwrap_or(PerPhase::splat(Current::ZERO));
        let (background, background_source) = match (fresh, circuit.unmeasured_load, circuit.meter) {
            (Some(measured), _, _) => (measured, BackgroundSource::Meter),
            (None, Some(assumed), Some(_)) => (assumed.zip_with(last, Current::max), BackgroundSource::Configured),
            (None, Some(assumed), None) => (assumed, BackgroundSource::Configured),
            (None, None, Some(_)) => (last, BackgroundSource::Unknown),
            (None, None, None) => (PerPhase::splat(Current::ZERO), BackgroundSource::None),
        };
        CircuitState { limit, limit_source, background, background_source, ramp: None }
    }

    fn evse_state(&self, index: EvseIndex, now: Now) -> EvseState {
        let station = self.setup.topology.station(self.setup.topology.evse(index).station);
        let control = &self.evses[index.0];
        let reachable = self.reachable(index);
        let told = control.tether.committed(reachable, now.mono);
        // A station above its limit is budgeted at what it draws.
        let above = self.fresh_measured(index, now.mono).filter(|_| control.above_samples > 0);
        let told = station.wiring.phases().spread(told);
        let committed = above.map_or(told, |measured| told.zip_with(measured.current, Current::max));
        let drawn = self.fresh_measured(index, now.mono).map_or(PerPhase::splat(Current::ZERO), |fresh| fresh.current);
        let demand = self.demand(index, now);
        let wish = &self.wishes[index.0];
        EvseState {
            phases: station.wiring.phases(),
            committed,
            drawn,
            demand,
            demand_is_maximum: demand == wish.max,
            // A station that refuses its limits cannot be moved: others must not wait for a cut that never comes.
            reachable: reachable && control.tether.refused_at().is_none(),
            min: wish.min,
            fallback: station.fallback,
            step: station.model.step,
            weight: wish.weight,
            priority: wish.priority,
            hold: false,
            deadline: self.deadline(index, now),
            served_since: control.served_since,
            wants_since: control.wants_since,
        }
    }

    /// The most that the EVSE could use now: nothing without a transaction that may charge.
    fn demand(&self, index: EvseIndex, now: Now) -> Current {
        let evse = self.setup.topology.evse(index);
        let station = self.setup.topology.station(evse.station);
        let control = &self.evses[index.0];
        let out_of_order = matches!(control.status, Some(ConnectorStatus::Faulted | ConnectorStatus::Unavailable));
        let facts = self.ledger.station(&station.id);
        // A station that refuses a pause is never paused: it has its minimum for good.
        let nothing = if control.tether.refuses_pause() { station.min } else { Current::ZERO };
        let Some(open) = facts.and_then(|facts| facts.transaction_at(evse.number)).filter(|_| !out_of_order) else {
            return nothing;
        };
        // A 2.x transaction begins with the cable and gets its token later; until then only the station's word says that it charges.
        let flowing = Some(ChargingState::Charging) == control.charging_state
            || Some(ChargingState::SuspendedEv) == control.charging_state
            || Some(ChargingState::SuspendedEvse) == control.charging_state;
        let may_charge = match open.facts.token.as_ref() {
            Some(token) => self.authorize(token, now) == AuthorizationStatus::Accepted,
            None => flowing,
        };
        if !may_charge {
            return nothing;
        }
        let wish = &self.wishes[index.0];
        control.takes.map_or(wish.max, |takes| takes.max(wish.min)).min(wish.max)
    }

    /// Keeps who waits since when, and who is served since when.
    fn note_wishes(&mut self, now: Mono) {
        for index in 0..self.evses.len() {
            let wants = self.demand(EvseIndex(index), Now { mono: now, utc: Utc::default(), utc_trusted: false });
            let control = &mut self.evses[index];
            if wants == Current::ZERO {
                control.wants_since = None;
                control.served_since = None;
                control.takes = None;
                control.unused_since = None;
            } else {
                control.wants_since.get_or_insert(now);
            }
        }
    }

    /// Judges a fresh sample of the current: does the car leave something unused, does the station keep its limit?
    pub(super) fn judge_sample(
        &mut self,
        evse: EvseIndex,
        current: PerPhase<Current>,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let reachable = self.reachable(evse);
        let control = &mut self.evses[evse.0];
        let drawn = current.max();
        let settled = !control.tether.is_settling(now.mono);
        let Some(offered) = control.tether.offered().filter(|_| settled) else { return };
        if drawn + USES_ALL >= offered.limit {
            // It uses all it has: hand back at once.
            control.takes = None;
            control.unused_since = None;
        } else if drawn + UNUSED < offered.limit {
            let since = *control.unused_since.get_or_insert(now.mono);
            if now.mono.since(since) >= UNUSED_MS {
                control.takes = Some(drawn + UNUSED);
            }
        }
        let may = control.tether.committed(reachable, now.mono);
        let above = drawn > may + ABOVE;
        control.above_samples = if above { control.above_samples.saturating_add(1) } else { 0 };
        let samples = control.above_samples;
        let Evse { station, number, .. } = self.setup.topology.evse(evse);
        let charger = self.station_id(station).clone();
        let subject = format!("{charger}/{number}");
        match samples {
            0 => self.clear(AlarmKind::StationAboveLimit, &subject, now, out),
            2 => self.raise(
                (AlarmKind::StationAboveLimit, &subject, Severity::Error),
                format!("{charger} connector {number} draws {drawn} where it may draw {may}."),
                "It is budgeted at what it draws and told its limit again. Check the station's own settings and its phase rotation.",
                (now, out),
            ),
            _ => {}
        }
    }

    /// The offer of the last plan for an EVSE; `None` before the first plan.
    pub(super) fn offer(&self, evse: EvseIndex) -> Option<&Offer> {
        self.plan.offers.get(evse.0)
    }

    /// Ends outside limits whose time is over.
    pub(super) fn expire_limits(&mut self, now: Now, out: &mut Vec<Output>) {
        let over: Vec<_> = self
            .ledger
            .limits()
            .iter()
            .filter(|(_, outside)| outside.until.is_some_and(|until| now.utc_trusted && now.utc >= until))
            .map(|(circuit, _)| circuit.clone())
            .collect();
        for circuit in over {
            log(out, LogLevel::Info, format!("the outside limit on circuit {circuit} has ended"));
            self.record(RecordBody::LimitChanged { circuit, limit: None, until: None }, now, out);
            self.dirty = true;
        }
    }

    /// What is left on each phase of a circuit by the last plan: limit − background − committed.
    pub(super) fn room(&self, circuit: CircuitIndex) -> Option<PerPhase<Current>> {
        let state = self.plan_state.circuits.get(circuit.0)?;
        Some(state.limit - state.background - self.committed_below(circuit))
    }

    /// The committed currents of all EVSEs below a circuit, by the last plan.
    pub(super) fn committed_below(&self, circuit: CircuitIndex) -> PerPhase<Current> {
        let topology = &self.setup.topology;
        let mut sum = PerPhase::splat(Current::ZERO);
        for (index, evse) in self.plan_state.evses.iter().enumerate() {
            if topology.path_to_grid(topology.evse(EvseIndex(index)).circuit).any(|above| above == circuit) {
                sum += evse.committed;
            }
        }
        sum
    }
}
