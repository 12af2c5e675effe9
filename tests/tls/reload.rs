//! Certificates that change while the server runs: good ones are taken, bad ones leave the old one in force and are told.

use std::fs;
use std::os::unix::fs::symlink;

use crate::authority::{Authority, Pair};
use crate::client::{Client, trusting};
use crate::common::Receiver;
use crate::place::{Place, TLS, metric, until, write_at};
use crate::sender::readiness;

const CHANGED: &str = "dt_receiver_tls_reloads_total{outcome=\"changed\"}";
const FAILED: &str = "dt_receiver_tls_reloads_total{outcome=\"failed\"}";
const EXPIRY: &str = "dt_receiver_tls_certificate_expiry_timestamp_seconds";

/// The start of a year, in Unix seconds.
fn year(year: i16) -> f64 {
    let start = jiff::civil::date(year, 1, 1).to_zoned(jiff::tz::TimeZone::UTC).expect("a date");
    f64::from(u32::try_from(start.timestamp().as_second()).expect("in range"))
}

fn shows(receiver: &Receiver, authority: &Authority, pair: &Pair) -> bool {
    let client = Client::connect(receiver.listen, &trusting(authority, None)).expect("a handshake");
    client.certificate() == pair.der
}

#[test]
fn a_bad_pair_leaves_the_old_one_in_force_and_is_told() {
    let (place, authority) = Place::with_certificate();
    let first = authority.good(1);
    place.install(&first);
    let receiver = place.start("", TLS);
    let mut open = Client::connect(receiver.listen, &trusting(&authority, None)).expect("a handshake");
    assert_eq!(metric(&receiver, EXPIRY), year(2090));
    assert_eq!(readiness(receiver.admin), "ready\n");
    let (expired, future) = (authority.sign(2, 2019, 2020), authority.sign(3, 2089, 2090));
    let mut number = 0;
    for (words, certificate, key) in [
        ("expired at 2020-01-01", &expired.certificate, &expired.key),
        ("not valid before 2089-01-01", &future.certificate, &future.key),
        ("is not the private key of", &authority.good(4).certificate, &first.key),
        ("no certificate in it", &String::new(), &first.key),
        ("no private key in it", &first.certificate, &String::new()),
    ] {
        let failed = metric(&receiver, FAILED);
        place.write("cert.pem", certificate);
        place.write("key.pem", key);
        until(words, || readiness(receiver.admin).contains(words));
        let said = readiness(receiver.admin);
        assert!(said.starts_with("ready, but: certificate not reloaded, the old one (until 2090-"), "{said}");
        until("it is counted", || metric(&receiver, FAILED) > failed);
        assert!(shows(&receiver, &authority, &first), "the old one is in force");
        number += 1;
        assert_eq!(open.send(1, number), Ok(200), "open connections go on");
        assert_eq!(metric(&receiver, EXPIRY), year(2090));
        // What was in force is no trouble when it comes back.
        place.install(&first);
        until("all is well", || readiness(receiver.admin) == "ready\n");
    }
    fs::remove_file(place.path("key.pem")).expect("removed");
    until("it is unreadable", || readiness(receiver.admin).contains("No such file"));
    assert_eq!(metric(&receiver, CHANGED), 0.0);
    let next = authority.sign(5, 2020, 2091);
    place.install(&next);
    until("the new one is in force", || shows(&receiver, &authority, &next));
    until("all is well", || readiness(receiver.admin) == "ready\n");
    assert_eq!((metric(&receiver, CHANGED), metric(&receiver, EXPIRY)), (1.0, year(2091)));
    assert_eq!(open.send(1, 99), Ok(200), "open connections go on");
    assert_eq!(receiver.stop().code(), 0);
}

#[test]
fn a_failure_that_lasts_is_told_once() {
    let (place, authority) = Place::with_certificate();
    let receiver = place.start("", TLS);
    place.write("cert.pem", &authority.good(2).certificate);
    until("it fails", || metric(&receiver, FAILED) == 1.0);
    // Many looks later: the second failure comes after all of the first one's.
    place.write("cert.pem", "");
    until("it fails anew", || metric(&receiver, FAILED) == 2.0);
    let ended = receiver.stop();
    let told = ended.stderr.matches("the certificate was not reloaded").count();
    assert_eq!(told, 2, "{}", ended.stderr);
}

#[test]
fn a_folder_that_is_swapped_behind_a_link_is_seen() {
    // As Kubernetes does it: live/cert.pem -> ..data/cert.pem, ..data -> a folder of that version.
    let (place, authority) = Place::with_certificate();
    let pairs = [authority.good(1), authority.good(2), authority.good(3)];
    fs::create_dir(place.path("live")).expect("a folder");
    let swap = |version: usize| {
        let folder = place.path(&format!("live/..{version}"));
        fs::create_dir(&folder).expect("a folder");
        write_at(&folder.join("cert.pem"), &pairs[version].certificate);
        write_at(&folder.join("key.pem"), &pairs[version].key);
        symlink(format!("..{version}"), place.path("live/..tmp")).expect("a link");
        fs::rename(place.path("live/..tmp"), place.path("live/..data")).expect("renamed");
    };
    swap(0);
    for name in ["cert.pem", "key.pem"] {
        symlink(format!("..data/{name}"), place.path("live").join(name)).expect("a link");
    }
    let receiver = place.start("", &TLS.replace("'cert", "'live/cert").replace("'key", "'live/key"));
    assert!(shows(&receiver, &authority, &pairs[0]));
    for (version, pair) in pairs.iter().enumerate().skip(1) {
        swap(version);
        until("the new one is in force", || shows(&receiver, &authority, pair));
    }
    assert_eq!(receiver.stop().code(), 0);
}
