//! Plans one after the other, as the control makes them: what is offered is committed in the next cycle, whoever gets his minimum is
//! served since then, whoever loses it waits since then.

use siteward::engine::model::topology::{EvseIndex, Topology};
use siteward::engine::plan::{Plan, PlanState, SHORTEST_WAIT_MS, TURN_MS, plan};
use siteward::engine::time::Mono;
use siteward::engine::units::Current;

pub(crate) struct Rota<'a> {
    topology: &'a Topology,
    state: PlanState,
    now: Mono,
    step_ms: u64,
    pub(crate) plan: Plan,
    pub(crate) served_ms: Vec<u64>,
    pub(crate) pauses: usize,
    pub(crate) longest_wait_ms: u64,
    /// The earliest start that each has been told while it waits.
    promised: Vec<Option<Mono>>,
    pub(crate) broken_promises: Vec<String>,
    /// Whose cars take nothing of what they are offered, and how often that was seen.
    pub(crate) idle: Vec<Option<u32>>,
}

/// So long after its turn began it is seen that a car takes nothing.
const SEEN_MS: u64 = 60_000;

impl<'a> Rota<'a> {
    pub(crate) fn new(topology: &'a Topology, state: PlanState, step_ms: u64) -> Self {
        Self::starting_at(topology, state, step_ms, crate::NOW)
    }

    pub(crate) fn starting_at(topology: &'a Topology, state: PlanState, step_ms: u64, now: Mono) -> Self {
        let count = state.evses.len();
        Self {
            topology,
            state,
            now,
            step_ms,
            plan: Plan::default(),
            served_ms: vec![0; count],
            pauses: 0,
            longest_wait_ms: 0,
            promised: vec![None; count],
            broken_promises: Vec::new(),
            idle: vec![None; count],
        }
    }

    pub(crate) fn step(&mut self) {
        self.plan = plan(self.topology, &self.state, self.now);
        let places: Vec<Option<Mono>> = (0..self.state.evses.len())
            .map(|index| self.plan.queue.iter().find(|place| place.evse == EvseIndex(index)).map(|place| place.starts))
            .collect();
        for (index, (evse, offer)) in self.state.evses.iter_mut().zip(&self.plan.offers).enumerate() {
            evse.committed = evse.phases.spread(offer.limit);
            if let Some(deadline) = &mut evse.deadline {
                let charge = i64::from(offer.limit.ma()) * i64::try_from(self.step_ms).expect("small") / 1000;
                deadline.missing_ma_s = (deadline.missing_ma_s - charge).max(0);
            }
            if offer.limit >= evse.min && offer.limit > Current::ZERO {
                self.served_ms[index] += self.step_ms;
                if let (Some(turns), Some(since)) = (&mut self.idle[index], evse.served_since)
                    && self.now.since(since) >= SEEN_MS
                    && evse.rests_until.is_none()
                {
                    evse.rests_until = Some(self.now.plus_ms(TURN_MS << (*turns).min(3)));
                    *turns += 1;
                }
                if evse.served_since.is_none() {
                    let stands = evse.rests_until.map(|until| until.minus_ms(SHORTEST_WAIT_MS));
                    evse.rests_until = evse.rests_until.filter(|until| *until > self.now);
                    evse.served_since = Some(self.now);
                    self.longest_wait_ms =
                        self.longest_wait_ms.max(self.now.since(evse.wants_since.unwrap_or(self.now)));
                    evse.wants_since = evse.wants_since.max(stands);
                    if let Some(promised) = self.promised[index].take().filter(|promised| *promised < self.now) {
                        let late = self.now.since(promised) / 1000;
                        self.broken_promises.push(format!("{index} began {late} s later than it was told"));
                    }
                }
            } else if evse.served_since.take().is_some() {
                self.pauses += 1;
                evse.wants_since = Some(self.now);
            }
            let told = [self.promised[index], places[index]].into_iter().flatten().min();
            self.promised[index] = if evse.served_since.is_some() { None } else { told };
            if self.promised[index].is_some_and(|promised| promised < self.now) {
                self.broken_promises.push(format!("{index} waits longer than it was told"));
                self.promised[index] = None;
            }
        }
        self.now = self.now.plus_ms(self.step_ms);
    }

    pub(crate) fn everybody_was_served(&self) -> bool {
        self.served_ms.iter().all(|served| *served > 0)
    }
}
