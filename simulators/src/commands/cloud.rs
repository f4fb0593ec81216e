//! `siteward-sim cloud`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Args;
use siteward_sim::net::cloud::{CloudOptions, CloudState, Shared, consume, lock};
use tokio::time::interval;

use super::say;

#[derive(Args)]
pub(super) struct Arguments {
    /// The broker (MQTT 5)
    #[arg(long, default_value = "127.0.0.1:1883")]
    broker: SocketAddr,
    /// The first part of the topics and the site's id
    #[arg(long, default_value = "siteward/v1/demo")]
    prefix: String,
    /// Everything from the first event on is wanted, not only what comes from now on
    #[arg(long)]
    from_start: bool,
}

impl Arguments {
    pub(super) async fn run(self) -> Result<(), String> {
        let options = CloudOptions { broker: self.broker, prefix: self.prefix, from: self.from_start.then_some(1) };
        let state: Shared = Arc::new(Mutex::new(CloudState::default()));
        tokio::select! {
            () = consume(options, state.clone()) => {}
            () = report(&state) => {}
        }
        Ok(())
    }
}

/// Prints what happened, and a line of counts when they have changed, looked at once a second.
async fn report(state: &Shared) {
    let mut second = interval(Duration::from_secs(1));
    let mut last = String::new();
    loop {
        second.tick().await;
        let mut state = lock(state);
        for news in state.take_news() {
            say(&news);
        }
        let consumer = &state.consumer;
        let line = format!(
            "last event {}, {} duplicates dropped, {} gaps, {} transactions, {} Wh",
            consumer.last(),
            consumer.duplicates(),
            state.gaps,
            consumer.transactions().len(),
            consumer.energy_wh()
        );
        drop(state);
        if line != last {
            say(&line);
            last = line;
        }
    }
}
