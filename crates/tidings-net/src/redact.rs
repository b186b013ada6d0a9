//! URLs with their secrets redacted, safe to show.

use std::borrow::Cow;

/// Parameters whose values are not secret. All others are hidden, so that a parameter that is added
/// later, or misspelt, shows nothing either.
const HARMLESS: [&str; 12] = [
    "both_ways",
    "ca",
    "cert",
    "cert_key",
    "channels",
    "db",
    "domain",
    "format",
    "name",
    "patterns",
    "replicas",
    "wait",
];

/// What replaces a secret.
const HIDDEN: &str = "…";

/// A text that may be the URL of a server, with everything that may be secret removed: everything
/// before the last `@`, every value of a parameter that is not known to be harmless, and a
/// fragment. A text that is not a URL is redacted in the same way, because it may be a URL with a
/// mistake in it. File paths stay as they are.
///
/// The text is not parsed: an unencoded `/` or `?` in a password would be misread.
///
/// ```
/// let shown = tidings_net::redacted("nats://ada:s/ecret@one,bob:secret@two/news?replicas=3&seed=secret");
/// assert_eq!(shown, "nats://…@two/news?replicas=3&seed=…");
/// ```
pub fn redacted(text: &str) -> Cow<'_, str> {
    if text.starts_with(['/', '.']) || text.starts_with("file:") || !text.contains(['@', '?', '#']) {
        return text.into();
    }
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
    let mut shown = String::new();
    if !scheme.is_empty() {
        shown.extend([scheme, "://"]);
    }
    let rest = match rest.rsplit_once('@') {
        Some((_, rest)) => {
            shown.extend([HIDDEN, "@"]);
            rest
        }
        None => rest,
    };
    let (rest, fragment) =
        rest.split_once('#').map_or((rest, None), |(rest, fragment)| (rest, Some(fragment)));
    let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
    shown.push_str(place);
    for (index, parameter) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
        shown.push(if index == 0 { '?' } else { '&' });
        match parameter.split_once('=') {
            Some((name, _)) if HARMLESS.contains(&name) => shown.push_str(parameter),
            Some((name, _)) => shown.extend([name, "=", HIDDEN]),
            None => shown.push_str(HIDDEN),
        }
    }
    if fragment.is_some() {
        shown.extend(["#", HIDDEN]);
    }
    shown.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ServerUrl;

    #[test]
    fn nothing_that_may_be_a_secret_is_shown() {
        for text in [
            "nats://5ecret@h",
            "nats://5ecret:5ecret@h/name",
            "nats://h?creds=5ecret",
            "nats://h?nkey=5ecret&domain=hub",
            "nats://5ecret@a,5ecret@b,nats://u:5ecret@c",
            "redis://:5ecret/5ecret?5ecret#5ecret@h",
            "redis+sentinel://5ecret:5ecret@a,b/s?sentinel_user=5ecret&sentinel_password=5ecret",
            "redis+unix:///run/a.sock?db=1&user=5ecret&pass=5ecret",
            "redis://h?5ecret",
            "redis://h?name=a&p%61ssword=5ecret#5ecret",
            "redis:5ecret@h",
            "redis//5ecret@h",
            "https://5ecret@hub.example?access_token=5ecret",
        ] {
            let shown = redacted(text);
            assert!(!shown.contains("5ecret"), "{text}: {shown}");
            assert!(shown.contains(HIDDEN), "{text}: {shown}");
        }
    }

    proptest! {
        #[test]
        fn a_password_with_any_characters_is_neither_shown_nor_repeated_by_an_error(
            before in "[a1/?#@:,%&= ]{0,6}",
            behind in "[a1/?#@:,%&= ]{0,6}",
            rest in "(,other:4222)?(/name)?([?]replicas=3)?",
        ) {
            let url = format!("nats://u:{before}5ecret{behind}@host{rest}");
            prop_assert!(!redacted(&url).contains("5ecret"), "{}", redacted(&url));
            let read = match url.parse::<ServerUrl>() {
                Ok(url) => {
                    let refused = url.parameters.refuse_the_rest(&[]).err();
                    format!("{:?} {} {refused:?}", url.addresses(4222), url.path)
                }
                Err(error) => error.to_string(),
            };
            prop_assert!(!read.contains("5ecret"), "{read}");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "./events",
            "/var/lib/a@b",
            "file:///var/lib/a@b",
            "memory:",
            "127.0.0.1:8080",
            "redis://h:1/2?name=a&wait=1",
            "redis+unix:///run/a.sock?db=1",
            "rediss+sentinel://a,[::2]:7/s?ca=/etc/ca.pem&cert=a&cert_key=b",
            "redis://h?channels=a,b&patterns=c-*&format=raw&both_ways=true",
            "tls://one,two:4222/news?replicas=3&domain=hub",
        ] {
            assert_eq!(redacted(text), text);
        }
    }
}
