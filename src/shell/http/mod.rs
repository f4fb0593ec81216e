//! REST on site: what the site is doing, and the few things that may be done to it. Described in `docs/api.md`.
//!
//! Handlers read the last status or ask the owner; none of them decides anything. It listens on loopback only (the configuration
//! enforces it), so that the threat left is a web page in a browser on the same machine: see `guard`.

mod act;
mod guard;
mod limits;
mod listener;
mod problem;
mod read;
mod tokens;
mod wishes;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{delete, get, post, put};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use crate::engine::cloud::messages::Messages;
use crate::engine::model::ids::Sequence;
use crate::engine::model::record::Record;
use crate::shell::clock::Clock;
use crate::shell::site::Asker;
use crate::shell::station::{MAX_MESSAGE_BYTES, Waiting};
use crate::shell::stopped;
use listener::Bounded;
use problem::Problem;

/// What is sent to a station must fit a message that a station could send; nothing here is larger.
const MAX_BODY_BYTES: usize = MAX_MESSAGE_BYTES;

/// Longer than the engine waits for a station: reached only if the engine forgot the question.
const ANSWER_TIME: Duration = Duration::from_secs(90);

/// Where events are read from.
pub trait Events: Send + Sync {
    /// Reads durable records from `from` on, at most `limit`, and sends them. Only queues; a dropped sender says that it was refused.
    fn read(&self, from: Sequence, limit: usize, answer: oneshot::Sender<Result<Vec<Record>, String>>);
}

/// What the handlers work with.
#[derive(Clone)]
pub struct Api {
    /// The owner of the site.
    pub asker: Asker,
    /// For the age of the last tick.
    pub clock: Clock,
    /// The journal.
    pub events: Arc<dyn Events>,
    /// Makes events of records, in the same form as towards the cloud.
    pub messages: Arc<Messages>,
    /// The stations that wait for approval.
    pub waiting: Waiting,
    /// The store; reports of commissioning tests lie beside it.
    pub store: PathBuf,
}

/// Serves until shutdown.
pub async fn run(listener: TcpListener, api: Api, mut shutdown: watch::Receiver<bool>) {
    let serving = axum::serve(Bounded::new(listener), router(api)).into_future();
    // Nobody may hold the process with an open connection: answers under way are cut off.
    tokio::select! {
        result = serving => if let Err(error) = result {
            tracing::error!("the local interface (api.listen) has ended: {error}");
        },
        () = stopped(&mut shutdown) => {}
    }
}

/// All routes.
pub fn router(api: Api) -> Router {
    let v1 = Router::new()
        .route("/site", get(read::site))
        .route("/circuits", get(read::circuits))
        .route("/circuits/{id}/limit", put(limits::set_on_circuit).delete(limits::clear_on_circuit))
        .route("/chargers/{id}/limit", put(limits::set_on_charger).delete(limits::clear_on_charger))
        .route("/chargers/{id}/delay", delete(limits::clear_delay))
        .route("/dimming", put(limits::dim).delete(limits::undim))
        .route("/limits", get(limits::standing))
        .route("/limits/log", get(limits::log))
        .route("/chargers", get(read::chargers))
        .route("/pending", get(read::pending))
        .route("/chargers/{id}", get(read::charger))
        .route("/chargers/{id}/approve", post(act::approve))
        .route("/chargers/{id}/explain", get(read::explain))
        .route("/chargers/{id}/boost", put(wishes::set_boost).delete(wishes::clear_boost))
        .route("/chargers/{id}/target", put(wishes::set_target_at).delete(wishes::clear_target_at))
        .route("/chargers/{id}/ocpp/{action}", post(act::ocpp))
        .route("/chargers/{id}/commission", get(read::commission).post(act::commission).delete(act::stop_commissioning))
        .route("/meters", get(read::meters))
        .route("/inverters", get(read::inverters))
        .route("/transactions", get(read::transactions))
        .route("/transactions/{id}/target", put(wishes::set_target).delete(wishes::clear_target))
        .route("/tokens", get(tokens::page))
        .route("/tokens/{token}", put(tokens::set).delete(tokens::delete))
        .route("/alarms", get(read::alarms))
        .route("/events", get(read::events));
    Router::new()
        .nest("/api/v1", v1)
        .route("/healthz", get(read::healthz))
        .route("/readyz", get(read::readyz))
        .fallback(async || Problem::new(404, "There is nothing at this address; docs/api.md lists what there is."))
        .method_not_allowed_fallback(async || Problem::new(405, "This address does not know that method."))
        .layer(middleware::from_fn(guard::guard))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(api)
}

#[cfg(test)]
mod tests;
