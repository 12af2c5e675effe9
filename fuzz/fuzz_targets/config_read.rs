//! Reading a configuration. The bytes are the TOML; environment and files are made up here.
//!
//! What is accepted must pass the second check that the command line makes, must be usable, and must not show a secret;
//! what is refused must say why in words that show none either.
#![no_main]

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dt_receiver_fuzz::setups::{PRIVATE_KEY, setup};
use dt_server::config::{Config, SinkConfig, Sources};
use dt_server::http::{Accepted, Endpoint, Intake, IntakeFuture, Readiness, Routing};
use dt_server::sink::standard_types;
use dt_server::telemetry::Telemetry;
use dt_sink::clock::{Clock, ManualClock};
use dt_sink::record::{DeadLetter, Record};
use libfuzzer_sys::{Corpus, fuzz_target};

/// What no output may show. No text of the corpus or the dictionary has it.
const SECRET: &str = "Zq7fuzzTopSecretZq7";

static KEY_SET: LazyLock<Vec<u8>> = LazyLock::new(|| {
    setup("asym").key_set.as_ref().map(|keys| keys.to_string().into_bytes()).expect("it has a key set")
});

/// A certificate, for the vectors' private key.
const CERTIFICATE: &[u8] = include_bytes!("../tls/certificate.pem");

static PRIVATE_KEY_PEM: LazyLock<String> = LazyLock::new(|| {
    let text = STANDARD.encode(PRIVATE_KEY);
    format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
});

struct MadeUp;

impl Sources for MadeUp {
    fn env(&self, name: &str) -> Option<OsString> {
        match name {
            "SECRET" => Some(SECRET.into()),
            "OTHER" => Some(format!("{SECRET}-2").into()),
            "SPACED" => Some(format!(" {SECRET}\n").into()),
            "EMPTY" => Some(OsString::new()),
            _ => None,
        }
    }

    fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
        match path.to_str() {
            Some("secret.txt") => Ok(format!("{SECRET}\r\n").into_bytes()),
            Some("empty.txt") => Ok(b"\n".to_vec()),
            Some("keys.json") => Ok(KEY_SET.clone()),
            Some("cert.pem") => Ok(CERTIFICATE.to_vec()),
            Some("key.pem") => Ok(PRIVATE_KEY_PEM.clone().into_bytes()),
            Some("nokeys.json") => Ok(br#"{"keys":[]}"#.to_vec()),
            Some("large") => Err(io::ErrorKind::FileTooLarge.into()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

#[derive(Debug)]
struct Nowhere;

impl Intake for Nowhere {
    fn accept(&self, _: usize, _: Record) -> IntakeFuture<'_, Accepted> {
        IntakeFuture::Ready(Ok(Accepted::New))
    }

    fn dead_letter(&self, _: DeadLetter) -> IntakeFuture<'_, ()> {
        IntakeFuture::Ready(Ok(()))
    }

    fn readiness(&self) -> Readiness {
        Readiness { ready: true, problems: Vec::new() }
    }
}

fuzz_target!(|text: &str| -> Corpus {
    if text.contains(SECRET) {
        return Corpus::Reject;
    }
    // A sink of the command line is one word.
    let types = standard_types();
    let _sink = SinkConfig::parse(text, &types);
    match Config::from_toml(text, &MadeUp, &types) {
        Ok(config) => accepted(config),
        Err(error) => {
            let shown = error.to_string();
            assert!(!shown.is_empty(), "refused without a reason");
            assert!(!shown.contains(SECRET) && !format!("{error:?}").contains(SECRET), "a secret is shown");
        }
    }
    Corpus::Keep
});

fn accepted(config: Config) {
    assert!(!config.connectors.is_empty());
    assert!(config.connectors.iter().all(|connector| connector.path.starts_with('/')));
    let limits = &config.limits;
    assert!(limits.max_body <= limits.max_in_flight_bytes, "no body would find room");
    assert!(limits.header_timeout + limits.deadline <= std::time::Duration::from_millis(9500));
    let shown = format!("{config:?}");
    assert!(!shown.contains(SECRET), "a secret is shown");
    let _place = config.dead_letter_place();

    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(0));
    let telemetry = Arc::new(Telemetry::new(Arc::clone(&clock)));
    let limits = config.limits.clone();
    let endpoint =
        Endpoint::new(Routing::new(&config.connectors, limits, Arc::new(Nowhere)), telemetry, clock);
    assert!(!format!("{endpoint:?}").contains(SECRET), "a secret is shown");

    match config.complete() {
        Ok(complete) => assert!(!complete.sinks.is_empty()),
        // An embedder may add sinks under other names; a program that adds none has to know them all.
        Err(error) => assert!(error.to_string().contains(".sinks: no sink is named"), "{error}"),
    }
}
