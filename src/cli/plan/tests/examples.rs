//! The examples of `docs/planner.md` against the command and against the schemas.

use serde_json::Value;

use super::answers;

const DOCUMENT: &str = include_str!("../../../../docs/planner.md");
const SITE_SCHEMA: &str = include_str!("../../../../docs/siteward-plan-1.schema.json");
const EDGE_SCHEMA: &str = include_str!("../../../../docs/edge-planner-1.schema.json");

/// The document's blocks of JSON: questions and answers in turn.
fn blocks() -> Vec<&'static str> {
    DOCUMENT.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// What is wrong with a value, by the words of JSON Schema that our schemas use.
fn wrong(schema: &Value, value: &Value) -> Option<String> {
    let number = |key: &str| schema[key].as_f64();
    if let Some(all) = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array()) {
        let reasons: Vec<_> = all.iter().map(|one| wrong(one, value)).collect();
        return (!reasons.contains(&None)).then(|| format!("fits none: {reasons:?}"));
    }
    if schema.get("const").is_some_and(|one| one != value)
        || schema["enum"].as_array().is_some_and(|all| !all.contains(value))
    {
        return Some(format!("{value} is not {schema}"));
    }
    let is = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        Some(other) => panic!("the schema uses {other}"),
        None => true,
    };
    let within = value.as_f64().is_none_or(|it| {
        number("minimum").is_none_or(|least| it >= least) && number("maximum").is_none_or(|most| it <= most)
    });
    if !is || !within {
        return Some(format!("{value} is not {schema}"));
    }
    if let Some(items) = value.as_array() {
        let fits = schema["minItems"].as_u64().is_none_or(|least| items.len() as u64 >= least)
            && schema["maxItems"].as_u64().is_none_or(|most| items.len() as u64 <= most);
        return if fits {
            items.iter().find_map(|item| wrong(&schema["items"], item))
        } else {
            Some(format!("{value}: length"))
        };
    }
    let fields = value.as_object()?;
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    if let Some(missing) = required.into_iter().find(|key| !fields.contains_key(*key)) {
        return Some(format!("{missing} is missing"));
    }
    fields.iter().find_map(|(key, field)| match (schema["properties"].get(key), schema.get("additionalProperties")) {
        (Some(known), _) => wrong(known, field).map(|why| format!("{key}: {why}")),
        (None, Some(Value::Bool(false))) => Some(format!("{key} is not known")),
        (None, Some(other)) => wrong(other, field),
        (None, None) => None,
    })
}

/// Whether everything that is expected is there; numbers are compared as numbers.
fn covers(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            expected.iter().all(|(key, value)| found.get(key).is_some_and(|it| covers(it, value)))
        }
        (Value::Array(found), Value::Array(expected)) => {
            found.len() == expected.len() && found.iter().zip(expected).all(|(it, value)| covers(it, value))
        }
        (Value::Number(found), Value::Number(expected)) => found.as_f64() == expected.as_f64(),
        (found, expected) => found == expected,
    }
}

#[test]
fn the_document_says_what_the_command_answers() {
    let blocks = blocks();
    assert_eq!(blocks.len(), 4);
    for pair in blocks.chunks(2) {
        let said = answers(pair[0]);
        assert_eq!(said.len(), pair[1].lines().count(), "{said:?}");
        for (found, expected) in said.iter().zip(pair[1].lines()) {
            assert!(covers(found, &json(expected)), "found {found}\nexpected {expected}");
        }
    }
}

#[test]
fn questions_and_answers_fit_their_schema() {
    for (pair, schema) in blocks().chunks(2).zip([SITE_SCHEMA, EDGE_SCHEMA]) {
        let schema = json(schema);
        let mut lines: Vec<Value> = pair[0].lines().map(json).collect();
        lines.extend(answers(pair[0]));
        lines.extend(answers("{}\n"));
        for line in lines {
            assert_eq!(wrong(&schema, &line), None, "{line}");
        }
    }
}

#[test]
fn the_schemas_refuse_what_the_command_refuses() {
    let schema = json(SITE_SCHEMA);
    let site = blocks()[0].lines().next().expect("a site");
    for bad in [
        site.replace("\"unknown\"", "\"L4\""),
        site.replace("[40,40,40]", "[40,40]"),
        site.replace("\"voltage_v\":230,", ""),
        site.replace("\"max_a\":16", "\"max_a\":16,\"maximum\":16"),
    ] {
        assert!(wrong(&schema, &json(&bad)).is_some(), "{bad}");
        assert_eq!(answers(&bad)[0]["type"], "error", "{bad}");
    }
}
