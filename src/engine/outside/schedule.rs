//! Windows in local time: from when to when a scheduled limit holds.
//!
//! A window begins and ends at wall-clock times of the site's zone. Twice a year these are not what they seem:
//! - a time that does not exist (the clock is put forward over it) stands for the moment of the change, so a window that lies wholly in the
//!   hour left out does not take place, and no other is lost;
//! - a time that exists twice (the clock is put back) is the first of the two where a window begins and the second where it ends: the limit
//!   holds for both, since it can only lower.

use chrono::{DateTime, Datelike as _, Days, LocalResult, NaiveDate, NaiveDateTime, TimeDelta, TimeZone as _};
use chrono_tz::Tz;

use crate::engine::model::limit::Window;
use crate::engine::time::Utc;

/// No zone has ever moved its clock by more in one step (a date line crossed: 24 h).
const LONGEST_GAP_MINUTES: i64 = 24 * 60;

impl Window {
    /// Whether `now` is in a window. `dice` decides the random delays: the same ones for the same number.
    #[must_use]
    pub fn holds(&self, zone: Tz, now: Utc, dice: u64) -> bool {
        let Some(today) = local_date(zone, now) else { return false };
        // A window lasts 24 h at most, an hour more where the clock is put back, and its end may be delayed.
        let back = 2 + self.random_delay_ms / 86_400_000;
        (0..=back).filter_map(|days| today.checked_sub_days(Days::new(days))).any(|day| {
            self.begins_on(day)
                && self.span(zone, day).is_some_and(|(from, to)| {
                    let delay = self.delay_ms(day, dice);
                    // One that does not take place has no end to delay.
                    from < to && (from..to.plus_ms(delay)).contains(&now)
                })
        })
    }

    fn begins_on(&self, day: NaiveDate) -> bool {
        let weekday = usize::try_from(day.weekday().num_days_from_monday()).unwrap_or(0);
        let chosen = if self.dates.is_empty() { self.weekdays[weekday] } else { self.dates.contains(&day) };
        chosen && !self.except.contains(&day)
    }

    /// The window that begins on a local date.
    #[must_use]
    pub fn span(&self, zone: Tz, day: NaiveDate) -> Option<(Utc, Utc)> {
        let last = if self.to > self.from { day } else { day.checked_add_days(Days::new(1))? };
        Some((begin(zone, day.and_time(self.from))?, end(zone, last.and_time(self.to))?))
    }

    fn delay_ms(&self, day: NaiveDate, dice: u64) -> i64 {
        let throw = mix(dice ^ u64::from(day.num_days_from_ce().unsigned_abs()));
        i64::try_from(throw % (self.random_delay_ms + 1)).unwrap_or(0)
    }
}

/// The local date in the zone.
fn local_date(zone: Tz, at: Utc) -> Option<NaiveDate> {
    Some(DateTime::from_timestamp_millis(at.unix_ms())?.with_timezone(&zone).date_naive())
}

fn begin(zone: Tz, local: NaiveDateTime) -> Option<Utc> {
    match zone.from_local_datetime(&local) {
        LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => Some(utc(&at)),
        LocalResult::None => after_gap(zone, local),
    }
}

fn end(zone: Tz, local: NaiveDateTime) -> Option<Utc> {
    match zone.from_local_datetime(&local) {
        LocalResult::Single(at) | LocalResult::Ambiguous(_, at) => Some(utc(&at)),
        LocalResult::None => after_gap(zone, local),
    }
}

/// The moment at which the clock is put forward over a local time. Windows and clocks both move at whole minutes.
fn after_gap(zone: Tz, local: NaiveDateTime) -> Option<Utc> {
    (0..=LONGEST_GAP_MINUTES).find_map(|minutes| {
        let later = local.checked_add_signed(TimeDelta::minutes(minutes))?;
        zone.from_local_datetime(&later).earliest().map(|at| utc(&at))
    })
}

const fn utc(at: &DateTime<Tz>) -> Utc {
    Utc::from_unix_ms(at.timestamp_millis())
}

/// Spreads a number over all bits (`SplitMix64`), for dice that need no memory.
#[must_use]
pub const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
