//! What a message on `P/telemetry` says, and where it is kept: each interval once, by its site, its ring and its number.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::event::{Message, site_of};
use super::sql::{Datum, Sql, SqlError};

/// The last level of the topic.
const TOPIC: &str = "/telemetry";

/// An interval of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    site: String,
    ring: String,
    sequence: i64,
    /// The meter, or the charger and its EVSE.
    device: String,
    begins: String,
    ends: String,
    import_wh: Option<i64>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    id: String,
    source: String,
    sequence: i64,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct Data {
    meter: Option<String>,
    charger: Option<String>,
    evse: Option<u32>,
    from: String,
    until: String,
    import_wh: Option<i64>,
}

/// Whether a message is one.
pub(super) fn is_telemetry(message: &Message) -> bool {
    message.topic.ends_with(TOPIC)
}

/// Reads an interval.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn read(message: &Message) -> Result<Interval, String> {
    let site = site_of(&message.topic).ok_or("its topic names no site")?;
    let envelope: Envelope<'_> =
        serde_json::from_slice(&message.body).map_err(|error| format!("no telemetry: {error}"))?;
    let named = format!("/siteward/{site}");
    if envelope.source != named {
        return Err(format!("it came on the topic of {site} and its source is {}", envelope.source));
    }
    let sequence = Some(envelope.sequence).filter(|sequence| *sequence > 0).ok_or("its sequence is not from 1")?;
    let ring = envelope.id.strip_suffix(&format!("-{sequence}")).filter(|ring| !ring.is_empty());
    let ring = ring.ok_or_else(|| format!("its id {} is not <ring>-{sequence}", envelope.id))?.to_owned();
    let data: Data = serde_json::from_str(envelope.data.get()).map_err(|error| format!("its data: {error}"))?;
    let device = match (data.meter, data.charger, data.evse) {
        (Some(meter), None, None) => meter,
        (None, Some(charger), Some(evse)) => format!("{charger}/{evse}"),
        _ => return Err("its data are neither of a meter nor of an EVSE".to_owned()),
    };
    // PostgreSQL has no text with a NUL in it.
    if [&ring, &device, &data.from, &data.until].iter().any(|text| text.contains('\0')) {
        return Err("it has a NUL in its id, its device or its times".to_owned());
    }
    let (begins, ends, import_wh) = (data.from, data.until, data.import_wh);
    Ok(Interval { site: site.to_owned(), ring, sequence, device, begins, ends, import_wh })
}

/// Keeps an interval with its body. Whether it was new.
pub(super) fn keep(sql: &mut dyn Sql, interval: &Interval, body: &[u8]) -> Result<bool, SqlError> {
    let text = "INSERT INTO telemetry (site, ring, sequence, device, begins, ends, import_wh, body) \
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING";
    let Interval { site, ring, sequence, device, begins, ends, import_wh } = interval;
    let names = [Datum::from(site.as_str()), ring.as_str().into(), (*sequence).into(), device.as_str().into()];
    let rest = [Datum::from(begins.as_str()), ends.as_str().into(), (*import_wh).into(), body.into()];
    let parameters: Vec<Datum> = names.into_iter().chain(rest).collect();
    Ok(sql.execute(text, &parameters)? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, body: &str) -> Message {
        Message { topic: topic.to_owned(), body: body.as_bytes().to_vec() }
    }

    #[test]
    fn intervals_of_meters_and_cars_are_read_and_others_are_told_what_is_wrong() {
        let times = r#""from":"2026-09-21T12:00:00.000Z","until":"2026-09-21T12:15:00.000Z""#;
        let body = |device: &str| {
            format!(r#"{{"id":"r-7","source":"/siteward/a","sequence":7,"data":{{{device},{times},"import_wh":5}}}}"#)
        };
        let meter = read(&message("p/a/telemetry", &body(r#""meter":"main""#))).unwrap();
        assert_eq!((meter.ring.as_str(), meter.sequence, meter.device.as_str()), ("r", 7, "main"));
        let car = read(&message("p/a/telemetry", &body(r#""charger":"CP001","evse":2"#))).unwrap();
        assert_eq!((car.device.as_str(), car.import_wh), ("CP001/2", Some(5)));
        let wrong = |topic: &str, body: &str| read(&message(topic, body)).unwrap_err();
        assert!(wrong("p/b/telemetry", &body(r#""meter":"main""#)).contains("its source is /siteward/a"));
        assert!(wrong("p/a/telemetry", &body(r#""meter":"main","evse":1"#)).contains("neither"));
        assert!(wrong("p/a/telemetry", "{}").contains("no telemetry"));
        assert!(wrong("p/a/telemetry", &body(r#""meter":"main""#).replace("r-7", "r-8")).contains("is not <ring>-7"));
    }
}
