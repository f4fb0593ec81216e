use serde_json::{Value, json};

use super::io::{Carries, CloudInput, Publication};
use super::*;
use crate::engine::model::billing::BillingSetup;
use crate::engine::model::exchange::{AuthorizationStatus, OcppVersion};
use crate::engine::model::ids::{CircuitId, ConnectionId, IdToken, MeterId, SiteId};
use crate::engine::model::reading::MeterReading;
use crate::engine::model::setup::{Acknowledge, ChargingSetup, CloudSetup, OutsideSetup};
use crate::engine::model::token::{AuthorizationSetup, TokenEntry};
use crate::engine::model::topology::{Circuit, Meter, MeterIndex, Station, StationModel, Wiring};
use crate::engine::model::wish::Wish;
use crate::engine::time::Utc;
use crate::engine::units::{Current, PerPhase, Voltage};

mod balance;
mod billing;
mod limits;
mod pending;
mod running_cost;
mod signed;
mod telemetry;

const METER: MeterIndex = MeterIndex(0);
const A: StationIndex = StationIndex(0);
const B: StationIndex = StationIndex(1);

fn setup(limit_a: i32) -> Setup {
    let circuit = Circuit {
        id: CircuitId::new("grid"),
        parent: None,
        limit: PerPhase::splat(Current::from_a(limit_a)),
        meter: Some(METER),
        unmeasured_load: Some(PerPhase::splat(Current::from_a(10))),
        max_unbalance: None,
        max_power: None,
        short_time: None,
    };
    let station = |id: &str| Station {
        id: StationId::new(id),
        circuit: CircuitIndex(0),
        model: StationModel::default(),
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
    let token = |token: &str, status| TokenEntry {
        token: IdToken::new(token),
        status,
        group: None,
        expires: None,
        wish: Wish::default(),
    };
    Setup {
        topology: Topology::new(
            SiteId::new("test"),
            Voltage::from_mv(230_000),
            vec![circuit],
            vec![station("CPA"), station("CPB")],
            (meters, vec![]),
        )
        .expect("valid"),
        version: "0.0.0".to_owned(),
        heartbeat_s: 300,
        tokens: vec![token("GOOD", AuthorizationStatus::Accepted), token("BAD", AuthorizationStatus::Blocked)],
        groups: BTreeMap::new(),
        timezone: chrono_tz::Europe::Berlin,
        authorization: AuthorizationSetup { local_lists: false, ..AuthorizationSetup::default() },
        cloud: Some(CloudSetup { topic_prefix: "siteward/v1".to_owned(), acknowledge: Acknowledge::Broker }),
        outside: OutsideSetup::default(),
        tariffs: Vec::new(),
        billing: BillingSetup::default(),
        unsafe_fallback: None,
        charging: ChargingSetup::default(),
        seed: 7,
    }
}

fn at_start() -> Now {
    Now { mono: Mono::from_ms(1_000), utc: Utc::from_unix_ms(1_790_000_000_000), utc_trusted: true }
}

/// A site with a journal that is durable when told, and stations that answer as told.
struct World {
    site: Site,
    now: Now,
    frames: Vec<(StationIndex, Value)>,
    records: Vec<Record>,
    published: Vec<Publication>,
    /// What was put into the telemetry ring, and what else it was told.
    intervals: Vec<String>,
    to_ring: Vec<Output>,
    replies: Vec<Output>,
    logs: Vec<String>,
    remembered: Option<Vec<u8>>,
    snapshots: Vec<Sequence>,
    /// Stations accept every call at once.
    accepting: bool,
    limits: [Option<f64>; 2],
    meter_a: Option<i32>,
    message: u32,
}

impl World {
    fn new(limit_a: i32) -> Self {
        Self::with(setup(limit_a), Restored { store_id: "s".to_owned(), boot: 1, ..Restored::default() }, at_start())
    }

    fn with(setup: Setup, restored: Restored, now: Now) -> Self {
        Self {
            site: Site::new(setup, restored, now),
            now,
            frames: vec![],
            records: vec![],
            published: vec![],
            intervals: vec![],
            to_ring: vec![],
            replies: vec![],
            logs: vec![],
            remembered: None,
            snapshots: vec![],
            accepting: true,
            limits: [None, None],
            meter_a: Some(5),
            message: 0,
        }
    }

    fn put(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let mut out = Vec::new();
            self.site.handle(input, self.now, &mut out);
            self.remembered = self.site.take_memory(self.now).or(self.remembered.take());
            for output in out {
                match output {
                    Output::Frame { station, connection, text } => {
                        let frame: Value = serde_json::from_str(&text).expect("frames are JSON");
                        if frame[0] == 2 && self.accepting {
                            self.note_limit(station, &frame);
                            let text = json!([3, frame[1], { "status": "Accepted" }]).to_string();
                            inputs.push(Input::StationFrame { station, connection, text });
                        }
                        self.frames.push((station, frame));
                    }
                    Output::Append(record) => self.records.push(record),
                    Output::Publish(publication) => self.published.push(publication),
                    Output::Telemetry { intervals } => self.intervals.extend(intervals),
                    Output::ReadTelemetry { .. } | Output::TelemetryAcknowledged { .. } => self.to_ring.push(output),
                    Output::Reply { .. } => self.replies.push(output),
                    Output::Snapshot { through, .. } => self.snapshots.push(through),
                    Output::Close { .. }
                    | Output::TurnAway { .. }
                    | Output::ReadRecords { .. }
                    | Output::Acknowledged { .. }
                    | Output::Errand { .. }
                    | Output::Commissioned(_) => {}
                    Output::Log { message, .. } => self.logs.push(message),
                }
            }
        }
    }

    fn note_limit(&mut self, station: StationIndex, frame: &Value) {
        if frame[2] == "SetChargingProfile" {
            let schedule = match &frame[3]["csChargingProfiles"] {
                Value::Null => &frame[3]["chargingProfile"]["chargingSchedule"][0],
                profile => &profile["chargingSchedule"],
            };
            let periods = &schedule["chargingSchedulePeriod"];
            self.limits[station.0] = periods[0]["limit"].to_string().parse().ok();
            assert_eq!(periods.as_array().map(Vec::len), Some(2), "every limit decays: {frame}");
        }
    }

    /// Lets time pass in ticks, with a meter reading every 400 ms.
    fn pass(&mut self, ms: u64) {
        for step in 0..ms / 200 {
            self.now.mono = self.now.mono.plus_ms(200);
            self.now.utc = self.now.utc.plus_ms(200);
            if let Some(meter_a) = self.meter_a.filter(|_| step % 2 == 0) {
                let current = PerPhase::splat(Some(Current::from_a(meter_a)));
                let reading = MeterReading { current, ..MeterReading::default() };
                self.put(Input::Meter { meter: METER, asked_at: self.now.mono, result: Ok(reading) });
            }
            self.put(Input::Tick);
        }
    }

    fn connect(&mut self, station: StationIndex, connection: u64) {
        let connection = ConnectionId(connection);
        self.put(Input::StationConnected { station, connection, version: OcppVersion::V16 });
    }

    fn call(&mut self, station: StationIndex, connection: u64, action: &str, payload: &Value) {
        self.message += 1;
        let text = json!([2, self.message.to_string(), action, payload]).to_string();
        self.put(Input::StationFrame { station, connection: ConnectionId(connection), text });
    }

    fn start(&mut self, station: StationIndex, connection: u64, token: &str) {
        let payload =
            json!({ "connectorId": 1, "idTag": token, "meterStart": 1000, "timestamp": "2026-09-21T14:00:00Z" });
        self.call(station, connection, "StartTransaction", &payload);
    }

    fn durable(&mut self) {
        let through = self.site.last_sequence();
        self.put(Input::Journal(JournalInput::Durable { through }));
    }

    /// Stations answer the calls since the last time, each limit in A as told. Station A has connection 1, B has 2.
    fn answer(&mut self, answered: &mut usize, mut accepts: impl FnMut(StationIndex, Option<f64>) -> bool) {
        let frames = self.frames[*answered..].to_vec();
        *answered = self.frames.len();
        for (station, frame) in frames.into_iter().filter(|(_, frame)| frame[0] == 2) {
            let periods = &frame[3]["csChargingProfiles"]["chargingSchedule"]["chargingSchedulePeriod"];
            let status = if accepts(station, periods[0]["limit"].as_f64()) { "Accepted" } else { "Rejected" };
            let connection = ConnectionId(if station == A { 1 } else { 2 });
            let text = json!([3, frame[1], { "status": status }]).to_string();
            self.put(Input::StationFrame { station, connection, text });
        }
    }

    /// Some calls since the last time are accepted, by station and limit in A; the others are left unanswered. Station A has connection 1, B has 2.
    fn answer_of(&mut self, answered: &mut usize, mut answers: impl FnMut(StationIndex, Option<f64>) -> bool) {
        let frames = self.frames[*answered..].to_vec();
        *answered = self.frames.len();
        for (station, frame) in frames.into_iter().filter(|(_, frame)| frame[0] == 2) {
            let periods = &frame[3]["csChargingProfiles"]["chargingSchedule"]["chargingSchedulePeriod"];
            if answers(station, periods[0]["limit"].as_f64()) {
                let text = json!([3, frame[1], { "status": "Accepted" }]).to_string();
                let connection = ConnectionId(if station == A { 1 } else { 2 });
                self.put(Input::StationFrame { station, connection, text });
            }
        }
    }

    /// Time passes in which one station accepts its calls and the other does not answer. Gives its last limit, in A.
    fn answered_by(&mut self, who: StationIndex, ms: u64, frames: &mut (usize, Option<f64>)) -> Option<f64> {
        for _ in 0..ms / 200 {
            self.pass(200);
            let (answered, given) = frames;
            self.answer_of(answered, |station, limit| {
                if station == who {
                    *given = limit.or(*given);
                }
                station == who
            });
        }
        frames.1
    }

    /// What waits for its answer gets it.
    fn accept_all(&mut self, answered: &mut usize) {
        *answered = answered.saturating_sub(4);
        self.answer_of(answered, |_, _| true);
    }

    /// The answers (CALLRESULT) sent to a station.
    fn answers(&self, station: StationIndex) -> Vec<&Value> {
        let answers = self.frames.iter().filter(|(to, frame)| *to == station && frame[0] == 3);
        answers.map(|(_, frame)| &frame[2]).collect()
    }

    fn count(&self, is: impl Fn(&RecordBody) -> bool) -> usize {
        self.records.iter().filter(|record| is(&record.body)).count()
    }
}

#[test]
fn who_asks_why_a_token_is_refused_finds_it_in_the_log() {
    let mut world = World::new(63);
    world.connect(A, 1);
    world.call(A, 1, "Authorize", &json!({ "idTag": "GOOD" }));
    assert!(!world.logs.iter().any(|line| line.contains("refused")), "{:?}", world.logs);
    world.call(A, 1, "Authorize", &json!({ "idTag": "BAD" }));
    world.call(A, 1, "Authorize", &json!({ "idTag": "NOBODY" }));
    for line in [
        "CPA: token \"BAD\" is refused (Blocked): its entry in authorization.tokens_file says so",
        "CPA: token \"NOBODY\" is refused (Invalid): it is not in authorization.tokens_file, and did not come by command",
    ] {
        assert!(world.logs.iter().any(|found| found == line), "{line} in {:?}", world.logs);
    }
}

#[test]
fn a_circuit_above_its_limit_is_named_with_its_phase() {
    let mut world = World::new(63);
    world.meter_a = None;
    for _ in 0..60 {
        let current = PerPhase::new(Some(Current::from_a(60)), Some(Current::from_a(70)), Some(Current::from_a(64)));
        let reading = MeterReading { current, ..MeterReading::default() };
        world.put(Input::Meter { meter: METER, asked_at: world.now.mono, result: Ok(reading) });
        world.pass(200);
    }
    let line = "alarm: Circuit grid has been 7.0 A above its limit of 63.0 A on L2 for 10 s.";
    assert!(world.logs.iter().any(|found| found.starts_with(line)), "{:?}", world.logs);
}

#[test]
fn every_evse_is_explained_with_circuit_phase_and_amount() {
    let mut world = World::new(45);
    world.connect(A, 1);
    world.connect(B, 2);
    world.pass(6_000);
    world.start(A, 1, "GOOD");
    world.start(B, 2, "GOOD");
    world.pass(10_000);
    for station in [A, B] {
        let explanation = world.site.explain(station, world.now);
        let sentence = &explanation.evses[0].explanation;
        assert!(sentence.contains("circuit grid L") && sentence.contains(" A"), "{sentence}");
    }
}

impl World {
    fn connect_v201(&mut self, station: StationIndex, connection: u64) {
        let connection = ConnectionId(connection);
        self.put(Input::StationConnected { station, connection, version: OcppVersion::V201 });
    }

    /// A `TransactionEvent` of transaction `x` at `second` seconds after two o'clock, with `more` in it.
    fn event(&mut self, kind: &str, trigger: &str, second: u32, more: &Value) {
        let mut payload = json!({
            "eventType": kind, "triggerReason": trigger, "seqNo": 0,
            "timestamp": format!("2026-09-21T14:{:02}:{:02}Z", second / 60, second % 60),
            "transactionInfo": { "transactionId": "x" },
        });
        for (name, value) in more.as_object().expect("an object") {
            payload[name] = value.clone();
        }
        self.call(A, 1, "TransactionEvent", &payload);
    }

    fn open(&self) -> Vec<(String, u32, Option<String>, Option<i64>)> {
        let open = self.site.ledger().open().map(|open| &open.facts);
        open.map(|facts| {
            let token = facts.token.as_ref().map(ToString::to_string);
            (facts.transaction.to_string(), facts.evse, token, facts.meter_start.map(crate::engine::units::Energy::wh))
        })
        .collect()
    }

    /// The last `SetChargingProfile` sent to a station.
    fn last_profile(&self, station: StationIndex) -> &Value {
        let is_limit = |frame: &Value| frame[0] == 2 && frame[2] == "SetChargingProfile";
        let found = self.frames.iter().rev().find(|(to, frame)| *to == station && is_limit(frame));
        &found.expect("a limit was sent").1
    }

    fn alarms(&self) -> usize {
        self.site.ledger().alarms().len()
    }
}

fn stations(change: impl Fn(&mut Station)) -> Setup {
    let old = setup(45);
    let topology = &old.topology;
    let mut stations = topology.stations().to_vec();
    stations.iter_mut().for_each(change);
    let circuits = topology.circuits().to_vec();
    let topology = Topology::new(
        topology.site().clone(),
        topology.voltage(),
        circuits,
        stations,
        (topology.meters().to_vec(), vec![]),
    );
    Setup { topology: topology.expect("valid"), ..old }
}

#[test]
fn an_alarm_about_a_station_above_its_limit_ends_with_its_samples() {
    let mut world = World::new(45);
    world.connect(A, 1);
    world.pass(150_000);
    let before = world.alarms();
    for _ in 0..2 {
        let sample = json!({ "connectorId": 1, "meterValue": [{ "timestamp": world.now.utc,
            "sampledValue": [{ "value": "20", "measurand": "Current.Import", "unit": "A" }] }] });
        world.call(A, 1, "MeterValues", &sample);
        world.pass(1_000);
    }
    assert_eq!(world.alarms(), before + 1);
    world.pass(60_000);
    assert_eq!(world.alarms(), before);
}

#[test]
fn a_connector_that_does_not_exist_makes_no_alarm_and_the_same_status_no_record() {
    let mut world = World::new(45);
    world.connect(A, 1);
    let status =
        |connector: u32, error: &str| json!({ "connectorId": connector, "status": "Available", "errorCode": error });
    for connector in 2..50 {
        world.call(A, 1, "StatusNotification", &status(connector, "GroundFailure"));
    }
    assert_eq!(world.alarms(), 0);
    for _ in 0..10 {
        world.call(A, 1, "StatusNotification", &status(0, "NoError"));
    }
    assert_eq!(world.count(|body| matches!(body, RecordBody::ChargerStatus { .. })), 1);
}

#[test]
fn a_station_that_refuses_more_than_it_takes_has_one_alarm() {
    let mut world = World::new(100);
    world.connect(A, 1);
    world.pass(10_000);
    world.start(A, 1, "GOOD");
    world.accepting = false;
    let mut answered = world.frames.len();
    for _ in 0..600 {
        world.pass(200);
        world.answer(&mut answered, |_, limit| limit.is_none_or(|limit| limit <= 16.0));
    }
    let refused =
        |body: &RecordBody| matches!(body, RecordBody::AlarmRaised(alarm) if alarm.message.contains("refuses"));
    assert_eq!(world.count(refused), 1);
}

#[test]
fn alarms_about_what_is_no_longer_there_end_at_the_start() {
    let mut world = World::new(45);
    world.pass(130_000);
    let lost = |world: &World| world.site.ledger().alarms().iter().filter(|a| a.message.contains("CPB")).count();
    assert_eq!(lost(&world), 1);
    let topology = setup(45).topology;
    let fewer = Topology::new(
        topology.site().clone(),
        topology.voltage(),
        topology.circuits().to_vec(),
        topology.stations()[..1].to_vec(),
        (topology.meters().to_vec(), vec![]),
    );
    let fewer = Setup { topology: fewer.expect("valid"), ..setup(45) };
    let restored = Restored { boot: 2, ledger: world.site.ledger().clone(), ..Restored::default() };
    let mut again = World::with(fewer, restored, world.now);
    again.pass(1_000);
    assert_eq!(lost(&again), 0);
}

#[path = "outside_tests.rs"]
mod outside;
mod tokens;
mod transactions;
mod wishes;
