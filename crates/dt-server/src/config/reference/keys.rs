//! The rows. A new key is one line here; then run `dt-receiver config reference > docs/configuration.md` and
//! `dt-receiver config sample > deploy/dt-receiver.toml`. Ranges are written `A to B`, as a test compares them.

use super::{Key, Table};

pub(super) const INTRODUCTION: &str = "# Configuration

Every key of the file that `dt-receiver serve --config FILE` reads. This page is made by `dt-receiver config reference`,
[`deploy/dt-receiver.toml`](../deploy/dt-receiver.toml) by `dt-receiver config sample`; both are held to the code by a
test. `dt-receiver check --config FILE` reports every mistake of a file at once, each with its line and key, what was
found and what is allowed, and every warning; missing secrets and missing folders of sinks are mistakes, too. Unknown keys
are mistakes.

- A duration is a text such as `\"8s\"`, `\"500ms\"`, `\"72h\"` or `\"1d\"` (24 h); 0 may stand without a unit.
- A size is a text such as `\"64KiB\"`, or a number of bytes.
- A name has 1 to 64 letters, digits, `-` and `_`.
- An empty list of `events`, `projects` or `sinks` is a mistake, since it could mean \"none\" or \"all\": without the key, it
  is all of them.
- A secret never stands in the file: `env` names an environment variable, `file` a file, whose last line end is left out.
  Should it stand there by mistake, it is not shown: only what looks like a variable's name or a path is.
- *reload*: whether a running receiver takes a new value on SIGHUP, or has to be started again.
";

pub(super) const SAMPLE_INTRODUCTION: &str =
    "# Every key of dt-receiver, with its default, or a sample where there is none. All of it is commented out: `#key`
# is a key, `# text` is text. What a key may hold: docs/configuration.md. Made by `dt-receiver config sample`.
";

const fn key(name: &'static str, allowed: &'static str, meaning: &'static str) -> Key {
    Key::new(name, allowed, meaning)
}

/// All tables, in the order of a file.
pub(super) const TABLES: &[Table] = &[
    Table {
        header: "",
        given: "",
        about: "Where it listens, and what holds for all connectors.",
        keys: &[
            key("listen", "address, `\"unix:PATH\"`, `\"systemd\"`, `\"systemd:NAME\"`", "Where DT's requests arrive: an address, a Unix socket that is made, or a socket that systemd has opened.").or("\"127.0.0.1:8080\"").restart(),
            key("admin", "as `listen`, or `\"off\"`", "Where `/healthz`, `/readyz` and `/metrics` are. It never shares a port with `listen`, and should not be reachable from outside.").or("\"127.0.0.1:9464\"").restart(),
            key("socket_mode", "octal digits", "The mode of Unix sockets that are made.").or("\"0660\"").restart(),
            key("trusted_proxies", "list of networks, addresses, `\"unix\"`", "Our own proxies: they say who the client is. `\"unix\"` is whoever connects to our Unix socket.").or_words("none").sample("[\"10.0.0.0/8\"]"),
            key("client_header", "`\"X-Forwarded-For\"`, `\"Forwarded\"`", "The header in which they say it.").or("\"X-Forwarded-For\""),
            key("proxy_protocol", "`true`, `false`", "Whether each of their connections begins with a header of the PROXY protocol (2 or 1); others are closed then.").or("false"),
            key("mode", "`\"spool\"`, `\"direct\"`", "When a request is answered with 200: once it is in the spool, synced; or once every sink of its connector has it.").or("\"spool\"").restart(),
            key("data", "path of a folder", "Everything that is stored: spool, key sets, dead letters. It is made if absent.").or("\"./dt-receiver-data\"").restart(),
            key("dead_letters", "`\"kafka:TOPIC\"`", "Where dead letters go in mode `direct`: to a topic, at the brokers of the first sink of type `kafka`.").or_words("`spool/dead.db` in `data`").sample("\"kafka:dt.dead\"").restart(),
            key("drain_timeout", "duration, 0s to 1h", "How long a stop waits for what is in flight.").or("\"10s\""),
            key("dedup_window", "duration, 0s to 8760h", "How long an event's id is remembered, to answer its copies with `duplicate`. In mode `direct` a new value needs a restart.").or("\"72h\""),
            key("dedup_max", "number, 1 to 20000000", "How many ids are remembered; then the oldest go. In mode `direct` a new value needs a restart.").or_words("20000000; 100000 in mode `direct`").sample("20000000"),
            key("quarantine_refused", "`true`, `false`", "Whether copies of refused requests are kept (64 MiB, the oldest go), to be accepted by `dead replay --reverify` once a wrong secret was mended. Not with `dead_letters`; a connector may say otherwise.").or("false"),
        ],
    },
    Table {
        header: "[tls]",
        given: "",
        about: "The certificate with which `listen` takes requests; without it, plain HTTP. All about it: [tls.md](tls.md). Other files are put in force while it runs; to begin or end with TLS needs a restart.",
        keys: &[
            key("certificate", "path", "The certificate with its chain (PEM).").needed().sample("\"/etc/dt-receiver/fullchain.pem\""),
            key("key", "path", "Its private key (PEM).").needed().sample("\"/etc/dt-receiver/privkey.pem\""),
            key("client_ca", "path", "The authorities that sign the certificates of clients (PEM); with it, clients without one are refused.").or_words("clients need none").sample("\"/etc/dt-receiver/clients.pem\""),
            key("min_version", "`\"1.2\"`, `\"1.3\"`", "The oldest version of TLS that is spoken.").or("\"1.2\""),
            key("check_interval", "duration, 10ms to 1h", "How often the files are looked at.").or("\"5s\""),
        ],
    },
    Table {
        header: "[spool]",
        given: "",
        about: "The bounds of the spool, in mode `spool`. Full means 503, so that DT keeps the events; nothing is dropped.",
        keys: &[
            key("max_size", "size, 1MiB to 16TiB", "How many bytes records and dead letters may take; the known ids come on top, about 100 bytes each.").or("\"4GiB\""),
            key("min_free", "size, 0B to 16TiB", "What has to stay free on the disk, so that sinks can go on when it is full.").or("\"256MiB\""),
            key("retain", "duration, 0s to 8760h", "How long events stay after every sink has them, for `spool replay`.").or("\"0s\""),
        ],
    },
    Table {
        header: "[limits]",
        given: "",
        about: "The bounds of the HTTP server; who comes first, and how much memory that is: [limits.md](limits.md). `header_timeout` and `deadline` together are at most 9.5 s, since DT gives up at 10 s.",
        keys: &[
            key("max_body", "size, 1KiB to 64MiB", "The largest body; a larger one is answered 413.").or("\"64KiB\""),
            key("max_head", "size, 8KiB to 1MiB", "The largest head of a request; a larger one is answered 431.").or("\"16KiB\""),
            key("header_timeout", "duration, 10ms to 9s", "How long a head may take, from its first byte; then the connection is closed.").or("\"1500ms\""),
            key("handshake_timeout", "duration, 10ms to 1m", "How long a TLS handshake, and the PROXY header before it, may take.").or("\"5s\""),
            key("deadline", "duration, 10ms to 9s", "How long a request may take, from its complete head to its answer. In mode `direct` a new value needs a restart.").or("\"8s\""),
            key("keep_alive_idle", "duration, 1s to 1h", "How long a connection may stay open without a request. Keep it above that of a proxy in front.").or("\"75s\""),
            key("max_connections", "number, 1 to 1000000", "How many connections may be open; each is a file descriptor.").or("8192").restart(),
            key("max_in_flight", "number, 1 to 1000000", "How many requests may be worked on at once.").or("4096").restart(),
            key("max_in_flight_bytes", "size, 64KiB to 64GiB", "How many bytes of bodies may be held at once; never less than `max_body`.").or("\"64MiB\"").restart(),
            key("max_connections_per_peer", "number, 1 to 1000000", "How many connections of one peer may be open on which no signature has held yet; then its oldest one is closed.").or("4096").restart(),
            key("max_refused", "number, 1 to 1000000", "How many refused requests a second are waited for, of all peers; more are answered 401 without their bodies.").or("1000").restart(),
            key("max_refused_per_peer", "number, 1 to 1000000", "The same of one peer.").or("100").restart(),
            key("max_unverified_bytes_per_peer", "size, 0B to 64GiB", "How many bytes of one peer are held before a signature has vouched for them; only `quarantine_refused` holds any.").or("\"1MiB\"").restart(),
            key("allow_cidrs", "list of networks and addresses", "Who may connect; where the client's address is not known, nobody. DT publishes no list of its addresses, and a wrong list cuts DT off.").or_words("everybody").sample("[\"192.0.2.0/24\"]"),
        ],
    },
    Table {
        header: "[[connector]]",
        given: "",
        about: "One for each Endpoint URL. Several Data Connectors of DT may push to one: give all of their secrets. Each connector needs `secrets`, `[connector.asymmetric]`, or both. DT's tokens are not bound to a URL: connectors that share a secret, or an organization without `projects` that have none in common, accept each other's events; `check` warns of that.",
        keys: &[
            key("name", "name", "Its name in logs, metrics and envelopes; used once.").needed().sample("\"plant-1\""),
            key("path", "path of a URL, without query", "The path of its Endpoint URL; used once.").or("\"/\""),
            key("policy", "`\"secret\"`, `\"asymmetric\"`, `\"either\"`, `\"both\"`", "Which signatures have to hold.").or_words("`\"secret\"` if there are secrets, else `\"asymmetric\"`").sample("\"secret\""),
            key("events", "list of event types", "The event types that are passed on; others are answered 200 `ignored`.").or_words("all").sample("[\"temperature\", \"humidity\"]"),
            key("projects", "list of project ids", "The projects whose events are allowed; others are answered 403.").or_words("any").sample("[\"c14u9p094l47cdv1o3pg\"]"),
            key("sinks", "list of names of sinks", "The sinks that its events go to.").or_words("all").sample("[\"stdout\"]"),
            key("dedup_window", "`0`", "Turns the search for copies off for this connector: DT's `:sync` may send ids again that you want again.").or_words("that of the top").sample("0"),
            key("quarantine_refused", "`true`, `false`", "As at the top of the file, for this connector.").or_words("that of the top").sample("false"),
        ],
    },
    Table {
        header: "[[connector.secrets]]",
        given: "",
        about: "A Signature Secret. While it is being changed at DT, give the old one and the new one.",
        keys: &[
            key("label", "name", "Its name in logs and in `verifiedBy`; needed where there are several.").or_words("`\"default\"`").sample("\"2026\""),
            key("env", "name of a variable", "The environment variable that holds it.").sample("\"DT_SIGNATURE_SECRET\""),
            key("file", "path", "The file that holds it.").instead_of("env").sample("\"/etc/dt-receiver/secret\""),
        ],
    },
    Table {
        header: "[connector.asymmetric]",
        given: "",
        about: "Verifies `DT-Asymmetric-Signature`. One key of DT signs for all of its customers, so your organization has to be named.",
        keys: &[
            key("organization", "id", "Your organization's id.").needed().sample("\"c0md3mm0c7pet3vico8g\""),
            key("key_set", "path", "A file with DT's keys (JWKS), where the receiver has no way out.").or_words("fetched from the issuer and kept").sample("\"dt-jwks.json\""),
            key("issuer", "URL", "Who issues the tokens.").or("\"https://identity.disruptive-technologies.com/data-connector\""),
        ],
    },
    Table {
        header: "[connector.headers.x-my-header]",
        given: "",
        about: "A header that each request must carry, under the name you gave it at DT, with a value from a variable or a file. It is compared in constant time. What stands before the @ of an endpoint URL (`https://user:password@host/`) comes as the header `authorization`: `Basic ` and the base64 of `user:password`.",
        keys: &[
            key("env", "name of a variable", "The environment variable that holds the value.").sample("\"DT_MY_HEADER\""),
            key("file", "path", "The file that holds it.").instead_of("env").sample("\"/etc/dt-receiver/header\""),
        ],
    },
    Table {
        header: "[[sink]]",
        given: "",
        about: "Where events go. Without any, to standard output.",
        keys: &[
            key("name", "name", "Its name in logs, metrics and `connector.sinks`; used once. The spool knows how far a sink is by its name.").needed().sample("\"stdout\""),
            key("type", "`\"stdout\"`, `\"file\"`, `\"kafka\"`", "What it is.").needed().sample("\"stdout\""),
            key("format", "`\"envelope\"`, `\"body\"`, `\"cloudevents\"`", "What it writes: the event with when and how it came; the received bytes; or CloudEvents 1.0.").or("\"envelope\""),
            key("start", "`\"now\"`, `\"retained\"`", "Where a sink of a new name starts: at the next event, or with what the spool still holds.").or("\"now\""),
        ],
    },
    Table {
        header: "[[sink]]",
        given: "name = \"archive\"\ntype = \"file\"",
        about: "Files of one line an event, outside of the spool's folder. Another tool that rotates them has to rename them (logrotate: `create`): the next batch goes to a new file. One that cuts them (`copytruncate`) loses what is written between its copy and its cut; the sink logs a warning and goes on, and a crash soon after may double lines.",
        keys: &[
            key("path", "path with `{date}`, `{hour}`, `{connector}`, `{project}`, `{eventType}`", "The file to append to. The folder before the first placeholder has to be there; those below are made.").needed().sample("\"/var/lib/dt-receiver/{date}.ndjson\""),
            key("rotate_size", "size, 1KiB to 1TiB", "A file is closed before it would grow beyond.").or_words("never").sample("\"100MiB\""),
            key("rotate_every", "duration that divides a day, 1m to 24h", "A file is closed when an event of a later stretch comes, from 00:00 UTC.").or_words("never").sample("\"24h\""),
            key("compress", "`\"gzip\"`, `\"zstd\"`", "How closed files are compressed; needs `rotate_size` or `rotate_every`.").or_words("not").sample("\"gzip\""),
        ],
    },
    Table {
        header: "[[sink]]",
        given: "name = \"kafka\"\ntype = \"kafka\"",
        about: "Topics of Kafka; all about it: [kafka.md](kafka.md).",
        keys: &[
            key("brokers", "list of `HOST:PORT`", "Some of the brokers; they name the others.").needed().sample("[\"127.0.0.1:9092\"]"),
            key("topic", "name with `{connector}`, `{project}`, `{eventType}`", "The topic.").needed().sample("\"dt.events\""),
            key("key", "`\"device\"`, `\"project\"`, `\"connector\"`, `\"none\"`", "The key of a record; records of one key stay in order.").or("\"device\""),
        ],
    },
    Table {
        header: "[sink.create_topic]",
        given: "",
        about: "Of a sink of type `kafka`: how a topic is made that does not exist. `create_topic = true` leaves both to the brokers; without the key, no topic is made.",
        keys: &[
            key("partitions", "number, 1 to 10000", "How many partitions.").or_words("the brokers' own").sample("12"),
            key("replication", "number, 1 to 100", "On how many brokers each is.").or_words("the brokers' own").sample("3"),
        ],
    },
    Table {
        header: "[sink.tls]",
        given: "",
        about: "Of a sink of type `kafka`: TLS to the brokers. Needs a build with the feature `kafka-tls`, as the Debian package and the image are.",
        keys: &[
            key("ca", "path", "The certificates of the authorities that vouch for the brokers (PEM).").or_words("those of the system").sample("\"/etc/dt-receiver/kafka-ca.pem\""),
            key("certificate", "path", "Our own certificate (PEM), with `key`.").sample("\"/etc/dt-receiver/kafka.pem\""),
            key("key", "path", "Its key (PEM).").sample("\"/etc/dt-receiver/kafka.key\""),
        ],
    },
    Table {
        header: "[sink.tls.key_password]",
        given: "",
        about: "The password of that key, if it has one.",
        keys: &[
            key("env", "name of a variable", "The environment variable that holds it.").sample("\"KAFKA_KEY_PASSWORD\""),
            key("file", "path", "The file that holds it.").instead_of("env").sample("\"/etc/dt-receiver/kafka-key-password\""),
        ],
    },
    Table {
        header: "[sink.sasl]",
        given: "",
        about: "Of a sink of type `kafka`: who we are. All but `PLAIN` needs a build with the feature `kafka-tls`.",
        keys: &[
            key("mechanism", "`\"PLAIN\"`, `\"SCRAM-SHA-256\"`, `\"SCRAM-SHA-512\"`", "How the password is proven.").or("\"SCRAM-SHA-512\""),
            key("username", "text", "The user.").needed().sample("\"dt-receiver\""),
        ],
    },
    Table {
        header: "[sink.sasl.password]",
        given: "",
        about: "The user's password.",
        keys: &[
            key("env", "name of a variable", "The environment variable that holds it.").sample("\"KAFKA_PASSWORD\""),
            key("file", "path", "The file that holds it.").instead_of("env").sample("\"/etc/dt-receiver/kafka-password\""),
        ],
    },
    Table {
        header: "[sink.properties]",
        given: "\"linger.ms\" = 20",
        about: "Of a sink of type `kafka`: any other property of librdkafka. `check` names one that it does not know, and one that is not yours to set.",
        keys: &[],
    },
];
