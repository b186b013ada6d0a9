//! `tidings token`: creates and shows tokens for browsers.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use tidings_auth::{
    Algorithm, CREDENTIAL_BYTES_MAX, IssuerConfig, IssuerKeyConfig, MercureRevision, NewOlderToken, NewToken,
    SigningKey, inspect, mint, mint_older,
};
use tidings_server::connections_for_file_limit;

use super::clock::now;
use crate::{
    config::{self, SettingFlags, read_secret_file, time},
    failure::Failure,
    output::{print_foreign, print_line, remark},
};

/// Create tokens for browsers, or show their contents
#[derive(Args, Debug)]
pub(super) struct Token {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    New(Box<New>),
    /// Print the contents of a token, without verifying it
    Show {
        /// The token; `-` or no argument reads standard input
        token: Option<String>,
        /// Print the contents alone, as one line of JSON
        #[arg(long)]
        json: bool,
    },
}

const EXAMPLES: &str = "\
Examples:
  tidings token new --config tidings.toml --subscribe user-42
  tidings token new --config tidings.toml --publish 'rooms/*' --expires 5m --json
  tidings token new --issuer https://app.example.com --audience https://hub.example.com/.well-known/mercure \\
    --key-file issuer.pem --subscribe user-42
  tidings token new --revision 0.x --secret-file secret --publish '*' --subscribe 'https://example.com/books/{id}'";

/// Sign a token and print it
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
struct New {
    /// Topic to which the token may publish, exact or with `*` as a URL Pattern, in revision 0.x
    /// exact, `*` or a URI Template; repeatable
    #[arg(long, value_name = "TOPIC")]
    publish: Vec<String>,
    /// Topic whose private events the token may receive; repeatable
    #[arg(long, value_name = "TOPIC")]
    subscribe: Vec<String>,
    /// Lifetime of the token
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time)]
    expires: Duration,
    /// The `sub` claim: the user of the token
    #[arg(long, default_value = "tidings-cli")]
    subject: String,
    /// The hub's configuration file, which names the issuer, the audience and, if it is shared, the
    /// secret; with several issuers, --issuer selects one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The `aud` claim, exactly as the hub is configured:
    /// https://hub.example.com/.well-known/mercure
    #[arg(long, value_name = "URL", required_unless_present_any = ["config", "revision"])]
    audience: Option<String>,
    /// The `iss` claim, as in the hub's [[issuer]]
    #[arg(long, value_name = "NAME", required_unless_present_any = ["config", "revision"])]
    issuer: Option<String>,
    /// Revision of the Mercure protocol: 1.0, or 0.x for a token with the claim `mercure`, which
    /// has no `iss` and no `aud` [default: that of the issuer in --config, otherwise 1.0]
    #[arg(long, value_name = "REVISION")]
    revision: Option<MercureRevision>,
    /// The `kid` of the key, written into the header of the token; with --config, selects one of the
    /// issuer's keys [default: that of the issuer's first key]
    #[arg(long, value_name = "ID")]
    kid: Option<String>,
    /// File with the secret of the hub's [[issuer]]
    #[arg(long, value_name = "FILE", conflicts_with = "key_file")]
    secret_file: Option<PathBuf>,
    /// File with the private key in PEM, whose public key the hub's [[issuer]] has
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Signature algorithm: HS256, HS384, HS512, RS256, ES256 or EdDSA [default: the one that fits
    /// the key]
    #[arg(long, value_name = "NAME")]
    algorithm: Option<Algorithm>,
    /// JSON object that the hub shows to other clients with the subscription
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    payload: Option<Map<String, Value>>,
    /// Print one JSON object, with the token and the time when it expires, in seconds since 1970
    #[arg(long)]
    json: bool,
}

fn json_object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))
}

impl Token {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.command {
            TokenCommand::New(new) => print_line(&new.sign()?),
            TokenCommand::Show { token, json } => show(token.as_deref(), json),
        }
    }
}

impl New {
    /// The token as it is printed.
    fn sign(self) -> Result<String, Failure> {
        if self.publish.is_empty() && self.subscribe.is_empty() {
            return Err(Failure::usage(
                "the token would grant nothing: give --publish TOPIC or --subscribe TOPIC",
            ));
        }
        let known = self.config.as_deref().map(|file| self.issuer_in(file)).transpose()?;
        let key = self.key(known.as_ref())?;
        let revision = known.as_ref().map(|known| known.revision).or(self.revision).unwrap_or_default();
        let issued_at = now();
        let expires_at = issued_at.saturating_add(self.expires.as_secs());
        let as_json = self.json;
        let minted = if revision == MercureRevision::Older {
            self.sign_older(&key, issued_at, expires_at)?
        } else {
            self.sign_current(&key, known, issued_at, expires_at)?
        };
        if as_json {
            return Ok(json!({ "token": minted, "expires_at": expires_at }).to_string());
        }
        Ok(minted)
    }

    fn sign_current(
        self,
        key: &SigningKey,
        known: Option<IssuerConfig>,
        issued_at: u64,
        expires_at: u64,
    ) -> Result<String, Failure> {
        let (known_issuer, known_audience) = match known {
            Some(mut known) => (Some(known.issuer), Some(known.audiences.swap_remove(0))),
            None => (None, None),
        };
        let needed = |value: Option<String>, flag: &str| {
            value.ok_or_else(|| {
                Failure::usage(format!("a token of revision 1.0 needs {flag}, or --config FILE"))
            })
        };
        let matchers = |texts: &[String]| texts.iter().map(|text| text.as_str().into()).collect();
        let token = NewToken {
            publish: matchers(&self.publish),
            subscribe: matchers(&self.subscribe),
            issuer: needed(self.issuer.or(known_issuer), "--issuer NAME")?,
            audience: needed(self.audience.or(known_audience), "--audience URL")?,
            subject: self.subject,
            issued_at,
            expires_at,
            payload: self.payload,
        };
        mint(&token, key).map_err(Failure::runtime)
    }

    fn sign_older(self, key: &SigningKey, issued_at: u64, expires_at: u64) -> Result<String, Failure> {
        // With --config it selects the issuer.
        let issuer = self.issuer.filter(|_| self.config.is_none());
        for (flag, given) in [("--audience", self.audience.is_some()), ("--issuer", issuer.is_some())] {
            if given {
                let reason = "has no effect on a token of revision 0.x, which names neither: leave it out";
                return Err(Failure::usage(format!("{flag}: {reason}")));
            }
        }
        for (flag, texts) in [("--publish", &self.publish), ("--subscribe", &self.subscribe)] {
            let pattern =
                texts.iter().find(|text| text.len() > 1 && text.contains('*') && !text.contains('{'));
            if let Some(pattern) = pattern {
                return Err(Failure::usage(format!(
                    "{flag}: revision 0.x has no URL Patterns such as {pattern:?}: write a URI Template, such as rooms/{{id}}"
                )));
            }
        }
        let token = NewOlderToken {
            subject: self.subject,
            issued_at,
            expires_at,
            publish: self.publish,
            subscribe: self.subscribe,
            payload: self.payload,
        };
        mint_older(&token, key).map_err(Failure::runtime)
    }

    fn key(&self, known: Option<&IssuerConfig>) -> Result<SigningKey, Failure> {
        let known_key = known.map(|known| self.key_in(known)).transpose()?.flatten();
        let kid = self.kid.clone().or_else(|| known_key.and_then(|key| key.kid.clone()));
        let (place, key) = match (&self.secret_file, &self.key_file, known_key) {
            (Some(path), _, _) => ("--secret-file", read_secret_file(path, "--secret-file")?),
            (None, Some(path), _) => ("--key-file", read_secret_file(path, "--key-file")?),
            (None, None, Some(known)) => ("--config", known.key.clone()),
            (None, None, None) if known.is_some() => {
                let reason = "the issuer has no key in this file: give its private key as --key-file";
                return Err(Failure::usage(format!("--config: {reason}")));
            }
            (None, None, None) => return Err(Failure::usage("give --secret-file, --key-file or --config")),
        };
        // The wrong kind of file would sign as well, but no hub would accept the token.
        let is_pem = key.expose().starts_with("-----BEGIN ");
        if is_pem != (place == "--key-file") {
            let advice = if is_pem {
                "the file holds a key in PEM: give the private key as --key-file"
            } else {
                "the file holds no key in PEM"
            };
            return Err(Failure::usage(format!("{place}: {advice}")));
        }
        let allowed = known.map_or(&[][..], |known| &known.algorithms);
        let fitting = allowed.iter().copied().find(|name| SigningKey::new(&key, Some(*name)).is_ok());
        let algorithm = self.algorithm.or(fitting).or(allowed.first().copied());
        SigningKey::new(&key, algorithm)
            .map(|key| key.with_kid(kid))
            .map_err(|error| Failure::usage(format!("{place}: {}", error.reason())))
    }

    fn issuer_in(&self, config: &Path) -> Result<IssuerConfig, Failure> {
        let config = config::load(Some(config), SettingFlags::default(), connections_for_file_limit())?;
        let mut issuers = config.auth.issuers;
        let refuse = |reason: &str| Failure::usage(format!("--config: the file {reason}"));
        if issuers.is_empty() {
            return Err(refuse("has no [[issuer]], so its hub accepts no tokens"));
        }
        let issuer = match &self.issuer {
            Some(name) => issuers
                .into_iter()
                .find(|issuer| issuer.issuer == *name)
                .ok_or_else(|| refuse("has no [[issuer]] with the `iss` of --issuer")),
            None if issuers.len() > 1 => Err(refuse("has several issuers: choose one with --issuer")),
            None => Ok(issuers.remove(0)),
        }?;
        if self.revision.is_some_and(|revision| revision != issuer.revision) {
            return Err(refuse("has this [[issuer]] for tokens of another revision: leave --revision out"));
        }
        Ok(issuer)
    }

    /// The key of an issuer that --kid selects, or its first one. A key that the file does not have
    /// may still be the one of --key-file.
    fn key_in<'a>(&self, issuer: &'a IssuerConfig) -> Result<Option<&'a IssuerKeyConfig>, Failure> {
        let Some(kid) = &self.kid else { return Ok(issuer.keys.first()) };
        let found = issuer.keys.iter().find(|key| key.kid.as_ref() == Some(kid));
        if found.is_none() && self.secret_file.is_none() && self.key_file.is_none() {
            return Err(Failure::usage("--kid: the issuer has no key of this id in the file of --config"));
        }
        Ok(found)
    }
}

/// Prints the contents of a token. Only a hub with the key can verify it.
fn show(token: Option<&str>, as_json: bool) -> Result<(), Failure> {
    let token = match token {
        None | Some("-") => {
            let mut text = String::new();
            io::stdin()
                .take(CREDENTIAL_BYTES_MAX as u64 + 2)
                .read_to_string(&mut text)
                .map_err(|error| Failure::runtime(format!("cannot read the token: {error}")))?;
            text
        }
        Some(token) => token.to_owned(),
    };
    let inspected = inspect(&token).map_err(Failure::runtime)?;
    let shown = json!({ "header": inspected.header, "claims": inspected.claims });
    if as_json {
        return print_foreign(&shown.to_string());
    }
    print_foreign(&serde_json::to_string_pretty(&shown).expect("maps with string keys serialize"))?;
    remark(&format!("The signature is not verified. {}", expiry(inspected.claims.get("exp"), now())));
    Ok(())
}

fn expiry(exp: Option<&Value>, now: u64) -> String {
    match exp.map(|exp| exp.as_f64().map(|secs| secs - Duration::from_secs(now).as_secs_f64())) {
        None => "It never expires, so a hub refuses it.".to_owned(),
        Some(None) => "Its `exp` is not a number, so a hub refuses it.".to_owned(),
        Some(Some(secs)) if secs > 0.0 => format!("It expires in {}.", rough(secs)),
        Some(Some(secs)) => format!("It expired {} ago.", rough(-secs)),
    }
}

/// A readable time, in the largest unit of which there are at least two.
fn rough(secs: f64) -> String {
    let units = [(86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes")];
    let (size, unit) = units.into_iter().find(|(size, _)| secs >= 2.0 * size).unwrap_or((1.0, "seconds"));
    format!("{:.0} {unit}", (secs / size).floor())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_shown_with_its_expiry() {
        let says = |exp: Value| expiry(Some(&exp), 1_000_000);
        assert_eq!(says(json!(1_003_599)), "It expires in 59 minutes.");
        assert_eq!(says(json!(1_000_100)), "It expires in 100 seconds.");
        assert_eq!(says(json!(1_000_000 + 3 * 86_400)), "It expires in 3 days.");
        assert_eq!(says(json!(990_000)), "It expired 2 hours ago.");
        assert!(says(json!("later")).contains("not a number"));
        assert!(expiry(None, 0).contains("never expires"));
    }
}
