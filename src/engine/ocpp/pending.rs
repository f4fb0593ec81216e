//! What a station hears that is connected but not configured: that it has to wait.
//!
//! No session and no state: it is asked nothing, and nothing of what it says is kept but who made it.

use super::frame::{ErrorCode, Frame, parse, write_error, write_result};
use super::lenient::{Notes, Refusal};
use super::{v16, v21, v201};
use crate::engine::model::exchange::{BootInfo, OcppVersion, StationAnswer, StationRequest};
use crate::engine::time::Utc;

/// When a waiting station is to ask again, in s.
pub const PENDING_INTERVAL_S: u32 = 60;

/// The answer to a frame of a waiting station.
#[derive(Debug, Default, PartialEq)]
pub struct PendingAnswer {
    /// What to send, if anything.
    pub answer: Option<String>,
    /// What its BootNotification said of it.
    pub boot: Option<BootInfo>,
}

/// Answers a frame of a station that waits for its approval: `Pending` to a BootNotification, the time to a Heartbeat, an error to every
/// other request, so that no transaction is ever accepted.
#[must_use]
pub fn answer_pending(text: &str, version: OcppVersion, now: Utc) -> PendingAnswer {
    match parse(text, version) {
        Ok(Frame::Call { id, action, payload }) => match answer(&action, payload, version, now) {
            Ok((payload, boot)) => PendingAnswer { answer: Some(write_result(&id, &payload)), boot },
            Err(Refusal { code, text }) => {
                PendingAnswer { answer: Some(write_error(&id, code, &text, version)), boot: None }
            }
        },
        // It was asked nothing.
        Ok(Frame::Result { .. } | Frame::Error { .. } | Frame::ResultError { .. } | Frame::Send { .. }) => {
            PendingAnswer::default()
        }
        Err(bad) => {
            let answer = bad.answer.map(|(id, code)| write_error(&id, code, &bad.text, version));
            PendingAnswer { answer, boot: None }
        }
    }
}

fn answer(action: &str, payload: &str, version: OcppVersion, now: Utc) -> Result<(String, Option<BootInfo>), Refusal> {
    let (answer, boot) = match action {
        "BootNotification" => {
            let answer = StationAnswer::Boot { accepted: false, now, interval_s: PENDING_INTERVAL_S };
            (answer, Some(boot(payload, version, now)?))
        }
        "Heartbeat" => (StationAnswer::Heartbeat { now }, None),
        _ => return Err(not_yet(version)),
    };
    let written = match version {
        OcppVersion::V16 => v16::answer(action, &answer),
        OcppVersion::V201 => v201::answer(action, &answer),
        OcppVersion::V21 => v21::answer(action, &answer),
    };
    Ok((written.map_err(|text| Refusal::new(ErrorCode::InternalError, text))?, boot))
}

fn boot(payload: &str, version: OcppVersion, now: Utc) -> Result<BootInfo, Refusal> {
    let payload = serde_json::from_str(payload)
        .map_err(|error| Refusal::new(ErrorCode::FormatViolation, format!("the payload is not JSON: {error}")))?;
    let mut notes = Notes::default();
    let read = match version {
        OcppVersion::V16 => v16::request("BootNotification", &payload, now, &mut notes),
        OcppVersion::V201 => v201::request("BootNotification", &payload, now, &mut notes),
        OcppVersion::V21 => v21::request("BootNotification", &payload, now, &mut notes),
    };
    match read? {
        StationRequest::Boot { info, .. } => Ok(info),
        _ => Err(Refusal::new(ErrorCode::InternalError, "it was not read as a BootNotification")),
    }
}

/// OCPP 2.0.1 B02.FR.09 names the code; 1.6 (4.2) has none for it.
fn not_yet(version: OcppVersion) -> Refusal {
    let code = match version {
        OcppVersion::V16 => ErrorCode::GenericError,
        OcppVersion::V201 | OcppVersion::V21 => ErrorCode::SecurityError,
    };
    Refusal::new(code, "this station waits for its approval")
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSIONS: [OcppVersion; 3] = [OcppVersion::V16, OcppVersion::V201, OcppVersion::V21];

    fn at() -> Utc {
        Utc::parse("2026-03-01T12:00:00Z").expect("a time")
    }

    fn answered(text: &str, version: OcppVersion) -> String {
        answer_pending(text, version, at()).answer.expect("an answer")
    }

    #[test]
    fn a_boot_is_pending_and_says_who_it_is() {
        let v16 = r#"[2,"1","BootNotification",{"chargePointVendor":"Acme","chargePointModel":"One","firmwareVersion":"1.2"}]"#;
        let v2x = r#"[2,"1","BootNotification",{"reason":"PowerUp","chargingStation":{"vendorName":"Acme","model":"One","firmwareVersion":"1.2"}}]"#;
        for version in VERSIONS {
            let text = if version == OcppVersion::V16 { v16 } else { v2x };
            let PendingAnswer { answer, boot } = answer_pending(text, version, at());
            let answer: serde_json::Value = serde_json::from_str(&answer.expect("an answer")).expect("JSON");
            assert_eq!((&answer[0], &answer[1]), (&3.into(), &"1".into()));
            assert_eq!((&answer[2]["status"], &answer[2]["interval"]), (&"Pending".into(), &60.into()), "{version:?}");
            assert!(answer[2]["currentTime"].as_str().is_some_and(|time| time.starts_with("2026-03-01T12:00:00")));
            let boot = boot.expect("it said who it is");
            assert_eq!((boot.vendor.as_str(), boot.model.as_str()), ("Acme", "One"));
            assert_eq!(boot.firmware.as_deref(), Some("1.2"));
        }
    }

    #[test]
    fn a_heartbeat_gets_the_time() {
        for version in VERSIONS {
            assert!(
                answered(r#"[2,"7","Heartbeat",{}]"#, version)
                    .starts_with(r#"[3,"7",{"currentTime":"2026-03-01T12:00:00"#)
            );
        }
    }

    #[test]
    fn everything_else_is_an_error() {
        for action in
            ["StartTransaction", "StopTransaction", "TransactionEvent", "Authorize", "StatusNotification", "X"]
        {
            let text = format!(r#"[2,"7","{action}",{{"connectorId":1,"idTag":"A","meterStart":0}}]"#);
            assert!(answered(&text, OcppVersion::V16).starts_with(r#"[4,"7","GenericError","#), "{action}");
            assert!(answered(&text, OcppVersion::V201).starts_with(r#"[4,"7","SecurityError","#), "{action}");
            assert!(answered(&text, OcppVersion::V21).starts_with(r#"[4,"7","SecurityError","#), "{action}");
        }
        assert!(answered(r#"[2,"7","BootNotification",[]]"#, OcppVersion::V16).starts_with(r#"[4,"7","#));
    }

    #[test]
    fn what_asks_nothing_is_not_answered() {
        for text in [r#"[3,"7",{}]"#, r#"[4,"7","GenericError","",{}]"#, r#"[6,"7","NotifyPeriodicEventStream",{}]"#] {
            assert_eq!(answer_pending(text, OcppVersion::V21, at()), PendingAnswer::default(), "{text}");
        }
        assert_eq!(answer_pending("{", OcppVersion::V16, at()), PendingAnswer::default());
        assert!(answered("{", OcppVersion::V201).starts_with(r#"[4,"-1","#));
    }
}
