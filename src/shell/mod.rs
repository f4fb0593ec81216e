//! All input and output: tokio lives here and nowhere else.

pub mod acceptance;
pub mod bus;
pub mod clock;
pub mod configuration;
pub mod http;
pub mod interrupt;
pub mod journal;
pub mod logging;
pub mod memory;
pub mod mqtt;
pub mod panic;
pub mod reports;
pub mod run;
pub mod site;
pub mod station;
pub mod systemd;
pub mod telemetry;

use tokio::sync::watch;

/// Waits until the daemon stops. Returns at once if nobody is left who could say so.
pub(crate) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // The guard inside the result must not live across the caller's next await.
    let _ = shutdown.wait_for(|stop| *stop).await.map(|_| ());
}
