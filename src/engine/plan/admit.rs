//! Who is served when not all minimums fit.
//!
//! In this order, and whoever's minimum still fits is served:
//!
//! 1. by priority;
//! 2. whose turn is not over ([`TURN_MS`] from the moment in which it was given its minimum), except that somebody who was let in because
//!    an earlier one did not fit stands in the line of those who wait, at his own place: he leaves as soon as the earlier one fits;
//! 3. who waits for at least [`SHORTEST_WAIT_MS`], the longest first; a deadline may put somebody ahead of those who have waited for less
//!    than [`HEAD_START_MS`] minus his laxity, so that the least laxity goes first and nobody is passed for ever. Who needs more scarce rows
//!    than others counts as having come [`COSTLY_LATER_MS`] later;
//! 4. whose turn is over: he stays while nobody needs his place. Those who take up fewer scarce rows stay rather than others, so
//!    that as many as possible are served (who takes up more has more power while he is served, too); for twelve hours at most, then it is
//!    their turn to wait;
//! 5. who has only begun to wait. (Else one who has just been sent away would at once take the next one's place, and so on.)
//!
//! Whose car took nothing of its last offer goes after all of these, whatever the priority, until it stands in line again. Those of them
//! who are served go first, so that they do not take each other's places.
//!
//! Where times are the same (who is sent away in the same plan, or all when the controller has just started), those who take up fewer scarce rows go first, then those with more phases; among those who are
//! equal in all, an order that is another one each time, so that no place in the configuration is better than another.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::binding::Binding;
use super::fill::{Term, number};
use super::frame::{Frame, Load, Tight, What, counted_on};
use super::wish::{Wish, Wishes};
use super::{EvseState, Offer, TURN_MS};
use crate::engine::time::Mono;

/// Who has lost his place waits at least so long for another one, if all are taken.
pub const SHORTEST_WAIT_MS: u64 = TURN_MS;

/// A car whose laxity is 0 goes ahead of those who have waited for less than this.
pub const HEAD_START_MS: u64 = 4 * TURN_MS;

/// Whose turn was over so long ago waits once, even if others could be sent away at less cost.
const LONG_TURN_MS: u64 = 48 * TURN_MS;

/// Who needs more scarce rows than others do stands in line so much later. Not all at once then, and mostly one such leaves when another one
/// comes: else those who need little would have to leave together for those who need much, and less would be served in every second turn.
const COSTLY_LATER_MS: u64 = TURN_MS / 3;

/// A place in the order of admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    kind: Kind,
    /// Since when it waits in ms, as its deadline puts it; for whose turn is over, how many long turns ago that was.
    since: i64,
    scarce: u32,
    /// Who uses more phases makes more of a place.
    phases: Reverse<u32>,
    exactly: Exactly,
    /// Another order for each time at which somebody comes.
    drawn: u64,
    evse: u32,
}

impl Place {
    const fn evse(&self) -> usize {
        self.evse as usize
    }
}

/// Whether it rests, its priority and its tier, packed into one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind(u64);

impl Kind {
    fn new(rests: bool, priority: i32, tier: Tier) -> Self {
        let from_highest = i64::from(i32::MAX) - i64::from(priority);
        let tier = match tier {
            Tier::InTurn => 0,
            Tier::Line => 1,
            Tier::TurnOver => 2,
            Tier::Fresh => 3,
        };
        Self(u64::from(rests) << 40 | from_highest.unsigned_abs() << 2 | tier)
    }

    fn priority(self) -> i32 {
        let from_highest = i64::try_from(self.0 >> 2 & u64::from(u32::MAX)).unwrap_or(0);
        i32::try_from(i64::from(i32::MAX) - from_highest).unwrap_or(i32::MIN)
    }

    const fn is_turn_over(self) -> bool {
        self.0 & 3 == 2
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tier {
    InTurn,
    Line,
    TurnOver,
    Fresh,
}

/// A time in ms such that the earlier goes first, or the later: the one in some tiers, the other in the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Exactly(u64);

impl Exactly {
    const fn earliest(at: Mono) -> Self {
        Self(at.ms())
    }

    const fn latest(at: Mono) -> Self {
        Self(u64::MAX - at.ms())
    }
}

/// Who is served, and who waits.
///
/// Kept from plan to plan for its memory: nothing of it is read before it is written.
#[derive(Clone, Debug, Default)]
pub(super) struct Admission {
    pub(super) delays: Delays,
    pub(super) admitted: Vec<bool>,
    /// Those who do not fit, in the order of the queue.
    pub(super) waiting: Vec<usize>,
    /// The terms of each class in the rows on which not all minimums fit.
    pub(super) scarce: Tight,
    sums: Vec<Load>,
    order: Vec<Place>,
    room: Vec<i64>,
}

/// Decides who is served. Whoever is not gets his binding.
pub(super) fn admit(
    frame: &Frame<'_>,
    wishes: &Wishes<'_>,
    room: &[i64],
    (offers, now): (&mut [Offer], Mono),
    admission: &mut Admission,
) {
    let Admission { delays, admitted, waiting, scarce, sums, order, room: left } = admission;
    let minimums = wishes.all().map(|(index, wish)| {
        let class = frame.class_of(index);
        (class, Frame::load_at(&frame.classes[class], wish.min()))
    });
    frame.sum(sums, minimums);
    frame.tight_terms(scarce, |row| frame.carried(sums, row) > room[row] || frame.is_unbalance(row));
    admitted.clear();
    waiting.clear();
    delays.set(frame, scarce);
    if scarce.is_empty() {
        admitted.extend(wishes.of.iter().map(Option::is_some));
        return;
    }
    admitted.resize(wishes.of.len(), false);
    order.clear();
    let mut line = Line { frame, delays, wishes, now, first: BTreeMap::new() };
    for (index, _) in wishes.all() {
        let rows = scarce.of(frame.class_of(index)).len();
        let place = line.place(index, &frame.state.evses[index], number(rows));
        if rows == 0 {
            admitted[index] = true;
        } else {
            order.push(place);
        }
    }
    if !line.first.is_empty() {
        order.iter_mut().for_each(|place| line.put_in_line(place));
    }
    order.sort_unstable();
    left.clear();
    left.extend(room);
    let mut kept = Vec::new();
    let mut over = vec![0; left.len()];
    for group in order.chunk_by_mut(|one, next| one.kind == next.kind) {
        if group[0].kind.is_turn_over() {
            put_last(frame, wishes, scarce, (group, left, &mut over));
        }
        for place in group {
            let Some(wish) = &wishes.of[place.evse()] else { continue };
            let terms = scarce.of(frame.class_of(place.evse()));
            let full = terms.iter().find(|term| left[term.at()] < needs(frame, place.evse(), wish.min(), **term));
            if let Some(term) = full {
                offers[place.evse()].binding = Binding::Queue(frame.bottleneck(term.at()));
                kept.push(*place);
            } else {
                admitted[place.evse()] = true;
                take(frame, place.evse(), wish.min(), terms, left);
            }
        }
    }
    // Who is sent away now stands behind those who wait already.
    let is_sent_away = |place: &Place| frame.state.evses[place.evse()].served_since.is_some();
    let priority = |place: &Place| Reverse(frame.state.evses[place.evse()].priority);
    kept.sort_unstable_by_key(|place| (priority(place), is_sent_away(place), place.since, *place));
    waiting.extend(kept.iter().map(Place::evse));
}

/// Puts those of a group last of which as few as possible must leave for the others to fit into what those before it have left: again and
/// again the one who relieves the overfull rows most. Who has had more long turns leaves before.
fn put_last(
    frame: &Frame<'_>,
    wishes: &Wishes<'_>,
    scarce: &Tight,
    (group, room, over): (&mut [Place], &[i64], &mut [i64]),
) {
    let min_of = |place: &Place| wishes.of[place.evse()].map_or(0, |wish| wish.min());
    over.iter_mut().zip(room).for_each(|(over, room)| *over = -room);
    for place in group.iter() {
        for term in scarce.of(frame.class_of(place.evse())) {
            over[term.at()] += i64::from(term.coefficient) * min_of(place);
        }
    }
    let relief = |place: &Place, over: &[i64]| -> i64 {
        let terms = scarce.of(frame.class_of(place.evse())).iter();
        terms.map(|term| over[term.at()].clamp(0, i64::from(term.coefficient) * min_of(place))).sum()
    };
    let key = |place: &Place, relief: i64| (place.since, relief, place.exactly, place.drawn);
    let mut next: BinaryHeap<_> =
        group.iter().enumerate().map(|(at, place)| (key(place, relief(place, over)), at)).collect();
    for place in group.iter_mut() {
        place.scarce = 0;
    }
    let mut last = u32::MAX;
    while let Some((was, at)) = next.pop() {
        let place = &mut group[at];
        let now = relief(place, over);
        if now == 0 {
            continue;
        }
        // What it relieves only becomes less.
        if now < was.1 {
            next.push((key(place, now), at));
            continue;
        }
        for term in scarce.of(frame.class_of(place.evse())) {
            over[term.at()] -= i64::from(term.coefficient) * min_of(place);
        }
        place.scarce = last;
        last -= 1;
    }
    group.sort_unstable_by_key(|place| (place.scarce, *place));
}

/// What `amount` takes of a row: on the unbalance, only what its own current on the other phase is not counted on to outweigh.
pub(super) fn needs(frame: &Frame<'_>, evse: usize, amount: i64, term: Term) -> i64 {
    let needed = i64::from(term.coefficient) * amount;
    match frame.rows[term.at()].what {
        What::Phase(_) | What::Power | What::Charging => needed,
        What::Unbalance { against, .. } if frame.class(evse).phases.contains(against) => {
            needed - counted_on(&frame.state.evses[evse], amount)[against.index()]
        }
        What::Unbalance { .. } => needed,
    }
}

/// Takes `amount` from the rows.
fn take(frame: &Frame<'_>, evse: usize, amount: i64, terms: &[Term], room: &mut [i64]) {
    for term in terms {
        room[term.at()] -= i64::from(term.coefficient) * amount;
    }
    let class = frame.class(evse);
    if class.unbalanced {
        let counted = counted_on(&frame.state.evses[evse], amount);
        for row in frame.unbalance_above(class.circuit()) {
            if let What::Unbalance { against, .. } = frame.rows[row].what {
                room[row] += if class.phases.contains(against) { counted[against.index()] } else { 0 };
            }
        }
    }
}

/// How long it could still wait if it then had all it can use, in ms; negative where it cannot be ready in time. `None`: it has no
/// deadline that lies ahead.
pub(super) fn laxity_ms(evse: &EvseState, max: i64, now: Mono) -> Option<i64> {
    let deadline = evse.deadline.filter(|deadline| deadline.by > now && deadline.missing_ma_s > 0)?;
    let left = i64::try_from(deadline.by.since(now)).unwrap_or(i64::MAX);
    let needed = i128::from(deadline.missing_ma_s) * 1000 / i128::from(max.max(1));
    Some(left.saturating_sub(i64::try_from(needed).unwrap_or(i64::MAX)))
}

/// Since when somebody stands in line, in ms: his deadline may put him further ahead than his arrival.
fn stands_since(evse: &EvseState, (arrival, max): (i64, i64), now: Mono) -> i64 {
    let by_laxity = laxity_ms(evse, max, now)
        .map(|laxity| signed(now.ms()).saturating_add(laxity).saturating_sub(signed(HEAD_START_MS)));
    by_laxity.map_or(arrival, |by_laxity| arrival.min(by_laxity))
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

/// By how much later than others the members of each class stand in line.
#[derive(Clone, Debug, Default)]
pub(super) struct Delays {
    /// Empty where nobody does.
    of_class: Vec<u64>,
    fewest: Vec<usize>,
}

impl Delays {
    fn set(&mut self, frame: &Frame<'_>, scarce: &Tight) {
        let Self { of_class, fewest } = self;
        of_class.clear();
        if scarce.is_empty() {
            return;
        }
        fewest.clear();
        fewest.resize(frame.rows.len(), usize::MAX);
        let classes = || (0..frame.classes.len()).map(|class| scarce.of(class));
        for terms in classes() {
            for term in terms {
                fewest[term.at()] = fewest[term.at()].min(terms.len());
            }
        }
        let is_costly = |terms: &[Term]| terms.iter().any(|term| fewest[term.at()] < terms.len());
        of_class.extend(classes().map(|terms| if is_costly(terms) { COSTLY_LATER_MS } else { 0 }));
    }

    pub(super) fn of(&self, class: usize) -> u64 {
        self.of_class.get(class).copied().unwrap_or(0)
    }
}

/// Those who wait, as far as the order depends on them.
struct Line<'a> {
    frame: &'a Frame<'a>,
    delays: &'a Delays,
    wishes: &'a Wishes<'a>,
    now: Mono,
    /// For each priority when the first of those arrived who are in line now.
    first: BTreeMap<i32, Mono>,
}

impl Line<'_> {
    /// Since when it stands in line, which may be later than now.
    fn arrival(&self, index: usize) -> Mono {
        self.frame.state.evses[index].arrival(self.now).plus_ms(self.delays.of(self.frame.class_of(index)))
    }

    /// The place of somebody who is in his turn as if nobody had come before him: [`Line::put_in_line`] knows when all places are known.
    fn place(&mut self, index: usize, evse: &EvseState, scarce: u32) -> Place {
        let max = self.wishes.of[index].as_ref().map_or(1, Wish::max);
        let arrival = self.arrival(index);
        let since = stands_since(evse, (signed(arrival.ms()), max), self.now);
        let rests = evse.rests(self.now);
        let (tier, since, exactly) = match evse.served_since {
            Some(served) if rests => (Tier::TurnOver, 0, Exactly::latest(served)),
            None if rests => (Tier::Fresh, signed(arrival.ms()), Exactly::earliest(arrival)),
            Some(served) if self.now.since(served) < TURN_MS => (Tier::InTurn, since, Exactly::earliest(arrival)),
            Some(served) => {
                let long = i64::try_from(self.now.since(served) / LONG_TURN_MS).unwrap_or(i64::MAX);
                (Tier::TurnOver, long, Exactly::latest(served))
            }
            None if self.now.since(arrival) >= SHORTEST_WAIT_MS => {
                let first = self.first.entry(evse.priority).or_insert(arrival);
                *first = (*first).min(arrival);
                (Tier::Line, since, Exactly::earliest(arrival))
            }
            None => (Tier::Fresh, since, Exactly::earliest(arrival)),
        };
        let drawn = drawn(arrival.ms(), index);
        let (kind, phases) = (Kind::new(rests, evse.priority, tier), Reverse(evse.phases.len()));
        Place { kind, since, scarce, phases, exactly, drawn, evse: number(index) }
    }

    /// Who was let in because an earlier one did not fit stands in line as if he had no turn.
    fn put_in_line(&self, place: &mut Place) {
        let priority = place.kind.priority();
        let is_after = |first: &Mono| place.exactly >= Exactly::earliest(*first);
        if place.kind == Kind::new(false, priority, Tier::InTurn) && self.first.get(&priority).is_some_and(is_after) {
            place.kind = Kind::new(false, priority, Tier::Line);
        }
    }
}

/// Mixes a time and an index so that the order of the results says nothing of the indices (the finisher of splitmix64).
fn drawn(time: u64, index: usize) -> u64 {
    let index = u64::try_from(index).unwrap_or(u64::MAX).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = time.wrapping_mul(0xd134_2543_de82_ef95) ^ index;
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
