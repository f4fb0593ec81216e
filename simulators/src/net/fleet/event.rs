//! What a message on `P/events` says: which event it is, and what it changes in the books.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// No number of ours is larger (2^53): so sums do not overflow.
const MOST: i64 = 1 << 53;

/// A message as it came from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The topic.
    pub topic: String,
    /// The payload, byte by byte.
    pub body: Vec<u8>,
}

/// An event of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The site's id, from the topic: the broker's access list vouches for it.
    pub site: String,
    /// The name of the store that numbered it.
    pub store: String,
    /// Its number in that store, from 1.
    pub sequence: i64,
    /// Its type.
    pub kind: String,
    /// When it happened, in RFC 3339.
    pub time: String,
    /// What it changes; or why its data make no sense although its envelope does.
    pub effect: Result<Effect, String>,
}

/// What an event changes in the books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing beyond being kept.
    None,
    /// A transaction began.
    Started(Transaction),
    /// It is over.
    Ended(Transaction, End),
    /// It is over otherwise than was said.
    Corrected(Transaction, End),
    /// A charge detail record.
    Cdr(Cdr),
}

/// What every event of a transaction tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The station.
    pub charger: String,
    /// Its id.
    pub id: String,
    /// Who charges, if that is known.
    pub token: Option<String>,
    /// When it began, in RFC 3339.
    pub started: Option<String>,
    /// The energy register at the start, in Wh.
    pub meter_start_wh: Option<i64>,
}

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// When, in RFC 3339.
    pub ended: Option<String>,
    /// The energy register then, in Wh.
    pub meter_stop_wh: Option<i64>,
    /// The energy, in Wh; unknown without both registers.
    pub energy_wh: Option<i64>,
    /// The price with tax, in 1/10000 of the currency.
    pub gross_e4: Option<i64>,
    /// The currency.
    pub currency: Option<String>,
}

/// A charge detail record, as far as it is added up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cdr {
    /// Its id.
    pub id: String,
    /// The station, from the event's subject.
    pub charger: String,
    /// The transaction.
    pub transaction: String,
    /// The CDR that it takes back.
    pub credits: Option<String>,
    /// The energy, in Wh; of a credit too it is what was billed.
    pub energy_wh: i64,
    /// The price without tax, in 1/10000 of the currency; negative in a credit.
    pub net_e4: i64,
    /// The price with tax, where it says one.
    pub gross_e4: Option<i64>,
    /// The currency.
    pub currency: String,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    id: String,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    time: String,
    sequence: Value,
    subject: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// The site that a topic names: the level before the last one.
#[must_use]
pub fn site_of(topic: &str) -> Option<&str> {
    topic.rsplit('/').nth(1).filter(|site| !site.is_empty())
}

/// Reads an event.
///
/// # Errors
/// What is wrong with it, in words: it goes into quarantine.
pub fn read(message: &Message) -> Result<Event, String> {
    let site = site_of(&message.topic).ok_or("its topic names no site")?;
    let envelope: Envelope<'_> = serde_json::from_slice(&message.body).map_err(|error| format!("no event: {error}"))?;
    // CloudEvents gives integers as numbers; the `sequence` extension of its catalogue is text. Both are understood.
    let sequence = envelope.sequence.as_i64().or_else(|| envelope.sequence.as_str().and_then(|text| text.parse().ok()));
    let sequence =
        sequence.filter(|sequence| (1..=MOST).contains(sequence)).ok_or("its sequence is no number from 1")?;
    let named = format!("/siteward/{site}");
    if envelope.source != named {
        return Err(format!("it came on the topic of {site} and its source is {}", envelope.source));
    }
    let store = envelope.id.strip_suffix(&format!("-{sequence}")).filter(|store| !store.is_empty());
    let store = store.ok_or_else(|| format!("its id {} is not <store id>-{sequence}", envelope.id))?.to_owned();
    if [&store, &envelope.kind, &envelope.time].iter().any(|text| text.contains('\0')) {
        return Err("it has a NUL in its id, its type or its time".to_owned());
    }
    let effect = effect(&envelope);
    Ok(Event { site: site.to_owned(), store, sequence, kind: envelope.kind, time: envelope.time, effect })
}

fn effect(envelope: &Envelope<'_>) -> Result<Effect, String> {
    // Most events are of other types: their data need not be understood.
    type Make = fn(&Value, &str) -> Result<Effect, String>;
    let make: Make = match envelope.kind.as_str() {
        "siteward.transaction.started" => |data, _| Ok(Effect::Started(transaction(data)?)),
        "siteward.transaction.ended" => |data, _| Ok(Effect::Ended(transaction(data)?, end(data)?)),
        "siteward.transaction.corrected" => |data, _| Ok(Effect::Corrected(transaction(data)?, end(data)?)),
        "siteward.cdr.created" => |data, subject| Ok(Effect::Cdr(cdr(data, subject)?)),
        _ => return Ok(Effect::None),
    };
    let data = envelope.data.ok_or("it has no data")?;
    let data: Value = serde_json::from_str(data.get()).map_err(|error| format!("its data: {error}"))?;
    make(&data, envelope.subject.as_deref().unwrap_or_default())
}

fn transaction(data: &Value) -> Result<Transaction, String> {
    Ok(Transaction {
        charger: text(data, "charger")?,
        id: text(data, "transaction_id")?,
        token: text(data, "token").ok(),
        started: text(data, "started").ok(),
        meter_start_wh: whole(data, "meter_start_wh"),
    })
}

fn end(data: &Value) -> Result<End, String> {
    let cost = Some(&data["cost"]).filter(|cost| !cost.is_null());
    Ok(End {
        ended: text(data, "ended").ok(),
        meter_stop_wh: whole(data, "meter_stop_wh"),
        energy_wh: whole(data, "energy_wh"),
        gross_e4: cost.map(|cost| amount(cost, "gross", 4)).transpose()?,
        currency: cost.map(|cost| text(cost, "currency")).transpose()?,
    })
}

fn cdr(data: &Value, subject: &str) -> Result<Cdr, String> {
    // kWh with three digits are Wh; a fourth is 0, since whole Wh are billed.
    let tenths = amount(data, "total_energy", 4)?;
    Ok(Cdr {
        id: text(data, "id")?,
        charger: subject.replace('\0', "?"),
        transaction: text(data, "session_id")?,
        credits: text(data, "credit_reference_id").ok(),
        energy_wh: (tenths % 10 == 0).then_some(tenths / 10).ok_or("total_energy is not in whole Wh")?,
        net_e4: amount(&data["total_cost"], "excl_vat", 4)?,
        gross_e4: Some(&data["total_cost"])
            .filter(|cost| !cost["incl_vat"].is_null())
            .map(|cost| amount(cost, "incl_vat", 4))
            .transpose()?,
        currency: text(data, "currency")?,
    })
}

fn text(data: &Value, name: &str) -> Result<String, String> {
    // PostgreSQL has no text with a NUL in it.
    let found = data[name].as_str().filter(|text| !text.contains('\0'));
    found.map(str::to_owned).ok_or_else(|| format!("{name} is missing or no text"))
}

fn whole(data: &Value, name: &str) -> Option<i64> {
    data[name].as_i64().filter(|number| (-MOST..=MOST).contains(number))
}

/// A decimal number, or one in quotes, as a whole number of 10^-`digits`. No binary fraction comes between.
fn amount(data: &Value, name: &str, digits: usize) -> Result<i64, String> {
    let written = match &data[name] {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return Err(format!("{name} is missing or no number")),
    };
    fixed(&written, digits).ok_or_else(|| format!("{name} {written} is no decimal number of at most {digits} digits"))
}

fn fixed(written: &str, digits: usize) -> Option<i64> {
    let (negative, rest) = written.strip_prefix('-').map_or((false, written), |rest| (true, rest));
    let (whole, fraction) = rest.split_once('.').unwrap_or((rest, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let fraction = fraction.trim_end_matches('0');
    if whole.is_empty() || fraction.len() > digits || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let scaled: i64 = format!("{whole}{fraction:0<digits$}").parse().ok().filter(|scaled| *scaled <= MOST)?;
    Some(if negative { -scaled } else { scaled })
}
