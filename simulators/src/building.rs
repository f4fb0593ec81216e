//! The load of a building: a daily pattern, noise, and things that are switched on and off.

use siteward::engine::units::{Current, PerPhase, Phase};

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

/// What one switched load does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    /// On one phase for two to four minutes, now and then.
    Kettle,
    /// On all phases for a quarter or half of a minute, often.
    Lift,
    /// On two phases, 20 s on and 40 s off, as its thermostat switches.
    Oven,
}

/// A load that is switched on and off by the second.
#[derive(Clone, Debug)]
struct Appliance {
    habit: Habit,
    draws: PerPhase<Current>,
    on: bool,
    changes_at_ms: u64,
}

/// Kettles, lifts and ovens: loads with steps.
#[derive(Clone, Debug)]
pub struct Appliances {
    all: Vec<Appliance>,
    dice: Dice,
    next_ms: u64,
    now: PerPhase<Current>,
}

impl Appliances {
    /// One of each kind that draws more than nothing. Together they never draw more than the sum of the three on any phase.
    #[must_use]
    pub fn new(kettle: Current, lift: Current, oven: Current, mut dice: Dice) -> Self {
        let zero = PerPhase::splat(Current::ZERO);
        let first = dice.pick(&Phase::ALL).copied().unwrap_or(Phase::L1);
        let one = PerPhase::from_fn(|phase| if phase == first { kettle } else { Current::ZERO });
        let two = PerPhase::from_fn(|phase| if phase == first { Current::ZERO } else { oven });
        let kinds = [(Habit::Kettle, one), (Habit::Lift, PerPhase::splat(lift)), (Habit::Oven, two)];
        let all = kinds.into_iter().filter(|(_, draws)| *draws != zero);
        let all = all.map(|(habit, draws)| Appliance { habit, draws, on: false, changes_at_ms: 0 }).collect();
        Self { all, dice, next_ms: 0, now: zero }
    }

    /// What they draw. Time runs forwards only.
    pub fn current(&mut self, now_ms: u64) -> PerPhase<Current> {
        if now_ms < self.next_ms || self.all.is_empty() {
            return self.now;
        }
        for appliance in &mut self.all {
            if now_ms < appliance.changes_at_ms {
                continue;
            }
            // The first change only begins a break, so that not everything is switched on at the start.
            appliance.on = !appliance.on && appliance.changes_at_ms > 0;
            let seconds = match (appliance.habit, appliance.on) {
                (Habit::Kettle, true) => self.dice.between(120, 240),
                (Habit::Kettle, false) => self.dice.between(300, 2_400),
                (Habit::Lift, true) => self.dice.between(12, 30),
                (Habit::Lift, false) => self.dice.between(60, 600),
                (Habit::Oven, true) => 20,
                (Habit::Oven, false) => {
                    if self.dice.chance(30_000) {
                        7_200
                    } else {
                        40
                    }
                }
            };
            appliance.changes_at_ms = now_ms + seconds * 1000;
        }
        self.next_ms = self.all.iter().map(|appliance| appliance.changes_at_ms).min().unwrap_or(u64::MAX);
        let on = self.all.iter().filter(|appliance| appliance.on);
        self.now = on.fold(PerPhase::splat(Current::ZERO), |sum, appliance| sum + appliance.draws);
        self.now
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
    fn appliances_switch_by_the_second_and_stay_below_their_sum() {
        let amps = Current::from_a;
        let mut appliances = Appliances::new(amps(10), amps(20), amps(15), Dice::new(1));
        let seen: std::collections::BTreeSet<i32> =
            (0..7_200).map(|second| appliances.current(second * 1000).of(Phase::L1).ma()).collect();
        assert!(seen.contains(&0) && seen.contains(&20_000), "{seen:?}");
        assert!(seen.iter().all(|drawn| *drawn <= 45_000));
    }

    #[test]
    fn the_day_has_a_peak_and_a_night() {
        let mut building =
            Building::new(PerPhase::splat(Current::from_a(50)), Current::ZERO, Current::ZERO, Dice::new(1));
        assert_eq!(building.current(2 * 3_600_000), PerPhase::splat(Current::from_a(10)));
        assert_eq!(building.current(12 * 3_600_000), PerPhase::splat(Current::from_a(50)));
        assert!(building.unchanged_at(12 * 3_600_000 + 59_999));
    }
}
