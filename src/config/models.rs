//! Station models: what a make of charger can and cannot do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::files::{Places, is_plain_name};
use super::problem::{Document, Problem, Severity};
use super::reader::{At, Section, nearest};
use crate::engine::model::topology::{LeaseForm, LimitUnit, StationModel};
use crate::engine::units::Current;

/// The models that are built in, by name.
const BUILT_IN: [(&str, &str); 8] = [
    ("abb-terra-ac", include_str!("../../configs/chargers/abb-terra-ac.toml")),
    ("alfen-eve", include_str!("../../configs/chargers/alfen-eve.toml")),
    ("delta-gen4", include_str!("../../configs/chargers/delta-gen4.toml")),
    ("easee", include_str!("../../configs/chargers/easee.toml")),
    ("generic", include_str!("../../configs/chargers/generic.toml")),
    ("mennekes-acu", include_str!("../../configs/chargers/mennekes-acu.toml")),
    ("no-lease", include_str!("../../configs/chargers/no-lease.toml")),
    ("wallbox", include_str!("../../configs/chargers/wallbox.toml")),
];

/// A model and what its file says that people should know.
#[derive(Clone, Debug)]
struct Known {
    model: StationModel,
    warning: Option<String>,
}

/// Finds models by name and reads each file once.
#[derive(Debug)]
pub(super) struct Models<'p> {
    places: &'p Places,
    read: BTreeMap<String, Option<Known>>,
    problems: Vec<Problem>,
}

impl<'p> Models<'p> {
    pub(super) const fn new(places: &'p Places) -> Self {
        Self { places, read: BTreeMap::new(), problems: Vec::new() }
    }

    /// The problems in the model files themselves.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// The model of that name; a file beside `site.toml` wins over one in the system's directory, and that over the built-in one.
    pub(super) fn find(&mut self, document: &Document<'_>, name: &At<String>) -> Option<StationModel> {
        if !is_plain_name(&name.value) {
            document.error(name.at, format!("`model` is {:?}, and must be made of a-z, 0-9 and -", name.value));
            return None;
        }
        if !self.read.contains_key(&name.value) {
            // A model that is not there is reported at every charger that names it, a model file that is wrong only once.
            let (path, text) = self.text(document, name)?;
            let (known, problems) = parse(&path, &text, &name.value);
            let failed = problems.iter().any(|problem| problem.severity == Severity::Error);
            self.problems.extend(problems);
            let known = known.filter(|_| !failed);
            if let Some(warning) = known.as_ref().and_then(|known| known.warning.as_ref()) {
                document.warn(name.at, format!("model {:?}: {warning}", name.value));
            }
            self.read.insert(name.value.clone(), known);
        }
        self.read.get(&name.value)?.as_ref().map(|known| known.model.clone())
    }

    /// The file's text and the name to report its problems with.
    fn text(&self, document: &Document<'_>, name: &At<String>) -> Option<(PathBuf, String)> {
        match self.places.override_of("chargers", &name.value) {
            Some((path, Ok(text))) => Some((path, text)),
            Some((path, Err(reason))) => {
                document.error(name.at, format!("`model`: {} cannot be read: {reason}", path.display()));
                None
            }
            None => match BUILT_IN.iter().find(|(known, _)| *known == name.value) {
                Some((_, text)) => {
                    Some((Path::new("chargers").join(format!("{}.toml", name.value)), (*text).to_owned()))
                }
                None => {
                    document.error(name.at, unknown_model(&name.value));
                    None
                }
            },
        }
    }
}

fn unknown_model(name: &str) -> String {
    let names = BUILT_IN.map(|(known, _)| known);
    let remedy = nearest(name, names.into_iter())
        .map_or_else(|| format!("built in are: {}.", names.join(", ")), |near| format!("did you mean {near:?}?"));
    format!("model {name:?} is not known; {remedy} Your own goes into chargers/{name}.toml beside site.toml")
}

/// Reads a model file. What it does not say is as in the generic model.
fn parse(path: &Path, text: &str, name: &str) -> (Option<Known>, Vec<Problem>) {
    let document = Document::new(path, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        document.error(error.span().map_or(0, |span| span.start), format!("not TOML: {}", error.message()));
    }
    if !errors.is_empty() {
        return (None, document.into_problems());
    }
    let section = Section::root(&document, table.get_ref());
    let default = StationModel { name: name.to_owned(), ..StationModel::default() };
    let lease = read_lease(&section);
    let seconds =
        |key, range| section.integer(key, range).map(|found| found.value.unsigned_abs().saturating_mul(1_000));
    let lease_ms = seconds("lease_s", 30..=86_400).unwrap_or(default.lease_ms);
    let renew_ms = seconds("renew_s", 5..=43_200).unwrap_or(default.renew_ms);
    check_renewal(&section, &document, renew_ms, lease_ms);
    let stack_level = section.integer("stack_level", 0..=100).and_then(|found| u32::try_from(found.value).ok());
    let reaction_ms = section.integer("reaction_ms", 0..=60_000).map(|found| found.value.unsigned_abs());
    let step = section.thousandths("step_a", 1..=16_000).map(|found| Current::from_ma(found.value));
    let meter_interval_ms = seconds("meter_interval_s", 1..=900);
    let levels = section.rising_thousandths("levels_a", 1..=1_000_000);
    let units = [("A", LimitUnit::Amperes), ("W", LimitUnit::Watts)];
    let limit_unit = section.choice("limit_unit", &units).map(|found| found.value);
    let writes = section.integer("writes_per_day", 4..=100_000).and_then(|found| u32::try_from(found.value).ok());
    let station_max_profile = section.boolean("station_max_profile").is_some_and(|found| found.value);
    let offline_after_ms = seconds("offline_after_s", 1..=3_600);
    let warning = section.text("warning").map(|found| found.value);
    section.finish();
    let model = StationModel {
        lease: lease.unwrap_or(default.lease),
        lease_ms,
        renew_ms,
        stack_level: stack_level.unwrap_or(default.stack_level),
        reaction_ms: reaction_ms.unwrap_or(default.reaction_ms),
        step: step.unwrap_or(default.step),
        meter_interval_ms: meter_interval_ms.unwrap_or(default.meter_interval_ms),
        levels: levels.map_or_else(Vec::new, |found| found.value.into_iter().map(Current::from_ma).collect()),
        limit_unit: limit_unit.unwrap_or(default.limit_unit),
        writes_per_day: writes,
        station_max_profile,
        offline_after_ms: offline_after_ms.unwrap_or(default.offline_after_ms),
        name: default.name,
    };
    (Some(Known { model, warning }), document.into_problems())
}

/// The form of the lease.
fn read_lease(section: &Section<'_>) -> Option<LeaseForm> {
    let words = [
        ("tx-default-profile", LeaseForm::TxDefaultProfile),
        ("two-levels", LeaseForm::TwoLevels),
        ("tx-profile", LeaseForm::TxProfile),
        ("max-offline-duration", LeaseForm::MaxOfflineDuration),
        ("auto", LeaseForm::Auto),
        ("none", LeaseForm::None),
    ];
    section.choice("lease", &words).map(|found| found.value)
}

/// A lease outlives a lost renewal.
fn check_renewal(section: &Section<'_>, document: &Document<'_>, renew_ms: u64, lease_ms: u64) {
    if renew_ms.saturating_mul(2) > lease_ms {
        // Otherwise one lost message is enough to let a charging car fall back.
        let message = format!(
            "`renew_s` is {} and `lease_s` is {}: a lease must last at least twice as long as its renewal takes",
            renew_ms / 1_000,
            lease_ms / 1_000
        );
        document.error(section.integer("renew_s", 5..=43_200).map_or(0, |found| found.at), message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_model_is_right_and_every_file_is_built_in() {
        for (name, text) in BUILT_IN {
            let (known, problems) = parse(Path::new(name), text, name);
            assert_eq!(problems, [], "{name}");
            assert_eq!(known.unwrap().model.name, name);
        }
        let mut files: Vec<String> = std::fs::read_dir("configs/chargers")
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        files.sort();
        assert_eq!(files, BUILT_IN.map(|(name, _)| name));
    }

    #[test]
    fn the_generic_file_says_the_defaults() {
        let text = BUILT_IN.iter().find(|(name, _)| *name == "generic").unwrap().1;
        assert_eq!(parse(Path::new("generic"), text, "generic").0.unwrap().model, StationModel::default());
    }

    #[test]
    fn a_lease_outlives_two_renewals() {
        let (_, problems) = parse(Path::new("m.toml"), "lease_s = 60\nrenew_s = 45\n", "m");
        assert_eq!(
            problems[0].to_string(),
            "m.toml:2:11: `renew_s` is 45 and `lease_s` is 60: a lease must last at least twice as long as its renewal takes"
        );
    }

    #[test]
    fn a_model_says_what_a_station_can_do() {
        let text = "lease = \"two-levels\"\nlevels_a = [6, 8, 10.5]\nlimit_unit = \"W\"\nwrites_per_day = 25\nstation_max_profile = true\n";
        let (known, problems) = parse(Path::new("m.toml"), text, "m");
        assert_eq!(problems, []);
        let model = known.unwrap().model;
        assert_eq!((model.lease, model.limit_unit), (LeaseForm::TwoLevels, LimitUnit::Watts));
        assert_eq!(model.levels, [6_000, 8_000, 10_500].map(Current::from_ma));
        assert_eq!((model.writes_per_day, model.station_max_profile), (Some(25), true));
        let text = "lease = \"max-offline-duration\"\noffline_after_s = 45\n";
        let (known, problems) = parse(Path::new("m.toml"), text, "m");
        assert_eq!(problems, []);
        let model = known.unwrap().model;
        assert_eq!((model.lease, model.holds_ms(120_000)), (LeaseForm::MaxOfflineDuration, 165_000));
    }

    #[test]
    fn what_a_model_cannot_mean_is_said_with_what_would_be_right() {
        for (text, expected) in [
            (
                "levels_a = [8, 6]",
                "m.toml:1:12: `levels_a` must be an array of numbers that rise, such as [6, 8, 10, 13, 16]",
            ),
            ("levels_a = 6", "m.toml:1:12: `levels_a`"),
            ("limit_unit = \"kW\"", "m.toml:1:14: `limit_unit` is \"kW\", and must be"),
            ("writes_per_day = 2", "m.toml:1:18: `writes_per_day` is 2, and must be a whole number from 4 to 100000"),
            ("lease = \"offline\"", "m.toml:1:9: `lease` is \"offline\", and must be"),
            ("offline_after_s = 0", "m.toml:1:19: `offline_after_s` is 0, and must be"),
        ] {
            let (_, problems) = parse(Path::new("m.toml"), text, "m");
            assert!(problems[0].to_string().starts_with(expected), "{text}: {}", problems[0]);
        }
    }
}
