//! Endpoints for operators: liveness, readiness, metrics and reload.

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};

use crate::{
    accept::prefers_openmetrics,
    app::App,
    metrics::{Exposition, Process, Sources},
    problem::{Problem, sentence},
    reload::Reloaded,
    streams::vary_accept,
};

/// Liveness: the process answers.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Readiness: events are accepted and delivered, and every component is healthy. Why not is for
/// operators, and for the log.
pub(crate) async fn readyz(State(app): State<App>, request: Request) -> Result<&'static str, Problem> {
    let (parts, _) = request.into_parts();
    match check(&app).await {
        Ok(()) => Ok("ready\n"),
        Err(problem) if app.authorizer.operator(&parts).is_ok() => Err(problem),
        Err(problem) => Err(problem.with_detail(
            "The hub is not ready. Its log says why, and so does this path for a key with `admin = true` or on an address of `--admin-listen`.",
        )),
    }
}

async fn check(app: &App) -> Result<(), Problem> {
    if app.settings.leaving.has_begun() {
        let why = "The process was asked to stop: it still serves, and clients should go to another one.";
        return Err(Problem::unavailable("leaving", why));
    }
    app.hub.health().await.map_err(|error| Problem::unavailable("health", sentence(error)))?;
    if !app.revocations.are_known() {
        let why = "The hub does not know yet what the other hubs have revoked.";
        return Err(Problem::unavailable("revocations", why));
    }
    for component in &app.settings.components {
        if let Some(trouble) = component.trouble() {
            let (kind, name) = (component.kind(), component.name());
            let why = format!("The {kind} {name} is not healthy: {trouble}.");
            return Err(Problem::unavailable(kind, why));
        }
    }
    Ok(())
}

/// Has the program reload its configuration.
pub(crate) async fn reload(State(app): State<App>, request: Request) -> Result<Json<Reloaded>, Problem> {
    let (parts, _) = request.into_parts();
    app.authorizer.administrator(&parts, &app.origins)?;
    let Some(reload) = &app.settings.reload else {
        let detail = "This hub has no configuration to reload.";
        return Err(Problem::new(StatusCode::NOT_FOUND, "reload", detail));
    };
    reload.reload().await.map(Json).map_err(|reason| {
        let detail =
            format!("The configuration was not reloaded, and nothing has changed: {}", sentence(reason));
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "reload", detail)
    })
}

/// The metrics, in the text format of Prometheus or, if the client asks for it, in OpenMetrics. For
/// operators.
pub(crate) async fn metrics(State(app): State<App>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    if let Err(problem) = app.authorizer.operator(&parts) {
        return problem.into_response();
    }
    let exposition =
        if prefers_openmetrics(&parts.headers) { Exposition::OpenMetrics } else { Exposition::Text };
    let is_ready = check(&app).await.is_ok();
    // The system is asked on another thread: it may take its time.
    let process = tokio::task::spawn_blocking(Process::read).await.ok().flatten();
    match exposition.render(Sources::new(&app, is_ready, process)) {
        Ok(text) => {
            let mut response = ([(header::CONTENT_TYPE, exposition.media_type())], text).into_response();
            vary_accept(response.headers_mut());
            response
        }
        Err(_) => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "metrics", "The metrics could not be encoded.")
                .into_response()
        }
    }
}
