//! Where a new subscription starts, and the words that say so.

use std::{str::FromStr, time::Duration};

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
    /// With what was published this long ago or less. What retention has already dropped of it is not told as a gap: nothing that was
    /// seen before is missing.
    Ago(Duration),
    /// After the event with this id. Unlike the others it promises that nothing in between is missing: otherwise a gap is told.
    Id(String),
}

/// A word that says nothing: not an id, and not one of the others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`since` is empty: give an event id, `now`, `earliest`, a count as `-50` or a time as `10m`")]
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

/// Reads the words of the `since` parameter: `now`, `earliest`, `-50`, `10m` (also `s`, `h`, `d`), `id:…`, or an id. A generated id may
/// have lost its `#`, as happens when it was pasted into a URL.
impl FromStr for Since {
    type Err = ParseSinceError;

    fn from_str(word: &str) -> Result<Self, ParseSinceError> {
        match word {
            "" => return Err(ParseSinceError),
            "now" => return Ok(Self::Now),
            "earliest" => return Ok(Self::Earliest),
            _ => {}
        }
        if let Some(id) = word.strip_prefix("id:") {
            return if id.is_empty() { Err(ParseSinceError) } else { Ok(Self::Id(id.to_owned())) };
        }
        if let Some(count) = word.strip_prefix('-').and_then(parse_number) {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            return Ok(Self::Last(count.min(Self::LAST_MAX)));
        }
        if let Some(ago) = parse_duration(word) {
            return Ok(Self::Ago(ago));
        }
        let lost_its_hash = !word.starts_with('#') && Cursor::parse(word).is_ok();
        Ok(Self::Id(if lost_its_hash { format!("#{word}") } else { word.to_owned() }))
    }
}

fn parse_duration(word: &str) -> Option<Duration> {
    let unit = word.chars().last()?;
    let seconds_per_unit = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return None,
    };
    let number = parse_number(&word[..word.len() - unit.len_utf8()])?;
    Some(Duration::from_secs(number.saturating_mul(seconds_per_unit)).min(Since::AGO_MAX))
}

/// A number in plain digits; one too large to hold is the largest.
fn parse_number(digits: &str) -> Option<u64> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().unwrap_or(u64::MAX))
}
