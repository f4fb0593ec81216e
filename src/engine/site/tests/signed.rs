//! Values that meters have signed, from the wire to the event and the CDR.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};

use super::billing::cdr_world;
use super::*;
use crate::engine::billing::schema_tests::against_the_schema;
use crate::engine::model::alarm::AlarmKind;
use crate::engine::model::billing::ChargerBilling;
use crate::engine::model::cdr::Cdr;
use crate::engine::model::signed::{Check, MAX_SIGNED_BYTES, PageFault, SignedNote};

const BEGIN: &str = "2026-09-21T19:00:00Z";
const END: &str = "2026-09-21T19:30:00Z";

/// A meter with a key of its own.
struct Meter {
    pair: EcdsaKeyPair,
    page: u64,
}

impl Meter {
    fn new() -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).expect("a key");
        Self { pair, page: 40 }
    }

    fn key(&self) -> Vec<u8> {
        self.pair.public_key().as_ref().to_vec()
    }

    /// Signs a register in kWh. The blanks are the meter's own: nobody may take them away.
    fn sign(&mut self, kind: char, kwh: &str) -> String {
        self.page += 1;
        let payload = format!(
            r#"{{"FV" : "1.0","GS":"G1","PG":"T{}","MS":"M1","RD":[{{"TM":"2026-09-21T21:00:00,000+0200 S","TX":"{kind}","RV":{kwh},"RI":"1-b:1.8.0","RU":"kWh","ST":"G"}}]}}"#,
            self.page
        );
        let signature = self.pair.sign(&SystemRandom::new(), payload.as_bytes()).expect("signed");
        let digits: String = signature.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        format!(r#"OCMF|{payload}|{{"SA":"ECDSA-secp256r1-SHA256","SD":"{digits}"}}"#)
    }
}

/// A world in which the key of that meter is known.
fn world(meter: &Meter) -> World {
    let mut world = cdr_world(true);
    let known = ChargerBilling { public_keys: vec![meter.key()], ..ChargerBilling::default() };
    world.site.setup.billing.chargers.insert(StationId::new("CPA"), known);
    world
}

impl World {
    fn signed_value(&mut self, at: &str, context: &str, data: &str) {
        let value = json!({ "value": data, "format": "SignedData", "context": context });
        let payload = json!({ "connectorId": 1, "transactionId": 1, "meterValue": [{ "timestamp": at, "sampledValue": [value] }] });
        self.call(A, 1, "MeterValues", &payload);
    }

    fn signed_stop(&mut self, register: i64, data: &str) {
        let value = json!({ "value": data, "format": "SignedData", "context": "Transaction.End" });
        let payload = json!({ "transactionId": 1, "meterStop": register, "timestamp": END,
            "transactionData": [{ "timestamp": END, "sampledValue": [value] }] });
        self.call(A, 1, "StopTransaction", &payload);
    }

    fn signed_notes(&self) -> Vec<SignedNote> {
        let notes = self.records.iter().filter_map(|record| match &record.body {
            RecordBody::SignedValue(note) => Some((**note).clone()),
            _ => None,
        });
        notes.collect()
    }

    fn alarmed(&self, kind: AlarmKind) -> bool {
        self.site.ledger().alarms().iter().any(|alarm| alarm.key.kind == kind && alarm.key.subject == "CPA")
    }
}

fn only_cdr(world: &World) -> Cdr {
    let cdrs = world.cdrs();
    assert_eq!(cdrs.len(), 1);
    assert_eq!(against_the_schema(&json!(cdrs[0])), Vec::<String>::new());
    cdrs[0].clone()
}

#[test]
fn what_a_meter_signs_is_in_the_journal_the_event_and_the_cdr_byte_for_byte() {
    let mut meter = Meter::new();
    let mut world = world(&meter);
    world.start_at(BEGIN);
    let (begin, end) = (meter.sign('B', "1.000"), meter.sign('E', "11.000"));
    world.signed_value(BEGIN, "Transaction.Begin", &begin);
    world.signed_stop(11_000, &end);
    world.pass(3_000);
    let notes = world.signed_notes();
    assert_eq!(notes.iter().map(|note| note.value.data.as_str()).collect::<Vec<_>>(), [&begin, &end]);
    assert!(notes.iter().all(|note| note.check == Check::Verified && note.page_fault.is_none()), "{notes:?}");
    assert!(notes.iter().all(|note| note.transaction.as_ref().is_some_and(|id| id.as_str() == "1") && note.evse == 1));
    let signed = only_cdr(&world).signed_data.expect("it is signed");
    assert_eq!((signed.encoding_method.as_str(), signed.public_key), ("OCMF", Some(STANDARD.encode(meter.key()))));
    let found: Vec<_> = signed
        .signed_values
        .iter()
        .map(|value| (value.nature.as_str(), STANDARD.decode(&value.signed_data).expect("base64")))
        .collect();
    assert_eq!(found, [("Start", begin.clone().into_bytes()), ("End", end.into_bytes())]);
    assert!(begin.contains(&signed.signed_values[0].plain_data), "the payload as it was signed");
    assert_eq!(only_cdr(&world).remark, None);
    assert_eq!(world.again(), *world.site.ledger());
    assert!(!world.alarmed(AlarmKind::SignedEnergyDiffers) && !world.alarmed(AlarmKind::PaginationBroken));
}

#[test]
fn a_value_that_comes_twice_is_recorded_once_and_answered_when_it_is_durable() {
    let mut meter = Meter::new();
    let mut world = world(&meter);
    world.start_at(BEGIN);
    world.durable();
    let begin = meter.sign('B', "1.000");
    let answered = world.answers(A).len();
    world.signed_value(BEGIN, "Transaction.Begin", &begin);
    assert_eq!(world.answers(A).len(), answered, "not before it is on disk");
    world.durable();
    assert_eq!(world.answers(A).len(), answered + 1);
    world.signed_value(BEGIN, "Transaction.Begin", &begin);
    assert_eq!((world.answers(A).len(), world.signed_notes().len()), (answered + 2, 1));
    let mut again =
        World::with(setup(63), Restored { boot: 2, ledger: world.again(), ..Restored::default() }, world.now);
    again.connect(A, 1);
    again.signed_value(BEGIN, "Transaction.Begin", &begin);
    assert_eq!(again.signed_notes(), [], "also after a restart");
}

#[test]
fn a_gap_raises_an_alarm_that_ends_when_the_missing_has_come() {
    let mut meter = Meter::new();
    let mut world = world(&meter);
    let pages: Vec<String> = (0..4).map(|_| meter.sign('C', "1.000")).collect();
    world.signed_value(BEGIN, "Sample.Periodic", &pages[0]);
    world.signed_value(BEGIN, "Sample.Periodic", &pages[3]);
    assert!(world.alarmed(AlarmKind::PaginationBroken));
    let message = &world
        .site
        .ledger()
        .alarms()
        .iter()
        .find(|alarm| alarm.key.kind == AlarmKind::PaginationBroken)
        .expect("it stands")
        .message;
    assert!(message.contains("meter M1") && message.contains("pages T42 to T43 have not come"), "{message}");
    assert_eq!(world.signed_notes()[1].page_fault, Some(PageFault::Missing(42, 43)));
    let ledger = world.again();
    assert_eq!(ledger, *world.site.ledger(), "the last page survives a restart");
    world.signed_value(BEGIN, "Sample.Periodic", &pages[2]);
    assert!(world.alarmed(AlarmKind::PaginationBroken));
    world.signed_value(BEGIN, "Sample.Periodic", &pages[1]);
    assert!(!world.alarmed(AlarmKind::PaginationBroken));
    meter.page = 42;
    let other = meter.sign('C', "2.000");
    world.signed_value(BEGIN, "Sample.Periodic", &other);
    assert!(world.alarmed(AlarmKind::PaginationBroken), "a page with another value is no resend");
    assert_eq!(world.signed_notes().last().and_then(|note| note.page_fault), Some(PageFault::Repeated));
}

#[test]
fn a_signature_that_does_not_fit_raises_an_alarm_and_is_remarked() {
    let mut meter = Meter::new();
    let mut world = world(&meter);
    world.start_at(BEGIN);
    let begin = meter.sign('B', "1.000");
    world.signed_value(BEGIN, "Transaction.Begin", &begin);
    let forged = meter.sign('E', "11.000").replace("11.000", "12.000");
    world.signed_stop(12_000, &forged);
    world.pass(3_000);
    assert!(world.alarmed(AlarmKind::SignatureWrong));
    assert_eq!(world.signed_notes()[1].check, Check::Failed);
    let cdr = only_cdr(&world);
    assert!(cdr.remark.is_some_and(|remark| remark.contains("does not fit the meter's public key")));
    assert_eq!(cdr.signed_data.map(|signed| signed.signed_values.len()), Some(2), "it is evidence all the same");
    let good = meter.sign('C', "12.000");
    world.signed_value(END, "Sample.Clock", &good);
    assert!(!world.alarmed(AlarmKind::SignatureWrong));
}

#[test]
fn what_is_billed_must_be_what_was_signed() {
    let mut meter = Meter::new();
    let mut world = world(&meter);
    world.start_at(BEGIN);
    let begin = meter.sign('B', "1.000");
    world.signed_value(BEGIN, "Transaction.Begin", &begin);
    let end = meter.sign('E', "10.500");
    world.signed_stop(11_000, &end);
    assert!(world.alarmed(AlarmKind::SignedEnergyDiffers));
    world.pass(3_000);
    let remark = only_cdr(&world).remark.expect("it is remarked");
    assert!(remark.contains("10000 Wh are billed, and its meter has signed 9500 Wh"), "{remark}");
}

#[test]
fn a_cdr_waits_a_while_for_an_end_that_is_signed_after_the_stop() {
    let mut meter = Meter::new();
    let mut world = world(&meter);
    world.start_at(BEGIN);
    let begin = meter.sign('B', "1.00");
    world.signed_value(BEGIN, "Transaction.Begin", &begin);
    world.stop_at(END, 11_000);
    world.pass(20_000);
    assert_eq!(world.cdrs(), []);
    let end = meter.sign('R', "11.00");
    world.signed_value(END, "Transaction.End", &end);
    world.pass(2_000);
    let signed = only_cdr(&world).signed_data.expect("it is signed");
    assert_eq!(signed.signed_values.last().map(|value| value.nature.as_str()), Some("End"));

    let mut world = self::world(&meter);
    world.start_at(BEGIN);
    let begin = meter.sign('B', "1.00");
    world.signed_value(BEGIN, "Transaction.Begin", &begin);
    world.stop_at(END, 11_000);
    world.pass(58_000);
    assert_eq!(world.cdrs(), []);
    world.pass(5_000);
    only_cdr(&world);
}

#[test]
fn a_2_x_station_sends_its_key_and_that_is_told_apart() {
    let mut meter = Meter::new();
    let mut world = cdr_world(true);
    world.connect_v201(A, 1);
    let key = STANDARD.encode(format!(
        "oca:base16:asn1:{}",
        meter.key().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    ));
    let event = |world: &mut World, kind: &str, seq: i64, at: &str, wh: i64, signed: &str, key: Option<&str>| {
        let value = json!({ "signedMeterData": STANDARD.encode(signed), "signingMethod": "ECDSA-secp256r1-SHA256",
            "encodingMethod": "OCMF", "publicKey": key.unwrap_or_default() });
        let payload = json!({ "eventType": kind, "timestamp": at, "triggerReason": "Authorized", "seqNo": seq,
            "evse": { "id": 1, "connectorId": 1 }, "idToken": { "idToken": "GOOD", "type": "ISO14443" },
            "transactionInfo": { "transactionId": "t-1" },
            "meterValue": [{ "timestamp": at, "sampledValue": [{ "value": wh, "signedMeterValue": value }] }] });
        world.call(A, 1, "TransactionEvent", &payload);
    };
    let (begin, end) = (meter.sign('B', "1.000"), meter.sign('E', "11.000"));
    event(&mut world, "Started", 0, BEGIN, 1_000, &begin, Some(&key));
    // Its key comes once in a transaction.
    event(&mut world, "Ended", 1, END, 11_000, &end, None);
    world.pass(3_000);
    let checks: Vec<Check> = world.signed_notes().iter().map(|note| note.check).collect();
    assert_eq!(checks, [Check::VerifiedByStationKey; 2]);
    let signed = only_cdr(&world).signed_data.expect("it is signed");
    assert_eq!((signed.signed_values.len(), signed.public_key), (2, Some(STANDARD.encode(meter.key()))));
    assert_eq!(STANDARD.decode(&signed.signed_values[1].signed_data).expect("base64"), end.into_bytes());
}

#[test]
fn what_is_not_understood_is_kept_and_what_is_too_long_is_said() {
    let meter = Meter::new();
    let mut world = world(&meter);
    world.start_at(BEGIN);
    world.signed_value(BEGIN, "Transaction.Begin", "0F3A<other>");
    let note = &world.signed_notes()[0];
    assert_eq!(
        (note.check, note.page.is_none(), note.value.data.as_str()),
        (Check::NotVerifiable, true, "0F3A<other>")
    );
    world.signed_value(BEGIN, "Sample.Periodic", &"x".repeat(MAX_SIGNED_BYTES + 1));
    assert!(world.alarmed(AlarmKind::SignedValueTooLong));
    assert_eq!(world.signed_notes().len(), 1);
    world.signed_value(BEGIN, "Sample.Periodic", &"x".repeat(MAX_SIGNED_BYTES));
    assert!(!world.alarmed(AlarmKind::SignedValueTooLong));
    world.stop_at(END, 11_000);
    world.pass(70_000);
    let cdr = only_cdr(&world);
    assert!(cdr.remark.is_some_and(|remark| remark.contains("too long for OCPI")));
    assert_eq!(
        cdr.signed_data.map(|signed| (signed.encoding_method, signed.signed_values.len())),
        Some(("UNKNOWN".to_owned(), 1))
    );
}
