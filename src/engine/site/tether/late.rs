//! Limits that get no answer, one that comes too late, or are overtaken by a newer one.

use super::{CALL_TIMEOUT_MS, Candidate, Pending, Tether, Told};
use crate::engine::time::Mono;

/// So many limits without an answer are remembered: more than there are [`Candidate`]s would be of no use.
const MOST_OWED: usize = 5;

impl Tether {
    /// What is on its way got no answer: it may or may not be in force.
    pub fn unanswered(&mut self, call: u64) {
        if let Some(done) = self.take_pending(call) {
            self.owe(done);
        }
    }

    fn owe(&mut self, done: Pending) {
        self.owed.push(done);
        if self.owed.len() > MOST_OWED {
            self.owed.remove(0);
        }
    }

    /// What got no answer in time was answered now: it waits for what the answer says. `false`: the answer makes nothing certain any more.
    pub fn recall(&mut self, call: u64, now: Mono) -> bool {
        let Some(index) = self.owed.iter().position(|owed| owed.call == call) else { return false };
        let owed = self.owed.remove(index);
        if owed.told == Told::Base {
            self.pending.push(owed);
            return true;
        }
        let overtaken = self
            .candidates
            .iter()
            .any(|candidate| candidate.sent.sent_at > owed.sent.sent_at && self.is_answered(candidate));
        let Some(candidate) = self.candidates.iter_mut().find(|candidate| candidate.sent == owed.sent) else {
            return false;
        };
        if overtaken {
            // Which of the two the station has carried out last is not known, but it will not carry this one out any more.
            candidate.straggles_until = candidate.straggles_until.map(|until| until.min(now));
            return false;
        }
        candidate.straggles_until = None;
        self.pending.push(owed);
        true
    }

    fn is_answered(&self, candidate: &Candidate) -> bool {
        self.pending.iter().chain(&self.owed).all(|open| open.sent != candidate.sent)
    }

    /// What is on its way was overtaken by a cut: it may come into force even after the cut.
    pub fn overtaken(&mut self, call: u64, now: Mono) {
        let Some(done) = self.take_pending(call).filter(|done| done.told == Told::Limit) else { return };
        self.candidates.retain(|candidate| candidate.sent != done.sent);
        self.owe(done);
        let straggles_until = Some(now.plus_ms(CALL_TIMEOUT_MS));
        self.candidates.insert(0, Candidate { sent: done.sent, straggles_until });
    }

    /// What was on its way was taken back before it left.
    pub fn withdrawn(&mut self, call: u64) {
        if let Some(done) = self.take_pending(call) {
            self.candidates.retain(|candidate| candidate.sent != done.sent);
        }
    }

    /// Something overtaken has had its time: only a limit sent from now on says for sure what is in force.
    #[must_use]
    pub fn has_straggled(&self, now: Mono) -> bool {
        self.candidates.iter().any(|candidate| candidate.straggles_until.is_some_and(|until| until <= now))
    }

    /// Whether it never said that it has taken what was sent last, and will not: the connection was lost, or the answer. What was overtaken
    /// has its own time, see [`Tether::has_straggled`].
    #[must_use]
    pub fn is_unsure(&self) -> bool {
        let open = self.candidates.iter().filter(|candidate| candidate.straggles_until.is_none()).count();
        open > 1 && self.pending.is_empty() && self.refused_at.is_none()
    }

    /// Since when the oldest of what it was sent waits for its answer.
    #[must_use]
    pub fn waits_since(&self) -> Option<Mono> {
        self.pending.first().map(|pending| pending.sent.sent_at)
    }
}
