//! `tidings topics`: shows and deletes what a hub has on topics.

use clap::{Args, Subcommand};
use serde_json::json;
use tidings_client::{Client, ClientError, Deletion, TopicSummary};
use tokio::runtime::Builder;

use super::{hub::HubArgs, runtime::block_on};
use crate::{failure::Failure, output::print_foreign};

/// Show or delete what a hub has on topics
#[derive(Args, Debug)]
pub(super) struct Topics {
    #[command(subcommand)]
    command: TopicsCommand,
}

const SHOW_EXAMPLES: &str = "\
Examples:
  tidings topics show chat
  tidings topics show chat --json | jq -r '.events[].data'
  tidings subscribe chat --since \"$(tidings topics show chat --json | jq -r .cursor)\"";

const DELETE_EXAMPLES: &str = "\
Examples:
  tidings topics delete orders
  tidings topics delete room-1 room-2 --json";

#[derive(Debug, Subcommand)]
enum TopicsCommand {
    /// Print the state of topics: subscribers, number of recent events, cursor
    #[command(after_help = SHOW_EXAMPLES)]
    Show(OfTopics),
    /// Delete every event of topics, and print how many there were
    ///
    /// Subscribers that miss one of the events get a gap notice. As for publishing, the credential needs the permission for every topic of an
    /// event; other events are kept. A topic without events is no error. At the first error the command ends; the topics before it are printed
    /// and deleted.
    #[command(after_help = DELETE_EXAMPLES)]
    Delete(OfTopics),
}

#[derive(Args, Debug)]
struct OfTopics {
    /// The topics
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Print one JSON object per topic
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hub: HubArgs,
}

impl Topics {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.command {
            TopicsCommand::Show(of) => of.each(&async |client, topic| {
                let summary = client.topic(topic).await?;
                Ok(if of.json { to_json(&summary) } else { shown(&summary) })
            }),
            TopicsCommand::Delete(of) => of.each(&async |client, topic| {
                let deletion = client.delete(topic).await?;
                Ok(if of.json { deletion_json(topic, deletion) } else { deleted(topic, deletion) })
            }),
        }
    }
}

impl OfTopics {
    /// Prints what this request returns for each topic.
    fn each(
        &self,
        request: &impl AsyncFn(&Client, &str) -> Result<String, ClientError>,
    ) -> Result<(), Failure> {
        let client = self.hub.client()?;
        block_on(Builder::new_current_thread(), async {
            for topic in &self.topics {
                let shown = request(&client, topic).await.map_err(|error| {
                    self.hub.explain(&error).map(|why| match self.topics.len() {
                        1 => why,
                        _ => format!("topic `{topic}`: {why}"),
                    })
                })?;
                print_foreign(&shown)?;
            }
            Ok(())
        })
    }
}

fn to_json(summary: &TopicSummary) -> String {
    serde_json::to_string(summary).expect("strings and numbers are always JSON")
}

fn shown(summary: &TopicSummary) -> String {
    let subscribers = match summary.subscribers {
        Some(count) => count.to_string(),
        None => "unknown: the credential does not cover the topic".to_owned(),
    };
    let newest = match summary.events.last() {
        Some(event) => format!("{} at {}", event.id, event.time),
        None => "none".to_owned(),
    };
    format!(
        "topic        {}\nsubscribers  {subscribers}\nevents       {} of the newest; --json prints them\nnewest       {newest}\ncursor       {}",
        summary.topic,
        summary.events.len(),
        summary.cursor
    )
}

fn deletion_json(topic: &str, Deletion { deleted, kept, .. }: Deletion) -> String {
    json!({ "topic": topic, "deleted": deleted, "kept": kept }).to_string()
}

fn deleted(topic: &str, Deletion { deleted, kept, .. }: Deletion) -> String {
    let events = |count| if count == 1 { "1 event".to_owned() } else { format!("{count} events") };
    let kept = match kept {
        0 => String::new(),
        count => format!(", {} kept: the credential does not cover all of their topics", events(count)),
    };
    format!("{topic}: {} deleted{kept}", events(deleted))
}
