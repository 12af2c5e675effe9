//! What is in a topic, held against what was sent.

use std::collections::BTreeMap;

use crate::cluster::Message;
use crate::events::{body, id, parse_id};
use crate::load::Ledger;

/// What was sent, as it looks in one of the formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Body,
    Envelope,
    CloudEvents,
}

/// The events of a topic, each of which was exactly as it should be.
#[derive(Debug)]
pub(crate) struct Seen {
    /// How often each event is there.
    copies: BTreeMap<(u64, u64), u64>,
    /// The first copy of each event of a device, in the order of the topic.
    first: BTreeMap<u64, Vec<u64>>,
}

impl Seen {
    /// Looks at every message: bytes, key and headers.
    pub(crate) fn new(messages: &[Message], format: Format) -> Self {
        let mut seen = Self { copies: BTreeMap::new(), first: BTreeMap::new() };
        let mut partitions = BTreeMap::new();
        for message in messages {
            let text = std::str::from_utf8(&message.value).expect("text");
            let (device, number) = parse_id(text).unwrap_or_else(|| panic!("no event of ours: {text}"));
            check(message, format, device, number);
            let partition = partitions.entry(device).or_insert(message.partition);
            assert_eq!(*partition, message.partition, "dev{device} is in two partitions");
            let copies = seen.copies.entry((device, number)).or_default();
            *copies += 1;
            if *copies == 1 {
                seen.first.entry(device).or_default().push(number);
            }
        }
        seen
    }

    /// Nothing that was acknowledged is missing, and what was acknowledged of a device is in its order, by first copies.
    /// Gives how many copies there are too many.
    pub(crate) fn assert_complete(&self, ledger: &Ledger) -> u64 {
        let missing: Vec<_> =
            ledger.accepted.iter().filter(|event| !self.copies.contains_key(event)).collect();
        assert!(missing.is_empty(), "{} acknowledged events are lost: {missing:?}", missing.len());
        for (device, numbers) in &self.first {
            // One that was answered with 503 and never sent again has no place in the order; it may still arrive, late.
            let accepted = numbers.iter().filter(|number| ledger.accepted.contains(&(*device, **number)));
            let numbers: Vec<u64> = accepted.copied().collect();
            let odd = numbers.windows(2).find(|pair| pair[0] >= pair[1]);
            assert_eq!(odd, None, "dev{device} is out of order");
        }
        self.copies.values().map(|copies| copies - 1).sum()
    }

    /// The same, and nothing else is there, and all of it once.
    pub(crate) fn assert_exact(&self, ledger: &Ledger) {
        assert_eq!(self.assert_complete(ledger), 0, "there are copies");
        assert_eq!(self.copies.len(), ledger.count(), "there is more than was acknowledged");
    }
}

fn check(message: &Message, format: Format, device: u64, number: u64) {
    let body = body(device, number);
    let text = std::str::from_utf8(&message.value).expect("text");
    let received_at = message.header("dt-received-at");
    match format {
        Format::Body | Format::CloudEvents => assert_eq!(text, body),
        Format::Envelope => {
            let rest = text.strip_suffix(&body[1..]).unwrap_or_else(|| panic!("not what was sent: {text}"));
            let before =
                format!(r#"{{"receivedAt":"{received_at}","connector":"default","verifiedBy":"secret:"#);
            assert!(rest.starts_with(&before), "{text}");
        }
    }
    assert_eq!(message.key.as_deref(), Some(&*format!("dev{device}")));
    assert_eq!(message.header("dt-event-id"), id(device, number));
    assert_eq!(message.header("dt-event-type"), "touch");
    assert_eq!(message.header("dt-connector"), "default");
    let received: jiff::Timestamp = received_at.parse().expect("RFC 3339");
    assert_eq!(received.as_millisecond(), message.timestamp);
    if format == Format::CloudEvents {
        let event = message.event.as_ref().expect("read by the SDK");
        assert_eq!(event["id"], id(device, number));
        assert_eq!(event["specversion"], "1.0");
        assert_eq!(event["type"], "com.disruptive-technologies.touch");
        assert_eq!(event["source"], "//disruptive-technologies.com/projects/p");
        assert_eq!(event["subject"], format!("projects/p/devices/dev{device}"));
        assert_eq!(event["datacontenttype"], "application/json");
        let sent: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(event["data"], sent);
        assert_eq!(message.header("ce_id"), id(device, number));
    } else {
        assert!(message.headers.iter().all(|(name, _)| !name.starts_with("ce_")), "{:?}", message.headers);
    }
}
