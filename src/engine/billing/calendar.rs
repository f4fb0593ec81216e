//! Local wall-clock time across daylight-saving changes.
//!
//! A rule of this module: a price is decided by what the clock on the wall shows. Where the clock is put back, an hour is shown twice and
//! both count; where it is put forward, times that are not shown do not exist, and what would begin there begins with the first
//! time shown after it.

use chrono::{Datelike, Days, LocalResult, NaiveDate, NaiveTime, TimeZone, Timelike};
use chrono_tz::Tz;

use crate::engine::time::Utc;

/// An hour in ms: no zone changes its offset twice within one.
const HOUR_MS: i64 = 3_600_000;

/// What the clock on the wall shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallClock {
    /// 0 is Monday.
    pub weekday: u8,
    /// The minute of the day, 0 to 1439.
    pub minute: u16,
}

/// What the clock on the wall shows at `at`. Times beyond the calendar show its first minute.
#[must_use]
pub fn wall_clock(zone: Tz, at: Utc) -> WallClock {
    let Some(local) = zone.timestamp_millis_opt(at.unix_ms()).single() else {
        return WallClock { weekday: 0, minute: 0 };
    };
    let weekday = u8::try_from(local.weekday().num_days_from_monday()).unwrap_or(0);
    let minute = u16::try_from(local.hour() * 60 + local.minute()).unwrap_or(0);
    WallClock { weekday, minute }
}

/// All moments strictly between `from` and `to`, rising, at which the clock on the wall shows one of `minutes` or is put forward or back.
/// `to` is taken to be no later than 366 days after `from`.
#[must_use]
pub fn borders(zone: Tz, minutes: &[u16], from: Utc, to: Utc) -> Vec<Utc> {
    let to = Utc::from_unix_ms(to.unix_ms().min(from.plus_ms(366 * 24 * HOUR_MS).unix_ms()));
    let mut found = clock_changes(zone, from, to);
    let mut day = local_date(zone, from.plus_ms(-24 * HOUR_MS));
    let last = local_date(zone, to.plus_ms(24 * HOUR_MS));
    while let (Some(date), Some(end)) = (day, last)
        && date <= end
    {
        for minute in minutes {
            found.extend(moments(zone, date, *minute));
        }
        day = date.checked_add_days(Days::new(1));
    }
    found.retain(|at| *at > from && *at < to);
    found.sort_unstable();
    found.dedup();
    found
}

fn local_date(zone: Tz, at: Utc) -> Option<NaiveDate> {
    zone.timestamp_millis_opt(at.unix_ms()).single().map(|local| local.date_naive())
}

/// The moments at which the wall clock shows that minute on that date: none, one or two.
fn moments(zone: Tz, date: NaiveDate, minute: u16) -> Vec<Utc> {
    let time = NaiveTime::from_hms_opt(u32::from(minute) / 60, u32::from(minute) % 60, 0);
    let Some(time) = time else { return Vec::new() };
    let at = |local: chrono::DateTime<Tz>| Utc::from_unix_ms(local.timestamp_millis());
    match zone.from_local_datetime(&date.and_time(time)) {
        LocalResult::Single(local) => vec![at(local)],
        LocalResult::Ambiguous(first, second) => vec![at(first), at(second)],
        LocalResult::None => Vec::new(),
    }
}

/// The moments at which the clock is put forward or back.
fn clock_changes(zone: Tz, from: Utc, to: Utc) -> Vec<Utc> {
    let mut changes = Vec::new();
    let mut at = from;
    while at < to {
        let next = at.plus_ms(HOUR_MS);
        if offset_s(zone, at) != offset_s(zone, next) {
            changes.push(change_between(zone, at, next));
        }
        at = next;
    }
    changes
}

/// The first moment after `before` with another offset, by bisection.
fn change_between(zone: Tz, before: Utc, after: Utc) -> Utc {
    let (mut before, mut after) = (before, after);
    let old = offset_s(zone, before);
    while after.since(before) > 1 {
        let middle = before.plus_ms(after.since(before) / 2);
        if offset_s(zone, middle) == old {
            before = middle;
        } else {
            after = middle;
        }
    }
    after
}

fn offset_s(zone: Tz, at: Utc) -> Option<i32> {
    let local = zone.timestamp_millis_opt(at.unix_ms()).single()?;
    Some(chrono::Offset::fix(local.offset()).local_minus_utc())
}

#[cfg(test)]
mod tests {
    use chrono_tz::{Australia, Europe};

    use super::*;

    fn utc(text: &str) -> Utc {
        Utc::parse(text).expect("a time")
    }

    #[test]
    fn a_day_has_its_borders_and_the_change_of_the_clock() {
        // 2026-03-29 02:00 CET is followed by 03:00 CEST.
        let found = borders(
            Europe::Berlin,
            &[0, 2 * 60 + 30, 6 * 60],
            utc("2026-03-28T23:30:00Z"),
            utc("2026-03-29T22:00:00Z"),
        );
        assert_eq!(found, vec![utc("2026-03-29T01:00:00Z"), utc("2026-03-29T04:00:00Z")]);
    }

    #[test]
    fn a_time_that_is_shown_twice_is_two_borders() {
        // 2026-10-25 03:00 CEST is followed by 02:00 CET.
        let found = borders(Europe::Berlin, &[2 * 60 + 30], utc("2026-10-24T23:30:00Z"), utc("2026-10-25T03:00:00Z"));
        assert_eq!(found, vec![utc("2026-10-25T00:30:00Z"), utc("2026-10-25T01:00:00Z"), utc("2026-10-25T01:30:00Z")]);
    }

    #[test]
    fn half_an_hour_of_daylight_saving_is_seen_too() {
        // Lord Howe: 2026-04-05 02:00 +11 is followed by 01:30 +10:30.
        let found = borders(Australia::Lord_Howe, &[], utc("2026-04-04T12:00:00Z"), utc("2026-04-04T18:00:00Z"));
        assert_eq!(found, vec![utc("2026-04-04T15:00:00Z")]);
        let after = wall_clock(Australia::Lord_Howe, utc("2026-04-04T15:00:00Z"));
        assert_eq!(after, WallClock { weekday: 6, minute: 90 });
    }
}
