//! The process runs out of file descriptors. This test is alone in its binary, because it lowers
//! the limit of the process.

#![cfg(target_os = "linux")]

mod http_support;
mod log_support;

use std::{fs::File, os::fd::AsRawFd, sync::atomic::Ordering::Relaxed};

use http_support::{Server, patiently};
use log_support::logging;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidings_server::ConnectionSettings;

const STREAM: &[u8] = b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n";
const SEEN: &[u8] = b"GET /seen HTTP/1.1\r\nHost: a\r\n\r\n";
const FILES_LEFT: u64 = 5;
const SILENT: usize = 100;
const ASKING: usize = 40;

/// The descriptor that the next open file would get.
fn next_file() -> u64 {
    let file = File::open("/dev/null").expect("a file");
    u64::try_from(file.as_raw_fd()).expect("a descriptor is not negative")
}

fn limit_files(current: Option<u64>) {
    setrlimit(Resource::Nofile, Rlimit { current, ..getrlimit(Resource::Nofile) })
        .expect("below the hard limit");
}

/// Silent connections come first, and none reaches its deadline, so that only the reserved
/// descriptors serve the connections after them.
#[tokio::test]
async fn without_file_descriptors_clients_are_answered_and_streams_continue() {
    let (log, _guard) = logging();
    let settings = ConnectionSettings { first_byte_secs: 3_600, ..ConnectionSettings::default() };
    let mut server = Server::start_with(settings);
    // It takes its reserve when it begins to serve.
    tokio::task::yield_now().await;
    let mut held: Vec<_> = (0..FILES_LEFT).map(|_| server.connect_at_once(STREAM)).collect();
    let silent: Vec<_> = (0..SILENT).map(|_| server.connect_at_once(b"")).collect();
    let mut asking: Vec<_> = (0..ASKING).map(|_| server.connect_at_once(SEEN)).collect();
    let before = getrlimit(Resource::Nofile).current;
    limit_files(Some(next_file() + FILES_LEFT));

    for client in &mut held {
        client.read_until(": hi\n").await;
    }
    for client in &mut asking {
        let answer = client.rest().await;
        assert!(answer.ends_with("without room") && answer.contains("connection: close"), "{answer}");
    }
    let metrics = &server.metrics;
    assert_eq!(metrics.accepted.load(Relaxed), FILES_LEFT + (SILENT + ASKING) as u64);
    assert_eq!(metrics.refused_full.load(Relaxed), (SILENT + ASKING) as u64);
    assert_eq!(
        metrics.accept_pauses.load(Relaxed),
        0,
        "the reserve is never empty when a connection is accepted"
    );
    assert!(server.streams_ended.try_recv().is_err(), "open streams continue");
    assert_eq!(log.lines_with("no file descriptors left").len(), 1, "{}", log.text());

    limit_files(before);
    drop((held, silent));
    patiently(async {
        while server
            .answer(b"GET /seen HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await
            .contains("room")
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    server.stop().await;
}
