//! Which module may name which, and where packages may be named. Tests may use what they need.

use crate::Finding;
use crate::source::{NamedPath, Source};

/// `from` may not name anything in `to`.
struct Layer {
    from: &'static str,
    to: &'static [&'static str],
    remedy: &'static str,
}

/// units <- time <- model <- {plan, ocpp, modbus, cloud} <- site <- controller <- shell; model <- guard <- controller; config -> engine;
/// cli -> shell, config.
const LAYERS: &[Layer] = &[
    Layer {
        from: "crate::engine",
        to: &["crate::shell", "crate::config", "crate::cli"],
        remedy: "the engine is told what it needs, as an argument or an Input",
    },
    Layer {
        from: "crate::engine::units",
        to: &["crate::engine::time", "crate::engine::model", PLAN, OCPP, MODBUS, CLOUD, SITE],
        remedy: "units stand below everything",
    },
    Layer {
        from: "crate::engine::time",
        to: &["crate::engine::model", PLAN, OCPP, MODBUS, CLOUD, SITE],
        remedy: "time stands below the model",
    },
    Layer {
        from: "crate::engine::model",
        to: &[BILLING, OUTSIDE, PLAN, OCPP, MODBUS, CLOUD, SITE],
        remedy: "the model is nouns; what is done with them stands above it",
    },
    Layer { from: BILLING, to: &[PLAN, OCPP, MODBUS, CLOUD, SITE], remedy: "a bill is arithmetic over what is known" },
    Layer {
        from: PLAN,
        to: &[OCPP, MODBUS, CLOUD, SITE, OUTSIDE],
        remedy: "the planner knows currents, not protocols",
    },
    Layer {
        from: OUTSIDE,
        to: &[PLAN, OCPP, MODBUS, CLOUD, SITE],
        remedy: "limits from outside are arithmetic on the model; the site keeps and records them",
    },
    Layer { from: OCPP, to: &[PLAN, MODBUS, CLOUD, SITE], remedy: "translate to the model; the site joins the parts" },
    Layer { from: MODBUS, to: &[PLAN, OCPP, CLOUD, SITE], remedy: "translate to the model; the site joins the parts" },
    Layer { from: CLOUD, to: &[PLAN, OCPP, MODBUS, SITE], remedy: "translate to the model; the site joins the parts" },
    Layer {
        from: GUARD,
        to: &[PLAN, OCPP, MODBUS, CLOUD, SITE, CONTROLLER, "crate::engine::outside"],
        remedy: "the guard reads the wire itself: what it shares with the code that it watches it cannot find wrong",
    },
    Layer { from: SITE, to: &[GUARD, CONTROLLER], remedy: "the controller stands above the site and its guard" },
    Layer {
        from: "crate::config",
        to: &["crate::shell", "crate::cli"],
        remedy: "the configuration is read, it does nothing",
    },
    Layer {
        from: "simulators",
        to: &["siteward::shell", "siteward::cli"],
        remedy: "simulate around the engine, or run the binary; only net/, demo/ and commands/ touch the real thing",
    },
];

const PLAN: &str = "crate::engine::plan";
const OCPP: &str = "crate::engine::ocpp";
const MODBUS: &str = "crate::engine::modbus";
const CLOUD: &str = "crate::engine::cloud";
const BILLING: &str = "crate::engine::billing";
const SITE: &str = "crate::engine::site";
const OUTSIDE: &str = "crate::engine::outside";
const GUARD: &str = "crate::engine::guard";
const CONTROLLER: &str = "crate::engine::controller";

/// Below the arrows although it stands in the site's folder: nouns only, what goes into the site and what comes out of it.
const SITE_NOUNS: &str = "crate::engine::site::io";

/// The simulators' parts that run on real sockets.
const SIMULATORS_OUTSIDE: &[&str] = &["simulators::net", "simulators::demo", "simulators::rig", "simulators::commands"];

/// `package` may be named in modules that begin with one of `places` (the last part may go on: `bus` is also `bus_tcp`).
struct Package {
    package: &'static str,
    places: &'static [&'static str],
}

const PACKAGES: &[Package] = &[
    Package { package: "rust_ocpp", places: &["crate::engine::ocpp::"] },
    Package {
        package: "tokio_modbus",
        places: &[
            "crate::shell::bus",
            "simulators::net",
            "simulators::demo",
            "simulators::rig",
            "simulators::commands",
        ],
    },
    Package {
        package: "tokio_serial",
        places: &[
            "crate::shell::bus",
            "simulators::net",
            "simulators::demo",
            "simulators::rig",
            "simulators::commands",
        ],
    },
    Package {
        package: "tokio_tungstenite",
        places: &[
            "crate::shell::station",
            "simulators::net",
            "simulators::demo",
            "simulators::rig",
            "simulators::commands",
        ],
    },
    Package {
        package: "rumqttc",
        places: &[
            "crate::shell::mqtt",
            "simulators::net",
            "simulators::demo",
            "simulators::rig",
            "simulators::commands",
        ],
    },
    Package {
        package: "rumqttd",
        places: &["simulators::net", "simulators::demo", "simulators::rig", "simulators::commands"],
    },
    Package { package: "rusqlite", places: &["simulators::net::fleet::sqlite"] },
    Package { package: "postgres", places: &["simulators::net::fleet::postgres"] },
    Package { package: "sled", places: &["crate::shell::journal"] },
    Package { package: "systemd", places: &["crate::shell::systemd"] },
    Package { package: "axum", places: &["crate::shell::http"] },
    Package {
        package: "tokio",
        places: &["crate::shell", "simulators::net", "simulators::demo", "simulators::rig", "simulators::commands"],
    },
    Package {
        package: "ureq",
        places: &["crate::cli", "simulators::net", "simulators::demo", "simulators::rig", "simulators::commands"],
    },
    Package { package: "clap", places: &["crate::cli", "simulators"] },
    Package { package: "ratatui", places: &["simulators::demo", "simulators::rig", "simulators::commands"] },
    Package { package: "crossterm", places: &["simulators::demo", "simulators::rig", "simulators::commands"] },
    // A dev-dependency: the types of the messages name it under `cfg_attr(test, ..)` only, since the published schemas are made from them.
    Package {
        package: "schemars",
        places: &["crate::engine::cloud", "crate::engine::model", "crate::engine::time", "crate::engine::units"],
    },
];

/// What the engine may not use although it needs no package.
const IMPURE: &[(&str, &str)] = &[
    ("std::net", "sockets belong to the shell"),
    ("std::fs", "files belong to the shell"),
    ("std::thread", "the engine has one owner and no threads"),
    ("std::process", "the engine answers, it does nothing"),
    ("std::env", "settings come in as an argument"),
    ("std::collections::HashMap", "its order is random; use BTreeMap"),
    ("std::collections::HashSet", "its order is random; use BTreeSet"),
    ("std::time::Instant", "time is an argument"),
    ("std::time::SystemTime", "time is an argument"),
];

/// Paths that go against the arrows.
pub(crate) fn check_layers(source: &Source) -> Vec<Finding> {
    let module = source.module.join("::");
    let is_outside = SIMULATORS_OUTSIDE.iter().any(|outside| is_within(&module, outside));
    let layers: Vec<&Layer> = LAYERS.iter().filter(|layer| is_within(&module, layer.from) && !is_outside).collect();
    let mut findings = Vec::new();
    for NamedPath { parts, line } in source.production_paths() {
        let path = parts.join("::");
        for layer in &layers {
            if let Some(to) = layer.to.iter().find(|to| is_within(&path, to) && !is_within(&path, SITE_NOUNS)) {
                let rule = format!("`{}` may not name `{to}`", layer.from);
                findings.push(Finding::new(&source.path, line, rule, layer.remedy));
            }
        }
        let impure = IMPURE.iter().find(|(what, _)| is_within(&module, "crate::engine") && is_within(&path, what));
        if let Some((what, remedy)) = impure {
            findings.push(Finding::new(&source.path, line, format!("the engine may not name `{what}`"), *remedy));
        }
    }
    findings
}

/// Packages that are named outside of their place.
pub(crate) fn check_packages(source: &Source) -> Vec<Finding> {
    let module = format!("{}::", source.module.join("::"));
    let is_entry = matches!(source.path.as_str(), "src/main.rs" | "simulators/src/main.rs");
    if source.module.is_empty() || is_entry {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for NamedPath { parts, line } in source.production_paths() {
        let package = PACKAGES.iter().find(|package| parts[0] == package.package);
        let Some(Package { package, places }) = package else { continue };
        if !places.iter().any(|place| module.starts_with(place)) {
            let rule = format!("`{package}` outside of its place");
            findings.push(Finding::new(&source.path, line, rule, format!("only {} may name it", places.join(", "))));
        }
    }
    findings
}

/// `path` is `place` or something in it.
fn is_within(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(path: &str, text: &str) -> Vec<String> {
        check_layers(&Source::new(path, text)).into_iter().map(|finding| finding.rule).collect()
    }

    fn packages(path: &str, text: &str) -> usize {
        check_packages(&Source::new(path, text)).len()
    }

    #[test]
    fn arrows_that_point_up_are_found() {
        assert_eq!(
            layers("src/engine/plan/mod.rs", "use super::{units::Current, site};"),
            ["`crate::engine::plan` may not name `crate::engine::site`"]
        );
        assert_eq!(
            layers("src/engine/site/mod.rs", "fn a() { crate::shell::clock::Clock::start(); }"),
            ["`crate::engine` may not name `crate::shell`"]
        );
        assert_eq!(layers("src/engine/ocpp/v16.rs", "use crate::engine::{modbus::map, cloud};").len(), 2);
        assert_eq!(layers("src/engine/cloud/mod.rs", "use std::collections::HashMap;").len(), 1);
        assert_eq!(layers("src/engine/guard/wire.rs", "use crate::engine::ocpp::Session;").len(), 1);
        assert_eq!(layers("src/engine/site/mod.rs", "use crate::engine::guard::Guard;").len(), 1);
        assert_eq!(layers("simulators/src/world.rs", "use siteward::shell::run;").len(), 1);
    }

    #[test]
    fn arrows_that_point_down_are_fine() {
        assert!(layers("src/engine/site/mod.rs", "use crate::engine::{plan, ocpp, modbus, cloud, units};").is_empty());
        assert!(layers("src/engine/cloud/mod.rs", "use crate::engine::site::io::Publication;").is_empty());
        assert!(layers("src/shell/run.rs", "use crate::{config, engine::site};").is_empty());
        assert!(layers("src/config/lower.rs", "use crate::engine::model;").is_empty());
        assert!(layers("simulators/src/demo/view.rs", "use siteward::shell::run;").is_empty());
        assert!(layers("src/engine/plan/planner.rs", "use crate::engine::units;").is_empty());
    }

    #[test]
    fn packages_outside_of_their_place_are_found() {
        assert_eq!(packages("src/engine/site/mod.rs", "use rust_ocpp::v1_6;"), 1);
        assert_eq!(packages("src/engine/ocpp/v16/mod.rs", "use rust_ocpp::v1_6;"), 0);
        assert_eq!(packages("src/engine/ocpp/mod.rs", "fn f() { tokio::spawn(x); }"), 1);
        assert_eq!(packages("src/shell/bus/tcp.rs", "use tokio_modbus::client; use tokio::time;"), 0);
        assert_eq!(packages("src/shell/run.rs", "use sled::Db;"), 1);
        assert_eq!(packages("src/engine/modbus/mod.rs", "#[cfg(test)]\nmod tests { use tokio::io; }"), 0);
        assert_eq!(packages("simulators/tests/e2e.rs", "use rumqttc::v5;"), 0);
    }
}
