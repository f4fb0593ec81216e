//! The `connection` of a Modbus device in `site.toml`.

use std::fmt;

/// How a line of devices is reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Connection {
    /// Modbus TCP.
    Tcp(String, u16),
    /// Modbus RTU frames inside TCP, as simple serial-to-network converters carry them.
    RtuOverTcp(String, u16),
    /// A serial line.
    Serial(SerialLine),
}

/// A serial line and its settings. The default of Modbus is 19200 8E1, that of most meters 9600 8N1, which is taken here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SerialLine {
    /// The device file.
    pub path: String,
    /// Bits per second, 300 to 921600.
    pub baud: u32,
    /// The parity bit.
    pub parity: Parity,
    /// 1 or 2.
    pub stop_bits: u8,
    /// 7 or 8. RTU needs 8.
    pub data_bits: u8,
}

/// The parity bit of a serial line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Parity {
    /// No parity bit.
    None,
    /// Even.
    Even,
    /// Odd.
    Odd,
}

impl Connection {
    /// Reads `tcp://HOST:PORT`, `rtu+tcp://HOST:PORT` or `rtu:///dev/ttyUSB0?baud=9600&parity=none&stop=1&data=8`.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| {
            format!("{url:?} is no connection: write tcp://HOST:PORT, rtu+tcp://HOST:PORT or rtu:///dev/ttyUSB0?baud=9600&parity=none&stop=1")
        })?;
        match scheme {
            "tcp" => host_port(url, rest).map(|(host, port)| Self::Tcp(host, port)),
            "rtu+tcp" => host_port(url, rest).map(|(host, port)| Self::RtuOverTcp(host, port)),
            "rtu" => serial(url, rest).map(Self::Serial),
            _ => Err(format!("{url:?}: {scheme:?} is unknown: write tcp, rtu+tcp or rtu before ://")),
        }
    }

    /// What is shared by all that use this line: two connections with the same key must be equal, or one of them is wrong.
    #[must_use]
    pub fn line_key(&self) -> String {
        match self {
            Self::Tcp(host, port) | Self::RtuOverTcp(host, port) => format!("{}:{port}", host.to_ascii_lowercase()),
            Self::Serial(line) => line.path.clone(),
        }
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = match self {
            Self::Tcp(host, port) => ("tcp", host, port),
            Self::RtuOverTcp(host, port) => ("rtu+tcp", host, port),
            Self::Serial(line) => return f.write_str(&line.path),
        };
        if host.contains(':') { write!(f, "{scheme}://[{host}]:{port}") } else { write!(f, "{scheme}://{host}:{port}") }
    }
}

fn host_port(url: &str, rest: &str) -> Result<(String, u16), String> {
    let bad = || format!("{url:?}: write a host and a port after ://, such as 192.168.1.20:502 or [fd00::20]:502");
    let (host, port) = rest.trim_end_matches('/').rsplit_once(':').ok_or_else(bad)?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?;
    let host = match host.strip_prefix('[').map(|host| host.strip_suffix(']')) {
        Some(host) => host.ok_or_else(bad)?,
        None if host.contains(':') => return Err(bad()),
        None => host,
    };
    let strange = |c: char| c.is_whitespace() || "/?#@[]".contains(c);
    if host.is_empty() || host.contains(strange) { Err(bad()) } else { Ok((host.to_owned(), port)) }
}

fn serial(url: &str, rest: &str) -> Result<SerialLine, String> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !path.starts_with('/') || path.ends_with('/') {
        return Err(format!("{url:?}: write the whole path of the serial device, such as rtu:///dev/ttyUSB0"));
    }
    let mut line = SerialLine { path: path.to_owned(), baud: 9_600, parity: Parity::None, stop_bits: 1, data_bits: 8 };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let bad = |right: &str| format!("{url:?}: {key}={value:?} is not possible: write {key}={right}");
        match key {
            "baud" => {
                let baud = value.parse().ok().filter(|baud| (300..=921_600).contains(baud));
                line.baud = baud.ok_or_else(|| bad("9600, or another number from 300 to 921600"))?;
            }
            "parity" => {
                line.parity = match value {
                    "none" => Parity::None,
                    "even" => Parity::Even,
                    "odd" => Parity::Odd,
                    _ => return Err(bad("none, even or odd")),
                };
            }
            "stop" => {
                line.stop_bits =
                    value.parse().ok().filter(|bits| matches!(bits, 1 | 2)).ok_or_else(|| bad("1 or 2"))?;
            }
            "data" => {
                line.data_bits = value.parse().ok().filter(|bits| *bits == 8).ok_or_else(|| bad("8: RTU needs it"))?;
            }
            _ => return Err(format!("{url:?}: {key:?} is unknown: a serial line has baud, parity, stop and data")),
        }
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_the_contract() {
        assert_eq!(Connection::parse("tcp://192.168.1.20:502"), Ok(Connection::Tcp("192.168.1.20".to_owned(), 502)));
        assert_eq!(Connection::parse("tcp://[fd00::20]:502"), Ok(Connection::Tcp("fd00::20".to_owned(), 502)));
        assert_eq!(Connection::parse("rtu+tcp://gw:4001/"), Ok(Connection::RtuOverTcp("gw".to_owned(), 4001)));
        let line = |parity, stop_bits, baud| {
            Ok(Connection::Serial(SerialLine {
                path: "/dev/ttyUSB0".to_owned(),
                baud,
                parity,
                stop_bits,
                data_bits: 8,
            }))
        };
        assert_eq!(
            Connection::parse("rtu:///dev/ttyUSB0?baud=19200&parity=even&stop=2"),
            line(Parity::Even, 2, 19_200)
        );
        assert_eq!(Connection::parse("rtu:///dev/ttyUSB0"), line(Parity::None, 1, 9_600));
        assert_eq!(Connection::parse("tcp://[fd00::20]:502").unwrap().to_string(), "tcp://[fd00::20]:502");
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_would_be_right() {
        for (url, says) in [
            ("192.168.1.20:502", "tcp://HOST:PORT"),
            ("http://a:1", "tcp, rtu+tcp or rtu"),
            ("tcp://a", "a host and a port"),
            ("tcp://:502", "a host and a port"),
            ("tcp://a:0", "a host and a port"),
            ("tcp://a:70000", "a host and a port"),
            ("tcp://fd00::20:502", "[fd00::20]"),
            ("tcp://[fd00::20:502", "[fd00::20]"),
            ("rtu://ttyUSB0", "the whole path"),
            ("rtu:///", "the whole path"),
            ("rtu:///dev/ttyUSB0?baud=fast", "baud=9600"),
            ("rtu:///dev/ttyUSB0?parity=no", "none, even or odd"),
            ("rtu:///dev/ttyUSB0?stop=3", "1 or 2"),
            ("rtu:///dev/ttyUSB0?data=7", "RTU needs"),
            ("rtu:///dev/ttyUSB0?bits=8", "baud, parity, stop and data"),
        ] {
            let error = Connection::parse(url).unwrap_err();
            assert!(error.contains(says) && error.contains(url), "{error}");
        }
    }

    #[test]
    fn one_line_has_one_key() {
        let key = |url| Connection::parse(url).unwrap().line_key();
        assert_eq!(key("tcp://GW:502"), key("rtu+tcp://gw:502"));
        assert_eq!(key("rtu:///dev/ttyUSB0?baud=9600"), key("rtu:///dev/ttyUSB0?baud=19200"));
    }
}
