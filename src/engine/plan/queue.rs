//! The place of each who waits, and when his turn begins at the latest.
//!
//! Whoever waits stands behind certain others only: those in their turn, and those ahead of him in line. Each of them keeps his part of a row
//! until the end of his turn, and stands behind him from then on. So his own turn begins at the latest when, on each of his rows,
//! so many of these turns have ended that his minimum fits beside what may be left of them. Those ahead who wait themselves are taken to hold
//! their part from now until the end of their turn, although they cannot hold it before that begins: what comes out is late rather than early.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::admit::{Admission, HEAD_START_MS, SHORTEST_WAIT_MS, laxity_ms};
use super::frame::{Frame, evse_index};
use super::wish::Wishes;
use super::{QueuePlace, TURN_MS};
use crate::engine::time::Mono;

/// A turn begins so much later than it could: the one who leaves must have left, and all that is confirmed.
const CHANGE_MS: u64 = 2 * 60_000;

/// No turn can be foreseen, since others have a higher priority.
pub const NOT_FORESEEABLE: Mono = Mono::from_ms(u64::MAX);

/// A row on which not all minimums fit: who holds which part of it until when.
///
/// Kept from plan to plan for its memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Holders {
    capacity: i64,
    held: i64,
    /// The end of the last turn that had to end for somebody who waits already.
    reached: Mono,
    until: BinaryHeap<Reverse<(Mono, i64)>>,
}

/// The places of those who wait, in the order of the queue, and for each when its turn begins if everybody keeps his place in it.
pub(super) fn places(
    frame: &Frame<'_>,
    wishes: &Wishes<'_>,
    admission: &Admission,
    (room, now): (&[i64], Mono),
    rows: &mut Vec<Holders>,
    places: &mut Vec<QueuePlace>,
) -> Vec<Mono> {
    places.clear();
    let mut expected = Vec::with_capacity(admission.waiting.len());
    if admission.waiting.is_empty() {
        return expected;
    }
    let mut queue = Queue { frame, wishes, admission, now, rows };
    let priority = |index: &usize| frame.state.evses[*index].priority;
    for group in admission.waiting.chunk_by(|one, next| priority(one) == priority(next)) {
        let first = places.len();
        queue.begin(priority(&group[0]), room);
        for index in group {
            let starts = queue.start_of(*index);
            let insists = queue.insists_until(*index);
            queue.hold(*index, starts.max(insists.unwrap_or(starts)).plus_ms(TURN_MS));
            places.push(QueuePlace { evse: evse_index(*index), position: places.len() + 1, starts });
            expected.push(starts);
        }
        let is_sent_away = |index: &&usize| {
            let evse = &frame.state.evses[**index];
            evse.served_since.is_some() || evse.wants_since.is_none_or(|since| since >= now)
        };
        let sent_away = group.iter().filter(is_sent_away).count();
        queue.say_the_latest(&mut places[first..], sent_away);
    }
    expected
}

struct Queue<'a> {
    frame: &'a Frame<'a>,
    wishes: &'a Wishes<'a>,
    admission: &'a Admission,
    now: Mono,
    rows: &'a mut Vec<Holders>,
}

impl Queue<'_> {
    /// Notes who holds what before anybody of this priority who waits.
    fn begin(&mut self, priority: i32, room: &[i64]) {
        self.rows.resize_with(room.len(), Holders::default);
        for (row, capacity) in self.rows.iter_mut().zip(room) {
            (row.capacity, row.held, row.reached) = (*capacity, 0, Mono::default());
            row.until.clear();
        }
        for (index, _) in self.wishes.all() {
            let evse = &self.frame.state.evses[index];
            let until = if evse.priority > priority {
                NOT_FORESEEABLE
            } else if evse.priority < priority || !self.admission.admitted[index] {
                continue;
            } else {
                self.end_of_turn(index)
            };
            if until > self.now {
                self.hold(index, until);
            }
        }
    }

    /// When somebody who is served stands behind those who wait. A deadline that is near brings him back ahead of them.
    fn end_of_turn(&self, index: usize) -> Mono {
        let evse = &self.frame.state.evses[index];
        let turn = evse.served_since.unwrap_or(self.now).plus_ms(TURN_MS);
        self.insists_until(index).map_or(turn, |until| turn.max(until.plus_ms(TURN_MS)))
    }

    /// Until when somebody's deadline can put him ahead of others.
    fn insists_until(&self, index: usize) -> Option<Mono> {
        let evse = &self.frame.state.evses[index];
        let max = self.wishes.of[index].map_or(1, |wish| wish.max());
        let head_start = i64::try_from(HEAD_START_MS).unwrap_or(i64::MAX);
        let minutes = i64::try_from(CHANGE_MS).unwrap_or(i64::MAX);
        let insists = laxity_ms(evse, max, self.now).is_some_and(|laxity| laxity < head_start + minutes);
        evse.deadline.filter(|_| insists).map(|deadline| deadline.by)
    }

    /// Turns what is expected of those with one priority into what is certain.
    ///
    /// Those who are sent away now (or come now) get their order when they have gone. Deadlines put some ahead of others again and again, until the last of
    /// these deadlines; from then on each has his place by his arrival, and stands at worst behind everybody once.
    fn say_the_latest(&self, places: &mut [QueuePlace], sent_away: usize) {
        let latest = places.iter().map(|place| place.starts).max().unwrap_or(self.now);
        let together = places.len() - sent_away;
        if sent_away > 1 {
            places[together..].iter_mut().for_each(|place| place.starts = latest.plus_ms(TURN_MS));
        }
        // Who rests, or stands in line later than others, comes between others who were told their times before: at worst a turn is lost.
        let comes_between = |index: usize| {
            let evse = &self.frame.state.evses[index];
            let priority = places.first().map(|place| self.frame.state.evses[place.evse.0].priority);
            let is_late = evse.rests_until.is_some() || self.admission.delays.of(self.frame.class_of(index)) > 0;
            is_late && Some(evse.priority) == priority
        };
        if self.wishes.all().any(|(index, _)| comes_between(index)) {
            places.iter_mut().for_each(|place| place.starts = place.starts.max(latest.plus_ms(TURN_MS)));
        }
        // Who rests stands in line from a later moment on, and then at worst behind everybody once.
        for place in places.iter_mut() {
            let arrival = self.arrival(place.evse.0);
            if arrival > self.now {
                let then = arrival.plus_ms(2 * TURN_MS + CHANGE_MS).plus_ms(latest.since(self.now));
                place.starts = place.starts.max(then);
            }
        }
        let Some(priority) = places.first().map(|place| self.frame.state.evses[place.evse.0].priority) else { return };
        let equals = self.wishes.all().filter(|(index, _)| self.frame.state.evses[*index].priority == priority);
        if let Some(last) = equals.filter_map(|(index, _)| self.insists_until(index)).max() {
            let then = last.plus_ms(TURN_MS + CHANGE_MS).plus_ms(latest.since(self.now));
            places.iter_mut().for_each(|place| place.starts = place.starts.max(then));
        }
    }

    fn hold(&mut self, index: usize, until: Mono) {
        let Some(wish) = &self.wishes.of[index] else { return };
        for term in self.admission.scarce.of(self.frame.class_of(index)) {
            let row = &mut self.rows[term.at()];
            let amount = i64::from(term.coefficient) * wish.min();
            row.held += amount;
            row.until.push(Reverse((until, amount)));
        }
    }

    /// Since when somebody who waits stands in line, which may be later than now. Who is sent away now begins to wait now.
    fn arrival(&self, index: usize) -> Mono {
        let evse = &self.frame.state.evses[index];
        let arrival = evse.arrival(self.now);
        let arrival = if evse.served_since.is_some() { arrival.max(self.now) } else { arrival };
        arrival.plus_ms(self.admission.delays.of(self.frame.class_of(index)))
    }

    fn start_of(&mut self, index: usize) -> Mono {
        let Some(wish) = self.wishes.of[index] else { return NOT_FORESEEABLE };
        let mut starts = self.arrival(index).plus_ms(SHORTEST_WAIT_MS).max(self.now);
        for term in self.admission.scarce.of(self.frame.class_of(index)) {
            let row = &mut self.rows[term.at()];
            let needs = i64::from(term.coefficient) * wish.min();
            while row.held > row.capacity - needs {
                let Some(Reverse((until, amount))) = row.until.pop() else { return NOT_FORESEEABLE };
                if until == NOT_FORESEEABLE {
                    row.until.push(Reverse((until, amount)));
                    return NOT_FORESEEABLE;
                }
                row.held -= amount;
                row.reached = row.reached.max(until);
            }
            starts = starts.max(row.reached);
        }
        starts.plus_ms(CHANGE_MS)
    }
}
