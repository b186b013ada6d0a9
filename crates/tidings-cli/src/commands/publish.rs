//! `tidings publish`: publishes one event.

use std::io::{self, IsTerminal, Read};

use clap::Args;
use tokio::runtime::Builder;

use super::{hub::HubArgs, runtime::block_on};
use crate::{failure::Failure, output::print_line};

/// Maximum size of standard input. Hubs accept 1 MiB by default.
const INPUT_BYTES_MAX: u64 = 64 << 20;

/// Publish one event and print its id
#[derive(Args, Debug)]
pub(super) struct Publish {
    /// The topic
    topic: String,
    /// The data; `-` or no argument reads standard input and removes one trailing line end
    data: Option<String>,
    /// Event type, for addEventListener in the browser
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Event id, instead of one that the hub generates
    #[arg(long)]
    id: Option<String>,
    /// Delay in milliseconds before browsers reconnect
    #[arg(long, value_name = "MILLIS")]
    retry: Option<u64>,
    /// Publish even if the data is empty, for example if a command in a pipe printed nothing
    #[arg(long)]
    allow_empty: bool,
    /// Deliver only to subscribers with a grant on the topic
    #[arg(long)]
    private: bool,
    /// Deliver to the subscribers that are connected now, and do not store the event: it has no id
    #[arg(long, conflicts_with_all = ["id", "idempotency_key"])]
    ephemeral: bool,
    /// Key of this publication, such as a UUID: a repeat with the same key publishes nothing twice.
    /// With a key, the command retries while the hub cannot be reached
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    #[command(flatten)]
    hub: HubArgs,
}

impl Publish {
    pub(super) fn run(self) -> Result<(), Failure> {
        let client = self.hub.client()?;
        let data = match self.data.as_deref() {
            Some("-") => read_input()?,
            Some(data) => data.to_owned(),
            None if io::stdin().is_terminal() => {
                return Err(Failure::usage(
                    "the data is missing: give it after the topic, or `-` to type it",
                ));
            }
            None => read_input()?,
        };
        if data.is_empty() && !self.allow_empty {
            return Err(Failure::usage(
                "the data is empty, so nothing was published: --allow-empty publishes an empty event",
            ));
        }
        let mut options = tidings_client::Publish::new();
        if let Some(event_type) = self.event_type {
            options = options.event_type(event_type);
        }
        if let Some(id) = self.id {
            options = options.id(id);
        }
        if let Some(millis) = self.retry {
            options = options.retry_millis(millis);
        }
        if self.private {
            options = options.private();
        }
        if self.ephemeral {
            options = options.ephemeral();
        }
        if let Some(key) = self.idempotency_key {
            options = options.idempotency_key(key);
        }
        let published = block_on(Builder::new_current_thread(), async {
            client.publish(&self.topic, data, &options).await.map_err(|error| self.hub.explain(&error))
        })?;
        let Some(id) = published.id else { return Ok(()) };
        print_line(&id).map_err(|failure| match failure {
            Failure::Runtime(why) => Failure::runtime(format!("published as {id}, but {why}")),
            other => other,
        })
    }
}

/// Reads standard input without the line end that `echo` and editors append.
fn read_input() -> Result<String, Failure> {
    let refuse = |why: &str| Failure::runtime(format!("cannot publish standard input: {why}"));
    let mut bytes = Vec::new();
    io::stdin()
        .take(INPUT_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| refuse(&error.to_string()))?;
    if bytes.len() as u64 > INPUT_BYTES_MAX {
        return Err(refuse("it is longer than 64 MiB"));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| refuse("it is not valid UTF-8"))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}
