//! Pebble, a certificate authority for tests that speaks ACME, and the names that it resolves.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, bail};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::watch,
    task::JoinHandle,
};

use crate::{Certificate, Connection, Response, TlsClient, hub::collect_lines, patiently, port::Port};

/// Where tests/setup builds it.
const BUILT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/.cache/bin/pebble");
/// Names that begin with this do not exist. All others are this machine.
const MISSING: &[u8] = b"\x07missing";

/// A `pebble` on a port of loopback. Dropping this value kills it. It keeps nothing: with each start
/// it has new keys, and has forgotten all accounts.
#[derive(Debug)]
pub struct Pebble {
    folder: TempDir,
    own: Certificate,
    port: Port,
    management: Port,
    names: SocketAddr,
    resolving: JoinHandle<()>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    output: watch::Receiver<Vec<String>>,
}

/// Where Pebble finds the servers whose names it validates, and for how long it issues certificates.
#[derive(Clone, Copy, Debug, Default)]
pub struct PebbleSettings {
    /// The port of HTTP-01.
    pub http_port: u16,
    /// The port of TLS-ALPN-01.
    pub tls_port: u16,
    /// The lifetime of certificates, in seconds.
    pub validity_secs: u64,
}

impl Pebble {
    /// Starts an authority.
    pub async fn start(settings: PebbleSettings) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("no folder for Pebble")?;
        let own = Certificate::create(folder.path(), "own", &["127.0.0.1"])?;
        let resolver = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let names = resolver.local_addr()?;
        let (port, management) = (Port::reserve()?, Port::reserve()?);
        let configuration = json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{}", port.number()),
            "managementListenAddress": format!("127.0.0.1:{}", management.number()),
            "certificate": own.certificate,
            "privateKey": own.key,
            "httpPort": settings.http_port,
            "tlsPort": settings.tls_port,
            "keyAlgorithm": "ecdsa",
            "retryAfter": { "authz": 1, "order": 1 },
            "profiles": { "default": { "description": "all", "validityPeriod": settings.validity_secs } },
        }});
        fs::write(folder.path().join("pebble.json"), configuration.to_string())?;
        let resolving = tokio::spawn(async move {
            while let Ok((client, _)) = resolver.accept().await {
                tokio::spawn(resolve(client));
            }
        });
        let mut pebble = Self { folder, own, port, management, names, resolving, running: None };
        pebble.start_again().await?;
        Ok(pebble)
    }

    /// Starts it again on the same port.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        let built = Path::new(BUILT);
        let mut child = Command::new(if built.is_file() { built } else { Path::new("pebble") })
            .args(["-strict", "-dnsserver", &self.names.to_string(), "-config"])
            .arg(self.folder.path().join("pebble.json"))
            // It validates without a delay, always, and accepts every nonce that it has given.
            .envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_AUTHZREUSE", "0"), ("PEBBLE_WFE_NONCEREJECT", "0")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start pebble; tests/setup builds it, with Go")?;
        let (lines, output) = watch::channel(Vec::new());
        collect_lines(child.stdout.take().expect("stdout is piped"), lines.clone());
        collect_lines(child.stderr.take().expect("stderr is piped"), lines);
        let running = self.running.insert(Running { child, output });
        let both = [self.port.number(), self.management.number()];
        let accepted = patiently("Pebble to listen", async {
            for port in both {
                while Connection::open((Ipv4Addr::LOCALHOST, port).into()).await.is_err() {
                    if running.child.try_wait()?.is_some() {
                        bail!("pebble ended; it printed:\n{}", running.output.borrow().join("\n"));
                    }
                    tokio::task::yield_now().await;
                }
            }
            Ok(())
        });
        accepted.await?
    }

    /// Ends it.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.running.take().context("this Pebble is not running")?.child.kill().await?;
        Ok(())
    }

    /// The URL of its directory.
    pub fn directory(&self) -> String {
        format!("https://127.0.0.1:{}/dir", self.port.number())
    }

    /// The certificate that its server is verified with.
    pub fn own_certificate(&self) -> &Path {
        &self.own.certificate
    }

    /// A file with the certificate that those which it issues are verified with.
    pub async fn root(&self) -> anyhow::Result<PathBuf> {
        let file = self.folder.path().join("root.pem");
        fs::write(&file, self.manage("GET /roots/0", b"").await?.body)?;
        Ok(file)
    }

    /// How many orders were placed since its last start.
    pub fn orders(&self) -> usize {
        let lines = self.running.as_ref().map(|running| running.output.borrow().clone()).unwrap_or_default();
        lines.iter().filter(|line| line.contains("POST /order-plz")).count()
    }

    /// Suggests from now on that this certificate (a text in PEM) be renewed at once (RFC 9773).
    pub async fn suggest_renewal(&self, certificate: &str) -> anyhow::Result<()> {
        let window =
            json!({ "suggestedWindow": { "start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z" } });
        let first = certificate.find("-----BEGIN CERTIFICATE").context("there is no certificate")?;
        let request = json!({ "certificate": &certificate[first..], "ariResponse": window.to_string() });
        self.manage("POST /set-renewal-info/", request.to_string().as_bytes()).await?;
        Ok(())
    }

    async fn manage(&self, head: &str, body: &[u8]) -> anyhow::Result<Response> {
        let address = (Ipv4Addr::LOCALHOST, self.management.number()).into();
        let client = TlsClient::trusting(&self.own.certificate)?;
        let mut connection = Connection::open_tls(address, &client, "127.0.0.1").await?;
        connection.request(&format!("{head}\nUser-Agent: tests"), body).await?;
        let response = connection.response().await?;
        if response.status != 200 {
            bail!("Pebble answered {head}: {response}");
        }
        Ok(response)
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.resolving.abort();
    }
}

/// Answers the queries of a connection, each with its length in front (RFC 1035, 4.2.2), until it
/// ends.
async fn resolve(mut client: TcpStream) -> Option<()> {
    loop {
        let mut query = vec![0; client.read_u16().await.ok()?.into()];
        client.read_exact(&mut query).await.ok()?;
        let answer = answer(&query)?;
        client.write_u16(answer.len().try_into().ok()?).await.ok()?;
        client.write_all(&answer).await.ok()?;
    }
}

/// The answer to a query of the domain name system (RFC 1035, 4.1) with one question.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    const HEADER_BYTES: usize = 12;
    const A: [u8; 2] = [0, 1];
    let mut end = HEADER_BYTES;
    loop {
        match *query.get(end)? {
            0 => break,
            length => end += 1 + usize::from(length),
        }
    }
    // The end of the name, its type and its class.
    let question = query.get(HEADER_BYTES..end + 5)?;
    let is_missing = question.starts_with(MISSING);
    let has_address = !is_missing && question[question.len() - 4..][..2] == A;
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, if is_missing { 0x83 } else { 0x80 }, 0, 1, 0, u8::from(has_address), 0, 0, 0, 0]);
    answer.extend(question);
    if has_address {
        // The name of the question, its type and class, a minute, and the address.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    Some(answer)
}
