//! What each of those who are served gets: filled continuously, then brought to what can be offered, and the rest spent.
//!
//! Rounding down alone would lose half a step for each EVSE, again and again. So what is left over is given out in whole steps, the
//! lowest share first, to whoever can still take one. Where a station knows certain levels only, these are settled first among themselves, and the
//! others share anew what that leaves: else a few coarse stations would lose amperes for all.
//!
//! A limit of the unbalance depends on what others draw, which in turn depends on their offers. It begins with all that they are
//! measured to draw; whoever then gets less than that is counted with what he gets, and the shares are found anew. That can only go
//! down, and after a few rounds each counts with no more than he has for certain.

use super::fill::{Member, Solver, Term, number};
use super::frame::{Frame, Load, Tight, What, counted_on, current};
use super::wish::{Wish, Wishes};
use crate::engine::units::Current;

/// After so many rounds each counts, for the unbalance, with what he has for certain.
const ROUNDS: usize = 6;

/// What an admitted EVSE gets, with all that finding it rests on: it is looked at again and again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allotment {
    evse: u32,
    class: u32,
    weight: u32,
    /// The row that keeps it from more; `NO_ROW`: its own maximum.
    row: u32,
    floor: Current,
    max: Current,
    /// In mA, and such that it can be offered.
    pub(super) amount: i64,
}

const NO_ROW: u32 = u32::MAX;

impl Allotment {
    /// With its minimum as the floor, and nothing yet.
    pub(super) fn new(frame: &Frame<'_>, evse: usize, wish: &Wish<'_>) -> Self {
        let (floor, max) = (current(wish.min()), current(wish.max()));
        Self {
            evse: number(evse),
            class: number(frame.class_of(evse)),
            weight: wish.weight,
            row: NO_ROW,
            floor,
            max,
            amount: 0,
        }
    }

    pub(super) const fn evse(&self) -> usize {
        self.evse as usize
    }

    pub(super) const fn class(&self) -> usize {
        self.class as usize
    }

    /// The row that keeps it from more; `None`: its own maximum.
    pub(super) fn row(&self) -> Option<usize> {
        (self.row != NO_ROW).then_some(self.row as usize)
    }

    /// The least that it gets, in mA.
    pub(super) fn floor(&self) -> i64 {
        i64::from(self.floor.ma())
    }

    pub(super) fn set_floor(&mut self, ma: i64) {
        self.floor = current(ma);
    }

    /// The most that it can use, in mA.
    pub(super) fn max(&self) -> i64 {
        i64::from(self.max.ma())
    }

    /// Its class, and what it loads with `amount`.
    pub(super) fn load_at(&self, frame: &Frame<'_>, amount: i64) -> (usize, Load) {
        (self.class(), Frame::load_at(&frame.classes[self.class()], amount))
    }
}

/// What sharing needs, kept from plan to plan for its memory: nothing of it is read before it is written.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    /// Those who are served.
    pub(super) allotted: Vec<Allotment>,
    room: Vec<i64>,
    left: Vec<i64>,
    sums: Vec<Load>,
    /// The terms of each class in the rows that cannot carry everybody's maximum.
    tight: Tight,
    again: Tight,
    members: Vec<Member>,
    solver: Solver,
    exact: Vec<i64>,
    next: Vec<u128>,
}

/// Shares what the rows can carry among those who are served. The floors must fit.
pub(super) fn share(frame: &Frame<'_>, wishes: &Wishes<'_>, room: &[i64], memory: &mut Memory) {
    let mut sharing = Sharing { frame, wishes, memory };
    sharing.set_room(room);
    if !frame.has_unbalance {
        return sharing.run();
    }
    let mut counted = sharing.counted_with(|_| i64::MAX);
    let certain = sharing.counted_with(Allotment::floor);
    for round in 0.. {
        sharing.set_room(room);
        let credits = sharing.memory.allotted.iter().zip(&counted).map(|(share, counted)| (share.evse(), *counted));
        frame.add_credits(&mut sharing.memory.room, credits);
        sharing.run();
        let real = sharing.counted_with(|share| share.amount);
        if round > ROUNDS || sharing.keeps_balance(&real, room) {
            return;
        }
        let next = real.iter().zip(&mut counted);
        next.for_each(|(real, counted)| *counted = std::array::from_fn(|phase| counted[phase].min(real[phase])));
        if round == ROUNDS {
            counted.clone_from(&certain);
        }
    }
}

struct Sharing<'a> {
    frame: &'a Frame<'a>,
    wishes: &'a Wishes<'a>,
    memory: &'a mut Memory,
}

impl Sharing<'_> {
    fn set_room(&mut self, room: &[i64]) {
        self.memory.room.clear();
        self.memory.room.extend(room);
    }

    fn counted_with(&self, amount: impl Fn(&Allotment) -> i64) -> Vec<[i64; 3]> {
        let counted = |share| counted_on(&self.frame.state.evses[Allotment::evse(share)], amount(share));
        self.memory.allotted.iter().map(counted).collect()
    }

    fn keeps_balance(&mut self, counted: &[[i64; 3]], room: &[i64]) -> bool {
        let Memory { allotted, sums, left, .. } = &mut *self.memory;
        left.clear();
        left.extend(room);
        self.frame.add_credits(left, allotted.iter().zip(counted).map(|(share, counted)| (share.evse(), *counted)));
        self.frame.sum(sums, allotted.iter().map(|share| share.load_at(self.frame, share.amount)));
        let mut rows = self.frame.rows.iter().zip(left.iter()).enumerate();
        rows.all(|(at, (row, room))| {
            !matches!(row.what, What::Unbalance { .. }) || self.frame.carried(sums, at) <= *room
        })
    }

    fn run(&mut self) {
        let mut tight = std::mem::take(&mut self.memory.tight);
        self.fill(&mut tight, |share| Some((share.floor(), share.max())));
        // Where nothing is tight each has his maximum, which is such that it can be offered.
        if !tight.is_empty() {
            self.bring_to_grid(&tight);
        }
        self.memory.tight = tight;
    }

    fn bring_to_grid(&mut self, tight: &Tight) {
        let wishes = self.wishes;
        let is_coarse = |share: &Allotment| {
            wishes.has_coarse && wishes.of[share.evse()].as_ref().is_some_and(|wish| wish.grid.is_coarse())
        };
        let mut allotted = std::mem::take(&mut self.memory.allotted);
        if allotted.iter().any(is_coarse) {
            for share in allotted.iter_mut().filter(|share| is_coarse(share)) {
                round_down(wishes, share);
            }
            self.spend(&mut allotted, tight, |share, _| if is_coarse(share) { share.max() } else { 0 });
            // The others share anew what that leaves.
            self.memory.allotted = allotted;
            let mut again = std::mem::take(&mut self.memory.again);
            self.fill(&mut again, |share| (!is_coarse(share)).then(|| (share.floor(), share.max())));
            self.memory.again = again;
            allotted = std::mem::take(&mut self.memory.allotted);
        }
        let mut exact = std::mem::take(&mut self.memory.exact);
        exact.clear();
        exact.extend(allotted.iter().map(|share| share.amount));
        allotted.iter_mut().for_each(|share| round_down(wishes, share));
        // Nobody is more than a step above his exact share: else he would gain what rounding takes from many others.
        self.spend(
            &mut allotted,
            tight,
            |share, number| {
                if is_coarse(share) { share.max() } else { exact[number] + 1 }
            },
        );
        for share in allotted.iter_mut().filter(|share| share.amount >= share.max()) {
            share.row = NO_ROW;
        }
        self.memory.exact = exact;
        self.memory.allotted = allotted;
    }

    /// Fills between bounds. Who has none is settled at what he has. Notes in `tight` which rows cannot carry everybody's most; those who load
    /// none of them have it at once.
    fn fill(&mut self, tight: &mut Tight, bounds: impl Fn(&Allotment) -> Option<(i64, i64)>) {
        let Memory { allotted, room, sums, members, solver, .. } = &mut *self.memory;
        let frame = self.frame;
        let most = |share: &Allotment| bounds(share).map_or(share.amount, |(min, max)| max.max(min));
        frame.sum(sums, allotted.iter().map(|share| share.load_at(frame, most(share))));
        frame.tight_terms(tight, |row| frame.carried(sums, row) > room[row]);
        members.clear();
        for share in allotted.iter_mut() {
            if tight.of(share.class()).is_empty() {
                if let Some((min, max)) = bounds(share) {
                    (share.amount, share.row) = (max.max(min), NO_ROW);
                }
                continue;
            }
            let (min, max) = bounds(share).unwrap_or((share.amount, share.amount));
            members.push(Member { profile: share.class(), min, max, weight: share.weight });
        }
        if members.is_empty() {
            return;
        }
        solver.solve(room, tight.profiles(), members);
        let limited = allotted.iter_mut().filter(|share| !tight.of(share.class()).is_empty());
        for (share, solved) in limited.zip(&solver.shares) {
            if bounds(share).is_some() {
                (share.amount, share.row) = (solved.amount, solved.row.map_or(NO_ROW, number));
            }
        }
    }

    /// Gives out what is left in whole steps, to whoever has least for his weight. `until`, of a share and its number among the
    /// allotted: who has so much gets no further step. `tight` are the rows that cannot carry everybody's maximum: no other can be full.
    fn spend(&mut self, allotted: &mut [Allotment], tight: &Tight, until: impl Fn(&Allotment, usize) -> i64) {
        let mut next = std::mem::take(&mut self.memory.next);
        let level = |share: &Allotment| {
            (share.amount.saturating_mul(1_000_000) / i64::from(share.weight.max(1))).unsigned_abs()
        };
        let is_below =
            |share: &Allotment, number: usize| share.amount < share.max() && share.amount < until(share, number);
        // The number of a share behind its level: one integer each, which sorts fast.
        let packed = |share: &Allotment, number: usize| u128::from(level(share)) << 64 | number as u128;
        next.clear();
        let all = allotted.iter().enumerate();
        next.extend(all.filter(|(at, share)| is_below(share, *at)).map(|(at, share)| packed(share, at)));
        let Memory { room, left, sums, .. } = &mut *self.memory;
        if !next.is_empty() {
            self.frame.sum(sums, allotted.iter().map(|share| share.load_at(self.frame, share.amount)));
            left.clear();
            left.extend(room.iter());
            self.frame.take_from(left, sums);
        }
        // Each round gives one step to each who can take it. Room only becomes less: who cannot now never will.
        while !next.is_empty() {
            next.sort_unstable();
            next.retain_mut(|next| {
                let number = usize::try_from(*next & u128::from(u64::MAX)).unwrap_or(usize::MAX);
                let share = &mut allotted[number];
                let took = step_up(self.wishes, share, tight.of(share.class()), left);
                let goes_on = took && is_below(share, number);
                if goes_on {
                    *next = packed(share, number);
                }
                goes_on
            });
        }
        self.memory.next = next;
    }
}

fn round_down(wishes: &Wishes<'_>, share: &mut Allotment) {
    if share.amount == share.max() {
        return;
    }
    if let Some(wish) = &wishes.of[share.evse()] {
        share.amount = wish.grid.at_most(share.amount).max(wish.min());
    }
}

/// Gives one step more if that fits.
fn step_up(wishes: &Wishes<'_>, share: &mut Allotment, terms: &[Term], room: &mut [i64]) -> bool {
    let Some(wish) = &wishes.of[share.evse()] else { return false };
    let Some(above) = wish.grid.above(share.amount).filter(|above| *above <= wish.max()) else { return false };
    let step = above - share.amount;
    if let Some(full) = terms.iter().find(|term| room[term.at()] < i64::from(term.coefficient) * step) {
        if share.row == NO_ROW {
            share.row = number(full.at());
        }
        return false;
    }
    for term in terms {
        room[term.at()] -= i64::from(term.coefficient) * step;
    }
    share.amount = above;
    true
}
