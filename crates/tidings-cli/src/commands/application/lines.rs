//! The lines of an application's output, as bytes come in and as they are shown.

/// A longer line is shown as several.
pub(super) const LINE_BYTES_MAX: usize = 16 * 1024;
/// Most bytes of a character in UTF-8.
const CHARACTER_BYTES_MAX: usize = 4;

/// Cuts bytes into lines. Holds at most [`LINE_BYTES_MAX`] bytes.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// A line whose end has not come yet.
    rest: Vec<u8>,
}

impl Lines {
    /// Calls `line` with each line that is complete, without its end.
    pub(super) fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(piece);
            while self.rest.len() > LINE_BYTES_MAX {
                let cut = boundary(&self.rest, LINE_BYTES_MAX);
                line(&self.rest[..cut]);
                self.rest.drain(..cut);
            }
            if self.rest.last() == Some(&b'\n') {
                line(without_end(&self.rest));
                self.rest.clear();
            }
        }
    }

    /// What was left without an end, if anything.
    pub(super) fn finish(&mut self, line: impl FnOnce(&[u8])) {
        if !self.rest.is_empty() {
            line(&self.rest);
            self.rest.clear();
        }
    }
}

fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Where to cut at most this many bytes, between two characters if they are UTF-8.
fn boundary(bytes: &[u8], most: usize) -> usize {
    let is_within_character = |at: &usize| bytes[*at] & 0b1100_0000 == 0b1000_0000;
    (most - CHARACTER_BYTES_MAX..=most).rev().find(|at| !is_within_character(at)).unwrap_or(most)
}

/// A line as text: bytes that are not UTF-8 are replaced, control characters escaped, tabs kept.
/// Colours are kept for a terminal and removed for every other output.
pub(super) fn shown(line: &[u8], is_terminal: bool) -> String {
    let text = String::from_utf8_lossy(line);
    let mut shown = String::with_capacity(text.len());
    let mut rest = &*text;
    while let Some(character) = rest.chars().next() {
        if let Some(length) = colour_length(rest) {
            if is_terminal {
                shown.push_str(&rest[..length]);
            }
            rest = &rest[length..];
            continue;
        }
        if character.is_control() && character != '\t' {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
        rest = &rest[character.len_utf8()..];
    }
    shown
}

/// The length of the sequence with which a text begins, if it sets colours and the like (ECMA-48,
/// 8.3.117, "SGR").
fn colour_length(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let length = parameters.find(|character: char| !character.is_ascii_digit() && character != ';')?;
    parameters[length..].starts_with('m').then_some("\u{1b}[".len() + length + "m".len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece, |line| found.push(line.to_vec()));
        }
        lines.finish(|line| found.push(line.to_vec()));
        found
    }

    #[test]
    fn a_line_ends_where_it_ends_however_its_bytes_arrive() {
        assert_eq!(lines(&[b"a", b"b\nc\r", b"\n\n", b"d"]), [&b"ab"[..], b"c", b"", b"d"]);
        assert_eq!(lines(&[b""]), [b""; 0]);
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let long = [&b"x"[..], "é".repeat(LINE_BYTES_MAX).as_bytes(), b"\n"].concat();
        let cut = lines(&[&long]);
        assert_eq!([cut.concat(), b"\n".to_vec()].concat(), long);
        assert!(cut.iter().all(|line| line.len() <= LINE_BYTES_MAX && std::str::from_utf8(line).is_ok()));
        assert_eq!(cut[0].len(), LINE_BYTES_MAX - 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn no_byte_but_line_ends_is_lost_and_no_line_is_too_long(
            pieces in prop::collection::vec(prop::collection::vec(prop_oneof![9 => any::<u8>(), 1 => Just(b'\n')], 0..9_000), 0..9),
        ) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let found = lines(&pieces);
            prop_assert!(found.iter().all(|line| line.len() <= LINE_BYTES_MAX));
            let is_content = |byte: &u8| !b"\r\n".contains(byte);
            let sent: Vec<u8> = pieces.concat().into_iter().filter(is_content).collect();
            let received: Vec<u8> = found.concat().into_iter().filter(is_content).collect();
            prop_assert_eq!(received, sent);
        }
    }

    #[test]
    fn control_characters_are_escaped_and_colours_are_for_terminals() {
        let line = b"\x1b[1;31mred\x1b[0m\ta\x1b[2J\x07 \xff\r";
        assert_eq!(shown(line, false), "red\ta\\u{1b}[2J\\u{7} \u{fffd}\\r");
        assert_eq!(shown(line, true), "\u{1b}[1;31mred\u{1b}[0m\ta\\u{1b}[2J\\u{7} \u{fffd}\\r");
        assert_eq!(shown(b"\x1b[31", true), "\\u{1b}[31");
    }
}
