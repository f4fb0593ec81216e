//! What drivers and operators wish, as input of the planner: who goes first, with which share, how much by when.
//!
//! For the priority a boost stands over the token's own, that over its group's, that over the station's. For the target a command
//! stands over what the car says, and that over the token's. None of it raises a limit.

use super::Site;
use super::io::Output;
use super::ledger::OpenTransaction;
use super::tokens::Verdict;
use crate::engine::model::alarm::{AlarmKind, Severity};
use crate::engine::model::exchange::{AuthorizationStatus, ChargingState, ConnectorStatus};
use crate::engine::model::ids::{IdToken, TransactionId};
use crate::engine::model::record::RecordBody;
use crate::engine::model::topology::{Evse, EvseIndex, Station};
use crate::engine::model::wish::{
    Boost, BoostEnd, CarNeeds, MAX_BOOST_MINUTES, Target, TargetEnd, TargetSource, TargetState, Wish, clock_text,
};
use crate::engine::plan::Deadline;
use crate::engine::time::{Mono, Now};
use crate::engine::units::{Current, Energy, Voltage};

/// A boosted EVSE goes before every configured priority (−100 to 100).
const BOOST_PRIORITY: i32 = 1_000;

/// A boosted EVSE has so many times its share, up to the largest weight that can be configured.
const BOOST_SHARE: u32 = 10;
const MAX_WEIGHT: u32 = 1_000;

/// Less than this is neither missing nor short: meters count in whole Wh, and a car stops a little early.
const TOLERANCE: Energy = Energy::from_wh(100);

/// A target that will not be met is told after it has been so for this long: the plan needs a few raises to settle.
const SHORT_MS: u64 = 60_000;

/// And it is on course again after it has been so for this long.
const ON_COURSE_MS: u64 = 300_000;

/// A target is steered to be met a little early, so that the last raise need not be the exact one; never by more than a tenth of the
/// time that is left.
const EARLY_MS: u64 = 300_000;

/// A phase that carries this much is one that the car uses.
const FLOWS: Current = Current::from_a(2);

/// Where a priority comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PriorityFrom {
    Station,
    Group,
    Token,
    Boost,
}

impl PriorityFrom {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Station => "station",
            Self::Group => "group",
            Self::Token => "token",
            Self::Boost => "boost",
        }
    }
}

/// What is wished of an EVSE, put together.
#[derive(Clone, Debug)]
pub(super) struct EvseWish {
    pub(super) priority: i32,
    pub(super) priority_from: PriorityFrom,
    pub(super) weight: u32,
    /// The least that it can be given: the station's, or what its car needs.
    pub(super) min: Current,
    /// The most that it shall be given, at least `min`.
    pub(super) max: Current,
    pub(super) boost: Option<Boost>,
    /// A transaction at its station has a target, or had one: seldom, and asked many times a second.
    has_target: bool,
    /// The running transaction and its token, as they were put together.
    of: Option<(TransactionId, Option<IdToken>)>,
    /// Whether and until when that token may charge.
    pub(super) verdict: Option<Verdict>,
    /// It is an unknown token's, which has had what it may.
    pub(super) used_up: bool,
    wish: Wish,
    wish_from: PriorityFrom,
    /// What the car said that it needs, until it is a target.
    needs: Option<CarNeeds>,
    /// The least current that the car said it needs.
    car_min: Option<Current>,
    /// On how many phases the car charges, as it said or as it was seen.
    phases: Option<u8>,
    /// What the last look found: how much will be missing at the departure.
    short: Energy,
    short_since: Option<Mono>,
    on_course_since: Option<Mono>,
}

impl EvseWish {
    pub(super) fn of(station: &Station) -> Self {
        Self {
            priority: station.priority,
            priority_from: PriorityFrom::Station,
            weight: station.weight,
            min: station.min,
            max: station.max,
            boost: None,
            has_target: false,
            of: None,
            verdict: None,
            used_up: false,
            wish: Wish::default(),
            wish_from: PriorityFrom::Station,
            needs: None,
            car_min: None,
            phases: None,
            short: Energy::ZERO,
            short_since: None,
            on_course_since: None,
        }
    }
}

/// A running target with what is needed to follow it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    pub(super) target: Target,
    /// What is still missing.
    pub(super) missing: Energy,
    /// What will be missing at the departure, by the last look.
    pub(super) short: Energy,
}

impl Site {
    /// Puts the wishes together again, if a record was made since.
    pub(super) fn refresh_wishes(&mut self) {
        if !std::mem::take(&mut self.wishes_stale) {
            return;
        }
        let others = std::mem::take(&mut self.tokens.changed);
        for index in 0..self.wishes.len() {
            let Evse { station, number, .. } = self.setup.topology.evse(EvseIndex(index));
            let facts = self.ledger.station(self.station_id(station));
            let open = facts.and_then(|facts| facts.transaction_at(number));
            let boost = facts.and_then(|facts| facts.boosts.get(&number)).cloned();
            let has_target = facts.is_some_and(|facts| !facts.targets.is_empty());
            let known = self.wishes[index].of.as_ref().map(|(transaction, token)| (transaction, token));
            if others || known != open.map(|open| (&open.facts.transaction, &open.facts.token)) {
                let of = open.map(|open| (open.facts.transaction.clone(), open.facts.token.clone()));
                let token = of.as_ref().and_then(|(_, token)| token.as_ref());
                self.wishes[index].verdict = token.map(|token| self.verdict(token));
                let (wish, group) = self.wish_of(of.as_ref().and_then(|(_, token)| token.as_ref()));
                self.begin_wish(index, of, (wish, group));
            }
            let station = self.setup.topology.station(station);
            let kept = &mut self.wishes[index];
            kept.boost = boost;
            kept.has_target = has_target;
            kept.combine(station);
        }
    }

    /// What goes with a token and with its group.
    fn wish_of(&self, token: Option<&IdToken>) -> (Wish, Wish) {
        let entry = token.and_then(|token| self.token_entry(token));
        if token.is_some_and(|token| self.verdict(token).limited) {
            return (Wish { max: self.setup.authorization.limited.max, ..Wish::default() }, Wish::default());
        }
        let group = entry.and_then(|entry| self.setup.groups.get(entry.group.as_deref()?));
        (entry.map(|entry| entry.wish.clone()).unwrap_or_default(), group.cloned().unwrap_or_default())
    }

    /// Another transaction, or the same one with its token known at last. What a car said before its transaction is kept for it.
    fn begin_wish(&mut self, index: usize, of: Option<(TransactionId, Option<IdToken>)>, (own, group): (Wish, Wish)) {
        let kept = &mut self.wishes[index];
        let same = match (&kept.of, &of) {
            (Some((before, _)), Some((now, _))) => before == now,
            (None, _) => true,
            (Some(_), None) => false,
        };
        if !same {
            kept.used_up = false;
            kept.needs = None;
            kept.car_min = None;
            kept.phases = None;
            kept.short = Energy::ZERO;
            kept.short_since = None;
            kept.on_course_since = None;
        }
        kept.wish_from = match (own.priority, group.priority) {
            (Some(_), _) => PriorityFrom::Token,
            (None, Some(_)) => PriorityFrom::Group,
            (None, None) => PriorityFrom::Station,
        };
        kept.wish = Wish {
            priority: own.priority.or(group.priority),
            weight: own.weight.or(group.weight),
            min: own.min.or(group.min),
            max: own.max.or(group.max),
            departure: own.departure.or(group.departure),
            energy: own.energy.or(group.energy),
        };
        kept.of = of;
    }
}

impl EvseWish {
    fn combine(&mut self, station: &Station) {
        let transaction = self.of.as_ref().map(|(transaction, _)| transaction);
        let boosted = self
            .boost
            .as_ref()
            .is_some_and(|boost| boost.transaction.is_none() || boost.transaction.as_ref() == transaction);
        let weight = self.wish.weight.unwrap_or(station.weight);
        self.priority = if boosted { BOOST_PRIORITY } else { self.wish.priority.unwrap_or(station.priority) };
        self.priority_from = if boosted { PriorityFrom::Boost } else { self.wish_from };
        self.weight = if boosted { weight.saturating_mul(BOOST_SHARE).min(MAX_WEIGHT).max(weight) } else { weight };
        // A least current that the station cannot give would be no charging at all: then the station's most is tried.
        let car = self.car_min.filter(|min| *min <= station.max);
        let min = [self.wish.min, car].into_iter().flatten().fold(station.min, Current::max);
        self.min = min.min(station.max);
        self.max = self.wish.max.map_or(station.max, |max| max.min(station.max)).max(self.min);
    }
}

impl Site {
    /// The transaction that runs at an EVSE.
    pub(super) fn open_at(&self, index: EvseIndex) -> Option<&OpenTransaction> {
        if !self.is_charging(index) {
            return None;
        }
        let evse = self.setup.topology.evse(index);
        self.ledger.station(self.station_id(evse.station))?.transaction_at(evse.number)
    }

    fn running_target(&self, index: EvseIndex) -> Option<(&OpenTransaction, Target)> {
        if !self.wishes[index.0].has_target && !self.wishes_stale {
            return None;
        }
        let open = self.open_at(index)?;
        match self.ledger.station(&open.facts.charger)?.targets.get(&open.facts.transaction)? {
            TargetState::Running(target) => Some((open, *target)),
            TargetState::Over(_) => None,
        }
    }

    /// What the transaction has got so far. As long as no register is known nothing is taken for delivered: rather too much than too little.
    pub(super) fn delivered(&self, index: EvseIndex, open: &OpenTransaction) -> Energy {
        let register = self.known_register(index, open);
        let delivered = register.zip(open.facts.meter_start).map(|(now, start)| now - start);
        delivered.unwrap_or_default().max(Energy::ZERO)
    }

    /// The running target at an EVSE and how far it is.
    pub(super) fn course(&self, index: EvseIndex) -> Option<Course> {
        let (open, target) = self.running_target(index)?;
        let missing = (target.energy - self.delivered(index, open)).max(Energy::ZERO);
        Some(Course { target, missing, short: self.wishes[index.0].short })
    }

    /// What the planner is told of the target: nothing while the calendar time is not known.
    pub(super) fn deadline(&self, index: EvseIndex, now: Now) -> Option<Deadline> {
        let Course { target, missing, .. } = self.course(index).filter(|_| now.utc_trusted)?;
        let left_ms = u64::try_from(target.departure.since(now.utc)).ok().filter(|left| *left > 0)?;
        let missing_ma_s = self.supply(index).charge_of(missing);
        (missing_ma_s > 0).then(|| Deadline { missing_ma_s, by: now.mono.plus_ms(left_ms - early_ms(left_ms)) })
    }

    /// How energy at the plug of an EVSE becomes charge on each phase.
    fn supply(&self, index: EvseIndex) -> Supply {
        let station = self.setup.topology.station(self.setup.topology.evse(index).station);
        let wired = u8::try_from(station.wiring.terminals()).unwrap_or(3).max(1);
        let used = self.wishes[index.0].phases.unwrap_or(wired).clamp(1, wired);
        let permille = station
            .dc
            .as_ref()
            .map_or(1_000_000, |dc| i64::from(dc.efficiency_permille) * i64::from(dc.power_factor_permille));
        Supply { voltage: self.setup.topology.voltage(), phases: i64::from(used), parts_per_million: permille.max(1) }
    }

    /// Looks at what only time brings: boosts that are over, targets that are met, missed, or will not be met.
    pub(super) fn watch_wishes(&mut self, now: Now, out: &mut Vec<Output>) {
        self.refresh_wishes();
        for index in (0..self.wishes.len()).map(EvseIndex) {
            self.watch_boost(index, now, out);
            self.note_phases(index, now.mono);
            self.begin_target(index, now, out);
            self.watch_target(index, now, out);
        }
    }

    fn watch_boost(&mut self, index: EvseIndex, now: Now, out: &mut Vec<Output>) {
        let boot = self.boot;
        let longest = self.started.plus_ms(MAX_BOOST_MINUTES * 60_000);
        let over = |boost: &Boost| match (boost.boot == boot, boost.trusted, now.utc_trusted) {
            (true, _, _) => now.mono >= boost.ends,
            (false, true, true) => now.utc >= boost.until,
            // The clock may come yet. One that was set without a clock, in a run that is over, cannot be timed any more.
            (false, true, false) => now.mono >= longest,
            (false, false, _) => true,
        };
        if !self.wishes[index.0].boost.as_ref().is_some_and(over) {
            return;
        }
        let Evse { station, number, .. } = self.setup.topology.evse(index);
        let charger = self.station_id(station).clone();
        self.record(RecordBody::BoostEnded { charger, evse: number, cause: BoostEnd::Expired }, now, out);
        self.dirty = true;
    }

    /// A car on one phase needs three times the current of one on three.
    fn note_phases(&mut self, index: EvseIndex, now: Mono) {
        let Some(measured) = self.fresh_measured(index, now) else { return };
        let most = measured.current.max();
        if most >= FLOWS {
            let half = Current::from_ma(most.ma() / 2);
            let used = measured.current.iter().filter(|(_, current)| **current >= half).count();
            self.wishes[index.0].phases = u8::try_from(used).ok();
        }
    }

    /// Sets the target that the car or the token brings, once it can be timed. Who may not charge has none.
    fn begin_target(&mut self, index: EvseIndex, now: Now, out: &mut Vec<Output>) {
        if !now.utc_trusted {
            return;
        }
        let kept = &self.wishes[index.0];
        if self.is_charging(index) && kept.needs.is_none() && kept.wish.departure.is_none() {
            return;
        }
        let Some(open) = self.open_at(index) else { return self.forget_needs(index) };
        let facts = self.ledger.station(&open.facts.charger);
        let known = facts.and_then(|facts| facts.targets.get(&open.facts.transaction)).copied();
        let target =
            self.target_of_car(index, known, open, now).or_else(|| self.target_of_token(index, known, open, now));
        // What cannot be used now is old later.
        self.wishes[index.0].needs = None;
        if let Some(target) = target {
            self.set_target_of(index, target, now, out);
        }
    }

    /// A car that left without a transaction leaves no needs to the next one.
    fn forget_needs(&mut self, index: EvseIndex) {
        let gone = self.evses[index.0].status == Some(ConnectorStatus::Available);
        let kept = &mut self.wishes[index.0];
        if gone && (kept.needs.is_some() || kept.car_min.is_some()) {
            (kept.needs, kept.car_min, kept.phases) = (None, None, None);
            self.wishes_stale = true;
        }
    }

    fn target_of_car(
        &self,
        index: EvseIndex,
        known: Option<TargetState>,
        open: &OpenTransaction,
        now: Now,
    ) -> Option<Target> {
        let stands = match known {
            Some(TargetState::Running(target)) => target.source == TargetSource::Command,
            Some(TargetState::Over(end)) => end == TargetEnd::Cleared,
            None => false,
        };
        let needs = self.wishes[index.0].needs.filter(|_| !stands)?;
        let departure = needs.departure.filter(|departure| *departure > now.utc)?;
        let energy = self.delivered(index, open) + needs.energy?;
        Some(Target { energy, departure, source: TargetSource::Car })
    }

    fn target_of_token(
        &self,
        index: EvseIndex,
        known: Option<TargetState>,
        open: &OpenTransaction,
        now: Now,
    ) -> Option<Target> {
        let wish = &self.wishes[index.0].wish;
        let (time, energy) = wish.departure.zip(wish.energy).filter(|_| known.is_none())?;
        if self.authorize(open.facts.token.as_ref()?, now) != AuthorizationStatus::Accepted {
            return None;
        }
        let departure = time.next_after(now.utc, self.setup.timezone)?;
        Some(Target { energy, departure, source: TargetSource::Token })
    }

    /// Records a target of the transaction that runs at the EVSE.
    pub(super) fn set_target_of(&mut self, index: EvseIndex, target: Target, now: Now, out: &mut Vec<Output>) {
        let Some(open) = self.open_at(index) else { return };
        let (charger, evse) = (open.facts.charger.clone(), open.facts.evse);
        let transaction = open.facts.transaction.clone();
        self.record(RecordBody::TargetSet { charger, evse, transaction, target }, now, out);
        let kept = &mut self.wishes[index.0];
        (kept.short, kept.short_since, kept.on_course_since) = (Energy::ZERO, None, None);
        self.dirty = true;
    }

    fn watch_target(&mut self, index: EvseIndex, now: Now, out: &mut Vec<Output>) {
        let Some(Course { target, missing, .. }) = self.course(index) else {
            return self.clear_shortfall(index, now, out);
        };
        let over = now.utc_trusted && now.utc >= target.departure;
        match (missing == Energy::ZERO, over) {
            (true, _) => self.end_target(index, TargetEnd::Met, (now, out)),
            // The last Wh are not worth a complaint.
            (false, true) if missing <= TOLERANCE => self.end_target(index, TargetEnd::Met, (now, out)),
            (false, true) => self.end_target(index, TargetEnd::Missed, (now, out)),
            (false, false) => self.forecast(index, (target, missing), (now, out)),
        }
    }

    /// Ends the target at an EVSE, if one is running.
    pub(super) fn end_target(&mut self, index: EvseIndex, cause: TargetEnd, (now, out): (Now, &mut Vec<Output>)) {
        let Some(missing) = self.course(index).map(|course| course.missing) else { return };
        let Some(open) = self.open_at(index) else { return };
        let (charger, evse) = (open.facts.charger.clone(), open.facts.evse);
        let transaction = open.facts.transaction.clone();
        let missing = Some(missing);
        self.record(RecordBody::TargetEnded { charger, evse, transaction, cause, missing }, now, out);
        self.clear_shortfall(index, now, out);
        self.dirty = true;
    }

    fn clear_shortfall(&mut self, index: EvseIndex, now: Now, out: &mut Vec<Output>) {
        let kept = &mut self.wishes[index.0];
        (kept.short, kept.short_since, kept.on_course_since) = (Energy::ZERO, None, None);
        if !self.has_alarm(AlarmKind::TargetNotMet) {
            return;
        }
        let subject = self.subject(index);
        self.clear(AlarmKind::TargetNotMet, &subject, now, out);
    }

    fn subject(&self, index: EvseIndex) -> String {
        let Evse { station, number, .. } = self.setup.topology.evse(index);
        format!("{}/{number}", self.station_id(station))
    }

    /// How much will be missing at the departure: what the planner says, and at least what the EVSE cannot give in the time that is left.
    fn shortfall(&self, index: EvseIndex, (target, missing): (Target, Energy), now: Now) -> Energy {
        let supply = self.supply(index);
        let planned = self.plan.shortfalls.iter().find(|shortfall| shortfall.evse == index);
        let wish = &self.wishes[index.0];
        let given = |current: Current, ms: u64| {
            let ms = i64::try_from(ms).unwrap_or(i64::MAX);
            supply.energy_of(i64::from(current.ma()).saturating_mul(ms) / 1_000)
        };
        let left_ms = u64::try_from(target.departure.since(now.utc)).unwrap_or(0);
        let waits = self.plan.queue.iter().any(|place| place.evse == index);
        let rate = self.offer(index).filter(|_| !waits).map_or(wish.min, |offer| offer.target);
        // The planner was told an earlier time; what flows after that counts too.
        let planned = planned.map_or(Energy::ZERO, |shortfall| {
            supply.energy_of(shortfall.missing_ma_s) - given(rate, early_ms(left_ms))
        });
        let at_most = given(self.most_that_flows(index, now.mono), left_ms);
        planned.max(missing - at_most).max(Energy::ZERO).min(missing)
    }

    /// The most that can flow at an EVSE: what it was measured to draw, if its car leaves something unused.
    fn most_that_flows(&self, index: EvseIndex, now: Mono) -> Current {
        let wish = &self.wishes[index.0];
        let demand = self.plan_state.evses.get(index.0).map_or(wish.max, |evse| evse.demand);
        if demand < wish.min || demand >= wish.max {
            return wish.max;
        }
        let drawn = self.fresh_measured(index, now).map(|measured| measured.current.max());
        drawn.filter(|drawn| *drawn >= FLOWS && *drawn < demand).unwrap_or(demand)
    }

    fn forecast(&mut self, index: EvseIndex, (target, missing): (Target, Energy), (now, out): (Now, &mut Vec<Output>)) {
        if !now.utc_trusted {
            return;
        }
        let short = self.shortfall(index, (target, missing), now);
        let short = if short <= TOLERANCE { Energy::ZERO } else { short };
        let full = self.takes_no_more(index);
        let kept = &mut self.wishes[index.0];
        kept.short = short;
        // Whose car is full is not short because of the site.
        if short == Energy::ZERO || full {
            kept.short_since = None;
            let since = *kept.on_course_since.get_or_insert(now.mono);
            if now.mono.since(since) >= ON_COURSE_MS {
                let subject = self.subject(index);
                self.clear(AlarmKind::TargetNotMet, &subject, now, out);
            }
            return;
        }
        kept.on_course_since = None;
        let since = *kept.short_since.get_or_insert(now.mono);
        if now.mono.since(since) < SHORT_MS {
            return;
        }
        let Evse { station, number, .. } = self.setup.topology.evse(index);
        let message = format!(
            "{} connector {number}: {} by {} cannot be met, short by {}.",
            self.station_id(station),
            kwh(target.energy),
            clock_text(target.departure, now.utc, self.setup.timezone),
            kwh(short)
        );
        let subject = self.subject(index);
        self.raise(
            (AlarmKind::TargetNotMet, &subject, Severity::Warning),
            message,
            "Tell the driver, boost this connector, or set a later departure or less energy; `siteward explain` says what limits it.",
            (now, out),
        );
    }

    /// The car itself says that it takes nothing.
    pub(super) fn takes_no_more(&self, index: EvseIndex) -> bool {
        let control = &self.evses[index.0];
        control.charging_state == Some(ChargingState::SuspendedEv)
            || control.status == Some(ConnectorStatus::SuspendedEv)
    }

    /// Keeps what a car said that it needs.
    pub(super) fn note_needs(&mut self, index: EvseIndex, needs: CarNeeds) {
        let station = self.setup.topology.station(self.setup.topology.evse(index).station);
        let kept = &mut self.wishes[index.0];
        kept.car_min = needs.min;
        kept.phases = needs.phases.or(kept.phases);
        kept.needs = Some(needs);
        kept.combine(station);
    }
}

/// How energy at the plug becomes charge on each phase.
#[derive(Clone, Copy, Debug)]
struct Supply {
    voltage: Voltage,
    phases: i64,
    /// Energy at the plug per apparent energy drawn: below a million for DC.
    parts_per_million: i64,
}

impl Supply {
    /// Rounded up: rather too much than too little.
    fn charge_of(self, energy: Energy) -> i64 {
        let wanted = i128::from(energy.wh()) * 3_600_000_000 * 1_000_000;
        let each = self.each();
        i64::try_from((wanted + each - 1) / each).unwrap_or(i64::MAX)
    }

    /// Rounded down.
    fn energy_of(self, charge_ma_s: i64) -> Energy {
        let wh = i128::from(charge_ma_s) * self.each() / (3_600_000_000 * 1_000_000);
        Energy::from_wh(i64::try_from(wh).unwrap_or(i64::MAX))
    }

    fn each(self) -> i128 {
        i128::from(self.voltage.mv().max(1)) * i128::from(self.phases) * i128::from(self.parts_per_million)
    }
}

/// How much earlier than its departure a target is steered to be met, with so much time left.
fn early_ms(left_ms: u64) -> u64 {
    (left_ms / 10).min(EARLY_MS)
}

/// Energy as people read it: kWh with one decimal.
pub(super) fn kwh(energy: Energy) -> String {
    let tenths = (energy.wh().max(0) + 50) / 100;
    format!("{}.{} kWh", tenths / 10, tenths % 10)
}
