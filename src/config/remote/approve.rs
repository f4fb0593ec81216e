//! A configuration with one more charger: what `charger.approve` makes of the one in force.

use std::collections::BTreeSet;

use toml::Value;

use crate::engine::model::ids::{CircuitId, StationId};
use crate::engine::model::topology::Topology;

/// `text`, whose topology is `topology`, with a charger of which nothing is known but its name. What is assumed errs to less for the car
/// and more for the circuit: it may draw as much as nearly any AC station, from phases that nobody knows, and nothing when it is on its own.
///
/// # Errors
/// If nobody says on which circuit and there is a choice.
pub fn with_charger(
    text: &str,
    topology: &Topology,
    charger: &StationId,
    circuit: Option<&CircuitId>,
) -> Result<String, String> {
    let circuit = circuit.or_else(|| only_circuit(topology)).ok_or_else(|| {
        let names: Vec<&str> = topology.circuits().iter().take(10).map(|circuit| circuit.id.as_str()).collect();
        format!("name a circuit: the site has several, such as {}", names.join(", "))
    })?;
    // The writer of TOML escapes what a name may bring with it.
    let (id, circuit) = (Value::from(charger.as_str()), Value::from(circuit.as_str()));
    let line_end = if text.ends_with('\n') { "" } else { "\n" };
    Ok(format!(
        "{text}{line_end}\n# Approved by charger.approve, with cautious values: correct them on site.\n[[chargers]]\nid = {id}\n\
         circuit = {circuit}\nphases = \"unknown\"\nmax_a = 32\nfallback_a = 0\n"
    ))
}

/// The only circuit, or the one on which all chargers are.
fn only_circuit(topology: &Topology) -> Option<&CircuitId> {
    let used: BTreeSet<_> = topology.stations().iter().map(|station| &topology.circuit(station.circuit).id).collect();
    match (topology.circuits(), used.len()) {
        ([only], _) => Some(&only.id),
        (_, 1) => used.into_iter().next(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Places, load_text};

    const SITE: &str = "[site]\nid = \"depot\"\ntimezone = \"Europe/Berlin\"\nvoltage_v = 230\n\n[[circuits]]\nid = \"grid\"\n\
        limit_a = 63\nunmeasured_load_a = 0\n";
    const GARAGE: &str = "[[circuits]]\nid = \"garage\"\nparent = \"grid\"\nlimit_a = 40\nunmeasured_load_a = 0\n";

    fn topology(text: &str) -> Topology {
        let path = Path::new("/nowhere/site.toml");
        load_text(path, text, &Places::of(path)).unwrap_or_else(|problems| panic!("{problems}")).config.topology
    }

    fn approved(text: &str, charger: &str, circuit: Option<&str>) -> Result<String, String> {
        with_charger(text, &topology(text), &StationId::new(charger), circuit.map(CircuitId::new).as_ref())
    }

    #[test]
    fn a_charger_is_appended_with_cautious_values() {
        for text in [SITE, SITE.trim_end()] {
            let topology = topology(&approved(text, "CP9", None).unwrap());
            let [station] = topology.stations() else { panic!("one charger") };
            assert_eq!((station.id.as_str(), station.fallback.ma(), station.max.ma()), ("CP9", 0, 32_000));
            assert_eq!(station.wiring.phases().iter().count(), 3);
        }
    }

    #[test]
    fn the_circuit_is_the_only_one_or_that_of_all_chargers_or_is_named() {
        let two = format!("{SITE}{GARAGE}");
        assert!(approved(&two, "A", None).unwrap_err().starts_with("name a circuit"));
        let first = approved(&two, "A", Some("garage")).unwrap();
        let second = approved(&first, "B", None).unwrap();
        let third = approved(&second, "C", Some("grid")).unwrap();
        let known = topology(&third);
        let circuit = |station: &crate::engine::model::topology::Station| known.circuit(station.circuit).id.to_string();
        assert_eq!(known.stations().iter().map(circuit).collect::<Vec<_>>(), ["garage", "garage", "grid"]);
        assert!(approved(&third, "D", None).is_err());
    }

    #[test]
    fn a_name_stays_a_name() {
        for name in
            ["A\"]\\", "'''", "\"\"\"", "'\"", "x\"\nmax_a = 99 #", "# [[circuits]]", "Säule \u{202e}1", "\\u0041"]
        {
            let text = approved(SITE, name, None).unwrap();
            let table: toml::Table = text.parse().unwrap();
            let [Value::Table(charger)] = table["chargers"].as_array().unwrap().as_slice() else { panic!("{text}") };
            assert_eq!((charger["id"].as_str(), charger.len()), (Some(name), 5), "{text}");
            assert_eq!(table["circuits"].as_array().unwrap().len(), 1, "{text}");
        }
    }
}
