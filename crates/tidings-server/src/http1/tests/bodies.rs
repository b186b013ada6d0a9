//! Bodies of requests, and who waits for whom.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_body_that_is_cut_short_or_malformed_is_broken() {
    let mut client = Client::connect();
    client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell").await;
    client.io.shutdown().await.expect("shut");
    assert!(client.rest().await.ends_with(&BodyError::Broken.to_string()));

    let mut client = Client::connect();
    client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n").await;
    assert!(client.rest().await.ends_with(&BodyError::Broken.to_string()));
}

#[tokio::test(start_paused = true)]
async fn a_body_is_read_only_as_fast_as_its_handler_reads() {
    let (read, may_read) =
        (Arc::new(tokio::sync::Semaphore::new(0)), Arc::new(tokio::sync::Semaphore::new(0)));
    let (has_read, permits) = (Arc::clone(&read), Arc::clone(&may_read));
    let service = tower::service_fn(move |request: Request<RequestBody>| {
        let (has_read, permits) = (Arc::clone(&has_read), Arc::clone(&permits));
        async move {
            let mut body = request.into_body();
            let mut bytes = 0;
            loop {
                permits.acquire().await.expect("open").forget();
                let Some(frame) = body.frame().await else { break };
                bytes += frame.expect("a body").into_data().expect("data").len();
                has_read.add_permits(1);
            }
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(bytes.to_string())))
        }
    });
    for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        let (mut io, theirs) = duplex(1024);
        let metrics = Arc::<ConnectionMetrics>::default();
        let driver = Driver::new(service.clone(), &ConnectionSettings::default(), &metrics);
        let (_stop, stopping) = watch::channel(Stage::Serving);
        tokio::spawn(driver.drive(theirs, Peer::of(PEER), ConnectionPermits::new(&metrics).take(), stopping));
        let mut request = format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n").into_bytes();
        if framing.starts_with("Transfer") {
            request.extend(b"f4240\r\n");
        }
        io.write_all(&request).await.expect("the server reads");
        let body = vec![b'x'; 1_000_000];
        let mut sent = 0;
        // It takes what the buffer holds and one read, and no more.
        while let Ok(Ok(count)) = timeout(Duration::from_secs(1), io.write(&body[sent..])).await {
            sent += count;
        }
        assert!(sent <= 2 * 1024, "{sent}");
        may_read.add_permits(1);
        patiently(read.acquire()).await.expect("open").forget();
        while let Ok(Ok(count)) = timeout(Duration::from_secs(1), io.write(&body[sent..])).await {
            sent += count;
        }
        assert!(sent <= 4 * 1024, "{sent}");
        may_read.add_permits(1_000_000);
        io.write_all(&body[sent..]).await.expect("the server reads");
        if framing.starts_with("Transfer") {
            io.write_all(b"\r\n0\r\n\r\n").await.expect("the server reads");
        }
        io.shutdown().await.expect("shut");
        let mut answer = String::new();
        patiently(io.read_to_string(&mut answer)).await.expect("an end");
        assert!(answer.ends_with("\r\n\r\n1000000"), "{answer}");
        let left = (read.available_permits(), may_read.available_permits());
        read.forget_permits(left.0);
        may_read.forget_permits(left.1);
    }
}

/// RFC 9112, 9.6: a response may come before the body of its request has ended.
#[tokio::test(start_paused = true)]
async fn after_an_early_response_a_short_body_is_dropped_and_a_long_one_ends_the_connection() {
    let post =
        |framing: &str, body: &str| format!("POST /hello HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{body}");
    // The body arrives after the response.
    for (framing, rest) in [
        ("Content-Length: 6", "helper".to_owned()),
        ("Content-Length: 65536", "x".repeat(65536)),
        ("Transfer-Encoding: chunked", "6\r\nhelper\r\n0\r\n\r\n".to_owned()),
    ] {
        let mut client = Client::connect();
        client.send(post(framing, "").as_bytes()).await;
        let first = client.read_until("hello").await;
        assert!(!first.contains("connection: close"), "{first}");
        client.send(rest.as_bytes()).await;
        client.send(GET).await;
        client.read_until("hello").await;
        assert_eq!(client.metrics.requests.load(Relaxed), 2);
    }
    for (framing, rest) in [
        ("Content-Length: 100000", "x".repeat(1_000)),
        ("Content-Length: 6\r\nExpect: 100-continue", String::new()),
        ("Transfer-Encoding: chunked", "x".to_owned()),
    ] {
        let mut client = Client::connect();
        client.send(post(framing, &rest).as_bytes()).await;
        let first = client.read_until("hello").await;
        assert!(first.contains("connection: close"), "{framing}: {first}");
        assert_eq!(client.rest().await, "");
    }
    // A body that turns out to be a long one.
    let mut client = Client::connect();
    client.send(post("Transfer-Encoding: chunked", "").as_bytes()).await;
    client.read_until("hello").await;
    client.send(format!("10000\r\n{}\r\n", "x".repeat(0x10000)).as_bytes()).await;
    client.send(b"1\r\nx\r\n").await;
    assert_eq!(client.rest().await, "");
    assert_eq!(client.secs(), 0);
    // A body that turns out to be malformed: nothing behind it is a request.
    let mut client = Client::connect();
    client.send(post("Transfer-Encoding: chunked", "").as_bytes()).await;
    client.read_until("hello").await;
    client.send(&[b"x\r\n", GET].concat()).await;
    assert_eq!(client.rest().await, "");
    assert_eq!(client.metrics.requests.load(Relaxed), 1);
    // A body that does not come.
    let mut client = Client::connect();
    client.send(post("Content-Length: 6", "help").as_bytes()).await;
    client.read_until("hello").await;
    assert_eq!(client.rest().await, "");
    assert_eq!(client.secs(), 10);
}

/// A handler may answer with what it reads.
#[tokio::test(start_paused = true)]
async fn a_response_can_be_made_of_the_body_while_that_arrives() {
    let service = tower::service_fn(|request: Request<RequestBody>| async {
        Ok::<_, Infallible>(Response::new(Box::pin(request.into_body())))
    });
    let (mut io, theirs) = duplex(1024);
    let metrics = Arc::<ConnectionMetrics>::default();
    let driver = Driver::new(service, &ConnectionSettings::default(), &metrics);
    let (_stop, stopping) = watch::channel(Stage::Serving);
    tokio::spawn(driver.drive(theirs, Peer::of(PEER), ConnectionPermits::new(&metrics).take(), stopping));
    let headers = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    io.write_all(headers).await.expect("the server reads");
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        read.push(patiently(io.read_u8()).await.expect("the response headers"));
    }
    for _ in 0..100 {
        io.write_all(b"6\r\nhelper\r\n").await.expect("the server reads");
        while !read.ends_with(b"6\r\nhelper\r\n") {
            read.push(patiently(io.read_u8()).await.expect("the echo"));
        }
        read.clear();
    }
    io.write_all(b"0\r\n\r\n").await.expect("the server reads");
    io.write_all(GET).await.expect("the server reads");
    io.shutdown().await.expect("shut");
    let mut rest = String::new();
    patiently(io.read_to_string(&mut rest)).await.expect("an end");
    assert!(rest.starts_with("0\r\n\r\nHTTP/1.1 200 "), "{rest}");
}

/// RFC 9110, 10.1.1.
#[tokio::test(start_paused = true)]
async fn a_body_is_asked_for_only_when_its_handler_reads_it() {
    let post = |target: &str, version: &str, body: &str| {
        format!(
            "POST {target} HTTP/{version}\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n{body}"
        )
    };
    let mut client = Client::connect();
    client.send(post("/echo", "1.1", "").as_bytes()).await;
    assert_eq!(client.read_until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send(b"helper"[..5].as_ref()).await;
    assert!(client.read_until("helpe").await.starts_with("HTTP/1.1 200 OK\r\n"));
    // It has begun to come, or is not read, or the client cannot understand the answer.
    for (request, rest) in [
        (post("/echo", "1.1", "he"), "lpe"),
        (post("/echo", "1.1", "helpe"), ""),
        (post("/echo", "1.0", ""), "helpe"),
    ] {
        let mut client = Client::connect();
        client.send(request.as_bytes()).await;
        yield_now().await;
        client.send(rest.as_bytes()).await;
        let answer = client.read_until("helpe").await;
        assert!(!answer.contains("100 Continue") && answer.contains(" 200 OK"), "{answer}");
    }
    let mut client = Client::connect();
    client.send(post("/hello", "1.1", "").as_bytes()).await;
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hello"), "{answer}");
}
