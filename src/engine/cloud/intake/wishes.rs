//! Commands that tell what somebody wishes: `charging.boost` and `charging.target`.

use serde_json::{Map, Value};

use super::{name, number, only_known, read_time};
use crate::engine::model::command::Command;
use crate::engine::model::ids::{StationId, TransactionId};
use crate::engine::model::wish::{BoostLength, MAX_BOOST_MINUTES, MAX_ENERGY, Place};
use crate::engine::units::Energy;

pub(super) fn boost(data: &Map<String, Value>, at: &str) -> Result<Command, String> {
    only_known(data, &["charger", "connector", "transaction", "minutes", "until"], at)?;
    let length = match (data.contains_key("minutes"), read_time(data, "until")?) {
        (true, None) => BoostLength::Minutes(number(data, "minutes", 1, MAX_BOOST_MINUTES)?),
        (false, Some(until)) => BoostLength::Until(until),
        (true, Some(_)) => return Err("give \"minutes\" or \"until\", not both".to_owned()),
        (false, None) => {
            return Err(format!(
                "a boost needs an end: give \"minutes\", from 1 to {MAX_BOOST_MINUTES}, or \"until\", a time"
            ));
        }
    };
    Ok(Command::Boost { place: place(data)?, length })
}

pub(super) fn boost_clear(data: &Map<String, Value>, at: &str) -> Result<Command, String> {
    only_known(data, &["charger", "connector", "transaction"], at)?;
    Ok(Command::BoostClear { place: place(data)? })
}

pub(super) fn target(data: &Map<String, Value>, at: &str) -> Result<Command, String> {
    only_known(data, &["charger", "connector", "transaction", "energy_wh", "departure"], at)?;
    let energy = number(data, "energy_wh", 1, MAX_ENERGY.wh().unsigned_abs())?;
    let energy = Energy::from_wh(i64::try_from(energy).map_err(|error| error.to_string())?);
    let departure = read_time(data, "departure")?
        .ok_or_else(|| "\"departure\" is missing; it is a time like \"2026-03-01T07:00:00+01:00\"".to_owned())?;
    Ok(Command::Target { place: place(data)?, energy, departure })
}

pub(super) fn target_clear(data: &Map<String, Value>, at: &str) -> Result<Command, String> {
    only_known(data, &["charger", "connector", "transaction"], at)?;
    Ok(Command::TargetClear { place: place(data)? })
}

/// `transaction`, or `charger` with `connector` (1 where it is not given).
fn place(data: &Map<String, Value>) -> Result<Place, String> {
    let by_charger = data.contains_key("charger") || data.contains_key("connector");
    match (by_charger, data.contains_key("transaction")) {
        (false, true) => Ok(Place::Transaction(TransactionId::new(name(data, "transaction")?))),
        (true, false) => {
            let charger = StationId::new(name(data, "charger")?);
            let connector = match data.get("connector") {
                Some(_) => number(data, "connector", 1, u64::from(u32::MAX))?,
                None => 1,
            };
            Ok(Place::Connector { charger, connector: u32::try_from(connector).map_err(|error| error.to_string())? })
        }
        (true, true) => Err("give \"transaction\", or \"charger\" and \"connector\", not both".to_owned()),
        (false, false) => Err("\"charger\" or \"transaction\" is missing: it says where".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::read_command;
    use super::super::schema_tests::agrees;
    use super::*;
    use crate::engine::time::Utc;

    fn read(kind: &str, data: &str) -> Result<Command, String> {
        let text = format!("{{\"id\":\"1\",\"type\":\"{kind}\",\"data\":{data}}}");
        let read = read_command(text.as_bytes()).map(|intake| intake.command).map_err(|rejection| rejection.error);
        agrees(text.as_bytes(), read.as_ref().err().map(String::as_str));
        read
    }

    #[test]
    fn boosts_and_targets_are_read() {
        let there = || Place::Connector { charger: StationId::new("CP1"), connector: 2 };
        let here = || Place::Transaction(TransactionId::new("17"));
        let departure = Utc::from_unix_ms(1_772_366_400_000);
        assert_eq!(
            read("charging.boost", r#"{"charger":"CP1","connector":2,"minutes":60}"#),
            Ok(Command::Boost { place: there(), length: BoostLength::Minutes(60) })
        );
        assert_eq!(
            read("charging.boost", r#"{"transaction":"17","until":"2026-03-01T13:00:00+01:00"}"#),
            Ok(Command::Boost { place: here(), length: BoostLength::Until(departure) })
        );
        assert_eq!(
            read("charging.target", r#"{"transaction":"17","energy_wh":20000,"departure":"2026-03-01T12:00:00Z"}"#),
            Ok(Command::Target { place: here(), energy: Energy::from_wh(20_000), departure })
        );
        assert_eq!(
            read("charging.target.clear", r#"{"charger":"CP1","connector":2}"#),
            Ok(Command::TargetClear { place: there() })
        );
        assert_eq!(
            read("charging.boost.clear", r#"{"charger":"CP1"}"#),
            Ok(Command::BoostClear { place: Place::Connector { charger: StationId::new("CP1"), connector: 1 } })
        );
    }

    #[test]
    fn a_wish_that_cannot_be_meant_is_refused_with_what_would_be_right() {
        for (kind, data, part) in [
            ("charging.boost", r#"{"charger":"CP1"}"#, "needs an end"),
            ("charging.boost", r#"{"charger":"CP1","minutes":0}"#, "from 1 to 1440"),
            ("charging.boost", r#"{"charger":"CP1","minutes":1441}"#, "from 1 to 1440"),
            ("charging.boost", r#"{"charger":"CP1","minutes":5,"until":"2026-03-01T12:00:00Z"}"#, "not both"),
            ("charging.boost", r#"{"minutes":5}"#, "says where"),
            ("charging.boost", r#"{"charger":"CP1","transaction":"1","minutes":5}"#, "not both"),
            ("charging.boost", r#"{"charger":"CP1","minuts":5}"#, "did you mean \"minutes\""),
            (
                "charging.target",
                r#"{"transaction":"1","departure":"2026-03-01T12:00:00Z"}"#,
                "\"energy_wh\" is missing",
            ),
            ("charging.target", r#"{"transaction":"1","energy_wh":20000}"#, "\"departure\" is missing"),
            ("charging.target", r#"{"transaction":"1","energy_wh":20000,"departure":"07:00"}"#, "is not a time"),
            (
                "charging.target",
                r#"{"transaction":"1","energy_wh":2.5,"departure":"2026-03-01T12:00:00Z"}"#,
                "whole number",
            ),
        ] {
            let error = read(kind, data).expect_err(data);
            assert!(error.contains(part), "{data}: {error}");
        }
    }
}
