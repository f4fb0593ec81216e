//! The files that the configuration names: where they are, and whether they can be read.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::problem::Document;
use super::reader::At;
use crate::engine::model::topology::Secret;

/// A configuration of a large site has about 100 kB; what is a hundred times larger is something else.
pub(super) const MAX_TEXT_BYTES: u64 = 10_000_000;
/// A password has tens of bytes; a PEM bundle of all public authorities has some 200 kB.
const MAX_SECRET_BYTES: u64 = 4_096;
const MAX_PEM_BYTES: u64 = 1_000_000;

/// Where files are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The directory of `site.toml`: relative paths start here.
    pub beside: PathBuf,
    /// The system's configuration directory, `/etc/siteward`.
    pub system: PathBuf,
    /// Where systemd puts credentials, for `credential:NAME`; `None`: the process was given none.
    pub credentials: Option<PathBuf>,
}

impl Places {
    /// The usual places for a configuration at `path`: its own directory, `/etc/siteward`, and `$CREDENTIALS_DIRECTORY`.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        Self {
            beside: path.parent().unwrap_or_else(|| Path::new("")).to_owned(),
            system: PathBuf::from("/etc/siteward"),
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
        }
    }

    /// The file that `text` names: a path (a relative one is beside `site.toml`) or `credential:NAME`.
    pub(super) fn resolve(&self, text: &str) -> Result<PathBuf, String> {
        let Some(name) = text.strip_prefix("credential:") else {
            return if text.is_empty() {
                Err("it is empty, and must be a path or \"credential:NAME\"".to_owned())
            } else {
                Ok(self.beside.join(text))
            };
        };
        if name.is_empty() || name.starts_with('.') || name.contains('/') {
            return Err(format!("the credential's name {name:?} must be a plain file name"));
        }
        let directory = self.credentials.as_ref().ok_or_else(|| {
            "systemd gave this process no credentials; add LoadCredential= to the unit, or write a path".to_owned()
        })?;
        Ok(directory.join(name))
    }

    /// The text of `DIRECTORY/NAME.toml` beside `site.toml`, else in the system's directory; `None` if it is in neither place.
    pub(super) fn override_of(&self, directory: &str, name: &str) -> Option<(PathBuf, Result<String, String>)> {
        [&self.beside, &self.system]
            .into_iter()
            .map(|place| place.join(directory).join(format!("{name}.toml")))
            .find(|path| path.exists())
            .map(|path| {
                let text = read_text(&path);
                (path, text)
            })
    }
}

/// Whether a device map or station model may have this name: it becomes part of a file name.
pub(super) fn is_plain_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=64).contains(&name.len()) && name.bytes().all(plain)
}

/// A whole text file; the error is the reason in words.
pub(super) fn read_text(path: &Path) -> Result<String, String> {
    String::from_utf8(read(path, MAX_TEXT_BYTES)?).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        format!("line {} is not UTF-8 text; save the file as UTF-8", line + 1)
    })
}

fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>, String> {
    // A FIFO or a device would make the check wait for ever, so the kind is asked before the file is opened.
    let metadata = std::fs::metadata(path).map_err(|error| reason(&error))?;
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| reason(&error))?;
    file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(|error| reason(&error))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > max_bytes {
        return Err(format!("it has more than {max_bytes} bytes"));
    }
    Ok(bytes)
}

/// The system's words without its error number.
fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    text[..end].to_lowercase()
}

/// Reads a password from the file that `key` names. Problems are reported at the key's value; the password never is.
pub(super) fn read_secret(document: &Document<'_>, places: &Places, key: &str, named: &At<String>) -> Option<Secret> {
    let path = resolve_or_report(document, places, key, named)?;
    let mut bytes = match read(&path, MAX_SECRET_BYTES) {
        Ok(bytes) => bytes,
        Err(reason) => {
            let message = format!(
                "`{key}`: {} cannot be read: {reason}; create it with the password on one line, readable by the user that \
                 runs siteward only",
                path.display()
            );
            document.error(named.at, message);
            return None;
        }
    };
    while matches!(bytes.last(), Some(b'\n' | b'\r')) {
        bytes.pop();
    }
    if bytes.is_empty() || bytes.contains(&b'\n') {
        let message = format!("`{key}`: {} must hold the password on exactly one line", path.display());
        document.error(named.at, message);
        return None;
    }
    warn_if_open(document, key, named, &path);
    Some(Secret::new(bytes))
}

/// Checks that the file that `key` names is readable and PEM. The content is read again where it is used.
pub(super) fn check_pem(document: &Document<'_>, places: &Places, key: &str, named: &At<String>) -> Option<PathBuf> {
    let path = resolve_or_report(document, places, key, named)?;
    let problem = match read(&path, MAX_PEM_BYTES) {
        Ok(bytes) if String::from_utf8_lossy(&bytes).contains("-----BEGIN ") => {
            if key == "private_key" {
                warn_if_open(document, key, named, &path);
            }
            return Some(path);
        }
        Ok(_) => "is not PEM; it must have a line that starts with -----BEGIN".to_owned(),
        Err(reason) => format!("cannot be read: {reason}; write the path of a PEM file"),
    };
    document.error(named.at, format!("`{key}`: {} {problem}", path.display()));
    None
}

/// The path that `key` names, or a problem at its value.
pub(super) fn resolve_or_report(
    document: &Document<'_>,
    places: &Places,
    key: &str,
    named: &At<String>,
) -> Option<PathBuf> {
    places.resolve(&named.value).map_err(|reason| document.error(named.at, format!("`{key}`: {reason}"))).ok()
}

/// A group may be the daemon's own; everybody else has no business with a secret.
fn warn_if_open(document: &Document<'_>, key: &str, named: &At<String>, path: &Path) {
    let Ok(metadata) = std::fs::metadata(path) else { return };
    if metadata.permissions().mode() & 0o007 != 0 {
        let shown = path.display();
        let message = format!("`{key}`: {shown} is open to every user of this machine; `chmod o= {shown}` closes it");
        document.warn(named.at, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn places(directory: &Path) -> Places {
        Places { beside: directory.to_owned(), system: directory.join("system"), credentials: None }
    }

    fn secret_from(directory: &Path, content: &[u8], mode: u32) -> (Option<Secret>, Vec<String>) {
        let path = directory.join("password");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let document = Document::new(Path::new("site.toml"), "");
        let named = At { at: 0, value: "password".to_owned() };
        let secret = read_secret(&document, &places(directory), "password_file", &named);
        (secret, document.into_problems().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_password_is_one_line_and_belongs_to_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let (secret, problems) = secret_from(directory.path(), b"correct horse\r\n", 0o640);
        assert_eq!(secret.unwrap().expose(), b"correct horse");
        assert_eq!(problems, Vec::<String>::new());

        let (secret, problems) = secret_from(directory.path(), b"correct horse\n", 0o644);
        assert!(secret.is_some());
        assert!(problems[0].contains("warning: `password_file`"), "{problems:?}");
        assert!(problems[0].contains("chmod o="), "{problems:?}");

        for content in [&b""[..], b"\n", b"two\nlines\n"] {
            let (secret, problems) = secret_from(directory.path(), content, 0o600);
            assert!(secret.is_none());
            assert!(problems[0].contains("exactly one line"), "{problems:?}");
            assert!(!problems[0].contains("two"), "a secret must not be printed: {problems:?}");
        }
        let (_, problems) = secret_from(directory.path(), &[b'x'; 5_000], 0o600);
        assert!(problems[0].contains("more than 4096 bytes"), "{problems:?}");
    }

    #[test]
    fn credentials_come_from_systemd() {
        let mut places = places(Path::new("/site"));
        assert_eq!(places.resolve("a/b"), Ok(PathBuf::from("/site/a/b")));
        assert_eq!(places.resolve("/a/b"), Ok(PathBuf::from("/a/b")));
        assert!(places.resolve("credential:mqtt").unwrap_err().contains("LoadCredential="));
        places.credentials = Some(PathBuf::from("/run/credentials"));
        assert_eq!(places.resolve("credential:mqtt"), Ok(PathBuf::from("/run/credentials/mqtt")));
        assert!(places.resolve("credential:../passwd").is_err());
    }

    #[test]
    fn only_regular_files_are_opened() {
        assert_eq!(read_text(Path::new("/dev/zero")), Err("it is not a regular file".to_owned()));
        assert_eq!(read_text(Path::new("/nonexistent")), Err("no such file or directory".to_owned()));
    }
}
