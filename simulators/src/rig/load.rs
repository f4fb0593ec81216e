//! How much a broker and a consumer carry: a crowd of simulated sites in this process, mosquitto and the reference consumer in theirs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use siteward::engine::model::setup::Acknowledge;
use tokio::sync::oneshot;

use crate::net::clock::Clock;
use crate::net::fleet::crowd::{self, CrowdOptions, CrowdProgress};
use crate::net::fleet::keeper::Keeper;
use crate::net::fleet::ledger::{Ledger, Rules};
use crate::net::fleet::report::Report;
use crate::net::fleet::sql::Datum;
use crate::net::mosquitto::Mosquitto;
use crate::net::process::{Recipe, Running};

/// How often the books are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Nothing may stand still for longer, in ms: the outbox sends again after a minute.
const STANDSTILL_MS: u64 = 180_000;

/// What is to be carried.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// How many sites.
    pub sites: usize,
    /// How many events each.
    pub events: u64,
    /// Over which time they come into being; `None`: all are there at the start.
    pub over: Option<Duration>,
    /// How many consumers share them.
    pub instances: usize,
    /// When an event is done.
    pub acknowledge: Acknowledge,
    /// Another database than a SQLite file in the run's directory.
    pub database: Option<String>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct LoadReport {
    /// How many sites.
    pub sites: usize,
    /// How many events.
    pub events: u64,
    /// From when all sites were connected, or the first event was there, to when the last event was committed and acknowledged, in ms.
    pub took_ms: u64,
    /// Events published, repetitions included.
    pub published: u64,
    /// Replays that were asked for.
    pub replays: u64,
    /// What the cores worked for the consumers, for the broker, and for the crowd, in ms.
    pub cores_ms: [u64; 3],
    /// What the crowd's books must say: starts, ends, Wh.
    pub expected: (u64, u64, i64),
    /// What the books say.
    pub books: Report,
}

impl LoadReport {
    /// Whether the books are those of the crowd.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let (starts, ends, energy_wh) = self.expected;
        let equals = |found: i64, wanted: u64| u64::try_from(found) == Ok(wanted);
        self.books.is_whole()
            && equals(self.books.events, self.events)
            && equals(self.books.transactions, starts)
            && equals(self.books.ended, ends)
            && self.books.energy_wh == energy_wh
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = |ms: u64| ms * 1_000 / self.events.max(1);
        let [consumers, broker, crowd] = self.cores_ms;
        writeln!(
            f,
            "{} sites, {} events in {} ms: {} events/s, {} published, {} replays asked for",
            self.sites,
            self.events,
            self.took_ms,
            self.events * 1_000 / self.took_ms.max(1),
            self.published,
            self.replays
        )?;
        writeln!(
            f,
            "the cores worked {} µs an event for the consumer, {} for mosquitto, {} for the sites",
            each(consumers),
            each(broker),
            each(crowd)
        )?;
        let bytes = u64::try_from(self.books.bytes).unwrap_or(0);
        writeln!(f, "the database has {} MB, {} bytes an event", bytes / 1_000_000, bytes / self.events.max(1))?;
        let (starts, ends, energy_wh) = self.expected;
        write!(
            f,
            "{} events missing, {} told twice, {} in quarantine; {} of {starts} transactions, {} of {ends} ended, {} of {energy_wh} Wh",
            self.books.missing,
            self.books.doubled,
            self.books.quarantine,
            self.books.transactions,
            self.books.ended,
            self.books.energy_wh
        )
    }
}

/// Carries it. Call it on the main thread: the processes die with the thread that starts them.
///
/// # Errors
/// If something does not start, or everything stands still.
pub async fn run(options: &LoadOptions, sim: &Path) -> Result<LoadReport, String> {
    let directory = tempfile::Builder::new().prefix("siteward-load-").tempdir().map_err(|error| error.to_string())?;
    let broker = Mosquitto::start(directory.path(), false, sim)?;
    let file = directory.path().join("books.sqlite").display().to_string();
    let database = options.database.clone().unwrap_or(file);
    let mut consumers = Vec::new();
    for number in 0..options.instances {
        let log = directory.path().join(format!("consumer-{number}.log"));
        consumers.push(consumer(options, (&database, &broker, &log), sim)?);
    }
    let address = broker.address();
    let crowd_options = CrowdOptions {
        broker: (address.ip().to_string(), address.port()),
        prefix: "siteward/v1".to_owned(),
        sites: options.sites,
        events: options.events,
        over_ms: options.over.map_or(0, |over| u64::try_from(over.as_millis()).unwrap_or(u64::MAX)),
        acknowledge: options.acknowledge,
    };
    // In a thread of its own: the client of PostgreSQL has a runtime of its own, which must not begin in this one.
    let books = Keeper::open(database.clone(), Rules { from_start: true, hole_after_ms: 0 })?;
    let progress = Arc::new(CrowdProgress::default());
    let cores_before = Clock::cores_ms();
    let clock = Clock::start();
    let tasks = crowd::start(&crowd_options, &progress);
    let total = u64::try_from(options.sites).unwrap_or(0) * options.events;
    let (mut before, mut moved_ms) = ((0, 0), 0);
    loop {
        tokio::time::sleep(LOOK).await;
        let text = "SELECT CAST(COALESCE(SUM(contiguous), 0) AS BIGINT) FROM streams";
        let rows = answer(books.ask(move |ledger| ledger.query(text, &[])).await)?;
        let committed = rows.first().and_then(|row| row.first()).map_or(0, Datum::number);
        let acknowledged = progress.acknowledged.load(Ordering::Relaxed);
        if acknowledged >= total && u64::try_from(committed).unwrap_or(0) >= total {
            break;
        }
        let now_ms = clock.mono().ms();
        if before != (acknowledged, committed) {
            (before, moved_ms) = ((acknowledged, committed), now_ms);
        } else if now_ms - moved_ms > STANDSTILL_MS {
            return Err(format!(
                "{committed} of {total} events are committed, {acknowledged} acknowledged, and nothing moves"
            ));
        }
    }
    let took_ms = clock.mono().ms();
    drop(tasks);
    Ok(LoadReport {
        sites: options.sites,
        events: total,
        took_ms,
        published: progress.published.load(Ordering::Relaxed),
        replays: progress.replays.load(Ordering::Relaxed),
        cores_ms: [consumers.iter().map(Running::cores_ms).sum(), broker.cores_ms(), Clock::cores_ms() - cores_before],
        expected: crowd::expected(&crowd_options),
        books: answer(books.ask(Ledger::report).await)?,
    })
}

fn answer<T>(answer: Result<Result<T, String>, oneshot::error::RecvError>) -> Result<T, String> {
    answer.map_err(|_| "the thread of the books has ended".to_owned())?
}

/// A consumer as a process of its own.
fn consumer(
    options: &LoadOptions,
    (database, broker, log): (&str, &Mosquitto, &Path),
    sim: &Path,
) -> Result<Running, String> {
    let address = broker.address().to_string();
    let mut arguments = vec!["cloud", "--broker", &address, "--database", database, "--from-start"];
    if options.instances > 1 {
        arguments.extend(["--share", "fleet"]);
    }
    if options.acknowledge == Acknowledge::Broker {
        arguments.push("--no-acknowledge");
    }
    let recipe = Recipe::new(sim, &arguments, log).leashed(sim);
    recipe.start().map_err(|error| error.to_string())
}

/// This program.
///
/// # Errors
/// If the system does not say where it is.
pub fn this_program() -> Result<PathBuf, String> {
    std::env::current_exe().map_err(|error| error.to_string())
}
