//! Lists the devices of a project with the time of the newest event of each.
//!
//! ```console
//! $ export DT_SERVICE_ACCOUNT_KEY_ID=… DT_SERVICE_ACCOUNT_SECRET=… DT_SERVICE_ACCOUNT_EMAIL=…
//! $ cargo run -p dt-api --example list_devices -- c0md3mm0c7pet3vico8g
//! ```

#![allow(clippy::print_stdout, reason = "an example")]

use std::env::{args, var};
use std::error::Error;

use dt_api::{Client, Credentials, DT_API_URL, DT_TOKEN_ENDPOINT, DeviceQuery};
use dt_verify::Secret;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let project = args().nth(1).ok_or("expected the id of a project")?;
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

    let mut pages = client.devices(&project, &DeviceQuery::new().page_size(100))?;
    while let Some(devices) = pages.next().await? {
        for device in devices {
            let reported = device.reported.iter().flat_map(dt_api::Reported::iter);
            let newest = reported.filter_map(|(_, event)| event.update_time.as_ref()).max();
            let newest = newest.map_or("never", |time| time.as_str());
            let name = device.labels.get("name").map_or("", String::as_str);
            println!("{}  {:16}  {newest:27}  {name}", device.id(), device.device_type);
        }
    }
    Ok(())
}
