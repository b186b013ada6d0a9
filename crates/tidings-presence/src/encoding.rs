//! The encoding of what hubs write about themselves into the state that they share.
//!
//! Keys: `presence/hub/NAME` is the **mark** of a hub, which shows that it is alive and how many
//! subscribers it has; `presence/page/NAME/NUMBER` is a page of them.
//!
//! Values begin with a version. A value of another version, or one that cannot be decoded, is
//! ignored. Numbers are big-endian.
//!
//! ```text
//! mark      version (1), subscribers (8)
//! page      version (1), members
//! member    connection (16), 0 or 1 and a text (the label), how many payloads (2), payloads (texts),
//!           how many matchers (2), matchers
//! matcher   place in `MATCHER_SYNTAXES` (1), which of the payloads, from 1, or 0 (2), text
//! text      bytes (2), UTF-8
//! ```

use std::sync::Arc;

use tidings::{ConnectionId, MATCHER_SYNTAXES, Presence, PresenceMatcher};

/// The prefix of every key of this module.
pub(crate) const PREFIX: &str = "presence/";
/// The prefix of the marks.
pub(crate) const MARKS: &str = "presence/hub/";
const PAGES: &str = "presence/page/";

const VERSION: u8 = 2;
/// How much of a label other hubs receive.
const LABEL_BYTES_MAX: usize = 1_024;
/// How many bytes of a subscriber's matchers other hubs receive. Two of the largest fit.
const MATCHERS_BYTES_MAX: usize = 8_256;
/// How many bytes of the payloads of a subscriber other hubs receive: as many as a token has at most.
const PAYLOADS_BYTES_MAX: usize = 8_192;

/// What a key stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Key<'a> {
    Mark { hub: &'a str },
    Page { hub: &'a str, number: usize },
}

impl<'a> Key<'a> {
    /// `None` if this version does not know the key.
    pub(crate) fn parse(key: &'a str) -> Option<Self> {
        if let Some(hub) = key.strip_prefix(MARKS) {
            return Some(Self::Mark { hub });
        }
        let (hub, number) = key.strip_prefix(PAGES)?.split_once('/')?;
        Some(Self::Page { hub, number: number.parse().ok()? })
    }
}

impl std::fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mark { hub } => write!(f, "{MARKS}{hub}"),
            Self::Page { hub, number } => write!(f, "{PAGES}{hub}/{number}"),
        }
    }
}

pub(crate) fn encode_mark(subscribers: usize) -> Vec<u8> {
    [&[VERSION][..], &(subscribers as u64).to_be_bytes()].concat()
}

/// How many subscribers a hub reported.
pub(crate) fn decode_mark(value: &[u8]) -> Option<u64> {
    let count = value.strip_prefix(&[VERSION])?;
    Some(u64::from_be_bytes(count.try_into().ok()?))
}

pub(crate) fn encode_page<'a>(members: impl IntoIterator<Item = &'a Presence>) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    for member in members {
        bytes.extend_from_slice(&member.connection.to_bytes());
        bytes.push(u8::from(member.label.is_some()));
        if let Some(label) = &member.label {
            put_text(&mut bytes, reported_label(label));
        }
        let payloads = reported_payloads(member);
        put_length(&mut bytes, payloads.len());
        for payload in &payloads {
            put_text(&mut bytes, payload);
        }
        let reported = reported_matchers(member);
        put_length(&mut bytes, reported.len());
        for matcher in reported {
            let syntax = MATCHER_SYNTAXES.iter().position(|syntax| *syntax == matcher.syntax);
            bytes.push(syntax.and_then(|place| u8::try_from(place).ok()).expect("it is one of three"));
            let payload = payloads.iter().position(|payload| matcher.payload.as_ref() == Some(payload));
            put_length(&mut bytes, payload.map_or(0, |place| place + 1));
            put_text(&mut bytes, &matcher.text);
        }
    }
    bytes
}

/// Bytes that a member takes in its page.
pub(crate) fn encoded_bytes(member: &Presence) -> usize {
    let label = member.label.as_ref().map_or(0, |label| 2 + reported_label(label).len());
    let payloads = reported_payloads(member).into_iter().map(payload_bytes).sum::<usize>();
    21 + label + payloads + reported_matchers(member).iter().map(matcher_bytes).sum::<usize>()
}

fn matcher_bytes(matcher: &PresenceMatcher) -> usize {
    5 + matcher.text.len()
}

fn payload_bytes(payload: &Arc<str>) -> usize {
    2 + payload.len()
}

/// The part of a label that other hubs receive: its beginning, in complete characters.
pub(crate) fn reported_label(label: &str) -> &str {
    let end = (0..=LABEL_BYTES_MAX.min(label.len())).rev().find(|end| label.is_char_boundary(*end));
    &label[..end.unwrap_or(0)]
}

/// The matchers that other hubs receive: the first ones, as many as fit.
pub(crate) fn reported_matchers(member: &Presence) -> &[PresenceMatcher] {
    let mut left = MATCHERS_BYTES_MAX;
    let fits = |matcher: &PresenceMatcher| {
        let room = left.checked_sub(matcher_bytes(matcher));
        left = room.unwrap_or(0);
        room.is_some()
    };
    let count = member.matchers.iter().map(fits).take_while(|fits| *fits).count();
    &member.matchers[..count]
}

/// The different payloads of these matchers that other hubs receive: the first ones, as many as fit.
pub(crate) fn reported_payloads(member: &Presence) -> Vec<&Arc<str>> {
    let mut left = PAYLOADS_BYTES_MAX;
    let mut reported: Vec<&Arc<str>> = Vec::new();
    for payload in reported_matchers(member).iter().filter_map(|matcher| matcher.payload.as_ref()) {
        if reported.contains(&payload) {
            continue;
        }
        let Some(rest) = left.checked_sub(payload_bytes(payload)) else { break };
        left = rest;
        reported.push(payload);
    }
    reported
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_length(bytes, text.len());
    bytes.extend_from_slice(text.as_bytes());
}

fn put_length(bytes: &mut Vec<u8>, length: usize) {
    let length = u16::try_from(length).expect("labels and matchers are truncated");
    bytes.extend_from_slice(&length.to_be_bytes());
}

/// The members of another hub's page.
pub(crate) fn decode_page(value: &[u8]) -> Option<Vec<Presence>> {
    let mut rest = value.strip_prefix(&[VERSION])?;
    let mut members: Vec<Presence> = Vec::new();
    while !rest.is_empty() {
        let connection = ConnectionId::from_random(*take(&mut rest)?);
        let label = if take_flag(&mut rest)? { Some(take_text(&mut rest)?) } else { None };
        let mut payloads: Vec<Arc<str>> = Vec::new();
        for _ in 0..take_length(&mut rest)? {
            payloads.push(take_text(&mut rest)?.into());
        }
        let mut matchers = Vec::new();
        for _ in 0..take_length(&mut rest)? {
            let [syntax] = *take(&mut rest)?;
            let syntax = *MATCHER_SYNTAXES.get(usize::from(syntax))?;
            let payload = match take_length(&mut rest)?.checked_sub(1) {
                Some(place) => Some(Arc::clone(payloads.get(place)?)),
                None => None,
            };
            matchers.push(PresenceMatcher { syntax, text: take_text(&mut rest)?.into(), payload });
        }
        // Most subscribers of an application have the same matchers; they share them.
        let shared = members.last().map(|last| &last.matchers).filter(|last| ***last == *matchers);
        let matchers = shared.map_or_else(|| matchers.into(), Arc::clone);
        let label = label.map(Arc::from);
        members.push(Presence { here: true, is_local: false, connection, matchers, label });
    }
    Some(members)
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(taken)
}

fn take_flag(rest: &mut &[u8]) -> Option<bool> {
    match take(rest)? {
        [0] => Some(false),
        [1] => Some(true),
        _ => None,
    }
}

fn take_length(rest: &mut &[u8]) -> Option<usize> {
    Some(u16::from_be_bytes(*take(rest)?).into())
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let length = take_length(rest)?;
    let (text, left) = rest.split_at_checked(length)?;
    *rest = left;
    str::from_utf8(text).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use tidings::PatternSyntax;

    use super::*;

    pub(crate) fn member(number: u8, label: Option<&str>, topics: &[&str]) -> Presence {
        let matcher =
            |text: &&str| PresenceMatcher { syntax: syntax_of(text), text: (*text).into(), payload: None };
        Presence {
            here: true,
            is_local: true,
            connection: ConnectionId::from_random([number; 16]),
            matchers: topics.iter().map(matcher).collect(),
            label: label.map(Arc::from),
        }
    }

    fn syntax_of(text: &str) -> Option<PatternSyntax> {
        match text {
            _ if text.contains(':') => Some(PatternSyntax::UrlPattern),
            _ if text.contains('{') => Some(PatternSyntax::UriTemplate),
            _ => None,
        }
    }

    fn round_trip(members: &[Presence]) -> Vec<Presence> {
        let value = encode_page(members);
        assert_eq!(value.len(), 1 + members.iter().map(encoded_bytes).sum::<usize>());
        decode_page(&value).expect("it was just written")
    }

    #[test]
    fn a_page_decodes_to_its_members() {
        let members = [
            member(1, Some("Ada 🐑"), &["chat", "/rooms/:room", "/rooms/{room}"]),
            member(2, None, &["*"]),
            member(3, Some(""), &[]),
        ];
        let expected = members.clone().map(|member| Presence { is_local: false, ..member });
        assert_eq!(round_trip(&members), expected);
        assert_eq!(round_trip(&[]), []);
    }

    #[test]
    fn equal_payloads_are_encoded_once_and_belong_to_their_matchers() {
        let mut member = member(1, None, &["a", "b", "c", "d"]);
        let payloads = [Some("{\"n\":1}"), None, Some("{\"n\":2}"), Some("{\"n\":1}")];
        let with = |(matcher, payload): (&PresenceMatcher, Option<&str>)| PresenceMatcher {
            payload: payload.map(Arc::from),
            ..matcher.clone()
        };
        member.matchers = member.matchers.iter().zip(payloads).map(with).collect();
        assert_eq!(reported_payloads(&member).len(), 2);
        assert_eq!(round_trip(std::slice::from_ref(&member))[0].matchers, member.matchers);
    }

    #[test]
    fn the_encoded_size_of_a_member_is_bounded() {
        let topics: Vec<_> = (0..100).map(|number| format!("{number:04096}")).collect();
        let topics: Vec<_> = topics.iter().map(String::as_str).collect();
        let reported = round_trip(&[member(1, Some(&"€".repeat(1_000)), &topics)]);
        assert_eq!(reported[0].label.as_deref(), Some(&*"€".repeat(341)));
        assert_eq!(reported[0].matchers.len(), 2);
    }

    #[test]
    fn payloads_that_do_not_fit_are_left_out() {
        let mut member = member(1, None, &["a", "b", "c"]);
        let with = |(number, matcher): (usize, &PresenceMatcher)| PresenceMatcher {
            payload: Some(format!("\"{number}{}\"", "x".repeat(4_000)).into()),
            ..matcher.clone()
        };
        member.matchers = member.matchers.iter().enumerate().map(with).collect();
        let reported = round_trip(std::slice::from_ref(&member));
        let has_payload: Vec<_> = reported[0].matchers.iter().map(|it| it.payload.is_some()).collect();
        assert_eq!(has_payload, [true, true, false]);
    }

    #[test]
    fn an_invalid_value_is_not_a_page() {
        let whole = encode_page(&[member(1, Some("ann"), &["chat"])]);
        for length in 0..whole.len() {
            assert_eq!(decode_page(&whole[..length]).is_some(), length == 1, "the first {length} bytes");
        }
        for (place, byte) in [(0, 1), (17, 2), (20, 0xff), (25, 9)] {
            let mut other = whole.clone();
            other[place] = byte;
            assert_eq!(decode_page(&other), None, "{place}");
        }
        assert_eq!(decode_mark(&encode_mark(7)), Some(7));
        assert_eq!((decode_mark(b""), decode_mark(&[2; 8]), decode_mark(&[1; 9])), (None, None, None));
    }

    #[test]
    fn a_key_parses_as_it_was_written() {
        for key in [Key::Mark { hub: "a" }, Key::Page { hub: "a", number: 12 }] {
            assert_eq!(Key::parse(&key.to_string()), Some(key));
        }
        for foreign in ["", "presence/", "presence/page/a", "presence/page/a/b", "presence/other/a"] {
            assert_eq!(Key::parse(foreign), None, "{foreign}");
        }
    }
}
