//! The promises of the chat: those of the 2012 answer line by line, and those that it left open.

mod entry_points;
mod kit;
mod messages;
mod people;
mod process;
mod streams;
