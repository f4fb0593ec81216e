//! A pair of pseudo terminals as a serial line: one end is a simulated device, the other a path that the daemon opens.

use std::io;

use tokio_serial::{SerialPort, SerialStream};

/// A serial line. The far end stays open here too, so that the line survives a daemon that comes and goes.
#[derive(Debug)]
pub struct Line {
    far: SerialStream,
    path: String,
}

impl Line {
    /// Makes the pair: the line, and the device's end of it. Needs a tokio runtime.
    ///
    /// # Errors
    /// If the system has no pseudo terminal left.
    pub fn open() -> io::Result<(Self, SerialStream)> {
        let (near, far) = SerialStream::pair().map_err(io::Error::from)?;
        let path = far.name().ok_or_else(|| io::Error::other("the pseudo terminal has no name"))?;
        let mut line = Self { far, path };
        line.release();
        Ok((line, near))
    }

    /// The path for the daemon's configuration.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Lets others open the line. A daemon that was killed leaves its exclusive mark (TIOCEXCL) on it as long as we hold it open.
    pub fn release(&mut self) {
        // Fails only if the terminal is gone, and then whoever opens it will say so.
        let _ = self.far.set_exclusive(false);
    }
}
