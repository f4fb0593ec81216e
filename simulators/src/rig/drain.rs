//! How fast a backlog leaves: a real journal, the real daemon and mosquitto, against the rate at which the same MQTT client publishes to the same
//! broker with the same window and nothing else to do.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use siteward::engine::cloud::messages::Messages;
use siteward::engine::model::ids::{Sequence, SiteId};
use siteward::engine::site::io::{Input, JournalInput};
use siteward::engine::site::ledger::Ledger;
use siteward::shell::clock::Clock as SystemClock;
use siteward::shell::journal::{HISTORY, Journal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::bytes_below;
use crate::demo::layout::free_address;
use crate::net::clock::Clock;
use crate::net::cloud::lock;
use crate::net::fleet::crowd;
use crate::net::mosquitto::Mosquitto;
use crate::net::process::Recipe;

/// Publications without PUBACK, as the daemon has.
const WINDOW: u16 = 100;
/// Records in one call to the journal.
const BATCH: u64 = 500;
/// Different payloads of the raw publisher.
const PAYLOADS: u64 = 1_000;
/// Nothing may stand still for longer, in ms.
const STANDSTILL_MS: u64 = 120_000;
const SITE: &str = "drain";

/// What was measured.
#[derive(Clone, Debug)]
pub struct DrainReport {
    /// How many events.
    pub events: u64,
    /// From the first event to the last at the subscriber, published by the client alone, in ms.
    pub raw_ms: u64,
    /// The same, drained by the daemon.
    pub drained_ms: u64,
    /// From the start of the daemon to the first event, in ms.
    pub start_ms: u64,
    /// The store, in bytes.
    pub store_bytes: u64,
}

impl DrainReport {
    /// The daemon's rate as a part of the client's, in percent.
    #[must_use]
    pub fn percent(&self) -> u64 {
        self.raw_ms * 100 / self.drained_ms.max(1)
    }
}

impl fmt::Display for DrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |ms: u64| self.events * 1_000 / ms.max(1);
        write!(
            f,
            "a backlog of {} events ({} MB on disk): the daemon drains {} events/s, the client alone publishes {}/s: {} % of it (goal: 70 %); the first event came {} ms after the start",
            self.events,
            self.store_bytes / 1_000_000,
            rate(self.drained_ms),
            rate(self.raw_ms),
            self.percent(),
            self.start_ms
        )
    }
}

/// Measures. Call it on the main thread: the processes die with the thread that starts them.
///
/// # Errors
/// If something does not start, or stands still.
pub async fn measure(events: u64, siteward: &Path, sim: &Path, say: fn(&str)) -> Result<DrainReport, String> {
    let directory = tempfile::Builder::new().prefix("siteward-drain-").tempdir().map_err(|error| error.to_string())?;
    let broker = Mosquitto::start(directory.path(), false, sim)?;
    let store = directory.path().join("store");
    say(&format!("writing a journal of {events} records"));
    fill(&store, events).await?;
    let store_bytes = bytes_below(&store);
    let clock = Clock::start();
    let mut tasks = JoinSet::new();
    let raw = Subscriber::start("raw", &broker, &mut tasks, clock);
    raw.ready().await?;
    tasks.spawn(publish(broker.address().port(), events));
    let raw_ms = raw.count(events, clock).await?.1;
    let drained = Subscriber::start(SITE, &broker, &mut tasks, clock);
    drained.ready().await?;
    let config = directory.path().join("site.toml");
    std::fs::write(&config, configuration(&broker, &store)?).map_err(|error| error.to_string())?;
    let arguments = [Path::new("run"), Path::new("--config"), config.as_path()];
    let recipe = Recipe::new(siteward, &arguments, &directory.path().join("siteward.log")).leashed(sim);
    let began_ms = clock.mono().ms();
    let _daemon = recipe.start().map_err(|error| error.to_string())?;
    let (first_ms, drained_ms) = drained.count(events, clock).await?;
    Ok(DrainReport { events, raw_ms, drained_ms, start_ms: first_ms - began_ms, store_bytes })
}

/// Writes a journal as the daemon would have left it: durable, with a snapshot behind its last record, nothing acknowledged.
async fn fill(store: &Path, events: u64) -> Result<(), String> {
    std::fs::create_dir_all(store).map_err(|error| error.to_string())?;
    let opened = Journal::open(store, HISTORY, SystemClock::start()).map_err(|error| error.to_string())?;
    let (inbox, mut said) = mpsc::channel(1_024);
    let journal = opened.journal.start(inbox).map_err(|error| error.to_string())?;
    let mut ledger = Ledger::default();
    let (mut next, mut durable) = (1, 0);
    while durable < events {
        while next <= events && next <= durable + 4 * BATCH {
            let last = events.min(next + BATCH - 1);
            let records: Vec<_> = (next..=last).map(|sequence| crowd::record(0, sequence)).collect();
            records.iter().for_each(|record| ledger.apply(record));
            journal.append(records).map_err(|error| error.to_string())?;
            next = last + 1;
        }
        match said.recv().await {
            Some(Input::Journal(JournalInput::Durable { through })) => durable = through.0,
            Some(Input::Journal(JournalInput::Failed { error })) => return Err(error),
            Some(_) => {}
            None => return Err("the journal has ended".to_owned()),
        }
    }
    journal.snapshot(Sequence(events), ledger.snapshot()).map_err(|error| error.to_string())?;
    drop(said);
    tokio::task::spawn_blocking(move || journal.close()).await.map_err(|error| error.to_string())
}

/// The same client as the daemon's, with the same window and payloads as large, and nothing between them.
async fn publish(port: u16, events: u64) {
    let mut mqtt = MqttOptions::new("raw", "127.0.0.1", port);
    mqtt.set_keep_alive(Duration::from_secs(20));
    mqtt.set_outgoing_inflight_upper_limit(WINDOW);
    let (client, mut event_loop) = AsyncClient::new(mqtt, 128);
    let messages = Messages::new("siteward/v1", &SiteId::new("raw"), "0123456789abcdef");
    let payloads: Vec<String> =
        (1..=PAYLOADS.min(events)).map(|sequence| messages.event(&crowd::record(0, sequence)).payload).collect();
    let topic = messages.topics().events();
    let sender = async {
        for payload in payloads.iter().cycle().take(usize::try_from(events).unwrap_or(usize::MAX)) {
            // It waits while the window is full.
            if client.publish(&topic, QoS::AtLeastOnce, false, payload.clone()).await.is_err() {
                return;
            }
        }
        std::future::pending::<()>().await;
    };
    let poller = async { while event_loop.poll().await.is_ok() {} };
    tokio::select! {
        () = sender => {}
        () = poller => {}
    }
}

/// What a subscriber has seen: whether it is subscribed, how many events, and when the first and the last came.
#[derive(Debug, Default)]
struct Seen {
    subscribed: bool,
    count: u64,
    first_ms: u64,
    last_ms: u64,
}

struct Subscriber(Arc<Mutex<Seen>>);

impl Subscriber {
    fn start(site: &str, broker: &Mosquitto, tasks: &mut JoinSet<()>, clock: Clock) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let address = broker.address();
        let mut mqtt = MqttOptions::new(format!("subscriber-{site}"), address.ip().to_string(), address.port());
        mqtt.set_keep_alive(Duration::from_secs(20));
        mqtt.set_max_packet_size(Some(1 << 20));
        let (client, mut event_loop) = AsyncClient::new(mqtt, 16);
        let topic = format!("siteward/v1/{site}/events");
        let shared = seen.clone();
        tasks.spawn(async move {
            while let Ok(event) = event_loop.poll().await {
                match event {
                    // The queue is empty right after a connection.
                    Event::Incoming(Packet::ConnAck(_)) => drop(client.try_subscribe(topic.clone(), QoS::AtLeastOnce)),
                    Event::Incoming(Packet::SubAck(_)) => lock(&shared).subscribed = true,
                    Event::Incoming(Packet::Publish(_)) => {
                        let now_ms = clock.mono().ms();
                        let mut seen = lock(&shared);
                        seen.count += 1;
                        seen.last_ms = now_ms;
                        if seen.count == 1 {
                            seen.first_ms = now_ms;
                        }
                    }
                    _ => {}
                }
            }
        });
        Self(seen)
    }

    async fn ready(&self) -> Result<(), String> {
        for _ in 0..500 {
            if lock(&self.0).subscribed {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err("the broker does not take the subscription".to_owned())
    }

    /// When the first of so many came, and how long until the last, in ms.
    async fn count(&self, events: u64, clock: Clock) -> Result<(u64, u64), String> {
        let begun_ms = clock.mono().ms();
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let seen = lock(&self.0);
            // The daemon sends an event of its start behind them: the last one counted is one of these or that.
            if seen.count >= events {
                return Ok((seen.first_ms, seen.last_ms - seen.first_ms));
            }
            let still_since = seen.last_ms.max(begun_ms);
            if clock.mono().ms() - still_since > STANDSTILL_MS {
                return Err(format!("{} of {events} events came, and nothing moves", seen.count));
            }
        }
    }
}

fn configuration(broker: &Mosquitto, store: &Path) -> Result<String, String> {
    let (ocpp, api) = (free_address(), free_address());
    let (ocpp, api) = (ocpp.map_err(|error| error.to_string())?, api.map_err(|error| error.to_string())?);
    Ok(format!(
        r#"[site]
id = "{SITE}"
name = "A site with a backlog"
timezone = "Europe/Berlin"

[ocpp]
listen = "{ocpp}"

[api]
listen = "{api}"

[store]
path = {store}

[cloud]
url = "mqtt://{broker}"

[[circuits]]
id = "grid"
limit_a = 63

[[chargers]]
id = "CP001"
circuit = "grid"
phases = ["L1", "L2", "L3"]
max_a = 32
min_a = 6
fallback_a = 6
connectors = 1
"#,
        store = toml::Value::String(store.display().to_string()),
        broker = broker.address(),
    ))
}

/// The daemon's program beside this one.
///
/// # Errors
/// If the system does not say where this one is.
pub fn programs(siteward: Option<PathBuf>) -> Result<(PathBuf, PathBuf), String> {
    let sim = std::env::current_exe().map_err(|error| error.to_string())?;
    Ok((siteward.unwrap_or_else(|| sim.with_file_name("siteward")), sim))
}
