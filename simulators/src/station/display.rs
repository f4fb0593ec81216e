//! What the station shows of the cost of a transaction.

use serde_json::{Value, json};

use super::Station;
use super::calls::Refusal;

/// The vendor of the Open Charge Alliance's messages about costs ("OCPP & California Pricing Requirements", section 3.1).
pub const COST_VENDOR: &str = "org.openchargealliance.costmsg";

impl Station {
    /// A `DataTransfer` (OCPP 1.6): this side knows the cost messages of the Open Charge Alliance, if it has a display.
    pub(super) fn data_transfer(&mut self, payload: &Value) -> Value {
        let text = |name: &str| payload.get(name).and_then(Value::as_str).unwrap_or_default();
        if !self.options.shows_costs || text("vendorId") != COST_VENDOR {
            return json!({"status": "UnknownVendorId"});
        }
        let data: Value = serde_json::from_str(text("data")).unwrap_or_default();
        let transaction = data.get("transactionId").map(Value::to_string);
        let cost = data.get("cost").filter(|cost| cost.is_number()).map(Value::to_string);
        let (Some(transaction), Some(cost)) = (transaction, cost) else { return json!({"status": "Rejected"}) };
        let truth = self.transactions.iter_mut().rev().find(|truth| truth.id.as_ref() == Some(&transaction));
        let Some(truth) = truth else { return json!({"status": "Rejected"}) };
        match text("messageId") {
            "RunningCost" => {
                truth.costs_shown += 1;
                truth.shown_cost = Some(cost);
            }
            "FinalCost" => truth.final_cost = Some(cost),
            _ => return json!({"status": "UnknownMessageId"}),
        }
        json!({"status": "Accepted"})
    }

    /// `CostUpdated` (OCPP 2.x).
    pub(super) fn cost_updated(&mut self, payload: &Value) -> Result<Value, Refusal> {
        if !self.options.shows_costs {
            return Err(("NotImplemented", "there is no display".to_owned()));
        }
        let id = payload.get("transactionId").and_then(Value::as_str);
        let cost = payload.get("totalCost").filter(|cost| cost.is_number()).map(Value::to_string);
        let (Some(id), Some(cost)) = (id, cost) else {
            return Err(("OccurrenceConstraintViolation", "totalCost and transactionId are needed".to_owned()));
        };
        if let Some(truth) = self.transactions.iter_mut().rev().find(|truth| truth.id.as_deref() == Some(id)) {
            truth.costs_shown += 1;
            truth.shown_cost = Some(cost);
        }
        Ok(json!({}))
    }
}
