//! A whole connection: bytes of a client go through the real HTTP stack, and what they amount to arrives at an intake.
//!
//! The first byte says how the client and the intake behave (see [`Behaviour`]), the rest is sent. Time is virtual, and
//! runs whenever nothing else can. The connection must end by itself whatever the client does; what reaches the intake
//! must be signed for its body; and no `200` is answered for anything that did not reach it.
#![no_main]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use dt_receiver_fuzz::NOW;
use dt_receiver_fuzz::oracle::assert_signed_for;
use dt_receiver_fuzz::setups::setup;
use dt_server::config::{ConnectorConfig, Limits};
use dt_server::http::{
    Accepted, Endpoint, Intake, IntakeFuture, Readiness, Routing, Unavailable, serve_connection,
};
use dt_server::telemetry::Telemetry;
use dt_sink::clock::{Clock, ManualClock};
use dt_sink::record::{DeadLetter, Reason, Record};
use dt_verify::SECRET_HEADER;
use libfuzzer_sys::{Corpus, fuzz_target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::Instant;

/// How much the network between the two holds.
const NETWORK: usize = 16 * 1024;

/// The most pieces in which the input is sent.
const MAX_PIECES: usize = 64;

/// The project that the second connector allows: that of the vectors' good deliveries.
const PROJECT: &str = "bhmh0143iktucae701vg";

/// What the first byte says, two bits each.
struct Behaviour {
    piece: usize,
    pause: Duration,
    ends: Ends,
    takes: Takes,
}

/// What happens after the client's last byte.
#[derive(Clone, Copy, PartialEq)]
enum Ends {
    /// It says that there is no more, and waits for the answers.
    HalfCloses,
    /// It waits for the answers.
    Stays,
    /// It goes away.
    Leaves,
    /// It waits for the answers, and the server is told to stop.
    ServerStops,
}

/// What the intake does with what it is given.
#[derive(Clone, Copy, PartialEq)]
enum Takes {
    AsNew,
    AsDuplicate,
    NotNow,
    /// It never says.
    Never,
}

impl Behaviour {
    fn of(byte: u8) -> Self {
        Self {
            piece: [usize::MAX, 1, 17, 256][usize::from(byte & 3)],
            pause: Duration::from_millis([0, 1, 700, 9000][usize::from(byte >> 2 & 3)]),
            ends: [Ends::HalfCloses, Ends::Stays, Ends::Leaves, Ends::ServerStops]
                [usize::from(byte >> 4 & 3)],
            takes: [Takes::AsNew, Takes::AsDuplicate, Takes::NotNow, Takes::Never]
                [usize::from(byte >> 6 & 3)],
        }
    }
}

/// Judges what reaches it.
struct Judge {
    secret: &'static str,
    takes: Takes,
    /// How many were given a reason to be answered with 200.
    taken: AtomicUsize,
}

impl Judge {
    fn answer<T: Send + 'static>(&self, new: T, duplicate: T) -> IntakeFuture<'_, T> {
        let answer = match self.takes {
            Takes::AsNew => Ok(new),
            Takes::AsDuplicate => Ok(duplicate),
            Takes::NotNow => Err(Unavailable::Storage),
            Takes::Never => return IntakeFuture::boxed(std::future::pending()),
        };
        self.taken.fetch_add(usize::from(answer.is_ok()), Ordering::SeqCst);
        IntakeFuture::Ready(answer)
    }
}

impl Intake for Judge {
    fn accept(&self, connector: usize, record: Record) -> IntakeFuture<'_, Accepted> {
        let signatures = record.headers.signatures();
        let mut tokens = signatures.iter().filter(|(name, _)| *name == SECRET_HEADER);
        let (_, token) = tokens.next().expect("a record without a token");
        assert!(tokens.next().is_none(), "a record with two tokens");
        assert_signed_for(token.as_bytes(), self.secret, &record.body, Some(NOW));
        assert_eq!(&*record.connector, ["main", "strict"][connector]);
        assert!(
            connector == 0 || record.project.as_deref() == Some(PROJECT),
            "a project that is not allowed"
        );
        self.answer(Accepted::New, Accepted::Duplicate)
    }

    fn dead_letter(&self, letter: DeadLetter) -> IntakeFuture<'_, ()> {
        let [(SECRET_HEADER, token)] = &letter.signatures[..] else {
            panic!("a letter with the signatures {:?}", letter.signatures);
        };
        let expired = letter.reason == Reason::Expired;
        assert_signed_for(token.as_bytes(), self.secret, &letter.body, (!expired).then_some(NOW));
        if expired {
            // Answered 401, whatever becomes of the copy.
            return IntakeFuture::Ready(Ok(()));
        }
        self.answer((), ())
    }

    fn readiness(&self) -> Readiness {
        Readiness { ready: true, problems: Vec::new() }
    }
}

/// Small enough that a fuzzer gets across.
fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_body = 2048;
    limits.max_head = 8192;
    limits.max_in_flight = 4;
    limits.max_in_flight_bytes = 4096;
    limits
}

static CONNECTORS: LazyLock<Vec<ConnectorConfig>> = LazyLock::new(|| {
    let verifier = &setup("secret").verifier;
    let mut strict = ConnectorConfig::new("strict", "/strict", verifier.clone());
    strict.projects.insert(PROJECT.to_owned());
    vec![ConnectorConfig::new("main", "/", verifier.clone()), strict]
});

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((behaviour, bytes)) = input.split_first() else { return Corpus::Reject };
    let behaviour = Behaviour::of(*behaviour);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O can be had");
    // A connection that waits for nothing at all would stop this thread for good; so there is one more timer.
    let ended = runtime.block_on(async {
        let day = Duration::from_secs(24 * 3600);
        tokio::time::timeout(day, connection(&behaviour, bytes)).await
    });
    ended.expect("the connection ends");
    Corpus::Keep
});

async fn connection(behaviour: &Behaviour, bytes: &[u8]) {
    let secret = &setup("secret").secrets[0].1;
    let judge = Arc::new(Judge { secret, takes: behaviour.takes, taken: AtomicUsize::new(0) });
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(NOW * 1000));
    let telemetry = Arc::new(Telemetry::new(Arc::clone(&clock)));
    let intake: Arc<dyn Intake> = Arc::<Judge>::clone(&judge);
    let endpoint = Arc::new(Endpoint::new(Routing::new(&CONNECTORS, limits(), intake), telemetry, clock));
    let (stop, stopping) = watch::channel(false);

    let started = Instant::now();
    let (client, network) = tokio::io::duplex(NETWORK);
    let server = tokio::spawn(serve_connection(network, None, Arc::clone(&endpoint), stopping));
    let (mut incoming, mut requests) = tokio::io::split(client);
    let ends = behaviour.ends;
    let reading = tokio::spawn(async move {
        let mut received = Vec::new();
        // A connection that is cut ends the answers as well.
        let _cut = incoming.read_to_end(&mut received).await;
        received
    });
    for piece in pieces(bytes, behaviour.piece) {
        if requests.write_all(piece).await.is_err() {
            break;
        }
        if !behaviour.pause.is_zero() {
            tokio::time::sleep(behaviour.pause).await;
        }
    }
    match ends {
        Ends::HalfCloses => {
            let _gone = requests.shutdown().await;
        }
        Ends::Stays => {}
        Ends::Leaves => reading.abort(),
        Ends::ServerStops => {
            // What was sent whole gets in before.
            tokio::time::sleep(Duration::from_millis(1)).await;
            endpoint.stop();
            stop.send_replace(true);
        }
    }
    let received = if ends == Ends::Leaves {
        drop(requests);
        let _aborted = reading.await;
        Vec::new()
    } else {
        let received = reading.await.expect("reading does not fail");
        drop(requests);
        received
    };
    server.await.expect("the server does not panic");

    let ok = answers(&received, "200 OK\r\n");
    let taken = judge.taken.load(Ordering::SeqCst);
    assert!(ok <= taken, "{ok} times 200, but only {taken} were taken");

    // However slow the client, the time is up once for every answer, and once for the connection.
    let limits = limits();
    let turns = u32::try_from(answers(&received, "") + 1).unwrap_or(u32::MAX);
    let sent = behaviour.pause * u32::try_from(MAX_PIECES + 1).unwrap_or(0);
    let allowed = sent
        + (limits.header_timeout + limits.deadline + limits.keep_alive_idle) * turns
        + Duration::from_secs(5);
    assert!(started.elapsed() <= allowed, "the connection stayed for {:?}", started.elapsed());
}

/// The input in pieces of that size, the last one taking all that is left.
fn pieces(bytes: &[u8], size: usize) -> Vec<&[u8]> {
    let cut = bytes.len().min(size.saturating_mul(MAX_PIECES - 1));
    let mut pieces: Vec<_> = bytes[..cut].chunks(size).collect();
    pieces.push(&bytes[cut..]);
    pieces
}

/// How many HTTP/1 answers begin so. The line feeds in an answer's body are escaped, as it is JSON.
fn answers(received: &[u8], status: &str) -> usize {
    ["HTTP/1.1", "HTTP/1.0"]
        .into_iter()
        .map(|version| {
            let start = format!("{version} {status}");
            received.windows(start.len()).filter(|window| *window == start.as_bytes()).count()
        })
        .sum()
}
