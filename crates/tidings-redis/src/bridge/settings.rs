//! The configuration of a bridge: the URL of a Redis with parameters of its own.
//!
//! | parameter | meaning |
//! |---|---|
//! | `format=…` | what a message looks like: `raw` (the default), `flask-sse`, `django-eventstream` or `juggernaut` |
//! | `channels=a,b` | these channels; each is a topic of the hub |
//! | `patterns=room-*,…` | and those that match a pattern of PSUBSCRIBE |
//! | `both_ways=true` | also publish what the hub publishes on these topics |
//! | `name=…` | identifies the bridge among the hubs of a cluster; by default all of the above together do |
//!
//! Where a channel has a comma in its name, it is written `%2C` and encoded once more:
//! `channels=a%252Cb`.

use std::{fmt, path::Path, str::FromStr, time::Duration};

use percent_encoding::percent_decode_str;
use tidings_topic::{ConnectionId, Glob};

use super::format::Format;
use crate::{InvalidUrl, Parameters, RedisUrl};

/// Most channels and patterns of one bridge.
const NAMES_MAX: usize = 1_000;
/// Every parameter that is the bridge's own.
const PARAMETERS: [&str; 5] = ["format", "channels", "patterns", "both_ways", "name"];

/// A bridge as it is configured. `Debug` and `Display` show no password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BridgeSettings {
    pub(super) url: RedisUrl,
    pub(super) format: Format,
    pub(super) channels: Vec<String>,
    pub(super) patterns: Vec<Glob>,
    pub(super) both_ways: bool,
    name: Option<String>,
    /// Bytes of messages that are queued while the hub accepts no events. Beyond that, new messages
    /// are dropped, counted and logged. Default 16 MiB.
    pub queue_bytes_max: usize,
    /// Bytes of one message. A larger one is refused, counted and logged. Default 1 MiB, as for a
    /// publication over HTTP.
    pub message_bytes_max: usize,
    /// How long the lease of a dead hub keeps others from taking over, where several share a
    /// cluster. It is renewed three times within this time. Default 6 s.
    pub lease_time: Duration,
}

impl BridgeSettings {
    /// The files that hold secrets.
    pub fn secret_files(&self) -> impl Iterator<Item = &Path> {
        self.url.secret_files()
    }
}

impl FromStr for BridgeSettings {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let mut url: RedisUrl = text.parse()?;
        let parameters = &mut url.parameters;
        let format: Format = parameters
            .take_parsed("format", "raw, flask-sse, django-eventstream or juggernaut")?
            .unwrap_or_default();
        let mut channels = names(parameters, "channels")?;
        let mut patterns = names(parameters, "patterns")?;
        let both_ways = parameters.take_parsed("both_ways", "true or false")?.unwrap_or(false);
        let name = parameters.take("name")?;
        parameters.refuse_the_rest(&PARAMETERS)?;
        if channels.is_empty() && patterns.is_empty() {
            match format {
                Format::Raw => {
                    let problem = "is missing: name the channels to bridge, as in channels=chat,news or patterns=room-*";
                    return Err(InvalidUrl::parameter("channels", problem));
                }
                Format::FlaskSse => channels.push("sse".to_owned()),
                // The messages name their channels, and all of them are bridged.
                Format::DjangoEventstream | Format::Juggernaut => patterns.push("*".to_owned()),
            }
        }
        let patterns = patterns.iter().map(|pattern| Glob::of_redis(pattern)).collect();
        Ok(Self {
            url,
            format,
            channels,
            patterns,
            both_ways,
            name,
            queue_bytes_max: 16 << 20,
            message_bytes_max: 1 << 20,
            lease_time: Duration::from_secs(6),
        })
    }
}

/// A list without repetitions, in an order that does not depend on how it was written.
fn names(parameters: &mut Parameters, parameter: &str) -> Result<Vec<String>, InvalidUrl> {
    let Some(list) = parameters.take(parameter)? else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for name in list.split(',') {
        let name = percent_decode_str(name)
            .decode_utf8()
            .map_err(|_| InvalidUrl::parameter(parameter, "is not UTF-8"))?;
        if name.is_empty() {
            return Err(InvalidUrl::parameter(parameter, "has an empty name in its list"));
        }
        names.push(name.into_owned());
    }
    if names.len() > NAMES_MAX {
        let problem = format!("has {} names; the maximum is {NAMES_MAX}", names.len());
        return Err(InvalidUrl::parameter(parameter, problem));
    }
    names.sort();
    names.dedup();
    Ok(names)
}

impl BridgeSettings {
    /// Whether the bridge covers this topic.
    pub(super) fn covers(&self, topic: &str) -> bool {
        self.channels.binary_search_by(|channel| channel.as_str().cmp(topic)).is_ok()
            || self.patterns.iter().any(|pattern| pattern.matches(topic))
    }

    /// The subscriptions on the server: channels, then patterns.
    pub(super) fn subscriptions(&self) -> (Vec<&str>, Vec<&str>) {
        match self.format.channel() {
            Some(channel) => (vec![channel], Vec::new()),
            None => (
                self.channels.iter().map(String::as_str).collect(),
                self.patterns.iter().map(Glob::as_str).collect(),
            ),
        }
    }

    /// Whether a message of this channel arrives through a subscription that takes precedence over
    /// this pattern. Redis sends a message once for each subscription that it matches.
    pub(super) fn comes_otherwise(&self, channel: &str, pattern: &str) -> bool {
        self.channels.iter().any(|one| one == channel)
            || self
                .patterns
                .iter()
                .take_while(|one| one.as_str() != pattern)
                .any(|earlier| earlier.matches(channel))
    }

    /// The lease that the hubs of a cluster acquire. Two bridges with the same key are one: the
    /// second never bridges while the first one does.
    pub fn lease_key(&self) -> String {
        match &self.name {
            Some(name) => format!("bridge/{name}"),
            None => format!("bridge/{self}"),
        }
    }

    /// The connection that events from this bridge except: the bridge itself. All hubs of a cluster
    /// know it.
    pub(super) fn mark(&self) -> ConnectionId {
        // FNV-1a with 128 bits. It only has to differ from the random ids of connections; a client
        // that guesses it can keep an event from going out, which an authorized publisher can do in
        // other ways, too.
        const PRIME: u128 = 0x0100_0000_0000_0000_0000_013b;
        const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        let print = self
            .lease_key()
            .bytes()
            .fold(BASIS, |print, byte| (print ^ u128::from(byte)).wrapping_mul(PRIME));
        ConnectionId::from_random(print.to_be_bytes())
    }
}

/// The bridge in one line, without secrets.
impl fmt::Display for BridgeSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url.to_string();
        let mark = if url.contains('?') { '&' } else { '?' };
        write!(f, "{url}{mark}format={}", self.format)?;
        let patterns: Vec<_> = self.patterns.iter().map(Glob::as_str).collect();
        if !self.channels.is_empty() {
            write!(f, "&channels={}", self.channels.join(","))?;
        }
        if !patterns.is_empty() {
            write!(f, "&patterns={}", patterns.join(","))?;
        }
        if self.both_ways {
            f.write_str("&both_ways=true")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> BridgeSettings {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn channels_and_patterns_are_lists() {
        let bridge = parse("redis://localhost?channels=news,chat,chat&patterns=room-*");
        assert_eq!(bridge.subscriptions(), (vec!["chat", "news"], vec!["room-*"]));
        for (topic, is_covered) in [("chat", true), ("room-7", true), ("cha", false), ("rooms", false)] {
            assert_eq!(bridge.covers(topic), is_covered, "{topic}");
        }
        assert_eq!(parse("redis://h?channels=a%252Cb,c").channels, ["a,b", "c"]);
    }

    #[test]
    fn every_format_has_the_channels_of_its_library() {
        for (url, channels) in [
            ("redis://h?format=flask-sse", "sse"),
            ("redis://h?format=flask-sse&channels=users", "users"),
            ("redis://h?format=django-eventstream", "events_channel"),
            ("redis://h?format=django-eventstream&channels=users", "events_channel"),
            ("redis://h?format=juggernaut", "juggernaut"),
        ] {
            assert_eq!(parse(url).subscriptions(), (vec![channels], Vec::new()), "{url}");
        }
        assert!(parse("redis://h?format=juggernaut").covers("anything"));
        let some = parse("redis://h?format=django-eventstream&channels=users");
        assert!(some.covers("users") && !some.covers("others"));
    }

    #[test]
    fn a_message_counts_for_its_first_matching_subscription() {
        let bridge = parse("redis://h?channels=room-1&patterns=room-*,*-2");
        assert!(bridge.comes_otherwise("room-1", "room-*"));
        assert!(bridge.comes_otherwise("room-2", "room-*") ^ bridge.comes_otherwise("room-2", "*-2"));
        assert!(!bridge.comes_otherwise("room-3", "room-*") && !bridge.comes_otherwise("hall-2", "*-2"));
    }

    #[test]
    fn an_invalid_url_is_refused_with_a_reason() {
        for (url, part) in [
            ("redis://h", "channels=chat"),
            ("redis://h?channels=", "empty name"),
            ("redis://h?channels=a,,b", "empty name"),
            ("redis://h?channels=a&format=flask", "flask-sse"),
            ("redis://h?channels=a&both_ways=maybe", "true or false"),
            ("redis://h?channel=a", "channels"),
            ("redis://h?channels=a&topics=b", "topics"),
            ("redis://h?chanels=a", "chanels"),
            ("localhost", "scheme"),
        ] {
            let error = url.parse::<BridgeSettings>().unwrap_err().to_string();
            assert!(error.contains(part), "{url}: {error}");
        }
    }

    #[test]
    fn the_same_bridge_has_one_key_however_it_is_written() {
        let key = |text| parse(text).lease_key();
        assert_eq!(key("redis://u:p@h?channels=b,a&format=raw"), key("redis://h:6379?channels=a,b"));
        assert_ne!(key("redis://h?channels=a"), key("redis://h?channels=a,b"));
        assert_eq!(key("redis://h?channels=a&name=x"), key("redis://other?channels=b&name=x"));
        assert_ne!(parse("redis://h?channels=a").mark(), parse("redis://h?channels=b").mark());
        assert!(!key("redis://u:hidden@h?channels=a").contains("hidden"));
    }
}
