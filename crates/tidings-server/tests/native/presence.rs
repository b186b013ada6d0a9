//! Who may see who is subscribed.

use std::sync::Arc;

use tidings_presence::PresenceIndex;
use tidings_server::{Keyless, Settings};

use crate::support::*;

const CHAT: &str = "/topics/chat/presence";

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.presence = Some(Arc::new(PresenceIndex::default()));
    settings
}

#[tokio::test]
async fn presence_needs_a_credential_for_the_topic_that_reports_it() {
    let api = with_keys_and(settings()).await;
    api.get(CHAT).answer().await.refused(401);
    let detail = api.get(CHAT).bearer(CHAT_KEY).answer().await.refused(403);
    assert!(detail.contains("chat/presence"), "{detail}");
    for credential in [KEY.to_owned(), token(&[], &["chat/presence"])] {
        let shown = api.get(CHAT).bearer(&credential).answer().await.ok();
        assert!(shown.body.contains("\"subscribers\":0"), "{}", shown.body);
        assert_eq!(shown.headers["content-type"], "application/json");
        api.get("/topics/news/presence").bearer(CHAT_KEY).answer().await.refused(403);
    }
    api.get("/topics/news/presence").bearer(&token(&[], &["chat/presence"])).answer().await.refused(403);
}

#[tokio::test]
async fn presence_on_a_hub_without_keys_is_for_this_machine() {
    keyless_with(settings()).await.get(CHAT).answer().await.ok();
    let mut anywhere = settings();
    anywhere.keyless = Keyless::Anywhere;
    keyless_with(anywhere).await.get(CHAT).answer().await.refused(403);
}
