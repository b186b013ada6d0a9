//! The parser against the reference, on streams that no server would send.

use proptest::collection::vec;
use proptest::prelude::*;
use tidings_sse::Limits;

use super::properties::{assert_equals_reference, assert_limits_hold_at_any_cut};

/// The parts of generated streams, valid and broken.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let pieces: &[&[u8]] = &[
        b"\r",
        b"\n",
        b"\r\n",
        b"\n\n",
        b"\r\r",
        b":",
        b" ",
        b"\0",
        b"data",
        b"data:",
        b"data: ",
        b"id",
        b"id:",
        b"event",
        b"event: ",
        b"retry",
        b"retry:",
        b"00",
        b"12",
        b"99999999999999999999999",
        b"DATA:",
        b"x",
        // A byte order mark, complete and in parts; characters that look like line ends.
        b"\xef\xbb\xbf",
        b"\xef",
        b"\xbb",
        b"\xbf",
        b"\xe2\x80\xa8",
        b"\xc2\x85",
        b"\x0b\x0c",
        // Characters cut short, overlong, surrogate and out of range.
        b"\xf0\x9f\x98\x80",
        b"\xf0\x9f\x98",
        b"\xe2\x80",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90",
        b"\xff",
    ];
    let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
    prop_oneof![9 => proptest::sample::select(pieces), 1 => vec(any::<u8>(), 0..80)]
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    vec(fragment(), 0..60).prop_map(|fragments| fragments.concat())
}

fn part_sizes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(vec![1]), vec(0..6_u8, 0..8), vec(any::<u8>(), 0..8)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_stream_split_anywhere_parses_as_the_standard_says(
        stream in stream(),
        after_reconnect in stream(),
        part_sizes in part_sizes(),
    ) {
        assert_equals_reference(&[&stream, &after_reconnect], &part_sizes);
    }

    #[test]
    fn a_limit_is_hit_at_the_same_byte_however_the_stream_is_split(
        stream in stream(),
        part_sizes in part_sizes(),
        line_bytes_max in 0..40_usize,
        event_bytes_max in 0..40_usize,
    ) {
        assert_limits_hold_at_any_cut(&stream, &part_sizes, Limits { line_bytes_max, event_bytes_max });
    }
}
