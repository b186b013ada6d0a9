//! Patterns with wildcards, matched byte by byte: used by [`TopicGlob`](crate::TopicGlob) and for
//! the patterns of Redis.

/// A parsed pattern.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Glob {
    text: Box<str>,
    pieces: Box<[Piece]>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Piece {
    Literal(Vec<u8>),
    AnyByte,
    AnyBytes,
    Class { negated: bool, ranges: Vec<(u8, u8)> },
}

impl Glob {
    /// A pattern in which `*` matches any run of bytes, even an empty one, and every other
    /// character matches itself.
    pub fn of_stars(text: &str) -> Self {
        let mut pieces = Vec::new();
        for (index, literal) in text.split('*').enumerate() {
            if index > 0 {
                pieces.push(Piece::AnyBytes);
            }
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal.into()));
            }
        }
        Self { text: text.into(), pieces: pieces.into() }
    }

    /// A pattern of PSUBSCRIBE with the semantics of Redis: `?` matches one byte, `*` any number of
    /// bytes, `[a-c]` one byte of a set, `[^a]` one byte outside a set, and a backslash escapes the
    /// next byte.
    pub fn of_redis(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            let byte = match (first, after) {
                (b'*', _) => {
                    pieces.push(Piece::AnyBytes);
                    continue;
                }
                (b'?', _) => {
                    pieces.push(Piece::AnyByte);
                    continue;
                }
                (b'[', _) => {
                    pieces.push(class(&mut rest));
                    continue;
                }
                (b'\\', [escaped, after @ ..]) => {
                    rest = after;
                    *escaped
                }
                (byte, _) => byte,
            };
            match pieces.last_mut() {
                Some(Piece::Literal(literal)) => literal.push(byte),
                _ => pieces.push(Piece::Literal(vec![byte])),
            }
        }
        Self { text: text.into(), pieces: pieces.into() }
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the pattern matches this name. Names are never empty.
    ///
    /// When a piece does not match, only the last `*` is extended by one byte. Backtracking to an
    /// earlier `*` is unnecessary, because the last one can match the same bytes.
    pub fn matches(&self, name: &str) -> bool {
        let mut name = name.as_bytes();
        let mut pieces = &self.pieces[..];
        let mut star: Option<(&[Piece], &[u8])> = None;
        while !name.is_empty() {
            if let [Piece::AnyBytes, after @ ..] = pieces {
                pieces = after;
                star = Some((after, name));
                continue;
            }
            let fitting =
                pieces.split_first().and_then(|(piece, after)| Some((after, piece.taken_from(name)?)));
            (pieces, name) = match (fitting, &mut star) {
                (Some(next), _) => next,
                (None, Some((after, from))) => {
                    *from = &from[1..];
                    (*after, *from)
                }
                (None, None) => return false,
            };
        }
        pieces.iter().all(|piece| *piece == Piece::AnyBytes)
    }
}

impl Piece {
    /// The rest of the name after this piece has matched its beginning.
    fn taken_from<'n>(&self, name: &'n [u8]) -> Option<&'n [u8]> {
        let (first, rest) = name.split_first()?;
        match self {
            Self::Literal(literal) => name.strip_prefix(&literal[..]),
            Self::AnyByte => Some(rest),
            Self::AnyBytes => None,
            Self::Class { negated, ranges } => {
                let is_in = ranges.iter().any(|(low, high)| (*low..=*high).contains(first));
                (is_in != *negated).then_some(rest)
            }
        }
    }
}

/// Parses a bracket class. An unclosed class extends to the end of the pattern, and `]` may be the
/// end of a range.
fn class(rest: &mut &[u8]) -> Piece {
    let negated = rest.first() == Some(&b'^');
    if negated {
        *rest = &rest[1..];
    }
    let mut ranges = Vec::new();
    loop {
        *rest = match rest {
            [] => break,
            [b'\\', escaped, after @ ..] => {
                ranges.push((*escaped, *escaped));
                after
            }
            [b']', after @ ..] => {
                *rest = after;
                break;
            }
            [from, b'-', to, after @ ..] => {
                ranges.push(((*from).min(*to), (*from).max(*to)));
                after
            }
            [byte, after @ ..] => {
                ranges.push((*byte, *byte));
                after
            }
        };
    }
    Piece::Class { negated, ranges }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_pattern_matches_as_documented() {
        for (pattern, meant, not_meant) in [
            ("room-*", &["room-1", "room-"][..], &["room", "aroom-1"][..]),
            ("h?llo", &["hello", "hxllo"], &["hllo", "heello"]),
            ("h[ae]llo", &["hello", "hallo"], &["hillo"]),
            ("h[^e]llo", &["hallo", "hbllo"], &["hello"]),
            ("h[a-b]llo", &["hallo", "hbllo"], &["hcllo"]),
            ("\\*", &["*"], &["a", "\\*"]),
            ("*a*b", &["ab", "xaxbxb"], &["ba", "abx"]),
            ("a*bc*bd", &["abcbd", "axbcbcbd"], &["abcbcd"]),
            ("[a", &["a"], &["b", "[a"]),
        ] {
            let glob = Glob::of_redis(pattern);
            for name in meant {
                assert!(glob.matches(name), "{pattern} {name}");
            }
            for name in not_meant {
                assert!(!glob.matches(name), "{pattern} {name}");
            }
        }
    }
}
