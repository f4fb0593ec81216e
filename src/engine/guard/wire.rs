//! The guard's own reading of the wire: only what decides how much a station may draw. What it does not know to be harmless it calls
//! [`Sent::Unclear`].

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Number, Value};

use crate::engine::time::Utc;

/// A charging profile as it is written, in the station's own clock.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Profile {
    /// The EVSE (1.6: connector); 0 means all of them.
    pub(super) evse: u32,
    pub(super) id: i64,
    pub(super) level: i64,
    /// Of one transaction (`TxProfile`) and not of every one: its id, empty where none is named.
    pub(super) transaction: Option<String>,
    /// The times of the schedule count from here; `None`: from something that only the station knows.
    pub(super) start: Option<Utc>,
    pub(super) valid_from: Option<Utc>,
    /// When it ends by itself, whichever way that is written.
    pub(super) ends: Option<Utc>,
    /// How long it stays once the station is offline, in s (OCPP 2.1 `maxOfflineDuration`); `None`: as long as it is there.
    pub(super) max_offline_s: Option<i64>,
    /// What ended because the station was offline is valid again when it is online.
    pub(super) returns: bool,
    /// It repeats, or has an end that only the station knows: any of its periods may be in force, and none may be.
    pub(super) loose: bool,
    pub(super) watts: bool,
    /// The periods in the order of the text: second of the begin, limit in thousandths of the unit (rounded up), phases.
    pub(super) periods: Vec<(i64, i64, i64)>,
}

/// Which profiles a `ClearChargingProfile` removes; `None` matches every one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cleared {
    pub(super) id: Option<i64>,
    pub(super) evse: Option<u32>,
    pub(super) level: Option<i64>,
    pub(super) transaction: Option<bool>,
}

/// What a frame to a station does to its limits.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Sent {
    /// Nothing.
    Harmless,
    /// It tells the station the time (the answer to a boot or a heartbeat).
    Time(Utc),
    /// It installs a profile.
    Profile(Profile),
    /// It removes profiles.
    Clear(Cleared),
    /// It may change limits in a way that is not understood, or switch them off.
    Unclear,
}

/// What a frame of a station says of its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing.
    Nothing,
    /// The answer to a call of ours: done, refused, or neither is certain.
    Answer(String, Answer),
    /// It has booted.
    Booted,
    /// A transaction began at an EVSE; `None`: which one is not said.
    Begun(Option<u32>),
    /// A transaction ended, and its profiles with it.
    Ended(String),
}

/// How a call was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Accepted,
    Refused,
    Unclear,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SetProfile<'a> {
    #[serde(alias = "evseId")]
    connector_id: u32,
    #[serde(borrow, alias = "chargingProfile")]
    cs_charging_profiles: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Start<'a> {
    #[serde(alias = "evseId")]
    connector_id: Option<u32>,
    #[serde(borrow)]
    charging_profile: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireProfile<'a> {
    #[serde(alias = "chargingProfileId")]
    id: i64,
    #[serde(borrow)]
    transaction_id: Option<&'a RawValue>,
    stack_level: i64,
    charging_profile_purpose: String,
    charging_profile_kind: String,
    #[serde(rename = "recurrencyKind")]
    _recurrency: Option<IgnoredAny>,
    valid_from: Option<Utc>,
    valid_to: Option<Utc>,
    max_offline_duration: Option<i64>,
    #[serde(default)]
    invalid_after_offline_duration: bool,
    #[serde(borrow)]
    charging_schedule: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireSchedule {
    #[serde(rename = "id")]
    _id: Option<IgnoredAny>,
    duration: Option<i64>,
    start_schedule: Option<Utc>,
    charging_rate_unit: String,
    charging_schedule_period: Vec<WirePeriod>,
    #[serde(rename = "minChargingRate")]
    _least: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WirePeriod {
    start_period: i64,
    limit: Number,
    number_phases: Option<i64>,
    #[serde(rename = "phaseToUse")]
    _phase: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Clear {
    #[serde(alias = "chargingProfileId")]
    id: Option<i64>,
    #[serde(alias = "evseId")]
    connector_id: Option<u32>,
    charging_profile_purpose: Option<String>,
    stack_level: Option<i64>,
    charging_profile_criteria: Option<Box<Clear>>,
}

/// Reads a frame to a station: its message id, if it is a call, and what it does.
pub(super) fn sent(text: &str) -> (Option<String>, Sent) {
    let Ok(parts) = serde_json::from_str::<Vec<&RawValue>>(text) else { return (None, Sent::Unclear) };
    match (kind(&parts), parts.as_slice()) {
        ("2", [_, id, action, payload]) => (Some(string(id)), call(&string(action), payload.get())),
        ("3", [_, _, payload]) => (None, told_time(payload.get()).map_or(Sent::Harmless, Sent::Time)),
        ("4", _) => (None, Sent::Harmless),
        _ => (None, Sent::Unclear),
    }
}

fn call(action: &str, payload: &str) -> Sent {
    // Stations may be less strict about names than the standard.
    match action.to_ascii_lowercase().as_str() {
        "setchargingprofile" => match serde_json::from_str::<SetProfile<'_>>(payload) {
            Ok(set) => profile(set.connector_id, set.cs_charging_profiles.get()),
            Err(_) => Sent::Unclear,
        },
        "remotestarttransaction" | "requeststarttransaction" => match serde_json::from_str::<Start<'_>>(payload) {
            Ok(start) => start
                .charging_profile
                .map_or(Sent::Harmless, |text| profile(start.connector_id.unwrap_or(0), text.get())),
            Err(_) => Sent::Unclear,
        },
        "clearchargingprofile" => match serde_json::from_str::<Clear>(payload) {
            Ok(clear) => Sent::Clear(cleared(clear)),
            Err(_) => Sent::Unclear,
        },
        "changeconfiguration" | "setvariables" => {
            if switches_off(&payload.to_ascii_lowercase()) {
                Sent::Unclear
            } else {
                Sent::Harmless
            }
        }
        // OCPP 2.1: they change limits without a profile.
        "updatedynamicschedule" | "useprioritycharging" | "afrrsignal" => Sent::Unclear,
        _ => Sent::Harmless,
    }
}

/// Whether a setting may switch limits off, in whole or while the station is offline, or move the clock that they run by. Escapes could
/// hide a word.
fn switches_off(payload: &str) -> bool {
    let smart_charging = payload.contains("smartcharging")
        && ["enabled", "available"].iter().any(|word| payload.contains(word))
        && !payload.contains("\"true\"");
    let offline_or_clock = ["ignoredprofilepurposes", "clockctrlr", "\\u"].iter().any(|word| payload.contains(word));
    smart_charging || offline_or_clock
}

fn profile(evse: u32, text: &str) -> Sent {
    read_profile(evse, text).unwrap_or(Sent::Unclear)
}

fn read_profile(evse: u32, text: &str) -> Option<Sent> {
    let wire: WireProfile<'_> = serde_json::from_str(text).ok()?;
    let transaction = match wire.charging_profile_purpose.as_str() {
        "TxProfile" => Some(wire.transaction_id.map_or_else(String::new, string)),
        "TxDefaultProfile" => None,
        // The limit of a station as a whole comes on top of the others: it can only lower.
        "ChargePointMaxProfile" | "ChargingStationMaxProfile" => return Some(Sent::Harmless),
        _ => return None,
    };
    let schedule = wire.charging_schedule.get();
    let schedule = if schedule.starts_with('[') {
        // More than one: the car chooses (ISO 15118).
        <[WireSchedule; 1]>::try_from(serde_json::from_str::<Vec<WireSchedule>>(schedule).ok()?)
            .ok()?
            .into_iter()
            .next()?
    } else {
        serde_json::from_str::<WireSchedule>(schedule).ok()?
    };
    let absolute = wire.charging_profile_kind == "Absolute";
    if !absolute && !["Relative", "Recurring"].contains(&wire.charging_profile_kind.as_str()) {
        return None;
    }
    let start = schedule.start_schedule.filter(|_| absolute);
    let by_duration = match (start, schedule.duration) {
        (Some(start), Some(seconds)) => Some(start.plus_ms(seconds.checked_mul(1_000)?)),
        (_, None) | (None, Some(_)) => None,
    };
    let ends = [wire.valid_to, by_duration].into_iter().flatten().min();
    let loose = start.is_none();
    let watts = schedule.charging_rate_unit == "W";
    let mut periods = Vec::with_capacity(schedule.charging_schedule_period.len());
    for period in schedule.charging_schedule_period {
        let limit = thousandths(&period.limit)?;
        let begins = period.start_period;
        if begins < 0 || periods.last().is_some_and(|(before, _, _)| *before >= begins) {
            return None;
        }
        periods.push((begins, limit, period.number_phases.unwrap_or(3).clamp(1, 3)));
    }
    let unit = watts || schedule.charging_rate_unit == "A";
    let known = unit && periods.first().is_some_and(|(begins, _, _)| *begins == 0);
    let (id, level, valid_from) = (wire.id, wire.stack_level, wire.valid_from);
    let (max_offline_s, returns) = (wire.max_offline_duration, !wire.invalid_after_offline_duration);
    if max_offline_s.is_some_and(|seconds| seconds < 0) {
        return None;
    }
    known.then_some(Sent::Profile(Profile {
        evse,
        id,
        level,
        transaction,
        start,
        valid_from,
        ends,
        max_offline_s,
        returns,
        loose,
        watts,
        periods,
    }))
}

fn cleared(clear: Clear) -> Cleared {
    let inner = clear.charging_profile_criteria.map(|inner| *inner).unwrap_or_default();
    let purpose = clear.charging_profile_purpose.or(inner.charging_profile_purpose);
    let transaction = match purpose.as_deref() {
        Some("TxProfile") => Some(true),
        Some("TxDefaultProfile") => Some(false),
        // The limits of the whole station are not counted on; other words may mean anything.
        Some("ChargePointMaxProfile" | "ChargingStationMaxProfile") => {
            return Cleared { id: Some(i64::MIN), ..Cleared::default() };
        }
        Some(_) | None => None,
    };
    Cleared {
        id: clear.id.or(inner.id),
        evse: clear.connector_id.or(inner.connector_id),
        level: clear.stack_level.or(inner.stack_level),
        transaction,
    }
}

fn told_time(payload: &str) -> Option<Utc> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Timed {
        current_time: Utc,
    }
    if !payload.contains("currentTime") {
        return None;
    }
    serde_json::from_str::<Timed>(payload).ok().map(|timed| timed.current_time)
}

/// Reads a frame of a station.
pub(super) fn heard(text: &str) -> Heard {
    let answers = matches!(text.trim_start().trim_start_matches('[').trim_start().chars().next(), Some('3' | '4'));
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let calls = ["BootNotification", "StartTransaction", "StopTransaction"];
    // Most events of a transaction are its meter values.
    let begins_or_ends = || says(&["TransactionEvent"]) && says(&["Started", "Ended"]);
    if !(answers || says(&calls) || begins_or_ends()) {
        return Heard::Nothing;
    }
    let Ok(parts) = serde_json::from_str::<Vec<&RawValue>>(text) else { return Heard::Nothing };
    match (kind(&parts), parts.as_slice()) {
        ("3", [_, id, payload, ..]) => Heard::Answer(string(id), verdict(payload.get())),
        ("3" | "4", [_, id, ..]) => Heard::Answer(string(id), Answer::Unclear),
        ("2", [_, _, action, payload @ ..]) => match string(action).as_str() {
            "BootNotification" => Heard::Booted,
            action @ ("StartTransaction" | "StopTransaction" | "TransactionEvent") => {
                payload.first().and_then(|payload| transaction(action, payload.get())).unwrap_or(Heard::Nothing)
            }
            _ => Heard::Nothing,
        },
        _ => Heard::Nothing,
    }
}

/// The time that a station writes by its own clock into a message that is sent at once.
pub(super) fn stamp(text: &str) -> Option<Utc> {
    if !text.contains("timestamp") {
        return None;
    }
    serde_json::from_str::<StampedFrame>(text).ok()?.0
}

/// A frame of a station, read for its stamp alone. Nearly all that stations say has one, so that nothing is read twice.
struct StampedFrame(Option<Utc>);

impl<'de> Deserialize<'de> for StampedFrame {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(StampReader)
    }
}

struct StampReader;

impl<'de> Visitor<'de> for StampReader {
    type Value = StampedFrame;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a frame")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<StampedFrame, A::Error> {
        let is_call = parts.next_element::<&RawValue>()?.is_some_and(|kind| kind.get() == "2");
        parts.next_element::<IgnoredAny>()?;
        let action = if is_call { parts.next_element::<String>()?.unwrap_or_default() } else { String::new() };
        let stamp = if ["StatusNotification", "MeterValues", "TransactionEvent"].contains(&action.as_str()) {
            parts.next_element::<Stamped>()?.and_then(|read| read.stamp(&action))
        } else {
            None
        };
        while parts.next_element::<IgnoredAny>()?.is_some() {}
        Ok(StampedFrame(stamp))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stamped {
    timestamp: Option<Utc>,
    #[serde(default)]
    offline: bool,
    #[serde(default)]
    meter_value: Vec<StampedValue>,
}

#[derive(Deserialize)]
struct StampedValue {
    timestamp: Option<Utc>,
}

impl Stamped {
    fn stamp(self, action: &str) -> Option<Utc> {
        if action == "MeterValues" {
            return self.meter_value.into_iter().filter_map(|value| value.timestamp).max();
        }
        self.timestamp.filter(|_| !self.offline)
    }
}

fn transaction(action: &str, payload: &str) -> Option<Heard> {
    let value: Value = serde_json::from_str(payload).ok()?;
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let number = |value: &Value| u32::try_from(value.as_u64()?).ok();
    match (action, value.get("eventType").and_then(Value::as_str)) {
        ("StartTransaction", _) => Some(Heard::Begun(value.get("connectorId").and_then(number))),
        ("StopTransaction", _) => Some(Heard::Ended(text(value.get("transactionId")?))),
        (_, Some("Started")) => Some(Heard::Begun(value.get("evse").and_then(|evse| number(evse.get("id")?)))),
        (_, Some("Ended")) => Some(Heard::Ended(text(value.get("transactionInfo")?.get("transactionId")?))),
        _ => None,
    }
}

fn verdict(payload: &str) -> Answer {
    let status = serde_json::from_str::<Value>(payload).ok();
    match status.as_ref().and_then(|value| value.get("status")).and_then(Value::as_str) {
        Some(status) if status.eq_ignore_ascii_case("Accepted") => Answer::Accepted,
        Some(_) => Answer::Refused,
        None => Answer::Unclear,
    }
}

/// The same frame with lower limits: for each period of its only schedule `None` leaves it as it is.
pub(super) fn rewrite(text: &str, limits: &[Option<String>]) -> Option<String> {
    let mut frame: Value = serde_json::from_str(text).ok()?;
    let payload = frame.get_mut(3)?;
    let profile = match payload.get("csChargingProfiles").is_some() {
        true => payload.get_mut("csChargingProfiles")?,
        false => payload.get_mut("chargingProfile")?,
    };
    let mut schedule = profile.get_mut("chargingSchedule")?;
    if schedule.is_array() {
        schedule = schedule.get_mut(0)?;
    }
    let periods = schedule.get_mut("chargingSchedulePeriod")?.as_array_mut()?;
    for (period, limit) in periods.iter_mut().zip(limits) {
        if let Some(limit) = limit {
            *period.get_mut("limit")? = Value::Number(limit.parse().ok()?);
        }
    }
    Some(frame.to_string())
}

fn kind<'a>(parts: &[&'a RawValue]) -> &'a str {
    parts.first().map_or("", |part| part.get())
}

fn string(raw: &RawValue) -> String {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().to_owned())
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "`as` saturates, and a limit beyond any current is as good as none"
)]
fn thousandths(number: &Number) -> Option<i64> {
    let value = number.as_f64().filter(|value| value.is_finite() && *value >= 0.0)?;
    // A hair below is a rounding of the decimal number, not another limit.
    Some((value * 1000.0 - 0.000_1).ceil() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp_of(frame: &str) -> Option<i64> {
        stamp(frame).map(Utc::unix_ms)
    }

    #[test]
    fn the_time_of_a_message_is_the_newest_that_the_station_wrote() {
        let status = r#"[2,"1","StatusNotification",{"connectorId":1,"errorCode":"NoError","timestamp":"1970-01-01T00:00:05Z"}]"#;
        assert_eq!(stamp_of(status), Some(5_000));
        let values = r#"[2,"1","MeterValues",{"connectorId":1,"meterValue":[{"timestamp":"1970-01-01T00:00:07Z","sampledValue":[]},
            {"timestamp":"1970-01-01T00:00:06Z","sampledValue":[]}]}]"#;
        assert_eq!(stamp_of(values), Some(7_000));
        let event =
            r#"[2,"1","TransactionEvent",{"eventType":"Updated","timestamp":"1970-01-01T00:00:09Z","seqNo":1}]"#;
        assert_eq!(stamp_of(event), Some(9_000));
    }

    #[test]
    fn what_was_written_long_ago_or_by_somebody_else_is_no_stamp() {
        for frame in [
            r#"[2,"1","TransactionEvent",{"eventType":"Updated","timestamp":"1970-01-01T00:00:09Z","offline":true}]"#,
            // Its own queue may hold these for days.
            r#"[2,"1","StartTransaction",{"connectorId":1,"timestamp":"1970-01-01T00:00:09Z"}]"#,
            r#"[2,"1","StopTransaction",{"transactionId":1,"timestamp":"1970-01-01T00:00:09Z"}]"#,
            r#"[3,"1",{"currentTime":"1970-01-01T00:00:09Z","timestamp":"1970-01-01T00:00:09Z"}]"#,
            r#"[2,"1","StatusNotification",{"connectorId":1}]"#,
            r#"[2,"1","StatusNotification",{"timestamp":"yesterday"}]"#,
            r#"[2,"1","StatusNotification"]"#,
            r#"{"timestamp":"1970-01-01T00:00:09Z"}"#,
            "timestamp",
            "",
        ] {
            assert_eq!(stamp_of(frame), None, "{frame}");
        }
    }
}
