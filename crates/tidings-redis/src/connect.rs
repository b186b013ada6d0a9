//! Connections to the one server that accepts writes.
//!
//! Sentinel and Redis Cluster look the same here: everything that this crate keeps under one name
//! lies in one slot, so there is always one server to talk to, and the only question is which. It
//! is asked before every connection, never remembered: a failover ends connections and refuses
//! commands, and a client that reconnects finds the new master.
//!
//! Nothing waits without a limit: [`CONNECT_TIME_MAX`] for a connection, all steps included;
//! [`RESPONSE_TIME_MAX`] for a command.

use std::{convert::Infallible, error::Error, fmt, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    PushInfo, RedisConnectionInfo, TlsCertificates, aio::MultiplexedConnection, cmd, from_redis_value_ref,
};
use tidings_net::Backoff;

use crate::{Address, RedisUrl, Servers, Tls};

/// How long connecting may take, discovery of the server and login included.
pub(crate) const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// How long the reply to a command may take, unless the command itself waits.
pub(crate) const RESPONSE_TIME_MAX: Duration = Duration::from_secs(5);

/// The longest time between two attempts to connect.
pub(crate) const RETRY_TIME_MAX: Duration = Duration::from_secs(2);

/// The time between two attempts to connect.
pub(crate) const RETRY: Backoff = Backoff::new(Duration::from_millis(50), RETRY_TIME_MAX);

/// The part of [`CONNECT_TIME_MAX`] that one server may take, so that a silent Sentinel does not
/// use up the time of the others.
const ONE_SERVER_TIME_MAX: Duration = Duration::from_secs(1);

/// What went wrong, in words for people.
pub(crate) type Problem = Box<dyn Error + Send + Sync>;

/// Makes connections to the master of one slot.
#[derive(Clone, Debug)]
pub struct Connector {
    url: RedisUrl,
    /// Any key of the slot, if there are slots.
    key: String,
    role: &'static str,
}

/// There is no connection. The reason is meant for people.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{servers} cannot be reached: {problem}")]
pub struct Unreachable {
    servers: String,
    problem: String,
}

impl Connector {
    /// Connections to the server that has, or would have, this key. Redis shows them as `tidings:`
    /// and this role in its CLIENT LIST.
    pub fn new(url: RedisUrl, key: impl Into<String>, role: &'static str) -> Self {
        Self { url, key: key.into(), role }
    }

    /// Whether there is a server now that has the key, accepts the login and answers.
    pub async fn check(&self) -> Result<(), Unreachable> {
        let mut connection = self.open().await?;
        let answered = cmd("PING").query_async(&mut connection).await;
        answered.map_err(|error| self.unreachable(error.to_string()))
    }

    /// A connection whose commands are answered within [`RESPONSE_TIME_MAX`], or fail.
    pub(crate) async fn open(&self) -> Result<MultiplexedConnection, Unreachable> {
        self.open_with(RESPONSE_TIME_MAX).await
    }

    /// The same with another limit, for commands that wait.
    pub(crate) async fn open_with(
        &self,
        response_time_max: Duration,
    ) -> Result<MultiplexedConnection, Unreachable> {
        self.in_time(async { self.connect(&self.client().await?, &config(response_time_max)).await }).await
    }

    /// A connection for commands and subscriptions alike (RESP3, which Redis supports since version
    /// 6). `receive` is called with every push message of the server, in order, and with its end;
    /// it must not wait.
    pub(crate) async fn open_hearing(
        &self,
        receive: impl Fn(PushInfo) -> Result<(), Infallible> + Send + Sync + 'static,
    ) -> Result<MultiplexedConnection, Unreachable> {
        self.in_time(async {
            let info = self.client().await?.get_connection_info().clone();
            let login = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
            let config = config(RESPONSE_TIME_MAX).set_push_sender(receive);
            let client = Client::open(info.set_redis_settings(login))?;
            self.connect(&client, &config).await
        })
        .await
    }

    /// Connects and names the connection. A server that refuses the name is used without.
    async fn connect(
        &self,
        client: &Client,
        config: &AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, Problem> {
        let mut connection = client.get_multiplexed_async_connection_with_config(config).await?;
        let name = format!("tidings:{}", self.role);
        cmd("CLIENT").arg(&["SETNAME", &*name]).query_async::<()>(&mut connection).await.ok();
        Ok(connection)
    }

    async fn in_time<T>(
        &self,
        connecting: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Unreachable> {
        let connected = tokio::time::timeout(CONNECT_TIME_MAX, connecting).await;
        let problem = match connected {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(problem)) => problem.to_string(),
            Err(_) => format!("no answer within {} s", CONNECT_TIME_MAX.as_secs()),
        };
        Err(self.unreachable(problem))
    }

    fn unreachable(&self, problem: String) -> Unreachable {
        Unreachable { servers: self.url.to_string(), problem }
    }

    /// A client of the server that has the key now.
    async fn client(&self) -> Result<Client, Problem> {
        let (user, password) = (self.url.user.as_deref(), self.url.password.as_deref());
        let login = login(user, password).set_db(self.url.database.into());
        let address = match &self.url.servers {
            Servers::Single(address) => address.clone(),
            Servers::Socket(path) => {
                return Ok(Client::open(info(ConnectionAddr::Unix(path.clone()), login)?)?);
            }
            Servers::Sentinel { sentinels, service, user, password } => {
                let login = crate::connect::login(user.as_deref(), password.as_deref());
                self.first_answer(sentinels, &login, Some(service)).await?
            }
            Servers::Cluster(nodes) => self.first_answer(nodes, &login, None).await?,
        };
        self.client_of(&address, login)
    }

    /// Asks one server after the other until one knows the master: of a service, if they are
    /// Sentinels, or else of the key.
    async fn first_answer(
        &self,
        servers: &[Address],
        login: &RedisConnectionInfo,
        service: Option<&str>,
    ) -> Result<Address, Problem> {
        let mut problems = Vec::new();
        for server in servers {
            let answered = tokio::time::timeout(ONE_SERVER_TIME_MAX, async {
                let client = self.client_of(server, login.clone())?;
                let config = config(ONE_SERVER_TIME_MAX);
                let mut connection = self.connect(&client, &config).await?;
                match service {
                    Some(service) => master_of(service, &mut connection).await,
                    None => owner_of(&self.key, &mut connection, server).await,
                }
            });
            match answered.await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(problem)) => problems.push(format!("{server}: {problem}")),
                Err(_) => problems.push(format!("{server}: no answer")),
            }
        }
        Err(problems.join("; ").into())
    }

    fn client_of(&self, address: &Address, login: RedisConnectionInfo) -> Result<Client, Problem> {
        let Address { host, port } = address.clone();
        let Some(tls) = &self.url.tls else {
            return Ok(Client::open(info(ConnectionAddr::Tcp(host, port), login)?)?);
        };
        let address = ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
        Ok(Client::build_with_tls(info(address, login)?, certificates(tls)?)?)
    }
}

/// The master of a service, according to a Sentinel.
async fn master_of(service: &str, sentinel: &mut MultiplexedConnection) -> Result<Address, Problem> {
    let answer: Option<(String, u16)> =
        cmd("SENTINEL").arg(&["GET-MASTER-ADDR-BY-NAME", service]).query_async(sentinel).await?;
    let (host, port) = answer.ok_or_else(|| format!("unknown service {service}"))?;
    Ok(Address { host, port })
}

/// The node of a Redis Cluster that has a key, according to another node.
async fn owner_of(key: &str, node: &mut MultiplexedConnection, asked: &Address) -> Result<Address, Problem> {
    let slot: u16 = cmd("CLUSTER").arg(&["KEYSLOT", key]).query_async(node).await?;
    // Of each range: its first and last slot, then its master, then the replicas.
    let ranges: Vec<Vec<redis::Value>> = cmd("CLUSTER").arg("SLOTS").query_async(node).await?;
    for range in ranges {
        let [first, last, redis::Value::Array(master), ..] = &range[..] else { continue };
        let (first, last): (u16, u16) = (from_redis_value_ref(first)?, from_redis_value_ref(last)?);
        let [host, port, ..] = &master[..] else { continue };
        if (first..=last).contains(&slot) {
            // A node that does not know its own address leaves it out: it is the node that was
            // asked.
            let host: Option<String> = from_redis_value_ref(host)?;
            let host = host.filter(|host| !host.is_empty()).unwrap_or_else(|| asked.host.clone());
            return Ok(Address { host, port: from_redis_value_ref(port)? });
        }
    }
    Err(format!("no node of the cluster has the slot {slot}").into())
}

/// The policy by which the server evicts keys when its memory is full, if it can be read. Providers
/// often refuse CONFIG, and users with restricted permissions may have neither command.
pub(crate) async fn eviction_policy(connection: &mut MultiplexedConnection) -> Option<String> {
    let reported: Result<Vec<String>, _> =
        cmd("CONFIG").arg(&["GET", "maxmemory-policy"]).query_async(connection).await;
    if let Ok([_, policy]) = reported.as_deref() {
        return Some(policy.clone());
    }
    let reported: String = cmd("INFO").arg("memory").query_async(connection).await.ok()?;
    reported.lines().find_map(|line| line.strip_prefix("maxmemory_policy:")).map(str::to_owned)
}

fn config(response_time_max: Duration) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIME_MAX))
        .set_response_timeout(Some(response_time_max))
}

fn login(user: Option<&str>, password: Option<&str>) -> RedisConnectionInfo {
    let mut login = RedisConnectionInfo::default();
    if let Some(user) = user {
        login = login.set_username(user);
    }
    if let Some(password) = password {
        login = login.set_password(password);
    }
    login
}

fn info(address: ConnectionAddr, login: RedisConnectionInfo) -> Result<ConnectionInfo, Problem> {
    Ok(address.into_connection_info()?.set_redis_settings(login))
}

/// The files are read for each connection, so that a certificate can be renewed while the hub runs.
fn certificates(tls: &Tls) -> Result<TlsCertificates, Problem> {
    // The client library takes the provider of the process, and there may be none yet. A provider
    // that the process has already installed is kept.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
    };
    let root_cert = tls.trusted.as_deref().map(read).transpose()?;
    let client_tls = match &tls.own {
        Some((certificate, key)) => {
            Some(redis::ClientTlsConfig { client_cert: read(certificate)?, client_key: read(key)? })
        }
        None => None,
    };
    Ok(TlsCertificates { client_tls, root_cert })
}

impl fmt::Display for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}
