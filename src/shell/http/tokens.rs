//! Who may charge: the tokens that the site knows.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Api;
use super::act::{answer, carried_out, whole};
use super::problem::Problem;
use crate::engine::cloud::intake::tokens::read_entry;
use crate::engine::model::command::{Command, CommandOutcome};
use crate::engine::model::ids::IdToken;
use crate::engine::model::token::TokensOrder;

/// A page that is quick to make; the owner of the site makes it between two control cycles.
const DEFAULT_TOKENS: usize = 1_000;
const MAX_TOKENS: usize = 10_000;

/// `?after=TOKEN&limit=N`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    #[serde(default)]
    after: String,
    limit: Option<usize>,
}

/// A page of the tokens, in the order of their names.
pub(super) async fn page(
    State(api): State<Api>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(PageQuery { after, limit }) = query.map_err(|error| {
        Problem::new(400, format!("{}; a page is asked for by ?after=04A2B3C4&limit=1000.", error.body_text()))
    })?;
    let page = api.asker.tokens(after, limit.unwrap_or(DEFAULT_TOKENS).clamp(1, MAX_TOKENS)).await?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], page).into_response())
}

/// Sets what is known of a token, in place of what was.
pub(super) async fn set(
    State(api): State<Api>,
    Path(token): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = whole(body)?;
    let body = if body.trim_ascii().is_empty() { &b"{}"[..] } else { &body[..] };
    let mut entry: Map<String, Value> = serde_json::from_slice(body).map_err(|error| {
        Problem::new(400, format!("{error}; expected {{\"status\": \"Accepted\", \"group\": \"staff\"}}."))
    })?;
    if entry.insert("token".to_owned(), Value::from(token)).is_some() {
        return Err(Problem::new(400, "\"token\" has no place here: the address says which token."));
    }
    let entry = read_entry(&entry).map_err(|error| Problem::new(400, error))?;
    done(carried_out(&api, Command::Tokens(TokensOrder::Update { entries: vec![entry] })).await?)
}

/// Takes out what came by command about a token.
pub(super) async fn delete(State(api): State<Api>, Path(token): Path<String>) -> Result<Response, Problem> {
    let order = TokensOrder::Delete { tokens: vec![IdToken::new(&token)] };
    let outcome = carried_out(&api, Command::Tokens(order)).await?;
    if let CommandOutcome::Accepted { data: Some(data) } = &outcome
        && is_unknown(data)
    {
        return Err(Problem::new(404, format!("Token {token:?} is not known.")));
    }
    done(outcome)
}

fn is_unknown(data: &str) -> bool {
    let data: Option<Value> = serde_json::from_str(data).ok();
    data.as_ref().and_then(|data| data.get("unknown")).and_then(Value::as_array).is_some_and(|list| !list.is_empty())
}

/// One token has no more to say than that it is done.
fn done(outcome: CommandOutcome) -> Result<Response, Problem> {
    match outcome {
        CommandOutcome::Accepted { .. } => Ok(StatusCode::NO_CONTENT.into_response()),
        other => answer(other),
    }
}
