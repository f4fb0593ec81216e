//! One site's decision code and one station, wire text to wire text, in virtual time.

use serde_json::Value;
use siteward::engine::model::billing::BillingSetup;
use siteward::engine::model::command::{Command, CommandOutcome};
use siteward::engine::model::exchange::OcppVersion;
use siteward::engine::model::ids::{CircuitId, ConnectionId, RequestId, SiteId, StationId};
use siteward::engine::model::limit::{LimitAmount, LimitOrder, LimitOrigin, LimitTarget};
use siteward::engine::model::record::{Record, RecordBody};
use siteward::engine::model::setup::Setup;
use siteward::engine::model::token::{AuthorizationSetup, UnknownToken};
use siteward::engine::model::topology::{
    Circuit, CircuitIndex, LeaseForm, Station as Settings, StationIndex, StationModel, Topology, Wiring,
};
use siteward::engine::site::io::{Input, JournalInput, Output};
use siteward::engine::site::ledger::Ledger;
use siteward::engine::site::{Restored, Site};
use siteward::engine::time::{Mono, Now, Utc};
use siteward::engine::units::{Current, PerPhase, Voltage};
use siteward_sim::car::{Car, CarOptions};
use siteward_sim::station::{Quirks, Station, StationOptions};

pub(crate) const AT: StationIndex = StationIndex(0);

/// A station whose connection was closed tries again after so long.
const AGAIN_MS: u64 = 7_000;

/// The engine's tick.
const TICK_MS: u64 = 200;

/// A site with one circuit of 100 A and one station with a fallback of 6 A.
pub(crate) struct Bench {
    pub(crate) site: Option<Site>,
    pub(crate) station: Station,
    pub(crate) settings: Settings,
    pub(crate) ms: u64,
    boot: u64,
    connection: Option<ConnectionId>,
    connections: u64,
    /// It was closed by the controller: the station tries again then, and is let in not before then.
    again_ms: Option<u64>,
    kept_out_ms: u64,
    pub(crate) records: Vec<Record>,
    remembered: Option<Vec<u8>>,
    pub(crate) replies: Vec<CommandOutcome>,
    pub(crate) reports: Vec<siteward::engine::model::commission::CommissionReport>,
    /// Payloads of the calls to the station, with their actions.
    pub(crate) calls: Vec<(u64, String, Value)>,
}

pub(crate) fn model(lease: LeaseForm) -> StationModel {
    StationModel { lease, ..StationModel::default() }
}

impl Bench {
    pub(crate) fn new(version: OcppVersion, model: StationModel, quirks: Quirks) -> Self {
        let settings = Settings {
            id: StationId::new("CP1"),
            circuit: CircuitIndex(0),
            model,
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
        let options = StationOptions { quirks, ..StationOptions::new("CP1", version) };
        let mut bench = Self {
            site: None,
            station: Station::new(options),
            settings,
            ms: 1_000,
            boot: 0,
            connection: None,
            connections: 0,
            again_ms: None,
            kept_out_ms: 0,
            records: Vec::new(),
            remembered: None,
            replies: Vec::new(),
            reports: Vec::new(),
            calls: Vec::new(),
        };
        bench.start_controller();
        bench.connect();
        bench
    }

    fn setup(&self) -> Setup {
        let circuit = Circuit {
            id: CircuitId::new("grid"),
            parent: None,
            limit: PerPhase::splat(Current::from_a(100)),
            meter: None,
            unmeasured_load: None,
            max_unbalance: None,
            max_power: None,
            short_time: None,
        };
        let devices = (Vec::new(), Vec::new());
        let voltage = Voltage::from_mv(230_000);
        let stations = vec![self.settings.clone()];
        Setup {
            topology: Topology::new(SiteId::new("bench"), voltage, vec![circuit], stations, devices).expect("valid"),
            version: "bench".to_owned(),
            heartbeat_s: 300,
            tokens: Vec::new(),
            groups: Default::default(),
            timezone: Default::default(),
            authorization: AuthorizationSetup {
                unknown: UnknownToken::Accept,
                local_lists: false,
                ..AuthorizationSetup::default()
            },
            cloud: None,
            unsafe_fallback: None,
            seed: 1,
            tariffs: Vec::new(),
            billing: BillingSetup::default(),
            outside: Default::default(),
            charging: Default::default(),
        }
    }

    pub(crate) fn now(&self) -> Now {
        let utc = Utc::from_unix_ms(1_772_366_400_000 + i64::try_from(self.ms).expect("small"));
        Now { mono: Mono::from_ms(self.ms), utc, utc_trusted: true }
    }

    /// Starts the controller on what its last run has left.
    pub(crate) fn start_controller(&mut self) {
        self.boot += 1;
        let mut ledger = Ledger::default();
        for record in &self.records {
            ledger.apply(record);
        }
        let remembered = self.remembered.clone();
        let restored =
            Restored { store_id: "s".to_owned(), boot: self.boot, ledger, remembered, ..Restored::default() };
        self.site = Some(Site::new(self.setup(), restored, self.now()));
    }

    /// The controller is gone, and its connections with it.
    pub(crate) fn kill_controller(&mut self) {
        self.site = None;
        self.connection = None;
        self.station.disconnected(self.now());
    }

    pub(crate) fn connect(&mut self) {
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        self.connection = Some(connection);
        let version = self.station.options().version;
        self.tell(Input::StationConnected { station: AT, connection, version });
        let frames = self.station.connected(self.now());
        self.frames_of_station(frames);
    }

    /// The network is gone; both ends see it.
    pub(crate) fn disconnect(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        self.station.disconnected(self.now());
        let reason = "cable".to_owned();
        self.tell(Input::StationDisconnected { station: AT, connection, reason });
    }

    /// The network is gone, and only the controller has seen it yet.
    pub(crate) fn lose_contact(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let reason = "silent".to_owned();
        self.tell(Input::StationDisconnected { station: AT, connection, reason });
    }

    /// The station sees it too.
    pub(crate) fn station_notices(&mut self) {
        self.station.disconnected(self.now());
    }

    fn frames_of_station(&mut self, frames: Vec<String>) {
        let Some(connection) = self.connection else { return };
        for text in frames {
            self.tell(Input::StationFrame { station: AT, connection, text });
        }
        if self.station.take_close() {
            self.disconnect();
            self.connect();
        }
    }

    pub(crate) fn tell(&mut self, input: Input) {
        let now = self.now();
        let Some(site) = &mut self.site else { return };
        let mut out = Vec::new();
        site.handle(input, now, &mut out);
        self.remembered = site.take_memory(now).or(self.remembered.take());
        for output in out {
            match output {
                Output::Frame { connection, text, .. } if Some(connection) == self.connection => {
                    self.note_call(&text);
                    let frames = self.station.receive(&text, now);
                    self.frames_of_station(frames);
                }
                Output::Append(record) => {
                    let through = record.sequence;
                    self.records.push(record);
                    self.tell(Input::Journal(JournalInput::Durable { through }));
                }
                Output::TurnAway { for_ms, .. } => self.kept_out_ms = self.ms + for_ms,
                Output::Close { .. } => {
                    self.disconnect();
                    self.again_ms = Some(self.ms + AGAIN_MS);
                }
                Output::Reply { outcome, .. } => self.replies.push(outcome),
                Output::Commissioned(report) => self.reports.push(*report),
                _ => {}
            }
        }
    }

    fn note_call(&mut self, text: &str) {
        let frame: Value = serde_json::from_str(text).expect("frames are JSON");
        if frame[0] == 2 {
            self.calls.push((self.ms, frame[2].as_str().expect("an action").to_owned(), frame[3].clone()));
        }
    }

    pub(crate) fn run(&mut self, seconds: u64) {
        for _ in 0..seconds * 1_000 / TICK_MS {
            self.ms += TICK_MS;
            if self.again_ms.is_some_and(|at| self.ms >= at) {
                self.again_ms = (self.ms < self.kept_out_ms).then_some(self.ms + AGAIN_MS);
                if self.again_ms.is_none() {
                    self.connect();
                }
            }
            let frames = self.station.tick(self.now());
            self.frames_of_station(frames);
            self.tell(Input::Tick);
        }
    }

    /// Runs until `done`, at most so many seconds. How long it took.
    pub(crate) fn run_until(&mut self, most_s: u64, done: impl Fn(&Self) -> bool) -> Option<u64> {
        (0..most_s).find(|_| {
            self.run(1);
            done(self)
        })
    }

    pub(crate) fn plug_in(&mut self) {
        let car = Car::new(CarOptions { max: Current::from_a(32), battery_wh: 10_000_000, ..CarOptions::default() });
        assert!(self.station.plug_in(1, car, Some("TAG")).is_ok(), "the place is free");
    }

    pub(crate) fn unplug(&mut self) {
        self.station.unplug(1, self.now());
    }

    /// What the car draws, in A per phase.
    pub(crate) fn drawn_a(&self) -> f64 {
        self.station.current(1).max().as_a()
    }

    /// What the site takes it to draw at most.
    pub(crate) fn committed_a(&self) -> f64 {
        self.evse().committed_a
    }

    pub(crate) fn evse(&self) -> siteward::engine::model::status::EvseStatus {
        let status = self.site.as_ref().expect("it runs").status(self.now());
        status.chargers[0].evses[0].clone()
    }

    pub(crate) fn alarms(&self) -> Vec<String> {
        let status = self.site.as_ref().expect("it runs").status(self.now());
        status.alarms.iter().map(|alarm| format!("{:?}", alarm.key.kind)).collect()
    }

    pub(crate) fn command(&mut self, command: Command) {
        self.tell(Input::Request { request: RequestId(1), command });
    }

    pub(crate) fn limit_circuit(&mut self, amperes: i32) {
        self.command(Command::LimitSet(LimitOrder {
            target: LimitTarget::Circuit(CircuitId::new("grid")),
            origin: LimitOrigin::Local,
            amount: LimitAmount::PerPhase(Current::from_a(amperes)),
            until: None,
            heartbeat: None,
        }));
    }

    pub(crate) fn profiles(&self) -> Vec<&Value> {
        let set = self.calls.iter().filter(|(_, action, _)| action == "SetChargingProfile");
        set.map(|(_, _, payload)| payload).collect()
    }

    pub(crate) fn chosen_lease(&self) -> Option<(LeaseForm, bool)> {
        self.records.iter().rev().find_map(|record| match &record.body {
            RecordBody::LeaseChosen { form, proven, .. } => Some((*form, *proven)),
            _ => None,
        })
    }

    /// What the station draws is never more than what the site takes it to draw. Call it often.
    pub(crate) fn check(&self) {
        if self.site.is_some() {
            let (drawn, committed) = (self.drawn_a(), self.committed_a());
            assert!(drawn <= committed + 0.2, "{drawn} A drawn, {committed} A committed at {} ms", self.ms);
        }
    }

    pub(crate) fn run_checked(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.run(1);
            self.check();
        }
    }
}
