//! The physical side of the world: stations with their links, cars that come and go.

use siteward::engine::model::ids::ConnectionId;
use siteward::engine::model::topology::{self, StationIndex};
use siteward::engine::site::io::Input;
use siteward::engine::units::{Current, PerPhase, Phase};

use crate::car::{Car, CarOptions};
use crate::faults::Oddity;
use crate::rng::Dice;
use crate::station::{OwnTokens, Quirks, Station, StationOptions};

use super::blueprint::{Blueprint, DcPlan, StationPlan, identity, on_three_phases, token};
use super::tamper::{Tampered, tamper};
use super::{Event, World, prices, scenario};

/// The usual latency of a link.
pub(super) const LATENCY_MS: u64 = 40;

/// A driver sees after so long that the car does not charge any more.
const DRIVER_MS: u64 = 5 * 60_000;

/// The least that a car takes at a DC output, in W.
const DC_LEAST_W: i64 = 2_000;
/// A car at a DC output goes from nothing to its most, and back, in so long.
pub(super) const DC_RAMP_MS: u64 = 8_000;

/// The network between a station and the controller.
#[derive(Clone, Copy, Debug)]
pub(super) struct Net {
    pub(super) down: bool,
    pub(super) half_open: bool,
    pub(super) stalled: bool,
    pub(super) latency_ms: u64,
}

impl Net {
    /// Whether frames go through as they should.
    pub(super) const fn is_well(self) -> bool {
        !self.down && !self.half_open && !self.stalled && self.latency_ms <= LATENCY_MS
    }
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

/// A frame that a stalled link holds back.
#[derive(Clone, Debug)]
pub(super) enum Held {
    ToStation(String),
    ToSite(String),
}

/// One place for a car.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub(super) leaves_at: u64,
    /// Its transaction has ended although the car is still here.
    pub(super) ended_since: Option<u64>,
    pub(super) hungry_since: Option<u64>,
    /// Its turn begins by then, as the controller said.
    pub(super) starts_by: Option<u64>,
}

/// A station at its place in the site.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) station: Station,
    pub(super) plan: StationPlan,
    /// The same as the controller knows it.
    pub(super) settings: topology::Station,
    /// The grid phases that the controller counts it on.
    pub(super) phases: Vec<Phase>,
    /// Its circuit and those above.
    pub(super) path: Vec<usize>,
    pub(super) net: Net,
    pub(super) connection: Option<ConnectionId>,
    /// Counts connections: what belongs to an older one is gone.
    pub(super) epoch: u64,
    pub(super) to_station: Pipe,
    pub(super) to_site: Pipe,
    pub(super) held: Vec<Held>,
    pub(super) dice: Dice,
    pub(super) places: Vec<Place>,
    /// How many cars are here.
    pub(super) cars: usize,
    pub(super) offline_since: u64,
    /// It has accepted a profile: from now on it falls back by itself.
    pub(super) tamed: bool,
    /// What is odd about it for a while.
    pub(super) oddity: Option<Oddity>,
    /// What is odd about it for ever.
    pub(super) quirks: Quirks,
    /// When it last could not be told, or did not do what it was told.
    pub(super) sick_at: Option<u64>,
    /// Until when its profiles may not be what the controller believes.
    pub(super) unsure_until: u64,
    /// Until when the controller may not know that its clock was set.
    pub(super) clock_unsure_until: u64,
    /// It has refused a pause: the controller gives it its minimum from then on.
    pub(super) shuns_pause: bool,
    /// How far its clock was off when it was last looked at.
    pub(super) clock_off_ms: i64,
}

impl Post {
    pub(super) fn new(site: &Blueprint, index: usize) -> Result<Self, String> {
        let plan = site.station[index].clone();
        let mut options = StationOptions::new(&identity(plan.number), plan.version());
        options.wiring = plan.wiring()?;
        options.evses = plan.evses;
        options.max = plan.dc.map_or(Current::from_a(plan.max_a), |dc| on_three_phases(dc.max_w));
        options.rectifier = plan.dc.as_ref().map(DcPlan::rectifier);
        options.levels = plan.levels_a.iter().copied().map(Current::from_a).collect();
        options.reaction_ms = plan.reaction_ms;
        options.meter_interval_s = plan.meter_values_s;
        options.seed = site.seed.wrapping_add(u64::try_from(plan.number).unwrap_or(0));
        // A list of all drivers goes in several pieces.
        options.own_tokens = site.local_lists.then_some(OwnTokens { room: 100, per_message: 3, unknown_may: false });
        options.shows_costs = prices::shows_costs(site, &plan);
        if let Some(odd) = &plan.odd {
            options.quirks = scenario::quirks(odd, plan.odd_ms)?;
        }
        let phases = plan.configured_wiring()?.phases().iter().collect();
        Ok(Self {
            dice: Dice::named(site.seed, &format!("post {}", plan.number)),
            quirks: options.quirks.clone(),
            station: Station::new(options),
            phases,
            path: site.path(plan.circuit).collect(),
            net: Net { down: false, half_open: false, stalled: false, latency_ms: LATENCY_MS },
            connection: None,
            epoch: 0,
            to_station: Pipe::default(),
            to_site: Pipe::default(),
            held: Vec::new(),
            places: (0..plan.evses).map(|_| Place::default()).collect(),
            cars: 0,
            offline_since: 0,
            tamed: false,
            oddity: None,
            sick_at: None,
            unsure_until: 0,
            clock_unsure_until: 0,
            clock_off_ms: 0,
            shuns_pause: false,
            settings: plan.configured()?,
            plan,
        })
    }

    fn new_car(&mut self, phases: &[usize]) -> Car {
        let dice = &mut self.dice;
        if let Some(dc) = self.plan.dc {
            let most_w = dice.pick(&[50_000, 100_000, 150_000]).copied().unwrap_or(50_000).min(dc.max_w);
            let max = on_three_phases(most_w);
            return Car::new(CarOptions {
                battery_wh: i64::try_from(dice.between(40_000, 110_000)).unwrap_or(60_000),
                arrives_percent: i64::try_from(dice.between(5, 80)).unwrap_or(50),
                phases: 3,
                max,
                min: on_three_phases(DC_LEAST_W),
                reaction_ms: dice.between(200, 4_500),
                ramp_ma_per_s: i64::from(max.ma()) * 1_000 / i64::try_from(DC_RAMP_MS).unwrap_or(1),
                ..CarOptions::default()
            });
        }
        let max = [16, 16, 16, 20, 32];
        Car::new(CarOptions {
            battery_wh: i64::try_from(dice.between(20_000, 90_000)).unwrap_or(60_000),
            arrives_percent: i64::try_from(dice.between(10, 95)).unwrap_or(50),
            phases: dice.pick(phases).copied().unwrap_or(3),
            max: Current::from_a(dice.pick(&max).copied().unwrap_or(16)),
            reaction_ms: dice.between(200, 4_500),
            ..CarOptions::default()
        })
    }

    /// A driver whose transaction was ended, because the station drew more than it may, comes back after a while and holds the card up
    /// again. A station begins nothing anew by itself.
    fn begin_again(&mut self, evse: u32, now_ms: u64) {
        let place = &mut self.places[usize::try_from(evse - 1).unwrap_or(0)];
        if !self.station.is_finishing(evse) {
            place.ended_since = None;
            return;
        }
        if now_ms - *place.ended_since.get_or_insert(now_ms) >= DRIVER_MS {
            self.station.hold_up(evse, &token(self.plan.number, evse));
        }
    }

    /// Begins or ends an oddity.
    pub(super) fn behave(&mut self, oddity: Option<Oddity>) {
        self.oddity = oddity;
        let mut quirks = self.quirks.clone();
        match oddity {
            Some(Oddity::IgnoresLimit) => quirks.ignores_limit = true,
            Some(Oddity::RefusesZero) => {
                quirks.refuses_zero = true;
                self.shuns_pause = true;
            }
            Some(Oddity::RefusesProfiles) => quirks.refuses_profiles = true,
            Some(Oddity::Slow(ms)) => quirks.extra_reaction_ms = ms,
            Some(Oddity::WrongClock(ms)) => quirks.clock_offset_ms = ms,
            Some(Oddity::NeverAnswers) => quirks.never_answers = true,
            Some(Oddity::AnswersTwice | Oddity::AnswersLate(_)) | None => {}
        }
        self.station.behave(quirks);
    }

    /// Whether it does not do what it is told, or does not say so: nothing is expected of it but what its hardware allows.
    pub(super) fn is_odd(&self) -> bool {
        if self.plan.odd.as_deref() == Some(scenario::SECRET) {
            return false;
        }
        let quirks = &self.quirks;
        let for_ever = quirks.ignores_limit
            || quirks.refuses_zero
            || quirks.refuses_profiles
            || quirks.never_answers
            || quirks.loses_profiles_on_reboot;
        let for_a_while = match self.oddity {
            Some(Oddity::Slow(_) | Oddity::AnswersTwice | Oddity::WrongClock(_)) | None => false,
            Some(
                Oddity::IgnoresLimit
                | Oddity::RefusesZero
                | Oddity::RefusesProfiles
                | Oddity::AnswersLate(_)
                | Oddity::NeverAnswers,
            ) => true,
        };
        for_ever || for_a_while
    }

    /// The least that it may be offered, in its own terms: a little is lost on the way from A to W.
    pub(super) fn least(&self) -> Current {
        self.plan.dc.map_or(self.settings.min, |dc| on_three_phases(dc.min_w) - Current::from_ma(10))
    }

    /// Whether a transaction runs at it.
    pub(super) fn runs_any(&self) -> bool {
        self.cars > 0 && (1..=self.plan.evses).any(|evse| self.station.running(evse).is_some())
    }

    /// Whether its profiles may not be what the controller believes.
    pub(super) fn is_unsure(&self, now_ms: u64) -> bool {
        now_ms <= self.unsure_until.max(self.clock_unsure_until)
    }

    /// Its own delay in following a limit.
    pub(super) fn lag_ms(&self) -> u64 {
        let extra = if let Some(Oddity::Slow(ms)) = self.oddity { ms } else { 0 };
        self.plan.reaction_ms + extra.max(self.quirks.extra_reaction_ms)
    }
}

impl World {
    /// A station's attempt to connect; if it fails, it tries again after a while.
    pub(super) fn connect(&mut self, station: usize, epoch: u64) {
        let post = &mut self.posts[station];
        if post.epoch != epoch || post.connection.is_some() {
            return;
        }
        let net = post.net;
        if net.down || net.half_open || net.stalled || self.controller.is_none() || self.paused_until.is_some() {
            let after = post.dice.between(5_000, 20_000);
            self.later(after, Event::Connect { station, epoch });
            return;
        }
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        post.connection = Some(connection);
        let version = post.station.options().version;
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
        let Some(connection) = post.connection.take() else { return };
        post.epoch += 1;
        post.held.clear();
        post.station.disconnected(now);
        post.offline_since = now_ms;
        let (epoch, after) = (post.epoch, post.dice.between(5_000, 30_000));
        self.later(after, Event::Connect { station, epoch });
        self.oracle.note(|| format!("station {station} is disconnected: {reason}"));
        let (index, reason) = (StationIndex(station), reason.to_owned());
        self.tell_site(Input::StationDisconnected { station: index, connection, reason });
    }

    /// A frame leaves the controller for a station.
    pub(super) fn send_to_station(&mut self, station: usize, connection: ConnectionId, text: String) {
        self.counts.frames += 1;
        let text = match self.site.tampering {
            None => text,
            Some(tampering) => {
                let offered_a = self.posts[station].station.offered(1).as_a();
                match tamper(tampering, station, offered_a, text) {
                    Tampered::Frame(text) => text,
                    Tampered::Answered(text) => return self.carry_to_site(station, text),
                }
            }
        };
        self.trace.write_long(text.as_bytes());
        let post = &mut self.posts[station];
        if post.connection != Some(connection) {
            return;
        }
        self.oracle.note_text(format_args!("to {station}: {text}"));
        if post.net.half_open {
            return;
        }
        if post.net.stalled {
            post.held.push(Held::ToStation(text));
            return;
        }
        let after = post.to_station.in_order(self.now_ms, post.net.latency_ms);
        let epoch = post.epoch;
        self.later(after, Event::ToStation { station, epoch, text });
    }

    pub(super) fn frame_to_station(&mut self, station: usize, epoch: u64, text: &str) {
        let now = self.now();
        let post = &mut self.posts[station];
        if post.epoch != epoch || post.net.half_open {
            return;
        }
        if post.net.stalled {
            post.held.push(Held::ToStation(text.to_owned()));
            return;
        }
        let is_limit = text.contains("\"SetChargingProfile\"");
        let before: Vec<Current> = if is_limit { self.offers(station) } else { Vec::new() };
        let frames = self.posts[station].station.receive(text, now);
        if is_limit {
            self.limit_arrived(station, &before);
        }
        self.send_to_site(station, frames);
        self.close_if_wanted(station);
    }

    fn offers(&self, station: usize) -> Vec<Current> {
        let post = &self.posts[station];
        (1..=post.plan.evses).map(|evse| post.station.offered(evse)).collect()
    }

    fn limit_arrived(&mut self, station: usize, before: &[Current]) {
        let now = self.now();
        let post = &mut self.posts[station];
        for (evse, before) in (1..=post.plan.evses).zip(before) {
            let limit = post.station.profile_limit(evse, now);
            post.tamed |= limit.is_some();
            let identity = &post.station.options().identity;
            self.oracle.no_offer_between_zero_and_minimum(identity, evse, limit, post.least());
            let drawn = post.station.car(evse).map_or(Current::ZERO, Car::current);
            self.counts.cuts += u64::from(post.station.offered(evse) < *before && drawn > post.station.offered(evse));
        }
    }

    pub(super) fn send_to_site(&mut self, station: usize, frames: Vec<String>) {
        for text in frames {
            self.counts.frames += 1;
            let post = &mut self.posts[station];
            if post.connection.is_none() || post.net.half_open {
                continue;
            }
            let epoch = post.epoch;
            let is_answer = text.starts_with("[3") || text.starts_with("[4");
            match post.oddity {
                // It takes its time over the answer; what it says by itself goes on meanwhile.
                Some(Oddity::AnswersLate(ms)) if is_answer => {
                    self.later(ms, Event::ToSite { station, epoch, text });
                    continue;
                }
                Some(Oddity::AnswersTwice) if is_answer => self.carry_to_site(station, text.clone()),
                _ => {}
            }
            self.carry_to_site(station, text);
        }
    }

    pub(super) fn carry_to_site(&mut self, station: usize, text: String) {
        let post = &mut self.posts[station];
        if post.net.stalled {
            post.held.push(Held::ToSite(text));
            return;
        }
        let after = post.to_site.in_order(self.now_ms, post.net.latency_ms);
        let epoch = post.epoch;
        self.later(after, Event::ToSite { station, epoch, text });
    }

    /// What a stalled link has held back arrives.
    pub(super) fn flow_again(&mut self, station: usize) {
        for held in std::mem::take(&mut self.posts[station].held) {
            match held {
                Held::ToSite(text) => self.carry_to_site(station, text),
                Held::ToStation(text) => {
                    let post = &mut self.posts[station];
                    let after = post.to_station.in_order(self.now_ms, post.net.latency_ms);
                    let epoch = post.epoch;
                    self.later(after, Event::ToStation { station, epoch, text });
                }
            }
        }
    }

    pub(super) fn close_if_wanted(&mut self, station: usize) {
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
        self.judge();
    }

    fn cars_come_and_go(&mut self, station: usize) {
        let now = self.now();
        let (now_ms, per_day, may_come) = (self.now_ms, self.site.cars_per_day, self.cars_may_come);
        let [least, most] = self.site.stay_minutes;
        let post = &mut self.posts[station];
        let before = post.cars;
        for evse in 1..=post.plan.evses {
            let place = usize::try_from(evse - 1).unwrap_or(0);
            if post.station.car(evse).is_some() {
                if now_ms >= post.places[place].leaves_at {
                    post.station.unplug(evse, now);
                    post.cars -= 1;
                } else {
                    post.begin_again(evse, now_ms);
                }
            } else if may_come && post.dice.chance(per_day * 1_000_000 / 1_440) {
                let car = post.new_car(&self.site.car_phases);
                post.places[place] =
                    Place { leaves_at: now_ms + post.dice.between(least, most) * 60_000, ..Place::default() };
                let taken = post.station.plug_in(evse, car, Some(&token(post.plan.number, evse)));
                debug_assert!(taken.is_ok(), "the place was free");
                post.cars += 1;
            }
        }
        if post.cars > before {
            self.forget_what_the_queue_said();
        }
    }

    pub(super) fn everybody_leaves(&mut self) {
        let now = self.now();
        for post in &mut self.posts {
            for evse in 1..=post.plan.evses {
                post.station.unplug(evse, now);
            }
            post.cars = 0;
        }
    }

    /// What draws in each circuit besides its stations, seen from its own meter: its own load and what is below, less what is fed in.
    pub(super) fn advance_loads(&mut self) {
        let now = self.now();
        let mut totals = vec![PerPhase::splat(Current::ZERO); self.loads.len()];
        for (total, load) in totals.iter_mut().zip(&mut self.loads) {
            if let Some((building, appliances)) = load {
                *total += building.current(now.utc.unix_ms()) + appliances.current(self.now_ms);
            }
        }
        if let (Some(plan), Some(pv)) = (self.site.pv, &mut self.pv) {
            pv.advance(now.mono, now.utc.unix_ms());
            let fed = pv.current();
            totals[plan.circuit] = totals[plan.circuit] - fed;
        }
        for index in (1..totals.len()).rev() {
            if let Some(parent) = self.site.circuit[index].parent {
                let below = totals[index];
                totals[parent] += below;
            }
        }
        self.backgrounds = totals;
    }
}
