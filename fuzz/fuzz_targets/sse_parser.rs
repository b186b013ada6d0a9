//! Any bytes, split anywhere: the parser never panics, yields the same as the naive reference for
//! the complete stream, and obeys its limits.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tidings_fuzz::sse::properties::{assert_equals_reference, assert_limits_hold_at_any_cut};
use tidings_sse::Limits;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    part_sizes: [u8; 4],
    line_bytes_max: u8,
    event_bytes_max: u8,
    stream: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let Input { part_sizes, line_bytes_max, event_bytes_max, stream } = input;
    // Repeat the stream, as after a reconnect.
    assert_equals_reference(&[stream, stream], &part_sizes);
    let limits = Limits { line_bytes_max: line_bytes_max.into(), event_bytes_max: event_bytes_max.into() };
    assert_limits_hold_at_any_cut(stream, &part_sizes, limits);
});
