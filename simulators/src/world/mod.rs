//! A whole site in virtual time: the real decision code among models, under faults, watched by the oracle.
//!
//! One seed, one history. Time jumps from event to event; the physical state is renewed once a second and whenever a frame
//! arrives. The controller's outputs go through links with latency, a journal that becomes durable late, and a broker that
//! may be away.

mod controller;
mod devices;
mod field;
mod options;
mod report;
mod store;

use std::collections::BTreeMap;

use siteward::engine::controller::Controller;
use siteward::engine::modbus::poll::Poll;
use siteward::engine::model::exchange::OcppVersion;
use siteward::engine::model::ids::{ConnectionId, Sequence};
use siteward::engine::model::record::Record;
use siteward::engine::model::setup::Setup;
use siteward::engine::site::io::{Input, Output};
use siteward::engine::time::{Mono, Now, Utc};
use siteward::engine::units::{Current, PerPhase, Power, Voltage};

use crate::building::Building;
use crate::cloud::CloudConsumer;
use crate::faults::{self, Fault, Planned};
use crate::meter::{Meter, MeterKind};
use crate::oracle::Oracle;
use crate::pv::Pv;
use crate::rng::{Dice, Fnv};
use field::Post;
pub use options::WorldOptions;
pub use report::WorldReport;
use store::Journal;

/// The world begins on 2026-03-01 at 06:00 UTC.
const DAWN: i64 = 1_772_344_800_000;
/// The period of the engine's tick.
const TICK_MS: u64 = 200;
/// The period of the physical world.
const STEP_MS: u64 = 1_000;
/// How long the world goes on after the last car has left, so that everything can be delivered: three tries of a transaction
/// message at 30 s, 60 s and 120 s, and some more.
const EPILOGUE_MS: u64 = 15 * 60_000;

/// Something that happens later.
#[derive(Debug)]
enum Event {
    /// A station tries to connect.
    Connect { station: usize, epoch: u64 },
    /// A frame arrives at a station.
    ToStation { station: usize, epoch: u64, text: String },
    /// A frame arrives at the controller.
    ToSite { station: usize, epoch: u64, text: String },
    /// The journal's flush ends.
    Flushed { boot: u64 },
    /// Records have been read.
    Read { boot: u64, records: Vec<Record> },
    /// The controller has connected to the broker.
    BrokerConnected { link: u64 },
    /// An event arrives at the cloud.
    Published { link: u64, sequence: Option<Sequence>, payload: String },
    /// A PUBACK arrives at the controller.
    Acknowledged { link: u64, sequence: Sequence },
    /// A fault begins.
    Begin(Planned),
    /// A fault ends.
    End(Fault),
    /// Pings of a half-open link time out.
    PingTimeout { station: usize, epoch: u64 },
}

/// What the controller is while it runs.
#[derive(Debug)]
struct Running {
    controller: Controller,
    started_ms: u64,
}

/// Since when what has been wrong: decides the grace of an overload.
#[derive(Debug, Default)]
struct Troubles {
    /// Until when the controller was away.
    controller_until: u64,
    /// Until when the meter was in trouble.
    meter_until: u64,
    /// The meter shows old values as if they were new: nobody can see an overload then.
    blind_until: u64,
    /// Until when the controller's clock was wrong.
    clock_until: u64,
}

#[derive(Debug)]
struct World {
    options: WorldOptions,
    setup: Setup,
    now_ms: u64,
    next_tick: u64,
    next_number: u64,
    events: BTreeMap<(u64, u64), Event>,
    controller: Option<Running>,
    outputs: Vec<Output>,
    boots: u64,
    connections: u64,
    clock_error_ms: i64,
    journal: Journal,
    last_transaction_record: BTreeMap<usize, u64>,
    broker_up: bool,
    broker_link: u64,
    cloud: CloudConsumer,
    posts: Vec<Post>,
    meter: Meter,
    /// Reads the meter's registers, where that is wanted.
    poll: Option<Poll>,
    building: Building,
    pv: Pv,
    dice: Dice,
    oracle: Oracle,
    troubles: Troubles,
    trace: Fnv,
    counts: report::Counts,
    cars_may_come: bool,
}

/// Runs a world to its end.
///
/// # Errors
/// If the options do not make a site.
pub fn run_world(options: WorldOptions) -> Result<WorldReport, String> {
    let mut world = World::new(options)?;
    world.run();
    Ok(world.report())
}

impl World {
    fn new(options: WorldOptions) -> Result<Self, String> {
        let setup = options.setup().map_err(|error| error.to_string())?;
        let voltage = Voltage::from_mv(230_000);
        let mut dice = Dice::named(options.seed, "world");
        let peak = PerPhase::splat(options.building_peak - Current::from_a(10));
        let mut planned = faults::by_seed(&mut dice, options.duration_ms, options.stations, options.faults_per_day);
        planned.extend_from_slice(&options.faults);
        let mut world = Self {
            setup,
            now_ms: 0,
            next_tick: 0,
            next_number: 0,
            events: BTreeMap::new(),
            controller: None,
            outputs: Vec::new(),
            boots: 0,
            connections: 0,
            clock_error_ms: 0,
            journal: Journal::default(),
            last_transaction_record: BTreeMap::new(),
            broker_up: true,
            broker_link: 0,
            cloud: CloudConsumer::default(),
            posts: (0..options.stations).map(|index| Post::new(&options, index)).collect(),
            meter: Meter::new(MeterKind::Sdm630, voltage, options.seed),
            poll: if options.meter_by_registers { Some(devices::meter_poll()?) } else { None },
            building: Building::new(
                peak,
                Current::from_a(2),
                Current::from_a(8),
                Dice::named(options.seed, "building"),
            ),
            pv: Pv::new(Power::from_w(15_000), voltage, Dice::named(options.seed, "sun")),
            dice,
            oracle: Oracle::default(),
            troubles: Troubles::default(),
            trace: Fnv::default(),
            counts: report::Counts::default(),
            cars_may_come: true,
            options,
        };
        for planned in planned {
            world.later(planned.at_ms, Event::Begin(planned));
        }
        for station in 0..world.posts.len() {
            let after = world.dice.between(500, 20_000);
            world.later(after, Event::Connect { station, epoch: 0 });
        }
        world.start_controller()?;
        Ok(world)
    }

    fn run(&mut self) {
        let faults_end = self.options.duration_ms;
        self.run_until(faults_end);
        self.cars_may_come = false;
        self.everybody_leaves();
        self.run_until(faults_end + EPILOGUE_MS);
        self.last_judgement();
    }

    fn run_until(&mut self, end_ms: u64) {
        loop {
            let next_event = self.events.first_key_value().map_or(u64::MAX, |((at, _), _)| *at);
            if next_event.min(self.next_tick) >= end_ms {
                return;
            }
            if next_event <= self.next_tick {
                if let Some(((at, _), event)) = self.events.pop_first() {
                    self.now_ms = at;
                    self.oracle.at(at);
                    self.happen(event);
                }
                continue;
            }
            self.now_ms = self.next_tick;
            self.oracle.at(self.now_ms);
            self.tick();
            self.next_tick += TICK_MS;
        }
    }

    fn tick(&mut self) {
        if self.now_ms.is_multiple_of(STEP_MS) {
            self.step();
        }
        if self.now_ms.is_multiple_of(self.options.meter_poll_ms) {
            self.poll_meter();
        }
        if self.now_ms.is_multiple_of(5_000) {
            self.poll_inverter();
        }
        self.tell_site(Input::Tick);
    }

    fn later(&mut self, after_ms: u64, event: Event) {
        self.next_number += 1;
        self.events.insert((self.now_ms + after_ms, self.next_number), event);
    }

    /// The true time, as the stations are given it.
    fn now(&self) -> Now {
        let since_dawn = i64::try_from(self.now_ms).unwrap_or(i64::MAX);
        Now { mono: Mono::from_ms(self.now_ms), utc: Utc::from_unix_ms(DAWN + since_dawn), utc_trusted: true }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Connect { station, epoch } => self.connect(station, epoch),
            Event::ToStation { station, epoch, text } => self.frame_to_station(station, epoch, &text),
            Event::ToSite { station, epoch, text } => self.frame_to_site(station, epoch, text),
            Event::Flushed { boot } => self.flushed(boot),
            Event::Read { boot, records } => self.records_read(boot, records),
            Event::BrokerConnected { link } => self.broker_connected(link),
            Event::Published { link, sequence, payload } => self.published(link, sequence, &payload),
            Event::Acknowledged { link, sequence } => self.acknowledged(link, sequence),
            Event::Begin(planned) => self.begin(planned),
            Event::End(fault) => self.end(fault),
            Event::PingTimeout { station, epoch } => {
                if self.posts[station].epoch == epoch {
                    self.disconnect(station, "ping timeout");
                }
            }
        }
    }

    fn begin(&mut self, planned: Planned) {
        self.oracle.note(|| format!("{:?} for {} s", planned.fault, planned.for_ms / 1000));
        self.counts.faults += 1;
        match planned.fault {
            Fault::LinkDown(station) => {
                self.posts[station].net.down = true;
                self.disconnect(station, "network down");
            }
            Fault::HalfOpen(station) => {
                self.posts[station].net.half_open = true;
                let epoch = self.posts[station].epoch;
                // The daemon pings every 30 s and waits for two of them.
                self.later(60_000, Event::PingTimeout { station, epoch });
            }
            Fault::LinkSlow(station, latency_ms) => self.posts[station].net.latency_ms = latency_ms,
            Fault::StationReboot(station) => {
                let now = self.now();
                self.posts[station].station.power_cycle(now);
            }
            Fault::Meter(trouble) => self.meter.set_trouble(Some(trouble)),
            Fault::ControllerCrash => self.crash(),
            Fault::BrokerDown => self.broker_lost(),
            Fault::ClockStep(error_ms) => self.clock_error_ms = error_ms,
            Fault::DiskSlow => self.journal.slow = true,
            Fault::DiskFull => self.journal.full = true,
        }
        self.later(planned.for_ms, Event::End(planned.fault));
    }

    fn end(&mut self, fault: Fault) {
        self.oracle.note(|| format!("end of {fault:?}"));
        match fault {
            Fault::LinkDown(station) => self.posts[station].net.down = false,
            Fault::HalfOpen(station) => {
                self.posts[station].net.half_open = false;
                self.disconnect(station, "connection reset");
            }
            Fault::LinkSlow(station, _) => self.posts[station].net.latency_ms = field::LATENCY_MS,
            Fault::StationReboot(_) => {}
            Fault::Meter(_) => self.meter.set_trouble(None),
            // Crashes may overlap: the first end of one brings it back.
            Fault::ControllerCrash if self.controller.is_some() => {}
            Fault::ControllerCrash => {
                if let Err(error) = self.start_controller() {
                    self.oracle.violate("restart", format!("the controller does not start again: {error}"));
                }
            }
            Fault::BrokerDown => self.broker_back(),
            Fault::ClockStep(_) => self.clock_error_ms = 0,
            Fault::DiskSlow => self.journal.slow = false,
            Fault::DiskFull => self.journal.full = false,
        }
    }

    fn report(self) -> WorldReport {
        let (above_ms, longest_above_ms) = self.oracle.above();
        WorldReport {
            seed: self.options.seed,
            duration_ms: self.now_ms,
            stations: self.posts.len(),
            faults: self.counts.faults,
            restarts: self.boots.saturating_sub(1),
            frames: self.counts.frames,
            records: self.journal.durable_through(),
            transactions: self.posts.iter().map(|post| post.station.transactions().len()).sum(),
            energy_wh: self.posts.iter().map(|post| post.station.energy_wh(1)).sum(),
            billed_wh: self.cloud.energy_wh(),
            delivered: self.cloud.received(),
            duplicates: self.cloud.duplicates(),
            above_ms,
            longest_above_ms,
            violated: self.oracle.violated(),
            violations: self.oracle.violations().to_vec(),
            trace: self.trace.value(),
        }
    }
}

/// The station's index as the engine counts.
const fn version_of(post: &Post) -> OcppVersion {
    post.station.options().version
}

/// A connection that is open, seen from both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    connection: ConnectionId,
}
