use serde_json::{Value, json};

use super::io::{CloudInput, Publication};
use super::*;
use crate::engine::model::exchange::{AuthorizationStatus, OcppVersion};
use crate::engine::model::ids::{CircuitId, ConnectionId, IdToken, MeterId, SiteId};
use crate::engine::model::reading::MeterReading;
use crate::engine::model::setup::{Acknowledge, ChargingSetup, CloudSetup, OutsideSetup};
use crate::engine::model::token::{TokenEntry, UnknownToken};
use crate::engine::model::topology::{Circuit, Meter, MeterIndex, Station, StationModel, Wiring};
use crate::engine::model::wish::Wish;
use crate::engine::time::Utc;
use crate::engine::units::{Current, PerPhase, Voltage};

mod billing;

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
        unknown_token: UnknownToken::Reject,
        cloud: Some(CloudSetup { topic_prefix: "siteward/v1".to_owned(), acknowledge: Acknowledge::Broker }),
        outside: OutsideSetup::default(),
        tariffs: Vec::new(),
        unsafe_fallback: None,
        charging: ChargingSetup::default(),
        seed: 7,
    }
}

/// A site with a journal that is durable when told, and stations that answer as told.
struct World {
    site: Site,
    now: Now,
    frames: Vec<(StationIndex, Value)>,
    records: Vec<Record>,
    published: Vec<Publication>,
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
        let now = Now { mono: Mono::from_ms(1_000), utc: Utc::from_unix_ms(1_790_000_000_000), utc_trusted: true };
        Self::with(setup(limit_a), Restored { store_id: "s".to_owned(), boot: 1, ..Restored::default() }, now)
    }

    fn with(setup: Setup, restored: Restored, now: Now) -> Self {
        Self {
            site: Site::new(setup, restored, now),
            now,
            frames: vec![],
            records: vec![],
            published: vec![],
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
                    Output::Remember(bytes) => self.remembered = Some(bytes),
                    Output::Reply { .. } => self.replies.push(output),
                    Output::Snapshot { through, .. } => self.snapshots.push(through),
                    Output::Close { .. }
                    | Output::ReadRecords { .. }
                    | Output::Acknowledged { .. }
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

    /// The answers (CALLRESULT) sent to a station.
    fn answers(&self, station: StationIndex) -> Vec<&Value> {
        let answers = self.frames.iter().filter(|(to, frame)| *to == station && frame[0] == 3);
        answers.map(|(_, frame)| &frame[2]).collect()
    }

    fn count(&self, is: impl Fn(&RecordBody) -> bool) -> usize {
        self.records.iter().filter(|record| is(&record.body)).count()
    }
}

fn is_start(body: &RecordBody) -> bool {
    matches!(body, RecordBody::TransactionStarted { .. })
}

fn is_end(body: &RecordBody) -> bool {
    matches!(body, RecordBody::TransactionEnded { .. })
}

#[test]
fn no_answer_to_a_start_before_it_is_durable() {
    let mut world = World::new(63);
    world.connect(A, 1);
    world.start(A, 1, "GOOD");
    assert_eq!(world.answers(A).len(), 0);
    world.durable();
    let answers = world.answers(A);
    assert_eq!(answers[0]["transactionId"], 1);
    assert_eq!(answers[0]["idTagInfo"]["status"], "Accepted");
}

#[test]
fn a_resent_start_and_stop_make_no_second_transaction() {
    let mut world = World::new(63);
    world.connect(A, 1);
    world.start(A, 1, "GOOD");
    world.durable();
    world.start(A, 1, "GOOD");
    assert_eq!(world.answers(A)[1]["transactionId"], 1);
    let stop = json!({ "transactionId": 1, "meterStop": 5000, "timestamp": "2026-09-21T15:00:00Z" });
    world.call(A, 1, "StopTransaction", &stop);
    world.call(A, 1, "StopTransaction", &stop);
    world.durable();
    assert_eq!(world.answers(A).len(), 4);
    assert_eq!((world.count(is_start), world.count(is_end)), (1, 1));
    // The next one gets the next id.
    world.start(A, 1, "good");
    let payload = json!({ "connectorId": 1, "idTag": "GOOD", "meterStart": 5000, "timestamp": "2026-09-21T16:00:00Z" });
    world.call(A, 1, "StartTransaction", &payload);
    world.durable();
    assert_eq!(world.answers(A)[5]["transactionId"], 2);
}

#[test]
fn a_start_on_an_open_transaction_ends_the_old_one() {
    let mut world = World::new(63);
    world.connect(A, 1);
    world.start(A, 1, "GOOD");
    let payload = json!({ "connectorId": 1, "idTag": "GOOD", "meterStart": 2500, "timestamp": "2026-09-21T16:00:00Z" });
    world.call(A, 1, "StartTransaction", &payload);
    let ended = world.records.iter().find_map(|record| match &record.body {
        RecordBody::TransactionEnded { meter_stop, reconstructed, .. } => {
            Some((meter_stop.map(crate::engine::units::Energy::wh), *reconstructed))
        }
        _ => None,
    });
    assert_eq!(ended, Some((Some(2500), true)));
    assert_eq!(world.site.ledger().open().count(), 1);
}

#[test]
fn a_stop_without_a_start_is_recorded_once() {
    let mut world = World::new(63);
    world.connect(A, 1);
    // OCPP 1.6 errata 3.18: −1 where the start was never answered.
    let stop = json!({ "transactionId": -1, "idTag": "GOOD", "meterStop": 5000, "timestamp": "2026-09-21T15:00:00Z" });
    world.call(A, 1, "StopTransaction", &stop);
    world.call(A, 1, "StopTransaction", &stop);
    world.durable();
    assert_eq!(world.count(is_end), 1);
    assert_eq!(world.answers(A).len(), 2);
}

#[test]
fn idle_stations_are_paused_and_a_transaction_is_offered_current_within_a_second() {
    let mut world = World::new(63);
    world.connect(A, 1);
    world.connect(B, 2);
    world.pass(10_000);
    assert_eq!(world.limits, [Some(0.0), Some(0.0)]);
    world.start(A, 1, "GOOD");
    world.pass(400);
    assert_eq!(world.limits, [Some(32.0), Some(0.0)]);
    assert_eq!(world.count(|body| matches!(body, RecordBody::ChargerTamed { .. })), 2);
}

#[test]
fn a_token_that_may_not_charge_gets_no_current() {
    let mut world = World::new(63);
    world.connect(A, 1);
    world.start(A, 1, "BAD");
    world.pass(6_000);
    world.durable();
    assert_eq!(world.answers(A)[0]["idTagInfo"]["status"], "Blocked");
    assert_eq!(world.limits[0], Some(0.0));
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
        "CPA: token \"NOBODY\" is refused (Invalid): it is not in authorization.tokens_file",
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
fn an_overload_is_cut_in_the_next_tick() {
    let mut world = World::new(63);
    world.connect(A, 1);
    world.connect(B, 2);
    world.pass(10_000);
    world.start(A, 1, "GOOD");
    world.start(B, 2, "GOOD");
    world.pass(12_000);
    let total: f64 = world.limits.iter().flatten().sum();
    assert!(total > 50.0 && total <= 57.7, "{:?}", world.limits);
    // The stations may draw at most 57.7 A, so at least 17.3 A of this is other load.
    world.meter_a = Some(75);
    world.pass(400);
    let total: f64 = world.limits.iter().flatten().sum();
    assert!(total <= 45.7, "{:?}", world.limits);
}

#[test]
fn a_silent_meter_is_never_zero() {
    let mut world = World::new(40);
    world.connect(A, 1);
    world.connect(B, 2);
    world.pass(6_000);
    world.start(A, 1, "GOOD");
    world.pass(1_000);
    assert_eq!(world.limits[0], Some(32.0));
    world.meter_a = None;
    world.pass(6_000);
    // 10 A are assumed where 5 A were measured.
    assert_eq!(world.limits[0], Some(30.0));
    assert_eq!(world.site.status(world.now).circuits[0].background_source, "configured");
    world.pass(5_000);
    assert!(world.site.status(world.now).alarms.iter().any(|alarm| alarm.message.contains("Meter main")));
}

#[test]
fn a_meter_that_lacks_a_phase_is_lost() {
    let mut world = World::new(40);
    world.meter_a = None;
    let current = PerPhase::new(Some(Current::from_a(5)), None, Some(Current::from_a(5)));
    for _ in 0..15 {
        let result = Ok(MeterReading { current, ..MeterReading::default() });
        world.put(Input::Meter { meter: METER, asked_at: world.now.mono, result });
        world.pass(1_000);
    }
    let status = world.site.status(world.now);
    assert!(!status.meters[0].fresh);
    assert!(status.alarms.iter().any(|alarm| alarm.message.contains("a phase has no current")), "{:?}", status.alarms);
}

#[test]
fn a_silent_station_keeps_its_share_until_its_lease_is_over() {
    let mut world = World::new(45);
    world.connect(A, 1);
    world.connect(B, 2);
    world.pass(6_000);
    world.start(A, 1, "GOOD");
    world.pass(1_000);
    assert_eq!(world.limits[0], Some(32.0));
    let reason = "reset".to_owned();
    world.put(Input::StationDisconnected { station: A, connection: ConnectionId(1), reason });
    world.start(B, 2, "GOOD");
    world.pass(60_000);
    assert_eq!(world.limits[1], Some(7.7));
    world.pass(100_000);
    let offered = world.limits[1].unwrap_or_default();
    assert!((32.0..=33.7).contains(&offered), "{offered}: the silent one counts at its fallback of 6 A now");
}

#[test]
fn a_restart_folds_the_same_state_and_remembers_the_offers() {
    let mut world = World::new(45);
    world.connect(A, 1);
    world.connect(B, 2);
    world.pass(6_000);
    world.start(A, 1, "GOOD");
    world.pass(6_000);
    let mut ledger = Ledger::default();
    for record in &world.records {
        ledger.apply(record);
    }
    assert_eq!(&ledger, world.site.ledger());
    assert_eq!(Ledger::restore(&ledger.snapshot()), Ok(ledger.clone()));
    let restored = Restored {
        store_id: "s".to_owned(),
        boot: 2,
        ledger,
        remembered: world.remembered.clone(),
        ..Restored::default()
    };
    let mut again = World::with(setup(45), restored, Now { mono: Mono::START, ..world.now });
    again.pass(1_000);
    let status = again.site.status(again.now);
    assert_eq!(status.chargers[0].evses[0].committed_a, 32.0);
    assert_eq!(status.transactions.len(), 1);
    assert_eq!(status.chargers[1].evses[0].committed_a, 0.0);
}

#[test]
fn restarts_do_not_put_the_snapshot_off() {
    let mut world = World::new(45);
    let mut ledger = Ledger::default();
    // A small site that restarts each day makes fewer records in one run than a snapshot waits for.
    for start in 1..=6 {
        let restored = Restored { boot: start, ledger: ledger.clone(), ..Restored::default() };
        world = World::with(setup(45), restored, world.now);
        for connection in 1..=200 {
            world.connect(A, start * 1_000 + connection);
        }
        for record in &world.records {
            ledger.apply(record);
        }
    }
    assert!(ledger.last().0 > 1_000, "{}", ledger.last());
    assert!(world.snapshots.iter().any(|through| through.0 > 1_000), "{:?}", world.snapshots);
}

#[test]
fn a_station_that_was_never_seen_counts_at_its_maximum() {
    let mut world = World::new(45);
    world.connect(A, 1);
    world.pass(6_000);
    world.start(A, 1, "GOOD");
    world.pass(1_000);
    assert_eq!(world.site.status(world.now).chargers[1].evses[0].committed_a, 32.0);
    assert_eq!(world.limits[0], Some(7.7));
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

#[test]
fn events_leave_only_when_durable_and_a_command_runs_once() {
    let mut world = World::new(45);
    world.put(Input::Cloud(CloudInput::Connected));
    world.pass(2_000);
    world.durable();
    let command = json!({ "id": "c1", "type": "limit.set", "data": { "circuit": "grid", "limit_a": 20 } });
    for _ in 0..2 {
        let payload = command.to_string().into_bytes();
        world.put(Input::Cloud(CloudInput::Message { payload, response_topic: None, correlation: None }));
    }
    assert_eq!(world.count(|body| matches!(body, RecordBody::OutsideLimit(_))), 1);
    let answered = |world: &World| world.published.iter().filter(|sent| sent.topic.ends_with("/responses")).count();
    assert_eq!(answered(&world), 0, "no answer before its record is durable");
    world.durable();
    let responses = world.published.iter().filter(|message| message.topic.ends_with("/responses"));
    assert_eq!(responses.filter(|message| message.payload.contains("accepted")).count(), 2);
    assert!(world.published.iter().all(|message| message.sequence.is_none()), "no record was read yet");
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

fn register(wh: i64) -> Value {
    json!([{ "timestamp": "2026-09-21T14:00:00Z", "sampledValue": [{ "value": wh }] }])
}

fn started_world() -> World {
    let now = Now { mono: Mono::from_ms(1_000), utc: Utc::from_unix_ms(1_790_000_000_000), utc_trusted: true };
    let restored = Restored { store_id: "s".to_owned(), boot: 1, ..Restored::default() };
    let mut world = World::with(stations(|station| station.evse_count = 2), restored, now);
    world.connect_v201(A, 1);
    world
}

#[test]
fn a_start_that_comes_after_an_update_ends_nothing() {
    let mut world = started_world();
    world.event("Updated", "CablePluggedIn", 5, &json!({ "evse": { "id": 1 } }));
    world.event("Started", "Authorized", 0, &json!({ "evse": { "id": 1 }, "idToken": { "idToken": "GOOD", "type": "Central" }, "meterValue": register(100) }));
    assert_eq!(world.count(is_end), 0);
    assert_eq!(world.open(), [("x".to_owned(), 1, Some("GOOD".to_owned()), Some(100))]);
    world.event("Ended", "EVDeparted", 60, &json!({ "meterValue": register(900) }));
    assert_eq!((world.count(is_end), world.open().len()), (1, 0));
}

#[test]
fn a_start_that_names_no_evse_ends_nobody_and_moves_when_the_evse_is_known() {
    let mut world = started_world();
    let other = json!({
        "eventType": "Started", "triggerReason": "Authorized", "seqNo": 0, "timestamp": "2026-09-21T13:00:00Z",
        "transactionInfo": { "transactionId": "other" }, "evse": { "id": 1 },
    });
    world.call(A, 1, "TransactionEvent", &other);
    world.event("Started", "Authorized", 0, &json!({ "idToken": { "idToken": "GOOD", "type": "Central" } }));
    assert_eq!(world.count(is_end), 0);
    world.event("Updated", "CablePluggedIn", 20, &json!({ "evse": { "id": 2 } }));
    let places: Vec<_> = world.open().into_iter().map(|(transaction, evse, ..)| (transaction, evse)).collect();
    assert_eq!(places, [("other".to_owned(), 1), ("x".to_owned(), 2)]);
}

#[test]
fn the_first_register_of_a_transaction_is_kept_whatever_brings_it() {
    let mut world = started_world();
    world.event("Started", "CablePluggedIn", 0, &json!({ "evse": { "id": 1 } }));
    world.event("Updated", "MeterValuePeriodic", 10, &json!({ "meterValue": register(100) }));
    assert_eq!(world.open()[0].3, Some(100));
}

#[test]
fn two_events_of_one_second_with_one_number_are_two() {
    let mut world = started_world();
    world.event("Started", "CablePluggedIn", 0, &json!({ "evse": { "id": 1 } }));
    world.event("Updated", "ChargingStateChanged", 3, &json!({}));
    for _ in 0..2 {
        world.event("Updated", "Authorized", 3, &json!({ "idToken": { "idToken": "GOOD", "type": "Central" } }));
    }
    assert_eq!(world.open()[0].2.as_deref(), Some("GOOD"));
    assert_eq!(world.count(|body| matches!(body, RecordBody::TransactionUpdated { .. })), 2);
}

#[test]
fn a_stop_without_an_id_ends_the_only_transaction_that_it_can_mean() {
    for id in [-1, 0] {
        let mut world = World::new(63);
        world.connect(A, 1);
        world.start(A, 1, "GOOD");
        let mut stop =
            json!({ "transactionId": id, "idTag": "GOOD", "meterStop": 5000, "timestamp": "2026-09-21T15:00:00Z" });
        world.call(A, 1, "StopTransaction", &stop);
        world.call(A, 1, "StopTransaction", &stop);
        assert_eq!((world.count(is_end), world.open().len()), (1, 0), "{id}");
        // Another one of which nothing is known is not the same again.
        stop["meterStop"] = json!(7000);
        stop["timestamp"] = json!("2026-09-21T17:00:00Z");
        world.call(A, 1, "StopTransaction", &stop);
        world.durable();
        assert_eq!((world.count(is_end), world.answers(A).len()), (2, 4), "{id}");
    }
}

#[test]
fn a_station_without_a_lease_counts_at_its_maximum_until_it_has_accepted() {
    let now = Now { mono: Mono::from_ms(1_000), utc: Utc::from_unix_ms(1_790_000_000_000), utc_trusted: true };
    let none = stations(|station| station.model.lease = crate::engine::model::topology::LeaseForm::None);
    let mut world = World::with(none, Restored { boot: 1, ..Restored::default() }, now);
    world.accepting = false;
    world.connect(A, 1);
    world.pass(1_000);
    assert_eq!(world.last_profile(A)[2], "SetChargingProfile");
    assert_eq!(world.site.status(world.now).chargers[0].evses[0].committed_a, 32.0);
    world.accepting = true;
    world.connect(A, 2);
    world.pass(10_000);
    assert_eq!(world.site.status(world.now).chargers[0].evses[0].committed_a, 0.0);
    // While it was silent it may have gone back to its maximum.
    let reason = "reset".to_owned();
    world.put(Input::StationDisconnected { station: A, connection: ConnectionId(2), reason });
    world.pass(1_000);
    world.accepting = false;
    world.connect(A, 3);
    world.pass(1_000);
    assert_eq!(world.site.status(world.now).chargers[0].evses[0].committed_a, 32.0);
}

#[test]
fn a_raise_that_ends_in_an_error_may_be_in_force() {
    let mut world = World::new(45);
    world.connect(A, 1);
    world.pass(10_000);
    world.accepting = false;
    world.start(A, 1, "GOOD");
    world.pass(400);
    let id = world.last_profile(A)[1].clone();
    let text = json!([3, id, {}]).to_string();
    world.put(Input::StationFrame { station: A, connection: ConnectionId(1), text });
    world.pass(400);
    assert!(world.site.status(world.now).chargers[0].evses[0].committed_a > 6.0);
}

#[test]
fn a_station_that_does_not_answer_is_cut_too_when_its_circuit_is_too_full() {
    let mut world = World::new(45);
    world.connect(A, 1);
    world.connect(B, 2);
    world.pass(10_000);
    world.start(A, 1, "GOOD");
    world.pass(10_000);
    assert_eq!(world.limits[0], Some(32.0));
    world.accepting = false;
    let reset = crate::engine::model::command::Command::OcppCall {
        charger: StationId::new("CPA"),
        action: "GetDiagnostics".to_owned(),
        payload: "{}".to_owned(),
    };
    world.put(Input::Request { request: RequestId(1), command: reset });
    world.pass(32_000);
    // It may obey although its answers are lost.
    world.meter_a = Some(60);
    world.pass(70_000);
    let periods = &world.last_profile(A)[3]["csChargingProfiles"]["chargingSchedule"]["chargingSchedulePeriod"];
    assert_eq!(periods[0]["limit"].as_f64(), Some(0.0));
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
        let frames: Vec<_> = world.frames[answered..].to_vec();
        answered = world.frames.len();
        for (station, frame) in frames.into_iter().filter(|(_, frame)| frame[0] == 2) {
            let periods = &frame[3]["csChargingProfiles"]["chargingSchedule"]["chargingSchedulePeriod"];
            let high = periods[0]["limit"].as_f64().is_some_and(|limit| limit > 16.0);
            let text = json!([3, frame[1], { "status": if high { "Rejected" } else { "Accepted" } }]).to_string();
            world.put(Input::StationFrame { station, connection: ConnectionId(1), text });
        }
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

#[test]
fn a_schedule_is_written_in_the_time_that_the_station_was_told() {
    let start = |world: &World| {
        let profile = &world.last_profile(A)[3]["csChargingProfiles"]["chargingSchedule"]["startSchedule"];
        Utc::parse(profile.as_str().expect("a time")).expect("a time")
    };
    let mut world = World::new(45);
    world.connect(A, 1);
    world.call(A, 1, "Heartbeat", &json!({}));
    world.pass(10_000);
    let before = start(&world);
    // The gateway's clock is set; the station does not know that yet.
    world.now.utc = world.now.utc.plus_ms(3_600_000);
    world.pass(40_000);
    assert!(start(&world).since(before) < 60_000, "the schedule would begin in an hour, without a limit until then");
    world.call(A, 1, "Heartbeat", &json!({}));
    world.pass(400);
    assert!(start(&world).since(before) > 3_600_000, "what it holds is over by its new time");
}

#[test]
fn offers_remembered_by_an_untrusted_clock_last_as_long_as_they_can() {
    let mut world = World::new(45);
    world.now.utc = Utc::from_unix_ms(1_000);
    world.now.utc_trusted = false;
    world.connect(A, 1);
    world.connect(B, 2);
    world.pass(10_000);
    world.start(A, 1, "GOOD");
    world.pass(6_000);
    assert_eq!(world.limits[0], Some(32.0));
    let restored = Restored {
        boot: 2,
        ledger: world.site.ledger().clone(),
        remembered: world.remembered.clone(),
        ..Restored::default()
    };
    let now = Now { mono: Mono::START, utc: Utc::from_unix_ms(1_790_000_000_000), utc_trusted: true };
    let mut again = World::with(setup(45), restored, now);
    again.pass(60_000);
    assert_eq!(again.site.status(again.now).chargers[0].evses[0].committed_a, 32.0);
}

#[test]
fn a_new_fallback_is_remembered_with_the_station_that_accepted_it() {
    let mut world = World::new(45);
    world.connect(A, 1);
    world.pass(10_000);
    let restored = Restored { boot: 2, ledger: world.site.ledger().clone(), ..Restored::default() };
    let mut again = World::with(stations(|station| station.fallback = Current::from_a(10)), restored, world.now);
    again.connect(A, 1);
    again.pass(10_000);
    let facts = again.site.ledger().station(&StationId::new("CPA")).expect("known");
    assert_eq!(facts.tamed.get(&1), Some(&Current::from_a(10)));
}

#[test]
fn the_id_of_a_stop_without_a_start_is_not_given_again() {
    let mut world = World::new(63);
    world.connect(A, 1);
    let stop = json!({ "transactionId": -1, "meterStop": 900, "timestamp": "2026-09-21T13:00:00Z" });
    world.call(A, 1, "StopTransaction", &stop);
    world.start(A, 1, "GOOD");
    world.durable();
    assert_eq!(world.answers(A)[1]["transactionId"], 2);
}

#[path = "outside_tests.rs"]
mod outside;
mod wishes;
