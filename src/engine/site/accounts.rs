//! What bills and their corrections need after a transaction has ended: part of the fold of the records.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::ledger::OpenTransaction;
use crate::engine::model::cdr::{Cdr, CdrNote, Sealed};
use crate::engine::model::ids::{Sequence, StationId, TransactionId};
use crate::engine::model::record::{Stamp, TransactionFacts};
use crate::engine::model::signed::SignedNote;
use crate::engine::time::{Mono, Utc};
use crate::engine::units::Energy;

/// So many transactions may wait for their CDR, which is only where the calendar time stays unknown. Room is made before one more ends: nothing is
/// dropped here. Those that are billed anew, of the last that were billed, may wait besides.
pub(super) const MOST_WAITING: usize = 1_000;

/// So many CDRs are kept on site, to be corrected.
const MOST_ISSUED: usize = 200;

/// So often a transaction is corrected; a station that goes on is broken.
const MOST_CORRECTIONS: u32 = 8;

/// So many times of a transaction are kept that were told while our clock was not known.
const MOST_UNTRUSTED: usize = 1_000;

/// Of so many starts it is remembered what the calendar showed.
const MOST_CLOCKS: usize = 16;

/// What bills need after transactions have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accounts {
    /// Ended, to be billed, oldest first.
    waiting: VecDeque<Closed>,
    /// Billed, or found not to be billable, oldest first.
    issued: VecDeque<Issued>,
    clocks: VecDeque<Clock>,
}

/// A time by a station's clock that was told while our own was not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UntrustedTime {
    /// The time as it was told.
    pub at: Utc,
    /// When it was told.
    pub stamp: Stamp,
}

/// A transaction that is over and has prices and a place in a CDR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// What was known of it while it ran, with its prices.
    pub open: OpenTransaction,
    /// Operator, token and place as they were when the prices were set.
    pub sealed: Sealed,
    /// When it ended, by the station's clock.
    pub ended: Utc,
    /// The register then.
    pub meter_stop: Option<Energy>,
    /// The record of its end.
    pub ended_by: Sequence,
    /// The times in it that are to be corrected.
    pub untrusted: Vec<UntrustedTime>,
    /// How often it was corrected.
    #[serde(default)]
    pub corrections: u32,
}

/// What became of a transaction's bill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// The transaction.
    pub closed: Closed,
    /// The CDR; `None`: there could be none.
    pub cdr: Option<Box<Cdr>>,
    /// A credit CDR has taken it back.
    pub credited: bool,
    /// Why the CDR is not right any more.
    pub stale: Option<String>,
}

/// What the calendar showed in one run of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Clock {
    boot: u64,
    /// The time less the monotonic clock, in ms.
    offset_ms: i64,
}

impl Accounts {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What waits for its CDR, oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = &Closed> {
        self.waiting.iter()
    }

    /// The oldest of those that wait, if there is no room for one more.
    pub(super) fn too_many(&self) -> Option<&Closed> {
        self.waiting.front().filter(|_| self.waiting.len() >= MOST_WAITING)
    }

    /// The CDRs that are not right any more and were not taken back yet.
    pub fn stale(&self) -> impl Iterator<Item = &Issued> {
        self.issued.iter().filter(|issued| issued.stale.is_some() && !issued.credited)
    }

    /// The CDR of that id, as long as it is kept.
    #[must_use]
    pub fn issued(&self, id: &str) -> Option<&Issued> {
        self.issued.iter().find(|issued| issued.cdr.as_ref().is_some_and(|cdr| cdr.id == id))
    }

    /// Whether a transaction with a bill has ended here that may still be corrected.
    #[must_use]
    pub fn may_correct(&self, charger: &StationId, transaction: &TransactionId) -> bool {
        self.bill_parts(charger, transaction).is_some_and(|closed| closed.corrections < MOST_CORRECTIONS)
    }

    /// The transaction with a bill that ended last of that name.
    #[must_use]
    pub fn bill_parts(&self, charger: &StationId, transaction: &TransactionId) -> Option<&Closed> {
        let found = self.waiting.iter().rev().chain(self.issued.iter().rev().map(|issued| &issued.closed));
        let mut found = found.filter(|closed| closed.is_of(charger, transaction));
        found.next()
    }

    /// The time less the monotonic clock in ms in the run numbered `boot`, if it was ever known.
    #[must_use]
    pub fn clock_of(&self, boot: u64) -> Option<i64> {
        self.clocks.iter().find(|clock| clock.boot == boot).map(|clock| clock.offset_ms)
    }

    /// Takes in the time of a record.
    pub(super) fn note_clock(&mut self, stamp: Stamp) {
        if !stamp.trusted {
            return;
        }
        let offset_ms = offset_ms(stamp.utc, stamp.mono);
        match self.clocks.iter_mut().find(|clock| clock.boot == stamp.boot) {
            Some(clock) => clock.offset_ms = offset_ms,
            None => self.clocks.push_back(Clock { boot: stamp.boot, offset_ms }),
        }
        if self.clocks.len() > MOST_CLOCKS {
            self.clocks.pop_front();
        }
    }

    /// A transaction has ended.
    pub(super) fn close(&mut self, closed: Closed) {
        self.waiting.push_back(closed);
    }

    /// A value of a transaction that is over was signed.
    pub(super) fn keep_signed(&mut self, charger: &StationId, transaction: &TransactionId, note: &SignedNote) {
        let found = self.waiting.iter_mut().rev().chain(self.issued.iter_mut().rev().map(|issued| &mut issued.closed));
        let mut found = found.filter(|closed| closed.is_of(charger, transaction));
        if let Some(closed) = found.next() {
            closed.open.keep_signed(note);
        }
    }

    /// It is known better how a transaction ended.
    pub(super) fn correct(
        &mut self,
        facts: &TransactionFacts,
        (ended, meter_stop): (Utc, Option<Energy>),
        stamp: Stamp,
        why: &str,
    ) {
        let of = |closed: &Closed| closed.is_of(&facts.charger, &facts.transaction);
        let right = |closed: &mut Closed| {
            closed.ended = ended;
            closed.meter_stop = meter_stop;
            closed.corrections += 1;
            note_untrusted(&mut closed.untrusted, ended, stamp);
        };
        if let Some(closed) = self.waiting.iter_mut().rev().find(|closed| of(closed)) {
            return right(closed);
        }
        let found = self.issued.iter().rposition(|issued| of(&issued.closed) && !issued.credited);
        let Some(issued) = found.and_then(|index| self.issued.get_mut(index)) else { return };
        right(&mut issued.closed);
        if issued.cdr.is_some() {
            issued.stale = Some(why.to_owned());
        } else if let Some(issued) = found.and_then(|index| self.issued.remove(index)) {
            self.close(issued.closed);
        }
    }

    /// A CDR was made.
    pub(super) fn issue(&mut self, note: &CdrNote) {
        if let Some(credited) = &note.cdr.credit_reference_id {
            let of = |issued: &&mut Issued| issued.cdr.as_ref().is_some_and(|cdr| cdr.id == *credited);
            let Some(issued) = self.issued.iter_mut().find(of) else { return };
            issued.credited = true;
            issued.stale = None;
            if note.reissue {
                let closed = issued.closed.clone();
                self.close(closed);
            }
            return;
        }
        self.settle(note.ended_by, Some(&note.cdr));
    }

    /// There can be no CDR.
    pub(super) fn withhold(&mut self, ended_by: Sequence) {
        self.settle(ended_by, None);
    }

    fn settle(&mut self, ended_by: Sequence, cdr: Option<&Cdr>) {
        let Some(index) = self.waiting.iter().position(|closed| closed.ended_by == ended_by) else { return };
        let Some(closed) = self.waiting.remove(index) else { return };
        let issued = Issued { closed, cdr: cdr.cloned().map(Box::new), credited: false, stale: None };
        push_bounded(&mut self.issued, issued, MOST_ISSUED);
    }
}

impl Closed {
    fn is_of(&self, charger: &StationId, transaction: &TransactionId) -> bool {
        self.open.facts.charger == *charger && self.open.facts.transaction == *transaction
    }
}

/// Keeps a time that was told while our clock was not known.
pub(super) fn note_untrusted(times: &mut Vec<UntrustedTime>, at: Utc, stamp: Stamp) {
    if !stamp.trusted && times.len() < MOST_UNTRUSTED {
        times.push(UntrustedTime { at, stamp });
    }
}

/// The time less the monotonic clock, in ms.
#[must_use]
pub fn offset_ms(utc: Utc, mono: Mono) -> i64 {
    utc.unix_ms().saturating_sub(i64::try_from(mono.ms()).unwrap_or(i64::MAX))
}

fn push_bounded<T>(queue: &mut VecDeque<T>, item: T, bound: usize) {
    queue.push_back(item);
    if queue.len() > bound {
        queue.pop_front();
    }
}
