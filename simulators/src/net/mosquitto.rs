//! mosquitto, as Debian has it, in a directory of its own.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::broker;
use super::clock::Clock;
use super::process::{Recipe, Running};
use crate::demo::layout::free_address;

/// How long it may take to listen, in ms.
const PATIENCE_MS: u64 = 20_000;
const LOOK: Duration = Duration::from_millis(10);

/// Where it is installed.
///
/// # Errors
/// If it is not.
pub fn program() -> Result<&'static Path, String> {
    // Debian keeps it where only root looks by default.
    let places = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"];
    let program = places.into_iter().map(Path::new).find(|path| path.is_file());
    program.ok_or_else(|| "mosquitto is missing: apt-get install mosquitto".to_owned())
}

/// A broker that can be killed, and made to forget. Dropping it ends it.
#[derive(Debug)]
pub struct Mosquitto {
    address: SocketAddr,
    recipe: Recipe,
    data: Option<PathBuf>,
    running: Option<Running>,
}

impl Mosquitto {
    /// Starts it at a free address of loopback, with its files in `directory`. With `persistent` it writes down what it has taken over now and
    /// then, as Debian's does; without, it forgets with its process.
    ///
    /// # Errors
    /// If it is not installed or does not start.
    pub fn start(directory: &Path, persistent: bool, leash: &Path) -> Result<Self, String> {
        Self::start_with(directory, persistent, leash, None)
    }

    /// As [`Mosquitto::start`], and it listens at the same port of `besides`.
    ///
    /// # Errors
    /// As there.
    pub fn start_with(
        directory: &Path,
        persistent: bool,
        leash: &Path,
        besides: Option<IpAddr>,
    ) -> Result<Self, String> {
        let told = |error: std::io::Error| format!("mosquitto in {}: {error}", directory.display());
        let address = free_address().map_err(told)?;
        let config = directory.join("mosquitto.conf");
        // Root gives its rights up otherwise, and could not write there. No queue is cut: what a consumer cannot take at once waits.
        let mut lines = String::new();
        if let Some(ip) = besides {
            lines.push_str(&format!("listener {} {ip}\n", address.port()));
        }
        lines.push_str(&format!(
            "listener {} {}\nallow_anonymous true\nuser root\nmax_queued_messages 0\nmax_inflight_messages 1000\n",
            address.port(),
            address.ip()
        ));
        let data = directory.join("mosquitto-data");
        if persistent {
            std::fs::create_dir_all(&data).map_err(told)?;
            lines.push_str(&format!(
                "persistence true\npersistence_location {}/\nautosave_interval 10\n",
                data.display()
            ));
        } else {
            lines.push_str("persistence false\n");
        }
        std::fs::write(&config, lines).map_err(told)?;
        let arguments = [Path::new("-c"), config.as_path()];
        let recipe = Recipe::new(program()?, &arguments, &directory.join("mosquitto.log")).leashed(leash);
        let mut broker = Self { address, recipe, data: persistent.then_some(data), running: None };
        broker.revive()?;
        Ok(broker)
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The time that the cores have worked for it since it was started, in ms.
    #[must_use]
    pub fn cores_ms(&self) -> u64 {
        self.running.as_ref().map_or(0, Running::cores_ms)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// Deletes all that it has written down.
    ///
    /// # Errors
    /// If that is not possible.
    pub fn wipe(&self) -> Result<(), String> {
        let Some(data) = &self.data else { return Ok(()) };
        let again = std::fs::remove_dir_all(data).and_then(|()| std::fs::create_dir_all(data));
        again.map_err(|error| format!("{}: {error}", data.display()))
    }

    /// Starts it again, and waits until it listens. Call it from a thread that lives as long as the broker should.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn revive(&mut self) -> Result<(), String> {
        self.running = Some(self.recipe.start().map_err(|error| error.to_string())?);
        let clock = Clock::start();
        while !broker::answers(self.address) {
            if clock.mono().ms() >= PATIENCE_MS {
                return Err(format!(
                    "mosquitto does not listen on {}; see {}",
                    self.address,
                    self.recipe.log.display()
                ));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}
