//! What a car takes of what it is offered: what it leaves is reclaimed for others, and handed back as soon as it wants it.
//!
//! A car that takes nothing at all (it is full, or waits for its own timer) has its minimum for as long as nobody else needs the place. If
//! somebody does, its turn is over; nobody can see then whether it wants to charge again, so it gets another turn after a rest, and after
//! a longer one each time that it has taken nothing again.

use super::io::Output;
use super::{Purpose, Site};
use crate::engine::model::exchange::{StationCall, StationReply};
use crate::engine::model::topology::{CircuitIndex, EvseIndex};
use crate::engine::ocpp::Priority;
use crate::engine::plan::{SHORTEST_WAIT_MS, TURN_MS};
use crate::engine::time::{Mono, Now};
use crate::engine::units::{Current, PerPhase};

/// A car that leaves more than this unused, for [`UNUSED_MS`], is offered no more than what it takes and this on top.
const UNUSED: Current = Current::from_a(2);

/// See [`UNUSED`].
const UNUSED_MS: u64 = 30_000;

/// A car within this of its offer uses all of it.
const USES_ALL: Current = Current::from_a(1);

/// When the meter rises by this, it may be a car that wants more than it is offered.
const RISE: Current = Current::from_ma(800);

/// A station is asked for a sample at most so often.
const ASK_MS: u64 = 3_000;

/// Where no fast meter sees a car's demand rise, it is asked so often.
const ASK_BLINDLY_MS: u64 = 5_000;

/// A meter faster than this sees a car rise sooner than its station says so.
const FAST_MS: u64 = 2_000;

/// A car that draws less takes nothing: a charger that is only awake draws some 100 mA.
const TAKES: Current = Current::from_ma(500);

/// A car that has drawn in this turn and then takes nothing for so long has ended. A pause for its battery's temperature may last longer;
/// then it has its next turn.
const ENDED_MS: u64 = 60_000;

/// A car that has not drawn yet is given so long to begin: some measure the line for more than a minute first.
const BEGINS_MS: u64 = 120_000;

/// As these two, when the station itself says that its car takes nothing.
const SAID_ENDED_MS: u64 = 15_000;
const SAID_NOT_BEGUN_MS: u64 = 60_000;

/// While a car takes nothing its station is asked for a sample so often.
const ASK_IDLE_MS: u64 = 10_000;

/// The first rest of a car that took nothing. Each further one is twice as long, up to [`LONGEST_REST_MS`].
const FIRST_REST_MS: u64 = TURN_MS;

/// See [`FIRST_REST_MS`].
const LONGEST_REST_MS: u64 = 8 * TURN_MS;

/// What one car takes.
#[derive(Clone, Debug, Default)]
pub(super) struct Appetite {
    rest: Rest,
    /// It leaves something unused since then.
    unused_since: Option<Mono>,
    /// The most that it is known to take, with a margin.
    takes: Option<Current>,
    /// What the meter above it showed when its last sample came.
    meter_then: Option<PerPhase<Current>>,
    asked_at: Option<Mono>,
    /// Its station does not send samples when asked.
    not_asked: bool,
}

/// Whether a car takes anything at all.
#[derive(Clone, Debug, Default)]
struct Rest {
    /// It has drawn something in this turn.
    has_drawn: bool,
    /// The first and the last of the samples that show nothing, since it drew or was offered something.
    nothing: Option<(Mono, Mono)>,
    /// The station says since then that its car takes nothing.
    said_since: Option<Mono>,
    /// It said so while the car drew: nothing is made of that until it says something else.
    is_wrong: bool,
    /// It takes nothing, and would rest until then if it had to go; or it has gone, and rests until then.
    until: Option<Mono>,
    /// How many turns in a row it has taken nothing.
    turns: u32,
}

impl Rest {
    fn sample(&mut self, drawn: Current, now: Mono) {
        if drawn < TAKES {
            let first = self.nothing.map_or(now, |(first, _)| first);
            self.nothing = Some((first, now));
        } else {
            *self = Self { has_drawn: true, is_wrong: self.said_since.is_some() || self.is_wrong, ..Self::default() };
        }
    }

    /// What the station says of its car while that is offered something.
    fn said(&mut self, says_nothing: bool, now: Mono) {
        self.is_wrong &= says_nothing;
        let said_before = self.said_since.is_some();
        self.said_since = (says_nothing && !self.is_wrong).then(|| self.said_since.unwrap_or(now));
        match (self.takes_nothing(now), self.until) {
            (true, None) => {
                let rest_ms = (FIRST_REST_MS << self.turns.min(8)).min(LONGEST_REST_MS);
                self.turns += 1;
                self.until = Some(now.plus_ms(rest_ms));
            }
            // It began to draw where nobody measures.
            (false, Some(_)) if self.nothing.is_none() && said_before => self.until = None,
            (true, Some(_)) | (false, _) => {}
        }
    }

    fn takes_nothing(&self, now: Mono) -> bool {
        let (seen_ms, said_ms) =
            if self.has_drawn { (ENDED_MS, SAID_ENDED_MS) } else { (BEGINS_MS, SAID_NOT_BEGUN_MS) };
        let seen = self.nothing.is_some_and(|(first, last)| last.since(first) >= seen_ms);
        seen || self.said_since.is_some_and(|since| now.since(since) >= said_ms)
    }

    /// It is offered something again. Whether it takes that is to be seen; a rest that is not over yet goes on, since it has this only because
    /// nobody else needs it.
    fn begin(&mut self, now: Mono) {
        let until = self.until.filter(|until| *until > now);
        *self = Self { until, turns: self.turns, ..Self::default() };
    }
}

impl Appetite {
    /// Its car takes nothing: until when it rests, if it has had to go.
    pub(super) const fn rests_until(&self) -> Option<Mono> {
        self.rest.until
    }

    /// Its turn begins. It stands in line since `wants_since`, or since its rest was over.
    pub(super) fn begin_turn(&mut self, wants_since: Option<Mono>, now: Mono) -> Option<Mono> {
        let stands = self.rest.until.map(|until| until.minus_ms(SHORTEST_WAIT_MS));
        self.rest.begin(now);
        wants_since.max(stands.filter(|_| wants_since.is_some()))
    }

    /// Its turn is over: what it took of the last offer says nothing of the next one, but whether it took anything.
    pub(super) fn end_turn(&mut self) {
        let Rest { until, turns, .. } = self.rest;
        *self = Self { rest: Rest { until, turns, ..Rest::default() }, ..Self::default() };
    }

    /// Somebody asks for this car: it is tried at once.
    pub(super) fn end_rest(&mut self) {
        self.rest = Rest::default();
    }

    /// The most that the car is known to take, if it leaves something.
    pub(super) const fn takes(&self) -> Option<Current> {
        self.takes
    }

    /// A sample of a car that had time to follow its offer.
    pub(super) fn sample(&mut self, drawn: Current, offered: Current, now: Mono) {
        if offered > Current::ZERO {
            self.rest.sample(drawn, now);
        }
        if drawn + USES_ALL >= offered {
            // It uses all it has: hand back at once.
            self.takes = None;
            self.unused_since = None;
        } else if drawn + UNUSED < offered {
            let since = *self.unused_since.get_or_insert(now);
            if now.since(since) >= UNUSED_MS {
                self.takes = Some(drawn + UNUSED);
            }
        }
    }
}

impl Site {
    /// Looks at whether the car at an EVSE takes anything of what it is offered.
    pub(super) fn note_appetite(&mut self, index: EvseIndex, now: Mono) {
        let says_nothing = self.takes_no_more(index);
        let control = &mut self.evses[index.0];
        // Before the offer is confirmed, what the station says is of the time before.
        if control.served_since.is_some() && !control.tether.is_settling(now) {
            control.appetite.rest.said(says_nothing, now);
        }
    }

    /// The current that the nearest meter above an EVSE shows, if that meter is fast.
    fn fast_meter_above(&self, index: EvseIndex, now: Mono) -> Option<PerPhase<Current>> {
        let topology = &self.setup.topology;
        let circuit: Vec<CircuitIndex> = topology.path_to_grid(topology.evse(index).circuit).collect();
        let meter = circuit.into_iter().find_map(|circuit| topology.circuit(circuit).meter)?;
        let state = &self.meters[meter.0];
        state.gauge.known_period_ms().filter(|period| *period <= FAST_MS)?;
        state.last.as_ref()?.fresh(now, topology.meters()[meter.0].stale_after_ms)?.current.complete()
    }

    /// What the meter shows at a sample: a rise after it may be the car's.
    pub(super) fn note_meter_at_sample(&mut self, index: EvseIndex, now: Mono) {
        self.evses[index.0].appetite.meter_then = self.fast_meter_above(index, now);
    }

    /// Asks the stations of cars whose current was reclaimed for a sample, when the meter says that one may want it back: with their own
    /// interval of many seconds it would have to wait too long.
    pub(super) fn ask_for_samples(&mut self, now: Now, out: &mut Vec<Output>) {
        for index in (0..self.evses.len()).map(EvseIndex) {
            if !self.wants_a_sample(index, now.mono) {
                continue;
            }
            let evse = self.setup.topology.evse(index);
            let appetite = &mut self.evses[index.0].appetite;
            appetite.asked_at = Some(now.mono);
            let call = StationCall::Trigger { message: "MeterValues".to_owned(), evse: Some(evse.number) };
            self.call(evse.station, call, (Priority::Background, Purpose::Sample(index)), now, out);
        }
    }

    fn wants_a_sample(&self, index: EvseIndex, now: Mono) -> bool {
        let control = &self.evses[index.0];
        let appetite = &control.appetite;
        if appetite.not_asked || !self.reachable(index) {
            return false;
        }
        if control.measured.is_none() && self.is_charging(index) {
            // After a start nobody knows what it draws; all of that counts as other load until its first sample.
            return appetite.asked_at.is_none();
        }
        let idle = appetite.rest.nothing.is_some() && appetite.rest.until.is_none();
        if appetite.takes.is_none() && !idle {
            return false;
        }
        let station = self.setup.topology.station(self.setup.topology.evse(index).station);
        let age_ms = control.measured.as_ref().map_or(u64::MAX, |sample| sample.age_ms(now));
        let asked_ms = appetite.asked_at.map_or(u64::MAX, |at| now.since(at));
        let phases = station.wiring.phases();
        if idle && age_ms.min(asked_ms) >= ASK_IDLE_MS.min(station.model.meter_interval_ms) {
            return true;
        }
        match (self.fast_meter_above(index, now), appetite.meter_then) {
            (Some(shown), Some(then)) => {
                let rose = phases.iter().any(|phase| shown.of(phase) - then.of(phase) >= RISE);
                rose && age_ms.min(asked_ms) >= ASK_MS.min(station.model.meter_interval_ms)
            }
            (Some(_) | None, _) => age_ms.min(asked_ms) >= ASK_BLINDLY_MS,
        }
    }

    /// The station's answer to the request for a sample.
    pub(super) fn sample_asked(&mut self, index: EvseIndex, reply: &StationReply) {
        self.evses[index.0].appetite.not_asked = !matches!(reply, StationReply::Accepted { .. });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: u64 = 60_000;

    fn at(s: u64) -> Mono {
        Mono::from_ms(s * 1_000)
    }

    /// A turn that begins at a second, with samples of what is drawn every ten seconds.
    fn turn(appetite: &mut Appetite, from_s: u64, drawn_a: &[i32], says_nothing: bool) {
        appetite.begin_turn(Some(at(0)), at(from_s));
        for (number, drawn_a) in (1..).zip(drawn_a) {
            let now = at(from_s + number * 10);
            appetite.sample(Current::from_a(*drawn_a), Current::from_a(6), now);
            appetite.rest.said(says_nothing, now);
        }
    }

    #[test]
    fn a_car_that_stops_to_draw_takes_nothing_after_a_minute() {
        let mut appetite = Appetite::default();
        turn(&mut appetite, 0, &[6, 6, 0, 0, 0, 0, 0, 0], false);
        assert_eq!(appetite.rests_until(), None);
        turn(&mut appetite, 0, &[6, 6, 0, 0, 0, 0, 0, 0, 0], false);
        assert_eq!(appetite.rests_until(), Some(at(90).plus_ms(TURN_MS)));
    }

    #[test]
    fn a_car_that_has_not_drawn_yet_is_given_two_minutes_to_begin() {
        let mut appetite = Appetite::default();
        turn(&mut appetite, 0, &[0; 12], false);
        assert_eq!(appetite.rests_until(), None);
        turn(&mut appetite, 0, &[0; 13], false);
        assert!(appetite.rests_until().is_some());
    }

    #[test]
    fn what_the_station_says_counts_sooner_unless_its_samples_say_something_else() {
        let mut appetite = Appetite::default();
        turn(&mut appetite, 0, &[0; 7], true);
        assert!(appetite.rests_until().is_some(), "after a minute it should have begun");
        let mut appetite = Appetite::default();
        turn(&mut appetite, 0, &[6; 60], true);
        assert_eq!(appetite.rests_until(), None, "it draws all the time");
        // Without samples the word alone counts, and taking it back.
        let mut appetite = Appetite::default();
        appetite.begin_turn(Some(at(0)), at(0));
        appetite.rest.said(true, at(5));
        appetite.rest.said(true, at(65));
        assert!(appetite.rests_until().is_some());
        appetite.rest.said(false, at(70));
        assert_eq!(appetite.rests_until(), None);
    }

    #[test]
    fn a_car_that_draws_again_is_like_any_other() {
        let mut appetite = Appetite::default();
        turn(&mut appetite, 0, &[0; 13], false);
        appetite.sample(Current::from_a(6), Current::from_a(6), at(140));
        assert_eq!(appetite.rests_until(), None);
        turn(&mut appetite, 200, &[0; 13], false);
        assert_eq!(appetite.rests_until(), Some(at(330).plus_ms(FIRST_REST_MS)), "and its rests begin anew");
    }

    #[test]
    fn each_rest_is_twice_as_long_as_the_one_before_up_to_two_hours() {
        let mut appetite = Appetite::default();
        let mut rests = Vec::new();
        let mut from_s = 0;
        for _ in 0..6 {
            turn(&mut appetite, from_s, &[0; 13], false);
            let until = appetite.rests_until().expect("it took nothing");
            rests.push(until.since(at(from_s + 130)) / MINUTE_MS);
            appetite.end_turn();
            assert_eq!(appetite.rests_until(), Some(until), "it rests now");
            from_s = until.ms() / 1_000;
        }
        assert_eq!(rests, [15, 30, 60, 120, 120, 120]);
    }

    #[test]
    fn who_is_tried_after_a_rest_stands_in_line_since_then() {
        let mut appetite = Appetite::default();
        turn(&mut appetite, 0, &[0; 13], false);
        appetite.end_turn();
        let until = appetite.rests_until().expect("it rests");
        assert_eq!(appetite.begin_turn(Some(at(100)), until), Some(until.minus_ms(SHORTEST_WAIT_MS)));
        assert_eq!(appetite.rests_until(), None, "it has a turn like any other");
    }

    #[test]
    fn a_place_that_nobody_needs_ends_no_rest() {
        let mut appetite = Appetite::default();
        turn(&mut appetite, 0, &[0; 13], false);
        appetite.end_turn();
        turn(&mut appetite, 200, &[0, 0], false);
        assert!(appetite.rests_until().is_some());
        appetite.sample(Current::from_a(3), Current::from_a(6), at(230));
        assert_eq!(appetite.rests_until(), None, "but its drawing something does");
    }
}
