//! The line that every start logs.

use tidings_testkit::{Certificate, Hub};

#[tokio::test]
async fn the_line_of_a_start_says_where_and_what_the_hub_serves() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = Certificate::create(folder.path(), "hub", &["127.0.0.1"]).unwrap();
    let [file, key] = [&certificate.certificate, &certificate.key].map(|path| path.to_str().unwrap());
    let mut hub = Hub::serve_on_its_own(&[
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0?tls=false",
        "--tls-certificate",
        file,
        "--tls-key",
        key,
        "--public-url",
        "https://hub.example",
        "--upstream",
        "http://127.0.0.1:1",
        "--bridge",
        "redis://:planted@127.0.0.1:1?channels=news",
        "--connections-max",
        "70",
        "--streams-max",
        "60",
    ])
    .await
    .unwrap();
    let line = hub.printed("listening ").await.unwrap();
    let (clients, operators) = (hub.addresses(), hub.admin_addresses());
    assert_eq!((clients.len(), operators.len()), (1, 1), "{line}");
    for part in [
        concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""),
        &format!("url=\"https://{}\"", clients[0]),
        "tls=true",
        "public_url=https://hub.example/",
        "upstream=\"http://127.0.0.1:1\"",
        "store=\"memory:\"",
        "bridges=1",
        "credentials=\"none (this machine only)\"",
        "connections_max=70",
        "streams_max=60",
        "body_bytes_max=1048576",
        "open_files_max=",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(!hub.output().join("\n").contains("planted"));
}
