//! Records of the Open Charge Metering Format (S.A.F.E., OCMF 1.0 to 1.4): `OCMF|<payload>|<signature>`, both of JSON.
//!
//! The signature is over the bytes of the payload as they came. They are cut out and never written anew.

use std::borrow::Cow;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rust_decimal::Decimal;
use serde_json::Value;

use crate::engine::model::signed::Page;

/// More readings than any record has.
const MAX_READINGS: usize = 1_000;

/// A record, cut into its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What was signed, byte for byte.
    pub payload: &'a str,
    /// Where it stands among the records of its meter.
    pub page: Option<Page>,
    /// What was read.
    pub readings: Vec<Reading>,
    /// `SA`: how it was signed; `None`: the default of the format, or what the key says.
    pub algorithm: Option<String>,
    /// `SD`, decoded.
    pub signature: Vec<u8>,
}

/// A reading of the meter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// `TX`: what it is of its transaction, such as `B` for its begin.
    pub kind: Option<char>,
    /// `TM`: when, with the state of the clock.
    pub time: String,
    /// `RV`: the value, exactly as it was written.
    pub value: Option<Decimal>,
    /// `RU`.
    pub unit: String,
    /// `RI`: which quantity, by its OBIS code.
    pub quantity: String,
}

/// The energy of a transaction, as its meter has signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedEnergy {
    /// In Wh.
    pub wh: Decimal,
    /// How far a register of whole Wh may be from it, in Wh: the last digits of both readings and of the register.
    pub tolerance: Decimal,
}

impl Reading {
    /// Whether it is that at the begin of a transaction.
    #[must_use]
    pub fn is_begin(&self) -> bool {
        self.kind == Some('B')
    }

    /// Whether it is that at the end of a transaction, whatever ended it.
    #[must_use]
    pub fn is_end(&self) -> bool {
        matches!(self.kind, Some('E' | 'L' | 'R' | 'A' | 'P'))
    }

    /// The value in Wh and what its last digit stands for, if it is one of energy drawn.
    fn energy(&self) -> Option<(Decimal, Decimal)> {
        let factor = match self.unit.as_str() {
            "kWh" => Decimal::ONE_THOUSAND,
            "Wh" => Decimal::ONE,
            _ => return None,
        };
        let value = self.value.filter(|_| is_import(&self.quantity))?;
        let digit = Decimal::new(1, value.scale());
        Some((value.checked_mul(factor)?, digit.checked_mul(factor)?))
    }
}

/// The text of a record in a signed value: as it is, or written in hexadecimal digits or base64. `None`: it is none.
#[must_use]
pub fn text_of(data: &str) -> Option<Cow<'_, str>> {
    let data = data.trim();
    if data.starts_with("OCMF|") {
        return Some(Cow::Borrowed(data));
    }
    let bytes = hex(data).or_else(|| STANDARD.decode(data).ok())?;
    let text = String::from_utf8(bytes).ok()?;
    let text = text.trim();
    text.starts_with("OCMF|").then(|| Cow::Owned(text.to_owned()))
}

/// Cuts a record into its parts.
///
/// # Errors
/// What of it cannot be read.
pub fn parse(text: &str) -> Result<Record<'_>, String> {
    let sections = text.strip_prefix("OCMF|").ok_or("it does not begin with OCMF|")?;
    let (payload, signature) = sections.rsplit_once('|').ok_or("it has no signature section")?;
    let object = |what: &str, json: &str| {
        let value: Value = serde_json::from_str(json).map_err(|error| format!("its {what} cannot be read: {error}"))?;
        if value.is_object() { Ok(value) } else { Err(format!("its {what} is not a JSON object")) }
    };
    let fields = object("payload", payload)?;
    let signed = object("signature", signature)?;
    let data = text_in(&signed, "SD").ok_or("its signature has no data (SD)")?;
    let bytes = match text_in(&signed, "SE").as_deref() {
        Some("base64") => STANDARD.decode(&data).ok(),
        _ => hex(&data).or_else(|| STANDARD.decode(&data).ok()),
    };
    Ok(Record {
        payload,
        page: page(&fields),
        readings: readings(&fields),
        algorithm: text_in(&signed, "SA"),
        signature: bytes.ok_or("its signature is neither hexadecimal digits nor base64")?,
    })
}

/// The energy between the reading at the begin and that at the end, over the records of a transaction in their order.
#[must_use]
pub fn energy(records: &[Record<'_>]) -> Option<SignedEnergy> {
    let readings = || records.iter().flat_map(|record| &record.readings);
    readings().filter(|reading| reading.is_begin()).find_map(|begin| {
        let (first, first_digit) = begin.energy()?;
        let is_its_end = |end: &&Reading| end.is_end() && end.quantity == begin.quantity && end.unit == begin.unit;
        let (last, last_digit) = readings().rfind(is_its_end)?.energy()?;
        let register = Decimal::TWO;
        Some(SignedEnergy { wh: last.checked_sub(first)?, tolerance: first_digit + last_digit + register })
    })
}

/// The readings in short, for people.
#[must_use]
pub fn summary(record: &Record<'_>) -> String {
    let page = record.page.as_ref().map(|page| format!("{} {}{}", page.meter, page.class, page.number));
    let readings = record.readings.iter().map(|reading| {
        let value = reading.value.map_or_else(String::new, |value| value.to_string());
        let kind = reading.kind.map_or_else(String::new, String::from);
        format!("{} {kind} {value} {} {}", reading.time, reading.unit, reading.quantity)
    });
    page.into_iter().chain(readings).collect::<Vec<_>>().join("; ")
}

fn page(fields: &Value) -> Option<Page> {
    let text = text_in(fields, "PG")?;
    let mut digits = text.trim().chars();
    let class = digits.next().filter(char::is_ascii_alphabetic)?.to_ascii_uppercase();
    let number = digits.as_str().parse().ok()?;
    let name = |key| text_in(fields, key).filter(|name| !name.is_empty());
    let meter = name("MS").or_else(|| name("GS")).or_else(|| name("GI"))?;
    // Bounded: it is a key of what is remembered.
    Some(Page { meter: meter.chars().take(100).collect(), class, number })
}

/// All readings. What one leaves out is as in the one before it.
fn readings(fields: &Value) -> Vec<Reading> {
    let list = fields.get("RD").and_then(Value::as_array).map_or(&[] as &[Value], Vec::as_slice);
    let mut found: Vec<Reading> = Vec::new();
    for entry in list.iter().take(MAX_READINGS) {
        let before = found.last();
        let inherited = |key, of: fn(&Reading) -> &String| {
            text_in(entry, key).or_else(|| before.map(|before| of(before).clone())).unwrap_or_default()
        };
        let kind = text_in(entry, "TX").and_then(|kind| kind.trim().chars().next());
        let reading = Reading {
            kind: kind.or_else(|| before.and_then(|before| before.kind)),
            time: inherited("TM", |before| &before.time),
            value: entry.get("RV").and_then(decimal),
            unit: inherited("RU", |before| &before.unit),
            quantity: inherited("RI", |before| &before.quantity),
        };
        found.push(reading);
    }
    found
}

/// Whether an OBIS code is that of energy drawn: `1-b:1.8.0`, those of the format itself (B0 to B3), or that of a transaction alone (98).
/// A reading without a code is taken for one.
fn is_import(obis: &str) -> bool {
    if obis.is_empty() {
        return true;
    }
    let groups = obis.split_once(':').map_or(obis, |(_, groups)| groups);
    let mut groups = groups.split(['.', '*']).map(|group| group.trim_start_matches('0').to_ascii_uppercase());
    let (quantity, kind) = (groups.next().unwrap_or_default(), groups.next().unwrap_or_default());
    matches!(quantity.as_str(), "1" | "B0" | "B1" | "B2" | "B3" | "98") && kind == "8"
}

fn text_in(fields: &Value, key: &str) -> Option<String> {
    fields.get(key).and_then(Value::as_str).map(str::to_owned)
}

/// A number, also one in quotes with blanks before it.
fn decimal(value: &Value) -> Option<Decimal> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_owned(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    Decimal::from_str(&text).ok()
}

/// The bytes of hexadecimal digits; `None`: there are others.
pub(super) fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| !digits.is_empty() && digits.len().is_multiple_of(2))?;
    Some(digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}

#[cfg(test)]
#[path = "ocmf_tests.rs"]
pub(crate) mod tests;
