//! Targets become what may be sent now: cuts at once, raises only into what is confirmed free.
//!
//! A raise is measured from the committed currents, phase by phase, and takes from the room of every row above it: what the limit leaves beside
//! the background and everybody's committed currents. Those furthest below their target go first. Who cannot make even his smallest
//! step keeps what is free on the row that stops him: smaller raises of others must not take it away from him again and again.

use super::binding::Binding;
use super::fill::number;
use super::frame::{Frame, Load, Tight, What, counted_on, counted_on_unmoved, current};
use super::share::Allotment;
use super::wish::Wishes;
use super::{CircuitState, EvseState, Offer};
use crate::engine::model::topology::CircuitIndex;
use crate::engine::units::{Current, Phase, PhaseSet};

/// What keeps a raise back.
#[derive(Clone, Copy, Debug)]
enum Stop {
    Row(u32),
    /// The ramp of a circuit and phase.
    Ramp(u32),
}

/// A raise that is to be made.
#[derive(Clone, Copy, Debug)]
struct Raise {
    evse: u32,
    class: u32,
    target: i64,
    /// What may be drawn already on each phase that the offer counts on.
    from: [i64; 3],
    phases: PhaseSet,
    hold: bool,
    /// What it is cut short to, and why. Others are looked at in between: its offer gets it at the end, when all get theirs in order.
    cut: Option<(Current, Stop)>,
}

/// What finding the offers needs, kept from plan to plan for its memory: nothing of it is read before it is written.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    room: Vec<i64>,
    sums: Vec<Load>,
    raises: Vec<Raise>,
    order: Vec<u64>,
    tight: Tight,
}

struct Raising<'a> {
    frame: &'a Frame<'a>,
    /// What each row has left beside the background and all committed currents.
    room: &'a mut [i64],
    /// What each circuit and phase may still rise by; `None` where no circuit has a ramp.
    ramp: Option<Vec<i64>>,
    tight: &'a Tight,
}

/// Finds the offers that may leave now. `capacities` are those of the rows before anything is taken from them.
pub(super) fn offers(
    frame: &Frame<'_>,
    wishes: &Wishes<'_>,
    (allotted, capacities): (&[Allotment], &[i64]),
    offers: &mut [Offer],
    memory: &mut Memory,
) {
    let Memory { room, sums, raises, order, tight } = memory;
    list_raises(frame, allotted, (sums, raises));
    if raises.is_empty() {
        return;
    }
    room.clear();
    room.extend(capacities);
    frame.take_from(room, sums);
    frame.add_credits(room, (0..offers.len()).map(|index| (index, certain(&frame.state.evses[index], &offers[index]))));
    frame.sum(sums, raises.iter().map(|raise| (raise.class(), raise.wanted(frame))));
    frame.tight_terms(tight, |row| frame.carried(sums, row) > room[row] || frame.is_unbalance(row));
    let mut raising = Raising { frame, room, ramp: ramps(frame), tight };
    // The number of a share behind how far it is below its target, the furthest first: one integer each, which sorts fast.
    order.clear();
    for (number, raise) in (0_u32..).zip(raises.iter()) {
        if raise.hold {
            let evse = raise.evse();
            let limit = wishes.of[evse].map_or(0, |wish| wish.grid.at_most(raise.lowest()).min(raise.target));
            offers[evse].limit = current(limit);
            offers[evse].binding = Binding::Hold;
        } else if raising.can_stop(raise) {
            let below = u32::try_from(raise.target - raise.lowest()).unwrap_or(u32::MAX);
            order.push(u64::from(u32::MAX - below) << 32 | u64::from(number));
        }
    }
    order.sort_unstable();
    for packed in order.iter() {
        let number = usize::try_from(packed & u64::from(u32::MAX)).unwrap_or(usize::MAX);
        let raise = &raises[number];
        raises[number].cut = raising.make(raise, wishes);
    }
    for raise in raises.iter() {
        let Some((limit, stop)) = raise.cut else { continue };
        let offer = &mut offers[raise.evse()];
        offer.limit = limit;
        offer.binding = match stop {
            Stop::Row(row) => Binding::RaisePending(frame.bottleneck(row as usize)),
            Stop::Ramp(at) => Binding::Ramp { circuit: CircuitIndex(at as usize / 3) },
        };
    }
}

/// Finds who is to be raised, and sums up what everybody may be drawing: both in one walk, since the states of a large site fill the caches.
fn list_raises(frame: &Frame<'_>, allotted: &[Allotment], (sums, raises): (&mut Vec<Load>, &mut Vec<Raise>)) {
    raises.clear();
    let mut shares = allotted.iter().peekable();
    let committed = (0..frame.state.evses.len()).map(|index| {
        if let Some(share) = shares.next_if(|share| share.evse() == index) {
            raises.extend(Raise::new(frame, share));
        }
        (frame.class_of(index), frame.load_committed(index))
    });
    frame.sum(sums, committed);
}

fn ramps(frame: &Frame<'_>) -> Option<Vec<i64>> {
    let circuits = &frame.state.circuits;
    circuits.iter().any(|circuit| circuit.ramp.is_some()).then(|| {
        let of_circuit =
            |circuit: &CircuitState| circuit.ramp.map_or(i64::MAX, |ramp| i64::from(ramp.at_least_zero().ma()));
        circuits.iter().flat_map(|circuit| [of_circuit(circuit); 3]).collect()
    })
}

impl Raise {
    /// `None`: the target is not above what may be drawn already.
    fn new(frame: &Frame<'_>, share: &Allotment) -> Option<Self> {
        let EvseState { committed, hold, .. } = &frame.state.evses[share.evse()];
        let phases = frame.classes[share.class()].phases;
        let from = Phase::ALL.map(|phase| i64::from(committed.of(phase).ma()).max(0));
        let target = share.amount;
        let is_raise = Phase::ALL.into_iter().any(|phase| phases.contains(phase) && target > from[phase.index()]);
        is_raise.then(|| Self {
            evse: number(share.evse()),
            class: number(share.class()),
            target,
            from,
            phases,
            hold: *hold,
            cut: None,
        })
    }

    const fn evse(&self) -> usize {
        self.evse as usize
    }

    const fn class(&self) -> usize {
        self.class as usize
    }

    /// What it puts on its circuit beyond what is committed.
    fn wanted(&self, frame: &Frame<'_>) -> Load {
        let phases = Phase::ALL.map(|phase| self.extra_on(phase, self.target));
        Load { phases, power: self.extra_power(self.target, frame.classes[self.class()].slots()) }
    }

    /// The most that needs no room at all.
    fn lowest(&self) -> i64 {
        let on = |phase: Phase| if self.phases.contains(phase) { self.from[phase.index()] } else { i64::MAX };
        match Phase::ALL.map(on).into_iter().min() {
            Some(i64::MAX) | None => 0,
            Some(lowest) => lowest,
        }
    }

    fn extra_on(&self, phase: Phase, amount: i64) -> i64 {
        if self.phases.contains(phase) { (amount - self.from[phase.index()]).max(0) } else { 0 }
    }

    fn extra_at(&self, amount: i64) -> i64 {
        let [l1, l2, l3] = Phase::ALL.map(|phase| self.extra_on(phase, amount));
        l1 + l2 + l3
    }

    /// What counts for the power beyond what is committed. Where the phases are not known, each terminal counts as the worst one.
    fn extra_power(&self, amount: i64, slots: i64) -> i64 {
        let is_known = i64::from(self.phases.len()) == slots;
        let worst = self.from.iter().copied().max().unwrap_or(0);
        if is_known { self.extra_at(amount) } else { (amount - worst).max(0) * slots }
    }

    /// The most that adds no more than `room` to the power.
    fn reach_power(&self, room: i64, slots: i64) -> i64 {
        if room < 0 {
            return self.lowest();
        }
        let (mut fits, mut too_much) = (self.lowest(), self.target + 1);
        while too_much - fits > 1 {
            let middle = fits + (too_much - fits) / 2;
            if self.extra_power(middle, slots) <= room { fits = middle } else { too_much = middle }
        }
        fits.min(self.target)
    }
}

impl Raising<'_> {
    /// Whether anything could keep a raise back.
    fn can_stop(&self, raise: &Raise) -> bool {
        self.ramp.is_some() || !self.tight.of(raise.class()).is_empty()
    }

    /// Takes what the raise needs; says to what it is cut short, and why.
    fn make(&mut self, raise: &Raise, wishes: &Wishes<'_>) -> Option<(Current, Stop)> {
        let (reach, stop) = self.reach(raise);
        let Some(stop) = stop.filter(|_| reach < raise.target) else {
            self.spend(raise, raise.target);
            return None;
        };
        let wish = wishes.of[raise.evse()].as_ref()?;
        let stays = wish.grid.at_most(raise.lowest().min(raise.target));
        let limit = wish.grid.at_most(reach).max(stays);
        if limit <= stays {
            self.keep_for_later(stop);
        }
        self.spend(raise, limit);
        Some((current(limit), stop))
    }

    /// The most that it could be given now, and what keeps it from more.
    fn reach(&self, raise: &Raise) -> (i64, Option<Stop>) {
        let mut reach = (raise.target, None);
        let mut at_most = |most: i64, stop: Stop| {
            if most < reach.0 {
                reach = (most, Some(stop));
            }
        };
        let from = |phase: Phase| raise.from[phase.index()];
        for term in self.tight.of(raise.class()) {
            let room = self.room[term.at()];
            let most = match self.frame.rows[term.at()].what {
                What::Phase(phase) | What::Unbalance { phase, .. } => from(phase) + room.max(0),
                What::Power | What::Charging => raise.reach_power(room, i64::from(term.coefficient)),
            };
            at_most(most, Stop::Row(term.row));
        }
        if let Some(ramp) = &self.ramp {
            for above in self.frame.path(raise.evse()) {
                for phase in raise.phases.iter() {
                    let at = above.0 * 3 + phase.index();
                    at_most(from(phase).saturating_add(ramp[at]), Stop::Ramp(number(at)));
                }
            }
        }
        reach
    }

    fn spend(&mut self, raise: &Raise, limit: i64) {
        for term in self.tight.of(raise.class()) {
            self.room[term.at()] -= match self.frame.rows[term.at()].what {
                What::Phase(phase) | What::Unbalance { phase, .. } => raise.extra_on(phase, limit),
                What::Power | What::Charging => raise.extra_power(limit, i64::from(term.coefficient)),
            };
        }
        if let Some(ramp) = &mut self.ramp {
            for above in self.frame.path(raise.evse()) {
                for phase in raise.phases.iter() {
                    ramp[above.0 * 3 + phase.index()] -= raise.extra_on(phase, limit);
                }
            }
        }
    }

    /// Nobody else takes what is free there in this plan.
    fn keep_for_later(&mut self, stop: Stop) {
        match (stop, &mut self.ramp) {
            (Stop::Row(row), _) => self.room[row as usize] = self.room[row as usize].min(0),
            (Stop::Ramp(at), Some(ramp)) => ramp[at as usize] = 0,
            (Stop::Ramp(_), None) => {}
        }
    }
}

/// What an EVSE can be counted on to draw while raises are under way: no more than it is measured to draw, nor than it keeps.
fn certain(evse: &EvseState, offer: &Offer) -> [i64; 3] {
    if !evse.reachable {
        return counted_on_unmoved(evse);
    }
    let has = evse.phases.iter().map(|phase| evse.committed.of(phase)).min().unwrap_or_default();
    counted_on(evse, i64::from(has.min(offer.target).ma()))
}
