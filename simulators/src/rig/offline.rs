//! A month without the cloud: the site's own records into the real journal on a real disk, which is closed and opened again each virtual day;
//! then everything is read out as the cloud's cursor reads it.
//!
//! The records are those of the decision code with simulated stations and cars, in virtual time. The time between two ticks is long here, since
//! nobody looks at currents: it is about what is written down.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use siteward::config::{Places, load_text};
use siteward::engine::cloud::messages::Messages;
use siteward::engine::controller::Controller;
use siteward::engine::model::exchange::OcppVersion;
use siteward::engine::model::ids::{ConnectionId, Sequence};
use siteward::engine::model::record::{Record, RecordBody};
use siteward::engine::model::setup::Setup;
use siteward::engine::model::topology::StationIndex;
use siteward::engine::site::Restored;
use siteward::engine::site::io::{Carries, CloudInput, Input, JournalInput, Output, Publication};
use siteward::engine::site::ledger::Ledger;
use siteward::engine::time::{Mono, Now, Utc};
use siteward::engine::units::Current;
use siteward::shell::clock::Clock as SystemClock;
use siteward::shell::journal::{Journal, JournalHandle, Opened};
use tokio::sync::mpsc;

use super::bytes_below;
use crate::car::{Car, CarOptions};
use crate::net::clock::Clock;
use crate::rng::{Dice, Fnv};
use crate::station::{Station, StationOptions};

/// Between two looks at the site, in ms of virtual time.
const STEP_MS: u64 = 120_000;
/// How often stations send meter values, in s.
const METER_VALUES_S: u64 = 60;
/// A day.
const DAY_MS: u64 = 86_400_000;
/// The first of March 2026.
const BEGIN: i64 = 1_772_323_200_000;
const PREFIX: &str = "siteward/v1";
/// A store of so many bytes per transaction is the stated bound (`docs/journal.md`), with this for an empty one.
pub const BYTES_PER_TRANSACTION: u64 = 20_000;
/// What a store has without records: the history that is kept and the files beside the database.
pub const BYTES_BESIDES: u64 = 16_000_000;
/// A snapshot is made each so many records, and records are deleted in lots of a hundred.
const LAG: u64 = 1_100;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct OfflineOptions {
    /// How long the cloud is away.
    pub days: u64,
    /// How many stations.
    pub stations: usize,
    /// How many transactions each has a day.
    pub a_day: u64,
    /// Acknowledged records that are kept.
    pub history: u64,
    /// For cars.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct OfflineReport {
    options: OfflineOptions,
    /// Records that waited for the cloud.
    pub records: u64,
    /// Transactions that began.
    pub transactions: u64,
    /// The store when the cloud came back, in bytes.
    pub store_bytes: u64,
    /// How often the store was opened again.
    pub restarts: u64,
    /// The longest opening, in ms.
    pub longest_start_ms: u64,
    /// The opening of the whole backlog, in ms.
    pub last_start_ms: u64,
    /// How long it took until everything was read and acknowledged, in ms.
    pub drained_ms: u64,
    /// How many records were kept after that.
    pub kept: u64,
    /// The opening after that, in ms.
    pub start_after_ms: u64,
    /// The store after that.
    pub bytes_after: u64,
}

impl OfflineReport {
    /// What the store may have at most.
    #[must_use]
    pub const fn bound(&self) -> u64 {
        BYTES_BESIDES + self.transactions * BYTES_PER_TRANSACTION
    }
}

impl fmt::Display for OfflineReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = |count: u64| self.store_bytes / count.max(1);
        let days = self.options.days * u64::try_from(self.options.stations).unwrap_or(1);
        writeln!(
            f,
            "{} days of {} stations without the cloud: {} transactions, {} records, {} MB on disk (bound: {} MB)",
            self.options.days,
            self.options.stations,
            self.transactions,
            self.records,
            self.store_bytes / 1_000_000,
            self.bound() / 1_000_000
        )?;
        writeln!(
            f,
            "  {} bytes a record, {} a transaction, {} a station and day",
            per(self.records),
            per(self.transactions),
            per(days)
        )?;
        writeln!(
            f,
            "  {} restarts, each with everything there: the longest start took {} ms, that with the whole backlog {} ms",
            self.restarts, self.longest_start_ms, self.last_start_ms
        )?;
        write!(
            f,
            "  drained in {} ms ({} events a second), in order, none missing, none twice; {} records kept, {} MB, the next start took {} ms",
            self.drained_ms,
            self.records * 1_000 / self.drained_ms.max(1),
            self.kept,
            self.bytes_after / 1_000_000,
            self.start_after_ms
        )
    }
}

/// A day of the month after the other, then the drain. `dir` is for the store; `say` is told how far it is.
///
/// # Errors
/// If something is not as it should be, or the journal cannot be written. Call it where waiting is allowed: on a thread of its own.
pub fn measure(options: OfflineOptions, dir: &Path, say: impl Fn(&str)) -> Result<OfflineReport, String> {
    let mut month = Month::new(options, dir)?;
    let (mut longest_start_ms, mut last_start_ms) = (0, 0);
    for day in 1..=options.days {
        month.run_day()?;
        last_start_ms = month.restart()?;
        longest_start_ms = longest_start_ms.max(last_start_ms);
        say(&format!(
            "day {day}: {} records, {} MB, opened again in {last_start_ms} ms",
            month.fold.last(),
            bytes_below(dir) / 1_000_000
        ));
    }
    let store_bytes = bytes_below(dir);
    let drained_ms = month.drain()?;
    let kept = month.prune()?;
    let start_after_ms = month.restart()?;
    let report = OfflineReport {
        options,
        records: month.delivered,
        transactions: month.transactions,
        store_bytes,
        restarts: options.days + 1,
        longest_start_ms,
        last_start_ms,
        drained_ms,
        kept,
        start_after_ms,
        bytes_after: bytes_below(dir),
    };
    if report.store_bytes > report.bound() {
        return Err(format!("the store is larger than stated: {report}"));
    }
    Ok(report)
}

/// The site, its journal and everything around it.
struct Month {
    options: OfflineOptions,
    dir: PathBuf,
    setup: Setup,
    controller: Controller,
    journal: Option<(JournalHandle, mpsc::Receiver<Input>)>,
    stations: Vec<(Station, Option<ConnectionId>)>,
    /// By how much the journal's clock is ahead, in ms. It lives as long as the program, since a clock is copied everywhere.
    ahead_ms: &'static AtomicU64,
    store_id: String,
    boot: u64,
    connections: u64,
    ms: u64,
    dice: Dice,
    /// The fold of everything that was ever made, without restarts.
    fold: Ledger,
    /// The last record that the journal was given, and the last that it has called durable.
    appended: Sequence,
    durable: Sequence,
    /// What the cloud must get: the hash of each event.
    expected: Vec<u64>,
    transactions: u64,
    /// How many events the cloud has got.
    delivered: u64,
}

impl Month {
    fn new(options: OfflineOptions, dir: &Path) -> Result<Self, String> {
        let text = configuration(options.stations);
        let path = Path::new("site.toml");
        let loaded = load_text(path, &text, &Places::of(path)).map_err(|problems| problems.to_string())?;
        let setup = loaded.config.setup("offline", options.seed);
        let station = |index: usize| {
            let version = if index.is_multiple_of(2) { OcppVersion::V16 } else { OcppVersion::V201 };
            let (seed, meter_interval_s) = (options.seed, METER_VALUES_S);
            let new = StationOptions::new(&identity(index), version);
            (Station::new(StationOptions { seed, meter_interval_s, ..new }), None)
        };
        let ahead_ms: &'static AtomicU64 = Box::leak(Box::default());
        let (journal, opened) = open(dir, options.history, ahead_ms)?;
        let mut month = Self {
            options,
            dir: dir.to_owned(),
            controller: Controller::new(setup.clone(), opened.1, true, now_at(0)),
            setup,
            journal: Some(journal),
            ahead_ms,
            stations: (0..options.stations).map(station).collect(),
            store_id: opened.0,
            boot: 1,
            connections: 0,
            ms: 0,
            dice: Dice::named(options.seed, "offline"),
            fold: Ledger::default(),
            appended: Sequence(0),
            durable: Sequence(0),
            expected: Vec::new(),
            transactions: 0,
            delivered: 0,
        };
        month.cloud_is_away()?;
        Ok(month)
    }

    fn cloud_is_away(&mut self) -> Result<(), String> {
        let error = "connection refused".to_owned();
        self.tell(Input::Cloud(CloudInput::Disconnected { error }))
    }

    fn run_day(&mut self) -> Result<(), String> {
        let end = self.ms + DAY_MS;
        while self.ms < end {
            self.ms += STEP_MS;
            for index in 0..self.stations.len() {
                self.visit(index);
                self.connect(StationIndex(index))?;
                let frames = self.stations[index].0.tick(now_at(self.ms));
                self.frames_of(StationIndex(index), frames)?;
            }
            self.tell(Input::Tick)?;
            self.settle()?;
        }
        Ok(())
    }

    /// A car comes at the beginning of each eighth of a day, some minutes sooner or later, and stays for some two thirds of it.
    fn visit(&mut self, index: usize) {
        let (every, now) = (DAY_MS / self.options.a_day.max(1), now_at(self.ms));
        let shift = u64::try_from(index).unwrap_or(0) * 397_000 % every;
        let at = (self.ms + shift) % every;
        let station = &mut self.stations[index].0;
        if at < STEP_MS {
            let car = Car::new(CarOptions {
                battery_wh: i64::try_from(self.dice.between(20_000, 90_000)).unwrap_or(60_000),
                arrives_percent: i64::try_from(self.dice.between(10, 80)).unwrap_or(50),
                max: Current::from_a(16),
                ..CarOptions::default()
            });
            // Nobody is there: the one before has left.
            let _ = station.plug_in(1, car, Some("ANNA"));
        } else if at >= every * 2 / 3 && station.car(1).is_some() {
            station.unplug(1, now);
        }
    }

    fn connect(&mut self, station: StationIndex) -> Result<(), String> {
        if self.stations[station.0].1.is_some() {
            return Ok(());
        }
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        let (model, held) = &mut self.stations[station.0];
        *held = Some(connection);
        let version = model.options().version;
        let frames = model.connected(now_at(self.ms));
        self.tell(Input::StationConnected { station, connection, version })?;
        self.frames_of(station, frames)
    }

    fn frames_of(&mut self, station: StationIndex, frames: Vec<String>) -> Result<(), String> {
        for text in frames {
            if let Some(connection) = self.stations[station.0].1 {
                self.tell(Input::StationFrame { station, connection, text })?;
            }
        }
        Ok(())
    }

    /// Tells the controller; what it wants of journal and stations is done before this comes back.
    fn tell(&mut self, input: Input) -> Result<(), String> {
        let (mut inputs, mut outputs) = (VecDeque::from([input]), Vec::new());
        while let Some(input) = inputs.pop_front() {
            self.controller.handle(input, now_at(self.ms), &mut outputs);
            let mut records = Vec::new();
            for output in outputs.drain(..) {
                match output {
                    Output::Append(record) => records.push(record),
                    Output::Frame { station, connection, text } => {
                        self.frame_to(station, connection, &text, &mut inputs);
                    }
                    Output::Snapshot { through, state } => {
                        // Behind the records that it stands for.
                        self.append(std::mem::take(&mut records))?;
                        self.handle()?.snapshot(through, state).map_err(|error| error.to_string())?;
                    }
                    Output::ReadRecords { from, limit } => inputs.extend(self.read(from, limit)?),
                    Output::Acknowledged { through } => {
                        self.handle()?.acknowledged(through).map_err(|error| error.to_string())?;
                    }
                    Output::Publish(publication) => self.publish(&publication, &mut inputs)?,
                    Output::Close { station, .. } => {
                        let (model, connection) = &mut self.stations[station.0];
                        model.disconnected(now_at(self.ms));
                        *connection = None;
                    }
                    Output::Telemetry { .. }
                    | Output::ReadTelemetry { .. }
                    | Output::TelemetryAcknowledged { .. }
                    | Output::TurnAway { .. }
                    | Output::Reply { .. }
                    | Output::Errand { .. }
                    | Output::Commissioned(_)
                    | Output::Log { .. } => {}
                }
            }
            self.append(records)?;
        }
        Ok(())
    }

    fn frame_to(&mut self, station: StationIndex, connection: ConnectionId, text: &str, inputs: &mut VecDeque<Input>) {
        let (model, held) = &mut self.stations[station.0];
        if *held != Some(connection) {
            return;
        }
        let frames = model.receive(text, now_at(self.ms));
        inputs.extend(frames.into_iter().map(|text| Input::StationFrame { station, connection, text }));
    }

    /// Into the journal. They are durable when it says so.
    fn append(&mut self, records: Vec<Record>) -> Result<(), String> {
        let Some(last) = records.last().map(|record| record.sequence) else { return Ok(()) };
        let messages = Messages::new(PREFIX, self.setup.topology.site(), &self.store_id);
        for record in &records {
            self.fold.apply(record);
            self.transactions += u64::from(matches!(record.body, RecordBody::TransactionStarted { .. }));
            self.expected.push(hash(&messages.event(record)));
        }
        self.appended = last;
        self.handle()?.append(records).map_err(|error| error.to_string())
    }

    /// Waits until everything is durable, and does what waits for that: answers to stations, and what these say then.
    fn settle(&mut self) -> Result<(), String> {
        while self.durable < self.appended {
            // What nobody waits for lies for some seconds: they have passed. The read, which gives nothing, makes the journal look at its clock.
            self.ahead_ms.fetch_add(STEP_MS, Ordering::SeqCst);
            let mut heard = self.read(self.appended, 0)?;
            heard.retain(|said| !matches!(said, Input::Journal(JournalInput::Records { .. })));
            for said in heard {
                self.tell(said)?;
            }
        }
        Ok(())
    }

    /// What the journal says until it has answered with records: they are the last.
    fn read(&mut self, from: Sequence, limit: usize) -> Result<Vec<Input>, String> {
        self.handle()?.read(from, limit).map_err(|error| error.to_string())?;
        let mut heard = Vec::new();
        loop {
            heard.push(self.listen()?);
            if let Some(Input::Journal(JournalInput::Records { .. })) = heard.last() {
                return Ok(heard);
            }
        }
    }

    fn handle(&self) -> Result<&JournalHandle, String> {
        self.journal.as_ref().map(|(journal, _)| journal).ok_or_else(|| "the journal is closed".to_owned())
    }

    fn listen(&mut self) -> Result<Input, String> {
        let said = self.journal.as_mut().and_then(|(_, said)| said.blocking_recv());
        match said {
            Some(Input::Journal(JournalInput::Durable { through })) => {
                self.durable = through;
                Ok(Input::Journal(JournalInput::Durable { through }))
            }
            Some(said @ Input::Journal(JournalInput::Records { .. })) => Ok(said),
            Some(other) => Err(format!("the journal said {other:?}")),
            None => Err("the journal has ended".to_owned()),
        }
    }

    /// The daemon ends and starts again: everything must be there. How long the opening took, in ms.
    fn restart(&mut self) -> Result<u64, String> {
        self.settle()?;
        for (station, connection) in &mut self.stations {
            station.disconnected(now_at(self.ms));
            *connection = None;
        }
        let memory = self.controller.take_memory(now_at(self.ms));
        if let Some((journal, said)) = self.journal.take() {
            drop(said);
            journal.close();
        }
        let clock = Clock::start();
        let (journal, (store_id, mut restored)) = open(&self.dir, self.options.history, self.ahead_ms)?;
        let took_ms = clock.mono().ms();
        self.boot += 1;
        if let Some(damage) = &restored.damage {
            return Err(format!("a good store is called damaged: {damage}"));
        }
        if store_id != self.store_id || restored.boot != self.boot {
            return Err(format!(
                "start {} of store {} became start {} of {store_id}",
                self.boot, self.store_id, restored.boot
            ));
        }
        if restored.ledger != self.fold {
            return Err(format!(
                "what was restored ends at {}, not {}, or differs",
                restored.ledger.last(),
                self.fold.last()
            ));
        }
        if restored.acknowledged.0 != self.delivered {
            return Err(format!("{} are acknowledged, and {} were delivered", restored.acknowledged, self.delivered));
        }
        restored.remembered = memory;
        self.journal = Some(journal);
        self.controller = Controller::new(self.setup.clone(), restored, true, now_at(self.ms));
        self.cloud_is_away()?;
        Ok(took_ms)
    }

    /// The cloud is back and takes everything. How long it took, in ms.
    fn drain(&mut self) -> Result<u64, String> {
        let clock = Clock::start();
        self.tell(Input::Cloud(CloudInput::Connected))?;
        let last = self.fold.last().0;
        for _ in 0..1_000 {
            if self.delivered >= last {
                return Ok(clock.mono().ms());
            }
            // What a read has not brought is asked for again after a while.
            self.ms += 1_000;
            self.tell(Input::Tick)?;
            self.settle()?;
        }
        Err(format!("the cloud has {} of {last} events, and gets no more", self.delivered))
    }

    fn publish(&mut self, publication: &Publication, inputs: &mut VecDeque<Input>) -> Result<(), String> {
        let Carries::Event(sequence) = publication.carries else { return Ok(()) };
        if sequence.0 != self.delivered + 1 {
            return Err(format!("event {sequence} came after {}", self.delivered));
        }
        let expected = usize::try_from(self.delivered).ok().and_then(|index| self.expected.get(index));
        if expected != Some(&hash(publication)) {
            return Err(format!("event {sequence} is not what was written down: {}", publication.payload));
        }
        self.delivered += 1;
        inputs.push_back(Input::Cloud(CloudInput::Acknowledged { sequences: vec![sequence] }));
        Ok(())
    }

    /// Deleting goes in lots, one with each round of the journal's work. How many records are left.
    fn prune(&mut self) -> Result<u64, String> {
        self.settle()?;
        let last = self.fold.last();
        let mut first = last;
        for _ in 0..last.0 / 500 + 10 {
            if let Some(Input::Journal(JournalInput::Records { records })) = self.read(Sequence(1), 1)?.pop() {
                first = records.first().map_or(last, |record| record.sequence);
            }
        }
        let kept = last.0 + 1 - first.0;
        if kept < self.options.history.min(last.0) || kept > self.options.history + LAG {
            return Err(format!("{kept} records are kept, and the history has {}", self.options.history));
        }
        Ok(kept)
    }
}

type Running = (JournalHandle, mpsc::Receiver<Input>);

/// Opens the store as the daemon does.
fn open(dir: &Path, history: u64, ahead_ms: &'static AtomicU64) -> Result<(Running, (String, Restored)), String> {
    let opened = Journal::open(dir, history, SystemClock::ahead_by(ahead_ms)).map_err(|error| error.to_string())?;
    let Opened { journal, store_id, boot, acknowledged, last: _, snapshot, records, damage } = opened;
    let (snapshot_at, mut ledger) = match snapshot {
        Some((through, state)) => (through, Ledger::restore(&state).map_err(|error| error.to_string())?),
        None => (Sequence(0), Ledger::default()),
    };
    records.iter().for_each(|record| ledger.apply(record));
    let (inbox, said) = mpsc::channel(1_024);
    let journal = journal.start(inbox).map_err(|error| error.to_string())?;
    let restored = Restored {
        store_id: store_id.clone(),
        boot,
        ledger,
        snapshot_at,
        acknowledged,
        damage,
        remembered: None,
        cause: None,
    };
    Ok(((journal, said), (store_id, restored)))
}

fn now_at(ms: u64) -> Now {
    let utc = Utc::from_unix_ms(BEGIN + i64::try_from(ms).unwrap_or(0));
    Now { mono: Mono::from_ms(ms), utc, utc_trusted: true }
}

fn hash(event: &Publication) -> u64 {
    let mut hash = Fnv::default();
    hash.write_long(event.payload.as_bytes());
    hash.value()
}

fn identity(index: usize) -> String {
    format!("CP{:03}", index + 1)
}

/// A garage with prices and bills.
fn configuration(stations: usize) -> String {
    let mut text = r#"[site]
id = "offline"
name = "A site without a cloud"
timezone = "Europe/Berlin"

[cloud]
url = "mqtt://127.0.0.1:1883"

[authorization]
offline_unknown = "accept"

[billing]
country_code = "DE"
party_id = "ABC"
address = "Hafenstr. 5"
city = "Bremen"
country = "DEU"
latitude = "53.07929"
longitude = "8.80169"

[[tariffs]]
id = "default"
currency = "EUR"
vat_percent = "19"
prices_include_vat = true
elements = [{ energy_per_kwh = "0.49", start_fee = "0.35" }]

[[circuits]]
id = "grid"
limit_a = 800
unmeasured_load_a = 0
"#
    .to_owned();
    for index in 0..stations {
        let id = identity(index);
        text += &format!(
            "\n[[chargers]]\nid = \"{id}\"\ncircuit = \"grid\"\nmax_a = 32\nfallback_a = 6\nevse_ids = [\"DE*ABC*E{index}\"]\n"
        );
    }
    text
}
