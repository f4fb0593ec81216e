//! A garage of many stations on real sockets around the real daemon: real WebSockets, a real Modbus meter, the wall clock.

pub mod drain;
pub mod journal;
pub mod load;
pub mod lossless;
pub mod offline;
pub mod reaction;
pub mod rough;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use siteward::engine::model::exchange::OcppVersion;
use siteward::engine::model::topology::Wiring;
use siteward::engine::units::{Current, PerPhase, Phase, Voltage};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::demo::layout::free_address;
use crate::meter::{Meter, MeterKind};
use crate::net::clock::Clock;
use crate::net::cloud::lock;
use crate::net::devices::MeterBus;
use crate::net::modbus::{Bus, Fault, serve_tcp};
use crate::net::process::{Recipe, Running};
use crate::net::station::{Link, run};
use crate::station::{Station, StationOptions};

/// A station that lost its controller tries again after that time.
const RECONNECT: Duration = Duration::from_secs(1);
/// How long the daemon may take to come up, and all stations to be there.
const START_PATIENCE_MS: u64 = 60_000;
/// How often a condition that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// The meter's unit id.
const UNIT: u8 = 1;

/// All files below a directory, in bytes. What cannot be read counts as nothing.
fn bytes_below(place: &Path) -> u64 {
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    let each = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => bytes_below(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    };
    entries.map(each).sum()
}

/// What kind of garage.
#[derive(Clone, Copy, Debug)]
pub struct RigOptions {
    /// How many stations.
    pub stations: usize,
    /// The limit of the grid connection per phase, in A.
    pub limit_a: i32,
    /// What the daemon assumes for everything but stations, in A per phase.
    pub unmeasured_a: i32,
    /// The fallback of each station, in A.
    pub fallback_a: i32,
    /// How often the daemon reads the meter, in ms.
    pub meter_ms: u64,
    /// From this age on the daemon does not use a reading any more, in ms.
    pub stale_after_ms: u64,
    /// How often the stations send meter values, in s.
    pub meter_values_s: u64,
    /// For everything random.
    pub seed: u64,
}

/// The garage. Dropping it ends everything that it started.
pub struct Rig {
    /// What it is.
    pub options: RigOptions,
    /// The time.
    pub clock: Clock,
    /// The stations.
    pub stations: Vec<Arc<Mutex<Station>>>,
    /// The meter at the grid connection.
    pub meter: Arc<Mutex<Meter>>,
    wire: watch::Sender<Fault>,
    recipe: Recipe,
    controller: Option<Running>,
    log: PathBuf,
    _cables: Vec<watch::Sender<bool>>,
    _tasks: JoinSet<()>,
    // Last: the directory goes when nothing writes into it any more.
    directory: tempfile::TempDir,
}

impl Rig {
    /// Builds it and starts the daemon; returns when all stations are connected.
    ///
    /// # Errors
    /// What could not be started, with the end of the daemon's log.
    pub async fn start(options: RigOptions, siteward: Option<PathBuf>) -> Result<Self, String> {
        let told = |error: std::io::Error| error.to_string();
        let sim = std::env::current_exe().map_err(told)?;
        let siteward = siteward.unwrap_or_else(|| sim.with_file_name("siteward"));
        let directory = tempfile::Builder::new().prefix("siteward-rig-").tempdir().map_err(told)?;
        let socket = TcpListener::bind("127.0.0.1:0").await.map_err(told)?;
        let (ocpp, api) = (free_address().map_err(told)?, free_address().map_err(told)?);
        let places = (ocpp, api, socket.local_addr().map_err(told)?);
        let config = directory.path().join("site.toml");
        std::fs::create_dir_all(directory.path().join("store")).map_err(told)?;
        std::fs::write(&config, configuration(&options, places, directory.path())).map_err(told)?;
        let log = directory.path().join("siteward.log");
        let arguments = [Path::new("run"), Path::new("--config"), config.as_path()];
        let recipe = Recipe::new(&siteward, &arguments, &log).leashed(&sim);

        let clock = Clock::start();
        let meter = Arc::new(Mutex::new(Meter::new(MeterKind::Sdm630, Voltage::from_mv(230_000), options.seed)));
        let (wire, fault) = watch::channel(Fault::None);
        let bus: Arc<dyn Bus> = Arc::new(MeterBus { unit: UNIT, meter: meter.clone() });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // It ends with the rig.
            let _ = serve_tcp(socket, bus, fault).await;
        });
        let mut rig = Self {
            options,
            clock,
            stations: Vec::new(),
            meter,
            wire,
            recipe,
            controller: None,
            log,
            _cables: Vec::new(),
            _tasks: tasks,
            directory,
        };
        rig.set_up_stations(ocpp);
        rig.start_controller()?;
        rig.until("the stations do not connect", Self::everybody_is_online).await?;
        Ok(rig)
    }

    fn set_up_stations(&mut self, ocpp: SocketAddr) {
        for index in 0..self.options.stations {
            let version = if index % 3 == 2 { OcppVersion::V201 } else { OcppVersion::V16 };
            let options = StationOptions {
                wiring: turned(index),
                meter_interval_s: self.options.meter_values_s,
                message_attempts: 10_000,
                message_interval_s: 1,
                seed: self.options.seed,
                ..StationOptions::new(&name(index), version)
            };
            let model = Arc::new(Mutex::new(Station::new(options)));
            let (cable, plugged) = watch::channel(true);
            let link = Link { url: format!("ws://{ocpp}/ocpp"), retry: RECONNECT, plugged };
            self._tasks.spawn(run(model.clone(), self.clock, link, |_| {}));
            self._cables.push(cable);
            self.stations.push(model);
        }
    }

    /// Starts the daemon.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_controller(&mut self) -> Result<(), String> {
        self.controller = Some(self.recipe.start().map_err(|error| error.to_string())?);
        Ok(())
    }

    /// `kill -9`.
    pub fn kill_controller(&mut self) {
        if let Some(mut controller) = self.controller.take() {
            controller.kill();
        }
    }

    /// Whether the daemon was started and has not been killed.
    #[must_use]
    pub const fn controller_runs(&self) -> bool {
        self.controller.is_some()
    }

    /// Unplugs the meter, or plugs it in.
    pub fn set_meter(&self, present: bool) {
        self.wire.send_replace(if present { Fault::None } else { Fault::Away });
    }

    /// Whether all stations are connected.
    #[must_use]
    pub fn everybody_is_online(&self) -> bool {
        self.stations.iter().all(|station| lock(station).is_online())
    }

    /// Waits until `done`.
    ///
    /// # Errors
    /// `otherwise` with the end of the daemon's log, if that takes more than a minute.
    pub async fn until(&self, otherwise: &str, done: impl Fn(&Self) -> bool) -> Result<(), String> {
        let deadline = self.clock.mono().plus_ms(START_PATIENCE_MS);
        while !done(self) {
            if self.clock.mono() >= deadline {
                return Err(format!("{otherwise}; the end of the controller's log:\n{}", self.log_end()));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// What all stations draw.
    #[must_use]
    pub fn drawn(&self) -> PerPhase<Current> {
        let none = PerPhase::splat(Current::ZERO);
        self.stations.iter().fold(none, |sum, station| sum + lock(station).total_current())
    }

    /// The lines of the daemon's log that say ERROR: it broke a promise.
    #[must_use]
    pub fn errors(&self) -> Vec<String> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let is_error = |line: &&str| line.split_whitespace().take(4).any(|word| word == "ERROR" || word == "panicked");
        log.lines().filter(is_error).map(str::to_owned).collect()
    }

    /// Leaves configuration, store and log on disk; where.
    pub fn keep(&mut self) -> PathBuf {
        self.directory.disable_cleanup(true);
        self.directory.path().to_owned()
    }

    fn log_end(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

fn name(index: usize) -> String {
    format!("R{index:03}")
}

/// The stations' phases are turned, so that single-phase cars spread.
fn turned(index: usize) -> Wiring {
    let orders =
        [[Phase::L1, Phase::L2, Phase::L3], [Phase::L2, Phase::L3, Phase::L1], [Phase::L3, Phase::L1, Phase::L2]];
    Wiring::new(&orders[index % 3]).unwrap_or(Wiring::STRAIGHT)
}

fn configuration(
    options: &RigOptions,
    (ocpp, api, meter): (SocketAddr, SocketAddr, SocketAddr),
    home: &Path,
) -> String {
    let store = toml::Value::String(home.join("store").display().to_string());
    let mut text = format!(
        r#"[site]
id = "rig"
name = "A garage on real sockets"
timezone = "Europe/Berlin"

[ocpp]
listen = "{ocpp}"

[api]
listen = "{api}"

[store]
path = {store}

[authorization]
offline_unknown = "accept"

[[meters]]
id = "main"
profile = "eastron-sdm630"
connection = "tcp://{meter}"
unit_id = {UNIT}
interval_ms = {}
stale_after_ms = {}

[[circuits]]
id = "grid"
limit_a = {}
meter = "main"
unmeasured_load_a = {}
"#,
        options.meter_ms, options.stale_after_ms, options.limit_a, options.unmeasured_a,
    );
    for index in 0..options.stations {
        let order = turned(index);
        let phases: Vec<String> = Phase::ALL
            .into_iter()
            .filter_map(|terminal| order.grid_phase(terminal))
            .map(|phase| format!("\"{phase:?}\""))
            .collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "\n[[chargers]]\nid = \"{}\"\ncircuit = \"grid\"\nphases = [{}]\nmax_a = 32\nmin_a = 6\nfallback_a = {}\nconnectors = 1",
            name(index),
            phases.join(", "),
            options.fallback_a,
        );
    }
    text
}
