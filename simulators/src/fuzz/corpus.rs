//! Every command of `docs/cloud.md`, in every form that it may have, about what is really there.

use serde_json::{Map, Value, json};
use siteward::engine::time::Utc;

use super::SITE;
use crate::rng::Dice;

/// What commands can be about now.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Running transactions.
    pub(super) open: Vec<String>,
    /// CDRs that were made.
    pub(super) cdrs: Vec<String>,
    /// The last record.
    pub(super) last: u64,
    /// The time.
    pub(super) now: Utc,
}

/// The types of `docs/cloud.md`, as often as they are worth it.
const TYPES: [&str; 35] = [
    "ocpp.call",
    "ocpp.call",
    "ocpp.call",
    "ocpp.call",
    "transaction.start",
    "transaction.start",
    "transaction.stop",
    "limit.set",
    "limit.set",
    "limit.set",
    "limit.set",
    "limit.clear",
    "limit.clear",
    "site.dim",
    "site.dim",
    "delay.clear",
    "charging.boost",
    "charging.boost",
    "charging.boost.clear",
    "charging.target",
    "charging.target",
    "charging.target.clear",
    "cdr.credit",
    "cdr.credit",
    "tariffs.replace",
    "tariffs.replace",
    "configuration.get",
    "configuration.put",
    "charger.approve",
    "log.get",
    "tokens.update",
    "tokens.delete",
    "tokens.replace",
    "events.acknowledge",
    "events.replay",
];
const CHARGERS: [&str; 6] = ["CP1", "CP2", "CP3", "CP4", "CP5", "CP6"];
const CIRCUITS: [&str; 4] = ["grid", "garage", "yard", "cellar"];
pub(super) const TOKENS: [&str; 8] =
    ["ANNA", "BERT", "CARL", "04A2B3C4", "04a2b3c4", "GUEST", "DE-ABC-C12345678-X", "EVE"];

fn word(dice: &mut Dice, from: &[&str]) -> String {
    dice.pick(from).copied().unwrap_or_default().to_owned()
}

/// One of those that exist, mostly.
fn charger(dice: &mut Dice) -> String {
    let known = if dice.chance(950_000) { 5 } else { CHARGERS.len() };
    word(dice, &CHARGERS[..known])
}

fn circuit(dice: &mut Dice) -> String {
    let known = if dice.chance(950_000) { 3 } else { CIRCUITS.len() };
    word(dice, &CIRCUITS[..known])
}

fn transaction(facts: &Facts, dice: &mut Dice) -> String {
    dice.pick(&facts.open).cloned().unwrap_or_else(|| dice.between(1, 40).to_string())
}

/// Some time from now, in s, as text.
fn later(facts: &Facts, dice: &mut Dice, least_s: i64, most_s: i64) -> String {
    let span = u64::try_from(most_s - least_s).unwrap_or(0);
    let after = least_s + i64::try_from(dice.below(span)).unwrap_or(0);
    facts.now.plus_ms(after * 1_000).to_string()
}

/// A command as it should be; `id` names it.
pub(super) fn command(id: &str, facts: &Facts, dice: &mut Dice) -> Value {
    let kind = word(dice, &TYPES);
    let mut command = json!({ "id": id, "type": kind });
    let data = data(&kind, facts, dice);
    if data.as_object().is_some_and(|data| !data.is_empty()) || dice.chance(500_000) {
        command["data"] = data;
    }
    if dice.chance(200_000) {
        command["expires"] = Value::String(later(facts, dice, -20, 600));
    }
    command
}

fn data(kind: &str, facts: &Facts, dice: &mut Dice) -> Value {
    match kind {
        "ocpp.call" => ocpp_call(facts, dice),
        "transaction.start" => {
            json!({ "charger": charger(dice), "connector": dice.between(1, 2), "token": word(dice, &TOKENS) })
        }
        "transaction.stop" => json!({ "transaction": transaction(facts, dice) }),
        "limit.set" => limit(facts, dice),
        "limit.clear" => {
            let mut data = target(dice);
            source(&mut data, dice);
            Value::Object(data)
        }
        "site.dim" => {
            let mut data = json!({ "active": dice.chance(500_000) });
            if dice.chance(300_000) {
                data["until"] = Value::String(later(facts, dice, 1, 600));
            }
            data
        }
        "delay.clear" => json!({ "charger": charger(dice) }),
        "charging.boost" => {
            let mut data = place(facts, dice);
            if dice.chance(500_000) {
                data["minutes"] = dice.between(1, 1_440).into();
            } else {
                data["until"] = Value::String(later(facts, dice, 1, 86_400));
            }
            data
        }
        "charging.boost.clear" | "charging.target.clear" => place(facts, dice),
        "charging.target" => {
            let mut data = place(facts, dice);
            data["energy_wh"] = dice.between(1, 2_000_000).into();
            data["departure"] = Value::String(later(facts, dice, 60, 86_400));
            data
        }
        "cdr.credit" => credit(facts, dice),
        "tariffs.replace" => tariffs(dice),
        "configuration.put" => json!({ "toml": configuration(dice) }),
        "charger.approve" => {
            let mut data = json!({ "charger": charger(dice) });
            if dice.chance(500_000) {
                data["circuit"] = Value::String(circuit(dice));
            }
            data
        }
        "log.get" if dice.chance(500_000) => json!({ "lines": dice.between(1, 500) }),
        "tokens.update" => json!({ "tokens": entries(facts, dice, 1) }),
        "tokens.delete" => json!({ "tokens": [word(dice, &TOKENS)] }),
        "tokens.replace" => token_list(facts, dice),
        "events.acknowledge" => json!({ "sequence": facts.last.saturating_sub(dice.below(20)) }),
        "events.replay" => json!({ "from_sequence": facts.last.saturating_sub(dice.below(200)).max(1) }),
        _ => json!({}),
    }
}

fn target(dice: &mut Dice) -> Map<String, Value> {
    let (key, name) = if dice.chance(700_000) { ("circuit", circuit(dice)) } else { ("charger", charger(dice)) };
    Map::from_iter([(key.to_owned(), Value::String(name))])
}

fn source(data: &mut Map<String, Value>, dice: &mut Dice) {
    if dice.chance(300_000) {
        data.insert("source".to_owned(), Value::String(word(dice, &["ems-1", "grid-operator", "a"])));
    }
}

fn amount(dice: &mut Dice) -> (String, Value) {
    if dice.chance(600_000) {
        let tenths = dice.between(0, 1_000);
        let amperes = format!("{}.{}", tenths / 10, tenths % 10).parse().map_or(Value::Null, Value::Number);
        return ("limit_a".to_owned(), amperes);
    }
    ("limit_w".to_owned(), dice.between(0, 60_000).into())
}

fn limit(facts: &Facts, dice: &mut Dice) -> Value {
    let mut data = target(dice);
    data.extend([amount(dice)]);
    source(&mut data, dice);
    if dice.chance(300_000) {
        data.insert("until".to_owned(), Value::String(later(facts, dice, 1, 600)));
    }
    if dice.chance(300_000) {
        data.insert("ttl_s".to_owned(), dice.between(5, 120).into());
        let fallback = Value::Object(Map::from_iter([amount(dice)]));
        let on_loss = match dice.below(4) {
            0 => json!("hold"),
            1 => json!("release"),
            2 => fallback,
            _ => return Value::Object(data),
        };
        data.insert("on_loss".to_owned(), on_loss);
    }
    Value::Object(data)
}

/// Where a wish is.
fn place(facts: &Facts, dice: &mut Dice) -> Value {
    match dice.below(3) {
        0 => json!({ "charger": charger(dice) }),
        1 => json!({ "charger": charger(dice), "connector": dice.between(1, 2) }),
        _ => json!({ "transaction": transaction(facts, dice) }),
    }
}

fn credit(facts: &Facts, dice: &mut Dice) -> Value {
    let cdr = dice.pick(&facts.cdrs).cloned().unwrap_or_else(|| "fuzz-1".to_owned());
    let mut data = json!({ "cdr_id": cdr, "reason": "the driver complained" });
    if dice.chance(300_000) {
        data["reissue"] = Value::Bool(false);
        return data;
    }
    if dice.chance(300_000) {
        data["meter_stop_wh"] = dice.between(0, 1_000_000).into();
    }
    if dice.chance(300_000) {
        data["ended"] = Value::String(later(facts, dice, -3_600, 60));
    }
    data
}

fn price(dice: &mut Dice) -> Value {
    Value::String(format!("{}.{:02}", dice.below(3), dice.below(100)))
}

fn tariffs(dice: &mut Dice) -> Value {
    let count = match dice.below(8) {
        0 => return json!({ "tariffs": null }),
        1 => 0,
        2 => 3,
        _ => 1,
    };
    let list: Vec<Value> = (0..count).map(|index| tariff(index, dice)).collect();
    json!({ "tariffs": list })
}

fn tariff(index: u64, dice: &mut Dice) -> Value {
    let mut element = json!({ "energy_per_kwh": price(dice) });
    for key in ["time_per_h", "parking_per_h", "start_fee"] {
        if dice.chance(400_000) {
            element[key] = price(dice);
        }
    }
    if dice.chance(400_000) {
        element["from"] = json!("22:00");
        element["to"] = json!("06:00");
        element["weekdays"] = json!(["Sat", "Sun"]);
    }
    let mut tariff = json!({ "id": format!("t{index}"), "currency": "EUR", "elements": [element, { "energy_per_kwh": price(dice) }] });
    if dice.chance(500_000) {
        tariff["vat_percent"] = json!("19");
        tariff["prices_include_vat"] = dice.chance(500_000).into();
    }
    if dice.chance(300_000) {
        tariff["min_price"] = json!("0.50");
        tariff["max_price"] = json!("12");
    }
    if dice.chance(300_000) {
        tariff["groups"] = json!(["staff"]);
        tariff["parking_grace_min"] = dice.below(60).into();
    }
    tariff
}

/// The site's own file with another number or name here and there.
fn configuration(dice: &mut Dice) -> String {
    let changes = [
        ("limit_a = 40", "limit_a = 39"),
        ("limit_a = 40", "limit_a = 41"),
        ("priority", "priority"),
        ("\"0.49\"", "\"0.59\""),
        ("limit_percent = 80", "limit_percent = 70"),
        ("name = \"Fuzzed\"", "name = \"Fuzzed again\""),
        ("fallback_a = 6", "fallback_a = 0"),
        ("[authorization]", "[authorisation]"),
    ];
    let (from, to) = dice.pick(&changes).copied().unwrap_or_default();
    SITE.replacen(from, to, 1)
}

fn entries(facts: &Facts, dice: &mut Dice, least: u64) -> Vec<Value> {
    let first = dice.below(4);
    let names = TOKENS
        .iter()
        .skip(usize::try_from(first).unwrap_or(0))
        .take(usize::try_from(dice.between(least, 3)).unwrap_or(1));
    names.map(|token| entry(token, facts, dice)).collect()
}

fn entry(token: &str, facts: &Facts, dice: &mut Dice) -> Value {
    let mut entry = json!({ "token": token });
    if dice.chance(400_000) {
        entry["status"] = Value::String(word(dice, &["Accepted", "Accepted", "Blocked", "Expired", "Invalid"]));
    }
    if dice.chance(300_000) {
        entry["group"] = json!("staff");
    }
    if dice.chance(200_000) {
        entry["expires"] = Value::String(later(facts, dice, -100, 86_400));
    }
    if dice.chance(300_000) {
        entry["priority"] = dice.between(0, 100).into();
        entry["weight"] = dice.between(1, 1_000).into();
        entry["min_a"] = json!(8);
        entry["max_a"] = json!(16.3);
    }
    if dice.chance(200_000) {
        entry["departure"] = json!("07:00");
        entry["energy_kwh"] = json!(20);
    }
    entry
}

fn token_list(facts: &Facts, dice: &mut Dice) -> Value {
    let mut data = json!({ "tokens": entries(facts, dice, 0) });
    if dice.chance(500_000) {
        let parts = dice.between(1, 3);
        data["list"] = Value::String(word(dice, &["monday", "tuesday"]));
        data["parts"] = parts.into();
        data["part"] = dice.between(1, parts).into();
    }
    data
}

/// A request that somebody sends by hand: harmless ones, and those that would change what a station may draw.
fn ocpp_call(facts: &Facts, dice: &mut Dice) -> Value {
    let limit = json!(dice.between(0, 80));
    let transaction_id = dice.pick(&facts.open).and_then(|id| id.parse::<i64>().ok()).unwrap_or(1);
    let purpose = word(dice, &["TxDefaultProfile", "TxProfile", "ChargePointMaxProfile"]);
    let kind = word(dice, &["Absolute", "Relative", "Recurring"]);
    let period = json!([{ "startPeriod": 0, "limit": limit }]);
    let begin = facts.now.to_string();
    let v16 = json!({ "chargingProfileId": dice.between(1, 300), "stackLevel": dice.below(9), "chargingProfilePurpose": purpose,
        "chargingProfileKind": kind, "chargingSchedule": { "chargingRateUnit": "A", "startSchedule": begin, "chargingSchedulePeriod": period } });
    let v201 = json!({ "id": dice.between(1, 300), "stackLevel": dice.below(9), "chargingProfilePurpose": purpose, "chargingProfileKind": kind,
        "chargingSchedule": [{ "id": 1, "chargingRateUnit": "A", "startSchedule": begin, "chargingSchedulePeriod": period }] });
    let (action, payload) = match dice.below(16) {
        0 => ("GetConfiguration", json!({})),
        1 => ("ChangeConfiguration", json!({ "key": "MeterValueSampleInterval", "value": "10" })),
        2 => ("SetChargingProfile", json!({ "connectorId": dice.below(3), "csChargingProfiles": v16 })),
        3 => ("SetChargingProfile", json!({ "evseId": dice.below(3), "chargingProfile": v201 })),
        4 => ("ClearChargingProfile", json!({})),
        5 => ("ClearChargingProfile", json!({ "id": dice.between(1, 300) })),
        6 => ("TriggerMessage", json!({ "requestedMessage": "StatusNotification" })),
        7 => (
            "RemoteStartTransaction",
            json!({ "connectorId": 1, "idTag": word(dice, &TOKENS), "chargingProfile": v16 }),
        ),
        8 => (
            "RequestStartTransaction",
            json!({ "evseId": 1, "idToken": { "idToken": "ANNA", "type": "Central" }, "remoteStartId": 7, "chargingProfile": v201 }),
        ),
        9 => ("RemoteStopTransaction", json!({ "transactionId": transaction_id })),
        10 => ("ChangeAvailability", json!({ "connectorId": 1, "type": word(dice, &["Inoperative", "Operative"]) })),
        11 => ("GetCompositeSchedule", json!({ "connectorId": 1, "duration": 60 })),
        12 => ("Reset", json!({ "type": "Soft" })),
        13 => (
            "SetVariables",
            json!({ "setVariableData": [{ "attributeValue": "false",
            "component": { "name": "SmartChargingCtrlr" }, "variable": { "name": "Enabled" } }] }),
        ),
        14 => ("ClearCache", json!({})),
        _ => ("DataTransfer", json!({ "vendorId": "com.example", "data": "x" })),
    };
    if payload.as_object().is_some_and(Map::is_empty) && dice.chance(500_000) {
        return json!({ "charger": charger(dice), "action": action });
    }
    json!({ "charger": charger(dice), "action": action, "payload": payload })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use siteward::engine::cloud::intake::read_command;

    use super::*;

    #[test]
    fn every_type_of_the_document_is_made_and_understood() {
        let document = include_str!("../../../docs/cloud.md");
        let table = document.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
        let named: BTreeSet<&str> = table.map(|(kind, _)| kind).filter(|kind| !kind.starts_with("P/")).collect();
        assert_eq!(named, TYPES.iter().copied().collect());
        let facts = Facts { last: 10, now: Utc::from_unix_ms(1_772_366_400_000), ..Facts::default() };
        let mut dice = Dice::new(1);
        for number in 0..5_000 {
            let text = command(&number.to_string(), &facts, &mut dice).to_string();
            if let Err(rejection) = read_command(text.as_bytes()) {
                panic!("{text}: {}", rejection.error);
            }
        }
    }
}
