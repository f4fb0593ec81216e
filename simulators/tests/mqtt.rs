//! The link to a real broker: mosquitto, killed, restarted, refusing.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail the test")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish, PublishProperties};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use serde_json::{Value, json};
use siteward::config::Broker as At;
use siteward::engine::cloud::intake::read_command;
use siteward::engine::cloud::messages::{self, Messages};
use siteward::engine::cloud::outbox::{Outbox, OutboxAction};
use siteward::engine::model::command::{Command, CommandOutcome};
use siteward::engine::model::ids::{Sequence, SiteId};
use siteward::engine::model::record::{Record, RecordBody, Stamp};
use siteward::engine::model::setup::Acknowledge;
use siteward::engine::site::io::{CloudInput, Input, Publication};
use siteward::engine::time::{Mono, Utc};
use siteward::shell::clock::Clock;
use siteward::shell::mqtt::{self, CloudLink, TlsFiles};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// Nothing here takes so long unless it hangs.
const LONG: Duration = Duration::from_secs(60);

struct Broker {
    dir: TempDir,
    port: u16,
    child: Option<Child>,
}

impl Broker {
    fn start(access: &str) -> Self {
        // The port must be the same after a restart, so the system chooses it once.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = TempDir::new().unwrap();
        let config = format!("listener {port} 127.0.0.1\nuser root\npersistence false\n{access}\n");
        std::fs::write(dir.path().join("mosquitto.conf"), config).unwrap();
        let mut broker = Self { dir, port, child: None };
        broker.revive();
        broker
    }

    fn revive(&mut self) {
        let program = siteward_sim::net::mosquitto::program().unwrap();
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let child = Process::new(program)
            .arg("-c")
            .arg(self.dir.path().join("mosquitto.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Site {
    publications: mpsc::Sender<Publication>,
    inbox: mpsc::Receiver<Input>,
    shutdown: watch::Sender<bool>,
    task: JoinHandle<()>,
}

fn at(port: u16) -> At {
    At { host: "127.0.0.1".to_owned(), port }
}

fn link(port: u16) -> CloudLink {
    CloudLink {
        brokers: vec![at(port)],
        look_for_better: Duration::from_millis(300),
        tls: None,
        username: None,
        password: None,
        client_id: "siteward-test".to_owned(),
        topic_prefix: "siteward/v1".to_owned(),
        site: SiteId::new("test"),
        version: "0.1.0".to_owned(),
        clock: Clock::start(),
    }
}

impl Site {
    fn start(link: CloudLink) -> Self {
        let (publications, to_link) = mpsc::channel(256);
        let (from_link, inbox) = mpsc::channel(256);
        let (shutdown, stop) = watch::channel(false);
        let task = tokio::spawn(mqtt::run(link, to_link, from_link, stop));
        Self { publications, inbox, shutdown, task }
    }

    async fn next(&mut self) -> CloudInput {
        match tokio::time::timeout(LONG, self.inbox.recv()).await.expect("the link says something") {
            Some(Input::Cloud(input)) => input,
            other => panic!("{other:?}"),
        }
    }

    /// Skips the attempts before the broker listens.
    async fn connected(&mut self) {
        while self.next().await != CloudInput::Connected {}
    }
}

/// A client of the cloud's side, subscribed when this returns and reconnecting for ever; what it receives comes out of the channel.
async fn consumer(port: u16, name: &str, topic: &'static str) -> (AsyncClient, mpsc::Receiver<Publish>) {
    let mut options = MqttOptions::new(name, "127.0.0.1", port);
    options.set_keep_alive(Duration::from_secs(5));
    let (client, mut event_loop) = AsyncClient::new(options, 16);
    let (sender, receiver) = mpsc::channel(4_096);
    let subscriber = client.clone();
    let (ready, mut subscribed) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            match event_loop.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    let _ = subscriber.try_subscribe(topic, QoS::AtLeastOnce);
                }
                Ok(Event::Incoming(Packet::SubAck(_))) => {
                    let _ = ready.try_send(());
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    if sender.send(publish).await.is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                // The pace of its attempts while the broker is away.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    tokio::time::timeout(LONG, subscribed.recv()).await.expect("the broker takes the subscription");
    (client, receiver)
}

async fn received(messages: &mut mpsc::Receiver<Publish>) -> Publish {
    tokio::time::timeout(LONG, messages.recv()).await.expect("a message").expect("the consumer lives")
}

fn record(sequence: u64) -> Record {
    let stamp = Stamp { utc: Utc::from_unix_ms(0), trusted: true, mono: Mono::START, boot: 1 };
    Record { sequence: Sequence(sequence), stamp, body: RecordBody::StoreRecovered { missing: "nothing".to_owned() } }
}

/// What the site's engine does with the link: the outbox over a journal of `last` records.
async fn outbox_site(mut site: Site, last: u64) {
    let clock = Clock::start();
    let events = Messages::new("siteward/v1", &SiteId::new("test"), "store");
    let mut outbox = Outbox::new(Acknowledge::Application, Sequence(0));
    outbox.durable(Sequence(last));
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            input = site.inbox.recv() => match input {
                Some(Input::Cloud(CloudInput::Connected)) => outbox.connected(),
                Some(Input::Cloud(CloudInput::Disconnected { .. })) => outbox.disconnected(),
                Some(Input::Cloud(CloudInput::Acknowledged { sequences })) => {
                    sequences.into_iter().for_each(|sequence| outbox.broker_acknowledged(sequence));
                }
                Some(Input::Cloud(CloudInput::NotTaken { sequence, .. })) => outbox.not_taken(sequence, clock.mono()),
                Some(Input::Cloud(CloudInput::Message { payload, .. })) => match read_command(&payload).unwrap().command {
                    Command::EventsAcknowledge { sequence, .. } => outbox.application_acknowledged(sequence).unwrap(),
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            },
            _ = tick.tick() => {}
        }
        loop {
            let mut read = None;
            for action in outbox.poll(clock.mono()) {
                match action {
                    OutboxAction::Publish(record) => site.publications.try_send(events.event(&record)).unwrap(),
                    OutboxAction::Read { from, limit } => read = Some((from.0, limit)),
                    OutboxAction::Acknowledged(through) if through == Sequence(last) => return,
                    OutboxAction::Acknowledged(_) => {}
                }
            }
            let Some((from, limit)) = read else { break };
            outbox.records((from..=last).take(limit).map(record).collect());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_arrives_though_the_broker_is_killed_five_times() {
    const LAST: u64 = 2_000;
    let mut broker = Broker::start("allow_anonymous true");
    let (client, mut events) = consumer(broker.port, "cloud", "siteward/v1/test/events").await;
    let engine = tokio::spawn(outbox_site(Site::start(link(broker.port)), LAST));
    let mut kills = 0;
    let mut has = 0;
    let mut acknowledge = tokio::time::interval(Duration::from_millis(100));
    let all = async {
        while has < LAST || !engine.is_finished() {
            tokio::select! {
                Some(publish) = events.recv() => {
                    let event: Value = serde_json::from_slice(&publish.payload).unwrap();
                    let sequence = event["sequence"].as_u64().unwrap();
                    assert_eq!(event["id"], format!("store-{sequence}"));
                    if sequence == has + 1 {
                        has = sequence;
                    }
                    if kills < 5 && has > 300 * (kills + 1) {
                        kills += 1;
                        broker.kill();
                        broker.revive();
                    }
                }
                _ = acknowledge.tick() => {
                    let command = json!({ "id": format!("a{has}"), "type": "events.acknowledge", "data": { "sequence": has } });
                    let _ = client.try_publish("siteward/v1/test/commands", QoS::AtLeastOnce, false, command.to_string());
                }
            }
        }
    };
    tokio::time::timeout(LONG, all).await.expect("all events arrive");
    assert_eq!((has, kills), (LAST, 5));
    engine.await.unwrap();
}

/// Whether the broker has been told that the site is online, and not since that it is not.
async fn is_online_at(broker: &Broker) -> bool {
    let (_client, mut seen) = consumer(broker.port, "watcher", "siteward/v1/test/connection").await;
    match tokio::time::timeout(Duration::from_secs(2), seen.recv()).await {
        Ok(Some(publish)) => serde_json::from_slice::<Value>(&publish.payload).unwrap()["online"] == true,
        Ok(None) | Err(_) => false,
    }
}

#[tokio::test]
async fn the_next_broker_is_used_while_the_preferred_one_is_down_and_left_when_it_is_back() {
    let (mut first, mut second) = (Broker::start("allow_anonymous true"), Broker::start("allow_anonymous true"));
    first.kill();
    let mut site = Site::start(CloudLink { brokers: vec![at(first.port), at(second.port)], ..link(first.port) });
    site.connected().await;
    assert!(is_online_at(&second).await);
    first.revive();
    let told = site.next().await;
    let CloudInput::Disconnected { error } = told else { panic!("{told:?}") };
    assert!(error.contains("preferred"), "{error}");
    site.connected().await;
    assert!(is_online_at(&first).await);
    assert!(!is_online_at(&second).await, "it was told before it was left");
    second.kill();
    let quiet = tokio::time::timeout(Duration::from_secs(1), site.inbox.recv()).await;
    assert!(quiet.is_err(), "nothing is looked for from the preferred one: {quiet:?}");
}

#[tokio::test]
async fn online_is_retained_and_the_last_will_says_offline() {
    let broker = Broker::start("allow_anonymous true");
    let mut site = Site::start(link(broker.port));
    site.connected().await;
    let (_client, mut seen) = consumer(broker.port, "watcher", "siteward/v1/test/connection").await;
    let online: Value = serde_json::from_slice(&received(&mut seen).await.payload).unwrap();
    assert_eq!((&online["online"], &online["version"]), (&json!(true), &json!("0.1.0")));
    // The process dies: the socket closes without a farewell.
    site.task.abort();
    let offline: Value = serde_json::from_slice(&received(&mut seen).await.payload).unwrap();
    assert_eq!(offline["online"], json!(false));
}

#[tokio::test]
async fn a_clean_stop_says_offline_itself() {
    let broker = Broker::start("allow_anonymous true\nlog_type all");
    let mut site = Site::start(link(broker.port));
    site.connected().await;
    let (_client, mut seen) = consumer(broker.port, "watcher", "siteward/v1/test/connection").await;
    received(&mut seen).await;
    site.shutdown.send(true).unwrap();
    tokio::time::timeout(LONG, site.task).await.expect("it ends").unwrap();
    let offline: Value = serde_json::from_slice(&received(&mut seen).await.payload).unwrap();
    assert_eq!(offline["online"], json!(false));
    let log = std::fs::read_to_string(broker.dir.path().join("log")).unwrap();
    assert!(log.contains("Received DISCONNECT from siteward-test"), "{log}");
}

#[tokio::test]
async fn refused_credentials_are_told_once_with_what_to_check() {
    let broker = Broker::start("allow_anonymous false");
    let mut site = Site::start(link(broker.port));
    let error = loop {
        match site.next().await {
            CloudInput::Disconnected { error } if error.contains("refuses the connection") => break error,
            // Not listening yet.
            CloudInput::Disconnected { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(error.contains(&format!("broker 127.0.0.1:{}", broker.port)), "{error}");
    assert!(error.contains("NotAuthorized") && error.contains("cloud.password_file"), "{error}");
    let again = tokio::time::timeout(Duration::from_secs(1), site.inbox.recv()).await;
    assert!(again.is_err(), "told again: {again:?}");
}

#[tokio::test]
async fn a_command_comes_in_and_its_answer_goes_where_the_sender_says() {
    let broker = Broker::start("allow_anonymous true");
    let mut site = Site::start(link(broker.port));
    site.connected().await;
    let (client, mut answers) = consumer(broker.port, "cloud", "cloud/answers").await;
    let properties = PublishProperties {
        response_topic: Some("cloud/answers".to_owned()),
        correlation_data: Some(vec![7, 8].into()),
        ..PublishProperties::default()
    };
    let command = r#"{"id":"c-1","type":"limit.clear","data":{"circuit":"grid"}}"#;
    client
        .publish_with_properties("siteward/v1/test/commands", QoS::AtLeastOnce, false, command, properties)
        .await
        .unwrap();
    let CloudInput::Message { payload, response_topic, correlation } = site.next().await else { panic!("no command") };
    let intake = read_command(&payload).unwrap();
    let events = Messages::new("siteward/v1", &SiteId::new("test"), "store");
    let answer = messages::response(Some(&intake.id), &CommandOutcome::Accepted { data: None });
    site.publications.send(events.response(answer, response_topic, correlation)).await.unwrap();
    let answer = received(&mut answers).await;
    assert_eq!(answer.properties.unwrap().correlation_data.unwrap().as_ref(), [7, 8]);
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!((&answer["id"], &answer["status"]), (&json!("c-1"), &json!("accepted")));
}

#[tokio::test]
async fn an_event_that_nobody_takes_is_not_acknowledged_and_a_bad_topic_costs_nothing() {
    let broker = Broker::start("allow_anonymous true");
    let mut site = Site::start(link(broker.port));
    site.connected().await;
    let events = Messages::new("siteward/v1", &SiteId::new("test"), "store");
    let bad = events.response("{}".to_owned(), Some("a/#".to_owned()), None);
    site.publications.send(bad).await.unwrap();
    site.publications.send(events.event(&record(1))).await.unwrap();
    match site.next().await {
        CloudInput::NotTaken { sequence, reason } => {
            assert_eq!(sequence, Sequence(1));
            assert!(reason.contains("nobody is subscribed"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn telemetry_is_taken_also_where_nobody_wants_it() {
    let broker = Broker::start("allow_anonymous true");
    let mut site = Site::start(link(broker.port));
    site.connected().await;
    let messages = Messages::new("siteward/v1", &SiteId::new("test"), "store");
    site.publications.send(messages.telemetry("ring", 7, "{}")).await.unwrap();
    assert_eq!(site.next().await, CloudInput::IntervalTaken { interval: 7 });
}

/// Reads one MQTT packet: its first byte and its body.
async fn packet(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let kind = stream.read_u8().await.unwrap();
    let (mut length, mut shift) = (0, 0);
    loop {
        let byte = stream.read_u8().await.unwrap();
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    (kind, body)
}

// MQTT 5 §3.1.2.10, §3.2.2.3.14: the server's keep-alive holds, and 0 switches it off.
#[tokio::test]
async fn a_broker_that_switches_keep_alive_off_is_not_lost() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut site = Site::start(link(listener.local_addr().unwrap().port()));
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut pinged = false;
        loop {
            let answer = match tokio::time::timeout(Duration::from_millis(100), packet(&mut stream)).await {
                Ok((0x10, _)) => vec![0x20, 6, 0, 0, 3, 0x13, 0, 0],
                Ok((0x82, body)) => vec![0x90, 4, body[0], body[1], 0, 1],
                Ok((kind, body)) if kind >> 4 == 3 => {
                    let topic = usize::from(body[1]) + 2;
                    vec![0x40, 2, body[topic], body[topic + 1]]
                }
                Ok((0xc0, _)) => {
                    assert!(!pinged, "pings without a pause");
                    pinged = true;
                    continue;
                }
                Ok((kind, _)) => panic!("packet {kind:#x}"),
                // A message, and only then the answer to the ping.
                Err(_) => vec![0x30, 5, 0, 1, b'c', 0, b'x', 0xd0, 0],
            };
            stream.write_all(&answer).await.unwrap();
        }
    });
    let mut message = site.next().await;
    while message == CloudInput::Connected {
        message = site.next().await;
    }
    assert!(matches!(&message, CloudInput::Message { payload, .. } if payload == b"x"), "{message:?}");
}

fn openssl(dir: &Path, arguments: &str) {
    let output = Process::new("openssl").current_dir(dir).args(arguments.split(' ')).output();
    let output = output.expect("this test needs openssl: apt-get install openssl");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A CA, and certificates of it for the broker and for the site.
fn certificates() -> TempDir {
    let dir = TempDir::new().unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(dir.path(), &format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=ca"));
    for (name, extension) in [("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")] {
        std::fs::write(dir.path().join("ext"), extension).unwrap();
        openssl(dir.path(), &format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        openssl(
            dir.path(),
            &format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out {name}.pem"
            ),
        );
    }
    dir
}

#[tokio::test]
async fn tls_with_a_client_certificate_connects_and_without_one_is_told_why() {
    let files = certificates();
    let path = |name: &str| -> PathBuf { files.path().join(name) };
    let broker = Broker::start(&format!(
        "allow_anonymous true\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true",
        path("ca.pem").display(),
        path("server.pem").display(),
        path("server.key").display()
    ));
    let tls = TlsFiles {
        ca: Some(path("ca.pem")),
        certificate: Some(path("client.pem")),
        private_key: Some(path("client.key")),
    };
    let mut site = Site::start(CloudLink { tls: Some(tls.clone()), ..link(broker.port) });
    site.connected().await;
    let anonymous = TlsFiles { certificate: None, private_key: None, ..tls };
    let mut site = Site::start(CloudLink { tls: Some(anonymous), ..link(broker.port) });
    match site.next().await {
        CloudInput::Disconnected { error } => assert!(error.contains("CertificateRequired"), "{error}"),
        other => panic!("{other:?}"),
    }
}
