//! The first words of a hub: where it is, what to try, and what it allows.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::config::ServeConfig;

/// Says everything that somebody needs who has just started a hub for the first time.
pub(super) fn of_hub(config: &ServeConfig, base_url: &str, files: Option<u64>) -> String {
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
    let files = files.map(|files| format!(" (limit of open files: {files})")).unwrap_or_default();
    format!(
        "Tidings {} is ready at {base_url}\n\n  \
         subscribe:  curl -N {subscribe}'{stream}'\n  \
         publish:    curl {publish}-d hello '{base_url}/topics/{topic}'\n\n\
         {}\n\
         Room for {room} streams{files}.",
        env!("CARGO_PKG_VERSION"),
        allowed(config)
    )
}

/// Who may do what, and what changes it.
fn allowed(config: &ServeConfig) -> String {
    if config.no_auth {
        return "No keys (--no-auth): whoever reaches this address may publish, and receive what is public. \
                Keys change that: `tidings key new`."
            .to_owned();
    }
    if !config.has_credentials() {
        return "No keys: anyone on this machine may publish and subscribe, nobody else can connect. \
                Before you put a proxy in front, make a key: whoever reaches the proxy comes from this machine. \
                `tidings key new` shows how to add one (--config FILE), which also allows --listen 0.0.0.0:8080; \
                --no-auth allows both without."
            .to_owned();
    }
    let readers = if config.anonymous {
        "public events are open to everybody (--anonymous false changes that)"
    } else {
        "receiving needs a key or token as well"
    };
    format!("Publishing needs a key or token; {readers}.")
}
