//! Weighted max-min fair filling under any number of linear limits, exact and in n log n.
//!
//! A [`Problem`] has **rows** (`Σ coefficient · amount ≤ capacity`), **profiles** (which rows somebody loads, and how much per unit of
//! his amount) and **members** (a profile, a minimum, a maximum, a weight). [`Problem::solve`] lets a common level rise from 0: a
//! member has `weight · level`, but never less than its minimum nor more than its maximum. When a row is full, those on it stop where they are, and
//! the level goes on rising for the others. Nobody can then have more without somebody who has no more per weight having less.
//!
//! It is driven by events instead of being walked: a member begins to rise, a member reaches its maximum, a row is full. Each row
//! knows its settled part and the slope of its open members; a heap gives the row that is full next. What the heap holds is a lower
//! bound of that level, looked at again when its time comes, so that no event has to touch it. A member is settled once, and each event costs no
//! more than the member's rows. All is integer arithmetic: the result does not depend on the machine.
//!
//! ```
//! use siteward::engine::plan::fill::{Member, Problem, Term};
//! // Two circuits of 16 and 10 A below one of 20 A: three members, the second with double weight, the third behind the 10 A.
//! let mut problem = Problem::new(vec![20_000, 16_000, 10_000]);
//! let left = problem.add_profile([Term::one(0), Term::one(1)]);
//! let right = problem.add_profile([Term::one(0), Term::one(2)]);
//! for (profile, weight) in [(left, 1), (left, 2), (right, 1)] {
//!     problem.add_member(Member { profile, min: 0, max: 32_000, weight });
//! }
//! let amounts: Vec<i64> = problem.solve().iter().map(|share| share.amount).collect();
//! assert_eq!(amounts, [5_000, 10_000, 5_000]);
//! ```

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::ops::Range;

/// A level is counted in parts of a unit of the amount per unit of weight: fine enough that rounding it down costs less than one
/// unit of the amount on rows of a million weighted members.
const LEVEL: i64 = 1_000_000_000;

/// Larger weights count as this.
const MAX_WEIGHT: u32 = 1_000_000;

/// No such level is ever reached.
const NEVER: i64 = i64::MAX;

/// How much a unit of a member's amount loads a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// The row's place in the capacities.
    pub row: u32,
    /// At least 0.
    pub coefficient: i32,
}

impl Term {
    /// One for one.
    #[must_use]
    pub const fn one(row: u32) -> Self {
        Self { row, coefficient: 1 }
    }

    /// The row as an index.
    #[must_use]
    pub const fn at(self) -> usize {
        self.row as usize
    }
}

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// What it loads, from [`Problem::add_profile`].
    pub profile: usize,
    /// It gets at least this, whatever the rows say: check before that the minimums fit.
    pub min: i64,
    /// It gets at most this.
    pub max: i64,
    /// Its share; 0 counts as 1.
    pub weight: u32,
}

/// What a member gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// How much.
    pub amount: i64,
    /// The row that keeps it from more; `None`: its own maximum.
    pub row: Option<usize>,
}

/// What is to be shared, and by whom.
#[derive(Clone, Debug, Default)]
pub struct Problem {
    capacities: Vec<i64>,
    terms: Vec<Term>,
    profiles: Vec<(usize, usize)>,
    members: Vec<Member>,
}

impl Problem {
    /// A problem with a row for each capacity.
    #[must_use]
    pub fn new(capacities: Vec<i64>) -> Self {
        Self { capacities, ..Self::default() }
    }

    /// Makes room for so many members and profiles, and for so many terms of all profiles together.
    pub fn reserve(&mut self, members: usize, profiles: usize, terms: usize) {
        self.members.reserve_exact(members);
        self.profiles.reserve_exact(profiles);
        self.terms.reserve_exact(terms);
    }

    /// Adds a profile. Many members may share one; the fewer profiles, the faster.
    pub fn add_profile(&mut self, terms: impl IntoIterator<Item = Term>) -> usize {
        let start = self.terms.len();
        self.terms.extend(terms);
        self.profiles.push((start, self.terms.len()));
        self.profiles.len() - 1
    }

    /// Adds a member. The shares come in the order of the members.
    pub fn add_member(&mut self, member: Member) {
        self.members.push(member);
    }

    /// The shares.
    ///
    /// # Panics
    /// If a term names a row that does not exist, or a member a profile that does not.
    #[must_use]
    pub fn solve(&self) -> Vec<Share> {
        let mut solver = Solver::default();
        solver.solve(&self.capacities, &self.limiting(), &self.members);
        solver.shares
    }

    fn terms_of(&self, profile: usize) -> &[Term] {
        let (start, end) = self.profiles[profile];
        &self.terms[start..end]
    }

    /// The terms of each profile in rows that could ever be full.
    fn limiting(&self) -> Profiles {
        let mut most = vec![0; self.profiles.len()];
        for member in &self.members {
            most[member.profile] += member.max.max(member.min);
        }
        let mut load = vec![0; self.capacities.len()];
        for (profile, most) in most.iter().enumerate().filter(|(_, most)| **most > 0) {
            for term in self.terms_of(profile) {
                load[term.at()] += most * i64::from(term.coefficient);
            }
        }
        let mut limiting = Profiles::default();
        for profile in 0..self.profiles.len() {
            let all = self.terms_of(profile).iter();
            limiting.add(all.filter(|term| load[term.at()] > self.capacities[term.at()]).copied());
        }
        limiting
    }
}

/// The terms of each profile, in one piece.
#[derive(Clone, Debug, Default)]
pub(super) struct Profiles {
    terms: Vec<Term>,
    ends: Vec<u32>,
}

impl Profiles {
    pub(super) fn clear(&mut self) {
        self.terms.clear();
        self.ends.clear();
    }

    pub(super) fn add(&mut self, terms: impl Iterator<Item = Term>) {
        self.terms.extend(terms);
        self.ends.push(number(self.terms.len()));
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether no profile has a term.
    pub(super) fn limit_nobody(&self) -> bool {
        self.terms.is_empty()
    }

    pub(super) fn of(&self, profile: usize) -> &[Term] {
        // Without terms it may have been left without profiles.
        if self.terms.is_empty() {
            return &[];
        }
        let start = profile.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.terms[start as usize..self.ends[profile] as usize]
    }
}

/// What a row carries at a level is `settled + slope · level`.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    capacity: i64,
    /// What the members carry that do not rise: at their minimum still, or settled.
    settled: i64,
    /// The weights of those that rise.
    slope: i64,
    /// The weights of those that are at their minimum still.
    pending: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    AtMinimum,
    Rising,
    Settled,
}

/// A level and behind it a row, packed into one number: a heap compares it again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due(i128);

impl Due {
    fn new(level: i64, row: usize) -> Self {
        Self(i128::from(level) << 32 | i128::from(number(row)))
    }

    fn level(self) -> i64 {
        i64::try_from(self.0 >> 32).unwrap_or(NEVER)
    }

    fn row(self) -> usize {
        usize::try_from(self.0 & i128::from(u32::MAX)).unwrap_or(usize::MAX)
    }
}

/// Lists of numbers, one for each owner, in one piece.
#[derive(Clone, Debug, Default)]
struct Lists {
    starts: Vec<u32>,
    items: Vec<u32>,
}

impl Lists {
    fn set(&mut self, owners: usize, pairs: impl Iterator<Item = (usize, u32)> + Clone) {
        // Counted two places further on: while the items are put down, each start moves to its end, which is the next one's start.
        self.starts.clear();
        self.starts.resize(owners + 2, 0);
        for (owner, _) in pairs.clone() {
            self.starts[owner + 2] += 1;
        }
        for owner in 0..owners {
            self.starts[owner + 2] += self.starts[owner + 1];
        }
        self.items.clear();
        self.items.resize(self.starts[owners + 1] as usize, 0);
        for (owner, item) in pairs {
            let next = &mut self.starts[owner + 1];
            self.items[*next as usize] = item;
            *next += 1;
        }
    }

    fn range(&self, owner: usize) -> Range<usize> {
        self.starts[owner] as usize..self.starts[owner + 1] as usize
    }
}

/// Finds shares, and keeps its memory for the next time. Nothing of it is read before it is written.
#[derive(Clone, Debug, Default)]
pub(super) struct Solver {
    rows: Vec<Row>,
    load: Vec<(i64, i64)>,
    profiles_of_row: Lists,
    members_of_profile: Lists,
    open_in_profile: Vec<u32>,
    phases: Vec<Phase>,
    /// In the order of the members.
    pub(super) shares: Vec<Share>,
    /// When each member begins to rise, and when it reaches its maximum.
    starts: Vec<(i64, u32)>,
    ends: Vec<(i64, u32)>,
    /// For each row a level before which it is not full.
    due: BinaryHeap<Reverse<Due>>,
}

impl Solver {
    /// Finds the shares. `profiles` need no term of a row that can never be full.
    pub(super) fn solve(&mut self, capacities: &[i64], profiles: &Profiles, members: &[Member]) {
        let mut run = Run { profiles, members, open: 0, memory: self };
        run.enter(capacities);
        run.run();
    }
}

struct Run<'a> {
    profiles: &'a Profiles,
    members: &'a [Member],
    open: usize,
    memory: &'a mut Solver,
}

impl Run<'_> {
    /// Puts every member at its minimum; those that nothing limits have their maximum at once.
    fn enter(&mut self, capacities: &[i64]) {
        let Self { profiles, members, open, memory } = self;
        memory.rows.clear();
        memory.rows.extend(capacities.iter().map(|capacity| Row { capacity: *capacity, ..Row::default() }));
        let by_row = (0..profiles.len())
            .flat_map(|profile| profiles.of(profile).iter().map(move |term| (term.at(), number(profile))));
        memory.profiles_of_row.set(capacities.len(), by_row);
        memory.members_of_profile.set(profiles.len(), members.iter().map(|member| member.profile).zip(0..));
        memory.open_in_profile.clear();
        memory.open_in_profile.resize(profiles.len(), 0);
        memory.load.clear();
        memory.load.resize(profiles.len(), (0, 0));
        memory.phases.clear();
        memory.shares.clear();
        memory.starts.clear();
        memory.ends.clear();
        // Most have the same minimum and the same weight as the one before.
        let mut known = (0, 1, level_of(0, 1));
        for (at, member) in (0..).zip(members.iter()) {
            let free = profiles.of(member.profile).is_empty();
            let amount = if free { member.max.max(member.min) } else { member.min };
            memory.shares.push(Share { amount, row: None });
            let load = &mut memory.load[member.profile];
            load.0 += amount;
            if free || member.max <= member.min {
                memory.phases.push(Phase::Settled);
                continue;
            }
            let weight = weight_of(member);
            load.1 += weight;
            memory.phases.push(Phase::AtMinimum);
            *open += 1;
            memory.open_in_profile[member.profile] += 1;
            if (known.0, known.1) != (member.min, weight) {
                known = (member.min, weight, level_of(member.min, weight));
            }
            memory.starts.push((known.2, at));
            memory.ends.push((level_of(member.max, weight), at));
        }
        // In which order equals come makes no difference, and comparing levels alone is what sorts fast.
        memory.starts.sort_unstable_by_key(|(level, _)| *level);
        memory.ends.sort_unstable_by_key(|(level, _)| *level);
        for profile in 0..self.profiles.len() {
            let (settled, pending) = self.memory.load[profile];
            self.shift(profile, (settled, 0, pending));
        }
        let memory = &mut *self.memory;
        let first = memory.starts.first().map_or(NEVER, |start| start.0);
        let keys = memory.rows.iter().enumerate();
        let keys = keys.filter_map(|(number, row)| Some(Reverse(Due::new(row.full_at(first)?, number))));
        let mut due = std::mem::take(&mut memory.due).into_vec();
        due.clear();
        due.extend(keys);
        memory.due = BinaryHeap::from(due);
    }

    fn run(&mut self) {
        let (mut started, mut ended) = (0, 0);
        let mut due = std::mem::take(&mut self.memory.due);
        while self.open > 0 {
            let start = self.memory.starts.get(started).map_or(NEVER, |start| start.0);
            let end = self.memory.ends.get(ended).map_or(NEVER, |end| end.0);
            match due.peek_mut() {
                Some(mut first) if first.0.level() < start.min(end) => {
                    let row = first.0.row();
                    let full = self.memory.rows[row].full_at(start);
                    if let Some(later) = full.filter(|later| *later > first.0.level()) {
                        first.0 = Due::new(later, row);
                        continue;
                    }
                    PeekMut::pop(first);
                    if let Some(level) = full {
                        self.fill_up(row, level);
                    }
                }
                Some(_) | None if end <= start => {
                    self.reach_maximum(self.memory.ends[ended].1 as usize);
                    ended += 1;
                }
                Some(_) | None => {
                    self.begin_to_rise(self.memory.starts[started].1 as usize);
                    started += 1;
                }
            }
        }
        self.memory.due = due;
    }

    fn begin_to_rise(&mut self, number: usize) {
        if self.memory.phases[number] != Phase::AtMinimum {
            return;
        }
        self.memory.phases[number] = Phase::Rising;
        let member = self.members[number];
        let weight = weight_of(&member);
        self.shift(member.profile, (-member.min, weight, -weight));
    }

    fn reach_maximum(&mut self, number: usize) {
        let was = self.memory.phases[number];
        if was == Phase::Settled {
            return;
        }
        let member = self.members[number];
        let weight = weight_of(&member);
        let change = match was {
            Phase::AtMinimum => (member.max - member.min, 0, -weight),
            Phase::Rising | Phase::Settled => (member.max, -weight, 0),
        };
        self.settle(number, member.max, None);
        self.shift(member.profile, change);
    }

    /// The row is full at `level`: whoever is on it stays there.
    fn fill_up(&mut self, row: usize, level: i64) {
        for at in self.memory.profiles_of_row.range(row) {
            let profile = self.memory.profiles_of_row.items[at] as usize;
            if self.memory.open_in_profile[profile] == 0 {
                continue;
            }
            let mut change = (0, 0, 0);
            for at in self.memory.members_of_profile.range(profile) {
                let number = self.memory.members_of_profile.items[at] as usize;
                let phase = self.memory.phases[number];
                if phase == Phase::Settled {
                    continue;
                }
                let member = self.members[number];
                let weight = weight_of(&member);
                let amount = if phase == Phase::AtMinimum {
                    change.2 -= weight;
                    member.min
                } else {
                    let amount = at_level(level, weight).min(member.max).max(member.min);
                    change = (change.0 + amount, change.1 - weight, change.2);
                    amount
                };
                self.settle(number, amount, Some(row).filter(|_| amount < member.max));
            }
            self.shift(profile, change);
        }
    }

    fn settle(&mut self, number: usize, amount: i64, row: Option<usize>) {
        self.memory.phases[number] = Phase::Settled;
        self.open -= 1;
        self.memory.open_in_profile[self.members[number].profile] -= 1;
        self.memory.shares[number] = Share { amount, row };
    }

    /// Changes what a profile's members carry on all its rows: settled, rising, pending.
    fn shift(&mut self, profile: usize, (settled, slope, pending): (i64, i64, i64)) {
        for term in self.profiles.of(profile) {
            let coefficient = i64::from(term.coefficient);
            let row = &mut self.memory.rows[term.at()];
            row.settled += coefficient * settled;
            row.slope += coefficient * slope;
            row.pending += coefficient * pending;
        }
    }
}

impl Row {
    /// The level at which the row is full, or a lower one after the next member begins to rise at `next_start`. `None`: never.
    fn full_at(&self, next_start: i64) -> Option<i64> {
        let room = self.capacity - self.settled;
        if self.slope > 0 {
            let full = divided(room, LEVEL, self.slope);
            if full <= next_start || self.pending == 0 {
                return Some(full);
            }
        }
        if self.pending == 0 {
            return None;
        }
        // Nobody else rises before `next_start`, and after it at worst all do.
        let risen = self.slope.checked_mul(next_start);
        let then = room.checked_mul(LEVEL).zip(risen).and_then(|(room, risen)| room.checked_sub(risen));
        let further = match then {
            Some(then) => then.max(0) / (self.slope + self.pending),
            None => {
                let then = i128::from(room) * i128::from(LEVEL) - i128::from(self.slope) * i128::from(next_start);
                i64::try_from(then.max(0) / i128::from(self.slope + self.pending)).unwrap_or(NEVER)
            }
        };
        Some(next_start.saturating_add(further).min(NEVER - 1))
    }
}

pub(super) fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

fn weight_of(member: &Member) -> i64 {
    i64::from(member.weight.clamp(1, MAX_WEIGHT))
}

/// The lowest level at which a weight gives the amount. Rounded up, so that what settles there is never more than it was while rising.
fn level_of(amount: i64, weight: i64) -> i64 {
    divided(amount.max(0), LEVEL, weight).saturating_add(1).min(NEVER - 1)
}

fn at_level(level: i64, weight: i64) -> i64 {
    divided(level, weight, LEVEL)
}

/// `a · b / c`, rounded down.
fn divided(a: i64, b: i64, c: i64) -> i64 {
    match a.checked_mul(b) {
        Some(product) if c == 1 => product,
        Some(product) => product.div_euclid(c),
        None => i64::try_from((i128::from(a) * i128::from(b)).div_euclid(i128::from(c))).unwrap_or(NEVER - 1),
    }
}
