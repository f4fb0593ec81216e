//! Orders as JSON, from the cloud and on site alike: `{"limit_a": 40, "until": "…", "ttl_s": 60, "on_loss": "hold"}`.

use serde_json::{Map, Value};

use crate::engine::model::ids::{CircuitId, StationId};
use crate::engine::model::limit::{Heartbeat, LimitAmount, LimitOrder, LimitOrigin, LimitTarget, OnLoss};
use crate::engine::time::Utc;
use crate::engine::units::{Current, Power};

/// The keys of an order beside its target.
pub const ORDER_KEYS: [&str; 6] = ["limit_a", "limit_w", "until", "source", "ttl_s", "on_loss"];

/// The highest limit that is believed to be meant, in A.
const MAX_LIMIT_A: f64 = 100_000.0;
/// The same in W.
const MAX_LIMIT_W: f64 = 100_000_000.0;
/// A heartbeat that is expected more often than this would be lost with every delay of the network.
const MIN_TTL_S: u64 = 5;
/// A sender that renews less than once a day has no heartbeat.
const MAX_TTL_S: u64 = 86_400;
/// The longest name of a charger or a circuit, in bytes.
const MAX_NAME: usize = 255;

/// What an order is on: `circuit` or `charger` of `data`.
///
/// # Errors
/// With a sentence for the sender, unless exactly one of them is a name.
pub fn read_target(data: &Map<String, Value>) -> Result<LimitTarget, String> {
    match (data.get("circuit"), data.get("charger")) {
        (Some(_), Some(_)) => Err("give \"circuit\" or \"charger\", not both".to_owned()),
        (None, None) => Err("\"circuit\" or \"charger\" is missing; it must be a string".to_owned()),
        (Some(circuit), None) => Ok(LimitTarget::Circuit(CircuitId::new(name(circuit, "circuit")?))),
        (None, Some(charger)) => Ok(LimitTarget::Charger(StationId::new(name(charger, "charger")?))),
    }
}

fn name<'a>(value: &'a Value, key: &str) -> Result<&'a str, String> {
    let good = |text: &&str| !text.is_empty() && text.len() <= MAX_NAME && !text.chars().any(char::is_control);
    value
        .as_str()
        .filter(good)
        .ok_or_else(|| format!("\"{key}\" must be a string of 1 to {MAX_NAME} bytes without control characters"))
}

/// Who orders: the `source` of `data`, or else `channel`.
///
/// # Errors
/// If the name is not 1 to 32 characters out of `a-z`, `0-9` and `-`.
pub fn read_origin(data: &Map<String, Value>, channel: LimitOrigin) -> Result<LimitOrigin, String> {
    let right = "\"source\" must be 1 to 32 characters out of a-z, 0-9 and -: the name of the sender";
    let plain = |text: &&str| {
        (1..=32).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    match data.get("source") {
        None | Some(Value::Null) => Ok(channel),
        Some(source) => match source.as_str().filter(plain) {
            Some("cloud" | "local") => Err("\"source\" cannot be \"cloud\" or \"local\": leave it out".to_owned()),
            Some(name) => Ok(LimitOrigin::Named(name.to_owned())),
            None => Err(right.to_owned()),
        },
    }
}

/// A whole order on `target`.
///
/// # Errors
/// With a sentence for the sender that says what would be right.
pub fn read_order(data: &Map<String, Value>, target: LimitTarget, channel: LimitOrigin) -> Result<LimitOrder, String> {
    let origin = read_origin(data, channel)?;
    let amount = read_amount(data)?;
    Ok(LimitOrder { target, origin, amount, until: read_until(data)?, heartbeat: read_heartbeat(data)? })
}

fn read_amount(data: &Map<String, Value>) -> Result<LimitAmount, String> {
    match (data.get("limit_a"), data.get("limit_w")) {
        (Some(_), Some(_)) => Err("give \"limit_a\" or \"limit_w\", not both".to_owned()),
        (Some(amperes), None) => Ok(LimitAmount::PerPhase(read_amperes(amperes)?)),
        (None, Some(watts)) => Ok(LimitAmount::Total(read_watts(watts)?)),
        (None, None) => {
            Err("\"limit_a\" is missing; it is the limit on each phase in amperes (or \"limit_w\", the limit \
                             on all phases together in watts)"
                .to_owned())
        }
    }
}

/// Rounds down to a mA, towards less current. A millionth of a mA of tolerance keeps 16.3 from becoming 16.299.
fn read_amperes(value: &Value) -> Result<Current, String> {
    let Some(number) = number(value) else {
        return Err(format!("\"limit_a\" must be a number of amperes, not {}", kind_of(value)));
    };
    let ma = (number * 1_000.0 + 1e-6).floor();
    let right = (0.0..=MAX_LIMIT_A).contains(&number).then(|| format!("{ma:.0}").parse().ok()).flatten();
    right.map(Current::from_ma).ok_or_else(|| format!("\"limit_a\" must be from 0 to {MAX_LIMIT_A} amperes"))
}

/// Rounds down to a W, towards less power.
fn read_watts(value: &Value) -> Result<Power, String> {
    let Some(number) = number(value) else {
        return Err(format!("\"limit_w\" must be a number of watts, not {}", kind_of(value)));
    };
    let watts = (number + 1e-6).floor();
    let right = (0.0..=MAX_LIMIT_W).contains(&number).then(|| format!("{watts:.0}").parse().ok()).flatten();
    right.map(Power::from_w).ok_or_else(|| format!("\"limit_w\" must be from 0 to {MAX_LIMIT_W} watts"))
}

fn number(value: &Value) -> Option<f64> {
    value.as_number().and_then(serde_json::Number::as_f64)
}

/// The `until` of `data`.
///
/// # Errors
/// If it is not a time.
pub fn read_until(data: &Map<String, Value>) -> Result<Option<Utc>, String> {
    match data.get("until") {
        None | Some(Value::Null) => Ok(None),
        Some(until) => match until.as_str().and_then(Utc::parse) {
            Some(until) => Ok(Some(until)),
            None => Err("\"until\" must be a time like \"2026-03-01T12:00:00Z\"".to_owned()),
        },
    }
}

fn read_heartbeat(data: &Map<String, Value>) -> Result<Option<Heartbeat>, String> {
    let on_loss = match data.get("on_loss") {
        None | Some(Value::Null) => None,
        Some(Value::String(word)) if word == "hold" => Some(OnLoss::Hold),
        Some(Value::String(word)) if word == "release" => Some(OnLoss::Release),
        Some(Value::Object(fallback)) => {
            if let Some(key) = fallback.keys().find(|key| !["limit_a", "limit_w"].contains(&key.as_str())) {
                return Err(format!("unknown key {key:?} in \"on_loss\"; known are \"limit_a\" and \"limit_w\""));
            }
            Some(OnLoss::Fallback(read_amount(fallback).map_err(|error| format!("\"on_loss\": {error}"))?))
        }
        Some(_) => {
            return Err("\"on_loss\" must be \"hold\", \"release\" or a limit such as {\"limit_a\": 10}".to_owned());
        }
    };
    let ttl_s =
        match data.get("ttl_s") {
            None | Some(Value::Null) => None,
            Some(ttl) => Some(ttl.as_u64().filter(|ttl| (MIN_TTL_S..=MAX_TTL_S).contains(ttl)).ok_or_else(|| {
                format!("\"ttl_s\" must be a whole number of seconds from {MIN_TTL_S} to {MAX_TTL_S}")
            })?),
        };
    match (ttl_s, on_loss) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err("\"on_loss\" needs \"ttl_s\": how long after the last renewal it holds".to_owned()),
        (Some(ttl_s), on_loss) => {
            Ok(Some(Heartbeat { ttl_ms: ttl_s * 1_000, on_loss: on_loss.unwrap_or(OnLoss::Hold) }))
        }
    }
}

const fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(data: &Value) -> Result<LimitOrder, String> {
        let data = data.as_object().unwrap();
        read_order(data, read_target(data)?, LimitOrigin::Cloud)
    }

    #[test]
    fn an_order_with_everything() {
        let order = json!({ "circuit": "garage", "limit_w": 4200.9, "until": "2026-03-01T12:00:00Z", "source": "ems-1",
            "ttl_s": 60, "on_loss": { "limit_a": 6 } });
        assert_eq!(
            read(&order),
            Ok(LimitOrder {
                target: LimitTarget::Circuit(CircuitId::new("garage")),
                origin: LimitOrigin::Named("ems-1".to_owned()),
                amount: LimitAmount::Total(Power::from_w(4_200)),
                until: Some(Utc::from_unix_ms(1_772_366_400_000)),
                heartbeat: Some(Heartbeat {
                    ttl_ms: 60_000,
                    on_loss: OnLoss::Fallback(LimitAmount::PerPhase(Current::from_a(6)))
                }),
            })
        );
        let least = read(&json!({ "charger": "CP001", "limit_a": 16.3, "until": null })).unwrap();
        assert_eq!(least.target, LimitTarget::Charger(StationId::new("CP001")));
        assert_eq!((least.amount, least.until), (LimitAmount::PerPhase(Current::from_ma(16_300)), None));
        assert_eq!((least.origin, least.heartbeat), (LimitOrigin::Cloud, None));
    }

    #[test]
    fn a_refusal_says_what_would_be_right() {
        for (data, expected) in [
            (json!({ "limit_a": 6 }), "\"circuit\" or \"charger\" is missing"),
            (json!({ "circuit": "a", "charger": "b", "limit_a": 6 }), "not both"),
            (json!({ "circuit": "" , "limit_a": 6 }), "1 to 255 bytes"),
            (json!({ "circuit": "a" }), "\"limit_a\" is missing"),
            (json!({ "circuit": "a", "limit_a": 6, "limit_w": 6 }), "not both"),
            (json!({ "circuit": "a", "limit_a": -1 }), "from 0 to"),
            (json!({ "circuit": "a", "limit_a": 1e300 }), "from 0 to"),
            (json!({ "circuit": "a", "limit_w": "6" }), "not a string"),
            (json!({ "circuit": "a", "limit_a": 6, "until": "tomorrow" }), "2026-03-01T12:00:00Z"),
            (json!({ "circuit": "a", "limit_a": 6, "ttl_s": 1 }), "from 5 to 86400"),
            (json!({ "circuit": "a", "limit_a": 6, "on_loss": "hold" }), "needs \"ttl_s\""),
            (
                json!({ "circuit": "a", "limit_a": 6, "ttl_s": 9, "on_loss": "drop" }),
                "\"hold\", \"release\" or a limit",
            ),
            (json!({ "circuit": "a", "limit_a": 6, "ttl_s": 9, "on_loss": {} }), "\"on_loss\": \"limit_a\" is missing"),
            (json!({ "circuit": "a", "limit_a": 6, "source": "My EMS" }), "a-z, 0-9 and -"),
            (json!({ "circuit": "a", "limit_a": 6, "source": "cloud" }), "leave it out"),
        ] {
            let error = read(&data).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn amperes_round_towards_less() {
        let read = |value: f64| read_amperes(&json!(value)).ok();
        assert_eq!(read(16.3), Some(Current::from_ma(16_300)));
        assert_eq!(read(4.35), Some(Current::from_ma(4_350)));
        assert_eq!(read(0.0), Some(Current::ZERO));
        assert_eq!(read(16.099_9), Some(Current::from_ma(16_099)));
        assert_eq!(read(-0.001), None);
        assert_eq!(read(1e30), None);
    }

    proptest! {
        #[test]
        fn amounts_round_towards_less(value in 0.0_f64..100_000.0) {
            let current = read_amperes(&json!(value)).unwrap();
            prop_assert!(current.as_a() <= value + 1e-6 && current.as_a() > value - 0.001_001);
        }
    }
}
