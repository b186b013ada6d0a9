//! Where a new subscription starts, and the syntax of `since`.

use std::{
    str::FromStr,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;

use crate::Cursor;

/// Where a subscription starts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Since {
    /// With events that are published from now on.
    #[default]
    Now,
    /// With the oldest event in the log.
    Earliest,
    /// With this many of the newest events that the subscription may receive.
    Last(usize),
    /// With events that were published at most this long ago. Events that retention has already
    /// dropped are not reported as a gap, because the subscriber asked for a time and not for a
    /// continuation.
    Ago(Duration),
    /// With events that were published at this time or later. Otherwise like [`Ago`](Self::Ago).
    At(SystemTime),
    /// After the event with this id. Unlike with the other variants, missing events since then are
    /// reported as a gap.
    Id(String),
}

/// The text is not a valid value of `since`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "`since` has an invalid value: use `now`, `earliest`, `-50` (the last 50), `10m` or `1h30m` (that long ago), a time such as \
     `2026-01-31T12:00:00Z`, an id that the hub generated, or `id:` followed by any other id"
)]
pub struct ParseSinceError;

impl Since {
    /// Most events that `-N` can request; larger numbers are reduced to this one.
    pub const LAST_MAX: usize = 10_000;

    /// Longest time to look back, about a hundred years. Longer times are reduced to this one, so
    /// that no clock overflows.
    pub const AGO_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

    /// The cursor as a client sends it in `Last-Event-ID`: an id, or `earliest` (the Mercure
    /// protocol, "Reconciliation").
    ///
    /// ```
    /// use tidings_topic::Since;
    ///
    /// assert_eq!(Since::from_last_event_id("order-1"), Since::Id("order-1".to_owned()));
    /// assert_eq!(Since::from_last_event_id("earliest"), Since::Earliest);
    /// ```
    pub fn from_last_event_id(id: &str) -> Self {
        if id == "earliest" { Self::Earliest } else { Self::Id(id.to_owned()) }
    }
}

/// Parses the `since` parameter: `now`, `earliest`, `-50`, `10m` or `1h30m` (units `w`, `d`, `h`,
/// `m` and `s`), an RFC 3339 time, a generated id, or `id:` followed by any id. A generated id may
/// lack its `#`, which gets lost when it is pasted into a URL. No other text is taken for an id: a
/// mistyped keyword would be an unknown id, and replay the complete history.
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

/// Parses numbers with units: larger units first, each at most once.
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

/// Whether the text looks like `1.5h`, which could also be a generated id without its `#`. No log
/// generates such an id, because epochs are random 64-bit numbers.
fn is_decimal_duration(word: &str) -> bool {
    let number = word.strip_suffix(['w', 'd', 'h', 'm', 's']);
    number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
}

/// Parses a number in plain digits; one that overflows becomes the largest number.
fn parse_number(digits: &str) -> Option<u64> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().unwrap_or(u64::MAX))
}
