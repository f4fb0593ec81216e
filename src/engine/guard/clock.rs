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

/// Before 2020 lies no time that is right, in ms since 1970: who writes one has a clock that was never set, or by somebody who had none.
const FIRST_YEAR_MS: i64 = 1_577_836_800_000;

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
        self.by_stamps(now).filter(|own| differ(*own, told) > OWN_MS).unwrap_or(told)
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
        if let (Some(own), true) = (self.by_stamps(now), self.told.is_some()) {
            self.deaf = differ(own, self.by_word(now)) > OWN_MS;
        }
        differ(self.time(now), before) > STEP_MS
    }

    fn by_word(&self, now: Now) -> Utc {
        self.told.map_or(now.utc, |(since, told)| told.plus_ms(super::span(now.mono.since(since))))
    }

    /// By the latest of the stamps, if another one confirms it; or if all are from before there was such a product, and this run has not told it the
    /// time: no message is years late.
    fn by_stamps(&self, now: Now) -> Option<Utc> {
        let latest = self.stamps.iter().map(|(_, offset)| *offset).max()?;
        let own = at(latest, now.mono);
        if self.told.is_none() && own.unix_ms() < FIRST_YEAR_MS && now.utc.unix_ms() > FIRST_YEAR_MS {
            return Some(own);
        }
        let agree = self.stamps.iter().filter(|(_, offset)| latest.saturating_sub(*offset) <= STEP_MS).count();
        (agree >= 2 && self.stamps.len() >= ENOUGH).then_some(own)
    }
}

fn at(offset: i64, now: Mono) -> Utc {
    Utc::from_unix_ms(offset.saturating_add(super::ms(now)))
}

fn differ(one: Utc, other: Utc) -> i64 {
    one.since(other).saturating_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UTC: i64 = 1_772_366_400_000;
    const HOUR_MS: i64 = 3_600_000;

    fn now(at_ms: u64) -> Now {
        Now { mono: Mono::from_ms(at_ms), utc: utc(at_ms, 0), utc_trusted: true }
    }

    /// The time at a moment by a clock that is wrong by so much.
    fn utc(at_ms: u64, wrong_ms: i64) -> Utc {
        Utc::from_unix_ms(UTC + i64::try_from(at_ms).unwrap() + wrong_ms)
    }

    /// Messages every 10 s from a moment on, stamped by a clock that is wrong by so much; whether any of them showed another clock.
    fn writes(clock: &mut WireClock, from_ms: u64, count: u64, wrong_ms: i64) -> bool {
        let mut moved = false;
        for at_ms in (0..count).map(|index| from_ms + index * 10_000) {
            moved |= clock.stamped(utc(at_ms, wrong_ms), now(at_ms));
        }
        moved
    }

    #[test]
    fn who_follows_what_it_is_told_has_that_time() {
        let mut clock = WireClock::default();
        assert!(!clock.tell(utc(1_000, 0), now(1_000)), "it was believed to have this time");
        assert!(!writes(&mut clock, 2_000, 10, 0));
        assert_eq!(clock.time(now(200_000)), utc(200_000, 0));
        // Told another time, it goes with it.
        assert!(clock.tell(utc(210_000, HOUR_MS), now(210_000)));
        assert!(!writes(&mut clock, 211_000, 10, HOUR_MS));
        assert_eq!(clock.time(now(400_000)), utc(400_000, HOUR_MS));
    }

    #[test]
    fn a_clock_that_was_never_set_is_seen_in_one_stamp() {
        let mut clock = WireClock::default();
        let early = Utc::from_unix_ms(734_000);
        assert!(clock.stamped(early, now(1_000)));
        assert_eq!(clock.time(now(2_000)), early.plus_ms(1_000));
        assert!(clock.tell(utc(3_000, 0), now(3_000)));
        assert!(!clock.stamped(early, now(4_000)), "of before it was told");
        assert_eq!(clock.time(now(4_000)), utc(4_000, 0));
    }

    #[test]
    fn a_clock_of_its_own_is_seen_in_three_stamps_and_told_in_vain() {
        let mut clock = WireClock::default();
        clock.tell(utc(0, 0), now(0));
        assert!(!writes(&mut clock, 1_000, 2, HOUR_MS), "two may be of a queue");
        assert!(writes(&mut clock, 21_000, 1, HOUR_MS));
        assert_eq!(clock.time(now(60_000)), utc(60_000, HOUR_MS));
        assert!(!clock.tell(utc(70_000, 0), now(70_000)), "it was not heard the last time");
        assert_eq!(clock.time(now(71_000)), utc(71_000, HOUR_MS));
    }

    #[test]
    fn a_clock_that_was_put_right_is_known_by_its_stamps() {
        let mut clock = WireClock::default();
        clock.tell(utc(0, 0), now(0));
        writes(&mut clock, 1_000, 6, -HOUR_MS);
        assert_eq!(clock.time(now(61_000)), utc(61_000, -HOUR_MS));
        assert!(writes(&mut clock, 100_000, 6, 0));
        assert_eq!(clock.time(now(200_000)), utc(200_000, 0));
    }

    #[test]
    fn late_messages_are_not_a_slow_clock() {
        let mut clock = WireClock::default();
        clock.tell(utc(0, 0), now(0));
        // A link that stalls delivers an hour of them at once, and in one slot the newest counts.
        for index in 0..40_u64 {
            assert!(!clock.stamped(utc(index * 90_000, 0), now(3_600_000 + index)), "{index}");
        }
        assert!(!writes(&mut clock, 3_610_000, 6, 0));
        assert_eq!(clock.time(now(3_700_000)), utc(3_700_000, 0));
    }

    #[test]
    fn stamps_from_before_the_connection_say_nothing_of_now() {
        let mut clock = WireClock::default();
        clock.tell(utc(0, 0), now(0));
        writes(&mut clock, 1_000, 2, HOUR_MS);
        clock.connected();
        assert!(!writes(&mut clock, 60_000, 2, HOUR_MS));
        assert_eq!(clock.time(now(80_000)), utc(80_000, 0));
    }

    #[test]
    fn absurd_stamps_break_nothing() {
        let mut clock = WireClock::default();
        for (index, stamp) in [i64::MIN, i64::MAX, 0, i64::MIN, i64::MAX, 0].into_iter().enumerate() {
            clock.stamped(Utc::from_unix_ms(stamp), now(10_000 * u64::try_from(index).unwrap()));
        }
        clock.time(now(70_000));
        clock.tell(Utc::from_unix_ms(i64::MAX), now(80_000));
        clock.time(Now { mono: Mono::from_ms(u64::MAX / 2), ..now(0) });
    }
}
