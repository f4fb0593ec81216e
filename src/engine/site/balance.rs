//! The balance of each night: what the stations' registers counted against what transactions account for, and against the circuits' meters.
//!
//! It is made at five past midnight by the site's clock, when the registers of the day have come. What is missing is said and not judged.

use chrono_tz::Tz;

use super::Site;
use super::io::Output;
use super::ledger::OpenTransaction;
use super::ledger::stands;
use crate::engine::billing::balance::{judge_circuit, judge_register};
use crate::engine::billing::calendar::{borders, wall_clock};
use crate::engine::billing::split::RegisterAt;
use crate::engine::model::alarm::{AlarmKey, AlarmKind, Severity};
use crate::engine::model::balance::{Balance, BalanceVerdict, CircuitBalance, Comparison, EvseBalance, MeterRegisters};
use crate::engine::model::ids::{CircuitId, StationId};
use crate::engine::model::record::RecordBody;
use crate::engine::model::topology::{CircuitIndex, Evse, EvseIndex};
use crate::engine::time::{Now, Utc};
use crate::engine::units::{Current, Energy};

/// The minute of the local day at which it is made.
const AT_MINUTE: u16 = 5;

/// After a start stations and meters have so long to tell their registers before a balance that was due meanwhile is made.
const SETTLE_MS: u64 = 600_000;

/// A register of a running transaction that is older says nothing of the energy until now.
const OLD_MS: i64 = 15 * 60_000;

/// ms of an hour.
const HOUR_MS: i64 = 3_600_000;

/// An EVSE at the end of a day.
struct EvseDay {
    balance: EvseBalance,
    /// Whether anything happened there.
    moved: bool,
    /// What it took, by its register or, where that stepped back, by its transactions.
    took: Option<Energy>,
    /// What it may have taken since its last register.
    untold: Energy,
    /// Its last register is too old to know what it took.
    is_old: bool,
}

impl Site {
    /// Makes the balance when it is due.
    pub(super) fn balance_tick(&mut self, now: Now, out: &mut Vec<Output>) {
        if !now.utc_trusted {
            return;
        }
        let after = self.ledger.counted().until.unwrap_or(now.utc);
        let zone = self.setup.timezone;
        let due = *self.balance_due.get_or_insert_with(|| next_balance(zone, after));
        if now.utc < due || now.mono.since(self.started) < SETTLE_MS {
            return;
        }
        self.balance_due = None;
        let balance = self.balance(now);
        self.record(RecordBody::EnergyBalanced(Box::new(balance.clone())), now, out);
        for evse in &balance.evses {
            self.judge_evse(evse, balance.from, now, out);
        }
        for circuit in &balance.circuits {
            self.judge_metered(circuit, balance.from, now, out);
        }
    }

    fn balance(&self, now: Now) -> Balance {
        let days: Vec<EvseDay> = (0..self.evses.len()).map(|index| self.evse_day(EvseIndex(index), now)).collect();
        let circuits = (0..self.setup.topology.circuits().len()).map(CircuitIndex);
        let circuits = circuits.filter_map(|circuit| self.circuit_day(circuit, &days, now)).collect();
        let worth = |day: &EvseDay| {
            let subject = name(&day.balance.charger, day.balance.evse);
            day.moved || stands(self.ledger.alarms(), &AlarmKey::new(AlarmKind::EnergyBalance, &subject))
        };
        let evses = days.into_iter().filter(worth).map(|day| day.balance).collect();
        Balance { from: self.ledger.counted().until, to: now.utc, evses, circuits }
    }

    fn evse_day(&self, index: EvseIndex, now: Now) -> EvseDay {
        let Evse { station, number, .. } = self.setup.topology.evse(index);
        let charger = self.station_id(station).clone();
        let count = self.ledger.counted().evse(&charger, number).cloned().unwrap_or_default();
        let open = self.ledger.station(&charger).and_then(|known| known.transaction_at(number));
        let running = open.and_then(|open| self.newest_register(open));
        let at_rest = || match (count.last, self.energy_register(index)) {
            (Some(last), Some(told)) => Some(last.max(told)),
            (last, told) => last.or(told),
        };
        let register_end = if open.is_some() { running.map(|sample| sample.register) } else { at_rest() };
        let from = open.and_then(|open| count.counts_from(&open.facts.transaction, open.facts.meter_start));
        let part = from.zip(register_end).map(|(from, end)| end - from);
        let transactions = count.transactions + part.unwrap_or_default();
        let register_start = count.start.or(from);
        let is_unknown = count.is_unknown || (open.is_some() && part.is_none());
        let counted = register_start.zip(register_end).map(|(start, end)| end - start);
        let has_stepped_back = count.has_stepped_back || from.is_some_and(|from| count.steps_back_to(from));
        let (verdict, reason) = match counted {
            _ if is_unknown => (BalanceVerdict::NotJudged, Some("a transaction had no register at one of its ends")),
            _ if has_stepped_back => (BalanceVerdict::NotJudged, Some("its register has stepped back")),
            None => (BalanceVerdict::NotJudged, Some("its register at the beginning is not known")),
            Some(counted) => (judge_register(counted, transactions, self.setup.billing.tolerance), None),
        };
        let age_ms = running.map_or(0, |sample| self.station_time(station, now).since(sample.at).max(0));
        let settings = self.setup.topology.station(station);
        let terminals = i64::try_from(settings.wiring.terminals()).unwrap_or(3);
        let power = settings.max.at_least_zero().power_at(self.setup.topology.voltage()).w() * terminals;
        let moved =
            open.is_some() || transactions != Energy::ZERO || counted.is_some_and(|energy| energy != Energy::ZERO);
        EvseDay {
            took: if has_stepped_back { Some(transactions) } else { counted }.filter(|_| !is_unknown),
            moved: moved || is_unknown || (count.last.is_none() && register_end.is_some()),
            untold: Energy::from_wh(power.saturating_mul(age_ms.min(OLD_MS)) / HOUR_MS),
            is_old: open.is_some() && (running.is_none() || age_ms > OLD_MS),
            balance: EvseBalance {
                charger,
                evse: number,
                register_start,
                register_end,
                transactions,
                verdict,
                reason: reason.map(str::to_owned),
            },
        }
    }

    /// The newest register of a running transaction.
    fn newest_register(&self, open: &OpenTransaction) -> Option<RegisterAt> {
        let key = (open.facts.charger.clone(), open.facts.transaction.clone());
        let sampled = self.last_registers.get(&key).copied();
        let recorded = open.meter.map(|register| RegisterAt { at: open.recorded_at, register });
        let started = open.facts.meter_start.map(|register| RegisterAt { at: open.facts.started, register });
        [sampled, recorded, started].into_iter().flatten().max_by_key(|sample| (sample.at, sample.register))
    }

    fn circuit_day(&self, index: CircuitIndex, days: &[EvseDay], now: Now) -> Option<CircuitBalance> {
        let topology = &self.setup.topology;
        let circuit = topology.circuit(index);
        let meter = circuit.meter?;
        let stale_after_ms = topology.meters()[meter.0].stale_after_ms;
        let reading = self.meters[meter.0].last.as_ref().and_then(|last| last.fresh(now.mono, stale_after_ms));
        let below = || topology.evses_below(index).iter().filter_map(|evse| days.get(evse.0));
        let untold = below().map(|day| day.untold).sum();
        let registers = reading.and_then(|reading| {
            Some(MeterRegisters { import: reading.import?, export: reading.export.unwrap_or_default(), untold })
        });
        let before = self.ledger.counted().circuit(&circuit.id);
        let comparison = self.comparison(index);
        let unknown = below().find(|day| day.is_old || (day.moved && day.took.is_none()));
        let chargers = unknown.is_none().then(|| below().filter_map(|day| day.took).sum::<Energy>());
        let metered =
            registers.zip(before).map(|(now, before)| (now.import - before.import) - (now.export - before.export));
        let reason = match (registers, before) {
            _ if comparison == Comparison::None => Some("something below it feeds in".to_owned()),
            (None, _) => Some("its meter gives no register".to_owned()),
            (_, None) => Some("the register of its meter at the beginning is not known".to_owned()),
            (Some(now), Some(before)) if now.import < before.import || now.export < before.export => {
                Some("the register of its meter has stepped back".to_owned())
            }
            (Some(_), Some(_)) => unknown.map(|day| {
                let EvseBalance { charger, evse, .. } = &day.balance;
                format!("what {} has taken is not known", name(charger, *evse))
            }),
        };
        let both_ends = untold + before.map_or(Energy::ZERO, |before| before.untold);
        let tolerance = self.setup.billing.tolerance;
        let judged = metered.zip(chargers).filter(|_| reason.is_none());
        let (verdict, tolerance) = judged.map_or_else(
            || (BalanceVerdict::NotJudged, tolerance.of(metered.unwrap_or_default()) + both_ends),
            |both| judge_circuit(comparison, both, both_ends, tolerance),
        );
        let circuit = circuit.id.clone();
        Some(CircuitBalance { circuit, comparison, registers, metered, chargers, tolerance, verdict, reason })
    }

    /// What the meter of a circuit and the chargers below have to do with each other.
    fn comparison(&self, index: CircuitIndex) -> Comparison {
        let topology = &self.setup.topology;
        let is_below = |circuit: CircuitIndex| topology.path_to_grid(circuit).any(|above| above == index);
        if topology.inverters().iter().any(|inverter| is_below(inverter.circuit)) {
            return Comparison::None;
        }
        let below = (0..topology.circuits().len()).map(CircuitIndex).filter(|circuit| is_below(*circuit));
        let zero = |load: crate::engine::units::PerPhase<Current>| load.max() == Current::ZERO;
        let mut only_chargers = topology.circuit(index).unmeasured_load.is_some();
        for circuit in below {
            only_chargers &= topology.circuit(circuit).unmeasured_load.is_none_or(zero);
        }
        // The register of a DC charger may be behind its rectifier.
        let dc =
            topology.evses_below(index).iter().any(|evse| topology.station(topology.evse(*evse).station).dc.is_some());
        if only_chargers && !dc { Comparison::Same } else { Comparison::AtMost }
    }

    fn judge_evse(&mut self, evse: &EvseBalance, from: Option<Utc>, now: Now, out: &mut Vec<Output>) {
        let subject = name(&evse.charger, evse.evse);
        let counted = evse.counted().unwrap_or_default();
        let message = format!(
            "{subject}: its register has counted {} Wh {}, its transactions account for {} Wh.",
            counted.wh(),
            since(from),
            evse.transactions.wh()
        );
        let remedy = "Energy has flowed outside of transactions, a transaction is missing, or the register was exchanged: look into the station's own records.";
        self.judge_balance((&subject, evse.verdict), message, remedy, (now, out));
    }

    fn judge_metered(&mut self, circuit: &CircuitBalance, from: Option<Utc>, now: Now, out: &mut Vec<Output>) {
        let wh = |energy: Option<Energy>| energy.unwrap_or_default().wh();
        let message = format!(
            "Circuit {}: its meter has counted {} Wh {}, the chargers below {} Wh.",
            circuit.circuit,
            wh(circuit.metered),
            since(from),
            wh(circuit.chargers)
        );
        let remedy = "A charger's register or the circuit's meter is wrong, or something else is connected: compare each charger with a meter of its own.";
        self.judge_balance((circuit.circuit.as_str(), circuit.verdict), message, remedy, (now, out));
    }

    fn judge_balance(
        &mut self,
        (subject, verdict): (&str, BalanceVerdict),
        message: String,
        remedy: &str,
        (now, out): (Now, &mut Vec<Output>),
    ) {
        match verdict {
            BalanceVerdict::Good => self.clear(AlarmKind::EnergyBalance, subject, now, out),
            BalanceVerdict::Off => {
                self.restate((AlarmKind::EnergyBalance, subject, Severity::Error), message, remedy, (now, out));
            }
            BalanceVerdict::NotJudged => {}
        }
    }

    /// Whether a balance is made of what an alarm is about.
    pub(super) fn is_balanced(&self, subject: &str) -> bool {
        let topology = &self.setup.topology;
        let is_circuit =
            topology.circuits().iter().any(|circuit| circuit.id == CircuitId::new(subject) && circuit.meter.is_some());
        is_circuit
            || subject.rsplit_once('/').is_some_and(|(station, evse)| {
                let station = topology.find_station(&StationId::new(station));
                station
                    .zip(evse.parse().ok())
                    .is_some_and(|(station, evse)| topology.find_evse(station, evse).is_some())
            })
    }
}

/// The next time at which a balance is made.
fn next_balance(zone: Tz, after: Utc) -> Utc {
    let found = borders(zone, &[AT_MINUTE], after, after.plus_ms(49 * HOUR_MS));
    let mut found = found.into_iter().filter(|at| wall_clock(zone, *at).minute == AT_MINUTE);
    found.next().unwrap_or_else(|| after.plus_ms(24 * HOUR_MS))
}

fn name(charger: &StationId, evse: u32) -> String {
    format!("{charger}/{evse}")
}

fn since(from: Option<Utc>) -> String {
    from.map_or_else(|| "so far".to_owned(), |from| format!("since {from}"))
}
