//! What everything but the EVSEs draws in a circuit.
//!
//! The meter says what flowed through the circuit at some time; the stations say, some seconds late, what they drew. The difference of
//! both is not the background while a car ramps, nor while the meter still shows what was before it did. So each reading
//! is held against what the EVSEs may have drawn **at the time that the reading tells of**, as an interval: the estimate moves only when it is
//! outside of what the reading and that interval allow. It is kept inside the bounds that are certain: the EVSEs drew no more than
//! their committed currents, and no less than what is left of their last samples after a cut.
//!
//! A meter that shows new values only every so often may have taken them at the end of that time (a snapshot) or over it (a mean). More
//! background is concluded from the end alone, less only from what holds for the whole time: the safe side of both.

use std::collections::VecDeque;

use crate::engine::time::{Mono, Sampled};
use crate::engine::units::{Current, PerPhase, Phase, PhaseSet};

/// How fast the estimate follows: the usual interval of the stations' meter values.
const FOLLOW_MS: i64 = 8_000;

/// How fast a fall of the background is given out. Slower than a rise is honoured, so that noise does not cause a cut with each wave.
const RELEASE_MS: i64 = 10_000;

/// Kept free above the estimate, so that small noise stays below the limit without a cut; never more than the estimate itself: where there is
/// no other load there is no noise of it, and a charger on a metered circuit of its own has all of it.
const MARGIN: Current = Current::from_ma(300);

/// Less is nothing: meters show some mA where nothing flows, and a charger whose minimum is all that its circuit has would never charge.
const NOTHING: Current = Current::from_ma(100);

/// What the EVSEs drew is remembered for so long: more than the slowest meter that is useful takes for new values.
const MEMORY_MS: u64 = 180_000;

/// At most so many moments of it are kept, about one a second; a meter that is asked more often has them joined.
const MOST_MOMENTS: usize = 200;

/// See [`MOST_MOMENTS`].
const MOMENT_MS: u64 = 1_000;

/// The currents of all EVSEs below a circuit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drawn {
    /// The least that they are likely to draw, by their last samples: nothing of one that says that it draws more than it may, which may be
    /// an old message as well.
    pub low: PerPhase<Current>,
    /// The most that they are likely to draw.
    pub high: PerPhase<Current>,
    /// The least that they draw as they say themselves.
    pub least: PerPhase<Current>,
    /// The most that they may draw.
    pub most: PerPhase<Current>,
}

impl Drawn {
    /// The wider of two.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            low: self.low.zip_with(other.low, Current::min),
            high: self.high.zip_with(other.high, Current::max),
            least: self.least.zip_with(other.least, Current::min),
            most: self.most.zip_with(other.most, Current::max),
        }
    }
}

impl std::ops::AddAssign for Drawn {
    fn add_assign(&mut self, other: Self) {
        self.low += other.low;
        self.high += other.high;
        self.least += other.least;
        self.most += other.most;
    }
}

/// What is fed in inside a circuit, as current on each phase, at least 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FedIn {
    /// The least of the last readings.
    pub low: PerPhase<Current>,
    /// The most of the last readings.
    pub high: PerPhase<Current>,
}

/// The time that a reading tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// It may tell of what was then.
    pub from: Mono,
    /// A snapshot was not taken before this.
    pub newest: Mono,
}

/// The estimate for one metered circuit.
#[derive(Clone, Debug, Default)]
pub struct Background {
    estimate: Option<Sampled<PerPhase<Current>>>,
    used: PerPhase<Current>,
    /// What the EVSEs drew, oldest first.
    moments: VecDeque<(Mono, Drawn)>,
    /// When the last reading that said something new came, and what it tells of.
    read: Option<(Mono, Seen)>,
    /// The meter's readings are not to be believed.
    distrusted: bool,
}

impl Background {
    /// Remembers what the EVSEs draw now.
    pub fn note(&mut self, drawn: Drawn, now: Mono) {
        self.moments.push_back((now, drawn));
        while self.moments.get(1).is_some_and(|(at, _)| now.since(*at) > MEMORY_MS) {
            self.moments.pop_front();
        }
        if self.moments.len() > MOST_MOMENTS {
            self.thin();
        }
    }

    /// Joins neighbours, so that a meter that is asked often costs no more than one that is asked each second.
    fn thin(&mut self) {
        let mut thinned: VecDeque<(Mono, Drawn)> = VecDeque::with_capacity(MOST_MOMENTS);
        for (at, drawn) in self.moments.drain(..) {
            match thinned.back_mut() {
                Some((first, joined)) if at.since(*first) < MOMENT_MS => *joined = joined.or(drawn),
                Some(_) | None => thinned.push_back((at, drawn)),
            }
        }
        self.moments = thinned;
    }

    /// What the EVSEs drew since `from`: the moment before counts too, as it lasted until the next.
    fn drawn_since(&self, from: Mono) -> Drawn {
        let mut span: Option<Drawn> = None;
        for (at, drawn) in self.moments.iter().rev() {
            span = Some(span.map_or(*drawn, |span| span.or(*drawn)));
            if *at <= from {
                break;
            }
        }
        span.unwrap_or_default()
    }

    /// Takes in a reading of the circuit's meter that tells of `seen`; the answer to a poll at `at`.
    pub fn reading(&mut self, total: PerPhase<Current>, fed_in: FedIn, seen: Seen, at: Mono) {
        let (wide, narrow) = (self.drawn_since(seen.from), self.drawn_since(seen.newest));
        let upper = total + fed_in.high - wide.low;
        let lower = total + fed_in.low - narrow.high;
        let floor = total - narrow.most;
        let (before, elapsed_ms) = match (&self.estimate, self.read) {
            (Some(estimate), Some((read_at, _))) => (*estimate.for_display(), at.since(read_at)),
            (Some(_) | None, _) => (upper, 0),
        };
        let elapsed_ms = i64::try_from(elapsed_ms).unwrap_or(i64::MAX).min(60_000);
        let bounded = PerPhase::from_fn(|phase| {
            let old = before.of(phase);
            let goal = old.min(upper.of(phase)).max(lower.of(phase));
            let estimate = approach(old, goal, elapsed_ms, FOLLOW_MS).min(upper.of(phase)).max(floor.of(phase));
            // Below nothing it would only be late when there is something: what is fed in is not given out anyhow.
            estimate.at_least_zero()
        });
        let first = self.estimate.is_none();
        self.estimate = Some(Sampled::new(bounded, at));
        self.read = Some((at, seen));
        self.used = self.used.zip_with(bounded, |used, estimate| {
            let wanted = if estimate < NOTHING { Current::ZERO } else { estimate + MARGIN.min(estimate) };
            if first || wanted >= used { wanted } else { approach(used, wanted, elapsed_ms, RELEASE_MS) }
        });
    }

    /// The last reading stays above the limit on these phases although the EVSEs were cut and had time to follow: what was cut was not
    /// what flowed. From now on they count there with no more than they say that they draw, and all the rest is background, until they say more.
    pub fn insist(&mut self, total: PerPhase<Current>, fed_in: FedIn, phases: PhaseSet) {
        let (Some(estimate), Some((_, seen))) = (&self.estimate, self.read) else { return };
        let sure = total + fed_in.low - self.drawn_since(seen.newest).least;
        let on = |phase: Phase| phases.contains(phase);
        let before = *estimate.for_display();
        let raised =
            PerPhase::from_fn(|phase| if on(phase) { before.of(phase).max(sure.of(phase)) } else { before.of(phase) });
        self.estimate = Some(Sampled::new(raised, estimate.at()));
        self.used = self.used.zip_with(raised, Current::max);
    }

    /// The meter was asked at `at` and shows what it showed before: nothing new, but it is there.
    pub fn still(&mut self, at: Mono) {
        self.estimate = self.estimate.take().map(|estimate| Sampled::new(*estimate.for_display(), at));
    }

    /// Whether the readings are to be believed.
    pub const fn trust(&mut self, trusted: bool) {
        self.distrusted = !trusted;
    }

    /// The time that the last reading with new values tells of.
    #[must_use]
    pub fn seen(&self) -> Option<Seen> {
        self.read.map(|(_, seen)| seen)
    }

    /// Since when what the EVSEs may have drawn was counted against the last reading: the moment before the time that it tells of counts too.
    #[must_use]
    pub fn counts_from(&self) -> Option<Mono> {
        let (_, seen) = self.read?;
        let before = self.moments.iter().rev().find(|(at, _)| *at <= seen.from).or(self.moments.front());
        Some(before.map_or(seen.from, |(at, _)| *at))
    }

    /// The most that the EVSEs may have drawn in the time that the last reading tells of, and since.
    #[must_use]
    pub fn most_seen(&self) -> Option<PerPhase<Current>> {
        self.read.map(|(_, seen)| self.drawn_since(seen.from).most)
    }

    /// The background to plan with, if the last reading is not older than `max_age_ms`. At least 0: what is fed in inside the
    /// circuit is not given out, since it can vanish within a second.
    #[must_use]
    pub fn fresh(&self, now: Mono, max_age_ms: u64) -> Option<PerPhase<Current>> {
        self.estimate.as_ref().filter(|_| !self.distrusted)?.fresh(now, max_age_ms)?;
        Some(self.used.map(Current::at_least_zero))
    }

    /// The last background known, whatever its age: a floor for the assumption while the meter is silent.
    #[must_use]
    pub fn last_known(&self) -> Option<PerPhase<Current>> {
        self.estimate.as_ref().map(|_| self.used.map(Current::at_least_zero))
    }
}

/// Moves `from` towards `to` as a first-order lag with the time constant `tau_ms` would in `elapsed_ms`.
fn approach(from: Current, to: Current, elapsed_ms: i64, tau_ms: i64) -> Current {
    let difference = i64::from(to.ma()) - i64::from(from.ma());
    let moved = difference * elapsed_ms / (tau_ms + elapsed_ms);
    // What is too little for a whole mA would never arrive.
    if moved == 0 { to } else { from + Current::from_ma(i32::try_from(moved).unwrap_or(0)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amps(a: i32) -> PerPhase<Current> {
        PerPhase::splat(Current::from_a(a))
    }

    fn drawn(low: i32, high: i32, most: i32) -> Drawn {
        Drawn { low: amps(low), high: amps(high), least: amps(low), most: amps(most) }
    }

    /// A reading of a meter that shows what is, each second.
    fn read(background: &mut Background, total_a: i32, drawn: Drawn, at_ms: u64) {
        let at = Mono::from_ms(at_ms);
        background.note(drawn, at);
        background.reading(amps(total_a), FedIn::default(), Seen { from: at, newest: at }, at);
    }

    fn used_a(background: &Background, at_ms: u64) -> i32 {
        background.fresh(Mono::from_ms(at_ms), 5_000).map_or(-1, |used| used.of(Phase::L1).ma())
    }

    #[test]
    fn a_ramping_car_is_not_background() {
        let mut background = Background::default();
        read(&mut background, 30, drawn(10, 10, 10), 1_000);
        assert_eq!(used_a(&background, 1_000), 20_300);
        // The car may now draw 26 A and does, its sample still says 10 A.
        read(&mut background, 46, drawn(10, 10, 26), 1_500);
        assert!(used_a(&background, 1_500) < 21_500, "{}", used_a(&background, 1_500));
    }

    #[test]
    fn what_no_car_can_draw_is_background_at_once() {
        let mut background = Background::default();
        read(&mut background, 30, drawn(10, 10, 10), 1_000);
        read(&mut background, 60, drawn(10, 10, 16), 1_500);
        assert_eq!(used_a(&background, 1_500), 44_300);
    }

    #[test]
    fn a_cut_that_the_sample_does_not_show_yet_frees_nothing() {
        let mut background = Background::default();
        read(&mut background, 50, drawn(30, 30, 30), 1_000);
        // Cut to 6 A, the car follows, the sample still says 30 A: the background is still 20 A, not minus 4.
        read(&mut background, 26, drawn(6, 6, 6), 7_000);
        assert_eq!(used_a(&background, 7_000), 20_300);
    }

    #[test]
    fn where_nothing_else_draws_nothing_is_kept_free() {
        let mut background = Background::default();
        read(&mut background, 16, drawn(16, 16, 16), 1_000);
        assert_eq!(used_a(&background, 1_000), 0);
        let at = Mono::from_ms(2_000);
        let flicker = PerPhase::splat(Current::from_ma(16_090));
        background.note(drawn(16, 16, 16), at);
        background.reading(flicker, FedIn::default(), Seen { from: at, newest: at }, at);
        assert_eq!(used_a(&background, 2_000), 0);
    }

    #[test]
    fn what_stays_above_the_limit_after_a_cut_is_background() {
        let mut background = Background::default();
        read(&mut background, 40, drawn(30, 30, 30), 1_000);
        // They draw 10 A by their last samples and may draw 40 A: of 60 A 20 are proven.
        read(&mut background, 60, drawn(10, 40, 40), 1_500);
        let before = used_a(&background, 1_500);
        background.insist(amps(60), FedIn::default(), PhaseSet::ALL);
        assert!(before < 25_000, "{before}");
        assert_eq!(used_a(&background, 1_500), 50_000);
    }

    #[test]
    fn a_stale_reading_is_no_reading_and_feed_in_is_not_given_out() {
        let mut background = Background::default();
        read(&mut background, -15, drawn(0, 0, 0), 1_000);
        assert_eq!(used_a(&background, 1_000), 0);
        assert_eq!(used_a(&background, 6_001), -1);
        assert_eq!(background.last_known(), Some(amps(0)));
    }
}
