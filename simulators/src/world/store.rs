//! The journal and the broker as the controller sees them: records become durable later, and a crash takes the rest.

use std::collections::VecDeque;

use siteward::engine::model::ids::Sequence;
use siteward::engine::model::record::Record;
use siteward::engine::site::Restored;
use siteward::engine::site::ledger::Ledger;

/// A journal on a disk with moods.
#[derive(Debug, Default)]
pub(super) struct Journal {
    pending: Vec<Record>,
    durable: VecDeque<Record>,
    durable_through: u64,
    snapshot: Option<(Sequence, Vec<u8>)>,
    acknowledged: Sequence,
    /// The disk takes nothing, for this reason.
    pub(super) refuses: Option<&'static str>,
    /// A flush takes long.
    pub(super) slow: bool,
    /// The controller has been told that it is full.
    pub(super) told_full: bool,
    /// A flush is under way.
    pub(super) flushing: bool,
    boot: u64,
    /// The fold of everything that ever became durable, without snapshots and restarts.
    fold: Ledger,
    /// The latest memory that the controller wants back at its next start; kept beside the records.
    remembered: Option<Vec<u8>>,
}

impl Journal {
    pub(super) fn append(&mut self, record: Record) {
        self.pending.push(record);
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) const fn durable_through(&self) -> u64 {
        self.durable_through
    }

    /// The state of a controller that was never started again, as far as it is durable.
    pub(super) const fn never_restarted(&self) -> &Ledger {
        &self.fold
    }

    pub(super) const fn flush_ms(&self) -> u64 {
        if self.slow { 3_000 } else { 20 }
    }

    /// Everything that waits is on disk now. The last of it.
    pub(super) fn flush(&mut self) -> Sequence {
        for record in self.pending.drain(..) {
            self.durable_through = record.sequence.0;
            self.fold.apply(&record);
            self.durable.push_back(record);
        }
        Sequence(self.durable_through)
    }

    pub(super) fn keep_snapshot(&mut self, through: Sequence, state: Vec<u8>) {
        // A snapshot of records that are not on disk yet would bring back what was never promised.
        if through.0 <= self.durable_through {
            self.snapshot = Some((through, state));
            self.prune();
        }
    }

    pub(super) fn remember(&mut self, memory: Vec<u8>) {
        // It lies on a RAM disk, which is never full and outlives the process.
        self.remembered = Some(memory);
    }

    pub(super) fn acknowledge(&mut self, through: Sequence) {
        self.acknowledged = self.acknowledged.max(through);
        self.prune();
    }

    pub(super) fn read(&self, from: Sequence, limit: usize) -> Vec<Record> {
        let first = self.durable.partition_point(|record| record.sequence < from);
        self.durable.range(first..).take(limit).cloned().collect()
    }

    /// The power is gone: what is not on disk is lost.
    pub(super) fn crash(&mut self) {
        self.pending.clear();
        self.flushing = false;
        self.told_full = false;
    }

    /// What the next start finds.
    pub(super) fn restore(&mut self) -> Result<Restored, String> {
        self.boot += 1;
        let (through, mut ledger) = match &self.snapshot {
            None => (Sequence(0), Ledger::default()),
            Some((through, state)) => (*through, Ledger::restore(state).map_err(|error| error.to_string())?),
        };
        for record in self.durable.iter().filter(|record| record.sequence > through) {
            ledger.apply(record);
        }
        Ok(Restored {
            cause: None,
            store_id: "world".to_owned(),
            boot: self.boot,
            ledger,
            snapshot_at: through,
            acknowledged: self.acknowledged,
            damage: None,
            remembered: self.remembered.clone(),
        })
    }

    fn prune(&mut self) {
        let folded = self.snapshot.as_ref().map_or(Sequence(0), |(through, _)| *through);
        let done = folded.min(self.acknowledged);
        while self.durable.front().is_some_and(|record| record.sequence <= done) {
            self.durable.pop_front();
        }
    }
}
