//! What is wired to what: circuits, stations, meters, inverters. Checked once, then trusted.

use super::ids::{CircuitId, InverterId, MeterId, SiteId, StationId};
pub use super::station_model::{LeaseForm, LimitUnit, StationModel};
use crate::engine::units::{Current, PerPhase, Phase, PhaseSet, Power, Voltage};

/// The smallest current that IEC 61851-1 lets a station offer by its control pilot.
pub const MINIMUM_OFFER: Current = Current::from_a(6);

macro_rules! index {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub usize);
    };
}

index!(
    /// A circuit's place in [`Topology::circuits`]: parents stand before their children, the grid connection point is 0.
    CircuitIndex
);
index!(
    /// A station's place in [`Topology::stations`].
    StationIndex
);
index!(
    /// An EVSE's place in [`Topology::evses`].
    EvseIndex
);
index!(
    /// A meter's place in [`Topology::meters`].
    MeterIndex
);
index!(
    /// An inverter's place in [`Topology::inverters`].
    InverterIndex
);

/// Which grid phases a station's terminals L1, L2, L3 are wired to (rotation).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wiring {
    terminals: [Option<Phase>; 3],
    /// The order is not known: each terminal may be on any phase, so every phase counts as if it were the worst.
    unknown: bool,
}

impl Wiring {
    /// Terminals and phases in the same order.
    pub const STRAIGHT: Self = Self { terminals: [Some(Phase::L1), Some(Phase::L2), Some(Phase::L3)], unknown: false };

    /// The grid phase at each terminal in order. `None` unless it has one, two or three different phases.
    #[must_use]
    pub fn new(phases: &[Phase]) -> Option<Self> {
        let set: PhaseSet = phases.iter().copied().collect();
        if phases.is_empty() || phases.len() > 3 || set.len() as usize != phases.len() {
            return None;
        }
        let mut terminals = [None; 3];
        for (terminal, phase) in terminals.iter_mut().zip(phases) {
            *terminal = Some(*phase);
        }
        Some(Self { terminals, unknown: false })
    }

    /// A station with `terminals` terminals, 1 to 3, of which nobody knows to which phase each is wired. `None` for another number.
    #[must_use]
    pub fn unknown(terminals: usize) -> Option<Self> {
        let straight = Self::new(Phase::ALL.get(..terminals)?)?;
        Some(Self { unknown: true, ..straight })
    }

    /// Whether the order of the phases is known.
    #[must_use]
    pub const fn is_known(self) -> bool {
        !self.unknown
    }

    /// How many terminals are wired, 1 to 3.
    #[must_use]
    pub fn terminals(self) -> usize {
        self.terminals.iter().flatten().count()
    }

    /// The grid phase that the station's terminal is wired to; `None` if there is none, or it is not known.
    #[must_use]
    pub const fn grid_phase(self, terminal: Phase) -> Option<Phase> {
        if self.unknown { None } else { self.terminals[terminal.index()] }
    }

    /// The grid phases that may carry the station's current: all three where the order is not known.
    #[must_use]
    pub fn phases(self) -> PhaseSet {
        if self.unknown { PhaseSet::ALL } else { self.terminals.iter().flatten().copied().collect() }
    }

    /// Values at the station's terminals as values on the grid's phases; `None` on a phase that is not wired, and on all of them where
    /// the order is not known.
    #[must_use]
    pub fn to_grid<T: Copy>(self, at_terminals: PerPhase<Option<T>>) -> PerPhase<Option<T>> {
        let mut grid = PerPhase::splat(None);
        for (terminal, value) in at_terminals.iter() {
            if let Some(phase) = self.grid_phase(terminal) {
                *grid.get_mut(phase) = *value;
            }
        }
        grid
    }
}

impl Wiring {
    /// Currents measured at the terminals as what flows on each grid phase: for certain, and at the most. Where the order is not known,
    /// each phase may carry the largest of them, and carries for certain only the smallest, if every phase has a terminal.
    #[must_use]
    pub fn attribute(self, at_terminals: PerPhase<Option<Current>>) -> (PerPhase<Current>, PerPhase<Current>) {
        if !self.unknown {
            let known = self.to_grid(at_terminals).map(Option::unwrap_or_default);
            return (known, known);
        }
        let wired = self.terminals.iter().zip(at_terminals.iter()).filter(|(terminal, _)| terminal.is_some());
        let values: Vec<Option<Current>> = wired.map(|(_, (_, value))| *value).collect();
        let largest = values.iter().flatten().copied().max().unwrap_or_default();
        let smallest = values.iter().map(|value| value.unwrap_or_default()).min().unwrap_or_default();
        let sure = if values.len() == Phase::ALL.len() { smallest } else { Current::ZERO };
        (PerPhase::splat(sure), PerPhase::splat(largest))
    }
}

/// A part of the site's wiring behind one protective device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circuit {
    /// Its name.
    pub id: CircuitId,
    /// The circuit that feeds it; `None` for the grid connection point.
    pub parent: Option<CircuitIndex>,
    /// The most current that may flow on each phase.
    pub limit: PerPhase<Current>,
    /// The meter that measures all that flows through it, stations included.
    pub meter: Option<MeterIndex>,
    /// What everything but the stations is assumed to draw on each phase while there is no fresh reading. `None`: nothing is known,
    /// so without a reading nothing may be given out beyond the fallbacks (with no meter at all: there is no other load).
    pub unmeasured_load: Option<PerPhase<Current>>,
    /// The largest difference between two phases that stations below may cause.
    pub max_unbalance: Option<Current>,
    /// The most power that may flow on all phases together. Counted as apparent power (nominal voltage × current, summed), which
    /// is never below the active power, so that it serves for a limit in W and in VA.
    pub max_power: Option<Power>,
    /// What the protective device carries for a short time beyond `limit`.
    pub short_time: Option<ShortTime>,
}

/// The short-time rating of a circuit: `limit` is its continuous rating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortTime {
    /// The current per phase, at least the continuous limit.
    pub limit: Current,
    /// For how long at a stretch, in ms; as long again must pass below the continuous limit before it may be used again.
    pub lasts_ms: u64,
}

/// A station with DC outputs. Its limits are watts at the output; circuits count what it draws from the AC side for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DcSupply {
    /// The most power at one output.
    pub max: Power,
    /// The least power at one output; below it is a pause.
    pub min: Power,
    /// Output power per 1000 W of active power drawn, 1 to 1000.
    pub efficiency_permille: u16,
    /// Active power per 1000 VA, 1 to 1000.
    pub power_factor_permille: u16,
}

impl DcSupply {
    /// What one output draws from each AC phase while it gives `output`: for certain (as if nothing were lost), and at the most.
    /// `None` where the voltage is not positive.
    #[must_use]
    pub fn drawn_for(&self, output: Power, voltage: Voltage, wiring: Wiring) -> Option<(Current, Current)> {
        let terminals = i64::try_from(wiring.terminals()).ok()?.max(1);
        let output = output.w().max(0);
        let least = Power::from_w(output / terminals).current_at(voltage)?;
        Some((least, self.current_for(Power::from_w(output), voltage, wiring)?))
    }

    /// The most that one output draws from each AC phase while it gives `output`, rounded up. `None` where the voltage is not positive.
    #[must_use]
    pub fn current_for(&self, output: Power, voltage: Voltage, wiring: Wiring) -> Option<Current> {
        let terminals = i64::try_from(wiring.terminals()).ok()?.max(1);
        let factor =
            i64::from(self.efficiency_permille.max(1)) * i64::from(self.power_factor_permille.max(1)) * terminals;
        let apparent = output.w().max(0).saturating_mul(1_000_000).saturating_add(factor - 1) / factor;
        Power::from_w(apparent).current_at(voltage)
    }

    /// The power that one output may give so that it draws no more than `current` from each AC phase, rounded down.
    #[must_use]
    pub fn power_for(&self, current: Current, voltage: Voltage, wiring: Wiring) -> Power {
        let terminals = i64::try_from(wiring.terminals()).unwrap_or(1).max(1);
        let apparent = i64::from(current.ma().max(0)) * i64::from(voltage.mv().max(0)) / 1_000 * terminals;
        let active = apparent.saturating_mul(i64::from(self.power_factor_permille)) / 1_000;
        Power::from_w(active.saturating_mul(i64::from(self.efficiency_permille)) / 1_000_000)
    }
}

/// A charging station. Currents are per phase and per EVSE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Station {
    /// Its OCPP identity.
    pub id: StationId,
    /// The circuit that feeds it.
    pub circuit: CircuitIndex,
    /// What the model can do.
    pub model: StationModel,
    /// How its terminals are wired.
    pub wiring: Wiring,
    /// The most an EVSE can draw.
    pub max: Current,
    /// The least an EVSE can offer; below it is a pause.
    pub min: Current,
    /// What an EVSE may draw when the station has lost the controller.
    pub fallback: Current,
    /// How many EVSEs (connectors for OCPP 1.6) it has.
    pub evse_count: usize,
    /// Higher goes first when not everybody can be served.
    pub priority: i32,
    /// The share in a max-min fair allocation, 1 to 1000.
    pub weight: u32,
    /// Its DC outputs, if it has such; `max`, `min` and `fallback` are then what one draws from each AC phase.
    pub dc: Option<DcSupply>,
    /// The SHA-256-free plain password for HTTP basic authentication (security profile 1), if one is demanded.
    pub password: Option<Secret>,
}

/// A password. It does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Keeps `bytes` secret.
    #[must_use]
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes, for the one place that compares or sends them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// One place at a station where one car can charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evse {
    /// Its station.
    pub station: StationIndex,
    /// Its number at the station, from 1 (connectorId for OCPP 1.6, evseId for OCPP 2.x).
    pub number: u32,
    /// The circuit that feeds it.
    pub circuit: CircuitIndex,
}

/// An energy meter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meter {
    /// Its name.
    pub id: MeterId,
    /// From this age on a reading is not used any more.
    pub stale_after_ms: u64,
}

/// What an inverter is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InverterRole {
    /// Solar panels.
    Pv,
    /// A battery.
    Battery,
    /// Both.
    Hybrid,
}

/// An inverter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inverter {
    /// Its name.
    pub id: InverterId,
    /// What it is connected to.
    pub role: InverterRole,
    /// The circuit it feeds.
    pub circuit: CircuitIndex,
    /// From this age on a reading is not used any more.
    pub stale_after_ms: u64,
    /// The most current on each phase, fed in or drawn, if it is known.
    pub max: Option<Current>,
}

/// The whole site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    site: SiteId,
    voltage: Voltage,
    circuits: Vec<Circuit>,
    stations: Vec<Station>,
    /// The stations in the order of their identities: they are looked up with each of their transactions.
    by_identity: Vec<StationIndex>,
    evses: Vec<Evse>,
    first_evse: Vec<usize>,
    /// Of each EVSE, beside it: what is asked for all of them again and again should not be looked up in their stations each time.
    wirings: Vec<Wiring>,
    has_levels: Vec<bool>,
    /// Of each circuit, with all circuits that it feeds.
    evses_below: Vec<Vec<EvseIndex>>,
    meters: Vec<Meter>,
    inverters: Vec<Inverter>,
}

/// Why a topology was refused. The configuration checks the same with positions; this is the engine's own guard.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// There is no circuit, or the first one has a parent.
    #[error("the first circuit must be the grid connection point, without a parent")]
    NoRoot,
    /// A circuit's parent does not stand before it.
    #[error("circuit {0}: its parent must stand before it")]
    ParentAfterChild(CircuitId),
    /// An index points outside.
    #[error("{0} refers to something that does not exist")]
    Dangling(String),
    /// A limit or current is negative or out of order.
    #[error("{0}: currents must be 0 ≤ fallback ≤ maximum, 0 < minimum ≤ maximum, and limits at least 0")]
    Currents(String),
}

impl Topology {
    /// Checks that the parts fit together.
    ///
    /// # Errors
    /// The first fault found.
    pub fn new(
        site: SiteId,
        voltage: Voltage,
        circuits: Vec<Circuit>,
        stations: Vec<Station>,
        devices: (Vec<Meter>, Vec<Inverter>),
    ) -> Result<Self, TopologyError> {
        let (meters, inverters) = devices;
        check_circuits(&circuits, meters.len())?;
        for station in &stations {
            check_station(station, circuits.len())?;
        }
        if let Some(inverter) = inverters.iter().find(|inverter| inverter.circuit.0 >= circuits.len()) {
            return Err(TopologyError::Dangling(inverter.id.to_string()));
        }
        let mut evses = Vec::new();
        let mut first_evse = Vec::new();
        let (mut wirings, mut has_levels) = (Vec::new(), Vec::new());
        for (index, station) in stations.iter().enumerate() {
            first_evse.push(evses.len());
            for number in (1..).take(station.evse_count) {
                evses.push(Evse { station: StationIndex(index), number, circuit: station.circuit });
                wirings.push(station.wiring);
                has_levels.push(!station.model.levels.is_empty());
            }
        }
        let mut by_identity: Vec<_> = (0..stations.len()).map(StationIndex).collect();
        by_identity.sort_by_key(|index| &stations[index.0].id);
        let mut topology = Self {
            site,
            voltage,
            circuits,
            stations,
            by_identity,
            evses,
            first_evse,
            wirings,
            has_levels,
            evses_below: Vec::new(),
            meters,
            inverters,
        };
        let mut evses_below = vec![Vec::new(); topology.circuits.len()];
        for (index, evse) in topology.evses.iter().enumerate() {
            topology.path_to_grid(evse.circuit).for_each(|circuit| evses_below[circuit.0].push(EvseIndex(index)));
        }
        topology.evses_below = evses_below;
        Ok(topology)
    }

    /// The site's name.
    #[must_use]
    pub const fn site(&self) -> &SiteId {
        &self.site
    }

    /// The nominal voltage from phase to neutral.
    #[must_use]
    pub const fn voltage(&self) -> Voltage {
        self.voltage
    }

    /// All circuits, parents before children; the grid connection point is the first.
    #[must_use]
    pub fn circuits(&self) -> &[Circuit] {
        &self.circuits
    }

    /// One circuit.
    #[must_use]
    pub fn circuit(&self, index: CircuitIndex) -> &Circuit {
        &self.circuits[index.0]
    }

    /// The circuit and those that feed it, up to the grid connection point.
    pub fn path_to_grid(&self, from: CircuitIndex) -> impl Iterator<Item = CircuitIndex> {
        std::iter::successors(Some(from), |index| self.circuit(*index).parent)
    }

    /// The EVSEs that a circuit feeds, also through other circuits, in the order of all.
    #[must_use]
    pub fn evses_below(&self, circuit: CircuitIndex) -> &[EvseIndex] {
        &self.evses_below[circuit.0]
    }

    /// All stations.
    #[must_use]
    pub fn stations(&self) -> &[Station] {
        &self.stations
    }

    /// One station.
    #[must_use]
    pub fn station(&self, index: StationIndex) -> &Station {
        &self.stations[index.0]
    }

    /// The station with that identity.
    #[must_use]
    pub fn find_station(&self, id: &StationId) -> Option<StationIndex> {
        let at = self.by_identity.binary_search_by(|index| self.station(*index).id.cmp(id)).ok()?;
        Some(self.by_identity[at])
    }

    /// All stations in the order of their identities.
    #[must_use]
    pub fn by_identity(&self) -> &[StationIndex] {
        &self.by_identity
    }

    /// The circuit with that name.
    #[must_use]
    pub fn find_circuit(&self, id: &CircuitId) -> Option<CircuitIndex> {
        self.circuits.iter().position(|circuit| circuit.id == *id).map(CircuitIndex)
    }

    /// All EVSEs, in the order of their stations.
    #[must_use]
    pub fn evses(&self) -> &[Evse] {
        &self.evses
    }

    /// One EVSE.
    #[must_use]
    pub fn evse(&self, index: EvseIndex) -> Evse {
        self.evses[index.0]
    }

    /// How each EVSE is wired, in the order of all: as its station.
    #[must_use]
    pub fn wirings(&self) -> &[Wiring] {
        &self.wirings
    }

    /// The only currents that an EVSE can offer, rising, without 0; empty: every multiple of its station's step.
    #[must_use]
    pub fn levels(&self, evse: EvseIndex) -> &[Current] {
        if self.has_levels[evse.0] { &self.station(self.evse(evse).station).model.levels } else { &[] }
    }

    /// The EVSEs of a station, in order.
    pub fn evses_of(&self, station: StationIndex) -> impl Iterator<Item = EvseIndex> + use<> {
        let first = self.first_evse[station.0];
        (first..first + self.stations[station.0].evse_count).map(EvseIndex)
    }

    /// The EVSE with that number at a station. 0 and unknown numbers give `None`.
    #[must_use]
    pub fn find_evse(&self, station: StationIndex, number: u32) -> Option<EvseIndex> {
        self.evses_of(station).find(|index| self.evse(*index).number == number)
    }

    /// All meters.
    #[must_use]
    pub fn meters(&self) -> &[Meter] {
        &self.meters
    }

    /// All inverters.
    #[must_use]
    pub fn inverters(&self) -> &[Inverter] {
        &self.inverters
    }
}

fn check_circuits(circuits: &[Circuit], meters: usize) -> Result<(), TopologyError> {
    if circuits.first().is_none_or(|root| root.parent.is_some()) {
        return Err(TopologyError::NoRoot);
    }
    for (index, circuit) in circuits.iter().enumerate().skip(1) {
        if circuit.parent.is_none_or(|parent| parent.0 >= index) {
            return Err(TopologyError::ParentAfterChild(circuit.id.clone()));
        }
    }
    for circuit in circuits {
        if circuit.meter.is_some_and(|meter| meter.0 >= meters) {
            return Err(TopologyError::Dangling(circuit.id.to_string()));
        }
        if circuit.limit.min() < Current::ZERO {
            return Err(TopologyError::Currents(circuit.id.to_string()));
        }
    }
    Ok(())
}

fn check_station(station: &Station, circuits: usize) -> Result<(), TopologyError> {
    if station.circuit.0 >= circuits {
        return Err(TopologyError::Dangling(station.id.to_string()));
    }
    let zero = Current::ZERO;
    let ordered = station.min > zero && station.min <= station.max;
    if !ordered || station.fallback < zero || station.fallback > station.max {
        return Err(TopologyError::Currents(station.id.to_string()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amps(values: [Option<i32>; 3]) -> PerPhase<Option<Current>> {
        PerPhase::from_fn(|phase| values[phase.index()].map(Current::from_a))
    }

    fn all(a: i32) -> PerPhase<Current> {
        PerPhase::splat(Current::from_a(a))
    }

    #[test]
    fn what_is_measured_at_turned_terminals_is_known_on_the_phases() {
        let wiring = Wiring::new(&[Phase::L2, Phase::L3, Phase::L1]).unwrap();
        let (sure, most) = wiring.attribute(amps([Some(10), Some(0), Some(5)]));
        assert_eq!(sure, PerPhase::new(Current::from_a(5), Current::from_a(10), Current::ZERO));
        assert_eq!(sure, most);
    }

    #[test]
    fn what_is_measured_at_unknown_terminals_counts_on_the_safe_side() {
        let three = Wiring::unknown(3).unwrap();
        assert_eq!(three.attribute(amps([Some(10), Some(7), Some(9)])), (all(7), all(10)));
        assert_eq!(three.attribute(amps([Some(10), None, None])), (all(0), all(10)));
        let one = Wiring::unknown(1).unwrap();
        assert_eq!(one.attribute(amps([Some(10), None, None])), (all(0), all(10)), "on two phases it draws nothing");
    }

    #[test]
    fn what_a_dc_output_draws_and_may_give_is_rounded_to_the_safe_side() {
        let dc = DcSupply {
            max: Power::from_w(150_000),
            min: Power::from_w(5_000),
            efficiency_permille: 950,
            power_factor_permille: 990,
        };
        let voltage = Voltage::from_mv(230_000);
        for watts in [1, 5_000, 49_999, 150_000] {
            let drawn = dc.current_for(Power::from_w(watts), voltage, Wiring::STRAIGHT).unwrap();
            let back = dc.power_for(drawn, voltage, Wiring::STRAIGHT);
            assert!((watts - 2..=watts + 2).contains(&back.w()), "{watts} W draw {drawn}, which gives {back}");
            let exact = i64::from(drawn.ma()) * 230 * 3 * 950 * 990;
            assert!(exact >= watts * 1_000 * 1_000_000, "{watts} W draw more than {drawn}");
            let (least, most) = dc.drawn_for(Power::from_w(watts), voltage, Wiring::STRAIGHT).unwrap();
            assert!(least <= most && most == drawn);
        }
        for ma in [1, 7_300, 231_000] {
            let given = dc.power_for(Current::from_ma(ma), voltage, Wiring::STRAIGHT);
            assert!(given.w() * 1_000 * 1_000_000 <= i64::from(ma) * 230 * 3 * 950 * 990, "{ma} mA give {given}");
        }
    }
}
