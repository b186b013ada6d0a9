//! The promises of a hub, one test for each.

mod agree;
mod deleting;
mod delivery;
mod edits;
mod endings;
mod ephemeral;
mod finite;
mod gaps;
mod limits;
mod sockets;
mod stage;
mod starts;
mod unreliable_cluster;
