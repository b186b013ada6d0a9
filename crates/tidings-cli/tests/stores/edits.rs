//! Streams whose topics change: over TLS, over HTTP/2, and through another hub of the cluster.

#![cfg(unix)]

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidings_testkit::{Certificate, Connection, EventStream, Hub, RedisServer, Response, TlsClient};

const KEY: &str = "tk_the-key-of-the-application";
const OTHER_KEY: &str = "tk_the-key-of-another-one";

async fn open(connection: Connection, target: &str, fields: &[&str]) -> (EventStream, Value) {
    let mut stream = EventStream::on(connection, target, fields).await.unwrap();
    let hello = stream.next().await.unwrap();
    (stream, serde_json::from_str(&hello.data).unwrap())
}

async fn patch(mut connection: Connection, hello: &Value, body: &Value, fields: &str) -> Response {
    let id = hello["connection"].as_str().unwrap();
    let head = format!("PATCH /connections/{id}\nContent-Type: application/json{fields}");
    connection.request(&head, body.to_string().as_bytes()).await.unwrap();
    connection.response().await.unwrap()
}

fn of(response: &Response) -> Value {
    assert_eq!(response.status, 200, "{response}");
    serde_json::from_slice(&response.body).unwrap()
}

#[tokio::test]
async fn an_encrypted_stream_changes_its_topics_and_misses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = Certificate::create(folder.path(), "hub", &["127.0.0.1"]).unwrap();
    let (file, key) = (certificate.certificate.to_str().unwrap(), certificate.key.to_str().unwrap());
    let hub = Hub::serve(&["--tls-certificate", file, "--tls-key", key]).await.unwrap();
    let client = TlsClient::trusting(&certificate.certificate).unwrap();
    let connect = || Connection::open_tls(hub.address(), &client, "127.0.0.1");
    let (mut stream, hello) = open(connect().await.unwrap(), "/stream?topic=a&hello=true", &[]).await;
    let publish = async |topic: &str, data: &str| {
        let mut connection = connect().await.unwrap();
        connection.request(&format!("POST /topics/{topic}"), data.as_bytes()).await.unwrap();
        assert_eq!(connection.response().await.unwrap().status, 200);
    };
    let secret = &hello["secret"];
    let body = json!({ "add": ["b"], "secret": secret });
    assert_eq!(of(&patch(connect().await.unwrap(), &hello, &body, "").await)["topics"], json!(["a", "b"]));
    for (topic, data) in [("b", "1"), ("a", "2"), ("b", "3")] {
        publish(topic, data).await;
    }
    assert_eq!(stream.messages(3).await.unwrap(), ["1", "2", "3"]);
    let body = json!({ "remove": ["a", "b"], "add": ["c"], "secret": secret });
    of(&patch(connect().await.unwrap(), &hello, &body, "").await);
    for (topic, data) in [("b", "4"), ("a", "5"), ("c", "6")] {
        publish(topic, data).await;
    }
    assert_eq!(stream.messages(1).await.unwrap(), ["6"]);
}

/// A hub of a cluster, with two keys.
async fn hub(redis: &RedisServer) -> Hub {
    let keys = [
        format!("store = \"{}\"", redis.url()),
        format!("[[key]]\nname = \"app\"\nsecret = \"{KEY}\"\npublish = [\"*\"]\nsubscribe = [\"*\"]"),
        format!(
            "[[key]]\nname = \"other\"\nsecret = \"{OTHER_KEY}\"\npublish = [\"*\"]\nsubscribe = [\"*\"]"
        ),
    ];
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    std::fs::write(file.path(), keys.join("\n")).unwrap();
    Hub::serve(&["--config", file.path().to_str().unwrap()]).await.unwrap()
}

/// Whichever hub is asked: the one that has the stream changes it.
#[tokio::test]
async fn any_hub_of_a_cluster_changes_the_stream_of_another() {
    let redis = RedisServer::start().await.unwrap();
    let hubs = [hub(&redis).await, hub(&redis).await];
    let connect = |number: usize| Connection::open(hubs[number].address());
    let bearer = |key: &str| format!("\nAuthorization: Bearer {key}");
    let mut streams = BTreeMap::new();
    for (number, field) in [(0, Some(bearer(KEY))), (1, None)] {
        let field = field.as_deref().map(str::trim_start);
        let fields: Vec<&str> = field.into_iter().collect();
        let target = "/stream?topic=a&hello=true";
        streams.insert(number, open(connect(number).await.unwrap(), target, &fields).await);
    }
    let publish = async |number: usize, topic: &str, data: &str| {
        let mut connection = connect(number).await.unwrap();
        let head = format!("POST /topics/{topic}{}", bearer(KEY));
        connection.request(&head, data.as_bytes()).await.unwrap();
        assert_eq!(connection.response().await.unwrap().status, 200);
    };
    for asked in [0, 1] {
        // A stranger changes nothing, whichever hub is asked.
        let hello = &streams[&0].1;
        let add = json!({ "add": "b" });
        for (credential, status) in [(bearer(OTHER_KEY), 403), (String::new(), 403), (bearer("tk_x"), 401)] {
            let response = patch(connect(asked).await.unwrap(), hello, &add, &credential).await;
            assert_eq!(response.status, status, "{response}");
        }
        let foreign = json!({ "add": "b", "secret": "00000000000000000000000000000000" });
        let response = patch(connect(asked).await.unwrap(), &streams[&1].1, &foreign, "").await;
        assert_eq!(response.status, 403, "{response}");
        let unknown = json!({ "connection": "00000000000000000000000000000000" });
        let response = patch(connect(asked).await.unwrap(), &unknown, &add, &bearer(KEY)).await;
        assert_eq!(response.status, 404, "{response}");
    }
    for (round, asked) in [1, 0, 1].into_iter().enumerate() {
        let topic = format!("t{round}");
        let of_key = json!({ "add": [topic], "remove": ["a"] });
        let response = patch(connect(asked).await.unwrap(), &streams[&0].1, &of_key, &bearer(KEY)).await;
        assert_eq!(of(&response)["topics"].as_array().unwrap().last().unwrap(), &json!(topic));
        let secret = streams[&1].1["secret"].as_str().unwrap();
        let anonymous = json!({ "add": [topic], "remove": ["a"], "secret": secret });
        let response = patch(connect(asked).await.unwrap(), &streams[&1].1, &anonymous, "").await;
        let cursor = of(&response)["cursor"].as_str().unwrap().to_owned();
        assert_eq!(response.header("tidings-cursor"), Some(&*cursor));
        publish(asked, "a", "for nobody").await;
        publish(1 - asked, &topic, &format!("{round}")).await;
        for (stream, _) in streams.values_mut() {
            assert_eq!(stream.messages(1).await.unwrap(), [format!("{round}")]);
        }
    }
    let (_, hello) = streams.remove(&0).unwrap();
    // The hub learns that its client is gone, and then none has the stream.
    let mut status = 200;
    while status == 200 {
        let response = patch(connect(1).await.unwrap(), &hello, &json!({ "add": "t0" }), &bearer(KEY)).await;
        status = response.status;
        assert!([200, 404, 429].contains(&status), "{response}");
        if status == 429 {
            status = 200;
        }
    }
}
