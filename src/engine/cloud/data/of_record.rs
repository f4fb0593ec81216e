//! From a record to the data of its event.

use super::{
    AboutTransaction, BalanceOfCircuit, BalanceOfEvse, BoostEnded, BoostSet, CdrWithheld, ChargerConnected,
    ChargerDisconnected, ChargerFirmware, CircuitLimit, CommandExecuted, ConfigurationChanged, ConnectorState, Data,
    EnergyBalance, FailSafe, LeaseChosen, SignedValueData, StoreRecovered, TargetEnded, TargetSet, TariffsReplaced,
    TokensChanged, TransactionCorrected, TransactionEnded, TransactionPriced, TransactionStarted, TransactionUpdated,
};
use crate::engine::cloud::limits::LimitEnded;
use crate::engine::model::balance::{Balance, CircuitBalance, EvseBalance};
use crate::engine::model::exchange::BootInfo;
use crate::engine::model::record::{RecordBody, TransactionFacts};
use crate::engine::model::signed::SignedNote;
use crate::engine::model::token::TokensOrder;
use crate::engine::units::{Current, Energy};

impl<'a> From<&'a RecordBody> for Data<'a> {
    fn from(body: &'a RecordBody) -> Self {
        match body {
            RecordBody::TransactionStarted { .. }
            | RecordBody::TransactionUpdated { .. }
            | RecordBody::TransactionPriced { .. }
            | RecordBody::TransactionEnded { .. }
            | RecordBody::TransactionCorrected { .. } => of_transaction(body),
            RecordBody::CdrCreated(note) => Self::Cdr(&note.cdr),
            RecordBody::CdrWithheld { facts, reason, .. } => {
                Self::CdrWithheld(CdrWithheld { about: facts.into(), reason })
            }
            RecordBody::SignedValue(note) => Self::SignedValue((&**note).into()),
            RecordBody::EnergyBalanced(balance) => Self::EnergyBalance((&**balance).into()),
            RecordBody::ChargerConnected { .. }
            | RecordBody::ChargerBooted { .. }
            | RecordBody::ChargerDisconnected { .. }
            | RecordBody::ChargerStatus { .. }
            | RecordBody::ChargerTamed { .. }
            | RecordBody::LeaseChosen { .. } => of_charger(body),
            RecordBody::AlarmRaised(alarm) | RecordBody::AlarmCleared(alarm) => Self::Alarm(alarm),
            RecordBody::OutsideLimit(standing) => Self::LimitStanding(standing.into()),
            RecordBody::OutsideLimitEnded { target, origin, why } => {
                Self::LimitEnded(LimitEnded::new(target, origin, *why))
            }
            RecordBody::LimitProven(proof) => Self::LimitProven((&**proof).into()),
            RecordBody::LimitChanged { circuit, limit, until } => {
                Self::CircuitLimit(CircuitLimit { circuit, limit_a: limit.map(Current::as_a), until: *until })
            }
            RecordBody::BoostSet { .. }
            | RecordBody::BoostEnded { .. }
            | RecordBody::TargetSet { .. }
            | RecordBody::TargetEnded { .. } => of_wish(body),
            RecordBody::ConfigurationChanged { version, cause, .. } => {
                Self::Configuration(ConfigurationChanged { version, cause })
            }
            RecordBody::TariffsReplaced { tariffs } => {
                Self::Tariffs(TariffsReplaced { cause: "tariffs.replace", tariffs: tariffs.as_deref() })
            }
            RecordBody::TokensChanged { order, .. } => Self::Tokens((&**order).into()),
            RecordBody::CommandExecuted { id, kind, status, error } => {
                Self::CommandExecuted(CommandExecuted { id, kind, status, error: error.as_deref() })
            }
            RecordBody::StoreRecovered { missing } => Self::StoreRecovered(StoreRecovered { missing }),
        }
    }
}

fn of_transaction(body: &RecordBody) -> Data<'_> {
    match body {
        RecordBody::TransactionStarted { facts, seq_no, offline } => {
            Data::TransactionStarted(TransactionStarted { about: facts.into(), seq_no: *seq_no, offline: *offline })
        }
        RecordBody::TransactionUpdated { facts, seq_no, at, meter, trigger, offline, charging } => {
            Data::TransactionUpdated(TransactionUpdated {
                about: facts.into(),
                seq_no: *seq_no,
                offline: *offline,
                at: *at,
                meter_wh: *meter,
                trigger: trigger.as_deref(),
                energy_wh: energy(facts, *meter),
                charging: *charging,
            })
        }
        RecordBody::TransactionPriced { facts, tariff, .. } => {
            Data::TransactionPriced(TransactionPriced { about: facts.into(), tariff })
        }
        RecordBody::TransactionEnded { facts, seq_no, ended, meter_stop, reason, reconstructed, cost } => {
            Data::TransactionEnded(TransactionEnded {
                about: facts.into(),
                seq_no: *seq_no,
                ended: *ended,
                meter_stop_wh: *meter_stop,
                reason: reason.as_deref(),
                reconstructed: *reconstructed,
                energy_wh: energy(facts, *meter_stop),
                cost: cost.as_ref(),
            })
        }
        RecordBody::TransactionCorrected { facts, ended, meter_stop, reason, cost } => {
            Data::TransactionCorrected(TransactionCorrected {
                about: facts.into(),
                ended: *ended,
                meter_stop_wh: *meter_stop,
                reason,
                energy_wh: energy(facts, *meter_stop),
                cost: cost.as_ref(),
            })
        }
        _ => Data::Nothing,
    }
}

fn of_charger(body: &RecordBody) -> Data<'_> {
    match body {
        RecordBody::ChargerConnected { charger, version } => {
            Data::ChargerConnected(ChargerConnected { charger, ocpp_version: *version })
        }
        RecordBody::ChargerBooted { charger, info } => {
            let BootInfo { vendor, model, serial, firmware } = info;
            let (serial, firmware) = (serial.as_deref(), firmware.as_deref());
            Data::ChargerFirmware(ChargerFirmware { charger, vendor, model, serial, firmware })
        }
        RecordBody::ChargerDisconnected { charger, reason } => {
            Data::ChargerDisconnected(ChargerDisconnected { charger, reason })
        }
        RecordBody::ChargerStatus { charger, evse, connector, status, error } => Data::Connector(ConnectorState {
            charger,
            evse: *evse,
            connector: *connector,
            status: *status,
            error: error.as_deref(),
        }),
        RecordBody::ChargerTamed { charger, evse, fallback, form } => {
            let fallback_a = fallback.as_a();
            Data::FailSafe(FailSafe { charger, evse: *evse, fail_safe: true, fallback_a, lease: *form })
        }
        RecordBody::LeaseChosen { charger, form, proven } => {
            Data::Lease(LeaseChosen { charger, evse: (), fail_safe: *proven, lease: *form })
        }
        _ => Data::Nothing,
    }
}

fn of_wish(body: &RecordBody) -> Data<'_> {
    match body {
        RecordBody::BoostSet { charger, evse, boost } => Data::BoostSet(BoostSet {
            charger,
            evse: *evse,
            transaction_id: boost.transaction.as_ref(),
            until: boost.until,
            state: "set",
        }),
        RecordBody::BoostEnded { charger, evse, cause } => {
            Data::BoostEnded(BoostEnded { charger, evse: *evse, until: (), state: *cause })
        }
        RecordBody::TargetSet { charger, evse, transaction, target } => Data::TargetSet(TargetSet {
            charger,
            evse: *evse,
            transaction_id: transaction,
            energy_wh: target.energy,
            departure: target.departure,
            source: target.source,
            state: "set",
        }),
        RecordBody::TargetEnded { charger, evse, transaction, cause, missing } => Data::TargetEnded(TargetEnded {
            charger,
            evse: *evse,
            transaction_id: transaction,
            missing_wh: *missing,
            state: *cause,
        }),
        _ => Data::Nothing,
    }
}

impl<'a> From<&'a TransactionFacts> for AboutTransaction<'a> {
    fn from(facts: &'a TransactionFacts) -> Self {
        Self {
            transaction_id: &facts.transaction,
            charger: &facts.charger,
            evse: facts.evse,
            connector: facts.connector,
            token: facts.token.as_ref(),
            started: facts.started,
            meter_start_wh: facts.meter_start,
        }
    }
}

impl<'a> From<&'a SignedNote> for SignedValueData<'a> {
    fn from(note: &'a SignedNote) -> Self {
        let SignedNote { charger, evse, transaction, at, value, page, page_fault, check, reason } = note;
        Self {
            transaction_id: transaction.as_ref(),
            charger,
            evse: *evse,
            at: *at,
            context: value.context.as_deref(),
            signed_data: &value.data,
            encoding_method: value.encoding.as_deref(),
            signing_method: value.method.as_deref(),
            public_key: value.key.as_deref(),
            page: page.as_ref(),
            page_fault: *page_fault,
            verification: *check,
            reason: reason.as_deref(),
        }
    }
}

impl<'a> From<&'a Balance> for EnergyBalance<'a> {
    fn from(balance: &'a Balance) -> Self {
        Self {
            from: balance.from,
            to: balance.to,
            evses: balance.evses.iter().map(BalanceOfEvse::from).collect(),
            circuits: balance.circuits.iter().map(BalanceOfCircuit::from).collect(),
        }
    }
}

impl<'a> From<&'a EvseBalance> for BalanceOfEvse<'a> {
    fn from(evse: &'a EvseBalance) -> Self {
        Self {
            charger: &evse.charger,
            evse: evse.evse,
            register_start_wh: evse.register_start,
            register_end_wh: evse.register_end,
            transactions_wh: evse.transactions,
            difference_wh: evse.difference(),
            verdict: evse.verdict,
            reason: evse.reason.as_deref(),
        }
    }
}

impl<'a> From<&'a CircuitBalance> for BalanceOfCircuit<'a> {
    fn from(circuit: &'a CircuitBalance) -> Self {
        Self {
            circuit: &circuit.circuit,
            comparison: circuit.comparison,
            metered_wh: circuit.metered,
            chargers_wh: circuit.chargers,
            tolerance_wh: circuit.tolerance,
            verdict: circuit.verdict,
            reason: circuit.reason.as_deref(),
        }
    }
}

impl<'a> From<&'a TokensOrder> for TokensChanged<'a> {
    fn from(order: &'a TokensOrder) -> Self {
        let part = order.part();
        Self {
            cause: "tokens",
            change: order.word(),
            entries: order.count(),
            list: part.map(|part| part.list.as_str()),
            part: part.map(|part| part.part),
            parts: part.map(|part| part.parts),
        }
    }
}

/// Only a difference of two known registers is an energy; a missing one is never taken for 0.
fn energy(facts: &TransactionFacts, register: Option<Energy>) -> Option<Energy> {
    Some(register? - facts.meter_start?)
}
