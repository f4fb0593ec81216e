//! How fast the deciding parts are, each figure beside a stated limit or a floor measured in the same run. `make bench` prints them.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::hint::black_box;
use std::io::Write as _;
use std::time::{Duration, Instant};

use siteward::engine::model::exchange::OcppVersion;
use siteward::engine::model::ids::{CircuitId, SiteId, StationId};
use siteward::engine::model::topology::{Circuit, CircuitIndex, Station, StationModel, Topology, Wiring};
use siteward::engine::ocpp::{Session, SessionEvent, SessionOutput};
use siteward::engine::plan::{
    BackgroundSource, CircuitState, EvseState, LimitSource, Plan, PlanState, invariant_holds, plan,
};
use siteward::engine::time::{Mono, Now, Utc};
use siteward::engine::units::{Current, PerPhase, Phase, Voltage};
use siteward_sim::world::{WorldOptions, run_world};

/// A control cycle has this long.
const TICK: Duration = Duration::from_millis(200);

/// Each figure is the median of so many rounds.
const ROUNDS: usize = 15;

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "planning pass (limit: the 200 ms tick; floor: checking the result against every circuit)")?;
    for evses in [10, 100, 1_000] {
        let (topology, state) = site(evses);
        let pass = median(|| drop(black_box(plan(&topology, black_box(&state), NOW))));
        let Plan { offers, .. } = plan(&topology, &state, NOW);
        let floor = median(|| {
            black_box(invariant_holds(&topology, &state, black_box(&offers)));
        });
        let share = pass.as_secs_f64() / TICK.as_secs_f64() * 100.0;
        let ratio = pass.as_secs_f64() / floor.as_secs_f64();
        writeln!(
            out,
            "  {evses:>5} EVSEs  {pass:>12.1?}  {share:>6.2} % of a tick  {ratio:>6.1} x the floor ({floor:.1?})"
        )?;
    }
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

/// A site of sub-circuits with ten EVSEs each, half of them with one phase, too small for everybody.
fn site(evses: usize) -> (Topology, PlanState) {
    let groups = evses.div_ceil(10);
    let whole = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let circuit = |id: String, parent: Option<usize>, limit_a: i32| Circuit {
        id: CircuitId::new(&id),
        parent: parent.map(CircuitIndex),
        limit: PerPhase::splat(Current::from_a(limit_a)),
        meter: None,
        unmeasured_load: None,
        max_unbalance: None,
        max_power: None,
        short_time: None,
    };
    let mut circuits = vec![circuit("grid".to_owned(), None, whole(groups) * 70)];
    circuits.extend((0..groups).map(|group| circuit(format!("g{group}"), Some(0), 60 + whole(group % 5) * 10)));
    let wirings = [&Phase::ALL[..], &[Phase::L1], &[Phase::L2, Phase::L3, Phase::L1], &[Phase::L3]];
    let stations = (0..evses)
        .map(|number| Station {
            id: StationId::new(&format!("CP{number}")),
            circuit: CircuitIndex(1 + number / 10),
            model: StationModel::default(),
            wiring: Wiring::new(wirings[number % 4]).unwrap_or(Wiring::STRAIGHT),
            max: Current::from_a(32),
            min: Current::from_a(6),
            fallback: Current::ZERO,
            evse_count: 1,
            priority: 0,
            weight: 100 + u32::try_from(number % 3).unwrap_or(0) * 50,
            dc: None,
            password: None,
        })
        .collect();
    let voltage = Voltage::from_mv(230_000);
    let topology = Topology::new(SiteId::new("bench"), voltage, circuits, stations, (vec![], vec![]));
    let Ok(topology) = topology else { unreachable!("the site of the benchmark is sound") };
    let state = state(&topology);
    (topology, state)
}

fn state(topology: &Topology) -> PlanState {
    let circuits = topology
        .circuits()
        .iter()
        .map(|circuit| CircuitState {
            limit: circuit.limit,
            limit_source: LimitSource::Configured,
            background: PerPhase::new(Current::from_a(5), Current::from_a(8), Current::from_a(2)),
            background_source: BackgroundSource::Meter,
            ramp: None,
        })
        .collect();
    let evses = topology
        .evses()
        .iter()
        .enumerate()
        .map(|(number, evse)| {
            let station = topology.station(evse.station);
            EvseState {
                phases: station.wiring.phases(),
                committed: PerPhase::splat(Current::ZERO),
                drawn: PerPhase::splat(Current::ZERO),
                demand: Current::from_a(10 + i32::try_from(number % 23).unwrap_or(0)),
                demand_is_maximum: false,
                reachable: number % 17 != 0,
                min: station.min,
                fallback: station.fallback,
                step: station.model.step,
                weight: station.weight,
                priority: 0,
                hold: false,
                deadline: None,
                served_since: None,
                wants_since: Some(Mono::START),
            }
        })
        .collect();
    PlanState { circuits, evses }
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
