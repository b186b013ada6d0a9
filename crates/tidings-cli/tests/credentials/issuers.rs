//! Issuers of tokens whose keys the hub fetches, with endpoints that behave well and badly. The
//! numbers of rules are those of the security checklist: 4 the lookup of a key, 12 what is fetched.

use std::{
    env,
    fmt::Write,
    fs,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidings_auth::{NewToken, Secret, SigningKey, mint};
use tidings_testkit::{Application, Connection, Ed25519Pair, Hub, Reply, patiently};

const AUDIENCE: &str = "https://hub.example/.well-known/mercure";
/// An issuer that shares a secret with the hub.
const NEIGHBOUR: &str = "https://neighbour.example";
const NEIGHBOUR_SECRET: &str = "the secret of another issuer, which is long enough";
const KEY: &str = "tk_a-key-that-may-do-everything";

/// An issuer's key pair.
struct Pair(Ed25519Pair);

impl Pair {
    fn new() -> Self {
        Self(Ed25519Pair::generate().unwrap())
    }

    fn jwk(&self, kid: &str) -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": kid, "x": URL_SAFE_NO_PAD.encode(&self.0.public) })
    }

    /// A token of this issuer that may publish everything.
    fn token(&self, issuer: &str, kid: Option<&str>) -> String {
        token(issuer, kid, &self.0.private_pem.as_str().into())
    }
}

fn token(issuer: &str, kid: Option<&str>, key: &Secret) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let token = NewToken {
        issuer: issuer.to_owned(),
        audience: AUDIENCE.to_owned(),
        subject: "kevin".to_owned(),
        issued_at: now,
        expires_at: now + 600,
        publish: vec!["*".into()],
        subscribe: vec![],
        payload: None,
    };
    let key = SigningKey::new(key, None).unwrap().with_kid(kid.map(str::to_owned));
    mint(&token, &key).unwrap()
}

fn neighbour() -> String {
    token(NEIGHBOUR, None, &NEIGHBOUR_SECRET.into())
}

fn key_set(keys: &[Value]) -> Reply {
    Reply::with("200 OK", "Content-Type: application/jwk-set+json\r\n", &json!({ "keys": keys }).to_string())
}

/// An endpoint whose reply the test can change.
struct Endpoint {
    application: Application,
    reply: Arc<Mutex<Reply>>,
}

impl Endpoint {
    async fn start(reply: Reply) -> Self {
        let reply = Arc::new(Mutex::new(reply));
        let current = Arc::clone(&reply);
        let application = Application::start(move |_| current.lock().unwrap().clone()).await.unwrap();
        Self { application, reply }
    }

    fn answers(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }

    fn fetches(&self) -> usize {
        self.application.requests().len()
    }

    /// The lines of an issuer whose keys are here.
    fn issuer(&self, name: &str, lines: &str) -> String {
        let url = self.application.url("/jwks");
        format!("[[issuer]]\niss = \"{name}\"\naudience = \"{AUDIENCE}\"\njwks_url = \"{url}\"\n{lines}\n")
    }
}

/// A hub with a key, an issuer with a secret, and these further issuers.
async fn hub(issuers: &str) -> (Hub, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidings.toml");
    let text = format!(
        "public_url = \"https://hub.example\"\n\
         [[key]]\nname = \"all\"\nsecret = \"{KEY}\"\npublish = [\"*\"]\nadmin = true\n\
         [[issuer]]\niss = \"{NEIGHBOUR}\"\nsecret = \"{NEIGHBOUR_SECRET}\"\n{issuers}"
    );
    fs::write(&file, text).unwrap();
    (Hub::serve(&["--config", file.to_str().unwrap()]).await.unwrap(), folder)
}

/// The status and body of a publication with this credential.
async fn publish(hub: &Hub, credential: &str) -> (u16, String) {
    let mut connection = Connection::open(hub.address()).await.unwrap();
    let request = format!(
        "POST /topics/a HTTP/1.1\r\nHost: hub.example\r\nAuthorization: Bearer {credential}\r\nContent-Length: 1\r\n\r\nx"
    );
    connection.send(request).await.unwrap();
    let response = connection.response().await.unwrap();
    (response.status, response.text())
}

async fn status(hub: &Hub, credential: &str) -> u16 {
    publish(hub, credential).await.0
}

#[tokio::test]
async fn keys_are_rotated_without_a_refused_request() {
    const ISSUER: &str = "https://issuer.example";
    let [old, new] = [Pair::new(), Pair::new()];
    let endpoint = Endpoint::start(key_set(&[old.jwk("old")])).await;
    let lines = "allow_private = true\nrefresh_secs_min = 1";
    let (hub, _folder) = hub(&endpoint.issuer(ISSUER, lines)).await;
    let old_token = old.token(ISSUER, Some("old"));
    let new_token = new.token(ISSUER, Some("new"));

    // The first request waits for the first fetch.
    assert_eq!(status(&hub, &old_token).await, 200);
    assert_eq!(status(&hub, &new_token).await, 401);
    // Tokens with the new key arrive as soon as it is published. The hub has just asked for it in
    // vain, so it may ask again only a second later.
    endpoint.answers(key_set(&[old.jwk("old"), new.jwk("new")]));
    patiently("the new key", async { while status(&hub, &new_token).await != 200 {} }).await.unwrap();
    assert_eq!(status(&hub, &old_token).await, 200);

    // From here on tokens with the new key are accepted always, and those with the old one until a
    // fetch no longer finds it.
    endpoint.answers(key_set(&[new.jwk("new")]));
    let fetches = endpoint.fetches();
    let unknown = new.token(ISSUER, Some("unknown"));
    patiently("a fetch", async {
        while endpoint.fetches() == fetches {
            assert_eq!(status(&hub, &new_token).await, 200);
            assert_eq!(status(&hub, &unknown).await, 401);
        }
    })
    .await
    .unwrap();
    patiently("the old key to be withdrawn", async { while status(&hub, &old_token).await == 200 {} })
        .await
        .unwrap();
    assert_eq!(status(&hub, &old_token).await, 401);
    assert_eq!(status(&hub, &new_token).await, 200);
}

#[tokio::test]
async fn a_token_with_a_new_kid_waits_for_its_key() {
    const ISSUER: &str = "https://issuer.example";
    let [old, new] = [Pair::new(), Pair::new()];
    let endpoint = Endpoint::start(key_set(&[old.jwk("old")])).await;
    let (hub, _folder) = hub(&endpoint.issuer(ISSUER, "allow_private = true")).await;
    assert_eq!(status(&hub, &old.token(ISSUER, Some("old"))).await, 200);
    endpoint.answers(key_set(&[old.jwk("old"), new.jwk("new")]));
    let token = new.token(ISSUER, Some("new"));
    let requests = (0..8).map(|_| status(&hub, &token));
    assert_eq!(futures_util::future::join_all(requests).await, [200; 8]);
    assert_eq!(endpoint.fetches(), 2, "one fetch for all of them");
}

#[tokio::test]
async fn rule_4_unknown_kids_cause_one_fetch_in_an_interval() {
    const ISSUER: &str = "https://issuer.example";
    let [pair, other] = [Pair::new(), Pair::new()];
    let endpoint = Endpoint::start(key_set(&[pair.jwk("1")])).await;
    let lines = "allow_private = true\nrefresh_secs_min = 300";
    let (hub, _folder) = hub(&endpoint.issuer(ISSUER, lines)).await;
    assert_eq!(status(&hub, &pair.token(ISSUER, Some("1"))).await, 200);
    for round in 0..5 {
        let tokens: Vec<_> = (0..20).map(|n| other.token(ISSUER, Some(&format!("{round}-{n}")))).collect();
        let statuses = futures_util::future::join_all(tokens.iter().map(|token| status(&hub, token))).await;
        assert_eq!(statuses, [401; 20]);
    }
    assert_eq!(endpoint.fetches(), 2, "one at the start, and one that tokens caused");
}

#[tokio::test]
async fn rule_4_what_a_token_names_is_never_fetched() {
    let pair = Pair::new();
    let attacker = Endpoint::start(key_set(&[pair.jwk("1")])).await;
    let endpoint = Endpoint::start(key_set(&[pair.jwk("1")])).await;
    let (hub, _folder) = hub(&endpoint.issuer("https://issuer.example", "allow_private = true")).await;
    let url = attacker.application.url("/jwks");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({ "iss": "https://issuer.example", "aud": AUDIENCE, "exp": now + 600, "jku": url });
    for (header, iss) in [
        (json!({ "jku": url, "kid": "2" }), None),
        (json!({ "x5u": url, "kid": "2" }), None),
        (json!({ "jku": url, "jwk": pair.jwk("2") }), None),
        (json!({ "kid": url }), None),
        (json!({}), Some(url.as_str())),
    ] {
        let mut header = header;
        header["typ"] = json!("at+jwt");
        header["alg"] = json!("EdDSA");
        let mut claims = claims.clone();
        claims["iss"] = json!(iss.unwrap_or("https://issuer.example"));
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let forged = format!("{}.{}.{}", encode(&header), encode(&claims), URL_SAFE_NO_PAD.encode([7; 64]));
        assert_eq!(status(&hub, &forged).await, 401, "{header}");
    }
    assert_eq!(attacker.application.connections(), 0);
}

#[tokio::test]
async fn endpoints_that_hang_lie_redirect_or_flood_affect_no_other_issuer() {
    let pair = Pair::new();
    let redirected = Endpoint::start(key_set(&[pair.jwk("1")])).await;
    let location = format!("Location: {}\r\n", redirected.application.url("/jwks"));
    let private = {
        let mut jwk = pair.jwk("1");
        jwk["d"] = json!("AAAA");
        jwk
    };
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";
    let replies = [
        (Reply::Hang(String::new()), "no complete response within 5s"),
        (Reply::Hang("HTTP/1.1 200 OK\r\nContent-".to_owned()), "no complete response within 5s"),
        (Reply::Hang(format!("{head}{{\"keys\":[")), "no complete response within 5s"),
        (Reply::Close(format!("{head}{{\"keys\":[")), "error decoding response body"),
        (Reply::Flood("HTTP/1.1 200 OK\r\n\r\n".to_owned(), " ".repeat(65_536)), "longer than 262144 bytes"),
        (Reply::Flood("HTTP/1.1 200 OK\r\n".to_owned(), "X-Y: z\r\n".repeat(100)), "error sending request"),
        (Reply::with("200 OK", "", &" ".repeat(10 << 20)), "longer than 262144 bytes"),
        (Reply::with("302 Found", &location, ""), "redirects are not followed"),
        (Reply::with("307 Temporary Redirect", &location, ""), "redirects are not followed"),
        (Reply::with("500 Internal Server Error", "", "{}"), "instead of 200"),
        (Reply::with("200 OK", "", "<html>"), "not a JSON Web Key Set"),
        (Reply::Bytes("\u{0}\u{1}\r\n\r\n".to_owned()), "error sending request"),
        (key_set(&[]), "no key that can verify tokens"),
        (key_set(&[pair.jwk("1"), json!({ "kty": "oct", "k": "AAAA" })]), "a shared secret"),
        (key_set(&[private]), "a private key"),
        (key_set(&[pair.jwk("1"), pair.jwk("1")]), "the `kid` `1`"),
    ];
    let mut endpoints = Vec::new();
    let mut issuers = String::new();
    for (index, (reply, _)) in replies.iter().enumerate() {
        let endpoint = Endpoint::start(reply.clone()).await;
        write!(issuers, "{}", endpoint.issuer(&format!("https://{index}.example"), "allow_private = true"))
            .unwrap();
        endpoints.push(endpoint);
    }
    let good = Endpoint::start(key_set(&[pair.jwk("1")])).await;
    issuers += &good.issuer("https://good.example", "allow_private = true");
    let (hub, _folder) = hub(&issuers).await;

    let bad_tokens: Vec<_> =
        (0..replies.len()).map(|index| pair.token(&format!("https://{index}.example"), Some("1"))).collect();
    let bad = futures_util::future::join_all(bad_tokens.iter().map(|token| publish(&hub, token)));
    let others = async {
        for _ in 0..50 {
            assert_eq!(status(&hub, KEY).await, 200);
            assert_eq!(status(&hub, &neighbour()).await, 200);
            assert_eq!(status(&hub, &pair.token("https://good.example", Some("1"))).await, 200);
        }
    };
    let (bad, ()) = tokio::join!(bad, others);
    for (index, (status, body)) in bad.iter().enumerate() {
        assert_eq!(*status, 503, "{index}: {body}");
        assert!(body.contains("keys of the token's issuer"), "{index}: {body}");
    }
    for (index, (_, reason)) in replies.iter().enumerate() {
        let issuer = format!("issuer=https://{index}.example ");
        let quoted = format!("issuer=\"https://{index}.example\" ");
        patiently("the reason in the log", async {
            while !hub
                .output()
                .iter()
                .any(|line| (line.contains(&issuer) || line.contains(&quoted)) && line.contains(reason))
            {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap_or_else(|error| panic!("{index} {reason}: {error}\n{}", hub.output().join("\n")));
    }
    assert_eq!(redirected.application.connections(), 0);
    assert_eq!(status(&hub, KEY).await, 200);
}

#[tokio::test]
async fn a_hanging_endpoint_delays_only_so_many_requests() {
    const ISSUER: &str = "https://issuer.example";
    let [pair, other] = [Pair::new(), Pair::new()];
    let endpoint = Endpoint::start(key_set(&[pair.jwk("1")])).await;
    let (hub, _folder) = hub(&endpoint.issuer(ISSUER, "allow_private = true")).await;
    let good = pair.token(ISSUER, Some("1"));
    assert_eq!(status(&hub, &good).await, 200);
    endpoint.answers(Reply::Hang(String::new()));
    let unknown = other.token(ISSUER, Some("2"));
    let flood = futures_util::future::join_all((0..200).map(|_| status(&hub, &unknown)));
    let others = async {
        endpoint.application.has_requests(2).await.unwrap();
        for _ in 0..50 {
            assert_eq!(status(&hub, &good).await, 200);
            assert_eq!(status(&hub, &neighbour()).await, 200);
            assert_eq!(status(&hub, KEY).await, 200);
        }
    };
    let (flood, ()) = tokio::join!(flood, others);
    assert_eq!(flood, [401; 200]);
    assert_eq!(endpoint.fetches(), 2);
    // The keys of before are still there after the fetch has failed.
    patiently("the end of the fetch", async {
        while !hub.output().iter().any(|line| line.contains("checked with the keys that were fetched before"))
        {
            assert_eq!(status(&hub, &good).await, 200);
        }
    })
    .await
    .unwrap();
    assert_eq!(status(&hub, &good).await, 200);
}

#[tokio::test]
async fn rule_12_keys_on_a_private_address_are_not_fetched_unless_allowed() {
    let pair = Pair::new();
    let endpoint = Endpoint::start(key_set(&[pair.jwk("1")])).await;
    let by_name = endpoint.issuer("https://name.example", "").replace("127.0.0.1", "localhost");
    let (hub, _folder) = hub(&format!("{}{by_name}", endpoint.issuer("https://address.example", ""))).await;
    for issuer in ["https://address.example", "https://name.example"] {
        assert_eq!(status(&hub, &pair.token(issuer, Some("1"))).await, 503, "{issuer}");
    }
    let refusals = hub.output().iter().filter(|line| line.contains("allow_private = true")).count();
    assert!(refusals >= 2, "{}", hub.output().join("\n"));
    assert_eq!(endpoint.application.connections(), 0);
}

#[tokio::test]
async fn issuers_without_keys_are_counted_and_the_hub_stays_ready() {
    let pair = Pair::new();
    let [good, bad] = [
        Endpoint::start(key_set(&[pair.jwk("1")])).await,
        Endpoint::start(Reply::with("404 Not Found", "", "")).await,
    ];
    let allow = "allow_private = true";
    let (hub, _folder) = hub(&format!(
        "{}{}",
        good.issuer("https://good.example", allow),
        bad.issuer("https://bad.example", allow)
    ))
    .await;
    assert_eq!(status(&hub, &pair.token("https://good.example", Some("1"))).await, 200);
    assert_eq!(status(&hub, &pair.token("https://bad.example", Some("1"))).await, 503);
    let mut connection = Connection::open(hub.address()).await.unwrap();
    let get = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: hub.example\r\nAuthorization: Bearer {KEY}\r\n\r\n")
    };
    connection.send(get("/metrics")).await.unwrap();
    let metrics = connection.response().await.unwrap().text();
    for line in [
        "tidings_issuers_without_keys{keys=\"issuers\"} 1",
        "tidings_issuer_keys_fetched_total{keys=\"issuers\"} 1",
        "tidings_issuer_keys_failed_total{keys=\"issuers\"} ",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    connection.send(get("/readyz")).await.unwrap();
    assert_eq!(connection.response().await.unwrap().status, 200);
}

/// The blocks of this language in docs/tokens.md.
fn blocks(language: &str) -> Vec<String> {
    let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/tokens.md")).unwrap();
    let fence = format!("```{language}\n");
    let blocks = document.split(&fence).skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_configurations_and_commands_of_the_document_are_valid() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["2026-11", "2026-12"] {
        let pair = Ed25519Pair::generate().unwrap();
        fs::write(folder.path().join(format!("{name}.key")), pair.private_pem).unwrap();
        fs::write(folder.path().join(format!("{name}.pem")), pair.public_pem).unwrap();
    }
    let file = folder.path().join("tidings.toml");
    let path = env::join_paths(
        [Path::new(env!("CARGO_BIN_EXE_tidings")).parent().unwrap().to_owned()]
            .into_iter()
            .chain(env::split_paths(&env::var_os("PATH").unwrap())),
    )
    .unwrap();
    let shell = |line: &str| {
        let output = Command::new("sh")
            .args(["-c", line])
            .current_dir(folder.path())
            .env("PATH", &path)
            .env("SIGNING_KEY", NEIGHBOUR_SECRET)
            .output()
            .unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let configurations = blocks("toml");
    assert_eq!(configurations.len(), 2);
    for text in configurations {
        fs::write(&file, text).unwrap();
        let printed = shell("tidings serve --check --config tidings.toml");
        assert!(printed.contains("[[issuer]]"), "{printed}");
    }
    // The last configuration is that of the keys in files, which the commands use.
    let [commands] = &blocks("sh")[..] else { panic!("one block of commands") };
    let [new, show] = commands.lines().collect::<Vec<_>>()[..] else { panic!("two commands") };
    let shown = shell(&format!("TOKEN=$({new}) && {show}"));
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["header"]["kid"], "2026-12");
    assert_eq!(shown["claims"]["iss"], "https://app.example.com");
    assert_eq!(shown["claims"]["aud"], "https://hub.example.com/.well-known/mercure");
}
