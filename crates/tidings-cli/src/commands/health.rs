//! `tidings health`: whether a hub is ready, for health checks of containers and supervisors.

use std::{env, time::Duration};

use clap::Args;
use tidings_client::HubUrl;
use tidings_net::redacted;
use tidings_server::LocalAddress;
use tokio::runtime::Builder;

use super::{listening::base_url, runtime::block_on};
use crate::{config::Listen, failure::Failure, output::print_line};

/// The time in which a hub must answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// The listeners for operators answer wherever the others belong to an application.
const ADMIN_LISTEN: &str = "TIDINGS_ADMIN_LISTEN";
const DEFAULT_URL: &str = "http://127.0.0.1:8080";
/// How much of an answer is read. A hub needs a fraction of it.
const BODY_BYTES_MAX: usize = 4_096;

/// Check whether a hub is ready: exit code 0 if it is
///
/// The code is 4 if the hub is not ready or does not answer within five seconds, and 3 if it refuses the question, as a server that is no
/// hub does. It is the HEALTHCHECK of a container, for which every code but 0 is unhealthy. Without --url it asks the first address of the
/// variable TIDINGS_ADMIN_LISTEN, or else <http://127.0.0.1:8080>.
#[derive(Args)]
pub(super) struct Health {
    /// URL of the hub, or unix:PATH
    #[arg(long)]
    url: Option<String>,
}

/// Where a hub is asked.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Url(HubUrl),
    #[cfg(unix)]
    Unix(std::path::PathBuf),
}

impl Health {
    pub(super) fn run(self) -> Result<(), Failure> {
        let admin_listen = env::var(ADMIN_LISTEN).unwrap_or_default();
        let place = match &self.url {
            Some(url) => Place::of_url(url).map_err(|reason| Failure::usage(format!("--url: {reason}")))?,
            None => Place::of_listen(&admin_listen)
                .map_err(|reason| Failure::usage(format!("{ADMIN_LISTEN}: {reason}")))?,
        };
        block_on(Builder::new_current_thread(), async { print_line(&ask(&place).await?) })
    }
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").field("url", &self.url.as_deref().map(redacted)).finish()
    }
}

impl Place {
    fn of_url(text: &str) -> Result<Self, String> {
        #[cfg(unix)]
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        HubUrl::parse(text).map(Self::Url).map_err(|error| error.to_string())
    }

    /// The first of these addresses.
    fn of_listen(addresses: &str) -> Result<Self, String> {
        let first = addresses.split(',').next().unwrap_or_default().trim();
        if first.is_empty() {
            return Self::of_url(DEFAULT_URL);
        }
        let listen: Listen = first.parse().map_err(|reason| format!("`{first}` {reason}"))?;
        match listen.local_address() {
            #[cfg(unix)]
            LocalAddress::Unix(path) => Ok(Self::Unix(path)),
            LocalAddress::All(0) => Err(chosen_port(first)),
            LocalAddress::Ip(address) if address.port() == 0 => Err(chosen_port(first)),
            address => Self::of_url(&base_url([(address, listen.needs_tls())])),
        }
    }
}

fn chosen_port(address: &str) -> String {
    format!("`{address}` is a port that the hub chooses: name the hub with --url")
}

/// What a hub that is ready answers.
async fn ask(place: &Place) -> Result<String, Failure> {
    let mut builder = reqwest::Client::builder()
        .timeout(ANSWER_TIME_MAX)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none());
    let (url, key, shown) = match place {
        Place::Url(hub) => {
            (hub.url.join("readyz").map_err(Failure::runtime)?, hub.key.as_deref(), hub.url.to_string())
        }
        #[cfg(unix)]
        Place::Unix(path) => {
            builder = builder.unix_socket(path.as_path());
            let url = "http://localhost/readyz".parse().map_err(Failure::runtime)?;
            (url, None, format!("unix:{}", path.display()))
        }
    };
    let client = builder.build().map_err(Failure::runtime)?;
    let mut request = client.get(url);
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    let unreachable = |error: reqwest::Error| {
        Failure::Unavailable(format!("no hub answers at {shown}: {}", root_cause(&error.without_url())))
    };
    let mut response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    let mut body = Vec::new();
    while body.len() < BODY_BYTES_MAX
        && let Some(chunk) = response.chunk().await.map_err(unreachable)?
    {
        body.extend_from_slice(&chunk);
    }
    let text = String::from_utf8_lossy(&body);
    let text = text.trim();
    if status == reqwest::StatusCode::OK && text == "ready" {
        return Ok(format!("the hub at {shown} is ready"));
    }
    let message = format!("the hub at {shown} is not ready (status {}): {}", status.as_u16(), reason(text));
    let is_refusal = status.is_client_error() && !matches!(status.as_u16(), 408 | 425 | 429);
    Err(if is_refusal { Failure::Refused(message) } else { Failure::Unavailable(message) })
}

/// The reason in a problem (RFC 9457), or the text itself.
fn reason(text: &str) -> String {
    let problem: Option<serde_json::Value> = serde_json::from_str(text).ok();
    let detail = problem.as_ref().and_then(|problem| problem["detail"].as_str());
    detail.unwrap_or(text).to_owned()
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_address_for_operators_is_asked() {
        let url = |addresses: &str| match Place::of_listen(addresses) {
            Ok(Place::Url(hub)) => hub.url.to_string(),
            other => panic!("{addresses}: {other:?}"),
        };
        assert_eq!(url(""), "http://127.0.0.1:8080/");
        assert_eq!(url(":9090, 127.0.0.1:1"), "http://127.0.0.1:9090/");
        assert_eq!(url("[::]:9090"), "http://[::1]:9090/");
        assert_eq!(url("127.0.0.1:9090?tls=true"), "https://127.0.0.1:9090/");
        #[cfg(unix)]
        assert_eq!(Place::of_listen("unix:/run/hub.sock"), Ok(Place::Unix("/run/hub.sock".into())));
        for wrong in ["127.0.0.1:0", "9090"] {
            let reason = Place::of_listen(wrong).unwrap_err();
            assert!(reason.contains(&format!("`{wrong}`")), "{reason}");
        }
    }
}
