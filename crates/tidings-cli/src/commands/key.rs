//! `tidings key`: secrets for servers.

use clap::{Args, Subcommand};

use crate::{failure::Failure, output::print_line};

/// Make keys for the servers that publish
#[derive(Args, Debug)]
pub(super) struct Key {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a secret and print the lines that give it to a hub; it is stored nowhere
    New {
        /// What the key is called in the hub's log
        #[arg(long, default_value = "server")]
        name: String,
    },
}

impl Key {
    pub(super) fn run(self) -> Result<(), Failure> {
        let KeyCommand::New { name } = self.command;
        let secret = tidings_auth::generate_key_secret();
        let name = toml::Value::String(name);
        print_line(&format!(
            "{secret}\n\n\
             # This secret is shown once. Keep it where your application finds it (Authorization: Bearer SECRET),\n\
             # and paste these lines into the file that `tidings serve --config FILE` reads:\n\n\
             [[key]]\n\
             name = {name}\n\
             secret = \"{secret}\"\n\
             publish = [\"*\"]\n\
             subscribe = [\"*\"]"
        ))
    }
}
