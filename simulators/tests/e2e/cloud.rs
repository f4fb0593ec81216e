//! The simulated cloud and the demo's broker, without a daemon: what the end-to-end tests rest on.

use std::net::SocketAddr;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use serde_json::{Value, json};
use siteward_sim::demo::layout::free_address;
use siteward_sim::net::broker;
use siteward_sim::net::clock::Clock;
use siteward_sim::net::cloud::lock;
use siteward_sim::net::process::{Recipe, Running};
use tokio::runtime::Runtime;

use crate::rig::{Cloud, PATIENCE, sim};

/// A site that only speaks MQTT.
struct Site {
    client: AsyncClient,
    events: EventLoop,
}

impl Site {
    async fn connect(broker: SocketAddr) -> Self {
        let mut options = MqttOptions::new("site", broker.ip().to_string(), broker.port());
        options.set_keep_alive(Duration::from_secs(5));
        let (client, events) = AsyncClient::new(options, 16);
        let mut site = Self { client, events };
        site.client.subscribe("siteward/v1/e2e/commands", QoS::AtLeastOnce).await.unwrap();
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

    async fn say(&self, sequences: &[u64]) {
        for sequence in sequences {
            let event = json!({ "sequence": sequence, "type": "siteward.alarm.raised", "data": {} }).to_string();
            self.client.publish("siteward/v1/e2e/events", QoS::AtLeastOnce, false, event).await.unwrap();
        }
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

fn broker_at(address: SocketAddr, directory: &std::path::Path) -> Running {
    let listen = address.to_string();
    let recipe = Recipe::new(sim(), &["broker", "--listen", listen.as_str()], &directory.join("log")).leashed(sim());
    let running = recipe.start().unwrap();
    let clock = Clock::start();
    while !broker::answers(address) {
        assert!(u128::from(clock.mono().ms()) < PATIENCE.as_millis(), "the broker does not start");
        std::thread::yield_now();
    }
    running
}

fn until(cloud: &Cloud, connected: bool) {
    let clock = Clock::start();
    while lock(&cloud.state).connected != connected {
        assert!(u128::from(clock.mono().ms()) < PATIENCE.as_millis(), "the cloud is not connected: {connected}");
        std::thread::yield_now();
    }
}

#[test]
fn the_cloud_acknowledges_what_it_has_and_asks_for_what_it_misses_across_a_broker_without_memory() {
    let directory = tempfile::tempdir().unwrap();
    let address = free_address().unwrap();
    let broker = broker_at(address, directory.path());
    let cloud = Cloud::new(address);
    until(&cloud, true);
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let mut site = Site::connect(address).await;
        site.say(&[1, 2]).await;
        site.hears("events.acknowledge", &json!({ "sequence": 2 })).await;
        site.say(&[5]).await;
        site.hears("events.replay", &json!({ "from_sequence": 3 })).await;
        site.say(&[3, 4, 5]).await;
        site.hears("events.acknowledge", &json!({ "sequence": 5 })).await;
    });
    drop(broker);
    until(&cloud, false);
    let _broker = broker_at(address, directory.path());
    until(&cloud, true);
    runtime.block_on(async {
        let mut site = Site::connect(address).await;
        // What is sent again is dropped, and the acknowledgement said again.
        site.say(&[4, 5, 6]).await;
        site.hears("events.acknowledge", &json!({ "sequence": 6 })).await;
    });
    let state = lock(&cloud.state);
    assert_eq!((state.consumer.last(), state.consumer.duplicates(), state.gaps, state.losses), (6, 2, 1, 1));
}
