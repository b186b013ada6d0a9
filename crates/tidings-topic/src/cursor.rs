//! A position in one particular log, and its text form, the generated event id.

use std::fmt;

use crate::{Epoch, Position};

/// A position in a particular log: the reader has seen everything up to and including
/// [`position`](Self::position).
///
/// A cursor is written as a generated event id: `#`, the epoch, `.`, the position, both as base-64
/// numbers without leading zeros, over the alphabet `0-9A-Za-z_~`: at most 1 + 11 + 1 + 22 = 35
/// bytes. Cursors of different epochs are not ordered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cursor {
    /// The epoch, which identifies the log.
    pub epoch: Epoch,
    /// The position in it.
    pub position: Position,
}

/// The text is not a generated event id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id that this hub generates")]
pub struct ParseCursorError;

impl Cursor {
    /// Longest text form, in bytes.
    pub(crate) const BYTES_MAX: usize = 1 + 11 + 1 + 22;

    /// Writes the text form into a buffer, from its end, without an allocation: this runs for every
    /// published event.
    pub(crate) fn spell(self, buffer: &mut [u8; Self::BYTES_MAX]) -> &str {
        let dot = write_digits(buffer, Self::BYTES_MAX, u128::from_be_bytes(self.position.to_bytes())) - 1;
        buffer[dot] = b'.';
        let start = write_digits(buffer, dot, u128::from(self.epoch.to_u64())) - 1;
        buffer[start] = b'#';
        std::str::from_utf8(&buffer[start..]).expect("the alphabet is ASCII")
    }

    /// Parses a generated id, with or without its leading `#`. Only the canonical form is accepted,
    /// so that no two texts mean the same cursor.
    pub fn parse(text: &str) -> Result<Self, ParseCursorError> {
        let text = text.strip_prefix('#').unwrap_or(text);
        let (epoch, position) = text.split_once('.').ok_or(ParseCursorError)?;
        let epoch = u64::try_from(digits_to_number(epoch)?).map_err(|_| ParseCursorError)?;
        let position = digits_to_number(position)?;
        Ok(Self { epoch: Epoch::from_u64(epoch), position: Position::from_bytes(position.to_be_bytes()) })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.spell(&mut [0; Self::BYTES_MAX]))
    }
}

/// The unreserved characters of RFC 3986 except `-`, which would make an id look like `-50` in
/// `since`, and `.`, which is the separator.
const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_~";

/// Writes a number that ends before `end`, and returns its start.
fn write_digits(buffer: &mut [u8], end: usize, mut number: u128) -> usize {
    let mut start = end;
    loop {
        start -= 1;
        buffer[start] = DIGITS[(number & 63) as usize];
        number >>= 6;
        if number == 0 {
            return start;
        }
    }
}

fn digits_to_number(digits: &str) -> Result<u128, ParseCursorError> {
    let bytes = digits.as_bytes();
    let leading_zero = bytes.len() > 1 && bytes[0] == b'0';
    if bytes.is_empty() || bytes.len() > 22 || leading_zero {
        return Err(ParseCursorError);
    }
    bytes.iter().try_fold(0u128, |number, byte| {
        let digit = DIGITS.iter().position(|candidate| candidate == byte).ok_or(ParseCursorError)?;
        let shifted = number.checked_mul(64).ok_or(ParseCursorError)?;
        Ok(shifted | digit as u128)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_generated_id_parses_to_its_cursor(epoch: u64, position: u128) {
            let cursor = Cursor {
                epoch: Epoch::from_u64(epoch),
                position: Position::from_bytes(position.to_be_bytes()),
            };
            let id = cursor.to_event_id();
            prop_assert!(id.as_str().len() <= 64);
            prop_assert_eq!(Cursor::parse(id.as_str()), Ok(cursor));
            prop_assert_eq!(Cursor::parse(&id.as_str()[1..]), Ok(cursor));
        }

        #[test]
        fn a_cursor_has_one_text_form(text in "#?[0-9A-Za-z_~]{0,24}\\.[0-9A-Za-z_~]{0,24}") {
            if let Ok(cursor) = Cursor::parse(&text) {
                let spelled = cursor.to_string();
                prop_assert_eq!(spelled.trim_start_matches('#'), text.trim_start_matches('#'));
            }
        }
    }
}
