//! DT's cloud with 25 devices, one connector, and a receiver that is started and stopped, all on one fast clock.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dt_receiver::clock::Clock;
use dt_receiver::cloud::store::CloudStore;
use dt_receiver::emulator::{DeliveryStatus, Emulator, HistoryEvent, LedgerEntry, Role, ServiceAccount};
use dt_receiver::verify::Secret;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::clock::FastClock;
use crate::compare::{Difference, out_of_order};
use crate::receiver::{Receiver, SECRET};
use crate::sink_file::SinkFile;

/// The project of all devices and of the connector.
pub(crate) const PROJECT: &str = "p";

/// The devices: all types, 25 together.
const DEVICES: &str = "temperature:4,proximity:2,touch:2,humidity:3,proximityCounter:2,touchCounter:2,waterDetector:2,co2:2,motion:2,\
                       deskOccupancy:1,contact:2,ccon:1";

/// How long the machine may take for what it has to do, beyond the time that passes on the fast clock.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The pauses between the attempts to deliver an event, in emulated time.
const FIRST_PAUSE: Duration = Duration::from_secs(15 * 60);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

/// The largest numbers of events and ledger entries: enough for weeks.
const CAPACITY: usize = 500_000;

/// What a world is made of.
pub(crate) struct Plan {
    /// How many times as fast as the machine's clock the clock of emulator and receiver is.
    pub(crate) scale: u32,
    /// The heartbeat of the devices, in emulated time.
    pub(crate) interval: Duration,
    /// Further sections of the receiver's configuration. `{api}`, `{tokens}` and `{public}` in it are replaced by the base URL of the
    /// REST API, the token endpoint and the receiver's URL. DT has a service account with the key id `key` and the email address
    /// `me@example.com`. Every environment variable has the value [`SECRET`].
    pub(crate) sections: &'static str,
}

impl Default for Plan {
    /// A day is 10 s, and has about 1,500 events.
    fn default() -> Self {
        Self { scale: 8_640, interval: Duration::from_secs(3_600), sections: "" }
    }
}

/// The cloud, the receiver, and the receiver's folder.
pub(crate) struct World {
    pub(crate) clock: FastClock,
    pub(crate) emulator: Emulator,
    /// The path of the connector, below the root of the emulator.
    pub(crate) connector: String,
    pub(crate) sink: SinkFile,
    /// When the connector existed, in Unix microseconds. It gets no earlier event.
    pub(crate) since: i64,
    receiver: Option<Receiver>,
    sections: String,
    scale: u32,
    address: SocketAddr,
    /// Keeps the receiver's port while it is down. It is bound, but does not listen, so that connections are refused.
    _port: Socket,
    folder: TempDir,
}

impl World {
    /// Starts the cloud, with a connector to the receiver, which does not run yet.
    pub(crate) async fn start(plan: Plan) -> Self {
        let (address, port) = reserve_port();
        let clock = FastClock::new(plan.scale);
        let secret = Secret::new(SECRET).expect("not empty");
        let emulator = Emulator::builder()
            .clock(move || clock.unix_millis())
            .time_scale(plan.scale)
            .devices(PROJECT, DEVICES.parse().expect("devices"), plan.interval)
            .history_events(CAPACITY)
            .ledger_entries(CAPACITY)
            // Five minutes take 35 ms: the default pauses would be thousands of attempts in a second.
            .retry_pauses(FIRST_PAUSE, LONGEST_PAUSE)
            .service_account(ServiceAccount::new("key", secret, "me@example.com", Role::Developer))
            .start()
            .await
            .expect("it starts");
        let connector = add_connector(&emulator, PROJECT, address);
        let since = emulator.now_millis() * 1_000;
        let sections = plan.sections.replace("{api}", &emulator.api_url());
        let sections = sections.replace("{tokens}", &emulator.token_endpoint());
        let sections = sections.replace("{public}", &url(address));
        let folder = tempfile::tempdir().expect("a folder");
        let sink = SinkFile::new(folder.path().join("events.ndjson"));
        Self {
            clock,
            emulator,
            connector,
            sink,
            since,
            receiver: None,
            sections,
            scale: plan.scale,
            address,
            _port: port,
            folder,
        }
    }

    /// Creates another project with a connector to the receiver.
    pub(crate) fn add_project(&self, project: &str) {
        add_connector(&self.emulator, project, self.address);
    }

    /// Returns the status of the connector.
    pub(crate) fn status(&self) -> Value {
        self.emulator.call("GET", &self.connector, &Value::Null).expect("a connector")["status"].clone()
    }

    /// Changes the status of the connector, as a person does.
    pub(crate) fn set_status(&self, status: &str) {
        self.emulator.call("PATCH", &self.connector, &json!({"status": status})).expect("changed");
    }

    /// The folder of the receiver's data.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts the receiver, with what an earlier one left in its folder.
    pub(crate) async fn start_receiver(&mut self) {
        assert!(self.receiver.is_none(), "one runs already");
        let folder = self.folder.path().display();
        let (address, sections) = (self.address, &self.sections);
        let text = format!(
            "listen = '{address}'\nadmin = '127.0.0.1:0'\ndata = '{folder}/data'\n\
             [[connector]]\nname = 'dt'\nsecrets = [{{ env = 'DT_SIGNATURE_SECRET' }}]\n\
             [[sink]]\nname = 'file'\ntype = 'file'\npath = '{folder}/events.ndjson'\n\
             {sections}"
        );
        self.receiver = Some(Receiver::start(&text, Arc::new(self.clock), self.scale).await);
    }

    /// Stops the receiver: afterwards, nothing of it runs, and its folder is released.
    pub(crate) async fn stop_receiver(&mut self) {
        self.receiver.take().expect("it runs").stop(&self.data()).await;
    }

    /// Waits until the clock shows this, in Unix milliseconds.
    pub(crate) async fn wait_until(&self, unix_millis: i64) {
        while self.clock.unix_millis() < unix_millis {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for a time of the clock, in milliseconds.
    pub(crate) async fn wait(&self, millis: i64) {
        self.wait_until(self.clock.unix_millis() + millis).await;
    }

    /// Publishes what devices do not send by themselves, and what they send rarely.
    pub(crate) fn publish_rare_events(&self) {
        let publish = |device_type: &str, event: Value| {
            let path = format!("/v2/projects/{PROJECT}/devices?deviceTypes={device_type}");
            let list = self.emulator.call("GET", &path, &Value::Null).expect("a list");
            let name = list["devices"][0]["name"].as_str().expect("a device").to_owned();
            self.emulator.call("POST", &format!("/v2/{name}:publish"), &event).expect("published");
            name
        };
        let name = publish("temperature", json!({"probeWireStatus": {"state": "THREE_WIRE"}, "touch": {}}));
        let label = json!({"devices": [name], "addLabels": {"seen": self.emulator.now()}});
        let path = format!("/v2/projects/{PROJECT}/devices:batchUpdate");
        self.emulator.call("POST", &path, &label).expect("changed");
        publish(
            "ccon",
            json!({"ethernetStatus": {"macAddress": "f0:b5:b7:00:0a:08"}, "cellularStatus": {"signalStrength": 80}}),
        );
    }

    /// Returns the events that the receiver should have by the time `until`: those with a `timestamp` since the connector existed, and
    /// before `until`, in Unix milliseconds.
    pub(crate) fn expected(&self, until: i64) -> Vec<HistoryEvent> {
        let times = self.since..until * 1_000;
        self.emulator.history().into_iter().filter(|event| times.contains(&event.timestamp_micros)).collect()
    }

    /// Waits until DT has delivered or given up what it queued before `until`, in Unix milliseconds.
    pub(crate) async fn wait_for_deliveries(&self, until: i64) {
        let began = Instant::now();
        let is_pending =
            |entry: &LedgerEntry| entry.fate == DeliveryStatus::Pending && entry.queued_at < until;
        while let Some(first) = self.emulator.ledger().into_iter().find(is_pending) {
            assert!(began.elapsed() < PATIENCE, "{first:?} is pending");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the sink has all of these events but `except`.
    pub(crate) async fn wait_for_sink(&mut self, expected: &[HistoryEvent], except: &BTreeSet<String>) {
        let began = Instant::now();
        loop {
            self.sink.read();
            let lacks =
                |event: &&HistoryEvent| !self.sink.has(&event.event_id) && !except.contains(&*event.event_id);
            let Some(first) = expected.iter().find(lacks) else { return };
            if began.elapsed() > PATIENCE {
                let missing = expected.iter().filter(lacks).count();
                let entries = self.emulator.ledger().into_iter();
                let entry = entries.filter(|entry| entry.event_id == first.event_id).collect::<Vec<_>>();
                let state = self.receiver_state().await;
                panic!("{missing} of {} are missing, such as {first:?} {entry:?}\n{state}", expected.len());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Returns the answer of the running receiver's `/readyz`, and its windows, for the message of a failure.
    pub(crate) async fn receiver_state(&self) -> String {
        let admin = self.receiver.as_ref().expect("it runs").admin;
        let mut stream = TcpStream::connect(admin).await.expect("it listens");
        let request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        let windows = CloudStore::open(&self.data()).and_then(|store| {
            let windows: Vec<_> = (1..).map_while(|id| store.window(id).transpose()).collect();
            windows.into_iter().collect::<Result<Vec<_>, _>>()
        });
        format!("now {}; {answer}\n{windows:?}", self.clock.unix_millis())
    }

    /// Stops the receiver, checks that what back-fill has added is in the order of each device, and compares the lines of the sink
    /// with the expected events.
    pub(crate) async fn end(&mut self, expected: &[HistoryEvent]) -> Difference {
        self.stop_receiver().await;
        self.sink.read();
        assert_eq!(out_of_order(self.sink.filled()), None);
        Difference::new(&self.sink.lines, expected, &self.emulator.history())
    }

    /// Returns the ids of the events that are in a delivery status for the connector.
    pub(crate) fn ids_in(&self, status: DeliveryStatus) -> BTreeSet<String> {
        let entries = self.emulator.ledger().into_iter().filter(|entry| entry.fate == status);
        entries.map(|entry| entry.event_id.into()).collect()
    }
}

/// Creates a connector to the receiver, and returns its path.
fn add_connector(emulator: &Emulator, project: &str, receiver: SocketAddr) -> String {
    let config = json!({"url": url(receiver), "signatureSecret": SECRET});
    let body = json!({"type": "HTTP_PUSH", "displayName": "receiver", "httpConfig": config});
    let path = format!("/v2/projects/{project}/dataconnectors");
    let created = emulator.call("POST", &path, &body).expect("created");
    format!("/v2/{}", created["name"].as_str().expect("a name"))
}

fn url(receiver: SocketAddr) -> String {
    format!("http://{receiver}/")
}

/// Binds a port that stays ours while the receiver is down. A connection to a free port could otherwise be made from this very
/// port, and keep the receiver from it.
fn reserve_port() -> (SocketAddr, Socket) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    // The receiver sets it as well, so that both can bind the port, of which only the receiver listens.
    socket.set_reuse_address(true).expect("an option");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a port");
    let address = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("an address");
    (address, socket)
}
