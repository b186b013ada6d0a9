//! Requests to Redis: what each reply means, above all a missing one.

use std::borrow::Cow;

use redis::{ErrorKind, RedisError, ServerErrorKind, Value};
use tidings_log::{AppendError, Epoch, Unavailable};

use super::{entry::Raw, places::place_of};

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Trouble {
    /// Nothing was done.
    Away(String),
    /// It may have been done.
    Unknown(String),
    /// Redis is full, or the batch is larger than the log.
    Full(String),
}

impl Trouble {
    /// A reply that none of our scripts gives.
    pub(super) fn strange(what: &str) -> Self {
        Self::Unknown(format!("unexpected reply from Redis to {what}"))
    }

    /// The problem in words for people.
    pub(super) fn problem(&self) -> &str {
        let (Self::Away(problem) | Self::Unknown(problem) | Self::Full(problem)) = self;
        problem
    }

    /// For a call that appends.
    pub(super) fn of_append(self) -> AppendError {
        match self {
            Self::Away(problem) => AppendError::Unavailable(problem),
            Self::Unknown(problem) => AppendError::OutcomeUnknown(problem),
            Self::Full(problem) => AppendError::Full(problem),
        }
    }

    /// For a call that does what an earlier one may have done, or the rest of something.
    pub(super) fn of_repetition(self) -> Self {
        match self {
            Self::Away(problem) | Self::Unknown(problem) => Self::Unknown(problem),
            // The key was not there: nothing has been appended by the first call either.
            Self::Full(problem) => Self::Full(problem),
        }
    }
}

impl From<Trouble> for Unavailable {
    fn from(trouble: Trouble) -> Self {
        let (Trouble::Away(problem) | Trouble::Unknown(problem) | Trouble::Full(problem)) = trouble;
        Self(problem)
    }
}

/// What an error means, and whether the connection is unusable.
pub(super) fn judge(error: &RedisError) -> (Trouble, bool) {
    let problem = error.to_string();
    match error.kind() {
        ErrorKind::Server(
            ServerErrorKind::ReadOnly
            | ServerErrorKind::Moved
            | ServerErrorKind::Ask
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::BusyLoading,
        )
        | ErrorKind::AuthenticationFailed
        | ErrorKind::InvalidClientConfig => (Trouble::Away(problem), true),
        // Other errors of the server come before it does anything: our scripts fail at their first
        // command or not at all.
        ErrorKind::Server(_) | ErrorKind::Extension => match error.code() {
            Some("OOM") => (Trouble::Full(problem), false),
            _ => (Trouble::Away(problem), false),
        },
        // The request may have arrived: the connection broke, or no reply arrived in time.
        _ => (Trouble::Unknown(problem), true),
    }
}

/// The reply of a script, read element by element.
#[derive(Debug)]
pub(super) struct Answer(Vec<Value>);

impl Answer {
    pub(super) fn of(value: Value) -> Result<Self, Trouble> {
        match value {
            Value::Array(values) => Ok(Self(values)),
            _ => Err(Trouble::strange("a script")),
        }
    }

    /// Whether one call was not enough.
    pub(super) fn is_again(&self) -> bool {
        matches!(&self.0[..], [Value::BulkString(word)] if word == b"again")
    }

    fn at(&self, index: usize) -> Result<&Value, Trouble> {
        self.0.get(index).ok_or_else(|| Trouble::strange("a script"))
    }

    pub(super) fn bytes(&self, index: usize) -> Result<&[u8], Trouble> {
        match self.at(index)? {
            Value::BulkString(bytes) => Ok(bytes),
            _ => Err(Trouble::strange("a script")),
        }
    }

    pub(super) fn text(&self, index: usize) -> Result<String, Trouble> {
        Ok(String::from_utf8_lossy(self.bytes(index)?).into_owned())
    }

    pub(super) fn number(&self, index: usize) -> Result<u64, Trouble> {
        let number = match self.at(index)? {
            Value::Int(number) => u64::try_from(*number).ok(),
            Value::BulkString(bytes) => std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()),
            _ => None,
        };
        number.ok_or_else(|| Trouble::strange("a script"))
    }

    pub(super) fn place(&self, index: usize) -> Result<u64, Trouble> {
        place_of(self.bytes(index)?).ok_or_else(|| Trouble::strange("a script"))
    }

    pub(super) fn epoch(&self, index: usize) -> Result<Epoch, Trouble> {
        let number = u64::from_str_radix(&self.text(index)?, 16);
        number.map(Epoch::from_u64).map_err(|_| Trouble::strange("a script"))
    }

    pub(super) fn list(&self, index: usize) -> Result<&[Value], Trouble> {
        match self.at(index)? {
            Value::Array(values) => Ok(values),
            _ => Err(Trouble::strange("a script")),
        }
    }

    /// The entries of a stream. Entries that are not ours are skipped.
    pub(super) fn entries(&self, index: usize) -> Result<impl DoubleEndedIterator<Item = Raw<'_>>, Trouble> {
        Ok(self.list(index)?.iter().filter_map(raw))
    }

    /// Pairs of texts and positions, one after the other.
    pub(super) fn pairs(&self, index: usize) -> Result<impl Iterator<Item = (Cow<'_, str>, u64)>, Trouble> {
        let pairs = self.list(index)?.chunks_exact(2);
        Ok(pairs.filter_map(|pair| Some((text(&pair[0])?, place_of(bytes(&pair[1])?)?))))
    }

    /// All elements of the reply, each a list of its own.
    pub(super) fn lists(self) -> impl Iterator<Item = Self> {
        self.0.into_iter().filter_map(|value| Self::of(value).ok())
    }
}

fn raw(value: &Value) -> Option<Raw<'_>> {
    let Value::Array(entry) = value else { return None };
    let [id, Value::Array(fields)] = &entry[..] else { return None };
    let [_, topics, _, meta, _, data] = &fields[..] else { return None };
    Some(Raw { place: place_of(bytes(id)?)?, topics: text(topics)?, meta: text(meta)?, data: text(data)? })
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

fn text(value: &Value) -> Option<Cow<'_, str>> {
    Some(String::from_utf8_lossy(bytes(value)?))
}
