//! `siteward commission`: a guided test of a charger, and the check of its report.

use std::io::{self, BufRead as _, Write};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use serde::Deserialize;

use super::client::{Client, Patience, segment};
use super::{CommissionArgs, Failure, plain};
use crate::engine::model::commission::{CommissionReport, StepOutcome, Verdict};
use crate::shell::reports;

/// How often the controller is asked how far it is.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// After its end, so long until the report must be on the disk.
const WRITE_TRIES: u32 = 10;

const EXPLANATION: &str = "The charger will be limited to 10 A, to its minimum, and then left without any message for about two and a half minutes,
until it falls back by itself. While it is silent it counts at its maximum, so that others may have to be cut.
Let a car charge there that takes at least 10 A, or currents cannot be measured.";

#[derive(Deserialize)]
struct Progress {
    report: CommissionReport,
    file: Option<PathBuf>,
}

pub(super) fn commission(args: &CommissionArgs, out: &mut dyn Write) -> Result<u8, Failure> {
    if let Some(file) = &args.verify {
        return verify(file, out);
    }
    let charger = args.charger.as_deref().unwrap_or_default();
    if !args.yes && !agreed(charger, out)? {
        return Ok(1);
    }
    let client = Client::find(&args.daemon)?;
    let path = format!("/api/v1/chargers/{}/commission", segment(charger));
    let answer = client.post(&path, "{}")?;
    match answer.status {
        200 | 204 => {}
        404 => return Err(Failure::new(Failure::UNKNOWN, answer.problem())),
        503 => return Err(Failure::new(Failure::NO_DAEMON, answer.problem())),
        _ => return Err(Failure::new(Failure::REFUSED, answer.problem())),
    }
    let done = follow(&client, &path, out)?;
    finish(&done, out)
}

/// Prints each step as it comes, until the test is over.
fn follow(client: &Client, path: &str, out: &mut dyn Write) -> Result<Progress, Failure> {
    let (mut told, mut doing, mut patience, mut unwritten) = (0, None, Patience::default(), 0);
    loop {
        if let Some(progress) = patience.judge(client.get::<Progress>(path), true)? {
            for step in progress.report.steps.iter().skip(told) {
                let word = match step.outcome {
                    StepOutcome::Passed => "passed",
                    StepOutcome::Failed => "FAILED",
                    StepOutcome::NotMeasured => "not measured",
                };
                writeln!(out, "{word:<13} {:<24} {}", step.name, plain(&step.text))?;
            }
            told = progress.report.steps.len();
            if progress.report.doing != doing {
                doing.clone_from(&progress.report.doing);
                if let Some(doing) = &doing {
                    writeln!(out, "… {doing}")?;
                }
            }
            out.flush()?;
            if progress.report.verdict.is_some() {
                unwritten += 1;
                if progress.file.is_some() || unwritten >= WRITE_TRIES {
                    return Ok(progress);
                }
            }
        }
        sleep(ASK_EVERY);
    }
}

fn finish(done: &Progress, out: &mut dyn Write) -> Result<u8, Failure> {
    writeln!(out, "\n{}", plain(done.report.text().trim_end().lines().last().unwrap_or_default()))?;
    match &done.file {
        Some(file) => writeln!(out, "Report: {} (and .txt beside it)", file.display())?,
        None => writeln!(out, "The report could not be written; the log of siteward says why.")?,
    }
    // Readable only for the daemon's user and group: then the key is in the file and in the log.
    if let Some(Ok(verified)) = done.file.as_ref().map(|file| reports::verify(file)) {
        writeln!(out, "Signed by: {}", verified.public_key)?;
    }
    Ok(exit_status(done.report.verdict))
}

const fn exit_status(verdict: Option<Verdict>) -> u8 {
    match verdict {
        Some(Verdict::Passed) => 0,
        Some(Verdict::Failed | Verdict::Incomplete) | None => 1,
    }
}

fn verify(file: &std::path::Path, out: &mut dyn Write) -> Result<u8, Failure> {
    let verified = reports::verify(file).map_err(|error| Failure::new(1, error))?;
    for line in verified.report.text().lines() {
        writeln!(out, "{}", plain(line))?;
    }
    writeln!(out, "\nThe signature is right. It was made by the key {}", verified.public_key)?;
    Ok(0)
}

fn agreed(charger: &str, out: &mut dyn Write) -> Result<bool, Failure> {
    writeln!(out, "{EXPLANATION}\n")?;
    write!(out, "Test {} now? [y/N] ", plain(charger))?;
    out.flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}
