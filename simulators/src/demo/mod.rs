//! `siteward-sim demo`: a whole site on one machine, with the real daemon in its middle.

pub mod daemon;
pub mod headless;
pub mod judge;
pub mod layout;
pub mod live;
pub mod parts;
pub mod plant;
pub mod scene;
pub mod summary;
pub mod view;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use siteward::engine::model::status::SiteStatus;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::net::broker;
use crate::net::clock::Clock;
use crate::net::cloud::{CloudOptions, CloudState, Shared, consume, lock};
use layout::{Places, SITE, STATIONS, free_address};
use parts::{Processes, Sockets, Wires};
use plant::{Pace, Plant};
use scene::{CloudTruth, Scene};

/// How often the physical site is sampled.
pub const STEP: Duration = Duration::from_millis(100);
/// How long broker and controller may take to come up. A cold machine with two cores under load takes some seconds.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// The news that are kept: more than the largest terminal shows.
const NEWS: usize = 100;

/// What to run.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// The daemon's program; `None`: `siteward` beside this program.
    pub siteward: Option<PathBuf>,
    /// Where to keep configuration, store and logs; `None`: a temporary directory that is removed at the end.
    pub directory: Option<PathBuf>,
    /// For the cars, the building and the weather.
    pub seed: u64,
    /// How fast cars come and go.
    pub pace: Pace,
    /// The stations at which the first car stays.
    pub stay: Vec<String>,
}

/// A running demo. Dropping it ends everything that it started.
pub struct Demo {
    /// The processes.
    pub processes: Processes,
    /// The meters' wires.
    pub wires: Wires,
    /// The physical site.
    pub plant: Plant,
    /// Where everything is.
    pub places: Places,
    /// The daemon's program.
    pub siteward: PathBuf,
    /// What the cloud has heard.
    pub cloud: Shared,
    /// What the daemon says.
    pub status: watch::Receiver<Option<SiteStatus>>,
    clock: Clock,
    news: Vec<String>,
    next_station: usize,
    consumer: JoinHandle<()>,
    // Last: the directory goes when nothing writes into it any more.
    temporary: Option<tempfile::TempDir>,
    /// How often the grid meter was unplugged.
    pub meter_losses: u64,
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.consumer.abort();
    }
}

impl Demo {
    /// Builds the site, starts the broker and the controller, and waits until the controller answers.
    ///
    /// Call it on the main thread: the processes are tied to the thread that starts them.
    ///
    /// # Errors
    /// What could not be started, with the end of the daemon's log if it is the daemon.
    pub async fn start(options: DemoOptions) -> Result<Self, String> {
        let sim = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
        let siteward = find_siteward(options.siteward, &sim)?;
        if let Some(unknown) = options.stay.iter().find(|id| STATIONS.iter().all(|plan| plan.id != **id)) {
            let known: Vec<&str> = STATIONS.iter().map(|plan| plan.id).collect();
            return Err(format!("there is no station {unknown}; the stations of the demo are {}", known.join(", ")));
        }
        let told = |error: std::io::Error| error.to_string();
        let (temporary, directory) = match options.directory {
            // What it names in the configuration is looked for from there.
            Some(directory) => (None, std::path::absolute(directory).map_err(told)?),
            None => {
                let temporary = tempfile::Builder::new().prefix("siteward-demo-").tempdir().map_err(told)?;
                let path = temporary.path().to_owned();
                (Some(temporary), path)
            }
        };
        let sockets = Sockets::open().await.map_err(told)?;
        let mut places = Places {
            directory,
            ocpp: free_address().map_err(told)?,
            api: free_address().map_err(told)?,
            broker: free_address().map_err(told)?,
            meter: sockets.meter.local_addr().map_err(told)?,
            inverter: sockets.inverter.local_addr().map_err(told)?,
            serial: String::new(),
        };
        let clock = Clock::start();
        let plant = Plant::new(clock, &format!("ws://{}/ocpp", places.ocpp), options.pace, options.seed, &options.stay);
        let wires = Wires::lay(&plant, sockets).map_err(told)?;
        wires.serial().clone_into(&mut places.serial);
        places.write().map_err(|error| format!("{}: {error}", places.directory.display()))?;
        daemon::check(&siteward, &places)?;

        let mut processes = Processes::new(clock, &places, &sim, &siteward);
        processes.set_broker(true).map_err(told)?;
        let cloud: Shared = Arc::new(Mutex::new(CloudState::default()));
        let consume_options =
            CloudOptions { broker: places.broker, prefix: format!("siteward/v1/{SITE}"), from: Some(1) };
        let consumer = tokio::spawn(consume(consume_options, cloud.clone()));
        let status = daemon::watch_status(places.api);
        let mut demo = Self {
            processes,
            wires,
            plant,
            places,
            siteward,
            cloud,
            status,
            clock,
            news: Vec::new(),
            next_station: 0,
            consumer,
            temporary,
            meter_losses: 0,
        };
        demo.come_up().await?;
        Ok(demo)
    }

    async fn come_up(&mut self) -> Result<(), String> {
        let broker = self.places.broker;
        self.until("the broker does not accept connections", |_| broker::answers(broker)).await?;
        // The cloud listens before the first event is sent.
        self.until("the cloud cannot reach the broker", |demo| lock(&demo.cloud).connected).await?;
        self.processes.start_controller().map_err(|error| error.to_string())?;
        self.until("the controller does not answer", |demo| demo.status.borrow().is_some()).await
    }

    /// Steps until `done`, at most [`START_PATIENCE`].
    async fn until(&mut self, otherwise: &str, done: impl Fn(&Self) -> bool) -> Result<(), String> {
        let deadline = self.clock.mono().plus_ms(u64::try_from(START_PATIENCE.as_millis()).unwrap_or(u64::MAX));
        while !done(self) {
            let crashed = self.processes.crashes.last().cloned();
            if crashed.is_some() || self.clock.mono() >= deadline {
                let status = crashed.map_or(String::new(), |status| format!(" (it ended with {status})"));
                return Err(format!("{otherwise}{status}; the end of its log:\n{}", self.log_end()));
            }
            tokio::time::sleep(STEP).await;
            self.step()?;
        }
        Ok(())
    }

    /// The next 100 ms: cars, currents, processes.
    ///
    /// # Errors
    /// If something that carries the demo itself has failed.
    pub fn step(&mut self) -> Result<(), String> {
        for news in self.plant.step() {
            self.tell(news);
        }
        let restarts = self.processes.restarts;
        self.processes.supervise(&mut self.wires).map_err(|error| error.to_string())?;
        if self.processes.restarts > restarts {
            self.tell("the controller is started again".to_owned());
        }
        let heard = lock(&self.cloud).take_news();
        for news in heard {
            self.tell(format!("cloud: {news}"));
        }
        self.wires.broken().map_or(Ok(()), Err)
    }

    /// The ms since the demo began.
    #[must_use]
    pub fn elapsed_ms(&self) -> u64 {
        self.clock.mono().ms()
    }

    /// Takes the broker away or brings it back.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn set_broker(&mut self, present: bool) -> Result<(), String> {
        self.tell(format!("the broker is {}", if present { "back" } else { "gone" }));
        self.processes.set_broker(present).map_err(|error| error.to_string())
    }

    /// Unplugs the grid meter or plugs it in.
    pub fn set_meter(&mut self, present: bool) {
        self.tell(format!("the grid meter is {}", if present { "back" } else { "gone" }));
        self.meter_losses += u64::from(!present);
        self.wires.set_meter(present);
    }

    /// Leaves configuration, store and logs on disk, to be looked at.
    pub fn keep_directory(&mut self) {
        if let Some(temporary) = self.temporary.as_mut() {
            temporary.disable_cleanup(true);
        }
    }

    /// `kill -9` for the controller.
    pub fn kill_controller(&mut self) {
        self.tell("the controller is killed".to_owned());
        self.processes.kill_controller();
    }

    /// Pulls or plugs the network cable of the next station, one after the other.
    pub fn toggle_next_station(&mut self) {
        let plugged = self.plant.toggle_cable(self.next_station);
        self.tell(format!("{}: network cable {}", STATIONS[self.next_station].id, if plugged { "in" } else { "out" }));
        if plugged {
            self.next_station = (self.next_station + 1) % STATIONS.len();
        }
    }

    /// Everything there is to be seen now.
    #[must_use]
    pub fn scene(&self) -> Scene {
        let cloud = lock(&self.cloud);
        let ended = cloud.consumer.transactions().values().filter(|transaction| transaction.ended > 0).count();
        Scene {
            seconds: self.elapsed_ms() / 1000,
            time_of_day: self.plant.time_of_day(),
            circuits: self.plant.records.clone(),
            building: self.plant.building(),
            pv: self.plant.pv_current(),
            stations: self.plant.stations(),
            status: self.status.borrow().clone(),
            broker: self.processes.broker(),
            meter: self.wires.meter(),
            controller: self.processes.controller(),
            restarts: self.processes.restarts,
            cloud: CloudTruth {
                events: cloud.consumer.last(),
                duplicates: cloud.consumer.duplicates(),
                gaps: cloud.gaps,
                gap_open: cloud.gap.is_some(),
                connected: cloud.connected,
                ended,
            },
            next_station: STATIONS[self.next_station].id,
            news: self.news.clone(),
        }
    }

    /// The end of the daemon's log.
    #[must_use]
    pub fn log_end(&self) -> String {
        let log = std::fs::read_to_string(self.places.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn tell(&mut self, news: String) {
        if self.news.len() >= NEWS {
            self.news.remove(0);
        }
        self.news.push(news);
    }
}

fn find_siteward(given: Option<PathBuf>, sim: &Path) -> Result<PathBuf, String> {
    let path = given.unwrap_or_else(|| sim.with_file_name("siteward"));
    if path.is_file() {
        return Ok(path);
    }
    Err(format!(
        "{} does not exist: build it with `cargo build --bins`, or name it with --siteward PATH",
        path.display()
    ))
}
