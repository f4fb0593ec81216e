//! Opening a line.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_serial::SerialStream;

use crate::engine::modbus::connection::{Connection, Parity, SerialLine};
use crate::engine::model::reading::DeviceFault;

/// A device on the local network answers within milliseconds. A device that was off needs our second SYN (after 1 s) once it is back.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A byte stream to a line.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug> Transport for T {}

/// How requests travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wire {
    /// RTU frames: answers carry no transaction number, so a late one looks like the next.
    pub(super) rtu: bool,
    /// The stream is kept after a time-out. A TCP connection is not: a new one is free of late answers.
    pub(super) keep_after_timeout: bool,
    /// How long one byte takes; zero for networks.
    pub(super) per_byte: Duration,
}

/// Something that opens a line, as often as it is asked to.
pub(super) trait Connect: Send {
    /// How requests travel on the line.
    fn wire(&self) -> Wire;
    /// What to call the line, and what to check when it fails, in messages.
    fn describe(&self, error: &io::Error) -> String;
    /// Opens the line.
    fn connect(&mut self) -> impl Future<Output = io::Result<Box<dyn Transport>>> + Send;
}

/// Opens real lines.
#[derive(Debug)]
pub(super) struct Dial {
    connection: Connection,
}

impl Dial {
    pub(super) const fn new(connection: Connection) -> Self {
        Self { connection }
    }
}

impl Connect for Dial {
    fn wire(&self) -> Wire {
        match &self.connection {
            Connection::Tcp(..) => Wire { rtu: false, keep_after_timeout: false, per_byte: Duration::ZERO },
            Connection::RtuOverTcp(..) => Wire { rtu: true, keep_after_timeout: false, per_byte: Duration::ZERO },
            // Start, 8 data, parity and stop: 11 bits (Modbus over Serial Line V1.02 §2.5.1).
            Connection::Serial(line) => {
                Wire { rtu: true, keep_after_timeout: true, per_byte: Duration::from_secs(11) / line.baud.max(1) }
            }
        }
    }

    fn describe(&self, error: &io::Error) -> String {
        let error = if error.kind() == io::ErrorKind::UnexpectedEof {
            "closed by the other side".to_owned()
        } else {
            error.to_string()
        };
        match &self.connection {
            Connection::Serial(line) => format!(
                "{}: {error}; check that the adapter is plugged in, that the path is right (ls -l /dev/serial/by-id), that the daemon's user \
                 is in the group dialout, and that no other program uses it",
                line.path
            ),
            connection @ (Connection::Tcp(..) | Connection::RtuOverTcp(..)) => format!(
                "{connection}: {error}; check that the device is on, that address and port are right, that Modbus TCP is switched on in \
                 it, and that no other program holds its connection"
            ),
        }
    }

    async fn connect(&mut self) -> io::Result<Box<dyn Transport>> {
        match &self.connection {
            Connection::Tcp(host, port) | Connection::RtuOverTcp(host, port) => {
                let connecting = timeout(CONNECT_TIMEOUT, TcpStream::connect((host.as_str(), *port)));
                let stream = connecting.await.map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
                // A request is one small segment: it must not wait for the acknowledgement of the one before.
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Connection::Serial(line) => Ok(Box::new(open_serial(line)?)),
        }
    }
}

fn open_serial(line: &SerialLine) -> io::Result<SerialStream> {
    let builder = tokio_serial::new(&line.path, line.baud)
        .parity(match line.parity {
            Parity::None => tokio_serial::Parity::None,
            Parity::Even => tokio_serial::Parity::Even,
            Parity::Odd => tokio_serial::Parity::Odd,
        })
        .stop_bits(if line.stop_bits == 2 { tokio_serial::StopBits::Two } else { tokio_serial::StopBits::One })
        .data_bits(if line.data_bits == 7 { tokio_serial::DataBits::Seven } else { tokio_serial::DataBits::Eight });
    SerialStream::open(&builder).map_err(io::Error::from)
}

/// The fault that a line which cannot be used is.
pub(super) fn unreachable(connect: &impl Connect, error: &io::Error) -> DeviceFault {
    DeviceFault::Unreachable(connect.describe(error))
}
