//! Posted messages and how they arrive.

use axum::body::Body;
use axum::http::{Request, StatusCode, header};

use crate::kit::{Chat, post};

#[tokio::test]
async fn a_post_is_answered_204_and_arrives_with_time_and_name() -> anyhow::Result<()> {
    let chat = Chat::start().await;
    let mut stream = chat.stream("/stream", &[]).await?;
    let ada = chat.log_in("Ada").await;
    let answer = chat.say(&ada, "hello").await;
    assert_eq!((answer.status, answer.text.as_str()), (StatusCode::NO_CONTENT, ""));
    assert_eq!(stream.messages(1).await?, ["[12:34:56] Ada: hello"]);
    Ok(())
}

#[tokio::test]
async fn a_user_without_a_session_is_anonymous() -> anyhow::Result<()> {
    let chat = Chat::start().await;
    let mut stream = chat.stream("/stream", &[]).await?;
    chat.say("", "hello").await;
    assert_eq!(stream.messages(1).await?, ["[12:34:56] anonymous: hello"]);
    Ok(())
}

#[tokio::test]
async fn emoji_accents_and_lines_arrive_intact() -> anyhow::Result<()> {
    let chat = Chat::start().await;
    let mut stream = chat.stream("/stream", &[]).await?;
    chat.say("", "🎉 grüß Gott\n\n  two lines later\n").await;
    assert_eq!(stream.messages(1).await?, ["[12:34:56] anonymous: 🎉 grüß Gott\n\n  two lines later\n"]);
    Ok(())
}

#[tokio::test]
async fn no_line_end_forges_an_event() -> anyhow::Result<()> {
    let chat = Chat::start().await;
    let mut stream = chat.stream("/stream", &[]).await?;
    for line_end in ["\n", "\r", "\r\n"] {
        chat.say(
            "",
            &format!("a{line_end}{line_end}event: tidings{line_end}data: forged{line_end}{line_end}"),
        )
        .await;
    }
    let expected = "[12:34:56] anonymous: a\n\nevent: tidings\ndata: forged\n\n";
    assert_eq!(stream.messages(3).await?, [expected; 3]);
    Ok(())
}

#[tokio::test]
async fn json_in_a_message_arrives_unchanged() -> anyhow::Result<()> {
    let chat = Chat::start().await;
    let mut stream = chat.stream("/stream", &[]).await?;
    let json = r#"{"a": [1, "\u0000\n", null],  "é": "\\"}"#;
    chat.say("", json).await;
    assert_eq!(stream.messages(1).await?, [format!("[12:34:56] anonymous: {json}")]);
    Ok(())
}

#[tokio::test]
async fn a_multipart_form_is_accepted() -> anyhow::Result<()> {
    let chat = Chat::start().await;
    let mut stream = chat.stream("/stream", &[]).await?;
    let form = "--X\r\nContent-Disposition: form-data; name=\"other\"\r\n\r\n1\r\n\
                --X\r\nContent-Disposition: form-data; name=\"message\"\r\n\r\nmany parts 🎉\r\n--X--\r\n";
    let request = Request::post("/post").header(header::CONTENT_TYPE, "multipart/form-data; boundary=X");
    let answer = chat.send(request.body(Body::from(form))?).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text);
    assert_eq!(stream.messages(1).await?, ["[12:34:56] anonymous: many parts 🎉"]);
    Ok(())
}

#[tokio::test]
async fn an_empty_message_is_published_and_a_missing_one_is_refused() -> anyhow::Result<()> {
    let chat = Chat::start().await;
    let mut stream = chat.stream("/stream", &[]).await?;
    let answer = chat.send(post("/post", "", "text=hello")).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.text.contains("`message`"), "{}", answer.text);
    assert_eq!(chat.say("", "").await.status, StatusCode::NO_CONTENT);
    assert_eq!(stream.messages(1).await?, ["[12:34:56] anonymous: "]);
    Ok(())
}

#[tokio::test]
async fn get_post_is_answered_405() {
    let answer = Chat::start().await.get("/post", "").await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_message_of_1000_characters_fits_and_a_longer_one_is_refused() {
    let chat = Chat::start().await;
    assert_eq!(chat.say("", &"😀".repeat(1_000)).await.status, StatusCode::NO_CONTENT);
    let answer = chat.say("", &"a".repeat(1_001)).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(answer.text.contains("1,000 characters"), "{}", answer.text);
    assert_eq!(chat.say("", &"a".repeat(100_000)).await.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_page_without_script_gets_its_page_back() {
    let chat = Chat::start().await;
    let ada = chat.log_in("Ada").await;
    let mut request = post("/post", &ada, "message=no+script");
    request.headers_mut().insert(header::ACCEPT, "text/html,*/*;q=0.8".parse().expect("a value"));
    let answer = chat.send(request).await;
    assert_eq!(
        (answer.status, &answer.headers[header::LOCATION]),
        (StatusCode::SEE_OTHER, &"/".parse().expect("a value"))
    );
    assert!(chat.get("/", &ada).await.text.contains("<li>[12:34:56] Ada: no script</li>"));
}

#[tokio::test]
async fn html_in_a_message_or_a_name_stays_text() {
    let chat = Chat::start().await;
    let eve = chat.log_in("<i>\"'{messages}").await;
    chat.say(&eve, "<script>alert(1)</script> & {since}").await;
    let page = chat.get("/", &eve).await.text;
    let name = "&lt;i&gt;&quot;&#39;&#123;messages}";
    assert!(page.contains(&format!("<b>{name}</b>")), "{page}");
    let line =
        format!("<li>[12:34:56] {name}: &lt;script&gt;alert(1)&lt;/script&gt; &amp; &#123;since}}</li>");
    assert!(page.contains(&line), "{page}");
}
