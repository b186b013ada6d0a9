//! The application that `tidings run` runs.
//!
//! The hub binds its sockets, one of them for the application alone, then starts the application
//! with an environment that names them ([`Prepared::start`]), and keeps it running
//! ([`supervision`]).

mod copied_output;
mod free_port;
mod lines;
mod processes;
mod restarts;
mod state;
mod supervision;

use std::{env, ffi::OsString, io, net::SocketAddr, path::Path, process::Command, sync::Arc, time::Duration};

use tidings::Hub;
use tidings_server::{Component, Upstream};
use tokio::{sync::mpsc, task::JoinHandle};
use url::Url;

pub(super) use self::{free_port::free_port, restarts::RestartPolicy};
use self::{
    processes::Processes,
    restarts::{End, Restarts},
    state::ApplicationState,
    supervision::{Outcome, Supervision},
};
use super::listening::Listening;
use crate::{
    config::{ApplicationAccess, PORT, ServeConfig, TICKET_SECRET},
    failure::Failure,
};

/// Variables that name the port of the application: well-known servers look for it in others.
const PORT_VARIABLES: [&str; 3] = [PORT, "FLASK_RUN_PORT", "UVICORN_PORT"];
/// Python would keep what an application prints until it is a page long, and lose it in a crash.
const PYTHON_UNBUFFERED: (&str, &str) = ("PYTHONUNBUFFERED", "1");
/// Variables that are for the hub itself: sockets and notifications of its supervisor, and a
/// credential, which the URL contains already.
const NOT_PASSED_ON: [&str; 5] =
    ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "TIDINGS_TOKEN"];

/// The application that is to be run.
pub(super) struct Application {
    /// The program and its arguments.
    pub(super) command: Vec<OsString>,
    pub(super) restart: RestartPolicy,
    /// What it may do, which is a part of the configuration.
    pub(super) access: ApplicationAccess,
}

/// The application, whose address is known.
pub(super) struct Prepared {
    application: Application,
    state: ApplicationState,
}

/// The application that runs.
pub(super) struct Running {
    supervision: JoinHandle<Outcome>,
    stop: mpsc::Sender<()>,
}

impl Application {
    /// The application that requests are forwarded to.
    pub(super) fn behind(self, upstream: Upstream) -> Prepared {
        let program = Path::new(&self.command[0]).file_name().unwrap_or(&self.command[0]);
        let name = program.to_string_lossy().into_owned();
        Prepared { application: self, state: ApplicationState::new(name, upstream) }
    }
}

impl Prepared {
    /// What readiness and metrics know about it.
    pub(super) fn component(&self) -> Arc<dyn Component> {
        Arc::new(self.state.clone())
    }

    /// Starts it. Call it within a tokio runtime.
    pub(super) fn start(
        self,
        config: &ServeConfig,
        listening: &Listening,
        hub: Hub,
    ) -> Result<Running, Failure> {
        let Self { application: Application { command, restart, access }, state } = self;
        let cannot_start = |error: io::Error| Failure::runtime(format!("cannot start: {error}"));
        let hub_address = listening.application_address().expect("there is a socket for the application");
        let mut process = Command::new(&command[0]);
        process.args(&command[1..]);
        set_environment(&mut process, &access, config, hub_address, state.upstream());
        let (stop, stops) = mpsc::channel(1);
        let supervision = Supervision {
            command: process,
            processes: Processes::new().map_err(cannot_start)?,
            restarts: Restarts::new(restart),
            state,
            signals: listening.signals_for_application(),
            stops,
            patience: Duration::from_secs(config.drain_secs),
            hub,
        };
        let supervision = supervision.start().map_err(|error| not_started(&command[0], &error))?;
        Ok(Running { supervision, stop })
    }
}

impl Running {
    /// Ends the application, when the hub has ended, and waits for that. Returns how the program ends.
    pub(super) async fn end(self, served: Result<(), Failure>) -> Result<(), Failure> {
        // It may have ended already.
        let _ = self.stop.send(()).await;
        let outcome = self.supervision.await.map_err(Failure::runtime)?;
        served?;
        status(outcome)
    }
}

/// How the program ends when the application has ended.
fn status(outcome: Outcome) -> Result<(), Failure> {
    match outcome {
        Outcome::StoppedBetween | Outcome::Ended(End::Exited(0)) => Ok(()),
        Outcome::Ended(end) => {
            Err(Failure::Status { status: end.status(), message: format!("the application has ended {end}") })
        }
        Outcome::Stopped(end) if is_stop(end) => Ok(()),
        Outcome::Stopped(end) => Err(Failure::Status {
            status: end.status(),
            message: format!("the application was stopped, and has ended {end}"),
        }),
        Outcome::Killed => Err(Failure::Status {
            status: End::Signalled(9).status(),
            message: "the application did not end within drain_secs, and was killed".to_owned(),
        }),
    }
}

/// Whether an application that was asked to stop has done so: with status 0, or by a signal that
/// asks for it, or with the status of shells for that.
fn is_stop(end: End) -> bool {
    const ASKED: [u8; 3] = [2, 3, 15];
    match end {
        End::Exited(status) => status == 0 || ASKED.contains(&status.wrapping_sub(128)),
        End::Signalled(number) => ASKED.contains(&number),
    }
}

fn set_environment(
    process: &mut Command,
    access: &ApplicationAccess,
    config: &ServeConfig,
    hub: SocketAddr,
    upstream: &Upstream,
) {
    for name in NOT_PASSED_ON {
        process.env_remove(name);
    }
    let port = port_of(upstream);
    for name in PORT_VARIABLES {
        match port {
            Some(port) => process.env(name, port.to_string()),
            // The port of the environment is that of the hub.
            None => process.env_remove(name),
        };
    }
    process.env("TIDINGS_URL", format!("http://:{}@{hub}", access.key().expose()));
    let secret = config.auth.ticket_secrets.first().expect("there is one");
    process.env(TICKET_SECRET, format!("{}:{}", secret.id, secret.secret.expose()));
    let (name, value) = PYTHON_UNBUFFERED;
    if env::var_os(name).is_none() {
        process.env(name, value);
    }
}

/// The port of an application that listens on TCP.
fn port_of(upstream: &Upstream) -> Option<u16> {
    let url: Url = upstream.to_string().parse().ok()?;
    url.port_or_known_default()
}

fn not_started(program: &OsString, error: &io::Error) -> Failure {
    let advice = match error.kind() {
        io::ErrorKind::NotFound => "no such program: is it installed, and its directory in PATH?".to_owned(),
        io::ErrorKind::PermissionDenied => "it is not an executable file".to_owned(),
        _ => error.to_string(),
    };
    Failure::Status {
        status: End::of_unstartable(error).status(),
        message: format!("cannot run `{}`: {advice}", program.to_string_lossy()),
    }
}

#[cfg(test)]
mod tests {
    use tidings_server::UpstreamSettings;

    use super::*;

    #[test]
    fn an_application_gets_the_port_at_which_it_is_expected() {
        for (address, port) in [
            ("http://127.0.0.1:5000", Some(5_000)),
            ("http://localhost", Some(80)),
            ("unix:/run/app.sock", None),
        ] {
            let upstream = Upstream::new(address, UpstreamSettings::default()).unwrap();
            assert_eq!(port_of(&upstream), port, "{address}");
        }
    }

    #[test]
    fn the_program_ends_as_the_application_does() {
        for (outcome, expected) in [
            (Outcome::Ended(End::Exited(0)), None),
            (Outcome::Ended(End::Exited(3)), Some(3)),
            (Outcome::Ended(End::Signalled(11)), Some(139)),
            (Outcome::Stopped(End::Exited(0)), None),
            (Outcome::Stopped(End::Exited(1)), Some(1)),
            (Outcome::Stopped(End::Exited(143)), None),
            (Outcome::Stopped(End::Exited(130)), None),
            (Outcome::Stopped(End::Signalled(15)), None),
            (Outcome::Stopped(End::Signalled(11)), Some(139)),
            (Outcome::StoppedBetween, None),
            (Outcome::Killed, Some(137)),
        ] {
            let status = match status(outcome) {
                Ok(()) => None,
                Err(Failure::Status { status, .. }) => Some(status),
                Err(other) => panic!("{other}"),
            };
            assert_eq!(status, expected, "{outcome:?}");
        }
    }
}
