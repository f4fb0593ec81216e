//! What limits a circuit, what is left of each limit, and what a frame takes of it.
//!
//! Currents on a phase and powers are held against what EVSEs may draw and the part of the other load that is proven. Powers are counted as
//! they are declared to be: current × nominal voltage, over all phases. A meter's own power is not used for them: it is below that where
//! the power factor is, and above it where the voltage is above nominal, and what is counted in one way cannot be held against the other.
//!
//! The unbalance is what EVSEs may draw on one phase beyond what they draw on another. Of the latter only the most is known: what stations have
//! said lately (`said`). A raise beyond even that is one that nothing measured can have justified.

use super::{Guard, TOLERANCE, View};
use crate::engine::model::topology::{CircuitIndex, EvseIndex};
use crate::engine::time::Mono;
use crate::engine::units::{Current, PerPhase, Phase, PhaseSet, Power};

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The current on a phase.
    Phase(Phase),
    /// The power of all that flows.
    Power(Power),
    /// The power of all EVSEs.
    Charging(Power),
    /// What EVSEs draw on the first phase beyond the second.
    Unbalance(Phase, Phase),
}

/// One limit of a circuit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) what: What,
    /// What is left beside the other load and all that EVSEs may draw, in mA; of a power on all phases together. Negative: it is exceeded.
    pub(super) left: i64,
}

/// What a frame changes at a station, or what was spared already: currents on each phase, and how they count for powers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Amount {
    pub(super) phases: PerPhase<Current>,
    /// On all phases together, in mA.
    pub(super) power: i64,
    /// The part of `phases` of EVSEs that may draw more than their fallback: what they may without anybody is no matter of the unbalance.
    beyond_fallback: PerPhase<Current>,
}

/// What a frame changes at a station.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    /// How much more its EVSEs may draw.
    pub(super) more: Amount,
    /// The same of all of them together, whatever their phases.
    pub(super) rise: Current,
    /// The most that one of those may draw that may draw more.
    pub(super) highest: Current,
}

impl Row {
    /// What an amount takes of the limit, in mA.
    pub(super) fn taken_by(&self, amount: &Amount) -> i64 {
        match self.what {
            What::Phase(phase) => i64::from(amount.phases.of(phase).ma()),
            What::Power(_) | What::Charging(_) => amount.power,
            What::Unbalance(phase, _) => i64::from(amount.beyond_fallback.of(phase).ma()),
        }
    }

    /// A limit that is exceeded by no more than this is kept: decimals of limits, and watts that become amperes; on each phase.
    pub(super) fn tolerance(&self) -> i64 {
        let each = i64::from(TOLERANCE.ma());
        match self.what {
            What::Phase(_) | What::Unbalance(..) => each,
            What::Power(_) | What::Charging(_) => 3 * each,
        }
    }

    /// Whether an amount takes more than is left.
    pub(super) fn is_exceeded_by(&self, amount: &Amount) -> bool {
        let taken = self.taken_by(amount);
        taken > 0 && taken > self.left + self.tolerance()
    }

    /// What of the last raise fits, as a current of the EVSE: its rise is cut in the same measure.
    pub(super) fn fits(&self, change: &Change) -> Current {
        let taken = self.taken_by(&change.more).max(1);
        let rise = i64::from(change.rise.ma());
        let fitting = i128::from(rise) * i128::from(self.left.clamp(0, taken)) / i128::from(taken);
        change.highest - change.rise + current(i64::try_from(fitting).unwrap_or(0))
    }
}

impl Amount {
    pub(super) fn add(&mut self, each: Current, phases: PhaseSet, slots: i64) {
        self.phases += phases.spread(each);
        self.power += i64::from(each.ma()) * slots;
    }
}

impl Guard {
    /// What changes for a station if its EVSEs have `after` instead of `before`. A fall pays for nothing: a car may take its time to follow.
    pub(super) fn change(&self, before: &[(EvseIndex, View)], after: &[(EvseIndex, View)]) -> Change {
        let mut change = Change { more: Amount::default(), rise: Current::ZERO, highest: Current::ZERO };
        for ((evse, old), (_, new)) in before.iter().zip(after).filter(|((_, old), (_, new))| new.most > old.most) {
            let fallback = self.topology.station(self.topology.evse(*evse).station).fallback;
            let phases = self.phases_of(*evse);
            change.more.add(new.most - old.most, phases, self.slots_of(*evse));
            if new.most > fallback {
                change.more.beyond_fallback += phases.spread(new.most - old.most);
            }
            change.rise += new.most - old.most;
            change.highest = change.highest.max(new.most);
        }
        change
    }

    /// On how many phases an EVSE's current counts for powers. Where nobody knows to which ones it is wired, on as many as it has terminals.
    pub(super) fn slots_of(&self, evse: EvseIndex) -> i64 {
        let wiring = self.topology.station(self.topology.evse(evse).station).wiring;
        let count = self.phases_of(evse).iter().count();
        i64::try_from(if wiring.is_known() { count } else { count.min(wiring.terminals()) }).unwrap_or(3)
    }

    /// The limits of currents and powers of a circuit. `other`: what it carries besides EVSEs; `None`: nothing is known of that, and only what
    /// has nothing to do with it is looked at.
    pub(super) fn rows(&self, circuit: CircuitIndex, other: Option<PerPhase<Current>>) -> impl Iterator<Item = Row> {
        let settings = self.topology.circuit(circuit);
        let state = &self.circuits[circuit.0];
        let outside = state.outside;
        let limit = outside.current.map_or(settings.limit, |outside| settings.limit.zip_with(outside, Current::min));
        let phases = other.map(|other| {
            let free = limit - other - state.most;
            Phase::ALL.map(|phase| Row { what: What::Phase(phase), left: i64::from(free.of(phase).ma()) })
        });
        let lowest = [settings.max_power, outside.power].into_iter().flatten().min();
        let power = other.zip(lowest).map(|(other, power)| {
            let other: i64 = other.iter().map(|(_, current)| i64::from(current.ma())).sum();
            Row { what: What::Power(power), left: self.all_phases(power) - other - state.most_power }
        });
        let charging = outside.charging.map(|power| {
            let left = self.all_phases(power) - state.most_power;
            Row { what: What::Charging(power), left }
        });
        phases.into_iter().flatten().chain(power).chain(charging)
    }

    /// The limits of the unbalance of a circuit.
    pub(super) fn unbalance(&self, circuit: CircuitIndex, now: Mono) -> Vec<Row> {
        let Some(limit) = self.topology.circuit(circuit).max_unbalance else { return Vec::new() };
        let mut drawn = [0_i64; 3];
        for evse in self.topology.evses_below(circuit) {
            // A message may be about any connector of its station.
            let said = self.stations[self.topology.evse(*evse).station.0].said.most(now);
            said.iter().for_each(|(phase, said)| drawn[phase.index()] += i64::from(said.ma()));
        }
        let most = self.circuits[circuit.0].most;
        let row = |phase: Phase, against: Phase| Row {
            what: What::Unbalance(phase, against),
            left: i64::from(limit.ma()) + drawn[against.index()] - i64::from(most.of(phase).ma()),
        };
        let pairs = Phase::ALL.into_iter().flat_map(|phase| Phase::ALL.map(|against| (phase, against)));
        pairs.filter(|(phase, against)| phase != against).map(|(phase, against)| row(phase, against)).collect()
    }

    /// A power as the sum of the phases' currents at nominal voltage, in mA.
    fn all_phases(&self, power: Power) -> i64 {
        let voltage = i128::from(self.topology.voltage().mv().max(1));
        i64::try_from(i128::from(power.w()) * 1_000_000 / voltage).unwrap_or(i64::MAX / 2)
    }

    /// What is left of a limit, in words: "3.5 A left on L1".
    pub(super) fn left_in_words(&self, row: &Row) -> String {
        let left = row.left.max(0);
        match row.what {
            What::Phase(phase) => format!("{} left on {phase}", current(left)),
            What::Power(power) => format!("{} of {power} left", self.watts(left)),
            What::Charging(power) => format!("{} left of {power} for all chargers", self.watts(left)),
            What::Unbalance(phase, against) => {
                format!("{} left on {phase} until its chargers load it too much beyond {against}", current(left))
            }
        }
    }

    /// How far a limit is exceeded, in words: "3.5 A above its limit on L1".
    pub(super) fn above_in_words(&self, row: &Row) -> String {
        let above = -row.left;
        match row.what {
            What::Phase(phase) => format!("{} above its limit on {phase}", current(above)),
            What::Power(power) => format!("{} above its limit of {power}", self.watts(above)),
            What::Charging(power) => format!("{} above its limit of {power} for all chargers", self.watts(above)),
            What::Unbalance(phase, against) => {
                format!("loaded on {phase} by {} more than it may be beyond {against}", current(above))
            }
        }
    }

    fn watts(&self, ma: i64) -> Power {
        let watts = i128::from(ma) * i128::from(self.topology.voltage().mv()) / 1_000_000;
        Power::from_w(i64::try_from(watts).unwrap_or(i64::MAX))
    }
}

fn current(ma: i64) -> Current {
    Current::from_ma(i32::try_from(ma).unwrap_or(i32::MAX))
}
