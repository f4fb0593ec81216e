//! The reference consumer as a process, with mosquitto and simulated sites: killed in the middle, shared, with gaps, with a database that is busy.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use serde_json::{Value, json};
use siteward::engine::model::setup::Acknowledge;
use siteward_sim::net::clock::Clock;
use siteward_sim::net::fleet::crowd::{self, CrowdOptions, CrowdProgress};
use siteward_sim::net::fleet::ledger::{Ledger, Rules};
use siteward_sim::net::fleet::report::Report;
use siteward_sim::net::mosquitto::Mosquitto;
use siteward_sim::net::process::{Recipe, Running};
use siteward_sim::rng::Dice;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::rig::{PATIENCE, sim, siteward};

const LOOK: Duration = Duration::from_millis(50);

/// A broker and a place for books.
struct Place {
    directory: TempDir,
    broker: Mosquitto,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("siteward-fleet-").tempdir().unwrap();
        let broker = Mosquitto::start(directory.path(), false, sim()).unwrap();
        Self { directory, broker }
    }

    fn database(&self) -> String {
        self.directory.path().join("books.sqlite").display().to_string()
    }

    fn consumer(&self, more: &[&str]) -> Running {
        let (address, database) = (self.broker.address().to_string(), self.database());
        let mut arguments = vec!["cloud", "--broker", &address, "--database", &database];
        arguments.extend(more);
        Recipe::new(sim(), &arguments, &self.log()).leashed(sim()).start().unwrap()
    }

    fn log(&self) -> std::path::PathBuf {
        self.directory.path().join("cloud.log")
    }

    fn books(&self) -> Ledger {
        Ledger::open(&self.database(), Rules { from_start: true, hole_after_ms: 0 }).unwrap()
    }

    fn report(&self) -> Report {
        self.books().report().unwrap()
    }

    /// Waits until `done`.
    fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let clock = Clock::start();
        while !done() {
            let log = || std::fs::read_to_string(self.log()).unwrap_or_default();
            assert!(
                u128::from(clock.mono().ms()) < PATIENCE.as_millis(),
                "it does not come to pass that {what}:\n{}",
                log()
            );
            std::thread::sleep(LOOK);
        }
    }
}

/// A crowd on a runtime of its own, and what it must look like in the books.
fn crowd(place: &Place, acknowledge: Acknowledge) -> (Runtime, CrowdOptions, Arc<CrowdProgress>) {
    let address = place.broker.address();
    let options = CrowdOptions {
        broker: (address.ip().to_string(), address.port()),
        prefix: "siteward/v1".to_owned(),
        sites: 20,
        events: 200,
        over_ms: 4_000,
        acknowledge,
    };
    let runtime = Runtime::new().unwrap();
    let progress = Arc::new(CrowdProgress::default());
    let mut tasks = {
        let _inside = runtime.enter();
        crowd::start(&options, &progress)
    };
    // It ends with the runtime.
    runtime.spawn(async move { while tasks.join_next().await.is_some() {} });
    (runtime, options, progress)
}

fn assert_books_of(place: &Place, options: &CrowdOptions) {
    let (starts, ends, energy_wh) = crowd::expected(options);
    let report = place.report();
    assert!(report.is_whole(), "{report}");
    let found = [report.events, report.transactions, report.ended].map(|number| u64::try_from(number).unwrap());
    assert_eq!(found, [u64::try_from(options.sites).unwrap() * options.events, starts, ends]);
    assert_eq!(report.energy_wh, energy_wh);
}

fn committed(place: &Place) -> u64 {
    let text = "SELECT CAST(COALESCE(SUM(contiguous), 0) AS BIGINT) FROM streams";
    let rows = place.books().query(text, &[]).unwrap();
    u64::try_from(rows[0][0].number()).unwrap()
}

#[test]
fn a_consumer_that_is_killed_in_the_middle_has_every_event_once() {
    for acknowledge in [Acknowledge::Application, Acknowledge::Broker] {
        let place = Place::new();
        let mut consumer = place.consumer(&["--from-start"]);
        let (_runtime, options, progress) = crowd(&place, acknowledge);
        let mut dice = Dice::new(1);
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(dice.between(100, 900)));
            drop(consumer);
            consumer = place.consumer(&["--from-start"]);
        }
        let all = u64::try_from(options.sites).unwrap() * options.events;
        place.until("everything is committed and acknowledged", || {
            progress.acknowledged.load(Ordering::Relaxed) == all && committed(&place) == all
        });
        assert_books_of(&place, &options);
        let report =
            std::process::Command::new(sim()).args(["cloud", "--report", "--database", &place.database()]).output();
        let report = report.unwrap();
        assert!(report.status.success(), "{report:?}");
        assert!(String::from_utf8_lossy(&report.stdout).contains("4000 events, 0 missing"), "{report:?}");
    }
}

#[test]
fn two_consumers_share_the_events_and_one_of_them_is_killed() {
    let place = Place::new();
    let share = ["--from-start", "--share", "fleet", "--hole-after", "500"];
    let (mut one, _other) = (place.consumer(&share), place.consumer(&share));
    let (_runtime, options, progress) = crowd(&place, Acknowledge::Application);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(700));
        drop(one);
        one = place.consumer(&share);
    }
    let all = u64::try_from(options.sites).unwrap() * options.events;
    place.until("everything is committed and acknowledged", || {
        progress.acknowledged.load(Ordering::Relaxed) == all && committed(&place) == all
    });
    assert_books_of(&place, &options);
}

/// A site that says what the test wants.
struct Site {
    client: AsyncClient,
    events: EventLoop,
}

impl Site {
    async fn connect(place: &Place) -> Self {
        let address = place.broker.address();
        let mut options = MqttOptions::new("site", address.ip().to_string(), address.port());
        // A test that waits for something else does not ping meanwhile.
        options.set_keep_alive(PATIENCE);
        let (client, events) = AsyncClient::new(options, 64);
        let mut site = Self { client, events };
        site.client.subscribe("siteward/v1/depot/commands", QoS::AtLeastOnce).await.unwrap();
        while !matches!(site.next().await, Packet::SubAck(_)) {}
        site
    }

    async fn next(&mut self) -> Packet {
        loop {
            let polled = tokio::time::timeout(PATIENCE, self.events.poll()).await.expect("the broker says nothing");
            if let Event::Incoming(packet) = polled.unwrap() {
                return packet;
            }
        }
    }

    async fn say(&self, store: &str, sequences: &[u64]) {
        for sequence in sequences {
            let event = json!({
                "id": format!("{store}-{sequence}"), "source": "/siteward/depot", "sequence": sequence,
                "type": "siteward.alarm.raised", "time": "2026-03-01T12:00:00.000Z", "data": {},
            });
            let text = event.to_string();
            self.client.publish("siteward/v1/depot/events", QoS::AtLeastOnce, false, text).await.unwrap();
        }
    }

    async fn online(&self) {
        let text = r#"{"online": true}"#;
        self.client.publish("siteward/v1/depot/connection", QoS::AtLeastOnce, true, text).await.unwrap();
    }

    /// Waits for a command.
    async fn hears(&mut self, kind: &str, data: &Value) {
        loop {
            if let Packet::Publish(publish) = self.next().await {
                let command: Value = serde_json::from_slice(&publish.payload).unwrap();
                if command["type"] == kind && command["data"] == *data {
                    return;
                }
            }
        }
    }
}

#[test]
fn what_is_committed_is_acknowledged_and_what_is_missing_is_asked_for() {
    let place = Place::new();
    // The prefix with the site's id, as for one site alone.
    let mut consumer = place.consumer(&["--from-start", "--prefix", "siteward/v1/depot"]);
    place.until("the consumer is connected", || logged(&place.log(), "connected to the broker"));
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let mut site = Site::connect(&place).await;
        site.say("s", &[1, 2]).await;
        site.hears("events.acknowledge", &json!({ "sequence": 2, "store_id": "s" })).await;
        site.say("s", &[5]).await;
        site.hears("events.replay", &json!({ "from_sequence": 3 })).await;
        site.say("s", &[3, 4, 5]).await;
        site.hears("events.acknowledge", &json!({ "sequence": 5, "store_id": "s" })).await;
        // What it sends again was not acknowledged in its eyes.
        site.say("s", &[4, 5]).await;
        site.hears("events.acknowledge", &json!({ "sequence": 5, "store_id": "s" })).await;
        // A new store counts from 1, and is wanted whole.
        site.say("t", &[2]).await;
        site.hears("events.replay", &json!({ "from_sequence": 1 })).await;
        site.say("t", &[1, 2]).await;
        site.hears("events.acknowledge", &json!({ "sequence": 2, "store_id": "t" })).await;
        // Nobody knows whether something was sent while the consumer was away: it asks.
        consumer.kill();
        site.online().await;
        consumer = place.consumer(&["--from-start", "--prefix", "siteward/v1"]);
        site.hears("events.replay", &json!({ "from_sequence": 3 })).await;
    });
    let report = place.report();
    assert_eq!((report.streams.len(), report.events, report.missing), (2, 7, 0), "{report}");
}

#[test]
fn while_the_database_is_busy_nothing_is_acknowledged_and_afterwards_everything() {
    let place = Place::new();
    let _consumer = place.consumer(&["--from-start"]);
    place.until("the consumer is connected", || logged(&place.log(), "connected to the broker"));
    let other = rusqlite::Connection::open(place.database()).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let mut site = Site::connect(&place).await;
        site.say("s", &[1, 2, 3]).await;
        let all = json!({ "sequence": 3, "store_id": "s" });
        let quiet = tokio::time::timeout(Duration::from_secs(3), site.hears("events.acknowledge", &all)).await;
        assert!(quiet.is_err(), "acknowledged without being committed");
        place.until("it is said", || logged(&place.log(), "none of them is acknowledged"));
        other.execute_batch("ROLLBACK").unwrap();
        site.hears("events.acknowledge", &all).await;
    });
    assert_eq!(place.report().events, 3);
}

fn logged(log: &Path, text: &str) -> bool {
    std::fs::read_to_string(log).unwrap_or_default().contains(text)
}

#[test]
fn nothing_is_lost_or_doubled_while_daemon_broker_and_consumer_are_killed() {
    let siteward = siteward();
    let mut arguments =
        vec!["soak-cloud", "--stations", "12", "--kills", "10", "--broker-kills", "3", "--broker-wipes", "1"];
    arguments.extend(["--link-cut", "4s", "--seed", "1", "--siteward"]);
    let output = std::process::Command::new(sim()).args(arguments).arg(siteward).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("0 lost, 0 doubled"), "{said}");
}
