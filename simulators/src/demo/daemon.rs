//! How the demo looks into the daemon: its REST interface and its command line, like anybody else.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use siteward::engine::model::status::{Explanation, SiteStatus};
use tokio::sync::watch;

use super::layout::{Places, STATIONS};

/// How often the daemon is asked.
const INTERVAL: Duration = Duration::from_millis(300);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks the daemon's interface. It is on this machine; a proxy of the environment is not for it.
#[must_use]
pub fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().proxy(None).timeout_global(Some(PATIENCE)).build().into()
}

/// Asks the daemon for its state again and again on a thread of its own, until nobody listens any more. `None`: no answer.
#[must_use]
pub fn watch_status(api: SocketAddr) -> watch::Receiver<Option<SiteStatus>> {
    let (sender, receiver) = watch::channel(None);
    std::thread::spawn(move || {
        let agent = agent();
        let url = format!("http://{api}/api/v1/site");
        while !sender.is_closed() {
            sender.send_replace(ask(&agent, &url));
            std::thread::sleep(INTERVAL);
        }
    });
    receiver
}

fn ask(agent: &ureq::Agent, url: &str) -> Option<SiteStatus> {
    agent.get(url).call().ok()?.body_mut().read_json().ok()
}

/// What `siteward check` says of the configuration.
///
/// # Errors
/// What it printed, if it found an error or the site is not fail-safe.
pub fn check(siteward: &Path, places: &Places) -> Result<(), String> {
    let output = Command::new(siteward)
        .arg("check")
        .arg("--config")
        .arg(places.config())
        .output()
        .map_err(|error| format!("{}: {error}", siteward.display()))?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() && !text.contains("NOT fail-safe") {
        Ok(())
    } else {
        Err(format!("siteward check ({}):\n{text}", output.status))
    }
}

/// Asks `siteward explain` for every station. One line for each that got no proper answer.
#[must_use]
pub fn explain_all(siteward: &Path, places: &Places) -> Vec<String> {
    STATIONS
        .iter()
        .filter_map(|plan| explain(siteward, places, plan.id).err().map(|error| format!("{}: {error}", plan.id)))
        .collect()
}

fn explain(siteward: &Path, places: &Places, station: &str) -> Result<(), String> {
    let output = Command::new(siteward)
        .args(["explain", station, "--json", "--config"])
        .arg(places.config())
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()));
    }
    let explanation: Explanation = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    let evse = explanation.evses.first().ok_or("it names no EVSE")?;
    if explanation.charger != station || evse.binding.is_empty() || evse.explanation.is_empty() {
        return Err(format!("it explains nothing: {explanation:?}"));
    }
    if explanation.circuits.last().is_none_or(|circuit| circuit.parent.is_some()) {
        return Err("it does not name the circuits up to the grid".to_owned());
    }
    Ok(())
}
