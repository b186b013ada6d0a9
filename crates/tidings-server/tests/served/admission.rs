//! Many clients send incomplete requests: they lose connections only among themselves, and other
//! clients are served. (Other systems give a process only one loopback address.)
#![cfg(target_os = "linux")]

use std::sync::atomic::Ordering::Relaxed;

use tidings_server::{ConnectionSettings, Settings};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{served_support::Served, support::within};

const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const CROWD: [u8; 4] = [127, 0, 0, 2];
const SLOW_REQUESTS: u64 = 200;

/// No connection is late here: one is only closed when capacity is short.
fn patient() -> ConnectionSettings {
    ConnectionSettings {
        first_byte_secs: 3_600,
        request_headers_secs: 3_600,
        ..ConnectionSettings::default()
    }
}

async fn rest(client: &mut TcpStream) -> String {
    let mut rest = String::new();
    within(client.read_to_string(&mut rest)).await.expect("a clean end");
    rest
}

#[tokio::test]
async fn slow_requests_of_one_address_do_not_block_others() {
    for settings in [
        ConnectionSettings { requests_arriving_max: 20, ..patient() },
        ConnectionSettings { connections_max: 20, ..patient() },
    ] {
        let served = Served::start_with(Settings::default(), settings).await;
        let (first_half, second_half) = HEALTH.split_at(20);
        let mut slow_alone = served.connect_from([127, 0, 0, 3]).await;
        slow_alone.write_all(first_half.as_bytes()).await.expect("the peer reads");

        let mut crowd = Vec::new();
        for number in 0..SLOW_REQUESTS {
            let mut client = served.connect_from(CROWD).await;
            if number % 2 == 0 {
                client.write_all(first_half.as_bytes()).await.expect("the peer reads");
            }
            crowd.push(client);
        }
        served.ask(HEALTH).await.ok();

        // Only the oldest connections of the crowd were closed.
        assert!(rest(&mut crowd[0]).await.starts_with("HTTP/1.1 408 "));
        let given_up = served.metrics.refused_crowded.load(Relaxed);
        assert!((SLOW_REQUESTS - 20..=SLOW_REQUESTS).contains(&given_up), "{given_up}");
        assert_eq!(served.metrics.refused_full.load(Relaxed), 0);
        slow_alone.write_all(second_half.as_bytes()).await.expect("the peer reads");
        assert!(rest(&mut slow_alone).await.starts_with("HTTP/1.1 200 "));
        let last = crowd.last_mut().expect("the crowd");
        last.write_all(HEALTH.as_bytes()).await.expect("the peer reads");
        assert!(rest(last).await.starts_with("HTTP/1.1 200 "));
    }
}
