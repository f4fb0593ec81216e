//! A transport that forgets what arrived before a request leaves.
//!
//! tokio-modbus matches RTU answers by unit and function only. An answer that comes after its time-out would be taken for the answer to the
//! next request of the same unit, and from then on every answer would be one behind.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// More than this before one request is no late answer (at most 260 bytes each) but a line that somebody talks on without end; it must
/// not keep us from asking.
const MOST_STALE_BYTES: usize = 4_096;

/// Discards everything that can be read before the first byte of each request is written.
#[derive(Debug)]
pub(super) struct Drain<S> {
    inner: S,
    /// A request is being written: what can be read now has been discarded.
    writing: bool,
}

impl<S> Drain<S> {
    pub(super) const fn new(inner: S) -> Self {
        Self { inner, writing: false }
    }
}

impl<S: AsyncRead + Unpin> Drain<S> {
    fn discard(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let mut discarded = 0;
        while discarded < MOST_STALE_BYTES {
            let mut storage = [0; 256];
            let mut buffer = ReadBuf::new(&mut storage);
            match Pin::new(&mut self.inner).poll_read(context, &mut buffer) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(error),
                // The end: better known before the request than after its time-out.
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
                Poll::Ready(Ok(())) => discarded += buffer.filled().len(),
            }
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Drain<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.writing = false;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        if buffer.filled().len() == before && buffer.remaining() > 0 {
            // tokio-modbus reports an end as whatever the last system error was.
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Drain<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.writing {
            self.discard(context)?;
            self.writing = true;
        }
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was written is on its way. tokio-serial's flush is `tcdrain`: it would hold this thread, and with one core the control
        // loop, until the last bit has left, and for as long as an adapter hangs.
        self.writing = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_came_before_a_request_is_gone_and_what_comes_after_is_not() {
        let (ours, mut theirs) = duplex(1_024);
        let mut drain = Drain::new(ours);
        theirs.write_all(&[1; 600]).await.unwrap();
        for request in [b"first", b"later"] {
            drain.write_all(request).await.unwrap();
            drain.flush().await.unwrap();
            let mut read = [0; 5];
            theirs.read_exact(&mut read).await.unwrap();
            assert_eq!(&read, request);
            theirs.write_all(b"answer").await.unwrap();
            let mut answer = [0; 6];
            drain.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"answer");
            theirs.write_all(b"late").await.unwrap();
        }
    }

    /// A line whose flush would wait until the last bit has left, and hold the thread meanwhile.
    struct Slow(tokio::io::DuplexStream);

    impl AsyncRead for Slow {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(context, buffer)
        }
    }

    impl AsyncWrite for Slow {
        fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(context, bytes)
        }
        fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
            panic!("waited for the line")
        }
        fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
            panic!("waited for the line")
        }
    }

    #[tokio::test]
    async fn the_line_is_not_waited_for() {
        let (ours, mut theirs) = duplex(1_024);
        let mut drain = Drain::new(Slow(ours));
        for _ in 0..2 {
            drain.write_all(b"first").await.unwrap();
            drain.flush().await.unwrap();
            let mut read = [0; 5];
            theirs.read_exact(&mut read).await.unwrap();
            theirs.write_all(b"stale").await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_closed_connection_is_noticed_before_the_request() {
        let (ours, theirs) = duplex(64);
        drop(theirs);
        let error = Drain::new(ours).write_all(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
