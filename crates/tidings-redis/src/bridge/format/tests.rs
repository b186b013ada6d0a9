//! Each format against what its library writes and reads.

use tidings_topic::Validator;

use super::*;

fn one(format: Format, channel: &str, payload: &str) -> NewEvent {
    let mut events =
        format.decode(channel, payload.as_bytes()).unwrap_or_else(|error| panic!("{payload}: {error}"));
    assert_eq!(events.len(), 1, "{payload}");
    events.remove(0)
}

#[test]
fn a_raw_message_is_the_data() {
    let data = "[12:00:00] anonymous: gr\u{fc}\u{df}e\r\n {\"a\":1} \u{1f5de}";
    assert_eq!(one(Format::Raw, "chat", data), NewEvent::new("chat", data));
    assert!(Format::Raw.decode("chat", b"\xff").is_err());
}

#[test]
fn flask_sse_data_is_shown_as_its_library_shows_it() {
    let full = one(
        Format::FlaskSse,
        "sse",
        r#"{"data": {"message": "Hello!", "n": [1, 2.0]}, "type": "greeting", "id": 7, "retry": 2000}"#,
    );
    let expected = NewEvent::new("sse", r#"{"message": "Hello!", "n": [1, 2.0]}"#);
    assert_eq!(full, expected.event_type("greeting").id("7").retry_millis(2000));
    for (payload, data) in [
        (r#"{"data":"a text"}"#, "a text"),
        (r#"{"data":"two\nlines"}"#, "two\nlines"),
        (r#"{"data":null}"#, "null"),
        (r#"{"data":true}"#, "true"),
        (r#"{"data":{"b":1,"a":"ü"}}"#, r#"{"b": 1, "a": "\u00fc"}"#),
        (r#"{"data":"x","id":"","type":null,"retry":null,"more":1}"#, "x"),
    ] {
        assert_eq!(one(Format::FlaskSse, "sse", payload).data, data, "{payload}");
    }
    assert_eq!(one(Format::FlaskSse, "sse", r#"{"data":"x","id":0}"#).id.as_deref(), Some("0"));
}

#[test]
fn django_eventstream_keeps_type_and_id() {
    let payload = r#"{"channel":"time line","event_type":"message","data":"{\"n\": 1}","pub_id":"12"}"#;
    let event = one(Format::DjangoEventstream, "events_channel", payload);
    let expected = NewEvent::new("time line", "{\"n\": 1}").event_type("message").id("time%20line:12");
    assert_eq!(event, expected);
    let payload = r#"{"channel":"time","event_type":"tick","data":{"n":1},"pub_id":null}"#;
    let event = one(Format::DjangoEventstream, "events_channel", payload);
    assert_eq!(event, NewEvent::new("time", "{\"n\": 1}").event_type("tick"));
}

#[test]
fn a_juggernaut_message_reaches_each_channel_without_its_exception() {
    let connection = ConnectionId::from_random([7; 16]);
    let payload =
        format!(r#"{{"channels":["a","b"],"data":{{"x":[1]}},"kind":"update","except":"{connection}"}}"#);
    let events = Format::Juggernaut.decode("juggernaut", payload.as_bytes()).unwrap();
    let expected = |channel: &str| {
        let data = format!(r#"{{"channel":"{channel}","data":{{"x":[1]}},"kind":"update"}}"#);
        NewEvent::new(channel, data).except(connection)
    };
    assert_eq!(events, [expected("a"), expected("b")]);
    for (payload, except) in [
        (r#"{"channel":"a","data":"x"}"#.to_owned(), None),
        (r#"{"channel":"a","data":"x","except":"89012"}"#.to_owned(), None),
        (r#"{"channel":"a","data":"x","except":null}"#.to_owned(), None),
        (format!(r#"{{"channel":"a","data":"x","except":["1","{connection}"]}}"#), Some(connection)),
    ] {
        let event = one(Format::Juggernaut, "juggernaut", &payload);
        assert_eq!((event.topics[0].as_str(), event.except), ("a", except), "{payload}");
        assert_eq!(event.data, r#"{"channel":"a","data":"x"}"#);
    }
}

#[test]
fn a_malformed_message_is_refused_without_being_quoted() {
    let several = format!(
        r#"{{"channel":"a","except":["{}","{}"]}}"#,
        ConnectionId::from_random([1; 16]),
        ConnectionId::from_random([2; 16])
    );
    let channels: Vec<_> = (0..=CHANNELS_MAX).map(|number| format!("\"secret-{number}\"")).collect();
    let many = format!(r#"{{"channels":[{}]}}"#, channels.join(","));
    for (format, payload) in [
        (Format::FlaskSse, "secret"),
        (Format::FlaskSse, "[\"secret\"]"),
        (Format::FlaskSse, "{\"type\":\"secret\"}"),
        (Format::FlaskSse, "{\"data\":1,\"type\":[\"secret\"]}"),
        (Format::FlaskSse, "{\"data\":1,\"id\":[\"secret\"]}"),
        (Format::FlaskSse, "{\"data\":1,\"retry\":\"secret\"}"),
        (Format::FlaskSse, "{\"data\":1,\"retry\":-1}"),
        (Format::DjangoEventstream, "{\"data\":\"secret\"}"),
        (Format::DjangoEventstream, "{\"channel\":\"secret\",\"event_type\":null}"),
        (Format::Juggernaut, "{\"data\":\"secret\"}"),
        (Format::Juggernaut, "{\"channels\":[],\"data\":\"secret\"}"),
        (Format::Juggernaut, "{\"channel\":7,\"data\":\"secret\"}"),
        (Format::Juggernaut, &several),
        (Format::Juggernaut, &many),
    ] {
        let error = format.decode("c", payload.as_bytes()).expect_err(payload).to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn an_encoded_event_decodes_to_the_same() {
    let new =
        NewEvent::new("chat", "gr\u{fc}\u{df}e\n\"x\"").event_type("note").id("order-7").retry_millis(1_500);
    let event = Validator::default().event(new.clone()).unwrap();
    for format in [Format::Raw, Format::FlaskSse, Format::DjangoEventstream, Format::Juggernaut] {
        let messages = format.encode(&event, &["chat"]);
        let [(channel, payload)] = &messages[..] else { panic!("{messages:?}") };
        assert_eq!(channel, format.channel().unwrap_or("chat"));
        let events = format.decode(channel, payload).unwrap();
        let expected = match format {
            Format::Raw => NewEvent::new("chat", new.data.clone()),
            Format::FlaskSse => new.clone(),
            Format::DjangoEventstream => NewEvent::new("chat", new.data.clone()).event_type("note"),
            Format::Juggernaut => {
                NewEvent::new("chat", "{\"channel\":\"chat\",\"data\":\"gr\u{fc}\u{df}e\\n\\\"x\\\"\"}")
            }
        };
        assert_eq!(events, [expected], "{format}");
    }
}

#[test]
fn an_event_with_several_topics_goes_to_each_channel_once() {
    let event = Validator::default().event(NewEvent::new("a", "x").also("b")).unwrap();
    let channels = |format: Format| {
        format.encode(&event, &["a", "b"]).into_iter().map(|(channel, _)| channel).collect::<Vec<_>>()
    };
    assert_eq!(channels(Format::Raw), ["a", "b"]);
    assert_eq!(channels(Format::DjangoEventstream), ["events_channel", "events_channel"]);
    assert_eq!(channels(Format::Juggernaut), ["juggernaut"]);
    assert!(Format::Juggernaut.encode(&event, &[]).is_empty());
}
