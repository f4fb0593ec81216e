use chrono::NaiveTime;
use chrono_tz::America::New_York;
use chrono_tz::Australia::Lord_Howe;
use chrono_tz::Europe::Berlin;

use super::*;

fn window(from: &str, to: &str) -> Window {
    let time = |text| NaiveTime::parse_from_str(text, "%H:%M").unwrap();
    let (from, to) = (time(from), time(to));
    Window { from, to, weekdays: [true; 7], dates: vec![], except: vec![], random_delay_ms: 0 }
}

fn date(text: &str) -> NaiveDate {
    NaiveDate::parse_from_str(text, "%Y-%m-%d").unwrap()
}

/// Begin and end of the window of a day, in UTC.
fn span(zone: Tz, from: &str, to: &str, day: &str) -> (String, String) {
    let (from, to) = window(from, to).span(zone, date(day)).unwrap();
    let short = |at: Utc| at.to_string()[5..16].to_owned();
    (short(from), short(to))
}

fn pair(from: &str, to: &str) -> (String, String) {
    (from.to_owned(), to.to_owned())
}

#[test]
fn a_window_follows_the_wall_clock_in_summer_and_winter() {
    assert_eq!(span(Berlin, "17:00", "20:00", "2026-01-15"), pair("01-15T16:00", "01-15T19:00"));
    assert_eq!(span(Berlin, "17:00", "20:00", "2026-07-15"), pair("07-15T15:00", "07-15T18:00"));
    assert_eq!(span(New_York, "22:00", "06:00", "2026-01-15"), pair("01-16T03:00", "01-16T11:00"));
    // A whole day.
    assert_eq!(span(Berlin, "00:00", "00:00", "2026-01-15"), pair("01-14T23:00", "01-15T23:00"));
}

#[test]
fn when_the_clock_is_put_forward_a_time_left_out_stands_for_the_change() {
    // Berlin, 2026-03-29: 02:00 becomes 03:00 at 01:00 UTC.
    assert_eq!(span(Berlin, "01:00", "02:30", "2026-03-29"), pair("03-29T00:00", "03-29T01:00"));
    assert_eq!(span(Berlin, "02:30", "05:00", "2026-03-29"), pair("03-29T01:00", "03-29T03:00"));
    assert_eq!(span(Berlin, "22:00", "06:00", "2026-03-28"), pair("03-28T21:00", "03-29T04:00"));
    // New York, 2026-03-08: 02:00 becomes 03:00 at 07:00 UTC.
    assert_eq!(span(New_York, "02:15", "04:00", "2026-03-08"), pair("03-08T07:00", "03-08T08:00"));
    // Lord Howe, 2026-10-04: 02:00 becomes 02:30 at 15:30 UTC of the day before.
    assert_eq!(span(Lord_Howe, "02:10", "03:00", "2026-10-04"), pair("10-03T15:30", "10-03T16:00"));
    assert_eq!(span(Lord_Howe, "01:00", "02:20", "2026-10-04"), pair("10-03T14:30", "10-03T15:30"));
}

#[test]
fn a_window_wholly_in_the_hour_left_out_does_not_take_place() {
    let within = window("02:10", "02:50");
    let (from, to) = within.span(Berlin, date("2026-03-29")).unwrap();
    assert_eq!(from, to);
    let delayed = Window { random_delay_ms: 600_000, ..within };
    let minutes = |minute: i64| from.plus_ms(minute * 60_000);
    assert!((-120..120).all(|minute| !delayed.holds(Berlin, minutes(minute), 3)));
}

#[test]
fn when_the_clock_is_put_back_a_window_holds_in_both_hours() {
    // Berlin, 2026-10-25: 03:00 becomes 02:00 at 01:00 UTC.
    assert_eq!(span(Berlin, "02:00", "02:30", "2026-10-25"), pair("10-25T00:00", "10-25T01:30"));
    assert_eq!(span(Berlin, "02:30", "04:00", "2026-10-25"), pair("10-25T00:30", "10-25T03:00"));
    assert_eq!(span(Berlin, "22:00", "06:00", "2026-10-24"), pair("10-24T20:00", "10-25T05:00"));
    // New York, 2026-11-01: 02:00 becomes 01:00 at 06:00 UTC.
    assert_eq!(span(New_York, "01:15", "01:45", "2026-11-01"), pair("11-01T05:15", "11-01T06:45"));
    // Lord Howe, 2026-04-05: 02:00 becomes 01:30 at 15:00 UTC of the day before.
    assert_eq!(span(Lord_Howe, "01:40", "01:50", "2026-04-05"), pair("04-04T14:40", "04-04T15:20"));
}

/// The minutes of `days` local days from noon of `day` on in which a window holds.
fn minutes_held(window: &Window, zone: Tz, day: &str, days: i64) -> usize {
    let noon = zone.from_local_datetime(&date(day).and_hms_opt(12, 0, 0).unwrap()).unwrap();
    (0..days * 1440).filter(|minute| window.holds(zone, utc(&noon).plus_ms(minute * 60_000), 0)).count()
}

#[test]
fn no_window_is_lost_or_doubled_over_a_year() {
    for zone in [Berlin, New_York, Lord_Howe] {
        let year = minutes_held(&window("17:00", "20:00"), zone, "2026-01-01", 365);
        assert_eq!(year, 365 * 180, "{zone}");
        // Every moment is in one of two windows that meet.
        let (night, day) = (window("22:00", "06:00"), window("06:00", "22:00"));
        let noon = Utc::parse("2026-01-01T12:00:00Z").unwrap();
        for step in 0..365 * 96 {
            let at = noon.plus_ms(step * 900_000);
            let (night, day) = (night.holds(zone, at, 0), day.holds(zone, at, 0));
            assert!(night || day, "{zone} {at}");
            // Both only where the border itself comes twice, which no zone does at these hours.
            assert!(!(night && day), "{zone} {at}");
        }
    }
}

#[test]
fn weekdays_dates_and_exceptions_are_those_of_the_beginning() {
    // 2026-03-06 is a Friday.
    let friday = Window { weekdays: [false, false, false, false, true, false, false], ..window("22:00", "06:00") };
    let at = |text: &str| Utc::parse(text).unwrap();
    assert!(friday.holds(Berlin, at("2026-03-06T22:00:00Z"), 0));
    assert!(friday.holds(Berlin, at("2026-03-07T04:59:59Z"), 0), "the rest of the night belongs to Friday");
    assert!(!friday.holds(Berlin, at("2026-03-07T05:00:00Z"), 0));
    assert!(!friday.holds(Berlin, at("2026-03-07T22:00:00Z"), 0));
    let holiday = Window { except: vec![date("2026-03-06")], ..friday.clone() };
    assert!(!holiday.holds(Berlin, at("2026-03-07T00:00:00Z"), 0));
    let once = Window { dates: vec![date("2026-03-10")], ..friday };
    assert!(!once.holds(Berlin, at("2026-03-06T22:00:00Z"), 0));
    assert!(once.holds(Berlin, at("2026-03-10T22:00:00Z"), 0));
}

#[test]
fn the_end_is_delayed_by_the_dice_and_never_comes_early() {
    let delayed = Window { random_delay_ms: 1_800_000, ..window("17:00", "20:00") };
    let end = Utc::parse("2026-01-15T19:00:00Z").unwrap();
    let delays: Vec<i64> = (0..50)
        .map(|dice| {
            assert!(delayed.holds(Berlin, end.plus_ms(-1), dice));
            assert!(!delayed.holds(Berlin, end.plus_ms(1_800_000), dice));
            (0..1_800).find(|second| !delayed.holds(Berlin, end.plus_ms(second * 1_000), dice)).unwrap_or(1_800)
        })
        .collect();
    let (least, most) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
    assert!(*least < 300 && *most > 1_500, "{delays:?}");
}
