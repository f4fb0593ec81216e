//! The cloud's side of `P/events`: a ledger that proves that everything came, once and in order.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// What an event turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The next one.
    Next,
    /// One that was here before: delivery is at least once.
    Duplicate,
    /// One came that is not the next: so many are missing before it.
    Gap(u64),
    /// It was no event.
    Unreadable,
}

/// A transaction as the cloud knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloudTransaction {
    /// The station.
    pub charger: String,
    /// How many `started` events came for it.
    pub started: u32,
    /// How many `ended` events came for it.
    pub ended: u32,
    /// The energy register at the start, in Wh.
    pub meter_start_wh: Option<i64>,
    /// The energy register at the end, in Wh.
    pub meter_stop_wh: Option<i64>,
    /// The energy billed, in Wh.
    pub energy_wh: Option<i64>,
    /// What it costs, with tax, as it was written.
    pub cost: Option<String>,
    /// What its meter has signed, as it came.
    pub signed: Vec<String>,
    /// How many signed values its CDR has; `None`: no CDR came, or without any.
    pub signed_in_cdr: Option<usize>,
}

#[derive(Deserialize)]
struct Event {
    sequence: Value,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: Value,
}

/// A consumer of events that keeps the last sequence.
#[derive(Clone, Debug, Default)]
pub struct CloudConsumer {
    last: u64,
    received: u64,
    duplicates: u64,
    missing: u64,
    unreadable: u64,
    kinds: BTreeMap<String, u64>,
    transactions: BTreeMap<(String, String), CloudTransaction>,
}

impl CloudConsumer {
    /// Takes in the payload of an event.
    pub fn receive(&mut self, payload: &str) -> Arrival {
        let Ok(event) = serde_json::from_str::<Event>(payload) else {
            self.unreadable += 1;
            return Arrival::Unreadable;
        };
        // CloudEvents gives integers as numbers; the `sequence` extension of its catalogue is text. Both are understood.
        let sequence = event.sequence.as_u64().or_else(|| event.sequence.as_str().and_then(|text| text.parse().ok()));
        let Some(sequence) = sequence else {
            self.unreadable += 1;
            return Arrival::Unreadable;
        };
        self.received += 1;
        if sequence <= self.last {
            self.duplicates += 1;
            return Arrival::Duplicate;
        }
        let gap = sequence - self.last - 1;
        self.last = sequence;
        self.missing += gap;
        self.fold(&event);
        *self.kinds.entry(event.kind).or_default() += 1;
        if gap == 0 { Arrival::Next } else { Arrival::Gap(gap) }
    }

    /// What may be acknowledged: everything up to this sequence is here. 0: nothing.
    #[must_use]
    pub const fn acknowledge(&self) -> u64 {
        if self.missing == 0 { self.last } else { 0 }
    }

    /// The last sequence that came.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// How many events came, duplicates included.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// How many came again.
    #[must_use]
    pub const fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// How many never came although a later one did.
    #[must_use]
    pub const fn missing(&self) -> u64 {
        self.missing
    }

    /// How many messages were no events.
    #[must_use]
    pub const fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// How many different events came of each type.
    #[must_use]
    pub const fn kinds(&self) -> &BTreeMap<String, u64> {
        &self.kinds
    }

    /// All transactions by station and the station's id for them.
    #[must_use]
    pub const fn transactions(&self) -> &BTreeMap<(String, String), CloudTransaction> {
        &self.transactions
    }

    /// The energy of all ended transactions, in Wh.
    #[must_use]
    pub fn energy_wh(&self) -> i64 {
        self.transactions.values().filter_map(|transaction| transaction.energy_wh).sum()
    }

    /// A signed value, or a CDR with some.
    fn fold_signed(&mut self, event: &Event) {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let data = &event.data;
        let place = data.get("cdr_location");
        let evse = text(place.and_then(|place| place.get("evse_uid")));
        let charger = text(data.get("charger")).or(evse.and_then(|uid| Some(uid.rsplit_once('-')?.0.to_owned())));
        let transaction = text(data.get("transaction_id")).or(text(data.get("session_id")));
        let Some(transaction) = charger.zip(transaction).and_then(|key| self.transactions.get_mut(&key)) else {
            return;
        };
        transaction.signed.extend(text(data.get("signed_data")));
        let values = data.get("signed_data").and_then(|signed| signed.get("signed_values")).and_then(Value::as_array);
        transaction.signed_in_cdr = values.map(Vec::len).or(transaction.signed_in_cdr);
    }

    fn fold(&mut self, event: &Event) {
        if event.kind == "siteward.transaction.signed" || event.kind == "siteward.cdr.created" {
            return self.fold_signed(event);
        }
        let name = |field: &str| match event.data.get(field) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        if event.kind == "siteward.transaction.corrected" {
            let key = (name("charger"), name("transaction_id"));
            if let Some(transaction) = self.transactions.get_mut(&key) {
                transaction.cost = gross_of(&event.data);
            }
            return;
        }
        let ended = match event.kind.as_str() {
            "siteward.transaction.started" => false,
            "siteward.transaction.ended" => true,
            _ => return,
        };
        let number = |field: &str| event.data.get(field).and_then(Value::as_i64);
        let charger = name("charger");
        let transaction = self.transactions.entry((charger.clone(), name("transaction_id"))).or_default();
        transaction.charger = charger;
        transaction.meter_start_wh = number("meter_start_wh").or(transaction.meter_start_wh);
        if ended {
            transaction.ended += 1;
            transaction.meter_stop_wh = number("meter_stop_wh");
            transaction.energy_wh = number("energy_wh");
            transaction.cost = gross_of(&event.data);
        } else {
            transaction.started += 1;
        }
    }
}

/// What an event says that a transaction costs, with tax.
fn gross_of(data: &Value) -> Option<String> {
    data.get("cost")?.get("gross")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(sequence: u64) -> String {
        format!(
            r#"{{"specversion":"1.0","id":"s-{sequence}","source":"/siteward/x","type":"siteward.alarm.raised","sequence":{sequence},"data":{{}}}}"#
        )
    }

    #[test]
    fn it_sees_duplicates_and_gaps() {
        let mut cloud = CloudConsumer::default();
        assert_eq!(cloud.receive(&event(1)), Arrival::Next);
        assert_eq!(cloud.receive(&event(2)), Arrival::Next);
        assert_eq!(cloud.receive(&event(2)), Arrival::Duplicate);
        assert_eq!(cloud.acknowledge(), 2);
        assert_eq!(cloud.receive(&event(5)), Arrival::Gap(2));
        assert_eq!((cloud.missing(), cloud.acknowledge()), (2, 0));
        assert_eq!(cloud.receive("nonsense"), Arrival::Unreadable);
    }

    #[test]
    fn it_adds_up_what_is_billed() {
        let mut cloud = CloudConsumer::default();
        cloud.receive(
            r#"{"sequence":1,"type":"siteward.transaction.started","data":{"transaction_id":"7","charger":"CP1","meter_start_wh":100}}"#,
        );
        cloud.receive(
            r#"{"sequence":2,"type":"siteward.transaction.ended","data":{"transaction_id":"7","charger":"CP1","meter_start_wh":100,"meter_stop_wh":5100,"energy_wh":5000}}"#,
        );
        let transaction = &cloud.transactions()[&("CP1".to_owned(), "7".to_owned())];
        assert_eq!((transaction.started, transaction.ended), (1, 1));
        assert_eq!(cloud.energy_wh(), 5000);
    }
}
