//! What a transaction costs in the words of an OCPP 1.6 station: a `DataTransfer` as the Open Charge Alliance's application note "OCPP &
//! California Pricing Requirements" has it (section 3.1), or as a maker wants it.

use serde::Serialize;

use super::frame::ErrorCode;
use super::lenient::Refusal;
use super::outgoing::{Outgoing, Verdict, bounded, json, property};
use crate::engine::model::cdr::OcpiNumber;
use crate::engine::model::display::CostNote;
use crate::engine::model::tariff::Prices;
use crate::engine::time::Utc;

/// The longest vendorId (CiString255Type).
const MAX_VENDOR_CHARS: usize = 255;
/// The longest messageId (CiString50Type).
const MAX_MESSAGE_CHARS: usize = 50;

/// A `DataTransfer`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DataTransferReq {
    vendor_id: String,
    message_id: String,
    data: String,
}

/// `RunningCost`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RunningCost {
    transaction_id: i32,
    timestamp: Utc,
    meter_value: i64,
    cost: OcpiNumber,
    state: &'static str,
    charging_price: ChargingPrice,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_price: Option<IdlePrice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_period: Option<NextPeriod>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChargingPrice {
    #[serde(rename = "kWhPrice")]
    kwh_price: OcpiNumber,
    hour_price: OcpiNumber,
    flat_fee: OcpiNumber,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IdlePrice {
    grace_minutes: u32,
    hour_price: OcpiNumber,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NextPeriod {
    at_time: Utc,
    charging_price: ChargingPrice,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_price: Option<IdlePrice>,
}

/// `FinalCost`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FinalCost {
    transaction_id: i32,
    cost: OcpiNumber,
    price_text: String,
}

/// The CALL that tells an OCPP 1.6 station.
pub(super) fn transfer(note: &CostNote) -> Result<Outgoing, Refusal> {
    let nobody = || Refusal::new(ErrorCode::NotSupported, "nobody said how this station is told a cost");
    let transfer = note.transfer.as_ref().ok_or_else(nobody)?;
    let message = if note.is_final { &transfer.last } else { &transfer.running };
    let data = match &transfer.data {
        Some(template) => filled(template, note),
        None if note.is_final => json(&final_cost(note)?)?,
        None => json(&running_cost(note)?)?,
    };
    let request = DataTransferReq {
        vendor_id: bounded("vendorId", &transfer.vendor, MAX_VENDOR_CHARS)?,
        message_id: bounded("messageId", message, MAX_MESSAGE_CHARS)?,
        data,
    };
    Ok(Outgoing { action: "DataTransfer".to_owned(), payload: json(&request)?, verdict: Verdict::Status })
}

fn running_cost(note: &CostNote) -> Result<RunningCost, Refusal> {
    Ok(RunningCost {
        transaction_id: number_of(note)?,
        timestamp: note.at,
        meter_value: note.register.wh(),
        cost: OcpiNumber::rounded(note.amount),
        state: state(note),
        charging_price: charging_price(&note.prices),
        idle_price: idle_price(&note.prices, note.parking_grace_s),
        next_period: note.next.map(|(at_time, prices)| NextPeriod {
            at_time,
            charging_price: charging_price(&prices),
            idle_price: idle_price(&prices, note.parking_grace_s),
        }),
    })
}

fn final_cost(note: &CostNote) -> Result<FinalCost, Refusal> {
    let price_text = format!("{} kWh in {} min: {} {}", kwh(note), minutes(note), note.currency, note.amount);
    Ok(FinalCost { transaction_id: number_of(note)?, cost: OcpiNumber::rounded(note.amount), price_text })
}

fn charging_price(prices: &Prices) -> ChargingPrice {
    let price = |price: Option<rust_decimal::Decimal>| OcpiNumber::rounded(price.unwrap_or_default());
    ChargingPrice {
        kwh_price: price(prices.energy_per_kwh),
        hour_price: price(prices.time_per_h),
        flat_fee: price(prices.start_fee),
    }
}

fn idle_price(prices: &Prices, grace_s: u32) -> Option<IdlePrice> {
    let hour_price = OcpiNumber::rounded(prices.parking_per_h?);
    Some(IdlePrice { grace_minutes: grace_s / 60, hour_price })
}

const fn state(note: &CostNote) -> &'static str {
    if note.charging { "Charging" } else { "Idle" }
}

fn kwh(note: &CostNote) -> String {
    let wh = note.energy.at_least_zero().wh();
    format!("{}.{:03}", wh / 1_000, wh % 1_000)
}

const fn minutes(note: &CostNote) -> i64 {
    note.lasts_ms / 60_000
}

/// A maker's own text.
fn filled(template: &str, note: &CostNote) -> String {
    let values = [
        ("{cost}", note.amount.to_string()),
        ("{currency}", note.currency.clone()),
        ("{transaction}", note.transaction.to_string()),
        ("{energy_kwh}", kwh(note)),
        ("{minutes}", minutes(note).to_string()),
        ("{state}", state(note).to_owned()),
    ];
    values.into_iter().fold(template.to_owned(), |text, (name, value)| text.replace(name, &value))
}

fn number_of(note: &CostNote) -> Result<i32, Refusal> {
    let id = &note.transaction;
    id.as_str()
        .parse()
        .map_err(|_| property(format!("{id} is no transaction of OCPP 1.6: their ids are whole numbers")))
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;
    use serde_json::{Value, json};

    use super::*;
    use crate::engine::model::display::{CostTransfer, PLACEHOLDERS};
    use crate::engine::model::ids::TransactionId;
    use crate::engine::units::Energy;

    fn note(is_final: bool, data: Option<&str>) -> CostNote {
        let price = |cents| Some(Decimal::new(cents, 2));
        CostNote {
            transaction: TransactionId::new("98765"),
            amount: Decimal::new(123, 2),
            currency: "EUR".to_owned(),
            at: Utc::from_unix_ms(1_772_366_400_000),
            register: Energy::from_wh(1_234_000),
            energy: Energy::from_wh(2_050),
            lasts_ms: 3_661_000,
            charging: true,
            prices: Prices { energy_per_kwh: price(49), parking_per_h: price(100), ..Prices::default() },
            parking_grace_s: 1_800,
            next: Some((
                Utc::from_unix_ms(1_772_370_000_000),
                Prices { energy_per_kwh: price(29), ..Prices::default() },
            )),
            is_final,
            transfer: Some(CostTransfer {
                vendor: "org.openchargealliance.costmsg".to_owned(),
                running: "RunningCost".to_owned(),
                last: "FinalCost".to_owned(),
                data: data.map(str::to_owned),
            }),
        }
    }

    fn sent(note: &CostNote) -> (Value, String) {
        let outgoing = transfer(note).expect("it can be written");
        assert_eq!((outgoing.action.as_str(), outgoing.verdict), ("DataTransfer", Verdict::Status));
        let payload: Value = serde_json::from_str(&outgoing.payload).expect("JSON");
        let data = payload["data"].as_str().expect("a text").to_owned();
        (payload, data)
    }

    #[test]
    fn it_is_written_as_the_open_charge_alliance_has_it() {
        let (payload, data) = sent(&note(false, None));
        assert_eq!(
            (&payload["vendorId"], &payload["messageId"]),
            (&json!("org.openchargealliance.costmsg"), &json!("RunningCost"))
        );
        let data: Value = serde_json::from_str(&data).expect("JSON in a text");
        assert_eq!((data["transactionId"].as_i64(), data["meterValue"].as_i64()), (Some(98_765), Some(1_234_000)));
        assert_eq!((data["cost"].to_string().as_str(), &data["state"]), ("1.23", &json!("Charging")));
        assert_eq!(data["timestamp"], "2026-03-01T12:00:00.000Z");
        let texts = |value: &Value, keys: [&str; 2]| keys.map(|key| value[key].to_string());
        assert_eq!(texts(&data["chargingPrice"], ["kWhPrice", "hourPrice"]), ["0.49", "0"]);
        assert_eq!(texts(&data["idlePrice"], ["graceMinutes", "hourPrice"]), ["30", "1"]);
        assert_eq!(data["nextPeriod"]["chargingPrice"]["kWhPrice"].to_string(), "0.29");
        assert_eq!(
            (data["nextPeriod"].get("idlePrice"), &data["nextPeriod"]["atTime"]),
            (None, &json!("2026-03-01T13:00:00.000Z"))
        );

        let (payload, data) = sent(&note(true, None));
        assert_eq!(payload["messageId"], "FinalCost");
        let data: Value = serde_json::from_str(&data).expect("JSON in a text");
        assert_eq!(data["priceText"], "2.050 kWh in 61 min: EUR 1.23");
    }

    #[test]
    fn a_makers_own_text_is_filled_in() {
        let all = PLACEHOLDERS.join(" ");
        let (_, data) = sent(&note(false, Some(&all)));
        assert_eq!(data, "1.23 EUR 98765 2.050 61 Charging");
        let parked = CostNote { charging: false, ..note(true, Some("{state}")) };
        assert_eq!(sent(&parked).1, "Idle");
    }

    #[test]
    fn what_1_6_cannot_say_is_refused() {
        let named = CostNote { transaction: TransactionId::new("a-b"), ..note(false, None) };
        assert!(transfer(&named).is_err_and(|refusal| refusal.text.contains("whole numbers")));
        let nobody = CostNote { transfer: None, ..note(false, None) };
        assert!(transfer(&nobody).is_err_and(|refusal| refusal.code == ErrorCode::NotSupported));
    }
}
