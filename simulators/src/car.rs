//! A car with its on-board charger: follows the offered current late and by a ramp, needs 6 A, tapers when nearly full.

use siteward::engine::time::Mono;
use siteward::engine::units::Current;

/// One Wh in mW·ms, the unit in which energy is summed up here so that nothing is rounded on the way.
pub const WH_IN_MWMS: i64 = 3_600_000_000;

/// What kind of car it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarOptions {
    /// The battery's size in Wh.
    pub battery_wh: i64,
    /// The state of charge on arrival in %, 0 to 100.
    pub arrives_percent: i64,
    /// On how many phases it charges: 1, 2 or 3.
    pub phases: usize,
    /// The most it draws per phase.
    pub max: Current,
    /// The least it can draw per phase; below it takes nothing.
    pub min: Current,
    /// How long it takes to follow a changed offer, in ms (IEC 61851-1: up to 5 s).
    pub reaction_ms: u64,
    /// How fast the current changes, in mA per s.
    pub ramp_ma_per_s: i64,
    /// From this state of charge on it draws less and less, in %.
    pub tapers_from_percent: i64,
    /// How long it stays, in ms; `None`: until somebody takes it away.
    pub stays_ms: Option<u64>,
}

impl Default for CarOptions {
    fn default() -> Self {
        Self {
            battery_wh: 60_000,
            arrives_percent: 30,
            phases: 3,
            max: Current::from_a(16),
            min: Current::from_a(6),
            reaction_ms: 1_000,
            ramp_ma_per_s: 8_000,
            tapers_from_percent: 85,
            stays_ms: None,
        }
    }
}

/// A car at a cable.
#[derive(Clone, Debug)]
pub struct Car {
    options: CarOptions,
    taken_mwms: i64,
    drawn: Current,
    followed: Current,
    offered: Current,
    follows_at: Option<Mono>,
    advanced_to: Option<Mono>,
}

impl Car {
    /// A car that has just been plugged in and draws nothing yet.
    #[must_use]
    pub const fn new(options: CarOptions) -> Self {
        Self {
            options,
            taken_mwms: 0,
            drawn: Current::ZERO,
            followed: Current::ZERO,
            offered: Current::ZERO,
            follows_at: None,
            advanced_to: None,
        }
    }

    /// What kind of car it is.
    #[must_use]
    pub const fn options(&self) -> &CarOptions {
        &self.options
    }

    /// What it draws on each of its phases.
    #[must_use]
    pub const fn current(&self) -> Current {
        self.drawn
    }

    /// The energy taken since it was plugged in, in Wh, rounded down.
    #[must_use]
    pub const fn taken_wh(&self) -> i64 {
        self.taken_mwms / WH_IN_MWMS
    }

    /// The state of charge in %, 0 to 100.
    #[must_use]
    pub fn soc_percent(&self) -> i64 {
        let held = self.options.battery_wh * self.options.arrives_percent / 100 + self.taken_wh();
        (held * 100 / self.options.battery_wh.max(1)).clamp(0, 100)
    }

    /// Whether it takes no more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.soc_percent() >= 100
    }

    /// What it would draw per phase if it were offered everything; zero when it is full.
    #[must_use]
    pub fn wanted(&self) -> Current {
        if self.is_full() {
            return Current::ZERO;
        }
        let soc = self.soc_percent();
        let from = self.options.tapers_from_percent.clamp(0, 99);
        if soc <= from {
            return self.options.max;
        }
        // Linear from the maximum down to the minimum at 100 %.
        let span = i64::from((self.options.max - self.options.min).ma());
        let less = span * (soc - from) / (100 - from);
        self.options.max - Current::from_ma(i32::try_from(less).unwrap_or(0))
    }

    /// Lets time pass up to `now` with `offered` per phase at the plug. `extra_lag_ms` is the station's own delay.
    /// Returns the energy taken meanwhile in mW·ms, on all phases together, at `voltage_mv` per phase.
    pub fn advance(&mut self, now: Mono, offered: Current, extra_lag_ms: u64, voltage_mv: i64) -> i64 {
        let elapsed = now.since(self.advanced_to.unwrap_or(now));
        self.advanced_to = Some(now);
        let energy = self.energy_of(elapsed, voltage_mv);
        self.taken_mwms += energy;
        if offered != self.offered {
            self.offered = offered;
            // Further changes while one is being followed do not start the delay anew: the pilot is looked at then, as it is then.
            self.follows_at.get_or_insert(now.plus_ms(self.options.reaction_ms + extra_lag_ms));
        }
        if self.follows_at.is_some_and(|at| now >= at) {
            self.follows_at = None;
            self.followed = self.offered;
        }
        self.ramp(elapsed);
        energy
    }

    /// The plug has only so many phases.
    pub fn use_at_most(&mut self, phases: usize) {
        self.options.phases = self.options.phases.min(phases);
    }

    /// Nothing flows from now on: the contactor has opened (no transaction, or the plug was pulled).
    pub const fn cut_off(&mut self) {
        self.drawn = Current::ZERO;
        self.followed = Current::ZERO;
        self.offered = Current::ZERO;
        self.follows_at = None;
    }

    fn energy_of(&self, elapsed_ms: u64, voltage_mv: i64) -> i64 {
        let phases = i64::try_from(self.options.phases).unwrap_or(1);
        let power_mw = i64::from(self.drawn.ma()) * voltage_mv / 1000 * phases;
        power_mw.saturating_mul(i64::try_from(elapsed_ms).unwrap_or(0))
    }

    fn ramp(&mut self, elapsed_ms: u64) {
        let goal = self.followed.min(self.wanted());
        let goal = if goal < self.options.min { Current::ZERO } else { goal };
        if goal == self.drawn {
            return;
        }
        if goal == Current::ZERO {
            // Below the minimum the car opens its contactor: no ramp.
            self.drawn = Current::ZERO;
            return;
        }
        let most = self.options.ramp_ma_per_s.saturating_mul(i64::try_from(elapsed_ms).unwrap_or(0)) / 1000;
        let step = Current::from_ma(i32::try_from(most.max(1)).unwrap_or(i32::MAX));
        self.drawn = if goal > self.drawn { goal.min(self.drawn + step) } else { goal.max(self.drawn - step) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(car: &mut Car, from_s: u64, seconds: u64, offered: Current) {
        for second in from_s..=from_s + seconds {
            car.advance(Mono::from_ms(second * 1000), offered, 0, 230_000);
        }
    }

    #[test]
    fn it_follows_an_offer_late_and_by_a_ramp() {
        let mut car = Car::new(CarOptions { reaction_ms: 2_000, ..CarOptions::default() });
        run(&mut car, 0, 1, Current::from_a(16));
        assert_eq!(car.current(), Current::ZERO);
        run(&mut car, 2, 1, Current::from_a(16));
        assert_eq!(car.current(), Current::from_a(16));
    }

    #[test]
    fn below_six_amperes_it_takes_nothing() {
        let mut car = Car::new(CarOptions::default());
        run(&mut car, 0, 10, Current::from_ma(5_900));
        assert_eq!(car.current(), Current::ZERO);
        run(&mut car, 11, 10, Current::from_a(6));
        assert_eq!(car.current(), Current::from_a(6));
    }

    #[test]
    fn it_tapers_and_stops_when_full() {
        let options = CarOptions { battery_wh: 10_000, arrives_percent: 80, ..CarOptions::default() };
        let mut car = Car::new(options);
        run(&mut car, 0, 500, Current::from_a(16));
        assert!(car.current() < Current::from_a(16) && car.current() >= Current::from_a(6));
        run(&mut car, 501, 3_600, Current::from_a(16));
        assert!(car.is_full());
        assert_eq!(car.current(), Current::ZERO);
        assert!((2_000..2_005).contains(&car.taken_wh()), "{} Wh", car.taken_wh());
    }
}
