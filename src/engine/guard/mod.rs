//! A second, separately written check of everything that leaves towards stations. It rests on nothing but the wire: the frames that leave,
//! the answers that come, the meters, and what the site's wiring is declared to be. It holds each frame that would let stations draw more
//! against one rule, for currents and powers, and may only lower it or keep it back:
//!
//! ```text
//! what the meter shows beyond all that EVSEs can have drawn + the most that they may draw then ≤ the limit
//! ```
//!
//! and for the unbalance: the most that EVSEs may draw on a phase then ≤ the limit + the most that they have said that they draw on another.
//!
//! The first term is the part of the other load that is proven. The planner's own estimate is never below it, so that a frame that is held
//! back is a fault of the planner, of the tethers or of the sessions, or a person's mistake; `docs/safety.md` says what it cannot see.

mod clock;
mod hold;
mod judge;
mod rows;
mod said;
mod settling;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::engine::model::limit::OutsideLimits;
use crate::engine::model::reading::MeterReading;
use crate::engine::model::topology::{CircuitIndex, EvseIndex, LeaseForm, MeterIndex, StationIndex, Topology};
use crate::engine::time::{Mono, Now, Utc};
use crate::engine::units::{Current, PerPhase, PhaseSet};
use clock::WireClock;
use hold::{Hold, Ms, Scale, WIDE_EXTRA_MS, Window};
use said::Said;
use settling::Settling;
use wire::{Answer, Heard, Sent};

/// Above a limit by no more than this is at the limit: decimals of limits, and watts that become amperes.
const TOLERANCE: Current = Current::from_ma(200);

/// For so long the site may leave a circuit above its limit while a station that answers could be cut. The site cuts within a control cycle.
const LOWER_WITHIN_MS: Ms = 15_000;

/// A station without a lease that has left a call open for longer counts at its maximum.
const SILENT_MS: Ms = 35_000;

/// A disagreement is over after so long without another one.
const QUIET_MS: Ms = 600_000;

/// What becomes of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may leave.
    Pass,
    /// This one leaves in its place: the same with lower limits.
    Replace(String),
    /// It may not leave, for this reason.
    Withhold(String),
}

/// What somebody must know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// The circuit.
    pub circuit: CircuitIndex,
    /// What is the case, in one sentence; `None`: it is over.
    pub message: Option<String>,
}

/// What the guard is told of earlier runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Earlier<'a> {
    /// What [`Guard::memory`] gave the last run, if it is there.
    pub memory: Option<&'a [u8]>,
    /// The EVSEs that have accepted a lease with today's fallback or less at some time.
    pub tamed: &'a [EvseIndex],
}

/// What one EVSE may draw now.
#[derive(Clone, Copy, Debug, Default)]
struct View {
    /// By what was sent and answered.
    most: Current,
    /// The same with every doubt on the other side: at least what it drew when a meter was read just now.
    wide: Current,
}

#[derive(Debug, Default)]
struct StationState {
    connected: bool,
    hold: Hold,
    /// The hold as it is remembered, until it changes: it is written far more often than it changes.
    kept: Option<Box<RawValue>>,
    clock: WireClock,
    /// What it says that it draws; only where the unbalance is limited.
    said: Said,
    /// Calls without an answer, and when they were sent.
    open: BTreeMap<String, Ms>,
    /// Until then it counts as it was last counted, unless it is told or says something.
    next_change: Ms,
}

#[derive(Clone, Debug, Default)]
struct EvseState {
    view: View,
    /// After a cut was accepted the car may still draw the old current for a while.
    settling: Settling,
    /// What it was sent last: what it will draw at most when all is answered.
    newest: Option<Current>,
    /// Its last limit was refused: it cannot be cut.
    refused: bool,
    /// The phases that its car has not given up; `None`: all that it is wired to.
    phases: Option<PhaseSet>,
}

#[derive(Debug, Default)]
struct CircuitState {
    outside: OutsideLimits,
    most: PerPhase<Current>,
    /// The same as it counts for powers, in mA on all phases together.
    most_power: i64,
    wide: PerPhase<Current>,
    /// The last reading less all that EVSEs can have drawn then, and when the meter was asked.
    proven: Option<(PerPhase<Current>, Mono)>,
    read: Option<MeterReading>,
    /// The most that EVSEs can have drawn since the meter showed something new, and between that and the time before: it may be slow.
    peak: PerPhase<Current>,
    peak_before: PerPhase<Current>,
    above_since: Option<Ms>,
    /// The site does not lower here: nothing but cuts may leave.
    frozen: bool,
    disagreed_at: Option<Ms>,
}

/// The guard.
#[derive(Debug)]
pub struct Guard {
    topology: Topology,
    stations: Vec<StationState>,
    evses: Vec<EvseState>,
    circuits: Vec<CircuitState>,
    /// The unbalance of a circuit is limited.
    has_unbalance: bool,
    /// The first moment from which a station may count otherwise.
    next_change: Ms,
    disagreements: Vec<Disagreement>,
    count: u64,
    has_news: bool,
}

/// What the next run has to know: by station, the hold itself where it is read, and as JSON where it is written.
#[derive(Serialize, Deserialize)]
struct Memory<S: Ord, H> {
    mono: Mono,
    utc: Utc,
    trusted: bool,
    holds: BTreeMap<S, H>,
}

impl Guard {
    /// A guard that knows of stations only what earlier runs leave behind.
    #[must_use]
    pub fn new(topology: &Topology, earlier: Earlier<'_>, now: Now) -> Self {
        let mut guard = Self {
            stations: topology.stations().iter().map(|_| StationState::default()).collect(),
            evses: vec![EvseState::default(); topology.evses().len()],
            circuits: topology.circuits().iter().map(|_| CircuitState::default()).collect(),
            has_unbalance: topology.circuits().iter().any(|circuit| circuit.max_unbalance.is_some()),
            topology: topology.clone(),
            next_change: Ms::MAX,
            disagreements: Vec::new(),
            count: 0,
            has_news: false,
        };
        let mut memory = earlier.memory.and_then(|bytes| serde_json::from_slice::<Memory<String, Hold>>(bytes).ok());
        let by = memory.as_ref().filter(|memory| memory.trusted && now.utc_trusted);
        let by = by.map(|memory| ms(now.mono) - ms(memory.mono) - now.utc.since(memory.utc));
        let then = memory.as_ref().map_or(Ms::MIN, |memory| ms(memory.mono));
        for (index, station) in topology.stations().iter().enumerate() {
            let kept = memory.as_mut().and_then(|memory| memory.holds.remove(station.id.as_str()));
            if let Some(hold) = kept {
                guard.stations[index].hold = hold.moved((by, then), station, ms(now.mono));
                continue;
            }
            for evse in earlier.tamed.iter().map(|evse| topology.evse(*evse)).filter(|evse| evse.station.0 == index) {
                guard.stations[index].hold.tamed(evse.number, station, ms(now.mono));
            }
        }
        (0..guard.stations.len()).for_each(|station| guard.renew(StationIndex(station), now.mono));
        guard
    }

    /// Whether there is something new for the next run since the last time.
    pub const fn take_news(&mut self) -> bool {
        std::mem::replace(&mut self.has_news, false)
    }

    /// What the next run has to know, as JSON. It is worth keeping only until the gateway loses power.
    #[must_use]
    pub fn memory(&mut self, now: Now) -> Vec<u8> {
        let mut holds = BTreeMap::new();
        for (station, state) in self.topology.stations().iter().zip(&mut self.stations) {
            if state.kept.is_none() {
                state.kept = serde_json::value::to_raw_value(&state.hold).ok();
            }
            if let Some(kept) = &state.kept {
                holds.insert(station.id.as_str(), &**kept);
            }
        }
        let memory = Memory { mono: now.mono, utc: now.utc, trusted: now.utc_trusted, holds };
        serde_json::to_vec(&memory).unwrap_or_else(|_| b"null".to_vec())
    }

    /// How often it has disagreed.
    #[must_use]
    pub const fn disagreed(&self) -> u64 {
        self.count
    }

    /// What has begun or ended since the last time.
    pub fn take_disagreements(&mut self) -> Vec<Disagreement> {
        std::mem::take(&mut self.disagreements)
    }

    /// A station's connection was opened.
    pub fn connected(&mut self, station: StationIndex, now: Mono) {
        let state = &mut self.stations[station.0];
        state.open.clear();
        state.hold.unanswerable();
        state.clock.connected();
        state.connected = true;
        state.hold.online(ms(now));
        self.changed(station, now);
    }

    /// A station's connection is gone.
    pub fn disconnected(&mut self, station: StationIndex, now: Mono) {
        let state = &mut self.stations[station.0];
        state.open.clear();
        state.hold.unanswerable();
        state.connected = false;
        let settings = self.topology.station(station);
        state.hold.offline(settings, ms(now));
        if settings.model.lease == LeaseForm::None {
            state.hold.lost();
        }
        self.changed(station, now);
    }

    /// A meter was read. `asked_at`: when the request went out.
    pub fn meter(&mut self, meter: MeterIndex, reading: &MeterReading, asked_at: Mono, now: Mono) {
        let Some(total) = reading.current.complete() else { return };
        self.advance(now);
        for (circuit, state) in self.topology.circuits().iter().zip(&mut self.circuits) {
            if circuit.meter != Some(meter) {
                continue;
            }
            let load = match state.proven.filter(|_| state.read.as_ref() == Some(reading)) {
                Some((load, _)) => load,
                None => {
                    let peak_before = std::mem::replace(&mut state.peak_before, state.peak);
                    total - std::mem::replace(&mut state.peak, state.wide).zip_with(peak_before, Current::max)
                }
            };
            state.read = Some(*reading);
            state.proven = Some((load, asked_at));
        }
    }

    /// What limits from outside leave of a circuit is this now.
    pub fn limits_changed(&mut self, circuit: CircuitIndex, limits: OutsideLimits) {
        self.circuits[circuit.0].outside = limits;
    }

    /// A station sent a frame.
    pub fn received(&mut self, station: StationIndex, text: &str, now: Now) {
        if wire::stamp(text).is_some_and(|stamp| self.stations[station.0].clock.stamped(stamp, now)) {
            self.clock_moved(station, now.mono);
        }
        let now = now.mono;
        if self.has_unbalance {
            let settings = self.topology.station(station);
            self.stations[station.0].said.hear(text, settings, self.topology.voltage(), now);
        }
        match wire::heard(text) {
            Heard::Nothing => {}
            Heard::Answer(call, answer) => self.answered(station, &call, answer, now),
            Heard::Booted => {
                self.stations[station.0].hold.booted(ms(now));
                self.changed(station, now);
            }
            Heard::Begun(evse) => {
                self.stations[station.0].hold.begun(evse);
                self.changed(station, now);
            }
            Heard::Ended(transaction) => {
                self.stations[station.0].hold.ended(&transaction);
                self.changed(station, now);
            }
        }
    }

    fn answered(&mut self, station: StationIndex, call: &str, answer: Answer, now: Mono) {
        self.advance(now);
        let state = &mut self.stations[station.0];
        state.open.remove(call);
        if !state.hold.knows(call) {
            return;
        }
        let before: Vec<Current> = self.topology.evses_of(station).map(|evse| self.by_profiles(evse, now)).collect();
        let Some(told) = self.stations[station.0].hold.answered(call, answer, ms(now)) else { return };
        let until = ms(now) + self.reaction(station);
        for (evse, before) in self.topology.evses_of(station).zip(before) {
            if told.evse != 0 && told.evse != self.topology.evse(evse).number {
                continue;
            }
            let state = &mut self.evses[evse.0];
            state.refused = answer != Answer::Accepted;
            // Also where the station as a whole does not look lower: what is about to be over, or is not answered yet, may hide that.
            if told.sure.is_some_and(|sure| sure < before) {
                state.settling.add(before, until, ms(now));
            }
        }
        self.changed(station, now);
    }

    /// A frame is about to leave. Unless it is kept back, what it may do counts from now on.
    pub fn sent(&mut self, station: StationIndex, text: &str, now: Now) -> Verdict {
        let (call, what) = wire::sent(text);
        let (Sent::Profile(_) | Sent::Clear(_) | Sent::Unclear) = what else {
            if let Sent::Time(utc) = what {
                self.told_time(station, utc, now);
            }
            self.opened(station, call, now.mono);
            return Verdict::Pass;
        };
        self.advance(now.mono);
        let call = call.unwrap_or_default();
        let before = self.views(station, &self.stations[station.0].hold, now.mono);
        let after = self.held_after(station, &call, &what, now);
        let verdict = match self.refuse(station, &self.change(&before, &after.1), &what, now) {
            None => Verdict::Pass,
            Some((circuit, why, room)) => {
                let lowered = self.lowered(station, text, &what, (room, &before), now);
                self.disagree(circuit, station, &why, lowered.is_some(), now.mono);
                lowered.map_or(Verdict::Withhold(why), Verdict::Replace)
            }
        };
        match &verdict {
            Verdict::Withhold(_) => return verdict,
            Verdict::Pass => self.stations[station.0].hold = after.0,
            Verdict::Replace(text) => {
                let (_, lowered) = wire::sent(text);
                self.stations[station.0].hold = self.held_after(station, &call, &lowered, now).0;
            }
        }
        self.note_newest(station, &what, now);
        self.opened(station, Some(call), now.mono);
        self.has_news = true;
        self.changed(station, now.mono);
        verdict
    }

    /// The phases that the car at an EVSE has not given up. Only where the site learns them, by leave of its configuration: the
    /// one thing that the guard takes from it.
    pub fn car_phases(&mut self, evse: EvseIndex, phases: PhaseSet) {
        let old = self.phases_of(evse);
        if old == phases {
            return;
        }
        let slots = self.slots_of(evse);
        self.evses[evse.0].phases = Some(phases);
        let more_slots = self.slots_of(evse) - slots;
        let View { most, wide } = self.evses[evse.0].view;
        for circuit in self.topology.path_to_grid(self.topology.evse(evse).circuit) {
            let state = &mut self.circuits[circuit.0];
            state.most = state.most - old.spread(most) + phases.spread(most);
            state.most_power += i64::from(most.ma()) * more_slots;
            state.wide = state.wide - old.spread(wide) + phases.spread(wide);
            state.peak = state.peak.zip_with(state.wide, Current::max);
        }
    }

    /// The phases that an EVSE counts on.
    fn phases_of(&self, evse: EvseIndex) -> PhaseSet {
        let wired = self.topology.station(self.topology.evse(evse).station).wiring.phases();
        self.evses[evse.0].phases.unwrap_or(wired)
    }

    /// Time has passed: looks whether the site lowers where it must.
    pub fn tick(&mut self, now: Mono) {
        self.advance(now);
        for index in 0..self.circuits.len() {
            let neglected = self.neglected(CircuitIndex(index), now);
            let state = &mut self.circuits[index];
            match neglected {
                None => {
                    state.above_since = None;
                    state.frozen = false;
                }
                Some(what) => {
                    let since = *state.above_since.get_or_insert(ms(now));
                    let grace = self.topology.circuits()[index].short_time.map_or(0, |short| span(short.lasts_ms));
                    if ms(now) - since > LOWER_WITHIN_MS + grace && !std::mem::replace(&mut state.frozen, true) {
                        self.say(CircuitIndex(index), what, now);
                    }
                }
            }
            let state = &mut self.circuits[index];
            if !state.frozen && state.disagreed_at.is_some_and(|at| ms(now) - at > QUIET_MS) {
                state.disagreed_at = None;
                self.disagreements.push(Disagreement { circuit: CircuitIndex(index), message: None });
            }
        }
    }

    /// What a station would hold with a frame, and what its EVSEs might draw then.
    fn held_after(&self, station: StationIndex, call: &str, what: &Sent, now: Now) -> (Hold, Vec<(EvseIndex, View)>) {
        let mut hold = self.stations[station.0].hold.clone();
        match what {
            Sent::Harmless | Sent::Time(_) => {}
            Sent::Profile(profile) => hold.send(call, profile, &self.scale(station, now)),
            Sent::Clear(cleared) => hold.clear(cleared),
            Sent::Unclear => hold.unclear(),
        }
        let views = self.views(station, &hold, now.mono);
        (hold, views)
    }

    fn note_newest(&mut self, station: StationIndex, what: &Sent, now: Now) {
        let Sent::Profile(profile) = what else { return };
        let limit = self.now_by(station, profile, now);
        if let Some(evse) = self.topology.find_evse(station, profile.evse) {
            self.evses[evse.0].newest = Some(limit);
        }
    }

    fn told_time(&mut self, station: StationIndex, utc: Utc, now: Now) {
        if self.stations[station.0].clock.tell(utc, now) {
            self.clock_moved(station, now.mono);
        }
    }

    /// The schedules that a station holds are not where they were: nothing is certain until it has accepted anew.
    fn clock_moved(&mut self, station: StationIndex, now: Mono) {
        self.stations[station.0].hold.booted(ms(now));
        self.changed(station, now);
    }

    fn opened(&mut self, station: StationIndex, call: Option<String>, now: Mono) {
        let open = &mut self.stations[station.0].open;
        if let Some(call) = call {
            open.insert(call, ms(now));
        }
        // A station takes one call at a time; those that it will never answer must not pile up.
        if open.len() > 64 {
            open.pop_first();
        }
    }

    fn disagree(&mut self, circuit: CircuitIndex, station: StationIndex, why: &str, lowered: bool, now: Mono) {
        let what = if lowered { "lowered" } else { "kept back" };
        let charger = &self.topology.station(station).id;
        self.say(circuit, format!("A message to {charger} was {what}: {why}."), now);
    }

    fn say(&mut self, circuit: CircuitIndex, message: String, now: Mono) {
        self.count += 1;
        self.circuits[circuit.0].disagreed_at = Some(ms(now));
        self.disagreements.push(Disagreement { circuit, message: Some(message) });
    }

    fn reaction(&self, station: StationIndex) -> Ms {
        span(self.topology.station(station).model.reaction_ms)
    }

    fn scale(&self, station: StationIndex, now: Now) -> Scale<'_> {
        let clock = self.stations[station.0].clock.time(now);
        Scale { station: self.topology.station(station), voltage: self.topology.voltage(), clock, now: ms(now.mono) }
    }

    /// What the profiles alone allow an EVSE now.
    fn by_profiles(&self, evse: EvseIndex, now: Mono) -> Current {
        let place = self.topology.evse(evse);
        let max = self.topology.station(place.station).max;
        let window = Window::strict(ms(now), self.reaction(place.station));
        self.stations[place.station.0].hold.most(place.number, window).map_or(max, |most| most.min(max))
    }

    /// What the EVSEs of a station may draw if it holds `hold`.
    fn views(&self, station: StationIndex, hold: &Hold, now: Mono) -> Vec<(EvseIndex, View)> {
        let settings = self.topology.station(station);
        let state = &self.stations[station.0];
        let (reaction, at) = (self.reaction(station), ms(now));
        let silent = !state.connected || state.open.values().any(|sent| at - sent > SILENT_MS);
        let untold = silent && settings.model.lease == LeaseForm::None;
        let of = |evse: EvseIndex| {
            let number = self.topology.evse(evse).number;
            let settling = &self.evses[evse.0].settling;
            let told = |window| hold.most(number, window).filter(|_| !untold).unwrap_or(settings.max);
            let most = told(Window::strict(at, reaction)).max(settling.most(at, 0)).min(settings.max);
            let wide = told(Window::wide(at, reaction)).max(settling.most(at, WIDE_EXTRA_MS)).min(settings.max);
            View { most, wide: wide.max(most) }
        };
        self.topology.evses_of(station).map(|evse| (evse, of(evse))).collect()
    }

    /// A station holds something else than before.
    fn changed(&mut self, station: StationIndex, now: Mono) {
        self.stations[station.0].kept = None;
        self.renew(station, now);
    }

    /// Counts a station anew.
    fn renew(&mut self, station: StationIndex, now: Mono) {
        let settings = self.topology.station(station);
        let hold = &self.stations[station.0].hold;
        let mut next = hold.next_change(ms(now), self.reaction(station));
        for (evse, view) in self.views(station, hold, now) {
            let (phases, slots) = (self.phases_of(evse), self.slots_of(evse));
            let old = std::mem::replace(&mut self.evses[evse.0].view, view);
            for circuit in self.topology.path_to_grid(settings.circuit) {
                let state = &mut self.circuits[circuit.0];
                state.most += phases.spread(view.most - old.most);
                state.most_power += i64::from((view.most - old.most).ma()) * slots;
                state.wide += phases.spread(view.wide - old.wide);
                state.peak = state.peak.zip_with(state.wide, Current::max);
            }
            next = next.min(self.evses[evse.0].settling.next_change(ms(now)).unwrap_or(Ms::MAX));
        }
        if settings.model.lease == LeaseForm::None {
            next = next.min(ms(now) + 1_000);
        }
        self.stations[station.0].next_change = next;
        self.next_change = self.next_change.min(next);
    }

    /// Counts those anew whom time may have changed. On a large site that is somebody in most seconds, and seldom more than a few.
    fn advance(&mut self, now: Mono) {
        if ms(now) < self.next_change {
            return;
        }
        for station in 0..self.stations.len() {
            if self.stations[station].next_change <= ms(now) {
                self.renew(StationIndex(station), now);
            }
        }
        self.next_change = self.stations.iter().map(|station| station.next_change).min().unwrap_or(Ms::MAX);
    }
}

fn ms(at: Mono) -> Ms {
    span(at.ms())
}

fn span(ms: u64) -> Ms {
    Ms::try_from(ms).unwrap_or(Ms::MAX / 4)
}
