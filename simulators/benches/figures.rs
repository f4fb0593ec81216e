//! How fast the deciding parts are, each figure beside a stated limit or a floor measured in the same run. `make bench` prints them.
//!
//! Times are those that the processor has spent, not those on the wall: so a machine that is busy with something else makes them worse by what
//! its caches lose, and not by the time that others have.

use std::hint::black_box;
use std::io::Write as _;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use siteward::engine::model::exchange::OcppVersion;
use siteward::engine::ocpp::{Session, SessionEvent, SessionOutput};
use siteward::engine::time::{Mono, Now, Utc};
use siteward_sim::world::{WorldOptions, run_world};

#[path = "figures/planner.rs"]
mod planner;

/// A round is shorter than the time that a busy machine leaves to a thread at a stretch.
const ROUND: Duration = Duration::from_millis(2);
/// Rounds are made for so long, and at least so many.
const ALL_ROUNDS: Duration = Duration::from_millis(300);
const FEWEST_ROUNDS: usize = 3;

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout();
    planner::print(&mut out)?;
    let (typed, floor) = meter_values();
    let ratio = typed.as_secs_f64() / floor.as_secs_f64();
    writeln!(out, "MeterValues (1.6, 8 sampled values): frame in to answer out (floor: reading the JSON)")?;
    writeln!(out, "  {typed:>12.1?} a call  {ratio:>6.1} x the floor ({floor:.1?})")?;
    let days = 2;
    let began = processor_time();
    let report = run_world(&WorldOptions::long(1, days, 20)).map_err(std::io::Error::other)?;
    let took = (processor_time() - began).as_secs_f64();
    let virtual_s = 86_400.0 * f64::from(u32::try_from(days).unwrap_or(0));
    writeln!(out, "virtual time, 20 stations with faults (limit: 30 days in 120 s is 21,600 x)")?;
    writeln!(out, "  {:>8.0} x real time, {} violations", virtual_s / took, report.violated)?;
    Ok(())
}

const NOW: Mono = Mono::from_ms(1_000_000);

/// What the processor has spent on this thread.
fn processor_time() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(spent.tv_sec).unwrap_or(0), u32::try_from(spent.tv_nsec).unwrap_or(0))
}

/// The time of one piece of work: that of the best round, since whatever else the machine does only adds to it.
fn least(mut work: impl FnMut()) -> Duration {
    let mut rounds: Vec<Duration> = Vec::new();
    let start = processor_time();
    while rounds.len() < FEWEST_ROUNDS || processor_time() - start < ALL_ROUNDS {
        let began = processor_time();
        let mut times = 0;
        let mut spent = Duration::ZERO;
        while spent < ROUND {
            work();
            times += 1;
            spent = processor_time() - began;
        }
        rounds.push(spent / times);
    }
    rounds.into_iter().min().unwrap_or_default()
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
    let typed = least(|| {
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
    let floor = least(|| drop(black_box(serde_json::from_str::<serde_json::Value>(black_box(&text)))));
    (typed, floor)
}
