//! `tidings run`: the hub and an application as one process.

#![cfg(target_os = "linux")]

mod application;
mod process;
mod restarts;
