//! DT's own Python client, unmodified, against the emulator.

use dt_receiver::emulator::Emulator;

use crate::python::{python, run};

async fn with_account() -> Emulator {
    Emulator::builder()
        .service_account("dev:dev-secret:dev@x.serviceaccount.d21s.com".parse().expect("an account"))
        .service_account(
            "user:user-secret:user@x.serviceaccount.d21s.com:project.user".parse().expect("an account"),
        )
        .start()
        .await
        .expect("it starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn dt_s_client_manages_connectors() {
    let Some(python) = python() else { return };
    run(python, "disruptive_check.py", &with_account().await, &["connectors"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dt_s_client_is_refused_as_by_dt() {
    let Some(python) = python() else { return };
    run(python, "disruptive_check.py", &with_account().await, &["errors"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dt_s_client_publishes_every_type_it_can_and_reads_it_back() {
    let Some(python) = python() else { return };
    run(python, "disruptive_check.py", &with_account().await, &["publish"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dt_s_client_manages_devices_and_labels() {
    let Some(python) = python() else { return };
    run(python, "disruptive_check.py", &with_account().await, &["devices"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dt_s_client_streams() {
    let Some(python) = python() else { return };
    run(python, "disruptive_check.py", &with_account().await, &["stream"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dt_s_client_reads_the_errors_of_a_stream() {
    let Some(python) = python() else { return };
    run(python, "disruptive_check.py", &with_account().await, &["stream-errors"]).await;
}
