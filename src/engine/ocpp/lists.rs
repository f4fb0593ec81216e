//! Local lists on the wire: `SendLocalList` of each version, and what stations say of theirs.

use rust_ocpp::v2_0_1::datatypes as data;
use rust_ocpp::v2_0_1::enumerations as kind;
use serde::Serialize;
use serde_json::Value;

use super::lenient::{Decimal, Fields, Refusal};
use super::outgoing::{bounded, json};
use super::tree::Json;
use super::{v16, v201};
use crate::engine::model::exchange::OcppVersion;
use crate::engine::model::local_list::{ListLimits, ListUpdate};

/// The keys of OCPP 1.6 that say what a station takes.
const KEYS_16: [&str; 4] =
    ["SupportedFeatureProfiles", "LocalAuthListEnabled", "LocalAuthListMaxLength", "SendLocalListMaxLength"];
/// The same of OCPP 2.x. How many entries fit is in no variable that can be asked for by itself (it is the `maxLimit` of `Entries`).
const KEYS_201: [&str; 4] = [
    "LocalAuthListCtrlr.Available",
    "LocalAuthListCtrlr.Enabled",
    "LocalAuthListCtrlr.ItemsPerMessage",
    "LocalAuthListCtrlr.BytesPerMessage",
];

/// The longest idTag (CiString20Type).
const MAX_ID_TAG_CHARS: usize = 20;
/// The longest idToken (`identifierString[36]`).
const MAX_IDENTIFIER_CHARS: usize = 36;

/// How many characters a token of that version may have.
#[must_use]
pub const fn longest_token(version: OcppVersion) -> usize {
    match version {
        OcppVersion::V16 => MAX_ID_TAG_CHARS,
        OcppVersion::V201 | OcppVersion::V21 => MAX_IDENTIFIER_CHARS,
    }
}

/// What to ask a station for, to read it with [`list_limits`].
#[must_use]
pub fn list_keys(version: OcppVersion) -> Vec<String> {
    let keys = match version {
        OcppVersion::V16 => KEYS_16,
        OcppVersion::V201 | OcppVersion::V21 => KEYS_201,
    };
    keys.iter().map(|key| (*key).to_owned()).collect()
}

/// Which settings make a station use its list while it is cut off.
#[must_use]
pub const fn list_settings(version: OcppVersion) -> [&'static str; 2] {
    match version {
        OcppVersion::V16 => ["LocalAuthListEnabled", "LocalAuthorizeOffline"],
        OcppVersion::V201 | OcppVersion::V21 => ["LocalAuthListCtrlr.Enabled", "AuthCtrlr.LocalAuthorizeOffline"],
    }
}

/// What a station says it takes, from its answer to the question for [`list_keys`]; `None`: it has no local list.
#[must_use]
pub fn list_limits(version: OcppVersion, payload: &str) -> Option<ListLimits> {
    let payload: Value = serde_json::from_str(payload).ok()?;
    let [has, enabled, first, second] = match version {
        OcppVersion::V16 => KEYS_16.map(|key| value_16(&payload, key)),
        OcppVersion::V201 | OcppVersion::V21 => KEYS_201.map(|key| value_201(&payload, key)),
    };
    let number = |text: Option<&str>| {
        let number = text.and_then(Decimal::parse).and_then(|number| number.scaled(0));
        number.and_then(|number| usize::try_from(number).ok()).filter(|number| *number > 0)
    };
    let flag = |text: Option<&str>| text.map(|text| text.trim().eq_ignore_ascii_case("true"));
    let enabled = flag(enabled);
    match version {
        OcppVersion::V16 => {
            let named = has.is_some_and(|has| has.split(',').any(|one| one.trim() == "LocalAuthListManagement"));
            let (most, items) = (number(first), number(second));
            (named || most.is_some()).then_some(ListLimits { enabled, most, items, bytes: None })
        }
        OcppVersion::V201 | OcppVersion::V21 => {
            let (items, bytes) = (number(first), number(second));
            let available = flag(has).unwrap_or(items.is_some());
            available.then_some(ListLimits { enabled, most: None, items, bytes })
        }
    }
}

fn value_16<'a>(payload: &'a Value, key: &str) -> Option<&'a str> {
    let entries = payload.get("configurationKey")?.as_array()?;
    entries.iter().find(|entry| entry.get("key").and_then(Value::as_str) == Some(key))?.get("value")?.as_str()
}

fn value_201<'a>(payload: &'a Value, key: &str) -> Option<&'a str> {
    let (component, variable) = key.split_once('.')?;
    let named = |entry: &Value, part: &str, name: &str| {
        entry.get(part).and_then(|part| part.get("name")).and_then(Value::as_str) == Some(name)
    };
    let results = payload.get("getVariableResult")?.as_array()?;
    let found = results.iter().find(|entry| named(entry, "component", component) && named(entry, "variable", variable));
    let found = found.filter(|entry| entry.get("attributeStatus").and_then(Value::as_str) == Some("Accepted"))?;
    found.get("attributeValue")?.as_str()
}

/// The version of its list that a station names, from its answer to `GetLocalListVersion`. 0: it has none yet; below it: it has no list at all.
#[must_use]
pub fn list_version(payload: &str) -> Option<i64> {
    let payload: Json<'_> = serde_json::from_str(payload).ok()?;
    let fields = Fields::of(&payload)?;
    let number = fields.get("listVersion").or_else(|| fields.get("versionNumber"))?;
    Decimal::of(number)?.scaled(0)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Send16 {
    list_version: i32,
    update_type: &'static str,
    local_authorization_list: Vec<Entry16>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry16 {
    id_tag: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id_tag_info: Option<v16::IdTagInfo>,
}

/// The payload of an OCPP 1.6 `SendLocalList`.
pub(super) fn send_16(update: &ListUpdate) -> Result<String, Refusal> {
    let mut list = Vec::with_capacity(update.entries.len());
    for entry in &update.entries {
        let id_tag = bounded("idTag", entry.token.as_str(), MAX_ID_TAG_CHARS)?;
        list.push(Entry16 { id_tag, id_tag_info: entry.admission.as_ref().map(v16::IdTagInfo::of) });
    }
    let (list_version, update_type) = (update.version, kind_of(update));
    json(&Send16 { list_version, update_type, local_authorization_list: list })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Send201 {
    version_number: i32,
    update_type: &'static str,
    /// One that is there has an entry at least: without it the list is emptied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    local_authorization_list: Vec<Entry201>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry201 {
    id_token: data::id_token_type::IdTokenType,
    #[serde(skip_serializing_if = "Option::is_none")]
    id_token_info: Option<data::id_token_info_type::IdTokenInfoType>,
}

/// The payload of an OCPP 2.x `SendLocalList`.
pub(super) fn send_201(update: &ListUpdate) -> Result<String, Refusal> {
    let mut list = Vec::with_capacity(update.entries.len());
    for entry in &update.entries {
        let id_token = data::id_token_type::IdTokenType {
            id_token: bounded("idToken", entry.token.as_str(), MAX_IDENTIFIER_CHARS)?,
            kind: medium_of(entry.token.as_str()),
            additional_info: None,
        };
        list.push(Entry201 { id_token, id_token_info: entry.admission.as_ref().map(v201::id_token_info) });
    }
    let (version_number, update_type) = (update.version, kind_of(update));
    json(&Send201 { version_number, update_type, local_authorization_list: list })
}

const fn kind_of(update: &ListUpdate) -> &'static str {
    if update.full { "Full" } else { "Differential" }
}

/// OCPP 2.x keeps the medium of a token beside it, and stations compare both. Tokens are known here by their text alone, so that the medium is
/// found by its form: that of a card's number (4, 7 or 10 bytes), of an ISO 15693 card (8 bytes from E0 on), of an EMAID; any other
/// text comes from a back-end.
fn medium_of(token: &str) -> kind::id_token_enum_type::IdTokenEnumType {
    use kind::id_token_enum_type::IdTokenEnumType as Medium;
    let is_hex = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_hexdigit());
    match token.len() {
        16 if is_hex && token.get(..2).is_some_and(|first| first.eq_ignore_ascii_case("e0")) => Medium::ISO15693,
        8 | 14 | 20 if is_hex => Medium::ISO14443,
        _ if is_emaid(token) => Medium::EMAID,
        _ => Medium::Central,
    }
}

/// ISO 15118-1: country, provider, instance and perhaps a check digit, with or without separators.
fn is_emaid(token: &str) -> bool {
    let plain: Vec<u8> = token.bytes().filter(|byte| *byte != b'-').collect();
    let letters = plain.iter().take(2).all(u8::is_ascii_alphabetic);
    matches!(plain.len(), 14 | 15)
        && letters
        && plain.iter().all(u8::is_ascii_alphanumeric)
        && (token.contains('-') || plain.get(5).is_some_and(|byte| byte.eq_ignore_ascii_case(&b'C')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::model::exchange::{Admission, AuthorizationStatus};
    use crate::engine::model::ids::IdToken;
    use crate::engine::model::local_list::ListEntry;
    use crate::engine::time::Utc;

    fn update() -> ListUpdate {
        let admission = Admission {
            status: AuthorizationStatus::Accepted,
            group: Some("staff".to_owned()),
            expires: Some(Utc::from_unix_ms(1_772_366_400_000)),
        };
        let entry = |token: &str, admission| ListEntry { token: IdToken::new(token), admission };
        let entries = vec![
            entry("04A2B3C4", Some(admission)),
            entry("BAD", Some(AuthorizationStatus::Blocked.into())),
            entry("GONE", None),
        ];
        ListUpdate { version: 7, full: false, entries }
    }

    #[test]
    fn lists_are_written_as_each_schema_wants() {
        assert_eq!(
            send_16(&update()).unwrap(),
            r#"{"listVersion":7,"updateType":"Differential","localAuthorizationList":[{"idTag":"04A2B3C4","idTagInfo":{"expiryDate":"2026-03-01T12:00:00.000Z","parentIdTag":"staff","status":"Accepted"}},{"idTag":"BAD","idTagInfo":{"status":"Blocked"}},{"idTag":"GONE"}]}"#
        );
        let text = send_201(&update()).unwrap();
        let sent: Value = serde_json::from_str(&text).unwrap();
        let first = &sent["localAuthorizationList"][0];
        assert_eq!(first["idToken"], serde_json::json!({ "idToken": "04A2B3C4", "type": "ISO14443" }));
        assert_eq!(first["idTokenInfo"]["groupIdToken"], serde_json::json!({ "idToken": "staff", "type": "Central" }));
        assert_eq!(first["idTokenInfo"]["cacheExpiryDateTime"], "2026-03-01T12:00:00.000Z");
        assert_eq!(
            sent["localAuthorizationList"][2],
            serde_json::json!({ "idToken": { "idToken": "GONE", "type": "Central" } })
        );
        let empty = ListUpdate { version: 8, full: true, entries: Vec::new() };
        assert_eq!(send_201(&empty).unwrap(), r#"{"versionNumber":8,"updateType":"Full"}"#);
        assert_eq!(send_16(&empty).unwrap(), r#"{"listVersion":8,"updateType":"Full","localAuthorizationList":[]}"#);
    }

    #[test]
    fn the_medium_is_found_by_the_form_of_the_token() {
        for (token, expected) in [
            ("04A2B3C4", "ISO14443"),
            ("04a2b3c4d5e6f7", "ISO14443"),
            ("E004010203040506", "ISO15693"),
            ("1004010203040506", "Central"),
            ("DE-ABC-C12345678-X", "eMAID"),
            ("DEABCC12345678X", "eMAID"),
            ("ANNA", "Central"),
            ("", "Central"),
            ("é4A2B3C", "Central"),
        ] {
            assert_eq!(serde_json::to_value(medium_of(token)).unwrap(), expected, "{token}");
        }
    }

    #[test]
    fn what_a_station_takes_is_read_from_its_own_words() {
        let limits = |version, payload: &str| list_limits(version, payload);
        let whole = r#"{"configurationKey":[{"key":"SupportedFeatureProfiles","readonly":true,"value":"Core, LocalAuthListManagement"},
            {"key":"LocalAuthListEnabled","readonly":false,"value":"false"},{"key":"LocalAuthListMaxLength","readonly":true,"value":"48"},
            {"key":"SendLocalListMaxLength","readonly":true,"value":"10"}]}"#;
        let expected = ListLimits { enabled: Some(false), most: Some(48), items: Some(10), bytes: None };
        assert_eq!(limits(OcppVersion::V16, whole), Some(expected));
        let without = r#"{"configurationKey":[{"key":"SupportedFeatureProfiles","readonly":true,"value":"Core,SmartCharging"}],
            "unknownKey":["LocalAuthListMaxLength"]}"#;
        assert_eq!(limits(OcppVersion::V16, without), None);
        let variable = |name: &str, value: &str| {
            format!(
                r#"{{"attributeStatus":"Accepted","attributeValue":"{value}","component":{{"name":"LocalAuthListCtrlr"}},"variable":{{"name":"{name}"}}}}"#
            )
        };
        let found =
            [variable("Available", "true"), variable("ItemsPerMessage", "20"), variable("BytesPerMessage", "4000")];
        let later = format!(r#"{{"getVariableResult":[{}]}}"#, found.join(","));
        let expected = ListLimits { enabled: None, most: None, items: Some(20), bytes: Some(4_000) };
        assert_eq!(limits(OcppVersion::V201, &later), Some(expected));
        let unknown = later.replace("Accepted", "UnknownComponent");
        for nothing in [unknown.as_str(), "{}", "[]", "x"] {
            assert_eq!(limits(OcppVersion::V201, nothing), None, "{nothing}");
        }
    }

    #[test]
    fn versions_of_lists_are_read() {
        assert_eq!(list_version(r#"{"listVersion":-1}"#), Some(-1));
        assert_eq!(list_version(r#"{"versionNumber":417000064}"#), Some(417_000_064));
        assert_eq!(list_version(r#"{"listVersion":"3"}"#), Some(3));
        assert_eq!(list_version("{}"), None);
    }
}
