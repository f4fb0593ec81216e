//! Rules that are broken on purpose, to see that the oracle of the virtual world and the guard notice. Only a build with the feature
//! `sabotage` can break one, and the product's binary does not compile with it.

#[cfg(feature = "sabotage")]
use super::Site;
#[cfg(feature = "sabotage")]
use crate::engine::model::topology::EvseIndex;
#[cfg(feature = "sabotage")]
use crate::engine::plan::BackgroundSource;
#[cfg(feature = "sabotage")]
use crate::engine::units::{Current, PerPhase};

/// A rule that can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// What was sent counts as what is drawn: raises do not wait for the cuts that pay for them.
    RaiseBeforeCutsConfirmed,
    /// A station that is out of reach counts nothing.
    ForgetSilentStations,
    /// A meter without a reading shows nothing: there is no other load.
    MeterMissingIsZero,
    /// Transaction messages are answered before their records are on disk.
    AnswerBeforeDurable,
    /// Limits last for a day before they step down by themselves.
    NoLease,
}

#[cfg(feature = "sabotage")]
impl Site {
    /// Breaks a rule from now on.
    pub const fn sabotage(&mut self, rule: Sabotage) {
        self.sabotage = Some(rule);
    }

    /// Whether a rule is broken.
    pub(super) fn breaks(&self, rule: Sabotage) -> bool {
        self.sabotage == Some(rule)
    }

    /// Falsifies what the planner is about to be told.
    pub(super) fn break_plan_state(&mut self) {
        for index in 0..self.evses.len() {
            let reachable = self.reachable(EvseIndex(index));
            let sent = self.evses[index].tether.offered().map_or(Current::ZERO, |sent| sent.limit);
            let state = &mut self.plan_state.evses[index];
            if reachable && self.sabotage == Some(Sabotage::RaiseBeforeCutsConfirmed) {
                state.committed = state.phases.spread(sent);
            } else if !reachable && self.sabotage == Some(Sabotage::ForgetSilentStations) {
                state.committed = PerPhase::splat(Current::ZERO);
            }
        }
        if self.sabotage != Some(Sabotage::MeterMissingIsZero) {
            return;
        }
        for (state, circuit) in self.plan_state.circuits.iter_mut().zip(self.setup.topology.circuits()) {
            if circuit.meter.is_some() && state.background_source != BackgroundSource::Meter {
                state.background = PerPhase::splat(Current::ZERO);
                state.background_source = BackgroundSource::None;
            }
        }
    }
}
