//! OCPP-J frames: `[2, id, action, payload]`, `[3, id, payload]`, `[4, id, code, description, details]`; from OCPP 2.1 on also
//! `[5, id, code, description, details]` and `[6, id, action, payload]`.

use serde_json::value::RawValue;

use crate::engine::model::exchange::OcppVersion;

/// The longest frame that is read, in bytes. The longest that stations have a use for are transaction data (a day of 15-minute samples of
/// twelve measurands is about 150 KiB) and parts of a report; anything longer is a fault or an attack, and a gateway has little memory.
pub const MAX_FRAME_BYTES: usize = 256 * 1024;

/// The longest message id, in characters (OCPP-J 1.6 §4.1.4, OCPP 2.0.1 part 4 §4.1.4).
const MAX_ID_CHARS: usize = 36;

/// The longest over-long id that is still repeated in a CALLERROR: a station should get its own id back, but not a page of it.
const MAX_ECHOED_ID_CHARS: usize = 255;

/// The longest error description, in characters (`string[255]` in all versions).
const MAX_DESCRIPTION_CHARS: usize = 255;

/// Why a CALL is answered with a CALLERROR. Each OCPP version has its own spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// The payload is not what the action's syntax asks for.
    FormatViolation,
    /// Anything that has no code of its own.
    GenericError,
    /// The receiver failed.
    InternalError,
    /// The message type number is not known (2.x only; `GenericError` in 1.6).
    MessageTypeNotSupported,
    /// The action is not known.
    NotImplemented,
    /// The action is known and not supported by this side.
    NotSupported,
    /// A required field is missing.
    OccurrenceConstraintViolation,
    /// A field has a value that it must not have.
    PropertyConstraintViolation,
    /// The payload is incomplete.
    ProtocolError,
    /// The frame is not a request (2.x only; `GenericError` in 1.6).
    RpcFrameworkError,
    /// Something may not be done for reasons of security.
    SecurityError,
    /// A field has the wrong type.
    TypeConstraintViolation,
}

impl ErrorCode {
    /// The code as it is written on the wire, with the spelling mistakes of OCPP 1.6 (OCPP-J 1.6 §4.2.3, 2.0.1 part 4 §4.3).
    #[must_use]
    pub const fn as_str(self, version: OcppVersion) -> &'static str {
        match (self, version) {
            (Self::FormatViolation, OcppVersion::V16) => "FormationViolation",
            (Self::FormatViolation, _) => "FormatViolation",
            (Self::GenericError, _) | (Self::MessageTypeNotSupported | Self::RpcFrameworkError, OcppVersion::V16) => {
                "GenericError"
            }
            (Self::InternalError, _) => "InternalError",
            (Self::MessageTypeNotSupported, _) => "MessageTypeNotSupported",
            (Self::NotImplemented, _) => "NotImplemented",
            (Self::NotSupported, _) => "NotSupported",
            (Self::OccurrenceConstraintViolation, OcppVersion::V16) => "OccurenceConstraintViolation",
            (Self::OccurrenceConstraintViolation, _) => "OccurrenceConstraintViolation",
            (Self::PropertyConstraintViolation, _) => "PropertyConstraintViolation",
            (Self::ProtocolError, _) => "ProtocolError",
            (Self::RpcFrameworkError, _) => "RpcFrameworkError",
            (Self::SecurityError, _) => "SecurityError",
            (Self::TypeConstraintViolation, _) => "TypeConstraintViolation",
        }
    }
}

/// The id of a CALL of the station, as JSON text: it goes back as it came, also where a station writes a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IdJson(String);

impl IdJson {
    /// The id that stands for one which could not be read (OCPP 2.0.1 part 4 §4.2.3).
    fn unreadable() -> Self {
        Self("\"-1\"".to_owned())
    }
}

/// A frame of the station.
#[derive(Debug)]
pub(super) enum Frame<'a> {
    /// A CALL.
    Call { id: IdJson, action: String, payload: &'a str },
    /// A CALLRESULT.
    Result { id: String, payload: &'a str },
    /// A CALLERROR.
    Error { id: String, code: String, description: String },
    /// A CALLRESULTERROR (OCPP 2.1 part 4): an answer of ours was of no use to the station. It is not answered.
    ResultError { id: String, code: String, description: String },
    /// A SEND (OCPP 2.1 part 4): a CALL that is not answered.
    Send { action: String, payload: &'a str },
}

/// A text that is no frame.
#[derive(Debug)]
pub(super) struct BadFrame {
    /// What is wrong with it.
    pub(super) text: String,
    /// What to answer, if it can be answered.
    pub(super) answer: Option<(IdJson, ErrorCode)>,
    /// It is well-formed and of a kind that is not known here, as later versions have: it says nothing against the connection.
    pub(super) of_later_version: bool,
}

impl BadFrame {
    fn new(text: impl Into<String>, answer: Option<(IdJson, ErrorCode)>) -> Self {
        Self { text: text.into(), answer, of_later_version: false }
    }
}

/// Reads a frame.
pub(super) fn parse(text: &str, version: OcppVersion) -> Result<Frame<'_>, BadFrame> {
    let parts: Vec<&RawValue> = match serde_json::from_str(text) {
        Ok(parts) => parts,
        Err(error) => return Err(no_array(text, &error, version)),
    };
    let Some(kind) = parts.first() else {
        return Err(BadFrame::new("an empty array is no OCPP message", without_id(version)));
    };
    match kind.get() {
        "2" => call(&parts, version),
        "6" if version == OcppVersion::V21 => send(&parts),
        "5" if version == OcppVersion::V21 => {
            let (id, code, description) = error(&parts)?;
            Ok(Frame::ResultError { id, code, description })
        }
        "3" => Ok(Frame::Result { id: reply_id(&parts)?, payload: parts.get(2).map_or("{}", |part| part.get()) }),
        "4" => {
            let (id, code, description) = error(&parts)?;
            Ok(Frame::Error { id, code, description })
        }
        other => {
            let answer = match version {
                // OCPP-J 1.6 §4.1.3: a message with an unknown type number SHALL be ignored.
                OcppVersion::V16 => None,
                OcppVersion::V201 | OcppVersion::V21 => Some((
                    parts.get(1).and_then(|id| call_id(id).ok()).unwrap_or_else(IdJson::unreadable),
                    ErrorCode::MessageTypeNotSupported,
                )),
            };
            let of_later_version = other.parse::<u32>().is_ok_and(|number| number > 4);
            let text = format!("message type {} is not known here", cut(other, 40));
            Err(BadFrame { of_later_version, ..BadFrame::new(text, answer) })
        }
    }
}

/// Id, code and description of a CALLERROR or CALLRESULTERROR.
fn error(parts: &[&RawValue]) -> Result<(String, String, String), BadFrame> {
    let text = |index: usize| parts.get(index).and_then(|part| text_of(part));
    let code = text(2).unwrap_or_else(|| "GenericError".to_owned());
    Ok((reply_id(parts)?, code, text(3).unwrap_or_default()))
}

/// Nobody waits for an answer to a SEND, so that its id is of no use.
fn send<'a>(parts: &[&'a RawValue]) -> Result<Frame<'a>, BadFrame> {
    let action = parts.get(2).and_then(|part| text_of(part)).filter(|action| !action.is_empty());
    let action = action.ok_or_else(|| BadFrame::new("the SEND names no action", None))?;
    Ok(Frame::Send { action, payload: parts.get(3).map_or("{}", |part| part.get()) })
}

fn no_array(text: &str, error: &serde_json::Error, version: OcppVersion) -> BadFrame {
    let problem = if serde_json::from_str::<&RawValue>(text).is_ok() {
        "the message is JSON, but not an array".to_owned()
    } else {
        format!("the message is not JSON: {error}")
    };
    // An error is never answered with an error, or two sides could do so for ever.
    let start = text.trim_start().trim_start_matches('[').trim_start();
    let answers_us = ['3', '4', '5'].into_iter().any(|kind| start.starts_with(kind));
    BadFrame::new(problem, if answers_us { None } else { without_id(version) })
}

/// What to answer to a request without a usable id: 1.6 knows no such answer.
fn without_id(version: OcppVersion) -> Option<(IdJson, ErrorCode)> {
    match version {
        OcppVersion::V16 => None,
        OcppVersion::V201 | OcppVersion::V21 => Some((IdJson::unreadable(), ErrorCode::RpcFrameworkError)),
    }
}

/// The id, the action and the payload of a CALL that is written as nearly all are: without spaces, and without escapes in its names. It is a CALL if
/// the payload is JSON, which is left to whoever reads it; `None`: [`parse`] knows.
pub(super) fn plain_call(text: &str) -> Option<(IdJson, &str, &str)> {
    let is_plain = |name: &&str| !name.is_empty() && name.bytes().all(|byte| byte >= b' ' && byte != b'\\');
    let (id, rest) = text.strip_prefix("[2,\"")?.split_once("\",\"")?;
    let (action, rest) = rest.split_once("\",")?;
    let payload = rest.strip_suffix(']').filter(|payload| payload.starts_with('{'))?;
    let fits = is_plain(&id) && is_plain(&action) && !id.contains('"') && !action.contains('"');
    (fits && id.len() <= MAX_ID_CHARS).then(|| (IdJson(format!("\"{id}\"")), action, payload))
}

fn call<'a>(parts: &[&'a RawValue], version: OcppVersion) -> Result<Frame<'a>, BadFrame> {
    let id = match parts.get(1).map(|id| call_id(id)) {
        Some(Ok(id)) => id,
        Some(Err(Some(id))) => {
            let text = format!("the message id has more than {MAX_ID_CHARS} characters");
            let code = match version {
                OcppVersion::V16 => ErrorCode::FormatViolation,
                OcppVersion::V201 | OcppVersion::V21 => ErrorCode::RpcFrameworkError,
            };
            return Err(BadFrame::new(text, Some((id, code))));
        }
        Some(Err(None)) | None => {
            return Err(BadFrame::new("the CALL has no usable message id", without_id(version)));
        }
    };
    let Some(action) = parts.get(2).and_then(|part| text_of(part)).filter(|action| !action.is_empty()) else {
        return Err(BadFrame::new("the CALL names no action", Some((id, ErrorCode::FormatViolation))));
    };
    // A missing payload means an empty one: some stations leave it out of a Heartbeat.
    let payload = parts.get(3).map_or("{}", |part| if part.get() == "null" { "{}" } else { part.get() });
    Ok(Frame::Call { id, action, payload })
}

/// The id of a CALL; `Err(Some(id))` for one that is too long, `Err(None)` for one that cannot be repeated.
fn call_id(raw: &RawValue) -> Result<IdJson, Option<IdJson>> {
    let Some(text) = id_text(raw) else { return Err(None) };
    let id = IdJson(raw.get().to_owned());
    match text.chars().count() {
        0 => Err(None),
        1..=MAX_ID_CHARS => Ok(id),
        length if length <= MAX_ECHOED_ID_CHARS => Err(Some(id)),
        _ => Err(None),
    }
}

/// The id of a CALLRESULT or CALLERROR. Without one nothing can be done, and nothing may be answered.
fn reply_id(parts: &[&RawValue]) -> Result<String, BadFrame> {
    parts.get(1).and_then(|raw| id_text(raw)).ok_or_else(|| BadFrame::new("the answer has no usable message id", None))
}

/// An id as text; a number counts, since some stations write one.
fn id_text(raw: &RawValue) -> Option<String> {
    text_of(raw).or_else(|| serde_json::from_str::<i64>(raw.get()).ok().map(|number| number.to_string()))
}

fn text_of(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// Writes a CALL. `payload` is JSON text.
pub(super) fn write_call(id: &str, action: &str, payload: &str) -> String {
    format!("[2,{},{},{payload}]", quoted(id), quoted(action))
}

/// Writes a CALLRESULT. `payload` is JSON text.
pub(super) fn write_result(id: &IdJson, payload: &str) -> String {
    format!("[3,{},{payload}]", id.0)
}

/// Writes a CALLERROR.
pub(super) fn write_error(id: &IdJson, code: ErrorCode, description: &str, version: OcppVersion) -> String {
    format!("[4,{},\"{}\",{},{{}}]", id.0, code.as_str(version), quoted(cut(description, MAX_DESCRIPTION_CHARS)))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The first `chars` characters of a text.
pub(super) fn cut(text: &str, chars: usize) -> &str {
    if text.len() <= chars {
        return text;
    }
    text.char_indices().nth(chars).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("Säule", 2), "Sä");
        assert_eq!(cut("Säule", 99), "Säule");
    }

    #[test]
    fn frames_are_compact_and_escaped() {
        assert_eq!(write_call("a-1", "Reset", r#"{"type":"Soft"}"#), r#"[2,"a-1","Reset",{"type":"Soft"}]"#);
        let id = IdJson("\"1\"".to_owned());
        assert_eq!(
            write_error(&id, ErrorCode::FormatViolation, "no \"x\"\n", OcppVersion::V16),
            r#"[4,"1","FormationViolation","no \"x\"\n",{}]"#
        );
    }

    #[test]
    fn a_plain_call_is_what_is_read_of_any() {
        for text in [r#"[2,"17","Heartbeat",{}]"#, r#"[2,"é","A",{"a":["]"]}]"#] {
            let (id, action, payload) = plain_call(text).expect("plain");
            let Ok(Frame::Call { id: same_id, action: same_action, payload: same_payload }) =
                parse(text, OcppVersion::V16)
            else {
                panic!("not read as a CALL: {text}");
            };
            assert_eq!((id, action, payload), (same_id, same_action.as_str(), same_payload));
        }
        for text in [
            r#"[2,17,"Heartbeat",{}]"#,
            r#"[2, "17","Heartbeat",{}]"#,
            r#"[2,"17","Heartbeat"]"#,
            r#"[2,"17","Heartbeat",null]"#,
            r#"[2,"","Heartbeat",{}]"#,
            r#"[2,"1\"","Heartbeat",{}]"#,
            r#"[2,"1","",{}]"#,
            r#"[2,"1" ,"A","B",{}]"#,
            r#"[3,"17",{}]"#,
        ] {
            assert!(plain_call(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_numeric_id_comes_back_as_a_number() {
        let Ok(Frame::Call { id, action, payload }) = parse(r#"[2, 17, "Heartbeat"]"#, OcppVersion::V16) else {
            panic!("not read as a CALL");
        };
        assert_eq!((action.as_str(), payload), ("Heartbeat", "{}"));
        assert_eq!(write_result(&id, "{}"), "[3,17,{}]");
    }
}
