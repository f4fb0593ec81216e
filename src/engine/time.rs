//! Time as data: the engine never asks a clock, it is told.

use std::fmt;
use std::num::NonZeroU64;

use chrono::{DateTime, SecondsFormat, TimeZone};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point on the monotonic clock of this process, in ms since its start. Never steps, says nothing about the calendar.
///
/// It is kept one higher, so that a point that may be missing takes no more memory than one that is there: the planner reads four of
/// them for each EVSE. The latest point is therefore `u64::MAX - 1` ms.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(NonZeroU64);

impl Mono {
    /// The start of the process.
    pub const START: Self = Self(NonZeroU64::MIN);

    /// A point that many ms after the start.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(ms))
    }

    /// The ms since the start.
    #[must_use]
    pub const fn ms(self) -> u64 {
        self.0.get() - 1
    }

    /// The point `ms` later.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// The point `ms` earlier, or the start.
    #[must_use]
    pub const fn minus_ms(self, ms: u64) -> Self {
        Self::from_ms(self.ms().saturating_sub(ms))
    }

    /// The ms from `earlier` to this point; 0 if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.get().saturating_sub(earlier.0.get())
    }
}

impl Default for Mono {
    fn default() -> Self {
        Self::START
    }
}

impl fmt::Debug for Mono {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mono").field(&self.ms()).finish()
    }
}

impl Serialize for Mono {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.ms().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Mono {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(Self::from_ms)
    }
}

/// A point in calendar time, in ms since 1970-01-01T00:00:00Z. Written as RFC 3339 with milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Utc(i64);

impl Utc {
    /// A point that many ms after 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn from_unix_ms(ms: i64) -> Self {
        Self(ms)
    }

    /// The ms since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn unix_ms(self) -> i64 {
        self.0
    }

    /// The point `ms` later (earlier if negative).
    #[must_use]
    pub const fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// The ms from `earlier` to this point; negative if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Reads an RFC 3339 time, with the deviations that real stations send: a time without a zone is taken as UTC, a space may
    /// stand for the `T`, and `+02` or `+0200` for `+02:00`. `None` if it is none of these.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(time) = DateTime::parse_from_rfc3339(text) {
            return Some(Self(time.timestamp_millis()));
        }
        for form in ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z"] {
            if let Ok(time) = DateTime::parse_from_str(text, form) {
                return Some(Self(time.timestamp_millis()));
            }
        }
        let zoneless = text.trim_end_matches(['Z', 'z']);
        for form in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M"] {
            if let Ok(time) = chrono::NaiveDateTime::parse_from_str(zoneless, form) {
                return Some(Self(time.and_utc().timestamp_millis()));
            }
        }
        None
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match chrono::Utc.timestamp_millis_opt(self.0).single() {
            Some(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true)),
            None => write!(f, "{} ms after 1970", self.0),
        }
    }
}

impl Serialize for Utc {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Utc {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not an RFC 3339 time")))
    }
}

/// The time as the shell knows it when it hands an input to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The monotonic time: all control rests on it.
    pub mono: Mono,
    /// The calendar time as far as it is known.
    pub utc: Utc,
    /// Whether `utc` comes from a synchronised clock. A bill needs it.
    pub utc_trusted: bool,
}

/// A value with the time at which it was taken. It can only be read together with an age that is still acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampled<T> {
    value: T,
    at: Mono,
}

impl<T> Sampled<T> {
    /// A value taken at `at`.
    pub const fn new(value: T, at: Mono) -> Self {
        Self { value, at }
    }

    /// When it was taken.
    pub const fn at(&self) -> Mono {
        self.at
    }

    /// The ms since it was taken.
    pub const fn age_ms(&self, now: Mono) -> u64 {
        now.since(self.at)
    }

    /// The value, if it is not older than `max_age_ms`.
    pub fn fresh(&self, now: Mono, max_age_ms: u64) -> Option<&T> {
        (self.age_ms(now) <= max_age_ms).then_some(&self.value)
    }

    /// The value whatever its age, for displays that show the age beside it. Control code calls [`Sampled::fresh`].
    pub const fn for_display(&self) -> &T {
        &self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_stations_write_them() {
        let expected = Some(Utc::from_unix_ms(1_772_366_400_000));
        for text in [
            "2026-03-01T12:00:00Z",
            "2026-03-01T12:00:00.000Z",
            "2026-03-01T13:00:00+01:00",
            "2026-03-01T13:00:00+0100",
            "2026-03-01T13:00:00+01",
            "2026-03-01 12:00:00",
            "2026-03-01T12:00:00",
            "2026-03-01T12:00:00.0000000z",
        ] {
            assert_eq!(Utc::parse(text), expected, "{text}");
        }
        assert_eq!(Utc::parse("yesterday"), None);
        assert_eq!(Utc::from_unix_ms(1_772_366_400_000).to_string(), "2026-03-01T12:00:00.000Z");
    }

    #[test]
    fn a_point_in_time_that_may_be_missing_is_no_larger_and_is_written_as_its_ms() {
        assert_eq!(size_of::<Option<Mono>>(), size_of::<u64>());
        let written = |at: Mono| serde_json::to_string(&at).unwrap();
        assert_eq!((written(Mono::START), written(Mono::from_ms(7))), ("0".to_owned(), "7".to_owned()));
        assert_eq!(serde_json::from_str::<Option<Mono>>("0").unwrap(), Some(Mono::START));
        assert!(Mono::from_ms(u64::MAX).plus_ms(1) > Mono::from_ms(5).minus_ms(6));
        assert_eq!(Mono::from_ms(5).minus_ms(6), Mono::START);
    }

    #[test]
    fn a_stale_value_is_unreadable() {
        let sample = Sampled::new(7, Mono::from_ms(1_000));
        assert_eq!(sample.fresh(Mono::from_ms(6_000), 5_000), Some(&7));
        assert_eq!(sample.fresh(Mono::from_ms(6_001), 5_000), None);
    }
}
