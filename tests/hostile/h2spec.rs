//! h2spec, the conformance test of HTTP/2: it passes but for what is listed here, each with its reason.

use std::process::{Command, Stdio};

use crate::events::is_there;
use crate::siege::start;

/// The cases that fail, and why. A case that begins to pass has to leave the list.
const FAILING: [(&str, &str); 1] = [(
    "http2/3.5: Sends invalid connection preface",
    "what is no preface of HTTP/2 may be HTTP/1.1 on this port, and is answered so: 400, and closed",
)];

#[test]
fn http_2_is_spoken_as_specified() {
    let tool = std::env::var("DT_RECEIVER_TEST_H2SPEC").unwrap_or_else(|_| "h2spec".to_owned());
    let version = Command::new(&tool).arg("--version").stdout(Stdio::null()).status();
    if !is_there(version.is_ok(), "the tool `h2spec`", "that HTTP/2 is spoken as specified") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let receiver = start(folder.path(), "");
    let report = folder.path().join("h2spec.xml");
    let run = Command::new(&tool)
        .args([
            "--strict",
            "--timeout",
            "10",
            "--port",
            &receiver.listen.port().to_string(),
            "--junit-report",
        ])
        .arg(&report)
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    let report = std::fs::read_to_string(report).expect("a report");
    let failed: Vec<_> = failed_cases(&report);
    let output = String::from_utf8_lossy(&run.stdout);
    let counted = output.lines().rev().find(|line| line.contains(" passed")).unwrap_or_default();
    println!("h2spec: {counted}");
    assert!(report.matches("<testcase").count() > 140, "it did not run: {output}");
    assert_eq!(failed, FAILING.map(|(case, _reason)| case), "{output}");
    assert_eq!(receiver.stop().code(), 0);
}

/// Section and description of each case with a failure.
fn failed_cases(report: &str) -> Vec<String> {
    let attribute = |case: &str, name: &str| {
        let value = case
            .split_once(&format!("{name}=\""))
            .map(|(_, rest)| rest.split('"').next().unwrap_or_default());
        value.unwrap_or_default().to_owned()
    };
    report
        .split("<testcase ")
        .skip(1)
        .filter(|case| case.contains("<failure") || case.contains("<error"))
        .map(|case| format!("{}: {}", attribute(case, "package"), attribute(case, "classname")))
        .collect()
}
