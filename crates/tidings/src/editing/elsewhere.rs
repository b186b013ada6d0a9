//! Streams of other hubs of the cluster: a request is broadcast, and the hub that has the stream
//! carries it out.
//!
//! Every hub answers, so that it is soon known that none has it. What is broadcast is the digest
//! that proves the request, not what it was made of.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tidings_log::{Cursor, cluster::ClusterError};
use tidings_topic::{ConnectionId, Matcher};
use tokio::time::timeout;

use super::{here, waiting::Number};
use crate::{
    cluster_hubs::other_hubs,
    edits::{EditError, EditProof, Edited, TopicEdit},
    hub::{Hub, HubState},
};

/// Where hubs send and listen.
pub(crate) const CHANNEL: &str = "edits";
/// The version of the messages. A hub ignores those of others.
const VERSION: u8 = 1;
/// How long the other hubs may take: longer than each of them waits for its stream.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(7);

#[derive(Serialize, Deserialize, Debug)]
struct Message {
    version: u8,
    from: Number,
    content: Content,
}

#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
enum Content {
    Request(Request),
    Answer { to: Number, request: Number, edited: Result<Changed, EditError> },
}

#[derive(Serialize, Deserialize, Debug)]
struct Request {
    number: Number,
    connection: String,
    proof: [u8; 32],
    add: Vec<String>,
    remove: Vec<String>,
}

/// [`Edited`] as text.
#[derive(Serialize, Deserialize, Debug)]
struct Changed {
    topics: Vec<String>,
    patterns: Vec<String>,
    cursor: String,
}

/// Changes a stream of another hub.
pub(super) async fn edit(
    hub: &Hub,
    connection: ConnectionId,
    proof: EditProof,
    edit: &TopicEdit,
) -> Result<Edited, EditError> {
    let state = &*hub.state;
    let mut waiting = state.edits_elsewhere.ask().ok_or(EditError::Overloaded)?;
    let asking = async {
        // Before the request, so that a hub which begins meanwhile is not waited for.
        let mut silent = other_hubs(&*state.cluster, state.ephemeral.hub).await?;
        let texts =
            |matchers: &[Matcher]| matchers.iter().map(|matcher| matcher.as_str().to_owned()).collect();
        let content = Content::Request(Request {
            number: waiting.number,
            connection: connection.to_string(),
            proof: proof.0,
            add: texts(&edit.add),
            remove: texts(&edit.remove),
        });
        if !silent.is_empty() {
            send(state, content).await?;
        }
        while !silent.is_empty() {
            match waiting.answered().await {
                (hub, Err(EditError::Unknown)) => drop(silent.remove(&hub)),
                (_, answer) => return Ok(answer),
            }
        }
        Ok::<_, ClusterError>(Err(EditError::Unknown))
    };
    match timeout(ANSWER_TIME_MAX, asking).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a stream of another hub cannot be changed");
            Err(EditError::Unreachable)
        }
        Err(_) => Err(EditError::Unreachable),
    }
}

async fn send(state: &HubState, content: Content) -> Result<(), ClusterError> {
    let from = Number::from_be_bytes(state.ephemeral.hub);
    let message = Message { version: VERSION, from, content };
    let message = serde_json::to_vec(&message).expect("texts and numbers are JSON");
    state.cluster.send(CHANNEL, &message).await
}

/// Carries out the request of another hub, or takes its answer.
pub(crate) fn take(state: &Arc<HubState>, message: &[u8]) {
    let Ok(Message { version: VERSION, from, content }) = serde_json::from_slice(message) else { return };
    let own = Number::from_be_bytes(state.ephemeral.hub);
    match content {
        Content::Answer { to, request, edited } if to == own => {
            let edited = edited.and_then(|changed| changed.read().ok_or(EditError::Unreachable));
            state.edits_elsewhere.answer(request, (from, edited));
        }
        Content::Request(asked) if from != own => {
            // Without a permit the other hub learns after a while that this one has not answered.
            let Some(permit) = state.edits_elsewhere.carry_out() else { return };
            let state = Arc::clone(state);
            tokio::spawn(async move {
                let request = asked.number;
                if let Some(edited) = carry_out(&state, asked).await {
                    let edited = edited.map(Changed::from);
                    if let Err(error) = send(&state, Content::Answer { to: from, request, edited }).await {
                        tracing::debug!(%error, "another hub does not receive whether a stream was changed");
                    }
                }
                drop(permit);
            });
        }
        _ => {}
    }
}

/// None for what no hub of this version asks for.
async fn carry_out(state: &HubState, asked: Request) -> Option<Result<Edited, EditError>> {
    let connection = ConnectionId::parse(&asked.connection)?;
    let matchers = |texts: Vec<String>| -> Option<Vec<Matcher>> {
        texts.iter().map(|text| state.validator.exact(text).ok()).collect()
    };
    let edit = TopicEdit { add: matchers(asked.add)?, remove: matchers(asked.remove)? };
    Some(here::edit(&state.engine, connection, EditProof(asked.proof), edit).await)
}

impl From<Edited> for Changed {
    fn from(edited: Edited) -> Self {
        let Edited { topics, patterns, cursor } = edited;
        Self { topics, patterns, cursor: cursor.to_string() }
    }
}

impl Changed {
    /// None for what no hub has sent.
    fn read(self) -> Option<Edited> {
        let Self { topics, patterns, cursor } = self;
        let cursor = Cursor::parse(&cursor).ok()?.to_event_id();
        Some(Edited { topics, patterns, cursor })
    }
}
