//! What `tidings run` adds to the configuration: the credentials of the application that it starts,
//! and the port that a platform expects it to listen on.
//!
//! The credentials are in memory and in the environment of the application, nowhere else. They stay
//! the same when the configuration is reloaded.

use std::env;

use tidings_auth::{AuthConfig, KeyConfig, Secret, TicketSecret, TicketSecretConfig, generate_key_secret};

use crate::failure::Failure;

/// `ID:SECRET`, which tickets are made with. Without it a secret is generated, and tickets are valid
/// only as long as this process lives.
pub(crate) const TICKET_SECRET: &str = "TIDINGS_TICKET_SECRET";
/// The variable in which platforms such as Heroku, Render, Fly and Cloud Run name the port.
pub(crate) const PORT: &str = "PORT";

/// The name of the application's key in logs.
const KEY_NAME: &str = "tidings run";
/// The id of a generated secret of tickets.
const TICKET_SECRET_ID: &str = "run";

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(crate) struct ApplicationAccess {
    key: Secret,
    /// The secret of the environment, which comes before those of the file.
    given: Option<TicketSecretConfig>,
    /// For a hub that has no other.
    generated: TicketSecretConfig,
    /// Where the hub listens, if nothing else says so.
    port: Option<u16>,
    /// Where the application listens, if nothing else says so.
    application_port: u16,
}

impl ApplicationAccess {
    /// Generates credentials, and reads the environment. The application listens on this port.
    pub(crate) fn from_environment(application_port: u16) -> Result<Self, Failure> {
        let variable = |name: &str| match env::var(name) {
            Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
            Err(env::VarError::NotPresent) => Ok(None),
            Err(env::VarError::NotUnicode(_)) => Err(Failure::usage(format!("{name}: it is not UTF-8"))),
        };
        Self::new(variable(TICKET_SECRET)?.as_deref(), variable(PORT)?.as_deref(), application_port)
    }

    fn new(ticket_secret: Option<&str>, port: Option<&str>, application_port: u16) -> Result<Self, Failure> {
        let port = port.map(|word| {
            let port = word.parse().ok().filter(|port| *port != 0);
            port.ok_or_else(|| {
                Failure::usage(format!(
                    "{PORT}: `{word}` is not a port to listen on: set a number from 1 to 65535, or give --listen"
                ))
            })
        });
        Ok(Self {
            key: Secret::new(generate_key_secret()),
            given: ticket_secret.map(read_ticket_secret).transpose()?,
            generated: TicketSecretConfig {
                id: TICKET_SECRET_ID.to_owned(),
                secret: Secret::new(generate_key_secret()),
            },
            port: port.transpose()?,
            application_port,
        })
    }

    /// The address of the hub, if nothing else names one.
    pub(super) fn listen_default(&self) -> Option<String> {
        self.port.map(|port| format!(":{port}"))
    }

    /// The address of the application, if nothing else names one.
    pub(super) fn upstream_default(&self) -> String {
        format!("http://127.0.0.1:{}", self.application_port)
    }

    /// Adds the credentials. New tickets are made with the first secret, which is the one that the
    /// application has.
    pub(super) fn add_to(&self, auth: &mut AuthConfig) {
        auth.keys.push(KeyConfig {
            name: KEY_NAME.to_owned(),
            secret: self.key.clone(),
            publish: vec!["*".into()],
            subscribe: vec!["*".into()],
            admin: true,
            streams_max: None,
        });
        if let Some(given) = &self.given {
            auth.ticket_secrets.retain(|other| other != given);
            auth.ticket_secrets.insert(0, given.clone());
        } else if auth.ticket_secrets.is_empty() {
            auth.ticket_secrets.push(self.generated.clone());
        }
    }

    /// The secret of the application's key.
    pub(crate) fn key(&self) -> &Secret {
        &self.key
    }
}

fn read_ticket_secret(text: &str) -> Result<TicketSecretConfig, Failure> {
    let (id, secret) = text.split_once(':').ok_or_else(|| {
        Failure::usage(format!(
            "{TICKET_SECRET}: it has no colon: write it as ID:SECRET, such as 1 and the secret that `tidings ticket secret` prints"
        ))
    })?;
    let config = TicketSecretConfig { id: id.to_owned(), secret: Secret::new(secret) };
    match TicketSecret::new(&config) {
        Ok(_) => Ok(config),
        Err(error) => {
            Err(Failure::usage(format!("{TICKET_SECRET}: the {} {}", part(&error), error.reason())))
        }
    }
}

/// Which of the two parts is wrong.
fn part(error: &tidings_auth::ConfigError) -> &'static str {
    if error.setting().ends_with("id") { "id" } else { "secret" }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "a-secret-with-more-than-32-bytes-in-it";

    fn ids(auth: &AuthConfig) -> Vec<&str> {
        auth.ticket_secrets.iter().map(|secret| secret.id.as_str()).collect()
    }

    fn other() -> TicketSecretConfig {
        TicketSecretConfig { id: "of-the-file".to_owned(), secret: Secret::new(SECRET) }
    }

    #[test]
    fn the_application_has_a_key_and_the_first_ticket_secret() {
        let generated = ApplicationAccess::new(None, None, 1).unwrap();
        let given = ApplicationAccess::new(Some(&format!("1:{SECRET}")), None, 1).unwrap();
        for (access, of_file, expected) in [
            (&generated, vec![], vec!["run"]),
            (&generated, vec![other()], vec!["of-the-file"]),
            (&given, vec![], vec!["1"]),
            (&given, vec![other()], vec!["1", "of-the-file"]),
        ] {
            let mut auth = AuthConfig { ticket_secrets: of_file, ..AuthConfig::default() };
            access.add_to(&mut auth);
            assert_eq!(ids(&auth), expected);
            assert!(auth.keys[0].admin && auth.keys[0].secret == *access.key());
        }
        let mut auth = AuthConfig { ticket_secrets: vec![other()], ..AuthConfig::default() };
        ApplicationAccess::new(Some(&format!("of-the-file:{SECRET}")), None, 1).unwrap().add_to(&mut auth);
        assert_eq!(ids(&auth), ["of-the-file"]);
    }

    #[test]
    fn generated_credentials_differ_and_are_not_shown() {
        let [one, other] = [(); 2].map(|()| ApplicationAccess::new(None, None, 1).unwrap());
        assert_ne!(one.key, other.key);
        assert_ne!(one.generated.secret, other.generated.secret);
        let shown = format!("{one:?}");
        assert!(
            !shown.contains(one.key.expose()) && !shown.contains(one.generated.secret.expose()),
            "{shown}"
        );
    }

    #[test]
    fn a_wrong_variable_is_refused_by_its_name_without_its_secret() {
        for (secret, port, part) in [
            (Some("4711"), None, "TIDINGS_TICKET_SECRET: it has no colon"),
            (Some("1:4711"), None, "TIDINGS_TICKET_SECRET: the secret has 4 bytes"),
            (Some(":a-4711-with-more-than-32-bytes-in-it"), None, "TIDINGS_TICKET_SECRET: the id "),
            (None, Some("http"), "PORT: `http` "),
            (None, Some("0"), "PORT: `0` "),
            (None, Some("65536"), "PORT: `65536` "),
        ] {
            let refused = ApplicationAccess::new(secret, port, 1).unwrap_err().to_string();
            assert!(refused.starts_with(part) && !refused.contains("4711"), "{refused}");
        }
        let access = ApplicationAccess::new(None, Some("8000"), 21_000).unwrap();
        assert_eq!(access.listen_default().as_deref(), Some(":8000"));
        assert_eq!(access.upstream_default(), "http://127.0.0.1:21000");
    }
}
