//! What the configuration file says, typed and checked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use chrono_tz::Tz;

use super::failsafe::{FailsafeReport, failsafe};
use crate::engine::modbus::connection::Connection;
use crate::engine::modbus::map::DeviceMap;
use crate::engine::modbus::switch::Switch;
use crate::engine::model::billing::BillingSetup;
use crate::engine::model::setup::{Acknowledge, ChargingSetup, CloudSetup, OutsideSetup, Setup};
use crate::engine::model::tariff::Tariff;
use crate::engine::model::token::{AuthorizationSetup, TokenEntry};
use crate::engine::model::topology::{InverterIndex, MeterIndex, Secret, Topology};
use crate::engine::model::wish::Wish;

/// The whole configuration. Only [`load()`](super::load()) makes one, so that everything in it fits together.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file that it was read from.
    pub path: PathBuf,
    /// `[site]`.
    pub site: SiteConfig,
    /// `[ocpp]`.
    pub ocpp: OcppConfig,
    /// `[api]`.
    pub api: ApiConfig,
    /// `[store]`.
    pub store: StoreConfig,
    /// `[cloud]`; `None`: the site runs on its own.
    pub cloud: Option<CloudConfig>,
    /// `[authorization]`.
    pub authorization: AuthorizationSetup,
    /// The entries of `authorization.tokens_file`.
    pub tokens: Vec<TokenEntry>,
    /// `[groups.NAME]` of the same file.
    pub groups: BTreeMap<String, Wish>,
    /// `[[tariffs]]`.
    pub tariffs: Vec<Tariff>,
    /// `[billing]`, and what the chargers say for it.
    pub billing: BillingSetup,
    /// What is read and written by Modbus: all meters, then all inverters, each in the order of the topology.
    pub devices: Vec<DeviceConfig>,
    /// The dimming's input, where it is read by Modbus.
    pub dimming_device: Option<DimmingDevice>,
    /// `[[schedules]]`, `[dimming]`, floors and the start after a power cut.
    pub outside: OutsideSetup,
    /// `[charging]`.
    pub charging: ChargingSetup,
    /// `[[circuits]]`, `[[meters]]`, `[[inverters]]` and `[[chargers]]`: what is wired to what.
    pub topology: Topology,
}

impl Config {
    /// What the engine is told before it starts. `version` is the daemon's; `seed` feeds the engine's dice.
    #[must_use]
    pub fn setup(&self, version: &str, seed: u64) -> Setup {
        Setup {
            topology: self.topology.clone(),
            version: version.to_owned(),
            heartbeat_s: self.ocpp.heartbeat_s,
            tokens: self.tokens.clone(),
            groups: self.groups.clone(),
            timezone: self.site.timezone,
            authorization: self.authorization.clone(),
            cloud: self
                .cloud
                .as_ref()
                .map(|cloud| CloudSetup { topic_prefix: cloud.topic_prefix.clone(), acknowledge: cloud.acknowledge }),
            outside: self.outside.clone(),
            tariffs: self.tariffs.clone(),
            billing: self.billing.clone(),
            unsafe_fallback: self.failsafe().summary(),
            charging: self.charging.clone(),
            seed,
        }
    }

    /// Whether every circuit holds when all chargers have lost the controller.
    #[must_use]
    pub fn failsafe(&self) -> FailsafeReport {
        failsafe(&self.topology)
    }
}

/// `[site]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteConfig {
    /// For people.
    pub name: String,
    /// Schedules and tariffs are in this zone's local time.
    pub timezone: Tz,
    /// The longest random wait of a charger after a power cut, in ms; 0: none.
    pub random_start_max_ms: u64,
    /// A boost ends that wait.
    pub boost_ends_random_start: bool,
    /// Start although the sum of the fallbacks does not fit.
    pub allow_unsafe_fallback: bool,
}

/// What happens to a station with an identity that is not in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownChargers {
    /// Its connection is refused.
    Reject,
    /// It waits for an operator's approval.
    Pending,
    /// It is approved as soon as it has said what it is.
    Accept,
}

/// `[ocpp]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OcppConfig {
    /// Where stations connect to (`ws://`). Port 0 takes any free one.
    pub listen: SocketAddr,
    /// The path before the station's identity; begins with `/` and does not end with one.
    pub path: String,
    /// What happens to stations that are not configured.
    pub unknown_chargers: UnknownChargers,
    /// The heartbeat interval that stations are given, in s, 10 to 86400.
    pub heartbeat_s: u32,
}

/// `[api]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiConfig {
    /// Where REST, the page and `/metrics` are served. A loopback address. Port 0 takes any free one.
    pub listen: SocketAddr,
}

/// `[store]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// The directory of the journal.
    pub path: PathBuf,
    /// How many events are kept on site after the cloud has acknowledged them, 1000 to 200000.
    pub history_events: u64,
    /// The size that telemetry is dropped to stay below, in MB, 16 to 1048576.
    pub max_size_mb: u64,
}

/// Where a broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Its name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// `[cloud]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudConfig {
    /// Whether the link is encrypted (`mqtts://`).
    pub tls: bool,
    /// The brokers, the preferred one first; at least one.
    pub brokers: Vec<Broker>,
    /// The MQTT user name.
    pub username: Option<String>,
    /// The MQTT password, from `password_file`.
    pub password: Option<Secret>,
    /// The authorities that may vouch for the broker (PEM); `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// Our certificate chain and private key (PEM) for mutual TLS.
    pub client: Option<(PathBuf, PathBuf)>,
    /// The first part of every topic, without a `/` at either end.
    pub topic_prefix: String,
    /// Whether `configuration.put` is carried out.
    pub remote_configuration: bool,
    /// How long a configuration that was sent has time to show that it works, in s, 10 to 3600.
    pub probation_s: u64,
    /// When an event counts as delivered.
    pub acknowledge: Acknowledge,
}

/// Which device of the topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceTarget {
    /// A meter.
    Meter(MeterIndex),
    /// An inverter.
    Inverter(InverterIndex),
}

/// How the dimming's input is reached and read.
#[derive(Clone, Debug, PartialEq)]
pub struct DimmingDevice {
    /// How it is reached.
    pub connection: Connection,
    /// Its address on the bus.
    pub unit_id: u8,
    /// The ms from one reading to the next, 100 to 600000.
    pub interval_ms: u64,
    /// Where the input is.
    pub switch: Switch,
}

/// How a meter or an inverter is reached and read.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceConfig {
    /// Which one.
    pub target: DeviceTarget,
    /// How it is reached.
    pub connection: Connection,
    /// Its address on the bus.
    pub unit_id: u8,
    /// The ms from one reading to the next, 100 to 600000.
    pub interval_ms: u64,
    /// The name of its device map.
    pub profile: String,
    /// Its registers.
    pub map: DeviceMap,
}
