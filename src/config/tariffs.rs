//! `[[tariffs]]`: prices by time of day and weekday.

use std::collections::BTreeMap;

use rust_decimal::Decimal;

use super::reader::{At, Section};
use crate::engine::model::tariff::{
    DAY_MIN, EVERY_DAY, Element, MAX_DECIMALS, MAX_ELEMENTS, MAX_GRACE_MIN, MAX_PRICE, MAX_TARIFFS, Prices, Tariff,
    WEEKDAYS, When, parse_minutes, parse_price,
};

/// Reads all tariffs.
pub(super) fn tariffs(root: &Section<'_>) -> Vec<Tariff> {
    let sections = root.sections("tariffs", "[[tariffs]]");
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut tariffs = Vec::new();
    for (number, section) in sections.into_iter().enumerate() {
        let document = section.document;
        if number == MAX_TARIFFS {
            document.error(section.at, format!("more than {MAX_TARIFFS} tariffs are not supported"));
            break;
        }
        let Some((at, tariff)) = tariff(section) else { continue };
        if let Some(first) = seen.insert(tariff.id.clone(), at) {
            let message = format!("tariff {:?} stands on line {} already", tariff.id, document.line(first));
            document.error(at, message);
        }
        tariffs.push(tariff);
    }
    tariffs
}

fn tariff(section: Section<'_>) -> Option<(usize, Tariff)> {
    let document = section.document;
    section.require("id", "\"default\"");
    section.require("currency", "\"EUR\"");
    section.require("elements", "[{ energy_per_kwh = \"0.49\" }]");
    let id = section.text("id").filter(|id| {
        let good = (1..=36).contains(&id.value.chars().count()) && !id.value.chars().any(char::is_control);
        if !good {
            document.error(id.at, format!("`id` is {:?}, and must have 1 to 36 printable characters", id.value));
        }
        good
    });
    let currency = section.text("currency").filter(|code| {
        let good = code.value.len() == 3 && code.value.bytes().all(|byte| byte.is_ascii_uppercase());
        if !good {
            let message = format!("`currency` is {:?}, and must be an ISO 4217 code such as \"EUR\"", code.value);
            document.error(code.at, message);
        }
        good
    });
    let groups = section.texts("groups").map_or_else(Vec::new, |groups| groups.value);
    let elements = section.sections("elements", "{ energy_per_kwh = \"0.49\" }");
    if elements.len() > MAX_ELEMENTS {
        let message = format!("{} elements are more than the {MAX_ELEMENTS} that are supported", elements.len());
        document.error(section.at, message);
    }
    let elements: Vec<Element> = elements.into_iter().take(MAX_ELEMENTS).map(element).collect();
    let least = section.price("min_price");
    let most = section.price("max_price");
    if let (Some(least), Some(most)) = (&least, &most)
        && least.value > most.value
    {
        let message = format!("`max_price` is {}, less than `min_price` {}", most.value, least.value);
        document.error(most.at, message);
    }
    let vat_percent = section.price("vat_percent").filter(|percent| {
        let good = percent.value <= Decimal::ONE_HUNDRED;
        if !good {
            document.error(percent.at, format!("`vat_percent` is {}, and must be 0 to 100", percent.value));
        }
        good
    });
    let include = section.boolean("prices_include_vat");
    if let (Some(include), None) = (&include, &vat_percent) {
        document
            .error(include.at, "`prices_include_vat` needs `vat_percent`, such as `vat_percent = \"19\"`".to_owned());
    }
    let grace = section.integer("parking_grace_min", 0..=i64::from(MAX_GRACE_MIN));
    section.finish();
    let id = id?;
    let tariff = Tariff {
        id: id.value,
        currency: currency?.value,
        groups: groups.into_iter().map(|group| group.value).collect(),
        elements,
        min_price: least.map(|price| price.value),
        max_price: most.map(|price| price.value),
        vat_percent: vat_percent.map(|percent| percent.value),
        prices_include_vat: include.is_some_and(|include| include.value),
        parking_grace_s: grace.and_then(|grace| u32::try_from(grace.value * 60).ok()).unwrap_or(0),
    };
    Some((id.at, tariff))
}

fn element(section: Section<'_>) -> Element {
    let document = section.document;
    let prices = Prices {
        energy_per_kwh: section.price("energy_per_kwh").map(|price| price.value),
        time_per_h: section.price("time_per_h").map(|price| price.value),
        parking_per_h: section.price("parking_per_h").map(|price| price.value),
        start_fee: section.price("start_fee").map(|price| price.value),
    };
    let keys = ["energy_per_kwh", "time_per_h", "parking_per_h", "start_fee"];
    if !keys.iter().any(|key| section.has(key)) {
        document.error(section.at, format!("an element needs a price: one of `{}`", keys.join("`, `")));
    }
    let from = section.time_of_day("from");
    let to = section.time_of_day("to");
    let weekdays = section.weekdays("weekdays");
    section.finish();
    let when = When {
        from_min: from.map_or(0, |from| from.value % DAY_MIN),
        to_min: to.map_or(DAY_MIN, |to| to.value),
        weekdays: weekdays.unwrap_or(EVERY_DAY),
    };
    Element { prices, when }
}

impl Section<'_> {
    /// A price: a decimal number in quotes, so that no binary fraction comes between.
    fn price(&self, key: &'static str) -> Option<At<Decimal>> {
        let text = self.text(key)?;
        let good = parse_price(&text.value);
        if good.is_none() {
            let message = format!(
                "`{key}` is {:?}, and must be a number from 0 to {MAX_PRICE} in quotes with at most {MAX_DECIMALS} decimals, such as \"0.49\"",
                text.value
            );
            self.document.error(text.at, message);
        }
        good.map(|value| At { at: text.at, value })
    }

    /// A local time as minutes of the day, 0 to 1440.
    fn time_of_day(&self, key: &'static str) -> Option<At<u16>> {
        let text = self.text(key)?;
        let minutes = parse_minutes(&text.value);
        if minutes.is_none() {
            let message = format!("`{key}` is {:?}, and must be a local time from 00:00 to 24:00", text.value);
            self.document.error(text.at, message);
        }
        minutes.map(|value| At { at: text.at, value })
    }

    /// A set of weekdays as bits.
    fn weekdays(&self, key: &'static str) -> Option<u8> {
        let days = self.texts(key)?;
        let mut bits = 0;
        for day in &days.value {
            match WEEKDAYS.iter().position(|name| *name == day.value) {
                Some(index) => bits |= 1 << index,
                None => {
                    let message = format!("`{key}` has {:?}, and its days are {}", day.value, WEEKDAYS.join(", "));
                    self.document.error(day.at, message);
                }
            }
        }
        Some(bits)
    }
}
