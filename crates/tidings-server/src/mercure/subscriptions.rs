//! `GET` below the path of the hub: the active subscriptions, at all hubs of the cluster (the Mercure
//! protocol, "Active subscriptions").
//!
//! A path is a topic, that of the updates about the same subscriptions. So the permission is the one to
//! receive private events of this topic, and there is no permission of a new kind.
//!
//! Both revisions share the paths. A request is of the older one if its credential is, if it accepts
//! `application/ld+json`, or if its path can only be of that one.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use tidings::{Filter, Grants, MATCHER_SYNTAXES, Matcher, Since, Subscribe, Topic, Until};
use tidings_auth::{Access, private_topic};
use tidings_presence::{ActiveSubscription, SubscriptionIndex, SubscriptionKey};

use crate::{
    accept::names,
    active_subscriptions::{Collection, Document, OlderCollection, OlderDocument},
    app::App,
    conditional::has_version,
    native::json::{large_json, line},
    problem::{Problem, excerpt},
    query::Parameters,
    streams::{or_earliest, vary_accept},
    subscription_paths::{Subscriptions, encoded, path_of},
};

/// Most subscriptions of a response, which names the rest by a link.
const LISTED_MAX: usize = 10_000;

/// How far the cursor of a hub in a cluster is behind: updates about the subscribers of other hubs may
/// be published before this hub lists them.
const LISTED_WITHIN: Duration = Duration::from_secs(3);

/// The handler of the router.
pub(crate) async fn answer(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let Some(index) = &app.settings.mercure_subscriptions else {
        return Err(not_found(
            "This hub does not show active subscriptions: start it with `mercure_subscriptions = true`.",
        ));
    };
    let access = app.subscriber(&parts)?;
    let hub = app.hub.validator().hub_url().path();
    let serves_older = app.settings.older_mercure_revision;
    let names_json_ld = names(&parts.headers, "application/ld+json");
    let prefers_older = serves_older && (access.is_of_older_revision || names_json_ld);
    let asked = Subscriptions::parse(hub, parts.uri.path(), serves_older, prefers_older);
    let topic = authorized(&app, &access, parts.uri.path(), asked.as_ref())?;
    let asked =
        asked.ok_or_else(|| not_found("There is no such subscription, and no such kind of matcher."))?;
    let is_older = match asked {
        Subscriptions::All => prefers_older,
        Subscriptions::OfText(_) | Subscriptions::OneOfText { .. } => true,
        Subscriptions::OfMatcher { .. } | Subscriptions::One(_) => false,
    };
    // Before the list: what is published after it may be in the list, and is received once more.
    let cursor = cursor(&app, &topic).await?;
    let listing = Listing { hub, index, asked, cursor, is_older };
    listing.response(&app, &parts)
}

/// The Mercure protocol, "Active subscriptions": the path is the topic of which the credential must
/// allow to receive private events, as it was sent or as the hub writes it.
fn authorized(
    app: &App,
    access: &Access,
    path: &str,
    asked: Option<&Subscriptions>,
) -> Result<Topic, Problem> {
    let validator = app.hub.validator();
    let topic = validator.own_topic(path).map_err(|invalid| Problem::of_matcher(&invalid))?;
    let own = asked.map(|asked| asked.path(validator.hub_url().path()));
    let own = own.and_then(|path| validator.own_topic(&path).ok());
    if [Some(&topic), own.as_ref()].into_iter().flatten().any(|topic| access.subscribe.covers(topic)) {
        return Ok(topic);
    }
    Err(private_topic(&access.subject, &topic).into())
}

/// The id after which a stream receives every update that the list does not contain.
async fn cursor(app: &App, topic: &Topic) -> Result<String, Problem> {
    let matchers = vec![Matcher::Exact(topic.clone())];
    let id = if app.hub.is_clustered() {
        let read = Subscribe::new(matchers).since(Since::Ago(LISTED_WITHIN)).until(Until::Now);
        app.hub.subscribe(read).await?.place()
    } else {
        app.hub.last_events(0, Filter { matchers, grants: Grants::NONE }).await?.end
    };
    Ok(or_earliest(&id).to_owned())
}

/// What a request asks for.
struct Listing<'a> {
    hub: &'a str,
    index: &'a SubscriptionIndex,
    asked: Subscriptions,
    cursor: String,
    is_older: bool,
}

impl Listing<'_> {
    fn response(&self, app: &App, parts: &Parts) -> Result<Response, Problem> {
        let path = parts.uri.path();
        let (json, next) = match &self.asked {
            Subscriptions::One(key) => (self.one(self.index.get(key))?, None),
            Subscriptions::OneOfText { text, connection } => {
                let key =
                    |syntax| SubscriptionKey { syntax, text: text.as_str().into(), connection: *connection };
                let mut all = MATCHER_SYNTAXES.into_iter().filter_map(|syntax| self.index.get(&key(syntax)));
                (self.one(all.next())?, None)
            }
            several => {
                let (subscriptions, has_more) = self.several(several, parts)?;
                let last = subscriptions.last().filter(|_| has_more);
                let next =
                    last.map(|last| format!("{path}?after={}", encoded(&path_of(self.hub, &last.key))));
                (self.collection(path, &subscriptions), next)
            }
        };
        let etag = etag(&json);
        let mut response = if has_version(&parts.headers, &etag) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            large_json(app, parts, json)?
        };
        self.add_headers(response.headers_mut(), &etag, next.as_deref());
        Ok(response)
    }

    fn one(&self, found: Option<ActiveSubscription>) -> Result<Vec<u8>, Problem> {
        let one = found.ok_or_else(|| not_found("There is no such subscription, or it has ended."))?;
        Ok(if self.is_older {
            line(&OlderDocument::new(self.hub, &one, true, Some(&self.cursor)))
        } else {
            line(&Document::new(self.hub, &one, true))
        })
    }

    fn collection(&self, id: &str, subscriptions: &[ActiveSubscription]) -> Vec<u8> {
        if self.is_older {
            line(&OlderCollection::new(self.hub, id, subscriptions, &self.cursor))
        } else {
            line(&Collection::new(self.hub, id, subscriptions))
        }
    }

    /// The subscriptions of a response, and whether further ones follow.
    fn several(
        &self,
        asked: &Subscriptions,
        parts: &Parts,
    ) -> Result<(Vec<ActiveSubscription>, bool), Problem> {
        let parameters = Parameters::of_query(parts)?;
        let after = self.after(&parameters)?;
        let max = parameters.number("limit", "a number", LISTED_MAX)?.unwrap_or(LISTED_MAX);
        let after = after.as_ref();
        let mut found = match asked {
            Subscriptions::OfMatcher { syntax, text } => self.index.of_matcher(*syntax, text, after, max + 1),
            Subscriptions::OfText(text) => {
                let of = |syntax| self.index.of_matcher(syntax, text, after, max + 1);
                MATCHER_SYNTAXES.into_iter().flat_map(of).collect()
            }
            _ => self.index.list(after, max + 1),
        };
        let has_more = found.len() > max;
        found.truncate(max);
        Ok((found, has_more))
    }

    /// The last subscription of the response before, by the path in `after`.
    fn after(&self, parameters: &Parameters) -> Result<Option<SubscriptionKey>, Problem> {
        let Some(path) = parameters.single("after")? else { return Ok(None) };
        match Subscriptions::parse(self.hub, path, false, false) {
            Some(Subscriptions::One(key)) => Ok(Some(key)),
            _ => Err(Problem::bad_request(
                "after",
                format!(
                    "The value {} of `after` is not the path of a subscription: use the link of the response before.",
                    excerpt(path)
                ),
            )),
        }
    }

    fn add_headers(&self, headers: &mut HeaderMap, etag: &str, next: Option<&str>) {
        let media_type = if self.is_older { "application/ld+json" } else { "application/json" };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        let Self { hub, cursor, .. } = self;
        let link = if self.is_older {
            format!("<{hub}>; rel=\"mercure\"")
        } else {
            format!(
                "<{hub}>; rel=\"mercure\"; last-event-id=\"{cursor}\"; content-type=\"application/json\"; type=\"mercure\""
            )
        };
        let next = next.map(|next| format!("<{next}>; rel=\"next\""));
        for link in [Some(link), next].into_iter().flatten() {
            let link = HeaderValue::from_str(&link).expect("paths and generated ids are visible ASCII");
            headers.append(header::LINK, link);
        }
        headers.insert(header::ETAG, HeaderValue::from_str(etag).expect("digits"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        vary_accept(headers);
    }
}

/// Equal responses have the same one.
fn etag(json: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    json.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

fn not_found(detail: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "path", detail)
}
