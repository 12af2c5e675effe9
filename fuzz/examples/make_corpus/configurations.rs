//! Configurations.

use crate::Seeds;

/// Configurations, for the environment and the files that the target makes up.
pub fn configurations() -> Seeds {
    const LEAST: &str = "[[connector]]\nname = \"a\"\nsecrets = [{ env = \"SECRET\" }]\n";
    let all = r#"listen = "0.0.0.0:8080"
admin = "off"
mode = "direct"
data = "/var/lib/dt-receiver"
dead_letters = "kafka:dead"
drain_timeout = "10s"
dedup_window = "72h"
dedup_max = 1000
socket_mode = "0660"
trusted_proxies = ["10.0.0.0/8", "fd00::1", "unix"]
client_header = "Forwarded"
proxy_protocol = true

[tls]
certificate = "cert.pem"
key = "key.pem"
client_ca = "cert.pem"
min_version = "1.2"
check_interval = "5s"

[limits]
max_body = "64KiB"
max_head = 16384
header_timeout = "1500ms"
handshake_timeout = "5s"
deadline = "8s"
keep_alive_idle = "1m 15s"
max_connections = 100
max_in_flight = 10
max_in_flight_bytes = "1 MB"

[[sink]]
name = "out"
type = "stdout"
format = "envelope"

[[sink]]
name = "log"
type = "file"
path = "events.jsonl"
format = "body"

[[connector]]
name = "first"
path = "/dt"
policy = "either"
secrets = [{ label = "new", env = "SECRET" }, { label = "old", file = "secret.txt" }]
events = ["touch", "temperature", "smell"]
projects = ["c0md3mm0c7pet3vico8g"]
sinks = ["out", "log"]
dedup_window = 0
asymmetric = { key_set = "keys.json", organization = "c0ngtest0rg0vd5c9a1g", issuer = "https://example.com" }
headers = { X-Api-Key = { env = "OTHER" } }

[[connector]]
name = "second"
path = "/"

[connector.asymmetric]
key_set = "keys.json"
organization = "o"
"#;
    let mut seeds = Seeds::new();
    let mut add = |name: &str, text: &str| seeds.insert(name.to_owned(), text.as_bytes().to_vec());
    add("all", all);
    add("empty", "");
    add("least", LEAST);
    add("syntax", "listen = ");
    add("unknown_key", &format!("lisen = 1\n{LEAST}"));
    add(
        "wrong_types",
        "listen = 1\nadmin = 2.5\nmode = []\nlimits = 1\nsink = {}\nconnector = [1]\ndedup_max = -1\n",
    );
    add(
        "not_built",
        "mode = \"spool\"\ndead_letters = \"kafka:x\"\n[[sink]]\nname = \"k\"\ntype = \"kafka\"\nformat = \"cloudevents\"\n",
    );
    add("same_ports", &format!("listen = \"127.0.0.1:80\"\nadmin = \"127.0.0.1:80\"\n{LEAST}"));
    add("too_slow", &format!("[limits]\nheader_timeout = \"9s\"\ndeadline = \"9s\"\n{LEAST}"));
    add(
        "durations",
        &format!(
            "drain_timeout = 0\ndedup_window = \"P1DT2H\"\n[limits]\nkeep_alive_idle = \"1.5h\"\ndeadline = \"-1s\"\n{LEAST}"
        ),
    );
    add(
        "sizes",
        &format!(
            "[limits]\nmax_body = \"1.5 MiB\"\nmax_head = \"9999999999999TB\"\nmax_in_flight_bytes = \"64gib\"\n{LEAST}"
        ),
    );
    add("body_over_all", &format!("[limits]\nmax_body = \"64MiB\"\nmax_in_flight_bytes = 65536\n{LEAST}"));
    add(
        "names",
        "[[connector]]\nname = \"a b\"\npath = \"x y?\"\nsecrets = [{ env = \"SECRET\", label = \"\\u0000\" }]\n",
    );
    add(
        "twice",
        &format!(
            "{LEAST}{LEAST}[[sink]]\nname = \"a\"\ntype = \"file\"\npath = \"x\"\n[[sink]]\nname = \"a\"\ntype = \"file\"\npath = \"x\"\n"
        ),
    );
    add(
        "unknown_sink",
        "[[connector]]\nname = \"a\"\nsinks = [\"nowhere\"]\nsecrets = [{ env = \"SECRET\" }]\n",
    );
    add("no_sinks", "[[connector]]\nname = \"a\"\nsinks = []\nsecrets = [{ env = \"SECRET\" }]\n");
    for (name, source) in [
        ("unset", r#"env = "UNSET""#),
        ("empty_env", r#"env = "EMPTY""#),
        ("empty_file", r#"file = "empty.txt""#),
        ("spaced", r#"env = "SPACED""#),
        ("file", r#"file = "secret.txt""#),
        ("no_file", r#"file = "nowhere""#),
        ("both", r#"env = "SECRET", file = "secret.txt""#),
        ("neither", r#"label = "x""#),
        ("inline", r#"secret = "oops""#),
    ] {
        add(&format!("secret_{name}"), &format!("[[connector]]\nname = \"a\"\nsecrets = [{{ {source} }}]\n"));
    }
    for (name, keys) in [
        ("none", ""),
        ("no_file", "key_set = \"nowhere\"\norganization = \"o\"\n"),
        ("large", "key_set = \"large\"\norganization = \"o\"\n"),
        ("no_keys", "key_set = \"nokeys.json\"\norganization = \"o\"\n"),
        ("no_organization", "key_set = \"keys.json\"\n"),
        ("empty_organization", "key_set = \"keys.json\"\norganization = \"\"\n"),
        ("good", "key_set = \"keys.json\"\norganization = \"o\"\n"),
    ] {
        add(
            &format!("asymmetric_{name}"),
            &format!("[[connector]]\nname = \"a\"\n[connector.asymmetric]\n{keys}"),
        );
    }
    for policy in ["secret", "asymmetric", "either", "both", "none"] {
        let text = format!(
            "[[connector]]\nname = \"a\"\npolicy = \"{policy}\"\nsecrets = [{{ env = \"SECRET\" }}]\n"
        );
        add(&format!("policy_{policy}"), &text);
    }
    for sink in ["stdout", "file:events.jsonl", "file:", "kafka:topic"] {
        add(&format!("sink_{}", sink.replace(':', "_")), sink);
    }
    seeds
}
