//! The report of a commissioning test: what a station was told, what it said, what was measured.

use serde::{Deserialize, Serialize};

use crate::engine::time::Utc;

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepOutcome {
    /// It was seen to be right.
    Passed,
    /// It was seen to be wrong.
    Failed,
    /// It could not be seen; the text says why.
    NotMeasured,
}

/// How the whole test went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every step has passed.
    Passed,
    /// A step has failed.
    Failed,
    /// Nothing has failed, and something was not measured.
    Incomplete,
}

/// One step of the test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommissionStep {
    /// Its name.
    pub name: String,
    /// How it went.
    pub outcome: StepOutcome,
    /// What was seen, in a sentence.
    pub text: String,
    /// When it ended.
    pub at: Utc,
    /// How long it took, in s.
    pub took_s: u64,
    /// The limit that was to hold, in A per phase.
    pub limit_a: Option<f64>,
    /// The current that was measured last, in A on the phase that carries most.
    pub measured_a: Option<f64>,
}

/// The test of one EVSE of a station.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CommissionReport {
    /// `siteward-commissioning/1`.
    pub format: String,
    /// The site's id.
    pub site: String,
    /// The daemon's version.
    pub version: String,
    /// The station's OCPP identity.
    pub charger: String,
    /// The EVSE that was tested.
    pub evse: u32,
    /// The maker, as the station says.
    pub vendor: Option<String>,
    /// The model, as the station says.
    pub model: Option<String>,
    /// The serial number, as the station says.
    pub serial: Option<String>,
    /// The firmware, as the station says.
    pub firmware: Option<String>,
    /// The OCPP version spoken.
    pub ocpp_version: String,
    /// The station model of the configuration.
    pub station_model: String,
    /// The form of the lease that was tested.
    pub lease: String,
    /// How long a lease lasted in the test, in s.
    pub lease_s: u64,
    /// The configured fallback in A per phase.
    pub fallback_a: f64,
    /// The configured minimum in A per phase.
    pub min_a: f64,
    /// The configured maximum in A per phase.
    pub max_a: f64,
    /// When the test began.
    pub began: Utc,
    /// When it ended; the same as `began` while it runs.
    pub ended: Utc,
    /// Whether the clock behind these times was set.
    pub clock_trusted: bool,
    /// What is being done, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doing: Option<String>,
    /// How it went, once it has ended.
    pub verdict: Option<Verdict>,
    /// The steps so far.
    pub steps: Vec<CommissionStep>,
}

impl CommissionReport {
    /// What the steps say together.
    #[must_use]
    pub fn judge(&self) -> Verdict {
        let any = |outcome| self.steps.iter().any(|step| step.outcome == outcome);
        match (any(StepOutcome::Failed), any(StepOutcome::NotMeasured) || self.steps.is_empty()) {
            (true, _) => Verdict::Failed,
            (false, true) => Verdict::Incomplete,
            (false, false) => Verdict::Passed,
        }
    }

    /// The report for people, line by line.
    #[must_use]
    pub fn text(&self) -> String {
        let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "not known".to_owned());
        let mut text = format!(
            "Commissioning of {} connector {} at site {}\n\n  station    {} {}, serial {}, firmware {}, OCPP {}\n  settings   model {}, lease {} for {} s, fallback {} A, minimum {} A, maximum {} A\n  siteward   {}\n  time       {} to {}{}\n\n",
            self.charger,
            self.evse,
            self.site,
            known(&self.vendor),
            known(&self.model),
            known(&self.serial),
            known(&self.firmware),
            self.ocpp_version,
            self.station_model,
            self.lease,
            self.lease_s,
            self.fallback_a,
            self.min_a,
            self.max_a,
            self.version,
            self.began,
            self.ended,
            if self.clock_trusted { "" } else { " (the gateway's clock was not set)" },
        );
        for step in &self.steps {
            let word = match step.outcome {
                StepOutcome::Passed => "passed",
                StepOutcome::Failed => "FAILED",
                StepOutcome::NotMeasured => "not measured",
            };
            text.push_str(&format!("  {word:<13} {:<24} {}\n", step.name, step.text));
        }
        let verdict = match self.verdict {
            Some(Verdict::Passed) => "PASSED: the station keeps its limits, and falls to its fallback by itself.",
            Some(Verdict::Failed) => "FAILED: do not rely on this station's fallback; see the steps above.",
            Some(Verdict::Incomplete) => {
                "INCOMPLETE: not everything could be measured; see the steps above, and repeat the test."
            }
            None => "the test is not over",
        };
        text.push_str(&format!("\n{verdict}\n"));
        text
    }
}
