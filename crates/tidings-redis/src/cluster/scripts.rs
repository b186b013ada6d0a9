//! The scripts of a cluster.

use std::sync::LazyLock;

use redis::Script;

use crate::script::script;

pub(super) static ACQUIRE: LazyLock<Script> = script!("acquire");
pub(super) static GET: LazyLock<Script> = script!("get");
pub(super) static LIST: LazyLock<Script> = script!("list");
pub(super) static LOOK: LazyLock<Script> = script!("look");
pub(super) static RELEASE: LazyLock<Script> = script!("release");
pub(super) static REMOVE: LazyLock<Script> = script!("remove");
pub(super) static RENEW: LazyLock<Script> = script!("renew");
pub(super) static SEND: LazyLock<Script> = script!("send");
pub(super) static SET: LazyLock<Script> = script!("set");
