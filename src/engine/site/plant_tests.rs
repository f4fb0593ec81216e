//! The site against a small model of physics: cars that ramp, stations that report now and then, a meter that is slow, wired wrongly, or stuck.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::*;
use crate::engine::model::billing::BillingSetup;
use crate::engine::model::exchange::{AuthorizationStatus, OcppVersion};
use crate::engine::model::ids::{CircuitId, ConnectionId, IdToken, InverterId, MeterId, SiteId};
use crate::engine::model::reading::{DeviceFault, InverterReading, MeterReading};
use crate::engine::model::setup::{ChargingSetup, OutsideSetup};
use crate::engine::model::token::{AuthorizationSetup, TokenEntry};
use crate::engine::model::topology::{
    Circuit, Inverter, InverterIndex, InverterRole, Meter, MeterIndex, ShortTime, Station, StationModel, Wiring,
};
use crate::engine::time::Utc;
use crate::engine::units::{Current, PerPhase, Phase, Voltage};

mod meter;
mod pace;
mod sun;

/// How the meter shows what it measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shows {
    /// What flows at the moment in which its values are renewed.
    Snapshot,
    /// The mean since its values were renewed last.
    Mean,
}

/// A car at a station: follows its limit after two seconds, by a ramp of 8 A/s.
#[derive(Clone, Debug)]
struct CarModel {
    max: Current,
    phases: usize,
    drawn: Current,
    told: Current,
    follows: VecDeque<(Mono, Current)>,
    /// Its terminal L1 is on this grid phase.
    first: usize,
    /// Its station lets it draw what it wants.
    ignores: bool,
    /// Its station does not stop it either.
    deaf: bool,
    /// What its station says that it draws, where that is not the truth.
    says: Option<Current>,
    transaction: Option<i64>,
}

impl CarModel {
    fn step(&mut self, now: Mono) {
        while self.follows.front().is_some_and(|(at, _)| *at <= now) {
            self.told = self.follows.pop_front().map_or(self.told, |(_, limit)| limit);
        }
        let allowed = if self.ignores { self.max } else { self.told };
        let goal = if self.transaction.is_none() || allowed < Current::from_a(6) {
            Current::ZERO
        } else {
            allowed.min(self.max)
        };
        let step = Current::from_ma(1_600);
        self.drawn = if goal == Current::ZERO {
            goal
        } else if goal > self.drawn {
            goal.min(self.drawn + step)
        } else {
            goal.max(self.drawn - step)
        };
    }
}

struct Options {
    limit_a: i32,
    stations: usize,
    refresh_ms: u64,
    shows: Shows,
    sample_ms: u64,
    seed: u64,
    change: fn(&mut Setup),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limit_a: 63,
            stations: 3,
            refresh_ms: 1_000,
            shows: Shows::Snapshot,
            sample_ms: 10_000,
            seed: 1,
            change: |_| {},
        }
    }
}

struct Plant {
    site: Site,
    now: Now,
    options: Options,
    cars: Vec<CarModel>,
    /// What everything but the cars draws.
    background: PerPhase<Current>,
    /// What the sun feeds in inside the circuit.
    sun: PerPhase<Current>,
    inverter: bool,
    shown: PerPhase<Current>,
    sum: PerPhase<i64>,
    steps: i64,
    /// What the meter makes of the truth.
    wrong: fn(PerPhase<Current>) -> PerPhase<Current>,
    frozen: bool,
    silent: bool,
    message: u32,
    calls: Vec<(usize, String, Value)>,
    records: Vec<RecordBody>,
    logs: Vec<String>,
    noise: u64,
    above_ms: u64,
    longest_above_ms: u64,
    sent: usize,
}

fn amps(a: i32) -> PerPhase<Current> {
    PerPhase::splat(Current::from_a(a))
}

fn plant_setup(options: &Options) -> Setup {
    let circuit = Circuit {
        id: CircuitId::new("grid"),
        parent: None,
        limit: amps(options.limit_a),
        meter: Some(MeterIndex(0)),
        unmeasured_load: Some(amps(20)),
        max_unbalance: None,
        max_power: None,
        short_time: None,
    };
    let interval = options.sample_ms;
    let station = |index: usize| Station {
        id: StationId::new(&format!("CP{index}")),
        circuit: CircuitIndex(0),
        model: StationModel { meter_interval_ms: interval, ..StationModel::default() },
        wiring: Wiring::STRAIGHT,
        max: Current::from_a(32),
        min: Current::from_a(6),
        fallback: Current::from_a(6),
        evse_count: 1,
        priority: 0,
        weight: 1,
        dc: None,
        password: None,
    };
    let meters = vec![Meter { id: MeterId::new("main"), stale_after_ms: 5_000 }];
    let topology = Topology::new(
        SiteId::new("plant"),
        Voltage::from_mv(230_000),
        vec![circuit],
        (0..options.stations).map(station).collect(),
        (meters, vec![]),
    );
    let token = TokenEntry {
        token: IdToken::new("GOOD"),
        status: AuthorizationStatus::Accepted,
        group: None,
        expires: None,
        wish: crate::engine::model::wish::Wish::default(),
    };
    Setup {
        topology: topology.expect("valid"),
        version: "0.0.0".to_owned(),
        heartbeat_s: 300,
        tokens: vec![token],
        groups: BTreeMap::new(),
        timezone: chrono_tz::Europe::Berlin,
        authorization: AuthorizationSetup { local_lists: false, ..AuthorizationSetup::default() },
        cloud: None,
        outside: OutsideSetup::default(),
        tariffs: Vec::new(),
        billing: BillingSetup::default(),
        unsafe_fallback: None,
        charging: ChargingSetup::default(),
        seed: 7,
    }
}

impl Plant {
    fn new(options: Options) -> Self {
        let now = Now { mono: Mono::from_ms(1_000), utc: Utc::from_unix_ms(1_790_000_000_000), utc_trusted: true };
        let mut setup = plant_setup(&options);
        (options.change)(&mut setup);
        let restored = Restored { store_id: "s".to_owned(), boot: 1, ..Restored::default() };
        let car = CarModel {
            max: Current::from_a(32),
            phases: 3,
            drawn: Current::ZERO,
            told: Current::ZERO,
            follows: VecDeque::new(),
            first: 0,
            ignores: false,
            deaf: false,
            says: None,
            transaction: None,
        };
        let mut plant = Self {
            site: Site::new(setup, restored, now),
            now,
            cars: vec![car; options.stations],
            background: amps(10),
            sun: amps(0),
            inverter: false,
            shown: amps(10),
            sum: PerPhase::splat(0),
            steps: 0,
            wrong: |truth| truth,
            frozen: false,
            silent: false,
            message: 0,
            calls: vec![],
            records: vec![],
            logs: vec![],
            noise: options.seed,
            above_ms: 0,
            longest_above_ms: 0,
            sent: 0,
            options,
        };
        for index in 0..plant.cars.len() {
            plant.connect(index);
        }
        plant.pass(10_000);
        plant
    }

    fn connect(&mut self, index: usize) {
        let connection = ConnectionId(u64::try_from(index).unwrap_or(0) + 1);
        self.put(Input::StationConnected { station: StationIndex(index), connection, version: OcppVersion::V16 });
    }

    fn disconnect(&mut self, index: usize) {
        let connection = ConnectionId(u64::try_from(index).unwrap_or(0) + 1);
        let reason = "gone".to_owned();
        self.put(Input::StationDisconnected { station: StationIndex(index), connection, reason });
    }

    fn put(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut out = Vec::new();
            self.site.handle(input, self.now, &mut out);
            for output in out {
                match output {
                    Output::Frame { station, connection, text } => {
                        let frame: Value = serde_json::from_str(&text).expect("frames are JSON");
                        if frame[0] == 2 {
                            let answer = self.called(station.0, &frame, connection, &mut inputs);
                            let text = json!([3, frame[1], answer]).to_string();
                            inputs.push_back(Input::StationFrame { station, connection, text });
                        } else if frame[2]["transactionId"].is_i64() {
                            self.cars[station.0].transaction = frame[2]["transactionId"].as_i64();
                        }
                    }
                    Output::Append(record) => self.records.push(record.body),
                    Output::Log { message, .. } => self.logs.push(message),
                    _ => {}
                }
            }
        }
    }

    fn called(
        &mut self,
        station: usize,
        frame: &Value,
        connection: ConnectionId,
        inputs: &mut VecDeque<Input>,
    ) -> Value {
        let action = frame[2].as_str().unwrap_or_default().to_owned();
        if action == "SetChargingProfile" {
            let periods = &frame[3]["csChargingProfiles"]["chargingSchedule"]["chargingSchedulePeriod"];
            let limit: f64 = periods[0]["limit"].to_string().parse().expect("a number");
            let limit = Current::from_ma(
                i32::try_from((limit * 1000.0).round().to_string().parse::<i64>().expect("whole")).expect("small"),
            );
            self.cars[station].follows.push_back((self.now.mono.plus_ms(2_000), limit));
            self.sent += 1;
        }
        if action == "RemoteStopTransaction" && !self.cars[station].deaf {
            let id = self.cars[station].transaction.take();
            inputs.push_back(self.request(
                station,
                connection,
                "StopTransaction",
                &json!({
                "transactionId": id, "meterStop": 1000, "timestamp": "2026-09-21T15:00:00Z" }),
            ));
        }
        if action == "TriggerMessage" && frame[3]["requestedMessage"] == "MeterValues" {
            let sample = self.sample(station);
            inputs.push_back(self.request(station, connection, "MeterValues", &sample));
        }
        self.calls.push((station, action, frame[3].clone()));
        json!({ "status": "Accepted" })
    }

    fn request(&mut self, station: usize, connection: ConnectionId, action: &str, payload: &Value) -> Input {
        self.message += 1;
        let text = json!([2, self.message.to_string(), action, payload]).to_string();
        Input::StationFrame { station: StationIndex(station), connection, text }
    }

    fn sample(&self, index: usize) -> Value {
        let car = &self.cars[index];
        let values: Vec<Value> = (0..3)
            .map(|phase| {
                let drawn = if phase < car.phases { car.says.unwrap_or(car.drawn) } else { Current::ZERO };
                json!({ "value": format!("{:.3}", drawn.as_a()), "measurand": "Current.Import", "unit": "A",
                    "phase": format!("L{}", phase + 1) })
            })
            .collect();
        json!({ "connectorId": 1, "transactionId": car.transaction,
            "meterValue": [{ "timestamp": self.now.utc.to_string(), "sampledValue": values }] })
    }

    fn start(&mut self, index: usize) {
        let connection = ConnectionId(u64::try_from(index).unwrap_or(0) + 1);
        let payload =
            json!({ "connectorId": 1, "idTag": "GOOD", "meterStart": 1000, "timestamp": self.now.utc.to_string() });
        let request = self.request(index, connection, "StartTransaction", &payload);
        self.put(request);
        let through = self.site.last_sequence();
        self.put(Input::Journal(JournalInput::Durable { through }));
    }

    fn total(&self) -> PerPhase<Current> {
        let mut total = self.background - self.sun;
        for car in &self.cars {
            let terminal = |phase: Phase| (phase.index() + 3 - car.first) % 3;
            total += PerPhase::from_fn(|phase| if terminal(phase) < car.phases { car.drawn } else { Current::ZERO });
        }
        total
    }

    fn dice(&mut self) -> i32 {
        self.noise = self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i32::try_from((self.noise >> 40) % 200).unwrap_or(0) - 100
    }

    /// Lets time pass in ticks.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 200 {
            self.now.mono = self.now.mono.plus_ms(200);
            self.now.utc = self.now.utc.plus_ms(200);
            self.step();
        }
    }

    fn step(&mut self) {
        let (now, at) = (self.now.mono, self.now.mono.ms());
        for car in &mut self.cars {
            car.step(now);
        }
        let total = self.total();
        self.sum = self.sum.zip_with(total, |sum, total| sum + i64::from(total.ma()));
        self.steps += 1;
        if at % self.options.refresh_ms == 0 {
            let truth = match self.options.shows {
                Shows::Snapshot => total,
                Shows::Mean => {
                    let steps = self.steps;
                    self.sum.map(|sum| Current::from_ma(i32::try_from(sum / steps).unwrap_or(0)))
                }
            };
            self.sum = PerPhase::splat(0);
            self.steps = 0;
            let noise = PerPhase::new(self.dice(), self.dice(), self.dice());
            if !self.frozen {
                self.shown = (self.wrong)(truth) + noise.map(Current::from_ma);
            }
        }
        if at % 1_000 == 0 && !self.silent {
            let reading = MeterReading { current: self.shown.map(Some), ..MeterReading::default() };
            self.put(Input::Meter { meter: MeterIndex(0), asked_at: now, result: Ok(reading) });
        }
        if at % 1_000 == 0 && self.silent {
            self.put(Input::Meter { meter: MeterIndex(0), asked_at: now, result: Err(DeviceFault::Timeout) });
        }
        if at % 5_000 == 0 && self.inverter {
            let reading = InverterReading { current: self.sun.map(Some), ..InverterReading::default() };
            self.put(Input::Inverter { inverter: InverterIndex(0), asked_at: now, result: Ok(reading) });
        }
        for index in 0..self.cars.len() {
            let offset = 1_400 * u64::try_from(index).unwrap_or(0);
            let due = (at + offset) % self.options.sample_ms < 200;
            if due && self.cars[index].transaction.is_some() && self.site.stations[index].session.is_some() {
                let connection = ConnectionId(u64::try_from(index).unwrap_or(0) + 1);
                let sample = self.sample(index);
                let request = self.request(index, connection, "MeterValues", &sample);
                self.put(request);
            }
        }
        self.put(Input::Tick);
        let limit = Current::from_a(self.options.limit_a) + Current::from_ma(500);
        self.above_ms = if self.total().max() > limit { self.above_ms + 200 } else { 0 };
        self.longest_above_ms = self.longest_above_ms.max(self.above_ms);
    }

    /// The least and the most that the cars draw together on L1 within the time, and by how much the sum of their limits moves.
    fn range(&mut self, ms: u64) -> (Current, Current) {
        let mut range = (Current::MAX, Current::ZERO);
        for _ in 0..ms / 1_000 {
            self.pass(1_000);
            let drawn: Current = self.cars.iter().map(|car| car.drawn).sum();
            range = (range.0.min(drawn), range.1.max(drawn));
        }
        range
    }

    fn told(&self, index: usize) -> f64 {
        let car = &self.cars[index];
        car.follows.back().map_or(car.told, |(_, limit)| *limit).as_a()
    }

    fn has_alarm(&self, text: &str) -> bool {
        self.site.ledger().alarms().iter().any(|alarm| alarm.message.contains(text))
    }

    fn called_with(&self, station: usize, action: &str) -> usize {
        self.calls.iter().filter(|(at, name, _)| *at == station && name == action).count()
    }
}

/// A plant in which all cars charge and have come to rest.
fn charging(options: Options) -> Plant {
    let mut plant = Plant::new(options);
    for index in 0..plant.cars.len() {
        plant.start(index);
    }
    plant.pass(180_000);
    plant
}

impl Plant {
    fn source(&self) -> String {
        self.site.status(self.now).circuits[0].background_source.clone()
    }

    fn all_told(&self) -> f64 {
        (0..self.cars.len()).map(|index| self.told(index)).sum()
    }

    /// A car takes less and more by turns, each for a minute and a half.
    fn step_car(&mut self, index: usize, times: usize) {
        for time in 0..times {
            self.cars[index].max = Current::from_a(if time % 2 == 0 { 6 } else { 15 });
            self.pass(90_000);
        }
    }
}

#[test]
fn a_silent_station_counts_with_its_lease_and_not_with_its_last_report() {
    let mut plant = Plant::new(Options { stations: 2, ..Options::default() });
    plant.cars[0].max = Current::from_a(8);
    plant.start(0);
    plant.start(1);
    // It reports 8 A of the 26 A that it may draw; that is not reclaimed yet.
    plant.pass(20_000);
    assert!(plant.told(0) > 25.0);
    plant.disconnect(0);
    plant.pass(30_000);
    plant.cars[0].max = Current::from_a(32);
    plant.pass(60_000);
    assert!(plant.told(0) + plant.told(1) <= 53.0, "{} and {}", plant.told(0), plant.told(1));
    assert_eq!(plant.longest_above_ms, 0);
}

#[test]
fn a_station_above_its_limit_is_told_again_then_stopped_and_the_others_make_room() {
    let mut plant = charging(Options::default());
    plant.cars[1].ignores = true;
    plant.pass(25_000);
    assert!(plant.has_alarm("draws 32.0 A where it may draw 6.0 A"), "{:?}", plant.logs);
    assert_eq!(plant.called_with(1, "RemoteStopTransaction"), 0);
    assert!(plant.told(0) + plant.told(2) <= 21.0, "{} and {}", plant.told(0), plant.told(2));
    plant.pass(30_000);
    assert_eq!(plant.called_with(1, "RemoteStopTransaction"), 1);
    assert_eq!(plant.called_with(1, "ChangeAvailability"), 0);
    // It has stopped: all is well again, and the others have its share.
    plant.pass(180_000);
    assert!(!plant.has_alarm("CP1"), "{:?}", plant.logs);
    assert!(plant.told(0) > 24.0);
    assert!(plant.longest_above_ms < 25_000, "{}", plant.longest_above_ms);
}

#[test]
fn a_station_that_does_not_stop_is_taken_out_of_service_until_it_obeys_for_a_while() {
    let mut plant = charging(Options::default());
    plant.cars[1].ignores = true;
    plant.cars[1].deaf = true;
    plant.pass(120_000);
    assert_eq!(plant.called_with(1, "RemoteStopTransaction"), 1);
    let out = plant.calls.iter().find(|(_, action, _)| action == "ChangeAvailability").expect("it was taken out");
    assert_eq!(out.2, json!({ "connectorId": 1, "type": "Inoperative" }));
    assert!(plant.has_alarm("it was taken out of service"), "{:?}", plant.logs);
    plant.cars[1].ignores = false;
    plant.pass(590_000);
    assert_eq!(plant.called_with(1, "ChangeAvailability"), 1);
    plant.pass(60_000);
    let back = &plant.calls.iter().rfind(|(_, action, _)| action == "ChangeAvailability").expect("there").2;
    assert_eq!(back["type"], "Operative");
    assert!(!plant.has_alarm("CP1"), "{:?}", plant.logs);
}

#[test]
fn stations_above_their_limits_are_told_their_minimum_while_their_circuit_is_too_full() {
    let mut plant = charging(Options { limit_a: 45, stations: 2, ..Options::default() });
    assert!(plant.told(0) > 15.0 && plant.told(1) > 15.0, "{} and {}", plant.told(0), plant.told(1));
    plant.cars.iter_mut().for_each(|car| car.ignores = true);
    plant.pass(25_000);
    assert!(plant.told(0) <= 6.0 && plant.told(1) <= 6.0, "{} and {}", plant.told(0), plant.told(1));
}

#[test]
fn a_station_above_its_limit_that_falls_silent_keeps_its_place() {
    let mut plant = charging(Options::default());
    plant.cars[1].ignores = true;
    plant.pass(15_000);
    plant.disconnect(1);
    plant.pass(90_000);
    assert!(plant.told(0) + plant.told(2) <= 21.0, "{} and {}", plant.told(0), plant.told(2));
}
