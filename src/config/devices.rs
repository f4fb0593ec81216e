//! Where the configuration meets the Modbus side: connections and device maps.

use std::path::PathBuf;

use super::files::{Places, is_plain_name};
use super::problem::Document;
use super::reader::{At, nearest};

/// The device maps that are built in.
const BUILT_IN_MAPS: [&str; 6] = ["abb-b23", "abb-b24", "eastron-sdm630", "eastron-sdm72", "generic-meter", "sunspec"];

/// A device map's text and the file that it came from; `None`: built in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MapText {
    pub(super) text: String,
    pub(super) path: Option<PathBuf>,
}

/// The device map of that name: a file beside `site.toml` wins over one in the system's directory, and that over the built-in one.
pub(super) fn device_map_text(document: &Document<'_>, places: &Places, name: &At<String>) -> Option<MapText> {
    if !is_plain_name(&name.value) {
        document.error(name.at, format!("`profile` is {:?}, and must be made of a-z, 0-9 and -", name.value));
        return None;
    }
    match places.override_of("devices", &name.value) {
        Some((path, Ok(text))) => return Some(MapText { text, path: Some(path) }),
        Some((path, Err(reason))) => {
            document.error(name.at, format!("`profile`: {} cannot be read: {reason}", path.display()));
            return None;
        }
        None => {}
    }
    if BUILT_IN_MAPS.contains(&name.value.as_str()) {
        return Some(MapText::default());
    }
    let remedy = nearest(&name.value, BUILT_IN_MAPS.into_iter()).map_or_else(
        || format!("built in are: {}.", BUILT_IN_MAPS.join(", ")),
        |near| format!("did you mean {near:?}?"),
    );
    let message = format!(
        "device map {:?} is not known; {remedy} Your own goes into devices/{}.toml beside site.toml",
        name.value, name.value
    );
    document.error(name.at, message);
    None
}

/// Whether a connection can be understood; the error says what is wrong with it and what would be right.
pub(super) fn validate_connection(text: &str) -> Result<(), String> {
    if let Some(rest) = text.strip_prefix("tcp://").or_else(|| text.strip_prefix("rtu+tcp://")) {
        return validate_authority(rest);
    }
    let Some(rest) = text.strip_prefix("rtu://") else {
        return Err(format!(
            "{text:?} must be tcp://HOST:PORT, rtu+tcp://HOST:PORT or rtu:///dev/DEVICE?baud=9600&parity=none&stop=1"
        ));
    };
    let (device, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !device.starts_with('/') || device.len() < 2 {
        return Err(format!("{text:?} needs the serial line's path after rtu://, such as rtu:///dev/ttyUSB0"));
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let good = match pair.split_once('=') {
            Some(("baud", baud)) => baud.parse::<u32>().is_ok_and(|baud| (300..=921_600).contains(&baud)),
            Some(("parity", parity)) => ["none", "even", "odd"].contains(&parity),
            Some(("stop", stop)) => ["1", "2"].contains(&stop),
            Some(("data", data)) => data == "8",
            Some(_) | None => false,
        };
        if !good {
            return Err(format!(
                "{pair:?} is not understood; possible are baud=300 to 921600, parity=none, even or odd, stop=1 or 2, data=8"
            ));
        }
    }
    Ok(())
}

/// `HOST:PORT`, where an IPv6 address stands in brackets.
fn validate_authority(text: &str) -> Result<(), String> {
    let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("{text:?} needs a port, such as {text}:502"))?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if host.is_empty() || !(bracketed || plain) {
        return Err(format!("{host:?} must be a host name or an address; an IPv6 address stands in brackets"));
    }
    match port.parse::<u16>() {
        Ok(1..) => Ok(()),
        Ok(0) | Err(_) => Err(format!("the port {port:?} must be a number from 1 to 65535")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections() {
        for good in [
            "tcp://192.168.1.20:502",
            "tcp://[fe80::1]:502",
            "rtu+tcp://gateway.local:4001",
            "rtu:///dev/ttyUSB0",
            "rtu:///dev/ttyUSB0?baud=19200&parity=even&stop=1",
        ] {
            assert_eq!(validate_connection(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "192.168.1.20:502",
            "tcp://192.168.1.20",
            "tcp://:502",
            "tcp://h:0",
            "tcp://h:70000",
            "tcp://fe80::1:502",
            "rtu://ttyUSB0",
            "rtu:///dev/ttyUSB0?baud=fast",
            "rtu:///dev/ttyUSB0?bits=7",
        ] {
            assert!(validate_connection(bad).is_err(), "{bad}");
        }
    }
}
