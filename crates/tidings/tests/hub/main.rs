//! The promises of a hub, one test for each.

mod deleting;
mod delivery;
mod endings;
mod gaps;
mod limits;
mod presence;
mod sockets;
mod stage;
