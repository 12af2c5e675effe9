//! Projects of DT organizations.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::client::Client;
use crate::error::Error;
use crate::exchange::Call;
use crate::json::{BadAnswer, Object};
use crate::pages::Pages;
use crate::url::segment;

/// A project of an organization.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Project {
    /// The resource name of the project: `projects/<project>`.
    pub name: String,
    /// The display name of the project in DT Studio.
    pub display_name: String,
    /// The resource name of the project's organization: `organizations/<organization>`.
    pub organization: String,
    /// The display name of the project's organization in DT Studio.
    pub organization_display_name: String,
    /// The number of sensors in the project; `None` if the response does not contain it.
    pub sensor_count: Option<u64>,
    /// The number of Cloud Connectors in the project; `None` if the response does not contain it.
    pub cloud_connector_count: Option<u64>,
    /// Whether the project is the inventory of the organization.
    pub is_inventory: bool,
    /// Members that this crate does not know.
    pub extra: Map<String, Value>,
}

const KNOWN: [&str; 7] = [
    "name",
    "displayName",
    "organization",
    "organizationDisplayName",
    "sensorCount",
    "cloudConnectorCount",
    "inventory",
];

impl Project {
    /// Returns the id of the project: the last segment of its resource name.
    #[must_use]
    pub fn id(&self) -> &str {
        last_segment(&self.name)
    }

    fn read(raw: &RawValue, path: String) -> Result<Self, BadAnswer> {
        Self::of(&Object::of(raw, path)?)
    }

    fn of(object: &Object<'_>) -> Result<Self, BadAnswer> {
        Ok(Self {
            name: object.text("name")?,
            display_name: object.optional_text("displayName")?.unwrap_or_default(),
            organization: object.optional_text("organization")?.unwrap_or_default(),
            organization_display_name: object.optional_text("organizationDisplayName")?.unwrap_or_default(),
            sensor_count: object.optional_count("sensorCount")?,
            cloud_connector_count: object.optional_count("cloudConnectorCount")?,
            is_inventory: object.boolean("inventory")?,
            extra: object.others(&KNOWN),
        })
    }
}

/// Returns the last segment of a resource name such as `projects/<project>`.
pub fn last_segment(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

impl Client {
    /// Returns the projects that the service account can see, in pages.
    pub fn projects(&self) -> Pages<Project> {
        Pages::new(self, "/projects".to_owned(), Vec::new(), "projects", Project::read)
    }

    /// Reads the project with this id.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no response, or it is not as documented.
    pub async fn project(&self, project: &str) -> Result<Project, Error> {
        let call = Call::get(format!("/projects/{}", segment("project", project)?));
        self.0.answer(&call).await?.read(Project::of)
    }
}
