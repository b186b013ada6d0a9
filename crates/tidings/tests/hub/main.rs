//! What a hub promises, one test for each promise.

mod census;
mod deleting;
mod delivery;
mod endings;
mod gaps;
mod limits;
mod sockets;
mod stage;
