//! Charging profiles as a station keeps and obeys them: its own reading of OCPP 1.6 §3.13 and OCPP 2.0.1 and 2.1 part 2 §K.

use serde_json::{Value, json};
use siteward::engine::model::exchange::OcppVersion;
use siteward::engine::time::Utc;
use siteward::engine::units::Current;

/// What a profile is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// The whole station together (`ChargePointMaxProfile`, `ChargingStationMaxProfile`).
    StationMax,
    /// Every transaction that has no profile of its own (`TxDefaultProfile`).
    TxDefault,
    /// One running transaction (`TxProfile`).
    Tx,
}

/// What the times of a schedule are counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `startSchedule`.
    Absolute,
    /// The start of the transaction.
    Relative,
    /// `startSchedule`, again and again after so many ms.
    Recurring(i64),
}

/// A period of a schedule: from `start_ms` on, up to the next period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Period {
    start_ms: i64,
    limit: Current,
}

/// An installed profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its number, given by the CSMS.
    pub id: i64,
    /// The EVSE (1.6: connector); 0 is the station.
    pub evse: u32,
    /// What it is for.
    pub purpose: Purpose,
    /// Higher wins.
    pub stack_level: i64,
    /// The transaction of a `TxProfile`.
    pub transaction: Option<String>,
    kind: Kind,
    valid_from: Option<Utc>,
    valid_to: Option<Utc>,
    /// How long it stays valid while the station is offline (OCPP 2.1 `maxOfflineDuration`); `None`: for ever.
    max_offline_ms: Option<i64>,
    /// It does not come back once it was offline for longer.
    invalid_after_offline: bool,
    starts: Option<Utc>,
    duration_ms: Option<i64>,
    periods: Vec<Period>,
    in_watts: bool,
}

/// A limit at one moment, and until when it stays so by the profiles alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitAt {
    /// The limit per phase; `None`: no profile says anything.
    pub limit: Option<Current>,
    /// From then on it may be another one; `None`: never.
    pub until: Option<Utc>,
}

impl LimitAt {
    const FREE: Self = Self { limit: None, until: None };

    fn ends_no_later_than(mut self, at: Option<Utc>) -> Self {
        self.until = earlier(self.until, at);
        self
    }
}

/// What a limit is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The EVSE.
    pub evse: u32,
    /// The running transaction, if there is one.
    pub transaction: Option<&'a str>,
    /// When it began, by the station's clock.
    pub started: Option<Utc>,
}

/// The profiles of a station.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profiles {
    installed: Vec<Profile>,
    /// Since when the station has been offline, by its clock.
    offline_since: Option<Utc>,
}

impl Profiles {
    /// The station goes offline. Whether that changes anything.
    pub fn offline(&mut self, at: Utc) -> bool {
        self.offline_since.get_or_insert(at);
        self.any_ends_offline()
    }

    fn any_ends_offline(&self) -> bool {
        self.installed.iter().any(|profile| profile.max_offline_ms.is_some())
    }

    /// The station is online again: what it was offline too long for is gone for good where its profile says so. Whether that changes
    /// anything.
    pub fn online(&mut self, at: Utc) -> bool {
        let since = self.offline_since.take();
        let changes = self.any_ends_offline();
        let over = |profile: &Profile| profile.ends_offline(since).is_some_and(|end| at >= end);
        self.installed.retain(|profile| !(profile.invalid_after_offline && over(profile)));
        changes
    }

    /// Installs a profile in place of one with the same number, or with the same purpose, level and EVSE (1.6 §3.13.2).
    pub fn install(&mut self, profile: Profile) {
        self.installed.retain(|old| {
            let same_place = old.purpose == profile.purpose && old.stack_level == profile.stack_level;
            old.id != profile.id && !(same_place && old.evse == profile.evse)
        });
        self.installed.push(profile);
    }

    /// These, with the `TxDefaultProfile`s of an earlier time in place of the present ones.
    #[must_use]
    pub fn with_defaults_of(&self, earlier: &Self) -> Self {
        let is_default = |profile: &&Profile| profile.purpose == Purpose::TxDefault;
        let others = self.installed.iter().filter(|profile| !is_default(profile));
        let installed = earlier.installed.iter().filter(is_default).chain(others).cloned().collect();
        Self { installed, offline_since: self.offline_since }
    }

    /// All installed profiles.
    #[must_use]
    pub fn installed(&self) -> &[Profile] {
        &self.installed
    }

    /// Removes the profiles for which `gone` says so; how many there were.
    pub fn remove(&mut self, mut gone: impl FnMut(&Profile) -> bool) -> usize {
        let before = self.installed.len();
        self.installed.retain(|profile| !gone(profile));
        before - self.installed.len()
    }

    /// The limit at `at`, a time by the station's clock: the least of the purposes, within a purpose the highest valid level.
    /// The limit of the whole station is not in it: see [`Profiles::station_limit`].
    #[must_use]
    pub fn limit(&self, asked: Asked<'_>, at: Utc) -> LimitAt {
        let of_transaction = self.of_purpose(at, asked.started, |profile| {
            profile.purpose == Purpose::Tx
                && profile.evse == asked.evse
                && profile.transaction.as_deref().is_none_or(|wanted| Some(wanted) == asked.transaction)
        });
        if asked.transaction.is_some() && of_transaction.limit.is_some() {
            return of_transaction;
        }
        // A profile for the EVSE itself stands in place of one for all of them.
        let own = self.installed.iter().any(|p| p.purpose == Purpose::TxDefault && p.evse == asked.evse);
        let evse = if own { asked.evse } else { 0 };
        let default = self.of_purpose(at, asked.started, |p| p.purpose == Purpose::TxDefault && p.evse == evse);
        default.ends_no_later_than(of_transaction.until)
    }

    /// The limit of all EVSEs of the station together.
    #[must_use]
    pub fn station_limit(&self, at: Utc) -> LimitAt {
        self.of_purpose(at, None, |profile| profile.purpose == Purpose::StationMax)
    }

    fn of_purpose(&self, at: Utc, started: Option<Utc>, wanted: impl Fn(&Profile) -> bool) -> LimitAt {
        let mut best: Option<(i64, Current)> = None;
        let mut until = None;
        for profile in self.installed.iter().filter(|profile| wanted(profile)) {
            let ends = profile.ends_offline(self.offline_since);
            if ends.is_some_and(|end| at >= end) {
                continue;
            }
            let found = profile.at(at, started).ends_no_later_than(ends);
            until = earlier(until, found.until);
            let Some(limit) = found.limit else { continue };
            if best.is_none_or(|(level, _)| profile.stack_level > level) {
                best = Some((profile.stack_level, limit));
            }
        }
        LimitAt { limit: best.map(|(_, limit)| limit), until }
    }
}

impl Profile {
    /// When it ends because the station is offline.
    fn ends_offline(&self, since: Option<Utc>) -> Option<Utc> {
        Some(since?.plus_ms(self.max_offline_ms?))
    }

    fn at(&self, at: Utc, started: Option<Utc>) -> LimitAt {
        if let Some(from) = self.valid_from.filter(|from| at < *from) {
            return LimitAt { limit: None, until: Some(from) };
        }
        if self.valid_to.is_some_and(|to| at >= to) {
            return LimitAt::FREE;
        }
        let origin = match self.kind {
            Kind::Relative => started,
            Kind::Absolute | Kind::Recurring(_) => self.starts.or(started),
        };
        let Some(origin) = origin else { return LimitAt::FREE };
        if at < origin {
            return LimitAt { limit: None, until: Some(origin) };
        }
        let (round, elapsed) = match self.kind {
            Kind::Recurring(every) => (at.since(origin).div_euclid(every) * every, at.since(origin).rem_euclid(every)),
            Kind::Absolute | Kind::Relative => (0, at.since(origin)),
        };
        let point = |ms: i64| origin.plus_ms(round + ms);
        let round_ends = match self.kind {
            Kind::Recurring(every) => Some(point(every)),
            Kind::Absolute | Kind::Relative => None,
        };
        if self.duration_ms.is_some_and(|duration| elapsed >= duration) {
            return LimitAt { limit: None, until: round_ends };
        }
        let current = self.periods.iter().rev().find(|period| period.start_ms <= elapsed);
        let next = self.periods.iter().find(|period| period.start_ms > elapsed);
        LimitAt { limit: current.map(|period| period.limit), until: next.map(|period| point(period.start_ms)) }
            .ends_no_later_than(self.duration_ms.map(point))
            .ends_no_later_than(round_ends)
            .ends_no_later_than(self.valid_to)
    }

    /// Whether a period of it is for nothing at all.
    #[must_use]
    pub fn has_zero(&self) -> bool {
        self.periods.iter().any(|period| period.limit == Current::ZERO)
    }

    /// Whether its limits were written in W.
    #[must_use]
    pub const fn is_in_watts(&self) -> bool {
        self.in_watts
    }

    /// As kept by a station that obeys the first limit for ever.
    #[must_use]
    pub fn without_an_end(self) -> Self {
        Self { max_offline_ms: None, ..self.without_an_end_in_time() }
    }

    /// The same, but what ends when it is offline does so.
    #[must_use]
    pub fn without_an_end_in_time(mut self) -> Self {
        self.periods.truncate(1);
        self.valid_to = None;
        self.duration_ms = None;
        self
    }

    /// How many periods its schedule has.
    #[must_use]
    pub fn period_count(&self) -> usize {
        self.periods.len()
    }

    /// Reads `csChargingProfiles` (1.6) or `chargingProfile` (2.x).
    ///
    /// # Errors
    /// What is wrong with it, for the description of a CALLERROR.
    pub fn parse(version: OcppVersion, evse: u32, value: &Value, voltage_mv: i64) -> Result<Self, String> {
        let (id_name, schedule) = match version {
            OcppVersion::V16 => ("chargingProfileId", value.get("chargingSchedule")),
            OcppVersion::V201 | OcppVersion::V21 => ("id", value.get("chargingSchedule").and_then(|list| list.get(0))),
        };
        let schedule = schedule.ok_or("chargingSchedule is missing")?;
        let purpose = match text(value, "chargingProfilePurpose")? {
            "ChargePointMaxProfile" | "ChargingStationMaxProfile" => Purpose::StationMax,
            "TxDefaultProfile" => Purpose::TxDefault,
            "TxProfile" => Purpose::Tx,
            other => return Err(format!("chargingProfilePurpose {other:?}")),
        };
        let kind = match text(value, "chargingProfileKind")? {
            "Absolute" => Kind::Absolute,
            "Relative" => Kind::Relative,
            "Recurring" if value.get("recurrencyKind").and_then(Value::as_str) == Some("Weekly") => {
                Kind::Recurring(7 * 86_400_000)
            }
            "Recurring" => Kind::Recurring(86_400_000),
            other => return Err(format!("chargingProfileKind {other:?}")),
        };
        // Fields of OCPP 2.1: an earlier station reads over them.
        let of_21 = |name: &str| value.get(name).filter(|_| version == OcppVersion::V21);
        let transaction = value.get("transactionId").map(|id| match id {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        Ok(Self {
            id: value.get(id_name).and_then(Value::as_i64).ok_or(format!("{id_name} is missing"))?,
            evse,
            purpose,
            stack_level: value.get("stackLevel").and_then(Value::as_i64).ok_or("stackLevel is missing")?,
            transaction,
            kind,
            valid_from: time(value, "validFrom")?,
            valid_to: time(value, "validTo")?,
            max_offline_ms: of_21("maxOfflineDuration").and_then(Value::as_i64).map(|seconds| seconds * 1000),
            invalid_after_offline: of_21("invalidAfterOfflineDuration").and_then(Value::as_bool).unwrap_or(false),
            starts: time(schedule, "startSchedule")?,
            duration_ms: schedule.get("duration").and_then(Value::as_i64).map(|seconds| seconds * 1000),
            periods: parse_periods(schedule, voltage_mv)?,
            in_watts: schedule.get("chargingRateUnit").and_then(Value::as_str) == Some("W"),
        })
    }
}

fn parse_periods(schedule: &Value, voltage_mv: i64) -> Result<Vec<Period>, String> {
    let in_watts = match text(schedule, "chargingRateUnit")? {
        "A" => false,
        "W" => true,
        other => return Err(format!("chargingRateUnit {other:?}")),
    };
    let list = schedule.get("chargingSchedulePeriod").and_then(Value::as_array);
    let list = list.ok_or("chargingSchedulePeriod is missing")?;
    let mut periods = Vec::with_capacity(list.len());
    for entry in list {
        let start = entry.get("startPeriod").and_then(Value::as_i64).ok_or("startPeriod is missing")?;
        let limit = entry.get("limit").and_then(Value::as_f64).ok_or("limit is missing")?;
        // Absent means 3 (1.6 §7.14).
        let phases = entry.get("numberPhases").and_then(Value::as_i64).unwrap_or(3).clamp(1, 3);
        let thousandths = thousandths(limit);
        let ma = if in_watts { thousandths * 1000 / voltage_mv.max(1) / phases } else { thousandths };
        let limit = Current::from_ma(i32::try_from(ma).unwrap_or(i32::MAX));
        periods.push(Period { start_ms: start * 1000, limit });
    }
    if periods.first().is_none_or(|first| first.start_ms != 0) {
        return Err("the first startPeriod has to be 0".to_owned());
    }
    if periods.windows(2).any(|pair| pair[0].start_ms >= pair[1].start_ms) {
        return Err("startPeriod has to rise".to_owned());
    }
    Ok(periods)
}

/// The answer to `GetCompositeSchedule`: the periods from `from` for `duration_s`, as pairs of seconds and limit.
pub(crate) fn periods_json(
    mut limit_at: impl FnMut(Utc) -> LimitAt,
    from: Utc,
    duration_s: i64,
    (phases, unit_mw): (usize, Option<i64>),
) -> Value {
    let end = from.plus_ms(duration_s * 1000);
    let mut list = Vec::new();
    let mut at = from;
    // 100 periods are more than any station has; a schedule that changes more often is cut off there.
    for _ in 0..100 {
        let found = limit_at(at);
        let limit = found.limit.unwrap_or(Current::ZERO);
        // In W where that was asked for: so many mW for an ampere.
        let value = unit_mw.map_or_else(|| json!(limit.as_a()), |mw| json!(i64::from(limit.ma()) * mw / 1_000_000));
        list.push(json!({"startPeriod": at.since(from) / 1000, "limit": value, "numberPhases": phases}));
        match found.until.filter(|until| *until < end && *until > at) {
            Some(until) => at = until,
            None => break,
        }
    }
    Value::Array(list)
}

fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str, String> {
    value.get(name).and_then(Value::as_str).ok_or(format!("{name} is missing"))
}

fn time(value: &Value, name: &str) -> Result<Option<Utc>, String> {
    match value.get(name).and_then(Value::as_str) {
        None => Ok(None),
        Some(written) => Utc::parse(written).map(Some).ok_or(format!("{name}: {written:?} is no time")),
    }
}

fn earlier(one: Option<Utc>, other: Option<Utc>) -> Option<Utc> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "`as` saturates, and a limit beyond any current is as good as none"
)]
fn thousandths(value: f64) -> i64 {
    (value * 1000.0).round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Utc {
        Utc::from_unix_ms(1_772_366_400_000 + seconds * 1000)
    }

    fn lease(id: i64, now_a: f64, fallback_a: f64) -> Profile {
        let value = json!({
            "chargingProfileId": id, "stackLevel": 0, "chargingProfilePurpose": "TxDefaultProfile",
            "chargingProfileKind": "Absolute",
            "chargingSchedule": {"startSchedule": at(-60).to_string(), "chargingRateUnit": "A", "chargingSchedulePeriod": [
                {"startPeriod": 0, "limit": now_a}, {"startPeriod": 180, "limit": fallback_a}]}
        });
        Profile::parse(OcppVersion::V16, 1, &value, 230_000).unwrap()
    }

    const RUNNING: Asked<'_> = Asked { evse: 1, transaction: Some("5"), started: None };

    #[test]
    fn a_lease_steps_down_by_itself_and_stays_there() {
        let mut profiles = Profiles::default();
        profiles.install(lease(1, 16.0, 6.0));
        let found = profiles.limit(RUNNING, at(0));
        assert_eq!(found, LimitAt { limit: Some(Current::from_a(16)), until: Some(at(120)) });
        let later = profiles.limit(RUNNING, at(120));
        assert_eq!(later, LimitAt { limit: Some(Current::from_a(6)), until: None });
    }

    #[test]
    fn the_same_place_is_replaced_and_a_higher_level_wins() {
        let mut profiles = Profiles::default();
        profiles.install(lease(1, 16.0, 6.0));
        profiles.install(lease(2, 10.0, 6.0));
        assert_eq!(profiles.installed().len(), 1);
        let mut higher = lease(3, 8.0, 0.0);
        higher.stack_level = 2;
        profiles.install(higher);
        assert_eq!(profiles.limit(RUNNING, at(0)).limit, Some(Current::from_a(8)));
    }

    #[test]
    fn a_tx_profile_overrules_the_default_while_its_transaction_runs() {
        let mut profiles = Profiles::default();
        profiles.install(lease(1, 16.0, 6.0));
        let own = Profile { purpose: Purpose::Tx, transaction: Some("5".to_owned()), ..lease(2, 20.0, 6.0) };
        profiles.install(own);
        assert_eq!(profiles.limit(RUNNING, at(0)).limit, Some(Current::from_a(20)));
        let other = Asked { transaction: Some("6"), ..RUNNING };
        assert_eq!(profiles.limit(other, at(0)).limit, Some(Current::from_a(16)));
    }

    #[test]
    fn watts_are_for_all_phases_together() {
        let schedule = json!({"chargingRateUnit": "W", "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 6900}]});
        assert_eq!(parse_periods(&schedule, 230_000).unwrap()[0].limit, Current::from_a(10));
    }

    #[test]
    fn a_relative_schedule_counts_from_the_start_of_the_transaction() {
        let relative = Profile { kind: Kind::Relative, starts: None, ..lease(1, 16.0, 6.0) };
        let mut profiles = Profiles::default();
        profiles.install(relative);
        let asked = Asked { started: Some(at(0)), ..RUNNING };
        assert_eq!(profiles.limit(asked, at(179)).limit, Some(Current::from_a(16)));
        assert_eq!(profiles.limit(asked, at(180)).limit, Some(Current::from_a(6)));
    }

    #[test]
    fn a_broken_schedule_is_refused() {
        let schedule = json!({"chargingRateUnit": "A", "chargingSchedulePeriod": [{"startPeriod": 5, "limit": 6}]});
        assert!(parse_periods(&schedule, 230_000).is_err());
    }
}
