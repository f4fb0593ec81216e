//! The site as rows: every circuit's phases, its power, its unbalance; and what an EVSE loads of them.
//!
//! EVSEs on the same circuit with the same phases load the same rows: they are a class, and its rows are written down once. What
//! EVSEs carry is summed on their own circuit first and then from the leaves to the root, so that a sum over the tree costs one visit
//! to each EVSE and each circuit.

use std::num::NonZeroU32;
use std::ops::Range;

use super::binding::{Bottleneck, Limited};
use super::fill::{Profiles, Term, number};
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
    circuit: u32,
    terms: Range<u32>,
    /// The one before on the same circuit.
    before: Option<NonZeroU32>,
    /// On how many phases its current counts for the power.
    slots: u8,
    pub(super) phases: PhaseSet,
    /// A circuit above it limits the unbalance.
    pub(super) unbalanced: bool,
}

impl Class {
    pub(super) const fn circuit(&self) -> usize {
        self.circuit as usize
    }

    /// On how many phases its current counts for the power.
    pub(super) fn slots(&self) -> i64 {
        i64::from(self.slots)
    }
}

/// What flows on a circuit, in mA.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    pub(super) phases: [i64; 3],
    /// All phases together, as it counts for the power.
    pub(super) power: i64,
}

/// The memory of a frame, kept from plan to plan. Nothing of it is read before it is written.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    rows: Vec<Row>,
    extras: Vec<Range<usize>>,
    parents: Vec<Option<NonZeroU32>>,
    classes: Vec<Class>,
    last_class: Vec<Option<NonZeroU32>>,
    class_of: Vec<u32>,
    terms: Vec<Term>,
}

/// The site as rows.
pub(super) struct Frame<'a> {
    pub(super) topology: &'a Topology,
    pub(super) state: &'a PlanState,
    /// The three phases of each circuit, then all others.
    pub(super) rows: Vec<Row>,
    extras: Vec<Range<usize>>,
    /// One more than the number of each circuit's parent.
    parents: Vec<Option<NonZeroU32>>,
    pub(super) classes: Vec<Class>,
    /// One more than the number of each circuit's latest class.
    last_class: Vec<Option<NonZeroU32>>,
    class_of: Vec<u32>,
    pub(super) has_unbalance: bool,
    terms: Vec<Term>,
}

impl<'a> Frame<'a> {
    pub(super) fn new(topology: &'a Topology, state: &'a PlanState, memory: Memory) -> Self {
        let Memory { rows, extras, parents, classes, last_class, class_of, terms } = memory;
        let mut frame =
            Self { topology, state, rows, extras, parents, classes, last_class, class_of, has_unbalance: false, terms };
        frame.list_rows();
        frame.classify();
        frame
    }

    pub(super) fn into_memory(self) -> Memory {
        let Self { rows, extras, parents, classes, last_class, class_of, terms, .. } = self;
        Memory { rows, extras, parents, classes, last_class, class_of, terms }
    }

    fn list_rows(&mut self) {
        let circuits = self.topology.circuits();
        self.rows.clear();
        self.rows.extend((0..circuits.len()).flat_map(|circuit| {
            Phase::ALL.map(|phase| Row { circuit: CircuitIndex(circuit), what: What::Phase(phase) })
        }));
        self.extras.clear();
        self.parents.clear();
        for (index, circuit) in circuits.iter().enumerate() {
            self.parents.push(circuit.parent.and_then(|parent| one_more(parent.0)));
            let start = self.rows.len();
            if self.state.circuits[index].power_limit(circuit).is_some() {
                self.rows.push(Row { circuit: CircuitIndex(index), what: What::Power });
            }
            if self.state.circuits[index].charging_power.is_some() {
                self.rows.push(Row { circuit: CircuitIndex(index), what: What::Charging });
            }
            if circuit.max_unbalance.is_some() {
                self.has_unbalance = true;
                self.rows.extend(pairs().map(|what| Row { circuit: CircuitIndex(index), what }));
            }
            self.extras.push(start..self.rows.len());
        }
    }

    fn classify(&mut self) {
        self.classes.clear();
        self.class_of.clear();
        self.terms.clear();
        self.last_class.clear();
        self.last_class.resize(self.parents.len(), None);
        let evses = self.topology.evses().iter().zip(self.topology.wirings());
        for ((evse, wiring), state) in evses.zip(&self.state.evses) {
            let phases = state.phases;
            let count = phases.len() as usize;
            let slots = if wiring.is_known() { count } else { count.min(wiring.terminals()) };
            let slots = u8::try_from(slots).unwrap_or(3);
            let mut next = self.last_class[evse.circuit.0];
            let known = loop {
                let Some(number) = next else { break None };
                let class = &self.classes[number.get() as usize - 1];
                if class.phases == phases && class.slots == slots {
                    break Some(number.get() - 1);
                }
                next = class.before;
            };
            let class = known.unwrap_or_else(|| self.add_class(evse.circuit, phases, slots));
            self.class_of.push(class);
        }
    }

    fn add_class(&mut self, circuit: CircuitIndex, phases: PhaseSet, slots: u8) -> u32 {
        let start = number(self.terms.len());
        let mut unbalanced = false;
        let mut next = one_more(circuit.0);
        while let Some(above) = next.map(|number| number.get() - 1) {
            next = self.parents[above as usize];
            self.terms.extend(phases.iter().map(|phase| Term::one(above * 3 + number(phase.index()))));
            for row in self.extras[above as usize].clone() {
                match self.rows[row].what {
                    What::Power | What::Charging => {
                        self.terms.push(Term { row: number(row), coefficient: i32::from(slots) });
                    }
                    What::Unbalance { phase, .. } if phases.contains(phase) => {
                        self.terms.push(Term::one(number(row)));
                        unbalanced = true;
                    }
                    What::Unbalance { .. } => unbalanced = true,
                    What::Phase(_) => {}
                }
            }
        }
        let terms = start..number(self.terms.len());
        let before = self.last_class[circuit.0];
        self.classes.push(Class { circuit: number(circuit.0), terms, before, slots, phases, unbalanced });
        self.last_class[circuit.0] = one_more(self.classes.len() - 1);
        number(self.classes.len() - 1)
    }

    pub(super) fn class_of(&self, evse: usize) -> usize {
        self.class_of[evse] as usize
    }

    pub(super) fn class(&self, evse: usize) -> &Class {
        &self.classes[self.class_of(evse)]
    }

    pub(super) fn terms(&self, class: &Class) -> &[Term] {
        &self.terms[class.terms.start as usize..class.terms.end as usize]
    }

    /// The circuits above an EVSE.
    pub(super) fn path(&self, evse: usize) -> impl Iterator<Item = CircuitIndex> {
        self.topology.path_to_grid(CircuitIndex(self.class(evse).circuit()))
    }

    /// For each class its terms in the rows that are `tight`.
    pub(super) fn tight_terms(&self, into: &mut Tight, tight: impl Fn(usize) -> bool) {
        into.is_tight.clear();
        let mut any = false;
        into.is_tight.extend((0..self.rows.len()).map(|row| {
            let is_tight = tight(row);
            any |= is_tight;
            is_tight
        }));
        into.of_class.clear();
        if any {
            for class in &self.classes {
                let tight = self.terms(class).iter().filter(|term| into.is_tight[term.at()]);
                into.of_class.add(tight.copied());
            }
        }
    }

    /// Whether the row counts as tight whatever it carries: what others draw decides what a limit of the unbalance leaves.
    pub(super) fn is_unbalance(&self, row: usize) -> bool {
        matches!(self.rows[row].what, What::Unbalance { .. })
    }

    /// What each row can carry besides the background.
    pub(super) fn capacities(&self, into: &mut Vec<i64>) {
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
        into.clear();
        into.extend(self.rows.iter().map(capacity));
    }

    /// What an EVSE loads of its circuit at `amount`.
    pub(super) fn load_at(class: &Class, amount: i64) -> Load {
        let on = |phase| if class.phases.contains(phase) { amount } else { 0 };
        Load { phases: Phase::ALL.map(on), power: amount * class.slots() }
    }

    /// What an EVSE may be drawing now.
    pub(super) fn load_committed(&self, evse: usize) -> Load {
        let state = &self.state.evses[evse];
        let phases = Phase::ALL.map(|phase| i64::from(state.committed.of(phase).ma()));
        let power = state.committed_on(self.class(evse).slots());
        Load { phases, power }
    }

    /// Sums up loads for each circuit and all below it. [`Frame::carried`] says what that is for a row.
    pub(super) fn sum(&self, sums: &mut Vec<Load>, loads: impl Iterator<Item = (usize, Load)>) {
        sums.clear();
        sums.resize(self.parents.len(), Load::default());
        for (class, load) in loads {
            sums[self.classes[class].circuit()].add(load);
        }
        self.climb(sums);
    }

    /// What a row carries of loads that were summed up.
    pub(super) fn carried(&self, sums: &[Load], row: usize) -> i64 {
        let Row { circuit, what } = self.rows[row];
        sums[circuit.0].on(what)
    }

    /// Takes from each row what it carries of loads that were summed up.
    pub(super) fn take_from(&self, room: &mut [i64], sums: &[Load]) {
        for (room, row) in room.iter_mut().zip(&self.rows) {
            *room -= sums[row.circuit.0].on(row.what);
        }
    }

    /// Adds to each row of the unbalance what may be counted on: what flows on the phase that it is compared with.
    pub(super) fn add_credits(&self, capacities: &mut [i64], credits: impl Iterator<Item = (usize, [i64; 3])>) {
        if !self.has_unbalance {
            return;
        }
        let mut sums = Vec::new();
        self.sum(&mut sums, credits.map(|(evse, phases)| (self.class_of(evse), Load { phases, power: 0 })));
        for (row, capacity) in self.rows.iter().zip(capacities) {
            if let What::Unbalance { against, .. } = row.what {
                *capacity += sums[row.circuit.0].phases[against.index()];
            }
        }
    }

    fn climb(&self, sums: &mut [Load]) {
        for index in (1..sums.len()).rev() {
            if let Some(parent) = self.parents[index] {
                let load = sums[index];
                sums[parent.get() as usize - 1].add(load);
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

/// The terms of each class in some of the rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Tight {
    is_tight: Vec<bool>,
    of_class: Profiles,
}

impl Tight {
    /// Whether no row is.
    pub(super) fn is_empty(&self) -> bool {
        self.of_class.limit_nobody()
    }

    pub(super) fn of(&self, class: usize) -> &[Term] {
        self.of_class.of(class)
    }

    /// The classes as profiles, which there are none of where no row is tight.
    pub(super) const fn profiles(&self) -> &Profiles {
        &self.of_class
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

/// A number as one that is never 0.
fn one_more(index: usize) -> Option<NonZeroU32> {
    NonZeroU32::new(number(index).saturating_add(1))
}
