//! The physical site: stations with cars, a building, PV, meters. Its currents are the truth that everything is judged by.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use siteward::engine::time::{Mono, Now};
use siteward::engine::units::{Current, PerPhase, Phase, Power, Voltage};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::judge::CircuitRecord;
use super::layout::{CIRCUITS, STATIONS, StationPlan, TOKENS, feeds};
use super::scene::StationTruth;
use crate::building::Building;
use crate::car::{Car, CarOptions};
use crate::meter::{Meter, MeterKind};
use crate::net::clock::Clock;
use crate::net::cloud::lock;
use crate::net::station::{Link, run};
use crate::pv::Pv;
use crate::rng::Dice;
use crate::station::{Station, StationOptions, TransactionTruth};

const VOLTAGE: Voltage = Voltage::from_mv(230_000);
/// The day is that much faster than the clock: six minutes from midnight to midnight.
const DAY_SPEED: i64 = 240;
/// The demo begins at seven in the morning: people arrive, the building wakes up, the sun rises.
const MORNING_MS: i64 = 7 * 3_600_000;
const DAY_MS: i64 = 86_400_000;
/// The building's load changes every 4 minutes of its day: once a second.
const BUILDING_STEP_MS: i64 = 4 * 60_000;
/// Clouds come and go every 20 minutes of the day: every 5 s.
const CLOUD_STEP_MS: i64 = 20 * 60_000;
/// A heat pump on L2: on for the second half of every half minute.
const HEAT_PUMP: Current = Current::from_a(10);
const HEAT_PUMP_PERIOD_MS: u64 = 30_000;
/// Ventilation and light in the garage, on each phase.
const GARAGE_OTHER: Current = Current::from_a(3);
/// A station that lost its controller tries again after that time. Real ones take 10 to 60 s; a demo has less patience.
const RECONNECT: Duration = Duration::from_secs(1);

/// How long cars stay and places stay empty, in ms: from, to.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long a car stays.
    pub stays: (u64, u64),
    /// How long a place stays empty.
    pub empty: (u64, u64),
}

impl Pace {
    /// For somebody who watches.
    pub const CALM: Self = Self { stays: (40_000, 150_000), empty: (3_000, 20_000) };
    /// For a short run that has to see many transactions.
    pub const BUSY: Self = Self { stays: (8_000, 20_000), empty: (1_000, 4_000) };
}

struct Place {
    plan: &'static StationPlan,
    token: &'static str,
    model: Arc<Mutex<Station>>,
    plug: watch::Sender<bool>,
    next_change: Mono,
    /// The first car stays for good.
    stays: bool,
}

/// The site. Dropping it ends the stations' tasks.
pub struct Plant {
    clock: Clock,
    pace: Pace,
    dice: Dice,
    building: Building,
    building_now: PerPhase<Current>,
    places: Vec<Place>,
    closed: bool,
    /// The grid meter.
    pub main: Arc<Mutex<Meter>>,
    /// The meter of the garage.
    pub garage: Arc<Mutex<Meter>>,
    /// The inverter on the roof.
    pub pv: Arc<Mutex<Pv>>,
    /// What flows in each circuit, and for how long it was too much.
    pub records: Vec<CircuitRecord>,
    tasks: JoinSet<()>,
}

impl Plant {
    /// A site whose stations connect to `url`; at those named in `stay` the first car stays. Needs a tokio runtime.
    #[must_use]
    pub fn new(clock: Clock, url: &str, pace: Pace, seed: u64, stay: &[String]) -> Self {
        let dice = Dice::named(seed, "cars");
        let amperes = Current::from_a;
        let peak = PerPhase::new(amperes(36), amperes(28), amperes(32));
        let mut plant = Self {
            clock,
            pace,
            building: Building::new(peak, Current::from_ma(1_500), Current::ZERO, Dice::named(seed, "building")),
            building_now: PerPhase::splat(Current::ZERO),
            places: Vec::new(),
            closed: false,
            main: Arc::new(Mutex::new(Meter::new(MeterKind::Sdm630, VOLTAGE, seed))),
            garage: Arc::new(Mutex::new(Meter::new(MeterKind::AbbB23, VOLTAGE, seed))),
            pv: Arc::new(Mutex::new(Pv::new(Power::from_w(12_000), VOLTAGE, Dice::named(seed, "pv")))),
            records: CIRCUITS.iter().map(|plan| CircuitRecord::new(plan.id, Current::from_a(plan.limit_a))).collect(),
            tasks: JoinSet::new(),
            dice,
        };
        for (plan, token) in STATIONS.iter().zip(TOKENS) {
            let options = StationOptions {
                wiring: plan.wiring(),
                max: Current::from_a(plan.max_a),
                voltage: VOLTAGE,
                meter_interval_s: 2,
                // It tries for as long as the run lasts: what the controller does not get is the controller's fault.
                message_attempts: 10_000,
                message_interval_s: 1,
                seed,
                ..StationOptions::new(plan.id, plan.version)
            };
            let model = Arc::new(Mutex::new(Station::new(options)));
            let (plug, plugged) = watch::channel(true);
            let link = Link { url: url.to_owned(), retry: RECONNECT, plugged };
            plant.tasks.spawn(run(model.clone(), clock, link, |_| {}));
            let first = plant.dice.between(500, 6_000);
            let stays = stay.iter().any(|id| id == plan.id);
            plant.places.push(Place { plan, token, model, plug, next_change: Mono::from_ms(first), stays });
        }
        plant
    }

    /// Lets cars come and go, and takes the currents of this moment. Call it every 100 ms. Says what happened.
    pub fn step(&mut self) -> Vec<String> {
        let now = self.clock.now();
        let news = self.traffic(now);
        self.currents(now);
        news
    }

    /// The time of the simulated day in ms.
    #[must_use]
    pub fn day_ms(&self) -> i64 {
        let mono = i64::try_from(self.clock.mono().ms()).unwrap_or(0);
        MORNING_MS + mono * DAY_SPEED
    }

    /// The time of the simulated day as hours and minutes.
    #[must_use]
    pub fn time_of_day(&self) -> (i64, i64) {
        let minutes = self.day_ms().rem_euclid(DAY_MS) / 60_000;
        (minutes / 60, minutes % 60)
    }

    /// What the building draws, the garage's other loads included.
    #[must_use]
    pub const fn building(&self) -> PerPhase<Current> {
        self.building_now
    }

    /// What the inverter feeds in.
    #[must_use]
    pub fn pv_current(&self) -> PerPhase<Current> {
        lock(&self.pv).current()
    }

    /// The stations as they are.
    #[must_use]
    pub fn stations(&self) -> Vec<StationTruth> {
        let truth = |place: &Place| {
            let model = lock(&place.model);
            StationTruth {
                id: place.plan.id,
                plugged: *place.plug.borrow(),
                current: model.total_current(),
                soc_percent: model.car(1).map(Car::soc_percent),
            }
        };
        self.places.iter().map(truth).collect()
    }

    /// What each station's own profiles allow it now, per phase; `None`: nothing limits it.
    #[must_use]
    pub fn profile_limits(&self) -> Vec<(&'static str, Option<Current>)> {
        let now = self.clock.now();
        self.places.iter().map(|place| (place.plan.id, lock(&place.model).profile_limit(1, now))).collect()
    }

    /// Pulls a station's network cable, or plugs it in again. Says whether it is in now.
    pub fn toggle_cable(&self, index: usize) -> bool {
        let Some(place) = self.places.get(index) else { return false };
        place.plug.send_modify(|plugged| *plugged = !*plugged);
        *place.plug.borrow()
    }

    /// All cars leave, and none comes any more; every network cable is in.
    pub fn close(&mut self) {
        self.closed = true;
        let now = self.clock.now();
        for place in &self.places {
            place.plug.send_replace(true);
            lock(&place.model).unplug(1, now);
        }
    }

    /// How many transaction messages wait at the stations.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.places.iter().map(|place| lock(&place.model).queued()).sum()
    }

    /// The stations' own ledgers.
    #[must_use]
    pub fn ledgers(&self) -> Vec<(&'static str, Vec<TransactionTruth>)> {
        self.places.iter().map(|place| (place.plan.id, lock(&place.model).transactions().to_vec())).collect()
    }

    fn traffic(&mut self, now: Now) -> Vec<String> {
        let mut news = Vec::new();
        if self.closed {
            return news;
        }
        for place in &mut self.places {
            if now.mono < place.next_change {
                continue;
            }
            let mut model = lock(&place.model);
            if place.stays && model.car(1).is_some() {
                continue;
            }
            let (from, to) = if model.car(1).is_some() {
                model.unplug(1, now);
                news.push(format!("{}: the car leaves", place.plan.id));
                self.pace.empty
            } else {
                let mut options = some_car(&mut self.dice, place.plan);
                if place.stays {
                    // It does not become full either.
                    options = CarOptions { battery_wh: 10_000_000, max: Current::from_a(32), ..options };
                }
                news.push(format!(
                    "{}: {} plugs in a car: {} x {} A",
                    place.plan.id,
                    place.token,
                    options.phases,
                    options.max.ma() / 1000
                ));
                // It was free a moment ago, and we are the only ones who park cars.
                let _ = model.plug_in(1, Car::new(options), Some(place.token));
                self.pace.stays
            };
            place.next_change = now.mono.plus_ms(self.dice.between(from, to));
        }
        news
    }

    fn currents(&mut self, now: Now) {
        let day_ms = self.day_ms();
        let pump_on = now.mono.ms() % HEAT_PUMP_PERIOD_MS >= HEAT_PUMP_PERIOD_MS / 2;
        let pump = PerPhase::new(Current::ZERO, if pump_on { HEAT_PUMP } else { Current::ZERO }, Current::ZERO);
        let office = self.building.current(day_ms - day_ms % BUILDING_STEP_MS);
        self.building_now = office + pump + PerPhase::splat(GARAGE_OTHER);
        let pv = {
            let mut pv = lock(&self.pv);
            pv.advance(now.mono, day_ms - day_ms % CLOUD_STEP_MS);
            pv.current()
        };
        let drawn: Vec<_> =
            self.places.iter().map(|place| (place.plan.circuit, lock(&place.model).total_current())).collect();
        for record in &mut self.records {
            let below = drawn.iter().filter(|(circuit, _)| feeds(&record.id, circuit));
            let stations = below.fold(PerPhase::splat(Current::ZERO), |sum, (_, current)| sum + *current);
            let flows = match record.id.as_str() {
                "grid" => {
                    PerPhase::from_fn(|phase: Phase| stations.of(phase) + self.building_now.of(phase) - pv.of(phase))
                }
                "garage" => stations + PerPhase::splat(GARAGE_OTHER),
                _ => stations,
            };
            record.sample(flows, now.mono);
            match record.id.as_str() {
                "grid" => lock(&self.main).set_current(flows, now.mono),
                "garage" => lock(&self.garage).set_current(flows, now.mono),
                _ => {}
            }
        }
    }
}

fn some_car(dice: &mut Dice, plan: &StationPlan) -> CarOptions {
    // Most cars have three phases and 16 A; some have one, some have 32 A.
    let phases = if plan.phases.len() == 1 || dice.chance(250_000) { 1 } else { 3 };
    let max = if phases == 1 || dice.chance(500_000) { 32 } else { 16 };
    CarOptions {
        battery_wh: 60_000,
        arrives_percent: i64::try_from(dice.between(10, 60)).unwrap_or(30),
        phases,
        max: Current::from_a(max),
        reaction_ms: dice.between(300, 3_000),
        ramp_ma_per_s: 8_000,
        ..CarOptions::default()
    }
}
