//! The circuits: a tree with exactly one root.

use std::collections::BTreeMap;

use super::outside;
use super::problem::Document;
use super::reader::{At, Section, decimal};
use super::wiring::{MAX_LIMIT_MA, Names, name_of};
use crate::engine::model::ids::CircuitId;
use crate::engine::model::topology::{Circuit, CircuitIndex, MeterIndex, ShortTime};
use crate::engine::units::{Current, PerPhase, Power};

/// Far beyond any site; the planner's work grows with it.
const MAX_CIRCUITS: usize = 1_000;

/// Beyond any low-voltage connection.
const MAX_POWER_W: i64 = 20_000_000;

/// A circuit as the file says it.
#[derive(Debug)]
struct Entry {
    at: usize,
    id: At<String>,
    parent: Option<At<String>>,
    /// `None`: missing or bad, which was said.
    limit: Option<At<PerPhase<Current>>>,
    meter: Option<At<String>>,
    unmeasured_load: Option<PerPhase<Current>>,
    max_unbalance: Option<Current>,
    floor: Option<Current>,
    max_power: Option<Power>,
    short_time: Option<ShortTime>,
}

/// The circuits in the order of the topology, with their names and the places of their limits.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) circuits: Vec<Circuit>,
    pub(super) names: Names,
    /// Below these no limit from outside goes.
    pub(super) floors: BTreeMap<CircuitId, Current>,
    meter_users: Vec<Option<usize>>,
}

impl Tree {
    /// Whether some circuit is measured by the meter.
    pub(super) fn uses(&self, meter: usize) -> bool {
        self.meter_users.get(meter).is_some_and(Option::is_some)
    }
}

/// Reads `[[circuits]]` and puts parents before their children. After an error the result is incomplete, but every name is in it.
pub(super) fn circuits(root: &Section<'_>, meters: &Names) -> Tree {
    let document = root.document;
    let entries: Vec<Entry> = root.sections("circuits", "[[circuits]]").into_iter().filter_map(entry).collect();
    if !root.has("circuits") || root.count("circuits").is_some_and(|(_, count)| count == 0) {
        let message =
            "there is no circuit: add [[circuits]] with `id = \"grid\"` and `limit_a`, the rating of the main fuse";
        document.error(0, message);
    }
    if let Some(entry) = entries.get(MAX_CIRCUITS) {
        document.error(entry.at, format!("more than {MAX_CIRCUITS} circuits are not supported"));
    }
    let mut in_file = Names::new("circuit");
    for entry in &entries {
        in_file.add(document, &entry.id);
    }
    let parents: Vec<Option<usize>> = entries
        .iter()
        .map(|entry| entry.parent.as_ref().and_then(|parent| in_file.find(document, "parent", parent)))
        .collect();
    check_roots(document, &entries);
    check_cycles(document, &entries, &parents);
    lower(document, &entries, &preorder(&parents, &entries), meters)
}

fn entry(section: Section<'_>) -> Option<Entry> {
    let id = name_of(&section, "\"garage\"");
    let parent = section.text("parent");
    section.require("limit_a", "63");
    let limit = section.thousandths_per_phase("limit_a", 0..=MAX_LIMIT_MA);
    let meter = section.text("meter");
    let unmeasured_load = section.thousandths_per_phase("unmeasured_load_a", 0..=MAX_LIMIT_MA);
    let max_unbalance = section.thousandths("max_unbalance_a", 1_000..=MAX_LIMIT_MA);
    let max_power = max_power(&section);
    let short_time = short_time(&section, limit.as_ref());
    if unmeasured_load.is_none() && !section.has("unmeasured_load_a") {
        warn_unmeasured(&section, meter.as_ref());
    }
    let floor = outside::floor(
        &section,
        limit.as_ref().and_then(|limit| limit.value.iter().min().copied()).map(Current::from_ma),
    );
    let at = section.at;
    section.finish();
    Some(Entry {
        at,
        id: id?,
        parent,
        limit: limit.map(|limit| limit.map(per_phase)),
        meter,
        unmeasured_load: unmeasured_load.map(|load| per_phase(load.value)),
        max_unbalance: max_unbalance.map(|unbalance| Current::from_ma(unbalance.value)),
        floor,
        max_power,
        short_time,
    })
}

/// `limit_w` or `limit_va`. Both are held as apparent power, which is never below the active power.
fn max_power(section: &Section<'_>) -> Option<Power> {
    let active = section.integer("limit_w", 0..=MAX_POWER_W);
    let apparent = section.integer("limit_va", 0..=MAX_POWER_W);
    if let (Some(_), Some(apparent)) = (&active, &apparent) {
        let message =
            "`limit_w` and `limit_va` limit the same: both count the apparent power; write the smaller one only";
        section.document.error(apparent.at, message);
    }
    active.or(apparent).map(|found| Power::from_w(found.value))
}

/// `short_time_a` and `short_time_s`.
fn short_time(section: &Section<'_>, limit: Option<&At<[i32; 3]>>) -> Option<ShortTime> {
    let document = section.document;
    let current = section.thousandths("short_time_a", 0..=MAX_LIMIT_MA);
    let seconds = section.integer("short_time_s", 1..=3_600);
    if section.has("short_time_a") != section.has("short_time_s") {
        let (has, needs) = if section.has("short_time_a") {
            ("short_time_a", "short_time_s = 60")
        } else {
            ("short_time_s", "short_time_a = 80")
        };
        document.error(section.at, format!("`{has}` says nothing without the other: add for example `{needs}`"));
    }
    let (current, seconds) = (current?, seconds?);
    if let Some(limit) = limit.filter(|limit| limit.value.iter().any(|limit| *limit > current.value)) {
        let message = format!(
            "`short_time_a` is {}, and must be at least `limit_a`, {}: it is what the circuit bears beyond that for a while",
            decimal(current.value),
            decimal(limit.value.into_iter().max().unwrap_or(0))
        );
        document.error(current.at, message);
    }
    Some(ShortTime { limit: Current::from_ma(current.value), lasts_ms: seconds.value.unsigned_abs() * 1_000 })
}

fn warn_unmeasured(section: &Section<'_>, meter: Option<&At<String>>) {
    let message = match meter {
        Some(meter) => format!(
            "without `unmeasured_load_a` nothing but the fallbacks is given out while meter {:?} is silent; state the largest \
             load per phase apart from the chargers",
            meter.value
        ),
        None => "neither `meter` nor `unmeasured_load_a`: it is taken that nothing but chargers is connected; write \
                 `unmeasured_load_a = 0` if that is so"
            .to_owned(),
    };
    section.document.warn(section.at, message);
}

const fn per_phase(values: [i32; 3]) -> PerPhase<Current> {
    PerPhase::new(Current::from_ma(values[0]), Current::from_ma(values[1]), Current::from_ma(values[2]))
}

fn check_roots(document: &Document<'_>, entries: &[Entry]) {
    let mut roots = entries.iter().filter(|entry| entry.parent.is_none());
    let Some(first) = roots.next() else {
        if let Some(entry) = entries.first() {
            let message = "every circuit has a parent: leave out `parent` at the circuit behind the main fuse";
            document.error(entry.at, message);
        }
        return;
    };
    for other in roots {
        let message = format!(
            "circuit {:?} has no `parent`, and {:?} (line {}) has none either: exactly one is the grid connection point; \
             add for example `parent = {:?}`",
            other.id.value,
            first.id.value,
            document.line(first.at),
            first.id.value
        );
        document.error(other.at, message);
    }
}

/// Reports every cycle once, at its first circuit in the file.
fn check_cycles(document: &Document<'_>, entries: &[Entry], parents: &[Option<usize>]) {
    let mut reported = vec![false; entries.len()];
    for start in 0..entries.len() {
        let mut cycle = vec![start];
        let mut next = parents[start];
        while let Some(index) = next.filter(|index| *index != start && cycle.len() <= entries.len()) {
            cycle.push(index);
            next = parents[index];
        }
        if next != Some(start) || cycle.iter().any(|index| reported[*index]) {
            continue;
        }
        for index in &cycle {
            reported[*index] = true;
        }
        let names: Vec<String> =
            cycle.iter().chain([&start]).map(|index| format!("{:?}", entries[*index].id.value)).collect();
        let at = entries[start].parent.as_ref().map_or(entries[start].at, |parent| parent.at);
        let message = format!("circuits feed each other in a ring: {}; correct one `parent`", names.join(" <- "));
        document.error(at, message);
    }
}

/// The circuits below the roots: each parent followed by all that is below it. What hangs in a ring comes last.
fn preorder(parents: &[Option<usize>], entries: &[Entry]) -> Vec<(usize, Option<usize>)> {
    let mut children = vec![Vec::new(); entries.len()];
    let mut stack: Vec<(usize, Option<usize>)> = Vec::new();
    for (index, parent) in parents.iter().enumerate().rev() {
        match parent {
            Some(parent) => children[*parent].push(index),
            None => stack.push((index, None)),
        }
    }
    let mut order = Vec::new();
    let mut placed = vec![false; entries.len()];
    while let Some((index, parent)) = stack.pop() {
        let place = order.len();
        order.push((index, parent));
        placed[index] = true;
        stack.extend(children[index].iter().map(|child| (*child, Some(place))));
    }
    order.extend((0..entries.len()).filter(|index| !placed[*index]).map(|index| (index, None)));
    order
}

fn lower(document: &Document<'_>, entries: &[Entry], order: &[(usize, Option<usize>)], meters: &Names) -> Tree {
    let mut tree = Tree {
        circuits: Vec::new(),
        names: Names::new("circuit"),
        floors: BTreeMap::new(),
        meter_users: vec![None; meters.len()],
    };
    for (index, parent) in order {
        let entry = &entries[*index];
        tree.names.add_known(&entry.id);
        tree.floors.extend(entry.floor.map(|floor| (CircuitId::new(&entry.id.value), floor)));
        let meter = entry.meter.as_ref().and_then(|name| {
            let meter = meters.find(document, "meter", name)?;
            let user = tree.meter_users.get_mut(meter)?;
            if let Some(other) = user {
                let message = format!(
                    "meter {:?} is the meter of circuit {:?} already; a meter measures all that flows through one circuit",
                    name.value, entries[*other].id.value
                );
                document.error(name.at, message);
            }
            *user = Some(*index);
            Some(MeterIndex(meter))
        });
        let parent = parent.map(CircuitIndex);
        if let (Some(limit), Some(above)) = (&entry.limit, parent.and_then(|parent| tree.circuits.get(parent.0))) {
            warn_above_parent(document, limit, above);
        }
        tree.circuits.push(Circuit {
            id: CircuitId::new(&entry.id.value),
            parent,
            // Without one the file is refused; until then nothing else must seem to be above it.
            limit: entry.limit.as_ref().map_or(per_phase([MAX_LIMIT_MA; 3]), |limit| limit.value),
            meter,
            unmeasured_load: entry.unmeasured_load,
            max_unbalance: entry.max_unbalance,
            max_power: entry.max_power,
            short_time: entry.short_time,
        });
    }
    tree
}

fn warn_above_parent(document: &Document<'_>, limit: &At<PerPhase<Current>>, parent: &Circuit) {
    let above = limit.value.zip_with(parent.limit, |own, parent| own > parent);
    if above.iter().any(|(_, above)| *above) {
        let message = format!("`limit_a` is above that of the parent {:?}, so it is never reached", parent.id.as_str());
        document.warn(limit.at, message);
    }
}
