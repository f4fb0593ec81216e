use chrono_tz::Europe::Berlin;
use proptest::prelude::*;

use super::*;
use crate::engine::billing::split::{ActivityAt, RegisterAt};
use crate::engine::model::tariff::{EVERY_DAY, Element, Prices, When};
use crate::engine::time::Utc;

fn utc(text: &str) -> Utc {
    Utc::parse(text).expect("a time")
}

fn money(text: &str) -> Decimal {
    text.parse().expect("a decimal")
}

fn at(time: &str, wh: i64) -> RegisterAt {
    RegisterAt { at: utc(time), register: Energy::from_wh(wh) }
}

/// 0.49 a kWh by day, 0.29 from 22:00 to 06:00.
fn day_and_night() -> Tariff {
    let element = |price: &str, when| Element {
        prices: Prices { energy_per_kwh: Some(money(price)), ..Prices::default() },
        when,
    };
    Tariff {
        id: "default".to_owned(),
        currency: "EUR".to_owned(),
        groups: Vec::new(),
        elements: vec![
            element("0.49", When::default()),
            element("0.29", When { from_min: 22 * 60, to_min: 6 * 60, weekdays: EVERY_DAY }),
        ],
        min_price: None,
        max_price: None,
        vat_percent: None,
        prices_include_vat: false,
        parking_grace_s: 0,
    }
}

fn usage(registers: Vec<RegisterAt>) -> Usage {
    let (first, last) = (registers[0].at, registers[registers.len() - 1].at);
    Usage { started: first, ended: last, registers, activity: Vec::new() }
}

#[test]
fn energy_is_split_where_the_price_changes() {
    // 21:00 to 23:00 local time (CET), measured at 22:00 too.
    let registers =
        vec![at("2026-01-15T20:00:00Z", 1_000), at("2026-01-15T21:00:00Z", 8_000), at("2026-01-15T22:00:00Z", 19_000)];
    let bill = bill(&usage(registers), &day_and_night(), Berlin);
    assert_eq!(bill.periods.iter().map(|period| period.energy.wh()).collect::<Vec<_>>(), vec![7_000, 11_000]);
    assert!(bill.periods.iter().all(|period| !period.interpolated));
    assert_eq!(bill.energy_cost, money("6.62"));
    assert_eq!(bill.gross, money("6.62"));
}

#[test]
fn without_a_sample_at_the_border_energy_flows_evenly_and_the_bill_says_so() {
    let registers = vec![at("2026-01-15T20:30:00Z", 0), at("2026-01-15T22:00:00Z", 9_000)];
    let bill = bill(&usage(registers), &day_and_night(), Berlin);
    assert_eq!(bill.periods.iter().map(|period| period.energy.wh()).collect::<Vec<_>>(), vec![3_000, 6_000]);
    assert!(bill.periods.iter().all(|period| period.interpolated));
}

#[test]
fn the_night_in_which_the_clock_is_put_forward_is_an_hour_shorter() {
    // From 22:00 CET to 06:00 CEST: seven hours.
    let registers = vec![at("2026-03-28T20:00:00Z", 0), at("2026-03-29T05:00:00Z", 9_000)];
    let bill = bill(&usage(registers), &day_and_night(), Berlin);
    let hours: Vec<i64> = bill.periods.iter().map(|period| period.ms() / 3_600_000).collect();
    assert_eq!(hours, vec![1, 7, 1]);
}

#[test]
fn the_night_in_which_the_clock_is_put_back_is_an_hour_longer() {
    let registers = vec![at("2026-10-24T19:00:00Z", 0), at("2026-10-25T06:00:00Z", 11_000)];
    let bill = bill(&usage(registers), &day_and_night(), Berlin);
    let hours: Vec<i64> = bill.periods.iter().map(|period| period.ms() / 3_600_000).collect();
    assert_eq!(hours, vec![1, 9, 1]);
}

#[test]
fn parking_is_paid_after_the_grace_time() {
    let mut tariff = day_and_night();
    tariff.parking_grace_s = 15 * 60;
    tariff.elements[0].prices.parking_per_h = Some(money("6"));
    tariff.elements[0].prices.time_per_h = Some(money("1.20"));
    let mut usage = usage(vec![at("2026-01-15T10:00:00Z", 0), at("2026-01-15T12:00:00Z", 10_000)]);
    usage.activity = vec![ActivityAt { at: utc("2026-01-15T11:00:00Z"), charging: false }];
    let bill = bill(&usage, &tariff, Berlin);
    assert_eq!(bill.parking_ms, 45 * 60_000);
    assert_eq!((bill.parking_cost, bill.time_cost), (money("4.50"), money("1.20")));
}

#[test]
fn minimum_maximum_and_tax_come_last() {
    let mut tariff = day_and_night();
    tariff.min_price = Some(money("1.00"));
    tariff.vat_percent = Some(money("19"));
    let tiny = usage(vec![at("2026-01-15T10:00:00Z", 0), at("2026-01-15T10:05:00Z", 100)]);
    let excluded = bill(&tiny, &tariff, Berlin);
    assert_eq!((excluded.adjustment, excluded.net, excluded.gross), (money("0.951"), money("1.00"), money("1.19")));
    tariff.prices_include_vat = true;
    let included = bill(&tiny, &tariff, Berlin);
    assert_eq!((included.net, included.vat, included.gross), (money("0.84"), money("0.16"), money("1.00")));
    tariff.max_price = Some(money("0.50"));
    assert_eq!(bill(&tiny, &tariff, Berlin).gross, money("0.50"));
}

proptest! {
    /// However it is cut, no Wh and no ms is lost or doubled.
    #[test]
    fn the_parts_are_the_whole(
        start_s in 1_700_000_000_i64..1_900_000_000,
        steps in prop::collection::vec((1_i64..20_000, 0_i64..30_000), 1..30),
        stops in prop::collection::vec((0_i64..200_000, any::<bool>()), 0..5),
    ) {
        let mut registers = vec![RegisterAt { at: Utc::from_unix_ms(start_s * 1_000), register: Energy::from_wh(5) }];
        for (seconds, wh) in steps {
            let last = registers[registers.len() - 1];
            registers.push(RegisterAt {
                at: last.at.plus_ms(seconds * 1_000),
                register: last.register + Energy::from_wh(wh),
            });
        }
        let mut usage = usage(registers);
        let mut activity: Vec<ActivityAt> = stops
            .iter()
            .map(|(after, charging)| ActivityAt { at: usage.started.plus_ms(after * 1_000), charging: *charging })
            .collect();
        activity.sort_by_key(|change| change.at);
        usage.activity = activity;
        let bill = bill(&usage, &day_and_night(), Berlin);
        let total = usage.registers[usage.registers.len() - 1].register - usage.registers[0].register;
        prop_assert_eq!(bill.energy, total);
        prop_assert_eq!(bill.charging_ms + bill.parking_ms, usage.ended.since(usage.started));
        prop_assert!(bill.periods.windows(2).all(|pair| pair[0].to == pair[1].from));
    }
}
