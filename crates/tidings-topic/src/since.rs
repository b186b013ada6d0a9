//! Where a new subscription starts, and the words that say so.

use std::{
    str::FromStr,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;

use crate::Cursor;

/// Where a subscription starts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Since {
    /// With what is published from now on.
    #[default]
    Now,
    /// With the oldest event that is kept.
    Earliest,
    /// With the newest events that the subscription may receive, this many of them.
    Last(usize),
    /// With what was published this long ago or less. What retention has already dropped of it is not reported as a gap:
    /// nothing that was seen before is missing.
    Ago(Duration),
    /// With what was published at this time or later. Otherwise as [`Ago`](Self::Ago).
    At(SystemTime),
    /// After the event with this id. Unlike the others it promises that nothing in between is missing: otherwise a gap is
    /// reported.
    Id(String),
}

/// The text is none of the words of `since`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "`since` is none of its words: give `now`, `earliest`, `-50` (the last 50), `10m` or `1h30m` (that long ago), a time as \
     `2026-01-31T12:00:00Z`, an id that the hub generated, or `id:` and any other id"
)]
pub struct ParseSinceError;

impl Since {
    /// Most events that `-N` may ask for; more are answered with this many.
    pub const LAST_MAX: usize = 10_000;

    /// Longest time that one may look back, about a hundred years; more is answered with this, so that no clock overflows.
    pub const AGO_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

    /// The cursor as a client sends it in `Last-Event-ID`: an id, or `earliest` (the Mercure protocol, "Reconciliation").
    pub fn from_last_event_id(id: &str) -> Self {
        if id == "earliest" { Self::Earliest } else { Self::Id(id.to_owned()) }
    }
}

/// Reads the words of the `since` parameter: `now`, `earliest`, `-50`, `10m` or `1h30m` (units `w`, `d`, `h`, `m` and `s`), a time
/// of RFC 3339, a generated id, or `id:` and any id. A generated id may have lost its `#`, as happens when it was pasted into
/// a URL. No other text is taken for an id: a mistyped word would be one that no log knows, and bring the whole history.
impl FromStr for Since {
    type Err = ParseSinceError;

    fn from_str(word: &str) -> Result<Self, ParseSinceError> {
        match word {
            "now" => return Ok(Self::Now),
            "earliest" => return Ok(Self::Earliest),
            _ => {}
        }
        if let Some(id) = word.strip_prefix("id:") {
            return if id.is_empty() { Err(ParseSinceError) } else { Ok(Self::Id(id.to_owned())) };
        }
        if word.starts_with('#') {
            return Ok(Self::Id(word.to_owned()));
        }
        if let Some(count) = word.strip_prefix('-').and_then(parse_number) {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            return Ok(Self::Last(count.min(Self::LAST_MAX)));
        }
        if let Some(ago) = parse_duration(word) {
            return Ok(Self::Ago(ago));
        }
        if Cursor::parse(word).is_ok() && !is_decimal_duration(word) {
            return Ok(Self::Id(format!("#{word}")));
        }
        word.parse::<Timestamp>().map(|time| Self::At(time.into())).map_err(|_| ParseSinceError)
    }
}

/// Numbers with their units, the larger unit first and each at most once.
fn parse_duration(word: &str) -> Option<Duration> {
    const DAY_SECS: u64 = 24 * 60 * 60;
    const UNITS: [(u8, u64); 5] =
        [(b'w', 7 * DAY_SECS), (b'd', DAY_SECS), (b'h', 60 * 60), (b'm', 60), (b's', 1)];
    let mut units = UNITS.iter();
    let mut rest = word;
    let mut seconds = 0_u64;
    while !rest.is_empty() {
        let unit_at = rest.bytes().position(|byte| !byte.is_ascii_digit())?;
        let (_, seconds_per_unit) = units.find(|(unit, _)| *unit == rest.as_bytes()[unit_at])?;
        let number = parse_number(&rest[..unit_at])?;
        seconds = seconds.saturating_add(number.saturating_mul(*seconds_per_unit));
        rest = &rest[unit_at + 1..];
    }
    (!word.is_empty()).then(|| Duration::from_secs(seconds).min(Since::AGO_MAX))
}

/// Whether a word is `1.5h`, which could be a generated id without its `#`: but not one that a log makes, since epochs are random
/// numbers of 64 bits.
fn is_decimal_duration(word: &str) -> bool {
    let number = word.strip_suffix(['w', 'd', 'h', 'm', 's']);
    number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
}

/// A number in plain digits; one too large to hold is the largest.
fn parse_number(digits: &str) -> Option<u64> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().unwrap_or(u64::MAX))
}
