//! Names, their cookie, and presence.

use axum::http::{StatusCode, header};
use tidings_testkit::EventStream;

use crate::kit::{Chat, encode, post};

#[tokio::test]
async fn the_page_asks_for_a_name_first() {
    let chat = Chat::start().await;
    let answer = chat.get("/", "").await;
    assert_eq!(
        (answer.status, answer.headers[header::LOCATION].as_bytes()),
        (StatusCode::SEE_OTHER, &b"/login"[..])
    );
    assert_eq!(chat.get("/login", "").await.status, StatusCode::OK);
    let ada = chat.log_in("  Ada 🐑; = ").await;
    let page = chat.get("/", &ada).await.text;
    assert!(page.contains("<title>chat</title>"));
    assert!(page.contains("hi, <b>Ada 🐑; =</b>!"), "{page}");
}

#[tokio::test]
async fn an_invalid_name_shows_the_form_again() {
    let chat = Chat::start().await;
    for name in ["", " \t", "a: b", "a\nb", &"a".repeat(33)] {
        let answer = chat.send(post("/login", "", &format!("user={}", encode(name)))).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{name:?}");
        assert!(answer.text.contains("name of 1 to 32 characters"), "{}", answer.text);
        assert!(answer.text.contains("<form"), "{}", answer.text);
        assert!(!answer.headers.contains_key(header::SET_COOKIE));
    }
    assert_eq!(chat.send(post("/login", "", "")).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_cookie_is_kept_from_scripts_and_other_sites() {
    let chat = Chat::start().await;
    let answer = chat.send(post("/login", "", "user=Ada")).await;
    let cookie = answer.headers[header::SET_COOKIE].to_str().expect("text");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
}

#[tokio::test]
async fn a_forged_cookie_is_anonymous() -> anyhow::Result<()> {
    let chat = Chat::start().await;
    let ada = chat.log_in("Ada").await;
    let forged = ada.replace("Ada", "Eve");
    let elsewhere = Chat::start().await.log_in("Ada").await;
    let mut stream = chat.stream("/stream", &[]).await?;
    for cookie in ["user=Ada", &forged, &elsewhere] {
        assert_eq!(chat.get("/", cookie).await.status, StatusCode::SEE_OTHER);
        chat.say(cookie, "hello").await;
        assert_eq!(stream.messages(1).await?, ["[12:34:56] anonymous: hello"]);
    }
    Ok(())
}

#[tokio::test]
async fn a_browser_that_leaves_is_forgotten() {
    let chat = Chat::start().await;
    let ada = chat.log_in("Ada").await;
    let answer = chat.send(post("/logout", &ada, "")).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    let cookie = answer.headers[header::SET_COOKIE].to_str().expect("text");
    assert!(cookie.starts_with("user=;") && cookie.contains("Path=/"), "{cookie}");
}

#[tokio::test]
async fn each_user_is_present_once_with_any_number_of_tabs() -> anyhow::Result<()> {
    let chat = Chat::start().await;
    let [ada, bob] =
        [chat.log_in("Ada").await, chat.log_in("Bob").await].map(|cookie| format!("Cookie: {cookie}"));
    let mut first = chat.stream("/stream?presence", &[&ada]).await?;
    present_until(&mut first, r#"["Ada"]"#).await?;
    let mut second = chat.stream("/stream?presence", &[&bob]).await?;
    present_until(&mut second, r#"["Ada","Bob"]"#).await?;
    present_until(&mut first, r#"["Ada","Bob"]"#).await?;

    let mut another_tab = chat.stream("/stream?presence&since=now", &[&ada]).await?;
    present_until(&mut another_tab, r#"["Ada","Bob"]"#).await?;
    present_until(&mut second, r#"["Ada","Bob"]"#).await?;
    drop(first);
    present_until(&mut second, r#"["Ada","Bob"]"#).await?;
    drop(another_tab);
    present_until(&mut second, r#"["Bob"]"#).await?;
    Ok(())
}

/// Reads the next presence list, or two: whether changes that follow closely are published together
/// depends on their timing.
async fn present_until(stream: &mut EventStream, names: &str) -> anyhow::Result<()> {
    loop {
        let event = stream.next().await?;
        assert_eq!(event.event_type, "presence", "{event:?}");
        if event.data == names {
            return Ok(());
        }
    }
}

#[tokio::test]
async fn a_stream_without_presence_receives_only_messages() -> anyhow::Result<()> {
    let chat = Chat::start().await;
    let mut quiet = chat.stream("/stream", &[]).await?;
    let mut curious = chat.stream("/stream?presence", &[]).await?;
    present_until(&mut curious, r#"["anonymous"]"#).await?;
    chat.say("", "hello").await;
    assert_eq!(quiet.messages(1).await?, ["[12:34:56] anonymous: hello"]);
    Ok(())
}
