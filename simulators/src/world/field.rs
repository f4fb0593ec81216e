//! The physical side of the world: stations with their links, cars that come and go, currents.

use siteward::engine::model::ids::ConnectionId;
use siteward::engine::model::topology::{CircuitIndex, StationIndex};
use siteward::engine::site::io::Input;
use siteward::engine::units::{Current, PerPhase, Phase};

use crate::car::{Car, CarOptions};
use crate::faults;
use crate::meter::DeviceTrouble;
use crate::oracle::{GRACE_HEALTHY_MS, GRACE_METER_MS, Load};
use crate::rng::Dice;
use crate::station::{Station, StationOptions};

use super::{Event, Open, STEP_MS, World, WorldOptions, version_of};

/// The usual latency of a link.
pub(super) const LATENCY_MS: u64 = 40;
/// After its lease a station may need this much longer until it draws the fallback: its own delay, the car's 5 s, the ramp.
const FALL_MS: u64 = 15_000;
/// A car that waits longer than this without any current, while nothing is wrong, is forgotten. A queue gives each
/// of those who do not fit a turn of a quarter of an hour: two turns and some more.
const LONGEST_WAIT_MS: u64 = 35 * 60_000;

/// The network between a station and the controller.
#[derive(Clone, Copy, Debug)]
pub(super) struct Net {
    pub(super) down: bool,
    pub(super) half_open: bool,
    pub(super) latency_ms: u64,
}

/// Keeps frames in order although the latency changes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pipe {
    last_ms: u64,
}

impl Pipe {
    /// How long from now a frame takes that has to arrive after the one before.
    pub(super) fn in_order(&mut self, now_ms: u64, latency_ms: u64) -> u64 {
        self.last_ms = self.last_ms.max(now_ms + latency_ms);
        self.last_ms - now_ms
    }
}

/// A station at its place in the site.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) station: Station,
    pub(super) net: Net,
    pub(super) open: Option<Open>,
    /// Counts connections: what belongs to an older one is gone.
    pub(super) epoch: u64,
    pub(super) to_station: Pipe,
    to_site: Pipe,
    dice: Dice,
    circuit: usize,
    leaves_at: u64,
    offline_since: u64,
    /// It has accepted a profile: from now on it falls back by itself.
    tamed: bool,
    hungry_since: Option<u64>,
    /// It has a quirk: it is not held to what ordinary stations do.
    odd: bool,
}

impl Post {
    pub(super) fn new(options: &WorldOptions, index: usize) -> Self {
        let mut station = StationOptions::new(&format!("CP{index:03}"), options.version(index));
        station.wiring = options.wiring(index);
        station.meter_interval_s = options.meter_values_s;
        station.seed = options.seed.wrapping_add(u64::try_from(index).unwrap_or(0));
        if let Some((_, quirks)) = options.quirks.iter().find(|(station, _)| *station == index) {
            station.quirks = quirks.clone();
        }
        Self {
            dice: Dice::named(options.seed, &format!("post {index}")),
            station: Station::new(station),
            net: Net { down: false, half_open: false, latency_ms: LATENCY_MS },
            open: None,
            epoch: 0,
            to_station: Pipe::default(),
            to_site: Pipe::default(),
            circuit: 1 + index % 2,
            leaves_at: 0,
            offline_since: 0,
            tamed: false,
            hungry_since: None,
            odd: options.quirks.iter().any(|(station, _)| *station == index),
        }
    }

    fn new_car(&mut self) -> Car {
        let dice = &mut self.dice;
        let phases = [1, 1, 2, 3, 3, 3];
        let max = [16, 16, 16, 20, 32];
        Car::new(CarOptions {
            battery_wh: i64::try_from(dice.between(20_000, 90_000)).unwrap_or(60_000),
            arrives_percent: i64::try_from(dice.between(10, 95)).unwrap_or(50),
            phases: dice.pick(&phases).copied().unwrap_or(3),
            max: Current::from_a(dice.pick(&max).copied().unwrap_or(16)),
            reaction_ms: dice.between(200, 4_500),
            ..CarOptions::default()
        })
    }
}

impl World {
    /// A station's attempt to connect; if it fails, it tries again after a while.
    pub(super) fn connect(&mut self, station: usize, epoch: u64) {
        let post = &mut self.posts[station];
        if post.epoch != epoch || post.open.is_some() {
            return;
        }
        if post.net.down || post.net.half_open || self.controller.is_none() {
            let after = post.dice.between(5_000, 20_000);
            self.later(after, Event::Connect { station, epoch });
            return;
        }
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        post.open = Some(Open { connection });
        let version = version_of(post);
        self.oracle.note(|| format!("station {station} connects"));
        self.tell_site(Input::StationConnected { station: StationIndex(station), connection, version });
        let now = self.now();
        let frames = self.posts[station].station.connected(now);
        self.send_to_site(station, frames);
    }

    /// The connection of a station ends for both sides, if there is one; it will connect again.
    pub(super) fn disconnect(&mut self, station: usize, reason: &str) {
        let now = self.now();
        let now_ms = self.now_ms;
        let post = &mut self.posts[station];
        let Some(open) = post.open.take() else { return };
        post.epoch += 1;
        post.station.disconnected(now);
        post.offline_since = now_ms;
        let (epoch, after) = (post.epoch, post.dice.between(5_000, 30_000));
        self.later(after, Event::Connect { station, epoch });
        self.oracle.note(|| format!("station {station} is disconnected: {reason}"));
        let (index, reason) = (StationIndex(station), reason.to_owned());
        self.tell_site(Input::StationDisconnected { station: index, connection: open.connection, reason });
    }

    pub(super) fn frame_to_station(&mut self, station: usize, epoch: u64, text: &str) {
        let now = self.now();
        let post = &mut self.posts[station];
        if post.epoch != epoch || post.net.half_open {
            return;
        }
        let frames = post.station.receive(text, now);
        if text.contains("\"SetChargingProfile\"") {
            let limit = post.station.profile_limit(1, now);
            post.tamed |= limit.is_some();
            let identity = &post.station.options().identity;
            self.oracle.no_offer_between_zero_and_minimum(identity, 1, limit);
        }
        self.send_to_site(station, frames);
        self.close_if_wanted(station);
    }

    fn send_to_site(&mut self, station: usize, frames: Vec<String>) {
        for text in frames {
            self.counts.frames += 1;
            let post = &mut self.posts[station];
            if post.open.is_none() || post.net.half_open {
                continue;
            }
            let after = post.to_site.in_order(self.now_ms, post.net.latency_ms);
            let epoch = post.epoch;
            self.later(after, Event::ToSite { station, epoch, text });
        }
    }

    fn close_if_wanted(&mut self, station: usize) {
        if self.posts[station].station.take_close() {
            self.disconnect(station, "the station reboots");
        }
    }

    /// A second of physics.
    pub(super) fn step(&mut self) {
        let now = self.now();
        let each_minute = self.now_ms.is_multiple_of(60_000);
        for station in 0..self.posts.len() {
            if each_minute {
                self.cars_come_and_go(station);
            }
            let frames = self.posts[station].station.tick(now);
            if !frames.is_empty() {
                self.send_to_site(station, frames);
            }
            self.close_if_wanted(station);
        }
        self.note_troubles();
        self.look_at_circuits();
        self.look_at_stations();
    }

    fn cars_come_and_go(&mut self, station: usize) {
        let now = self.now();
        let (now_ms, per_day, may_come) = (self.now_ms, self.options.cars_per_day, self.cars_may_come);
        let post = &mut self.posts[station];
        if post.station.car(1).is_some() {
            if now_ms >= post.leaves_at {
                post.station.unplug(1, now);
            }
        } else if may_come && post.dice.chance(per_day * 1_000_000 / 1_440) {
            let car = post.new_car();
            post.leaves_at = now_ms + post.dice.between(5, 150) * 60_000;
            let taken = post.station.plug_in(1, car, Some(&WorldOptions::token(station)));
            debug_assert!(taken.is_ok(), "the place was free");
        }
    }

    pub(super) fn everybody_leaves(&mut self) {
        let now = self.now();
        for post in &mut self.posts {
            post.station.unplug(1, now);
        }
    }

    fn note_troubles(&mut self) {
        let now_ms = self.now_ms;
        if self.controller.is_none() {
            self.troubles.controller_until = now_ms;
        }
        match self.meter.trouble() {
            Some(DeviceTrouble::Frozen) => self.troubles.blind_until = now_ms,
            Some(DeviceTrouble::Silent | DeviceTrouble::Exception(_) | DeviceTrouble::Garbage) => {
                self.troubles.meter_until = now_ms;
            }
            None => {}
        }
        if self.clock_error_ms != 0 {
            self.troubles.clock_until = now_ms;
        }
    }

    /// The currents of all circuits, the grid connection first.
    fn currents(&mut self) -> [(PerPhase<Current>, PerPhase<Current>); 3] {
        let now = self.now();
        let none = (PerPhase::splat(Current::ZERO), PerPhase::splat(Current::ZERO));
        let mut circuits = [none; 3];
        for post in &self.posts {
            let drawn = post.station.total_current();
            for index in [0, post.circuit] {
                circuits[index].0 += drawn;
                circuits[index].1 += drawn;
            }
        }
        self.pv.advance(now.mono, now.utc.unix_ms());
        let background = self.building.current(now.utc.unix_ms()) - self.pv.current();
        circuits[0].0 += background;
        circuits
    }

    fn look_at_circuits(&mut self) {
        let now = self.now();
        let circuits = self.currents();
        self.meter.set_current(circuits[0].0, now.mono);
        for (index, (total, charging)) in circuits.into_iter().enumerate() {
            let limit = self.setup.topology.circuit(CircuitIndex(index)).limit;
            if self.oracle.is_calm() && Phase::ALL.iter().all(|phase| total.of(*phase) <= limit.of(*phase)) {
                continue;
            }
            let grace_ms = self.grace_ms(index);
            for phase in Phase::ALL {
                let circuit = self.setup.topology.circuit(CircuitIndex(index)).id.as_str();
                let (total, charging, limit) = (total.of(phase), charging.of(phase), limit.of(phase));
                let load = Load { circuit, phase, total, charging, limit, grace_ms };
                self.oracle.no_circuit_above_its_limit_longer_than_its_grace(load, STEP_MS);
            }
        }
    }

    /// How long a circuit may be above its limit, by what is or was wrong: what cannot be told to a station holds until its lease
    /// has run out.
    fn grace_ms(&self, circuit: usize) -> u64 {
        let lease = self.options.lease_ms + FALL_MS;
        let recent = |until: u64| until > 0 && self.now_ms - until < GRACE_METER_MS;
        if self.troubles.blind_until > 0 && self.now_ms - self.troubles.blind_until < GRACE_HEALTHY_MS {
            return u64::MAX;
        }
        let out_of_reach = self.posts.iter().any(|post| {
            let below = circuit == 0 || post.circuit == circuit;
            below && (post.open.is_none() || post.net.half_open || post.net.latency_ms > LATENCY_MS || post.odd)
        });
        if out_of_reach || recent(self.troubles.controller_until) || recent(self.troubles.clock_until) {
            return lease;
        }
        if recent(self.troubles.meter_until) { GRACE_METER_MS } else { GRACE_HEALTHY_MS }
    }

    fn look_at_stations(&mut self) {
        let lease = self.options.lease_ms + FALL_MS;
        let fallback = self.options.fallback();
        let now_ms = self.now_ms;
        let calm =
            now_ms > self.options.duration_ms.saturating_sub(faults::QUIET_MS) && self.options.duration_ms > now_ms;
        for post in &mut self.posts {
            let Some(car) = post.station.car(1) else {
                post.hungry_since = None;
                continue;
            };
            let gone = post.open.is_none() && now_ms.saturating_sub(post.offline_since) > lease;
            if gone && post.tamed && !post.odd {
                self.oracle.stations_fall_to_fallback_when_the_controller_is_gone(&post.station, 1, fallback);
            }
            let hungry = calm && !car.is_full() && car.current() == Current::ZERO && !post.odd;
            if !hungry {
                post.hungry_since = None;
                continue;
            }
            let waited = now_ms - *post.hungry_since.get_or_insert(now_ms);
            if waited > LONGEST_WAIT_MS {
                post.hungry_since = Some(now_ms);
                self.oracle.after_faults_end_everyone_charges(&post.station.options().identity, 1, waited);
            }
        }
    }

    /// Everything that has to be so once all is over.
    pub(super) fn last_judgement(&mut self) {
        let (missing, last) = (self.cloud.missing(), self.cloud.last());
        self.oracle.the_cloud_has_every_event(missing, last, self.journal.durable_through());
        for post in &self.posts {
            let identity = &post.station.options().identity;
            for truth in post.station.transactions() {
                let id = truth.id.clone().unwrap_or_default();
                let cloud = self.cloud.transactions().get(&(identity.clone(), id));
                self.oracle.every_started_transaction_reaches_the_cloud_exactly_once(identity, truth, cloud);
                if let Some(cloud) = cloud {
                    self.oracle.energy_billed_equals_energy_metered(identity, truth, cloud);
                }
            }
            if post.station.queued() > 0 {
                let what = format!("{identity} still keeps {} messages", post.station.queued());
                self.oracle.violate("every_started_transaction_reaches_the_cloud_exactly_once", what);
            }
        }
    }
}
