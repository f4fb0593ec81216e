//! What drivers and operators wish: boosts and targets.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Api;
use super::act::{outcome, whole};
use super::problem::Problem;
use super::read::no_charger;
use crate::engine::model::command::Command;
use crate::engine::model::ids::{StationId, TransactionId};
use crate::engine::model::wish::{BoostLength, MAX_BOOST_MINUTES, MAX_ENERGY, Place};
use crate::engine::time::Utc;
use crate::engine::units::Energy;

/// `{"connector": 1, "minutes": 60}`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BoostBody {
    connector: Option<u32>,
    minutes: Option<u64>,
    until: Option<Utc>,
}

/// `{"connector": 1, "energy_wh": 20000, "departure": "2026-03-02T07:00:00+01:00"}`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetBody {
    connector: Option<u32>,
    energy_wh: u64,
    departure: Utc,
}

/// `?connector=2`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Connector {
    connector: Option<u32>,
}

type ConnectorQuery = Result<Query<Connector>, QueryRejection>;

/// Lets a connector go first for a while.
pub(super) async fn set_boost(
    State(api): State<Api>,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let BoostBody { connector, minutes, until } =
        read(&whole(body)?, r#"{"connector": 1, "minutes": 60} or {"until": "2026-03-01T12:00:00Z"}"#)?;
    let length = match (minutes, until) {
        (Some(minutes), None) if (1..=MAX_BOOST_MINUTES).contains(&minutes) => BoostLength::Minutes(minutes),
        (None, Some(until)) => BoostLength::Until(until),
        (Some(minutes), None) => {
            let text = format!("minutes = {minutes}: expected 1 to {MAX_BOOST_MINUTES}.");
            return Err(Problem::new(400, text));
        }
        (Some(_), Some(_)) | (None, None) => {
            return Err(Problem::new(400, "A boost needs an end: give \"minutes\" or \"until\", one of them."));
        }
    };
    outcome(&api, Command::Boost { place: at_charger(&api, &id, connector)?, length }).await
}

/// Takes a boost back.
pub(super) async fn clear_boost(
    State(api): State<Api>,
    Path(id): Path<String>,
    query: ConnectorQuery,
) -> Result<Response, Problem> {
    let place = at_charger(&api, &id, connector(query)?)?;
    outcome(&api, Command::BoostClear { place }).await
}

/// Sets what the transaction at a connector must have by when.
pub(super) async fn set_target_at(
    State(api): State<Api>,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body: TargetBody = target(&whole(body)?)?;
    let place = at_charger(&api, &id, body.connector)?;
    set(&api, place, &body).await
}

/// Takes the target of the transaction at a connector back.
pub(super) async fn clear_target_at(
    State(api): State<Api>,
    Path(id): Path<String>,
    query: ConnectorQuery,
) -> Result<Response, Problem> {
    let place = at_charger(&api, &id, connector(query)?)?;
    outcome(&api, Command::TargetClear { place }).await
}

/// Sets what a transaction must have by when.
pub(super) async fn set_target(
    State(api): State<Api>,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body: TargetBody = target(&whole(body)?)?;
    if body.connector.is_some() {
        return Err(Problem::new(400, "\"connector\" has no place here: the transaction says where."));
    }
    let place = of_transaction(&api, &id)?;
    set(&api, place, &body).await
}

/// Takes the target of a transaction back.
pub(super) async fn clear_target(State(api): State<Api>, Path(id): Path<String>) -> Result<Response, Problem> {
    let place = of_transaction(&api, &id)?;
    outcome(&api, Command::TargetClear { place }).await
}

async fn set(api: &Api, place: Place, body: &TargetBody) -> Result<Response, Problem> {
    let energy = i64::try_from(body.energy_wh).map(Energy::from_wh).ok();
    let Some(energy) = energy.filter(|energy| (Energy::from_wh(1)..=MAX_ENERGY).contains(energy)) else {
        let text = format!("energy_wh = {}: expected 1 to {}.", body.energy_wh, MAX_ENERGY.wh());
        return Err(Problem::new(400, text));
    };
    outcome(api, Command::Target { place, energy, departure: body.departure }).await
}

fn target(body: &[u8]) -> Result<TargetBody, Problem> {
    read(body, r#"{"energy_wh": 20000, "departure": "2026-03-02T07:00:00+01:00"}"#)
}

fn read<T: DeserializeOwned>(body: &[u8], example: &str) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::new(400, format!("{error}; expected {example}.")))
}

fn connector(query: ConnectorQuery) -> Result<Option<u32>, Problem> {
    match query {
        Ok(Query(Connector { connector })) => Ok(connector),
        Err(error) => {
            Err(Problem::new(400, format!("{}; \"connector\" is a number, such as ?connector=2.", error.body_text())))
        }
    }
}

/// A connector of a charger, the first where none is named.
fn at_charger(api: &Api, id: &str, connector: Option<u32>) -> Result<Place, Problem> {
    let status = api.asker.status();
    let charger = status.chargers.iter().find(|charger| charger.id == id).ok_or_else(|| no_charger(id))?;
    let connector = connector.unwrap_or(1);
    if charger.evses.iter().any(|evse| evse.evse == connector) {
        return Ok(Place::Connector { charger: StationId::new(id), connector });
    }
    Err(Problem::new(404, format!("{id} has no connector {connector}; they are numbered from 1.")))
}

fn of_transaction(api: &Api, id: &str) -> Result<Place, Problem> {
    let running = api.asker.status().transactions.iter().any(|transaction| transaction.transaction == id);
    if running {
        Ok(Place::Transaction(TransactionId::new(id)))
    } else {
        Err(Problem::new(404, format!("No transaction {id:?} is running.")))
    }
}
