//! A meter that signs its values, in the Open Charge Metering Format.
//!
//! The same seed must give the same history, so that there is no randomness in its signatures: each uses the nonce 1, with which anybody can compute
//! the private key. It is for simulations only.

use siteward::engine::model::exchange::OcppVersion;
use siteward::engine::time::Utc;

use super::Station;
use super::transaction::{TxMessage, TxPart};

/// Its public key (`SubjectPublicKeyInfo`, secp256r1), in hexadecimal digits.
pub const PUBLIC_KEY: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200045a679752b276259c7ea59caf2800050c418ef3dca0eca426aa83cbc97567fe8b4d2f1356aab2e36921ee2657292695bfa6627a166ae00e9f2c89241ade575792";

/// r: the x coordinate of the curve's own point, since the nonce is 1.
const R: &str = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296";
/// r times the private key, modulo the order.
const R_TIMES_KEY: [u8; 32] = [
    0x49, 0x95, 0xc7, 0x56, 0xe5, 0xad, 0x8f, 0x35, 0x06, 0xc1, 0x7f, 0x9f, 0x86, 0x25, 0x7c, 0x11, 0xf9, 0x87, 0xb6,
    0xb2, 0xc2, 0xf8, 0x46, 0x37, 0x01, 0x9e, 0x93, 0xef, 0x8e, 0x57, 0x67, 0x7d,
];
/// The order of the curve.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// What it reads for a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signed<'a> {
    /// The number of the record.
    pub(super) page: u64,
    /// `B` for the begin, `E` for the end.
    pub(super) kind: char,
    pub(super) at: Utc,
    pub(super) energy_wh: i64,
    pub(super) token: &'a str,
}

/// A signed record of a meter of that serial number.
pub(super) fn record(serial: &str, value: &Signed<'_>) -> String {
    let Signed { page, kind, at, energy_wh, token } = *value;
    // 2026-03-01T12:00:00.000Z is written with a comma, the offset, and S for a clock that is set.
    let time = at.to_string().replace('.', ",").replace('Z', "+0000 S");
    let kwh = format!("{}.{:03}", energy_wh / 1_000, energy_wh % 1_000);
    let payload = format!(
        r#"{{"FV":"1.0","GI":"Siteward","GS":"{serial}","GV":"1","PG":"T{page}","MV":"Siteward","MM":"Simulator","MS":"{serial}","IS":true,"IT":"ISO14443","ID":"{token}","RD":[{{"TM":"{time}","TX":"{kind}","RV":{kwh},"RI":"1-b:1.8.0","RU":"kWh","EF":"","ST":"G"}}]}}"#
    );
    let signature = sign(payload.as_bytes());
    format!(r#"OCMF|{payload}|{{"SA":"ECDSA-secp256r1-SHA256","SD":"{signature}"}}"#)
}

impl Station {
    /// Queues a message, with what the meter signs at the begin and the end of a transaction.
    pub(super) fn sign(&mut self, index: usize, mut message: TxMessage) {
        let kind = match message.part {
            TxPart::Started { .. } => 'B',
            TxPart::Ended(_) => 'E',
            TxPart::Metered | TxPart::Changed => return self.queue.push(message),
        };
        let quirks = &self.options.quirks;
        if !quirks.signs {
            return self.queue.push(message);
        }
        let bay = &mut self.bays[index];
        bay.pages += 1;
        // A page that it never sends, as if a value had been lost.
        if quirks.loses_pages && bay.pages.is_multiple_of(5) {
            bay.pages += 1;
        }
        let serial = format!("SIM{}-{}", self.options.identity, bay.number);
        let token = self.transactions.get(message.transaction).map_or("", |truth| truth.token.as_str());
        let (page, at, energy_wh) = (bay.pages, message.sample.at, message.sample.energy_wh);
        let mut text = record(&serial, &Signed { page, kind, at, energy_wh, token });
        if quirks.forges && kind == 'E' {
            text = text.replacen("\"RV\":", "\"RV\":9", 1);
        }
        if let Some(truth) = self.transactions.get_mut(message.transaction) {
            truth.signed.push(text.clone());
        }
        if kind == 'B' && self.options.version == OcppVersion::V16 {
            // A start has no room for it: a meter value follows.
            let follows = TxMessage { part: TxPart::Metered, signed: Some(text), ..message.clone() };
            self.queue.push(message);
            return self.queue.push(follows);
        }
        message.signed = Some(text);
        self.queue.push(message);
    }
}

/// The signature in DER: r, and s = hash + r * key, since the nonce is 1.
fn sign(payload: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, payload);
    let mut sum = [0_u16; 33];
    let mut carry = 0_u16;
    for index in (0..32).rev() {
        let digit = u16::from(digest.as_ref()[index]) + u16::from(R_TIMES_KEY[index]) + carry;
        sum[index + 1] = digit & 0xff;
        carry = digit >> 8;
    }
    sum[0] = carry;
    while let Some(less) = less_order(&sum) {
        sum = less;
    }
    let s: String = sum[1..].iter().map(|byte| format!("{byte:02x}")).collect();
    let digits = s.trim_start_matches("00");
    let high = digits.as_bytes().first().is_some_and(|digit| *digit >= b'8');
    let s = if high { format!("00{digits}") } else { digits.to_owned() };
    let body = format!("0220{R}02{:02x}{s}", s.len() / 2);
    format!("30{:02x}{body}", body.len() / 2)
}

/// The number less the order; `None`: it is smaller.
fn less_order(number: &[u16; 33]) -> Option<[u16; 33]> {
    let mut less = [0_u16; 33];
    let mut borrow = 0_u16;
    for index in (0..33).rev() {
        let subtract = if index == 0 { 0 } else { u16::from(ORDER[index - 1]) } + borrow;
        borrow = u16::from(number[index] < subtract);
        less[index] = (number[index] + 256 * borrow) - subtract;
    }
    (borrow == 0).then_some(less)
}

#[cfg(test)]
mod tests {
    use siteward::engine::billing::ocmf::parse;
    use siteward::engine::billing::signature::{Key, Verdict, verify};

    use super::*;

    #[test]
    fn its_signatures_are_those_of_its_key() {
        let key = Key::read(PUBLIC_KEY).expect("a key");
        for page in 1..200 {
            let at = Utc::from_unix_ms(1_772_366_400_000);
            let text = record("SIM1", &Signed { page, kind: 'B', at, energy_wh: 1_234_567, token: "TAG" });
            let read = parse(&text).expect("a record");
            assert_eq!(verify(&read, &key), Verdict::Right, "{text}");
            assert_eq!(read.readings[0].time, "2026-03-01T12:00:00,000+0000 S");
            assert_eq!(read.readings[0].value.map(|value| value.to_string()).as_deref(), Some("1234.567"));
        }
    }
}
