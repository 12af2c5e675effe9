//! DT's cloud with one project and one connector, and a receiver that is started and stopped.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dt_emulator::{Emulator, Role, ServiceAccount};
use dt_server::config::{Config, Sources};
use dt_server::service::{ReloadHandle, Service};
use dt_server::sink::{OpenError, Outcome, Sink, standard_types};
use dt_sink::clock::Clock;
use dt_sink::record::Record;
use dt_verify::{Secret, Signer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::clock::FastClock;
use crate::logs;
use crate::proxy::Proxy;

/// The signature secret of the connector.
pub(crate) const SECRET: &str = "some-good-secret";
/// The secret of the service account's key.
pub(crate) const KEY_SECRET: &str = "hunter2-key";
/// The secret of a key that DT does not know.
const WRONG_SECRET: &str = "hunter2-wrong";

/// The beginning of the ids of events that only fill the spool.
const FILLER: &str = "filler";

/// How long anything may take before a test has failed.
const TIMEOUT: Duration = Duration::from_secs(60);

struct Secrets;

impl Sources for Secrets {
    fn env(&self, name: &str) -> Option<OsString> {
        let secret = match name {
            "KEY" => KEY_SECRET,
            "WRONG" => WRONG_SECRET,
            _ => SECRET,
        };
        Some(secret.into())
    }

    fn file(&self, _path: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// The ids that the sink got, in their order, and whether it is down. They survive a restart of the receiver.
#[derive(Debug, Clone, Default)]
struct Delivered {
    ids: Arc<Mutex<Vec<String>>>,
    is_down: Arc<AtomicBool>,
}

impl Sink for Delivered {
    fn open(&mut self, _: Option<&[u8]>) -> Result<(), OpenError> {
        Ok(())
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        if self.is_down.load(Ordering::SeqCst) {
            return Outcome::retry(batch.len(), "it is down");
        }
        let ids = batch.iter().map(|record| record.event_id.to_string());
        self.ids.lock().expect("not poisoned").extend(ids);
        Outcome::delivered(batch.len())
    }
}

/// What a world is made of.
pub(crate) struct Plan {
    /// The id of the project. Each test has its own.
    pub(crate) project: &'static str,
    /// How many times as fast as the machine's clock the clock is.
    pub(crate) scale: u32,
    /// Further keys of `[monitor]`.
    pub(crate) monitor: &'static str,
    /// The scheme of the public URL.
    pub(crate) scheme: &'static str,
    /// The environment variable with the secret of the service account's key.
    pub(crate) key: &'static str,
    /// The role of the service account.
    pub(crate) role: Role,
}

impl Plan {
    /// A minute takes 100 ms.
    pub(crate) fn new(project: &'static str, monitor: &'static str) -> Self {
        let role = Role::Developer;
        Self { project, scale: 600, monitor, scheme: "http", key: "KEY", role }
    }
}

struct Receiver {
    admin: SocketAddr,
    reload: ReloadHandle,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

/// The cloud, the proxy and the receiver.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) clock: FastClock,
    pub(crate) emulator: Arc<Emulator>,
    pub(crate) api: Proxy,
    /// The path of the Data Connector, with `/v2`.
    pub(crate) connector: String,
    delivered: Delivered,
    receiver: Option<Receiver>,
    address: SocketAddr,
    /// Keeps the receiver's port while it is down.
    _port: TcpSocket,
    folder: TempDir,
}

impl World {
    /// Starts the cloud with a Data Connector to the receiver, which does not run yet.
    pub(crate) async fn start(plan: Plan) -> Self {
        logs::start();
        let port = TcpSocket::new_v4().expect("a socket");
        port.set_reuseaddr(true).expect("an option");
        port.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
        let address = port.local_addr().expect("an address");
        let clock = FastClock::new(plan.scale);
        let secret = Secret::new(KEY_SECRET).expect("not empty");
        let emulator = Emulator::builder()
            .clock(move || clock.unix_millis())
            .time_scale(plan.scale)
            .service_account(ServiceAccount::new("key", secret, "me@example.com", plan.role))
            .retry_pauses(Duration::from_secs(60), Duration::from_secs(1800))
            .start()
            .await
            .expect("it starts");
        let api = Proxy::start(emulator.address(), clock).await;
        let mut world = Self {
            clock,
            emulator: Arc::new(emulator),
            api,
            connector: String::new(),
            delivered: Delivered::default(),
            receiver: None,
            address,
            _port: port,
            folder: tempfile::tempdir().expect("a folder"),
            plan,
        };
        let body = json!({
            "type": "HTTP_PUSH",
            "displayName": "plant",
            "httpConfig": {"url": world.public_url(), "signatureSecret": SECRET},
        });
        let path = format!("/v2/projects/{}/dataconnectors", world.plan.project);
        let created = world.emulator.call("POST", &path, &body).expect("created");
        world.connector = format!("/v2/{}", created["name"].as_str().expect("a name"));
        world
    }

    fn public_url(&self) -> String {
        format!("{}://{}/", self.plan.scheme, self.address)
    }

    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    /// Starts the receiver, with what an earlier one left in its folder.
    pub(crate) async fn start_receiver(&mut self) {
        self.start_receiver_with("").await;
    }

    /// The same with further sections of the configuration.
    pub(crate) async fn start_receiver_with(&mut self, sections: &str) {
        let config = self.config(self.plan.monitor, sections);
        let service = Service::builder(config)
            .clock(Arc::new(self.clock))
            .time_scale(self.plan.scale)
            .sink("memory", self.delivered.clone());
        let service = service.start().await.expect("it starts");
        let (admin, reload) = (service.admin_address().expect("an address"), service.reload_handle());
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = tokio::spawn(service.run_until(async {
            let _stopped_or_dropped = stopped.await;
        }));
        self.receiver = Some(Receiver { admin, reload, stop, ended });
    }

    /// Reloads the configuration of the running receiver with these keys of `[monitor]`.
    pub(crate) async fn reload(&self, monitor: &str) {
        let config = self.config(monitor, "");
        let reload = &self.receiver.as_ref().expect("it runs").reload;
        reload.reload("the test", move || Ok(config)).await.expect("activated");
    }

    fn config(&self, monitor: &str, sections: &str) -> Config {
        let Plan { project, key, .. } = self.plan;
        let text = format!(
            "listen = '{address}'\nadmin = '127.0.0.1:0'\ndata = '{folder}/data'\n\
             [api]\nkey_id = 'key'\nemail = 'me@example.com'\nsecret = {{ env = '{key}' }}\nrequests_per_second = 1000\n\
             url = 'http://{api}/v2'\ntoken_endpoint = '{tokens}'\n\
             [monitor]\npublic_url = '{public}'\nprojects = ['{project}']\n{monitor}\n{sections}\n\
             [[connector]]\nname = 'plant'\nsecrets = [{{ env = 'SECRET' }}]\n",
            address = self.address,
            folder = self.folder.path().display(),
            api = self.api.address,
            tokens = self.emulator.token_endpoint(),
            public = self.public_url(),
        );
        let config = Config::from_toml(&text, &Secrets, &standard_types());
        config.unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    /// Stops the receiver, and waits for its end.
    pub(crate) async fn stop_receiver(&mut self) {
        let Receiver { stop, ended, .. } = self.receiver.take().expect("it runs");
        stop.send(()).expect("it runs");
        tokio::time::timeout(TIMEOUT, ended).await.expect("it ends in time").expect("it ends");
    }

    /// Calls the emulator past the proxy, as a person in DT Studio.
    pub(crate) fn person(&self, method: &str, path: &str, body: &Value) -> Value {
        self.emulator.call(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Lets DT disable the connector at once.
    pub(crate) fn system_disable(&self) {
        let path = self.connector.replace("/v2/", "/emulator/");
        self.person("POST", &format!("{path}:disable"), &Value::Null);
        assert_eq!(self.status(), "SYSTEM_DISABLED");
    }

    /// Sets the status of the connector as a person does.
    pub(crate) fn set_status(&self, status: &str) {
        self.person("PATCH", &self.connector, &json!({"status": status}));
    }

    pub(crate) fn status(&self) -> String {
        let connector = self.person("GET", &self.connector, &Value::Null);
        connector["status"].as_str().expect("a status").to_owned()
    }

    /// Creates a device, and returns its path below `/v2`.
    pub(crate) fn add_device(&self, device_type: &str) -> String {
        let path = format!("/v2/projects/{}/devices", self.plan.project);
        let device = self.person("POST", &path, &json!({"type": device_type}));
        device["name"].as_str().expect("a name").to_owned()
    }

    /// Publishes an event of a device.
    pub(crate) fn publish(&self, device: &str, event: &Value) {
        self.person("POST", &format!("/v2/{device}:publish"), event);
    }

    /// Publishes an event that is so many seconds old, and is not pushed.
    pub(crate) fn publish_unpushed(&self, device: &str, event: &Value, age: i64) {
        self.person("POST", &format!("/emulator/{device}:publish?age={age}&push=false"), event);
    }

    /// Returns the ids of all events that DT has.
    pub(crate) fn ids_at_dt(&self) -> Vec<String> {
        let mut ids: Vec<String> =
            self.emulator.history().iter().map(|event| event.event_id.to_string()).collect();
        ids.sort_unstable();
        ids
    }

    /// Returns the ids that the sink got, sorted.
    pub(crate) fn ids_delivered(&self) -> Vec<String> {
        let mut ids = self.delivered.ids.lock().expect("not poisoned").clone();
        ids.retain(|id| !id.starts_with(FILLER));
        ids.sort_unstable();
        ids
    }

    /// Returns how often each of these ids was delivered, if not once.
    pub(crate) fn wrong_counts(&self) -> BTreeMap<String, i64> {
        let mut counts: BTreeMap<String, i64> = self.ids_at_dt().into_iter().map(|id| (id, 0)).collect();
        for id in self.ids_delivered() {
            *counts.entry(id).or_insert(1000) += 1;
        }
        counts.retain(|_, count| *count != 1);
        counts
    }

    /// Waits until every event that DT has was delivered exactly once.
    pub(crate) async fn wait_for_all(&self) {
        self.wait_for(|world| world.wrong_counts().is_empty()).await;
    }

    /// Waits until something holds.
    pub(crate) async fn wait_for(&self, holds: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            if began.elapsed() > TIMEOUT {
                let readiness = self.get("/readyz").await;
                panic!("in vain; {readiness}\n{:?}\n{:?}", self.wrong_counts(), self.api.changes());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the monitor has checked the project so many more times from the beginning.
    pub(crate) async fn wait_for_checks(&self, count: usize) {
        // One may have begun already.
        let goal = self.api.checks() + count + 1;
        self.wait_for(|world| world.api.checks() >= goal).await;
    }

    /// Waits until the clock has moved on by so many milliseconds.
    pub(crate) async fn wait(&self, millis: i64) {
        let until = self.clock.unix_millis() + millis;
        self.wait_for(|world| world.clock.unix_millis() >= until).await;
    }

    /// Waits until `/readyz` contains all of these texts, and returns it.
    pub(crate) async fn wait_for_reason(&self, parts: &[&str]) -> String {
        let began = Instant::now();
        loop {
            let found = self.get("/readyz").await;
            if parts.iter().all(|part| found.contains(part)) {
                return found;
            }
            assert!(began.elapsed() < TIMEOUT, "{parts:?} in vain: {found}\n{}", self.own_logs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Returns the last log lines that name the project.
    fn own_logs(&self) -> String {
        let lines = logs::lines_with(&[self.plan.project]);
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Requests a path of the operators' listener, and returns the answer.
    pub(crate) async fn get(&self, path: &str) -> String {
        let Some(receiver) = &self.receiver else { return "(stopped)".to_owned() };
        let mut stream = TcpStream::connect(receiver.admin).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    /// Lets the sink fail, or not.
    pub(crate) fn set_sink_down(&self, is_down: bool) {
        self.delivered.is_down.store(is_down, Ordering::SeqCst);
    }

    /// Sends events of another project until not even a small one can be stored.
    pub(crate) async fn fill_spool(&self) {
        for size in [4 << 20, 256 << 10, 16 << 10, 1024, 64, 1] {
            // A busy machine may answer 503 for another reason.
            let (mut sent, mut refused) = (0, 0);
            while refused < 3 {
                let is_stored = self.is_stored(&format!("{FILLER}{size}-{sent}"), size).await;
                refused = if is_stored { 0 } else { refused + 1 };
                sent += 1;
                assert!(sent < 200, "it is not full: {size}");
            }
        }
    }

    /// Sends an event of another project with `size` more bytes. Returns whether it was stored.
    async fn is_stored(&self, id: &str, size: usize) -> bool {
        let signer = Signer::secret(Secret::new(SECRET).expect("not empty"));
        let pad = "x".repeat(size);
        let body = format!(
            r#"{{"event":{{"eventId":"{id}","eventType":"touch","targetName":"projects/x/devices/y"}},"labels":{{"pad":"{pad}"}}}}"#
        );
        let token = signer.sign(body.as_bytes(), self.clock.unix_millis() / 1000, id).expect("signed");
        let (name, length) = (signer.header_name(), body.len());
        let head = format!(
            "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{name}: {token}\r\nContent-Length: {length}\r\n\r\n"
        );
        let mut stream = TcpStream::connect(self.address).await.expect("it listens");
        stream.write_all(head.as_bytes()).await.expect("sent");
        stream.write_all(body.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.1 503"), "{answer}");
        answer.starts_with("HTTP/1.1 200")
    }

    /// Returns the value of a series of a metric; `None` if it is not shown.
    pub(crate) async fn metric(&self, series: &str) -> Option<f64> {
        let text = self.get("/metrics").await;
        let line =
            text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Checks that no secret is in the log, in `/readyz` and in `/metrics`.
    pub(crate) async fn check_secrets(&self) {
        let shown = format!("{}{}{}", logs::text(), self.get("/readyz").await, self.get("/metrics").await);
        for secret in [SECRET, KEY_SECRET, WRONG_SECRET] {
            assert!(!shown.contains(secret), "{secret}");
        }
    }
}
