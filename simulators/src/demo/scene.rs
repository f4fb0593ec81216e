//! What the demo shows at one moment: the physical truth beside what the daemon says.

use siteward::engine::model::status::{CircuitStatus, EvseStatus, SiteStatus};
use siteward::engine::units::{Current, PerPhase};

use super::judge::CircuitRecord;

/// Whether a part of the demo runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// It runs.
    Up,
    /// It is away, in the words of the view.
    Away(String),
}

/// A station as it physically is.
#[derive(Clone, Debug)]
pub struct StationTruth {
    /// Its id.
    pub id: &'static str,
    /// Whether its network cable is in.
    pub plugged: bool,
    /// What it draws on the grid's phases.
    pub current: PerPhase<Current>,
    /// The car's state of charge in %, if there is one.
    pub soc_percent: Option<i64>,
}

/// What the cloud has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloudTruth {
    /// How many different events it has.
    pub events: u64,
    /// How many came again.
    pub duplicates: u64,
    /// How many gaps it saw, all asked for again.
    pub gaps: u64,
    /// Whether one is open now.
    pub gap_open: bool,
    /// Whether it is connected to the broker.
    pub connected: bool,
    /// How many transactions it has seen end.
    pub ended: usize,
}

/// Everything there is to be seen.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The s since the demo began.
    pub seconds: u64,
    /// The time of the simulated day, as hours and minutes.
    pub time_of_day: (i64, i64),
    /// The circuits, physically.
    pub circuits: Vec<CircuitRecord>,
    /// What the building draws.
    pub building: PerPhase<Current>,
    /// What the PV inverter feeds in.
    pub pv: PerPhase<Current>,
    /// The stations, physically.
    pub stations: Vec<StationTruth>,
    /// What the daemon says; `None` while it does not answer.
    pub status: Option<SiteStatus>,
    /// The broker.
    pub broker: Part,
    /// The grid meter.
    pub meter: Part,
    /// The controller.
    pub controller: Part,
    /// How often the controller was started again.
    pub restarts: u64,
    /// The cloud.
    pub cloud: CloudTruth,
    /// The station that the key `s` concerns next.
    pub next_station: &'static str,
    /// What happened last, newest last.
    pub news: Vec<String>,
}

impl Scene {
    /// What the daemon says of a circuit.
    #[must_use]
    pub fn circuit(&self, id: &str) -> Option<&CircuitStatus> {
        self.status.as_ref()?.circuits.iter().find(|circuit| circuit.id == id)
    }

    /// What the daemon says of a station's only EVSE, and whether it is connected.
    #[must_use]
    pub fn evse(&self, id: &str) -> Option<(bool, &EvseStatus)> {
        let charger = self.status.as_ref()?.chargers.iter().find(|charger| charger.id == id)?;
        charger.evses.first().map(|evse| (charger.connected, evse))
    }
}
