//! Topics, matchers, grants, events and their validation.
//!
//! This crate defines the types that every other crate of Tidings uses: [`Topic`], [`Matcher`],
//! [`Grants`], [`EventId`], [`Position`], [`Epoch`], [`Cursor`], [`Since`], [`Event`], and the one
//! [`Validator`] that checks all input. It does no I/O and reads no clock.
//!
//! Invariant: an [`Event`], a [`Topic`] or an [`EventId`] that exists is valid. Raw input is a
//! [`NewEvent`] or a string, and only the [`Validator`] turns it into these types. A line feed in
//! an id or a forged topic is therefore refused in one place, for HTTP, Redis, NATS and library
//! users alike. A log restores events from a [`StoredEvent`], which must obey the same character
//! rules.

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
mod until;
mod validate;

pub use cursor::{Cursor, ParseCursorError};
pub use event::{ConnectionId, Event, EventId, EventType, NewEvent, Topic};
pub use glob::{Glob, ParseTopicGlobError, TopicGlob};
pub use grants::{Filter, Grants};
pub use matcher::{MATCHER_SYNTAXES, Matcher, matcher_syntax, matcher_type};
pub use pattern::{Pattern, PatternSyntax};
pub use pattern_index::{PatternIndex, PatternLimits, PatternsFull};
pub use position::{Epoch, Position};
pub use private::PrivateTopics;
pub use since::{ParseSinceError, Since};
pub use stored::StoredEvent;
pub use topic_urls::TopicUrls;
pub use until::{ParseUntilError, Until};
pub use validate::{Invalid, Validator};
