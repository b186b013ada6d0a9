//! `tidings serve`: the hub, put together from its parts.

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use serde_json::json;
use tidings::{
    Hub, HubSettings, Matcher,
    log::{Tail, TailItem},
};
use tidings_server::{
    Applications, ClientAddressSource, ConnectionMetrics, ConnectionSettings, Keyless, LocalAddress,
    RevocationFile, Settings, SharedRevocations, Tls, TrustedProxy, apis, connections_for_file_limit,
    raise_file_limit,
};
use tokio::time::timeout;

#[cfg(unix)]
use super::application::{Application, Prepared};
use super::{
    attendance::Attendance,
    banner,
    listening::{Ended, Listening, base_url},
    log_filter::LogFilter,
    memory::give_back_when_calm,
    reloader::{Live, ReloadRequests, Reloader, Sources},
    rules::{Rules, hub_url},
    runtime::{block_on, threads},
    sockets::{Addresses, Socket, shown},
};
use crate::{
    acme::Acme,
    bridges::Bridges,
    config::{
        self, Listen, LogFormat, ServeConfig, SettingFlags, TABLES, UpstreamConfig, find_file,
        unknown_variables, warn_of_readable,
    },
    failure::Failure,
    issuer_keys::KeyFetchers,
    output::{self, harmless, print_line},
    store::{Opened, Store},
};

/// Memory of a hub besides its events: program, threads, and some thousand connections.
const PROCESS_BYTES: u64 = 128 << 20;
/// How often it is reported that the store is still being opened.
const OPENING_REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// Why `tidings run` refuses an upgrade.
#[cfg(unix)]
const NO_UPGRADE: &str = "`tidings run` ends with its application; restart it, behind the socket of a supervisor (LISTEN_FDS) if no \
    connection may be refused";
/// Bytes of the log that `--verbose` reads at a time.
const VERBOSE_PAGE_BYTES: usize = 64 * 1024;

const PRECEDENCE: &str = "Every setting can also be set in the environment (--retain-bytes is TIDINGS_RETAIN_BYTES, \
    lists are separated by commas, bridges by spaces) or in the file (retain_bytes). Flags override the environment, and the environment \
    overrides the file. `tidings config init` writes a file that explains every setting. Keys, issuers of tokens, the secrets of tickets, \
    private topics, applications and certificates beyond the first, the authority that issues one, hooks, and retention by topic can only \
    be set in the file:";

/// The text below the flags in `--help`.
fn after_help() -> String {
    let lines = TABLES.lines().map(|line| if line.is_empty() { String::new() } else { format!("  {line}") });
    format!("{PRECEDENCE}\n\n{}", lines.collect::<Vec<_>>().join("\n"))
}

/// There is none where there are no process groups.
#[cfg(not(unix))]
pub(super) enum Application {}

/// Run the hub
#[derive(Args, Debug)]
#[command(after_help = after_help())]
pub(super) struct Serve {
    /// TOML file with settings, named like the flags but with underscores, and with [[key]],
    /// [[issuer]], [[ticket_secret]], private_topics, [[authorize]], [[hook]] and [[retention]] [default:
    /// ./tidings.toml or /etc/tidings/tidings.toml, if it exists]
    #[arg(long, value_name = "FILE", env = "TIDINGS_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Check the configuration and print the effective one, secrets hidden
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    pub(super) given: SettingFlags,
}

impl Serve {
    pub(super) fn run(self) -> Result<(), Failure> {
        self.start(None)
    }

    /// Runs the hub, with an application if there is one.
    pub(super) fn start(self, application: Option<Application>) -> Result<(), Failure> {
        // An error in the configuration is then reported in the format of the log.
        if self.given.log_format() == Some(LogFormat::Json) {
            output::set_format(LogFormat::Json);
        }
        // Without more descriptors the hub works with a lower limit, which it logs.
        let files = raise_file_limit().unwrap_or_default();
        let room = connections_for_file_limit();
        let file = find_file(self.config);
        let sources = Sources { file, given: self.given, room };
        let config = sources.load()?;
        let has_tls = |listen: &Listen| config.has_tls() && listen.has_tls();
        let addresses = config.listen.iter().map(|listen| (listen.local_address(), has_tls(listen)));
        let rules = Rules::new(&config, &hub_url(&config, &base_url(addresses)))?;
        let tls = config.read_certificates()?.map(|certificates| Tls::new(certificates, config.http2));
        config.retention.put_into(&mut config.keeping.clone(), &rules.validator)?;
        let mut warnings = unknown_variables(&config.secret_variables());
        warnings.extend(config::warnings(&config, room));
        if self.check {
            for warning in warnings {
                output::remark(&format!("warning: {warning}"));
            }
            return print_line(config.to_toml().trim_end());
        }
        drop(rules);
        let log = LogFilter::start(config.log, &config.log_level)?;
        for warning in warnings {
            tracing::warn!("configuration: {warning}");
        }
        warn_of_readable(&config.secret_files);
        let parts = Parts { sources, tls, log, application };
        block_on(threads(config.threads - shard_threads(&config)), serve(config, parts, files))
    }
}

/// Half of the threads fan out, the others serve requests. A single one does both.
fn shard_threads(config: &ServeConfig) -> usize {
    config.threads / 2
}

/// What a start makes of the configuration, and a reload needs again.
struct Parts {
    sources: Sources,
    tls: Option<Tls>,
    log: LogFilter,
    application: Option<Application>,
}

async fn serve(mut config: ServeConfig, parts: Parts, files: Option<u64>) -> Result<(), Failure> {
    #[cfg_attr(not(unix), expect(unused_variables, reason = "there is none"))]
    let Parts { sources, tls, log, application } = parts;
    let addresses = Addresses {
        listens: &config.listen,
        admin_listens: &config.admin_listen,
        tls: tls.as_ref(),
        client_address: config.client_address,
        trusted_proxies: config.trusted_proxies.iter().copied().collect(),
        #[cfg(unix)]
        has_application: application.is_some(),
    };
    let mut listening = Listening::start(&addresses, Duration::from_secs(config.drain_delay_secs))?;
    #[cfg(unix)]
    if application.is_some() {
        listening.refuse_upgrades(NO_UPGRADE);
    }
    check_proxies(&config, listening.sockets())?;
    let [addresses, admin_addresses] = [false, true].map(|is_admin| listening.addresses(is_admin));
    check_addresses(&config, &listening, &addresses, &admin_addresses)?;
    #[cfg(unix)]
    if let Some(path) = &config.pid_file {
        listening.set_pid_file(path)?;
    }
    let base_url = listening.base_url();
    let hub_url = hub_url(&config, &base_url);
    let Rules { validator, authenticator, default_topics } = Rules::new(&config, &hub_url)?;

    config.retention.put_into(&mut config.keeping, &validator)?;
    let store = open_store(&mut listening, &config).await?;
    // The banner is for a terminal; programs read the log.
    let has_banner = config.log == LogFormat::Text && io::stdout().is_terminal();
    start_printing(&config, has_banner, &store).await?;
    let settings = hub_settings(&config);
    #[cfg(unix)]
    warn_of_memory_limit(&config, &settings);
    let hub = store.hub().validator(validator).settings(settings);
    let (hub, attendance) = Attendance::start(hub, &config, store.journal.clone()).await?;

    let acme = Acme::open(config.acme.as_ref(), tls.as_ref())?;
    let metrics = Arc::<ConnectionMetrics>::default();
    let bridges = Bridges::start(&config.bridges, &hub);
    let mut settings = server_settings(&config, default_topics);
    settings.leaving = listening.leaving().clone();
    settings.revocation_file = revocation_file(&config.keeping.store)?;
    settings.shared_revocations = shared_revocations(&hub).await;
    settings.connection_metrics = Some(Arc::clone(&metrics));
    let key_fetchers = Arc::<KeyFetchers>::default();
    settings.components = bridges.components();
    acme.add_to(&mut settings);
    attendance.add_to(&mut settings);
    settings.components.extend(KeyFetchers::component(&key_fetchers, authenticator.as_ref()));
    #[cfg(unix)]
    let application = application.zip(settings.upstream.clone()).map(|(it, upstream)| it.behind(upstream));
    #[cfg(unix)]
    settings.components.extend(application.as_ref().map(Prepared::component));
    let origins = settings.allow_origins.clone();
    let applications = settings.authorize.clone();
    let (reload, requests) = ReloadRequests::new();
    settings.reload = Some(Arc::new(reload));
    let service = apis(hub.clone(), authenticator.clone(), settings);

    acme.start();
    let (ending, obtaining) = (attendance.clone(), acme.clone());
    let live = Live {
        hub: hub.clone(),
        hub_url,
        authenticator,
        origins,
        applications,
        key_fetchers,
        tls,
        acme,
        log,
    };
    tokio::spawn(Reloader::new(sources, config.clone(), live).run(listening.reloads(), requests));

    tokio::spawn(give_back_when_calm(Arc::clone(&metrics)));
    if has_banner {
        output::STDOUT
            .add(banner::of_hub(&config, &base_url, &addresses, &admin_addresses, files).as_bytes());
    }
    log_start(&config, &addresses, &admin_addresses, &base_url, files);
    let connections = connection_settings(&config);
    let serve = |listeners, ended: Ended| {
        // Another hub takes over bridges and hooks now, not after the last stream has drained.
        let ended = async move {
            let drain = ended.await;
            bridges.stop().await;
            obtaining.stop();
            ending.stop_hooks().await;
            drain
        };
        tidings_server::serve(listeners, service, connections, metrics, ended)
    };
    #[cfg(unix)]
    let application = application.map(|it| it.start(&config, &listening, hub.clone())).transpose()?;
    let served = listening.serve(hub, store, config.drain_secs, config.upgrade_secs, serve).await;
    attendance.withdrawn().await;
    #[cfg(unix)]
    if let Some(application) = application {
        return application.end(served).await;
    }
    served
}

/// Starts standard output, if anything is printed there, and prints the events of the log with
/// `--verbose`.
async fn start_printing(config: &ServeConfig, has_banner: bool, store: &Opened) -> Result<(), Failure> {
    if config.verbose || has_banner || config.runs_application {
        output::STDOUT.start().map_err(|error| Failure::runtime(format!("cannot start: {error}")))?;
    }
    if config.verbose {
        let (_, tail) = store.log.tail().await.map_err(Failure::runtime)?;
        tokio::spawn(print_events(tail, config.log));
    }
    Ok(())
}

/// What the other hubs of the store have revoked.
async fn shared_revocations(hub: &Hub) -> Option<SharedRevocations> {
    let read = SharedRevocations::read(hub).await;
    read.inspect_err(|error| {
        tracing::warn!(%error, "it is not known yet which credentials were revoked; until then they are answered 503");
    })
    .ok()
}

/// Opens the store, however long that takes: a large history is checked, and a cluster may have to
/// elect a leader.
async fn open_store(listening: &mut Listening, config: &ServeConfig) -> Result<Opened, Failure> {
    let mut opening = pin!(listening.open(&config.keeping));
    loop {
        if let Ok(opened) = timeout(OPENING_REPORT_INTERVAL, &mut opening).await {
            return opened;
        }
        tracing::warn!(store = config.shown("store"), "the store is not open yet; waiting for it");
    }
}

/// How events are delivered, as configured.
fn hub_settings(config: &ServeConfig) -> HubSettings {
    let mut settings = HubSettings::default();
    settings.heartbeat = Duration::from_secs(config.heartbeat_secs);
    settings.retry_millis = config.retry_millis;
    settings.lifetime_max = config.stream_lifetime_secs_max.map(Duration::from_secs);
    settings.private_topics.clone_from(&config.private_topics);
    settings.shard_threads = shard_threads(config);
    settings.patterns_max = config.patterns_max;
    settings.pattern_weight_max = config.pattern_weight_max;
    settings
}

/// What clients may do and cause, as configured.
fn server_settings(config: &ServeConfig, default_topics: Vec<Matcher>) -> Settings {
    let mut settings = Settings::default();
    settings.default_topics = default_topics;
    settings.anonymous_subscribers = config.anonymous;
    settings.older_mercure_revision = config.serves_older_mercure_revision();
    settings.keyless = if config.no_auth { Keyless::Anywhere } else { Keyless::Loopback };
    settings.allow_origins = config.allow_origins.clone().into();
    settings.allow_hosts = config.hosts();
    settings.streams_max = config.streams_max;
    settings.streams_per_address_max = config.streams_per_address_max.unwrap_or(usize::MAX);
    settings.streams_per_subject_max = config.streams_per_subject_max;
    settings.patterns_per_address_max = config.patterns_per_address_max;
    settings.pattern_weight_per_address_max = config.pattern_weight_per_address_max;
    settings.pattern_bytes_max = config.pattern_bytes_max;
    settings.batch_events_max = config.batch_events_max;
    settings.body_bytes_max = config.body_bytes_max;
    settings.bodies_bytes_max = config.bodies_bytes_max;
    settings.responses_bytes_max = config.responses_bytes_max;
    settings.body_secs = config.body_secs;
    settings.charset_utf8 = config.charset_utf8;
    settings.access_log = config.access_log;
    settings.presence_events = config.presence_events;
    settings.authorize = Applications::new(&config.authorize, config.authorize_requests_max);
    settings.upstream = config.upstream.as_ref().map(UpstreamConfig::handle);
    settings
}

/// What connections may take, as configured.
fn connection_settings(config: &ServeConfig) -> ConnectionSettings {
    ConnectionSettings {
        connections_max: config.connections_max,
        first_byte_secs: config.first_byte_secs,
        request_headers_secs: config.request_headers_secs,
        keep_alive_secs: config.keep_alive_secs,
        request_headers_bytes_max: config.request_headers_bytes_max,
        requests_max: config.requests_max,
        requests_arriving_max: config.requests_arriving_max,
        http2: config.http2,
        dead_peer_secs: config.dead_peer_secs,
        response_secs: config.response_secs,
        drain_secs: config.drain_secs,
        access_log: config.access_log,
    }
}

/// Where a store in a directory keeps revocations. A store that hubs share has them itself, and one
/// in memory forgets them with everything else.
fn revocation_file(store: &Store) -> Result<Option<Arc<RevocationFile>>, Failure> {
    let Store::Directory(directory) = store else { return Ok(None) };
    let file = RevocationFile::open(&directory.join("revocations")).map_err(Failure::runtime)?;
    Ok(Some(Arc::new(file)))
}

/// Inherited sockets may listen elsewhere than configured.
fn check_addresses(
    config: &ServeConfig,
    listening: &Listening,
    addresses: &[LocalAddress],
    admin_addresses: &[LocalAddress],
) -> Result<(), Failure> {
    if let Some(listen) = listening.ignored(&config.listen).filter(|_| config.is_given("listen")) {
        tracing::warn!(
            "listening on the inherited sockets ({}), so the address {} has no effect",
            shown(addresses),
            listen.address
        );
    }
    for (name, addresses) in [("listen", addresses), ("admin_listen", admin_addresses)] {
        if let Some(open) = addresses.iter().find(|address| !address.is_local()) {
            config.check_reach(name, open)?;
        }
    }
    Ok(())
}

/// Refuses a trusted proxy that no socket can have as its peer, and a source of client addresses
/// without a proxy that could state one.
fn check_proxies(config: &ServeConfig, sockets: &[Socket]) -> Result<(), Failure> {
    let stating = sockets
        .iter()
        .filter(|socket| socket.listener.settings().client_address != ClientAddressSource::Peer);
    let is_unix: Vec<_> =
        stating.map(|socket| matches!(socket.listener.address(), LocalAddress::Unix(_))).collect();
    let has = |unix: bool| is_unix.contains(&unix);
    for proxy in &config.trusted_proxies {
        let reason = match proxy {
            TrustedProxy::Unix if !has(true) => {
                "the hub listens on no Unix socket on which --client-address applies"
            }
            TrustedProxy::Network(_) if !has(false) => {
                "the hub listens on no TCP address on which --client-address applies"
            }
            _ => continue,
        };
        return Err(config.refuse("trusted_proxy", &format!("{proxy} has no effect: {reason}")));
    }
    Ok(())
}

/// The line that every start logs: version, addresses, what is behind the hub, credentials and limits.
fn log_start(
    config: &ServeConfig,
    addresses: &[LocalAddress],
    admin_addresses: &[LocalAddress],
    base_url: &str,
    open_files_max: Option<u64>,
) {
    let credentials = match (config.has_credentials(), config.no_auth) {
        (true, _) => "configured",
        (false, true) => "none (no_auth)",
        (false, false) => "none (this machine only)",
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        url = base_url,
        address = %shown(addresses),
        admin_address = (!admin_addresses.is_empty()).then(|| tracing::field::display(shown(admin_addresses))),
        config_file = config.file_name(),
        tls = config.has_tls(),
        public_url = config.public_url.as_ref().map(tracing::field::display),
        upstream = config.upstream.is_some().then(|| config.shown("upstream")),
        store = config.shown("store"),
        bridges = config.bridges.len(),
        credentials,
        anonymous = config.anonymous,
        connections_max = config.connections_max,
        streams_max = config.streams_max,
        streams_per_address_max = config.streams_per_address_max,
        body_bytes_max = config.body_bytes_max,
        open_files_max,
        "listening"
    );
}

/// A process that gets no memory aborts, so the hub warns of a limit that is too low for its
/// settings.
#[cfg(unix)]
fn warn_of_memory_limit(config: &ServeConfig, hub: &HubSettings) {
    use rustix::process::{Resource, getrlimit};
    let limit = [Resource::As, Resource::Data].into_iter().filter_map(|kind| getrlimit(kind).current).min();
    let kept = if config.keeping.store == Store::Memory { config.keeping.bytes_max } else { 0 };
    let feeds = u64::try_from(hub.feed_bytes_max).unwrap_or(u64::MAX);
    let needed = kept.saturating_add(feeds).saturating_add(PROCESS_BYTES);
    if let Some(limit) = limit.filter(|limit| *limit < needed) {
        let [limit, needed] = [limit, needed].map(|bytes| bytes >> 20);
        tracing::warn!(
            "the memory limit of this process is {limit} MiB (`ulimit -v`, `ulimit -d`), and it may need {needed} MiB or more; \
             without memory it aborts: raise the limit, or lower retain_bytes"
        );
    }
}

/// Prints every event, like a development server. If the output is not read fast enough, lines are
/// dropped.
async fn print_events(mut tail: Box<dyn Tail>, format: LogFormat) {
    while let Some(item) = tail.next(VERBOSE_PAGE_BYTES).await {
        let TailItem::Entries(entries) = item else { continue };
        for entry in entries {
            let event = &entry.event;
            let event_type = event.event_type.as_ref().map(|name| name.as_str().to_owned());
            let line = match format {
                LogFormat::Json => {
                    json!({ "topic": event.topics[0].as_str(), "type": event_type, "data": event.data.as_str() })
                        .to_string()
                }
                LogFormat::Text => {
                    let event_type = event_type.map(|name| format!(" ({name})")).unwrap_or_default();
                    let line = format!("{}{event_type}: {}", event.topics[0], event.data);
                    harmless(&line).replace('\n', "\\n")
                }
            };
            output::STDOUT.add(line.as_bytes());
        }
    }
}
