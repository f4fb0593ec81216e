//! The site's state machine: `Site::handle(input, now, &mut out)`.

pub mod io;
pub mod ledger;

use crate::engine::model::ids::Sequence;
use crate::engine::model::setup::Setup;
use crate::engine::model::status::{Explanation, SiteStatus};
use crate::engine::model::topology::{StationIndex, Topology};
use crate::engine::time::Now;
use io::{Input, Output};
use ledger::Ledger;

/// What the store knew when the daemon started.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// The store's random name: with the sequence it names an event for ever.
    pub store_id: String,
    /// Counts the starts on this store, from 1.
    pub boot: u64,
    /// The fold of all records (snapshot and what came after it). All of them are durable.
    pub ledger: Ledger,
    /// The last record that the cloud has acknowledged.
    pub acknowledged: Sequence,
    /// What is known to be missing, if a damaged store was set aside at this start.
    pub damage: Option<String>,
}

/// The site.
#[derive(Debug)]
pub struct Site {
    setup: Setup,
}

impl Site {
    /// Starts the state machine.
    #[must_use]
    pub fn new(setup: Setup, restored: Restored, now: Now) -> Self {
        let _ = (restored, now);
        Self { setup }
    }

    /// Takes in what happened and appends what is to be done to `out`.
    pub fn handle(&mut self, input: Input, now: Now, out: &mut Vec<Output>) {
        let _ = (input, now, out);
    }

    /// What is wired to what.
    #[must_use]
    pub const fn topology(&self) -> &Topology {
        &self.setup.topology
    }

    /// The site at a glance.
    #[must_use]
    pub fn status(&self, now: Now) -> SiteStatus {
        SiteStatus { time: now.utc, ..SiteStatus::default() }
    }

    /// Why a station's EVSEs have the limits that they have.
    #[must_use]
    pub fn explain(&self, station: StationIndex, now: Now) -> Explanation {
        let _ = now;
        Explanation { charger: self.setup.topology.station(station).id.to_string(), ..Explanation::default() }
    }
}
