//! `tidings key`: generates secrets for servers.

use clap::{Args, Subcommand};
use serde_json::json;

use crate::{failure::Failure, output::print_line};

const EXAMPLES: &str = "\
Examples:
  tidings key new --name app
  tidings key new --name app --json | jq -r .secret > app.key";

/// Create keys for servers that publish
#[derive(Args, Debug)]
pub(super) struct Key {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Generate a secret and print the configuration for the hub; the secret is not stored
    #[command(after_help = EXAMPLES)]
    New {
        /// Name of the key in the hub's log
        #[arg(long, default_value = "server")]
        name: String,
        /// Print one JSON object, with the name and the secret
        #[arg(long)]
        json: bool,
    },
}

impl Key {
    pub(super) fn run(self) -> Result<(), Failure> {
        let KeyCommand::New { name, json } = self.command;
        let secret = tidings_auth::generate_key_secret();
        if json {
            return print_line(&json!({ "name": name, "secret": secret }).to_string());
        }
        let name = toml::Value::String(name);
        print_line(&format!(
            "{secret}\n\n\
             # This secret is shown once. Store it where your application can read it (Authorization: Bearer SECRET),\n\
             # and add these lines to the configuration file of `tidings serve --config FILE`:\n\n\
             [[key]]\n\
             name = {name}\n\
             secret = \"{secret}\"\n\
             publish = [\"*\"]\n\
             subscribe = [\"*\"]"
        ))
    }
}
