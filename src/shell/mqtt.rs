//! The link to the cloud's broker: MQTT 5 by rumqttc.
//!
//! rumqttc forgets what it holds when a session is new and cannot say which publication was lost. So each connection has a client of
//! its own, nothing is kept here from one to the next, and the engine's outbox starts again behind its cursor. Every wait has an
//! end: the event loop of rumqttc hangs on a peer that stops reading.

mod choice;
mod session;
mod tls;

use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use crate::config::Broker;
use crate::engine::cloud::topics::Topics;
use crate::engine::model::ids::SiteId;
use crate::engine::model::topology::Secret;
use crate::engine::site::io::{CloudInput, Input, Publication};
use crate::shell::clock::Clock;
use choice::Choice;
use session::{End, Ended, Session};

/// The first wait after a lost connection: a broker that restarts is back soon.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// The longest wait: an outage of hours must not cost a metered link.
const BACKOFF_LAST: Duration = Duration::from_secs(60);

/// How often a site looks for a better broker than the one it is connected to.
pub const LOOK_FOR_BETTER: Duration = Duration::from_secs(15 * 60);

/// A broker that can be reached is there within this time.
const REACHED: Duration = Duration::from_secs(5);

/// A connection that lasts so long is a steady one.
const STEADY: Duration = Duration::from_secs(60);
/// Shorter ones in a row after which is still tried again at once. More of them mean that the broker, or another client with the same
/// id, ends each as soon as it is made: without longer waits that would be a storm.
const QUICK_RETURNS: u32 = 5;

/// Where the broker is and who we are to it.
#[derive(Clone, Debug)]
pub struct CloudLink {
    /// The brokers, the preferred one first; at least one.
    pub brokers: Vec<Broker>,
    /// On a broker that is not the first one, a better one is looked for so often ([`LOOK_FOR_BETTER`]), and less often where that is of no use.
    pub look_for_better: Duration,
    /// TLS, for `mqtts://`.
    pub tls: Option<TlsFiles>,
    /// The user name, if the broker wants one.
    pub username: Option<String>,
    /// The password, if the broker wants one. UTF-8.
    pub password: Option<Secret>,
    /// The MQTT client id: unique at the broker.
    pub client_id: String,
    /// The first part of every topic.
    pub topic_prefix: String,
    /// The site's name.
    pub site: SiteId,
    /// The daemon's version.
    pub version: String,
    /// The process's clock, for `since` in the connection message.
    pub clock: Clock,
}

/// PEM files. They are read at each connection, so that a renewed certificate is used without a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authorities that may vouch for the broker; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// Our certificate chain; needs `private_key`.
    pub certificate: Option<PathBuf>,
    /// The key of our certificate.
    pub private_key: Option<PathBuf>,
}

/// Keeps the link until `shutdown` turns true (or its sender is gone); then says `online: false` and disconnects.
///
/// What arrives in `publications` without a connection is dropped: events come again from the outbox, the state with its next
/// change, and an answer when its command is repeated. While the broker does not keep up `publications` fills. `inbox` is waited for.
pub async fn run(
    link: CloudLink,
    mut publications: mpsc::Receiver<Publication>,
    inbox: mpsc::Sender<Input>,
    mut shutdown: watch::Receiver<bool>,
) {
    let topics = Topics::new(&link.topic_prefix, &link.site);
    let mut backoff = Backoff::new(link.site.as_str());
    let mut choice = Choice::new(link.brokers.len(), link.look_for_better);
    // Of each broker.
    let mut last_errors = vec![None; link.brokers.len()];
    while let Some(broker) = link.brokers.get(choice.current()) {
        let better = better(&link.brokers[..choice.current()], choice.look());
        let (publications, inbox) = (&mut publications, &inbox);
        let session = Session { link: &link, broker, topics: &topics, publications, inbox };
        let began = Instant::now();
        let Ended { connected, worked, end } = session.run(better, &mut shutdown).await;
        if worked {
            backoff.worked(began.elapsed());
        }
        let (news, waits) = match end {
            End::Told => return,
            End::Better => {
                choice.left();
                (Some("it is left for a broker that is preferred and can be reached again".to_owned()), false)
            }
            End::Failed(error) => {
                let last = last_errors.get_mut(choice.current());
                let is_known = last.is_some_and(|last| last.replace(error.clone()).as_ref() == Some(&error));
                // An edge is reported: a lost connection, or a new reason for having none.
                ((connected || !is_known).then_some(error), choice.ended(worked))
            }
        };
        if let Some(error) = news {
            let _ = inbox.send(Input::Cloud(CloudInput::Disconnected { error })).await;
        }
        if waits && wait(backoff.next(), publications, &mut shutdown).await.is_break() {
            return;
        }
    }
}

/// Ends when one of the brokers that are preferred can be reached; it is looked for every so often. Never ends where there is none.
async fn better(preferred: &[Broker], every: Option<Duration>) {
    let Some(every) = every else { return std::future::pending().await };
    loop {
        tokio::time::sleep(every).await;
        for broker in preferred {
            let connection = TcpStream::connect((broker.host.as_str(), broker.port));
            if matches!(timeout(REACHED, connection).await, Ok(Ok(_))) {
                return;
            }
        }
    }
}

/// Waits, and drops what cannot be sent.
async fn wait(
    time: Duration,
    publications: &mut mpsc::Receiver<Publication>,
    shutdown: &mut watch::Receiver<bool>,
) -> std::ops::ControlFlow<()> {
    let end = tokio::time::sleep(time);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => return std::ops::ControlFlow::Continue(()),
            dropped = publications.recv() => {
                if dropped.is_none() {
                    return std::ops::ControlFlow::Break(());
                }
            }
            () = stopped(shutdown) => return std::ops::ControlFlow::Break(()),
        }
    }
}

/// Ends when the process is to stop.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone: nobody would ever tell us.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Doubling waits with jitter, so that a thousand sites do not come back at once.
#[derive(Debug)]
struct Backoff {
    wait: Duration,
    dice: u64,
    /// Connections in a row that worked and did not last.
    short: u32,
}

impl Backoff {
    fn new(seed: &str) -> Self {
        // FNV-1a
        let dice = seed.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self { wait: BACKOFF_FIRST, dice, short: 0 }
    }

    /// A connection was of use and ended after `lasted`.
    fn worked(&mut self, lasted: Duration) {
        self.short = if lasted < STEADY { self.short.saturating_add(1) } else { 0 };
        if self.short <= QUICK_RETURNS {
            self.wait = BACKOFF_FIRST;
        }
    }

    /// Between half of the wait and all of it.
    fn next(&mut self) -> Duration {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let half = self.wait / 2;
        let jitter =
            Duration::from_millis((self.dice >> 33) % (u64::try_from(half.as_millis()).unwrap_or(u64::MAX) + 1));
        self.wait = (self.wait * 2).min(BACKOFF_LAST);
        half + jitter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_back_off_grows_to_a_minute_and_differs_between_sites() {
        let waits = |site: &str| {
            let mut backoff = Backoff::new(site);
            std::iter::repeat_with(|| backoff.next()).take(14).collect::<Vec<_>>()
        };
        let (one, other) = (waits("depot-nord"), waits("depot-sued"));
        assert!(one[0] >= Duration::from_millis(25) && one[0] <= Duration::from_millis(50), "{one:?}");
        assert!(one[13] >= Duration::from_secs(30) && one[13] <= Duration::from_secs(60), "{one:?}");
        assert_ne!(one, other);
        assert_eq!(one, waits("depot-nord"));
    }

    #[test]
    fn connections_that_end_as_soon_as_they_are_made_are_no_storm() {
        let mut backoff = Backoff::new("depot-nord");
        let mut returned = |lasted: u64, times: usize| {
            let waits = std::iter::repeat_with(|| {
                backoff.worked(Duration::from_secs(lasted));
                backoff.next()
            });
            waits.take(times).last().unwrap()
        };
        assert!(returned(1, 5) <= BACKOFF_FIRST, "a broker that restarts a few times");
        assert!(returned(1, 15) >= BACKOFF_LAST / 2, "somebody ends each of them");
        assert!(returned(60, 1) <= BACKOFF_FIRST, "it lasts again");
    }
}
