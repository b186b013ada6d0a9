//! `tidings subscribe`: prints events as they arrive.

use clap::Args;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tidings::Since;
use tidings_client::{ClientEvent, GapReason, Message, Notice};
use tokio::{runtime::Builder, signal};

use super::{hub::HubArgs, runtime::block_on};
use crate::{
    failure::Failure,
    output::{harmless, print_foreign, reader_gone, remark},
};

const EXAMPLES: &str = "\
Examples:
  tidings subscribe chat
  tidings subscribe chat news --since 10m --json
  tidings subscribe --pattern '/rooms/:id' --since -50
  tidings subscribe orders --json | jq -r .data

While the hub cannot be reached, the command waits and says so on standard error. It ends with an error if the hub refuses it.";

/// Print events as they arrive, across reconnects, until Ctrl-C
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Subscribe {
    /// The topics; `*` is every topic. Without any, those of the hub's /stream
    topics: Vec<String>,
    /// URL Pattern of topics, such as '/rooms/:id'; repeatable
    #[arg(long, value_name = "PATTERN")]
    pattern: Vec<String>,
    /// Where to begin: now, earliest, -50 (the last 50), 10m or 1h30m (that long ago), a time as
    /// 2026-01-31T12:00:00Z, an id that the hub generated, or id: and an id that a publisher set
    #[arg(long, value_name = "WORD", allow_hyphen_values = true, value_parser = since)]
    since: Option<String>,
    /// Print one JSON object per line, with topic, id, type and time, and print notices as well
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hub: HubArgs,
}

fn since(word: &str) -> Result<String, String> {
    word.parse::<Since>().map(|_| word.to_owned()).map_err(|error| error.to_string())
}

impl Subscribe {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut wanted = tidings_client::Subscribe::new();
        for topic in &self.topics {
            wanted = wanted.topic(topic);
        }
        for pattern in &self.pattern {
            wanted = wanted.pattern(pattern);
        }
        if let Some(word) = &self.since {
            wanted = wanted.since(word);
        }
        if self.json {
            wanted = wanted.json();
        }
        let client = self.hub.client()?;
        block_on(Builder::new_current_thread(), async {
            // `pkill -USR2 tidings` is meant for hubs.
            #[cfg(unix)]
            let _ignored = signal::unix::signal(signal::unix::SignalKind::user_defined2());
            tokio::select! {
                done = self.print_events(&client, &wanted) => done,
                _ = signal::ctrl_c() => Ok(()),
                // On a quiet topic no write would fail.
                () = reader_gone() => Ok(()),
            }
        })
    }

    async fn print_events(
        &self,
        client: &tidings_client::Client,
        wanted: &tidings_client::Subscribe,
    ) -> Result<(), Failure> {
        let mut events = client.subscribe(wanted).map_err(|error| self.hub.explain(&error))?;
        let mut interrupted = false;
        while let Some(event) = events.next().await {
            match event.map_err(|error| self.hub.explain(&error))? {
                ClientEvent::Open if interrupted => {
                    remark("reconnected");
                    interrupted = false;
                }
                ClientEvent::Message(message) if self.json => print_foreign(&message_line(&message))?,
                ClientEvent::Message(message) => print_foreign(&message.data)?,
                ClientEvent::Notice { notice, .. } if self.json => {
                    print_foreign(&notice_json(&notice).to_string())?;
                }
                ClientEvent::Notice { notice, .. } => report(&notice),
                ClientEvent::Waiting { delay, reason } => {
                    remark(&format!("{reason}; next attempt in {:.1} s", delay.as_secs_f64()));
                    interrupted = true;
                }
                _ => {}
            }
        }
        Err(Failure::runtime("the hub has ended the stream (204)"))
    }
}

/// Prints a notice about the stream in readable form.
fn report(notice: &Notice) {
    match notice {
        Notice::Gap { reason, oldest, .. } => {
            let why = match reason {
                GapReason::Expired => "they have expired",
                GapReason::Unknown => "the hub does not know the id to resume from",
                GapReason::OtherLog => "the hub has a new log or has lost events",
                other => other.as_str(),
            };
            let oldest = oldest.as_deref().map(|id| format!(", at {id}")).unwrap_or_default();
            let line =
                format!("gap: events are missing, {why}; continuing with the oldest available event{oldest}");
            remark(&one_line(&line));
        }
        Notice::Expiring { remaining_secs } => {
            remark(&format!("the credential expires, and the stream ends, in {remaining_secs} s"));
        }
        Notice::Expired => remark("the credential has expired"),
        Notice::Revoked => remark("the hub has revoked this subscription"),
        Notice::OverLimit => remark("too many streams with this credential are open"),
        Notice::Other(data) => remark(&format!("notice: {}", one_line(data))),
        _ => {}
    }
}

/// The JSON of the hub unchanged. For a server that does not know the format, the same JSON made
/// here.
fn message_line(message: &Message) -> String {
    let is_object = serde_json::from_str::<Value>(&message.data).is_ok_and(|value| value.is_object());
    if is_object && !message.data.contains('\n') {
        return message.data.clone();
    }
    json!({ "id": message.id, "type": message.event_type, "data": message.data }).to_string()
}

/// A notice in its wire format.
fn notice_json(notice: &Notice) -> Value {
    match notice {
        Notice::Gap { reason, requested, oldest, newest } => json!({
            "kind": "gap", "reason": reason.as_str(), "requested": requested, "oldest": oldest, "newest": newest,
        }),
        Notice::Reconnect { reason } => json!({ "kind": "reconnect", "reason": reason.as_str() }),
        Notice::Revoked => json!({ "kind": "revoked" }),
        Notice::OverLimit => json!({ "kind": "over-limit" }),
        Notice::Hello { connection, heartbeat_secs } => {
            json!({ "kind": "hello", "connection": connection, "heartbeat_secs": heartbeat_secs })
        }
        Notice::Expiring { remaining_secs } => {
            json!({ "kind": "expiring", "remaining_secs": remaining_secs })
        }
        Notice::Expired => json!({ "kind": "expired" }),
        Notice::Other(data) => {
            serde_json::from_str(data).unwrap_or_else(|_| json!({ "kind": "other", "data": data }))
        }
        _ => json!({ "kind": "other" }),
    }
}

fn one_line(text: &str) -> String {
    harmless(text).replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_printed_in_its_wire_format() {
        let gap = Notice::Gap {
            reason: GapReason::OtherLog,
            requested: Some("7".to_owned()),
            oldest: None,
            newest: Some("9".to_owned()),
        };
        let expected = r#"{"kind":"gap","newest":"9","oldest":null,"reason":"other-log","requested":"7"}"#;
        assert_eq!(notice_json(&gap).to_string(), expected);
        assert_eq!(notice_json(&Notice::Other("{\"a\":1}".to_owned())).to_string(), "{\"a\":1}");
        let unreadable = Notice::Other("a\nb".to_owned());
        assert_eq!(notice_json(&unreadable).to_string(), r#"{"data":"a\nb","kind":"other"}"#);
    }

    #[test]
    fn since_accepts_a_word_that_begins_with_a_hyphen() {
        assert_eq!(since("-50").unwrap(), "-50");
        for word in ["", "10min", "order-42"] {
            assert!(since(word).unwrap_err().contains("`1h30m`"), "{word}");
        }
    }
}
