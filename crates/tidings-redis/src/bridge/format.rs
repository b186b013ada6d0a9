//! The format of messages on Redis channels, incoming and outgoing.
//!
//! | format | channel | message |
//! |---|---|---|
//! | `raw` | the topic | the data, as text |
//! | `flask-sse` | the topic, `sse` by default | `{"data":…,"type":…,"id":…,"retry":…}`; data that is no string is shown as JSON |
//! | `django-eventstream` | `events_channel` | `{"channel":…,"event_type":…,"data":…,"pub_id":…}` |
//! | `juggernaut` | `juggernaut` | `{"channels":[…]` or `"channel":…, "data":…,"except":…}`; all other fields reach clients |
//!
//! The decoder of each format reads what its library writes, and what other programs may write for
//! it: unknown fields are ignored.

use std::{collections::HashSet, fmt, str::FromStr};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IntoDeserializer as _, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use tidings_log::{Event, EventId};
use tidings_topic::{ConnectionId, EventType, NewEvent};

use super::python_json::as_python_writes;

/// Most channels that one message of Juggernaut may name.
const CHANNELS_MAX: usize = 100;
/// What `urllib.parse.quote` leaves as it is.
const QUOTED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'.').remove(b'-').remove(b'~').remove(b'/');

/// How a message is decoded and encoded. The names of the formats are those of the variants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Format {
    #[default]
    Raw,
    FlaskSse,
    DjangoEventstream,
    Juggernaut,
}

/// Why a message could not be decoded. The text quotes nothing of the message.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Undecodable(String);

impl Format {
    /// The one channel that all messages of this format share; none if each topic has a channel of
    /// its own.
    pub(super) fn channel(self) -> Option<&'static str> {
        match self {
            Self::Raw | Self::FlaskSse => None,
            Self::DjangoEventstream => Some("events_channel"),
            Self::Juggernaut => Some("juggernaut"),
        }
    }

    /// The events of a message, not yet checked; one, or for Juggernaut one for each channel that
    /// it names.
    pub(super) fn decode(self, channel: &str, payload: &[u8]) -> Result<Vec<NewEvent>, Undecodable> {
        let text = std::str::from_utf8(payload).map_err(|_| undecodable("it is not UTF-8"))?;
        match self {
            Self::Raw => Ok(vec![NewEvent::new(channel, text)]),
            Self::FlaskSse => Ok(vec![flask_sse(channel, text)?]),
            Self::DjangoEventstream => Ok(vec![django_eventstream(text)?]),
            Self::Juggernaut => juggernaut(text),
        }
    }

    /// The messages that carry this event to other subscribers, each with its channel, for those of
    /// its topics that are bridged.
    pub(super) fn encode(self, event: &Event, topics: &[&str]) -> Vec<(String, Vec<u8>)> {
        let event_type = event.event_type.as_ref().map(EventType::as_str);
        let each = |message: &dyn Fn(&str) -> Vec<u8>| -> Vec<(String, Vec<u8>)> {
            topics.iter().map(|topic| (self.channel().unwrap_or(topic).to_owned(), message(topic))).collect()
        };
        match self {
            Self::Raw => each(&|_| event.data.clone().into_bytes()),
            Self::FlaskSse => each(&|_| {
                json(&FlaskSseOut {
                    data: &event.data,
                    event_type,
                    id: event.id.as_ref().map(EventId::as_str),
                    retry: event.retry_millis,
                })
            }),
            Self::DjangoEventstream => each(&|channel| {
                let event_type = event_type.unwrap_or("message");
                json(&DjangoOut { channel, event_type, data: &event.data, pub_id: None })
            }),
            Self::Juggernaut if topics.is_empty() => Vec::new(),
            Self::Juggernaut => {
                let except = event.except.map(|connection| connection.to_string());
                let message = JuggernautOut { channels: topics, data: &event.data, except };
                vec![("juggernaut".to_owned(), json(&message))]
            }
        }
    }
}

fn undecodable(reason: impl Into<String>) -> Undecodable {
    Undecodable(reason.into())
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Undecodable> {
    serde_json::from_str(text).map_err(|error| {
        // The parser's error may quote its input, and messages must not appear in the log.
        let place = format!("line {}, column {}", error.line(), error.column());
        match error.classify() {
            serde_json::error::Category::Data => {
                undecodable(format!("not an object of this format: {place}"))
            }
            _ => undecodable(format!("it is not JSON: {place}")),
        }
    })
}

#[derive(Deserialize)]
struct FlaskSse<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(rename = "type")]
    event_type: Option<String>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    retry: Option<&'a RawValue>,
}

fn flask_sse(channel: &str, text: &str) -> Result<NewEvent, Undecodable> {
    let message: FlaskSse<'_> = parse(text)?;
    let retry = message.retry.map(|retry| scalar(retry, "retry")).transpose()?;
    let retry_millis = retry
        .map(|retry| retry.parse().map_err(|_| undecodable("its retry is not a number of milliseconds")))
        .transpose()?;
    Ok(NewEvent {
        id: message.id.map(|id| scalar(id, "id")).transpose()?.filter(|id| !id.is_empty()),
        event_type: message.event_type,
        retry_millis,
        ..NewEvent::new(channel, shown(message.data))
    })
}

#[derive(Deserialize)]
struct DjangoEventstream<'a> {
    channel: String,
    event_type: Option<String>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow)]
    pub_id: Option<&'a RawValue>,
}

/// The id is the one that the library itself gives to browsers: the channel, quoted, and the number
/// of the event there.
fn django_eventstream(text: &str) -> Result<NewEvent, Undecodable> {
    let message: DjangoEventstream<'_> = parse(text)?;
    let number = message.pub_id.map(|number| scalar(number, "pub_id")).transpose()?;
    let id = number.map(|number| format!("{}:{number}", utf8_percent_encode(&message.channel, QUOTED)));
    let data = shown(message.data);
    Ok(NewEvent { id, event_type: message.event_type, ..NewEvent::new(message.channel, data) })
}

/// A string or a number as text.
fn scalar(value: &RawValue, field: &str) -> Result<String, Undecodable> {
    match value.get().as_bytes() {
        [b'"', ..] => parse(value.get()),
        [b'-' | b'0'..=b'9', ..] => Ok(value.get().to_owned()),
        _ => Err(undecodable(format!("its {field} is neither a string nor a number"))),
    }
}

/// A string is shown as it is, everything else as JSON.
fn shown(data: &RawValue) -> String {
    serde_json::from_str(data.get()).unwrap_or_else(|_| as_python_writes(data.get()))
}

/// Every client of Juggernaut receives the message itself, with the one channel it came by, and
/// finds the rest in it.
fn juggernaut(text: &str) -> Result<Vec<NewEvent>, Undecodable> {
    let Fields(fields) = parse(text)?;
    let mut channels = Vec::new();
    let mut except = Vec::new();
    let mut rest = Vec::new();
    for (name, value) in &fields {
        match name.as_str() {
            "channel" | "channels" => channels.extend(parse::<OneOrMore>(value.get())?.into_vec()),
            // A value that is neither a string nor a list of strings names no connection of this
            // hub.
            "except" => {
                except = parse::<OneOrMore>(value.get()).map_or_else(|_| Vec::new(), OneOrMore::into_vec);
            }
            _ => rest.push((name, *value)),
        }
    }
    let mut seen = HashSet::new();
    channels.retain(|channel: &String| seen.insert(channel.clone()));
    if channels.is_empty() || channels.len() > CHANNELS_MAX {
        return Err(undecodable(format!(
            "it names {} channels; the limit is 1 to {CHANNELS_MAX}",
            channels.len()
        )));
    }
    let mut except = except.iter().filter_map(|id| ConnectionId::parse(id));
    let excepted = except.next();
    if except.next().is_some() {
        return Err(undecodable("it excepts several connections; only one is allowed"));
    }
    let event = |channel: String| {
        let mut data = format!("{{\"channel\":{}", quoted(&channel));
        for (name, value) in &rest {
            data.extend([",", &quoted(name), ":", value.get()]);
        }
        data.push('}');
        NewEvent { except: excepted, ..NewEvent::new(channel, data) }
    };
    Ok(channels.into_iter().map(event).collect())
}

/// The fields of an object, in order.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::More(all) => all,
        }
    }
}

#[derive(Serialize)]
struct FlaskSseOut<'a> {
    data: &'a str,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    event_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<u64>,
}

/// The library's listener fails on a message that lacks one of these.
#[derive(Serialize)]
struct DjangoOut<'a> {
    channel: &'a str,
    event_type: &'a str,
    data: &'a str,
    pub_id: Option<&'a str>,
}

#[derive(Serialize)]
struct JuggernautOut<'a> {
    channels: &'a [&'a str],
    data: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    except: Option<String>,
}

fn json(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("texts and numbers")
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text")
}

impl FromStr for Format {
    type Err = serde::de::value::Error;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::deserialize(word.into_deserializer())
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

#[cfg(test)]
mod tests;
