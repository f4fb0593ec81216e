//! Everything the engine is told before it starts: the lowered configuration.

use std::collections::BTreeMap;

pub use chrono_tz::Tz;

use super::tariff::Tariff;
use super::token::{TokenEntry, UnknownToken};
use super::topology::Topology;
use super::wish::Wish;

/// When an event counts as delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acknowledge {
    /// At the broker's PUBACK.
    #[default]
    Broker,
    /// At the cloud's `events.acknowledge` command.
    Application,
}

/// How the engine talks to the cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudSetup {
    /// The first part of every topic, such as `siteward/v1`.
    pub topic_prefix: String,
    /// When an event counts as delivered.
    pub acknowledge: Acknowledge,
}

/// What charging costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BillingSetup {
    /// The tariffs; none: nothing is priced.
    pub tariffs: Vec<Tariff>,
    /// The zone of their local times.
    pub zone: Tz,
}

impl Default for BillingSetup {
    fn default() -> Self {
        Self { tariffs: Vec::new(), zone: Tz::UTC }
    }
}

/// The lowered configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// What is wired to what.
    pub topology: Topology,
    /// The daemon's version.
    pub version: String,
    /// The heartbeat interval that stations are given, in s.
    pub heartbeat_s: u32,
    /// Tokens known from the start.
    pub tokens: Vec<TokenEntry>,
    /// What goes with the groups of tokens, by name.
    pub groups: BTreeMap<String, Wish>,
    /// What happens to other tokens.
    pub unknown_token: UnknownToken,
    /// The site's clocks: departures and schedules are in their time.
    pub timezone: Tz,
    /// What charging costs.
    pub billing: BillingSetup,
    /// The cloud; `None`: the site runs on its own.
    pub cloud: Option<CloudSetup>,
    /// The site was started although the sum of its fallbacks does not fit: which circuit, in words.
    pub unsafe_fallback: Option<String>,
    /// Seeds the engine's dice (message ids).
    pub seed: u64,
}
