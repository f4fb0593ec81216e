//! One line: requests go out one at a time, and come back answered, refused, or not at all.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_modbus::client::{Client, Context, rtu, tcp};
use tokio_modbus::slave::SlaveContext;
use tokio_modbus::{Error, ExceptionCode, Response, Slave};

use super::dial::{Connect, Wire, unreachable};
use super::drain::Drain;
use crate::engine::modbus::{Function, Request, exception};
use crate::engine::model::reading::DeviceFault;

/// The silence after a time-out on lines where a late answer looks like the next one. Together with the time-out itself a device has
/// had half a second more than it was given; what arrives in between is drained.
const GUARD: Duration = Duration::from_millis(500);
/// A serial adapter that swallowed that many requests in a row is opened anew: some hang after a disturbance until then.
const REOPEN_AFTER: u32 = 5;
/// Modbus over Serial Line V1.02 §2.5.1.1: 3.5 characters, and never less than 1.75 ms.
const SHORTEST_SILENCE: Duration = Duration::from_micros(1_750);

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The line cannot be used; this concerns every device on it.
    Line(DeviceFault),
    /// The device; others may answer.
    Device(DeviceFault),
}

/// A line with its connection, if there is one.
pub(super) struct Line<C> {
    connect: C,
    wire: Wire,
    context: Option<Context>,
    pause: Duration,
    connect_delay: Duration,
    quiet_until: Instant,
    /// This connection has carried an answer: if it breaks it may just have been closed as idle.
    proven: bool,
    /// Time-outs since the last answer.
    unanswered: u32,
}

impl<C: Connect> Line<C> {
    pub(super) fn new(connect: C, pause: Duration, connect_delay: Duration) -> Self {
        let wire = connect.wire();
        let silence =
            if wire.keep_after_timeout { SHORTEST_SILENCE.max(wire.per_byte * 7 / 2) } else { Duration::ZERO };
        Self {
            connect,
            wire,
            context: None,
            pause: pause.max(silence),
            connect_delay,
            quiet_until: Instant::now(),
            proven: false,
            unanswered: 0,
        }
    }

    /// How long the line stays silent after a time-out.
    pub(super) const fn guard(&self) -> Duration {
        if self.wire.rtu { GUARD } else { Duration::ZERO }
    }

    /// Waits until a request may leave: connected, and silent for long enough.
    pub(super) async fn ready(&mut self) -> Result<(), Failure> {
        // Also without a connection: behind a converter the late answer would come on the new one.
        sleep_until(self.quiet_until).await;
        if self.context.is_none() {
            let stream = self.connect.connect().await.map_err(|error| self.line_failure(&error))?;
            sleep(self.connect_delay).await;
            // The unit id is set before each request.
            let unit = Slave(0);
            let stream = Drain::new(stream);
            self.context =
                Some(if self.wire.rtu { rtu::attach_slave(stream, unit) } else { tcp::attach_slave(stream, unit) });
            self.proven = false;
        }
        Ok(())
    }

    /// Sends a request and waits for its answer: exactly as many words as asked for.
    pub(super) async fn ask(&mut self, unit: u8, patience: Duration, request: Request) -> Result<Vec<u16>, Failure> {
        self.ready().await?;
        let retry = self.proven;
        match self.exchange(unit, patience, request).await {
            // Converters and inverters close connections that were idle for a while; that is no fault of the device.
            Err(Trouble::Broken(_)) if retry => {
                self.ready().await?;
                self.exchange(unit, patience, request).await
            }
            result => result,
        }
        .map_err(|trouble| match trouble {
            Trouble::Broken(error) => self.line_failure(&error),
            Trouble::Fault(fault) => Failure::Device(fault),
        })
    }

    fn line_failure(&self, error: &io::Error) -> Failure {
        Failure::Line(unreachable(&self.connect, error))
    }

    async fn exchange(&mut self, unit: u8, patience: Duration, request: Request) -> Result<Vec<u16>, Trouble> {
        let Some(context) = &mut self.context else { return Err(Trouble::Broken(io::ErrorKind::NotConnected.into())) };
        context.set_slave(Slave(unit));
        let Request { function, address, count } = request;
        let wire_request = match function {
            Function::Input => tokio_modbus::Request::ReadInputRegisters(address, count),
            Function::Holding => tokio_modbus::Request::ReadHoldingRegisters(address, count),
            Function::Coil => tokio_modbus::Request::ReadCoils(address, count),
            Function::Discrete => tokio_modbus::Request::ReadDiscreteInputs(address, count),
        };
        // The request has 8 bytes, the answer 5 and the words; on a slow line they take longer than the device does.
        let on_the_wire = self.wire.per_byte * (13 + 2 * u32::from(count));
        // Not `read_holding_registers`: the readers of tokio-modbus check the count in debug builds only, and by a panic.
        let result = timeout(patience + on_the_wire, context.call(wire_request)).await;
        self.quiet_until = Instant::now() + self.pause;
        match result {
            Err(_elapsed) => {
                self.after_timeout();
                Err(Trouble::Fault(DeviceFault::Timeout))
            }
            Ok(Ok(answer)) => {
                self.unanswered = 0;
                self.proven = true;
                answer.map_err(|code| Trouble::Fault(refusal(code))).and_then(|response| self.words(response, request))
            }
            Ok(Err(Error::Protocol(error))) => {
                self.after_stray();
                Err(Trouble::Fault(DeviceFault::Garbage(error.to_string())))
            }
            Ok(Err(Error::Transport(error))) => {
                // The framing has given up on this stream, whatever the reason.
                self.context = None;
                match error.kind() {
                    io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                        self.after_stray();
                        Err(Trouble::Fault(DeviceFault::Garbage(error.to_string())))
                    }
                    _ => Err(Trouble::Broken(error)),
                }
            }
        }
    }

    fn words(&mut self, response: Response, request: Request) -> Result<Vec<u16>, Trouble> {
        match response {
            Response::ReadHoldingRegisters(words) | Response::ReadInputRegisters(words)
                if words.len() == usize::from(request.count) =>
            {
                Ok(words)
            }
            // Bits come in whole bytes.
            Response::ReadCoils(bits) | Response::ReadDiscreteInputs(bits)
                if bits.len() >= usize::from(request.count) =>
            {
                Ok(bits.into_iter().take(usize::from(request.count)).map(u16::from).collect())
            }
            Response::ReadHoldingRegisters(words) | Response::ReadInputRegisters(words) => {
                // Possibly the answer to another request.
                self.after_stray();
                let message = format!("{} registers instead of {}", words.len(), request.count);
                Err(Trouble::Fault(DeviceFault::Garbage(message)))
            }
            other => {
                self.after_stray();
                Err(Trouble::Fault(DeviceFault::Garbage(format!("an answer to another question: {other:?}"))))
            }
        }
    }

    fn after_timeout(&mut self) {
        self.unanswered += 1;
        let hangs = self.unanswered.is_multiple_of(REOPEN_AFTER);
        self.quiet_until = Instant::now() + self.guard().max(self.pause);
        if !self.wire.keep_after_timeout || hangs {
            self.context = None;
        }
    }

    /// An answer that belongs to something else: the one asked for may still come.
    fn after_stray(&mut self) {
        self.quiet_until = Instant::now() + self.guard().max(self.pause);
        if !self.wire.keep_after_timeout {
            self.context = None;
        }
    }
}

enum Trouble {
    /// The stream is unusable.
    Broken(io::Error),
    /// It is usable, or replaced at the next request; this device gave no answer.
    Fault(DeviceFault),
}

fn refusal(code: ExceptionCode) -> DeviceFault {
    exception(code.into())
}
