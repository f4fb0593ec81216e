//! `url` in `[cloud]`: one broker, or several in order of preference.

use std::net::IpAddr;

use super::problem::Document;
use super::reader::At;
use super::schema::Broker;

/// More would only make the way back to the first one longer.
const MOST: usize = 8;

/// Whether they are encrypted, and where they are.
pub(super) fn read(document: &Document<'_>, urls: &At<Vec<At<String>>>) -> Option<(bool, Vec<Broker>)> {
    if !(1..=MOST).contains(&urls.value.len()) {
        let found = urls.value.len();
        document
            .error(urls.at, format!("`url` names {found} brokers, and must name 1 to {MOST}, the preferred one first"));
        return None;
    }
    let mut brokers: Vec<Broker> = Vec::new();
    let mut encrypted = None;
    for url in &urls.value {
        let (tls, broker) = match parse(&url.value) {
            Ok(parsed) => parsed,
            Err(problem) => {
                document.error(url.at, format!("`url`: {problem}"));
                return None;
            }
        };
        if *encrypted.get_or_insert(tls) != tls {
            // Whoever can block the first one could otherwise read along at the next.
            document.error(url.at, "`url`: all brokers must be mqtts://, or all mqtt://");
            return None;
        }
        if brokers.contains(&broker) {
            document.error(url.at, format!("`url` names {}:{} twice", broker.host, broker.port));
            return None;
        }
        brokers.push(broker);
    }
    encrypted.map(|tls| (tls, brokers))
}

fn parse(url: &str) -> Result<(bool, Broker), String> {
    let form = "mqtt://HOST:PORT or mqtts://HOST:PORT";
    let (tls, rest) = match url.split_once("://") {
        Some(("mqtts", rest)) => (true, rest),
        Some(("mqtt", rest)) => (false, rest),
        // The text is not repeated: somebody may have written a password into it.
        Some(_) | None => return Err(format!("it must be {form}")),
    };
    if rest.contains('@') {
        return Err("user and password do not belong here; use `username` and `password_file`".to_owned());
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let default_port = if tls { 8883 } else { 1883 };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().unwrap_or(0)),
        Some(_) | None => (rest, default_port),
    };
    if port == 0 {
        return Err("the port must be a number from 1 to 65535".to_owned());
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let good = match bare {
        Some(address) => matches!(address.parse(), Ok(IpAddr::V6(_))),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
    };
    if !good {
        return Err(format!(
            "the host {host:?} must be a name or an address (an IPv6 address in brackets); the form is {form}"
        ));
    }
    Ok((tls, Broker { host: bare.unwrap_or(host).to_owned(), port }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let broker = |url| parse(url).map(|(tls, broker)| (tls, broker.host, broker.port));
        assert_eq!(broker("mqtts://broker.example.com"), Ok((true, "broker.example.com".to_owned(), 8883)));
        assert_eq!(broker("mqtt://127.0.0.1:18830/"), Ok((false, "127.0.0.1".to_owned(), 18830)));
        assert_eq!(broker("mqtt://[::1]"), Ok((false, "::1".to_owned(), 1883)));
        assert_eq!(broker("mqtts://[::1]:9"), Ok((true, "::1".to_owned(), 9)));
        for bad in ["", "http://h", "mqtt://", "mqtt://h:0", "mqtt://h:x", "mqtt://[h]", "mqtt://a b", "mqtt://h/path"]
        {
            assert!(broker(bad).is_err(), "{bad}");
        }
        let error = broker("mqtts://user:hunter2@host").unwrap_err();
        assert!(error.contains("password_file") && !error.contains("hunter2"), "{error}");
    }
}
