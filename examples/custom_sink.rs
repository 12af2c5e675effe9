//! A sink of your own: the service receives, verifies and catches copies; `deliver` says what became of each record.
//! In mode `direct` a request is answered 200 only after it says "delivered".
//!
//! `DT_SIGNATURE_SECRET=some-good-secret cargo run --example custom_sink`, then
//! `DT_SIGNATURE_SECRET=some-good-secret dt-receiver send --event temperature`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use dt_receiver::config::{Config, SystemSources};
use dt_receiver::record::Record;
use dt_receiver::service::Service;
use dt_receiver::sink::{Fate, OpenError, Outcome, Sink, standard_types};

const CONFIG: &str = r#"
    [[connector]]
    name = "default"
    secrets = [{ env = "DT_SIGNATURE_SECRET" }]
"#;

/// How many events each device has sent.
type Counts = Arc<Mutex<BTreeMap<String, u64>>>;

struct CountingSink {
    counts: Counts,
}

impl Sink for CountingSink {
    fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        Ok(())
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        let Ok(mut counts) = self.counts.lock() else {
            return Outcome::retry(batch.len(), "a thread panicked while it counted");
        };
        let fates = batch.iter().map(|record| match &record.device {
            Some(device) => {
                let count = counts.entry(device.to_string()).or_default();
                *count = count.saturating_add(1);
                Fate::Delivered
            }
            // It goes to the dead letters, and is answered 200 once it is there.
            None => Fate::Rejected { error: "it names no device".to_owned() },
        });
        Outcome { fates: fates.collect(), ..Outcome::default() }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::from_toml(CONFIG, &SystemSources, &standard_types())?;
    let counts = Counts::default();
    let sink = CountingSink { counts: Arc::clone(&counts) };
    let service = Service::builder(config).sink("count", sink).start().await?;
    println!("listening on {:?}; stop with Ctrl-C", service.address());
    service.run_until(async { tokio::signal::ctrl_c().await.unwrap_or(()) }).await;
    println!("{:#?}", counts.lock());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dt_receiver::config::Sources;
    use dt_receiver::event::{EventType, Sample};
    use dt_receiver::verify::{Secret, Signer};
    use std::ffi::OsString;
    use std::io;
    use std::path::Path;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    struct Fixed;
    impl Sources for Fixed {
        fn env(&self, _name: &str) -> Option<OsString> {
            Some(OsString::from("some-good-secret"))
        }
        fn file(&self, _path: &Path) -> io::Result<Vec<u8>> {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    #[tokio::test]
    async fn an_event_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::from_toml(CONFIG, &Fixed, &standard_types()).unwrap();
        config.listen = "127.0.0.1:0".parse().unwrap();
        config.admin = None;
        config.data = folder.path().to_owned();
        let counts = Counts::default();
        let sink = CountingSink { counts: Arc::clone(&counts) };
        let service = Service::builder(config).sink("count", sink).start().await.unwrap();
        let address = service.address().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn(service.run_until(async { stopped.await.unwrap_or(()) }));

        let now = jiff::Timestamp::now().as_second();
        let (event_type, event_id) = (EventType::Touch, "c82gg9catj3vmh4248og");
        let (project, device) = ("c14u9p094l47cdv1o3pg", "emuc17m6d7lq0bgk44smcqg");
        let body = Sample { event_type, event_id, project, device, unix_millis: now * 1000, seed: 0 }.body();
        let signer = Signer::secret(Secret::new("some-good-secret").unwrap());
        let token = signer.sign(body.as_bytes(), now, "c82gg99hga35jc2afkeg").unwrap();
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\nX-Dt-Signature: {token}\r\nConnection: close\r\n");
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

        stop.send(()).unwrap();
        running.await.unwrap();
        assert_eq!(counts.lock().unwrap().get("emuc17m6d7lq0bgk44smcqg"), Some(&1));
    }
}
