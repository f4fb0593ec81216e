//! What runs beside the stations and can be taken away: the broker and the controller as processes, the meters on their wires.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use siteward::engine::time::Mono;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::layout::Places;
use super::plant::Plant;
use super::scene::Part;
use crate::net::clock::Clock;
use crate::net::devices::{MeterBus, PvBus};
use crate::net::modbus::{Bus, Fault, serve_rtu, serve_tcp};
use crate::net::process::{Recipe, Running};
use crate::net::pty::Line;

/// systemd starts the controller again after a second (`RestartSec=1`), and so do we.
const RESTART_MS: u64 = 1_000;
/// How long the controller may take to stop cleanly: it flushes its store.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// The wires: a grid meter over TCP, a sub-meter on a serial line, an inverter over TCP.
pub struct Wires {
    line: Line,
    meter: watch::Sender<Fault>,
    // Held so that the other devices keep working.
    _steady: watch::Sender<Fault>,
    tasks: JoinSet<std::io::Result<()>>,
}

/// Sockets that are open before anything else, so that the configuration can name them.
pub struct Sockets {
    /// For the grid meter.
    pub meter: TcpListener,
    /// For the inverter.
    pub inverter: TcpListener,
}

impl Sockets {
    /// Opens both on free ports of loopback.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn open() -> std::io::Result<Self> {
        Ok(Self { meter: TcpListener::bind("127.0.0.1:0").await?, inverter: TcpListener::bind("127.0.0.1:0").await? })
    }
}

impl Wires {
    /// Connects the plant's devices to sockets and to a serial line of their own.
    ///
    /// # Errors
    /// If there is no pseudo terminal left.
    pub fn lay(plant: &Plant, sockets: Sockets) -> std::io::Result<Self> {
        let (line, near) = Line::open()?;
        let (meter, meter_fault) = watch::channel(Fault::None);
        let (steady, no_fault) = watch::channel(Fault::None);
        let main: Arc<dyn Bus> = Arc::new(MeterBus { unit: 1, meter: plant.main.clone() });
        let garage: Arc<dyn Bus> = Arc::new(MeterBus { unit: 7, meter: plant.garage.clone() });
        let roof: Arc<dyn Bus> = Arc::new(PvBus { unit: 126, pv: plant.pv.clone() });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_tcp(sockets.meter, main, meter_fault));
        tasks.spawn(serve_tcp(sockets.inverter, roof, no_fault.clone()));
        tasks.spawn(serve_rtu(near, garage, no_fault));
        Ok(Self { line, meter, _steady: steady, tasks })
    }

    /// The path of the serial line.
    #[must_use]
    pub fn serial(&self) -> &str {
        self.line.path()
    }

    /// Unplugs the grid meter, or plugs it in.
    pub fn set_meter(&self, present: bool) {
        self.meter.send_replace(if present { Fault::None } else { Fault::Away });
    }

    /// Whether the grid meter is there.
    #[must_use]
    pub fn meter(&self) -> Part {
        if *self.meter.borrow() == Fault::None { Part::Up } else { Part::Away("unplugged".to_owned()) }
    }

    /// Why a device stopped working although nobody wanted it.
    pub fn broken(&mut self) -> Option<String> {
        let ended = self.tasks.try_join_next()?;
        Some(match ended {
            Ok(Ok(())) => "a simulated device ended".to_owned(),
            Ok(Err(error)) => format!("a simulated device failed: {error}"),
            Err(error) => format!("a simulated device crashed: {error}"),
        })
    }
}

/// The processes.
pub struct Processes {
    clock: Clock,
    broker_recipe: Recipe,
    broker: Option<Running>,
    controller_recipe: Recipe,
    controller: Option<Running>,
    start_again_at: Option<Mono>,
    /// How often the controller was started again.
    pub restarts: u64,
    /// How often the controller ended although nobody killed it, with the exit status of the last time.
    pub crashes: Vec<String>,
}

impl Processes {
    /// Recipes for the site at `places`; `sim` is this program, `siteward` the daemon.
    #[must_use]
    pub fn new(clock: Clock, places: &Places, sim: &Path, siteward: &Path) -> Self {
        let listen = places.broker.to_string();
        let broker_log = places.directory.join("broker.log");
        let broker_recipe = Recipe::new(sim, &["broker", "--listen", listen.as_str()], &broker_log).leashed(sim);
        let config: PathBuf = places.config();
        let arguments = [Path::new("run"), Path::new("--config"), config.as_path()];
        let controller_recipe = Recipe::new(siteward, &arguments, &places.log()).leashed(sim);
        Self {
            clock,
            broker_recipe,
            broker: None,
            controller_recipe,
            controller: None,
            start_again_at: None,
            restarts: 0,
            crashes: Vec::new(),
        }
    }

    /// Starts or kills the broker.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn set_broker(&mut self, present: bool) -> std::io::Result<()> {
        match (present, &self.broker) {
            (true, None) => self.broker = Some(self.broker_recipe.start()?),
            (false, Some(_)) => self.broker = None,
            (true, Some(_)) | (false, None) => {}
        }
        Ok(())
    }

    /// Whether the broker is there.
    #[must_use]
    pub fn broker(&self) -> Part {
        if self.broker.is_some() { Part::Up } else { Part::Away("unplugged".to_owned()) }
    }

    /// Starts the controller.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_controller(&mut self) -> std::io::Result<()> {
        self.controller = Some(self.controller_recipe.start()?);
        self.start_again_at = None;
        Ok(())
    }

    /// `kill -9`; [`Processes::supervise`] starts it again.
    pub fn kill_controller(&mut self) {
        if let Some(mut controller) = self.controller.take() {
            controller.kill();
            self.start_again_at = Some(self.clock.mono().plus_ms(RESTART_MS));
        }
    }

    /// Whether the controller's process is there.
    #[must_use]
    pub const fn controller_runs(&self) -> bool {
        self.controller.is_some()
    }

    /// Whether the controller runs.
    #[must_use]
    pub fn controller(&self) -> Part {
        if self.controller.is_some() { Part::Up } else { Part::Away("killed".to_owned()) }
    }

    /// Notices a controller that ended by itself, and starts it again when its time has come, as systemd would.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn supervise(&mut self, line: &mut Wires) -> std::io::Result<()> {
        if let Some(status) = self.controller.as_mut().and_then(Running::ended) {
            self.crashes.push(status.to_string());
            self.controller = None;
            self.start_again_at = Some(self.clock.mono().plus_ms(RESTART_MS));
        }
        if self.start_again_at.is_some_and(|at| self.clock.mono() >= at) {
            line.line.release();
            self.restarts += 1;
            self.start_controller()?;
        }
        Ok(())
    }

    /// Stops the controller as systemd would; whether it ended cleanly.
    pub fn stop_controller(&mut self) -> Result<(), String> {
        let Some(mut controller) = self.controller.take() else { return Ok(()) };
        match controller.stop(STOP_PATIENCE) {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("the controller ended with {status} on SIGTERM")),
            None => Err(format!("the controller did not end within {} s of SIGTERM", STOP_PATIENCE.as_secs())),
        }
    }
}
