//! What can be done.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::problem::Problem;
use super::read::no_charger;
use super::{ANSWER_TIME, Api, MAX_BODY_BYTES};
use crate::engine::model::command::{Command, CommandOutcome};
use crate::engine::model::errand::Errand;
use crate::engine::model::ids::{CircuitId, StationId};

/// Sends one OCPP request to a station. The body is passed on as it is.
pub(super) async fn ocpp(
    State(api): State<Api>,
    Path((id, action)): Path<(String, String)>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = whole(body)?;
    if !api.asker.status().chargers.iter().any(|charger| charger.id == id) {
        return Err(no_charger(&id));
    }
    let payload = payload(&body)?;
    outcome(&api, Command::OcppCall { charger: StationId::new(&id), action, payload }).await
}

/// Begins a commissioning test.
pub(super) async fn commission(State(api): State<Api>, Path(id): Path<String>) -> Result<Response, Problem> {
    if !api.asker.status().chargers.iter().any(|charger| charger.id == id) {
        return Err(no_charger(&id));
    }
    outcome(&api, Command::Commission { charger: StationId::new(&id) }).await
}

/// Ends a commissioning test before its time.
pub(super) async fn stop_commissioning(State(api): State<Api>, Path(id): Path<String>) -> Result<Response, Problem> {
    if !api.asker.status().chargers.iter().any(|charger| charger.id == id) {
        return Err(no_charger(&id));
    }
    outcome(&api, Command::CommissionStop { charger: StationId::new(&id) }).await
}

/// Where an approved station is connected; nothing: where there is no choice.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApproveBody {
    circuit: Option<String>,
}

/// Adds a station that waits to the configuration.
pub(super) async fn approve(
    State(api): State<Api>,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = whole(body)?;
    let charger = StationId::new(&id);
    if !api.waiting.has(&charger) && !api.asker.status().chargers.iter().any(|charger| charger.id == id) {
        return Err(Problem::new(404, format!("No charger {id:?} waits; GET /api/v1/pending lists those that do.")));
    }
    let ApproveBody { circuit } = if body.trim_ascii().is_empty() {
        ApproveBody::default()
    } else {
        let wrong = |error| Problem::new(400, format!("{error}; expected {{\"circuit\": \"grid\"}}, or no body."));
        serde_json::from_slice(&body).map_err(wrong)?
    };
    let circuit = circuit.as_deref().map(CircuitId::new);
    outcome(&api, Command::Errand(Errand::Approve { charger, circuit, on_site: true })).await
}

pub(super) async fn outcome(api: &Api, command: Command) -> Result<Response, Problem> {
    answer(carried_out(api, command).await?)
}

pub(super) async fn carried_out(api: &Api, command: Command) -> Result<CommandOutcome, Problem> {
    match timeout(ANSWER_TIME, api.asker.command(command)).await {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err(Problem::new(504, "There was no answer in time.")),
    }
}

pub(super) fn answer(outcome: CommandOutcome) -> Result<Response, Problem> {
    match outcome {
        CommandOutcome::Accepted { data: Some(data) } => {
            Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], data).into_response())
        }
        CommandOutcome::Accepted { data: None } => Ok(StatusCode::NO_CONTENT.into_response()),
        CommandOutcome::Rejected { error } => Err(Problem::new(400, error)),
        CommandOutcome::Failed { error, data } => Err(Problem::new(502, error).with_data(data)),
        CommandOutcome::TimedOut => Err(Problem::new(504, "The charger did not answer in time.")),
        CommandOutcome::NotConnected => Err(Problem::new(409, "The charger is not connected.")),
        CommandOutcome::Expired => Err(Problem::new(409, "The command has expired.")),
    }
}

pub(super) fn whole(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Problem> {
    body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(413, format!("The body is larger than {MAX_BODY_BYTES} bytes.")),
        status => Problem::new(status.as_u16(), error.body_text()),
    })
}

/// The body as JSON text; an empty one stands for `{}`.
fn payload(body: &[u8]) -> Result<String, Problem> {
    if body.trim_ascii().is_empty() {
        return Ok("{}".to_owned());
    }
    let wrong = |error: String| Problem::new(400, format!("The body is not an OCPP payload, a JSON object: {error}."));
    serde_json::from_slice::<Map<String, Value>>(body).map_err(|error| wrong(error.to_string()))?;
    String::from_utf8(body.to_vec()).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_an_object_and_stays_as_it_is() {
        assert_eq!(payload(b" \n").unwrap(), "{}");
        assert_eq!(payload(b"{\"a\": 1.50}").unwrap(), "{\"a\": 1.50}");
        for wrong in [&b"[]"[..], b"{", b"\xff", b"{\"a\":\"\xff\"}"] {
            assert!(payload(wrong).is_err());
        }
    }

    #[test]
    fn every_outcome_has_its_status() {
        let status = |outcome| answer(outcome).into_response().status().as_u16();
        let data = Some("{\"status\":\"Accepted\"}".to_owned());
        assert_eq!(status(CommandOutcome::Accepted { data: data.clone() }), 200);
        assert_eq!(status(CommandOutcome::Accepted { data: None }), 204);
        assert_eq!(status(CommandOutcome::Rejected { error: "no".to_owned() }), 400);
        assert_eq!(status(CommandOutcome::Failed { error: "NotSupported".to_owned(), data }), 502);
        assert_eq!(status(CommandOutcome::TimedOut), 504);
        assert_eq!(status(CommandOutcome::NotConnected), 409);
        assert_eq!(status(CommandOutcome::Expired), 409);
    }
}
