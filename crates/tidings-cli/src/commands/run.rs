//! `tidings run`: the hub and one application, as one process and on one port. Apart from the
//! application it is `tidings serve`.

use std::ffi::OsString;

use clap::Args;

use super::{
    application::{Application, RestartPolicy, free_port},
    serve::Serve,
};
use crate::{config::ApplicationAccess, failure::Failure};

/// Run the hub and an application as one process: `tidings run -- gunicorn app:app`
///
/// The application gets the variables PORT, where it has to listen on 127.0.0.1; TIDINGS_URL, where it publishes, with a key in it; and
/// TIDINGS_TICKET_SECRET, with which it makes tickets. If the variable PORT is set and --listen is not, the hub listens on that port of
/// every address. Signals go to the application as well; when it ends for good, so does the hub, with the same status. docs/one-process.md
/// has the details.
#[derive(Args, Debug)]
pub(super) struct Run {
    #[command(flatten)]
    serve: Serve,
    /// When the application is started again after it has ended
    #[arg(long, value_name = "WHEN", default_value = "on-failure", env = "TIDINGS_RESTART", hide_env = true)]
    restart: RestartPolicy,
    /// The application and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Run {
    pub(super) fn run(mut self) -> Result<(), Failure> {
        let port = free_port()
            .map_err(|error| Failure::runtime(format!("there is no port for the application: {error}")))?;
        let access = ApplicationAccess::from_environment(port)?;
        self.serve.given.application = Some(access.clone());
        let application = Application { command: self.command, restart: self.restart, access };
        self.serve.start(Some(application))
    }
}
