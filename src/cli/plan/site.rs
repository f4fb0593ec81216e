//! `siteward-plan/1`: a tree of circuits, and what the production planner makes of its states.

use std::collections::BTreeMap;

use serde_json::Value;

use super::read;
use super::wire::{
    CircuitLine, DeadlineLine, EvseLine, OfferLine, Phases, PlanLine, QueueLine, ReadyLine, SiteLine, StateLine,
    WireCircuit, WireEvse,
};
use crate::engine::model::ids::{CircuitId, SiteId, StationId};
use crate::engine::model::topology::{Circuit, CircuitIndex, EvseIndex, Station, StationModel, Topology, Wiring};
use crate::engine::plan::binding::{Binding, Limited};
use crate::engine::plan::{
    self, BackgroundSource, CircuitState, Deadline, EvseState, LimitSource, NOT_FORESEEABLE, Plan, PlanState,
};
use crate::engine::time::Mono;
use crate::engine::units::{Current, PerPhase, Phase, Power, Voltage};
use crate::shell::clock::Clock;

pub(super) const PROTO: &str = "siteward-plan/1";

/// Circuits and EVSEs at most.
const MOST: usize = 20_000;
/// The largest current and the largest power that a site can have.
const MOST_A: f64 = 100_000.0;
const MOST_W: f64 = 1e9;
/// About 300 years.
const MOST_S: f64 = 1e10;

/// A site whose states can be planned.
pub(super) struct SiteForm {
    topology: Topology,
    /// The wired phases' number of each EVSE, for energies.
    circuits: BTreeMap<String, usize>,
    evses: BTreeMap<String, usize>,
}

impl SiteForm {
    /// Takes a site in and answers `ready`.
    pub(super) fn site(text: &str) -> Result<(Self, String), String> {
        let site: SiteLine = read(text)?;
        if site.circuits.len() > MOST || site.evses.len() > MOST {
            return Err(format!("circuits and evses must be at most {MOST}"));
        }
        let volts = number(site.voltage_v, 50.0, 1_000.0).map_err(|why| format!("voltage_v: {why}"))?;
        let mut names = BTreeMap::new();
        let mut circuits = Vec::new();
        for (index, circuit) in site.circuits.iter().enumerate() {
            let at = |why: String| format!("circuits[{index}] ({}): {why}", circuit.id);
            circuits.push(to_circuit(circuit, &names).map_err(at)?);
            add_name(&mut names, &circuit.id, index).map_err(at)?;
        }
        let mut evses = BTreeMap::new();
        let mut stations = Vec::new();
        for (index, evse) in site.evses.iter().enumerate() {
            let at = |why: String| format!("evses[{index}] ({}): {why}", evse.id);
            stations.push(to_station(evse, &names).map_err(at)?);
            add_name(&mut evses, &evse.id, index).map_err(at)?;
        }
        let voltage = Voltage::from_mv(thousandths(volts, f64::floor)?);
        let topology = Topology::new(SiteId::new("plan"), voltage, circuits, stations, (Vec::new(), Vec::new()))
            .map_err(|error| error.to_string())?;
        let ready = ReadyLine { kind: "ready", proto: PROTO, name: concat!("siteward ", env!("CARGO_PKG_VERSION")) };
        let ready = serde_json::to_string(&ready).map_err(|error| error.to_string())?;
        Ok((Self { topology, circuits: names, evses }, ready))
    }

    /// Answers a state.
    pub(super) fn state(&self, text: &str, clock: Clock) -> Result<String, String> {
        let line: StateLine = read(text)?;
        let now = time(line.time_s).map_err(|why| format!("time_s: {why}"))?;
        let state = PlanState { circuits: self.circuit_states(&line.circuits)?, evses: self.evse_states(&line.evses)? };
        let begin = clock.us();
        let plan = plan::plan(&self.topology, &state, now);
        let solve_us = clock.us() - begin;
        let evses = self.offers(&plan);
        let line = PlanLine { kind: "plan", time_s: line.time_s, evses, solve_us };
        serde_json::to_string(&line).map_err(|error| error.to_string())
    }

    fn circuit_states(&self, lines: &[CircuitLine]) -> Result<Vec<CircuitState>, String> {
        each(
            &self.circuits,
            lines,
            ("circuits", "background_a"),
            |line| &line.id,
            |index, line| {
                let configured = self.topology.circuits()[index].limit;
                let outside = line.outside_limit_a.map(|limit| phases(limit, f64::floor)).transpose();
                let outside = outside.map_err(|why| format!("outside_limit_a: {why}"))?;
                let limit = outside.map_or(configured, |outside| configured.zip_with(outside, Current::min));
                let lowered = limit != configured;
                let background = line.background_a.map(|background| phases(background, f64::ceil)).transpose();
                let background = background.map_err(|why| format!("background_a: {why}"))?;
                Ok(CircuitState {
                    limit,
                    limit_source: if lowered { LimitSource::External } else { LimitSource::Configured },
                    max_power: watts(line.outside_limit_w, "outside_limit_w")?
                        .filter(|outside| self.topology.circuits()[index].max_power.is_none_or(|own| *outside < own)),
                    charging_power: watts(line.charging_limit_w, "charging_limit_w")?,
                    background: background.unwrap_or(PerPhase::splat(Current::ZERO)),
                    background_source: if background.is_some() {
                        BackgroundSource::Meter
                    } else {
                        BackgroundSource::Unknown
                    },
                    ramp: line
                        .ramp_a
                        .map(|ramp| amps(ramp, f64::floor))
                        .transpose()
                        .map_err(|why| format!("ramp_a: {why}"))?,
                })
            },
        )
    }

    fn evse_states(&self, lines: &[EvseLine]) -> Result<Vec<EvseState>, String> {
        each(
            &self.evses,
            lines,
            ("evses", "committed_a"),
            |line| &line.id,
            |index, line| {
                let station = &self.topology.stations()[index];
                let demand = amps(line.demand_a, f64::ceil).map_err(|why| format!("demand_a: {why}"))?;
                let committed = phases(line.committed_a, f64::ceil).map_err(|why| format!("committed_a: {why}"))?;
                // Unbalance may count on a current only as far as it surely flows.
                let drawn =
                    phases(line.drawn_a.unwrap_or([0.0; 3]), f64::floor).map_err(|why| format!("drawn_a: {why}"))?;
                let since = |time_s: Option<f64>, name: &str| {
                    time_s.map(time).transpose().map_err(|why| format!("{name}: {why}"))
                };
                Ok(EvseState {
                    phases: station.wiring.phases(),
                    committed,
                    drawn: drawn.zip_with(committed, Current::min),
                    demand: demand.min(station.max),
                    demand_is_maximum: demand >= station.max,
                    reachable: line.reachable,
                    min: station.min,
                    fallback: station.fallback,
                    step: station.model.step,
                    weight: station.weight,
                    priority: station.priority,
                    hold: line.hold,
                    deadline: line.deadline.as_ref().map(|deadline| self.deadline(index, deadline)).transpose()?,
                    served_since: since(line.served_since_s, "served_since_s")?,
                    wants_since: since(line.waiting_since_s, "waiting_since_s")?,
                    rests_until: since(line.rests_until_s, "rests_until_s")?,
                })
            },
        )
    }

    fn deadline(&self, evse: usize, line: &DeadlineLine) -> Result<Deadline, String> {
        let kwh = number(line.missing_kwh, 0.0, 1_000.0).map_err(|why| format!("deadline.missing_kwh: {why}"))?;
        let missing_ma_s = integer((kwh * 3.6e9 / self.volts_of(evse)).ceil())?;
        Ok(Deadline { missing_ma_s, by: time(line.by_s).map_err(|why| format!("deadline.by_s: {why}"))? })
    }

    /// The volts of all phases of an EVSE together.
    fn volts_of(&self, evse: usize) -> f64 {
        let terminals = self.topology.stations()[evse].wiring.terminals();
        f64::from(self.topology.voltage().mv()) / 1000.0 * f64::from(u8::try_from(terminals).unwrap_or(3))
    }

    fn offers(&self, plan: &Plan) -> Vec<OfferLine<'_>> {
        let mut lines: Vec<OfferLine<'_>> =
            plan.offers.iter().enumerate().map(|(index, offer)| self.offer(index, offer)).collect();
        for place in &plan.queue {
            let starts_s = (place.starts != NOT_FORESEEABLE).then(|| seconds(place.starts));
            lines[place.evse.0].queue = Some(QueueLine { position: place.position, starts_s });
        }
        for shortfall in &plan.shortfalls {
            let ampere_seconds = to_float(shortfall.missing_ma_s) / 1000.0;
            let kwh = ampere_seconds * self.volts_of(shortfall.evse.0) / 3.6e6;
            lines[shortfall.evse.0].shortfall_kwh = Some((kwh * 1000.0).ceil() / 1000.0);
        }
        lines
    }

    fn offer(&self, index: usize, offer: &plan::Offer) -> OfferLine<'_> {
        let bottleneck = offer.binding.bottleneck();
        let circuit = match offer.binding {
            Binding::MeterLost { circuit } | Binding::Ramp { circuit } => Some(circuit),
            Binding::NoDemand
            | Binding::Demand
            | Binding::EvseMaximum
            | Binding::Circuit(_)
            | Binding::Queue(_)
            | Binding::BelowMinimum
            | Binding::Deadline(_)
            | Binding::RaisePending(_)
            | Binding::Hold
            | Binding::Unreachable => bottleneck.map(|bottleneck| bottleneck.circuit),
        };
        let phase =
            bottleneck.filter(|bottleneck| !matches!(bottleneck.limited, Limited::Power(_) | Limited::Charging(_)));
        let station = self.topology.evse(EvseIndex(index)).station;
        OfferLine {
            id: self.topology.station(station).id.as_str(),
            limit_a: offer.limit.as_a(),
            target_a: offer.target.as_a(),
            binding: offer.binding.name(),
            circuit: circuit.map(|circuit| self.topology.circuit(circuit).id.as_str()),
            phase: phase.map(|bottleneck| bottleneck.phase.to_string()),
            why: bottleneck.map(|bottleneck| bottleneck.describe(&self.topology)),
            queue: None,
            shortfall_kwh: None,
        }
    }
}

/// Brings the lines into the order of `names`; each must be there once. `what` is the list, and what a missing entry leaves unknown.
fn each<L, S>(
    names: &BTreeMap<String, usize>,
    lines: &[L],
    what: (&str, &str),
    id: impl Fn(&L) -> &String,
    make: impl Fn(usize, &L) -> Result<S, String>,
) -> Result<Vec<S>, String> {
    let mut states: Vec<Option<S>> = Vec::new();
    states.resize_with(names.len(), || None);
    for (at, line) in lines.iter().enumerate() {
        let id = id(line);
        let place = format!("{}[{at}] ({id})", what.0);
        let index = *names.get(id).ok_or_else(|| format!("{place}: not in the site line"))?;
        let state = make(index, line).map_err(|why| format!("{place}: {why}"))?;
        if states[index].replace(state).is_some() {
            return Err(format!("{place}: listed twice"));
        }
    }
    for (id, index) in names {
        if states[*index].is_none() {
            return Err(format!("{}: {id} is missing; a state lists each with its {}", what.0, what.1));
        }
    }
    Ok(states.into_iter().flatten().collect())
}

fn to_circuit(wire: &WireCircuit, names: &BTreeMap<String, usize>) -> Result<Circuit, String> {
    let parent = match &wire.parent {
        None if names.is_empty() => None,
        None => return Err("parent is missing; only the first circuit has none".to_owned()),
        Some(_) if names.is_empty() => {
            return Err("the first circuit is the grid connection point and has no parent".to_owned());
        }
        Some(parent) => Some(find(names, parent, "parent")?),
    };
    let unbalance = wire.max_unbalance_a.map(|limit| amps(limit, f64::floor)).transpose();
    Ok(Circuit {
        id: CircuitId::new(&wire.id),
        parent: parent.map(CircuitIndex),
        limit: phases(wire.limit_a, f64::floor).map_err(|why| format!("limit_a: {why}"))?,
        meter: None,
        unmeasured_load: None,
        max_unbalance: unbalance.map_err(|why| format!("max_unbalance_a: {why}"))?,
        max_power: watts(wire.limit_w, "limit_w")?,
        short_time: None,
    })
}

fn to_station(wire: &WireEvse, names: &BTreeMap<String, usize>) -> Result<Station, String> {
    let current =
        |value: f64, name: &str, round: fn(f64) -> f64| amps(value, round).map_err(|why| format!("{name}: {why}"));
    let min = current(wire.min_a, "min_a", f64::ceil)?;
    let max = current(wire.max_a, "max_a", f64::floor)?;
    let fallback = current(wire.fallback_a, "fallback_a", f64::ceil)?;
    if min <= Current::ZERO || min > max || fallback > max {
        return Err("must be 0 < min_a ≤ max_a and 0 ≤ fallback_a ≤ max_a".to_owned());
    }
    let weight = wire.weight.unwrap_or(1);
    if !(1..=1000).contains(&weight) {
        return Err(format!("weight: must be 1 to 1000, not {weight}"));
    }
    let levels: Result<Vec<Current>, String> =
        wire.levels_a.iter().map(|level| current(*level, "levels_a", f64::floor)).collect();
    let levels: Vec<Current> = levels?.into_iter().filter(|level| *level > Current::ZERO).collect();
    if !levels.is_sorted() {
        return Err("levels_a: must be rising".to_owned());
    }
    let step = current(wire.step_a.unwrap_or(0.1), "step_a", f64::ceil)?;
    Ok(Station {
        id: StationId::new(&wire.id),
        circuit: CircuitIndex(find(names, &wire.circuit, "circuit")?),
        model: StationModel { step, levels, ..StationModel::default() },
        wiring: wiring(wire)?,
        max,
        min,
        fallback,
        evse_count: 1,
        priority: wire.priority,
        weight,
        dc: None,
        password: None,
    })
}

fn wiring(wire: &WireEvse) -> Result<Wiring, String> {
    let expected = r#"phases: must be a list of one to three different ones of "L1", "L2", "L3", or "unknown""#;
    let phase = |value: &Value| Phase::ALL.into_iter().find(|phase| value.as_str() == Some(&phase.to_string()));
    match (&wire.phases, wire.terminals) {
        (Value::String(unknown), terminals) if unknown == "unknown" => {
            Wiring::unknown(terminals.unwrap_or(3)).ok_or_else(|| "terminals: must be 1, 2 or 3".to_owned())
        }
        (_, Some(_)) => Err(r#"terminals: only with "phases": "unknown"; otherwise they are counted"#.to_owned()),
        (Value::Array(list), None) => {
            let phases: Option<Vec<Phase>> = list.iter().map(phase).collect();
            phases.and_then(|phases| Wiring::new(&phases)).ok_or_else(|| expected.to_owned())
        }
        (_, None) => Err(expected.to_owned()),
    }
}

fn add_name(names: &mut BTreeMap<String, usize>, id: &str, index: usize) -> Result<(), String> {
    if id.is_empty() {
        return Err("id: must not be empty".to_owned());
    }
    names.insert(id.to_owned(), index).map_or(Ok(()), |_| Err("id: there is another one of this name".to_owned()))
}

fn find(names: &BTreeMap<String, usize>, id: &str, key: &str) -> Result<usize, String> {
    names.get(id).copied().ok_or_else(|| format!("{key}: there is no circuit {id:?} before this one"))
}

fn number(value: f64, least: f64, most: f64) -> Result<f64, String> {
    if (least..=most).contains(&value) { Ok(value) } else { Err(format!("must be {least} to {most}, not {value}")) }
}

/// A whole number of at most 10¹⁵.
fn integer(value: f64) -> Result<i64, String> {
    format!("{value:.0}").parse().map_err(|_| format!("{value} is out of range"))
}

/// A tolerance of a millionth keeps 16.3 A from becoming 16.299 A.
fn thousandths(value: f64, round: fn(f64) -> f64) -> Result<i32, String> {
    let scaled = value * 1000.0;
    let near = scaled.round();
    let rounded = if (scaled - near).abs() < 1e-6 { near } else { round(scaled) };
    format!("{rounded:.0}").parse().map_err(|_| format!("{value} is out of range"))
}

fn amps(value: f64, round: fn(f64) -> f64) -> Result<Current, String> {
    thousandths(number(value, 0.0, MOST_A)?, round).map(Current::from_ma)
}

fn watts(value: Option<f64>, name: &str) -> Result<Option<Power>, String> {
    let whole = value.map(|value| number(value, 0.0, MOST_W).and_then(|value| integer(value.floor()))).transpose();
    Ok(whole.map_err(|why| format!("{name}: {why}"))?.map(Power::from_w))
}

fn phases(values: Phases, round: fn(f64) -> f64) -> Result<PerPhase<Current>, String> {
    let [l1, l2, l3] = values;
    Ok(PerPhase::new(amps(l1, round)?, amps(l2, round)?, amps(l3, round)?))
}

fn time(seconds: f64) -> Result<Mono, String> {
    let ms = integer((number(seconds, 0.0, MOST_S)? * 1000.0).floor())?;
    Ok(Mono::from_ms(u64::try_from(ms).unwrap_or(0)))
}

fn seconds(time: Mono) -> f64 {
    to_float(i64::try_from(time.ms()).unwrap_or(i64::MAX)) / 1000.0
}

/// Exact up to 2⁵³, and near enough beyond.
fn to_float(value: i64) -> f64 {
    let (high, low) = (value.div_euclid(1 << 31), value.rem_euclid(1 << 31));
    let part = |half: i64| f64::from(u32::try_from(half).unwrap_or(u32::MAX));
    part(high) * 2_147_483_648.0 + part(low)
}
