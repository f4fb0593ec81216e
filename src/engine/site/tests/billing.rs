//! What a transaction costs, from the station's messages to the event for the cloud.

use super::*;
use crate::engine::billing::schema_tests::against_the_schema;
use crate::engine::model::cdr::{self, Cdr, GeoLocation, Operator};
use crate::engine::model::command::{Command, CommandOutcome};
use crate::engine::model::tariff::{Cost, Element, Prices, Tariff, When};
use crate::engine::units::Energy;

mod tariffs;

/// 0.50 a kWh by day, 0.25 from 22:00 to 06:00, and 6 an hour for parking.
fn tariff(groups: &[&str], day: &str) -> Tariff {
    let price = |text: &str| text.parse().ok();
    let element = |energy: &str, parking: Option<&str>, when| Element {
        prices: Prices { energy_per_kwh: price(energy), parking_per_h: parking.and_then(price), ..Prices::default() },
        when,
    };
    Tariff {
        id: format!("tariff-{day}"),
        currency: "EUR".to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        elements: vec![
            element(day, Some("6"), When::default()),
            element("0.25", None, When { from_min: 22 * 60, to_min: 6 * 60, ..When::default() }),
        ],
        min_price: None,
        max_price: None,
        vat_percent: None,
        prices_include_vat: false,
        parking_grace_s: 0,
    }
}

pub(super) fn priced_world() -> World {
    let mut setup = setup(63);
    setup.tariffs = vec![tariff(&[], "0.50"), tariff(&["staff"], "0.10")];
    setup.timezone = chrono_tz::Tz::Europe__Berlin;
    let now =
        Now { mono: Mono::from_ms(1_000), utc: Utc::parse("2026-09-21T19:00:00Z").expect("a time"), utc_trusted: true };
    let mut world = World::with(setup, Restored { store_id: "s".to_owned(), boot: 1, ..Restored::default() }, now);
    world.connect(A, 1);
    world
}

impl World {
    pub(super) fn start_at(&mut self, at: &str) {
        let payload = json!({ "connectorId": 1, "idTag": "GOOD", "meterStart": 1000, "timestamp": at });
        self.call(A, 1, "StartTransaction", &payload);
    }

    pub(super) fn stop_at(&mut self, at: &str, register: i64) {
        let payload = json!({ "transactionId": 1, "meterStop": register, "timestamp": at });
        self.call(A, 1, "StopTransaction", &payload);
    }

    pub(super) fn register_at(&mut self, at: &str, register: i64) {
        let value =
            json!({ "value": register.to_string(), "measurand": "Energy.Active.Import.Register", "unit": "Wh" });
        let payload = json!({ "connectorId": 1, "transactionId": 1, "meterValue": [{ "timestamp": at, "sampledValue": [value] }] });
        self.call(A, 1, "MeterValues", &payload);
    }

    pub(super) fn status_at(&mut self, status: &str, at: &str) {
        let payload = json!({ "connectorId": 1, "errorCode": "NoError", "status": status, "timestamp": at });
        self.call(A, 1, "StatusNotification", &payload);
    }

    fn cost(&self) -> Option<Cost> {
        self.records.iter().rev().find_map(|record| match &record.body {
            RecordBody::TransactionEnded { cost, .. } => cost.clone(),
            _ => None,
        })
    }
}

fn gross(world: &World) -> String {
    world.cost().expect("it has a cost").gross.to_string()
}

#[test]
fn the_event_of_the_end_says_what_it_costs() {
    let mut world = priced_world();
    world.start_at("2026-09-21T19:00:00Z");
    // 22:00 in Berlin is 20:00 UTC; a sample every 10 minutes, none at the border itself.
    for (at, register) in [("19:55:00", 6_500), ("20:05:00", 7_500), ("20:30:00", 8_000)] {
        world.register_at(&format!("2026-09-21T{at}Z"), register);
    }
    world.stop_at("2026-09-21T21:00:00Z", 11_000);
    // 6 kWh by day (half of the kWh across the border), 4 kWh at night.
    assert_eq!(gross(&world), "4.00");
    let border = |body: &RecordBody| matches!(body, RecordBody::TransactionUpdated { trigger: Some(why), .. } if why == "TariffBorder");
    assert_eq!(world.count(border), 1, "the one before the border was recorded as progress");
}

#[test]
fn a_car_that_is_full_pays_for_parking_and_a_pause_of_ours_does_not() {
    let mut world = priced_world();
    world.start_at("2026-09-21T12:00:00Z");
    world.status_at("Charging", "2026-09-21T12:00:00Z");
    world.status_at("SuspendedEVSE", "2026-09-21T12:30:00Z");
    world.status_at("Charging", "2026-09-21T13:00:00Z");
    world.status_at("SuspendedEV", "2026-09-21T14:00:00Z");
    world.stop_at("2026-09-21T14:30:00Z", 11_000);
    assert_eq!(gross(&world), "8.00");
}

#[test]
fn a_restart_changes_neither_prices_nor_what_was_measured() {
    let mut world = priced_world();
    world.start_at("2026-09-21T19:00:00Z");
    world.register_at("2026-09-21T19:30:00Z", 6_000);
    let mut ledger = Ledger::default();
    for record in &world.records {
        let text = serde_json::to_string(record).expect("records are JSON");
        ledger.apply(&serde_json::from_str(&text).expect("and can be read"));
    }
    let mut setup = setup(63);
    setup.timezone = chrono_tz::Tz::Europe__Berlin;
    setup.tariffs = vec![tariff(&[], "9.99")];
    let restored = Restored { store_id: "s".to_owned(), boot: 2, ledger, ..Restored::default() };
    let mut again = World::with(setup, restored, world.now);
    again.connect(A, 1);
    again.stop_at("2026-09-21T19:40:00Z", 7_000);
    assert_eq!(gross(&again), "3.00");
}

#[test]
fn a_group_has_prices_of_its_own() {
    let mut world = priced_world();
    let mut setup = setup(63);
    setup.tariffs = world.site.setup.tariffs.clone();
    setup.tokens[0].group = Some("staff".to_owned());
    world = World::with(setup, Restored { store_id: "s".to_owned(), boot: 1, ..Restored::default() }, world.now);
    world.connect(A, 1);
    world.start_at("2026-09-21T12:00:00Z");
    world.stop_at("2026-09-21T13:00:00Z", 11_000);
    assert_eq!(gross(&world), "1.00");
}

#[test]
fn without_a_tariff_or_a_register_nothing_is_priced() {
    let mut world = World::new(63);
    world.connect(A, 1);
    world.start_at("2026-09-21T12:00:00Z");
    world.stop_at("2026-09-21T13:00:00Z", 11_000);
    assert_eq!(world.cost(), None);
    assert_eq!(world.count(|body| matches!(body, RecordBody::TransactionPriced { .. })), 0);
}

fn operator() -> Operator {
    Operator {
        country_code: "DE".to_owned(),
        party_id: "ABC".to_owned(),
        location: cdr::Place {
            id: "test".to_owned(),
            name: Some("Test".to_owned()),
            address: "Hafenstr. 5".to_owned(),
            city: "Bremen".to_owned(),
            postal_code: Some("28195".to_owned()),
            state: None,
            country: "DEU".to_owned(),
            coordinates: GeoLocation { latitude: "53.079296".to_owned(), longitude: "8.801694".to_owned() },
        },
    }
}

/// Prices and somebody who sends CDRs; the clock is known or not.
pub(super) fn cdr_world(utc_trusted: bool) -> World {
    let mut setup = setup(63);
    setup.tariffs = vec![tariff(&[], "0.50")];
    setup.billing.operator = Some(operator());
    let utc = Utc::parse("2026-09-21T19:00:00Z").expect("a time");
    let now = Now { mono: Mono::from_ms(1_000), utc, utc_trusted };
    let mut world =
        World::with(setup, Restored { store_id: "5f1c9e0b7a3d2846".to_owned(), boot: 1, ..Restored::default() }, now);
    world.connect(A, 1);
    world
}

impl World {
    pub(super) fn cdrs(&self) -> Vec<Cdr> {
        let notes = self.records.iter().filter_map(|record| match &record.body {
            RecordBody::CdrCreated(note) => Some(note.cdr.clone()),
            _ => None,
        });
        notes.collect()
    }

    pub(super) fn again(&self) -> Ledger {
        let mut ledger = Ledger::default();
        for record in &self.records {
            let text = serde_json::to_string(record).expect("records are JSON");
            ledger.apply(&serde_json::from_str(&text).expect("and can be read"));
        }
        Ledger::restore(&ledger.snapshot()).expect("a snapshot")
    }
}

fn total(cdr: &Cdr) -> String {
    cdr.total_cost.excl_vat.value().to_string()
}

#[test]
fn a_transaction_gets_one_cdr_that_holds_against_the_schema() {
    let mut world = cdr_world(true);
    world.start_at("2026-09-21T19:00:00Z");
    world.register_at("2026-09-21T20:00:00Z", 7_000);
    world.stop_at("2026-09-21T21:00:00Z", 11_000);
    world.pass(5_000);
    let cdrs = world.cdrs();
    assert_eq!(cdrs.len(), 1);
    let cdr = &cdrs[0];
    assert_eq!(against_the_schema(&json!(cdr)), Vec::<String>::new());
    assert_eq!((total(cdr).as_str(), cdr.total_energy.value().to_string().as_str()), ("4", "10"));
    // 22:00 in Berlin.
    let border = Utc::parse("2026-09-21T20:00:00Z").expect("a time");
    assert_eq!(cdr.charging_periods.iter().map(|period| period.start_date_time).nth(1), Some(border));
    assert_eq!(cdr.cdr_location.evse_id, "DE*ABC*ECPA*1");
    assert_eq!((cdr.cdr_token.uid.as_str(), cdr.session_id.as_deref()), ("GOOD", Some("1")));
    let sequence = world.records.iter().find(|record| matches!(record.body, RecordBody::CdrCreated(_)));
    assert_eq!(cdr.id, format!("5f1c9e0b7a3d2846-{}", sequence.expect("it is there").sequence));
    world.stop_at("2026-09-21T21:00:00Z", 11_000);
    world.pass(5_000);
    assert_eq!(world.cdrs().len(), 1, "a Stop that comes again makes nothing");
    assert_eq!(world.again(), *world.site.ledger());
}

#[test]
fn a_crash_between_the_end_and_its_cdr_loses_nothing_and_doubles_nothing() {
    let mut world = cdr_world(true);
    world.start_at("2026-09-21T19:00:00Z");
    world.stop_at("2026-09-21T21:00:00Z", 11_000);
    assert_eq!(world.cdrs(), [], "not made yet");
    let restored =
        Restored { store_id: "5f1c9e0b7a3d2846".to_owned(), boot: 2, ledger: world.again(), ..Restored::default() };
    let mut again = World::with(setup(63), restored, world.now);
    again.pass(5_000);
    assert_eq!(again.cdrs().len(), 1, "also where the configuration says nothing of it any more");
}

#[test]
fn a_stop_that_comes_after_the_end_was_put_together_credits_and_bills_anew() {
    let mut world = cdr_world(true);
    world.start_at("2026-09-21T10:00:00Z");
    world.register_at("2026-09-21T11:00:00Z", 5_000);
    // The stop is lost; the next start closes the first one with what is known.
    let payload =
        json!({ "connectorId": 1, "idTag": "GOOD", "meterStart": 5_500, "timestamp": "2026-09-21T12:00:00Z" });
    world.call(A, 1, "StartTransaction", &payload);
    world.pass(5_000);
    let first = world.cdrs();
    assert_eq!(first.iter().map(total).collect::<Vec<_>>(), ["2.25"]);
    world.stop_at("2026-09-21T11:30:00Z", 5_400);
    world.pass(5_000);
    let cdrs = world.cdrs();
    assert_eq!(cdrs.iter().map(total).collect::<Vec<_>>(), ["2.25", "-2.25", "2.2"]);
    assert_eq!(cdrs[1].id, format!("{}-C", cdrs[0].id));
    assert_eq!((cdrs[1].credit, cdrs[1].credit_reference_id.as_ref()), (Some(true), Some(&cdrs[0].id)));
    assert_eq!((cdrs[2].credit, &cdrs[2].credit_reference_id), (None, &None));
    assert!(cdrs.iter().all(|cdr| against_the_schema(&json!(cdr)).is_empty()));
    assert_ne!(cdrs[2].id, cdrs[0].id);
    assert_eq!(world.again(), *world.site.ledger());
}

#[test]
fn a_command_takes_a_cdr_back_once() {
    let mut world = cdr_world(true);
    world.start_at("2026-09-21T19:00:00Z");
    world.stop_at("2026-09-21T19:30:00Z", 11_000);
    world.pass(2_000);
    let id = world.cdrs()[0].id.clone();
    let mut request = 0;
    let mut credit = |world: &mut World, cdr: &str, meter_stop: Option<i64>| {
        request += 1;
        let command = Command::CdrCredit {
            cdr: cdr.to_owned(),
            reason: "the register was misread".to_owned(),
            reissue: true,
            ended: None,
            meter_stop: meter_stop.map(Energy::from_wh),
        };
        world.put(Input::Request { request: RequestId(request), command });
        world.durable();
        world.pass(3_000);
        matches!(world.replies.last(), Some(Output::Reply { outcome: CommandOutcome::Accepted { .. }, .. }))
    };
    assert!(credit(&mut world, &id, Some(9_000)));
    assert_eq!(world.cdrs().iter().map(total).collect::<Vec<_>>(), ["5", "-5", "4"]);
    assert!(!credit(&mut world, &id, None), "credited already");
    assert!(!credit(&mut world, &format!("{id}-C"), None), "a credit CDR is final");
    let third = world.cdrs()[2].id.clone();
    assert!(!credit(&mut world, &third, Some(500)), "below the first register");
    assert!(credit(&mut world, &third, None));
    assert_eq!(world.cdrs().iter().map(total).collect::<Vec<_>>(), ["5", "-5", "4", "-4", "4"]);
    let mut ids: Vec<String> = world.cdrs().into_iter().map(|cdr| cdr.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5, "no id comes twice");
    assert_eq!(world.again(), *world.site.ledger());
}

#[test]
fn a_cdr_waits_for_the_time_and_is_made_with_the_right_one() {
    let mut world = cdr_world(false);
    // The gateway and the station that follows it are two hours late.
    world.start_at("2026-09-21T19:00:00Z");
    world.pass(10_000);
    world.stop_at("2026-09-21T19:00:10Z", 11_000);
    world.pass(5_000);
    assert_eq!(world.cdrs(), []);
    world.now.utc = world.now.utc.plus_ms(7_200_000);
    world.now.utc_trusted = true;
    world.pass(2_000);
    let cdrs = world.cdrs();
    assert_eq!(cdrs.len(), 1);
    assert_eq!(cdrs[0].start_date_time, Utc::parse("2026-09-21T21:00:00Z").expect("a time"));
    // 23:00 in Berlin: at night.
    assert_eq!(total(&cdrs[0]), "2.5");
    assert!(cdrs[0].remark.as_ref().is_some_and(|remark| remark.contains("corrected")), "{:?}", cdrs[0].remark);
}

#[test]
fn a_transaction_of_a_run_that_never_knew_the_time_gets_no_cdr_and_that_is_said() {
    let mut world = cdr_world(false);
    world.start_at("2026-09-21T19:00:00Z");
    world.stop_at("2026-09-21T19:30:00Z", 11_000);
    let restored =
        Restored { store_id: "5f1c9e0b7a3d2846".to_owned(), boot: 2, ledger: world.again(), ..Restored::default() };
    let mut again = World::with(setup(63), restored, Now { utc_trusted: true, ..world.now });
    again.pass(5_000);
    assert_eq!(again.cdrs(), []);
    assert_eq!(again.count(|body| matches!(body, RecordBody::CdrWithheld { .. })), 1);
}

/// So many transactions begin and end one after the other, before any tick.
pub(super) fn end_many(world: &mut World, count: i64) {
    for number in 0..count {
        let at = |minute: i64| Utc::from_unix_ms(1_790_000_000_000 + (10 * number + minute) * 60_000).to_string();
        let payload = json!({ "connectorId": 1, "idTag": "GOOD", "meterStart": 1_000 * number, "timestamp": at(0) });
        world.call(A, 1, "StartTransaction", &payload);
        let payload = json!({ "transactionId": number + 1, "meterStop": 1_000 * number + 500, "timestamp": at(5) });
        world.call(A, 1, "StopTransaction", &payload);
        world.durable();
    }
}

#[test]
fn many_ends_at_once_all_get_their_cdr_where_the_time_is_known() {
    let mut world = cdr_world(true);
    end_many(&mut world, 1_003);
    assert_eq!(world.count(|body| matches!(body, RecordBody::CdrCreated(_))), 3, "out of turn");
    world.pass(12_000);
    assert_eq!(world.count(|body| matches!(body, RecordBody::CdrCreated(_))), 1_003);
    assert_eq!(world.count(|body| matches!(body, RecordBody::CdrWithheld { .. })), 0);
}
