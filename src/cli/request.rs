//! Parses a dump of a request: the raw HTTP/1.1 message, head and body, from a proxy, a debugger or a log.
//!
//! Editors and terminals change dumps, so the parser tolerates more than a server: the line ends of the head may be LF, the
//! request line may be absent or of HTTP/2, and a body whose framing does not match its head is still read.

/// The largest number of headers.
const MAX_HEADERS: usize = 256;

/// A request that was parsed from a dump.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The headers of the request, in their order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body of the request, without its framing.
    pub body: Vec<u8>,
    /// All bytes after the head, if `Content-Length` says that the body is shorter; otherwise `None`.
    pub whole: Option<Vec<u8>>,
    /// Notes about the dump, for the user.
    pub notes: Vec<String>,
}

/// Why a dump cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("not an HTTP request: it is a single line")]
    SingleLine,
    #[error("this is a response; the request is needed")]
    Response,
    #[error("no empty line ends the headers")]
    Unfinished,
    #[error("not the head of an HTTP request: {0}")]
    Head(#[from] httparse::Error),
    #[error("the transfer coding \"{}\" is not supported here", .0.escape_debug())]
    TransferCoding(String),
    #[error("the chunked body is damaged: {0}")]
    Chunks(#[from] ChunkError),
}

/// Why a chunked body is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    #[error("it ends before its last chunk")]
    Unfinished,
    #[error("a chunk has no hexadecimal size")]
    NoSize,
    #[error("a chunk is shorter than its size")]
    TooShort,
    #[error("a chunk is longer than its size")]
    TooLong,
}

impl Request {
    /// Parses a dump.
    pub fn parse(dump: &[u8]) -> Result<Self, RequestError> {
        let mut parsed = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let head = without_request_line(dump)?;
        let (rest, headers) = match httparse::parse_headers(head, &mut parsed) {
            Ok(httparse::Status::Complete((end, headers))) => (head.get(end..).unwrap_or_default(), headers),
            Ok(httparse::Status::Partial) => return Err(RequestError::Unfinished),
            Err(error) => return Err(error.into()),
        };
        let headers = headers.iter().map(|header| (header.name.to_owned(), header.value.to_vec())).collect();
        let mut request = Self { headers, ..Self::default() };
        request.frame(rest)?;
        Ok(request)
    }

    /// Finds the body in the bytes after the head (RFC 9112, section 6).
    fn frame(&mut self, rest: &[u8]) -> Result<(), RequestError> {
        if let Some(coding) = self.text_of("Transfer-Encoding") {
            if !coding.eq_ignore_ascii_case("chunked") {
                return Err(RequestError::TransferCoding(coding));
            }
            return self.frame_chunks(rest);
        }
        self.body = rest.to_vec();
        let Some(length) = self.text_of("Content-Length") else { return Ok(()) };
        let Ok(length) = length.parse::<usize>() else {
            self.notes
                .push("Content-Length is not a number; the body is all that follows the head".to_owned());
            return Ok(());
        };
        if let Some(body) = rest.get(..length) {
            let over = rest.len().saturating_sub(length);
            if over > 0 {
                self.notes.push(format!("the {over} byte(s) beyond Content-Length are not part of the body"));
                self.body = body.to_vec();
                self.whole = Some(rest.to_vec());
            }
        } else {
            let short = length.saturating_sub(rest.len());
            self.notes.push(format!("the body is {short} byte(s) shorter than its Content-Length"));
        }
        Ok(())
    }

    fn frame_chunks(&mut self, rest: &[u8]) -> Result<(), RequestError> {
        match unchunk(rest) {
            Ok(body) => self.body = body,
            // A size is hexadecimal, so an object cannot be mistaken for one.
            Err(_) if rest.trim_ascii_start().starts_with(b"{") => {
                self.notes.push(
                    "the body is not chunked, although its head says so; it is used as it is".to_owned(),
                );
                self.body = rest.to_vec();
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn text_of(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(String::from_utf8_lossy(value).trim().to_owned())
    }
}

/// Returns the headers and the bytes after them. The request line is not needed for verification.
fn without_request_line(dump: &[u8]) -> Result<&[u8], RequestError> {
    let end = dump.iter().position(|byte| *byte == b'\n').ok_or(RequestError::SingleLine)?;
    let (line, rest) = dump.split_at_checked(end.saturating_add(1)).unwrap_or((dump, &[]));
    if line.starts_with(b"HTTP/") {
        return Err(RequestError::Response);
    }
    let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
    let is_header = name.len() < line.len() && !name.iter().any(u8::is_ascii_whitespace);
    Ok(if is_header { dump } else { rest })
}

/// Decodes a chunked body (RFC 9112, section 7.1). Its line ends may be LF. Trailers are ignored.
pub fn unchunk(mut rest: &[u8]) -> Result<Vec<u8>, ChunkError> {
    let mut body = Vec::new();
    loop {
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or(ChunkError::Unfinished)?;
        let (line, after) = rest.split_at_checked(end.saturating_add(1)).unwrap_or((rest, &[]));
        let size = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let size = std::str::from_utf8(size).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
        let size = size.and_then(|text| usize::from_str_radix(text, 16).ok());
        let size = size.ok_or(ChunkError::NoSize)?;
        if size == 0 {
            return Ok(body);
        }
        let (chunk, after) = after.split_at_checked(size).ok_or(ChunkError::TooShort)?;
        body.extend_from_slice(chunk);
        let after = after.strip_prefix(b"\r").unwrap_or(after);
        rest = after.strip_prefix(b"\n").ok_or(ChunkError::TooLong)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body_of(dump: &str) -> Result<(Vec<u8>, usize), RequestError> {
        Request::parse(dump.as_bytes()).map(|request| (request.body, request.notes.len()))
    }

    #[test]
    fn heads_of_every_kind_are_read() {
        for head in [
            "POST / HTTP/1.1\r\nX-A: b\r\n\r\n",
            "POST / HTTP/1.1\nX-A: b\n\n",
            "POST / HTTP/2\r\nx-a: b\r\n\r\n",
            "X-A: b\n\n",
        ] {
            let request = Request::parse(format!("{head}{{}}\n").as_bytes()).unwrap();
            assert_eq!(request.body, b"{}\n", "{head:?}");
            assert!(request.headers[0].0.eq_ignore_ascii_case("x-a") && request.headers[0].1 == b"b");
        }
    }

    #[test]
    fn the_content_length_cuts_the_body() {
        assert_eq!(body_of("POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"), Ok((b"{}".to_vec(), 0)));
        assert_eq!(body_of("POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}\n"), Ok((b"{}".to_vec(), 1)));
        assert_eq!(body_of("POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n{}"), Ok((b"{}".to_vec(), 1)));
        assert_eq!(body_of("POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n{}"), Ok((b"{}".to_vec(), 1)));
    }

    #[test]
    fn chunks_are_put_together() {
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n";
        let body = |rest: &str| body_of(&format!("{head}{rest}"));
        assert_eq!(body("1\r\n{\r\n1;x=y\r\n}\r\n0\r\n\r\n"), Ok((b"{}".to_vec(), 0)));
        assert_eq!(body("2\n{}\n0\n\n"), Ok((b"{}".to_vec(), 0)));
        assert_eq!(body("{}"), Ok((b"{}".to_vec(), 1)));
        for damaged in ["", "5\r\n{}", "1\r\n{}\r\n0\r\n\r\n", "ffffffffffffffffff\r\n{}", "+1\r\n{\r\n0\r\n"]
        {
            assert!(body(damaged).is_err(), "{damaged:?}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for dump in [
            "",
            "{}",
            "HTTP/1.1 200 OK\r\n\r\n",
            "POST / HTTP/1.1\r\nX-A: b\r\n",
            "POST / HTTP/1.1\r\nnothing\r\n\r\n",
        ] {
            assert!(Request::parse(dump.as_bytes()).is_err(), "{dump:?}");
        }
        let gzip = "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n";
        assert!(Request::parse(gzip.as_bytes()).unwrap_err().to_string().contains("gzip, chunked"));
    }
}
