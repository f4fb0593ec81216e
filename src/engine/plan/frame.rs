//! The site as rows: every circuit's phases, its power, its unbalance; and what an EVSE loads of them.
//!
//! EVSEs on the same circuit with the same phases load the same rows: they are a class, and its rows are written down once. What
//! EVSEs carry is summed on their own circuit first and then from the leaves to the root, so that a sum over the tree costs one visit
//! to each EVSE and each circuit.

use std::ops::Range;

use super::binding::{Bottleneck, Limited};
use super::fill::Term;
use super::{EvseState, LimitSource, PlanState};
use crate::engine::model::topology::{CircuitIndex, EvseIndex, Topology};
use crate::engine::units::{Current, PerPhase, Phase, PhaseSet, Power};

/// What a row limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The current of a phase.
    Phase(Phase),
    /// The currents of all phases together, at nominal voltage.
    Power,
    /// The same of the EVSEs alone.
    Charging,
    /// What EVSEs put on a phase beyond another.
    Unbalance { phase: Phase, against: Phase },
}

/// A limit of a circuit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) circuit: CircuitIndex,
    pub(super) what: What,
}

/// EVSEs that load the same rows.
#[derive(Clone, Debug)]
pub(super) struct Class {
    pub(super) circuit: usize,
    pub(super) phases: PhaseSet,
    /// On how many phases its current counts for the power.
    pub(super) slots: i32,
    pub(super) terms: Range<usize>,
    /// A circuit above it limits the unbalance.
    pub(super) unbalanced: bool,
}

/// What flows on a circuit, in mA.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    pub(super) phases: [i64; 3],
    /// All phases together, as it counts for the power.
    pub(super) power: i64,
}

/// The site as rows.
pub(super) struct Frame<'a> {
    pub(super) topology: &'a Topology,
    pub(super) state: &'a PlanState,
    /// The three phases of each circuit, then all others.
    pub(super) rows: Vec<Row>,
    extras: Vec<Range<usize>>,
    pub(super) classes: Vec<Class>,
    pub(super) class_of: Vec<usize>,
    pub(super) has_unbalance: bool,
    terms: Vec<Term>,
}

impl<'a> Frame<'a> {
    pub(super) fn new(topology: &'a Topology, state: &'a PlanState) -> Self {
        let circuits = topology.circuits();
        let mut rows: Vec<Row> = (0..circuits.len())
            .flat_map(|circuit| {
                Phase::ALL.map(|phase| Row { circuit: CircuitIndex(circuit), what: What::Phase(phase) })
            })
            .collect();
        let mut extras = Vec::with_capacity(circuits.len());
        let mut has_unbalance = false;
        for (index, circuit) in circuits.iter().enumerate() {
            let start = rows.len();
            if state.circuits[index].power_limit(circuit).is_some() {
                rows.push(Row { circuit: CircuitIndex(index), what: What::Power });
            }
            if state.circuits[index].charging_power.is_some() {
                rows.push(Row { circuit: CircuitIndex(index), what: What::Charging });
            }
            if circuit.max_unbalance.is_some() {
                has_unbalance = true;
                rows.extend(pairs().map(|what| Row { circuit: CircuitIndex(index), what }));
            }
            extras.push(start..rows.len());
        }
        let (classes, class_of) = (Vec::new(), Vec::with_capacity(state.evses.len()));
        let mut frame = Self { topology, state, rows, extras, classes, class_of, has_unbalance, terms: Vec::new() };
        frame.classify();
        frame
    }

    fn classify(&mut self) {
        let mut known = vec![u32::MAX; self.topology.circuits().len() * 32];
        for (index, evse) in self.topology.evses().iter().enumerate() {
            let phases = self.state.evses[index].phases;
            let wiring = self.topology.station(evse.station).wiring;
            let count = phases.len() as usize;
            let slots = if wiring.is_known() { count } else { count.min(wiring.terminals()) };
            let bits = Phase::ALL.map(|phase| usize::from(phases.contains(phase)) << phase.index());
            let class = &mut known[evse.circuit.0 * 32 + slots * 8 + bits[0] + bits[1] + bits[2]];
            if *class == u32::MAX {
                *class = number(self.classes.len());
                self.add_class(evse.circuit, phases, slots);
            }
            self.class_of.push(*class as usize);
        }
    }

    fn add_class(&mut self, circuit: CircuitIndex, phases: PhaseSet, slots: usize) {
        let start = self.terms.len();
        let slots = i32::try_from(slots).unwrap_or(3);
        let mut unbalanced = false;
        for above in self.topology.path_to_grid(circuit) {
            self.terms.extend(phases.iter().map(|phase| Term::one(number(above.0 * 3 + phase.index()))));
            for row in self.extras[above.0].clone() {
                match self.rows[row].what {
                    What::Power | What::Charging => self.terms.push(Term { row: number(row), coefficient: slots }),
                    What::Unbalance { phase, .. } if phases.contains(phase) => {
                        self.terms.push(Term::one(number(row)));
                        unbalanced = true;
                    }
                    What::Unbalance { .. } => unbalanced = true,
                    What::Phase(_) => {}
                }
            }
        }
        let terms = start..self.terms.len();
        self.classes.push(Class { circuit: circuit.0, phases, slots, terms, unbalanced });
    }

    pub(super) fn class(&self, evse: usize) -> &Class {
        &self.classes[self.class_of[evse]]
    }

    /// How many terms all classes have together.
    pub(super) const fn terms_in_all(&self) -> usize {
        self.terms.len()
    }

    pub(super) fn terms(&self, class: &Class) -> &[Term] {
        &self.terms[class.terms.clone()]
    }

    /// The circuits above an EVSE.
    pub(super) fn path(&self, evse: usize) -> impl Iterator<Item = CircuitIndex> {
        self.topology.path_to_grid(CircuitIndex(self.class(evse).circuit))
    }

    /// For each class its terms in the rows that are `tight`. Rows of the unbalance are always: what others draw counts for them.
    pub(super) fn tight_terms(&self, tight: impl Fn(usize) -> bool) -> Tight {
        let is_tight: Vec<bool> = self
            .rows
            .iter()
            .enumerate()
            .map(|(at, row)| tight(at) || matches!(row.what, What::Unbalance { .. }))
            .collect();
        let mut terms = Vec::with_capacity(self.terms.len());
        let mut ends = Vec::with_capacity(self.classes.len() + 1);
        ends.push(0);
        for class in &self.classes {
            terms.extend(self.terms(class).iter().filter(|term| is_tight[term.at()]));
            ends.push(terms.len());
        }
        Tight { terms, ends }
    }

    /// What each row can carry besides the background.
    pub(super) fn capacities(&self) -> Vec<i64> {
        let voltage = i64::from(self.topology.voltage().mv()).max(1);
        let capacity = |row: &Row| {
            let state = &self.state.circuits[row.circuit.0];
            let circuit = self.topology.circuit(row.circuit);
            let background = |phase| i64::from(state.background.of(phase).ma());
            match row.what {
                What::Phase(phase) => i64::from(state.limit.of(phase).ma()) - background(phase),
                What::Power => {
                    let watts = state.power_limit(circuit).unwrap_or_default();
                    phase_sum(watts, voltage) - Phase::ALL.into_iter().map(background).sum::<i64>()
                }
                What::Charging => phase_sum(state.charging_power.unwrap_or_default(), voltage),
                What::Unbalance { .. } => circuit.max_unbalance.map_or(0, |limit| i64::from(limit.ma())),
            }
        };
        self.rows.iter().map(capacity).collect()
    }

    /// What an EVSE loads of its circuit at `amount`.
    pub(super) fn load_at(class: &Class, amount: i64) -> Load {
        let on = |phase| if class.phases.contains(phase) { amount } else { 0 };
        Load { phases: Phase::ALL.map(on), power: amount * i64::from(class.slots) }
    }

    /// What an EVSE may be drawing now.
    pub(super) fn load_committed(&self, evse: usize) -> Load {
        let state = &self.state.evses[evse];
        let wiring = self.topology.station(self.topology.evses()[evse].station).wiring;
        let phases = Phase::ALL.map(|phase| i64::from(state.committed.of(phase).ma()));
        let power = state.committed_for_power(wiring);
        Load { phases, power }
    }

    /// What each row carries of the loads.
    pub(super) fn row_loads(&self, loads: impl Iterator<Item = (usize, Load)>) -> Vec<i64> {
        let mut sums = vec![Load::default(); self.topology.circuits().len()];
        for (evse, load) in loads {
            sums[self.class(evse).circuit].add(load);
        }
        self.climb(&mut sums);
        self.rows.iter().map(|row| sums[row.circuit.0].on(row.what)).collect()
    }

    /// Adds to each row of the unbalance what may be counted on: what flows on the phase that it is compared with.
    pub(super) fn add_credits(&self, capacities: &mut [i64], credits: impl Iterator<Item = (usize, [i64; 3])>) {
        if !self.has_unbalance {
            return;
        }
        let mut sums = vec![Load::default(); self.topology.circuits().len()];
        for (evse, phases) in credits {
            sums[self.class(evse).circuit].add(Load { phases, power: 0 });
        }
        self.climb(&mut sums);
        for (row, capacity) in self.rows.iter().zip(capacities) {
            if let What::Unbalance { against, .. } = row.what {
                *capacity += sums[row.circuit.0].phases[against.index()];
            }
        }
    }

    fn climb(&self, sums: &mut [Load]) {
        for index in (1..sums.len()).rev() {
            if let Some(parent) = self.topology.circuits()[index].parent {
                let load = sums[index];
                sums[parent.0].add(load);
            }
        }
    }

    /// The rows of the unbalance above a circuit.
    pub(super) fn unbalance_above(&self, circuit: usize) -> impl Iterator<Item = usize> {
        let above = self.topology.path_to_grid(CircuitIndex(circuit));
        above
            .flat_map(|above| self.extras[above.0].clone())
            .filter(|row| !matches!(self.rows[*row].what, What::Power | What::Charging))
    }

    /// What people are told of a row that is full.
    pub(super) fn bottleneck(&self, row: usize) -> Bottleneck {
        let Row { circuit, what } = self.rows[row];
        let state = &self.state.circuits[circuit.0];
        let settings = self.topology.circuit(circuit);
        let (phase, limited) = match what {
            What::Phase(phase) => (phase, Limited::Current),
            What::Power => (Phase::L1, Limited::Power(state.power_limit(settings).unwrap_or_default())),
            What::Charging => (Phase::L1, Limited::Charging(state.charging_power.unwrap_or_default())),
            What::Unbalance { phase, against } => {
                (phase, Limited::Unbalance { against, limit: settings.max_unbalance.unwrap_or_default() })
            }
        };
        Bottleneck {
            circuit,
            phase,
            limited,
            limit: state.limit.of(phase),
            limit_source: match what {
                What::Phase(_) | What::Unbalance { .. } => state.limit_source,
                What::Power if state.power_limit(settings) == settings.max_power => LimitSource::Configured,
                What::Power | What::Charging => LimitSource::External,
            },
            background: state.background.of(phase),
            background_source: state.background_source,
        }
    }
}

/// Some of the terms of each class.
pub(super) struct Tight {
    terms: Vec<Term>,
    ends: Vec<usize>,
}

impl Tight {
    pub(super) fn of(&self, class: usize) -> &[Term] {
        &self.terms[self.ends[class]..self.ends[class + 1]]
    }
}

impl Load {
    pub(super) fn add(&mut self, other: Self) {
        for (sum, more) in self.phases.iter_mut().zip(other.phases) {
            *sum += more;
        }
        self.power += other.power;
    }

    fn on(&self, what: What) -> i64 {
        match what {
            What::Phase(phase) | What::Unbalance { phase, .. } => self.phases[phase.index()],
            What::Power | What::Charging => self.power,
        }
    }
}

/// What an EVSE with an offer of `amount` can be counted on to draw: no more than was measured.
pub(super) fn counted_on(evse: &EvseState, amount: i64) -> [i64; 3] {
    Phase::ALL.map(|phase| {
        let drawn = i64::from(evse.drawn.of(phase).ma()).min(amount).max(0);
        if evse.phases.contains(phase) { drawn } else { 0 }
    })
}

/// What an EVSE that cannot be moved can be counted on to draw.
pub(super) fn counted_on_unmoved(evse: &EvseState) -> [i64; 3] {
    let drawn: PerPhase<Current> = evse.drawn.zip_with(evse.committed, Current::min);
    Phase::ALL.map(|phase| i64::from(drawn.of(phase).at_least_zero().ma()))
}

/// mA as a current.
pub(super) fn current(ma: i64) -> Current {
    Current::from_ma(i32::try_from(ma).unwrap_or(if ma < 0 { i32::MIN } else { i32::MAX }))
}

/// The sum of the phases' currents, in mA, of a power at a voltage in mV; rounded down.
pub(super) fn phase_sum(power: Power, voltage: i64) -> i64 {
    // mW over mV are A, 1e6 times W over mV are mA.
    i64::try_from(i128::from(power.w()) * 1_000_000 / i128::from(voltage)).unwrap_or(i64::MAX / 2)
}

/// The index of an EVSE in the topology.
pub(super) const fn evse_index(index: usize) -> EvseIndex {
    EvseIndex(index)
}

/// Each phase against each other one.
fn pairs() -> impl Iterator<Item = What> {
    Phase::ALL.into_iter().flat_map(|phase| {
        let others = Phase::ALL.into_iter().filter(move |against| *against != phase);
        others.map(move |against| What::Unbalance { phase, against })
    })
}

fn number(row: usize) -> u32 {
    u32::try_from(row).unwrap_or(u32::MAX)
}
