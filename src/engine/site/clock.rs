//! The clock of a station, in which its schedules run: as it was told, or as its own messages show it.

use std::collections::VecDeque;

use crate::engine::time::{Mono, Now, Utc};

/// Our clock was set if it differs by so much from the one that a station was told. Less is inside the margins of a lease.
const CLOCK_STEP_MS: i64 = 5_000;

/// A station whose own times differ by more than this from what it was told goes by a clock of its own.
pub const CLOCK_OFFSET_MS: i64 = 10_000;

/// A clock that is further away than this is not set: it may jump at any moment, and a schedule with it.
pub const CLOCK_LOST_MS: i64 = 86_400_000;

/// One time stamp is taken in so many ms: a queue that is emptied at once says the same thing many times.
const SLOT_MS: u64 = 5_000;

/// So many are remembered.
const SAMPLES: usize = 6;

/// So many are needed before anything is concluded.
const ENOUGH: usize = 3;

/// 2020-01-01: no clock that is right is before it, and no message waits for years to be sent.
const NEVER_BEFORE: Utc = Utc::from_unix_ms(1_577_836_800_000);

/// The clock of a station.
#[derive(Clone, Debug, Default)]
pub struct StationClock {
    /// The time that it was told last, and when that was.
    told: Option<(Mono, Utc)>,
    /// Its own time stamps less our monotonic clock, in ms, one for each slot.
    samples: VecDeque<(u64, i64)>,
    /// It does not do as it is told.
    deaf: bool,
}

impl StationClock {
    /// Its connection is new: what comes first may be old.
    pub fn connected(&mut self) {
        self.samples.clear();
    }

    /// The time by its clock.
    #[must_use]
    pub fn time(&self, now: Now) -> Utc {
        let told = self.told_time(now);
        let own = self.own_time(now).filter(|own| own.since(told).saturating_abs() > CLOCK_OFFSET_MS);
        own.unwrap_or(told)
    }

    /// How far its clock is ahead of ours in ms, by its own messages; `None` while they do not say it.
    #[must_use]
    pub fn offset_ms(&self, now: Now) -> Option<i64> {
        Some(self.own_time(now)?.since(now.utc))
    }

    /// Whether it goes by another clock although it was told the time.
    #[must_use]
    pub const fn is_deaf(&self) -> bool {
        self.deaf
    }

    /// It is told the time. `true`: that sets its clock, and the schedules that it holds are out of place.
    pub fn tell(&mut self, now: Now) -> bool {
        let before = self.time(now);
        let is_first = self.told.replace((now.mono, now.utc)).is_none();
        if self.deaf {
            return false;
        }
        let mono = i64::try_from(now.mono.ms()).unwrap_or(i64::MAX);
        let strays = |sample: i64| sample.saturating_add(mono).saturating_sub(now.utc.unix_ms()).saturating_abs();
        // What it wrote before it was told anything is of the clock that it had until now.
        let steps =
            before != now.utc || (is_first && self.samples.iter().any(|(_, sample)| strays(*sample) > CLOCK_OFFSET_MS));
        if steps || is_first {
            self.samples.clear();
        }
        steps
    }

    /// It wrote a time into a message. A message may be late and is never early, so that the latest time counts. `true`: its clock is
    /// another than was believed, and the schedules that it holds are out of place.
    pub fn heard(&mut self, at: Utc, now: Now) -> bool {
        let before = self.time(now);
        let slot = now.mono.ms() / SLOT_MS;
        let sample = at.unix_ms().saturating_sub(i64::try_from(now.mono.ms()).unwrap_or(i64::MAX));
        match self.samples.back_mut() {
            Some((last, best)) if *last == slot => *best = (*best).max(sample),
            Some(_) | None => self.samples.push_back((slot, sample)),
        }
        if self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
        if let (Some(own), true) = (self.own_time(now), self.told.is_some()) {
            self.deaf = own.since(self.told_time(now)).saturating_abs() > CLOCK_OFFSET_MS;
        }
        self.time(now).since(before).saturating_abs() > CLOCK_STEP_MS
    }

    /// Ours as it was told last, also if ours was set since.
    fn told_time(&self, now: Now) -> Utc {
        let Some((at, told)) = self.told else { return now.utc };
        let theirs = told.plus_ms(i64::try_from(now.mono.since(at)).unwrap_or(i64::MAX));
        if now.utc.since(theirs).saturating_abs() < CLOCK_STEP_MS { now.utc } else { theirs }
    }

    /// By its own messages: the latest that another one confirms. Of a station that this run has not told the time yet the first one will do if
    /// it is of a clock that was never set: a run before this one may have had no better time to tell, and a schedule of today's lies in the
    /// future for such a station, which then goes by none.
    fn own_time(&self, now: Now) -> Option<Utc> {
        let latest = self.samples.iter().map(|(_, sample)| *sample).max()?;
        let own = Utc::from_unix_ms(latest.saturating_add(i64::try_from(now.mono.ms()).unwrap_or(i64::MAX)));
        let confirmed = self.samples.iter().filter(|(_, sample)| latest - sample <= CLOCK_STEP_MS).count() >= 2;
        let unset = self.told.is_none() && own < NEVER_BEFORE && NEVER_BEFORE < now.utc;
        (unset || (confirmed && self.samples.len() >= ENOUGH)).then_some(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(ms: u64) -> Now {
        let utc = Utc::from_unix_ms(1_772_366_400_000 + i64::try_from(ms).expect("small"));
        Now { mono: Mono::from_ms(ms), utc, utc_trusted: true }
    }

    #[test]
    fn a_right_clock_is_ours() {
        let mut clock = StationClock::default();
        assert!(!clock.tell(now(0)));
        for step in 1..10 {
            let now = now(step * 10_000);
            // Whole seconds, and a delay.
            assert!(!clock.heard(now.utc.plus_ms(-1_400), now));
            assert_eq!(clock.time(now), now.utc);
        }
    }

    #[test]
    fn a_clock_that_does_not_follow_is_found_out_and_kept() {
        let mut clock = StationClock::default();
        clock.tell(now(0));
        let offset = -3_600_000;
        let moved = (1..10).filter(|step| clock.heard(now(step * 10_000).utc.plus_ms(offset), now(step * 10_000)));
        assert_eq!(moved.count(), 1);
        let later = now(100_000);
        assert_eq!((clock.offset_ms(later), clock.time(later)), (Some(offset), later.utc.plus_ms(offset)));
        assert!(!clock.tell(later), "a heartbeat changes nothing");
        assert_eq!(clock.time(later), later.utc.plus_ms(offset));
    }

    #[test]
    fn old_messages_from_a_queue_are_no_wrong_clock() {
        let mut clock = StationClock::default();
        clock.tell(now(0));
        // Ten minutes of meter values within a second, then live ones.
        for step in 0..60 {
            let now = now(1_000 + step * 10);
            assert!(!clock.heard(now.utc.plus_ms(-600_000 + i64::try_from(step).expect("small") * 10_000), now));
        }
        for step in 1..5 {
            assert!(!clock.heard(now(step * 10_000).utc, now(step * 10_000)));
        }
    }

    #[test]
    fn what_a_station_wrote_before_it_was_first_told_the_time_says_nothing_of_its_clock_after() {
        let mut clock = StationClock::default();
        // The controller starts in 1970, the station goes by the right time.
        let wrong = |ms: u64| Now { utc: Utc::from_unix_ms(i64::try_from(ms).expect("small")), ..now(ms) };
        for step in 1..3 {
            assert!(!clock.heard(now(step * 5_000).utc, wrong(step * 5_000)));
        }
        assert!(clock.tell(wrong(16_000)), "its clock is set");
        for step in 4..8 {
            let now = wrong(step * 5_000);
            assert!(!clock.heard(now.utc, now));
            assert_eq!(clock.time(now), now.utc);
        }
    }

    #[test]
    fn a_station_that_a_run_without_a_clock_has_told_the_time_is_understood_at_once() {
        let mut clock = StationClock::default();
        clock.connected();
        let since_1970 = |ms: i64| Utc::from_unix_ms(734_000 + ms);
        assert!(clock.heard(since_1970(0), now(0)), "one message will do");
        assert_eq!(clock.time(now(500)), since_1970(500));
        assert!(clock.tell(now(1_000)), "the heartbeat sets its clock");
        assert_eq!(clock.time(now(1_000)), now(1_000).utc);
        // What it wrote before that and sends only now is nothing new.
        assert!(!clock.heard(since_1970(900), now(1_100)));
        assert_eq!(clock.time(now(1_100)), now(1_100).utc);
    }

    #[test]
    fn our_own_clock_is_set_and_the_station_goes_on_as_it_was_told() {
        let mut clock = StationClock::default();
        clock.tell(now(0));
        let set = Now { utc: now(10_000).utc.plus_ms(3_600_000), ..now(10_000) };
        assert_eq!(clock.time(set), now(10_000).utc);
        assert!(clock.tell(set), "the heartbeat sets its clock");
        assert_eq!(clock.time(set), set.utc);
    }
}
