//! What drivers and operators wish: who goes first, how much by when. A wish moves shares inside the limits; it never raises one.

use chrono::{Days, NaiveTime, TimeDelta, TimeZone as _, Timelike as _};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use super::ids::{StationId, TransactionId};
use crate::engine::time::{Mono, Utc};
use crate::engine::units::{Current, Energy};

/// The longest boost, in minutes: one that was forgotten must not favour somebody for ever.
pub const MAX_BOOST_MINUTES: u64 = 24 * 60;

/// The furthest departure of a target, in ms: seven days.
pub const MAX_AHEAD_MS: i64 = 7 * 86_400_000;

/// The most energy of a target: more than the largest battery of a lorry.
pub const MAX_ENERGY: Energy = Energy::from_wh(2_000_000);

/// A time of day on the site's clocks, in minutes after midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeOfDay(u32);

impl TimeOfDay {
    /// Reads `HH:MM` with two digits each; `None` if it is no time of day.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 5 {
            return None;
        }
        let time = NaiveTime::parse_from_str(text, "%H:%M").ok()?;
        Some(Self(time.num_seconds_from_midnight() / 60))
    }

    /// The first such time after `after`. One that the change to summer time skips is an hour later, one that comes twice is the first.
    #[must_use]
    pub fn next_after(self, after: Utc, zone: Tz) -> Option<Utc> {
        let time = NaiveTime::from_num_seconds_from_midnight_opt(self.0 * 60, 0)?;
        let local = zone.timestamp_millis_opt(after.unix_ms()).single()?.naive_local().date();
        (0..=2).find_map(|days| {
            let wanted = local.checked_add_days(Days::new(days))?.and_time(time);
            let skipped = || zone.from_local_datetime(&(wanted + TimeDelta::hours(1))).earliest();
            let at = zone.from_local_datetime(&wanted).earliest().or_else(skipped)?;
            Some(Utc::from_unix_ms(at.timestamp_millis())).filter(|at| *at > after)
        })
    }
}

impl std::fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// A time as people on the site read it: `14:20`, with the date where it is more than 20 hours from `now`.
#[must_use]
pub fn clock_text(at: Utc, now: Utc, zone: Tz) -> String {
    const NEAR_MS: i64 = 20 * 3_600_000;
    let form = if at.since(now).saturating_abs() <= NEAR_MS { "%H:%M" } else { "%H:%M on %Y-%m-%d" };
    match zone.timestamp_millis_opt(at.unix_ms()).single() {
        Some(local) => local.format(form).to_string(),
        None => at.to_string(),
    }
}

/// What goes with a token or with its group. What is absent is as without it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wish {
    /// Higher goes first when not everybody can be served.
    pub priority: Option<i32>,
    /// The share, 1 to 1000.
    pub weight: Option<u32>,
    /// The least that the car can use, per phase.
    pub min: Option<Current>,
    /// The most that it shall be given, per phase.
    pub max: Option<Current>,
    /// When it leaves, on the site's clocks.
    pub departure: Option<TimeOfDay>,
    /// What it must have by then, from the start of the transaction on.
    pub energy: Option<Energy>,
}

/// Where a wish is meant to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// At a connector (EVSE), from 1.
    Connector {
        /// Which station.
        charger: StationId,
        /// Which EVSE.
        connector: u32,
    },
    /// Where this transaction is running.
    Transaction(TransactionId),
}

/// How long a boost shall hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BoostLength {
    /// For so many minutes, 1 to [`MAX_BOOST_MINUTES`].
    Minutes(u64),
    /// Until then.
    Until(Utc),
}

/// An EVSE goes first for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boost {
    /// The transaction it ends with; `None`: none was running when it was set, and only its time ends it.
    pub transaction: Option<TransactionId>,
    /// When it ends.
    pub until: Utc,
    /// When it ends by the monotonic time of the start numbered `boot`: it holds whatever becomes of the calendar.
    pub ends: Mono,
    /// The start of the daemon in which it was set.
    pub boot: u64,
    /// Whether `until` came from a synchronised clock.
    pub trusted: bool,
}

/// Why a boost is over. With its transaction it ends too, and the end of that says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum BoostEnd {
    /// Its time is over.
    Expired,
    /// Somebody took it back.
    Cleared,
}

/// Who set a target. A later one stands over an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum TargetSource {
    /// The entry of the token or its group.
    Token,
    /// The car (OCPP 2.x `NotifyEVChargingNeeds`).
    Car,
    /// A command.
    Command,
}

/// Energy that a transaction must have by a certain time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The energy from the start of the transaction on.
    pub energy: Energy,
    /// By when.
    pub departure: Utc,
    /// Who set it.
    pub source: TargetSource,
}

/// Why a target is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum TargetEnd {
    /// The energy is there.
    Met,
    /// The time has come, and the energy is not there.
    Missed,
    /// Somebody took it back.
    Cleared,
}

/// What became of the target of a running transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetState {
    /// It is worked on.
    Running(Target),
    /// It is over; only a command sets another one.
    Over(TargetEnd),
}

impl From<Target> for TargetState {
    fn from(target: Target) -> Self {
        Self::Running(target)
    }
}

impl From<TargetEnd> for TargetState {
    fn from(cause: TargetEnd) -> Self {
        Self::Over(cause)
    }
}

/// What a car says that it needs (OCPP 2.x `NotifyEVChargingNeeds`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CarNeeds {
    /// The energy from now on.
    pub energy: Option<Energy>,
    /// When it leaves.
    pub departure: Option<Utc>,
    /// The least current that it can charge with, per phase.
    pub min: Option<Current>,
    /// On how many phases it charges, 1 to 3.
    pub phases: Option<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> Utc {
        Utc::parse(text).expect("a time")
    }

    #[test]
    fn a_time_of_day_is_the_next_one_on_the_sites_clocks() {
        let zone = chrono_tz::Europe::Berlin;
        let seven = TimeOfDay::parse("07:00").expect("a time of day");
        for (after, expected) in [
            ("2026-03-10T20:00:00Z", "2026-03-11T06:00:00.000Z"),
            ("2026-03-11T05:59:59Z", "2026-03-11T06:00:00.000Z"),
            ("2026-03-11T06:00:00Z", "2026-03-12T06:00:00.000Z"),
            // Summer time begins on 29 March: from then on Berlin is two hours ahead.
            ("2026-03-28T20:00:00Z", "2026-03-29T05:00:00.000Z"),
        ] {
            assert_eq!(
                seven.next_after(utc(after), zone).map(|at| at.to_string()).as_deref(),
                Some(expected),
                "{after}"
            );
        }
        // 02:30 does not exist in that night, and comes twice on 25 October.
        let half_past_two = TimeOfDay::parse("02:30").expect("a time of day");
        let next = |after| half_past_two.next_after(utc(after), zone).map(|at| at.to_string());
        assert_eq!(next("2026-03-28T20:00:00Z").as_deref(), Some("2026-03-29T01:30:00.000Z"));
        assert_eq!(next("2026-10-24T20:00:00Z").as_deref(), Some("2026-10-25T00:30:00.000Z"));
    }

    #[test]
    fn only_hours_and_minutes_are_a_time_of_day() {
        for wrong in ["7:00", "24:00", "07:60", "0700", "07:00:00", "seven", ""] {
            assert_eq!(TimeOfDay::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_far_time_is_told_with_its_date() {
        let (now, zone) = (utc("2026-03-10T12:00:00Z"), chrono_tz::Europe::Berlin);
        assert_eq!(clock_text(utc("2026-03-10T13:20:00Z"), now, zone), "14:20");
        assert_eq!(clock_text(utc("2026-03-12T06:00:00Z"), now, zone), "07:00 on 2026-03-12");
    }
}
