//! Responses for axum handlers: a subscription, or an error. A handler needs `?` only.

use axum_core::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use crate::{
    publish::PublishError, subscriber::subscribe::SubscribeError, subscriber::subscription::Subscription,
};

impl IntoResponse for Subscription {
    fn into_response(self) -> Response {
        let mut response = http::Response::new(axum_core::body::Body::new(self));
        *response.headers_mut() = Self::headers();
        response
    }
}

/// 400 where the publisher has to change the event, 507 where the log has no space left, otherwise
/// 503; the text gives the reason.
impl IntoResponse for PublishError {
    fn into_response(self) -> Response {
        match self {
            Self::Invalid(_) => (StatusCode::BAD_REQUEST, self.to_string()).into_response(),
            Self::Full(_) => (StatusCode::INSUFFICIENT_STORAGE, self.to_string()).into_response(),
            Self::Overloaded | Self::Unavailable(_) | Self::Displaced(_) | Self::OutcomeUnknown(_) => {
                try_again(self.to_string())
            }
        }
    }
}

/// 400 where the request has to change, 503 where the log cannot be reached; the text gives the
/// reason.
impl IntoResponse for SubscribeError {
    fn into_response(self) -> Response {
        match self {
            Self::NoMatchers | Self::Invalid(_) | Self::Since(_) => {
                (StatusCode::BAD_REQUEST, self.to_string()).into_response()
            }
            Self::TooManyPatterns(_) | Self::Unavailable(_) => try_again(self.to_string()),
        }
    }
}

fn try_again(text: String) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, HeaderValue::from_static("1"))], text)
        .into_response()
}

#[cfg(test)]
mod tests {
    use tidings_topic::Validator;

    use super::*;

    #[test]
    fn an_invalid_event_is_a_bad_request() {
        let invalid = Validator::default().topic("").expect_err("an empty topic");
        assert_eq!(PublishError::from(invalid).into_response().status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn an_overloaded_hub_sends_retry_after() {
        let response = PublishError::Overloaded.into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }

    #[test]
    fn a_subscription_without_topics_is_a_bad_request() {
        assert_eq!(SubscribeError::NoMatchers.into_response().status(), StatusCode::BAD_REQUEST);
    }

    #[tokio::test]
    async fn an_invalid_since_is_a_bad_request() {
        let hub = crate::Hub::in_memory().await;
        let chat = hub.validator().exact("chat").expect("a topic");
        let request = crate::Subscribe::new([chat]).resume(&http::HeaderMap::new(), Some("since=10min"));
        let refused = hub.subscribe(request).await.expect_err("it names no start");
        assert_eq!(refused.into_response().status(), StatusCode::BAD_REQUEST);
    }
}
