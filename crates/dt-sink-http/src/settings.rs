//! The settings of the sink `http`: URL, headers, authentication, signature, batches and TLS.

use std::time::Duration;

use dt_sink::config::{
    ClientTls, Section, Table, TableEntry, config_keys, custom, duration, flag, needed_secret, number,
    read_source, secret_keys, word,
};
use dt_sink::{BadPlace, Metric, OpenError, Sink, SinkContext, SinkError, SinkSettings, tls};
use dt_verify::Secret;
use tokio::runtime::Builder;

use crate::HttpSink;
use crate::auth::{self, Auth};
use crate::client;
use crate::fields::{self, Fields};
use crate::headers::{self, PlainHeaders, SecretHeaders};
use crate::request::{BatchFormat, CloudEventsMode};
use crate::url::TargetUrl;

/// The allowed values of `timeout`.
const TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(120);

config_keys! {
    /// The settings of a sink of type `http`.
    #[derive(Debug, Clone, PartialEq)]
    #[non_exhaustive]
    pub struct HttpConfig {
        needed {
            /// The URL that events are sent to, by POST. Only its origin is ever shown.
            url: TargetUrl = custom("URL, or `{ env = \"NAME\" }`, `{ file = \"PATH\" }`", read_url)
                .shown_as(ToString::to_string)
                .needed("is missing; give \"https://HOST/PATH\"")
                .sample("\"https://example.com/events\""),
        }
        /// How long a request may take, until its status has arrived.
        timeout: Duration = duration(TIMEOUTS).or(Duration::from_secs(10)),
        /// The largest number of concurrent requests. There is one at a time for each device, so that its events stay in order.
        concurrency: usize = number(1..=1024).or(32),
        /// Whether DT's own signature headers are sent as received, until five minutes before their token expires. Needs
        /// `format = "body"`, and `sign`, which signs the later requests.
        forward_signature: bool = flag().or(false),
        /// How a CloudEvent is sent, with `format = "cloudevents"`: its attributes as headers, or all of it as one JSON
        /// object. In a batch it is always `structured`.
        cloudevents: CloudEventsMode = word(&["binary", "structured"]).or(CloudEventsMode::default()),
        /// Of a sink of type `http`: a JSON object for each event with members of your choice, in place of `format`. A member is a
        /// text with placeholders, a constant, or a table that becomes an object. Details:
        /// [http.md](http.md#fields-of-your-own).
        fields: Option<Fields> = fields::entry(),
        /// Of a sink of type `http`: several events in one request. Without it, each event has a request of its own.
        batch: Option<HttpBatch> = TableEntry { read: read_batch, tables: batch_tables },
        /// Of a sink of type `http`: further headers of each request.
        headers: PlainHeaders = headers::plain(),
        /// Of a sink of type `http`: a header with a secret value, under the name that the target expects.
        secret_headers: SecretHeaders = headers::secret(),
        /// Of a sink of type `http`: the header `Authorization`.
        auth: Option<Auth> = auth::entry(),
        /// Of a sink of type `http`: a signature of the request's body in the header `X-Dt-Signature`, made as DT makes it.
        sign: Option<Secret> = TableEntry { read: read_sign, tables: sign_tables },
        /// Of a sink of type `http` whose URL has https: the certificate authorities and the client certificate. The target's
        /// certificate and host name are always verified.
        tls: Option<ClientTls> = tls::entry("the target's certificate", "http"),
    }
}

config_keys! {
    /// How events are batched.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct HttpBatch {
        needed {
            /// How the events are joined: each on a line, or as a JSON array.
            format: BatchFormat = word(&["ndjson", "json-array"])
                .needed("is missing; expected ndjson or json-array")
                .sample("\"ndjson\""),
        }
        /// The largest number of events in a request.
        max_events: usize = number(1..=1000).or(100),
    }
}

impl HttpConfig {
    /// Creates settings for requests to a URL, with the defaults of all other keys.
    #[must_use]
    pub fn new(url: TargetUrl) -> Self {
        Self::with_defaults(url)
    }
}

impl SinkSettings for HttpConfig {
    const NAME: &'static str = "http";
    const PLACE: Option<&'static str> = Some("URL");
    const ABOUT: &'static str = "Requests to a URL. Details: [http.md](http.md).";
    const METRICS: &'static [Metric] = HttpSink::METRICS;

    fn from_place(place: &str) -> Result<Self, BadPlace> {
        // `--sink http://HOST/` is a URL whose scheme was read as the type.
        let url = if place.starts_with("//") { format!("http:{place}") } else { place.to_owned() };
        // The text may contain a password.
        TargetUrl::new(&url)
            .map(Self::new)
            .map_err(|error| BadPlace::private(format_args!("the text {error}")))
    }

    fn check(&self, section: &Section<'_>) {
        if !self.url.is_https() {
            if self.tls.is_some() {
                section.complain(
                    "tls",
                    "is given, and the URL is http; set `url` to https, or delete the table",
                );
            }
            if !self.url.is_loopback() {
                let text = format!(
                    "{} is not encrypted: anybody on the way can read and change events; use https",
                    self.url
                );
                section.warn("url", text);
            }
        }
        // The key `format` is read after those of the type.
        let format = section.shown("format");
        if let Some(fields) = &self.fields {
            if fields.is_empty() && !section.has_errors_at("fields") {
                section
                    .complain("fields", "is empty; give at least one field, such as device = \"{device}\"");
            }
            if section.has("format") {
                section.complain("fields", format!("is given, and `format` is {format}; delete one"));
            }
        }
        if self.forward_signature {
            if self.sign.is_none() {
                let text = "is needed with `forward_signature`: DT's tokens expire after an hour, and an outage may be longer; \
                            give { secret = { env = \"NAME\" } }";
                section.missing("sign", text);
            }
            if self.batch.is_some() {
                section.complain(
                    "forward_signature",
                    "is true, and DT's signature is of a single event; delete `batch`",
                );
            }
            if self.fields.is_some() {
                let text = "is true, and DT's signature is of the received bytes; delete `fields`, and set `format = \"body\"`";
                section.complain("forward_signature", text);
            } else if format != "\"body\"" {
                let text = "is true, and DT's signature is of the received bytes; set `format = \"body\"`";
                section.complain("forward_signature", text);
            }
        }
        let is_array = self.batch.is_some_and(|batch| batch.format == BatchFormat::JsonArray);
        if is_array && !["", "\"body\"", "\"envelope\"", "\"cloudevents\""].contains(&&*format) {
            section.complain(
                "batch.format",
                format!("is json-array, and the format {format} is no JSON; use ndjson"),
            );
        }
        if self.auth.is_some() && self.secret_headers.contains_key("authorization") {
            section.complain("auth", "is given, and a secret header has the name Authorization; delete one");
        }
        for name in self.headers.keys().filter(|name| self.secret_headers.contains_key(*name)) {
            section.complain(&format!("headers.\"{name}\""), "is also in `secret_headers`; delete one");
        }
    }

    fn sink(&self, context: SinkContext) -> Result<Box<dyn Sink>, OpenError> {
        Ok(Box::new(HttpSink::new(self.clone(), context)))
    }

    fn probe(&self, context: SinkContext) -> Option<Result<String, SinkError>> {
        let limit = context.give_up_after.map_or(self.timeout, |limit| limit.min(self.timeout));
        Some(probe(self, limit).map_err(|error| format!("{}: {error}", self.url).into()))
    }
}

/// Connects to the target, without sending a request, which could change something there.
fn probe(config: &HttpConfig, limit: Duration) -> Result<String, String> {
    let tls = tls::client_config(&config.tls.clone().unwrap_or_default());
    let tls = tls.map_err(|error| format!("tls: {error}"))?;
    let runtime = Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.map_err(|error| format!("starting a runtime: {error}"))?;
    let connected = runtime.block_on(client::connect(tls, limit, config.url.expose()));
    // A host name may still be being resolved.
    runtime.shutdown_background();
    let how = if config.url.is_https() {
        "accepts connections, and its certificate is valid"
    } else {
        "accepts connections"
    };
    // What is wrong with TLS has its own remedy.
    let connected = connected.map_err(|error| match error.starts_with("cannot connect") {
        true => format!("{error}; check the host and the port of `url`"),
        false => error,
    });
    connected.map(|()| format!("{} {how}; its answers are known with the first event", config.url))
}

fn read_url(section: &mut Section<'_>, key: &'static str) -> Option<TargetUrl> {
    // Anything but a table is a text, or an error.
    let text = if section.shown(key) == "a table" {
        let mut source = section.secret_section(key)?;
        let read = read_source(&mut source);
        let is_read = source.sources().reads_secrets() && !section.has_errors_at(key);
        source.finish();
        if !is_read {
            return TargetUrl::new("https://not-read.invalid/").ok();
        }
        String::from_utf8_lossy(read?.expose()).into_owned()
    } else {
        section.private_string(key)?
    };
    TargetUrl::new(&text).map_err(|error| section.complain(key, error.to_string())).ok()
}

fn read_batch(mut section: Section<'_>) -> Option<Option<HttpBatch>> {
    let read = HttpBatch::read_keys(&mut section);
    section.finish();
    read.map(Some)
}

fn batch_tables(field: &'static str, meaning: &str) -> Vec<Table> {
    vec![Table::new(format!("[{field}]"), meaning, HttpBatch::rows())]
}

fn read_sign(mut section: Section<'_>) -> Option<Option<Secret>> {
    let secret = needed_secret(&mut section, "secret");
    section.finish();
    secret.map(Some)
}

fn sign_tables(field: &'static str, meaning: &str) -> Vec<Table> {
    let secret = secret_keys("HTTP_SIGNATURE_SECRET", "/etc/dt-receiver/http-signature-secret");
    let secret = Table::new("[secret]", "The secret that the target verifies the signature with.", secret);
    vec![Table::new(format!("[{field}]"), meaning, Vec::new()), secret.below(field)]
}
