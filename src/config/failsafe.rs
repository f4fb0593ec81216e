//! The fail-safe report: what may flow when every charger has lost the controller, against the limits.

use std::fmt;

use crate::engine::model::topology::{CircuitIndex, InverterRole, LeaseForm, MINIMUM_OFFER, Station, Topology};
use crate::engine::site::writes::stretched;
use crate::engine::units::{Current, PerPhase, Phase, Power, Voltage};

/// From here on a lease is worth a word: a building changes its load in that time.
const LONG_LEASE_MS: u64 = 15 * 60_000;

/// How many chargers a remedy names before it only counts the rest.
const MOST_NAMES: usize = 8;

/// Whether every circuit holds when all chargers have lost the controller. Made by [`failsafe`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailsafeReport {
    /// All circuits in the order of the topology.
    pub circuits: Vec<CircuitSum>,
    /// The longest that a charger may hold its last limit before it falls back, in ms, and the chargers that do for long.
    pub slow: Vec<(String, u64)>,
}

/// The sums of one circuit, each per phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CircuitSum {
    /// Which circuit.
    pub circuit: CircuitIndex,
    /// Its name.
    pub id: String,
    /// How many circuits are above it.
    pub depth: usize,
    /// Its limit.
    pub limit: PerPhase<Current>,
    /// What everything but the chargers is taken to draw: the larger of its own unmeasured load and the sum of its children's.
    pub other_load: PerPhase<Current>,
    /// Whether an unmeasured load is stated for it; if not, only those of the circuits below count.
    pub other_load_stated: bool,
    /// The sum of what the chargers below may draw.
    pub chargers: PerPhase<Current>,
    /// The same on all phases together, where the circuit has a limit of power.
    pub power: Option<PowerSum>,
    /// What to change, where the sum does not fit.
    pub remedy: Option<String>,
}

/// The sums of one circuit as apparent power on all phases together, which is never below the active power.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PowerSum {
    /// Its limit.
    pub limit: Power,
    /// What everything but the chargers is taken to draw.
    pub other_load: Power,
    /// The sum of what the chargers below may draw.
    pub chargers: Power,
}

impl PowerSum {
    /// By how much it is above its limit; zero or less where it fits.
    fn excess(&self) -> Power {
        self.other_load + self.chargers - self.limit
    }
}

impl CircuitSum {
    /// What may flow on each phase.
    #[must_use]
    pub fn sum(&self) -> PerPhase<Current> {
        self.other_load + self.chargers
    }

    /// By how much each phase is above its limit; zero or less where it fits.
    fn excess(&self) -> PerPhase<Current> {
        self.sum() - self.limit
    }

    /// Whether every phase fits, and the power of all together.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.phases_fit() && self.power.as_ref().is_none_or(|power| power.excess() <= Power::ZERO)
    }

    fn phases_fit(&self) -> bool {
        self.excess().max() <= Current::ZERO
    }

    /// The phase that is furthest above its limit (or nearest to it).
    fn worst_phase(&self) -> Phase {
        let excess = self.excess();
        Phase::ALL.into_iter().rev().max_by_key(|phase| excess.of(*phase)).unwrap_or(Phase::L1)
    }
}

impl FailsafeReport {
    /// Whether every phase of every circuit fits.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        self.circuits.iter().all(CircuitSum::fits)
    }

    /// One sentence for an alarm: which circuits do not fit and what to change. `None` where all fit.
    #[must_use]
    pub fn summary(&self) -> Option<String> {
        let failing: Vec<String> = self.circuits.iter().filter(|sum| !sum.fits()).map(describe).collect();
        if failing.is_empty() { None } else { Some(format!("NOT fail-safe: {}", failing.join("; "))) }
    }
}

fn describe(sum: &CircuitSum) -> String {
    let phase = sum.worst_phase();
    let remedy = sum.remedy.as_deref().unwrap_or_default();
    if let Some(power) = sum.power.as_ref().filter(|_| sum.phases_fit()) {
        let carries = power.other_load + power.chargers;
        return format!("circuit {} may carry {carries} with a limit of {}: {remedy}", sum.id, power.limit);
    }
    format!(
        "circuit {} {phase} may carry {} with a limit of {}: {remedy}",
        sum.id,
        sum.sum().of(phase),
        sum.limit.of(phase)
    )
}

/// Adds up, for each circuit and phase, what every charger below it may draw when it has lost the controller and the load that
/// nobody measures. A charger whose model has no working lease counts at its maximum.
#[must_use]
pub fn failsafe(topology: &Topology) -> FailsafeReport {
    let mut circuits: Vec<CircuitSum> = Vec::new();
    for (index, circuit) in topology.circuits().iter().enumerate() {
        let index = CircuitIndex(index);
        circuits.push(CircuitSum {
            circuit: index,
            id: circuit.id.to_string(),
            depth: topology.path_to_grid(index).count() - 1,
            limit: circuit.limit,
            other_load: PerPhase::splat(Current::ZERO),
            other_load_stated: false,
            chargers: PerPhase::splat(Current::ZERO),
            power: circuit.max_power.map(|limit| PowerSum { limit, ..PowerSum::default() }),
            remedy: None,
        });
    }
    for station in topology.stations() {
        for above in topology.path_to_grid(station.circuit) {
            circuits[above.0].chargers += contribution(station);
            if let Some(power) = &mut circuits[above.0].power {
                power.chargers += power_of(station, topology.voltage());
            }
        }
    }
    add_other_loads(topology, &mut circuits);
    for sum in &mut circuits {
        let other_load: Power = sum.other_load.iter().map(|(_, load)| apparent(*load, topology.voltage())).sum();
        if let Some(power) = &mut sum.power {
            power.other_load = other_load;
        }
    }
    for sum in circuits.iter_mut().filter(|sum| !sum.fits()) {
        sum.remedy = Some(remedy(topology, sum));
    }
    let slow = topology.stations().iter().filter_map(|station| {
        let model = &station.model;
        let terms = (model.renew_ms, model.lease_ms);
        let (_, lease_ms) = stretched(model.writes_per_day, station.evse_count, terms);
        let holds_ms = model.holds_ms(lease_ms);
        (model.lease.is_stated() && holds_ms > LONG_LEASE_MS).then(|| (station.id.to_string(), holds_ms))
    });
    let slow = slow.collect();
    FailsafeReport { circuits, slow }
}

/// What a silent station may draw, all its EVSEs together: on every phase that they may use, where the wiring is not known.
fn contribution(station: &Station) -> PerPhase<Current> {
    station.wiring.phases().spread(times(each(station), station.evse_count))
}

/// What one EVSE of a silent station may draw from a phase.
const fn each(station: &Station) -> Current {
    match station.model.lease {
        LeaseForm::TxDefaultProfile | LeaseForm::TwoLevels | LeaseForm::TxProfile | LeaseForm::MaxOfflineDuration => {
            station.fallback
        }
        // What the probe will find is not known here.
        LeaseForm::Auto | LeaseForm::None => station.max,
    }
}

/// What a silent station may draw on all phases together: by its terminals, whichever phases they are on.
fn power_of(station: &Station, voltage: Voltage) -> Power {
    let count = station.evse_count * station.wiring.terminals();
    std::iter::repeat_n(apparent(each(station), voltage), count).sum()
}

/// The apparent power of a current on one phase, rounded up.
fn apparent(current: Current, voltage: Voltage) -> Power {
    let exact = current.power_at(voltage);
    if exact.current_at(voltage).is_some_and(|back| back < current) { exact + Power::from_w(1) } else { exact }
}

fn times(current: Current, count: usize) -> Current {
    std::iter::repeat_n(current, count).sum()
}

/// A child's load flows through its parent and is part of what is stated there; where less is stated, the children are right. Batteries whose
/// rated current is stated count with it: they are not part of the unmeasured load.
fn add_other_loads(topology: &Topology, sums: &mut [CircuitSum]) {
    // Children stand after their parents, so that going backwards every child is complete before it is added.
    for (index, circuit) in topology.circuits().iter().enumerate().rev() {
        let (here, inside) = batteries(topology, CircuitIndex(index));
        let below = sums[index].other_load + here;
        sums[index].other_load = below;
        if let Some(own) = circuit.unmeasured_load {
            sums[index].other_load = (own + inside).zip_with(below, Ord::max);
            sums[index].other_load_stated = true;
        }
        if let Some(parent) = circuit.parent {
            let load = sums[index].other_load;
            sums[parent.0].other_load += load;
        }
    }
}

/// The rated currents of the batteries in a circuit itself, and of all inside it.
fn batteries(topology: &Topology, circuit: CircuitIndex) -> (PerPhase<Current>, PerPhase<Current>) {
    let (mut here, mut inside) = (Current::ZERO, Current::ZERO);
    for inverter in topology.inverters() {
        let rated = match inverter.role {
            InverterRole::Battery | InverterRole::Hybrid => inverter.max.unwrap_or_default(),
            InverterRole::Pv => Current::ZERO,
        };
        if inverter.circuit == circuit {
            here += rated;
        }
        if topology.path_to_grid(inverter.circuit).any(|above| above == circuit) {
            inside += rated;
        }
    }
    (PerPhase::splat(here), PerPhase::splat(inside))
}

/// What to change so that the circuit fits.
fn remedy(topology: &Topology, sum: &CircuitSum) -> String {
    if sum.phases_fit() {
        return "lower fallback_a (dc_fallback_w) of chargers there, or correct unmeasured_load_a or the limit of power".to_owned();
    }
    let load_excess = sum.other_load - sum.limit;
    if load_excess.max() > Current::ZERO {
        return "the load that is not measured is above the limit by itself; correct unmeasured_load_a or limit_a"
            .to_owned();
    }
    let below: Vec<&Station> = topology
        .stations()
        .iter()
        .filter(|station| topology.path_to_grid(station.circuit).any(|above| above == sum.circuit))
        .collect();
    let (leased, unleased): (Vec<&Station>, Vec<&Station>) =
        below.into_iter().partition(|station| station.model.lease.is_stated());
    let (lowered, left) = lower_to_zero(&leased, sum.excess());
    let mut parts = Vec::new();
    if !lowered.is_empty() {
        parts.push(format!("lower fallback_a of {} to 0", names(&lowered)));
    }
    if left.max() > Current::ZERO {
        let (blocking, _) = lower_to_zero(&unleased, left);
        parts.push(format!(
            "move {} to another circuit or lower max_a there (their model states no lease: they count at max_a)",
            names(&blocking)
        ));
    }
    let alternative = common_fallback(&leased, &unleased, sum).map_or_else(String::new, |common| {
        format!(", or set fallback_a of all {} chargers there to at most {common}", leased.len())
    });
    format!("{}{alternative}", parts.join(" and "))
}

/// The chargers to take out, largest first, until nothing is in excess; and what is still in excess after all of them.
fn lower_to_zero<'s>(stations: &[&'s Station], mut excess: PerPhase<Current>) -> (Vec<&'s Station>, PerPhase<Current>) {
    let mut candidates: Vec<&Station> = stations.to_vec();
    candidates.sort_by_key(|station| std::cmp::Reverse(contribution(station).max()));
    let mut lowered = Vec::new();
    for station in candidates {
        let share = contribution(station);
        let helps = share.zip_with(excess, |share, excess| share > Current::ZERO && excess > Current::ZERO);
        if helps.iter().any(|(_, helps)| *helps) {
            excess = excess - share;
            lowered.push(station);
        }
    }
    lowered.sort_by(|a, b| a.id.cmp(&b.id));
    (lowered, excess)
}

/// The largest fallback that fits if all chargers with a lease have the same. `None` if it is below the least that can be offered,
/// or if there is only one charger, for which it says nothing new.
fn common_fallback(leased: &[&Station], unleased: &[&Station], sum: &CircuitSum) -> Option<Current> {
    if leased.len() < 2 {
        return None;
    }
    let fixed = unleased.iter().fold(sum.other_load, |fixed, station| fixed + contribution(station));
    let mut common = leased.iter().map(|station| station.max).min()?;
    for phase in Phase::ALL {
        let count: usize = leased
            .iter()
            .filter(|station| station.wiring.phases().contains(phase))
            .map(|station| station.evse_count)
            .sum();
        let Some(count) = i32::try_from(count).ok().filter(|count| *count > 0) else { continue };
        let room = sum.limit.of(phase) - fixed.of(phase);
        common = common.min(Current::from_ma(room.ma() / count));
    }
    let common = common.floor_to(Current::from_ma(100));
    (common >= MINIMUM_OFFER).then_some(common)
}

fn names(stations: &[&Station]) -> String {
    let mut names: Vec<String> = stations.iter().take(MOST_NAMES).map(|station| station.id.to_string()).collect();
    if stations.len() > MOST_NAMES {
        names.push(format!("{} more", stations.len() - MOST_NAMES));
    }
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

impl fmt::Display for FailsafeReport {
    /// An aligned table, then the verdict; every line ends with a newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![["circuit", "phase", "limit", "other load", "chargers", "sum", ""].map(str::to_owned)];
        for sum in &self.circuits {
            for phase in Phase::ALL {
                rows.push(row(sum, phase));
            }
            rows.extend(sum.power.as_ref().map(power_row));
        }
        writeln!(f, "What may flow when every charger has lost the controller:")?;
        let widths: Vec<usize> = (0..rows[0].len())
            .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        for row in &rows {
            let mut line = format!("  {:<width$}  {:<5}", row[0], row[1], width = widths[0]);
            for (cell, width) in row.iter().zip(&widths).skip(2).take(4) {
                line.push_str(&format!("  {cell:>width$}"));
            }
            line.push_str(&format!("  {}", row[6]));
            writeln!(f, "{}", line.trim_end())?;
        }
        for sum in self.circuits.iter().filter(|sum| !sum.other_load_stated) {
            writeln!(
                f,
                "Circuit {}: no unmeasured_load_a is stated, so only chargers and the circuits below it count.",
                sum.id
            )?;
        }
        for (charger, lease_ms) in self.slow.iter().take(MOST_NAMES) {
            let minutes = lease_ms.div_ceil(60_000);
            writeln!(f, "Charger {charger}: holds its last limit for up to {minutes} minutes before it falls back.")?;
        }
        if self.slow.len() > MOST_NAMES {
            writeln!(f, "And {} more chargers hold theirs for long.", self.slow.len() - MOST_NAMES)?;
        }
        if self.is_safe() {
            return writeln!(f, "fail-safe: every circuit and phase stays within its limit.");
        }
        writeln!(f, "NOT fail-safe:")?;
        for sum in self.circuits.iter().filter(|sum| !sum.fits()) {
            writeln!(f, "  {}", describe(sum))?;
        }
        Ok(())
    }
}

fn power_row(power: &PowerSum) -> [String; 7] {
    let excess = power.excess();
    let verdict = if excess > Power::ZERO { format!("{excess} too much") } else { "fits".to_owned() };
    [
        String::new(),
        "all".to_owned(),
        power.limit.to_string(),
        power.other_load.to_string(),
        power.chargers.to_string(),
        (power.other_load + power.chargers).to_string(),
        verdict,
    ]
}

fn row(sum: &CircuitSum, phase: Phase) -> [String; 7] {
    let name = if phase == Phase::L1 { format!("{}{}", "  ".repeat(sum.depth), sum.id) } else { String::new() };
    let excess = sum.excess().of(phase);
    let verdict = if excess > Current::ZERO { format!("{excess} too much") } else { "fits".to_owned() };
    let other_load = if sum.other_load_stated || sum.other_load.of(phase) > Current::ZERO {
        sum.other_load.of(phase).to_string()
    } else {
        "-".to_owned()
    };
    [
        name,
        phase.to_string(),
        sum.limit.of(phase).to_string(),
        other_load,
        sum.chargers.of(phase).to_string(),
        sum.sum().of(phase).to_string(),
        verdict,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::model::exchange::OcppVersion;
    use crate::engine::model::ids::InverterId;
    use crate::engine::model::ids::{CircuitId, SiteId, StationId};
    use crate::engine::model::topology::{Circuit, Inverter, StationModel, Wiring};

    fn circuit(id: &str, parent: Option<usize>, limit_a: i32, load_a: Option<i32>) -> Circuit {
        Circuit {
            id: CircuitId::new(id),
            parent: parent.map(CircuitIndex),
            limit: PerPhase::splat(Current::from_a(limit_a)),
            meter: None,
            unmeasured_load: load_a.map(|load| PerPhase::splat(Current::from_a(load))),
            max_unbalance: None,
            max_power: None,
            short_time: None,
        }
    }

    fn station(id: &str, circuit: usize, fallback_a: i32) -> Station {
        Station {
            id: StationId::new(id),
            circuit: CircuitIndex(circuit),
            model: StationModel::default(),
            wiring: Wiring::STRAIGHT,
            max: Current::from_a(32),
            min: Current::from_a(6),
            fallback: Current::from_a(fallback_a),
            evse_count: 1,
            priority: 0,
            weight: 1,
            dc: None,
            password: None,
        }
    }

    fn report(circuits: Vec<Circuit>, stations: Vec<Station>) -> FailsafeReport {
        let devices = (Vec::new(), Vec::new());
        let site = SiteId::new("s");
        failsafe(&Topology::new(site, Voltage::from_mv(230_000), circuits, stations, devices).unwrap())
    }

    #[test]
    fn fallbacks_add_up_through_all_circuits_above() {
        let circuits = vec![circuit("grid", None, 40, Some(10)), circuit("a", Some(0), 16, None)];
        let report = report(circuits, vec![station("1", 1, 6), station("2", 1, 6), station("3", 0, 10)]);
        assert!(report.is_safe());
        assert_eq!(report.summary(), None);
        assert_eq!(report.circuits[0].sum(), PerPhase::splat(Current::from_a(32)));
        assert_eq!(report.circuits[1].sum(), PerPhase::splat(Current::from_a(12)));
    }

    #[test]
    fn a_sum_that_equals_the_limit_fits_and_a_milliampere_more_does_not() {
        let circuits = |limit| vec![Circuit { limit: PerPhase::splat(limit), ..circuit("grid", None, 0, Some(10)) }];
        assert!(report(circuits(Current::from_a(16)), vec![station("1", 0, 6)]).is_safe());
        assert!(!report(circuits(Current::from_ma(15_999)), vec![station("1", 0, 6)]).is_safe());
    }

    #[test]
    fn each_evse_counts_and_rotation_decides_the_phase() {
        let single = Station { wiring: Wiring::new(&[Phase::L3]).unwrap(), evse_count: 2, ..station("1", 0, 6) };
        let report = report(vec![circuit("grid", None, 10, Some(0))], vec![single]);
        let zero = Current::ZERO;
        assert_eq!(report.circuits[0].sum(), PerPhase::new(zero, zero, Current::from_a(12)));
        let summary = report.summary().unwrap();
        assert!(
            summary.starts_with("NOT fail-safe: circuit grid L3 may carry 12.0 A with a limit of 10.0 A"),
            "{summary}"
        );
    }

    #[test]
    fn each_form_counts_as_what_it_is_known_to_do() {
        let of = |lease| {
            let mut one = station("x", 0, 6);
            one.model.lease = lease;
            report(vec![circuit("grid", None, 32, Some(0))], vec![one]).circuits[0].chargers.max()
        };
        for &lease in LeaseForm::tried(OcppVersion::V21) {
            assert_eq!(of(lease), Current::from_a(6), "{lease:?}");
        }
        // Nobody knows here what a probe will find.
        assert_eq!(of(LeaseForm::Auto), Current::from_a(32));
        assert_eq!(of(LeaseForm::None), Current::from_a(32));
    }

    #[test]
    fn a_lease_of_hours_is_named() {
        let mut frugal = station("easee", 0, 6);
        frugal.model.writes_per_day = Some(25);
        let text = report(vec![circuit("grid", None, 32, Some(0))], vec![frugal]).to_string();
        assert!(
            text.contains("Charger easee: holds its last limit for up to 232 minutes before it falls back."),
            "{text}"
        );
    }

    #[test]
    fn a_station_without_a_lease_counts_at_its_maximum() {
        let mut bare = station("bare", 0, 0);
        bare.model.lease = LeaseForm::None;
        let report = report(vec![circuit("grid", None, 25, Some(0))], vec![bare, station("good", 0, 6)]);
        assert_eq!(report.circuits[0].chargers.max(), Current::from_a(38));
        let summary = report.summary().unwrap();
        assert!(summary.contains("lower fallback_a of good to 0 and move bare to another circuit"), "{summary}");
    }

    #[test]
    fn childrens_load_is_part_of_the_parents() {
        let circuits = vec![
            circuit("grid", None, 100, Some(30)),
            circuit("a", Some(0), 50, Some(20)),
            circuit("b", Some(0), 50, Some(20)),
        ];
        // 30 A are stated for the whole, but 20 A + 20 A below are more.
        assert_eq!(report(circuits, Vec::new()).circuits[0].other_load.max(), Current::from_a(40));
        let circuits = vec![circuit("grid", None, 100, Some(60)), circuit("a", Some(0), 50, Some(20))];
        assert_eq!(report(circuits, Vec::new()).circuits[0].other_load.max(), Current::from_a(60));
    }

    #[test]
    fn the_remedy_names_the_fewest_chargers_and_a_common_fallback() {
        let stations = (1..=4).map(|number| station(&format!("CP00{number}"), 0, 10)).collect();
        let summary = report(vec![circuit("grid", None, 32, Some(0))], stations).summary().unwrap();
        assert_eq!(
            summary,
            "NOT fail-safe: circuit grid L1 may carry 40.0 A with a limit of 32.0 A: lower fallback_a of CP001 to 0, or set \
             fallback_a of all 4 chargers there to at most 8.0 A"
        );
    }

    #[test]
    fn a_load_above_the_limit_has_its_own_remedy() {
        let summary = report(vec![circuit("grid", None, 32, Some(40))], vec![station("1", 0, 6)]).summary().unwrap();
        assert!(summary.contains("above the limit by itself"), "{summary}");
    }

    #[test]
    fn a_limit_of_power_counts_what_all_phases_carry_together() {
        let grid = Circuit { max_power: Some(Power::from_w(20_000)), ..circuit("grid", None, 40, Some(15)) };
        let single = Station { wiring: Wiring::new(&[Phase::L2]).unwrap(), ..station("1", 0, 16) };
        // 3 × 15 A and 16 A at 230 V.
        let report = report(vec![grid.clone()], vec![single.clone()]);
        let power = report.circuits[0].power.clone().unwrap();
        assert_eq!((power.other_load.w(), power.chargers.w()), (10_350, 3_680));
        assert!(report.is_safe());
        let report =
            self::report(vec![grid], vec![single.clone(), Station { id: StationId::new("2"), ..station("2", 0, 9) }]);
        let summary = report.summary().unwrap();
        assert!(summary.contains("circuit grid may carry 20240 W with a limit of 20000 W"), "{summary}");
        assert!(report.to_string().contains("240 W too much"), "{report}");
    }

    #[test]
    fn a_station_with_unknown_wiring_counts_on_every_phase_and_once_in_power() {
        let grid = Circuit { max_power: Some(Power::from_w(2_000)), ..circuit("grid", None, 10, Some(0)) };
        let unknown = Station { wiring: Wiring::unknown(1).unwrap(), ..station("1", 0, 6) };
        let report = report(vec![grid], vec![unknown]);
        assert_eq!(report.circuits[0].sum(), PerPhase::splat(Current::from_a(6)));
        assert_eq!(report.circuits[0].power.clone().unwrap().chargers, Power::from_w(1_380));
    }

    #[test]
    fn a_battery_counts_with_its_rated_current_and_solar_panels_do_not() {
        let inverter = |id: &str, role, circuit| Inverter {
            id: InverterId::new(id),
            role,
            circuit: CircuitIndex(circuit),
            stale_after_ms: 30_000,
            max: Some(Current::from_a(16)),
        };
        let circuits = vec![circuit("grid", None, 40, Some(10)), circuit("a", Some(0), 30, None)];
        let devices = vec![inverter("b", InverterRole::Battery, 1), inverter("pv", InverterRole::Pv, 0)];
        let topology = Topology::new(SiteId::new("s"), Voltage::from_mv(230_000), circuits, vec![], (vec![], devices));
        let report = failsafe(&topology.unwrap());
        assert_eq!(report.circuits[0].other_load.max(), Current::from_a(26));
        assert_eq!(report.circuits[1].other_load.max(), Current::from_a(16));
    }
}
