//! Formats measured values with units.

use serde_json::Value;

/// The event types that the demo shows: measurements and state changes of sensors.
pub const SHOWN: [&str; 8] =
    ["temperature", "humidity", "co2", "pressure", "objectPresent", "contact", "motion", "touch"];

/// Formats the payload of an event, which is the member of `event.data` with the name of the event type, such as `22.25 °C`.
/// Returns the JSON of any other payload.
pub fn describe(event_type: &str, payload: &Value) -> String {
    let number = |member: &str| payload.get(member).and_then(Value::as_f64);
    let described = match event_type {
        "temperature" => number("value").map(celsius),
        "humidity" => {
            let percent = number("relativeHumidity");
            percent
                .zip(number("temperature"))
                .map(|(percent, degrees)| format!("{percent:>7.2} % RH  {}", celsius(degrees).trim_start()))
        }
        "co2" => number("ppm").map(|ppm| format!("{ppm:>7.0} ppm")),
        "pressure" => number("pascal").map(|pascal| format!("{:>7.2} hPa", pascal / 100.0)),
        "touch" => Some("touched".to_owned()),
        _ => payload.get("state").and_then(Value::as_str).map(|state| state.to_lowercase().replace('_', " ")),
    };
    described.unwrap_or_else(|| payload.to_string())
}

/// Formats a temperature in °C.
pub fn celsius(degrees: f64) -> String {
    format!("{degrees:>7.2} °C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_have_units() {
        for (event_type, payload, text) in [
            ("temperature", json!({"value": 22.25}), "  22.25 °C"),
            ("temperature", json!({"value": -4}), "  -4.00 °C"),
            ("humidity", json!({"relativeHumidity": 43.5, "temperature": 21}), "  43.50 % RH  21.00 °C"),
            ("co2", json!({"ppm": 612}), "    612 ppm"),
            ("pressure", json!({"pascal": 100_340}), "1003.40 hPa"),
            ("touch", json!({}), "touched"),
            ("motion", json!({"state": "NO_MOTION_DETECTED"}), "no motion detected"),
            ("temperature", json!({"value": "warm"}), r#"{"value":"warm"}"#),
            ("smell", json!({"kind": 1}), r#"{"kind":1}"#),
        ] {
            assert_eq!(describe(event_type, &payload), text);
        }
    }
}
