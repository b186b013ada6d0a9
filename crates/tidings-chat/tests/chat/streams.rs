//! How a stream begins, resumes and ends.

use crate::kit::Chat;

fn said(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| format!("[12:34:56] anonymous: {number}")).collect()
}

async fn say(chat: &Chat, numbers: std::ops::Range<usize>) {
    for number in numbers {
        chat.say("", &number.to_string()).await;
    }
}

#[tokio::test]
async fn a_stream_is_answered_before_the_first_message() -> anyhow::Result<()> {
    // Opening waits for the response headers, and no message is ever published here.
    let stream = Chat::start().await.stream("/stream", &[]).await?;
    assert_eq!(stream.response().header("content-type"), Some("text/event-stream"));
    assert_eq!(stream.response().header("cache-control"), Some("no-store, no-transform"));
    Ok(())
}

#[tokio::test]
async fn the_first_event_is_the_first_message() -> anyhow::Result<()> {
    let chat = Chat::start().await;
    let mut stream = chat.stream("/stream", &[]).await?;
    say(&chat, 0..1).await;
    let event = stream.next().await?;
    assert_eq!((event.event_type.as_str(), event.data), ("message", said(0..1).remove(0)));
    Ok(())
}

#[tokio::test]
async fn all_subscribers_receive_everything_in_the_same_order() -> anyhow::Result<()> {
    let chat = Chat::start().await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(chat.stream("/stream", &[]).await?);
    }
    tokio::join!(say(&chat, 0..30), say(&chat, 30..60), say(&chat, 60..90));
    let first = streams[0].messages(90).await?;
    let mut sorted = first.clone();
    sorted.sort_by_key(|text| text.rsplit(' ').next().and_then(|number| number.parse::<usize>().ok()));
    assert_eq!(sorted, said(0..90));
    for stream in &mut streams[1..] {
        assert_eq!(stream.messages(90).await?, first);
    }
    Ok(())
}

#[tokio::test]
async fn a_new_browser_sees_the_last_50_messages_however_many_joined_and_left() -> anyhow::Result<()> {
    let chat = Chat::start().await;
    say(&chat, 0..60).await;
    for _ in 0..3 {
        let mut visitor = chat.stream("/stream?presence&since=now", &[]).await?;
        assert_eq!(visitor.next().await?.event_type, "presence");
    }
    let mut stream = chat.stream("/stream", &[]).await?;
    say(&chat, 60..61).await;
    assert_eq!(stream.messages(51).await?, said(10..61));
    Ok(())
}

#[tokio::test]
async fn the_page_shows_the_last_50_newest_first_and_its_stream_continues() -> anyhow::Result<()> {
    let chat = Chat::start().await;
    say(&chat, 0..60).await;
    let ada = chat.log_in("Ada").await;
    let page = chat.get("/", &ada).await.text;
    let lines: Vec<_> = page.split("<li>").skip(1).filter_map(|line| line.split("</li>").next()).collect();
    let expected: Vec<_> = said(10..60).into_iter().rev().collect();
    assert_eq!(lines, expected);

    say(&chat, 60..61).await;
    let since =
        page.split("data-since=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a position");
    let mut stream = chat.stream(&format!("/stream?since={}", since.replace('#', "%23")), &[]).await?;
    assert_eq!(stream.messages(1).await?, said(60..61));
    Ok(())
}

#[tokio::test]
async fn a_browser_that_lost_its_connection_misses_nothing() -> anyhow::Result<()> {
    let chat = Chat::start().await;
    let mut stream = chat.stream("/stream", &[]).await?;
    say(&chat, 0..3).await;
    stream.messages(3).await?;
    let last = stream.last_event_id().to_owned();
    drop(stream);
    say(&chat, 3..70).await;

    let header = format!("Last-Event-ID: {last}");
    let mut native = chat.stream("/stream?since=-1", &[&header]).await?;
    assert_eq!(native.messages(67).await?, said(3..70));
    for parameter in ["lastEventId", "evs_last_event_id"] {
        let target = format!("/stream?since=-1&{parameter}={}", last.replace('#', "%23"));
        let mut polyfill = chat.stream(&target, &[]).await?;
        assert_eq!(polyfill.messages(67).await?, said(3..70), "{parameter}");
    }
    Ok(())
}

#[tokio::test]
async fn a_browser_from_before_a_restart_gets_a_gap_notice() -> anyhow::Result<()> {
    let before = Chat::start().await;
    let mut stream = before.stream("/stream", &[]).await?;
    say(&before, 0..1).await;
    stream.messages(1).await?;

    let after = Chat::start().await;
    say(&after, 1..2).await;
    let header = format!("Last-Event-ID: {}", stream.last_event_id());
    let mut stream = after.stream("/stream", &[&header]).await?;
    let gap = stream.next().await?;
    assert_eq!(gap.event_type, "tidings");
    assert!(gap.data.contains(r#""kind":"gap""#), "{}", gap.data);
    assert_eq!(stream.messages(1).await?, said(1..2));
    Ok(())
}

#[tokio::test]
async fn a_shutdown_ends_every_stream_with_a_notice() -> anyhow::Result<()> {
    let chat = Chat::start().await;
    let mut stream = chat.stream("/stream", &[]).await?;
    chat.hub.close();
    let notice = stream.next().await?;
    assert!(notice.data.contains(r#""kind":"reconnect""#), "{}", notice.data);
    assert_eq!(stream.next_or_end().await?, None);
    Ok(())
}
