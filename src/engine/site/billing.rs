//! What transactions cost: their prices, the registers that the bill needs, what they come to.

use chrono_tz::Tz;
use rust_decimal::Decimal;

use super::Site;
use super::io::Output;
use super::ledger::OpenTransaction;
use crate::engine::billing::bill::{Bill, bill};
use crate::engine::billing::calendar::wall_clock;
use crate::engine::billing::split::{ActivityAt, RegisterAt, Usage};
use crate::engine::model::command::CommandOutcome;
use crate::engine::model::exchange::{ChargingState, ConnectorStatus};
use crate::engine::model::ids::{StationId, TransactionId};
use crate::engine::model::record::{RecordBody, TransactionFacts};
use crate::engine::model::tariff::{Cost, Prices, Tariff, tariff_for};
use crate::engine::model::topology::StationIndex;
use crate::engine::time::{Now, Utc};
use crate::engine::units::Energy;

impl Site {
    /// Gives a transaction its prices, once it is known who charges. They hold to its end.
    pub(super) fn price(&mut self, facts: &TransactionFacts, now: Now, out: &mut Vec<Output>) {
        let known = self.ledger.station(&facts.charger);
        let Some(open) = known.and_then(|station| station.transaction(&facts.transaction)) else { return };
        let Some(token) = open.facts.token.as_ref().filter(|_| open.tariff.is_none()) else { return };
        let group = self.token_entry(token).and_then(|entry| entry.group.as_deref());
        let tariffs = self.ledger.tariffs().unwrap_or(&self.setup.tariffs);
        let Some(tariff) = tariff_for(tariffs, group).cloned() else { return };
        let facts = open.facts.clone();
        let sealed = self.seal(&facts);
        self.record(RecordBody::TransactionPriced { facts, tariff, sealed }, now, out);
    }

    /// Other prices for transactions that get theirs from now on; those that run keep theirs.
    pub(super) fn replace_tariffs(
        &mut self,
        tariffs: Option<Vec<Tariff>>,
        now: Now,
        out: &mut Vec<Output>,
    ) -> CommandOutcome {
        // As `siteward check` wants it of those in the configuration: a CDR could not name them.
        let unfit = |tariff: &&Tariff| !tariff.id.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        let billed = self.setup.billing.operator.is_some();
        if let Some(tariff) = tariffs.iter().flatten().find(unfit).filter(|_| billed) {
            let error =
                format!("tariff {:?}: with [billing] its id must be printable ASCII, as OCPI wants it", tariff.id);
            return CommandOutcome::Rejected { error };
        }
        if self.ledger.tariffs() != tariffs.as_deref() {
            self.record(RecordBody::TariffsReplaced { tariffs }, now, out);
        }
        CommandOutcome::Accepted { data: None }
    }

    /// What a transaction has come to if it ends then, with its register at that value.
    pub(super) fn bill_of(&self, open: &OpenTransaction, ended: Utc, meter_stop: Option<Energy>) -> Option<Bill> {
        let tariff = open.tariff.as_ref()?;
        Some(bill(&usage_of(open, ended, meter_stop)?, tariff, self.setup.timezone))
    }

    /// As [`Site::bill_of`], in short, for a transaction that may be known or not.
    pub(super) fn cost_of(&self, facts: &TransactionFacts, ended: Utc, meter_stop: Option<Energy>) -> Option<Cost> {
        let open = self.ledger.station(&facts.charger)?.transaction(&facts.transaction)?;
        self.bill_of(open, ended, meter_stop).map(|bill| short(&bill))
    }

    /// What a transaction that is over has come to, with tax, as long as that is remembered.
    pub(super) fn cost_after_end(&self, facts: &TransactionFacts) -> Option<Decimal> {
        let closed = self.ledger.accounts().bill_parts(&facts.charger, &facts.transaction)?;
        self.bill_of(&closed.open, closed.ended, closed.meter_stop).map(|bill| bill.gross)
    }

    /// Takes in a register of a running transaction. Where the price has changed since the last one, both are recorded, so that the
    /// energy is split as exactly as the station measures.
    pub(super) fn register_seen(
        &mut self,
        (charger, transaction): (&StationId, &TransactionId),
        seen: RegisterAt,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let before = self.last_registers.insert((charger.clone(), transaction.clone()), seen);
        let Some(before) = before.filter(|before| before.at < seen.at) else { return };
        let Some(open) = self.ledger.station(charger).and_then(|station| station.transaction(transaction)) else {
            return;
        };
        let zone = self.setup.timezone;
        let crossed = |tariff: &Tariff| prices(tariff, zone, before.at) != prices(tariff, zone, seen.at);
        if !open.tariff.as_ref().is_some_and(crossed) {
            return;
        }
        let facts = open.facts.clone();
        let recorded = open.recorded_at;
        for sample in [before, seen].into_iter().filter(|sample| sample.at > recorded) {
            let body = RecordBody::TransactionUpdated {
                facts: facts.clone(),
                seq_no: None,
                at: sample.at,
                meter: Some(sample.register),
                trigger: Some("TariffBorder".to_owned()),
                offline: false,
                charging: None,
            };
            self.record(body, now, out);
        }
    }

    /// Notes whether the car at an EVSE takes energy, where that has changed. A pause that the station makes is not the car's.
    pub(super) fn note_activity(
        &mut self,
        station: StationIndex,
        (evse, charging): (u32, bool),
        at: Utc,
        (now, out): (Now, &mut Vec<Output>),
    ) {
        let known = self.ledger.station(self.station_id(station));
        let Some(open) = known.and_then(|facts| facts.transaction_at(evse)) else { return };
        let last = open.activity.last().is_none_or(|last| last.charging);
        if open.tariff.is_none() || last == charging {
            return;
        }
        let body = RecordBody::TransactionUpdated {
            facts: open.facts.clone(),
            seq_no: None,
            at: at.max(open.facts.started),
            meter: None,
            trigger: Some("ChargingStateChanged".to_owned()),
            offline: false,
            charging: Some(charging),
        };
        self.record(body, now, out);
    }

    /// Forgets what is only needed while a transaction runs.
    pub(super) fn forget_registers(&mut self, facts: &TransactionFacts) {
        self.last_registers.remove(&(facts.charger.clone(), facts.transaction.clone()));
    }
}

/// Whether a car takes energy in that state of its connector; `None` where the state does not say.
pub(super) const fn takes_energy(status: ConnectorStatus) -> Option<bool> {
    match status {
        ConnectorStatus::Charging | ConnectorStatus::SuspendedEvse => Some(true),
        ConnectorStatus::SuspendedEv | ConnectorStatus::Finishing => Some(false),
        ConnectorStatus::Available
        | ConnectorStatus::Preparing
        | ConnectorStatus::Reserved
        | ConnectorStatus::Unavailable
        | ConnectorStatus::Faulted
        | ConnectorStatus::Occupied => None,
    }
}

/// As [`takes_energy`], for OCPP 2.x.
pub(super) const fn state_takes_energy(state: ChargingState) -> Option<bool> {
    match state {
        ChargingState::Charging | ChargingState::SuspendedEvse => Some(true),
        ChargingState::SuspendedEv | ChargingState::Idle => Some(false),
        ChargingState::EvConnected => None,
    }
}

/// The bill in short, for the event of the end.
pub(super) fn short(bill: &Bill) -> Cost {
    Cost {
        currency: bill.currency.clone(),
        net: bill.net,
        vat: bill.vat,
        gross: bill.gross,
        tariff: bill.tariff.clone(),
    }
}

fn prices(tariff: &Tariff, zone: Tz, at: Utc) -> Prices {
    let clock = wall_clock(zone, at);
    tariff.prices_at(clock.weekday, clock.minute)
}

/// What is known for the bill. `None` without a register at both ends: energy that was not measured is not billed.
pub(super) fn usage_of(open: &OpenTransaction, ended: Utc, meter_stop: Option<Energy>) -> Option<Usage> {
    let first = RegisterAt { at: open.facts.started, register: open.facts.meter_start? };
    let register = meter_stop?.max(first.register);
    // Energy that was measured is billed also where the clock was set back meanwhile.
    let least = if register > first.register { first.at.plus_ms(1) } else { first.at };
    let ended = ended.max(least);
    let last = RegisterAt { at: ended, register };
    let inside = |sample: &&RegisterAt| {
        sample.at > first.at && sample.at < last.at && (first.register..=last.register).contains(&sample.register)
    };
    let mut registers = vec![first];
    for sample in open.registers.iter().filter(inside) {
        // A register that steps back, or a message out of order, is not measured energy.
        if registers.last().is_none_or(|before| sample.at > before.at && sample.register >= before.register) {
            registers.push(*sample);
        }
    }
    if ended > first.at {
        registers.push(last);
    }
    let mut activity: Vec<ActivityAt> = open.activity.clone();
    activity.sort_by_key(|change| change.at);
    Some(Usage { started: first.at, ended, registers, activity })
}
