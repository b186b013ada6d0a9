//! The patterns of PSUBSCRIBE, read as Redis reads them.
//!
//! The bridge has to know itself what a pattern means: a message that two subscriptions match comes twice, and what goes out is chosen by the same
//! patterns as what comes in. `?` is one byte, `*` any number of them, `[a-c]` one of several, `[^a]` one that is none of them, and a
//! backslash takes the meaning from what follows.

/// A pattern, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Glob {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    Byte(u8),
    AnyByte,
    AnyBytes,
    Class { negated: bool, ranges: Vec<(u8, u8)> },
}

impl Glob {
    pub(super) fn new(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            pieces.push(match (first, after) {
                (b'*', _) => Piece::AnyBytes,
                (b'?', _) => Piece::AnyByte,
                (b'[', _) => class(&mut rest),
                (b'\\', [escaped, after @ ..]) => {
                    rest = after;
                    Piece::Byte(*escaped)
                }
                (byte, _) => Piece::Byte(byte),
            });
        }
        Self { text: text.to_owned(), pieces }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether this is the name of a channel that the pattern means. No name is empty.
    ///
    /// When a piece does not fit, the last `*` takes one byte more: an earlier one never has to, since the last can take whatever it would.
    pub(super) fn matches(&self, name: &str) -> bool {
        let name = name.as_bytes();
        let (mut piece, mut byte) = (0, 0);
        let mut star = None;
        while byte < name.len() {
            match self.pieces.get(piece) {
                Some(Piece::AnyBytes) => {
                    star = Some((piece, byte));
                    piece += 1;
                }
                Some(one) if one.takes(name[byte]) => {
                    piece += 1;
                    byte += 1;
                }
                _ => {
                    let Some((at, taken)) = star else { return false };
                    star = Some((at, taken + 1));
                    (piece, byte) = (at + 1, taken + 1);
                }
            }
        }
        self.pieces[piece..].iter().all(|rest| *rest == Piece::AnyBytes)
    }
}

impl Piece {
    fn takes(&self, byte: u8) -> bool {
        match self {
            Self::Byte(wanted) => byte == *wanted,
            Self::AnyByte => true,
            Self::AnyBytes => false,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&byte)) != *negated
            }
        }
    }
}

/// What stands between brackets. One that nobody closes reaches to the end of the pattern, and `]` may be the end of a range.
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
    use proptest::strategy::{Strategy, ValueTree};

    use super::*;

    #[test]
    fn a_pattern_means_what_the_documentation_of_redis_says() {
        for (pattern, meant, not_meant) in [
            ("room-*", &["room-1", "room-"][..], &["room", "aroom-1"][..]),
            ("h?llo", &["hello", "hxllo"], &["hllo", "heello"]),
            ("h[ae]llo", &["hello", "hallo"], &["hillo"]),
            ("h[^e]llo", &["hallo", "hbllo"], &["hello"]),
            ("h[a-b]llo", &["hallo", "hbllo"], &["hcllo"]),
            ("\\*", &["*"], &["a", "\\*"]),
            ("*a*b", &["ab", "xaxbxb"], &["ba", "abx"]),
            ("[a", &["a"], &["b", "[a"]),
        ] {
            let glob = Glob::new(pattern);
            for name in meant {
                assert!(glob.matches(name), "{pattern} {name}");
            }
            for name in not_meant {
                assert!(!glob.matches(name), "{pattern} {name}");
            }
        }
    }

    #[tokio::test]
    async fn a_real_server_reads_every_pattern_in_the_same_way() {
        let server = tidings_testkit::RedisServer::start().await.unwrap();
        let names = ["a", "b", "ab", "ba", "a-b", "]", "^", "\\", "a]", "-", "[a]", "aab", "*", "?b"];
        let mut set = vec!["MSET"];
        set.extend(names.iter().flat_map(|name| [*name, "1"]));
        server.command(&set).await.unwrap();
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        for _ in 0..200 {
            let tree = "[ab*?\\[\\]\\\\^-]{1,6}".new_tree(&mut runner).unwrap();
            let pattern = tree.current();
            let mut theirs: Vec<_> =
                server.command(&["KEYS", &pattern]).await.unwrap().lines().map(str::to_owned).collect();
            theirs.retain(|line| !line.is_empty());
            theirs.sort();
            let glob = Glob::new(&pattern);
            let mut ours: Vec<_> =
                names.iter().filter(|name| glob.matches(name)).map(|name| (*name).to_owned()).collect();
            ours.sort();
            assert_eq!(ours, theirs, "{pattern}");
        }
    }
}
