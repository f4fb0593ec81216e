//! Limits from outside: set, cleared, listed, and what became of them.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Api;
use super::act::{outcome, whole};
use super::problem::Problem;
use super::read::no_charger;
use crate::engine::model::command::Command;
use crate::engine::model::ids::{CircuitId, StationId};
use crate::engine::model::limit::{LimitOrigin, LimitTarget};
use crate::engine::model::status::LimitStatus;
use crate::engine::outside::order;

/// The input of the dimming by this interface.
const LOCAL: &str = "local";

type Body = Result<Bytes, BytesRejection>;

/// Lowers a circuit's limit.
pub(super) async fn set_on_circuit(
    State(api): State<Api>,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    let target = circuit(&api, &id)?;
    set(&api, target, body).await
}

/// Lowers a charger's limit.
pub(super) async fn set_on_charger(
    State(api): State<Api>,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    let target = charger(&api, &id)?;
    set(&api, target, body).await
}

async fn set(api: &Api, target: LimitTarget, body: Body) -> Result<Response, Problem> {
    let example = "expected {\"limit_a\": 40} or {\"limit_a\": 40, \"until\": \"2026-03-01T12:00:00Z\"}";
    let data = object(&whole(body)?, example)?;
    only_known(&data, &order::ORDER_KEYS)?;
    let order = order::read_order(&data, target, LimitOrigin::Local).map_err(|error| Problem::new(400, error))?;
    outcome(api, Command::LimitSet(order)).await
}

/// `?source=NAME`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Source {
    source: Option<String>,
}

type SourceQuery = Result<Query<Source>, QueryRejection>;

/// Ends a limit on a circuit.
pub(super) async fn clear_on_circuit(
    State(api): State<Api>,
    Path(id): Path<String>,
    query: SourceQuery,
) -> Result<Response, Problem> {
    let target = circuit(&api, &id)?;
    clear(&api, target, query).await
}

/// Ends a limit on a charger.
pub(super) async fn clear_on_charger(
    State(api): State<Api>,
    Path(id): Path<String>,
    query: SourceQuery,
) -> Result<Response, Problem> {
    let target = charger(&api, &id)?;
    clear(&api, target, query).await
}

async fn clear(api: &Api, target: LimitTarget, query: SourceQuery) -> Result<Response, Problem> {
    let Query(Source { source }) = query.map_err(|error| {
        Problem::new(400, format!("{}; whose limit it is can be said by ?source=NAME.", error.body_text()))
    })?;
    let data: Map<String, Value> =
        source.into_iter().map(|source| ("source".to_owned(), Value::from(source))).collect();
    let origin = order::read_origin(&data, LimitOrigin::Local).map_err(|error| Problem::new(400, error))?;
    outcome(api, Command::LimitClear { target, origin }).await
}

/// Ends the wait of a charger after a power cut.
pub(super) async fn clear_delay(State(api): State<Api>, Path(id): Path<String>) -> Result<Response, Problem> {
    charger(&api, &id)?;
    outcome(&api, Command::DelayClear { charger: StationId::new(&id) }).await
}

/// Dims the site.
pub(super) async fn dim(State(api): State<Api>, body: Body) -> Result<Response, Problem> {
    let body = whole(body)?;
    let body = if body.trim_ascii().is_empty() { &b"{}"[..] } else { &body[..] };
    let data = object(body, "expected {} or {\"until\": \"2026-03-01T12:00:00Z\"}")?;
    only_known(&data, &["until"])?;
    let until = order::read_until(&data).map_err(|error| Problem::new(400, error))?;
    outcome(&api, Command::Dim { active: true, until, input: LOCAL.to_owned() }).await
}

/// Ends the dimming.
pub(super) async fn undim(State(api): State<Api>) -> Result<Response, Problem> {
    outcome(&api, Command::Dim { active: false, until: None, input: LOCAL.to_owned() }).await
}

/// The limits that stand.
pub(super) async fn standing(State(api): State<Api>) -> Json<Vec<LimitStatus>> {
    Json(api.asker.status().limits.clone())
}

/// What became of the last limits.
pub(super) async fn log(State(api): State<Api>) -> Result<Response, Problem> {
    let log = api.asker.limit_log().await?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], log).into_response())
}

fn object(body: &[u8], example: &str) -> Result<Map<String, Value>, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::new(400, format!("{error}; {example}.")))
}

/// A misspelt `until` must not become a limit without an end.
fn only_known(data: &Map<String, Value>, known: &[&str]) -> Result<(), Problem> {
    match data.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(Problem::new(400, format!("unknown field {key:?}; known are {}.", known.join(", ")))),
        None => Ok(()),
    }
}

fn circuit(api: &Api, id: &str) -> Result<LimitTarget, Problem> {
    let known = api.asker.status().circuits.iter().any(|circuit| circuit.id == id);
    if !known {
        return Err(Problem::new(404, format!("There is no circuit {id:?} in site.toml.")));
    }
    Ok(LimitTarget::Circuit(CircuitId::new(id)))
}

fn charger(api: &Api, id: &str) -> Result<LimitTarget, Problem> {
    let known = api.asker.status().chargers.iter().any(|charger| charger.id == id);
    if known { Ok(LimitTarget::Charger(StationId::new(id))) } else { Err(no_charger(id)) }
}
