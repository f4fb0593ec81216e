//! What stations show of the cost of their transactions: told now and then while they run, and once when they are over.
//!
//! Nothing rests on it, so it never stands in the way of a limit: it is told only while nothing else waits for the station, one message at a
//! time, and a station that refuses one, or leaves it unanswered, is not told again over that connection.

use std::collections::{BTreeMap, VecDeque};

use rust_decimal::Decimal;

use super::io::{LogLevel, Output};
use super::ledger::OpenTransaction;
use super::{Purpose, Site, log};
use crate::engine::billing::bill::Bill;
use crate::engine::billing::calendar::{borders, wall_clock};
use crate::engine::billing::ocpi_tariff::price;
use crate::engine::model::display::CostNote;
use crate::engine::model::exchange::{OcppVersion, StationCall, StationReply};
use crate::engine::model::ids::{ConnectionId, Sequence, StationId, TransactionId};
use crate::engine::model::record::RecordBody;
use crate::engine::model::tariff::{Prices, Tariff};
use crate::engine::model::topology::StationIndex;
use crate::engine::ocpp::Priority;
use crate::engine::time::{Mono, Now, Utc};
use crate::engine::units::Energy;

/// So many last costs wait for a moment in which nothing else does.
const MOST_LAST_WORDS: usize = 64;

/// How far ahead a change of prices is told, in ms: every daily one.
const AHEAD_MS: i64 = 24 * 3_600_000;

/// What stations were told of costs in this run.
#[derive(Debug, Default)]
pub(super) struct Displays {
    shown: BTreeMap<(StationId, TransactionId), Shown>,
    /// The connection over which a station has refused to show costs.
    unable: BTreeMap<StationIndex, ConnectionId>,
    last_words: VecDeque<LastWord>,
}

/// What a station was told last of a transaction.
#[derive(Clone, Copy, Debug)]
struct Shown {
    amount: Decimal,
    charging: bool,
    /// When it was last computed.
    at: Mono,
    connection: ConnectionId,
}

/// What a transaction of OCPP 1.6 has come to in the end. OCPP 2.x has it in the answer to the event.
#[derive(Debug)]
struct LastWord {
    station: StationIndex,
    /// The record of the end: the cost is told when it is safe.
    ended_by: Sequence,
    note: CostNote,
}

impl Site {
    /// Tells stations what their transactions have come to.
    pub(super) fn show_costs(&mut self, now: Now, out: &mut Vec<Output>) {
        let Some(every_s) = self.setup.billing.running_cost_s else { return };
        // Without the time nobody knows which prices hold.
        if !now.utc_trusted {
            return;
        }
        for index in (0..self.stations.len()).map(StationIndex) {
            let Some(connection) = self.shows_costs(index) else { continue };
            let note = self.last_word(index).or_else(|| self.due_cost(index, (connection, every_s), now));
            if let Some(note) = note {
                let call = StationCall::ShowCost(Box::new(note));
                self.call(index, call, (Priority::Background, Purpose::Cost), now, out);
            }
        }
    }

    /// The connection of a station that can be told a cost now: it is there, it has not refused, and nothing else waits for it.
    fn shows_costs(&self, station: StationIndex) -> Option<ConnectionId> {
        let state = &self.stations[station.0];
        let (connection, session) = state.session.as_ref()?;
        let is_able = self.displays.unable.get(&station) != Some(connection);
        let is_told = session.version() != OcppVersion::V16 || self.setup.billing.running_cost_transfer.is_some();
        (is_able && is_told && !state.unresponsive && session.waiting() == 0).then_some(*connection)
    }

    /// The cost of a running transaction that is to be told now: one that has changed since, after so long.
    fn due_cost(
        &mut self,
        station: StationIndex,
        (connection, every_s): (ConnectionId, u32),
        now: Now,
    ) -> Option<CostNote> {
        let charger = self.station_id(station).clone();
        let every_ms = u64::from(every_s) * 1_000;
        // A station of OCPP 1.6 learns the id of its transaction when the start is durable.
        let durable = self.durable;
        let is_known = |open: &&OpenTransaction| open.tariff.is_some() && open.started_by <= durable;
        let open = self.ledger.station(&charger)?.open.iter().filter(is_known);
        let due = |open: &&OpenTransaction| {
            let shown = self.displays.shown.get(&(charger.clone(), open.facts.transaction.clone()));
            let shown = shown.filter(|shown| shown.connection == connection);
            shown.is_none_or(|shown| now.mono.since(shown.at) >= every_ms)
        };
        let open: Vec<OpenTransaction> = open.filter(due).cloned().collect();
        for open in open {
            let Some(note) = self.cost_now(station, &open, now) else { continue };
            let key = (charger.clone(), open.facts.transaction);
            let shown = Shown { amount: note.amount, charging: note.charging, at: now.mono, connection };
            let before = self.displays.shown.insert(key, shown).filter(|before| before.connection == connection);
            if before.is_none_or(|before| (before.amount, before.charging) != (note.amount, note.charging)) {
                return Some(note);
            }
        }
        None
    }

    /// What a running transaction has come to. What the meter has not shown yet is not in it.
    fn cost_now(&self, station: StationIndex, open: &OpenTransaction, now: Now) -> Option<CostNote> {
        let facts = &open.facts;
        let at = self.station_time(station, now).max(facts.started);
        let sampled = self.last_registers.get(&(facts.charger.clone(), facts.transaction.clone()));
        let register = sampled.map(|sample| sample.register).max(open.meter).or(facts.meter_start)?;
        let bill = self.bill_of(open, at, Some(register))?;
        let charging = open.activity.last().is_none_or(|last| last.charging);
        let lasts_ms = at.since(facts.started);
        Some(self.cost_note(open, &bill, CostAt { at, register, lasts_ms, charging, is_final: false }))
    }

    fn cost_note(&self, open: &OpenTransaction, bill: &Bill, when: CostAt) -> CostNote {
        let tariff = open.tariff.as_ref();
        let zone = self.setup.timezone;
        let prices_at = |at: Utc| {
            let clock = wall_clock(zone, at);
            tariff.map_or_else(Prices::default, |tariff| gross(tariff.prices_at(clock.weekday, clock.minute), tariff))
        };
        let prices = prices_at(when.at);
        let ahead = tariff.filter(|_| !when.is_final).map(Tariff::borders_min).unwrap_or_default();
        let ahead = borders(zone, &ahead, when.at, when.at.plus_ms(AHEAD_MS));
        let mut amount = bill.gross;
        amount.rescale(tariff.map_or(2, Tariff::minor_digits));
        let next = ahead.into_iter().map(|at| (at, prices_at(at))).find(|(_, then)| *then != prices);
        CostNote {
            transaction: open.facts.transaction.clone(),
            amount,
            currency: bill.currency.clone(),
            at: when.at,
            register: when.register,
            energy: bill.energy,
            lasts_ms: when.lasts_ms,
            charging: when.charging,
            prices,
            parking_grace_s: tariff.map_or(0, |tariff| tariff.parking_grace_s),
            next,
            is_final: when.is_final,
            transfer: self.setup.billing.running_cost_transfer.clone(),
        }
    }

    /// A transaction is about to end: the station that showed its cost will be told what it has come to.
    pub(super) fn note_last_cost(&mut self, body: &RecordBody, ended_by: Sequence) {
        let RecordBody::TransactionEnded { facts, ended, meter_stop, .. } = body else { return };
        let was_shown = self.displays.shown.remove(&(facts.charger.clone(), facts.transaction.clone())).is_some();
        let Some(station) = self.setup.topology.find_station(&facts.charger).filter(|_| was_shown) else { return };
        let session = self.stations[station.0].session.as_ref();
        if session.is_none_or(|(_, session)| session.version() != OcppVersion::V16) {
            return;
        }
        let known = self.ledger.station(&facts.charger);
        let Some(open) = known.and_then(|station| station.transaction(&facts.transaction)) else { return };
        let Some((bill, register)) = self.bill_of(open, *ended, *meter_stop).zip(*meter_stop) else { return };
        let lasts_ms = ended.since(facts.started);
        let note =
            self.cost_note(open, &bill, CostAt { at: *ended, register, lasts_ms, charging: false, is_final: true });
        if self.displays.last_words.len() >= MOST_LAST_WORDS {
            self.displays.last_words.pop_front();
        }
        self.displays.last_words.push_back(LastWord { station, ended_by, note });
    }

    fn last_word(&mut self, station: StationIndex) -> Option<CostNote> {
        let durable = self.durable;
        let words = &mut self.displays.last_words;
        let index = words.iter().position(|word| word.station == station && word.ended_by <= durable)?;
        words.remove(index).map(|word| word.note)
    }

    /// What a station says to a cost.
    pub(super) fn cost_told(&mut self, station: StationIndex, reply: &StationReply, out: &mut Vec<Output>) {
        let why = match reply {
            StationReply::Accepted { .. } | StationReply::Disconnected => return,
            StationReply::Refused { status, .. } => status.as_str(),
            StationReply::Error { code, .. } => code.as_str(),
            // A cut has waited for it: that must not happen again.
            StationReply::Overtaken | StationReply::Timeout => "nothing",
        };
        let Some((connection, _)) = self.stations[station.0].session.as_ref() else { return };
        self.displays.unable.insert(station, *connection);
        self.displays.last_words.retain(|word| word.station != station);
        let charger = self.station_id(station);
        log(
            out,
            LogLevel::Info,
            format!("{charger} answers {why} to what a transaction costs; it is told no more of it"),
        );
    }
}

/// The moment that a cost is for.
#[derive(Clone, Copy)]
struct CostAt {
    at: Utc,
    register: Energy,
    lasts_ms: i64,
    charging: bool,
    is_final: bool,
}

/// Prices as the driver pays them.
fn gross(prices: Prices, tariff: &Tariff) -> Prices {
    let with_tax = |net: Option<Decimal>| {
        let both = price(net?, tariff);
        Some(both.incl_vat.unwrap_or(both.excl_vat).value())
    };
    Prices {
        energy_per_kwh: with_tax(prices.energy_per_kwh),
        time_per_h: with_tax(prices.time_per_h),
        parking_per_h: with_tax(prices.parking_per_h),
        start_fee: with_tax(prices.start_fee),
    }
}
