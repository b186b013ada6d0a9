//! The table of settings: one row is a flag, an environment variable and a name in the
//! configuration file.

use Preset::{Depends, Is};

use super::values::LOG_LEVEL;

/// A setting of `tidings serve`.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The name in the configuration file. With hyphens it is the flag; in capitals after
    /// `TIDINGS_`, the environment variable.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// The placeholder of the value in `--help`.
    pub(crate) value_name: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) group: &'static str,
    pub(crate) help: &'static str,
    pub(crate) default: Preset,
}

/// How a setting is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One string.
    Text,
    /// A list of strings; the flag may be repeated.
    Texts,
    /// A list of URLs, which may contain commas and passwords: the variable separates them with
    /// spaces, and passwords are never shown.
    Urls,
    /// A whole number.
    Number,
    /// True or false; the flag alone means true.
    Flag,
    /// True or false; the flag requires a value.
    Choice,
}

/// The value of a setting that is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preset {
    /// This value.
    Is(&'static str),
    /// None, or a value that depends on the machine or on other settings; this text describes it in
    /// `--help`.
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

/// All rows, in the order of `--help`.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting {
        default: Is("127.0.0.1:8080"),
        ..texts(
            "listen",
            "ADDRESS",
            HTTP,
            "Address to listen on: ADDR:PORT, localhost:PORT or another host name, :PORT for every address, unix:PATH or unix:PATH?mode=660; \
             port 0 picks a free port; repeatable",
        )
    },
    texts(
        "admin_listen",
        "ADDRESS",
        HTTP,
        "Address for operators, written like --listen: metrics, details of readiness and the administrative routes, without a key; other \
         listeners then answer 404 to these; repeatable",
    ),
    text(
        "public_url",
        "URL",
        HTTP,
        "URL under which browsers reach this hub, such as https://hub.example.com",
        Depends("http:// and the listen address"),
    ),
    text(
        "tls_certificate",
        "FILE",
        HTTP,
        "Serve HTTPS on every TCP address with this certificate in PEM, with those of the authorities in between behind it; \
         --listen ADDRESS?tls=false exempts an address",
        Depends("none"),
    ),
    text(
        "tls_key",
        "FILE",
        HTTP,
        "The private key of the certificate, in PEM without a passphrase, readable by the hub alone",
        Depends("none"),
    ),
    texts(
        "allow_origin",
        "URL",
        HTTP,
        "Allow web pages of this origin to use the hub, with credentials; https://*.example.com allows every subdomain, * allows every \
         origin, without credentials; repeatable",
    ),
    texts(
        "allow_host",
        "NAME",
        HTTP,
        "Accept requests for this host name; *.example.com accepts every subdomain; IP addresses, localhost and the host of \
         --public-url are always accepted, other hosts get 421; repeatable",
    ),
    text(
        "upstream",
        "URL",
        HTTP,
        "Application behind the hub, http://127.0.0.1:5000 or unix:PATH: it answers everything that is not the hub's (/topics, the Mercure \
         path, /stream with topics), and a response with the header Tidings-Subscribe becomes a stream; on --listen ADDRESS?upstream=false \
         the hub answers alone",
        Depends("none"),
    ),
    texts("stream", "TOPIC", EVENTS, "Topic that /stream without parameters subscribes to; repeatable"),
    Setting {
        kind: Kind::Urls,
        ..texts(
            "bridge",
            "URL",
            EVENTS,
            "Publish messages that applications PUBLISH to Redis: redis://host?channels=chat,news&patterns=room-*, with \
             &format=flask-sse, django-eventstream or juggernaut, and &both_ways=true to send events of the hub to Redis as well \
             (docs/coming-from.md); repeatable",
        )
    },
    text(
        "store",
        "STORE",
        STORE,
        "Where events are stored: memory:, lost when the hub exits; a directory, such as ./events or file:/var/lib/tidings, \
         used by one hub at a time; redis://HOST or nats://HOST/NAME (JetStream), shared by any number of hubs. On NATS, ?creds=FILE or \
         ?nkey=FILE is the key of a user, and ?domain=NAME the JetStream domain",
        Is("memory:"),
    ),
    text(
        "sync",
        "WHEN",
        STORE,
        "When an event in a directory survives a power failure (a hub that is killed loses nothing in any case). always: before the \
         publisher is answered; interval: within a second, or interval=5s; never: when the system writes it, commonly within 30 seconds",
        Depends("always"),
    ),
    text("retain", "TIME", STORE, "Maximum age of stored events, such as 1h, or unlimited", Depends(AGE)),
    text(
        "retain_bytes",
        "SIZE",
        STORE,
        "Maximum size of stored events; the oldest are removed first",
        Depends(BYTES),
    ),
    number("retain_count", STORE, "Maximum number of stored events", Is("unlimited")),
    time(
        "heartbeat_secs",
        EVENTS,
        "Interval of heartbeat comments on an idle stream, 40 at most: clients reconnect after 45 seconds of silence",
        Is("15"),
    ),
    time("retry_millis", EVENTS, "Average delay before browsers reconnect", Is("3000")),
    time(
        "stream_lifetime_secs_max",
        EVENTS,
        "Maximum age of a stream, shortened at random by up to a quarter; then it ends, and its client reconnects and resumes",
        Is("unlimited"),
    ),
    flag(
        "presence",
        EVENTS,
        "Show who is subscribed to which topic; it is shown at /topics/TOPIC/presence, over all hubs of the store, each of which needs this; \
         takes a few hundred bytes for each stream",
    ),
    flag(
        "presence_events",
        EVENTS,
        "Publish who comes and leaves as private events; those of TOPIC are on the topic TOPIC/presence; implies presence",
    ),
    time(
        "presence_grace_secs",
        EVENTS,
        "Time in which a subscriber may come back without having left; for hooks and presence_events: a page that is reloaded then reports \
         nothing",
        Is("10"),
    ),
    flag(
        "mercure_subscriptions",
        EVENTS,
        "Show active subscriptions at the path of the hub and /subscriptions, as the Mercure protocol describes, and publish private events \
         when one begins or ends; over all hubs of the store, each of which needs this (docs/presence.md)",
    ),
    flag("charset_utf8", EVENTS, "Add charset=utf-8 to the Content-Type of streams"),
    flag(
        "no_auth",
        ACCESS,
        "Accept other machines without keys: every client that reaches the hub may publish and subscribe",
    ),
    Setting {
        kind: Kind::Choice,
        default: Is("true"),
        ..flag("anonymous", ACCESS, "Deliver public events to clients without a credential: true or false")
    },
    text(
        "cookie_name",
        "NAME",
        ACCESS,
        "Cookie in which browsers may send a credential; with a public URL of http://localhost also the name without __Secure- or __Host-",
        Is("__Secure-mercure_access_token"),
    ),
    Setting {
        default: Is("1.0"),
        ..texts(
            "mercure_revisions",
            "REVISION",
            ACCESS,
            "Revisions of the Mercure protocol that are served: 1.0, which always is, and 0.x, for clients of hubs before 1.0, whose tokens \
             are checked less (docs/move-from/mercure.md); repeatable",
        )
    },
    text(
        "authorize",
        "URL",
        ACCESS,
        "Application that decides about /stream: each request is forwarded to this URL, and a response with the header Tidings-Subscribe \
         becomes a stream of the topics that it names (docs/auth.md)",
        Depends("none"),
    ),
    time(
        "authorize_secs",
        ACCESS,
        "Time in which that application must answer, or the stream gets 504",
        Is("10"),
    ),
    texts(
        "trusted_proxy",
        "PROXY",
        ACCESS,
        "Proxy whose word about a client's address counts: its address, a network such as 10.0.0.0/8, or unix for every program that \
         connects to a Unix socket; needs --client-address; repeatable",
    ),
    text(
        "client_address",
        "SOURCE",
        ACCESS,
        "Where trusted proxies state a client's address, which limits and the log use: x-forwarded-for, forwarded, or proxy-protocol, which \
         they then have to send; peer: nowhere; an address of --listen may differ, as in 127.0.0.1:8081?client-address=peer",
        Is("peer"),
    ),
    number(
        "connections_max",
        LIMITS,
        "Maximum connections; at the limit idle ones are closed, then browsers are asked to retry later and other clients get 503",
        Depends(FOR_DESCRIPTORS),
    ),
    number(
        "streams_max",
        LIMITS,
        "Maximum streams, fewer than connections; further ones get 503",
        Depends(FOR_STREAMS),
    ),
    number(
        "streams_per_address_max",
        LIMITS,
        "Maximum streams of one address, loopback excepted; further ones get 429",
        Is("1000"),
    ),
    number(
        "streams_per_subject_max",
        LIMITS,
        "Maximum streams of one subject: the sub of tokens of one issuer, or the label of tickets and of applications' answers; further \
         ones get 429",
        Is("unlimited"),
    ),
    number(
        "patterns_max",
        LIMITS,
        "Maximum distinct URL Patterns of all streams; streams with further patterns get 503",
        Is("10000"),
    ),
    number(
        "patterns_per_address_max",
        LIMITS,
        "Maximum distinct URL Patterns of one address, loopback excepted; streams with further patterns get 429",
        Is("1000"),
    ),
    number(
        "pattern_weight_max",
        LIMITS,
        "Maximum total weight of the patterns that one topic is compared with, which are those with the same literal prefix and those \
         without one; a pattern weighs 10, one with a regular expression 80 or more; streams that exceed it get 503",
        Is("3000"),
    ),
    number(
        "pattern_weight_per_address_max",
        LIMITS,
        "Maximum weight of the patterns of one address, counted the same way, loopback excepted; streams that exceed it get 429",
        Is("600"),
    ),
    text(
        "pattern_bytes_max",
        "SIZE",
        LIMITS,
        "Maximum size of all patterns of one stream; more get 400",
        Is("16KiB"),
    ),
    number("batch_events_max", LIMITS, "Maximum events of one POST /topics; more get 413", Is("1000")),
    number("topics_max", LIMITS, "Maximum topics of one event; more get 413", Is("100")),
    number("matchers_max", LIMITS, "Maximum topics and patterns of one stream; more get 400", Is("100")),
    text(
        "body_bytes_max",
        "SIZE",
        LIMITS,
        "Maximum size of a request body; a larger one gets 413",
        Is("1MiB"),
    ),
    text(
        "bodies_bytes_max",
        "SIZE",
        LIMITS,
        "Maximum total memory for request bodies that are still arriving; further ones get 503",
        Is("64MiB"),
    ),
    text(
        "responses_bytes_max",
        "SIZE",
        LIMITS,
        "Maximum total memory for responses that clients have not read (summaries, and answers of applications); further requests get 503",
        Is("64MiB"),
    ),
    text(
        "request_headers_bytes_max",
        "SIZE",
        LIMITS,
        "Maximum size of request headers; larger ones get 431",
        Is("32KiB"),
    ),
    number(
        "requests_max",
        LIMITS,
        "Maximum requests processed at a time; further ones wait in a queue",
        Is("1024"),
    ),
    number(
        "requests_arriving_max",
        LIMITS,
        "Maximum requests whose headers are still arriving; at the limit the address with the most of them loses its oldest, with 408",
        Is("4096"),
    ),
    Setting {
        kind: Kind::Choice,
        default: Is("true"),
        ..flag(
            "http2",
            LIMITS,
            "Accept HTTP/2 without TLS (prior knowledge), as proxies use it: 128 concurrent requests on a connection; a connection takes about 24 \
             KiB, each stream 2 KiB more; false answers 505: true or false",
        )
    },
    number(
        "authorize_requests_max",
        LIMITS,
        "Maximum streams that wait for one application's decision, a quarter of them of one address (loopback excepted); further ones \
         get 503 or 429",
        Is("128"),
    ),
    number(
        "upstream_requests_max",
        LIMITS,
        "Maximum requests to the application behind the hub that are under way, WebSockets included, a quarter of them of one address \
         (loopback excepted); further ones get 503 or 429",
        Depends(FOR_UPSTREAM),
    ),
    time(
        "upstream_secs",
        LIMITS,
        "Time in which the application behind the hub must begin its response, or the request gets 504",
        Is("60"),
    ),
    time(
        "upstream_wait_secs",
        LIMITS,
        "Time for which a request waits while nothing listens at the address of the application, such as while it restarts; then it gets 502",
        Is("10"),
    ),
    time(
        "first_byte_secs",
        LIMITS,
        "Time in which the first byte must arrive, or the connection is closed",
        Is("5"),
    ),
    time("request_headers_secs", LIMITS, "Time in which request headers must arrive, or get 408", Is("10")),
    time("body_secs", LIMITS, "Time in which a request body must arrive, or gets 408", Is("30")),
    time(
        "response_secs",
        LIMITS,
        "Time in which a client must read a response other than a stream, or is disconnected",
        Is("60"),
    ),
    time("keep_alive_secs", LIMITS, "Time without a request after which a connection is closed", Is("75")),
    time("drain_secs", LIMITS, "Time in which streams end when the hub stops", Is("10")),
    time(
        "drain_delay_secs",
        LIMITS,
        "Time for which a hub that is asked to stop is not ready and still serves, so that load balancers send no further clients before \
         streams end; a second signal ends it; 0 is none",
        Is("0"),
    ),
    time(
        "upgrade_secs",
        LIMITS,
        "Time in which the new process of an upgrade must serve, or it is stopped",
        Is("30"),
    ),
    time(
        "dead_peer_secs",
        LIMITS,
        "Time after which a connection is reset if the client neither acknowledges nor reads data",
        Is("30"),
    ),
    number(
        "threads",
        LIMITS,
        "Number of threads: half of them fan out events, the others answer requests; a single one does both",
        Depends(FOR_PROCESSORS),
    ),
    text("log", "FORMAT", OUTPUT, "Log format on standard error: text or json", Is("text")),
    text(
        "log_level",
        "LEVEL",
        OUTPUT,
        "How much is logged: error, warn, info, debug, trace or off, for all or, separated by commas, for parts of the program, as in \
         info,tidings_server=debug; RUST_LOG overrides it",
        Is(LOG_LEVEL),
    ),
    flag(
        "access_log",
        OUTPUT,
        "Log each request with the target tidings::access: method, route, status, duration, client, request id and trace; paths, queries \
         and headers are left out",
    ),
    Setting { short: Some('v'), ..flag("verbose", OUTPUT, "Print each event") },
    text(
        "pid_file",
        "FILE",
        OUTPUT,
        "Write the process ID to this file; an upgrade replaces it, and it is removed at exit",
        Depends("none"),
    ),
];

const HTTP: &str = "Address";
const EVENTS: &str = "Events";
/// The group that `tidings demo` accepts as well.
pub(crate) const STORE: &str = "Store";
const ACCESS: &str = "Access";
const LIMITS: &str = "Limits";
const OUTPUT: &str = "Output";

const AGE: &str = "unlimited in memory, 7d elsewhere";
const BYTES: &str = "64MiB in memory, 256MiB in Redis, 1GiB in a directory or on NATS";
const FOR_STREAMS: &str = "15 of 16 connections";
const FOR_UPSTREAM: &str = "4096, and at most half of what the file descriptor limit allows";
const FOR_PROCESSORS: &str = "the number of processors";
const FOR_DESCRIPTORS: &str = "as many as the file descriptor limit allows";

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

/// A time: a plain number is in the unit of the name, others name their unit (`15`, `15s`, `2m`).
const fn time(name: &'static str, group: &'static str, help: &'static str, default: Preset) -> Setting {
    Setting { value_name: "TIME", ..number(name, group, help, default) }
}

const fn flag(name: &'static str, group: &'static str, help: &'static str) -> Setting {
    Setting { kind: Kind::Flag, ..text(name, "BOOL", group, help, Is("false")) }
}
