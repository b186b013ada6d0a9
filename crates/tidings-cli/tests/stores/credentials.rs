//! Credentials on three hubs of one store: they expire at all of them, and their keys and secrets
//! are replaced one hub after the other without a refused request.

#![cfg(unix)]

use std::{fs, path::PathBuf, time::UNIX_EPOCH};

use tempfile::TempDir;
use tidings_auth::{NewToken, Secret, SigningKey, mint};
use tidings_testkit::{Connection, EventStream, Hub, NatsServer, PATIENCE, RedisServer};

const KEY: &str = "tk_a-key-that-may-do-everything";
const AUDIENCE: &str = "https://hub.example/";
const TOPIC: &str = "/topics/user-42";
/// Enough to open nine streams on a busy machine.
const EXPIRES_SECS: u64 = 6;
const HUBS: usize = 3;

const OLD_TICKETS: (&str, &str) = ("1", "fedcba9876543210fedcba9876543210");
const NEW_TICKETS: (&str, &str) = ("2", "00112233445566778899aabbccddeeff");
const OLD_SIGNING: (&str, &str) = ("a", "0123456789abcdef0123456789abcdef");
const NEW_SIGNING: (&str, &str) = ("b", "ffeeddccbbaa99887766554433221100");

/// A configuration with these secrets for tickets and keys for tokens, each an id and a secret.
fn configuration(tickets: &[(&str, &str)], signing: &[(&str, &str)]) -> String {
    let tickets = tickets
        .iter()
        .map(|(id, secret)| format!("[[ticket_secret]]\nid = \"{id}\"\nsecret = \"{secret}\"\n"));
    let signing = signing
        .iter()
        .map(|(kid, secret)| format!("[[issuer.key]]\nkid = \"{kid}\"\nsecret = \"{secret}\"\n"));
    format!(
        "private_topics = [\"user-*\"]\n\
         [[key]]\nname = \"app\"\nsecret = \"{KEY}\"\npublish = [\"*\"]\nsubscribe = [\"*\"]\nadmin = true\n\
         {}[[issuer]]\niss = \"app\"\naudience = \"{AUDIENCE}\"\n{}",
        tickets.collect::<String>(),
        signing.collect::<String>()
    )
}

/// Hubs on one store, each with a configuration file of its own.
struct Hubs {
    all: Vec<(Hub, PathBuf)>,
    _folder: TempDir,
}

impl Hubs {
    async fn start(store: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut all = Vec::new();
        for number in 0..HUBS {
            let file = folder.path().join(format!("{number}.toml"));
            fs::write(&file, configuration(&[OLD_TICKETS], &[OLD_SIGNING])).unwrap();
            let args = ["--store", store, "--config", file.to_str().unwrap()];
            all.push((Hub::serve(&args).await.unwrap(), file));
        }
        Self { all, _folder: folder }
    }

    fn iter(&self) -> impl Iterator<Item = &Hub> {
        self.all.iter().map(|(hub, _)| hub)
    }
}

async fn with_key(hub: &Hub, head: &str, body: &str) -> String {
    let head = head.replace('\n', &format!("\nAuthorization: Bearer {KEY}\n"));
    let response = hub.request(&head, body.as_bytes()).await.unwrap();
    assert_eq!(response.status, 200, "{response}");
    response.text()
}

async fn ticket(hub: &Hub, expires_secs: u64) -> String {
    let head = "POST /tickets\nContent-Type: application/x-www-form-urlencoded";
    with_key(hub, head, &format!("topic=user-42&expires={expires_secs}")).await
}

fn token((kid, secret): (&str, &str), expires_secs: u64) -> String {
    let issued_at = UNIX_EPOCH.elapsed().unwrap().as_secs();
    let token = NewToken {
        issuer: "app".to_owned(),
        audience: AUDIENCE.to_owned(),
        subject: "42".to_owned(),
        issued_at,
        expires_at: issued_at + expires_secs,
        publish: Vec::new(),
        subscribe: vec!["user-42".into()],
        payload: None,
    };
    let key = SigningKey::new(&Secret::new(secret), None).unwrap().with_kid(Some(kid.to_owned()));
    mint(&token, &key).unwrap()
}

/// Where a request presents a credential: a target and a header field.
type Presented = (String, Option<String>);

fn in_header(token: &str) -> Presented {
    (TOPIC.to_owned(), Some(format!("Authorization: Bearer {token}")))
}

fn in_cookie(token: &str) -> Presented {
    (TOPIC.to_owned(), Some(format!("Cookie: __Secure-mercure_access_token={token}")))
}

fn in_url(ticket: &str) -> Presented {
    (format!("{TOPIC}?ticket={ticket}"), None)
}

async fn open(hub: &Hub, (target, field): &Presented) -> EventStream {
    let fields: Vec<_> = field.iter().map(String::as_str).collect();
    EventStream::open_with(hub.address(), target, &fields).await.unwrap()
}

/// The status for a program that subscribes and reads nothing of the stream.
async fn status(hub: &Hub, (target, field): &Presented) -> u16 {
    let mut connection = Connection::open(hub.address()).await.unwrap();
    let field = field.as_ref().map(|field| format!("\n{field}")).unwrap_or_default();
    connection.request(&format!("GET {target}{field}"), b"").await.unwrap();
    connection.head().await.unwrap().status
}

/// Reads a stream to its end, which has to be announced.
async fn expires(mut stream: EventStream) {
    let mut kinds = Vec::new();
    while let Some(notice) = stream.next_or_end().await.unwrap() {
        let notice: serde_json::Value = serde_json::from_str(&notice.data).unwrap();
        kinds.push(notice["kind"].as_str().unwrap().to_owned());
    }
    assert_eq!(kinds, ["expiring", "expired"]);
}

async fn credentials_expire_at_each_of(hubs: &Hubs) {
    let ticket = ticket(&hubs.all[0].0, EXPIRES_SECS).await;
    let token = token(OLD_SIGNING, EXPIRES_SECS);
    let presented = [in_header(&token), in_cookie(&token), in_url(&ticket)];
    let mut streams = Vec::new();
    for hub in hubs.iter() {
        for presented in &presented {
            streams.push(open(hub, presented).await);
        }
    }
    for stream in streams {
        expires(stream).await;
    }
    // A stream ends a moment before its credential expires.
    for hub in hubs.iter() {
        for presented in &presented {
            let refused = async { while status(hub, presented).await != 401 {} };
            tokio::time::timeout(PATIENCE, refused).await.expect("it expires");
        }
    }
}

#[tokio::test]
async fn credentials_expire_at_each_of_three_hubs_on_redis() {
    let server = RedisServer::start().await.unwrap();
    credentials_expire_at_each_of(&Hubs::start(&server.url()).await).await;
}

#[tokio::test]
async fn credentials_expire_at_each_of_three_hubs_on_nats() {
    let server = NatsServer::start().unwrap();
    credentials_expire_at_each_of(&Hubs::start(&format!("{}/expiry", server.url())).await).await;
}

/// What applications and hubs make while the hubs are reloaded one after the other has to be good
/// at all of them, old or new.
#[tokio::test]
async fn secrets_and_keys_are_replaced_at_one_of_three_hubs_after_the_other() {
    let server = RedisServer::start().await.unwrap();
    let hubs = Hubs::start(&server.url()).await;
    let old = [in_url(&ticket(&hubs.all[0].0, 3_600).await), in_header(&token(OLD_SIGNING, 3_600))];
    let mut stream = open(&hubs.all[2].0, &old[0]).await;

    // Known everywhere before anybody uses it; used; and the old one forgotten.
    let accepted = configuration(&[OLD_TICKETS, NEW_TICKETS], &[OLD_SIGNING, NEW_SIGNING]);
    let used = configuration(&[NEW_TICKETS, OLD_TICKETS], &[OLD_SIGNING, NEW_SIGNING]);
    let removed = configuration(&[NEW_TICKETS], &[NEW_SIGNING]);
    for (text, signing) in [(&accepted, OLD_SIGNING), (&used, NEW_SIGNING)] {
        for (reloaded, file) in &hubs.all {
            fs::write(file, text).unwrap();
            with_key(reloaded, "POST /reload\n", "").await;
            let mut made = vec![in_header(&token(signing, 3_600))];
            for hub in hubs.iter() {
                made.push(in_url(&ticket(hub, 3_600).await));
            }
            for hub in hubs.iter() {
                for presented in made.iter().chain(&old) {
                    assert_eq!(status(hub, presented).await, 200, "{presented:?}");
                }
            }
        }
    }
    let new = [in_url(&ticket(&hubs.all[0].0, 3_600).await), in_header(&token(NEW_SIGNING, 3_600))];
    for (hub, file) in &hubs.all {
        fs::write(file, &removed).unwrap();
        with_key(hub, "POST /reload\n", "").await;
    }
    for hub in hubs.iter() {
        for (old, new) in old.iter().zip(&new) {
            assert_eq!((status(hub, old).await, status(hub, new).await), (401, 200));
        }
    }
    // A stream that is open keeps the permissions that it began with.
    with_key(&hubs.all[1].0, "POST /topics/user-42\n", "to the old one").await;
    assert_eq!(stream.messages(1).await.unwrap(), ["to the old one"]);
}
