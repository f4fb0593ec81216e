//! Rules broken on purpose, between the controller and the world: who watches the watchman. Each of them must be seen by the oracle.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tampering {
    /// Every limit above the minimum leaves a quarter too high.
    LimitsTooHigh,
    /// What would lower a limit is not sent, and counts as accepted.
    CutsAreForgotten,
    /// Limits have no end: nothing falls back by itself.
    LeasesWithoutEnd,
    /// A silent meter is taken to show what it showed last.
    MeterLossUnseen,
    /// The minimum is offered as 5 A.
    BelowTheMinimum,
    /// Records count as durable before they are.
    DurableTooEarly,
    /// A controller that comes back knows nothing.
    ForgetsAtRestart,
    /// One event of a hundred is not sent, and counts as acknowledged.
    EventsAreLost,
    /// One station never gets anything.
    OneIsForgotten,
}

impl Tampering {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::LimitsTooHigh,
        Self::CutsAreForgotten,
        Self::LeasesWithoutEnd,
        Self::MeterLossUnseen,
        Self::BelowTheMinimum,
        Self::DurableTooEarly,
        Self::ForgetsAtRestart,
        Self::EventsAreLost,
        Self::OneIsForgotten,
    ];

    /// The promise that it breaks.
    #[must_use]
    pub const fn breaks(self) -> &'static str {
        match self {
            Self::LimitsTooHigh | Self::CutsAreForgotten | Self::MeterLossUnseen => {
                "no_circuit_above_its_limit_longer_than_its_grace"
            }
            Self::LeasesWithoutEnd => "stations_fall_to_fallback_when_the_controller_is_gone",
            Self::BelowTheMinimum => "no_offer_between_zero_and_minimum",
            Self::DurableTooEarly => "no_answer_before_durable",
            Self::ForgetsAtRestart => "restart_equals_no_restart",
            Self::EventsAreLost => "the_cloud_has_every_event",
            Self::OneIsForgotten => "after_faults_end_everyone_charges",
        }
    }
}

/// What becomes of a frame on its way to a station.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tampered {
    /// It goes on, perhaps changed.
    Frame(String),
    /// It does not, and this answer comes back.
    Answered(String),
}

/// Tampers with a frame to a station that is offered `offered` A now.
pub(super) fn tamper(tampering: Tampering, station: usize, offered_a: f64, text: String) -> Tampered {
    if !text.contains("\"SetChargingProfile\"") {
        return Tampered::Frame(text);
    }
    let Ok(mut frame) = serde_json::from_str::<Value>(&text) else { return Tampered::Frame(text) };
    let id = frame[1].clone();
    let Some(periods) = periods(&mut frame) else { return Tampered::Frame(text) };
    let limit = periods.first().and_then(|first| first["limit"].as_f64()).unwrap_or(0.0);
    match tampering {
        Tampering::LimitsTooHigh => scale(periods, 1.25),
        Tampering::CutsAreForgotten if limit < offered_a => {
            return Tampered::Answered(json!([3, id, {"status": "Accepted"}]).to_string());
        }
        Tampering::LeasesWithoutEnd => {
            periods
                .retain(|period| period["startPeriod"].as_i64() == Some(0) || period["limit"].as_f64() == Some(limit));
            periods.truncate(1);
        }
        Tampering::BelowTheMinimum if (6.0..7.0).contains(&limit) => scale(periods, 0.8),
        Tampering::OneIsForgotten if station == 0 => scale(periods, 0.0),
        _ => return Tampered::Frame(text),
    }
    Tampered::Frame(frame.to_string())
}

fn periods(frame: &mut Value) -> Option<&mut Vec<Value>> {
    let payload = frame.get_mut(3)?;
    let schedule = if payload.get("csChargingProfiles").is_some() {
        payload.get_mut("csChargingProfiles")?.get_mut("chargingSchedule")?
    } else {
        payload.get_mut("chargingProfile")?.get_mut("chargingSchedule")?.get_mut(0)?
    };
    schedule.get_mut("chargingSchedulePeriod")?.as_array_mut()
}

fn scale(periods: &mut [Value], factor: f64) {
    for period in periods {
        let limit = period["limit"].as_f64().unwrap_or(0.0);
        period["limit"] = json!((limit * factor * 10.0).floor() / 10.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(limit: f64) -> String {
        json!([2, "7", "SetChargingProfile", {"connectorId": 1, "csChargingProfiles": {"chargingSchedule":
            {"chargingSchedulePeriod": [{"startPeriod": 0, "limit": limit}, {"startPeriod": 60, "limit": 6.0}]}}}])
        .to_string()
    }

    #[test]
    fn limits_are_changed_and_cuts_are_answered() {
        let Tampered::Frame(high) = tamper(Tampering::LimitsTooHigh, 0, 0.0, frame(16.0)) else { panic!("answered") };
        assert!(high.contains("\"limit\":20.0"), "{high}");
        let cut = tamper(Tampering::CutsAreForgotten, 0, 20.0, frame(16.0));
        assert_eq!(cut, Tampered::Answered(r#"[3,"7",{"status":"Accepted"}]"#.to_owned()));
        let Tampered::Frame(endless) = tamper(Tampering::LeasesWithoutEnd, 0, 0.0, frame(16.0)) else {
            panic!("answered")
        };
        assert!(!endless.contains("\"startPeriod\":60"), "{endless}");
    }
}
