//! The driver of a cursor for a bare socket: a subscription whose HTTP/1.1 connection belongs to the hub from now on.
//!
//! Each item of the [`Subscription`] becomes one chunk, and what is ready together is written together. What the client sends is read and
//! forgotten: its end means that it is gone, and more than a few KiB of it are not what a subscriber sends.

use std::{
    any::Any,
    io,
    net::{Shutdown, TcpStream},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt};
use tokio::time::timeout;

use crate::Subscription;

/// Most bytes that a subscriber may send behind its request. They are dropped; this many end the connection.
const UNEXPECTED_BYTES_MAX: usize = 8 * 1024;
/// Most bytes that are collected for one write, if no single item is larger.
const WRITE_BYTES_MAX: usize = 64 * 1024;
/// How long a stream that has ended waits for its client to close, so that what the client still sends takes none of the last words with it.
const LINGER: Duration = Duration::from_secs(2);
/// RFC 9112, 7.1: no more chunks, no trailer.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

impl Subscription {
    /// Hands this subscription and its connection to the fan-out. `head` is what must be sent before the stream (the response head), the
    /// stream itself is sent in HTTP/1.1 chunks and ends with the last chunk and a shutdown of the connection. `early_bytes`: how many
    /// unexpected bytes the client has sent already. `keep` is dropped when the connection has ended.
    ///
    /// The socket must not block. To be called within a tokio runtime.
    pub fn drive_socket(
        self,
        socket: TcpStream,
        head: Vec<u8>,
        early_bytes: usize,
        keep: Box<dyn Any + Send>,
    ) {
        tokio::spawn(async move {
            if let Err(error) = drive(self, socket, head, early_bytes).await {
                tracing::debug!(%error, "a subscriber's connection broke");
            }
            drop(keep);
        });
    }
}

async fn drive(
    mut subscription: Subscription,
    socket: TcpStream,
    head: Vec<u8>,
    early_bytes: usize,
) -> io::Result<()> {
    let socket = tokio::net::TcpStream::from_std(socket)?;
    let mut unexpected_bytes = early_bytes;
    let mut out = head;
    let mut ended = !collect(&mut subscription, &mut out);
    while !(ended && out.is_empty()) {
        if unexpected_bytes >= UNEXPECTED_BYTES_MAX {
            return Ok(());
        }
        tokio::select! {
            read = read(&socket) => match read? {
                0 => return Ok(()),
                length => unexpected_bytes += length,
            },
            written = write(&socket, &out), if !out.is_empty() => {
                out.drain(..written?);
            }
            item = subscription.next(), if out.is_empty() => if let Some(bytes) = item {
                push_chunk(&mut out, &bytes);
                ended = !collect(&mut subscription, &mut out);
            } else {
                out.extend_from_slice(LAST_CHUNK);
                ended = true;
            },
        }
        if out.is_empty() {
            // Who waits holds no buffer.
            out = Vec::new();
        }
    }
    let socket = socket.into_std()?;
    socket.shutdown(Shutdown::Write)?;
    let socket = tokio::net::TcpStream::from_std(socket)?;
    let _ = timeout(LINGER, async { while matches!(read(&socket).await, Ok(1..)) {} }).await;
    Ok(())
}

/// Adds what is ready now; false if that is the end of the stream.
fn collect(subscription: &mut Subscription, out: &mut Vec<u8>) -> bool {
    while out.len() < WRITE_BYTES_MAX {
        match subscription.next().now_or_never() {
            None => return true,
            Some(Some(bytes)) => push_chunk(out, &bytes),
            Some(None) => {
                out.extend_from_slice(LAST_CHUNK);
                return false;
            }
        }
    }
    true
}

/// RFC 9112, 7.1: the size in hexadecimal digits, the data.
fn push_chunk(out: &mut Vec<u8>, bytes: &[u8]) {
    // An empty chunk would be the last one.
    if !bytes.is_empty() {
        out.extend_from_slice(format!("{:X}\r\n", bytes.len()).as_bytes());
        out.extend_from_slice(bytes);
        out.extend_from_slice(b"\r\n");
    }
}

async fn read(socket: &tokio::net::TcpStream) -> io::Result<usize> {
    loop {
        socket.readable().await?;
        match socket.try_read(&mut [0; 1024]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
    }
}

async fn write(socket: &tokio::net::TcpStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        socket.writable().await?;
        match socket.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            written => return written,
        }
    }
}
