use super::*;

#[tokio::test]
async fn an_accepted_connection_has_no_delay_and_a_bounded_buffer() {
    let mut listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (client, Accepted { stream: accepted, peer, .. }) =
        tokio::join!(TcpStream::connect(address), async {
            listener.accept(&ConnectionMetrics::default()).await
        });
    assert_eq!(client.expect("a connection").local_addr().expect("an address"), peer);
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
    let mut listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let address = listener.local_addr().expect("an address");
    let metrics = ConnectionMetrics::default();
    let error = io::Error::other("no memory");
    for errors in [1, 2, 3, 1] {
        let _client = std::net::TcpStream::connect(address).expect("a connection that waits");
        let began = Instant::now();
        for _ in 0..errors {
            listener.rest(&error, &metrics);
        }
        listener.accept(&metrics).await;
        assert_eq!(began.elapsed(), ACCEPT_PAUSE_MIN * 2_u32.pow(errors - 1));
    }
    assert_eq!(metrics.accept_pauses.load(Relaxed), 7);
    for _ in 0..40 {
        listener.rest(&error, &metrics);
    }
    assert!(listener.paused_until.expect("a pause") <= Instant::now() + ACCEPT_PAUSE_MAX);
}

#[cfg(target_os = "linux")]
#[test]
fn a_lack_of_descriptors_or_memory_is_not_an_error_of_one_connection() {
    use rustix::io::Errno;
    let is_passed_over =
        |error: Errno| is_of_one_connection(&io::Error::from_raw_os_error(error.raw_os_error()));
    for error in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::BADF, Errno::INVAL] {
        assert!(!is_passed_over(error), "{error}");
    }
    for error in [Errno::CONNABORTED, Errno::INTR, Errno::NETDOWN, Errno::HOSTUNREACH, Errno::NETUNREACH] {
        assert!(is_passed_over(error), "{error}");
    }
}

#[test]
fn connections_leave_file_descriptors_for_everything_else() {
    assert_eq!(connections_for(Some(256)), 128);
    assert_eq!(connections_for(Some(1_024)), 1_024 - 256);
    assert_eq!(connections_for(Some(20_000)), 20_000 - 256);
    assert_eq!(connections_for(None), 1_000_000);
}
