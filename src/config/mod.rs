//! The configuration file: schema with source positions, checks, lowering to the engine.
//!
//! [`load()`] reads `site.toml` and every file that it names, reports all problems at once with their places, and gives a [`Config`]
//! after which nothing can fail: [`Config::setup`] only copies. It opens no connection and changes nothing.

mod authorization;
mod billing;
mod brokers;
mod dc;
mod devices;
mod failsafe;
mod files;
mod load;
mod models;
mod outside;
mod problem;
mod reader;
pub mod remote;
mod schema;
mod sections;
mod tariffs;
mod tokens;
mod tree;
mod wiring;

#[cfg(test)]
mod tests;

pub use failsafe::{CircuitSum, FailsafeReport, failsafe};
pub use files::Places;
pub use load::{Loaded, load, load_from, load_text};
pub use problem::{Position, Problem, Problems, Severity};
pub use schema::{
    ApiConfig, Broker, CloudConfig, Config, DeviceConfig, DeviceTarget, DimmingDevice, OcppConfig, SiteConfig,
    StoreConfig, UnknownChargers,
};
pub use wiring::is_identity;
