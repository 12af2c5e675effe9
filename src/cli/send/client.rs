//! The HTTP side of `send`: one connection, kept alive, with one request at a time on it.

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

/// How long DT waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much of an answer's body is of interest; ours are far smaller.
const MAX_ANSWER: usize = 64 * 1024;

/// How a request failed to get an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// No one listens.
    Refused,
    /// There is no connection for another reason.
    Unreachable,
    /// The TLS handshake failed.
    Tls,
    /// No answer in time.
    Timeout,
    /// The connection ended before the answer did.
    Lost,
    /// What came was not HTTP/1.
    NotHttp,
}

impl Kind {
    /// The stable name.
    pub(super) const fn code(self) -> &'static str {
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

/// A request without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) kind: Kind,
    /// What the system or the HTTP library says; may be empty.
    pub(super) detail: String,
}

impl Failed {
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

impl From<hyper::Error> for Failed {
    fn from(error: hyper::Error) -> Self {
        let kind = if error.is_parse() { Kind::NotHttp } else { Kind::Lost };
        // The library's cause is the part that says something, such as "connection reset by peer".
        match std::error::Error::source(&error) {
            Some(cause) => Self::new(kind, format!("{error}: {cause}")),
            None => Self::new(kind, error.to_string()),
        }
    }
}

/// An answer as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Empty when it was too long.
    body: Bytes,
}

/// What our own receiver puts into answers; others may not.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said<'a> {
    /// `code` of a problem, else `status`.
    pub(super) code: Option<Cow<'a, str>>,
    pub(super) event_id: Option<Cow<'a, str>>,
}

impl Answer {
    #[cfg(test)]
    pub(super) fn new(status: u16, body: &str) -> Self {
        let status = StatusCode::from_u16(status).unwrap();
        Self { status, body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    /// Reads the body, if it is one of ours.
    pub(super) fn said(&self) -> Said<'_> {
        #[derive(Deserialize)]
        struct Reply<'a> {
            #[serde(borrow)]
            code: Option<Cow<'a, str>>,
            // A number in a problem.
            status: Option<Value>,
            #[serde(borrow, rename = "eventId")]
            event_id: Option<Cow<'a, str>>,
        }
        let Ok(reply) = serde_json::from_slice::<Reply<'_>>(&self.body) else { return Said::default() };
        let code = match (reply.code, reply.status) {
            (Some(code), _) => Some(code),
            (None, Some(Value::String(status))) => Some(Cow::Owned(status)),
            (None, _) => None,
        };
        // It goes to terminals and into keys, and may come from anyone.
        let is_code = |text: &Cow<'_, str>| {
            (1..=64).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        Said { code: code.filter(is_code), event_id: reply.event_id.filter(|id| id.len() <= 256) }
    }
}

/// A client with a connection of its own.
#[derive(Debug)]
pub(super) struct Client {
    addresses: Arc<[SocketAddr]>,
    tls: Option<Tls>,
    connection: Option<http1::SendRequest<Full<Bytes>>>,
}

impl Client {
    /// A client that connects when it has something to send.
    pub(super) const fn new(addresses: Arc<[SocketAddr]>, tls: Option<Tls>) -> Self {
        Self { addresses, tls, connection: None }
    }

    /// A client of the same receiver that is not yet connected.
    pub(super) fn another(&self) -> Self {
        Self::new(Arc::clone(&self.addresses), self.tls.clone())
    }

    /// Connects now, to know whether someone is there.
    pub(super) async fn connect(&mut self) -> Result<(), Failed> {
        let opened = timeout(PATIENCE, self.open()).await;
        self.connection = Some(opened.map_err(|_late| Failed::new(Kind::Timeout, ""))??);
        Ok(())
    }

    /// Sends a request and waits for the whole answer.
    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Failed> {
        // A connection that is not put back is closed: after a failure nobody knows what would come on it next.
        let connection = self.connection.take();
        match timeout(PATIENCE, self.exchange(connection, request)).await {
            Ok(Ok((answer, connection))) => {
                self.connection = connection;
                Ok(answer)
            }
            Ok(Err(failed)) => Err(failed),
            Err(_late) => Err(Failed::new(Kind::Timeout, "")),
        }
    }

    async fn exchange(
        &self,
        kept: Option<http1::SendRequest<Full<Bytes>>>,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Answer, Option<http1::SendRequest<Full<Bytes>>>), Failed> {
        // A kept connection may have been closed by the other side; what was not sent on it goes out on a new one.
        if let Some(mut connection) = kept
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

    async fn open(&self) -> Result<http1::SendRequest<Full<Bytes>>, Failed> {
        let stream = TcpStream::connect(&*self.addresses).await.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => Failed::new(Kind::Refused, error.to_string()),
            _ => Failed::new(Kind::Unreachable, error.to_string()),
        })?;
        // A request is small; waiting to fill a segment would only delay it. A socket without it works too.
        let _delayed = stream.set_nodelay(true);
        match &self.tls {
            None => begin(stream).await,
            Some(tls) => begin(tls.connect(stream).await?).await,
        }
    }
}

/// Begins HTTP/1.1 on a connection.
async fn begin<S>(stream: S) -> Result<http1::SendRequest<Full<Bytes>>, Failed>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // DT capitalises its header names.
    let (sender, connection) =
        http1::Builder::new().title_case_headers(true).handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // The request on it is told of whatever ends the connection.
        let _ended = connection.await;
    });
    Ok(sender)
}

/// Reads the rest of an answer. The connection comes back if it can be used again.
async fn read(
    response: http::Response<hyper::body::Incoming>,
    connection: http1::SendRequest<Full<Bytes>>,
) -> Result<(Answer, Option<http1::SendRequest<Full<Bytes>>>), Failed> {
    let status = response.status();
    match Limited::new(response.into_body(), MAX_ANSWER).collect().await {
        Ok(body) => Ok((Answer { status, body: body.to_bytes() }, Some(connection))),
        Err(error) if error.is::<LengthLimitError>() => Ok((Answer { status, body: Bytes::new() }, None)),
        Err(error) => Err(Failed::new(Kind::Lost, error.to_string())),
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
        let said = accepted.said();
        assert_eq!((said.code.as_deref(), said.event_id.as_deref()), (Some("accepted"), Some("abc")));
        let problem = answer(r#"{"title":"No","status":401,"code":"expired"}"#);
        assert_eq!(problem.said().code.as_deref(), Some("expired"));
        assert_eq!(problem.said().event_id, None);
    }

    #[test]
    fn answers_of_others_have_no_code() {
        for body in ["", "ok", "[]", "{}", r#"{"status":200}"#, r#"{"code":"\u001b[2J"}"#, r#"{"code":""}"#] {
            assert_eq!(answer(body).said(), Said::default(), "{body}");
        }
    }
}
