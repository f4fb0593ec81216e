//! What must be so at every moment, whatever goes wrong. Each invariant is a function with a sentence for its name.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use siteward::engine::site::ledger::Ledger;
use siteward::engine::units::{Current, Phase};

use crate::cloud::CloudTransaction;
use crate::station::{Station, TransactionTruth};

/// How far above a limit is still taken for it: what meters and limits resolve, 0.1 A ...
pub const TOLERANCE: Current = Current::from_ma(100);
/// ... for each station below, up to this.
pub const MOST_TOLERANCE: Current = Current::from_ma(1_000);
/// How many violations are kept with their circumstances; the rest is counted.
const MOST_KEPT: usize = 20;
/// So much of an event is kept, in bytes.
const SHOWN: usize = 300;
/// How many events before a violation are kept.
const LAST_EVENTS: usize = 40;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant.
    pub invariant: &'static str,
    /// When, in ms since the start of the world.
    pub at_ms: u64,
    /// What was the case: circuit, phase, amounts.
    pub what: String,
    /// The events before it.
    pub last_events: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} s  {}: {}", self.at_ms / 1000, self.at_ms % 1000, self.invariant, self.what)
    }
}

/// What is held against a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// The current of a phase.
    Phase(Phase),
    /// The power, as the sum of the phases' currents at nominal voltage.
    Power,
    /// The same of what stations draw alone: the grid operator's dimming.
    Charging,
}

impl Limited {
    const fn place(self) -> usize {
        match self {
            Self::Phase(phase) => phase.index(),
            Self::Power => 3,
            Self::Charging => 4,
        }
    }
}

impl fmt::Display for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Phase(phase) => write!(f, "phase {phase}"),
            Self::Power => f.write_str("power, all phases"),
            Self::Charging => f.write_str("power of its stations, all phases"),
        }
    }
}

/// One limit of one circuit at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    /// The circuit's place and name.
    pub circuit: (usize, &'a str),
    /// What is limited.
    pub limited: Limited,
    /// All that flows, or what of it is judged.
    pub total: Current,
    /// What stations draw of it that can be told and obey.
    pub movable: Current,
    /// The limit.
    pub limit: Current,
    /// When the limit was last lowered, in ms since the start of the world.
    pub lowered_at: u64,
    /// How long it may be above the limit under the faults that are on, in ms.
    pub grace_ms: u64,
    /// How many stations are below.
    pub stations: usize,
}

impl Load<'_> {
    fn tolerance(&self) -> Current {
        let each = i32::try_from(self.stations).unwrap_or(i32::MAX).saturating_mul(TOLERANCE.ma());
        let on_a_phase = TOLERANCE.max(Current::from_ma(each).min(MOST_TOLERANCE));
        match self.limited {
            Limited::Phase(_) => on_a_phase,
            Limited::Power | Limited::Charging => on_a_phase + on_a_phase + on_a_phase,
        }
    }
}

/// The worst overload of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Worst {
    /// How far above the limit, in mA.
    pub above_ma: i32,
    /// The same in thousandths of the limit.
    pub above_permille: i64,
    /// The longest time at a stretch, in ms.
    pub longest_ms: u64,
    /// How much longer than its grace one lasted, in ms; 0: none did.
    pub beyond_grace_ms: u64,
}

impl Worst {
    /// The worse of both in everything.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            above_ma: self.above_ma.max(other.above_ma),
            above_permille: self.above_permille.max(other.above_permille),
            longest_ms: self.longest_ms.max(other.longest_ms),
            beyond_grace_ms: self.beyond_grace_ms.max(other.beyond_grace_ms),
        }
    }
}

/// An event that may be shown with a violation.
#[derive(Clone, Debug, Default)]
struct Note {
    at_ms: u64,
    text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} {}", self.at_ms / 1000, self.at_ms % 1000, self.text)
    }
}

/// Takes so much of a text as is shown.
struct Shortened<'a>(&'a mut String);

impl fmt::Write for Shortened<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let left = SHOWN.saturating_sub(self.0.len());
        let end = (0..=left.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        self.0.push_str(&text[..end]);
        if text.len() > left { Err(fmt::Error) } else { Ok(()) }
    }
}

/// Watches the world.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    now_ms: u64,
    above_since: BTreeMap<(usize, usize), u64>,
    above_ms: u64,
    worst: Worst,
    answers: BTreeMap<(usize, String), u64>,
    events: VecDeque<Note>,
    violations: Vec<Violation>,
    violated: u64,
}

impl Oracle {
    /// Tells the oracle what time it is, in ms since the start of the world.
    pub const fn at(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// Writes an event down, to be shown with a violation.
    pub fn note(&mut self, event: impl FnOnce() -> String) {
        self.note_text(format_args!("{}", event()));
    }

    /// The same without a text of its own: there is one for each frame, and hardly ever is one shown.
    pub fn note_text(&mut self, event: fmt::Arguments<'_>) {
        let full = self.events.len() >= LAST_EVENTS;
        let mut note = if full { self.events.pop_front().unwrap_or_default() } else { Note::default() };
        note.at_ms = self.now_ms;
        note.text.clear();
        // What is cut off is an error to the writer, and meant.
        let _ = fmt::write(&mut Shortened(&mut note.text), event);
        self.events.push_back(note);
    }

    /// The violations that are kept.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// How many violations there were.
    #[must_use]
    pub const fn violated(&self) -> u64 {
        self.violated
    }

    /// For how long any phase of any circuit was above its limit while it could have been below, in ms; and the worst of it.
    #[must_use]
    pub const fn above(&self) -> (u64, Worst) {
        (self.above_ms, self.worst)
    }

    /// Whether no circuit is above its limit now.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.above_since.is_empty()
    }

    /// A promise was broken.
    pub fn violate(&mut self, invariant: &'static str, what: String) {
        self.violated += 1;
        if self.violations.len() < MOST_KEPT {
            let last_events = self.events.iter().map(Note::to_string).collect();
            self.violations.push(Violation { invariant, at_ms: self.now_ms, what, last_events });
        }
    }

    /// Whatever happens, charging is cut back before a protective device would act. Only what can be moved counts: a building that is
    /// above the limit on its own is nobody's fault here, nor is a station that cannot be told.
    pub fn no_circuit_above_its_limit_longer_than_its_grace(&mut self, load: Load<'_>, elapsed_ms: u64) {
        let above = load.total > load.limit + load.tolerance() && load.movable > load.tolerance();
        if !above && self.above_since.is_empty() {
            return;
        }
        let key = (load.circuit.0, load.limited.place());
        if !above {
            self.above_since.remove(&key);
            return;
        }
        let since = (*self.above_since.entry(key).or_insert(self.now_ms)).max(load.lowered_at);
        let lasted = self.now_ms.saturating_sub(since);
        self.above_ms += elapsed_ms;
        let excess = load.total - load.limit;
        let permille = i64::from(excess.ma()) * 1000 / i64::from(load.limit.ma().max(1));
        self.worst.above_ma = self.worst.above_ma.max(excess.ma());
        self.worst.above_permille = self.worst.above_permille.max(permille);
        self.worst.longest_ms = self.worst.longest_ms.max(lasted);
        self.worst.beyond_grace_ms = self.worst.beyond_grace_ms.max(lasted.saturating_sub(load.grace_ms));
        // Once for each overload: when the grace has just run out.
        if lasted > load.grace_ms && lasted - elapsed_ms.min(lasted) <= load.grace_ms {
            let what = format!(
                "circuit {} {}: {} ({} of it could be moved) against {} for {} s, grace {} s",
                load.circuit.1,
                load.limited,
                load.total,
                load.movable,
                load.limit,
                lasted / 1000,
                load.grace_ms / 1000
            );
            self.violate("no_circuit_above_its_limit_longer_than_its_grace", what);
        }
    }

    /// A controller that comes back knows what one that was never away would know, as far as it was on disk.
    pub fn restart_equals_no_restart(&mut self, never_away: &Ledger, other: &Ledger) {
        if never_away != other {
            let what = format!(
                "after record {} the fold of the journal and the state differ: {} and {} open transactions",
                never_away.last().0,
                never_away.open().count(),
                other.open().count()
            );
            self.violate("restart_equals_no_restart", what);
        }
    }

    /// The control pilot cannot say 1 to 5.9 A: an offer is nothing or at least the minimum.
    pub fn no_offer_between_zero_and_minimum(
        &mut self,
        station: &str,
        evse: u32,
        limit: Option<Current>,
        minimum: Current,
    ) {
        if let Some(limit) = limit.filter(|limit| *limit > Current::ZERO && *limit < minimum) {
            self.violate("no_offer_between_zero_and_minimum", format!("{station} EVSE {evse} was given {limit}"));
        }
    }

    /// A transaction message has been handed to the controller. `sequence` is the last record made of it, 0 for none.
    pub fn transaction_message_taken(&mut self, station: usize, message: &str, sequence: u64) {
        self.answers.insert((station, message.to_owned()), sequence);
        // One open CALL per station, so that a handful of unanswered ones stays; 10 000 is beyond any world.
        if self.answers.len() > 10_000 {
            self.answers.pop_first();
        }
    }

    /// The answer to a transaction message leaves only when its record would survive a power cut.
    pub fn no_answer_before_durable(&mut self, station: usize, message: &str, durable: u64) {
        if let Some(needed) = self.answers.remove(&(station, message.to_owned()))
            && durable < needed
        {
            let what =
                format!("station {station} got an answer to {message} with record {needed} not on disk ({durable} is)");
            self.violate("no_answer_before_durable", what);
        }
    }

    /// Nothing is told to the cloud that a power cut could take back.
    pub fn nothing_published_before_durable(&mut self, sequence: u64, durable: u64) {
        if sequence > durable {
            let what = format!("record {sequence} was published, {durable} is on disk");
            self.violate("nothing_published_before_durable", what);
        }
    }

    /// What the site does is what the guard lets out: the two were written apart, and both must be right.
    pub fn the_guard_agrees(&mut self, disagreement: &str) {
        self.violate("the_guard_agrees", disagreement.to_owned());
    }

    /// A station that has had no controller for longer than its lease draws no more than its fallback.
    pub fn stations_fall_to_fallback_when_the_controller_is_gone(
        &mut self,
        station: &Station,
        evse: u32,
        fallback: Current,
    ) {
        let drawn = station.current(evse).max();
        if drawn > fallback + Current::from_ma(100) {
            let what = format!("{} EVSE {evse} draws {drawn}, its fallback is {fallback}", station.options().identity);
            self.violate("stations_fall_to_fallback_when_the_controller_is_gone", what);
        }
    }

    /// A car that wants energy, at a station without trouble, gets some.
    pub fn after_faults_end_everyone_charges(&mut self, station: &str, evse: u32, waited_ms: u64) {
        let what = format!("the car at {station} EVSE {evse} has got nothing for {} s", waited_ms / 1000);
        self.violate("after_faults_end_everyone_charges", what);
    }

    /// The cloud knows each transaction of a station once, with its start and its end.
    pub fn every_started_transaction_reaches_the_cloud_exactly_once(
        &mut self,
        station: &str,
        truth: &TransactionTruth,
        cloud: Option<&CloudTransaction>,
    ) {
        let counts = cloud.map_or((0, 0), |cloud| (cloud.started, cloud.ended));
        if counts == (1, 1) && !truth.given_up {
            return;
        }
        let what = format!(
            "{station} EVSE {} transaction {:?} of {}: {} starts and {} ends at the cloud; start answered: {}, end answered: {}, given up: {}",
            truth.evse,
            truth.id,
            truth.started,
            counts.0,
            counts.1,
            truth.start_answered,
            truth.stop_answered,
            truth.given_up
        );
        self.violate("every_started_transaction_reaches_the_cloud_exactly_once", what);
    }

    /// The bill says what the station's register says.
    pub fn energy_billed_equals_energy_metered(
        &mut self,
        station: &str,
        truth: &TransactionTruth,
        cloud: &CloudTransaction,
    ) {
        let metered = truth.meter_stop_wh.map(|stop| stop - truth.meter_start_wh);
        if cloud.energy_wh != metered {
            let what = format!(
                "{station} transaction {:?}: billed {:?} Wh, metered {metered:?} Wh",
                truth.id, cloud.energy_wh
            );
            self.violate("energy_billed_equals_energy_metered", what);
        }
    }

    /// A station with a display was told what its transactions come to, in the end exactly what is billed; one without was not told again.
    pub fn the_display_shows_what_is_billed(
        &mut self,
        station: &Station,
        truth: &TransactionTruth,
        cloud: &CloudTransaction,
    ) {
        let amount = |text: &str| text.parse::<f64>().ok();
        let shown = truth.final_cost.as_deref().map(amount);
        let billed = cloud.cost.as_deref().map(amount);
        let identity = &station.options().identity;
        if shown.is_some() && shown != billed {
            let what = format!("{identity} transaction {:?}: shown {shown:?}, billed {billed:?}", truth.id);
            self.violate("the_display_shows_what_is_billed", what);
        }
        if truth.costs_shown > 0 && !station.options().shows_costs {
            let what = format!("{identity} transaction {:?}: it has no display", truth.id);
            self.violate("the_display_shows_what_is_billed", what);
        }
    }

    /// What a meter has signed of a transaction is at the cloud byte for byte, each value once, and all of it in its CDR.
    pub fn what_was_signed_reaches_the_cloud(
        &mut self,
        station: &str,
        truth: &TransactionTruth,
        cloud: &CloudTransaction,
    ) {
        let plain = |text: &String| {
            let decoded = STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            decoded.unwrap_or_else(|| text.clone())
        };
        let mut came: Vec<String> = cloud.signed.iter().map(plain).collect();
        let mut sent = truth.signed.clone();
        came.sort();
        sent.sort();
        if truth.start_answered && truth.stop_answered && came != sent {
            let what = format!("{station} transaction {:?}: signed {sent:?}, at the cloud {came:?}", truth.id);
            self.violate("what_was_signed_reaches_the_cloud", what);
        }
        let in_cdr = cloud.signed_in_cdr.filter(|count| *count != truth.signed.len());
        if let Some(count) = in_cdr {
            let what =
                format!("{station} transaction {:?}: {count} of {} values in its CDR", truth.id, truth.signed.len());
            self.violate("what_was_signed_reaches_the_cloud", what);
        }
    }

    /// The sequence of the events at the cloud has no gap.
    pub fn the_cloud_has_every_event(&mut self, missing: u64, last: u64, durable: u64) {
        if missing > 0 || last != durable {
            let what = format!(
                "{missing} events are missing at the cloud; the last is {last}, the journal's last is {durable}"
            );
            self.violate("the_cloud_has_every_event", what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(total: i32) -> Load<'static> {
        Load {
            circuit: (0, "grid"),
            limited: Limited::Phase(Phase::L1),
            total: Current::from_a(total),
            movable: Current::from_a(20),
            limit: Current::from_a(100),
            lowered_at: 0,
            grace_ms: 2_000,
            stations: 4,
        }
    }

    #[test]
    fn an_overload_is_reported_once_when_its_grace_is_over() {
        let mut oracle = Oracle::default();
        for second in 0..6 {
            oracle.at(second * 1000);
            oracle.no_circuit_above_its_limit_longer_than_its_grace(load(110), 1000);
        }
        assert_eq!(oracle.violated(), 1);
        assert_eq!(oracle.violations()[0].at_ms, 3_000);
        oracle.no_circuit_above_its_limit_longer_than_its_grace(load(90), 1000);
        assert_eq!(oracle.above().1.longest_ms, 5_000);
        assert_eq!(oracle.above().1.beyond_grace_ms, 3_000);
    }

    #[test]
    fn a_power_is_held_apart_from_the_phases_and_with_what_all_of_them_resolve() {
        let mut oracle = Oracle::default();
        let power = |total_ma: i32| Load { limited: Limited::Power, total: Current::from_ma(total_ma), ..load(0) };
        for second in 0..6 {
            oracle.at(second * 1000);
            oracle.no_circuit_above_its_limit_longer_than_its_grace(power(101_200), 1000);
            oracle.no_circuit_above_its_limit_longer_than_its_grace(load(90), 1000);
        }
        assert_eq!((oracle.violated(), oracle.is_calm()), (0, true));
        for second in 6..12 {
            oracle.at(second * 1000);
            oracle.no_circuit_above_its_limit_longer_than_its_grace(power(101_300), 1000);
            oracle.no_circuit_above_its_limit_longer_than_its_grace(load(90), 1000);
        }
        assert_eq!(oracle.violations()[0].what.split(':').next(), Some("circuit grid power, all phases"));
    }

    #[test]
    fn an_answer_before_its_record_is_durable_is_seen() {
        let mut oracle = Oracle::default();
        oracle.transaction_message_taken(1, "a", 5);
        oracle.no_answer_before_durable(1, "a", 5);
        assert_eq!(oracle.violated(), 0);
        oracle.transaction_message_taken(1, "b", 6);
        oracle.no_answer_before_durable(1, "b", 5);
        assert_eq!(oracle.violated(), 1);
    }
}
