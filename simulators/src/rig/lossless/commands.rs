//! Somebody in the cloud who sends commands all the time, and each again until it is answered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::parts::PREFIX;
use crate::net::cloud::lock;
use crate::rng::Dice;

/// A command comes so often.
const EVERY: Duration = Duration::from_millis(300);
/// Rounds until one without an answer is sent again.
const AGAIN: u32 = 4;
/// Commands without an answer at most: the site remembers the last 1,000, and an older one may not come again.
const OPEN: usize = 50;

#[derive(Debug, Default)]
struct Said {
    /// Commands without an answer, and how many rounds ago they were sent.
    open: BTreeMap<String, (Value, u32)>,
    /// How each command was answered.
    answered: BTreeMap<String, String>,
    stopped: bool,
}

/// The sender.
#[derive(Debug)]
pub(super) struct Commands {
    said: Arc<Mutex<Said>>,
    task: JoinHandle<()>,
}

impl Drop for Commands {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Commands {
    /// Begins to send.
    pub(super) fn start(broker: SocketAddr, chargers: Vec<String>, seed: u64) -> Self {
        let said = Arc::new(Mutex::new(Said::default()));
        let task = tokio::spawn(speak(broker, (chargers, Dice::named(seed, "commands")), said.clone()));
        Self { said, task }
    }

    /// No new ones from now on; those that are open are still sent again.
    pub(super) fn stop(&self) {
        lock(&self.said).stopped = true;
    }

    /// Whether every command has its answer.
    pub(super) fn all_answered(&self) -> bool {
        lock(&self.said).open.is_empty()
    }

    /// The ids of all that were answered, with their statuses.
    pub(super) fn answered(&self) -> BTreeMap<String, String> {
        lock(&self.said).answered.clone()
    }
}

async fn speak(broker: SocketAddr, (chargers, mut dice): (Vec<String>, Dice), said: Arc<Mutex<Said>>) {
    let mut number = 0;
    loop {
        let mut mqtt = MqttOptions::new("soak-commands", broker.ip().to_string(), broker.port());
        mqtt.set_keep_alive(Duration::from_secs(5));
        mqtt.set_max_packet_size(Some(1 << 20));
        let (client, mut events) = AsyncClient::new(mqtt, 4 * OPEN);
        let mut round = interval(EVERY);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = timeout(Duration::from_secs(20), events.poll()) => match event {
                    Ok(Ok(Event::Incoming(Packet::ConnAck(_)))) => {
                        // The queue is empty right after a connection.
                        let _ = client.try_subscribe(format!("{PREFIX}/soak/responses"), QoS::AtLeastOnce);
                    }
                    Ok(Ok(Event::Incoming(Packet::Publish(publish)))) => hear(&publish.payload, &mut lock(&said)),
                    Ok(Ok(_)) => {}
                    Ok(Err(_)) | Err(_) => break,
                },
                _ = round.tick() => {
                    let mut said = lock(&said);
                    if !said.stopped && said.open.len() < OPEN {
                        number += 1;
                        let id = format!("soak-{number}");
                        let command = invent(&id, &chargers, &mut dice);
                        said.open.insert(id, (command, AGAIN));
                    }
                    for (command, rounds) in said.open.values_mut() {
                        *rounds += 1;
                        if *rounds > AGAIN {
                            *rounds = 0;
                            let text = command.to_string();
                            // Full: the next round tries again.
                            let _ = client.try_publish(format!("{PREFIX}/soak/commands"), QoS::AtLeastOnce, false, text);
                        }
                    }
                }
            }
        }
        sleep(EVERY).await;
    }
}

fn hear(payload: &[u8], said: &mut Said) {
    let Ok(response) = serde_json::from_slice::<Value>(payload) else { return };
    let (Some(id), Some(status)) = (response["id"].as_str(), response["status"].as_str()) else { return };
    if said.open.remove(id).is_some() {
        said.answered.insert(id.to_owned(), status.to_owned());
    }
}

/// Commands that change something, ask a station something, or make no sense.
fn invent(id: &str, chargers: &[String], dice: &mut Dice) -> Value {
    let charger = dice.pick(chargers).cloned().unwrap_or_default();
    let (kind, data) = match dice.below(5) {
        0 => ("limit.set", json!({ "charger": charger, "limit_a": 16 })),
        1 => ("limit.clear", json!({ "charger": charger })),
        2 => ("ocpp.call", json!({ "charger": charger, "action": "ClearCache", "payload": {} })),
        3 => ("charging.boost", json!({ "charger": charger, "connector": 1, "minutes": 1 })),
        _ => ("transaction.stop", json!({ "transaction": "no such transaction" })),
    };
    json!({ "id": id, "type": kind, "data": data })
}
