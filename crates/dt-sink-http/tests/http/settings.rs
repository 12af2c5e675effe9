//! What `check` reports about the keys of the sink.

use dt_sink::{SinkSettings, SinkType};
use dt_sink_http::HttpConfig;

use crate::driver::{Files, read};

fn files() -> Files {
    let secrets: [(&str, &[u8]); 4] = [
        ("SECRET", b"s3cret"),
        ("LINES", b"two\nlines"),
        ("URL", b"https://h.example/t0ken"),
        ("BAD_URL", b"no url"),
    ];
    Files(secrets.map(|(name, value)| (name.to_owned(), value.to_vec())).into())
}

const URL: &str = "url = 'https://h.example/'";

#[test]
fn mistakes_are_reported_with_what_is_allowed() {
    let sign = "sign = { secret = { env = 'SECRET' } }";
    for (keys, expected) in [
        (String::new(), vec!["url: is missing; give \"https://HOST/PATH\""]),
        ("url = 7".into(), vec!["url: found a value of type integer; expected a string"]),
        (
            "url = 'h.example'".into(),
            vec!["url: is no URL; expected one such as \"https://example.com/events\""],
        ),
        (
            "url = 'https://u:p@h.example/'".into(),
            vec!["url: contains a user name; give user and password in [sink.auth]"],
        ),
        ("url = { env = 'MISSING' }".into(), vec!["url.env: the environment variable MISSING is not set"]),
        (
            "url = { env = 'BAD_URL' }".into(),
            vec!["url: is no URL; expected one such as \"https://example.com/events\""],
        ),
        (
            format!("{URL}\ntimeout = '10ms'"),
            vec![
                "timeout: found \"10ms\" (string); expected a duration such as \"8s\", \"500ms\" or \"1d\", from 100ms to 2m",
            ],
        ),
        (
            format!("{URL}\nconcurrency = 0"),
            vec!["concurrency: found 0 (integer); expected a number from 1 to 1024"],
        ),
        (
            format!("{URL}\nbatch = {{ max_events = 10 }}"),
            vec!["batch.format: is missing; expected ndjson or json-array"],
        ),
        (
            format!("{URL}\nformat = 'line-protocol'\nbatch = {{ format = 'json-array' }}"),
            vec!["batch.format: is json-array, and the format \"line-protocol\" is no JSON; use ndjson"],
        ),
        (
            format!("{URL}\nformat = 'body'\nforward_signature = true"),
            vec![
                "sign: is needed with `forward_signature`: DT's tokens expire after an hour, and an outage may be longer; give { \
                 secret = { env = \"NAME\" } }",
            ],
        ),
        (
            format!("{URL}\nforward_signature = true\n{sign}"),
            vec![
                "forward_signature: is true, and DT's signature is of the received bytes; set `format = \"body\"`",
            ],
        ),
        (
            format!(
                "{URL}\nformat = 'body'\nforward_signature = true\n{sign}\nbatch = {{ format = 'ndjson' }}"
            ),
            vec!["forward_signature: is true, and DT's signature is of a single event; delete `batch`"],
        ),
        (
            format!("{URL}\nauth = {{ scheme = 'digest', secret = {{ env = 'SECRET' }} }}"),
            vec!["auth.scheme: found \"digest\"; expected basic, bearer"],
        ),
        (
            format!("{URL}\nauth = {{ scheme = 'basic', secret = {{ env = 'SECRET' }} }}"),
            vec!["auth.username: is missing; `basic` needs it"],
        ),
        (
            format!("{URL}\nauth = {{ scheme = 'bearer', secret = {{ env = 'LINES' }} }}"),
            vec!["auth.secret.env: holds a secret with control characters, which no header can have"],
        ),
        (
            format!("{URL}\nauth = {{ scheme = 'bearer', username = 'u', secret = {{ env = 'SECRET' }} }}"),
            vec!["auth.username: is given, and `bearer` has none; delete it, or set `scheme = \"basic\"`"],
        ),
        (
            format!("{URL}\nauth = {{ scheme = 'bearer', secret = 's3cret' }}"),
            vec![
                "auth.secret: found a value of type string; expected { env = \"NAME\" } or { file = \"PATH\" }",
            ],
        ),
        (
            format!("{URL}\nsign = {{}}"),
            vec!["sign.secret: is missing; give { env = \"NAME\" } or { file = \"PATH\" }"],
        ),
        (
            format!(
                "{URL}\nheaders = {{ Host = 'x', 'a b' = 'x', X-Api-Key = 's3cret', X = \"a\\nb\", Ce-Id = 'x' }}"
            ),
            vec![
                "headers.\"Ce-Id\": cannot be set: the format `cloudevents` sets it",
                "headers.\"Host\": cannot be set: it is the host of `url`",
                "headers.\"X\": has a value that no header can have; expected visible ASCII",
                "headers.\"X-Api-Key\": is a secret, which never stands in the file; give it as [sink.secret_headers.X-Api-Key] with \
                 `env` or `file`",
                "headers.\"a b\": is no name of an HTTP header; expected one such as X-Tenant",
            ],
        ),
        (
            format!(
                "{URL}\nsecret_headers = {{ X-Dt-Signature = {{ env = 'SECRET' }}, K = {{ file = 'MISSING.txt' }} }}"
            ),
            vec![
                "secret_headers.K.file: MISSING.txt: entity not found",
                "secret_headers.X-Dt-Signature.env: the header cannot be set: set `sign` or `forward_signature`",
            ],
        ),
        (
            format!("{URL}\nheaders = {{ K = 'x' }}\nsecret_headers = {{ k = {{ env = 'SECRET' }} }}"),
            vec!["headers.\"k\": is also in `secret_headers`; delete one"],
        ),
        (
            format!(
                "{URL}\nauth = {{ scheme = 'bearer', secret = {{ env = 'SECRET' }} }}\n\
                 secret_headers = {{ Authorization = {{ env = 'SECRET' }} }}"
            ),
            vec!["auth: is given, and a secret header has the name Authorization; delete one"],
        ),
        (
            format!("{URL}\nfields = {{}}"),
            vec!["fields: is empty; give at least one field, such as device = \"{device}\""],
        ),
        (
            format!("{URL}\nformat = 'body'\nfields = {{ d = '{{device}}' }}"),
            vec!["fields: is given, and `format` is \"body\"; delete one"],
        ),
        (
            format!("{URL}\nfields = {{ d = '{{devce}}', e = {{ f = 'a}}' }} }}"),
            vec![
                "fields.d: found \"{devce}\"; did you mean \"{device}\"? expected {date}, {hour}, {connector}, {project}, {device}",
                "fields.e.f: found \"a}\"; expected each placeholder between braces, such as \"{device}\"",
            ],
        ),
        (
            format!("{URL}\nforward_signature = true\n{sign}\nfields = {{ d = '{{device}}' }}"),
            vec![
                "forward_signature: is true, and DT's signature is of the received bytes; delete `fields`, and set `format = \"body\"`",
            ],
        ),
        (
            format!("{URL}\nfields = 'x'"),
            vec!["fields: found a value of type string; expected a table, [fields]"],
        ),
        (format!("{URL}\nretries = 3"), vec!["retries: unknown key"]),
    ] {
        let (_, mut errors, _) = read(&keys, &files());
        errors.sort();
        assert_eq!(errors.len(), expected.len(), "{keys}: {errors:?}");
        for (error, expected) in errors.iter().zip(expected) {
            assert!(error.starts_with(expected), "{keys}:\n{error}\n{expected}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}

#[test]
fn plain_http_to_another_machine_is_a_warning() {
    for (url, is_warned) in [
        ("https://h.example/t0ken", false),
        ("http://127.0.0.1:8080/", false),
        ("http://localhost/", false),
        ("http://10.0.0.1/t0ken", true),
        ("http://h.example/", true),
    ] {
        let (settings, errors, warnings) = read(&format!("url = '{url}'"), &files());
        assert!(settings.is_some() && errors.is_empty(), "{errors:?}");
        assert_eq!(warnings.len(), usize::from(is_warned), "{url}: {warnings:?}");
        assert!(
            warnings.iter().all(|warning| warning.contains("is not encrypted") && !warning.contains("t0ken"))
        );
    }
}

#[test]
fn a_url_may_be_a_secret_and_a_change_shows_its_origin_alone() {
    let (settings, errors, _) = read("url = { env = 'URL' }", &files());
    assert_eq!(errors, [] as [String; 0]);
    let settings = settings.expect("settings");
    assert!(!format!("{settings:?}").contains("t0ken"));
    let (other, ..) = read("url = 'https://i.example/0ther'\ntimeout = '3s'", &files());
    let mut changes = dt_sink::config::Changes::default();
    dt_sink::config::Keys::compare(&settings, &other.expect("settings"), &mut changes);
    let text = format!("{:?}", changes.found());
    assert!(text.contains("https://h.example") && text.contains("https://i.example"), "{text}");
    assert!(!text.contains("t0ken") && !text.contains("0ther"), "{text}");
}

#[test]
fn on_the_command_line_the_place_is_a_url() {
    for place in ["http://127.0.0.1:9000/x", "//127.0.0.1:9000/x", "https://h.example/"] {
        let settings = HttpConfig::from_place(place).expect(place);
        assert!(["http://127.0.0.1:9000", "https://h.example"].contains(&settings.url.to_string().as_str()));
    }
    let error = HttpConfig::from_place("t0ken").expect_err("no URL").to_string();
    assert_eq!(error, "the text is no URL; expected one such as \"https://example.com/events\"");
}

#[test]
fn every_key_is_described() {
    let tables = SinkType::of::<HttpConfig>().tables();
    let headers: Vec<&str> = tables.iter().map(|table| table.header.as_str()).collect();
    assert_eq!(
        headers,
        [
            "[[sink]]",
            "[sink.fields]",
            "[sink.batch]",
            "[sink.headers]",
            "[sink.secret_headers.X-Api-Key]",
            "[sink.auth]",
            "[sink.auth.secret]",
            "[sink.sign]",
            "[sink.sign.secret]",
            "[sink.tls]",
        ]
    );
}
