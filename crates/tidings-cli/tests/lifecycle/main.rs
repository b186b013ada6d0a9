//! A hub that starts, listens, reloads, is replaced, runs full, is stopped or is killed.

mod drain_delay;
mod frozen;
mod full_disk;
mod kills;
mod listeners;
mod no_room;
mod output;
mod patterns;
mod reload;
mod store;
mod storm;
mod upgrade;
