//! Every example of DT's page "Configuring a Data Connector" (`seed_examples.md`) runs as it stands, but
//! for ids, credentials and base URLs, and does what the page says.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use dt_receiver::emulator::Emulator;
use serde_json::{Value, json};

use crate::python::{python, script};
use crate::target::{Target, connect, device, publish};
use crate::wait::until;

const KEY: &str = "bjehn6sdm92f9pd7f4s0";
const SECRET: &str = "7daadb5e12d3440f9dc16dc2b2d6d3a4";
const EMAIL: &str = "bjehmkqhn6sdm92f9pd0@bh6l4qk23qgg02sd.serviceaccount.d21s.com";

/// Lets curl fail where the server says no; by itself it would not.
const FAILING_CURL: &str = "curl() { command curl --fail-with-body -sS \"$@\"; }";

/// One example: its title, its language, its code.
struct Example {
    title: String,
    language: String,
    code: String,
}

fn examples() -> Vec<Example> {
    let text = include_str!("seed_examples.md");
    let mut examples = Vec::new();
    for section in text.split("\n## ").skip(1) {
        let (title, rest) = section.split_once('\n').expect("a title");
        let (language, rest) =
            rest.trim_start().strip_prefix("```").expect("code").split_once('\n').expect("code");
        let (code, _) = rest.split_once("```").expect("an end");
        examples.push(Example {
            title: title.to_owned(),
            language: language.to_owned(),
            code: code.to_owned(),
        });
    }
    examples
}

/// What the page says of each: the part of the connector that is changed, and to what.
fn expected(title: &str) -> Option<(&'static str, Value)> {
    let topic = title.split(',').next().expect("a topic");
    Some(match topic {
        "disable a connector" => ("/status", json!("USER_DISABLED")),
        "forward two event types only" => ("/events", json!(["temperature", "humidity"])),
        "include two labels" => ("/labels", json!(["name", "floor"])),
        "add a header" => ("/httpConfig/headers", json!({"my-header": "my-value"})),
        "set a signature secret" => {
            let secret = if title.contains("cURL") { "some-good-secret" } else { "<YOUR_SECURE_SECRET>" };
            ("/httpConfig/signatureSecret", json!(secret))
        }
        "synchronize" => return None,
        other => panic!("{other} is not known here"),
    })
}

async fn run(command: &str, arguments: &[&str], input: String, url: &str) -> Output {
    let mut command = Command::new(command);
    command.args(arguments).env("EMULATOR_URL", url).env("NO_PROXY", "127.0.0.1");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = move || {
        let mut child = command.spawn().expect("it starts");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
        child.wait_with_output().expect("it ends")
    };
    tokio::task::spawn_blocking(run).await.expect("it ran")
}

/// Runs the examples of one language, each on a connector of its own.
async fn run_all(language: &str, python: &str) {
    let account = format!("{KEY}:{SECRET}:{EMAIL}").parse().expect("an account");
    let emulator = Emulator::builder().service_account(account).start().await.expect("it starts");
    let target = Target::start().await;
    let device = device(&emulator, "touch", &json!({}));
    publish(&emulator, &device, &json!({"touch": {}}));
    let examples: Vec<Example> =
        examples().into_iter().filter(|example| example.language == language).collect();
    assert_eq!(examples.len(), 6);
    for Example { title, code, .. } in examples {
        let more =
            json!({"httpConfig": {"url": target.url, "signatureSecret": "before", "headers": {"old": "1"}}});
        let path = connect(&emulator, &target.url, &more);
        let id = path.rsplit('/').next().expect("an id");
        let code = code
            .replace("https://api.d21s.com/v2", &emulator.api_url())
            .replace("<PROJECT_ID>", "p")
            .replace("<DATA_CONNECTOR_ID>", id)
            .replace("<SERVICE_ACCOUNT_KEY_ID>", KEY)
            .replace("<SERVICE_ACCOUNT_SECRET>", SECRET)
            .replace("<SERVICE_ACCOUNT_EMAIL>", EMAIL);
        let output = if language == "python" {
            let runner = script("run_example.py");
            run(python, &[runner.to_str().expect("UTF-8")], code, &emulator.url()).await
        } else {
            run(
                "sh",
                &["-es"],
                format!(
                    "{FAILING_CURL}
{code}"
                ),
                &emulator.url(),
            )
            .await
        };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{title}: {said} {}", String::from_utf8_lossy(&output.stderr));
        let shown = emulator.call("GET", &path, &json!(null)).expect("a connector");
        match expected(&title) {
            Some((pointer, value)) => {
                assert_eq!(shown.pointer(pointer), Some(&value), "{title}");
                assert_eq!(shown["httpConfig"]["url"], target.url, "{title}: the rest is as before");
                assert!(said.contains(id), "{title}: it shows the connector: {said}");
            }
            None => {
                until(|| (target.got().len() == 1).then_some(())).await;
                assert_eq!(target.types(), ["touch"], "{title}");
            }
        }
        emulator.call("DELETE", &path, &json!(null)).expect("deleted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_examples_run_as_they_stand() {
    let Some(python) = python() else { return };
    run_all("python", &python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_curl_examples_run_as_they_stand() {
    let found = Command::new("curl").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        assert!(std::env::var_os("DT_RECEIVER_TEST_REQUIRE_TOOLS").is_none(), "there is no curl");
        // Not a print macro: this line is to be seen although the test passes.
        let _said =
            std::io::stderr().write_all(b"tests/emulator leaves out the cURL examples: there is no curl\n");
        return;
    }
    run_all("bash", "").await;
}
