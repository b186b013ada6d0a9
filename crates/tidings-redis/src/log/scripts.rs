//! The scripts, each with the common part in front.

use std::sync::LazyLock;

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Script {
    Append,
    Bounds,
    Delete,
    Find,
    Follow,
    PlaceAgo,
    Probe,
    Read,
    ReadBack,
    Resolve,
}

impl Script {
    pub(super) const ALL: [Self; 10] = [
        Self::Append,
        Self::Bounds,
        Self::Delete,
        Self::Find,
        Self::Follow,
        Self::PlaceAgo,
        Self::Probe,
        Self::Read,
        Self::ReadBack,
        Self::Resolve,
    ];

    /// The script as the client library has it: by its hash, and by its text where Redis does not
    /// know it (any more).
    pub(super) fn prepared(self) -> &'static redis::Script {
        static PREPARED: LazyLock<Vec<redis::Script>> = LazyLock::new(|| {
            let prepare = |script: Script| redis::Script::new(&[COMMON, script.text()].concat());
            Script::ALL.into_iter().map(prepare).collect()
        });
        &PREPARED[self as usize]
    }

    fn text(self) -> &'static str {
        match self {
            Self::Append => include_str!("lua/append.lua"),
            Self::Bounds => include_str!("lua/bounds.lua"),
            Self::Delete => include_str!("lua/delete.lua"),
            Self::Find => include_str!("lua/find.lua"),
            Self::Follow => include_str!("lua/follow.lua"),
            Self::PlaceAgo => include_str!("lua/place_ago.lua"),
            Self::Probe => include_str!("lua/probe.lua"),
            Self::Read => include_str!("lua/read.lua"),
            Self::ReadBack => include_str!("lua/read_back.lua"),
            Self::Resolve => include_str!("lua/resolve.lua"),
        }
    }
}

const COMMON: &str = include_str!("lua/common.lua");

/// The keys of a log, in the order of the scripts' parameters.
#[derive(Clone, Debug)]
pub(super) struct Keys([String; 10]);

impl Keys {
    pub(super) fn of(name: &str) -> Self {
        let parts = [
            "log",
            "state",
            "floors",
            "floors-at",
            "keys",
            "keys-order",
            "ids",
            "holes",
            "notifier",
            "topics",
        ];
        Self(parts.map(|part| format!("{{{name}}}:{part}")))
    }

    pub(super) fn all(&self) -> &[String] {
        &self.0
    }

    pub(super) fn log(&self) -> &str {
        &self.0[0]
    }

    pub(super) fn state(&self) -> &str {
        &self.0[1]
    }

    pub(super) fn notifier(&self) -> &str {
        &self.0[8]
    }
}
