//! A CALL to the station, ready to be sent.

use serde::Serialize;
use serde_json::value::RawValue;

use super::frame::{ErrorCode, MAX_FRAME_BYTES};
use super::lenient::{Fields, Refusal};
use super::tree::Json;
use crate::engine::model::exchange::StationReply;

/// The longest action name (`CiString36` has room for all of them).
const MAX_ACTION_CHARS: usize = 36;

/// Statuses that mean that what was asked is done or will be; the payload says which.
const GOOD_STATUSES: &[&str] = &["Accepted", "AcceptedCanceled", "RebootRequired", "Scheduled", "Unlocked"];

/// A CALL to the station: the action, its payload as JSON text, and how its answer is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub(super) action: String,
    pub(super) payload: String,
    pub(super) verdict: Verdict,
}

/// How an answer is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Any answer is what was asked for.
    Answered,
    /// By its `status`, which must be there.
    Status,
    /// By its `status`, if it has one.
    StatusIfAny,
    /// By the `attributeStatus` of its only `setVariableResult`.
    Attribute,
}

impl Outgoing {
    /// A CALL whose payload somebody wrote by hand.
    pub(super) fn raw(action: &str, payload: String) -> Result<Self, Refusal> {
        let action = bounded("action", action, MAX_ACTION_CHARS)?;
        if payload.len() > MAX_FRAME_BYTES {
            return Err(property(format!("the payload has more than {MAX_FRAME_BYTES} bytes")));
        }
        if let Err(error) = serde_json::from_str::<&RawValue>(&payload) {
            return Err(Refusal::new(ErrorCode::FormatViolation, format!("the payload is not JSON: {error}")));
        }
        if !payload.trim_start().starts_with('{') {
            return Err(Refusal::new(ErrorCode::FormatViolation, "the payload must be a JSON object, at least {}"));
        }
        Ok(Self { action, payload, verdict: Verdict::StatusIfAny })
    }
}

impl Verdict {
    /// Judges the payload of a CALLRESULT.
    pub(super) fn judge(self, payload: &str) -> StationReply {
        let value: Json<'_> = match serde_json::from_str(payload) {
            Ok(value) => value,
            Err(error) => return unusable(format!("the answer cannot be read: {error}")),
        };
        let Some(fields) = Fields::of(&value) else {
            return unusable("the answer is not a JSON object".to_owned());
        };
        let accepted = || StationReply::Accepted { payload: payload.to_owned() };
        let status = match self {
            Self::Answered => return accepted(),
            Self::Status | Self::StatusIfAny => fields.get("status").and_then(Json::as_str),
            Self::Attribute => fields
                .get("setVariableResult")
                .and_then(Fields::of)
                .and_then(|result| result.get("attributeStatus"))
                .and_then(Json::as_str),
        };
        match status {
            None if self == Self::StatusIfAny => accepted(),
            None => unusable("the answer has no status".to_owned()),
            Some(status) if GOOD_STATUSES.iter().any(|good| good.eq_ignore_ascii_case(status)) => accepted(),
            Some(status) => StationReply::Refused { status: status.to_owned(), payload: payload.to_owned() },
        }
    }
}

fn unusable(description: String) -> StationReply {
    StationReply::Error { code: "FormationViolation".to_owned(), description }
}

/// A [`Refusal`] for a value that the schema does not allow.
pub(super) fn property(text: String) -> Refusal {
    Refusal::new(ErrorCode::PropertyConstraintViolation, text)
}

/// A text of 1 to `most` characters.
pub(super) fn bounded(name: &str, text: &str, most: usize) -> Result<String, Refusal> {
    if text.is_empty() {
        return Err(property(format!("{name} must not be empty")));
    }
    at_most(name, text, most)
}

/// A text of at most `most` characters.
pub(super) fn at_most(name: &str, text: &str, most: usize) -> Result<String, Refusal> {
    let length = text.chars().count();
    if length > most {
        return Err(property(format!("{name} has {length} characters, at most {most} are allowed")));
    }
    Ok(text.to_owned())
}

/// JSON text of a payload that cannot fail to be written.
pub(super) fn json<T: Serialize>(payload: &T) -> Result<String, Refusal> {
    to_json(payload).map_err(|text| Refusal::new(ErrorCode::InternalError, text))
}

/// JSON text of a payload; `Err` says why it cannot be written.
pub(super) fn to_json<T: Serialize>(payload: &T) -> Result<String, String> {
    serde_json::to_string(payload).map_err(|error| error.to_string())
}
