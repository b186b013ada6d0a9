//! With `--log json` every line is JSON, on both outputs.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use serde_json::Value;
use tidings_testkit::{Connection, EventStream, Hub, Signal, binary};

use crate::lines::printed_to_the_end;

/// Checks that these are lines of a log, or events that `-v` prints.
#[track_caller]
fn assert_json(lines: &[impl AsRef<str>]) {
    assert!(!lines.is_empty());
    for line in lines.iter().map(AsRef::as_ref) {
        let parsed: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let is_event = parsed["data"].is_string();
        let is_log = parsed["timestamp"].is_string()
            && parsed["level"].is_string()
            && parsed["target"].is_string()
            && parsed["fields"]["message"].is_string();
        assert!(is_event || is_log, "{line}");
    }
}

#[tokio::test]
async fn every_line_of_a_hub_is_json() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("tidings.toml");
    let text =
        "[[key]]\nname = \"all\"\nsecret = \"a-secret-of-some-length\"\npublish = [\"*\"]\nadmin = true\n";
    fs::write(&config, text).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
    let args = ["serve", "--config", config.to_str().unwrap(), "--log", "json", "-v", "--access-log"];
    let more = ["--log-level", "debug", "--drain-delay-secs", "1h"];
    let hub = Hub::not_started([&args[..], &more].concat()).unwrap();
    let mut hub = hub.with_environment("TIDINGS_NO_SETTING", "1");
    hub.start_again().await.unwrap();

    let stream = EventStream::open(hub.address(), "/stream?topic=chat").await.unwrap();
    let key = "Authorization: Bearer a-secret-of-some-length";
    for (head, status) in [
        (format!("POST /topics/a%1B%0A%22\n{key}"), 400),
        (format!("POST /topics/chat\n{key}"), 200),
        ("POST /topics/chat\nAuthorization: Bearer wrong".to_owned(), 401),
        ("GET /%1B%0A%22".to_owned(), 404),
        ("GET /healthz\nOrigin: https://x.example".to_owned(), 200),
    ] {
        assert_eq!(hub.request(&head, b"two\nlines\x1b[2J").await.unwrap().status, status, "{head}");
    }
    let mut malformed = Connection::open(hub.address()).await.unwrap();
    malformed.send("\x1b\"\r\n\r\n").await.unwrap();
    malformed.rest().await.unwrap();
    drop(stream);
    hub.signal(Signal::USR1).unwrap();
    hub.printed("signal ignored").await.unwrap();
    fs::write(&config, "nonsense = \"\\u001b\\n\"").unwrap();
    hub.signal(Signal::HUP).unwrap();
    hub.printed("the configuration was not reloaded").await.unwrap();
    fs::write(&config, text).unwrap();
    hub.signal(Signal::HUP).unwrap();
    hub.printed("the configuration was reloaded").await.unwrap();
    hub.ask_to_stop().unwrap();
    hub.printed("not ready any more").await.unwrap();
    hub.signal(Signal::USR2).unwrap();
    hub.printed("the upgrade is refused").await.unwrap();
    let lines = printed_to_the_end(hub).await;
    assert_json(&lines);
    for part in [
        "TIDINGS_NO_SETTING",
        "other users of this machine can read this file",
        "two\\nlines",
        "credentials were refused",
        "a request was refused",
        "request refused",
        "stream ended",
        "draining connections",
    ] {
        assert!(lines.iter().any(|line| line.contains(part)), "{part} in {lines:#?}");
    }
}

#[test]
fn every_line_of_an_application_and_its_hub_is_json() {
    let script = r#"echo plain; echo '{"json":1}'; echo; printf 'a \033[31m\001\377\n' >&2; printf unfinished; exit 3"#;
    for (args, part) in [
        (&["run", "--restart", "never", "--", "sh", "-c", script][..], "the application has ended"),
        (&["run", "--", "/nowhere/program"], "cannot run"),
        (&["serve", "--store", "/dev/null"], "/dev/null"),
        (&["serve", "--heartbeat-secs", "0"], "heartbeat-secs"),
    ] {
        let mut command = Command::new(binary().unwrap());
        command.arg(args[0]).args(["--log", "json", "--listen", "127.0.0.1:0", "--log-level", "debug"]);
        let output = command.args(&args[1..]).env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        let output = output.output().unwrap();
        assert!(!output.status.success(), "{args:?}");
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8(printed).unwrap();
        assert!(printed.contains(part), "{part} in {printed}");
        assert_json(&printed.lines().collect::<Vec<_>>());
    }
}
