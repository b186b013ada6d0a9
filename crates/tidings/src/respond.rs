//! Responses for axum handlers: a subscription, or an error. A handler needs `?` only.

use axum_core::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use crate::{error::Error, subscriber::subscription::Subscription};

/// The stream, with the headers that it needs.
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl IntoResponse for Subscription {
    fn into_response(self) -> Response {
        let mut response = http::Response::new(axum_core::body::Body::new(self));
        *response.headers_mut() = Self::headers();
        response
    }
}

/// The status says who has to change something; see [`Error`].
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Invalid(invalid) if invalid.is_excess() => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Invalid(_)
            | Self::NoTopics
            | Self::Since(_)
            | Self::TopicSinceId
            | Self::UntilUnknown
            | Self::Key
            | Self::EphemeralWithKey => StatusCode::BAD_REQUEST,
            Self::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
            Self::Setting { .. } | Self::Threads(_) => StatusCode::INTERNAL_SERVER_ERROR,
            // A repeat without a key may publish twice, so none is asked for.
            Self::OutcomeUnknown(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Overloaded
            | Self::TooManyPatterns(_)
            | Self::Displaced(_)
            | Self::Unavailable(_)
            | Self::Closed
            | Self::Failed(_) => {
                let retry_after = [(header::RETRY_AFTER, HeaderValue::from_static("1"))];
                return (StatusCode::SERVICE_UNAVAILABLE, retry_after, self.to_string()).into_response();
            }
        };
        (status, self.to_string()).into_response()
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use tidings_log::AppendError;
    use tidings_topic::{NewEvent, Since};

    use super::*;
    use crate::{Hub, Subscribe};

    #[tokio::test]
    async fn what_the_caller_has_to_change_is_a_4xx() {
        let hub = Hub::in_memory().await;
        let many = (0..1_000).fold(NewEvent::new("chat", ""), |event, number| event.also(number.to_string()));
        let refused = [
            (400, hub.publish(NewEvent::new("", "")).await.expect_err("an empty topic")),
            (413, hub.publish(many).await.expect_err("too many topics")),
            (400, hub.publish(NewEvent::new("chat", "").key("two words")).await.expect_err("an invalid key")),
            (400, hub.subscribe(Subscribe::default()).await.expect_err("no topic")),
            (400, hub.subscribe(Subscribe::topics([""])).await.expect_err("an empty topic")),
            (400, hub.subscribe(Subscribe::default().pattern("/(")).await.expect_err("no pattern")),
            (400, {
                let request = Subscribe::topics(["chat"]);
                let request = request.resume(&http::HeaderMap::new(), Some("since=10min"));
                hub.subscribe(request).await.expect_err("it names no start")
            }),
            (400, {
                let request = Subscribe::default().topic_since("chat", Since::Id("order-1".to_owned()));
                hub.subscribe(request).await.expect_err("an id of one topic")
            }),
        ];
        for (status, error) in refused {
            let text = error.to_string();
            assert_eq!(error.into_response().status(), status, "{text}");
        }
    }

    #[test]
    fn an_overloaded_hub_sends_retry_after() {
        let response = Error::Overloaded.into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }

    /// The client of an application must not learn where the application stores its events.
    #[test]
    fn what_the_store_reported_is_the_source_and_not_the_text() {
        let error = Error::from(AppendError::Full("/var/lib/app: no space left on device".to_owned()));
        assert!(!error.to_string().contains("/var"), "{error}");
        assert!(error.source().expect("a source").to_string().contains("/var/lib/app"));
        assert_eq!(error.into_response().status(), StatusCode::INSUFFICIENT_STORAGE);
    }
}
