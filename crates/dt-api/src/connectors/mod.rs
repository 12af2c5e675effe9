//! Data Connectors: list, get, create, update, delete, sync, metrics.

mod target;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use dt_verify::event::EventType;

pub use target::{
    AwsSqsConfig, AzureAuthentication, AzureEventHubConfig, AzureServiceBusConfig, HttpConfig, PubSubConfig,
    Target,
};

use crate::client::Client;
use crate::error::Error;
use crate::exchange::{Call, Needs};
use crate::json::{BadAnswer, Object};
use crate::pages::Pages;
use crate::projects::last_segment;
use crate::secret_text::SecretText;
use crate::url::segment;

/// Whether DT sends events to a connector.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectorStatus {
    /// DT sends events to the connector.
    Active,
    /// A user disabled the connector. DT has dropped its queue.
    UserDisabled,
    /// DT disabled the connector after five days of failures.
    SystemDisabled,
    /// A status that this crate does not know, as it was received.
    Other(String),
}

impl ConnectorStatus {
    /// Returns the status as DT spells it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Active => "ACTIVE",
            Self::UserDisabled => "USER_DISABLED",
            Self::SystemDisabled => "SYSTEM_DISABLED",
            Self::Other(text) => text,
        }
    }
}

impl From<String> for ConnectorStatus {
    fn from(text: String) -> Self {
        match &*text {
            "ACTIVE" => Self::Active,
            "USER_DISABLED" => Self::UserDisabled,
            "SYSTEM_DISABLED" => Self::SystemDisabled,
            _ => Self::Other(text),
        }
    }
}

impl fmt::Display for ConnectorStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A Data Connector of a project. `Debug` shows neither its signature secret nor the values of its headers.
#[derive(Clone)]
#[non_exhaustive]
pub struct Connector {
    /// The name: `projects/<project>/dataconnectors/<connector>`.
    pub name: String,
    /// The name that DT Studio shows.
    pub display_name: String,
    /// Whether DT sends events to the connector.
    pub status: ConnectorStatus,
    /// The event types that the connector delivers; empty for all.
    pub events: Vec<EventType>,
    /// The keys of the labels that each delivery includes.
    pub labels: Vec<String>,
    /// The destination of the connector.
    pub target: Target,
    /// Members that this crate does not know, such as the configuration of an unknown type. They may contain secrets.
    pub extra: Map<String, Value>,
}

impl Connector {
    /// Returns the id of the connector: the last segment of its name.
    #[must_use]
    pub fn id(&self) -> &str {
        last_segment(&self.name)
    }

    fn read(raw: &RawValue, path: String) -> Result<Self, BadAnswer> {
        Self::of(&Object::of(raw, path)?)
    }

    fn of(object: &Object<'_>) -> Result<Self, BadAnswer> {
        let target = Target::of(object)?;
        let known = ["name", "displayName", "type", "status", "events", "labels"];
        let known: Vec<&str> = known.into_iter().chain(target.member()).collect();
        Ok(Self {
            name: object.text("name")?,
            display_name: object.optional_text("displayName")?.unwrap_or_default(),
            status: object.text("status")?.into(),
            events: object.texts("events")?.into_iter().map(EventType::from).collect(),
            labels: object.texts("labels")?,
            extra: object.others(&known),
            target,
        })
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("name", &self.name)
            .field("display_name", &self.display_name)
            .field("status", &self.status)
            .field("events", &self.events)
            .field("labels", &self.labels)
            .field("target", &self.target)
            .field("extra", &self.extra.keys())
            .finish()
    }
}

/// The settings of a connector in a request. A new connector needs at least a target; a change contains only the settings to be
/// changed. DT's API has no update mask: a setting that is not in the request stays unchanged.
///
/// # Examples
///
/// ```
/// use dt_api::{ConnectorSettings, ConnectorStatus};
///
/// let disable = ConnectorSettings::new().status(ConnectorStatus::UserDisabled);
/// assert_eq!(format!("{disable:?}"), "ConnectorSettings([\"status\"])");
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct ConnectorSettings {
    members: Map<String, Value>,
    hidden: Vec<SecretText>,
}

impl ConnectorSettings {
    /// Returns settings that change nothing.
    pub fn new() -> Self {
        Self::default()
    }

    fn with(mut self, name: &str, value: Value) -> Self {
        self.members.insert(name.to_owned(), value);
        self
    }

    /// Sets the name that DT Studio shows.
    pub fn display_name(self, name: impl Into<String>) -> Self {
        self.with("displayName", Value::String(name.into()))
    }

    /// Sets whether DT sends events to the connector. DT accepts [`ConnectorStatus::Active`] and
    /// [`ConnectorStatus::UserDisabled`].
    #[expect(clippy::needless_pass_by_value, reason = "as for the other settings")]
    pub fn status(self, status: ConnectorStatus) -> Self {
        self.with("status", json!(status.as_str()))
    }

    /// Sets the event types that the connector delivers. An empty list selects all types.
    pub fn events<'a>(self, events: impl IntoIterator<Item = &'a EventType>) -> Self {
        self.with("events", events.into_iter().map(|event| json!(event.as_str())).collect())
    }

    /// Sets the keys of the labels that each delivery includes.
    pub fn labels<'a>(self, labels: impl IntoIterator<Item = &'a str>) -> Self {
        self.with("labels", labels.into_iter().map(Value::from).collect())
    }

    /// Sets the destination of the connector. In a change, members of the target that are `None` stay unchanged; the type of the
    /// target must be that of the connector.
    pub fn target(mut self, target: &Target) -> Self {
        self.hidden.extend(target.hidden());
        let Some(member) = target.member() else { return self };
        self.with(member, target.to_json())
    }

    /// Returns whether the request would change nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn put_into(&self, mut call: Call, type_name: Option<&str>) -> Call {
        let mut members = self.members.clone();
        if let Some(name) = type_name {
            members.insert("type".to_owned(), json!(name));
        }
        call.body = Bytes::from(Value::Object(members).to_string());
        call.hidden.clone_from(&self.hidden);
        call
    }
}

impl fmt::Debug for ConnectorSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectorSettings({:?})", self.members.keys().collect::<Vec<_>>())
    }
}

/// The delivery counts of a connector in the last 24 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectorMetrics {
    /// The number of deliveries that the endpoint answered with 2xx.
    pub success_count: u64,
    /// The number of failed delivery attempts.
    pub error_count: u64,
    /// The time within which 99 % of the deliveries were answered; `None` if the response does not contain it.
    pub latency_p99: Option<Duration>,
}

impl ConnectorMetrics {
    fn of(object: &Object<'_>) -> Result<Self, BadAnswer> {
        let metrics = object.object("metrics")?;
        let latency = metrics.optional_text("latency99p")?.filter(|text| !text.is_empty());
        let malformed = || metrics.malformed("latency99p", "seconds such as 0.411s");
        Ok(Self {
            success_count: metrics.count("successCount")?,
            error_count: metrics.count("errorCount")?,
            latency_p99: latency.map(|text| duration(&text).ok_or_else(malformed)).transpose()?,
        })
    }
}

/// Reads a duration in the JSON form of Protocol Buffers, such as `0.411s`; `None` for any other text.
fn duration(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.strip_suffix('s')?.parse().ok()?).ok()
}

fn path(project: &str, connector: &str) -> Result<String, Error> {
    let (project, connector) = (segment("project", project)?, segment("connector", connector)?);
    Ok(format!("/projects/{project}/dataconnectors/{connector}"))
}

impl Client {
    /// Returns the Data Connectors of a project, in pages.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] if `project` is not a valid id.
    pub fn connectors(&self, project: &str) -> Result<Pages<Connector>, Error> {
        let path = format!("/projects/{}/dataconnectors", segment("project", project)?);
        Ok(Pages::new(self, path, Vec::new(), "dataConnectors", Connector::read))
    }

    /// Reads a connector.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no response, or it is not as documented.
    pub async fn connector(&self, project: &str, connector: &str) -> Result<Connector, Error> {
        self.0.answer(&Call::get(path(project, connector)?)).await?.read(Connector::of)
    }

    /// Creates a connector, and returns it with the id that DT chose.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no response, or it is not as documented. If [`Error::may_have_been_done`], the connector may exist:
    /// list the connectors before you call this again. The request is repeated automatically only if DT has certainly not carried
    /// it out: if there was no connection, and after status 429.
    pub async fn create_connector(
        &self,
        project: &str,
        target: &Target,
        settings: &ConnectorSettings,
    ) -> Result<Connector, Error> {
        let path = format!("/projects/{}/dataconnectors", segment("project", project)?);
        let settings = settings.clone().target(target);
        let call = settings.put_into(Call::change(Method::POST, path, false), Some(target.type_name()));
        self.0.answer(&call).await?.read(Connector::of)
    }

    /// Changes a connector, and returns its new state. Settings that are not in `settings` stay unchanged.
    ///
    /// Whether new headers replace the old ones or are merged with them is not documented: read the answer.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no response, or it is not as documented. A failed request is repeated automatically. If another
    /// person may change the connector at the same time, prevent this with a client whose
    /// [`ClientBuilder::attempts`](crate::ClientBuilder::attempts) is 1.
    pub async fn update_connector(
        &self,
        project: &str,
        connector: &str,
        settings: &ConnectorSettings,
    ) -> Result<Connector, Error> {
        if settings.is_empty() {
            return Err(Error::Argument { name: "settings", expected: "at least one setting" });
        }
        let call = settings.put_into(Call::change(Method::PATCH, path(project, connector)?, true), None);
        self.0.answer(&call).await?.read(Connector::of)
    }

    /// Deletes a connector.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no response. If an earlier attempt of the same call may have deleted the connector, its absence is
    /// not an error.
    pub async fn delete_connector(&self, project: &str, connector: &str) -> Result<(), Error> {
        let call =
            Call { needs: Needs::Nothing, ..Call::change(Method::DELETE, path(project, connector)?, true) };
        match self.0.answer(&call).await {
            Err(Error::NotFound { call, .. }) if call.may_have_been_done => Ok(()),
            answer => answer.map(|_| ()),
        }
    }

    /// Requests that a connector delivers the newest event of each type of each device of its project again.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no response. The request is repeated automatically only if DT has certainly not carried it out: if
    /// there was no connection, and after status 429.
    pub async fn sync_connector(&self, project: &str, connector: &str) -> Result<(), Error> {
        let path = format!("{}:sync", path(project, connector)?);
        let call = Call { needs: Needs::Nothing, ..Call::change(Method::POST, path, false) };
        self.0.answer(&call).await.map(|_| ())
    }

    /// Reads the delivery counts of a connector in the last 24 hours.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no response, or it is not as documented.
    pub async fn connector_metrics(&self, project: &str, connector: &str) -> Result<ConnectorMetrics, Error> {
        let call = Call::get(format!("{}:metrics", path(project, connector)?));
        self.0.answer(&call).await?.read(ConnectorMetrics::of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        assert_eq!(duration("0.411s"), Some(Duration::from_millis(411)));
        assert_eq!(duration("3s"), Some(Duration::from_secs(3)));
        for bad in ["", "s", "0.411", "-1s", "NaNs", "1e300s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn no_debug_output_shows_a_secret() {
        let body = br#"{"name": "projects/p/dataconnectors/c", "type": "HTTP_PUSH", "status": "RESTING", "events": ["smell"],
            "httpConfig": {"url": "https://u:hunter2@h/", "signatureSecret": "hunter2", "headers": {"a": "hunter2"}},
            "newConfig": {"key": "hunter2"}, "azureEventHubConfig": null}"#;
        let connector = Object::of_body(body).and_then(|object| Connector::of(&object)).expect("read");
        assert_eq!(connector.status, ConnectorStatus::Other("RESTING".to_owned()));
        assert_eq!(connector.extra.keys().collect::<Vec<_>>(), ["newConfig"]);
        let settings = ConnectorSettings::new().target(&connector.target);
        let shown = format!("{connector:?} {settings:?}");
        assert!(!shown.contains("hunter2") && shown.contains("newConfig"), "{shown}");
    }
}
