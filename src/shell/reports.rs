//! Commissioning reports: signed by the site's own key, and kept as JSON and as text.
//!
//! The signature (Ed25519) is over the bytes of the report as they stand in the file. The key is made at the first report and stays in the store's
//! directory; who has written down its public half knows later that a report is from this gateway and was not changed.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::engine::model::commission::CommissionReport;

/// Reports that wait for the disk. One test at a time takes minutes.
pub const WAITING: usize = 4;

/// The private key, in the store's directory.
const KEY_FILE: &str = "commissioning.key";

/// The largest report that is read.
const MAX_BYTES: u64 = 1024 * 1024;

/// The file: the report as it was signed, and the signature.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    report: Box<RawValue>,
    /// `ed25519`.
    algorithm: String,
    /// In hexadecimal.
    public_key: String,
    /// In hexadecimal.
    signature: String,
}

/// A report with a signature that is right.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// What was signed.
    pub report: CommissionReport,
    /// Whose signature it is, in hexadecimal.
    pub public_key: String,
}

/// Where the reports of a store are kept.
#[must_use]
pub fn directory(store: &Path) -> PathBuf {
    store.parent().unwrap_or(Path::new(".")).join("commissioning")
}

/// Writes the reports that come until nobody can send any more.
pub async fn run(store: PathBuf, mut reports: mpsc::Receiver<Box<CommissionReport>>) {
    while let Some(report) = reports.recv().await {
        let store = store.clone();
        let written = tokio::task::spawn_blocking(move || keep(&store, &report)).await;
        match written {
            Ok(Ok((path, key))) => tracing::info!("commissioning report {} is signed by {key}", path.display()),
            Ok(Err(error)) => tracing::warn!("a commissioning report could not be kept: {error}"),
            Err(error) => tracing::warn!("a commissioning report could not be kept: {error}"),
        }
    }
}

/// Signs a report and writes it as JSON and as text. The JSON file, and the public key in hexadecimal.
///
/// # Errors
/// What could not be written or read, with its name.
pub fn keep(store: &Path, report: &CommissionReport) -> Result<(PathBuf, String), String> {
    let key = site_key(store)?;
    let public_key = hex(key.public_key().as_ref());
    let report_json = serde_json::to_string(report).map_err(|error| error.to_string())?;
    let signature = hex(key.sign(report_json.as_bytes()).as_ref());
    let raw = RawValue::from_string(report_json).map_err(|error| error.to_string())?;
    let signed = Signed {
        report: raw,
        algorithm: "ed25519".to_owned(),
        public_key: public_key.clone(),
        signature: signature.clone(),
    };
    let json = serde_json::to_string(&signed).map_err(|error| error.to_string())?;
    let directory = directory(store);
    let named = |error: io::Error| format!("{}: {error}", directory.display());
    fs::DirBuilder::new().recursive(true).mode(0o750).create(&directory).map_err(named)?;
    let name = file_name(report);
    let path = directory.join(format!("{name}.json"));
    let text = format!(
        "{}\nSigned with Ed25519 by {public_key}\nCheck: siteward commission --verify {name}.json\n",
        report.text()
    );
    for (path, content) in [(path.clone(), json), (directory.join(format!("{name}.txt")), text)] {
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&path)?;
            file.write_all(content.as_bytes())?;
            file.sync_all()
        };
        write().map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok((path, public_key))
}

/// The path of a report's JSON file.
#[must_use]
pub fn path_of(store: &Path, report: &CommissionReport) -> PathBuf {
    directory(store).join(format!("{}.json", file_name(report)))
}

fn file_name(report: &CommissionReport) -> String {
    let plain = |text: &str| -> String {
        text.chars().map(|one| if one.is_ascii_alphanumeric() || one == '-' { one } else { '_' }).collect()
    };
    format!("{}-{}-{}", plain(&report.charger), report.evse, plain(&report.began.to_string()))
}

/// Reads a report and checks its signature.
///
/// # Errors
/// Why it cannot be read, or that it was changed.
pub fn verify(path: &Path) -> Result<Verified, String> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    if fs::metadata(path).map_err(|error| named(&error))?.len() > MAX_BYTES {
        return Err(named(&"too large for a commissioning report"));
    }
    let text = fs::read_to_string(path).map_err(|error| named(&error))?;
    let signed: Signed =
        serde_json::from_str(&text).map_err(|error| named(&format!("not a signed commissioning report: {error}")))?;
    let (key, signature) = (from_hex(&signed.public_key), from_hex(&signed.signature));
    let (Some(key), Some(signature)) = (key, signature) else {
        return Err(named(&"its public_key or signature is not hexadecimal"));
    };
    if signed.algorithm != "ed25519" {
        return Err(named(&format!("signed with {:?}; only ed25519 is known", signed.algorithm)));
    }
    UnparsedPublicKey::new(&ED25519, key).verify(signed.report.get().as_bytes(), &signature).map_err(|_| {
        named(&"the signature is WRONG: the report was changed after it was signed, or is not complete")
    })?;
    let report = serde_json::from_str(signed.report.get()).map_err(|error| named(&error))?;
    Ok(Verified { report, public_key: signed.public_key })
}

/// The site's key; made at the first use, readable by the daemon only.
fn site_key(store: &Path) -> Result<Ed25519KeyPair, String> {
    let directory = store.parent().unwrap_or(Path::new("."));
    let path = directory.join(KEY_FILE);
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|error| named(&error))?;
            let write = || -> io::Result<()> {
                let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
                file.write_all(made.as_ref())?;
                file.sync_all()
            };
            write().map_err(|error| named(&error))?;
            made.as_ref().to_vec()
        }
        Err(error) => return Err(named(&error)),
    };
    Ed25519KeyPair::from_pkcs8(&bytes)
        .map_err(|error| named(&format!("not a key: {error}; move it away to get a new one")))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_signed_kept_and_known_again_and_a_changed_one_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = directory.path().join("store");
        let report = CommissionReport { charger: "CP/1".to_owned(), evse: 1, fallback_a: 6.0, ..Default::default() };
        let (path, key) = keep(&store, &report).expect("written");
        let verified = verify(&path).expect("right");
        assert_eq!((verified.report, verified.public_key), (report.clone(), key.clone()));
        assert_eq!(keep(&store, &report).expect("written").1, key, "the key stays");
        let text = fs::read_to_string(&path).expect("there");
        fs::write(&path, text.replace("6.0", "7.0")).expect("written");
        let error = verify(&path).expect_err("changed");
        assert!(error.contains("WRONG"), "{error}");
        assert!(path.with_extension("txt").exists());
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(directory.path().join(KEY_FILE)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_is_no_report_is_refused_with_its_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("x.json");
        assert!(verify(&path).expect_err("missing").contains("x.json"));
        fs::write(&path, "{}").expect("written");
        assert!(verify(&path).expect_err("empty").contains("not a signed commissioning report"));
    }
}
