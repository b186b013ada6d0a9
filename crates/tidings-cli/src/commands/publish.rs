//! `tidings publish`: one event.

use std::io::{self, IsTerminal, Read};

use clap::Args;
use tokio::runtime;

use super::{block_on, hub::HubArgs};
use crate::{failure::Failure, output::print_line};

/// The most that is read from standard input. Hubs take 1 MiB unless asked otherwise.
const INPUT_BYTES_MAX: u64 = 64 << 20;

/// Publish one event and print its id
#[derive(Args, Debug)]
pub(super) struct Publish {
    /// The topic
    topic: String,
    /// What it says; `-` or nothing reads standard input and drops one line end at its end
    data: Option<String>,
    /// The type, which addEventListener names in the browser
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// An id of your own instead of one that the hub makes
    #[arg(long)]
    id: Option<String>,
    /// How many milliseconds browsers shall wait before they reconnect
    #[arg(long, value_name = "MILLIS")]
    retry: Option<u64>,
    /// Publish even if there is no data, such as when a command before this one printed nothing
    #[arg(long)]
    allow_empty: bool,
    /// Only for subscribers with a grant on the topic
    #[arg(long)]
    private: bool,
    /// A name for this publication, such as a UUID: sent again under it, nothing is published twice. With one, publishing is tried again
    /// while the hub cannot be reached
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
                    "the data is missing: give it behind the topic, or `-` to type it",
                ));
            }
            None => read_input()?,
        };
        if data.is_empty() && !self.allow_empty {
            return Err(Failure::usage(
                "there is no data, so nothing was published: --allow-empty publishes an empty event",
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
        if let Some(key) = self.idempotency_key {
            options = options.idempotency_key(key);
        }
        let published = block_on(runtime::Builder::new_current_thread(), async {
            client.publish(&self.topic, data, &options).await.map_err(|error| self.hub.explain(&error))
        })?;
        print_line(&published.id).map_err(|failure| match failure {
            Failure::Runtime(why) => Failure::runtime(format!("published as {}, but {why}", published.id)),
            other => other,
        })
    }
}

/// `echo` and editors put a line end behind what is meant; it is no part of it.
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
    let mut text = String::from_utf8(bytes).map_err(|_| refuse("it is not text in UTF-8"))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}
