//! A certificate from an authority that speaks ACME, of the real binary: obtained, served, renewed.
//!
//! Needs: pebble.

#![cfg(target_os = "linux")]

use std::{fs, net::SocketAddr, path::PathBuf, process::Command};

use tempfile::TempDir;
use tidings_testkit::{
    Connection, EventStream, Hub, Pebble, PebbleSettings, Port, Signal, TlsClient, binary, patiently,
};

/// Ninety days.
const LONG_SECS: u64 = 90 * 24 * 60 * 60;
const NAME: &str = "hub.test";
const OBTAINED: &str = "obtained a certificate";
const FAILED: &str = "cannot obtain a certificate";

/// A hub, its authority and its configuration.
struct Site {
    hub: Hub,
    pebble: Pebble,
    folder: TempDir,
    http_port: Option<Port>,
}

impl Site {
    /// A hub that proves its names over TLS.
    async fn over_tls(domains: &[&str], validity_secs: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hub =
            Hub::not_started(["serve", "--config", path(&folder, "hub.toml").to_str().unwrap()]).unwrap();
        let tls_port = hub.address().port();
        let pebble = Pebble::start(PebbleSettings { http_port: 1, tls_port, validity_secs }).await.unwrap();
        let site = Self { hub, pebble, folder, http_port: None };
        site.configure(domains, "tls-alpn-01");
        site
    }

    /// A hub that proves its names over HTTP, on an address of its own.
    async fn over_http(domains: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = Port::reserve().unwrap();
        let plain = format!("127.0.0.1:{}?tls=false", port.number());
        let file = path(&folder, "hub.toml");
        let args =
            ["serve", "--config", file.to_str().unwrap(), "--listen", "127.0.0.1:0", "--listen", &plain];
        let hub = Hub::not_started(args).unwrap().on_its_own();
        let settings = PebbleSettings { http_port: port.number(), tls_port: 1, validity_secs: LONG_SECS };
        let pebble = Pebble::start(settings).await.unwrap();
        let site = Self { hub, pebble, folder, http_port: Some(port) };
        site.configure(domains, "http-01");
        site
    }

    fn configure(&self, domains: &[&str], challenge: &str) {
        let text = format!(
            "[acme]\ndomains = {domains:?}\ncache = \"acme\"\naccept_terms = true\nemail = \"ops@example.com\"\n\
             challenge = {challenge:?}\ndirectory = {:?}\ndirectory_ca = {:?}\nallow_private = true\n",
            self.pebble.directory(),
            self.pebble.own_certificate().to_str().unwrap(),
        );
        fs::write(path(&self.folder, "hub.toml"), text).unwrap();
    }

    async fn start(&mut self) {
        self.hub.start_again().await.unwrap();
    }

    /// Waits until the hub has logged this so many times.
    async fn logged(&self, text: &str, times: usize) {
        let mut output = self.hub.watch_output().unwrap();
        let is_there = |lines: &Vec<String>| lines.iter().filter(|line| line.contains(text)).count() >= times;
        let seen = patiently(text, output.wait_for(is_there)).await.is_ok();
        assert!(seen, "{text:?} is missing in:\n{}", self.hub.output().join("\n"));
    }

    /// A client that trusts the authority, as it is now, and makes no use of earlier connections.
    async fn client(&self) -> TlsClient {
        TlsClient::trusting(&self.pebble.root().await.unwrap()).unwrap().without_resumption()
    }

    /// The certificate that a client gets for this name, after a request that is answered.
    async fn certificate(&self, client: &TlsClient, name: &str) -> Vec<u8> {
        let mut connection = Connection::open_tls(self.hub.address(), client, name).await.unwrap();
        connection.request("GET /healthz", b"").await.unwrap();
        assert_eq!(connection.response().await.unwrap().status, 200);
        connection.certificate().unwrap()
    }

    /// The folder of the authority.
    fn cache(&self) -> PathBuf {
        let entries = fs::read_dir(path(&self.folder, "acme")).unwrap();
        let folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        assert_eq!(folders.len(), 1, "{folders:?}");
        folders[0].clone()
    }

    fn stored(&self) -> String {
        fs::read_to_string(self.cache().join(format!("{NAME}.pem"))).unwrap()
    }

    /// The values of the metrics of the certificate: when it expires, obtained, failed.
    async fn metrics(&self, client: &TlsClient) -> [u64; 3] {
        let mut connection = Connection::open_tls(self.hub.address(), client, NAME).await.unwrap();
        connection.request("GET /metrics", b"").await.unwrap();
        let text = connection.response().await.unwrap().text();
        [
            "tidings_acme_certificate_expiry_timestamp_seconds",
            "tidings_acme_obtained_total",
            "tidings_acme_failed_total",
        ]
        .map(|metric| {
            let series = format!("{metric}{{acme=\"{NAME}\"}} ");
            let value = text.lines().find_map(|line| line.strip_prefix(&series));
            value.unwrap_or_else(|| panic!("{series} in {text}")).parse().unwrap()
        })
    }
}

fn path(folder: &TempDir, name: &str) -> PathBuf {
    folder.path().join(name)
}

async fn publish(address: SocketAddr, client: &TlsClient, data: &str) {
    let mut connection = Connection::open_tls(address, client, NAME).await.unwrap();
    connection.request("POST /topics/chat", data.as_bytes()).await.unwrap();
    assert_eq!(connection.response().await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_obtained_over_tls_and_a_restart_uses_it_again() {
    let mut site = Site::over_tls(&[NAME, "www.hub.test"], LONG_SECS).await;
    site.start().await;
    site.logged(OBTAINED, 1).await;
    let client = site.client().await;
    let certificate = site.certificate(&client, NAME).await;
    assert_eq!(site.certificate(&client, "www.hub.test").await, certificate);
    let [expiry, obtained, failed] = site.metrics(&client).await;
    assert!(expiry > LONG_SECS, "{expiry}");
    assert_eq!((obtained, failed), (1, 0));

    // Validations are answered only while they are expected.
    let validating = client.clone().offering(&["acme-tls/1"]);
    Connection::open_tls(site.hub.address(), &validating, NAME).await.unwrap_err();

    assert_eq!(site.pebble.orders(), 1);
    site.hub.stop().await.unwrap();
    site.start().await;
    assert_eq!(site.certificate(&client, NAME).await, certificate, "from the first connection on");
    // What the hub does with a reload comes after what it does at its start.
    site.hub.signal(Signal::HUP).unwrap();
    site.logged("the configuration was reloaded", 1).await;
    assert_eq!(site.pebble.orders(), 1);
    assert_eq!(site.metrics(&client).await, [expiry, 0, 0]);

    site.hub.upgrade().await.unwrap();
    site.hub.first_ended().await.unwrap();
    assert_eq!(site.certificate(&client, NAME).await, certificate);
    assert_eq!(site.pebble.orders(), 1);
    site.hub.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_obtained_over_http() {
    let mut site = Site::over_http(&[NAME]).await;
    site.start().await;
    site.logged(OBTAINED, 1).await;
    let client = site.client().await;
    site.certificate(&client, NAME).await;
    let plain = (std::net::Ipv4Addr::LOCALHOST, site.http_port.as_ref().unwrap().number());
    let mut connection = Connection::open(plain.into()).await.unwrap();
    connection.request("GET /.well-known/acme-challenge/token", b"").await.unwrap();
    assert_eq!(connection.response().await.unwrap().status, 404, "nothing is pending");
    site.hub.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_under_load_drops_no_stream_and_loses_no_event() {
    const STREAMS: usize = 30;
    const EVENTS_BETWEEN: usize = 50;
    let mut site = Site::over_tls(&[NAME], LONG_SECS).await;
    site.start().await;
    site.logged(OBTAINED, 1).await;
    let client = site.client().await;
    let address = site.hub.address();
    let before = site.certificate(&client, NAME).await;

    let mut receiving = Vec::new();
    for _ in 0..STREAMS {
        let connection = Connection::open_tls(address, &client, NAME).await.unwrap();
        let mut stream = EventStream::on(connection, "/stream?topic=chat", &[]).await.unwrap();
        receiving.push(tokio::spawn(async move {
            let mut received = Vec::new();
            loop {
                match stream.next().await.expect("the stream goes on").data {
                    data if data == "end" => return received,
                    data => received.push(data),
                }
            }
        }));
    }
    // Publishes, each event on a connection of its own, until `ended` says so.
    let (end, ended) = tokio::sync::watch::channel(false);
    let published = std::sync::Arc::new(tokio::sync::watch::channel(0).0);
    let publishing = tokio::spawn({
        let (client, published) = (client.clone(), published.clone());
        async move {
            let mut number = 0;
            while !*ended.borrow() {
                publish(address, &client, &number.to_string()).await;
                number += 1;
                published.send_replace(number);
            }
            publish(address, &client, "end").await;
            number
        }
    });
    let publish_more = async || {
        let mut count = published.subscribe();
        let least = *count.borrow() + EVENTS_BETWEEN;
        patiently("events", count.wait_for(|count| *count >= least)).await.unwrap().unwrap();
    };

    publish_more().await;
    site.pebble.suggest_renewal(&site.stored()).await.unwrap();
    site.hub.signal(Signal::HUP).unwrap();
    site.logged(OBTAINED, 2).await;
    assert_ne!(site.certificate(&client, NAME).await, before, "a new handshake");
    publish_more().await;
    end.send_replace(true);
    let count = publishing.await.unwrap();
    let expected: Vec<_> = (0..count).map(|number: usize| number.to_string()).collect();
    for received in receiving {
        assert_eq!(received.await.unwrap(), expected);
    }
    assert_eq!(site.pebble.orders(), 2);
    site.hub.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_that_fails_keeps_the_certificate_and_is_made_up_for() {
    const SHORT_SECS: u64 = 36;
    let mut site = Site::over_tls(&[NAME], SHORT_SECS).await;
    site.start().await;
    site.logged(OBTAINED, 1).await;
    let client = site.client().await;
    let before = site.certificate(&client, NAME).await;
    site.pebble.kill().await.unwrap();
    // After two thirds of its lifetime.
    let line = site.hub.printed(FAILED).await.unwrap();
    assert!(line.contains("the one before stays in use") && line.contains("127.0.0.1"), "{line}");
    assert_eq!(site.metrics(&client).await[1..], [1, 1]);
    assert_eq!(site.certificate(&client, NAME).await, before);

    // It has forgotten the account of the hub, and issues with another key.
    site.pebble.start_again().await.unwrap();
    site.hub.signal(Signal::HUP).unwrap();
    site.logged(OBTAINED, 2).await;
    let client = site.client().await;
    assert_ne!(site.certificate(&client, NAME).await, before);
    site.hub.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_name_is_one_line_and_handshakes_fail_until_it_is_right() {
    let mut site = Site::over_tls(&["missing.test"], LONG_SECS).await;
    site.start().await;
    let line = site.hub.printed(FAILED).await.unwrap();
    for part in ["missing.test", "tls-alpn-01", "clients cannot connect over TLS"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    let client = site.client().await;
    let refused = Connection::open_tls(site.hub.address(), &client, "missing.test").await.unwrap_err();
    assert!(format!("{refused:?}").contains("AccessDenied"), "{refused:?}");

    site.configure(&[NAME], "tls-alpn-01");
    site.hub.signal(Signal::HUP).unwrap();
    let line = site.hub.printed("these settings differ").await.unwrap();
    assert!(line.contains("settings=\"acme\""), "{line}");
    site.hub.stop().await.unwrap();
    site.start().await;
    site.logged(OBTAINED, 1).await;
    site.certificate(&client, NAME).await;
    site.hub.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hubs_that_share_a_folder_share_one_certificate() {
    let mut site = Site::over_tls(&[NAME], LONG_SECS).await;
    site.start().await;
    let config = path(&site.folder, "hub.toml");
    let mut other = Hub::serve(&["--config", config.to_str().unwrap()]).await.unwrap();
    site.logged(OBTAINED, 1).await;
    let client = site.client().await;
    let certificate = site.certificate(&client, NAME).await;
    // The other one finds it: when it has waited for the first, or when it looks again.
    other.signal(Signal::HUP).unwrap();
    other.printed("the configuration was reloaded").await.unwrap();
    patiently("the certificate of the other hub", async {
        loop {
            let opened = Connection::open_tls(other.address(), &client, NAME).await;
            if opened.is_ok_and(|connection| connection.certificate() == Some(certificate.clone())) {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(site.pebble.orders(), 1);
    other.stop().await.unwrap();
    site.hub.stop().await.unwrap();
}

#[test]
fn a_table_that_cannot_work_is_one_line_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = path(&folder, "hub.toml");
    let refused = |text: &str, args: &[&str]| {
        fs::write(&file, text).unwrap();
        let mut command = Command::new(binary().unwrap());
        let output = command.args(["serve", "--config", file.to_str().unwrap()]).args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let table = "[acme]\ndomains = [\"a.test\"]\ncache = \"acme\"\naccept_terms = true\n";
    let by_http = format!("{table}challenge = \"http-01\"\n");
    let here = "127.0.0.1:0";
    for (text, args, status, part) in [
        (by_http.as_str(), &["--listen", here][..], 2, ":80?tls=false"),
        (table, &["--listen", "127.0.0.1:0?tls=false"], 2, "no address has TLS"),
        (&table.replace("true", "false"), &["--listen", here], 2, "accept_terms = true"),
        (&table.replace("acme\"", "hub.toml/x\""), &["--listen", here], 1, "cannot use the folder"),
    ] {
        let (code, printed) = refused(text, args);
        let line = printed.lines().find(|line| line.contains(part));
        assert_eq!((code, line.is_some()), (Some(status), true), "{text}: {printed}");
    }
}
