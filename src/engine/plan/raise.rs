//! Targets become what may be sent now: cuts at once, raises only into what is confirmed free.
//!
//! A raise is measured from the committed currents, phase by phase, and takes from the room of every row above it: what the limit leaves beside
//! the background and everybody's committed currents. Those furthest below their target go first. Who cannot make even his smallest
//! step keeps what is free on the row that stops him: smaller raises of others must not take it away from him again and again.

use super::binding::Binding;
use super::frame::{Frame, Load, Tight, What, counted_on, counted_on_unmoved, current};
use super::share::Allotment;
use super::wish::Wishes;
use super::{EvseState, Offer};
use crate::engine::model::topology::CircuitIndex;
use crate::engine::units::{Phase, PhaseSet};

/// What keeps a raise back.
#[derive(Clone, Copy)]
enum Stop {
    Row(usize),
    /// The ramp of a circuit and phase.
    Ramp(usize),
}

/// A raise that is to be made.
struct Raise {
    evse: usize,
    target: i64,
    /// What may be drawn already on each phase that the offer counts on.
    from: [i64; 3],
    phases: PhaseSet,
}

struct Raising<'a> {
    frame: &'a Frame<'a>,
    /// What each row has left beside the background and all committed currents.
    room: Vec<i64>,
    /// What each circuit and phase may still rise by; `None` where no circuit has a ramp.
    ramp: Option<Vec<i64>>,
    tight: Tight,
}

/// Finds the offers that may leave now. `capacities` are those of the rows before anything is taken from them.
pub(super) fn offers(
    frame: &Frame<'_>,
    wishes: &Wishes<'_>,
    allotted: &[Allotment],
    capacities: &[i64],
    offers: &mut [Offer],
) {
    let mut raising = Raising::new(frame, allotted, capacities, offers);
    // The number of a share behind how far it is below its target, the furthest first: one integer each, which sorts fast.
    let mut order: Vec<u64> = Vec::with_capacity(allotted.len());
    for (number, share) in (0_u32..).zip(allotted) {
        let evse = &frame.state.evses[share.evse];
        let raise = Raise::new(frame, share);
        if raise.extra_at(raise.target) == 0 {
            continue;
        }
        if evse.hold {
            let limit = wishes.of[share.evse].map_or(0, |wish| wish.grid.at_most(raise.lowest()).min(raise.target));
            offers[share.evse].limit = current(limit);
            offers[share.evse].binding = Binding::Hold;
        } else if raising.can_stop(share.evse) {
            let below = u32::try_from(raise.target - raise.lowest()).unwrap_or(u32::MAX);
            order.push(u64::from(u32::MAX - below) << 32 | u64::from(number));
        }
    }
    order.sort_unstable();
    for packed in order {
        let number = usize::try_from(packed & u64::from(u32::MAX)).unwrap_or(usize::MAX);
        let raise = Raise::new(frame, &allotted[number]);
        raising.make(&raise, wishes, &mut offers[raise.evse]);
    }
}

impl Raise {
    fn new(frame: &Frame<'_>, share: &Allotment) -> Self {
        let evse = &frame.state.evses[share.evse];
        let from = Phase::ALL.map(|phase| i64::from(evse.committed.of(phase).ma()).max(0));
        Self { evse: share.evse, target: share.amount, from, phases: frame.class(share.evse).phases }
    }

    /// The most that needs no room at all.
    fn lowest(&self) -> i64 {
        self.phases.iter().map(|phase| self.from[phase.index()]).min().unwrap_or(0)
    }

    fn extra_on(&self, phase: Phase, amount: i64) -> i64 {
        if self.phases.contains(phase) { (amount - self.from[phase.index()]).max(0) } else { 0 }
    }

    fn extra_at(&self, amount: i64) -> i64 {
        self.phases.iter().map(|phase| self.extra_on(phase, amount)).sum()
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

impl<'a> Raising<'a> {
    fn new(frame: &'a Frame<'a>, allotted: &[Allotment], capacities: &[i64], offers: &[Offer]) -> Self {
        let mut room = capacities.to_vec();
        let committed = frame.row_loads((0..offers.len()).map(|index| (index, frame.load_committed(index))));
        room.iter_mut().zip(committed).for_each(|(room, load)| *room -= load);
        let credits = (0..offers.len()).map(|index| (index, certain(&frame.state.evses[index], &offers[index])));
        frame.add_credits(&mut room, credits);
        let wanted = frame.row_loads(allotted.iter().map(|share| {
            let raise = Raise::new(frame, share);
            let slots = i64::from(frame.class(share.evse).slots);
            let phases = Phase::ALL.map(|phase| raise.extra_on(phase, raise.target));
            (share.evse, Load { phases, power: raise.extra_power(raise.target, slots) })
        }));
        let tight = frame.tight_terms(|row| wanted[row] > room[row]);
        let has_ramp = frame.state.circuits.iter().any(|circuit| circuit.ramp.is_some());
        let ramp = has_ramp.then(|| {
            let of_circuit = |circuit: &super::CircuitState| {
                circuit.ramp.map_or(i64::MAX, |ramp| i64::from(ramp.at_least_zero().ma()))
            };
            frame.state.circuits.iter().flat_map(|circuit| [of_circuit(circuit); 3]).collect()
        });
        Self { frame, room, ramp, tight }
    }

    /// Whether anything could keep a raise of this EVSE back.
    fn can_stop(&self, evse: usize) -> bool {
        self.ramp.is_some() || !self.tight.of(self.frame.class_of[evse]).is_empty()
    }

    fn make(&mut self, raise: &Raise, wishes: &Wishes<'_>, offer: &mut Offer) {
        let Some(wish) = &wishes.of[raise.evse] else { return };
        let (reach, stop) = self.reach(raise);
        let Some(stop) = stop.filter(|_| reach < raise.target) else { return self.spend(raise, raise.target) };
        let stays = wish.grid.at_most(raise.lowest().min(raise.target));
        let limit = wish.grid.at_most(reach).max(stays);
        if limit <= stays {
            self.keep_for_later(stop);
        }
        self.spend(raise, limit);
        offer.limit = current(limit);
        offer.binding = match stop {
            Stop::Row(row) => Binding::RaisePending(self.frame.bottleneck(row)),
            Stop::Ramp(at) => Binding::Ramp { circuit: CircuitIndex(at / 3) },
        };
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
        for term in self.tight.of(self.frame.class_of[raise.evse]) {
            let room = self.room[term.at()];
            let most = match self.frame.rows[term.at()].what {
                What::Phase(phase) | What::Unbalance { phase, .. } => from(phase) + room.max(0),
                What::Power | What::Charging => raise.reach_power(room, i64::from(term.coefficient)),
            };
            at_most(most, Stop::Row(term.at()));
        }
        if let Some(ramp) = &self.ramp {
            for above in self.frame.path(raise.evse) {
                for phase in raise.phases.iter() {
                    let at = above.0 * 3 + phase.index();
                    at_most(from(phase).saturating_add(ramp[at]), Stop::Ramp(at));
                }
            }
        }
        reach
    }

    fn spend(&mut self, raise: &Raise, limit: i64) {
        for term in self.tight.of(self.frame.class_of[raise.evse]) {
            self.room[term.at()] -= match self.frame.rows[term.at()].what {
                What::Phase(phase) | What::Unbalance { phase, .. } => raise.extra_on(phase, limit),
                What::Power | What::Charging => raise.extra_power(limit, i64::from(term.coefficient)),
            };
        }
        if let Some(ramp) = &mut self.ramp {
            for above in self.frame.path(raise.evse) {
                for phase in raise.phases.iter() {
                    ramp[above.0 * 3 + phase.index()] -= raise.extra_on(phase, limit);
                }
            }
        }
    }

    /// Nobody else takes what is free there in this plan.
    fn keep_for_later(&mut self, stop: Stop) {
        match (stop, &mut self.ramp) {
            (Stop::Row(row), _) => self.room[row] = self.room[row].min(0),
            (Stop::Ramp(at), Some(ramp)) => ramp[at] = 0,
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
