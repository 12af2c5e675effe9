//! A cloud with history, a proxy that counts requests and can refuse them, and a receiver that writes a file.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use dt_receiver::emulator::{Emulator, Role, ServiceAccount};
use dt_receiver::verify::Secret;
use serde_json::{Value, json};

use crate::common::{self, Ended};
use crate::setup::Setup;

/// The secret of the service account's key.
pub const KEY_SECRET: &str = "hunter2-key";

pub const HOUR: i64 = 3_600_000;
pub const DAY: i64 = 24 * HOUR;

/// The path under which DT lists the events of a device.
const HISTORY: &str = "/events?";

/// A rule of the proxy: the status with which it answers a request line, instead of the cloud.
type Rule = Box<dyn Fn(&str) -> Option<u16> + Send>;

/// A proxy in front of the REST API.
#[derive(Clone)]
pub struct Proxy {
    pub url: String,
    seen: Arc<Mutex<Vec<String>>>,
    rule: Arc<Mutex<Rule>>,
}

impl Proxy {
    /// Starts it. Its threads end with the test's process.
    fn start(to: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let rule: Rule = Box::new(|_| None);
        let proxy = Self { url, seen: Arc::default(), rule: Arc::new(Mutex::new(rule)) };
        let shared = proxy.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (proxy, to) = (shared.clone(), to.clone());
                let stream = stream.expect("a connection");
                std::thread::spawn(move || proxy.answer(stream, &to));
            }
        });
        proxy
    }

    fn answer(&self, mut stream: TcpStream, to: &str) -> Option<()> {
        let request = read_request(&mut stream);
        let line = request.lines().next()?.to_owned();
        let status = (self.rule.lock().expect("not poisoned"))(&line);
        self.seen.lock().expect("not poisoned").push(line);
        let answer = match status {
            Some(status) => {
                let body = json!({"error": "made up", "code": status}).to_string();
                let head = format!(
                    "HTTP/1.1 {status} Made Up\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                format!("{head}{body}").into_bytes()
            }
            None => {
                // One request for each connection, so that the end of the answer is that of the connection.
                let request = request.replacen("\r\n", "\r\nConnection: close\r\n", 1);
                let mut upstream = TcpStream::connect(to).ok()?;
                upstream.write_all(request.as_bytes()).ok()?;
                let mut answer = Vec::new();
                upstream.read_to_end(&mut answer).ok()?;
                answer
            }
        };
        // The program may have been killed.
        stream.write_all(&answer).ok()
    }

    /// Sets the rule. A request is refused with the status that it returns.
    pub fn refuse(&self, rule: impl Fn(&str) -> Option<u16> + Send + 'static) {
        *self.rule.lock().expect("not poisoned") = Box::new(rule);
    }

    /// How often the first page of each piece was requested: by the device and the start of the period.
    pub fn pieces(&self) -> BTreeMap<String, usize> {
        let mut pieces = BTreeMap::new();
        for line in self.seen.lock().expect("not poisoned").iter() {
            let Some((path, query)) = line.split_once(HISTORY) else { continue };
            if query.contains("pageToken=") {
                continue;
            }
            let device = path.rsplit('/').next().expect("a device");
            let start = query.split(['&', ' ']).find(|part| part.starts_with("startTime=")).expect("a start");
            *pieces.entry(format!("{device} {start}")).or_default() += 1;
        }
        pieces
    }

    /// The number of requests.
    pub fn requests(&self) -> usize {
        self.seen.lock().expect("not poisoned").len()
    }
}

/// Reads a request with its body.
fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let mut part = [0; 4096];
        let count = stream.read(&mut part).unwrap_or(0);
        bytes.extend_from_slice(&part[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let length = text.to_lowercase().lines().find_map(|line| {
            line.strip_prefix("content-length:").and_then(|length| length.trim().parse::<usize>().ok())
        });
        let is_complete =
            text.split_once("\r\n\r\n").is_some_and(|(_, body)| body.len() >= length.unwrap_or_default());
        if count == 0 || is_complete {
            return text;
        }
    }
}

/// The cloud, the proxy, and the receiver's folder. The cloud needs the runtime of the test.
pub struct World {
    pub cloud: Emulator,
    pub proxy: Proxy,
    pub setup: Setup,
    /// Midnight (UTC) of today, in Unix milliseconds.
    pub today: i64,
}

/// A connector section that accepts the events of these projects.
pub fn connector(name: &str, more: &str) -> String {
    let secret = common::SECRET_VARIABLE;
    format!("[[connector]]\nname = '{name}'\npath = '/{name}'\nsecrets = [{{ env = '{secret}' }}]\n{more}\n")
}

impl World {
    /// Starts a cloud, and writes a configuration with these connectors and a file sink.
    pub async fn start(connectors: &str) -> Self {
        let secret = Secret::new(KEY_SECRET).expect("a secret");
        let account = ServiceAccount::new("key", secret, "me@example.com", Role::Developer);
        let cloud = Emulator::builder().service_account(account).start().await.expect("it starts");
        let proxy = Proxy::start(cloud.address().to_string());
        let setup = Setup::of_text(&format!(
            "data = 'FOLDER/data'\n{connectors}\n[[sink]]\nname = 'out'\ntype = 'file'\n\
             path = 'FOLDER/out/{{connector}}.ndjson'\n"
        ));
        std::fs::create_dir(setup.folder().join("out")).expect("made");
        let now = jiff::Timestamp::now().as_millisecond();
        Self { cloud, proxy, setup, today: now - now.rem_euclid(DAY) }
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        self.cloud.call(method, path, body).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Adds temperature sensors to a project, and returns their ids.
    pub fn devices(&self, project: &str, count: usize) -> Vec<String> {
        let body = |number: usize| json!({"type": "temperature", "labels": {"name": format!("sensor {number}"), "floor": "2"}});
        let create = |number| self.call("POST", &format!("/v2/projects/{project}/devices"), &body(number));
        let ids = (0..count).map(create);
        ids.map(|device| {
            device["name"].as_str().and_then(|name| name.rsplit('/').next()).expect("a name").to_owned()
        })
        .collect()
    }

    /// Publishes an event of a device with this time, in Unix milliseconds.
    pub fn publish(&self, project: &str, device: &str, millis: i64) {
        let event = json!({"temperature": {"value": 21.5, "updateTime": rfc3339(millis)}});
        self.call("POST", &format!("/v2/projects/{project}/devices/{device}:publish"), &event);
    }

    /// Creates a Data Connector for a connector of the receiver.
    pub fn push(&self, project: &str, url: &str) -> String {
        let connector = json!({
            "type": "HTTP_PUSH", "status": "ACTIVE", "events": [], "labels": ["name"],
            "httpConfig": {"url": url, "signatureSecret": common::SECRET, "headers": {}},
        });
        let made = self.call("POST", &format!("/v2/projects/{project}/dataconnectors"), &connector);
        made["name"].as_str().expect("a name").to_owned()
    }

    /// Disables a Data Connector, as a person does.
    pub fn disable(&self, connector: &str) {
        self.call("PATCH", &format!("/v2/{connector}"), &json!({"status": "USER_DISABLED"}));
    }

    /// Moves a device to another project.
    pub fn transfer(&self, from: &str, device: &str, to: &str) {
        let body = json!({"devices": [format!("projects/{from}/devices/{device}")]});
        self.call("POST", &format!("/v2/projects/{to}/devices:transfer"), &body);
    }

    /// The ids of all events that a device has in the history, oldest first.
    pub fn history(&self, project: &str, device: &str) -> Vec<String> {
        let start = rfc3339(self.today - 31 * DAY);
        let (mut ids, mut token) = (Vec::new(), String::new());
        loop {
            let path = format!(
                "/v2/projects/{project}/devices/{device}/events?startTime={start}&pageSize=1000{token}"
            );
            let page = self.call("GET", &path, &Value::Null);
            let events = page["events"].as_array().expect("a list").iter();
            ids.extend(events.map(|event| {
                let text = |member: &str| event[member].as_str().expect("text").to_owned();
                (text("timestamp"), text("eventId"))
            }));
            match page["nextPageToken"].as_str() {
                None | Some("") => break,
                Some(next) => token = format!("&pageToken={next}"),
            }
        }
        ids.sort();
        ids.into_iter().map(|(_, id)| id).collect()
    }

    /// What the sink has written for a connector.
    pub fn written(&self, connector: &str) -> Vec<Value> {
        let path = self.setup.folder().join(format!("out/{connector}.ndjson"));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// The ids of what the sink has written for a connector, in its order.
    pub fn written_ids(&self, connector: &str) -> Vec<String> {
        let id = |line: &Value| line["event"]["eventId"].as_str().expect("an id").to_owned();
        self.written(connector).iter().map(id).collect()
    }

    /// The database of the back-fill.
    pub fn database(&self) -> PathBuf {
        self.setup.folder().join("data/cloud.db")
    }

    /// `dt-receiver backfill` for the project `p`, with the API behind the proxy.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = common::program();
        command.arg("backfill").arg("--config").arg(self.setup.config()).args(arguments);
        if !arguments.contains(&"--project") {
            command.args(["--project", "p"]);
        }
        if !arguments.contains(&"--requests-per-second") {
            command.args(["--requests-per-second", "500"]);
        }
        command
            .env_remove("DT_CREDENTIALS_FILE")
            .env("DT_SERVICE_ACCOUNT_KEY_ID", "key")
            .env("DT_SERVICE_ACCOUNT_SECRET", KEY_SECRET)
            .env("DT_SERVICE_ACCOUNT_EMAIL", "me@example.com")
            .env("DT_API_URL", &self.proxy.url)
            .env("DT_OIDC_TOKEN_ENDPOINT", self.cloud.token_endpoint());
        command
    }

    /// Runs `backfill` to its end. No output contains the secret.
    pub fn backfill(&self, arguments: &[&str]) -> Ended {
        ended(self.command(arguments))
    }

    /// Runs `backfill --json` for a window that begins so many days ago. Events of the past are older than the ids of a receiver
    /// that was just started, so duplicates are allowed.
    pub fn fill(&self, days: i64, more: &[&str]) -> (i32, Value) {
        let since = rfc3339(self.today - days * DAY);
        let ended = self.backfill(&[&["--since", &since, "--allow-duplicates", "--json"], more].concat());
        (ended.code(), ended.json())
    }
}

/// Runs a command to its end. No output contains the secret.
pub fn ended(command: Command) -> Ended {
    let ended = common::run_command(command, b"");
    for text in [&ended.stdout, &ended.stderr] {
        assert!(!text.contains(KEY_SECRET) && !text.contains(common::SECRET), "{ended:?}");
    }
    ended
}

/// A time in Unix milliseconds as RFC 3339.
pub fn rfc3339(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis).expect("a time").to_string()
}
