//! How connections end: by the client, by a refusal, with the server.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_client_that_shuts_its_side_after_the_request_still_gets_the_answer() {
    for request in ["GET /hello", "GET /slow", "GET /large"] {
        let mut client = Client::connect_with_buffer(1024);
        client.send(format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
        client.io.shutdown().await.expect("shut");
        let rest = client.rest().await;
        assert!(rest.starts_with("HTTP/1.1 200 "), "{request}: {rest}");
        assert!(
            rest.ends_with("hello") || rest.ends_with("slow") || rest.ends_with(&"x".repeat(1024 * 1024)),
            "{request}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn request_headers_that_are_cut_short_are_refused() {
    let mut client = Client::connect();
    client.send(&GET[..12]).await;
    client.io.shutdown().await.expect("shut");
    assert!(client.rest().await.starts_with("HTTP/1.1 400 "));
    assert_eq!(client.secs(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stopping_server_closes_what_is_idle_at_once() {
    let mut silent = Client::connect();
    let mut kept = Client::connect();
    kept.send(GET).await;
    kept.read_until("hello").await;
    for client in [&mut silent, &mut kept] {
        client.stop.send_replace(Stage::Ending);
        assert_eq!(client.rest().await, "");
        assert_eq!(client.secs(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_succeeded_answers_who_is_connected_once_more() {
    let mut silent = Client::connect();
    let mut kept = Client::connect();
    kept.send(GET).await;
    let first = kept.read_until("hello").await;
    assert!(!first.contains("connection: close"), "{first}");
    for client in [&mut silent, &mut kept] {
        client.stop.send_replace(Stage::Leaving);
        sleep(Duration::from_secs(3)).await;
        client.send(GET).await;
        let answer = client.rest().await;
        assert!(answer.contains("connection: close") && answer.ends_with("hello"), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stopping_server_finishes_what_has_begun_and_says_that_it_closes() {
    let mut running = Client::connect();
    running.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut begun = Client::connect();
    begun.send(&GET[..12]).await;
    sleep(Duration::from_secs(1)).await;
    running.stop.send_replace(Stage::Ending);
    begun.stop.send_replace(Stage::Ending);
    sleep(Duration::from_secs(1)).await;
    begun.send(&GET[12..]).await;
    for (client, expected) in [(&mut running, "slow"), (&mut begun, "hello")] {
        let rest = client.rest().await;
        assert!(rest.contains("connection: close"), "{rest}");
        assert!(rest.ends_with(expected), "{rest}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_stop_sending_is_left_after_its_refusal() {
    let mut client = Client::connect();
    let mut answered = false;
    while !client.is_ended() {
        // The client reads nothing that it is reported and ends nothing.
        let sent = client.io.write_all(&[b'x'; 4096]).await;
        answered |= sent.is_ok();
        sleep(Duration::from_millis(1)).await;
        assert!(client.secs() < 10);
    }
    assert!(answered);
    assert_eq!(client.secs(), 0, "it has sent a MiB");
    assert_eq!(client.metrics.refused_large.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn who_is_still_sending_is_listened_to_after_the_last_response() {
    let long_body = b"POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
    let large_headers = b"x".repeat(40 * 1024);
    for (sent, end) in [(&large_headers[..], "}"), (long_body, "hello")] {
        let mut client = Client::connect();
        client.send(sent).await;
        client.read_until(end).await;
        for _ in 0..10 {
            client.send(&[b'x'; 4096]).await;
            sleep(Duration::from_millis(100)).await;
        }
        assert!(!client.is_ended(), "an end now could take the response with it");
        client.io.shutdown().await.expect("shut");
        client.ended().await;
        assert_eq!(client.secs(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_answered_or_refused_is_not_closed_to_make_room() {
    for rest in ["T /slow HTTP/1.1\r\nHost: a\r\n\r\n", "T\r\n\r\n"] {
        let mut client = Client::connect();
        client.send(b"GE").await;
        sleep(Duration::from_secs(1)).await;
        client.send(rest.as_bytes()).await;
        sleep(Duration::from_secs(1)).await;
        assert!(!client.is_ended() && !client.admission.free_capacity(), "{rest}");
    }
}
