//! Transactions as OCPP means them: recorded first, answered when durable, recognised when they come twice.

use rust_decimal::Decimal;

use super::billing::state_takes_energy;
use super::cdrs::BetterEnd;
use super::io::{LogLevel, Output};
use super::ledger::{EndedTransaction, EventKey, OpenTransaction};
use super::{Site, log};
use crate::engine::billing::split::RegisterAt;
use crate::engine::model::exchange::{
    Admission, AuthorizationStatus, StationAnswer, StationRequest, TransactionEvent, TransactionPhase,
};
use crate::engine::model::ids::{IdToken, Sequence, TransactionId};
use crate::engine::model::reading::StationReading;
use crate::engine::model::record::{PERIODIC_SAMPLE, RecordBody, TransactionFacts};
use crate::engine::model::topology::StationIndex;
use crate::engine::ocpp::CallToken;
use crate::engine::time::{Now, Utc};
use crate::engine::units::Energy;

/// Progress of a transaction that only repeats the energy is recorded no more often than this, to spare the flash.
const PROGRESS_MS: i64 = 15 * 60 * 1000;

/// An OCPP 1.6 `StopTransaction`.
struct Stop {
    transaction: TransactionId,
    token: Option<IdToken>,
    meter_stop: Energy,
    at: Utc,
    reason: Option<String>,
}

impl Stop {
    /// The station never learned the id: −1 (errata 3.18), and 0 with some.
    fn has_no_id(&self) -> bool {
        self.transaction.as_str().parse::<i64>().is_ok_and(|id| id <= 0)
    }
}

impl Site {
    pub(super) fn transaction_message(
        &mut self,
        station: StationIndex,
        token: CallToken,
        request: StationRequest,
        (now, out): (Now, &mut Vec<Output>),
    ) {
        if self.store_error.is_some() {
            // No promise can be made. The station keeps the message and sends it again (OCPP 1.6 §4.10, 2.0.1 E13).
            return self.leave_unanswered(station, token);
        }
        let (before, after) = signed_of(&request);
        let before = self.take_signed(station, &before, now, out);
        let (needs, answer) = match request {
            StationRequest::StartTransaction { evse, token, meter_start, at } => {
                let facts = TransactionFacts {
                    transaction: TransactionId::new(&self.ledger.next_transaction().to_string()),
                    charger: self.station_id(station).clone(),
                    evse,
                    connector: 1,
                    token: Some(token),
                    started: at,
                    meter_start: Some(meter_start),
                };
                self.dirty = true;
                self.start(&facts, now, out)
            }
            StationRequest::StopTransaction { transaction, token, meter_stop, at, reason, .. } => {
                let stop = Stop { transaction, token, meter_stop, at, reason };
                self.dirty = true;
                self.stop(station, stop, now, out)
            }
            StationRequest::TransactionEvent(event) => self.event(station, *event, now, out),
            StationRequest::Boot { .. }
            | StationRequest::Heartbeat
            | StationRequest::Status { .. }
            | StationRequest::Authorize { .. }
            | StationRequest::MeterValues { .. }
            | StationRequest::ChargingNeeds { .. }
            | StationRequest::DataTransfer { .. }
            | StationRequest::Notify { .. } => return,
        };
        let after = self.take_signed(station, &after, now, out);
        let needs = [before, after].into_iter().flatten().fold(needs, Sequence::max);
        self.answer_durably(needs, (station, token), answer, (now, out));
    }

    fn start(&mut self, facts: &TransactionFacts, now: Now, out: &mut Vec<Output>) -> (Sequence, StationAnswer) {
        let invalid = || AuthorizationStatus::Invalid.into();
        let admission = facts.token.as_ref().map_or_else(invalid, |token| self.admission(token, now));
        let known = self.ledger.station(&facts.charger).and_then(|station| station.same_start(facts));
        if let Some((known, sequence)) = known {
            // A resend after a lost answer: the same answer, no second transaction. We may have ended before its prices were recorded.
            let answer = started(&known.transaction, admission);
            let (known, before) = (known.clone(), self.ledger.last());
            self.price(&known, now, out);
            let last = self.ledger.last();
            return (if last == before { sequence } else { last }, answer);
        }
        self.close_forgotten(facts, now, out);
        let transaction = facts.transaction.clone();
        log(
            out,
            LogLevel::Info,
            format!("{} connector {}: transaction {transaction} started", facts.charger, facts.evse),
        );
        let offline = is_late(facts.started, now);
        self.record(RecordBody::TransactionStarted { facts: facts.clone(), seq_no: None, offline }, now, out);
        self.price(facts, now, out);
        (self.ledger.last(), started(&transaction, admission))
    }

    /// A start on an EVSE with an open transaction: the stop of that one was lost. It is closed with what is known.
    fn close_forgotten(&mut self, new: &TransactionFacts, now: Now, out: &mut Vec<Output>) {
        let station = self.ledger.station(&new.charger);
        let forgotten = station.and_then(|station| station.transaction_at(new.evse)).cloned();
        let Some(old) = forgotten else { return };
        log(
            out,
            LogLevel::Warn,
            format!(
                "{} connector {}: transaction {} was never stopped; it ends where {} starts",
                new.charger, new.evse, old.facts.transaction, new.transaction
            ),
        );
        // The register cannot have run backwards; if it did, the last value known is the better end.
        let meter_stop = new.meter_start.filter(|start| old.meter.is_none_or(|last| *start >= last)).or(old.meter);
        let cost = self.cost_of(&old.facts, new.started, meter_stop);
        self.forget_registers(&old.facts);
        let body = RecordBody::TransactionEnded {
            facts: old.facts,
            seq_no: None,
            ended: new.started,
            meter_stop,
            reason: Some("lost Stop".to_owned()),
            reconstructed: true,
            cost,
        };
        self.record(body, now, out);
    }

    fn stop(
        &mut self,
        station: StationIndex,
        stop: Stop,
        now: Now,
        out: &mut Vec<Output>,
    ) -> (Sequence, StationAnswer) {
        let charger = self.station_id(station).clone();
        let admission = stop.token.as_ref().map(|token| self.admission_to_stop(station, token, now));
        let answer = StationAnswer::Transaction { admission, cost: None };
        let known = self.ledger.station(&charger);
        let open = known.and_then(|facts| facts.transaction(&stop.transaction));
        let ended = known.filter(|_| !stop.has_no_id()).and_then(|facts| facts.ended(&stop.transaction));
        let resent = ended.or_else(|| known.and_then(|facts| facts.same_end(stop.at, stop.meter_stop)));
        if let Some(ended) = resent.filter(|_| open.is_none()).cloned() {
            let reason = "a Stop came after the transaction had ended".to_owned();
            let better = BetterEnd { ended: stop.at, meter_stop: Some(stop.meter_stop), reason };
            let corrected = !stop.has_no_id() && self.correct_end(&ended, better, now, out);
            return (if corrected { self.ledger.last() } else { ended.ended_by }, answer);
        }
        let meant = known.filter(|_| stop.has_no_id());
        let meant = || meant.and_then(|facts| facts.only_fit(stop.token.as_ref(), stop.at, stop.meter_stop));
        let Some(open) = open.or_else(meant).cloned() else {
            return (self.stop_without_start(station, stop, now, out), answer);
        };
        log(out, LogLevel::Info, format!("{charger}: transaction {} ended", open.facts.transaction));
        let cost = self.cost_of(&open.facts, stop.at, Some(stop.meter_stop));
        self.forget_registers(&open.facts);
        let sequence = self.record(
            RecordBody::TransactionEnded {
                facts: open.facts,
                seq_no: None,
                ended: stop.at,
                meter_stop: Some(stop.meter_stop),
                reason: stop.reason.or_else(|| Some("Local".to_owned())),
                reconstructed: false,
                cost,
            },
            now,
            out,
        );
        (sequence, answer)
    }

    /// The start of a transaction never arrived (id −1, errata 3.18), or it is older than our memory: what the stop says is recorded.
    fn stop_without_start(&mut self, station: StationIndex, stop: Stop, now: Now, out: &mut Vec<Output>) -> Sequence {
        let charger = self.station_id(station).clone();
        let transaction = if stop.has_no_id() {
            TransactionId::new(&self.ledger.next_transaction().to_string())
        } else {
            stop.transaction
        };
        log(out, LogLevel::Warn, format!("{charger}: transaction {transaction} ended whose start was never reported"));
        let facts = TransactionFacts {
            transaction,
            charger,
            evse: 1,
            connector: 1,
            token: stop.token,
            started: stop.at,
            meter_start: None,
        };
        let body = RecordBody::TransactionEnded {
            facts,
            seq_no: None,
            ended: stop.at,
            meter_stop: Some(stop.meter_stop),
            reason: stop.reason,
            reconstructed: true,
            cost: None,
        };
        self.record(body, now, out)
    }

    /// What is known of the token that an event names, if it names one.
    fn admission_of_event(&self, station: StationIndex, event: &TransactionEvent, now: Now) -> Option<Admission> {
        let token = event.token.as_ref()?;
        Some(match event.phase {
            TransactionPhase::Started => self.admission(token, now),
            TransactionPhase::Updated | TransactionPhase::Ended => self.admission_to_stop(station, token, now),
        })
    }

    fn event(
        &mut self,
        station: StationIndex,
        event: TransactionEvent,
        now: Now,
        out: &mut Vec<Output>,
    ) -> (Sequence, StationAnswer) {
        let charger = self.station_id(station).clone();
        let admission = self.admission_of_event(station, &event, now);
        let answer = StationAnswer::Transaction { admission: admission.clone(), cost: None };
        self.samples_of_event(station, &event, now, out);
        let known = self.ledger.station(&charger);
        let open = known.and_then(|facts| facts.transaction(&event.transaction));
        let trigger = (event.phase == TransactionPhase::Updated).then(|| event.trigger.clone());
        let key = EventKey { phase: event.phase, seq_no: event.seq_no, at: event.at, trigger };
        if let Some(open) = open.filter(|open| open.knows(&key)) {
            // As with a start that comes again.
            let (sequence, known) = (open.started_by, open.facts.clone());
            self.price(&known, now, out);
            return (sequence.max(self.ledger.last()), answer);
        }
        if let Some(ended) = known.and_then(|facts| facts.ended(&event.transaction)).cloned() {
            let sequence = self.event_after_end(&event, &ended, now, out);
            let cost = self.cost_after_end(&ended.facts).filter(|_| event.phase == TransactionPhase::Ended);
            return (sequence, StationAnswer::Transaction { admission, cost });
        }
        let (first, last) = energies(&event.readings);
        let facts = facts_of(&event, charger, open, first);
        let is_open = open.is_some();
        let is_progress = event.phase == TransactionPhase::Updated && only_progress(&event, &facts, open);
        let takes_place = self.takes_place(station, &event, &facts, open);
        if let Some(register) = last.filter(|_| event.phase == TransactionPhase::Updated) {
            let seen = RegisterAt { at: event.at, register };
            self.register_seen((&facts.charger, &facts.transaction), seen, now, out);
        }
        if is_progress {
            return (Sequence::default(), answer);
        }
        // Not before: what only tells of the energy is planned with like any sample, and half the messages of a large site are that.
        self.dirty = true;
        if takes_place {
            self.close_forgotten(&facts, now, out);
        }
        let priced = facts.clone();
        let body = match event.phase {
            TransactionPhase::Started if !is_open => {
                log(
                    out,
                    LogLevel::Info,
                    format!("{} EVSE {}: transaction {} started", facts.charger, facts.evse, facts.transaction),
                );
                RecordBody::TransactionStarted { facts, seq_no: Some(event.seq_no), offline: event.offline }
            }
            // A start that comes after an update, or again with another number, begins nothing.
            TransactionPhase::Started | TransactionPhase::Updated => RecordBody::TransactionUpdated {
                facts,
                seq_no: Some(event.seq_no),
                at: event.at,
                meter: last,
                trigger: Some(event.trigger),
                offline: event.offline,
                charging: event.charging_state.and_then(state_takes_energy),
            },
            TransactionPhase::Ended => {
                log(out, LogLevel::Info, format!("{}: transaction {} ended", facts.charger, facts.transaction));
                self.ended_by(event, facts, last)
            }
        };
        let cost = total_of(&body);
        self.record(body, now, out);
        self.price(&priced, now, out);
        (self.ledger.last(), StationAnswer::Transaction { admission, cost })
    }

    /// A transaction is over already: this is a resend, or its own word for an end that was put together without it.
    fn event_after_end(
        &mut self,
        event: &TransactionEvent,
        ended: &EndedTransaction,
        now: Now,
        out: &mut Vec<Output>,
    ) -> Sequence {
        let before = self.ledger.last();
        if event.phase == TransactionPhase::Ended {
            let meter_stop = energies(&event.readings).1.or(ended.meter_stop);
            let reason = "its Ended event came after the transaction had ended".to_owned();
            self.correct_end(ended, BetterEnd { ended: event.at, meter_stop, reason }, now, out);
        } else if let Some(register) = energies(&event.readings).1 {
            let (charger, transaction) = (&ended.facts.charger, &ended.facts.transaction);
            self.late_register(charger, transaction, (event.at, register), (now, out));
        }
        if self.ledger.last() == before { ended.ended_by } else { self.ledger.last() }
    }

    /// The record of the end of a 2.x transaction.
    fn ended_by(&mut self, event: TransactionEvent, facts: TransactionFacts, last: Option<Energy>) -> RecordBody {
        let known = self.ledger.station(&facts.charger);
        let open = known.and_then(|station| station.transaction(&facts.transaction));
        let reconstructed = open.is_none();
        let meter_stop = last.or_else(|| open.and_then(|open| open.meter));
        let cost = self.cost_of(&facts, event.at, meter_stop);
        self.forget_registers(&facts);
        RecordBody::TransactionEnded {
            facts,
            seq_no: Some(event.seq_no),
            ended: event.at,
            meter_stop,
            reason: event.stopped_reason.or_else(|| Some("Local".to_owned())),
            reconstructed,
            cost,
        }
    }

    /// Whether the event says that its transaction is now at an EVSE where it was not before: one that is still open there is over. A start
    /// that names no EVSE (it may be authorized first) says that only where there is but one.
    fn takes_place(
        &self,
        station: StationIndex,
        event: &TransactionEvent,
        facts: &TransactionFacts,
        open: Option<&OpenTransaction>,
    ) -> bool {
        let moved = open.is_some_and(|open| open.facts.evse != facts.evse);
        let named = event.evse.is_some_and(|evse| evse > 0) || self.setup.topology.station(station).evse_count == 1;
        match event.phase {
            TransactionPhase::Started => named && (open.is_none() || moved),
            TransactionPhase::Updated => moved,
            TransactionPhase::Ended => false,
        }
    }

    fn samples_of_event(&mut self, station: StationIndex, event: &TransactionEvent, now: Now, out: &mut Vec<Output>) {
        let known =
            self.ledger.station(self.station_id(station)).and_then(|facts| facts.transaction(&event.transaction));
        let evse = event.evse.or_else(|| known.map(|open| open.facts.evse)).unwrap_or(1);
        let Some(index) = self.setup.topology.find_evse(station, evse) else { return };
        if let Some(state) = event.charging_state {
            let before = self.evses[index.0].charging_state.replace(state);
            self.dirty |= before != Some(state);
        }
        // What happened while the station was offline says nothing about the current that flows now.
        if event.offline {
            return;
        }
        for reading in &event.readings {
            self.take_sample(index, reading, now, out);
        }
    }

    /// Records the energy of running OCPP 1.6 transactions now and then, so that little is unknown if the stop never comes.
    pub(super) fn record_progress(
        &mut self,
        station: StationIndex,
        readings: &[StationReading],
        now: Now,
        out: &mut Vec<Output>,
    ) {
        for reading in readings {
            let (Some(transaction), Some(meter)) = (&reading.transaction, reading.energy) else { continue };
            let at = reading.at.unwrap_or(now.utc);
            let charger = self.station_id(station).clone();
            let known = self.ledger.station(&charger);
            let Some(open) = known.and_then(|facts| facts.transaction(transaction)) else {
                self.late_register(&charger, transaction, (at, meter), (now, out));
                continue;
            };
            let (charger, seen) = (open.facts.charger.clone(), RegisterAt { at, register: meter });
            self.register_seen((&charger, transaction), seen, now, out);
            let known = self.ledger.station(&charger);
            let Some(open) = known.and_then(|facts| facts.transaction(transaction)) else { continue };
            if at.since(open.recorded_at) < PROGRESS_MS {
                continue;
            }
            let facts = open.facts.clone();
            let trigger = Some(PERIODIC_SAMPLE.to_owned());
            let body = RecordBody::TransactionUpdated {
                facts,
                seq_no: None,
                at,
                meter: Some(meter),
                trigger,
                offline: false,
                charging: None,
            };
            self.record(body, now, out);
        }
    }
}

/// The readings of a message that carry signed values: those to be taken in before the message itself, since it ends the transaction that they belong
/// to, and those after it, since it may begin it.
fn signed_of(request: &StationRequest) -> (Vec<StationReading>, Vec<StationReading>) {
    let (readings, ends) = match request {
        StationRequest::StopTransaction { readings, .. } => (readings, true),
        StationRequest::TransactionEvent(event) => (&event.readings, event.phase == TransactionPhase::Ended),
        _ => return (Vec::new(), Vec::new()),
    };
    let signed = readings.iter().filter(|reading| !reading.signed.is_empty()).cloned().collect();
    if ends { (signed, Vec::new()) } else { (Vec::new(), signed) }
}

/// What a transaction costs that is over by this record, with tax.
fn total_of(body: &RecordBody) -> Option<Decimal> {
    let RecordBody::TransactionEnded { cost, .. } = body else { return None };
    cost.as_ref().map(|cost| cost.gross)
}

fn started(transaction: &TransactionId, admission: Admission) -> StationAnswer {
    StationAnswer::StartTransaction { transaction: transaction.as_str().parse().unwrap_or(0), admission }
}

/// A message that tells of more than a minute ago was queued by the station.
fn is_late(at: Utc, now: Now) -> bool {
    now.utc_trusted && now.utc.since(at) > 60_000
}

/// The first and the last energy register in the readings.
fn energies(readings: &[StationReading]) -> (Option<Energy>, Option<Energy>) {
    let mut values = readings.iter().filter_map(|reading| reading.energy);
    let first = values.next();
    (first, values.next_back().or(first))
}

/// Whether an update carries nothing but the energy, and the last one recorded is not old yet.
fn only_progress(event: &TransactionEvent, facts: &TransactionFacts, open: Option<&OpenTransaction>) -> bool {
    let periodic = matches!(event.trigger.as_str(), "MeterValuePeriodic" | "MeterValueClock");
    let recent = |open: &OpenTransaction| event.at.since(open.recorded_at) < PROGRESS_MS;
    periodic && !event.offline && open.is_some_and(|open| open.facts == *facts && recent(open))
}

/// What is known of a 2.x transaction after this event. Each event may bring what earlier ones lacked.
fn facts_of(
    event: &TransactionEvent,
    charger: crate::engine::model::ids::StationId,
    open: Option<&OpenTransaction>,
    first_energy: Option<Energy>,
) -> TransactionFacts {
    let starting = event.phase == TransactionPhase::Started;
    let mut facts = open.map_or_else(
        || TransactionFacts {
            transaction: event.transaction.clone(),
            charger,
            evse: event.evse.filter(|evse| *evse > 0).unwrap_or(1),
            connector: event.connector.filter(|connector| *connector > 0).unwrap_or(1),
            token: None,
            started: event.at,
            meter_start: first_energy.filter(|_| starting),
        },
        |open| open.facts.clone(),
    );
    facts.evse = event.evse.filter(|evse| *evse > 0).unwrap_or(facts.evse);
    facts.connector = event.connector.filter(|connector| *connector > 0).unwrap_or(facts.connector);
    if starting {
        facts.started = facts.started.min(event.at);
    }
    if facts.token.is_none() {
        facts.token.clone_from(&event.token);
    }
    if facts.meter_start.is_none() && event.phase != TransactionPhase::Ended {
        facts.meter_start = first_energy;
    }
    facts
}
