//! Weighted max-min fair filling of a tree of circuits, phase by phase.

use crate::engine::model::topology::{CircuitIndex, EvseIndex, Topology};
use crate::engine::units::{Current, PerPhase, Phase, PhaseSet};

/// An EVSE that is served. Its allocation is between `min` and `max`, the same on each of its phases.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) evse: usize,
    pub(super) phases: PhaseSet,
    pub(super) min: Current,
    pub(super) max: Current,
    pub(super) weight: u32,
}

/// What a member gets, and which circuit and phase keeps it from more; `None`: its own maximum.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) current: Current,
    pub(super) row: Option<(CircuitIndex, Phase)>,
}

/// One circuit and phase.
struct Row {
    at: (CircuitIndex, Phase),
    free_ma: i64,
    members: Vec<usize>,
}

/// Progressive filling: the common level rises until a row is full; its members are settled there; the others go on.
pub(super) struct Fill<'a> {
    members: &'a [Member],
    rows: Vec<Row>,
    settled: Vec<Option<Share>>,
}

impl<'a> Fill<'a> {
    /// Shares `free`. The members' minimums must fit.
    pub(super) fn run(topology: &Topology, members: &'a [Member], free: &[PerPhase<Current>]) -> Vec<Share> {
        let mut rows: Vec<Row> = (0..free.len())
            .flat_map(|circuit| Phase::ALL.map(|phase| (CircuitIndex(circuit), phase)))
            .map(|at| Row { at, free_ma: i64::from(free[at.0.0].of(at.1).ma()), members: Vec::new() })
            .collect();
        for (number, member) in members.iter().enumerate() {
            for circuit in topology.path_to_grid(topology.evse(EvseIndex(member.evse)).circuit) {
                for phase in member.phases.iter() {
                    rows[circuit.0 * 3 + phase.index()].members.push(number);
                }
            }
        }
        rows.retain(|row| !row.members.is_empty());
        let mut fill = Self { members, rows, settled: vec![None; members.len()] };
        // Each round settles at least one member, so this ends.
        while fill.settled.iter().any(Option::is_none) {
            fill.round();
        }
        fill.settled.into_iter().flatten().collect()
    }

    fn round(&mut self) {
        let top = self.open().map(|number| level_of(&self.members[number])).max().unwrap_or(0);
        let (mut fits, mut too_high) = (0, top + 1);
        while too_high - fits > 1 {
            let middle = fits + (too_high - fits) / 2;
            if self.rows.iter().all(|row| self.load(row, middle) <= row.free_ma) {
                fits = middle;
            } else {
                too_high = middle;
            }
        }
        let mut settled = Vec::new();
        for row in &self.rows {
            if self.load(row, fits + 1) > row.free_ma {
                settled.extend(row.members.iter().map(|number| (*number, Some(row.at))));
            }
        }
        settled
            .extend(self.open().filter(|number| level_of(&self.members[*number]) <= fits).map(|number| (number, None)));
        for (number, row) in settled {
            let member = &self.members[number];
            let current = at_level(member, fits);
            let row = if current >= member.max { None } else { row };
            self.settled[number].get_or_insert(Share { current, row });
        }
    }

    fn open(&self) -> impl Iterator<Item = usize> {
        (0..self.members.len()).filter(|number| self.settled[*number].is_none())
    }

    /// The load of a row in mA if the members that are still open are at `level`.
    fn load(&self, row: &Row, level: i64) -> i64 {
        let current = |number: &usize| match self.settled[*number] {
            Some(share) => share.current,
            None => at_level(&self.members[*number], level),
        };
        row.members.iter().map(|number| i64::from(current(number).ma())).sum()
    }
}

/// The level, in µA per unit of weight, at which the member has its maximum.
fn level_of(member: &Member) -> i64 {
    let weight = i64::from(member.weight.max(1));
    (i64::from(member.max.ma()) * 1000).div_euclid(weight) + 1
}

/// What the member has at a level.
fn at_level(member: &Member, level: i64) -> Current {
    let ma = i64::from(member.weight.max(1)) * level / 1000;
    Current::from_ma(i32::try_from(ma).unwrap_or(i32::MAX)).min(member.max).max(member.min)
}
