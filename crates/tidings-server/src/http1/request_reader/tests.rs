use bytes::Bytes;

use super::{
    super::{
        body_decoder::{BodyDecoder, Progress},
        request_headers::parse,
    },
    *,
};

const LIMITS: RequestLimits = RequestLimits {
    first_byte: Duration::from_secs(5),
    headers: Duration::from_secs(10),
    keep_alive: Duration::from_secs(75),
    headers_bytes_max: 1024,
    http2: true,
};

/// What some bytes turned out to be.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Verdict {
    /// The bytes of requests.
    pub(super) taken: Vec<u8>,
    /// Where in `taken` a request was complete.
    pub(super) ends: Vec<usize>,
    /// The data of all bodies.
    pub(super) data: Vec<u8>,
    pub(super) last: Last,
}

/// What the bytes end with.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Last {
    Incomplete,
    Refused(Refusal),
    BrokenBody,
    Http2,
}

/// Reads the pieces one by one, as a connection does that answers every request at once.
pub(super) fn judge<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Verdict {
    let mut ends = Vec::new();
    let mut data = Vec::new();
    let mut all = Vec::new();
    let mut waiting = Vec::new();
    let mut reading = Reading { reader: RequestReader::new(LIMITS, Instant::now()), body: None };
    let mut last = Last::Incomplete;
    for piece in pieces {
        all.extend_from_slice(piece);
        waiting.extend_from_slice(piece);
        let end = reading.read(&mut waiting, &mut data, |left| ends.push(all.len() - left));
        if let Err(end) = end {
            last = end;
            break;
        }
    }
    all.truncate(all.len() - waiting.len());
    Verdict { taken: all, ends, data, last }
}

struct Reading {
    reader: RequestReader,
    body: Option<BodyDecoder>,
}

impl Reading {
    /// Takes requests from the front of `waiting`. `ended` learns how much is left behind each.
    fn read(
        &mut self,
        waiting: &mut Vec<u8>,
        data: &mut Vec<u8>,
        mut ended: impl FnMut(usize),
    ) -> Result<(), Last> {
        let now = Instant::now();
        loop {
            if let Some(decoder) = &mut self.body {
                let (decoded, progress) = decoder.decode(waiting);
                data.extend_from_slice(&decoded);
                match progress {
                    Progress::Incomplete => return Ok(()),
                    Progress::Broken => return Err(Last::BrokenBody),
                    Progress::Complete => {
                        ended(waiting.len());
                        self.reader.await_next(now);
                        self.body = None;
                    }
                }
            }
            match self.reader.find(waiting, now) {
                Found::Nothing => return Ok(()),
                Found::Http2 => return Err(Last::Http2),
                Found::Refused(refusal) => return Err(Last::Refused(refusal)),
                Found::Headers(end) => {
                    let headers = parse(&Bytes::copy_from_slice(&waiting[..end])).map_err(Last::Refused)?;
                    waiting.drain(..end);
                    self.body = Some(headers.body);
                }
            }
        }
    }
}

fn refusal(bytes: &[u8]) -> Option<Refusal> {
    match judge([bytes]).last {
        Last::Refused(refusal) => Some(refusal),
        _ => None,
    }
}

/// A request with these header lines, each without its line end.
fn request_with(lines: &[&str]) -> Vec<u8> {
    let mut request = String::from("POST /topics/a HTTP/1.1\r\n");
    for line in lines {
        request.push_str(line);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    request.into_bytes()
}

#[track_caller]
fn assert_lines_refused(lines: &[&str], expected: Refusal) {
    assert_eq!(refusal(&request_with(lines)), Some(expected), "{lines:?}");
}

#[test]
fn a_plain_request_passes_whole_and_at_once() {
    let request =
        b"GET /stream?topic=a HTTP/1.1\r\nHost: localhost:8080\r\nAccept: text/event-stream\r\n\r\n";
    let verdict = judge([&request[..]]);
    assert_eq!(verdict.taken, request);
    assert_eq!(verdict.ends, [request.len()]);
    for cut in 1..request.len() {
        let mut reader = RequestReader::new(LIMITS, Instant::now());
        assert_eq!(reader.find(&request[..cut], Instant::now()), Found::Nothing, "at {cut}");
        assert_eq!(reader.find(request, Instant::now()), Found::Headers(request.len()), "at {cut}");
    }
}

#[test]
fn one_empty_line_before_a_request_is_ignored_and_two_are_not() {
    assert_eq!(judge([&b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"[..]]).ends.len(), 1);
    assert_eq!(refusal(b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), Some(Refusal::RequestLineMalformed));
    assert_eq!(refusal(b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), Some(Refusal::LineFeedBare));
}

#[test]
fn a_bare_line_feed_is_refused_wherever_it_stands() {
    let request = "GET / HTTP/1.1\r\nHost: a\r\nAccept: b\r\n\r\n";
    for (at, _) in request.match_indices("\r\n") {
        let bare = format!("{}{}", &request[..at], &request[at + 1..]);
        assert_eq!(refusal(bare.as_bytes()), Some(Refusal::LineFeedBare), "{bare:?}");
    }
    assert_lines_refused(&["Host: a", "X: b\nY: c"], Refusal::LineFeedBare);
    assert_lines_refused(&["Host: a", "X: b\n\nGET /admin HTTP/1.1"], Refusal::LineFeedBare);
}

#[test]
fn a_bare_carriage_return_is_refused() {
    assert_lines_refused(&["Host: a", "X: b\rY: c"], Refusal::CarriageReturnBare);
    assert_lines_refused(&["Host: a", "X: b\r"], Refusal::CarriageReturnBare);
    assert_eq!(refusal(b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n"), Some(Refusal::CarriageReturnBare));
}

#[test]
fn a_malformed_header_line_is_refused() {
    for line in [
        "X : a",
        "X\t: a",
        " X: a",
        "\tX: a",
        "X",
        ": a",
        "X: a\0b",
        "X\0: a",
        "X: \x7f",
        "X: \x01",
        "X Y: a",
        "\u{e9}: a",
    ] {
        assert_lines_refused(&["Host: a", line], Refusal::HeaderMalformed);
    }
    // RFC 9112, 5.2: a folded line.
    assert_lines_refused(&["Host: a", "X: a", " b"], Refusal::HeaderMalformed);
    assert_lines_refused(&["Host: a", "Content-Length: 1", "\t0"], Refusal::HeaderMalformed);
    // Bytes beyond ASCII in a value are a topic's or a cursor's: they pass.
    assert_eq!(refusal(&request_with(&["Host: a", "Last-Event-ID: caf\u{e9}"])), None);
}

#[test]
fn a_malformed_request_line_is_refused() {
    let lines = [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET /",
        "GET",
        "/ HTTP/1.1",
        "G@T / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP/1",
        "GET / HTTP/11",
        "GET / HTTP/1.10",
        "GET / HTTP/2.0 x",
        "GET /\0 HTTP/1.1",
    ];
    for line in lines {
        let request = format!("{line}\r\nHost: a\r\n\r\n");
        assert_eq!(refusal(request.as_bytes()), Some(Refusal::RequestLineMalformed), "{line:?}");
    }
}

#[test]
fn another_version_of_http_is_refused_as_such() {
    for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3.0", "HTTP/9.9"] {
        for before in ["", "\r\n"] {
            let request = format!("{before}GET / {version}\r\nHost: a\r\n\r\n");
            assert_eq!(refusal(request.as_bytes()), Some(Refusal::VersionUnknown), "{request}");
        }
    }
}

/// RFC 9113, 3.4: the preface is the first that is sent, to its last byte.
#[test]
fn the_preface_of_http_2_is_known_by_all_its_bytes_at_the_start_of_a_connection() {
    for behind in [&b""[..], b"\0\0\0\x04\0\0\0\0\0", &[b'x'; 2_000]] {
        let bytes = [HTTP2_PREFACE, behind].concat();
        assert_eq!(judge([&bytes[..]]).last, Last::Http2);
        assert_eq!(judge(bytes.chunks(1)).last, Last::Http2);
    }
    for length in 1..HTTP2_PREFACE.len() {
        assert_eq!(judge([&HTTP2_PREFACE[..length]]).last, Last::Incomplete, "{length}");
        let mut other = HTTP2_PREFACE.to_vec();
        other[length] ^= 1;
        assert!(matches!(judge([&other[..]]).last, Last::Refused(_)), "{length}");
        assert_eq!(judge(other.chunks(1)), judge([&other[..]]), "{length}");
    }
    let second = [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], HTTP2_PREFACE].concat();
    assert_eq!(refusal(&second), Some(Refusal::VersionUnknown), "it is too late for it");
}

#[test]
fn where_http_2_is_switched_off_its_preface_is_another_version() {
    let now = Instant::now();
    let mut reader = RequestReader::new(RequestLimits { http2: false, ..LIMITS }, now);
    let Found::Headers(end) = reader.find(HTTP2_PREFACE, now) else { panic!("no request headers") };
    let refusal = parse(&Bytes::copy_from_slice(&HTTP2_PREFACE[..end])).expect_err("no version of ours");
    assert_eq!(refusal, Refusal::VersionUnknown);
}

#[test]
fn a_preface_is_waited_for_as_long_as_request_headers() {
    let start = Instant::now();
    let mut reader = RequestReader::new(LIMITS, start);
    assert_eq!(reader.find(&HTTP2_PREFACE[..20], start), Found::Nothing);
    assert_eq!(reader.deadline(), start + LIMITS.headers);
    assert_eq!(reader.lateness(start + LIMITS.headers), Some(Lateness::Headers));
}

#[test]
fn a_tls_hello_is_refused_at_its_first_byte() {
    assert_eq!(refusal(b"\x16"), Some(Refusal::RequestLineMalformed));
}

#[test]
fn a_request_target_has_one_of_three_forms() {
    let target = |method: &str, target: &str| {
        refusal(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
    };
    for good in
        ["/", "/a?b=c", "//a", "http://a/b", "https://a:1/b", "http://a", "http://a?b", "http://[::1]:80/"]
    {
        assert_eq!(target("GET", good), None, "{good}");
    }
    assert_eq!(target("OPTIONS", "*"), None);
    for bad in ["*", "a", "a:80", "?b", "/a#b", "ftp://a/", "http:///a", "/a\\b<", "http:a", "javascript:a"] {
        assert_eq!(target("GET", bad), Some(Refusal::TargetMalformed), "{bad}");
    }
    for bad in ["http://user@a/", "http://a:b@c/"] {
        assert_eq!(target("GET", bad), Some(Refusal::HostMalformed), "{bad}");
    }
    assert_eq!(target("CONNECT", "a:80"), Some(Refusal::MethodConnect));
    assert_eq!(target("CONNECT", "/"), Some(Refusal::MethodConnect));
}

#[test]
fn http_1_1_has_exactly_one_host_and_http_1_0_at_most_one() {
    assert_lines_refused(&[], Refusal::HostMissing);
    assert_lines_refused(&["Host: a", "Host: a"], Refusal::HostDoubled);
    assert_lines_refused(&["Host: a", "hOST: b"], Refusal::HostDoubled);
    assert_eq!(refusal(b"GET http://a/ HTTP/1.1\r\n\r\n"), Some(Refusal::HostMissing));
    assert_eq!(refusal(b"GET / HTTP/1.0\r\n\r\n"), None);
    assert_eq!(refusal(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n"), None);
    assert_eq!(refusal(b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"), Some(Refusal::HostDoubled));
    assert_eq!(refusal(b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n"), Some(Refusal::HostMalformed));
}

#[test]
fn a_host_is_a_name_or_an_address_with_an_optional_port() {
    let good = [
        "a",
        "a.example",
        "a.example:80",
        "a:",
        "127.0.0.1:8080",
        "[::1]",
        "[::1]:8080",
        "a_b",
        "%61",
        "xn--caf-dma",
    ];
    for host in good {
        assert_eq!(refusal(&request_with(&[&format!("Host: {host}")])), None, "{host}");
    }
    let bad = [
        "",
        " ",
        ":80",
        "a b",
        "a,b c",
        "a/b",
        "a@b",
        "http://a",
        "a:80:80",
        "a:8x",
        "a:65536",
        "a:-1",
        "[::1",
        "::1",
        "[a]",
        "[::1]a",
        "[]",
        "[fe80::1%25lo]",
        "a?b",
        "a#b",
        "a\\b",
        "%6",
        "%zz",
        "caf\u{e9}",
        "a\"b",
        "<a>",
        "a:+1",
    ];
    for host in bad {
        assert_lines_refused(&[&format!("Host: {host}")], Refusal::HostMalformed);
    }
}

/// The vectors by which two servers are made to disagree on where a message ends.
#[test]
fn a_length_that_could_be_read_in_two_ways_is_refused() {
    for value in [
        "",
        "+5",
        "-5",
        "5, 5",
        "5,5",
        "0x5",
        "5 5",
        "5.0",
        "\"5\"",
        "99999999999999999999",
        "18446744073709551615",
        "\u{665}",
    ] {
        assert_lines_refused(&["Host: a", &format!("Content-Length: {value}")], Refusal::LengthMalformed);
    }
    assert_lines_refused(&["Host: a", "Content-Length: 5", "Content-Length: 5"], Refusal::LengthDoubled);
    assert_lines_refused(&["Host: a", "Content-Length: 5", "content-length: 6"], Refusal::LengthDoubled);
    for lines in [
        ["Host: a", "Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Host: a", "Transfer-Encoding: chunked", "Content-Length: 5"],
        ["Host: a", "Transfer-Encoding: identity", "Content-Length: 5"],
    ] {
        assert_lines_refused(&lines, Refusal::LengthWithEncoding);
    }
    for value in [
        "",
        "identity",
        "gzip, chunked",
        "chunked, chunked",
        "chunked, identity",
        "xchunked",
        "chunked;a",
        "\"chunked\"",
        ",chunked",
    ] {
        assert_lines_refused(&["Host: a", &format!("Transfer-Encoding: {value}")], Refusal::EncodingUnknown);
    }
    assert_lines_refused(
        &["Host: a", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
        Refusal::EncodingUnknown,
    );
    assert_lines_refused(
        &["Host: a", "Transfer-Encoding: gzip", "Transfer-Encoding: chunked"],
        Refusal::EncodingUnknown,
    );
    assert_lines_refused(&["Host: a", "Transfer-Encoding : chunked"], Refusal::HeaderMalformed);
    assert_lines_refused(&["Host: a", "Transfer-Encoding: chunked\0"], Refusal::HeaderMalformed);
    assert_eq!(
        refusal(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        Some(Refusal::EncodingTooNew)
    );
}

#[test]
fn a_body_ends_where_its_length_says_and_a_request_follows() {
    let first = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nGET ";
    let second = b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n";
    let verdict = judge([&[&first[..], &second[..]].concat()[..]]);
    assert_eq!(verdict.ends, [first.len(), first.len() + second.len()]);
}

const CHUNKED: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n";

#[test]
fn chunks_with_extensions_and_trailers_are_followed_to_their_end() {
    for (body, data) in [
        ("0\r\n\r\n", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("A;name=\"value\"\r\n0\r\n\r\nGET /\r\n000\r\n\r\n", "0\r\n\r\nGET /"),
        ("1 ;a\r\nx\r\n2\r\nyz\r\n0 \r\nTrailer: a\r\nOther: b\r\n\r\n", "xyz"),
    ] {
        let request = [CHUNKED, body.as_bytes()].concat();
        let verdict = judge([&[&request[..], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat()[..]]);
        assert_eq!(verdict.ends.first(), Some(&request.len()), "{body:?}");
        assert_eq!(str::from_utf8(&verdict.data), Ok(data), "{body:?}");
        assert_eq!(verdict.ends.len(), 2, "{body:?}");
    }
}

#[test]
fn malformed_chunks_break_the_body_at_the_byte_that_is_wrong() {
    let bodies = [
        ("", "\r\n"),
        ("", "x\r\n"),
        ("", ";a\r\n"),
        ("", " 5\r\n"),
        ("", "-5\r\n"),
        ("", "+5\r\n"),
        ("0", "x5\r\n"),
        ("5", "\nhello\r\n0\r\n\r\n"),
        ("5;a", "\n"),
        ("5;a", "\0"),
        ("5\r", "\r\n"),
        ("5\r\nhello", "\n0\r\n\r\n"),
        ("5\r\nhello", "x\r\n"),
        ("5\r\nhello\r", "0\r\n\r\n"),
        ("0\r\n", "\n"),
        ("0\r\n", " folded\r\n"),
        ("0\r\nA: b", "\n\r\n"),
        ("0\r\nA: b\r", "x"),
        ("0\r\n\r", "x"),
        ("ffffffffffffffff", "f\r\n"),
        ("0000000000000000", "5\r\n"),
    ];
    for (good, bad) in bodies {
        let verdict = judge([&[CHUNKED, good.as_bytes(), bad.as_bytes()].concat()[..]]);
        assert_eq!(verdict.last, Last::BrokenBody, "{good:?} {bad:?}");
        assert_eq!(verdict.taken.len(), CHUNKED.len() + good.len(), "{good:?} {bad:?}");
        assert!(verdict.ends.is_empty());
    }
}

#[test]
fn endless_extensions_and_trailers_break_the_body() {
    let extension = [CHUNKED, b"1;", &[b'a'; 10_000]].concat();
    assert_eq!(judge([&extension[..]]).last, Last::BrokenBody);
    let trailer = [CHUNKED, b"0\r\n", &b"A: b\r\n".repeat(10_000)].concat();
    assert_eq!(judge([&trailer[..]]).last, Last::BrokenBody);
}

#[test]
fn request_headers_may_be_as_large_as_the_limit_and_no_larger() {
    let headers_of = |length: usize| {
        let empty = request_with(&["Host: a", "X: "]);
        request_with(&["Host: a", &format!("X: {}", "x".repeat(length - empty.len()))])
    };
    assert_eq!(refusal(&headers_of(LIMITS.headers_bytes_max)), None);
    assert_eq!(refusal(&headers_of(LIMITS.headers_bytes_max + 1)), Some(Refusal::HeadersTooLarge));
    assert_eq!(refusal(&[b'x'; 1024]), Some(Refusal::HeadersTooLarge));
    assert_eq!(refusal(&[b'x'; 1023]), None);
}

#[test]
fn more_header_lines_than_the_limit_are_refused() {
    let lines = |count| vec!["a:"; count];
    assert_eq!(refusal(&request_with(&[&["Host: a"], &lines(99)[..]].concat())), None);
    assert_lines_refused(&[&["Host: a"], &lines(100)[..]].concat(), Refusal::HeadersTooMany);
}

#[test]
fn the_first_byte_has_five_seconds_and_the_first_headers_ten_from_the_start() {
    let start = Instant::now();
    let after = |secs| start + Duration::from_secs(secs);
    let mut reader = RequestReader::new(LIMITS, start);
    assert_eq!(reader.deadline(), after(5));
    assert_eq!(reader.lateness(start + Duration::from_millis(4_999)), None);
    assert_eq!(reader.lateness(after(5)), Some(Lateness::Silent));
    reader.find(b"G", after(4));
    assert_eq!(reader.deadline(), after(10));
    reader.find(b"GE", after(9));
    assert_eq!(reader.lateness(start + Duration::from_millis(9_999)), None);
    assert_eq!(reader.lateness(after(10)), Some(Lateness::Headers));
    // A handshake has the time of the headers, too.
    let mut reader = RequestReader::new(LIMITS, start);
    reader.first_bytes_arrived();
    assert_eq!(reader.deadline(), after(10));
}

#[test]
fn a_kept_connection_has_its_own_times() {
    let start = Instant::now();
    let after = |secs| start + Duration::from_secs(secs);
    let mut reader = RequestReader::new(LIMITS, start);
    reader.find(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", start);
    reader.await_next(after(100));
    assert!(reader.is_idle());
    assert_eq!(reader.lateness(after(174)), None);
    assert_eq!(reader.lateness(after(175)), Some(Lateness::Idle));
    reader.find(b"G", after(170));
    assert!(!reader.is_idle());
    assert_eq!(reader.lateness(after(179)), None);
    assert_eq!(reader.lateness(after(180)), Some(Lateness::Headers));
}

#[test]
fn the_last_of_several_connection_fields_decides_nothing_alone() {
    let persistence = |version: &str, fields: &[&str]| {
        let fields: Vec<_> = fields.iter().map(|field| format!("Connection: {field}\r\n")).collect();
        let bytes = Bytes::from(format!("GET / HTTP/{version}\r\nHost: a\r\n{}\r\n", fields.concat()));
        let headers = parse(&bytes).expect("valid");
        (headers.keeps_alive, headers.says_close)
    };
    assert_eq!(persistence("1.1", &[]), (true, false));
    assert_eq!(persistence("1.1", &["keep-alive"]), (true, false));
    assert_eq!(persistence("1.1", &["keep-alive, Close"]), (false, true));
    assert_eq!(persistence("1.1", &["close", "keep-alive"]), (false, true));
    assert_eq!(persistence("1.1", &["upgrade", "x-closed"]), (true, false));
    assert_eq!(persistence("1.0", &[]), (false, false));
    assert_eq!(persistence("1.0", &["Keep-Alive"]), (true, false));
    assert_eq!(persistence("1.0", &["keep-alive, close"]), (false, true));
}

#[test]
fn the_values_of_headers_are_slices_of_what_was_read() {
    let bytes = Bytes::from_static(
        b"GET /a?b HTTP/1.1\r\nHost: a\r\nX: one\r\nx:  two \r\nExpect: 100-Continue\r\n\r\n",
    );
    let headers = parse(&bytes).expect("valid");
    assert!(headers.expects_continue);
    let request = headers.request;
    assert_eq!((request.method().as_str(), request.uri().to_string().as_str()), ("GET", "/a?b"));
    let values: Vec<_> = request.headers().get_all("x").iter().map(http::HeaderValue::as_bytes).collect();
    assert_eq!(values, [b"one", b"two"]);
    assert!(bytes.as_ptr_range().contains(&values[0].as_ptr()));
}

#[test]
fn every_refusal_is_a_whole_response_that_closes() {
    for refusal in
        [Refusal::HeadersLate, Refusal::HeadersTooLarge, Refusal::TargetMalformed, Refusal::MethodConnect]
    {
        let response = String::from_utf8(refusal.response(std::time::SystemTime::UNIX_EPOCH)).expect("ASCII");
        let (head, body) = response.split_once("\r\n\r\n").expect("headers and a body");
        assert!(head.starts_with(&format!("HTTP/1.1 {} ", refusal.status().as_u16())), "{head}");
        assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
        assert!(head.contains("\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT"), "{head}");
        let problem: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(problem["status"], refusal.status().as_u16());
    }
}
