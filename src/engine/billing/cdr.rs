//! From a bill to a charge detail record of OCPI 2.2.1, and the credit CDR that takes one back.
//!
//! Rounding, stated once: volumes are kWh and hours with 4 digits. Hours are rounded as running sums, so that those of the periods add up to
//! the total to the last digit; energies are whole Wh and need no rounding. Costs are those of the bill, made from Wh and ms and not
//! from the rounded volumes. A cost without tax is rounded to 4 digits by itself.

use rust_decimal::Decimal;

use super::bill::Bill;
use super::ocpi_tariff::{ocpi_tariff, price};
use super::split::Period;
use crate::engine::model::cdr::{Cdr, CdrDimension, ChargingPeriod, MAX_REMARK, OcpiNumber, Price, Sealed, SignedData};
use crate::engine::model::tariff::Tariff;
use crate::engine::time::Utc;

/// ms of an hour.
const HOUR_MS: i64 = 3_600_000;

/// What a CDR is made of.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// Its id, at most 36 characters.
    pub id: &'a str,
    /// The transaction's id.
    pub session: &'a str,
    /// Operator, token and place as they were when the prices were set.
    pub sealed: &'a Sealed,
    /// The bill.
    pub bill: &'a Bill,
    /// The prices that it was made with.
    pub tariff: &'a Tariff,
    /// What the meter signed.
    pub signed: Option<&'a SignedData>,
    /// Sentences for [`Cdr::remark`].
    pub remarks: &'a [String],
    /// When it is made.
    pub made: Utc,
}

/// Makes the CDR. `None` only for a bill without a period, which [`bill`](super::bill::bill) never makes.
#[must_use]
pub fn cdr(parts: Parts<'_>) -> Option<Cdr> {
    let Parts { bill, tariff, sealed, .. } = parts;
    let (started, ended) = (bill.periods.first()?.from, bill.periods.last()?.to);
    let (periods, times) = periods(&bill.periods, &bill.tariff);
    let cost = |amount: Decimal| Some(price(amount, tariff));
    let total_cost = Price {
        excl_vat: OcpiNumber::rounded(bill.net),
        incl_vat: tariff.vat_percent.map(|_| OcpiNumber::rounded(bill.gross)),
    };
    Some(Cdr {
        country_code: sealed.country_code.clone(),
        party_id: sealed.party_id.clone(),
        id: parts.id.to_owned(),
        start_date_time: started,
        end_date_time: ended,
        session_id: ci_string(parts.session, 36),
        cdr_token: sealed.token.clone(),
        auth_method: "WHITELIST".to_owned(),
        cdr_location: sealed.location.clone(),
        currency: bill.currency.clone(),
        tariffs: vec![ocpi_tariff(tariff, (&sealed.country_code, &sealed.party_id), started)],
        charging_periods: periods,
        signed_data: parts.signed.cloned(),
        total_cost,
        total_fixed_cost: cost(bill.start_cost),
        total_energy: kwh(bill.energy.wh()),
        total_energy_cost: cost(bill.energy_cost),
        total_time: OcpiNumber::rounded(hours(times.charging).value() + hours(times.parking).value()),
        total_time_cost: cost(bill.time_cost),
        total_parking_time: Some(hours(times.parking)),
        total_parking_cost: cost(bill.parking_cost),
        remark: remark(bill, parts.remarks),
        credit: None,
        credit_reference_id: None,
        last_updated: parts.made,
    })
}

/// The credit CDR that takes back `of`: all its data, with the total negative (OCPI 2.2.1, "Credit CDRs").
#[must_use]
pub fn credit(of: &Cdr, reason: &str, made: Utc) -> Cdr {
    Cdr {
        id: format!("{}-C", of.id),
        total_cost: of.total_cost.negated(),
        remark: Some(cut(reason, MAX_REMARK)),
        credit: Some(true),
        credit_reference_id: Some(of.id.clone()),
        last_updated: made,
        ..of.clone()
    }
}

/// A text that is a `CiString` of OCPI as it is: printable ASCII, not longer than that.
#[must_use]
pub fn ci_string(text: &str, most: usize) -> Option<String> {
    let good = (1..=most).contains(&text.len()) && text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    good.then(|| text.to_owned())
}

/// Time so far, in ms.
#[derive(Clone, Copy, Default)]
struct Times {
    charging: i64,
    parking: i64,
}

fn periods(periods: &[Period], tariff: &str) -> (Vec<ChargingPeriod>, Times) {
    let mut times = Times::default();
    let mut found = Vec::with_capacity(periods.len());
    for period in periods {
        let (kind, sum) =
            if period.charging { ("TIME", &mut times.charging) } else { ("PARKING_TIME", &mut times.parking) };
        let before = hours(*sum);
        *sum += period.ms();
        let volume = OcpiNumber::rounded(hours(*sum).value() - before.value());
        let energy = CdrDimension { kind: "ENERGY".to_owned(), volume: kwh(period.energy.wh()) };
        found.push(ChargingPeriod {
            start_date_time: period.from,
            dimensions: vec![energy, CdrDimension { kind: kind.to_owned(), volume }],
            tariff_id: Some(tariff.to_owned()),
        });
    }
    (found, times)
}

fn kwh(wh: i64) -> OcpiNumber {
    OcpiNumber::rounded(Decimal::from(wh) / Decimal::ONE_THOUSAND)
}

fn hours(ms: i64) -> OcpiNumber {
    OcpiNumber::rounded(Decimal::from(ms) / Decimal::from(HOUR_MS))
}

fn remark(bill: &Bill, more: &[String]) -> Option<String> {
    let mut sentences = Vec::new();
    if bill.adjustment.is_sign_positive() && !bill.adjustment.is_zero() {
        sentences.push(format!("The minimum price added {}.", bill.adjustment.normalize()));
    } else if !bill.adjustment.is_zero() {
        sentences.push(format!("The maximum price took off {}.", bill.adjustment.abs().normalize()));
    }
    if bill.periods.len() > 1 && bill.periods.iter().any(|period| period.interpolated) {
        sentences.push("Energy at a border between two meter values is taken to flow evenly.".to_owned());
    }
    sentences.extend(more.iter().cloned());
    (!sentences.is_empty()).then(|| cut(&sentences.join(" "), MAX_REMARK))
}

fn cut(text: &str, most: usize) -> String {
    text.chars().filter(|character| !character.is_control()).take(most).collect()
}

#[cfg(test)]
#[path = "cdr_tests.rs"]
mod tests;
