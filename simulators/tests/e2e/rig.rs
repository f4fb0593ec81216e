//! A daemon with a configuration of its own, and patience.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use siteward::engine::model::status::{ChargerStatus, CircuitStatus, MeterStatus, SiteStatus};
use siteward_sim::demo::layout::free_address;
use siteward_sim::net::clock::Clock;
use siteward_sim::net::cloud::{CloudOptions, CloudState, Shared, consume, lock};
use siteward_sim::net::process::{Recipe, Running};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Nothing here takes longer on a machine that works; what does is an error.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// `siteward-sim`.
pub(crate) fn sim() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_siteward-sim"))
}

/// The daemon, beside `siteward-sim`. A test of this crate alone does not build it: it is built here if it is missing. If it is
/// there it is used as it is, since building it would wait for, and undo, what whoever runs the tests has built.
pub(crate) fn siteward() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let program = sim().with_file_name("siteward");
            if program.is_file() {
                return program;
            }
            let status = Command::new(env!("CARGO"))
                .args(["build", "--quiet", "--package", "siteward", "--bin", "siteward", "--manifest-path"])
                .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
                .status()
                .unwrap();
            assert!(status.success(), "siteward does not build");
            program
        })
        .clone()
}

/// Where things listen.
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) ocpp: SocketAddr,
    pub(crate) api: SocketAddr,
}

/// A daemon that runs, or does not.
pub(crate) struct Rig {
    pub(crate) directory: TempDir,
    pub(crate) ports: Ports,
    recipe: Recipe,
    running: RefCell<Option<Running>>,
    agent: ureq::Agent,
    printed: Cell<bool>,
}

impl Rig {
    /// A site of one circuit `grid` with 40 A and one three-phase station `PY1` with a fallback of 8 A, plus `more`.
    ///
    /// Where `more` begins with keys, they belong to the circuit.
    pub(crate) fn new(more: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("siteward-e2e-").tempdir().unwrap();
        let ports = Ports { ocpp: free_address().unwrap(), api: free_address().unwrap() };
        let text = format!(
            r#"
[site]
id = "e2e"
name = "End to end"
timezone = "Europe/Berlin"
[ocpp]
listen = "{}"
[api]
listen = "{}"
[store]
path = "{store}"
[authorization]
tokens_file = "{tokens}"
[[chargers]]
id = "PY1"
circuit = "grid"
model = "brisk"
phases = ["L1", "L2", "L3"]
max_a = 32
fallback_a = 8
connectors = 1
[[circuits]]
id = "grid"
limit_a = 40
{more}
"#,
            ports.ocpp,
            ports.api,
            store = directory.path().join("store").display(),
            tokens = directory.path().join("tokens.toml").display(),
        );
        std::fs::write(directory.path().join("tokens.toml"), "[[tokens]]\ntoken = \"ANNA\"\nstatus = \"Accepted\"\n")
            .unwrap();
        // The shortest lease that is allowed, so that the test need not wait for two minutes; a car that follows at once.
        std::fs::create_dir(directory.path().join("chargers")).unwrap();
        let model = "lease_s = 30\nrenew_s = 5\nreaction_ms = 1000\nmeter_interval_s = 1\n";
        std::fs::write(directory.path().join("chargers/brisk.toml"), model).unwrap();
        let config = directory.path().join("site.toml");
        std::fs::write(&config, text).unwrap();
        let arguments = [Path::new("run"), Path::new("--config"), config.as_path()];
        let recipe = Recipe::new(&siteward(), &arguments, &directory.path().join("log")).leashed(sim());
        let agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(5))).build().into();
        Self { directory, ports, recipe, running: RefCell::new(None), agent, printed: Cell::new(false) }
    }

    /// A rig that has been started and answers.
    pub(crate) fn started(more: &str) -> Self {
        let rig = Self::new(more);
        rig.start();
        rig
    }

    /// Starts the daemon and waits until it answers.
    pub(crate) fn start(&self) {
        self.launch();
        self.until("the daemon answers", || self.status().is_some());
    }

    /// Starts the daemon.
    pub(crate) fn launch(&self) {
        *self.running.borrow_mut() = Some(self.recipe.start().unwrap());
    }

    /// `kill -9`.
    pub(crate) fn kill(&self) {
        self.running.borrow_mut().take().unwrap().kill();
    }

    /// SIGHUP.
    pub(crate) fn hang_up(&self) {
        self.running.borrow_mut().as_mut().unwrap().signal(rustix::process::Signal::HUP);
    }

    /// SIGTERM; the exit code.
    pub(crate) fn stop(&self) -> Option<i32> {
        self.running.borrow_mut().take().unwrap().stop(PATIENCE).and_then(|status| status.code())
    }

    /// Waits for a daemon that ends by itself; the exit code.
    pub(crate) fn ended(&self) -> Option<i32> {
        self.running.borrow_mut().take().unwrap().wait(PATIENCE).and_then(|status| status.code())
    }

    /// Where stations connect to.
    pub(crate) fn url(&self) -> String {
        format!("ws://{}/ocpp", self.ports.ocpp)
    }

    /// What the daemon has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// What the daemon says of the site.
    pub(crate) fn status(&self) -> Option<SiteStatus> {
        self.agent.get(format!("http://{}/api/v1/site", self.ports.api)).call().ok()?.body_mut().read_json().ok()
    }

    /// What the daemon says of its circuit.
    pub(crate) fn circuit(&self) -> CircuitStatus {
        self.status().unwrap_or_default().circuits.into_iter().find(|circuit| circuit.id == "grid").unwrap_or_default()
    }

    /// What the daemon says of a meter.
    pub(crate) fn meter(&self, id: &str) -> MeterStatus {
        self.status().unwrap_or_default().meters.into_iter().find(|meter| meter.id == id).unwrap_or_default()
    }

    /// What the daemon says of the station.
    pub(crate) fn charger(&self) -> ChargerStatus {
        self.status().unwrap_or_default().chargers.into_iter().find(|charger| charger.id == "PY1").unwrap_or_default()
    }

    /// Waits until the log says `text`.
    pub(crate) fn until_logged(&self, text: &str) {
        self.until(&format!("the log says {text:?}"), || self.log().contains(text));
    }

    /// Waits until `done`.
    pub(crate) fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let clock = Clock::start();
        while !done() {
            assert!(u128::from(clock.mono().ms()) < PATIENCE.as_millis(), "it does not come to pass that {what}");
            let ended = self.running.borrow_mut().as_mut().and_then(Running::ended);
            assert!(ended.is_none(), "the daemon ended ({ended:?}) before {what}");
            std::thread::sleep(LOOK);
        }
    }

    /// Asserts that the log has no line that says ERROR: ERROR means that a promise was broken.
    pub(crate) fn assert_no_error_logged(&self) {
        let log = self.log();
        let errors: Vec<_> = log.lines().filter(|line| line.contains(" ERROR ") || line.contains("panicked")).collect();
        assert!(errors.is_empty(), "{errors:#?}");
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.printed.replace(true) {
            eprintln!("the daemon's log:\n{}", self.log());
            eprintln!("the site as it is: {:#?}", self.status());
        }
    }
}

/// A cloud on a runtime of its own.
pub(crate) struct Cloud {
    pub(crate) state: Shared,
    // Dropping it ends the consumer.
    _runtime: Runtime,
}

impl Cloud {
    pub(crate) fn new(broker: SocketAddr) -> Self {
        let runtime = Runtime::new().unwrap();
        let state: Shared = Arc::new(Mutex::new(CloudState::default()));
        runtime.spawn(consume(
            CloudOptions { broker, prefix: "siteward/v1/e2e".to_owned(), from: Some(1) },
            state.clone(),
        ));
        Self { state, _runtime: runtime }
    }

    /// How often a transaction was started and ended, and its energy in Wh.
    pub(crate) fn transaction(&self, id: &str) -> Option<(u32, u32, Option<i64>)> {
        let state = lock(&self.state);
        let found = state.consumer.transactions().get(&("PY1".to_owned(), id.to_owned()))?;
        Some((found.started, found.ended, found.energy_wh))
    }
}

/// mosquitto, as Debian has it.
pub(crate) struct Mosquitto {
    pub(crate) address: SocketAddr,
    recipe: Recipe,
    running: Option<Running>,
    _directory: TempDir,
}

impl Mosquitto {
    /// Starts it with the lines given in its configuration.
    pub(crate) fn started(lines: &str) -> Self {
        Self::at(free_address().unwrap(), lines)
    }

    /// The same at an address that is known.
    pub(crate) fn at(address: SocketAddr, lines: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("mosquitto.conf");
        std::fs::write(&config, format!("listener {} {}\n{lines}\n", address.port(), address.ip())).unwrap();
        let arguments = [Path::new("-c"), config.as_path()];
        let program = siteward_sim::net::mosquitto::program().unwrap();
        let recipe = Recipe::new(program, &arguments, &directory.path().join("log")).leashed(sim());
        let mut mosquitto = Self { address, recipe, running: None, _directory: directory };
        mosquitto.start();
        mosquitto
    }

    /// Starts it (again) and waits until it accepts connections.
    pub(crate) fn start(&mut self) {
        self.running = Some(self.recipe.start().unwrap());
        let clock = Clock::start();
        while !siteward_sim::net::broker::answers(self.address) {
            assert!(u128::from(clock.mono().ms()) < PATIENCE.as_millis(), "mosquitto does not start");
            std::thread::sleep(LOOK);
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.running = None;
    }

    /// The `[cloud]` section that names it.
    pub(crate) fn section(&self) -> String {
        format!("[cloud]\nurl = \"mqtt://{}\"\nacknowledge = \"application\"\n", self.address)
    }
}
