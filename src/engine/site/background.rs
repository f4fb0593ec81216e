//! What everything but the EVSEs draws in a circuit.
//!
//! The meter says what flows through the circuit now; the stations say, some seconds late, what they drew. The difference is not the
//! background while a car ramps. So the estimate moves towards the difference slowly, and is kept inside the bounds that
//! are certain: the EVSEs draw no more than their committed currents and no less than what is left of their last sample after a cut.

use crate::engine::time::{Mono, Sampled};
use crate::engine::units::{Current, PerPhase};

/// How fast the estimate follows: the usual interval of the stations' meter values.
const FOLLOW_MS: i64 = 8_000;

/// How fast a fall of the background is given out. Slower than a rise is honoured, so that noise does not cause a cut with each wave.
const RELEASE_MS: i64 = 10_000;

/// Kept free above the estimate, so that small noise stays below the limit without a cut.
const MARGIN: Current = Current::from_ma(300);

/// The currents of all EVSEs below a circuit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drawn {
    /// What they are likely to draw: their last samples.
    pub likely: PerPhase<Current>,
    /// The least that they draw.
    pub least: PerPhase<Current>,
    /// The most that they may draw.
    pub most: PerPhase<Current>,
}

/// The estimate for one metered circuit.
#[derive(Clone, Debug, Default)]
pub struct Background {
    estimate: Option<Sampled<PerPhase<Current>>>,
    used: PerPhase<Current>,
}

impl Background {
    /// Takes in a reading of the circuit's meter, measured at `at` or later.
    pub fn reading(&mut self, total: PerPhase<Current>, drawn: &Drawn, at: Mono) {
        let likely = total - drawn.likely;
        let floor = total - drawn.most;
        let ceiling = total - drawn.least;
        let (before, elapsed_ms) = match &self.estimate {
            Some(estimate) => (*estimate.for_display(), at.since(estimate.at())),
            None => (likely, 0),
        };
        let elapsed_ms = i64::try_from(elapsed_ms).unwrap_or(i64::MAX).min(60_000);
        let moved = before.zip_with(likely, |old, new| approach(old, new, elapsed_ms, FOLLOW_MS));
        let bounded = PerPhase::from_fn(|phase| moved.of(phase).min(ceiling.of(phase)).max(floor.of(phase)));
        let first = self.estimate.is_none();
        self.estimate = Some(Sampled::new(bounded, at));
        self.used = self.used.zip_with(bounded, |used, estimate| {
            let wanted = estimate + MARGIN;
            if first || wanted >= used { wanted } else { approach(used, wanted, elapsed_ms, RELEASE_MS) }
        });
    }

    /// The background to plan with, if the last reading is not older than `max_age_ms`. At least 0: what is fed in inside the
    /// circuit is not given out, since it can vanish within a second.
    #[must_use]
    pub fn fresh(&self, now: Mono, max_age_ms: u64) -> Option<PerPhase<Current>> {
        self.estimate.as_ref()?.fresh(now, max_age_ms)?;
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
    from + Current::from_ma(i32::try_from(moved).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amps(a: i32) -> PerPhase<Current> {
        PerPhase::splat(Current::from_a(a))
    }

    fn drawn(likely: i32, least: i32, most: i32) -> Drawn {
        Drawn { likely: amps(likely), least: amps(least), most: amps(most) }
    }

    fn used_a(background: &Background, at_ms: u64) -> i32 {
        background.fresh(Mono::from_ms(at_ms), 5_000).map_or(-1, |used| used.of(crate::engine::units::Phase::L1).ma())
    }

    #[test]
    fn a_ramping_car_is_not_background() {
        let mut background = Background::default();
        background.reading(amps(30), &drawn(10, 10, 10), Mono::from_ms(1_000));
        assert_eq!(used_a(&background, 1_000), 20_300);
        // The car may now draw 26 A and does, its sample still says 10 A.
        background.reading(amps(46), &drawn(10, 10, 26), Mono::from_ms(1_500));
        assert!(used_a(&background, 1_500) < 21_500, "{}", used_a(&background, 1_500));
    }

    #[test]
    fn what_no_car_can_draw_is_background_at_once() {
        let mut background = Background::default();
        background.reading(amps(30), &drawn(10, 10, 10), Mono::from_ms(1_000));
        background.reading(amps(60), &drawn(10, 10, 16), Mono::from_ms(1_500));
        assert_eq!(used_a(&background, 1_500), 44_300);
    }

    #[test]
    fn a_cut_that_the_sample_does_not_show_yet_frees_nothing() {
        let mut background = Background::default();
        background.reading(amps(50), &drawn(30, 30, 30), Mono::from_ms(1_000));
        // Cut to 6 A, the car follows, the sample still says 30 A: the background is still 20 A, not minus 4.
        background.reading(amps(26), &drawn(6, 6, 6), Mono::from_ms(7_000));
        assert_eq!(used_a(&background, 7_000), 20_300);
    }

    #[test]
    fn a_stale_reading_is_no_reading_and_feed_in_is_not_given_out() {
        let mut background = Background::default();
        background.reading(amps(-15), &drawn(0, 0, 0), Mono::from_ms(1_000));
        assert_eq!(used_a(&background, 1_000), 0);
        assert_eq!(used_a(&background, 6_001), -1);
        assert_eq!(background.last_known(), Some(amps(0)));
    }
}
