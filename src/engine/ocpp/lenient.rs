//! Reading JSON as real stations write it: numbers for strings, strings for numbers, one object for a list of one, times without a zone.
//!
//! What is optional and unusable is dropped and noted; what is required and unusable is a [`Refusal`].

use std::borrow::Cow;

use super::frame::{ErrorCode, cut};
use super::tree::{Field, Json};
use crate::engine::model::exchange::{ConnectorStatus, StationRequest};
use crate::engine::model::ids::IdToken;
use crate::engine::time::Utc;

/// The longest text that is kept of a field, in characters: the longest string of the specifications has 500 outside of certificates, and a
/// field of the size of a frame has no place in a journal.
const MAX_TEXT_CHARS: usize = 500;

/// The longest token or transaction id, in characters. The schemas say 20 and 36; a real one that is longer must not cost the transaction,
/// but it must be whole or it is another one.
const MAX_ID_CHARS: usize = 255;

/// How many notes are kept of one message: more say nothing new.
const MAX_NOTES: usize = 8;

/// How many characters of an unusable value are shown in a note.
const SHOWN_CHARS: usize = 40;

/// Why a CALL cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The code of the CALLERROR.
    pub(super) code: ErrorCode,
    /// What is wrong.
    pub(super) text: String,
}

impl Refusal {
    pub(super) fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    fn missing(name: &str) -> Self {
        Self::new(ErrorCode::OccurrenceConstraintViolation, format!("{name} is required"))
    }

    fn wrong(name: &str, value: &Json<'_>, wanted: &str) -> Self {
        Self::new(ErrorCode::TypeConstraintViolation, format!("{name} is {}, not {wanted}", shown(value)))
    }
}

/// What was dropped from a message that was otherwise used.
#[derive(Debug, Default)]
pub(super) struct Notes {
    kept: Vec<String>,
    more: usize,
}

impl Notes {
    /// Remembers one thing that was dropped or replaced.
    pub(super) fn add(&mut self, text: String) {
        if self.kept.len() < MAX_NOTES {
            self.kept.push(text);
        } else {
            self.more += 1;
        }
    }

    /// All of it in one sentence; `None` if nothing was dropped.
    pub(super) fn summary(&self) -> Option<String> {
        if self.kept.is_empty() {
            return None;
        }
        let mut text = self.kept.join("; ");
        if self.more > 0 {
            text.push_str(&format!("; and {} more", self.more));
        }
        Some(text)
    }
}

/// A JSON object whose fields are read with patience.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(&'a [Field<'a>]);

impl<'a> Fields<'a> {
    /// The fields of an object; an array of one object counts as that object.
    pub(super) fn of(value: &'a Json<'a>) -> Option<Self> {
        match value {
            Json::Object(fields) => Some(Self(fields)),
            Json::List(items) => match items.as_slice() {
                [Json::Object(fields)] => Some(Self(fields)),
                _ => None,
            },
            Json::Null | Json::Bool(_) | Json::Whole(_) | Json::Number(_) | Json::Text(_) => None,
        }
    }

    /// A field as it is; `null` is no value. Of a field that is there twice the last one counts.
    pub(super) fn get(self, name: &str) -> Option<&'a Json<'a>> {
        let (_, value) = self.0.iter().rev().find(|(key, _)| key == name)?;
        (*value != Json::Null).then_some(value)
    }

    /// An optional text; a number or a truth value becomes its text, an empty text is none.
    pub(super) fn text(self, name: &str, notes: &mut Notes) -> Option<String> {
        self.word(name, notes).map(Cow::into_owned)
    }

    /// The same, to be looked at and not kept.
    pub(super) fn word(self, name: &str, notes: &mut Notes) -> Option<Cow<'a, str>> {
        let value = self.get(name)?;
        let text = text_of(value);
        if text.is_none() {
            notes.add(format!("{name} is {}, not a text", shown(value)));
        }
        let text = match text? {
            Cow::Borrowed(text) => Cow::Borrowed(cut(text.trim(), MAX_TEXT_CHARS)),
            Cow::Owned(text) => Cow::Owned(cut(text.trim(), MAX_TEXT_CHARS).to_owned()),
        };
        Some(text).filter(|text| !text.is_empty())
    }

    /// A required name (token, transaction): kept whole or refused.
    pub(super) fn need_name(self, name: &str) -> Result<String, Refusal> {
        let value = self.get(name).ok_or_else(|| Refusal::missing(name))?;
        let text = text_of(value).ok_or_else(|| Refusal::wrong(name, value, "a text"))?;
        let text = text.trim();
        if text.chars().count() > MAX_ID_CHARS {
            let text = format!("{name} has more than {MAX_ID_CHARS} characters");
            return Err(Refusal::new(ErrorCode::PropertyConstraintViolation, text));
        }
        Ok(text.to_owned())
    }

    /// An optional token; an unusable one is noted.
    pub(super) fn token(self, name: &str, notes: &mut Notes) -> Option<IdToken> {
        self.get(name)?;
        match self.need_name(name) {
            Ok(text) if text.is_empty() => None,
            Ok(text) => Some(IdToken::new(&text)),
            Err(refusal) => {
                notes.add(refusal.text);
                None
            }
        }
    }

    /// An optional whole number; texts and fractions are read and rounded.
    pub(super) fn int(self, name: &str, notes: &mut Notes) -> Option<i64> {
        let value = self.get(name)?;
        let number = Decimal::of(value).and_then(|number| number.scaled(0));
        if number.is_none() {
            notes.add(format!("{name} is {}, not a number", shown(value)));
        }
        number
    }

    /// A required whole number.
    pub(super) fn need_int(self, name: &str) -> Result<i64, Refusal> {
        let value = self.get(name).ok_or_else(|| Refusal::missing(name))?;
        Decimal::of(value)
            .and_then(|number| number.scaled(0))
            .ok_or_else(|| Refusal::wrong(name, value, "a whole number"))
    }

    /// A required number of an EVSE or connector.
    pub(super) fn need_number(self, name: &str) -> Result<u32, Refusal> {
        let number = self.need_int(name)?;
        u32::try_from(number).map_err(|_| {
            Refusal::new(ErrorCode::PropertyConstraintViolation, format!("{name} is {number}, not 0 or more"))
        })
    }

    /// An optional number of an EVSE or connector.
    pub(super) fn number(self, name: &str, notes: &mut Notes) -> Option<u32> {
        let number = self.int(name, notes)?;
        let small = u32::try_from(number).ok();
        if small.is_none() {
            notes.add(format!("{name} is {number}, not 0 or more"));
        }
        small
    }

    /// An optional time.
    pub(super) fn time(self, name: &str, notes: &mut Notes) -> Option<Utc> {
        let value = self.get(name)?;
        let time = value.as_str().and_then(Utc::parse);
        if time.is_none() {
            notes.add(format!("{name} is {}, not a time like 2026-03-01T12:00:00Z", shown(value)));
        }
        time
    }

    /// The time of a message that must not be lost: without a usable one it happened `now`.
    pub(super) fn time_or(self, name: &str, now: Utc, notes: &mut Notes) -> Utc {
        if self.get(name).is_none() {
            notes.add(format!("{name} is missing"));
        }
        self.time(name, notes).unwrap_or(now)
    }

    /// An optional truth value; anything that is none is false.
    pub(super) fn flag(self, name: &str) -> bool {
        match self.get(name) {
            Some(Json::Bool(flag)) => *flag,
            Some(Json::Text(text)) => text.eq_ignore_ascii_case("true"),
            Some(Json::Null | Json::Whole(_) | Json::Number(_) | Json::List(_) | Json::Object(_)) | None => false,
        }
    }

    /// An optional object.
    pub(super) fn object(self, name: &str, notes: &mut Notes) -> Option<Self> {
        let value = self.get(name)?;
        let fields = Self::of(value);
        if fields.is_none() {
            notes.add(format!("{name} is {}, not an object", shown(value)));
        }
        fields
    }

    /// A required object.
    pub(super) fn need_object(self, name: &str) -> Result<Self, Refusal> {
        let value = self.get(name).ok_or_else(|| Refusal::missing(name))?;
        Self::of(value).ok_or_else(|| Refusal::wrong(name, value, "an object"))
    }

    /// A list; one object stands for a list of one (a Huawei station does so), nothing for an empty one.
    pub(super) fn list(self, name: &str, notes: &mut Notes) -> &'a [Json<'a>] {
        match self.get(name) {
            Some(Json::List(items)) => items,
            Some(value @ Json::Object(_)) => std::slice::from_ref(value),
            Some(value @ (Json::Null | Json::Bool(_) | Json::Whole(_) | Json::Number(_) | Json::Text(_))) => {
                notes.add(format!("{name} is {}, not a list", shown(value)));
                &[]
            }
            None => &[],
        }
    }
}

/// How much of a message that is only taken note of goes to the log, in characters.
const MAX_SUMMARY_CHARS: usize = 200;

/// A message that is only taken note of.
pub(super) fn notify(action: &str, payload: &Json<'_>) -> StationRequest {
    let text = payload.to_string();
    let start = cut(&text, MAX_SUMMARY_CHARS);
    let summary = if start.len() < text.len() { format!("{start}…") } else { text };
    StationRequest::Notify { action: action.to_owned(), summary }
}

/// Reads a connector's status of any OCPP version, without regard to case.
pub(super) fn connector_status(text: &str) -> Option<ConnectorStatus> {
    Some(match text.to_ascii_lowercase().as_str() {
        "available" => ConnectorStatus::Available,
        "preparing" => ConnectorStatus::Preparing,
        "charging" => ConnectorStatus::Charging,
        "suspendedev" => ConnectorStatus::SuspendedEv,
        "suspendedevse" => ConnectorStatus::SuspendedEvse,
        "finishing" => ConnectorStatus::Finishing,
        "reserved" => ConnectorStatus::Reserved,
        "unavailable" => ConnectorStatus::Unavailable,
        "faulted" => ConnectorStatus::Faulted,
        "occupied" => ConnectorStatus::Occupied,
        _ => return None,
    })
}

fn text_of<'a>(value: &'a Json<'_>) -> Option<Cow<'a, str>> {
    match value {
        Json::Text(text) => Some(Cow::Borrowed(text)),
        Json::Number(text) => Some(Cow::Borrowed(text)),
        Json::Whole(number) => Some(Cow::Owned(number.to_string())),
        Json::Bool(flag) => Some(Cow::Borrowed(if *flag { "true" } else { "false" })),
        Json::Null | Json::List(_) | Json::Object(_) => None,
    }
}

/// The beginning of a value's JSON text.
pub(super) fn shown(value: &Json<'_>) -> String {
    let text = value.to_string();
    let start = cut(&text, SHOWN_CHARS);
    if start.len() < text.len() { format!("{start}…") } else { text }
}

/// A decimal number, exactly as it was written: `digits * 10^exponent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    digits: i128,
    exponent: i32,
}

impl Decimal {
    /// How many digits are kept; more are far below what any meter resolves.
    const MAX_DIGITS: usize = 30;

    /// The number in a JSON number or text.
    pub(super) fn of(value: &Json<'_>) -> Option<Self> {
        match value {
            Json::Whole(number) => Some(Self { digits: i128::from(*number), exponent: 0 }),
            Json::Number(text) => Self::parse(text),
            Json::Text(text) => Self::parse(text),
            Json::Null | Json::Bool(_) | Json::List(_) | Json::Object(_) => None,
        }
    }

    /// Reads `-12.5`, `1e3`, and `16,5` of stations that write numbers in their own language.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i16>().ok()?),
            None => (text, 0),
        };
        let (negative, mantissa) = match mantissa.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
        };
        let (whole, fraction) = mantissa.split_once(['.', ',']).unwrap_or((mantissa, ""));
        if whole.is_empty() && fraction.is_empty() || whole.len() > 2 * Self::MAX_DIGITS {
            return None;
        }
        let mut number = Self { digits: 0, exponent: i32::from(exponent) };
        let mut taken = 0;
        let places = whole.chars().map(|digit| (digit, false)).chain(fraction.chars().map(|digit| (digit, true)));
        for (digit, after_the_point) in places {
            let digit = digit.to_digit(10)?;
            if taken < Self::MAX_DIGITS {
                number.digits = number.digits * 10 + i128::from(digit);
                number.exponent -= i32::from(after_the_point);
                taken += usize::from(number.digits != 0);
            } else {
                number.exponent += i32::from(!after_the_point);
            }
        }
        if negative {
            number.digits = -number.digits;
        }
        Some(number)
    }

    /// The number times `10^shift`, rounded to the nearest whole one, halves away from zero. `None` where it does not fit.
    pub(super) fn scaled(self, shift: i32) -> Option<i64> {
        let exponent = self.exponent.checked_add(shift)?;
        if self.digits == 0 {
            return Some(0);
        }
        let power = exponent.unsigned_abs();
        if exponent >= 0 {
            let factor = 10_i128.checked_pow(power)?;
            return i64::try_from(self.digits.checked_mul(factor)?).ok();
        }
        let Some(divisor) = 10_i128.checked_pow(power) else { return Some(0) };
        let (quotient, rest) = (self.digits / divisor, (self.digits % divisor).abs());
        let up = if rest >= divisor - rest { self.digits.signum() } else { 0 };
        i64::try_from(quotient + up).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_and_round_to_the_nearest() {
        for (text, shift, expected) in [
            ("16.0", 3, Some(16_000)),
            ("16,25", 3, Some(16_250)),
            (" -0.0005 ", 3, Some(-1)),
            ("0.0004999", 3, Some(0)),
            ("1e3", 0, Some(1_000)),
            ("1E-3", 3, Some(1)),
            ("12345.678", 0, Some(12_346)),
            ("9223372036854775807", 0, Some(i64::MAX)),
            ("9223372036854775808", 0, None),
            ("1e30", 0, None),
            ("1e-30", 0, Some(0)),
            ("1e30000", 0, None),
            ("0e30000", 9, Some(0)),
            (".5", 0, Some(1)),
            ("0.3333333333333333333333333333333333333333333", 3, Some(333)),
        ] {
            assert_eq!(Decimal::parse(text).and_then(|number| number.scaled(shift)), expected, "{text}");
        }
        for text in ["", "-", ".", "NaN", "1.2.3", "0x10", "1e", "１６", "inf"] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_optional_and_unusable_is_dropped_and_noted() {
        let value: Json<'_> = serde_json::from_str(r#"{"a": {"b": 1}, "n": "7", "t": "soon", "e": null}"#).unwrap();
        let fields = Fields::of(&value).unwrap();
        let mut notes = Notes::default();
        assert_eq!(fields.text("a", &mut notes), None);
        assert_eq!(fields.int("n", &mut notes), Some(7));
        assert_eq!(fields.time("t", &mut notes), None);
        assert_eq!(fields.text("e", &mut notes), None);
        assert_eq!(
            notes.summary().unwrap(),
            r#"a is {"b":1}, not a text; t is "soon", not a time like 2026-03-01T12:00:00Z"#
        );
    }

    #[test]
    fn a_refusal_says_which_field_and_why() {
        let value: Json<'_> = serde_json::from_str(r#"{"connectorId": -1, "meterStart": "much"}"#).unwrap();
        let fields = Fields::of(&value).unwrap();
        assert_eq!(
            fields.need_number("connectorId").unwrap_err(),
            Refusal::new(ErrorCode::PropertyConstraintViolation, "connectorId is -1, not 0 or more")
        );
        assert_eq!(fields.need_int("meterStart").unwrap_err().code, ErrorCode::TypeConstraintViolation);
        assert_eq!(fields.need_name("idTag").unwrap_err().code, ErrorCode::OccurrenceConstraintViolation);
    }
}
