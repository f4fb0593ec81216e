//! The link between the daemon and the broker, which can be cut: then nothing passes and nothing is refused, as with a dead modem.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

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
