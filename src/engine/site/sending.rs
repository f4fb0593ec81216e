//! Limits on their way to stations: what is sent when, and what the answers mean.
//!
//! Always the newest limit leaves. What waits in the station's queue and is not the newest any more is taken back; what has left and is not
//! answered is overtaken by a cut after [`CUT_WAIT_MS`](crate::engine::ocpp::CUT_WAIT_MS), and counts as long as the station may still
//! carry it out.

use super::io::{Output, WITHHELD};
use super::tether::{Pending, SentLimit, Told};
use super::writes::{Reason, allows, stretched};
use super::{Purpose, Site};
use crate::engine::model::alarm::{AlarmKind, Severity};
use crate::engine::model::exchange::{LeasedLimit, ProfilePart, StationCall, StationReply, WrittenIn};
use crate::engine::model::ids::TransactionId;
use crate::engine::model::record::RecordBody;
use crate::engine::model::topology::{Evse, EvseIndex, LeaseForm, LimitUnit, Station, StationIndex};
use crate::engine::ocpp::{CallKey, Priority};
use crate::engine::time::{Mono, Now};
use crate::engine::units::Current;

/// A raise smaller than this waits for the next renewal.
const RAISE_STEP: Current = Current::from_a(1);

/// A cut smaller than this waits for the next renewal, unless a circuit is full.
const CUT_STEP: Current = Current::from_ma(500);

/// Between two raises of one EVSE. A car needs 5 s to follow the first (IEC 61851-1), and a meter value to show it.
const RAISE_PAUSE_MS: u64 = 5_000;

/// After a refused limit the next try waits so long.
const REFUSED_PAUSE_MS: u64 = 10_000;

/// So many limits of one EVSE wait for their answers at most: one that hangs, one that overtakes it, one that waits.
const MOST_PENDING: usize = 3;

/// A station that has not answered a limit after so long is planned around: longer than the slowest link that is in use takes (two ways of 3 s), and
/// in time for the cuts of others.
pub(super) const ANSWERS_WITHIN_MS: u64 = 8_000;

/// After the last renewal everywhere, the clocks, the message and the car take this long at most until every lease has stepped down.
const STEP_DOWN_SPREAD_MS: u64 = 30_000;

impl Site {
    /// What leases need of each other, and what is known of them from earlier runs. Once, at the start.
    pub(super) fn begin_leases(&mut self, now: Now) {
        let terms = |station: &Station| {
            let model = &station.model;
            let (renew_ms, lease_ms) =
                stretched(model.writes_per_day, station.evse_count, (model.renew_ms, model.lease_ms));
            (renew_ms, model.holds_ms(lease_ms))
        };
        let all = || self.setup.topology.stations().iter().map(terms);
        let longest_renewal = all().map(|(renew_ms, _)| renew_ms).max().unwrap_or(0);
        let longest_lease = all().map(|(_, lease_ms)| lease_ms).max().unwrap_or(0);
        let outlasts_ms = longest_lease + longest_renewal + STEP_DOWN_SPREAD_MS;
        for control in &mut self.evses {
            control.tether.outlast(outlasts_ms, now.mono);
        }
        for index in 0..self.stations.len() {
            self.begin_proof(StationIndex(index), now);
        }
        // What the run before gave to a transaction that still runs is in force.
        for index in (0..self.evses.len()).map(EvseIndex) {
            self.evses[index.0].limited_transaction = self.transaction_of(index).cloned();
        }
    }

    /// The transaction at an EVSE, as far as it is known.
    pub(super) fn transaction_of(&self, evse: EvseIndex) -> Option<&TransactionId> {
        let Evse { station, number, .. } = self.setup.topology.evse(evse);
        let facts = self.ledger.station(self.station_id(station))?;
        facts.transaction_at(number).map(|open| &open.facts.transaction)
    }

    /// Follows the transactions where limits hang on them. Before each plan.
    pub(super) fn follow_transactions(&mut self, now: Mono) {
        for index in 0..self.evses.len() {
            self.evses[index].tether.forget_refusals(now);
            if self.evses[index].tether.form() != LeaseForm::TxProfile {
                continue;
            }
            let running = self.transaction_of(EvseIndex(index)).cloned();
            let control = &mut self.evses[index];
            if control.limited_transaction != running {
                control.limited_transaction = running;
                control.tether.transaction_changed();
            }
        }
    }

    /// What an EVSE is to be given by the plan, as its station can take it.
    fn wanted(&self, evse: EvseIndex, now: Mono) -> Current {
        let control = &self.evses[evse.0];
        let settings = self.setup.topology.station(self.setup.topology.evse(evse).station);
        let planned = self.plan.offers[evse.0].limit.min(self.commission_cap(evse));
        let limit = at_a_level(planned, settings);
        // A pause that is about to be over counts at its fallback already, and what was not answered may not be in force: to give that out
        // would still be a raise.
        let least = control.tether.least(None, now);
        let may = control.tether.committed(true, now).min(least);
        let up_to = |most: Current, limit: Current| {
            if limit.min(most) < settings.min { Current::ZERO } else { limit.min(most) }
        };
        let limit = match limit {
            _ if self.keeps_waiting(evse, now) => match control.tether.pending() {
                Some(pending) => pending.sent.limit,
                // A connector beside the one that waits keeps what it has. What it counts at may be more, while a cut is on its way to its car.
                None => up_to(may, control.tether.offered().map_or(limit, |last| last.limit)),
            },
            // What refuses everything is tried with the least that every station knows.
            _ if control.tether.refused_at().is_some() => up_to(may, settings.min),
            // What does not keep its limit is told the same again, its minimum where a circuit is too full, or to stop where nobody wants to
            // charge. Its samples may also come from a queue, and its lease may be over since: the same would be a raise then.
            _ if control.conduct.is_above() => match self.plan_state.evses[evse.0].demand {
                Current::ZERO => Current::ZERO,
                _ => {
                    let last = control.tether.offered().map_or(settings.min, |last| last.limit);
                    let last = if self.is_too_full_above(evse) { last.min(settings.min) } else { last };
                    up_to(may, last.min(self.commission_cap(evse)))
                }
            },
            Current::ZERO if control.tether.refuses_pause() => settings.min,
            // What it counted with while it was silent is not given to it either before the meters have shown who drew it.
            limit if self.is_doubted(evse, now) => up_to(may, limit),
            limit => limit,
        };
        let is_full = || self.is_too_full_above(evse) || self.is_unbalanced_above(evse);
        if limit > least && is_full() { up_to(least, limit) } else { limit }
    }

    /// Whether its station leaves a limit without an answer for so long that nobody can count on what that may free.
    pub(super) fn keeps_waiting(&self, evse: EvseIndex, now: Mono) -> bool {
        let topology = &self.setup.topology;
        let waits_since = |evse: EvseIndex| self.evses[evse.0].tether.waits_since();
        let mut evses = topology.evses_of(topology.evse(evse).station);
        evses.any(|evse| waits_since(evse).is_some_and(|since| now.since(since) >= ANSWERS_WITHIN_MS))
    }

    /// What is to be sent to an EVSE now, if anything.
    pub(super) fn to_send(&self, evse: EvseIndex, full: bool, now: Mono) -> Option<(Current, Priority)> {
        let control = &self.evses[evse.0];
        let station = self.setup.topology.evse(evse).station;
        let settings = self.setup.topology.station(station);
        let tether = &control.tether;
        let refused = tether.refused_at().is_some_and(|at| now.since(at) < REFUSED_PAUSE_MS);
        if self.stations[station.0].session.is_none() || refused || self.is_silenced(station) {
            return None;
        }
        if let Some(pending) = tether.pending() {
            return self.to_replace(evse, pending, full, now).filter(|_| self.reachable(evse));
        }
        if tether.needs_base() {
            return self.may_write(evse, Reason::First, now).then_some((settings.fallback, Priority::Urgent));
        }
        if tether.form() == LeaseForm::TxProfile && control.limited_transaction.is_none() {
            return None;
        }
        let last = tether.offered();
        if !self.reachable(evse) {
            return self.probe(evse, last, now);
        }
        let wanted = self.wanted(evse, now);
        let Some(last) = last.filter(|_| !tether.needs_limit()) else {
            return self.may_write(evse, Reason::First, now).then_some((wanted, Priority::Urgent));
        };
        let (reason, priority) = self.reason(evse, (wanted, last), full, now)?;
        let wanted = if wanted > last.limit { self.at_a_pace(evse, wanted, last.limit) } else { wanted };
        self.may_write(evse, reason, now).then_some((wanted, priority))
    }

    /// Why `wanted` is to be sent where `last` was sent, if it is.
    fn reason(
        &self,
        evse: EvseIndex,
        (wanted, last): (Current, SentLimit),
        full: bool,
        now: Mono,
    ) -> Option<(Reason, Priority)> {
        let control = &self.evses[evse.0];
        let settings = self.setup.topology.station(self.setup.topology.evse(evse).station);
        if wanted < last.limit && (full || last.limit - wanted >= CUT_STEP || wanted == Current::ZERO) {
            let reason = if self.is_too_full_above(evse) { Reason::Safety } else { Reason::Cut };
            return Some((reason, Priority::Urgent));
        }
        // A pause that nobody renewed has stepped up to the fallback; where that does not fit, it is made again.
        if wanted <= last.limit
            && now >= last.steps_at
            && last.limit < settings.fallback
            && self.is_too_full_above(evse)
        {
            return Some((Reason::Safety, Priority::Urgent));
        }
        let (renew_ms, _) = self.terms(evse);
        // A lease that was given for a shorter time, in a commissioning test, is renewed before it is over.
        let lasts_ms = last.steps_at.since(last.sent_at);
        let renew_ms = if lasts_ms < 2 * renew_ms { renew_ms.min(lasts_ms / 4) } else { renew_ms };
        let due = now.since(last.sent_at) >= renew_ms;
        // Above its limit, nothing that was sent last was answered, or something overtaken may have come into force: told again at once.
        let unsure = control.conduct.is_above() || control.tether.is_unsure();
        let told_again = unsure && now.since(last.sent_at) >= REFUSED_PAUSE_MS;
        if told_again || control.tether.has_straggled(now) {
            return Some((Reason::Safety, Priority::Normal));
        }
        let rested = control.raised_at.is_none_or(|at| now.since(at) >= RAISE_PAUSE_MS) || last.limit == Current::ZERO;
        let wanted = if wanted > last.limit { self.at_a_pace(evse, wanted, last.limit) } else { wanted };
        let raise = wanted > last.limit && rested && (wanted - last.limit >= RAISE_STEP || last.limit == Current::ZERO);
        if raise {
            return Some((Reason::Raise(wanted - last.limit), Priority::Normal));
        }
        due.then_some((Reason::Renewal, Priority::Normal))
    }

    /// A raise from what was sent last, as far as the number of changes allows it, at a level that the station knows.
    fn at_a_pace(&self, evse: EvseIndex, wanted: Current, last: Current) -> Current {
        let settings = self.setup.topology.station(self.setup.topology.evse(evse).station);
        at_a_level(self.paced(evse, wanted), settings).max(last)
    }

    /// What is to be sent although an answer is awaited: in place of what has not left yet, whatever is newer; behind what hangs, a cut.
    fn to_replace(&self, evse: EvseIndex, pending: Pending, full: bool, now: Mono) -> Option<(Current, Priority)> {
        if pending.told == Told::Base {
            return None;
        }
        let (wanted, sent) = (self.wanted(evse, now), pending.sent.limit);
        let cut = wanted < sent && (full || sent - wanted >= CUT_STEP || wanted == Current::ZERO);
        if cut && self.evses[evse.0].tether.pending_count() < MOST_PENDING {
            return Some((wanted, Priority::Urgent));
        }
        let raise = wanted >= sent + RAISE_STEP && self.is_queued(evse, pending);
        raise.then_some((wanted, Priority::Normal))
    }

    pub(super) fn is_queued(&self, evse: EvseIndex, pending: Pending) -> bool {
        let station = self.setup.topology.evse(evse).station;
        let session = self.stations[station.0].session.as_ref();
        session.is_some_and(|(_, session)| session.is_queued(CallKey(pending.call)))
    }

    /// How often limits of an EVSE are renewed and how long their lease lasts, in ms.
    pub(super) fn terms(&self, evse: EvseIndex) -> (u64, u64) {
        let index = self.setup.topology.evse(evse).station;
        if self.has_test_leases(index) {
            return self.commission_terms(index);
        }
        let station = self.setup.topology.station(index);
        let model = &station.model;
        stretched(model.writes_per_day, station.evse_count, (model.renew_ms, model.lease_ms))
    }

    /// Whether the station's budget of writes allows it.
    fn may_write(&self, evse: EvseIndex, reason: Reason, now: Mono) -> bool {
        let station = self.setup.topology.evse(evse).station;
        let budget = self.setup.topology.station(station).model.writes_per_day;
        allows(budget, self.stations[station.0].writes.in_a_day(now), reason)
    }

    /// Whether a circuit above an EVSE carries more than it may, on one of its phases or in one of its powers.
    pub(super) fn is_too_full_above(&self, evse: EvseIndex) -> bool {
        let Evse { station, circuit, .. } = self.setup.topology.evse(evse);
        let phases = self.setup.topology.station(station).wiring.phases();
        self.setup.topology.path_to_grid(circuit).any(|circuit| {
            let state = self.plan_state.circuits.get(circuit.0);
            state.is_some_and(|state| self.is_too_full(circuit, state, phases))
        })
    }

    /// What an EVSE is sent whose station did not answer the last call: no more than it has, now and then; and the least at once where a
    /// circuit above it is too full, since it may obey all the same.
    fn probe(&self, evse: EvseIndex, last: Option<SentLimit>, now: Mono) -> Option<(Current, Priority)> {
        let settings = self.setup.topology.station(self.setup.topology.evse(evse).station);
        // What was sent last may be over.
        let has = last.map_or(Current::ZERO, |last| last.limit.min(self.evses[evse.0].tether.least(None, now)));
        let least = if self.evses[evse.0].tether.refuses_pause() { settings.min } else { Current::ZERO };
        let wanted = match has {
            has if has < settings.min => Current::ZERO,
            _ if self.is_too_full_above(evse) => least,
            has => has,
        };
        if wanted < has {
            return Some((wanted, Priority::Urgent));
        }
        let (renew_ms, _) = self.terms(evse);
        let due = last.is_none_or(|last| now.since(last.sent_at) >= renew_ms);
        (due && self.may_write(evse, Reason::Renewal, now)).then_some((wanted, Priority::Normal))
    }

    pub(super) fn send_limit(
        &mut self,
        evse: EvseIndex,
        limit: Current,
        priority: Priority,
        (now, out): (Now, &mut Vec<Output>),
    ) {
        let Evse { station, .. } = self.setup.topology.evse(evse);
        self.withdraw_queued(evse);
        let call = self.last_call + 1;
        if self.evses[evse.0].tether.needs_base() {
            let base = self.leased(evse, (Current::ZERO, 0), ProfilePart::Base, now);
            self.evses[evse.0].tether.base_sent(call, now.mono);
            self.stations[station.0].writes.count(now.mono);
            return self.call(station, StationCall::SetLimit(base), (Priority::Urgent, Purpose::Limit(evse)), now, out);
        }
        let minimum = self.setup.topology.station(station).min;
        assert!(limit == Current::ZERO || limit >= minimum, "an offer between zero and the minimum must not leave");
        let part = match (self.evses[evse.0].tether.form(), self.transaction_of(evse)) {
            (LeaseForm::TxDefaultProfile | LeaseForm::Auto | LeaseForm::None, _) => ProfilePart::Decaying,
            (LeaseForm::TwoLevels, _) => ProfilePart::Expiring,
            (LeaseForm::MaxOfflineDuration, _) => ProfilePart::UntilOffline,
            (LeaseForm::TxProfile, Some(transaction)) => ProfilePart::OfTransaction(transaction.clone()),
            (LeaseForm::TxProfile, None) => return,
        };
        self.note_turn(evse, limit, now.mono);
        let (_, lease_ms) = self.terms(evse);
        #[cfg(feature = "sabotage")]
        let is_lasting = self.breaks(super::sabotage::Sabotage::NoLease);
        #[cfg(not(feature = "sabotage"))]
        let is_lasting = false;
        let tether = &self.evses[evse.0].tether;
        let lasts_ms = if is_lasting { 86_400_000 } else { tether.stretched_ms(limit, lease_ms) };
        let is_raised = tether.offered().is_some_and(|before| limit > before.limit);
        let lease = self.leased(evse, (limit, lasts_ms), part, now);
        self.evses[evse.0].tether.sent(call, limit, lasts_ms, now.mono);
        if is_raised {
            self.raised(evse, limit, now.mono);
        }
        self.stations[station.0].writes.count(now.mono);
        self.call(station, StationCall::SetLimit(lease), (priority, Purpose::Limit(evse)), now, out);
    }

    /// A limit as it is written for the station's model and clock.
    fn leased(&self, evse: EvseIndex, (limit, lasts_ms): (Current, u64), part: ProfilePart, now: Now) -> LeasedLimit {
        let Evse { station, number, .. } = self.setup.topology.evse(evse);
        let settings = self.setup.topology.station(station);
        LeasedLimit {
            evse: number,
            limit,
            fallback: settings.fallback,
            now: self.station_time(station, now),
            lasts_ms,
            stack_level: settings.model.stack_level,
            phases: u32::try_from(settings.wiring.terminals()).unwrap_or(3),
            part,
            unit: self.written_in(station),
        }
    }

    /// The unit in which a station is given its limits. Where that is watts, an ampere is worth what it is at the nominal voltage on all
    /// of the station's phases (OCPP 1.6 §7.14); at a DC station, what of it arrives at the output.
    pub(super) fn written_in(&self, station: StationIndex) -> WrittenIn {
        let settings = self.setup.topology.station(station);
        let phases = i64::try_from(settings.wiring.terminals()).unwrap_or(3);
        let mw_per_a = i64::from(self.setup.topology.voltage().mv()).saturating_mul(phases);
        match (settings.dc, settings.model.limit_unit) {
            (Some(dc), _) => {
                let active = mw_per_a.saturating_mul(i64::from(dc.power_factor_permille)) / 1_000;
                WrittenIn::Watts { mw_per_a: (active * i64::from(dc.efficiency_permille) / 1_000).max(1) }
            }
            (None, LimitUnit::Watts) => WrittenIn::Watts { mw_per_a: mw_per_a.max(1) },
            (None, LimitUnit::Amperes) => WrittenIn::Amperes,
        }
    }

    /// Tells a station as a whole what all its EVSEs together may draw, where its model wants that.
    pub(super) fn send_rating(&mut self, station: StationIndex, now: Now, out: &mut Vec<Output>) {
        let settings = self.setup.topology.station(station);
        let Some(first) = self.setup.topology.evses_of(station).next().filter(|_| settings.model.station_max_profile)
        else {
            return;
        };
        let rating: Current = std::iter::repeat_n(settings.max, settings.evse_count).sum();
        let rating = LeasedLimit { evse: 0, ..self.leased(first, (rating, 0), ProfilePart::StationMax, now) };
        self.stations[station.0].writes.count(now.mono);
        self.call(station, StationCall::SetLimit(rating), (Priority::Background, Purpose::Rating), now, out);
    }

    /// What has not left yet is taken back: something newer is about to be sent.
    pub(super) fn withdraw_queued(&mut self, evse: EvseIndex) {
        let Some(pending) = self.evses[evse.0].tether.pending() else { return };
        let station = self.setup.topology.evse(evse).station;
        let Some((_, session)) = &mut self.stations[station.0].session else { return };
        let key = CallKey(pending.call);
        if session.withdraw(key) {
            self.calls.remove(&key);
            self.evses[evse.0].tether.withdrawn(pending.call);
            self.stations[station.0].writes.take_back();
        }
    }

    /// Keeps whose turn it is.
    fn note_turn(&mut self, evse: EvseIndex, limit: Current, now: Mono) {
        let minimum = self.setup.topology.station(self.setup.topology.evse(evse).station).min;
        let control = &mut self.evses[evse.0];
        let before = control.tether.offered().map(|last| last.limit);
        if before.is_none_or(|before| limit > before) {
            control.raised_at = Some(now);
        }
        if before != Some(limit) {
            control.moved_at = Some(now);
        }
        match (limit >= minimum, control.served_since) {
            (true, None) => {
                control.served_since = Some(now);
                control.wants_since = control.appetite.begin_turn(control.wants_since, now);
            }
            (false, Some(_)) => {
                control.served_since = None;
                control.appetite.end_turn();
                // Its turn is over: it waits behind those who wait already.
                control.wants_since = control.wants_since.map(|_| now);
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// A limit that had got no answer in time got one after all: it is known again whether it is in force.
    pub(super) fn limit_answered_late(
        &mut self,
        station: StationIndex,
        (key, reply): (CallKey, StationReply),
        now: Now,
        out: &mut Vec<Output>,
    ) {
        // An error leaves it as uncertain as it was.
        if !matches!(reply, StationReply::Accepted { .. } | StationReply::Refused { .. }) {
            return;
        }
        let mut evses = self.setup.topology.evses_of(station);
        if let Some(evse) = evses.find(|evse| self.evses[evse.0].tether.recall(key.0, now.mono)) {
            self.limit_answered(evse, (key, reply), now, out);
        }
    }

    pub(super) fn limit_answered(
        &mut self,
        evse: EvseIndex,
        (key, reply): (CallKey, StationReply),
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let Evse { station, number, .. } = self.setup.topology.evse(evse);
        let charger = self.station_id(station).clone();
        let subject = format!("{charger}/{number}");
        match reply {
            StationReply::Accepted { .. } => self.plan_soon(),
            _ => self.dirty = true,
        }
        let heard_again = self.stations[station.0].heard_again;
        let control = &mut self.evses[evse.0];
        let tether = &mut control.tether;
        let refusal = match reply {
            StationReply::Accepted { .. } => {
                if control.told_again_at < heard_again {
                    control.told_again_at = Some(now.mono);
                }
                if tether.pending_by(key.0).is_some_and(|pending| control.moved_at == Some(pending.sent.sent_at)) {
                    control.moved_at = Some(now.mono);
                }
                tether.accepted(key.0, now.mono);
                self.remember_fallback(evse, now, out);
                if self.evses[evse.0].tether.refused_limit().is_none() {
                    self.clear(AlarmKind::LimitRefused, &subject, now, out);
                }
                return;
            }
            StationReply::Timeout | StationReply::Disconnected => return tether.unanswered(key.0),
            StationReply::Overtaken => return tether.overtaken(key.0, now.mono),
            StationReply::Refused { status, .. } => {
                tether.refused(key.0, now.mono);
                status
            }
            StationReply::Error { code, description } if code == "QueueFull" => {
                // It never left.
                tether.withdrawn(key.0);
                format!("{code} {description}")
            }
            // It never left, and that alarm is the guard's.
            StationReply::Error { description, .. } if description.starts_with(WITHHELD) => {
                return tether.failed(key.0, now.mono);
            }
            StationReply::Error { code, description } => {
                if matches!(code.as_str(), "NotSupported" | "NotImplemented") {
                    tether.unsupported(key.0, now.mono);
                } else {
                    tether.failed(key.0, now.mono);
                }
                format!("{code} {description}")
            }
        };
        self.raise(
            (AlarmKind::LimitRefused, &subject, Severity::Error),
            format!("{charger} connector {number} refuses its limit: {}.", refusal.trim()),
            "It counts at what it last accepted, or at its maximum. Check that smart charging is enabled in the station, and choose its `model` in site.toml.",
            (now, out),
        );
    }

    /// Notes to which fallback a station falls and how it was told, if it has a lease and that is new.
    fn remember_fallback(&mut self, index: EvseIndex, now: Now, out: &mut Vec<Output>) {
        let Evse { station, number, .. } = self.setup.topology.evse(index);
        let settings = self.setup.topology.station(station);
        let (charger, fallback) = (settings.id.clone(), settings.fallback);
        let form = self.evses[index.0].tether.form();
        let facts = self.ledger.station(&charger);
        let known = facts.and_then(|facts| Some((*facts.tamed.get(&number)?, facts.lease_form(number))));
        if form != LeaseForm::None && known != Some((fallback, form)) {
            self.record(RecordBody::ChargerTamed { charger, evse: number, fallback, form }, now, out);
        }
    }

    /// A station with a budget has used it up.
    pub(super) fn watch_writes(&mut self, station: StationIndex, now: Now, out: &mut Vec<Output>) {
        let settings = self.setup.topology.station(station);
        let Some(budget) = settings.model.writes_per_day else { return };
        let charger = settings.id.clone();
        let used = self.stations[station.0].writes.in_a_day(now.mono);
        if used < budget {
            return self.clear(AlarmKind::WriteBudgetExhausted, charger.as_str(), now, out);
        }
        self.raise(
            (AlarmKind::WriteBudgetExhausted, charger.as_str(), Severity::Warning),
            format!("{charger} was sent {used} charging profiles in a day, and its model allows {budget}."),
            "It keeps what it has until its lease ends and falls to its fallback then; only cuts that a circuit needs are still sent. Its fallback_a decides what it has meanwhile.",
            (now, out),
        );
    }
}

/// The most that a station which knows only some currents can be given of `limit`.
fn at_a_level(limit: Current, station: &Station) -> Current {
    if station.model.levels.is_empty() {
        return limit;
    }
    let below = station.model.levels.iter().copied().filter(|level| *level <= limit && *level <= station.max).max();
    below.filter(|level| *level >= station.min).unwrap_or(Current::ZERO)
}
