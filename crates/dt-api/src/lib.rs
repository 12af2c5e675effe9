//! An async client of Disruptive Technologies' (DT) REST API: projects, devices, Data Connectors, event history, device stream.
//!
//! | call | what |
//! |---|---|
//! | [`Client::projects`], [`Client::project`] | projects |
//! | [`Client::devices`], [`Client::device`] | devices, with the newest event of each type |
//! | [`Client::connectors`], [`Client::connector`], [`Client::create_connector`], [`Client::update_connector`], [`Client::delete_connector`], [`Client::sync_connector`], [`Client::connector_metrics`] | Data Connectors of all five types |
//! | [`Client::history`] | the events of a device in the last 31 days |
//! | [`Client::stream`] | events as they are published |
//!
//! Lists are [`Pages`]. What DT adds to its answers breaks nothing: unknown members are kept in `extra`, and unknown types,
//! states and event types as their text. What DT removes or renames is [`Error::NotUnderstood`] if a caller relies on it, with
//! the member, what was expected and what was found.
//!
//! - **Credentials** ([`Credentials`]): OAuth2, whose access token is kept and renewed before it expires, or basic auth. They
//!   are sent by https only, or to this machine.
//! - **Retries**: exponential back-off with jitter, or what `Retry-After` says. A request that creates something is repeated
//!   only if DT has certainly done nothing; otherwise [`Error::may_have_been_done`] says that the state has to be read first.
//! - **Limits**: a time limit for each attempt and for each call, the number of attempts, and the size of answers; on request
//!   ([`ClientBuilder::max_requests_per_second`]), the rate of requests.
//! - **Secrets** appear neither in `Debug` and `Display` nor in errors, also if an answer repeats them.
//!
//! Facts about the API are from DT's documentation (<https://docs.developer.disruptive-technologies.com>), its Python client
//! and its Terraform provider.
//!
//! # Examples
//!
//! Lists devices. Here the API is that of `dt-emulator`; without the two URLs it is DT's:
//!
//! ```
//! use dt_api::{Client, Credentials, DeviceQuery};
//! use dt_verify::Secret;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let cloud = dt_emulator::Emulator::builder().start().await?;
//! # cloud.call("POST", "/v2/projects/p/devices", &serde_json::json!({"type": "temperature"}))?;
//! let secret = Secret::new("the-secret-of-the-key")?;
//! let client = Client::builder(Credentials::service_account("key-id", secret, "me@example.com"))
//!     .api_url(cloud.api_url())
//!     .token_endpoint(cloud.token_endpoint())
//!     .build()?;
//!
//! let mut pages = client.devices("p", &DeviceQuery::new().device_type("temperature"))?;
//! while let Some(devices) = pages.next().await? {
//!     for device in devices {
//!         println!("{} {:?}", device.id(), device.labels);
//!     }
//! }
//! # cloud.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Creates a connector and disables it:
//!
//! ```
//! use dt_api::{Client, ConnectorSettings, ConnectorStatus, Credentials, HttpConfig, SecretText, Target};
//! # use dt_verify::Secret;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let cloud = dt_emulator::Emulator::builder().start().await?;
//! # let client = Client::builder(Credentials::basic("key-id", Secret::new("secret")?)).api_url(cloud.api_url()).build()?;
//! let target = Target::HttpPush(HttpConfig {
//!     signature_secret: Some(SecretText::new("some-good-secret")),
//!     ..HttpConfig::new("https://example.com/dt")
//! });
//! let settings = ConnectorSettings::new().display_name("receiver");
//! let connector = client.create_connector("p", &target, &settings).await?;
//!
//! let disabled = ConnectorSettings::new().status(ConnectorStatus::UserDisabled);
//! let connector = client.update_connector("p", connector.id(), &disabled).await?;
//! assert_eq!(connector.status, ConnectorStatus::UserDisabled);
//! # cloud.shutdown().await?;
//! # Ok(())
//! # }
//! ```

mod client;
mod connection;
mod connectors;
mod credentials;
mod devices;
mod error;
mod exchange;
mod history;
mod json;
mod pace;
mod pages;
mod projects;
mod retry;
mod secret_text;
mod stream;
mod token;
mod url;

pub use client::{BuildError, Client, ClientBuilder, DT_API_URL, DT_TOKEN_ENDPOINT};
pub use connectors::{
    AwsSqsConfig, AzureAuthentication, AzureEventHubConfig, AzureServiceBusConfig, Connector,
    ConnectorMetrics, ConnectorSettings, ConnectorStatus, HttpConfig, PubSubConfig, Target,
};
pub use credentials::Credentials;
pub use devices::{Device, DeviceQuery, Reported, ReportedEvent};
pub use error::{Error, FailedCall};
pub use history::{EventRecord, HistoryQuery};
pub use pages::Pages;
pub use projects::Project;
pub use secret_text::{EndpointUrl, SecretText};
pub use stream::{EventStream, Message, StreamFormat, StreamQuery};
pub use url::BadUrl;
