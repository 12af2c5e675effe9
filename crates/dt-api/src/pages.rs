//! Lists that DT sends in pages: `pageSize`, `pageToken`, `nextPageToken` (DT docs, "Pagination").

use std::collections::HashSet;
use std::fmt;

use serde_json::value::RawValue;

use crate::client::Client;
use crate::error::Error;
use crate::exchange::{Call, not_understood};
use crate::json::BadAnswer;
use crate::url::query;

/// The number of page tokens after which a list counts as endless. No real list has as many pages.
const MAX_TOKENS: usize = 100_000;

/// Reads one item of a list. The text is the path of the item in the response.
type ReadItem<T> = fn(&RawValue, String) -> Result<T, BadAnswer>;

/// A list that DT sends in pages. Nothing is requested before [`next`](Self::next). A list that does not end after 100,000 pages
/// is an [`Error::NotUnderstood`]; [`starting_at`](Self::starting_at) continues it.
///
/// # Examples
///
/// ```no_run
/// # async fn devices(client: dt_api::Client) -> Result<(), dt_api::Error> {
/// let mut pages = client.devices("c0md3mm0c7pet3vico8g", &dt_api::DeviceQuery::new())?;
/// while let Some(devices) = pages.next().await? {
///     println!("{} devices", devices.len());
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is requested before `next`"]
pub struct Pages<T> {
    client: Client,
    path: String,
    query: Vec<(&'static str, String)>,
    member: &'static str,
    read: ReadItem<T>,
    /// The token of the next page; empty for the first one.
    token: String,
    /// The tokens of all pages so far: a list that returns to one of them would never end.
    tokens: HashSet<String>,
    is_done: bool,
}

impl<T> fmt::Debug for Pages<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages")
            .field("path", &self.path)
            .field("is_done", &self.is_done)
            .finish_non_exhaustive()
    }
}

impl<T> Pages<T> {
    /// Creates the list that is in the member `member` of the responses to `path`.
    pub(crate) fn new(
        client: &Client,
        path: String,
        query: Vec<(&'static str, String)>,
        member: &'static str,
        read: ReadItem<T>,
    ) -> Self {
        Self {
            client: client.clone(),
            path,
            query,
            member,
            read,
            token: String::new(),
            tokens: HashSet::new(),
            is_done: false,
        }
    }

    /// Starts with the page that this token identifies, instead of the first page. [`token`](Self::token) returned it earlier.
    pub fn starting_at(mut self, token: impl Into<String>) -> Self {
        self.token = token.into();
        self
    }

    /// Returns the token of the next page; empty if that is the first page, and after the last one.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Returns the items of the next page, which may be empty; `None` after the last page. After an error, the next call
    /// requests the same page again.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no response, or it is not as documented.
    pub async fn next(&mut self) -> Result<Option<Vec<T>>, Error> {
        if self.is_done {
            return Ok(None);
        }
        let token = Some(("pageToken", self.token.as_str())).filter(|(_, token)| !token.is_empty());
        let members = self.query.iter().map(|(name, value)| (*name, value.as_str()));
        let call = Call { query: query(members.chain(token)), ..Call::get(self.path.clone()) };
        let answer = self.client.0.answer(&call).await?;
        // A list without `nextPageToken` could be incomplete without a trace, so it is required. DT sends "" on the last page.
        let (items, next) =
            answer.read(|body| Ok((body.list(self.member, self.read)?, body.text("nextPageToken")?)))?;
        if next == self.token && !next.is_empty() || self.tokens.contains(&next) {
            let bad = BadAnswer {
                path: "nextPageToken".to_owned(),
                expected: "the token of another page",
                found: "that of an earlier page".to_owned(),
            };
            return Err(not_understood(answer.call, bad));
        }
        // Otherwise a server that always sends a new token with an empty page would never let `up_to` end.
        if !next.is_empty() && self.tokens.len() >= MAX_TOKENS {
            let bad = BadAnswer {
                path: "nextPageToken".to_owned(),
                expected: "the end of the list within 100,000 pages",
                found: "more".to_owned(),
            };
            return Err(not_understood(answer.call, bad));
        }
        self.is_done = next.is_empty();
        let token = std::mem::replace(&mut self.token, next);
        self.tokens.extend(Some(token).filter(|token| !token.is_empty()));
        Ok(Some(items))
    }

    /// Returns the items of all pages, but at most `most` items.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no response, or it is not as documented.
    pub async fn up_to(mut self, most: usize) -> Result<Vec<T>, Error> {
        let mut all = Vec::new();
        while all.len() < most
            && let Some(page) = self.next().await?
        {
            all.extend(page);
        }
        all.truncate(most);
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Credentials;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers each request with an empty page and a token that is new.
    async fn serve(listener: TcpListener) {
        for page in 0_u64.. {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.expect("a request"));
            }
            let body = format!(r#"{{"events": [], "nextPageToken": "t{page}"}}"#);
            let head =
                format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).await.expect("sent");
        }
    }

    #[tokio::test]
    async fn a_list_of_ever_new_pages_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let server = tokio::spawn(serve(listener));
        let secret = dt_verify::Secret::new("hunter2").expect("not empty");
        let client =
            Client::builder(Credentials::basic("key", secret)).api_url(url).build().expect("a client");
        let history = || client.history("p", "d", &crate::history::HistoryQuery::new()).expect("a query");
        let earlier = |count| (0..count).map(|at| format!("earlier{at}")).collect();
        let mut pages = Pages { tokens: earlier(MAX_TOKENS - 2), ..history().starting_at("first") };
        for _ in 0..2 {
            assert!(pages.next().await.expect("a page").is_some_and(|page| page.is_empty()));
        }
        let token = pages.token().to_owned();
        let error = pages.next().await.expect_err("too many pages");
        let Error::NotUnderstood { path, expected, found, .. } = error else { panic!("{error}") };
        assert_eq!(
            (&*path, expected, &*found),
            ("nextPageToken", "the end of the list within 100,000 pages", "more")
        );
        // A caller that knows better continues.
        assert_eq!(pages.token(), token);
        assert!(history().starting_at(token).next().await.expect("a page").is_some());
        let all = Pages { tokens: earlier(MAX_TOKENS - 2), ..history() }.up_to(10).await;
        assert_eq!(all.expect_err("too many pages").code(), "not_understood");
        server.abort();
    }
}
