//! What a transaction costs.
//!
//! Rounding, stated once: amounts are whole Wh and ms; each component is rounded to 4 decimals (the resolution of OCPI
//! 2.2.1), half away from zero; minimum and maximum are applied to their sum; the price is rounded once more to the currency's
//! smallest coin, and so is the tax, so that net and tax add up to gross.

use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Deserialize, Serialize};

use chrono_tz::Tz;

use super::split::{Period, Usage, split};
use crate::engine::model::tariff::Tariff;
use crate::engine::units::Energy;

/// Decimals of a component's price.
const COMPONENT_DIGITS: u32 = 4;

/// What a transaction costs, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bill {
    /// The tariff.
    pub tariff: String,
    /// ISO 4217 code.
    pub currency: String,
    /// The periods that it is made of.
    pub periods: Vec<Period>,
    /// All energy.
    pub energy: Energy,
    /// Time with the car charging, in ms.
    pub charging_ms: i64,
    /// Time with the car connected and not charging, in ms, without the grace time.
    pub parking_ms: i64,
    /// For the energy.
    pub energy_cost: Decimal,
    /// For the time charging.
    pub time_cost: Decimal,
    /// For the time parking.
    pub parking_cost: Decimal,
    /// For the start.
    pub start_cost: Decimal,
    /// What the minimum added or the maximum took away.
    pub adjustment: Decimal,
    /// The price without tax; without a tax rate the price.
    pub net: Decimal,
    /// The tax.
    pub vat: Decimal,
    /// What is to be paid.
    pub gross: Decimal,
}

/// Makes the bill.
#[must_use]
pub fn bill(usage: &Usage, tariff: &Tariff, zone: Tz) -> Bill {
    let periods = split(usage, tariff, zone);
    let mut grace_ms = i64::from(tariff.parking_grace_s) * 1_000;
    let mut cost = Costs::default();
    let (mut charging_ms, mut parking_ms) = (0, 0);
    for period in &periods {
        cost.energy = cost.energy.saturating_add(per(period.energy.wh(), 1_000, period.prices.energy_per_kwh));
        if period.charging {
            charging_ms += period.ms();
            cost.time = cost.time.saturating_add(per(period.ms(), 3_600_000, period.prices.time_per_h));
            continue;
        }
        let free = grace_ms.min(period.ms());
        grace_ms -= free;
        parking_ms += period.ms() - free;
        cost.parking = cost.parking.saturating_add(per(period.ms() - free, 3_600_000, period.prices.parking_per_h));
    }
    let start = periods.first().and_then(|first| first.prices.start_fee).unwrap_or_default();
    let component = |exact: Decimal| round(exact, COMPONENT_DIGITS);
    let (energy_cost, time_cost) = (component(cost.energy), component(cost.time));
    let (parking_cost, start_cost) = (component(cost.parking), component(start));
    let sum = [time_cost, parking_cost, start_cost].into_iter().fold(energy_cost, Decimal::saturating_add);
    let at_least = tariff.min_price.map_or(sum, |least| sum.max(least));
    let price = tariff.max_price.map_or(at_least, |most| at_least.min(most));
    let (net, vat, gross) = with_tax(price, tariff);
    Bill {
        tariff: tariff.id.clone(),
        currency: tariff.currency.clone(),
        energy: periods.iter().map(|period| period.energy).sum(),
        periods,
        charging_ms,
        parking_ms,
        energy_cost,
        time_cost,
        parking_cost,
        start_cost,
        adjustment: price - sum,
        net,
        vat,
        gross,
    }
}

#[derive(Default)]
struct Costs {
    energy: Decimal,
    time: Decimal,
    parking: Decimal,
}

fn per(amount: i64, unit: i64, price: Option<Decimal>) -> Decimal {
    price.map_or(Decimal::ZERO, |price| Decimal::from(amount).saturating_mul(price) / Decimal::from(unit))
}

fn round(exact: Decimal, digits: u32) -> Decimal {
    exact.round_dp_with_strategy(digits, RoundingStrategy::MidpointAwayFromZero)
}

fn with_tax(price: Decimal, tariff: &Tariff) -> (Decimal, Decimal, Decimal) {
    let coins = |exact| round(exact, tariff.minor_digits());
    let price = coins(price);
    let Some(percent) = tariff.vat_percent else { return (price, Decimal::ZERO, price) };
    let hundred = Decimal::ONE_HUNDRED;
    if tariff.prices_include_vat {
        let vat = coins(price * percent / (hundred + percent));
        (price - vat, vat, price)
    } else {
        let vat = coins(price * percent / hundred);
        (price, vat, price + vat)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
