//! The sample configurations of `docs/tls.md`, run with nginx and HAProxy themselves and with certbot's layout of files.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::authority::Authority;
use crate::client::{Client, trusting};
use crate::common::Receiver;
use crate::events::has_tool_with;
use crate::place::{Place, refused_peers, until};

const PAGE: &str = include_str!("../../docs/tls.md");
const REFUSED: &str = "POST / HTTP/1.1\r\nHost: localhost\r\nX-Dt-Signature: x\r\nX-Forwarded-For: 192.0.2.7\r\nContent-Length: 0\r\n\r\n";

/// The one block of a language that has some words.
fn block(language: &str, words: &str) -> String {
    let fence = format!("```{language}\n");
    let blocks = PAGE.split(&fence).skip(1).filter_map(|rest| rest.split("```").next());
    let found: Vec<&str> = blocks.filter(|block| block.contains(words)).collect();
    assert_eq!(found.len(), 1, "blocks of {language} with {words}");
    found[0].to_owned()
}

/// Replaces what must be there.
fn replace(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "{old} is not in {text}");
    text.replace(old, new)
}

/// An address that is free, if nobody takes it in the meantime.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("an address")
}

/// A proxy, killed when dropped.
struct Proxy(Child);

impl Proxy {
    fn start(command: &mut Command, log: &Path, address: SocketAddr) -> Self {
        let log = fs::File::create(log).expect("a log");
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("it starts");
        let proxy = Self(child);
        until("the proxy listens", || TcpStream::connect(address).is_ok());
        proxy
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _told = Command::new("kill").arg(self.0.id().to_string()).status();
        let _reaped = self.0.wait();
    }
}

/// Starts a receiver with a sample, on free ports and with files of the test's own.
fn receiver(place: &Place, sample: &str, listen: &str) -> Receiver {
    let config = format!("data = '{}'\n{}", place.text("data"), replace(sample, listen, "127.0.0.1:0"));
    place.write("dt-receiver.toml", &config);
    Receiver::start(["--config".as_ref(), place.path("dt-receiver.toml").as_os_str()], &[])
}

#[test]
fn nginx_in_front_hands_on_events_and_clients() {
    if !has_tool_with("nginx", "-v", "the sample of nginx") {
        return;
    }
    let (place, authority) = Place::with_certificate();
    // The client comes from this machine, too, and must not be taken for the proxy.
    let sample =
        replace(&block("toml", "any client of the Unix socket"), "[\"127.0.0.1\"]", "[\"127.0.0.9\"]");
    let receiver = receiver(&place, &sample, "127.0.0.1:8080");
    let address = free();
    let sample = block("nginx", "server {");
    let sample = replace(&sample, "listen 443", &format!("listen {address}"));
    let sample = replace(&sample, "server 127.0.0.1:8080", &format!("server {}", receiver.listen));
    let sample =
        replace(&sample, "/etc/letsencrypt/live/dt.example.com/fullchain.pem", &place.text("cert.pem"));
    let sample = replace(&sample, "/etc/letsencrypt/live/dt.example.com/privkey.pem", &place.text("key.pem"));
    let sample = replace(&sample, "proxy_http_version", "proxy_bind 127.0.0.9;\n proxy_http_version");
    let folder = place.path("");
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("{name}_temp_path {}/{name};\n", folder.display()))
        .collect();
    let config = format!(
        "daemon off;\nworker_processes 1;\npid {0}/nginx.pid;\nerror_log stderr;\nevents {{}}\n\
         http {{\naccess_log off;\n{temporary}{sample}}}\n",
        folder.display()
    );
    place.write("nginx.conf", &config);
    let mut command = Command::new("nginx");
    command.arg("-p").arg(&folder).arg("-c").arg(place.path("nginx.conf"));
    let _nginx = Proxy::start(&mut command, &place.path("nginx.log"), address);
    let mut client = Client::connect(address, &trusting(&authority, None)).expect("a handshake");
    for number in 0..20 {
        // Some of them are long.
        assert_eq!(client.send(1, number), Ok(200));
    }
    assert_eq!(client.request(REFUSED), Ok(401));
    // nginx adds the client's address at the right of what the client says.
    assert_eq!(refused_peers(&receiver.stop().stderr), ["127.0.0.1:0"]);
}

#[test]
fn haproxy_in_front_passes_tls_through_and_names_the_client() {
    if !has_tool_with("haproxy", "-v", "the sample of HAProxy") {
        return;
    }
    let (place, authority) = Place::with_certificate();
    let sample = block("toml", "proxy_protocol");
    let sample = replace(&sample, "/etc/dt-receiver/fullchain.pem", &place.text("cert.pem"));
    let sample = replace(&sample, "/etc/dt-receiver/privkey.pem", &place.text("key.pem"));
    let receiver = receiver(&place, &sample, "127.0.0.1:8443");
    let address = free();
    let sample = block("haproxy", "frontend");
    let sample = replace(&sample, "bind :443", &format!("bind {address}"));
    let sample = replace(&sample, "127.0.0.1:8443", &receiver.listen.to_string());
    place.write("haproxy.cfg", &sample);
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(place.path("haproxy.cfg"));
    let _haproxy = Proxy::start(&mut command, &place.path("haproxy.log"), address);
    let mut client = Client::connect(address, &trusting(&authority, None)).expect("a handshake");
    assert_eq!(client.send(1, 1), Ok(200));
    assert_eq!(client.request(&REFUSED.replace("X-Forwarded-For: 192.0.2.7\r\n", "")), Ok(401));
    let own = client.local_address().to_string();
    let ended = receiver.stop();
    assert_eq!(refused_peers(&ended.stderr), [own], "the client's own address, not HAProxy's");
    assert!(!ended.stderr.contains("handshake failed"), "its health checks are no news: {}", ended.stderr);
}

#[test]
fn files_of_certbot_are_followed_through_a_renewal() {
    let (place, authority) = (Place::new(), Authority::new());
    let pairs = [authority.good(1), authority.good(2)];
    let (live, archive) = (place.path("live/dt.example.com"), place.path("archive/dt.example.com"));
    for folder in [&live, &archive] {
        fs::create_dir_all(folder).expect("a folder");
    }
    let store = |version: usize| {
        let pair = &pairs[version];
        fs::write(archive.join(format!("fullchain{version}.pem")), &pair.certificate).expect("written");
        fs::write(archive.join(format!("privkey{version}.pem")), &pair.key).expect("written");
    };
    let link = |name: &str, version: usize| {
        let link = live.join(format!("{name}.pem"));
        let _none = fs::remove_file(&link);
        symlink(format!("../../archive/dt.example.com/{name}{version}.pem"), link).expect("a link");
    };
    store(0);
    link("privkey", 0);
    link("fullchain", 0);
    let sample = block("toml", "check_interval");
    let sample = replace(&sample, "/etc/letsencrypt", &place.text(""));
    let sample = replace(&sample, "# check_interval = \"5s\"", "check_interval = \"10ms\"");
    let receiver = receiver(&place, &sample, "0.0.0.0:443");
    let config = trusting(&authority, None);
    let shown = || Client::connect(receiver.listen, &config).expect("a handshake").certificate();
    assert_eq!(shown(), pairs[0].der);
    store(1);
    // One link after the other, as certbot does it.
    link("privkey", 1);
    until("the half is seen", || {
        crate::sender::readiness(receiver.admin).contains("is not the private key of the certificate")
    });
    assert_eq!(shown(), pairs[0].der);
    link("fullchain", 1);
    until("the new one is in force", || shown() == pairs[1].der);
    assert_eq!(receiver.stop().code(), 0);
}
