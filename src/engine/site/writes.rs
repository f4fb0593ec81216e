//! How many charging profiles a station was sent, for stations that keep them in flash.
//!
//! A budget (`writes_per_day`) is kept by sending less, in this order: renewals are spread out and leases stretched from the start, small
//! raises wait, then cuts that only make room for others. A cut that a circuit needs is never dropped, whatever the budget says. When
//! nothing is left, the last lease runs out and the station falls to its fallback by itself; it counts so.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::engine::time::Mono;
use crate::engine::units::Current;

/// The day that a budget is for, in ms.
const DAY_MS: u64 = 86_400_000;

/// Writes are counted by the hour.
const HOUR_MS: u64 = 3_600_000;

/// How many hours the count looks back: a whole day and the hour under way.
const HOURS: u64 = 25;

/// A raise smaller than this waits while less than half of the budget is left.
const LARGE_RAISE: Current = Current::from_a(4);

/// Why a limit is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A circuit is too full.
    Safety,
    /// The EVSE was told nothing yet, or what it was told is not certain any more.
    First,
    /// Less, for others or because the car takes less.
    Cut,
    /// More, by so much; from a pause it is what it gets.
    Raise(Current),
    /// The same again.
    Renewal,
}

/// The profiles that a station was sent in the last day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// The hour of the monotonic clock (from 1, shifted by a day), and how many there were in it; rising.
    by_hour: VecDeque<(u64, u32)>,
}

/// [`Writes`] as kept for the next run: how many hours ago, and how many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedWrites(Vec<(u64, u32)>);

impl Writes {
    /// One was sent.
    pub fn count(&mut self, now: Mono) {
        let hour = hour(now);
        match self.by_hour.back_mut() {
            Some((last, count)) if *last == hour => *count = count.saturating_add(1),
            Some(_) | None => self.by_hour.push_back((hour, 1)),
        }
        self.by_hour.retain(|(then, _)| hour - then < HOURS);
    }

    /// The last one did not leave after all.
    pub fn take_back(&mut self) {
        if let Some((_, count)) = self.by_hour.back_mut() {
            *count = count.saturating_sub(1);
        }
    }

    /// How many there were in the last 24 to 25 hours.
    #[must_use]
    pub fn in_a_day(&self, now: Mono) -> u32 {
        let hour = hour(now);
        self.by_hour.iter().filter(|(then, _)| hour.saturating_sub(*then) < HOURS).map(|(_, count)| count).sum()
    }

    /// For the next run.
    #[must_use]
    pub fn remember(&self, now: Mono) -> RememberedWrites {
        let hour = hour(now);
        RememberedWrites(self.by_hour.iter().map(|(then, count)| (hour.saturating_sub(*then), *count)).collect())
    }

    /// Takes over what the last run remembered, `away_ms` ago.
    pub fn restore(&mut self, remembered: &RememberedWrites, away_ms: u64, now: Mono) {
        let away = away_ms / HOUR_MS;
        let hour = hour(now);
        let ago = |then: u64| Some(then.saturating_add(away)).filter(|ago| *ago < HOURS);
        let known = remembered.0.iter().filter_map(|(then, count)| Some((hour - ago(*then)?, *count)));
        self.by_hour = known.take(usize::try_from(HOURS).unwrap_or(25)).collect();
    }
}

fn hour(now: Mono) -> u64 {
    now.ms() / HOUR_MS + HOURS
}

/// How often a limit is renewed at least, and how long its lease lasts, both in ms, so that renewals take half of the budget.
#[must_use]
pub fn stretched(budget: Option<u32>, evses: usize, (renew_ms, lease_ms): (u64, u64)) -> (u64, u64) {
    let Some(budget) = budget else { return (renew_ms, lease_ms) };
    let evses = u64::try_from(evses).unwrap_or(u64::MAX);
    let apart = (2 * DAY_MS).saturating_mul(evses).div_ceil(u64::from(budget.max(1)));
    let renew_ms = renew_ms.max(apart);
    (renew_ms, lease_ms.max(2 * renew_ms + 60_000))
}

/// Whether a budget of so many a day allows another write after `used`.
#[must_use]
pub fn allows(budget: Option<u32>, used: u32, reason: Reason) -> bool {
    let Some(budget) = budget else { return true };
    let left = budget.saturating_sub(used);
    match reason {
        Reason::Safety => true,
        Reason::First => left > 0,
        Reason::Renewal => left > 0,
        // A quarter is kept for what matters.
        Reason::Cut => left > budget / 4,
        Reason::Raise(by) if by >= LARGE_RAISE => left > budget / 4,
        Reason::Raise(_) => left > budget / 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Mono = Mono::from_ms(5_000);

    #[test]
    fn writes_of_a_day_are_counted_and_older_ones_forgotten() {
        let mut writes = Writes::default();
        for minute in 0..600 {
            writes.count(START.plus_ms(minute * 60_000));
        }
        assert_eq!(writes.in_a_day(START.plus_ms(600 * 60_000)), 600);
        assert_eq!(writes.in_a_day(START.plus_ms(24 * HOUR_MS)), 600);
        assert_eq!(writes.in_a_day(START.plus_ms(35 * HOUR_MS)), 0);
        let mut next = Writes::default();
        next.restore(&writes.remember(START.plus_ms(10 * HOUR_MS)), 2 * HOUR_MS, START);
        assert_eq!(next.in_a_day(START), 600);
        assert_eq!(next.in_a_day(START.plus_ms(24 * HOUR_MS)), 0);
        next.restore(&writes.remember(START.plus_ms(10 * HOUR_MS)), u64::MAX, START);
        assert_eq!(next.in_a_day(START), 0);
    }

    #[test]
    fn renewals_take_half_of_the_budget() {
        assert_eq!(stretched(None, 1, (30_000, 120_000)), (30_000, 120_000));
        let (renew_ms, lease_ms) = stretched(Some(25), 1, (30_000, 120_000));
        assert_eq!(DAY_MS / renew_ms, 12);
        assert!(lease_ms >= 2 * renew_ms);
        assert_eq!(stretched(Some(24), 2, (30_000, 120_000)).0, 4 * HOUR_MS);
        assert_eq!(stretched(Some(100_000), 1, (30_000, 120_000)), (30_000, 120_000));
    }

    #[test]
    fn what_matters_least_is_dropped_first_and_a_cut_for_safety_never() {
        let small = Reason::Raise(Current::from_a(2));
        let large = Reason::Raise(Current::from_a(6));
        let allowed = |used| {
            [small, large, Reason::Cut, Reason::Renewal, Reason::Safety].map(|reason| allows(Some(24), used, reason))
        };
        assert_eq!(allowed(11), [true; 5]);
        assert_eq!(allowed(12), [false, true, true, true, true]);
        assert_eq!(allowed(18), [false, false, false, true, true]);
        assert_eq!(allowed(24), [false, false, false, false, true]);
        assert!(allows(None, u32::MAX, small));
    }
}
