//! The reference consumer's books, on SQLite; with `SITEWARD_FLEET_DATABASE` (`make fleet`) the same in PostgreSQL, each test in a schema of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage has failed")]

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use siteward_sim::net::fleet::event::{self, Effect, Message};
use siteward_sim::net::fleet::ledger::{Ask, Ledger, Position, Rules};
use siteward_sim::net::fleet::sql::{Datum, open};
use tempfile::TempDir;

const RULES: Rules = Rules { from_start: true, hole_after_ms: 5_000 };

/// A place for books of its own.
struct Place {
    url: String,
    _directory: TempDir,
}

impl Place {
    fn new() -> Self {
        static TAKEN: AtomicU32 = AtomicU32::new(0);
        let directory = tempfile::tempdir().unwrap();
        let Ok(url) = std::env::var("SITEWARD_FLEET_DATABASE") else {
            let url = directory.path().join("books.sqlite").display().to_string();
            return Self { url, _directory: directory };
        };
        let schema = format!("books_{}_{}", std::process::id(), TAKEN.fetch_add(1, Ordering::Relaxed));
        open(&url).unwrap().batch(&format!("CREATE SCHEMA {schema}")).unwrap();
        let separator = if url.contains('?') { '&' } else { '?' };
        Self { url: format!("{url}{separator}options=-csearch_path%3D{schema}"), _directory: directory }
    }

    fn books(&self, rules: Rules) -> Ledger {
        Ledger::open(&self.url, rules).unwrap()
    }
}

fn event_of(site: &str, store: &str, sequence: i64, kind: &str, data: &Value) -> Message {
    let body = json!({
        "specversion": "1.0", "id": format!("{store}-{sequence}"), "source": format!("/siteward/{site}"), "sequence": sequence,
        "type": kind, "subject": data["charger"], "time": "2026-03-01T12:00:00.000Z", "data": data,
    });
    Message { topic: format!("siteward/v1/{site}/events"), body: body.to_string().into_bytes() }
}

fn alarm(site: &str, store: &str, sequence: i64) -> Message {
    event_of(site, store, sequence, "siteward.alarm.raised", &json!({}))
}

fn started(sequence: i64, id: &str) -> Message {
    let data = json!({ "charger": "CP1", "transaction_id": id, "token": "A", "started": "s", "meter_start_wh": 100 });
    event_of("depot", "s", sequence, "siteward.transaction.started", &data)
}

fn ended(sequence: i64, id: &str, kind: &str, energy_wh: i64) -> Message {
    let data = json!({
        "charger": "CP1", "transaction_id": id, "meter_start_wh": 100, "meter_stop_wh": 100 + energy_wh, "energy_wh": energy_wh,
        "ended": "e", "cost": { "gross": "5.33", "currency": "EUR" },
    });
    event_of("depot", "s", sequence, kind, &data)
}

fn position(ledger: &mut Ledger, site: &str, store: &str) -> Vec<i64> {
    let text =
        "SELECT first_sequence, contiguous, highest, live, asked_times FROM streams WHERE site = $1 AND store_id = $2";
    let rows = ledger.query(text, &[site.into(), store.into()]).unwrap();
    rows.into_iter().flatten().map(|datum| datum.number()).collect()
}

#[test]
fn an_event_is_there_once_byte_by_byte_in_whatever_order_it_comes() {
    let place = Place::new();
    let mut ledger = place.books(RULES);
    let batch = [alarm("depot", "s", 3), alarm("depot", "s", 1), alarm("depot", "s", 1)];
    let taken = ledger.take(&batch, 0).unwrap();
    assert_eq!((taken.new, taken.again, taken.unreadable.len()), (2, 1, 0));
    assert_eq!(position(&mut ledger, "depot", "s"), [1, 1, 3, 1, 0]);
    let taken = ledger.take(&[alarm("depot", "s", 3), alarm("depot", "s", 2), alarm("depot", "s", 4)], 0).unwrap();
    assert_eq!((taken.new, taken.again), (2, 1));
    assert_eq!(
        taken.streams,
        [Position { site: "depot".to_owned(), store: "s".to_owned(), contiguous: 4, highest: 4, news: true }]
    );
    let rows = ledger.query("SELECT body FROM events WHERE sequence = $1", &[Datum::Number(1)]).unwrap();
    assert_eq!(rows, [[Datum::Bytes(alarm("depot", "s", 1).body)]]);
}

#[test]
fn more_rows_than_fit_one_statement_are_the_same() {
    let place = Place::new();
    let mut ledger = place.books(RULES);
    let many: Vec<Message> = (1..=100).rev().map(|sequence| alarm("depot", "s", sequence)).collect();
    assert_eq!(ledger.take(&many, 0).unwrap().new, 100);
    assert_eq!(ledger.take(&many, 0).unwrap().again, 100);
    assert_eq!(position(&mut ledger, "depot", "s"), [1, 100, 100, 1, 0]);
}

#[test]
fn a_hole_is_asked_for_once_by_one_instance_and_later_again() {
    let place = Place::new();
    let mut ledger = place.books(RULES);
    ledger.take(&[alarm("depot", "s", 1), alarm("depot", "s", 4)], 1_000).unwrap();
    assert_eq!(ledger.asks(&[], 5_000).unwrap(), [], "it may be on its way to another instance");
    let ask = |times| Ask { site: "depot".to_owned(), from: 2, times };
    assert_eq!(ledger.asks(&[], 6_000).unwrap(), [ask(0)]);
    assert_eq!(ledger.asks(&[], 6_000).unwrap(), []);
    assert_eq!(ledger.asks(&[], 11_000).unwrap(), [ask(1)]);
    assert_eq!(ledger.asks(&[], 16_000).unwrap(), [], "the wait doubles");
    assert_eq!(ledger.report().unwrap().missing, 2);
    ledger.take(&[alarm("depot", "s", 2), alarm("depot", "s", 3)], 17_000).unwrap();
    assert_eq!(ledger.asks(&[], 100_000).unwrap(), []);
    assert!(ledger.report().unwrap().is_whole());
}

#[test]
fn a_site_that_may_have_more_is_asked_behind_the_last() {
    let place = Place::new();
    let mut ledger = place.books(Rules { from_start: false, ..RULES });
    ledger.take(&[alarm("depot", "s", 7)], 0).unwrap();
    let asks = ledger.asks(&["depot".to_owned(), "unknown".to_owned()], 0).unwrap();
    assert_eq!(asks, [Ask { site: "depot".to_owned(), from: 8, times: 0 }]);
}

#[test]
fn who_joins_late_begins_with_what_comes_but_wants_the_next_store_whole() {
    let place = Place::new();
    let mut ledger = place.books(Rules { from_start: false, ..RULES });
    ledger.take(&[alarm("depot", "old", 500), alarm("depot", "old", 501)], 0).unwrap();
    assert_eq!(position(&mut ledger, "depot", "old"), [500, 501, 501, 1, 0]);
    ledger.take(&[alarm("depot", "old", 503)], 0).unwrap();
    let taken = ledger.take(&[alarm("depot", "new", 2)], 0).unwrap();
    assert_eq!((taken.streams[0].contiguous, taken.streams.len()), (0, 1));
    assert_eq!(position(&mut ledger, "depot", "old"), [500, 501, 503, 0, 0]);
    let asks = ledger.asks(&[], 60_000).unwrap();
    assert_eq!(asks, [Ask { site: "depot".to_owned(), from: 1, times: 0 }], "nobody has the old store any more");
    // A late one of the old store makes it no stream that could be acknowledged, unless it is news.
    assert_eq!(ledger.take(&[alarm("depot", "old", 500)], 0).unwrap().streams, []);
}

#[test]
fn the_fold_does_not_depend_on_the_order() {
    let ended_kind = "siteward.transaction.ended";
    let all = [
        started(1, "7"),
        ended(2, "7", ended_kind, 5_000),
        ended(3, "7", "siteward.transaction.corrected", 5_200),
        started(4, "8"),
        ended(5, "8", ended_kind, 40),
    ];
    let mut reversed = all.to_vec();
    reversed.reverse();
    for order in [all.to_vec(), reversed] {
        let place = Place::new();
        let mut ledger = place.books(RULES);
        for message in &order {
            ledger.take(std::slice::from_ref(message), 0).unwrap();
            ledger.take(std::slice::from_ref(message), 0).unwrap();
        }
        let text = "SELECT starts, ends, corrections, energy_wh, gross_e4 FROM transactions ORDER BY transaction_id";
        let rows: Vec<i64> = ledger.query(text, &[]).unwrap().into_iter().flatten().map(|d| d.number()).collect();
        assert_eq!(rows, [1, 1, 1, 5_200, 53_300, 1, 1, 0, 40, 53_300]);
        let report = ledger.report().unwrap();
        assert_eq!((report.transactions, report.ended, report.doubled, report.energy_wh), (2, 2, 0, 5_240));
        assert!(report.is_whole(), "{report}");
    }
}

#[test]
fn bills_and_credits_add_up() {
    let cdr = |sequence: i64, id: &str, credit: Option<&str>, sign: f64| {
        let data = json!({
            "id": id, "session_id": "7", "credit_reference_id": credit, "total_energy": 10.87, "currency": "EUR",
            "total_cost": { "excl_vat": 4.48 * sign, "incl_vat": 5.33 * sign },
        });
        event_of("depot", "s", sequence, "siteward.cdr.created", &data)
    };
    let place = Place::new();
    let mut ledger = place.books(RULES);
    let mut untaxed = cdr(4, "s-4", None, 0.0);
    untaxed.body = String::from_utf8(untaxed.body).unwrap().replace(r#","incl_vat":0.0"#, "").into_bytes();
    let all = [cdr(1, "s-1", None, 1.0), cdr(2, "s-1-C", Some("s-1"), -1.0), cdr(3, "s-3", None, 1.0), untaxed];
    assert_eq!(ledger.take(&all, 0).unwrap().unreadable, [""; 0]);
    let report = ledger.report().unwrap();
    let sum = &report.sums[0];
    assert_eq!((sum.cdrs, sum.credits, sum.energy_wh, sum.net_e4, sum.gross_e4), (3, 1, 21_740, 44_800, 53_300));
    assert!(report.to_string().contains("21740 Wh, 4.4800 EUR without tax, 5.3300 with it"), "{report}");
}

#[test]
fn what_cannot_be_read_is_kept_once_and_holds_nothing_up() {
    let place = Place::new();
    let mut ledger = place.books(RULES);
    let nonsense = Message { topic: "siteward/v1/depot/events".to_owned(), body: b"nonsense\0\xff".to_vec() };
    let bad_data = event_of("depot", "s", 1, "siteward.transaction.ended", &json!({ "charger": "CP1" }));
    let batch = [nonsense, bad_data, alarm("depot", "s", 2)];
    let taken = ledger.take(&batch, 0).unwrap();
    assert_eq!((taken.new, taken.unreadable.len()), (2, 2));
    assert!(taken.unreadable[1].contains("transaction_id is missing"), "{:?}", taken.unreadable);
    assert_eq!(position(&mut ledger, "depot", "s")[1], 2);
    assert_eq!(ledger.take(&batch, 0).unwrap().unreadable, [""; 0]);
    let report = ledger.report().unwrap();
    assert_eq!((report.quarantine, report.is_whole()), (2, false));
}

#[test]
fn an_interval_is_there_once_and_what_its_ring_has_dropped_is_counted() {
    let place = Place::new();
    let mut ledger = place.books(RULES);
    let interval = |sequence: i64| {
        let data = json!({ "meter": "main", "from": "f", "until": "u", "import_wh": 5 });
        let id = format!("r-{sequence}");
        let body = json!({ "id": id, "source": "/siteward/depot", "sequence": sequence, "data": data });
        Message { topic: "siteward/v1/depot/telemetry".to_owned(), body: body.to_string().into_bytes() }
    };
    let taken = ledger.take(&[interval(3), interval(4), interval(3), interval(8)], 0).unwrap();
    assert_eq!((taken.intervals, taken.again, taken.new), (3, 1, 0));
    assert_eq!(ledger.take(&[interval(8)], 0).unwrap().intervals, 0);
    let report = ledger.report().unwrap();
    assert_eq!((report.intervals, report.dropped, report.is_whole()), (3, 3, true));
}

#[test]
fn what_fails_leaves_nothing_and_can_be_given_again() {
    let place = Place::new();
    let mut ledger = place.books(RULES);
    let mut other = open(&place.url).unwrap();
    other.batch("ALTER TABLE transactions RENAME TO elsewhere").unwrap();
    let batch = [alarm("depot", "s", 1), started(2, "7")];
    assert!(ledger.take(&batch, 0).unwrap_err().contains("transactions"));
    assert_eq!(position(&mut ledger, "depot", "s"), [0; 0]);
    other.batch("ALTER TABLE elsewhere RENAME TO transactions").unwrap();
    assert_eq!(ledger.take(&batch, 0).unwrap().new, 2);
}

#[test]
fn an_event_is_named_by_site_store_and_sequence() {
    let read = event::read(&ended(4, "7", "siteward.transaction.ended", 5_000)).unwrap();
    assert_eq!((read.site.as_str(), read.store.as_str(), read.sequence), ("depot", "s", 4));
    let Ok(Effect::Ended(transaction, end)) = read.effect else { panic!("{:?}", read.effect) };
    assert_eq!((transaction.id.as_str(), end.energy_wh, end.gross_e4), ("7", Some(5000), Some(53_300)));
}

#[test]
fn what_is_no_event_of_this_site_is_said() {
    let good = r#"{"id":"s-4","source":"/siteward/depot","sequence":4,"time":"t","type":"x"}"#;
    let read = |text: &str| {
        event::read(&Message { topic: "siteward/v1/depot/events".to_owned(), body: text.as_bytes().to_vec() })
    };
    assert_eq!(read(good).unwrap().effect, Ok(Effect::None));
    let bad = |from: &str, to: &str| read(&good.replace(from, to)).unwrap_err();
    assert!(bad("siteward/depot", "siteward/other").contains("source is /siteward/other"));
    assert!(bad("s-4", "s-5").contains("is not <store id>-4"));
    assert!(bad(":4,", ":0,").contains("no number from 1"));
    assert!(bad(":4,", ":99999999999999999999,").contains("no number from 1"));
    assert!(bad("\"t\"", r#""\u0000""#).contains("NUL"));
    assert!(bad("{", "[").contains("no event"));
}

#[test]
fn amounts_are_exact_decimals() {
    let gross = |written: &str| {
        let text = format!(
            r#"{{"id":"s-4","source":"/siteward/depot","sequence":4,"time":"t","type":"siteward.transaction.ended",
            "data":{{"charger":"CP1","transaction_id":"7","cost":{{"currency":"EUR","gross":{written}}}}}}}"#
        );
        let message = Message { topic: "siteward/v1/depot/events".to_owned(), body: text.into_bytes() };
        match event::read(&message).unwrap().effect {
            Ok(Effect::Ended(_, end)) => end.gross_e4.ok_or_else(|| "none".to_owned()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error),
        }
    };
    for (written, e4) in [("4.4759", 44_759), ("-5", -50_000), ("\"-0.01\"", -100), ("10.870", 108_700)] {
        assert_eq!(gross(written), Ok(e4), "{written}");
    }
    for bad in ["\"\"", "\".5\"", "1e3", "1.23456", "\"1.2.3\"", "\"--1\"", "99999999999999999999", "null"] {
        assert!(gross(bad).is_err(), "{bad}");
    }
}
