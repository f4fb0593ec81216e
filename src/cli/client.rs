//! The way to the running controller: its local HTTP interface.

use std::fs;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::Agent;
use ureq::http::Response;

use super::{Daemon, Failure};

/// `api.listen` where the file does not name it.
const DEFAULT_LISTEN: &str = "127.0.0.1:8080";

/// Longer than the controller waits for a charger.
const ANSWER_TIME: Duration = Duration::from_secs(100);

/// The controller is on this machine.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// More than a page of events or the status of the largest site.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// Asks the running controller.
pub(super) struct Client {
    agent: Agent,
    base: String,
}

/// An answer.
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) status: u16,
    /// The body.
    pub(super) body: String,
}

/// The part of the configuration that is needed here. The rest may be unreadable for whoever asks, or wrong by now.
#[derive(Deserialize)]
struct File {
    api: Option<Api>,
}

#[derive(Deserialize)]
struct Api {
    listen: Option<String>,
}

/// RFC 9457.
#[derive(Deserialize)]
struct Problem {
    detail: String,
}

impl Client {
    /// Finds the controller by `--api`, or else by the configuration.
    pub(super) fn find(daemon: &Daemon) -> Result<Self, Failure> {
        let base = match &daemon.api {
            Some(base) => base.clone(),
            None => from_file(&daemon.configuration.config)?,
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIME))
            .timeout_global(Some(ANSWER_TIME))
            // The controller is on this machine; a proxy of the environment is not for it.
            .proxy(None)
            .build();
        Ok(Self { agent: config.into(), base })
    }

    /// `GET`, with an answer of 200 read as `T`.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let answer = self.read(self.agent.get(self.url(path)).call())?;
        match answer.status {
            200 => serde_json::from_str(&answer.body)
                .map_err(|error| Failure::new(1, format!("{}{path} answered something else: {error}", self.base))),
            404 => Err(Failure::new(Failure::UNKNOWN, answer.problem())),
            503 => Err(Failure::new(Failure::NO_DAEMON, answer.problem())),
            _ => Err(Failure::new(1, answer.problem())),
        }
    }

    /// `POST` of JSON text.
    pub(super) fn post(&self, path: &str, body: &str) -> Result<Answer, Failure> {
        let request = self.agent.post(self.url(path)).header("content-type", "application/json");
        self.read(request.send(body))
    }

    /// `PUT` of JSON text.
    pub(super) fn put(&self, path: &str, body: &str) -> Result<Answer, Failure> {
        let request = self.agent.put(self.url(path)).header("content-type", "application/json");
        self.read(request.send(body))
    }

    /// `DELETE`.
    pub(super) fn delete(&self, path: &str) -> Result<Answer, Failure> {
        self.read(self.agent.delete(self.url(path)).call())
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn read(&self, result: Result<Response<ureq::Body>, ureq::Error>) -> Result<Answer, Failure> {
        let mut response = result.map_err(|error| self.unreachable(&error))?;
        let status = response.status().as_u16();
        let read = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_string();
        Ok(Answer { status, body: read.map_err(|error| self.unreachable(&error))? })
    }

    fn unreachable(&self, error: &ureq::Error) -> Failure {
        let remedy =
            "is it running (systemctl status siteward), and is api.listen of the configuration, or --api, its address?";
        let error = match error {
            ureq::Error::Io(error) => error.to_string(),
            other => other.to_string(),
        };
        Failure::new(Failure::NO_DAEMON, format!("no controller answers at {}: {error}; {remedy}", self.base))
    }
}

/// For commands that go on: a controller that has answered once and is away now is being restarted.
#[derive(Default)]
pub(super) struct Patience {
    answered: bool,
    told: bool,
}

impl Patience {
    /// The answer; `None` to ask again later. Whoever reads standard error is told once for each time that it is away.
    pub(super) fn judge<T>(&mut self, result: Result<T, Failure>, goes_on: bool) -> Result<Option<T>, Failure> {
        match result {
            Ok(answer) => {
                *self = Self { answered: true, told: false };
                Ok(Some(answer))
            }
            Err(Failure::Said(Failure::NO_DAEMON, message)) if goes_on && self.answered => {
                if !self.told {
                    // Nobody is left to be told if this fails.
                    let _ = writeln!(io::stderr(), "siteward: {message} Waiting for it.");
                }
                self.told = true;
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }
}

impl Answer {
    /// The sentence of a problem, or the body where it is none.
    pub(super) fn problem(&self) -> String {
        match serde_json::from_str::<Problem>(&self.body) {
            Ok(problem) => super::plain(&problem.detail),
            Err(_) => format!("HTTP {} {}", self.status, super::plain(self.body.trim())),
        }
    }
}

/// `--api`: a URL, or the address alone.
pub(super) fn base(text: &str) -> Result<String, String> {
    let text = text.trim_end_matches('/');
    match text.split_once("://") {
        None if !text.is_empty() => Ok(format!("http://{text}")),
        Some(("http", address)) if !address.is_empty() => Ok(text.to_owned()),
        Some(("https", _)) => {
            Err("the controller speaks http://, without TLS; for another machine use `ssh -L`".to_owned())
        }
        Some(_) | None => Err("write an address such as http://127.0.0.1:8080".to_owned()),
    }
}

/// One part of a path, with everything that could end it escaped.
pub(super) fn segment(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn from_file(path: &Path) -> Result<String, Failure> {
    let remedy = "name the controller's address with --api, such as --api http://127.0.0.1:8080";
    let say = |error: &dyn std::fmt::Display| {
        Failure::new(Failure::CONFIG, format!("cannot read {}: {error}; {remedy}", path.display()))
    };
    let text = fs::read_to_string(path).map_err(|error| say(&error))?;
    let file: File = toml::from_str(&text).map_err(|error| say(&error.message()))?;
    let listen = file.api.and_then(|api| api.listen).unwrap_or_else(|| DEFAULT_LISTEN.to_owned());
    let address: SocketAddr =
        listen.parse().map_err(|_| say(&format!("api.listen = {listen:?} is not ADDRESS:PORT")))?;
    Ok(format!("http://{}", reachable(address)))
}

/// What listens on all addresses is reached on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Result<String, Failure> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("site.toml");
        fs::write(&path, text).unwrap();
        from_file(&path)
    }

    #[test]
    fn the_address_comes_from_the_configuration() {
        assert_eq!(written("").unwrap(), "http://127.0.0.1:8080");
        assert_eq!(written("[api]\nlisten = \"[::1]:81\"\n[other]\nx = 1").unwrap(), "http://[::1]:81");
        assert_eq!(written("[api]\nlisten = \"0.0.0.0:82\"").unwrap(), "http://127.0.0.1:82");
    }

    #[test]
    fn a_configuration_that_does_not_help_says_what_does() {
        for text in ["[api", "[api]\nlisten = \"here\""] {
            let Err(Failure::Said(code, message)) = written(text) else { panic!("{text}") };
            assert_eq!(code, 78);
            assert!(message.contains("--api http://127.0.0.1:8080"), "{message}");
        }
    }

    #[test]
    fn nobody_there_is_exit_status_3() {
        // A port that was free a moment ago.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let configuration = super::super::Configuration { config: "/nowhere".into() };
        let client = Client::find(&Daemon { configuration, api: Some(base(&address.to_string()).unwrap()) }).unwrap();
        let Err(Failure::Said(code, message)) = client.get::<u8>("/api/v1/site") else { panic!("an answer") };
        assert_eq!(code, Failure::NO_DAEMON);
        assert!(message.contains("is it running"), "{message}");
    }

    #[test]
    fn a_controller_that_restarts_is_waited_for_and_one_that_never_answered_is_not() {
        let away = || Err::<u8, _>(Failure::new(Failure::NO_DAEMON, "away"));
        let mut patience = Patience::default();
        assert!(patience.judge(away(), true).is_err(), "the first question");
        assert_eq!(patience.judge(Ok(1), true).unwrap(), Some(1));
        assert_eq!(patience.judge(away(), true).unwrap(), None);
        assert_eq!(patience.judge(Ok(2), true).unwrap(), Some(2));
        assert!(patience.judge(away(), false).is_err(), "asked once");
        assert!(patience.judge(Err::<u8, _>(Failure::new(1, "else")), true).is_err());
    }

    #[test]
    fn a_segment_cannot_leave_its_place() {
        assert_eq!(segment("CP/../x?#ä"), "CP%2F%2E%2E%2Fx%3F%23%C3%A4");
    }
}
