//! What the energy balance needs over days: the registers at the last one, and what transactions account for since. Part of the fold of
//! the records.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::engine::model::balance::{Balance, MeterRegisters};
use crate::engine::model::ids::{CircuitId, StationId, TransactionId};
use crate::engine::model::record::TransactionFacts;
use crate::engine::time::Utc;
use crate::engine::units::Energy;

/// What is counted between two balances.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// When the last balance was made.
    pub until: Option<Utc>,
    evses: BTreeMap<StationId, BTreeMap<u32, EvseCount>>,
    circuits: BTreeMap<CircuitId, MeterRegisters>,
}

/// What is counted at an EVSE.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvseCount {
    /// The register at the last balance, or the first that was ever told.
    pub start: Option<Energy>,
    /// The last register.
    pub last: Option<Energy>,
    /// What transactions account for since the last balance.
    pub transactions: Energy,
    /// The transaction that ran through the last balance: it is counted from there.
    pub running: Option<TransactionId>,
    /// A transaction had no register at one of its ends.
    pub is_unknown: bool,
    /// A transaction began below the register before it, as with stations whose register begins anew each time.
    #[serde(default)]
    pub has_stepped_back: bool,
}

/// Registers of whole Wh that were rounded differently are no step.
const STEP: Energy = Energy::from_wh(100);

impl EvseCount {
    /// Whether a transaction that is counted from there begins below the last register.
    #[must_use]
    pub fn steps_back_to(&self, from: Energy) -> bool {
        self.last.is_some_and(|last| last - from > STEP)
    }

    /// From which register on a transaction is counted.
    #[must_use]
    pub fn counts_from(&self, transaction: &TransactionId, meter_start: Option<Energy>) -> Option<Energy> {
        if self.running.as_ref() == Some(transaction) { self.last } else { meter_start }
    }
}

impl Counted {
    /// Whether nothing was ever counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is counted at an EVSE.
    #[must_use]
    pub fn evse(&self, charger: &StationId, evse: u32) -> Option<&EvseCount> {
        self.evses.get(charger)?.get(&evse)
    }

    /// A circuit's meter at the last balance.
    #[must_use]
    pub fn circuit(&self, circuit: &CircuitId) -> Option<&MeterRegisters> {
        self.circuits.get(circuit)
    }

    fn evse_mut(&mut self, facts: &TransactionFacts) -> &mut EvseCount {
        self.evses.entry(facts.charger.clone()).or_default().entry(facts.evse).or_default()
    }

    /// A transaction is over.
    pub(super) fn ended(&mut self, facts: &TransactionFacts, meter_stop: Option<Energy>) {
        let count = self.evse_mut(facts);
        let from = count.counts_from(&facts.transaction, facts.meter_start);
        count.running = None;
        let Some((from, stop)) = from.zip(meter_stop) else {
            // Where only the end was told, not even its EVSE is sure.
            count.is_unknown = true;
            return;
        };
        count.has_stepped_back |= count.steps_back_to(from);
        count.start.get_or_insert(from);
        count.transactions += stop - from;
        count.last = Some(stop);
    }

    /// It is known better with which register a transaction ended.
    pub(super) fn corrected(
        &mut self,
        facts: &TransactionFacts,
        ended: Utc,
        (before, after): (Option<Energy>, Option<Energy>),
    ) {
        // What was balanced already stays as it was.
        if self.until.is_some_and(|until| ended < until) {
            return;
        }
        let Some((before, after)) = before.zip(after) else { return };
        let count = self.evse_mut(facts);
        count.transactions += after - before;
        if count.last == Some(before) {
            count.last = Some(after);
        }
    }

    /// A balance was made: counting begins anew. `running` says which transaction runs at an EVSE.
    pub(super) fn balanced(&mut self, balance: &Balance, running: impl Fn(&StationId, u32) -> Option<TransactionId>) {
        self.until = Some(balance.to);
        for evse in &balance.evses {
            let count = self.evses.entry(evse.charger.clone()).or_default().entry(evse.evse).or_default();
            count.last = evse.register_end.or(count.last);
        }
        for (charger, evses) in &mut self.evses {
            for (evse, count) in evses {
                count.start = count.last;
                count.transactions = Energy::default();
                count.is_unknown = false;
                count.has_stepped_back = false;
                count.running = running(charger, *evse).filter(|_| count.last.is_some());
            }
        }
        self.circuits =
            balance.circuits.iter().filter_map(|circuit| Some((circuit.circuit.clone(), circuit.registers?))).collect();
    }
}
