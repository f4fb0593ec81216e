//! `siteward ocpp`: one request to a charger.

use std::io::Write;

use serde_json::{Map, Value};

use super::client::{Answer, Client, segment};
use super::{Failure, OcppArgs};

pub(super) fn ocpp(client: &Client, args: &OcppArgs, out: &mut dyn Write) -> Result<(), Failure> {
    serde_json::from_str::<Map<String, Value>>(&args.payload).map_err(|error| {
        let message = format!("the payload is not a JSON object ({error}); an example: '{{\"type\": \"Soft\"}}'");
        Failure::new(Failure::REFUSED, message)
    })?;
    let path = format!("/api/v1/chargers/{}/ocpp/{}", segment(&args.charger), segment(&args.action));
    let payload = judge(&client.post(&path, &args.payload)?)?;
    Ok(writeln!(out, "{payload}")?)
}

/// The charger's payload, or the exit status for what became of the request.
fn judge(answer: &Answer) -> Result<String, Failure> {
    match answer.status {
        200 => Ok(answer.body.clone()),
        204 => Ok("{}".to_owned()),
        404 => Err(Failure::new(Failure::UNKNOWN, answer.problem())),
        503 => Err(Failure::new(Failure::NO_DAEMON, answer.problem())),
        504 => Err(Failure::new(Failure::TIMEOUT, answer.problem())),
        _ => Err(Failure::new(Failure::REFUSED, answer.problem())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_has_the_exit_status_of_the_contract() {
        let body = "{\"title\":\"t\",\"status\":1,\"detail\":\"why\"}".to_owned();
        let code = |status| match judge(&Answer { status, body: body.clone() }) {
            Ok(_) => 0,
            Err(Failure::Said(code, message)) => {
                assert_eq!(message, "why");
                code
            }
            Err(failure) => panic!("{failure}"),
        };
        assert_eq!([200, 204, 404, 409, 400, 502, 504, 503].map(code), [0, 0, 4, 5, 5, 5, 6, 3]);
    }
}
