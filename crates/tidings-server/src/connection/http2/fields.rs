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
    name: Name,
    value_bytes: usize,
    has_number_sign: bool,
}

#[derive(Clone, Copy, Debug)]
struct Name {
    bytes: usize,
    is_path: bool,
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
    /// Reads one block. True if it is that of a request whose `:path` has a fragment.
    pub(super) fn read(&mut self, block: &[u8]) -> Result<bool, Unreadable> {
        let mut block = Reader(block);
        let mut has_fragment = false;
        while let Some(first) = block.byte() {
            // RFC 7541, 6: how a field is represented is said by the first bits.
            let entry = match first {
                0b1000_0000.. => self.entry(block.integer(first, 7)?)?,
                0b0100_0000.. => {
                    let entry = self.literal(&mut block, first, 6)?;
                    self.insert(entry);
                    entry
                }
                0b0010_0000.. => {
                    self.resize(block.integer(first, 5)?)?;
                    continue;
                }
                _ => self.literal(&mut block, first, 4)?,
            };
            has_fragment |= entry.name.is_path && entry.has_number_sign;
        }
        Ok(has_fragment)
    }

    /// RFC 7541, 6.2.
    fn literal(&self, block: &mut Reader<'_>, first: u8, prefix_bits: u32) -> Result<Entry, Unreadable> {
        let name = match block.integer(first, prefix_bits)? {
            0 => {
                const PATH: &[u8] = b":path";
                let (mut bytes, mut is_path) = (0, true);
                block.string(|byte| {
                    is_path &= PATH.get(bytes) == Some(&byte);
                    bytes += 1;
                })?;
                Name { bytes, is_path: is_path && bytes == PATH.len() }
            }
            index => self.entry(index)?.name,
        };
        let (mut value_bytes, mut has_number_sign) = (0, false);
        block.string(|byte| {
            has_number_sign |= byte == b'#';
            value_bytes += 1;
        })?;
        Ok(Entry { name, value_bytes, has_number_sign })
    }

    /// RFC 7541, 2.3.3.
    fn entry(&self, index: usize) -> Result<Entry, Unreadable> {
        let in_static = index.checked_sub(1).ok_or(Unreadable)?;
        match STATIC_NAME_BYTES.get(in_static) {
            Some(bytes) => Ok(Entry {
                name: Name { bytes: (*bytes).into(), is_path: STATIC_PATHS.contains(&index) },
                value_bytes: 0,
                has_number_sign: false,
            }),
            None => self.entries.get(in_static - STATIC_NAME_BYTES.len()).copied().ok_or(Unreadable),
        }
    }

    /// RFC 7541, 4.4: a field that is larger than the table empties it.
    fn insert(&mut self, entry: Entry) {
        self.entries.push_front(entry);
        self.size += entry.size();
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
            self.size -= oldest.size();
        }
    }
}

impl Entry {
    fn size(&self) -> usize {
        self.name.bytes + self.value_bytes + ENTRY_BYTES
    }
}

/// What is left of a block.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
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
    fn string(&mut self, mut each: impl FnMut(u8)) -> Result<(), Unreadable> {
        let first = self.byte().ok_or(Unreadable)?;
        let length = self.integer(first, 7)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Unreadable)?;
        self.0 = rest;
        if first & 0x80 != 0 {
            return huffman(bytes, each);
        }
        for byte in bytes {
            each(*byte);
        }
        Ok(())
    }
}

/// RFC 7541, Appendix B. The code is canonical: codes of a length follow each other in the order of
/// what they stand for, and those of the next length follow the last of them. So it is reported by
/// what each length stands for.
const SYMBOLS: [(u32, &[u8]); 20] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\0$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
    (19, b"\\\xc3\xd0"),
    (20, b"\x80\x82\x83\xa2\xb8\xc2\xe0\xe2"),
    (21, b"\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6"),
    (22, b"\x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\xc4\xc6\xe4\xe8\xe9"),
    (23, b"\x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b\x9d\x9e\xa5\xa6\xa8\xae\xaf\xb4\xb6\xb7\xbc\xbf\xc5\xe7\xef"),
    (24, b"\x09\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed"),
    (25, b"\xc7\xcf\xea\xeb"),
    (26, b"\xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff"),
    (27, b"\xcb\xcc\xd3\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe"),
    (28, b"\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f\xdc\xf9"),
];

/// All codes of one length.
#[derive(Clone, Copy)]
struct Codes {
    bits: u32,
    /// The first of them, at the upper end of 32 bits.
    first: u32,
    symbols: &'static [u8],
}

/// Those of 30 bits stand for control characters and the end of a string, which is never sent.
const CODES: [Codes; SYMBOLS.len() + 1] = {
    let mut codes = [Codes { bits: 30, first: 0, symbols: b"\n\r\x16" }; SYMBOLS.len() + 1];
    let mut nth = 0;
    let mut first = 0;
    while nth < codes.len() {
        if nth < SYMBOLS.len() {
            (codes[nth].bits, codes[nth].symbols) = SYMBOLS[nth];
        }
        codes[nth].first = first;
        #[expect(clippy::cast_possible_truncation, reason = "there are 256 symbols")]
        {
            first += (codes[nth].symbols.len() as u32) << (32 - codes[nth].bits);
        }
        nth += 1;
    }
    codes
};

/// Decodes a string.
fn huffman(bytes: &[u8], mut each: impl FnMut(u8)) -> Result<(), Unreadable> {
    let mut bytes = bytes.iter();
    // The next bits are at the upper end; `held` of them are there.
    let (mut window, mut held) = (0_u64, 0);
    loop {
        while held <= 32
            && let Some(byte) = bytes.next()
        {
            window |= u64::from(*byte) << (56 - held);
            held += 8;
        }
        let next = u32::try_from(window >> 32).expect("32 bits are left");
        // The lengths are in the order of their codes, so that a code which is not below those of a
        // length is above them.
        let found = CODES.iter().find_map(|codes| {
            let nth = (next - codes.first) >> (32 - codes.bits);
            codes.symbols.get(usize::try_from(nth).ok()?).map(|symbol| (*symbol, codes.bits))
        });
        match found {
            Some((symbol, bits)) if bits <= held => {
                each(symbol);
                window <<= bits;
                held -= bits;
            }
            // RFC 7541, 5.2: what is left is padding, fewer than 8 bits, all of them set.
            _ => {
                let is_padding = held < 8 && window == !(u64::MAX.checked_shr(held).unwrap_or(0));
                return if is_padding { Ok(()) } else { Err(Unreadable) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// RFC 7541, 6.2.2 and 6.2.1: a literal field with a name of its own.
    fn literal(first: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
        let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("short");
        [&[first, length(name)][..], name, &[length(value)], value].concat()
    }

    fn decoded(bytes: &[u8]) -> Result<Vec<u8>, Unreadable> {
        let mut decoded = Vec::new();
        huffman(bytes, |byte| decoded.push(byte)).map(|()| decoded)
    }

    fn encoded(text: &[u8]) -> Vec<u8> {
        let (mut bytes, mut window, mut held) = (Vec::new(), 0_u64, 0);
        for byte in text {
            let find = |codes: &Codes| {
                let nth = codes.symbols.iter().position(|symbol| symbol == byte)?;
                Some((codes.bits, (codes.first >> (32 - codes.bits)) + u32::try_from(nth).expect("few")))
            };
            let (bits, code) = CODES.iter().find_map(find).expect("every byte has a code");
            window = window << bits | u64::from(code);
            held += bits;
            while held >= 8 {
                held -= 8;
                bytes.push(u8::try_from(window >> held & 0xff).expect("8 bits"));
            }
        }
        if held > 0 {
            let padded = window << (8 - held) | u64::from(0xff_u8 >> held);
            bytes.push(u8::try_from(padded & 0xff).expect("8 bits"));
        }
        bytes
    }

    /// RFC 7541, Appendix C.4 and C.6.
    #[test]
    fn huffman_strings_of_the_specification_are_decoded() {
        for (text, bytes) in [
            (
                "www.example.com",
                &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff][..],
            ),
            ("no-cache", &[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]),
            ("custom-value", &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf]),
            ("302", &[0x64, 0x02]),
            (
                "Mon, 21 Oct 2013 20:13:21 GMT",
                &[
                    0xd0, 0x7a, 0xbe, 0x94, 0x10, 0x54, 0xd4, 0x44, 0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b, 0x81,
                    0x66, 0xe0, 0x82, 0xa6, 0x2d, 0x1b, 0xff,
                ],
            ),
        ] {
            assert_eq!(decoded(bytes), Ok(text.as_bytes().to_vec()));
        }
    }

    /// RFC 7541, Appendix B: 256 symbols and the end of a string leave no bit unused. And 5.2: that
    /// end is never sent.
    #[test]
    fn the_code_is_complete_and_padding_is_short() {
        let used: u64 = CODES.iter().map(|codes| (codes.symbols.len() as u64) << (32 - codes.bits)).sum();
        assert_eq!(used + (1 << 2), 1 << 32);
        assert_eq!(CODES.iter().map(|codes| codes.symbols.len()).sum::<usize>(), 256);
        assert_eq!(decoded(&[0xff; 4]), Err(Unreadable), "the end");
        assert_eq!(decoded(&[0x07, 0xff]), Err(Unreadable), "more padding than needed");
        assert_eq!(decoded(&[0x00]), Err(Unreadable), "padding of zeros");
    }

    #[test]
    fn a_fragment_is_found_however_the_field_is_represented() {
        let huffman = |text: &[u8]| {
            let bytes = encoded(text);
            [&[0x80 | u8::try_from(bytes.len()).expect("short")][..], &bytes].concat()
        };
        for (name, block) in [
            ("static name", [&[0x04, 4][..], b"/a#7"].concat()),
            ("static name, huffman", [&[0x04][..], &huffman(b"/a#7")].concat()),
            ("indexed", [&[0x44, 4][..], b"/a#7"].concat()),
            ("never indexed", [&[0x15, 4][..], b"/a#7"].concat()),
            ("literal name", literal(0x00, b":path", b"/a#7")),
            ("literal name, huffman", [&[0x40][..], &huffman(b":path"), &huffman(b"/a#7")].concat()),
        ] {
            let mut fields = Fields::default();
            assert_eq!(fields.read(&block), Ok(true), "{name}");
            assert_eq!(fields.read(&[0x82]), Ok(false), "the next request");
        }
        let mut fields = Fields::default();
        let other =
            [literal(0x40, b"last-event-id", b"#abc"), literal(0x40, b":pathx", b"#"), vec![0x84, 0x85]];
        assert_eq!(fields.read(&other.concat()), Ok(false));
    }

    #[test]
    fn a_field_of_an_earlier_request_is_remembered_until_it_is_evicted() {
        let mut fields = Fields::default();
        let bad = [&[0x44, 2][..], b"/#"].concat();
        assert_eq!(fields.read(&bad), Ok(true));
        assert_eq!(fields.read(&[0xbe]), Ok(true), "as a whole");
        assert_eq!(fields.read(&[0x0f, 62 - 15, 2, b'/', b'#']), Ok(true), "its name");
        // RFC 7541, 4.1: 39 bytes are left after it, and an entry is 32 larger than its text.
        let large = vec![b'x'; 100];
        for _ in 0..(4096 - 39) / 138 {
            assert_eq!(fields.read(&literal(0x40, b"cookie", &large)), Ok(false));
        }
        let last = u8::try_from(62 + fields.entries.len() - 1).expect("a small index");
        assert_eq!(fields.read(&[0x80 | last]), Ok(true));
        assert_eq!(fields.read(&literal(0x40, b"cookie", &large)), Ok(false));
        assert_eq!(fields.read(&[0x80 | last]), Err(Unreadable), "it has made room, with the one after it");
        assert_eq!(fields.read(&[0x20]), Ok(false), "an empty table");
        assert_eq!(fields.read(&[0xbe]), Err(Unreadable));
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
            assert_eq!(Fields::default().read(block), Err(Unreadable), "{name}");
        }
        assert_eq!(Fields::default().read(&[0x3f, 0xe1, 0x1f]), Ok(false), "4,096 is allowed");
    }

    proptest! {
        #[test]
        fn huffman_coding_loses_nothing(text in vec(any::<u8>(), 0..50)) {
            prop_assert_eq!(decoded(&encoded(&text)), Ok(text));
        }

        #[test]
        fn any_bytes_are_read_within_the_size_of_the_table(blocks in vec(vec(any::<u8>(), 0..60), 0..20)) {
            let mut fields = Fields::default();
            for block in blocks {
                let _ = fields.read(&block);
                prop_assert!(fields.size <= fields.size_max);
                prop_assert_eq!(fields.size, fields.entries.iter().map(Entry::size).sum::<usize>());
            }
        }
    }
}
