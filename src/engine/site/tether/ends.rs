//! When what was sent ends by itself, and what it allows until then.
//!
//! Most forms end at a moment of the station's schedule, which is known but for the clocks. `max-offline-duration` ends so long after the
//! station has gone offline, and only the station knows when that was: not before the limit was sent that it has accepted last; and, once
//! the connection is gone here, within the time that the station takes to notice it. While the connection stands there is no last moment.

use super::{BOOT_GRACE_MS, STEP_MARGIN_MS, SentLimit, Tether};
use crate::engine::model::topology::LeaseForm;
use crate::engine::time::Mono;
use crate::engine::units::Current;

impl Tether {
    /// The first and the last moment at which a limit may end by itself; no last one: it may hold for ever.
    fn ends(&self, sent: &SentLimit) -> (Mono, Option<Mono>) {
        let first = sent.steps_at.minus_ms(STEP_MARGIN_MS);
        let last = if self.form == LeaseForm::MaxOfflineDuration {
            // Of what an earlier run had sent only the end is known.
            let of_this_run = sent.sent_at > self.began_at;
            let lasts_ms = if of_this_run { sent.steps_at.since(sent.sent_at) } else { self.longest_ms() };
            self.offline_since.map(|since| since.plus_ms(self.notices_ms + lasts_ms))
        } else {
            Some(sent.steps_at)
        };
        (first, last.map(|last| last.plus_ms(STEP_MARGIN_MS + self.reaction_ms)))
    }

    /// The most that a limit allows now, or the base below it once it may be over.
    pub(super) fn worst_of(&self, sent: &SentLimit, now: Mono) -> Current {
        self.allowed_by(sent, now, Current::max)
    }

    /// The least. A lease that is not trusted may end by itself all the same.
    pub(super) fn best_of(&self, sent: &SentLimit, now: Mono) -> Current {
        let may_end = self.form != LeaseForm::None && !self.holds() && now >= self.ends(sent).0;
        let allowed = if may_end { sent.limit.min(self.fallback) } else { self.allowed_by(sent, now, Current::min) };
        let is_over = self.ends(sent).1.is_some_and(|last| last <= now);
        sent.maybe.filter(|_| !is_over).map_or(allowed, |maybe| maybe.min(allowed))
    }

    fn allowed_by(&self, sent: &SentLimit, now: Mono, of: fn(Current, Current) -> Current) -> Current {
        let after = if self.holds() { self.fallback } else { self.max };
        let (first, last) = self.ends(sent);
        if self.form == LeaseForm::None || now < first {
            sent.limit
        } else if last.is_none_or(|last| now < last) {
            of(sent.limit, after)
        } else {
            after
        }
    }

    /// Whether the version that its station spoke last knows the form.
    pub const fn spoke(&mut self, is_spoken: bool) {
        self.is_spoken = is_spoken;
    }

    /// Its station has connected. `is_spoken`: the version that it speaks knows the form. What ended while it was away does not come back; what may have
    /// ended is told anew.
    pub fn connected(&mut self, is_spoken: bool, now: Mono) {
        if self.form != LeaseForm::MaxOfflineDuration {
            (self.is_spoken, self.offline_since) = (is_spoken, None);
            return;
        }
        if self.is_spoken != is_spoken {
            self.is_spoken = is_spoken;
            self.forget(now);
        }
        let is_over = |sent: &SentLimit| self.ends(sent).1.is_some_and(|last| last <= now);
        let kept: Vec<_> = self.candidates.iter().filter(|candidate| !is_over(&candidate.sent)).copied().collect();
        self.base_in_force |= kept.len() < self.candidates.len();
        self.candidates = kept;
        self.offline_since = None;
        self.confirmed = false;
    }

    /// The connection is lost, and the answers with it. Without a lease nothing holds what it was told: it must accept it anew.
    pub fn disconnected(&mut self, now: Mono) {
        self.owed.clear();
        self.confirmed &= self.holds();
        self.offline_since.get_or_insert(now);
    }

    /// The next moment at which the committed current may change by itself.
    #[must_use]
    pub fn next_change(&self, now: Mono) -> Option<Mono> {
        let steps = self.candidates.iter().flat_map(|candidate| {
            let (first, last) = self.ends(&candidate.sent);
            [Some(first), last]
        });
        let settled = self.old_limits(now).iter().map(|(_, until)| *until);
        let boot = self.booted_at.map(|since| since.plus_ms(BOOT_GRACE_MS + 1));
        steps.flatten().chain(settled).chain(boot).filter(|at| *at > now).min()
    }
}
