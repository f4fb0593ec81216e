//! What decides an offer. Every offer has one.

use super::{BackgroundSource, LimitSource};
use crate::engine::model::topology::{CircuitIndex, Topology};
use crate::engine::units::{Current, Phase};

/// A circuit and phase that leaves no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bottleneck {
    /// The circuit.
    pub circuit: CircuitIndex,
    /// The phase.
    pub phase: Phase,
    /// The limit in force there.
    pub limit: Current,
    /// Where the limit comes from.
    pub limit_source: LimitSource,
    /// What everything but the EVSEs draws there.
    pub background: Current,
    /// Where that comes from.
    pub background_source: BackgroundSource,
}

/// What decides an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// No transaction, or the car wants nothing.
    NoDemand,
    /// What the car takes, with a margin.
    Demand,
    /// The EVSE's own maximum.
    EvseMaximum,
    /// A circuit and phase is full.
    Circuit(Bottleneck),
    /// The minimum does not fit: it waits for its turn.
    Queue(Bottleneck),
    /// The circuit's meter is silent and no unmeasured load is configured: fallback only.
    MeterLost {
        /// The circuit.
        circuit: CircuitIndex,
    },
    /// It could use less than its minimum only.
    BelowMinimum,
    /// The target is higher, but cuts elsewhere are not confirmed yet.
    RaisePending(Bottleneck),
    /// No limit can be sent to it now.
    Unreachable,
}

impl Binding {
    /// A short name for interfaces.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NoDemand => "no_demand",
            Self::Demand => "demand",
            Self::EvseMaximum => "evse_maximum",
            Self::Circuit(bottleneck) => match bottleneck.limit_source {
                LimitSource::Configured => "circuit",
                LimitSource::External => "external_limit",
            },
            Self::Queue(_) => "queue",
            Self::MeterLost { .. } => "stale_meter",
            Self::BelowMinimum => "below_minimum",
            Self::RaisePending(_) => "raise_pending",
            Self::Unreachable => "unreachable",
        }
    }

    /// The circuit and phase that decides, where one does.
    #[must_use]
    pub const fn bottleneck(&self) -> Option<&Bottleneck> {
        match self {
            Self::Circuit(bottleneck) | Self::Queue(bottleneck) | Self::RaisePending(bottleneck) => Some(bottleneck),
            Self::NoDemand
            | Self::Demand
            | Self::EvseMaximum
            | Self::MeterLost { .. }
            | Self::BelowMinimum
            | Self::Unreachable => None,
        }
    }
}

impl Bottleneck {
    /// The circuit and phase with its amounts, such as `circuit garage L2: limit 63.0 A, other load 12.3 A`.
    #[must_use]
    pub fn describe(&self, topology: &Topology) -> String {
        let id = &topology.circuit(self.circuit).id;
        let lowered = match self.limit_source {
            LimitSource::Configured => "",
            LimitSource::External => " (lowered from outside)",
        };
        let load = match self.background_source {
            BackgroundSource::Meter => format!("other load {}", self.background),
            BackgroundSource::Configured => format!("other load {} (configured, not measured)", self.background),
            BackgroundSource::Unknown => "other load unknown (its meter is silent)".to_owned(),
            BackgroundSource::None => "no other load".to_owned(),
        };
        format!("circuit {id} {}: limit {}{lowered}, {load}", self.phase, self.limit)
    }
}
