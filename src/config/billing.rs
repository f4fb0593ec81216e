//! `[billing]`, and what belongs to it in `[[chargers]]`: who sends charge detail records and from where.

use rust_decimal::Decimal;

use super::reader::{At, Section};
use super::schema::SiteConfig;
use crate::engine::billing::signature::Key;
use crate::engine::model::billing::{BillingSetup, ChargerBilling, Tolerance};
use crate::engine::model::cdr::{GeoLocation, Operator, Place};
use crate::engine::model::display::{CostTransfer, PLACEHOLDERS};
use crate::engine::model::ids::{SiteId, StationId};
use crate::engine::model::tariff::Tariff;
use crate::engine::units::Energy;

/// Digits after the point of a coordinate (OCPI 2.2.1, GeoLocation: 5 to 7).
const COORDINATE_DIGITS: u32 = 6;
/// The longest `evse_uid`, `<charger>-<evse>`.
const MAX_EVSE_UID: usize = 36;

/// A station's one call at a time is for limits: more often than this a cost is not told, in s.
const LEAST_BETWEEN_COSTS_S: i64 = 10;
/// Seldomer than this is not worth telling, in s.
const MOST_BETWEEN_COSTS_S: i64 = 3_600;

const CONNECTORS: [&str; 20] = [
    "IEC_62196_T2",
    "IEC_62196_T2_COMBO",
    "IEC_62196_T1",
    "IEC_62196_T1_COMBO",
    "IEC_62196_T3A",
    "IEC_62196_T3C",
    "CHADEMO",
    "CHAOJI",
    "GBT_AC",
    "GBT_DC",
    "TESLA_R",
    "TESLA_S",
    "DOMESTIC_E",
    "DOMESTIC_F",
    "DOMESTIC_G",
    "DOMESTIC_J",
    "IEC_60309_2_single_16",
    "IEC_60309_2_three_16",
    "IEC_60309_2_three_32",
    "IEC_60309_2_three_64",
];

/// Reads `[billing]`. What the chargers say is added later.
pub(super) fn billing(root: &Section<'_>, site: &SiteConfig, id: &SiteId) -> BillingSetup {
    let section = root.section("billing", "[billing]");
    let operator = operator(&section, site, id);
    let running_cost_s = running_cost(&section);
    let running_cost_transfer = transfer(&section);
    let tolerance = tolerance(&section);
    section.finish();
    BillingSetup { operator, running_cost_s, running_cost_transfer, tolerance, ..BillingSetup::default() }
}

/// How far registers, transactions and meters may be apart in a day.
fn tolerance(section: &Section<'_>) -> Tolerance {
    let default = Tolerance::default();
    let percent = section.thousandths("tolerance_percent", 0..=50_000);
    let kwh = section.thousandths("tolerance_kwh", 0..=1_000_000);
    Tolerance {
        energy: kwh.map_or(default.energy, |kwh| Energy::from_wh(i64::from(kwh.value))),
        permille: percent.and_then(|percent| u16::try_from(percent.value / 100).ok()).unwrap_or(default.permille),
    }
}

/// How often stations are told what a transaction costs; 0 is never.
fn running_cost(section: &Section<'_>) -> Option<u32> {
    let every = section.integer("running_cost_s", 0..=MOST_BETWEEN_COSTS_S)?;
    if (1..LEAST_BETWEEN_COSTS_S).contains(&every.value) {
        let message = format!(
            "`running_cost_s` is {}, and must be {LEAST_BETWEEN_COSTS_S} to {MOST_BETWEEN_COSTS_S}, or 0 for never",
            every.value
        );
        section.document.error(every.at, message);
    }
    u32::try_from(every.value).ok().filter(|seconds| *seconds > 0)
}

/// How an OCPP 1.6 station is told.
fn transfer(section: &Section<'_>) -> Option<CostTransfer> {
    if !section.has("running_cost_transfer") {
        return None;
    }
    let table = section.section("running_cost_transfer", "[billing.running_cost_transfer]");
    table.require("vendor", "\"org.openchargealliance.costmsg\"");
    let vendor = bounded(&table, "vendor", 255);
    let message = bounded(&table, "message", 50);
    let last = bounded(&table, "final_message", 50);
    let data = bounded(&table, "data", 500);
    if let (Some(data), Some((at, _))) = (&data, table.raw("data"))
        && let Some(unknown) = unknown_placeholder(data)
    {
        let message = format!("`data` has {unknown:?}; what can be filled in is {}", PLACEHOLDERS.join(", "));
        section.document.error(at, message);
    }
    table.finish();
    Some(CostTransfer {
        vendor: vendor?,
        running: message.unwrap_or_else(|| "RunningCost".to_owned()),
        last: last.unwrap_or_else(|| "FinalCost".to_owned()),
        data,
    })
}

/// The first `{word}` of a text that is none of those that can be filled in. Other braces are the text's own.
fn unknown_placeholder(text: &str) -> Option<String> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('{') {
        let word: String = after.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
        let placeholder = format!("{{{word}}}");
        let is_closed = !word.is_empty() && after[word.len()..].starts_with('}');
        if is_closed && !PLACEHOLDERS.contains(&placeholder.as_str()) {
            return Some(placeholder);
        }
        rest = after;
    }
    None
}

fn operator(section: &Section<'_>, site: &SiteConfig, id: &SiteId) -> Option<Operator> {
    const KEYS: [(&str, &str); 7] = [
        ("country_code", "\"DE\""),
        ("party_id", "\"ABC\""),
        ("address", "\"Hafenstr. 5\""),
        ("city", "\"Bremen\""),
        ("country", "\"DEU\""),
        ("latitude", "\"53.07929\""),
        ("longitude", "\"8.80169\""),
    ];
    let optional = ["location_id", "postal_code", "state"];
    let wanted = KEYS.iter().any(|(key, _)| section.has(key)) | optional.iter().any(|key| section.has(key));
    if !wanted {
        return None;
    }
    for (key, example) in KEYS {
        section.require(key, example);
    }
    let country_code =
        code(section, "country_code", (2, "ISO 3166-1, two letters, such as \"DE\""), u8::is_ascii_uppercase);
    let alphanumeric = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    let party_id = code(section, "party_id", (3, "ISO 15118, three characters, such as \"ABC\""), alphanumeric);
    let country = code(section, "country", (3, "ISO 3166-1, three letters, such as \"DEU\""), u8::is_ascii_uppercase);
    let address = bounded(section, "address", 45);
    let city = bounded(section, "city", 45);
    let latitude = coordinate(section, "latitude", 90);
    let longitude = coordinate(section, "longitude", 180);
    let postal_code = bounded(section, "postal_code", 10);
    let state = bounded(section, "state", 20);
    let location = section.text("location_id");
    let location = location.unwrap_or_else(|| At { at: section.at, value: id.to_string() });
    if !is_ci_string(&location.value, MAX_EVSE_UID) {
        let message =
            format!("`location_id` is {:?}, and must have 1 to 36 characters of printable ASCII", location.value);
        section.document.error(location.at, message);
    }
    Some(Operator {
        country_code: country_code?,
        party_id: party_id?,
        location: Place {
            id: location.value,
            name: Some(site.name.chars().take(255).collect()),
            address: address?,
            city: city?,
            postal_code,
            state,
            country: country?,
            coordinates: GeoLocation { latitude: latitude?, longitude: longitude? },
        },
    })
}

fn code(
    section: &Section<'_>,
    key: &'static str,
    (length, what): (usize, &str),
    is_good: impl Fn(&u8) -> bool,
) -> Option<String> {
    let text = section.text(key)?;
    let good = text.value.len() == length && text.value.as_bytes().iter().all(is_good);
    if !good {
        section.document.error(text.at, format!("`{key}` is {:?}, and must be a code of {what}", text.value));
    }
    good.then_some(text.value)
}

fn bounded(section: &Section<'_>, key: &'static str, most: usize) -> Option<String> {
    let text = section.text(key)?;
    let good = (1..=most).contains(&text.value.chars().count()) && !text.value.chars().any(char::is_control);
    if !good {
        let message = format!("`{key}` is {:?}, and must have 1 to {most} printable characters", text.value);
        section.document.error(text.at, message);
    }
    good.then_some(text.value)
}

/// Decimal degrees in quotes, written with so many digits as OCPI wants.
fn coordinate(section: &Section<'_>, key: &'static str, most: i64) -> Option<String> {
    let text = section.text(key)?;
    let parsed = text.value.parse::<Decimal>().ok().filter(|degrees| degrees.abs() <= Decimal::from(most));
    if parsed.is_none() {
        let message = format!("`{key}` is {:?}, and must be degrees from -{most} to {most} in quotes", text.value);
        section.document.error(text.at, message);
    }
    let mut degrees = parsed?.round_dp(COORDINATE_DIGITS);
    degrees.rescale(COORDINATE_DIGITS);
    Some(degrees.to_string())
}

fn is_ci_string(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

/// What a charger says of its connectors.
pub(super) fn charger(section: &Section<'_>, evses: usize) -> ChargerBilling {
    let document = section.document;
    let ids = section.texts("evse_ids");
    if let Some(ids) = &ids
        && (ids.value.len() != evses || ids.value.iter().any(|id| !is_ci_string(&id.value, 48)))
    {
        let message = format!("`evse_ids` must name each of its {evses} EVSEs, such as [\"DE*ABC*E001*1\"]");
        document.error(ids.at, message);
    }
    let connectors = CONNECTORS.map(|name| (name, name));
    let standard = section.choice("connector_standard", &connectors);
    let format = section.choice("connector_format", &[("SOCKET", "SOCKET"), ("CABLE", "CABLE")]);
    ChargerBilling {
        evse_ids: ids.map_or_else(Vec::new, |ids| ids.value.into_iter().map(|id| id.value).collect()),
        standard: standard.map(|standard| standard.value.to_owned()),
        format: format.map(|format| format.value.to_owned()),
        public_keys: public_keys(section),
    }
}

/// The keys of its meters: one, or a list where each EVSE has a meter of its own.
fn public_keys(section: &Section<'_>) -> Vec<Vec<u8>> {
    let is_list = section.raw("public_key").is_some_and(|(_, value)| value.as_array().is_some());
    let keys = if is_list {
        section.texts("public_key").map_or_else(Vec::new, |keys| keys.value)
    } else {
        section.text("public_key").into_iter().collect()
    };
    let mut read = Vec::new();
    for key in keys {
        match Key::read(&key.value) {
            Ok(key) => read.push(key.to_bytes()),
            Err(error) => section.document.error(key.at, format!("`public_key` cannot be read: {error}")),
        }
    }
    read
}

/// What does not fit together: names that a CDR cannot hold, and prices that nobody will hear of.
pub(super) fn check(
    root: &Section<'_>,
    billing: &BillingSetup,
    tariffs: &[Tariff],
    chargers: impl Iterator<Item = (StationId, usize)>,
) {
    let document = root.document;
    let at = |key| root.raw(key).map_or(0, |(at, _)| at);
    if billing.operator.is_none() {
        return;
    }
    for tariff in tariffs.iter().filter(|tariff| !is_ci_string(&tariff.id, 36)) {
        let message =
            format!("tariff {:?}: with [billing] its `id` must be printable ASCII, as OCPI wants it", tariff.id);
        document.error(at("tariffs"), message);
    }
    for (id, evses) in chargers {
        let uid = format!("{id}-{evses}");
        if !is_ci_string(&uid, MAX_EVSE_UID) {
            let message = format!(
                "charger {:?}: with [billing] its name must be printable ASCII of at most 33 characters, as OCPI wants it",
                id.as_str()
            );
            document.error(at("chargers"), message);
        }
    }
}
