//! What a hub promises, one test for each promise.

mod deleting;
mod delivery;
mod endings;
mod gaps;
mod limits;
mod presence;
mod sockets;
mod stage;
