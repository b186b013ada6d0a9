//! How long a client may take.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_closed_after_five_seconds_without_an_answer() {
    let mut client = Client::connect();
    assert_eq!(client.rest().await, "");
    assert_eq!(client.secs(), 5);
    assert_eq!(client.metrics.refused_silent.load(Relaxed), 1);
    client.ended().await;
    assert_eq!(client.metrics.open.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn request_headers_that_drip_get_408_after_ten_seconds() {
    let mut client = Client::connect();
    client.drip(&GET[..12]).await;
    assert!(client.rest().await.starts_with("HTTP/1.1 408 "));
    assert_eq!(client.metrics.refused_late.load(Relaxed), 1);
    assert_eq!(client.metrics.requests.load(Relaxed), 0, "the service never saw it");

    let mut client = Client::connect();
    client.send(&GET[..12]).await;
    assert!(client.rest().await.starts_with("HTTP/1.1 408 "));
    // The answer came at ten seconds, the end after a closing frame to a client that kept its side
    // open.
    assert_eq!(client.secs(), 10);
    client.ended().await;
    assert_eq!(client.secs(), 12);
}

/// A client may need much of its time for the handshake, of which nothing can be read here.
#[tokio::test(start_paused = true)]
async fn a_handshake_that_has_begun_has_the_time_of_request_headers() {
    let (io, theirs) = duplex(1024);
    let mut client = Client::connect_over(io, Handshake { io: theirs, held_bytes: 0 });
    assert_eq!(client.rest().await, "");
    assert_eq!(client.secs(), 10);
    assert_eq!(client.metrics.refused_silent.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn handshakes_count_towards_the_memory_of_request_headers() {
    let metrics = Arc::<ConnectionMetrics>::default();
    let service = tower::service_fn(|request| handle(request, Arc::default()));
    let driver = Driver::new(service, &ConnectionSettings::default(), &metrics);
    let (_stop, stopping) = watch::channel(Stage::Serving);
    let mut clients = Vec::new();
    // Two of them hold more than all may hold together.
    for given_up in [0, 1] {
        let (io, theirs) = duplex(1024);
        clients.push(io);
        let permit = ConnectionPermits::new(&metrics).take();
        let handshake = Handshake { io: theirs, held_bytes: 20 * 1024 * 1024 };
        tokio::spawn(driver.clone().drive(handshake, Peer::of(PEER), permit, stopping.clone()));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(metrics.refused_crowded.load(Relaxed), given_up);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_byte_by_byte_is_answered_if_it_is_in_time() {
    let mut client = Client::connect();
    for byte in GET {
        client.send(&[*byte]).await;
        sleep(Duration::from_millis(100)).await;
    }
    assert!(client.read_until("hello").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_after_75_seconds_of_its_last_answer() {
    let mut client = Client::connect();
    client.send(GET).await;
    client.read_until("hello").await;
    sleep(Duration::from_secs(60)).await;
    client.send(GET).await;
    client.read_until("hello").await;
    assert_eq!(client.rest().await, "");
    assert_eq!(client.secs(), 60 + 75);
    assert_eq!(client.metrics.closed_idle.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn later_request_headers_have_ten_seconds_from_their_first_byte() {
    let mut client = Client::connect();
    client.send(GET).await;
    client.read_until("hello").await;
    sleep(Duration::from_secs(50)).await;
    client.send(b"GET /he").await;
    assert!(client.rest().await.starts_with("HTTP/1.1 408 "));
    assert_eq!(client.secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn the_time_of_an_early_request_starts_with_the_response_before_it() {
    let mut client = Client::connect();
    client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\nGET /he").await;
    client.read_until("slow").await;
    assert_eq!(client.secs(), 1_000, "no deadline runs while an answer is made");
    assert!(client.rest().await.starts_with("HTTP/1.1 408 "));
    assert_eq!(client.secs(), 1_010);
}

/// Any progress of the reader starts the time of the kernel anew, so one byte now and then kept an
/// answer for ever.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_read_drop_by_drop_is_cut_after_a_minute() {
    let [plain, encrypted] = [Client::connect_with_buffer, Client::connect_with_records];
    for (target, connect) in [("/hello", plain), ("/large", plain), ("/large", encrypted)] {
        let mut client = connect(64);
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
        while !client.is_ended() {
            sleep(Duration::from_secs(5)).await;
            let _ = client.io.read_u8().await;
        }
        assert!((60..=65).contains(&client.secs()), "{target}: {}", client.secs());
        assert_eq!(client.metrics.closed_slow.load(Relaxed), 1, "{target}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_and_what_is_relayed_may_be_read_drop_by_drop() {
    for target in ["/gush", "/relayed"] {
        let mut client = Client::connect_with_buffer(64);
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
        for _ in 0..100 {
            sleep(Duration::from_secs(5)).await;
            client.io.read_u8().await.expect("it goes on");
        }
        assert!(!client.is_ended(), "{target}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_last_answer_is_written_whole_to_a_slow_reader() {
    let mut client = Client::connect_with_buffer(1024);
    client.send(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    sleep(Duration::from_secs(50)).await;
    assert!(client.rest().await.ends_with(&"x".repeat(1024 * 1024)));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_drips_is_given_up_after_thirty_seconds() {
    let mut client = Client::connect();
    client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n").await;
    client.drip(&[b'x'; 29]).await;
    assert!(client.io.read(&mut [0]).now_or_never().is_none(), "nothing is said before");
    let rest = client.rest().await;
    assert!(rest.ends_with(&BodyError::TimedOut.to_string()), "{rest}");
    assert_eq!(client.secs(), 30);
}
