//! Commands that the shell carries out: `configuration.get`, `configuration.put`, `charger.approve`, `log.get`.

use serde_json::{Map, Value};

use super::{name, name_of, number, only_known};
use crate::engine::model::command::Command;
use crate::engine::model::errand::{Errand, MAX_LOG_LINES};
use crate::engine::model::ids::{CircuitId, StationId};

/// Lines of the log where nobody says how many.
const USUAL_LINES: usize = 100;

pub(super) fn configuration(data: &Map<String, Value>, at: &str) -> Result<Command, String> {
    only_known(data, &[], at)?;
    Ok(Command::Errand(Errand::Configuration))
}

pub(super) fn put_configuration(data: &Map<String, Value>, at: &str) -> Result<Command, String> {
    only_known(data, &["toml"], at)?;
    match data.get("toml") {
        Some(Value::String(toml)) if !toml.trim().is_empty() => {
            Ok(Command::Errand(Errand::PutConfiguration { toml: toml.clone() }))
        }
        Some(Value::String(_)) => Err("\"toml\" is empty; it is the whole text of site.toml".to_owned()),
        Some(other) => Err(format!("\"toml\" must be the whole text of site.toml, not {}", name_of(other))),
        None => Err("\"toml\" is missing; it is the whole text of site.toml".to_owned()),
    }
}

pub(super) fn approve(data: &Map<String, Value>, at: &str) -> Result<Command, String> {
    only_known(data, &["charger", "circuit"], at)?;
    let charger = StationId::new(name(data, "charger")?);
    let circuit = data.contains_key("circuit").then(|| name(data, "circuit")).transpose()?.map(CircuitId::new);
    Ok(Command::Errand(Errand::Approve { charger, circuit, on_site: false }))
}

pub(super) fn log(data: &Map<String, Value>, at: &str) -> Result<Command, String> {
    only_known(data, &["lines"], at)?;
    let lines = match data.get("lines") {
        None => USUAL_LINES,
        Some(_) => {
            let most = u64::try_from(MAX_LOG_LINES).unwrap_or(u64::MAX);
            usize::try_from(number(data, "lines", 1, most)?).map_err(|error| error.to_string())?
        }
    };
    Ok(Command::Errand(Errand::Log { lines }))
}

#[cfg(test)]
mod tests {
    use super::super::read_command;
    use super::super::schema_tests::agrees;
    use super::*;

    fn read(kind: &str, data: &str) -> Result<Command, String> {
        let text = format!("{{\"id\":\"1\",\"type\":\"{kind}\",\"data\":{data}}}");
        let read = read_command(text.as_bytes()).map(|intake| intake.command).map_err(|rejection| rejection.error);
        agrees(text.as_bytes(), read.as_ref().err().map(String::as_str));
        read
    }

    #[test]
    fn what_the_shell_does_is_read() {
        assert_eq!(read("configuration.get", "{}"), Ok(Command::Errand(Errand::Configuration)));
        let toml = "[site]\n".to_owned();
        assert_eq!(
            read("configuration.put", r#"{"toml":"[site]\n"}"#),
            Ok(Command::Errand(Errand::PutConfiguration { toml }))
        );
        let approve = |circuit: Option<&str>| {
            let (charger, circuit) = (StationId::new("CP9"), circuit.map(CircuitId::new));
            Ok(Command::Errand(Errand::Approve { charger, circuit, on_site: false }))
        };
        assert_eq!(read("charger.approve", r#"{"charger":"CP9"}"#), approve(None));
        assert_eq!(read("charger.approve", r#"{"charger":"CP9","circuit":"grid"}"#), approve(Some("grid")));
        assert_eq!(read("log.get", "{}"), Ok(Command::Errand(Errand::Log { lines: 100 })));
        assert_eq!(read("log.get", r#"{"lines":7}"#), Ok(Command::Errand(Errand::Log { lines: 7 })));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_would_be_right() {
        for (kind, data, part) in [
            ("configuration.get", r#"{"toml":"x"}"#, "unknown key"),
            ("configuration.put", "{}", "\"toml\" is missing"),
            ("configuration.put", r#"{"toml":" "}"#, "is empty"),
            ("configuration.put", r#"{"toml":{}}"#, "not an object"),
            ("charger.approve", "{}", "\"charger\" is missing"),
            ("charger.approve", r#"{"charger":"A","circuit":null}"#, "must be a string"),
            ("charger.approve", r#"{"charger":"A","on_site":true}"#, "unknown key"),
            ("log.get", r#"{"lines":0}"#, "from 1 to 500"),
            ("log.get", r#"{"lines":501}"#, "from 1 to 500"),
        ] {
            let error = read(kind, data).expect_err(data);
            assert!(error.contains(part), "{data}: {error}");
        }
    }
}
