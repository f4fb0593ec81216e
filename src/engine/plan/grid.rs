//! Which currents a station can be offered: 0, or one on its grid.

use crate::engine::units::Current;

/// The currents that can be offered to an EVSE, in mA: its minimum and every multiple of its step above, or certain levels only.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid<'a> {
    min: Current,
    step: Current,
    levels: &'a [Current],
}

impl<'a> Grid<'a> {
    /// With `levels` (rising, without 0) only these that are at least `min`; without, the minimum and the multiples of `step`.
    pub(super) fn new(min: Current, step: Current, levels: &'a [Current]) -> Self {
        Self { min, step, levels }
    }

    fn min(&self) -> i64 {
        i64::from(self.min.ma())
    }

    /// Only certain levels are possible.
    pub(super) fn is_coarse(&self) -> bool {
        !self.levels.is_empty()
    }

    /// The smallest that can be offered; `None`: nothing.
    pub(super) fn least(&self) -> Option<i64> {
        self.at_least(self.min())
    }

    /// The largest that can be offered and is not above `amount`; 0 if there is none.
    pub(super) fn at_most(&self, amount: i64) -> i64 {
        if amount < self.min() {
            return 0;
        }
        if self.levels.is_empty() {
            return (amount - self.rest(amount)).max(self.min());
        }
        let above = self.levels.partition_point(|level| i64::from(level.ma()) <= amount);
        let level = above.checked_sub(1).map_or(0, |below| i64::from(self.levels[below].ma()));
        if level >= self.min() { level } else { 0 }
    }

    /// The smallest that can be offered and is not below `amount`.
    pub(super) fn at_least(&self, amount: i64) -> Option<i64> {
        let amount = amount.max(self.min());
        if self.levels.is_empty() {
            if amount == self.min() {
                return Some(amount);
            }
            let rest = self.rest(amount);
            return Some(if rest == 0 { amount } else { amount - rest + i64::from(self.step.ma()) });
        }
        let below = self.levels.partition_point(|level| i64::from(level.ma()) < amount);
        self.levels.get(below).map(|level| i64::from(level.ma()))
    }

    /// What an amount is above a multiple of the step. Divides 32 bits where they do: every plan does that several times for each EVSE.
    fn rest(&self, amount: i64) -> i64 {
        let step = u32::try_from(self.step.ma()).unwrap_or(1).max(1);
        u32::try_from(amount).map_or_else(|_| amount.rem_euclid(i64::from(step)), |amount| i64::from(amount % step))
    }

    /// The next that can be offered above `amount`.
    pub(super) fn above(&self, amount: i64) -> Option<i64> {
        self.at_least(amount + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimum_between_two_steps_is_on_the_grid() {
        let grid = Grid::new(Current::from_ma(6_500), Current::from_a(1), &[]);
        assert_eq!(grid.least(), Some(6_500));
        assert_eq!(
            [6_499, 6_500, 6_999, 7_000, 8_999].map(|amount| grid.at_most(amount)),
            [0, 6_500, 6_500, 7_000, 8_000]
        );
        assert_eq!([0, 6_500, 7_000].map(|amount| grid.above(amount)), [Some(6_500), Some(7_000), Some(8_000)]);
    }

    #[test]
    fn levels_below_the_minimum_are_not_used() {
        let levels = [6, 8, 16, 32].map(Current::from_a);
        let grid = Grid::new(Current::from_a(7), Current::from_a(1), &levels);
        assert_eq!(grid.least(), Some(8_000));
        assert_eq!([7_999, 8_000, 31_999, 40_000].map(|amount| grid.at_most(amount)), [0, 8_000, 16_000, 32_000]);
        assert_eq!([0, 8_000, 32_000].map(|amount| grid.above(amount)), [Some(8_000), Some(16_000), None]);
        assert_eq!(Grid::new(Current::from_a(33), Current::from_a(1), &levels).least(), None);
    }
}
