//! `send` to a receiver that takes TLS.

use crate::authority::Authority;
use crate::common::run;
use crate::place::{Place, TLS};

#[test]
fn send_speaks_https_and_trusts_the_authority_it_is_told_to() {
    let (place, _authority) = Place::with_certificate();
    let receiver = place.start("", TLS);
    let port = receiver.listen.port();
    let ca = place.text("ca.pem");
    for host in ["127.0.0.1", "localhost"] {
        let url = format!("https://{host}:{port}/");
        let ended =
            run(["send", "--url", &url, "--ca", &ca, "--count", "20", "--concurrency", "3", "--json"], b"");
        assert_eq!((ended.code(), ended.stderr.as_str()), (0, ""), "{url}: {ended:?}");
        assert_eq!(ended.json()["answers"]["200 accepted"], 20, "{ended:?}");
    }
    let url = format!("https://127.0.0.1:{port}/");
    // Neither a public authority nor another one of ours has signed it.
    let other = Authority::new();
    place.write("other.pem", &other.pem);
    for trust in [&[][..], &["--ca", &place.text("other.pem")]] {
        let ended = run([&["send", "--json", "--url", &url], trust].concat(), b"");
        assert_eq!((ended.code(), &ended.json()["errors"]["tls_failed"]), (1, &1.into()), "{ended:?}");
        assert!(ended.stderr.contains("--ca FILE"), "{ended:?}");
    }
    // The name counts: this address leads to the same receiver, and is not in its certificate.
    let url_of_another = format!("https://[::ffff:127.0.0.1]:{port}/");
    let ended = run(["send", "--json", "--url", &url_of_another, "--ca", &ca], b"");
    assert_eq!((ended.code(), &ended.json()["errors"]["tls_failed"]), (1, &1.into()), "{ended:?}");
    // Mistakes are told before anything is sent.
    for (arguments, says) in [
        (["send", "--url", &url, "--ca", "/not/there.pem"], "/not/there.pem"),
        (["send", "--url", &url, "--ca", &place.text("key.pem")], "no certificate"),
        (["send", "--url", "http://127.0.0.1:1/", "--ca", &ca], "--ca: "),
    ] {
        let ended = run(arguments, b"");
        assert_eq!(ended.code(), 2, "{ended:?}");
        assert!(ended.stderr.contains(says), "{ended:?}");
    }
    receiver.stop();
}
