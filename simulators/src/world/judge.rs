//! Once a second: what flows where, and whether that may be so.
//!
//! **The rule for a circuit.** Whenever one of its phases is above its limit while stations that can be told and obey still draw there,
//! that must be over within the grace. Stations that cannot be told (no link, no controller) or do not obey are not held against
//! the controller for what they draw; but the others must make room for them. So no fault lengthens the grace of those who are well: the
//! graces follow from the meter and from the slowest station below, see `docs/safety.md`.

use siteward::engine::units::{Current, PerPhase, Phase, Power};

use crate::meter::DeviceTrouble;
use crate::oracle::{Limited, Load};

use super::cloud_side::Outside;
use super::field::{DC_RAMP_MS, LATENCY_MS, Post};
use super::invent::longest_wait_ms;
use super::report::Unused;
use super::{STEP_MS, TICK_MS, VOLTAGE, World};

/// A car follows a changed offer within so long (IEC 61851-1).
const CAR_MS: u64 = 5_000;
/// How fast the current of a car changes at least, in mA a second: what the simulated ones do.
const RAMP_MA_PER_S: u64 = 8_000;
/// A station that comes back has booted, and been given its limit, within so long.
const WELCOME_MS: u64 = 10_000;
/// The controller gives a station so long for an answer, and tells it nothing else meanwhile.
pub(super) const CALL_MS: u64 = 30_000;
/// Samples of the utilisation are taken so far apart.
const SAMPLE_MS: u64 = 10_000;
/// A car that could take more than its offer by this is not content.
const CONTENT: Current = Current::from_a(1);

/// What is wrong with a meter, and was until when.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MeterTrouble {
    /// It gave no readings until then.
    silent_until: Option<u64>,
    /// It told lies until then.
    lying_until: Option<u64>,
    /// Its values were so old, until then.
    slow: Option<(u64, u64)>,
}

/// What flows in a circuit.
#[derive(Clone, Copy, Debug)]
struct Flow {
    total: PerPhase<Current>,
    charging: PerPhase<Current>,
    /// What stations draw that can be told and obey.
    movable: PerPhase<Current>,
    /// What stations draw of which the controller may believe something else.
    unseen: PerPhase<Current>,
}

const NOTHING: PerPhase<Current> = PerPhase::splat(Current::ZERO);

/// How close to their limits circuits come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Utilisation {
    /// Sum of the shares in millionths, and how many.
    pub(super) sum: u64,
    pub(super) samples: u64,
    /// What became of the first circuit meanwhile.
    pub(super) unused: Unused,
}

impl World {
    pub(super) fn judge(&mut self) {
        self.note_troubles();
        self.advance_loads();
        let flows = self.flows();
        let now = self.now();
        for (index, plan) in self.site.circuit.iter().enumerate() {
            if let Some(meter) = plan.meter {
                self.meters[meter].set_current(flows[index].total, now.mono);
            }
        }
        for (index, flow) in flows.iter().enumerate() {
            self.look_at_circuit(index, *flow);
        }
        if self.now_ms.is_multiple_of(SAMPLE_MS) {
            self.sample_utilisation(&flows);
        }
        self.look_at_stations();
        if self.is_steady {
            self.hold_to_the_queue();
        }
    }

    fn note_troubles(&mut self) {
        let now_ms = self.now_ms;
        let now = self.now();
        let running = self.controller.is_some() && self.paused_until.is_none();
        for post in &mut self.posts {
            let off_ms = post.station.clock(now).since(now.utc);
            let is_set = off_ms != std::mem::replace(&mut post.clock_off_ms, off_ms);
            // Its schedule has moved in time. It is right again when its own times have shown that and its lease is renewed; it says
            // none while it is not connected, and none without a transaction.
            let shows = post.connection.is_some() && post.runs_any();
            if is_set || (!shows && now_ms <= post.clock_unsure_until) {
                post.clock_unsure_until = now_ms + clock_seen_ms(post) + post.plan.renew_s * 1000 + CALL_MS;
            }
            if post.connection.is_none() && now_ms <= post.unsure_until {
                // Nothing can put it right before it is back.
                post.unsure_until = now_ms + post.plan.renew_s * 1000 + CALL_MS;
            }
            if !running || post.connection.is_none() || !post.net.is_well() || post.is_odd() {
                post.sick_at = Some(now_ms);
            }
        }
        for (meter, trouble) in self.meters.iter().zip(&mut self.meter_troubles) {
            match meter.trouble() {
                Some(DeviceTrouble::Silent | DeviceTrouble::Exception(_) | DeviceTrouble::Garbage) => {
                    trouble.silent_until = Some(now_ms);
                }
                Some(DeviceTrouble::Frozen | DeviceTrouble::Swapped | DeviceTrouble::Flipped) => {
                    trouble.lying_until = Some(now_ms);
                }
                Some(DeviceTrouble::Slow(ms)) => trouble.slow = Some((now_ms, ms)),
                None => {}
            }
        }
    }

    /// Whether a station can be told and obeys: for long enough that what it draws is what it was told.
    fn is_movable(&self, post: &Post) -> bool {
        let settled = post.sick_at.is_none_or(|at| self.now_ms - at > WELCOME_MS + act_ms(post));
        settled && !post.is_unsure(self.now_ms)
    }

    fn flows(&self) -> Vec<Flow> {
        let own =
            |total: &PerPhase<Current>| Flow { total: *total, charging: NOTHING, movable: NOTHING, unseen: NOTHING };
        let mut flows: Vec<Flow> = self.backgrounds.iter().map(own).collect();
        for post in self.posts.iter().filter(|post| post.cars > 0) {
            let drawn = post.station.total_current();
            if drawn == NOTHING {
                continue;
            }
            let least = Current::from_ma(post.settings.min.ma() * i32::try_from(post.cars).unwrap_or(1));
            let movable = self.is_movable(post) && !(post.shuns_pause && drawn.max() <= least);
            let unseen = post.is_odd() || post.is_unsure(self.now_ms);
            for index in &post.path {
                let flow = &mut flows[*index];
                flow.total += drawn;
                flow.charging += drawn;
                if movable {
                    flow.movable += drawn;
                } else if unseen {
                    flow.unseen += drawn;
                }
            }
        }
        flows
    }

    fn look_at_circuit(&mut self, index: usize, flow: Flow) {
        let limit = self.limit_in_force(index);
        let powers = self.powers_in_force(index);
        let calm = self.oracle.is_calm();
        if calm && flow.total.max() <= limit && powers.iter().all(Option::is_none) {
            return;
        }
        let (sees_ms, sees) = self.sees(index);
        let grace_ms = self.grace_ms(index, sees_ms);
        let lowered_at = self.limits_from_outside[index].map_or(0, |(_, since)| since);
        // What no meter shows can only be kept within what the controller believes of its stations.
        let total = if sees { flow.total } else { flow.charging - flow.unseen };
        let plan = &self.site.circuit[index];
        let assumed = if plan.meter.is_none() { plan.unmeasured_a.unwrap_or(0) } else { 0 };
        let stations = self.posts.iter().filter(|post| post.path.contains(&index)).count();
        let assumed = PerPhase::splat(Current::from_a(assumed));
        let load = Load {
            circuit: (index, &plan.id),
            limited: Limited::Power,
            total: sum(total + assumed),
            movable: sum(flow.movable),
            limit,
            lowered_at,
            grace_ms,
            stations,
        };
        for phase in Phase::ALL {
            let (total, movable) = ((total + assumed).of(phase), flow.movable.of(phase));
            let load = Load { limited: Limited::Phase(phase), total, movable, ..load };
            self.oracle.no_circuit_above_its_limit_longer_than_its_grace(load, STEP_MS);
        }
        let [all, charging] = powers;
        if let Some(limit) = all {
            self.oracle.no_circuit_above_its_limit_longer_than_its_grace(Load { limit, ..load }, STEP_MS);
        }
        if let Some((limit, lowered_at)) = charging.zip(self.dimmed_since) {
            // Nobody else measures it: what counts is what stations were told.
            let (limited, total) = (Limited::Charging, sum(flow.charging - flow.unseen));
            let load = Load { limited, total, limit, lowered_at, ..load };
            self.oracle.no_circuit_above_its_limit_longer_than_its_grace(load, STEP_MS);
        }
    }

    /// The powers of a circuit with what the cloud wants, as the sum of the phases' currents: of all that flows, and of its stations.
    fn powers_in_force(&self, index: usize) -> [Option<Current>; 2] {
        let own = self.site.circuit[index].max_w;
        let outside = match self.limits_from_outside[index] {
            Some((Outside::Power(power), _)) => Some(power.w()),
            Some((Outside::Current(_), _)) | None => None,
        };
        let charging = self.site.dimming_w.filter(|_| index == 0 && self.dimmed_since.is_some());
        let in_amperes = |watts: i64| Power::from_w(watts).current_at(VOLTAGE).unwrap_or(Current::MAX);
        [own.into_iter().chain(outside).min(), charging].map(|watts| watts.map(in_amperes))
    }

    /// The limit on each phase of a circuit, with what the cloud wants.
    fn limit_in_force(&self, index: usize) -> Current {
        let own = Current::from_a(self.site.circuit[index].limit_a);
        match self.limits_from_outside[index] {
            Some((Outside::Current(outside), _)) => own.min(outside),
            Some((Outside::Power(_), _)) | None => own,
        }
    }

    /// How long it takes until an overload of a circuit is seen, and whether it can be seen at all.
    fn sees(&self, index: usize) -> (u64, bool) {
        let plan = &self.site.circuit[index];
        let Some(meter) = plan.meter else {
            // Only the stations themselves say what they draw: two samples, as one may be from before the last change.
            let below = self.posts.iter().filter(|post| post.path.contains(&index));
            return (below.map(|post| post.plan.meter_values_s * 2_000).max().unwrap_or(0), false);
        };
        let (plan, trouble) = (self.site.meter[meter], self.meter_troubles[meter]);
        let fresh_ms = plan.poll_ms + plan.refresh_ms;
        let since = |until: Option<u64>| until.map_or(u64::MAX, |until| self.now_ms - until);
        let sight = |ms: u64| ms + CAR_MS;
        let slow_ms = trouble.slow.filter(|(until, ms)| self.now_ms - until < 3 * ms).map_or(0, |(_, ms)| ms);
        let silent_ms = plan.stale_after_ms + plan.poll_ms;
        let silent_ms = if since(trouble.silent_until) < sight(silent_ms) { silent_ms } else { 0 };
        let lying = since(trouble.lying_until) < 2 * sight(fresh_ms) + self.slowest_ms(index);
        (fresh_ms.max(plan.poll_ms + slow_ms).max(silent_ms), !lying)
    }

    /// Twice the time from a reading to a smaller current: the controller does not know whose current it is that it sees, so that a
    /// first cut may not be enough.
    fn grace_ms(&self, index: usize, sees_ms: u64) -> u64 {
        2 * (sees_ms + self.slowest_ms(index))
    }

    /// How long the slowest station below needs for a cut.
    fn slowest_ms(&self, index: usize) -> u64 {
        self.posts.iter().filter(|post| post.path.contains(&index)).map(act_ms).max().unwrap_or(0)
    }

    /// How far the tightest circuit above a car that could take more is used.
    fn sample_utilisation(&mut self, flows: &[Flow]) {
        let shares: Vec<([u64; 3], u64)> = flows
            .iter()
            .enumerate()
            .map(|(index, flow)| {
                let plan = &self.site.circuit[index];
                let limit = self.limit_in_force(index);
                // Where nobody measures, what is assumed for other loads cannot be used.
                let assumed = Current::from_a(plan.unmeasured_a.unwrap_or(0));
                let (used, free) =
                    if plan.meter.is_some() { (flow.total, limit) } else { (flow.charging, limit - assumed) };
                let free = u64::try_from(free.ma()).unwrap_or(0).max(1);
                let share = |used: Current, free: u64| u64::try_from(used.ma()).unwrap_or(0) * 1_000_000 / free;
                // A power binds as the phases do, and what is left to charge with while the site is dimmed.
                let [all, charging] = self.powers_in_force(index);
                let kept = if plan.meter.is_some() { Current::ZERO } else { assumed + assumed + assumed };
                let of = |used: Current, limit: Option<Current>| {
                    limit.map_or(0, |limit| share(used, u64::try_from(limit.ma()).unwrap_or(0).max(1)))
                };
                let power = of(sum(used), all.map(|all| all - kept)).max(of(sum(flow.charging), charging));
                (Phase::ALL.map(|phase| share(used.of(phase), free)), power)
            })
            .collect();
        let mut used = self.utilisation;
        let before = used.samples;
        for post in self.posts.iter().filter(|post| post.cars > 0 && self.is_movable(post)) {
            for evse in 1..=post.plan.evses {
                let Some(car) = post.station.car(evse) else { continue };
                let wanted = car.wanted().min(post.station.options().max);
                if post.station.running(evse).is_none() || wanted <= post.station.offered(evse) + CONTENT {
                    continue;
                }
                let tightest = post
                    .path
                    .iter()
                    .flat_map(|index| {
                        let (phases, power) = shares[*index];
                        post.phases.iter().map(move |phase| phases[phase.index()].max(power))
                    })
                    .max();
                used.sum += tightest.unwrap_or(0);
                used.samples += 1;
            }
        }
        if used.samples > before {
            used.unused += self.unused_now();
        }
        self.utilisation = used;
    }

    /// Where the current of the first circuit is that no car draws, on L1.
    fn unused_now(&self) -> Unused {
        let plan = &self.site.circuit[0];
        let other =
            plan.meter.map_or(Current::from_a(plan.unmeasured_a.unwrap_or(0)), |_| self.backgrounds[0].of(Phase::L1));
        let ma = |current: Current| u64::try_from(current.ma()).unwrap_or(0);
        let mut now = Unused { free: ma(self.limit_in_force(0) - other), ..Unused::default() };
        let mut offered = 0;
        for post in self.posts.iter().filter(|post| post.phases.contains(&Phase::L1)) {
            for evse in 1..=post.plan.evses {
                let Some(car) = post.station.car(evse) else { continue };
                if post.station.running(evse).is_none() {
                    continue;
                }
                let (offer, drawn) = (ma(post.station.offered(evse)), ma(car.current()));
                offered += offer;
                let leaves = offer.saturating_sub(drawn);
                if car.is_full() {
                    now.full += leaves;
                } else if car.wanted() + CONTENT < post.station.offered(evse) {
                    now.tapers += leaves;
                } else {
                    now.follows += leaves;
                }
            }
        }
        now.not_offered = now.free.saturating_sub(offered);
        now
    }

    fn look_at_stations(&mut self) {
        let now_ms = self.now_ms;
        let quiet = now_ms > self.site.quiet_from_ms() && self.site.duration_ms() > now_ms;
        let longest_ms = self.longest_wait_ms;
        for post in &mut self.posts {
            if post.cars == 0 {
                continue;
            }
            let falls_ms = post.plan.lease_s * 1000 + act_ms(post);
            let gone = post.connection.is_none() && now_ms.saturating_sub(post.offline_since) > falls_ms;
            let held = gone && post.tamed && !post.is_odd() && !post.is_unsure(now_ms);
            let odd = post.is_odd();
            for (evse, place) in (1..=post.plan.evses).zip(&mut post.places) {
                let Some(car) = post.station.car(evse) else { continue };
                if held {
                    let fallback = post.settings.fallback;
                    self.oracle.stations_fall_to_fallback_when_the_controller_is_gone(&post.station, evse, fallback);
                }
                let hungry = quiet && !car.is_full() && car.current() == Current::ZERO && !odd;
                if !hungry {
                    place.hungry_since = None;
                    continue;
                }
                let waited = now_ms - *place.hungry_since.get_or_insert(now_ms);
                if waited > longest_ms {
                    place.hungry_since = Some(now_ms);
                    let identity = &post.station.options().identity;
                    self.oracle.after_faults_end_everyone_charges(identity, evse, waited);
                }
            }
        }
    }

    /// Everything that has to be so once all is over.
    pub(super) fn last_judgement(&mut self) {
        let (missing, last) = (self.cloud.missing(), self.cloud.last());
        self.oracle.the_cloud_has_every_event(missing, last, self.journal.durable_through());
        self.judge_telemetry();
        for post in &self.posts {
            let identity = &post.station.options().identity;
            for truth in post.station.transactions() {
                let id = truth.id.clone().unwrap_or_default();
                let cloud = self.cloud.transactions().get(&(identity.clone(), id));
                self.oracle.every_started_transaction_reaches_the_cloud_exactly_once(identity, truth, cloud);
                if let Some(cloud) = cloud {
                    self.oracle.what_was_signed_reaches_the_cloud(identity, truth, cloud);
                    self.oracle.the_display_shows_what_is_billed(&post.station, truth, cloud);
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

fn sum(phases: PerPhase<Current>) -> Current {
    phases.iter().map(|(_, current)| *current).sum()
}

/// From the tick in which a cut is decided to the current that has gone: the tick, the way there, the station's own delay, the car's,
/// and its ramp from the most to nothing.
fn act_ms(post: &Post) -> u64 {
    let ramp_ms = match post.plan.dc {
        Some(_) => DC_RAMP_MS,
        None => u64::try_from(post.plan.max_a).unwrap_or(32) * 1_000_000 / RAMP_MA_PER_S,
    };
    TICK_MS + LATENCY_MS + post.lag_ms() + CAR_MS + ramp_ms + STEP_MS
}

/// From a step of a station's clock until the controller knows: five of the station's own times must show it, since one in a late message is behind
/// as well, and they come with its meter values.
const fn clock_seen_ms(post: &Post) -> u64 {
    5 * post.plan.meter_values_s * 1000
}

/// How long the longest wait of a site may be.
pub(super) fn patience_ms(site: &super::blueprint::Blueprint) -> u64 {
    longest_wait_ms(site)
}
