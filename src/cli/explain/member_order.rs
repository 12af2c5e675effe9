//! Restores the order of members in re-serialised JSON, which maps with sorted keys change. DT's order of members is known,
//! except that of labels, which is the user's.

use serde_json::Value;

use super::json_text::respaced;
use dt_verify::event::{EventType, Sample};

/// The largest depth of nested JSON that is parsed. DT's bodies have a depth of six.
const MAX_DEPTH: usize = 32;

/// The largest number of labels for which every order is tried; four labels have 24 orders.
const MAX_LABELS: usize = 4;

/// Returns the body as DT writes it: compact, with its members in DT's order, and with labels in each order.
pub fn as_dt_orders(body: &[u8]) -> Vec<Vec<u8>> {
    let compact = respaced(body, b"");
    let Ok(text) = std::str::from_utf8(&compact) else { return Vec::new() };
    let Some(node) = Node::parse(text) else { return Vec::new() };
    let template = template(body);
    let ordered = node.ordered_like(Node::parse(&template).as_ref());
    ordered.with_labels_in_any_order().iter().map(|node| node.text().into_bytes()).collect()
}

/// Returns a sample body of the same event type as `body`.
fn template(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let event_type = body.pointer("/event/eventType").and_then(Value::as_str).unwrap_or_default();
    let event_type = EventType::from(event_type);
    Sample { event_type, event_id: "", project: "", device: "", unix_millis: 0, seed: 0 }.body()
}

/// A JSON value without white space, which keeps the spelling of every key and value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node<'t> {
    Object(Vec<(&'t str, Self)>),
    Array(Vec<Self>),
    Plain(&'t str),
}

impl<'t> Node<'t> {
    /// Parses compact JSON; `None` if the text is not JSON.
    fn parse(text: &'t str) -> Option<Self> {
        let mut parser = Parser { rest: text };
        let node = parser.value(MAX_DEPTH)?;
        parser.rest.is_empty().then_some(node)
    }

    /// Sorts the members of each object in the order of `template`. Members that `template` does not have are last.
    fn ordered_like(self, template: Option<&Self>) -> Self {
        match self {
            Self::Object(mut members) => {
                let expected = match template {
                    Some(Self::Object(expected)) => expected.as_slice(),
                    _ => &[],
                };
                let rank =
                    |key: &str| expected.iter().position(|(name, _)| *name == key).unwrap_or(usize::MAX);
                members.sort_by_key(|(key, _)| rank(key));
                let ordered = members.into_iter().map(|(key, value)| {
                    let below = expected.iter().find(|(name, _)| *name == key).map(|(_, template)| template);
                    (key, value.ordered_like(below))
                });
                Self::Object(ordered.collect())
            }
            Self::Array(items) => {
                let below = match template {
                    Some(Self::Array(items)) => items.first(),
                    _ => None,
                };
                Self::Array(items.into_iter().map(|item| item.ordered_like(below)).collect())
            }
            plain @ Self::Plain(_) => plain,
        }
    }

    /// Returns a copy of the value for each order of the labels.
    fn with_labels_in_any_order(self) -> Vec<Self> {
        let Self::Object(members) = &self else { return vec![self] };
        let labels = members.iter().position(|(key, _)| *key == "\"labels\"");
        let Some((at, (_, Self::Object(labels)))) = labels.and_then(|at| Some((at, members.get(at)?))) else {
            return vec![self];
        };
        if labels.len() > MAX_LABELS {
            return vec![self];
        }
        let with = |labels| {
            let mut members = members.clone();
            if let Some((_, value)) = members.get_mut(at) {
                *value = Self::Object(labels);
            }
            Self::Object(members)
        };
        orders(labels).into_iter().map(with).collect()
    }

    fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Plain(text) => out.push_str(text),
            Self::Array(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (at, (key, value)) in members.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    out.push_str(key);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

/// Returns all permutations of the items.
fn orders<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    let Some((first, rest)) = items.split_first() else { return vec![Vec::new()] };
    let insert = |order: Vec<T>| {
        (0..=order.len()).map(move |at| {
            let mut longer = order.clone();
            longer.insert(at, first.clone());
            longer
        })
    };
    orders(rest).into_iter().flat_map(insert).collect()
}

struct Parser<'t> {
    rest: &'t str,
}

impl<'t> Parser<'t> {
    fn eat(&mut self, c: char) -> bool {
        let rest = self.rest.strip_prefix(c);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn take(&mut self, length: usize) -> Option<&'t str> {
        let (taken, rest) = self.rest.split_at_checked(length).filter(|(taken, _)| !taken.is_empty())?;
        self.rest = rest;
        Some(taken)
    }

    /// Parses a string and returns it with its quotes; `None` if there is no complete string at this position.
    fn string(&mut self) -> Option<&'t str> {
        let mut escaped = false;
        let inside = self.rest.strip_prefix('"')?;
        let end = inside.bytes().position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        })?;
        self.take(end.saturating_add(2))
    }

    fn value(&mut self, depth: usize) -> Option<Node<'t>> {
        let below = depth.checked_sub(1)?;
        if self.eat('{') {
            let mut members = Vec::new();
            while !self.eat('}') {
                if !members.is_empty() && !self.eat(',') {
                    return None;
                }
                let key = self.string()?;
                members.push((key, if self.eat(':') { self.value(below)? } else { return None }));
            }
            return Some(Node::Object(members));
        }
        if self.eat('[') {
            let mut items = Vec::new();
            while !self.eat(']') {
                if !items.is_empty() && !self.eat(',') {
                    return None;
                }
                items.push(self.value(below)?);
            }
            return Some(Node::Array(items));
        }
        if self.rest.starts_with('"') {
            return self.string().map(Node::Plain);
        }
        let end = self.rest.find([',', ']', '}']).unwrap_or(self.rest.len());
        self.take(end).map(Node::Plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_survive_and_what_is_no_json_is_left_alone() {
        for text in [r#"{"a":[1.0,"\"}",{}],"b":{"c":null}}"#, "[]", "12e3", r#""x""#] {
            assert_eq!(Node::parse(text).map(|node| node.text()).as_deref(), Some(text));
        }
        for text in ["", "{", "{\"a\"}", "[1", "{\"a\":1]", "[1}", "\"x", "{,}", &"[".repeat(100_000)] {
            assert_eq!(Node::parse(text), None);
        }
    }

    #[test]
    fn labels_come_in_every_order() {
        let bodies = as_dt_orders(br#"{ "metadata": {}, "labels": {"b": 1, "a": 2}, "event": {} }"#);
        let bodies: Vec<_> = bodies.iter().map(|body| String::from_utf8_lossy(body).into_owned()).collect();
        let with = |labels: &str| format!(r#"{{"event":{{}},"labels":{{{labels}}},"metadata":{{}}}}"#);
        assert_eq!(bodies, [with(r#""b":1,"a":2"#), with(r#""a":2,"b":1"#)]);
        assert_eq!(orders(&[1, 2, 3, 4]).len(), 24);
    }
}
