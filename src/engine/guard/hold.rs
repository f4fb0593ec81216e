//! What one station may hold: every profile that it was sent and that may be in force, and the most that an EVSE may draw by them.

use serde::{Deserialize, Serialize};

use super::wire::{Answer, Cleared, Profile};
use crate::engine::model::topology::{LeaseForm, Station};
use crate::engine::time::Utc;
use crate::engine::units::{Current, Voltage};

/// A point on the monotonic clock in ms; unlike [`Mono`](crate::engine::time::Mono) it may lie before the start of the process.
pub(super) type Ms = i64;

const NEVER: Ms = Ms::MIN;
const ALWAYS: Ms = Ms::MAX;

/// A schedule steps at a moment that is uncertain by so much: clocks, whole seconds, the delay of the message.
const STEP_MARGIN_MS: Ms = 15_000;

/// How much longer than its reaction time a car is taken to draw the old current where too much is the safe side.
pub(super) const WIDE_EXTRA_MS: Ms = 5_000;

/// How much longer than its shortest duration a limit below the fallback may last, for what an earlier run of the daemon had sent.
const LONGEST_EXTRA_MS: Ms = 60_000;

/// A lease may end so much before its declared length, for whole seconds and a queue on the way.
const LEASE_SLACK_MS: Ms = 45_000;

/// A station that has booted is taken to hold its profiles for so long: no car draws before that.
const BOOT_GRACE_MS: Ms = 6_000;

/// More unanswered limits than this are counted as one that is as bad as all of them.
const MAX_CANDIDATES: usize = 32;

/// Limits that differ by less are the same: decimals, and watts that become amperes.
const SAME: Current = Current::from_ma(50);

/// When something may be in force: a moment with what is uncertain about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    from: Ms,
    to: Ms,
    /// What is sure only up to this moment is not sure.
    sure: Ms,
}

impl Window {
    /// What may be in force now. Nothing that is certainly over is in it.
    pub(super) fn strict(now: Ms, reaction: Ms) -> Self {
        Self { from: now - STEP_MARGIN_MS - reaction, to: now + STEP_MARGIN_MS, sure: now }
    }

    /// What is in force now for certain, or was until now.
    const fn just(now: Ms) -> Self {
        Self { from: now - STEP_MARGIN_MS, to: now, sure: now }
    }

    /// Wider than anybody's idea of now: what was drawn when a meter was read is at most this.
    pub(super) fn wide(now: Ms, reaction: Ms) -> Self {
        let margin = 2 * STEP_MARGIN_MS;
        Self { from: now - margin - reaction - WIDE_EXTRA_MS, to: now + margin, sure: now + STEP_MARGIN_MS }
    }
}

/// A profile on the monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Schedule {
    begins: Ms,
    ends: Ms,
    /// What counts from the beginning because it comes too early or is too much.
    early: Current,
    /// The periods: each is in force from its moment to the next one's.
    periods: Vec<(Ms, Current)>,
    /// It ends when the station has been offline for long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    offline: Option<Offline>,
}

/// How a profile ends that is not valid any more once the station has been offline for long (OCPP 2.1 `maxOfflineDuration`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Offline {
    /// The station was online then, as far as is sure.
    online: Ms,
    /// It stays valid for so long once the station is offline.
    lasts: Ms,
    /// When it ends otherwise.
    ends: Ms,
    /// It is valid again when the station is online.
    returns: bool,
    /// The station is known to do so.
    known: bool,
}

/// How a station's times and limits become ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale<'a> {
    pub(super) station: &'a Station,
    pub(super) voltage: Voltage,
    /// The station's clock at the monotonic moment `now`.
    pub(super) clock: Utc,
    pub(super) now: Ms,
}

impl Scale<'_> {
    fn moment(&self, at: Utc) -> Ms {
        self.now.saturating_add(at.since(self.clock))
    }

    /// The current per phase on the AC side, rounded up.
    pub(super) fn current(&self, profile: &Profile, (_, thousandths, phases): (i64, i64, i64)) -> Current {
        if !profile.watts {
            return Current::from_ma(i32::try_from(thousandths).unwrap_or(i32::MAX));
        }
        let wired = i64::try_from(self.station.wiring.terminals()).unwrap_or(1);
        // 1000 · mW / mV = mA; what a DC output gives is drawn with losses.
        let (above, below) = self.station.dc.map_or((1, 1), |dc| {
            (1_000_000, i64::from(dc.efficiency_permille.max(1)) * i64::from(dc.power_factor_permille.max(1)))
        });
        let phases = if self.station.dc.is_some() { wired } else { phases.min(wired) };
        let divisor = i64::from(self.voltage.mv().max(1)).saturating_mul(phases).saturating_mul(below);
        let divisor = i128::from(divisor);
        let dividend = i128::from(thousandths) * 1000 * above;
        Current::from_ma(i32::try_from((dividend + divisor - 1) / divisor).unwrap_or(i32::MAX))
    }

    /// Whether a period is the agreed step to the fallback and no more: it counts only when its time has come.
    pub(super) fn is_lease_end(&self, begins: Ms, limit: Current) -> bool {
        let lease = i64::try_from(self.station.model.lease_ms).unwrap_or(i64::MAX);
        limit <= self.station.fallback + SAME && begins >= self.now + lease - LEASE_SLACK_MS.min(lease / 2)
    }

    /// Since when each period of a profile is in force.
    pub(super) fn moments(&self, profile: &Profile) -> Vec<Ms> {
        let start = profile.start.map_or(self.now, |start| self.moment(start));
        profile.periods.iter().map(|(second, _, _)| start.saturating_add(second.saturating_mul(1_000))).collect()
    }
}

impl Schedule {
    fn new(profile: &Profile, scale: &Scale<'_>) -> Self {
        let limits: Vec<Current> = profile.periods.iter().map(|period| scale.current(profile, *period)).collect();
        let most = limits.iter().copied().max().unwrap_or(Current::MAX);
        let valid_from = profile.valid_from.map_or(NEVER, |from| scale.moment(from));
        let ends = profile.ends.map_or(ALWAYS, |ends| scale.moment(ends));
        if profile.loose {
            // Nothing is known of when it steps, nor whether it is there at all.
            return Self { begins: ALWAYS, ..Self::constant(most) }.ending(ends);
        }
        let mut periods: Vec<(Ms, Current)> = scale.moments(profile).into_iter().zip(limits).collect();
        if scale.station.model.lease == LeaseForm::None {
            // It is not known to step down by itself.
            let mut before = Current::ZERO;
            periods.iter_mut().for_each(|(_, limit)| {
                before = before.max(*limit);
                *limit = before;
            });
        }
        let later = periods.iter().filter(|(from, limit)| *from > scale.now && !scale.is_lease_end(*from, *limit));
        let early = later.map(|(_, limit)| *limit).max().unwrap_or(Current::ZERO);
        let begins = periods.first().map_or(ALWAYS, |(from, _)| *from).max(valid_from);
        let offline = profile.max_offline_s.map(|seconds| Offline {
            online: scale.now,
            lasts: seconds.saturating_mul(1_000),
            ends,
            returns: profile.returns,
            known: scale.station.model.lease.may_rest_on_the_connection(),
        });
        Self { begins, ends, early, periods, offline }
    }

    fn ending(self, ends: Ms) -> Self {
        Self { ends, ..self }
    }

    fn constant(limit: Current) -> Self {
        Self { begins: NEVER, ends: ALWAYS, early: Current::ZERO, periods: vec![(NEVER, limit)], offline: None }
    }

    /// The most it allows within the window.
    fn most(&self, window: Window) -> Current {
        if self.ends < window.from {
            return Current::ZERO;
        }
        let ends = self.periods.iter().skip(1).map(|(from, _)| *from).chain([ALWAYS]);
        let in_force =
            self.periods.iter().zip(ends).filter(|((from, _), end)| *from <= window.to && *end > window.from);
        in_force.map(|((_, limit), _)| *limit).max().unwrap_or(Current::ZERO).max(self.early)
    }

    /// Whether it is certainly in force within the whole window.
    fn is_certain(&self, window: Window) -> bool {
        // For all that is known it went offline as soon as it had it.
        let is_online = self.offline.is_none_or(|offline| window.to < offline.online.saturating_add(offline.lasts));
        self.begins <= window.from && window.to < self.ends && is_online
    }

    /// The station is offline since `at` at the latest.
    fn offline(&mut self, at: Ms) {
        if let Some(offline) = self.offline.filter(|offline| offline.known) {
            self.ends = self.ends.min(at.saturating_add(offline.lasts));
        }
    }

    /// The station is online. What has certainly ended stays so, unless it returns.
    fn online(&mut self, now: Ms) {
        if let Some(offline) = self.offline.filter(|offline| offline.returns || self.ends >= now - STEP_MARGIN_MS) {
            self.ends = offline.ends;
        }
    }

    /// The limit that stays once everything has stepped.
    fn last(&self) -> Current {
        self.periods.last().map_or(Current::MAX, |(_, limit)| *limit)
    }

    fn highest(&self) -> Current {
        self.periods.iter().map(|(_, limit)| *limit).max().unwrap_or(Current::MAX).max(self.early)
    }

    /// Whether all its steps lie behind.
    fn has_stepped(&self, window: Window) -> bool {
        self.early == Current::ZERO
            && self.ends == ALWAYS
            && self.offline.is_none()
            && self.periods.last().is_none_or(|(from, _)| *from < window.from)
    }

    /// It is not known any more how far it has come since `then`, by the clock of that time; by `over` it has stepped.
    fn forget_time(&mut self, then: Ms, over: Ms) {
        if let Some(offline) = &mut self.offline {
            offline.online = NEVER;
            self.ends = offline.ends;
        }
        self.periods = vec![(NEVER, self.highest()), (over, self.last())];
        // What had begun goes on, unless it ends.
        self.begins = if self.begins <= then && self.ends == ALWAYS { NEVER } else { ALWAYS };
        self.ends = if self.ends == ALWAYS { ALWAYS } else { over };
    }

    fn shift(&mut self, by: Ms) {
        let moved = |at: Ms| if at == NEVER || at == ALWAYS { at } else { at.saturating_add(by) };
        (self.begins, self.ends) = (moved(self.begins), moved(self.ends));
        if let Some(offline) = &mut self.offline {
            (offline.online, offline.ends) = (moved(offline.online), moved(offline.ends));
        }
        self.periods.iter_mut().for_each(|(from, _)| *from = moved(*from));
    }
}

/// The place of one profile in a station: a new one replaces it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Slot {
    evse: u32,
    level: i64,
    transaction: Option<String>,
    id: i64,
    /// From then on it may be that nothing is in it; never: it was accepted.
    empty_from: Ms,
    /// What may be in it: the accepted one first, then what was sent after it, each with the id of its call.
    candidates: Vec<(String, Schedule)>,
}

impl Slot {
    fn most(&self, window: Window) -> Current {
        self.candidates.iter().map(|(_, schedule)| schedule.most(window)).max().unwrap_or(Current::ZERO)
    }

    fn is_certain(&self, window: Window) -> bool {
        window.sure < self.empty_from
            && !self.candidates.is_empty()
            && self.candidates.iter().all(|(_, schedule)| schedule.is_certain(window))
    }

    fn push(&mut self, call: String, schedule: Schedule, window: Window) {
        // One that has ended leaves nothing behind; of those that have stepped for good the highest stands for all.
        if self.candidates.iter().any(|(_, old)| old.ends < window.from) {
            self.empty_from = NEVER;
            self.candidates.retain(|(_, old)| old.ends >= window.from);
        }
        let stepped =
            self.candidates.iter().filter(|(_, old)| old.has_stepped(window)).map(|(_, old)| old.last()).max();
        let mut is_kept = false;
        self.candidates.retain(|(_, old)| {
            !old.has_stepped(window) || (Some(old.last()) == stepped && !std::mem::replace(&mut is_kept, true))
        });
        self.candidates.push((call, schedule));
        if self.candidates.len() > MAX_CANDIDATES {
            let worst = self.candidates.iter().map(|(_, old)| old.highest()).max().unwrap_or(Current::MAX);
            self.candidates = vec![(String::new(), Schedule::constant(worst))];
        }
    }
}

/// What an answer was about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered {
    /// The EVSE; 0: all of the station.
    pub(super) evse: u32,
    /// If it was accepted: what the profile alone allows now.
    pub(super) sure: Option<Current>,
}

/// What one station may hold.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Hold {
    slots: Vec<Slot>,
    /// Limits are no longer known: something was sent that may have changed them in any way.
    unclear: bool,
}

impl Hold {
    /// What an earlier run may have left in an EVSE that has accepted a lease at some time: anything, for as long as a lease lasts.
    pub(super) fn tamed(&mut self, evse: u32, station: &Station, now: Ms) {
        let lease = longest(station);
        let over = now.saturating_add(lease).saturating_add(LONGEST_EXTRA_MS);
        let periods = vec![(NEVER, station.max), (over, station.fallback)];
        let schedule = Schedule { periods, ..Schedule::constant(station.max) };
        let candidates = vec![(String::new(), schedule)];
        let level = i64::from(station.model.stack_level);
        self.slots.push(Slot { evse, level, transaction: None, id: i64::MIN, empty_from: ALWAYS, candidates });
    }

    /// Takes over what an earlier run knew. `by`: the monotonic clock now minus the one then; `None`: it is not known how much later it is.
    /// `then`: the monotonic clock of that run when it wrote this down.
    pub(super) fn moved(mut self, (by, then): (Option<Ms>, Ms), station: &Station, now: Ms) -> Self {
        let over = now.saturating_add(longest(station)).saturating_add(LONGEST_EXTRA_MS);
        for slot in &mut self.slots {
            for (_, schedule) in &mut slot.candidates {
                match by {
                    Some(by) => schedule.shift(by),
                    None => schedule.forget_time(then, over),
                }
            }
            slot.empty_from = if slot.empty_from == ALWAYS { ALWAYS } else { NEVER };
        }
        self.offline(station, now);
        self
    }

    /// The connection is gone; the station notices it in its time.
    pub(super) fn offline(&mut self, station: &Station, now: Ms) {
        let at = now.saturating_add(i64::try_from(station.model.offline_after_ms).unwrap_or(i64::MAX));
        self.schedules().for_each(|schedule| schedule.offline(at));
    }

    /// The station has connected.
    pub(super) fn online(&mut self, now: Ms) {
        self.schedules().for_each(|schedule| schedule.online(now));
    }

    fn schedules(&mut self) -> impl Iterator<Item = &mut Schedule> {
        self.slots.iter_mut().flat_map(|slot| slot.candidates.iter_mut().map(|(_, schedule)| schedule))
    }

    /// A profile is on its way.
    pub(super) fn send(&mut self, call: &str, profile: &Profile, scale: &Scale<'_>) {
        let window = Window::strict(scale.now, i64::try_from(scale.station.model.reaction_ms).unwrap_or(i64::MAX));
        let schedule = Schedule::new(profile, scale);
        let same = |slot: &Slot| {
            (slot.evse, slot.level, slot.transaction.is_some())
                == (profile.evse, profile.level, profile.transaction.is_some())
        };
        // A profile with the same id anywhere else at the station gives way to it.
        for other in self.slots.iter_mut().filter(|slot| slot.id == profile.id && !same(slot)) {
            other.empty_from = NEVER;
        }
        match self.slots.iter_mut().find(|slot| same(slot)) {
            Some(slot) => {
                slot.id = profile.id;
                slot.transaction.clone_from(&profile.transaction);
                slot.push(call.to_owned(), schedule, window);
            }
            None => self.slots.push(Slot {
                evse: profile.evse,
                level: profile.level,
                transaction: profile.transaction.clone(),
                id: profile.id,
                empty_from: NEVER,
                candidates: vec![(call.to_owned(), schedule)],
            }),
        }
        self.slots.sort_by_key(|slot| std::cmp::Reverse(slot.level));
    }

    /// Profiles may go.
    pub(super) fn clear(&mut self, cleared: &Cleared) {
        let fits = |slot: &Slot| {
            cleared.id.is_none_or(|id| id == slot.id)
                && cleared.evse.is_none_or(|evse| evse == slot.evse || evse == 0)
                && cleared.level.is_none_or(|level| level == slot.level)
                && cleared.transaction.is_none_or(|transaction| transaction == slot.transaction.is_some())
        };
        self.slots.iter_mut().filter(|slot| fits(slot)).for_each(|slot| slot.empty_from = NEVER);
    }

    /// Anything may be in force from now on.
    pub(super) const fn unclear(&mut self) {
        self.unclear = true;
    }

    /// Whether a call is about a profile that may be in force.
    pub(super) fn knows(&self, call: &str) -> bool {
        !call.is_empty() && self.slots.iter().any(|slot| slot.candidates.iter().any(|(id, _)| id == call))
    }

    /// A call was answered; `None`: it was not about a profile that may be in force.
    pub(super) fn answered(&mut self, call: &str, answer: Answer, now: Ms) -> Option<Answered> {
        let known = |slot: &Slot| slot.candidates.iter().position(|(id, _)| id == call);
        let (slot, place) = self.slots.iter_mut().find_map(|slot| known(slot).map(|place| (slot, place)))?;
        let mut sure = None;
        match answer {
            Answer::Accepted => {
                slot.candidates.drain(..place);
                slot.empty_from = ALWAYS;
                // What it allows now counts as long as a car may take to follow, also if it is over just then.
                sure = slot.candidates.first().map(|(_, schedule)| schedule.most(Window::just(now)));
            }
            Answer::Refused => {
                slot.candidates.remove(place);
            }
            // An error, or an answer without a status: it may have been taken over all the same.
            Answer::Unclear => {}
        }
        Some(Answered { evse: slot.evse, sure })
    }

    /// What a station keeps over a boot, or over a step of its clock, is not certain until it has accepted it again.
    pub(super) fn booted(&mut self, now: Ms) {
        self.slots.iter_mut().for_each(|slot| slot.empty_from = slot.empty_from.min(now + BOOT_GRACE_MS));
    }

    /// The connection is gone, and with it the answers that were to come.
    pub(super) fn unanswerable(&mut self) {
        self.slots.iter_mut().flat_map(|slot| &mut slot.candidates).for_each(|(call, _)| call.clear());
    }

    /// Nothing that was told to a station without a lease is certain once it is out of reach.
    pub(super) fn lost(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.empty_from = NEVER);
    }

    /// A transaction began: the profiles of another one are not for it.
    pub(super) fn begun(&mut self, evse: Option<u32>) {
        let others = |slot: &&mut Slot| slot.transaction.is_some() && evse.is_none_or(|evse| evse == slot.evse);
        self.slots.iter_mut().filter(others).for_each(|slot| slot.empty_from = NEVER);
    }

    /// A transaction ended, and its profiles with it.
    pub(super) fn ended(&mut self, transaction: &str) {
        self.slots.retain(|slot| slot.transaction.as_deref() != Some(transaction));
    }

    /// The most that the EVSE may draw; `None`: nothing is sure to limit it.
    pub(super) fn most(&self, evse: u32, window: Window) -> Option<Current> {
        if self.unclear {
            return None;
        }
        // A profile for all EVSEs may count beside the EVSE's own ones: stations differ.
        let shared = self.slots.iter().filter(|slot| slot.evse == 0);
        let mut most = shared.map(|slot| slot.most(window)).max().unwrap_or(Current::ZERO);
        let own = |transaction: bool| {
            self.slots.iter().filter(move |slot| slot.evse == evse && slot.transaction.is_some() == transaction)
        };
        let all = self.slots.iter().filter(|slot| slot.evse == 0 && slot.transaction.is_none());
        // The profile of the transaction goes first, then the higher level; the first that is sure to be there decides.
        for slot in own(true).chain(own(false)).chain(all) {
            most = most.max(slot.most(window));
            if slot.is_certain(window) {
                return Some(most);
            }
        }
        None
    }

    /// The next moment from which [`Hold::most`] may say something else.
    pub(super) fn next_change(&self, now: Ms, reaction: Ms) -> Ms {
        let mut next = ALWAYS;
        let mut look = |at: Ms| {
            let (near, far) = (STEP_MARGIN_MS, 2 * STEP_MARGIN_MS);
            for offset in [-far, -near, 0, near + reaction, far + reaction + WIDE_EXTRA_MS] {
                let moment = at.saturating_add(offset);
                if moment >= now {
                    next = next.min(moment + 1);
                }
            }
        };
        for slot in &self.slots {
            look_at(slot.empty_from, &mut look);
            for (_, schedule) in &slot.candidates {
                look_at(schedule.begins, &mut look);
                look_at(schedule.ends, &mut look);
                if let Some(offline) = schedule.offline {
                    look_at(offline.online.saturating_add(offline.lasts), &mut look);
                }
                schedule.periods.iter().for_each(|(from, _)| look_at(*from, &mut look));
            }
        }
        next
    }
}

/// How long after its last word a lease of an earlier run may last, but for what a limit below the fallback may last longer.
fn longest(station: &Station) -> Ms {
    i64::try_from(station.model.holds_ms(station.model.lease_ms)).unwrap_or(i64::MAX)
}

fn look_at(at: Ms, look: &mut impl FnMut(Ms)) {
    if at != NEVER && at != ALWAYS {
        look(at);
    }
}
