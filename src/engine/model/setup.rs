//! Everything the engine is told before it starts: the lowered configuration.

use std::collections::BTreeMap;

pub use chrono_tz::Tz;

use super::billing::BillingSetup;
use super::ids::CircuitId;
use super::limit::{Dimming, ScheduledLimit};
use super::tariff::Tariff;
use super::token::{AuthorizationSetup, TokenEntry};
use super::topology::Topology;
use super::wish::Wish;
use crate::engine::units::Current;

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

/// What limits the site from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutsideSetup {
    /// Limits that come and go with the time of day.
    pub schedules: Vec<ScheduledLimit>,
    /// The grid operator's dimming; `None`: it is refused.
    pub dimming: Option<Dimming>,
    /// Below this no limit from outside goes, on each phase.
    pub floors: BTreeMap<CircuitId, Current>,
    /// The longest random wait of a station after a power cut, in ms; 0: none waits.
    pub random_start_max_ms: u64,
    /// A boost ends that wait: for sites where nobody else asks for it.
    pub boost_ends_random_start: bool,
}

/// How the site as a whole steers: `[charging]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChargingSetup {
    /// Whether a car that leaves phases unused for a while gives them up for the rest of its transaction.
    pub learn_car_phases: bool,
    /// Whether current that is fed in inside a circuit may be given out.
    pub count_feed_in: bool,
    /// The most that all raises below the grid connection point may add per second on a phase; `None`: no ramp.
    pub ramp_per_s: Option<Current>,
    /// How often the limit of one EVSE may be raised within a minute, at least 1. Cuts are never bounded.
    pub raises_per_minute: usize,
    /// How long after its last reading a circuit is planned with its unmeasured load before only the fallbacks are given out; `None`: for
    /// as long as the meter is silent.
    pub meter_lost_after_ms: Option<u64>,
}

impl Default for ChargingSetup {
    fn default() -> Self {
        Self {
            learn_car_phases: false,
            count_feed_in: false,
            ramp_per_s: None,
            raises_per_minute: 6,
            meter_lost_after_ms: None,
        }
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
    /// How it is decided who may charge.
    pub authorization: AuthorizationSetup,
    /// The site's clocks: departures, schedules and tariffs are in their time.
    pub timezone: Tz,
    /// What charging costs; none: nothing is priced.
    pub tariffs: Vec<Tariff>,
    /// How transactions are billed.
    pub billing: BillingSetup,
    /// The cloud; `None`: the site runs on its own.
    pub cloud: Option<CloudSetup>,
    /// What limits it from outside.
    pub outside: OutsideSetup,
    /// The site was started although the sum of its fallbacks does not fit: which circuit, in words.
    pub unsafe_fallback: Option<String>,
    /// How the site as a whole steers.
    pub charging: ChargingSetup,
    /// Seeds the engine's dice (message ids).
    pub seed: u64,
}
