//! Walks through the event history of a device, in windows of a day.
//!
//! ```console
//! $ export DT_SERVICE_ACCOUNT_KEY_ID=… DT_SERVICE_ACCOUNT_SECRET=… DT_SERVICE_ACCOUNT_EMAIL=…
//! $ cargo run -p dt-api --example walk_history -- c0md3mm0c7pet3vico8g c0pppd1qdqebrvv1iqp0 7
//! ```

#![allow(clippy::print_stdout, reason = "an example")]

use std::collections::HashSet;
use std::env::{args, var};
use std::error::Error;
use std::time::SystemTime;

use dt_api::{Client, Credentials, DT_API_URL, DT_TOKEN_ENDPOINT, HistoryQuery};
use dt_verify::Secret;
use dt_verify::event::Timestamp;

const DAY: i64 = 24 * 3600;

/// DT indexes events with a delay of up to 10 s, so windows overlap by that time.
const OVERLAP: i64 = 10;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = args().skip(1);
    let project = arguments.next().ok_or("expected the id of a project")?;
    let device = arguments.next().ok_or("expected the id of a device")?;
    let days: i64 = arguments.next().map_or(Ok(1), |days| days.parse())?;
    let secret = Secret::new(var("DT_SERVICE_ACCOUNT_SECRET")?)?;
    let credentials = Credentials::service_account(
        var("DT_SERVICE_ACCOUNT_KEY_ID")?,
        secret,
        var("DT_SERVICE_ACCOUNT_EMAIL")?,
    );
    let client = Client::builder(credentials)
        .api_url(var("DT_API_URL").unwrap_or_else(|_| DT_API_URL.to_owned()))
        .token_endpoint(var("DT_OIDC_TOKEN_ENDPOINT").unwrap_or_else(|_| DT_TOKEN_ENDPOINT.to_owned()))
        .build()?;

    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let now = i64::try_from(now.as_secs())?;
    let mut ids = HashSet::new();
    // DT keeps 31 days.
    for day in (0..days.clamp(1, 31)).rev() {
        let end = now.saturating_sub(DAY.saturating_mul(day));
        let start = end.saturating_sub(DAY).saturating_sub(OVERLAP);
        let window =
            HistoryQuery::new().from(&Timestamp::from_unix(start, 0)).until(&Timestamp::from_unix(end, 0));
        let mut pages = client.history(&project, &device, &window)?;
        while let Some(events) = pages.next().await? {
            for event in events {
                if ids.insert(event.event_id.clone()) {
                    println!("{}", event.raw.get());
                }
            }
        }
    }
    Ok(())
}
