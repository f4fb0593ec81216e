//! Makes `docs/asyncapi.json` (AsyncAPI 3.0.0): the channels of the site with all messages, their schemas and their delivery.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde_json::{Map, Value, json};

use super::intake::schema_tests as commands;
use super::messages::tests::messages;
use super::messages::{Answer, CLOUD_EVENT, Connection, JSON, Telemetry, connection};
use super::schema_tests::{definition, events, generator, published, state, tidy, types};
use super::telemetry::{Interval, Sample};
use crate::engine::billing::schema_tests::against;
use crate::engine::model::command::CommandOutcome;
use crate::engine::site::io::Carries;
use crate::engine::time::Utc;

/// The version of the interface: the first number counts up with `siteward/v1` of the topics, the second when something is added.
const VERSION: &str = "1.0.0";

/// A channel, and what the site does there.
struct Channel {
    name: &'static str,
    operation: &'static str,
    action: &'static str,
    about: &'static str,
    qos: u8,
    retain: bool,
    content_type: &'static str,
    /// The names of its messages, with what each tells and where its schema is.
    messages: Vec<(String, String, String)>,
}

fn channels() -> [Channel; 6] {
    let message = |name: &str, about: &str, schema: &str| vec![(name.to_owned(), about.to_owned(), schema.to_owned())];
    let of = |types: Vec<(&'static str, String)>, what: &str| {
        types.into_iter().map(|(kind, about)| (kind.to_owned(), about, definition(kind, what))).collect()
    };
    let owned = types().into_iter().map(|(kind, about)| (kind, about.to_owned())).collect();
    let channel = |name, operation, about| Channel {
        name,
        operation,
        action: "send",
        about,
        qos: 1,
        retain: false,
        content_type: JSON,
        messages: Vec::new(),
    };
    [
        Channel {
            retain: true,
            messages: message("connection", "Whether the site is online.", "Connection"),
            ..channel("connection", "sendConnection", "Whether the site is online: retained, and the last will.")
        },
        Channel {
            qos: 0,
            retain: true,
            messages: message("state", "The site at a glance.", "SiteStatus"),
            ..channel("state", "sendState", "The site at a glance: on change, at most once a second, and every 30 s.")
        },
        Channel {
            content_type: CLOUD_EVENT,
            messages: of(owned, "Event"),
            ..channel("events", "sendEvents", "One event each, from the durable journal, at least once and in order.")
        },
        Channel {
            messages: message("interval", "What a meter or a car did in a quarter of an hour.", "Telemetry"),
            ..channel(
                "telemetry",
                "sendTelemetry",
                "A quarter of an hour of a meter or a charging car each, with numbers of their own, at least once. It leaves while no event waits; the oldest are dropped where room is short.",
            )
        },
        Channel {
            action: "receive",
            messages: of(commands::types(), "Command"),
            ..channel("commands", "receiveCommands", "Commands to the site. It subscribes with a clean session.")
        },
        Channel {
            messages: message("answer", "The answer to a command.", "Answer"),
            ..channel(
                "responses",
                "sendAnswers",
                "Answers to commands that name no response topic. Where a command names one, its answer goes there, with its correlation data.",
            )
        },
    ]
}

fn channel(channel: &Channel) -> Value {
    let messages = channel.messages.iter();
    let messages: Map<String, Value> =
        messages.map(|(name, ..)| (name.clone(), json!({ "$ref": format!("#/components/messages/{name}") }))).collect();
    json!({
        "address": format!("{{prefix}}/{{site}}/{}", channel.name),
        "description": channel.about,
        "messages": messages,
        "parameters": {
            "prefix": { "$ref": "#/components/parameters/prefix" },
            "site": { "$ref": "#/components/parameters/site" },
        },
    })
}

fn operation(channel: &Channel) -> Value {
    let name = channel.name;
    let of = |name: &str| json!({ "$ref": format!("#/channels/{name}") });
    let messages = channel.messages.iter();
    let messages: Vec<Value> =
        messages.map(|(message, ..)| json!({ "$ref": format!("#/channels/{name}/messages/{message}") })).collect();
    let mut operation = json!({
        "action": channel.action,
        "channel": of(name),
        "summary": channel.about,
        "messages": messages,
        "bindings": { "mqtt": { "qos": channel.qos, "retain": channel.retain, "bindingVersion": "0.2.0" } },
    });
    if name == "commands" {
        let answer = json!({ "$ref": "#/channels/responses/messages/answer" });
        operation["reply"] = json!({ "channel": of("responses"), "messages": [answer] });
    }
    operation
}

fn asyncapi() -> Value {
    let channels = channels();
    let messages: Map<String, Value> = channels
        .iter()
        .flat_map(|channel| {
            channel.messages.iter().map(|(name, about, schema)| {
                let message = json!({
                    "name": name,
                    "summary": about,
                    "contentType": channel.content_type,
                    "payload": { "$ref": format!("#/components/schemas/{schema}") },
                    "bindings": { "mqtt": { "payloadFormatIndicator": 1, "bindingVersion": "0.2.0" } },
                });
                (name.clone(), message)
            })
        })
        .collect();
    let named = |one: fn(&Channel) -> Value, name: fn(&Channel) -> &'static str| -> Map<String, Value> {
        channels.iter().map(|channel| (name(channel).to_owned(), one(channel))).collect()
    };
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Siteward: the cloud interface",
            "version": VERSION,
            "description": "MQTT 5, seen from the site: it sends events, state and answers, and receives commands. Made from the types of the daemon; docs/cloud.md says what they mean.",
            "license": { "name": "Apache-2.0 OR MIT" },
        },
        "defaultContentType": JSON,
        "channels": named(channel, |channel| channel.name),
        "operations": named(operation, |channel| channel.operation),
        "components": {
            "parameters": {
                "prefix": { "description": "`topic_prefix` of the configuration; it may have several levels.", "default": "siteward/v1" },
                "site": { "description": "The id of the site.", "examples": ["depot-nord"] },
            },
            "messages": messages,
            "schemas": schemas(),
        },
    })
}

/// All schemas, where AsyncAPI has them.
fn schemas() -> Value {
    let mut generator = generator();
    let own = [
        ("Connection", Connection::json_schema(&mut generator)),
        ("Answer", Answer::json_schema(&mut generator)),
        ("Telemetry", Telemetry::json_schema(&mut generator)),
    ];
    let mut own: Map<String, Value> =
        own.into_iter().map(|(name, schema)| (name.to_owned(), schema.to_value())).collect();
    own.extend(generator.take_definitions(true));
    let mut status = state();
    let parts = status["$defs"].take();
    for keyword in ["$schema", "$defs"] {
        status.as_object_mut().unwrap().remove(keyword);
    }
    let status = json!({ "SiteStatus": status });
    let mut all: Map<String, Value> = Map::new();
    let several =
        [tidy(Value::Object(own)), status, parts, events()["$defs"].take(), commands::commands()["$defs"].take()];
    for (name, schema) in several.into_iter().flat_map(|schemas| schemas.as_object().cloned().unwrap()) {
        let before = all.insert(name.clone(), schema.clone());
        assert!(before.is_none_or(|before| before == schema), "two schemas are called {name}");
    }
    let text = Value::Object(all).to_string().replace("\"#/$defs/", "\"#/components/schemas/");
    serde_json::from_str(&text).unwrap()
}

/// All references in a document.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
            object.values().for_each(|value| references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn the_document_is_what_the_code_says() {
    published("asyncapi.json", &asyncapi());
}

#[test]
fn all_references_lead_somewhere_and_every_schema_is_used() {
    let document = asyncapi();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for reference in &found {
        let pointer = reference.strip_prefix('#').expect("a local one");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    for group in ["schemas", "messages"] {
        for name in document["components"][group].as_object().unwrap().keys() {
            assert!(found.contains(&format!("#/components/{group}/{name}")), "nothing uses {group}/{name}");
        }
    }
}

#[test]
fn addresses_and_delivery_are_those_of_what_is_sent() {
    let document = asyncapi();
    let topics = messages().topics().clone();
    let outgoing = [topics.connection(), topics.state(), topics.events(), topics.telemetry()];
    let real: Vec<String> = outgoing.into_iter().chain([topics.commands(), topics.responses()]).collect();
    let addresses: Vec<String> = channels()
        .iter()
        .map(|channel| document["channels"][channel.name]["address"].as_str().unwrap().to_owned())
        .map(|address| address.replace("{prefix}", "siteward/v1").replace("{site}", "depot-nord"))
        .collect();
    assert_eq!(addresses, real);
    let event = messages().event(&super::messages::tests::record(1, super::messages::tests::bodies().remove(0)));
    let sent = [
        ("sendState", "state", messages().state(&Default::default())),
        ("sendEvents", "siteward.transaction.started", event),
        ("sendTelemetry", "interval", messages().telemetry("ring", 1, "{}")),
        ("sendAnswers", "answer", messages().response(String::new(), None, None)),
    ];
    for (operation, message, publication) in sent {
        let binding = &document["operations"][operation]["bindings"]["mqtt"];
        assert_eq!(binding["qos"], u8::from(publication.at_least_once), "{operation}");
        assert_eq!(binding["retain"], publication.retain, "{operation}");
        let content_type = &document["components"]["messages"][message]["contentType"];
        assert_eq!(*content_type, publication.content_type, "{operation}");
    }
}

#[test]
fn connection_and_answers_hold_against_their_schemas() {
    let document = asyncapi();
    let holds = |name: &str, payload: &str| {
        let schema = json!({ "$ref": format!("#/components/schemas/{name}"), "components": document["components"] });
        let schema = Value::Object(schema.as_object().cloned().unwrap());
        against(&serde_json::from_str(payload).unwrap(), &schema)
    };
    let none = Vec::<String>::new();
    assert_eq!(holds("Connection", &connection(false, Utc::from_unix_ms(0), "0.1.0")), none);
    for outcome in [
        CommandOutcome::Accepted { data: Some(r#"{"a":[1]}"#.to_owned()) },
        CommandOutcome::Rejected { error: "no".to_owned() },
        CommandOutcome::Failed { error: "refused".to_owned(), data: Some("no json".to_owned()) },
        CommandOutcome::TimedOut,
        CommandOutcome::NotConnected,
        CommandOutcome::Expired,
    ] {
        assert_eq!(holds("Answer", &super::messages::response(Some("c-1"), &outcome)), none);
        assert_eq!(holds("Answer", &super::messages::response(None, &outcome)), none);
    }
    let interval = Interval { meter: Some("grid".to_owned()), samples: vec![Sample::default()], ..Interval::default() };
    let interval = serde_json::to_string(&interval).unwrap();
    let telemetry = messages().telemetry("3f9c", 7, &interval);
    assert_eq!((telemetry.carries, holds("Telemetry", &telemetry.payload)), (Carries::Interval(7), none));
    assert!(!holds("Telemetry", &messages().telemetry("3f9c", 7, "{}").payload).is_empty());
    assert!(!holds("Answer", r#"{"id":"c-1","status":"done","error":null,"data":null}"#).is_empty());
}
