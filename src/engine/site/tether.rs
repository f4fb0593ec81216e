//! What one EVSE was told, what of it is confirmed, and what it may therefore be drawing: its **committed** current.
//!
//! A limit is a lease (design §4): it decays to the fallback by the station's own clock when nobody renews it. A limit at or above the fallback
//! steps down after [`StationModel::lease_ms`]. A limit below it (a pause) steps **up**, and that must not happen before every other
//! lease of the site has stepped down, so it lasts [`STEP_UP_DELAY_MS`] longer.

use crate::engine::model::topology::{LeaseForm, StationModel};
use crate::engine::time::Mono;
use crate::engine::units::Current;

/// How much longer a lease below the fallback lasts than others: more than the longest renewal interval plus the margins, so that after
/// the controller's death the last step down comes before the first step up.
pub const STEP_UP_DELAY_MS: u64 = 60_000;

/// How far the moment of a lease's step is taken to be uncertain: clocks, whole seconds in the schedule, the delay of the message.
pub const STEP_MARGIN_MS: u64 = 20_000;

/// How long a station that has just booted is still taken to hold its profile while it has not accepted a new one: no car draws before that.
const BOOT_GRACE_MS: u64 = 5_000;

/// A limit as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentLimit {
    /// The current per phase.
    pub limit: Current,
    /// When it was sent.
    pub sent_at: Mono,
    /// When it steps to the fallback by itself.
    pub steps_at: Mono,
}

/// The limits of one EVSE, as far as they may be in force.
#[derive(Clone, Debug)]
pub struct Tether {
    max: Current,
    fallback: Current,
    lease: LeaseForm,
    lease_ms: u64,
    reaction_ms: u64,
    /// It has accepted a decaying limit at some time: it falls back by itself.
    tamed: bool,
    /// Sent limits of which any may be in force: the last accepted one, and what was sent after it.
    candidates: Vec<SentLimit>,
    /// The limit whose answer is awaited.
    pending: Option<SentLimit>,
    /// After a cut the car may still draw the old current until then.
    settling: Option<(Current, Mono)>,
    /// Since when a booted station has not accepted a limit yet.
    booted_at: Option<Mono>,
    /// When it last refused one.
    refused_at: Option<Mono>,
    /// It has accepted a limit in this run.
    confirmed: bool,
    /// The limit that it refused last, until it accepts as much.
    refused_limit: Option<Current>,
    /// It has refused a limit of 0 in this run (quirk: some stations know no pause by profile).
    refuses_pause: bool,
}

impl Tether {
    /// An EVSE of which nothing is known but whether it was tamed before. If it was, whatever it was told may still be in force
    /// for the whole lease.
    #[must_use]
    pub fn new(max: Current, fallback: Current, model: &StationModel, tamed: bool, now: Mono) -> Self {
        let steps_at = now.plus_ms(model.lease_ms + STEP_UP_DELAY_MS);
        let unknown = SentLimit { limit: max, sent_at: now, steps_at };
        Self {
            max,
            fallback,
            lease: model.lease,
            lease_ms: model.lease_ms,
            reaction_ms: model.reaction_ms,
            tamed,
            candidates: if tamed { vec![unknown] } else { Vec::new() },
            pending: None,
            settling: None,
            booted_at: None,
            refused_at: None,
            refused_limit: None,
            confirmed: false,
            refuses_pause: false,
        }
    }

    /// Takes over what an earlier run of the daemon had told the EVSE.
    pub fn restore(&mut self, limits: Vec<SentLimit>) {
        if self.tamed && !limits.is_empty() {
            self.candidates = limits;
        }
    }

    /// What may be in force, to be restored by the next run.
    #[must_use]
    pub fn candidates(&self) -> &[SentLimit] {
        &self.candidates
    }

    /// How long a limit lasts from now on, in ms.
    #[must_use]
    pub fn lasts_ms(&self, limit: Current) -> u64 {
        if limit < self.fallback { self.lease_ms + STEP_UP_DELAY_MS } else { self.lease_ms }
    }

    /// A limit is on its way.
    pub fn sent(&mut self, limit: Current, now: Mono) {
        let sent = SentLimit { limit, sent_at: now, steps_at: now.plus_ms(self.lasts_ms(limit)) };
        if let Some(unanswered) = self.pending.replace(sent) {
            self.remember(unanswered);
        }
        self.remember(sent);
    }

    /// Bounded, so that a station that never answers costs nothing: the two oldest become one that is at least as bad as both.
    fn remember(&mut self, sent: SentLimit) {
        if self.candidates.contains(&sent) {
            return;
        }
        self.candidates.push(sent);
        if self.candidates.len() > 4 {
            let (first, second) = (self.candidates.remove(0), self.candidates[0]);
            let limit = first.limit.max(second.limit);
            let later = first.steps_at.max(second.steps_at);
            let earlier = first.steps_at.min(second.steps_at);
            let steps_at = if limit < self.fallback { earlier } else { later };
            self.candidates[0] = SentLimit { limit, sent_at: first.sent_at, steps_at };
        }
    }

    /// The limit on its way was accepted.
    pub fn accepted(&mut self, now: Mono) {
        let Some(sent) = self.pending.take() else { return };
        let before = self.in_force(now);
        if sent.limit < before {
            let until = now.plus_ms(self.reaction_ms);
            let old = self.settling.filter(|(_, end)| *end > now).map_or(before, |(old, _)| old.max(before));
            self.settling = Some((old, until));
        }
        self.candidates = vec![sent];
        self.booted_at = None;
        self.refused_at = None;
        self.refused_limit = self.refused_limit.filter(|refused| sent.limit < *refused);
        self.confirmed = true;
        self.tamed = self.lease != LeaseForm::None;
    }

    /// The limit on its way was refused: it is not in force.
    pub fn refused(&mut self, now: Mono) {
        if let Some(sent) = self.pending {
            self.candidates.retain(|candidate| *candidate != sent);
        }
        self.failed(now);
    }

    /// The limit on its way ended in an error: it is refused, and may be in force all the same.
    pub fn failed(&mut self, now: Mono) {
        if let Some(sent) = self.pending.take() {
            self.refused_limit = Some(sent.limit);
            self.refuses_pause |= sent.limit == Current::ZERO;
        }
        self.refused_at = Some(now);
    }

    /// The limit that it refused last, if it has not accepted as much since.
    #[must_use]
    pub const fn refused_limit(&self) -> Option<Current> {
        self.refused_limit
    }

    /// The connection is lost. Without a lease nothing holds what it was told: it must accept it anew.
    pub fn disconnected(&mut self) {
        self.confirmed &= self.lease != LeaseForm::None;
    }

    /// Whether it has refused a pause: it can be given its minimum at least.
    #[must_use]
    pub const fn refuses_pause(&self) -> bool {
        self.refuses_pause
    }

    /// The limit on its way got no answer: it may or may not be in force.
    pub fn unanswered(&mut self) {
        self.pending = None;
    }

    /// The station has booted, or its clock was set: what it keeps over that is not certain before it accepts a limit again.
    pub fn booted(&mut self, now: Mono) {
        self.booted_at = Some(now);
        self.refused_at = None;
        self.refused_limit = None;
    }

    /// The limit whose answer is awaited.
    #[must_use]
    pub const fn pending(&self) -> Option<SentLimit> {
        self.pending
    }

    /// When it last refused a limit, if it has accepted none since.
    #[must_use]
    pub const fn refused_at(&self) -> Option<Mono> {
        self.refused_at
    }

    /// The limit last sent that may be in force: what the EVSE is **offered**.
    #[must_use]
    pub fn offered(&self) -> Option<SentLimit> {
        self.candidates
            .last()
            .copied()
            .filter(|_| self.tamed || self.pending.is_some() || self.lease == LeaseForm::None)
    }

    /// Whether a new limit must be sent although nothing changes: it has just booted, or it was told nothing in this run.
    #[must_use]
    pub const fn needs_limit(&self) -> bool {
        self.booted_at.is_some() || !self.confirmed
    }

    /// What the station's own schedule may allow now, by everything that was sent.
    fn in_force(&self, now: Mono) -> Current {
        let known = match self.lease {
            LeaseForm::TxDefaultProfile => self.tamed,
            LeaseForm::None => self.confirmed,
        };
        if !known {
            return self.max;
        }
        let boot_uncertain = self.booted_at.is_some_and(|since| now.since(since) > BOOT_GRACE_MS);
        if boot_uncertain {
            return self.max;
        }
        let worst = self.candidates.iter().map(|sent| self.worst_of(sent, now)).max();
        worst.unwrap_or(if self.lease == LeaseForm::None { self.max } else { self.fallback })
    }

    fn worst_of(&self, sent: &SentLimit, now: Mono) -> Current {
        if self.lease == LeaseForm::None {
            return sent.limit;
        }
        if now < sent.steps_at.minus_ms(STEP_MARGIN_MS) {
            sent.limit
        } else if now < sent.steps_at.plus_ms(STEP_MARGIN_MS + self.reaction_ms) {
            sent.limit.max(self.fallback)
        } else {
            self.fallback
        }
    }

    /// The most that the EVSE may be drawing by what it was told. `reachable`: a station without a working lease counts at its
    /// maximum whenever it is silent.
    #[must_use]
    pub fn committed(&self, reachable: bool, now: Mono) -> Current {
        if self.lease == LeaseForm::None && !reachable {
            return self.max;
        }
        let settling = self.settling.filter(|(_, until)| now < *until).map_or(Current::ZERO, |(old, _)| old);
        self.in_force(now).max(settling).min(self.max)
    }

    /// Whether a cut is still working its way to the car.
    #[must_use]
    pub fn is_settling(&self, now: Mono) -> bool {
        self.pending.is_some() || self.settling.is_some_and(|(_, until)| now < until)
    }

    /// The next moment at which the committed current may change by itself.
    #[must_use]
    pub fn next_change(&self, now: Mono) -> Option<Mono> {
        let steps = self.candidates.iter().flat_map(|sent| {
            [sent.steps_at.minus_ms(STEP_MARGIN_MS), sent.steps_at.plus_ms(STEP_MARGIN_MS + self.reaction_ms)]
        });
        let settled = self.settling.map(|(_, until)| until);
        let boot = self.booted_at.map(|since| since.plus_ms(BOOT_GRACE_MS + 1));
        steps.chain(settled).chain(boot).filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Mono = Mono::from_ms(10_000);

    fn amps(a: i32) -> Current {
        Current::from_a(a)
    }

    fn tether(tamed: bool) -> Tether {
        Tether::new(amps(32), amps(6), &StationModel::default(), tamed, START)
    }

    #[test]
    fn untamed_counts_at_its_maximum_until_it_accepts() {
        let mut tether = tether(false);
        assert_eq!(tether.committed(true, START), amps(32));
        tether.sent(amps(10), START);
        assert_eq!(tether.committed(true, START), amps(32));
        tether.accepted(START.plus_ms(100));
        // The car has until the end of its reaction time.
        assert_eq!(tether.committed(true, START.plus_ms(5_000)), amps(32));
        assert_eq!(tether.committed(true, START.plus_ms(5_100)), amps(10));
    }

    #[test]
    fn an_unanswered_raise_counts_and_an_unanswered_cut_does_not() {
        let mut tether = tether(true);
        tether.sent(amps(10), START);
        tether.accepted(START);
        let later = START.plus_ms(6_000);
        tether.sent(amps(16), later);
        assert_eq!(tether.committed(true, later), amps(16));
        tether.unanswered();
        assert_eq!(tether.committed(true, later), amps(16));
        tether.sent(amps(8), later);
        assert_eq!(tether.committed(true, later), amps(16));
        tether.refused(later);
        assert_eq!(tether.committed(true, later), amps(16));
        assert_eq!(tether.offered().map(|sent| sent.limit), Some(amps(16)));
    }

    #[test]
    fn silent_it_falls_to_the_fallback_when_the_lease_has_run_out() {
        let mut tether = tether(true);
        tether.sent(amps(20), START);
        tether.accepted(START);
        let step = START.plus_ms(120_000);
        assert_eq!(tether.committed(false, step.plus_ms(24_999)), amps(20));
        assert_eq!(tether.committed(false, step.plus_ms(25_000)), amps(6));
    }

    #[test]
    fn a_pause_is_counted_as_fallback_before_it_steps_up_and_after_all_steps_down() {
        let mut tether = tether(true);
        tether.sent(amps(0), START);
        tether.accepted(START);
        assert_eq!(tether.committed(false, START.plus_ms(159_999)), amps(0));
        assert_eq!(tether.committed(false, START.plus_ms(160_000)), amps(6));
        // 30 s renewal and 120 s lease: the last step down is over before the first step up counts.
        let model = StationModel::default();
        assert!(STEP_UP_DELAY_MS > model.renew_ms + STEP_MARGIN_MS + model.reaction_ms);
    }

    #[test]
    fn a_boot_makes_it_uncertain_after_a_moment() {
        let mut tether = tether(true);
        tether.sent(amps(0), START);
        tether.accepted(START);
        tether.booted(START);
        assert!(tether.needs_limit());
        assert_eq!(tether.committed(true, START.plus_ms(5_000)), amps(0));
        assert_eq!(tether.committed(true, START.plus_ms(5_001)), amps(32));
    }

    #[test]
    fn a_station_that_never_answers_stays_bounded_and_counted() {
        let mut tether = tether(true);
        tether.sent(amps(20), START);
        tether.accepted(START);
        for round in 0..100 {
            tether.sent(amps(6), START.plus_ms(round));
            tether.unanswered();
        }
        assert!(tether.candidates().len() <= 4);
        assert_eq!(tether.committed(true, START.plus_ms(10_000)), amps(20));
    }

    #[test]
    fn without_a_lease_silence_is_the_maximum() {
        let model = StationModel { lease: LeaseForm::None, ..StationModel::default() };
        let mut tether = Tether::new(amps(32), amps(32), &model, false, START);
        tether.sent(amps(8), START);
        tether.accepted(START);
        assert_eq!(tether.committed(true, START.plus_ms(200_000)), amps(8));
        assert_eq!(tether.committed(false, START.plus_ms(200_000)), amps(32));
    }
}
