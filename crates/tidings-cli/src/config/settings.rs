//! The table of settings: one row is a flag, an environment variable and a name in the configuration file.

use Preset::{Depends, Is};

/// A setting of `tidings serve`.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Its name in the configuration file. With hyphens it is the flag, in capitals behind `TIDINGS_` the variable.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// What stands for the value in `--help`.
    pub(crate) value_name: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) group: &'static str,
    pub(crate) help: &'static str,
    pub(crate) default: Preset,
}

/// How a setting is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One text.
    Text,
    /// A list of texts; the flag may be repeated.
    Texts,
    /// A list of URLs, in which commas and passwords may stand: the variable separates them with spaces, and the passwords are never shown.
    Urls,
    /// A whole number.
    Number,
    /// True or false; the flag alone means true.
    Flag,
    /// True or false; the flag wants to know which.
    Choice,
}

/// What holds when nobody says anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preset {
    /// This value.
    Is(&'static str),
    /// Nothing, or something that depends on the machine or on other settings. This is how `--help` puts it.
    Depends(&'static str),
}

impl Setting {
    /// `--allow-origin`
    pub(crate) fn flag(&self) -> String {
        format!("--{}", self.long())
    }

    /// `allow-origin`
    pub(crate) fn long(&self) -> String {
        self.name.replace('_', "-")
    }

    /// `TIDINGS_ALLOW_ORIGIN`
    pub(crate) fn variable(&self) -> String {
        format!("TIDINGS_{}", self.name.to_ascii_uppercase())
    }

    pub(crate) fn is_list(&self) -> bool {
        matches!(self.kind, Kind::Texts | Kind::Urls)
    }

    pub(crate) fn is_boolean(&self) -> bool {
        matches!(self.kind, Kind::Flag | Kind::Choice)
    }
}

/// The row of this name.
pub(crate) fn setting(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// All rows, in the order in which people read them.
pub(crate) const SETTINGS: &[Setting] = &[
    text("listen", "ADDR:PORT", HTTP, "Where to listen; port 0 takes a free one", Is("127.0.0.1:8080")),
    text(
        "public_url",
        "URL",
        HTTP,
        "What browsers call this hub, such as https://hub.example.com",
        Depends("http:// and the address that it listens on"),
    ),
    texts(
        "allow_origin",
        "URL",
        HTTP,
        "Web pages of this origin may use the hub, with credentials; https://*.example.com is every name below that domain, * is every \
         origin, without credentials; repeatable",
    ),
    texts(
        "allow_host",
        "NAME",
        HTTP,
        "Requests may be addressed to this host name, or with *.example.com to every name below that domain; addresses, localhost and the host \
         of --public-url always pass, others get 421; repeatable",
    ),
    texts("stream", "TOPIC", EVENTS, "What a plain /stream subscribes to; repeatable"),
    Setting {
        kind: Kind::Urls,
        ..texts(
            "bridge",
            "URL",
            EVENTS,
            "What applications PUBLISH on a Redis is published here: redis://host?channels=chat,news&patterns=room-*, with \
             &format=flask-sse, django-eventstream or juggernaut, and &both_ways=true to send out what is published here (docs/coming-from.md); \
             repeatable",
        )
    },
    text(
        "store",
        "STORE",
        STORE,
        "Where events are kept: memory:, which is gone when the hub ends; a directory, such as ./events or file:/var/lib/tidings, \
         which one hub uses at a time; or redis://HOST or nats://HOST/NAME (JetStream), which any number of hubs share",
        Is("memory:"),
    ),
    text(
        "sync",
        "WHEN",
        STORE,
        "When an event in a directory survives a loss of power (a hub that is killed loses nothing in any case). always: from the answer to \
         its publisher on; interval: at most a second later, or interval=5s; never: when the system writes it, commonly within half a minute",
        Depends("always"),
    ),
    text("retain", "TIME", STORE, "How long events are kept, such as 1h, or unlimited", Depends(AGE)),
    text(
        "retain_bytes",
        "SIZE",
        STORE,
        "How much memory or disk events may take; the oldest go first",
        Depends(BYTES),
    ),
    number("retain_count", STORE, "How many events are kept", Is("unlimited")),
    time(
        "heartbeat_secs",
        EVENTS,
        "A silent stream carries a comment this often, 40 at most: clients reconnect after 45 seconds of silence",
        Is("15"),
    ),
    time("retry_millis", EVENTS, "How long browsers wait before they reconnect, on average", Is("3000")),
    flag("charset_utf8", EVENTS, "Say charset=utf-8 in the Content-Type of streams"),
    flag(
        "no_auth",
        ACCESS,
        "Go beyond this machine without keys: whoever reaches the hub may publish and subscribe",
    ),
    Setting {
        kind: Kind::Choice,
        default: Is("true"),
        ..flag(
            "anonymous",
            ACCESS,
            "Whether public events may be received without a credential: true or false",
        )
    },
    number(
        "connections_max",
        LIMITS,
        "Most connections; beyond, idle ones are closed, then browsers are asked to come back, others get 503",
        Depends(ROOM_FOR_FILES),
    ),
    number(
        "streams_max",
        LIMITS,
        "Most streams, fewer than connections; further ones get 503",
        Depends(ROOM_FOR_STREAMS),
    ),
    number(
        "streams_per_address_max",
        LIMITS,
        "Most streams of one address, loopback excepted; further ones get 429",
        Is("1000"),
    ),
    number(
        "patterns_max",
        LIMITS,
        "Most distinct URL Patterns that are subscribed to; streams with further ones get 503",
        Is("10000"),
    ),
    number(
        "patterns_per_address_max",
        LIMITS,
        "Most of them of one address, loopback excepted; streams with further ones get 429",
        Is("1000"),
    ),
    number(
        "pattern_weight_max",
        LIMITS,
        "Most work of comparing one topic with patterns that begin as it does, as those without a literal beginning always do; a pattern counts \
         1, one with a regular expression 20 and more; streams beyond get 503",
        Is("10000"),
    ),
    number(
        "pattern_weight_per_address_max",
        LIMITS,
        "The same for the patterns of one address, loopback excepted; streams beyond get 429",
        Is("2000"),
    ),
    text(
        "pattern_bytes_max",
        "SIZE",
        LIMITS,
        "Most bytes of all patterns of one stream; more get 400",
        Is("16KiB"),
    ),
    number("batch_events_max", LIMITS, "Most events of one POST /topics; more get 413", Is("1000")),
    number("topics_max", LIMITS, "Most topics of one event; more get 413", Is("100")),
    number("matchers_max", LIMITS, "Most topics and patterns of one stream; more get 400", Is("100")),
    text("body_bytes_max", "SIZE", LIMITS, "Largest body of a request; a larger one gets 413", Is("1MiB")),
    text(
        "bodies_bytes_max",
        "SIZE",
        LIMITS,
        "Most memory for bodies that are still arriving, all together; further ones get 503",
        Is("64MiB"),
    ),
    text("head_bytes_max", "SIZE", LIMITS, "Largest head of a request; a larger one gets 431", Is("32KiB")),
    number(
        "heads_max",
        LIMITS,
        "Most complete heads that are answered at a time; further ones wait their turn",
        Is("1024"),
    ),
    number(
        "heads_waiting_max",
        LIMITS,
        "Most heads that are waited for; beyond, the address with the most of them loses its oldest, with 408",
        Is("4096"),
    ),
    Setting {
        kind: Kind::Choice,
        default: Is("true"),
        ..flag(
            "raw_streams",
            LIMITS,
            "Whether streams over HTTP/1.1 leave the HTTP library, at a tenth of the memory (Linux); switch it off when in doubt: true or false",
        )
    },
    Setting {
        kind: Kind::Choice,
        default: Is("true"),
        ..flag(
            "http2",
            LIMITS,
            "Whether those who begin with HTTP/2, as proxies do, are answered in it: 128 requests at a time on a connection that costs some 24 \
             KiB, each stream 2 more; otherwise they get 505: true or false",
        )
    },
    time("first_byte_secs", LIMITS, "A connection that says nothing for this long is closed", Is("5")),
    time("head_secs", LIMITS, "The head of a request must arrive in this time, or gets 408", Is("10")),
    time("body_secs", LIMITS, "The body of a request must arrive in this time, or gets 408", Is("30")),
    time(
        "response_secs",
        LIMITS,
        "A client must take a response, other than a stream, in this time, or is cut off",
        Is("60"),
    ),
    time(
        "keep_alive_secs",
        LIMITS,
        "A connection without a next request is closed after this time",
        Is("75"),
    ),
    time("drain_secs", LIMITS, "Streams are given this long to end when the hub stops", Is("10")),
    time("upgrade_secs", LIMITS, "A successor (SIGUSR2) must serve in this time, or is ended", Is("30")),
    time(
        "dead_peer_secs",
        LIMITS,
        "A connection whose other end acknowledges nothing, or takes nothing, for this long is reset",
        Is("30"),
    ),
    number(
        "threads",
        LIMITS,
        "Threads that serve: half of them fan out, the others answer requests; one does both",
        Depends(FOR_PROCESSORS),
    ),
    text("log", "FORMAT", OUTPUT, "How the log is written to standard error: text or json", Is("text")),
    Setting { short: Some('v'), ..flag("verbose", OUTPUT, "Print each event") },
    text(
        "pid_file",
        "FILE",
        OUTPUT,
        "Write the number of the process that serves to this file, for `kill`; an upgrade replaces it, the end removes it",
        Depends("none"),
    ),
];

const HTTP: &str = "Address";
const EVENTS: &str = "Events";
/// What `tidings demo` understands, too.
pub(crate) const STORE: &str = "Store";
const ACCESS: &str = "Access";
const LIMITS: &str = "Limits";
const OUTPUT: &str = "Output";

const AGE: &str = "unlimited in memory, 7d elsewhere";
const BYTES: &str = "64MiB in memory, 256MiB in Redis, 1GiB in a directory or on NATS";
const ROOM_FOR_STREAMS: &str = "15 of 16 connections";
const FOR_PROCESSORS: &str = "as many as there are processors";
const ROOM_FOR_FILES: &str = "as many as the limit of open files leaves room for";

const fn text(
    name: &'static str,
    value_name: &'static str,
    group: &'static str,
    help: &'static str,
    default: Preset,
) -> Setting {
    Setting { name, kind: Kind::Text, value_name, short: None, group, help, default }
}

const fn texts(
    name: &'static str,
    value_name: &'static str,
    group: &'static str,
    help: &'static str,
) -> Setting {
    Setting { kind: Kind::Texts, ..text(name, value_name, group, help, Depends("none")) }
}

const fn number(name: &'static str, group: &'static str, help: &'static str, default: Preset) -> Setting {
    Setting { kind: Kind::Number, ..text(name, "N", group, help, default) }
}

/// A time: a plain number is in the unit that the name says, others have theirs (`15`, `15s`, `2m`).
const fn time(name: &'static str, group: &'static str, help: &'static str, default: Preset) -> Setting {
    Setting { value_name: "TIME", ..number(name, group, help, default) }
}

const fn flag(name: &'static str, group: &'static str, help: &'static str) -> Setting {
    Setting { kind: Kind::Flag, ..text(name, "BOOL", group, help, Is("false")) }
}
