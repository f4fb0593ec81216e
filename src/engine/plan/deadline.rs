//! Deadlines: what somebody must have to be ready in time, and what cannot be met.

use std::collections::BTreeMap;

use super::admit::laxity_ms;
use super::frame::{Frame, counted_on};
use super::share::Allotment;
use super::wish::Wishes;
use super::{EvseState, Offer, QueuePlace, Shortfall};
use crate::engine::time::Mono;

/// Raises the floors of those who are served, which are their minimums, to what their deadlines need, as far as that fits beside the
/// minimums of the others. Who has the least laxity is given it first.
pub(super) fn raise_floors(
    frame: &Frame<'_>,
    wishes: &Wishes<'_>,
    served: &mut [Allotment],
    capacities: &[i64],
    now: Mono,
) {
    if !wishes.has_deadlines {
        return;
    }
    let urgent = served.iter().enumerate().filter_map(|(number, share)| {
        let evse = &frame.state.evses[share.evse()];
        let laxity = laxity_ms(evse, share.max(), now)?;
        let needed = needed_ma(evse, now)?;
        let wish = wishes.of[share.evse()].as_ref()?;
        let needed = wish.grid.at_least(needed).unwrap_or(share.max()).min(share.max());
        (needed > wish.min()).then_some((laxity, number, needed))
    });
    let mut urgent: Vec<(i64, usize, i64)> = urgent.collect();
    if urgent.is_empty() {
        return;
    }
    urgent.sort_unstable();
    let mut room = capacities.to_vec();
    let credits = served.iter().map(|share| {
        let counted = counted_on(&frame.state.evses[share.evse()], share.floor());
        (share.evse(), counted)
    });
    frame.add_credits(&mut room, credits);
    let mut sums = Vec::new();
    frame.sum(&mut sums, served.iter().map(|share| share.load_at(frame, share.floor())));
    frame.take_from(&mut room, &sums);
    for (_, number, needed) in urgent {
        let share = &mut served[number];
        let Some(wish) = &wishes.of[share.evse()] else { continue };
        let terms = frame.terms(frame.class(share.evse()));
        let fits = terms.iter().map(|term| room[term.at()] / i64::from(term.coefficient.max(1))).min().unwrap_or(0);
        let floor = wish.grid.at_most(needed.min(wish.min() + fits.max(0))).max(wish.min());
        for term in terms {
            room[term.at()] -= i64::from(term.coefficient) * (floor - wish.min());
        }
        share.set_floor(floor);
    }
}

/// The steady current that is ready just in time, rounded up.
fn needed_ma(evse: &EvseState, now: Mono) -> Option<i64> {
    let deadline = evse.deadline.filter(|deadline| deadline.by > now)?;
    let left = i128::from(deadline.by.since(now));
    let needed = (i128::from(deadline.missing_ma_s.max(0)) * 1000 + left - 1) / left;
    Some(i64::try_from(needed).unwrap_or(i64::MAX / 2))
}

/// What will be missing at each deadline if all goes on as it is: who is served has its target until then, who waits has its
/// minimum from the moment at which its turn is expected to begin, and who takes no part has nothing. A deadline that has passed is short by
/// all that is missing.
pub(super) fn shortfalls(
    frame: &Frame<'_>,
    wishes: &Wishes<'_>,
    offers: &[Offer],
    (queue, expected): (&[QueuePlace], &[Mono]),
    now: Mono,
    shortfalls: &mut Vec<Shortfall>,
) {
    shortfalls.clear();
    if !wishes.has_deadlines {
        return;
    }
    let waits: BTreeMap<usize, Mono> =
        queue.iter().zip(expected).map(|(place, starts)| (place.evse.0, *starts)).collect();
    for (index, evse) in frame.state.evses.iter().enumerate() {
        let Some(deadline) = evse.deadline.filter(|deadline| deadline.missing_ma_s > 0) else { continue };
        let evse = super::frame::evse_index(index);
        let (from, rate) = match (waits.get(&index), &wishes.of[index]) {
            (Some(starts), Some(wish)) => (*starts, wish.min()),
            (Some(_), None) | (None, _) => (now, i64::from(offers[index].target.ma())),
        };
        let gets = i128::from(deadline.by.since(from)) * i128::from(rate) / 1000;
        let missing = i128::from(deadline.missing_ma_s) - gets;
        // Less than a second of what it has is rounding.
        if missing > i128::from(rate) {
            shortfalls.push(Shortfall { evse, missing_ma_s: i64::try_from(missing).unwrap_or(i64::MAX) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::plan::Deadline;
    use crate::engine::plan::testing::{NOW, circuit, site, state, station};
    use crate::engine::units::Phase;

    #[test]
    fn the_steady_current_is_rounded_up() {
        let topology = site(vec![circuit("grid", None, 20)], vec![station(0, 0, &Phase::ALL)]);
        let mut evse = state(&topology, &[0]).evses[0];
        evse.deadline = Some(Deadline { missing_ma_s: 10_001, by: NOW.plus_ms(1_000) });
        assert_eq!(needed_ma(&evse, NOW), Some(10_001));
        evse.deadline = Some(Deadline { missing_ma_s: 10_001, by: NOW.plus_ms(2_000) });
        assert_eq!(needed_ma(&evse, NOW), Some(5_001));
        assert_eq!(needed_ma(&evse, NOW.plus_ms(2_000)), None);
    }
}
