use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;

use rust_decimal::Decimal;

use super::*;
use crate::engine::model::alarm::{Alarm, AlarmKey, AlarmKind, Severity};
use crate::engine::model::balance::{Balance, BalanceVerdict, CircuitBalance, Comparison, EvseBalance};
use crate::engine::model::cdr::CdrNote;
use crate::engine::model::exchange::{BootInfo, OcppVersion};
use crate::engine::model::ids::{CircuitId, IdToken, Sequence, StationId, TransactionId};
use crate::engine::model::limit::{
    Heartbeat, LimitAmount, LimitEnd, LimitOrigin, LimitProof, LimitTarget, OnLoss, ProofResult,
};
use crate::engine::model::record::{Stamp, TransactionFacts};
use crate::engine::model::signed::{Check, Page, PageFault, SignedNote, SignedValue};
use crate::engine::model::tariff::{Cost, Element, Prices, Tariff, When};
use crate::engine::model::token::{ListPart, TokensOrder};
use crate::engine::model::topology::LeaseForm;
use crate::engine::model::wish::{Boost, BoostEnd, Target, TargetEnd, TargetSource};
use crate::engine::time::Mono;
use crate::engine::units::{Current, Energy, Power};

/// The variants of [`RecordBody`]: the arms of [`stored_as`].
const RECORD_BODIES: usize = 30;
pub(crate) const NOON: Utc = Utc::from_unix_ms(1_772_366_400_000);

pub(crate) fn messages() -> Messages {
    Messages::new("siteward/v1", &SiteId::new("depot-nord"), "5f1c9e0b7a3d2846")
}

fn facts() -> TransactionFacts {
    TransactionFacts {
        transaction: TransactionId::new("1042"),
        charger: StationId::new("CP001"),
        evse: 1,
        connector: 1,
        token: Some(IdToken::new("04A2B3C4")),
        started: NOON,
        meter_start: Some(Energy::from_wh(1_204_000)),
    }
}

fn alarm() -> Alarm {
    Alarm {
        key: AlarmKey::new(AlarmKind::MeterLost, "main"),
        severity: Severity::Error,
        message: "Meter main gives no reading since 12 s.".to_owned(),
        remedy: "Check its power and its connection tcp://192.168.1.20:502.".to_owned(),
    }
}

fn charger_bodies() -> Vec<RecordBody> {
    let charger = StationId::new("CP001");
    let status = |status, error: Option<&str>| RecordBody::ChargerStatus {
        charger: StationId::new("CP001"),
        evse: 1,
        connector: 1,
        status,
        error: error.map(str::to_owned),
    };
    vec![
        RecordBody::ChargerConnected { charger: charger.clone(), version: OcppVersion::V201 },
        RecordBody::ChargerBooted {
            charger: charger.clone(),
            info: BootInfo {
                vendor: "Example".to_owned(),
                model: "Duo 22".to_owned(),
                serial: None,
                firmware: Some("1.8.2".to_owned()),
            },
        },
        RecordBody::ChargerDisconnected { charger: charger.clone(), reason: "the station closed".to_owned() },
        status(ConnectorStatus::SuspendedEv, None),
        status(ConnectorStatus::Faulted, Some("GroundFailure")),
        RecordBody::ChargerTamed { charger, evse: 1, fallback: Current::from_a(6), form: LeaseForm::TxDefaultProfile },
    ]
}

fn limit_bodies() -> [RecordBody; 5] {
    let garage = LimitTarget::Circuit(CircuitId::new("garage"));
    let order = LimitOrder {
        target: garage.clone(),
        origin: LimitOrigin::Cloud,
        amount: LimitAmount::PerPhase(Current::from_ma(62_500)),
        until: Some(NOON.plus_ms(7_200_000)),
        heartbeat: None,
    };
    let lost = LimitOrder {
        target: LimitTarget::Charger(StationId::new("CP001")),
        origin: LimitOrigin::Named("ems".to_owned()),
        amount: LimitAmount::Total(Power::from_w(11_000)),
        until: None,
        heartbeat: Some(Heartbeat {
            ttl_ms: 60_000,
            on_loss: OnLoss::Fallback(LimitAmount::Total(Power::from_w(4_200))),
        }),
    };
    let dimming = LimitOrigin::Dimming("modbus".to_owned());
    let dimmed = LimitOrder {
        origin: dimming.clone(),
        amount: LimitAmount::Charging(Power::from_w(7_560)),
        until: None,
        ..order.clone()
    };
    let proof = LimitProof {
        order: Sequence(40),
        target: garage.clone(),
        origin: dimming.clone(),
        amount: dimmed.amount,
        received: NOON,
        acknowledged_ms: Some(420),
        kept_ms: Some(6_200),
        measured_current: None,
        measured_power: Some(Power::from_w(7_410)),
        silent: 0,
        result: ProofResult::Kept,
    };
    let standing = |order, lost| RecordBody::OutsideLimit(StandingLimit { order, lost, received: NOON });
    [
        standing(order, false),
        standing(lost, true),
        standing(dimmed, false),
        RecordBody::OutsideLimitEnded { target: garage, origin: dimming, why: LimitEnd::Cleared },
        RecordBody::LimitProven(Box::new(proof)),
    ]
}

fn tariff() -> Tariff {
    let prices = Prices { energy_per_kwh: Some(Decimal::new(49, 2)), ..Prices::default() };
    Tariff {
        id: "default".to_owned(),
        currency: "EUR".to_owned(),
        groups: Vec::new(),
        elements: vec![Element { prices, when: When::default() }],
        min_price: None,
        max_price: None,
        vat_percent: Some(Decimal::from(19)),
        prices_include_vat: true,
        parking_grace_s: 0,
    }
}

pub(crate) fn bodies() -> Vec<RecordBody> {
    let mut bodies = vec![
        RecordBody::TransactionStarted { facts: facts(), seq_no: None, offline: false },
        RecordBody::TransactionUpdated {
            facts: facts(),
            seq_no: Some(3),
            at: NOON.plus_ms(60_000),
            meter: Some(Energy::from_wh(1_204_350)),
            trigger: Some("MeterValuePeriodic".to_owned()),
            offline: false,
            charging: None,
        },
        RecordBody::TransactionPriced { facts: facts(), tariff: tariff(), sealed: None },
        RecordBody::TransactionEnded {
            facts: facts(),
            seq_no: Some(9),
            ended: NOON.plus_ms(3_600_000),
            meter_stop: Some(Energy::from_wh(1_214_870)),
            reason: Some("EVDisconnected".to_owned()),
            reconstructed: false,
            cost: Some(Cost {
                currency: "EUR".to_owned(),
                net: Decimal::new(448, 2),
                vat: Decimal::new(85, 2),
                gross: Decimal::new(533, 2),
                tariff: "default".to_owned(),
            }),
        },
    ];
    bodies.extend(charger_bodies());
    bodies.extend(bill_bodies());
    bodies.extend([
        RecordBody::AlarmRaised(alarm()),
        RecordBody::AlarmCleared(alarm()),
        RecordBody::LimitChanged {
            circuit: CircuitId::new("garage"),
            limit: Some(Current::from_ma(62_500)),
            until: Some(NOON.plus_ms(7_200_000)),
        },
    ]);
    bodies.extend(limit_bodies());
    bodies.extend([
        RecordBody::ConfigurationChanged { version: "0.1.0".to_owned(), cause: "start".to_owned(), tokens_file: 7 },
        RecordBody::TariffsReplaced { tariffs: None },
        RecordBody::CommandExecuted {
            id: "c-17".to_owned(),
            kind: "limit.set".to_owned(),
            status: "accepted".to_owned(),
            error: None,
        },
        RecordBody::StoreRecovered { missing: "records 17 to 21".to_owned() },
    ]);
    bodies.extend(wish_bodies());
    let part = ListPart { list: "2026-03-01".to_owned(), part: 2, parts: 40 };
    let order = TokensOrder::ReplacePart { part, entries: Vec::new() };
    bodies.push(RecordBody::TokensChanged { order: Box::new(order), revokes: false });
    let order = TokensOrder::Delete { tokens: vec![IdToken::new("04A2B3C4")] };
    bodies.push(RecordBody::TokensChanged { order: Box::new(order), revokes: true });
    bodies.extend([RecordBody::SignedValue(Box::new(signed())), RecordBody::EnergyBalanced(Box::new(balance()))]);
    let charger = StationId::new("CP001");
    bodies.push(RecordBody::LeaseChosen { charger, form: LeaseForm::TwoLevels, proven: true });
    bodies
}

fn signed() -> SignedNote {
    SignedNote {
        charger: StationId::new("CP001"),
        evse: 1,
        transaction: Some(TransactionId::new("1042")),
        at: Some(NOON),
        value: SignedValue {
            data: r#"OCMF|{"PG":"T32","GS":"17619300","RD":[{"TX":"B","RV":0.2596,"RU":"kWh"}]}|{"SD":"3045"}"#
                .to_owned(),
            context: Some("Transaction.Begin".to_owned()),
            ..SignedValue::default()
        },
        page: Some(Page { meter: "17619300".to_owned(), class: 'T', number: 32 }),
        page_fault: Some(PageFault::Missing(30, 31)),
        check: Check::Failed,
        reason: Some("the signature is not that of its meter over these bytes".to_owned()),
    }
}

fn balance() -> Balance {
    let wh = |wh| Some(Energy::from_wh(wh));
    Balance {
        from: Some(NOON),
        to: NOON.plus_ms(86_400_000),
        evses: vec![EvseBalance {
            charger: StationId::new("CP001"),
            evse: 1,
            register_start: wh(1_204_000),
            register_end: wh(1_250_000),
            transactions: Energy::from_wh(43_000),
            verdict: BalanceVerdict::Off,
            reason: None,
        }],
        circuits: vec![CircuitBalance {
            circuit: CircuitId::new("garage"),
            comparison: Comparison::Same,
            registers: None,
            metered: None,
            chargers: wh(46_000),
            tolerance: Energy::from_wh(1_000),
            verdict: BalanceVerdict::NotJudged,
            reason: Some("its meter gives no register".to_owned()),
        }],
    }
}

fn bill_bodies() -> [RecordBody; 3] {
    let text = include_str!("golden/cdr.json");
    let cdr = serde_json::from_str(text).expect("the example is a CDR");
    let note = CdrNote {
        charger: StationId::new("CP001"),
        transaction: TransactionId::new("1042"),
        ended_by: Sequence(4),
        reissue: false,
        cdr,
    };
    [
        RecordBody::TransactionCorrected {
            facts: facts(),
            ended: NOON.plus_ms(3_600_000),
            meter_stop: Some(Energy::from_wh(1_214_900)),
            reason: "a Stop came after the transaction had ended".to_owned(),
            cost: None,
        },
        RecordBody::CdrCreated(Box::new(note)),
        RecordBody::CdrWithheld {
            facts: TransactionFacts { meter_start: None, ..facts() },
            ended_by: Sequence(4),
            reason: "it has no register at both ends: what was not measured is not billed".to_owned(),
        },
    ]
}

fn wish_bodies() -> [RecordBody; 4] {
    let charger = || StationId::new("CP001");
    let transaction = || TransactionId::new("1042");
    let departure = NOON.plus_ms(6 * 3_600_000);
    let target = Target { energy: Energy::from_wh(20_000), departure, source: TargetSource::Command };
    let until = NOON.plus_ms(3_600_000);
    let ends = Mono::from_ms(3_681_234);
    let boost = Boost { transaction: Some(transaction()), until, ends, boot: 7, trusted: true };
    let missing = Some(Energy::from_wh(6_200));
    [
        RecordBody::BoostSet { charger: charger(), evse: 1, boost },
        RecordBody::BoostEnded { charger: charger(), evse: 1, cause: BoostEnd::Expired },
        RecordBody::TargetSet { charger: charger(), evse: 1, transaction: transaction(), target },
        RecordBody::TargetEnded {
            charger: charger(),
            evse: 1,
            transaction: transaction(),
            cause: TargetEnd::Missed,
            missing,
        },
    ]
}

pub(crate) fn record(sequence: u64, body: RecordBody) -> Record {
    let stamp = Stamp { utc: NOON, trusted: true, mono: Mono::from_ms(81_234), boot: 7 };
    Record { sequence: Sequence(sequence), stamp, body }
}

fn parse(payload: &str) -> Value {
    serde_json::from_str(payload).unwrap()
}

/// Compares with a golden file; `UPDATE=1` rewrites it.
fn golden(name: &str, actual: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/engine/cloud/golden").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(actual, expected, "{} differs; UPDATE=1 rewrites it", path.display());
}

#[test]
fn every_record_body_has_its_golden_event() {
    let mut text = String::new();
    for (sequence, body) in (1..).zip(bodies()) {
        let publication = messages().event(&record(sequence, body));
        assert_eq!(publication.topic, "siteward/v1/depot-nord/events");
        assert_eq!(publication.content_type, "application/cloudevents+json");
        assert_eq!(publication.carries, Carries::Event(Sequence(sequence)));
        assert!(publication.at_least_once && !publication.retain);
        writeln!(text, "{}", serde_json::to_string_pretty(&parse(&publication.payload)).unwrap()).unwrap();
    }
    golden("events.json", &text);
}

/// The name under which a body is stored. Without a wildcard, so that a new one does not compile until it is here and in [`bodies`].
const fn stored_as(body: &RecordBody) -> &'static str {
    match body {
        RecordBody::TransactionStarted { .. } => "transaction_started",
        RecordBody::TransactionUpdated { .. } => "transaction_updated",
        RecordBody::TransactionPriced { .. } => "transaction_priced",
        RecordBody::TransactionEnded { .. } => "transaction_ended",
        RecordBody::TransactionCorrected { .. } => "transaction_corrected",
        RecordBody::CdrCreated(_) => "cdr_created",
        RecordBody::CdrWithheld { .. } => "cdr_withheld",
        RecordBody::SignedValue(_) => "signed_value",
        RecordBody::EnergyBalanced(_) => "energy_balanced",
        RecordBody::ChargerConnected { .. } => "charger_connected",
        RecordBody::ChargerBooted { .. } => "charger_booted",
        RecordBody::ChargerDisconnected { .. } => "charger_disconnected",
        RecordBody::ChargerStatus { .. } => "charger_status",
        RecordBody::ChargerTamed { .. } => "charger_tamed",
        RecordBody::LeaseChosen { .. } => "lease_chosen",
        RecordBody::AlarmRaised(_) => "alarm_raised",
        RecordBody::AlarmCleared(_) => "alarm_cleared",
        RecordBody::OutsideLimit(_) => "outside_limit",
        RecordBody::OutsideLimitEnded { .. } => "outside_limit_ended",
        RecordBody::LimitProven(_) => "limit_proven",
        RecordBody::LimitChanged { .. } => "limit_changed",
        RecordBody::BoostSet { .. } => "boost_set",
        RecordBody::BoostEnded { .. } => "boost_ended",
        RecordBody::TargetSet { .. } => "target_set",
        RecordBody::TargetEnded { .. } => "target_ended",
        RecordBody::ConfigurationChanged { .. } => "configuration_changed",
        RecordBody::TokensChanged { .. } => "tokens_changed",
        RecordBody::TariffsReplaced { .. } => "tariffs_replaced",
        RecordBody::CommandExecuted { .. } => "command_executed",
        RecordBody::StoreRecovered { .. } => "store_recovered",
    }
}

#[test]
fn every_record_body_is_stored_as_it_was() {
    // Stores are read for as long as there are gateways: a line here may get company, and may not change once a release has written it.
    let mut text = String::new();
    let mut names = BTreeSet::new();
    for (sequence, body) in (1..).zip(bodies()) {
        let record = record(sequence, body);
        let stored = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&stored).unwrap(), record, "{stored}");
        let name = stored_as(&record.body);
        assert!(stored.contains(&format!("\"body\":{{\"{name}\":")), "{name}: {stored}");
        names.insert(name);
        writeln!(text, "{stored}").unwrap();
    }
    assert_eq!(names.len(), RECORD_BODIES, "one of them has no example: {names:?}");
    golden("records.jsonl", &text);
}

#[test]
fn an_event_has_what_cloudevents_demands() {
    // CloudEvents 1.0.2: id, source, specversion and type are required; extension names are [a-z0-9]+.
    let event = parse(&messages().event(&record(41, bodies().remove(0))).payload);
    assert_eq!(event["specversion"], "1.0");
    assert_eq!(event["id"], "5f1c9e0b7a3d2846-41");
    assert_eq!(event["source"], "/siteward/depot-nord");
    assert_eq!(event["sequence"], 41);
    assert_eq!(event["time"], "2026-03-01T12:00:00.000Z");
    for name in event.as_object().unwrap().keys() {
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()), "{name}");
    }
}

#[test]
fn an_untrusted_time_says_so_and_can_be_mapped() {
    let mut record = record(1, bodies().remove(0));
    record.stamp.trusted = false;
    let event = parse(&messages().event(&record).payload);
    assert_eq!(event["clocktrusted"], false);
    assert_eq!(event["boot"], 7);
    assert_eq!(event["uptimems"], "81234");
}

#[test]
fn an_unknown_register_gives_no_energy() {
    let facts = TransactionFacts { meter_start: None, ..facts() };
    let ended = RecordBody::TransactionEnded {
        facts,
        seq_no: None,
        ended: NOON,
        meter_stop: Some(Energy::from_wh(5)),
        reason: None,
        reconstructed: true,
        cost: None,
    };
    let event = parse(&messages().event(&record(1, ended)).payload);
    assert_eq!(event["data"]["energy_wh"], Value::Null);
    assert_eq!(event["data"]["meter_stop_wh"], 5);
}

#[test]
fn an_alarm_of_the_whole_site_has_no_subject() {
    let alarm = Alarm { key: AlarmKey::new(AlarmKind::StoreFailed, ""), ..alarm() };
    let event = parse(&messages().event(&record(1, RecordBody::AlarmRaised(alarm))).payload);
    assert!(event.get("subject").is_none());
}

#[test]
fn the_state_is_retained_and_golden() {
    let status = SiteStatus { site: "depot-nord".to_owned(), time: NOON, ..SiteStatus::default() };
    let publication = messages().state(&status);
    assert!(publication.retain && !publication.at_least_once && publication.carries == Carries::Nothing);
    golden("state.json", &format!("{}\n", serde_json::to_string_pretty(&parse(&publication.payload)).unwrap()));
}

#[test]
fn answers_say_how_a_command_ended() {
    let accepted = CommandOutcome::Accepted { data: Some(r#"{"status":"Accepted","limit":16.10}"#.to_owned()) };
    assert_eq!(
        response(Some("c-1"), &accepted),
        r#"{"data":{"limit":16.10,"status":"Accepted"},"error":null,"id":"c-1","status":"accepted"}"#
    );
    let answer = parse(&response(None, &CommandOutcome::Rejected { error: "no id".to_owned() }));
    assert_eq!(answer, json!({ "id": null, "status": "rejected", "error": "no id", "data": null }));
    let failed = CommandOutcome::Failed { error: "refused".to_owned(), data: Some("not json".to_owned()) };
    assert_eq!(parse(&response(Some("a"), &failed))["data"], "not json");
    assert_eq!(parse(&response(Some("a"), &CommandOutcome::TimedOut))["status"], "failed");
    assert_eq!(parse(&response(Some("a"), &CommandOutcome::NotConnected))["status"], "failed");
    assert_eq!(parse(&response(Some("a"), &CommandOutcome::Expired))["status"], "expired");
}

#[test]
fn a_response_goes_where_the_request_says() {
    let correlation = Some(vec![1, 2]);
    let publication = messages().response(String::new(), Some("me/answers".to_owned()), correlation.clone());
    assert_eq!((publication.topic.as_str(), publication.correlation), ("me/answers", correlation));
    assert_eq!(messages().response(String::new(), None, None).topic, "siteward/v1/depot-nord/responses");
}

#[test]
fn the_connection_message() {
    let message = connection(true, NOON, "0.1.0");
    assert_eq!(message, r#"{"online":true,"since":"2026-03-01T12:00:00.000Z","version":"0.1.0"}"#);
}
