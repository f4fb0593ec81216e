//! Rules that are broken on purpose, to see that the oracle of the virtual world and the guard notice. Only a build with the feature
//! `sabotage` can break one, and the product's binary does not compile with it.

#[cfg(feature = "sabotage")]
use super::Site;
#[cfg(feature = "sabotage")]
use crate::engine::model::topology::{Circuit, EvseIndex, Topology};
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
    /// Powers are not limited, neither those of the configuration nor those from outside.
    ForgetPowers,
    /// The unbalance is not limited: everybody is taken to draw as much on each phase.
    ForgetUnbalance,
    /// Transaction messages are answered before their records are on disk.
    AnswerBeforeDurable,
    /// Limits last for a day before they step down by themselves.
    NoLease,
}

#[cfg(feature = "sabotage")]
impl Site {
    /// Breaks a rule from now on.
    pub fn sabotage(&mut self, rule: Sabotage) {
        self.sabotage = Some(rule);
        match rule {
            Sabotage::ForgetPowers => self.forget(|circuit| circuit.max_power = None),
            Sabotage::ForgetUnbalance => self.forget(|circuit| circuit.max_unbalance = None),
            Sabotage::RaiseBeforeCutsConfirmed
            | Sabotage::ForgetSilentStations
            | Sabotage::MeterMissingIsZero
            | Sabotage::AnswerBeforeDurable
            | Sabotage::NoLease => {}
        }
    }

    /// Makes the site forget something of each circuit. Its guard has a wiring of its own.
    fn forget(&mut self, what: impl Fn(&mut Circuit)) {
        let known = &self.setup.topology;
        let mut circuits = known.circuits().to_vec();
        circuits.iter_mut().for_each(what);
        let devices = (known.meters().to_vec(), known.inverters().to_vec());
        let parts = (known.site().clone(), known.voltage(), known.stations().to_vec());
        if let Ok(topology) = Topology::new(parts.0, parts.1, circuits, parts.2, devices) {
            self.setup.topology = topology;
        }
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
        if self.sabotage == Some(Sabotage::ForgetPowers) {
            self.plan_state.circuits.iter_mut().for_each(|state| {
                (state.max_power, state.charging_power) = (None, None);
            });
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
