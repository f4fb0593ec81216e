//! What each of those who are served gets: filled continuously, then brought to what can be offered, and the rest spent.
//!
//! Rounding down alone would lose half a step for each EVSE, again and again. So what is left over is given out in whole steps, the
//! lowest share first, to whoever can still take one. Where a station knows certain levels only, these are settled first among themselves, and the
//! others share anew what that leaves: else a few coarse stations would lose amperes for all.
//!
//! A limit of the unbalance depends on what others draw, which in turn depends on their offers. It begins with all that they are
//! measured to draw; whoever then gets less than that is counted with what he gets, and the shares are found anew. That can only go
//! down, and after a few rounds each counts with no more than he has for certain.

use std::collections::BTreeMap;

use super::fill::{Member, Problem, Share, Term};
use super::frame::{Frame, Load, Tight, What, counted_on};
use super::wish::Wishes;

/// After so many rounds each counts, for the unbalance, with what he has for certain.
const ROUNDS: usize = 6;

/// What an admitted EVSE gets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allotment {
    pub(super) evse: usize,
    /// In mA, and such that it can be offered.
    pub(super) amount: i64,
    /// The row that keeps it from more; `None`: its own maximum.
    pub(super) row: Option<usize>,
}

/// Shares what the rows can carry among those of which the floor is given. The floors must fit.
pub(super) fn share(frame: &Frame<'_>, wishes: &Wishes<'_>, members: &[(usize, i64)], room: &[i64]) -> Vec<Allotment> {
    let mut sharing = Sharing { frame, wishes, members, room: room.to_vec() };
    if !frame.has_unbalance {
        return sharing.run();
    }
    let certain: Vec<[i64; 3]> = members.iter().map(|(index, floor)| sharing.counted_on(*index, *floor)).collect();
    let mut counted: Vec<[i64; 3]> = members.iter().map(|(index, _)| sharing.counted_on(*index, i64::MAX)).collect();
    for round in 0.. {
        sharing.room = room.to_vec();
        let credits = members.iter().zip(&counted).map(|((index, _), counted)| (*index, *counted));
        frame.add_credits(&mut sharing.room, credits);
        let allotted = sharing.run();
        let real: Vec<[i64; 3]> = allotted.iter().map(|share| sharing.counted_on(share.evse, share.amount)).collect();
        if round > ROUNDS || sharing.keeps_balance(&allotted, &real, room) {
            return allotted;
        }
        let next = real.iter().zip(&mut counted);
        next.for_each(|(real, counted)| *counted = std::array::from_fn(|phase| counted[phase].min(real[phase])));
        if round == ROUNDS {
            counted.clone_from(&certain);
        }
    }
    Vec::new()
}

struct Sharing<'a> {
    frame: &'a Frame<'a>,
    wishes: &'a Wishes<'a>,
    members: &'a [(usize, i64)],
    room: Vec<i64>,
}

impl Sharing<'_> {
    fn counted_on(&self, index: usize, amount: i64) -> [i64; 3] {
        counted_on(&self.frame.state.evses[index], amount)
    }

    fn keeps_balance(&self, allotted: &[Allotment], counted: &[[i64; 3]], room: &[i64]) -> bool {
        let mut room = room.to_vec();
        self.frame.add_credits(&mut room, allotted.iter().zip(counted).map(|(share, counted)| (share.evse, *counted)));
        let load = self.load(allotted);
        let rows = self.frame.rows.iter().zip(room.iter().zip(load));
        rows.into_iter().all(|(row, (room, load))| !matches!(row.what, What::Unbalance { .. }) || load <= *room)
    }

    fn load(&self, allotted: &[Allotment]) -> Vec<i64> {
        self.frame.row_loads(allotted.iter().map(|share| {
            let load: Load = Frame::load_at(self.frame.class(share.evse), share.amount);
            (share.evse, load)
        }))
    }

    fn run(&self) -> Vec<Allotment> {
        let is_coarse = |index: usize| self.wishes.of[index].is_some_and(|wish| wish.grid.is_coarse());
        let mut allotted = self.fill(|index, floor| (floor, self.max(index)));
        if self.members.iter().any(|(index, _)| is_coarse(*index)) {
            for share in allotted.iter_mut().filter(|share| is_coarse(share.evse)) {
                self.round_down(share);
            }
            self.spend(&mut allotted, |index, _| if is_coarse(index) { self.max(index) } else { 0 });
            let settled: BTreeMap<usize, i64> =
                allotted.iter().filter(|share| is_coarse(share.evse)).map(|share| (share.evse, share.amount)).collect();
            let again =
                self.fill(|index, floor| settled.get(&index).map_or((floor, self.max(index)), |has| (*has, *has)));
            for (share, again) in allotted.iter_mut().zip(again).filter(|(share, _)| !is_coarse(share.evse)) {
                *share = again;
            }
        }
        let exact: Vec<i64> = allotted.iter().map(|share| share.amount).collect();
        allotted.iter_mut().for_each(|share| self.round_down(share));
        // Nobody is more than a step above his exact share: else he would gain what rounding takes from many others.
        self.spend(&mut allotted, |index, number| if is_coarse(index) { self.max(index) } else { exact[number] + 1 });
        for share in allotted.iter_mut().filter(|share| share.amount >= self.max(share.evse)) {
            share.row = None;
        }
        allotted
    }

    fn max(&self, index: usize) -> i64 {
        self.wishes.of[index].map_or(0, |wish| wish.max)
    }

    fn fill(&self, bounds: impl Fn(usize, i64) -> (i64, i64)) -> Vec<Allotment> {
        let mut problem = Problem::new(self.room.clone());
        for class in &self.frame.classes {
            problem.add_profile(self.frame.terms(class).iter().copied());
        }
        for (index, floor) in self.members {
            let (min, max) = bounds(*index, *floor);
            let weight = self.frame.state.evses[*index].weight;
            problem.add_member(Member { profile: self.frame.class_of[*index], min, max, weight });
        }
        let shares = self.members.iter().zip(problem.solve());
        shares.map(|((evse, _), Share { amount, row })| Allotment { evse: *evse, amount, row }).collect()
    }

    fn round_down(&self, share: &mut Allotment) {
        if let Some(wish) = &self.wishes.of[share.evse] {
            share.amount = wish.grid.at_most(share.amount).max(wish.min);
        }
    }

    /// Gives out what is left in whole steps, to whoever has least for his weight. `until`, of an EVSE and its number among the
    /// allotted: who has so much gets no further step.
    fn spend(&self, allotted: &mut [Allotment], until: impl Fn(usize, usize) -> i64) {
        let mut room = self.room.clone();
        room.iter_mut().zip(self.load(allotted)).for_each(|(room, load)| *room -= load);
        let tight = self.tight_for(allotted, &room);
        let level = |share: &Allotment| {
            let weight = i64::from(self.frame.state.evses[share.evse].weight.max(1));
            (share.amount.saturating_mul(1_000_000) / weight).unsigned_abs()
        };
        let is_below = |share: &Allotment, number: usize| {
            share.amount < self.max(share.evse) && share.amount < until(share.evse, number)
        };
        // The number of a share behind its level: one integer each, which sorts fast.
        let packed = |share: &Allotment, number: usize| u128::from(level(share)) << 64 | number as u128;
        let mut next: Vec<u128> = Vec::with_capacity(allotted.len());
        let all = allotted.iter().enumerate();
        next.extend(all.filter(|(at, share)| is_below(share, *at)).map(|(at, share)| packed(share, at)));
        // Each round gives one step to each who can take it. Room only becomes less: who cannot now never will.
        while !next.is_empty() {
            next.sort_unstable();
            next.retain_mut(|next| {
                let number = usize::try_from(*next & u128::from(u64::MAX)).unwrap_or(usize::MAX);
                let share = &mut allotted[number];
                let took = self.step_up(share, tight.of(self.frame.class_of[share.evse]), &mut room);
                *next = packed(share, number);
                took && is_below(share, number)
            });
        }
    }

    /// Gives one step more if that fits.
    fn step_up(&self, share: &mut Allotment, terms: &[Term], room: &mut [i64]) -> bool {
        let Some(wish) = &self.wishes.of[share.evse] else { return false };
        let Some(above) = wish.grid.above(share.amount).filter(|above| *above <= wish.max) else { return false };
        let step = above - share.amount;
        if let Some(full) = terms.iter().find(|term| room[term.at()] < i64::from(term.coefficient) * step) {
            share.row = share.row.or(Some(full.at()));
            return false;
        }
        for term in terms {
            room[term.at()] -= i64::from(term.coefficient) * step;
        }
        share.amount = above;
        true
    }

    /// The terms of each class in the rows that cannot carry everybody's maximum.
    fn tight_for(&self, allotted: &[Allotment], room: &[i64]) -> Tight {
        let more = self.frame.row_loads(allotted.iter().map(|share| {
            let more = (self.max(share.evse) - share.amount).max(0);
            (share.evse, Frame::load_at(self.frame.class(share.evse), more))
        }));
        self.frame.tight_terms(|row| more[row] > room[row])
    }
}
