//! The bridge between a real Redis server and real hubs.
//!
//! Needs: redis-server.

mod coming_in;
mod going_out;
mod patterns;
mod stage;
mod taking_turns;
