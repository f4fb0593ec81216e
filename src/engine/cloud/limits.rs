//! Limits from outside as JSON: in events, in the answers of the local interface, in the state.

use serde_json::{Value, json};

use crate::engine::model::limit::{LimitAmount, LimitEnd, LimitOrigin, LimitProof, LimitTarget, OnLoss, StandingLimit};
use crate::engine::units::{Current, Power};

/// The name of what a limit is on.
#[must_use]
pub fn name_of(target: &LimitTarget) -> &str {
    match target {
        LimitTarget::Circuit(id) => id.as_str(),
        LimitTarget::Charger(id) => id.as_str(),
    }
}

/// A limit that stands.
#[must_use]
pub fn standing(standing: &StandingLimit) -> Value {
    let order = &standing.order;
    let mut value = about(&order.target, &order.origin);
    extend(&mut value, amount(standing.in_force()));
    extend(&mut value, json!({ "until": order.until, "received": standing.received, "ended": null }));
    if let Some(heartbeat) = order.heartbeat {
        let on_loss = match heartbeat.on_loss {
            OnLoss::Hold => json!("hold"),
            OnLoss::Release => json!("release"),
            OnLoss::Fallback(fallback) => amount(fallback),
        };
        let heartbeat = json!({ "ttl_s": heartbeat.ttl_ms / 1_000, "on_loss": on_loss, "sender_lost": standing.lost });
        extend(&mut value, heartbeat);
    }
    value
}

/// A limit that has ended.
#[must_use]
pub fn ended(target: &LimitTarget, origin: &LimitOrigin, why: LimitEnd) -> Value {
    let mut value = about(target, origin);
    extend(&mut value, json!({ "limit_a": null, "until": null, "ended": why.name() }));
    value
}

/// What became of a limit.
#[must_use]
pub fn proven(proof: &LimitProof) -> Value {
    let mut value = about(&proof.target, &proof.origin);
    extend(&mut value, amount(proof.amount));
    extend(
        &mut value,
        json!({
            "order": proof.order, "received": proof.received, "result": proof.result.name(),
            "acknowledged_ms": proof.acknowledged_ms, "kept_ms": proof.kept_ms,
            "measured_a": proof.measured_current.map(Current::as_a), "measured_w": proof.measured_power.map(Power::w),
            "silent_chargers": proof.silent,
        }),
    );
    value
}

fn about(target: &LimitTarget, origin: &LimitOrigin) -> Value {
    let origin = origin.to_string();
    match target {
        LimitTarget::Circuit(id) => json!({ "circuit": id, "charger": null, "source": origin }),
        LimitTarget::Charger(id) => json!({ "circuit": null, "charger": id, "source": origin }),
    }
}

fn amount(amount: LimitAmount) -> Value {
    match amount {
        LimitAmount::PerPhase(current) => json!({ "limit_a": current.as_a() }),
        LimitAmount::Total(power) => json!({ "limit_w": power.w() }),
        LimitAmount::Charging(power) => json!({ "charging_w": power.w() }),
        LimitAmount::Permille(permille) => json!({ "limit_percent": f64::from(permille) / 10.0 }),
    }
}

fn extend(value: &mut Value, more: Value) {
    if let (Value::Object(value), Value::Object(more)) = (value, more) {
        value.extend(more);
    }
}
