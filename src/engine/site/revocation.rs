//! The end of a right: transactions whose token may not charge any more are stopped, and stations forget that it was accepted.

use super::io::{LogLevel, Output};
use super::ledger::OpenTransaction;
use super::tokens::Verdict;
use super::{Purpose, Site, log};
use crate::engine::model::exchange::{AuthorizationStatus, StationCall, StationReply};
use crate::engine::model::ids::TransactionId;
use crate::engine::model::topology::{EvseIndex, StationIndex};
use crate::engine::ocpp::Priority;
use crate::engine::time::{Mono, Now, Utc};

/// A transaction that was never seen with a right is left so long to its station, which was told so and has a rule of its own for it.
const STATIONS_OWN_MS: u64 = 60_000;

/// The waits between two tries to stop a transaction, in ms; the last one stays.
const WAITS_MS: [u64; 6] = [30_000, 60_000, 120_000, 240_000, 480_000, 900_000];

/// A station clears its memory of tokens no more often than this: lists come in many commands, and some keep it in flash.
const CLEAR_EVERY_MS: u64 = 60_000;

/// After a restart nobody knows which stations have cleared it since; so long ago they all have.
const CLEARED_BY_ALL_MS: i64 = 7 * 86_400_000;

/// What is under way to make the end of a right felt.
#[derive(Debug, Default)]
pub(super) struct Revocation {
    watched: Vec<WatchedStation>,
    caches: Vec<Cache>,
}

/// The running transactions of a station.
#[derive(Debug)]
struct WatchedStation {
    running: Vec<Watched>,
    /// They may have changed, or what is known of their tokens: they are looked up again.
    stale: bool,
}

/// A running transaction. All are looked at each second, so that what is looked up by names is kept.
#[derive(Debug)]
struct Watched {
    transaction: TransactionId,
    evse: Option<EvseIndex>,
    /// `None`: nobody has identified.
    verdict: Option<Verdict>,
    since: Mono,
    /// Its token had a right at some time in this run.
    had_right: bool,
    end: Option<End>,
}

/// How it goes with ending one.
#[derive(Debug)]
struct End {
    next: Mono,
    tries: usize,
}

/// What a station remembers of tokens.
#[derive(Debug, Default)]
struct Cache {
    /// It must forget.
    stale: bool,
    asked: bool,
    next: Mono,
}

/// Why a transaction has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Status(AuthorizationStatus),
    UsedUp,
}

impl Revocation {
    /// At the start of the daemon. `revoked`: when a token last lost its right by command.
    pub(super) fn new(stations: usize, revoked: Option<Utc>, now: Now) -> Self {
        let stale = revoked.is_some_and(|at| !now.utc_trusted || now.utc.since(at) < CLEARED_BY_ALL_MS);
        let caches = (0..stations).map(|_| Cache { stale, ..Cache::default() }).collect();
        let watched = (0..stations).map(|_| WatchedStation { running: Vec::new(), stale: true }).collect();
        Self { watched, caches }
    }

    /// The transactions of a station may have changed.
    pub(super) fn look_again(&mut self, station: StationIndex) {
        self.watched[station.0].stale = true;
    }

    /// Tokens may have changed.
    pub(super) fn look_at_all_again(&mut self) {
        self.watched.iter_mut().for_each(|of| of.stale = true);
    }

    /// All stations have to forget which tokens were accepted.
    pub(super) fn forget_accepted(&mut self) {
        for cache in &mut self.caches {
            cache.stale = true;
        }
    }
}

impl Site {
    /// Ends the transactions whose token has no right any more.
    pub(super) fn end_refused(&mut self, now: Now, out: &mut Vec<Output>) {
        let mut watched = std::mem::take(&mut self.tokens.revocation.watched);
        let mut due = Vec::new();
        for station in self.setup.topology.by_identity().iter().copied() {
            let of = &mut watched[station.0];
            if std::mem::take(&mut of.stale) {
                of.running = self.watched_at(station, std::mem::take(&mut of.running), now.mono);
            }
            let connected = self.stations[station.0].session.is_some();
            for state in &mut of.running {
                let why = self.why_to_end(station, state, now);
                if let Some(evse) = state.evse {
                    let used_up = why == Some(Why::UsedUp);
                    self.dirty |= self.wishes[evse.0].used_up != used_up;
                    self.wishes[evse.0].used_up = used_up;
                }
                if let Some(why) = why.filter(|why| *why == Why::UsedUp || self.setup.authorization.stop_refused) {
                    let wait = if state.had_right || why == Why::UsedUp { 0 } else { STATIONS_OWN_MS };
                    let end = state.end.get_or_insert(End { next: now.mono.plus_ms(wait), tries: 0 });
                    if connected && now.mono >= end.next {
                        due.push((station, state.transaction.clone(), why, end.tries));
                        let wait = WAITS_MS.get(end.tries).or(WAITS_MS.last()).copied().unwrap_or(CLEAR_EVERY_MS);
                        *end = End { next: now.mono.plus_ms(wait), tries: end.tries + 1 };
                    }
                } else if why.is_none() {
                    state.had_right = true;
                    state.end = None;
                }
            }
        }
        self.tokens.revocation.watched = watched;
        for (station, transaction, why, tries) in due {
            if tries == 0 {
                self.say_end(station, &transaction, why, out);
            }
            self.end_transaction(station, transaction, now, out);
        }
    }

    /// The transactions that run at a station now, each with what is kept of it from its first time on.
    fn watched_at(&self, station: StationIndex, before: Vec<Watched>, now: Mono) -> Vec<Watched> {
        let mut before = before;
        let facts = self.ledger.station(self.station_id(station));
        let running = facts.iter().flat_map(|facts| &facts.open).map(|open| {
            let (transaction, verdict) = (&open.facts.transaction, open.facts.token.as_ref());
            let (evse, verdict) =
                (self.setup.topology.find_evse(station, open.facts.evse), verdict.map(|token| self.verdict(token)));
            match before.iter().position(|state| state.transaction == *transaction) {
                Some(at) => Watched { evse, verdict, ..before.swap_remove(at) },
                None => {
                    let transaction = transaction.clone();
                    Watched { transaction, evse, verdict, since: now, had_right: false, end: None }
                }
            }
        });
        running.collect()
    }

    /// Why a transaction has to end now; `None` where it may go on, or nobody has identified.
    fn why_to_end(&self, station: StationIndex, state: &Watched, now: Now) -> Option<Why> {
        let verdict = state.verdict?;
        let status = verdict.at(now);
        if status != AuthorizationStatus::Accepted {
            return Some(Why::Status(status));
        }
        if !verdict.limited {
            return None;
        }
        let index = state.evse?;
        let open = self.ledger.station(self.station_id(station))?.transaction(&state.transaction)?;
        self.is_used_up(index, open, state.since, now).then_some(Why::UsedUp)
    }

    /// Whether an unknown token has had what it may.
    fn is_used_up(&self, index: EvseIndex, open: &OpenTransaction, since: Mono, now: Now) -> bool {
        let limited = &self.setup.authorization.limited;
        let most_ms = u64::from(limited.minutes) * 60_000;
        // By the calendar over restarts, by our own time where the calendar is not known or was set.
        let by_calendar = now.utc_trusted
            && u64::try_from(now.utc.since(open.facts.started)).is_ok_and(|passed| passed >= most_ms)
            && open.untrusted.is_empty();
        by_calendar || now.mono.since(since) >= most_ms || self.delivered(index, open) >= limited.energy
    }

    fn say_end(&self, station: StationIndex, transaction: &TransactionId, why: Why, out: &mut Vec<Output>) {
        let charger = self.station_id(station);
        let open = self.ledger.station(charger).and_then(|facts| facts.transaction(transaction));
        let token = open.and_then(|open| open.facts.token.as_ref()).map_or("", |token| token.as_str());
        let why = match why {
            Why::Status(status) => format!("may not charge any more ({status:?})"),
            Why::UsedUp => "is not known and has had what unknown tokens may have".to_owned(),
        };
        log(out, LogLevel::Info, format!("{charger}: token {token:?} {why}: transaction {transaction} is stopped"));
    }

    /// Stops everything that runs at a station, as the master pass wants it.
    pub(super) fn stop_all_at(&mut self, station: StationIndex, now: Now, out: &mut Vec<Output>) {
        let facts = self.ledger.station(self.station_id(station));
        let running: Vec<TransactionId> =
            facts.iter().flat_map(|facts| &facts.open).map(|open| open.facts.transaction.clone()).collect();
        for transaction in running {
            self.end_transaction(station, transaction, now, out);
        }
    }

    fn end_transaction(&mut self, station: StationIndex, transaction: TransactionId, now: Now, out: &mut Vec<Output>) {
        let purpose = Purpose::End(transaction.clone());
        self.call(station, StationCall::Stop { transaction }, (Priority::Normal, purpose), now, out);
    }

    /// What a station answers to the stop. It is tried again as long as the transaction runs.
    pub(super) fn end_answered(
        &self,
        station: StationIndex,
        transaction: &TransactionId,
        reply: &StationReply,
        out: &mut Vec<Output>,
    ) {
        let answer = match reply {
            StationReply::Refused { status, .. } => status.clone(),
            StationReply::Error { code, description } => format!("{code} {description}"),
            StationReply::Accepted { .. }
            | StationReply::Timeout
            | StationReply::Overtaken
            | StationReply::Disconnected => return,
        };
        let charger = self.station_id(station);
        let told = format!("{charger}: transaction {transaction} was to be stopped, and the station answers {answer}");
        log(out, LogLevel::Warn, told);
    }

    /// Has the stations forget which tokens were accepted, those that must.
    pub(super) fn clear_caches(&mut self, now: Now, out: &mut Vec<Output>) {
        for station in (0..self.stations.len()).map(StationIndex) {
            let ready = self.stations[station.0].is_set_up();
            let cache = &mut self.tokens.revocation.caches[station.0];
            if !ready || !cache.stale || cache.asked || now.mono < cache.next {
                continue;
            }
            (cache.stale, cache.asked) = (false, true);
            cache.next = now.mono.plus_ms(CLEAR_EVERY_MS);
            self.call(station, StationCall::ClearCache, (Priority::Background, Purpose::ClearCache), now, out);
        }
    }

    pub(super) fn cache_cleared(&mut self, station: StationIndex, reply: &StationReply, out: &mut Vec<Output>) {
        let cache = &mut self.tokens.revocation.caches[station.0];
        cache.asked = false;
        let answer = match reply {
            StationReply::Accepted { .. } => return,
            // A station without such a memory has nothing to forget.
            StationReply::Refused { status, .. } => status.clone(),
            StationReply::Error { code, .. } => code.clone(),
            StationReply::Timeout | StationReply::Overtaken | StationReply::Disconnected => {
                cache.stale = true;
                return;
            }
        };
        let charger = self.station_id(station);
        log(
            out,
            LogLevel::Info,
            format!("{charger} answers {answer} to ClearCache; it is taken to remember no tokens"),
        );
    }
}
