//! The judgement at the end of a run without a terminal.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use siteward::engine::model::status::SiteStatus;
use siteward::engine::units::Current;

use super::Demo;
use super::judge::{CircuitRecord, GRACE_MS};
use super::layout::DEVICES;
use crate::cloud::CloudConsumer;
use crate::net::cloud::CloudState;
use crate::station::TransactionTruth;

/// The stations' own ledgers against the cloud's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// How many transactions the stations have begun.
    pub started: usize,
    /// How many of them have ended.
    pub ended: usize,
    /// The energy of the ended ones by the stations' registers, in Wh.
    pub energy_wh: i64,
    /// The energy of the ended ones as the cloud bills it, in Wh.
    pub billed_wh: i64,
    /// What does not agree, a line for each.
    pub faults: Vec<String>,
}

impl Audit {
    /// Compares the ledgers.
    #[must_use]
    pub fn of(ledgers: &[(&str, Vec<TransactionTruth>)], cloud: &CloudConsumer) -> Self {
        let mut audit = Self { billed_wh: cloud.energy_wh(), ..Self::default() };
        let mut unclaimed: BTreeMap<_, _> = cloud.transactions().iter().collect();
        for (station, transactions) in ledgers {
            for truth in transactions {
                audit.started += 1;
                audit.ended += usize::from(truth.ended.is_some());
                audit.energy_wh += truth.meter_stop_wh.unwrap_or(truth.meter_start_wh) - truth.meter_start_wh;
                let Some(id) =
                    truth.id.clone().filter(|_| truth.start_answered && truth.stop_answered && !truth.given_up)
                else {
                    audit.faults.push(format!(
                        "{station}: the transaction of {} was never fully answered: {truth:?}",
                        truth.started
                    ));
                    continue;
                };
                let Some(billed) = unclaimed.remove(&((*station).to_owned(), id.clone())) else {
                    audit.faults.push(format!(
                        "{station}: transaction {id} is missing at the cloud, or stands twice in the station's ledger"
                    ));
                    continue;
                };
                if (billed.started, billed.ended) != (1, 1) {
                    let times = format!("{} times started and {} times ended", billed.started, billed.ended);
                    audit.faults.push(format!("{station}: transaction {id} was {times} at the cloud"));
                }
                let measured = truth.meter_stop_wh.map(|stop| stop - truth.meter_start_wh);
                if billed.energy_wh != measured {
                    audit.faults.push(format!(
                        "{station}: transaction {id}: {measured:?} Wh measured, {:?} Wh billed",
                        billed.energy_wh
                    ));
                }
            }
        }
        audit.faults.extend(
            unclaimed
                .keys()
                .map(|(station, id)| format!("{station}: no station knows of the cloud's transaction {id}")),
        );
        audit
    }
}

/// What was found on the way.
#[derive(Clone, Debug)]
pub struct Findings {
    /// Whether `siteward explain` could be asked.
    pub explain_asked: bool,
    /// The stations for which it gave no proper answer.
    pub explain_failures: Vec<String>,
    /// The meters and inverters that the daemon has read at least once.
    pub devices_read: BTreeSet<String>,
    /// Whether everything had arrived in time.
    pub drained: bool,
    /// Whether the controller ended cleanly.
    pub clean_stop: Result<(), String>,
    /// The lines of its log that say ERROR.
    pub log_errors: Vec<String>,
    /// What the stations do while the controller is away.
    pub absence: Absence,
}

/// What the stations are allowed by their own profiles while the controller is away: it must not rise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Absence {
    since_ms: Option<u64>,
    before: Option<Vec<(&'static str, Option<Current>)>>,
    /// How many times a station was looked at.
    pub samples: usize,
    /// The stations whose limit rose.
    pub rises: Vec<String>,
}

/// Frames that left before the kill may still be on their way for so long.
const UNDER_WAY_MS: u64 = 300;

impl Absence {
    /// Takes note of the limits at `at_ms`; `away`: the controller does not run.
    pub fn look(&mut self, away: bool, at_ms: u64, limits: impl FnOnce() -> Vec<(&'static str, Option<Current>)>) {
        if !away {
            self.since_ms = None;
            self.before = None;
            return;
        }
        let since_ms = *self.since_ms.get_or_insert(at_ms);
        if at_ms < since_ms + UNDER_WAY_MS {
            return;
        }
        let limits = limits();
        let Some(before) = &self.before else {
            self.before = Some(limits);
            return;
        };
        for ((station, before), (_, now)) in before.iter().zip(&limits) {
            self.samples += 1;
            let unlimited = Current::MAX;
            if now.unwrap_or(unlimited) > before.unwrap_or(unlimited) {
                self.rises.push(format!("{station}: from {before:?} to {now:?} while the controller was away"));
            }
        }
    }
}

impl Default for Findings {
    fn default() -> Self {
        Self {
            explain_asked: false,
            explain_failures: Vec::new(),
            devices_read: BTreeSet::new(),
            drained: false,
            clean_stop: Ok(()),
            log_errors: Vec::new(),
            absence: Absence::default(),
        }
    }
}

impl Findings {
    /// Takes note of the devices that the daemon reads right now.
    pub fn look(&mut self, status: Option<&SiteStatus>) {
        let Some(status) = status else { return };
        self.devices_read.extend(status.meters.iter().filter(|meter| meter.fresh).map(|meter| meter.id.clone()));
        self.devices_read
            .extend(status.inverters.iter().filter(|inverter| inverter.fresh).map(|inverter| inverter.id.clone()));
    }
}

/// The judgement.
#[derive(Clone, Debug)]
pub struct Summary {
    circuits: Vec<CircuitRecord>,
    audit: Audit,
    findings: Findings,
    made: u64,
    delivered: u64,
    duplicates: u64,
    gaps: u64,
    unreadable: u64,
    broker_losses: u64,
    meter_losses: u64,
    restarts: u64,
    crashes: Vec<String>,
}

impl Summary {
    /// Puts everything together.
    #[must_use]
    pub fn new(
        demo: &Demo,
        findings: Findings,
        audit: Audit,
        (status, cloud): (Option<&SiteStatus>, &CloudState),
    ) -> Self {
        Self {
            circuits: demo.plant.records.clone(),
            audit,
            findings,
            // The last status may be a moment older than the last event.
            made: status.map_or(0, |status| status.last_sequence).max(cloud.consumer.last()),
            delivered: cloud.consumer.last(),
            duplicates: cloud.consumer.duplicates(),
            gaps: cloud.gaps,
            unreadable: cloud.consumer.unreadable(),
            broker_losses: cloud.losses,
            meter_losses: demo.meter_losses,
            restarts: demo.processes.restarts,
            crashes: demo.processes.crashes.clone(),
        }
    }

    /// The broken promises; none if the run was good.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for circuit in self.circuits.iter().filter(|circuit| circuit.beyond_grace_ms > 0) {
            faults.push(format!(
                "circuit {} was above its limit {} s longer than the grace of {} s",
                circuit.id,
                seconds(circuit.beyond_grace_ms),
                seconds(GRACE_MS)
            ));
        }
        if self.delivered < self.made || self.made == 0 {
            faults.push(format!(
                "{} of {} events are missing at the cloud",
                self.made - self.delivered.min(self.made),
                self.made
            ));
        }
        if self.unreadable > 0 {
            faults.push(format!("{} messages at the cloud were no events", self.unreadable));
        }
        if self.audit.started == 0 {
            faults.push("no transaction was started at all".to_owned());
        }
        faults.extend(self.audit.faults.iter().cloned());
        if !self.findings.drained {
            faults.push("not everything had arrived at the cloud a minute after the last car had left".to_owned());
        }
        if !self.findings.explain_asked {
            faults.push("siteward explain was never asked: the stations were not connected".to_owned());
        }
        for device in DEVICES.iter().filter(|device| !self.findings.devices_read.contains(**device)) {
            faults.push(format!("the device {device} was never read"));
        }
        faults.extend(self.findings.explain_failures.iter().map(|failure| format!("siteward explain {failure}")));
        faults.extend(self.crashes.iter().map(|status| format!("the controller ended by itself ({status})")));
        faults.extend(self.findings.absence.rises.iter().take(5).cloned());
        faults.extend(self.findings.clean_stop.clone().err());
        faults.extend(self.findings.log_errors.iter().take(5).map(|line| format!("the controller's log says: {line}")));
        faults
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "circuits (physical currents, sampled every 100 ms; grace {} s)", seconds(GRACE_MS))?;
        for circuit in &self.circuits {
            writeln!(
                f,
                "  {:<8} limit {:>5.1} A   above it {:>6} s   beyond the grace {:>6} s   at most {:>5.1} A above   highest {:>5.1} A",
                circuit.id,
                circuit.limit.as_a(),
                seconds(circuit.above_ms),
                seconds(circuit.beyond_grace_ms),
                circuit.overshoot.as_a(),
                circuit.highest.as_a(),
            )?;
        }
        let audit = &self.audit;
        let (kwh, billed) = (thousandths(audit.energy_wh), thousandths(audit.billed_wh));
        writeln!(f, "transactions")?;
        writeln!(
            f,
            "  {} started, {} ended, {kwh} kWh at the stations, {billed} kWh at the cloud",
            audit.started, audit.ended
        )?;
        writeln!(f, "events")?;
        writeln!(
            f,
            "  {} made, {} at the cloud exactly once by sequence, {} duplicates dropped, {} missing, {} gaps replayed",
            self.made,
            self.delivered,
            self.duplicates,
            self.made - self.delivered.min(self.made),
            self.gaps,
        )?;
        let absence = &self.findings.absence;
        if absence.samples > 0 {
            let (rises, samples) = (absence.rises.len(), absence.samples);
            writeln!(f, "while the controller was away")?;
            writeln!(
                f,
                "  {rises} of {samples} looks at a station found its limit higher than when it was left alone"
            )?;
        }
        writeln!(f, "faults injected")?;
        let (broker, meter, controller) = (self.broker_losses, self.meter_losses, self.restarts);
        writeln!(f, "  broker lost {broker} times, grid meter {meter} times, controller restarted {controller} times")?;
        let faults = self.faults();
        if faults.is_empty() {
            return write!(f, "every promise was kept, and siteward explain answered for every station");
        }
        write!(f, "BROKEN PROMISES")?;
        faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

/// ms as seconds with one decimal.
fn seconds(ms: u64) -> String {
    format!("{}.{}", ms / 1000, ms % 1000 / 100)
}

/// Wh as kWh.
fn thousandths(wh: i64) -> String {
    format!("{}.{:03}", wh / 1000, wh % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_rises_while_the_controller_is_away_is_seen() {
        let limit = |a: i32| vec![("G1", Some(Current::from_a(a)))];
        let mut absence = Absence::default();
        absence.look(true, 0, || limit(6));
        absence.look(true, 300, || limit(10));
        absence.look(true, 400, || limit(10));
        absence.look(true, 500, || limit(8));
        assert_eq!((absence.samples, absence.rises.len()), (2, 0));
        absence.look(true, 600, || limit(11));
        absence.look(true, 700, || vec![("G1", None)]);
        assert_eq!(absence.rises.len(), 2);
        absence.look(false, 800, || limit(32));
        absence.look(true, 900, || limit(32));
        assert_eq!(absence.rises.len(), 2);
    }
    use siteward::engine::time::Utc;

    fn truth(id: &str, start: i64, stop: i64) -> TransactionTruth {
        TransactionTruth {
            evse: 1,
            token: "ANNA".to_owned(),
            id: Some(id.to_owned()),
            started: Utc::from_unix_ms(0),
            ended: Some(Utc::from_unix_ms(1)),
            meter_start_wh: start,
            meter_stop_wh: Some(stop),
            start_answered: true,
            stop_answered: true,
            given_up: false,
            shown_cost: None,
            final_cost: None,
            costs_shown: 0,
            signed: Vec::new(),
        }
    }

    fn cloud(events: &[(&str, &str)]) -> CloudConsumer {
        let mut consumer = CloudConsumer::default();
        for (index, (kind, id)) in events.iter().enumerate() {
            consumer.receive(&format!(
                r#"{{"sequence":{},"type":"siteward.transaction.{kind}","data":{{"charger":"G1","transaction_id":"{id}","meter_start_wh":10,"meter_stop_wh":30,"energy_wh":20}}}}"#,
                index + 1
            ));
        }
        consumer
    }

    #[test]
    fn ledgers_that_agree_have_no_fault() {
        let audit = Audit::of(&[("G1", vec![truth("7", 10, 30)])], &cloud(&[("started", "7"), ("ended", "7")]));
        assert_eq!(audit, Audit { started: 1, ended: 1, energy_wh: 20, billed_wh: 20, faults: Vec::new() });
    }

    #[test]
    fn a_missing_a_doubled_an_unknown_and_a_wrong_one_are_named() {
        let ledger = [("G1", vec![truth("7", 10, 30), truth("8", 10, 30), truth("9", 10, 31)])];
        let events =
            [("started", "7"), ("started", "7"), ("ended", "7"), ("started", "6"), ("started", "9"), ("ended", "9")];
        let faults = Audit::of(&ledger, &cloud(&events)).faults.join("\n");
        for part in [
            "transaction 7 was 2 times started",
            "transaction 8 is missing",
            "transaction 9: Some(21) Wh",
            "cloud's transaction 6",
        ] {
            assert!(faults.contains(part), "{part} is missing in\n{faults}");
        }
    }
}
