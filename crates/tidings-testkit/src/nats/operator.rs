//! A server whose users have JWTs, signed by an account that an operator has signed.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use serde_json::{Value, json};

/// An operator with one account, which may use JetStream.
#[expect(missing_debug_implementations, reason = "it consists of keys")]
pub struct NatsOperator {
    operator: KeyPair,
    system: KeyPair,
    account: KeyPair,
}

impl NatsOperator {
    /// An operator with new keys.
    pub fn new() -> Self {
        Self {
            operator: KeyPair::new_operator(),
            system: KeyPair::new_account(),
            account: KeyPair::new_account(),
        }
    }

    /// What a server that trusts this operator has in its configuration file.
    pub fn options(&self) -> anyhow::Result<String> {
        let operator = jwt(&self.operator, &self.operator.public_key(), json!({ "type": "operator" }), None)?;
        let unlimited = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        });
        let mut with_jetstream = unlimited.clone();
        for limit in ["mem_storage", "disk_storage", "streams", "consumer"] {
            with_jetstream[limit] = json!(-1);
        }
        let mut accounts = String::new();
        for (account, limits) in [(&self.system, unlimited), (&self.account, with_jetstream)] {
            let key = account.public_key();
            let jwt = jwt(&self.operator, &key, json!({ "type": "account", "limits": limits }), None)?;
            accounts.extend([&*key, ": ", &*jwt, "\n"]);
        }
        let system = self.system.public_key();
        Ok(format!(
            "operator: {operator}\nsystem_account: {system}\nresolver: MEMORY\nresolver_preload: {{\n{accounts}}}"
        ))
    }

    /// The credentials of a new user of the account, as nsc writes them into a file. Without an end
    /// they do not expire.
    pub fn creds(&self, expires_at: Option<SystemTime>) -> anyhow::Result<String> {
        let user = KeyPair::new_user();
        let claims = json!({ "type": "user", "subs": -1, "data": -1, "payload": -1 });
        let jwt = jwt(&self.account, &user.public_key(), claims, expires_at)?;
        let seed = user.seed()?;
        Ok(format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        ))
    }
}

impl Default for NatsOperator {
    fn default() -> Self {
        Self::new()
    }
}

/// A JWT as NATS has them.
fn jwt(
    issuer: &KeyPair,
    subject: &str,
    mut nats: Value,
    expires_at: Option<SystemTime>,
) -> anyhow::Result<String> {
    nats["version"] = json!(2);
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map(|since| since.as_secs());
    let mut claims = json!({
        "jti": subject, "iat": seconds(SystemTime::now())?, "iss": issuer.public_key(), "name": "tidings", "sub": subject, "nats": nats,
    });
    if let Some(end) = expires_at {
        claims["exp"] = json!(seconds(end)?);
    }
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let [header, claims] = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()));
    let signed = format!("{header}.{claims}");
    let signature = BASE64_URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes())?);
    Ok(format!("{signed}.{signature}"))
}
