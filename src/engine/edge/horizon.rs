//! The plan until the last car leaves, by a first-order method without a solver.
//!
//! The horizon is cut at the departures into intervals. Wanted are currents `x[car][interval]` that deliver the most energy, each amp of it
//! worth a little more if it helps to finish a car and if it comes early, above all for those that can hardly wait:
//!
//! ```text
//! maximise  Σ length·(worth[car] − delay[car]·midpoint)·x     with  0 ≤ x ≤ max,  Σ length·x ≤ remaining,  |Σ coefficient·x| ≤ limit
//! ```
//!
//! It is solved by the primal-dual hybrid gradient method: every row and interval has a price (a phasor), every car one for its energy;
//! currents follow prices, prices follow loads. A row's price step is a projection on a disc, so delta circuits need no
//! linearisation. Prices and currents of the last decision are the start of the next, which is nearly the same problem, so a bounded number
//! of rounds is enough.

use std::collections::BTreeMap;

use super::Car;
use super::network::{NORMAL_LIMIT, Network, Phasor};

/// Intervals at most; the shortest ones, measured by how far away they are, are joined.
const INTERVALS: usize = 32;
/// Rounds at most and at least, and the work after which to stop, in about a nanosecond each: the method is bounded, not timed, so
/// that the same states give the same plan on every machine.
const ROUNDS: (usize, usize) = (8, 200);
const WORK: usize = 800_000;
/// How fast prices move against currents.
const BALANCE: f64 = 0.04;
/// What finishing counts on top of the energy, and the need in A × periods at which it counts half.
const FINISH: f64 = 0.1;
const FINISH_AMP_PERIODS: f64 = 20.0;
/// What a horizon of delay costs each amp, and how much more those that can hardly wait, with and without scarcity.
const DELAY: f64 = 0.1;
const DELAY_TIGHT: f64 = 0.3;
const DELAY_TIGHT_CALM: f64 = 1.0;
/// The share of all needs that must be short for scarcity to count in full, and what counts of it always.
const SCARCE: f64 = 0.02;
const SCARCE_LEAST: f64 = 0.05;
/// Periods that count as a whole horizon at least.
const SPAN: f64 = 144.0;

/// What the horizon says of the period that begins now.
#[derive(Debug)]
pub(super) struct Outlook {
    /// The wished current of each car, in A.
    pub(super) now_a: Vec<f64>,
    /// What each car will lack when it leaves, in A × periods.
    pub(super) short: Vec<f64>,
}

/// The last plan.
#[derive(Debug, Default)]
pub(super) struct Horizon {
    bounds: Vec<f64>,
    /// Interval by interval, one for each row.
    prices: Vec<Phasor>,
    cars: BTreeMap<String, Kept>,
    /// The share of all needs that will not be met.
    scarcity: f64,
}

#[derive(Debug)]
struct Kept {
    amps: Vec<f64>,
    price: f64,
}

impl Horizon {
    /// Plans, and keeps the plan.
    pub(super) fn look(&mut self, network: &Network, now: f64, cars: &[Car]) -> Outlook {
        if cars.is_empty() {
            *self = Self::default();
            return Outlook { now_a: Vec::new(), short: Vec::new() };
        }
        let problem = Problem::new(network, now, cars, self.scarcity);
        let mut iterate = self.start(&problem);
        let steps = Steps::new(&problem);
        let mut sums = vec![0.0; problem.intervals * network.groups().len()];
        for _ in 0..problem.rounds() {
            iterate.move_currents(&problem, &steps, &mut sums);
            iterate.move_prices(&problem, &steps, &sums);
        }
        let short: Vec<f64> = (0..cars.len()).map(|car| problem.short(&iterate, car)).collect();
        let need: f64 = cars.iter().map(|car| car.remaining).sum();
        let now_a = (0..cars.len()).map(|car| iterate.amps[car * problem.intervals]).collect();
        self.scarcity = if need > 0.0 { short.iter().sum::<f64>() / need } else { 0.0 };
        self.keep(problem, iterate);
        Outlook { now_a, short }
    }

    /// The last plan as far as it still applies.
    fn start(&self, problem: &Problem<'_>) -> Iterate {
        let (intervals, rows) = (problem.intervals, problem.network.rows());
        let was: Vec<Option<usize>> =
            (0..intervals).map(|interval| self.interval_at(problem.middle(interval))).collect();
        let mut prices = vec![Phasor::default(); intervals * rows];
        for (interval, old) in was.iter().enumerate() {
            if let Some(old) = old {
                prices[interval * rows..][..rows].copy_from_slice(&self.prices[old * rows..][..rows]);
            }
        }
        let mut amps = vec![0.0; problem.cars.len() * intervals];
        let mut energy_prices = vec![0.0; problem.cars.len()];
        for (index, car) in problem.cars.iter().enumerate() {
            let Some(kept) = self.cars.get(&car.session) else { continue };
            energy_prices[index] = kept.price;
            for (interval, old) in was.iter().enumerate() {
                let cell = index * intervals + interval;
                amps[cell] = old.map_or(0.0, |old| kept.amps[old]).min(problem.most[cell]);
            }
        }
        Iterate { amps, energy_prices, prices }
    }

    fn interval_at(&self, time: f64) -> Option<usize> {
        self.bounds.windows(2).position(|pair| pair[0] <= time && time < pair[1])
    }

    fn keep(&mut self, problem: Problem<'_>, iterate: Iterate) {
        let plans = iterate.amps.chunks(problem.intervals).zip(iterate.energy_prices);
        let cars = problem.cars.iter().zip(plans);
        self.cars =
            cars.map(|(car, (amps, price))| (car.session.clone(), Kept { amps: amps.to_vec(), price })).collect();
        self.bounds = problem.bounds;
        self.prices = iterate.prices;
    }
}

/// One decision's problem. Cells are car by car, interval by interval.
struct Problem<'a> {
    network: &'a Network,
    cars: &'a [Car],
    intervals: usize,
    bounds: Vec<f64>,
    lengths: Vec<f64>,
    groups: Vec<usize>,
    /// The largest current of each cell: 0 after the departure.
    most: Vec<f64>,
    /// Intervals in which each car is here.
    stays: Vec<usize>,
    worth: Vec<f64>,
    delay: Vec<f64>,
    /// How late each interval is, in horizons.
    late: Vec<f64>,
}

impl<'a> Problem<'a> {
    fn new(network: &'a Network, now: f64, cars: &'a [Car], scarcity: f64) -> Self {
        let bounds = bounds(now, cars);
        let intervals = bounds.len() - 1;
        let lengths: Vec<f64> = bounds.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let span = (bounds[intervals] - now).max(SPAN);
        let late = bounds.windows(2).map(|pair| ((pair[0] + pair[1]) / 2.0 - now) / span).collect();
        let groups: Vec<usize> = cars.iter().map(|car| network.group_of(car.station)).collect();
        let mut most = Vec::with_capacity(cars.len() * intervals);
        let mut stays = Vec::with_capacity(cars.len());
        for (car, group) in cars.iter().zip(&groups) {
            let max = if network.groups()[*group].blocked { 0.0 } else { car.max_a };
            let leaves = car.departure.max(now + 1.0);
            // An interval that was joined can outlast the stay: then only its share counts.
            most.extend(bounds.windows(2).map(|pair| max * ((leaves - pair[0]) / (pair[1] - pair[0])).clamp(0.0, 1.0)));
            stays.push(bounds[..intervals].partition_point(|begins| *begins < leaves));
        }
        let scarce = (scarcity / SCARCE).clamp(SCARCE_LEAST, 1.0);
        let tight_delay = DELAY_TIGHT * scarce + DELAY_TIGHT_CALM * (1.0 - scarce);
        let worth =
            cars.iter().map(|car| 1.0 + FINISH * scarce * FINISH_AMP_PERIODS / (FINISH_AMP_PERIODS + car.remaining));
        let delay = cars.iter().map(|car| {
            let possible = car.max_a * (car.departure - now).max(1.0);
            DELAY + tight_delay * if possible > 0.0 { (car.remaining / possible).min(1.0) } else { 0.0 }
        });
        let (worth, delay) = (worth.collect(), delay.collect());
        Self { network, cars, intervals, bounds, lengths, groups, most, stays, worth, delay, late }
    }

    fn middle(&self, interval: usize) -> f64 {
        f64::midpoint(self.bounds[interval], self.bounds[interval + 1])
    }

    /// How many rounds the work allows.
    fn rounds(&self) -> usize {
        let cells: usize = self.stays.iter().sum();
        let terms: usize = self.network.groups().iter().map(|group| group.normal.len()).sum();
        let each = 3 * cells + self.intervals * (8 * terms + 10 * self.network.rows());
        (WORK / each.max(1)).clamp(ROUNDS.0, ROUNDS.1)
    }

    fn short(&self, iterate: &Iterate, car: usize) -> f64 {
        let plan = &iterate.amps[car * self.intervals..][..self.stays[car]];
        let gets: f64 = plan.iter().zip(&self.lengths).map(|(current, length)| current * length).sum();
        (self.cars[car].remaining - gets).max(0.0)
    }
}

/// Now and the departures, at most [`INTERVALS`] of them.
fn bounds(now: f64, cars: &[Car]) -> Vec<f64> {
    let mut ends: Vec<f64> = cars.iter().map(|car| car.departure.max(now + 1.0)).collect();
    ends.sort_by(f64::total_cmp);
    ends.dedup();
    while ends.len() > INTERVALS {
        let length = |index: usize| ends[index] - if index == 0 { now } else { ends[index - 1] };
        let share = |index: &usize| length(*index) / (ends[*index] - now);
        let shortest = (0..ends.len() - 1).min_by(|a, b| share(a).total_cmp(&share(b)));
        ends.remove(shortest.unwrap_or(0));
    }
    ends.insert(0, now);
    ends
}

/// Step sizes after Pock and Chambolle: by the sums of each column and row, so that the method converges.
struct Steps {
    /// For each group.
    currents: Vec<f64>,
    /// For each car.
    energies: Vec<f64>,
    /// For each interval and row.
    rows: Vec<f64>,
}

impl Steps {
    fn new(problem: &Problem<'_>) -> Self {
        let (network, rows) = (problem.network, problem.network.rows());
        let column =
            |terms: &[(usize, Phasor)]| terms.iter().map(|(_, coefficient)| coefficient.magnitude()).sum::<f64>();
        let currents = network.groups().iter().map(|group| 1.0 / (BALANCE * (1.0 + column(&group.normal)))).collect();
        let energies =
            problem.stays.iter().map(|stays| BALANCE / problem.lengths[..*stays].iter().sum::<f64>()).collect();
        let mut sums = vec![0.0; problem.intervals * rows];
        for (stays, group) in problem.stays.iter().zip(&problem.groups) {
            for interval in 0..*stays {
                for (row, coefficient) in &network.groups()[*group].normal {
                    sums[interval * rows + row] += coefficient.magnitude();
                }
            }
        }
        let rows = sums.into_iter().map(|sum| if sum > 0.0 { BALANCE / sum } else { 0.0 }).collect();
        Self { currents, energies, rows }
    }
}

struct Iterate {
    amps: Vec<f64>,
    energy_prices: Vec<f64>,
    prices: Vec<Phasor>,
}

impl Iterate {
    /// Currents and energy prices take a step. `sums` becomes, for each interval and group, the extrapolated sum of the currents.
    fn move_currents(&mut self, problem: &Problem<'_>, steps: &Steps, sums: &mut [f64]) {
        let groups = problem.network.groups();
        let rows = problem.network.rows();
        let mut prices = vec![0.0; sums.len()];
        for (interval, priced) in prices.chunks_mut(groups.len()).enumerate() {
            let here = &self.prices[interval * rows..][..rows];
            for (price, group) in priced.iter_mut().zip(groups) {
                *price = group.normal.iter().map(|(row, coefficient)| here[*row].dot(*coefficient)).sum();
            }
        }
        sums.fill(0.0);
        for (car, group) in problem.groups.iter().enumerate() {
            let from = car * problem.intervals;
            let stays = problem.stays[car];
            let (plan, most) = (&mut self.amps[from..][..stays], &problem.most[from..][..stays]);
            let (step, gain) = (steps.currents[*group], problem.worth[car] - self.energy_prices[car]);
            let mut energy = 0.0;
            for (interval, current) in plan.iter_mut().enumerate() {
                let cell = interval * groups.len() + group;
                let slope = gain - problem.delay[car] * problem.late[interval] - prices[cell];
                let next = (*current + step * slope).clamp(0.0, most[interval]);
                let extrapolated = 2.0 * next - *current;
                *current = next;
                sums[cell] += extrapolated;
                energy += problem.lengths[interval] * extrapolated;
            }
            let excess = energy - problem.cars[car].remaining;
            self.energy_prices[car] = (self.energy_prices[car] + steps.energies[car] * excess).max(0.0);
        }
    }

    /// The rows' prices take a step: towards the load, less what the limit lets through free.
    fn move_prices(&mut self, problem: &Problem<'_>, steps: &Steps, sums: &[f64]) {
        let groups = problem.network.groups();
        let rows = problem.network.rows();
        for (interval, currents) in sums.chunks(groups.len()).enumerate() {
            let prices = &mut self.prices[interval * rows..][..rows];
            let sizes = &steps.rows[interval * rows..][..rows];
            for (current, group) in currents.iter().zip(groups) {
                for (row, coefficient) in &group.normal {
                    prices[*row].add_scaled(*coefficient, sizes[*row] * current);
                }
            }
            for (price, size) in prices.iter_mut().zip(sizes) {
                let (magnitude, free) = (price.magnitude(), size * NORMAL_LIMIT);
                *price = price.scaled(if magnitude > free { 1.0 - free / magnitude } else { 0.0 });
            }
        }
    }
}
