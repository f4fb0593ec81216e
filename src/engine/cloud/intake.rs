//! The intake of commands: bytes of `P/commands` become a checked [`Command`] or a refusal that says what would be right.

use serde_json::{Map, Value};

use crate::engine::model::command::Command;
use crate::engine::model::errand::Errand;
use crate::engine::model::ids::{IdToken, Sequence, StationId, TransactionId};
use crate::engine::model::limit::LimitOrigin;
use crate::engine::outside::order;
use crate::engine::time::Utc;

mod bills;
mod errands;
mod tariffs;
pub mod tokens;
mod wishes;

/// The largest command that is read, in bytes: the configuration of a site with 200 chargers, and well above what stations take.
pub const MAX_BYTES: usize = 256 * 1024;
/// The longest `id`, in bytes: it is kept with every executed command.
const MAX_ID: usize = 128;
/// The longest name of a charger, circuit, token or transaction, in bytes (OCPP 2.0.1 allows 255 at most for an IdToken).
const MAX_NAME: usize = 255;
/// The longest part of a wrong input that a message repeats, in characters.
const MAX_QUOTED: usize = 60;

const KEYS: [&str; 4] = ["id", "type", "expires", "data"];
const SUPPORTED: [&str; 22] = [
    "ocpp.call",
    "transaction.start",
    "transaction.stop",
    "limit.set",
    "limit.clear",
    "site.dim",
    "delay.clear",
    "charging.boost",
    "charging.boost.clear",
    "charging.target",
    "charging.target.clear",
    "cdr.credit",
    "tokens.replace",
    "tokens.update",
    "tokens.delete",
    "tariffs.replace",
    "configuration.get",
    "configuration.put",
    "charger.approve",
    "log.get",
    "events.acknowledge",
    "events.replay",
];

/// A command that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Intake {
    /// The sender's name for it: a second one with the same id gets the same answer and is not run.
    pub id: String,
    /// From then on it must not be run.
    pub expires: Option<Utc>,
    /// What is asked.
    pub command: Command,
}

/// A command that was not understood; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The sender's name for it, if it could be read.
    pub id: Option<String>,
    /// What is wrong, and what would be right.
    pub error: String,
}

/// Reads a message of the command topic.
///
/// # Errors
/// If it is not a command of this version, with a sentence for the sender.
pub fn read_command(payload: &[u8]) -> Result<Intake, Rejection> {
    let object = read_object(payload).map_err(|error| Rejection { id: None, error })?;
    let id = read_id(&object).map_err(|error| Rejection { id: None, error })?;
    match read_body(&object) {
        Ok((expires, command)) => Ok(Intake { id, expires, command }),
        Err(error) => Err(Rejection { id: Some(id), error }),
    }
}

/// The contract's name for a command's type, for the record of it.
#[must_use]
pub const fn kind(command: &Command) -> &'static str {
    match command {
        Command::OcppCall { .. } => "ocpp.call",
        Command::TransactionStart { .. } => "transaction.start",
        Command::TransactionStop { .. } => "transaction.stop",
        Command::LimitSet(_) => "limit.set",
        Command::LimitClear { .. } => "limit.clear",
        Command::Commission { .. } => "commission",
        Command::CommissionStop { .. } => "commission.stop",
        Command::Dim { .. } => "site.dim",
        Command::DelayClear { .. } => "delay.clear",
        Command::Boost { .. } => "charging.boost",
        Command::BoostClear { .. } => "charging.boost.clear",
        Command::Target { .. } => "charging.target",
        Command::TargetClear { .. } => "charging.target.clear",
        Command::CdrCredit { .. } => "cdr.credit",
        Command::TariffsReplace { .. } => "tariffs.replace",
        Command::Errand(Errand::Configuration) => "configuration.get",
        Command::Errand(Errand::PutConfiguration { .. }) => "configuration.put",
        Command::Errand(Errand::Approve { .. }) => "charger.approve",
        Command::Errand(Errand::Log { .. }) => "log.get",
        Command::Tokens(order) => tokens::kind(order),
        Command::EventsAcknowledge { .. } => "events.acknowledge",
        Command::EventsReplay { .. } => "events.replay",
    }
}

fn read_object(payload: &[u8]) -> Result<Map<String, Value>, String> {
    if payload.len() > MAX_BYTES {
        return Err(format!("the command has {} bytes; at most {MAX_BYTES} are read", payload.len()));
    }
    match serde_json::from_slice(payload) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(format!("a command is a JSON object with {}, not {}", list(&KEYS), name_of(&other))),
        Err(error) => Err(format!("not JSON: {error}; a command is a JSON object with {}", list(&KEYS))),
    }
}

fn read_id(object: &Map<String, Value>) -> Result<String, String> {
    let right = format!("\"id\" must be a string of 1 to {MAX_ID} bytes that names this command");
    match object.get("id") {
        Some(Value::String(id)) if !id.is_empty() && id.len() <= MAX_ID && !id.chars().any(char::is_control) => {
            Ok(id.clone())
        }
        Some(Value::String(id)) => Err(format!("{right}; this one has {} bytes or control characters", id.len())),
        Some(other) => Err(format!("{right}, not {}", name_of(other))),
        None => Err(format!("{right}; it is missing")),
    }
}

fn read_body(object: &Map<String, Value>) -> Result<(Option<Utc>, Command), String> {
    only_known(object, &KEYS, "the command")?;
    let kind = match object.get("type") {
        Some(Value::String(kind)) => kind.as_str(),
        Some(other) => return Err(format!("\"type\" must be a string, not {}", name_of(other))),
        None => return Err(format!("\"type\" is missing; it must be one of {}", list(&SUPPORTED))),
    };
    if !SUPPORTED.contains(&kind) {
        return Err(unknown("type", kind, &SUPPORTED));
    }
    let expires = read_time(object, "expires")?;
    let nothing = Map::new();
    let data = match object.get("data") {
        Some(Value::Object(data)) => data,
        None | Some(Value::Null) => &nothing,
        Some(other) => return Err(format!("\"data\" must be an object, not {}", name_of(other))),
    };
    Ok((expires, command(kind, data)?))
}

fn command(kind: &str, data: &Map<String, Value>) -> Result<Command, String> {
    let place = format!("the data of {kind}");
    match kind {
        "ocpp.call" => {
            only_known(data, &["charger", "action", "payload"], &place)?;
            ocpp_call(data)
        }
        "transaction.start" => {
            only_known(data, &["charger", "connector", "token"], &place)?;
            let charger = StationId::new(name(data, "charger")?);
            let connector = number(data, "connector", 1, u64::from(u32::MAX))?;
            let connector = u32::try_from(connector).map_err(|error| error.to_string())?;
            Ok(Command::TransactionStart { charger, connector, token: IdToken::new(name(data, "token")?) })
        }
        "transaction.stop" => {
            only_known(data, &["transaction"], &place)?;
            Ok(Command::TransactionStop { transaction: TransactionId::new(name(data, "transaction")?) })
        }
        "limit.set" => {
            only_known(data, &[&["circuit", "charger"], &order::ORDER_KEYS[..]].concat(), &place)?;
            let target = order::read_target(data)?;
            Ok(Command::LimitSet(order::read_order(data, target, LimitOrigin::Cloud)?))
        }
        "limit.clear" => {
            only_known(data, &["circuit", "charger", "source"], &place)?;
            let target = order::read_target(data)?;
            Ok(Command::LimitClear { target, origin: order::read_origin(data, LimitOrigin::Cloud)? })
        }
        "site.dim" => {
            only_known(data, &["active", "until"], &place)?;
            let active = match data.get("active") {
                Some(Value::Bool(active)) => *active,
                Some(other) => return Err(format!("\"active\" must be true or false, not {}", name_of(other))),
                None => return Err("\"active\" is missing; it must be true or false".to_owned()),
            };
            Ok(Command::Dim { active, until: read_time(data, "until")?, input: "cloud".to_owned() })
        }
        "delay.clear" => {
            only_known(data, &["charger"], &place)?;
            Ok(Command::DelayClear { charger: StationId::new(name(data, "charger")?) })
        }
        "charging.boost" => wishes::boost(data, &place),
        "charging.boost.clear" => wishes::boost_clear(data, &place),
        "charging.target" => wishes::target(data, &place),
        "charging.target.clear" => wishes::target_clear(data, &place),
        "cdr.credit" => bills::credit(data, &place),
        "tariffs.replace" => tariffs::replace(data, &place),
        "configuration.get" => errands::configuration(data, &place),
        "configuration.put" => errands::put_configuration(data, &place),
        "charger.approve" => errands::approve(data, &place),
        "log.get" => errands::log(data, &place),
        "tokens.replace" => tokens::replace(data, &place),
        "tokens.update" => tokens::update(data, &place),
        "tokens.delete" => tokens::delete(data, &place),
        "events.acknowledge" => {
            only_known(data, &["sequence", "store_id"], &place)?;
            let store_id = data.contains_key("store_id").then(|| name(data, "store_id")).transpose()?;
            let sequence = Sequence(number(data, "sequence", 0, u64::MAX - 1)?);
            Ok(Command::EventsAcknowledge { sequence, store_id: store_id.map(str::to_owned) })
        }
        "events.replay" => {
            only_known(data, &["from_sequence"], &place)?;
            Ok(Command::EventsReplay { from: Sequence(number(data, "from_sequence", 1, u64::MAX - 1)?) })
        }
        other => Err(unknown("type", other, &SUPPORTED)),
    }
}

fn ocpp_call(data: &Map<String, Value>) -> Result<Command, String> {
    let charger = StationId::new(name(data, "charger")?);
    let action = name(data, "action")?.to_owned();
    if !action.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(format!("\"action\" {} is not the name of an OCPP action", quoted(&action)));
    }
    match data.get("payload") {
        Some(payload @ Value::Object(_)) => Ok(Command::OcppCall { charger, action, payload: payload.to_string() }),
        None => Ok(Command::OcppCall { charger, action, payload: "{}".to_owned() }),
        Some(other) => Err(format!("\"payload\" must be an object, not {}", name_of(other))),
    }
}

fn name<'a>(data: &'a Map<String, Value>, key: &str) -> Result<&'a str, String> {
    match data.get(key) {
        Some(Value::String(text))
            if !text.is_empty() && text.len() <= MAX_NAME && !text.chars().any(char::is_control) =>
        {
            Ok(text)
        }
        Some(Value::String(_)) => Err(format!("\"{key}\" must have 1 to {MAX_NAME} bytes and no control characters")),
        Some(other) => Err(format!("\"{key}\" must be a string, not {}", name_of(other))),
        None => Err(format!("\"{key}\" is missing; it must be a string")),
    }
}

fn number(data: &Map<String, Value>, key: &str, least: u64, most: u64) -> Result<u64, String> {
    let value = data.get(key).ok_or_else(|| format!("\"{key}\" is missing; it must be a whole number from {least}"))?;
    match value.as_u64() {
        Some(number) if (least..=most).contains(&number) => Ok(number),
        Some(_) | None => Err(format!("\"{key}\" must be a whole number from {least} to {most}")),
    }
}

fn read_time(object: &Map<String, Value>, key: &str) -> Result<Option<Utc>, String> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => match Utc::parse(text) {
            Some(time) => Ok(Some(time)),
            None => Err(format!("\"{key}\" {} is not a time; write it like \"2026-03-01T12:00:00Z\"", quoted(text))),
        },
        Some(other) => Err(format!("\"{key}\" must be a time like \"2026-03-01T12:00:00Z\", not {}", name_of(other))),
    }
}

/// A key that nobody reads is refused: a misspelt `until` must not become a limit without an end.
fn only_known(object: &Map<String, Value>, known: &[&str], place: &str) -> Result<(), String> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!("{} in {place}", unknown("key", key, known))),
        None => Ok(()),
    }
}

fn unknown(what: &str, given: &str, known: &[&str]) -> String {
    let distance = |name: &&&str| strsim::damerau_levenshtein(&quoted(given), &quoted(name));
    let nearest = known.iter().min_by_key(distance).filter(|name| distance(name) <= 1 + name.len() / 3);
    match nearest {
        Some(nearest) => format!("unknown {what} {}; did you mean \"{nearest}\"?", quoted(given)),
        None => format!("unknown {what} {}; known are {}", quoted(given), list(known)),
    }
}

fn quoted(text: &str) -> String {
    let short: String = text.chars().take(MAX_QUOTED).collect();
    format!("{short:?}")
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

const fn name_of(value: &Value) -> &'static str {
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
pub(super) mod schema_tests;
#[cfg(test)]
#[path = "intake_tests.rs"]
mod tests;
