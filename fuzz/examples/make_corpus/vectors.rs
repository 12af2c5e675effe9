//! The committed vectors, and samples of events.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dt_receiver_fuzz::NOW;
use dt_receiver_fuzz::setups::VECTORS;
use dt_verify::event::{EventType, Sample};
use dt_verify::xid;
use serde_json::Value;

/// Longer seeds would slow down every mutation.
pub const MAX_SEED: usize = 6000;

pub fn vectors() -> Vec<Value> {
    let file: Value = serde_json::from_str(VECTORS).expect("the vectors are readable");
    file["vectors"].as_array().expect("a list").clone()
}

pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().expect("a text")
}

pub fn body_of(vector: &Value) -> Vec<u8> {
    STANDARD.decode(text(vector, "body_base64")).expect("base64")
}

pub fn sample(event_type: EventType, seed: u64, project: &str) -> String {
    let millis = NOW * 1000;
    let event_id = xid(NOW, seed.to_be_bytes());
    Sample {
        event_type,
        event_id: &event_id,
        project,
        device: "emuc1ul5qf2ghkeoq4nj7d0",
        unix_millis: millis,
        seed,
    }
    .body()
}
