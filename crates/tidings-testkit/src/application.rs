//! An application that a hub asks about streams: it answers as the test says, well or badly.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::{certificate::Certificate, patiently, tls};

/// The time between two bytes of [`Reply::Drip`].
const DRIP_INTERVAL: Duration = Duration::from_millis(50);

/// What the application does with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Writes these bytes and waits for the next request on the connection.
    Bytes(String),
    /// Writes these bytes and closes the connection.
    Close(String),
    /// Writes these bytes and nothing more, and keeps the connection open.
    Hang(String),
    /// Writes these bytes slowly, one after the other, and keeps the connection open.
    Drip(String),
    /// Writes the first bytes once, then the second ones for as long as the client reads them.
    Flood(String, String),
}

impl Reply {
    /// A stream as `value` says, the value of `Tidings-Subscribe`.
    pub fn subscribe(value: &str) -> Self {
        Self::with("200 OK", &format!("Tidings-Subscribe: {value}\r\n"), "")
    }

    /// A response with further header lines, each with its line end, and a body.
    pub fn with(status: &str, lines: &str, body: &str) -> Self {
        Self::Bytes(format!("HTTP/1.1 {status}\r\n{lines}Content-Length: {}\r\n\r\n{body}", body.len()))
    }
}

/// An application on a free port. Dropping it stops it.
#[derive(Debug)]
pub struct Application {
    address: SocketAddr,
    scheme: &'static str,
    state: Arc<State>,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    requests: watch::Sender<Vec<String>>,
    connections: AtomicUsize,
    abandoned: watch::Sender<usize>,
}

impl Drop for Application {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Application {
    /// Answers each request with what `reply` returns for its line and headers.
    pub async fn start(reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> anyhow::Result<Self> {
        Self::start_with(None, reply).await
    }

    /// The same over TLS.
    pub async fn start_tls(
        certificate: &Certificate,
        reply: impl Fn(&str) -> Reply + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        Self::start_with(Some(tls::acceptor(certificate)?), reply).await
    }

    async fn start_with(
        acceptor: Option<TlsAcceptor>,
        reply: impl Fn(&str) -> Reply + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            requests: watch::Sender::default(),
            connections: AtomicUsize::new(0),
            abandoned: watch::Sender::default(),
        });
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let (serving_state, reply) = (Arc::clone(&state), Arc::new(reply));
        let serving = tokio::spawn(async move {
            // Its connections end with it.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                serving_state.connections.fetch_add(1, Ordering::Relaxed);
                let (state, reply) = (Arc::clone(&serving_state), Arc::clone(&reply));
                match acceptor.clone() {
                    None => connections.spawn(serve(stream, state, reply)),
                    Some(acceptor) => connections.spawn(async move {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            serve(stream, state, reply).await;
                        }
                    }),
                };
            }
        });
        Ok(Self { address, scheme, state, serving })
    }

    /// The URL of a path, which begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// The requests so far, each its line and headers.
    pub fn requests(&self) -> Vec<String> {
        self.state.requests.borrow().clone()
    }

    /// Waits until there are this many requests.
    pub async fn has_requests(&self, count: usize) -> anyhow::Result<()> {
        let mut requests = self.state.requests.subscribe();
        patiently("requests to the application", requests.wait_for(|all| all.len() >= count)).await??;
        Ok(())
    }

    /// Waits until the client has closed this many connections on which a reply hangs.
    pub async fn is_abandoned(&self, count: usize) -> anyhow::Result<()> {
        let mut abandoned = self.state.abandoned.subscribe();
        patiently("closed connections to the application", abandoned.wait_for(|all| *all >= count)).await??;
        Ok(())
    }

    /// The connections so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    state: Arc<State>,
    reply: Arc<impl Fn(&str) -> Reply>,
) {
    let mut received = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if !matches!(stream.read_buf(&mut received).await, Ok(count) if count > 0) {
                return;
            }
        };
        let request = String::from_utf8_lossy(&received[..end]).into_owned();
        received.drain(..end);
        let reply = reply(&request);
        state.requests.send_modify(|all| all.push(request));
        let (bytes, further) = match &reply {
            Reply::Bytes(bytes) | Reply::Close(bytes) | Reply::Hang(bytes) => (bytes.as_str(), ""),
            Reply::Drip(bytes) => ("", bytes.as_str()),
            Reply::Flood(bytes, further) => (bytes.as_str(), further.as_str()),
        };
        if stream.write_all(bytes.as_bytes()).await.is_err() {
            return;
        }
        if let Reply::Drip(_) = reply {
            for byte in further.as_bytes() {
                tokio::time::sleep(DRIP_INTERVAL).await;
                if stream.write_all(&[*byte]).await.is_err() {
                    return;
                }
            }
        }
        match reply {
            Reply::Bytes(_) => {}
            Reply::Close(_) => return,
            Reply::Hang(_) | Reply::Drip(_) => {
                // Until the client closes.
                let _ = stream.read(&mut [0; 1]).await;
                state.abandoned.send_modify(|count| *count += 1);
                return;
            }
            Reply::Flood(..) => while stream.write_all(further.as_bytes()).await.is_ok() {},
        }
    }
}
