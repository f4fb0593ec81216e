//! The part of JSON Schema that `docs/ocpi-2.2.1-cdr.schema.json` uses. A keyword that is not known here fails, so that none is skipped.

use std::str::FromStr;

use rust_decimal::Decimal;
use serde_json::Value;

/// What of a value is against the schema of the CDR; nothing if it holds.
pub(crate) fn against_the_schema(value: &Value) -> Vec<String> {
    let root: Value = serde_json::from_str(include_str!("../../../docs/ocpi-2.2.1-cdr.schema.json")).expect("JSON");
    let mut found = Vec::new();
    judge(value, &root, &root, "", &mut found);
    found
}

fn judge(value: &Value, schema: &Value, root: &Value, at: &str, found: &mut Vec<String>) {
    let length = value.as_str().map_or(0, |text| text.chars().count());
    let amount = || Decimal::from_str(&value.to_string()).expect("a decimal number");
    for (keyword, rule) in schema.as_object().expect("a schema is an object") {
        let bound = || rule.as_u64().and_then(|bound| usize::try_from(bound).ok()).expect("a bound");
        let holds = match keyword.as_str() {
            "$schema" | "title" | "description" | "$defs" => true,
            "$ref" => {
                let pointer = rule.as_str().and_then(|reference| reference.strip_prefix('#')).expect("a local one");
                judge(value, root.pointer(pointer).expect("it is there"), root, at, found);
                true
            }
            "type" => match rule.as_str().expect("one type") {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "number" => value.is_number(),
                "integer" => value.is_u64() || value.is_i64(),
                other => panic!("type {other} is not known here"),
            },
            "enum" => rule.as_array().expect("a list").contains(value),
            "minLength" => length >= bound(),
            "maxLength" => length <= bound(),
            "minItems" => value.as_array().is_some_and(|items| items.len() >= bound()),
            "minimum" => amount() >= Decimal::from_str(&rule.to_string()).expect("a number"),
            "multipleOf" => (amount() % Decimal::from_str(&rule.to_string()).expect("a number")).is_zero(),
            "pattern" => value.as_str().is_some_and(|text| matches(rule.as_str().expect("a pattern"), text)),
            "required" => {
                rule.as_array().expect("a list").iter().all(|key| value.get(key.as_str().expect("a key")).is_some())
            }
            "dependentRequired" => rule.as_object().expect("an object").iter().all(|(key, needs)| {
                let needs = needs.as_array().expect("a list");
                value.get(key).is_none() || needs.iter().all(|need| value.get(need.as_str().expect("a key")).is_some())
            }),
            "properties" => {
                for (key, inner) in value.as_object().into_iter().flatten() {
                    match rule.get(key) {
                        Some(schema) => judge(inner, schema, root, &format!("{at}/{key}"), found),
                        None => found.push(format!("{at}/{key} is not in the schema")),
                    }
                }
                true
            }
            // Said by `properties`.
            "additionalProperties" => rule == false,
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    judge(item, rule, root, &format!("{at}/{index}"), found);
                }
                true
            }
            other => panic!("keyword {other} is not known here"),
        };
        if !holds {
            found.push(format!("{at}: {keyword} {rule} does not hold for {value}"));
        }
    }
}

/// The few patterns of that schema.
fn matches(pattern: &str, text: &str) -> bool {
    let digits = |text: &str, least: usize, most: usize| {
        (least..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    let degrees = |most| {
        let (whole, fraction) = text.strip_prefix('-').unwrap_or(text).split_once('.').unwrap_or_default();
        digits(whole, 1, most) && digits(fraction, 5, 7)
    };
    let mask = |mask: &str, text: &str| {
        mask.len() == text.len()
            && mask
                .bytes()
                .zip(text.bytes())
                .all(|(mask, byte)| if mask == b'0' { byte.is_ascii_digit() } else { mask == byte })
    };
    match pattern {
        "^[ -~]+$" => !text.is_empty() && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
        r"^-?[0-9]{1,2}\.[0-9]{5,7}$" => degrees(2),
        r"^-?[0-9]{1,3}\.[0-9]{5,7}$" => degrees(3),
        r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,3})?Z$" => {
            let (seconds, fraction) = text.trim_end_matches('Z').split_once('.').unwrap_or((text, "0"));
            text.ends_with('Z') && mask("0000-00-00T00:00:00", seconds.trim_end_matches('Z')) && digits(fraction, 1, 3)
        }
        "^([0-1][0-9]|2[0-3]):[0-5][0-9]$" => {
            mask("00:00", text) && text < "24:00" && text.as_bytes().get(3) < Some(&b'6')
        }
        "^[0-9]{4}-[0-9]{2}-[0-9]{2}$" => mask("0000-00-00", text),
        other => panic!("pattern {other} is not known here"),
    }
}
