//! Limits from outside: taken in, recorded, ended, and turned into what circuits and stations may still draw.
//!
//! The durable part is the ledger's: which limits stand. Here is what is known again within seconds: who has renewed its limit in this run, what
//! the dimming's contact says, which stations wait after a power cut, and how far each limit has been followed (`proofs`).

use std::collections::BTreeMap;

use serde_json::json;

use super::io::{LogLevel, Output};
use super::proofs::Following;
use super::{Restored, Site, log};
use crate::engine::model::command::CommandOutcome;
use crate::engine::model::ids::StationId;
use crate::engine::model::limit::{
    Dimming, LimitAmount, LimitEnd, LimitOrder, LimitOrigin, LimitTarget, OnLoss, OutsideLimits, ScheduledLimit,
    StandingLimit,
};
use crate::engine::model::reading::DeviceFault;
use crate::engine::model::record::RecordBody;
use crate::engine::model::setup::Setup;
use crate::engine::model::topology::{CircuitIndex, StationIndex};
use crate::engine::outside::ceiling::{self, CircuitCeiling, Lowered};
use crate::engine::outside::dimming::is_dimmed;
use crate::engine::outside::power_return::PowerReturn;
use crate::engine::time::{Mono, Now, Sampled, Utc};
use crate::engine::units::{Current, PerPhase, Power};

/// The most limits that stand on one circuit or station: more senders than this are a fault of a sender that names itself anew each time.
const MAX_ON_ONE: usize = 16;

/// The input of the dimming that is read by Modbus.
const MODBUS: &str = "modbus";

/// What the site keeps of limits from outside beside its records.
#[derive(Debug)]
pub(super) struct Outside {
    started: Mono,
    /// When each promised renewal came last in this run.
    renewed: BTreeMap<(LimitTarget, LimitOrigin), Mono>,
    contact: Option<Sampled<bool>>,
    contact_fault: Option<DeviceFault>,
    pub(super) waits: PowerReturn,
    pub(super) following: Vec<Following>,
}

impl Outside {
    pub(super) fn new(setup: &Setup, restored: &Restored, now: Mono) -> Self {
        // What is remembered lies on a RAM disk: it is gone when this machine itself was without power.
        let cold = restored.boot > 1 && restored.remembered.is_none();
        let stations = setup.topology.stations().len();
        let waits = PowerReturn::new(setup.outside.random_start_max_ms, setup.seed, stations, (cold, now));
        Self {
            started: now,
            renewed: BTreeMap::new(),
            contact: None,
            contact_fault: None,
            waits,
            following: Vec::new(),
        }
    }
}

impl Site {
    /// `limit.set`.
    pub(super) fn set_limit(&mut self, order: LimitOrder, now: Now, out: &mut Vec<Output>) -> CommandOutcome {
        if let Err(error) = self.check_order(&order, now) {
            return CommandOutcome::Rejected { error };
        }
        if order.heartbeat.is_some() {
            let key = (order.target.clone(), order.origin.clone());
            // The first one after a restart shows that the sender lives: its own amount holds again.
            self.dirty |= self.outside.renewed.insert(key, now.mono).is_none();
        }
        let data = self.floor_note(&order);
        let known = self.ledger.limit(&order.target, &order.origin);
        // A renewal changes nothing: it makes no record, however often it comes.
        if known.is_none_or(|known| known.lost || known.order != order) {
            self.begin_limit(order, now, out);
        }
        CommandOutcome::Accepted { data }
    }

    /// `limit.clear`.
    pub(super) fn clear_limit(
        &mut self,
        target: &LimitTarget,
        origin: &LimitOrigin,
        now: Now,
        out: &mut Vec<Output>,
    ) -> CommandOutcome {
        if let Err(error) = self.check_target(target) {
            return CommandOutcome::Rejected { error };
        }
        self.end_limit(target, origin, LimitEnd::Cleared, (now, out));
        CommandOutcome::Accepted { data: None }
    }

    /// `site.dim`.
    pub(super) fn dim(
        &mut self,
        active: bool,
        until: Option<Utc>,
        input: String,
        (now, out): (Now, &mut Vec<Output>),
    ) -> CommandOutcome {
        let Some(dimming) = self.setup.outside.dimming.clone() else {
            let error = "the site cannot be dimmed: add [dimming] to site.toml".to_owned();
            return CommandOutcome::Rejected { error };
        };
        if active && until.is_some_and(|until| now.utc_trusted && until <= now.utc) {
            return CommandOutcome::Rejected { error: "`until` is in the past".to_owned() };
        }
        self.set_dimmed(active, until, (&dimming, input), (now, out));
        let data = active.then(|| json!({ "charging_w": dimming.power.w() }).to_string());
        CommandOutcome::Accepted { data }
    }

    /// `delay.clear`.
    pub(super) fn clear_delay(&mut self, charger: &StationId, now: Now, out: &mut Vec<Output>) -> CommandOutcome {
        let Some(station) = self.setup.topology.find_station(charger) else {
            return CommandOutcome::Rejected { error: format!("there is no charger {charger} in site.toml") };
        };
        if self.outside.waits.held_until(station.0, now.mono).is_some() {
            log(out, LogLevel::Info, format!("{charger} does not wait any longer after the power cut"));
        }
        self.start_now(station);
        CommandOutcome::Accepted { data: None }
    }

    /// Ends the wait of a station after a power cut: somebody wants it to charge now.
    pub(super) fn start_now(&mut self, station: StationIndex) {
        self.outside.waits.release(station.0);
        self.dirty = true;
    }

    /// The dimming's contact was read, or not.
    pub(super) fn contact_polled(
        &mut self,
        asked_at: Mono,
        result: Result<bool, DeviceFault>,
        (now, out): (Now, &mut Vec<Output>),
    ) {
        match result {
            Ok(active) => {
                if self.outside.contact_fault.take().is_some() {
                    log(out, LogLevel::Info, "the dimming's input can be read again".to_owned());
                }
                self.outside.contact = Some(Sampled::new(active, asked_at));
            }
            Err(fault) => {
                if self.outside.contact_fault.as_ref() != Some(&fault) {
                    log(out, LogLevel::Warn, format!("the dimming's input cannot be read: {fault}"));
                }
                self.outside.contact_fault = Some(fault);
            }
        }
        self.judge_contact(now, out);
    }

    fn judge_contact(&mut self, now: Now, out: &mut Vec<Output>) {
        let Some(dimming) = self.setup.outside.dimming.clone() else { return };
        let Some(input) = dimming.input else { return };
        let target = LimitTarget::Circuit(dimming.circuit.clone());
        let before = self.ledger.limit(&target, &LimitOrigin::Dimming(MODBUS.to_owned())).is_some();
        let times = (self.outside.started, now.mono);
        let active = is_dimmed(input, self.outside.contact.as_ref(), before, times);
        self.set_dimmed(active, None, (&dimming, MODBUS.to_owned()), (now, out));
    }

    fn set_dimmed(
        &mut self,
        active: bool,
        until: Option<Utc>,
        (dimming, input): (&Dimming, String),
        (now, out): (Now, &mut Vec<Output>),
    ) {
        let target = LimitTarget::Circuit(dimming.circuit.clone());
        let origin = LimitOrigin::Dimming(input);
        if !active {
            return self.end_limit(&target, &origin, LimitEnd::Cleared, (now, out));
        }
        let amount = LimitAmount::Charging(dimming.power);
        let order = LimitOrder { target, origin, amount, until, heartbeat: None };
        if self.ledger.limit(&order.target, &order.origin).is_none_or(|known| known.order != order) {
            self.begin_limit(order, now, out);
        }
    }

    fn check_target(&self, target: &LimitTarget) -> Result<(), String> {
        let known = match target {
            LimitTarget::Circuit(id) => self.setup.topology.find_circuit(id).is_some(),
            LimitTarget::Charger(id) => self.setup.topology.find_station(id).is_some(),
        };
        if known { Ok(()) } else { Err(format!("there is no {target} in site.toml")) }
    }

    fn check_order(&self, order: &LimitOrder, now: Now) -> Result<(), String> {
        self.check_target(&order.target)?;
        self.check_amount(&order.target, order.amount)?;
        if let Some(OnLoss::Fallback(fallback)) = order.heartbeat.map(|heartbeat| heartbeat.on_loss) {
            self.check_amount(&order.target, fallback)?;
        }
        if order.until.is_some_and(|until| now.utc_trusted && until <= now.utc) {
            return Err("`until` is in the past".to_owned());
        }
        let others =
            |standing: &&StandingLimit| standing.order.target == order.target && standing.order.origin != order.origin;
        let count = self.ledger.limits().iter().filter(others).count();
        if count >= MAX_ON_ONE {
            return Err(format!("{} has {MAX_ON_ONE} limits of different sources already: clear one", order.target));
        }
        Ok(())
    }

    fn check_amount(&self, target: &LimitTarget, amount: LimitAmount) -> Result<(), String> {
        let topology = &self.setup.topology;
        let configured = match target {
            LimitTarget::Circuit(id) => topology.find_circuit(id).map(|index| topology.circuit(index).limit.max()),
            LimitTarget::Charger(id) => topology.find_station(id).map(|index| topology.station(index).max),
        };
        let most = configured.unwrap_or_default();
        let (too_much, most) = match amount {
            LimitAmount::PerPhase(limit) => (limit > most || limit < Current::ZERO, most.to_string()),
            LimitAmount::Total(power) | LimitAmount::Charging(power) => {
                let evses = match target {
                    LimitTarget::Circuit(_) => 1,
                    LimitTarget::Charger(id) => {
                        topology.find_station(id).map_or(1, |index| topology.station(index).evse_count)
                    }
                };
                let one = ceiling::three_phase(most, topology.voltage()).w();
                let most = Power::from_w(one.saturating_mul(i64::try_from(evses).unwrap_or(i64::MAX)));
                (power > most || power < Power::ZERO, most.to_string())
            }
            LimitAmount::Permille(permille) => (permille > 1_000, "100 %".to_owned()),
        };
        if too_much {
            return Err(format!(
                "a limit on {target} must be from 0 to its configured {most}: it can be lowered, never raised"
            ));
        }
        Ok(())
    }

    /// What is said to a sender whose limit is below the circuit's floor.
    fn floor_note(&self, order: &LimitOrder) -> Option<String> {
        let LimitTarget::Circuit(id) = &order.target else { return None };
        let floor = *self.setup.outside.floors.get(id)?;
        let index = self.setup.topology.find_circuit(id)?;
        let circuit = self.setup.topology.circuit(index);
        let voltage = self.setup.topology.voltage();
        let asked = ceiling::at_least(order.amount, circuit, None, voltage);
        match ceiling::at_least(order.amount, circuit, Some(floor), voltage) {
            given if given == asked => None,
            Lowered::Phases(limit) => {
                Some(json!({ "floor_a": floor.as_a(), "limit_a": limit.max().as_a() }).to_string())
            }
            Lowered::Total(power) | Lowered::Charging(power) => {
                Some(json!({ "floor_a": floor.as_a(), "limit_w": power.w() }).to_string())
            }
        }
    }

    fn begin_limit(&mut self, order: LimitOrder, now: Now, out: &mut Vec<Output>) {
        self.put_limit(StandingLimit { order, lost: false, received: now.utc }, now, out);
    }

    fn put_limit(&mut self, standing: StandingLimit, now: Now, out: &mut Vec<Output>) {
        let StandingLimit { order, lost, .. } = &standing;
        let why = if *lost { "; its sender has gone silent" } else { "" };
        log(
            out,
            LogLevel::Info,
            format!("{} is limited to {} by {}{why}", order.target, standing.in_force(), order.origin),
        );
        let (target, origin, amount) = (order.target.clone(), order.origin.clone(), standing.in_force());
        self.recall_raises(None, now.mono);
        let sequence = self.record(RecordBody::OutsideLimit(standing), now, out);
        self.follow(sequence, (target, origin, amount), now, out);
        self.dirty = true;
    }

    fn end_limit(
        &mut self,
        target: &LimitTarget,
        origin: &LimitOrigin,
        why: LimitEnd,
        (now, out): (Now, &mut Vec<Output>),
    ) {
        if self.ledger.limit(target, origin).is_none() {
            return;
        }
        self.outside.renewed.remove(&(target.clone(), origin.clone()));
        self.unfollow(target, origin, now, out);
        log(out, LogLevel::Info, format!("the limit on {target} by {origin} has ended ({})", why.name()));
        self.record(RecordBody::OutsideLimitEnded { target: target.clone(), origin: origin.clone(), why }, now, out);
        self.dirty = true;
    }

    /// Once a second: what time alone begins and ends.
    pub(super) fn outside_tick(&mut self, now: Now, out: &mut Vec<Output>) {
        self.end_limits(now, out);
        self.turn_schedules(now, out);
        self.judge_contact(now, out);
        self.outside.waits.tidy(now.mono);
    }

    /// Ends what is over, what has lost its sender, and what is no longer configured.
    fn end_limits(&mut self, now: Now, out: &mut Vec<Output>) {
        for standing in self.ledger.limits().to_vec() {
            let StandingLimit { order, lost, .. } = &standing;
            // Without a trusted clock nothing ends by the calendar: a limit only lowers, so keeping it is safe.
            let over = order.until.is_some_and(|until| now.utc_trusted && now.utc >= until);
            let end = if self.is_configured(order) {
                over.then_some(LimitEnd::Expired)
            } else {
                Some(LimitEnd::NotConfigured)
            };
            if let Some(why) = end {
                self.end_limit(&order.target, &order.origin, why, (now, out));
                continue;
            }
            let Some(heartbeat) = order.heartbeat.filter(|_| !lost) else { continue };
            let key = (order.target.clone(), order.origin.clone());
            let last = self.outside.renewed.get(&key).copied().unwrap_or(self.outside.started);
            if now.mono.since(last) < heartbeat.ttl_ms {
                continue;
            }
            match heartbeat.on_loss {
                OnLoss::Release => self.end_limit(&order.target, &order.origin, LimitEnd::SenderLost, (now, out)),
                OnLoss::Hold | OnLoss::Fallback(_) => {
                    self.put_limit(StandingLimit { lost: true, ..standing }, now, out);
                }
            }
        }
    }

    fn is_configured(&self, order: &LimitOrder) -> bool {
        let outside = &self.setup.outside;
        self.check_target(&order.target).is_ok()
            && match &order.origin {
                LimitOrigin::Cloud | LimitOrigin::Local | LimitOrigin::Named(_) => true,
                LimitOrigin::Schedule(name) => {
                    outside.schedules.iter().any(|schedule| schedule.name == *name && schedule.target == order.target)
                }
                LimitOrigin::Dimming(input) => outside.dimming.as_ref().is_some_and(|dimming| {
                    LimitTarget::Circuit(dimming.circuit.clone()) == order.target
                        && (input != MODBUS || dimming.input.is_some())
                }),
            }
    }

    fn turn_schedules(&mut self, now: Now, out: &mut Vec<Output>) {
        for index in 0..self.setup.outside.schedules.len() {
            let ScheduledLimit { name, target, amount, window } = self.setup.outside.schedules[index].clone();
            let dice = self.setup.seed ^ u64::try_from(index).unwrap_or(0);
            // Without a trusted clock any window may be the one of now: all hold, so that the strictest counts.
            let holds = !now.utc_trusted || window.holds(self.setup.timezone, now.utc, dice);
            let origin = LimitOrigin::Schedule(name);
            if !holds {
                self.end_limit(&target, &origin, LimitEnd::Expired, (now, out));
                continue;
            }
            let order = LimitOrder { target, origin, amount, until: None, heartbeat: None };
            if self.ledger.limit(&order.target, &order.origin).is_none_or(|known| known.order != order) {
                self.begin_limit(order, now, out);
            }
        }
    }

    /// What holds of a limit now. After a restart nobody knows whether its sender still lives: the lower of both counts until it is renewed.
    fn amounts_in_force<'a>(&'a self, standing: &'a StandingLimit) -> impl Iterator<Item = LimitAmount> + 'a {
        let order = &standing.order;
        let renewed = self.outside.renewed.contains_key(&(order.target.clone(), order.origin.clone()));
        let fallback = match order.heartbeat.filter(|_| !renewed && !standing.lost).map(|heartbeat| heartbeat.on_loss) {
            Some(OnLoss::Fallback(fallback)) => Some(fallback),
            Some(OnLoss::Hold | OnLoss::Release) | None => None,
        };
        [Some(self.recorded_amount(standing)), fallback].into_iter().flatten()
    }

    /// How much a limit leaves by its record.
    fn recorded_amount(&self, standing: &StandingLimit) -> LimitAmount {
        match (&standing.order.origin, &self.setup.outside.dimming) {
            // The configuration may have changed since the dimming began.
            (LimitOrigin::Dimming(_), Some(dimming)) => LimitAmount::Charging(dimming.power),
            _ => standing.in_force(),
        }
    }

    fn limits_on<'a>(&'a self, target: &'a LimitTarget) -> impl Iterator<Item = (LimitAmount, &'a LimitOrigin)> + 'a {
        let on = self.ledger.limits().iter().filter(move |standing| standing.order.target == *target);
        on.flat_map(|standing| self.amounts_in_force(standing).map(|amount| (amount, &standing.order.origin)))
    }

    /// What limits from outside leave of a circuit.
    pub(super) fn circuit_ceiling<'a>(&'a self, circuit: CircuitIndex, target: &'a LimitTarget) -> CircuitCeiling<'a> {
        let configured = self.setup.topology.circuit(circuit);
        let floor = self.setup.outside.floors.get(&configured.id).copied();
        ceiling::of_circuit(configured, floor, self.setup.topology.voltage(), self.limits_on(target))
    }

    /// The most that each EVSE of a station may be offered, and who lowers it; `None`: nobody does.
    pub(super) fn station_ceiling(&self, station: StationIndex) -> Option<(Current, LimitOrigin)> {
        if self.ledger.limits().is_empty() {
            return None;
        }
        let settings = self.setup.topology.station(station);
        let target = LimitTarget::Charger(settings.id.clone());
        let lowest = ceiling::of_station(settings, self.setup.topology.voltage(), self.limits_on(&target));
        lowest.map(|(current, origin)| (current, origin.clone()))
    }

    /// The most that each EVSE of a station may be offered now.
    pub(super) fn station_max(&self, station: StationIndex) -> Current {
        let max = self.setup.topology.station(station).max;
        self.station_ceiling(station).map_or(max, |(ceiling, _)| ceiling.min(max))
    }

    /// Until when a station is not raised after a power cut.
    pub(super) fn waits_until(&self, station: StationIndex, now: Mono) -> Option<Mono> {
        self.outside.waits.held_until(station.0, now)
    }

    /// A station has booted.
    pub(super) fn booted_after_cut(&mut self, station: StationIndex, now: Now, out: &mut Vec<Output>) {
        for index in self.outside.waits.booted(station.0, now.mono) {
            let until = self.outside.waits.held_until(index, now.mono);
            let seconds = until.map_or(0, |until| until.since(now.mono) / 1_000);
            let charger = self.station_id(StationIndex(index));
            log(out, LogLevel::Info, format!("{charger} starts {seconds} s from now: the power was away"));
            self.dirty = true;
        }
    }

    /// What limits from outside leave of a circuit by what is recorded. What is planned with is never above it, and below it while
    /// nobody knows whether a sender still lives.
    #[must_use]
    pub fn recorded_limits(&self, circuit: CircuitIndex) -> OutsideLimits {
        let configured = self.setup.topology.circuit(circuit);
        let target = LimitTarget::Circuit(configured.id.clone());
        let on = self.ledger.limits().iter().filter(|standing| standing.order.target == target);
        let limits = on.map(|standing| (self.recorded_amount(standing), &standing.order.origin));
        let floor = self.setup.outside.floors.get(&configured.id).copied();
        let ceiling = ceiling::of_circuit(configured, floor, self.setup.topology.voltage(), limits);
        OutsideLimits {
            current: ceiling.limit_by.map(|_| ceiling.limit),
            power: ceiling.total.filter(|_| ceiling.total_by.is_some()),
            charging: ceiling.charging,
        }
    }

    /// What limits from outside leave of a circuit: its limit on each phase, the power of all that flows where that was lowered, and the
    /// power of all stations below.
    pub(super) fn circuit_limits(&self, circuit: CircuitIndex) -> (PerPhase<Current>, Option<Power>, Option<Power>) {
        let target = LimitTarget::Circuit(self.setup.topology.circuit(circuit).id.clone());
        let ceiling = self.circuit_ceiling(circuit, &target);
        (ceiling.limit, ceiling.total.filter(|_| ceiling.total_by.is_some()), ceiling.charging)
    }
}
