//! The daemon: starts everything, wires it, and stops it in order.
//!
//! Stopping goes from the edge inwards: first nothing new comes in (stations, lines, HTTP), then the owner handles what came, then the
//! journal is flushed and the broker told. Chargers keep their leases meanwhile.

mod start;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::config::{Config, UnknownChargers, load};
use crate::engine::cloud::messages::Messages;
use crate::engine::controller::Controller;
use crate::engine::site::Restored;
use crate::engine::site::io::{Input, Publication};
use crate::shell::clock::Clock;
use crate::shell::configuration::{self, Desk, Kept, Restart, Starting};
use crate::shell::http::{Api, Events};
use crate::shell::site::{Asker, INBOX, Owner, Reach, Store, StoreOverrun};
use crate::shell::station::{Listening, Registry, Waiting};
use crate::shell::systemd::Notifier;
use crate::shell::telemetry::TelemetryHandle;
use crate::shell::{acceptance, bus, http, logging, memory, panic, reports, station};
use start::{bus_plans, cannot_listen, changed, random_seed};

/// From the signal to the end of the process. systemd's own limit (`TimeoutStopSec`) is well beyond.
const STOP_TIME: Duration = Duration::from_secs(5);

/// Of it, what connections get to close politely.
const EDGE_TIME: Duration = Duration::from_millis(2_500);

/// Says why the daemon has started itself again; see [`begin_again`].
const CAUSE: &str = "SITEWARD_STARTED_BY";

/// The daemon's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is bad: every message on a line of its own.
    #[error("{0}")]
    Configuration(String),
    /// Something else, with what to do about it.
    #[error("{0}")]
    Other(String),
}

impl From<String> for StartError {
    fn from(message: String) -> Self {
        Self::Other(message)
    }
}

/// An opened store.
pub struct OpenStore {
    /// What it knew.
    pub restored: Restored,
    /// Where records go.
    pub store: Box<dyn Store>,
    /// Where telemetry is kept; `None`: no cloud is configured.
    pub telemetry: Option<TelemetryHandle>,
    /// Where events are read from.
    pub events: Arc<dyn Events>,
    /// Flushes and closes it; blocks until that is done.
    pub close: Box<dyn FnOnce() + Send>,
}

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// If it cannot start.
pub fn run(path: &Path) -> Result<(), StartError> {
    logging::start();
    panic::install();
    // Only fails if one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (config, text) = read(path)?;
    let mut starting = configuration::start(config, text);
    if starting.cause.is_none()
        && let Ok(cause) = std::env::var(CAUSE)
    {
        tracing::info!("started again: {cause}");
        starting.cause = Some(cause);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start threads: {error}"))?;
    let result = runtime.block_on(until_stopped(starting));
    // A name lookup or a serial line that hangs must not hold the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match result? {
        None => Ok(()),
        Some(restart) => Err(begin_again(&restart)),
    }
}

/// Puts a new daemon in the place of this one, under the same process id. It only comes back if that cannot be done; the service manager
/// then starts another one.
fn begin_again(Restart(cause): &Restart) -> StartError {
    // An update may have replaced the file meanwhile.
    let own = std::env::current_exe().unwrap_or_default();
    let own = own.to_string_lossy();
    let error =
        Command::new(own.trim_end_matches(" (deleted)")).args(std::env::args_os().skip(1)).env(CAUSE, cause).exec();
    StartError::Other(format!("cannot start again ({cause}): {error}"))
}

/// Reads the configuration for the daemon, and its text: warnings are logged, an unsafe site is refused unless that is accepted.
fn read(path: &Path) -> Result<(Config, String), StartError> {
    let loaded = load(path).map_err(|problems| StartError::Configuration(problems.to_string()))?;
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(reason) = loaded.refuse_unsafe() {
        return Err(StartError::Configuration(reason));
    }
    Ok((loaded.config, text))
}

/// Runs until something ends it; `Some`: it is to begin again.
async fn until_stopped(starting: Starting) -> Result<Option<Restart>, StartError> {
    let Starting { config, cause, kept } = starting;
    let cannot = |error: io::Error| StartError::Other(format!("cannot wait for signals: {error}"));
    let (terminate, interrupt) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let hangup = signal(SignalKind::hangup()).map_err(cannot)?;
    let (mut terminate, mut interrupt) = (terminate.map_err(cannot)?, interrupt.map_err(cannot)?);
    let clock = Clock::start();
    let (inbox_in, inbox) = mpsc::channel(INBOX);
    let sockets = Sockets::bind(&config).await?;
    let mut opened = start::open_store(&config, clock, inbox_in.clone())?;
    opened.restored.cause = cause;
    let (restarts_in, mut restarts) = mpsc::channel(1);
    let notifier = Notifier::from_environment();
    let wiring = Wiring { inbox: (inbox_in, inbox), clock, notifier: notifier.clone(), kept, restarts: restarts_in };
    let on_site = Arc::clone(&wiring.kept);
    let mut daemon = Daemon::start(&config, sockets, opened, wiring)?;
    let mut asker = daemon.asker.clone();
    if asker.next_tick().await.is_err() {
        return Err(StartError::Other("the control loop ended before its first cycle".to_owned()));
    }
    notifier.ready();
    tracing::info!("site {} is controlled by siteward {VERSION}", config.topology.site());
    let result = tokio::select! {
        _ = terminate.recv() => Ok(None),
        _ = interrupt.recv() => Ok(None),
        error = daemon.broken() => Err(error),
        restart = reload(hangup, on_site.site(), &notifier) => Ok(Some(restart)),
        Some(restart) = restarts.recv() => Ok(Some(restart)),
    };
    match &result {
        Ok(Some(Restart(cause))) => {
            tracing::info!("starting again ({cause}); chargers keep their limits meanwhile");
            notifier.reloading();
        }
        Ok(None) | Err(_) => {
            tracing::info!("stopping; chargers keep their safe limits");
            notifier.stopping();
        }
    }
    daemon.stop().await;
    result
}

/// Reads the configuration again with each SIGHUP, until it is good and another one.
async fn reload(mut hangup: Signal, started: &(Config, String), notifier: &Notifier) -> Restart {
    while hangup.recv().await.is_some() {
        notifier.reloading();
        if !report_reload(&started.0.path, started).is_empty() {
            return Restart("reload".to_owned());
        }
        notifier.ready();
    }
    std::future::pending().await
}

/// Logs what came of reading the configuration again; returns the parts that differ from what stood there at the start, which is the running one
/// unless another was sent.
fn report_reload(path: &Path, (started, text): &(Config, String)) -> Vec<&'static str> {
    let refuse = |lines: &str| {
        for line in lines.lines() {
            tracing::error!("{line}");
        }
        tracing::error!("{}: refused, the running configuration stays", path.display());
        Vec::new()
    };
    let config = match read(path) {
        Ok((config, new)) if new != *text || !changed(started, &config).is_empty() => config,
        Ok(_) => {
            tracing::info!("{}: read again, nothing has changed", path.display());
            return Vec::new();
        }
        Err(error) => return refuse(&error.to_string()),
    };
    let parts = changed(started, &config);
    if parts.is_empty() {
        tracing::info!("{}: read again, nothing that matters has changed", path.display());
        return parts;
    }
    // A new address that cannot be had would only be noticed when the old one is gone.
    for (key, old, new) in [
        ("ocpp.listen", started.ocpp.listen, config.ocpp.listen),
        ("api.listen", started.api.listen, config.api.listen),
    ] {
        if old != new
            && let Err(error) = std::net::TcpListener::bind(new)
        {
            return refuse(&cannot_listen(key, new, path, &error).to_string());
        }
    }
    tracing::info!("{}: read again, it is good; changed: {}", path.display(), parts.join(", "));
    parts
}

/// The sockets, bound before anything else is touched: an address in use must not have opened the store.
struct Sockets {
    stations: TcpListener,
    api: TcpListener,
}

impl Sockets {
    async fn bind(config: &Config) -> Result<Self, StartError> {
        let name = &config.path;
        let stations = listen(station::bind(config.ocpp.listen), "ocpp.listen", config.ocpp.listen, name)?;
        let api = listen(TcpListener::bind(config.api.listen).await, "api.listen", config.api.listen, name)?;
        Ok(Self { stations, api })
    }
}

fn listen(
    result: io::Result<TcpListener>,
    key: &str,
    wanted: SocketAddr,
    file: &Path,
) -> Result<TcpListener, StartError> {
    let listener = result.map_err(|error| cannot_listen(key, wanted, file, &error))?;
    // With port 0 this is the only place that says which it became.
    let address = listener.local_addr().unwrap_or(wanted);
    tracing::info!("{key}: listening on {address}");
    Ok(listener)
}

/// What the parts of the daemon are joined with.
struct Wiring {
    /// Both ends of the way to the owner.
    inbox: (mpsc::Sender<Input>, mpsc::Receiver<Input>),
    clock: Clock,
    notifier: Notifier,
    /// The configurations that were sent.
    kept: Arc<Kept>,
    /// Who starts the daemon again.
    restarts: mpsc::Sender<Restart>,
}

/// The running daemon.
struct Daemon {
    asker: Asker,
    /// Stops what is connected to the outside.
    stop_edge: watch::Sender<bool>,
    edge: JoinSet<()>,
    /// Stops the owner.
    stop_owner: watch::Sender<bool>,
    owner: JoinSet<Result<(), StoreOverrun>>,
    /// Stops the link to the cloud.
    stop_cloud: watch::Sender<bool>,
    /// The link to the cloud, and what keeps the limits for the next run; both end after the owner.
    cloud: JoinSet<()>,
    close_store: Box<dyn FnOnce() + Send>,
}

impl Daemon {
    fn start(config: &Config, sockets: Sockets, opened: OpenStore, wiring: Wiring) -> Result<Self, StartError> {
        let Wiring { inbox: (inbox_in, inbox), clock, notifier, kept, restarts } = wiring;
        let OpenStore { restored, store, telemetry, events, close } = opened;
        let rolled_back = restored.cause.as_ref().is_some_and(|cause| cause.starts_with("rolled back"));
        let plans = bus_plans(config)?;
        let prefix = config.cloud.as_ref().map_or("siteward/v1", |cloud| cloud.topic_prefix.as_str());
        let messages = Arc::new(Messages::new(prefix, config.topology.site(), &restored.store_id));
        let registry = Registry::default();
        let [(stop_edge, edge_stops), (stop_owner, owner_stops), (stop_cloud, cloud_stops)] =
            std::array::from_fn(|_| watch::channel(false));
        let mut cloud = JoinSet::new();
        let publications = start::cloud_link(config, inbox_in.clone(), cloud_stops, clock)
            .map(|(publications, link)| spawned(&mut cloud, publications, link));

        let controller = Controller::new(config.setup(VERSION, random_seed()), restored, true, clock.now());
        let (memory, remembered) = watch::channel(Vec::new());
        cloud.spawn(memory::run(memory::place(&config.store.path), remembered));
        let (reports, to_sign) = mpsc::channel(reports::WAITING);
        cloud.spawn(reports::run(config.store.path.clone(), to_sign));
        let (errands, to_do) = mpsc::channel(configuration::WAITING);
        let reach =
            Reach { store, registry: registry.clone(), telemetry, publications, memory, errands, reports, notifier };
        let (task, asker) = Owner::new(controller, clock, reach);
        let probation = kept.on_probation(clock.now().mono);
        let waiting = Waiting::default();
        let desk = Desk { kept, waiting: waiting.clone(), asker: asker.clone(), inbox: inbox_in.clone(), restarts };
        let mut owner = JoinSet::new();
        owner.spawn(task.run(inbox, owner_stops));

        let mut edge = JoinSet::new();
        if let Some(probation) = probation {
            edge.spawn(configuration::watch_probation(desk.clone(), probation, clock, edge_stops.clone()));
        }
        if config.ocpp.unknown_chargers == UnknownChargers::Accept && !rolled_back {
            edge.spawn(acceptance::run(desk.clone(), config.topology.stations().len(), edge_stops.clone()));
        }
        edge.spawn(configuration::run(to_do, desk, edge_stops.clone()));
        edge.spawn(station::tell(waiting.clone(), inbox_in.clone(), edge_stops.clone()));
        for plan in plans {
            edge.spawn(bus::run(plan, clock, inbox_in.clone(), edge_stops.clone()));
        }
        let store = config.store.path.clone();
        let api = Api { asker: asker.clone(), clock, events, messages, waiting: waiting.clone(), store };
        edge.spawn(http::run(sockets.api, api, edge_stops.clone()));
        let listening = Listening {
            path: config.ocpp.path.clone(),
            topology: Arc::new(config.topology.clone()),
            unknown_chargers: config.ocpp.unknown_chargers,
            waiting,
            clock,
            registry,
            inbox: inbox_in,
            shutdown: edge_stops,
        };
        edge.spawn(station::run(sockets.stations, listening));
        Ok(Self { asker, stop_edge, edge, stop_owner, owner, stop_cloud, cloud, close_store: close })
    }

    /// Waits until the owner ends by itself, which it must not.
    async fn broken(&mut self) -> StartError {
        match self.owner.join_next().await {
            Some(Ok(Err(overrun))) => {
                StartError::Other(format!("{overrun}; free space on the disk of store.path, or replace it"))
            }
            Some(Ok(Ok(())) | Err(_)) | None => StartError::Other("the control loop has ended by itself".to_owned()),
        }
    }

    /// Stops everything in order, within [`STOP_TIME`].
    async fn stop(mut self) {
        let start = Instant::now();
        let end = start + STOP_TIME;
        self.stop_edge.send_replace(true);
        finish("connections", &mut self.edge, start + EDGE_TIME).await;
        self.stop_owner.send_replace(true);
        finish("the control loop", &mut self.owner, end).await;
        let close = tokio::task::spawn_blocking(self.close_store);
        if timeout_at(end, close).await.is_err() {
            tracing::error!("the journal could not be flushed in {} s", STOP_TIME.as_secs());
        }
        // Last: what became durable just now may still go out, and the broker learns that we leave.
        self.stop_cloud.send_replace(true);
        finish("the link to the cloud", &mut self.cloud, end).await;
    }
}

fn spawned(
    tasks: &mut JoinSet<()>,
    publications: mpsc::Sender<Publication>,
    link: impl Future<Output = ()> + Send + 'static,
) -> mpsc::Sender<Publication> {
    tasks.spawn(link);
    publications
}

/// Waits for tasks until `end`, then drops them.
async fn finish<T: 'static>(what: &str, tasks: &mut JoinSet<T>, end: Instant) {
    let all = async { while tasks.join_next().await.is_some() {} };
    if timeout_at(end, all).await.is_err() {
        tracing::warn!("{what} did not end in time and was cut off");
        tasks.abort_all();
    }
}
