//! Charge detail records: made when a transaction is over and the calendar time is known, taken back and made anew when it turns out
//! that it ended otherwise.

use std::collections::BTreeMap;

use super::accounts::{Closed, MOST_WAITING, UntrustedTime, offset_ms};
use super::billing::{short, usage_of};
use super::io::{LogLevel, Output};
use super::ledger::{EndedTransaction, OpenTransaction};
use super::{Site, log};
use crate::engine::billing::bill::bill;
use crate::engine::billing::cdr::{Parts, cdr, ci_string, credit};
use crate::engine::model::alarm::{AlarmKind, Severity};
use crate::engine::model::cdr::{CdrLocation, CdrNote, CdrToken, Operator, Sealed};
use crate::engine::model::command::CommandOutcome;
use crate::engine::model::ids::{IdToken, StationId, TransactionId};
use crate::engine::model::record::{RecordBody, Stamp, TransactionFacts};
use crate::engine::time::{Now, Utc};
use crate::engine::units::Energy;

/// So many CDRs are made in a second: many wait at once only when the time has become known, or after many restarts. Each takes some tens of
/// microseconds.
const MOST_AT_ONCE: usize = 100;

/// A time told while our clock was wrong is by a clock that followed ours, or by one that was right; further away from both it is by neither.
const FOLLOWS_MS: i64 = 3_600_000;

/// The longest id of a token or a contract.
const MAX_UID: usize = 36;

/// How a transaction ended, as it is known better now.
#[derive(Clone, Debug)]
pub(super) struct BetterEnd {
    pub(super) ended: Utc,
    pub(super) meter_stop: Option<Energy>,
    pub(super) reason: String,
}

impl Site {
    /// What the CDR of a transaction will say of its token and its place; `None`: no CDRs are made here.
    pub(super) fn seal(&self, facts: &TransactionFacts) -> Option<Box<Sealed>> {
        let operator = self.setup.billing.operator.as_ref()?;
        let token = cdr_token(operator, facts.token.as_ref()?);
        let location = self.location(operator, facts)?;
        let (country_code, party_id) = (operator.country_code.clone(), operator.party_id.clone());
        Some(Box::new(Sealed { country_code, party_id, token, location }))
    }

    fn location(&self, operator: &Operator, facts: &TransactionFacts) -> Option<CdrLocation> {
        let index = self.setup.topology.find_station(&facts.charger)?;
        let station = self.setup.topology.station(index);
        let known = self.setup.billing.chargers.get(&facts.charger).cloned().unwrap_or_default();
        let number = usize::try_from(facts.evse).ok()?.checked_sub(1)?;
        let evse_id = known.evse_ids.get(number).cloned().unwrap_or_else(|| evse_id(operator, facts));
        let is_dc = station.dc.is_some();
        let either = |dc: &str, ac: &str| if is_dc { dc } else { ac }.to_owned();
        let power = match station.wiring.terminals() {
            1 => "AC_1_PHASE",
            2 => "AC_2_PHASE",
            _ => "AC_3_PHASE",
        };
        let place = operator.location.clone();
        Some(CdrLocation {
            id: place.id,
            name: place.name,
            address: place.address,
            city: place.city,
            postal_code: place.postal_code,
            state: place.state,
            country: place.country,
            coordinates: place.coordinates,
            evse_uid: format!("{}-{}", facts.charger, facts.evse),
            evse_id,
            connector_id: facts.connector.to_string(),
            connector_standard: known.standard.unwrap_or_else(|| either("IEC_62196_T2_COMBO", "IEC_62196_T2")),
            connector_format: known.format.unwrap_or_else(|| either("CABLE", "SOCKET")),
            connector_power_type: either("DC", power),
        })
    }

    /// Makes what CDRs can be made now.
    pub(super) fn cdr_tick(&mut self, now: Now, out: &mut Vec<Output>) {
        if !now.utc_trusted {
            return;
        }
        self.clear(AlarmKind::CdrWithheld, "", now, out);
        let stale: Vec<_> = self.ledger.accounts().stale().take(MOST_AT_ONCE).cloned().collect();
        for issued in stale {
            let (Some(cdr), Some(why)) = (&issued.cdr, &issued.stale) else { continue };
            self.record(credit_note(&issued.closed, credit(cdr, why, now.utc), true), now, out);
        }
        self.note_signed_waits(now.mono);
        let waiting = self.ledger.accounts().waiting().filter(|closed| !self.awaits_signed_end(closed, now.mono));
        let ready: Vec<Closed> = waiting.take(MOST_AT_ONCE).cloned().collect();
        for closed in ready {
            self.settle(&closed, now, out);
        }
    }

    /// Makes the CDR of a transaction, or says why there is none.
    fn settle(&mut self, closed: &Closed, now: Now, out: &mut Vec<Output>) {
        let body = match self.cdr_of(closed, now) {
            Ok(note) => RecordBody::CdrCreated(Box::new(note)),
            Err(reason) => {
                let facts = closed.open.facts.clone();
                let (charger, transaction) = (&facts.charger, &facts.transaction);
                log(out, LogLevel::Warn, format!("{charger}: transaction {transaction} gets no CDR: {reason}"));
                RecordBody::CdrWithheld { facts, ended_by: closed.ended_by, reason }
            }
        };
        self.record(body, now, out);
    }

    /// More transactions than may wait. Where the time is known the oldest gets its CDR out of turn; else it gets none, which is said instead of
    /// being forgotten.
    pub(super) fn make_room_for_bill(&mut self, body: &RecordBody, now: Now, out: &mut Vec<Output>) {
        let RecordBody::TransactionEnded { facts, .. } = body else { return };
        let known = self.ledger.station(&facts.charger).and_then(|station| station.transaction(&facts.transaction));
        let gets_one = known.is_some_and(|open| open.sealed.is_some());
        let Some(oldest) = self.ledger.accounts().too_many().filter(|_| gets_one) else { return };
        if now.utc_trusted {
            let oldest = oldest.clone();
            return self.settle(&oldest, now, out);
        }
        let (facts, ended_by) = (oldest.open.facts.clone(), oldest.ended_by);
        let reason = format!("more than {MOST_WAITING} transactions wait for the time");
        self.record(RecordBody::CdrWithheld { facts, ended_by, reason }, now, out);
        self.raise(
            (AlarmKind::CdrWithheld, "", Severity::Error),
            format!("More than {MOST_WAITING} transactions wait for the time; the oldest of them get no CDR."),
            "Give the gateway a time server that it can reach. The events `siteward.cdr.withheld` name the transactions: bill them by hand.",
            (now, out),
        );
    }

    /// The CDR of a transaction, or why there is none.
    fn cdr_of(&self, closed: &Closed, now: Now) -> Result<CdrNote, String> {
        let (open, ended, corrected) = self.in_true_time(closed, now)?;
        let tariff = open.tariff.as_ref().ok_or("it has no tariff")?;
        let missing = || "it has no register at both ends: what was not measured is not billed".to_owned();
        let usage = usage_of(&open, ended, closed.meter_stop).ok_or_else(missing)?;
        let bill = bill(&usage, tariff, self.setup.timezone);
        let mut remarks = Vec::new();
        if corrected {
            remarks.push("Times were corrected: the clock was not known when they were told.".to_owned());
        }
        let (signed, more) = self.signed_data(closed);
        remarks.extend(more);
        let mut sealed = closed.sealed.clone();
        if sealed.location.evse_uid != format!("{}-{}", open.facts.charger, open.facts.evse)
            && let Some(operator) = &self.setup.billing.operator
            && let Some(location) = self.location(operator, &open.facts)
        {
            // OCPP 2.x names the EVSE later than the token where somebody authorizes first.
            sealed.location = location;
        }
        let id = format!("{}-{}", self.store_id, self.ledger.last().next());
        let parts = Parts {
            id: &id,
            session: open.facts.transaction.as_str(),
            sealed: &sealed,
            bill: &bill,
            tariff,
            signed: signed.as_ref(),
            remarks: &remarks,
            made: now.utc,
        };
        Ok(CdrNote {
            charger: open.facts.charger.clone(),
            transaction: open.facts.transaction.clone(),
            ended_by: closed.ended_by,
            reissue: false,
            cdr: cdr(parts).ok_or("it has no period")?,
        })
    }

    /// A transaction with its times by the true calendar, and whether one had to be corrected.
    fn in_true_time(&self, closed: &Closed, now: Now) -> Result<(OpenTransaction, Utc, bool), String> {
        let mut found = BTreeMap::new();
        for time in &closed.untrusted {
            found.insert(time.at, self.true_time(time, now)?);
        }
        let corrected = found.iter().any(|(told, real)| told != real);
        let real = |at: Utc| found.get(&at).copied().unwrap_or(at);
        let mut open = closed.open.clone();
        open.facts.started = real(open.facts.started);
        for sample in &mut open.registers {
            sample.at = real(sample.at);
        }
        for change in &mut open.activity {
            change.at = real(change.at);
        }
        // What was told before the clock was set may stand behind what was told after.
        open.registers.sort_by_key(|sample| sample.at);
        Ok((open, real(closed.ended), corrected))
    }

    /// The true time of one that was told while our clock was not known.
    fn true_time(&self, told: &UntrustedTime, now: Now) -> Result<Utc, String> {
        let Stamp { utc, mono, boot, .. } = told.stamp;
        let known =
            if boot == self.boot { Some(offset_ms(now.utc, now.mono)) } else { self.ledger.accounts().clock_of(boot) };
        let gone = || "its times were told while the clock was not known, and that run ended before it was".to_owned();
        let wrong_by = known.ok_or_else(gone)? - offset_ms(utc, mono);
        let received = utc.plus_ms(wrong_by);
        // Our clock was wrong by so much, and the station followed it; or the station's own was right.
        let followed = told.at.plus_ms(wrong_by);
        let distance = |at: Utc| received.since(at).saturating_abs();
        let nearest = if distance(followed) <= distance(told.at) { followed } else { told.at };
        if distance(nearest) > FOLLOWS_MS {
            return Err(format!("its time {} is by a clock that nobody knows", told.at));
        }
        Ok(nearest)
    }

    /// It is known better how a transaction ended than when it was recorded. Says whether that changes anything.
    pub(super) fn correct_end(
        &mut self,
        ended: &EndedTransaction,
        better: BetterEnd,
        now: Now,
        out: &mut Vec<Output>,
    ) -> bool {
        let facts = ended.facts.clone();
        let known = self.ledger.accounts();
        let cost = known.bill_parts(&facts.charger, &facts.transaction).and_then(|closed| {
            let usage = usage_of(&closed.open, better.ended, better.meter_stop)?;
            Some(short(&bill(&usage, closed.open.tariff.as_ref()?, self.setup.timezone)))
        });
        let changes = (ended.ended, ended.meter_stop) != (better.ended, better.meter_stop);
        let plausible = better.ended >= facts.started
            && better.meter_stop.zip(facts.meter_start).is_none_or(|(stop, start)| stop >= start);
        let has_bill = known.bill_parts(&facts.charger, &facts.transaction).is_some();
        if !changes || !plausible || (has_bill && !known.may_correct(&facts.charger, &facts.transaction)) {
            return false;
        }
        let (charger, transaction) = (&facts.charger, &facts.transaction);
        log(out, LogLevel::Info, format!("{charger}: transaction {transaction} is corrected: {}", better.reason));
        let BetterEnd { ended, meter_stop, reason } = better;
        self.record(RecordBody::TransactionCorrected { facts, ended, meter_stop, reason, cost }, now, out);
        true
    }

    /// `cdr.credit`: with another end than recorded the transaction is corrected first, which takes the CDR back with the next second.
    pub(super) fn credit_cdr(
        &mut self,
        (id, reason, reissue): (&str, &str, bool),
        (ended, meter_stop): (Option<Utc>, Option<Energy>),
        (now, out): (Now, &mut Vec<Output>),
    ) -> CommandOutcome {
        let rejected = |error: String| CommandOutcome::Rejected { error };
        if !now.utc_trusted {
            return rejected("the calendar time is not known; a CDR has one".to_owned());
        }
        let Some(issued) = self.ledger.accounts().issued(id).cloned() else {
            return rejected(format!("there is no CDR {id:?} here; the last 200 are kept, and a credit CDR is final"));
        };
        let Some(cdr) = issued.cdr.as_ref().filter(|_| !issued.credited) else {
            return rejected(format!("CDR {id} was credited already"));
        };
        let credited = credit(cdr, reason, now.utc);
        let data = serde_json::json!({ "credit_cdr_id": credited.id }).to_string();
        if ended.is_none() && meter_stop.is_none() {
            self.record(credit_note(&issued.closed, credited, reissue), now, out);
            return CommandOutcome::Accepted { data: Some(data) };
        }
        let closed = issued.closed;
        let known = EndedTransaction {
            facts: closed.open.facts.clone(),
            ended: closed.ended,
            meter_stop: closed.meter_stop,
            started_by: closed.open.started_by,
            ended_by: closed.ended_by,
            reconstructed: false,
        };
        let better = BetterEnd {
            ended: ended.unwrap_or(closed.ended),
            meter_stop: meter_stop.or(closed.meter_stop),
            reason: reason.to_owned(),
        };
        if self.correct_end(&known, better, now, out) {
            return CommandOutcome::Accepted { data: Some(data) };
        }
        rejected(
            "that is how it ended already, or it cannot be: before its start, below its first register, too often"
                .to_owned(),
        )
    }

    /// A register of a transaction that is over already: where its end was put together without the station's word, it is the better end.
    pub(super) fn late_register(
        &mut self,
        charger: &StationId,
        transaction: &TransactionId,
        (at, register): (Utc, Energy),
        (now, out): (Now, &mut Vec<Output>),
    ) {
        let known = self.ledger.station(charger).and_then(|station| station.ended(transaction)).cloned();
        let Some(ended) = known.filter(|ended| ended.reconstructed) else { return };
        if at > ended.ended || ended.meter_stop.is_some_and(|stop| register <= stop) {
            return;
        }
        let reason = "a meter value came after the end was put together".to_owned();
        let better = BetterEnd { ended: ended.ended, meter_stop: Some(register), reason };
        self.correct_end(&ended, better, now, out);
    }
}

fn credit_note(closed: &Closed, cdr: crate::engine::model::cdr::Cdr, reissue: bool) -> RecordBody {
    RecordBody::CdrCreated(Box::new(CdrNote {
        charger: closed.open.facts.charger.clone(),
        transaction: closed.open.facts.transaction.clone(),
        ended_by: closed.ended_by,
        reissue,
        cdr,
    }))
}

/// eMI3: country, operator, `E`, and up to 31 letters, digits and `*`.
fn evse_id(operator: &Operator, facts: &TransactionFacts) -> String {
    let plain = |character: &char| character.is_ascii_alphanumeric();
    let charger: String = facts.charger.as_str().chars().filter(plain).take(24).collect();
    format!("{}*{}*E{}*{}", operator.country_code, operator.party_id, charger.to_ascii_uppercase(), facts.evse)
}

/// A token of the site's own list belongs to the operator. One that a `CiString` cannot hold is written without what does not fit.
fn cdr_token(operator: &Operator, token: &IdToken) -> CdrToken {
    let (kind, text) = if token.as_str().is_empty() { ("AD_HOC_USER", "AD-HOC") } else { ("RFID", token.as_str()) };
    let uid = ci_string(text, MAX_UID).unwrap_or_else(|| {
        let fits = |byte: char| if (' '..='~').contains(&byte) { byte } else { '?' };
        text.chars().map(fits).take(MAX_UID).collect()
    });
    CdrToken {
        country_code: operator.country_code.clone(),
        party_id: operator.party_id.clone(),
        contract_id: uid.clone(),
        uid,
        kind: kind.to_owned(),
    }
}
