//! The primitives of the modules in which several threads meet ([`feed`](crate::feed),
//! [`inbox`](crate::shard::inbox), [`lag`](crate::shard::lag)), imported in one place:
//! `tests/wakeups.rs` compiles these modules with those of loom instead, and runs every interleaving
//! of the threads that use them.

pub(crate) use std::sync::{Mutex, MutexGuard, RwLock, atomic};

pub(crate) use futures_util::task::AtomicWaker;
pub(crate) use tokio::sync::Notify;
