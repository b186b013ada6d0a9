//! The life cycle of connections: keep-alive, pipelining, half-close, capacity and shutdown.

use std::{fmt::Write, net::SocketAddr, sync::atomic::Ordering::Relaxed, time::Duration};

use tidings_server::{ConnectionSettings, Drain, Listener};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::{
    log_support::logging,
    support::{Client, Server, patiently, status},
};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const GET_LAST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn two_requests_in_one_packet_get_two_answers() {
    let server = Server::start();
    let answer = server.answer(&[GET, GET_LAST].concat()).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{answer}");
    assert_eq!(answer.matches("hello").count(), 2, "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn a_request_after_a_body_is_separated_from_it() {
    let server = Server::start();
    for post in [
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8;a=b\r\nGET / HT\r\na\r\nTP/1.1\r\n\r\n\r\n0\r\nTrailer: a\r\n\r\n",
    ] {
        let answer = server.answer(&[post.as_bytes(), GET, GET_LAST].concat()).await;
        assert_eq!(answer.matches("HTTP/1.1 200 OK\r\n").count(), 3, "{answer}");
        assert_eq!(answer.matches("GET / HTTP/1.1\r\n\r\n").count(), 1, "{answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_no_handler_reads_is_not_taken_for_a_request() {
    let server = Server::start();
    for method in ["GET /", "POST /nowhere"] {
        let smuggled = format!("{method} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", GET.len());
        let answer = server.answer(&[smuggled.as_bytes(), GET, GET_LAST].concat()).await;
        let answers = answer.matches("HTTP/1.1 ").count();
        assert!(answers == 2 || (answers == 1 && answer.contains("connection: close")), "{method}: {answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn many_pipelined_requests_are_all_answered_in_order() {
    let server = Server::start();
    let mut requests = String::new();
    for number in 0..500 {
        write!(requests, "GET /seen?{number} HTTP/1.1\r\nHost: a\r\n\r\n")
            .expect("a string takes everything");
    }
    requests.push_str("GET /seen?last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let answer = server.answer(requests.as_bytes()).await;
    let mut rest = answer.as_str();
    for number in (0..500).map(|number| number.to_string()).chain(["last".to_owned()]) {
        let seen = format!("GET /seen?{number} host=a");
        rest = rest.split_once(&seen).unwrap_or_else(|| panic!("{seen} is missing or out of order")).1;
    }
    assert_eq!(server.metrics.requests.load(Relaxed), 501);
    server.stop().await;
}

#[tokio::test]
async fn a_half_closed_client_still_receives_the_response() {
    let server = Server::start();
    for request in [GET, b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"] {
        let mut client = server.connect().await;
        client.send(request).await;
        client.shut_sending().await;
        let answer = client.rest().await;
        assert_eq!(status(&answer), 200);
        assert!(answer.ends_with("hello"), "{answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_half_closed_client_receives_all_pipelined_responses() {
    let server = Server::start();
    let mut client = server.connect().await;
    client.send(&GET.repeat(3)).await;
    client.shut_sending().await;
    assert_eq!(client.rest().await.matches("hello").count(), 3);
    server.stop().await;
}

#[tokio::test]
async fn a_stream_is_dropped_when_its_client_disconnects() {
    let mut server = Server::start();
    for shut_only in [true, false] {
        let mut client = server.connect().await;
        client.send(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.read_until(": hi\n").await;
        if shut_only {
            client.shut_sending().await;
        } else {
            drop(client);
        }
        patiently(server.streams_ended.recv()).await.expect("the stream ended");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_handler_knows_the_address_of_the_peer() {
    let server = Server::start();
    let mut client = server.connect().await;
    client.send(b"GET /peer HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let address = client.0.local_addr().expect("an address").ip().to_string();
    assert!(client.rest().await.ends_with(&address));
    server.stop().await;
}

#[tokio::test]
async fn a_handler_that_panics_ends_its_own_connection_only() {
    let (log, _guard) = logging();
    let server = Server::start();
    let mut other = server.connect().await;
    other.send(GET).await;
    other.read_until("hello").await;
    assert_eq!(server.answer(b"GET /panic HTTP/1.1\r\nHost: a\r\n\r\n").await, "");
    other.send(GET).await;
    other.read_until("hello").await;
    let lines = log.lines_with("a connection ended with a panic");
    assert!(matches!(&lines[..], [line] if line.contains("a handler's bug")), "{lines:?}");
    server.stop().await;
}

#[tokio::test]
async fn silent_and_incomplete_requests_do_not_block_others() {
    let server = Server::start();
    let mut slow = Vec::new();
    for number in 0..200 {
        let mut client = server.connect().await;
        if number % 2 == 0 {
            client.send(b"GET / HTTP/1.1\r\nX-Slow").await;
        }
        slow.push(client);
    }
    assert_eq!(status(&server.answer(GET_LAST).await), 200);
    assert_eq!(server.metrics.requests.load(Relaxed), 1, "no slow request has reached the service");
    drop(slow);
    server.stop().await;
}

#[tokio::test]
async fn a_connection_beyond_the_limit_gets_one_marked_request() {
    let server = Server::start_with(ConnectionSettings { connections_max: 1, ..Default::default() });
    let mut held = server.connect().await;
    held.send(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await;
    held.read_until(": hi\n").await;
    let ask = b"GET /seen HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = server.answer(&ask.repeat(2)).await;
    assert!(answer.ends_with("without room") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert_eq!(server.metrics.refused_full.load(Relaxed), 1);
    drop(held);
    patiently(async {
        let ask = b"GET /seen HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        while server.answer(ask).await.contains("without room") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    server.stop().await;
}

/// The clock is the runtime's own and advances when all tasks are idle.
#[tokio::test(start_paused = true)]
async fn a_rejected_connection_ends_soon_for_any_request() {
    let server = Server::start_with(ConnectionSettings { connections_max: 0, ..Default::default() });
    for (sent, secs) in [
        ("", 2),
        ("GET / HTT", 2),
        ("GET /endless HTTP/1.1\r\nHost: a\r\n\r\n", 5),
        ("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n", 5),
    ] {
        let start = Instant::now();
        let mut client = server.connect().await;
        client.send(sent.as_bytes()).await;
        client.rest_or_reset().await;
        assert_eq!(start.elapsed().as_secs(), secs, "{sent:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_rejected_ones_wait_and_are_answered() {
    let server = Server::start_with(ConnectionSettings { connections_max: 0, ..Default::default() });
    let mut clients = Vec::new();
    for _ in 0..100 {
        let mut client = server.connect().await;
        client.send(b"GET /seen HTTP/1.1\r\nHost: a\r\n\r\n").await;
        clients.push(client);
    }
    for client in &mut clients {
        assert!(client.rest().await.ends_with("without room"));
    }
    assert_eq!(server.metrics.refused_full.load(Relaxed), 100);
    server.stop().await;
}

/// What happens while no time passes. The clock is the runtime's own.
async fn at_once(mut is_so: impl FnMut() -> bool) -> bool {
    for _ in 0..10_000 {
        if is_so() {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

const ENDLESS: &[u8] = b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn only_a_few_rejected_connections_are_served_at_a_time() {
    let server = Server::start_with(ConnectionSettings { connections_max: 0, ..Default::default() });
    let clients: Vec<_> = (0..40).map(|_| server.connect_at_once(ENDLESS)).collect();
    let accepted = || server.metrics.accepted.load(Relaxed);
    assert!(at_once(|| accepted() == 16).await, "{}", accepted());
    assert!(!at_once(|| accepted() > 16).await, "{}", accepted());
    for mut client in clients {
        client.rest_or_reset().await;
    }
    assert_eq!(accepted(), 40);
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rejected_connections_do_not_delay_one_that_finds_capacity() {
    let server = Server::start_with(ConnectionSettings { connections_max: 1, ..Default::default() });
    let metrics = &server.metrics;
    let held = server.connect_at_once(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(at_once(|| metrics.requests.load(Relaxed) == 1).await);
    let _rejected: Vec<_> = (0..16).map(|_| server.connect_at_once(ENDLESS)).collect();
    assert!(at_once(|| metrics.requests.load(Relaxed) == 17).await);
    drop(held);
    assert!(at_once(|| metrics.open.load(Relaxed) == 16).await);
    let _admitted = server.connect_at_once(GET);
    assert!(at_once(|| metrics.requests.load(Relaxed) == 18).await);
    assert_eq!(metrics.refused_full.load(Relaxed), 16);
    server.stop().await;
}

/// An operator learns which setting to raise.
#[tokio::test]
async fn a_limit_on_connections_is_logged_when_it_is_reached() {
    let (log, _guard) = logging();
    let first_line = async |settings, sent: &[u8]| {
        let server = Server::start_with(settings);
        let mut clients = Vec::new();
        for _ in 0..2 {
            let Client(mut client) = server.connect().await;
            // It may be closed for the other one meanwhile.
            let _ = patiently(client.write_all(sent)).await;
            clients.push(client);
        }
        let line = patiently(async {
            loop {
                if let [line, ..] = &log.lines_with("a limit was reached")[..] {
                    break line.clone();
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        drop(clients);
        server.stop().await;
        log.clear();
        line[line.find("limit=").expect("its name")..].to_owned()
    };
    // Nothing that has arrived in part is given up before the rest of it is here.
    let settings = || ConnectionSettings {
        request_headers_bytes_max: 64 * 1024 * 1024,
        request_headers_secs: 600,
        ..Default::default()
    };
    let line = first_line(ConnectionSettings { connections_max: 1, ..settings() }, GET).await;
    assert_eq!(line, r#"limit="connections_max" flag="--connections-max" count=1"#);
    let line = first_line(ConnectionSettings { requests_arriving_max: 1, ..settings() }, b"").await;
    assert_eq!(line, r#"limit="requests_arriving_max" flag="--requests-arriving-max" count=1"#);
    let large = [&b"GET /"[..], &vec![b'a'; 20 * 1024 * 1024]].concat();
    let line = first_line(settings(), &large).await;
    assert_eq!(line, r#"limit="memory for request headers that are still arriving" count=1"#);
}

#[tokio::test]
async fn silent_rejected_connections_do_not_delay_requests() {
    let settings = ConnectionSettings {
        connections_max: 0,
        first_byte_secs: 3_600,
        request_headers_secs: 3_600,
        ..ConnectionSettings::default()
    };
    let server = Server::start_with(settings);
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(server.connect().await);
    }
    assert_eq!(status(&server.answer(GET).await), 200);
    let given_up = server.metrics.refused_crowded.load(Relaxed);
    assert!(given_up >= 180, "{given_up} of 200 were closed for others before their deadline");
    server.stop().await;
}

#[tokio::test]
async fn idle_connections_are_closed_for_capacity_longest_idle_first() {
    let server = Server::start_with(ConnectionSettings { connections_max: 3, ..Default::default() });
    let mut stream = server.connect().await;
    stream.send(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await;
    stream.read_until(": hi\n").await;
    let mut kept = [server.connect().await, server.connect().await];
    // The first connection is the one that was used last.
    for number in [0, 1, 0] {
        kept[number].send(GET).await;
        kept[number].read_until("hello").await;
    }
    let [used_last, idle] = &mut kept;
    let mut newest = server.connect().await;
    newest.send(GET).await;
    newest.read_until("hello").await;
    assert_eq!(idle.rest().await, "");
    assert_eq!(server.metrics.closed_idle.load(Relaxed), 1);
    used_last.send(GET).await;
    used_last.read_until("hello").await;
    assert_eq!(server.metrics.refused_full.load(Relaxed), 0);
    drop(stream);
    server.stop().await;
}

/// A slow request costs the same, whether or not its client has sent a quick one before.
#[tokio::test]
async fn a_request_that_begins_on_a_kept_connection_counts_as_incomplete() {
    let server = Server::start_with(ConnectionSettings { requests_arriving_max: 1, ..Default::default() });
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut client = server.connect().await;
        client.send(GET).await;
        client.read_until("hello").await;
        kept.push(client);
    }
    for client in &mut kept {
        client.send(&GET[..10]).await;
    }
    assert_eq!(status(&kept[0].rest().await), 408);
    assert_eq!(server.metrics.refused_crowded.load(Relaxed), 1);
    drop(kept);
    server.stop().await;
}

#[tokio::test]
async fn stopping_refuses_new_connections_and_finishes_responses() {
    let server = Server::start();
    let address = server.address;
    let mut running = server.connect().await;
    running
        .send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        .await;
    running.read_until("\r\n\r\n").await;
    let stopped = tokio::spawn(server.stop());
    patiently(async {
        while let Ok(stream) = TcpStream::connect(address).await {
            drop(stream);
            tokio::task::yield_now().await;
        }
    })
    .await;
    running.send(b"hello").await;
    let answer = running.rest().await;
    assert_eq!(status(&answer), 200);
    assert!(answer.ends_with("hello"), "{answer}");
    stopped.await.expect("no panic");
}

/// The clock is the runtime's own.
#[tokio::test(start_paused = true)]
async fn stopping_closes_idle_connections_at_once() {
    let server = Server::start();
    let mut idle = server.connect().await;
    idle.send(GET).await;
    idle.read_until("hello").await;
    let start = Instant::now();
    server.stop().await;
    assert_eq!(start.elapsed().as_secs(), 0);
    assert_eq!(idle.rest().await, "");
}

/// Its clients reconnect to the next process, and need not be refused for that. The clock is the
/// runtime's own.
#[tokio::test(start_paused = true)]
async fn a_server_that_is_succeeded_answers_once_more_and_then_closes_idle_connections() {
    let server = Server::start();
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut client = server.connect().await;
        client.send(GET).await;
        let answer = client.read_until("hello").await;
        assert!(!answer.contains("connection: close"), "{answer}");
        kept.push(client);
    }
    let start = Instant::now();
    let ended = tokio::spawn(server.end(Drain::Succeeded(Duration::from_secs(8))));
    sleep(Duration::from_secs(5)).await;
    kept[0].send(GET).await;
    let answer = kept[0].rest().await;
    assert!(answer.contains("connection: close") && answer.ends_with("hello"), "{answer}");
    assert_eq!(kept[1].rest().await, "");
    assert_eq!(start.elapsed().as_secs(), 7);
    ended.await.expect("no panic");
    assert_eq!(start.elapsed().as_secs(), 7);
}

#[tokio::test]
async fn connections_that_do_not_end_in_time_are_closed() {
    let mut server = Server::start_with(ConnectionSettings { drain_secs: 0, ..Default::default() });
    let mut endless = server.connect().await;
    endless.send(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut stream = server.connect().await;
    stream.send(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await;
    stream.read_until(": hi\n").await;
    let metrics = server.metrics.clone();
    let mut streams_ended =
        std::mem::replace(&mut server.streams_ended, tokio::sync::mpsc::unbounded_channel().1);
    server.stop().await;
    streams_ended.try_recv().expect("the stream was dropped before the server ended");
    assert_eq!(metrics.open.load(Relaxed), 0);
    assert_eq!(endless.rest().await, "");
}

#[tokio::test]
async fn a_keepalive_connection_with_many_requests_counts_once() {
    let server = Server::start();
    let mut client: Client = server.connect().await;
    for _ in 0..3 {
        client.send(GET).await;
        client.read_until("hello").await;
    }
    assert_eq!(server.metrics.accepted.load(Relaxed), 1);
    assert_eq!(server.metrics.open.load(Relaxed), 1);
    assert_eq!(server.metrics.requests.load(Relaxed), 3);
    server.stop().await;
}

/// Another process could take a port of 127.0.0.1 that was just freed; this test uses its own
/// loopback address, which only Linux provides. No other test in this binary may start a process:
/// between fork and exec, the child also holds the listening socket.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_restart_does_not_wait_for_connections_of_the_old_process() {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let own = SocketAddr::from(([127, 1 + high % 254, low, 1], 0));
    let listener = Listener::bind(own).expect("a free port");
    let server = Server::start_on(listener, ConnectionSettings::default());
    let address = server.address;
    let mut client = server.connect().await;
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_until("hello").await;
    server.stop().await;
    let again = Listener::bind(address).expect("the address at once");
    let server = Server::start_on(again, ConnectionSettings::default());
    assert_eq!(status(&server.answer(GET_LAST).await), 200);
    server.stop().await;
}
