//! The connection to NATS.
//!
//! When it is lost another one is made, for as long as it takes. Each has a **generation**, which
//! grows with every one: a caller that needs two replies from the same connection compares it
//! before and after.
//!
//! The client could reconnect by itself, but would then also send what had been queued: a
//! publication whose publisher was informed seconds ago that the outcome is unknown, and may have
//! continued since. So each generation has a client of its own, which ends with its connection and
//! discards what was queued.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{
    AuthError, Client, ConnectErrorKind, ConnectOptions, Event, HeaderMap, Request, RequestErrorKind,
    connection::State,
    jetstream::{
        self, Context, ErrorCode,
        message::StreamMessage,
        publish::PublishAck,
        response::Response,
        stream::{RawMessageError, RawMessageErrorKind},
    },
};
use bytes::Bytes;
use serde::de::IgnoredAny;
use tidings_log::parts::lock;
use tidings_net::{Backoff, Tls};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::address::NatsAddress;

/// The request timeout. A server that needs longer counts as unavailable.
pub(crate) const REQUEST_TIME: Duration = Duration::from_secs(5);
/// The ping interval of the server; after two missed pings the connection is given up.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// The longest delay between two attempts.
pub(crate) const RETRY_WAIT_MAX: Duration = Duration::from_secs(2);
/// The delay between two attempts of any kind.
pub(crate) const RETRY: Backoff = Backoff::new(Duration::from_millis(50), RETRY_WAIT_MAX);

/// Opening is given up after this many consecutive failures: at least five seconds, in which a
/// cluster of NATS may elect leaders or create what several hubs need at the same time.
pub(crate) const OPENING_FAILURES_MAX: u32 = 8;

/// A connection to NATS, which is replaced when it is lost.
pub(crate) struct Link {
    name: String,
    domain: Option<String>,
    current: Arc<Mutex<Current>>,
    /// Fires when a connection was made or lost.
    changes: watch::Receiver<u64>,
    /// The task that makes the connections. It ends with this value.
    _keeper: JoinSet<()>,
}

/// The newest connection, which may be lost by now.
#[derive(Clone)]
struct Current {
    client: Client,
    jetstream: Context,
    generation: u64,
}

/// The outcome of storing a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stored {
    /// Its sequence in the stream, or that of the message that it repeats.
    pub(crate) sequence: u64,
    /// It repeats a message whose id the server remembers, and was not stored.
    pub(crate) is_repeat: bool,
}

/// Why a message is not known to be stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NotStored {
    /// It is not stored, and will not be.
    Refused(String),
    /// It is not stored: the expected last message does not match.
    Conflict,
    /// It is not stored: the stream is full.
    Full(String),
    /// It may be stored, or not.
    Unknown(String),
}

impl Link {
    /// Makes the first connection.
    pub(crate) async fn connect(address: &NatsAddress) -> Result<Self, String> {
        let (changes_sender, changes) = watch::channel(0);
        let current = Arc::new(Mutex::new(connect(address, &changes_sender, 1).await?));
        let mut keeper = JoinSet::new();
        keeper.spawn(keep(address.clone(), Arc::clone(&current), changes_sender));
        let (name, domain) = (address.name().to_owned(), address.domain.clone());
        Ok(Self { name, domain, current, changes, _keeper: keeper })
    }

    fn current(&self) -> Current {
        lock(&self.current).clone()
    }

    /// The client of the newest connection, for messages that are not stored.
    pub(crate) fn client(&self) -> Client {
        self.current().client
    }

    /// The JetStream context, for messages that are stored.
    pub(crate) fn jetstream(&self) -> Context {
        self.current().jetstream
    }

    /// The name of the log.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where JetStream takes a key of a bucket. A leaf node does not pass on the keys of another
    /// domain, but its requests.
    pub(crate) fn key_subject(&self, subject: &str) -> String {
        match &self.domain {
            Some(domain) => format!("{}.{subject}", api_of(domain)),
            None => subject.to_owned(),
        }
    }

    /// The generation of the connection; `None` while there is none.
    pub(crate) fn generation(&self) -> Option<u64> {
        lock(&self.current).alive()
    }

    /// Waits until there is a connection.
    pub(crate) async fn connected(&self) -> u64 {
        let mut changes = self.changes.clone();
        loop {
            changes.mark_unchanged();
            if let Some(generation) = self.generation() {
                return generation;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until this connection is lost.
    pub(crate) async fn lost(&self, generation: u64) {
        let _ = self.changes.clone().wait_for(|_| self.generation() != Some(generation)).await;
    }

    /// Waits for a reply, up to the request timeout and while the connection lasts.
    pub(crate) async fn ask<T, E: std::fmt::Display>(
        &self,
        what: &str,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Result<T, String> {
        let Some(generation) = self.generation() else { return Err(AWAY.to_owned()) };
        tokio::select! {
            answer = timeout(REQUEST_TIME, answer) => match answer {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(error)) => Err(format!("{what}: {error}")),
                Err(_) => Err(format!("{what}: no answer from NATS in {} s", REQUEST_TIME.as_secs())),
            },
            () = self.lost(generation) => Err(format!("{what}: the connection to NATS was lost")),
        }
    }

    /// Stores a message in the stream of a subject.
    pub(crate) async fn store(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<Stored, NotStored> {
        let current = self.current();
        let Some(generation) = current.alive() else { return Err(NotStored::Refused(AWAY.to_owned())) };
        let request = Request::new().headers(headers).payload(payload).timeout(Some(REQUEST_TIME));
        let answer = tokio::select! {
            answer = current.client.send_request(subject, request) => answer,
            () = self.lost(generation) => return Err(NotStored::Unknown("the connection to NATS was lost".to_owned())),
        };
        if self.generation() != Some(generation) {
            return Err(NotStored::Unknown("the connection to NATS was lost".to_owned()));
        }
        let answer = answer.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => {
                NotStored::Refused("JetStream is unavailable, or its stream was deleted".to_owned())
            }
            RequestErrorKind::MaxPayloadExceeded => NotStored::Full(format!(
                "the batch exceeds the maximum message size of this NATS server (max_payload): {error}"
            )),
            _ => NotStored::Unknown(format!("no answer from NATS: {error}")),
        })?;
        match serde_json::from_slice(&answer.payload) {
            Ok(Response::Ok(PublishAck { sequence, duplicate, .. })) => {
                Ok(Stored { sequence, is_repeat: duplicate })
            }
            Ok(Response::Err { error }) => Err(error.into()),
            Err(_) => {
                Err(NotStored::Unknown("unexpected reply from NATS: not an acknowledgement".to_owned()))
            }
        }
    }
}

/// A message that was requested from the leader of a stream, if the stream has it.
pub(crate) fn if_found(
    asked: Result<StreamMessage, RawMessageError>,
) -> Result<Option<StreamMessage>, RawMessageError> {
    match asked {
        Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => Ok(None),
        asked => asked.map(Some),
    }
}

/// Repeats a step of opening the store until it succeeds, or has failed too often.
pub(crate) async fn persistently<T>(step: impl AsyncFn() -> Result<T, String>) -> Result<T, String> {
    let mut retry = RETRY;
    loop {
        let reason = match step().await {
            Ok(opened) => return Ok(opened),
            Err(reason) => reason,
        };
        let wait = retry.failed();
        if retry.failures() >= OPENING_FAILURES_MAX {
            return Err(reason);
        }
        tracing::debug!(reason, "cannot open the store on NATS yet; retrying");
        sleep(wait).await;
    }
}

impl Current {
    /// Its generation, while the connection lasts.
    fn alive(&self) -> Option<u64> {
        (self.client.connection_state() == State::Connected).then_some(self.generation)
    }
}

/// Makes a connection, and a client that ends with it.
async fn connect(
    address: &NatsAddress,
    changes_sender: &watch::Sender<u64>,
    generation: u64,
) -> Result<Current, String> {
    let servers = address.servers();
    let is_used = Arc::new(AtomicBool::new(false));
    let identity = Arc::new(address.credentials.read()?);
    let introduced = Arc::clone(&identity);
    // The credentials are used once.
    let introduce = move |nonce: Vec<u8>| {
        std::future::ready(if is_used.swap(true, Ordering::AcqRel) {
            Err(AuthError::new("this client ends with its connection"))
        } else {
            introduced.introduction(&nonce)
        })
    };
    let changes_sender = changes_sender.clone();
    let options = ConnectOptions::with_auth_callback(introduce)
        .name("tidings")
        .connection_timeout(REQUEST_TIME)
        .request_timeout(Some(REQUEST_TIME))
        .ping_interval(PING_INTERVAL)
        // Each server is tried once at first. When the connection is lost the client tries each
        // once more and is refused everywhere: then it ends.
        .max_reconnects(servers.len())
        .reconnect_delay_callback(|_| Duration::ZERO)
        .event_callback(move |event| {
            tracing::debug!(%event, "NATS");
            if matches!(event, Event::Connected | Event::Disconnected | Event::Closed) {
                changes_sender.send_modify(|count| *count += 1);
            }
            std::future::ready(())
        });
    let options = match &address.tls {
        Some(tls) => with_tls(options, tls),
        None => options,
    };
    let client = options.connect(&servers[..]).await.map_err(|error| match address.credentials.file() {
        Some(file) if error.kind() == ConnectErrorKind::AuthorizationViolation => {
            let why = if identity.has_expired() { ", who has expired" } else { "" };
            format!("{error}: the server does not admit the user in {}{why}", file.display())
        }
        _ => error.to_string(),
    })?;
    let domain = address.domain.as_deref();
    let mut jetstream = match domain {
        Some(domain) => async_nats::jetstream::with_domain(client.clone(), domain),
        None => async_nats::jetstream::new(client.clone()),
    };
    jetstream.set_timeout(REQUEST_TIME);
    check_jetstream(&client, domain).await?;
    Ok(Current { client, jetstream, generation })
}

fn with_tls(options: ConnectOptions, tls: &Tls) -> ConnectOptions {
    let mut options = options.require_tls(true);
    if let Some(trusted) = &tls.trusted {
        options = options.add_root_certificates(trusted.clone());
    }
    match &tls.own {
        Some((certificate, key)) => options.add_client_certificate(certificate.clone(), key.clone()),
        None => options,
    }
}

/// Where JetStream of a domain takes requests.
fn api_of(domain: &str) -> String {
    format!("$JS.{domain}.API")
}

/// An error if the server has no JetStream. Any other problem shows in what follows.
async fn check_jetstream(client: &Client, domain: Option<&str>) -> Result<(), String> {
    let api = domain.map_or_else(|| "$JS.API".to_owned(), api_of);
    match client.request(format!("{api}.INFO"), Bytes::new()).await {
        Err(error) if error.kind() == RequestErrorKind::NoResponders => Err(match domain {
            Some(domain) => format!(
                "this NATS server reaches no JetStream domain {domain}: check the parameter domain, and the connection of the leaf node"
            ),
            None => "JetStream is not enabled on this NATS server: start it with -js, or with jetstream {} in its configuration"
                .to_owned(),
        }),
        Ok(answer) => match serde_json::from_slice(&answer.payload) {
            Ok(Response::<IgnoredAny>::Err { error }) if NO_JETSTREAM_CODES.contains(&error.error_code()) => Err(format!(
                "JetStream is not enabled for this account of NATS: {error}; give the account a jetstream section, or use another one"
            )),
            _ => Ok(()),
        },
        Err(_) => Ok(()),
    }
}

/// Makes a new connection whenever the last one is lost.
async fn keep(address: NatsAddress, current: Arc<Mutex<Current>>, changes_sender: watch::Sender<u64>) {
    let mut changes = changes_sender.subscribe();
    loop {
        changes.mark_unchanged();
        let (generation, is_alive) = {
            let current = lock(&current);
            (current.generation, current.alive().is_some())
        };
        if is_alive {
            if changes.changed().await.is_err() {
                return;
            }
            continue;
        }
        tracing::warn!("the connection to NATS was lost");
        let mut retry = RETRY;
        let mut last_problem = String::new();
        let new = loop {
            sleep(retry.failed()).await;
            match connect(&address, &changes_sender, generation + 1).await {
                Ok(new) => break new,
                // Of consecutive failures for the same reason only the first is logged.
                Err(problem) if problem != last_problem => {
                    tracing::warn!(problem, "cannot connect to NATS; retrying");
                    last_problem = problem;
                }
                Err(_) => {}
            }
        };
        tracing::info!("reconnected to NATS");
        *lock(&current) = new;
        changes_sender.send_modify(|count| *count += 1);
    }
}

/// The reason while there is no connection.
pub(crate) const AWAY: &str = "there is no connection to NATS";

const NO_JETSTREAM_CODES: [ErrorCode; 2] =
    [ErrorCode::JETSTREAM_NOT_ENABLED, ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT];

impl From<jetstream::Error> for NotStored {
    fn from(error: jetstream::Error) -> Self {
        let reported = format!("NATS refused it: {error}");
        match error.error_code() {
            ErrorCode::STREAM_WRONG_LAST_SEQUENCE => Self::Conflict,
            // The last one is also the reply where a stream has no capacity for a message.
            ErrorCode::INSUFFICIENT_RESOURCES
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED
            | ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM
            | ErrorCode::STREAM_STORE_FAILED => Self::Full(reported),
            _ => Self::Refused(reported),
        }
    }
}
