//! Three receivers without local state behind HAProxy, of which one is killed again and again: whatever was answered with
//! 200 is in Kafka, and copies of an event are alike.
//!
//! 5 kills; `DT_RECEIVER_TEST_KAFKA_RECEIVER_KILLS` sets the full count.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cluster::{one_broker, wait_until};
use crate::common::Receiver;
use crate::events::{Random, has_tool_with, now, seed, setting, token};
use crate::load::{Load, Manner};
use crate::seen::{Format, Seen};
use crate::sender::Sender;
use crate::setup::{PATIENCE, Setup};

/// How long all receivers work between one kill and the next.
const PAUSE: Duration = Duration::from_secs(1);

/// A receiver that always listens on the same ports.
struct Fixed {
    setup: Setup,
    addresses: [SocketAddr; 2],
    running: Option<Receiver>,
}

impl Fixed {
    fn new(brokers: &str) -> Self {
        let top = "mode = 'direct'\ndead_letters = 'kafka:haproxy.dead'";
        let setup = Setup::new(top, brokers, "topic = 'haproxy'\nformat = 'body'");
        let running = setup.start();
        let addresses = [running.listen, running.admin];
        Self { setup, addresses, running: Some(running) }
    }

    fn kill(&mut self) {
        self.running.take().expect("it runs").kill();
    }

    fn start(&mut self) {
        let [listen, admin] = self.addresses.map(|address| address.to_string());
        self.running = Some(self.setup.start_with(&["--listen", &listen, "--admin", &admin]));
    }
}

/// HAProxy as a child process.
struct Haproxy {
    child: Child,
    address: SocketAddr,
}

impl Haproxy {
    fn start(folder: &Path, receivers: &[Fixed]) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
        let mut text = format!(
            "defaults\n mode http\n timeout connect 2s\n timeout client 60s\n timeout server 60s\n\
             frontend dt\n bind {free}\n default_backend receivers\n\
             backend receivers\n balance roundrobin\n option httpchk GET /readyz\n"
        );
        for (number, Fixed { addresses: [listen, admin], .. }) in receivers.iter().enumerate() {
            text.push_str(&format!(
                " server r{number} {listen} check port {} inter 200ms fall 1 rise 1\n",
                admin.port()
            ));
        }
        let config = folder.join("haproxy.cfg");
        fs::write(&config, text).expect("written");
        let log = fs::File::create(folder.join("haproxy.log")).expect("created");
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("it starts");
        let haproxy = Self { child, address: free };
        wait_until("HAProxy passes requests on", PATIENCE, || {
            let answer = Sender::connect(free).and_then(|mut sender| sender.get("/"));
            answer.is_some_and(|answer| answer.status == 405)
        });
        haproxy
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn receivers_that_are_killed_behind_haproxy_lose_nothing_that_was_acknowledged() {
    let left_out = "receivers behind HAProxy";
    if !has_tool_with("haproxy", "-v", left_out) {
        return;
    }
    let Some(cluster) = one_broker(left_out) else { return };
    let kills = setting("DT_RECEIVER_TEST_KAFKA_RECEIVER_KILLS", 5);
    let mut random = Random::new(seed());
    cluster.create_topic("haproxy", 6);
    cluster.create_topic("haproxy.dead", 1);
    let mut receivers: Vec<Fixed> = (0..3).map(|_| Fixed::new(cluster.bootstrap())).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let haproxy = Haproxy::start(folder.path(), &receivers);

    let ledger = Load::steady(haproxy.address, 0..32, 400, Manner::Insisting).during(|| {
        for _ in 0..kills {
            std::thread::sleep(PAUSE);
            let victim = usize::try_from(random.below(3)).expect("small");
            receivers[victim].kill();
            std::thread::sleep(PAUSE);
            receivers[victim].start();
            receivers[victim].running.as_ref().expect("it runs").wait_until_ready();
        }
    });
    let odd = "authentic, and no delivery";
    let answer = Sender::connect(haproxy.address).and_then(|mut to| to.post("/", odd, &token(odd, now())));
    assert_eq!(answer.expect("an answer").status, 200);
    for Fixed { setup, running, .. } in receivers {
        running.expect("it runs").stop();
        assert!(!setup.folder().join("data").exists(), "there is local state");
    }
    let copies = Seen::new(&cluster.read("haproxy"), Format::Body).assert_complete(&ledger);
    let letters = cluster.read("haproxy.dead");
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!((&*letters[0].value, letters[0].header("dt-reason")), (odd.as_bytes(), "unreadable"));
    println!(
        "{kills} receivers of three killed: {} events with 200, other answers {:?}, {} connections broken, {copies} copies too \
         many, slowest answer {:?}",
        ledger.count(),
        ledger.statuses,
        ledger.broken,
        ledger.slowest
    );
}
