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
        let mut run = Run::new(self);
        run.run();
        run.shares
    }

    fn terms_of(&self, profile: usize) -> &[Term] {
        let (start, end) = self.profiles[profile];
        &self.terms[start..end]
    }

    /// The terms of each profile in rows that could ever be full.
    fn tight_terms(&self) -> (Vec<Term>, Vec<(usize, usize)>) {
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
        let mut terms = Vec::with_capacity(self.terms.len());
        let profiles = (0..self.profiles.len())
            .map(|profile| {
                let start = terms.len();
                let all = self.terms_of(profile).iter();
                terms.extend(all.filter(|term| load[term.at()] > self.capacities[term.at()]));
                (start, terms.len())
            })
            .collect();
        (terms, profiles)
    }
}

/// What a row carries at a level is `settled + slope · level`.
#[derive(Clone, Copy, Default)]
struct Row {
    capacity: i64,
    /// What the members carry that do not rise: at their minimum still, or settled.
    settled: i64,
    /// The weights of those that rise.
    slope: i64,
    /// The weights of those that are at their minimum still.
    pending: i64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    AtMinimum,
    Rising,
    Settled,
}

/// Lists of numbers, one for each owner, in one piece.
struct Lists {
    starts: Vec<usize>,
    items: Vec<usize>,
}

impl Lists {
    fn new(owners: usize, pairs: impl Iterator<Item = (usize, usize)> + Clone) -> Self {
        let mut starts = vec![0; owners + 1];
        for (owner, _) in pairs.clone() {
            starts[owner + 1] += 1;
        }
        for owner in 0..owners {
            starts[owner + 1] += starts[owner];
        }
        let mut next = starts.clone();
        let mut items = vec![0; starts[owners]];
        for (owner, item) in pairs {
            items[next[owner]] = item;
            next[owner] += 1;
        }
        Self { starts, items }
    }
}

struct Run<'a> {
    problem: &'a Problem,
    terms: Vec<Term>,
    profiles: Vec<(usize, usize)>,
    rows: Vec<Row>,
    profiles_of_row: Lists,
    members_of_profile: Lists,
    open: usize,
    open_in_profile: Vec<usize>,
    phases: Vec<Phase>,
    shares: Vec<Share>,
    /// When each member begins to rise, and when it reaches its maximum.
    starts: Vec<(i64, usize)>,
    ends: Vec<(i64, usize)>,
    /// For each row a level before which it is not full.
    due: BinaryHeap<Reverse<(i64, usize)>>,
}

impl<'a> Run<'a> {
    fn new(problem: &'a Problem) -> Self {
        let (terms, profiles) = problem.tight_terms();
        let members = &problem.members;
        let by_row = profiles
            .iter()
            .enumerate()
            .flat_map(|(profile, (start, end))| terms[*start..*end].iter().map(move |term| (term.at(), profile)));
        let profiles_of_row = Lists::new(problem.capacities.len(), by_row);
        let by_profile = members.iter().enumerate().map(|(number, member)| (member.profile, number));
        let rows = problem.capacities.iter().map(|capacity| Row { capacity: *capacity, ..Row::default() }).collect();
        let mut run = Self {
            problem,
            rows,
            profiles_of_row,
            members_of_profile: Lists::new(profiles.len(), by_profile),
            open: 0,
            open_in_profile: vec![0; profiles.len()],
            phases: vec![Phase::Settled; members.len()],
            shares: Vec::with_capacity(members.len()),
            starts: Vec::with_capacity(members.len()),
            ends: Vec::with_capacity(members.len()),
            due: BinaryHeap::new(),
            terms,
            profiles,
        };
        run.enter();
        run
    }

    /// Puts every member at its minimum; those that nothing limits have their maximum at once.
    fn enter(&mut self) {
        let mut load = vec![(0, 0); self.profiles.len()];
        for (number, member) in self.problem.members.iter().enumerate() {
            let free = self.profiles[member.profile].0 == self.profiles[member.profile].1;
            let amount = if free { member.max.max(member.min) } else { member.min };
            self.shares.push(Share { amount, row: None });
            load[member.profile].0 += amount;
            if free || member.max <= member.min {
                continue;
            }
            let weight = weight_of(member);
            load[member.profile].1 += weight;
            self.phases[number] = Phase::AtMinimum;
            self.open += 1;
            self.open_in_profile[member.profile] += 1;
            self.starts.push((level_of(member.min, weight), number));
            self.ends.push((level_of(member.max, weight), number));
        }
        // In which order equals come makes no difference, and comparing levels alone is what sorts fast.
        self.starts.sort_unstable_by_key(|(level, _)| *level);
        self.ends.sort_unstable_by_key(|(level, _)| *level);
        for (profile, (settled, pending)) in load.into_iter().enumerate() {
            self.shift(profile, (settled, 0, pending));
        }
        let first = self.starts.first().map_or(NEVER, |start| start.0);
        let keys = self.rows.iter().enumerate().filter_map(|(row, at)| Some(Reverse((at.full_at(first)?, row))));
        self.due = keys.collect();
    }

    fn run(&mut self) {
        let (mut started, mut ended) = (0, 0);
        while self.open > 0 {
            let start = self.starts.get(started).map_or(NEVER, |start| start.0);
            let end = self.ends.get(ended).map_or(NEVER, |end| end.0);
            match self.due.peek().map(|due| due.0) {
                Some((level, row)) if level < start.min(end) => {
                    self.due.pop();
                    match self.rows[row].full_at(start) {
                        Some(later) if later > level => self.due.push(Reverse((later, row))),
                        Some(level) => self.fill_up(row, level),
                        None => {}
                    }
                }
                Some(_) | None if end <= start => {
                    self.reach_maximum(self.ends[ended].1);
                    ended += 1;
                }
                Some(_) | None => {
                    self.begin_to_rise(self.starts[started].1);
                    started += 1;
                }
            }
        }
    }

    fn begin_to_rise(&mut self, number: usize) {
        if self.phases[number] != Phase::AtMinimum {
            return;
        }
        self.phases[number] = Phase::Rising;
        let member = self.problem.members[number];
        let weight = weight_of(&member);
        self.shift(member.profile, (-member.min, weight, -weight));
    }

    fn reach_maximum(&mut self, number: usize) {
        if self.phases[number] == Phase::Settled {
            return;
        }
        let member = self.problem.members[number];
        let weight = weight_of(&member);
        let change = match self.phases[number] {
            Phase::AtMinimum => (member.max - member.min, 0, -weight),
            Phase::Rising | Phase::Settled => (member.max, -weight, 0),
        };
        self.settle(number, member.max, None);
        self.shift(member.profile, change);
    }

    /// The row is full at `level`: whoever is on it stays there.
    fn fill_up(&mut self, row: usize, level: i64) {
        for at in self.profiles_of_row.starts[row]..self.profiles_of_row.starts[row + 1] {
            let profile = self.profiles_of_row.items[at];
            if self.open_in_profile[profile] == 0 {
                continue;
            }
            let mut change = (0, 0, 0);
            for at in self.members_of_profile.starts[profile]..self.members_of_profile.starts[profile + 1] {
                let number = self.members_of_profile.items[at];
                let member = self.problem.members[number];
                let weight = weight_of(&member);
                let amount = match self.phases[number] {
                    Phase::Settled => continue,
                    Phase::AtMinimum => {
                        change.2 -= weight;
                        member.min
                    }
                    Phase::Rising => {
                        let amount = at_level(level, weight).min(member.max).max(member.min);
                        change = (change.0 + amount, change.1 - weight, change.2);
                        amount
                    }
                };
                self.settle(number, amount, Some(row).filter(|_| amount < member.max));
            }
            self.shift(profile, change);
        }
    }

    fn settle(&mut self, number: usize, amount: i64, row: Option<usize>) {
        self.phases[number] = Phase::Settled;
        self.open -= 1;
        self.open_in_profile[self.problem.members[number].profile] -= 1;
        self.shares[number] = Share { amount, row };
    }

    /// Changes what a profile's members carry on all its rows: settled, rising, pending.
    fn shift(&mut self, profile: usize, (settled, slope, pending): (i64, i64, i64)) {
        let (start, end) = self.profiles[profile];
        for term in &self.terms[start..end] {
            let coefficient = i64::from(term.coefficient);
            let row = &mut self.rows[term.at()];
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
        let then = i128::from(room) * i128::from(LEVEL) - i128::from(self.slope) * i128::from(next_start);
        let further = then.max(0) / i128::from(self.slope + self.pending);
        Some(next_start.saturating_add(i64::try_from(further).unwrap_or(NEVER)).min(NEVER - 1))
    }
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
        Some(product) => product.div_euclid(c),
        None => i64::try_from((i128::from(a) * i128::from(b)).div_euclid(i128::from(c))).unwrap_or(NEVER - 1),
    }
}
