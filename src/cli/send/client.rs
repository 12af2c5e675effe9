//! The HTTP client of `send`: one kept connection, with one request at a time.

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::tls::Tls;

/// The time limit of a response: that of DT.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The largest size of a response's body, in bytes. Bodies of the receiver are far smaller.
const MAX_RESPONSE: usize = 64 * 1024;

/// Why a request has no response, as one of few kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendErrorKind {
    /// No process listens on the address.
    Refused,
    /// The connection failed for another reason.
    Unreachable,
    /// The TLS handshake failed.
    Tls,
    /// There was no response within 10 s.
    Timeout,
    /// The connection ended before the response was complete.
    Lost,
    /// The response is not HTTP/1.
    NotHttp,
}

impl SendErrorKind {
    /// Returns the stable name of the kind.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Refused => "connection_refused",
            Self::Unreachable => "connection_failed",
            Self::Tls => "tls_failed",
            Self::Timeout => "timeout",
            Self::Lost => "connection_lost",
            Self::NotHttp => "not_http",
        }
    }
}

/// Why a request has no response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", kind.code())]
pub struct SendError {
    pub kind: SendErrorKind,
    /// The message of the operating system or of the HTTP library; may be empty.
    pub detail: String,
}

impl SendError {
    pub fn new(kind: SendErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

impl From<hyper::Error> for SendError {
    fn from(error: hyper::Error) -> Self {
        let kind = if error.is_parse() { SendErrorKind::NotHttp } else { SendErrorKind::Lost };
        // The source has the useful part of the message, such as "connection reset by peer".
        match std::error::Error::source(&error) {
            Some(cause) => Self::new(kind, format!("{error}: {cause}")),
            None => Self::new(kind, error.to_string()),
        }
    }
}

/// A response of the receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    /// The body of the response; empty if it was too long.
    body: Bytes,
}

/// The members in the body of a response of this receiver. Other receivers may not have them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ResponseMembers<'a> {
    /// The member `code` of a problem, or else the member `status`; `None` if the body has neither.
    pub code: Option<Cow<'a, str>>,
    pub event_id: Option<Cow<'a, str>>,
}

impl Answer {
    #[cfg(test)]
    pub fn new(status: u16, body: &str) -> Self {
        let status = StatusCode::from_u16(status).unwrap();
        Self { status, body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    /// Parses the members of the body, if it is that of a response of this receiver.
    pub fn members(&self) -> ResponseMembers<'_> {
        #[derive(Deserialize)]
        struct Reply<'a> {
            #[serde(borrow)]
            code: Option<Cow<'a, str>>,
            // A number in problem details (RFC 9457).
            status: Option<Value>,
            #[serde(borrow, rename = "eventId")]
            event_id: Option<Cow<'a, str>>,
        }
        let Ok(reply) = serde_json::from_slice::<Reply<'_>>(&self.body) else { return ResponseMembers::default() };
        let code = match (reply.code, reply.status) {
            (Some(code), _) => Some(code),
            (None, Some(Value::String(status))) => Some(Cow::Owned(status)),
            (None, _) => None,
        };
        // Limited, since it is printed and used as a key, and any server may have sent it.
        let is_code = |text: &Cow<'_, str>| {
            (1..=64).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        ResponseMembers { code: code.filter(is_code), event_id: reply.event_id.filter(|id| id.len() <= 256) }
    }
}

/// An HTTP client with one connection.
#[derive(Debug)]
pub struct Client {
    addresses: Arc<[SocketAddr]>,
    tls: Option<Tls>,
    connection: Option<http1::SendRequest<Full<Bytes>>>,
}

impl Client {
    /// Creates a client, which connects at its first request.
    pub const fn new(addresses: Arc<[SocketAddr]>, tls: Option<Tls>) -> Self {
        Self { addresses, tls, connection: None }
    }

    /// Creates another client for the same receiver, without a connection.
    pub fn another(&self) -> Self {
        Self::new(Arc::clone(&self.addresses), self.tls.clone())
    }

    /// Connects now, in order to find out whether the receiver is reachable.
    pub async fn connect(&mut self) -> Result<(), SendError> {
        let opened = timeout(TIMEOUT, self.open()).await;
        self.connection = Some(opened.map_err(|_late| SendError::new(SendErrorKind::Timeout, ""))??);
        Ok(())
    }

    /// Sends a request and waits for the complete response.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, SendError> {
        // After a failure the connection is closed: late bytes on it would be read as the next response.
        let connection = self.connection.take();
        match timeout(TIMEOUT, self.exchange(connection, request)).await {
            Ok(Ok((answer, connection))) => {
                self.connection = connection;
                Ok(answer)
            }
            Ok(Err(failed)) => Err(failed),
            Err(_late) => Err(SendError::new(SendErrorKind::Timeout, "")),
        }
    }

    async fn exchange(
        &self,
        idle: Option<http1::SendRequest<Full<Bytes>>>,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Answer, Option<http1::SendRequest<Full<Bytes>>>), SendError> {
        // The receiver may have closed an idle connection; a request that was not sent on it is sent on a new one.
        if let Some(mut connection) = idle
            && connection.ready().await.is_ok()
        {
            match connection.try_send_request(request).await {
                Ok(response) => return read(response, connection).await,
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let mut connection = self.open().await?;
        let response = connection.send_request(request).await?;
        read(response, connection).await
    }

    async fn open(&self) -> Result<http1::SendRequest<Full<Bytes>>, SendError> {
        let stream = TcpStream::connect(&*self.addresses).await.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => SendError::new(SendErrorKind::Refused, error.to_string()),
            _ => SendError::new(SendErrorKind::Unreachable, error.to_string()),
        })?;
        // Nagle's algorithm would only delay small requests. A socket without this option works too.
        let _delayed = stream.set_nodelay(true);
        match &self.tls {
            None => start_http(stream).await,
            Some(tls) => start_http(tls.connect(stream).await?).await,
        }
    }
}

/// Starts HTTP/1.1 on a connection.
async fn start_http<S>(stream: S) -> Result<http1::SendRequest<Full<Bytes>>, SendError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // DT capitalises its header names.
    let (sender, connection) =
        http1::Builder::new().title_case_headers(true).handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // Its request gets the error that ends the connection.
        let _ended = connection.await;
    });
    Ok(sender)
}

/// Reads the body of a response. Returns the connection as well, if it can be used for another request.
async fn read(
    response: http::Response<hyper::body::Incoming>,
    connection: http1::SendRequest<Full<Bytes>>,
) -> Result<(Answer, Option<http1::SendRequest<Full<Bytes>>>), SendError> {
    let status = response.status();
    match Limited::new(response.into_body(), MAX_RESPONSE).collect().await {
        Ok(body) => Ok((Answer { status, body: body.to_bytes() }, Some(connection))),
        Err(error) if error.is::<LengthLimitError>() => Ok((Answer { status, body: Bytes::new() }, None)),
        Err(error) => Err(SendError::new(SendErrorKind::Lost, error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &str) -> Answer {
        Answer::new(200, body)
    }

    #[test]
    fn code_and_event_id_are_read_from_our_answers() {
        let accepted = answer(r#"{"status":"accepted","eventId":"abc"}"#);
        let members = accepted.members();
        assert_eq!((members.code.as_deref(), members.event_id.as_deref()), (Some("accepted"), Some("abc")));
        let problem = answer(r#"{"title":"No","status":401,"code":"expired"}"#);
        assert_eq!(problem.members().code.as_deref(), Some("expired"));
        assert_eq!(problem.members().event_id, None);
    }

    #[test]
    fn answers_of_others_have_no_code() {
        for body in ["", "ok", "[]", "{}", r#"{"status":200}"#, r#"{"code":"\u001b[2J"}"#, r#"{"code":""}"#] {
            assert_eq!(answer(body).members(), ResponseMembers::default(), "{body}");
        }
    }
}
