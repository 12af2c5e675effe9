//! The destination of a connector: its type, and the configuration for that type.
//!
//! The types other than `HTTP_PUSH` are known from DT's Terraform provider only, so none of their members is required.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::json::{BadAnswer, Object};
use crate::secret_text::{EndpointUrl, SecretText};

/// The destination of a connector.
///
/// In a response, a field is `None` if DT did not send the member. In a request, `None` omits the member, so that a change leaves
/// it as it is.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Target {
    /// `HTTP_PUSH`: an HTTPS endpoint.
    HttpPush(HttpConfig),
    /// `AZURE_SERVICE_BUS`: a queue or topic of Azure Service Bus.
    AzureServiceBus(AzureServiceBusConfig),
    /// `AZURE_EVENT_HUB`: an event hub of Azure.
    AzureEventHub(AzureEventHubConfig),
    /// `GOOGLE_CLOUD_PUBSUB`: a topic of Google Cloud Pub/Sub.
    PubSub(PubSubConfig),
    /// `AWS_SQS`: a queue of Amazon SQS.
    AwsSqs(AwsSqsConfig),
    /// A type that this crate does not know, as it was received. Its configuration is in [`extra`](crate::Connector::extra). It
    /// cannot be part of a request.
    Other(String),
}

/// The configuration of the type `HTTP_PUSH`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpConfig {
    /// The URL of the endpoint. Every response contains it.
    pub url: Option<EndpointUrl>,
    /// The signature secret, with which DT signs the header `X-Dt-Signature`; an empty text for none.
    pub signature_secret: Option<SecretText>,
    /// The custom headers of each delivery, by name.
    pub headers: Option<BTreeMap<String, SecretText>>,
}

/// The credentials with which a connector authenticates at Azure.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AzureAuthentication {
    /// The id of the Azure tenant.
    pub tenant_id: Option<String>,
    /// The id of the client (application) in Azure.
    pub client_id: Option<String>,
}

/// The configuration of the type `AZURE_SERVICE_BUS`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AzureServiceBusConfig {
    /// The URL of the queue or topic.
    pub url: Option<EndpointUrl>,
    /// The credentials of the connector at Azure.
    pub authentication: AzureAuthentication,
    /// The member `brokerProperties.correlationId`.
    pub correlation_id: Option<String>,
}

/// The configuration of the type `AZURE_EVENT_HUB`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AzureEventHubConfig {
    /// The URL of the event hub.
    pub url: Option<EndpointUrl>,
    /// The credentials of the connector at Azure.
    pub authentication: AzureAuthentication,
}

/// The configuration of the type `GOOGLE_CLOUD_PUBSUB`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PubSubConfig {
    /// The name of the Pub/Sub topic.
    pub topic: Option<String>,
    /// The audience of the authentication token.
    pub audience: Option<String>,
}

/// The configuration of the type `AWS_SQS`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AwsSqsConfig {
    /// The URL of the SQS queue.
    pub queue_url: Option<EndpointUrl>,
    /// The ARN of the AWS role that DT assumes.
    pub aws_role_arn: Option<String>,
    /// The audience of the authentication token.
    pub audience: Option<String>,
}

const HTTP: &str = "httpConfig";
const SERVICE_BUS: &str = "azureServiceBusConfig";
const EVENT_HUB: &str = "azureEventHubConfig";
const PUBSUB: &str = "pubsubConfig";
const SQS: &str = "awsSqsConfig";

impl HttpConfig {
    /// Returns the configuration for an endpoint with this URL, without a signature secret and custom headers.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: Some(EndpointUrl::new(url)), ..Self::default() }
    }

    fn of(object: &Object<'_>) -> Result<Self, BadAnswer> {
        let headers = object.optional_text_map("headers")?;
        let secret = |(name, value): (String, String)| (name, SecretText::new(value));
        Ok(Self {
            url: Some(EndpointUrl::new(object.text("url")?)),
            signature_secret: object.optional_text("signatureSecret")?.map(SecretText::new),
            headers: headers.map(|headers| headers.into_iter().map(secret).collect()),
        })
    }
}

impl Target {
    /// Returns the type as DT spells it.
    #[must_use]
    pub fn type_name(&self) -> &str {
        match self {
            Self::HttpPush(_) => "HTTP_PUSH",
            Self::AzureServiceBus(_) => "AZURE_SERVICE_BUS",
            Self::AzureEventHub(_) => "AZURE_EVENT_HUB",
            Self::PubSub(_) => "GOOGLE_CLOUD_PUBSUB",
            Self::AwsSqs(_) => "AWS_SQS",
            Self::Other(name) => name,
        }
    }

    /// Returns the URL of the destination, or the name of its queue or topic; `None` if it is not known.
    #[must_use]
    pub fn address(&self) -> Option<String> {
        match self {
            Self::HttpPush(config) => config.url.as_ref().map(EndpointUrl::to_string),
            Self::AzureServiceBus(config) => config.url.as_ref().map(EndpointUrl::to_string),
            Self::AzureEventHub(config) => config.url.as_ref().map(EndpointUrl::to_string),
            Self::PubSub(config) => config.topic.clone(),
            Self::AwsSqs(config) => config.queue_url.as_ref().map(EndpointUrl::to_string),
            Self::Other(_) => None,
        }
    }

    /// Returns the name of the connector's member that contains the configuration of this type; `None` for an unknown type.
    pub(crate) const fn member(&self) -> Option<&'static str> {
        match self {
            Self::HttpPush(_) => Some(HTTP),
            Self::AzureServiceBus(_) => Some(SERVICE_BUS),
            Self::AzureEventHub(_) => Some(EVENT_HUB),
            Self::PubSub(_) => Some(PUBSUB),
            Self::AwsSqs(_) => Some(SQS),
            Self::Other(_) => None,
        }
    }

    /// Reads the target from the JSON of a connector.
    pub(crate) fn of(connector: &Object<'_>) -> Result<Self, BadAnswer> {
        let type_name = connector.text("type")?;
        let text = |member: &str, name: &str| match connector.optional_object(member)? {
            Some(config) => config.optional_text(name),
            None => Ok(None),
        };
        let url = |member: &str, name: &str| Ok(text(member, name)?.map(EndpointUrl::new));
        let authentication = |member: &str| {
            let config = connector.optional_object(member)?;
            let object = config.map(|config| config.optional_object("authenticationConfig")).transpose()?;
            let Some(object) = object.flatten() else { return Ok(AzureAuthentication::default()) };
            let (tenant_id, client_id) =
                (object.optional_text("tenantId")?, object.optional_text("clientId")?);
            Ok(AzureAuthentication { tenant_id, client_id })
        };
        Ok(match &*type_name {
            "HTTP_PUSH" => Self::HttpPush(HttpConfig::of(&connector.object(HTTP)?)?),
            "AZURE_SERVICE_BUS" => {
                let config = connector.optional_object(SERVICE_BUS)?;
                let broker = config.map(|config| config.optional_object("brokerProperties")).transpose()?;
                let id = broker.flatten().map(|broker| broker.optional_text("correlationId")).transpose()?;
                Self::AzureServiceBus(AzureServiceBusConfig {
                    url: url(SERVICE_BUS, "url")?,
                    authentication: authentication(SERVICE_BUS)?,
                    correlation_id: id.flatten(),
                })
            }
            "AZURE_EVENT_HUB" => Self::AzureEventHub(AzureEventHubConfig {
                url: url(EVENT_HUB, "url")?,
                authentication: authentication(EVENT_HUB)?,
            }),
            "GOOGLE_CLOUD_PUBSUB" => Self::PubSub(PubSubConfig {
                topic: text(PUBSUB, "topic")?,
                audience: text(PUBSUB, "audience")?,
            }),
            "AWS_SQS" => Self::AwsSqs(AwsSqsConfig {
                queue_url: url(SQS, "queueUrl")?,
                aws_role_arn: text(SQS, "awsRoleArn")?,
                audience: text(SQS, "audience")?,
            }),
            _ => Self::Other(type_name),
        })
    }

    /// Returns the JSON of the configuration for a request.
    pub(crate) fn to_json(&self) -> Value {
        let url = |url: &Option<EndpointUrl>| url.as_ref().map(|url| json!(url.expose()));
        let text = |text: &Option<String>| text.as_ref().map(|text| json!(text));
        match self {
            Self::HttpPush(HttpConfig { url: to, signature_secret, headers }) => {
                let expose = |headers: &BTreeMap<String, SecretText>| {
                    headers.iter().map(|(name, value)| (name.clone(), json!(value.expose()))).collect()
                };
                object([
                    ("url", url(to)),
                    ("signatureSecret", signature_secret.as_ref().map(|secret| json!(secret.expose()))),
                    ("headers", headers.as_ref().map(|headers| Value::Object(expose(headers)))),
                ])
            }
            Self::AzureServiceBus(config) => {
                let broker = object([("correlationId", text(&config.correlation_id))]);
                object([
                    ("url", url(&config.url)),
                    ("authenticationConfig", filled(config.authentication.to_json())),
                    ("brokerProperties", filled(broker)),
                ])
            }
            Self::AzureEventHub(config) => object([
                ("url", url(&config.url)),
                ("authenticationConfig", filled(config.authentication.to_json())),
            ]),
            Self::PubSub(config) => {
                object([("topic", text(&config.topic)), ("audience", text(&config.audience))])
            }
            Self::AwsSqs(config) => object([
                ("queueUrl", url(&config.queue_url)),
                ("awsRoleArn", text(&config.aws_role_arn)),
                ("audience", text(&config.audience)),
            ]),
            Self::Other(_) => json!({}),
        }
    }

    /// Returns the parts of the configuration that an error message must not contain.
    pub(crate) fn hidden(&self) -> Vec<SecretText> {
        let of_url = |url: &Option<EndpointUrl>| url.iter().flat_map(EndpointUrl::hidden).collect();
        match self {
            Self::HttpPush(config) => {
                let mut hidden: Vec<SecretText> = of_url(&config.url);
                hidden.extend(config.signature_secret.clone());
                hidden.extend(config.headers.iter().flatten().map(|(_, value)| value.clone()));
                hidden
            }
            Self::AzureServiceBus(config) => of_url(&config.url),
            Self::AzureEventHub(config) => of_url(&config.url),
            Self::AwsSqs(config) => of_url(&config.queue_url),
            Self::PubSub(_) | Self::Other(_) => Vec::new(),
        }
    }
}

impl AzureAuthentication {
    fn to_json(&self) -> Value {
        let text = |text: &Option<String>| text.as_ref().map(|text| json!(text));
        object([("tenantId", text(&self.tenant_id)), ("clientId", text(&self.client_id))])
    }
}

/// Returns a JSON object with the members that are `Some`.
fn object<const N: usize>(members: [(&str, Option<Value>); N]) -> Value {
    let set = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(set.collect::<Map<_, _>>())
}

/// Returns the JSON object, or `None` if it is empty.
fn filled(object: Value) -> Option<Value> {
    object.as_object().is_some_and(|members| !members.is_empty()).then_some(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_is_read_as_it_is_written() {
        let azure = json!({"tenantId": "t", "clientId": "c"});
        for (type_name, member, config) in [
            (
                "HTTP_PUSH",
                HTTP,
                json!({"url": "https://u:p@h/?q", "signatureSecret": "s", "headers": {"a": "1"}}),
            ),
            (
                "AZURE_SERVICE_BUS",
                SERVICE_BUS,
                json!({"url": "https://b/q", "authenticationConfig": azure, "brokerProperties": {"correlationId": "i"}}),
            ),
            ("AZURE_EVENT_HUB", EVENT_HUB, json!({"url": "https://b/h", "authenticationConfig": azure})),
            ("GOOGLE_CLOUD_PUBSUB", PUBSUB, json!({"topic": "projects/x/topics/y", "audience": "a"})),
            ("AWS_SQS", SQS, json!({"queueUrl": "https://sqs/q", "awsRoleArn": "arn:x", "audience": "a"})),
        ] {
            let read = |connector: Value| {
                let body = connector.to_string();
                Object::of_body(body.as_bytes()).and_then(|object| Target::of(&object))
            };
            let target = read(json!({"type": type_name, member: config})).expect(type_name);
            assert_eq!((target.type_name(), target.member()), (type_name, Some(member)));
            assert_eq!(target.to_json(), config, "{type_name}");
            assert!(target.address().is_some(), "{type_name}");
            let empty = read(json!({"type": type_name, member: {}}));
            assert_eq!(empty.is_err(), type_name == "HTTP_PUSH", "{type_name}");
            let wrong = read(json!({"type": type_name, member: "hunter2"})).expect_err(type_name);
            assert_eq!((&*wrong.path, wrong.expected, &*wrong.found), (member, "an object", "a text"));
        }
    }
}
