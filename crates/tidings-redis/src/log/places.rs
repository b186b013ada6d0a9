//! Positions as ids of the stream.
//!
//! A position is an id of the stream, `ms-seq`, packed into a number: 44 bits of milliseconds,
//! which last until the year 2527, and 20 bits that count within one of them. The scripts issue no
//! others.

use tidings_log::Timestamp;

const SEQUENCE_BITS: u32 = 20;
const SEQUENCE_MAX: u64 = (1 << SEQUENCE_BITS) - 1;

/// The id of the stream for a position.
pub(super) fn place(number: u64) -> String {
    format!("{}-{}", number >> SEQUENCE_BITS, number & SEQUENCE_MAX)
}

/// The position of an id of the stream. `None` if it is not one that our scripts issued.
pub(super) fn place_of(id: &[u8]) -> Option<u64> {
    let (millis, sequence) = std::str::from_utf8(id).ok()?.split_once('-')?;
    let (millis, sequence): (u64, u64) = (millis.parse().ok()?, sequence.parse().ok()?);
    (millis < 1 << (64 - SEQUENCE_BITS) && sequence <= SEQUENCE_MAX)
        .then_some(millis << SEQUENCE_BITS | sequence)
}

/// When the event at this position was appended.
pub(super) fn time_of(number: u64) -> Timestamp {
    Timestamp::from_millis(number >> SEQUENCE_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_back_from_its_id() {
        for number in [0, 1, SEQUENCE_MAX, SEQUENCE_MAX + 1, 1_700_000_000_000 << 20 | 7, u64::MAX] {
            assert_eq!(place_of(place(number).as_bytes()), Some(number));
        }
        for foreign in ["", "1", "1-", "x-1", "1-1048576", "17592186044416-0"] {
            assert_eq!(place_of(foreign.as_bytes()), None, "{foreign}");
        }
    }
}
