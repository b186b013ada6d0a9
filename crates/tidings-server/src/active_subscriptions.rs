//! Active subscriptions as JSON (the Mercure protocol, "Active subscriptions"), in both revisions:
//! the same documents are responses and updates.

use serde::Serialize;
use serde_json::value::RawValue;
use tidings::{Event, Validator, matcher_type};
use tidings_presence::ActiveSubscription;

use crate::subscription_paths::{older_path_of, path_of, subscriber};

/// `@context` of the older revision.
const CONTEXT: &str = "https://mercure.rocks/";

/// A subscription in the current revision.
#[derive(Serialize)]
pub(crate) struct Document<'a> {
    id: String,
    r#type: &'static str,
    match_type: &'static str,
    r#match: &'a str,
    subscriber: String,
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
}

/// Subscriptions in the current revision.
#[derive(Serialize)]
pub(crate) struct Collection<'a> {
    id: &'a str,
    r#type: &'static str,
    subscriptions: Vec<Document<'a>>,
}

/// A subscription in the older revision.
#[derive(Serialize)]
pub(crate) struct OlderDocument<'a> {
    #[serde(rename = "@context", skip_serializing_if = "Option::is_none")]
    context: Option<&'static str>,
    id: String,
    r#type: &'static str,
    subscriber: String,
    topic: &'a str,
    active: bool,
    #[serde(rename = "lastEventID", skip_serializing_if = "Option::is_none")]
    last_event_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
}

/// Subscriptions in the older revision.
#[derive(Serialize)]
pub(crate) struct OlderCollection<'a> {
    #[serde(rename = "@context")]
    context: &'static str,
    id: &'a str,
    r#type: &'static str,
    #[serde(rename = "lastEventID")]
    last_event_id: &'a str,
    subscriptions: Vec<OlderDocument<'a>>,
}

impl<'a> Document<'a> {
    pub(crate) fn new(hub: &str, subscription: &'a ActiveSubscription, active: bool) -> Self {
        let key = &subscription.key;
        Self {
            id: path_of(hub, key),
            r#type: "subscription",
            match_type: matcher_type(key.syntax),
            r#match: &key.text,
            subscriber: subscriber(key.connection),
            active,
            payload: payload(subscription),
        }
    }
}

impl<'a> Collection<'a> {
    pub(crate) fn new(hub: &str, id: &'a str, subscriptions: &'a [ActiveSubscription]) -> Self {
        let documents = subscriptions.iter().map(|subscription| Document::new(hub, subscription, true));
        Self { id, r#type: "subscriptions", subscriptions: documents.collect() }
    }
}

impl<'a> OlderDocument<'a> {
    /// A document by itself.
    pub(crate) fn new(
        hub: &str,
        subscription: &'a ActiveSubscription,
        active: bool,
        last_event_id: Option<&'a str>,
    ) -> Self {
        Self { context: Some(CONTEXT), last_event_id, ..Self::part(hub, subscription, active) }
    }

    /// A part of another document.
    fn part(hub: &str, subscription: &'a ActiveSubscription, active: bool) -> Self {
        let key = &subscription.key;
        Self {
            context: None,
            id: older_path_of(hub, key),
            r#type: "Subscription",
            subscriber: subscriber(key.connection),
            topic: &key.text,
            active,
            last_event_id: None,
            payload: payload(subscription),
        }
    }
}

impl<'a> OlderCollection<'a> {
    pub(crate) fn new(
        hub: &str,
        id: &'a str,
        subscriptions: &'a [ActiveSubscription],
        last_event_id: &'a str,
    ) -> Self {
        let parts = subscriptions.iter().map(|subscription| OlderDocument::part(hub, subscription, true));
        Self { context: CONTEXT, id, r#type: "Subscriptions", last_event_id, subscriptions: parts.collect() }
    }
}

/// What comes from a token was an object there.
fn payload(subscription: &ActiveSubscription) -> Option<&RawValue> {
    serde_json::from_str(subscription.payload.as_deref()?).ok()
}

/// The updates for a subscription that began (`active`) or ended: one, and another one for clients of
/// the older revision if that is served. They are private, and their topics are the paths at which the
/// subscription is shown. A path that is too long for a topic has no update.
pub fn subscription_updates(
    validator: &Validator,
    subscription: &ActiveSubscription,
    active: bool,
    serves_older_revision: bool,
) -> Vec<Event> {
    let hub = validator.hub_url().path();
    let current = (path_of(hub, &subscription.key), json(&Document::new(hub, subscription, active)), true);
    let older = serves_older_revision.then(|| {
        let document = OlderDocument::new(hub, subscription, active, None);
        (older_path_of(hub, &subscription.key), json(&document), false)
    });
    let updates = [Some(current), older].into_iter().flatten();
    updates.filter_map(|(topic, data, is_typed)| validator.own_event(&topic, data, is_typed).ok()).collect()
}

fn json(document: &impl Serialize) -> String {
    serde_json::to_string(document).expect("texts and valid JSON serialize")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tidings::{ConnectionId, PatternSyntax};
    use tidings_presence::SubscriptionKey;

    use super::*;

    fn subscription(text: &str, payload: Option<&str>) -> ActiveSubscription {
        let connection = ConnectionId::from_random([0xab; 16]);
        let key = SubscriptionKey { syntax: Some(PatternSyntax::UrlPattern), text: text.into(), connection };
        ActiveSubscription { key, payload: payload.map(Into::into) }
    }

    #[test]
    fn an_update_is_private_typed_and_on_the_path_that_it_names() {
        let subscription = subscription("/rooms/:room", Some(r#"{"user":"ann"}"#));
        let updates = subscription_updates(&Validator::default(), &subscription, false, true);
        let [current, older] = &updates[..] else { panic!("{updates:?}") };
        let subscriber = "urn:uuid:abababab-abab-abab-abab-abababababab";
        let id = |kind: &str| {
            format!(
                "/.well-known/mercure/subscriptions/{kind}%2Frooms%2F%3Aroom/{}",
                subscriber.replace(':', "%3A")
            )
        };
        assert!(current.private && older.private);
        assert!(current.event_type.as_ref().is_some_and(|name| name.as_str() == "mercure"));
        assert_eq!((older.event_type.as_ref(), current.topics[0].as_str()), (None, &*id("urlpattern/")));
        assert_eq!(older.topics[0].as_str(), id(""));
        assert_eq!(
            serde_json::from_str::<Value>(&current.data).unwrap(),
            json!({
                "id": id("urlpattern/"), "type": "subscription", "match_type": "urlpattern", "match": "/rooms/:room",
                "subscriber": subscriber, "active": false, "payload": { "user": "ann" },
            })
        );
        assert_eq!(
            serde_json::from_str::<Value>(&older.data).unwrap(),
            json!({
                "@context": "https://mercure.rocks/", "id": id(""), "type": "Subscription", "topic": "/rooms/:room",
                "subscriber": subscriber, "active": false, "payload": { "user": "ann" },
            })
        );
        assert_eq!(subscription_updates(&Validator::default(), &subscription, true, false).len(), 1);
    }

    #[test]
    fn a_path_that_is_no_topic_has_no_update() {
        let long = subscription(&"/".repeat(Validator::TOPIC_BYTES_MAX / 3), None);
        assert_eq!(subscription_updates(&Validator::default(), &long, true, true), []);
    }
}
