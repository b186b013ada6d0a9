//! Whose address a client has: that of its connection, or the one that a trusted proxy states.
//!
//! Every address of 127.0.0.0/8 is one of this machine, so the tests are proxies and clients with
//! addresses of their own.

#![cfg(target_os = "linux")]

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    process::Command,
};

use tempfile::TempDir;
use tidings_testkit::{Connection, EventStream, Hub, binary};

const KEY: &str =
    "[[key]]\nname = \"app\"\nsecret = \"a-secret-of-some-length\"\npublish = [\"*\"]\nsubscribe = [\"*\"]\n";
/// The proxy that the hubs of these tests trust, and a peer that they do not trust.
const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

/// A hub that trusts [`PROXY`] and logs each request that it refuses.
async fn hub(source: &str, args: &[&str]) -> (Hub, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("t.toml");
    fs::write(&config, KEY).unwrap();
    let unix = format!("unix:{}", folder.path().join("hub.sock").display());
    let config = config.to_str().unwrap();
    let common = [
        "serve",
        "--config",
        config,
        "--listen",
        "127.0.0.1:0",
        "--listen",
        &unix,
        "--trusted-proxy",
        "127.0.0.2",
        "--trusted-proxy",
        "unix",
        "--client-address",
        source,
    ];
    let mut hub = Hub::not_started([&common[..], args].concat())
        .unwrap()
        .on_its_own()
        .with_environment("RUST_LOG", "info,tidings_server=debug");
    hub.start_again().await.unwrap();
    (hub, folder)
}

/// The client of a request with these header fields, as the hub logs it. `number` tells the requests
/// of a test apart.
async fn logged_client(hub: &mut Hub, mut connection: Connection, fields: &str, number: usize) -> String {
    connection.request(&format!("GET /nothing/{number}/\n{fields}"), b"").await.unwrap();
    assert_eq!(connection.response().await.unwrap().status, 404);
    let line = hub.printed(&format!("/nothing/{number}/ ")).await.unwrap();
    let client = line.split_once(" client=").unwrap_or_else(|| panic!("{line}")).1;
    client.split(' ').next().unwrap().to_owned()
}

#[tokio::test]
async fn the_client_is_the_one_that_a_trusted_proxy_states_in_the_chosen_header() {
    for (source, name, list) in [
        ("x-forwarded-for", "X-Forwarded-For", "203.0.113.9, 192.0.2.1, 127.0.0.2"),
        ("forwarded", "Forwarded", "for=203.0.113.9, for=\"192.0.2.1:4711\";proto=https, for=127.0.0.2"),
    ] {
        let (mut hub, folder) = hub(source, &[]).await;
        let stated = format!("{name}: {list}");
        let others = "X-Real-IP: 198.51.100.1\nX-Client-IP: 198.51.100.1\nVia: 1.1 198.51.100.1";
        let wrong_one =
            if name == "Forwarded" { "X-Forwarded-For: 198.51.100.1" } else { "Forwarded: for=198.51.100.1" };
        let lines = format!("{name}: not a list\n{stated}\n{others}\n{wrong_one}");
        for (number, (peer, fields, expected)) in [
            (Some(PROXY), stated.as_str(), "192.0.2.1"),
            // In front of the list is what the client has written itself.
            (Some(PROXY), lines.as_str(), "192.0.2.1"),
            (Some(PROXY), "", "127.0.0.2"),
            (Some(PROXY), others, "127.0.0.2"),
            (Some(PROXY), wrong_one, "127.0.0.2"),
            // The word of any other peer changes nothing.
            (Some(OTHER), stated.as_str(), "127.0.0.3"),
            (Some(OTHER), lines.as_str(), "127.0.0.3"),
            // The Unix socket.
            (None, stated.as_str(), "192.0.2.1"),
            (None, "", "unix"),
        ]
        .into_iter()
        .enumerate()
        {
            let connection = match peer {
                Some(peer) => Connection::open_from(peer, hub.address()).await.unwrap(),
                None => Connection::open_unix(&folder.path().join("hub.sock")).await.unwrap(),
            };
            let client = logged_client(&mut hub, connection, fields, number).await;
            assert_eq!(client, expected, "{source}, peer {peer:?}, {fields}");
        }
    }
}

#[tokio::test]
async fn a_malformed_list_of_a_trusted_proxy_is_refused_and_logged() {
    let (mut hub, _folder) = hub("x-forwarded-for", &[]).await;
    let fields = "X-Forwarded-For: 192.0.2.1, nonsense";
    let ask = async |peer, path: &str| {
        let mut connection = Connection::open_from(peer, hub.address()).await.unwrap();
        connection.request(&format!("GET {path}\n{fields}"), b"").await.unwrap();
        connection.response().await.unwrap()
    };
    let refused = ask(PROXY, "/stream?topic=chat").await;
    assert_eq!(refused.status, 400, "{refused}");
    assert!(refused.text().contains("`x-forwarded-for`"), "{}", refused.text());
    assert_eq!(ask(PROXY, "/healthz").await.status, 200, "health checks are always answered");
    assert_eq!(ask(OTHER, "/nothing").await.status, 404, "the header of another peer is not read");
    let line = hub.printed("lists of addresses cannot be read").await.unwrap();
    assert!(line.contains("nonsense"), "{line}");
}

#[tokio::test]
async fn limits_count_the_clients_of_a_proxy_and_not_the_proxy() {
    let (mut hub, folder) = hub("x-forwarded-for", &["--streams-per-address-max", "2"]).await;
    let address = hub.address();
    let open = async |client: &str| {
        let connection = Connection::open_from(PROXY, address).await.unwrap();
        EventStream::on(connection, "/stream?topic=chat", &[&format!("X-Forwarded-For: {client}")]).await
    };
    let mut streams = Vec::new();
    for client in 1..=20 {
        for _ in 0..2 {
            streams.push(open(&format!("203.0.113.9, 192.0.2.{client}")).await.unwrap());
        }
        let refused = open(&format!("203.0.113.{client}, 192.0.2.{client}")).await.unwrap_err().to_string();
        assert!(refused.contains("429"), "{refused}");
    }
    // Clients whose address the proxy does not know share one limit.
    for _ in 0..2 {
        streams.push(open("192.0.2.1, unknown").await.unwrap());
    }
    assert!(open("unknown").await.unwrap_err().to_string().contains("429"));
    // Programs on this machine have none, and forged headers of peers that are not trusted give none.
    for _ in 0..5 {
        let connection = Connection::open_from(OTHER, address).await.unwrap();
        streams.push(
            EventStream::on(connection, "/stream?topic=chat", &["X-Forwarded-For: 192.0.2.1"]).await.unwrap(),
        );
        let connection = Connection::open_unix(&folder.path().join("hub.sock")).await.unwrap();
        streams.push(EventStream::on(connection, "/stream?topic=chat", &[]).await.unwrap());
    }
    // Each of them is a stream that receives.
    let mut connection = Connection::open(address).await.unwrap();
    let head = "POST /topics/chat\nAuthorization: Bearer a-secret-of-some-length";
    connection.request(head, b"hello").await.unwrap();
    assert_eq!(connection.response().await.unwrap().status, 200);
    for stream in &mut streams {
        assert_eq!(stream.next().await.unwrap().data, "hello");
    }
    let line = hub.printed("a limit was reached").await.unwrap();
    for part in ["streams_per_address_max", "--streams-per-address-max", "count=1", "client=192.0.2.1"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    let lines = hub.output().into_iter().filter(|line| line.contains("a limit was reached")).count();
    assert_eq!(lines, 1, "one line a minute");
}

const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2 for a client at this address.
fn v2(command: u8, client: [u8; 4]) -> Vec<u8> {
    [V2_SIGNATURE, &[command, 0x11, 0, 12], &client, &[127, 0, 0, 1, 0x10, 0, 0, 80]].concat()
}

#[tokio::test]
async fn a_connection_of_a_trusted_proxy_begins_with_a_proxy_header() {
    let (mut hub, folder) = hub("proxy-protocol", &[]).await;
    let v1 = b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 80\r\n".to_vec();
    let v6 = b"PROXY TCP6 2001:db8::7 ::1 4711 80\r\n".to_vec();
    for (number, (header, expected)) in [
        (v1.clone(), "192.0.2.1"),
        (v6, "2001:db8::7"),
        (v2(0x21, [192, 0, 2, 9]), "192.0.2.9"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "unknown"),
        // The proxy's own connection, such as a health check.
        (v2(0x20, [192, 0, 2, 9]), "127.0.0.2"),
    ]
    .into_iter()
    .enumerate()
    {
        // At once, and byte by byte.
        for (part, bytes) in [header.len(), 1].into_iter().enumerate() {
            let mut connection = Connection::open_from(PROXY, hub.address()).await.unwrap();
            for part in header.chunks(bytes) {
                connection.send(part).await.unwrap();
            }
            // Other places are not looked at.
            let fields = "X-Forwarded-For: 198.51.100.1\nForwarded: for=198.51.100.1";
            let client = logged_client(&mut hub, connection, fields, 2 * number + part).await;
            assert_eq!(client, expected, "{header:?}");
        }
    }
    let mut connection = Connection::open_unix(&folder.path().join("hub.sock")).await.unwrap();
    connection.send(&v1).await.unwrap();
    assert_eq!(logged_client(&mut hub, connection, "", 100).await, "192.0.2.1");

    // A stream goes on as it does without the header.
    let mut connection = Connection::open_from(PROXY, hub.address()).await.unwrap();
    connection.send(&v1).await.unwrap();
    let mut stream = EventStream::on(connection, "/stream?topic=chat", &[]).await.unwrap();
    let mut connection = Connection::open_from(OTHER, hub.address()).await.unwrap();
    let head = "POST /topics/chat\nAuthorization: Bearer a-secret-of-some-length";
    connection.request(head, b"hello").await.unwrap();
    assert_eq!(connection.response().await.unwrap().status, 200, "another peer sends none");
    assert_eq!(stream.next().await.unwrap().data, "hello");
}

#[tokio::test]
async fn a_proxy_header_is_never_guessed() {
    let (mut hub, _folder) = hub("proxy-protocol", &["--first-byte-secs", "1"]).await;
    let get = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let v1 = b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 80\r\n";
    let answer = async |peer, bytes: &[u8]| {
        let mut connection = Connection::open_from(peer, hub.address()).await.unwrap();
        connection.send(bytes).await.unwrap();
        String::from_utf8_lossy(&connection.rest().await.unwrap()).into_owned()
    };
    // A trusted proxy that sends none, or another, is disconnected without an answer.
    let too_long = [V2_SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat();
    for wrong in [
        &get[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PROXY TCP4 192.0.2.1 127.0.0.1 4711\r\n",
        b"PROXY TCP4 192.0.2.1\r\nGET / HTTP/1.1\r\n\r\n",
        &[V2_SIGNATURE, &[0x21, 0x11, 0, 4, 192, 0, 2, 1]].concat(),
        &too_long,
        &v1[..20],
        b"",
    ] {
        let answer = answer(PROXY, wrong).await;
        assert_eq!(answer, "", "{:?}", String::from_utf8_lossy(wrong));
    }
    // Any other peer that sends one is answered 400, and the address in it counts for nothing.
    for header in [&v1[..], &v2(0x21, [192, 0, 2, 1])] {
        let answer = answer(OTHER, &[header, get].concat()).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") || answer.is_empty(), "{answer}");
        assert!(!answer.contains(" 200 "), "{answer}");
    }
    assert!(answer(OTHER, get).await.starts_with("HTTP/1.1 200 "));
    assert!(answer(PROXY, &[v1, &get[..]].concat()).await.starts_with("HTTP/1.1 200 "));
    // Two headers are one too many.
    let twice = answer(PROXY, &[v1, &v1[..], &get[..]].concat()).await;
    assert!(twice.starts_with("HTTP/1.1 400 "), "{twice}");
    let line = hub.printed("they must begin with a PROXY header").await.unwrap();
    assert!(
        line.contains("peer=127.0.0.2") && line.contains("it does not begin with a PROXY header"),
        "{line}"
    );
}

#[tokio::test]
async fn a_listener_may_have_a_source_of_its_own() {
    let (mut hub, _folder) = hub(
        "proxy-protocol",
        &[
            "--listen",
            "127.0.0.1:0?client-address=peer",
            "--listen",
            "127.0.0.1:0?client-address=x-forwarded-for",
        ],
    )
    .await;
    let addresses = hub.addresses();
    let fields = "X-Forwarded-For: 192.0.2.1";
    for (number, (address, expected)) in
        [(&addresses[2], "127.0.0.2"), (&addresses[3], "192.0.2.1")].into_iter().enumerate()
    {
        let connection = Connection::open_from(PROXY, address.parse().unwrap()).await.unwrap();
        assert_eq!(logged_client(&mut hub, connection, fields, number).await, expected);
    }
}

#[test]
fn settings_that_cannot_take_effect_are_refused_with_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("t.toml");
    fs::write(&config, KEY).unwrap();
    let unix = format!("unix:{}", folder.path().join("hub.sock").display());
    let with_key = ["--config", config.to_str().unwrap()];
    for (args, part) in [
        (
            &["--trusted-proxy", "10.0.0.1"][..],
            "--trusted-proxy: 10.0.0.1 is trusted, and nothing says where",
        ),
        (&["--client-address", "forwarded"], "--client-address: no proxy is trusted"),
        (
            &["--trusted-proxy", "unix", "--client-address", "forwarded", "--listen", "127.0.0.1:0"],
            "--trusted-proxy: unix has no effect",
        ),
        (
            &["--trusted-proxy", "10.0.0.1", "--client-address", "forwarded", "--listen", &unix],
            "--trusted-proxy: 10.0.0.1 has no effect",
        ),
        (&["--trusted-proxy", "10.0.0.1/8", "--client-address", "forwarded"], "write 10.0.0.0/8"),
        (
            &["--trusted-proxy", "10.0.0.1", "--client-address", "x-real-ip"],
            "is not a source of client addresses",
        ),
    ] {
        let output = Command::new(binary().unwrap()).arg("serve").args(with_key).args(args).output().unwrap();
        let printed = String::from_utf8(output.stderr).unwrap();
        let last = printed.lines().last().unwrap_or_default();
        assert!(!output.status.success() && last.contains(part), "{args:?}: {printed}");
    }
    // Without keys, proxies are refused.
    let args =
        ["serve", "--listen", "127.0.0.1:0", "--trusted-proxy", "127.0.0.1", "--client-address", "forwarded"];
    let output = Command::new(binary().unwrap()).args(args).output().unwrap();
    let printed = String::from_utf8(output.stderr).unwrap();
    assert!(printed.contains("--client-address: a hub without keys refuses"), "{printed}");
}
