//! Which of a station's phases a car uses.
//!
//! Without knowing it, a car counts on every phase that its station is wired to: the worst phase decides. Where `[charging]
//! learn_car_phases` allows it, a car that leaves phases unused for a while gives them up for the rest of its transaction. The risk that is
//! left: it begins to use such a phase, and is seen only with its next sample. That ends what was learned at once and for good.

use crate::engine::model::ids::TransactionId;
use crate::engine::time::Mono;
use crate::engine::units::{Current, PerPhase, PhaseSet};

/// A phase with more than this is used.
const USED: Current = Current::from_a(3);

/// A phase with less than this is not.
const UNUSED: Current = Current::from_a(1);

/// For so long all samples must agree.
const AGREED_MS: u64 = 60_000;

/// What is learned of one car.
#[derive(Clone, Debug, Default)]
pub(super) struct CarPhases {
    transaction: Option<TransactionId>,
    /// The phases used since when, by samples without a gap.
    agreed: Option<(PhaseSet, Mono)>,
    last: Option<Mono>,
    learned: Option<PhaseSet>,
    /// A sample has contradicted what was learned.
    spoiled: bool,
}

impl CarPhases {
    /// The running transaction. Another one is another car.
    pub(super) fn transaction(&mut self, transaction: Option<&TransactionId>) {
        if self.transaction.as_ref() != transaction {
            *self = Self { transaction: transaction.cloned(), ..Self::default() };
        }
    }

    /// A sample with a current for each of the `wired` phases. Samples further apart than `gap_ms` prove nothing about the time between.
    pub(super) fn sample(&mut self, current: PerPhase<Current>, wired: PhaseSet, now: Mono, gap_ms: u64) {
        let gap = self.last.replace(now).is_none_or(|last| now.since(last) > gap_ms);
        if self.transaction.is_none() || self.spoiled {
            return;
        }
        let quiet: PhaseSet = wired.iter().filter(|phase| current.of(*phase) < UNUSED).collect();
        if let Some(learned) = self.learned {
            let contradicted = wired.iter().any(|phase| !learned.contains(phase) && !quiet.contains(phase));
            self.spoiled = contradicted;
            self.learned = self.learned.filter(|_| !contradicted);
            return;
        }
        let used: PhaseSet = wired.iter().filter(|phase| current.of(*phase) > USED).collect();
        let clear = !used.is_empty() && !quiet.is_empty() && used.len() + quiet.len() == wired.len();
        match self.agreed.filter(|(phases, _)| clear && !gap && *phases == used) {
            Some((phases, since)) if now.since(since) >= AGREED_MS => self.learned = Some(phases),
            Some(_) => {}
            None => self.agreed = clear.then_some((used, now)),
        }
    }

    /// The phases that the car uses, if that is known and its last sample is not older than `gap_ms`.
    pub(super) fn learned(&self, now: Mono, gap_ms: u64) -> Option<PhaseSet> {
        self.learned.filter(|_| self.last.is_some_and(|last| now.since(last) <= gap_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::units::Phase;

    const GAP_MS: u64 = 30_000;

    fn car() -> CarPhases {
        let mut car = CarPhases::default();
        car.transaction(Some(&TransactionId::new("1")));
        car
    }

    fn draw(car: &mut CarPhases, amperes: [i32; 3], from_s: u64, seconds: u64) {
        let [l1, l2, l3] = amperes.map(Current::from_a);
        for second in (from_s..from_s + seconds).step_by(10) {
            car.sample(PerPhase::new(l1, l2, l3), PhaseSet::ALL, Mono::from_ms(second * 1_000), GAP_MS);
        }
    }

    fn l1() -> PhaseSet {
        PhaseSet::EMPTY.with(Phase::L1)
    }

    #[test]
    fn a_phase_that_is_not_used_for_a_minute_is_given_up() {
        let mut car = car();
        draw(&mut car, [10, 0, 0], 0, 60);
        assert_eq!(car.learned(Mono::from_ms(50_000), GAP_MS), None);
        draw(&mut car, [10, 0, 0], 60, 10);
        assert_eq!(car.learned(Mono::from_ms(60_000), GAP_MS), Some(l1()));
        // A pause does not contradict.
        draw(&mut car, [0, 0, 0], 70, 10);
        assert_eq!(car.learned(Mono::from_ms(70_000), GAP_MS), Some(l1()));
    }

    #[test]
    fn a_sample_that_contradicts_ends_it_for_the_whole_transaction() {
        let mut car = car();
        draw(&mut car, [10, 0, 0], 0, 70);
        draw(&mut car, [10, 1, 0], 70, 10);
        assert_eq!(car.learned(Mono::from_ms(70_000), GAP_MS), None);
        draw(&mut car, [10, 0, 0], 80, 120);
        assert_eq!(car.learned(Mono::from_ms(190_000), GAP_MS), None);
        car.transaction(Some(&TransactionId::new("2")));
        draw(&mut car, [10, 0, 0], 200, 70);
        assert_eq!(car.learned(Mono::from_ms(260_000), GAP_MS), Some(l1()));
    }

    #[test]
    fn between_one_and_three_amperes_nothing_is_learned() {
        let mut car = car();
        draw(&mut car, [10, 2, 0], 0, 200);
        assert_eq!(car.learned(Mono::from_ms(190_000), GAP_MS), None);
    }

    #[test]
    fn a_gap_in_the_samples_begins_the_minute_anew_and_silence_ends_it() {
        let mut car = car();
        draw(&mut car, [10, 0, 0], 0, 40);
        draw(&mut car, [10, 0, 0], 80, 40);
        assert_eq!(car.learned(Mono::from_ms(110_000), GAP_MS), None);
        draw(&mut car, [10, 0, 0], 120, 30);
        assert_eq!(car.learned(Mono::from_ms(170_000), GAP_MS), Some(l1()));
        assert_eq!(car.learned(Mono::from_ms(170_001), GAP_MS), None);
    }

    #[test]
    fn without_a_transaction_nothing_is_learned() {
        let mut car = CarPhases::default();
        draw(&mut car, [10, 0, 0], 0, 200);
        assert_eq!(car.learned(Mono::from_ms(190_000), GAP_MS), None);
    }
}
