//! `tariffs.replace`: a whole price list, as `[[tariffs]]` of the configuration in JSON.

use std::collections::BTreeSet;

use rust_decimal::Decimal;
use serde_json::{Map, Value};

use super::{MAX_NAME, name_of, only_known, quoted};
use crate::engine::model::command::Command;
use crate::engine::model::tariff::{
    DAY_MIN, EVERY_DAY, Element, MAX_DECIMALS, MAX_ELEMENTS, MAX_GRACE_MIN, MAX_PRICE, MAX_TARIFFS, Prices, Tariff,
    WEEKDAYS, When, parse_minutes, parse_price,
};

const TARIFF_KEYS: [&str; 9] = [
    "id",
    "currency",
    "groups",
    "elements",
    "min_price",
    "max_price",
    "vat_percent",
    "prices_include_vat",
    "parking_grace_min",
];
const PRICES: [&str; 4] = ["energy_per_kwh", "time_per_h", "parking_per_h", "start_fee"];
/// The longest id of a tariff, in characters (OCPI 2.2.1, Tariff).
const MAX_ID: usize = 36;

pub(super) fn replace(data: &Map<String, Value>, at: &str) -> Result<Command, String> {
    only_known(data, &["tariffs"], at)?;
    match data.get("tariffs") {
        None => Err("\"tariffs\" is missing; it is a list, or null for those of site.toml".to_owned()),
        Some(Value::Null) => Ok(Command::TariffsReplace { tariffs: None }),
        Some(Value::Array(list)) if list.len() > MAX_TARIFFS => {
            Err(format!("\"tariffs\" has {} entries; at most {MAX_TARIFFS} are supported", list.len()))
        }
        Some(Value::Array(list)) => {
            let mut ids = BTreeSet::new();
            let tariffs = list.iter().enumerate().map(|(index, value)| {
                let at = format!("tariffs[{index}]");
                let tariff = tariff(object(value, &at)?, &at)?;
                if !ids.insert(tariff.id.clone()) {
                    return Err(format!("{at}: the id {} stands in the list already", quoted(&tariff.id)));
                }
                Ok(tariff)
            });
            Ok(Command::TariffsReplace { tariffs: Some(tariffs.collect::<Result<_, _>>()?) })
        }
        Some(other) => Err(format!("\"tariffs\" must be a list, not {}", name_of(other))),
    }
}

fn tariff(data: &Map<String, Value>, at: &str) -> Result<Tariff, String> {
    only_known(data, &TARIFF_KEYS, at)?;
    let id = needed(data, "id", "\"default\"", at)?;
    if !(1..=MAX_ID).contains(&id.chars().count()) || id.chars().any(char::is_control) {
        return Err(format!("{at}.id is {}, and must have 1 to {MAX_ID} printable characters", quoted(id)));
    }
    let currency = needed(data, "currency", "\"EUR\"", at)?;
    if currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Err(format!("{at}.currency is {}, and must be an ISO 4217 code such as \"EUR\"", quoted(currency)));
    }
    let elements = match data.get("elements") {
        Some(Value::Array(list)) if (1..=MAX_ELEMENTS).contains(&list.len()) => list,
        Some(Value::Array(list)) => {
            return Err(format!("{at}.elements has {} entries, and must have 1 to {MAX_ELEMENTS}", list.len()));
        }
        _ => return Err(format!("{at}.elements must be a list such as [{{\"energy_per_kwh\": \"0.49\"}}]")),
    };
    let elements = elements.iter().enumerate().map(|(index, value)| {
        let at = format!("{at}.elements[{index}]");
        element(object(value, &at)?, &at)
    });
    let elements = elements.collect::<Result<_, _>>()?;
    let (min_price, max_price) = (price(data, "min_price", at)?, price(data, "max_price", at)?);
    if let (Some(least), Some(most)) = (min_price, max_price)
        && least > most
    {
        return Err(format!("{at}.max_price is {most}, less than min_price {least}"));
    }
    let vat_percent = price(data, "vat_percent", at)?;
    if vat_percent.is_some_and(|percent| percent > Decimal::ONE_HUNDRED) {
        return Err(format!("{at}.vat_percent must be 0 to 100"));
    }
    let prices_include_vat = match data.get("prices_include_vat") {
        None => false,
        Some(Value::Bool(_)) if vat_percent.is_none() => {
            return Err(format!("{at}.prices_include_vat needs vat_percent, such as \"vat_percent\": \"19\""));
        }
        Some(Value::Bool(include)) => *include,
        Some(other) => return Err(format!("{at}.prices_include_vat must be true or false, not {}", name_of(other))),
    };
    Ok(Tariff {
        id: id.to_owned(),
        currency: currency.to_owned(),
        groups: texts(data, "groups", at)?.unwrap_or_default().into_iter().map(str::to_owned).collect(),
        elements,
        min_price,
        max_price,
        vat_percent,
        prices_include_vat,
        parking_grace_s: grace_min(data, at)? * 60,
    })
}

fn element(data: &Map<String, Value>, at: &str) -> Result<Element, String> {
    only_known(data, &[&PRICES[..], &["from", "to", "weekdays"]].concat(), at)?;
    if !PRICES.iter().any(|key| data.contains_key(*key)) {
        return Err(format!("{at} needs a price: one of \"{}\"", PRICES.join("\", \"")));
    }
    let prices = Prices {
        energy_per_kwh: price(data, "energy_per_kwh", at)?,
        time_per_h: price(data, "time_per_h", at)?,
        parking_per_h: price(data, "parking_per_h", at)?,
        start_fee: price(data, "start_fee", at)?,
    };
    let weekdays = match texts(data, "weekdays", at)? {
        None => EVERY_DAY,
        Some(days) => {
            days.into_iter().try_fold(0, |bits, day| match WEEKDAYS.iter().position(|name| *name == day) {
                Some(index) => Ok(bits | 1 << index),
                None => Err(format!("{at}.weekdays has {}, and its days are {}", quoted(day), WEEKDAYS.join(", "))),
            })?
        }
    };
    let from_min = time_of_day(data, "from", at)?.map_or(0, |from| from % DAY_MIN);
    Ok(Element { prices, when: When { from_min, to_min: time_of_day(data, "to", at)?.unwrap_or(DAY_MIN), weekdays } })
}

fn object<'a>(value: &'a Value, at: &str) -> Result<&'a Map<String, Value>, String> {
    value.as_object().ok_or_else(|| format!("{at} must be an object, not {}", name_of(value)))
}

fn needed<'a>(data: &'a Map<String, Value>, key: &str, example: &str, at: &str) -> Result<&'a str, String> {
    match data.get(key) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!("{at}.{key} must be a string such as {example}, not {}", name_of(other))),
        None => Err(format!("{at}.{key} is missing; it is a string such as {example}")),
    }
}

/// A decimal number in quotes, so that no binary fraction comes between.
fn price(data: &Map<String, Value>, key: &str, at: &str) -> Result<Option<Decimal>, String> {
    let right =
        format!("a number from 0 to {MAX_PRICE} in quotes with at most {MAX_DECIMALS} decimals, such as \"0.49\"");
    match data.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => match parse_price(text) {
            Some(price) => Ok(Some(price)),
            None => Err(format!("{at}.{key} is {}, and must be {right}", quoted(text))),
        },
        Some(other) => Err(format!("{at}.{key} must be {right}, not {}", name_of(other))),
    }
}

fn time_of_day(data: &Map<String, Value>, key: &str, at: &str) -> Result<Option<u16>, String> {
    match data.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => match parse_minutes(text) {
            Some(minutes) => Ok(Some(minutes)),
            None => Err(format!("{at}.{key} is {}, and must be a local time from 00:00 to 24:00", quoted(text))),
        },
        Some(other) => Err(format!("{at}.{key} must be a local time from 00:00 to 24:00, not {}", name_of(other))),
    }
}

fn texts<'a>(data: &'a Map<String, Value>, key: &str, at: &str) -> Result<Option<Vec<&'a str>>, String> {
    let list = match data.get(key) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(format!("{at}.{key} must be a list of strings, not {}", name_of(other))),
    };
    let texts = list.iter().map(|entry| match entry {
        Value::String(text) if (1..=MAX_NAME).contains(&text.len()) => Ok(text.as_str()),
        _ => Err(format!("{at}.{key} must be a list of strings of 1 to {MAX_NAME} bytes")),
    });
    texts.collect::<Result<_, _>>().map(Some)
}

fn grace_min(data: &Map<String, Value>, at: &str) -> Result<u32, String> {
    let Some(value) = data.get("parking_grace_min") else { return Ok(0) };
    let minutes = value.as_u64().and_then(|minutes| u32::try_from(minutes).ok()).filter(|min| *min <= MAX_GRACE_MIN);
    minutes.ok_or_else(|| format!("{at}.parking_grace_min must be a whole number from 0 to {MAX_GRACE_MIN}"))
}

#[cfg(test)]
mod tests {
    use super::super::read_command;
    use super::super::schema_tests::agrees;
    use super::*;

    fn read(data: &str) -> Result<Command, String> {
        let text = format!("{{\"id\":\"1\",\"type\":\"tariffs.replace\",\"data\":{data}}}");
        let read = read_command(text.as_bytes()).map(|intake| intake.command).map_err(|rejection| rejection.error);
        agrees(text.as_bytes(), read.as_ref().err().map(String::as_str));
        read
    }

    #[test]
    fn a_price_list_is_read() {
        let read = read(
            r#"{"tariffs":[{"id":"day","currency":"EUR","vat_percent":"19","prices_include_vat":true,"min_price":"1","parking_grace_min":30,
            "groups":["staff"],"elements":[{"energy_per_kwh":"0.49","start_fee":"0.35"},
            {"energy_per_kwh":"0.290001","from":"22:00","to":"06:00","weekdays":["Sat","Sun"]}]}]}"#,
        );
        let Ok(Command::TariffsReplace { tariffs: Some(tariffs) }) = read else { panic!("{read:?}") };
        let price = |text: &str| text.parse::<Decimal>().ok();
        let [tariff] = &tariffs[..] else { panic!("{tariffs:?}") };
        assert_eq!((tariff.id.as_str(), tariff.groups.as_slice()), ("day", &["staff".to_owned()][..]));
        assert_eq!((tariff.parking_grace_s, tariff.min_price, tariff.prices_include_vat), (1_800, price("1"), true));
        assert_eq!(tariff.prices_at(0, 23 * 60).energy_per_kwh, price("0.49"));
        assert_eq!(tariff.prices_at(5, 23 * 60).energy_per_kwh, price("0.290001"));
        assert_eq!(tariff.prices_at(5, 23 * 60).start_fee, price("0.35"));
    }

    #[test]
    fn none_and_those_of_the_file_are_two_things() {
        assert_eq!(read(r#"{"tariffs":[]}"#), Ok(Command::TariffsReplace { tariffs: Some(Vec::new()) }));
        assert_eq!(read(r#"{"tariffs":null}"#), Ok(Command::TariffsReplace { tariffs: None }));
        assert!(read("{}").is_err_and(|error| error.contains("\"tariffs\" is missing")));
    }

    #[test]
    fn a_wrong_price_list_is_refused_with_the_place_and_what_would_be_right() {
        let one = |more: &str| format!(r#"{{"tariffs":[{{"id":"a","currency":"EUR",{more}}}]}}"#);
        let elements = r#""elements":[{"energy_per_kwh":"0.49"}]"#;
        for (data, part) in [
            (r#"{"tariffs":[7]}"#.to_owned(), "tariffs[0] must be an object, not a number"),
            (r#"{"tariffs":[{"currency":"EUR"}]}"#.to_owned(), "tariffs[0].id is missing"),
            (one(r#""elements":[]"#), "tariffs[0].elements has 0 entries"),
            (one(r#""elements":[{"energy_per_kwh":0.49}]"#), "in quotes"),
            (one(r#""elements":[{"energy_per_kwh":"-1"}]"#), "tariffs[0].elements[0].energy_per_kwh is \"-1\""),
            (one(r#""elements":[{"energy_per_kwh":"0.0000001"}]"#), "at most 6 decimals"),
            (one(r#""elements":[{"from":"22:00"}]"#), "needs a price"),
            (one(r#""elements":[{"energy_per_kwh":"1","from":"25:00"}]"#), "from 00:00 to 24:00"),
            (one(r#""elements":[{"energy_per_kwh":"1","weekdays":["Funday"]}]"#), "Mon, Tue"),
            (one(r#""elements":[{"energy_per_kw":"1"}]"#), "did you mean \"energy_per_kwh\"?"),
            (one(&format!(r#"{elements},"min_price":"2","max_price":"1""#)), "less than min_price"),
            (one(&format!(r#"{elements},"prices_include_vat":true"#)), "needs vat_percent"),
            (one(&format!(r#"{elements},"vat_percent":"101""#)), "0 to 100"),
            (one(&format!(r#"{elements},"parking_grace_min":-1"#)), "from 0 to 1440"),
            (
                format!(
                    r#"{{"tariffs":[{{"id":"a","currency":"EUR",{elements}}},{{"id":"a","currency":"EUR",{elements}}}]}}"#
                ),
                "tariffs[1]: the id \"a\" stands in the list already",
            ),
            (one(&format!(r#"{elements},"currency":"euro""#)), "ISO 4217"),
        ] {
            let error = read(&data).expect_err(&data);
            assert!(error.contains(part), "{data}: {error}");
        }
    }
}
