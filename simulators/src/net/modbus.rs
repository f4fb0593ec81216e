//! A Modbus device on a TCP port or a serial line. Written without a Modbus crate, so that the daemon's client is checked by a
//! second reading of the specification (MODBUS Application Protocol V1.1b3, Modbus over Serial Line V1.02, Messaging over TCP V1.0b).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The exception code for a function that the device does not have.
const ILLEGAL_FUNCTION: u8 = 1;
/// The exception code for a malformed request.
const ILLEGAL_VALUE: u8 = 3;
/// The most registers in one read: the answer's byte count has one byte, and a PDU 253.
const MOST_REGISTERS: u16 = 125;
/// The largest PDU; a longer length field is not Modbus.
const LARGEST_PDU: usize = 253;

/// Which table a register is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Function 3, 6 and 16.
    Holding,
    /// Function 4.
    Input,
}

/// What a device answers with: the registers, or an exception code.
pub type Answer = Result<Vec<u16>, u8>;

/// The devices on a bus. They are asked from several connections at once. A unit that does not exist answers `None`: silence.
pub trait Bus: Send + Sync + 'static {
    /// Reads `count` registers from `address` on.
    fn read(&self, unit: u8, table: Table, range: (u16, u16)) -> Option<Answer>;

    /// Writes registers from `address` on. An accepted write answers with an empty vector.
    fn write(&self, unit: u8, address: u16, values: &[u16]) -> Option<Answer> {
        let _ = (unit, address, values);
        Some(Err(ILLEGAL_FUNCTION))
    }
}

/// What is wrong with the bus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// It is unplugged: connections are closed and refused, a serial line is silent.
    Away,
    /// It takes requests and never answers.
    Silent,
    /// It answers every request with this exception code.
    Exception(u8),
    /// It answers every request with bytes that are not Modbus.
    Garbage,
}

/// Serves `bus` at `address` until it is dropped. While the fault is [`Fault::Away`] the port is closed.
///
/// # Errors
/// If the address cannot be listened on.
pub async fn serve_tcp(listener: TcpListener, bus: Arc<dyn Bus>, mut fault: watch::Receiver<Fault>) -> io::Result<()> {
    let address: SocketAddr = listener.local_addr()?;
    let mut listener = Some(listener);
    loop {
        if fault.wait_for(|fault| *fault != Fault::Away).await.is_err() {
            return Ok(());
        }
        let open = match listener.take() {
            Some(open) => open,
            None => TcpListener::bind(address).await?,
        };
        // Dropping the set aborts its tasks, which closes their connections.
        let mut connections = JoinSet::new();
        let mut gone = fault.clone();
        loop {
            tokio::select! {
                accepted = open.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    let _ = stream.set_nodelay(true);
                    connections.spawn(serve_connection(stream, bus.clone(), fault.clone()));
                }
                Some(_) = connections.join_next() => {}
                changed = gone.wait_for(|fault| *fault == Fault::Away) => {
                    if changed.is_err() { return Ok(()) }
                    break;
                }
            }
        }
    }
}

async fn serve_connection<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    bus: Arc<dyn Bus>,
    fault: watch::Receiver<Fault>,
) -> io::Result<()> {
    loop {
        let mut header = [0; 7];
        stream.read_exact(&mut header).await?;
        let [transaction_high, transaction_low, protocol_high, protocol_low, length_high, length_low, unit] = header;
        let length = usize::from(u16::from_be_bytes([length_high, length_low]));
        if (protocol_high, protocol_low) != (0, 0) || !(2..=LARGEST_PDU + 1).contains(&length) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a Modbus TCP header"));
        }
        let mut request = vec![0; length - 1];
        stream.read_exact(&mut request).await?;
        let now = *fault.borrow();
        // Garbage over TCP comes in a proper envelope: what is not even that looks like silence, and there is a fault for silence.
        let garbage = (now == Fault::Garbage).then(|| vec![request[0], 3, 0x55, 0xaa, 0x00]);
        if let Some(answer) = garbage.or_else(|| respond(&*bus, unit, &request, now)) {
            let [high, low] = u16::try_from(answer.len() + 1).unwrap_or(0).to_be_bytes();
            let mut frame = vec![transaction_high, transaction_low, 0, 0, high, low, unit];
            frame.extend(answer);
            stream.write_all(&frame).await?;
        }
    }
}

/// Serves `bus` on a serial line until the line is gone.
///
/// # Errors
/// If the line cannot be read or written any more.
pub async fn serve_rtu<S: AsyncRead + AsyncWrite + Unpin>(
    mut line: S,
    bus: Arc<dyn Bus>,
    fault: watch::Receiver<Fault>,
) -> io::Result<()> {
    let mut pending = Vec::new();
    let mut chunk = [0; 256];
    loop {
        let read = line.read(&mut chunk).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        pending.extend_from_slice(&chunk[..read]);
        while let Some(length) = rtu_request_length(&pending) {
            if pending.len() < length {
                break;
            }
            let frame: Vec<u8> = pending.drain(..length).collect();
            let (body, check) = frame.split_at(length - 2);
            if crc(body).to_le_bytes() != check {
                // Out of step: a real device waits for the next silence, and so does the master for its answer.
                pending.clear();
                break;
            }
            let now = *fault.borrow();
            if now == Fault::Garbage {
                line.write_all(&[0x55, 0xaa, 0x00, 0xff, 0x13, 0x37]).await?;
                continue;
            }
            if let Some(answer) = respond(&*bus, body[0], &body[1..], now) {
                let mut frame = vec![body[0]];
                frame.extend(answer);
                let check = crc(&frame).to_le_bytes();
                frame.extend(check);
                line.write_all(&frame).await?;
            }
        }
    }
}

/// The length of the request that `bytes` begin with, as soon as it can be told.
fn rtu_request_length(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [_, 15 | 16, _, _, _, _, count, ..] => Some(9 + usize::from(*count)),
        [_, 15 | 16, ..] | [] | [_] => None,
        _ => Some(8),
    }
}

/// The answer's PDU; `None`: silence.
fn respond(bus: &dyn Bus, unit: u8, request: &[u8], fault: Fault) -> Option<Vec<u8>> {
    let function = request.first().copied()?;
    let answer = match fault {
        Fault::Away | Fault::Silent | Fault::Garbage => return None,
        Fault::Exception(code) => Err(code),
        Fault::None => carry_out(bus, unit, request)?,
    };
    Some(answer.unwrap_or_else(|code| vec![function | 0x80, code]))
}

fn carry_out(bus: &dyn Bus, unit: u8, request: &[u8]) -> Option<Result<Vec<u8>, u8>> {
    let word = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    match *request {
        [function @ (3 | 4), ah, al, ch, cl] => {
            let (address, count) = (word(ah, al), word(ch, cl));
            if count == 0 || count > MOST_REGISTERS {
                return Some(Err(ILLEGAL_VALUE));
            }
            let table = if function == 3 { Table::Holding } else { Table::Input };
            let answer = bus.read(unit, table, (address, count))?;
            Some(answer.map(|words| {
                let mut pdu = vec![function, u8::try_from(words.len() * 2).unwrap_or(u8::MAX)];
                pdu.extend(words.into_iter().flat_map(u16::to_be_bytes));
                pdu
            }))
        }
        [6, ah, al, vh, vl] => {
            let answer = bus.write(unit, word(ah, al), &[word(vh, vl)])?;
            Some(answer.map(|_| request.to_vec()))
        }
        [16, ah, al, ch, cl, bytes, ref values @ ..] if values.len() == usize::from(bytes) && bytes % 2 == 0 => {
            let words: Vec<u16> = values.chunks_exact(2).map(|pair| word(pair[0], pair[1])).collect();
            let answer = bus.write(unit, word(ah, al), &words)?;
            Some(answer.map(|_| vec![16, ah, al, ch, cl]))
        }
        [3 | 4 | 6 | 16, ..] => Some(Err(ILLEGAL_VALUE)),
        _ => Some(Err(ILLEGAL_FUNCTION)),
    }
}

/// CRC-16/MODBUS, sent low byte first.
fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff, |mut crc: u16, byte| {
        crc ^= u16::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xa001 } else { crc >> 1 };
        }
        crc
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_modbus::client::{rtu, tcp};
    use tokio_modbus::prelude::{Client, Reader, Slave, SlaveContext, Writer};

    struct Counter;

    impl Bus for Counter {
        fn read(&self, unit: u8, _: Table, (address, count): (u16, u16)) -> Option<Answer> {
            (unit == 7).then(|| if address > 1000 { Err(2) } else { Ok((address..address + count).collect()) })
        }

        fn write(&self, _: u8, address: u16, values: &[u16]) -> Option<Answer> {
            Some(if address == 1 && values == [5, 6] { Ok(Vec::new()) } else { Err(2) })
        }
    }

    #[test]
    fn the_check_sum_is_that_of_the_serial_line_specification() {
        // Modbus over Serial Line V1.02, the usual example: read 10 holding registers of unit 1.
        assert_eq!(crc(&[0x01, 0x03, 0x00, 0x00, 0x00, 0x0a]).to_le_bytes(), [0xc5, 0xcd]);
    }

    #[tokio::test]
    async fn a_tcp_device_answers_refuses_and_can_be_unplugged() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (switch, fault) = watch::channel(Fault::None);
        let server = tokio::spawn(serve_tcp(listener, Arc::new(Counter), fault));

        let mut client = tcp::connect_slave(address, Slave(7)).await.unwrap();
        assert_eq!(client.read_input_registers(3, 4).await.unwrap().unwrap(), [3, 4, 5, 6]);
        assert_eq!(u8::from(client.read_holding_registers(2000, 1).await.unwrap().unwrap_err()), 2);
        client.write_multiple_registers(1, &[5, 6]).await.unwrap().unwrap();
        switch.send(Fault::Exception(4)).unwrap();
        assert_eq!(u8::from(client.read_input_registers(3, 4).await.unwrap().unwrap_err()), 4);

        switch.send(Fault::Away).unwrap();
        assert!(client.read_input_registers(3, 4).await.is_err());
        switch.send(Fault::None).unwrap();
        let mut client = loop {
            match tcp::connect_slave(address, Slave(7)).await {
                Ok(client) => break client,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        assert_eq!(client.read_input_registers(0, 1).await.unwrap().unwrap(), [0]);
        server.abort();
    }

    #[tokio::test]
    async fn a_serial_device_answers_its_own_unit_only() {
        let (near, far) = tokio::io::duplex(512);
        let (_switch, fault) = watch::channel(Fault::None);
        let server = tokio::spawn(serve_rtu(near, Arc::new(Counter), fault));
        let mut client = rtu::attach_slave(far, Slave(7));
        assert_eq!(client.read_holding_registers(10, 2).await.unwrap().unwrap(), [10, 11]);
        client.write_multiple_registers(1, &[5, 6]).await.unwrap().unwrap();
        client.set_slave(Slave(8));
        let silence =
            tokio::time::timeout(std::time::Duration::from_millis(50), client.read_holding_registers(10, 2)).await;
        assert!(silence.is_err());
        client.disconnect().await.ok();
        server.abort();
    }
}
