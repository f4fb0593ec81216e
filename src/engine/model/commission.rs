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
    /// The station does not offer it, and the verdict does not need it.
    NotSupported,
}

impl StepOutcome {
    /// The word for people, in capitals where somebody has to act.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::NotMeasured => "NOT MEASURED",
            Self::NotSupported => "not offered",
        }
    }
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

/// How a station fell to its fallback (or rose to it, if that is higher) while it was left in silence.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fall {
    /// The limit that it had, in A per phase.
    pub from_a: f64,
    /// The current that was measured afterwards, in A on the phase that carries most.
    pub to_a: f64,
    /// The first meter value at the fallback came so many s after the last message with a limit.
    pub after_s: u64,
    /// The meter value before it.
    pub not_before_s: u64,
    /// When it should have been, by the lease, in s after that message.
    pub due_s: u64,
    /// Whether the station counted at its maximum meanwhile; otherwise by what it was told, since its maximum did not fit.
    pub counted_at_maximum: bool,
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
    /// How it fell to its fallback, if that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fall: Option<Fall>,
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
        let named = |name: &str, text: &Option<String>| text.as_ref().map(|text| format!(", {name} {text}"));
        let make = [&self.vendor, &self.model].into_iter().flatten().cloned().collect::<Vec<_>>().join(" ");
        let make = if make.is_empty() { "make not known".to_owned() } else { make };
        let clock = if self.clock_trusted { "" } else { " (the gateway's clock was not set)" };
        let mut text = format!(
            "Commissioning report\n\n  Charger    {}, connector {}: {make}{}{}, OCPP {}\n  Site       {}, controlled by siteward {}\n  Tested     {} to {} UTC{clock}\n",
            self.charger,
            self.evse,
            named("serial", &self.serial).unwrap_or_default(),
            named("firmware", &self.firmware).unwrap_or_default(),
            self.ocpp_version,
            self.site,
            self.version,
            minute(self.began),
            minute(self.ended),
        );
        text.push_str(&format!(
            "  Settings   per phase: maximum {} A, minimum {} A, fallback {} A\n             model {}, lease {}, {} s in this test\n\n",
            self.max_a, self.min_a, self.fallback_a, self.station_model, self.lease, self.lease_s,
        ));
        for step in &self.steps {
            text.push_str(&step.line());
            text.push('\n');
        }
        text.push_str(&format!("\n{}\n", self.result()));
        text
    }

    /// The verdict in a sentence, with what to do.
    #[must_use]
    pub fn result(&self) -> String {
        match self.verdict {
            Some(Verdict::Passed) => {
                let fell = self.fall.as_ref().map(|fall| {
                    format!(" Without messages it went from {} A to {} A by itself after {} s.", fall.from_a, fall.to_a, fall.after_s)
                });
                format!("PASSED: the charger keeps its limits, and falls back by itself.{}", fell.unwrap_or_default())
            }
            Some(Verdict::Failed) => {
                "FAILED: do not rely on this charger's fallback. The lines marked FAILED say what was wrong; correct it and test again.".to_owned()
            }
            Some(Verdict::Incomplete) => {
                "INCOMPLETE: nothing was wrong, but not everything could be measured. The lines marked NOT MEASURED say what to change; then test again.".to_owned()
            }
            None => "The test is not over.".to_owned(),
        }
    }
}

impl CommissionStep {
    /// The step as a line for people.
    #[must_use]
    pub fn line(&self) -> String {
        format!("  {:<13} {:<21} {}", self.outcome.word(), self.name, self.text)
    }
}

/// `2026-03-01 12:00`.
fn minute(at: Utc) -> String {
    let text = at.to_string();
    text.get(..16).unwrap_or(&text).replace('T', " ")
}
