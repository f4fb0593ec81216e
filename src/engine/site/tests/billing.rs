//! What a transaction costs, from the station's messages to the event for the cloud.

use super::*;
use crate::engine::model::tariff::{Cost, Element, Prices, Tariff, When};

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

fn priced_world() -> World {
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
    fn start_at(&mut self, at: &str) {
        let payload = json!({ "connectorId": 1, "idTag": "GOOD", "meterStart": 1000, "timestamp": at });
        self.call(A, 1, "StartTransaction", &payload);
    }

    fn stop_at(&mut self, at: &str, register: i64) {
        let payload = json!({ "transactionId": 1, "meterStop": register, "timestamp": at });
        self.call(A, 1, "StopTransaction", &payload);
    }

    fn register_at(&mut self, at: &str, register: i64) {
        let value =
            json!({ "value": register.to_string(), "measurand": "Energy.Active.Import.Register", "unit": "Wh" });
        let payload = json!({ "connectorId": 1, "transactionId": 1, "meterValue": [{ "timestamp": at, "sampledValue": [value] }] });
        self.call(A, 1, "MeterValues", &payload);
    }

    fn status_at(&mut self, status: &str, at: &str) {
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
