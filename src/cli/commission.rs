//! `siteward commission`: a guided test of a charger, and the check of its report.

use std::io::{self, BufRead as _, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use serde::Deserialize;

use super::client::{Client, Patience, segment};
use super::{CommissionArgs, Failure, plain};
use crate::engine::model::commission::{CommissionReport, Verdict};
use crate::shell::{interrupt, reports};

/// How often the controller is asked how far it is.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// After its end, so long until the report must be on the disk.
const WRITE_TRIES: u32 = 10;

const EXPLANATION: &str = "\
The charger is limited to 10 A, then to its minimum, then a little above its fallback. Then it gets no message on purpose, for
about two minutes, until it falls back by itself. Other chargers may be lowered meanwhile; no limit of the site is exceeded.
A car must charge there that takes at least 10 A, or currents cannot be measured. It takes about five minutes. Ctrl-C ends the
test at any time; the charger then gets its usual limit again.";

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
    let interrupted = interrupt::watch()?;
    let path = format!("/api/v1/chargers/{}/commission", segment(charger));
    let answer = client.post(&path, "{}")?;
    match answer.status {
        200 | 204 => {}
        404 => return Err(Failure::new(Failure::UNKNOWN, answer.problem())),
        503 => return Err(Failure::new(Failure::NO_DAEMON, answer.problem())),
        _ => return Err(Failure::new(Failure::REFUSED, answer.problem())),
    }
    let done = Test { client: &client, path: &path, interrupted: &interrupted }.follow(out)?;
    finish(&done, out)
}

/// A test that the controller carries out, and that is watched here.
struct Test<'a> {
    client: &'a Client,
    path: &'a str,
    interrupted: &'a AtomicBool,
}

impl Test<'_> {
    /// Prints each step as it comes, until the test is over.
    fn follow(&self, out: &mut dyn Write) -> Result<Progress, Failure> {
        let (mut told, mut doing, mut patience, mut unwritten, mut stopped) = (0, None, Patience::default(), 0, false);
        loop {
            if self.interrupted.load(Ordering::Relaxed) && !stopped {
                self.stop(out)?;
                stopped = true;
            }
            if let Some(progress) = patience.judge(self.client.get::<Progress>(self.path), true).map_err(restarted)? {
                for step in progress.report.steps.iter().skip(told) {
                    writeln!(out, "{}", plain(&step.line()))?;
                }
                told = progress.report.steps.len();
                if progress.report.doing != doing {
                    doing.clone_from(&progress.report.doing);
                    if let Some(doing) = &doing {
                        writeln!(out, "… {}", plain(doing))?;
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

    /// Ends the test. Whether it was over already, or gone with a restart, the next look says.
    fn stop(&self, out: &mut dyn Write) -> Result<(), Failure> {
        match self.client.delete(self.path) {
            Ok(_) => {
                let says =
                    "… stopping: the charger gets its usual limit again (Ctrl-C once more: do not wait for that)";
                Ok(writeln!(out, "{says}")?)
            }
            Err(Failure::Said(code, message)) => Err(Failure::new(
                code,
                format!("{message} A controller that starts again does not go on with the test."),
            )),
            Err(failure) => Err(failure),
        }
    }
}

/// The controller knows nothing of the test that it has begun.
fn restarted(failure: Failure) -> Failure {
    match failure {
        Failure::Said(Failure::UNKNOWN, _) => Failure::new(
            1,
            "the controller was restarted in the middle of the test, which ended it. The charger has its usual limits again; nothing was proven. Begin the test anew.",
        ),
        other => other,
    }
}

fn finish(done: &Progress, out: &mut dyn Write) -> Result<u8, Failure> {
    writeln!(out, "\n{}", plain(&done.report.result()))?;
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
