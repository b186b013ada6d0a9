//! Chapters, each with code that compiles; begin with the [first example](crate).

macro_rules! chapter {
    ($($name:ident: $text:literal),* $(,)?) => {
        $(
            #[doc = include_str!($text)]
            pub mod $name {}
        )*
    };
}

chapter! {
    chat: "guide/chat.md",
    one_user: "guide/one_user.md",
    resume: "guide/resume.md",
    history_and_live: "guide/history_and_live.md",
    in_process: "guide/in_process.md",
    presence: "guide/presence.md",
    graceful_shutdown: "guide/graceful_shutdown.md",
    limits: "guide/limits.md",
    monitoring: "guide/monitoring.md",
    custom_log: "guide/custom_log.md",
    embedding: "guide/embedding.md",
}
