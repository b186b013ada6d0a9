//! For the operator's machines: is the process alive, does the hub work, what are the figures.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};

use crate::{
    metrics::METRICS_TYPE,
    problem::{Problem, sentence},
    router::App,
};

/// The process is alive: it answers.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Events are accepted and delivered.
pub(crate) async fn readyz(State(app): State<App>) -> Result<&'static str, Problem> {
    let health = app.hub.health().await;
    health
        .map(|()| "ready\n")
        .map_err(|error| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "health", sentence(error)))
}

/// The figures, in the format of OpenMetrics.
pub(crate) async fn metrics(State(app): State<App>) -> Response {
    let is_ready = app.hub.health().await.is_ok();
    match app.metrics.render(is_ready) {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(_) => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "metrics", "The figures could not be written.")
                .into_response()
        }
    }
}
