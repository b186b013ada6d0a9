//! The primitives under [`inbox`](crate::inbox) and [`lag`](crate::lag), imported in one place:
//! `tests/wakeups.rs` compiles both modules with those of loom instead, and runs every interleaving
//! of the threads that use them. That is also why their unit tests are in files of their own.

pub(crate) use std::sync::{Mutex, MutexGuard, RwLock, atomic};

pub(crate) use futures_util::task::AtomicWaker;
pub(crate) use tokio::sync::Notify;
