//! The TLS client's configuration from PEM files.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::TlsFiles;

/// The authorities that Debian's `ca-certificates` trusts.
const SYSTEM_CA: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Reads the files. The error names the file and what is wrong with it.
pub(super) fn client(files: &TlsFiles) -> Result<Arc<ClientConfig>, String> {
    let ca = files.ca.as_deref().unwrap_or(Path::new(SYSTEM_CA));
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates(ca)?);
    if added == 0 {
        return Err(format!("cloud.ca {}: there is no certificate in it", ca.display()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?
        .with_root_certificates(roots);
    let config = match (&files.certificate, &files.private_key) {
        (Some(certificate), Some(private_key)) => {
            let chain = certificates(certificate)?;
            let key = PrivateKeyDer::from_pem_file(private_key)
                .map_err(|error| format!("cloud.private_key {}: {error}", private_key.display()))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| format!("cloud.certificate {} does not fit its key: {error}", certificate.display()))?
        }
        (None, None) => builder.with_no_client_auth(),
        (Some(_), None) => return Err("cloud.certificate needs cloud.private_key beside it".to_owned()),
        (None, Some(_)) => return Err("cloud.private_key needs cloud.certificate beside it".to_owned()),
    };
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| format!("{}: {error}; it must be a PEM file of certificates", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_empty_file_is_named() {
        let dir = tempfile::TempDir::new().unwrap();
        let ca = dir.path().join("ca.pem");
        let files = TlsFiles { ca: Some(ca.clone()), ..TlsFiles::default() };
        assert!(client(&files).unwrap_err().contains("ca.pem"));
        std::fs::write(&ca, "nothing").unwrap();
        assert!(client(&files).unwrap_err().contains("no certificate"));
    }
}
