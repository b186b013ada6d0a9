//! The scripts of a log, and the keys that they use.

use std::sync::LazyLock;

use redis::Script;

use crate::script::script;

pub(super) static APPEND: LazyLock<Script> = script!("append");
pub(super) static BOUNDS: LazyLock<Script> = script!("bounds");
pub(super) static DELETE: LazyLock<Script> = script!("delete");
pub(super) static FIND: LazyLock<Script> = script!("find");
pub(super) static FOLLOW: LazyLock<Script> = script!("follow");
pub(super) static PLACE_AGO: LazyLock<Script> = script!("place_ago");
pub(super) static PROBE: LazyLock<Script> = script!("probe");
pub(super) static READ: LazyLock<Script> = script!("read");
pub(super) static READ_BACK: LazyLock<Script> = script!("read_back");
pub(super) static RESOLVE: LazyLock<Script> = script!("resolve");

/// All of them.
pub(super) static ALL: [&LazyLock<Script>; 10] =
    [&APPEND, &BOUNDS, &DELETE, &FIND, &FOLLOW, &PLACE_AGO, &PROBE, &READ, &READ_BACK, &RESOLVE];

/// The keys of a log, in the order of the scripts' parameters.
pub(super) fn keys(name: &str) -> [String; 10] {
    let parts =
        ["log", "state", "floors", "floors-at", "keys", "keys-order", "ids", "holes", "notifier", "topics"];
    parts.map(|part| format!("{{{name}}}:{part}"))
}
