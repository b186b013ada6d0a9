//! The replies of scripts.

use std::borrow::Cow;

use redis::{Value, from_redis_value_ref};
use tidings_log::Epoch;

use super::{entry::Raw, places::place_of};
use crate::trouble::Trouble;

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

    /// The element at this index, as `read` takes it.
    fn read<'a, T>(&'a self, index: usize, read: impl Fn(&'a Value) -> Option<T>) -> Result<T, Trouble> {
        self.0.get(index).and_then(read).ok_or_else(|| Trouble::strange("a script"))
    }

    pub(super) fn bytes(&self, index: usize) -> Result<&[u8], Trouble> {
        self.read(index, bytes)
    }

    pub(super) fn text(&self, index: usize) -> Result<String, Trouble> {
        Ok(self.read(index, text)?.into_owned())
    }

    pub(super) fn number(&self, index: usize) -> Result<u64, Trouble> {
        self.read(index, |value| from_redis_value_ref(value).ok())
    }

    pub(super) fn place(&self, index: usize) -> Result<u64, Trouble> {
        self.read(index, |value| place_of(bytes(value)?))
    }

    pub(super) fn epoch(&self, index: usize) -> Result<Epoch, Trouble> {
        self.read(index, |value| u64::from_str_radix(&text(value)?, 16).ok()).map(Epoch::from_u64)
    }

    pub(super) fn list(&self, index: usize) -> Result<&[Value], Trouble> {
        self.read(index, Value::as_sequence)
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
