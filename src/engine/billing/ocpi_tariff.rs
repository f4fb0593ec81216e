//! A tariff as OCPI 2.2.1 writes it.
//!
//! Of several elements that price a dimension at a moment OCPI takes the first, Siteward the last: the order is turned round. OCPI knows the
//! weekday at a moment, Siteward that on which a night began: a night on certain days becomes two elements.

use rust_decimal::Decimal;

use crate::engine::model::cdr::{
    DisplayText, OcpiNumber, OcpiTariff, Price, PriceComponent, TariffElement, TariffRestrictions,
};
use crate::engine::model::tariff::{DAY_MIN, EVERY_DAY, Prices, Tariff, When};
use crate::engine::time::Utc;

const WEEKDAYS: [&str; 7] = ["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY"];

/// Writes a tariff of an operator (country and party), as it was at `sealed`.
#[must_use]
pub fn ocpi_tariff(tariff: &Tariff, (country_code, party_id): (&str, &str), sealed: Utc) -> OcpiTariff {
    let mut elements: Vec<TariffElement> = Vec::new();
    for element in tariff.elements.iter().rev() {
        let price_components = components(&element.prices, tariff);
        for restrictions in restrictions(element.when) {
            elements.push(TariffElement { price_components: price_components.clone(), restrictions });
        }
    }
    if elements.is_empty() {
        // No element ever holds; OCPI wants at least one.
        let free = Prices { start_fee: Some(Decimal::ZERO), ..Prices::default() };
        elements.push(TariffElement { price_components: components(&free, tariff), restrictions: None });
    }
    let text = |text: String| DisplayText { language: "en".to_owned(), text };
    let grace = (tariff.parking_grace_s > 0)
        .then(|| text(format!("The first {} minutes of parking are free.", tariff.parking_grace_s / 60)));
    OcpiTariff {
        country_code: country_code.to_owned(),
        party_id: party_id.to_owned(),
        id: tariff.id.clone(),
        currency: tariff.currency.clone(),
        tariff_alt_text: grace.into_iter().collect(),
        min_price: tariff.min_price.map(|least| price(least, tariff)),
        max_price: tariff.max_price.map(|most| price(most, tariff)),
        elements,
        last_updated: sealed,
    }
}

/// An amount in the prices of a tariff, without and with tax.
#[must_use]
pub fn price(amount: Decimal, tariff: &Tariff) -> Price {
    let (excl, incl) = match tariff.vat_percent {
        None => (amount, None),
        Some(_) if tariff.prices_include_vat => (without_vat(amount, tariff), Some(amount)),
        Some(percent) => {
            let factor = (Decimal::ONE_HUNDRED + percent) / Decimal::ONE_HUNDRED;
            (amount, Some(amount.saturating_mul(factor)))
        }
    };
    Price { excl_vat: OcpiNumber::rounded(excl), incl_vat: incl.map(OcpiNumber::rounded) }
}

fn without_vat(amount: Decimal, tariff: &Tariff) -> Decimal {
    let Some(percent) = tariff.vat_percent.filter(|_| tariff.prices_include_vat) else { return amount };
    amount.saturating_mul(Decimal::ONE_HUNDRED) / (Decimal::ONE_HUNDRED + percent)
}

fn components(prices: &Prices, tariff: &Tariff) -> Vec<PriceComponent> {
    let kinds = [
        ("ENERGY", prices.energy_per_kwh),
        ("TIME", prices.time_per_h),
        ("PARKING_TIME", prices.parking_per_h),
        ("FLAT", prices.start_fee),
    ];
    let component = |(kind, price): (&str, Option<Decimal>)| {
        Some(PriceComponent {
            kind: kind.to_owned(),
            price: OcpiNumber::rounded(without_vat(price?, tariff)),
            vat: tariff.vat_percent.map(OcpiNumber::rounded),
            step_size: 1,
        })
    };
    kinds.into_iter().filter_map(component).collect()
}

/// The restrictions that together say `when`: one entry for each element that is needed; `None` in it: it always holds.
fn restrictions(when: When) -> Vec<Option<TariffRestrictions>> {
    let all_week = when.weekdays & EVERY_DAY == EVERY_DAY;
    let over_midnight = when.from_min >= when.to_min;
    if when.weekdays & EVERY_DAY == 0 {
        return Vec::new();
    }
    let part = |from: u16, to: u16, days: u8| {
        let whole_day = from == 0 && to == DAY_MIN;
        let restrictions = TariffRestrictions {
            start_time: (!whole_day).then(|| time(from)),
            end_time: (!whole_day).then(|| time(to)),
            day_of_week: if days & EVERY_DAY == EVERY_DAY { Vec::new() } else { names(days) },
        };
        (restrictions != TariffRestrictions::default()).then_some(restrictions)
    };
    if all_week && when.from_min == when.to_min {
        return vec![None];
    }
    if !over_midnight || all_week {
        return vec![part(when.from_min, when.to_min, when.weekdays)];
    }
    let next_days = (when.weekdays << 1 | when.weekdays >> 6) & EVERY_DAY;
    let mut parts = vec![part(when.from_min, DAY_MIN, when.weekdays)];
    if when.to_min > 0 {
        parts.push(part(0, when.to_min, next_days));
    }
    parts
}

/// A minute of the day; the end of the day is `00:00` (OCPI 2.2.1, TariffRestrictions).
fn time(minute: u16) -> String {
    let minute = minute % DAY_MIN;
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

fn names(days: u8) -> Vec<String> {
    WEEKDAYS.iter().enumerate().filter(|(day, _)| days & (1 << day) != 0).map(|(_, name)| (*name).to_owned()).collect()
}
