//! The subscribers of one hub, in a process of their own: each is a bare connection that reads what
//! the hub writes.
//!
//! Prints `connected` when all streams have begun, and at the end for each event one line of its
//! latency at each subscriber, in microseconds.

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    task::{JoinSet, LocalSet},
    time::{sleep, timeout},
};

/// Subscribers of one process that connect at the same time.
const CONNECTING_MAX: usize = 10;
/// A hub that is overloaded answers 503, and is asked again after this, a limited number of times.
const AGAIN: Duration = Duration::from_secs(1);
const ATTEMPTS_MAX: usize = 30;
/// How long nothing may arrive before what is missing counts as lost.
const PATIENCE: Duration = Duration::from_secs(60);
const READ_BYTES: usize = 4096;
/// What precedes the number of an event and the time when it was published.
pub(crate) const MARK: &[u8] = b"data: event ";

/// Opens this many subscriptions and receives this many events.
pub(crate) async fn run(hub: SocketAddr, count: usize, events: usize) -> anyhow::Result<()> {
    let late = Rc::new(RefCell::new(vec![Vec::with_capacity(count); events]));
    let local = LocalSet::new();
    local
        .run_until(async {
            let turns = Rc::new(Semaphore::new(CONNECTING_MAX));
            let mut connecting = JoinSet::new();
            for _ in 0..count {
                let turns = Rc::clone(&turns);
                connecting.spawn_local(async move {
                    let _turn = turns.acquire().await?;
                    subscribe(hub).await
                });
            }
            let mut listening = JoinSet::new();
            while let Some(connected) = connecting.join_next().await {
                listening.spawn_local(listen(connected??, events, Rc::clone(&late)));
            }
            println!("connected");
            while let Some(received) = listening.join_next().await {
                received??;
            }
            anyhow::Ok(())
        })
        .await?;
    for micros in late.borrow().iter() {
        let words: Vec<_> = micros.iter().map(u64::to_string).collect();
        println!("{}", words.join(" "));
    }
    Ok(())
}

async fn subscribe(hub: SocketAddr) -> anyhow::Result<TcpStream> {
    let request =
        format!("GET /stream?topic=all HTTP/1.1\r\nHost: {hub}\r\nAccept: text/event-stream\r\n\r\n");
    for _ in 0..ATTEMPTS_MAX {
        let mut stream = TcpStream::connect(hub).await.context("cannot connect")?;
        stream.write_all(request.as_bytes()).await?;
        let mut head = [0; READ_BYTES];
        let read = timeout(PATIENCE, stream.read(&mut head)).await.context("no answer")??;
        if head[..read].starts_with(b"HTTP/1.1 200 ") {
            return Ok(stream);
        }
        ensure!(head.starts_with(b"HTTP/1.1 503 "), "refused: {}", String::from_utf8_lossy(&head[..read]));
        sleep(AGAIN).await;
    }
    bail!("refused {ATTEMPTS_MAX} times")
}

async fn listen(stream: TcpStream, events: usize, late: Rc<RefCell<Vec<Vec<u64>>>>) -> anyhow::Result<()> {
    let mut received = 0;
    // What a read broke off in the middle of a line; nearly always nothing.
    let mut rest = Vec::new();
    while received < events {
        timeout(PATIENCE, stream.readable()).await.with_context(|| format!("event {received} is lost"))??;
        let mut bytes = [0; READ_BYTES];
        let read = match stream.try_read(&mut bytes) {
            Ok(0) => bail!("a stream ended after {received} events"),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.into()),
        };
        let now = now_micros()?;
        rest.extend_from_slice(&bytes[..read]);
        let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in rest[..whole].split(|byte| *byte == b'\n') {
            let Some(event) = line.strip_prefix(MARK) else { continue };
            let event = std::str::from_utf8(event)?;
            let mut words = event.split(' ');
            let mut number = || words.next().context("no number")?.parse::<u64>().context("no number");
            let (place, published) = (number()?, number()?);
            ensure!(place == received as u64, "event {place} arrived where {received} was expected");
            late.borrow_mut()[received].push(now.saturating_sub(published));
            received += 1;
        }
        rest.drain(..whole);
        if rest.is_empty() {
            rest = Vec::new();
        }
    }
    Ok(())
}

/// The time, for processes of one machine to compare.
pub(crate) fn now_micros() -> anyhow::Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros().try_into()?)
}
