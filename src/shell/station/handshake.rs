//! What is decided while a WebSocket opens: who it is, whether it may, and which OCPP version is spoken.
//!
//! Pure functions over the HTTP request. Every deviation from the standard that is tolerated is reported, so that it can be logged.

use base64::Engine as _;
use percent_encoding::percent_decode_str;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request};
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, HeaderMap, SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::http::{HeaderValue, Response, StatusCode};

use crate::engine::model::exchange::OcppVersion;
use crate::engine::model::topology::{Secret, StationIndex, Topology};

/// The versions that are spoken here.
const SPOKEN: [OcppVersion; 3] = [OcppVersion::V16, OcppVersion::V201, OcppVersion::V21];

/// Taken wherever it is offered, whatever stands before it: only it has a lease that needs neither the station's clock nor renewals.
const PREFERRED: OcppVersion = OcppVersion::V21;

/// What is made of a station's offer of subprotocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subprotocol {
    /// The preferred one, or the first one offered that is spoken here.
    Agreed(OcppVersion),
    /// None was offered: OCPP 1.6 is assumed, since only 1.6 stations are known to leave it out.
    NoneOffered,
    /// Only others were offered: the handshake is completed without the header, then the connection is closed (OCPP-J 1.6 §3.1.2).
    OnlyUnknown,
}

/// A station that may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Admission {
    /// Which station.
    pub(super) station: StationIndex,
    /// What it speaks.
    pub(super) subprotocol: Subprotocol,
    /// The identity was written in another case than in the configuration.
    pub(super) other_case: Option<String>,
}

/// A request that is turned down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The path is not below the OCPP path.
    WrongPath {
        /// The path asked for.
        path: String,
    },
    /// No station has this identity.
    Unknown {
        /// The identity, percent-decoded.
        identity: String,
    },
    /// No station has this identity, and too many such wait already.
    Full {
        /// The identity, percent-decoded.
        identity: String,
    },
    /// The station is kept out for a while: its lease is being tested.
    Tested {
        /// Which station.
        station: StationIndex,
    },
    /// The station needs a password and sent none.
    NoPassword {
        /// Which station.
        station: StationIndex,
    },
    /// The station sent a wrong user name or password.
    WrongPassword {
        /// Which station.
        station: StationIndex,
    },
}

/// Judges the HTTP request that wants to become a WebSocket. `path` is the configured path, such as `/ocpp`.
///
/// # Errors
/// If the request has to be turned down.
pub(super) fn judge(request: &Request, path: &str, topology: &Topology) -> Result<Admission, Refusal> {
    let asked = request.uri().path();
    let identity = identity(asked, path).ok_or_else(|| Refusal::WrongPath { path: asked.to_owned() })?;
    let (station, other_case) = find(&identity, topology).ok_or(Refusal::Unknown { identity })?;
    let known = topology.station(station);
    if let Some(password) = &known.password {
        let header = request.headers().get(AUTHORIZATION).ok_or(Refusal::NoPassword { station })?;
        if !authorized(header, known.id.as_str(), password) {
            return Err(Refusal::WrongPassword { station });
        }
    }
    Ok(Admission { station, subprotocol: negotiate(request.headers()), other_case })
}

/// The HTTP answer to a request that is turned down.
#[must_use]
pub(super) fn refuse(refusal: &Refusal, path: &str) -> ErrorResponse {
    let (status, body) = match refusal {
        Refusal::WrongPath { .. } => (
            StatusCode::NOT_FOUND,
            format!("Charging stations connect to {}/<identity>.\n", path.trim_end_matches('/')),
        ),
        Refusal::Unknown { .. } => {
            (StatusCode::NOT_FOUND, "This charging station is not in the site's configuration.\n".to_owned())
        }
        Refusal::Full { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many charging stations that are not configured wait already; try again.\n".to_owned(),
        ),
        Refusal::Tested { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "The lease of this station is being tested; try again.\n".to_owned())
        }
        Refusal::NoPassword { .. } | Refusal::WrongPassword { .. } => {
            (StatusCode::UNAUTHORIZED, "User name (the station's identity) and password are needed.\n".to_owned())
        }
    };
    let length = body.len();
    let mut response = Response::new(Some(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert("content-length", HeaderValue::from(length));
    headers.insert("connection", HeaderValue::from_static("close"));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert("www-authenticate", HeaderValue::from_static("Basic realm=\"ocpp\""));
    }
    response
}

/// The identity in `/ocpp/<identity>`. Tolerated, since stations in the field do it: another case of the path, a doubled slash
/// before the identity, a slash after it.
fn identity(asked: &str, path: &str) -> Option<String> {
    let path = path.trim_end_matches('/');
    let head = asked.get(..path.len())?;
    let rest = &asked[path.len()..];
    if !head.eq_ignore_ascii_case(path) || !rest.starts_with('/') {
        return None;
    }
    let identity = rest.trim_start_matches('/').trim_end_matches('/');
    let identity = percent_decode_str(identity).decode_utf8_lossy().into_owned();
    (!identity.is_empty()).then_some(identity)
}

/// The station with that identity; if there is none, the only one that differs by case alone.
fn find(identity: &str, topology: &Topology) -> Option<(StationIndex, Option<String>)> {
    let named = |same: &dyn Fn(&str) -> bool| {
        let mut found = topology.stations().iter().enumerate().filter(|(_, station)| same(station.id.as_str()));
        let first = found.next().map(|(index, _)| StationIndex(index));
        if found.next().is_some() { None } else { first }
    };
    if let Some(station) = named(&|id| id == identity) {
        return Some((station, None));
    }
    named(&|id| id.eq_ignore_ascii_case(identity)).map(|station| (station, Some(identity.to_owned())))
}

/// Which version is spoken.
pub(super) fn negotiate(headers: &HeaderMap) -> Subprotocol {
    let mut offered_any = false;
    let mut agreed = None;
    for header in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
        for name in String::from_utf8_lossy(header.as_bytes()).split(',') {
            let name = name.trim();
            offered_any |= !name.is_empty();
            if let Some(version) = SPOKEN.into_iter().find(|version| version.subprotocol() == name) {
                agreed = if version == PREFERRED { Some(version) } else { agreed.or(Some(version)) };
            }
        }
    }
    match agreed {
        Some(version) => Subprotocol::Agreed(version),
        None if offered_any => Subprotocol::OnlyUnknown,
        None => Subprotocol::NoneOffered,
    }
}

/// Whether `Authorization: Basic` names the identity and the password. The password is compared as bytes in three forms: as it is
/// configured; decoded, if the configured one is hexadecimal (OCPP 1.6 `AuthorizationKey`, and what OCTT TC_085_CS wants); and
/// decoded, if the one sent is hexadecimal.
fn authorized(header: &HeaderValue, identity: &str, password: &Secret) -> bool {
    let Some((scheme, encoded)) = header.as_bytes().split_at_checked(6) else { return false };
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return false;
    }
    let Ok(pair) = base64::engine::general_purpose::STANDARD.decode(encoded.trim_ascii()) else { return false };
    let Some(sent) = pair.strip_prefix(identity.as_bytes()).and_then(|rest| rest.strip_prefix(b":")) else {
        return false;
    };
    let expected = password.expose();
    let literal = same_bytes(sent, expected);
    let decoded_here = from_hex(expected).is_some_and(|decoded| same_bytes(sent, &decoded));
    let decoded_there = from_hex(sent).is_some_and(|decoded| same_bytes(&decoded, expected));
    literal | decoded_here | decoded_there
}

/// Compares in a time that depends on the lengths alone.
fn same_bytes(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let difference = left.iter().zip(right).fold(0_u8, |sum, (left, right)| std::hint::black_box(sum | (left ^ right)));
    difference == 0
}

fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    if text.is_empty() || !text.len().is_multiple_of(2) {
        return None;
    }
    text.chunks_exact(2).map(|pair| Some(hex_digit(pair[0])? << 4 | hex_digit(pair[1])?)).collect()
}

const fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::station::testing::topology;

    fn request(uri: &str, headers: &[(&'static str, &str)]) -> Request {
        let mut request = Request::new(());
        *request.uri_mut() = uri.parse().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        request
    }

    fn subprotocol(offers: &[(&'static str, &str)]) -> Subprotocol {
        judge(&request("/ocpp/CP001", offers), "/ocpp", &topology()).unwrap().subprotocol
    }

    fn basic(user: &str, password: &[u8]) -> String {
        let pair = [user.as_bytes(), b":", password].concat();
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
    }

    #[test]
    fn the_identity_is_the_last_part_of_the_path() {
        for path in ["/ocpp/CP001", "/ocpp/CP001/", "/OCPP/CP001", "/ocpp//CP001", "/ocpp/CP%30%301", "/ocpp/CP001?x=1"]
        {
            let admission = judge(&request(path, &[]), "/ocpp", &topology()).unwrap();
            assert_eq!(admission.station, StationIndex(0), "{path}");
        }
        let other_case = judge(&request("/ocpp/cp001", &[]), "/ocpp", &topology()).unwrap();
        assert_eq!(other_case.other_case.as_deref(), Some("cp001"));
    }

    #[test]
    fn other_paths_and_identities_are_turned_down() {
        for path in ["/", "/ocp", "/ocpp", "/ocpp/", "/ocppCP001", "/other/CP001", "/%C3%A4/CP001"] {
            let refusal = judge(&request(path, &[]), "/ocpp", &topology()).unwrap_err();
            assert!(matches!(refusal, Refusal::WrongPath { .. }), "{path}: {refusal:?}");
        }
        let refusal = judge(&request("/ocpp/CP%20999", &[]), "/ocpp", &topology()).unwrap_err();
        assert_eq!(refusal, Refusal::Unknown { identity: "CP 999".to_owned() });
        assert_eq!(refuse(&refusal, "/ocpp").status(), StatusCode::NOT_FOUND);
    }

    // OCPP-J 1.6 §3.1.2: the server picks one of the subprotocols offered, the station names them in the order of its preference.
    #[test]
    fn the_first_spoken_subprotocol_offered_wins() {
        let offer = "sec-websocket-protocol";
        assert_eq!(subprotocol(&[(offer, "ocpp2.0.1, ocpp1.6")]), Subprotocol::Agreed(OcppVersion::V201));
        assert_eq!(subprotocol(&[(offer, "ocpp2.2,ocpp1.6,ocpp2.0.1")]), Subprotocol::Agreed(OcppVersion::V16));
        assert_eq!(subprotocol(&[(offer, "ocpp2.2"), (offer, "ocpp2.0.1")]), Subprotocol::Agreed(OcppVersion::V201));
        assert_eq!(subprotocol(&[(offer, "ocpp1.5, soap")]), Subprotocol::OnlyUnknown);
        assert_eq!(subprotocol(&[(offer, " ")]), Subprotocol::NoneOffered);
        assert_eq!(subprotocol(&[]), Subprotocol::NoneOffered);
    }

    #[test]
    fn ocpp_2_1_is_preferred_wherever_it_is_offered() {
        let offer = "sec-websocket-protocol";
        for offers in [
            &[(offer, "ocpp2.1, ocpp2.0.1, ocpp1.6")][..],
            &[(offer, "ocpp1.6,ocpp2.0.1,ocpp2.1")],
            &[(offer, "ocpp2.0.1"), (offer, "ocpp2.1")],
        ] {
            assert_eq!(subprotocol(offers), Subprotocol::Agreed(OcppVersion::V21), "{offers:?}");
        }
    }

    #[test]
    fn a_station_with_a_password_must_send_it() {
        let judged = |headers: &[(&'static str, &str)]| judge(&request("/ocpp/LOCKED", headers), "/ocpp", &topology());
        assert!(matches!(judged(&[]), Err(Refusal::NoPassword { .. })));
        for accepted in [basic("LOCKED", b"00112233445566778899aabbccddeeff"), basic("LOCKED", &raw_key())] {
            assert!(judged(&[("authorization", &accepted)]).is_ok(), "{accepted}");
        }
        for wrong in [
            basic("LOCKED", b"00112233445566778899aabbccddeefe"),
            basic("LOCKED", b""),
            basic("CP001", b"00112233445566778899aabbccddeeff"),
            "Basic".to_owned(),
            "Basic ???".to_owned(),
            "Bearer 00112233445566778899aabbccddeeff".to_owned(),
        ] {
            assert!(matches!(judged(&[("authorization", &wrong)]), Err(Refusal::WrongPassword { .. })), "{wrong}");
        }
    }

    fn raw_key() -> Vec<u8> {
        (0..16).map(|digit: u8| digit * 0x11).collect()
    }
}
