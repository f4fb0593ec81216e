//! How fast the deciding parts are, each figure beside a stated limit or a floor measured in the same run. `make bench` prints them.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::hint::black_box;
use std::io::Write as _;
use std::time::{Duration, Instant};

use siteward::engine::model::exchange::OcppVersion;
use siteward::engine::ocpp::{Session, SessionEvent, SessionOutput};
use siteward::engine::time::{Mono, Now, Utc};
use siteward_sim::world::{WorldOptions, run_world};

#[path = "figures/planner.rs"]
mod planner;

/// Each figure is the median of so many rounds.
const ROUNDS: usize = 15;

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout();
    planner::print(&mut out)?;
    let (typed, floor) = meter_values();
    let ratio = typed.as_secs_f64() / floor.as_secs_f64();
    writeln!(out, "MeterValues (1.6, 8 sampled values): frame in to answer out (floor: reading the JSON)")?;
    writeln!(out, "  {typed:>12.1?} a call  {ratio:>6.1} x the floor ({floor:.1?})")?;
    let days = 2;
    let began = Instant::now();
    let report = run_world(&WorldOptions::long(1, days, 20)).map_err(std::io::Error::other)?;
    let took = began.elapsed().as_secs_f64();
    let virtual_s = 86_400.0 * f64::from(u32::try_from(days).unwrap_or(0));
    writeln!(out, "virtual time, 20 stations with faults (limit: 30 days in 120 s is 21,600 x)")?;
    writeln!(out, "  {:>8.0} x real time, {} violations", virtual_s / took, report.violated)?;
    Ok(())
}

const NOW: Mono = Mono::from_ms(1_000_000);

fn median(mut work: impl FnMut()) -> Duration {
    let mut rounds: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            let mut times = 0;
            while began.elapsed() < Duration::from_millis(10) {
                work();
                times += 1;
            }
            began.elapsed() / times
        })
        .collect();
    rounds.sort();
    rounds[ROUNDS / 2]
}

/// The time of one `MeterValues` through the session, and of only reading its JSON.
fn meter_values() -> (Duration, Duration) {
    let sampled = |measurand: &str, phase: &str, unit: &str, value: &str| {
        format!(
            r#"{{"value":"{value}","context":"Sample.Periodic","measurand":"{measurand}","phase":"{phase}","unit":"{unit}"}}"#
        )
    };
    let values: Vec<String> = ["L1", "L2", "L3"]
        .iter()
        .flat_map(|phase| {
            [sampled("Current.Import", phase, "A", "15.87"), sampled("Power.Active.Import", phase, "W", "3650")]
        })
        .chain([
            r#"{"value":"1234567","measurand":"Energy.Active.Import.Register","unit":"Wh"}"#.to_owned(),
            r#"{"value":"57","measurand":"SoC","unit":"Percent"}"#.to_owned(),
        ])
        .collect();
    let text = format!(
        r#"[2,"1","MeterValues",{{"connectorId":1,"transactionId":7,"meterValue":[{{"timestamp":"2026-03-01T12:00:00.000Z","sampledValue":[{}]}}]}}]"#,
        values.join(",")
    );
    let now = Now { mono: NOW, utc: Utc::from_unix_ms(1_772_366_400_000), utc_trusted: true };
    let mut session = Session::new(OcppVersion::V16, 1);
    let typed = median(|| {
        let mut said = SessionOutput::default();
        session.receive(black_box(&text), now, &mut said);
        for event in std::mem::take(&mut said.events) {
            if let SessionEvent::Request { token, .. } = event {
                session.answer(token, &siteward::engine::model::exchange::StationAnswer::Taken, &mut said);
            }
        }
        assert_eq!(said.frames.len(), 1, "one answer");
        black_box(said);
    });
    let floor = median(|| drop(black_box(serde_json::from_str::<serde_json::Value>(black_box(&text)))));
    (typed, floor)
}
