//! The courier: a cursor over the telemetry ring that says which interval goes to the broker next.
//!
//! Telemetry gives way: it leaves only while no event waits, a few at a time, and what the ring has dropped meanwhile is skipped. An interval counts
//! as delivered when the broker has it, in both modes of acknowledgement: it is no promise, and nobody keeps books of it.

use std::collections::{BTreeSet, VecDeque};

use crate::engine::time::Mono;

/// Intervals that wait for the broker's PUBACK at most: some 20 kB.
const WINDOW: usize = 10;
/// Intervals asked for in one read at most.
const READ_BATCH: usize = 20;
/// The wait after a refusal, in ms.
const REFUSED_MS: u64 = 30_000;
/// So long a read may stay unanswered before it is asked again, in ms.
const READ_TIMEOUT_MS: u64 = 10_000;
/// The cursor is reported in steps of so many while more waits.
const REPORT_STEP: u64 = 100;

/// What the courier wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CourierAction {
    /// Read intervals from the ring and give them to [`Courier::intervals`].
    Read {
        /// The first one wanted, or the first one there is behind it.
        from: u64,
        /// How many at most.
        limit: usize,
    },
    /// Publish an interval.
    Publish {
        /// Its number.
        sequence: u64,
        /// What it says, as JSON.
        interval: String,
    },
    /// The cloud has everything up to this one: it need not be kept.
    Acknowledged(u64),
}

/// The cursor.
#[derive(Debug, Default)]
pub struct Courier {
    connected: bool,
    /// Everything up to here was delivered or is lost.
    acknowledged: u64,
    /// Reported by [`CourierAction::Acknowledged`].
    reported: u64,
    /// The last one that the ring has.
    newest: u64,
    /// The next to be published.
    next: u64,
    in_flight: BTreeSet<u64>,
    ahead: VecDeque<(u64, String)>,
    reading_since: Option<Mono>,
    /// After a refusal.
    not_before: Option<Mono>,
}

impl Courier {
    /// The ring keeps what lies behind `dropped` up to `newest`. At the start, `dropped` is what was delivered.
    pub fn kept(&mut self, dropped: u64, newest: u64) {
        self.newest = self.newest.max(newest);
        if dropped > self.acknowledged && self.in_flight.is_empty() {
            self.acknowledged = dropped;
            self.reported = self.reported.max(dropped);
        }
        self.next = self.next.max(dropped + 1);
    }

    /// A connection was made.
    pub fn connected(&mut self) {
        self.connected = true;
        self.restart();
    }

    /// The connection is gone, and with it every answer to what was in flight.
    pub fn disconnected(&mut self) {
        self.connected = false;
        self.restart();
    }

    /// The answer to [`CourierAction::Read`], in order. Numbers that are missing were dropped by the ring.
    pub fn intervals(&mut self, intervals: Vec<(u64, String)>) {
        self.reading_since = None;
        if intervals.is_empty() {
            // It has been dropped since. More is asked for when there is more.
            self.next = self.next.max(self.newest + 1);
        }
        for (sequence, interval) in intervals {
            let last = self.ahead.back().map_or(self.next.saturating_sub(1), |(last, _)| *last);
            if sequence > last && self.ahead.len() < READ_BATCH {
                self.ahead.push_back((sequence, interval));
            }
        }
    }

    /// The broker has taken an interval over.
    pub fn taken(&mut self, sequence: u64) {
        if self.in_flight.remove(&sequence) {
            let through = self.in_flight.first().map_or(self.next, |first| *first).saturating_sub(1);
            self.acknowledged = self.acknowledged.max(through);
        }
    }

    /// The broker refused an interval, or it did not even get there. It and all after it are sent again after a while.
    pub fn not_taken(&mut self, sequence: u64, now: Mono) {
        if self.in_flight.contains(&sequence) {
            self.restart();
            self.not_before = Some(now.plus_ms(REFUSED_MS));
        }
    }

    /// What is to be done now. `idle`: no event waits to be sent.
    pub fn poll(&mut self, idle: bool, now: Mono) -> Vec<CourierAction> {
        let mut actions = Vec::new();
        let all_taken = self.in_flight.is_empty() && self.acknowledged > self.reported;
        if all_taken || self.acknowledged >= self.reported + REPORT_STEP {
            self.reported = self.acknowledged;
            actions.push(CourierAction::Acknowledged(self.acknowledged));
        }
        let may_send = self.connected && idle && self.not_before.is_none_or(|at| now >= at);
        if !may_send {
            return actions;
        }
        while self.in_flight.len() < WINDOW
            && let Some((sequence, interval)) = self.ahead.pop_front()
        {
            self.in_flight.insert(sequence);
            self.next = sequence + 1;
            actions.push(CourierAction::Publish { sequence, interval });
        }
        let waits = self.reading_since.is_some_and(|since| now.since(since) < READ_TIMEOUT_MS);
        if self.ahead.is_empty() && self.next <= self.newest && !waits {
            self.reading_since = Some(now);
            actions.push(CourierAction::Read { from: self.next, limit: READ_BATCH });
        }
        actions
    }

    fn restart(&mut self) {
        self.in_flight.clear();
        self.ahead.clear();
        self.reading_since = None;
        self.not_before = None;
        self.next = self.acknowledged + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Mono = Mono::START;

    fn numbered(numbers: impl IntoIterator<Item = u64>) -> Vec<(u64, String)> {
        numbers.into_iter().map(|number| (number, number.to_string())).collect()
    }

    fn published(actions: &[CourierAction]) -> Vec<u64> {
        let number = |action: &CourierAction| match action {
            CourierAction::Publish { sequence, .. } => Some(*sequence),
            CourierAction::Read { .. } | CourierAction::Acknowledged(_) => None,
        };
        actions.iter().filter_map(number).collect()
    }

    /// A courier with a connection and a ring that keeps `through` intervals.
    fn courier(through: u64) -> Courier {
        let mut courier = Courier::default();
        courier.kept(0, through);
        courier.connected();
        courier
    }

    #[test]
    fn intervals_leave_in_order_a_few_at_a_time_and_the_cursor_follows() {
        let mut courier = courier(15);
        assert_eq!(courier.poll(true, NOW), [CourierAction::Read { from: 1, limit: READ_BATCH }]);
        assert_eq!(courier.poll(true, NOW), [], "it has asked already");
        courier.intervals(numbered(1..=15));
        assert_eq!(published(&courier.poll(true, NOW)), (1..=10).collect::<Vec<_>>());
        courier.taken(2);
        assert_eq!(published(&courier.poll(true, NOW)), [11]);
        (1..=11).for_each(|number| courier.taken(number));
        let actions = courier.poll(true, NOW);
        assert_eq!(actions.first(), Some(&CourierAction::Acknowledged(11)));
        assert_eq!(published(&actions), [12, 13, 14, 15]);
        (12..=15).for_each(|number| courier.taken(number));
        assert_eq!(courier.poll(true, NOW), [CourierAction::Acknowledged(15)]);
        courier.kept(0, 16);
        assert_eq!(courier.poll(true, NOW), [CourierAction::Read { from: 16, limit: READ_BATCH }]);
    }

    #[test]
    fn events_go_first() {
        let mut courier = courier(1);
        assert_eq!(courier.poll(false, NOW), []);
        courier.poll(true, NOW);
        courier.intervals(numbered([1]));
        assert_eq!(courier.poll(false, NOW), []);
        assert_eq!(published(&courier.poll(true, NOW)), [1]);
    }

    #[test]
    fn a_lost_connection_and_a_refusal_begin_again_behind_the_cursor() {
        let mut courier = courier(3);
        courier.poll(true, NOW);
        courier.intervals(numbered(1..=3));
        courier.poll(true, NOW);
        courier.taken(1);
        courier.disconnected();
        assert_eq!(courier.poll(true, NOW), [CourierAction::Acknowledged(1)]);
        courier.connected();
        assert_eq!(courier.poll(true, NOW), [CourierAction::Read { from: 2, limit: READ_BATCH }]);
        courier.intervals(numbered(2..=3));
        assert_eq!(published(&courier.poll(true, NOW)), [2, 3]);
        courier.not_taken(2, NOW);
        assert_eq!(courier.poll(true, NOW), []);
        let later = NOW.plus_ms(REFUSED_MS);
        assert_eq!(courier.poll(true, later), [CourierAction::Read { from: 2, limit: READ_BATCH }]);
    }

    #[test]
    fn what_the_ring_has_dropped_is_skipped() {
        let mut courier = courier(50);
        courier.poll(true, NOW);
        courier.kept(20, 60);
        courier.intervals(numbered(21..=40));
        assert_eq!(published(&courier.poll(true, NOW)), (21..=30).collect::<Vec<_>>());
        (21..=30).for_each(|number| courier.taken(number));
        courier.kept(60, 60);
        courier.disconnected();
        courier.connected();
        // What it asks for is not there any more: it waits for something new.
        let read = CourierAction::Read { from: 41, limit: READ_BATCH };
        let asked = courier.poll(true, NOW).contains(&read);
        courier.intervals(Vec::new());
        assert!(!asked, "everything up to 60 was dropped");
        courier.kept(60, 61);
        assert!(courier.poll(true, NOW).contains(&CourierAction::Read { from: 61, limit: READ_BATCH }));
    }

    #[test]
    fn a_read_that_is_not_answered_is_asked_again() {
        let mut courier = courier(5);
        courier.poll(true, NOW);
        let later = NOW.plus_ms(READ_TIMEOUT_MS);
        assert_eq!(courier.poll(true, later), [CourierAction::Read { from: 1, limit: READ_BATCH }]);
        // The ring had it and has lost it meanwhile.
        courier.intervals(Vec::new());
        assert_eq!(courier.poll(true, later), []);
    }
}
