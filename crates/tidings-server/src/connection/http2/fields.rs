//! Decodes the header fields of an HTTP/2 connection to find what the library silently drops: a
//! fragment in `:path`.
//!
//! RFC 9113, 8.3.1: `:path` is the path and the query of the target, so a `#` in it is malformed.
//! hyper parses it as `http::Uri`, which cuts off the fragment, and a request for `/topics/room#7`
//! would then be one for `/topics/room`. A field may refer to one of an earlier request (HPACK, RFC
//! 7541), so every block of fields has to be decoded, in order. Of a field, only its size and two
//! flags are kept, never its text.
//!
//! Invariant: `size` is the sum of the sizes of all entries, and at most `size_max`, so that an
//! index means here what it means to the client.

use std::collections::VecDeque;

/// RFC 9113, 6.5.2: the size of the dynamic table unless SETTINGS say otherwise, and ours do not.
const TABLE_BYTES_MAX: usize = 4096;
/// RFC 7541, 4.1: what an entry counts besides its name and value.
const ENTRY_BYTES: usize = 32;
/// Most bytes of an integer behind its prefix (RFC 7541, 5.1): 28 bits are more than any block has.
const INTEGER_BYTES_MAX: u32 = 4;

/// RFC 7541, Appendix A: the lengths of the names in the static table, from index 1 on.
const STATIC_NAME_BYTES: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16, 13,
    12, 6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3,
    16,
];
/// The entries of the static table whose name is `:path`. Their values have no fragment.
const STATIC_PATHS: std::ops::RangeInclusive<usize> = 4..=5;
/// `:path` as it is, and in Huffman code.
const PATHS: [&[u8]; 2] = [b":path", b"\xb9\x58\xd3\x3f"];

/// What one side of a connection knows of the fields that the other has sent. See the module's
/// documentation.
#[derive(Debug)]
pub(super) struct Fields {
    /// The newest first.
    entries: VecDeque<Entry>,
    size: usize,
    size_max: usize,
}

/// A field, as far as it is kept.
#[derive(Clone, Copy, Debug)]
struct Entry {
    size: usize,
    name_bytes: usize,
    is_path: bool,
    has_number_sign: bool,
}

/// What is found in a block of fields.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Found {
    /// How many fields it has.
    pub(super) count: usize,
    /// It is that of a request whose `:path` has a fragment.
    pub(super) has_fragment: bool,
}

/// A block of fields breaks the rules of HPACK. Nothing behind it on its connection can be
/// understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unreadable;

impl Default for Fields {
    fn default() -> Self {
        Self { entries: VecDeque::new(), size: 0, size_max: TABLE_BYTES_MAX }
    }
}

impl Fields {
    /// Reads one block.
    pub(super) fn read(&mut self, block: &[u8]) -> Result<Found, Unreadable> {
        let mut block = Reader(block);
        let mut found = Found::default();
        while let Some(first) = block.byte() {
            // RFC 7541, 6: how a field is represented is said by the first bits.
            let entry = match first {
                0b1000_0000.. => self.entry(block.integer(first, 7)?)?,
                0b0100_0000.. => {
                    let entry = self.literal(&mut block, first, 6, true)?;
                    self.insert(entry);
                    entry
                }
                0b0010_0000.. => {
                    self.resize(block.integer(first, 5)?)?;
                    continue;
                }
                _ => self.literal(&mut block, first, 4, false)?,
            };
            found.count += 1;
            found.has_fragment |= entry.is_path && entry.has_number_sign;
        }
        Ok(found)
    }

    /// RFC 7541, 6.2. The value is measured if it is remembered or of interest: most cookies are not.
    fn literal(
        &self,
        block: &mut Reader<'_>,
        first: u8,
        prefix_bits: u32,
        is_remembered: bool,
    ) -> Result<Entry, Unreadable> {
        let (name_bytes, is_path) = match block.integer(first, prefix_bits)? {
            0 => {
                let name = block.string()?;
                (name.measure()?.0, name.bytes == PATHS[usize::from(name.is_huffman)])
            }
            index => {
                let entry = self.entry(index)?;
                (entry.name_bytes, entry.is_path)
            }
        };
        let value = block.string()?;
        let (value_bytes, has_number_sign) =
            if is_remembered || is_path { value.measure()? } else { (0, false) };
        Ok(Entry { size: name_bytes + value_bytes + ENTRY_BYTES, name_bytes, is_path, has_number_sign })
    }

    /// RFC 7541, 2.3.3.
    fn entry(&self, index: usize) -> Result<Entry, Unreadable> {
        let in_static = index.checked_sub(1).ok_or(Unreadable)?;
        match STATIC_NAME_BYTES.get(in_static) {
            Some(bytes) => Ok(Entry {
                size: 0,
                name_bytes: (*bytes).into(),
                is_path: STATIC_PATHS.contains(&index),
                has_number_sign: false,
            }),
            None => self.entries.get(in_static - STATIC_NAME_BYTES.len()).copied().ok_or(Unreadable),
        }
    }

    /// RFC 7541, 4.4: a field that is larger than the table empties it.
    fn insert(&mut self, entry: Entry) {
        self.entries.push_front(entry);
        self.size += entry.size;
        self.evict();
    }

    /// RFC 7541, 6.3.
    fn resize(&mut self, size_max: usize) -> Result<(), Unreadable> {
        if size_max > TABLE_BYTES_MAX {
            return Err(Unreadable);
        }
        self.size_max = size_max;
        self.evict();
        Ok(())
    }

    fn evict(&mut self) {
        while self.size > self.size_max
            && let Some(oldest) = self.entries.pop_back()
        {
            self.size -= oldest.size;
        }
    }
}

/// What is left of a block.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// RFC 7541, 5.1, from its first byte on.
    fn integer(&mut self, first: u8, prefix_bits: u32) -> Result<usize, Unreadable> {
        let prefix_max = (1_usize << prefix_bits) - 1;
        let mut value = usize::from(first) & prefix_max;
        if value < prefix_max {
            return Ok(value);
        }
        for nth in 0..INTEGER_BYTES_MAX {
            let byte = self.byte().ok_or(Unreadable)?;
            value += usize::from(byte & 0x7f) << (7 * nth);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Unreadable)
    }

    /// RFC 7541, 5.2.
    fn string(&mut self) -> Result<Text<'a>, Unreadable> {
        let first = self.byte().ok_or(Unreadable)?;
        let length = self.integer(first, 7)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Unreadable)?;
        self.0 = rest;
        Ok(Text { bytes, is_huffman: first & 0x80 != 0 })
    }
}

/// A string as it is sent.
struct Text<'a> {
    bytes: &'a [u8],
    is_huffman: bool,
}

impl Text<'_> {
    /// How many bytes it stands for, and whether there is a `#` among them.
    fn measure(&self) -> Result<(usize, bool), Unreadable> {
        if self.is_huffman {
            return measure_huffman(self.bytes);
        }
        Ok((self.bytes.len(), self.bytes.contains(&b'#')))
    }
}

/// RFC 7541, Appendix B: how many codes there are of each length, from that of 5 bits on.
const CODES: [u64; 26] =
    [10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4];
const CODE_BITS_MIN: u32 = 5;
/// The code is canonical: the codes of a length follow each other, and those of the next length
/// follow the last of them. So this is what the codes of each length are below, as the upper ones of
/// 32 bits.
const CODES_END: [u64; CODES.len()] = {
    let mut ends = CODES;
    let (mut nth, mut end, mut bits) = (0, 0, CODE_BITS_MIN);
    while nth < ends.len() {
        end += CODES[nth] << (32 - bits);
        ends[nth] = end;
        nth += 1;
        bits += 1;
    }
    ends
};
/// The code of `#`.
const NUMBER_SIGN: (u64, u32) = (0xffa, 12);
/// That of the end of a string, which is never sent.
const END: (u64, u32) = (0x3fff_ffff, 30);

/// How many bytes a string stands for, and whether there is a `#` among them.
fn measure_huffman(bytes: &[u8]) -> Result<(usize, bool), Unreadable> {
    let mut bytes = bytes.iter();
    let (mut count, mut has_number_sign) = (0, false);
    // The next bits are at the upper end; `held` of them are there.
    let (mut window, mut held) = (0_u64, 0);
    loop {
        while held <= 32
            && let Some(byte) = bytes.next()
        {
            window |= u64::from(*byte) << (56 - held);
            held += 8;
        }
        let next = window >> 32;
        let mut lengths = CODES_END.iter().zip(CODE_BITS_MIN..);
        let (_, bits) = lengths.find(|(end, _)| next < **end).expect("the last one is above 32 bits");
        let code = (next >> (32 - bits), bits);
        if bits > held || code == END {
            // RFC 7541, 5.2: what is left is padding, fewer than 8 bits, all of them set.
            let is_padding = held < 8 && window == !(u64::MAX.checked_shr(held).unwrap_or(0));
            return if is_padding { Ok((count, has_number_sign)) } else { Err(Unreadable) };
        }
        count += 1;
        has_number_sign |= code == NUMBER_SIGN;
        window <<= bits;
        held -= bits;
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Whether a fragment is found.
    fn found(fields: &mut Fields, block: &[u8]) -> Result<bool, Unreadable> {
        fields.read(block).map(|found| found.has_fragment)
    }

    /// RFC 7541, 6.2.2 and 6.2.1: a literal field with a name of its own.
    fn literal(first: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
        let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("short");
        [&[first, length(name)][..], name, &[length(value)], value].concat()
    }

    /// RFC 7541, Appendix B: 256 symbols and the end of a string leave no bit unused; C.4 and C.6.
    #[test]
    fn huffman_strings_are_measured() {
        assert_eq!((CODES.iter().sum::<u64>(), CODES_END[CODES.len() - 1]), (257, 1 << 32));
        for (text, bytes) in [
            ("www.example.com", &b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"[..]),
            ("custom-value", b"\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf"),
            (
                "Mon, 21 Oct 2013 20:13:21 GMT",
                b"\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff",
            ),
            (":path", PATHS[1]),
            ("/a#7", b"\x60\x7f\xf4\xef"),
            // Codes of 13, 28 and 30 bits: ~, F9 and 16 in hexadecimal.
            ("~??", b"\xff\xef\xff\xff\xff\x7f\xff\xff\xfd"),
        ] {
            assert_eq!(measure_huffman(bytes), Ok((text.len(), text.contains('#'))), "{text}");
        }
        // The end, more padding than needed, and padding of zeros: RFC 7541, 5.2.
        for bytes in [&[0xff; 4][..], &[0x07, 0xff], &[0x00]] {
            assert_eq!(measure_huffman(bytes), Err(Unreadable));
        }
    }

    #[test]
    fn a_fragment_is_found_however_the_field_is_represented() {
        let path = b"/a#7";
        for (name, block) in [
            ("static name", [&[0x04, 4][..], path].concat()),
            ("static name, huffman", b"\x04\x84\x60\x7f\xf4\xef".to_vec()),
            ("indexed", [&[0x44, 4][..], path].concat()),
            ("never indexed", [&[0x15, 4][..], path].concat()),
            ("literal name", literal(0x00, b":path", path)),
            ("literal name, huffman", [&b"\x40\x84\xb9\x58\xd3\x3f\x04"[..], path].concat()),
        ] {
            let mut fields = Fields::default();
            assert_eq!(found(&mut fields, &block), Ok(true), "{name}");
            assert_eq!(found(&mut fields, &[0x82]), Ok(false), "the next request");
        }
        let others =
            [literal(0x40, b"last-event-id", b"#abc"), literal(0x00, b":pathx", b"#"), vec![0x84, 0x85]];
        let others = Fields::default().read(&others.concat());
        assert_eq!(others, Ok(Found { count: 4, has_fragment: false }));
    }

    #[test]
    fn a_field_of_an_earlier_request_is_remembered_until_it_is_evicted() {
        let mut fields = Fields::default();
        let mut found = |block: &[u8]| found(&mut fields, block);
        assert_eq!(found(b"\x44\x02/#"), Ok(true));
        assert_eq!(found(&[0xbe]), Ok(true), "as a whole");
        assert_eq!(found(&[0x0f, 62 - 15, 2, b'/', b'#']), Ok(true), "its name");
        // RFC 7541, 4.1: an entry is 32 bytes larger than its text: 39 + 29 * 138 <= 4,096.
        let large = literal(0x40, b"cookie", &[b'x'; 100]);
        let entries = 29;
        for _ in 0..entries {
            assert_eq!(found(&large), Ok(false));
        }
        let last = 0x80 | (62 + entries);
        assert_eq!(found(&[last]), Ok(true));
        assert_eq!(found(&large), Ok(false));
        assert_eq!(found(&[last]), Err(Unreadable), "it has made room, with the one after it");
        assert_eq!(found(&[0x20]), Ok(false), "an empty table");
        assert_eq!(found(&[0xbe]), Err(Unreadable));
    }

    #[test]
    fn what_breaks_the_rules_is_unreadable() {
        for (name, block) in [
            ("index 0", &[0x80][..]),
            ("no such index", &[0xbe]),
            ("a name that is cut", &[0x00, 3, b'a']),
            ("a value that is missing", &[0x04]),
            ("an integer without end", &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            ("a table larger than allowed", &[0x3f, 0xe2, 0x1f]),
        ] {
            assert_eq!(found(&mut Fields::default(), block), Err(Unreadable), "{name}");
        }
        assert_eq!(found(&mut Fields::default(), &[0x3f, 0xe1, 0x1f]), Ok(false), "4,096 is allowed");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_within_the_size_of_the_table(blocks in vec(vec(any::<u8>(), 0..60), 0..20)) {
            let mut fields = Fields::default();
            for block in blocks {
                let _ = fields.read(&block);
                prop_assert!(fields.size <= fields.size_max);
                prop_assert_eq!(fields.size, fields.entries.iter().map(|entry| entry.size).sum::<usize>());
            }
        }
    }
}
