//! What can be read.

use std::path::PathBuf;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::Api;
use super::problem::Problem;
use crate::engine::model::alarm::{Alarm, AlarmKind};
use crate::engine::model::commission::CommissionReport;
use crate::engine::model::ids::{Sequence, StationId};
use crate::engine::model::record::Record;
use crate::engine::model::status::{
    ChargerStatus, CircuitStatus, Explanation, InverterStatus, MeterStatus, PendingCharger, SiteStatus,
    TransactionStatus,
};
use crate::shell::reports;

/// Ten missed ticks: the control loop does not run.
const STALE_MS: u64 = 2_000;

/// A page of events that is quick to read from slow flash.
const DEFAULT_EVENTS: usize = 100;
const MAX_EVENTS: usize = 1_000;

pub(super) async fn site(State(api): State<Api>) -> Json<SiteStatus> {
    Json(SiteStatus::clone(&api.asker.status()))
}

pub(super) async fn circuits(State(api): State<Api>) -> Json<Vec<CircuitStatus>> {
    Json(api.asker.status().circuits.clone())
}

pub(super) async fn chargers(State(api): State<Api>) -> Json<Vec<ChargerStatus>> {
    Json(api.asker.status().chargers.clone())
}

/// The stations that are connected but not configured.
pub(super) async fn pending(State(api): State<Api>) -> Json<Vec<PendingCharger>> {
    Json(api.asker.status().pending.clone())
}

pub(super) async fn charger(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<ChargerStatus>, Problem> {
    let status = api.asker.status();
    let found = status.chargers.iter().find(|charger| charger.id == id);
    found.cloned().map(Json).ok_or_else(|| no_charger(&id))
}

pub(super) async fn explain(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Explanation>, Problem> {
    let explanation = api.asker.explain(StationId::new(&id)).await?;
    explanation.map(Json).ok_or_else(|| no_charger(&id))
}

/// How a commissioning test goes, and where its signed report will be.
#[derive(Debug, Serialize)]
pub(super) struct Commission {
    report: CommissionReport,
    /// The file on the gateway, once the test is over and the report is written.
    file: Option<PathBuf>,
}

pub(super) async fn commission(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Commission>, Problem> {
    let report = api.asker.commissioned(StationId::new(&id)).await?;
    let Some(report) = report else {
        return Err(Problem::new(404, format!("{id} was not commissioned since the controller has started.")));
    };
    let file = reports::path_of(&api.store, &report);
    let written = report.verdict.is_some() && tokio::fs::try_exists(&file).await.unwrap_or(false);
    Ok(Json(Commission { report, file: written.then_some(file) }))
}

pub(super) async fn meters(State(api): State<Api>) -> Json<Vec<MeterStatus>> {
    Json(api.asker.status().meters.clone())
}

pub(super) async fn inverters(State(api): State<Api>) -> Json<Vec<InverterStatus>> {
    Json(api.asker.status().inverters.clone())
}

pub(super) async fn transactions(State(api): State<Api>) -> Json<Vec<TransactionStatus>> {
    Json(api.asker.status().transactions.clone())
}

pub(super) async fn alarms(State(api): State<Api>) -> Json<Vec<Alarm>> {
    Json(api.asker.status().alarms.clone())
}

/// `?after=N&limit=M`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

/// A page of events.
#[derive(Debug, Serialize)]
pub(super) struct EventsPage {
    /// The events in order: CloudEvents 1.0, as towards the cloud.
    events: Vec<Box<RawValue>>,
    /// The `after` of the next page.
    next: u64,
}

pub(super) async fn events(
    State(api): State<Api>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Json<EventsPage>, Problem> {
    let Query(EventsQuery { after, limit }) = query.map_err(|error| {
        Problem::new(
            400,
            format!("{}; \"after\" and \"limit\" are whole numbers, such as ?after=0&limit=100.", error.body_text()),
        )
    })?;
    let limit = limit.unwrap_or(DEFAULT_EVENTS).clamp(1, MAX_EVENTS);
    let (answer, answered) = oneshot::channel();
    let page = |events: Vec<Record>| {
        let next = events.last().map_or(after, |record| record.sequence.0);
        // What is made here is JSON.
        let events = events.iter().filter_map(|record| RawValue::from_string(api.messages.event(record).payload).ok());
        Json(EventsPage { events: events.collect(), next })
    };
    if after == u64::MAX {
        return Ok(page(Vec::new()));
    }
    api.events.read(Sequence(after).next(), limit, answer);
    match answered.await {
        Ok(Ok(events)) => Ok(page(events)),
        Ok(Err(error)) => Err(Problem::new(503, format!("The journal cannot be read: {error}"))),
        Err(_) => Err(Problem::new(503, "The journal is busy or closed; try again.")),
    }
}

/// The process lives.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// The control loop is fresh and the store can be written.
pub(super) async fn readyz(State(api): State<Api>) -> Result<&'static str, Problem> {
    let age = api.clock.mono().since(api.asker.last_tick());
    if api.asker.last_tick().ms() == 0 || age > STALE_MS {
        return Err(Problem::new(503, format!("The last control cycle was {age} ms ago.")));
    }
    let status = api.asker.status();
    match status.alarms.iter().find(|alarm| alarm.key.kind == AlarmKind::StoreFailed) {
        Some(alarm) => Err(Problem::new(503, alarm.to_string())),
        None => Ok("ready\n"),
    }
}

pub(super) fn no_charger(id: &str) -> Problem {
    Problem::new(404, format!("There is no charger {id:?} in site.toml."))
}
