//! What the site wants to know again after a restart of the daemon, but not after one of the machine: the limits in force at the stations.
//!
//! It changes with every limit, so it must not cost flash: it belongs into the service's runtime directory, which is a RAM disk. It is written
//! whole and renamed, without a sync: that survives a `kill -9`, and losing it costs current for one lease, not safety.

use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::watch;

/// The file's name.
const FILE: &str = "offers.json";

/// A file larger than this was not written by us: 1,000 EVSEs with 4 limits of 100 bytes each.
const MAX_BYTES: u64 = 1 << 20;

/// `$RUNTIME_DIRECTORY` (systemd's `RuntimeDirectory=`), a folder on a RAM disk.
#[must_use]
pub fn runtime() -> Option<PathBuf> {
    std::env::var_os("RUNTIME_DIRECTORY").filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

/// Where it is kept: in [`runtime`], or in the store's folder where there is none.
#[must_use]
pub fn place(store: &Path) -> PathBuf {
    runtime().unwrap_or_else(|| store.to_owned()).join(FILE)
}

/// What the last run kept. `None` if there is nothing usable.
#[must_use]
pub fn recall(file: &Path) -> Option<Vec<u8>> {
    let size = std::fs::metadata(file).ok()?.len();
    if size > MAX_BYTES {
        return None;
    }
    std::fs::read(file).ok()
}

/// Keeps the latest value on file until its sender is gone. A value that is overtaken by a newer one is not written.
pub async fn run(file: PathBuf, mut latest: watch::Receiver<Vec<u8>>) {
    let mut failed = false;
    while latest.changed().await.is_ok() {
        let bytes = latest.borrow_and_update().clone();
        let target = file.clone();
        let written = tokio::task::spawn_blocking(move || keep(&target, &bytes)).await;
        let error = match written {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = error.as_ref().filter(|_| !failed) {
            tracing::warn!("{} cannot be written: {error}; a restart will begin with less current", file.display());
        }
        failed = error.is_some();
    }
}

fn keep(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = file.with_extension("new");
    std::fs::write(&new, bytes)?;
    std::fs::rename(&new, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_latest_value_is_there_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(FILE);
        assert_eq!(recall(&file), None);
        let (sender, receiver) = watch::channel(Vec::new());
        let task = tokio::spawn(run(file.clone(), receiver));
        sender.send_replace(b"one".to_vec());
        sender.send_replace(b"two".to_vec());
        drop(sender);
        task.await.expect("it ends with its sender");
        assert_eq!(recall(&file).as_deref(), Some(b"two".as_slice()));
        std::fs::write(&file, vec![b' '; 2 << 20]).expect("written");
        assert_eq!(recall(&file), None);
    }
}
