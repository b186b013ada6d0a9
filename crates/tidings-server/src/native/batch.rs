//! `POST /topics`: many events, one JSON object per line, published all or none.

use std::borrow::Cow;

use axum::{
    extract::{Request, State},
    response::Response,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidings::{Event, NewEvent};

use super::{json_line, publish::Receipt};
use crate::{
    app::App,
    idempotency::idempotency_key,
    metrics::counts::PublishApi,
    problem::Problem,
    publishing::{self, body_bytes, check_text, connection_id, counted, utf8, validate},
    query::Parameters,
};

/// Publishes the events of all lines, in their order, or none.
pub(crate) async fn publish_batch(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    counted(&app, PublishApi::Native, published(&app, request).await)
}

async fn published(app: &App, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let access = app.publisher(&parts)?;
    // A parameter for all events, above all `private`, must not be silently ignored.
    Parameters::of_query(&parts)?.refuse_any("each line says everything about its event")?;
    check_text(&parts.headers, "curl --data-binary @EVENTS.ndjson URL")?;
    let key = idempotency_key(&parts.headers, &access)?;
    let body = body_bytes(app, &parts, body).await?;
    let events = read_events(app, utf8(&body)?)?;
    let published = publishing::publish(app, PublishApi::Native, &access, events, key).await?;
    Ok(json_line(&Receipts { events: published.iter().map(Receipt::from).collect() }))
}

/// One receipt per event. A batch that was published before has only that of its first event: the
/// log keeps no more.
#[derive(Serialize)]
struct Receipts<'a> {
    events: Vec<Receipt<'a>>,
}

/// One line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    topic: Option<String>,
    topics: Option<Vec<String>>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(rename = "type", alias = "event")]
    event_type: Option<String>,
    id: Option<String>,
    retry: Option<u64>,
    #[serde(default)]
    private: bool,
    except: Option<String>,
    #[serde(default)]
    ephemeral: bool,
}

fn read_events(app: &App, body: &str) -> Result<Vec<Event>, Problem> {
    let lines = body.split('\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
    let count_max = app.settings.batch_events_max;
    if lines.clone().nth(count_max).is_some() {
        return Err(Problem::too_large(
            "batch",
            format!("There are more than {count_max} events: send them in several requests."),
        ));
    }
    let events: Vec<_> = lines
        .map(|(index, line)| {
            read_event(app, line).map_err(|problem| problem.within(format_args!("Line {}", index + 1)))
        })
        .collect::<Result<_, _>>()?;
    if events.is_empty() {
        return Err(Problem::bad_request(
            "batch",
            r#"There are no events: send one JSON object per line, as in `{"topic":"chat","data":"hello"}`."#,
        ));
    }
    Ok(events)
}

fn read_event(app: &App, line: &str) -> Result<Event, Problem> {
    let line: Line<'_> = serde_json::from_str(line).map_err(|error| unreadable(&error))?;
    let topics = match (line.topic, line.topics) {
        (Some(topic), None) => vec![topic],
        (None, Some(topics)) => topics,
        (None, None) => Vec::new(),
        (Some(_), Some(_)) => {
            return Err(Problem::bad_request(
                "topic",
                "The fields `topic` and `topics` exclude each other: give one.",
            ));
        }
    };
    validate(
        app,
        NewEvent {
            topics,
            data: data(line.data.get())?.into_owned(),
            id: line.id,
            event_type: line.event_type,
            retry_millis: line.retry,
            private: line.private,
            except: line.except.as_deref().map(|text| connection_id("except", text)).transpose()?,
            key: None,
            ephemeral: line.ephemeral,
        },
    )
}

/// A string is published as it is, any other value as its JSON.
fn data(json: &str) -> Result<Cow<'_, str>, Problem> {
    if json.starts_with('"') {
        return serde_json::from_str(json).map(Cow::Owned).map_err(|error| {
            Problem::bad_request("data", format!("The field `data` is not text: {}.", message(&error)))
        });
    }
    Ok(compact(json))
}

/// JSON without the white space between its tokens. Its numbers and the order of its fields stay as
/// they were written.
fn compact(json: &str) -> Cow<'_, str> {
    let is_space = |character: char| character.is_ascii_whitespace();
    if !json.contains(is_space) {
        return Cow::Borrowed(json);
    }
    let mut in_string = false;
    let mut escaped = false;
    let kept = json.chars().filter(|&character| {
        let keep = in_string || !is_space(character);
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => in_string = !in_string,
            _ => {}
        }
        keep
    });
    Cow::Owned(kept.collect())
}

/// Longest message of the JSON parser that is passed on, in characters: it may quote the input.
const MESSAGE_CHARS_MAX: usize = 160;

fn unreadable(error: &serde_json::Error) -> Problem {
    Problem::bad_request("batch", format!("Column {}: {}.", error.column(), message(error)))
}

/// The parser's message without its position: the parser counts lines within this one line.
fn message(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    message.chars().take(MESSAGE_CHARS_MAX).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn json_data_is_published_without_white_space_between_tokens() {
        let json = "{ \"b\" : [ 1.0, 1e3,\t18446744073709551616 ],\r\"a\": \"x \\\" y\\\\\" , \"c\": null }";
        assert_eq!(compact(json), r#"{"b":[1.0,1e3,18446744073709551616],"a":"x \" y\\","c":null}"#);
    }

    #[test]
    fn a_string_is_published_verbatim() {
        assert_eq!(data(r#""a\nb é""#).expect("valid"), "a\nb é");
        assert!(data(r#""\ud800""#).is_err());
    }

    proptest! {
        #[test]
        fn compacting_changes_no_value(strings in vec((".{0,8}", ".{0,8}"), 0..4), number: f64) {
            let value = serde_json::json!({ "strings": strings, "number": number, "empty": {} });
            let pretty = serde_json::to_string_pretty(&value).expect("a value is JSON");
            prop_assert_eq!(compact(&pretty), value.to_string());
        }
    }
}
