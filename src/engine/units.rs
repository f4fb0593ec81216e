//! Electrical quantities as integers with a private field.
//!
//! Inside the engine a unit is a type; names carry it only where a number leaves (`limit_a`, `energy_wh`). Arithmetic saturates: a
//! register that lies must not become a panic, and the plausibility of readings is judged where they are made.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};

use serde::{Deserialize, Serialize};

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident, $repr:ty, $unit:literal, $from:ident, $to:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        #[serde(transparent)]
        pub struct $name($repr);

        impl $name {
            /// Nothing flows. This is a value, never a stand-in for "unknown".
            pub const ZERO: Self = Self(0);
            /// The largest value that can be represented.
            pub const MAX: Self = Self(<$repr>::MAX);

            #[doc = concat!("Makes the quantity from a number of ", $unit, ".")]
            #[must_use]
            pub const fn $from(value: $repr) -> Self {
                Self(value)
            }

            #[doc = concat!("The quantity as a number of ", $unit, ".")]
            #[must_use]
            pub const fn $to(self) -> $repr {
                self.0
            }

            /// The quantity without its sign.
            #[must_use]
            pub const fn abs(self) -> Self {
                Self(self.0.saturating_abs())
            }

            /// Zero where the quantity is negative.
            #[must_use]
            pub fn at_least_zero(self) -> Self {
                Self(self.0.max(0))
            }
        }

        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }
        }

        impl Sub for $name {
            type Output = Self;
            fn sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }

        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                *self = *self + other;
            }
        }

        impl SubAssign for $name {
            fn sub_assign(&mut self, other: Self) {
                *self = *self - other;
            }
        }

        impl Neg for $name {
            type Output = Self;
            fn neg(self) -> Self {
                Self(self.0.saturating_neg())
            }
        }

        impl Sum for $name {
            fn sum<I: Iterator<Item = Self>>(values: I) -> Self {
                values.fold(Self::ZERO, Add::add)
            }
        }
    };
}

quantity!(
    /// An electric current per phase, in mA; negative flows out of the site.
    Current, i32, "milliamperes", from_ma, ma
);
quantity!(
    /// A voltage, in mV.
    Voltage, i32, "millivolts", from_mv, mv
);
quantity!(
    /// An active power, in W; negative flows out of the site.
    Power, i64, "watts", from_w, w
);
quantity!(
    /// An amount of energy, in Wh.
    Energy, i64, "watt-hours", from_wh, wh
);

impl Current {
    /// Makes the current from whole amperes.
    #[must_use]
    pub const fn from_a(amperes: i32) -> Self {
        Self(amperes.saturating_mul(1000))
    }

    /// The current in amperes, for output.
    #[must_use]
    pub fn as_a(self) -> f64 {
        f64::from(self.0) / 1000.0
    }

    /// Rounds down to a multiple of `step`, towards less current. A step of zero or less changes nothing.
    #[must_use]
    pub fn floor_to(self, step: Self) -> Self {
        if step.0 <= 0 { self } else { Self(self.0 - self.0.rem_euclid(step.0)) }
    }

    /// The power of this current at `voltage` on one phase with a power factor of 1.
    #[must_use]
    pub fn power_at(self, voltage: Voltage) -> Power {
        Power(i64::from(self.0) * i64::from(voltage.0) / 1_000_000)
    }
}

impl Power {
    /// The current of this power at `voltage` on one phase with a power factor of 1, rounded away from zero (the safe side for a load).
    /// `None` where the voltage is not positive.
    #[must_use]
    pub fn current_at(self, voltage: Voltage) -> Option<Current> {
        if voltage.0 <= 0 {
            return None;
        }
        let numerator = self.0.saturating_mul(1_000_000);
        let volts = i64::from(voltage.0);
        let magnitude = numerator.unsigned_abs().div_ceil(volts.unsigned_abs());
        let magnitude = i32::try_from(magnitude).unwrap_or(i32::MAX);
        Some(Current(if numerator < 0 { -magnitude } else { magnitude }))
    }
}

impl fmt::Display for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} A", self.as_a())
    }
}

impl fmt::Display for Voltage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} V", f64::from(self.0) / 1000.0)
    }
}

impl fmt::Display for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} W", self.0)
    }
}

impl fmt::Display for Energy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} Wh", self.0)
    }
}

/// A phase of the grid, or a phase terminal of a station.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// The first phase.
    L1,
    /// The second phase.
    L2,
    /// The third phase.
    L3,
}

impl Phase {
    /// All phases in order.
    pub const ALL: [Self; 3] = [Self::L1, Self::L2, Self::L3];

    /// 0, 1 or 2.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::L1 => 0,
            Self::L2 => 1,
            Self::L3 => 2,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::L1 => "L1",
            Self::L2 => "L2",
            Self::L3 => "L3",
        })
    }
}

/// One value for each phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PerPhase<T>([T; 3]);

impl<T> PerPhase<T> {
    /// Makes it from the values of L1, L2 and L3.
    pub const fn new(l1: T, l2: T, l3: T) -> Self {
        Self([l1, l2, l3])
    }

    /// Makes it from a function of the phase.
    pub fn from_fn(mut value: impl FnMut(Phase) -> T) -> Self {
        Self(Phase::ALL.map(&mut value))
    }

    /// The value of one phase.
    pub const fn get(&self, phase: Phase) -> &T {
        &self.0[phase.index()]
    }

    /// The value of one phase, to change it.
    pub const fn get_mut(&mut self, phase: Phase) -> &mut T {
        &mut self.0[phase.index()]
    }

    /// Applies a function to each value.
    pub fn map<U>(self, value: impl FnMut(T) -> U) -> PerPhase<U> {
        PerPhase(self.0.map(value))
    }

    /// The phases with their values.
    pub fn iter(&self) -> impl Iterator<Item = (Phase, &T)> {
        Phase::ALL.into_iter().zip(&self.0)
    }
}

impl<T: Copy> PerPhase<T> {
    /// The same value on each phase.
    pub const fn splat(value: T) -> Self {
        Self([value; 3])
    }

    /// The value of one phase, copied.
    #[must_use]
    pub const fn of(&self, phase: Phase) -> T {
        self.0[phase.index()]
    }

    /// Combines the values of two phase by phase.
    pub fn zip_with<U: Copy, V>(self, other: PerPhase<U>, mut f: impl FnMut(T, U) -> V) -> PerPhase<V> {
        PerPhase::from_fn(|phase| f(self.of(phase), other.of(phase)))
    }
}

impl<T: Copy + Ord> PerPhase<T> {
    /// The largest of the three values.
    #[must_use]
    pub fn max(self) -> T {
        self.0[0].max(self.0[1]).max(self.0[2])
    }

    /// The smallest of the three values.
    #[must_use]
    pub fn min(self) -> T {
        self.0[0].min(self.0[1]).min(self.0[2])
    }
}

impl<T> PerPhase<Option<T>> {
    /// All three values, or `None` if one is missing.
    #[must_use]
    pub fn complete(self) -> Option<PerPhase<T>> {
        match self.0 {
            [Some(l1), Some(l2), Some(l3)] => Some(PerPhase([l1, l2, l3])),
            [None, _, _] | [_, None, _] | [_, _, None] => None,
        }
    }
}

impl<T: Copy + Add<Output = T>> Add for PerPhase<T> {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        self.zip_with(other, Add::add)
    }
}

impl<T: Copy + Sub<Output = T>> Sub for PerPhase<T> {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.zip_with(other, Sub::sub)
    }
}

impl<T: Copy + Add<Output = T>> AddAssign for PerPhase<T> {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// A set of phases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhaseSet(u8);

impl PhaseSet {
    /// No phase.
    pub const EMPTY: Self = Self(0);
    /// All three phases.
    pub const ALL: Self = Self(0b111);

    /// The set with `phase` in it.
    #[must_use]
    pub const fn with(self, phase: Phase) -> Self {
        Self(self.0 | (1 << phase.index()))
    }

    /// Whether `phase` is in it.
    #[must_use]
    pub const fn contains(self, phase: Phase) -> bool {
        self.0 & (1 << phase.index()) != 0
    }

    /// How many phases it has, 0 to 3.
    #[must_use]
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether it has no phase.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its phases in order.
    pub fn iter(self) -> impl Iterator<Item = Phase> {
        Phase::ALL.into_iter().filter(move |phase| self.contains(*phase))
    }

    /// `value` on the phases of the set and zero on the others.
    #[must_use]
    pub fn spread(self, value: Current) -> PerPhase<Current> {
        PerPhase::from_fn(|phase| if self.contains(phase) { value } else { Current::ZERO })
    }
}

impl FromIterator<Phase> for PhaseSet {
    fn from_iter<I: IntoIterator<Item = Phase>>(phases: I) -> Self {
        phases.into_iter().fold(Self::EMPTY, Self::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floor_to_rounds_towards_less_current() {
        assert_eq!(Current::from_ma(6_190).floor_to(Current::from_ma(100)), Current::from_ma(6_100));
        assert_eq!(Current::from_ma(-6_190).floor_to(Current::from_ma(100)), Current::from_ma(-6_200));
        assert_eq!(Current::from_ma(5).floor_to(Current::ZERO), Current::from_ma(5));
    }

    #[test]
    fn power_becomes_current_on_the_safe_side() {
        assert_eq!(Power::from_w(230).current_at(Voltage::from_mv(230_000)), Some(Current::from_a(1)));
        assert_eq!(Power::from_w(231).current_at(Voltage::from_mv(230_000)), Some(Current::from_ma(1005)));
        assert_eq!(Power::from_w(1).current_at(Voltage::ZERO), None);
        assert_eq!(Power::MAX.current_at(Voltage::from_mv(1)), Some(Current::MAX));
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Current::MAX + Current::from_a(1), Current::MAX);
    }
}
