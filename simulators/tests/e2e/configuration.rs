//! Configurations that come by command, and by SIGHUP: taken over, confirmed, refused, taken back.

use std::net::SocketAddr;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::rig::{Mosquitto, PATIENCE, Rig};

/// The operator: sends commands, and hears answers and events.
struct Operator {
    runtime: Runtime,
    client: AsyncClient,
    events: EventLoop,
}

impl Operator {
    fn at(broker: SocketAddr) -> Self {
        let runtime = Runtime::new().unwrap();
        let mut options = MqttOptions::new("operator", broker.ip().to_string(), broker.port());
        options.set_keep_alive(Duration::from_secs(5));
        options.set_max_packet_size(Some(1 << 20));
        let (client, events) = AsyncClient::new(options, 16);
        let operator = Self { runtime, client, events };
        operator.runtime.block_on(async {
            for topic in ["responses", "events"] {
                operator.client.subscribe(format!("siteward/v1/e2e/{topic}"), QoS::AtLeastOnce).await.unwrap();
            }
        });
        operator
    }

    /// The first message of a topic for which `is` gives something.
    fn hear<T>(&mut self, what: &str, topic: &str, is: impl Fn(&Value) -> Option<T>) -> T {
        let wanted = format!("siteward/v1/e2e/{topic}");
        self.runtime.block_on(async {
            let found = async {
                loop {
                    if let Event::Incoming(Packet::Publish(publish)) = self.events.poll().await.unwrap()
                        && publish.topic == wanted.as_bytes()
                        && let Some(found) = is(&serde_json::from_slice(&publish.payload).unwrap())
                    {
                        return found;
                    }
                }
            };
            tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("it is not heard: {what}"))
        })
    }

    /// Sends a command; its answer.
    fn ask(&mut self, id: &str, kind: &str, data: &Value) -> Value {
        let command = json!({ "id": id, "type": kind, "data": data }).to_string();
        self.runtime.block_on(async {
            self.client.publish("siteward/v1/e2e/commands", QoS::AtLeastOnce, false, command).await.unwrap();
        });
        self.hear(kind, "responses", |answer| (answer["id"] == id).then(|| answer.clone()))
    }

    /// Waits for the event of a change of the configuration.
    fn hears_of(&mut self, cause: &str) {
        self.hear(cause, "events", |event| {
            let changed = event["type"] == "siteward.configuration.changed";
            (changed && event["data"]["cause"].as_str().is_some_and(|told| told.starts_with(cause))).then_some(())
        });
    }
}

fn limit_a(rig: &Rig) -> f64 {
    rig.circuit().configured_limit_a[0]
}

fn until_connected(rig: &Rig) {
    rig.until("the broker is connected", || {
        rig.status().and_then(|status| status.cloud).is_some_and(|cloud| cloud.connected)
    });
}

#[test]
fn a_configuration_is_taken_over_confirmed_and_one_that_does_not_work_is_taken_back() {
    let mosquitto = Mosquitto::started("allow_anonymous true");
    let rig = Rig::started(&format!("{}probation_s = 15\n", mosquitto.section()));
    let mut operator = Operator::at(mosquitto.address);
    until_connected(&rig);
    let file = rig.directory.path().join("site.toml");
    let text = std::fs::read_to_string(&file).unwrap();

    let higher = text.replace("limit_a = 40", "limit_a = 41");
    let refused = operator.ask("c1", "configuration.put", &json!({ "toml": higher }));
    assert_eq!(refused["status"], "rejected", "{refused}");
    assert!(refused["error"].as_str().unwrap().contains("can only be raised on site"), "{refused}");

    let lower = text.replace("limit_a = 40", "limit_a = 32");
    let accepted = operator.ask("c2", "configuration.put", &json!({ "toml": lower }));
    assert_eq!((&accepted["status"], &accepted["data"]["probation_s"]), (&json!("accepted"), &json!(15)), "{accepted}");
    operator.hears_of("configuration.put");
    rig.until("the new limit holds", || (limit_a(&rig) - 32.0).abs() < 0.01);
    operator.hears_of("confirmed");
    let got = operator.ask("c3", "configuration.get", &json!({}));
    assert_eq!((&got["data"]["source"], &got["data"]["probation"]), (&json!("configuration.put"), &json!(false)));
    assert_eq!(got["data"]["toml"], json!(lower));

    // A broker that is not there: nobody could ever undo it by command.
    let gone = lower.replace(&format!("mqtt://{}", mosquitto.address), "mqtt://127.0.0.1:1");
    assert_eq!(operator.ask("c4", "configuration.put", &json!({ "toml": gone }))["status"], "accepted");
    operator.hears_of("rolled back to the one before: the broker is not connected");
    until_connected(&rig);
    assert!((limit_a(&rig) - 32.0).abs() < 0.01, "the confirmed one holds again");
    let log = operator.ask("c5", "log.get", &json!({ "lines": 50 }));
    let lines = log["data"]["lines"].as_array().unwrap();
    assert!(lines.iter().any(|line| line.as_str().unwrap().contains("rolled back")), "{log}");

    // Over a kill it stays; whoever changes the file on site has the last word.
    rig.kill();
    rig.start();
    assert!((limit_a(&rig) - 32.0).abs() < 0.01);
    std::fs::write(&file, text.replace("limit_a = 40", "limit_a = 36")).unwrap();
    rig.hang_up();
    operator.hears_of("site.toml was changed on site");
    rig.until("the file holds", || (limit_a(&rig) - 36.0).abs() < 0.01);

    std::fs::write(&file, "[site").unwrap();
    rig.hang_up();
    rig.until_logged("refused, the running configuration stays");
    assert_eq!(rig.stop(), Some(0));
}
