//! The planner's figures: a whole pass at four sizes, beside its stated limits, and beside two bare solvers of the same shares.

use std::hint::black_box;
use std::io::Write;
use std::time::Duration;

use siteward::engine::model::ids::{CircuitId, SiteId, StationId};
use siteward::engine::model::topology::{Circuit, CircuitIndex, EvseIndex, Station, StationModel, Topology, Wiring};
use siteward::engine::plan::fill::{Member, Problem, Term};
use siteward::engine::plan::{
    BackgroundSource, CircuitState, EvseState, LimitSource, Plan, PlanState, Planner, invariant_holds, plan,
};
use siteward::engine::time::Mono;
use siteward::engine::units::{Current, PerPhase, Phase, Voltage};

use crate::least;

const NOW: Mono = Mono::from_ms(10_000_000);

/// How many EVSEs, and the most that a pass may take.
const SIZES: [(usize, Duration); 4] = [
    (10, Duration::from_micros(50)),
    (100, Duration::from_micros(50)),
    (1_000, Duration::from_micros(300)),
    (10_000, Duration::from_millis(10)),
];

pub(crate) fn print(out: &mut impl Write) -> std::io::Result<()> {
    writeln!(
        out,
        "planning pass: who is served, shares, rounding, raises, queue, invariant (processor time; limit: stated beside it)"
    )?;
    let mut passes = Vec::new();
    for (evses, limit) in SIZES {
        let (topology, state) = site(evses);
        // As the site does it: one plan after another by the same planner.
        let (mut planner, mut made) = (Planner::default(), Plan::default());
        let pass = least(|| {
            planner.plan(&topology, black_box(&state), NOW, &mut made);
            black_box(&made);
        });
        let Plan { offers, queue, .. } = plan(&topology, &state, NOW);
        let check = least(|| {
            black_box(invariant_holds(&topology, &state, black_box(&offers)));
        });
        let served = (0..evses).filter(|index| offers[*index].target > Current::ZERO).collect::<Vec<_>>();
        let (problem, members) = bare(&topology, &state, &served);
        let exact = least(|| drop(black_box(problem.solve())));
        let walked = least(|| drop(black_box(naive(&members))));
        let of_limit = pass.as_secs_f64() / limit.as_secs_f64();
        writeln!(
            out,
            "  {evses:>6} EVSEs  {pass:>10.1?}  {of_limit:>5.2} of the limit ({limit:?})  {} served, {} wait",
            served.len(),
            queue.len()
        )?;
        writeln!(
            out,
            "         {:>5.1} x the bare exact shares ({exact:.1?}), {:.2} x the same without events ({walked:.1?}), {:.1} x checking it ({check:.1?})",
            pass.as_secs_f64() / exact.as_secs_f64(),
            pass.as_secs_f64() / walked.as_secs_f64(),
            pass.as_secs_f64() / check.as_secs_f64()
        )?;
        passes.push((evses, pass.as_secs_f64()));
    }
    // How much more n log n is, which is the limit, and how much more it took.
    let steps = passes.windows(2).map(|pair| {
        let ((few, short), (many, long)) = (pair[0], pair[1]);
        let float = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
        let n_log_n = |n: usize| float(n) * float(n).log2();
        let (growth, limit) = (long / short, n_log_n(many) / n_log_n(few));
        format!("{few} to {many}: {growth:.1} x (limit {limit:.1} x: {:.2} of it)", growth / limit)
    });
    let steps: Vec<String> = steps.collect();
    writeln!(out, "  growth (limit: that of n log n): {}", steps.join(", "))
}

/// A site of sub-circuits with ten EVSEs each, half of them with one phase, and ten sub-circuits to a circuit: too small for everybody.
pub(crate) fn site(evses: usize) -> (Topology, PlanState) {
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
    let mut circuits = vec![circuit("grid".to_owned(), None, whole(groups) * 60)];
    let halls = groups.div_ceil(10);
    circuits.extend((0..halls).map(|hall| circuit(format!("h{hall}"), Some(0), 700 - whole(hall % 3) * 50)));
    let group = |group: usize| circuit(format!("g{group}"), Some(1 + group / 10), 44 + whole(group % 5) * 10);
    circuits.extend((0..groups).map(group));
    let wirings = [&Phase::ALL[..], &[Phase::L1], &[Phase::L2, Phase::L3, Phase::L1], &[Phase::L3]];
    let stations = (0..evses)
        .map(|number| Station {
            id: StationId::new(&format!("CP{number}")),
            circuit: CircuitIndex(1 + halls + number / 10),
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

/// All reachable but a few, some in their turn for a while, all with a demand and a draw of their own.
fn state(topology: &Topology) -> PlanState {
    let circuits = topology
        .circuits()
        .iter()
        .map(|circuit| CircuitState {
            limit: circuit.limit,
            limit_source: LimitSource::Configured,
            max_power: None,
            charging_power: None,
            background: PerPhase::new(Current::from_a(5), Current::from_a(8), Current::from_a(2)),
            background_source: BackgroundSource::Meter,
            ramp: None,
        })
        .collect();
    let ma = |seed: usize, span: usize| i32::try_from(seed.wrapping_mul(7_919) % span).unwrap_or(0);
    let evses = topology
        .evses()
        .iter()
        .enumerate()
        .map(|(number, evse)| {
            let station = topology.station(evse.station);
            let since = u64::try_from(number * 7_919 % 2_000).unwrap_or(0);
            let served = number % 3 != 0;
            EvseState {
                phases: station.wiring.phases(),
                committed: station.wiring.phases().spread(Current::from_ma(if served {
                    6_000 + ma(number, 4_000)
                } else {
                    0
                })),
                drawn: PerPhase::splat(Current::ZERO),
                demand: Current::from_ma(10_000 + ma(number, 22_000)),
                demand_is_maximum: false,
                reachable: number % 17 != 0,
                min: station.min,
                fallback: station.fallback,
                step: station.model.step,
                weight: station.weight,
                priority: 0,
                hold: false,
                deadline: None,
                served_since: served.then(|| NOW.minus_ms(since * 1_000)),
                wants_since: Some(NOW.minus_ms(since * 2_000)),
                rests_until: None,
            }
        })
        .collect();
    PlanState { circuits, evses }
}

/// A member and its rows, without profiles.
type Loose = (Member, Vec<usize>, Vec<i64>);

/// Only the sharing among those who are served, for both bare solvers.
fn bare(topology: &Topology, state: &PlanState, served: &[usize]) -> (Problem, Vec<Loose>) {
    let room = |circuit: &CircuitState| {
        Phase::ALL.map(|phase| i64::from((circuit.limit.of(phase) - circuit.background.of(phase)).ma()))
    };
    let capacities: Vec<i64> = state.circuits.iter().flat_map(room).collect();
    let mut problem = Problem::new(capacities.clone());
    let mut loose = Vec::new();
    for index in served {
        let evse = &state.evses[*index];
        let circuit = topology.evse(EvseIndex(*index)).circuit;
        let rows: Vec<usize> = topology
            .path_to_grid(circuit)
            .flat_map(|above| evse.phases.iter().map(move |phase| above.0 * 3 + phase.index()))
            .collect();
        let terms = rows.iter().map(|row| Term::one(u32::try_from(*row).unwrap_or(0)));
        let profile = problem.add_profile(terms);
        let (min, max) = (i64::from(evse.min.ma()), i64::from(evse.demand.ma()));
        let member = Member { profile, min, max, weight: evse.weight };
        problem.add_member(member);
        loose.push((member, rows, capacities.clone()));
        if let Some((_, _, capacities)) = loose.last_mut().filter(|_| *index != served[0]) {
            capacities.clear();
        }
    }
    (problem, loose)
}

/// The same shares by going through all members and rows for each level at which something is full.
fn naive(members: &[Loose]) -> Vec<f64> {
    let Some((_, _, capacities)) = members.first() else { return Vec::new() };
    let float = |value: i64| f64::from(i32::try_from(value).unwrap_or(i32::MAX));
    let bounds: Vec<(f64, f64, f64)> =
        members.iter().map(|(member, _, _)| (float(member.min), float(member.max), f64::from(member.weight))).collect();
    let mut shares: Vec<Option<f64>> = vec![None; members.len()];
    let mut level = 0.0_f64;
    while shares.iter().any(Option::is_none) {
        let mut load = vec![0.0; capacities.len()];
        let mut slope = vec![0.0; capacities.len()];
        let mut next = f64::INFINITY;
        for (at, (min, max, weight)) in bounds.iter().enumerate() {
            let amount = shares[at].unwrap_or((level * weight).clamp(*min, *max));
            let rises = shares[at].is_none() && level * weight >= *min;
            if shares[at].is_none() {
                next = next.min(if rises { max / weight } else { min / weight });
            }
            for row in &members[at].1 {
                load[*row] += amount;
                slope[*row] += if rises { *weight } else { 0.0 };
            }
        }
        for row in 0..capacities.len() {
            if slope[row] > 0.0 {
                next = next.min(level + ((float(capacities[row]) - load[row]) / slope[row]).max(0.0));
            }
        }
        let full: Vec<bool> = (0..capacities.len())
            .map(|row| slope[row] > 0.0 && load[row] + slope[row] * (next - level) >= float(capacities[row]) - 1e-6)
            .collect();
        level = next;
        for (at, (min, max, weight)) in bounds.iter().enumerate() {
            let stops = level * weight >= max - 1e-9 || members[at].1.iter().any(|row| full[*row]);
            if shares[at].is_none() && stops {
                shares[at] = Some((level * weight).clamp(*min, *max));
            }
        }
        level += 1e-9;
    }
    shares.into_iter().flatten().collect()
}
