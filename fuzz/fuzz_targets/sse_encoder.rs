//! Any fields are refused, or encoded as exactly one event with the same fields.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tidings_fuzz::sse::properties::assert_round_trip;
use tidings_sse::EventFields;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    part_sizes: [u8; 4],
    event: Option<&'a str>,
    retry_millis: Option<u64>,
    id: Option<&'a str>,
    data: &'a str,
}

fuzz_target!(|input: Input<'_>| {
    let Input { part_sizes, event, retry_millis, id, data } = input;
    assert_round_trip(&EventFields { event, retry_millis, id, data }, &part_sizes);
});
