//! Several requests of one connection, and what a connection costs between them.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_malformed_second_request_is_refused_behind_the_whole_first_answer() {
    // The buffer of the connection is smaller than the first answer, so that it is still being
    // written.
    let mut client = Client::connect_with_buffer(1024);
    client.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\n\r\n").await;
    let rest = client.rest().await;
    let (first, second) = rest.split_once("HTTP/1.1 400 ").expect("a refusal");
    assert!(first.starts_with("HTTP/1.1 200 "));
    assert!(first.ends_with(&"x".repeat(1024 * 1024)));
    assert!(second.contains("Connection: close"));
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_are_answered_in_their_order() {
    let mut client = Client::connect();
    let post = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n";
    client.send(&[post, GET, &b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"[..], GET].concat()).await;
    for expected in ["one", "hello", "slow", "hello"] {
        let answer = client.read_until(expected).await;
        assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 1, "{answer}");
    }
    assert_eq!(client.metrics.requests.load(Relaxed), 4);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_holds_no_buffer() {
    let (mut io, theirs) = duplex(1024);
    let driver = Driver::new((), &ConnectionSettings::default(), &Arc::default());
    let mut connection = Connection::new(
        theirs,
        Peer::of(PEER).neighbourhood(),
        driver.limits,
        &driver.admission,
        &driver.metrics,
    );
    let next = |connection: &mut Connection<_>| poll_fn(|cx| connection.poll_next(cx)).now_or_never();
    assert!(next(&mut connection).is_none());
    assert_eq!(connection.buffered_bytes(), 0);
    io.write_all(&[GET, &GET[..10]].concat()).await.expect("room");
    assert!(matches!(next(&mut connection), Some(Ok(Next::Request(_)))));
    assert_eq!(connection.buffered_bytes(), 10);
    connection.await_next();
    io.write_all(&GET[10..]).await.expect("room");
    assert!(matches!(next(&mut connection), Some(Ok(Next::Request(_)))));
    connection.await_next();
    let chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    io.write_all(chunked).await.expect("room");
    assert!(matches!(next(&mut connection), Some(Ok(Next::Request(_)))));
    connection.await_next();
    assert!(next(&mut connection).is_none());
    assert_eq!(connection.buffered_bytes(), 0);
}

/// Thousands of publishers keep a connection each. What a request needs is boxed for its time.
#[tokio::test]
async fn the_task_of_an_idle_connection_is_small() {
    let (_io, theirs) = duplex(1024);
    let service = tower::service_fn(|_: Request<RequestBody>| async {
        let large = [0_u8; 16 * 1024];
        yield_now().await;
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(large.to_vec())))
    });
    let metrics = Arc::<ConnectionMetrics>::default();
    let driver = Driver::new(service, &ConnectionSettings::default(), &metrics);
    let (_stop, stopping) = watch::channel(Stage::Serving);
    let connection = driver.drive(theirs, Peer::of(PEER), ConnectionPermits::new(&metrics).take(), stopping);
    let bytes = size_of_val(&connection);
    assert!(bytes <= 1_024, "{bytes}");
}

/// What is boxed for a request is moved as a whole, and nearly every request publishes one event:
/// what others need is boxed by itself.
#[tokio::test]
async fn a_request_takes_little_memory() {
    let (mut io, theirs) = duplex(1024);
    io.write_all(GET).await.expect("there is room");
    let service = crate::apis(tidings::Hub::in_memory().await, None, crate::Settings::default());
    let mut driver = Driver::new(service, &ConnectionSettings::default(), &Arc::default());
    let peer = Peer::of(PEER);
    let mut connection =
        Connection::new(theirs, peer.neighbourhood(), driver.limits, &driver.admission, &driver.metrics);
    let Ok(Next::Request(received)) = poll_fn(|cx| connection.poll_next(cx)).await else {
        panic!("a request has arrived");
    };
    let (_stop, stage) = watch::channel(Stage::Serving);
    let bytes = size_of_val(&exchange(&mut connection, &mut driver, received, &peer, true, &stage));
    assert!(bytes <= 6_000, "{bytes}");
}

/// Responses used to leave one by one. A publisher with several connections slept after each of
/// them and had to be woken for the next one, for which the hub pays.
#[tokio::test]
async fn all_requests_that_have_arrived_are_received_before_one_is_answered() {
    let (mut first, first_server) = duplex(4096);
    let (mut second, second_server) = duplex(4096);
    first.write_all(GET).await.expect("there is room");
    second.write_all(GET).await.expect("there is room");
    let (first, answered_first) = (Arc::new(Mutex::new(first)), Arc::<AtomicBool>::default());
    let (client, is_answered) = (Arc::clone(&first), Arc::clone(&answered_first));
    let service = tower::service_fn(move |_: Request<RequestBody>| {
        let byte = client.lock().expect("nothing panics while it holds this").read_u8().now_or_never();
        is_answered.fetch_or(byte.is_some(), Relaxed);
        async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello"))) }
    });
    let metrics = Arc::<ConnectionMetrics>::default();
    let driver = Driver::new(service, &ConnectionSettings::default(), &metrics);
    let (_stop, stopping) = watch::channel(Stage::Serving);
    for io in [first_server, second_server] {
        let permit = ConnectionPermits::new(&metrics).take();
        tokio::spawn(driver.clone().drive(io, Peer::of(PEER), permit, stopping.clone()));
    }
    second.read_u8().await.expect("an answer");
    assert!(!answered_first.load(Relaxed), "the first was answered before the second was received");
}

#[tokio::test(start_paused = true)]
async fn little_of_later_requests_is_read_while_a_response_is_made() {
    let mut client = Client::connect_with_buffer(1024);
    client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let later = GET.repeat(2_000);
    let sending = client.io.write_all(&later);
    assert!(timeout(Duration::from_secs(1), sending).await.is_err(), "{} bytes were read", later.len());
}
