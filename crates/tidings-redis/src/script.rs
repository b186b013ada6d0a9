//! Scripts that Redis runs, known to the client library by their hash, and by their text where Redis
//! does not know it (any more).

/// The script of this name in the folder `lua` next to the calling file, with the common part in
/// front.
macro_rules! script {
    ($name:literal) => {
        std::sync::LazyLock::new(|| {
            redis::Script::new(concat!(
                include_str!("lua/common.lua"),
                include_str!(concat!("lua/", $name, ".lua"))
            ))
        })
    };
}

pub(crate) use script;
