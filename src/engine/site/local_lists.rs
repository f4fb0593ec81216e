//! Local lists: each station that has one knows who may charge while it is cut off from us.
//!
//! A station is asked what it takes and which version it has, then brought to the list of now, one message at a time and behind everything
//! else that it is sent. What is known of its list ends with its connection; its version says what it has.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Weak};

use super::io::{LogLevel, Output};
use super::list_plan::{Candidate, Content, updates, version_of};
use super::{Purpose, Site, log};
use crate::engine::model::exchange::{AuthorizationStatus, OcppVersion, StationCall, StationReply};
use crate::engine::model::local_list::{ListLimits, ListUpdate};
use crate::engine::model::token::{TokenEntry, key_of};
use crate::engine::model::topology::StationIndex;
use crate::engine::ocpp::{Priority, list_keys, list_limits, list_settings, list_version, longest_token};
use crate::engine::time::{Mono, Now};

/// A list is renewed no more often than this: stations keep it in flash.
const EVERY_MS: u64 = 60_000;

/// A token that has lost its right is out of the list sooner.
const SOON_MS: u64 = 5_000;

/// So many stations are told at the same time.
const AT_ONCE: usize = 8;

/// So many lists are remembered to tell stations only what has changed since.
const REMEMBERED: usize = 8;

/// So many entries are tried where a station does not say how many fit.
const UNSAID: usize = 5_000;

/// The waits after a list that was not taken, in ms; the last one stays.
const WAITS_MS: [u64; 5] = [10_000, 60_000, 300_000, 900_000, 3_600_000];

/// A list that was not taken so often is told of.
const TELL_AFTER: usize = 3;

/// All that is known of local lists.
#[derive(Debug)]
pub(super) struct Lists {
    stations: Vec<ListState>,
    /// The last lists that were made, with what they were made for.
    made: VecDeque<(Made, Arc<Content>)>,
}

/// What a list is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Made {
    revision: u32,
    longest: usize,
    most: usize,
}

/// Where it stands with the list of a station.
#[derive(Debug)]
struct ListState {
    step: Step,
    limits: ListLimits,
    /// The call that is out.
    asked: bool,
    held: Held,
    /// The revision whose list it has.
    done: Option<u32>,
    job: Option<Job>,
    next: Mono,
    fails: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// What does it take?
    Limits,
    /// Which version has it?
    Version,
    /// It has a list and is kept up to date.
    Follow,
    /// It has no local list.
    Without,
}

#[derive(Debug)]
enum Held {
    Unknown,
    Version(i64),
    Content(Weak<Content>),
}

/// Messages on their way to a station.
#[derive(Debug)]
struct Job {
    revision: u32,
    target: Arc<Content>,
    rest: VecDeque<ListUpdate>,
    full: bool,
    /// How many entries it has taken.
    taken: usize,
}

impl ListState {
    const fn new() -> Self {
        Self {
            step: Step::Limits,
            limits: ListLimits { enabled: None, most: None, items: None, bytes: None },
            asked: false,
            held: Held::Unknown,
            done: None,
            job: None,
            next: Mono::START,
            fails: 0,
        }
    }

    fn wait(&mut self, now: Mono) {
        let wait = WAITS_MS.get(self.fails).or(WAITS_MS.last()).copied().unwrap_or(EVERY_MS);
        self.fails += 1;
        self.next = now.plus_ms(wait);
    }
}

impl Lists {
    pub(super) fn new(stations: usize) -> Self {
        Self { stations: (0..stations).map(|_| ListState::new()).collect(), made: VecDeque::new() }
    }

    /// A station has connected: it may be another one, or have been told by somebody else.
    pub(super) fn connected(&mut self, station: StationIndex) {
        self.stations[station.0] = ListState::new();
    }

    /// A token has lost its right.
    pub(super) fn hurry(&mut self, now: Mono) {
        for state in self.stations.iter_mut().filter(|state| state.fails == 0) {
            state.next = state.next.min(now.plus_ms(SOON_MS));
        }
    }

    fn remembered(&self, made: Made) -> Option<&Arc<Content>> {
        self.made.iter().find(|(of, _)| *of == made).map(|(_, content)| content)
    }
}

impl Site {
    /// Asks and tells the stations whose turn it is.
    pub(super) fn tend_lists(&mut self, now: Now, out: &mut Vec<Output>) {
        if !self.setup.authorization.local_lists {
            return;
        }
        let mut free = AT_ONCE.saturating_sub(self.lists.stations.iter().filter(|state| state.job.is_some()).count());
        for station in (0..self.stations.len()).map(StationIndex) {
            let Some(version) = self.stations[station.0].version().filter(|_| self.stations[station.0].is_set_up())
            else {
                continue;
            };
            let state = &self.lists.stations[station.0];
            if state.asked || now.mono < state.next {
                continue;
            }
            let call = match state.step {
                Step::Without => continue,
                Step::Limits => StationCall::GetConfiguration { keys: list_keys(version) },
                Step::Version => StationCall::ListVersion,
                Step::Follow => {
                    if state.job.is_none() {
                        if free == 0 || !self.begin_list(station, version, now) {
                            continue;
                        }
                        free -= 1;
                    }
                    let Some(update) = self.next_of_list(station) else { continue };
                    StationCall::SendList(update)
                }
            };
            self.lists.stations[station.0].asked = true;
            self.call(station, call, (Priority::Background, Purpose::List), now, out);
        }
    }

    fn next_of_list(&self, station: StationIndex) -> Option<ListUpdate> {
        self.lists.stations[station.0].job.as_ref()?.rest.front().cloned()
    }

    /// Plans the messages for a station whose list is not that of now. `false`: it has it.
    fn begin_list(&mut self, station: StationIndex, version: OcppVersion, now: Now) -> bool {
        let revision = self.ledger.tokens().revision();
        if self.lists.stations[station.0].done == Some(revision) {
            return false;
        }
        let limits = self.lists.stations[station.0].limits;
        let target =
            self.list_for(Made { revision, longest: longest_token(version), most: limits.most.unwrap_or(UNSAID) }, now);
        let state = &mut self.lists.stations[station.0];
        let known = match &state.held {
            Held::Content(content) => content.upgrade(),
            Held::Unknown | Held::Version(_) => None,
        };
        let same = match &state.held {
            Held::Unknown => false,
            Held::Version(0) => target.len() == 0,
            Held::Version(version) => *version == i64::from(target.version),
            Held::Content(_) => known.as_ref().is_some_and(|known| known.same_as(&target)),
        };
        if same {
            // Where only what it need not know has changed, its list keeps its version. What an earlier run chose for a small list is not known.
            if known.is_some() || target.whole {
                state.held = Held::Content(Arc::downgrade(&target));
            }
            state.done = Some(revision);
            return false;
        }
        let rest: VecDeque<ListUpdate> = updates(known.as_deref(), &target, limits.items, limits.bytes).into();
        let full = rest.front().is_none_or(|first| first.full);
        state.job = Some(Job { revision, target, rest, full, taken: 0 });
        // Until it is whole nobody knows what the station has.
        state.held = Held::Unknown;
        true
    }

    fn list_for(&mut self, made: Made, now: Now) -> Arc<Content> {
        if let Some(content) = self.lists.remembered(made) {
            return Arc::clone(content);
        }
        let used: BTreeSet<String> = self.ledger.recent_tokens().map(key_of).collect();
        let mut known: BTreeMap<&String, &TokenEntry> = self.tokens.of_file().iter().collect();
        known.extend(self.ledger.tokens().entries());
        let fits = |entry: &TokenEntry| entry.token.as_str().chars().count() <= made.longest;
        let candidates = known.into_iter().filter(|(_, entry)| fits(entry)).map(|(key, entry)| {
            let mut admission = self.admission(&entry.token, now);
            // How long it may be remembered is about what a station has heard, not about what it is given; its own end is.
            admission.expires = entry.expires.filter(|_| admission.status == AuthorizationStatus::Accepted);
            // A master pass stops what runs, also while its station is cut off; who knows no such thing must not take it for a card.
            if made.longest > longest_token(OcppVersion::V16) && self.is_master_now(&entry.token, now) {
                admission.status = AuthorizationStatus::Accepted;
            }
            Candidate { key: key.clone(), token: entry.token.clone(), admission }
        });
        let version = version_of(&self.store_id, made.revision);
        let content = Arc::new(Content::of(candidates, &used, made.most, version));
        if self.lists.made.len() >= REMEMBERED {
            self.lists.made.pop_front();
        }
        self.lists.made.push_back((made, Arc::clone(&content)));
        content
    }

    /// A station has answered something about its list.
    pub(super) fn list_answered(
        &mut self,
        station: StationIndex,
        reply: &StationReply,
        (now, out): (Now, &mut Vec<Output>),
    ) {
        let state = &mut self.lists.stations[station.0];
        state.asked = false;
        match (state.step, reply) {
            (_, StationReply::Disconnected) => *state = ListState::new(),
            (Step::Limits, StationReply::Accepted { payload }) => {
                let version = self.stations[station.0].version();
                match version.and_then(|version| Some((version, list_limits(version, payload)?))) {
                    Some((version, limits)) => self.list_found(station, version, limits, (now, out)),
                    None => self.lists.stations[station.0].step = Step::Without,
                }
            }
            (Step::Version, StationReply::Accepted { payload }) => match list_version(payload) {
                Some(version) if version >= 0 => {
                    state.held = Held::Version(version);
                    state.step = Step::Follow;
                }
                Some(_) | None => state.step = Step::Without,
            },
            (Step::Follow, StationReply::Accepted { .. }) => self.list_taken(station, now, out),
            (Step::Limits | Step::Version, StationReply::Refused { .. } | StationReply::Error { .. }) => {
                state.step = Step::Without;
            }
            (Step::Follow, StationReply::Refused { status, .. }) => {
                self.list_refused(station, status, (now, out));
            }
            (Step::Follow, StationReply::Error { code, .. }) => {
                self.list_refused(station, code, (now, out));
            }
            (Step::Limits | Step::Version | Step::Follow, StationReply::Timeout | StationReply::Overtaken) => {
                // It may have taken the message: its version tells.
                if state.step == Step::Follow {
                    state.step = Step::Version;
                }
                state.job = None;
                state.wait(now.mono);
            }
            (Step::Without, _) => {}
        }
    }

    /// A station has a local list: it shall use it while it is cut off.
    fn list_found(
        &mut self,
        station: StationIndex,
        version: OcppVersion,
        limits: ListLimits,
        (now, out): (Now, &mut Vec<Output>),
    ) {
        let state = &mut self.lists.stations[station.0];
        state.limits = limits;
        state.step = Step::Version;
        let [enabled, offline] = list_settings(version);
        let wanted = (limits.enabled == Some(false)).then_some(enabled).into_iter().chain([offline]);
        for key in wanted {
            let call = StationCall::ChangeConfiguration { key: key.to_owned(), value: "true".to_owned() };
            self.call(station, call, (Priority::Background, Purpose::Configure(key.to_owned())), now, out);
        }
    }

    fn list_taken(&mut self, station: StationIndex, now: Now, out: &mut Vec<Output>) {
        let state = &mut self.lists.stations[station.0];
        let Some(job) = &mut state.job else { return };
        job.taken += job.rest.pop_front().map_or(0, |update| update.entries.len());
        if !job.rest.is_empty() {
            return;
        }
        let (count, version) = (job.target.len(), job.target.version);
        state.held = Held::Content(Arc::downgrade(&job.target));
        state.done = Some(job.revision);
        state.job = None;
        state.fails = 0;
        state.next = now.mono.plus_ms(EVERY_MS);
        let charger = self.station_id(station);
        log(out, LogLevel::Debug, format!("{charger} has version {version} of the local list, with {count} tokens"));
    }

    fn list_refused(&mut self, station: StationIndex, answer: &str, (now, out): (Now, &mut Vec<Output>)) {
        let state = &mut self.lists.stations[station.0];
        let Some(job) = state.job.take() else { return };
        state.held = Held::Unknown;
        if matches!(answer, "NotSupported" | "NotImplemented") {
            state.step = Step::Without;
            return;
        }
        let mismatch = answer.eq_ignore_ascii_case("VersionMismatch");
        if mismatch && !job.full {
            // Somebody else has changed its list: all of it is sent.
            state.next = now.mono.plus_ms(SOON_MS);
            return;
        }
        // It takes less than it says, or does not say how much: what it has taken fits.
        let pieces = job.rest.front().map_or(0, |update| update.entries.len());
        if job.full && job.taken > 0 {
            state.limits.most = Some(job.taken);
        } else if job.full && pieces > 1 {
            state.limits.items = Some(pieces / 2);
        }
        state.wait(now.mono);
        if state.fails == TELL_AFTER {
            let charger = self.station_id(station);
            let told = format!(
                "{charger} answers {answer} to its local list again and again; cut off from here it may not know who may charge"
            );
            log(out, LogLevel::Warn, told);
        }
    }
}
