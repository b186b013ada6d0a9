//! nginx in front of a hub.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tidings_testkit::{Certificate, PATIENCE, Port};

const CONFIGURATION: &str = include_str!("../nginx.conf");

/// A running nginx. Dropping this value stops it, with its workers.
pub(crate) struct Nginx {
    process: Child,
    port: Port,
}

impl Nginx {
    /// Starts it in this folder with a certificate, in front of the hub at this address, and waits
    /// until it accepts connections.
    pub(crate) fn start(folder: &Path, files: &Certificate, hub: SocketAddr) -> anyhow::Result<Self> {
        let port = Port::reserve()?;
        let text = |path: &Path| path.to_str().map(str::to_owned).context("a path is not UTF-8");
        let configuration = CONFIGURATION
            .replace("FOLDER", &text(folder)?)
            .replace("PORT", &port.number().to_string())
            .replace("CERTIFICATE", &text(&files.certificate)?)
            .replace("KEY", &text(&files.key)?)
            .replace("HUB", &hub.to_string());
        let file = folder.join("nginx.conf");
        fs::write(&file, configuration)?;
        // Debian installs it in a directory that is not in the PATH of ordinary users.
        let path = std::env::var("PATH").unwrap_or_default();
        let process = Command::new("nginx")
            .args(["-e", "stderr", "-g", "daemon off;", "-p"])
            .arg(folder)
            .arg("-c")
            .arg(file)
            .env("PATH", format!("{path}:/usr/sbin"))
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start nginx; `tests/setup bench` installs Debian's")?;
        let mut nginx = Self { process, port };
        let began = Instant::now();
        while TcpStream::connect(nginx.address()).is_err() {
            if let Some(status) = nginx.process.try_wait()? {
                bail!("nginx ended at once ({status})");
            }
            ensure!(began.elapsed() < PATIENCE, "nginx does not accept connections");
            sleep(Duration::from_millis(5));
        }
        Ok(nginx)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number()).into()
    }

    /// The process that started its workers.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let _ = self.process.wait();
    }
}
