//! What a station knows of tokens by itself: its local list, and what it remembers of the CSMS's answers (OCPP 1.6 §3.4, 2.0.1 C and D).

use std::collections::BTreeMap;

use serde_json::{Value, json};
use siteward::engine::model::exchange::OcppVersion;
use siteward::engine::time::{Now, Utc};

use super::calls::Refusal;
use super::link::Plain;
use super::{Station, StopReason};

/// How a station knows tokens by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnTokens {
    /// How many entries its local list has room for.
    pub room: usize,
    /// How many entries one message may bring.
    pub per_message: usize,
    /// Whether a token that it does not know may charge while it is cut off.
    pub unknown_may: bool,
}

/// What is odd about its local list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListFault {
    /// Nothing.
    #[default]
    None,
    /// It has room for so many entries only, whatever it says.
    Room(usize),
    /// It takes no list.
    Fails,
    /// It takes whole lists only.
    Mismatches,
    /// It does not answer.
    Silent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Info {
    status: String,
    group: Option<String>,
    expires: Option<Utc>,
}

impl Info {
    fn read(info: &Value) -> Option<Self> {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let later = info.get("groupIdToken").and_then(|group| group.get("idToken"));
        let expires = info.get("expiryDate").or_else(|| info.get("cacheExpiryDateTime")).and_then(Value::as_str);
        Some(Self {
            status: text(info.get("status"))?,
            group: text(info.get("parentIdTag").or(later)),
            expires: expires.and_then(Utc::parse),
        })
    }

    fn may_charge(&self, at: Utc) -> bool {
        self.status == "Accepted" && self.expires.is_none_or(|expires| at < expires)
    }
}

/// What it knows. Kept over a reboot.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    version: i64,
    list: BTreeMap<String, Info>,
    cache: BTreeMap<String, Info>,
    /// How many messages with a list it has taken: each is a write to its flash.
    writes: u64,
}

impl Known {
    fn of(&self, token: &str, uses_list: bool) -> Option<&Info> {
        let key = token.to_ascii_lowercase();
        self.list.get(&key).filter(|_| uses_list).or_else(|| self.cache.get(&key))
    }
}

impl Station {
    /// The version of its local list; 0: it has none.
    #[must_use]
    pub const fn list_version(&self) -> i64 {
        self.known.version
    }

    /// The tokens of its local list, in lower case, each with its status.
    #[must_use]
    pub fn local_list(&self) -> BTreeMap<&str, &str> {
        self.known.list.iter().map(|(token, info)| (token.as_str(), info.status.as_str())).collect()
    }

    /// How many messages with a list it has taken.
    #[must_use]
    pub const fn list_writes(&self) -> u64 {
        self.known.writes
    }

    /// Which tokens it remembers from answers, in lower case.
    pub fn remembered(&self) -> impl Iterator<Item = &str> {
        self.known.cache.keys().map(String::as_str)
    }

    /// Somebody else gives it a list with one token.
    pub fn list_from_elsewhere(&mut self, version: i64, token: &str) {
        let info = Info { status: "Accepted".to_owned(), group: None, expires: None };
        self.known.version = version;
        self.known.list = BTreeMap::from([(token.to_ascii_lowercase(), info)]);
    }

    /// Somebody holds a card up while a car charges: its own card ends the transaction, and so does one of its group and the master pass.
    pub fn hold_card(&mut self, evse: u32, token: &str, now: Now) {
        self.advance(now);
        let Some(index) = self.index_of(evse).filter(|index| self.bays[*index].running.is_some()) else { return };
        if !self.stops_by(index, token, now) && self.link.online {
            self.link.push(Plain::Authorize { evse, token: token.to_owned() });
        }
    }

    /// Whether a card ends what runs at a bay, by what is known of it.
    pub(super) fn stops_by(&mut self, index: usize, token: &str, now: Now) -> bool {
        let running = self.bays[index].running.as_ref().and_then(|running| self.transactions.get(running.index));
        let Some(own) = running.map(|truth| truth.token.clone()) else { return false };
        let (at, uses_list) = (self.clock(now), self.uses_list());
        let group = |token: &str| {
            self.known.of(token, uses_list).filter(|info| info.may_charge(at)).and_then(|info| info.group.clone())
        };
        let same_group = group(token).is_some_and(|held| group(&own).as_ref() == Some(&held) || self.is_master(&held));
        let stops = own.eq_ignore_ascii_case(token) || same_group;
        if stops {
            self.stop(index, StopReason::Local, now);
        }
        stops
    }

    fn is_master(&self, group: &str) -> bool {
        self.variables.get("AuthCtrlr.MasterPassGroupId").is_some_and(|master| master.value.eq_ignore_ascii_case(group))
    }

    fn uses_list(&self) -> bool {
        let keys = ["LocalAuthListEnabled", "LocalAuthListCtrlr.Enabled"];
        keys.iter().any(|key| self.variables.get(key).is_some_and(|enabled| enabled.value == "true"))
    }

    /// Whether a token may charge while the station is cut off.
    pub(super) fn may_start_alone(&self, token: &str, now: Now) -> bool {
        let Some(own) = self.options.own_tokens else { return self.options.offline_start };
        match self.known.of(token, self.uses_list()) {
            Some(info) => {
                info.may_charge(self.clock(now)) && !info.group.as_ref().is_some_and(|group| self.is_master(group))
            }
            None => own.unknown_may,
        }
    }

    /// Takes in what the CSMS has answered about a token. Whether it may begin a transaction.
    pub(super) fn heard_of(&mut self, token: &str, payload: &Value) -> bool {
        let info = payload.get("idTagInfo").or_else(|| payload.get("idTokenInfo")).and_then(Info::read);
        let Some(info) = info else { return false };
        let starts = info.status == "Accepted" && !info.group.as_ref().is_some_and(|group| self.is_master(group));
        if self.options.own_tokens.is_some() {
            self.known.cache.insert(token.to_ascii_lowercase(), info);
        }
        starts
    }

    pub(super) fn clear_cache(&mut self) -> Value {
        self.known.cache.clear();
        json!({"status": "Accepted"})
    }

    pub(super) fn local_list_version(&self) -> Result<Value, Refusal> {
        let v16 = self.options.version == OcppVersion::V16;
        match (self.options.own_tokens, v16) {
            (Some(_), true) => Ok(json!({"listVersion": self.known.version})),
            (Some(_), false) => Ok(json!({"versionNumber": self.known.version})),
            (None, true) => Ok(json!({"listVersion": -1})),
            (None, false) => Err(("NotSupported", "there is no local list".to_owned())),
        }
    }

    pub(super) fn send_local_list(&mut self, payload: &Value) -> Result<Value, Refusal> {
        let Some(own) = self.options.own_tokens else {
            return Err(("NotSupported", "there is no local list".to_owned()));
        };
        let version = payload.get("listVersion").or_else(|| payload.get("versionNumber")).and_then(Value::as_i64);
        let full = match payload.get("updateType").and_then(Value::as_str) {
            Some("Full") => true,
            Some("Differential") => false,
            _ => return Err(("PropertyConstraintViolation", "updateType is Full or Differential".to_owned())),
        };
        let Some(version) = version.filter(|version| *version > 0) else {
            return Err(("PropertyConstraintViolation", "the version must be above 0".to_owned()));
        };
        let none = Vec::new();
        let entries = payload.get("localAuthorizationList").and_then(Value::as_array).unwrap_or(&none);
        let fault = self.options.quirks.list;
        if !full && (version <= self.known.version || fault == ListFault::Mismatches) {
            return Ok(json!({"status": "VersionMismatch"}));
        }
        let Some(list) = self.changed_list(full, entries).filter(|_| fault != ListFault::Fails) else {
            return Ok(json!({"status": "Failed"}));
        };
        let room = if let ListFault::Room(room) = fault { room } else { own.room };
        if entries.len() > own.per_message || list.len() > room {
            return Ok(json!({"status": "Failed"}));
        }
        self.known.list = list;
        self.known.version = version;
        self.known.writes += 1;
        Ok(json!({"status": "Accepted"}))
    }

    /// The list with the entries; `None`: it names a token twice, or says nothing of one in a whole list.
    fn changed_list(&self, full: bool, entries: &[Value]) -> Option<BTreeMap<String, Info>> {
        let mut list = if full { BTreeMap::new() } else { self.known.list.clone() };
        let mut named = Vec::new();
        for entry in entries {
            let later = entry.get("idToken").and_then(|token| token.get("idToken"));
            let token = entry.get("idTag").or(later).and_then(Value::as_str)?.to_ascii_lowercase();
            if named.contains(&token) {
                return None;
            }
            named.push(token.clone());
            match entry.get("idTagInfo").or_else(|| entry.get("idTokenInfo")) {
                Some(info) => drop(list.insert(token, Info::read(info)?)),
                None if full => return None,
                None => drop(list.remove(&token)),
            }
        }
        Some(list)
    }
}

#[cfg(test)]
mod tests {
    use siteward::engine::time::Mono;

    use super::super::StationOptions;
    use super::*;

    fn station(version: OcppVersion) -> Station {
        let own_tokens = Some(OwnTokens { room: 3, per_message: 2, unknown_may: false });
        Station::new(StationOptions { own_tokens, ..StationOptions::new("CP1", version) })
    }

    fn now() -> Now {
        Now { mono: Mono::START, utc: Utc::from_unix_ms(1_772_366_400_000), utc_trusted: true }
    }

    fn send(station: &mut Station, version: i64, kind: &str, entries: &Value) -> String {
        let name = if station.options.version == OcppVersion::V16 { "listVersion" } else { "versionNumber" };
        let payload = json!({ name: version, "updateType": kind, "localAuthorizationList": entries });
        let answer = station.answer("SendLocalList", &payload, now()).expect("answered");
        answer["status"].as_str().expect("a status").to_owned()
    }

    #[test]
    fn a_list_is_kept_with_its_version_and_its_sizes() {
        let tag = |token: &str, status: &str| json!({ "idTag": token, "idTagInfo": { "status": status } });
        let mut it = station(OcppVersion::V16);
        assert_eq!(send(&mut it, 5, "Full", &json!([tag("A", "Accepted"), tag("B", "Blocked")])), "Accepted");
        assert_eq!(send(&mut it, 5, "Differential", &json!([tag("C", "Accepted")])), "VersionMismatch");
        assert_eq!(send(&mut it, 6, "Differential", &json!([{ "idTag": "b" }, tag("C", "Accepted")])), "Accepted");
        assert_eq!((it.local_list(), it.list_version()), (BTreeMap::from([("a", "Accepted"), ("c", "Accepted")]), 6));
        let three = json!([tag("X", "Accepted"), tag("Y", "Accepted"), tag("Z", "Accepted")]);
        assert_eq!(send(&mut it, 7, "Full", &three), "Failed", "more than a message may have");
        assert_eq!(
            send(&mut it, 7, "Differential", &json!([tag("X", "Accepted"), tag("Y", "Accepted")])),
            "Failed",
            "no room"
        );
        assert_eq!(
            send(&mut it, 7, "Full", &json!([tag("X", "Accepted"), tag("x", "Accepted")])),
            "Failed",
            "a token twice"
        );
        assert_eq!((it.local_list().len(), it.list_version(), it.list_writes()), (2, 6, 2));
        it.quirks_mut().list = ListFault::Room(1);
        assert_eq!(send(&mut it, 8, "Full", &json!([tag("X", "Accepted"), tag("Y", "Accepted")])), "Failed");
        it.quirks_mut().list = ListFault::Mismatches;
        assert_eq!(send(&mut it, 8, "Differential", &json!([tag("X", "Accepted")])), "VersionMismatch");
        assert_eq!(send(&mut it, 8, "Full", &json!([])), "Accepted");
        assert_eq!(it.local_list().len(), 0);
    }

    #[test]
    fn cut_off_it_lets_charge_whom_its_list_and_then_its_memory_accept() {
        let mut it = station(OcppVersion::V201);
        let entry = |token: &str, status: &str, expires: &str| json!({ "idToken": { "idToken": token, "type": "Central" }, "idTokenInfo": { "status": status, "cacheExpiryDateTime": expires } });
        let (soon, late) = ("2026-03-01T11:59:59Z", "2026-03-02T12:00:00Z");
        assert_eq!(
            send(&mut it, 1, "Full", &json!([entry("IN", "Accepted", late), entry("OUT", "Blocked", late)])),
            "Accepted"
        );
        assert_eq!(send(&mut it, 2, "Differential", &json!([entry("OLD", "Accepted", soon)])), "Accepted");
        it.heard_of("OUT", &json!({ "idTokenInfo": { "status": "Accepted" } }));
        it.heard_of("HEARD", &json!({ "idTokenInfo": { "status": "Accepted" } }));
        assert!(!it.may_start_alone("IN", now()), "its list is not in use");
        it.variables.set("LocalAuthListCtrlr.Enabled", "true");
        for (token, may) in [("in", true), ("OUT", false), ("OLD", false), ("HEARD", true), ("NOBODY", false)] {
            assert_eq!(it.may_start_alone(token, now()), may, "{token}");
        }
        it.clear_cache();
        assert!(!it.may_start_alone("HEARD", now()));
    }
}
