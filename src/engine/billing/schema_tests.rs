//! The part of JSON Schema that the published schemas use. A keyword that is not known here fails, so that none is skipped.
//! Stricter than JSON Schema in one thing: a key that the schema does not name is wrong, since what we send must be in it.

use std::str::FromStr;

use rust_decimal::Decimal;
use serde_json::Value;

use crate::engine::time::Utc;

/// What of a value is against the schema of the CDR; nothing if it holds.
pub(crate) fn against_the_schema(value: &Value) -> Vec<String> {
    let root: Value = serde_json::from_str(include_str!("../../../docs/ocpi-2.2.1-cdr.schema.json")).expect("JSON");
    against(value, &root)
}

/// What of a value is against a schema that holds all its parts; nothing if it holds.
pub(crate) fn against(value: &Value, root: &Value) -> Vec<String> {
    let mut found = Vec::new();
    judge(value, &Place { schema: root, root, whole: true, at: "" }, &mut found);
    found
}

/// A schema within another one.
#[derive(Clone, Copy)]
struct Place<'a> {
    schema: &'a Value,
    root: &'a Value,
    /// Nothing around it has judged the names of the keys yet.
    whole: bool,
    at: &'a str,
}

impl<'a> Place<'a> {
    fn with(self, schema: &'a Value, whole: bool) -> Self {
        Self { schema, whole, ..self }
    }

    fn referred(&self, rule: &Value) -> &'a Value {
        let pointer = rule.as_str().and_then(|reference| reference.strip_prefix('#')).expect("a local one");
        self.root.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is not there"))
    }
}

fn judge(value: &Value, place: &Place<'_>, found: &mut Vec<String>) {
    let Some(schema) = place.schema.as_object() else {
        assert_eq!(place.schema, true, "a schema is an object, or true");
        return;
    };
    let at = place.at;
    let names_keys =
        ["properties", "allOf", "additionalProperties"].iter().any(|keyword| schema.contains_key(*keyword));
    if place.whole && names_keys {
        let unknown = value.as_object().into_iter().flatten().filter(|(key, _)| !knows(place, key));
        found.extend(unknown.map(|(key, _)| format!("{at}/{key} is not in the schema")));
    }
    let whole = place.whole && !names_keys;
    let fits = |schema| {
        let mut wrong = Vec::new();
        judge(value, &place.with(schema, whole), &mut wrong);
        wrong
    };
    for (keyword, rule) in schema {
        let list = || rule.as_array().expect("a list");
        let holds = match keyword.as_str() {
            "$ref" => {
                found.extend(fits(place.referred(rule)));
                true
            }
            "allOf" => {
                found.extend(list().iter().flat_map(fits));
                true
            }
            "anyOf" | "oneOf" => {
                let wrong: Vec<_> = list().iter().map(fits).collect();
                let good = wrong.iter().filter(|wrong| wrong.is_empty()).count();
                if good == 0 {
                    found.push(format!("{at}: fits none of {keyword}: {wrong:?}"));
                }
                good <= 1 || keyword == "anyOf"
            }
            "properties" => {
                for (key, inner) in value.as_object().into_iter().flatten() {
                    if let Some(schema) = rule.get(key) {
                        let at = format!("{at}/{key}");
                        judge(inner, &Place { at: &at, ..place.with(schema, true) }, found);
                    }
                }
                true
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    let at = format!("{at}/{index}");
                    judge(item, &Place { at: &at, ..place.with(rule, true) }, found);
                }
                true
            }
            "not" => !fits(rule).is_empty(),
            _ => by_itself(value, keyword, rule),
        };
        if !holds {
            found.push(format!("{at}: {keyword} {rule} does not hold for {value}"));
        }
    }
}

/// Whether a schema names a key of the object that it is for.
fn knows(place: &Place<'_>, key: &str) -> bool {
    let inner = |schema| knows(&place.with(schema, false), key);
    let schema = place.schema;
    schema["properties"].get(key).is_some()
        || schema.get("$ref").is_some_and(|rule| inner(place.referred(rule)))
        || ["allOf", "anyOf", "oneOf"].iter().any(|all| schema[*all].as_array().into_iter().flatten().any(inner))
}

/// The keywords that need nothing but the value.
fn by_itself(value: &Value, keyword: &str, rule: &Value) -> bool {
    let amount =
        |value: &Value| Decimal::from_str(&value.to_string()).or_else(|_| Decimal::from_scientific(&value.to_string()));
    let bound = || rule.as_u64().and_then(|bound| usize::try_from(bound).ok()).expect("a bound");
    let length = value.as_str().map(|text| text.chars().count());
    let items = value.as_array().map(Vec::len);
    let names = |rule: &Value| -> Vec<String> {
        rule.as_array().expect("a list").iter().map(|key| key.as_str().expect("a key").to_owned()).collect()
    };
    let has_all =
        |keys: Vec<String>| value.as_object().is_none_or(|object| keys.iter().all(|key| object.contains_key(key)));
    match keyword {
        // `components` is where AsyncAPI keeps what else stands in `$defs`.
        "$schema" | "title" | "description" | "$defs" | "components" | "default" | "examples" => true,
        // Said by the names of the keys.
        "additionalProperties" | "unevaluatedProperties" => rule == false,
        "type" => match rule {
            Value::Array(types) => types.iter().any(|one| is(value, one)),
            one => is(value, one),
        },
        "const" => value == rule,
        "enum" => rule.as_array().expect("a list").contains(value),
        "format" => {
            rule != "date-time" || value.as_str().is_none_or(|text| text.contains('T') && Utc::parse(text).is_some())
        }
        "minLength" => length.is_none_or(|length| length >= bound()),
        "maxLength" => length.is_none_or(|length| length <= bound()),
        "minItems" => items.is_none_or(|items| items >= bound()),
        "maxItems" => items.is_none_or(|items| items <= bound()),
        "minimum" => value.as_f64().is_none_or(|it| it >= rule.as_f64().expect("a number")),
        "maximum" => value.as_f64().is_none_or(|it| it <= rule.as_f64().expect("a number")),
        "multipleOf" => {
            !value.is_number()
                || (amount(value).expect("a decimal number") % amount(rule).expect("a decimal number")).is_zero()
        }
        "pattern" => value.as_str().is_none_or(|text| matches(rule.as_str().expect("a pattern"), text)),
        "required" => has_all(names(rule)),
        "dependentRequired" => rule
            .as_object()
            .expect("an object")
            .iter()
            .all(|(key, needs)| value.get(key).is_none() || has_all(names(needs))),
        other => panic!("keyword {other} is not known here"),
    }
}

fn is(value: &Value, kind: &Value) -> bool {
    match kind.as_str().expect("a type") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        other => panic!("type {other} is not known here"),
    }
}

/// The few patterns of those schemas.
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
    let decimal = |text: &str, whole, fraction| {
        text.split_once('.')
            .map_or(digits(text, 1, whole), |(before, after)| digits(before, 1, whole) && digits(after, 1, fraction))
    };
    let time_of_day = |text: &str| mask("00:00", text) && text < "24:00" && text.as_bytes().get(3) < Some(&b'6');
    match pattern {
        "^[ -~]+$" => !text.is_empty() && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
        r"^-?[0-9]{1,2}\.[0-9]{5,7}$" => degrees(2),
        r"^-?[0-9]{1,3}\.[0-9]{5,7}$" => degrees(3),
        r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,3})?Z$" => {
            let (seconds, fraction) = text.trim_end_matches('Z').split_once('.').unwrap_or((text, "0"));
            text.ends_with('Z') && mask("0000-00-00T00:00:00", seconds.trim_end_matches('Z')) && digits(fraction, 1, 3)
        }
        "^([0-1][0-9]|2[0-3]):[0-5][0-9]$" => time_of_day(text),
        "^[0-9]{4}-[0-9]{2}-[0-9]{2}$" => mask("0000-00-00", text),
        "^([01][0-9]|2[0-3]):[0-5][0-9]$" => time_of_day(text),
        "^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$" => time_of_day(text) || text == "24:00",
        r"^-?\d+(\.\d+)?$" => decimal(text.strip_prefix('-').unwrap_or(text), usize::MAX, usize::MAX),
        r"^[0-9]{1,7}(\.[0-9]{1,6})?$" => decimal(text, 7, 6),
        r"^(100|[0-9]{1,2})(\.[0-9]{1,6})?$" => decimal(text, 2, 6) || (decimal(text, 3, 6) && text.starts_with("100")),
        "^[A-Z]{3}$" => text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase()),
        "^[A-Za-z0-9]+$" => !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric()),
        "^[a-z0-9-]+$" => !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')),
        r"\S" => !text.trim().is_empty(),
        other => panic!("pattern {other} is not known here"),
    }
}
