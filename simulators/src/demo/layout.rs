//! The site of the demo: what is wired to what, and the configuration that says so to the daemon.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use siteward::engine::model::exchange::OcppVersion;
use siteward::engine::model::topology::Wiring;
use siteward::engine::units::{Current, PerPhase, Phase};

/// The site's id.
pub const SITE: &str = "demo";
/// The tokens that may charge, one for each station, and two more.
pub const TOKENS: [&str; 10] = ["ANNA", "BEN", "CLARA", "DAVID", "EMMA", "FELIX", "GRETA", "HUGO", "IDA", "JONAS"];

/// A circuit of the demo.
#[derive(Clone, Copy, Debug)]
pub struct CircuitPlan {
    /// Its id.
    pub id: &'static str,
    /// The circuit that feeds it.
    pub parent: Option<&'static str>,
    /// Its limit in A per phase.
    pub limit_a: i32,
    /// What the daemon assumes for everything but stations while the meter is silent, in A per phase.
    pub unmeasured_a: Option<i32>,
    /// Its meter.
    pub meter: Option<&'static str>,
}

/// All circuits, parents first. The stations want 6 x 32 A on L1 and L2 and 6 x 32 A on L3, far more than any circuit has;
/// the fallbacks (6 A each) and the unmeasured loads fit everywhere.
pub const CIRCUITS: [CircuitPlan; 3] = [
    CircuitPlan { id: "grid", parent: None, limit_a: 100, unmeasured_a: Some(55), meter: Some("main") },
    CircuitPlan { id: "garage", parent: Some("grid"), limit_a: 63, unmeasured_a: Some(6), meter: Some("garage") },
    CircuitPlan { id: "yard", parent: Some("grid"), limit_a: 40, unmeasured_a: None, meter: None },
];

/// A station of the demo.
#[derive(Clone, Copy, Debug)]
pub struct StationPlan {
    /// Its OCPP identity.
    pub id: &'static str,
    /// The OCPP version it speaks.
    pub version: OcppVersion,
    /// The circuit that feeds it.
    pub circuit: &'static str,
    /// The grid phase at each of its terminals.
    pub phases: &'static [Phase],
    /// The most it offers in A per phase.
    pub max_a: i32,
}

impl StationPlan {
    /// How its terminals are wired.
    #[must_use]
    pub fn wiring(&self) -> Wiring {
        Wiring::new(self.phases).unwrap_or(Wiring::STRAIGHT)
    }

    /// What it draws on the grid's phases when it draws `current` at each of its terminals.
    #[must_use]
    pub fn on_grid(&self, current: PerPhase<Current>) -> PerPhase<Current> {
        self.wiring().to_grid(current.map(Some)).map(|value| value.unwrap_or(Current::ZERO))
    }
}

use Phase::{L1, L2, L3};

/// All stations: five speak OCPP 1.6, three OCPP 2.0.1; some are turned on the phases, some have one phase only.
pub const STATIONS: [StationPlan; 8] = [
    station("G1", OcppVersion::V16, "garage", &[L1, L2, L3]),
    station("G2", OcppVersion::V201, "garage", &[L2, L3, L1]),
    station("G3", OcppVersion::V16, "garage", &[L1]),
    station("G4", OcppVersion::V16, "garage", &[L3, L1, L2]),
    station("G5", OcppVersion::V201, "garage", &[L2]),
    station("Y1", OcppVersion::V16, "yard", &[L1, L2, L3]),
    station("Y2", OcppVersion::V201, "yard", &[L2, L3, L1]),
    station("Y3", OcppVersion::V16, "yard", &[L3]),
];

const fn station(
    id: &'static str,
    version: OcppVersion,
    circuit: &'static str,
    phases: &'static [Phase],
) -> StationPlan {
    StationPlan { id, version, circuit, phases, max_a: 32 }
}

/// Whether what flows through `inner` flows through `outer` too.
#[must_use]
pub fn feeds(outer: &str, inner: &str) -> bool {
    let mut at = Some(inner);
    while let Some(id) = at {
        if id == outer {
            return true;
        }
        at = CIRCUITS.iter().find(|circuit| circuit.id == id).and_then(|circuit| circuit.parent);
    }
    false
}

/// Where everything of a running demo is.
#[derive(Clone, Debug)]
pub struct Places {
    /// The directory with the configuration, the store and the logs.
    pub directory: PathBuf,
    /// Where stations connect to.
    pub ocpp: SocketAddr,
    /// The daemon's REST interface.
    pub api: SocketAddr,
    /// The broker.
    pub broker: SocketAddr,
    /// The grid meter.
    pub meter: SocketAddr,
    /// The PV inverter.
    pub inverter: SocketAddr,
    /// The serial line of the sub-meter.
    pub serial: String,
}

impl Places {
    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.directory.join("site.toml")
    }

    /// The daemon's log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.directory.join("siteward.log")
    }

    /// Writes `site.toml` and `tokens.toml`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self) -> std::io::Result<()> {
        std::fs::create_dir_all(self.directory.join("store"))?;
        std::fs::write(self.tokens(), tokens())?;
        std::fs::write(self.config(), self.site())
    }

    fn tokens(&self) -> PathBuf {
        self.directory.join("tokens.toml")
    }

    fn site(&self) -> String {
        let mut text = format!(
            r#"[site]
id = "{SITE}"
name = "The demo site"
timezone = "Europe/Berlin"

[ocpp]
listen = "{ocpp}"

[api]
listen = "{api}"

[store]
path = {store}

[cloud]
url = "mqtt://{broker}"
acknowledge = "application"

[authorization]
tokens_file = {tokens}

[[meters]]
id = "main"
profile = "eastron-sdm630"
connection = "tcp://{meter}"
unit_id = 1
interval_ms = 500
stale_after_ms = 3000

[[meters]]
id = "garage"
profile = "abb-b23"
connection = "rtu://{serial}?baud=19200&parity=none&stop=1"
unit_id = 7
interval_ms = 500
stale_after_ms = 3000

[[inverters]]
id = "roof"
role = "pv"
profile = "sunspec"
connection = "tcp://{inverter}"
unit_id = 126
circuit = "grid"
"#,
            ocpp = self.ocpp,
            api = self.api,
            store = quoted(&self.directory.join("store")),
            broker = self.broker,
            tokens = quoted(&self.tokens()),
            meter = self.meter,
            serial = self.serial,
            inverter = self.inverter,
        );
        for circuit in &CIRCUITS {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "\n[[circuits]]\nid = \"{}\"\nlimit_a = {}", circuit.id, circuit.limit_a);
            let _ = circuit.parent.map(|parent| writeln!(text, "parent = \"{parent}\""));
            let _ = circuit.meter.map(|meter| writeln!(text, "meter = \"{meter}\""));
            let _ = circuit.unmeasured_a.map(|load| writeln!(text, "unmeasured_load_a = {load}"));
        }
        for station in &STATIONS {
            let phases: Vec<String> = station.phases.iter().map(|phase| format!("\"{phase:?}\"")).collect();
            let _ = writeln!(
                text,
                "\n[[chargers]]\nid = \"{}\"\ncircuit = \"{}\"\nphases = [{}]\nmax_a = {}\nmin_a = 6\nfallback_a = 6\nconnectors = 1",
                station.id,
                station.circuit,
                phases.join(", "),
                station.max_a,
            );
        }
        text
    }
}

fn tokens() -> String {
    TOKENS.iter().map(|token| format!("[[tokens]]\ntoken = \"{token}\"\nstatus = \"Accepted\"\n\n")).collect()
}

fn quoted(path: &Path) -> String {
    toml::Value::String(path.display().to_string()).to_string()
}

/// An address on loopback that is free at the moment.
///
/// # Errors
/// If the system has no free port.
pub fn free_address() -> std::io::Result<SocketAddr> {
    std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fallbacks_and_the_unmeasured_load_fit_every_circuit() {
        for circuit in &CIRCUITS {
            for phase in Phase::ALL {
                let below = STATIONS.iter().filter(|station| feeds(circuit.id, station.circuit));
                let wired = below.filter(|station| station.wiring().phases().contains(phase)).count();
                let sum = 6 * i32::try_from(wired).unwrap() + circuit.unmeasured_a.unwrap_or(0);
                assert!(sum <= circuit.limit_a, "{} {phase:?}: {sum} A", circuit.id);
                let wishes = 32 * i32::try_from(wired).unwrap();
                assert!(wishes >= circuit.limit_a * 3 / 2, "{} {phase:?}: {wishes} A is no challenge", circuit.id);
            }
        }
    }

    #[test]
    fn the_configuration_is_toml_with_all_parts() {
        let address = "127.0.0.1:1".parse().unwrap();
        let places = Places {
            directory: PathBuf::from("/tmp/a \"quoted\" place"),
            ocpp: address,
            api: address,
            broker: address,
            meter: address,
            inverter: address,
            serial: "/dev/pts/1".to_owned(),
        };
        let table: toml::Table = toml::from_str(&places.site()).unwrap();
        assert_eq!(table["chargers"].as_array().unwrap().len(), 8);
        assert_eq!(table["circuits"].as_array().unwrap().len(), 3);
        assert_eq!(table["store"]["path"].as_str().unwrap(), "/tmp/a \"quoted\" place/store");
    }
}
