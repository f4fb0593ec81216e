//! A car park in virtual time in which half of the cars must have some energy by a certain time.

use std::collections::{BTreeMap, VecDeque};

use siteward::engine::model::alarm::AlarmKind;
use siteward::engine::model::command::Command;
use siteward::engine::model::exchange::OcppVersion;
use siteward::engine::model::ids::{ConnectionId, RequestId, StationId};
use siteward::engine::model::record::RecordBody;
use siteward::engine::model::topology::StationIndex;
use siteward::engine::model::wish::{Place, TargetEnd};
use siteward::engine::site::io::{Input, JournalInput, Output};
use siteward::engine::site::{Restored, Site};
use siteward::engine::time::{Mono, Now, Utc};
use siteward::engine::units::{Current, Energy};
use siteward_sim::car::{Car, CarOptions};
use siteward_sim::station::{Station, StationOptions};
use siteward_sim::world::WorldOptions;
use siteward_sim::world::blueprint::token;

/// 2026-03-01T06:00:00Z.
const DAWN_MS: i64 = 1_772_344_800_000;
const MINUTE_MS: u64 = 60_000;

/// Twelve stations at 96 A, without other load: 8 A for each of twelve cars.
const STATIONS: usize = 12;
const LIMIT_A: i32 = 96;

/// What a car must have by when, in minutes after its arrival.
#[derive(Clone, Copy)]
struct Wanted {
    energy_wh: i64,
    minutes: u64,
}

/// 9.2 A on three phases, where an equal share is 8 A: with six such cars 40 A are left for the minimums of the six others.
const POSSIBLE: Wanted = Wanted { energy_wh: 18_500, minutes: 180 };
/// More than the car can take in that time.
const IMPOSSIBLE: Wanted = Wanted { energy_wh: 40_000, minutes: 150 };

struct Park {
    site: Site,
    stations: Vec<Station>,
    now_ms: u64,
    inputs: VecDeque<Input>,
    /// How the target at each station ended.
    ends: BTreeMap<String, TargetEnd>,
    /// When it was said that the target at a station cannot be met.
    told: BTreeMap<String, u64>,
    /// The largest sum of what was drawn on a phase, in mA.
    most_ma: i32,
}

impl Park {
    fn new() -> Self {
        let options = WorldOptions {
            stations: STATIONS,
            grid_limit: Current::from_a(LIMIT_A),
            building_peak: Current::ZERO,
            ..WorldOptions::default()
        };
        let mut setup = options.blueprint().setup().expect("a topology");
        setup.topology = one_circuit(&setup.topology);
        let station = |index: usize| {
            let version = if index % 3 == 2 { OcppVersion::V201 } else { OcppVersion::V16 };
            Station::new(StationOptions { seed: 1, ..StationOptions::new(&format!("CP{index:03}"), version) })
        };
        let mut park = Self {
            site: Site::new(setup, Restored { store_id: "park".to_owned(), boot: 1, ..Restored::default() }, at(0)),
            stations: (0..STATIONS).map(station).collect(),
            now_ms: 0,
            inputs: VecDeque::new(),
            ends: BTreeMap::new(),
            told: BTreeMap::new(),
            most_ma: 0,
        };
        for index in 0..STATIONS {
            let version = park.stations[index].options().version;
            let (station, connection) = (StationIndex(index), ConnectionId(1));
            park.put(Input::StationConnected { station, connection, version });
            let frames = park.stations[index].connected(at(0));
            park.frames_of_station(index, frames);
        }
        park
    }

    fn frames_of_station(&mut self, index: usize, frames: Vec<String>) {
        let (station, connection) = (StationIndex(index), ConnectionId(1));
        self.inputs.extend(frames.into_iter().map(|text| Input::StationFrame { station, connection, text }));
        self.drain();
    }

    fn put(&mut self, input: Input) {
        self.inputs.push_back(input);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(input) = self.inputs.pop_front() {
            let mut out = Vec::new();
            self.site.handle(input, at(self.now_ms), &mut out);
            for output in out {
                self.carry_out(output);
            }
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Frame { station, connection, text } => {
                let frames = self.stations[station.0].receive(&text, at(self.now_ms));
                self.inputs.extend(frames.into_iter().map(|text| Input::StationFrame { station, connection, text }));
            }
            Output::Append(record) => {
                self.inputs.push_back(Input::Journal(JournalInput::Durable { through: record.sequence }));
                match record.body {
                    RecordBody::TargetEnded { charger, cause, .. } => {
                        self.ends.insert(charger.to_string(), cause);
                    }
                    RecordBody::AlarmRaised(alarm) if alarm.key.kind == AlarmKind::TargetNotMet => {
                        let charger = alarm.key.subject.trim_end_matches("/1").to_owned();
                        self.told.entry(charger).or_insert(self.now_ms);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn pass(&mut self, minutes: u64) {
        let end_ms = self.now_ms + minutes * MINUTE_MS;
        while self.now_ms < end_ms {
            self.now_ms += 200;
            if self.now_ms.is_multiple_of(1_000) {
                for index in 0..STATIONS {
                    let frames = self.stations[index].tick(at(self.now_ms));
                    self.frames_of_station(index, frames);
                }
                let drawn: i32 = self.stations.iter().map(|station| station.current(1).max().ma()).sum();
                self.most_ma = self.most_ma.max(drawn);
            }
            self.put(Input::Tick);
        }
    }

    /// Twelve cars come at once; those with a wish tell it if `tell`.
    fn arrive(&mut self, wanted: impl Fn(usize) -> Option<Wanted>, tell: bool) {
        for index in 0..STATIONS {
            let car = Car::new(CarOptions { battery_wh: 90_000, arrives_percent: 10, ..CarOptions::default() });
            let token = token(index, 1);
            assert!(self.stations[index].plug_in(1, car, Some(&token)).is_ok(), "the place is free");
        }
        self.pass(1);
        for (index, wanted) in (0..STATIONS).filter_map(|index| Some((index, wanted(index)?))) {
            let place = Place::Connector { charger: StationId::new(&format!("CP{index:03}")), connector: 1 };
            let departure = Utc::from_unix_ms(DAWN_MS).plus_ms(i64::try_from(wanted.minutes * MINUTE_MS).unwrap_or(0));
            let command = Command::Target { place, energy: Energy::from_wh(wanted.energy_wh), departure };
            if tell {
                self.put(Input::Request { request: RequestId(1), command });
            }
        }
    }

    /// What each station has given so far, in Wh.
    fn given(&self) -> Vec<i64> {
        let given = |station: &Station| {
            let car = station.car(1).expect("still there");
            car.taken_wh()
        };
        self.stations.iter().map(given).collect()
    }

    fn ends_of(&self, index: usize) -> Option<TargetEnd> {
        self.ends.get(&format!("CP{index:03}")).copied()
    }
}

fn at(now_ms: u64) -> Now {
    let since = i64::try_from(now_ms).unwrap_or(i64::MAX);
    Now { mono: Mono::from_ms(now_ms + 1_000), utc: Utc::from_unix_ms(DAWN_MS + since), utc_trusted: true }
}

/// The same stations on three phases below one circuit without a meter.
fn one_circuit(topology: &siteward::engine::model::topology::Topology) -> siteward::engine::model::topology::Topology {
    use siteward::engine::model::topology::{CircuitIndex, Topology, Wiring};
    let mut circuit = topology.circuits()[0].clone();
    circuit.meter = None;
    circuit.unmeasured_load = None;
    let mut stations = topology.stations().to_vec();
    for station in &mut stations {
        station.circuit = CircuitIndex(0);
        station.wiring = Wiring::STRAIGHT;
    }
    Topology::new(topology.site().clone(), topology.voltage(), vec![circuit], stations, (vec![], vec![]))
        .expect("one circuit")
}

/// Every second car must have [`POSSIBLE`].
fn half(index: usize) -> Option<Wanted> {
    index.is_multiple_of(2).then_some(POSSIBLE)
}

/// The reason for targets: an equal share is too little for all who are in a hurry, and more than those need who are not.
#[test]
fn without_targets_those_in_a_hurry_leave_without_their_energy() {
    let mut park = Park::new();
    park.arrive(half, false);
    park.pass(POSSIBLE.minutes - 1);
    let given = park.given();
    let served = given.iter().step_by(2).filter(|given| **given >= POSSIBLE.energy_wh).count();
    assert_eq!(served, 0, "{given:?}");
    assert!(park.most_ma <= LIMIT_A * 1_000, "{}", park.most_ma);
}

#[test]
fn with_targets_all_that_can_be_met_are_met_and_the_others_still_charge() {
    let mut park = Park::new();
    park.arrive(half, true);
    park.pass(POSSIBLE.minutes);
    let given = park.given();
    for index in (0..STATIONS).step_by(2) {
        assert_eq!(park.ends_of(index), Some(TargetEnd::Met), "CP{index:03}: {given:?}");
    }
    assert_eq!(park.told.len(), 0, "nobody was told that it would not do: {:?}", park.told);
    let others: i64 = given.iter().skip(1).step_by(2).sum();
    assert!(others > 6 * 4_000, "{given:?}");
    assert!(park.most_ma <= LIMIT_A * 1_000, "{}", park.most_ma);
}

#[test]
fn what_cannot_be_met_is_told_within_five_minutes_and_long_before_the_departure() {
    let mut park = Park::new();
    park.arrive(|index| if index == 4 { Some(IMPOSSIBLE) } else { half(index).filter(|_| index < 4) }, true);
    park.pass(POSSIBLE.minutes);
    let told = park.told.get("CP004").copied().expect("it was told");
    assert!(told <= 6 * MINUTE_MS, "after {told} ms");
    assert_eq!(park.told.len(), 1, "{:?}", park.told);
    assert_eq!(park.ends_of(4), Some(TargetEnd::Missed));
    for index in [0, 2] {
        assert_eq!(park.ends_of(index), Some(TargetEnd::Met), "CP{index:03}");
    }
}
