//! The mark that every published payload begins with: which event it is, and when it was due.
//!
//! It has a fixed length and prefix, so that a reader looks for four bytes and decodes thirty-two,
//! whatever surrounds them: SSE fields, chunk sizes, comments. A mark may be split between two
//! reads ([`Carry`]) but not by the hub, by a line or by an HTTP chunk: no known hub splits an
//! event shorter than its buffers.

use memchr::{memchr, memmem, memrchr};

pub(crate) const PREFIX: &[u8; 4] = b"~tb:";
const WORD_BYTES: usize = 16;
/// The prefix, the number of the event, the time.
pub(crate) const MARK_BYTES: usize = PREFIX.len() + 2 * WORD_BYTES;

/// The most publishers, topics, and events of one publisher on one topic, that a mark can
/// distinguish.
pub(crate) const PUBLISHERS_MAX: usize = 1 << 8;
pub(crate) const TOPICS_MAX: usize = 1 << 24;
pub(crate) const SEQUENCE_MAX: u64 = 1 << 24;

/// Which event this is, and when it was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Distinguishes the events of this run from those of an earlier one.
    pub(crate) run: u8,
    pub(crate) publisher: u8,
    /// 24 bits.
    pub(crate) topic: u32,
    /// Counts the events of this publisher on this topic from 0; 24 bits.
    pub(crate) sequence: u32,
    /// On the clock of the run.
    pub(crate) due_nanos: u64,
}

impl Mark {
    /// All except the time, as one number.
    pub(crate) fn number(&self) -> u64 {
        u64::from(self.run) << 56
            | u64::from(self.publisher) << 48
            | u64::from(self.topic) << 24
            | u64::from(self.sequence)
    }

    /// Writes the mark and fills up with `x` to `payload_bytes`.
    pub(crate) fn write_payload(&self, payload_bytes: usize, out: &mut Vec<u8>) {
        let end = out.len() + payload_bytes.max(MARK_BYTES);
        out.extend_from_slice(PREFIX);
        out.extend_from_slice(&encode(self.number()));
        out.extend_from_slice(&encode(self.due_nanos));
        out.resize(end, b'x');
    }

    fn read(digits: &[u8; 2 * WORD_BYTES]) -> Option<Self> {
        let (number, due_nanos) = digits.split_at(WORD_BYTES);
        let number = decode(number.try_into().ok()?)?;
        let due_nanos = decode(due_nanos.try_into().ok()?)?;
        let [run, publisher, topic @ .., a, b, c] = number.to_be_bytes();
        let topic = u32::from_be_bytes([0, topic[0], topic[1], topic[2]]);
        Some(Self { run, publisher, topic, sequence: u32::from_be_bytes([0, a, b, c]), due_nanos })
    }
}

/// Finds marks in the reads of many streams. What a read leaves unfinished is kept per stream, in a
/// [`Carry`].
#[derive(Debug)]
pub(crate) struct Scanner {
    finder: memmem::Finder<'static>,
}

impl Scanner {
    pub(crate) fn new() -> Self {
        Self { finder: memmem::Finder::new(PREFIX) }
    }

    /// Calls `found` for each mark that ends in this input.
    #[inline]
    pub(crate) fn scan(&self, carry: &mut Carry, input: &[u8], mut found: impl FnMut(Mark)) {
        let Some(mut rest) = carry.finish(input, &mut found) else { return };
        while let Some(start) = self.finder.find(rest) {
            rest = &rest[start..];
            let Some((mark, behind)) = rest.split_at_checked(MARK_BYTES) else {
                carry.keep(rest);
                return;
            };
            let digits = mark.last_chunk().expect("a mark is longer than its digits");
            if let Some(mark) = Mark::read(digits) {
                found(mark);
                rest = behind;
            } else {
                rest = &rest[PREFIX.len()..];
            }
        }
        // The prefix itself may be cut; its first byte occurs only once in it.
        let tail = &rest[rest.len().saturating_sub(PREFIX.len() - 1)..];
        if let Some(start) = memrchr(PREFIX[0], tail)
            && PREFIX.starts_with(&tail[start..])
        {
            carry.keep(&tail[start..]);
        }
    }
}

/// The beginning of a mark at the end of a read. Empty at nearly all times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Carry {
    length: u8,
    bytes: [u8; MARK_BYTES - 1],
}

impl Default for Carry {
    fn default() -> Self {
        Self { length: 0, bytes: [0; MARK_BYTES - 1] }
    }
}

impl Carry {
    /// Completes the mark that the last read began, and returns what is left of the input, if all
    /// is decided.
    fn finish<'a>(&mut self, input: &'a [u8], found: &mut impl FnMut(Mark)) -> Option<&'a [u8]> {
        while self.length > 0 {
            let kept = usize::from(self.length);
            let taken = input.len().min(MARK_BYTES - kept);
            let mut joined = [0; MARK_BYTES];
            joined[..kept].copy_from_slice(&self.bytes[..kept]);
            joined[kept..kept + taken].copy_from_slice(&input[..taken]);
            let joined = &joined[..kept + taken];
            let prefix = joined.len().min(PREFIX.len());
            if joined[..prefix] == PREFIX[..prefix] {
                if joined.len() < MARK_BYTES {
                    self.keep(joined);
                    return None;
                }
                if let Some(mark) = joined.last_chunk().and_then(Mark::read) {
                    self.length = 0;
                    found(mark);
                    return Some(&input[taken..]);
                }
            }
            // No mark begins here; one may begin later in what was kept.
            match memchr(PREFIX[0], &self.bytes[1..kept]) {
                Some(next) => {
                    self.bytes.copy_within(1 + next..kept, 0);
                    self.length -= u8::try_from(1 + next).expect("a mark is shorter than 256 bytes");
                }
                None => self.length = 0,
            }
        }
        Some(input)
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.bytes[..bytes.len()].copy_from_slice(bytes);
        self.length = u8::try_from(bytes.len()).expect("a mark is shorter than 256 bytes");
    }
}

fn encode(word: u64) -> [u8; WORD_BYTES] {
    let mut digits = [0; WORD_BYTES];
    for (place, digit) in digits.iter_mut().enumerate() {
        let nibble = (word >> (60 - 4 * place)) & 0xf;
        *digit = b"0123456789abcdef"[usize::try_from(nibble).expect("four bits")];
    }
    digits
}

/// Sixteen lower-case hexadecimal digits, eight at a time.
#[inline]
fn decode(digits: &[u8; WORD_BYTES]) -> Option<u64> {
    let (high, low) = digits.split_at(WORD_BYTES / 2);
    let high = decode_half(u64::from_be_bytes(high.try_into().ok()?))?;
    let low = decode_half(u64::from_be_bytes(low.try_into().ok()?))?;
    Some(high << 32 | low)
}

#[inline]
fn decode_half(digits: u64) -> Option<u64> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // `a` to `f` have the bit 0x40, `0` to `9` do not; nine more make the letter's low nibble its
    // value.
    let letters = (digits >> 6) & ONES;
    let values = (digits & (0x0f * ONES)) + letters * 9;
    // Back to digits, which must be the ones that came; `g` to `o` made more than fifteen.
    let above_nine = ((values + 6 * ONES) >> 4) & ONES;
    if values & (0xf0 * ONES) != 0 || values + (0x30 * ONES) + above_nine * 0x27 != digits {
        return None;
    }
    let pairs = (values | values >> 4) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs | pairs >> 8) & 0x0000_ffff_0000_ffff;
    Some((fours | fours >> 16) & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn marks() -> impl Strategy<Value = Mark> {
        (any::<u8>(), any::<u8>(), 0..1_u32 << 24, 0..1_u32 << 24, any::<u64>()).prop_map(
            |(run, publisher, topic, sequence, due_nanos)| Mark {
                run,
                publisher,
                topic,
                sequence,
                due_nanos,
            },
        )
    }

    /// Possible bytes between marks: ordinary bytes, and everything that looks like the beginning
    /// of a mark.
    fn noise() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            vec(any::<u8>(), 0..40).prop_map(|mut bytes| {
                bytes.retain(|byte| *byte != b'~');
                bytes
            }),
            (0..PREFIX.len() + 1).prop_map(|end| PREFIX[..end.min(PREFIX.len())].to_vec()),
            Just(b"~~t~tb~tb:0123456789abcdeF".to_vec()),
            Just(b"\n\n\r\n9f\r\nid: ~\ndata: ".to_vec()),
        ]
    }

    proptest! {
        #[test]
        fn each_mark_is_found_once_however_the_bytes_are_cut(
            pieces in vec((noise(), marks(), 0..60_usize), 0..8),
            cuts in vec(any::<prop::sample::Index>(), 0..30),
        ) {
            let mut stream = Vec::new();
            for (noise, mark, padding) in &pieces {
                stream.extend_from_slice(noise);
                // A byte that ends whatever the noise began.
                stream.push(b'\n');
                mark.write_payload(MARK_BYTES + padding, &mut stream);
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let scanner = Scanner::new();
            let (mut carry, mut found) = (Carry::default(), Vec::new());
            for edges in cuts.windows(2) {
                scanner.scan(&mut carry, &stream[edges[0]..edges[1]], |mark| found.push(mark));
            }
            let published: Vec<Mark> = pieces.iter().map(|(_, mark, _)| *mark).collect();
            prop_assert_eq!(found, published);
        }

        #[test]
        fn only_lower_case_digits_are_a_number(digits in any::<[u8; 16]>(), word in any::<u64>()) {
            prop_assert_eq!(decode(&encode(word)), Some(word));
            let text = std::str::from_utf8(&digits).ok().filter(|text| {
                text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
            });
            prop_assert_eq!(decode(&digits), text.and_then(|text| u64::from_str_radix(text, 16).ok()));
        }
    }

    #[test]
    fn an_invalid_digit_is_refused_at_every_position() {
        for place in 0..WORD_BYTES {
            for digit in 0..=u8::MAX {
                let mut digits = encode(0x0123_4567_89ab_cdef);
                digits[place] = digit;
                let valid = matches!(digit, b'0'..=b'9' | b'a'..=b'f');
                assert_eq!(decode(&digits).is_some(), valid, "{digit} at {place}");
            }
        }
    }

    #[test]
    fn a_payload_has_the_requested_length() {
        let mark = Mark { run: 1, publisher: 2, topic: 3, sequence: 4, due_nanos: 5 };
        let mut payload = Vec::new();
        mark.write_payload(128, &mut payload);
        assert_eq!(payload.len(), 128);
        payload.clear();
        mark.write_payload(0, &mut payload);
        assert_eq!(payload, b"~tb:01020000030000040000000000000005");
    }
}
