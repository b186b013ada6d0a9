//! Reload: what a running hub takes over of a configuration that has changed.

#![cfg(unix)]

use std::{fs, path::Path, process::Command};

use tempfile::TempDir;
use tidings_auth::{NewToken, Secret, SigningKey, mint};
use tidings_testkit::{
    Application, Certificate, Connection, EventStream, Hub, Reply, Response, Signal, TlsClient, binary,
};

const KEY: &str = "tk_a-key-that-may-do-everything";
const OTHER_KEY: &str = "tk_another-key-that-may-do-everything";

fn key(secret: &str) -> String {
    format!("[[key]]\nname = \"all\"\nsecret = \"{secret}\"\npublish = [\"*\"]\nsubscribe = [\"*\"]\n")
}

/// A hub with a configuration file that the test rewrites.
struct Configured {
    hub: Hub,
    folder: TempDir,
}

impl Configured {
    async fn start(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::start_in(folder, text).await
    }

    async fn start_in(folder: TempDir, text: &str) -> Self {
        let file = folder.path().join("tidings.toml");
        fs::write(&file, text).unwrap();
        let pid_file = folder.path().join("pid");
        let args = ["--config", file.to_str().unwrap(), "--pid-file", pid_file.to_str().unwrap()];
        let hub = Hub::serve(&args).await.unwrap();
        Self { hub, folder }
    }

    fn write(&self, text: &str) {
        fs::write(self.folder.path().join("tidings.toml"), text).unwrap();
    }

    /// Reloads by a signal, and returns the line of the log that says what became of it.
    async fn reload(&mut self) -> String {
        let before = self.outcomes();
        self.hub.signal(Signal::HUP).unwrap();
        self.outcome_after(before).await
    }

    fn outcomes(&self) -> usize {
        self.hub.output().iter().filter(|line| is_outcome(line)).count()
    }

    async fn outcome_after(&self, before: usize) -> String {
        let mut output = self.hub.watch_output().unwrap();
        let lines = output.wait_for(|lines| lines.iter().filter(|line| is_outcome(line)).count() > before);
        let lines = tokio::time::timeout(tidings_testkit::PATIENCE, lines).await.expect("in time").unwrap();
        lines.iter().filter(|line| is_outcome(line)).nth(before).unwrap().clone()
    }

    async fn request(&self, head: &str, secret: &str) -> Response {
        let head = format!("{head}\nAuthorization: Bearer {secret}");
        self.hub.request(&head, b"hello").await.unwrap()
    }
}

fn is_outcome(line: &str) -> bool {
    line.contains("the configuration was reloaded") || line.contains("the configuration was not reloaded")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_for_new_connections_and_streams_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let create = |folder: &Path| Certificate::create(folder, "hub", &["127.0.0.1"]).unwrap();
    let certificate = create(folder.path());
    let text = "tls_certificate = \"hub.pem\"\ntls_key = \"hub.key\"\n";
    let mut configured = Configured::start_in(folder, text).await;
    let address = configured.hub.address();
    let old = TlsClient::trusting(&certificate.certificate).unwrap();
    let connection = Connection::open_tls(address, &old, "127.0.0.1").await.unwrap();
    let mut stream = EventStream::on(connection, "/stream?topic=chat", &[]).await.unwrap();

    assert!(configured.reload().await.contains("nothing"));
    create(configured.folder.path());
    let new = TlsClient::trusting(&certificate.certificate).unwrap();
    Connection::open_tls(address, &new, "127.0.0.1").await.unwrap_err();
    let reloaded = configured.reload().await;
    assert!(reloaded.contains("certificates"), "{reloaded}");
    Connection::open_tls(address, &old, "127.0.0.1").await.unwrap_err();
    let mut publisher = Connection::open_tls(address, &new, "127.0.0.1").await.unwrap();
    publisher.request("POST /topics/chat", b"hello").await.unwrap();
    assert_eq!(publisher.response().await.unwrap().status, 200);
    assert_eq!(stream.messages(1).await.unwrap(), ["hello"]);
    configured.hub.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_replaces_the_old_one_and_streams_go_on() {
    let secret_file = "[[key]]\nname = \"of-file\"\nsecret_file = \"secret\"\npublish = [\"*\"]\n";
    let folder = tempfile::tempdir().unwrap();
    let write_secret = |folder: &Path, secret: &str| fs::write(folder.join("secret"), secret).unwrap();
    write_secret(folder.path(), "tk_a-secret-in-a-file-of-its-own");
    let mut configured = Configured::start_in(folder, &format!("{}{secret_file}", key(KEY))).await;
    let field = format!("Authorization: Bearer {KEY}");
    let mut stream =
        EventStream::open_with(configured.hub.address(), "/stream?topic=inbox", &[&field]).await.unwrap();

    configured.write(&format!("{}{secret_file}", key(OTHER_KEY)));
    write_secret(configured.folder.path(), "tk_another-secret-in-the-same-file");
    let reloaded = configured.reload().await;
    assert!(reloaded.contains("keys"), "{reloaded}");
    for (secret, status) in [
        (KEY, 401),
        (OTHER_KEY, 200),
        ("tk_a-secret-in-a-file-of-its-own", 401),
        ("tk_another-secret-in-the-same-file", 200),
    ] {
        assert_eq!(configured.request("POST /topics/chat", secret).await.status, status, "{secret}");
    }
    configured.request("POST /topics/inbox?private=true", OTHER_KEY).await;
    assert_eq!(stream.messages(1).await.unwrap(), ["hello"], "its permissions are those that it began with");
    let printed = configured.hub.output().join("\n");
    assert!(!printed.contains("tk_"), "{printed}");
    configured.hub.stop().await.unwrap();
}

#[tokio::test]
async fn origins_private_topics_and_the_log_level_change() {
    let mut configured = Configured::start(&key(KEY)).await;
    let text =
        "allow_origin = [\"https://app.example\"]\nprivate_topics = [\"inbox*\"]\nlog_level = \"debug\"\n";
    let origin = async |configured: &Configured| {
        let head = "GET /topics/chat\nAccept: application/json\nOrigin: https://app.example";
        let response = configured.hub.request(head, b"").await.unwrap();
        response.header("access-control-allow-origin").map(str::to_owned)
    };
    let stream = async |configured: &Configured| {
        configured.hub.request("GET /topics/inbox\nAccept: application/json", b"").await.unwrap().status
    };
    assert_eq!(origin(&configured).await, None);
    let _ = stream(&configured).await;
    configured.write(&format!("{text}{}", key(KEY)));
    let reloaded = configured.reload().await;
    for part in ["allow_origin", "private_topics", "log_level"] {
        assert!(reloaded.contains(part), "{reloaded}");
    }
    assert_eq!(origin(&configured).await.as_deref(), Some("https://app.example"));
    let refused = configured.hub.request("GET /stream?topic=inbox-7", b"").await.unwrap();
    assert!(matches!(refused.status, 401 | 403), "{refused}");
    configured.hub.printed("DEBUG").await.unwrap();
    configured.hub.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mistake_changes_nothing_and_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let good = Certificate::create(folder.path(), "hub", &["127.0.0.1"]).unwrap();
    Certificate::create(folder.path(), "other", &["127.0.0.1"]).unwrap();
    fs::write(folder.path().join("text"), "hello").unwrap();
    let certificate = "tls_certificate = \"hub.pem\"\ntls_key = \"hub.key\"\n";
    let mut configured = Configured::start_in(folder, &format!("{certificate}{}", key(KEY))).await;
    let client = TlsClient::trusting(&good.certificate).unwrap();
    let new_key = key(OTHER_KEY);
    for (text, named) in [
        (format!("{certificate}{new_key}nonsense"), "tidings.toml, line"),
        (format!("{certificate}log_level = \"loud\"\n{new_key}"), "log_level"),
        (format!("{certificate}{new_key}[[key]]\nname = \"b\"\nsecret_file = \"nowhere\"\n"), "nowhere"),
        (format!("{certificate}private_topics = [\"\"]\n{new_key}"), "private_topics"),
        (format!("tls_certificate = \"text\"\ntls_key = \"hub.key\"\n{new_key}"), "text"),
        (format!("tls_certificate = \"hub.pem\"\ntls_key = \"other.key\"\n{new_key}"), "other.key"),
        (certificate.to_owned(), "restart"),
    ] {
        configured.write(&text);
        let refused = configured.reload().await;
        assert!(refused.contains("nothing has changed") && refused.contains(named), "{named}: {refused}");
        for (secret, status) in [(KEY, 200), (OTHER_KEY, 401)] {
            let mut connection =
                Connection::open_tls(configured.hub.address(), &client, "127.0.0.1").await.unwrap();
            let head = format!("POST /topics/chat\nAuthorization: Bearer {secret}");
            connection.request(&head, b"hello").await.unwrap();
            assert_eq!(connection.response().await.unwrap().status, status, "{named}");
        }
    }
    configured.hub.stop().await.unwrap();
}

#[tokio::test]
async fn applications_are_replaced_and_open_streams_go_on() {
    let one = Application::start(|_| Reply::subscribe("topic=one")).await.unwrap();
    let two = Application::start(|_| Reply::subscribe("topic=two")).await.unwrap();
    let table = |path: &str, url: &str| format!("[[authorize]]\npath = \"{path}\"\nurl = \"{url}\"\n");
    let mut configured = Configured::start(&table("/stream", &one.url("/"))).await;
    let address = configured.hub.address();
    let mut before = EventStream::open(address, "/stream").await.unwrap();

    configured.write(&format!("{}{}", table("/stream", &two.url("/")), table("/events", &two.url("/"))));
    let reloaded = configured.reload().await;
    assert!(reloaded.contains("authorize"), "{reloaded}");
    for path in ["/stream", "/events"] {
        let mut after = EventStream::open(address, path).await.unwrap();
        configured.hub.publish("two", "for the new").await.unwrap();
        assert_eq!(after.messages(1).await.unwrap(), ["for the new"], "{path}");
    }
    assert_eq!((one.requests().len(), two.requests().len()), (1, 2));
    configured.hub.publish("one", "for the old").await.unwrap();
    assert_eq!(before.messages(1).await.unwrap(), ["for the old"]);

    // Only the time that the applications have.
    configured.write(&format!("authorize_secs = 3\nauthorize = \"{}\"\n", two.url("/")));
    assert!(configured.reload().await.contains("authorize"));
    // Without an application the path is the hub's, or nobody's.
    configured.write("");
    assert!(configured.reload().await.contains("authorize"));
    let mut own = EventStream::open(address, "/stream?topic=one").await.unwrap();
    configured.hub.publish("one", "of the hub").await.unwrap();
    assert_eq!(own.messages(1).await.unwrap(), ["of the hub"]);
    assert_eq!(configured.hub.request("GET /events", b"").await.unwrap().status, 404);
    let printed = configured.hub.output().join("\n");
    assert!(!printed.contains("need a restart"), "{printed}");
    configured.hub.stop().await.unwrap();
}

/// A table may be fine by itself and not fit the hub that runs.
#[tokio::test]
async fn applications_that_do_not_fit_the_hub_as_it_was_started_change_nothing() {
    let application = Application::start(|_| Reply::subscribe("topic=one")).await.unwrap();
    let url = application.url("/");
    let table = |path: &str| format!("[[authorize]]\npath = \"{path}\"\nurl = \"{url}\"\n");
    let limits = "requests_max = 16\nauthorize_requests_max = 4\n";
    let mut configured = Configured::start(&format!("{limits}{}", table("/stream"))).await;
    let eight: String = (1..=8).map(|number| table(&format!("/{number}"))).collect();
    for (text, part) in [
        (format!("{limits}{}[[authorize]]\nurl = \"nowhere\"\n", table("/events")), "is not a URL of HTTP"),
        (format!("requests_max = 16\nauthorize_requests_max = 1\n{eight}"), "more than half of requests_max"),
        (
            format!("public_url = \"http://127.0.0.1/hub\"\n{limits}{}", table("/.well-known/mercure")),
            "the path of the Mercure API until the hub is restarted",
        ),
    ] {
        configured.write(&text);
        let refused = configured.reload().await;
        assert!(refused.contains("nothing has changed") && refused.contains(part), "{refused}");
        let asked = application.requests().len();
        EventStream::open(configured.hub.address(), "/stream").await.unwrap();
        assert_eq!(application.requests().len(), asked + 1);
        for path in ["/events", "/1"] {
            let response = configured.hub.request(&format!("GET {path}"), b"").await.unwrap();
            assert_eq!(response.status, 404, "{path}");
        }
    }
    configured.hub.stop().await.unwrap();
}

#[tokio::test]
async fn settings_that_need_a_restart_are_named() {
    let mut configured = Configured::start(&key(KEY)).await;
    configured.write(&format!("heartbeat_secs = 7\nretain_count = 7\n{}", key(OTHER_KEY)));
    let reloaded = configured.reload().await;
    assert!(reloaded.contains("keys"), "{reloaded}");
    let warned = configured.hub.printed("need a restart").await.unwrap();
    assert!(warned.contains("heartbeat_secs") && warned.contains("retain_count"), "{warned}");
    assert!(!warned.contains("keys"), "{warned}");
    configured.hub.stop().await.unwrap();
}

/// The public URL needs a restart, and so does what depends on it.
#[tokio::test]
async fn tokens_are_for_the_url_that_the_hub_was_started_with_until_it_is_restarted() {
    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    let text = |host: &str| {
        format!("public_url = \"https://{host}\"\n[[issuer]]\niss = \"app\"\nsecret = \"{SECRET}\"\n")
    };
    let token = |host: &str| {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let token = NewToken {
            issuer: "app".to_owned(),
            audience: format!("https://{host}/.well-known/mercure"),
            subject: "42".to_owned(),
            issued_at: now,
            expires_at: now + 600,
            publish: vec!["*".into()],
            subscribe: vec![],
            payload: None,
        };
        mint(&token, &SigningKey::new(&Secret::new(SECRET), None).unwrap()).unwrap()
    };
    let mut configured = Configured::start(&text("old.example")).await;
    configured.write(&text("new.example"));
    configured.reload().await;
    for (host, status) in [("old.example", 200), ("new.example", 401)] {
        assert_eq!(configured.request("POST /topics/chat", &token(host)).await.status, status, "{host}");
    }
    configured.hub.printed("public_url").await.unwrap();
}

#[tokio::test]
async fn tidings_reload_signals_the_process_of_the_pid_file() {
    let mut configured = Configured::start(&key(KEY)).await;
    configured.write(&key(OTHER_KEY));
    let before = configured.outcomes();
    let reload = |pid_file: &Path| {
        Command::new(binary().unwrap()).args(["reload", "--pid-file"]).arg(pid_file).output().unwrap()
    };
    let output = reload(&configured.folder.path().join("pid"));
    assert!(output.status.success(), "{output:?}");
    assert!(configured.outcome_after(before).await.contains("keys"));
    assert_eq!(configured.request("POST /topics/chat", OTHER_KEY).await.status, 200);
    configured.hub.stop().await.unwrap();
    let output = reload(&configured.folder.path().join("pid"));
    assert!(!output.status.success());
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(printed.lines().count() == 1 && printed.contains("pid"), "{printed}");
}

#[tokio::test]
async fn an_operator_reloads_over_http_and_learns_what_became_of_it() {
    let admin_key =
        "[[key]]\nname = \"operator\"\nsecret = \"tk_the-key-of-an-operator-here\"\nadmin = true\n"
            .to_owned();
    let configured = Configured::start(&format!("{admin_key}{}", key(KEY))).await;
    for (field, status) in
        [("Accept: */*", 401), ("Authorization: Bearer tk_a-key-that-may-do-everything", 403)]
    {
        let refused = configured.hub.request(&format!("POST /reload\n{field}"), b"").await.unwrap();
        assert_eq!(refused.status, status, "{refused}");
    }
    let reload = async || {
        let head = "POST /reload\nAuthorization: Bearer tk_the-key-of-an-operator-here";
        configured.hub.request(head, b"").await.unwrap()
    };
    assert_eq!(reload().await.text(), r#"{"changed":[],"needs_restart":[]}"#);
    configured.write(&format!("retry_millis = 777\n{admin_key}{}", key(OTHER_KEY)));
    let reloaded = reload().await;
    assert_eq!(reloaded.text(), r#"{"changed":["keys"],"needs_restart":["retry_millis"]}"#);
    assert_eq!(configured.request("POST /topics/chat", OTHER_KEY).await.status, 200);
    configured.write("nonsense");
    let refused = reload().await;
    assert_eq!(refused.status, 422, "{refused}");
    assert!(refused.text().contains("line 1"), "{refused}");
    assert_eq!(configured.request("POST /topics/chat", OTHER_KEY).await.status, 200);
    let mut hub = configured.hub;
    hub.stop().await.unwrap();
}
