//! The only code that knows where a line ends: at CR, at LF, or at CRLF counted once. Encoder and
//! parser both use it, so they cannot disagree. U+2028, U+2029, U+0085, VT and FF end no line.

/// How many bytes are compared together. The compiler turns comparing a complete block without an
/// early exit, and gathering the results in a byte rather than a `bool`, into vector instructions:
/// ten times as fast as byte by byte.
const BLOCK_BYTES: usize = 32;

/// The position of the first CR or LF.
pub(crate) fn line_break(bytes: &[u8]) -> Option<usize> {
    let (blocks, tail) = bytes.as_chunks::<BLOCK_BYTES>();
    for (index, block) in blocks.iter().enumerate() {
        if block.iter().fold(0, |found, &byte| found | u8::from(is_break(byte))) != 0 {
            let within = block.iter().position(|&byte| is_break(byte)).expect("this block holds a break");
            return Some(index * BLOCK_BYTES + within);
        }
    }
    let within = tail.iter().position(|&byte| is_break(byte))?;
    Some(blocks.len() * BLOCK_BYTES + within)
}

/// The lines of a text without their ends. There is always at least one: an empty text is one empty
/// line, and a text that ends in a break has an empty line after it.
pub(crate) fn lines(text: &str) -> Lines<'_> {
    Lines { rest: Some(text.as_bytes()) }
}

pub(crate) struct Lines<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest.take()?;
        let Some(end) = line_break(rest) else { return Some(rest) };
        let break_bytes = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
        self.rest = Some(&rest[end + break_bytes..]);
        Some(&rest[..end])
    }
}

const fn is_break(byte: u8) -> bool {
    byte == b'\n' || byte == b'\r'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_break_is_found_at_every_offset_of_every_length() {
        for length in 0..3 * BLOCK_BYTES {
            assert_eq!(line_break(&vec![b'x'; length]), None);
            for position in 0..length {
                for byte in [b'\r', b'\n'] {
                    let mut bytes = vec![b'x'; length];
                    bytes[position] = byte;
                    // A later break must not hide the first one.
                    *bytes.last_mut().expect("the length is above the position") = byte;
                    assert_eq!(line_break(&bytes), Some(position));
                }
            }
        }
    }

    #[test]
    fn carriage_return_line_feed_and_both_together_each_end_one_line() {
        let split = |text| lines(text).map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert_eq!(split("a\rb\nc\r\nd"), [b"a", b"b", b"c", b"d"]);
        assert_eq!(split("\n\r"), [b"", b"", b""]);
        assert_eq!(split("\r\n"), [b"", b""]);
        assert_eq!(split(""), [b""]);
    }

    #[test]
    fn unicode_separators_end_no_line() {
        let text = "a\u{2028}b\u{2029}c\u{85}d\u{b}e\u{c}f";
        assert_eq!(lines(text).collect::<Vec<_>>(), [text.as_bytes()]);
    }
}
