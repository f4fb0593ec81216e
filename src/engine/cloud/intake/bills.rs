//! Commands about bills: `cdr.credit`.

use serde_json::{Map, Value};

use super::{name, name_of, number, only_known, read_time};
use crate::engine::model::command::Command;
use crate::engine::units::Energy;

/// No register shows more, in Wh: a hundred years of a large station.
const MOST_WH: u64 = 1_000_000_000_000;

pub(super) fn credit(data: &Map<String, Value>, at: &str) -> Result<Command, String> {
    only_known(data, &["cdr_id", "reason", "reissue", "ended", "meter_stop_wh"], at)?;
    let reissue = match data.get("reissue") {
        None => true,
        Some(Value::Bool(reissue)) => *reissue,
        Some(other) => return Err(format!("\"reissue\" must be true or false, not {}", name_of(other))),
    };
    let ended = read_time(data, "ended")?;
    let meter_stop = match data.get("meter_stop_wh") {
        None => None,
        Some(_) => Some(i64::try_from(number(data, "meter_stop_wh", 0, MOST_WH)?).map_err(|error| error.to_string())?),
    };
    if !reissue && (ended.is_some() || meter_stop.is_some()) {
        return Err(
            "\"ended\" and \"meter_stop_wh\" say how the next CDR is made; without it leave them out".to_owned()
        );
    }
    Ok(Command::CdrCredit {
        cdr: name(data, "cdr_id")?.to_owned(),
        reason: name(data, "reason")?.to_owned(),
        reissue,
        ended,
        meter_stop: meter_stop.map(Energy::from_wh),
    })
}
