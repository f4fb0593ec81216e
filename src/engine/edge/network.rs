//! Stations and the rows that bound them.

/// A complex number: a current with its phase, or a row's coefficient.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Phasor {
    /// The real part.
    pub re: f64,
    /// The imaginary part.
    pub im: f64,
}

impl Phasor {
    pub(super) fn magnitude(self) -> f64 {
        self.re.hypot(self.im)
    }

    pub(super) fn scaled(self, by: f64) -> Self {
        Self { re: self.re * by, im: self.im * by }
    }

    pub(super) fn dot(self, other: Self) -> f64 {
        self.re * other.re + self.im * other.im
    }

    pub(super) fn add_scaled(&mut self, other: Self, by: f64) {
        self.re += other.re * by;
        self.im += other.im * by;
    }
}

/// A station takes 0 A, or a current from `min_a` to `max_a`, or, with `levels_a`, only one of these.
#[derive(Clone, Debug, PartialEq)]
pub struct Station {
    /// The least that it can offer, in A.
    pub min_a: f64,
    /// The most that it can offer, in A.
    pub max_a: f64,
    /// The only currents that it can offer, in A, rising; empty: every one.
    pub levels_a: Vec<f64>,
}

/// Currents leave in whole µA.
const MICRO: f64 = 1_000_000.0;

impl Station {
    /// The greatest current at or below `current` that the station can offer to a car that takes nothing below `car_min`; in whole µA
    /// where it is free to choose: so little that what is lost by it in a day is not seen in Wh.
    pub(super) fn floor(&self, current: f64, car_min: f64) -> f64 {
        let below = if self.levels_a.is_empty() {
            (current.min(self.max_a) * MICRO + 1e-3).floor() / MICRO
        } else {
            self.levels_a.iter().copied().filter(|level| *level <= current + 1e-9).fold(0.0, f64::max)
        };
        if below < self.min_a.max(car_min) { 0.0 } else { below }
    }

    /// The least current at or above `current` that the station can offer: a car that needs less takes less.
    pub(super) fn ceil(&self, current: f64, car_min: f64) -> f64 {
        let above = current.max(self.min_a).max(car_min);
        if self.levels_a.is_empty() {
            return (above * MICRO).ceil() / MICRO;
        }
        self.levels_a.iter().copied().find(|level| *level >= above - 1e-9).unwrap_or(above)
    }
}

/// A limit: the magnitude of the weighted sum of the stations' currents.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The largest magnitude, in A.
    pub limit_a: f64,
    /// Station and coefficient.
    pub terms: Vec<(usize, Phasor)>,
}

/// Why a network was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// A station's currents are out of order.
    #[error("stations[{0}]: must be 0 ≤ min_a ≤ max_a, with levels_a not negative and rising")]
    Station(usize),
    /// A row's limit is negative or not a number.
    #[error("constraints[{0}]: limit_a must be a number of at least 0")]
    Limit(usize),
    /// A row names a station that does not exist, or a coefficient is not a number.
    #[error("constraints[{row}].terms[{term}]: must be [station index below {stations}, re, im]")]
    Term {
        /// Which row.
        row: usize,
        /// Which of its terms.
        term: usize,
        /// How many stations there are.
        stations: usize,
    },
}

/// Stations with the same coefficient in every row: for the rows only their sum counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    /// Row and coefficient, rows rising.
    pub(super) terms: Vec<(usize, Phasor)>,
    /// The same, with each row scaled so that its limit is [`NORMAL_LIMIT`].
    pub(super) normal: Vec<(usize, Phasor)>,
    /// A row has no room for it at all.
    pub(super) blocked: bool,
}

/// All rows have this limit, in A, where the horizon sees them, so that one step size suits all.
pub(super) const NORMAL_LIMIT: f64 = 80.0;
/// Below this limit in A a row lets nothing through.
const CLOSED: f64 = 1e-3;

/// Stations and rows, checked.
#[derive(Clone, Debug)]
pub struct Network {
    stations: Vec<Station>,
    limits: Vec<f64>,
    groups: Vec<Group>,
    group_of: Vec<usize>,
}

impl Network {
    /// Checks the parts.
    ///
    /// # Errors
    /// The first fault found, with its place.
    pub fn new(stations: Vec<Station>, rows: &[Row]) -> Result<Self, NetworkError> {
        if let Some(bad) = stations.iter().position(|station| !is_station(station)) {
            return Err(NetworkError::Station(bad));
        }
        let mut columns = vec![Vec::<(usize, Phasor)>::new(); stations.len()];
        for (row, Row { limit_a, terms }) in rows.iter().enumerate() {
            if !(limit_a.is_finite() && *limit_a >= 0.0) {
                return Err(NetworkError::Limit(row));
            }
            for (term, (station, coefficient)) in terms.iter().enumerate() {
                let error = NetworkError::Term { row, term, stations: stations.len() };
                let column = columns.get_mut(*station).ok_or_else(|| error.clone())?;
                if !coefficient.magnitude().is_finite() {
                    return Err(error);
                }
                match column.last_mut().filter(|(last, _)| *last == row) {
                    Some((_, sum)) => sum.add_scaled(*coefficient, 1.0),
                    None => column.push((row, *coefficient)),
                }
            }
        }
        let limits: Vec<f64> = rows.iter().map(|row| row.limit_a).collect();
        let mut groups: Vec<Group> = Vec::new();
        let mut group_of = Vec::with_capacity(stations.len());
        for mut terms in columns {
            terms.retain(|(_, coefficient)| coefficient.magnitude() > 1e-12);
            let known = groups.iter().position(|group| group.terms == terms);
            group_of.push(known.unwrap_or(groups.len()));
            if known.is_none() {
                groups.push(Group::new(terms, &limits));
            }
        }
        Ok(Self { stations, limits, groups, group_of })
    }

    /// The stations.
    #[must_use]
    pub fn stations(&self) -> &[Station] {
        &self.stations
    }

    /// How many rows there are.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.limits.len()
    }

    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }

    pub(super) fn group_of(&self, station: usize) -> usize {
        self.group_of[station]
    }

    /// How much more a station of `group` could be given on top of `loads`, in A.
    pub(super) fn room(&self, loads: &[Phasor], group: usize) -> f64 {
        let group = &self.groups[group];
        if group.blocked {
            return 0.0;
        }
        let room = group.terms.iter().map(|(row, coefficient)| {
            // |load + coefficient·x| = limit is quadratic in x; the feasible x are an interval from 0.
            let square = coefficient.dot(*coefficient);
            let half = loads[*row].dot(*coefficient);
            let rest = loads[*row].dot(loads[*row]) - self.limits[*row] * self.limits[*row];
            (-half + (half * half - square * rest).max(0.0).sqrt()) / square
        });
        // The tolerance is far below the mA to which currents are rounded down, and above the error of the root.
        (room.fold(f64::MAX, f64::min) - 1e-7).max(0.0)
    }

    /// Adds a station's current to the loads of its rows.
    pub(super) fn load(&self, loads: &mut [Phasor], group: usize, current: f64) {
        for (row, coefficient) in &self.groups[group].terms {
            loads[*row].add_scaled(*coefficient, current);
        }
    }

    /// Whether stations with these currents keep every row.
    pub(super) fn holds(&self, currents: impl Iterator<Item = (usize, f64)>) -> bool {
        let mut loads = vec![Phasor::default(); self.limits.len()];
        for (station, current) in currents {
            self.load(&mut loads, self.group_of[station], current);
        }
        loads.iter().zip(&self.limits).all(|(load, limit)| load.magnitude() <= limit + 1e-6)
    }
}

impl Group {
    fn new(terms: Vec<(usize, Phasor)>, limits: &[f64]) -> Self {
        let blocked = terms.iter().any(|(row, _)| limits[*row] < CLOSED);
        let scale = |row: usize| if limits[row] < CLOSED { 0.0 } else { NORMAL_LIMIT / limits[row] };
        let normal = terms.iter().map(|(row, coefficient)| (*row, coefficient.scaled(scale(*row)))).collect();
        Self { terms, normal, blocked }
    }
}

fn is_station(station: &Station) -> bool {
    let ordered =
        station.levels_a.is_sorted() && station.levels_a.iter().all(|level| level.is_finite() && *level >= 0.0);
    ordered && station.max_a.is_finite() && station.min_a >= 0.0 && station.min_a <= station.max_a
}
