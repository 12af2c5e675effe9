//! Splits the body of a stream into messages: lines of JSON, or server-sent events (WHATWG HTML, section 9.2).

use std::mem;

use bytes::{Buf, Bytes, BytesMut};

/// The largest size of a message and of a line, in bytes. An event has less than 16 KiB.
const MAX_MESSAGE: usize = 1 << 20;

/// The byte order mark, which may be at the start of a body.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// The error for a message larger than [`MAX_MESSAGE`]. The message is skipped, and the next one can be read.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLarge;

/// Splits a body into messages.
#[derive(Debug)]
pub struct Lines {
    buffer: Buffer,
    /// Whether the body consists of server-sent events; otherwise of lines of JSON.
    is_sse: bool,
    /// The `data` of a server-sent event that is not complete yet; `None` if it has had no line of `data`.
    data: Option<BytesMut>,
    /// Whether the rest of a server-sent event is skipped, since one of its lines was too large.
    skips_event: bool,
}

impl Lines {
    pub fn new(is_sse: bool) -> Self {
        Self { buffer: Buffer::new(is_sse), is_sse, data: None, skips_event: false }
    }

    /// Appends the next bytes of the body.
    pub fn push(&mut self, part: &[u8]) {
        self.buffer.bytes.extend_from_slice(part);
    }

    /// Returns the next complete message; `None` if more bytes are needed. A message that is too large is an error once.
    pub fn next(&mut self) -> Result<Option<Bytes>, TooLarge> {
        let message = self.next_message();
        if message.is_err() {
            self.data = None;
            self.skips_event = self.is_sse;
        }
        message
    }

    fn next_message(&mut self) -> Result<Option<Bytes>, TooLarge> {
        loop {
            let line = match self.buffer.line() {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(None),
                // Another part of the same event.
                Err(TooLarge) if self.skips_event => continue,
                Err(TooLarge) => return Err(TooLarge),
            };
            if !self.is_sse {
                if !line.trim_ascii().is_empty() {
                    return Ok(Some(line.freeze()));
                }
            } else if line.is_empty() {
                self.skips_event = false;
                if let Some(data) = self.data.take() {
                    return Ok(Some(data.freeze()));
                }
            } else if let Some(value) = data_of(&line)
                && !self.skips_event
            {
                match &mut self.data {
                    None => self.data = Some(BytesMut::from(value)),
                    Some(data) => {
                        data.extend_from_slice(b"\n");
                        data.extend_from_slice(value);
                    }
                }
                if self.data.as_ref().is_some_and(|data| data.len() > MAX_MESSAGE) {
                    return Err(TooLarge);
                }
            }
            // Other lines of server-sent events are comments, or fields without a meaning here.
        }
    }
}

/// Returns the value of a line with the field `data`; empty if the line has no colon. `None` for a line with another field.
fn data_of(line: &[u8]) -> Option<&[u8]> {
    match line.strip_prefix(b"data".as_slice())? {
        [] => Some(&[]),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

/// Splits a body into lines.
#[derive(Debug)]
struct Buffer {
    bytes: BytesMut,
    /// The number of bytes at the start of `bytes` that were searched and contain no line end.
    searched: usize,
    /// Whether a single carriage return ends a line, as in server-sent events. In lines of JSON it is white space.
    cr_ends: bool,
    /// Whether the last line ended with a carriage return, so that a line feed that follows is part of the same line end.
    is_after_cr: bool,
    is_first_line: bool,
    /// Whether the rest of a line is skipped, since the line is too large.
    skips_line: bool,
}

impl Buffer {
    fn new(cr_ends: bool) -> Self {
        Self {
            bytes: BytesMut::new(),
            searched: 0,
            cr_ends,
            is_after_cr: false,
            is_first_line: true,
            skips_line: false,
        }
    }

    /// Removes the next complete line from the buffer and returns it without its line end; `None` if more bytes are needed.
    fn line(&mut self) -> Result<Option<BytesMut>, TooLarge> {
        loop {
            if self.is_after_cr
                && let Some(first) = self.bytes.first()
            {
                let count = usize::from(*first == b'\n');
                self.bytes.advance(count);
                self.is_after_cr = false;
            }
            let is_end = |byte: &u8| *byte == b'\n' || self.cr_ends && *byte == b'\r';
            let Some(at) = self.bytes.iter().skip(self.searched).position(is_end) else {
                self.searched = self.bytes.len();
                if self.skips_line || self.searched > MAX_MESSAGE {
                    self.bytes.clear();
                    self.searched = 0;
                    if !mem::replace(&mut self.skips_line, true) {
                        return Err(TooLarge);
                    }
                }
                return Ok(None);
            };
            let mut line = self.bytes.split_to(self.searched.saturating_add(at));
            self.searched = 0;
            self.is_after_cr = self.bytes.first() == Some(&b'\r');
            self.bytes.advance(1);
            if mem::take(&mut self.is_first_line) && line.starts_with(BOM) {
                line.advance(BOM.len());
            }
            if mem::take(&mut self.skips_line) {
                continue;
            }
            if line.len() > MAX_MESSAGE {
                return Err(TooLarge);
            }
            return Ok(Some(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns the messages of a body that arrives in parts of this size; `None` for one that is too large.
    fn all(is_sse: bool, body: &[u8], part: usize) -> Vec<Option<String>> {
        let mut lines = Lines::new(is_sse);
        let mut messages = Vec::new();
        for part in body.chunks(part) {
            lines.push(part);
            loop {
                match lines.next() {
                    Ok(None) => break,
                    Ok(Some(message)) => messages.push(Some(String::from_utf8_lossy(&message).into_owned())),
                    Err(TooLarge) => messages.push(None),
                }
            }
            assert!(lines.buffer.bytes.len() <= MAX_MESSAGE, "the memory is bounded");
        }
        messages
    }

    fn messages(is_sse: bool, body: &[u8], part: usize) -> Vec<String> {
        all(is_sse, body, part).into_iter().map(|message| message.expect("small")).collect()
    }

    #[test]
    fn messages_are_found_however_the_body_is_cut() {
        for part in 1..60 {
            let found = messages(false, b"{\"a\":1}\n\r\n \n{\"b\":\xc3\xa5}\r\n{\"half", part);
            let found: Vec<_> = found.iter().map(|line| line.trim_end()).collect();
            assert_eq!(found, ["{\"a\":1}", "{\"b\":å}"]);
            let body =
                b": comment\nevent: x\ndata: {\"a\":\ndata:1}\nid: 7\ndatum: 2\n\n\ndata: b\r\n\r\ndata: half\n";
            assert_eq!(messages(true, body, part), ["{\"a\":\n1}", "b"]);
        }
    }

    #[test]
    fn server_sent_events_are_those_of_the_standard() {
        for part in 1..60 {
            for (body, expected) in [
                // The examples of the section "Interpreting an event stream".
                ("data: YHOO\ndata: +2\ndata: 10\n\n", &["YHOO\n+2\n10"][..]),
                (
                    ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
                    &["first event", "second event", " third event"],
                ),
                ("data\n\ndata\ndata\n\ndata:", &["", "\n"]),
                ("data:test\n\ndata: test\n\n", &["test", "test"]),
                // Each line end, and all of them.
                ("data: a\r\rdata: b\r\r", &["a", "b"]),
                ("data: a\r\ndata: b\r\n\r\n\r\ndata: c\r\n\r\n", &["a\nb", "c"]),
                ("data: a\r\n\rdata: b\n\r\ndata: c\r\n\n", &["a", "b", "c"]),
                ("data: a\n\r", &["a"]),
                // One byte order mark, and only at the start.
                ("\u{feff}data: a\n\n\u{feff}data: b\n\n", &["a"]),
                ("\u{feff}\u{feff}data: a\n\n", &[]),
                ("\u{feff}\r\ndata: a\n\n", &["a"]),
            ] {
                assert_eq!(messages(true, body.as_bytes(), part), expected, "{body:?} in parts of {part}");
            }
        }
    }

    #[test]
    fn a_carriage_return_ends_a_line_before_the_next_byte_arrives() {
        let mut lines = Lines::new(true);
        lines.push(b"data: a\r\n\r");
        assert_eq!(lines.next(), Ok(Some(Bytes::from_static(b"a"))));
        // The rest of the line end is no empty line: that would end the next event too early.
        lines.push(b"\ndata: b\r");
        assert_eq!(lines.next(), Ok(None));
        lines.push(b"\ndata: c\n\n");
        assert_eq!(lines.next(), Ok(Some(Bytes::from_static(b"b\nc"))));
    }

    #[test]
    fn a_message_that_is_too_large_is_an_error_once() {
        let large = vec![b'x'; MAX_MESSAGE + 1];
        let largest = vec![b'x'; MAX_MESSAGE];
        let json = |line: &[u8]| [b"{1}\n", line, b"\n{2}\n{3}\n"].concat();
        let sse = |event: &[u8]| [b"data: {1}\n\n", event, b"\n\ndata: {2}\n\ndata: {3}\n\n"].concat();
        for (is_sse, body) in [
            (false, json(&large)),
            (false, json(&large.repeat(3))),
            (true, sse(&large)),
            (true, sse(&[b"data: y\ndata:", &*large.repeat(3), b"\r\ndata: y\r\ndata: y"].concat())),
            (true, sse(&b"data: 0123456789\n".repeat(MAX_MESSAGE / 10))),
            (true, sse(&[&*large, b"\r\ndata: y\n", &large, b"\ndata:", &large].concat())),
        ] {
            for part in [1000, 65_537, MAX_MESSAGE, MAX_MESSAGE + 1, body.len()] {
                let found = all(is_sse, &body, part);
                let found: Vec<_> = found.iter().map(Option::as_deref).collect();
                assert_eq!(
                    found,
                    [Some("{1}"), None, Some("{2}"), Some("{3}")],
                    "SSE {is_sse}, parts of {part}"
                );
            }
        }
        assert_eq!(all(false, &json(&largest), 65_537).iter().flatten().count(), 4);
    }

    proptest! {
        #[test]
        fn no_body_panics(body: Vec<u8>, is_sse: bool, part in 1_usize..20) {
            all(is_sse, &body, part);
        }

        #[test]
        fn the_parts_make_no_difference(
            body in "(\u{feff}|data|:| |\r|\n|x){0,30}", is_sse: bool, part in 1_usize..10,
        ) {
            prop_assert_eq!(messages(is_sse, body.as_bytes(), part), messages(is_sse, body.as_bytes(), 1000));
        }
    }
}
