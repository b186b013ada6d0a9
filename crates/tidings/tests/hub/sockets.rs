//! Real sockets that were handed to the fan-out.
#![cfg(target_os = "linux")]

use std::{net::TcpStream as StdStream, sync::Arc, time::Duration};

use tidings::{Hub, HubSettings, NewEvent, OnEnd, ReaderLag, Since, Socket, Subscribe};
use tidings_sse::{Item, Parser};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};

use crate::stage::{StageLog, hub_on};

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
/// No step of these tests takes so long unless it never completes.
const PATIENCE: Duration = Duration::from_secs(30);

async fn hub(shard_threads: usize) -> Hub {
    let mut settings = HubSettings::default();
    settings.shard_threads = shard_threads;
    Hub::builder().settings(settings).start().await.expect("the memory log is always available")
}

/// Counts connections that have ended.
struct Ended(watch::Sender<usize>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count += 1);
    }
}

/// Drops this with the connection.
fn keep(kept: impl Send + 'static) -> OnEnd {
    Box::new(move |_| _ = &kept)
}

struct Acceptor {
    listener: TcpListener,
    hub: Hub,
    ended: watch::Sender<usize>,
}

impl Acceptor {
    async fn new(hub: &Hub) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self { listener, hub: hub.clone(), ended: watch::Sender::new(0) }
    }

    async fn open(&self, ask: Subscribe) -> Client {
        self.open_with(ask, keep(Ended(self.ended.clone()))).await
    }

    async fn open_with(&self, ask: Subscribe, on_end: OnEnd) -> Client {
        let address = self.listener.local_addr().expect("it listens");
        let (client, accepted) = tokio::join!(TcpStream::connect(address), self.listener.accept());
        let server: StdStream = accepted.expect("accepted").0.into_std().expect("not in use");
        let subscription = self.hub.subscribe(ask).await.expect("the memory log is always available");
        subscription.drive_socket(Socket::plain(server, on_end), HEAD.to_vec(), 0);
        Client { socket: client.expect("connected"), bytes: Vec::new(), parser: Parser::new() }
    }

    async fn wait_until_disconnected(&self, count: usize) {
        let mut ended = self.ended.subscribe();
        timeout(PATIENCE, ended.wait_for(|ended| *ended == count)).await.expect("in time").expect("here");
        assert_eq!(self.hub.stats().subscribers, 0);
    }
}

struct Client {
    socket: TcpStream,
    bytes: Vec<u8>,
    parser: Parser,
}

impl Client {
    fn chat(hub: &Hub) -> Subscribe {
        Subscribe::new([hub.validator().exact("chat").expect("valid")])
    }

    /// The data of the next events; fewer if the stream ends. The flag is true if it ended cleanly.
    async fn events(&mut self, count: usize) -> (Vec<String>, bool) {
        let mut events = Vec::new();
        while events.len() < count {
            let mut buffer = [0; 4096];
            let read = timeout(PATIENCE, self.socket.read(&mut buffer)).await.expect("in time");
            let read = read.expect("the connection works");
            self.bytes.extend_from_slice(&buffer[..read]);
            if self.bytes.starts_with(HEAD) {
                self.bytes.drain(..HEAD.len());
            }
            while let Some((size, begin)) = chunk_size(&self.bytes) {
                if size == 0 {
                    return (events, self.bytes == b"0\r\n\r\n");
                }
                let Some(mut inner) = self.bytes.get(begin..begin + size) else { break };
                while let Some(item) = self.parser.next(&mut inner) {
                    if let Item::Event(event) = item.expect("events") {
                        events.push(event.data);
                    }
                }
                if self.bytes.len() < begin + size + 2 {
                    break;
                }
                self.bytes.drain(..begin + size + 2);
            }
            if read == 0 {
                break;
            }
        }
        (events, false)
    }
}

fn chunk_size(bytes: &[u8]) -> Option<(usize, usize)> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let size = std::str::from_utf8(&bytes[..end]).expect("a size");
    let size = usize::from_str_radix(size, 16).expect("hexadecimal digits");
    (bytes.len() >= end + 2 + size + 2 || size == 0).then_some((size, end + 2))
}

async fn assert_every_subscriber_receives_everything(shard_threads: usize) {
    const CLIENTS: usize = 50;
    const EVENTS: usize = 300;
    let hub = hub(shard_threads).await;
    let acceptor = Acceptor::new(&hub).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(acceptor.open(Client::chat(&hub)).await);
    }
    let publishers = (0..3).map(|publisher| {
        let hub = hub.clone();
        tokio::spawn(async move {
            for number in 0..EVENTS / 3 {
                hub.publish(NewEvent::new("chat", format!("{publisher} {number}"))).await.expect("published");
            }
        })
    });
    for publisher in publishers.collect::<Vec<_>>() {
        publisher.await.expect("no panic");
    }
    let mut orders = Vec::new();
    for client in &mut clients {
        orders.push(client.events(EVENTS).await.0);
    }
    let mut once = orders[0].clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), EVENTS);
    assert!(orders.iter().all(|order| *order == orders[0]), "all receive the same order");
    // Half of the clients disconnect by themselves, the others are disconnected by the hub.
    clients.truncate(CLIENTS / 2);
    hub.close();
    for client in &mut clients {
        let (notice, has_ended) = client.events(usize::MAX).await;
        assert_eq!(notice, [r#"{"kind":"reconnect","reason":"shutdown"}"#]);
        assert!(has_ended);
    }
    acceptor.wait_until_disconnected(CLIENTS).await;
    assert!(hub.measurements().shards.lag.count() > 0, "the first event is measured");
}

#[tokio::test]
async fn every_subscriber_receives_everything_from_the_serving_thread() {
    assert_every_subscriber_receives_everything(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_subscriber_receives_everything_from_fan_out_threads() {
    assert_every_subscriber_receives_everything(3).await;
}

#[tokio::test]
async fn a_subscriber_is_counted_no_more_when_its_connection_ends() {
    /// Reports what the hub counts when the connection ends.
    struct Counted(Hub, watch::Sender<Option<usize>>);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.1.send_replace(Some(self.0.stats().subscribers));
        }
    }

    let hub = hub(0).await;
    let acceptor = Acceptor::new(&hub).await;
    let counted = watch::Sender::new(None);
    let client = acceptor.open_with(Client::chat(&hub), keep(Counted(hub.clone(), counted.clone()))).await;
    assert_eq!(hub.stats().subscribers, 1);
    drop(client);
    let mut counted = counted.subscribe();
    let left = *timeout(PATIENCE, counted.wait_for(Option::is_some)).await.expect("in time").expect("here");
    assert_eq!(left, Some(0));
}

#[tokio::test]
async fn a_reader_that_froze_gets_the_rest_from_the_log() {
    const EVENTS: usize = 4_000;
    let mut settings = HubSettings::default();
    settings.feed_bytes_max = 100_000;
    let hub = Hub::builder().settings(settings).start().await.expect("the memory log is always available");
    let acceptor = Acceptor::new(&hub).await;
    let mut frozen = acceptor.open(Client::chat(&hub)).await;
    let mut awake = acceptor.open(Client::chat(&hub)).await;
    let text = Arc::new("x".repeat(2_000));
    for number in 0..EVENTS {
        hub.publish(NewEvent::new("chat", format!("{number} {text}"))).await.expect("published");
        assert!(awake.events(1).await.0[0].starts_with(&format!("{number} ")));
    }
    let (events, _) = frozen.events(EVENTS).await;
    for (number, event) in events.iter().enumerate() {
        assert!(event.starts_with(&format!("{number} ")), "{number}: {}", &event[..20]);
    }
    assert_eq!(events.len(), EVENTS);
}

#[tokio::test]
async fn a_client_that_ends_its_side_or_sends_too_much_is_disconnected() {
    let hub = hub(0).await;
    let acceptor = Acceptor::new(&hub).await;
    let mut quiet = acceptor.open(Client::chat(&hub)).await;
    let mut loud = acceptor.open(Client::chat(&hub)).await;
    hub.publish(NewEvent::new("chat", "hello")).await.expect("published");
    assert_eq!(quiet.events(1).await.0, ["hello"]);
    assert_eq!(loud.events(1).await.0, ["hello"]);
    quiet.socket.shutdown().await.expect("open until now");
    loud.socket.write_all(&vec![b'x'; 20_000]).await.expect("it fits into the buffers of the kernel");
    acceptor.wait_until_disconnected(2).await;
    assert_eq!(hub.stats().feeds, 0);
}

#[tokio::test]
async fn history_comes_first_and_no_event_twice() {
    let hub = hub(0).await;
    let acceptor = Acceptor::new(&hub).await;
    for number in 0..2_000 {
        hub.publish(NewEvent::new("chat", number.to_string())).await.expect("published");
    }
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(acceptor.open(Client::chat(&hub).since(Since::Earliest)).await);
    }
    for number in 2_000..2_100 {
        hub.publish(NewEvent::new("chat", number.to_string())).await.expect("published");
    }
    let expected: Vec<_> = (0..2_100).map(|number| number.to_string()).collect();
    for client in &mut clients {
        assert_eq!(client.events(2_100).await.0, expected);
    }
}

#[tokio::test]
async fn a_hub_ends_with_its_last_socket() {
    let hub = hub(0).await;
    let acceptor = Acceptor::new(&hub).await;
    let mut client = acceptor.open(Client::chat(&hub)).await;
    let Acceptor { hub: last, ended, .. } = acceptor;
    hub.publish(NewEvent::new("chat", "hello")).await.expect("published");
    drop((hub, last));
    assert_eq!(client.events(1).await.0, ["hello"], "the socket keeps the hub");
    drop(client);
    let mut ended = ended.subscribe();
    timeout(PATIENCE, ended.wait_for(|ended| *ended == 1)).await.expect("in time").expect("here");
}

/// A shard sends to some of its sockets, then looks for new input: publishers must not get ahead of
/// the others meanwhile.
#[tokio::test]
async fn publishers_wait_for_a_shard_that_has_not_visited_all_subscribers() {
    const CLIENTS: usize = 200;
    let mut settings = HubSettings::default();
    settings.fan_out_lag_bytes_max = Some(0);
    let hub = Hub::builder().settings(settings).start().await.expect("the memory log is always available");
    let acceptor = Acceptor::new(&hub).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(acceptor.open(Client::chat(&hub)).await);
    }
    hub.publish(NewEvent::new("chat", "first")).await.expect("published");
    for client in &mut clients {
        assert_eq!(client.events(1).await.0, ["first"]);
    }
    let sockets: Vec<_> =
        clients.into_iter().map(|client| client.socket.into_std().expect("not in use")).collect();
    // A task of its own, so that it and the shard alternate.
    let publishing = tokio::spawn(async move {
        for data in ["second", "third"] {
            hub.publish(NewEvent::new("chat", data)).await.expect("published");
        }
        let has_received = |socket: &StdStream| socket.peek(&mut [0; 16]).is_ok_and(|read| read > 0);
        sockets.iter().filter(|socket| has_received(socket)).count()
    });
    assert_eq!(publishing.await.expect("no panic"), CLIENTS, "have the second when the third is taken in");
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_closes_ends_its_sockets_at_once() {
    let hub = hub(0).await;
    let acceptor = Acceptor::new(&hub).await;
    let mut client = acceptor.open(Client::chat(&hub)).await;
    hub.publish(NewEvent::new("chat", "hello")).await.expect("published");
    assert_eq!(client.events(1).await.0, ["hello"]);
    let began = tokio::time::Instant::now();
    hub.close();
    acceptor.wait_until_disconnected(1).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
}

/// Panics where it is dropped, which is in the shard.
struct Grenade;

impl Drop for Grenade {
    fn drop(&mut self) {
        panic!("the shard was to panic");
    }
}

/// A shard that has ended must not be given a subscriber, which would wait forever, and its end
/// must be reported.
#[tokio::test]
async fn a_panic_in_a_shard_ends_its_streams_and_closes_the_hub() {
    for shard_threads in [0, 2] {
        let hub = hub(shard_threads).await;
        let acceptor = Acceptor::new(&hub).await;
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(acceptor.open(Client::chat(&hub)).await);
        }
        hub.publish(NewEvent::new("chat", "hello")).await.expect("published");
        for client in &mut clients {
            assert_eq!(client.events(1).await.0, ["hello"]);
        }
        let victim = acceptor.open_with(Client::chat(&hub), keep(Grenade)).await;
        drop(victim);
        timeout(PATIENCE, hub.closed()).await.expect("it is noticed");
        let failure = hub.failure().expect("it has failed");
        assert!(failure.starts_with("shard-") && failure.contains("was to panic"), "{failure}");
        assert!(hub.health().await.expect_err("not ready").to_string().contains(failure));
        // A connection that arrives now does not hang either.
        clients.push(acceptor.open(Client::chat(&hub)).await);
        for client in &mut clients {
            // Subscribers of the other shard get a notice before their end.
            let (last, _) = client.events(2).await;
            assert!(last.is_empty() || last == [r#"{"kind":"reconnect","reason":"shutdown"}"#], "{last:?}");
        }
        assert!(hub.publish(NewEvent::new("chat", "lost")).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_socket_is_closed_before_its_credential_expires_or_its_lifetime_ends() {
    // The sweep after its end is too late.
    const LIMIT: Duration = Duration::from_millis(20_700);
    for by_lifetime in [false, true] {
        let mut settings = HubSettings::default();
        settings.lifetime_max = by_lifetime.then_some(LIMIT);
        let hub =
            Hub::builder().settings(settings).start().await.expect("the memory log is always available");
        let acceptor = Acceptor::new(&hub).await;
        let began = tokio::time::Instant::now();
        let ask = Client::chat(&hub);
        let mut client = acceptor.open(if by_lifetime { ask } else { ask.expires_in(LIMIT) }).await;
        // An expiry is announced.
        let (_, has_ended) = client.events(if by_lifetime { 1 } else { 2 }).await;
        let lived = began.elapsed();
        let shortest =
            if by_lifetime { LIMIT.mul_f64(0.75) } else { LIMIT.saturating_sub(Duration::from_secs(1)) };
        assert!(has_ended && (shortest..=LIMIT).contains(&lived), "{lived:?}");
    }
}

#[tokio::test]
async fn sockets_that_are_ended_by_name_get_a_notice_or_are_cut_and_others_stay() {
    for shard_threads in [0, 2] {
        let hub = hub(shard_threads).await;
        let acceptor = Acceptor::new(&hub).await;
        let mut clients = Vec::new();
        let mut names = Vec::new();
        for _ in 0..3 {
            let ask = Client::chat(&hub);
            let address = acceptor.listener.local_addr().expect("it listens");
            let (client, accepted) = tokio::join!(TcpStream::connect(address), acceptor.listener.accept());
            let server: StdStream = accepted.expect("accepted").0.into_std().expect("not in use");
            let subscription = hub.subscribe(ask).await.expect("the memory log is always available");
            names.push(subscription.connection());
            let on_end = keep(Ended(acceptor.ended.clone()));
            subscription.drive_socket(Socket::plain(server, on_end), HEAD.to_vec(), 0);
            clients.push(Client {
                socket: client.expect("connected"),
                bytes: Vec::new(),
                parser: Parser::new(),
            });
        }
        let mut other = clients.pop().expect("three");
        // The second one reads nothing: its socket accepts no notice.
        let large = "x".repeat(1 << 16);
        for _ in 0..200 {
            hub.publish(NewEvent::new("chat", large.as_str())).await.expect("published");
        }
        hub.end(names[..2].iter().copied());
        let (events, is_clean) = clients[0].events(usize::MAX).await;
        assert!(
            events.last().expect("a notice").contains(r#""kind":"revoked""#) || !is_clean,
            "{}",
            events.len()
        );
        let mut ended = acceptor.ended.subscribe();
        timeout(PATIENCE, ended.wait_for(|ended| *ended == 2)).await.expect("in time").expect("here");
        assert_eq!(other.events(200).await.0.len(), 200);
    }
}

#[tokio::test]
async fn a_slow_reader_is_measured_until_it_has_gone() {
    let mut settings = HubSettings::default();
    // Two sweeps a second.
    settings.heartbeat = Duration::from_secs(4);
    let hub = Hub::builder().settings(settings).start().await.expect("the memory log is always available");
    let acceptor = Acceptor::new(&hub).await;
    let frozen = acceptor.open(Client::chat(&hub)).await;
    let large = "x".repeat(1 << 16);
    for _ in 0..200 {
        hub.publish(NewEvent::new("chat", large.as_str())).await.expect("published");
    }
    let measured = async {
        while hub.measurements().readers.stalled == 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, measured).await.expect("a sweep finds it");
    drop(frozen);
    acceptor.wait_until_disconnected(1).await;
    assert_eq!(hub.measurements().readers, ReaderLag::default());
}

/// It could never be sent anything again.
#[tokio::test]
async fn a_socket_whose_history_causes_a_panic_is_closed() {
    let log = StageLog::new(None);
    let hub = hub_on(&log, |settings| settings.feed_bytes_max = 0).await;
    let acceptor = Acceptor::new(&hub).await;
    let _client = acceptor.open(Client::chat(&hub)).await;
    *log.before_read.lock().expect("no thread panicked") = Some(|_| panic!("the read was to panic"));
    hub.publish(NewEvent::new("chat", "hello")).await.expect("published");
    acceptor.wait_until_disconnected(1).await;
    assert!(hub.health().await.is_ok());
}
