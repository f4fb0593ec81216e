//! The sections that stand once: `[site]`, `[ocpp]`, `[api]`, `[store]`, `[cloud]`.

use std::net::SocketAddr;
use std::path::PathBuf;

use chrono_tz::{TZ_VARIANTS, Tz};

use super::brokers;
use super::files::{Places, check_pem, is_plain_name, read_secret, resolve_or_report};
use super::problem::Document;
use super::reader::{At, Section, nearest};
use super::remote::PROBATION_S;
use super::schema::{ApiConfig, CloudConfig, OcppConfig, SiteConfig, StoreConfig, UnknownChargers};
use crate::engine::model::ids::SiteId;
use crate::engine::model::setup::{Acknowledge, ChargingSetup};
use crate::engine::units::{Current, Voltage};

/// `[site]` with the parts that go into the topology.
pub(super) fn site(root: &Section<'_>) -> (SiteConfig, SiteId, Voltage) {
    let section = root.section("site", "[site]");
    let document = section.document;
    section.require("id", "\"depot-nord\"");
    let id = section.text("id").filter(|id| {
        let good = is_plain_name(&id.value);
        if !good {
            let message = format!("`id` is {:?}, and must be 1 to 64 characters out of a-z, 0-9 and -", id.value);
            document.error(id.at, message);
        }
        good
    });
    let id = id.map_or_else(String::new, |id| id.value);
    let name = section.text("name").map_or_else(|| id.clone(), |name| name.value);
    let timezone = section.text("timezone").and_then(|zone| timezone(document, &zone));
    let voltage = section.thousandths("voltage_v", 100_000..=300_000).map_or(230_000, |voltage| voltage.value);
    let allow_unsafe_fallback = section.boolean("allow_unsafe_fallback").is_some_and(|allow| allow.value);
    // The United Kingdom's regulation asks for 600 s and lets the owner go up to 1800 s.
    let random_start = section.integer("random_start_max_s", 0..=1_800).map_or(0, |found| found.value.unsigned_abs());
    let boost_ends_random_start = section.boolean("boost_ends_random_start").is_some_and(|ends| ends.value);
    section.finish();
    let random_start_max_ms = random_start * 1_000;
    let timezone = timezone.unwrap_or(Tz::UTC);
    let site = SiteConfig { name, timezone, random_start_max_ms, boost_ends_random_start, allow_unsafe_fallback };
    (site, SiteId::new(&id), Voltage::from_mv(voltage))
}

fn timezone(document: &Document<'_>, name: &At<String>) -> Option<Tz> {
    let found = name.value.parse().ok();
    if found.is_none() {
        let remedy = nearest(&name.value, TZ_VARIANTS.iter().map(|zone| zone.name())).map_or_else(
            || "write an IANA name such as \"Europe/Berlin\"".to_owned(),
            |near| format!("did you mean {near:?}?"),
        );
        document.error(name.at, format!("time zone {:?} is not known; {remedy}", name.value));
    }
    found
}

/// `[charging]`.
pub(super) fn charging(root: &Section<'_>) -> ChargingSetup {
    let section = root.section("charging", "[charging]");
    let default = ChargingSetup::default();
    let learn = section.boolean("learn_car_phases").map_or(default.learn_car_phases, |found| found.value);
    let count = section.boolean("count_feed_in").map_or(default.count_feed_in, |found| found.value);
    let ramp = section.thousandths("ramp_a_per_s", 100..=1_000_000).map(|found| Current::from_ma(found.value));
    let raises = section.integer("max_changes_per_minute", 1..=12).and_then(|found| usize::try_from(found.value).ok());
    let lost = section.integer("meter_lost_after_s", 1..=86_400);
    section.finish();
    ChargingSetup {
        learn_car_phases: learn,
        count_feed_in: count,
        ramp_per_s: ramp,
        raises_per_minute: raises.unwrap_or(default.raises_per_minute),
        meter_lost_after_ms: lost.map(|found| found.value.unsigned_abs() * 1_000),
    }
}

/// `[ocpp]`.
pub(super) fn ocpp(root: &Section<'_>) -> (OcppConfig, usize) {
    let section = root.section("ocpp", "[ocpp]");
    let document = section.document;
    let (listen, listen_at) = listen(&section, "0.0.0.0:8887");
    let path = section.text("path").filter(|path| {
        let good = is_path(&path.value);
        if !good {
            let message = format!(
                "`path` is {:?}, and must begin with / and not end with one, out of letters, digits and / - . _ ~",
                path.value
            );
            document.error(path.at, message);
        }
        good
    });
    let unknown_chargers = section.choice(
        "unknown_chargers",
        &[
            ("reject", UnknownChargers::Reject),
            ("pending", UnknownChargers::Pending),
            ("accept", UnknownChargers::Accept),
        ],
    );
    let heartbeat_s = section.integer("heartbeat_s", 10..=86_400).and_then(|found| u32::try_from(found.value).ok());
    ocpp_tls(&section);
    section.finish();
    let config = OcppConfig {
        listen,
        path: path.map_or_else(|| "/ocpp".to_owned(), |path| path.value),
        unknown_chargers: unknown_chargers.map_or(UnknownChargers::Reject, |choice| choice.value),
        heartbeat_s: heartbeat_s.unwrap_or(300),
    };
    (config, listen_at)
}

fn is_path(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    text.len() <= 128
        && text.starts_with('/')
        && !text.ends_with('/')
        && !text.contains("//")
        && text.bytes().all(plain)
}

fn ocpp_tls(ocpp: &Section<'_>) {
    let section = ocpp.section("tls", "[ocpp.tls]");
    if section.is_present() {
        section
            .document
            .warn(section.at, "[ocpp.tls] is not effective in this version: there is no wss:// listener yet");
        listen(&section, "0.0.0.0:8888");
        for key in ["certificate", "private_key", "client_ca"] {
            section.text(key);
        }
    }
    section.finish();
}

/// Reads `listen` and gives it with its place.
fn listen(section: &Section<'_>, default: &'static str) -> (SocketAddr, usize) {
    let given = section.text("listen");
    let at = given.as_ref().map_or(section.at, |given| given.at);
    let text = given.map_or_else(|| default.to_owned(), |given| given.value);
    let address = text.parse().unwrap_or_else(|_| {
        let message = format!(
            "`listen` is {text:?}, and must be ADDRESS:PORT, such as {default:?}; all addresses are 0.0.0.0 or [::]"
        );
        section.document.error(at, message);
        SocketAddr::from(([127, 0, 0, 1], 0))
    });
    (address, at)
}

/// `[api]`. `ocpp` is the other listener: the two must not want the same port.
pub(super) fn api(root: &Section<'_>, ocpp: (&OcppConfig, usize)) -> ApiConfig {
    let section = root.section("api", "[api]");
    let document = section.document;
    let (listen, at) = listen(&section, "127.0.0.1:8080");
    if !listen.ip().is_loopback() {
        let message = format!(
            "`listen` is {listen}, but without users the interface may be reached from this machine only: write 127.0.0.1:{} \
             (this version has no users yet; put a reverse proxy with authentication in front)",
            listen.port()
        );
        document.error(at, message);
    }
    let (ocpp, ocpp_at) = ocpp;
    let overlap = ocpp.listen.ip() == listen.ip() || ocpp.listen.ip().is_unspecified() || listen.ip().is_unspecified();
    if overlap && listen.port() != 0 && ocpp.listen.port() == listen.port() {
        let message = format!(
            "[api] and [ocpp] (line {}) both listen on port {}; give one of them another",
            document.line(ocpp_at),
            listen.port()
        );
        document.error(if section.has("listen") { at } else { ocpp_at }, message);
    }
    section.finish();
    ApiConfig { listen }
}

/// `[store]`.
pub(super) fn store(root: &Section<'_>, places: &Places) -> StoreConfig {
    let section = root.section("store", "[store]");
    let path = section.text("path").and_then(|path| {
        if path.value.starts_with("credential:") {
            section.document.error(path.at, "`path` must be a directory, not a credential");
            return None;
        }
        resolve_or_report(section.document, places, "path", &path)
    });
    let history_events = section.integer("history_events", 1_000..=200_000);
    let max_size_mb = section.integer("max_size_mb", 16..=1_048_576);
    section.finish();
    StoreConfig {
        path: path.unwrap_or_else(|| PathBuf::from("/var/lib/siteward")),
        history_events: history_events.map_or(10_000, |count| count.value.unsigned_abs()),
        max_size_mb: max_size_mb.map_or(1_024, |size| size.value.unsigned_abs()),
    }
}

/// `[cloud]`.
pub(super) fn cloud(root: &Section<'_>, places: &Places) -> Option<CloudConfig> {
    let section = root.section("cloud", "[cloud]");
    if !section.is_present() {
        section.finish();
        return None;
    }
    let document = section.document;
    section.require("url", "\"mqtts://broker.example.com:8883\"");
    let brokers = section.text_or_texts("url").and_then(|urls| brokers::read(document, &urls));
    let username = section.text("username");
    let password_file = section.text("password_file");
    let password = password_file.as_ref().and_then(|file| read_secret(document, places, "password_file", file));
    if let (Some(file), None) = (&password_file, &username) {
        // MQTT 5 allows it; every broker in use refuses it.
        document.error(file.at, "`password_file` without `username`: add `username = \"…\"`");
    }
    let tls = brokers.as_ref().is_none_or(|(tls, _)| *tls);
    if let (Some(file), false) = (&password_file, tls) {
        document.warn(file.at, "the password crosses the network in clear text with mqtt://; use mqtts://");
    }
    let (ca, client) = cloud_certificates(&section, places, tls);
    let topic_prefix = section.text("topic_prefix").filter(|prefix| check_topic_prefix(document, prefix));
    let acknowledge = section
        .choice("acknowledge", &[("broker", Acknowledge::Broker), ("application", Acknowledge::Application)])
        .map_or(Acknowledge::Broker, |choice| choice.value);
    let remote = section.boolean("remote_configuration");
    let probation = section.integer("probation_s", 10..=3_600);
    section.finish();
    let (_, brokers) = brokers?;
    Some(CloudConfig {
        tls,
        brokers,
        username: username.map(|username| username.value),
        password,
        ca,
        client,
        topic_prefix: topic_prefix.map_or_else(|| "siteward/v1".to_owned(), |prefix| prefix.value),
        acknowledge,
        remote_configuration: remote.is_none_or(|remote| remote.value),
        probation_s: probation.and_then(|found| u64::try_from(found.value).ok()).unwrap_or(PROBATION_S),
    })
}

type Certificates = (Option<PathBuf>, Option<(PathBuf, PathBuf)>);

fn cloud_certificates(section: &Section<'_>, places: &Places, tls: bool) -> Certificates {
    let document = section.document;
    let read = |key| {
        let named = section.text(key)?;
        if !tls {
            document.error(named.at, format!("`{key}` has no effect with mqtt://; use mqtts://, or remove it"));
        }
        Some((named.at, check_pem(document, places, key, &named)))
    };
    let ca = read("ca").and_then(|(_, path)| path);
    let client = match (read("certificate"), read("private_key")) {
        (Some((_, Some(certificate))), Some((_, Some(key)))) => Some((certificate, key)),
        (Some((at, _)), None) => {
            document.error(at, "`certificate` without `private_key`: add the key that belongs to it");
            None
        }
        (None, Some((at, _))) => {
            document.error(at, "`private_key` without `certificate`: add the certificate that belongs to it");
            None
        }
        (Some(_), Some(_)) | (None, None) => None,
    };
    (ca, client)
}

fn check_topic_prefix(document: &Document<'_>, prefix: &At<String>) -> bool {
    let text = &prefix.value;
    // MQTT 5, 4.7: + and # are wildcards, $ begins the broker's own topics, U+0000 is forbidden.
    let good = (1..=128).contains(&text.len())
        && !text.starts_with(['/', '$'])
        && !text.ends_with('/')
        && !text.contains(['+', '#'])
        && !text.chars().any(char::is_control);
    if !good {
        let message = format!(
            "`topic_prefix` is {text:?}, and must have 1 to 128 bytes without + and #, no / at either end and no $ in front"
        );
        document.error(prefix.at, message);
    }
    good
}
