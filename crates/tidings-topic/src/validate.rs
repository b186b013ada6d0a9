//! The validator of all input.

use std::{
    fmt::{self, Write},
    sync::Arc,
};

use icu_properties::{CodePointMapData, props::GeneralCategory};
use url::Url;

use crate::{
    Event, EventId, EventType, Matcher, NewEvent, Pattern, PatternSyntax, Topic, pattern::is_template,
    pattern_cache::PatternCache,
};

/// Turns raw input into valid types, or explains in one sentence what is wrong with it.
///
/// It knows the public URL of the hub, because relative topics and patterns are resolved against it
/// and because topics below it are reserved.
#[derive(Clone, Debug)]
pub struct Validator {
    hub_url: Arc<Url>,
    /// Shared by all clones, so that each pattern is compiled and stored once per hub. One for each
    /// syntax, since a text can be a pattern in both.
    url_patterns: Arc<PatternCache>,
    uri_templates: Arc<PatternCache>,
    /// The normalized path of the hub, without a slash at its end.
    hub_path: String,
    /// The normalized path up to its last slash: the prefix of the path that a plain-word topic
    /// resolves to. `None`: use the URL parser.
    directory: Option<String>,
    /// The URL that `.` resolves to: the prefix of the URL that a plain-word topic resolves to.
    /// `None`: use the URL parser.
    base: Option<String>,
    /// Most topics of one event; more are [`Invalid`] with [`is_excess`](Invalid::is_excess).
    /// Default 100.
    pub topics_max: usize,
    /// Most matchers of one subscription; more are [`Invalid`]. Default 100.
    pub matchers_max: usize,
}

/// The type of notices, which no event has.
pub(crate) const NOTICE_TYPE: &str = "tidings";

/// The type of the updates of subscriptions, which only the hub itself publishes (the Mercure
/// protocol, "Active subscriptions").
const SUBSCRIPTION_TYPE: &str = "mercure";

impl Default for Validator {
    /// A validator for a hub without a configured public URL.
    fn default() -> Self {
        Self::new("http://localhost/.well-known/mercure".parse().expect("a valid URL"))
    }
}

impl Validator {
    /// Longest id that a publisher may give, in bytes. A longer one is [`Invalid`].
    pub const EVENT_ID_BYTES_MAX: usize = 1024;
    /// Longest type of an event, in bytes. A longer one is [`Invalid`].
    pub const EVENT_TYPE_BYTES_MAX: usize = 1024;
    /// Longest topic of an event, and longest text of a matcher, in bytes. A longer one is
    /// [`Invalid`]; for a longer topic, [`is_excess`](Invalid::is_excess) is true.
    pub const TOPIC_BYTES_MAX: usize = 4096;
    /// Longest reconnection time, 24 days; longer ones are reduced to this. JavaScript timers
    /// overflow beyond it and fire at once, so that all clients of a hub would reconnect without a
    /// pause.
    pub const RETRY_MILLIS_MAX: u64 = 0x7fff_ffff;
    /// Shortest reconnection time that a publisher can set; shorter ones are raised to this. All
    /// subscribers of a topic apply it, so `0` would make them reconnect in a tight loop. Firefox
    /// waits at least this long in any case.
    pub const RETRY_MILLIS_MIN: u64 = 500;

    /// A validator for the hub at this absolute URL, with the default limits. The scheme must be
    /// `http` or `https`: relative topics cannot be resolved against others, such as `mailto:`.
    ///
    /// The path of the hub and all paths below it are reserved. For the path `/` that would be
    /// every topic; there, only `/` itself, `/subscriptions` and the paths below `/subscriptions`
    /// are reserved.
    pub fn new(hub_url: Url) -> Self {
        let path = normalize_path(hub_url.path());
        let directory = path.rfind('/').map(|slash| path[..=slash].to_owned());
        let is_web = matches!(hub_url.scheme(), "http" | "https");
        let mut base = hub_url.clone();
        // As in `resolved`.
        let _ = base.set_username("");
        let _ = base.set_password(None);
        Self {
            hub_path: path.trim_end_matches('/').to_owned(),
            directory: directory.filter(|_| is_web),
            base: base.join(".").ok().filter(|_| is_web).map(String::from),
            hub_url: Arc::new(hub_url),
            url_patterns: Arc::default(),
            uri_templates: Arc::default(),
            topics_max: 100,
            matchers_max: 100,
        }
    }

    /// The public URL of the hub.
    pub fn hub_url(&self) -> &Url {
        &self.hub_url
    }

    /// The URL that a text resolves to relative to the hub, as URL Patterns compare it (the Mercure
    /// protocol, "Topic matchers"), but without user and password, which patterns compare only if
    /// they contain them. `None`: the text is not a URL.
    pub(crate) fn resolved(&self, text: &str) -> Option<String> {
        if let Some(base) = self.base.as_deref().filter(|_| is_plain_word(text)) {
            return Some([base, text].concat());
        }
        let mut url = self.hub_url.join(text).ok()?;
        if !url.username().is_empty() || url.password().is_some() {
            // These fail only for a URL without a host, which has neither.
            let _ = url.set_username("");
            let _ = url.set_password(None);
        }
        Some(url.into())
    }

    /// Validates an event.
    pub fn event(&self, new: NewEvent) -> Result<Event, Invalid> {
        if new.topics.is_empty() {
            return Err(Invalid::new(Field::Topic, "", "is missing: an event needs at least one"));
        }
        if new.topics.len() > self.topics_max {
            return Err(Invalid::excess(Field::Topic, new.topics.len(), self.topics_max));
        }
        let topics = new.topics.iter().map(|topic| self.topic(topic)).collect::<Result<_, _>>()?;
        if let Some(id) = new.id.as_deref().filter(|_| new.ephemeral) {
            return Err(Invalid::new(
                Field::Id,
                id,
                "is of an ephemeral event, which cannot have an id of its own: it is not stored, so no client could \
                 resume from it; omit the id",
            ));
        }
        Ok(Event {
            topics,
            data: new.data,
            id: new.id.as_deref().map(|id| self.event_id(id)).transpose()?,
            event_type: new.event_type.as_deref().map_or(Ok(None), |name| self.event_type(name))?,
            retry_millis: new.retry_millis.map(bounded_retry_millis),
            private: new.private,
            except: new.except,
            ephemeral: new.ephemeral,
        })
    }

    /// Validates a topic of a published event.
    ///
    /// The Mercure protocol, "Publication": not `*`, no control or format characters, and not
    /// resolving to the path of the hub or below it, on any host.
    pub fn topic(&self, text: &str) -> Result<Topic, Invalid> {
        if text.is_empty() {
            return Err(Invalid::new(Field::Topic, text, "is empty: give it a name"));
        }
        if text == "*" {
            return Err(Invalid::new(
                Field::Topic,
                text,
                "matches every topic; an event needs the name of one topic",
            ));
        }
        check_topic(text)?;
        if let Some(path) = self.reserved_path(text) {
            let reason = format!(
                "is reserved: relative to the hub it resolves to the path `{}`, where only the hub publishes; \
                 choose another name",
                excerpt(&path)
            );
            return Err(Invalid::new(Field::Topic, text, reason));
        }
        Ok(Topic::new_unchecked(text))
    }

    /// Validates a topic on which only the hub itself publishes: a path at or below that of the hub.
    #[doc(hidden)]
    pub fn own_topic(&self, path: &str) -> Result<Topic, Invalid> {
        check_topic(path)?;
        if self.reserved_path(path).is_none() {
            return Err(Invalid::new(Field::Topic, path, "is no path of the hub"));
        }
        Ok(Topic::new_unchecked(path))
    }

    /// A private event of the hub itself on such a topic. `is_typed`: with the type that only these
    /// have (the Mercure protocol, "Active subscriptions").
    #[doc(hidden)]
    pub fn own_event(&self, path: &str, data: String, is_typed: bool) -> Result<Event, Invalid> {
        Ok(Event {
            topics: vec![self.own_topic(path)?],
            data,
            id: None,
            event_type: is_typed.then(|| EventType::new_unchecked(SUBSCRIPTION_TYPE)),
            retry_millis: None,
            private: true,
            except: None,
            ephemeral: false,
        })
    }

    /// Validates an exact matcher; `*` matches every topic.
    pub fn exact(&self, text: &str) -> Result<Matcher, Invalid> {
        if text == "*" {
            return Ok(Matcher::Any);
        }
        check_matcher(text)?;
        Ok(Matcher::Exact(Topic::new_unchecked(text)))
    }

    /// Compiles a URL Pattern; `*` matches every topic.
    ///
    /// This can take milliseconds, unless the result is cached because the pattern is in use or was
    /// requested recently.
    pub fn pattern(&self, text: &str) -> Result<Matcher, Invalid> {
        self.matcher(PatternSyntax::UrlPattern, text)
    }

    /// Compiles a pattern of this syntax as [`pattern`](Self::pattern) does. With
    /// [`PatternSyntax::UriTemplate`], a text that is not a URI Template is one topic, as the older
    /// revision of the Mercure protocol reads it.
    pub fn matcher(&self, syntax: PatternSyntax, text: &str) -> Result<Matcher, Invalid> {
        self.known_matcher(syntax, text).unwrap_or_else(|| {
            let compiled = Pattern::compile(syntax, text, &self.hub_url);
            usable(syntax, text, self.cache(syntax).put(text, compiled))
        })
    }

    /// The result of [`matcher`](Self::matcher), if it is known without compiling.
    pub fn known_matcher(&self, syntax: PatternSyntax, text: &str) -> Option<Result<Matcher, Invalid>> {
        if text == "*" {
            return Some(Ok(Matcher::Any));
        }
        if let Err(invalid) = check_matcher(text) {
            return Some(Err(invalid));
        }
        if syntax == PatternSyntax::UriTemplate && !is_template(text) {
            return Some(self.exact(text));
        }
        self.cache(syntax).get(text).map(|known| usable(syntax, text, known))
    }

    fn cache(&self, syntax: PatternSyntax) -> &PatternCache {
        match syntax {
            PatternSyntax::UrlPattern => &self.url_patterns,
            PatternSyntax::UriTemplate => &self.uri_templates,
        }
    }

    /// Checks the number of matchers of one subscription.
    pub fn matchers_count(&self, count: usize) -> Result<(), Invalid> {
        if count > self.matchers_max {
            return Err(Invalid::excess(Field::Matcher, count, self.matchers_max));
        }
        Ok(())
    }

    /// Validates the id of a publisher.
    ///
    /// The Mercure protocol, "Publication": no leading `#`, not `earliest`, no control or format
    /// characters. An empty id would reset the browser's cursor and is refused. So is white space
    /// at either end: HTTP strips it from the header `Last-Event-ID` (RFC 9110, section 5.5) and
    /// some clients strip it from the `id:` field, so a reconnecting client would send an unknown
    /// id.
    pub fn event_id(&self, text: &str) -> Result<EventId, Invalid> {
        if text.is_empty() {
            return Err(Invalid::new(
                Field::Id,
                text,
                "is empty: omit the field, and the hub generates an id",
            ));
        }
        if text.starts_with('#') {
            return Err(Invalid::new(
                Field::Id,
                text,
                "begins with `#`, which is reserved for ids that the hub generates",
            ));
        }
        if text == "earliest" {
            return Err(Invalid::new(Field::Id, text, "is reserved by the protocol; choose another"));
        }
        if text.trim().len() < text.len() {
            return Err(Invalid::new(
                Field::Id,
                text,
                "begins or ends with white space, which HTTP headers do not preserve",
            ));
        }
        check_length(Field::Id, text, Self::EVENT_ID_BYTES_MAX)?;
        check_characters(Field::Id, text)?;
        Ok(EventId::new_unchecked(text))
    }

    /// Validates a type. Empty and `message` mean no type.
    ///
    /// The Mercure protocol, "Publication": no control or format characters; `mercure` is reserved.
    /// So is `tidings`, for notices.
    pub fn event_type(&self, text: &str) -> Result<Option<EventType>, Invalid> {
        if text.is_empty() || text == "message" {
            return Ok(None);
        }
        if [NOTICE_TYPE, SUBSCRIPTION_TYPE].contains(&text) {
            return Err(Invalid::new(
                Field::Type,
                text,
                "is reserved for what the hub itself publishes; choose another",
            ));
        }
        check_length(Field::Type, text, Self::EVENT_TYPE_BYTES_MAX)?;
        check_characters(Field::Type, text)?;
        Ok(Some(EventType::new_unchecked(text)))
    }

    /// Parses a `retry` value: a number of milliseconds in ASCII digits. It is clamped to
    /// [`RETRY_MILLIS_MIN`](Self::RETRY_MILLIS_MIN) and
    /// [`RETRY_MILLIS_MAX`](Self::RETRY_MILLIS_MAX).
    pub fn retry_millis(&self, text: &str) -> Result<u64, Invalid> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Invalid::new(
                Field::Retry,
                text,
                "is not a number of milliseconds: use digits only, or omit it",
            ));
        }
        // Digits that overflow are a very large number.
        Ok(bounded_retry_millis(text.parse().unwrap_or(u64::MAX)))
    }

    // The Mercure protocol, "Publication": dot segments removed and unreserved percent-encodings
    // decoded, as WHATWG URL does, the path must not be that of the hub nor below it, for any
    // scheme and host. A topic that is not a URL has no path.
    //
    // Every path is below the root. A hub at `/` therefore reserves, besides `/` itself, only the
    // topics on which the protocol lets it publish: the subscriptions below `/subscriptions`.
    // Otherwise such a hub would refuse every topic.
    //
    // `https:a.example/b` has two readings: relative to a hub with the same scheme, and as
    // `https://a.example/b` without a base URL. Neither may resolve to the hub.
    fn reserved_path(&self, topic: &str) -> Option<String> {
        match &self.directory {
            Some(directory) if is_plain_word(topic) => self.reserved([directory, topic].concat()),
            _ => self.reserved_reading(topic),
        }
    }

    fn reserved_reading(&self, topic: &str) -> Option<String> {
        let readings = [self.hub_url.join(topic), Url::parse(topic)];
        readings.into_iter().flatten().find_map(|url| self.reserved(normalize_path(url.path())))
    }

    fn reserved(&self, path: String) -> Option<String> {
        let rest = path.strip_prefix(&*self.hub_path)?;
        let reserved = if self.hub_path.is_empty() {
            rest == "/" || is_at_or_below(rest.strip_prefix("/subscriptions"))
        } else {
            is_at_or_below(Some(rest))
        };
        reserved.then_some(path)
    }
}

/// The reconnection time of a publisher, clamped to the limits.
pub(crate) fn bounded_retry_millis(millis: u64) -> u64 {
    millis.clamp(Validator::RETRY_MILLIS_MIN, Validator::RETRY_MILLIS_MAX)
}

/// Whether a URL parser reads a topic as a single path segment next to the hub, as it does for most
/// topics: no scheme, host, slash, dot segment or percent-encoding.
fn is_plain_word(topic: &str) -> bool {
    !topic.is_empty() && topic.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_~".contains(&byte))
}

fn is_at_or_below(rest: Option<&str>) -> bool {
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Why an input was refused: one sentence, which quotes at most [`Invalid::EXCERPT_CHARS_MAX`]
/// characters of the input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {field} {excerpt}{reason}")]
pub struct Invalid {
    field: Field,
    excerpt: String,
    reason: String,
    excess: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Topic,
    Matcher,
    Id,
    Type,
    Retry,
}

impl Invalid {
    /// How many characters of the refused input a message quotes.
    pub const EXCERPT_CHARS_MAX: usize = 64;

    /// The field that is wrong: `topic`, `matcher`, `id`, `type` or `retry`.
    pub fn field(&self) -> &'static str {
        self.field.name()
    }

    /// Whether the input exceeded a limit. HTTP answers 413 to a publisher then.
    ///
    /// ```
    /// use tidings_topic::Validator;
    ///
    /// assert!(Validator::default().topic(&"a".repeat(100_000)).is_err_and(|reason| reason.is_excess()));
    /// ```
    pub fn is_excess(&self) -> bool {
        self.excess
    }

    fn into_excess(self) -> Self {
        Self { excess: true, ..self }
    }

    fn new(field: Field, text: &str, reason: impl Into<String>) -> Self {
        let excerpt = if text.is_empty() { String::new() } else { format!("`{}` ", excerpt(text)) };
        Self { field, excerpt, reason: reason.into(), excess: false }
    }

    fn excess(field: Field, count: usize, limit: usize) -> Self {
        let reason = format!("is given {count} times; the limit is {limit}");
        Self { field, excerpt: String::new(), reason, excess: true }
    }
}

/// The beginning of a text, escaped for a message.
fn excerpt(text: &str) -> String {
    let shown: String = text.chars().take(Invalid::EXCERPT_CHARS_MAX).collect();
    let dots = if shown.len() < text.len() { "…" } else { "" };
    format!("{}{dots}", shown.escape_debug())
}

impl Field {
    fn name(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Matcher => "matcher",
            Self::Id => "id",
            Self::Type => "type",
            Self::Retry => "retry",
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn usable(syntax: PatternSyntax, text: &str, compiled: Option<Pattern>) -> Result<Matcher, Invalid> {
    let refusal = || {
        let reason = match syntax {
            PatternSyntax::UrlPattern => "is not a URL Pattern that can be used",
            PatternSyntax::UriTemplate => "is a URI Template that is too large: use a shorter one",
        };
        Invalid::new(Field::Matcher, text, reason)
    };
    compiled.map(Matcher::Pattern).ok_or_else(refusal)
}

fn check_matcher(text: &str) -> Result<(), Invalid> {
    if text.is_empty() {
        return Err(Invalid::new(Field::Matcher, text, "is empty: name a topic"));
    }
    check_length(Field::Matcher, text, Validator::TOPIC_BYTES_MAX)?;
    check_characters(Field::Matcher, text)
}

// A longer topic could not be subscribed to, and would have to be compared with every pattern.
fn check_topic(text: &str) -> Result<(), Invalid> {
    check_length(Field::Topic, text, Validator::TOPIC_BYTES_MAX).map_err(Invalid::into_excess)?;
    check_characters(Field::Topic, text)
}

fn check_length(field: Field, text: &str, bytes_max: usize) -> Result<(), Invalid> {
    if text.len() > bytes_max {
        let reason = format!("has {} bytes; the limit is {bytes_max}", text.len());
        return Err(Invalid::new(field, text, reason));
    }
    Ok(())
}

/// No C0, C1 or DEL, no Unicode format characters (category Cf): these can forge lines or disguise
/// a name.
pub(crate) fn check_characters(field: Field, text: &str) -> Result<(), Invalid> {
    if text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Ok(());
    }
    let categories = CodePointMapData::<GeneralCategory>::new();
    let refused = text
        .chars()
        .find(|&character| character.is_control() || categories.get(character) == GeneralCategory::Format);
    refused.map_or(Ok(()), |character| {
        let reason = format!(
            "contains the character U+{:04X}; control and format characters are not allowed",
            u32::from(character)
        );
        Err(Invalid::new(field, text, reason))
    })
}

/// Normalizes percent-encodings (RFC 3986, section 6.2.2): decodes those of unreserved characters,
/// once, and writes the others with upper-case digits.
fn normalize_path(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut normal = String::with_capacity(path.len());
    let mut rest = 0;
    while let Some(found) = path[rest..].find('%') {
        let percent = rest + found;
        normal.push_str(&path[rest..percent]);
        match bytes.get(percent + 1..percent + 3).and_then(hex_octet) {
            Some(octet) if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) => {
                normal.push(char::from(octet));
                rest = percent + 3;
            }
            Some(octet) => {
                write!(normal, "%{octet:02X}").expect("writing to a string never fails");
                rest = percent + 3;
            }
            None => {
                normal.push('%');
                rest = percent + 1;
            }
        }
    }
    normal.push_str(&path[rest..]);
    normal
}

fn hex_octet(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok()?;
    let hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    hex.then(|| u8::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HUBS: [&str; 9] = [
        "http://localhost/.well-known/mercure",
        "https://hub.example/",
        "https://hub.example",
        "https://hub.example//",
        "https://hub.example/hub/",
        "https://hub.example/hub//",
        "https://hub.example/a/b?c=/d#/e",
        "https://hub.example/%61/%c3%a9/a",
        "https://hub.example/a/%2e%2e/~b-",
    ];

    fn assert_same_reading(topic: &str) {
        for hub_url in HUBS {
            let validator = Validator::new(hub_url.parse().expect("a URL"));
            assert_eq!(
                validator.reserved_path(topic),
                validator.reserved_reading(topic),
                "{topic} at {hub_url}"
            );
            let read: Url = validator.hub_url.join(topic).expect("a URL");
            assert_eq!(validator.resolved(topic), Some(read.into()), "{topic} at {hub_url}");
        }
    }

    proptest! {
        #[test]
        fn a_plain_word_is_read_as_the_url_parser_reads_it(topic in "[A-Za-z0-9_~-]{1,12}") {
            prop_assert!(is_plain_word(&topic));
            assert_same_reading(&topic);
        }
    }

    #[test]
    fn a_word_of_the_hubs_path_is_read_as_the_url_parser_reads_it() {
        for topic in ["mercure", "Mercure", "mercur", "mercures", "subscriptions", "hub", "a", "b", "~b-"] {
            assert!(is_plain_word(topic));
            assert_same_reading(topic);
        }
        let reserved = |topic: &str| Validator::default().reserved_path(topic).is_some();
        assert!(reserved("mercure") && !reserved("chat"));
    }

    #[test]
    fn text_with_url_syntax_is_not_a_plain_word() {
        for topic in ["", ".", "..", "a.", "a/b", "a:b", "a%41", "a?b", "a#b", "a\\b", "a b", "é", "a\tb"] {
            assert!(!is_plain_word(topic), "{topic}");
        }
    }
}
