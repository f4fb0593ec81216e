//! `edge-planner/1`: stations, phasor rows, sessions.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Number;

use super::read;
use crate::engine::edge::{Car, EdgePlanner, Network, Phasor, Row, Station};
use crate::shell::clock::Clock;

pub(super) const PROTO: &str = "edge-planner/1";
/// Stations and constraints at most: beyond, a first-order plan of bounded work is no plan.
const MOST: usize = 10_000;

// Fields that are not known are ignored, as the protocol demands.

#[derive(Deserialize)]
struct Hello {
    stations: Vec<WireStation>,
    constraints: Vec<WireRow>,
}

#[derive(Deserialize)]
struct WireStation {
    min_a: f64,
    max_a: f64,
    levels_a: Option<Vec<f64>>,
}

#[derive(Deserialize)]
struct WireRow {
    limit_a: f64,
    terms: Vec<(usize, f64, f64)>,
}

#[derive(Deserialize)]
struct Plan {
    t: Number,
    sessions: Vec<Session>,
}

#[derive(Deserialize)]
struct Session {
    station: usize,
    session: String,
    estimated_departure: f64,
    remaining_amp_periods: f64,
    min_a: f64,
    max_a: f64,
}

#[derive(Serialize)]
struct Ready {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'static str,
}

#[derive(Serialize)]
struct Pilots {
    #[serde(rename = "type")]
    kind: &'static str,
    t: Number,
    amps: BTreeMap<usize, f64>,
    solve_us: u64,
}

/// A site that has said hello.
pub(super) struct EdgeForm {
    planner: EdgePlanner,
}

impl EdgeForm {
    /// Takes a site in and answers `ready`.
    pub(super) fn hello(text: &str) -> Result<(Self, String), String> {
        let hello: Hello = read(text)?;
        if hello.stations.is_empty() || hello.stations.len() > MOST || hello.constraints.len() > MOST {
            return Err(format!("stations and constraints must be at most {MOST}, with at least one station"));
        }
        let stations = hello.stations.into_iter().map(|station| Station {
            min_a: station.min_a,
            max_a: station.max_a,
            levels_a: station.levels_a.unwrap_or_default(),
        });
        let rows: Vec<Row> = hello
            .constraints
            .into_iter()
            .map(|row| Row {
                limit_a: row.limit_a,
                terms: row.terms.into_iter().map(|(station, re, im)| (station, Phasor { re, im })).collect(),
            })
            .collect();
        let network = Network::new(stations.collect(), &rows).map_err(|error| error.to_string())?;
        let ready = Ready { kind: "ready", name: concat!("siteward ", env!("CARGO_PKG_VERSION")) };
        let ready = serde_json::to_string(&ready).map_err(|error| error.to_string())?;
        Ok((Self { planner: EdgePlanner::new(network) }, ready))
    }

    /// Answers a decision.
    pub(super) fn plan(&mut self, text: &str, clock: Clock) -> Result<String, String> {
        let plan: Plan = read(text)?;
        let now = plan.t.as_f64().filter(|now| now.is_finite()).ok_or("t must be a number of periods")?;
        let cars = self.cars(&plan)?;
        let begin = clock.us();
        let decided = self.planner.decide(now, &cars);
        let solve_us = clock.us() - begin;
        let amps = cars.iter().zip(decided).map(|(car, current)| (car.station, current)).collect();
        let pilots = Pilots { kind: "pilots", t: plan.t, amps, solve_us };
        serde_json::to_string(&pilots).map_err(|error| error.to_string())
    }

    fn cars(&self, plan: &Plan) -> Result<Vec<Car>, String> {
        let stations = self.planner.network().stations();
        let mut taken = BTreeSet::new();
        let mut names = BTreeSet::new();
        let mut cars = Vec::with_capacity(plan.sessions.len());
        for (index, session) in plan.sessions.iter().enumerate() {
            let at = |what: &str| format!("sessions[{index}]: {what}");
            let station = stations.get(session.station).ok_or_else(|| {
                at(&format!("station {} does not exist; there are 0 to {}", session.station, stations.len() - 1))
            })?;
            if !taken.insert(session.station) {
                return Err(at(&format!(
                    "station {} has another session already; one car at a station",
                    session.station
                )));
            }
            if !names.insert(session.session.as_str()) {
                return Err(at(&format!("session {:?} is listed twice", session.session)));
            }
            if session.min_a < 0.0 || session.max_a < 0.0 {
                return Err(at("min_a and max_a must be at least 0"));
            }
            cars.push(Car {
                session: session.session.clone(),
                station: session.station,
                departure: session.estimated_departure,
                remaining: session.remaining_amp_periods.max(0.0),
                max_a: session.max_a.min(station.max_a),
                min_a: session.min_a,
            });
        }
        Ok(cars)
    }
}
