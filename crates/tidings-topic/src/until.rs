//! Where a finite read ends, and the syntax of `until`.

use std::str::FromStr;

use crate::Since;

/// Where a subscription ends that reads a part of the log and receives nothing live.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Until {
    /// With the newest event at the time of the request.
    Now,
    /// With the event with this id. A generated id is a position: it is valid whether or not its
    /// event still exists.
    Id(String),
}

/// The text is not a valid value of `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "`until` has an invalid value: use `now`, an id that the hub generated, or `id:` followed by any other id"
)]
pub struct ParseUntilError;

/// Parses the `until` parameter: `now`, or an id as [`Since`] parses it.
impl FromStr for Until {
    type Err = ParseUntilError;

    fn from_str(word: &str) -> Result<Self, ParseUntilError> {
        match word.parse() {
            Ok(Since::Now) => Ok(Self::Now),
            Ok(Since::Id(id)) => Ok(Self::Id(id)),
            _ => Err(ParseUntilError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cursor, Epoch, Position};

    #[test]
    fn an_end_is_now_or_an_id() {
        let id = |id: &str| Ok(Until::Id(id.to_owned()));
        let cursor = Cursor { epoch: Epoch::from_u64(7), position: Position::BEFORE_ALL };
        let generated = cursor.to_string();
        for (word, until) in [
            ("now", Ok(Until::Now)),
            ("id:order-42", id("order-42")),
            (&generated, id(&generated)),
            (generated.trim_start_matches('#'), id(&generated)),
        ] {
            assert_eq!(word.parse(), until, "{word}");
        }
        for word in ["", "id:", "earliest", "-50", "10m", "2026-01-31T12:00:00Z", "order-42", "NOW"] {
            assert_eq!(word.parse::<Until>(), Err(ParseUntilError), "{word}");
        }
    }
}
