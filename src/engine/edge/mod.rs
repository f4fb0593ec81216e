//! The planner for sites that are described by phasor rows (`edge-planner/1`): `|Σ (re + j·im)·I| ≤ limit`.
//!
//! A European tree is one row per circuit and phase with `im = 0`; a North American delta, where a station sits between two lines, needs
//! true phasors. The work has two layers. The **horizon** (`horizon`) plans all cars that are here until the last of them leaves, and so
//! finds who can wait; it is approximate and bounded in its work. The **emission** (`emit`) turns its wishes for the first interval into
//! currents that stations can take; it is exact, so what leaves keeps every row whatever the horizon says.

mod emit;
mod horizon;
mod network;

use emit::Emission;
use horizon::Horizon;
pub use network::{Network, NetworkError, Phasor, Row, Station};

/// A car that is plugged in. Times are in periods since any start; a current times periods is what a battery takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Car {
    /// What makes it the same car at the next decision.
    pub session: String,
    /// Its place in the network's stations; at most one car at each.
    pub station: usize,
    /// When it leaves, in periods. One that is overdue counts as leaving at the end of this period.
    pub departure: f64,
    /// What it still wants, in A × periods, at least 0.
    pub remaining: f64,
    /// The most that it takes in this period, in A, at least 0.
    pub max_a: f64,
    /// The least that it takes in this period, in A; below it is a pause.
    pub min_a: f64,
}

/// Plans period by period, and remembers its last plan as the start of the next one.
#[derive(Debug)]
pub struct EdgePlanner {
    network: Network,
    horizon: Horizon,
}

impl EdgePlanner {
    /// Begins without a memory.
    #[must_use]
    pub fn new(network: Network) -> Self {
        Self { network, horizon: Horizon::default() }
    }

    /// What it plans for.
    #[must_use]
    pub const fn network(&self) -> &Network {
        &self.network
    }

    /// The current for each of `cars` in the period that begins `now`, in A, rounded down to mA. All rows hold.
    ///
    /// # Panics
    /// If a car's station is not in the network.
    #[must_use]
    pub fn decide(&mut self, now: f64, cars: &[Car]) -> Vec<f64> {
        assert!(cars.iter().all(|car| car.station < self.network.stations().len()), "every car has a station");
        let outlook = self.horizon.look(&self.network, now, cars);
        let amps = Emission::new(&self.network, now, cars).run(&outlook);
        // Computed again from nothing. Nobody charging always holds.
        let holds = self.network.holds(cars.iter().zip(&amps).map(|(car, current)| (car.station, *current)));
        if holds { amps } else { vec![0.0; cars.len()] }
    }
}

#[cfg(test)]
mod tests;
