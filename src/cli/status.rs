//! `siteward status`: the site at a glance.

use std::io::{self, Write};
use std::thread::sleep;
use std::time::Duration;

use super::client::{Client, Patience};
use super::table::{Table, number, or_dash};
use super::{Failure, StatusArgs, plain};
use crate::engine::model::status::{ChargerStatus, CircuitStatus, MeterStatus, ProfileWrites, SiteStatus};

/// How often `--watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Clears the terminal and goes to its top.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

const PHASES: [&str; 3] = ["L1", "L2", "L3"];

pub(super) fn status(client: &Client, args: &StatusArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let mut patience = Patience::default();
    loop {
        let Some(status) = patience.judge::<SiteStatus>(client.get("/api/v1/site"), args.watch)? else {
            sleep(WATCH_EVERY);
            continue;
        };
        if args.json {
            let text = serde_json::to_string(&status)?;
            writeln!(out, "{text}")?;
        } else {
            if args.watch {
                write!(out, "{CLEAR}")?;
            }
            write_status(&status, out)?;
        }
        if !args.watch {
            return Ok(());
        }
        out.flush()?;
        sleep(WATCH_EVERY);
    }
}

fn write_status(status: &SiteStatus, out: &mut dyn Write) -> io::Result<()> {
    let clock = if status.clock_trusted { "synchronised" } else { "NOT synchronised" };
    let (site, version, time) = (&status.site, &status.version, status.time);
    writeln!(out, "{site}  siteward {version}  up {}  {time}, clock {clock}", duration(status.uptime_ms))?;
    writeln!(out, "{}\n", cloud(status))?;
    circuits(&status.circuits).write(out)?;
    chargers(&status.chargers).write(out)?;
    pending(status).write(out)?;
    wishes(&status.chargers, out)?;
    writes(&status.chargers, out)?;
    meters(&status.meters).write(out)?;
    inverters(status).write(out)?;
    faults(status, out)?;
    transactions(status).write(out)?;
    limits(status).write(out)?;
    if status.alarms.is_empty() {
        return writeln!(out, "No alarms.");
    }
    for alarm in &status.alarms {
        let severity = format!("{:?}", alarm.severity).to_uppercase();
        writeln!(out, "{severity}: {}", plain(&alarm.to_string()))?;
    }
    Ok(())
}

fn cloud(status: &SiteStatus) -> String {
    match &status.cloud {
        None => format!("no cloud configured; {} events in the journal", status.durable_sequence),
        Some(cloud) if cloud.connected => {
            format!("cloud connected; {} of {} events acknowledged", cloud.acknowledged_sequence, status.last_sequence)
        }
        Some(cloud) => {
            let why = cloud.error.as_deref().map_or_else(String::new, |error| format!(" ({})", plain(error)));
            format!("cloud AWAY{why}; events that wait: {}", cloud.backlog)
        }
    }
}

/// A row for each phase: where the current is, against its limit.
fn circuits(circuits: &[CircuitStatus]) -> Table {
    let mut table = Table::new(&[
        "CIRCUIT",
        "PHASE",
        ">MEASURED A",
        ">LIMIT A",
        ">CONFIGURED A",
        ">OTHER LOAD A",
        ">MAY DRAW A",
        ">OFFERED A",
        "OTHER LOAD FROM",
    ]);
    for circuit in circuits {
        for (index, phase) in PHASES.iter().enumerate() {
            let first = index == 0;
            table.row(&[
                if first { circuit.id.clone() } else { String::new() },
                (*phase).to_owned(),
                or_dash(circuit.measured_a, |measured| number(measured[index])),
                number(circuit.limit_a[index]),
                number(circuit.configured_limit_a[index]),
                number(circuit.background_a[index]),
                number(circuit.committed_a[index]),
                number(circuit.offered_a[index]),
                if first { circuit.background_source.clone() } else { String::new() },
            ]);
        }
    }
    table
}

fn chargers(chargers: &[ChargerStatus]) -> Table {
    let mut table = Table::new(&[
        "CHARGER",
        "EVSE",
        "CIRCUIT",
        "LINK",
        "STATE",
        ">OFFERED A",
        ">MAY DRAW A",
        ">DRAWS A (L1 L2 L3)",
        ">KW",
        ">KWH",
        "LIMITED BY",
    ]);
    for charger in chargers {
        for evse in &charger.evses {
            let link = match (&charger.ocpp_version, charger.connected) {
                (Some(version), true) => version.clone(),
                (None, true) => "connected".to_owned(),
                (_, false) => "AWAY".to_owned(),
            };
            table.row(&[
                charger.id.clone(),
                evse.evse.to_string(),
                charger.circuit.clone(),
                link,
                or_dash(evse.status.clone(), |status| status),
                or_dash(evse.offered_a, number),
                number(evse.committed_a),
                or_dash(evse.measured_a, |drawn| drawn.map(number).join(" ")),
                or_dash(evse.power_w, thousandths),
                or_dash(evse.energy_wh, thousandths),
                evse.binding.clone(),
            ]);
        }
    }
    table
}

/// Those that nobody has configured.
fn pending(status: &SiteStatus) -> Table {
    let mut table = Table::new(&["WAITS FOR APPROVAL", "SINCE", "OCPP", "MAKER", "MODEL", "FIRMWARE"]);
    for charger in &status.pending {
        table.row(&[
            charger.id.clone(),
            charger.since.to_string(),
            charger.ocpp_version.clone(),
            or_dash(charger.vendor.clone(), |vendor| vendor),
            or_dash(charger.model.clone(), |model| model),
            or_dash(charger.firmware.clone(), |firmware| firmware),
        ]);
    }
    table
}

/// Who goes first, who must have what by when, who waits: sentences that no column is wide enough for.
fn wishes(chargers: &[ChargerStatus], out: &mut dyn Write) -> io::Result<()> {
    let mut any = false;
    for charger in chargers {
        for evse in charger.evses.iter().filter(|evse| !evse.wishes.is_empty()) {
            writeln!(out, "{} EVSE {}: {}", plain(&charger.id), evse.evse, plain(&evse.wishes))?;
            any = true;
        }
    }
    if any { writeln!(out) } else { Ok(()) }
}

/// What chargers that keep their profiles in flash were sent, against their budgets.
fn writes(chargers: &[ChargerStatus], out: &mut dyn Write) -> io::Result<()> {
    let mut any = false;
    for charger in chargers {
        if let ProfileWrites { in_a_day, budget: Some(budget) } = charger.profile_writes {
            let used_up = if in_a_day >= budget { ": USED UP" } else { "" };
            writeln!(out, "{}: {in_a_day} of {budget} charging profiles of a day{used_up}", plain(&charger.id))?;
            any = true;
        }
    }
    if any { writeln!(out) } else { Ok(()) }
}

fn meters(meters: &[MeterStatus]) -> Table {
    let mut table = Table::new(&["METER", "STATE", ">AGE S", ">L1 A", ">L2 A", ">L3 A", ">KW"]);
    for meter in meters {
        let [l1, l2, l3] = meter.current_a.map(|current| or_dash(current, number));
        table.row(&[
            meter.id.clone(),
            state(meter.fresh),
            age(meter.age_ms),
            l1,
            l2,
            l3,
            or_dash(meter.power_w, thousandths),
        ]);
    }
    table
}

fn inverters(status: &SiteStatus) -> Table {
    let mut table = Table::new(&["INVERTER", "STATE", ">AGE S", ">FEEDS KW"]);
    for inverter in &status.inverters {
        let power = or_dash(inverter.power_w, thousandths);
        table.row(&[inverter.id.clone(), state(inverter.fresh), age(inverter.age_ms), power]);
    }
    table
}

fn transactions(status: &SiteStatus) -> Table {
    let mut table = Table::new(&["TRANSACTION", "CHARGER", "EVSE", "TOKEN", "STARTED", ">KWH"]);
    for transaction in &status.transactions {
        table.row(&[
            transaction.transaction.clone(),
            transaction.charger.clone(),
            transaction.evse.to_string(),
            or_dash(transaction.token.clone(), |token| token),
            transaction.started.to_string(),
            or_dash(transaction.energy_wh, thousandths),
        ]);
    }
    table
}

fn limits(status: &SiteStatus) -> Table {
    let mut table = Table::new(&["LIMIT FROM OUTSIDE ON", "LEAVES", "BY", "UNTIL"]);
    for limit in &status.limits {
        let circuit = limit.circuit.as_ref().map(|id| format!("circuit {id}"));
        let on = circuit.or(limit.charger.as_ref().map(|id| format!("charger {id}"))).unwrap_or_default();
        let leaves = [
            limit.limit_a.map(|amperes| format!("{amperes} A")),
            limit.limit_w.map(|watts| format!("{watts} W")),
            limit.charging_w.map(|watts| format!("{watts} W for charging")),
            limit.limit_percent.map(|percent| format!("{percent} %")),
        ];
        let lost = if limit.sender_lost { " (LOST)" } else { "" };
        table.row(&[
            on,
            leaves.into_iter().flatten().collect(),
            format!("{}{lost}", limit.source),
            or_dash(limit.until, |until| until.to_string()),
        ]);
    }
    table
}

fn state(fresh: bool) -> String {
    if fresh { "ok" } else { "LOST" }.to_owned()
}

/// Why a device is lost: a sentence that no column is wide enough for.
fn faults(status: &SiteStatus, out: &mut dyn Write) -> io::Result<()> {
    let meters = status.meters.iter().map(|meter| ("meter", &meter.id, meter.fresh, &meter.fault));
    let inverters = status.inverters.iter().map(|device| ("inverter", &device.id, device.fresh, &device.fault));
    let mut any = false;
    for (kind, id, fresh, fault) in meters.chain(inverters) {
        if let (false, Some(fault)) = (fresh, fault) {
            writeln!(out, "{kind} {} LOST: {}", plain(id), plain(fault))?;
            any = true;
        }
    }
    if any { writeln!(out) } else { Ok(()) }
}

/// Whole W or Wh as kW or kWh with two digits, towards zero.
fn thousandths(value: i64) -> String {
    let sign = if value < 0 { "-" } else { "" };
    let magnitude = value.unsigned_abs();
    format!("{sign}{}.{:02}", magnitude / 1_000, magnitude % 1_000 / 10)
}

fn age(ms: Option<u64>) -> String {
    or_dash(ms, |ms| format!("{}.{}", ms / 1_000, ms % 1_000 / 100))
}

fn duration(ms: u64) -> String {
    let minutes = ms / 60_000;
    match (minutes / 1_440, minutes / 60 % 24, minutes % 60) {
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::model::status::{CloudStatus, EvseStatus, PendingCharger};

    #[test]
    fn every_circuit_and_phase_stands_against_its_limit() {
        let circuit = CircuitStatus {
            id: "garage".to_owned(),
            limit_a: [125.0; 3],
            configured_limit_a: [125.0; 3],
            measured_a: Some([40.5, 41.5, 42.5]),
            background_source: "meter".to_owned(),
            ..CircuitStatus::default()
        };
        let evse = EvseStatus {
            evse: 1,
            offered_a: Some(16.0),
            binding: "circuit".to_owned(),
            wishes: "4th of 7 in the queue, starts by 14:20".to_owned(),
            ..EvseStatus::default()
        };
        let charger = ChargerStatus {
            id: "CP\u{1b}001".to_owned(),
            evses: vec![evse],
            profile_writes: ProfileWrites { in_a_day: 17, budget: Some(24) },
            ..ChargerStatus::default()
        };
        let status = SiteStatus {
            site: "depot".to_owned(),
            circuits: vec![circuit],
            chargers: vec![charger],
            pending: vec![PendingCharger { id: "CP\u{1b}9".to_owned(), ..PendingCharger::default() }],
            meters: vec![MeterStatus {
                id: "main".to_owned(),
                fault: Some("no answer".to_owned()),
                ..MeterStatus::default()
            }],
            cloud: Some(CloudStatus { backlog: 7, ..CloudStatus::default() }),
            ..SiteStatus::default()
        };
        let mut out = Vec::new();
        write_status(&status, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for phase in ["L1 40.5 125.0", "L2 41.5 125.0", "L3 42.5 125.0"] {
            assert!(words.contains(phase), "{text}");
        }
        for part in [
            "cloud AWAY; events that wait: 7",
            "meter main LOST: no answer",
            "AWAY",
            "No alarms.",
            "WAITS FOR APPROVAL",
            "CP\u{fffd}9",
            "CP\u{fffd}001: 17 of 24 charging profiles of a day",
            "CP\u{fffd}001 EVSE 1: 4th of 7 in the queue, starts by 14:20",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(thousandths(-1_234), "-1.23");
        assert_eq!(thousandths(11_040), "11.04");
        assert_eq!(age(Some(1_250)), "1.2");
        assert_eq!(duration(90_061_000), "1 d 1 h");
    }
}
