//! The clock of a station as the wire shows it. Its schedules run by it, and not every station follows the time that it is told.

use std::collections::VecDeque;

use crate::engine::time::{Mono, Now, Utc};

/// A clock was set if it differs by more than this from what was believed of it. Less is inside the margins of a schedule.
const STEP_MS: i64 = 5_000;

/// Stamps that differ by more than this from what the station was told are of a clock of its own.
const OWN_MS: i64 = 10_000;

/// One stamp counts in so many ms: a queue that is emptied says the same many times.
const SLOT_MS: u64 = 5_000;

/// So many stamps are kept.
const KEPT: usize = 6;

/// So many must be there before they say anything.
const ENOUGH: usize = 3;

/// What is known of a station's clock.
#[derive(Clone, Debug, Default)]
pub(super) struct WireClock {
    /// The time that it was told last, and when.
    told: Option<(Mono, Utc)>,
    /// The slot and the station's time less ours, in ms on the monotonic clock.
    stamps: VecDeque<(u64, i64)>,
    /// It was told the time and went on by its own.
    deaf: bool,
}

impl WireClock {
    /// A new connection: what comes first may be old.
    pub(super) fn connected(&mut self) {
        self.stamps.clear();
    }

    /// The time by its clock: what its stamps say where that is not what it was told.
    pub(super) fn time(&self, now: Now) -> Utc {
        let told = self.by_word(now);
        self.by_stamps(now.mono).filter(|own| differ(*own, told) > OWN_MS).unwrap_or(told)
    }

    /// It is told the time. `true`: what it holds may have moved.
    pub(super) fn tell(&mut self, utc: Utc, now: Now) -> bool {
        let before = self.time(now);
        let is_first = self.told.replace((now.mono, utc)).is_none();
        if self.deaf {
            return false;
        }
        let strays = |(_, offset): &(u64, i64)| differ(at(*offset, now.mono), utc) > OWN_MS;
        let jumps = differ(before, utc) >= STEP_MS || (is_first && self.stamps.iter().any(strays));
        if jumps || is_first {
            // They are of the clock before.
            self.stamps.clear();
        }
        jumps
    }

    /// It wrote a time. `true`: its clock is another than was believed, and what it holds has moved.
    pub(super) fn stamped(&mut self, stamp: Utc, now: Now) -> bool {
        let before = self.time(now);
        let slot = now.mono.ms() / SLOT_MS;
        let offset = stamp.unix_ms().saturating_sub(super::ms(now.mono));
        match self.stamps.back_mut() {
            // A message may be late and is never early.
            Some((last, latest)) if *last == slot => *latest = (*latest).max(offset),
            Some(_) | None => self.stamps.push_back((slot, offset)),
        }
        if self.stamps.len() > KEPT {
            self.stamps.pop_front();
        }
        if let (Some(own), true) = (self.by_stamps(now.mono), self.told.is_some()) {
            self.deaf = differ(own, self.by_word(now)) > OWN_MS;
        }
        differ(self.time(now), before) > STEP_MS
    }

    fn by_word(&self, now: Now) -> Utc {
        self.told.map_or(now.utc, |(since, told)| told.plus_ms(super::span(now.mono.since(since))))
    }

    /// By the latest of the stamps, if another one confirms it.
    fn by_stamps(&self, now: Mono) -> Option<Utc> {
        let latest = self.stamps.iter().map(|(_, offset)| *offset).max().filter(|_| self.stamps.len() >= ENOUGH)?;
        let agree = self.stamps.iter().filter(|(_, offset)| latest - offset <= STEP_MS).count();
        (agree >= 2).then(|| at(latest, now))
    }
}

fn at(offset: i64, now: Mono) -> Utc {
    Utc::from_unix_ms(offset.saturating_add(super::ms(now)))
}

fn differ(one: Utc, other: Utc) -> i64 {
    one.since(other).saturating_abs()
}
