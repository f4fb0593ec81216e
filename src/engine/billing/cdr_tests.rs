use chrono_tz::Europe::Berlin;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::engine::billing::bill::bill;
use crate::engine::billing::schema_tests::against_the_schema;
use crate::engine::billing::split::{ActivityAt, RegisterAt, Usage};
use crate::engine::model::cdr::{CdrLocation, CdrToken, GeoLocation, OcpiTariff};
use crate::engine::model::tariff::{Element, Prices, When};
use crate::engine::units::Energy;

fn sealed() -> Sealed {
    Sealed {
        country_code: "DE".to_owned(),
        party_id: "ABC".to_owned(),
        token: CdrToken {
            country_code: "DE".to_owned(),
            party_id: "ABC".to_owned(),
            uid: "04A2B3C4".to_owned(),
            kind: "RFID".to_owned(),
            contract_id: "04A2B3C4".to_owned(),
        },
        location: CdrLocation {
            id: "depot-nord".to_owned(),
            name: Some("Depot Nord".to_owned()),
            address: "Hafenstr. 5".to_owned(),
            city: "Bremen".to_owned(),
            postal_code: None,
            state: None,
            country: "DEU".to_owned(),
            coordinates: GeoLocation { latitude: "53.079296".to_owned(), longitude: "8.801694".to_owned() },
            evse_uid: "CP001-1".to_owned(),
            evse_id: "DE*ABC*ECP001*1".to_owned(),
            connector_id: "1".to_owned(),
            connector_standard: "IEC_62196_T2".to_owned(),
            connector_format: "SOCKET".to_owned(),
            connector_power_type: "AC_3_PHASE".to_owned(),
        },
    }
}

fn price_of(digits: i64) -> Option<Decimal> {
    (digits % 7 != 0).then(|| Decimal::new(digits, 4))
}

prop_compose! {
    fn some_element()(
        prices in prop::array::uniform4(0_i64..30_000),
        from_min in 0_u16..1_440,
        to_min in 0_u16..=1_440,
        weekdays in 0_u8..128,
        always in any::<bool>(),
    ) -> Element {
        let [energy, time, parking, start] = prices.map(price_of);
        let prices = Prices { energy_per_kwh: energy.or(Some(Decimal::ONE)), time_per_h: time, parking_per_h: parking, start_fee: start };
        Element { prices, when: if always { When::default() } else { When { from_min, to_min, weekdays } } }
    }
}

prop_compose! {
    fn some_tariff()(
        elements in prop::collection::vec(some_element(), 1..6),
        least in prop::option::of(0_i64..500),
        more in prop::option::of(0_i64..5_000),
        vat in prop::option::of(0_i64..250),
        prices_include_vat in any::<bool>(),
        grace in 0_u32..3,
        currency in prop::sample::select(vec!["EUR", "JPY", "KWD"]),
    ) -> Tariff {
        Tariff {
            id: "default".to_owned(),
            currency: currency.to_owned(),
            groups: Vec::new(),
            elements,
            min_price: least.map(|least| Decimal::new(least, 2)),
            max_price: more.map(|more| Decimal::new(more + least.unwrap_or(0), 2)),
            vat_percent: vat.map(|vat| Decimal::new(vat, 1)),
            prices_include_vat: prices_include_vat && vat.is_some(),
            parking_grace_s: grace * 600,
        }
    }
}

prop_compose! {
    fn some_usage()(
        start_ms in 1_700_000_000_000_i64..1_900_000_000_000,
        steps in prop::collection::vec((1_i64..20_000_000, 0_i64..30_000), 1..20),
        stops in prop::collection::vec((0_i64..200_000_000, any::<bool>()), 0..5),
    ) -> Usage {
        let mut registers = vec![RegisterAt { at: Utc::from_unix_ms(start_ms), register: Energy::from_wh(5) }];
        for (ms, wh) in steps {
            let last = registers[registers.len() - 1];
            registers.push(RegisterAt { at: last.at.plus_ms(ms), register: last.register + Energy::from_wh(wh) });
        }
        let started = registers[0].at;
        let mut activity: Vec<ActivityAt> =
            stops.iter().map(|(after, charging)| ActivityAt { at: started.plus_ms(*after), charging: *charging }).collect();
        activity.sort_by_key(|change| change.at);
        Usage { started, ended: registers[registers.len() - 1].at, registers, activity }
    }
}

fn of(bill: &Bill, tariff: &Tariff) -> Cdr {
    let parts = Parts {
        id: "5f1c9e0b7a3d2846-18446744073709551",
        session: "1042",
        sealed: &sealed(),
        bill,
        tariff,
        signed: None,
        remarks: &[],
        made: Utc::from_unix_ms(1_900_000_000_123),
    };
    cdr(parts).expect("a bill has a period")
}

fn sum(cdr: &Cdr, kind: &str) -> Decimal {
    let dimensions = cdr.charging_periods.iter().flat_map(|period| &period.dimensions);
    dimensions.filter(|dimension| dimension.kind == kind).map(|dimension| dimension.volume.value()).sum()
}

/// What OCPI takes for the price of a dimension: the first element that holds and has it.
fn ocpi_price(tariff: &OcpiTariff, kind: &str, weekday: usize, time: &str) -> Option<Decimal> {
    const DAYS: [&str; 7] = ["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY"];
    let holds = |element: &&crate::engine::model::cdr::TariffElement| {
        let Some(when) = &element.restrictions else { return true };
        let day = when.day_of_week.is_empty() || when.day_of_week.iter().any(|day| day == DAYS[weekday]);
        let start = when.start_time.as_deref().unwrap_or("00:00");
        let end = when.end_time.as_deref().filter(|end| *end != "00:00").unwrap_or("24:00");
        day && if start < end { start <= time && time < end } else { start <= time || time < end }
    };
    let mut found = tariff.elements.iter().filter(holds).flat_map(|element| &element.price_components);
    found.find(|component| component.kind == kind).map(|component| component.price.value())
}

proptest! {
    /// The CDR holds against the schema, and its totals are those of its periods and of the meter.
    #[test]
    fn totals_are_the_sums_of_the_periods_and_what_was_measured(tariff in some_tariff(), usage in some_usage()) {
        let bill = bill(&usage, &tariff, Berlin);
        let cdr = of(&bill, &tariff);
        let written = serde_json::to_string(&cdr).unwrap();
        let read: Value = serde_json::from_str(&written).unwrap();
        prop_assert_eq!(against_the_schema(&read), Vec::<String>::new());
        prop_assert_eq!(&serde_json::from_str::<Cdr>(&written).unwrap(), &cdr, "it is read again as it was");

        let metered = usage.registers[usage.registers.len() - 1].register - usage.registers[0].register;
        prop_assert_eq!(cdr.total_energy.value() * Decimal::ONE_THOUSAND, Decimal::from(metered.wh()));
        prop_assert_eq!(sum(&cdr, "ENERGY"), cdr.total_energy.value());
        prop_assert_eq!(sum(&cdr, "PARKING_TIME"), cdr.total_parking_time.unwrap().value());
        prop_assert_eq!(sum(&cdr, "TIME") + sum(&cdr, "PARKING_TIME"), cdr.total_time.value());
        prop_assert!(cdr.charging_periods.windows(2).all(|pair| pair[0].start_date_time < pair[1].start_date_time));
        prop_assert_eq!(cdr.charging_periods[0].start_date_time, cdr.start_date_time);
        prop_assert_eq!((cdr.start_date_time, cdr.end_date_time), (usage.started, usage.ended));

        let part = |price: Option<Price>| {
            let price = price.unwrap();
            if tariff.prices_include_vat { price.incl_vat.unwrap().value() } else { price.excl_vat.value() }
        };
        let parts = part(cdr.total_energy_cost) + part(cdr.total_time_cost) + part(cdr.total_parking_cost)
            + part(cdr.total_fixed_cost);
        let paid = part(Some(cdr.total_cost));
        let coin = Decimal::new(1, tariff.minor_digits());
        prop_assert!((parts + bill.adjustment - paid).abs() * Decimal::TWO <= coin, "{} and {}", parts, paid);
        let incl = cdr.total_cost.incl_vat.map(OcpiNumber::value);
        prop_assert_eq!(incl, tariff.vat_percent.map(|_| bill.gross));
        prop_assert_eq!(cdr.total_cost.excl_vat.value(), bill.net);
    }

    /// The tariff in the CDR prices each minute of a week as Siteward does.
    #[test]
    fn the_tariff_of_ocpi_has_the_same_prices(tariff in some_tariff(), minutes in prop::collection::vec(0_u16..10_080, 40)) {
        let written = ocpi_tariff(&tariff, ("DE", "ABC"), Utc::from_unix_ms(0));
        for minute in minutes {
            let (day, minute) = (minute / 1_440, minute % 1_440);
            let ours = tariff.prices_at(u8::try_from(day).unwrap(), minute);
            let time = format!("{:02}:{:02}", minute / 60, minute % 60);
            let pairs = [("ENERGY", ours.energy_per_kwh), ("TIME", ours.time_per_h),
                ("PARKING_TIME", ours.parking_per_h), ("FLAT", ours.start_fee)];
            for (kind, price) in pairs {
                let theirs = ocpi_price(&written, kind, usize::from(day), &time);
                let net = price.map(|price| super::super::ocpi_tariff::price(price, &tariff).excl_vat.value());
                // A tariff of which no element ever holds is written as one of a start fee of 0: that is no price as well.
                let (theirs, net) = (theirs.unwrap_or_default(), net.unwrap_or_default());
                prop_assert_eq!(theirs, net, "{} on day {} at {}", kind, day, time);
            }
        }
    }

    /// A credit CDR takes back exactly what was asked, and keeps to the schema.
    #[test]
    fn a_credit_cdr_takes_all_of_it_back(tariff in some_tariff(), usage in some_usage()) {
        let cdr = of(&bill(&usage, &tariff, Berlin), &tariff);
        let credit = credit(&cdr, "wrong register\n", Utc::from_unix_ms(1_900_000_100_000));
        prop_assert_eq!(against_the_schema(&json!(credit)), Vec::<String>::new());
        prop_assert_eq!(credit.id.len(), cdr.id.len() + 2);
        prop_assert_eq!(credit.credit_reference_id.as_ref(), Some(&cdr.id));
        prop_assert_eq!(credit.total_cost.excl_vat.value() + cdr.total_cost.excl_vat.value(), Decimal::ZERO);
        prop_assert_eq!(credit.remark.as_deref(), Some("wrong register"));
        prop_assert_eq!(&credit.charging_periods, &cdr.charging_periods);
    }
}

#[test]
fn a_schema_that_is_broken_is_found() {
    let cdr = json!({ "id": "x".repeat(40), "total_cost": { "excl_vat": 1.23456 }, "oops": 1 });
    let found = against_the_schema(&cdr);
    for part in ["required", "maxLength", "multipleOf", "oops"] {
        assert!(found.iter().any(|line| line.contains(part)), "{part} is not in {found:?}");
    }
}

#[test]
fn hours_are_rounded_as_running_sums() {
    // Three times a third of 0.0001 h and more: each by itself would be rounded down.
    let (_, times) = periods(&[], "t");
    assert_eq!(times.charging, 0);
    assert_eq!(hours(1_320_000).value().to_string(), "0.3667");
    let text = serde_json::to_string(&hours(1_320_000)).unwrap();
    assert_eq!(text, "0.3667", "a number, not a string");
}
