//! From wishes to currents that can be sent: exact, in three rounds, each current rounded down before the next one is looked at.

use super::Car;
use super::horizon::Outlook;
use super::network::{Network, Phasor};

/// A car whose planned shortage is below this share of its need (or this many A × periods) is meant to be full in time.
const MEANT_SHARE: f64 = 0.05;
const MEANT_AMP_PERIODS: f64 = 2.0;

pub(super) struct Emission<'a> {
    network: &'a Network,
    now: f64,
    cars: &'a [Car],
    loads: Vec<Phasor>,
    amps: Vec<f64>,
}

impl<'a> Emission<'a> {
    pub(super) fn new(network: &'a Network, now: f64, cars: &'a [Car]) -> Self {
        Self { network, now, cars, loads: vec![Phasor::default(); network.rows()], amps: vec![0.0; cars.len()] }
    }

    pub(super) fn run(mut self, outlook: &Outlook) -> Vec<f64> {
        let mut order: Vec<usize> = (0..self.cars.len()).collect();
        order.sort_by(|a, b| self.laxity(*a).total_cmp(&self.laxity(*b)));
        // What a car needs now if it gets its maximum in every period after: whom the plan means to fill must not miss it by rounding.
        for index in &order {
            let car = &self.cars[*index];
            if outlook.short[*index] < MEANT_SHARE * car.remaining + MEANT_AMP_PERIODS {
                let later = car.max_a * (car.departure - self.now - 1.0).max(0.0);
                self.give(*index, (car.remaining - later).clamp(0.0, car.max_a));
            }
        }
        for index in &order {
            self.give(*index, outlook.now_a[*index]);
        }
        // Nothing stays unused: first whoever charges by the plan, then the others.
        order.sort_by(|a, b| (self.amps[*b] > 0.0).cmp(&(self.amps[*a] > 0.0)));
        for index in &order {
            self.give(*index, f64::MAX);
        }
        self.amps
    }

    /// Periods that the car could wait and still be full.
    fn laxity(&self, index: usize) -> f64 {
        let car = &self.cars[index];
        car.departure - self.now - car.remaining / car.max_a.max(0.001)
    }

    /// Raises a car to at most `wanted`.
    fn give(&mut self, index: usize, wanted: f64) {
        let car = &self.cars[index];
        let has = self.amps[index];
        let station = &self.network.stations()[car.station];
        // The last of its energy may need a little less than can be offered; without it the car would never be full.
        let useful = if car.remaining > 0.0 { station.ceil(car.remaining, car.min_a) } else { 0.0 };
        let wanted = wanted.min(car.max_a).min(useful);
        if wanted <= has {
            return;
        }
        let group = self.network.group_of(car.station);
        let possible = wanted.min(has + self.network.room(&self.loads, group));
        let gets = station.floor(possible, car.min_a);
        if gets > has {
            self.network.load(&mut self.loads, group, gets - has);
            self.amps[index] = gets;
        }
    }
}
