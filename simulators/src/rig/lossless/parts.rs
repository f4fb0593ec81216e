//! The daemon, the broker, the consumer and the stations.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use siteward::engine::model::exchange::OcppVersion;
use siteward::engine::model::status::{CloudStatus, SiteStatus};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::LosslessOptions;
use super::commands::Commands;
use super::link::{self, Wires};
use crate::demo::daemon;
use crate::demo::layout::free_address;
use crate::net::clock::Clock;
use crate::net::cloud::lock;
use crate::net::fleet::ledger::{Ledger, Rules};
use crate::net::mosquitto::Mosquitto;
use crate::net::process::{Recipe, Running};
use crate::net::station::{Link, run};
use crate::station::{Quirks, Station, StationOptions};

/// The first part of the topics.
pub(super) const PREFIX: &str = "siteward/v1";
/// The site.
pub(super) const SITE: &str = "soak";
/// A station that lost its controller tries again after that time.
const RECONNECT: Duration = Duration::from_millis(300);
/// The daemon answers within that time after its first start.
const STARTED: Duration = Duration::from_secs(60);
/// So much of its log is told if it does not.
const LAST_LINES: usize = 10;

/// All of it. Dropping it ends everything that it started.
pub(super) struct Parts {
    pub(super) clock: Clock,
    pub(super) stations: Vec<Arc<Mutex<Station>>>,
    pub(super) broker: Mosquitto,
    pub(super) commands: Commands,
    daemon: (Recipe, Option<Running>),
    consumer: (Recipe, Option<Running>),
    books: PathBuf,
    agent: ureq::Agent,
    api: SocketAddr,
    /// What the daemon knows that address by.
    host: String,
    wires: Wires,
    _proxy: Option<Running>,
    _cables: Vec<watch::Sender<bool>>,
    _tasks: JoinSet<()>,
    // Last: the directory goes when nothing writes into it any more.
    directory: tempfile::TempDir,
}

impl Parts {
    /// Starts everything.
    pub(super) async fn start(options: &LosslessOptions, siteward: Option<PathBuf>) -> Result<Self, String> {
        let told = |error: std::io::Error| error.to_string();
        let sim = std::env::current_exe().map_err(told)?;
        let siteward = siteward.unwrap_or_else(|| sim.with_file_name("siteward"));
        let directory = tempfile::Builder::new().prefix("siteward-lossless-").tempdir().map_err(told)?;
        let home = directory.path();
        let mut tasks = JoinSet::new();
        let (wires, broker, link) = wire(options, home, &sim, &mut tasks).await?;
        let (mut ocpp, local_api) = (free_address().map_err(told)?, free_address().map_err(told)?);
        ocpp.set_ip(wires.daemon());
        let (proxy, api) = wires.proxy(local_api, &home.join("proxy.log"), &sim)?;
        let names: Vec<String> = (0..options.stations).map(name).collect();
        std::fs::create_dir_all(home.join("store")).map_err(told)?;
        let text = configuration((ocpp, local_api, link), &home.join("store"), &names);
        let config = home.join("site.toml");
        std::fs::write(&config, text).map_err(told)?;
        let arguments = [Path::new("run"), Path::new("--config"), config.as_path()];
        let daemon = Recipe::new(&siteward, &arguments, &home.join("siteward.log")).leashed(&sim);
        let daemon = wires.around(daemon);
        let books = home.join("books.sqlite");
        let address = broker.address().to_string();
        let database = books.display().to_string();
        let arguments =
            ["cloud", "--broker", &address, "--database", &database, "--from-start", "--name", "soak-cloud"];
        let consumer = Recipe::new(&sim, &arguments, &home.join("cloud.log")).leashed(&sim);
        let commands = Commands::start(broker.address(), names.clone(), options.seed);
        let mut parts = Self {
            clock: Clock::start(),
            stations: Vec::new(),
            broker,
            commands,
            daemon: (daemon, None),
            consumer: (consumer, None),
            books,
            agent: daemon::agent(),
            api,
            host: local_api.to_string(),
            wires,
            _proxy: proxy,
            _cables: Vec::new(),
            _tasks: tasks,
            directory,
        };
        parts.start_daemon()?;
        parts.first_answer().await?;
        parts.restart_consumer()?;
        for (index, name) in names.iter().enumerate() {
            parts.set_up(index, name, ocpp, options.seed);
        }
        Ok(parts)
    }

    fn set_up(&mut self, index: usize, name: &str, ocpp: SocketAddr, seed: u64) {
        let version = match index % 4 {
            1 => OcppVersion::V201,
            3 => OcppVersion::V21,
            _ => OcppVersion::V16,
        };
        let options = StationOptions {
            meter_interval_s: 1,
            // What is not answered is sent again until it is.
            message_attempts: 1_000_000,
            message_interval_s: 1,
            seed,
            // Some repeat even what was answered.
            quirks: Quirks { duplicate_stop: index % 5 == 4, resend_storm: index % 7 == 6, ..Quirks::default() },
            ..StationOptions::new(name, version)
        };
        let model = Arc::new(Mutex::new(Station::new(options)));
        let (cable, plugged) = watch::channel(true);
        let link = Link { url: format!("ws://{ocpp}/ocpp"), retry: RECONNECT, plugged };
        self._tasks.spawn(run(model.clone(), self.clock, link, |_| {}));
        self._cables.push(cable);
        self.stations.push(model);
    }

    /// A daemon that does not even start would be waited for until the end.
    async fn first_answer(&self) -> Result<(), String> {
        let answers = async {
            while self.cloud().is_none() {
                tokio::time::sleep(RECONNECT).await;
            }
        };
        tokio::time::timeout(STARTED, answers).await.map_err(|_| {
            let log = std::fs::read_to_string(self.directory.path().join("siteward.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
            format!(
                "the daemon does not answer at {} within {} s of its start; the end of its log, which says why unless the way there is closed:\n{last}",
                self.api,
                STARTED.as_secs()
            )
        })
    }

    /// Starts the daemon.
    pub(super) fn start_daemon(&mut self) -> Result<(), String> {
        self.daemon.1 = Some(self.daemon.0.start().map_err(|error| error.to_string())?);
        Ok(())
    }

    /// `kill -9`.
    pub(super) fn kill_daemon(&mut self) {
        self.daemon.1 = None;
    }

    /// `kill -9` to the consumer, if it runs; then it is started.
    pub(super) fn restart_consumer(&mut self) -> Result<(), String> {
        self.consumer.1 = None;
        self.consumer.1 = Some(self.consumer.0.start().map_err(|error| error.to_string())?);
        Ok(())
    }

    /// Cuts the link between daemon and broker, or mends it.
    pub(super) fn set_cut(&self, cut: bool) -> Result<(), String> {
        self.wires.set_cut(cut)
    }

    /// What the daemon says of its link to the cloud.
    pub(super) fn cloud(&self) -> Option<CloudStatus> {
        let site = format!("http://{}/api/v1/site", self.api);
        let mut answer = self.agent.get(site).header("Host", &self.host).call().ok()?;
        answer.body_mut().read_json::<SiteStatus>().ok()?.cloud
    }

    /// Whether the daemon is connected to the broker.
    pub(super) fn is_connected(&self) -> bool {
        self.cloud().is_some_and(|cloud| cloud.connected)
    }

    /// Whether every station has told all that it had to tell, every command was answered, and the cloud has acknowledged everything.
    pub(super) fn is_drained(&self) -> bool {
        let told = self.stations.iter().all(|station| {
            let station = lock(station);
            station.queued() == 0 && station.running(1).is_none()
        });
        told && self.commands.all_answered() && self.cloud().is_some_and(|cloud| cloud.connected && cloud.backlog == 0)
    }

    /// How many transactions the stations have had.
    pub(super) fn transactions(&self) -> usize {
        self.stations.iter().map(|station| lock(station).transactions().len()).sum()
    }

    /// The consumer's books.
    pub(super) fn books(&self) -> Result<Ledger, String> {
        Ledger::open(&self.books.display().to_string(), Rules { from_start: true, hole_after_ms: 0 })
    }

    /// The lines of the daemon's log that say ERROR: it broke a promise.
    pub(super) fn errors(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.directory.path().join("siteward.log")).unwrap_or_default();
        let is_error = |line: &&str| line.split_whitespace().take(4).any(|word| word == "ERROR" || word == "panicked");
        log.lines().filter(is_error).map(str::to_owned).collect()
    }

    /// Leaves everything on disk; where.
    pub(super) fn keep(&mut self) -> PathBuf {
        self.directory.disable_cleanup(true);
        self.directory.path().to_owned()
    }
}

/// The broker, what lies between it and the daemon, and where the daemon finds it.
async fn wire(
    options: &LosslessOptions,
    home: &Path,
    sim: &Path,
    tasks: &mut JoinSet<()>,
) -> Result<(Wires, Mosquitto, SocketAddr), String> {
    if options.namespaces {
        let wires = Wires::cables()?;
        let broker = Mosquitto::start_with(home, true, sim, wires.broker())?;
        let link = SocketAddr::new(wires.broker().unwrap_or(broker.address().ip()), broker.address().port());
        return Ok((wires, broker, link));
    }
    let broker = Mosquitto::start(home, true, sim)?;
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
    let link = listener.local_addr().map_err(|error| error.to_string())?;
    let (cut, is_cut) = watch::channel(false);
    tasks.spawn(link::pass(listener, broker.address(), is_cut));
    Ok((Wires::Relay(cut), broker, link))
}

fn name(index: usize) -> String {
    format!("S{index:03}")
}

fn configuration((ocpp, api, broker): (SocketAddr, SocketAddr, SocketAddr), store: &Path, names: &[String]) -> String {
    let store = toml::Value::String(store.display().to_string());
    // Nobody has to wait for another one.
    let limit = 32 * names.len();
    let mut text = format!(
        r#"[site]
id = "{SITE}"
name = "A site that is killed again and again"
timezone = "Europe/Berlin"

[ocpp]
listen = "{ocpp}"

[api]
listen = "{api}"

[store]
path = {store}
history_events = 1000

[cloud]
url = "mqtt://{broker}"
topic_prefix = "{PREFIX}"
acknowledge = "application"

[authorization]
offline_unknown = "accept"

[billing]
country_code = "DE"
party_id = "ABC"
address = "Hafenstr. 5"
city = "Bremen"
country = "DEU"
latitude = "53.079290"
longitude = "8.801690"

[[tariffs]]
id = "default"
currency = "EUR"
elements = [{{ energy_per_kwh = "0.49" }}]

[[circuits]]
id = "grid"
limit_a = {limit}
"#
    );
    for name in names {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "\n[[chargers]]\nid = \"{name}\"\ncircuit = \"grid\"\nphases = [\"L1\", \"L2\", \"L3\"]\nmax_a = 32\nmin_a = 6\nfallback_a = 6\nconnectors = 1"
        );
    }
    text
}
