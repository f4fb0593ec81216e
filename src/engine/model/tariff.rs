//! Tariffs: prices that depend on the local time of day and the weekday.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// Minutes of a local day.
pub const DAY_MIN: u16 = 24 * 60;

/// More elements than any price list has; each border costs arithmetic at the end of a transaction.
pub const MAX_ELEMENTS: usize = 100;
/// As many tariffs as a site has groups.
pub const MAX_TARIFFS: usize = 100;
/// No price is higher, in any currency; it keeps the arithmetic far from its bounds.
pub const MAX_PRICE: i64 = 1_000_000;
/// Digits after the point of a price: a hundredth of a cent and some more.
pub const MAX_DECIMALS: u32 = 6;
/// The longest free time of parking, in minutes: a day.
pub const MAX_GRACE_MIN: u32 = 1_440;
/// The names of the weekdays, Monday first.
pub const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Reads a price: a decimal number from 0 to [`MAX_PRICE`] with at most [`MAX_DECIMALS`] decimals.
#[must_use]
pub fn parse_price(text: &str) -> Option<Decimal> {
    let price = text.parse::<Decimal>().ok()?;
    let good = price >= Decimal::ZERO && price <= Decimal::from(MAX_PRICE) && price.scale() <= MAX_DECIMALS;
    good.then_some(price)
}

/// Reads a local time from `00:00` to `24:00` as minutes of the day.
#[must_use]
pub fn parse_minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let plain = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    let (hours, minutes): (u16, u16) = (
        Some(hours).filter(|part| plain(part))?.parse().ok()?,
        Some(minutes).filter(|part| plain(part))?.parse().ok()?,
    );
    (minutes < 60).then_some(hours * 60 + minutes).filter(|total| *total <= DAY_MIN)
}

/// A price list. All prices are in its currency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Tariff {
    /// Its name.
    pub id: String,
    /// ISO 4217 code.
    pub currency: String,
    /// The token groups that it is for; empty: everybody without a tariff of their own.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Prices and when they hold. Of several elements that name the same price at a moment, the last one holds.
    pub elements: Vec<Element>,
    /// A transaction costs at least this.
    #[serde(default)]
    pub min_price: Option<Decimal>,
    /// A transaction costs at most this.
    #[serde(default)]
    pub max_price: Option<Decimal>,
    /// Value added tax in percent; `None`: no tax is shown.
    #[serde(default)]
    pub vat_percent: Option<Decimal>,
    /// The prices contain the tax. Has no meaning without `vat_percent`.
    #[serde(default)]
    pub prices_include_vat: bool,
    /// So long after charging has ended nothing is paid for parking, in s.
    #[serde(default)]
    pub parking_grace_s: u32,
}

/// Some prices and when they hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "TariffElement"))]
pub struct Element {
    /// The prices.
    pub prices: Prices,
    /// When they hold.
    pub when: When,
}

/// Prices by component. A component without a price in force costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "TariffPrices"))]
pub struct Prices {
    /// For a kWh.
    #[serde(default)]
    pub energy_per_kwh: Option<Decimal>,
    /// For an hour in which the car charges.
    #[serde(default)]
    pub time_per_h: Option<Decimal>,
    /// For an hour in which the car is connected and takes nothing.
    #[serde(default)]
    pub parking_per_h: Option<Decimal>,
    /// Once, at the price in force when the transaction begins.
    #[serde(default)]
    pub start_fee: Option<Decimal>,
}

impl Prices {
    /// These prices, with those of `later` in their place where it names any.
    #[must_use]
    pub fn overlaid(self, later: &Self) -> Self {
        Self {
            energy_per_kwh: later.energy_per_kwh.or(self.energy_per_kwh),
            time_per_h: later.time_per_h.or(self.time_per_h),
            parking_per_h: later.parking_per_h.or(self.parking_per_h),
            start_fee: later.start_fee.or(self.start_fee),
        }
    }
}

/// When an element holds, in local wall-clock time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "TariffWhen"))]
pub struct When {
    /// The minute of the day at which it begins, 0 to 1439.
    pub from_min: u16,
    /// The minute of the day before which it ends, 0 to 1440. Not after `from_min`: it goes on to the next day.
    pub to_min: u16,
    /// The weekdays on which it begins: bit 0 is Monday.
    pub weekdays: u8,
}

/// What a transaction costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Cost {
    /// ISO 4217 code.
    pub currency: String,
    /// The price without tax; without a tax rate the price.
    pub net: Decimal,
    /// The tax.
    pub vat: Decimal,
    /// What is to be paid.
    pub gross: Decimal,
    /// The tariff that it was made with.
    pub tariff: String,
}

/// All weekdays.
pub const EVERY_DAY: u8 = 0b0111_1111;

impl Default for When {
    fn default() -> Self {
        Self { from_min: 0, to_min: DAY_MIN, weekdays: EVERY_DAY }
    }
}

impl When {
    /// Whether it holds at a minute of a local day; `weekday` counts from Monday = 0.
    #[must_use]
    pub const fn holds(&self, weekday: u8, minute: u16) -> bool {
        let today = self.weekdays & (1 << (weekday % 7)) != 0;
        let yesterday = self.weekdays & (1 << ((weekday + 6) % 7)) != 0;
        if self.from_min < self.to_min {
            today && minute >= self.from_min && minute < self.to_min
        } else {
            // Over midnight: the part after it belongs to the day on which it began.
            (today && minute >= self.from_min) || (yesterday && minute < self.to_min)
        }
    }
}

impl Tariff {
    /// The prices in force at a minute of a local day.
    #[must_use]
    pub fn prices_at(&self, weekday: u8, minute: u16) -> Prices {
        let holding = self.elements.iter().filter(|element| element.when.holds(weekday, minute));
        holding.fold(Prices::default(), |prices, element| prices.overlaid(&element.prices))
    }

    /// The minutes of a local day at which prices may change; always 0, since weekdays change there.
    #[must_use]
    pub fn borders_min(&self) -> Vec<u16> {
        let ends = self.elements.iter().flat_map(|element| [element.when.from_min, element.when.to_min % DAY_MIN]);
        let mut borders: Vec<u16> = ends.chain([0]).collect();
        borders.sort_unstable();
        borders.dedup();
        borders
    }

    /// Digits after the decimal point of the currency's smallest coin (ISO 4217).
    #[must_use]
    pub fn minor_digits(&self) -> u32 {
        match self.currency.as_str() {
            "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX" | "VND" | "VUV"
            | "XAF" | "XOF" | "XPF" => 0,
            "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 3,
            _ => 2,
        }
    }
}

/// The tariff for a token's group: the first one that names the group, else the first one for everybody.
#[must_use]
pub fn tariff_for<'a>(tariffs: &'a [Tariff], group: Option<&str>) -> Option<&'a Tariff> {
    let own = group.and_then(|group| tariffs.iter().find(|tariff| tariff.groups.iter().any(|named| named == group)));
    own.or_else(|| tariffs.iter().find(|tariff| tariff.groups.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_midnight_belongs_to_the_day_on_which_it_began() {
        let friday_night = When { from_min: 22 * 60, to_min: 6 * 60, weekdays: 1 << 4 };
        assert!(friday_night.holds(4, 23 * 60));
        assert!(friday_night.holds(5, 5 * 60 + 59));
        assert!(!friday_night.holds(5, 6 * 60));
        assert!(!friday_night.holds(4, 5 * 60));
    }

    #[test]
    fn the_last_element_that_names_a_price_holds() {
        let price = |text: &str| text.parse::<Decimal>().ok();
        let night = When { from_min: 22 * 60, to_min: 6 * 60, weekdays: EVERY_DAY };
        let tariff = Tariff {
            id: "default".to_owned(),
            currency: "EUR".to_owned(),
            groups: Vec::new(),
            elements: vec![
                Element {
                    prices: Prices { energy_per_kwh: price("0.49"), start_fee: price("1"), ..Prices::default() },
                    when: When::default(),
                },
                Element { prices: Prices { energy_per_kwh: price("0.29"), ..Prices::default() }, when: night },
            ],
            min_price: None,
            max_price: None,
            vat_percent: None,
            prices_include_vat: false,
            parking_grace_s: 0,
        };
        assert_eq!(tariff.prices_at(0, 12 * 60).energy_per_kwh, price("0.49"));
        let at_night = tariff.prices_at(0, 23 * 60);
        assert_eq!((at_night.energy_per_kwh, at_night.start_fee), (price("0.29"), price("1")));
        assert_eq!(tariff.borders_min(), vec![0, 6 * 60, 22 * 60]);
    }
}
