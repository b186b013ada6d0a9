//! The one encoding of what logs store: numbers are little-endian, a text stands behind its length,
//! a list behind its count, and a struct is its fields in order ([`stored!`](crate::stored!)).

use std::sync::Arc;

use tidings_topic::{ConnectionId, Cursor, Epoch, EventId, StoredEvent, Topic};

use crate::{IdempotencyKey, Timestamp, draft::Audience};

/// A value that is stored.
pub trait Stored: Sized {
    /// Appends the value.
    fn store(&self, bytes: &mut Vec<u8>);
    /// Takes the value from the front. `None` if it is not there.
    fn read(fields: &mut Fields<'_>) -> Option<Self>;
}

/// Reads fields from the front of some bytes, within their bounds.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// The next value.
    pub fn read<T: Stored>(&mut self) -> Option<T> {
        T::read(self)
    }

    /// The next value, if it is also the last one.
    pub fn read_last<T: Stored>(mut self) -> Option<T> {
        self.read().filter(|_| self.0.is_empty())
    }

    /// So many bytes.
    pub fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// An event, and the idempotency key of the batch that begins with it.
    pub fn event(&mut self) -> Option<(StoredEvent<'a>, Option<&'a str>)> {
        let (flags, topics_count): (u8, u16) = self.read()?;
        let topics = (0..topics_count).map(|_| self.text()).collect::<Option<_>>()?;
        let data = self.text()?;
        let mut text = |flag| if flags & flag == 0 { Some(None) } else { self.text().map(Some) };
        let (id, event_type, key) = (text(ID)?, text(EVENT_TYPE)?, text(KEY)?);
        let retry_millis = if flags & RETRY == 0 { None } else { Some(self.read()?) };
        let except = if flags & EXCEPT == 0 { None } else { Some(ConnectionId::from_random(self.read()?)) };
        let private = flags & PRIVATE != 0;
        Some((StoredEvent { topics, data, id, event_type, retry_millis, private, except }, key))
    }

    /// A text behind its length.
    pub fn text(&mut self) -> Option<&'a str> {
        let length: u32 = self.read()?;
        std::str::from_utf8(self.bytes(length.try_into().ok()?)?).ok()
    }
}

/// Appends a text behind its length.
pub fn push_text(bytes: &mut Vec<u8>, text: &str) {
    count(text.as_bytes()).store(bytes);
    bytes.extend(text.as_bytes());
}

/// Appends a list behind its count.
pub fn push_list<T: Stored>(bytes: &mut Vec<u8>, list: &[T]) {
    count(list).store(bytes);
    push_items(bytes, list);
}

/// Appends a list whose count is stated elsewhere.
pub fn push_items<T: Stored>(bytes: &mut Vec<u8>, list: &[T]) {
    for item in list {
        item.store(bytes);
    }
}

/// The length of a list. Panics if it is 4 Gi or more.
pub fn count<T>(list: &[T]) -> u32 {
    u32::try_from(list.len()).expect("a list has fewer entries than bytes, and those fit")
}

const PRIVATE: u8 = 1;
const ID: u8 = 2;
const EVENT_TYPE: u8 = 4;
const RETRY: u8 = 8;
const EXCEPT: u8 = 16;
const KEY: u8 = 32;

/// Appends an event, and the idempotency key of the batch that begins with it. `None` if it has more
/// topics than 65,535.
///
/// ```text
/// flags u8 | topics u16 | each topic | data | what the flags say: id, type, key, retry u64, connection 16 bytes
/// ```
pub fn push_event(bytes: &mut Vec<u8>, event: &StoredEvent<'_>, key: Option<&str>) -> Option<()> {
    let flag = |given: bool, flag: u8| if given { flag } else { 0 };
    let flags = flag(event.private, PRIVATE)
        | flag(event.id.is_some(), ID)
        | flag(event.event_type.is_some(), EVENT_TYPE)
        | flag(event.retry_millis.is_some(), RETRY)
        | flag(event.except.is_some(), EXCEPT)
        | flag(key.is_some(), KEY);
    (flags, u16::try_from(event.topics.len()).ok()?).store(bytes);
    let others = [event.id, event.event_type, key].into_iter().flatten();
    for text in event.topics.iter().copied().chain([event.data]).chain(others) {
        push_text(bytes, text);
    }
    if let Some(millis) = event.retry_millis {
        millis.store(bytes);
    }
    if let Some(connection) = event.except {
        connection.to_bytes().store(bytes);
    }
    Some(())
}

/// A struct is stored as these fields, in this order.
#[macro_export]
macro_rules! stored {
    ($type:ident { $($field:ident),* }) => {
        impl $crate::codec::Stored for $type {
            fn store(&self, bytes: &mut Vec<u8>) {
                $($crate::codec::Stored::store(&self.$field, bytes);)*
            }

            fn read(fields: &mut $crate::codec::Fields<'_>) -> Option<Self> {
                Some(Self { $($field: fields.read()?),* })
            }
        }
    };
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Stored for $number {
            fn store(&self, bytes: &mut Vec<u8>) {
                bytes.extend(self.to_le_bytes());
            }

            fn read(fields: &mut Fields<'_>) -> Option<Self> {
                fields.bytes(size_of::<Self>())?.try_into().ok().map(Self::from_le_bytes)
            }
        }
    )*};
}
numbers!(u8, u16, u32, u64);

/// Types that are stored as another one: how they become it, and how they are made of it.
macro_rules! stored_as {
    ($($type:ty = $as:ty: $to:expr, $from:expr;)*) => {$(
        impl Stored for $type {
            fn store(&self, bytes: &mut Vec<u8>) {
                let to: fn(&Self) -> $as = $to;
                to(self).store(bytes);
            }

            fn read(fields: &mut Fields<'_>) -> Option<Self> {
                fields.read::<$as>().map($from)
            }
        }
    )*};
}
stored_as! {
    bool = u8: |flag| u8::from(*flag), |byte| byte != 0;
    Timestamp = u64: |time| time.to_millis(), Timestamp::from_millis;
    Epoch = u64: |epoch| epoch.to_u64(), Epoch::from_u64;
}

macro_rules! texts {
    ($($type:ty: $from:expr;)*) => {$(
        impl Stored for $type {
            fn store(&self, bytes: &mut Vec<u8>) {
                push_text(bytes, self.as_str());
            }

            fn read(fields: &mut Fields<'_>) -> Option<Self> {
                fields.text().and_then($from)
            }
        }
    )*};
}
texts! {
    String: |text| Some(text.to_owned());
    Topic: Topic::from_stored;
    IdempotencyKey: IdempotencyKey::new;
    EventId: event_id;
}

/// A generated id, or a publisher's own.
fn event_id(text: &str) -> Option<EventId> {
    match Cursor::parse(text) {
        Ok(cursor) if text.starts_with('#') => Some(cursor.to_event_id()),
        _ => EventId::from_stored(text),
    }
}

stored!(Audience { private, topics });

impl<T: Stored> Stored for Vec<T> {
    fn store(&self, bytes: &mut Vec<u8>) {
        push_list(bytes, self);
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let count: u32 = fields.read()?;
        (0..count).map(|_| fields.read()).collect()
    }
}

impl<T: Stored> Stored for Option<T> {
    fn store(&self, bytes: &mut Vec<u8>) {
        self.is_some().store(bytes);
        if let Some(value) = self {
            value.store(bytes);
        }
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        if fields.read()? { fields.read().map(Some) } else { Some(None) }
    }
}

impl<T: Stored> Stored for Arc<T> {
    fn store(&self, bytes: &mut Vec<u8>) {
        T::store(self, bytes);
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        fields.read().map(Self::new)
    }
}

impl<T: Stored, const COUNT: usize> Stored for [T; COUNT] {
    fn store(&self, bytes: &mut Vec<u8>) {
        push_items(bytes, self);
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let items: Vec<T> = (0..COUNT).map(|_| fields.read()).collect::<Option<_>>()?;
        items.try_into().ok()
    }
}

macro_rules! tuples {
    ($(($($item:ident)*))*) => {$(
        #[allow(non_snake_case, reason = "the names of the types are also those of the values")]
        impl<$($item: Stored),*> Stored for ($($item),*) {
            fn store(&self, bytes: &mut Vec<u8>) {
                let ($($item),*) = self;
                $($item.store(bytes);)*
            }

            fn read(fields: &mut Fields<'_>) -> Option<Self> {
                Some(($(fields.read::<$item>()?),*))
            }
        }
    )*};
}
tuples! { (A B) (A B C) }
