//! Who may charge: the tokens of the file and those that came by command, and what stations are told of them.
//!
//! What came by command stands over the entry of the same token in the file. The site asks nobody else, so that all of it is the same
//! whether the cloud is there or not.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;

use super::io::{LogLevel, Output};
use super::ledger::Ledger;
use super::revocation::Revocation;
use super::token_store::{first_twice, lose_their_right};
use super::{Site, log};
use crate::engine::model::command::CommandOutcome;
use crate::engine::model::exchange::{Admission, AuthorizationStatus, OcppVersion};
use crate::engine::model::ids::IdToken;
use crate::engine::model::record::RecordBody;
use crate::engine::model::token::{ListPart, MAX_TOKENS, TokenEntry, TokensOrder, UnknownToken, digest_of, key_of};
use crate::engine::model::topology::{StationIndex, Topology};
use crate::engine::time::{Now, Utc};
use crate::engine::units::{Current, Energy};

/// So many of the parts that a list lacks are named in an answer.
const MISSING_NAMED: usize = 100;

/// What the site knows of tokens beside the ledger.
#[derive(Debug)]
pub(super) struct Tokens {
    /// The entries of the file, by their [`key_of`].
    of_file: BTreeMap<String, TokenEntry>,
    /// [`digest_of`] them.
    pub(super) file: u64,
    /// They were changed: what is kept of running transactions is to be looked up again.
    pub(super) changed: bool,
    pub(super) revocation: Revocation,
}

impl Tokens {
    pub(super) fn new(of_file: Vec<TokenEntry>, topology: &Topology, ledger: &Ledger, now: Now) -> Self {
        let revocation = Revocation::new(topology.stations().len(), ledger.tokens().revoked(), now);
        let file = digest_of(&of_file);
        let of_file = of_file.into_iter().map(|entry| (key_of(&entry.token), entry)).collect();
        Self { of_file, file, changed: false, revocation }
    }

    /// The entries of the file, by their [`key_of`].
    pub(super) const fn of_file(&self) -> &BTreeMap<String, TokenEntry> {
        &self.of_file
    }
}

/// What is known of a token's right to charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    status: AuthorizationStatus,
    expires: Option<Utc>,
    /// It is not known and may charge a little.
    pub(super) limited: bool,
}

impl Verdict {
    /// The right at a time; it does not expire while nobody knows the time.
    pub(super) fn at(self, now: Now) -> AuthorizationStatus {
        if is_over(self.expires, now) { AuthorizationStatus::Expired } else { self.status }
    }
}

fn is_over(expires: Option<Utc>, now: Now) -> bool {
    expires.is_some_and(|expires| now.utc_trusted && now.utc >= expires)
}

impl Site {
    /// What the site knows of a token.
    pub(super) fn token_entry(&self, token: &IdToken) -> Option<&TokenEntry> {
        let key = key_of(token);
        self.ledger.tokens().get(&key).or_else(|| self.tokens.of_file.get(&key))
    }

    /// Whether a token may charge now.
    pub(super) fn authorize(&self, token: &IdToken, now: Now) -> AuthorizationStatus {
        self.verdict(token).at(now)
    }

    /// Whether and until when a token may charge. An empty one is OCPP 2.x's `NoAuthorization`: the station was set to need none.
    pub(super) fn verdict(&self, token: &IdToken) -> Verdict {
        let always = |status| Verdict { status, expires: None, limited: false };
        if token.as_str().is_empty() {
            return always(AuthorizationStatus::Accepted);
        }
        match self.token_entry(token) {
            // It stops the transactions of others and begins none.
            Some(entry) if self.is_master(entry) => always(AuthorizationStatus::Invalid),
            Some(entry) => Verdict { status: entry.status, expires: entry.expires, limited: false },
            None => match self.setup.authorization.unknown {
                UnknownToken::Reject => always(AuthorizationStatus::Invalid),
                UnknownToken::Accept => always(AuthorizationStatus::Accepted),
                UnknownToken::AcceptLimited => Verdict { limited: true, ..always(AuthorizationStatus::Accepted) },
            },
        }
    }

    /// What a station is told of a token with which somebody wants to charge.
    pub(super) fn admission(&self, token: &IdToken, now: Now) -> Admission {
        let status = self.authorize(token, now);
        let entry = self.token_entry(token);
        Admission {
            status,
            group: entry.and_then(|entry| entry.group.clone()),
            expires: self.remembered_until(entry, now).filter(|_| status == AuthorizationStatus::Accepted),
        }
    }

    /// What a station is told of a token that may be there to end a transaction. OCPP 2.x stations know the master pass themselves (C16).
    pub(super) fn admission_to_stop(&self, station: StationIndex, token: &IdToken, now: Now) -> Admission {
        let mut admission = self.admission(token, now);
        let knows = self.stations[station.0].version().is_some_and(|version| version != OcppVersion::V16);
        if knows && self.is_master_now(token, now) {
            admission.status = AuthorizationStatus::Accepted;
        }
        admission
    }

    /// How long a station may remember that a token was accepted.
    fn remembered_until(&self, entry: Option<&TokenEntry>, now: Now) -> Option<Utc> {
        let own = entry.and_then(|entry| entry.expires);
        let days = self.setup.authorization.cache_days.filter(|_| now.utc_trusted);
        let bound = days.map(|days| now.utc.plus_ms(i64::from(days) * 86_400_000));
        own.into_iter().chain(bound).min()
    }

    /// Whether a token belongs to the master pass group and has a right.
    pub(super) fn is_master_now(&self, token: &IdToken, now: Now) -> bool {
        self.token_entry(token).is_some_and(|entry| self.is_master(entry) && !is_over(entry.expires, now))
    }

    fn is_master(&self, entry: &TokenEntry) -> bool {
        let master = self.setup.authorization.master_pass_group.as_deref();
        entry.status == AuthorizationStatus::Accepted
            && master.zip(entry.group.as_deref()).is_some_and(|(master, group)| master.eq_ignore_ascii_case(group))
    }

    /// The answer to somebody who stands at a station: who is refused will ask why.
    pub(super) fn admit(
        &mut self,
        station: StationIndex,
        token: &IdToken,
        now: Now,
        out: &mut Vec<Output>,
    ) -> Admission {
        let admission = self.admission_to_stop(station, token, now);
        let charger = self.station_id(station).clone();
        if self.is_master_now(token, now) {
            let told =
                format!("{charger}: token {:?} of the master pass group: it stops and does not start", token.as_str());
            log(out, LogLevel::Info, told);
            if admission.status != AuthorizationStatus::Accepted {
                self.stop_all_at(station, now, out);
            }
        } else if admission.status != AuthorizationStatus::Accepted {
            let key = key_of(token);
            let why = if self.ledger.tokens().get(&key).is_some() {
                "its entry, which came by command, says so"
            } else if self.tokens.of_file.contains_key(&key) {
                "its entry in authorization.tokens_file says so"
            } else {
                "it is not in authorization.tokens_file, and did not come by command"
            };
            let status = admission.status;
            log(out, LogLevel::Info, format!("{charger}: token {:?} is refused ({status:?}): {why}", token.as_str()));
        }
        admission
    }

    /// Changes the tokens by command. It takes effect at once and is answered when it is durable.
    pub(super) fn change_tokens(&mut self, order: TokensOrder, now: Now, out: &mut Vec<Output>) -> CommandOutcome {
        if let Some(error) = &self.store_error {
            let error = format!("the store cannot be written ({error}): nothing was changed; try again later");
            return CommandOutcome::Failed { error, data: None };
        }
        if let Err(error) = self.check_tokens(&order) {
            return CommandOutcome::Rejected { error };
        }
        let mut data = match &order {
            TokensOrder::Delete { tokens } => self.told_of_deleted(tokens),
            TokensOrder::Update { .. } | TokensOrder::Replace { .. } | TokensOrder::ReplacePart { .. } => json!({}),
        };
        let list = order.part().map(|part| part.list.clone());
        let revokes = self.revokes(&order);
        self.record(RecordBody::TokensChanged { order: Box::new(order), revokes }, now, out);
        let tokens = self.ledger.tokens();
        data["tokens"] = tokens.entries().len().into();
        if let Some(list) = list {
            let missing = tokens.missing(&list);
            data["missing"] = missing.iter().take(MISSING_NAMED).copied().collect::<Vec<_>>().into();
            data["list"] = list.into();
        }
        self.tokens.changed = true;
        self.dirty = true;
        if revokes {
            self.tokens.revocation.forget_accepted();
            self.lists.hurry(now.mono);
        }
        self.end_refused(now, out);
        self.clear_caches(now, out);
        CommandOutcome::Accepted { data: Some(data.to_string()) }
    }

    fn told_of_deleted(&self, tokens: &[IdToken]) -> serde_json::Value {
        let named = |which: &dyn Fn(&str) -> bool| -> Vec<&str> {
            tokens.iter().filter(|token| which(&key_of(token))).map(IdToken::as_str).collect()
        };
        let unknown = named(&|key| self.ledger.tokens().get(key).is_none());
        let of_file = named(&|key| self.tokens.of_file.contains_key(key));
        json!({ "unknown": unknown, "of_file": of_file })
    }

    fn check_tokens(&self, order: &TokensOrder) -> Result<(), String> {
        let (entries, deleted): (&[TokenEntry], &[IdToken]) = match order {
            TokensOrder::Update { entries }
            | TokensOrder::Replace { entries }
            | TokensOrder::ReplacePart { entries, .. } => (entries, &[]),
            TokensOrder::Delete { tokens } => (&[], tokens),
        };
        if let Some(token) = first_twice(entries.iter().map(|entry| &entry.token).chain(deleted)) {
            let token = token.as_str();
            return Err(format!("token {token:?} is named twice (case does not count); name each token once"));
        }
        for token in deleted {
            let key = key_of(token);
            if self.ledger.tokens().get(&key).is_none() && self.tokens.of_file.contains_key(&key) {
                return Err(format!(
                    "token {:?} stands in authorization.tokens_file, which no command changes: block it instead, with tokens.update and \
                     the status Blocked, or take it out of the file; nothing was deleted",
                    token.as_str()
                ));
            }
        }
        for entry in entries {
            self.check_wish(entry)?;
        }
        if let TokensOrder::ReplacePart { part, entries } = order
            && let Some(refused) = self.ledger.tokens().refuses(part, entries)
        {
            return Err(refused);
        }
        let count = self.ledger.tokens().count_after(order);
        if count > MAX_TOKENS {
            return Err(format!("that would be {count} tokens, more than the {MAX_TOKENS} that are supported"));
        }
        Ok(())
    }

    /// A departure without an energy says nothing about how fast, and an energy without a departure neither.
    fn check_wish(&self, entry: &TokenEntry) -> Result<(), String> {
        let group = entry.group.as_ref().and_then(|group| self.setup.groups.get(group));
        let departure = entry.wish.departure.or_else(|| group?.departure).is_some();
        let energy = entry.wish.energy.or_else(|| group?.energy).is_some();
        let (has, lacks) = match (departure, energy) {
            (true, false) => ("departure", "energy_kwh"),
            (false, true) => ("energy_kwh", "departure"),
            (true, true) | (false, false) => return Ok(()),
        };
        let token = entry.token.as_str();
        Err(format!("token {token:?} has \"{has}\" and needs \"{lacks}\" too; the two belong together"))
    }

    /// Whether a token that could charge cannot any more, or not as long.
    fn revokes(&self, order: &TokensOrder) -> bool {
        let may = |entry: &TokenEntry| entry.status == AuthorizationStatus::Accepted && !self.is_master(entry);
        let store = self.ledger.tokens();
        match order {
            TokensOrder::Update { entries } => entries.iter().any(|entry| {
                let before = self.verdict(&entry.token);
                let earlier = entry.expires.is_some_and(|new| before.expires.is_none_or(|old| new < old));
                before.status == AuthorizationStatus::Accepted && (!may(entry) || earlier)
            }),
            TokensOrder::Delete { tokens } => tokens.iter().any(|token| store.get(&key_of(token)).is_some_and(may)),
            TokensOrder::Replace { entries } => lose_their_right(store.entries().values(), entries, may),
            TokensOrder::ReplacePart { part: ListPart { list, part, parts }, .. } => {
                // Which token it is that goes matters little: it happens once a night.
                *parts == 1 || store.missing(list) == [*part]
            }
        }
    }

    /// A page of the tokens as JSON, in the order of their names without regard to case: those after `after`, at most `limit`.
    #[must_use]
    pub fn tokens_page(&self, after: &str, limit: usize, now: Now) -> String {
        use std::ops::Bound;
        let range = (Bound::Excluded(after.to_ascii_lowercase()), Bound::Unbounded);
        let of_file = self.tokens.of_file.range::<String, _>(range.clone()).take(limit + 1);
        let by_command = self.ledger.tokens().entries().range::<String, _>(range).take(limit + 1);
        let mut found: BTreeMap<&str, TokenStatus<'_>> = BTreeMap::new();
        for (source, (key, entry)) in
            of_file.map(|found| ("file", found)).chain(by_command.map(|found| ("command", found)))
        {
            found.insert(key, TokenStatus::of(entry, source, is_over(entry.expires, now)));
        }
        let more = found.len() > limit;
        let tokens: Vec<_> = found.into_values().take(limit).collect();
        let next = tokens.last().filter(|_| more).map(|last| last.token);
        json!({ "tokens": tokens, "next": next }).to_string()
    }
}

/// A token as the interfaces show it.
#[derive(Serialize)]
struct TokenStatus<'a> {
    token: &'a str,
    status: AuthorizationStatus,
    group: Option<&'a str>,
    expires: Option<Utc>,
    source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_a: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_a: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    departure: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    energy_wh: Option<i64>,
}

impl<'a> TokenStatus<'a> {
    fn of(entry: &'a TokenEntry, source: &'static str, over: bool) -> Self {
        let wish = &entry.wish;
        Self {
            token: entry.token.as_str(),
            status: if over { AuthorizationStatus::Expired } else { entry.status },
            group: entry.group.as_deref(),
            expires: entry.expires,
            source,
            priority: wish.priority,
            weight: wish.weight,
            min_a: wish.min.map(Current::as_a),
            max_a: wish.max.map(Current::as_a),
            departure: wish.departure.map(|time| time.to_string()),
            energy_wh: wish.energy.map(Energy::wh),
        }
    }
}
