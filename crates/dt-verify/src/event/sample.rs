//! Bodies as DT sends them, for tests and for the tools that stand in for DT.

use serde_json::Value;

use super::dice::Dice;
use super::event_type::EventType;
use super::timestamp::rfc3339_micros;
use crate::xid;

/// What a made-up delivery is about.
///
/// The same sample always gives the same body; another `seed` gives other values.
///
/// # Examples
///
/// ```
/// use dt_verify::event::{EventType, Sample};
///
/// let sample = Sample {
///     event_type: EventType::Touch,
///     event_id: "c82gg9catj3vmh4248og",
///     project: "c0md3mm0c7pet3vico8g",
///     device: "emuc1ul5qf2ghkeoq4nj7d0",
///     unix_millis: 1_644_492_133_120,
///     seed: 0,
/// };
/// let body = sample.body();
/// assert!(body.starts_with(r#"{"event":{"eventId":"c82gg9catj3vmh4248og","targetName":"projects/"#));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample<'a> {
    /// The event type. One that is not known here gets a payload with `updateTime` and nothing else.
    pub event_type: EventType,
    /// The event's id. DT's are made by [`xid`].
    pub event_id: &'a str,
    /// The project's id.
    pub project: &'a str,
    /// The device's id. Those of emulated devices begin with `emu`, and have no product number.
    pub device: &'a str,
    /// When it happened, in Unix milliseconds.
    pub unix_millis: i64,
    /// What the values are made from.
    pub seed: u64,
}

impl Sample<'_> {
    /// Writes the body: compact JSON, members in the order that DT has them.
    #[must_use]
    pub fn body(&self) -> String {
        let mut dice = Dice(self.seed);
        let time = self.time_before(0, &mut dice);
        let device_type = self.device_type();
        let product = if self.device.starts_with("emu") { "" } else { product_number(device_type) };
        let labels = match dice.below(4) {
            0 => r#"{"name":"Møterom 3","floor":"2"}"#,
            1 => r#"{"name":"Cold store"}"#,
            _ => "{}",
        };
        format!(
            r#"{{"event":{{"eventId":{id},"targetName":{target},"eventType":{name},"data":{data},"timestamp":"{time}"}},"labels":{labels},"metadata":{{"deviceId":{device},"projectId":{project},"deviceType":"{device_type}","productNumber":"{product}"}}}}"#,
            id = quoted(self.event_id),
            target = quoted(&format!("projects/{}/devices/{}", self.project, self.device)),
            name = quoted(self.event_type.as_str()),
            data = self.data(&time, &mut dice),
            device = quoted(self.device),
            project = quoted(self.project),
        )
    }

    fn data(&self, time: &str, dice: &mut Dice) -> String {
        if self.event_type == EventType::LabelsChanged {
            let room = dice.below(400);
            return match dice.below(3) {
                0 => format!(r#"{{"added":{{"room":"{room}"}},"modified":{{}},"removed":[]}}"#),
                1 => format!(r#"{{"added":{{}},"modified":{{"room":"{room}"}},"removed":["floor"]}}"#),
                _ => r#"{"added":{},"modified":{},"removed":["room"]}"#.to_owned(),
            };
        }
        let name = quoted(self.event_type.as_str());
        match self.payload(time, dice) {
            members if members.is_empty() => format!(r#"{{{name}:{{"updateTime":"{time}"}}}}"#),
            members => format!(r#"{{{name}:{{{members},"updateTime":"{time}"}}}}"#),
        }
    }

    /// The members of the payload, save `updateTime`.
    fn payload(&self, time: &str, dice: &mut Dice) -> String {
        match &self.event_type {
            EventType::Touch | EventType::LabelsChanged | EventType::Other(_) => String::new(),
            EventType::Temperature => {
                let value = dice.tenths(-300, 600);
                let samples = self.samples(dice, time, |dice, time, first| {
                    let value = if first { value } else { dice.tenths(-300, 600) };
                    format!(r#"{{"value":{value},"sampleTime":"{time}"}}"#)
                });
                format!(r#""value":{value},"samples":[{samples}],"isBackfilled":false"#)
            }
            EventType::Humidity => {
                let now = (dice.tenths(-100, 500), dice.below(101));
                let samples = self.samples(dice, time, |dice, time, first| {
                    let (celsius, percent) =
                        if first { now } else { (dice.tenths(-100, 500), dice.below(101)) };
                    format!(
                        r#"{{"temperature":{celsius},"relativeHumidity":{percent},"sampleTime":"{time}"}}"#
                    )
                });
                let (celsius, percent) = now;
                format!(
                    r#""temperature":{celsius},"relativeHumidity":{percent},"samples":[{samples}],"isBackfilled":false"#
                )
            }
            EventType::ObjectPresent | EventType::WaterPresent => {
                state(dice.pick("PRESENT", &["NOT_PRESENT"]))
            }
            EventType::Motion => state(dice.pick("MOTION_DETECTED", &["NO_MOTION_DETECTED"])),
            EventType::Contact => state(dice.pick("OPEN", &["CLOSED"])),
            EventType::DeskOccupancy => {
                let state = state(dice.pick("OCCUPIED", &["NOT_OCCUPIED"]));
                format!(r#"{state},"remarks":{}"#, dice.pick("[]", &["[]", r#"["INCOMPLETE_DATA"]"#]))
            }
            EventType::ProbeWireStatus => state(dice.pick(
                "THREE_WIRE",
                &["TWO_WIRE", "FOUR_WIRE", "INVALID_WIRE_CONFIGURATION", "INVALID_COEFFICIENT_CONFIGURATION"],
            )),
            EventType::ObjectPresentCount | EventType::TouchCount => {
                format!(r#""total":{}"#, dice.below(100_000))
            }
            EventType::Co2 => format!(r#""ppm":{}"#, dice.from(400, 1_600)),
            EventType::Pressure => format!(r#""pascal":{}"#, dice.from(97_000, 6_000)),
            EventType::BatteryStatus => format!(r#""percentage":{}"#, dice.pick("100", &["90", "60", "10"])),
            EventType::NetworkStatus => {
                let (percent, rssi) = (dice.from(1, 100), dice.from(40, 70));
                let ccon = xid(1_500_000_000, dice.next().to_be_bytes());
                let mode = dice.pick("LOW_POWER_STANDARD_MODE", &["HIGH_POWER_BOOST_MODE"]);
                format!(
                    r#""signalStrength":{percent},"rssi":-{rssi},"cloudConnectors":[{{"id":"{ccon}","signalStrength":{percent},"rssi":-{rssi}}}],"transmissionMode":"{mode}""#
                )
            }
            EventType::ConnectionStatus => dice
                .pick(
                    r#""connection":"ETHERNET","available":["ETHERNET","CELLULAR"]"#,
                    &[
                        r#""connection":"CELLULAR","available":["CELLULAR"]"#,
                        r#""connection":"OFFLINE","available":[]"#,
                    ],
                )
                .to_owned(),
            EventType::EthernetStatus => {
                let ip = match dice.below(256) {
                    0 => String::new(),
                    host => format!("10.0.0.{host}"),
                };
                format!(
                    r#""macAddress":"f0:b5:b7:00:0a:{:02x}","ipAddress":"{ip}","errors":[]"#,
                    dice.below(256)
                )
            }
            EventType::CellularStatus => format!(r#""signalStrength":{},"errors":[]"#, dice.from(1, 100)),
        }
    }

    /// One to three samples, the newest first, five minutes apart.
    fn samples(
        &self,
        dice: &mut Dice,
        time: &str,
        mut sample: impl FnMut(&mut Dice, &str, bool) -> String,
    ) -> String {
        let mut samples = vec![sample(dice, time, true)];
        for back in 1..=dice.from(0, 3) {
            let time = self.time_before(back.saturating_mul(300_000), dice);
            samples.push(sample(dice, &time, false));
        }
        samples.join(",")
    }

    /// Six digits of a second, as DT has them: three of `unix_millis`, three made up.
    fn time_before(&self, millis: i64, dice: &mut Dice) -> String {
        let micros = self.unix_millis.saturating_sub(millis).saturating_mul(1_000);
        rfc3339_micros(micros.saturating_add(dice.from(0, 1_000)))
    }

    /// A device type that sends such events.
    const fn device_type(&self) -> &'static str {
        match self.event_type {
            EventType::Touch => "touch",
            EventType::ObjectPresent => "proximity",
            EventType::Humidity => "humidity",
            EventType::ObjectPresentCount => "proximityCounter",
            EventType::TouchCount => "touchCounter",
            EventType::WaterPresent => "waterDetector",
            EventType::Co2 | EventType::Pressure => "co2",
            EventType::Motion => "motion",
            EventType::DeskOccupancy => "deskOccupancy",
            EventType::Contact => "contact",
            EventType::ConnectionStatus | EventType::EthernetStatus | EventType::CellularStatus => "ccon",
            EventType::Temperature
            | EventType::ProbeWireStatus
            | EventType::BatteryStatus
            | EventType::NetworkStatus
            | EventType::LabelsChanged
            | EventType::Other(_) => "temperature",
        }
    }
}

/// Made up, of six digits.
fn product_number(device_type: &str) -> &'static str {
    match device_type {
        "temperature" => "100001",
        "ccon" => "100003",
        _ => "100002",
    }
}

fn state(state: &str) -> String {
    format!(r#""state":"{state}""#)
}

/// A JSON string.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
