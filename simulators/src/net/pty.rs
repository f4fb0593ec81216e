//! A pair of pseudo terminals as a serial line: one end is a simulated device, the other a path that the daemon opens.

use std::fs::File;
use std::io;

use tokio_serial::{SerialPort, SerialStream};

/// A serial line. The far end stays open here too, so that the line survives a daemon that comes and goes.
#[derive(Debug)]
pub struct Line {
    // A plain file: a serial port of tokio-serial holds a lock (flock) even when it is shared, and the daemon wants the line alone.
    far: File,
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
        let held = File::options().read(true).write(true).open(&path)?;
        drop(far);
        let line = Self { far: held, path };
        line.release();
        Ok((line, near))
    }

    /// The path for the daemon's configuration.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Lets others open the line. A daemon that was killed leaves its exclusive mark (TIOCEXCL) on it as long as we hold it open,
    /// and only root may open it then.
    pub fn release(&self) {
        // Fails only if the terminal is gone, and then whoever opens it will say so.
        let _ = rustix::termios::ioctl_tiocnxcl(&self.far);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_serial::SerialPortBuilderExt;

    #[tokio::test]
    async fn the_line_can_be_opened_for_oneself_again_and_again() {
        let (line, mut near) = Line::open().unwrap();
        for _ in 0..2 {
            let mut opened = tokio_serial::new(line.path(), 19_200).open_native_async().unwrap();
            opened.write_all(b"request").await.unwrap();
            let mut read = [0; 7];
            near.read_exact(&mut read).await.unwrap();
            assert_eq!(&read, b"request");
            drop(opened);
            line.release();
        }
    }
}
