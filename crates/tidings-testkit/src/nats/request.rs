//! Requests to a nats-server, and waiting for their answers.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};

use crate::PATIENCE;

/// The interval of checks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// The timeout of an answer.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// The answer to a request on a subject.
pub(super) fn ask(server: SocketAddr, subject: &str, payload: &str) -> anyhow::Result<String> {
    let stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(ANSWER_TIME))?;
    let mut lines = BufReader::new(&stream);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    ensure!(line.starts_with("INFO "), "an unexpected greeting: {line:?}");
    (&stream).write_all(
        format!(
            "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB {subject} answer {}\r\n{payload}\r\n",
            payload.len()
        )
        .as_bytes(),
    )?;
    loop {
        line.clear();
        ensure!(lines.read_line(&mut line)? > 0, "the server ended the connection");
        if let Some(message) = line.strip_prefix("MSG ") {
            let bytes: u64 = message.trim_end().rsplit(' ').next().unwrap_or_default().parse()?;
            let mut answer = String::new();
            lines.by_ref().take(bytes).read_to_string(&mut answer)?;
            return Ok(answer);
        }
    }
}

/// Repeats a check until it succeeds. An error counts as no.
pub(super) fn until(what: &str, mut holds: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !holds().unwrap_or(false) {
        if Instant::now() > deadline {
            bail!("waited {} s for {what}", PATIENCE.as_secs());
        }
        thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}
