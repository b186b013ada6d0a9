use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::*;

fn acceptor() -> (Acceptor, SocketAddr) {
    let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
    let address = listener.local_addr().expect("a TCP socket");
    (Acceptor::new(vec![listener], DEAD_PEER_DEFAULT), address)
}

#[tokio::test]
async fn an_accepted_connection_has_no_delay_and_a_bounded_buffer() {
    let (mut acceptor, address) = acceptor();
    let (client, Accepted { stream: accepted, peer, .. }) =
        tokio::join!(TcpStream::connect(address), async {
            acceptor.accept(&ConnectionMetrics::default()).await
        });
    client.expect("a connection");
    assert_eq!(peer, ClientAddress::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    let socket = SockRef::from(&accepted);
    assert!(socket.tcp_nodelay().expect("an option"));
    assert!(socket.keepalive().expect("an option"));
    #[cfg(target_os = "linux")]
    {
        assert_eq!(socket.send_buffer_size().expect("an option"), SEND_BUFFER_BYTES);
        assert_eq!(socket.tcp_user_timeout().expect("an option"), Some(Duration::from_secs(30)));
        assert_eq!(socket.tcp_keepalive_time().expect("an option"), Duration::from_secs(15));
        assert_eq!(socket.tcp_keepalive_interval().expect("an option"), Duration::from_secs(5));
    }
}

/// The reserve suffices for every connection that is rejected with a response. If it did not,
/// accepting would pause, not spin.
#[tokio::test(start_paused = true)]
async fn accepting_pauses_longer_after_each_further_system_error() {
    let (mut acceptor, address) = acceptor();
    let metrics = ConnectionMetrics::default();
    let error = io::Error::other("no memory");
    for errors in [1, 2, 3, 1] {
        let _client = std::net::TcpStream::connect(address).expect("a connection that waits");
        let began = Instant::now();
        for _ in 0..errors {
            acceptor.failed(&error, &metrics);
        }
        acceptor.accept(&metrics).await;
        assert_eq!(began.elapsed(), ACCEPT_PAUSE_MIN * 2_u32.pow(errors - 1));
    }
    assert_eq!(metrics.accept_pauses.load(Relaxed), 7);
    for _ in 0..40 {
        acceptor.failed(&error, &metrics);
    }
    assert!(acceptor.paused_until.expect("a pause") <= Instant::now() + ACCEPT_PAUSE_MAX);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_error_of_one_connection_does_not_pause_accepting_and_a_lack_of_anything_does() {
    use rustix::io::Errno;
    let (mut acceptor, _) = acceptor();
    let mut pauses = |error: Errno| {
        acceptor.failed(&io::Error::from_raw_os_error(error.raw_os_error()), &ConnectionMetrics::default());
        acceptor.paused_until.take().is_some()
    };
    for error in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::BADF, Errno::INVAL] {
        assert!(pauses(error), "{error}");
    }
    for error in [Errno::CONNABORTED, Errno::INTR, Errno::NETDOWN, Errno::HOSTUNREACH, Errno::NETUNREACH] {
        assert!(!pauses(error), "{error}");
    }
}

/// A listener with a queue that is never empty does not keep the others waiting.
#[cfg(unix)]
#[tokio::test]
async fn listeners_take_turns() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("hub.sock");
    let (mut acceptor, address) = acceptor();
    acceptor.listeners.push(Listener::bind_unix(&path, 0o600).expect("bound"));
    let mut clients = Vec::new();
    let mut unix_clients = Vec::new();
    for _ in 0..3 {
        clients.push(std::net::TcpStream::connect(address).expect("it listens"));
        unix_clients.push(std::os::unix::net::UnixStream::connect(&path).expect("it listens"));
    }
    let metrics = ConnectionMetrics::default();
    // Both queues are known to have connections once each has been accepted from.
    let mut peers = Vec::new();
    for _ in 0..6 {
        peers.push(acceptor.accept(&metrics).await.peer == ClientAddress::Unix);
    }
    assert_eq!(peers.iter().filter(|is_unix| **is_unix).count(), 3);
    assert!(peers[1..5].windows(2).all(|pair| pair[0] != pair[1]), "{peers:?}");
    acceptor.close(true);
    assert!(!path.exists());
}
