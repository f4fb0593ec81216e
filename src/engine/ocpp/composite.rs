//! What a station says that its limits will be: the answer to `GetCompositeSchedule`.

use serde_json::Value;

use crate::engine::model::exchange::{OcppVersion, WrittenIn};
use crate::engine::time::Utc;
use crate::engine::units::Current;

/// More periods than any station keeps.
const MOST_PERIODS: usize = 200;

/// The limits of an EVSE over the coming time, by the station's own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composite {
    /// When it begins, by the station's clock, where the station says it.
    pub starts: Option<Utc>,
    /// How much time it covers from its beginning, in s, where the station says it.
    pub duration_s: Option<i64>,
    /// From so many s after its beginning on, so much per phase. Rising; the first may begin later than 0.
    pub periods: Vec<(i64, Current)>,
}

impl Composite {
    /// Reads the answer's payload. `None`: there is no schedule in it, which says nothing.
    #[must_use]
    pub fn read(version: OcppVersion, payload: &str, mw_per_a: i64) -> Option<Self> {
        let value: Value = serde_json::from_str(payload).ok()?;
        let (schedule, starts) = match version {
            OcppVersion::V16 => (value.get("chargingSchedule")?, value.get("scheduleStart")),
            OcppVersion::V201 | OcppVersion::V21 => (value.get("schedule")?, value.pointer("/schedule/scheduleStart")),
        };
        let starts = starts.or_else(|| schedule.get("startSchedule"));
        let unit = match schedule.get("chargingRateUnit").and_then(Value::as_str) {
            Some("W") => WrittenIn::Watts { mw_per_a: mw_per_a.max(1) },
            Some(_) | None => WrittenIn::Amperes,
        };
        let list = schedule.get("chargingSchedulePeriod")?.as_array()?;
        let mut periods = Vec::new();
        for entry in list.iter().take(MOST_PERIODS) {
            let start = entry.get("startPeriod").and_then(number)?;
            periods.push((start.div_euclid(1_000), current(entry.get("limit").and_then(number)?, unit)));
        }
        periods.sort_by_key(|(start, _)| *start);
        (!periods.is_empty()).then_some(Self {
            starts: starts.and_then(Value::as_str).and_then(Utc::parse),
            duration_s: schedule.get("duration").and_then(number).map(|thousandths| thousandths.div_euclid(1_000)),
            periods,
        })
    }

    /// The limit so many s after its beginning; `None`: the station says nothing of that time.
    #[must_use]
    pub fn at(&self, second: i64) -> Option<Current> {
        if self.duration_s.is_some_and(|duration| second >= duration) {
            return None;
        }
        self.periods.iter().rev().find(|(start, _)| *start <= second).map(|(_, limit)| *limit)
    }
}

/// A number, or a text that is one, in thousandths.
fn number(value: &Value) -> Option<i64> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_owned(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let (sign, whole) = whole.strip_prefix('-').map_or((1, whole), |whole| (-1, whole));
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    let (whole, digits) = (whole.parse::<i64>().ok()?, digits.parse::<i64>().ok()?);
    Some(sign * (whole.checked_mul(1_000)?.checked_add(digits)?))
}

fn current(thousandths: i64, unit: WrittenIn) -> Current {
    let ma = match unit {
        WrittenIn::Amperes => thousandths,
        // mW divided by mW/A is A.
        WrittenIn::Watts { mw_per_a } => thousandths.saturating_mul(1_000) / mw_per_a,
    };
    Current::from_ma(i32::try_from(ma).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MW_PER_A: i64 = 690_000;

    #[test]
    fn schedules_of_both_versions_are_read() {
        // OCPP 1.6 §6.22, 2.0.1 part 2 §1.27 (CompositeScheduleType).
        let periods = r#""chargingSchedulePeriod":[{"startPeriod":0,"limit":16.0},{"startPeriod":90,"limit":"6"}]"#;
        let v16 = format!(
            r#"{{"status":"Accepted","scheduleStart":"2026-03-01T12:00:00Z","chargingSchedule":{{"duration":200,"chargingRateUnit":"A",{periods}}}}}"#
        );
        let found = Composite::read(OcppVersion::V16, &v16, MW_PER_A).expect("a schedule");
        assert_eq!(found.starts, Utc::parse("2026-03-01T12:00:00Z"));
        assert_eq!(found.at(89), Some(Current::from_a(16)));
        assert_eq!(found.at(90), Some(Current::from_a(6)));
        assert_eq!(found.at(200), None);
        let v201 = r#"{"status":"Accepted","schedule":{"evseId":1,"duration":200,"scheduleStart":"2026-03-01T12:00:00Z","chargingRateUnit":"W",
            "chargingSchedulePeriod":[{"startPeriod":0,"limit":11040}]}}"#;
        let found = Composite::read(OcppVersion::V201, v201, MW_PER_A).expect("a schedule");
        assert_eq!(found.at(0), Some(Current::from_a(16)));
    }

    #[test]
    fn what_says_nothing_is_nothing() {
        for text in ["", "{}", r#"{"status":"Accepted"}"#, r#"{"chargingSchedule":{"chargingSchedulePeriod":[]}}"#] {
            assert_eq!(Composite::read(OcppVersion::V16, text, MW_PER_A), None, "{text}");
        }
        let late = r#"{"chargingSchedule":{"chargingSchedulePeriod":[{"startPeriod":60,"limit":6}]}}"#;
        assert_eq!(Composite::read(OcppVersion::V16, late, MW_PER_A).expect("a schedule").at(10), None);
    }
}
