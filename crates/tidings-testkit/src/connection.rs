//! A bare HTTP/1.1 connection that shows every byte.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use crate::{
    patiently,
    tls::{Stream, TlsClient},
};

/// Maximum size of response headers.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Maximum length of the size line of a chunk.
const CHUNK_LINE_BYTES_MAX: usize = 64;

/// A TCP connection to a hub, and the received data that is not parsed yet.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    /// The value of `Host`.
    host: String,
    received: Vec<u8>,
}

/// A response; its body is empty if it was not read.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The header fields in their order, names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body, without its framing.
    pub body: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = patiently("a connection", TcpStream::connect(address)).await??;
        Ok(Self::of(Stream::Plain(stream), address.to_string()))
    }

    /// Connects to a Unix socket.
    pub async fn open_unix(path: &Path) -> anyhow::Result<Self> {
        let stream = patiently("a connection", UnixStream::connect(path)).await??;
        // The calls on a stream socket are the same, whatever its family.
        let stream = std::net::TcpStream::from(OwnedFd::from(stream.into_std()?));
        Ok(Self::of(Stream::Plain(TcpStream::from_std(stream)?), "localhost".to_owned()))
    }

    /// Connects from this address of the machine.
    pub async fn open_from(local: IpAddr, address: SocketAddr) -> anyhow::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.bind(SocketAddr::new(local, 0))?;
        let stream = patiently("a connection", socket.connect(address)).await??;
        Ok(Self::of(Stream::Plain(stream), address.to_string()))
    }

    /// Connects with a receive buffer of about this size, so that a reader that does not read
    /// stalls early.
    pub async fn open_narrow(address: SocketAddr, receive_buffer_bytes: usize) -> anyhow::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_recv_buffer_size(receive_buffer_bytes)?;
        socket.set_nonblocking(true)?;
        let socket = TcpSocket::from_std_stream(socket.into());
        let stream = patiently("a connection", socket.connect(address)).await??;
        Ok(Self::of(Stream::Plain(stream), address.to_string()))
    }

    /// Connects over TLS, as a client that wants the host of this name.
    pub async fn open_tls(address: SocketAddr, client: &TlsClient, host: &str) -> anyhow::Result<Self> {
        Self::open(address).await?.encrypt(client, host).await
    }

    /// Begins with TLS on a connection of which nothing was used.
    pub async fn encrypt(self, client: &TlsClient, host: &str) -> anyhow::Result<Self> {
        let Stream::Plain(socket) = self.stream else { bail!("the connection is encrypted already") };
        let stream = patiently("a handshake", client.connect(socket, host)).await??;
        Ok(Self::of(stream, self.host))
    }

    fn of(stream: Stream, host: String) -> Self {
        Self { stream, host, received: Vec::new() }
    }

    /// The protocol that the server has chosen (ALPN), over TLS.
    pub fn protocol(&self) -> Option<String> {
        let Stream::Encrypted(stream) = &self.stream else { return None };
        stream.get_ref().1.alpn_protocol().map(|protocol| String::from_utf8_lossy(protocol).into_owned())
    }

    /// The certificate of the server, over TLS.
    pub fn certificate(&self) -> Option<Vec<u8>> {
        let Stream::Encrypted(stream) = &self.stream else { return None };
        stream.get_ref().1.peer_certificates()?.first().map(|certificate| certificate.to_vec())
    }

    /// The cipher suite that was negotiated, over TLS, as in `TLS13_AES_256_GCM_SHA384`.
    pub fn cipher_suite(&self) -> Option<String> {
        let Stream::Encrypted(stream) = &self.stream else { return None };
        let suite = stream.get_ref().1.negotiated_cipher_suite()?.suite();
        Some(suite.as_str().map_or_else(|| format!("{suite:?}"), str::to_owned))
    }

    /// Sends new keys, over TLS 1.3 (RFC 8446, 4.6.3), and asks for those of the server.
    pub async fn update_keys(&mut self) -> anyhow::Result<()> {
        let Stream::Encrypted(stream) = &mut self.stream else { bail!("the connection is not encrypted") };
        stream.get_mut().1.refresh_traffic_keys()?;
        Ok(stream.flush().await?)
    }

    /// Sends these bytes without encryption, on a connection with it.
    pub async fn send_unencrypted(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let Stream::Encrypted(stream) = &mut self.stream else { bail!("the connection is not encrypted") };
        Ok(stream.get_mut().0.write_all(bytes).await?)
    }

    /// Sends these bytes and nothing else.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> anyhow::Result<()> {
        let sent = async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        };
        patiently("the peer to read", sent).await?.context("cannot send")
    }

    /// Sends a well-formed request. `head` is the method and the target, optionally followed by
    /// header lines, separated by LF. `Host` is added, and `Content-Length` with a body.
    pub async fn request(&mut self, head: &str, body: &[u8]) -> anyhow::Result<()> {
        let (request_line, fields) = head.split_once('\n').unwrap_or((head, ""));
        let mut lines = vec![format!("{request_line} HTTP/1.1"), format!("Host: {}", self.host)];
        lines.extend(fields.lines().map(str::to_owned));
        if !body.is_empty() || head.starts_with("POST") {
            lines.push(format!("Content-Length: {}", body.len()));
        }
        self.send([lines.join("\r\n").as_bytes(), b"\r\n\r\n", body].concat()).await
    }

    /// Reads the headers of a response, and leaves the body unread.
    pub async fn head(&mut self) -> anyhow::Result<Response> {
        loop {
            if let Some(end) = find(&self.received, b"\r\n\r\n") {
                let head: Vec<u8> = self.received.drain(..end + 4).collect();
                return Response::parse(&head[..end]);
            }
            ensure!(self.received.len() <= HEAD_BYTES_MAX, "response headers without an end");
            self.more().await?.then_some(()).context("the peer closed before its response headers ended")?;
        }
    }

    /// Reads a response with its body. A `100 Continue` before it is skipped.
    pub async fn response(&mut self) -> anyhow::Result<Response> {
        let mut response = self.head().await?;
        while response.status == 100 {
            response = self.head().await?;
        }
        if matches!(response.status, 204 | 304) {
            return Ok(response);
        }
        if response.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk().await? {
                response.body.extend(chunk);
            }
        } else if let Some(length) = response.header("content-length") {
            let length: usize = length.parse()?;
            while self.received.len() < length {
                self.more().await?.then_some(()).context("the peer closed within a body")?;
            }
            response.body = self.received.drain(..length).collect();
        } else {
            while self.more().await? {}
            response.body = std::mem::take(&mut self.received);
        }
        Ok(response)
    }

    /// The next chunk of a chunked body, `None` at its clean end. A cut is an error.
    pub async fn chunk(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        let (opening, length) = loop {
            if let Some(end) = find(&self.received, b"\r\n") {
                let line = std::str::from_utf8(&self.received[..end]).context("a chunk size")?;
                break (end + 2, usize::from_str_radix(line.trim(), 16).context("a chunk size")?);
            }
            ensure!(self.received.len() <= CHUNK_LINE_BYTES_MAX, "a chunk without a size");
            self.more().await?.then_some(()).context("the stream was cut between two chunks")?;
        };
        while self.received.len() < opening + length + 2 {
            self.more().await?.then_some(()).context("the stream was cut within a chunk")?;
        }
        let chunk = self.received[opening..opening + length].to_vec();
        ensure!(&self.received[opening + length..opening + length + 2] == b"\r\n", "a chunk of another size");
        self.received.drain(..opening + length + 2);
        Ok((length > 0).then_some(chunk))
    }

    /// Reads so many bytes, whatever they are.
    pub async fn bytes(&mut self, count: usize) -> anyhow::Result<Vec<u8>> {
        while self.received.len() < count {
            self.more().await?.then_some(()).context("the peer closed early")?;
        }
        Ok(self.received.drain(..count).collect())
    }

    /// Reads until the peer closes, and returns everything. A reset counts as a close.
    pub async fn rest(&mut self) -> anyhow::Result<Vec<u8>> {
        loop {
            match self.more().await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) if error.downcast_ref::<io::Error>().is_some() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(std::mem::take(&mut self.received))
    }

    /// Whether the peer sends nothing for this long and stays connected. Only for promises about
    /// silence, never to wait for something.
    pub async fn is_silent_for(&mut self, duration: Duration) -> bool {
        self.received.is_empty() && tokio::time::timeout(duration, self.more()).await.is_err()
    }

    /// Closes the sending side, and continues to read.
    pub async fn finish_sending(&mut self) -> anyhow::Result<()> {
        Ok(self.stream.shutdown().await?)
    }

    /// Ends the connection with a reset instead of a closing frame.
    pub fn reset(self) -> anyhow::Result<()> {
        Ok(reset_on_drop(self.stream.socket())?)
    }

    /// The local address.
    pub fn local_address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.stream.socket().local_addr()?)
    }

    /// Waits for data and reads it; `false` at the end of the stream.
    async fn more(&mut self) -> anyhow::Result<bool> {
        let read = patiently("the peer to send", self.stream.read_buf(&mut self.received)).await?;
        Ok(read? > 0)
    }
}

impl Response {
    /// The value of a header field. `None` if it is absent; panics if it is repeated.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value);
        let first = values.next()?;
        assert!(values.next().is_none(), "the header field {name} is repeated: {self}");
        std::str::from_utf8(first).ok()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn parse(head: &[u8]) -> anyhow::Result<Self> {
        let mut lines = head.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end);
        let status_line = std::str::from_utf8(lines.next().unwrap_or_default())?;
        let Some(status) = status_line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)) else {
            bail!("not a status line: {status_line:?}");
        };
        let mut headers = Vec::new();
        for line in lines {
            let colon =
                line.iter().position(|&byte| byte == b':').context("a header field without a colon")?;
            let name = std::str::from_utf8(&line[..colon])?.to_ascii_lowercase();
            headers.push((name, line[colon + 1..].trim_ascii().to_vec()));
        }
        Ok(Self { status: status.parse()?, headers, body: Vec::new() })
    }
}

impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.status)?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {}", String::from_utf8_lossy(value))?;
        }
        write!(f, "\n{}", self.text())
    }
}

/// Makes the peer see a reset when this socket closes.
pub(crate) fn reset_on_drop(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
