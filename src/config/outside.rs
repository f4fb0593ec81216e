//! What limits the site from outside: `[[schedules]]`, `[dimming]`, floors, the start after a power cut.

use std::collections::BTreeMap;

use chrono::{NaiveDate, NaiveTime, Timelike as _};

use super::problem::Document;
use super::reader::{At, Section, nearest, one_of};
use super::schema::DimmingDevice;
use super::wiring::{MAX_LIMIT_MA, name_of};
use crate::engine::modbus::Function;
use crate::engine::modbus::connection::Connection;
use crate::engine::modbus::switch::Switch;
use crate::engine::model::ids::{CircuitId, StationId};
use crate::engine::model::limit::{
    Dimming, DimmingInput, DimmingLoss, LimitAmount, LimitTarget, ScheduledLimit, Window,
};
use crate::engine::model::setup::OutsideSetup;
use crate::engine::model::topology::{Circuit, CircuitIndex, Station};
use crate::engine::outside::dimming::{DEVICE_MINIMUM, FACTORS, minimum_power};
use crate::engine::units::{Current, Power, Voltage};

/// More than this no operator oversees.
const MAX_SCHEDULES: usize = 200;
/// A century of holidays.
const MAX_DATES: usize = 2_000;
/// The largest power that is believed to be meant, in W.
const MAX_POWER_W: i64 = 100_000_000;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// What there is to be limited.
#[derive(Clone, Copy)]
pub(super) struct Wired<'a> {
    pub(super) circuits: &'a [Circuit],
    pub(super) stations: &'a [Station],
    pub(super) floors: &'a BTreeMap<CircuitId, Current>,
    pub(super) voltage: Voltage,
}

/// `[[schedules]]`, `[dimming]` and what other sections say of limits from outside.
pub(super) fn read(
    root: &Section<'_>,
    (random_start_max_ms, boost_ends_random_start): (u64, bool),
    wired: Wired<'_>,
) -> (OutsideSetup, Option<DimmingDevice>) {
    let mut schedules: Vec<ScheduledLimit> = Vec::new();
    for section in root.sections("schedules", "[[schedules]]") {
        let (at, document) = (section.at, section.document);
        let Some(schedule) = schedule(section, wired) else { continue };
        if schedules.iter().any(|other| other.name == schedule.name) {
            document
                .error(at, format!("schedule {:?} stands twice; every `id` needs a name of its own", schedule.name));
        }
        if schedules.len() == MAX_SCHEDULES {
            document.error(at, format!("more than {MAX_SCHEDULES} schedules are not supported"));
        }
        schedules.push(schedule);
    }
    let (dimming, device) = dimming(root, wired).unzip();
    let floors = wired.floors.clone();
    let setup = OutsideSetup { schedules, dimming, floors, random_start_max_ms, boost_ends_random_start };
    (setup, device.flatten())
}

fn schedule(section: Section<'_>, wired: Wired<'_>) -> Option<ScheduledLimit> {
    let name = name_of(&section, "\"evening\"");
    let target = target(&section, wired);
    let amount = amount(&section, "limit_a = 40", target.as_ref().map(|target| configured(target, wired)));
    section.require("from", "\"17:00\"");
    section.require("to", "\"20:00\"");
    let (from, to) = (time(&section, "from"), time(&section, "to"));
    let weekdays = weekdays(&section);
    let (dates, except) = (dates(&section, "dates"), dates(&section, "except"));
    let delay = section.integer("random_delay_s", 0..=1_800).map_or(0, |delay| delay.value.unsigned_abs());
    section.finish();
    Some(ScheduledLimit {
        name: name?.value,
        target: target?,
        amount: amount?,
        window: Window {
            from: from?,
            to: to?,
            weekdays: weekdays?,
            dates: dates?,
            except: except?,
            random_delay_ms: delay * 1_000,
        },
    })
}

/// `circuit` or `charger`.
fn target(section: &Section<'_>, wired: Wired<'_>) -> Option<LimitTarget> {
    let document = section.document;
    let (circuit, charger) = (section.text("circuit"), section.text("charger"));
    match (circuit, charger) {
        (Some(_), Some(charger)) => {
            document.error(charger.at, "`circuit` and `charger` together: a limit is on one of them");
            None
        }
        (Some(circuit), None) => {
            let known: Vec<&str> = wired.circuits.iter().map(|circuit| circuit.id.as_str()).collect();
            known_name(document, "circuit", &circuit, &known)
                .then(|| LimitTarget::Circuit(CircuitId::new(&circuit.value)))
        }
        (None, Some(charger)) => {
            let known: Vec<&str> = wired.stations.iter().map(|station| station.id.as_str()).collect();
            known_name(document, "charger", &charger, &known)
                .then(|| LimitTarget::Charger(StationId::new(&charger.value)))
        }
        (None, None) => {
            let label = section.label;
            document.error(section.at, format!("{label} needs `circuit` or `charger`: what is limited"));
            None
        }
    }
}

fn known_name(document: &Document<'_>, kind: &str, name: &At<String>, known: &[&str]) -> bool {
    let found = known.contains(&name.value.as_str());
    if !found {
        let remedy = match nearest(&name.value, known.iter().copied()) {
            Some(near) => format!("did you mean {near:?}?"),
            None if known.is_empty() => format!("the file has no [[{kind}s]]"),
            None => format!("there is {}", one_of(&known[..known.len().min(10)])),
        };
        document.error(name.at, format!("`{kind}`: there is no {kind} {:?}; {remedy}", name.value));
    }
    found
}

/// The configured limit of a target on its strongest phase.
fn configured(target: &LimitTarget, wired: Wired<'_>) -> Current {
    let limit = match target {
        LimitTarget::Circuit(id) => {
            wired.circuits.iter().find(|circuit| circuit.id == *id).map(|circuit| circuit.limit.max())
        }
        LimitTarget::Charger(id) => wired.stations.iter().find(|station| station.id == *id).map(|station| station.max),
    };
    limit.unwrap_or_default()
}

/// Exactly one of `limit_a`, `limit_w` and `limit_percent`. `most`: what is configured.
fn amount(section: &Section<'_>, example: &str, most: Option<Current>) -> Option<LimitAmount> {
    let amperes = section.thousandths("limit_a", 0..=MAX_LIMIT_MA);
    let watts = section.integer("limit_w", 0..=MAX_POWER_W);
    let percent = section.thousandths("limit_percent", 0..=100_000);
    let given = ["limit_a", "limit_w", "limit_percent"].into_iter().filter(|key| section.has(key)).count();
    if given != 1 {
        let what = if given == 0 { "needs" } else { "takes only one of" };
        let message =
            format!("{} {what} `limit_a`, `limit_w` or `limit_percent`: write for example `{example}`", section.label);
        section.document.error(section.at, message);
        return None;
    }
    if let (Some(amperes), Some(most)) = (&amperes, most)
        && amperes.value > most.ma()
    {
        let message = format!("`limit_a` is above the configured {most}: a schedule can only lower");
        section.document.error(amperes.at, message);
    }
    amperes
        .map(|amperes| LimitAmount::PerPhase(Current::from_ma(amperes.value)))
        .or(watts.map(|watts| LimitAmount::Total(Power::from_w(watts.value))))
        .or(percent.map(|percent| LimitAmount::Permille(u16::try_from(percent.value / 100).unwrap_or(0))))
}

fn time(section: &Section<'_>, key: &'static str) -> Option<NaiveTime> {
    let text = section.text(key)?;
    let parsed = NaiveTime::parse_from_str(&text.value, "%H:%M").ok().filter(|time| time.second() == 0);
    // "24:00" is how people write the end of a day.
    let parsed = parsed.or_else(|| (text.value == "24:00").then_some(NaiveTime::MIN));
    if parsed.is_none() {
        let message = format!("`{key}` is {:?}, and must be a local time such as \"17:00\"", text.value);
        section.document.error(text.at, message);
    }
    parsed
}

fn weekdays(section: &Section<'_>) -> Option<[bool; 7]> {
    let Some((at, list)) = list(section, "days", "an array of days, such as [\"mon\", \"fri\"]")? else {
        return Some([true; 7]);
    };
    if list.is_empty() {
        section.document.error(at, "`days` is empty: leave it out for every day");
        return None;
    }
    let mut days = [false; 7];
    for day in list {
        match DAYS.iter().position(|name| *name == day.value) {
            Some(index) => days[index] = true,
            None => {
                let message = format!("day {:?} is not known; write {}", day.value, one_of(&DAYS));
                section.document.error(day.at, message);
                return None;
            }
        }
    }
    Some(days)
}

fn dates(section: &Section<'_>, key: &'static str) -> Option<Vec<NaiveDate>> {
    let Some((at, list)) = list(section, key, "an array of dates, such as [\"2026-12-24\"]")? else {
        return Some(Vec::new());
    };
    if list.len() > MAX_DATES {
        section.document.error(at, format!("`{key}` has more than the {MAX_DATES} dates that are supported"));
        return None;
    }
    let mut dates = Vec::new();
    for date in list {
        match NaiveDate::parse_from_str(&date.value, "%Y-%m-%d") {
            Ok(date) => dates.push(date),
            Err(_) => {
                let message = format!("`{key}`: {:?} is no date; write it like \"2026-12-24\"", date.value);
                section.document.error(date.at, message);
                return None;
            }
        }
    }
    Some(dates)
}

/// Strings, or dates as TOML knows them. `None` after a problem, `Some(None)` if the key is not there.
#[expect(clippy::option_option, reason = "a missing key is no problem, and a problem is no missing key")]
fn list(section: &Section<'_>, key: &'static str, expected: &str) -> Option<Option<(usize, Vec<At<String>>)>> {
    let Some((at, value)) = section.raw(key) else { return Some(None) };
    let items = value.as_array().map(|array| {
        array
            .iter()
            .map(|item| {
                let text = match item.get_ref() {
                    toml::de::DeValue::String(text) => Some(text.to_string()),
                    toml::de::DeValue::Datetime(date) => Some(date.to_string()),
                    _ => None,
                };
                text.map(|value| At { at: item.span().start, value })
            })
            .collect::<Option<Vec<_>>>()
    });
    match items.flatten() {
        Some(items) => Some(Some((at, items))),
        None => {
            section.document.error(at, format!("`{key}` must be {expected}"));
            None
        }
    }
}

/// `[dimming]`.
fn dimming(root: &Section<'_>, wired: Wired<'_>) -> Option<(Dimming, Option<DimmingDevice>)> {
    let section = root.section("dimming", "[dimming]");
    if !section.is_present() {
        section.finish();
        return None;
    }
    let document = section.document;
    let circuit = section.text("circuit");
    let known: Vec<&str> = wired.circuits.iter().map(|circuit| circuit.id.as_str()).collect();
    let index = match &circuit {
        Some(circuit) if known_name(document, "circuit", circuit, &known) => {
            known.iter().position(|name| *name == circuit.value)
        }
        Some(_) => None,
        None => Some(0),
    };
    let below: Vec<&Station> = wired
        .stations
        .iter()
        .filter(|station| index.is_some_and(|index| is_below(wired.circuits, station.circuit, index)))
        .collect();
    let power = dimmed_power(&section, &below, wired.voltage);
    warn_dimmed(&section, power, &below, wired.voltage);
    let (input, device) = dimming_device(&section).unzip();
    section.finish();
    let circuit = wired.circuits.get(index?)?.id.clone();
    Some((Dimming { circuit, power, input }, device))
}

fn is_below(circuits: &[Circuit], circuit: CircuitIndex, above: usize) -> bool {
    let mut next = Some(circuit);
    while let Some(index) = next {
        if index.0 == above {
            return true;
        }
        next = circuits.get(index.0).and_then(|circuit| circuit.parent);
    }
    false
}

fn station_power(current: Current, station: &Station, voltage: Voltage) -> Power {
    let one = current.power_at(voltage).w();
    Power::from_w(one * i64::try_from(station.wiring.terminals()).unwrap_or(3))
}

/// What all stations together may draw while dimmed.
fn dimmed_power(section: &Section<'_>, below: &[&Station], voltage: Voltage) -> Power {
    let rule = section.choice("rule", &[("14a", ())]);
    let devices = section.integer("devices", 1..=10_000);
    let factors = section.thousandths_list("factors", 0..=1_000, 8);
    let watts = section.integer("limit_w", 0..=MAX_POWER_W);
    let percent = section.thousandths("limit_percent", 0..=100_000);
    let fixed = watts.as_ref().map(|watts| watts.at).or(percent.as_ref().map(|percent| percent.at));
    if let (Some(at), Some(_)) = (fixed, &rule) {
        section.document.error(at, "`rule` and a limit of its own: leave one of them out");
    }
    if let (Some(_), Some(percent)) = (&watts, &percent) {
        section.document.error(percent.at, "`limit_w` and `limit_percent` together: write one of them");
    }
    if let (Some(at), true) = (fixed, devices.is_some() || factors.is_some()) {
        section.document.error(at, "`devices` and `factors` belong to the rule \"14a\", not to a limit of its own");
    }
    if let Some(watts) = watts {
        return Power::from_w(watts.value);
    }
    if let Some(percent) = percent {
        let all: i64 =
            below.iter().map(|station| evses(station) * station_power(station.max, station, voltage).w()).sum();
        return Power::from_w(all * i64::from(percent.value) / 100_000);
    }
    // A charging point is a controllable device from 4.2 kW on (BK6-22-300, 2.4).
    let steerable = |station: &&&Station| station_power(station.max, station, voltage) > DEVICE_MINIMUM;
    let counted: i64 = below.iter().filter(steerable).map(|station| evses(station)).sum();
    let devices = devices.map_or(counted, |devices| devices.value);
    let factors = factors.map_or(FACTORS, |factors| {
        std::array::from_fn(|place| {
            factors.value.get(place).and_then(|factor| u16::try_from(*factor).ok()).unwrap_or(0)
        })
    });
    minimum_power(u32::try_from(devices).unwrap_or(u32::MAX), &factors)
}

fn evses(station: &Station) -> i64 {
    i64::try_from(station.evse_count).unwrap_or(1)
}

fn warn_dimmed(section: &Section<'_>, power: Power, below: &[&Station], voltage: Voltage) {
    let least = below.iter().map(|station| station_power(station.min, station, voltage)).min();
    if let Some(least) = least.filter(|least| power < *least) {
        let message =
            format!("while dimmed {power} are left, below the {least} that any charger needs: all will pause");
        section.document.warn(section.at, message);
    }
    let fallbacks: i64 =
        below.iter().map(|station| evses(station) * station_power(station.fallback, station, voltage).w()).sum();
    if fallbacks > power.w() {
        let message = format!(
            "while dimmed {power} are left, but chargers that have lost the controller may draw {fallbacks} W by their \
             `fallback_a`: the dimming is not kept then"
        );
        section.document.warn(section.at, message);
    }
}

/// The input that is read by Modbus.
fn dimming_device(section: &Section<'_>) -> Option<(DimmingInput, DimmingDevice)> {
    let document = section.document;
    let connection = section.text("connection");
    let unit_id = section.integer("unit_id", 0..=255).and_then(|found| u8::try_from(found.value).ok());
    let tables = [
        ("coil", Function::Coil),
        ("discrete_input", Function::Discrete),
        ("register", Function::Holding),
        ("input_register", Function::Input),
    ];
    let places: Vec<(&str, Function, At<i64>)> = tables
        .into_iter()
        .filter_map(|(key, function)| section.integer(key, 0..=65_535).map(|address| (key, function, address)))
        .collect();
    let active = section.integer("active", 0..=65_535);
    let interval_ms = section.integer("interval_ms", 100..=600_000).map_or(1_000, |found| found.value.unsigned_abs());
    let losses = [("dim", DimmingLoss::Dim), ("release", DimmingLoss::Release), ("hold", DimmingLoss::Hold)];
    let on_loss = section.choice("on_loss", &losses);
    let loss_s = section.integer("loss_s", 1..=86_400);
    let Some(connection) = connection else {
        let stray = places.first().map(|(_, _, address)| address.at).or(on_loss.as_ref().map(|found| found.at));
        if let Some(at) = stray.or(active.map(|active| active.at)).or(loss_s.map(|loss| loss.at)) {
            document
                .error(at, "the input needs `connection`: add for example `connection = \"tcp://192.168.1.40:502\"`");
        }
        return None;
    };
    let parsed = Connection::parse(&connection.value);
    let parsed = parsed.map_err(|problem| document.error(connection.at, format!("`connection`: {problem}"))).ok();
    let [(key, function, address)] = places.as_slice() else {
        let message = "[dimming] with `connection` needs one of `coil`, `discrete_input`, `register` or `input_register`: the \
                       address of the input, counted from 0";
        document.error(connection.at, message);
        return None;
    };
    if let Some(active) = active.as_ref().filter(|active| active.value > 1 && ["coil", "discrete_input"].contains(key))
    {
        document.error(active.at, format!("`active` is {}, and a {key} is 0 or 1", active.value));
    }
    let switch = Switch {
        function: *function,
        address: u16::try_from(address.value).unwrap_or(0),
        active: active.map_or(1, |active| u16::try_from(active.value).unwrap_or(1)),
    };
    let loss_ms = loss_s.map_or(60_000, |loss| loss.value.unsigned_abs() * 1_000);
    if loss_ms < interval_ms * 3 {
        document.warn(
            connection.at,
            format!("`loss_s` is less than three of the {interval_ms} ms between readings: two lost readings count as a loss"),
        );
    }
    let input = DimmingInput { on_loss: on_loss.map_or(DimmingLoss::Dim, |found| found.value), loss_ms };
    Some((input, DimmingDevice { connection: parsed?, unit_id: unit_id.unwrap_or(1), interval_ms, switch }))
}

/// The floor of a circuit.
pub(super) fn floor(section: &Section<'_>, limit: Option<Current>) -> Option<Current> {
    let floor = section.thousandths("floor_a", 0..=MAX_LIMIT_MA)?;
    if let Some(limit) = limit.filter(|limit| limit.ma() < floor.value) {
        let message = format!("`floor_a` is above `limit_a`, {limit}: no limit from outside could lower it");
        section.document.error(floor.at, message);
    }
    Some(Current::from_ma(floor.value))
}
