//! The cloud: a consumer of `P/events` on MQTT 5 that keeps the last sequence, acknowledges what it has, and asks again for what
//! it misses.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use serde::Deserialize;
use serde_json::json;

use crate::cloud::{Arrival, CloudConsumer};

/// How long until a lost broker is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// How often what came is acknowledged, and what is missing asked for again, at most.
const BETWEEN_COMMANDS: Duration = Duration::from_millis(200);
/// How long a replay may take before it is asked for again.
const REPLAY_PATIENCE_ROUNDS: u32 = 15;
/// Requests of ours that wait for the event loop: a subscription for each topic, an acknowledgement, a replay, and room.
const REQUESTS: usize = 16;

/// What to consume.
#[derive(Clone, Debug)]
pub struct CloudOptions {
    /// The broker.
    pub broker: SocketAddr,
    /// `P` of the contract: `<topic_prefix>/<site.id>`.
    pub prefix: String,
    /// The first sequence wanted; `None`: whatever comes first.
    pub from: Option<u64>,
}

/// What the cloud has heard so far.
#[derive(Clone, Debug, Default)]
pub struct CloudState {
    /// The ledger of events.
    pub consumer: CloudConsumer,
    /// Whether the broker is connected.
    pub connected: bool,
    /// What the site's retained `P/connection` says of itself.
    pub site_online: Option<bool>,
    /// How many gaps were seen; each was asked for again.
    pub gaps: u64,
    /// The first sequence that is missing right now although a later one came.
    pub gap: Option<u64>,
    /// How often the broker was lost.
    pub losses: u64,
    /// What happened, for whoever prints it; emptied by [`CloudState::take_news`]. Bounded: the oldest go first.
    news: Vec<String>,
    begun: bool,
}

impl CloudState {
    /// What happened since the last call.
    pub fn take_news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.news)
    }

    fn tell(&mut self, text: String) {
        // Nobody reads more than a screen of it.
        if self.news.len() >= 100 {
            self.news.remove(0);
        }
        self.news.push(text);
    }

    /// Takes in an event. One that lies beyond a gap is left to the replay: everything is folded in order.
    fn event(&mut self, payload: &[u8], from: Option<u64>) {
        let text = String::from_utf8_lossy(payload);
        let Some(sequence) = sequence_of(&text) else {
            self.consumer.receive(&text);
            self.tell(format!("unreadable event: {}", text.chars().take(200).collect::<String>()));
            return;
        };
        let next = self.consumer.last() + 1;
        let joins_late = from.is_none() && !self.begun;
        if sequence > next && !joins_late {
            if self.gap.is_none() {
                self.gaps += 1;
                self.tell(format!("gap: {sequence} came, {next} is next; asking for a replay"));
            }
            self.gap = Some(next);
            return;
        }
        self.begun = true;
        if matches!(self.consumer.receive(&text), Arrival::Next | Arrival::Gap(_)) {
            self.gap = None;
        }
    }
}

/// The state, shared with whoever shows it.
pub type Shared = Arc<Mutex<CloudState>>;

/// Looks at shared state, whatever happened to the last one who did.
pub fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Consumes until it is dropped.
pub async fn consume(options: CloudOptions, state: Shared) {
    // A name of its own for each consumer: a broker throws the older one of two with the same name out.
    let name = format!("siteward-sim-cloud-{}", std::process::id());
    let mut mqtt = MqttOptions::new(name, options.broker.ip().to_string(), options.broker.port());
    mqtt.set_keep_alive(Duration::from_secs(5));
    mqtt.set_connection_timeout(2);
    // The largest event is far below; rumqttc's default of 10 kB is not.
    mqtt.set_max_packet_size(Some(1 << 20));
    let (client, mut events) = AsyncClient::new(mqtt, REQUESTS);
    let mut commands = tokio::time::interval(BETWEEN_COMMANDS);
    commands.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut speaker = Speaker::default();
    loop {
        tokio::select! {
            polled = poll(&mut events, &client, &options, &state) => {
                if !polled {
                    tokio::time::sleep(RETRY).await;
                }
            }
            _ = commands.tick() => speaker.speak(&client, &options, &state),
        }
    }
}

/// One step of the event loop. Says whether the connection stands.
async fn poll(events: &mut EventLoop, client: &AsyncClient, options: &CloudOptions, state: &Shared) -> bool {
    match events.poll().await {
        Ok(Event::Incoming(Packet::ConnAck(_))) => {
            for (topic, qos) in
                [("events", QoS::AtLeastOnce), ("responses", QoS::AtLeastOnce), ("connection", QoS::AtLeastOnce)]
            {
                // The queue is empty right after a connection: these fit.
                let _ = client.try_subscribe(format!("{}/{topic}", options.prefix), qos);
            }
            let mut state = lock(state);
            state.connected = true;
            state.tell("connected to the broker".to_owned());
            true
        }
        Ok(Event::Incoming(Packet::Publish(publish))) => {
            take(&publish, options, &mut lock(state));
            true
        }
        Ok(_) => true,
        Err(error) => {
            let mut state = lock(state);
            if state.connected {
                state.losses += 1;
                state.tell(format!("broker lost: {error}"));
            }
            state.connected = false;
            false
        }
    }
}

fn take(publish: &Publish, options: &CloudOptions, state: &mut CloudState) {
    let topic = String::from_utf8_lossy(&publish.topic);
    match topic.strip_prefix(&options.prefix) {
        Some("/events") => state.event(&publish.payload, options.from),
        Some("/connection") => {
            let online =
                serde_json::from_slice::<Connection>(&publish.payload).ok().map(|connection| connection.online);
            if online != state.site_online {
                state.tell(format!(
                    "the site says that it is {}",
                    if online == Some(true) { "online" } else { "offline" }
                ));
            }
            state.site_online = online;
        }
        Some("/responses") => {
            let response = serde_json::from_slice::<Response>(&publish.payload);
            if let Ok(response) = response
                && response.status != "accepted"
            {
                state.tell(format!(
                    "command {}: {} {}",
                    response.id,
                    response.status,
                    response.error.unwrap_or_default()
                ));
            }
        }
        _ => {}
    }
}

#[derive(Deserialize)]
struct Connection {
    online: bool,
}

#[derive(Deserialize)]
struct Response {
    id: String,
    status: String,
    error: Option<String>,
}

/// What the cloud last said to the site.
#[derive(Debug, Default)]
struct Speaker {
    acknowledged: u64,
    was_connected: bool,
    asked_for: Option<u64>,
    asked_rounds_ago: u32,
    number: u64,
}

impl Speaker {
    /// Acknowledges what is new, and asks for what is missing. After a reconnect both are said again: what was under way is lost.
    fn speak(&mut self, client: &AsyncClient, options: &CloudOptions, state: &Shared) {
        let (connected, last, gap) = {
            let state = lock(state);
            (state.connected, state.consumer.last(), state.gap)
        };
        let reconnected = connected && !self.was_connected;
        self.was_connected = connected;
        if !connected {
            return;
        }
        if last > 0 && (last != self.acknowledged || reconnected) {
            let sent = self.command(client, options, "events.acknowledge", &json!({ "sequence": last }));
            if sent {
                self.acknowledged = last;
            }
        }
        self.asked_rounds_ago += 1;
        let overdue = self.asked_rounds_ago >= REPLAY_PATIENCE_ROUNDS;
        match gap {
            None => self.asked_for = None,
            Some(first) if self.asked_for != Some(first) || overdue || reconnected => {
                if self.command(client, options, "events.replay", &json!({ "from_sequence": first })) {
                    self.asked_for = Some(first);
                    self.asked_rounds_ago = 0;
                }
            }
            Some(_) => {}
        }
    }

    /// Whether the event loop took it. If not, it is full, and the next round tries again.
    fn command(&mut self, client: &AsyncClient, options: &CloudOptions, kind: &str, data: &serde_json::Value) -> bool {
        self.number += 1;
        // Unique over restarts of the cloud too: the site answers a known id from memory.
        let id = format!("{kind}-{}-{}", std::process::id(), self.number);
        let body = json!({ "id": id, "type": kind, "data": data }).to_string();
        client.try_publish(format!("{}/commands", options.prefix), QoS::AtLeastOnce, false, body).is_ok()
    }
}

fn sequence_of(text: &str) -> Option<u64> {
    let sequence = serde_json::from_str::<serde_json::Value>(text).ok()?.get("sequence")?.clone();
    sequence.as_u64().or_else(|| sequence.as_str().and_then(|text| text.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(sequence: u64) -> Vec<u8> {
        json!({ "sequence": sequence, "type": "siteward.alarm.raised", "data": {} }).to_string().into_bytes()
    }

    #[test]
    fn events_beyond_a_gap_wait_for_the_replay() {
        let mut state = CloudState::default();
        for sequence in [1, 2, 5, 6] {
            state.event(&event(sequence), Some(1));
        }
        assert_eq!((state.consumer.last(), state.gap, state.gaps), (2, Some(3), 1));
        for sequence in [3, 4, 5, 6] {
            state.event(&event(sequence), Some(1));
        }
        assert_eq!((state.consumer.last(), state.gap, state.consumer.missing()), (6, None, 0));
    }

    #[test]
    fn one_who_joins_late_begins_with_what_comes() {
        let mut state = CloudState::default();
        state.event(&event(500), None);
        state.event(&event(501), None);
        assert_eq!((state.consumer.last(), state.gap, state.gaps), (501, None, 0));
    }
}
