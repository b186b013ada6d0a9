//! TLS: certificates, handshakes, and streams that a shard encrypts.

#![cfg(unix)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;
use tidings_testkit::{Certificate, Connection, EventStream, Hub, TlsClient, binary};

/// A hub with a certificate for 127.0.0.1, and clients that trust it.
struct Encrypted {
    hub: Hub,
    client: TlsClient,
    certificate: Certificate,
    _folder: TempDir,
}

impl Encrypted {
    async fn start(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let certificate = Certificate::create(folder.path(), "hub", &["127.0.0.1"]).unwrap();
        let [file, key] = [&certificate.certificate, &certificate.key].map(|path| path.to_str().unwrap());
        let hub = Hub::serve(&[&["--tls-certificate", file, "--tls-key", key], args].concat()).await.unwrap();
        let client = TlsClient::trusting(&certificate.certificate).unwrap();
        Self { hub, client, certificate, _folder: folder }
    }

    async fn connect(&self) -> Connection {
        Connection::open_tls(self.hub.address(), &self.client, "127.0.0.1").await.unwrap()
    }

    async fn stream(&self, target: &str) -> EventStream {
        EventStream::on(self.connect().await, target, &[]).await.unwrap()
    }

    async fn publish(&self, data: &str) {
        let mut connection = self.connect().await;
        connection.request("POST /topics/chat", data.as_bytes()).await.unwrap();
        let response = connection.response().await.unwrap();
        assert_eq!(response.status, 200, "{response}");
    }

    fn curl(&self, args: &[&str]) -> std::process::Output {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "30", "--cacert"]);
        command.arg(&self.certificate.certificate).args(args).output().unwrap()
    }

    fn url(&self, path: &str) -> String {
        self.hub.url(path).replace("http://", "https://")
    }
}

const STREAM: &str = "/stream?topic=chat";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_receive_live_replayed_and_large_events_with_each_version() {
    let mut encrypted = Encrypted::start(&[]).await;
    assert!(encrypted.hub.printed("listening").await.unwrap().contains("https://127.0.0.1:"));
    let large = "x".repeat(1 << 20);
    let older = TlsClient::of_tls_1_2(&encrypted.certificate.certificate).unwrap();
    for client in [older, encrypted.client.clone()] {
        encrypted.client = client;
        let mut live = encrypted.stream(STREAM).await;
        let mut also_live = encrypted.stream(STREAM).await;
        for data in ["small", &large, "after"] {
            encrypted.publish(data).await;
            assert!(live.next().await.unwrap().data == data);
        }
        let mut replayed = encrypted.stream("/stream?topic=chat&since=-3").await;
        for stream in [&mut also_live, &mut replayed] {
            let received = stream.messages(3).await.unwrap();
            assert!(received == ["small", &large, "after"]);
        }
    }
    encrypted.hub.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_receives_every_event_in_the_end() {
    // On a loaded machine the hub must not take readers for dead that read nothing until the end.
    let mut encrypted = Encrypted::start(&["--dead-peer-secs", "600"]).await;
    let address = encrypted.hub.address();
    let mut slow = Vec::new();
    for _ in 0..3 {
        let narrow = Connection::open_narrow(address, 4096).await.unwrap();
        let connection = narrow.encrypt(&encrypted.client, "127.0.0.1").await.unwrap();
        slow.push(EventStream::on(connection, STREAM, &[]).await.unwrap());
    }
    let mut quick = encrypted.stream(STREAM).await;
    let events: Vec<_> = (0..200).map(|number| format!("{number}:{}", "x".repeat(20_000))).collect();
    for event in &events {
        encrypted.publish(event).await;
        assert!(quick.next().await.unwrap().data == *event, "the slow ones do not delay it");
    }
    for stream in &mut slow {
        assert!(stream.messages(events.len()).await.unwrap() == events);
    }
    encrypted.hub.stop().await.unwrap();
}

#[tokio::test]
async fn a_client_that_ends_its_side_receives_what_is_due_and_the_end() {
    let mut encrypted = Encrypted::start(&[]).await;
    encrypted.publish("one").await;
    let mut stream = encrypted.stream("/stream?topic=chat&since=earliest").await;
    assert_eq!(stream.messages(1).await.unwrap(), ["one"]);
    stream.connection().finish_sending().await.unwrap();
    assert!(stream.next_or_end().await.unwrap().is_none(), "a clean end");
    encrypted.hub.stop().await.unwrap();
}

/// RFC 8446, 4.6.3.
#[tokio::test]
async fn a_subscriber_may_change_its_keys() {
    let mut encrypted = Encrypted::start(&[]).await;
    let mut stream = encrypted.stream(STREAM).await;
    for number in 0..5 {
        stream.connection().update_keys().await.unwrap();
        encrypted.publish(&number.to_string()).await;
        assert_eq!(stream.messages(1).await.unwrap(), [number.to_string()]);
    }
    encrypted.hub.stop().await.unwrap();
}

#[tokio::test]
async fn a_subscriber_that_sends_garbage_is_disconnected_and_no_other() {
    let mut encrypted = Encrypted::start(&[]).await;
    let mut other = encrypted.stream(STREAM).await;
    let mut stream = encrypted.stream(STREAM).await;
    stream
        .connection()
        .send_unencrypted(b"\x17\x03\x03\x00\x20garbage garbage garbage garbage!")
        .await
        .unwrap();
    stream.next_or_end().await.unwrap_err();
    encrypted.publish("one").await;
    assert_eq!(other.messages(1).await.unwrap(), ["one"]);
    encrypted.hub.stop().await.unwrap();
}

#[tokio::test]
async fn a_subscriber_that_sends_without_end_is_disconnected() {
    let mut encrypted = Encrypted::start(&[]).await;
    let mut stream = encrypted.stream(STREAM).await;
    // The hub may be quicker than the last of it.
    let _ = stream.connection().send(vec![b'x'; 1 << 20]).await;
    stream.next_or_end().await.unwrap_err();
    encrypted.hub.stop().await.unwrap();
}

#[tokio::test]
async fn http_2_is_negotiated_unless_it_is_disabled() {
    for (http2, protocol, version) in [("true", "h2", "2"), ("false", "http/1.1", "1.1")] {
        let mut encrypted = Encrypted::start(&["--http2", http2]).await;
        let client = encrypted.client.clone().offering(&["h2", "http/1.1"]);
        let connection = Connection::open_tls(encrypted.hub.address(), &client, "127.0.0.1").await.unwrap();
        assert_eq!(connection.protocol().as_deref(), Some(protocol));
        let output = encrypted.curl(&[
            "--http2",
            "--write-out",
            "%{http_version}",
            "-o",
            "/dev/null",
            &encrypted.url("/"),
        ]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), version, "{output:?}");
        // A stream over HTTP/2, and the event of another connection.
        encrypted.publish("one").await;
        let output = encrypted.curl(&[
            "--http2",
            "--max-time",
            "2",
            &encrypted.url("/stream?topic=chat&since=earliest"),
        ]);
        assert!(String::from_utf8_lossy(&output.stdout).contains("data: one\n"), "{output:?}");
        encrypted.hub.stop().await.unwrap();
    }
}

#[tokio::test]
async fn each_name_gets_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let create = |name: &str, hosts: &[&str]| Certificate::create(folder.path(), name, hosts).unwrap();
    let first = create("first", &["a.test", "127.0.0.1"]);
    let second = create("second", &["b.test", "*.c.test"]);
    let table = |name: &str| {
        format!("[[certificate]]\ncertificate_file = \"{name}.pem\"\nkey_file = \"{name}.key\"\n")
    };
    let file = folder.path().join("tidings.toml");
    let hosts = "allow_host = [\"a.test\", \"b.test\", \"*.c.test\"]\n";
    fs::write(&file, format!("{hosts}{}{}", table("first"), table("second"))).unwrap();
    let mut hub = Hub::serve(&["--config", file.to_str().unwrap()]).await.unwrap();
    for (host, certificate) in
        [("a.test", &first), ("b.test", &second), ("x.c.test", &second), ("127.0.0.1", &first)]
    {
        let client = TlsClient::trusting(&certificate.certificate).unwrap();
        let mut connection = Connection::open_tls(hub.address(), &client, host).await.unwrap();
        connection.request("GET /healthz", b"").await.unwrap();
        assert_eq!(connection.response().await.unwrap().status, 200, "{host}");
    }
    let other = TlsClient::trusting(&second.certificate).unwrap();
    Connection::open_tls(hub.address(), &other, "a.test").await.unwrap_err();
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn versions_before_tls_1_2_are_refused() {
    let mut encrypted = Encrypted::start(&[]).await;
    let weak = ["--ciphers", "DEFAULT@SECLEVEL=0", "--tls-max"];
    for (version, is_accepted) in [("1.1", false), ("1.2", true)] {
        let output = encrypted.curl(&[&weak[..], &[version, &encrypted.url("/healthz")]].concat());
        assert_eq!(output.status.success(), is_accepted, "TLS {version}: {output:?}");
    }
    encrypted.hub.stop().await.unwrap();
}

#[tokio::test]
async fn plain_http_on_a_port_with_tls_is_answered_400() {
    let mut encrypted = Encrypted::start(&[]).await;
    let answer = encrypted.hub.request("POST /topics/chat", b"hello").await.unwrap();
    assert_eq!(answer.status, 400, "{answer}");
    assert!(answer.text().contains("https://"), "{answer}");
    encrypted.hub.stop().await.unwrap();
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_given_up() {
    let times = ["--first-byte-secs", "1", "--request-headers-secs", "2"];
    let mut encrypted = Encrypted::start(&times).await;
    // Nothing at all; the beginning of a record; no TLS.
    for bytes in [&b""[..], b"\x16\x03\x01\x02\x00\x01", b"\0\0\0\0\0\0\0\0\0"] {
        let mut connection = Connection::open(encrypted.hub.address()).await.unwrap();
        connection.send(bytes).await.unwrap();
        let rest = connection.rest().await.unwrap();
        assert!(rest.len() < 32, "no more than an alert: {rest:?}");
    }
    encrypted.hub.stop().await.unwrap();
}

/// What `tidings serve` prints on its errors, and its exit code.
fn refused(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(binary().unwrap())
        .args(["serve", "--listen", "127.0.0.1:0"])
        .args(args)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_file_that_cannot_be_used_is_one_line_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let create = |name: &str| Certificate::create(folder.path(), name, &["127.0.0.1"]).unwrap();
    let [one, other] = ["one", "other"].map(create);
    let text = folder.path().join("text");
    fs::write(&text, "hello").unwrap();
    let missing = folder.path().join("missing");
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    for (certificate, key, named) in [
        (&missing, &one.key, &missing),
        (&one.certificate, &missing, &missing),
        (&text, &one.key, &text),
        (&one.certificate, &text, &text),
        (&one.certificate, &other.key, &other.key),
    ] {
        for check in [&[][..], &["--check"]] {
            let files = ["--tls-certificate", &path(certificate), "--tls-key", &path(key)];
            let (code, printed) = refused(&[&files[..], check].concat());
            assert_eq!(code, Some(2), "{printed}");
            assert!(printed.contains(&path(named)) && printed.lines().count() == 1, "{printed}");
        }
    }
    let (code, printed) = refused(&["--tls-certificate", &path(&one.certificate)]);
    assert!(code == Some(2) && printed.contains("tls_key") && printed.lines().count() == 1, "{printed}");
    let (code, printed) = refused(&["--listen", "127.0.0.1:0?tls=true"]);
    assert!(
        code == Some(2) && printed.contains("tls_certificate") && printed.lines().count() == 1,
        "{printed}"
    );
}

#[tokio::test]
async fn a_key_that_others_can_read_is_warned_about() {
    for (mode, is_warned_about) in [(0o644, true), (0o600, false)] {
        let folder = tempfile::tempdir().unwrap();
        let certificate = Certificate::create(folder.path(), "hub", &["127.0.0.1"]).unwrap();
        fs::set_permissions(&certificate.key, fs::Permissions::from_mode(mode)).unwrap();
        let [file, key] = [&certificate.certificate, &certificate.key].map(|path| path.to_str().unwrap());
        let mut hub = Hub::serve(&["--tls-certificate", file, "--tls-key", key]).await.unwrap();
        hub.printed("listening").await.unwrap();
        let is_in_log = hub.output().iter().any(|line| line.contains("other users") && line.contains(key));
        assert_eq!(is_in_log, is_warned_about, "{:?}", hub.output());
        hub.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_keeps_tls() {
    let mut encrypted = Encrypted::start(&["--drain-secs", "1"]).await;
    let mut stream = encrypted.stream(STREAM).await;
    encrypted.hub.upgrade().await.unwrap();
    let end = stream.next().await.unwrap();
    assert!(end.data.contains(r#""kind":"reconnect""#), "{}", end.data);
    assert!(stream.next_or_end().await.unwrap().is_none());
    assert!(encrypted.hub.first_ended().await.unwrap().success());
    let mut stream = encrypted.stream(STREAM).await;
    encrypted.publish("after").await;
    assert_eq!(stream.messages(1).await.unwrap(), ["after"]);
    encrypted.hub.stop().await.unwrap();
}
