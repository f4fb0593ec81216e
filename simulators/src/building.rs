//! The load of a building: a daily pattern, noise, and things that are switched on and off.

use siteward::engine::units::{Current, PerPhase};

use crate::rng::Dice;

/// Share of the peak in percent for each hour of the day (UTC): an office with a kitchen.
const OFFICE: [i32; 24] =
    [22, 20, 20, 20, 22, 28, 40, 60, 78, 88, 92, 96, 100, 96, 92, 90, 84, 72, 58, 46, 38, 32, 28, 24];

/// The load of a building.
#[derive(Clone, Debug)]
pub struct Building {
    peak: PerPhase<Current>,
    noise: Current,
    step: Current,
    dice: Dice,
    minute: Option<i64>,
    now: PerPhase<Current>,
}

impl Building {
    /// A building with a largest load per phase, noise of ±`noise`, and now and then a load of `step` on one phase for a minute.
    #[must_use]
    pub const fn new(peak: PerPhase<Current>, noise: Current, step: Current, dice: Dice) -> Self {
        Self { peak, noise, step, dice, minute: None, now: PerPhase::splat(Current::ZERO) }
    }

    /// What it draws on each phase at a time of day, given in ms since 1970 (UTC). Changes once a minute; time runs forwards only.
    pub fn current(&mut self, unix_ms: i64) -> PerPhase<Current> {
        let minute = unix_ms.div_euclid(60_000);
        if self.minute != Some(minute) {
            self.minute = Some(minute);
            let share = share_of_day(minute.rem_euclid(1440));
            let switched = self.dice.chance(30_000).then(|| self.dice.below(3));
            let mut index = 0;
            self.now = self.peak.map(|peak| {
                let base = i32::try_from(i64::from(peak.ma()) * i64::from(share) / 6000).unwrap_or(0);
                let noise = self.dice.around_zero(self.noise.ma());
                let extra = if switched == Some(index) { self.step } else { Current::ZERO };
                index += 1;
                (Current::from_ma(base + noise) + extra).at_least_zero()
            });
        }
        self.now
    }

    /// Whether `unix_ms` is in the same minute as the last call: then the load has not changed.
    #[must_use]
    pub fn unchanged_at(&self, unix_ms: i64) -> bool {
        self.minute == Some(unix_ms.div_euclid(60_000))
    }
}

/// The share of the peak at a minute of the day, in 1/6000.
fn share_of_day(minute: i64) -> i32 {
    let hour = usize::try_from(minute / 60).unwrap_or(0) % 24;
    let within = i32::try_from(minute % 60).unwrap_or(0);
    OFFICE[hour] * (60 - within) + OFFICE[(hour + 1) % 24] * within
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_day_has_a_peak_and_a_night() {
        let mut building =
            Building::new(PerPhase::splat(Current::from_a(50)), Current::ZERO, Current::ZERO, Dice::new(1));
        assert_eq!(building.current(2 * 3_600_000), PerPhase::splat(Current::from_a(10)));
        assert_eq!(building.current(12 * 3_600_000), PerPhase::splat(Current::from_a(50)));
        assert!(building.unchanged_at(12 * 3_600_000 + 59_999));
    }
}
