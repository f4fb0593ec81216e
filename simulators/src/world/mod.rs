//! A whole site in virtual time: the real decision code among models, under faults, watched by the oracle.
//!
//! One seed, one history. Time jumps from event to event; the physical state is renewed once a second and whenever a frame
//! arrives. The controller's outputs go through links with latency, a journal that becomes durable late, and a broker that
//! may be away.

pub mod blueprint;
mod cloud_side;
mod controller;
mod devices;
mod field;
pub mod invent;
mod judge;
mod options;
mod prices;
mod report;
mod ring;
pub mod scenario;
pub mod shrink;
pub mod soak;
mod store;
pub mod tamper;
mod turns;

use std::collections::BTreeMap;

use siteward::engine::controller::Controller;
use siteward::engine::modbus::poll::Poll;
use siteward::engine::model::ids::Sequence;
use siteward::engine::model::reading::MeterReading;
use siteward::engine::model::record::Record;
use siteward::engine::model::setup::Setup;
use siteward::engine::site::io::{Input, JournalInput, Output, TelemetryInput};
use siteward::engine::time::{Mono, Now, Utc};
use siteward::engine::units::{Current, PerPhase, Power, Voltage};

use crate::building::{Appliances, Building};
use crate::cloud::CloudConsumer;
use crate::faults::{self, Fault, Planned};
use crate::meter::{Meter, MeterKind};
use crate::oracle::Oracle;
use crate::pv::Pv;
use crate::rng::{Dice, Fnv};
use blueprint::{Blueprint, LoadPlan};
use cloud_side::Outside;
use field::Post;
use judge::{MeterTrouble, Utilisation};
pub use options::WorldOptions;
pub use report::WorldReport;
use ring::Ring;
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

/// How long a controller without a clock waits until somebody tells it the time.
const TIME_TOLD_MS: u64 = 10 * 60_000;

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
    Published { link: u64, sequence: Sequence, payload: String },
    /// The telemetry ring answers.
    RingSaid { boot: u64, said: TelemetryInput },
    /// An interval of the telemetry arrives at the cloud.
    IntervalPublished { link: u64, interval: u64, payload: String },
    /// Its PUBACK arrives at the controller.
    IntervalTaken { link: u64, interval: u64 },
    /// A PUBACK arrives at the controller.
    Acknowledged { link: u64, sequence: Sequence },
    /// A fault begins.
    Begin(Planned),
    /// A fault ends.
    End(Fault),
    /// Pings of a half-open link time out.
    PingTimeout { station: usize, epoch: u64 },
    /// The next command of a storm of limits.
    Storm { circuit: usize, watts: bool, until_ms: u64 },
    /// The grid operator dims the site, or no longer.
    Dim { active: bool },
    /// Somebody tells the controller the time.
    ClockKnown,
    /// The controller is told that a record is durable, and that is a lie.
    FlushedInName { sequence: Sequence },
}

/// What the controller is while it runs.
#[derive(Debug)]
struct Running {
    controller: Controller,
    started_ms: u64,
    /// When it was told something last.
    told_at: Now,
}

#[derive(Debug)]
struct World {
    site: Blueprint,
    setup: Setup,
    now_ms: u64,
    next_tick: u64,
    next_number: u64,
    events: BTreeMap<(u64, u64), Event>,
    controller: Option<Running>,
    /// It stands still until then; what comes meanwhile waits.
    paused_until: Option<u64>,
    inbox: Vec<Input>,
    without_clock: bool,
    outputs: Vec<Output>,
    boots: u64,
    connections: u64,
    clock_error_ms: i64,
    journal: Journal,
    ring: Ring,
    last_transaction_record: BTreeMap<usize, u64>,
    broker_up: bool,
    /// The controller knows that it is connected.
    broker_told: bool,
    broker_link: u64,
    cloud: CloudConsumer,
    commands: u64,
    commands_twice: bool,
    /// What the cloud has limited each circuit to, and since when.
    limits_from_outside: Vec<Option<(Outside, u64)>>,
    /// Since when the grid operator dims the site.
    dimmed_since: Option<u64>,
    posts: Vec<Post>,
    meters: Vec<Meter>,
    meter_troubles: Vec<MeterTrouble>,
    /// What each meter said last, where somebody is to be deceived with it.
    last_readings: Vec<Option<MeterReading>>,
    /// Read the meters' registers, where that is wanted.
    polls: Vec<Poll>,
    /// What draws in each circuit itself.
    loads: Vec<Option<(Building, Appliances)>>,
    /// What flows in each circuit without stations.
    backgrounds: Vec<PerPhase<Current>>,
    pv: Option<Pv>,
    dice: Dice,
    oracle: Oracle,
    utilisation: Utilisation,
    longest_wait_ms: u64,
    /// Nothing but cars can change what the queue says.
    is_steady: bool,
    trace: Fnv,
    counts: report::Counts,
    cars_may_come: bool,
}

/// Runs a world to its end.
///
/// # Errors
/// If the options do not make a site.
pub fn run_world(options: &WorldOptions) -> Result<WorldReport, String> {
    run_site(options.blueprint())
}

/// Runs a site to its end.
///
/// # Errors
/// If the blueprint does not make a site.
pub fn run_site(site: Blueprint) -> Result<WorldReport, String> {
    let mut world = World::new(site)?;
    world.run();
    Ok(world.report())
}

/// Runs a site to its end; a panic of the engine is a broken promise like any other.
///
/// # Errors
/// If the blueprint does not make a site.
pub fn judge_site(site: &Blueprint) -> Result<WorldReport, String> {
    let site = site.clone();
    let (seed, stations) = (site.seed, site.station.len());
    std::panic::catch_unwind(|| run_site(site)).unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<String>().cloned();
        let what = what.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
        Ok(WorldReport::of_panic(seed, stations, what))
    })
}

const VOLTAGE: Voltage = Voltage::from_mv(230_000);

fn load(plan: &LoadPlan, seed: u64, circuit: usize) -> (Building, Appliances) {
    let amps = Current::from_a;
    let peak = PerPhase::splat(amps(plan.peak_a));
    let dice = |name: &str| Dice::named(seed, &format!("{name} {circuit}"));
    let building = Building::new(peak, Current::from_ma(plan.noise_ma), Current::ZERO, dice("building"));
    (building, Appliances::new(amps(plan.kettle_a), amps(plan.lift_a), amps(plan.oven_a), dice("appliances")))
}

impl World {
    fn new(site: Blueprint) -> Result<Self, String> {
        let setup = site.setup()?;
        let seed = site.seed;
        let polls = if site.by_registers { site.meter.len() } else { 0 };
        let circuits = site.circuit.len();
        let planned: Vec<Planned> = site.fault.iter().map(faults::FaultFile::planned).collect::<Result<_, _>>()?;
        let meter =
            |plan: &blueprint::MeterPlan| Meter::new(MeterKind::Sdm630, VOLTAGE, seed).refreshed_every(plan.refresh_ms);
        let mut world = Self {
            setup,
            now_ms: 0,
            next_tick: 0,
            next_number: 0,
            events: BTreeMap::new(),
            controller: None,
            paused_until: None,
            inbox: Vec::new(),
            without_clock: false,
            outputs: Vec::new(),
            boots: 0,
            connections: 0,
            clock_error_ms: 0,
            journal: Journal::default(),
            ring: Ring::default(),
            last_transaction_record: BTreeMap::new(),
            broker_up: true,
            broker_told: false,
            broker_link: 0,
            cloud: CloudConsumer::default(),
            commands: 0,
            commands_twice: false,
            limits_from_outside: vec![None; circuits],
            dimmed_since: None,
            posts: (0..site.station.len()).map(|index| Post::new(&site, index)).collect::<Result<_, _>>()?,
            meters: site.meter.iter().map(meter).collect(),
            meter_troubles: vec![MeterTrouble::default(); site.meter.len()],
            last_readings: vec![None; site.meter.len()],
            polls: (0..polls).map(|_| devices::meter_poll()).collect::<Result<_, _>>()?,
            loads: site
                .circuit
                .iter()
                .enumerate()
                .map(|(index, plan)| Some(load(plan.load.as_ref()?, seed, index)))
                .collect(),
            backgrounds: vec![PerPhase::splat(Current::ZERO); circuits],
            pv: site.pv.map(|plan| Pv::new(Power::from_w(plan.peak_w), VOLTAGE, Dice::named(seed, "sun"))),
            dice: Dice::named(seed, "world"),
            oracle: Oracle::default(),
            utilisation: Utilisation::default(),
            longest_wait_ms: judge::patience_ms(&site),
            is_steady: turns::is_steady(&site),
            trace: Fnv::default(),
            counts: report::Counts::default(),
            cars_may_come: true,
            site,
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
        let end = self.site.duration_ms();
        self.run_until(end);
        self.cars_may_come = false;
        self.everybody_leaves();
        self.run_until(end + EPILOGUE_MS);
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
        if self.paused_until.is_some() {
            return;
        }
        self.poll_meters();
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
            Event::RingSaid { boot, said } => self.ring_said(boot, said),
            Event::IntervalPublished { link, interval, payload } => self.interval_published(link, interval, &payload),
            Event::IntervalTaken { link, interval } => self.interval_taken(link, interval),
            Event::Begin(planned) => self.begin(planned),
            Event::End(fault) => self.end(fault),
            Event::PingTimeout { station, epoch } => {
                if self.posts[station].epoch == epoch {
                    self.disconnect(station, "ping timeout");
                }
            }
            Event::Storm { circuit, watts, until_ms } => self.storm((circuit, watts), until_ms),
            Event::Dim { active } => self.dim(active),
            Event::FlushedInName { sequence } => {
                self.tell_site(Input::Journal(JournalInput::Durable { through: sequence }));
            }
            Event::ClockKnown => self.without_clock = false,
        }
    }

    fn begin(&mut self, planned: Planned) {
        self.oracle.note(|| format!("{:?} for {} s", planned.fault, planned.for_ms / 1000));
        *self.counts.faults.entry(planned.fault.name()).or_default() += 1;
        let now = self.now();
        match planned.fault {
            Fault::LinkDown(station) => self.unplug(station),
            Fault::Partition(first, count) => (first..first + count).for_each(|station| self.unplug(station)),
            Fault::HalfOpen(station) => {
                self.posts[station].net.half_open = true;
                self.await_ping(station);
            }
            Fault::LinkStall(station) => {
                self.posts[station].net.stalled = true;
                self.await_ping(station);
            }
            Fault::LinkSlow(station, latency_ms) => self.posts[station].net.latency_ms = latency_ms,
            Fault::StationReboot(station) => {
                self.posts[station].station.power_cycle(now);
                self.close_if_wanted(station);
            }
            Fault::ProfilesLost(station) => self.lose_profiles(station),
            Fault::Odd(station, oddity) => self.posts[station].behave(Some(oddity)),
            Fault::Meter(meter, trouble) => self.meters[meter].set_trouble(Some(trouble)),
            Fault::Inverter(trouble) => self.pv.iter_mut().for_each(|pv| pv.set_trouble(Some(trouble))),
            Fault::ControllerCrash | Fault::BootWithoutClock => self.crash(),
            Fault::ControllerPause => {
                if self.controller.is_some() {
                    self.paused_until = Some(self.now_ms + planned.for_ms);
                }
            }
            Fault::BrokerDown => self.broker_lost(),
            Fault::CommandsTwice => self.commands_twice = true,
            Fault::LimitStorm(circuit) => self.storm((circuit, false), self.now_ms + planned.for_ms),
            Fault::PowerStorm(circuit) => self.storm((circuit, true), self.now_ms + planned.for_ms),
            Fault::Dimmed => self.dim(true),
            Fault::ClockStep(error_ms) => self.clock_error_ms = error_ms,
            Fault::DiskSlow => self.journal.slow = true,
            Fault::DiskFull => self.journal.refuses = Some("no space left on device"),
            Fault::DiskReadOnly => self.journal.refuses = Some("read-only file system"),
        }
        self.later(planned.for_ms, Event::End(planned.fault));
    }

    fn unplug(&mut self, station: usize) {
        self.posts[station].net.down = true;
        self.disconnect(station, "network down");
    }

    /// The daemon pings every 30 s and waits for two of them.
    fn await_ping(&mut self, station: usize) {
        let epoch = self.posts[station].epoch;
        self.later(60_000, Event::PingTimeout { station, epoch });
    }

    fn lose_profiles(&mut self, station: usize) {
        let until = self.now_ms + self.posts[station].plan.renew_s * 1000;
        let post = &mut self.posts[station];
        post.station.forget_profiles();
        post.tamed = false;
        post.unsure_until = post.unsure_until.max(until);
    }

    fn end(&mut self, fault: Fault) {
        self.oracle.note(|| format!("end of {fault:?}"));
        match fault {
            Fault::LinkDown(station) => self.posts[station].net.down = false,
            Fault::Partition(first, count) => {
                (first..first + count).for_each(|station| self.posts[station].net.down = false);
            }
            Fault::HalfOpen(station) => {
                self.posts[station].net.half_open = false;
                self.disconnect(station, "connection reset");
            }
            Fault::LinkStall(station) => {
                self.posts[station].net.stalled = false;
                self.flow_again(station);
            }
            Fault::LinkSlow(station, _) => self.posts[station].net.latency_ms = field::LATENCY_MS,
            Fault::StationReboot(_) | Fault::ProfilesLost(_) | Fault::LimitStorm(_) | Fault::PowerStorm(_) => {}
            Fault::Dimmed => self.dim(false),
            Fault::Odd(station, _) => {
                let post = &mut self.posts[station];
                post.behave(None);
                post.unsure_until = self.now_ms + post.plan.renew_s * 1000 + judge::CALL_MS;
            }
            Fault::Meter(meter, _) => self.meters[meter].set_trouble(None),
            Fault::Inverter(_) => self.pv.iter_mut().for_each(|pv| pv.set_trouble(None)),
            // Crashes may overlap: the first end of one brings it back.
            Fault::ControllerCrash | Fault::BootWithoutClock if self.controller.is_some() => {}
            Fault::ControllerCrash => self.come_back(),
            Fault::BootWithoutClock => {
                self.without_clock = true;
                self.come_back();
                self.later(TIME_TOLD_MS, Event::ClockKnown);
            }
            Fault::ControllerPause => self.resume(),
            Fault::BrokerDown => self.broker_back(),
            Fault::CommandsTwice => self.commands_twice = false,
            Fault::ClockStep(_) => self.clock_error_ms = 0,
            Fault::DiskSlow => self.journal.slow = false,
            Fault::DiskFull | Fault::DiskReadOnly => self.journal.refuses = None,
        }
    }

    fn come_back(&mut self) {
        if let Err(error) = self.start_controller() {
            self.oracle.violate("restart", format!("the controller does not start again: {error}"));
        }
    }

    fn report(self) -> WorldReport {
        let (above_ms, worst) = self.oracle.above();
        let truths = || self.posts.iter().flat_map(|post| post.station.transactions());
        let energy = |post: &Post| (1..=post.plan.evses).map(|evse| post.station.energy_wh(evse)).sum::<i64>();
        WorldReport {
            seed: self.site.seed,
            alarms: self.counts.alarms,
            duration_ms: self.now_ms,
            stations: self.posts.len(),
            faults: self.counts.faults,
            restarts: self.boots.saturating_sub(1),
            frames: self.counts.frames,
            cuts: self.counts.cuts,
            records: self.journal.durable_through(),
            transactions: self.posts.iter().map(|post| post.station.transactions().len()).sum(),
            costs_shown: truths().map(|truth| truth.costs_shown).sum(),
            final_costs: truths().filter(|truth| truth.final_cost.is_some()).count(),
            energy_wh: self.posts.iter().map(energy).sum(),
            billed_wh: self.cloud.energy_wh(),
            delivered: self.cloud.received(),
            duplicates: self.cloud.duplicates(),
            above_ms,
            worst,
            utilisation: (self.utilisation.sum, self.utilisation.samples),
            unused: self.utilisation.unused,
            turns: self.counts.turns,
            violated: self.oracle.violated(),
            violations: self.oracle.violations().to_vec(),
            trace: self.trace.value(),
        }
    }
}
