//! The commands of the binary, as run from a terminal.

mod cli;
mod hub;
mod publish_lines;
mod setting_up;
mod store_tools;
