//! What cannot work is refused at the start, and by `check`, with the path and the cure; what only looks wrong is said.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::authority::Authority;
use crate::common::run;
use crate::events::has_tool_with;
use crate::place::{Place, TLS};
use crate::sender::readiness;

/// What `serve` and `check` say, which is the same.
fn refusal(place: &Place) -> String {
    let config = place.configure("listen = '127.0.0.1:0'\nadmin = 'off'", TLS);
    let config = config.to_str().expect("text");
    let (served, checked) =
        (run(["serve", "--config", config], b""), run(["check", "--config", config], b""));
    assert_eq!((served.code(), checked.code()), (2, 2), "{served:?} {checked:?}");
    let lines = |text: &str| {
        // `check` also tells of what it would only warn of.
        let errors = text.lines().filter(|line| !line.contains(": warning: "));
        errors.map(|line| line.rsplit("tls.").next().unwrap_or("").to_owned()).collect()
    };
    let (served, checked): (Vec<String>, Vec<String>) = (lines(&served.stderr), lines(&checked.stderr));
    assert_eq!(served, checked);
    served.join("\n")
}

#[test]
fn bad_files_are_refused_with_their_path() {
    let (place, authority) = Place::with_certificate();
    let good = authority.good(1);
    let is_refused = |name: &str, content: &str, words: &[&str]| {
        place.install(&good);
        place.write(name, content);
        let said = refusal(&place);
        for word in words.iter().copied().chain([&*place.text(name)]) {
            assert!(said.contains(word), "{word} is not in: {said}");
        }
    };
    is_refused("cert.pem", "", &["certificate: ", "no certificate in it"]);
    is_refused("cert.pem", &good.key, &["certificate: ", "no certificate in it"]);
    is_refused("cert.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &["not X.509"]);
    is_refused("cert.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n", &["damaged PEM", "END"]);
    is_refused("key.pem", "", &["key: ", "no private key in it"]);
    is_refused("key.pem", &good.certificate, &["key: ", "no private key in it"]);
    is_refused(
        "key.pem",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        &["cannot be used"],
    );
    is_refused("key.pem", &authority.good(2).key, &["key: ", "is not the private key of", "cert.pem"]);
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    is_refused("key.pem", encrypted, &["is encrypted", "openssl pkey"]);
    for name in ["cert.pem", "key.pem"] {
        place.install(&good);
        fs::remove_file(place.path(name)).expect("removed");
        let said = refusal(&place);
        assert!(said.contains(&place.text(name)) && said.contains("No such file"), "{said}");
    }
    // Both at once.
    place.write("cert.pem", "");
    place.write("key.pem", "");
    let said = refusal(&place);
    assert!(said.contains("no certificate in it") && said.contains("no private key in it"), "{said}");
    // Part of a key is not shown, wherever it stands.
    place.write("cert.pem", "-----BEGIN CERTIFICATE-----\nc2VjcmV0!\n-----END CERTIFICATE-----\n");
    assert!(!refusal(&place).contains("c2VjcmV0"));
}

#[test]
fn a_real_encrypted_key_is_known_as_one() {
    if !has_tool_with("openssl", "version", "encrypted keys of openssl") {
        return;
    }
    let (place, _) = Place::with_certificate();
    let (plain, locked) = (place.text("key.pem"), place.text("locked.pem"));
    for form in [&["pkcs8", "-topk8", "-v2", "aes256"][..], &["ec", "-aes256"]] {
        let output = std::process::Command::new("openssl")
            .args(form)
            .args(["-in", &plain, "-out", &locked, "-passout", "pass:x"])
            .output()
            .expect("openssl runs");
        assert!(output.status.success(), "{output:?}");
        let (text, clear) =
            (fs::read_to_string(&locked).expect("read"), fs::read_to_string(&plain).expect("read"));
        place.write("key.pem", &text);
        let said = refusal(&place);
        assert!(said.contains("is encrypted"), "{said}");
        place.write("key.pem", &clear);
    }
}

#[test]
fn a_certificate_out_of_its_time_is_served_with_a_warning() {
    for (from, until, words) in
        [(2019, 2020, "expired at 2020-01-01"), (2089, 2090, "not valid before 2089-01-01")]
    {
        let (place, authority) = (Place::new(), Authority::new());
        place.install(&authority.sign(1, from, until));
        let config = place.configure("", TLS);
        let checked = run(["check", "--config", config.to_str().expect("text")], b"");
        assert_eq!(checked.code(), 0, "{checked:?}");
        assert!(
            checked.stderr.contains("warning: line 4: tls.certificate: ") && checked.stderr.contains(words),
            "{checked:?}"
        );
        let receiver = place.start("", TLS);
        let said = readiness(receiver.admin);
        assert!(said.starts_with("ready, but: ") && said.contains(words), "{said}");
        let ended = receiver.stop();
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
}

#[test]
fn a_key_that_everybody_can_read_is_warned_of() {
    let (place, _) = Place::with_certificate();
    let config = place.configure("", TLS);
    for (mode, is_warned) in [(0o644, true), (0o640, false), (0o600, false)] {
        fs::set_permissions(place.path("key.pem"), fs::Permissions::from_mode(mode)).expect("set");
        let checked = run(["check", "--config", config.to_str().expect("text")], b"");
        assert_eq!(checked.code(), 0, "{checked:?}");
        assert_eq!(
            checked.stderr.contains("everybody on this machine can read it"),
            is_warned,
            "{checked:?}"
        );
    }
}
