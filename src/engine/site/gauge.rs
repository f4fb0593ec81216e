//! Whether a meter can be believed: how often it really measures, whether it is stuck, whether its phases follow the chargers.
//!
//! A meter that is asked every second may show new values only once a minute. So the time between two different readings is measured, and
//! a reading that shows the same values as before is taken as the old one, not as a new one.

use std::collections::VecDeque;

use crate::engine::model::reading::MeterReading;
use crate::engine::time::Mono;
use crate::engine::units::{Current, PerPhase, Phase};

use super::background::Seen;

/// So many times between different readings are kept.
const INTERVALS: usize = 16;

/// With fewer of them nothing is known yet.
const ENOUGH: usize = 3;

/// Nothing slower is expected of a meter of which nothing is known yet.
const UNKNOWN_MS: u64 = 60_000;

/// The chargers must have changed by more than this before a meter that does not move is suspected.
const MOVED: Current = Current::from_a(3);

/// And for so long it must not have moved since.
const STUCK_MS: u64 = 15_000;

/// A step of the chargers below this is not held against the meter.
const STEP: Current = Current::from_a(4);

/// Chargers that move less than this do not move.
const STILL: Current = Current::from_a(1);

/// So many steps in a row must contradict before the meter is not believed, and so many agree before it is again.
const STRIKES: u32 = 3;

/// Two looks at chargers and meter further apart than this are not compared: too much else may have changed.
const LONGEST_STEP_MS: u64 = 600_000;

/// Why a meter is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// It shows the same values while the chargers change.
    Stuck,
    /// It falls where the chargers rise.
    Flipped,
    /// Its phases move where others of the chargers do.
    Swapped,
}

impl Doubt {
    /// What is the case, to be put behind the meter's name.
    pub(super) const fn sentence(self) -> &'static str {
        match self {
            Self::Stuck => "shows the same values while the chargers change: it is stuck",
            Self::Flipped => {
                "falls when the chargers rise: its phases do not follow the chargers, its direction is wrong"
            }
            Self::Swapped => "moves on other phases than the chargers: its phases do not follow the chargers",
        }
    }
}

/// A look at chargers and meter at a time when both are at rest.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Mono,
    chargers: PerPhase<Current>,
    meter: PerPhase<Current>,
}

/// What is known of one meter's ways.
#[derive(Clone, Debug, Default)]
pub(super) struct Gauge {
    shown: Option<MeterReading>,
    changed_at: Mono,
    asked_at: Mono,
    intervals: VecDeque<u64>,
    /// What the chargers drew by samples that were all taken after the last change of the meter.
    chargers_then: Option<(Mono, PerPhase<Current>)>,
    /// What the chargers draw, and since when they are at rest.
    rest: Option<(Mono, PerPhase<Current>)>,
    look: Option<Look>,
    stuck: bool,
    strikes: u32,
    agreed: u32,
    wrong: Option<Doubt>,
}

impl Gauge {
    /// Takes in the answer to a poll at `asked_at`. What time it tells of, if it tells anything new.
    pub(super) fn take(&mut self, reading: &MeterReading, asked_at: Mono) -> Option<Seen> {
        let before = std::mem::replace(&mut self.asked_at, asked_at);
        let first = self.shown.is_none();
        if self.shown.as_ref() == Some(reading) {
            let period_ms = self.period_ms(asked_at);
            // Longer than it ever needs for new values: then they are new and happen to be the same.
            let renewed = asked_at.since(self.changed_at) > period_ms + period_ms / 2;
            let from = asked_at.minus_ms(period_ms);
            return (renewed && !self.stuck).then_some(Seen { from, newest: from });
        }
        self.shown = Some(*reading);
        let interval = asked_at.since(std::mem::replace(&mut self.changed_at, asked_at));
        self.stuck = false;
        self.chargers_then = None;
        if first {
            return Some(Seen { from: asked_at, newest: asked_at });
        }
        self.intervals.push_back(interval);
        if self.intervals.len() > INTERVALS {
            self.intervals.pop_front();
        }
        let from = asked_at.minus_ms(self.period_ms(asked_at)).min(before);
        Some(Seen { from, newest: before })
    }

    /// How often it shows new values, in ms: the least time between two different readings, of the last ones.
    pub(super) fn period_ms(&self, now: Mono) -> u64 {
        let least = self.intervals.iter().min().copied();
        if self.intervals.len() >= ENOUGH {
            return least.unwrap_or(UNKNOWN_MS);
        }
        least.unwrap_or(0).max(now.since(self.changed_at)).min(UNKNOWN_MS)
    }

    /// As [`Gauge::period_ms`], once it is known.
    pub(super) fn known_period_ms(&self) -> Option<u64> {
        if self.intervals.len() >= ENOUGH { self.intervals.iter().min().copied() } else { None }
    }

    /// Why it is not believed, if so.
    pub(super) fn doubt(&self) -> Option<Doubt> {
        if self.stuck { Some(Doubt::Stuck) } else { self.wrong }
    }

    /// What the chargers draw by samples of which the oldest was taken at `oldest`; `None` while one of them follows a change.
    pub(super) fn chargers(&mut self, drawn: Option<(Mono, PerPhase<Current>)>, seen: Option<Seen>, now: Mono) {
        let Some((oldest, drawn)) = drawn else {
            self.rest = None;
            return;
        };
        self.look_for_standstill(oldest, drawn, now);
        let rested = self.rest.filter(|(_, before)| far(*before, drawn) <= STILL);
        let (since, _) = *self.rest.insert(rested.unwrap_or((now, drawn)));
        let meter = self.shown.and_then(|reading| reading.current.complete());
        if let (Some(meter), true) = (meter, seen.is_some_and(|seen| seen.from >= since)) {
            self.compare(Look { at: now, chargers: drawn, meter });
        }
    }

    fn look_for_standstill(&mut self, oldest: Mono, drawn: PerPhase<Current>, now: Mono) {
        if self.shown.is_none() || oldest <= self.changed_at {
            return;
        }
        let (since, then) = *self.chargers_then.get_or_insert((now, drawn));
        let long_enough = now.since(since) >= STUCK_MS.max(2 * self.period_ms(now));
        self.stuck |= long_enough && far(then, drawn) >= MOVED;
    }

    fn compare(&mut self, look: Look) {
        let Some(before) = self.look.filter(|before| look.at.since(before.at) <= LONGEST_STEP_MS) else {
            self.look = Some(look);
            return;
        };
        let chargers = look.chargers - before.chargers;
        if far(look.chargers, before.chargers) < STEP {
            // The newest look is the best to compare with, but many small steps are one large one.
            if far(look.chargers, before.chargers) <= STILL {
                self.look = Some(look);
            }
            return;
        }
        self.look = Some(look);
        match judge(chargers, look.meter - before.meter) {
            Some(None) => {
                self.strikes = 0;
                self.agreed += 1;
                if self.agreed >= STRIKES {
                    self.wrong = None;
                }
            }
            Some(Some(doubt)) => {
                self.agreed = 0;
                self.strikes += 1;
                if self.strikes >= STRIKES {
                    self.wrong = Some(doubt);
                }
            }
            None => {}
        }
    }
}

/// How far two are apart on the phase on which they differ most.
fn far(a: PerPhase<Current>, b: PerPhase<Current>) -> Current {
    (a - b).map(Current::abs).max()
}

/// Whether the meter followed a step of the chargers (`Some(None)`), contradicts it, or neither.
fn judge(chargers: PerPhase<Current>, meter: PerPhase<Current>) -> Option<Option<Doubt>> {
    let stepped = |phase: Phase| chargers.of(phase).abs() >= STEP;
    let part = |phase: Phase, parts: i32| Current::from_ma(chargers.of(phase).abs().ma() / parts);
    let near = |phase: Phase, value: Current| (value - chargers.of(phase)).abs() <= part(phase, 2);
    let mut phases = Phase::ALL.into_iter().filter(|phase| stepped(*phase));
    if phases.clone().all(|phase| near(phase, meter.of(phase))) {
        return Some(None);
    }
    if phases.clone().all(|phase| near(phase, -meter.of(phase))) {
        return Some(Some(Doubt::Flipped));
    }
    let elsewhere = |phase: Phase| {
        let others = Phase::ALL.into_iter().filter(|other| chargers.of(*other).abs() <= STILL);
        others.into_iter().any(|other| near(phase, meter.of(other)))
    };
    let swapped = phases.any(|phase| meter.of(phase).abs() <= part(phase, 4) && elsewhere(phase));
    swapped.then_some(Some(Doubt::Swapped))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(a: i32) -> MeterReading {
        MeterReading { current: PerPhase::splat(Some(Current::from_a(a))), ..MeterReading::default() }
    }

    fn second(second: u64) -> Mono {
        Mono::from_ms(second * 1_000)
    }

    fn amps(l1: i32, l2: i32, l3: i32) -> PerPhase<Current> {
        PerPhase::new(Current::from_a(l1), Current::from_a(l2), Current::from_a(l3))
    }

    #[test]
    fn the_time_between_different_readings_is_measured() {
        let mut gauge = Gauge::default();
        let mut told = Vec::new();
        for at in 0..400 {
            if let Some(seen) = gauge.take(&reading(i32::try_from(at / 60).unwrap()), second(at)) {
                told.push((at, seen));
            }
        }
        assert_eq!(gauge.known_period_ms(), Some(60_000));
        let moments: Vec<u64> = told.iter().map(|(at, _)| *at).collect();
        assert_eq!(moments, [0, 60, 120, 180, 240, 300, 360], "only new values are a new measurement");
        assert_eq!(told[6].1, Seen { from: second(300), newest: second(359) });
    }

    #[test]
    fn a_steady_load_at_a_fast_meter_is_measured_anew() {
        let mut gauge = Gauge::default();
        for at in 0..10 {
            gauge.take(&reading(i32::try_from(at).unwrap()), second(at));
        }
        assert_eq!(gauge.take(&reading(9), second(10)), None);
        assert_eq!(gauge.take(&reading(9), second(11)), Some(Seen { from: second(10), newest: second(10) }));
    }

    #[test]
    fn a_meter_that_does_not_move_with_the_chargers_is_stuck_until_it_moves() {
        let mut gauge = Gauge::default();
        for at in 0..10 {
            gauge.take(&reading(20 + i32::try_from(at % 2).unwrap()), second(at));
        }
        for at in 10..60 {
            gauge.take(&reading(21), second(at));
            let chargers = if at < 20 { amps(10, 10, 10) } else { amps(16, 10, 10) };
            gauge.chargers(Some((second(at), chargers)), None, second(at));
            assert_eq!(gauge.doubt().is_some(), at >= 25, "{at}");
        }
        gauge.take(&reading(22), second(60));
        assert_eq!(gauge.doubt(), None);
    }

    #[test]
    fn three_steps_show_a_meter_that_is_wired_wrongly_and_three_that_it_is_mended() {
        for (meter, doubt) in [(amps(-10, 0, 0), Doubt::Flipped), (amps(0, 10, 0), Doubt::Swapped)] {
            let mut gauge = Gauge::default();
            let step = |gauge: &mut Gauge, number: u64, meter: PerPhase<Current>| {
                let on = i32::try_from(number % 2).unwrap();
                let at = second(number * 60);
                let shown = meter.map(|step| Current::from_ma(step.ma() * on + 30_000));
                let reading = MeterReading { current: shown.map(Some), ..MeterReading::default() };
                let chargers = amps(10 * on, 0, 0);
                for later in 0..5 {
                    let now = at.plus_ms(later * 1_000);
                    gauge.take(&reading, now);
                    gauge.chargers(Some((now, chargers)), Some(Seen { from: now, newest: now }), now);
                }
            };
            for number in 0..3 {
                step(&mut gauge, number, meter);
            }
            assert_eq!(gauge.doubt(), None);
            step(&mut gauge, 3, meter);
            assert_eq!(gauge.doubt(), Some(doubt));
            // The first of these still has the wrong reading before it.
            for number in 4..8 {
                step(&mut gauge, number, amps(10, 0, 0));
            }
            assert_eq!(gauge.doubt(), None, "{doubt:?}");
        }
    }

    #[test]
    fn a_building_that_moves_too_says_nothing_about_the_meter() {
        assert_eq!(judge(amps(10, 0, 0), amps(12, 5, -5)), Some(None));
        assert_eq!(judge(amps(10, 0, 0), amps(30, 0, 0)), None);
        assert_eq!(judge(amps(10, 0, 0), amps(0, 0, 0)), None, "a battery may have made up for it");
        assert_eq!(judge(amps(10, 10, 10), amps(0, 10, 10)), None);
    }
}
