//! Makes the published schemas of events and of the state from the types, and holds what is sent against them.

use std::path::PathBuf;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::data::*;
use super::limits::{LimitEnded, LimitProven, LimitStanding};
use super::messages::Event;
use super::messages::tests::{bodies, messages, record};
use crate::engine::billing::schema_tests::against;
use crate::engine::model::alarm::Alarm;
use crate::engine::model::ids::StationId;
use crate::engine::model::record::RecordBody;
use crate::engine::model::status::{
    ChargerStatus, CircuitStatus, CloudStatus, EvseStatus, InverterStatus, LimitStatus, MeterStatus, QueueStatus,
    SiteStatus, TargetStatus, TransactionStatus,
};
use crate::engine::model::topology::LeaseForm;
use crate::engine::time::Utc;

/// What JSON Schema this is.
pub(super) const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

impl JsonSchema for Utc {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A point in calendar time: RFC 3339 in UTC with milliseconds.",
            "type": "string",
            "format": "date-time",
            "examples": ["2026-03-01T12:00:00.000Z"],
        })
    }
}

/// The type of an event with what may stand under its `data`.
struct Kind {
    name: &'static str,
    about: &'static str,
    data: Vec<Value>,
}

/// A generator of schemas for what is written.
pub(super) fn generator() -> SchemaGenerator {
    SchemaSettings::draft2020_12().for_serialize().into_generator()
}

/// Where a type stands among the definitions.
fn place<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

fn kind(name: &'static str, about: &'static str, data: Vec<Value>) -> Kind {
    Kind { name, about, data }
}

fn kinds(g: &mut SchemaGenerator) -> Vec<Kind> {
    let mut kinds = vec![
        kind("siteward.transaction.started", "A transaction began.", vec![place::<TransactionStarted<'_>>(g)]),
        kind(
            "siteward.transaction.updated",
            "Something about a transaction changed, or it has got its prices.",
            vec![place::<TransactionUpdated<'_>>(g), place::<TransactionPriced<'_>>(g)],
        ),
        kind("siteward.transaction.ended", "A transaction is over.", vec![place::<TransactionEnded<'_>>(g)]),
        kind(
            "siteward.transaction.corrected",
            "A transaction ended otherwise than was said.",
            vec![place::<TransactionCorrected<'_>>(g)],
        ),
        kind("siteward.transaction.signed", "A meter has signed a value.", vec![place::<SignedValueData<'_>>(g)]),
        kind(
            "siteward.cdr.created",
            "A charge detail record: the data is the CDR object of OCPI 2.2.1 itself.",
            vec![json!({ "$ref": "#/$defs/OcpiCdr" })],
        ),
        kind("siteward.cdr.withheld", "A transaction with prices gets no CDR.", vec![place::<CdrWithheld<'_>>(g)]),
        kind("siteward.energy.balanced", "What of the energy is accounted for.", vec![place::<EnergyBalance<'_>>(g)]),
    ];
    kinds.extend(kinds_of_chargers(g));
    kinds.extend(kinds_of_the_site(g));
    kinds
}

fn kinds_of_chargers(g: &mut SchemaGenerator) -> [Kind; 7] {
    [
        kind("siteward.charger.connected", "A charger connected.", vec![place::<ChargerConnected<'_>>(g)]),
        kind(
            "siteward.charger.firmware",
            "A charger booted and said who it is, with its firmware.",
            vec![place::<ChargerFirmware<'_>>(g)],
        ),
        kind("siteward.charger.disconnected", "A charger disconnected.", vec![place::<ChargerDisconnected<'_>>(g)]),
        kind(
            "siteward.charger.status",
            "A connector changed its state, or it is known how a charger falls back.",
            vec![place::<ConnectorState<'_>>(g), place::<FailSafe<'_>>(g), place::<LeaseChosen<'_>>(g)],
        ),
        kind(
            "siteward.charger.fault",
            "A connector is faulted or reports an error.",
            vec![place::<ConnectorState<'_>>(g)],
        ),
        kind(
            "siteward.boost.changed",
            "A connector goes first for a while, or no longer.",
            vec![place::<BoostSet<'_>>(g), place::<BoostEnded<'_>>(g)],
        ),
        kind(
            "siteward.target.changed",
            "A transaction must have some energy by a certain time, or that is over.",
            vec![place::<TargetSet<'_>>(g), place::<TargetEnded<'_>>(g)],
        ),
    ]
}

fn kinds_of_the_site(g: &mut SchemaGenerator) -> [Kind; 7] {
    [
        kind("siteward.alarm.raised", "A condition began.", vec![place::<Alarm>(g)]),
        kind("siteward.alarm.cleared", "A condition ended; the data is that of the alarm.", vec![place::<Alarm>(g)]),
        kind(
            "siteward.limit.changed",
            "A limit from outside began, changed or ended.",
            vec![place::<LimitStanding<'_>>(g), place::<LimitEnded<'_>>(g), place::<CircuitLimit<'_>>(g)],
        ),
        kind("siteward.limit.proven", "What became of a limit.", vec![place::<LimitProven<'_>>(g)]),
        kind(
            "siteward.configuration.changed",
            "The daemon started, or its configuration, its prices or its tokens were changed.",
            vec![place::<ConfigurationChanged<'_>>(g), place::<TariffsReplaced<'_>>(g), place::<TokensChanged<'_>>(g)],
        ),
        kind(
            "siteward.command.executed",
            "A command was carried out or refused.",
            vec![place::<CommandExecuted<'_>>(g)],
        ),
        kind(
            "siteward.store.recovered",
            "A damaged store was set aside and a new one begun.",
            vec![place::<StoreRecovered<'_>>(g)],
        ),
    ]
}

/// What the types and the definitions of events are called: `AlarmRaisedEvent` for `siteward.alarm.raised`.
pub(super) fn definition(kind: &str, what: &str) -> String {
    let words = kind.split('.').filter(|word| *word != "siteward");
    let words = words.map(|word| format!("{}{}", word[..1].to_uppercase(), &word[1..]));
    words.collect::<String>() + what
}

/// The types of events with what each tells.
pub(super) fn types() -> Vec<(&'static str, &'static str)> {
    kinds(&mut generator()).into_iter().map(|kind| (kind.name, kind.about)).collect()
}

/// The schema of all events.
pub(super) fn events() -> Value {
    let mut generator = generator();
    let mut envelope = Event::json_schema(&mut generator).to_value();
    envelope["title"] = json!("Event");
    let kinds = kinds(&mut generator);
    let mut definitions = generator.take_definitions(true);
    definitions.insert("Event".to_owned(), envelope);
    definitions.extend(cdr());
    let mut all = Vec::new();
    for Kind { name, about, data } in kinds {
        let data = if let [one] = &data[..] { one.clone() } else { json!({ "anyOf": data }) };
        let schema = json!({
            "title": name,
            "description": about,
            "allOf": [{ "$ref": "#/$defs/Event" }],
            "properties": { "type": { "const": name }, "data": data },
        });
        let definition = definition(name, "Event");
        all.push(json!({ "$ref": format!("#/$defs/{definition}") }));
        definitions.insert(definition, schema);
    }
    tidy(json!({
        "$schema": DIALECT,
        "title": "siteward-events/1: an event of P/events",
        "description": "Made from the types of the daemon. CloudEvents 1.0 in structured mode; `type` says what stands under `data`. Keys and types may be added: ignore what you do not know.",
        "oneOf": all,
        "$defs": definitions,
    }))
}

/// The schema of the state.
pub(super) fn state() -> Value {
    let mut schema = generator().into_root_schema_for::<SiteStatus>().to_value();
    schema["$schema"] = json!(DIALECT);
    schema["title"] = json!("siteward-state/1: the message of P/state");
    schema["description"] = json!(
        "Made from the types of the daemon. The whole site at a glance: currents in A, power in W, energy in Wh. Keys may be added: ignore what you do not know."
    );
    tidy(schema)
}

/// The schema of the CDR with all its parts, under names of their own.
fn cdr() -> Map<String, Value> {
    let text = include_str!("../../../docs/ocpi-2.2.1-cdr.schema.json").replace("\"#/$defs/", "\"#/$defs/Ocpi");
    let Ok(Value::Object(mut schema)) = serde_json::from_str(&text) else { panic!("an object") };
    let Some(Value::Object(parts)) = schema.remove("$defs") else { panic!("its parts") };
    schema.remove("$schema");
    let parts = parts.into_iter().map(|(name, part)| (format!("Ocpi{name}"), opened(part)));
    parts.chain([("OcpiCdr".to_owned(), opened(Value::Object(schema)))]).collect()
}

/// As the other schemas of events are: open for keys that come later. And without the rule of four decimals, since validators that count
/// in binary fractions find 10.87 to be no multiple of 0.0001.
fn opened(schema: Value) -> Value {
    match schema {
        Value::Object(object) => {
            let kept = object
                .into_iter()
                .filter(|(keyword, _)| !["multipleOf", "additionalProperties"].contains(&keyword.as_str()));
            Value::Object(kept.map(|(keyword, rule)| (keyword, opened(rule))).collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(opened).collect()),
        other => other,
    }
}

/// Descriptions come from comments for programmers: without links to code, and with the words of JSON.
pub(super) fn tidy(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let entries = object.into_iter().map(|(key, value)| match value {
                Value::String(text) if key == "description" => {
                    let text = text.replace("[`", "`").replace("`]", "`").replace("`None`", "null").replace('\n', " ");
                    (key, Value::String(text))
                }
                value => (key, tidy(value)),
            });
            Value::Object(entries.collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(tidy).collect()),
        other => other,
    }
}

/// Compares with a file of the documents; `UPDATE=1` rewrites it.
pub(super) fn published(name: &str, schema: &Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    let actual = format!("{}\n", serde_json::to_string_pretty(schema).unwrap());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(actual == expected, "{} is not what the types say; UPDATE=1 rewrites it", path.display());
}

/// The events that are sent: one of each record, and one that the golden file does not have.
fn samples() -> Vec<Value> {
    let lease = RecordBody::LeaseChosen { charger: StationId::new("CP001"), form: LeaseForm::TwoLevels, proven: true };
    let samples = (1..).zip(bodies().into_iter().chain([lease]));
    samples
        .flat_map(|(sequence, body)| {
            let mut untrusted = record(sequence, body.clone());
            untrusted.stamp.trusted = false;
            [record(sequence, body), untrusted]
        })
        .map(|record| serde_json::from_str(&messages().event(&record).payload).unwrap())
        .collect()
}

#[test]
fn the_schema_of_events_is_what_the_types_say() {
    published("siteward-events-1.schema.json", &events());
}

#[test]
fn the_schema_of_the_state_is_what_the_types_say() {
    published("siteward-state-1.schema.json", &state());
}

#[test]
fn every_event_holds_against_the_schema() {
    let schema = events();
    let mut sent = std::collections::BTreeSet::new();
    for event in samples() {
        assert_eq!(against(&event, &schema), Vec::<String>::new());
        sent.insert(event["type"].as_str().unwrap().to_owned());
    }
    let listed: std::collections::BTreeSet<_> = types().into_iter().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(sent, listed, "the schema lists the types that are sent, and no others");
}

#[test]
fn every_form_of_data_in_the_schema_is_sent() {
    let schema = events();
    let samples = samples();
    for kind in kinds(&mut generator()) {
        for form in kind.data {
            let alone = json!({ "$ref": form["$ref"], "$defs": schema["$defs"] });
            let fits = |event: &&Value| event["type"] == kind.name && against(&event["data"], &alone).is_empty();
            assert!(samples.iter().any(|event| fits(&event)), "no event of type {} has {form}", kind.name);
        }
    }
}

#[test]
fn the_state_holds_against_its_schema_with_everything_and_with_nothing() {
    let amperes = Some([16.0, 0.0, 6.5]);
    let target = TargetStatus { energy_wh: 20_000, source: "car".to_owned(), ..TargetStatus::default() };
    let evse = EvseStatus {
        evse: 1,
        status: Some("Charging".to_owned()),
        offered_a: Some(16.0),
        measured_a: amperes,
        power_w: Some(-5),
        boost_until: Some(Utc::from_unix_ms(0)),
        target: Some(target),
        queue: Some(QueueStatus { position: 1, of: 2, ..QueueStatus::default() }),
        ..EvseStatus::default()
    };
    let charger = ChargerStatus { evses: vec![evse, EvseStatus::default()], ..ChargerStatus::default() };
    let alarms = bodies().into_iter().filter_map(|body| match body {
        RecordBody::AlarmRaised(alarm) => Some(alarm),
        _ => None,
    });
    let status = SiteStatus {
        circuits: vec![CircuitStatus { measured_a: amperes, ..CircuitStatus::default() }, CircuitStatus::default()],
        chargers: vec![charger],
        meters: vec![MeterStatus { current_a: [Some(1.0), None, None], ..MeterStatus::default() }],
        inverters: vec![InverterStatus::default()],
        transactions: vec![TransactionStatus::default()],
        limits: vec![LimitStatus { limit_a: Some(16.0), ttl_s: Some(60), ..LimitStatus::default() }],
        alarms: alarms.collect(),
        cloud: Some(CloudStatus::default()),
        ..SiteStatus::default()
    };
    let schema = state();
    for status in [status, SiteStatus::default()] {
        let mut sent: Value = serde_json::from_str(&messages().state(&status).payload).unwrap();
        assert_eq!(against(&sent, &schema), Vec::<String>::new());
        sent["uptime_ms"] = json!("1");
        assert!(!against(&sent, &schema).is_empty());
    }
}

#[test]
fn an_event_that_is_wrong_does_not_hold() {
    let schema = events();
    let good = || samples().remove(0);
    for (pointer, wrong) in [
        ("/type", json!("siteward.transaction.begun")),
        ("/type", json!("siteward.alarm.raised")),
        ("/specversion", json!("0.3")),
        ("/time", json!("yesterday")),
        ("/sequence", json!(-1)),
        ("/data/evse", json!("1")),
        ("/data/meter_start_wh", json!(0.5)),
        ("/data/token", json!(7)),
    ] {
        let mut event = good();
        *event.pointer_mut(pointer).unwrap() = wrong;
        assert!(!against(&event, &schema).is_empty(), "{pointer}");
    }
    let mut event = good();
    event["data"].as_object_mut().unwrap().remove("evse");
    assert!(!against(&event, &schema).is_empty(), "a key is missing");
    let mut event = good();
    event["data"]["power_w"] = json!(1);
    assert!(!against(&event, &schema).is_empty(), "a key that the schema does not name");
}
