//! Values that meters have signed: recorded byte for byte, their pages followed, their signatures verified, and held against what is billed.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Site;
use super::accounts::Closed;
use super::io::Output;
use super::ledger::OpenTransaction;
use super::pages::{Signing, fingerprint};
use crate::engine::billing::ocmf::{self, Record};
use crate::engine::billing::signature::{Key, Verdict, verify};
use crate::engine::model::alarm::{AlarmKind, Severity};
use crate::engine::model::cdr::{OcpiSignedValue, SignedData};
use crate::engine::model::exchange::StationAnswer;
use crate::engine::model::ids::{Sequence, StationId, TransactionId};
use crate::engine::model::reading::StationReading;
use crate::engine::model::record::RecordBody;
use crate::engine::model::signed::{Check, MAX_SIGNED_BYTES, PageFault, SignedNote, SignedValue};
use crate::engine::model::topology::StationIndex;
use crate::engine::ocpp::CallToken;
use crate::engine::time::{Mono, Now};
use crate::engine::units::Energy;

/// So long a CDR waits for the signed value at the end of a transaction whose begin was signed: some stations send it after the end.
const SIGNED_END_MS: u64 = 60_000;

/// The longest `plain_data` and `signed_data` of OCPI, and the longest public key.
const MAX_PLAIN: usize = 512;
const MAX_SIGNED: usize = 5_000;
const MAX_KEY: usize = 512;

/// What waits for signed values.
#[derive(Debug, Default)]
pub(super) struct SignedWaits {
    /// Since when a CDR waits, by the record of its transaction's end.
    since: BTreeMap<Sequence, Mono>,
}

/// Whether a message has signed values.
pub(super) fn has_signed(readings: &[StationReading]) -> bool {
    readings.iter().any(|reading| !reading.signed.is_empty())
}

impl Site {
    /// Takes in the signed values of a message, each once. The record that must be durable before the message is answered; `None`: there
    /// was nothing new.
    pub(super) fn take_signed(
        &mut self,
        station: StationIndex,
        readings: &[StationReading],
        now: Now,
        out: &mut Vec<Output>,
    ) -> Option<Sequence> {
        let mut last = None;
        for reading in readings {
            for value in &reading.signed {
                last = self.take_signed_value(station, (reading, value), now, out).or(last);
            }
        }
        last
    }

    /// `MeterValues` with signed values: they are answered when those are durable, like what tells of a transaction.
    pub(super) fn signed_meter_values(
        &mut self,
        station: StationIndex,
        token: CallToken,
        readings: &[StationReading],
        (now, out): (Now, &mut Vec<Output>),
    ) {
        if self.store_error.is_some() {
            return self.leave_unanswered(station, token);
        }
        self.meter_values(station, readings, now, out);
        let needs = self.take_signed(station, readings, now, out).unwrap_or(self.ledger.last());
        self.answer_durably(needs, (station, token), StationAnswer::Taken, (now, out));
    }

    fn take_signed_value(
        &mut self,
        station: StationIndex,
        (reading, value): (&StationReading, &SignedValue),
        now: Now,
        out: &mut Vec<Output>,
    ) -> Option<Sequence> {
        let charger = self.station_id(station).clone();
        if value.data.len() > MAX_SIGNED_BYTES {
            self.raise(
                (AlarmKind::SignedValueTooLong, charger.as_str(), Severity::Error),
                format!("{charger} sent a signed value of {} bytes; it is not kept.", value.data.len()),
                "Let the station send a signed value for the begin and the end of a transaction, not one with all readings.",
                (now, out),
            );
            return None;
        }
        let known = self.ledger.station(&charger);
        if known.is_some_and(|station| station.signing.knows(&fingerprint(&value.data))) {
            return None;
        }
        let open = known.and_then(|station| open_of(&station.open, reading, value));
        let evse = open.map_or(reading.evse, |open| open.facts.evse);
        let named = || reading.transaction.clone().filter(|id| !is_no_id(id));
        let transaction = open.map(|open| open.facts.transaction.clone()).or_else(named);
        let text = ocmf::text_of(&value.data);
        let record = text.as_deref().map(ocmf::parse);
        let page = record.as_ref().and_then(|record| record.as_ref().ok()?.page.clone());
        let signing = known.map(|station| &station.signing);
        let page_fault = page.as_ref().zip(signing).and_then(|(page, signing)| signing.fault(page));
        let (check, reason) = match &record {
            Some(Ok(record)) => self.check(&charger, record, value.key.as_deref(), signing),
            Some(Err(error)) => (Check::NotVerifiable, Some(error.clone())),
            None => (Check::NotVerifiable, Some("it is not of the Open Charge Metering Format".to_owned())),
        };
        let note = SignedNote {
            charger,
            evse,
            transaction,
            at: reading.at,
            value: value.clone(),
            page,
            page_fault,
            check,
            reason,
        };
        let sequence = self.record(RecordBody::SignedValue(Box::new(note.clone())), now, out);
        self.judge_signed(&note, now, out);
        Some(sequence)
    }

    /// Verifies a signature with the keys of the configuration, or with what the station has sent.
    fn check(
        &self,
        charger: &StationId,
        record: &Record<'_>,
        sent: Option<&str>,
        signing: Option<&Signing>,
    ) -> (Check, Option<String>) {
        let configured = self.setup.billing.chargers.get(charger).map_or(&[] as &[Vec<u8>], |known| &known.public_keys);
        let sent = sent.or(signing.and_then(|signing| signing.key.as_deref()));
        let (keys, good) = if configured.is_empty() {
            let Some(key) = sent else {
                return (Check::NotVerifiable, Some("there is no public key of its meter".to_owned()));
            };
            (vec![Key::read(key)], Check::VerifiedByStationKey)
        } else {
            (configured.iter().map(|key| Key::of(key)).collect(), Check::Verified)
        };
        let verdicts: Vec<Verdict> =
            keys.into_iter().map(|key| key.map_or_else(Verdict::Unknown, |key| verify(record, &key))).collect();
        if verdicts.contains(&Verdict::Right) {
            return (good, None);
        }
        let unknown = verdicts.into_iter().find_map(|verdict| match verdict {
            Verdict::Unknown(reason) => Some(reason),
            Verdict::Right | Verdict::Wrong => None,
        });
        match unknown {
            Some(reason) => (Check::NotVerifiable, Some(reason)),
            None => (Check::Failed, Some("the signature is not that of its meter over these bytes".to_owned())),
        }
    }

    /// Raises and clears what a signed value says of its station.
    fn judge_signed(&mut self, note: &SignedNote, now: Now, out: &mut Vec<Output>) {
        let charger = note.charger.as_str();
        self.clear(AlarmKind::SignedValueTooLong, charger, now, out);
        match note.check {
            Check::Failed => self.raise(
                (AlarmKind::SignatureWrong, charger, Severity::Error),
                format!("{charger}: what a meter is said to have signed does not fit its public key."),
                "Compare `public_key` in site.toml with the key on the meter; if it is right, somebody has changed the values.",
                (now, out),
            ),
            Check::Verified | Check::VerifiedByStationKey => {
                self.clear(AlarmKind::SignatureWrong, charger, now, out);
            }
            Check::NotVerifiable => {}
        }
        let (fault, page) = (note.page_fault, note.page.as_ref());
        if let Some((fault, page)) = fault.zip(page) {
            let what = match fault {
                PageFault::Missing(first, last) if first == last => format!("page {}{first} has not come", page.class),
                PageFault::Missing(first, last) => format!("pages {0}{first} to {0}{last} have not come", page.class),
                PageFault::Repeated => format!("page {}{} came twice, with different values", page.class, page.number),
            };
            self.restate(
                (AlarmKind::PaginationBroken, charger, Severity::Error),
                format!("{charger}: of the values that meter {} has signed, {what}.", page.meter),
                "Read the missing values from the station or its meter before they are overwritten; ask the maker if that happens again.",
                (now, out),
            );
        } else if self.ledger.station(&note.charger).is_some_and(|station| !station.signing.is_broken()) {
            self.clear(AlarmKind::PaginationBroken, charger, now, out);
        }
        // The end may be signed after the transaction was told to be over.
        let closed = note.transaction.as_ref().and_then(|id| self.ledger.accounts().bill_parts(&note.charger, id));
        if let Some((open, meter_stop)) = closed.map(|closed| (closed.open.clone(), closed.meter_stop)) {
            self.compare_signed(&open, meter_stop, now, out);
        }
    }

    /// A transaction is about to end.
    pub(super) fn judge_end(&mut self, body: &RecordBody, now: Now, out: &mut Vec<Output>) {
        let RecordBody::TransactionEnded { facts, meter_stop, .. } = body else { return };
        let open = self.ledger.station(&facts.charger).and_then(|station| station.transaction(&facts.transaction));
        if let Some(open) = open.filter(|open| !open.signed.is_empty()).cloned() {
            self.compare_signed(&open, *meter_stop, now, out);
        }
    }

    /// What is billed must be what was signed.
    fn compare_signed(&mut self, open: &OpenTransaction, meter_stop: Option<Energy>, now: Now, out: &mut Vec<Output>) {
        let charger = &open.facts.charger;
        match difference(open, meter_stop) {
            Some(Ok(())) => self.clear(AlarmKind::SignedEnergyDiffers, charger.as_str(), now, out),
            Some(Err(what)) => self.restate(
                (AlarmKind::SignedEnergyDiffers, charger.as_str(), Severity::Error),
                format!("{charger}: transaction {}: {what}.", open.facts.transaction),
                "What is billed is the station's register. Bill what was signed by `cdr.credit`, and let the maker set the station right.",
                (now, out),
            ),
            None => {}
        }
    }

    /// Notes which CDRs are to wait for the signed value at the end.
    pub(super) fn note_signed_waits(&mut self, now: Mono) {
        let lack = self.ledger.accounts().waiting().filter(|closed| lacks_signed_end(closed));
        let lack: BTreeSet<Sequence> = lack.map(|closed| closed.ended_by).collect();
        let since = &mut self.signed_waits.since;
        since.retain(|ended_by, _| lack.contains(ended_by));
        for ended_by in lack {
            since.entry(ended_by).or_insert(now);
        }
    }

    /// Whether a CDR waits for the signed value at the end.
    pub(super) fn awaits_signed_end(&self, closed: &Closed, now: Mono) -> bool {
        let since = self.signed_waits.since.get(&closed.ended_by);
        since.is_some_and(|since| now.since(*since) < SIGNED_END_MS)
    }

    /// What was signed of a transaction for its CDR, and what is to be remarked about it.
    pub(super) fn signed_data(&self, closed: &Closed) -> (Option<SignedData>, Vec<String>) {
        let signed = &closed.open.signed;
        let mut remarks = Vec::new();
        if signed.iter().any(|note| note.check == Check::Failed) {
            remarks.push("A signature does not fit the meter's public key.".to_owned());
        }
        if let Some(Err(what)) = difference(&closed.open, closed.meter_stop) {
            remarks.push(format!("{what}."));
        }
        let values: Vec<OcpiSignedValue> = signed.iter().filter_map(ocpi_value).collect();
        if values.len() < signed.len() {
            remarks.push("A signed value is too long for OCPI; it is in the event of its own.".to_owned());
        }
        let Some(first) = signed.first().filter(|_| !values.is_empty()) else { return (None, remarks) };
        let configured = self.setup.billing.chargers.get(&closed.open.facts.charger);
        let configured = configured.and_then(|known| known.public_keys.first()).cloned();
        let sent = || {
            let known = self.ledger.station(&closed.open.facts.charger);
            let key = signed.iter().find_map(|note| note.value.key.as_ref());
            let key = key.or_else(|| known.and_then(|station| station.signing.key.as_ref()))?;
            Key::read(key).ok().map(|key| key.to_bytes())
        };
        let public_key = configured.or_else(sent).map(|key| STANDARD.encode(key)).filter(|key| key.len() <= MAX_KEY);
        let is_ocmf = ocmf::text_of(&first.value.data).is_some();
        let encoding = first.value.encoding.as_deref().filter(|_| !is_ocmf).unwrap_or("OCMF");
        let encoding: String = encoding.chars().filter(|c| (' '..='~').contains(c)).take(36).collect();
        let encoding_method = if encoding.is_empty() || (!is_ocmf && first.value.encoding.is_none()) {
            "UNKNOWN".to_owned()
        } else {
            encoding
        };
        (Some(SignedData { encoding_method, public_key, signed_values: values }), remarks)
    }
}

/// The running transaction that a signed value belongs to: the one that it names, or where it names none that there is, the one at its EVSE if it
/// says that it is one of a transaction, or the only one.
fn open_of<'a>(
    open: &'a [OpenTransaction],
    reading: &StationReading,
    value: &SignedValue,
) -> Option<&'a OpenTransaction> {
    let named = reading.transaction.as_ref();
    if let Some(found) = open.iter().find(|open| Some(&open.facts.transaction) == named) {
        return Some(found);
    }
    let has_no_id = named.is_none_or(is_no_id);
    let of_one = named.is_some() || value.context.as_ref().is_some_and(|context| context.starts_with("Transaction."));
    if !has_no_id || !of_one {
        return None;
    }
    let here: Vec<&OpenTransaction> =
        open.iter().filter(|open| reading.evse == 0 || open.facts.evse == reading.evse).collect();
    match here.as_slice() {
        [only] => Some(only),
        _ => None,
    }
}

/// What OCPP 1.6 stations write that never learned the id: −1, and 0 with some.
fn is_no_id(transaction: &TransactionId) -> bool {
    transaction.as_str().parse::<i64>().is_ok_and(|id| id <= 0)
}

/// Whether the energy of a transaction is what its meter has signed; `None`: it has not signed both ends.
fn difference(open: &OpenTransaction, meter_stop: Option<Energy>) -> Option<Result<(), String>> {
    let billed = meter_stop? - open.facts.meter_start?;
    let texts: Vec<_> = open.signed.iter().filter_map(|note| ocmf::text_of(&note.value.data)).collect();
    let records: Vec<Record<'_>> = texts.iter().filter_map(|text| ocmf::parse(text).ok()).collect();
    let signed = ocmf::energy(&records)?;
    let apart = (signed.wh - rust_decimal::Decimal::from(billed.wh())).abs();
    Some(if apart <= signed.tolerance {
        Ok(())
    } else {
        Err(format!("{} Wh are billed, and its meter has signed {} Wh", billed.wh(), signed.wh.normalize()))
    })
}

/// What a signed value is of its transaction, in the words of OCPI.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nature {
    Start,
    End,
    Intermediate,
}

/// A transaction whose begin was signed, and whose end was not yet.
fn lacks_signed_end(closed: &Closed) -> bool {
    let signed = &closed.open.signed;
    !signed.is_empty() && signed.iter().all(|note| nature(note) != Nature::End)
}

fn nature(note: &SignedNote) -> Nature {
    let text = ocmf::text_of(&note.value.data);
    if let Some(Ok(record)) = text.as_deref().map(ocmf::parse) {
        if record.readings.iter().any(ocmf::Reading::is_end) {
            return Nature::End;
        }
        if record.readings.iter().any(ocmf::Reading::is_begin) {
            return Nature::Start;
        }
    }
    match note.value.context.as_deref() {
        Some("Transaction.Begin") => Nature::Start,
        Some("Transaction.End") => Nature::End,
        Some(_) | None => Nature::Intermediate,
    }
}

/// A signed value in the words of OCPI; `None`: it is too long for it.
fn ocpi_value(note: &SignedNote) -> Option<OcpiSignedValue> {
    let text = ocmf::text_of(&note.value.data);
    let record = text.as_deref().and_then(|text| ocmf::parse(text).ok());
    let signed_data = STANDARD.encode(text.as_deref().unwrap_or(&note.value.data));
    if signed_data.len() > MAX_SIGNED {
        return None;
    }
    let whole = record.as_ref().map(|record| record.payload).filter(|payload| payload.chars().count() <= MAX_PLAIN);
    let plain = whole
        .map_or_else(|| record.as_ref().map_or_else(|| "see signed_data".to_owned(), ocmf::summary), str::to_owned);
    let nature = match nature(note) {
        Nature::Start => "Start",
        Nature::End => "End",
        Nature::Intermediate => "Intermediate",
    };
    Some(OcpiSignedValue {
        nature: nature.to_owned(),
        plain_data: plain.chars().take(MAX_PLAIN).collect(),
        signed_data,
    })
}
