//! The configuration of `tidings serve`: a file, overridden by the environment, overridden by
//! flags.
//!
//! Words are merged first ([`layers`]) and parsed afterwards ([`values`]), so that a setting means
//! the same in every source and an error names the setting as its source does. Keys, the issuers of
//! tokens and the secrets of tickets are set only in the file ([`access`]).

mod access;
mod acme;
#[cfg(unix)]
mod application;
mod authorize;
mod certificates;
mod combinations;
mod differences;
mod effects;
mod environment;
mod find;
mod hooks;
mod issuers;
mod layers;
mod listen;
mod print;
mod retention;
mod secret_files;
mod secret_source;
mod settings;
mod tables;
mod template;
mod upstream;
mod values;

use std::{
    fs,
    num::NonZero,
    path::{Path, PathBuf},
    thread::available_parallelism,
};

use tidings::{TopicGlob, web::HostName};
use tidings_auth::{AuthConfig, MercureRevision};
use tidings_net::redacted;
use tidings_server::{
    AllowedHosts, AllowedOrigin, AuthorizedPath, CertificateFiles, Certificates, ClientAddressSource,
    TrustedProxy,
};
use url::Url;

#[cfg(unix)]
pub(crate) use self::application::{ApplicationAccess, PORT, TICKET_SECRET};
use self::{
    access::Access,
    acme::Acme,
    authorize::Authorize,
    certificates::CertificateTables,
    hooks::HookTables,
    layers::{Merged, Source},
    retention::Retention,
};
pub(crate) use self::{
    acme::{AcmeSettings, Challenge},
    effects::{load, warnings},
    environment::{near_misses, unknown_variables},
    find::find_file,
    layers::SettingFlags,
    listen::{Listen, Place},
    secret_files::warn_of_readable,
    secret_source::read_secret_file,
    tables::TABLES,
    template::template,
    upstream::UpstreamConfig,
    values::{HUB_PATH, LogFormat, time},
};
#[cfg_attr(not(feature = "demo"), allow(unused_imports, reason = "for `tidings demo`"))]
pub(crate) use self::{layers::StoreFlags, values::LOG_LEVEL};
use crate::{
    bridges::{self, BridgeSettings},
    failure::Failure,
    hooks::HookSettings,
    store::{self, Keeping, Store},
};

/// The largest configuration file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The checked configuration of `tidings serve`. `Debug` shows no secret.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub(crate) struct ServeConfig {
    pub(crate) listen: Vec<Listen>,
    pub(crate) admin_listen: Vec<Listen>,
    pub(crate) trusted_proxies: Vec<TrustedProxy>,
    pub(crate) client_address: ClientAddressSource,
    pub(crate) public_url: Option<Url>,
    pub(crate) allow_origins: Vec<AllowedOrigin>,
    pub(crate) allow_hosts: Vec<HostName>,
    pub(crate) streams: Vec<String>,
    pub(crate) bridges: Vec<BridgeSettings>,
    pub(crate) keeping: Keeping,
    /// Rules that move into `keeping` once a validator can parse their matchers.
    pub(crate) retention: Retention,
    pub(crate) heartbeat_secs: u64,
    pub(crate) retry_millis: u64,
    pub(crate) stream_lifetime_secs_max: Option<u64>,
    pub(crate) charset_utf8: bool,
    /// Whether the hub knows who is subscribed; where there are hooks, it does.
    pub(crate) presence: bool,
    pub(crate) presence_events: bool,
    pub(crate) presence_grace_secs: u64,
    pub(crate) mercure_subscriptions: bool,
    /// The applications that are notified of who comes and leaves.
    pub(crate) hooks: Vec<HookSettings>,
    pub(crate) no_auth: bool,
    pub(crate) anonymous: bool,
    mercure_revisions: Vec<MercureRevision>,
    pub(crate) connections_max: usize,
    pub(crate) streams_max: usize,
    pub(crate) streams_per_address_max: Option<usize>,
    pub(crate) streams_per_subject_max: Option<NonZero<u32>>,
    pub(crate) patterns_max: usize,
    pub(crate) patterns_per_address_max: usize,
    pub(crate) pattern_weight_max: u32,
    pub(crate) pattern_weight_per_address_max: u32,
    pub(crate) pattern_bytes_max: usize,
    pub(crate) batch_events_max: usize,
    pub(crate) topics_max: usize,
    pub(crate) matchers_max: usize,
    pub(crate) body_bytes_max: usize,
    pub(crate) bodies_bytes_max: usize,
    pub(crate) responses_bytes_max: usize,
    pub(crate) request_headers_bytes_max: usize,
    pub(crate) requests_max: usize,
    pub(crate) requests_arriving_max: usize,
    pub(crate) http2: bool,
    pub(crate) first_byte_secs: u64,
    pub(crate) request_headers_secs: u64,
    pub(crate) body_secs: u64,
    pub(crate) response_secs: u64,
    pub(crate) keep_alive_secs: u64,
    pub(crate) drain_secs: u64,
    pub(crate) drain_delay_secs: u64,
    pub(crate) upgrade_secs: u64,
    pub(crate) dead_peer_secs: u64,
    pub(crate) threads: usize,
    pub(crate) log: LogFormat,
    pub(crate) log_level: String,
    pub(crate) access_log: bool,
    pub(crate) verbose: bool,
    #[cfg_attr(not(unix), expect(dead_code, reason = "no signals, no need"))]
    pub(crate) pid_file: Option<PathBuf>,
    /// The paths whose streams an application decides about.
    pub(crate) authorize: Vec<AuthorizedPath>,
    pub(crate) authorize_requests_max: usize,
    pub(crate) upstream: Option<UpstreamConfig>,
    pub(crate) private_topics: Vec<TopicGlob>,
    pub(crate) auth: AuthConfig,
    /// Those of `tls_certificate` first, then those of `[[certificate]]`.
    pub(crate) certificates: Vec<CertificateFiles>,
    /// The authority that issues a certificate to the hub.
    pub(crate) acme: Option<AcmeSettings>,
    /// Files that hold secrets, including the configuration file if it does.
    pub(crate) secret_files: Vec<PathBuf>,
    /// Whether this is `tidings run`.
    pub(crate) runs_application: bool,
    /// The configuration as it was written, for `--check`.
    written: Written,
}

#[derive(Clone, Debug)]
struct Written {
    merged: Merged,
    access: Access,
    certificates: CertificateTables,
    acme: Acme,
    retention: Retention,
    authorize: Authorize,
    hooks: HookTables,
}

impl ServeConfig {
    /// Reads all sources and checks each setting. `room` is how many connections the file
    /// descriptor limit allows.
    #[allow(clippy::too_many_lines, reason = "one line for each setting; elsewhere there are fewer")]
    fn read(file: Option<&Path>, given: SettingFlags, room: usize) -> Result<Self, Failure> {
        let (mut table, name, folder) = read_file(file)?;
        let authorize = Authorize::take_from(&mut table, &name)?;
        let layer = layers::from_file(&mut table, &name)?;
        let access = Access::take_from(&mut table, &name)?;
        let certificates = CertificateTables::take_from(&mut table, &name)?;
        let acme = Acme::take_from(&mut table, &name)?;
        let retention = Retention::take_from(&mut table, &name)?;
        let hook_tables = HookTables::take_from(&mut table, &name)?;
        if let Some(unknown) = table.keys().next() {
            return Err(unknown_setting(unknown, &name));
        }
        let mut merged = Merged::new(layer, given.environment, given.flags, &name);

        #[cfg(unix)]
        if let Some(application) = &given.application {
            if let Some(listen) = application.listen_default() {
                merged.replace_default("listen", listen);
            }
            merged.default_to("upstream", application.upstream_default());
        }
        let (upstream, room) = UpstreamConfig::read(&mut merged, room)?;
        merged.default_to("connections_max", room);
        let connections_max = merged.value("connections_max", values::count)?;
        merged.default_to("threads", available_parallelism().map_or(1, NonZero::get));
        merged.default_to("streams_max", streams_default(connections_max));
        let public_url = merged.one("public_url", values::public_url)?;
        let authorize_secs = merged.value("authorize_secs", values::seconds)?;
        let hub_path = public_url.as_ref().map_or(HUB_PATH, Url::path);
        let allow_hosts: Vec<HostName> = merged.many("allow_host", values::parsed)?;
        let bridges = merged.many("bridge", bridges::parse)?;
        let hooks = hook_tables.settings(&folder)?;
        let presence_events = merged.value("presence_events", values::truth)?;
        let mut keeping = keeping(&mut merged, &folder)?;
        let mercure_subscriptions = merged.value("mercure_subscriptions", values::truth)?;
        keeping.has_journal = presence_events || mercure_subscriptions || !hooks.is_empty();
        let files_of_setting =
            [path(&merged, "tls_certificate", &folder)?, path(&merged, "tls_key", &folder)?];
        let certificate_files = certificates.files(&merged, files_of_setting, &folder)?;
        let mut secret_files = access.secret_files(&folder);
        secret_files.extend(hook_tables.secret_files(&folder));
        secret_files.extend(certificate_files.iter().map(|files| files.key.clone()));
        secret_files.extend(secret_files::of_connections(&keeping.store, &bridges));
        let holds_secret =
            access.holds_secret() || hook_tables.holds_secret() || merged.has_password_in_file();
        if let Some(file) = file.filter(|_| holds_secret) {
            secret_files.push(file.to_owned());
        }
        #[cfg_attr(not(unix), expect(unused_mut, reason = "there is no `tidings run`"))]
        let mut config = Self {
            listen: listens(&merged, "listen", &folder)?,
            admin_listen: listens(&merged, "admin_listen", &folder)?,
            trusted_proxies: merged.many("trusted_proxy", str::parse)?,
            client_address: merged.value("client_address", str::parse)?,
            allow_origins: merged.many("allow_origin", values::parsed)?,
            auth: access.auth_config(
                &folder,
                &own_urls(public_url.as_ref(), &allow_hosts),
                merged.value("cookie_name", str::parse)?,
            )?,
            allow_hosts,
            streams: merged.many("stream", |topic| Ok(topic.to_owned()))?,
            bridges,
            keeping,
            heartbeat_secs: merged.value("heartbeat_secs", values::heartbeat_secs)?,
            retry_millis: merged.value("retry_millis", values::retry_millis)?,
            stream_lifetime_secs_max: merged
                .value("stream_lifetime_secs_max", |word| values::limit(word, values::seconds))?,
            charset_utf8: merged.value("charset_utf8", values::truth)?,
            presence: merged.value("presence", values::truth)? || presence_events || !hooks.is_empty(),
            presence_events,
            presence_grace_secs: merged.value("presence_grace_secs", values::seconds_or_none)?,
            mercure_subscriptions,
            no_auth: merged.value("no_auth", values::truth)?,
            anonymous: merged.value("anonymous", values::truth)?,
            mercure_revisions: merged.many("mercure_revisions", str::parse)?,
            connections_max,
            streams_max: merged.value("streams_max", values::count)?,
            streams_per_address_max: merged
                .value("streams_per_address_max", |word| values::limit(word, values::count))?,
            streams_per_subject_max: merged
                .value("streams_per_subject_max", |word| values::limit(word, values::count))?
                .and_then(NonZero::new),
            patterns_max: merged.value("patterns_max", values::count)?,
            patterns_per_address_max: merged.value("patterns_per_address_max", values::count)?,
            pattern_weight_max: merged.value("pattern_weight_max", values::count)?,
            pattern_weight_per_address_max: merged.value("pattern_weight_per_address_max", values::count)?,
            pattern_bytes_max: merged.value("pattern_bytes_max", values::memory_bytes)?,
            batch_events_max: merged.value("batch_events_max", values::count)?,
            topics_max: merged.value("topics_max", values::count)?,
            matchers_max: merged.value("matchers_max", values::count)?,
            body_bytes_max: merged.value("body_bytes_max", values::memory_bytes)?,
            bodies_bytes_max: merged.value("bodies_bytes_max", values::memory_bytes)?,
            responses_bytes_max: merged.value("responses_bytes_max", values::memory_bytes)?,
            request_headers_bytes_max: merged.value("request_headers_bytes_max", values::memory_bytes)?,
            requests_max: merged.value("requests_max", values::count)?,
            requests_arriving_max: merged.value("requests_arriving_max", values::count)?,
            http2: merged.value("http2", values::truth)?,
            first_byte_secs: merged.value("first_byte_secs", values::seconds)?,
            request_headers_secs: merged.value("request_headers_secs", values::seconds)?,
            body_secs: merged.value("body_secs", values::seconds)?,
            response_secs: merged.value("response_secs", values::seconds)?,
            keep_alive_secs: merged.value("keep_alive_secs", values::seconds)?,
            drain_secs: merged.value("drain_secs", values::seconds)?,
            drain_delay_secs: merged.value("drain_delay_secs", values::seconds_or_none)?,
            upgrade_secs: merged.value("upgrade_secs", values::seconds)?,
            dead_peer_secs: merged.value("dead_peer_secs", values::seconds)?,
            threads: merged.value("threads", values::count)?,
            log: merged.value("log", str::parse)?,
            log_level: merged.value("log_level", values::log_level)?,
            access_log: merged.value("access_log", values::truth)?,
            verbose: merged.value("verbose", values::truth)?,
            pid_file: path(&merged, "pid_file", &folder)?,
            authorize: authorize.paths(&merged, authorize_secs, hub_path)?,
            authorize_requests_max: merged.value("authorize_requests_max", values::count)?,
            upstream,
            private_topics: access.private_topics(&name)?,
            secret_files,
            hooks,
            public_url,
            retention: retention.clone(),
            certificates: certificate_files,
            acme: acme.settings(&folder)?,
            runs_application: false,
            written: Written { merged, access, certificates, acme, retention, authorize, hooks: hook_tables },
        };
        #[cfg(unix)]
        if let Some(application) = &given.application {
            application.add_to(&mut config.auth);
            config.runs_application = true;
        }
        config.check_combinations()?;
        Ok(config)
    }

    /// Whether the hub requires credentials.
    pub(crate) fn has_credentials(&self) -> bool {
        !self.auth.keys.is_empty() || !self.auth.issuers.is_empty() || !self.auth.ticket_secrets.is_empty()
    }

    /// Whether the hub serves the older revision of the Mercure protocol, next to the current one.
    pub(crate) fn serves_older_mercure_revision(&self) -> bool {
        self.mercure_revisions.contains(&MercureRevision::Older)
    }

    /// The hosts for which requests are accepted. A hub with keys and without a configured name
    /// accepts every host.
    pub(crate) fn hosts(&self) -> AllowedHosts {
        if self.has_credentials() && self.public_url.is_none() && self.allow_hosts.is_empty() {
            return AllowedHosts::Any;
        }
        AllowedHosts::Listed(self.allow_hosts.iter().cloned().collect())
    }

    /// The configuration in the format of the file, secrets hidden, each line with its source.
    pub(crate) fn to_toml(&self) -> String {
        let Written { merged, access, certificates, acme, retention, authorize, hooks } = &self.written;
        print::to_toml(merged, access, certificates, acme, retention, authorize, hooks)
    }

    /// A setting as it was written, without its passwords, for the log.
    pub(crate) fn shown(&self, name: &str) -> String {
        let words = self.written.merged.get(name).map_or(&[][..], |(_, words)| words);
        words.iter().map(|word| redacted(word)).collect::<Vec<_>>().join(" ")
    }

    /// Where trusted proxies state the address of a client, for each configured address.
    pub(crate) fn client_addresses(&self) -> impl Iterator<Item = ClientAddressSource> {
        let of_clients =
            self.listen.iter().map(|listen| listen.client_address.unwrap_or(self.client_address));
        of_clients.chain(self.admin_listen.iter().filter_map(|listen| listen.client_address))
    }

    /// The file that was read, if there is one.
    pub(crate) fn file_name(&self) -> Option<&str> {
        self.written.merged.file_name()
    }

    /// Whether this setting was given a value.
    pub(crate) fn is_given(&self, name: &str) -> bool {
        self.written.merged.get(name).is_some_and(|(source, _)| source != Source::Default)
    }

    /// The environment variables that the file takes secrets from.
    pub(crate) fn secret_variables(&self) -> Vec<&str> {
        let mut variables = self.written.access.secret_variables();
        variables.extend(self.written.hooks.secret_variables());
        variables
    }

    /// Whether the hub has certificates, or obtains one.
    pub(crate) fn has_tls(&self) -> bool {
        !self.certificates.is_empty() || self.acme.is_some()
    }

    /// Reads the certificates and their keys, but for the one that an authority issues; none is a hub
    /// without TLS.
    pub(crate) fn read_certificates(&self) -> Result<Option<Certificates>, Failure> {
        if !self.has_tls() {
            return Ok(None);
        }
        let read = Certificates::read(&self.certificates);
        read.map(Some).map_err(|error| Failure::usage(format!("TLS: {error}")))
    }

    /// An error in a setting that only the server detects.
    pub(crate) fn refuse(&self, name: &str, reason: &str) -> Failure {
        self.written.merged.refuse(name, reason)
    }
}

#[cfg_attr(not(feature = "demo"), allow(dead_code, reason = "for `tidings demo`"))]
impl StoreFlags {
    /// The store of a command without a configuration file.
    pub(crate) fn keeping(self) -> Result<Keeping, Failure> {
        let mut merged = Merged::new(layers::Layer::new(), self.0.environment, self.0.flags, "");
        keeping(&mut merged, Path::new(""))
    }
}

/// The store. A path in the file is relative to the folder of the file.
fn keeping(merged: &mut Merged, folder: &Path) -> Result<Keeping, Failure> {
    let mut store: Store = merged.value("store", str::parse)?;
    if let Store::Directory(path) = &mut store {
        if merged.get("store").is_some_and(|(source, _)| source == Source::File) {
            *path = folder.join(&*path);
        }
        merged.default_to("sync", "always");
    }
    let sync = merged.one("sync", store::sync)?;
    if sync.is_some() && !matches!(store, Store::Directory(_)) {
        return Err(
            merged.refuse("sync", "the store is not a directory (--store DIR), so there is nothing to sync")
        );
    }
    merged.default_to("retain", store.age_default());
    merged.default_to("retain_bytes", store.bytes_default());
    Ok(Keeping {
        store,
        sync: sync.unwrap_or(store::Sync::Never),
        age_max: merged.value("retain", |word| values::limit(word, values::time))?,
        bytes_max: merged.value("retain_bytes", values::bytes)?,
        count_max: merged.value("retain_count", |word| values::limit(word, values::count))?,
        #[cfg(unix)]
        rules: Vec::new(),
        has_journal: false,
    })
}

/// The addresses of a setting. A path in the file is relative to the folder of the file.
#[cfg_attr(not(unix), expect(unused_variables, unused_mut, reason = "there are no paths"))]
fn listens(merged: &Merged, name: &'static str, folder: &Path) -> Result<Vec<Listen>, Failure> {
    let mut listens: Vec<Listen> = merged.many(name, str::parse)?;
    #[cfg(unix)]
    if merged.get(name).is_some_and(|(source, _)| source == Source::File) {
        for listen in &mut listens {
            listen.relative_to(folder);
        }
    }
    Ok(listens)
}

/// A path in the file is relative to the folder of the file.
fn path(merged: &Merged, name: &'static str, folder: &Path) -> Result<Option<PathBuf>, Failure> {
    let path = merged.one(name, |word| match Path::new(word).file_name() {
        Some(_) => Ok(PathBuf::from(word)),
        None => Err("is not the path of a file".to_owned()),
    })?;
    let is_of_file = merged.get(name).is_some_and(|(source, _)| source == Source::File);
    Ok(path.map(|path| if is_of_file { folder.join(path) } else { path }))
}

/// Reserves one connection in sixteen for publishers, health checks, and browsers that the hub asks
/// to retry later: a browser whose EventSource finds no connection gives up for good.
fn streams_default(connections_max: usize) -> usize {
    connections_max - connections_max.div_ceil(16)
}

/// The URLs of the hub, as its tokens may name it: the public one, and the same at each allowed
/// host.
fn own_urls(public_url: Option<&Url>, allow_hosts: &[HostName]) -> Vec<String> {
    let at_host = |host: &HostName| {
        // `*.example.com` names no host.
        let host = Some(host.to_string()).filter(|host| !host.contains('*'))?;
        let mut url =
            public_url.cloned().map_or_else(|| format!("https://{host}{HUB_PATH}").parse(), Ok).ok()?;
        url.set_host(Some(&host)).ok()?;
        url.set_port(None).ok()?;
        Some(url.to_string())
    };
    let public = public_url.map(Url::to_string);
    public.into_iter().chain(allow_hosts.iter().filter_map(at_host)).collect()
}

/// The parsed file, its name in messages, and the folder that its paths are relative to.
fn read_file(path: Option<&Path>) -> Result<(toml::Table, String, PathBuf), Failure> {
    let Some(path) = path else {
        return Ok((toml::Table::new(), String::new(), PathBuf::new()));
    };
    let name = path.display().to_string();
    let refuse = |why: &str| Failure::usage(format!("--config: cannot read {name}: {why}"));
    let size = fs::metadata(path).map_err(|error| refuse(&error.to_string()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(refuse("it is too large to be a configuration"));
    }
    let text = fs::read_to_string(path).map_err(|error| refuse(&error.to_string()))?;
    let table = text.parse().map_err(|error: toml::de::Error| {
        let line =
            error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        Failure::usage(format!("{name}, line {line}: {}", error.message()))
    })?;
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    Ok((table, name, folder))
}

fn unknown_setting(unknown: &str, file_name: &str) -> Failure {
    let underscored = unknown.replace('-', "_");
    let advice = if underscored != unknown && settings::setting(&underscored).is_some() {
        format!("write `{underscored}`")
    } else {
        "the names are those of the flags in `tidings serve --help`, with underscores".to_owned()
    };
    Failure::usage(format!("`{unknown}` in {file_name} is not a setting: {advice}"))
}

#[cfg(test)]
mod tests;
