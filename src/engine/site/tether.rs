//! What one EVSE was told, what of it is confirmed, and what it may therefore be drawing: its **committed** current.
//!
//! A limit is a lease (design §4): it decays to the fallback by the station's own clock when nobody renews it. A limit at or above the fallback
//! steps down after [`StationModel::lease_ms`]. A limit below it (a pause) steps **up**, and that must not happen before every other
//! lease of the site has stepped down, so it lasts [`STEP_UP_DELAY_MS`] longer.
//!
//! The forms of a lease differ in what is in force when:
//!
//! | form | told | silent, lease over | booted, told nothing yet | no transaction |
//! | --- | --- | --- | --- | --- |
//! | `tx-default-profile` | the limit | fallback | maximum | the limit, for the next one |
//! | `two-levels` | the limit | fallback (the base) | maximum, until the base is confirmed | the limit, for the next one |
//! | `tx-profile` | the limit | fallback; also at once, since some drop it offline | maximum, until the base is confirmed | fallback (the base) |
//! | `max-offline-duration` | the limit | the limit, until it has been offline for so long; then the fallback (the base) | maximum, until the base is confirmed | the limit, for the next one |
//! | `none`, or a lease that is not trusted | the limit | maximum, at once | maximum | the limit, for the next one |

mod ends;
mod late;

pub use super::sent::{Pending, SentLimit, Told};
use crate::engine::model::topology::{LeaseForm, StationModel};
use crate::engine::ocpp::CALL_TIMEOUT_MS;
use crate::engine::time::Mono;
use crate::engine::units::Current;

/// How much longer a lease below the fallback lasts than others: more than the longest renewal interval plus the margins, so that after
/// the controller's death the last step down comes before the first step up.
pub const STEP_UP_DELAY_MS: u64 = 60_000;

/// How far the moment of a lease's step is taken to be uncertain: clocks, whole seconds in the schedule, the delay of the message.
pub const STEP_MARGIN_MS: u64 = 20_000;

/// How long a station that has just booted is still taken to hold its profile while it has not accepted a new one: no car draws before that.
const BOOT_GRACE_MS: u64 = 5_000;

/// So many refusals of a pause in a row mean that the station knows none: one may be a passing error.
const PAUSE_REFUSALS: u8 = 2;

/// A station that has refused pauses is asked again after so long: its firmware or its settings may have changed.
const PAUSE_ASKED_AGAIN_MS: u64 = 86_400_000;

/// So many refusals of the base in a row mean that the station takes none.
const BASE_REFUSALS: u8 = 2;

/// More old limits than this that cars may still follow are counted as fewer ones that say at least as much.
const MOST_SETTLING: usize = 16;

/// A limit that may be in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    sent: SentLimit,
    /// It was overtaken by a later one and never answered: the station may still carry it out until then, after the later one.
    straggles_until: Option<Mono>,
}

/// The limits of one EVSE, as far as they may be in force.
#[derive(Clone, Debug)]
pub struct Tether {
    max: Current,
    fallback: Current,
    form: LeaseForm,
    /// The lease is stated by the model or proven, and nothing has contradicted it since.
    trusted: bool,
    /// It counts at its maximum, whatever it was told: it is being tested.
    suspect: bool,
    lease_ms: u64,
    /// The version that its station speaks knows the form.
    is_spoken: bool,
    /// How long its station may take to notice that the connection is gone.
    notices_ms: u64,
    /// Since when there is no connection.
    offline_since: Option<Mono>,
    /// What was sent before this was sent by an earlier run.
    began_at: Mono,
    /// How long a limit below the fallback lasts at least.
    pause_ms: u64,
    reaction_ms: u64,
    /// It has accepted a decaying limit (or the base below them) at some time: it falls back by itself.
    tamed: bool,
    /// The base that it has accepted since its last boot.
    base: Option<SentLimit>,
    /// Nothing that was accepted lies above the base.
    base_in_force: bool,
    base_refusals: u8,
    /// Sent limits of which any may be in force: the last accepted one, and what was sent after it.
    candidates: Vec<Candidate>,
    /// What waits for its answer, in the order in which it was sent.
    pending: Vec<Pending>,
    /// What got no answer in time, and may still get one.
    owed: Vec<Pending>,
    /// After a cut the car may still draw the old current until then. A later cut does not lengthen the time of an earlier one.
    settling: Vec<(Current, Mono)>,
    /// The last moment of all of them: after it, which is nearly always, nobody looks at each.
    settles_until: Mono,
    /// Since when a booted station has not accepted a limit yet.
    booted_at: Option<Mono>,
    /// It had not in the run before this one either.
    booted_before: bool,
    /// When it last refused one.
    refused_at: Option<Mono>,
    /// It has accepted a limit in this run.
    confirmed: bool,
    /// The limit that it refused last, until it accepts as much.
    refused_limit: Option<Current>,
    /// How often in a row it has refused a limit of 0, and when last (quirk: some stations know no pause by profile).
    pause_refusals: (u8, Mono),
}

impl Tether {
    /// An EVSE of which nothing is known but whether it was tamed before. If it was, whatever it was told may still be in force
    /// for the whole lease.
    #[must_use]
    pub fn new(max: Current, fallback: Current, model: &StationModel, tamed: bool, now: Mono) -> Self {
        let form = if model.lease == LeaseForm::Auto { LeaseForm::TxDefaultProfile } else { model.lease };
        let mut tether = Self {
            max,
            fallback,
            form,
            trusted: model.lease.is_stated(),
            suspect: false,
            lease_ms: model.lease_ms,
            is_spoken: true,
            notices_ms: model.offline_after_ms,
            offline_since: Some(now),
            began_at: now,
            pause_ms: model.lease_ms + STEP_UP_DELAY_MS,
            reaction_ms: model.reaction_ms,
            tamed,
            base: None,
            base_in_force: tamed && form.has_base(),
            base_refusals: 0,
            candidates: Vec::new(),
            pending: Vec::new(),
            owed: Vec::new(),
            settling: Vec::new(),
            settles_until: Mono::START,
            booted_at: None,
            booted_before: false,
            refused_at: None,
            refused_limit: None,
            confirmed: false,
            pause_refusals: (0, now),
        };
        if tamed {
            tether.remember(tether.unknown(now));
        }
        tether
    }

    /// What it may have been told before anything was remembered. It may be over: then the fallback is in force.
    fn unknown(&self, now: Mono) -> SentLimit {
        SentLimit { maybe: Some(self.fallback), ..SentLimit::lasting(self.max, now, self.longest_ms()) }
    }

    /// The longest that any limit lasts, in ms.
    #[must_use]
    pub fn longest_ms(&self) -> u64 {
        self.pause_ms.max(self.lease_ms + STEP_UP_DELAY_MS)
    }

    /// A limit below the fallback outlasts every other lease of the site: all of those end within `site_ms` of the last renewal.
    pub fn outlast(&mut self, site_ms: u64, now: Mono) {
        self.pause_ms = self.pause_ms.max(site_ms);
        let unknown = self.unknown(now);
        for candidate in self.candidates.iter_mut().filter(|candidate| candidate.sent.limit == unknown.limit) {
            candidate.sent = unknown;
        }
    }

    /// Takes over what an earlier run of the daemon had told the EVSE, and whether it had booted since.
    pub fn restore(&mut self, limits: Vec<SentLimit>, booted: bool) {
        self.booted_before |= booted;
        if self.tamed && !limits.is_empty() {
            self.candidates = limits.into_iter().map(|sent| Candidate { sent, straggles_until: None }).collect();
        }
    }

    /// From now on another form of lease is used, and whether it is trusted. What the last form left in the station holds until its end,
    /// and counts as the maximum.
    pub fn choose(&mut self, form: LeaseForm, trusted: bool, now: Mono) {
        if self.form != form {
            self.form = form;
            self.forget(now);
        }
        self.trusted = trusted;
    }

    /// What it was told was told in another form: it counts as the maximum until its end, and the EVSE is told everything anew.
    pub fn forget(&mut self, now: Mono) {
        let over = self.unknown(now).steps_at.plus_ms(STEP_MARGIN_MS);
        self.settle(self.max, over, now);
        self.tamed = false;
        self.confirmed = false;
        self.candidates.clear();
        self.pending.clear();
        self.owed.clear();
        self.base = None;
        self.base_in_force = false;
        self.base_refusals = 0;
        self.refused_at = None;
        self.refused_limit = None;
    }

    /// Whether an earlier run has tamed it in this form. If it has, whatever it was told may still be in force.
    pub fn known_as(&mut self, tamed: bool, now: Mono) {
        self.tamed = tamed;
        self.settling.clear();
        self.base_in_force = tamed && self.form.has_base();
        self.candidates.clear();
        if tamed {
            self.remember(self.unknown(now));
        }
    }

    /// Whether the lease is trusted or not, by what the station was seen to say or to do.
    pub const fn trust(&mut self, trusted: bool) {
        self.trusted = trusted;
    }

    /// From now on it counts at its maximum, whatever it was told, or as usual again.
    pub const fn suspect(&mut self, suspect: bool) {
        self.suspect = suspect;
    }

    /// The form of its lease.
    #[must_use]
    pub const fn form(&self) -> LeaseForm {
        self.form
    }

    /// Whether it is taken to fall back by itself.
    #[must_use]
    pub fn holds(&self) -> bool {
        let without_base = self.form.has_base() && self.base_refusals >= BASE_REFUSALS;
        self.form != LeaseForm::None && self.trusted && self.is_spoken && !without_base
    }

    /// What may be in force, to be restored by the next run.
    pub fn candidates(&self) -> impl Iterator<Item = SentLimit> {
        self.candidates.iter().map(|candidate| candidate.sent)
    }

    /// How long a limit lasts from now on, in ms, where nothing stretches its lease.
    #[must_use]
    pub fn lasts_ms(&self, limit: Current) -> u64 {
        self.stretched_ms(limit, self.lease_ms)
    }

    /// How long a limit lasts from now on with a lease of `lease_ms`, in ms.
    #[must_use]
    pub fn stretched_ms(&self, limit: Current, lease_ms: u64) -> u64 {
        if limit < self.fallback { self.pause_ms.max(lease_ms + STEP_UP_DELAY_MS) } else { lease_ms }
    }

    /// A limit is on its way that lasts so long, under the caller's number.
    pub fn sent(&mut self, call: u64, limit: Current, lasts_ms: u64, now: Mono) {
        let sent = SentLimit::lasting(limit, now, lasts_ms);
        self.pending.push(Pending { call, sent, told: Told::Limit });
        self.remember(sent);
    }

    /// The base is on its way.
    pub fn base_sent(&mut self, call: u64, now: Mono) {
        let sent = SentLimit::lasting(self.fallback, now, 0);
        self.pending.push(Pending { call, sent, told: Told::Base });
    }

    /// Bounded, so that a station that never answers costs nothing: the two oldest become one that is at least as bad as both.
    fn remember(&mut self, sent: SentLimit) {
        if self.candidates.iter().any(|candidate| candidate.sent == sent) {
            return;
        }
        self.candidates.push(Candidate { sent, straggles_until: None });
        if self.candidates.len() > 4 {
            let (first, second) = (self.candidates.remove(0), self.candidates[0]);
            let limit = first.sent.limit.max(second.sent.limit);
            let later = first.sent.steps_at.max(second.sent.steps_at);
            let earlier = first.sent.steps_at.min(second.sent.steps_at);
            let steps_at = if limit < self.fallback { earlier } else { later };
            let least = |sent: SentLimit| sent.maybe.unwrap_or(sent.limit).min(self.fallback);
            let maybe = Some(least(first.sent).min(least(second.sent)));
            let sent = SentLimit { limit, sent_at: first.sent.sent_at, steps_at, maybe };
            self.candidates[0] = Candidate { sent, straggles_until: first.straggles_until.max(second.straggles_until) };
        }
    }

    fn take_pending(&mut self, call: u64) -> Option<Pending> {
        let index = self.pending.iter().position(|pending| pending.call == call)?;
        Some(self.pending.remove(index))
    }

    /// What is on its way was accepted.
    pub fn accepted(&mut self, call: u64, now: Mono) {
        let Some(done) = self.take_pending(call) else { return };
        let before = self.in_force(None, now);
        let allows = match done.told {
            Told::Base => self.fallback,
            Told::Limit => self.worst_of(&done.sent, now),
        };
        match done.told {
            Told::Base => self.base_accepted(done.sent, now),
            Told::Limit => self.limit_accepted(done.sent),
        }
        self.booted_at = None;
        self.booted_before = false;
        self.refused_at = None;
        // Also where all that may be in force does not look lower: a raise that is not answered yet hides it, and may be refused.
        if allows < before {
            self.settle(before, now.plus_ms(self.reaction_ms), now);
        }
    }

    fn base_accepted(&mut self, sent: SentLimit, now: Mono) {
        if !self.tamed && self.candidates.is_empty() {
            // Nothing is known of what lies above the base.
            self.remember(self.unknown(now));
        }
        self.base = Some(sent);
        self.base_in_force = true;
        self.base_refusals = 0;
        self.tamed = true;
    }

    fn limit_accepted(&mut self, sent: SentLimit) {
        let waits = |candidate: &Candidate| self.pending.iter().any(|other| other.sent == candidate.sent);
        // One that is not answered and was sent later may be in force instead: this answer may be late.
        let later = |candidate: &Candidate| {
            self.owed.iter().any(|other| other.sent == candidate.sent && other.sent.sent_at > sent.sent_at)
        };
        self.candidates.retain(|candidate| {
            let straggles = candidate.straggles_until.is_some_and(|until| sent.sent_at < until);
            candidate.sent == sent || straggles || waits(candidate) || later(candidate)
        });
        if self.candidates.iter().all(|candidate| candidate.sent != sent) {
            self.candidates.insert(0, Candidate { sent, straggles_until: None });
        }
        self.base_in_force = false;
        self.refused_limit = self.refused_limit.filter(|refused| sent.limit < *refused);
        if sent.limit == Current::ZERO {
            self.pause_refusals.0 = 0;
        }
        self.confirmed = true;
        self.tamed = self.form != LeaseForm::None && (!self.form.has_base() || self.base.is_some());
    }

    fn settle(&mut self, old: Current, until: Mono, now: Mono) {
        self.settling.retain(|(other, end)| *end > now && (*other > old || *end > until));
        if self.settling.iter().all(|(other, end)| *other < old || *end < until) {
            self.settling.push((old, until));
        }
        // A station takes one call at a time, so that there are never many within its reaction time.
        if self.settling.len() > MOST_SETTLING {
            let (first, end) = self.settling.remove(0);
            let (other, later) = self.settling[0];
            self.settling[0] = (first.max(other), end.max(later));
        }
        self.settles_until = self.settling.iter().map(|(_, end)| *end).max().unwrap_or(now);
    }

    /// The old limits that a car may still be drawing, with some that are over.
    fn old_limits(&self, now: Mono) -> &[(Current, Mono)] {
        if now < self.settles_until { &self.settling } else { &[] }
    }

    /// What is on its way was refused: it is not in force. `status`: by a status, not by an error.
    pub fn refused(&mut self, call: u64, now: Mono) {
        if let Some(pending) = self.pending.iter().find(|pending| pending.call == call) {
            let refused = pending.sent;
            self.candidates.retain(|candidate| candidate.sent != refused);
        }
        self.count_refusal(call, now);
        self.failed(call, now);
    }

    /// What is on its way ended in an error: it is refused, and may be in force all the same.
    pub fn failed(&mut self, call: u64, now: Mono) {
        if let Some(done) = self.take_pending(call)
            && done.told == Told::Limit
        {
            self.refused_limit = Some(done.sent.limit);
        }
        self.refused_at = Some(now);
    }

    /// What is on its way ended in an error that says that the station knows no such thing (`NotSupported`, `NotImplemented`).
    pub fn unsupported(&mut self, call: u64, now: Mono) {
        self.count_refusal(call, now);
        self.failed(call, now);
    }

    fn count_refusal(&mut self, call: u64, now: Mono) {
        let Some(pending) = self.pending.iter().find(|pending| pending.call == call) else { return };
        match pending.told {
            Told::Base => self.base_refusals = self.base_refusals.saturating_add(1),
            Told::Limit if pending.sent.limit == Current::ZERO => {
                self.pause_refusals = (self.pause_refusals.0.saturating_add(1), now);
            }
            // It refuses whatever it is told: that says nothing of pauses.
            Told::Limit if !self.refuses_pause() => self.pause_refusals.0 = 0,
            Told::Limit => {}
        }
    }

    /// The limit that it refused last, if it has not accepted as much since.
    #[must_use]
    pub const fn refused_limit(&self) -> Option<Current> {
        self.refused_limit
    }

    /// Whether it has refused a pause again and again: it can be given its minimum at least.
    #[must_use]
    pub const fn refuses_pause(&self) -> bool {
        self.pause_refusals.0 >= PAUSE_REFUSALS
    }

    /// A refused pause is not remembered for ever.
    pub fn forget_refusals(&mut self, now: Mono) {
        if now.since(self.pause_refusals.1) >= PAUSE_ASKED_AGAIN_MS {
            self.pause_refusals = (0, now);
        }
    }

    /// The station has booted, or its clock was set: what it keeps over that is not certain before it accepts a limit again.
    pub fn booted(&mut self, now: Mono) {
        // A second time before it has accepted anything makes nothing more certain.
        self.booted_at.get_or_insert(now);
        self.base = None;
        self.base_refusals = 0;
        self.refused_at = None;
        self.refused_limit = None;
        self.pause_refusals = (0, now);
    }

    /// Another transaction runs, or none: a profile of the last one is gone with it (OCPP 1.6 §3.13.1, 2.0.1 K01.FR.39).
    pub fn transaction_changed(&mut self) {
        if self.form == LeaseForm::TxProfile {
            self.candidates.clear();
            self.pending.retain(|pending| pending.told == Told::Base);
            self.owed.clear();
            self.base_in_force = true;
        }
    }

    /// Whether the base has to be confirmed before any limit may be sent: a limit that ends with nothing below it would leave the
    /// station without any.
    #[must_use]
    pub fn needs_base(&self) -> bool {
        let given_up = self.form == LeaseForm::TxProfile && self.base_refusals >= BASE_REFUSALS;
        self.form.has_base() && self.base.is_none() && !given_up
    }

    /// Whether it has refused the base again and again.
    #[must_use]
    pub const fn refuses_base(&self) -> bool {
        self.base_refusals >= BASE_REFUSALS
    }

    /// What waits for its answer and was sent last.
    #[must_use]
    pub fn pending(&self) -> Option<Pending> {
        self.pending.last().copied()
    }

    /// What waits for its answer under the caller's number.
    #[must_use]
    pub fn pending_by(&self, call: u64) -> Option<Pending> {
        self.pending.iter().find(|pending| pending.call == call).copied()
    }

    /// How many messages wait for their answers.
    #[must_use]
    pub const fn pending_count(&self) -> usize {
        self.pending.len()
    }

    /// When it last refused a limit, if it has accepted none since.
    #[must_use]
    pub const fn refused_at(&self) -> Option<Mono> {
        self.refused_at
    }

    /// The limit last sent that may be in force: what the EVSE is **offered**.
    #[must_use]
    pub fn offered(&self) -> Option<SentLimit> {
        let sent = self.candidates.last().map(|candidate| candidate.sent).or(self.base);
        sent.filter(|_| self.tamed || !self.pending.is_empty() || !self.holds())
    }

    /// Whether it has booted, or its clock was set, and it has accepted no limit since.
    #[must_use]
    pub const fn has_booted(&self) -> bool {
        self.booted_before || self.booted_at.is_some()
    }

    /// Whether a new limit must be sent although nothing changes: it has just booted, or it was told nothing in this run.
    #[must_use]
    pub const fn needs_limit(&self) -> bool {
        self.booted_at.is_some() || !self.confirmed
    }

    /// The most that the station's own schedule may allow now, by everything that was sent but one: without what its car may still draw while it
    /// follows a cut.
    #[must_use]
    pub fn in_force(&self, without: Option<SentLimit>, now: Mono) -> Current {
        let known = if self.holds() { self.tamed } else { self.confirmed };
        let boot_uncertain = self.booted_before || self.booted_at.is_some_and(|since| now.since(since) > BOOT_GRACE_MS);
        if !known || boot_uncertain {
            return self.max;
        }
        let base = if self.base_in_force { self.base_level() } else { Current::ZERO };
        let told = self.candidates.iter().filter(|candidate| Some(candidate.sent) != without);
        let worst = told.map(|candidate| self.worst_of(&candidate.sent, now)).max();
        match worst {
            Some(worst) => worst.max(base),
            None if self.holds() => self.fallback.max(base),
            None => self.max,
        }
    }

    /// What lies below all limits that were sent.
    const fn base_level(&self) -> Current {
        if self.base_refusals >= BASE_REFUSALS { self.max } else { self.fallback }
    }

    /// The least that may be in force by what it was told, without what waits for its answer under a number: more than this may be a raise.
    #[must_use]
    pub fn least(&self, without: Option<u64>, now: Mono) -> Current {
        let ignored = without.and_then(|call| self.pending_by(call)).map(|pending| pending.sent);
        let told = self.candidates.iter().filter(|candidate| Some(candidate.sent) != ignored);
        let least = told.map(|candidate| self.best_of(&candidate.sent, now)).min();
        let known = if self.holds() { self.tamed } else { self.confirmed };
        if !known && least.is_none() {
            return self.max;
        }
        let base = self.base_in_force.then(|| self.base_level());
        let left = if self.holds() { self.fallback } else { self.max };
        least.into_iter().chain(base).min().unwrap_or(left)
    }

    /// The most that the EVSE may be drawing by what it was told. `reachable`: a station without a working lease counts at its
    /// maximum whenever it is silent.
    #[must_use]
    pub fn committed(&self, reachable: bool, now: Mono) -> Current {
        self.committed_without(None, reachable, now)
    }

    /// The same without a limit that has not left yet.
    #[must_use]
    pub fn committed_without(&self, without: Option<SentLimit>, reachable: bool, now: Mono) -> Current {
        if self.suspect || (!self.holds() && !reachable) {
            return self.max;
        }
        let settling = self.old_limits(now).iter().filter(|(_, until)| now < *until).map(|(old, _)| *old).max();
        let settling = settling.unwrap_or(Current::ZERO);
        // Some stations drop the profile of a transaction as soon as they are offline (`IgnoredProfilePurposesOffline`).
        let dropped = self.form == LeaseForm::TxProfile && !reachable;
        let base = if dropped { self.base_level() } else { Current::ZERO };
        self.in_force(without, now).max(settling).max(base).min(self.max)
    }

    /// Whether a cut is still working its way to the car.
    #[must_use]
    pub fn is_settling(&self, now: Mono) -> bool {
        !self.pending.is_empty() || self.old_limits(now).iter().any(|(_, until)| now < *until)
    }
}

#[cfg(test)]
#[path = "tether_tests.rs"]
mod tests;
