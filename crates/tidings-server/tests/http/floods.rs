//! HTTP/2 clients that send raw frames: too many, or frames that only cause work. Each loses its
//! own connection and affects no other.

use std::sync::atomic::Ordering::Relaxed;

use tidings_server::ConnectionSettings;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    log_support::logging,
    support::{Client, Server, patiently},
};

/// Most frames that request nothing before a connection is closed.
const FRAMES_MAX: u32 = 20_000;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// RFC 9113, 7.
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// Only the client's behaviour ends its connection.
fn server() -> Server {
    Server::start_with(ConnectionSettings {
        keep_alive_secs: 3_600,
        dead_peer_secs: 3_600,
        ..ConnectionSettings::default()
    })
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&[length[1], length[2], length[3], kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

/// The headers of a request, not indexed by the peer (RFC 7541, 6.2.2).
fn request(method: u8, path: &str) -> Vec<u8> {
    let length = u8::try_from(path.len()).expect("short");
    [&[method, 0x86, 0x04, length][..], path.as_bytes(), &[0x01, 1, b'a']].concat()
}

fn get(path: &str) -> Vec<u8> {
    request(0x82, path)
}

fn post(path: &str) -> Vec<u8> {
    request(0x83, path)
}

/// The number of the nth request.
fn stream(nth: u32) -> u32 {
    2 * nth + 1
}

/// A connection that has sent the preface, with these frames.
async fn connect(server: &Server, frames: &[u8]) -> TcpStream {
    let mut socket = server.connect().await.0;
    let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[]), frames].concat();
    patiently(socket.write_all(&hello)).await.expect("the peer reads");
    socket
}

/// The next frame: type, stream and payload. None if the connection has ended.
async fn next_frame(socket: &mut (impl AsyncReadExt + Unpin)) -> Option<(u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    patiently(socket.read_exact(&mut head)).await.ok()?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let mut payload = vec![0; length];
    patiently(socket.read_exact(&mut payload)).await.ok()?;
    Some((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
}

fn error_code(payload: &[u8]) -> u32 {
    u32::from_be_bytes(*payload.last_chunk().expect("four bytes"))
}

/// The frames of the nth iteration.
type NthFrame = Box<dyn FnMut(u32) -> Vec<u8> + Send>;

/// The result of a flood.
#[derive(PartialEq, Eq, Debug)]
enum End {
    /// The error code of GOAWAY.
    GoAway(u32),
    Cut,
}

/// Sends `first`, and then frames until the server ends the connection.
async fn flood(
    server: &Server,
    first: Vec<u8>,
    mut nth_frame: impl FnMut(u32) -> Vec<u8> + Send + 'static,
) -> End {
    let (mut reader, mut writer) = connect(server, &first).await.into_split();
    let writing = tokio::spawn(async move {
        for nth in 0..FRAMES_MAX {
            if writer.write_all(&nth_frame(nth)).await.is_err() {
                break;
            }
        }
        // Held, so that the server ends the connection.
        writer
    });
    let mut end = End::Cut;
    while let Some((kind, _, payload)) = next_frame(&mut reader).await {
        if kind == GOAWAY {
            // The last stream, and the error code.
            end = End::GoAway(error_code(&payload[4..8]));
        }
    }
    drop(patiently(writing).await.expect("no panic"));
    end
}

/// A flood, while another client sends requests.
async fn flood_beside_others(
    name: &str,
    first: Vec<u8>,
    nth_frame: impl FnMut(u32) -> Vec<u8> + Send + 'static,
) -> (End, u64) {
    let server = server();
    let mut victim = connect(&server, &frame(HEADERS, END_STREAM | END_HEADERS, 1, &get("/stream"))).await;
    let others = async {
        for _ in 0..20 {
            let answer = server.answer(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
            assert!(answer.ends_with("hello"), "{name}: {answer}");
        }
    };
    let (end, ()) = tokio::join!(flood(&server, first, nth_frame), others);
    patiently(victim.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 3, &get("/"))))
        .await
        .expect("the peer reads");
    loop {
        let (kind, stream, _) = next_frame(&mut victim).await.expect("the others keep their connections");
        if kind == DATA && stream == 3 {
            break;
        }
    }
    let floods = server.metrics.refused_flood.load(Relaxed);
    drop(victim);
    server.stop().await;
    (end, floods)
}

#[tokio::test]
async fn a_flood_of_frames_ends_its_connection_and_no_other() {
    let endless = frame(HEADERS, END_STREAM | END_HEADERS, 1, &get("/endless"));
    let repeated = |bytes: Vec<u8>| Box::new(move |_| bytes.clone()) as NthFrame;
    let floods = [
        ("PING", vec![], repeated(frame(PING, 0, 0, &[0; 8]))),
        ("PING ACK", vec![], repeated(frame(PING, 1, 0, &[0; 8]))),
        ("SETTINGS", vec![], repeated(frame(SETTINGS, 0, 0, &[]))),
        ("PRIORITY", vec![], repeated(frame(PRIORITY, 0, 5, &[0, 0, 0, 0, 1]))),
        ("WINDOW_UPDATE", vec![], repeated(frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]))),
        ("WINDOW_UPDATE of a stream", endless.clone(), repeated(frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]))),
        ("unknown frames", vec![], repeated(frame(200, 0, 0, &[]))),
        (
            "refused requests",
            vec![],
            Box::new(|nth| frame(HEADERS, END_STREAM | END_HEADERS, stream(nth), &get("/endless"))),
        ),
    ];
    for (name, first, frames) in floods {
        let (end, floods) = flood_beside_others(name, first, frames).await;
        assert_eq!((end, floods), (End::GoAway(ENHANCE_YOUR_CALM), 1), "{name}");
    }
}

/// hyper's library or our counter ends the connection, whichever is first.
#[tokio::test]
async fn floods_of_resets_and_endless_headers_end_only_their_connection() {
    let taken_back = |nth| {
        let request = frame(HEADERS, END_STREAM | END_HEADERS, stream(nth), &get("/endless"));
        [request, frame(RST_STREAM, 0, stream(nth), &[0, 0, 0, 8])].concat()
    };
    // An error of the client, so that the server resets the request: its window is too large.
    let made_to_reset = |nth| {
        let request = frame(HEADERS, END_STREAM | END_HEADERS, stream(nth), &get("/endless"));
        [request, frame(WINDOW_UPDATE, 0, stream(nth), &[0x7f, 0xff, 0xff, 0xff])].concat()
    };
    let resets = |_| frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    let continued = |nth: u32| match nth {
        0 => frame(HEADERS, END_STREAM, 1, &get("/")),
        _ => frame(CONTINUATION, 0, 1, &[]),
    };
    // Each field is one byte that expands to 4,000 (RFC 7541, 6.1).
    let bomb = |nth: u32| {
        let name = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'y'; 4_000]].concat();
        let fields = if nth == 0 { name } else { vec![0xbe; 1_000] };
        frame(HEADERS, END_STREAM | END_HEADERS, stream(nth), &[get("/"), fields].concat())
    };
    let empty_data = |nth: u32| match nth {
        0 => frame(HEADERS, END_HEADERS, 1, &post("/echo")),
        _ => frame(DATA, 0, 1, &[]),
    };
    let floods: [(&str, NthFrame); 6] = [
        ("empty DATA", Box::new(empty_data)),
        ("cancelled requests", Box::new(taken_back)),
        ("requests that the server has to reset", Box::new(made_to_reset)),
        ("RST_STREAM", Box::new(resets)),
        ("CONTINUATION", Box::new(continued)),
        ("fields that are repeated", Box::new(bomb)),
    ];
    for (name, frames) in floods {
        flood_beside_others(name, Vec::new(), frames).await;
    }
}

#[tokio::test]
async fn a_request_beyond_the_concurrency_limit_may_be_retried() {
    let server = server();
    let requests: Vec<u8> = (0..129)
        .flat_map(|nth| frame(HEADERS, END_STREAM | END_HEADERS, stream(nth), &get("/endless")))
        .collect();
    let mut socket = connect(&server, &requests).await;
    loop {
        let (kind, id, payload) = next_frame(&mut socket).await.expect("the connection is kept");
        if kind == RST_STREAM {
            assert_eq!((id, error_code(&payload)), (stream(128), REFUSED_STREAM));
            break;
        }
    }
    let again = [
        frame(RST_STREAM, 0, stream(0), &[0, 0, 0, 8]),
        frame(HEADERS, END_STREAM | END_HEADERS, stream(129), &get("/")),
    ];
    patiently(socket.write_all(&again.concat())).await.expect("the peer reads");
    loop {
        let (kind, id, payload) = next_frame(&mut socket).await.expect("the connection is kept");
        assert_ne!(kind, GOAWAY);
        if kind == DATA && id == stream(129) {
            assert_eq!(payload, b"hello");
            break;
        }
    }
    drop(socket);
    server.stop().await;
}

#[tokio::test]
async fn a_header_list_that_is_too_large_is_answered_431() {
    let server = server();
    let field = [&[0x00, 1, b'x', 0x7f, 0x81, 0x3d][..], &[b'y'; 7_936]].concat();
    let block = [get("/"), field.repeat(5)].concat();
    let (first, rest) = block.split_at(16_000);
    let mut frames = frame(HEADERS, END_STREAM, 1, first);
    let parts: Vec<_> = rest.chunks(16_000).collect();
    for (nth, part) in parts.iter().enumerate() {
        let flags = if nth + 1 == parts.len() { END_HEADERS } else { 0 };
        frames.extend(frame(CONTINUATION, flags, 1, part));
    }
    let mut socket = connect(&server, &frames).await;
    loop {
        let (kind, id, payload) = next_frame(&mut socket).await.expect("the connection is kept");
        if kind == HEADERS && id == 1 {
            // 431 in the code of RFC 7541, appendix B.
            assert!(payload.windows(3).any(|code| code == [0x69, 0x90, 0xff]), "{payload:?}");
            break;
        }
    }
    drop(socket);
    server.stop().await;
}

#[tokio::test]
async fn a_preface_may_be_split_and_must_be_of_http_2() {
    let server = server();
    let mut client = server.connect().await;
    let hello =
        [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, END_STREAM | END_HEADERS, 1, &get("/"))]
            .concat();
    for byte in hello {
        client.send(&[byte]).await;
    }
    let Client(mut socket) = client;
    loop {
        let (kind, _, payload) = next_frame(&mut socket).await.expect("an answer");
        if kind == DATA {
            assert_eq!(payload, b"hello");
            break;
        }
    }
    drop(socket);
    server.stop().await;

    let without = Server::start_with(ConnectionSettings { http2: false, ..ConnectionSettings::default() });
    let answer = without.answer(PREFACE).await;
    assert!(answer.starts_with("HTTP/1.1 505 "), "{answer}");
    without.stop().await;
}

/// RFC 9113, 8.3.1 and 8.2.1. `http::Uri` silently cuts off a fragment, so that a request for
/// `/seen#7` was one for `/seen`.
#[tokio::test]
async fn a_fragment_in_the_path_and_a_padded_value_are_answered_400() {
    let (log, _guard) = logging();
    let server = Server::start_with(ConnectionSettings { access_log: true, ..ConnectionSettings::default() });
    let mut remembered = get("/seen#7");
    remembered[2] = 0x44;
    let with = |field: &[u8]| [&get("/seen"), field].concat();
    let mut socket = connect(&server, &[]).await;
    for (nth, (block, is_sound)) in [
        (get("/seen"), true),
        (get("/seen#7"), false),
        (get("/seen?a=b#"), false),
        (get("*"), false),
        (remembered, false),
        // As it was sent before, indexed (RFC 7541, 6.1).
        (vec![0x82, 0x86, 0xbe, 0x01, 1, b'a'], false),
        (get("/seen?%237"), true),
        (with(b"\x00\x01x\x02#7"), true),
        (with(b"\x00\x01x\x02 a"), false),
        (with(b"\x00\x01x\x02a\t"), false),
        (with(b"\x00\x01x\x03a b"), true),
    ]
    .into_iter()
    .enumerate()
    {
        let id = stream(u32::try_from(nth).expect("few"));
        // In two frames, so that the end of the block is not the end of the first one.
        let (first, rest) = block.split_at(4);
        let request = [frame(HEADERS, END_STREAM, id, first), frame(CONTINUATION, END_HEADERS, id, rest)];
        patiently(socket.write_all(&request.concat())).await.expect("the peer reads");
        let answer = loop {
            let (kind, on, payload) = next_frame(&mut socket).await.expect("the connection is kept");
            if kind == DATA && on == id {
                break String::from_utf8(payload).expect("text");
            }
        };
        let expected = if is_sound { "GET " } else { r#"{"type":"about:blank","title":"Bad Request""# };
        assert!(answer.starts_with(expected), "{block:?}: {answer}");
        let refused = log.lines_with("tidings::access: request refused status=400");
        log.clear();
        assert_eq!(refused.len(), usize::from(!is_sound), "{block:?}: {refused:?}");
    }
    drop(socket);
    server.stop().await;
}

#[tokio::test]
async fn malformed_frames_end_their_connection_with_the_error_code() {
    let server = server();
    for (code, frames) in [
        // FRAME_SIZE_ERROR, COMPRESSION_ERROR and PROTOCOL_ERROR.
        (0x6, frame(HEADERS, END_HEADERS, 1, &vec![0x82; 16 * 1024 + 1])),
        (0x9, frame(HEADERS, END_HEADERS, 1, &[0xbe])),
        (0x1, [frame(HEADERS, 0, 1, &get("/")), frame(PING, 0, 0, &[0; 8])].concat()),
    ] {
        let mut socket = connect(&server, &frames).await;
        let mut reason = None;
        while let Some((kind, _, payload)) = next_frame(&mut socket).await {
            if kind == GOAWAY {
                reason = Some(error_code(&payload[4..8]));
            }
        }
        assert_eq!(reason, Some(code));
    }
    assert_eq!(server.metrics.refused_malformed.load(Relaxed), 3);
    assert_eq!(server.metrics.refused_flood.load(Relaxed), 0);
    server.stop().await;
}
