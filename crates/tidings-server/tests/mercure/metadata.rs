//! The hub as a protected resource of OAuth 2.0 (RFC 9728). Numbers 27 and 44 of the project's list.

use serde_json::{Value, json};
use tidings_auth::{AuthConfig, IssuerConfig, IssuerKeyConfig, MercureRevision, Secret};
use tidings_server::{AllowedHosts, Settings};

use crate::support::{
    Api, HUB, ISSUER, KEY, PUBLIC_URL, authenticator_with, hub, keyless, token, with_keys, with_keys_and,
};

const METADATA: &str = "/.well-known/oauth-protected-resource/.well-known/mercure";
const METADATA_URL: &str = "https://hub.example/.well-known/oauth-protected-resource/.well-known/mercure";

async fn with(change: impl FnOnce(&mut AuthConfig)) -> Api {
    let hub = hub().await;
    let authenticator = authenticator_with(&hub, change);
    let mut settings = Settings::default();
    settings.allow_hosts = AllowedHosts::Any;
    Api::new(hub, Some(authenticator), settings)
}

fn issuer(name: &str, audiences: &[&str]) -> IssuerConfig {
    IssuerConfig {
        issuer: name.to_owned(),
        audiences: audiences.iter().map(|&url| url.to_owned()).collect(),
        keys: vec![IssuerKeyConfig {
            kid: None,
            key: Secret::new(format!("the shared secret of {name:>32}")),
        }],
        ..IssuerConfig::default()
    }
}

/// Number 44.
#[tokio::test]
async fn the_metadata_state_what_a_token_needs() {
    let api = with_keys().await;
    let answer = api.get(METADATA).answer().await.ok();
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(
        answer.json(),
        json!({
            "resource": PUBLIC_URL,
            "authorization_servers": [ISSUER],
            "authorization_details_types_supported": ["https://mercure.rocks/authorization-detail"],
            "bearer_methods_supported": ["header"],
            "mercure_cookie": "__Secure-mercure_access_token",
            "mercure_matcher_types_supported": ["exact", "urlpattern"],
            "mercure_subscriptions": false,
        })
    );
    // They are public, also where subscribers need a credential.
    let mut settings = Settings::default();
    settings.anonymous_subscribers = false;
    with_keys_and(settings).await.get(METADATA).answer().await.ok();
    let answer = api.ask(http::Method::POST, METADATA).answer().await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "GET,HEAD"));
}

#[tokio::test]
async fn the_configured_cookie_and_only_issuers_with_urls_are_named() {
    let api = with(|config| {
        config.cookie_name = "session".parse().expect("a name");
        config.issuers = vec![
            issuer("my application", &[PUBLIC_URL]),
            issuer("https://login.example/realms/a", &[PUBLIC_URL]),
            issuer("http://login.example", &[PUBLIC_URL]),
        ];
        let mut older = issuer("https://older.example", &[]);
        older.revision = MercureRevision::Older;
        config.issuers.push(older);
    })
    .await;
    let metadata = api.get(METADATA).answer().await.ok().json();
    assert_eq!(metadata["mercure_cookie"], "session");
    assert_eq!(metadata["authorization_servers"], json!(["https://login.example/realms/a"]));

    let api = with(|config| config.issuers = vec![issuer("my application", &[PUBLIC_URL])]).await;
    let metadata = api.get(METADATA).answer().await.ok().json();
    assert_eq!(metadata.get("authorization_servers"), None, "RFC 9728: no empty list");
}

/// RFC 9728, section 3.3: a client compares the identifier with the URL that it uses. It is always
/// one of the audiences.
#[tokio::test]
async fn the_identifier_is_the_audience_of_the_host_that_the_client_addressed() {
    let other = "https://other.example:8443/.well-known/mercure";
    let apart = "https://audience.example/somewhere/else";
    let api =
        with(|config| config.issuers = vec![issuer("a", &[apart, other]), issuer("b", &[other, PUBLIC_URL])])
            .await;
    for (host, resource) in [
        ("hub.example", PUBLIC_URL),
        ("other.example:8443", other),
        ("OTHER.example:8443", other),
        ("other.example", PUBLIC_URL),
        ("audience.example", PUBLIC_URL),
        ("evil.example", PUBLIC_URL),
        ("127.0.0.1:8080", PUBLIC_URL),
    ] {
        let metadata = api.get(METADATA).header("host", host).answer().await.ok().json();
        assert_eq!(metadata["resource"], resource, "{host}");
    }
    let alone = with(|config| config.issuers = vec![issuer("a", &[apart])]).await;
    let metadata = alone.get(METADATA).header("host", "evil.example").answer().await.ok().json();
    assert_eq!(metadata["resource"], apart);
    // Its metadata would be at another path.
    let answer = alone.get(&format!("{HUB}?match=a")).bearer("a.b.c").answer().await;
    assert!(!answer.header("www-authenticate").contains("resource_metadata"), "{answer:?}");
}

/// Number 27.
#[tokio::test]
async fn a_refusal_of_the_mercure_api_names_the_metadata() {
    let api = with_keys().await;
    let bare = api.form("topic=a").answer().await;
    bare.refused(401);
    assert_eq!(bare.header("www-authenticate"), format!("Bearer resource_metadata=\"{METADATA_URL}\""));
    let elsewhere = token(&["b"], &[]);
    for (credential, status, code) in
        [("a.b.c", 401, "invalid_token"), (&*elsewhere, 403, "insufficient_scope")]
    {
        let answer = api.form("topic=a").bearer(credential).answer().await;
        answer.refused(status);
        let challenge = answer.header("www-authenticate");
        assert!(
            challenge.starts_with(&format!("Bearer error=\"{code}\", error_description=\"")),
            "{challenge}"
        );
        assert!(challenge.ends_with(&format!("\", resource_metadata=\"{METADATA_URL}\"")), "{challenge}");
        assert_eq!(challenge.matches('"').count(), 6, "{challenge}");
    }
    // The native API is at other URLs than the resource.
    let native = api.post("/topics/a", "1").answer().await;
    assert_eq!(native.header("www-authenticate"), "Bearer");
    api.form("topic=a").bearer(KEY).answer().await.ok();
}

#[tokio::test]
async fn a_hub_without_issuers_is_no_protected_resource() {
    let keys_alone = with(|config| config.issuers.clear()).await;
    for api in [keyless().await, keys_alone] {
        let detail = api.get(METADATA).answer().await.refused(404);
        assert!(detail.contains("[[issuer]]"), "{detail}");
    }
    let keys_alone = with(|config| config.issuers.clear()).await;
    let answer = keys_alone.form("topic=a").answer().await;
    assert_eq!(answer.header("www-authenticate"), "Bearer");
}

/// DNS rebinding: the hosts that a hub does not know are refused here, too.
#[tokio::test]
async fn the_metadata_are_for_known_hosts() {
    let api = with_keys().await;
    for target in [METADATA, &format!("{HUB}?match=a")] {
        api.get(target).header("host", "evil.example").answer().await.refused(421);
    }
    let metadata: Value = api.get(METADATA).header("host", "hub.example").answer().await.ok().json();
    assert_eq!(metadata["resource"], PUBLIC_URL);
}
