//! What decides an offer. Every offer has one.

use super::{BackgroundSource, LimitSource};
use crate::engine::model::topology::{CircuitIndex, Topology};
use crate::engine::units::{Current, Phase, Power};

/// Which limit of a circuit it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Limited {
    /// The current of the phase.
    #[default]
    Current,
    /// The power of all phases together, at most this. The phase says nothing then.
    Power(Power),
    /// The power of all EVSEs together, at most this. The phase says nothing then.
    Charging(Power),
    /// What EVSEs put on the phase beyond another one.
    Unbalance {
        /// The phase that has less.
        against: Phase,
        /// The largest difference.
        limit: Current,
    },
}

/// A circuit and phase that leaves no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bottleneck {
    /// The circuit.
    pub circuit: CircuitIndex,
    /// The phase.
    pub phase: Phase,
    /// Which of its limits is reached.
    pub limited: Limited,
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
    /// It has as much as it needs to be ready in time, which is more than its fair share; the circuit and phase keeps it from more.
    Deadline(Bottleneck),
    /// The target is higher, but cuts elsewhere are not confirmed yet.
    RaisePending(Bottleneck),
    /// The target is higher, but the circuit's ramp lets it rise slowly only.
    Ramp {
        /// The circuit.
        circuit: CircuitIndex,
    },
    /// The target is higher, but its limit was changed too often lately.
    Hold,
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
            Self::Circuit(bottleneck) => match (bottleneck.limited, bottleneck.limit_source) {
                (Limited::Current, LimitSource::Configured) => "circuit",
                (Limited::Current, LimitSource::External) => "external_limit",
                (Limited::Power(_), LimitSource::Configured) => "power",
                (Limited::Power(_), LimitSource::External) | (Limited::Charging(_), _) => "external_limit",
                (Limited::Unbalance { .. }, _) => "unbalance",
            },
            Self::Queue(_) => "queue",
            Self::MeterLost { .. } => "stale_meter",
            Self::BelowMinimum => "below_minimum",
            Self::Deadline(_) => "deadline",
            Self::RaisePending(_) => "raise_pending",
            Self::Ramp { .. } => "ramp",
            Self::Hold => "hold",
            Self::Unreachable => "unreachable",
        }
    }

    /// The circuit and phase that decides, where one does.
    #[must_use]
    pub const fn bottleneck(&self) -> Option<&Bottleneck> {
        match self {
            Self::Circuit(bottleneck)
            | Self::Queue(bottleneck)
            | Self::Deadline(bottleneck)
            | Self::RaisePending(bottleneck) => Some(bottleneck),
            Self::NoDemand
            | Self::Demand
            | Self::EvseMaximum
            | Self::MeterLost { .. }
            | Self::BelowMinimum
            | Self::Ramp { .. }
            | Self::Hold
            | Self::Unreachable => None,
        }
    }
}

impl Bottleneck {
    /// The limit with its amounts, such as `circuit garage L2: limit 63.0 A, other load 12.3 A`, `circuit garage: power limit 22000 W`
    /// or `circuit garage: L1 may be at most 20.0 A above L3`.
    #[must_use]
    pub fn describe(&self, topology: &Topology) -> String {
        let id = &topology.circuit(self.circuit).id;
        match self.limited {
            Limited::Current => {}
            Limited::Power(limit) => return format!("circuit {id}: power limit {limit}"),
            Limited::Charging(limit) => return format!("circuit {id}: {limit} for all chargers together"),
            Limited::Unbalance { against, limit } => {
                return format!("circuit {id}: {} may be at most {limit} above {against}", self.phase);
            }
        }
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
