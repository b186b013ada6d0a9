//! Decodes the body of a request, as far as it has arrived: by its length, or by its chunks.
//!
//! A pure state machine on bytes. What it decodes does not depend on how they were cut into packets.

use bytes::Bytes;

use super::grammar::{is_field_byte, is_token_byte};

/// Most hexadecimal digits of a chunk's size: as many as a 64-bit number has.
const CHUNK_DIGITS_MAX: u8 = 16;
/// Most bytes of the extensions of all chunks of a body. Clients send them only to make a parser
/// work.
const EXTENSION_BYTES_MAX: u16 = 4 * 1024;
/// Most bytes of trailer fields behind the last chunk. They are checked and dropped (RFC 9110,
/// 6.5.1).
const TRAILER_BYTES_MAX: u16 = 8 * 1024;

/// What is still to come of a body, by its framing.
#[derive(Debug)]
pub(crate) enum BodyDecoder {
    /// This many bytes.
    Length(u64),
    /// Chunks (RFC 9112, 7.1).
    Chunked(Chunked),
}

/// How far a body has been decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    Incomplete,
    Complete,
    /// The bytes that are left are not what must stand here: where the body ends is unknown.
    Broken,
}

impl BodyDecoder {
    pub(super) fn chunked() -> Self {
        Self::Chunked(Chunked {
            state: ChunkState::Size { digits: 0, size: 0 },
            extension_bytes: 0,
            trailer_bytes: 0,
        })
    }

    /// How many bytes are still to come, if that is known.
    pub(super) fn remaining(&self) -> Option<u64> {
        match self {
            Self::Length(remaining) => Some(*remaining),
            Self::Chunked(_) => None,
        }
    }

    /// Takes what belongs to the body from the front of `arrived`, and returns the data in it.
    pub(super) fn decode(&mut self, arrived: &mut Vec<u8>) -> (Bytes, Progress) {
        match self {
            Self::Length(remaining) => {
                let taken = usize::try_from(*remaining).unwrap_or(usize::MAX).min(arrived.len());
                *remaining -= taken as u64;
                let later = arrived.split_off(taken);
                let data = std::mem::replace(arrived, later).into();
                (data, if *remaining == 0 { Progress::Complete } else { Progress::Incomplete })
            }
            Self::Chunked(chunked) => {
                let mut data = Vec::new();
                let taken = chunked.advance(arrived, &mut data);
                arrived.drain(..taken);
                if arrived.is_empty() {
                    *arrived = Vec::new();
                }
                let progress = match chunked.state {
                    ChunkState::Complete => Progress::Complete,
                    ChunkState::Broken => Progress::Broken,
                    _ => Progress::Incomplete,
                };
                (data.into(), progress)
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Chunked {
    state: ChunkState,
    extension_bytes: u16,
    trailer_bytes: u16,
}

#[derive(Clone, Copy, Debug)]
enum ChunkState {
    Size {
        digits: u8,
        size: u64,
    },
    Extension {
        size: u64,
    },
    SizeLineFeed {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataReturn,
    DataLineFeed,
    /// At the first byte of a line behind the last chunk: a trailer field, or the end.
    TrailerStart,
    /// In the name of a trailer field.
    TrailerName,
    /// Behind its colon.
    TrailerValue,
    TrailerLineFeed,
    EndLineFeed,
    Complete,
    Broken,
}

impl Chunked {
    /// Appends the data of these bytes to `data`, and returns how many of them keep the rules.
    fn advance(&mut self, bytes: &[u8], data: &mut Vec<u8>) -> usize {
        let mut taken = 0;
        while let Some(&byte) = bytes.get(taken) {
            if let ChunkState::Data { left } = self.state {
                let run = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - taken);
                data.extend_from_slice(&bytes[taken..taken + run]);
                taken += run;
                let left = left - run as u64;
                self.state = if left == 0 { ChunkState::DataReturn } else { ChunkState::Data { left } };
                continue;
            }
            if matches!(self.state, ChunkState::Complete) {
                break;
            }
            self.state = self.step(byte);
            if matches!(self.state, ChunkState::Broken) {
                break;
            }
            taken += 1;
        }
        taken
    }

    /// One byte of what is not data. Line ends are CR LF here as in the headers: a bare LF is
    /// what smuggling is made of.
    fn step(&mut self, byte: u8) -> ChunkState {
        use ChunkState as S;
        match (self.state, byte) {
            (S::Size { digits, size }, _) if byte.is_ascii_hexdigit() && digits < CHUNK_DIGITS_MAX => {
                let digit = char::from(byte).to_digit(16).expect("a hexadecimal digit");
                S::Size { digits: digits + 1, size: size << 4 | u64::from(digit) }
            }
            (S::Size { digits: 1.., size } | S::Extension { size }, b'\r') => S::SizeLineFeed { size },
            (S::Size { digits: 1.., size }, b';' | b' ' | b'\t') => self.extension(size),
            (S::Extension { size }, _) if is_field_byte(byte) => self.extension(size),
            (S::SizeLineFeed { size: 0 } | S::TrailerLineFeed, b'\n') => S::TrailerStart,
            (S::SizeLineFeed { size }, b'\n') => S::Data { left: size },
            (S::DataReturn, b'\r') => S::DataLineFeed,
            (S::DataLineFeed, b'\n') => S::Size { digits: 0, size: 0 },
            (S::TrailerStart, b'\r') => S::EndLineFeed,
            (S::TrailerStart | S::TrailerName, _) if is_token_byte(byte) => self.trailer(S::TrailerName),
            (S::TrailerName, b':') => self.trailer(S::TrailerValue),
            (S::TrailerValue, b'\r') => S::TrailerLineFeed,
            (S::TrailerValue, _) if is_field_byte(byte) => self.trailer(S::TrailerValue),
            (S::EndLineFeed, b'\n') => S::Complete,
            _ => S::Broken,
        }
    }

    fn extension(&mut self, size: u64) -> ChunkState {
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES_MAX {
            ChunkState::Broken
        } else {
            ChunkState::Extension { size }
        }
    }

    fn trailer(&mut self, next: ChunkState) -> ChunkState {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX { ChunkState::Broken } else { next }
    }
}
