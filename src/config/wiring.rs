//! What stands many times: `[[meters]]`, `[[inverters]]`, `[[chargers]]`, and the names by which they refer to each other.

use std::collections::BTreeMap;

use super::billing;
use super::dc;
use super::devices::device_map;
use super::files::{Places, read_secret};
use super::models::Models;
use super::problem::{Document, Problem};
use super::reader::{At, Section, decimal, nearest, one_of};
use super::schema::{DeviceConfig, DeviceTarget};
use super::tree::{self, Tree};
use crate::engine::modbus::DeviceKind;
use crate::engine::modbus::connection::Connection;
use crate::engine::modbus::map::DeviceMap;
use crate::engine::model::billing::ChargerBilling;
use crate::engine::model::ids::{CircuitId, InverterId, MeterId, StationId};
use crate::engine::model::topology::{
    Circuit, CircuitIndex, Inverter, InverterIndex, InverterRole, MINIMUM_OFFER, Meter, MeterIndex, Station, Wiring,
};
use crate::engine::units::{Current, Phase, Voltage};

/// The largest circuit limit: sums over a whole site must stay far below what a [`Current`] can hold.
pub(super) const MAX_LIMIT_MA: i32 = 10_000_000;
/// The largest AC station of IEC 61851 has 80 A (SAE J1772); some vendors go beyond.
const MAX_STATION_MA: i32 = 500_000;
/// A gateway serves 200 stations; beyond this a file is not a site any more.
const MAX_CHARGERS: usize = 2_000;
/// A gateway reads some tens of devices.
const MAX_DEVICES: usize = 500;
/// What an EVSE takes by default: an even share.
const DEFAULT_WEIGHT: u32 = 100;

/// All names of one kind, with their places in the list and in the file.
#[derive(Debug)]
pub(super) struct Names {
    kind: &'static str,
    by_name: BTreeMap<String, (usize, usize)>,
    count: usize,
}

impl Names {
    pub(super) const fn new(kind: &'static str) -> Self {
        Self { kind, by_name: BTreeMap::new(), count: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// Appends a name and reports it if it was there.
    pub(super) fn add(&mut self, document: &Document<'_>, name: &At<String>) {
        if let Some((_, first)) = self.by_name.get(&name.value) {
            let line = document.line(*first);
            let message = format!(
                "{} {:?} stands on line {line} already; every `id` needs a name of its own",
                self.kind, name.value
            );
            document.error(name.at, message);
        }
        self.add_known(name);
    }

    /// Appends a name that was checked before.
    pub(super) fn add_known(&mut self, name: &At<String>) {
        self.by_name.entry(name.value.clone()).or_insert((self.count, name.at));
        self.count += 1;
    }

    /// The place of the name that `key` refers to, or a problem.
    pub(super) fn find(&self, document: &Document<'_>, key: &str, name: &At<String>) -> Option<usize> {
        if let Some((index, _)) = self.by_name.get(&name.value) {
            return Some(*index);
        }
        let kind = self.kind;
        let names: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
        let remedy = match nearest(&name.value, names.iter().copied()) {
            Some(near) => format!("did you mean {near:?}?"),
            None if names.is_empty() => format!("the file has no [[{kind}s]]"),
            // A list of hundreds of names helps nobody.
            None => format!("there is {}", one_of(&names[..names.len().min(10)])),
        };
        document.error(name.at, format!("`{key}`: there is no {kind} {:?}; {remedy}", name.value));
        None
    }
}

/// The `id` of a circuit, meter or inverter.
pub(super) fn name_of(section: &Section<'_>, example: &str) -> Option<At<String>> {
    section.require("id", example);
    let id = section.text("id")?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=64).contains(&id.value.len()) && id.value.bytes().all(plain) {
        return Some(id);
    }
    let message = format!("`id` is {:?}, and must be 1 to 64 characters out of A-Z, a-z, 0-9, - _ and .", id.value);
    section.document.error(id.at, message);
    None
}

/// Everything that the topology is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) circuits: Vec<Circuit>,
    /// Below these no limit from outside goes.
    pub(super) floors: BTreeMap<CircuitId, Current>,
    pub(super) stations: Vec<Station>,
    /// What they say for their bills.
    pub(super) billing: BTreeMap<StationId, ChargerBilling>,
    pub(super) meters: Vec<Meter>,
    pub(super) inverters: Vec<Inverter>,
    pub(super) devices: Vec<DeviceConfig>,
    /// Problems in other files than `site.toml`.
    pub(super) problems: Vec<Problem>,
}

/// Reads the circuits and all that is connected to them.
pub(super) fn read(root: &Section<'_>, places: &Places, voltage: Voltage) -> Parts {
    let mut meter_names = Names::new("meter");
    let mut meters = Vec::new();
    let mut devices = Vec::new();
    for section in root.sections("meters", "[[meters]]").into_iter().take(MAX_DEVICES) {
        let Some((id, device)) = meter(section, places) else { continue };
        meter_names.add(root.document, &id);
        let target = DeviceTarget::Meter(MeterIndex(meters.len()));
        meters.push(Meter { id: MeterId::new(&id.value), stale_after_ms: device.stale_after_ms });
        devices.extend(device.lower(target));
    }
    let tree = tree::circuits(root, &meter_names);
    for (name, (index, at)) in &meter_names.by_name {
        if !tree.uses(*index) {
            root.document.warn(*at, format!("meter {name:?} is not the `meter` of any circuit, so it limits nothing"));
        }
    }
    let mut inverter_names = Names::new("inverter");
    let mut inverters = Vec::new();
    for section in root.sections("inverters", "[[inverters]]").into_iter().take(MAX_DEVICES) {
        let Some((id, inverter, device)) = inverter(section, places, &tree) else { continue };
        inverter_names.add(root.document, &id);
        devices.extend(device.lower(DeviceTarget::Inverter(InverterIndex(inverters.len()))));
        inverters.push(inverter);
    }
    let (stations, billing, problems) = chargers(root, places, &tree, voltage);
    for (key, limit) in [("meters", MAX_DEVICES), ("inverters", MAX_DEVICES), ("chargers", MAX_CHARGERS)] {
        if let Some((at, count)) = root.count(key).filter(|(_, count)| *count > limit) {
            root.document.error(at, format!("{count} [[{key}]] are more than the {limit} that are supported"));
        }
    }
    Parts { circuits: tree.circuits, floors: tree.floors, stations, billing, meters, inverters, devices, problems }
}

/// How a device is reached, before it has its place in the topology.
struct Device {
    connection: Option<Connection>,
    unit_id: u8,
    interval_ms: u64,
    stale_after_ms: u64,
    profile: String,
    map: Option<DeviceMap>,
}

impl Device {
    /// `None` after a problem that was reported: nothing is made of it then.
    fn lower(self, target: DeviceTarget) -> Option<DeviceConfig> {
        Some(DeviceConfig {
            target,
            connection: self.connection?,
            unit_id: self.unit_id,
            interval_ms: self.interval_ms,
            profile: self.profile,
            map: self.map?,
        })
    }
}

fn meter(section: Section<'_>, places: &Places) -> Option<(At<String>, Device)> {
    let id = name_of(&section, "\"main\"");
    let device = device(&section, places, DeviceKind::Meter, 5_000);
    section.finish();
    Some((id?, device))
}

fn inverter(section: Section<'_>, places: &Places, tree: &Tree) -> Option<(At<String>, Inverter, Device)> {
    let id = name_of(&section, "\"roof\"");
    section.require("role", "\"pv\"");
    let roles = [("pv", InverterRole::Pv), ("battery", InverterRole::Battery), ("hybrid", InverterRole::Hybrid)];
    let role = section.choice("role", &roles).map_or(InverterRole::Pv, |role| role.value);
    let circuit = circuit_of(&section, tree);
    let max = section.thousandths("max_a", 1..=MAX_LIMIT_MA).map(|found| Current::from_ma(found.value));
    let device = device(&section, places, DeviceKind::Inverter, 30_000);
    section.finish();
    let id = id?;
    let stale_after_ms = device.stale_after_ms;
    let inverter = Inverter { id: InverterId::new(&id.value), role, circuit, stale_after_ms, max };
    Some((id, inverter, device))
}

/// The circuit that `circuit` names. After a problem it is the root: nothing is made of it then.
fn circuit_of(section: &Section<'_>, tree: &Tree) -> CircuitIndex {
    section.require("circuit", "\"grid\"");
    let found = section.text("circuit").and_then(|name| tree.names.find(section.document, "circuit", &name));
    CircuitIndex(found.unwrap_or(0))
}

fn device(section: &Section<'_>, places: &Places, kind: DeviceKind, default_stale_ms: u64) -> Device {
    let document = section.document;
    let example = match kind {
        DeviceKind::Meter => "\"eastron-sdm630\"",
        DeviceKind::Inverter => "\"sunspec\"",
    };
    section.require("profile", example);
    let name = section.text("profile");
    let map = name.as_ref().and_then(|name| device_map(document, places, name, kind));
    section.require("connection", "\"tcp://192.168.1.20:502\"");
    let connection = section.text("connection").and_then(|url| {
        let parsed = Connection::parse(&url.value);
        parsed.map_err(|problem| document.error(url.at, format!("`connection`: {problem}"))).ok()
    });
    let unit_id = section.integer("unit_id", 0..=255).and_then(|found| u8::try_from(found.value).ok());
    let interval = section.integer("interval_ms", 100..=600_000).map(|found| found.map(i64::unsigned_abs));
    let interval_ms = interval.as_ref().map_or(1_000, |interval| interval.value);
    let stale = section.integer("stale_after_ms", 200..=3_600_000).map(|found| found.map(i64::unsigned_abs));
    let stale_after_ms = stale.as_ref().map_or(default_stale_ms, |stale| stale.value);
    let at = stale.or(interval).map_or(section.at, |found| found.at);
    let found = format!("`stale_after_ms` is {stale_after_ms} and `interval_ms` is {interval_ms}");
    if stale_after_ms <= interval_ms {
        let message =
            format!("{found}: every reading would be stale before the next; write at least {}", interval_ms * 3);
        document.error(at, message);
    } else if stale_after_ms < interval_ms * 3 {
        let message =
            format!("{found}: two lost readings make the device stale; at least {} is steadier", interval_ms * 3);
        document.warn(at, message);
    }
    Device {
        connection,
        unit_id: unit_id.unwrap_or(1),
        interval_ms,
        stale_after_ms,
        profile: name.map_or_else(String::new, |name| name.value),
        map,
    }
}

type Chargers = (Vec<Station>, BTreeMap<StationId, ChargerBilling>, Vec<Problem>);

fn chargers(root: &Section<'_>, places: &Places, tree: &Tree, voltage: Voltage) -> Chargers {
    let mut models = Models::new(places);
    let mut names = Names::new("charger");
    let mut stations = Vec::new();
    let mut billing = BTreeMap::new();
    for section in root.sections("chargers", "[[chargers]]").into_iter().take(MAX_CHARGERS) {
        let Some((id, station, bills)) = charger(section, places, (tree, voltage), &mut models) else { continue };
        names.add(root.document, &id);
        if bills != ChargerBilling::default() {
            billing.insert(station.id.clone(), bills);
        }
        stations.push(station);
    }
    (stations, billing, models.into_problems())
}

fn charger(
    section: Section<'_>,
    places: &Places,
    (tree, voltage): (&Tree, Voltage),
    models: &mut Models<'_>,
) -> Option<(At<String>, Station, ChargerBilling)> {
    let document = section.document;
    section.require("id", "\"CP001\"");
    let id = section.text("id").filter(|id| check_identity(document, id));
    let circuit = circuit_of(&section, tree);
    let model = section
        .text("model")
        .or_else(|| Some(At { at: section.at, value: "generic".to_owned() }))
        .and_then(|name| models.find(document, &name));
    let wiring = phases(&section);
    let on = tree.circuits.get(circuit.0);
    let (currents, dc) = match dc::read(&section, voltage, wiring) {
        Some((currents, dc)) => (currents, Some(dc)),
        None => (currents(&section), None),
    };
    warn_above_circuit(&section, &currents, on, wiring);
    let connectors = section.integer("connectors", 1..=32).and_then(|found| usize::try_from(found.value).ok());
    let bills = billing::charger(&section, connectors.unwrap_or(1));
    let priority = section.integer("priority", -100..=100).and_then(|found| i32::try_from(found.value).ok());
    let weight = section.integer("weight", 1..=1_000).and_then(|found| u32::try_from(found.value).ok());
    let password_file = section.text("password_file");
    let password = password_file.as_ref().and_then(|file| read_secret(document, places, "password_file", file));
    if let (Some(file), Some(id)) = (&password_file, &id)
        && id.value.contains(':')
    {
        // RFC 7617: the user name ends at the first colon.
        document.error(
            file.at,
            format!("the identity {:?} has a colon, so HTTP basic authentication cannot work with it", id.value),
        );
    }
    section.finish();
    let id = id?;
    let station = Station {
        id: StationId::new(&id.value),
        circuit,
        model: model.unwrap_or_default(),
        wiring,
        max: currents.max,
        min: currents.min,
        fallback: currents.fallback,
        evse_count: connectors.unwrap_or(1),
        priority: priority.unwrap_or(0),
        weight: weight.unwrap_or(DEFAULT_WEIGHT),
        dc,
        password,
    };
    Some((id, station, bills))
}

/// Whether a station may be called so. OCPP 2.0.1 part 4, 3.1.1 and OCPP-J 1.6, 3.1.1: the identity is the last part of the URL; 48
/// characters is its longest.
#[must_use]
pub fn is_identity(text: &str) -> bool {
    (1..=48).contains(&text.chars().count())
        && !text.contains('/')
        && !text.chars().any(char::is_control)
        && text.trim() == text
}

fn check_identity(document: &Document<'_>, id: &At<String>) -> bool {
    let good = is_identity(&id.value);
    if !good {
        let message = format!(
            "`id` is {:?}, and must be 1 to 48 characters without /, control characters and blanks at the ends: the last part of \
             the station's URL",
            id.value
        );
        document.error(id.at, message);
    }
    good
}

fn phases(section: &Section<'_>) -> Wiring {
    let document = section.document;
    match section.raw("phases") {
        Some((_, value)) if value.as_str() == Some("unknown") => return Wiring::unknown(3).unwrap_or(Wiring::STRAIGHT),
        Some((at, value)) if value.as_str().is_some() => {
            let message = "`phases` must be an array of strings, such as [\"L1\", \"L2\", \"L3\"], or \"unknown\"";
            document.error(at, message);
            return Wiring::STRAIGHT;
        }
        Some(_) | None => {}
    }
    let Some(names) = section.texts("phases") else { return Wiring::STRAIGHT };
    let unknown = names.value.iter().filter(|name| name.value == "?").count();
    if unknown > 0 {
        return unknown_phases(document, &names, unknown);
    }
    let known = [("L1", Phase::L1), ("L2", Phase::L2), ("L3", Phase::L3)];
    let mut phases = Vec::new();
    for name in &names.value {
        match known.iter().find(|(known, _)| *known == name.value) {
            Some((_, phase)) => phases.push(*phase),
            None => {
                let message = format!(
                    "phase {:?} is not known; write \"L1\", \"L2\" or \"L3\", or \"?\" for all of them if nobody knows",
                    name.value
                );
                document.error(name.at, message);
                return Wiring::STRAIGHT;
            }
        }
    }
    Wiring::new(&phases).unwrap_or_else(|| {
        let message = "`phases` must name one, two or three different grid phases, in the order of the charger's terminals L1, \
                       L2, L3; such as [\"L2\", \"L3\", \"L1\"]";
        document.error(names.at, message);
        Wiring::STRAIGHT
    })
}

/// `["?"]` to `["?", "?", "?"]`: so many terminals, of which nobody knows the phases.
fn unknown_phases(document: &Document<'_>, names: &At<Vec<At<String>>>, unknown: usize) -> Wiring {
    let wiring = Wiring::unknown(unknown).filter(|_| unknown == names.value.len());
    wiring.unwrap_or_else(|| {
        let message = "`phases` has \"?\" for one to three terminals, or a phase for each of them: one that is half known counts \
                       as unknown";
        document.error(names.at, message);
        Wiring::STRAIGHT
    })
}

/// What an EVSE draws from each phase, and where the largest of it is stated.
pub(super) struct Currents {
    pub(super) max: Current,
    pub(super) min: Current,
    pub(super) fallback: Current,
    pub(super) max_at: Option<usize>,
}

/// `max_a`, `min_a` and `fallback_a`.
fn currents(section: &Section<'_>) -> Currents {
    let document = section.document;
    section.require("max_a", "32");
    let max = section.thousandths("max_a", MINIMUM_OFFER.ma()..=MAX_STATION_MA);
    let min = section.thousandths("min_a", MINIMUM_OFFER.ma()..=MAX_STATION_MA);
    let min_ma = min.as_ref().map_or(MINIMUM_OFFER.ma(), |min| min.value);
    let fallback = section.thousandths("fallback_a", 0..=MAX_STATION_MA);
    let fallback_ma = fallback.as_ref().map_or(min_ma, |fallback| fallback.value);
    // Without a maximum the rest is judged by itself.
    let max_ma = max.as_ref().map_or(MAX_STATION_MA, |max| max.value);
    let shown = decimal(max_ma);
    if let Some(min) = min.filter(|min| min.value > max_ma) {
        let message = format!("`min_a` is {}, and must be at most `max_a`, {shown}", decimal(min.value));
        document.error(min.at, message);
    }
    if let Some(fallback) = &fallback {
        if fallback.value > max_ma {
            let message = format!("`fallback_a` is {}, and must be at most `max_a`, {shown}", decimal(fallback.value));
            document.error(fallback.at, message);
        } else if fallback.value > 0 && fallback.value < min_ma {
            let message = format!(
                "`fallback_a` is {}, below `min_a`, {}: no car can charge with it; write 0 to say so",
                decimal(fallback.value),
                decimal(min_ma)
            );
            document.warn(fallback.at, message);
        }
    }
    Currents {
        max: Current::from_ma(max_ma),
        min: Current::from_ma(min_ma),
        fallback: Current::from_ma(fallback_ma),
        max_at: max.map(|max| max.at),
    }
}

fn warn_above_circuit(section: &Section<'_>, currents: &Currents, circuit: Option<&Circuit>, wiring: Wiring) {
    let (Some(at), Some(circuit)) = (currents.max_at, circuit) else { return };
    let lowest = wiring.phases().iter().map(|phase| circuit.limit.of(phase)).min();
    if let Some(limit) = lowest.filter(|limit| *limit < currents.max) {
        let message = format!(
            "`max_a` is {}, above the {} A of circuit {:?}: a charger that does not obey opens its fuse",
            decimal(currents.max.ma()),
            decimal(limit.ma()),
            circuit.id.as_str()
        );
        section.document.warn(at, message);
    }
}
