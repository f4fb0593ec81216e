//! A living site: the controller with its guard, stations with cars, a journal and a broker in memory, in virtual time.

use std::collections::{BTreeMap, VecDeque};

use siteward::config::remote::only_on_site;
use siteward::config::{Config, Places, load_text};
use siteward::engine::controller::Controller;
use siteward::engine::model::command::CommandOutcome;
use siteward::engine::model::errand::{Errand, ErrandId};
use siteward::engine::model::exchange::{AuthorizationStatus, OcppVersion};
use siteward::engine::model::ids::{ConnectionId, IdToken, Sequence};
use siteward::engine::model::record::{Record, RecordBody};
use siteward::engine::model::setup::{Acknowledge, Setup};
use siteward::engine::model::token::TokenEntry;
use siteward::engine::model::topology::StationIndex;
use siteward::engine::model::wish::Wish;
use siteward::engine::site::Restored;
use siteward::engine::site::io::{
    Carries, CloudInput, Input, JournalInput, LogLevel, Output, Publication, TelemetryInput,
};
use siteward::engine::site::ledger::Ledger;
use siteward::engine::time::{Mono, Now, Utc};
use siteward::engine::units::{Current, PerPhase};

use super::SITE;
use super::corpus::{Facts, TOKENS};
use crate::car::{Car, CarOptions};
use crate::rng::Dice;
use crate::station::{Station, StationOptions};

/// The engine's tick.
const TICK_MS: u64 = 200;
/// 2026-03-02 at 07:00 UTC, a Monday.
const BEGIN: i64 = 1_772_434_800_000;
/// Acknowledged records that are kept.
const HISTORY: usize = 300;
/// A station that was cut off comes back after so long.
const AGAIN_MS: u64 = 3_000;
/// So long a circuit may be above its limit: until cars have followed a cut.
const GRACE_MS: u64 = 20_000;
/// What currents are not told apart by.
const TOLERANCE: Current = Current::from_ma(500);

/// A station and its connection.
#[derive(Debug)]
struct Post {
    station: Station,
    evses: u32,
    connection: Option<ConnectionId>,
    /// When it connects again.
    again_ms: u64,
}

/// What a message from the broker has led to at once.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Records that were made.
    pub(super) records: Vec<Record>,
    /// Answers to commands, with the correlation data.
    pub(super) answers: Vec<(Vec<u8>, Publication)>,
    /// Frames that left, errands and moves of the cursor: what a rejected command must not lead to.
    pub(super) deeds: Vec<&'static str>,
}

/// The site and everything around it.
#[derive(Debug)]
pub(super) struct Bench {
    config: Config,
    setup: Setup,
    pub(super) controller: Controller,
    posts: Vec<Post>,
    ms: u64,
    boot: u64,
    connections: u64,
    /// The fold of what was written down.
    pub(super) fold: Ledger,
    journal: VecDeque<Record>,
    /// The telemetry that was kept and is not delivered.
    ring: Vec<(u64, String)>,
    acknowledged: Sequence,
    frames: VecDeque<(StationIndex, ConnectionId, String)>,
    errands: VecDeque<(ErrandId, Errand)>,
    pub(super) heard: Heard,
    cdrs: Vec<String>,
    above_since: BTreeMap<usize, u64>,
    /// What is broken, in words.
    pub(super) broken: Vec<String>,
}

/// The configuration of the site, as a file of this name.
fn config() -> Result<Config, String> {
    let path = std::path::Path::new("site.toml");
    load_text(path, SITE, &Places::of(path)).map(|loaded| loaded.config).map_err(|problems| problems.to_string())
}

fn versions() -> [OcppVersion; 5] {
    [OcppVersion::V16, OcppVersion::V16, OcppVersion::V201, OcppVersion::V16, OcppVersion::V21]
}

impl Bench {
    /// A site that has run for a minute.
    pub(super) fn new(application: bool, seed: u64) -> Result<Self, String> {
        let config = config()?;
        let mut setup = config.setup("fuzz", seed);
        let entry = |token: &&str| TokenEntry {
            token: IdToken::new(token),
            status: AuthorizationStatus::Accepted,
            group: Some("staff".to_owned()),
            expires: None,
            wish: Wish::default(),
        };
        setup.tokens = TOKENS.iter().take(2).map(entry).collect();
        if let Some(cloud) = setup.cloud.as_mut().filter(|_| application) {
            cloud.acknowledge = Acknowledge::Application;
        }
        let post = |(settings, version): (&siteward::engine::model::topology::Station, OcppVersion)| {
            let evses = u32::try_from(settings.evse_count).unwrap_or(1);
            let options = StationOptions { evses, seed, ..StationOptions::new(settings.id.as_str(), version) };
            Post { station: Station::new(options), evses, connection: None, again_ms: 0 }
        };
        let posts = setup.topology.stations().iter().zip(versions()).map(post).collect();
        let now = now_at(1_000);
        let mut bench = Self {
            controller: Controller::new(setup.clone(), restored(1, Ledger::default(), None), true, now),
            config,
            setup,
            posts,
            ms: 1_000,
            boot: 1,
            connections: 0,
            fold: Ledger::default(),
            journal: VecDeque::new(),
            ring: Vec::new(),
            acknowledged: Sequence(0),
            frames: VecDeque::new(),
            errands: VecDeque::new(),
            heard: Heard::default(),
            cdrs: Vec::new(),
            above_since: BTreeMap::new(),
            broken: Vec::new(),
        };
        bench.tell(Input::Cloud(CloudInput::Connected));
        let mut dice = Dice::named(seed, "cars");
        for _ in 0..300 {
            bench.step(&mut dice);
        }
        Ok(bench)
    }

    pub(super) fn now(&self) -> Now {
        now_at(self.ms)
    }

    /// What commands can be about.
    pub(super) fn facts(&self) -> Facts {
        let open = self.fold.open().map(|open| open.facts.transaction.to_string()).collect();
        Facts { open, cdrs: self.cdrs.clone(), last: self.fold.last().0, now: self.now().utc }
    }

    /// A message from the broker, and what it leads to at once.
    pub(super) fn message(&mut self, payload: &[u8], correlation: &[u8], own_topic: bool) -> Heard {
        self.heard = Heard::default();
        self.tell(Input::Cloud(CloudInput::Message {
            payload: payload.to_vec(),
            response_topic: own_topic.then(|| "answers/here".to_owned()),
            correlation: Some(correlation.to_vec()),
        }));
        std::mem::take(&mut self.heard)
    }

    /// 200 ms pass.
    pub(super) fn step(&mut self, dice: &mut Dice) {
        self.ms += TICK_MS;
        for (station, connection, text) in std::mem::take(&mut self.frames) {
            let post = &mut self.posts[station.0];
            if post.connection == Some(connection) {
                let frames = post.station.receive(&text, now_at(self.ms));
                self.frames_of(station, frames);
            }
        }
        for index in 0..self.posts.len() {
            let (station, now) = (StationIndex(index), self.now());
            if self.posts[index].connection.is_none() && self.ms >= self.posts[index].again_ms {
                self.connect(station);
            }
            let frames = self.posts[index].station.tick(now);
            self.frames_of(station, frames);
        }
        while let Some((id, errand)) = self.errands.pop_front() {
            let outcome = self.errand(errand);
            self.tell(Input::ErrandAnswered { id, outcome });
        }
        self.visit(dice);
        self.tell(Input::Tick);
        // The outbox looks at the time once a second, and with every word from the broker: what is due is not the next message's doing.
        self.tell(Input::Cloud(CloudInput::Acknowledged { sequences: Vec::new() }));
        self.look_at_circuits();
    }

    /// The daemon ends and starts again on what it has left.
    pub(super) fn restart(&mut self) {
        let memory = self.controller.take_memory(self.now());
        for index in 0..self.posts.len() {
            self.posts[index].connection = None;
            self.posts[index].again_ms = self.ms + AGAIN_MS;
            let now = self.now();
            self.posts[index].station.disconnected(now);
        }
        self.frames.clear();
        self.errands.clear();
        match Ledger::restore(&self.fold.snapshot()) {
            Ok(ledger) if ledger == self.fold => {
                self.boot += 1;
                let mut restored = restored(self.boot, ledger, memory);
                restored.acknowledged = self.acknowledged;
                restored.snapshot_at = self.fold.last();
                self.controller = Controller::new(self.setup.clone(), restored, true, self.now());
                self.tell(Input::Cloud(CloudInput::Connected));
            }
            Ok(_) => self.broken.push("a snapshot does not give the state back of which it was made".to_owned()),
            Err(error) => self.broken.push(error.to_string()),
        }
    }

    /// Cars come and go, links break.
    fn visit(&mut self, dice: &mut Dice) {
        let now = self.now();
        let index = usize::try_from(dice.below(5)).unwrap_or(0);
        let Some(post) = self.posts.get_mut(index) else { return };
        let evse = u32::try_from(dice.between(1, u64::from(post.evses))).unwrap_or(1);
        if post.station.car(evse).is_none() {
            if dice.chance(60_000) {
                let token = dice.pick(&TOKENS).copied().filter(|_| dice.chance(900_000));
                let phases = dice.pick(&[1, 3]).copied().unwrap_or(3);
                let car = Car::new(CarOptions { max: Current::from_a(32), phases, ..CarOptions::default() });
                // The place is free.
                let _ = post.station.plug_in(evse, car, token);
            }
        } else if dice.chance(4_000) {
            post.station.unplug(evse, now);
        }
        if dice.chance(1_000) {
            self.disconnect(StationIndex(index));
        }
    }

    fn connect(&mut self, station: StationIndex) {
        self.connections += 1;
        let (connection, now) = (ConnectionId(self.connections), self.now());
        let post = &mut self.posts[station.0];
        post.connection = Some(connection);
        let version = post.station.options().version;
        let frames = post.station.connected(now);
        self.tell(Input::StationConnected { station, connection, version });
        self.frames_of(station, frames);
    }

    fn disconnect(&mut self, station: StationIndex) {
        let now = self.now();
        let post = &mut self.posts[station.0];
        let Some(connection) = post.connection.take() else { return };
        post.station.disconnected(now);
        post.again_ms = self.ms + AGAIN_MS;
        self.tell(Input::StationDisconnected { station, connection, reason: "cable".to_owned() });
    }

    fn frames_of(&mut self, station: StationIndex, frames: Vec<String>) {
        for text in frames {
            if let Some(connection) = self.posts[station.0].connection {
                self.tell(Input::StationFrame { station, connection, text });
            }
        }
        if self.posts[station.0].station.take_close() {
            self.disconnect(station);
        }
    }

    /// Tells the controller, and does at once what needs no time.
    fn tell(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        let mut outputs = Vec::new();
        while let Some(input) = inputs.pop_front() {
            self.controller.handle(input, now_at(self.ms), &mut outputs);
            for output in outputs.drain(..) {
                self.carry_out(output, &mut inputs);
            }
        }
    }

    fn carry_out(&mut self, output: Output, inputs: &mut VecDeque<Input>) {
        match output {
            Output::Frame { station, connection, text } => {
                self.heard.deeds.push("a frame");
                self.frames.push_back((station, connection, text));
            }
            Output::Close { station, .. } => {
                self.heard.deeds.push("a connection closed");
                self.posts[station.0].again_ms = self.ms + AGAIN_MS;
                self.disconnect(station);
            }
            Output::TurnAway { .. } | Output::Commissioned(_) | Output::Reply { .. } => {
                self.heard.deeds.push("something that nobody asked for");
            }
            Output::Append(record) => {
                self.fold.apply(&record);
                if let RecordBody::CdrCreated(_) = &record.body {
                    self.cdrs.push(format!("{STORE}-{}", record.sequence));
                }
                self.heard.records.push(record.clone());
                let through = record.sequence;
                self.journal.push_back(record);
                inputs.push_back(Input::Journal(JournalInput::Durable { through }));
            }
            Output::Snapshot { through, state } => match Ledger::restore(&state) {
                Ok(ledger) if ledger == self.fold && ledger.last() == through => {}
                Ok(_) => self.broken.push("a snapshot is not the fold of the records".to_owned()),
                Err(error) => self.broken.push(error.to_string()),
            },
            Output::ReadRecords { from, limit } => {
                let first = self.journal.partition_point(|record| record.sequence < from);
                let records = self.journal.range(first..).take(limit).cloned().collect();
                inputs.push_back(Input::Journal(JournalInput::Records { records }));
            }
            Output::Acknowledged { through } => {
                self.heard.deeds.push("a move of the cursor");
                self.acknowledged = through;
                while self.journal.len() > HISTORY
                    && self.journal.front().is_some_and(|first| first.sequence <= through)
                {
                    self.journal.pop_front();
                }
            }
            Output::Telemetry { intervals } => {
                let first = self.ring.last().map_or(1, |(last, _)| last + 1);
                self.ring.extend((first..).zip(intervals));
                let newest = self.ring.last().map_or(0, |(last, _)| *last);
                let kept = TelemetryInput::Kept { ring: STORE.to_owned(), dropped: 0, newest };
                inputs.push_back(Input::Telemetry(kept));
            }
            Output::ReadTelemetry { from, limit } => {
                let wanted = self.ring.iter().filter(|(number, _)| *number >= from).take(limit);
                let intervals = wanted.cloned().collect();
                inputs.push_back(Input::Telemetry(TelemetryInput::Intervals { intervals }));
            }
            Output::TelemetryAcknowledged { through } => self.ring.retain(|(number, _)| *number >= through),
            Output::Publish(publication) => self.publish(publication, inputs),
            Output::Errand { id, errand } => {
                self.heard.deeds.push("an errand");
                self.errands.push_back((id, errand));
            }
            Output::Log { level: LogLevel::Error, message } => self.broken.push(message),
            Output::Log { .. } => {}
        }
    }

    fn publish(&mut self, publication: Publication, inputs: &mut VecDeque<Input>) {
        let taken = match publication.carries {
            Carries::Interval(interval) => CloudInput::IntervalTaken { interval },
            Carries::Event(sequence) => CloudInput::Acknowledged { sequences: vec![sequence] },
            Carries::Nothing => {
                if let Some(correlation) = publication.correlation.clone() {
                    self.heard.answers.push((correlation, publication));
                }
                return;
            }
        };
        inputs.push_back(Input::Cloud(taken));
    }

    /// What the daemon answers that has one log line, and never starts again.
    fn errand(&self, errand: Errand) -> CommandOutcome {
        let accepted = |data: serde_json::Value| CommandOutcome::Accepted { data: Some(data.to_string()) };
        match errand {
            Errand::Configuration => accepted(serde_json::json!({ "toml": "[site]", "source": "site.toml" })),
            Errand::Log { lines } => accepted(serde_json::json!({ "lines": vec!["a line"; lines.min(1)] })),
            Errand::Approve { charger, .. } => CommandOutcome::Rejected {
                error: format!("charger {charger} is neither configured nor connected and waiting"),
            },
            Errand::PutConfiguration { toml } => {
                let wrong = match load_text(&self.config.path, &toml, &Places::of(&self.config.path)) {
                    Err(problems) => vec![problems.to_string()],
                    Ok(loaded) => match loaded.refuse_unsafe() {
                        Some(reason) => vec![reason],
                        None => only_on_site(&self.config, &loaded.config),
                    },
                };
                if wrong.is_empty() {
                    return accepted(serde_json::json!({ "probation_s": 300 }));
                }
                CommandOutcome::Rejected { error: wrong.join("\n") }
            }
        }
    }

    /// No circuit has more than it bears by itself, whatever was commanded: neither by what is recorded nor by what flows.
    fn look_at_circuits(&mut self) {
        let topology = &self.setup.topology;
        let mut drawn = vec![PerPhase::splat(Current::ZERO); topology.circuits().len()];
        for (post, settings) in self.posts.iter().zip(topology.stations()) {
            let current = post.station.total_current();
            topology.path_to_grid(settings.circuit).for_each(|circuit| drawn[circuit.0] += current);
        }
        let most = TOLERANCE;
        for (index, circuit) in topology.circuits().iter().enumerate() {
            let recorded =
                self.controller.site().recorded_limits(siteward::engine::model::topology::CircuitIndex(index));
            let is_more =
                |current: PerPhase<Current>, limit: PerPhase<Current>, by: Current| (current - limit).max() > by;
            if recorded.current.is_some_and(|current| is_more(current, circuit.limit, Current::ZERO)) {
                self.broken.push(format!("{} was raised above its own limit: {recorded:?}", circuit.id));
            }
            if recorded.power.zip(circuit.max_power).is_some_and(|(power, most)| power > most) {
                self.broken.push(format!("{} was raised above its own power: {recorded:?}", circuit.id));
            }
            if !is_more(drawn[index], circuit.limit, most) {
                self.above_since.remove(&index);
            } else if self.ms - *self.above_since.entry(index).or_insert(self.ms) > GRACE_MS {
                self.above_since.remove(&index);
                self.broken.push(format!("{} has {:?} of {:?} for too long", circuit.id, drawn[index], circuit.limit));
            }
        }
    }
}

/// The name of the store.
pub(super) const STORE: &str = "fuzz";

fn now_at(ms: u64) -> Now {
    let utc = Utc::from_unix_ms(BEGIN + i64::try_from(ms).unwrap_or(0));
    Now { mono: Mono::from_ms(ms), utc, utc_trusted: true }
}

fn restored(boot: u64, ledger: Ledger, remembered: Option<Vec<u8>>) -> Restored {
    Restored { store_id: STORE.to_owned(), boot, ledger, remembered, ..Restored::default() }
}
