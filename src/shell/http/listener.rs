//! How many may be connected at a time. Programs that leave connections open must not use up the file descriptors that stations need.

use std::collections::BTreeMap;
use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// Far more than the people and scripts of a site use at once. Beyond it the oldest connection is dropped: one that hangs stays,
/// an honest one is soon done.
pub(super) const MAX_CONNECTIONS: usize = 64;

/// The connections, oldest first. Dropping a sender gives that one up.
type Open = Arc<Mutex<BTreeMap<u64, oneshot::Sender<()>>>>;

/// A listener with at most [`MAX_CONNECTIONS`].
pub(super) struct Bounded {
    listener: TcpListener,
    open: Open,
    last: u64,
}

impl Bounded {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self { listener, open: Open::default(), last: 0 }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        let (keep, given_up) = oneshot::channel();
        self.last += 1;
        let number = self.last;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= MAX_CONNECTIONS {
            open.pop_first();
        }
        open.insert(number, keep);
        drop(open);
        let place = Place { open: Arc::clone(&self.open), number };
        (Connection { stream, given_up: Some(given_up), _place: place }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Leaves the list with its connection.
struct Place {
    open: Open,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

/// A connection that ends when it is given up.
pub(super) struct Connection {
    stream: TcpStream,
    /// `None`: given up.
    given_up: Option<oneshot::Receiver<()>>,
    _place: Place,
}

impl Connection {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let over = self.given_up.as_mut().is_none_or(|given_up| Pin::new(given_up).poll(context).is_ready());
        if over {
            self.given_up = None;
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
