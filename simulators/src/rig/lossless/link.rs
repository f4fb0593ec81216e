//! The link between the daemon and the broker, which can be cut: then nothing passes and nothing is refused, as with a dead modem.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::net::namespace::{Cable, Namespace};
use crate::net::process::{Recipe, Running};

/// How the daemon reaches the broker, and the stations the daemon.
pub(super) enum Wires {
    /// By loopback, and through a relay in this process to the broker.
    Relay(watch::Sender<bool>),
    /// As on a site: from a network of its own, with a cable to the stations, and another one to the broker.
    Cables {
        /// The daemon's.
        network: Namespace,
        /// To the stations.
        stations: Cable,
        /// To the broker.
        broker: Cable,
    },
}

impl Wires {
    /// Lays the cables.
    pub(super) fn cables() -> Result<Self, String> {
        let network = Namespace::new()?;
        let (stations, broker) = (network.cable(0)?, network.cable(1)?);
        Ok(Self::Cables { network, stations, broker })
    }

    /// Where the daemon listens.
    pub(super) const fn daemon(&self) -> IpAddr {
        match self {
            Self::Relay(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Self::Cables { stations, .. } => IpAddr::V4(stations.far),
        }
    }

    /// Where the broker listens besides loopback.
    pub(super) const fn broker(&self) -> Option<IpAddr> {
        match self {
            Self::Relay(_) => None,
            Self::Cables { broker, .. } => Some(IpAddr::V4(broker.near)),
        }
    }

    /// The way to the daemon's interface, which without users listens to its own machine only: as the daemon advises, a proxy stands in front.
    pub(super) fn proxy(
        &self,
        api: SocketAddr,
        log: &Path,
        sim: &Path,
    ) -> Result<(Option<Running>, SocketAddr), String> {
        let Self::Cables { network, stations, .. } = self else { return Ok((None, api)) };
        let outside = SocketAddr::new(IpAddr::V4(stations.far), api.port());
        let listen = format!("TCP-LISTEN:{},bind={},reuseaddr,fork", outside.port(), outside.ip());
        let socat = Recipe::new(Path::new("socat"), &[listen, format!("TCP:{api}")], log).leashed(sim);
        let proxy = network.around(socat).start().map_err(|error| error.to_string())?;
        Ok((Some(proxy), outside))
    }

    /// The daemon, where it belongs.
    pub(super) fn around(&self, daemon: Recipe) -> Recipe {
        match self {
            Self::Relay(_) => daemon,
            Self::Cables { network, .. } => network.around(daemon),
        }
    }

    /// Cuts the link to the broker, or mends it.
    pub(super) fn set_cut(&self, cut: bool) -> Result<(), String> {
        match self {
            Self::Relay(is_cut) => {
                is_cut.send_replace(cut);
                Ok(())
            }
            Self::Cables { broker, .. } => broker.plug(!cut),
        }
    }
}

/// Passes connections on to `broker`, as long as it is not cut.
pub(super) async fn pass(listener: TcpListener, broker: SocketAddr, cut: watch::Receiver<bool>) {
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        tokio::spawn(connection(near, broker, cut.clone()));
    }
}

async fn connection(near: TcpStream, broker: SocketAddr, mut cut: watch::Receiver<bool>) {
    if whole(&mut cut).await.is_none() {
        return;
    }
    let Ok(far) = TcpStream::connect(broker).await else { return };
    // Small packets are not held back on a real link either.
    let _ = near.set_nodelay(true).and_then(|()| far.set_nodelay(true));
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    // Where one way has ended the other has nothing to answer to.
    tokio::select! {
        () = pipe(near_in, far_out, cut.clone()) => {}
        () = pipe(far_in, near_out, cut) => {}
    }
}

async fn pipe(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut cut: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        if whole(&mut cut).await.is_none() || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// Waits until the link is not cut. `None`: nobody can mend it any more.
async fn whole(cut: &mut watch::Receiver<bool>) -> Option<()> {
    cut.wait_for(|cut| !cut).await.ok().map(|_| ())
}
