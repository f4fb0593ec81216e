use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use futures_util::StreamExt as _;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::*;
use crate::engine::model::ids::Sequence;
use crate::engine::model::record::Record;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

const SITE: &str = r#"
[site]
id = "depot"
timezone = "Europe/Berlin"
voltage_v = 230

[ocpp]
listen = "127.0.0.1:0"

[api]
listen = "127.0.0.1:0"

[store]
path = "store"

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
"#;

struct Directory(tempfile::TempDir);

impl Directory {
    fn with(text: &str) -> Self {
        let directory = Self(tempfile::tempdir().unwrap());
        directory.write(text);
        directory
    }

    fn write(&self, text: &str) {
        fs::write(self.site(), text).unwrap();
    }

    fn site(&self) -> PathBuf {
        self.0.path().join("site.toml")
    }
}

/// A store in memory that notes whether it was closed.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<&'static str>>>);

impl Store for Memory {
    fn append(&mut self, _records: Vec<Record>) -> Result<(), StoreOverrun> {
        self.0.lock().unwrap().push("append");
        Ok(())
    }
    fn snapshot(&mut self, _through: Sequence, _state: Vec<u8>) {}
    fn read(&mut self, _from: Sequence, _limit: usize) {}
    fn acknowledged(&mut self, _through: Sequence) {}
}

impl Events for Memory {
    fn read(&self, _from: Sequence, _limit: usize, answer: oneshot::Sender<Result<Vec<Record>, String>>) {
        answer.send(Ok(Vec::new())).unwrap();
    }
}

impl Memory {
    fn open(&self) -> OpenStore {
        let (notes, restored) = (Arc::clone(&self.0), Restored::default());
        let close = Box::new(move || notes.lock().unwrap().push("closed"));
        OpenStore { restored, store: Box::new(self.clone()), telemetry: None, events: Arc::new(self.clone()), close }
    }
}

#[tokio::test]
async fn the_daemon_serves_stations_and_people_and_stops_in_order() {
    let directory = Directory::with(SITE);
    let (config, text) = read(&directory.site()).unwrap();
    let sockets = Sockets::bind(&config).await.unwrap();
    let (stations, api) = (sockets.stations.local_addr().unwrap(), sockets.api.local_addr().unwrap());
    let memory = Memory::default();
    let Starting { config, kept, .. } = configuration::start(config, text);
    let (clock, notifier, restarts) = (Clock::start(), Notifier::silent(), mpsc::channel(1).0);
    let wiring = Wiring { inbox: mpsc::channel(INBOX), clock, notifier, kept, restarts };
    let daemon = Daemon::start(&config, sockets, memory.open(), wiring).unwrap();
    daemon.asker.clone().next_tick().await.unwrap();

    let mut request = format!("ws://{stations}/ocpp/CP001").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "ocpp1.6".parse().unwrap());
    let (mut station, _) = client_async(request, TcpStream::connect(stations).await.unwrap()).await.unwrap();
    let ready = tokio::task::spawn_blocking(move || ureq::get(format!("http://{api}/readyz")).call().unwrap().status());
    assert_eq!(ready.await.unwrap().as_u16(), 200);

    let stopped = tokio::spawn(daemon.stop());
    // Before the close there may be calls that were on their way.
    let mut last = station.next().await.unwrap().unwrap();
    while last.is_text() {
        last = station.next().await.unwrap().unwrap();
    }
    assert!(last.is_close(), "{last:?}");
    assert!(station.next().await.is_none());
    stopped.await.unwrap();
    assert_eq!(memory.0.lock().unwrap().last(), Some(&"closed"));
}

#[tokio::test]
async fn a_port_in_use_names_the_address_the_key_and_the_file() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for (key, section) in
        [("ocpp.listen", "[ocpp]\nlisten = \"127.0.0.1:0\""), ("api.listen", "[api]\nlisten = \"127.0.0.1:0\"")]
    {
        let text = SITE.replace(section, &section.replace("127.0.0.1:0", &address.to_string()));
        let directory = Directory::with(&text);
        let (config, _) = read(&directory.site()).unwrap();
        let Err(StartError::Other(message)) = Sockets::bind(&config).await else { panic!("bound {key}") };
        for part in [key, &address.to_string(), "site.toml", "another process"] {
            assert!(message.contains(part), "{part} in {message}");
        }
    }
}

#[test]
fn a_bad_configuration_is_refused_with_every_message() {
    let directory = Directory::with(&SITE.replace("limit_a = 63", "limit_a = -1").replace("max_a = 32", "maxx_a = 32"));
    let Err(StartError::Configuration(text)) = read(&directory.site()) else { panic!("accepted") };
    assert!(text.lines().count() >= 2, "{text}");
}

#[test]
fn a_site_that_is_not_fail_safe_starts_only_on_demand() {
    let text = SITE.replace("limit_a = 63", "limit_a = 5");
    let directory = Directory::with(&text);
    let Err(StartError::Configuration(message)) = read(&directory.site()) else { panic!("accepted") };
    assert!(message.contains("allow_unsafe_fallback"), "{message}");
    directory.write(&text.replace("voltage_v = 230", "voltage_v = 230\nallow_unsafe_fallback = true"));
    assert!(read(&directory.site()).is_ok());
}

#[test]
fn a_reload_says_what_has_changed_and_refuses_a_bad_file() {
    let directory = Directory::with(SITE);
    let started = read(&directory.site()).unwrap();
    let reload = || report_reload(&directory.site(), &started);
    assert!(reload().is_empty());
    directory.write(&format!("# A comment.\n{SITE}"));
    assert!(reload().is_empty());
    directory.write(&SITE.replace("limit_a = 63", "limit_a = 50").replace("path = \"store\"", "path = \"other\""));
    assert_eq!(reload(), ["[store]", "[[circuits]], [[meters]], [[inverters]] or [[chargers]]"]);
    directory.write("[site");
    assert!(reload().is_empty());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("[api]\nlisten = \"{}\"", taken.local_addr().unwrap());
    directory.write(&SITE.replace("[api]\nlisten = \"127.0.0.1:0\"", &address));
    assert!(reload().is_empty(), "its address is in use");
}
