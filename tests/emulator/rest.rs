//! What DT's own clients rely on in DT's REST API: filters, orders, lists that are emptied, history in time order.

use dt_receiver::emulator::Emulator;
use serde_json::{Value, json};

use crate::target::connect;

async fn emulator() -> Emulator {
    Emulator::builder().start().await.expect("it starts")
}

/// DT's Terraform provider sends `null` for an empty list.
#[tokio::test]
async fn null_empties_the_lists_of_a_connector() {
    let emulator = emulator().await;
    let lists = json!({"events": ["touch"], "labels": ["name"], "displayName": "kept"});
    let connector = connect(&emulator, "http://127.0.0.1:9/", &lists);
    let patch = |body: Value| emulator.call("PATCH", &connector, &body).expect("changed");
    let shown = patch(json!({"events": null, "displayName": null}));
    assert_eq!((&shown["events"], &shown["labels"]), (&json!([]), &json!(["name"])));
    let shown = patch(json!({"labels": null}));
    assert_eq!(shown["labels"], json!([]));
    assert_eq!(shown["displayName"], "kept", "null empties lists only");
}
