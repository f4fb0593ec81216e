//! Commands about tokens: `tokens.update`, `tokens.delete` and `tokens.replace`, and their entries, which REST has too.

use serde_json::{Map, Value};

use super::{list, name, name_of, number, only_known, quoted, read_time, unknown};
use crate::engine::model::command::Command;
use crate::engine::model::exchange::AuthorizationStatus;
use crate::engine::model::ids::IdToken;
use crate::engine::model::token::{ListPart, MAX_TOKEN_CHARACTERS, TokenEntry, TokensOrder};
use crate::engine::model::topology::MINIMUM_OFFER;
use crate::engine::model::wish::{TimeOfDay, Wish};
use crate::engine::units::{Current, Energy};

/// The keys of an entry.
const KEYS: [&str; 10] =
    ["token", "status", "group", "expires", "priority", "weight", "min_a", "max_a", "departure", "energy_kwh"];
/// The words for a status.
const STATUSES: [&str; 4] = ["Accepted", "Blocked", "Expired", "Invalid"];
/// A list of 100,000 tokens in commands of which none is half full has fewer parts.
const MOST_PARTS: u64 = 1_000;
/// No car needs more to begin with, in A; no station gives more to one.
const MAX_CURRENT_A: f64 = 1_000.0;
/// More than the largest battery of a lorry.
const MAX_ENERGY_KWH: f64 = 2_000.0;

/// The contract's name for an order.
pub(super) const fn kind(order: &TokensOrder) -> &'static str {
    match order {
        TokensOrder::Update { .. } => "tokens.update",
        TokensOrder::Delete { .. } => "tokens.delete",
        TokensOrder::Replace { .. } | TokensOrder::ReplacePart { .. } => "tokens.replace",
    }
}

pub(super) fn update(data: &Map<String, Value>, at: &str) -> Result<Command, String> {
    only_known(data, &["tokens"], at)?;
    let entries = entries(data)?;
    if entries.is_empty() {
        return Err("\"tokens\" is empty; it must have the entries to be set".to_owned());
    }
    Ok(Command::Tokens(TokensOrder::Update { entries }))
}

pub(super) fn delete(data: &Map<String, Value>, at: &str) -> Result<Command, String> {
    only_known(data, &["tokens"], at)?;
    let right = "\"tokens\" must be a list of the tokens to be deleted, such as [\"04A2B3C4\"]";
    let Some(Value::Array(named)) = data.get("tokens").filter(|named| named.as_array().is_some_and(|n| !n.is_empty()))
    else {
        return Err(right.to_owned());
    };
    let tokens: Result<Vec<IdToken>, String> = named
        .iter()
        .map(|token| match token {
            Value::String(token) => identifier("tokens", token).map(|token| IdToken::new(&token)),
            other => Err(format!("{right}; {} is in it", name_of(other))),
        })
        .collect();
    Ok(Command::Tokens(TokensOrder::Delete { tokens: tokens? }))
}

pub(super) fn replace(data: &Map<String, Value>, at: &str) -> Result<Command, String> {
    only_known(data, &["tokens", "list", "part", "parts"], at)?;
    let entries = entries(data)?;
    let given: Vec<&str> = ["list", "part", "parts"].into_iter().filter(|key| data.contains_key(*key)).collect();
    if given.is_empty() {
        return Ok(Command::Tokens(TokensOrder::Replace { entries }));
    }
    if given.len() < 3 {
        return Err(
            "a list in parts needs \"list\" (a name for it), \"part\" (from 1) and \"parts\" (how many)".to_owned()
        );
    }
    let parts = number(data, "parts", 1, MOST_PARTS)?;
    let part = number(data, "part", 1, parts)?;
    let small = |number: u64| u32::try_from(number).map_err(|error| error.to_string());
    let part = ListPart { list: name(data, "list")?.to_owned(), part: small(part)?, parts: small(parts)? };
    Ok(Command::Tokens(TokensOrder::ReplacePart { part, entries }))
}

fn entries(data: &Map<String, Value>) -> Result<Vec<TokenEntry>, String> {
    let right = "\"tokens\" must be a list of entries, such as [{\"token\": \"04A2B3C4\", \"status\": \"Accepted\"}]";
    let Some(Value::Array(given)) = data.get("tokens") else { return Err(right.to_owned()) };
    let read = |(index, entry): (usize, &Value)| match entry {
        Value::Object(entry) => {
            read_entry(entry).map_err(|error| format!("entry {} of \"tokens\": {error}", index + 1))
        }
        other => Err(format!("{right}; entry {} is {}", index + 1, name_of(other))),
    };
    given.iter().enumerate().map(read).collect()
}

/// Reads an entry: `{"token": "04A2B3C4", "status": "Accepted", "group": "staff", "expires": "…"}`, and the wishes of the tokens file.
///
/// # Errors
/// With a sentence for the sender that says what would be right.
pub fn read_entry(entry: &Map<String, Value>) -> Result<TokenEntry, String> {
    only_known(entry, &KEYS, "an entry of a token")?;
    let status = match entry.get("status") {
        None => AuthorizationStatus::Accepted,
        Some(Value::String(word)) => status(word)?,
        Some(other) => return Err(format!("\"status\" must be one of {}, not {}", list(&STATUSES), name_of(other))),
    };
    let group = match entry.get("group") {
        None | Some(Value::Null) => None,
        Some(_) => Some(identifier("group", name(entry, "group")?)?),
    };
    let (min, max) = (current(entry, "min_a")?, current(entry, "max_a")?);
    if min.zip(max).is_some_and(|(min, max)| min > max) {
        return Err("\"min_a\" must be at most \"max_a\"".to_owned());
    }
    Ok(TokenEntry {
        token: IdToken::new(&identifier("token", name(entry, "token")?)?),
        status,
        group,
        expires: read_time(entry, "expires")?,
        wish: Wish {
            priority: priority(entry)?,
            weight: match entry.get("weight") {
                None => None,
                Some(_) => u32::try_from(number(entry, "weight", 1, 1_000)?).ok(),
            },
            min,
            max,
            departure: departure(entry)?,
            energy: energy(entry)?,
        },
    })
}

fn status(word: &str) -> Result<AuthorizationStatus, String> {
    Ok(match word {
        "Accepted" => AuthorizationStatus::Accepted,
        "Blocked" => AuthorizationStatus::Blocked,
        "Expired" => AuthorizationStatus::Expired,
        "Invalid" => AuthorizationStatus::Invalid,
        other => return Err(unknown("status", other, &STATUSES)),
    })
}

fn identifier(key: &str, text: &str) -> Result<String, String> {
    let length = text.chars().count();
    if (1..=MAX_TOKEN_CHARACTERS).contains(&length) && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(format!("\"{key}\" {} must have 1 to {MAX_TOKEN_CHARACTERS} printable characters", quoted(text)))
}

fn priority(entry: &Map<String, Value>) -> Result<Option<i32>, String> {
    let Some(value) = entry.get("priority") else { return Ok(None) };
    let found =
        value.as_i64().and_then(|number| i32::try_from(number).ok()).filter(|found| (-100..=100).contains(found));
    found.map(Some).ok_or_else(|| "\"priority\" must be a whole number from -100 to 100".to_owned())
}

fn departure(entry: &Map<String, Value>) -> Result<Option<TimeOfDay>, String> {
    let Some(value) = entry.get("departure") else { return Ok(None) };
    let found = value.as_str().and_then(TimeOfDay::parse);
    found
        .map(Some)
        .ok_or_else(|| "\"departure\" must be a time of day on the site's clocks, such as \"07:00\"".to_owned())
}

/// Rounded down to a mA.
fn current(entry: &Map<String, Value>, key: &str) -> Result<Option<Current>, String> {
    let least = MINIMUM_OFFER.as_a();
    let Some(value) = entry.get(key) else { return Ok(None) };
    let found = thousandths(value, least..=MAX_CURRENT_A).and_then(|ma| ma.parse().ok());
    let wrong = || format!("\"{key}\" must be a number of amperes from {least} to {MAX_CURRENT_A}");
    found.map(|ma| Some(Current::from_ma(ma))).ok_or_else(wrong)
}

/// Rounded down to a Wh.
fn energy(entry: &Map<String, Value>) -> Result<Option<Energy>, String> {
    let Some(value) = entry.get("energy_kwh") else { return Ok(None) };
    let found = thousandths(value, 0.001..=MAX_ENERGY_KWH).and_then(|wh| wh.parse().ok());
    let wrong = || format!("\"energy_kwh\" must be a number of kWh from 0.001 to {MAX_ENERGY_KWH}");
    found.map(|wh| Some(Energy::from_wh(wh))).ok_or_else(wrong)
}

/// The thousandths of a number, rounded down, as text. A millionth of tolerance keeps 16.3 from becoming 16.299.
fn thousandths(value: &Value, range: std::ops::RangeInclusive<f64>) -> Option<String> {
    let number = value.as_number().and_then(serde_json::Number::as_f64).filter(|number| range.contains(number))?;
    Some(format!("{:.0}", number.mul_add(1_000.0, 1e-6).floor()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::read_command;
    use super::super::schema_tests::agrees;
    use super::*;
    use crate::engine::time::Utc;

    fn read(kind: &str, data: &Value) -> Result<TokensOrder, String> {
        let text = json!({ "id": "1", "type": kind, "data": data }).to_string();
        let read = read_command(text.as_bytes()).map(|intake| intake.command);
        agrees(text.as_bytes(), read.as_ref().err().map(|rejection| rejection.error.as_str()));
        match read {
            Ok(Command::Tokens(order)) => Ok(order),
            Ok(other) => Err(format!("{other:?}")),
            Err(rejection) => Err(rejection.error),
        }
    }

    fn plain(token: &str) -> TokenEntry {
        let token = IdToken::new(token);
        TokenEntry { token, status: AuthorizationStatus::Accepted, group: None, expires: None, wish: Wish::default() }
    }

    #[test]
    fn entries_have_the_keys_of_the_tokens_file() {
        let whole = json!({
            "token": "04A2", "status": "Blocked", "group": "staff", "expires": "2026-03-01T13:00:00+01:00", "priority": -5,
            "weight": 300, "min_a": 8, "max_a": 16.3, "departure": "07:00", "energy_kwh": 12.5,
        });
        let order = read("tokens.update", &json!({ "tokens": [whole, { "token": "B" }] })).unwrap();
        let wish = Wish {
            priority: Some(-5),
            weight: Some(300),
            min: Some(Current::from_a(8)),
            max: Some(Current::from_ma(16_300)),
            departure: TimeOfDay::parse("07:00"),
            energy: Some(Energy::from_wh(12_500)),
        };
        let entry = TokenEntry {
            status: AuthorizationStatus::Blocked,
            group: Some("staff".to_owned()),
            expires: Some(Utc::from_unix_ms(1_772_366_400_000)),
            wish,
            ..plain("04A2")
        };
        assert_eq!(order, TokensOrder::Update { entries: vec![entry, plain("B")] });
    }

    #[test]
    fn lists_come_whole_or_in_parts() {
        let tokens = json!([{ "token": "A" }]);
        let entries = || vec![plain("A")];
        assert_eq!(
            read("tokens.replace", &json!({ "tokens": tokens })),
            Ok(TokensOrder::Replace { entries: entries() })
        );
        assert_eq!(read("tokens.replace", &json!({ "tokens": [] })), Ok(TokensOrder::Replace { entries: vec![] }));
        let part = ListPart { list: "monday".to_owned(), part: 2, parts: 7 };
        let data = json!({ "tokens": tokens, "list": "monday", "part": 2, "parts": 7 });
        assert_eq!(read("tokens.replace", &data), Ok(TokensOrder::ReplacePart { part, entries: entries() }));
        let deleted = TokensOrder::Delete { tokens: vec![IdToken::new("A"), IdToken::new("B")] };
        assert_eq!(read("tokens.delete", &json!({ "tokens": ["A", "B"] })), Ok(deleted));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_would_be_right() {
        let long = "x".repeat(37);
        for (kind, data, part) in [
            ("tokens.update", json!({}), "must be a list of entries"),
            ("tokens.update", json!({ "tokens": [] }), "is empty"),
            ("tokens.update", json!({ "tokens": ["A"] }), "entry 1 is a string"),
            (
                "tokens.update",
                json!({ "tokens": [{ "token": "A" }, {}] }),
                "entry 2 of \"tokens\": \"token\" is missing",
            ),
            ("tokens.update", json!({ "tokens": [{ "token": long }] }), "must have 1 to 36 printable characters"),
            ("tokens.update", json!({ "tokens": [{ "token": "A", "staus": "Blocked" }] }), "did you mean \"status\"?"),
            ("tokens.update", json!({ "tokens": [{ "token": "A", "status": "Bocked" }] }), "did you mean \"Blocked\"?"),
            ("tokens.update", json!({ "tokens": [{ "token": "A", "expires": "2027-01-31" }] }), "is not a time"),
            ("tokens.update", json!({ "tokens": [{ "token": "A", "min_a": 5.9 }] }), "from 6 to 1000"),
            ("tokens.update", json!({ "tokens": [{ "token": "A", "min_a": 9, "max_a": 8 }] }), "at most \"max_a\""),
            ("tokens.update", json!({ "tokens": [{ "token": "A", "priority": 101 }] }), "from -100 to 100"),
            ("tokens.update", json!({ "tokens": [{ "token": "A", "departure": "7:00" }] }), "such as \"07:00\""),
            ("tokens.update", json!({ "tokens": [{ "token": "A", "energy_kwh": 0 }] }), "from 0.001 to 2000"),
            ("tokens.delete", json!({ "tokens": [] }), "must be a list of the tokens"),
            ("tokens.delete", json!({ "tokens": [{ "token": "A" }] }), "an object is in it"),
            ("tokens.replace", json!({ "tokens": [], "part": 1 }), "needs \"list\""),
            ("tokens.replace", json!({ "tokens": [], "list": "a", "part": 3, "parts": 2 }), "from 1 to 2"),
        ] {
            let error = read(kind, &data).expect_err("refused");
            assert!(error.contains(part), "{data}: {error}");
        }
    }
}
