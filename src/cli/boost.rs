//! `siteward boost`: lets a connector go first for a while.

use std::io::Write;

use serde::Deserialize;

use super::client::{Answer, Client, segment};
use super::{BoostArgs, Failure, plain};

/// What the controller answers to a boost.
#[derive(Deserialize)]
struct Boosted {
    until: String,
    /// It waits after a power cut.
    #[serde(default)]
    starts_in_s: Option<u64>,
}

pub(super) fn boost(client: &Client, args: &BoostArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let path = format!("/api/v1/chargers/{}/boost", segment(&args.charger));
    let (charger, connector) = (plain(&args.charger), args.connector);
    if args.clear {
        judge(client.delete(&format!("{path}?connector={connector}"))?)?;
        return Ok(writeln!(out, "{charger} connector {connector} goes first no longer.")?);
    }
    let body = format!("{{\"connector\":{connector},\"minutes\":{}}}", args.minutes);
    let answer = judge(client.put(&path, &body)?)?;
    let Boosted { until, starts_in_s } = serde_json::from_str(&answer.body)
        .map_err(|error| Failure::new(1, format!("the controller answered something else: {error}")))?;
    writeln!(out, "{charger} connector {connector} goes first until {}.", plain(&until))?;
    if let Some(seconds) = starts_in_s {
        writeln!(
            out,
            "It starts in {seconds} s, at random after the power cut: a boost does not end that (boost_ends_random_start, or the command delay.clear)."
        )?;
    }
    Ok(())
}

fn judge(answer: Answer) -> Result<Answer, Failure> {
    match answer.status {
        200 | 204 => Ok(answer),
        404 => Err(Failure::new(Failure::UNKNOWN, answer.problem())),
        503 | 504 => Err(Failure::new(Failure::NO_DAEMON, answer.problem())),
        _ => Err(Failure::new(Failure::REFUSED, answer.problem())),
    }
}
