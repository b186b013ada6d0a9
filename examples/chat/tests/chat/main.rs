//! The promises of the chat: the old answer line by line, and what it left open.

mod entry_points;
mod kit;
mod messages;
mod people;
mod process;
mod streams;
