//! Properties of what is read of a connection that hold for all inputs.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::{
    HTTP2_PREFACE,
    tests::{Last, judge},
};

/// A valid request: its bytes.
fn any_request() -> impl Strategy<Value = Vec<u8>> {
    let body = prop_oneof![
        Just((String::new(), Vec::new())),
        vec(any::<u8>(), 0..40).prop_map(|body| (format!("Content-Length: {}\r\n", body.len()), body)),
        (vec(vec(any::<u8>(), 1..20), 0..4), "(;[a-z=]{0,5})?", "([A-Z]: [a-z]{0,5}\r\n){0,2}").prop_map(
            |(chunks, extension, trailers)| {
                let mut body = Vec::new();
                for chunk in chunks {
                    body.extend(format!("{:x}{extension}\r\n", chunk.len()).bytes());
                    body.extend(chunk);
                    body.extend(b"\r\n");
                }
                body.extend(format!("0\r\n{trailers}\r\n").bytes());
                ("Transfer-Encoding: chunked\r\n".to_owned(), body)
            }
        ),
    ];
    ("(\r\n)?", "GET|POST|X", "/[a-z]{0,8}", "([A-Z]{1,4}: [a-z ]{0,9}\r\n){0,3}", body).prop_map(
        |(empty_line, method, target, headers, (framing, body))| {
            let mut request =
                format!("{empty_line}{method} {target} HTTP/1.1\r\nHost: a\r\n{headers}{framing}\r\n")
                    .into_bytes();
            request.extend(body);
            request
        },
    )
}

fn pieces<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn pipelined_requests_are_reported_apart_where_they_end(requests in vec(any_request(), 1..6), cuts in vec(any::<Index>(), 0..8)) {
        let bytes = requests.concat();
        let verdict = judge(pieces(&bytes, &cuts));
        let mut ends = Vec::new();
        for request in &requests {
            ends.push(ends.last().unwrap_or(&0) + request.len());
        }
        prop_assert_eq!(&verdict.taken, &bytes);
        prop_assert_eq!(verdict.ends, ends);
        prop_assert_eq!(verdict.last, Last::Incomplete);
    }

    #[test]
    fn a_verdict_does_not_depend_on_how_the_bytes_were_cut(
        requests in vec(any_request(), 1..4),
        edits in vec((any::<Index>(), any::<bool>(), prop_oneof![Just(b'\n'), Just(b'\r'), Just(b' '), Just(b':'), Just(0), any::<u8>()]), 0..4),
        padding in prop_oneof![4 => Just(0), 1 => 0_usize..2_000],
        preface in prop_oneof![2 => Just(0), 1 => 0..=HTTP2_PREFACE.len()],
        cuts in vec(any::<Index>(), 0..12),
    ) {
        let mut bytes = [&HTTP2_PREFACE[..preface], &requests.concat()].concat();
        for (at, replace, byte) in edits {
            let at = at.index(bytes.len());
            if replace { bytes[at] = byte } else { bytes.insert(at, byte) }
        }
        bytes.splice(5..5, std::iter::repeat_n(b'a', padding));
        let whole = judge([&bytes[..]]);
        prop_assert_eq!(&judge(pieces(&bytes, &cuts)), &whole);
        prop_assert_eq!(&judge(bytes.chunks(1)), &whole);
    }
}
