//! `tidings ticket`: makes tickets for browsers, and the secrets that they are made with.

use std::{
    net::IpAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};
use serde_json::json;
use tidings::Validator;
use tidings_auth::{MintedTicket, NewTicket, TicketSecret, TicketSecretConfig, generate_key_secret};
use tidings_server::connections_for_file_limit;

use super::clock::now;
use crate::{
    config::{self, SettingFlags, read_secret_file, time},
    failure::Failure,
    output::print_line,
};

/// Create tickets: credentials in the URL of a plain EventSource
#[derive(Args, Debug)]
pub(super) struct Ticket {
    #[command(subcommand)]
    command: TicketCommand,
}

#[derive(Debug, Subcommand)]
enum TicketCommand {
    New(Box<New>),
    /// Generate a secret that tickets are made with, and print the configuration for the hub; the
    /// secret is not stored
    Secret {
        /// Id of the secret in the hub's configuration and in tickets
        #[arg(long, default_value = "1")]
        id: String,
        /// Print one JSON object, with the id and the secret
        #[arg(long)]
        json: bool,
    },
}

const EXAMPLES: &str = "\
Examples:
  tidings ticket new --config tidings.toml --topic user-42
  tidings ticket new --config tidings.toml --pattern '/rooms/:id' --expires 5m --label ann
  tidings ticket new --config tidings.toml --topic user-42 --json | jq -r .ticket";

/// Make a ticket and print it
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
struct New {
    /// Topic that the ticket allows to subscribe to; repeatable
    #[arg(long, value_name = "TOPIC")]
    topic: Vec<String>,
    /// URL Pattern that the ticket allows to subscribe to; repeatable
    #[arg(long, value_name = "PATTERN")]
    pattern: Vec<String>,
    /// Name under which streams are revoked together, such as the user
    #[arg(long)]
    label: Option<String>,
    /// Lifetime of the ticket, 24h at most
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time)]
    expires: Duration,
    /// Maximum streams that are open with this ticket at a time, on one hub [default: unlimited]
    #[arg(long, value_name = "N")]
    streams_max: Option<NonZeroU32>,
    /// Only clients at this address; of an IPv6 address the /64 network counts [default: any
    /// address]
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// The hub's configuration file, whose first [[ticket_secret]] is used
    #[arg(long, value_name = "FILE", conflicts_with_all = ["secret_file", "secret_id"], required_unless_present = "secret_file")]
    config: Option<PathBuf>,
    /// File with the secret, instead of --config
    #[arg(long, value_name = "FILE", requires = "secret_id")]
    secret_file: Option<PathBuf>,
    /// Id of that secret, as in the hub's [[ticket_secret]]
    #[arg(long, value_name = "ID", requires = "secret_file")]
    secret_id: Option<String>,
    /// Print one JSON object, with the ticket, its id and the time when it expires, in seconds since
    /// 1970, as `POST /tickets` answers
    #[arg(long)]
    json: bool,
}

impl Ticket {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.command {
            TicketCommand::New(new) => print_line(&new.make()?),
            TicketCommand::Secret { id, json } => print_secret(id, json),
        }
    }
}

impl New {
    /// The ticket as it is printed.
    fn make(self) -> Result<String, Failure> {
        if self.topic.is_empty() && self.pattern.is_empty() {
            return Err(Failure::usage(
                "the ticket would allow nothing: give --topic TOPIC or --pattern PATTERN",
            ));
        }
        let (secret, validator) = match (&self.config, self.secret_file, self.secret_id) {
            (Some(file), ..) => of_config(file)?,
            (None, Some(file), Some(id)) => {
                let secret = read_secret_file(&file, "--secret-file")?;
                (checked("--secret-file", &TicketSecretConfig { id, secret })?, Validator::default())
            }
            _ => return Err(Failure::usage("give --config, or --secret-file and --secret-id")),
        };
        let now = now();
        let ticket = NewTicket {
            topics: self.topic,
            patterns: self.pattern,
            label: self.label,
            issued_at: now,
            expires_at: now.saturating_add(self.expires.as_secs()),
            streams_max: self.streams_max,
            address: self.address,
        };
        let minted = ticket.mint(&secret, &validator).map_err(|error| Failure::usage(error.to_string()))?;
        if self.json {
            let MintedTicket { ticket, id, expires_at } = minted;
            return Ok(json!({ "ticket": ticket, "id": id, "expires_at": expires_at }).to_string());
        }
        Ok(minted.ticket)
    }
}

/// The first secret of a hub's configuration, and what the hub checks topics with.
fn of_config(file: &Path) -> Result<(TicketSecret, Validator), Failure> {
    let config = config::load(Some(file), SettingFlags::default(), connections_for_file_limit())?;
    let secret = config.auth.ticket_secrets.first().ok_or_else(|| {
        Failure::usage(
            "--config: the file has no [[ticket_secret]], so its hub accepts no tickets (`tidings ticket secret` generates one)",
        )
    })?;
    let validator = config.public_url.clone().map_or_else(Validator::default, Validator::new);
    Ok((checked("--config", secret)?, validator))
}

fn checked(place: &str, secret: &TicketSecretConfig) -> Result<TicketSecret, Failure> {
    TicketSecret::new(secret)
        .map_err(|error| Failure::usage(format!("{place}: {}: {}", error.setting(), error.reason())))
}

fn print_secret(id: String, as_json: bool) -> Result<(), Failure> {
    let secret = generate_key_secret();
    if as_json {
        return print_line(&json!({ "id": id, "secret": secret }).to_string());
    }
    let id = toml::Value::String(id);
    print_line(&format!(
        "{secret}\n\n\
         # This secret is shown once. Its holder can make tickets for every topic: store it where only the hub and the\n\
         # application that makes tickets can read it, and add these lines to the configuration file of\n\
         # `tidings serve --config FILE`. For a rotation, put the new secret first, and remove the old one a day later.\n\n\
         [[ticket_secret]]\n\
         id = {id}\n\
         secret = \"{secret}\""
    ))
}
