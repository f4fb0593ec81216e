//! What charging costs in the world, and who shows it.

use std::collections::BTreeMap;

use siteward::engine::billing::signature::Key;
use siteward::engine::model::billing::{BillingSetup, ChargerBilling};
use siteward::engine::model::cdr::{GeoLocation, Operator, Place};
use siteward::engine::model::display::CostTransfer;
use siteward::engine::model::exchange::OcppVersion;
use siteward::engine::model::ids::StationId;
use siteward::engine::model::tariff::{Element, Prices, Tariff, When};

use crate::station::COST_VENDOR;
use crate::station::signing::PUBLIC_KEY;

use super::blueprint::{Blueprint, StationPlan, identity};
use super::scenario::quirks;

/// Every so many stations there is one without a display.
const WITHOUT_DISPLAY: usize = 4;

/// Prices with a border at noon and a fee for parking; none where nothing is priced.
pub(super) fn tariffs(site: &Blueprint) -> Vec<Tariff> {
    if site.running_cost_s.is_none() {
        return Vec::new();
    }
    let price = |text: &str| text.parse().ok();
    let morning = Prices {
        energy_per_kwh: price("0.49"),
        parking_per_h: price("6"),
        start_fee: price("0.35"),
        ..Prices::default()
    };
    let afternoon = Prices { energy_per_kwh: price("0.39"), ..Prices::default() };
    let tariff = Tariff {
        id: "world".to_owned(),
        currency: "EUR".to_owned(),
        groups: Vec::new(),
        elements: vec![
            Element { prices: morning, when: When::default() },
            Element { prices: afternoon, when: When { from_min: 12 * 60, to_min: 18 * 60, ..When::default() } },
        ],
        min_price: None,
        max_price: None,
        vat_percent: price("19"),
        prices_include_vat: false,
        parking_grace_s: 600,
    };
    vec![tariff]
}

pub(super) fn billing(site: &Blueprint) -> BillingSetup {
    let transfer = CostTransfer {
        vendor: COST_VENDOR.to_owned(),
        running: "RunningCost".to_owned(),
        last: "FinalCost".to_owned(),
        data: None,
    };
    BillingSetup {
        operator: site.running_cost_s.map(|_| operator()),
        chargers: keys(site),
        running_cost_s: site.running_cost_s,
        running_cost_transfer: site.running_cost_s.map(|_| transfer),
        ..BillingSetup::default()
    }
}

fn operator() -> Operator {
    Operator {
        country_code: "DE".to_owned(),
        party_id: "SIM".to_owned(),
        location: Place {
            id: "world".to_owned(),
            address: "Hafenstr. 5".to_owned(),
            city: "Bremen".to_owned(),
            country: "DEU".to_owned(),
            coordinates: GeoLocation { latitude: "53.079296".to_owned(), longitude: "8.801694".to_owned() },
            ..Place::default()
        },
    }
}

/// The public keys of the stations that sign. Those of OCPP 2.x send theirs.
fn keys(site: &Blueprint) -> BTreeMap<StationId, ChargerBilling> {
    let signs = |plan: &&StationPlan| {
        let quirks = plan.odd.as_deref().and_then(|odd| quirks(odd, plan.odd_ms).ok());
        plan.version() == OcppVersion::V16 && quirks.is_some_and(|quirks| quirks.signs)
    };
    let key: Vec<u8> = Key::read(PUBLIC_KEY).map(|key| key.to_bytes()).into_iter().flatten().collect();
    let billing = |plan: &StationPlan| {
        let billing = ChargerBilling { public_keys: vec![key.clone()], ..ChargerBilling::default() };
        (StationId::new(&identity(plan.number)), billing)
    };
    site.station.iter().filter(signs).map(billing).collect()
}

/// Whether a station has a display.
pub(super) const fn shows_costs(site: &Blueprint, plan: &StationPlan) -> bool {
    site.running_cost_s.is_some() && plan.number % WITHOUT_DISPLAY != WITHOUT_DISPLAY - 1
}
