//! The fail-safe report: what may flow when every charger has lost the controller, against the limits.

use std::fmt;

use crate::engine::model::topology::{Circuit, CircuitIndex, LeaseForm, MINIMUM_OFFER, Station, Topology};
use crate::engine::units::{Current, PerPhase, Phase};

/// How many chargers a remedy names before it only counts the rest.
const MOST_NAMES: usize = 8;

/// Whether every circuit holds when all chargers have lost the controller. Made by [`failsafe`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailsafeReport {
    /// All circuits in the order of the topology.
    pub circuits: Vec<CircuitSum>,
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
    /// What to change, where the sum does not fit.
    pub remedy: Option<String>,
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

    /// Whether every phase fits.
    #[must_use]
    pub fn fits(&self) -> bool {
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
            remedy: None,
        });
    }
    for station in topology.stations() {
        for above in topology.path_to_grid(station.circuit) {
            circuits[above.0].chargers += contribution(station);
        }
    }
    add_other_loads(topology.circuits(), &mut circuits);
    for sum in circuits.iter_mut().filter(|sum| !sum.fits()) {
        sum.remedy = Some(remedy(topology, sum));
    }
    FailsafeReport { circuits }
}

/// What a silent station may draw, all its EVSEs together.
fn contribution(station: &Station) -> PerPhase<Current> {
    let each = match station.model.lease {
        LeaseForm::TxDefaultProfile => station.fallback,
        LeaseForm::None => station.max,
    };
    station.wiring.phases().spread(times(each, station.evse_count))
}

fn times(current: Current, count: usize) -> Current {
    std::iter::repeat_n(current, count).sum()
}

/// A child's load flows through its parent and is part of what is stated there; where less is stated, the children are right.
fn add_other_loads(circuits: &[Circuit], sums: &mut [CircuitSum]) {
    // Children stand after their parents, so that going backwards every child is complete before it is added.
    for (index, circuit) in circuits.iter().enumerate().rev() {
        if let Some(own) = circuit.unmeasured_load {
            let below = sums[index].other_load;
            sums[index].other_load = own.zip_with(below, Ord::max);
            sums[index].other_load_stated = true;
        }
        if let Some(parent) = circuit.parent {
            let load = sums[index].other_load;
            sums[parent.0].other_load += load;
        }
    }
}

/// What to change so that the circuit fits.
fn remedy(topology: &Topology, sum: &CircuitSum) -> String {
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
        below.into_iter().partition(|station| station.model.lease != LeaseForm::None);
    let (lowered, left) = lower_to_zero(&leased, sum.excess());
    let mut parts = Vec::new();
    if !lowered.is_empty() {
        parts.push(format!("lower fallback_a of {} to 0", names(&lowered)));
    }
    if left.max() > Current::ZERO {
        let (blocking, _) = lower_to_zero(&unleased, left);
        parts.push(format!(
            "move {} to another circuit or lower max_a there (their model has no lease: they count at max_a)",
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
    use crate::engine::model::ids::{CircuitId, SiteId, StationId};
    use crate::engine::model::topology::{StationModel, Wiring};
    use crate::engine::units::Voltage;

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
}
