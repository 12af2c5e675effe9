//! With `client_ca`, only clients with a certificate of that authority get through.

use crate::authority::Authority;
use crate::client::{Client, trusting};
use crate::place::{Place, TLS, failed_handshakes, until};

#[test]
fn clients_need_a_certificate_of_the_right_authority() {
    let (place, authority) = Place::with_certificate();
    let (ours, others) = (Authority::new(), Authority::new());
    place.write("clients.pem", &ours.pem);
    let receiver = place.start("", &format!("{TLS}client_ca = 'clients.pem'\n"));
    let send = |own: Option<&crate::authority::Pair>, number| {
        // With TLS 1.3, the client learns of the refusal when it reads.
        Client::connect(receiver.listen, &trusting(&authority, own))?.send(1, number)
    };
    assert_eq!(send(Some(&ours.good(7)), 1), Ok(200));
    send(None, 2).expect_err("no certificate");
    until("it is counted", || failed_handshakes(&receiver, "client_certificate_missing") == 1.0);
    send(Some(&others.good(7)), 3).expect_err("of another authority");
    until("it is counted", || failed_handshakes(&receiver, "client_certificate_refused") == 1.0);
    send(Some(&ours.sign(7, 2020, 2021)), 4).expect_err("expired");
    until("it is counted", || failed_handshakes(&receiver, "client_certificate_refused") == 2.0);
    // The authorities of clients are swapped like the certificate.
    place.write("clients.pem", &others.pem);
    let mut number = 10;
    until("the other authority is in force", || {
        number += 1;
        send(Some(&others.good(7)), number) == Ok(200)
    });
    send(Some(&ours.good(7)), 5).expect_err("no more");
    assert_eq!(receiver.stop().code(), 0);
}
