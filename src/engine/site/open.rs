//! Transactions as the ledger keeps them: while they run, and shortly after.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::accounts::{Closed, UntrustedTime};
use crate::engine::billing::split::{ActivityAt, RegisterAt};
use crate::engine::model::cdr::Sealed;
use crate::engine::model::exchange::TransactionPhase;
use crate::engine::model::ids::Sequence;
use crate::engine::model::record::TransactionFacts;
use crate::engine::model::signed::SignedNote;
use crate::engine::model::tariff::Tariff;
use crate::engine::time::Utc;
use crate::engine::units::Energy;

/// How many 2.x events of a transaction are remembered to know a resent one again.
const REMEMBERED_EVENTS: usize = 32;

/// How many registers of a running transaction are kept for its bill: ten days of quarters of an hour.
const REMEMBERED_REGISTERS: usize = 1_000;

/// So many signed values of a transaction are kept for its CDR, and so many bytes of them.
const MOST_SIGNED: usize = 32;
const MOST_SIGNED_BYTES: usize = 64 * 1024;

/// A running transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenTransaction {
    /// What is known of it.
    pub facts: TransactionFacts,
    /// The last energy register recorded.
    pub meter: Option<Energy>,
    /// When it was last recorded, by the station's clock.
    pub recorded_at: Utc,
    /// The record of its start.
    pub started_by: Sequence,
    events: VecDeque<EventKey>,
    /// Its prices.
    #[serde(default)]
    pub tariff: Option<Tariff>,
    /// The registers recorded, for its bill.
    #[serde(default)]
    pub registers: Vec<RegisterAt>,
    /// When the car began and stopped to take energy.
    #[serde(default)]
    pub activity: Vec<ActivityAt>,
    /// What its CDR will say of the token and the place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Box<Sealed>>,
    /// Times in it that were told while our clock was not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub untrusted: Vec<UntrustedTime>,
    /// What its meter has signed, for its CDR: the first and the last of it where it is much.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signed: Vec<SignedNote>,
}

/// What makes two 2.x events the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventKey {
    /// Begin, change or end.
    pub phase: TransactionPhase,
    /// The station's number for it.
    pub seq_no: i64,
    /// When it happened, by the station's clock.
    pub at: Utc,
    /// Why an update was sent: two of one second are two for a station that numbers nothing.
    #[serde(default)]
    pub trigger: Option<String>,
}

/// A transaction that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedTransaction {
    /// What was known of it.
    pub facts: TransactionFacts,
    /// When it ended, by the station's clock.
    pub ended: Utc,
    /// The energy register at the end.
    pub meter_stop: Option<Energy>,
    /// The record of its start.
    pub started_by: Sequence,
    /// The record of its end.
    pub ended_by: Sequence,
    /// The end was put together from something else than the station's own word for it.
    #[serde(default)]
    pub reconstructed: bool,
}

impl OpenTransaction {
    /// One that was first heard of at that time, with that register, by that record.
    pub(super) fn new(
        facts: &TransactionFacts,
        (recorded_at, meter): (Utc, Option<Energy>),
        started_by: Sequence,
    ) -> Self {
        Self {
            facts: facts.clone(),
            meter,
            recorded_at,
            started_by,
            events: VecDeque::new(),
            tariff: None,
            registers: Vec::new(),
            activity: Vec::new(),
            sealed: None,
            untrusted: Vec::new(),
            signed: Vec::new(),
        }
    }

    /// Bounded: the values in between go first. The journal has them all.
    pub(super) fn keep_signed(&mut self, note: &SignedNote) {
        self.signed.push(note.clone());
        let bytes = |signed: &[SignedNote]| signed.iter().map(|note| note.value.data.len()).sum::<usize>();
        while self.signed.len() > 2 && (self.signed.len() > MOST_SIGNED || bytes(&self.signed) > MOST_SIGNED_BYTES) {
            self.signed.remove(1);
        }
    }

    /// Bounded: of a very long transaction every second register in between goes, so that the split becomes coarser, never wrong in sum.
    pub(super) fn note_register(&mut self, sample: RegisterAt) {
        if self.registers.len() >= REMEMBERED_REGISTERS {
            let mut keep = false;
            self.registers.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.registers.push(sample);
    }

    pub(super) fn note(&mut self, key: Option<EventKey>) {
        if let Some(key) = key {
            self.events.push_back(key);
            if self.events.len() > REMEMBERED_EVENTS {
                self.events.pop_front();
            }
        }
    }

    /// What its CDR is made of; `None` if it gets none.
    pub(super) fn closed(
        mut self,
        facts: &TransactionFacts,
        (ended, meter_stop): (Utc, Option<Energy>),
        ended_by: Sequence,
    ) -> Option<Closed> {
        let sealed = *self.sealed.take()?;
        self.tariff.as_ref()?;
        self.facts = facts.clone();
        self.events.clear();
        let untrusted = std::mem::take(&mut self.untrusted);
        Some(Closed { open: self, sealed, ended, meter_stop, ended_by, untrusted, corrections: 0 })
    }

    /// Whether this 2.x event was recorded before.
    #[must_use]
    pub fn knows(&self, event: &EventKey) -> bool {
        self.events.contains(event)
    }
}
