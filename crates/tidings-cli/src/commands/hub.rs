//! The hub that a client command connects to.

use clap::Args;
use tidings_client::{Client, ClientError, Token};

use crate::failure::Failure;

const DEFAULT_URL: &str = "http://127.0.0.1:8080";

#[derive(Args)]
pub(super) struct HubArgs {
    /// URL of the hub; with a key, http://:KEY@127.0.0.1:8080
    #[arg(long, env = "TIDINGS_URL", default_value = DEFAULT_URL, hide_env_values = true)]
    url: String,
    /// A token, or the secret of a key; safer in the environment, because other users can see
    /// command lines
    #[arg(long, env = "TIDINGS_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl HubArgs {
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let token = self.token.as_deref().filter(|token| !token.is_empty()).map(Token::new);
        let token =
            token.transpose().map_err(|error| Failure::usage(format!("--token (TIDINGS_TOKEN): {error}")))?;
        Client::new(&self.url, token).map_err(|error| Failure::usage(format!("--url (TIDINGS_URL): {error}")))
    }

    /// The failure that an error is, with advice that names the flags.
    pub(super) fn explain(&self, error: &ClientError) -> Failure {
        match error {
            ClientError::Request(_) => Failure::Usage(error.to_string()),
            ClientError::Refused { status, .. } => {
                let has_credential = self.token.is_some() || self.url.contains('@');
                let advice = match status {
                    401 | 403 if !has_credential => "; give --token or TIDINGS_TOKEN",
                    404 => "; is the URL that of a hub?",
                    _ => "",
                };
                Failure::Refused(format!("{error}{advice}"))
            }
            ClientError::Connection(_) if self.url.starts_with(DEFAULT_URL) => Failure::Unavailable(format!(
                "{error}; is `tidings serve` running there? Name another hub with --url or TIDINGS_URL"
            )),
            error if error.is_transient() => Failure::Unavailable(error.to_string()),
            error => Failure::runtime(error),
        }
    }
}

impl std::fmt::Debug for HubArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubArgs").field("url", &tidings_net::redacted(&self.url)).finish_non_exhaustive()
    }
}
