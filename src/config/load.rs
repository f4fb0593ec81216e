//! From a file to a [`Config`], or to everything that is wrong with it.

use std::path::Path;

use toml::de::DeTable;

use super::files::{Places, read_text};
use super::outside::Wired;
use super::problem::{Document, Position, Problem, Problems, Severity};
use super::reader::Section;
use super::schema::Config;
use super::{authorization, billing, outside, sections, tariffs, wiring};
use crate::engine::model::topology::Topology;

/// A configuration that can be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What somebody should look at, in the order of the file. None of it is an error.
    pub warnings: Vec<Problem>,
}

impl Loaded {
    /// Why the daemon must not start with it: a circuit could be overloaded when all chargers have lost the controller, and
    /// `site.allow_unsafe_fallback` does not say that this is accepted. `None`: it may start.
    #[must_use]
    pub fn refuse_unsafe(&self) -> Option<String> {
        if self.config.site.allow_unsafe_fallback {
            return None;
        }
        let summary = self.config.failsafe().summary()?;
        Some(format!(
            "{}: {summary}; change it, or accept the risk with `allow_unsafe_fallback = true` in [site]",
            self.config.path.display()
        ))
    }
}

/// Reads the configuration at `path` and all files that it names. Opens no connection and changes nothing.
///
/// # Errors
/// All problems at once, if one of them is an error. Only where the file is not TOML are its contents not judged.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    load_from(path, &Places::of(path))
}

/// [`load`] with other places for the files that the configuration names.
///
/// # Errors
/// As [`load`].
pub fn load_from(path: &Path, places: &Places) -> Result<Loaded, Problems> {
    match read_text(path) {
        Ok(text) => load_text(path, &text, places),
        Err(reason) => Err(Problems(vec![Problem {
            file: path.to_owned(),
            position: Position { line: 1, column: 1 },
            severity: Severity::Error,
            message: format!("cannot be read: {reason}; name the configuration with --config FILE"),
        }])),
    }
}

/// Judges `text` as the content of the file at `path`.
///
/// # Errors
/// As [`load`].
pub fn load_text(path: &Path, text: &str, places: &Places) -> Result<Loaded, Problems> {
    // Windows editors put a byte order mark in front, which is not part of the text.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let document = Document::new(path, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        document.error(error.span().map_or(0, |span| span.start), format!("not TOML: {}", error.message()));
    }
    if !errors.is_empty() {
        // What can be recovered misses keys that are there, and would be called missing.
        return Err(Problems(document.into_problems()));
    }
    let root = Section::root(&document, table.get_ref());
    let (site, id, voltage) = sections::site(&root);
    let (ocpp, ocpp_at) = sections::ocpp(&root);
    let api = sections::api(&root, (&ocpp, ocpp_at));
    let store = sections::store(&root, places);
    let cloud = sections::cloud(&root, places);
    let authorization = authorization::authorization(&root, places);
    let tariffs = tariffs::tariffs(&root);
    let mut billing = billing::billing(&root, &site, &id);
    let charging = sections::charging(&root);
    let parts = wiring::read(&root, places, voltage);
    let wired = Wired { circuits: &parts.circuits, stations: &parts.stations, floors: &parts.floors, voltage };
    let (outside, dimming_device) =
        outside::read(&root, (site.random_start_max_ms, site.boost_ends_random_start), wired);
    billing.chargers.clone_from(&parts.billing);
    let chargers = parts.stations.iter().map(|station| (station.id.clone(), station.evse_count));
    billing::check(&root, &billing, &tariffs, chargers);
    root.finish();

    let mut problems = document.into_problems();
    problems.extend(authorization.problems);
    problems.extend(parts.problems);
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        return Err(Problems(problems));
    }
    let devices = (parts.meters, parts.inverters);
    let topology = Topology::new(id, voltage, parts.circuits, parts.stations, devices).map_err(|error| {
        // The checks above cover all that the engine refuses; if one is missing, its own words are better than a panic.
        let position = Position { line: 1, column: 1 };
        let message = error.to_string();
        Problems(vec![Problem { file: path.to_owned(), position, severity: Severity::Error, message }])
    })?;
    let config = Config {
        path: path.to_owned(),
        site,
        ocpp,
        api,
        store,
        cloud,
        authorization: authorization.setup,
        tokens: authorization.tokens,
        groups: authorization.groups,
        charging,
        tariffs,
        billing,
        devices: parts.devices,
        dimming_device,
        outside,
        topology,
    };
    Ok(Loaded { config, warnings: problems })
}
