//! A certificate that is replaced 100 times while events come in: none fails, and each new one is shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::client::{Client, trusting};
use crate::events::setting;
use crate::place::{Place, TLS, metric, until};

#[test]
fn no_request_fails_while_the_certificate_is_replaced() {
    let swaps = setting("DT_RECEIVER_TEST_CERTIFICATES", 100);
    let (place, authority) = Place::with_certificate();
    let receiver = place.start("", TLS);
    let config = trusting(&authority, None);
    let (address, stop) = (receiver.listen, Arc::new(AtomicBool::new(false)));
    let counts: [Arc<AtomicU64>; 2] = Default::default();
    let mut senders = Vec::new();
    for (device, count) in (1_u64..).zip(&counts) {
        let (config, stop, count) = (Arc::clone(&config), Arc::clone(&stop), Arc::clone(count));
        senders.push(thread::spawn(move || {
            // The first one keeps its connection, the second makes one for each event.
            let mut kept = Client::connect(address, &config).expect("a handshake");
            while !stop.load(Ordering::SeqCst) {
                let number = count.fetch_add(1, Ordering::SeqCst);
                if device == 2 {
                    kept = Client::connect(address, &config).expect("a handshake");
                }
                assert_eq!(kept.send(device, number), Ok(200));
            }
        }));
    }
    for number in 0..swaps {
        let next = authority.good(100 + number);
        // In both orders: certificate or key first.
        if number % 2 == 0 {
            place.install(&next);
        } else {
            place.write("key.pem", &next.key);
            place.write("cert.pem", &next.certificate);
        }
        until("the new one is shown", || {
            Client::connect(address, &config).expect("a handshake").certificate() == next.der
        });
    }
    stop.store(true, Ordering::SeqCst);
    for sender in senders {
        sender.join().expect("no request failed");
    }
    let changed = metric(&receiver, "dt_receiver_tls_reloads_total{outcome=\"changed\"}");
    let sent: u64 = counts.iter().map(|count| count.load(Ordering::SeqCst)).sum();
    println!("{swaps} certificates, {sent} events, {changed} reloads");
    assert!(changed >= f64::from(u32::try_from(swaps).expect("few")), "{changed}");
    let accepted = "dt_receiver_requests_total{code=\"200\",connector=\"main\",reason=\"accepted\"}";
    assert_eq!(metric(&receiver, accepted), f64::from(u32::try_from(sent).expect("few")));
    assert_eq!(receiver.stop().code(), 0);
}
