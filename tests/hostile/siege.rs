//! A receiver under attack: the real program, a well-behaved sender all the time, and what both come to.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dt_receiver::config::Limits;
use socket2::{Domain, Socket, Type};

use crate::common::Receiver;
use crate::events::setting;
use crate::sender::Sender;

/// DT gives up after 10 s; by then an answer has to be there.
const PATIENCE: Duration = Duration::from_secs(8);
/// How many senders there are, and how often each sends.
const SENDERS: u64 = 4;
const PERIOD: Duration = Duration::from_millis(20);
/// After so many events a sender takes a new connection.
const EVENTS_OF_CONNECTION: u64 = 25;

/// How long an attack lasts.
pub(crate) fn duration() -> Duration {
    Duration::from_secs(setting("DT_RECEIVER_TEST_HOSTILE_SECONDS", 3))
}

/// Runs an attack for [`duration`] on a receiver with these lines in `[limits]`, once without and once with a quarantine of
/// refused requests; `attack` returns when it is told to stop. DT's traffic has to go on as if nothing was.
pub(crate) fn besiege(
    name: &str,
    limits: &str,
    set: impl Fn(&mut Limits),
    attack: impl Fn(SocketAddr, &AtomicBool) + Sync,
) {
    for quarantine in [false, true] {
        besiege_once(&format!("{name}, quarantine {quarantine}"), limits, quarantine, &set, &attack);
    }
}

fn besiege_once(
    name: &str,
    limits: &str,
    quarantine: bool,
    set: impl Fn(&mut Limits),
    attack: impl Fn(SocketAddr, &AtomicBool) + Sync,
) {
    let folder = tempfile::tempdir().expect("a folder");
    let receiver = start_with(folder.path(), limits, quarantine);
    let mut bound = Limits::default();
    set(&mut bound);
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let before = cpu_ticks(receiver.pid());
    let started = Instant::now();
    let mut waits = thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|device| {
                let (listen, stop, sent) = (receiver.listen, &stop, &sent);
                scope.spawn(move || send_steadily(device, listen, stop, sent))
            })
            .collect();
        let attack = scope.spawn(|| attack(receiver.listen, &stop));
        // At least so long, and until DT's traffic was there.
        while started.elapsed() < duration()
            || sent.load(Ordering::Relaxed) < SENDERS * EVENTS_OF_CONNECTION * 2
        {
            assert!(
                started.elapsed() < duration() + Duration::from_secs(120),
                "{name}: DT's traffic stands still"
            );
            thread::sleep(Duration::from_millis(20));
            if senders.iter().any(thread::ScopedJoinHandle::is_finished) {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        let waits: Vec<Duration> =
            senders.into_iter().flat_map(|sender| sender.join().expect("all 200")).collect();
        attack.join().expect("the attack went as planned");
        waits
    });
    let took = started.elapsed();
    waits.sort_unstable();
    let p99 = waits[waits.len() * 99 / 100];
    let peak = peak_memory(receiver.pid());
    println!(
        "{name}: {} events, p50 {:?}, p99 {p99:?}, max {:?}; {} % of a core; {} MiB of memory at most, {} MiB allowed",
        waits.len(),
        waits[waits.len() / 2],
        waits[waits.len() - 1],
        (cpu_ticks(receiver.pid()) - before) * 1000 / u64::try_from(took.as_millis()).expect("short"),
        peak >> 20,
        bound.max_memory() >> 20,
    );
    assert!(peak <= bound.max_memory(), "{name}: {peak} bytes of memory");
    assert!(waits[waits.len() - 1] < PATIENCE, "{name}: the slowest took {:?}", waits[waits.len() - 1]);
    if setting("DT_RECEIVER_TEST_HOSTILE_P99", 0) == 1 {
        assert!(p99 < Duration::from_millis(100), "{name}: the 99th percentile is {p99:?}");
    }
    let ended = receiver.stop();
    assert_eq!(ended.code(), 0, "{name}: {ended:?}");
    // Whatever was answered 200 is with the sink, once.
    let delivered = fs::read_to_string(folder.path().join("events.ndjson")).expect("the sink's file");
    assert_eq!(delivered.lines().count(), waits.len(), "{name}");
}

/// Starts a receiver with a file of events in `folder`.
pub(crate) fn start(folder: &Path, limits: &str) -> Receiver {
    start_with(folder, limits, false)
}

fn start_with(folder: &Path, limits: &str, quarantine: bool) -> Receiver {
    let config = folder.join("dt-receiver.toml");
    let text = format!(
        "data = '{}'\nquarantine_refused = {quarantine}\n[limits]\n{limits}\n\
         [[connector]]\nname = 'default'\nsecrets = [{{ env = 'DT_SIGNATURE_SECRET' }}]\n\
         [[sink]]\nname = 'file'\ntype = 'file'\npath = '{}'\n",
        folder.join("data").display(),
        folder.join("events.ndjson").display()
    );
    fs::write(&config, text).expect("written");
    let config = config.to_str().expect("text").to_owned();
    Receiver::start(["--config", &config], &[])
}

/// One of DT's senders: it keeps to its plan, whatever the answers take, and wants a 200 for each. Gives how long each took
/// from its planned time.
fn send_steadily(device: u64, listen: SocketAddr, stop: &AtomicBool, sent: &AtomicU64) -> Vec<Duration> {
    let mut waits = Vec::new();
    let mut planned = Instant::now();
    let mut sender = None;
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        thread::sleep(planned.saturating_duration_since(Instant::now()));
        if number % EVENTS_OF_CONNECTION == 0 {
            sender = None;
        }
        let connection = sender.get_or_insert_with(|| Sender::connect(listen).expect("it takes connections"));
        let answer = connection.send(device, number);
        let answer = answer.unwrap_or_else(|| panic!("event {device}/{number}: the connection broke"));
        assert_eq!(answer.status, 200, "event {device}/{number}: {answer:?}");
        waits.push(planned.elapsed());
        sent.fetch_add(1, Ordering::Relaxed);
        planned += PERIOD;
    }
    waits
}

/// Connects from one of many addresses of this machine, as attackers have; `None` when that does not work now.
pub(crate) fn connect_from(attacker: u64, to: SocketAddr) -> Option<TcpStream> {
    let last = u8::try_from(attacker % 200).expect("small") + 2;
    let from = SocketAddr::from((IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
    socket.bind(&from.into()).ok()?;
    socket.connect_timeout(&to.into(), Duration::from_secs(5)).ok()?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.set_write_timeout(Some(Duration::from_secs(5))).ok()?;
    Some(stream)
}

/// The most memory that a process ever had.
pub(crate) fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// The processor time of a process, in hundredths of a second.
pub(crate) fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let after_name = stat.rsplit_once(')').expect("a name").1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number")
}
