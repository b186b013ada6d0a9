//! `tidings publish`: publishes one event, or one for each line of standard input.

mod lines;

use std::io::{self, IsTerminal, Read};

use clap::Args;
use serde_json::json;
use tidings_client::Published;
use tokio::runtime::Builder;

use self::lines::{INPUT_BYTES_MAX, LineFormat, publish_lines};
use super::{hub::HubArgs, runtime::block_on};
use crate::{failure::Failure, output::print_line};

const EXAMPLES: &str = "\
Examples:
  tidings publish chat hello
  tidings publish orders '{\"paid\":42}' --type paid --json
  date | tidings publish clock
  tail -f app.log | tidings publish logs --lines
  tidings publish --ndjson < events.ndjson

Lines:
  With --lines and --ndjson, lines are published in their order as soon as they arrive; what has
  arrived meanwhile goes in one request. Each request has an idempotency key, so while the hub
  cannot be reached it is repeated, up to four times within 30 seconds, and published once. At the
  first error the command ends and names the line; all lines before it are published.
  `tail -n +17 FILE` continues with line 17. Ctrl-C ends the command after the lines that it has
  read, a second one at once. The last line may lack its line feed.";

/// Publish an event, or every line of standard input, and print the ids
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(super) struct Publish {
    /// The topic
    #[arg(required_unless_present = "ndjson")]
    topic: Option<String>,
    /// The data; `-` or no argument reads standard input and removes one trailing line end
    data: Option<String>,
    /// Publish each line of standard input as one event, as it arrives. Empty lines are skipped
    /// unless --allow-empty is given
    #[arg(long, conflicts_with_all = ["data", "id", "idempotency_key"])]
    lines: bool,
    /// Publish each line of standard input as one event in JSON, as `POST /topics` takes it:
    /// {"topic":"chat","data":"hello"}. Empty lines are skipped
    #[arg(long, conflicts_with_all = [
        "topic", "lines", "event_type", "id", "retry", "allow_empty", "private", "ephemeral", "idempotency_key",
    ])]
    ndjson: bool,
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
    /// Print one JSON object per event, with its id and whether it is a duplicate; with --lines and
    /// --ndjson also the number of its line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hub: HubArgs,
}

impl Publish {
    pub(super) fn run(self) -> Result<(), Failure> {
        let client = self.hub.client()?;
        let options = self.options();
        let format = match &self.topic {
            None => Some(LineFormat::Json),
            Some(topic) if self.lines => {
                let (is_ephemeral, keep_empty) = (self.ephemeral, self.allow_empty);
                Some(LineFormat::Text { topic, options: &options, is_ephemeral, keep_empty })
            }
            Some(_) => None,
        };
        if let Some(format) = format {
            return block_on(Builder::new_current_thread(), async {
                publish_lines(&client, &self.hub, format, |line, published| self.print(Some(line), published))
                    .await
            });
        }
        let data = self.data()?;
        let topic = self.topic.as_deref().unwrap_or_default();
        let published = block_on(Builder::new_current_thread(), async {
            client.publish(topic, data, &options).await.map_err(|error| self.hub.explain(&error))
        })?;
        self.print(None, Some(&published)).map_err(|failure| match &published.id {
            Some(id) => failure.map(|why| format!("published as {id}, but {why}")),
            None => failure,
        })
    }

    /// The data of the one event.
    fn data(&self) -> Result<String, Failure> {
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
        Ok(data)
    }

    fn options(&self) -> tidings_client::Publish {
        let mut options = tidings_client::Publish::new();
        if let Some(event_type) = &self.event_type {
            options = options.event_type(event_type);
        }
        if let Some(id) = &self.id {
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
        if let Some(key) = &self.idempotency_key {
            options = options.idempotency_key(key);
        }
        options
    }

    /// Prints what the hub answered about an event: its id, which an ephemeral one does not have.
    fn print(&self, line: Option<u64>, published: Option<&Published>) -> Result<(), Failure> {
        let id = published.and_then(|published| published.id.as_deref());
        if !self.json {
            return id.map_or(Ok(()), print_line);
        }
        let is_duplicate = published.is_none_or(|published| published.duplicate);
        let mut answer = json!({ "id": id, "duplicate": is_duplicate });
        if let Some(line) = line {
            answer["line"] = line.into();
        }
        print_line(&answer.to_string())
    }
}

/// Reads standard input without the line end that `echo` and editors append.
fn read_input() -> Result<String, Failure> {
    let refuse = |why: &str| Failure::runtime(format!("cannot publish standard input: {why}"));
    let mut bytes = Vec::new();
    io::stdin()
        .take(INPUT_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| refuse(&error.to_string()))?;
    if bytes.len() > INPUT_BYTES_MAX {
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
