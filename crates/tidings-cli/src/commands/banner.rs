//! The banner of a hub: its address, commands to try, and who may use it.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use tidings_server::LocalAddress;

use super::sockets::shown;
use crate::config::ServeConfig;

/// The banner of `tidings serve`, for an operator who starts a hub for the first time.
pub(super) fn of_hub(
    config: &ServeConfig,
    base_url: &str,
    addresses: &[LocalAddress],
    admin_addresses: &[LocalAddress],
    files: Option<u64>,
) -> String {
    let is_unix = |address: &LocalAddress| matches!(address, LocalAddress::Unix(_));
    // Where there is a TCP socket, the commands use it.
    let unix = match addresses {
        [LocalAddress::Unix(path), rest @ ..] if rest.iter().all(is_unix) => {
            format!("--unix-socket '{}' ", path.display())
        }
        _ => String::new(),
    };
    let place = match addresses {
        [_] if unix.is_empty() => base_url.to_owned(),
        _ => format!("{base_url} ({})", shown(addresses)),
    };
    let topic = config.streams.first().map_or("chat", String::as_str);
    let topic = utf8_percent_encode(topic, NON_ALPHANUMERIC);
    let stream = if config.streams.is_empty() {
        format!("{base_url}/stream?topic={topic}")
    } else {
        format!("{base_url}/stream")
    };
    let credential = r#"-H "Authorization: Bearer $TIDINGS_TOKEN" "#;
    let publish = if config.has_credentials() { credential } else { "" };
    let subscribe = if config.has_credentials() && !config.anonymous { credential } else { "" };
    let room = config.connections_max.min(config.streams_max);
    let files = files.map(|files| format!(" (file descriptor limit: {files})")).unwrap_or_default();
    let operators = if admin_addresses.is_empty() {
        String::new()
    } else {
        format!("  operators:  /metrics at {}\n", shown(admin_addresses))
    };
    format!(
        "Tidings {} is ready at {place}\n\n  \
         subscribe:  curl -N {unix}{subscribe}'{stream}'\n  \
         publish:    curl {unix}{publish}-d hello '{base_url}/topics/{topic}'\n{operators}\n\
         {}\n\
         Up to {room} streams{files}.",
        env!("CARGO_PKG_VERSION"),
        allowed(config)
    )
}

/// What clients may do, and how to change it.
fn allowed(config: &ServeConfig) -> String {
    if config.no_auth {
        return "No keys (--no-auth): every client that reaches this address may publish, and receive public events. \
                To require keys: `tidings key new`."
            .to_owned();
    }
    if !config.has_credentials() {
        return "No keys: every client on this machine may publish and subscribe, other machines cannot connect. \
                Before you put a proxy in front, add a key: requests through the proxy come from this machine. \
                `tidings key new` shows how to add one (--config FILE). A key also allows --listen 0.0.0.0:8080; \
                --no-auth allows both without a key."
            .to_owned();
    }
    let readers = if config.anonymous {
        "public events can be received without one (--anonymous false changes that)"
    } else {
        "so does receiving"
    };
    format!("Publishing requires a key or token; {readers}.")
}
