//! The bus driver against devices of our own, in virtual time over pipes, and in real time over a pty and TCP.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_serial::SerialStream;

use super::dial::{Connect, Transport, Wire};
use super::*;
use crate::engine::modbus::connection::{Parity, SerialLine};
use crate::engine::units::{Current, Phase};

const SERIAL: Wire = Wire { rtu: true, keep_after_timeout: true, per_byte: Duration::from_micros(1_146) };
const TCP: Wire = Wire { rtu: false, keep_after_timeout: false, per_byte: Duration::ZERO };

/// Hands the other end of each connection to the test.
struct Bench {
    wire: Wire,
    up: Arc<AtomicBool>,
    dialled: mpsc::Sender<DuplexStream>,
}

impl Connect for Bench {
    fn wire(&self) -> Wire {
        self.wire
    }

    fn describe(&self, error: &io::Error) -> String {
        format!("bench: {error}")
    }

    async fn connect(&mut self) -> io::Result<Box<dyn Transport>> {
        if !self.up.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, theirs) = duplex(1_024);
        self.dialled.send(theirs).await.map_err(|_closed| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        Ok(Box::new(ours))
    }
}

/// One register, holding tenths of an ampere on L1.
fn map() -> DeviceMap {
    let text = r#"
        manufacturer = "Test"
        model = "One register"
        kind = "meter"
        [[values]]
        name = "current_l1_a"
        address = 7
        type = "u16"
        scale = 0.1
    "#;
    DeviceMap::parse(text).unwrap()
}

fn meter(index: usize, unit_id: u8, interval_ms: u64) -> DevicePlan {
    DevicePlan { target: Target::Meter(MeterIndex(index)), unit_id, interval_ms, reads: Reads::Map(map()) }
}

struct Rig {
    up: Arc<AtomicBool>,
    dialled: mpsc::Receiver<DuplexStream>,
    inputs: mpsc::Receiver<Input>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

fn rig(wire: Wire, devices: Vec<DevicePlan>, inbox: usize) -> Rig {
    let up = Arc::new(AtomicBool::new(true));
    let (dialled_in, dialled) = mpsc::channel(64);
    let (inbox, inputs) = mpsc::channel(inbox);
    let (stop, stopped) = watch::channel(false);
    let bench = Bench { wire, up: Arc::clone(&up), dialled: dialled_in };
    let task = tokio::spawn(run_with(bench, devices, Clock::start(), inbox, stopped));
    Rig { up, dialled, inputs, stop, task }
}

type Outcome = Result<i32, DeviceFault>;

/// The next input as (meter, milliamperes on L1 or fault).
async fn next(inputs: &mut mpsc::Receiver<Input>) -> (usize, Outcome) {
    match timeout(Duration::from_secs(600), inputs.recv()).await.unwrap().unwrap() {
        Input::Meter { meter, result, .. } => {
            (meter.0, result.map(|reading| reading.current.of(Phase::L1).map_or(-1, Current::ma)))
        }
        other => panic!("not a meter's poll: {other:?}"),
    }
}

/// CRC of Modbus over Serial Line V1.02 §6.2.2, bit by bit, so that it is not the crate's own.
fn crc(bytes: &[u8]) -> [u8; 2] {
    let mut crc = 0xFFFF_u16;
    for byte in bytes {
        crc ^= u16::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xA001 } else { crc >> 1 };
        }
    }
    crc.to_le_bytes()
}

fn frame(body: &[u8]) -> Vec<u8> {
    let mut frame = body.to_vec();
    frame.extend(crc(body));
    frame
}

fn holding(unit: u8, word: u16) -> Vec<u8> {
    let [high, low] = word.to_be_bytes();
    frame(&[unit, 3, 2, high, low])
}

async fn rtu_request(stream: &mut (impl AsyncRead + Unpin)) -> [u8; 8] {
    let mut request = [0; 8];
    stream.read_exact(&mut request).await.unwrap();
    assert_eq!(request[6..], crc(&request[..6]), "{request:X?}");
    request
}

/// A slave on a serial line that answers its requests one after the other with the bytes given, then is silent. The line may be opened
/// anew in between.
fn scripted(mut dialled: mpsc::Receiver<DuplexStream>, answers: Vec<Vec<u8>>) {
    tokio::spawn(async move {
        let mut answers = VecDeque::from(answers);
        while let Some(mut stream) = dialled.recv().await {
            let mut request = [0; 8];
            while stream.read_exact(&mut request).await.is_ok() {
                assert_eq!(request, frame(&[1, 3, 0, 7, 0, 1])[..]);
                if let Some(answer) = answers.pop_front() {
                    stream.write_all(&answer).await.unwrap();
                }
            }
        }
    });
}

async fn outcomes(answers: Vec<Vec<u8>>) -> Vec<Outcome> {
    let wanted = answers.len();
    let mut rig = rig(SERIAL, vec![meter(0, 1, 500)], 64);
    scripted(rig.dialled, answers);
    let mut outcomes = Vec::new();
    for _ in 0..wanted {
        outcomes.push(next(&mut rig.inputs).await.1);
    }
    outcomes
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_never_taken_for_the_next_one() {
    // Up to the end of the guard time of 500 ms after a time-out of 1 s; the interval alone would ask again much earlier.
    for late_ms in [1_100, 1_300, 1_500] {
        let mut rig = rig(SERIAL, vec![meter(0, 1, 10)], 64);
        let mut stream = rig.dialled.recv().await.unwrap();
        let first = tokio::spawn(async move {
            rtu_request(&mut stream).await;
            sleep(Duration::from_millis(late_ms)).await;
            stream.write_all(&holding(1, 100)).await.unwrap();
            for word in [500, 600] {
                rtu_request(&mut stream).await;
                stream.write_all(&holding(1, word)).await.unwrap();
            }
            stream
        });
        assert_eq!(next(&mut rig.inputs).await, (0, Err(DeviceFault::Timeout)));
        assert_eq!(next(&mut rig.inputs).await, (0, Ok(50_000)), "{late_ms} ms");
        assert_eq!(next(&mut rig.inputs).await, (0, Ok(60_000)), "{late_ms} ms");
        first.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_exception_is_reported_as_what_it_is() {
    let outcomes = outcomes(vec![frame(&[1, 0x83, 2]), holding(1, 160)]).await;
    let exception = DeviceFault::Exception { code: 2, meaning: "illegal data address".to_owned() };
    assert_eq!(outcomes, [Err(exception), Ok(16_000)]);
}

#[tokio::test(start_paused = true)]
async fn garbage_and_half_frames_cost_one_poll() {
    for nonsense in [vec![0xA5; 40], holding(1, 160)[..4].to_vec(), vec![0x00], vec![0xFF; 300], {
        let mut bad = holding(1, 160);
        bad[5] ^= 1;
        bad
    }] {
        let outcomes = outcomes(vec![nonsense.clone(), holding(1, 160)]).await;
        assert!(
            matches!(outcomes[0], Err(DeviceFault::Timeout | DeviceFault::Garbage(_))),
            "{nonsense:X?}: {outcomes:?}"
        );
        assert_eq!(outcomes[1], Ok(16_000), "{nonsense:X?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_answer_of_another_unit_or_of_another_length_is_garbage() {
    let short = frame(&[1, 3, 0]);
    let long = frame(&[1, 3, 4, 0, 1, 0, 2]);
    let function = frame(&[1, 4, 2, 0, 1]);
    let outcomes = outcomes(vec![holding(2, 1), short, long, function, holding(1, 160)]).await;
    for outcome in &outcomes[..4] {
        assert!(matches!(outcome, Err(DeviceFault::Garbage(_))), "{outcomes:?}");
    }
    assert_eq!(outcomes[4], Ok(16_000));
}

/// A Modbus TCP device with that register content, for as long as the connection lasts.
async fn tcp_device(mut stream: impl AsyncRead + AsyncWrite + Unpin, word: u16) {
    let mut request = [0; 12];
    while stream.read_exact(&mut request).await.is_ok() {
        assert_eq!(request[4..], [0, 6, 1, 3, 0, 7, 0, 1], "{request:X?}");
        let [high, low] = word.to_be_bytes();
        let answer = [request[0], request[1], 0, 0, 0, 5, 1, 3, 2, high, low];
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_gone_is_read_again_within_two_seconds_of_its_return() {
    let mut rig = rig(TCP, vec![meter(0, 1, 500)], 64);
    let device = tokio::spawn(tcp_device(rig.dialled.recv().await.unwrap(), 160));
    assert_eq!(next(&mut rig.inputs).await, (0, Ok(16_000)));
    rig.up.store(false, Ordering::SeqCst);
    device.abort();
    let gone = Instant::now();
    while gone.elapsed() < Duration::from_secs(120) {
        let (_, outcome) = next(&mut rig.inputs).await;
        assert!(
            matches!(outcome, Err(DeviceFault::Unreachable(_))) || gone.elapsed() < Duration::from_secs(1),
            "{outcome:?}"
        );
    }
    rig.up.store(true, Ordering::SeqCst);
    let back = Instant::now();
    let stream = rig.dialled.recv().await.unwrap();
    tokio::spawn(tcp_device(stream, 170));
    assert_eq!(next(&mut rig.inputs).await, (0, Ok(17_000)));
    assert!(back.elapsed() <= Duration::from_secs(2), "{:?}", back.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_tcp_connection_is_replaced_after_a_timeout_and_after_it_was_closed_as_idle() {
    let mut rig = rig(TCP, vec![meter(0, 1, 500)], 64);
    let silent = rig.dialled.recv().await.unwrap();
    assert_eq!(next(&mut rig.inputs).await, (0, Err(DeviceFault::Timeout)));
    let device = tokio::spawn(tcp_device(rig.dialled.recv().await.unwrap(), 160));
    assert_eq!(next(&mut rig.inputs).await, (0, Ok(16_000)));
    drop(silent);
    device.abort();
    let stream = rig.dialled.recv().await.unwrap();
    tokio::spawn(tcp_device(stream, 170));
    assert_eq!(
        next(&mut rig.inputs).await,
        (0, Ok(17_000)),
        "no fault is reported for an idle connection that was closed"
    );
}

#[tokio::test(start_paused = true)]
async fn a_dead_unit_cannot_starve_a_live_one_and_is_read_again_when_it_comes_back() {
    let mut rig = rig(SERIAL, vec![meter(0, 1, 500), meter(1, 2, 500)], 64);
    let alive = Arc::new(AtomicBool::new(false));
    let mut stream = rig.dialled.recv().await.unwrap();
    let second = Arc::clone(&alive);
    tokio::spawn(async move {
        loop {
            let unit = rtu_request(&mut stream).await[0];
            if unit == 1 || second.load(Ordering::SeqCst) {
                stream.write_all(&holding(unit, 10 * u16::from(unit))).await.unwrap();
            }
        }
    });
    let start = Instant::now();
    let (mut live, mut longest_gap, mut last) = (0, Duration::ZERO, start);
    while start.elapsed() < Duration::from_secs(120) {
        match next(&mut rig.inputs).await {
            (0, outcome) => {
                assert_eq!(outcome, Ok(1_000));
                live += 1;
                longest_gap = longest_gap.max(last.elapsed());
                last = Instant::now();
            }
            (_, outcome) => assert_eq!(outcome, Err(DeviceFault::Timeout)),
        }
    }
    assert!(live >= 190, "{live} of 240 polls of the live unit");
    assert!(longest_gap <= Duration::from_millis(2_100), "{longest_gap:?} between two readings of the live unit");
    alive.store(true, Ordering::SeqCst);
    let back = Instant::now();
    while next(&mut rig.inputs).await != (1, Ok(2_000)) {}
    assert!(back.elapsed() <= Duration::from_secs(16), "{:?}", back.elapsed());
}

#[tokio::test(start_paused = true)]
async fn when_the_whole_line_was_dead_all_units_are_back_at_once() {
    let mut rig = rig(SERIAL, vec![meter(0, 1, 500), meter(1, 2, 500)], 64);
    let mut stream = rig.dialled.recv().await.unwrap();
    let powered = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&powered);
    tokio::spawn(async move {
        loop {
            let mut request = [0; 8];
            if stream.read_exact(&mut request).await.is_err() {
                // The adapter was opened anew.
                stream = rig.dialled.recv().await.unwrap();
            } else if switch.load(Ordering::SeqCst) {
                stream.write_all(&holding(request[0], 10)).await.unwrap();
            }
        }
    });
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(300) {
        assert_eq!(next(&mut rig.inputs).await.1, Err(DeviceFault::Timeout));
    }
    powered.store(true, Ordering::SeqCst);
    let back = Instant::now();
    let mut seen = [false; 2];
    while seen != [true; 2] {
        let (index, outcome) = next(&mut rig.inputs).await;
        seen[index] |= outcome.is_ok();
    }
    assert!(back.elapsed() <= Duration::from_secs(4), "{:?}", back.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_full_inbox_delays_polls_and_loses_none() {
    let mut rig = rig(SERIAL, vec![meter(0, 1, 500)], 1);
    scripted(rig.dialled, (1..=4).map(|word| holding(1, word * 10)).collect());
    sleep(Duration::from_secs(60)).await;
    for amperes in 1..=4 {
        assert_eq!(next(&mut rig.inputs).await, (0, Ok(amperes * 1_000)));
    }
}

#[tokio::test(start_paused = true)]
async fn it_stops_in_the_middle_of_a_request() {
    let mut rig = rig(SERIAL, vec![meter(0, 1, 500)], 1);
    let mut stream = rig.dialled.recv().await.unwrap();
    rtu_request(&mut stream).await;
    rig.stop.send(true).unwrap();
    timeout(Duration::from_millis(1), rig.task).await.unwrap().unwrap();
}

/// Hands out one real stream, then none.
struct Once(Option<SerialStream>);

impl Connect for Once {
    fn wire(&self) -> Wire {
        SERIAL
    }

    fn describe(&self, error: &io::Error) -> String {
        format!("pty: {error}")
    }

    async fn connect(&mut self) -> io::Result<Box<dyn Transport>> {
        let stream = self.0.take().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(stream))
    }
}

#[tokio::test]
async fn over_a_real_pty_until_it_is_unplugged() {
    let (ours, mut theirs) = SerialStream::pair().unwrap();
    let slave = tokio::spawn(async move {
        for word in 1..=20_u16 {
            rtu_request(&mut theirs).await;
            theirs.write_all(&holding(1, word * 10)).await.unwrap();
        }
    });
    let (inbox, mut inputs) = mpsc::channel(64);
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(run_with(Once(Some(ours)), vec![meter(0, 1, 1)], Clock::start(), inbox, stopped));
    for amperes in 1..=20 {
        assert_eq!(next(&mut inputs).await, (0, Ok(amperes * 1_000)));
    }
    slave.await.unwrap();
    let (_, outcome) = next(&mut inputs).await;
    assert!(matches!(&outcome, Err(DeviceFault::Unreachable(text)) if text.contains("pty")), "{outcome:?}");
}

#[tokio::test]
async fn over_a_serial_device_opened_by_its_path() {
    use tokio_serial::SerialPort;
    let (mut theirs, named) = SerialStream::pair().unwrap();
    let path = named.name().unwrap();
    // Closed, so that it can be opened by its path; until then reading at the other end fails.
    drop(named);
    tokio::spawn(async move {
        let mut request = [0; 8];
        loop {
            if theirs.read_exact(&mut request).await.is_ok() {
                theirs.write_all(&holding(1, 160)).await.unwrap();
            } else {
                tokio::task::yield_now().await;
            }
        }
    });
    let (inbox, mut inputs) = mpsc::channel(64);
    let (_stop, stopped) = watch::channel(false);
    let connection = Connection::parse(&format!("rtu://{path}?baud=19200&parity=even&stop=2")).unwrap();
    let plan = BusPlan { connection, devices: vec![meter(0, 1, 1)] };
    tokio::spawn(run(plan, Clock::start(), inbox, stopped));
    for _ in 0..10 {
        assert_eq!(next(&mut inputs).await, (0, Ok(16_000)));
    }
}

#[tokio::test]
async fn over_real_tcp() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let connection = Connection::parse(&format!("tcp://{}", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(async move {
        // The first connection breaks before the first answer.
        drop(listener.accept().await.unwrap());
        loop {
            tcp_device(listener.accept().await.unwrap().0, 160).await;
        }
    });
    let (inbox, mut inputs) = mpsc::channel(64);
    let (stop, stopped) = watch::channel(false);
    let plan = BusPlan { connection, devices: vec![meter(3, 1, 10)] };
    let clock = Clock::start();
    let task = tokio::spawn(run(plan, clock, inbox, stopped));
    let (_, broken) = next(&mut inputs).await;
    assert!(matches!(&broken, Err(DeviceFault::Unreachable(text)) if text.contains("check that")), "{broken:?}");
    for _ in 0..10 {
        assert_eq!(next(&mut inputs).await, (3, Ok(16_000)));
    }
    stop.send(true).unwrap();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_serial_adapter_that_is_not_there_is_named_with_what_to_check() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ttyUSB0").to_str().unwrap().to_owned();
    let line = SerialLine { path: path.clone(), baud: 9_600, parity: Parity::None, stop_bits: 1, data_bits: 8 };
    let (inbox, mut inputs) = mpsc::channel(64);
    let (_stop, stopped) = watch::channel(false);
    let plan = BusPlan { connection: Connection::Serial(line), devices: vec![meter(0, 1, 500), meter(1, 2, 500)] };
    tokio::spawn(run(plan, Clock::start(), inbox, stopped));
    for index in [0, 1, 0, 1] {
        let (meter, outcome) = next(&mut inputs).await;
        assert_eq!(meter, index, "each device on the line is told");
        let Err(DeviceFault::Unreachable(text)) = outcome else { panic!("{outcome:?}") };
        assert!(text.contains(&path) && text.contains("plugged in"), "{text}");
    }
}

#[test]
fn devices_that_share_a_line_share_its_task() {
    let connection = |url| Connection::parse(url).unwrap();
    let grouped = BusPlan::group(vec![
        (connection("tcp://gw:502"), meter(0, 1, 500)),
        (connection("rtu:///dev/ttyUSB0"), meter(1, 1, 500)),
        (connection("tcp://gw:502"), meter(2, 2, 500)),
    ])
    .unwrap();
    let sizes: Vec<usize> = grouped.iter().map(|plan| plan.devices.len()).collect();
    assert_eq!(sizes, [2, 1]);
    let clash = BusPlan::group(vec![
        (connection("rtu:///dev/ttyUSB0?baud=9600"), meter(0, 1, 500)),
        (connection("rtu:///dev/ttyUSB0?baud=19200"), meter(1, 2, 500)),
    ]);
    assert!(clash.unwrap_err().contains("/dev/ttyUSB0"));
}
