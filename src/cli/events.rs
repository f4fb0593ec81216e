//! `siteward events`: the journal.

use std::io::{self, Write};
use std::thread::sleep;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::client::{Client, Patience};
use super::{EventsArgs, Failure, plain};

/// Events asked for at once.
const PAGE: usize = 500;

/// How often `--follow` looks for more.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
struct Page {
    events: Vec<Box<RawValue>>,
    next: u64,
}

pub(super) fn events(client: &Client, args: &EventsArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let mut after = args.after;
    let mut patience = Patience::default();
    loop {
        let asked = client.get(&format!("/api/v1/events?after={after}&limit={PAGE}"));
        let Some(page) = patience.judge::<Page>(asked, args.follow)? else {
            sleep(FOLLOW_EVERY);
            continue;
        };
        for event in &page.events {
            let line = if args.json { event.get().to_owned() } else { for_people(event.get()) };
            writeln!(out, "{line}")?;
        }
        out.flush()?;
        after = page.next;
        if page.events.is_empty() {
            if !args.follow {
                return Ok(());
            }
            // A pipe that was closed is noticed by the next event.
            sleep(FOLLOW_EVERY);
        }
    }
}

/// Sequence, time, type and data of a CloudEvent on one line.
fn for_people(event: &str) -> String {
    let Ok(event) = serde_json::from_str::<Value>(event) else { return plain(event) };
    let text = |name: &str| event.get(name).map(short).unwrap_or_default();
    let kind = text("type");
    let kind = kind.strip_prefix("siteward.").unwrap_or(&kind);
    let data = match event.get("data") {
        Some(Value::Object(data)) => {
            let known = data.iter().filter(|(_, value)| !value.is_null());
            known.map(|(name, value)| format!(" {name}={}", short(value))).collect()
        }
        _ => String::new(),
    };
    plain(&format!("{:>8}  {}  {kind:<22}{data}", text("sequence"), text("time")))
}

fn short(value: &Value) -> String {
    match value {
        Value::String(text) if text.contains(' ') => format!("{text:?}"),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Output(io::Error::from(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let event = r#"{"specversion":"1.0","sequence":12,"time":"2026-03-01T12:00:00.000Z","type":"siteward.alarm.raised",
            "data":{"kind":"meter_lost","message":"Meter main is silent.","subject":null}}"#;
        assert_eq!(
            for_people(event),
            "      12  2026-03-01T12:00:00.000Z  alarm.raised           kind=meter_lost message=\"Meter main is silent.\""
        );
    }
}
