//! What an event is called and who may receive it.
//!
//! This crate holds the words that every other crate of Tidings speaks: [`Topic`], [`Matcher`], [`Grants`], [`EventId`],
//! [`Position`], [`Epoch`], [`Cursor`], [`Since`], [`Event`], and the one [`Validator`] that guards every entry point.
//! It does no I/O and reads no clock.
//!
//! Invariant: an [`Event`], a [`Topic`] or an [`EventId`] that exists is valid. Raw input is a [`NewEvent`] or a string; only the
//! [`Validator`] turns one into the other, so that a line feed in an id or a forged topic is refused once, for HTTP, Redis,
//! NATS and library users alike. What a log reads back is a [`StoredEvent`], which is held to the same characters.

mod brackets;
mod cursor;
mod event;
mod glob;
mod grants;
mod matcher;
mod pattern;
mod pattern_cache;
mod pattern_index;
mod position;
mod private;
mod since;
mod stored;
mod topic_urls;
mod validate;

pub use cursor::{Cursor, ParseCursorError};
pub use event::{ConnectionId, Event, EventId, EventType, NewEvent, Topic};
pub use glob::{Glob, ParseTopicGlobError, TopicGlob};
pub use grants::{Filter, Grants};
pub use matcher::Matcher;
pub use pattern::UrlPattern;
pub use pattern_index::{PatternIndex, PatternLimits, PatternsFull};
pub use position::{Epoch, Position};
pub use private::PrivateTopics;
pub use since::{ParseSinceError, Since};
pub use stored::StoredEvent;
pub use topic_urls::TopicUrls;
pub use validate::{Invalid, Validator};
