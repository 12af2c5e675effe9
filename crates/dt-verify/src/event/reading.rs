//! Readings: the quantities that an event reports, as rows of quantity, unit, time and value, for databases and other consumers
//! that do not want a type for each event type.

use std::collections::BTreeSet;

use super::delivery::Delivery;
use super::sample::Sample;
use super::timestamp::Timestamp;
use super::types::EventType;

/// The units of readings.
pub(in crate::event) mod unit {
    pub const CELSIUS: Option<&str> = Some("°C");
    pub const PERCENT: Option<&str> = Some("%");
    pub const PARTS_PER_MILLION: Option<&str> = Some("ppm");
    pub const PASCAL: Option<&str> = Some("Pa");
    /// Decibel-milliwatts.
    pub const DBM: Option<&str> = Some("dBm");
}

/// One value that an event reports.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Reading<'a> {
    /// The name of the quantity: the name of DT's member where the payload has several, such as `relativeHumidity`, or else
    /// the event type, such as `temperature`.
    pub quantity: &'static str,
    /// The unit; `None` for counts and texts.
    pub unit: Option<&'static str>,
    /// When the value was measured: the first of the sample's `sampleTime`, the payload's `updateTime` and `event.timestamp` that
    /// is RFC 3339. `None` if none of them is, so a time in this field always has an [`instant`](Timestamp::instant).
    pub time: Option<&'a Timestamp>,
    /// The measured value, count or state.
    pub value: ReadingValue<'a>,
}

/// The value of a [`Reading`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum ReadingValue<'a> {
    /// A measured value, a count, or `1.0` for a touch. Always finite.
    Number(f64),
    /// A state such as `MOTION_DETECTED`, spelled as by DT and possibly unknown to this crate; or an IP address.
    Text(&'a str),
}

impl Reading<'_> {
    /// Returns the names of all quantities, in alphabetical order. They are determined from a sample of each event type.
    ///
    /// # Examples
    ///
    /// ```
    /// use dt_verify::event::Reading;
    ///
    /// assert!(Reading::quantities().contains(&"relativeHumidity"));
    /// ```
    #[must_use]
    pub fn quantities() -> Vec<&'static str> {
        let quantities = |event_type: &EventType| -> Vec<&'static str> {
            let event_type = event_type.clone();
            let body =
                Sample { event_type, event_id: "id", project: "p", device: "d", unix_millis: 0, seed: 0 }
                    .body();
            let delivery = Delivery::parse_stored(body.as_bytes()).ok();
            delivery.iter().flat_map(Delivery::readings).map(|reading| reading.quantity).collect()
        };
        let all: BTreeSet<&str> = EventType::KNOWN.iter().flat_map(quantities).collect();
        all.into_iter().collect()
    }

    /// Returns `true` if the value is a text that stays valid until the next reading: a state, or an IP address.
    #[must_use]
    pub const fn is_state(&self) -> bool {
        matches!(self.value, ReadingValue::Text(_))
    }
}

impl Delivery {
    /// Returns the readings of the event.
    ///
    /// | event type | quantities |
    /// |---|---|
    /// | `touch` | `touch`: always 1, without a unit |
    /// | `temperature` | `temperature` in °C, for each sample |
    /// | `humidity` | `temperature` in °C and `relativeHumidity` in %, for each sample |
    /// | `co2` | `co2` in ppm |
    /// | `pressure` | `pressure` in Pa |
    /// | `objectPresentCount`, `touchCount` | the same name: a total, without a unit |
    /// | `objectPresent`, `waterPresent`, `motion`, `deskOccupancy`, `contact`, `probeWireStatus` | the same name: a state |
    /// | `batteryStatus` | `batteryStatus` in % |
    /// | `networkStatus` | `signalStrength` in %, `rssi` in dBm, `transmissionMode`: a state |
    /// | `connectionStatus` | `connectionStatus`: a state, the connection in use |
    /// | `ethernetStatus` | `ipAddress`: a text, empty while there is none |
    /// | `cellularStatus` | `signalStrength` in % |
    /// | `labelsChanged`, unknown types, unreadable payloads | none |
    ///
    /// `docs/formats.md` has the same table. Samples are in DT's order, the newest first. Where the list of samples is empty or
    /// absent, the value beside it counts as the only sample.
    ///
    /// # Examples
    ///
    /// ```
    /// use dt_verify::event::{Delivery, ReadingValue};
    /// # use dt_verify::{Secret, Signer, Verifier};
    /// # let secret = Secret::new("some-good-secret").unwrap();
    /// # let verifier = Verifier::builder().secret("primary", secret.clone()).build().unwrap();
    /// let body = br#"{"event":{"eventId":"c82gg9catj3vmh4248og","targetName":"projects/p/devices/d","eventType":"co2",
    ///     "data":{"co2":{"ppm":526,"updateTime":"2022-02-10T11:22:13.123456Z"}}}}"#;
    /// # let token = Signer::secret(secret).sign(body, 1_700_000_000, "c82gg99hga35jc2afkeg").unwrap();
    /// # let headers = [("X-Dt-Signature", token)];
    /// let delivery = Delivery::parse(&verifier.verify(&headers, body, 1_700_000_001).unwrap()).unwrap();
    /// let [reading] = delivery.readings()[..] else { panic!("one value") };
    /// assert_eq!((reading.quantity, reading.unit), ("co2", Some("ppm")));
    /// assert_eq!(reading.value, ReadingValue::Number(526.0));
    /// assert_eq!(reading.time.and_then(|time| time.unix_nanos()), Some(1_644_492_133_123_456_000));
    /// ```
    #[must_use]
    pub fn readings(&self) -> Vec<Reading<'_>> {
        let times = [self.event.data.update_time(), self.event.timestamp.as_ref()];
        let mut readings = Readings { time: times.into_iter().find_map(Readings::instant), list: Vec::new() };
        self.event.data.report(&mut readings);
        readings.list
    }
}

/// Collects the readings of a payload.
pub struct Readings<'a> {
    /// The time of readings that have no time of their own: `updateTime`, else `event.timestamp`.
    time: Option<&'a Timestamp>,
    list: Vec<Reading<'a>>,
}

impl<'a> Readings<'a> {
    /// Adds a number, measured at the time of the event.
    pub(in crate::event) fn number(
        &mut self,
        quantity: &'static str,
        unit: Option<&'static str>,
        value: f64,
    ) {
        self.add(quantity, unit, None, ReadingValue::Number(value));
    }

    /// Adds a total, which has no unit.
    pub(in crate::event) fn count(&mut self, quantity: &'static str, total: i64) {
        #[expect(clippy::cast_precision_loss, reason = "exact below 2^53, which no sensor reaches")]
        self.number(quantity, None, total as f64);
    }

    /// Adds the number of a sample, measured at `sample_time`.
    pub(in crate::event) fn sample(
        &mut self,
        quantity: &'static str,
        unit: Option<&'static str>,
        sample_time: Option<&'a Timestamp>,
        value: f64,
    ) {
        self.add(quantity, unit, sample_time, ReadingValue::Number(value));
    }

    /// Adds a text, which has no unit.
    pub(in crate::event) fn text(&mut self, quantity: &'static str, text: &'a str) {
        self.add(quantity, None, None, ReadingValue::Text(text));
    }

    fn add(
        &mut self,
        quantity: &'static str,
        unit: Option<&'static str>,
        time: Option<&'a Timestamp>,
        value: ReadingValue<'a>,
    ) {
        let time = Self::instant(time).or(self.time);
        self.list.push(Reading { quantity, unit, time, value });
    }

    /// Returns the time if it is RFC 3339, and otherwise `None`.
    fn instant(time: Option<&'a Timestamp>) -> Option<&'a Timestamp> {
        time.filter(|time| time.instant().is_some())
    }
}
