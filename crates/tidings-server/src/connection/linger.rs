//! Reads on from a client that has received the last response of its connection.

use tokio::io::{AsyncRead, AsyncReadExt};

/// How long and how much a client is read from after a response that ends its connection, so that
/// what it still sends does not reset the connection and take the response with it.
pub(crate) const LINGER_SECS: u64 = 2;
const LINGER_BYTES_MAX: usize = 1024 * 1024;
const READ_BYTES: usize = 8 * 1024;

/// Reads until the client has ended its side, or has sent too much. The time is the caller's.
pub(crate) async fn read_to_end(io: &mut (impl AsyncRead + Unpin)) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(READ_BYTES);
    let mut left = LINGER_BYTES_MAX;
    loop {
        buffer.clear();
        let read = io.read_buf(&mut buffer).await?;
        if read == 0 || read > left {
            return Ok(());
        }
        left -= read;
    }
}
