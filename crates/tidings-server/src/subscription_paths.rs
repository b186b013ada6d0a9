//! The paths of active subscriptions, which are also the topics of their updates (the Mercure
//! protocol, "Active subscriptions"): below the path of the hub, in the current revision
//! `/subscriptions/{match_type}/{match}/{subscriber}`, in the older one (0.x)
//! `/subscriptions/{topic}/{subscriber}`.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tidings::{ConnectionId, PatternSyntax, matcher_syntax, matcher_type};
use tidings_presence::SubscriptionKey;

/// RFC 6570, section 3.2.2: all but unreserved characters are encoded.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What a path below that of the hub is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Subscriptions {
    /// All of them.
    All,
    /// Those of one matcher.
    OfMatcher { syntax: Option<PatternSyntax>, text: String },
    /// One of them.
    One(SubscriptionKey),
    /// The older revision: those of a text, however it is read.
    OfText(String),
    /// The older revision: that of a subscriber and a text.
    OneOfText { text: String, connection: ConnectionId },
}

/// The path of all subscriptions of the hub at this path.
pub(crate) fn subscriptions_path(hub: &str) -> String {
    format!("{}/subscriptions", hub.trim_end_matches('/'))
}

/// Whether a path is that of the Mercure API, or of its subscriptions.
pub(crate) fn is_hub_or_subscriptions(hub: &str, path: &str) -> bool {
    path == hub || is_subscriptions_path(hub, path)
}

/// Whether a path is that of all subscriptions, or below it.
fn is_subscriptions_path(hub: &str, path: &str) -> bool {
    let below =
        path.strip_prefix(hub.trim_end_matches('/')).and_then(|rest| rest.strip_prefix("/subscriptions"));
    below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The path of a subscription.
pub(crate) fn path_of(hub: &str, key: &SubscriptionKey) -> String {
    [
        &*subscriptions_path(hub),
        matcher_type(key.syntax),
        &encoded(&key.text),
        &encoded(&subscriber(key.connection)),
    ]
    .join("/")
}

/// The same in the older revision.
pub(crate) fn older_path_of(hub: &str, key: &SubscriptionKey) -> String {
    [&*subscriptions_path(hub), &encoded(&key.text), &encoded(&subscriber(key.connection))].join("/")
}

/// The name of a subscriber: a UUID (RFC 9562).
pub(crate) fn subscriber(connection: ConnectionId) -> String {
    let digits = connection.to_string();
    format!(
        "urn:uuid:{}-{}-{}-{}-{}",
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..]
    )
}

/// One segment of a path.
pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

impl Subscriptions {
    /// What a path is about. `older`: whether it may be one of the older revision; where it could be
    /// one of both, it is of the current one unless `prefers_older`. `None`: there cannot be such a
    /// subscription.
    pub(crate) fn parse(hub: &str, path: &str, older: bool, prefers_older: bool) -> Option<Self> {
        let rest = path.strip_prefix(&*subscriptions_path(hub))?;
        if rest.is_empty() {
            return Some(Self::All);
        }
        let segments = rest.strip_prefix('/')?.split('/');
        let segments: Vec<_> = segments.map(decoded).collect::<Option<_>>()?;
        match &segments[..] {
            [text] if older => Some(Self::OfText(text.clone())),
            [first, second] => match matcher_syntax(first) {
                Some(syntax) if !(older && prefers_older) => {
                    Some(Self::OfMatcher { syntax, text: second.clone() })
                }
                _ if older => Some(Self::OneOfText { text: first.clone(), connection: connection(second)? }),
                _ => None,
            },
            [kind, text, name] => Some(Self::One(SubscriptionKey {
                syntax: matcher_syntax(kind)?,
                text: text.as_str().into(),
                connection: connection(name)?,
            })),
            _ => None,
        }
    }

    /// The path that this hub itself would write.
    pub(crate) fn path(&self, hub: &str) -> String {
        let all = subscriptions_path(hub);
        match self {
            Self::All => all,
            Self::OfMatcher { syntax, text } => format!("{all}/{}/{}", matcher_type(*syntax), encoded(text)),
            Self::One(key) => path_of(hub, key),
            Self::OfText(text) => format!("{all}/{}", encoded(text)),
            Self::OneOfText { text, connection } => {
                format!("{all}/{}/{}", encoded(text), encoded(&subscriber(*connection)))
            }
        }
    }
}

fn connection(name: &str) -> Option<ConnectionId> {
    let digits = name.strip_prefix("urn:uuid:")?.replace('-', "");
    ConnectionId::parse(&digits).filter(|connection| subscriber(*connection) == name)
}

/// A segment that is decoded once.
fn decoded(segment: &str) -> Option<String> {
    let text = percent_decode_str(segment).decode_utf8().ok()?;
    (!text.is_empty()).then(|| text.into_owned())
}

#[cfg(test)]
mod tests {
    use tidings::MATCHER_SYNTAXES;

    use super::*;

    const HUB: &str = "/.well-known/mercure";

    fn key(syntax: Option<PatternSyntax>, text: &str) -> SubscriptionKey {
        SubscriptionKey { syntax, text: text.into(), connection: ConnectionId::from_random([0xab; 16]) }
    }

    fn parse(below: &str, older: bool, prefers_older: bool) -> Option<Subscriptions> {
        Subscriptions::parse(HUB, &format!("{HUB}/subscriptions{below}"), older, prefers_older)
    }

    #[test]
    fn each_variable_is_encoded_once_and_decoded_once() {
        let text = "https://example.com/100%25/{id}?a=ü/b";
        let path = path_of(HUB, &key(Some(PatternSyntax::UrlPattern), text));
        let subscriber = "urn%3Auuid%3Aabababab-abab-abab-abab-abababababab";
        let encoded = "https%3A%2F%2Fexample.com%2F100%2525%2F%7Bid%7D%3Fa%3D%C3%BC%2Fb";
        assert_eq!(path, format!("{HUB}/subscriptions/urlpattern/{encoded}/{subscriber}"));
        for syntax in MATCHER_SYNTAXES {
            let key = key(syntax, text);
            let one = Subscriptions::One(key.clone());
            assert_eq!(Subscriptions::parse(HUB, &path_of(HUB, &key), false, false), Some(one.clone()));
            assert_eq!(one.path(HUB), path_of(HUB, &key));
            let older = Subscriptions::OneOfText { text: text.to_owned(), connection: key.connection };
            assert_eq!(
                Subscriptions::parse(HUB, &older_path_of(HUB, &key), true, false),
                Some(older.clone())
            );
            assert_eq!(older.path(HUB), older_path_of(HUB, &key));
        }
    }

    #[test]
    fn a_path_is_of_the_revision_that_it_can_be_of() {
        let of_matcher = |text: &str| Some(Subscriptions::OfMatcher { syntax: None, text: text.to_owned() });
        assert_eq!(parse("", false, false), Some(Subscriptions::All));
        assert_eq!(parse("/exact/chat", true, false), of_matcher("chat"));
        assert_eq!(parse("/exact/chat", false, true), of_matcher("chat"), "the older one is not served");
        assert_eq!(parse("/exact/chat", true, true), None, "`chat` is no subscriber");
        assert_eq!(parse("/chat", true, false), Some(Subscriptions::OfText("chat".to_owned())));
        for nothing in
            ["/chat", "/", "//", "/regexp/a", "/exact/a/b", "/exact/a/", "/exact/%ff", "/exact/a/b/c", "s"]
        {
            assert_eq!(parse(nothing, false, false), None, "{nothing}");
        }
    }

    #[test]
    fn only_the_spelling_of_the_hub_names_a_subscriber() {
        let id = ConnectionId::from_random([0xab; 16]);
        assert_eq!(connection(&subscriber(id)), Some(id));
        for other in ["", "urn:uuid:", "urn:uuid:ab", &id.to_string(), &subscriber(id).to_uppercase()] {
            assert_eq!(connection(other), None, "{other}");
        }
        assert_eq!(connection(&format!("urn:uuid:{id}")), None, "without hyphens");
    }

    #[test]
    fn the_subscriptions_of_a_hub_at_the_root_have_a_path_too() {
        assert_eq!(subscriptions_path("/"), "/subscriptions");
        assert!(
            is_subscriptions_path("/", "/subscriptions/a") && !is_subscriptions_path("/", "/subscriptions2")
        );
        assert!(is_subscriptions_path(HUB, "/.well-known/mercure/subscriptions"));
        assert!(!is_subscriptions_path(HUB, HUB) && !is_subscriptions_path(HUB, "/subscriptions"));
    }
}
