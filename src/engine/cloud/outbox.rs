//! The outbox: a cursor over the journal that says which record goes to the broker next, and how far the cloud has got.
//!
//! Records leave in order and one after the other. Whenever something is lost or refused, sending goes back to the first record
//! that was not taken and repeats everything from there, as TCP does: a receiver that takes only the sequence after its last one
//! has every event exactly once and in order. Rejected: sending again only the one that was refused, since the events after it
//! would then have come first.

use std::collections::{BTreeSet, VecDeque};

use crate::engine::model::ids::Sequence;
use crate::engine::model::record::Record;
use crate::engine::model::setup::Acknowledge;
use crate::engine::time::Mono;

/// Records that wait for the broker's PUBACK at most. Measured: a larger window gains nothing, and it bounds the duplicates after a
/// lost connection.
pub const WINDOW: u64 = 100;
/// Records read ahead of sending at most: two windows, so that the disk is not asked for each record. About 100 KB.
pub const READ_AHEAD: usize = 200;
/// Records asked for in one read at most.
pub const READ_BATCH: usize = 100;
/// Records sent beyond the application's acknowledgement at most: what a broker queues for a consumer that is away (mosquitto's
/// default `max_queued_messages` is 1000) and what is sent twice when it comes back.
pub const MAX_UNACKNOWLEDGED: u64 = 1_000;
/// The cursor is reported in steps of so many while more is in flight: each report wakes whoever keeps it.
const REPORT_STEP: u64 = WINDOW / 2;
/// In application mode: so long nothing may be acknowledged before everything is sent again, in ms.
const STANDSTILL_MS: u64 = 60_000;
/// The longest wait before everything is sent again once more, in ms: doubled from [`STANDSTILL_MS`] as long as nothing is acknowledged.
const STANDSTILL_MAX_MS: u64 = 960_000;
/// The wait after a refusal, in ms: doubled up to [`REFUSED_MAX_MS`] as long as the broker takes nothing.
const REFUSED_MS: u64 = 1_000;
/// The longest wait after a refusal, in ms.
const REFUSED_MAX_MS: u64 = 30_000;
/// So long a read may stay unanswered before it is asked again, in ms (the journal refuses reads while the disk fails).
const READ_TIMEOUT_MS: u64 = 5_000;
/// The wait after a read that gave nothing, in ms.
const EMPTY_READ_MS: u64 = 1_000;

/// What the outbox wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum OutboxAction {
    /// Read durable records and give them to [`Outbox::records`].
    Read {
        /// The first one wanted.
        from: Sequence,
        /// How many at most.
        limit: usize,
    },
    /// Publish a record.
    Publish(Box<Record>),
    /// The cursor has moved: the cloud has everything up to this record, it need not be kept.
    Acknowledged(Sequence),
}

/// Sending is stopped until the broker has answered for all that is in flight; then it starts again from a record.
#[derive(Clone, Copy, Debug)]
struct Rewind {
    to: u64,
    /// `None`: the wait begins with the next poll.
    not_before: Option<Mono>,
    wait_ms: u64,
}

/// The cursor. All its calls are cheap; [`Outbox::poll`] is called after every other one and with every tick.
#[derive(Debug)]
pub struct Outbox {
    mode: Acknowledge,
    connected: bool,
    /// The cloud has everything up to here. Never moves back.
    acknowledged: u64,
    /// Reported by [`OutboxAction::Acknowledged`].
    reported: u64,
    durable: u64,
    /// No acknowledgement beyond this is believed.
    sent_through: Option<u64>,
    /// The next record to be published.
    next: u64,
    /// The broker has taken everything up to here since sending last started again.
    taken_through: u64,
    /// Taken beyond `taken_through`; fewer than [`WINDOW`].
    taken: BTreeSet<u64>,
    in_flight: BTreeSet<u64>,
    ahead: VecDeque<Record>,
    rewind: Option<Rewind>,
    /// A replay goes on until the broker has taken this one.
    replay_through: Option<u64>,
    refused_wait_ms: u64,
    standstill_wait_ms: u64,
    progress_at: Option<Mono>,
    /// The read under way: from which record, and since when.
    reading: Option<(u64, Mono)>,
    read_was_empty: bool,
    read_not_before: Mono,
}

impl Outbox {
    /// An outbox that is not connected, behind the last record that the cloud has acknowledged.
    #[must_use]
    pub fn new(mode: Acknowledge, acknowledged: Sequence) -> Self {
        Self {
            mode,
            connected: false,
            acknowledged: acknowledged.0,
            reported: acknowledged.0,
            durable: acknowledged.0,
            sent_through: None,
            next: acknowledged.0 + 1,
            taken_through: acknowledged.0,
            taken: BTreeSet::new(),
            in_flight: BTreeSet::new(),
            ahead: VecDeque::new(),
            rewind: None,
            replay_through: None,
            refused_wait_ms: REFUSED_MS,
            standstill_wait_ms: STANDSTILL_MS,
            progress_at: None,
            reading: None,
            read_was_empty: false,
            read_not_before: Mono::START,
        }
    }

    /// A connection was made: sending starts again behind the cursor (in a replay, behind what the broker has taken of it).
    pub fn connected(&mut self) {
        self.connected = true;
        self.restart();
    }

    /// The connection is gone, and with it every answer to what was in flight.
    pub fn disconnected(&mut self) {
        self.connected = false;
        self.restart();
    }

    /// Records up to `through` are durable: only they may leave. The first call says what the store held at the start.
    pub fn durable(&mut self, through: Sequence) {
        self.durable = self.durable.max(through.0);
        // An acknowledgement may arrive for what an earlier life of the daemon has sent.
        self.sent_through.get_or_insert(through.0);
    }

    /// The answer to [`OutboxAction::Read`]. Records that are not wanted any more are dropped.
    pub fn records(&mut self, records: Vec<Record>) {
        let asked_from = self.reading.take().map(|(from, _)| from);
        self.read_was_empty = true;
        for record in records {
            let wanted = self.wanted();
            let sequence = record.sequence.0;
            if sequence > self.durable || self.ahead.len() >= READ_AHEAD {
                return;
            }
            if sequence > wanted && asked_from == Some(wanted) && sequence <= self.acknowledged + 1 {
                // A replay from before the oldest record that is kept begins with that one. Beyond the cursor nothing is skipped.
                self.next = sequence;
                self.taken_through = sequence - 1;
            } else if sequence != wanted {
                continue;
            }
            self.read_was_empty = false;
            self.ahead.push_back(record);
        }
    }

    /// The broker has taken a record over (PUBACK with success).
    pub fn broker_acknowledged(&mut self, sequence: Sequence) {
        if !self.in_flight.remove(&sequence.0) {
            return;
        }
        if sequence.0 > self.taken_through {
            self.taken.insert(sequence.0);
        }
        while self.taken.remove(&(self.taken_through + 1)) {
            self.taken_through += 1;
            self.refused_wait_ms = REFUSED_MS;
        }
        if self.replay_through.is_some_and(|through| self.taken_through >= through) {
            self.replay_through = None;
        }
        if self.mode == Acknowledge::Broker && self.taken_through > self.acknowledged {
            self.acknowledged = self.taken_through;
        }
    }

    /// The broker refused a record, or nobody was there to take it. It and all after it are sent again after a while.
    pub fn not_taken(&mut self, sequence: Sequence, now: Mono) {
        if !self.in_flight.remove(&sequence.0) {
            return;
        }
        let wait_ms = self.refused_wait_ms;
        let to = self.rewind.map_or(sequence.0, |rewind| rewind.to.min(sequence.0));
        if self.rewind.is_none() {
            self.refused_wait_ms = (wait_ms * 2).min(REFUSED_MAX_MS);
        }
        self.rewind = Some(Rewind { to, not_before: Some(now.plus_ms(wait_ms)), wait_ms });
    }

    /// The cloud says that it has everything up to `through` (`events.acknowledge`). Old news change nothing.
    ///
    /// # Errors
    /// If the site counts an event as delivered at the broker, or if `through` was never sent.
    pub fn application_acknowledged(&mut self, through: Sequence) -> Result<(), String> {
        if self.mode == Acknowledge::Broker {
            return Err(
                "this site counts an event as delivered when the broker has it (cloud.acknowledge = \"broker\"); \
                        set it to \"application\" to use events.acknowledge"
                    .to_owned(),
            );
        }
        let sent_through = self.sent_through.unwrap_or(self.acknowledged).max(self.acknowledged);
        if through.0 > sent_through {
            return Err(format!("sequence {through} was never sent; the last one sent is {sent_through}"));
        }
        if through.0 <= self.acknowledged {
            return Ok(());
        }
        self.acknowledged = through.0;
        self.progress_at = None;
        self.standstill_wait_ms = STANDSTILL_MS;
        if self.replay_through.is_none() && self.acknowledged >= self.next {
            self.start_from(self.acknowledged + 1);
        }
        Ok(())
    }

    /// Sends again from `from` on (`events.replay`). The cursor does not move back: what was acknowledged stays acknowledged.
    ///
    /// # Errors
    /// If `from` is 0 or not a durable record.
    pub fn replay(&mut self, from: Sequence) -> Result<(), String> {
        if from.0 == 0 || from.0 > self.durable {
            return Err(format!("from_sequence {from} does not exist; it must be from 1 to {}", self.durable));
        }
        let through = self.next.saturating_sub(1).max(self.acknowledged);
        if from.0 <= through {
            self.replay_through = Some(self.replay_through.map_or(through, |earlier| earlier.max(through)));
            let to = self.rewind.map_or(from.0, |rewind| rewind.to.min(from.0));
            self.rewind = Some(Rewind { to, not_before: None, wait_ms: 0 });
        }
        Ok(())
    }

    /// What is to be done now.
    pub fn poll(&mut self, now: Mono) -> Vec<OutboxAction> {
        let mut actions = Vec::new();
        if self.connected {
            self.finish_standstill(now);
            self.finish_rewind(now);
            self.publish(&mut actions);
            self.watch_standstill(now);
        }
        let step = if self.in_flight.is_empty() { 1 } else { REPORT_STEP };
        if self.acknowledged >= self.reported + step {
            self.reported = self.acknowledged;
            actions.push(OutboxAction::Acknowledged(Sequence(self.acknowledged)));
        }
        if self.connected {
            self.read(now, &mut actions);
        }
        actions
    }

    /// The last record that the cloud has.
    #[must_use]
    pub const fn acknowledged(&self) -> Sequence {
        Sequence(self.acknowledged)
    }

    /// Whether nothing more may be sent now: everything was, or what was waits for its acknowledgement.
    #[must_use]
    pub const fn has_sent_all(&self) -> bool {
        self.rewind.is_none() && (self.next > self.durable || !self.within_application_window())
    }

    /// How many durable records the cloud does not have.
    #[must_use]
    pub const fn backlog(&self) -> u64 {
        self.durable.saturating_sub(self.acknowledged)
    }

    fn restart(&mut self) {
        let behind_cursor = self.acknowledged + 1;
        let mut from = behind_cursor;
        if self.replay_through.is_some() {
            from = from.min(self.taken_through + 1);
        }
        if let Some(rewind) = self.rewind.take() {
            from = from.min(rewind.to);
        }
        self.in_flight.clear();
        self.progress_at = None;
        self.standstill_wait_ms = STANDSTILL_MS;
        self.start_from(from);
    }

    fn start_from(&mut self, from: u64) {
        self.next = from;
        self.taken_through = from - 1;
        self.taken.clear();
        while self.ahead.front().is_some_and(|record| record.sequence.0 < from) {
            self.ahead.pop_front();
        }
        if self.ahead.front().is_some_and(|record| record.sequence.0 != from) {
            self.ahead.clear();
        }
        self.read_was_empty = false;
    }

    fn wanted(&self) -> u64 {
        self.ahead.back().map_or(self.next, |record| record.sequence.0 + 1)
    }

    /// In application mode the broker may have lost what it took over, or the consumer was away: the wait for it begins.
    fn watch_standstill(&mut self, now: Mono) {
        if self.mode == Acknowledge::Application && self.next > self.acknowledged + 1 {
            self.progress_at.get_or_insert(now);
        } else {
            self.progress_at = None;
        }
    }

    /// The wait for the application's acknowledgement is over: everything goes out again, once, also where a replay is about to begin.
    fn finish_standstill(&mut self, now: Mono) {
        if self.progress_at.is_some_and(|since| now.since(since) >= self.standstill_wait_ms) {
            self.progress_at = None;
            self.standstill_wait_ms = (self.standstill_wait_ms * 2).min(STANDSTILL_MAX_MS);
            let all = self.acknowledged + 1;
            let begins = Rewind { to: all, not_before: None, wait_ms: 0 };
            self.rewind = Some(self.rewind.map_or(begins, |earlier| Rewind { to: earlier.to.min(all), ..earlier }));
        }
    }

    fn finish_rewind(&mut self, now: Mono) {
        let Some(rewind) = &mut self.rewind else { return };
        let wait_ms = rewind.wait_ms;
        let not_before = *rewind.not_before.get_or_insert(now.plus_ms(wait_ms));
        // Waiting for the answers keeps a late one from being taken for the answer to the repetition.
        if self.in_flight.is_empty() && now >= not_before {
            let to = rewind.to;
            self.rewind = None;
            let acknowledged_meanwhile = self.replay_through.is_none() && to <= self.acknowledged;
            self.start_from(if acknowledged_meanwhile { self.acknowledged + 1 } else { to });
        }
    }

    fn publish(&mut self, actions: &mut Vec<OutboxAction>) {
        if self.rewind.is_some() {
            return;
        }
        while self.next <= self.taken_through + WINDOW && self.within_application_window() {
            if self.ahead.front().is_none_or(|record| record.sequence.0 != self.next) {
                return;
            }
            let Some(record) = self.ahead.pop_front() else { return };
            self.in_flight.insert(self.next);
            self.sent_through = self.sent_through.max(Some(self.next));
            self.next += 1;
            actions.push(OutboxAction::Publish(Box::new(record)));
        }
    }

    const fn within_application_window(&self) -> bool {
        matches!(self.mode, Acknowledge::Broker) || self.next <= self.acknowledged + MAX_UNACKNOWLEDGED
    }

    fn read(&mut self, now: Mono, actions: &mut Vec<OutboxAction>) {
        if std::mem::take(&mut self.read_was_empty) {
            self.read_not_before = now.plus_ms(EMPTY_READ_MS);
        }
        let waits = self.reading.is_some_and(|(_, since)| now.since(since) < READ_TIMEOUT_MS);
        let room = READ_AHEAD - self.ahead.len();
        let from = self.wanted();
        // Below half a batch of room it is not worth the disk's time.
        if waits || now < self.read_not_before || room < READ_BATCH / 2 || from > self.durable || self.rewind.is_some()
        {
            return;
        }
        let left = usize::try_from(self.durable - from + 1).unwrap_or(usize::MAX);
        self.reading = Some((from, now));
        actions.push(OutboxAction::Read { from: Sequence(from), limit: room.min(READ_BATCH).min(left) });
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
