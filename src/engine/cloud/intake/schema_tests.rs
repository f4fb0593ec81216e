//! The published schema of commands. The intake is written by hand, and so is `commands.json`; here each is held against the other.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::{MAX_ID, SUPPORTED};
use crate::engine::billing::schema_tests::against;
use crate::engine::cloud::schema_tests::{DIALECT, definition, published};

/// What a schema cannot see: two values that are compared with each other, and the same name twice.
const BEYOND: [&str; 5] = [
    "\"min_a\" must be at most \"max_a\"",
    "less than min_price",
    "stands in the list already",
    "\"part\" must be a whole number from 1 to",
    // Bytes, where a schema counts characters; and characters that are not printable.
    "control characters",
];

fn written() -> Value {
    serde_json::from_str(include_str!("commands.json")).expect("JSON")
}

/// The types of commands with what each does.
pub(in crate::engine::cloud) fn types() -> Vec<(&'static str, String)> {
    let data = &written()["data"];
    let about =
        |kind: &str| data[kind]["description"].as_str().unwrap_or_else(|| panic!("{kind} has no schema")).to_owned();
    SUPPORTED.into_iter().map(|kind| (kind, about(kind))).collect()
}

/// The schema of all commands.
pub(in crate::engine::cloud) fn commands() -> Value {
    let mut written = written();
    let Value::Object(mut definitions) = written["$defs"].take() else { panic!("parts") };
    definitions.insert("Command".to_owned(), envelope());
    let mut all = Vec::new();
    for kind in SUPPORTED {
        let mut data = written["data"][kind].take();
        let about = data.as_object_mut().and_then(|data| data.remove("description"));
        let may_lack = ["required", "oneOf", "allOf"].iter().all(|rule| data.get(*rule).is_none());
        let mut schema = json!({
            "title": kind,
            "description": about,
            "allOf": [{ "$ref": "#/$defs/Command" }],
            "properties": { "type": { "const": kind }, "data": data },
            "unevaluatedProperties": false,
        });
        if may_lack {
            schema["properties"]["data"] = json!({ "anyOf": [data, { "type": "null" }] });
        } else {
            schema["required"] = json!(["data"]);
        }
        let definition = definition(kind, "Command");
        all.push(json!({ "$ref": format!("#/$defs/{definition}") }));
        definitions.insert(definition, schema);
    }
    json!({
        "$schema": DIALECT,
        "title": "siteward-commands/1: a message of P/commands",
        "description": "At most 256 KiB. Unknown keys are refused: a misspelt `until` must not become a limit without an end.",
        "oneOf": all,
        "$defs": definitions,
    })
}

fn envelope() -> Value {
    json!({
        "title": "Command",
        "type": "object",
        "properties": {
            "id": {
                "description": "The sender's name for it, 1 to 128 bytes: a second one with the same id gets the same answer and is not run.",
                "type": "string", "minLength": 1, "maxLength": MAX_ID,
            },
            "type": { "description": "What is asked.", "type": "string" },
            "expires": {
                "description": "From then on it must not be run; left out or null: it always may.",
                "type": ["string", "null"], "format": "date-time",
            },
            "data": { "description": "What this type of command needs." },
        },
        "required": ["id", "type"],
    })
}

static COMMANDS: LazyLock<Value> = LazyLock::new(commands);

/// Holds what the intake said of a command against the schema.
pub(super) fn agrees(payload: &[u8], refusal: Option<&str>) {
    let command: Value = serde_json::from_slice(payload).expect("JSON");
    let found = against(&command, &COMMANDS);
    match refusal {
        None => assert_eq!(found, Vec::<String>::new(), "the intake takes {command}"),
        Some(error) if BEYOND.iter().any(|beyond| error.contains(beyond)) => {}
        Some(error) => assert!(!found.is_empty(), "the schema takes {command}, which the intake refuses: {error}"),
    }
}

#[test]
fn the_schema_of_commands_is_what_is_supported() {
    let written = written();
    let known: Map<String, Value> = written["data"].as_object().cloned().expect("an object");
    let mut supported: Vec<&str> = SUPPORTED.to_vec();
    supported.sort_unstable();
    assert_eq!(known.keys().map(String::as_str).collect::<Vec<_>>(), supported);
    published("siteward-commands-1.schema.json", &commands());
}
